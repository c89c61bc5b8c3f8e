//! A limit for lines that somebody else can cause: a stranger's packets, a device that is away. Pure: `now` is an argument.
//!
//! A line is known by the place in the source that prints it. Each may come a few times at once and then now and then, all
//! together a few times a second; what was held back is counted, and told as "repeated N times". Not here: which lines are
//! limited (`telemetry`).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// One line: at once, and then one in so long.
const EACH: (u32, Duration) = (3, Duration::from_secs(10));
/// All of them together.
const ALL: (u32, Duration) = (10, Duration::from_millis(500));

/// Where a line is printed: module and line number.
pub(crate) type Place = (String, u32);

/// How often each line came.
#[derive(Debug, Default)]
pub(crate) struct Limiter {
    all: Bucket,
    lines: BTreeMap<Place, Line>,
}

#[derive(Debug, Default)]
struct Line {
    bucket: Bucket,
    held_back: u64,
}

/// Room for some at once, which comes back one by one.
#[derive(Debug, Default)]
struct Bucket {
    used: u32,
    since: Option<Instant>,
}

impl Bucket {
    fn admits(&mut self, (room, each): (u32, Duration), now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        let back = now.saturating_duration_since(since).as_millis() / each.as_millis().max(1);
        let back = u32::try_from(back).unwrap_or(u32::MAX);
        self.used = self.used.saturating_sub(back);
        self.since = if self.used == 0 { Some(now) } else { since.checked_add(each * back).or(Some(now)) };
        let admits = self.used < room;
        self.used += u32::from(admits);
        admits
    }
}

impl Limiter {
    /// Whether a line may be printed now; where not, it is counted.
    pub(crate) fn admits(&mut self, place: &Place, now: Instant) -> bool {
        if !self.lines.contains_key(place) {
            self.lines.insert(place.clone(), Line::default());
        }
        let Some(line) = self.lines.get_mut(place) else { return true };
        let admits = line.bucket.admits(EACH, now) && self.all.admits(ALL, now);
        line.held_back += u64::from(!admits);
        admits
    }

    /// What was held back since this was asked last.
    pub(crate) fn take_repeats(&mut self) -> Vec<(Place, u64)> {
        let held_back = self.lines.iter_mut().filter(|(_, line)| line.held_back > 0);
        held_back.map(|(place, line)| (place.clone(), std::mem::take(&mut line.held_back))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(line: u32) -> Place {
        ("rs_matter::transport".to_owned(), line)
    }

    #[test]
    fn a_storm_is_a_few_lines_and_a_number() {
        let begin = Instant::now();
        let mut limiter = Limiter::default();
        // 100,000 packets in ten seconds, each good for two lines.
        let mut printed = 0_u64;
        for n in 0..100_000_u64 {
            let now = begin + Duration::from_micros(n * 100);
            printed += u64::from(limiter.admits(&place(1), now)) + u64::from(limiter.admits(&place(2), now));
        }
        assert!((6..=8).contains(&printed), "{printed}");
        let repeats = limiter.take_repeats();
        assert_eq!(repeats.iter().map(|(_, repeated)| repeated).sum::<u64>() + printed, 200_000);
        assert_eq!(limiter.take_repeats(), []);
    }

    #[test]
    fn many_places_share_a_limit_and_a_quiet_line_is_free_again() {
        let begin = Instant::now();
        let mut limiter = Limiter::default();
        let printed = (0..100).filter(|line| limiter.admits(&place(*line), begin)).count();
        assert_eq!(printed, ALL.0 as usize);
        let later = begin + Duration::from_secs(60);
        assert!((0..3).all(|_| limiter.admits(&place(1), later)));
        assert!(!limiter.admits(&place(1), later));
        assert!(limiter.admits(&place(1), later + EACH.1));
    }
}
