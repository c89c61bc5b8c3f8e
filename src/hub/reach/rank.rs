//! In which order a node's addresses are tried, and which never. Pure: takes `now`.
//!
//! Devices announce addresses at which nobody hears them, and keep others that were given away since. All are tried side by
//! side, a little one after the other, so the order only decides who is first; what is left out here is never tried.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// An address that failed comes last for so long; then it may be as good as the others.
const REMEMBER_FAILURE: Duration = Duration::from_secs(15 * 60);

/// Where a node may be, as others tell.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hearsay<'a> {
    /// By mDNS now, best first.
    pub(super) announced: &'a [SocketAddr],
    pub(super) remembered: &'a [SocketAddr],
    /// What other nodes of ours have now.
    pub(super) taken: &'a BTreeSet<SocketAddr>,
    /// The hub's own addresses.
    pub(super) own: &'a [IpAddr],
}

/// What became of a node's addresses when they were tried.
#[derive(Debug, Clone, Default)]
pub(super) struct Trail {
    good: Option<SocketAddr>,
    failed: BTreeMap<SocketAddr, Instant>,
}

impl Trail {
    /// It answered at `peer`; what was tried earlier than that did not.
    pub(super) fn handle_answer(&mut self, peer: SocketAddr, tried: &[SocketAddr], now: Instant) {
        self.good = Some(peer);
        let earlier = tried.iter().take_while(|address| **address != peer);
        self.failed.extend(earlier.map(|address| (*address, now)));
        self.failed.remove(&peer);
    }

    /// It did not answer at `peer`, or somebody else did.
    pub(super) fn handle_failure(&mut self, peer: SocketAddr, now: Instant) {
        if self.good == Some(peer) {
            self.good = None;
        }
        self.failed.insert(peer, now);
    }

    /// Where it answered last.
    pub(super) fn good(&self) -> Option<SocketAddr> {
        self.good
    }

    /// Each address that is worth trying, once: where it answered last, then as announced, then as remembered; what failed
    /// a short time ago comes last.
    pub(super) fn rank(&self, known: Hearsay<'_>, now: Instant) -> Vec<SocketAddr> {
        // Where mDNS tells of other addresses only, the node has moved, and the last good one is a memory too.
        let is_current = |good: &SocketAddr| known.announced.is_empty() || known.announced.contains(good);
        // After a start the record tells: there it comes first.
        let last = self.good.or_else(|| known.remembered.first().copied());
        let good = last.filter(is_current);
        let all = good.iter().chain(known.announced).chain(&self.good).chain(known.remembered);
        let mut ranked: Vec<SocketAddr> = Vec::new();
        for address in all.filter(|address| known.allows(**address)) {
            if !ranked.contains(address) {
                ranked.push(*address);
            }
        }
        let failed = |address: &SocketAddr| self.failed.get(address).is_some_and(|at| now < *at + REMEMBER_FAILURE);
        ranked.sort_by_key(failed);
        ranked
    }
}

impl Hearsay<'_> {
    fn allows(self, address: SocketAddr) -> bool {
        let ip = address.ip();
        let is_peer = match ip {
            IpAddr::V4(v4) => !v4.is_unspecified() && !v4.is_broadcast() && !v4.is_multicast(),
            // A mapped one is the same address a second time.
            IpAddr::V6(v6) => !v6.is_unspecified() && !v6.is_multicast() && v6.to_ipv4_mapped().is_none(),
        };
        // A device on the hub's own host says so itself. What is only remembered may be the hub's by now, but for loopback:
        // it is remembered of those only that announced it there.
        let is_own = !ip.is_loopback() && self.own.contains(&ip);
        let is_announced = self.announced.contains(&address);
        address.port() != 0 && is_peer && (!is_own || is_announced) && (!self.taken.contains(&address) || is_announced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("a socket address")
    }

    fn host(n: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, n], 5540))
    }

    #[test]
    fn where_it_answered_last_comes_first_and_what_failed_comes_last() {
        let now = Instant::now();
        let (announced, remembered) = ([host(1), host(2), host(3)], [host(2), host(4)]);
        let known = Hearsay { announced: &announced, remembered: &remembered, ..EMPTY };
        let mut trail = Trail::default();
        assert_eq!(trail.rank(known, now), [host(2), host(1), host(3), host(4)], "as the record has it");

        trail.handle_answer(host(3), &[host(1), host(2), host(3), host(4)], now);
        assert_eq!(trail.good(), Some(host(3)));
        // 1 and 2 had a start and were silent; 4 had no chance.
        assert_eq!(trail.rank(known, now), [host(3), host(4), host(1), host(2)]);
        assert_eq!(trail.rank(known, now + REMEMBER_FAILURE), [host(3), host(1), host(2), host(4)]);

        trail.handle_failure(host(3), now);
        assert_eq!((trail.good(), trail.rank(known, now)[0]), (None, host(4)));
        trail.handle_answer(host(1), &[host(1)], now);
        assert_eq!(trail.rank(known, now), [host(1), host(4), host(2), host(3)], "an answer makes up for a failure");
    }

    #[test]
    fn news_of_another_place_come_before_the_memory_of_a_good_one() {
        let now = Instant::now();
        let mut trail = Trail::default();
        trail.handle_answer(host(1), &[host(1)], now);
        let silent = Hearsay { remembered: &[host(9), host(1)], ..EMPTY };
        assert_eq!(trail.rank(silent, now), [host(1), host(9)]);
        let moved = Hearsay { announced: &[host(2)], remembered: &[host(2)], ..EMPTY };
        assert_eq!(trail.rank(moved, now), [host(2), host(1)]);
    }

    #[test]
    fn what_cannot_be_the_node_is_never_tried() {
        let now = Instant::now();
        let trail = Trail::default();
        let never = [
            "255.255.255.255:5540",
            "224.0.0.251:5540",
            "[ff02::fb]:5540",
            "0.0.0.0:5540",
            "[::]:5540",
            "[::ffff:192.0.2.1]:5540",
            "192.0.2.1:0",
        ]
        .map(at);
        let (own, taken) = ([at("192.0.2.7:0").ip()], BTreeSet::from([host(8)]));
        let mine = [host(7), host(8), at("127.0.0.1:5540"), at("[::1]:5540")];
        let everything: Vec<_> = never.iter().chain(&mine).copied().collect();
        let remembered = Hearsay { remembered: &everything, own: &own, taken: &taken, ..EMPTY };
        assert_eq!(trail.rank(remembered, now), mine[2..]);
        // A device on the hub's own host announces just that, and whoever announces an address has not lost it.
        let announced = Hearsay { announced: &everything, remembered: &[], ..remembered };
        assert_eq!(trail.rank(announced, now), mine);
    }

    const EMPTY: Hearsay<'static> = Hearsay { announced: &[], remembered: &[], taken: &NOBODY, own: &[] };
    static NOBODY: BTreeSet<SocketAddr> = BTreeSet::new();
}
