//! Notices when somebody announces more than a home has to say, and for how long a service type is left alone then. Pure.
//!
//! mdns-sd keeps every record that it is sent, asks for what each name lacks, and ends a browse whose reader is behind; a
//! browse that is opened again replays everything first. So what it holds has to stay below what one replay can deliver.

use std::collections::HashSet;
use std::time::{Duration, Instant};

/// A replay is two events for each name, and a channel of mdns-sd takes a thousand.
pub(crate) const MAX_NAMES: usize = 400;
/// More names than this that have nothing behind them are no devices: mdns-sd asks four times for each.
pub(crate) const MAX_UNRESOLVED: usize = 64;
/// The first pause, which is doubled each time up to the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Whoever was quiet for so long begins anew.
const CALM: Duration = Duration::from_secs(60);

/// One service type. Searches for one device go on while it is closed, under the device's subtype.
#[derive(Debug, Default)]
pub(crate) struct Guard {
    names: HashSet<String>,
    pause: Option<Duration>,
    closed_until: Option<Instant>,
    last: Option<Instant>,
}

impl Guard {
    /// mdns-sd holds a name; whether that are too many.
    pub(crate) fn handle_found(&mut self, fullname: &str) -> bool {
        if !self.names.contains(fullname) {
            self.names.insert(fullname.to_owned());
        }
        self.names.len() > MAX_NAMES
    }

    /// mdns-sd has dropped a name.
    pub(crate) fn handle_gone(&mut self, fullname: &str) {
        self.names.remove(fullname);
    }

    /// mdns-sd has dropped everything.
    pub(crate) fn handle_restart(&mut self) {
        self.names.clear();
    }

    /// There was too much: the type is left alone for a while.
    pub(crate) fn handle_overflow(&mut self, now: Instant) {
        let before = self.pause.filter(|_| self.last.is_some_and(|last| now < last + CALM));
        let pause = before.map_or(PAUSES.0, |pause| (pause * 2).min(PAUSES.1));
        (self.pause, self.last) = (Some(pause), Some(now));
        self.closed_until = Some(now + pause);
    }

    /// When it is opened again, where it is closed.
    pub(crate) fn reopens_at(&self) -> Option<Instant> {
        self.closed_until
    }

    /// Whether it is still closed; the one time it is opened again is told by `Some(true)`.
    pub(crate) fn poll_closed(&mut self, now: Instant) -> Option<bool> {
        let until = self.closed_until?;
        let reopens = now >= until;
        if reopens {
            self.closed_until = None;
        }
        Some(reopens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_is_no_flood() {
        let mut guard = Guard::default();
        for _ in 0..10 {
            assert!((0..MAX_NAMES).all(|n| !guard.handle_found(&n.to_string())));
        }
        assert!(guard.handle_found("one more"));
        guard.handle_gone("1");
        assert!(!guard.handle_found("2"));
        guard.handle_restart();
        assert!(!guard.handle_found("3"));
    }

    #[test]
    fn the_pauses_grow_while_it_goes_on() {
        let start = Instant::now();
        let (mut guard, mut now, mut pauses) = (Guard::default(), start, Vec::new());
        assert_eq!(guard.poll_closed(now), None);
        for _ in 0..7 {
            guard.handle_overflow(now);
            assert_eq!(guard.poll_closed(now), Some(false));
            let reopens = guard.reopens_at().expect("it is closed");
            pauses.push((reopens - now).as_secs());
            now = reopens;
            assert_eq!((guard.poll_closed(now), guard.poll_closed(now)), (Some(true), None));
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        guard.handle_overflow(now + CALM * 2);
        assert_eq!(guard.reopens_at(), Some(now + CALM * 2 + PAUSES.0));
    }
}
