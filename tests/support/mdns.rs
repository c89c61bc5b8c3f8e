//! mDNS as a liar speaks it: packets written by hand, and an ear for what others multicast.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::{Duration, Instant};

use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};
use tokio::net::UdpSocket;

const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xFF02, 0, 0, 0, 0, 0, 0, 0xFB);

/// What a liar claims to be.
#[derive(Debug, Clone)]
pub struct Claim {
    /// `_matterc._udp` or `_matter._tcp`.
    pub service: &'static str,
    /// The instance name.
    pub instance: String,
    /// Subtypes, for instance `_L3840`.
    pub subtypes: Vec<String>,
    /// TXT strings.
    pub txt: Vec<String>,
    /// Where it claims to be.
    pub ip: Ipv6Addr,
    /// At which port.
    pub port: u16,
}

fn name(dotted: &str) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in dotted.split('.') {
        wire.push(u8::try_from(label.len()).expect("a label"));
        wire.extend(label.as_bytes());
    }
    wire.push(0);
    wire
}

fn record(owner: &str, rtype: u16, unique: bool, data: &[u8]) -> Vec<u8> {
    let mut wire = name(owner);
    wire.extend(rtype.to_be_bytes());
    wire.extend(if unique { [0x80, 1] } else { [0, 1] });
    // Over an hour.
    wire.extend(4500_u32.to_be_bytes());
    wire.extend(u16::try_from(data.len()).expect("short").to_be_bytes());
    wire.extend(data);
    wire
}

fn response(records: &[Vec<u8>]) -> Vec<u8> {
    let count = u16::try_from(records.len()).expect("few").to_be_bytes();
    let mut wire = vec![0, 0, 0x84, 0, 0, 0, count[0], count[1], 0, 0, 0, 0];
    records.iter().for_each(|record| wire.extend(record));
    wire
}

impl Claim {
    fn full_name(&self) -> String {
        format!("{}.{}.local", self.instance, self.service)
    }

    /// All that a device would say.
    pub fn whole(&self) -> Vec<u8> {
        let (full, host) = (self.full_name(), format!("h{}.local", self.instance));
        let mut records = vec![record(&format!("{}.local", self.service), 12, false, &name(&full))];
        for subtype in &self.subtypes {
            records.push(record(&format!("{subtype}._sub.{}.local", self.service), 12, false, &name(&full)));
        }
        let mut srv = vec![0, 0, 0, 0];
        srv.extend(self.port.to_be_bytes());
        srv.extend(name(&host));
        records.push(record(&full, 33, true, &srv));
        let txt: Vec<u8> = self.txt.iter().flat_map(|text| [&[text.len() as u8], text.as_bytes()].concat()).collect();
        records.push(record(&full, 16, true, &txt));
        records.push(record(&host, 28, true, &self.ip.octets()));
        response(&records)
    }
}

/// Nothing but names: each makes a careless listener ask for the rest.
pub fn names(claims: &[Claim]) -> Vec<u8> {
    let records: Vec<_> = claims
        .iter()
        .map(|claim| record(&format!("{}.local", claim.service), 12, false, &name(&claim.full_name())))
        .collect();
    response(&records)
}

/// A socket that multicasts over IPv6 and hears everything that is multicast over both families.
#[derive(Debug)]
pub struct Ear {
    v4: UdpSocket,
    v6: UdpSocket,
    index: u32,
}

impl Ear {
    /// On the interface with this name, in the namespace of the calling thread.
    pub fn open(interface: &str) -> Self {
        let interfaces = if_addrs::get_if_addrs().expect("interfaces");
        let found = interfaces.iter().find_map(|found| match found.ip() {
            IpAddr::V4(own) if found.name == interface => Some((found.index?, own)),
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        });
        let (index, own) = found.expect("an interface with an IPv4 address");
        let socket = |domain, address: SocketAddr| {
            let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP)).expect("a socket");
            socket.set_reuse_address(true).expect("shared");
            socket.set_reuse_port(true).expect("shared");
            socket.set_nonblocking(true).expect("non-blocking");
            socket.set_recv_buffer_size(8 << 20).expect("room");
            if domain == Domain::IPV6 {
                socket.set_only_v6(true).expect("one family");
            }
            socket.bind(&address.into()).expect("the port is shared");
            socket
        };
        let v4 = socket(Domain::IPV4, (GROUP_V4, 5353).into());
        v4.join_multicast_v4_n(&GROUP_V4, &InterfaceIndexOrAddress::Index(index)).expect("joined");
        v4.set_multicast_if_v4(&own).expect("an interface");
        let v6 = socket(Domain::IPV6, SocketAddrV6::new(GROUP_V6, 5353, 0, index).into());
        v6.join_multicast_v6(&GROUP_V6, index).expect("joined");
        v6.set_multicast_if_v6(index).expect("an interface");
        v6.set_multicast_loop_v6(false).expect("not to itself");
        let tokio = |socket: Socket| UdpSocket::from_std(socket.into()).expect("a runtime");
        Self { v4: tokio(v4), v6: tokio(v6), index }
    }

    /// Multicasts a packet.
    pub async fn say(&self, packet: &[u8]) {
        self.v6.send_to(packet, SocketAddrV6::new(GROUP_V6, 5353, 0, self.index)).await.expect("sent");
    }

    /// Listens until `until`, and counts the queries over each family.
    pub async fn count_queries(&self, until: Instant) -> (usize, usize) {
        let (mut v4, mut v6) = (0, 0);
        let (mut a, mut b) = ([0; 9000], [0; 9000]);
        let is_query = |packet: &[u8]| packet.get(2).is_some_and(|flags| flags & 0x80 == 0);
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until.into()) => return (v4, v6),
                Ok(length) = self.v4.recv(&mut a) => v4 += usize::from(is_query(&a[..length])),
                Ok(length) = self.v6.recv(&mut b) => v6 += usize::from(is_query(&b[..length])),
            }
        }
    }

    /// Says everything, so many packets a second.
    pub async fn flood(&self, packets: &[Vec<u8>], per_second: u32) {
        let start = Instant::now();
        for (n, packet) in (0_u32..).zip(packets) {
            self.say(packet).await;
            tokio::time::sleep_until((start + Duration::from_secs(1) * n / per_second).into()).await;
        }
    }
}
