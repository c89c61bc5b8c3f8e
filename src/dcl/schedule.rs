//! When the ledger is asked next. Pure: what is known about earlier tries and `now` in, how long to wait out.
//!
//! No jitter: each hub counts from its own last try, and the caller gives each hub a period of its own (`rhythm`).

use std::time::Duration;

use jiff::Timestamp;

/// After the first failure; doubled with each further one.
const FIRST_RETRY: Duration = Duration::from_secs(5 * 60);
/// Retries come no further apart than this, nor than regular tries.
const LAST_RETRY: Duration = Duration::from_secs(6 * 3600);

/// What is known about earlier tries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct History {
    /// When the last try began.
    pub attempted_at: Option<Timestamp>,
    /// Tries without success since the last success.
    pub failures: u32,
    /// When the last try that succeeded began; `None` also where its result is gone.
    pub succeeded_at: Option<Timestamp>,
}

/// How long to wait before the next try; nothing where it is due. A time in the future is of a clock that was wrong and
/// counts as unknown.
pub fn wait(history: &History, every: Duration, now: Timestamp) -> Duration {
    let past = |time: Option<Timestamp>| time.filter(|time| *time <= now);
    let (Some(attempted_at), succeeded_at) = (past(history.attempted_at), past(history.succeeded_at)) else {
        return Duration::ZERO;
    };
    let (from, pause) = match (history.failures, succeeded_at) {
        (0, None) => return Duration::ZERO,
        (0, Some(succeeded_at)) => (succeeded_at, every),
        (failures, _) => (attempted_at, back_off(failures).min(every)),
    };
    let passed = Duration::try_from(now.duration_since(from)).unwrap_or_default();
    pause.saturating_sub(passed)
}

fn back_off(failures: u32) -> Duration {
    let doubled = 1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    FIRST_RETRY.saturating_mul(doubled).min(LAST_RETRY)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + 60 * minutes).unwrap()
    }

    fn minutes(history: History, every: Duration, now: i64) -> u64 {
        wait(&history, every, at(now)).as_secs() / 60
    }

    #[test]
    fn the_first_try_is_due_at_once_and_the_next_a_day_after_success() {
        assert_eq!(wait(&History::default(), DAY, at(0)), Duration::ZERO);
        let done = History { attempted_at: Some(at(0)), failures: 0, succeeded_at: Some(at(0)) };
        for (now, expected) in [(0, 1440), (600, 840), (1440, 0), (9999, 0)] {
            assert_eq!(minutes(done, DAY, now), expected, "after {now} minutes");
        }
        let gone = History { succeeded_at: None, ..done };
        assert_eq!(wait(&gone, DAY, at(1)), Duration::ZERO, "what was fetched is not there any more");
    }

    #[test]
    fn failures_wait_longer_each_time_but_not_for_ever() {
        let failed = |failures| History { attempted_at: Some(at(0)), failures, succeeded_at: Some(at(-9999)) };
        let pauses = [(1, 5), (2, 10), (3, 20), (6, 160), (7, 320), (8, 360), (40, 360), (u32::MAX, 360)];
        for (failures, expected) in pauses {
            assert_eq!(minutes(failed(failures), DAY, 0), expected, "{failures} failures");
        }
        assert_eq!(minutes(failed(40), Duration::from_secs(3600), 0), 60, "never more seldom than without failures");
        assert_eq!(minutes(failed(1), DAY, 4), 1);
        assert_eq!(minutes(failed(1), DAY, 5), 0);
    }

    #[test]
    fn a_clock_that_was_wrong_does_not_put_it_off() {
        let later = History { attempted_at: Some(at(1_000_000)), failures: 0, succeeded_at: Some(at(1_000_000)) };
        assert_eq!(wait(&later, DAY, at(0)), Duration::ZERO);
        let failed = History { failures: 3, ..later };
        assert_eq!(wait(&failed, DAY, at(0)), Duration::ZERO);
    }
}
