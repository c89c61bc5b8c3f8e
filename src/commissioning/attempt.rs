//! Time and obligations of one attempt, sans-I/O: which deadline is next, when to re-arm the fail-safe, what must be
//! undone on the device when the attempt fails. Every method takes `now`; the driver owns the clock and the messages.

use std::time::{Duration, Instant};

use crate::commissioning::step::Step;

/// So many waits of an attempt may each catch a sleepy device asleep: PASE, CASE, the access list, the completion.
const SLEEPS: u32 = 4;
/// And so many of them lie between two times of arming its fail-safe.
const SLEEPS_ARMED: u32 = 2;

/// The configured limits of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// One attempt in all.
    pub attempt: Duration,
    /// `Step::Discover`.
    pub discover: Duration,
    /// Every other step.
    pub step: Duration,
    /// ArmFailSafe's expiry.
    pub fail_safe: Duration,
}

impl Limits {
    /// `Step::Operational`. Lost datagrams make CASE fail although the device is there: it is tried again while a good part of
    /// the fail-safe is left.
    pub(crate) fn meeting(&self) -> Duration {
        self.step.max(self.fail_safe / 2)
    }
}

/// What the device holds of us, and so what a failure must undo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    /// Nothing was asked of it that it would keep.
    Untouched,
    /// Its fail-safe is armed since `since`: expiring it rolls everything back (Matter Core 11.10.7.2).
    Armed {
        /// When it was last armed.
        since: Instant,
    },
    /// CommissioningComplete was sent and its answer is not known: only asking the device tells.
    Completing {
        /// When the fail-safe was last armed.
        since: Instant,
    },
    /// It is on our fabric for good: undoing means RemoveFabric.
    Completed,
}

/// What happened on the device, as far as `Held` cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeviceEvent {
    /// ArmFailSafe was answered with OK.
    Armed,
    /// CommissioningComplete is about to be sent.
    CompleteSent,
    /// CommissioningComplete was answered with OK, or the device said that there is nothing left to complete.
    CompleteConfirmed,
}

/// What a failure must undo on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Undo {
    Nothing,
    /// ArmFailSafe(0).
    ExpireFailSafe,
    /// Ask the device whether it has completed; until it has answered, keep the provisional row.
    Probe,
    RemoveFabric,
}

/// Which clock ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expired {
    /// The step's own deadline.
    Step(Duration),
    /// The attempt's deadline.
    Attempt(Duration),
    /// The device's fail-safe.
    FailSafe(Duration),
}

#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    limits: Limits,
    started: Instant,
    step: Step,
    step_started: Instant,
    held: Held,
    durations: [Duration; Step::ALL.len()],
    sleep: Duration,
    leftover: Duration,
    joining: Duration,
}

impl Attempt {
    /// An attempt that begins now with reading the code.
    pub(crate) fn new(limits: Limits, now: Instant) -> Self {
        Self {
            limits,
            started: now,
            step: Step::Parse,
            step_started: now,
            held: Held::Untouched,
            durations: [Duration::ZERO; Step::ALL.len()],
            sleep: Duration::ZERO,
            leftover: Duration::ZERO,
            joining: Duration::ZERO,
        }
    }

    /// The device has to be brought onto its network, and may take so long for that.
    pub(crate) fn handle_joining(&mut self, most: Duration) {
        self.joining = most;
    }

    /// The device announces that it sleeps so long: every wait for it may take so much longer.
    pub(crate) fn handle_sleep(&mut self, sleep: Duration) {
        self.sleep = sleep;
    }

    /// The device needs so long to roll back what an earlier attempt of ours left on it. That is not this attempt's time.
    pub(crate) fn handle_leftover(&mut self, left: Duration) {
        self.leftover += left;
    }

    /// What the device's sleep adds to each wait for it.
    pub(crate) fn sleep(&self) -> Duration {
        self.sleep
    }

    /// For how long its fail-safe is armed.
    pub(crate) fn fail_safe(&self) -> Duration {
        self.limits.fail_safe + self.sleep * SLEEPS_ARMED + self.joining
    }

    /// The step under way.
    pub(crate) fn step(&self) -> Step {
        self.step
    }

    /// A step begins; the time until now belongs to the one before.
    pub(crate) fn handle_step(&mut self, step: Step, now: Instant) {
        self.durations[self.step as usize] += now.duration_since(self.step_started);
        self.step = step;
        self.step_started = now;
    }

    /// The time until now was spent waiting for the attempt's turn, and does not count.
    pub(crate) fn handle_wait(&mut self, waited: Duration) {
        self.started += waited;
        self.step_started += waited;
    }

    /// Something happened on the device.
    pub(crate) fn handle_device(&mut self, event: DeviceEvent, now: Instant) {
        use DeviceEvent::{Armed, CompleteConfirmed, CompleteSent};
        self.held = match (self.held, event) {
            (Held::Untouched | Held::Armed { .. }, Armed) => Held::Armed { since: now },
            (Held::Armed { since } | Held::Completing { since }, CompleteSent) => Held::Completing { since },
            (Held::Completing { .. }, CompleteConfirmed) => Held::Completed,
            // The driver sends nothing in these orders; if it did, the cautious reading is the one that undoes more.
            (Held::Completing { .. }, Armed) => Held::Completing { since: now },
            (Held::Untouched, CompleteSent) => Held::Completing { since: now },
            (Held::Untouched | Held::Armed { .. }, CompleteConfirmed) => Held::Completed,
            (Held::Completed, Armed | CompleteSent | CompleteConfirmed) => Held::Completed,
        };
    }

    /// When the step under way must have ended.
    pub(crate) fn next_deadline(&self) -> Instant {
        let step = self.step_started + self.step_limit();
        let attempt = self.started + self.limit();
        match self.held {
            // After CommissioningComplete was sent the fail-safe no longer limits us.
            Held::Armed { since } => step.min(attempt).min(since + self.fail_safe()),
            Held::Untouched | Held::Completing { .. } | Held::Completed => step.min(attempt),
        }
    }

    /// Which clock ran out at [`Self::next_deadline`].
    pub(crate) fn expired(&self) -> Expired {
        let deadline = self.next_deadline();
        if deadline == self.started + self.limit() {
            Expired::Attempt(self.limit())
        } else if matches!(self.held, Held::Armed { since } if deadline == since + self.fail_safe()) {
            Expired::FailSafe(self.fail_safe())
        } else {
            Expired::Step(self.step_limit())
        }
    }

    /// How long discovery may take.
    pub(crate) fn discover_budget(&self, now: Instant) -> Duration {
        self.limits.discover.min((self.started + self.limits.attempt).saturating_duration_since(now))
    }

    /// Whether less than half of the fail-safe is left, so that it must be armed again before the next command.
    pub(crate) fn rearm_due(&self, now: Instant) -> bool {
        matches!(self.held, Held::Armed { since } if now.duration_since(since) > self.fail_safe() / 2)
    }

    /// What must be undone on the device if the attempt ends now.
    pub(crate) fn undo(&self) -> Undo {
        match self.held {
            Held::Untouched => Undo::Nothing,
            Held::Armed { .. } => Undo::ExpireFailSafe,
            Held::Completing { .. } => Undo::Probe,
            Held::Completed => Undo::RemoveFabric,
        }
    }

    /// How long `step` has taken up to now, all its turns together.
    pub(crate) fn duration(&self, step: Step, now: Instant) -> Duration {
        let running = if step == self.step { now.duration_since(self.step_started) } else { Duration::ZERO };
        self.durations[step as usize] + running
    }

    /// How long the attempt has taken up to now.
    pub(crate) fn total(&self, now: Instant) -> Duration {
        now.duration_since(self.started)
    }

    fn step_limit(&self) -> Duration {
        match self.step {
            Step::Discover => self.limits.discover + self.leftover,
            Step::Network => self.limits.step + self.joining,
            Step::Operational => self.limits.meeting() + self.sleep,
            _ => self.limits.step + self.sleep,
        }
    }

    fn limit(&self) -> Duration {
        self.limits.attempt + self.sleep * SLEEPS + self.leftover + self.joining
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        attempt: Duration::from_secs(90),
        discover: Duration::from_secs(30),
        step: Duration::from_secs(15),
        fail_safe: Duration::from_secs(20),
    };

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn what_an_earlier_attempt_left_costs_this_one_no_time() {
        let start = Instant::now();
        let mut attempt = Attempt::new(LIMITS, start);
        attempt.handle_leftover(Duration::from_secs(40));
        attempt.handle_step(Step::Discover, after(start, 5));
        assert_eq!(attempt.next_deadline(), after(start, 5 + 30 + 40));
        attempt.handle_step(Step::Pase, after(start, 46));
        assert_eq!(attempt.next_deadline(), after(start, 46 + 15));
        attempt.handle_step(Step::Pase, after(start, 120));
        assert_eq!(attempt.next_deadline(), after(start, 90 + 40));
    }

    #[test]
    fn the_nearest_clock_counts() {
        let start = Instant::now();
        let mut attempt = Attempt::new(LIMITS, start);
        attempt.handle_step(Step::Discover, start);
        assert_eq!((attempt.next_deadline(), attempt.expired()), (after(start, 30), Expired::Step(LIMITS.discover)));
        attempt.handle_step(Step::ArmFailSafe, after(start, 5));
        attempt.handle_device(DeviceEvent::Armed, after(start, 6));
        attempt.handle_step(Step::ReadInfo, after(start, 15));
        assert_eq!(
            (attempt.next_deadline(), attempt.expired()),
            (after(start, 26), Expired::FailSafe(LIMITS.fail_safe))
        );
        assert!(!attempt.rearm_due(after(start, 16)) && attempt.rearm_due(after(start, 17)));
        attempt.handle_device(DeviceEvent::Armed, after(start, 80));
        attempt.handle_step(Step::Csr, after(start, 80));
        assert_eq!((attempt.next_deadline(), attempt.expired()), (after(start, 90), Expired::Attempt(LIMITS.attempt)));
    }

    #[test]
    fn a_sleepy_device_gets_its_sleep_in_every_wait_for_it() {
        let (start, sleep) = (Instant::now(), Duration::from_secs(21));
        let mut attempt = Attempt::new(LIMITS, start);
        attempt.handle_step(Step::Discover, start);
        attempt.handle_sleep(sleep);
        assert_eq!(attempt.next_deadline(), after(start, 30), "who is not found is not waited for longer");
        attempt.handle_step(Step::Pase, start);
        assert_eq!(attempt.expired(), Expired::Step(LIMITS.step + sleep));
        attempt.handle_device(DeviceEvent::Armed, start);
        attempt.handle_step(Step::Operational, start);
        assert_eq!(attempt.next_deadline(), start + LIMITS.meeting() + sleep);
        assert!(
            attempt.fail_safe() >= LIMITS.meeting() + sleep,
            "it holds for as long as the device may be waited for"
        );
        attempt.handle_step(Step::Complete, after(start, 160));
        attempt.handle_device(DeviceEvent::CompleteSent, after(start, 160));
        assert_eq!(attempt.expired(), Expired::Attempt(LIMITS.attempt + sleep * SLEEPS));
    }

    #[test]
    fn the_time_that_a_device_needs_for_its_network_counts_for_nothing_else() {
        let (start, joining) = (Instant::now(), Duration::from_secs(70));
        let mut attempt = Attempt::new(LIMITS, start);
        attempt.handle_device(DeviceEvent::Armed, start);
        attempt.handle_step(Step::AddNoc, start);
        attempt.handle_joining(joining);
        assert_eq!(attempt.expired(), Expired::Step(LIMITS.step));
        attempt.handle_step(Step::Network, start);
        assert_eq!(attempt.expired(), Expired::Step(LIMITS.step + joining));
        assert_eq!(attempt.fail_safe(), LIMITS.fail_safe + joining, "it covers the join and the meeting");
    }

    #[test]
    fn every_pair_of_standing_and_event_is_decided() {
        let now = Instant::now();
        let standings = [Held::Untouched, Held::Armed { since: now }, Held::Completing { since: now }, Held::Completed];
        let undo_after = |held, event| {
            let mut attempt = Attempt::new(LIMITS, now);
            attempt.held = held;
            attempt.handle_device(event, now);
            attempt.undo()
        };
        let table = standings.map(|held| {
            [DeviceEvent::Armed, DeviceEvent::CompleteSent, DeviceEvent::CompleteConfirmed]
                .map(|event| undo_after(held, event))
        });
        use Undo::{ExpireFailSafe, Probe, RemoveFabric};
        assert_eq!(
            table,
            [
                [ExpireFailSafe, Probe, RemoveFabric],
                [ExpireFailSafe, Probe, RemoveFabric],
                [Probe, Probe, RemoveFabric],
                [RemoveFabric, RemoveFabric, RemoveFabric],
            ]
        );
    }

    #[test]
    fn time_belongs_to_the_step_that_took_it() {
        let start = Instant::now();
        let mut attempt = Attempt::new(LIMITS, start);
        attempt.handle_step(Step::Discover, start);
        attempt.handle_step(Step::Pase, after(start, 3));
        assert_eq!(attempt.duration(Step::Discover, after(start, 4)), Duration::from_secs(3));
        assert_eq!(attempt.duration(Step::Pase, after(start, 4)), Duration::from_secs(1));
        assert_eq!(attempt.total(after(start, 4)), Duration::from_secs(4));
    }
}
