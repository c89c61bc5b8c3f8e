//! Which commissionable node a code is for. Pure; the caller supplies what is known and the time.

use std::time::{Duration, Instant};

use super::cache::{Cache, Kind};
use crate::node::CommissionableNode;
use crate::onboarding::Discriminator;

/// A responder answers within 120 ms, but keeps still for a second after it has multicast the same record to anybody
/// (RFC 6762 6): the second query, a second after the first, must have had its answer too. The rest is for devices that are
/// busy.
pub(crate) const SETTLE: Duration = Duration::from_millis(1500);

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub discriminator: Discriminator,
    /// From the code, where it has them; 0 means "not told".
    pub vid_pid: Option<(u16, u16)>,
}

/// What the present knowledge says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SearchState {
    /// This one and no other.
    Found(CommissionableNode),
    Ambiguous(Vec<CommissionableNode>),
    /// Nothing to say before this time, unless something changes.
    WaitUntil(Instant),
    /// Nothing fits so far.
    Nothing,
}

impl Wanted {
    /// Whether a node may be the one. A product id of 0 is hidden by the device and contradicts nothing.
    pub(crate) fn fits(&self, node: &CommissionableNode) -> bool {
        let told = |code: u16, seen: Option<u16>| seen.is_none_or(|seen| code == 0 || seen == 0 || code == seen);
        self.discriminator.matches(node.txt.discriminator)
            && self.vid_pid.is_none_or(|(vid, pid)| told(vid, node.txt.vendor_id) && told(pid, node.txt.product_id))
    }

    /// The DNS-SD subtype under which the node can be asked for (Matter Core 4.3.1.3).
    pub(crate) fn subtype(&self) -> (Kind, String) {
        let subtype = match self.discriminator {
            Discriminator::Long(discriminator) => format!("_L{discriminator}"),
            Discriminator::Short(discriminator) => format!("_S{discriminator}"),
        };
        (Kind::Commissionable, format!("{subtype}._sub.{}", Kind::Commissionable.service_type()))
    }

    /// Judges what is known at `now`. Of two that have one socket the newer is meant: the other is tried after it.
    ///
    /// A long discriminator that fits exactly one node is answered at once. A short one only when every device has had
    /// the time to answer a query, and the match itself is not brand-new: others may be starting up beside it. Several
    /// matches are waited out as long, because one may be saying goodbye.
    pub(crate) fn judge(&self, cache: &Cache, now: Instant) -> SearchState {
        let mut fitting = cache
            .commissionable_entries()
            .filter(|entry| !entry.is_older_twin() && entry.node.txt.commissioning_mode != 0 && self.fits(&entry.node));
        let Some(first) = fitting.next() else { return SearchState::Nothing };
        let others: Vec<_> = fitting.collect();
        if others.is_empty() && matches!(self.discriminator, Discriminator::Long(_)) {
            return SearchState::Found(first.node.clone());
        }
        let newest = others.iter().map(|entry| entry.first_seen).fold(first.first_seen, Instant::max);
        let changed = cache.last_gone().map_or(newest, |gone| gone.max(newest));
        let settled = cache.rounds().settled_at(now).max(changed + SETTLE);
        if now < settled {
            SearchState::WaitUntil(settled)
        } else if others.is_empty() {
            SearchState::Found(first.node.clone())
        } else {
            let rest = others.iter().map(|entry| entry.node.clone());
            SearchState::Ambiguous(std::iter::once(first.node.clone()).chain(rest).collect())
        }
    }

    /// Every node that fits and has its window open, the one heard last first; what another record makes look like a leftover
    /// comes last, but it comes: anybody can send such a record.
    pub(crate) fn fitting(&self, cache: &Cache) -> Vec<CommissionableNode> {
        cache.candidates().into_iter().filter(|node| self.fits(node)).collect()
    }

    /// A node that would fit if its window were open.
    pub(crate) fn closed(&self, cache: &Cache) -> Option<CommissionableNode> {
        let fits = |node: &CommissionableNode| node.txt.commissioning_mode == 0 && self.fits(node);
        cache.commissionable_entries().map(|entry| &entry.node).find(|node| fits(node)).cloned()
    }
}

/// The times of the query rounds, from which follows whether everybody has had the chance to answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Rounds {
    oldest_open: Option<Instant>,
    last_settled: Option<Instant>,
}

impl Rounds {
    /// A round older than this says nothing about now: the idle rounds come every minute.
    const FRESH: Duration = Duration::from_secs(90);

    /// A query went out on all interfaces.
    pub(crate) fn handle_query(&mut self, now: Instant) {
        match self.oldest_open {
            Some(open) if now >= open + SETTLE => {
                self.last_settled = Some(open);
                self.oldest_open = Some(now);
            }
            Some(_) => {}
            None => self.oldest_open = Some(now),
        }
    }

    /// When there is (or was) a complete round; in the future where one is under way.
    pub(crate) fn settled_at(&self, now: Instant) -> Instant {
        match (self.last_settled, self.oldest_open) {
            (Some(settled), _) if now < settled + Self::FRESH => settled + SETTLE,
            (_, Some(open)) if now < open + Self::FRESH => open + SETTLE,
            // Nobody has asked for long: whoever searches now makes the actor ask, and this is looked at again then.
            _ => now + SETTLE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::cache::tests::{commissionable, sighting};

    const LONG: Wanted = Wanted { discriminator: Discriminator::Long(3840), vid_pid: None };
    const SHORT: Wanted = Wanted { discriminator: Discriminator::Short(15), vid_pid: None };

    fn cache(at: Instant, nodes: &[CommissionableNode]) -> Cache {
        let mut cache = Cache::default();
        cache.handle_query(at);
        for node in nodes {
            cache.handle_sighting(sighting(node), at);
        }
        cache
    }

    #[test]
    fn a_long_discriminator_is_answered_at_once() {
        let now = Instant::now();
        let node = commissionable("A", 3840, 1);
        assert_eq!(LONG.judge(&cache(now, std::slice::from_ref(&node)), now), SearchState::Found(node));
        assert_eq!(LONG.judge(&cache(now, &[commissionable("A", 3841, 1)]), now), SearchState::Nothing);
    }

    #[test]
    fn a_short_one_waits_until_all_have_answered() {
        let start = Instant::now();
        let node = commissionable("A", 3840, 1);
        let mut cache = cache(start, std::slice::from_ref(&node));
        assert_eq!(SHORT.judge(&cache, start), SearchState::WaitUntil(start + SETTLE));
        assert_eq!(SHORT.judge(&cache, start + SETTLE), SearchState::Found(node.clone()));

        let other = commissionable("B", 3900, 2);
        cache.handle_sighting(sighting(&other), start + SETTLE);
        let later = start + SETTLE * 2;
        assert_eq!(SHORT.judge(&cache, start + SETTLE), SearchState::WaitUntil(later));
        assert_eq!(SHORT.judge(&cache, later), SearchState::Ambiguous(vec![node, other]));
    }

    #[test]
    fn two_devices_with_one_long_discriminator_are_ambiguous() {
        let now = Instant::now();
        let nodes = [commissionable("A", 3840, 1), commissionable("B", 3840, 2)];
        assert_eq!(LONG.judge(&cache(now, &nodes), now + SETTLE), SearchState::Ambiguous(nodes.to_vec()));
    }

    #[test]
    fn vendor_and_product_narrow_but_a_hidden_product_fits() {
        let mut node = commissionable("A", 3840, 1);
        node.txt.vendor_id = Some(0xFFF1);
        node.txt.product_id = Some(0x8000);
        let wanted = |vid, pid| Wanted { vid_pid: Some((vid, pid)), ..SHORT };
        assert!(wanted(0xFFF1, 0x8000).fits(&node) && wanted(0xFFF1, 0).fits(&node));
        assert!(!wanted(0xFFF1, 0x8001).fits(&node) && !wanted(0xFFF2, 0x8000).fits(&node));
        node.txt.product_id = Some(0);
        assert!(wanted(0xFFF1, 0x8001).fits(&node));
    }

    #[test]
    fn candidates_come_in_the_order_in_which_they_were_heard_last() {
        let start = Instant::now();
        let [a, b, mut closed] = ["A", "B", "C"].map(|name| commissionable(name, 3840, name.as_bytes()[0]));
        closed.txt.commissioning_mode = 0;
        let mut cache = cache(start, &[a.clone(), commissionable("D", 3841, 4), closed]);
        cache.handle_sighting(sighting(&b), start + Duration::from_secs(1));
        assert_eq!(LONG.fitting(&cache), [b.clone(), a.clone()]);
        cache.handle_sighting(sighting(&a), start + Duration::from_secs(2));
        assert_eq!(LONG.fitting(&cache), [a, b]);
    }

    #[test]
    fn a_closed_window_is_told_apart_from_absence() {
        let now = Instant::now();
        let mut node = commissionable("A", 3840, 1);
        node.txt.commissioning_mode = 0;
        let cache = cache(now, std::slice::from_ref(&node));
        assert_eq!(LONG.judge(&cache, now + SETTLE), SearchState::Nothing);
        assert_eq!(LONG.closed(&cache), Some(node));
    }

    #[test]
    fn a_round_counts_when_it_is_complete_and_fresh() {
        let start = Instant::now();
        let mut rounds = Rounds::default();
        assert_eq!(rounds.settled_at(start), start + SETTLE);
        rounds.handle_query(start);
        // Asking again does not put it off.
        rounds.handle_query(start + SETTLE / 2);
        assert_eq!(rounds.settled_at(start + SETTLE / 2), start + SETTLE);
        let later = start + Duration::from_secs(60);
        rounds.handle_query(later);
        assert!(rounds.settled_at(later) <= later);
        let much_later = later + Duration::from_secs(600);
        assert_eq!(rounds.settled_at(much_later), much_later + SETTLE);
    }
}
