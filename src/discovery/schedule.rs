//! When to ask next. Pure.
//!
//! RFC 6762 5.2 wants queries that back off; mdns-sd doubles its interval up to an hour and starts over only with a new
//! browse. While somebody waits for a device that is not soon enough, so this schedule starts over with each search.

use std::time::{Duration, Instant};

/// The gaps after a search began: at 0, 0.25, 0.5, 1, 2, 4 s, then every 4 s.
const GAPS: [Duration; 6] = [
    Duration::from_millis(250),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];
/// However many searches begin, the network sees no more than this.
const SHORTEST_GAP: Duration = Duration::from_millis(200);
/// With nobody waiting. Announcements tell what appears; this heals what was lost, at next to no cost.
const IDLE_GAP: Duration = Duration::from_secs(60);

/// The times of the query rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Schedule {
    step: usize,
    last: Option<Instant>,
    next: Instant,
}

impl Schedule {
    /// The first query is due now.
    pub(crate) fn new(now: Instant) -> Self {
        Self { step: 0, last: None, next: now }
    }

    pub(crate) fn handle_search(&mut self, now: Instant) {
        self.step = 0;
        self.next = self.last.map_or(now, |last| now.max(last + SHORTEST_GAP));
    }

    /// A round was sent.
    pub(crate) fn handle_round(&mut self, now: Instant, somebody_waits: bool) {
        self.last = Some(now);
        self.next = now + if somebody_waits { GAPS[self.step.min(GAPS.len() - 1)] } else { IDLE_GAP };
        self.step += 1;
    }

    /// When the next round is due.
    pub(crate) fn next(&self) -> Instant {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_asks_at_once_and_goes_on_asking() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        let mut asked = Vec::new();
        for _ in 0..8 {
            let now = schedule.next();
            asked.push((now - start).as_millis());
            schedule.handle_round(now, true);
        }
        assert_eq!(asked, [0, 250, 500, 1000, 2000, 4000, 8000, 12000]);
    }

    #[test]
    fn with_nobody_waiting_it_asks_every_minute() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        schedule.handle_round(start, false);
        assert_eq!(schedule.next(), start + IDLE_GAP);
        schedule.handle_search(start + Duration::from_secs(5));
        assert_eq!(schedule.next(), start + Duration::from_secs(5));
    }

    #[test]
    fn many_searches_at_once_make_one_round() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        schedule.handle_round(start, true);
        schedule.handle_search(start);
        schedule.handle_search(start + Duration::from_millis(1));
        assert_eq!(schedule.next(), start + SHORTEST_GAP);
    }
}
