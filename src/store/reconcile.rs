//! The durable side of reconciliation and of access changes: what is queued, and a mended record with its cloud work in one
//! transaction.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Transaction, params};

use super::fabric::id;
use super::nodes::modify;
use super::{Store, outbox, store_error};
use crate::bind::{BindState, BindStatus};
use crate::durable::StoreError;
use crate::fabric::CatGrant;
use crate::failpoint;
use crate::node::{NodeId, NodeRecord, NodeState};
use crate::outbox::ports::{OutboxId, OutboxTask};
use crate::reconcile::mend::Change;
use crate::reconcile::ports::Records;

/// Rows that say what the cloud is going to hold.
const IN_THE_WAY: &str = "kind IN ('bind', 'unbind', 'update-matter-info')";

impl Store {
    /// Writes the privileges that a node was found to hold, and, where the cloud knows the device or is going to, the row
    /// that tells it, in one transaction. Answers whether such a row was added.
    ///
    /// # Errors
    /// The node is not recorded, or the store fails.
    pub async fn change_cats(
        &self,
        node: NodeId,
        cats: Vec<CatGrant>,
        task: impl FnOnce(&NodeRecord) -> Option<OutboxTask> + Send + 'static,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.write_and_wake(move |tx| {
            let record = modify(tx, node, |record| record.cats = cats)?;
            if !outbox::cloud_may_know(tx, &record)? {
                return Ok(false);
            }
            let Some(task) = task(&record) else { return Ok(false) };
            outbox::insert(tx, node, &task, now)?;
            failpoint::reach("cats.in-transaction");
            Ok(true)
        })
        .await
    }
}

impl Records for Store {
    async fn records(&self) -> Result<Vec<NodeRecord>, StoreError> {
        self.nodes().await
    }

    async fn queued(&self) -> Result<BTreeSet<NodeId>, StoreError> {
        self.read(|connection| {
            connection
                .prepare_cached(&format!("SELECT DISTINCT node_id FROM outbox WHERE {IN_THE_WAY}"))?
                .query_map([], |row| Ok(NodeId(row.get::<_, i64>(0)?.unsigned_abs())))?
                .collect()
        })
        .await
    }

    async fn mend(
        &self,
        node: NodeId,
        change: Change,
        task: Option<OutboxTask>,
        now: Timestamp,
    ) -> Result<Option<OutboxId>, StoreError> {
        self.write_and_wake(move |tx| {
            let record = modify(tx, node, |record| change.apply(record))?;
            let Some(task) = task.filter(|_| record.state != NodeState::Removing) else { return Ok(None) };
            if is_queued(tx, node)? {
                return Ok(None);
            }
            // A bind is on its way; an unbind leaves the status to its outcome.
            if !matches!(task, OutboxTask::Unbind(_)) {
                let pending = BindStatus { state: BindState::Pending, ..BindStatus::default() };
                modify(tx, node, |record| record.bind = pending)?;
            }
            let row = outbox::insert(tx, node, &task, now)?;
            failpoint::reach("mend.in-transaction");
            Ok(Some(row))
        })
        .await
    }
}

impl Store {
    /// Writes down that the cloud has just shown these nodes as recorded; only where that was last written `every` ago, all
    /// in one transaction.
    pub async fn confirm_bindings(
        &self,
        nodes: &[NodeId],
        now: Timestamp,
        every: SignedDuration,
    ) -> Result<(), StoreError> {
        let nodes = nodes.to_vec();
        let stale = self.nodes().await?.into_iter().filter(|record| {
            let old = record.bind.confirmed_at.is_none_or(|at| now.duration_since(at) >= every || at > now);
            old && record.bind.state == BindState::Bound && nodes.contains(&record.node_id)
        });
        let stale: Vec<NodeId> = stale.map(|record| record.node_id).collect();
        if stale.is_empty() {
            return Ok(());
        }
        self.write(move |tx| {
            for node in stale {
                match modify(tx, node, |record| record.bind.confirmed_at = Some(now)) {
                    // Removed meanwhile.
                    Ok(_) | Err(StoreError::Missing(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(())
        })
        .await
    }
}

fn is_queued(tx: &Transaction<'_>, node: NodeId) -> Result<bool, StoreError> {
    let sql = format!("SELECT EXISTS (SELECT 1 FROM outbox WHERE node_id = ?1 AND {IN_THE_WAY})");
    tx.query_row(&sql, params![id(node.0)?], |row| row.get(0)).map_err(store_error)
}

#[cfg(test)]
mod tests;
