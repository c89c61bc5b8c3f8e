//! One row on its way to its new standing: what each outcome makes of it, and how long it waits. Pure.
//!
//! Not here: which outcome leads where (`advance`).

use std::time::Duration;

use jiff::Timestamp;

use super::class::{Class, LastResort, class_of, hint_of};
use super::{
    ACKNOWLEDGED, ACKNOWLEDGED_TRIES, ASKED_AGAIN, Advance, BACK_OFF_BASE, BACK_OFF_CAP, BIND_WINDOW, LOCK_PAUSE,
    OPERATOR_RECHECK, READ_BACK_PATIENCE, RowStep, WINDOW_CADENCE,
};
use crate::bind::FieldDifference;
use crate::bind::codes::{lookup, meaning_of};
use crate::outbox::foreign::ForeignAnswer;
use crate::outbox::ports::{OutboxEntry, OutboxState, OutboxTask};

/// A row on its way to a new standing.
pub(super) struct Move {
    pub(super) entry: OutboxEntry,
    pub(super) now: Timestamp,
    pub(super) seed: u64,
}

impl Move {
    pub(super) fn keep(self) -> Advance {
        Advance { entry: self.entry, step: RowStep::Keep }
    }

    pub(super) fn done(mut self) -> Advance {
        // What was said while it was not.
        self.entry.hint.clear();
        Advance { entry: self.entry, step: RowStep::Done }
    }

    fn stand(mut self, state: OutboxState, wait: Duration) -> Advance {
        self.entry.state = state;
        self.entry.next_try_at = Some(after(self.now, wait));
        self.keep()
    }

    /// A person must do something; `hint` says what.
    fn operator(mut self, hint: impl Into<String>) -> Advance {
        self.entry.hint = hint.into();
        let documented = self.entry.last_code.is_none_or(|code| lookup(code).is_some());
        let pause = if documented && !self.was_bound() { OPERATOR_RECHECK } else { BACK_OFF_CAP };
        self.stand(OutboxState::WaitingForOperator, pause)
    }

    /// A change of identity unbinds first, so that giving it up would leave a device unbound that was bound.
    fn was_bound(&self) -> bool {
        match self.entry.task {
            OutboxTask::UpdateMatterInfo(_) => true,
            OutboxTask::Bind(_) | OutboxTask::Unbind(_) | OutboxTask::Rename { .. } | OutboxTask::MoveRoom { .. } => {
                false
            }
        }
    }

    fn reject(mut self, hint: impl Into<String>) -> Advance {
        if self.was_bound() {
            return self.operator(hint);
        }
        self.entry.hint = hint.into();
        self.entry.state = OutboxState::Rejected;
        self.entry.next_try_at = None;
        self.keep()
    }

    pub(super) fn send_now(self) -> Advance {
        self.stand(OutboxState::Pending, Duration::ZERO)
    }

    fn look_now(self) -> Advance {
        self.stand(OutboxState::Unsettled, Duration::ZERO)
    }

    /// Body code 200 is a claim; the read-back makes it a fact.
    pub(super) fn acknowledged(mut self) -> Advance {
        self.count(Some(ACKNOWLEDGED));
        self.entry.last_message.clear();
        self.entry.hint.clear();
        self.look_now()
    }

    pub(super) fn refused(mut self, code: i64, message: &str) -> Advance {
        let waited = self.entry.last_code.map(class_of) == Some(Class::BindWindow);
        if class_of(code) == Class::BindWindow && !waited {
            // An outage before the cloud had anything to say must not use up the window.
            self.entry.first_sent_at = Some(self.now);
        }
        self.count(Some(code));
        message.clone_into(&mut self.entry.last_message);
        hint_of(code).clone_into(&mut self.entry.hint);
        let hint = self.code_hint();
        let tries = self.entry.tries_in_class;
        match class_of(code) {
            Class::ReadBackThenOperator | Class::ReadBackThenRetry { .. } | Class::FreshCode { .. } => self.look_now(),
            // 5460 is also what a bind that took effect may get, for its code is used up; a change of identity that is sent
            // again would undo itself first.
            Class::BindWindow if self.in_window() && !meaning_of(code).ambiguous => {
                self.stand(OutboxState::Pending, WINDOW_CADENCE)
            }
            // Or the window is over: one last look, for the cloud may have been slow to say that it is bound.
            Class::BindWindow => self.look_now(),
            Class::Retry { most } if tries <= most => self.back_off(OutboxState::Pending),
            Class::Retry { .. } | Class::Operator => self.operator(hint),
            Class::SignInAgain { .. } if tries <= 1 => self.back_off(OutboxState::Pending),
            Class::SignInAgain { then } => self.last_resort(then),
            Class::WithoutName => self.without_name(),
            Class::WithoutHome => self.without_home(),
            Class::Bug => self.reject(hint),
        }
    }

    /// What a code asks for once it is certain that nothing took effect.
    pub(super) fn not_in_effect(self) -> Advance {
        let hint = self.code_hint();
        let tries = self.entry.tries_in_class;
        let Some(code) = self.entry.last_code else { return self.send_now() };
        if code == ACKNOWLEDGED {
            return if tries <= ACKNOWLEDGED_TRIES {
                self.back_off(OutboxState::Pending)
            } else {
                self.operator("the cloud acknowledges this, but does not show it: ask its operator, then retry the row")
            };
        }
        match class_of(code) {
            Class::ReadBackThenRetry { most } if tries <= most => self.back_off(OutboxState::Pending),
            Class::FreshCode { most, .. } if tries <= most => Advance { entry: self.entry, step: RowStep::FreshCode },
            Class::FreshCode { then, .. } => self.last_resort(then),
            Class::BindWindow if self.in_window() => self.stand(OutboxState::Pending, WINDOW_CADENCE),
            Class::ReadBackThenRetry { .. }
            | Class::ReadBackThenOperator
            | Class::BindWindow
            | Class::Retry { .. }
            | Class::Operator => self.operator(hint),
            // These are decided without looking; an operator's retry asked for the look.
            Class::SignInAgain { .. } | Class::WithoutName | Class::WithoutHome | Class::Bug => self.send_now(),
        }
    }

    /// The daily look: nobody did anything, but the world may have changed. An expired code is never sent again.
    pub(super) fn try_without_operator(self) -> Advance {
        match self.entry.last_code.map(class_of) {
            Some(Class::FreshCode { .. }) => Advance { entry: self.entry, step: RowStep::FreshCode },
            _ => self.send_now(),
        }
    }

    pub(super) fn with_fresh_code(mut self) -> Advance {
        // The device opens its window anew with the code.
        self.entry.first_sent_at = None;
        self.send_now()
    }

    pub(super) fn without_fresh_code(self) -> Advance {
        let hint = self.code_hint();
        match self.entry.last_code.map(class_of) {
            Some(Class::FreshCode { then: LastResort::Reject, .. }) => self.reject(hint),
            _ => self.operator(hint),
        }
    }

    fn last_resort(self, then: LastResort) -> Advance {
        let hint = self.code_hint();
        match then {
            LastResort::Operator => self.operator(hint),
            LastResort::Reject => self.reject(hint),
        }
    }

    /// 5333: the cloud's limit for names is unknown, the bind matters more.
    fn without_name(mut self) -> Advance {
        let dropped = match &mut self.entry.task {
            OutboxTask::Bind(request) | OutboxTask::UpdateMatterInfo(request) => request.device_name.take().is_some(),
            OutboxTask::Unbind(_) | OutboxTask::Rename { .. } | OutboxTask::MoveRoom { .. } => false,
        };
        if dropped { self.send_now() } else { self.reject("give the device a shorter name: `matterbind node rename`") }
    }

    /// 5624, 5636, 5669: a device without a home is better than no device.
    fn without_home(mut self) -> Advance {
        let dropped = match &mut self.entry.task {
            OutboxTask::Bind(request) | OutboxTask::UpdateMatterInfo(request) => {
                let room = request.room_id.take();
                request.family_id.take().or(room).is_some()
            }
            OutboxTask::Unbind(_) | OutboxTask::Rename { .. } | OutboxTask::MoveRoom { .. } => false,
        };
        let hint = self.code_hint();
        if dropped { self.send_now() } else { self.operator(hint) }
    }

    pub(super) fn differs(mut self, fields: &[FieldDifference]) -> Advance {
        let names: Vec<&str> = fields.iter().map(|field| field.field.as_str()).collect();
        let update = matches!(self.entry.task, OutboxTask::UpdateMatterInfo(_));
        // After an acknowledged bind the same difference would come back for ever.
        if update && self.entry.last_code != Some(ACKNOWLEDGED) {
            return self.send_now();
        }
        self.entry.last_message = format!("the cloud holds another {}", names.join(", "));
        self.operator("unbind and bind again; if the difference stays, the cloud bends the ids: tell its operator")
    }

    pub(super) fn not_ours(mut self) -> Advance {
        self.entry.last_message = "our account does not own this device in the cloud".to_owned();
        self.operator("the device's owner in the cloud must unbind it, or the hub must bind it first")
    }

    /// Nothing, or nothing legible, came back.
    pub(super) fn transport(mut self, state: OutboxState, cause: &str, hint: &str) -> Advance {
        self.count(None);
        cause.clone_into(&mut self.entry.last_message);
        hint.clone_into(&mut self.entry.hint);
        self.back_off(state)
    }

    /// Not the cloud answered: nothing is known about what was asked, and no count of refusals grows.
    pub(super) fn foreign(mut self, state: OutboxState, answer: &ForeignAnswer) -> Advance {
        self.count(None);
        self.entry.last_message = answer.to_string();
        self.entry.hint = answer.hint();
        let wait = jitter(back_off(self.entry.tries_in_class), self.seed).max(self.patience(answer));
        self.stand(state, wait)
    }

    /// Not the cloud answered the read-back: what is known of the row stays.
    pub(super) fn look_past(self, answer: &ForeignAnswer) -> Advance {
        let (patience, now) = (self.patience(answer), self.now);
        let Advance { mut entry, step } = self.look_again(&answer.to_string(), &answer.hint());
        entry.next_try_at = entry.next_try_at.max(Some(after(now, patience)));
        Advance { entry, step }
    }

    /// What was asked for, within reason, and a little more for each row, so that they do not come back together.
    fn patience(&self, answer: &ForeignAnswer) -> Duration {
        answer.retry_after.map_or(Duration::ZERO, |asked| {
            let asked = asked.min(BACK_OFF_CAP / 5 * 4);
            asked + asked / 4 - jitter(asked, self.seed).saturating_sub(asked / 4 * 3)
        })
    }

    /// The read-back failed: what is known of the row stays, and the pause grows with the time that the row has taken.
    /// The cloud answers, but not the question. That may pass; what does not is for a person.
    pub(super) fn read_back_refused(mut self, code: i64, message: &str) -> Advance {
        let cause = format!("reading back was refused: {code} {message}");
        if self.entry.state == OutboxState::Unsettled && self.taken() >= READ_BACK_PATIENCE {
            self.entry.last_message = cause;
            let (why, row) = (meaning_of(code).meaning, self.entry.id.0);
            return self.operator(format!(
                "the cloud refuses to say whether this took effect ({why}): mend that, then `matterbind outbox retry {row}`"
            ));
        }
        self.look_again(&cause, ASKED_AGAIN)
    }

    /// How long ago the row was first sent.
    fn taken(&self) -> Duration {
        let since = self.entry.first_sent_at.unwrap_or(self.entry.created_at);
        Duration::try_from(self.now.duration_since(since)).unwrap_or_default()
    }

    pub(super) fn look_again(mut self, cause: &str, hint: &str) -> Advance {
        cause.clone_into(&mut self.entry.last_message);
        if self.entry.state == OutboxState::Unsettled {
            hint.clone_into(&mut self.entry.hint);
        }
        let wait = (self.taken() / 2).clamp(BACK_OFF_BASE, BACK_OFF_CAP);
        let (state, wait) = (self.entry.state, jitter(wait, self.seed));
        self.stand(state, wait)
    }

    pub(super) fn sign_in(
        mut self,
        state: OutboxState,
        code: Option<i64>,
        message: &str,
        not_before: Option<Timestamp>,
    ) -> Advance {
        message.clone_into(&mut self.entry.last_message);
        self.entry.hint = match code {
            Some(code) => format!("signing in answers {code}: check the account, its password and the hub's clock"),
            None => "check the account, its password and the hub's clock".to_owned(),
        };
        match not_before {
            // What may have taken effect stays unsettled, so that it is looked up first.
            Some(at) => {
                let wait = Duration::try_from(at.duration_since(self.now)).unwrap_or_default();
                self.stand(state, wait.clamp(BACK_OFF_BASE, LOCK_PAUSE))
            }
            // Not a day: the cloud client itself does not ask again before something has changed.
            None => self.stand(OutboxState::WaitingForOperator, BACK_OFF_CAP),
        }
    }

    fn back_off(self, state: OutboxState) -> Advance {
        let wait = jitter(back_off(self.entry.tries_in_class), self.seed);
        self.stand(state, wait)
    }

    /// Counts a try in its class of answers.
    fn count(&mut self, code: Option<i64>) {
        let same = self.entry.last_code.map(class_of) == code.map(class_of);
        self.entry.tries_in_class = if same { self.entry.tries_in_class.saturating_add(1) } else { 1 };
        self.entry.last_code = code;
    }

    /// What to do about the last code, whatever was said about reading back meanwhile.
    fn code_hint(&self) -> String {
        self.entry.last_code.map_or_else(|| self.entry.hint.clone(), |code| hint_of(code).to_owned())
    }

    fn in_window(&self) -> bool {
        self.entry.first_sent_at.is_none_or(|first| after(first, BIND_WINDOW) > after(self.now, WINDOW_CADENCE))
    }
}

/// 2 s, 4 s, 8 s … 15 min.
fn back_off(tries: u32) -> Duration {
    BACK_OFF_BASE.saturating_mul(1 << tries.saturating_sub(1).min(16)).min(BACK_OFF_CAP)
}

/// Between three quarters and the whole of `wait`, so that devices that failed together do not come back together.
fn jitter(wait: Duration, seed: u64) -> Duration {
    // SplitMix64, one step: neighbouring seeds give unrelated values.
    let mut mixed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^= mixed >> 31;
    wait - wait / 4 * (mixed as u32 >> 8) / (1 << 24)
}

pub(super) fn after(at: Timestamp, wait: Duration) -> Timestamp {
    at.checked_add(wait).unwrap_or(Timestamp::MAX)
}
