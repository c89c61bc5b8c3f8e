//! One device after another node of it: what goes over when a device was reset and commissioned again, or is bound under
//! other keys. All of it in the transaction that makes the new standing true, and the cloud's part as a row of the outbox.
//!
//! Not here: whether both are one device, and whether the old node is silent (`hub::succession`).

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Transaction};
use uuid::Uuid;

use super::fabric::id;
use super::nodes::{modify, record};
use super::{Failure, Store, from_json, outbox, task_row};
use crate::bind::{BindRequest, BindState, BindStatus, CloudDevice, name_in_cloud};
use crate::durable::StoreError;
use crate::failpoint;
use crate::node::{NodeId, NodeRecord, NodeState};
use crate::outbox::ports::{OutboxId, OutboxTask};

/// Brings the cloud from `before`, which it may hold for us, to what `wanted` says: the same device is unbound and bound
/// anew by one row; another one is unbound by a row of its own, about `old`, which is gone or has these keys no more.
fn bring_over(
    tx: &Transaction<'_>,
    old: NodeId,
    before: Option<CloudDevice>,
    wanted: OutboxTask,
    now: Timestamp,
) -> Result<OutboxTask, StoreError> {
    let Some(before) = before else { return Ok(wanted) };
    if *wanted.device() != before {
        outbox::insert(tx, old, &OutboxTask::Unbind(before), now)?;
        return Ok(wanted);
    }
    Ok(match wanted {
        OutboxTask::Bind(request) => OutboxTask::UpdateMatterInfo(request),
        other => other,
    })
}

/// Ends the node that `new` replaces, where it is still silent: its record, its waiting work, its removal. Answers the task
/// that binds the device under its new ids. Where the old node has answered meanwhile, `new` replaces nobody.
pub(super) fn commit(
    tx: &Transaction<'_>,
    new: &mut NodeRecord,
    task: Option<OutboxTask>,
) -> Result<Option<OutboxTask>, Failure> {
    let Some(replaced) = new.replaces else { return Ok(task) };
    let silent = |old: &NodeRecord| matches!(old.state, NodeState::Unreachable | NodeState::Removing);
    let old = record(tx, replaced)?.filter(|old| silent(old) && old.marks().are_of_one_device(&new.marks()));
    let Some(old) = old else {
        new.replaces = None;
        return Ok(task);
    };
    let known = outbox::cloud_may_know(tx, &old)?;
    outbox::drop_work(tx, replaced)?;
    tx.execute("DELETE FROM nodes WHERE node_id = ?1", [id(replaced.0)?])?;
    tx.execute("DELETE FROM removals WHERE node_id = ?1", [id(replaced.0)?])?;
    failpoint::reach("succession.in-transaction");
    let before = CloudDevice::of(&old).filter(|_| known);
    if task.is_none() && before.is_some() && before == CloudDevice::of(new) {
        // There is no code to bind it with; what the cloud holds stays until somebody gives one.
        let message = format!("bound as node {replaced}: `matterbind node bind {}` brings the new ids", new.node_id);
        new.bind = BindStatus { message, ..old.bind };
    }
    let task = task.map(|task| bring_over(tx, replaced, before, task, new.commissioned_at)).transpose()?;
    Ok(task)
}

/// Ends the provisional rows that earlier attempts with the same code left about the same device. It cannot be on our fabric as
/// their node: AddNOC refuses a second certificate of one fabric (Matter Core 11.18.6.8.1).
pub(super) fn end_earlier_attempts(tx: &Transaction<'_>, attempt_id: Uuid, new: &NodeRecord) -> Result<(), Failure> {
    let mut statement = tx.prepare(
        "SELECT provisional.attempt_id, provisional.record FROM provisional
         JOIN attempts AS earlier ON earlier.attempt_id = provisional.attempt_id
         JOIN attempts AS this ON this.attempt_id = ?1 AND this.fingerprint = earlier.fingerprint",
    )?;
    let rows = statement.query_map([attempt_id.to_string()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let earlier: Vec<(String, String)> = rows.collect::<Result<_, _>>()?;
    for (attempt, old) in earlier {
        if from_json::<NodeRecord>(&old)?.marks().are_of_one_device(&new.marks()) {
            tx.execute("DELETE FROM provisional WHERE attempt_id = ?1", [attempt])?;
        }
    }
    Ok(())
}

impl Store {
    /// Makes `new` the successor of `old`, where both were recorded side by side: name and place go over, and the cloud is
    /// brought to the new ids. Answers the new record; `None` where `old` is gone, answers, or is another device.
    ///
    /// # Errors
    /// `new` is not recorded, or the store fails.
    pub async fn succeed(&self, new: NodeId, old: NodeId, now: Timestamp) -> Result<Option<NodeRecord>, StoreError> {
        self.write_and_forget(move |tx| {
            let (Some(before), Some(mut record)) = (record(tx, old)?, record(tx, new)?) else { return Ok(None) };
            inherit(&mut record, &before);
            record.replaces = Some(old);
            let waiting = waiting_bind(tx, new)?.map(|task| named(task, &record));
            let under_way = waiting.is_some();
            let task = commit(tx, &mut record, waiting)?;
            if record.replaces.is_none() {
                return Ok(None);
            }
            if under_way && let Some(task) = task {
                outbox::drop_work(tx, new)?;
                record.bind = BindStatus { state: BindState::Pending, ..BindStatus::default() };
                outbox::insert(tx, new, &task, now)?;
            }
            Ok(Some(modify(tx, new, |stored| *stored = record)?))
        })
        .await
    }

    /// Binds a node under these keys, whatever stood before: waiting work is replaced, and other keys that the cloud may
    /// hold for it are unbound.
    ///
    /// # Errors
    /// The node is not recorded, or the store fails.
    pub async fn rebind(
        &self,
        node: NodeId,
        device: CloudDevice,
        task: impl FnOnce(&NodeRecord) -> OutboxTask + Send + 'static,
        now: Timestamp,
    ) -> Result<OutboxId, StoreError> {
        self.write_and_forget(move |tx| {
            let before = record(tx, node)?.ok_or_else(|| super::nodes::missing(node))?;
            let known = outbox::cloud_may_know(tx, &before)?;
            let held = CloudDevice::of(&before).filter(|_| known);
            outbox::drop_work(tx, node)?;
            let changed = modify(tx, node, |record| {
                record.product_key = Some(device.product_key);
                record.device_key = Some(device.device_key);
                record.bind = BindStatus { state: BindState::Pending, ..BindStatus::default() };
            })?;
            let wanted = task(&changed);
            let task = bring_over(tx, node, held, wanted, now)?;
            let row = outbox::insert(tx, node, &task, now)?;
            Ok(row)
        })
        .await
    }
}

/// What nobody said anew comes from the old record.
fn inherit(new: &mut NodeRecord, old: &NodeRecord) {
    if new.has_default_name() {
        new.name.clone_from(&old.name);
    }
    new.family_id = new.family_id.take().or_else(|| old.family_id.clone());
    new.room_id = new.room_id.take().or_else(|| old.room_id.clone());
    if new.product_key.is_none() || new.device_key.is_none() {
        (new.product_key, new.device_key) = (old.product_key.clone(), old.device_key.clone());
    }
}

/// A bind with the name and place that the record has now.
fn named(task: OutboxTask, record: &NodeRecord) -> OutboxTask {
    let named = |request: Box<BindRequest>| {
        Box::new(BindRequest {
            device_name: Some(name_in_cloud(&record.name)),
            family_id: record.family_id.clone(),
            room_id: record.room_id.clone(),
            ..*request
        })
    };
    match task {
        OutboxTask::Bind(request) => OutboxTask::Bind(named(request)),
        OutboxTask::UpdateMatterInfo(request) => OutboxTask::UpdateMatterInfo(named(request)),
        other @ (OutboxTask::Unbind(_) | OutboxTask::Rename { .. } | OutboxTask::MoveRoom { .. }) => other,
    }
}

/// The node's waiting bind, in whatever state.
fn waiting_bind(tx: &Transaction<'_>, node: NodeId) -> Result<Option<OutboxTask>, Failure> {
    let sql = "SELECT task FROM outbox WHERE node_id = ?1 AND kind IN ('bind', 'update-matter-info') ORDER BY id DESC";
    let task = tx.query_row(sql, [id(node.0)?], |row| row.get::<_, String>(0)).optional()?;
    Ok(task.map(|task| task_row::read(&task)).transpose()?)
}

#[cfg(test)]
mod tests;
