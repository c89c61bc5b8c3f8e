//! The hub's UDP socket for Matter, and what it hears during a handshake.
//!
//! It keeps the addresses canonical (IPv4 as IPv4, a scope only on link-local addresses), so that rs-matter's table of
//! sessions compares them rightly; a failed send never ends the transport; and it notes whether a watched peer has
//! answered at all, and with which unsecured StatusReport: rs-matter says `Invalid` for every one of them.
//! Not here: Matter messages beyond that one.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::rc::Rc;

use async_io::Async;
use rs_matter::crypto::Crypto;
use rs_matter::error::{Error, ErrorCode};
use rs_matter::sc::{GeneralCode, OpCode, PROTO_ID_SECURE_CHANNEL, StatusReport};
use rs_matter::transport::network::{Address, NetworkMulticast, NetworkReceive, NetworkSend};
use rs_matter::transport::packet::PacketHdr;
use rs_matter::utils::storage::{ParseBuf, ReadBuf};
use socket2::{Domain, Protocol, Socket, Type};

use crate::node::is_unicast_link_local;

/// Binds `port` (0: any free one) for IPv6 and IPv4, or for IPv4 alone where the host has no IPv6.
///
/// # Errors
/// The port is taken, or sockets are not allowed.
pub fn bind(port: u16) -> io::Result<UdpSocket> {
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
pub fn canonical(address: SocketAddr) -> SocketAddr {
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

/// What a peer has said since a handshake with it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Heard {
    /// Any datagram.
    pub anything: bool,
    /// The last unsecured StatusReport that was no success.
    pub refusal: Option<Refusal>,
}

/// An unsecured StatusReport (Matter Core 4.11, appendix D).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// GeneralCode BUSY, or the secure channel's own code BUSY.
    pub busy: bool,
    /// ProtocolCode: 1 no shared trust roots, 2 invalid parameter, 4 busy.
    pub code: u16,
}

/// Peers whose answers are noted.
#[derive(Clone, Default)]
pub struct Watchers(Rc<RefCell<HashMap<SocketAddr, (usize, Heard)>>>);

impl Watchers {
    /// Begins to note what `peer` says. Two handshakes with one address share their notes.
    pub fn watch(&self, peer: SocketAddr) -> Watched {
        self.0.borrow_mut().entry(peer).or_default().0 += 1;
        Watched { peer, all: self.clone() }
    }

    fn note(&self, peer: SocketAddr, datagram: &[u8], crypto: impl Crypto) {
        if let Some((_, heard)) = self.0.borrow_mut().get_mut(&peer) {
            heard.anything = true;
            if let Some(refusal) = unsecured_refusal(datagram, crypto) {
                heard.refusal = Some(refusal);
            }
        }
    }
}

/// One handshake's notes.
pub struct Watched {
    peer: SocketAddr,
    all: Watchers,
}

impl Watched {
    /// What was heard until now.
    pub fn heard(&self) -> Heard {
        self.all.0.borrow().get(&self.peer).map(|(_, heard)| *heard).unwrap_or_default()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut all = self.all.0.borrow_mut();
        if let Some((users, _)) = all.get_mut(&self.peer) {
            *users -= 1;
            if *users == 0 {
                all.remove(&self.peer);
            }
        }
    }
}

fn unsecured_refusal(datagram: &[u8], crypto: impl Crypto) -> Option<Refusal> {
    let mut copy = datagram.to_vec();
    let mut buffer = ParseBuf::new(&mut copy);
    let mut header = PacketHdr::new();
    header.decode_plain_hdr(&mut buffer).ok()?;
    if header.plain.is_encrypted() {
        return None;
    }
    header.decode_remaining(crypto, None, 0, &mut buffer).ok()?;
    if header.proto.proto_id != PROTO_ID_SECURE_CHANNEL || header.proto.proto_opcode != OpCode::StatusReport as u8 {
        return None;
    }
    let mut payload = ReadBuf::new(buffer.as_slice());
    let report = StatusReport::read(&mut payload).ok()?;
    let busy = report.general_code == GeneralCode::Busy || report.proto_code == 4;
    (report.general_code != GeneralCode::Success).then_some(Refusal { busy, code: report.proto_code })
}

/// The socket as rs-matter uses it.
pub struct MatterSocket<C> {
    socket: Async<UdpSocket>,
    dual: bool,
    watchers: Watchers,
    crypto: C,
}

impl<C> MatterSocket<C> {
    /// # Errors
    /// The reactor does not take the socket.
    pub fn new(socket: UdpSocket, watchers: Watchers, crypto: C) -> io::Result<Self> {
        let dual = socket.local_addr()?.is_ipv6();
        Ok(Self { socket: Async::new_nonblocking(socket)?, dual, watchers, crypto })
    }
}

impl<C> NetworkSend for &MatterSocket<C> {
    async fn send_to(&mut self, data: &[u8], address: Address) -> Result<(), Error> {
        let peer = address.udp().ok_or(ErrorCode::NoNetworkInterface)?;
        let to = if self.dual { mapped(peer) } else { peer };
        // No route, no such interface, a full buffer: lost like any other datagram, and sent again by MRP.
        if let Err(error) = self.socket.send_to(data, to).await {
            tracing::debug!(%peer, %error, "a Matter datagram could not be sent");
        }
        Ok(())
    }
}

impl<C: Crypto> NetworkReceive for &MatterSocket<C> {
    async fn wait_available(&mut self) -> Result<(), Error> {
        // `peek_from` and not `readable`: only a datagram that is really there may claim the one receive buffer.
        if let Err(error) = self.socket.peek_from(&mut [0u8; 1]).await {
            tracing::debug!(%error, "the Matter socket reported an error");
        }
        Ok(())
    }

    async fn recv_from(&mut self, buffer: &mut [u8]) -> Result<(usize, Address), Error> {
        loop {
            match self.socket.recv_from(buffer).await {
                Ok((length, peer)) => {
                    let peer = canonical(peer);
                    self.watchers.note(peer, &buffer[..length], &self.crypto);
                    return Ok((length, Address::Udp(peer)));
                }
                // An ICMP error about an earlier datagram: nothing was received.
                Err(error) => tracing::debug!(%error, "the Matter socket reported an error"),
            }
        }
    }
}

impl<C> NetworkMulticast for &MatterSocket<C> {
    async fn join(&mut self, _: IpAddr) -> Result<(), Error> {
        Ok(())
    }

    async fn leave(&mut self, _: IpAddr) -> Result<(), Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matter::credentials::backend;

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
    fn an_unsecured_status_report_is_understood() {
        // Flags, session 0, security flags, counter; exchange flags, opcode 0x40, exchange, protocol 0; then the report.
        let mut datagram = vec![0, 0, 0, 0, 1, 0, 0, 0, 0, 0x40, 7, 0, 0, 0];
        datagram.extend([1, 0, 0, 0, 0, 0, 2, 0]);
        assert_eq!(unsecured_refusal(&datagram, backend()), Some(Refusal { busy: false, code: 2 }));
        datagram[14] = 8;
        datagram[20] = 4;
        assert_eq!(unsecured_refusal(&datagram, backend()), Some(Refusal { busy: true, code: 4 }));
        for length in 0..datagram.len() {
            assert_eq!(unsecured_refusal(&datagram[..length], backend()), None);
        }
    }

    #[test]
    fn a_taken_port_is_said() {
        let first = bind(0).expect("a free port");
        let port = first.local_addr().expect("bound").port();
        assert_eq!(bind(port).expect_err("taken").kind(), io::ErrorKind::AddrInUse);
    }
}
