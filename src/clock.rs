//! Whether the wall clock can be believed: a state machine over readings of the wall clock and of the monotonic one. Pure.
//!
//! A hub without a battery starts in 1970, and a clock that was set wrong runs on as if nothing were. So three things are kept
//! apart: what the clock says, what time it is at least (the last known good time, as the Matter specification and
//! systemd-timesyncd keep it), and whether anybody who should know has confirmed the clock.
//! Not here: who reads the clocks, who confirms them, and where the last known good time is kept (`hub::clock`).

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// No build of this source is older, so no clock that says so is right.
pub(crate) const WRITTEN: Timestamp = Timestamp::constant(1_793_491_200, 0);
/// The clock may be this much behind what was once known: what was known is not exact either.
const SLACK: SignedDuration = SignedDuration::from_mins(10);
/// A difference between the clocks' ways that is no drift: somebody has set the wall clock.
const STEP: SignedDuration = SignedDuration::from_secs(10);
/// A clock that nobody confirms counts as confirmed when it has run so long without being set,
const STEADY: Duration = Duration::from_secs(24 * 3600);
/// and is no further ahead of the last known good time than a hub may have been switched off.
const SWITCHED_OFF: SignedDuration = SignedDuration::from_hours(400 * 24);

/// Both clocks at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading {
    /// What the wall clock says.
    pub wall: Timestamp,
    /// How long the monotonic clock has run; it counts from anywhere.
    pub running: Duration,
}

/// What is thought of the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ClockStanding {
    /// It is behind a time that has certainly passed.
    NotSet,
    /// It may be right.
    Unconfirmed,
    /// Somebody who should know agrees with it, or did when it was last set.
    Confirmed,
}

impl ClockStanding {
    /// The word in JSON.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::NotSet => "not-set",
            Self::Unconfirmed => "unconfirmed",
            Self::Confirmed => "confirmed",
        }
    }
}

/// What a reading changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// The wall clock was set, by this much.
    pub stepped: Option<SignedDuration>,
    /// The standing before, where it is another now.
    pub was: Option<ClockStanding>,
}

#[derive(Debug, Clone)]
pub(crate) struct Sanity {
    /// A time that has certainly passed, and what the monotonic clock said when it was noted.
    good: Timestamp,
    good_at: Duration,
    last: Reading,
    standing: ClockStanding,
    steady_since: Duration,
    /// Whether an earlier run left a last known good time.
    remembers: bool,
}

impl Sanity {
    /// Starts from the last known good time of earlier runs, if any is known.
    pub(crate) fn new(known: Option<Timestamp>, now: Reading) -> Self {
        let good = known.unwrap_or(WRITTEN).max(WRITTEN);
        let mut new = Self {
            good,
            good_at: now.running,
            last: now,
            standing: ClockStanding::Unconfirmed,
            steady_since: now.running,
            remembers: known.is_some(),
        };
        new.standing = new.judged(now);
        new
    }

    pub(crate) fn read(&mut self, now: Reading) -> Change {
        let (went, ran) =
            (now.wall.duration_since(self.last.wall), signed(now.running.saturating_sub(self.last.running)));
        let by = went - ran;
        let stepped = (by.abs() > STEP).then_some(by);
        self.last = now;
        let was = self.standing;
        if stepped.is_some() {
            self.steady_since = now.running;
            // Set by whom? Until somebody agrees, it is a clock like any other.
            self.standing = ClockStanding::Unconfirmed;
        }
        self.standing = self.judged(now);
        if self.standing == ClockStanding::Confirmed {
            self.remember(now.wall, now.running);
        }
        Change { stepped, was: (was != self.standing).then_some(was) }
    }

    /// Somebody who should know says what time it is. A witness who agrees with the clock also overrules what was believed
    /// before; one who does not agree changes nothing.
    pub(crate) fn confirm(&mut self, witness: Timestamp, now: Reading) -> Change {
        if witness.duration_since(now.wall).abs() > SLACK {
            return Change::default();
        }
        let was = std::mem::replace(&mut self.standing, ClockStanding::Confirmed);
        (self.good, self.good_at, self.remembers) = (now.wall, now.running, true);
        Change { stepped: None, was: (was != ClockStanding::Confirmed).then_some(was) }
    }

    /// What is thought of the wall clock.
    pub(crate) fn standing(&self) -> ClockStanding {
        self.standing
    }

    /// A time that has certainly passed: never later than the true time, unless a witness was wrong. What is destroyed by
    /// age is destroyed by this.
    pub(crate) fn at_least(&self, running: Duration) -> Timestamp {
        later(self.good, running.saturating_sub(self.good_at))
    }

    /// The best guess at the time: the wall clock, or what it is at least where that is later.
    pub(crate) fn best(&self, now: Reading) -> Timestamp {
        match self.standing {
            ClockStanding::NotSet => now.wall.max(self.at_least(now.running)),
            ClockStanding::Unconfirmed | ClockStanding::Confirmed => now.wall,
        }
    }

    fn judged(&self, now: Reading) -> ClockStanding {
        let ahead = now.wall.duration_since(self.at_least(now.running));
        if ahead < -SLACK {
            return ClockStanding::NotSet;
        }
        let steady = now.running.saturating_sub(self.steady_since) >= STEADY;
        if self.standing == ClockStanding::Confirmed || steady && (!self.remembers || ahead <= SWITCHED_OFF) {
            return ClockStanding::Confirmed;
        }
        ClockStanding::Unconfirmed
    }

    fn remember(&mut self, good: Timestamp, running: Duration) {
        // A drift of seconds must not take back what was known.
        if good >= self.at_least(running) || self.standing == ClockStanding::Confirmed {
            (self.good, self.good_at, self.remembers) = (good.max(self.good), running, true);
        }
    }
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);
    const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

    /// A hub in real life: true time passes on both clocks, and somebody sets the wall clock.
    struct Hub {
        truth: Timestamp,
        running: Duration,
        off_by: SignedDuration,
        sanity: Sanity,
    }

    impl Hub {
        fn boots(known: Option<Timestamp>, truth: Timestamp, off_by: SignedDuration) -> Self {
            let sanity = Sanity::new(known, Reading { wall: truth + off_by, running: Duration::ZERO });
            Self { truth, running: Duration::ZERO, off_by, sanity }
        }

        fn reading(&self) -> Reading {
            Reading { wall: self.truth + self.off_by, running: self.running }
        }

        fn runs(&mut self, time: Duration) -> Change {
            self.truth += time;
            self.running += time;
            self.sanity.read(self.reading())
        }

        fn is_set(&mut self, off_by: SignedDuration) -> Change {
            self.off_by = off_by;
            self.sanity.read(self.reading())
        }

        fn hears_the_time(&mut self) -> Change {
            self.sanity.confirm(self.truth, self.reading())
        }

        fn at_least(&self) -> Timestamp {
            self.sanity.at_least(self.running)
        }

        fn best(&self) -> Timestamp {
            self.sanity.best(self.reading())
        }
    }

    const YEARS: SignedDuration = SignedDuration::from_hours(10 * 365 * 24);

    #[test]
    fn in_1970_the_clock_is_not_set_and_time_goes_on_from_the_last_known_good() {
        let known = NOW - DAY;
        let mut hub = Hub::boots(Some(known), NOW, Timestamp::UNIX_EPOCH.duration_since(NOW));
        assert_eq!(hub.sanity.standing(), ClockStanding::NotSet);
        assert_eq!(hub.best(), known);
        hub.runs(DAY / 2);
        assert_eq!(hub.best(), known + DAY / 2, "the monotonic clock carries it");
        let change = hub.is_set(SignedDuration::ZERO);
        assert_eq!((change.was, hub.sanity.standing()), (Some(ClockStanding::NotSet), ClockStanding::Unconfirmed));
        assert!(change.stepped.is_some());
        assert_eq!(hub.best(), hub.truth);
        hub.hears_the_time();
        assert_eq!((hub.sanity.standing(), hub.at_least()), (ClockStanding::Confirmed, hub.truth));
        // A hub that has never run knows that it is not older than its source.
        assert_eq!(Hub::boots(None, NOW, Timestamp::UNIX_EPOCH.duration_since(NOW)).best(), WRITTEN);
    }

    #[test]
    fn a_jump_ahead_never_moves_what_has_certainly_passed() {
        for years in [YEARS / 10, YEARS] {
            // At boot, and in the middle of a confirmed day.
            let mut boots = Hub::boots(Some(NOW), NOW, years);
            let mut jumps = Hub::boots(Some(NOW), NOW, SignedDuration::ZERO);
            jumps.hears_the_time();
            jumps.runs(DAY / 24);
            assert_eq!(jumps.is_set(years).was, Some(ClockStanding::Confirmed));
            for hub in [&mut boots, &mut jumps] {
                for _ in 0..20 {
                    hub.runs(DAY / 24);
                    assert_eq!(hub.sanity.standing(), ClockStanding::Unconfirmed);
                    assert!(hub.at_least() <= hub.truth, "{} {}", hub.at_least(), hub.truth);
                }
                // A witness who knows the truth does not confirm it; when it is put right, one does.
                assert_eq!(hub.hears_the_time(), Change::default());
                hub.is_set(SignedDuration::ZERO);
                hub.hears_the_time();
                assert_eq!((hub.sanity.standing(), hub.best()), (ClockStanding::Confirmed, hub.truth));
            }
        }
    }

    #[test]
    fn a_good_clock_that_nobody_confirms_counts_after_a_day_but_not_one_ten_years_ahead() {
        let mut plain = Hub::boots(Some(NOW - 30 * DAY), NOW, SignedDuration::ZERO);
        let mut odd = Hub::boots(Some(NOW), NOW, YEARS);
        let mut first = Hub::boots(None, NOW + 2000 * DAY, SignedDuration::ZERO);
        for _ in 0..25 {
            for hub in [&mut plain, &mut odd, &mut first] {
                hub.runs(DAY / 24);
            }
        }
        assert_eq!((plain.sanity.standing(), plain.at_least()), (ClockStanding::Confirmed, plain.truth));
        assert_eq!(odd.sanity.standing(), ClockStanding::Unconfirmed);
        assert!(odd.at_least() <= odd.truth);
        assert_eq!(
            first.sanity.standing(),
            ClockStanding::Confirmed,
            "there is nothing that it could be compared with"
        );
    }

    #[test]
    fn what_was_believed_wrongly_is_overruled_by_a_witness_who_agrees_with_the_clock() {
        let mut hub = Hub::boots(Some(NOW + 3000 * DAY), NOW, SignedDuration::ZERO);
        assert_eq!(hub.sanity.standing(), ClockStanding::NotSet);
        assert_eq!(hub.hears_the_time().was, Some(ClockStanding::NotSet));
        assert_eq!((hub.at_least(), hub.best()), (hub.truth, hub.truth));
    }

    #[test]
    fn drift_and_small_corrections_are_no_step() {
        let mut hub = Hub::boots(Some(NOW), NOW, SignedDuration::ZERO);
        hub.hears_the_time();
        for correction in [1, -1, 5, -5, 0] {
            let change = hub.is_set(SignedDuration::from_secs(correction));
            assert_eq!(change, Change::default(), "{correction}");
            assert!(hub.at_least() <= hub.truth + SignedDuration::from_secs(10));
        }
        assert_eq!(hub.is_set(SignedDuration::from_hours(-5)).stepped, Some(SignedDuration::from_hours(-5)));
        assert_eq!(hub.sanity.standing(), ClockStanding::NotSet, "it is behind what was certain");
    }
}
