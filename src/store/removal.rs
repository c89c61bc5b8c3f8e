//! The resumable removal of a node: device, then cloud, then record. Each stage is durable before it is acted upon.
//!
//! A device that cannot be reached can be removed by force; what is left on it is remembered as a leftover, so that a later
//! sighting finishes the job. Not here: talking to the device or the cloud.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, Transaction, params};
use serde::{Deserialize, Serialize};

use super::fabric::id;
use super::nodes::{missing, modify};
use super::{Failure, Store, from_json, from_word, micros, outbox, store_error, timestamp, to_json};
use crate::bind::CloudDevice;
use crate::durable::StoreError;
use crate::failpoint;
use crate::node::{NodeId, NodeRecord, NodeState};
use crate::outbox::ports::OutboxId;

/// What a removal does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RemovalStage {
    /// RemoveFabric on the device.
    Device,
    /// Unbind in the cloud: the outbox holds the row.
    Cloud,
    /// Delete the record.
    Record,
    /// Done here, but our fabric is still on the device; see [`Store::forget_leftover`].
    Leftover,
}

impl RemovalStage {
    fn as_str(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Cloud => "cloud",
            Self::Record => "record",
            Self::Leftover => "leftover",
        }
    }
}

/// A removal that is not finished, or that left something behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    pub node_id: NodeId,
    pub stage: RemovalStage,
    /// Whether it goes on without the device.
    pub forced: bool,
    /// Whether our fabric is, as far as we know, still on the device.
    pub on_device: bool,
    /// Whether the device may have been told to forget us.
    pub told: bool,
    /// The record when it began: recognises the device later.
    pub record: NodeRecord,
    pub began_at: Timestamp,
}

impl Removal {
    /// Nobody outside has heard of it.
    pub fn can_be_taken_back(&self) -> bool {
        self.stage == RemovalStage::Device && !self.told
    }
}

const COLUMNS: &str = "SELECT node_id, stage, forced, on_device, record, began_at, told FROM removals";

impl Store {
    /// Begins a removal, or answers the one that is under way (with `forced` added where it is new). The record's state
    /// becomes `removing`.
    ///
    /// # Errors
    /// The node is not recorded, or the store fails.
    pub async fn begin_removal(&self, node: NodeId, forced: bool, now: Timestamp) -> Result<Removal, StoreError> {
        self.write(move |tx| {
            if find(tx, node)?.is_none() {
                let record = modify(tx, node, |record| record.state = NodeState::Removing)?;
                tx.execute(
                    "INSERT INTO removals (node_id, stage, forced, on_device, record, began_at)
                     VALUES (?1, 'device', 0, 1, ?2, ?3)",
                    params![id(node.0)?, to_json(&record)?, micros(now)],
                )?;
            }
            tx.execute(
                "UPDATE removals SET forced = max(forced, ?2) WHERE node_id = ?1",
                params![id(node.0)?, forced],
            )?;
            failpoint::reach("removal.in-transaction");
            Ok(find(tx, node)?.ok_or_else(|| missing(node))?)
        })
        .await
    }

    /// Notes that the device is about to be told: from now on the removal cannot be taken back.
    pub async fn tell_removal(&self, node: NodeId) -> Result<(), StoreError> {
        let node = id(node.0)?;
        self.write(move |tx| {
            tx.execute("UPDATE removals SET told = 1 WHERE node_id = ?1", [node])?;
            Ok(())
        })
        .await
    }

    /// Takes a removal back, where its device has not been told yet. Answers how it stood; `None` where there is none. The
    /// node is asked again before anybody says that it answers, so its state is `unreachable` until then.
    pub async fn keep_node(&self, node: NodeId) -> Result<Option<Removal>, StoreError> {
        self.write(move |tx| {
            let found = find(tx, node)?;
            if found.as_ref().is_some_and(Removal::can_be_taken_back) {
                modify(tx, node, |record| record.state = NodeState::Unreachable)?;
                tx.execute("DELETE FROM removals WHERE node_id = ?1", [id(node.0)?])?;
            }
            Ok(found)
        })
        .await
    }

    /// The device stage is over: `on_device` is true where a forced removal goes on without the device. Drops the node's
    /// waiting cloud work and, where the cloud may hold the device, queues its unbind, in the same transaction. Answers the
    /// unbind's row. A device that was commissioned again in the meantime keeps its binding: the cloud knows it by its keys,
    /// which are the same. Calling it again changes nothing.
    ///
    /// # Errors
    /// No removal of this node is under way, or the store fails.
    pub async fn advance_removal(
        &self,
        node: NodeId,
        on_device: bool,
        now: Timestamp,
    ) -> Result<Option<OutboxId>, StoreError> {
        self.write_and_forget(move |tx| {
            let removal = find(tx, node)?.ok_or_else(|| missing(node))?;
            if removal.stage != RemovalStage::Device {
                return Ok(outbox::unbind_row(tx, node)?);
            }
            // Before the rows are dropped: one that was sent says that the cloud may know the device.
            let known = outbox::cloud_may_know(tx, &removal.record)? && !is_someone_elses(tx, &removal.record)?;
            outbox::drop_work(tx, node)?;
            // Another unbind may wait, of keys that the node had before.
            let row = match CloudDevice::of(&removal.record).filter(|_| known) {
                Some(device) => Some(outbox::insert_unbind(tx, node, device, now)?),
                None => outbox::unbind_row(tx, node)?,
            };
            let stage = if row.is_some() { RemovalStage::Cloud } else { RemovalStage::Record };
            tx.execute(
                "UPDATE removals SET stage = ?2, on_device = ?3 WHERE node_id = ?1",
                params![id(node.0)?, stage.as_str(), on_device],
            )?;
            failpoint::reach("advance.in-transaction");
            Ok(row)
        })
        .await
    }

    /// Deletes the record, what belongs to it, and its waiting cloud work except an unbind, which the outbox brings to its
    /// end. Answers whether there was a record: another may have finished it.
    ///
    /// # Errors
    /// The device stage is not over, or the store fails.
    pub async fn finish_removal(&self, node: NodeId) -> Result<bool, StoreError> {
        self.write_and_forget(move |tx| {
            let Some(removal) = find(tx, node)? else { return Ok(false) };
            if removal.stage == RemovalStage::Device {
                return Err(StoreError::Failed(format!("node {node} has not been removed from the device")).into());
            }
            let deleted = tx.execute("DELETE FROM nodes WHERE node_id = ?1", [id(node.0)?])?;
            outbox::drop_work(tx, node)?;
            if removal.on_device {
                tx.execute("UPDATE removals SET stage = 'leftover' WHERE node_id = ?1", [id(node.0)?])?;
            } else {
                tx.execute("DELETE FROM removals WHERE node_id = ?1", [id(node.0)?])?;
            }
            failpoint::reach("finish.in-transaction");
            Ok(deleted > 0)
        })
        .await
    }

    /// The leftover of a forced removal is off the device now.
    pub async fn forget_leftover(&self, node: NodeId) -> Result<(), StoreError> {
        let node = id(node.0)?;
        self.write(move |tx| {
            tx.execute("DELETE FROM removals WHERE node_id = ?1 AND stage = 'leftover'", [node])?;
            Ok(())
        })
        .await
    }

    /// Removals to be resumed, and leftovers.
    pub async fn removals(&self) -> Result<Vec<Removal>, StoreError> {
        self.call(|connection| {
            let mut statement =
                connection.prepare(&format!("{COLUMNS} ORDER BY began_at, node_id")).map_err(store_error)?;
            let rows = statement.query_map([], |row| Ok(removal(row))).map_err(store_error)?;
            rows.map(|row| row.map_err(store_error)?.map_err(|Failure(error)| error)).collect()
        })
        .await
    }
}

/// Whether another record that stays is about the same device in the cloud.
fn is_someone_elses(tx: &Transaction<'_>, removed: &NodeRecord) -> Result<bool, Failure> {
    let Some(device) = CloudDevice::of(removed) else { return Ok(false) };
    let mut statement = tx.prepare_cached("SELECT record FROM nodes WHERE node_id <> ?1")?;
    let records = statement.query_map([id(removed.node_id.0)?], |row| row.get::<_, String>(0))?;
    for record in records {
        let record: NodeRecord = from_json(&record?)?;
        if record.state != NodeState::Removing && CloudDevice::of(&record).as_ref() == Some(&device) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn find(tx: &Transaction<'_>, node: NodeId) -> Result<Option<Removal>, Failure> {
    tx.query_row(&format!("{COLUMNS} WHERE node_id = ?1"), [id(node.0)?], |row| Ok(removal(row)))
        .optional()?
        .transpose()
}

fn removal(row: &Row<'_>) -> Result<Removal, Failure> {
    Ok(Removal {
        node_id: NodeId(row.get::<_, i64>(0)?.unsigned_abs()),
        stage: from_word(row.get(1)?)?,
        forced: row.get(2)?,
        on_device: row.get(3)?,
        record: from_json(&row.get::<_, String>(4)?)?,
        began_at: timestamp(row.get(5)?)?,
        told: row.get(6)?,
    })
}
