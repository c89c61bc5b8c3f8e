//! Everything that announces itself now, and what changed. Pure: takes sightings and `now`, gives events.
//!
//! mdns-sd has a cache of DNS records with their lifetimes; this one has nodes. Not here: sockets and queries (`actor`).

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::search::Rounds;
use super::txt::parse_operational_instance;
use crate::node::{CommissionableNode, NodeId, OperationalNode, ScopedAddress};
use crate::onboarding::Discriminator;

/// More instances of one kind than this are a flood, not a home: a newcomer that nobody asked for is ignored, and one that is
/// searched takes the place of the newest other.
pub(crate) const MAX_INSTANCES: usize = 512;
/// After the record cache was emptied, a node that does not answer within this is gone. Several queries fit into it.
pub(crate) const RECONFIRM_WITHIN: Duration = Duration::from_secs(10);
/// The records of a node that does not answer when it is asked for them are gone by then: ten seconds (RFC 6762 10.4) and a bit.
const ANSWERED_WITHIN: Duration = Duration::from_millis(10_500);
/// And by then what is left of them was told again, for a round of queries has gone out since.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(15);

/// Something appeared on the LAN, changed, or went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiscoveryEvent {
    /// Not seen before, or again after it had gone.
    Appeared(Seen),
    /// Another address, port or TXT record.
    Updated(Seen),
    /// It said goodbye, or its records expired.
    Gone(Seen),
}

/// What an event is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// `_matterc._udp`.
    Commissionable(CommissionableNode),
    /// `_matter._tcp`, of any fabric.
    Operational(OperationalNode),
}

/// One commissionable node with its history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry<N> {
    pub node: N,
    /// When this instance name was first seen.
    pub first_seen: Instant,
    /// When it last announced itself or answered.
    pub last_heard: Instant,
    /// Since when it has to be confirmed.
    unconfirmed: Option<Instant>,
    /// When it was asked to answer for itself, first and last.
    asked: Option<(Instant, Instant)>,
    /// A newer instance has the same socket: a device that restarted without a goodbye has left this behind, or somebody
    /// lies about the other. So it is shown, and tried last.
    superseded: bool,
}

/// The nodes by instance name in lower case, for DNS names are case-insensitive.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    commissionable: HashMap<String, Entry<CommissionableNode>>,
    operational: HashMap<(u64, NodeId), Entry<OperationalNode>>,
    /// What is searched now, and the nodes that were asked for lately, the newest last: they stay in any flood.
    searched: Vec<Discriminator>,
    asked: VecDeque<(u64, NodeId)>,
    rounds: Rounds,
    last_gone: Option<Instant>,
}

impl Cache {
    /// A query for commissionable nodes went out on all interfaces.
    pub(crate) fn handle_query(&mut self, now: Instant) {
        self.rounds.handle_query(now);
    }

    /// A node announced itself or answered.
    pub(crate) fn handle_sighting(&mut self, seen: Seen, now: Instant) -> Vec<DiscoveryEvent> {
        match seen {
            Seen::Commissionable(node) => {
                let searched = |node: &CommissionableNode| {
                    self.searched.iter().any(|searched| searched.matches(node.txt.discriminator))
                };
                let useful = searched(&node);
                let key = node.instance.to_ascii_lowercase();
                let spare = |_: &String, other: &CommissionableNode| !searched(other);
                let Some(mut events) = make_room(&mut self.commissionable, &key, useful, spare, Seen::Commissionable)
                else {
                    return Vec::new();
                };
                events.extend(enter(&mut self.commissionable, key, node, Seen::Commissionable, now));
                if !events.is_empty() {
                    self.supersede();
                }
                events
            }
            Seen::Operational(node) => {
                let key = (node.compressed_fabric_id, node.node_id);
                let useful = self.asked.contains(&key);
                let spare = |other: &(u64, NodeId), _: &OperationalNode| !self.asked.contains(other);
                let Some(mut events) = make_room(&mut self.operational, &key, useful, spare, Seen::Operational) else {
                    return Vec::new();
                };
                events.extend(enter(&mut self.operational, key, node, Seen::Operational, now));
                events
            }
        }
    }

    /// These discriminators are searched now.
    pub(crate) fn handle_searches(&mut self, searched: Vec<Discriminator>) {
        self.searched = searched;
    }

    /// The hub asks for a node.
    pub(crate) fn handle_asked(&mut self, compressed_fabric_id: u64, node: NodeId) {
        let key = (compressed_fabric_id, node);
        if !self.asked.contains(&key) {
            self.asked.push_back(key);
            if self.asked.len() > MAX_INSTANCES {
                self.asked.pop_front();
            }
        }
    }

    /// A commissionable node said goodbye, or its records expired.
    pub(crate) fn handle_commissionable_gone(&mut self, instance: &str, now: Instant) -> Option<DiscoveryEvent> {
        let entry = self.commissionable.remove(&instance.to_ascii_lowercase())?;
        self.last_gone = Some(now);
        self.supersede();
        Some(DiscoveryEvent::Gone(Seen::Commissionable(entry.node)))
    }

    /// An operational node said goodbye, or its records expired.
    pub(crate) fn handle_operational_gone(
        &mut self,
        compressed_fabric_id: u64,
        node: NodeId,
    ) -> Option<DiscoveryEvent> {
        let entry = self.operational.remove(&(compressed_fabric_id, node))?;
        Some(DiscoveryEvent::Gone(Seen::Operational(entry.node)))
    }

    /// The record cache was emptied: mdns-sd will not tell when one of these goes, unless it answers again.
    pub(crate) fn handle_restart(&mut self, kind: Kind, now: Instant) {
        match kind {
            Kind::Commissionable => self.commissionable.values_mut().for_each(|entry| entry.doubt(now)),
            Kind::Operational => self.operational.values_mut().for_each(|entry| entry.doubt(now)),
        }
    }

    /// A node is asked to answer for itself. Until the records that it does not renew have gone, what mdns-sd tells of it may be a
    /// memory. That they went mdns-sd may never tell: it tells it under one service type only, and that may be a subtype.
    pub(crate) fn handle_confirm(&mut self, kind: Kind, instance: &str, now: Instant) {
        match kind {
            Kind::Commissionable => {
                if let Some(entry) = self.commissionable.get_mut(&instance.to_ascii_lowercase()) {
                    entry.ask(now);
                }
            }
            Kind::Operational => {
                let entry = parse_operational_instance(instance).and_then(|key| self.operational.get_mut(&key));
                if let Some(entry) = entry {
                    entry.ask(now);
                }
            }
        }
    }

    /// Whether some node still has to answer, after a restart or because it was asked to.
    pub(crate) fn has_unconfirmed(&self) -> bool {
        self.commissionable.values().any(Entry::is_in_doubt) || self.operational.values().any(Entry::is_in_doubt)
    }

    /// Drops what was not confirmed in time.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Vec<DiscoveryEvent> {
        let mut events = Vec::new();
        self.commissionable.retain(|_, entry| {
            let gone = entry.is_overdue(now);
            if gone {
                events.push(DiscoveryEvent::Gone(Seen::Commissionable(entry.node.clone())));
            }
            !gone
        });
        self.operational.retain(|_, entry| {
            let gone = entry.is_overdue(now);
            if gone {
                events.push(DiscoveryEvent::Gone(Seen::Operational(entry.node.clone())));
            }
            !gone
        });
        if !events.is_empty() {
            self.supersede();
        }
        events
    }

    /// Every commissionable node, oldest first.
    pub(crate) fn commissionable_entries(&self) -> impl Iterator<Item = &Entry<CommissionableNode>> {
        let mut entries: Vec<_> = self.commissionable.values().collect();
        entries.sort_by(|a, b| (a.first_seen, &a.node.instance).cmp(&(b.first_seen, &b.node.instance)));
        entries.into_iter()
    }

    /// Who has this address, and this port where it is named; the one heard last, where several do.
    pub(crate) fn commissionable_at(&self, ip: IpAddr, port: Option<u16>) -> Option<CommissionableNode> {
        let there = |node: &CommissionableNode| {
            port.is_none_or(|port| node.port == port) && node.addresses.iter().any(|address| address.ip == ip)
        };
        let entries = self.commissionable.values().filter(|entry| there(&entry.node));
        entries.max_by_key(|entry| entry.last_heard).map(|entry| entry.node.clone())
    }

    /// Every instance with an open window, to be tried: what was heard last first, for a device that came back is newer than what
    /// it left behind, and what seems to be a second name for a device last.
    pub(crate) fn candidates(&self) -> Vec<CommissionableNode> {
        let open = |entry: &&Entry<CommissionableNode>| entry.node.txt.commissioning_mode != 0;
        let mut entries: Vec<_> = self.commissionable.values().filter(open).collect();
        entries.sort_by(|a, b| {
            let key = |entry: &Entry<CommissionableNode>| (entry.superseded, std::cmp::Reverse(entry.last_heard));
            key(a).cmp(&key(b)).then_with(|| a.node.instance.cmp(&b.node.instance))
        });
        entries.into_iter().map(|entry| entry.node.clone()).collect()
    }

    /// Every operational node, of any fabric, in the order of fabric and node id.
    pub(crate) fn operational_nodes(&self) -> Vec<OperationalNode> {
        let mut nodes: Vec<_> = self.operational.values().map(|entry| entry.node.clone()).collect();
        nodes.sort_by_key(|node| (node.compressed_fabric_id, node.node_id));
        nodes
    }

    pub(crate) fn operational(&self, compressed_fabric_id: u64, node: NodeId) -> Option<&OperationalNode> {
        self.operational.get(&(compressed_fabric_id, node)).map(|entry| &entry.node)
    }

    /// The same where it has answered since the record cache was emptied last, and since it was asked to.
    pub(crate) fn confirmed_operational(&self, compressed_fabric_id: u64, node: NodeId) -> Option<&OperationalNode> {
        let entry = self.operational.get(&(compressed_fabric_id, node))?;
        (!entry.is_in_doubt()).then_some(&entry.node)
    }

    /// When a commissionable node last went. It may be back at once: the goodbye of one service takes the addresses of
    /// its host with it, and with them every other service there until they are asked for again.
    pub(crate) fn last_gone(&self) -> Option<Instant> {
        self.last_gone
    }

    pub(crate) fn rounds(&self) -> &Rounds {
        &self.rounds
    }

    /// Marks every instance whose socket a newer instance has.
    fn supersede(&mut self) {
        // The newest instance at each address and port.
        let mut newest: HashMap<(&ScopedAddress, u16), Instant> = HashMap::new();
        for entry in self.commissionable.values() {
            for address in &entry.node.addresses {
                let first_seen = newest.entry((address, entry.node.port)).or_insert(entry.first_seen);
                *first_seen = entry.first_seen.max(*first_seen);
            }
        }
        let is_older = |entry: &Entry<CommissionableNode>| {
            let newer =
                |address| newest.get(&(address, entry.node.port)).is_some_and(|newest| *newest > entry.first_seen);
            entry.node.addresses.iter().any(newer)
        };
        let older: HashSet<String> =
            self.commissionable.iter().filter(|(_, entry)| is_older(entry)).map(|(key, _)| key.clone()).collect();
        for (key, entry) in &mut self.commissionable {
            entry.superseded = older.contains(key.as_str());
        }
    }
}

/// The two service types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// `_matterc._udp.local.`
    Commissionable,
    /// `_matter._tcp.local.`
    Operational,
}

impl Kind {
    /// As mdns-sd wants it, with the final dot.
    pub(crate) fn service_type(self) -> &'static str {
        match self {
            Self::Commissionable => "_matterc._udp.local.",
            Self::Operational => "_matter._tcp.local.",
        }
    }
}

impl<N> Entry<N> {
    /// Whether a newer instance has the same socket.
    pub(crate) fn is_older_twin(&self) -> bool {
        self.superseded
    }

    fn doubt(&mut self, now: Instant) {
        self.unconfirmed.get_or_insert(now);
    }

    fn ask(&mut self, now: Instant) {
        self.asked = Some((self.asked.map_or(now, |(first, _)| first), now));
    }

    fn is_in_doubt(&self) -> bool {
        self.unconfirmed.is_some() || self.asked.is_some()
    }

    fn hear(&mut self, now: Instant) {
        self.last_heard = now;
        self.unconfirmed = None;
        self.asked = match self.asked {
            Some((_, last)) if now >= last + ANSWERED_WITHIN => None,
            // What was asked first is answered, what was asked last is not yet.
            Some((first, last)) if now >= first + ANSWERED_WITHIN => Some((last, last)),
            asked => asked,
        };
    }

    fn is_overdue(&self, now: Instant) -> bool {
        self.unconfirmed.is_some_and(|since| now >= since + RECONFIRM_WITHIN)
            || self.asked.is_some_and(|(first, _)| now >= first + CONFIRMED_WITHIN)
    }
}

/// Room for one more: `None` where there is none for it, else who had to go.
fn make_room<K: std::hash::Hash + Eq + Clone, N: Clone>(
    entries: &mut HashMap<K, Entry<N>>,
    newcomer: &K,
    useful: bool,
    spare: impl Fn(&K, &N) -> bool,
    seen: impl Fn(N) -> Seen,
) -> Option<Vec<DiscoveryEvent>> {
    if entries.len() < MAX_INSTANCES || entries.contains_key(newcomer) {
        return Some(Vec::new());
    }
    if !useful {
        return None;
    }
    let spares = entries.iter().filter(|(key, entry)| spare(key, &entry.node));
    let victim = spares.max_by_key(|(_, entry)| entry.first_seen).map(|(key, _)| key.clone())?;
    entries.remove(&victim).map(|entry| vec![DiscoveryEvent::Gone(seen(entry.node))])
}

fn enter<K: std::hash::Hash + Eq, N: Clone + PartialEq>(
    entries: &mut HashMap<K, Entry<N>>,
    key: K,
    node: N,
    seen: impl Fn(N) -> Seen,
    now: Instant,
) -> Option<DiscoveryEvent> {
    if let Some(entry) = entries.get_mut(&key) {
        entry.hear(now);
        if entry.node == node {
            return None;
        }
        entry.node = node.clone();
        return Some(DiscoveryEvent::Updated(seen(node)));
    }
    entries.insert(
        key,
        Entry {
            node: node.clone(),
            first_seen: now,
            last_heard: now,
            unconfirmed: None,
            asked: None,
            superseded: false,
        },
    );
    Some(DiscoveryEvent::Appeared(seen(node)))
}

#[cfg(test)]
pub(super) mod tests;
