//! How long an answer may take, by the rhythm that a node announces (Matter Core 4.12.8). Pure.
//!
//! A sleepy node hears nothing until it looks at its radio. So whoever asks it waits for one of those looks, and nobody takes
//! its sleep for its death, nor wakes it as often as a lamp.

use std::time::Duration;

use crate::node::SessionParameters;

/// From this idle interval on a node counts as sleepy. Mains-powered ones announce half a second, or nothing.
const SLEEPY_FROM: Duration = Duration::from_secs(2);
/// Nobody waits for longer. A node that sleeps longer is heard of when it wakes (Matter Core 9.16, check-in).
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// Awake, each datagram may take one active interval; a handshake and some reads are about so many.
const ROUND_TRIPS: u32 = 6;
/// A sleepy node is asked after so many of its idle intervals without a word of it, within these bounds: a battery should
/// last.
const ASK_AFTER_SLEEPS: u32 = 60;
const ASK_SOONEST: Duration = Duration::from_secs(5 * 60);
const ASK_LATEST: Duration = Duration::from_secs(60 * 60);

/// Whether a node sleeps between two looks at its radio.
pub(in crate::hub) fn is_sleepy(session: &SessionParameters) -> bool {
    session.long_idle || session.idle_interval >= SLEEPY_FROM
}

/// What a node's sleep adds to every wait for it. Nothing for one that is always awake.
pub(in crate::hub) fn sleep(session: &SessionParameters) -> Duration {
    if !is_sleepy(session) {
        return Duration::ZERO;
    }
    (session.idle_interval + session.active_interval * ROUND_TRIPS).min(LONGEST_SLEEP)
}

/// After how long without a word of it a sleepy node is asked; `None` for one that is always awake.
pub(in crate::hub) fn ask_after(session: &SessionParameters) -> Option<Duration> {
    is_sleepy(session).then(|| (session.idle_interval * ASK_AFTER_SLEEPS).clamp(ASK_SOONEST, ASK_LATEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(idle_ms: u64, active_ms: u64) -> SessionParameters {
        SessionParameters {
            idle_interval: Duration::from_millis(idle_ms),
            active_interval: Duration::from_millis(active_ms),
            ..SessionParameters::default()
        }
    }

    #[test]
    fn a_lamp_gets_no_extra_time() {
        for lamp in [SessionParameters::default(), session(500, 300), session(1_500, 1_000)] {
            assert_eq!((sleep(&lamp), ask_after(&lamp)), (Duration::ZERO, None));
        }
    }

    #[test]
    fn a_sleepy_node_gets_one_look_at_its_radio_and_is_seldom_woken() {
        for idle in [5, 8, 11, 12, 15] {
            let sensor = session(idle * 1_000, 1_000);
            assert_eq!(sleep(&sensor), Duration::from_secs(idle + 6));
            assert_eq!(ask_after(&sensor), Some(Duration::from_secs(idle * 60)));
        }
        let for_an_hour = SessionParameters { long_idle: true, ..session(3_600_000, 300) };
        assert_eq!((sleep(&for_an_hour), ask_after(&for_an_hour)), (LONGEST_SLEEP, Some(ASK_LATEST)));
    }
}
