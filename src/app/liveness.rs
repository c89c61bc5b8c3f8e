//! Who was heard of when, and who is asked next. Pure: takes `now`.
//!
//! A node that stops answering is flagged within 60 s: 34 s until it is asked, 5 s on the session that is kept, 9 s for a new
//! one. Not here: asking (`presence`), the flag in the record (`presence`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::node::NodeId;

/// A node that was silent for so long is asked.
const EVERY: Duration = Duration::from_secs(34);
/// Up to so much earlier, by node id: then they do not all come at once.
const SPREAD_MS: u64 = 6_000;
/// The pause before a silent node that announces itself is asked again: it is about to come back, or its announcement is
/// a memory of mDNS that fades within minutes.
const SOON: Duration = Duration::from_secs(1);
/// Tries with that pause.
const SOON_TRIES: u32 = 60;
/// The first pause for one that does not; it doubles. Its announcement has it asked at once.
const LATER: Duration = Duration::from_secs(15);
/// And the last.
const LATEST: Duration = Duration::from_secs(300);
/// When it was last heard of is written this often, to spare the disk.
const SAVE_EVERY: Duration = Duration::from_secs(300);

#[derive(Debug)]
struct Contact {
    last: Option<Timestamp>,
    due: Instant,
    asking: bool,
    /// The probe that counts: the answer of one that was overtaken by news says nothing any more.
    turn: u64,
    failures: u32,
    /// Whether the record is known to say `operational`.
    flagged_up: bool,
    saved: Option<Instant>,
}

/// All nodes.
#[derive(Debug, Default)]
pub(super) struct Liveness {
    nodes: BTreeMap<NodeId, Contact>,
}

impl Liveness {
    /// These are the nodes now.
    pub(super) fn know(&mut self, nodes: &BTreeSet<NodeId>, now: Instant) {
        self.nodes.retain(|node, _| nodes.contains(node));
        for node in nodes {
            let due = now + EVERY - spread(*node);
            self.nodes.entry(*node).or_insert(Contact {
                last: None,
                due,
                asking: false,
                turn: 0,
                failures: 0,
                flagged_up: false,
                saved: None,
            });
        }
    }

    /// The nodes to ask now, each with its turn; to be answered by [`Liveness::contact`], [`Liveness::failed`] or
    /// [`Liveness::later`].
    pub(super) fn begin_due(&mut self, now: Instant) -> Vec<(NodeId, u64)> {
        let due = self.nodes.iter_mut().filter(|(_, contact)| !contact.asking && contact.due <= now);
        due.map(|(node, contact)| {
            contact.asking = true;
            contact.turn += 1;
            (*node, contact.turn)
        })
        .collect()
    }

    /// When the next one is to be asked.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.nodes.values().filter(|contact| !contact.asking).map(|contact| contact.due).min()
    }

    /// It was heard of. True where the record has to be looked at: it may say otherwise, or not be up to date.
    pub(super) fn contact(&mut self, node: NodeId, now: Instant, at: Timestamp) -> bool {
        let Some(contact) = self.nodes.get_mut(&node) else { return false };
        *contact = Contact {
            last: Some(at),
            due: now + EVERY - spread(node),
            asking: false,
            turn: contact.turn + 1,
            failures: 0,
            ..*contact
        };
        let stale = contact.saved.is_none_or(|saved| now >= saved + SAVE_EVERY);
        let look = stale || !contact.flagged_up;
        if look {
            (contact.flagged_up, contact.saved) = (true, Some(now));
        }
        look
    }

    /// It was asked and did not answer; how often in a row. `None` where the question was overtaken by news.
    pub(super) fn failed(&mut self, node: NodeId, turn: u64, now: Instant, announced: bool) -> Option<u32> {
        let contact = self.nodes.get_mut(&node).filter(|contact| contact.turn == turn)?;
        contact.failures = contact.failures.saturating_add(1);
        (contact.asking, contact.flagged_up) = (false, false);
        let pause = match announced && contact.failures <= SOON_TRIES {
            true => SOON,
            false => (LATER * 2u32.pow(contact.failures.saturating_sub(1).min(8))).min(LATEST),
        };
        contact.due = now + pause;
        Some(contact.failures)
    }

    /// It could not be asked, through no fault of its own.
    pub(super) fn later(&mut self, node: NodeId, turn: u64, now: Instant) {
        if let Some(contact) = self.nodes.get_mut(&node).filter(|contact| contact.turn == turn) {
            (contact.asking, contact.due) = (false, now + SOON);
        }
    }

    /// Something speaks for or against it: it is asked at once.
    pub(super) fn doubt(&mut self, node: NodeId, now: Instant) {
        if let Some(contact) = self.nodes.get_mut(&node) {
            contact.due = contact.due.min(now);
        }
    }

    /// It announces itself anew: it is asked at once, where it is now, whatever is being asked where it was.
    pub(super) fn announced(&mut self, node: NodeId, now: Instant) {
        if let Some(contact) = self.nodes.get_mut(&node) {
            (contact.asking, contact.turn, contact.due) = (false, contact.turn + 1, now);
        }
    }

    /// When it was last heard of, since the start.
    pub(super) fn last(&self, node: NodeId) -> Option<Timestamp> {
        self.nodes.get(&node)?.last
    }
}

fn spread(node: NodeId) -> Duration {
    // Neighbouring ids lie far apart.
    Duration::from_millis(node.0.wrapping_mul(2_654_435_761) % SPREAD_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(1000);

    fn knowing() -> (Liveness, Instant) {
        let (mut liveness, now) = (Liveness::default(), Instant::now());
        liveness.know(&BTreeSet::from([NODE]), now);
        (liveness, now)
    }

    #[test]
    fn a_silent_node_is_asked_early_enough_to_be_flagged_within_a_minute() {
        let (mut liveness, now) = knowing();
        assert!(liveness.contact(NODE, now, Timestamp::UNIX_EPOCH), "the record may say otherwise");
        let due = liveness.next_due().unwrap();
        assert!(due > now + Duration::from_secs(20) && due <= now + EVERY);
        assert!(liveness.begin_due(due - Duration::from_millis(1)).is_empty());
        assert_eq!(liveness.begin_due(due).len(), 1);
        assert!(liveness.begin_due(due).is_empty() && liveness.next_due().is_none(), "it is being asked");
    }

    #[test]
    fn a_silent_node_that_announces_itself_is_asked_every_second() {
        let (mut liveness, now) = knowing();
        liveness.doubt(NODE, now);
        let (_, turn) = liveness.begin_due(now)[0];
        assert_eq!(liveness.failed(NODE, turn, now, true), Some(1));
        assert_eq!(liveness.next_due(), Some(now + SOON));
        for _ in 0..100 {
            liveness.failed(NODE, turn, now, false);
        }
        assert_eq!(liveness.next_due(), Some(now + LATEST));
        liveness.doubt(NODE, now);
        assert_eq!(liveness.begin_due(now).len(), 1, "its announcement has it asked at once");
        assert!(liveness.contact(NODE, now, Timestamp::UNIX_EPOCH), "its record says unreachable");
    }

    #[test]
    fn the_record_is_looked_at_rarely() {
        let (mut liveness, now) = knowing();
        assert!(liveness.contact(NODE, now, Timestamp::UNIX_EPOCH));
        assert!(!liveness.contact(NODE, now + EVERY, Timestamp::UNIX_EPOCH));
        assert!(liveness.contact(NODE, now + SAVE_EVERY, Timestamp::UNIX_EPOCH));
        assert_eq!(liveness.last(NODE), Some(Timestamp::UNIX_EPOCH));
    }

    #[test]
    fn nodes_that_are_gone_are_forgotten() {
        let (mut liveness, now) = knowing();
        liveness.know(&BTreeSet::new(), now);
        assert!(!liveness.contact(NODE, now, Timestamp::UNIX_EPOCH) && liveness.next_due().is_none());
        assert_eq!(liveness.failed(NODE, 0, now, true), None);
    }

    #[test]
    fn a_node_that_comes_back_elsewhere_need_not_wait_for_the_old_question() {
        let (mut liveness, now) = knowing();
        liveness.doubt(NODE, now);
        let (_, old) = liveness.begin_due(now)[0];
        liveness.announced(NODE, now);
        let (_, new) = liveness.begin_due(now)[0];
        assert!(liveness.contact(NODE, now, Timestamp::UNIX_EPOCH));
        for overtaken in [old, new] {
            assert_eq!(liveness.failed(NODE, overtaken, now, true), None);
        }
        assert!(liveness.next_due().unwrap() > now + SOON);
    }
}
