//! Sends the rows of the outbox: many devices side by side, one row at a time for each device.
//!
//! One task ([`Dispatcher::run`]) reads the queue and starts one worker for each row that is due; a worker takes its row
//! as far as it goes now, writing every standing before it acts upon it. Cancelling stops between two calls to the cloud: a
//! worker ends after the call it is in, and a row that is cut off later is read back at the next start.
//! A cloud that fails is never an error here; `Err` means that the store is broken. Not here: what an answer means
//! (`schedule`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, broadcast};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::ports::{BindApi, BindingCodeSource, OutboxEntry, OutboxId, OutboxState, OutboxStore};
use crate::bind::{BindStatus, CloudDevice};
use crate::durable::StoreError;
use crate::journal::{Event, EventSink, Level};
use crate::node::NodeId;

mod report;
mod worker;

use worker::Worker;

/// Tells the time; tests pass a virtual one.
pub type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The queue is read at least this often, whatever the clock does meanwhile.
const POLL: Duration = Duration::from_secs(60);
/// How long the dispatcher leaves a store alone that cannot be written (disk full, read-only).
const STORE_PAUSE: Duration = Duration::from_secs(5);
/// Results that a slow listener may be behind.
const RESULTS: usize = 1024;

/// How the dispatcher works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DispatchOptions {
    /// Devices worked on side by side, at least 1.
    pub parallel: usize,
    /// Beyond this a call counts as unanswered. The cloud client's own timeouts should be shorter.
    pub call_deadline: Duration,
    /// Where the jitter comes from.
    pub seed: u64,
}

impl Default for DispatchOptions {
    fn default() -> Self {
        Self { parallel: 16, call_deadline: Duration::from_secs(60), seed: 0 }
    }
}

/// What became of a row when its worker let go of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxResult {
    pub id: OutboxId,
    pub node_id: NodeId,
    /// `bind`, `unbind`, …
    pub kind: &'static str,
    /// `None`: done and deleted. Otherwise where it stands now.
    pub state: Option<OutboxState>,
    /// For binds: what the node's record says now.
    pub status: Option<BindStatus>,
    /// What a person can do about it.
    pub hint: String,
}

impl OutboxResult {
    /// Whether nothing more happens by itself soon: done, refused for good, or waiting for a person.
    pub fn is_settled(&self) -> bool {
        matches!(self.state, None | Some(OutboxState::Rejected | OutboxState::WaitingForOperator))
    }
}

/// The dispatcher as everybody else sees it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct OutboxHandle {
    wake: Arc<Notify>,
    results: broadcast::Sender<OutboxResult>,
}

impl OutboxHandle {
    /// Reads the queue now. Changes that go through the store do this by themselves.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// What becomes of rows from now on. To wait for a row, subscribe before it is written, then use [`wait_for`].
    pub fn results(&self) -> broadcast::Receiver<OutboxResult> {
        self.results.subscribe()
    }
}

/// Waits until the row is settled, `deadline` at most; `None` where it is not, then the node's record tells how it stands.
pub async fn wait_for(
    results: &mut broadcast::Receiver<OutboxResult>,
    row: OutboxId,
    deadline: Duration,
) -> Option<OutboxResult> {
    let wait = async {
        loop {
            match results.recv().await {
                Ok(result) if result.id == row && result.is_settled() => return Some(result),
                Ok(_) => {}
                // What was missed may be the answer: the caller looks at the record.
                Err(broadcast::error::RecvError::Lagged(_) | broadcast::error::RecvError::Closed) => return None,
            }
        }
    };
    timeout(deadline, wait).await.ok().flatten()
}

/// See the module.
pub struct Dispatcher<S, B, C, E> {
    worker: Arc<Worker<S, B, C, E>>,
    parallel: usize,
    wake: Arc<Notify>,
}

impl<S: OutboxStore, B: BindApi, C: BindingCodeSource, E: EventSink> Dispatcher<S, B, C, E> {
    /// A dispatcher and its handle; nothing runs yet.
    pub fn new(
        store: Arc<S>,
        api: Arc<B>,
        codes: Arc<C>,
        events: Arc<E>,
        clock: Now,
        options: DispatchOptions,
    ) -> (Self, OutboxHandle) {
        let wake = Arc::new(Notify::new());
        let (results, _) = broadcast::channel(RESULTS);
        let handle = OutboxHandle { wake: wake.clone(), results: results.clone() };
        let worker = Worker { store, api, codes, events, clock, results, options };
        (Self { worker: Arc::new(worker), parallel: options.parallel.max(1), wake }, handle)
    }

    /// Works until `cancel`; then lets the workers finish the call that they are in.
    ///
    /// # Errors
    /// The store is damaged or closed. A full or read-only disk is waited for.
    pub async fn run(self, cancel: CancellationToken) -> Result<(), StoreError> {
        let mut workers = JoinSet::new();
        let mut busy = HashMap::new();
        let result = self.dispatch(&cancel, &mut workers, &mut busy).await;
        cancel.cancel();
        while let Some(ended) = workers.join_next_with_id().await {
            self.ended(ended, &mut busy)?;
        }
        result
    }

    async fn dispatch(
        &self,
        cancel: &CancellationToken,
        workers: &mut JoinSet<Result<(), StoreError>>,
        busy: &mut HashMap<tokio::task::Id, CloudDevice>,
    ) -> Result<(), StoreError> {
        // Before the first look at the queue: what is added from here on wakes us.
        let mut changes = self.worker.store.changes();
        loop {
            changes.borrow_and_update();
            let pause = match self.start_due(cancel, workers, busy).await {
                Ok(pause) => pause,
                Err(error) => self.tolerate(error)?,
            };
            tokio::select! {
                biased;
                () = cancel.cancelled() => return Ok(()),
                Some(ended) = workers.join_next_with_id(), if !workers.is_empty() => {
                    if let Some(pause) = self.ended(ended, busy)? {
                        tokio::select! {
                            () = cancel.cancelled() => return Ok(()),
                            () = sleep(pause) => {}
                        }
                    }
                }
                changed = changes.changed() => changed.map_err(|_| StoreError::Closed)?,
                () = self.wake.notified() => {}
                () = sleep(pause) => {}
            }
        }
    }

    /// Starts a worker for each due row there is room for; answers how long to sleep.
    async fn start_due(
        &self,
        cancel: &CancellationToken,
        workers: &mut JoinSet<Result<(), StoreError>>,
        busy: &mut HashMap<tokio::task::Id, CloudDevice>,
    ) -> Result<Duration, StoreError> {
        let taken: Vec<CloudDevice> = busy.values().cloned().collect();
        let room = self.parallel.saturating_sub(workers.len());
        if room == 0 {
            return Ok(POLL);
        }
        let now = (self.worker.clock)();
        for entry in self.worker.store.due(now, &taken, room).await? {
            let device = entry.task.device().clone();
            let task = workers.spawn(self.work(entry, cancel.clone()));
            busy.insert(task.id(), device);
        }
        let taken: Vec<CloudDevice> = busy.values().cloned().collect();
        let next = self.worker.store.next_due_at(&taken).await?;
        // A row that came due since `due` was asked is a millisecond away.
        Ok(next.map_or(POLL, |at| {
            let wait = Duration::try_from(at.duration_since((self.worker.clock)())).unwrap_or_default();
            wait.clamp(Duration::from_millis(1), POLL)
        }))
    }

    fn work(
        &self,
        entry: OutboxEntry,
        cancel: CancellationToken,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + 'static {
        let worker = self.worker.clone();
        let span =
            tracing::info_span!("outbox", outbox.id = entry.id.0, node.id = entry.node_id.0, kind = entry.task.kind());
        async move { worker.run(entry, &cancel).await }.instrument(span)
    }

    /// Books a worker out; answers how long to leave the store alone.
    fn ended(
        &self,
        ended: Result<(tokio::task::Id, Result<(), StoreError>), tokio::task::JoinError>,
        busy: &mut HashMap<tokio::task::Id, CloudDevice>,
    ) -> Result<Option<Duration>, StoreError> {
        match ended {
            Ok((id, result)) => {
                busy.remove(&id);
                result.map_or_else(|error| self.tolerate(error).map(Some), |()| Ok(None))
            }
            Err(error) => {
                busy.remove(&error.id());
                let message =
                    format!("a defect of matterbind: an outbox worker broke off, its row is read back: {error}");
                self.worker.events.record(Event::new(
                    (self.worker.clock)(),
                    Level::Error,
                    "outbox-worker-failed",
                    message,
                ));
                Ok(Some(STORE_PAUSE))
            }
        }
    }

    /// A store that may recover is waited for; one that is gone ends the dispatcher.
    fn tolerate(&self, error: StoreError) -> Result<Duration, StoreError> {
        match error {
            StoreError::Corrupt(_) | StoreError::Closed => Err(error),
            StoreError::DiskFull
            | StoreError::ReadOnly
            | StoreError::Busy
            | StoreError::Missing(_)
            | StoreError::Failed(_) => {
                tracing::error!(%error, "the outbox cannot write its rows and waits: {}", error.hint());
                Ok(STORE_PAUSE)
            }
        }
    }
}
