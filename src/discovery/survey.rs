//! The network as discovery needs it, looked at from the hub alone: the interfaces, and whether a multicast datagram that the hub
//! sends comes back to it. What comes back has passed the kernel's routes and this machine's firewall both ways.
//!
//! Not here: what any of it means to a person (`hub::doctor`), who is on the network (`actor`).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::time::{Duration, Instant};

use serde::Serialize;
use socket2::{Domain, Protocol, Socket, Type};

use super::interfaces::{self, InterfaceState};
use crate::config::NetworkConfig;
use crate::plain;

/// Where mDNS is spoken (RFC 6762 3).
const MDNS_PORT: u16 = 5353;
/// Where Matter devices listen (Matter Core 2.5.6.3).
const MATTER_PORT: u16 = 5540;
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
/// The way through one kernel takes microseconds; a busy machine has this long.
const PATIENCE: Duration = Duration::from_secs(2);
/// A hub has few networks; what a container host has beyond this is not waited for.
const MAX_INTERFACES: usize = 16;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Survey {
    /// Every interface of the machine.
    pub interfaces: Vec<InterfaceState>,
    /// What came back, on those that take part.
    pub echoes: Vec<Echo>,
}

/// One datagram that was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Echo {
    pub interface: String,
    /// The version of IP: 4 or 6.
    pub family: u8,
    /// The port that it was sent to.
    pub port: u16,
    /// What became of it.
    pub outcome: EchoOutcome,
}

/// What became of a datagram.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum EchoOutcome {
    /// Our own multicast came back to us.
    Heard,
    /// It was sent, and nothing came.
    Silent,
    /// It could not be sent or listened for.
    Failed(String),
}

impl Echo {
    /// Whether this is mDNS itself, and not Matter's port.
    pub fn is_mdns(&self) -> bool {
        self.port == MDNS_PORT
    }
}

/// Looks at the interfaces, and listens for one datagram of each kind on each that takes part. Takes [`PATIENCE`] where nothing
/// comes back.
pub(crate) async fn survey(config: &NetworkConfig) -> Survey {
    let interfaces = interfaces::all(config);
    let questions = interfaces.iter().filter(|interface| interface.takes_part).take(MAX_INTERFACES).flat_map(|found| {
        // Nothing multicasts over IPv6 to itself alone.
        let v6 = found.v6.first().filter(|_| !found.loopback);
        let families = [found.v4.first().map(|ip| IpAddr::V4(*ip)), v6.map(|ip| IpAddr::V6(*ip))];
        let ports = [MDNS_PORT, MATTER_PORT];
        families
            .into_iter()
            .flatten()
            .flat_map(move |own| ports.map(|port| (found.name.clone(), found.index, own, port)))
    });
    // Threads belong to the network namespace of the thread that starts them, so these are no tasks of the runtime's pool.
    let asked: Vec<_> = questions
        .map(|(interface, index, own, port)| {
            let family = if own.is_ipv4() { 4 } else { 6 };
            let echo = move || match echo(index, own, port) {
                Ok(true) => EchoOutcome::Heard,
                Ok(false) => EchoOutcome::Silent,
                Err(error) => EchoOutcome::Failed(plain::cause(&error)),
            };
            let (answer, answered) = tokio::sync::oneshot::channel();
            let thread = std::thread::Builder::new().name("survey".to_owned());
            let started = thread.spawn(move || drop(answer.send(echo())));
            (Echo { interface, family, port, outcome: EchoOutcome::Silent }, started.map(|_| answered))
        })
        .collect();
    let mut echoes = Vec::with_capacity(asked.len());
    for (echo, answered) in asked {
        let outcome = match answered {
            Ok(answered) => answered.await.unwrap_or(EchoOutcome::Silent),
            Err(error) => EchoOutcome::Failed(plain::cause(&error)),
        };
        echoes.push(Echo { outcome, ..echo });
    }
    Survey { interfaces, echoes }
}

/// Sends a question to the group from one socket and waits for it on another. It asks for a name that nobody has, so that nobody
/// answers.
fn echo(interface: u32, own: IpAddr, port: u16) -> io::Result<bool> {
    let question = question();
    let (ear, mouth, group) = match own {
        IpAddr::V4(own) => {
            let open = || Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP));
            let (ear, mouth) = (open()?, open()?);
            share(&ear)?;
            ear.bind(&SocketAddrV4::new(GROUP_V4, port).into())?;
            ear.join_multicast_v4(&GROUP_V4, &own)?;
            mouth.bind(&SocketAddrV4::new(own, 0).into())?;
            mouth.set_multicast_if_v4(&own)?;
            mouth.set_multicast_loop_v4(true)?;
            mouth.set_multicast_ttl_v4(1)?;
            (ear, mouth, SocketAddr::from((GROUP_V4, port)))
        }
        IpAddr::V6(_) => {
            let open = || Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP));
            let (ear, mouth) = (open()?, open()?);
            share(&ear)?;
            ear.set_only_v6(true)?;
            ear.bind(&SocketAddrV6::new(GROUP_V6, port, 0, interface).into())?;
            ear.join_multicast_v6(&GROUP_V6, interface)?;
            mouth.set_multicast_if_v6(interface)?;
            mouth.set_multicast_loop_v6(true)?;
            mouth.set_multicast_hops_v6(1)?;
            (ear, mouth, SocketAddrV6::new(GROUP_V6, port, 0, interface).into())
        }
    };
    mouth.send_to(&question, &group.into())?;
    let ear = UdpSocket::from(ear);
    let give_up = Instant::now() + PATIENCE;
    let mut buffer = [0; 1500];
    loop {
        let left = give_up.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        ear.set_read_timeout(Some(left))?;
        match ear.recv(&mut buffer) {
            Ok(length) if buffer[..length] == *question => return Ok(true),
            // Somebody else's.
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Ok(false);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The port is mDNS's, which others listen on too.
fn share(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)
}

/// A query for the PTR record of a name that is made up each time (RFC 1035 4.1).
fn question() -> Vec<u8> {
    let name = format!("matterbind-{:016x}", rand::random::<u64>());
    let mut query = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in [name.as_str(), "local"] {
        query.push(u8::try_from(label.len()).expect("both are short"));
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 12, 0, 1]);
    query
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_is_one_question_with_a_name_of_its_own() {
        let (one, other) = (question(), question());
        assert_ne!(one, other);
        assert_eq!((one.len(), &one[..6], one[12]), (12 + 1 + 27 + 1 + 5 + 5, &[0, 0, 0, 0, 0, 1][..], 27));
        assert_eq!(&one[one.len() - 11..], b"\x05local\x00\x00\x0c\x00\x01");
    }
}
