//! When a hub does its periodic work, so that a fleet does not march in step: each hub has a phase of its own, and longer rounds
//! while nothing changes. Pure.
//!
//! Due times lie on a lattice: those of a long round are every other one of the next shorter. So the hubs stay spread when all of
//! them come to longer rounds together, as they do after an outage of their cloud.
//! Not here: pauses after failures (`outbox::schedule`, `dcl::schedule`), and what the work is.

use std::time::Duration;

/// A round is at most this many times as long while nothing changes; a power of two.
const LONGEST: u32 = 4;
/// Rounds without a change before they get twice as long.
const PATIENT: u32 = 4;

/// Where a hub stands in its fleet: the same for good, and unlike its neighbours'.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(u64);

impl Place {
    /// From what identifies the hub, for instance its fabric's compressed id.
    pub fn of(identity: u64) -> Self {
        Self(mix(identity))
    }

    /// When the first round is due after a start that the whole fleet may share: anywhere within a round.
    pub fn first(self, every: Duration) -> Duration {
        remainder(self.phase(every), every)
    }

    /// How long until the next round, for a hub that has run for `since` and has seen `quiet` rounds without a change: half a
    /// round at least, and the longer the quieter.
    pub fn next(self, since: Duration, every: Duration, quiet: u32) -> Duration {
        let longer = 1u32.checked_shl(quiet / PATIENT).unwrap_or(LONGEST).clamp(1, LONGEST);
        let round = every.saturating_mul(longer);
        let earliest = since + every / 2;
        let phase = remainder(self.phase(every), round);
        let into = remainder(earliest + round - phase, round);
        every / 2 + if into.is_zero() { Duration::ZERO } else { round - into }
    }

    /// A period of the hub's own, for work that counts from its own last success: between seven eighths and nine eighths.
    pub fn period(self, every: Duration) -> Duration {
        every / 8 * 7 + part(every / 4, mix(self.0))
    }

    /// The hub's own time between the two, for things that a whole fleet may have got together and that each renews ahead of
    /// their end.
    pub fn between(self, least: Duration, most: Duration) -> Duration {
        least + part(most.saturating_sub(least), mix(self.0))
    }

    fn phase(self, every: Duration) -> Duration {
        part(every.saturating_mul(LONGEST), mix(self.0))
    }
}

/// How long until what is done `every` so often is due, for a hub that has run for `since`. Rooms that keep time by this wake an
/// idle hub together, and not one after the other.
pub(crate) fn together(since: Duration, every: Duration) -> Duration {
    every - remainder(since, every)
}

fn remainder(of: Duration, by: Duration) -> Duration {
    Duration::from_nanos_u128(of.as_nanos().checked_rem(by.as_nanos()).unwrap_or_default())
}

/// A part of `whole` that `random` chooses.
fn part(whole: Duration, random: u64) -> Duration {
    whole.mul_f64((random >> 11) as f64 / (1u64 << 53) as f64)
}

/// SplitMix64, one step: neighbouring numbers give unrelated ones.
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ mixed >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(900);

    #[test]
    fn a_hub_keeps_its_place_and_its_rounds_get_longer_while_nothing_changes() {
        assert_eq!(Place::of(7).first(EVERY), Place::of(7).first(EVERY));
        for hub in 0..1000 {
            let place = Place::of(hub);
            assert!(place.first(EVERY) < EVERY);
            assert!(place.period(EVERY) >= EVERY / 8 * 7 && place.period(EVERY) <= EVERY / 8 * 9);
            assert!(place.between(EVERY, EVERY * 2) >= EVERY && place.between(EVERY, EVERY * 2) <= EVERY * 2);
            let mut since = place.first(EVERY);
            for (quiet, longer) in [(0, 1), (1, 1), (3, 1), (4, 2), (5, 2), (8, 4), (9, 4), (100, 4), (u32::MAX, 4)] {
                let next = place.next(since, EVERY, quiet);
                assert!(next >= EVERY / 2 && next <= EVERY * longer + EVERY / 2, "{hub} {quiet}: {next:?}");
                since += next;
                assert_eq!(remainder(since, EVERY), place.first(EVERY), "off its place");
            }
        }
        assert_eq!(Place::of(1).next(Duration::ZERO, Duration::ZERO, 0), Duration::ZERO, "no period, no pause");
    }

    #[test]
    fn what_is_done_every_so_often_is_done_together() {
        let due = |since, every| together(Duration::from_millis(since), Duration::from_secs(every));
        assert_eq!(due(12_300, 5), Duration::from_millis(2700));
        assert_eq!(due(12_300, 10), Duration::from_millis(7700));
        assert_eq!(due(20_000, 10), Duration::from_secs(10), "it has just been done");
    }
}
