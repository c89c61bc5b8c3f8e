//! For the fuzzers and `tests/corpora.rs`: anything that mdns-sd may tell of the network, through `understand` to the cache.
//! Not in the hub package, and not here: the packets themselves, which mdns-sd parses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use mdns_sd::{ServiceInfo, TxtProperty};

use super::actor::understand;
use super::address::LocalPrefix;
use super::cache::{Cache, DiscoveryEvent, Kind, MAX_INSTANCES, Seen};
use super::search::Wanted;
use crate::node::NodeId;
use crate::onboarding::{Discriminator, MAX_DISCRIMINATOR};
use crate::plain;

/// Takes bytes from the front; zeros behind the end.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn bytes(&mut self, length: u8) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(usize::from(length).min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn text(&mut self, length: u8) -> String {
        String::from_utf8_lossy(self.bytes(length)).into_owned()
    }

    fn address(&mut self) -> IpAddr {
        match self.byte() % 2 {
            0 => Ipv4Addr::from(<[u8; 4]>::try_from(self.bytes(4)).unwrap_or_default()).into(),
            _ => Ipv6Addr::from(<[u8; 16]>::try_from(self.bytes(16)).unwrap_or_default()).into(),
        }
    }

    /// What is resolved under a name: half of the names are Matter's.
    fn seen(&mut self, kind: Kind, local: &[LocalPrefix]) -> Option<Seen> {
        let name = match (self.byte() % 4, kind) {
            (0, Kind::Commissionable) => format!("{:016X}", self.byte()),
            (0, Kind::Operational) => format!("{:016X}-{:016X}", self.byte() % 2, self.byte()),
            (length, _) => self.text(length * 16),
        };
        let port = u16::from_be_bytes([self.byte(), self.byte()]);
        let addresses: Vec<IpAddr> = (0..self.byte() % 20).map(|_| self.address()).collect();
        let property = |input: &mut Self| {
            let (key, value) = (input.byte() % 16, input.byte());
            TxtProperty::from((input.text(key), input.bytes(value)))
        };
        let txt: Vec<TxtProperty> = (0..self.byte() % 16).map(|_| property(self)).collect();
        let service =
            ServiceInfo::new(kind.service_type(), &name, "host.local.", addresses.as_slice(), port, txt).ok()?;
        understand(kind, &service.as_resolved_service(), local)
    }
}

/// Plays what is heard, and looks at what is then known.
pub fn heard(data: &[u8]) {
    let mut input = Input(data);
    let mut now = Instant::now();
    let local = [LocalPrefix { ip: Ipv4Addr::new(192, 0, 2, 1).into(), length: 24, interface: 2, loopback: false }];
    let mut cache = Cache::default();
    while !input.0.is_empty() {
        let kind = if input.byte() % 2 == 0 { Kind::Commissionable } else { Kind::Operational };
        let events = match input.byte() % 6 {
            0..=2 => input.seen(kind, &local).map(|seen| cache.handle_sighting(seen, now)).unwrap_or_default(),
            3 => {
                let gone = match kind {
                    Kind::Commissionable => cache.handle_commissionable_gone(&format!("{:016x}", input.byte()), now),
                    Kind::Operational => {
                        let fabric = u64::from(input.byte() % 2);
                        cache.handle_operational_gone(fabric, NodeId(input.byte().into()))
                    }
                };
                gone.into_iter().collect()
            }
            4 => {
                cache.handle_searches(vec![Discriminator::Short(input.byte() % 16)]);
                cache.handle_asked(u64::from(input.byte() % 2), NodeId(input.byte().into()));
                cache.handle_restart(kind, now);
                Vec::new()
            }
            _ => {
                now += Duration::from_millis(u64::from(input.byte()) * 100);
                cache.handle_query(now);
                cache.handle_timeout(now)
            }
        };
        events.iter().for_each(check);
    }
    assert!(cache.commissionable_entries().count() <= MAX_INSTANCES, "a flood grows without bound");
    assert!(cache.operational_nodes().len() <= MAX_INSTANCES, "a flood grows without bound");
    for short in 0..16 {
        let wanted = Wanted { discriminator: Discriminator::Short(short), vid_pid: None };
        assert!(wanted.fitting(&cache).iter().all(|node| node.txt.discriminator >> 8 == u16::from(short)));
    }
}

/// What everybody behind this may rely on.
fn check(event: &DiscoveryEvent) {
    let (DiscoveryEvent::Appeared(seen) | DiscoveryEvent::Updated(seen) | DiscoveryEvent::Gone(seen)) = event;
    let (addresses, port) = match seen {
        Seen::Commissionable(node) => {
            let digits = node.instance.len() == 16 && node.instance.bytes().all(|byte| byte.is_ascii_hexdigit());
            assert!(digits && node.txt.discriminator <= MAX_DISCRIMINATOR, "{node:?} is not Matter's");
            for text in [&node.txt.device_name, &node.txt.pairing_instruction, &node.txt.rotating_id] {
                let text = text.as_deref().unwrap_or_default();
                assert!(text.chars().all(plain::is_harmless), "{text:?} misleads a reader");
            }
            (&node.addresses, node.port)
        }
        Seen::Operational(node) => (&node.addresses, node.port),
    };
    assert!(port != 0 && (1..=16).contains(&addresses.len()), "nobody can be asked there");
    for address in addresses {
        assert!(!address.ip.is_multicast() && !address.ip.is_unspecified() && !address.ip.is_loopback(), "{address}");
    }
}
