//! One attempt under way: what its steps share, and the clock that they are held to. What the clock decides is `attempt`'s.

use std::time::Instant;

use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{Progress, ProgressFn};
use crate::commissioning::attempt::{Attempt, DeviceEvent, Expired};
use crate::commissioning::error::CommissioningError;
use crate::commissioning::path::Breadcrumb;
use crate::commissioning::ports::{FailSafe, LinkError};
use crate::commissioning::step::Step;

/// See the module.
pub(super) struct Run<'a> {
    pub(super) attempt: Attempt,
    pub(super) progress: ProgressFn<'a>,
    pub(super) stop: &'a CancellationToken,
    /// What the device's breadcrumb is to say whenever its fail-safe is armed.
    pub(super) breadcrumb: Breadcrumb,
}

impl Run<'_> {
    /// Runs one step within its deadline. A daemon that stops begins no new step.
    pub(super) async fn step<T>(
        &mut self,
        step: Step,
        work: impl Future<Output = Result<T, CommissioningError>>,
    ) -> Result<T, CommissioningError> {
        if self.stop.is_cancelled() {
            return Err(CommissioningError::Stopped { step });
        }
        let began = now();
        self.attempt.handle_step(step, began);
        (self.progress)(Progress::Started(step));
        let span = tracing::info_span!("step", step = step.as_str());
        let deadline = tokio::time::Instant::from_std(self.attempt.next_deadline());
        let outcome = match tokio::time::timeout_at(deadline, work.instrument(span)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.expired(step)),
        };
        if outcome.is_ok() {
            (self.progress)(Progress::Finished(step, began.elapsed()));
        }
        outcome
    }

    fn expired(&self, step: Step) -> CommissioningError {
        match self.attempt.expired() {
            Expired::Step(after) => CommissioningError::StepTimeout { step, after },
            Expired::Attempt(after) => CommissioningError::Deadline { step, after },
            Expired::FailSafe(after) => CommissioningError::FailSafeExpired { step, after },
        }
    }

    pub(super) fn device(&mut self, event: DeviceEvent) {
        self.attempt.handle_device(event, now());
    }

    /// Arms the fail-safe again when less than half of it is left.
    pub(super) async fn keep_armed(&mut self, session: &impl FailSafe) -> Result<(), CommissioningError> {
        if self.attempt.rearm_due(now()) {
            let (step, expiry) = (self.attempt.step(), self.attempt.fail_safe());
            match session.arm_fail_safe(expiry, self.breadcrumb.value()).await {
                Ok(()) => self.device(DeviceEvent::Armed),
                // A device that has one radio has left it; before it went, its fail-safe was armed for all that follows. For any
                // other the next command says that it is gone.
                Err(LinkError::BluetoothLost) => {}
                Err(cause) => return Err(CommissioningError::Link { step, cause }),
            }
        }
        Ok(())
    }
}

/// The clock that deadlines are kept by: tokio's, so that a test need not wait for them.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
