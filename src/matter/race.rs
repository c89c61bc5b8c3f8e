//! Whose turn it is among several addresses of one device (after RFC 8305, "Happy Eyeballs"). Pure: every method takes `now`.
//!
//! They start in the given order, a moment apart; one that fails makes room for the next at once; and while one is answering,
//! the others wait a little longer, because a device carries on one handshake at a time. Not here: the handshakes.

use std::time::{Duration, Instant};

/// RFC 8305's Connection Attempt Delay.
const STAGGER: Duration = Duration::from_millis(250);
/// How long an address that has answered is given before the next one starts.
const ANSWERING: Duration = Duration::from_secs(2);

/// The order of starts.
#[derive(Debug)]
pub(crate) struct Race {
    waiting: std::ops::Range<usize>,
    next: Instant,
}

impl Race {
    /// `count` addresses; the first starts at once.
    pub(crate) fn new(count: usize, now: Instant) -> Self {
        Self { waiting: 0..count, next: now }
    }

    /// The next one to start, if its time has come.
    pub(crate) fn poll_start(&mut self, now: Instant) -> Option<usize> {
        if now < self.next {
            return None;
        }
        self.next = now + STAGGER;
        self.waiting.next()
    }

    /// When the next one starts, if one is left.
    pub(crate) fn next_start(&self) -> Option<Instant> {
        (!self.waiting.is_empty()).then_some(self.next)
    }

    /// One that runs was heard of for the first time.
    pub(crate) fn handle_answer(&mut self, now: Instant) {
        self.next = self.next.max(now + ANSWERING);
    }

    pub(crate) fn handle_failure(&mut self, now: Instant) {
        self.next = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn starts_are_a_moment_apart_and_a_failure_makes_room() {
        let start = Instant::now();
        let mut race = Race::new(4, start);
        assert_eq!((race.poll_start(start), race.poll_start(start)), (Some(0), None));
        assert_eq!(race.next_start(), Some(after(start, 250)));
        assert_eq!(race.poll_start(after(start, 250)), Some(1));
        race.handle_failure(after(start, 260));
        assert_eq!(race.poll_start(after(start, 260)), Some(2));
        assert_eq!(race.poll_start(after(start, 400)), None);
        assert_eq!(race.poll_start(after(start, 510)), Some(3));
        assert_eq!((race.next_start(), race.poll_start(after(start, 9_000))), (None, None));
    }

    #[test]
    fn who_answers_is_given_time() {
        let start = Instant::now();
        let mut race = Race::new(2, start);
        assert_eq!(race.poll_start(start), Some(0));
        race.handle_answer(after(start, 100));
        assert_eq!(race.poll_start(after(start, 2_000)), None);
        assert_eq!(race.poll_start(after(start, 2_100)), Some(1));
    }
}
