//! When a hub does its periodic work, so that a fleet does not march in step: each hub has a phase of its own, jitter at each
//! round, and longer rounds while nothing changes. Pure.
//!
//! Not here: pauses after failures (`outbox::schedule`, `dcl::schedule`), and what the work is.

use std::time::Duration;

/// A round is at most this many times as long while nothing changes.
const LONGEST: u32 = 4;
/// Rounds without a change before they get longer.
const PATIENT: u32 = 2;

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
        part(every, mix(self.0))
    }

    /// How long until the round after `round`, `quiet` rounds after the last change: between seven eighths and nine eighths.
    pub fn next(self, round: u32, every: Duration, quiet: u32) -> Duration {
        let longer = 1u32.checked_shl(quiet.saturating_sub(PATIENT)).unwrap_or(LONGEST).clamp(1, LONGEST);
        let every = every.saturating_mul(longer);
        every / 8 * 7 + part(every / 4, mix(self.0 ^ u64::from(round).wrapping_add(1)))
    }
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
    fn a_hub_keeps_its_place_and_its_rounds_stay_near_their_length() {
        assert_eq!(Place::of(7).first(EVERY), Place::of(7).first(EVERY));
        for hub in 0..1000 {
            assert!(Place::of(hub).first(EVERY) < EVERY);
            for (quiet, longer) in [(0, 1), (2, 1), (3, 2), (4, 4), (5, 4), (u32::MAX, 4)] {
                let next = Place::of(hub).next(3, EVERY, quiet);
                assert!(
                    next >= EVERY * longer / 8 * 7 && next < EVERY * longer / 8 * 9 + Duration::from_millis(1),
                    "{next:?}"
                );
            }
        }
    }
}
