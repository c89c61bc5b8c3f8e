//! Attempts, provisional nodes and node records: [`NodeStore`] for commissioning, reads and small changes for the rest.
//!
//! A record is one JSON document, so that what `node show` prints is what was stored; SQL's view of it (name, states) are
//! generated columns. A change that the cloud must learn of brings its outbox row along, in the same transaction.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::fabric::{allocate, id};
use super::{
    Failure, Store, from_json, from_word, micros, outbox, stage_row, store_error, succession, task_row, timestamp,
    to_json,
};
use crate::commissioning::ports::{NodeStore, ProvisionalNode};
use crate::durable::StoreError;
use crate::failpoint;
use crate::node::{NodeId, NodeRecord, NodeState, OWN_ID_MAX};
use crate::onboarding::Discriminator;
use crate::outbox::ports::{OutboxId, OutboxTask};

/// Where an attempt stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttemptState {
    /// It has not ended; after a restart: it was cut off.
    Running,
    /// Its node is recorded.
    Committed,
    /// It ended with a step and a code.
    Failed,
    /// The daemon ended before it did.
    Interrupted,
}

/// One attempt to commission a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptRow {
    pub attempt_id: Uuid,
    /// What it looked for.
    pub discriminator: Discriminator,
    /// Where it stands.
    pub state: AttemptState,
    /// The node id that it used, once one was sent to a device.
    pub node_id: Option<NodeId>,
    /// The step that failed.
    pub step: Option<String>,
    /// The code of the failure.
    pub code: Option<String>,
    /// When it began.
    pub began_at: Timestamp,
    /// When it ended, or when the next start found it interrupted.
    pub ended_at: Option<Timestamp>,
}

fn write_provisional(tx: &Transaction<'_>, node: &ProvisionalNode) -> Result<(), Failure> {
    let (attempt, node_id) = (node.attempt_id.to_string(), id(node.record.node_id.0)?);
    let task = node.task.as_ref().map(task_row::write).transpose()?;
    let (stage, unfinished) = stage_row::write(&node.stage)?;
    tx.execute(
        "INSERT INTO provisional (attempt_id, node_id, record, task, evidence, stage, unfinished)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (attempt_id) DO UPDATE SET
             record = excluded.record, task = excluded.task, stage = excluded.stage, unfinished = excluded.unfinished",
        params![attempt, node_id, to_json(&node.record)?, task.as_deref(), node.evidence, stage, unfinished.as_deref()],
    )?;
    tx.execute("UPDATE attempts SET node_id = ?2 WHERE attempt_id = ?1", params![attempt, node_id])?;
    failpoint::reach("provisional.in-transaction");
    Ok(())
}

impl Store {
    /// A node id that was never given away, and never will be again, whatever becomes of who asks.
    pub(crate) async fn allocate_node_id(&self) -> Result<NodeId, StoreError> {
        self.write(|tx| Ok(allocate(tx)?)).await
    }
}

impl NodeStore for Store {
    async fn begin_attempt(
        &self,
        attempt_id: Uuid,
        discriminator: Discriminator,
        fingerprint: u16,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute(
                "INSERT INTO attempts (attempt_id, discriminator, fingerprint, state, began_at)
                 VALUES (?1, ?2, ?3, 'running', ?4)",
                params![attempt_id.to_string(), to_json(&discriminator)?, fingerprint, micros(at)],
            )?;
            Ok(())
        })
        .await
    }

    async fn begin_provisional(&self, node: ProvisionalNode) -> Result<NodeId, StoreError> {
        self.write(move |tx| {
            let id = allocate(tx)?;
            failpoint::reach("node-id.in-transaction");
            write_provisional(tx, &node.with_node_id(id))?;
            Ok(id)
        })
        .await
    }

    async fn save_provisional(&self, node: &ProvisionalNode) -> Result<(), StoreError> {
        let node = node.clone();
        self.write(move |tx| write_provisional(tx, &node)).await
    }

    async fn commit_commissioned(
        &self,
        attempt_id: Uuid,
        record: &NodeRecord,
        task: Option<&OutboxTask>,
        evidence: &str,
    ) -> Result<Option<OutboxId>, StoreError> {
        let (mut record, task, evidence) = (record.clone(), task.cloned(), evidence.to_owned());
        self.write_and_wake(move |tx| {
            let task = succession::commit(tx, &mut record, task)?;
            tx.execute(
                "INSERT INTO nodes (node_id, record) VALUES (?1, ?2)",
                params![id(record.node_id.0)?, to_json(&record)?],
            )?;
            tx.execute(
                "INSERT INTO evidence (node_id, evidence) VALUES (?1, ?2)",
                params![id(record.node_id.0)?, evidence],
            )?;
            let row = task.map(|task| outbox::insert(tx, record.node_id, &task, record.commissioned_at)).transpose()?;
            tx.execute("DELETE FROM provisional WHERE attempt_id = ?1", [attempt_id.to_string()])?;
            succession::end_earlier_attempts(tx, attempt_id, &record)?;
            tx.execute(
                "UPDATE attempts SET state = 'committed', node_id = ?2, ended_at = ?3 WHERE attempt_id = ?1",
                params![attempt_id.to_string(), id(record.node_id.0)?, micros(record.commissioned_at)],
            )?;
            tx.execute(
                "INSERT INTO setup_codes (node_id, fingerprint)
                 SELECT ?2, fingerprint FROM attempts WHERE attempt_id = ?1 AND fingerprint IS NOT NULL",
                params![attempt_id.to_string(), id(record.node_id.0)?],
            )?;
            failpoint::reach("record.in-transaction");
            Ok(row)
        })
        .await
    }

    async fn fail_attempt(
        &self,
        attempt_id: Uuid,
        step: &'static str,
        code: &'static str,
        keep_provisional: bool,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute(
                "UPDATE attempts SET state = 'failed', step = ?2, code = ?3, ended_at = ?4 WHERE attempt_id = ?1",
                params![attempt_id.to_string(), step, code, micros(at)],
            )?;
            if !keep_provisional {
                tx.execute("DELETE FROM provisional WHERE attempt_id = ?1", [attempt_id.to_string()])?;
            }
            Ok(())
        })
        .await
    }

    async fn nodes_of_code(&self, fingerprint: u16) -> Result<Vec<NodeRecord>, StoreError> {
        self.call(move |connection| {
            let sql = "SELECT record FROM nodes JOIN setup_codes USING (node_id) WHERE fingerprint = ?1
                       ORDER BY node_id DESC";
            records(connection, sql, [fingerprint])
        })
        .await
    }

    async fn nodes_without_code(&self) -> Result<Vec<NodeRecord>, StoreError> {
        self.call(|connection| {
            let sql = "SELECT record FROM nodes WHERE node_id NOT IN (SELECT node_id FROM setup_codes)
                       ORDER BY node_id DESC";
            records(connection, sql, [])
        })
        .await
    }

    async fn nodes_of_product(&self, vendor_id: u16, product_id: u16) -> Result<Vec<NodeRecord>, StoreError> {
        self.call(move |connection| {
            let sql = "SELECT record FROM nodes WHERE record ->> '$.vendor_id' = ?1 AND record ->> '$.product_id' = ?2
                       ORDER BY node_id";
            records(connection, sql, [vendor_id, product_id])
        })
        .await
    }

    async fn interrupted_since(&self, fingerprint: u16, since: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        self.call(move |connection| {
            let sql = "SELECT max(ended_at) FROM attempts
                       WHERE state = 'interrupted' AND fingerprint = ?1 AND ended_at > ?2";
            let ended: Option<i64> = connection
                .query_row(sql, params![fingerprint, micros(since)], |row| row.get(0))
                .map_err(store_error)?;
            ended.map(timestamp).transpose()
        })
        .await
    }

    async fn provisional_nodes(&self) -> Result<Vec<ProvisionalNode>, StoreError> {
        self.call(|connection| {
            let mut statement = connection
                .prepare(
                    "SELECT attempt_id, record, task, evidence, stage, unfinished FROM provisional ORDER BY node_id",
                )
                .map_err(store_error)?;
            let rows = statement
                .query_map([], |row| {
                    Ok((
                        row.get::<_, String>(0)?,
                        row.get::<_, String>(1)?,
                        row.get::<_, Option<String>>(2)?,
                        row.get(3)?,
                        row.get::<_, String>(4)?,
                        row.get::<_, Option<String>>(5)?,
                    ))
                })
                .map_err(store_error)?;
            rows.map(|row| {
                let (attempt, record, task, evidence, stage, unfinished) = row.map_err(store_error)?;
                Ok(ProvisionalNode {
                    attempt_id: uuid(&attempt)?,
                    record: from_json(&record)?,
                    task: task.as_deref().map(task_row::read).transpose()?,
                    evidence,
                    stage: stage_row::read(&stage, unfinished.as_deref())?,
                })
            })
            .collect()
        })
        .await
    }
}

impl Store {
    /// Every recorded node, by id.
    ///
    /// # Errors
    /// The store fails.
    pub async fn nodes(&self) -> Result<Vec<NodeRecord>, StoreError> {
        self.nodes_after(None, None).await
    }

    /// The recorded nodes with a greater id than `after`, by id, at most `limit` of them.
    ///
    /// # Errors
    /// The store fails.
    pub async fn nodes_after(&self, after: Option<NodeId>, limit: Option<u32>) -> Result<Vec<NodeRecord>, StoreError> {
        // Greater than the greatest id: there is none, and nothing that SQL could compare with.
        let Ok(after) = after.map_or(Ok(-1), |after| id(after.0)) else { return Ok(Vec::new()) };
        let limit = limit.map_or(-1, i64::from);
        self.call(move |connection| {
            let sql = "SELECT record FROM nodes WHERE node_id > ?1 ORDER BY node_id LIMIT ?2";
            records(connection, sql, [after, limit])
        })
        .await
    }

    /// One node.
    ///
    /// # Errors
    /// The store fails.
    pub async fn node(&self, node: NodeId) -> Result<Option<NodeRecord>, StoreError> {
        self.call(move |connection| record(connection, node)).await
    }

    /// The nodes of that name, in the order of their ids. Names need not be unique: more than one is the caller's error
    /// message.
    ///
    /// # Errors
    /// The store fails.
    pub async fn nodes_by_name(&self, name: &str) -> Result<Vec<NodeRecord>, StoreError> {
        let name = name.to_owned();
        self.call(move |connection| {
            records(connection, "SELECT record FROM nodes WHERE name = ?1 ORDER BY node_id", [name])
        })
        .await
    }

    /// Records a node that is on our fabric without a record. Its id is not given away again.
    ///
    /// # Errors
    /// It is recorded already, or the store fails.
    pub async fn adopt(&self, record: &NodeRecord) -> Result<(), StoreError> {
        let record = record.clone();
        self.write(move |tx| {
            let node = id(record.node_id.0)?;
            tx.execute("INSERT INTO nodes (node_id, record) VALUES (?1, ?2)", params![node, to_json(&record)?])?;
            let past = id(record.node_id.0.saturating_add(1).min(OWN_ID_MAX + 1))?;
            tx.execute("UPDATE fabric SET next_node_id = max(next_node_id, ?1)", [past])?;
            Ok(())
        })
        .await
    }

    /// The attestation evidence kept with a node, as JSON.
    ///
    /// # Errors
    /// The store fails.
    pub async fn evidence(&self, node: NodeId) -> Result<Option<String>, StoreError> {
        let node = id(node.0)?;
        self.read(move |connection| {
            connection
                .query_row("SELECT evidence FROM evidence WHERE node_id = ?1", [node], |row| row.get(0))
                .optional()
        })
        .await
    }

    /// Writes a record as it is. It replaces what the dispatcher may have written meanwhile (`bind`): prefer
    /// [`Store::modify_node`].
    ///
    /// # Errors
    /// The node is not recorded, or the store fails.
    pub async fn update_node(&self, record: &NodeRecord) -> Result<(), StoreError> {
        let record = record.clone();
        self.write(move |tx| Ok(put(tx, &record)?)).await
    }

    /// Reads a record, changes it and writes it, in one transaction. Answers the new record.
    ///
    /// # Errors
    /// The node is not recorded, or the store fails.
    pub async fn modify_node(
        &self,
        node: NodeId,
        change: impl FnOnce(&mut NodeRecord) + Send + 'static,
    ) -> Result<NodeRecord, StoreError> {
        self.write(move |tx| Ok(modify(tx, node, change)?)).await
    }

    /// Notes where a node was seen and how it does. Addresses and port stay as they are where `None`. A node whose removal
    /// has begun keeps that state.
    ///
    /// # Errors
    /// The node is not recorded, or the store fails.
    pub async fn touch_node(
        &self,
        node: NodeId,
        last_seen_at: Option<Timestamp>,
        addresses: Option<(Vec<String>, u16)>,
        state: NodeState,
    ) -> Result<(), StoreError> {
        self.modify_node(node, move |record| {
            if last_seen_at.is_some() {
                record.last_seen_at = last_seen_at;
            }
            if let Some((addresses, port)) = addresses {
                (record.addresses, record.port) = (addresses, port);
            }
            if record.state != NodeState::Removing {
                record.state = state;
            }
        })
        .await
        .map(drop)
    }

    /// Writes a changed record (its `bind` is left as it is) and the cloud work that the change asks for, in one transaction.
    ///
    /// # Errors
    /// The node is not recorded, or the store fails.
    pub async fn change_node(
        &self,
        record: &NodeRecord,
        task: Option<&OutboxTask>,
        now: Timestamp,
    ) -> Result<Option<OutboxId>, StoreError> {
        let (record, task) = (record.clone(), task.cloned());
        self.write_and_wake(move |tx| {
            let node = record.node_id;
            modify(tx, node, |stored| {
                let bind = std::mem::take(&mut stored.bind);
                *stored = NodeRecord { bind, ..record };
            })?;
            Ok(task.map(|task| outbox::insert(tx, node, &task, now)).transpose()?)
        })
        .await
    }

    /// Forgets a provisional node that a probe found not to be on our fabric. Its node id stays used.
    ///
    /// # Errors
    /// The store fails.
    pub async fn abandon_provisional(&self, attempt_id: Uuid) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute("DELETE FROM provisional WHERE attempt_id = ?1", [attempt_id.to_string()])?;
            failpoint::reach("abandon.in-transaction");
            Ok(())
        })
        .await
    }

    /// What recognises the code of an attempt.
    ///
    /// # Errors
    /// The store fails.
    pub(crate) async fn fingerprint(&self, attempt_id: Uuid) -> Result<Option<u16>, StoreError> {
        self.read(move |connection| {
            let sql = "SELECT fingerprint FROM attempts WHERE attempt_id = ?1";
            Ok(connection.query_row(sql, [attempt_id.to_string()], |row| row.get(0)).optional()?.flatten())
        })
        .await
    }

    /// The latest attempts, newest first, `limit` at most.
    ///
    /// # Errors
    /// The store fails.
    pub async fn attempts(&self, limit: u32) -> Result<Vec<AttemptRow>, StoreError> {
        self.call(move |connection| {
            let mut statement = connection
                .prepare(
                    "SELECT attempt_id, discriminator, state, node_id, step, code, began_at, ended_at
                     FROM attempts ORDER BY began_at DESC, attempt_id DESC LIMIT ?1",
                )
                .map_err(store_error)?;
            let rows = statement.query_map([limit], |row| Ok(attempt(row))).map_err(store_error)?;
            rows.map(|row| row.map_err(store_error)?.map_err(|Failure(error)| error)).collect()
        })
        .await
    }

    /// How many attempts there are in each state.
    ///
    /// # Errors
    /// The store fails.
    pub async fn attempt_counts(&self) -> Result<BTreeMap<String, u64>, StoreError> {
        self.read(|connection| {
            connection
                .prepare("SELECT state, count(*) FROM attempts GROUP BY state")?
                .query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs())))?
                .collect()
        })
        .await
    }
}

fn attempt(row: &Row<'_>) -> Result<AttemptRow, Failure> {
    Ok(AttemptRow {
        attempt_id: uuid(&row.get::<_, String>(0)?)?,
        discriminator: from_json(&row.get::<_, String>(1)?)?,
        state: from_word(row.get(2)?)?,
        node_id: row.get::<_, Option<i64>>(3)?.map(|node| NodeId(node.unsigned_abs())),
        step: row.get(4)?,
        code: row.get(5)?,
        began_at: timestamp(row.get(6)?)?,
        ended_at: row.get::<_, Option<i64>>(7)?.map(timestamp).transpose()?,
    })
}

fn records(connection: &Connection, sql: &str, params: impl rusqlite::Params) -> Result<Vec<NodeRecord>, StoreError> {
    let mut statement = connection.prepare_cached(sql).map_err(store_error)?;
    let rows = statement.query_map(params, |row| row.get::<_, String>(0)).map_err(store_error)?;
    rows.map(|text| from_json(&text.map_err(store_error)?)).collect()
}

/// One node's record.
pub(super) fn record(connection: &Connection, node: NodeId) -> Result<Option<NodeRecord>, StoreError> {
    let mut found = records(connection, "SELECT record FROM nodes WHERE node_id = ?1", [id(node.0)?])?;
    Ok(found.pop())
}

pub(super) fn put(tx: &Transaction<'_>, record: &NodeRecord) -> Result<(), StoreError> {
    let row = params![id(record.node_id.0)?, to_json(record)?];
    let changed = tx.execute("UPDATE nodes SET record = ?2 WHERE node_id = ?1", row).map_err(store_error)?;
    if changed == 0 { Err(missing(record.node_id)) } else { Ok(()) }
}

/// Reads, changes and writes a record within the caller's transaction.
pub(super) fn modify(
    tx: &Transaction<'_>,
    node: NodeId,
    change: impl FnOnce(&mut NodeRecord),
) -> Result<NodeRecord, StoreError> {
    let mut record = record(tx, node)?.ok_or_else(|| missing(node))?;
    change(&mut record);
    put(tx, &record)?;
    Ok(record)
}

pub(super) fn missing(node: NodeId) -> StoreError {
    StoreError::Missing(format!("node {node}"))
}

fn uuid(text: &str) -> Result<Uuid, StoreError> {
    text.parse().map_err(|error| StoreError::Corrupt(format!("a stored attempt id: {error}")))
}
