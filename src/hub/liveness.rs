//! Who was heard of when, who is asked next, and how long its answer is waited for. Pure: takes `now`.
//!
//! A node that stops answering is flagged within 60 s: 34 s until it is asked, 3 s on the session that is kept, 8 s for a new
//! one. So is each of a hundred that stop together: the questions are spread, and where some have to wait for a place,
//! nobody's answer is waited for longer than a device on the LAN takes. A node that is back never waits for those that are
//! not. Sleepy nodes are asked by their own rhythm (`node::SessionParameters`), and those that check in are not asked at all: they
//! hear nothing while they sleep, and say themselves that they live. Not here: asking, and the flag in the record (`probe`).

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::node::{NodeId, SessionParameters};

/// A node that was silent for so long is asked.
const EVERY: Duration = Duration::from_secs(34);
/// Up to so much earlier, by node id: then they do not all come at once.
const SPREAD_MS: u64 = 20_000;
/// Nodes asked side by side. A handshake takes two of the Matter stack's 64 sessions for its time.
const PLACES: usize = 14;
/// More of them for nodes that announce themselves anew.
const PLACES_FOR_RETURNS: usize = 4;
/// Those that did not answer before are asked while fewer than so many are: they must not keep others waiting.
const PLACES_FOR_SILENT: usize = 8;
/// How long a new session may take.
const PATIENCE: Duration = Duration::from_secs(8);
/// The same while others wait: MRP has sent the first message four times by then.
const HURRIED: Duration = Duration::from_secs(4);
/// The pause before a silent node that announces itself is asked again: it is about to come back, or its announcement is
/// a memory of mDNS, which fades within seconds now that it is doubted.
const SOON: Duration = Duration::from_secs(1);
/// Tries with that pause.
const SOON_TRIES: u32 = 60;
/// The first pause for one that does not; it doubles. Its announcement has it asked at once.
const LATER: Duration = Duration::from_secs(15);
/// And the last.
const LATEST: Duration = Duration::from_secs(300);
/// When it was last heard of is written this often, to spare the disk.
const SAVE_EVERY: Duration = Duration::from_secs(300);

/// How it is known that a node lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pulse {
    /// It is asked, as it listens.
    Asked(SessionParameters),
    /// It checks in; it is silent when it has said nothing for so long.
    ChecksIn(Duration),
}

#[derive(Debug)]
struct Contact {
    pulse: Pulse,
    last: Option<Timestamp>,
    due: Instant,
    asking: bool,
    /// The probe that counts: the answer of one that was overtaken by news says nothing any more.
    number: u64,
    failures: u32,
    /// It announced itself anew and was not asked since.
    returned: bool,
    /// Whether the record is known to say `operational`.
    flagged_up: bool,
    saved: Option<Instant>,
}

/// One node to ask now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) node: NodeId,
    pub(super) number: u64,
    /// How long a new session may take.
    pub(super) patience: Duration,
    /// Its sleep comes on top of that, and one missed question says little.
    pub(super) sleepy: bool,
}

impl Contact {
    /// How long it may be silent before it is asked.
    fn pause(&self) -> Duration {
        match self.pulse {
            Pulse::Asked(rhythm) => rhythm.ask_after().unwrap_or(EVERY),
            Pulse::ChecksIn(patience) => patience,
        }
    }

    fn is_sleepy(&self) -> bool {
        match self.pulse {
            Pulse::Asked(rhythm) => rhythm.is_sleepy(),
            Pulse::ChecksIn(_) => true,
        }
    }

    /// Whether it may be asked at all: one that checks in is awake only when it has announced itself anew.
    fn is_asked(&self) -> bool {
        matches!(self.pulse, Pulse::Asked(_)) || self.returned
    }

    /// How many may be asked side by side for this one to be asked too.
    fn places(&self) -> usize {
        match (self.returned, self.failures) {
            (true, _) => PLACES + PLACES_FOR_RETURNS,
            (false, 0) => PLACES,
            (false, _) => PLACES_FOR_SILENT,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Liveness {
    nodes: BTreeMap<NodeId, Contact>,
}

impl Liveness {
    /// These are the nodes now, each with what it says of how it listens.
    pub(super) fn know(&mut self, nodes: &BTreeMap<NodeId, Pulse>, now: Instant) {
        self.nodes.retain(|node, _| nodes.contains_key(node));
        for (node, pulse) in nodes {
            let due = match pulse {
                // Nothing was heard of it since the start, so a sleepy one is asked once as early as the others.
                Pulse::Asked(_) => now + EVERY - spread(*node),
                Pulse::ChecksIn(patience) => now + *patience,
            };
            let contact = self.nodes.entry(*node).or_insert(Contact {
                pulse: *pulse,
                last: None,
                due,
                asking: false,
                number: 0,
                failures: 0,
                returned: false,
                flagged_up: false,
                saved: None,
            });
            let checks_in = |pulse: &Pulse| matches!(pulse, Pulse::ChecksIn(_));
            if checks_in(&contact.pulse) != checks_in(pulse) {
                contact.due = due;
            }
            contact.pulse = *pulse;
        }
    }

    /// The nodes that should have checked in by now and have not, each with how long it was waited for. Each is given once, until
    /// it is heard of again.
    pub(super) fn take_overdue(&mut self, now: Instant) -> Vec<(NodeId, Duration)> {
        let mut overdue = Vec::new();
        for (node, contact) in &mut self.nodes {
            let Pulse::ChecksIn(patience) = contact.pulse else { continue };
            if contact.due > now || contact.asking || contact.returned {
                continue;
            }
            contact.due = now + patience;
            if contact.failures == 0 {
                (contact.failures, contact.flagged_up) = (1, false);
                overdue.push((*node, patience));
            }
        }
        overdue
    }

    /// The nodes to ask now while `running` are being asked, those that are back first; to be answered by
    /// [`Liveness::contact`], [`Liveness::failed`] or [`Liveness::later`]. Those for which there is no place yet are given
    /// when there is one.
    pub(super) fn begin_due(&mut self, now: Instant, running: usize) -> Vec<Question> {
        let mut due: Vec<(NodeId, &mut Contact)> = self
            .nodes
            .iter_mut()
            .filter(|(_, contact)| !contact.asking && contact.due <= now && contact.is_asked())
            .map(|(node, contact)| (*node, contact))
            .collect();
        due.sort_by_key(|(_, contact)| (Reverse(contact.places()), contact.due));
        let silent = due.iter().filter(|(_, contact)| contact.failures > 0).count();
        let hurried = due.len() - silent + running > PLACES || silent > PLACES_FOR_SILENT;
        let patience = if hurried { HURRIED } else { PATIENCE };
        let mut questions = Vec::new();
        for (node, contact) in due {
            if running + questions.len() < contact.places() {
                (contact.asking, contact.returned) = (true, false);
                contact.number += 1;
                let sleepy = contact.is_sleepy();
                questions.push(Question { node, number: contact.number, patience, sleepy });
            }
        }
        questions
    }

    /// When the next one is to be asked. Those that wait for a place are not counted.
    pub(super) fn next_due(&self, now: Instant) -> Option<Instant> {
        self.nodes.values().filter(|contact| !contact.asking && contact.due > now).map(|contact| contact.due).min()
    }

    /// It was heard of. True where the record has to be looked at: it may say otherwise, or not be up to date.
    pub(super) fn contact(&mut self, node: NodeId, now: Instant, at: Timestamp) -> bool {
        let Some(contact) = self.nodes.get_mut(&node) else { return false };
        *contact = Contact {
            last: Some(at),
            due: now + contact.pause() - spread(node),
            asking: false,
            number: contact.number + 1,
            failures: 0,
            returned: false,
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
    pub(super) fn failed(&mut self, node: NodeId, number: u64, now: Instant, announced: bool) -> Option<u32> {
        let contact = self.nodes.get_mut(&node).filter(|contact| contact.number == number)?;
        if let Pulse::ChecksIn(patience) = contact.pulse {
            // Whoever announces it may be its router, while it sleeps: that it did not answer says nothing.
            (contact.asking, contact.due) = (false, now + patience);
            return None;
        }
        contact.failures = contact.failures.saturating_add(1);
        (contact.asking, contact.flagged_up) = (false, false);
        let pause = match announced && contact.failures <= SOON_TRIES {
            // A question to a sleepy one takes a sleep of it anyway.
            true => SOON,
            false => (LATER * 2u32.pow(contact.failures.saturating_sub(1).min(8))).min(LATEST),
        };
        contact.due = now + pause;
        Some(contact.failures)
    }

    /// It could not be asked, through no fault of its own.
    pub(super) fn later(&mut self, node: NodeId, number: u64, now: Instant) {
        if let Some(contact) = self.nodes.get_mut(&node).filter(|contact| contact.number == number) {
            (contact.asking, contact.due) = (false, now + SOON);
        }
    }

    /// Something speaks for or against it: it is asked at once, unless it would not hear that.
    pub(super) fn doubt(&mut self, node: NodeId, now: Instant) {
        if let Some(contact) = self.nodes.get_mut(&node).filter(|contact| contact.is_asked()) {
            contact.due = contact.due.min(now);
        }
    }

    /// It announces itself anew: it is asked at once, where it is now. A question that is under way says nothing any more.
    pub(super) fn announced(&mut self, node: NodeId, now: Instant) {
        if let Some(contact) = self.nodes.get_mut(&node) {
            (contact.asking, contact.number, contact.due, contact.returned) = (false, contact.number + 1, now, true);
        }
    }

    /// Whether it was asked in vain since it was last heard of.
    pub(super) fn is_silent(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|contact| contact.failures > 0)
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
mod tests;
