//! The durable side of the admin log: events come in without ever waiting, are stored in batches, and go out as queries and
//! as a live stream.
//!
//! An event that cannot be queued or stored is counted, and the count becomes an event itself as soon as there is room: the
//! log may have a gap, but never a silent one. Not here: what an event is (`journal`), how it is printed (`telemetry`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, Row, params, params_from_iter, types::Value};
use tokio::sync::{broadcast, mpsc};
use uuid::Uuid;

use super::fabric::id;
use super::{Failure, Job, Store, from_json, micros, store_error, timestamp, to_json, transaction};
use crate::durable::StoreError;
use crate::failpoint;
use crate::journal::{Event, EventSink, Level, message_id};
use crate::node::NodeId;

/// A batch this large is written even when other jobs wait.
const BATCH: usize = 128;
/// Events kept for another try while the disk is full; older ones are dropped and counted.
const KEPT: usize = 2048;
/// What a row costs beside its text: columns and indexes, about.
const ROW_OVERHEAD: usize = 96;

/// How much of the log is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalLimits {
    /// Older events are dropped.
    pub max_age: Duration,
    /// The oldest events are dropped beyond this many bytes.
    pub max_bytes: u64,
}

impl Default for JournalLimits {
    fn default() -> Self {
        Self { max_age: Duration::from_secs(90 * 24 * 3600), max_bytes: 64 << 20 }
    }
}

/// Which events to read. The default is all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JournalFilter {
    /// Not older than this.
    pub since: Option<Timestamp>,
    /// About this node.
    pub node: Option<NodeId>,
    /// Of this attempt.
    pub attempt: Option<Uuid>,
    /// At least this level.
    pub level: Option<Level>,
    /// Later than this event: what a reader of the stream missed.
    pub after_id: Option<i64>,
    /// This many at most: with `after_id` the first ones, otherwise the last ones. Ascending in any case.
    pub limit: Option<u32>,
    /// The first or last ones of about so many bytes of text, at least one.
    pub max_bytes: Option<u32>,
}

impl JournalFilter {
    /// Whether an event of the live stream passes; the limit does not count there.
    pub fn matches(&self, event: &Event) -> bool {
        self.since.is_none_or(|since| event.at >= since)
            && self.node.is_none_or(|node| event.node_id == Some(node))
            && self.attempt.is_none_or(|attempt| event.attempt_id == Some(attempt))
            && self.level.is_none_or(|level| event.level >= level)
            && self.after_id.is_none_or(|after| event.id > after)
    }
}

/// The journal as everybody else sees it. Cheap to clone.
#[derive(Clone)]
pub struct JournalHandle {
    store: Store,
    lost: Arc<AtomicU64>,
}

impl Store {
    /// The journal, kept within `limits`.
    pub async fn journal(&self, limits: JournalLimits) -> JournalHandle {
        // A closed store takes no events either.
        let _ = self.jobs.send(Job::Limits(limits)).await;
        JournalHandle { store: self.clone(), lost: Arc::new(AtomicU64::new(0)) }
    }
}

impl JournalHandle {
    /// Stored events, oldest first. Everything recorded before the call is in it.
    pub async fn query(&self, filter: JournalFilter) -> Result<Vec<Event>, StoreError> {
        self.store.ask(Job::RunAfterEvents, move |connection| query(connection, &filter)).await
    }

    /// Prints an event that is kept already, and does not keep it once more.
    pub fn repeat(&self, event: &Event) {
        emit(event);
    }

    /// Says that this time has certainly passed. What is too old is forgotten by such a time, never by the wall clock: one that
    /// jumps ahead would erase everything.
    pub fn passed(&self, at: Timestamp) {
        // A queue that is full has a later chance.
        let _ = self.store.jobs.try_send(Job::Passed(at));
    }

    /// Events as they are stored. To miss none, subscribe first, then query, then skip what has an id already seen.
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.store.stored.subscribe()
    }
}

impl EventSink for JournalHandle {
    fn record(&self, event: Event) {
        emit(&event);
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 && self.store.jobs.try_send(Job::Event(Box::new(gap(event.at, lost)))).is_err() {
            self.lost.fetch_add(lost, Ordering::Relaxed);
        }
        match self.store.jobs.try_send(Job::Event(Box::new(event))) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_) | mpsc::error::TrySendError::Closed(_)) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn gap(at: Timestamp, lost: u64) -> Event {
    Event::new(at, Level::Warn, "journal-gap", format!("{lost} events were not kept: the store could not take them"))
        .with("lost", lost)
}

/// The event for the process's own log (journald, terminal).
fn emit(event: &Event) {
    let attempt = event.attempt_id.map(|attempt| attempt.to_string());
    let fields = (!event.fields.is_empty()).then(|| serde_json::Value::Object(event.fields.clone()).to_string());
    macro_rules! at {
        ($level:ident) => {
            tracing::$level!(
                target: "matterbind::journal",
                message_id = message_id(&event.kind),
                kind = event.kind,
                attempt.id = attempt.as_deref(),
                node.id = event.node_id.map(|node| node.0),
                outbox.id = event.outbox_id,
                fields = fields.as_deref(),
                "{}",
                event.message
            )
        };
    }
    match event.level {
        Level::Debug => at!(debug),
        Level::Info => at!(info),
        Level::Warn => at!(warn),
        Level::Error => at!(error),
    }
}

/// The store thread's side: what waits to be written, and the size of what is written.
pub(super) struct Writer {
    limits: JournalLimits,
    waiting: VecDeque<Event>,
    stored: broadcast::Sender<Event>,
    bytes: u64,
    lost: u64,
    /// The last write failed: wait for the next job before trying again.
    failing: bool,
    /// Events since the age limit was looked at.
    since_trim: usize,
    /// A time that has certainly passed; before one is known, nothing is too old.
    passed: Option<Timestamp>,
}

impl Writer {
    pub(super) fn new(connection: &Connection, stored: broadcast::Sender<Event>) -> rusqlite::Result<Self> {
        let bytes: i64 = connection.query_row("SELECT coalesce(sum(bytes), 0) FROM journal", [], |row| row.get(0))?;
        Ok(Self {
            limits: JournalLimits::default(),
            waiting: VecDeque::new(),
            stored,
            bytes: bytes.unsigned_abs(),
            lost: 0,
            failing: false,
            since_trim: BATCH,
            passed: None,
        })
    }

    pub(super) fn wants_to_write(&self) -> bool {
        !self.waiting.is_empty() && !self.failing
    }

    pub(super) fn take(&mut self, event: Event, connection: &mut Connection) {
        if self.waiting.len() >= KEPT {
            self.waiting.pop_front();
            self.lost += 1;
        }
        self.waiting.push_back(event);
        self.failing = false;
        if self.waiting.len().is_multiple_of(BATCH) {
            self.flush(connection);
        }
    }

    pub(super) fn set_limits(&mut self, limits: JournalLimits, connection: &mut Connection) {
        self.limits = limits;
        self.since_trim = BATCH;
        self.flush(connection);
        self.trim(connection);
    }

    pub(super) fn set_passed(&mut self, passed: Timestamp, connection: &mut Connection) {
        self.passed = Some(passed);
        self.since_trim = BATCH;
        self.flush(connection);
        self.trim(connection);
    }

    /// Stores what waits, then shows it to the stream; on failure everything waits on.
    pub(super) fn flush(&mut self, connection: &mut Connection) {
        let Some(newest) = self.waiting.back().map(|event| event.at) else { return };
        if self.lost > 0 {
            self.waiting.push_front(gap(newest, self.lost));
        }
        let result = transaction(connection, |tx| {
            let mut statement = tx.prepare_cached(
                "INSERT INTO journal (at, level, kind, message, node_id, attempt_id, outbox_id, fields, bytes)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?;
            let mut added = 0;
            let mut ids = Vec::with_capacity(self.waiting.len());
            for event in &self.waiting {
                let fields = to_json(&event.fields)?;
                let bytes = ROW_OVERHEAD + event.kind.len() + event.message.len() + fields.len();
                ids.push(statement.insert(params![
                    micros(event.at),
                    rank(event.level),
                    event.kind,
                    event.message,
                    event.node_id.map(|node| id(node.0)).transpose()?,
                    event.attempt_id.map(|attempt| attempt.to_string()),
                    event.outbox_id,
                    fields,
                    i64::try_from(bytes).unwrap_or(i64::MAX)
                ])?);
                added += bytes as u64;
            }
            failpoint::reach("journal.in-transaction");
            Ok((added, ids))
        });
        match result {
            Ok((added, ids)) => {
                failpoint::reach("journal.stored");
                self.bytes += added;
                self.lost = 0;
                self.since_trim += ids.len();
                for (mut event, id) in self.waiting.drain(..).zip(ids) {
                    event.id = id;
                    // Nobody may be listening.
                    let _ = self.stored.send(event);
                }
                self.trim(connection);
            }
            Err(error) => {
                if self.lost > 0 {
                    self.waiting.pop_front();
                }
                self.failing = true;
                tracing::error!(%error, waiting = self.waiting.len(), "the admin log could not be written: {}", error.hint());
            }
        }
    }

    /// Drops what is too old (looked at once for each batch) or too much.
    fn trim(&mut self, connection: &mut Connection) {
        if self.since_trim < BATCH && self.bytes <= self.limits.max_bytes {
            return;
        }
        self.since_trim = 0;
        let oldest = self.passed.and_then(|now| now.checked_sub(self.limits.max_age).ok()).unwrap_or(Timestamp::MIN);
        // A tenth more than needed, so that a full log is not trimmed at every event.
        let excess = self.bytes.saturating_sub(self.limits.max_bytes);
        let excess = if excess > 0 { excess + self.limits.max_bytes / 10 } else { 0 };
        let result = transaction(connection, |tx| {
            tx.execute("DELETE FROM journal WHERE at < ?1", [micros(oldest)])?;
            tx.execute(
                "DELETE FROM attempts WHERE state <> 'running' AND began_at < ?1
                 AND attempt_id NOT IN (SELECT attempt_id FROM provisional)",
                [micros(oldest)],
            )?;
            if excess > 0 {
                tx.execute(
                    "DELETE FROM journal WHERE id <= (SELECT max(id) FROM (
                       SELECT id, sum(bytes) OVER (ORDER BY id) - bytes AS before FROM journal) WHERE before < ?1)",
                    [i64::try_from(excess).unwrap_or(i64::MAX)],
                )?;
            }
            Ok(tx.query_row("SELECT coalesce(sum(bytes), 0) FROM journal", [], |row| row.get::<_, i64>(0))?)
        });
        match result {
            Ok(bytes) => self.bytes = bytes.unsigned_abs(),
            Err(error) => tracing::warn!(%error, "the admin log could not be trimmed: {}", error.hint()),
        }
    }
}

fn query(connection: &Connection, filter: &JournalFilter) -> Result<Vec<Event>, StoreError> {
    let mut sql =
        "SELECT id, at, level, kind, message, node_id, attempt_id, outbox_id, fields, bytes FROM journal WHERE 1"
            .to_owned();
    let mut values: Vec<Value> = Vec::new();
    let mut narrow = |condition: &str, value: Value| {
        values.push(value);
        sql.push_str(&format!(" AND {condition} ?{}", values.len()));
    };
    if let Some(since) = filter.since {
        narrow("at >=", micros(since).into());
    }
    if let Some(node) = filter.node {
        narrow("node_id =", id(node.0)?.into());
    }
    if let Some(attempt) = filter.attempt {
        narrow("attempt_id =", attempt.to_string().into());
    }
    if let Some(level) = filter.level {
        narrow("level >=", rank(level).into());
    }
    if let Some(after) = filter.after_id {
        narrow("id >", after.into());
    }
    // The newest so many, also behind an entry.
    let forward = filter.after_id.is_some() && filter.limit.is_none();
    sql.push_str(if forward { " ORDER BY id" } else { " ORDER BY id DESC" });
    if let Some(limit) = filter.limit {
        sql.push_str(&format!(" LIMIT {limit}"));
    }
    let mut statement = connection.prepare_cached(&sql).map_err(store_error)?;
    let rows = statement.query_map(params_from_iter(values), |row| Ok((read(row), row.get::<_, u32>(9)?)));
    let (mut events, mut room) = (Vec::new(), filter.max_bytes.unwrap_or(u32::MAX));
    for row in rows.map_err(store_error)? {
        let (event, bytes) = row.map_err(store_error)?;
        if bytes > room && filter.max_bytes.is_some() && !events.is_empty() {
            break;
        }
        room = room.saturating_sub(bytes);
        events.push(event.map_err(|Failure(error)| error)?);
    }
    if !forward {
        events.reverse();
    }
    Ok(events)
}

fn read(row: &Row<'_>) -> Result<Event, Failure> {
    let attempt: Option<String> = row.get(6)?;
    Ok(Event {
        id: row.get(0)?,
        at: timestamp(row.get(1)?)?,
        level: match row.get::<_, i64>(2)? {
            0 => Level::Debug,
            1 => Level::Info,
            2 => Level::Warn,
            _ => Level::Error,
        },
        kind: row.get(3)?,
        message: row.get(4)?,
        node_id: row.get::<_, Option<i64>>(5)?.map(|node| NodeId(node.unsigned_abs())),
        attempt_id: attempt.and_then(|attempt| attempt.parse().ok()),
        outbox_id: row.get(7)?,
        fields: from_json(&row.get::<_, String>(8)?)?,
    })
}

/// Levels as numbers, so that SQL can compare them.
fn rank(level: Level) -> i64 {
    match level {
        Level::Debug => 0,
        Level::Info => 1,
        Level::Warn => 2,
        Level::Error => 3,
    }
}
