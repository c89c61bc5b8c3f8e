//! What the client last saw of the cloud: a read model for `status`.

use std::sync::Mutex;

use jiff::Timestamp;
use serde::Serialize;

/// The cloud as the client last saw it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CloudHealth {
    /// Whether the last request was answered at all; `None` before the first.
    pub reachable: Option<bool>,
    /// The last answer of any kind.
    pub last_answer_at: Option<Timestamp>,
    /// What went wrong last, without secrets; `None` after a call that succeeded.
    pub last_error: Option<String>,
    pub last_error_at: Option<Timestamp>,
    /// When the access token expires, by the local clock; `None` while there is none.
    pub token_expires_at: Option<Timestamp>,
    /// Why no sign-in is tried now.
    pub sign_in_blocked: Option<String>,
    /// Until when; `None` with `sign_in_blocked`: until an operator has changed something.
    pub sign_in_not_before: Option<Timestamp>,
}

/// Shared by client, session and transport.
#[derive(Debug, Default)]
pub(super) struct HealthCell(Mutex<CloudHealth>);

impl HealthCell {
    pub(super) fn read(&self) -> CloudHealth {
        self.0.lock().expect("nothing panics while it holds the lock").clone()
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut CloudHealth)) {
        change(&mut self.0.lock().expect("nothing panics while it holds the lock"));
    }

    pub(super) fn failed(&self, error: &impl std::fmt::Display) {
        self.update(|health| {
            health.last_error = Some(error.to_string());
            health.last_error_at = Some(Timestamp::now());
        });
    }
}
