//! What a service that asks for patience still gets. Pure: takes `now`.
//!
//! 429 and Retry-After are said to the hub and not to one request, so every request keeps to them, sign-in and all: what would
//! come too early is answered here, by what the service said. A person who asks again overrules it.
//! Not here: the pauses of single rows (`outbox::schedule`), and when there is periodic work (`rhythm`).

use std::time::Duration;

use jiff::Timestamp;

use crate::outbox::foreign::ForeignAnswer;

/// The pause after a 429 that names none; it doubles with each that follows.
const FIRST: Duration = Duration::from_secs(30);
/// No pause is longer: whoever asks for days is not the service, or does not mean it.
const LONGEST: Duration = Duration::from_secs(15 * 60);
const TOO_MANY_REQUESTS: u16 = 429;

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Budget {
    /// Who asked for patience, and how long it lasts.
    asked: Option<(ForeignAnswer, Timestamp)>,
    /// How often in a row.
    times: u32,
}

impl Budget {
    /// Whether a request may leave now.
    ///
    /// # Errors
    /// What the service said, with what is left of its pause.
    pub fn admit(&self, now: Timestamp) -> Result<(), ForeignAnswer> {
        let Some((answer, until)) = &self.asked else { return Ok(()) };
        let left = Duration::try_from(until.duration_since(now)).unwrap_or_default();
        // What lies further ahead was written by a clock that was wrong.
        if left.is_zero() || left > LONGEST {
            return Ok(());
        }
        Err(ForeignAnswer { retry_after: Some(left), ..answer.clone() })
    }

    /// The service itself answered, or a person asks again.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Something answered that is no verdict of the service.
    pub fn handle_foreign(&mut self, answer: &ForeignAnswer, now: Timestamp) {
        let pause = match (answer.status, answer.retry_after) {
            (TOO_MANY_REQUESTS | 500..=599, Some(asked)) => asked,
            (TOO_MANY_REQUESTS, None) => FIRST.saturating_mul(1u32.checked_shl(self.times).unwrap_or(u32::MAX)),
            // A portal's word about itself.
            _ => return,
        };
        self.times = self.times.saturating_add(1);
        let until = now.checked_add(pause.min(LONGEST)).unwrap_or(now);
        self.asked = Some((answer.clone(), until));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_795_000_000, 0);

    fn answer(status: u16, retry_after: Option<u64>) -> ForeignAnswer {
        ForeignAnswer { status, retry_after: retry_after.map(Duration::from_secs), ..ForeignAnswer::default() }
    }

    /// How long nothing may leave.
    fn pause(budget: &Budget, now: Timestamp) -> u64 {
        budget.admit(now).err().and_then(|answer| answer.retry_after).unwrap_or_default().as_secs()
    }

    #[test]
    fn what_one_request_is_told_holds_for_all_and_is_bounded() {
        let now = NOW;
        for (status, asked, expected) in [
            (429, Some(120), 120),
            (503, Some(7), 7),
            (429, Some(86_400), 900),
            (429, None, 30),
            (503, None, 0),
            (302, Some(60), 0),
        ] {
            let mut budget = Budget::default();
            budget.handle_foreign(&answer(status, asked), now);
            assert_eq!(pause(&budget, now), expected, "{status} {asked:?}");
            assert_eq!(budget.admit(now + Duration::from_secs(expected)), Ok(()));
            assert_eq!(budget.admit(Timestamp::UNIX_EPOCH), Ok(()), "a clock that was set back freezes nothing");
        }
    }

    #[test]
    fn without_a_time_the_pause_doubles_until_the_service_answers_or_a_person_asks() {
        let now = NOW;
        let mut budget = Budget::default();
        for expected in [30, 60, 120, 240, 480, 900, 900] {
            budget.handle_foreign(&answer(429, None), now);
            assert_eq!(pause(&budget, now), expected);
        }
        let mut asked_again = budget.clone();
        asked_again.reset();
        budget.reset();
        for mut budget in [budget, asked_again] {
            assert_eq!(budget.admit(now), Ok(()));
            budget.handle_foreign(&answer(429, None), now);
            assert_eq!(pause(&budget, now), 30);
        }
    }
}
