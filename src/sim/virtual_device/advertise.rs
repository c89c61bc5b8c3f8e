//! The device's DNS-SD responder (RFC 6762, Matter Core 4.3): announces what rs-matter publishes, answers, says goodbye.
//!
//! The messages are rs-matter's (`Host::{broadcast, respond}`); here are the sockets and the timing. The `mdns-sd` crate
//! is not used on this side: it registers one subtype for a service, a commissionable node has up to five (`_L _S _V _T
//! _CM`, Matter Core 4.3.1), and a controller that looks for one of the others would not find the device.
//! Not here: probing for name conflicts (names are random 64-bit numbers) and interfaces that appear later.

use std::future::poll_fn;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::task::Poll;
use std::time::Duration;

use rs_matter::Matter;
use rs_matter::transport::network::MatterLocalService;
use rs_matter::transport::network::mdns::builtin::{Host, RespondMode};
use rs_matter::transport::network::mdns::{MDNS_IPV4_BROADCAST_ADDR, MDNS_IPV6_BROADCAST_ADDR, MDNS_PORT};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;
use tokio::time::Instant;

use super::VirtualDeviceError;
use super::interface::Interface;

/// RFC 6762 10: records that contain a host name. rs-matter gives one TTL to all records of an answer.
const TTL_SECS: u32 = 120;
/// RFC 6762 8.3: the second announcement, one second after the first.
const ANNOUNCE_AGAIN: Duration = Duration::from_secs(1);
/// RFC 6762 6: an answer that others may give too waits this long, in milliseconds.
const SHARED_ANSWER_DELAY_MS: std::ops::Range<u64> = 20..120;
/// An mDNS message, RFC 6762 17.
const MAX_MESSAGE: usize = 9000;

/// One socket: one interface and one address family.
struct Link {
    socket: UdpSocket,
    group: SocketAddr,
    v4: Ipv4Addr,
    v6: Vec<Ipv6Addr>,
    name: String,
}

/// A message that waits for its time, and is sent only if it is still true then.
struct Pending {
    due: Instant,
    link: usize,
    service: MatterLocalService,
    message: Message,
}

#[derive(PartialEq, Eq)]
enum Message {
    Announcement,
    Goodbye,
    Answer(Vec<u8>),
}

/// The responder of one device.
pub(super) struct Advertiser {
    hostname: String,
    links: Vec<Link>,
}

/// What the device publishes at this moment.
pub(super) fn published(matter: &Matter<'_>) -> Vec<MatterLocalService> {
    let mut services = Vec::new();
    let all = matter.mdns_services(|service| {
        services.push(service);
        Ok(())
    });
    debug_assert!(all.is_ok(), "the closure never fails");
    services
}

impl Advertiser {
    /// Joins the mDNS groups on every interface; needs a tokio runtime.
    ///
    /// # Errors
    /// `Network` when no socket at all could be set up. A family that an interface lacks is left out.
    pub(super) fn open(hostname: String, interfaces: &[Interface]) -> Result<Self, VirtualDeviceError> {
        let mut links = Vec::new();
        let mut refused = None;
        for interface in interfaces {
            let v4 = interface.v4.map(|address| open_v4(address, interface.index));
            let v6 = (!interface.v6.is_empty()).then(|| open_v6(interface.index));
            for opened in [v4, v6].into_iter().flatten() {
                match opened {
                    Ok((socket, group)) => links.push(Link {
                        socket,
                        group,
                        v4: interface.v4.unwrap_or(Ipv4Addr::UNSPECIFIED),
                        v6: interface.v6.clone(),
                        name: interface.name.clone(),
                    }),
                    Err(error) => {
                        tracing::warn!(interface = interface.name, %error, "no mDNS here");
                        refused = Some(error);
                    }
                }
            }
        }
        match refused {
            Some(error) if links.is_empty() => Err(VirtualDeviceError::Network(error)),
            _ => Ok(Self { hostname, links }),
        }
    }

    /// Answers and announces until dropped; `changed` runs whenever rs-matter says that the services may have changed.
    pub(super) async fn run(&self, matter: &Matter<'_>, mut changed: impl FnMut()) {
        let mut announced = Vec::new();
        let mut icd_mode = matter.icd_mode();
        let mut pending = Vec::new();
        let mut packet = vec![0; MAX_MESSAGE];
        loop {
            let next = pending.iter().map(|pending: &Pending| pending.due).min();
            tokio::select! {
                () = matter.transport().wait_mdns() => {
                    changed();
                    if std::mem::replace(&mut icd_mode, matter.icd_mode()) != icd_mode {
                        // The same services say something else.
                        announced.clear();
                    }
                    self.announce_changes(matter, &mut announced, &mut pending);
                }
                (link, length, from) = self.receive(&mut packet) => {
                    self.answer(matter, link, &packet[..length], from, &mut pending).await;
                }
                () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            }
            self.send_due(matter, &mut pending).await;
        }
    }

    /// Withdraws everything, so that nobody keeps the device in a cache until the TTL ends.
    pub(super) async fn goodbye(&self, matter: &Matter<'_>) {
        for service in published(matter) {
            for (index, link) in self.links.iter().enumerate() {
                if let Some(message) = announcement(matter, &self.host(link), &service, 0) {
                    self.send(index, &message, link.group).await;
                }
            }
        }
    }

    fn announce_changes(
        &self,
        matter: &Matter<'_>,
        announced: &mut Vec<MatterLocalService>,
        pending: &mut Vec<Pending>,
    ) {
        let current = published(matter);
        let now = Instant::now();
        for service in current.iter().chain(announced.iter()) {
            if announced.contains(service) && current.contains(service) {
                continue;
            }
            tracing::debug!(?service, withdrawn = !current.contains(service), "mDNS service changed");
            for link in 0..self.links.len() {
                for due in [now, now + ANNOUNCE_AGAIN] {
                    let message = if current.contains(service) { Message::Announcement } else { Message::Goodbye };
                    pending.push(Pending { due, link, service: service.clone(), message });
                }
            }
        }
        *announced = current;
    }

    async fn send_due(&self, matter: &Matter<'_>, pending: &mut Vec<Pending>) {
        let now = Instant::now();
        let due: Vec<_> = pending.extract_if(.., |pending| pending.due <= now).collect();
        if due.is_empty() {
            return;
        }
        let current = published(matter);
        for Pending { link, service, message, .. } in due {
            let live = current.contains(&service);
            let host = self.host(&self.links[link]);
            let message = match message {
                Message::Announcement if live => announcement(matter, &host, &service, TTL_SECS),
                Message::Goodbye if !live => announcement(matter, &host, &service, 0),
                Message::Answer(message) if live => Some(message),
                Message::Announcement | Message::Goodbye | Message::Answer(_) => None,
            };
            if let Some(message) = message {
                self.send(link, &message, self.links[link].group).await;
            }
        }
    }

    async fn answer(
        &self,
        matter: &Matter<'_>,
        link: usize,
        query: &[u8],
        from: SocketAddr,
        pending: &mut Vec<Pending>,
    ) {
        let legacy = from.port() != MDNS_PORT;
        for service in published(matter) {
            let mut scratch = [0; 1024];
            let mut message = vec![0; MAX_MESSAGE];
            let Ok((description, _)) = service.service(matter, &mut scratch) else { continue };
            let host = self.host(&self.links[link]);
            let Ok((length, mode)) = host.respond(&description, query, &mut message, TTL_SECS, legacy) else {
                continue;
            };
            message.truncate(length);
            let wait = match mode {
                RespondMode::Skip => continue,
                RespondMode::Unicast => {
                    self.send(link, &message, from).await;
                    continue;
                }
                RespondMode::Multicast { delay: false } => 0,
                RespondMode::Multicast { delay: true } => rand::random_range(SHARED_ANSWER_DELAY_MS),
            };
            // Several controllers that ask at once get one answer.
            let message = Message::Answer(message);
            if !pending.iter().any(|other| other.link == link && other.message == message) {
                let due = Instant::now() + Duration::from_millis(wait);
                pending.push(Pending { due, link, service, message });
            }
        }
    }

    fn host<'a>(&'a self, link: &'a Link) -> Host<'a> {
        Host { hostname: &self.hostname, ip: link.v4, ipv6: &link.v6 }
    }

    /// The next packet on any link. Cancel safe: a packet is taken only when this returns.
    async fn receive(&self, packet: &mut [u8]) -> (usize, usize, SocketAddr) {
        poll_fn(|cx| {
            for (index, link) in self.links.iter().enumerate() {
                let mut buf = ReadBuf::new(packet);
                match link.socket.poll_recv_from(cx, &mut buf) {
                    Poll::Ready(Ok(from)) => return Poll::Ready((index, buf.filled().len(), from)),
                    // An ICMP answer to something sent earlier, or an interface that went down; mDNS has no peer to lose.
                    Poll::Ready(Err(error)) => tracing::debug!(interface = link.name, %error, "mDNS receive"),
                    Poll::Pending => {}
                }
            }
            Poll::Pending
        })
        .await
    }

    async fn send(&self, link: usize, message: &[u8], to: SocketAddr) {
        let link = &self.links[link];
        if let Err(error) = link.socket.send_to(message, to).await {
            tracing::debug!(interface = link.name, %to, %error, "mDNS send");
        }
    }
}

/// The unsolicited response that announces (`ttl` > 0) or withdraws (`ttl` 0) a service with all its subtypes.
fn announcement(matter: &Matter<'_>, host: &Host<'_>, service: &MatterLocalService, ttl: u32) -> Option<Vec<u8>> {
    let mut scratch = [0; 1024];
    let mut message = vec![0; MAX_MESSAGE];
    let (description, _) = service.service(matter, &mut scratch).ok()?;
    // The host's addresses stay when one of its services goes.
    let length = host.broadcast(&description, &mut message, TTL_SECS, ttl).ok()?;
    message.truncate(length);
    Some(message)
}

fn open_v4(address: Ipv4Addr, index: u32) -> std::io::Result<(UdpSocket, SocketAddr)> {
    let socket = open(Domain::IPV4)?;
    // Linux hands a socket the packets of every group that anyone on the host joined, unless told not to.
    socket.set_multicast_all_v4(false)?;
    socket.join_multicast_v4_n(&MDNS_IPV4_BROADCAST_ADDR, &socket2::InterfaceIndexOrAddress::Index(index))?;
    socket.set_multicast_if_v4(&address)?;
    socket.set_multicast_ttl_v4(255)?;
    socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, MDNS_PORT).into())?;
    let group = SocketAddrV4::new(MDNS_IPV4_BROADCAST_ADDR, MDNS_PORT).into();
    Ok((UdpSocket::from_std(socket.into())?, group))
}

fn open_v6(index: u32) -> std::io::Result<(UdpSocket, SocketAddr)> {
    let socket = open(Domain::IPV6)?;
    socket.set_only_v6(true)?;
    socket.set_multicast_all_v6(false)?;
    socket.join_multicast_v6(&MDNS_IPV6_BROADCAST_ADDR, index)?;
    socket.set_multicast_if_v6(index)?;
    socket.set_multicast_hops_v6(255)?;
    socket.bind(&SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, MDNS_PORT, 0, 0).into())?;
    let group = SocketAddrV6::new(MDNS_IPV6_BROADCAST_ADDR, MDNS_PORT, 0, index).into();
    Ok((UdpSocket::from_std(socket.into())?, group))
}

/// A socket that shares port 5353 with every other responder and querier on this host.
fn open(family: Domain) -> std::io::Result<Socket> {
    let socket = Socket::new(family, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use rs_matter::crypto::test_only_crypto;
    use rs_matter::dm::devices::test::{TEST_DEV_ATT, TEST_DEV_COMM, TEST_DEV_DET};

    use super::*;

    fn contains(message: &[u8], label: &str) -> bool {
        let mut encoded = vec![label.len() as u8];
        encoded.extend_from_slice(label.as_bytes());
        message.windows(encoded.len()).any(|window| window == encoded)
    }

    #[test]
    fn a_commissionable_device_is_announced_under_every_subtype() {
        let matter = Matter::new(&TEST_DEV_DET, TEST_DEV_COMM, &TEST_DEV_ATT, 5540);
        assert!(published(&matter).is_empty());
        matter.open_basic_comm_window(900, test_only_crypto(), &()).unwrap();
        let services = published(&matter);
        let host = Host { hostname: "0011223344556677", ip: Ipv4Addr::LOCALHOST, ipv6: &[Ipv6Addr::LOCALHOST] };
        let message = announcement(&matter, &host, &services[0], TTL_SECS).unwrap();
        for label in ["_L3840", "_S15", "_V65521", "_CM", "_matterc", "0011223344556677"] {
            assert!(contains(&message, label), "{label}");
        }
        assert!(contains(&message, "D=3840") && contains(&message, "VP=65521+32769") && contains(&message, "CM=1"));
        let goodbye = announcement(&matter, &host, &services[0], 0).unwrap();
        assert_eq!(goodbye.len(), message.len());
        assert_ne!(goodbye, message);
    }
}
