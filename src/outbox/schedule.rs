//! What becomes of a row: a pure function of the row, what happened, the time, and a seed for the jitter (cloud-contract 5).
//!
//! The cloud has no idempotency key, so the rule is: whatever may have taken effect is looked up before it is sent again.
//! A row is looked up when it is `Unsettled`, and when it waited for a person; it is sent when it is `Pending`.
//! Not here: calls and their order (`dispatcher`), rows on disk (`store`).

use std::time::Duration;

use jiff::Timestamp;

use super::foreign::ForeignAnswer;
use super::ports::{OutboxEntry, OutboxState, OutboxTask};
use crate::bind::{CloudRecord, FieldDifference};

mod class;
mod row;
#[cfg(test)]
mod tests;

use row::{Move, after};

/// How often a bind is repeated while the device has yet to report its code (5460, 5009, 5465; cloud-contract 3.1).
pub(crate) const WINDOW_CADENCE: Duration = Duration::from_secs(3);
/// How long, counted from the first try.
pub(crate) const BIND_WINDOW: Duration = Duration::from_secs(120);
/// How often a row that waits for a person is looked at without one.
pub(crate) const OPERATOR_RECHECK: Duration = Duration::from_secs(24 * 3600);
/// The first back-off; doubled with every try.
const BACK_OFF_BASE: Duration = Duration::from_secs(2);
/// The longest back-off.
const BACK_OFF_CAP: Duration = Duration::from_secs(15 * 60);
/// How long a row waits for the end of an account's lock before it asks the client again, which then answers by itself.
const LOCK_PAUSE: Duration = Duration::from_secs(20 * 60);
/// How long a read-back may be refused before a person is asked.
const READ_BACK_PATIENCE: Duration = Duration::from_secs(15 * 60);
/// How often a bind that the cloud acknowledged, but does not show, is sent again.
const ACKNOWLEDGED_TRIES: u32 = 3;
const ACKNOWLEDGED: i64 = 200;
const UNREACHABLE: &str = "the cloud cannot be reached; this goes on by itself when it can";
const ASKED_AGAIN: &str = "the cloud could not be asked whether this took effect; it is asked again";

/// What is to be done with a row that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowAction {
    /// Ask the cloud to do it.
    Send,
    /// Ask the cloud whether it is done.
    ReadBack,
    /// Nothing: refused for good.
    Nothing,
}

/// What a read-back showed, as far as the row is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadBack {
    /// What the row wants is so.
    InEffect,
    /// What the row wants is not so, and may be asked for.
    NotInEffect,
    /// The device is bound by us with other Matter ids.
    Differs(Vec<FieldDifference>),
    /// The device is not (or not as its owner) in our account, although the row needs that, or its binding is invalid.
    NotOurs,
}

/// What happened to a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendOutcome {
    /// Body code 200.
    Accepted,
    /// Another body code.
    Refused {
        /// The `code` in the body, which `bind::codes` explains.
        code: i64,
        /// The cloud's message.
        message: String,
    },
    /// The request never left.
    NotSent {
        /// For the row's `last_error`.
        cause: String,
    },
    /// The request never left, for whoever answers cannot be trusted.
    Untrusted {
        /// For the row's `last_error`.
        cause: String,
        /// What a person can do about it.
        hint: String,
    },
    /// Nobody knows whether it took effect.
    Ambiguous {
        /// What was seen.
        cause: String,
    },
    /// Something answered that is not the cloud.
    Foreign {
        /// As much of it as helps to find out who that is.
        answer: Box<ForeignAnswer>,
        /// Whether the request itself was answered so, and not the sign-in that it needed.
        sent: bool,
    },
    /// There is no signing in at the moment; the request never left.
    SignIn {
        /// The cloud's code.
        code: Option<i64>,
        /// What to tell the operator.
        message: String,
        /// `None`: not before an operator has changed something.
        not_before: Option<Timestamp>,
    },
    /// The cloud was asked what it holds.
    ReadBack(ReadBack),
    /// A fresh binding code was asked for; true: the row's task has it now.
    FreshCode(bool),
}

/// What the dispatcher does with the row that [`advance`] answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowStep {
    /// Delete it: what it wanted is so.
    Done,
    /// Write it; it is due at its `next_try_at`.
    Keep,
    /// Write it, get a fresh binding code, and come back with [`SendOutcome::FreshCode`].
    FreshCode,
}

/// A row's new standing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advance {
    /// The row as it is to be written.
    pub entry: OutboxEntry,
    /// What to do with it.
    pub step: RowStep,
}

/// The longest pause that a row in this state is ever given. What is due later was written by a clock that was wrong.
pub(crate) fn longest_pause(state: OutboxState) -> Duration {
    match state {
        OutboxState::Pending | OutboxState::Sending | OutboxState::Unsettled => LOCK_PAUSE,
        OutboxState::WaitingForOperator | OutboxState::Rejected => OPERATOR_RECHECK,
    }
}

/// Whether the row may be worked on now.
pub(crate) fn is_due(entry: &OutboxEntry, now: Timestamp) -> bool {
    entry.next_try_at.is_some_and(|at| at <= now || at > after(now, longest_pause(entry.state)))
}

/// The row with no time that lies ahead of the clock: the clock was wrong when they were written, or is wrong now. Either way
/// windows and pauses count from here.
pub(crate) fn without_future(entry: &OutboxEntry, now: Timestamp) -> OutboxEntry {
    OutboxEntry {
        created_at: entry.created_at.min(now),
        first_sent_at: entry.first_sent_at.map(|at| at.min(now)),
        ..entry.clone()
    }
}

/// What to do with a due row. A row that was being sent when the daemon ended goes through [`recover`] first.
pub fn action(entry: &OutboxEntry) -> RowAction {
    match entry.state {
        OutboxState::Pending => RowAction::Send,
        OutboxState::Sending | OutboxState::Unsettled | OutboxState::WaitingForOperator => RowAction::ReadBack,
        OutboxState::Rejected => RowAction::Nothing,
    }
}

/// The row as it is written before its request leaves.
pub fn begin_sending(entry: &OutboxEntry, now: Timestamp) -> OutboxEntry {
    OutboxEntry {
        state: OutboxState::Sending,
        tries: entry.tries.saturating_add(1),
        first_sent_at: entry.first_sent_at.or(Some(now)),
        next_try_at: Some(now),
        ..entry.clone()
    }
}

/// A row that a crash left in `Sending`: its outcome is unknown, and its last code belongs to an earlier try.
pub(crate) fn recover(entry: &OutboxEntry, now: Timestamp) -> OutboxEntry {
    OutboxEntry {
        state: OutboxState::Unsettled,
        last_code: None,
        last_message: "the daemon ended while the request was under way".to_owned(),
        next_try_at: Some(now),
        hint: String::new(),
        ..entry.clone()
    }
}

/// Reads the cloud's record (none: our account does not have the device) as an answer to what the task wants.
pub(crate) fn judge(task: &OutboxTask, record: Option<&CloudRecord>) -> ReadBack {
    let ours = |record: &CloudRecord| record.device_type != Some(2) && record.status.is_none_or(|status| status == 1);
    match (task, record) {
        (OutboxTask::Bind(_) | OutboxTask::UpdateMatterInfo(_), None) => ReadBack::NotInEffect,
        (OutboxTask::Bind(request) | OutboxTask::UpdateMatterInfo(request), Some(record)) => {
            let held = record.matter_info.clone().unwrap_or_default();
            let differences = request.matter_info.differences(&held);
            match (ours(record), differences.is_empty()) {
                (false, _) => ReadBack::NotOurs,
                (true, true) => ReadBack::InEffect,
                (true, false) => ReadBack::Differs(differences),
            }
        }
        (OutboxTask::Unbind(_), None) => ReadBack::InEffect,
        (OutboxTask::Unbind(_), Some(_)) => ReadBack::NotInEffect,
        (OutboxTask::Rename { .. } | OutboxTask::MoveRoom { .. }, None) => ReadBack::NotOurs,
        (OutboxTask::Rename { name, .. }, Some(record)) => so(record.device_name.as_ref() == Some(name)),
        (OutboxTask::MoveRoom { new_room_id, .. }, Some(record)) => so(record.room_id.as_ref() == Some(new_room_id)),
    }
}

fn so(yes: bool) -> ReadBack {
    if yes { ReadBack::InEffect } else { ReadBack::NotInEffect }
}

/// The whole transition table: a row, what happened to it, and what becomes of it. Every `seed` gives a legal answer.
pub fn advance(entry: &OutboxEntry, outcome: &SendOutcome, now: Timestamp, seed: u64) -> Advance {
    use OutboxState::{Pending, Rejected, Sending, Unsettled, WaitingForOperator};
    let row = Move { entry: entry.clone(), now, seed };
    match (entry.state, outcome) {
        // The request was made (a dropped `Sending` mark makes no difference).
        (Pending | Sending, SendOutcome::Accepted) => row.acknowledged(),
        (Pending | Sending, SendOutcome::Refused { code, message }) => row.refused(*code, message),
        (Pending | Sending, SendOutcome::NotSent { cause }) => row.transport(Pending, cause, UNREACHABLE),
        (Pending | Sending, SendOutcome::Untrusted { cause, hint }) => row.transport(Pending, cause, hint),
        (Pending | Sending, SendOutcome::Ambiguous { cause }) => row.transport(Unsettled, cause, UNREACHABLE),
        (Pending | Sending, SendOutcome::Foreign { answer, sent }) => {
            let state = if *sent && answer.may_hide_success() { Unsettled } else { Pending };
            row.foreign(state, answer)
        }
        (Unsettled | WaitingForOperator, SendOutcome::Foreign { answer, .. }) => row.look_past(answer),
        // The cloud was only asked what it holds, or answered for something that was not asked: look again.
        (Unsettled | WaitingForOperator, SendOutcome::Accepted) => row.acknowledged(),
        (Unsettled | WaitingForOperator, SendOutcome::Refused { code, message }) => {
            row.read_back_refused(*code, message)
        }
        (Unsettled | WaitingForOperator, SendOutcome::NotSent { cause } | SendOutcome::Ambiguous { cause }) => {
            row.look_again(cause, ASKED_AGAIN)
        }
        (Unsettled | WaitingForOperator, SendOutcome::Untrusted { cause, hint }) => row.look_again(cause, hint),
        (Pending | Sending, SendOutcome::SignIn { code, message, not_before }) => {
            row.sign_in(Pending, *code, message, *not_before)
        }
        (Unsettled, SendOutcome::SignIn { code, message, not_before }) => {
            row.sign_in(Unsettled, *code, message, *not_before)
        }
        (WaitingForOperator, SendOutcome::SignIn { message, .. }) => row.look_again(message, ASKED_AGAIN),
        (Pending | Sending | Unsettled | WaitingForOperator, SendOutcome::ReadBack(ReadBack::InEffect)) => row.done(),
        (Pending | Sending | Unsettled | WaitingForOperator, SendOutcome::ReadBack(ReadBack::NotOurs)) => {
            row.not_ours()
        }
        (Pending | Sending | Unsettled | WaitingForOperator, SendOutcome::ReadBack(ReadBack::Differs(fields))) => {
            row.differs(fields)
        }
        (Pending | Sending, SendOutcome::ReadBack(ReadBack::NotInEffect)) => row.send_now(),
        (Unsettled, SendOutcome::ReadBack(ReadBack::NotInEffect)) => row.not_in_effect(),
        (WaitingForOperator, SendOutcome::ReadBack(ReadBack::NotInEffect)) => row.try_without_operator(),
        (Pending | Sending | Unsettled | WaitingForOperator, SendOutcome::FreshCode(true)) => row.with_fresh_code(),
        (Pending | Sending | Unsettled | WaitingForOperator, SendOutcome::FreshCode(false)) => row.without_fresh_code(),
        (
            Rejected,
            SendOutcome::Accepted
            | SendOutcome::Refused { .. }
            | SendOutcome::NotSent { .. }
            | SendOutcome::Untrusted { .. }
            | SendOutcome::Ambiguous { .. }
            | SendOutcome::Foreign { .. }
            | SendOutcome::SignIn { .. }
            | SendOutcome::ReadBack(_)
            | SendOutcome::FreshCode(_),
        ) => row.keep(),
    }
}
