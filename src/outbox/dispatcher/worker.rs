//! Takes one row as far as it goes now: read back or send, ask the schedule, write, again.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::broadcast;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::report;
use super::{DispatchOptions, Now, OutboxResult};
use crate::bind::{BindReceipt, BindRequest, BindState, BindStatus, CloudRecord};
use crate::durable::StoreError;
use crate::failpoint;
use crate::journal::EventSink;
use crate::outbox::ports::{BindApi, BindingCodeSource, CloudError, OutboxEntry, OutboxState, OutboxStore, OutboxTask};
use crate::outbox::schedule::{
    RowAction, RowStep, SendOutcome, action, advance, begin_sending, is_due, judge, recover, without_future,
};

/// A row that does not come to rest in this many steps goes back to the queue.
const MOST_STEPS: u32 = 12;

pub(super) struct Worker<S, B, C, E> {
    pub(super) store: Arc<S>,
    pub(super) api: Arc<B>,
    pub(super) codes: Arc<C>,
    pub(super) events: Arc<E>,
    pub(super) clock: Now,
    pub(super) results: broadcast::Sender<OutboxResult>,
    pub(super) options: DispatchOptions,
}

/// What the cloud gave on the way, for the record of a bind.
#[derive(Default)]
struct Given {
    receipt: Option<BindReceipt>,
    record: Option<CloudRecord>,
}

impl<S: OutboxStore, B: BindApi, C: BindingCodeSource, E: EventSink> Worker<S, B, C, E> {
    /// # Errors
    /// The store failed; what is on disk is the last standing that was written.
    pub(super) async fn run(&self, entry: OutboxEntry, cancel: &CancellationToken) -> Result<(), StoreError> {
        match self.take_as_far_as_it_goes(entry, cancel).await {
            // Dropped by the operator or by a removal while the cloud was asked: nothing to write.
            Err(StoreError::Missing(row)) => {
                tracing::info!("{row} was dropped while it was worked on");
                Ok(())
            }
            other => other,
        }
    }

    async fn take_as_far_as_it_goes(&self, entry: OutboxEntry, cancel: &CancellationToken) -> Result<(), StoreError> {
        let before = entry.clone();
        let mut entry = without_future(&entry, (self.clock)());
        let mut given = Given::default();
        if entry.state == OutboxState::Sending {
            entry = recover(&entry, (self.clock)());
            self.store.update(&entry).await?;
        }
        for _ in 0..MOST_STEPS {
            if cancel.is_cancelled() || !is_due(&entry, (self.clock)()) {
                break;
            }
            let outcome = match action(&entry) {
                RowAction::Send => {
                    entry = begin_sending(&entry, (self.clock)());
                    failpoint::reach("sending.before");
                    self.store.update(&entry).await?;
                    failpoint::reach("sending.saved");
                    let outcome = self.send(&entry.task, &mut given).await;
                    failpoint::reach("answer.received");
                    outcome
                }
                RowAction::ReadBack => self.read_back(&entry.task, &mut given).await,
                RowAction::Nothing => break,
            };
            let now = (self.clock)();
            let accepted = matches!(outcome, SendOutcome::Accepted);
            if let Some(alarm) = report::alarm(&entry, &outcome, now) {
                self.events.record(alarm);
            }
            let verdict = advance(&entry, &outcome, now, self.seed(&entry));
            entry = verdict.entry;
            match verdict.step {
                RowStep::Done => return self.settle(&entry, given, now).await,
                // The disk says "sending", and whoever finds that reads back too: not worth a write.
                RowStep::Keep if accepted => continue,
                RowStep::Keep => {}
                RowStep::FreshCode => {
                    self.store.update(&entry).await?;
                    let fresh = SendOutcome::FreshCode(self.refresh_code(&mut entry).await);
                    entry = advance(&entry, &fresh, (self.clock)(), self.seed(&entry)).entry;
                }
            }
            self.store.update(&entry).await?;
            failpoint::reach("answer.saved");
        }
        self.rest(&before, &entry).await
    }

    /// A seed that differs from row to row and from try to try.
    fn seed(&self, entry: &OutboxEntry) -> u64 {
        self.options.seed ^ entry.id.0.unsigned_abs() << 20 ^ u64::from(entry.tries)
    }

    async fn send(&self, task: &OutboxTask, given: &mut Given) -> SendOutcome {
        let call = async {
            match task {
                OutboxTask::Bind(request) => given.receipt = Some(self.api.bind(request).await?),
                OutboxTask::UpdateMatterInfo(request) => {
                    // The cloud has no update (cloud-contract 4). Unbinding what is not bound is no error.
                    self.api.unbind(&request.device).await?;
                    given.receipt = Some(self.api.bind(request).await?);
                }
                OutboxTask::Unbind(device) => self.api.unbind(device).await?,
                OutboxTask::Rename { device, name } => self.api.rename(device, name).await?,
                OutboxTask::MoveRoom { device, family_id, old_room_id, new_room_id } => {
                    self.api.move_room(device, family_id, old_room_id.as_deref(), new_room_id).await?;
                }
            }
            Ok(SendOutcome::Accepted)
        };
        match timeout(self.options.call_deadline, call).await {
            Ok(Ok(accepted)) => accepted,
            Ok(Err(error)) => outcome_of(error),
            Err(_) => self.unanswered(),
        }
    }

    async fn read_back(&self, task: &OutboxTask, given: &mut Given) -> SendOutcome {
        match timeout(self.options.call_deadline, self.api.find(task.device())).await {
            Ok(Ok(record)) => {
                let answer = judge(task, record.as_ref());
                given.record = record;
                SendOutcome::ReadBack(answer)
            }
            Ok(Err(error)) => outcome_of(error),
            Err(_) => self.unanswered(),
        }
    }

    fn unanswered(&self) -> SendOutcome {
        SendOutcome::Ambiguous { cause: format!("no answer within {} ms", self.options.call_deadline.as_millis()) }
    }

    /// Puts a fresh code into the row's task, where there is one.
    async fn refresh_code(&self, entry: &mut OutboxEntry) -> bool {
        let Some(request) = request_of(&mut entry.task) else { return false };
        let fresh = self.codes.fresh_code(entry.node_id, &request.matter_info);
        match timeout(self.options.call_deadline, fresh).await {
            Ok(Some(code)) => {
                request.binding_code = code;
                true
            }
            Ok(None) | Err(_) => false,
        }
    }

    /// The row is done.
    async fn settle(&self, entry: &OutboxEntry, given: Given, now: Timestamp) -> Result<(), StoreError> {
        let (status, receipt) = match &entry.task {
            OutboxTask::Bind(_) | OutboxTask::UpdateMatterInfo(_) => {
                let status = BindStatus {
                    state: BindState::Bound,
                    code: Some(200),
                    message: String::new(),
                    tries: entry.tries,
                    bound_at: Some(now),
                    confirmed_at: Some(now),
                };
                (Some(status), Some(receipt_of(given)))
            }
            OutboxTask::Unbind(_) => {
                let message = "unbound in the cloud".to_owned();
                (Some(BindStatus { state: BindState::Disabled, message, ..BindStatus::default() }), None)
            }
            OutboxTask::Rename { .. } | OutboxTask::MoveRoom { .. } => (None, None),
        };
        failpoint::reach("settle.before");
        self.store.settle(entry, status.clone(), receipt.as_ref()).await?;
        failpoint::reach("settle.after");
        self.events.record(report::done(entry, now));
        self.publish(entry, None, status);
        Ok(())
    }

    /// The row waits, for the clock or for a person, or is refused.
    async fn rest(&self, before: &OutboxEntry, entry: &OutboxEntry) -> Result<(), StoreError> {
        let status = matches!(entry.task, OutboxTask::Bind(_) | OutboxTask::UpdateMatterInfo(_)).then(|| BindStatus {
            state: if entry.state == OutboxState::Rejected { BindState::Rejected } else { BindState::Pending },
            code: entry.last_code,
            message: entry.last_message.clone(),
            tries: entry.tries,
            bound_at: None,
            confirmed_at: None,
        });
        if let Some(status) = status.clone().filter(|_| before != entry) {
            self.store.note_bind_status(entry.node_id, status).await?;
        }
        if let Some(event) = report::standing(before, entry, (self.clock)()) {
            self.events.record(event);
        }
        self.publish(entry, Some(entry.state), status);
        Ok(())
    }

    fn publish(&self, entry: &OutboxEntry, state: Option<OutboxState>, status: Option<BindStatus>) {
        // Nobody may be listening.
        let _ = self.results.send(OutboxResult {
            id: entry.id,
            node_id: entry.node_id,
            kind: entry.task.kind(),
            state,
            status,
            hint: entry.hint.clone(),
        });
    }
}

fn request_of(task: &mut OutboxTask) -> Option<&mut BindRequest> {
    match task {
        OutboxTask::Bind(request) | OutboxTask::UpdateMatterInfo(request) => Some(request),
        OutboxTask::Unbind(_) | OutboxTask::Rename { .. } | OutboxTask::MoveRoom { .. } => None,
    }
}

/// The bind's answer, completed by what the read-back showed: after a lost answer that is all there is.
fn receipt_of(given: Given) -> BindReceipt {
    let (auth_key, binding_mode) = given.record.map_or((None, None), |record| (record.auth_key, record.binding_mode));
    let answer = given.receipt.unwrap_or(BindReceipt { auth_key: None, binding_mode: None, product_name: None });
    BindReceipt {
        auth_key: auth_key.or(answer.auth_key),
        binding_mode: binding_mode.or(answer.binding_mode),
        product_name: answer.product_name,
    }
}

fn outcome_of(error: CloudError) -> SendOutcome {
    match error {
        CloudError::Code { code, message } => SendOutcome::Refused { code, message },
        CloudError::NotSent { cause } => SendOutcome::NotSent { cause },
        CloudError::Untrusted { cause, hint } => SendOutcome::Untrusted { cause, hint },
        CloudError::Ambiguous { cause } => SendOutcome::Ambiguous { cause },
        CloudError::Foreign { answer, sent } => SendOutcome::Foreign { answer, sent },
        CloudError::SignIn { code, message, not_before } => SendOutcome::SignIn { code, message, not_before },
    }
}
