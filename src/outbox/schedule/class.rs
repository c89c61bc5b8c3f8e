//! What each body code asks of the schedule: the table of `bind::codes`, with what only the schedule needs to know.

use crate::bind::codes::{Remedy, TOKEN_MISSING, meaning_of};

/// The binding code's format is wrong: a fresh one helps once, then it is the device or its profile.
const BINDING_CODE_FORMAT: i64 = 5213;

/// What is left when the number of tries is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LastResort {
    /// A person must do something.
    Operator,
    Reject,
}

/// What a code asks for. "Most" counts tries in a row that end in the same class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// It may be so already: look; if it is not, only a person can help.
    ReadBackThenOperator,
    /// It may have taken effect: look; if it has not, try again.
    ReadBackThenRetry { most: u32 },
    /// Nothing took effect, it may do so soon.
    Retry { most: u32 },
    /// The device has yet to report something: every 3 s until the window ends.
    BindWindow,
    /// The cloud client has signed in again already; once more, then no more.
    SignInAgain { then: LastResort },
    /// The binding code is no good: look, then read another from the device.
    FreshCode { most: u32, then: LastResort },
    /// Drop the name and send again.
    WithoutName,
    /// Drop family and room and send again.
    WithoutHome,
    /// A person must do something.
    Operator,
    /// The request is wrong and stays wrong.
    Bug,
}

/// The class of a body code. An acknowledgement (200) that is asked for here was not confirmed, so it is looked up.
pub(super) fn class_of(code: i64) -> Class {
    let row = meaning_of(code);
    let most = row.tries;
    match (row.remedy, row.ambiguous) {
        (Remedy::Bound | Remedy::DoneIfReadBack, _) => Class::ReadBackThenOperator,
        (Remedy::RetryInBindWindow, _) => Class::BindWindow,
        (Remedy::RetryWithBackOff, true) => Class::ReadBackThenRetry { most },
        (Remedy::RetryWithBackOff, false) => Class::Retry { most },
        (Remedy::SignInAgain, _) => {
            Class::SignInAgain { then: if code == TOKEN_MISSING { LastResort::Reject } else { LastResort::Operator } }
        }
        (Remedy::FreshCode, _) => {
            let then = if code == BINDING_CODE_FORMAT { LastResort::Reject } else { LastResort::Operator };
            Class::FreshCode { most, then }
        }
        (Remedy::ResendWithoutName, _) => Class::WithoutName,
        (Remedy::ResendWithoutHome, _) => Class::WithoutHome,
        (Remedy::Operator, true) => Class::ReadBackThenOperator,
        (Remedy::Operator, false) => Class::Operator,
        (Remedy::Bug, _) => Class::Bug,
    }
}

/// What a person can do about a code.
pub(super) fn hint_of(code: i64) -> &'static str {
    match meaning_of(code).hint {
        "" => "this goes on by itself; if it does not, see the cloud's message, then retry or drop the row",
        hint => hint,
    }
}
