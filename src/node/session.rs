//! How a node listens, and how long an answer may take by that (Matter Core 4.12.8). Pure.
//!
//! A sleepy node hears nothing until it looks at its radio. So whoever asks it waits for one of those looks, and nobody takes
//! its sleep for its death, nor wakes it as often as a lamp.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

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

/// What a node announces of its listening: a sleepy one hears nothing between two looks at its radio.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionParameters {
    /// SESSION_IDLE_INTERVAL: the longest time until it hears what is sent while it is idle.
    pub idle_interval: Duration,
    /// SESSION_ACTIVE_INTERVAL: the same while it is active.
    pub active_interval: Duration,
    /// SESSION_ACTIVE_THRESHOLD: how long it stays active after it has heard something.
    pub active_threshold: Duration,
    /// Whether it is an intermittently connected device that operates with long idle times now.
    pub long_idle: bool,
}

impl SessionParameters {
    pub(super) fn new(
        idle_ms: Option<u32>,
        active_ms: Option<u32>,
        threshold_ms: Option<u32>,
        icd: Option<bool>,
    ) -> Self {
        let or = |said: Option<u32>, default: Duration| said.map_or(default, |ms| Duration::from_millis(ms.into()));
        let default = Self::default();
        Self {
            idle_interval: or(idle_ms, default.idle_interval),
            active_interval: or(active_ms, default.active_interval),
            active_threshold: or(threshold_ms, default.active_threshold),
            long_idle: icd == Some(true),
        }
    }

    /// Whether the node sleeps between two looks at its radio.
    pub fn is_sleepy(&self) -> bool {
        self.long_idle || self.idle_interval >= SLEEPY_FROM
    }

    /// What the node's sleep adds to every wait for it. Nothing for one that is always awake. One that stays awake for a
    /// shorter time than its own active interval may fall asleep again within an exchange.
    pub fn sleep(&self) -> Duration {
        if !self.is_sleepy() {
            return Duration::ZERO;
        }
        let awake = if self.active_threshold < self.active_interval { self.idle_interval } else { Duration::ZERO };
        (self.idle_interval + awake + self.active_interval * ROUND_TRIPS).min(LONGEST_SLEEP)
    }

    /// After how long without a word of it a sleepy node is asked; `None` for one that is always awake.
    pub fn ask_after(&self) -> Option<Duration> {
        self.is_sleepy().then(|| (self.idle_interval * ASK_AFTER_SLEEPS).clamp(ASK_SOONEST, ASK_LATEST))
    }
}

impl Default for SessionParameters {
    /// What holds for a node that says nothing (Matter Core 4.12.8).
    fn default() -> Self {
        Self {
            idle_interval: Duration::from_millis(500),
            active_interval: Duration::from_millis(300),
            active_threshold: Duration::from_millis(4000),
            long_idle: false,
        }
    }
}

/// For a person: how often it listens, and so how much patience it gets.
impl fmt::Display for SessionParameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (idle, active, threshold) = (self.idle_interval, self.active_interval, self.active_threshold);
        match self.ask_after() {
            Some(ask_after) => write!(
                f,
                "sleepy: listens every {idle:?}, every {active:?} for {threshold:?} once spoken to; asked after {} min of silence",
                ask_after.as_secs() / 60
            ),
            None => write!(f, "always awake: listens every {idle:?}"),
        }
    }
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
            assert_eq!((lamp.sleep(), lamp.ask_after()), (Duration::ZERO, None));
        }
    }

    #[test]
    fn a_sleepy_node_gets_one_look_at_its_radio_and_is_seldom_woken() {
        for idle in [5, 8, 11, 12, 15] {
            let sensor = session(idle * 1_000, 1_000);
            assert_eq!(sensor.sleep(), Duration::from_secs(idle + 6));
            assert_eq!(sensor.ask_after(), Some(Duration::from_secs(idle * 60)));
            let drowsy = SessionParameters { active_threshold: Duration::from_millis(300), ..sensor };
            assert_eq!(drowsy.sleep(), Duration::from_secs(2 * idle + 6), "it falls asleep in between");
        }
        let for_an_hour = SessionParameters { long_idle: true, ..session(3_600_000, 300) };
        assert_eq!((for_an_hour.sleep(), for_an_hour.ask_after()), (LONGEST_SLEEP, Some(ASK_LATEST)));
    }

    #[test]
    fn the_rhythm_is_told_in_words() {
        assert_eq!(SessionParameters::default().to_string(), "always awake: listens every 500ms");
        assert_eq!(
            session(15_000, 1_000).to_string(),
            "sleepy: listens every 15s, every 1s for 4s once spoken to; asked after 15 min of silence"
        );
    }
}
