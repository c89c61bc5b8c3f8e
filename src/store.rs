//! The durable state: one SQLite database, one thread that owns it, one cheap handle ([`Store`]) for everybody else.
//!
//! Every call is a job for that thread and returns after its transaction is on disk (WAL, synchronous=FULL); writes that
//! wait at the same time share one (`batch`). Dropping a call's future does not undo the job: it runs, and only its answer is lost. A call waits as long as the disk does; it
//! has no deadline of its own, because giving up on a write would leave its outcome unknown.
//!
//! Secrets at rest: the near-field key of a bound node, the cloud's tokens, the binding code of a waiting bind, what joins a network
//! and the keys of check-ins are sealed where there is a seal (`secrets`, `task_row`, `stage_row`, `networks`, `check_ins`). Once the row of a bind is settled its code is overwritten, and the write-ahead
//! log that held it is emptied.
//!
//! Not here: the fabric's keys (`keystore`), when to send what (`outbox`), what an event means (`journal`).

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior, params};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::bind::BindState;
use crate::durable::{Seal, StoreError};
use crate::journal::Event;
use crate::node::NodeState;
use crate::outbox::ports::OutboxState;

mod batch;
mod check_ins;
mod controllers;
mod examine;
mod fabric;
mod journal;
mod labels;
mod networks;
mod nodes;
mod offline;
mod open;
mod outbox;
mod reconcile;
mod removal;
mod secrets;
mod silence;
mod snapshot;
mod stage_row;
mod succession;
mod task_row;

#[cfg(test)]
mod tests;

pub(crate) use check_ins::CheckInRow;
pub(crate) use controllers::Enrolled;
pub(crate) use examine::{Examined, Examiner, Integrity, LAST_BACKUP, examine};
pub(crate) use fabric::{FabricMismatch, FabricRow, FabricStart, fabric_start, random_fabric_id, random_hub_node_id};
pub use fabric::{FabricState, NewFabric};
pub(crate) use journal::JournalHandle;
pub use journal::{JournalFilter, JournalLimits};
pub(crate) use networks::StoredNetwork;
pub use nodes::AttemptState;
pub(crate) use offline::OfflineState;
pub(crate) use open::is_read_only;
pub(crate) use open::{DATABASE_FILE, OpenError, SCHEMA_VERSION};
pub(crate) use removal::{Removal, RemovalStage};
pub(crate) use secrets::TOKENS;
pub(crate) use snapshot::Snapshot;

/// Jobs that may wait for the thread. Callers beyond this wait; events beyond this are dropped and counted.
const QUEUE: usize = 1024;
/// Stored events that a slow reader of the live stream may be behind.
const STREAM: usize = 1024;

type Work = Box<dyn FnOnce(&mut Connection) + Send>;
/// Hides secrets; given once the fabric's keys are open.
type SharedSeal = Arc<OnceLock<Box<dyn Seal>>>;

/// What the thread is asked to do.
enum Job {
    /// A read, or something that makes its own transaction.
    Run(Work),
    /// A write that may share its transaction.
    Write(Box<dyn batch::Write>),
    /// The same, after all events that were reported before are stored.
    RunAfterEvents(Work),
    /// An event for the journal.
    Event(Box<Event>),
    /// New limits for the journal.
    Limits(JournalLimits),
    /// A time that has certainly passed: the journal forgets by it.
    Passed(jiff::Timestamp),
    /// Store what waits, move the log into the main file, stop.
    Close(oneshot::Sender<()>),
}

/// The handle. Clones share the one thread, which stops when the last of them is gone.
#[derive(Clone)]
pub struct Store {
    jobs: mpsc::Sender<Job>,
    stored: broadcast::Sender<Event>,
    outbox_changes: watch::Sender<u64>,
    seal: SharedSeal,
    /// A row that held a secret may be gone: the write-ahead log still has it.
    empties_log: Arc<AtomicBool>,
    directory: Arc<Path>,
}

/// Numbers for `status`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreCounts {
    /// Nodes in each state; states without nodes are absent.
    pub nodes: HashMap<NodeState, u64>,
    /// Nodes by the state of their bind.
    pub binds: HashMap<BindState, u64>,
    /// Outbox rows in each state, rejected ones included.
    pub outbox: HashMap<OutboxState, u64>,
    /// When the oldest row that is not rejected came in.
    pub oldest_at: Option<Timestamp>,
}

impl StoreCounts {
    /// Rows that the cloud has not acknowledged and that are not refused for good.
    pub fn outbox_depth(&self) -> u64 {
        self.outbox.iter().filter(|(state, _)| **state != OutboxState::Rejected).map(|(_, count)| count).sum()
    }
}

impl Store {
    /// Opens the state in `state_dir`, making directory and database on the very first start only, and starts the thread.
    /// Blocks for the time of the check. Attempts that were running when the daemon ended are marked interrupted.
    ///
    /// # Errors
    /// See [`OpenError`]; nothing was changed then.
    pub fn open(state_dir: &Path) -> Result<Self, OpenError> {
        let opened = open::open(state_dir)?;
        let database = state_dir.join(DATABASE_FILE);
        let now = Timestamp::now();
        opened
            .connection
            .execute("UPDATE attempts SET state = 'interrupted', ended_at = ?1 WHERE state = 'running'", [micros(now)])
            .map_err(|cause| OpenError::Sqlite { database: database.clone(), cause })?;
        let (jobs, queue) = mpsc::channel(QUEUE);
        let (stored, _) = broadcast::channel(STREAM);
        let writer = journal::Writer::new(&opened.connection, stored.clone())
            .map_err(|cause| OpenError::Sqlite { database: database.clone(), cause })?;
        let empties_log = Arc::new(AtomicBool::new(false));
        let empties = Arc::clone(&empties_log);
        let seal = SharedSeal::default();
        let own_seal = Arc::clone(&seal);
        thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || {
                task_row::use_seal(own_seal);
                run(opened, queue, writer, &empties);
            })
            .map_err(|source| OpenError::Io { path: database, source })?;
        Ok(Self { jobs, stored, outbox_changes: watch::Sender::new(0), seal, empties_log, directory: state_dir.into() })
    }

    /// Stores what waits, moves the log into the main file and releases the lock. Later calls answer
    /// [`StoreError::Closed`].
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.jobs.send(Job::Close(done)).await.is_ok() {
            // An error means that the thread is gone, which is what was asked for.
            let _ = closed.await;
        }
    }

    /// Changes whenever a row of the outbox was added or made due.
    pub fn outbox_changes(&self) -> watch::Receiver<u64> {
        self.outbox_changes.subscribe()
    }

    /// Bytes that another module saved under `name`, for instance the cloud's tokens.
    pub async fn load_blob(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let name = name.to_owned();
        self.read(move |connection| {
            connection.query_row("SELECT bytes FROM tokens WHERE name = ?1", [name], |row| row.get(0)).optional()
        })
        .await
    }

    /// Saves bytes under `name`, in place of what was there.
    ///
    /// # Errors
    /// The store fails; the earlier bytes are then still there.
    pub async fn save_blob(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let (name, bytes) = (name.to_owned(), bytes.to_owned());
        self.write(move |tx| {
            tx.execute("INSERT OR REPLACE INTO tokens (name, bytes) VALUES (?1, ?2)", params![name, bytes])?;
            Ok(())
        })
        .await
    }

    /// Numbers for `status`.
    pub async fn counts(&self) -> Result<StoreCounts, StoreError> {
        self.call(|connection| {
            Ok(StoreCounts {
                nodes: count(connection, "SELECT state, count(*) FROM nodes GROUP BY state")?,
                binds: count(connection, "SELECT bind_state, count(*) FROM nodes GROUP BY bind_state")?,
                outbox: count(connection, "SELECT state, count(*) FROM outbox GROUP BY state")?,
                oldest_at: connection
                    .query_row("SELECT min(created_at) FROM outbox WHERE state <> 'rejected'", [], |row| row.get(0))
                    .map_err(store_error)
                    .map(|oldest: Option<i64>| oldest.and_then(|at| Timestamp::from_microsecond(at).ok()))?,
            })
        })
        .await
    }

    /// Reads something small: thread and file answer.
    ///
    /// # Errors
    /// The store fails.
    pub async fn answers(&self) -> Result<(), StoreError> {
        self.read(|connection| connection.prepare_cached("SELECT count(*) FROM outbox")?.query_row([], |_| Ok(())))
            .await
    }

    /// Runs `work` on the store's thread.
    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.ask(Job::Run, work).await
    }

    async fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(Work) -> Job,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        // The caller may have stopped waiting; the job counts all the same.
        let work: Work = Box::new(move |connection| drop(answer.send(work(connection))));
        self.jobs.send(job(work)).await.map_err(|_| StoreError::Closed)?;
        self.named(answered.await.map_err(|_| StoreError::Closed)?)
    }

    /// SQLite tells of a disk that turned read-only as of any failed write.
    fn named<T>(&self, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        match answer {
            Err(StoreError::Failed(_)) if open::is_read_only(&self.directory) => Err(StoreError::ReadOnly),
            answer => answer,
        }
    }

    /// A read that needs no more than SQL.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.call(move |connection| work(connection).map_err(store_error)).await
    }

    /// All of `work` if it succeeds, nothing of it otherwise.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.write_then(work, || {}).await
    }

    /// [`Store::write`] of something that may have changed the queue: wakes the dispatcher after the commit.
    async fn write_and_wake<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreError> {
        let changes = self.outbox_changes.clone();
        // On the store's thread, so that a caller who is gone does not swallow the wake-up.
        self.write_then(work, move || changes.send_modify(|version| *version = version.wrapping_add(1))).await
    }

    /// [`Store::write_and_wake`] of something that takes rows out of the queue: a binding code may have gone with one, so the
    /// log is emptied when nothing else waits.
    async fn write_and_forget<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (changes, empties_log) = (self.outbox_changes.clone(), Arc::clone(&self.empties_log));
        let then = move || {
            empties_log.store(true, Ordering::Relaxed);
            changes.send_modify(|version| *version = version.wrapping_add(1));
        };
        self.write_then(work, then).await
    }

    async fn write_then<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Failure> + Send + 'static,
        then: impl FnOnce() + Send + 'static,
    ) -> Result<T, StoreError> {
        let (caller, answered) = oneshot::channel();
        let write = batch::Waiting::new(work, then, caller);
        self.jobs.send(Job::Write(Box::new(write))).await.map_err(|_| StoreError::Closed)?;
        self.named(answered.await.map_err(|_| StoreError::Closed)?)
    }
}

fn transaction<T>(
    connection: &mut Connection,
    work: impl FnOnce(&Transaction<'_>) -> Result<T, Failure>,
) -> Result<T, StoreError> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(store_error)?;
    let value = work(&tx).map_err(|Failure(error)| error)?;
    tx.commit().map_err(store_error)?;
    Ok(value)
}

/// The store's thread: jobs in the order of the queue, events stored in batches when nothing else waits.
fn run(
    mut opened: open::Opened,
    mut queue: mpsc::Receiver<Job>,
    mut writer: journal::Writer,
    empties_log: &AtomicBool,
) {
    // What a crash left there.
    empty_log(&opened.connection);
    let mut closed = None;
    // What ended a batch of writes is next.
    let mut held = None;
    loop {
        let job = match held.take() {
            Some(job) => job,
            None if writer.wants_to_write() || empties_log.load(Ordering::Relaxed) => match queue.try_recv() {
                Ok(job) => job,
                Err(mpsc::error::TryRecvError::Empty) => {
                    writer.flush(&mut opened.connection);
                    if empties_log.swap(false, Ordering::Relaxed) {
                        empty_log(&opened.connection);
                    }
                    continue;
                }
                Err(mpsc::error::TryRecvError::Disconnected) => break,
            },
            None => match queue.blocking_recv() {
                Some(job) => job,
                None => break,
            },
        };
        match job {
            Job::Run(work) => work(&mut opened.connection),
            Job::Write(first) => {
                let mut events = Vec::new();
                batch::commit(&mut opened.connection, first, || {
                    loop {
                        match queue.try_recv().ok()? {
                            Job::Write(next) => return Some(next),
                            Job::Event(event) => events.push(*event),
                            other => {
                                held = Some(other);
                                return None;
                            }
                        }
                    }
                });
                for event in events {
                    writer.take(event, &mut opened.connection);
                }
            }
            Job::RunAfterEvents(work) => {
                writer.flush(&mut opened.connection);
                work(&mut opened.connection);
            }
            Job::Event(event) => writer.take(*event, &mut opened.connection),
            Job::Limits(limits) => writer.set_limits(limits, &mut opened.connection),
            Job::Passed(passed) => writer.set_passed(passed, &mut opened.connection),
            Job::Close(done) => {
                closed = Some(done);
                break;
            }
        }
    }
    queue.close();
    writer.flush(&mut opened.connection);
    if let Err(error) = open::checkpoint(&opened.connection) {
        tracing::warn!(%error, "the write-ahead log stays beside the database; the next start reads it");
    }
    drop(opened);
    if let Some(done) = closed {
        // Whoever asked may be gone.
        let _ = done.send(());
    }
}

/// Where it fails, the next row that is settled, the stop or the next start tries again.
fn empty_log(connection: &Connection) {
    if let Err(error) = open::checkpoint(connection) {
        tracing::warn!(%error, "the write-ahead log could not be emptied; it may hold a binding code that was used");
    }
}

/// Lets `?` turn both kinds of failure inside a transaction into a [`StoreError`].
struct Failure(StoreError);

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self(store_error(error))
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self(error)
    }
}

/// SQLite's primary result code, where the error comes from SQLite.
/// A shared-memory file that cannot grow is a full disk, which SQLite calls an I/O error.
fn sqlite_code(error: &rusqlite::Error) -> Option<ErrorCode> {
    match error.sqlite_error()?.extended_code {
        rusqlite::ffi::SQLITE_IOERR_SHMSIZE => Some(ErrorCode::DiskFull),
        _ => error.sqlite_error_code(),
    }
}

fn store_error(error: rusqlite::Error) -> StoreError {
    match sqlite_code(&error) {
        Some(ErrorCode::DiskFull) => StoreError::DiskFull,
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => StoreError::ReadOnly,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Busy,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Corrupt(error.to_string()),
        _ => StoreError::Failed(error.to_string()),
    }
}

/// A JSON column as its type; what does not parse was not written by us.
fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text)
        .map_err(|error| StoreError::Corrupt(format!("a stored document does not parse: {error}")))
}

fn to_json<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Failed(format!("a document cannot be written: {error}")))
}

/// A unit enum by its serde word.
fn from_word<T: serde::de::DeserializeOwned>(word: String) -> Result<T, StoreError> {
    serde_json::from_value(serde_json::Value::String(word))
        .map_err(|error| StoreError::Corrupt(format!("a stored word is unknown: {error}")))
}

fn micros(at: Timestamp) -> i64 {
    at.as_microsecond()
}

fn timestamp(micros: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_microsecond(micros).map_err(|error| StoreError::Corrupt(format!("a stored time: {error}")))
}

fn count<T>(connection: &Connection, sql: &str) -> Result<HashMap<T, u64>, StoreError>
where
    T: serde::de::DeserializeOwned + Eq + std::hash::Hash,
{
    let mut statement = connection.prepare_cached(sql).map_err(store_error)?;
    let rows =
        statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))).map_err(store_error)?;
    rows.map(|row| {
        let (word, count) = row.map_err(store_error)?;
        Ok((from_word(word)?, u64::try_from(count).unwrap_or(0)))
    })
    .collect()
}
