//! What people call a node and where they put it: in the record, and by the outbox in the cloud.

use jiff::Timestamp;

use super::nodes::modify;
use super::{Store, outbox};
use crate::bind::CloudDevice;
use crate::durable::StoreError;
use crate::failpoint;
use crate::node::NodeId;
use crate::outbox::ports::{OutboxId, OutboxTask};

impl Store {
    /// Renames a node here, and in the cloud by an outbox row where the cloud knows it or is going to.
    ///
    /// # Errors
    /// The node is not recorded, or the store fails.
    pub async fn rename_node(&self, node: NodeId, name: &str, now: Timestamp) -> Result<Option<OutboxId>, StoreError> {
        let name = name.to_owned();
        self.write_and_wake(move |tx| {
            let record = modify(tx, node, |record| record.name.clone_from(&name))?;
            outbox::take_superseded(tx, node, "rename")?;
            let device = if outbox::cloud_may_know(tx, &record)? { CloudDevice::of(&record) } else { None };
            let task = device.map(|device| OutboxTask::Rename { device, name });
            let row = task.map(|task| outbox::insert(tx, node, &task, now)).transpose()?;
            failpoint::reach("rename.in-transaction");
            Ok(row)
        })
        .await
    }

    /// Puts a node into another room here, and in the cloud as [`Self::rename_node`] does. The cloud moves within a family only,
    /// so without one the record alone changes.
    ///
    /// # Errors
    /// The node is not recorded, or the store fails.
    pub async fn move_node(&self, node: NodeId, room_id: &str, now: Timestamp) -> Result<Option<OutboxId>, StoreError> {
        let new_room_id = room_id.to_owned();
        self.write_and_wake(move |tx| {
            let mut old_room_id = None;
            let record = modify(tx, node, |record| old_room_id = record.room_id.replace(new_room_id.clone()))?;
            if old_room_id.as_deref() == Some(new_room_id.as_str()) {
                return Ok(None);
            }
            // The cloud has it where the first move that was not done began.
            if let Some(OutboxTask::MoveRoom { old_room_id: there, .. }) =
                outbox::take_superseded(tx, node, "move-room")?.into_iter().next()
            {
                old_room_id = there;
            }
            if old_room_id.as_deref() == Some(new_room_id.as_str()) || !outbox::cloud_may_know(tx, &record)? {
                return Ok(None);
            }
            let (Some(device), Some(family_id)) = (CloudDevice::of(&record), record.family_id) else {
                return Ok(None);
            };
            let task = OutboxTask::MoveRoom { device, family_id, old_room_id, new_room_id };
            Ok(Some(outbox::insert(tx, node, &task, now)?))
        })
        .await
    }
}
