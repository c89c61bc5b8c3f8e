//! The rows of the outbox: [`OutboxStore`] for the dispatcher, reads and hand work (`retry`, `drop`) for the operator.
//!
//! Not here: what becomes of a row (`outbox::schedule`), sending (`outbox::dispatcher`).

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use tokio::sync::watch;

use super::fabric::id;
use super::nodes::modify;
use super::{Failure, Store, from_word, micros, store_error, task_row, timestamp};
use crate::bind::{BindReceipt, BindState, BindStatus, CloudDevice};
use crate::durable::StoreError;
use crate::failpoint;
use crate::node::{NodeId, NodeRecord};
use crate::outbox::ports::{OutboxEntry, OutboxId, OutboxState, OutboxStore, OutboxTask};
use crate::outbox::schedule::longest_pause;

const COLUMNS: &str = "SELECT id, node_id, task, state, tries, tries_in_class, last_code, last_message, next_try_at,
    created_at, first_sent_at, hint, product_key, device_key FROM outbox AS o";
/// Where those two stand in [`COLUMNS`].
const KEYS: (usize, usize) = (12, 13);

/// Only the oldest unfinished row of a device may be worked on.
const IS_HEAD: &str = "o.state <> 'rejected' AND NOT EXISTS (
    SELECT 1 FROM outbox AS older WHERE older.product_key = o.product_key AND older.device_key = o.device_key
    AND older.id < o.id AND older.state <> 'rejected')";

/// A row that is due later than any pause lasts is due now: its time was written by a clock that was wrong.
const IS_DUE: &str = "(state = 'sending' OR next_try_at <= ?1
    OR next_try_at > CASE state WHEN 'waiting-for-operator' THEN ?3 ELSE ?2 END)";

impl OutboxStore for Store {
    fn changes(&self) -> watch::Receiver<u64> {
        self.outbox_changes()
    }

    async fn due(&self, now: Timestamp, busy: &[CloudDevice], limit: usize) -> Result<Vec<OutboxEntry>, StoreError> {
        let busy = busy.to_vec();
        self.call(move |connection| {
            let sql = format!("{COLUMNS} WHERE {IS_HEAD} AND {IS_DUE} ORDER BY next_try_at, id");
            let mut statement = connection.prepare_cached(&sql).map_err(store_error)?;
            let latest = |state| micros(now.checked_add(longest_pause(state)).unwrap_or(Timestamp::MAX));
            let by_itself = latest(OutboxState::Pending);
            let by_a_person = latest(OutboxState::WaitingForOperator);
            let mut rows = statement.query([micros(now), by_itself, by_a_person]).map_err(store_error)?;
            let mut due = Vec::new();
            while due.len() < limit
                && let Some(row) = rows.next().map_err(store_error)?
            {
                // Before its task is parsed: with most devices busy that would be most of the work.
                if !busy.contains(&device(row, KEYS)?) {
                    due.push(read(row).map_err(|Failure(error)| error)?);
                }
            }
            Ok(due)
        })
        .await
    }

    async fn next_due_at(&self, busy: &[CloudDevice]) -> Result<Option<Timestamp>, StoreError> {
        let busy = busy.to_vec();
        self.call(move |connection| {
            let sql = format!(
                "SELECT product_key, device_key, next_try_at FROM outbox AS o WHERE {IS_HEAD} ORDER BY next_try_at"
            );
            let mut statement = connection.prepare_cached(&sql).map_err(store_error)?;
            let mut rows = statement.query([]).map_err(store_error)?;
            while let Some(row) = rows.next().map_err(store_error)? {
                if !busy.contains(&device(row, (0, 1))?) {
                    return timestamp(row.get(2).map_err(store_error)?).map(Some);
                }
            }
            Ok(None)
        })
        .await
    }

    async fn update(&self, entry: &OutboxEntry) -> Result<(), StoreError> {
        let entry = entry.clone();
        self.write(move |tx| Ok(put(tx, &entry)?)).await
    }

    async fn settle(
        &self,
        entry: &OutboxEntry,
        status: Option<BindStatus>,
        receipt: Option<&BindReceipt>,
    ) -> Result<(), StoreError> {
        let (row, node, receipt) = (entry.id, entry.node_id, receipt.cloned());
        let auth_key = receipt.as_ref().and_then(|receipt| receipt.auth_key.as_ref());
        let auth_key = auth_key.map(|key| self.sealed_text(key.expose())).transpose()?;
        let unbound = matches!(entry.task, OutboxTask::Unbind(_)).then(|| entry.task.device().clone());
        let done = entry.clone();
        self.write_and_forget(move |tx| {
            tx.execute("DELETE FROM outbox WHERE id = ?1", [row.0])?;
            drop_refused(tx, &done)?;
            // What was unbound may be what the node was bound as before it got other keys.
            let current = super::nodes::record(tx, node)?.and_then(|record| CloudDevice::of(&record));
            if unbound.is_none_or(|unbound| current == Some(unbound)) {
                set_bind_status(tx, node, status)?;
            }
            if let Some(receipt) = receipt {
                // Nothing is written where the node is gone.
                tx.execute(
                    "INSERT INTO receipts (node_id, auth_key, binding_mode, product_name)
                     SELECT node_id, ?2, ?3, ?4 FROM nodes WHERE node_id = ?1
                     ON CONFLICT (node_id) DO UPDATE SET auth_key = coalesce(excluded.auth_key, auth_key),
                       binding_mode = coalesce(excluded.binding_mode, binding_mode),
                       product_name = coalesce(excluded.product_name, product_name)",
                    params![
                        id(node.0)?,
                        auth_key.as_ref().map(|key| key.as_str()),
                        receipt.binding_mode,
                        receipt.product_name
                    ],
                )?;
            }
            failpoint::reach("settle.in-transaction");
            Ok(())
        })
        .await
    }

    async fn note_bind_status(&self, node_id: NodeId, status: BindStatus) -> Result<(), StoreError> {
        self.write(move |tx| Ok(set_bind_status(tx, node_id, Some(status))?)).await
    }
}

impl Store {
    /// Every row, oldest first.
    pub async fn outbox_entries(&self) -> Result<Vec<OutboxEntry>, StoreError> {
        self.call(|connection| entries(connection, &format!("{COLUMNS} ORDER BY id"), [])).await
    }

    /// One row.
    pub async fn outbox_entry(&self, row: OutboxId) -> Result<Option<OutboxEntry>, StoreError> {
        self.call(move |connection| entry(connection, row)).await
    }

    /// Adds a row for a node without changing its record, for instance to bind again.
    pub async fn enqueue(&self, node: NodeId, task: &OutboxTask, now: Timestamp) -> Result<OutboxId, StoreError> {
        let task = task.clone();
        self.write_and_wake(move |tx| Ok(insert(tx, node, &task, now)?)).await
    }

    /// Makes a row due now and gives it a fresh bind window. What may have taken effect is read back first.
    ///
    /// # Errors
    /// There is no such row, or the store fails.
    pub async fn retry_outbox(&self, row: OutboxId, now: Timestamp) -> Result<OutboxEntry, StoreError> {
        self.write_and_wake(move |tx| {
            // A row that is being sent stays so: its sender writes the outcome.
            let changed = tx.execute(
                "UPDATE outbox SET next_try_at = ?2, tries_in_class = 0, first_sent_at = NULL, hint = '',
                   state = CASE WHEN state IN ('pending', 'sending') THEN state ELSE 'unsettled' END
                 WHERE id = ?1",
                params![row.0, micros(now)],
            )?;
            if changed == 0 {
                return Err(no_row(row).into());
            }
            Ok(entry(tx, row)?.ok_or_else(|| no_row(row))?)
        })
        .await
    }

    /// Forgets a row. A bind that is forgotten leaves its node unbound; the record says so. An update that is forgotten leaves it
    /// bound as it was, as far as anybody knows: a comparison shows what the cloud has.
    ///
    /// # Errors
    /// There is no such row, or the store fails.
    pub async fn drop_outbox(&self, row: OutboxId) -> Result<OutboxEntry, StoreError> {
        self.write_and_forget(move |tx| {
            let dropped = entry(tx, row)?.ok_or_else(|| no_row(row))?;
            tx.execute("DELETE FROM outbox WHERE id = ?1", [row.0])?;
            let left = match &dropped.task {
                OutboxTask::Bind(_) => Some((BindState::Disabled, "the bind was dropped from the outbox")),
                OutboxTask::UpdateMatterInfo(_) => {
                    Some((BindState::Bound, "an update was dropped from the outbox; `matterbind sync` compares"))
                }
                OutboxTask::Unbind(_) | OutboxTask::Rename { .. } | OutboxTask::MoveRoom { .. } => None,
            };
            let status =
                left.map(|(state, message)| BindStatus { state, message: message.to_owned(), ..BindStatus::default() });
            set_bind_status(tx, dropped.node_id, status)?;
            Ok(dropped)
        })
        .await
    }
}

/// Adds a row that is due at once.
pub(super) fn insert(
    tx: &Transaction<'_>,
    node: NodeId,
    task: &OutboxTask,
    now: Timestamp,
) -> Result<OutboxId, StoreError> {
    let device = task.device();
    tx.execute(
        "INSERT INTO outbox (node_id, product_key, device_key, kind, task, state, tries, tries_in_class, last_message,
           next_try_at, created_at, hint)
         VALUES (?1, ?2, ?3, ?4, ?5, 'pending', 0, 0, '', ?6, ?6, '')",
        params![
            id(node.0)?,
            device.product_key,
            device.device_key,
            task.kind(),
            task_row::write(task)?.as_str(),
            micros(now)
        ],
    )
    .map_err(store_error)?;
    Ok(OutboxId(tx.last_insert_rowid()))
}

/// What a node's earlier wishes of this kind asked for, oldest first: a later one takes their place. One that may have been sent
/// comes to its end by itself.
pub(super) fn take_superseded(
    tx: &Transaction<'_>,
    node: NodeId,
    kind: &'static str,
) -> Result<Vec<OutboxTask>, StoreError> {
    let sql = "DELETE FROM outbox WHERE node_id = ?1 AND kind = ?2
      AND state IN ('pending', 'waiting-for-operator', 'rejected') RETURNING id, task";
    let mut statement = tx.prepare_cached(sql).map_err(store_error)?;
    let rows =
        statement.query_map(params![id(node.0)?, kind], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)));
    let mut taken = rows.map_err(store_error)?.collect::<Result<Vec<_>, _>>().map_err(store_error)?;
    taken.sort_by_key(|(row, _)| *row);
    taken.iter().map(|(_, task)| task_row::read(task)).collect()
}

/// What was refused before the same was wished anew and done is of no use to anybody.
fn drop_refused(tx: &Transaction<'_>, done: &OutboxEntry) -> Result<(), StoreError> {
    if matches!(done.task, OutboxTask::Rename { .. } | OutboxTask::MoveRoom { .. }) {
        let sql = "DELETE FROM outbox WHERE node_id = ?1 AND kind = ?2 AND id < ?3 AND state = 'rejected'";
        tx.execute(sql, params![id(done.node_id.0)?, done.task.kind(), done.id.0]).map_err(store_error)?;
    }
    Ok(())
}

/// Adds the unbind of a device, or answers the one that waits already.
pub(super) fn insert_unbind(
    tx: &Transaction<'_>,
    node: NodeId,
    device: CloudDevice,
    now: Timestamp,
) -> Result<OutboxId, StoreError> {
    let sql = "SELECT id FROM outbox WHERE node_id = ?1 AND kind = 'unbind' AND product_key = ?2 AND device_key = ?3";
    let waiting = tx
        .query_row(sql, params![id(node.0)?, device.product_key, device.device_key], |row| row.get(0))
        .optional()
        .map_err(store_error)?;
    match waiting {
        Some(row) => Ok(OutboxId(row)),
        None => insert(tx, node, &OutboxTask::Unbind(device), now),
    }
}

/// Drops everything but an unbind: the node is going away.
pub(super) fn drop_work(tx: &Transaction<'_>, node: NodeId) -> Result<(), StoreError> {
    tx.execute("DELETE FROM outbox WHERE node_id = ?1 AND kind <> 'unbind'", [id(node.0)?]).map_err(store_error)?;
    Ok(())
}

/// The node's waiting unbind.
pub(super) fn unbind_row(tx: &Transaction<'_>, node: NodeId) -> Result<Option<OutboxId>, StoreError> {
    tx.query_row("SELECT max(id) FROM outbox WHERE node_id = ?1 AND kind = 'unbind'", [id(node.0)?], |row| row.get(0))
        .map(|row: Option<i64>| row.map(OutboxId))
        .map_err(store_error)
}

/// Whether the cloud may hold the device: it was bound, or a bind waits or was sent and its outcome is not known for sure.
pub(super) fn cloud_may_know(tx: &Transaction<'_>, record: &NodeRecord) -> Result<bool, StoreError> {
    if record.bind.state == BindState::Bound {
        return Ok(true);
    }
    tx.query_row(
        "SELECT EXISTS (SELECT 1 FROM outbox WHERE node_id = ?1 AND kind IN ('bind', 'update-matter-info'))",
        [id(record.node_id.0)?],
        |row| row.get(0),
    )
    .map_err(store_error)
}

/// Writes a node's bind status; nothing where the node is gone.
fn set_bind_status(tx: &Transaction<'_>, node: NodeId, status: Option<BindStatus>) -> Result<(), StoreError> {
    let Some(status) = status else { return Ok(()) };
    match modify(tx, node, |record| record.bind = status) {
        Ok(_) | Err(StoreError::Missing(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

fn put(tx: &Transaction<'_>, entry: &OutboxEntry) -> Result<(), StoreError> {
    let changed = tx
        .execute(
            "UPDATE outbox SET task = ?2, state = ?3, tries = ?4, tries_in_class = ?5, last_code = ?6, last_message = ?7,
               next_try_at = ?8, first_sent_at = ?9, hint = ?10 WHERE id = ?1",
            params![
                entry.id.0,
                task_row::write(&entry.task)?.as_str(),
                word(entry.state),
                entry.tries,
                entry.tries_in_class,
                entry.last_code,
                entry.last_message,
                entry.next_try_at.map(micros),
                entry.first_sent_at.map(micros),
                entry.hint
            ],
        )
        .map_err(store_error)?;
    if changed == 0 { Err(no_row(entry.id)) } else { Ok(()) }
}

fn word(state: OutboxState) -> &'static str {
    match state {
        OutboxState::Pending => "pending",
        OutboxState::Sending => "sending",
        OutboxState::Unsettled => "unsettled",
        OutboxState::WaitingForOperator => "waiting-for-operator",
        OutboxState::Rejected => "rejected",
    }
}

fn no_row(row: OutboxId) -> StoreError {
    StoreError::Missing(format!("outbox row {}", row.0))
}

fn entry(connection: &Connection, row: OutboxId) -> Result<Option<OutboxEntry>, StoreError> {
    connection
        .query_row(&format!("{COLUMNS} WHERE id = ?1"), [row.0], |row| Ok(read(row)))
        .optional()
        .map_err(store_error)?
        .transpose()
        .map_err(|Failure(error)| error)
}

fn entries(connection: &Connection, sql: &str, params: impl rusqlite::Params) -> Result<Vec<OutboxEntry>, StoreError> {
    let mut statement = connection.prepare_cached(sql).map_err(store_error)?;
    let rows = statement.query_map(params, |row| Ok(read(row))).map_err(store_error)?;
    rows.map(|row| row.map_err(store_error)?.map_err(|Failure(error)| error)).collect()
}

/// Which device a row is about, by the columns of its two keys.
fn device(row: &Row<'_>, (product_key, device_key): (usize, usize)) -> Result<CloudDevice, StoreError> {
    Ok(CloudDevice {
        product_key: row.get(product_key).map_err(store_error)?,
        device_key: row.get(device_key).map_err(store_error)?,
    })
}

fn read(row: &Row<'_>) -> Result<OutboxEntry, Failure> {
    Ok(OutboxEntry {
        id: OutboxId(row.get(0)?),
        node_id: NodeId(row.get::<_, i64>(1)?.unsigned_abs()),
        task: task_row::read(&row.get::<_, String>(2)?)?,
        state: from_word(row.get(3)?)?,
        tries: row.get(4)?,
        tries_in_class: row.get(5)?,
        last_code: row.get(6)?,
        last_message: row.get(7)?,
        next_try_at: row.get::<_, Option<i64>>(8)?.map(timestamp).transpose()?,
        created_at: timestamp(row.get(9)?)?,
        first_sent_at: row.get::<_, Option<i64>>(10)?.map(timestamp).transpose()?,
        hint: row.get(11)?,
    })
}
