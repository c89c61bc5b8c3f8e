//! The hub's UDP socket for Matter.
//!
//! It keeps the addresses canonical (IPv4 as IPv4, a scope only on link-local addresses), so that rs-matter's table of
//! sessions compares them rightly; a failed send never ends the transport, but is told to the handshake that it belongs to;
//! it shows what passes to `heard`, `replies` and `implied`, and hands check-ins out. Not here: what they make of it.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::time::Instant;

use rs_matter::crypto::Crypto;
use rs_matter::transport::network::Address;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use crate::commissioning::ports::CheckInMessage;
use crate::matter::datagram::Datagram;
use crate::matter::heard::Watchers;
use crate::matter::implied::Questions;
use crate::matter::replies::Replies;
use crate::matter::waker::Activity;
use crate::node::{Peer, is_unicast_link_local};

/// Binds `port` (0: any free one) for IPv6 and IPv4, or for IPv4 alone where the host has no IPv6.
///
/// # Errors
/// The port is taken, or sockets are not allowed.
pub(crate) fn bind(port: u16) -> io::Result<UdpSocket> {
    let dual = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP)).and_then(|socket| {
        socket.set_only_v6(false)?;
        socket.bind(&SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0).into())?;
        Ok(socket)
    });
    let socket = match dual {
        Ok(socket) => socket,
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
        Err(_) => {
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
            socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port).into())?;
            socket
        }
    };
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// IPv4-mapped addresses become IPv4; a scope id stays only where it means something.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(IpAddr::V4(v4), v6.port()),
            None if is_unicast_link_local(*v6.ip()) => SocketAddrV6::new(*v6.ip(), v6.port(), 0, v6.scope_id()).into(),
            None => SocketAddrV6::new(*v6.ip(), v6.port(), 0, 0).into(),
        },
        SocketAddr::V4(_) => address,
    }
}

/// What the kernel wants on a dual-stack socket.
fn mapped(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) => SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into(),
        SocketAddr::V6(_) => address,
    }
}

/// See the module.
pub(crate) struct MatterSocket<C> {
    socket: AsyncFd<UdpSocket>,
    dual: bool,
    watchers: Watchers,
    replies: RefCell<Replies>,
    questions: Questions,
    /// Who sent the last datagram.
    last: Cell<Option<SocketAddr>>,
    activity: Activity,
    check_ins: mpsc::Sender<CheckInMessage>,
    crypto: C,
}

impl<C> MatterSocket<C> {
    /// # Errors
    /// The runtime does not take the socket.
    pub(crate) fn new(
        socket: UdpSocket,
        watchers: Watchers,
        questions: Questions,
        activity: Activity,
        check_ins: mpsc::Sender<CheckInMessage>,
        crypto: C,
    ) -> io::Result<Self> {
        let dual = socket.local_addr()?.is_ipv6();
        // Only what comes wakes the thread: told of room to send as well, it would wake once more for every datagram that left.
        // SAFETY: the socket is open for as long as it lives, and nobody else has it.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        let (replies, last) = (RefCell::default(), Cell::default());
        Ok(Self { socket, dual, watchers, replies, questions, last, activity, check_ins, crypto })
    }
}

/// Whether a send that failed will fail the next time, too: no route, no such interface, no address of that family, a packet
/// filter. A full buffer is none of these: the datagram is lost like any other, and sent again by MRP.
fn is_lasting(error: &io::Error) -> bool {
    use io::ErrorKind as E;
    matches!(
        error.kind(),
        E::NetworkUnreachable
            | E::HostUnreachable
            | E::NetworkDown
            | E::InvalidInput
            | E::AddrNotAvailable
            | E::PermissionDenied
            | E::Unsupported
    )
}

impl<C: Crypto> MatterSocket<C> {
    /// A failure is the peer's silence; it ends nothing.
    pub(super) fn send(&self, data: &[u8], peer: SocketAddr) {
        self.activity.note_traffic();
        let datagram = Datagram::read(data, &self.crypto);
        if let Some(datagram) = &datagram {
            if !self.replies.borrow_mut().allows(canonical(peer), datagram, Instant::now()) {
                return;
            }
            self.watchers.handle_sending(datagram);
            if datagram.unsecured.is_some() {
                self.questions.handle_unsecured_sent(data, &self.crypto, Instant::now());
            }
        }
        let to = if self.dual { mapped(peer) } else { peer };
        if let Err(error) = self.socket.get_ref().send_to(data, to) {
            tracing::debug!(%peer, %error, "a Matter datagram could not be sent");
            if let Some(datagram) = datagram.filter(|_| is_lasting(&error)) {
                self.watchers.handle_no_route(&datagram, error.to_string());
            }
        }
    }

    /// Comes back when a datagram is there, or an error about an earlier one.
    pub(super) async fn wait_available(&self) {
        if self.questions.is_mended() {
            return;
        }
        // `peek_from` and not `readable`: only a datagram that is really there may claim the one receive buffer.
        let there = self.socket.async_io(Interest::READABLE, |socket| socket.peek_from(&mut [0; 1]));
        if let Err(error) = there.await {
            tracing::debug!(%error, "the Matter socket reported an error");
        }
    }

    /// The datagram that is there. Nothing where there is none after all, or where rs-matter must not see it.
    pub(super) fn take(&self, buffer: &mut [u8]) -> Option<(usize, Address)> {
        if let (Some(mended), Some(peer)) = (self.questions.take_mended(), self.last.get()) {
            return Some((copy(&mended, buffer)?, Address::Udp(peer)));
        }
        match self.socket.get_ref().recv_from(buffer) {
            Ok((length, peer)) => {
                self.activity.note_traffic();
                let peer = canonical(peer);
                self.last.set(Some(peer));
                // What is no Matter message is left to rs-matter, which drops it.
                if let Some(datagram) = Datagram::read(&buffer[..length], &self.crypto) {
                    if let Some(payload) = datagram.check_in() {
                        // A flood of them is nobody's: what does not fit the queue is lost, like any datagram.
                        let _ = self.check_ins.try_send(CheckInMessage { from: peer, payload: payload.to_vec() });
                        return None;
                    }
                    self.replies.borrow_mut().handle_received(peer, &datagram);
                    if !self.watchers.handle_received(Peer::Udp(peer), &datagram, Instant::now()) {
                        return None;
                    }
                    if datagram.unsecured.is_some()
                        && let Some(mended) = self.questions.mend_unsecured(&buffer[..length], &self.crypto)
                    {
                        return Some((copy(&mended, buffer)?, Address::Udp(peer)));
                    }
                }
                Some((length, Address::Udp(peer)))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            // An ICMP error about an earlier datagram: nothing was received.
            Err(error) => {
                tracing::debug!(%error, "the Matter socket reported an error");
                None
            }
        }
    }
}

/// Nothing where there is no room for it.
fn copy(datagram: &[u8], buffer: &mut [u8]) -> Option<usize> {
    buffer.get_mut(..datagram.len())?.copy_from_slice(datagram);
    Some(datagram.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_compare_as_rs_matter_sees_them() {
        let same = |text: &str, expected: &str| {
            assert_eq!(canonical(text.parse().expect("an address")), expected.parse().expect("an address"));
        };
        same("[::ffff:192.0.2.1]:5540", "192.0.2.1:5540");
        same("[fe80::1%3]:5540", "[fe80::1%3]:5540");
        same("[fd00::1%3]:5540", "[fd00::1]:5540");
    }

    #[test]
    fn a_taken_port_is_said() {
        let first = bind(0).expect("a free port");
        let port = first.local_addr().expect("bound").port();
        assert_eq!(bind(port).expect_err("taken").kind(), io::ErrorKind::AddrInUse);
    }
}
