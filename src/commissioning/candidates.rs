//! Which of the devices that fit a code is tried next, and when nobody is left, sans-I/O: every method takes `now`.
//!
//! A code may fit several devices: a manual one tells four bits, a development kit has the discriminator of its example, and a
//! record may outlive its device. SPAKE2+ tells a device that is not meant nothing but that somebody tried; it counts that,
//! and gives up after twenty. So each is tried in turn, and nobody more often than the limit says. Not here: finding them
//! (`discovery`), the tries themselves (`driver`).

use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::node::{Announced, Peer};

/// Refused tries by us that one device has to bear in one window (interface.md).
pub(crate) const MOST_TRIES: usize = 3;
/// No commissioning window is open for longer (Matter Core 11.19.8.1); what was refused before says nothing any more.
const WINDOW: Duration = Duration::from_secs(15 * 60);
/// How long others that fit are waited for after the last one was tried: two rounds of queries.
const LINGER: Duration = Duration::from_secs(4);
/// How long they are waited for over Bluetooth, where each advertises several times in a second.
const LINGER_BLUETOOTH: Duration = Duration::from_secs(2);
/// How long a silent device is waited for while another one fits.
const PATIENCE: Duration = Duration::from_secs(4);
/// When one is tried again that announces a window and lets nobody in: a device that was just reset announces first.
const OPENS: Duration = Duration::from_millis(500);
/// When one that did not answer is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// Whether a device may be tried now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Eligibility {
    /// Nothing speaks against it.
    Free,
    /// It has borne as many refused tries as it has to.
    Forbidden,
    /// Another attempt of ours is trying its own passcode on it.
    BeingTried,
    /// Another attempt of ours has proved this very passcode to it.
    Taken(Uuid),
    /// Another attempt of ours has proved another passcode to it, so it is not meant.
    NotMeant,
}

/// A device that fits, and whether it may be tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// As it announces itself.
    pub node: Announced,
    pub eligibility: Eligibility,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    /// Try the passcode on this one.
    Try(Box<Announced>),
    /// Nothing before then, unless what is known changes.
    WaitUntil(Instant),
    /// Nobody is left.
    Over(Ending),
}

/// Why nobody is left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    NotFound,
    /// Everybody who fits refused the passcode.
    Refused,
    /// Who fits does not answer.
    Silent,
    /// Who fits lets nobody in.
    Closed,
    /// Who fits is at work with somebody else.
    Busy,
    /// These fit, and have been tried as often as they may.
    Forbidden(Vec<Announced>),
    /// This attempt of ours is bringing the device in.
    Taken(Uuid),
}

/// How a try ended without a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fruitless {
    /// The passcode is not its own.
    Refused,
    /// It did not answer; `waited_out` where no other device cut that short.
    Silent {
        /// Whether it had all the time of the step.
        waited_out: bool,
    },
    /// It announces a window and lets nobody in.
    Closed,
    /// It is at work with somebody, until then as far as is known.
    Busy {
        /// When it is worth another try.
        until: Instant,
    },
}

#[derive(Debug, Clone)]
struct Tried {
    instance: String,
    peers: Vec<Peer>,
    outcome: Fruitless,
    /// Since when the outcome is this one.
    since: Instant,
    at: Instant,
}

impl Tried {
    /// The same target: a record that names the addresses of a device that was tried is no other device.
    fn is(&self, node: &Announced) -> bool {
        let peers = node.peers();
        self.instance == node.instance() && self.peers == peers
            || !peers.is_empty() && peers.iter().all(|peer| self.peers.contains(peer))
    }

    fn is_over_bluetooth(&self) -> bool {
        self.peers.iter().any(|peer| matches!(peer, Peer::Bluetooth(_)))
    }

    fn due(&self) -> Option<Instant> {
        match self.outcome {
            Fruitless::Refused => None,
            Fruitless::Silent { .. } => Some(self.at + AGAIN),
            Fruitless::Closed => Some(self.at + OPENS),
            Fruitless::Busy { until } => Some(until),
        }
    }
}

/// The search of one attempt.
#[derive(Debug, Clone)]
pub(crate) struct Search {
    began: Instant,
    deadline: Instant,
    tried: Vec<Tried>,
}

impl Search {
    /// A search that may take `budget`.
    pub(crate) fn new(now: Instant, budget: Duration) -> Self {
        Self { began: now, deadline: now + budget, tried: Vec::new() }
    }

    /// The time until now was spent waiting for the attempt's turn, and does not count.
    pub(crate) fn handle_wait(&mut self, waited: Duration) {
        self.began += waited;
        self.deadline += waited;
    }

    /// How long it has taken.
    pub(crate) fn took(&self, now: Instant) -> Duration {
        now.duration_since(self.began)
    }

    /// A try ended without a session.
    pub(crate) fn handle_fruitless(&mut self, node: &Announced, outcome: Fruitless, now: Instant) {
        let same = |tried: &Tried| std::mem::discriminant(&tried.outcome) == std::mem::discriminant(&outcome);
        let since = self.tried(node).filter(|tried| same(tried)).map_or(now, |tried| tried.since);
        self.tried.retain(|tried| !tried.is(node));
        self.tried.push(Tried { instance: node.instance(), peers: node.peers(), outcome, since, at: now });
    }

    /// What to do with what is known at `now`; `fitting` in the order in which they should be tried.
    pub(crate) fn poll(&self, fitting: &[Candidate], now: Instant) -> Next {
        let free = || fitting.iter().filter(|candidate| candidate.eligibility == Eligibility::Free);
        let next = free().find(|candidate| self.tried(&candidate.node).is_none());
        let again = || free().find(|candidate| self.due(&candidate.node).is_some_and(|due| due <= now));
        if let Some(candidate) = next {
            return Next::Try(Box::new(candidate.node.clone()));
        }
        if let Some(attempt) = fitting.iter().find_map(|candidate| match candidate.eligibility {
            Eligibility::Taken(attempt) => Some(attempt),
            Eligibility::Free | Eligibility::Forbidden | Eligibility::BeingTried | Eligibility::NotMeant => None,
        }) {
            return Next::Over(Ending::Taken(attempt));
        }
        let over = self.over(fitting);
        if now >= over {
            return Next::Over(self.ending(fitting));
        }
        if let Some(candidate) = again() {
            return Next::Try(Box::new(candidate.node.clone()));
        }
        let due = free().filter_map(|candidate| self.due(&candidate.node)).min();
        Next::WaitUntil(due.map_or(over, |due| due.min(over)))
    }

    /// How long a try that began at `since` may go on without an answer.
    pub(crate) fn patience(&self, fitting: &[Candidate], trying: &Announced, since: Instant) -> Option<Instant> {
        let other = |candidate: &Candidate| {
            candidate.eligibility == Eligibility::Free
                && candidate.node.instance() != trying.instance()
                && candidate.node.peers() != trying.peers()
                && self.tried(&candidate.node).is_none()
        };
        fitting.iter().any(other).then(|| since + PATIENCE + trying.session().sleep())
    }

    /// When there is nothing left to wait for, as far as is known.
    fn over(&self, fitting: &[Candidate]) -> Instant {
        let busy = self.tried.iter().filter_map(|tried| match tried.outcome {
            Fruitless::Busy { until } => Some(until + LINGER),
            Fruitless::Refused | Fruitless::Silent { .. } | Fruitless::Closed => None,
        });
        let deadline = busy.fold(self.deadline, Instant::max);
        let with = |eligibility| fitting.iter().any(|candidate| candidate.eligibility == eligibility);
        // On the network they have had their time once the search has taken that long.
        let lingers = |tried: &Tried| match tried.is_over_bluetooth() {
            true => (tried.since + LINGER_BLUETOOTH).max(self.began + LINGER),
            false => tried.since + LINGER,
        };
        let last = self.tried.iter().map(lingers).max();
        let decided = self.tried.iter().any(|tried| match tried.outcome {
            Fruitless::Refused | Fruitless::Closed | Fruitless::Silent { waited_out: true } => true,
            Fruitless::Silent { waited_out: false } | Fruitless::Busy { .. } => false,
        });
        match last {
            _ if with(Eligibility::BeingTried) => deadline,
            Some(last) if decided => deadline.min(last),
            Some(_) => deadline,
            None if with(Eligibility::Forbidden) => deadline.min(self.began + LINGER),
            None => deadline,
        }
    }

    fn ending(&self, fitting: &[Candidate]) -> Ending {
        let forbidden = fitting.iter().filter(|candidate| candidate.eligibility == Eligibility::Forbidden);
        let forbidden: Vec<_> = forbidden.map(|candidate| candidate.node.clone()).collect();
        let any = |wanted: fn(&Fruitless) -> bool| self.tried.iter().any(|tried| wanted(&tried.outcome));
        let untried = forbidden.iter().any(|node| self.tried(node).is_none());
        if untried {
            Ending::Forbidden(forbidden)
        } else if any(|outcome| matches!(outcome, Fruitless::Refused)) {
            Ending::Refused
        } else if any(|outcome| matches!(outcome, Fruitless::Busy { .. })) {
            Ending::Busy
        } else if any(|outcome| matches!(outcome, Fruitless::Closed)) {
            Ending::Closed
        } else if any(|outcome| matches!(outcome, Fruitless::Silent { .. })) {
            Ending::Silent
        } else {
            Ending::NotFound
        }
    }

    fn tried(&self, node: &Announced) -> Option<&Tried> {
        self.tried.iter().find(|tried| tried.is(node))
    }

    fn due(&self, node: &Announced) -> Option<Instant> {
        self.tried(node).and_then(Tried::due)
    }
}

/// The refused tries of all attempts.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Vec<Tried>);

impl Refusals {
    /// A device refused a passcode.
    pub(crate) fn add(&mut self, node: &Announced, now: Instant) {
        self.0.retain(|refused| now < refused.at + WINDOW);
        let outcome = Fruitless::Refused;
        self.0.push(Tried { instance: node.instance(), peers: node.peers(), outcome, since: now, at: now });
    }

    /// How many refused tries the device has borne in this window. A window that is opened again has another instance name;
    /// one that is still announced beside it may be the same device under two names.
    pub(crate) fn borne(&self, node: &Announced, announced: &[Announced], now: Instant) -> usize {
        let peers = node.peers();
        let counts = |refused: &&Tried| {
            let same = refused.instance == node.instance() && !node.instance().is_empty();
            let shares = refused.peers.iter().any(|peer| peers.contains(peer));
            let lasts = refused.instance.is_empty()
                || node.instance().is_empty()
                || announced.iter().any(|other| other.instance() == refused.instance);
            now < refused.at + WINDOW && (same || shares && lasts)
        };
        self.0.iter().filter(counts).count()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::node::{BluetoothAddress, BluetoothNode, CommissionableNode, CommissionableTxt, ScopedAddress};

    const BUDGET: Duration = Duration::from_secs(30);

    fn node(instance: &str, host: u8) -> Announced {
        Announced::Lan(CommissionableNode {
            instance: instance.to_owned(),
            addresses: vec![ScopedAddress { ip: Ipv4Addr::new(192, 0, 2, host).into(), scope: None }],
            port: 5540,
            txt: CommissionableTxt { discriminator: 3840, commissioning_mode: 1, ..CommissionableTxt::default() },
        })
    }

    fn free(node: Announced) -> Candidate {
        Candidate { node, eligibility: Eligibility::Free }
    }

    fn attempt(node: &Announced) -> Next {
        Next::Try(Box::new(node.clone()))
    }

    #[test]
    fn each_that_fits_is_tried_once_and_then_the_passcode_is_wrong() {
        let now = Instant::now();
        let (a, b) = (node("A", 1), node("B", 2));
        let mut search = Search::new(now, BUDGET);
        let fitting = [free(a.clone()), free(b.clone())];
        assert_eq!(search.poll(&fitting, now), attempt(&a));
        search.handle_fruitless(&a, Fruitless::Refused, now);
        assert_eq!(search.poll(&fitting, now), attempt(&b));
        search.handle_fruitless(&b, Fruitless::Refused, now);
        assert_eq!(search.poll(&fitting, now), Next::WaitUntil(now + LINGER));
        assert_eq!(search.poll(&fitting, now + LINGER), Next::Over(Ending::Refused));
    }

    #[test]
    fn over_bluetooth_a_refusal_is_said_sooner_but_not_before_the_network_was_searched() {
        let now = Instant::now();
        let boxed = Announced::Bluetooth(BluetoothNode {
            address: BluetoothAddress([2; 6]),
            discriminator: 3840,
            vendor_id: 0,
            product_id: 0,
            additional_data: false,
            rssi: -50,
        });
        for (took, until) in [(Duration::from_secs(1), LINGER), (LINGER, LINGER + LINGER_BLUETOOTH)] {
            let mut search = Search::new(now, BUDGET);
            search.handle_fruitless(&boxed, Fruitless::Refused, now + took);
            assert_eq!(search.poll(&[free(boxed.clone())], now + took), Next::WaitUntil(now + until));
        }
    }

    #[test]
    fn one_that_is_heard_late_is_tried_all_the_same() {
        let now = Instant::now();
        let (a, b) = (node("A", 1), node("B", 2));
        let mut search = Search::new(now, BUDGET);
        search.handle_fruitless(&a, Fruitless::Refused, now);
        let later = now + LINGER / 2;
        assert_eq!(search.poll(&[free(a), free(b.clone())], later), attempt(&b));
    }

    #[test]
    fn a_silent_record_gives_way_and_comes_back_when_nobody_else_is_left() {
        let now = Instant::now();
        let (stale, live) = (node("A", 1), node("B", 2));
        let mut search = Search::new(now, BUDGET);
        assert_eq!(search.patience(&[free(stale.clone())], &stale, now), None);
        let fitting = [free(stale.clone()), free(live.clone())];
        assert_eq!(search.patience(&fitting, &stale, now), Some(now + PATIENCE));
        let later = now + PATIENCE;
        search.handle_fruitless(&stale, Fruitless::Silent { waited_out: false }, later);
        assert_eq!(search.poll(&fitting, later), attempt(&live));
        search.handle_fruitless(&live, Fruitless::Refused, later);
        assert_eq!(search.poll(&fitting, later), Next::WaitUntil(later + LINGER));
        assert_eq!(search.poll(&fitting, later + LINGER), Next::Over(Ending::Refused));

        let mut search = Search::new(now, BUDGET);
        search.handle_fruitless(&stale, Fruitless::Silent { waited_out: false }, later);
        let alone = [free(stale.clone())];
        assert_eq!(search.poll(&alone, later), Next::WaitUntil(later + AGAIN));
        assert_eq!(search.poll(&alone, later + AGAIN), attempt(&stale));
        assert_eq!(search.poll(&[], now + BUDGET), Next::Over(Ending::Silent));
    }

    #[test]
    fn a_device_that_had_its_time_is_not_waited_for_again() {
        let now = Instant::now();
        let a = node("A", 1);
        let mut search = Search::new(now, BUDGET);
        search.handle_fruitless(&a, Fruitless::Silent { waited_out: true }, now);
        assert_eq!(search.poll(&[free(a.clone())], now + LINGER), Next::Over(Ending::Silent));
    }

    #[test]
    fn the_same_instance_at_another_address_is_another_try() {
        let now = Instant::now();
        let mut search = Search::new(now, BUDGET);
        search.handle_fruitless(&node("A", 1), Fruitless::Silent { waited_out: false }, now);
        assert_eq!(search.poll(&[free(node("A", 7))], now), attempt(&node("A", 7)));
    }

    #[test]
    fn a_twin_record_with_the_addresses_of_a_device_is_that_device() {
        let now = Instant::now();
        let (real, twin) = (node("A", 1), node("F", 1));
        let mut search = Search::new(now, BUDGET);
        search.handle_fruitless(&real, Fruitless::Refused, now);
        let fitting = [free(real), free(twin)];
        assert_eq!(search.poll(&fitting, now), Next::WaitUntil(now + LINGER));
    }

    #[test]
    fn nobody_is_waited_for_to_the_end_of_the_budget() {
        let now = Instant::now();
        let search = Search::new(now, BUDGET);
        assert_eq!(search.poll(&[], now), Next::WaitUntil(now + BUDGET));
        assert_eq!(search.poll(&[], now + BUDGET), Next::Over(Ending::NotFound));
    }

    #[test]
    fn what_other_attempts_of_ours_do_counts() {
        let now = Instant::now();
        let search = Search::new(now, BUDGET);
        let with = |eligibility| [Candidate { node: node("A", 1), eligibility }];
        let other = Uuid::from_u128(7);
        assert_eq!(search.poll(&with(Eligibility::Taken(other)), now), Next::Over(Ending::Taken(other)));
        assert_eq!(search.poll(&with(Eligibility::BeingTried), now), Next::WaitUntil(now + BUDGET));
        assert_eq!(search.poll(&with(Eligibility::NotMeant), now), Next::WaitUntil(now + BUDGET));
        let forbidden = with(Eligibility::Forbidden);
        assert_eq!(search.poll(&forbidden, now), Next::WaitUntil(now + LINGER));
        assert_eq!(search.poll(&forbidden, now + LINGER), Next::Over(Ending::Forbidden(vec![node("A", 1)])));
        // A free one goes first.
        let both = [with(Eligibility::Taken(other)).to_vec(), vec![free(node("B", 2))]].concat();
        assert_eq!(search.poll(&both, now), attempt(&node("B", 2)));
    }

    #[test]
    fn a_device_that_was_refused_as_often_as_allowed_by_this_attempt_has_the_wrong_passcode() {
        let now = Instant::now();
        let a = node("A", 1);
        let mut search = Search::new(now, BUDGET);
        search.handle_fruitless(&a, Fruitless::Refused, now);
        let fitting = [Candidate { node: a, eligibility: Eligibility::Forbidden }];
        assert_eq!(search.poll(&fitting, now + LINGER), Next::Over(Ending::Refused));
    }

    #[test]
    fn a_window_that_stays_closed_is_not_waited_for_again_and_again() {
        let now = Instant::now();
        let a = node("A", 1);
        let mut search = Search::new(now, BUDGET);
        let fitting = [free(a.clone())];
        let mut at = now;
        while at < now + LINGER {
            search.handle_fruitless(&a, Fruitless::Closed, at);
            at += OPENS;
            assert!(at >= now + LINGER || search.poll(&fitting, at) == attempt(&a));
        }
        assert_eq!(search.poll(&fitting, now + LINGER), Next::Over(Ending::Closed));
    }

    #[test]
    fn a_busy_device_is_tried_again_when_it_should_be_free() {
        let now = Instant::now();
        let a = node("A", 1);
        let mut search = Search::new(now, BUDGET);
        let until = now + BUDGET * 2;
        search.handle_fruitless(&a, Fruitless::Busy { until }, now);
        let fitting = [free(a.clone())];
        assert_eq!(search.poll(&fitting, now), Next::WaitUntil(until));
        assert_eq!(search.poll(&fitting, until), attempt(&a));
        assert_eq!(search.poll(&fitting, until + LINGER), Next::Over(Ending::Busy));
    }

    #[test]
    fn refused_tries_are_remembered_for_one_window() {
        let now = Instant::now();
        let (a, reopened) = (node("A", 1), node("B", 1));
        let mut refusals = Refusals::default();
        for _ in 0..MOST_TRIES {
            refusals.add(&a, now);
        }
        assert_eq!(refusals.borne(&a, std::slice::from_ref(&a), now), MOST_TRIES);
        assert_eq!(refusals.borne(&a, &[], now + WINDOW), 0);
        assert_eq!(refusals.borne(&node("C", 3), std::slice::from_ref(&a), now), 0);
        // Opened again, and the old name is gone; still there, it may be a second name for one device.
        assert_eq!(refusals.borne(&reopened, std::slice::from_ref(&reopened), now), 0);
        assert_eq!(refusals.borne(&reopened, &[a, reopened.clone()], now), MOST_TRIES);
        // At an address that a person gave, nobody knows the name.
        assert_eq!(refusals.borne(&node("", 1), &[], now), MOST_TRIES);
    }
}
