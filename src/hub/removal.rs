//! Takes nodes away: device, cloud, record, in that order. Resumed at start, and when its device is seen again.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use utoipa::ToSchema;

use super::Hub;
use super::reach::{device_error, within};
use super::refusal::Refusal;
use crate::commissioning::ports::{LinkError, OperationalSession};
use crate::failpoint;
use crate::journal::{Event, EventSink, Level};
use crate::node::{NodeId, NodeRecord};
use crate::outbox::dispatcher::wait_for;
use crate::outbox::ports::OutboxId;
use crate::store::RemovalStage;

/// Takes nodes away.
pub trait RemovalDoor: Send + Sync + 'static {
    /// Device, cloud, record, in that order; resumable.
    fn remove(&self, node: NodeId, force: bool) -> impl Future<Output = Result<RemoveResult, Refusal>> + Send;
}

/// `node remove`: how far it came. It goes on by itself where something is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RemoveResult {
    /// The node.
    #[schema(value_type = u64)]
    pub node_id: NodeId,
    /// Whether the device forgot us; false where it could not be reached and `force` was given.
    pub device_removed: bool,
    /// Whether the cloud forgot it: `removed`, `pending` or `not-bound`.
    pub cloud: String,
    /// Whether the record is gone.
    pub record_deleted: bool,
    /// What is left to do; empty if nothing.
    pub message: String,
}

/// How long `node remove` waits for the cloud before it says that the rest goes on by itself.
const UNBIND: Duration = Duration::from_secs(10);

impl RemovalDoor for Hub {
    async fn remove(&self, node: NodeId, force: bool) -> Result<RemoveResult, Refusal> {
        // A command and the resumption, or two commands: the second finds what the first has left to do.
        let _turn = self.removing.take(node).await;
        let removal = match self.store.removals().await?.into_iter().find(|removal| removal.node_id == node) {
            Some(under_way) if under_way.forced || !force => under_way,
            _ => {
                self.record(node).await?;
                failpoint::reach("removal.before");
                self.store.begin_removal(node, force, Timestamp::now()).await?
            }
        };
        failpoint::reach("removal.begun");
        let mut results = self.outbox.as_ref().map(|outbox| outbox.results());
        let mut device_removed = !removal.on_device;
        let mut queued = None;
        if removal.stage == RemovalStage::Device {
            match self.remove_from_device(&removal.record).await {
                Ok(()) => device_removed = true,
                Err(error) if removal.forced => {
                    let message = format!("removed by force: {error}; our fabric is still on the device");
                    let event = Event::new(Timestamp::now(), Level::Warn, "node-left-behind", message);
                    self.journal.record(event.with_node(node));
                }
                Err(error) => return Err(not_removed(&error)),
            }
            queued = self.store.advance_removal(node, !device_removed, Timestamp::now()).await?;
            failpoint::reach("advance.after");
        }
        // A quick cloud is done with the row before it could be looked up.
        let row = match queued {
            Some(row) => Some(row),
            None => self.unbind_row(node).await?,
        };
        if let (Some(row), Some(results)) = (row, &mut results) {
            wait_for(results, row, UNBIND).await;
        }
        let was_bound = row.is_some() || removal.stage == RemovalStage::Cloud;
        if self.unbind_row(node).await?.is_some() {
            let message = "the record goes when the cloud has let go of it; see `matterbind outbox`".to_owned();
            let cloud = "pending".to_owned();
            return Ok(RemoveResult { node_id: node, device_removed, cloud, record_deleted: false, message });
        }
        self.finish_removal(node, &removal.record.name).await?;
        let cloud = if was_bound { "removed" } else { "not-bound" }.to_owned();
        Ok(RemoveResult { node_id: node, device_removed, cloud, record_deleted: true, message: String::new() })
    }
}

impl Hub {
    async fn unbind_row(&self, node: NodeId) -> Result<Option<OutboxId>, Refusal> {
        let rows = self.store.outbox_entries().await?;
        Ok(rows.iter().find(|row| row.node_id == node && row.task.kind() == "unbind").map(|row| row.id))
    }

    async fn finish_removal(&self, node: NodeId, name: &str) -> Result<(), Refusal> {
        self.store.finish_removal(node).await?;
        failpoint::reach("finish.after");
        let message = format!("node {node} ({name}) removed");
        self.journal.record(Event::new(Timestamp::now(), Level::Info, "node-removed", message).with_node(node));
        Ok(())
    }

    /// Finishes the removal of a node whose unbind the cloud has acknowledged, or an operator has given up.
    pub(super) async fn finish_unbound(&self, node: NodeId) {
        let Ok(removals) = self.store.removals().await else { return };
        let waiting = removals.into_iter().find(|r| r.node_id == node && r.stage == RemovalStage::Cloud);
        if let Some(removal) = waiting
            && let Ok(None) = self.unbind_row(node).await
            && let Err(error) = self.finish_removal(node, &removal.record.name).await
        {
            tracing::warn!(node.id = node.0, %error, "the record of a removed node cannot be deleted yet");
        }
    }

    async fn remove_from_device(&self, record: &NodeRecord) -> Result<(), LinkError> {
        let remove = async {
            let session = match self.meet(record).await {
                // It does not know us any more, which is what is wanted.
                Err(LinkError::NoSharedTrustRoots { .. }) => return Ok(()),
                session => session?,
            };
            let index = session.current_fabric_index().await?;
            failpoint::reach("remove-fabric.before");
            session.remove_fabric(index).await?;
            failpoint::reach("remove-fabric.after");
            Ok(())
        };
        within(remove).await
    }
}

/// Whose turn it is with a node; who comes second waits.
#[derive(Default)]
pub(crate) struct Turns(Mutex<HashMap<NodeId, Weak<tokio::sync::Mutex<()>>>>);

impl Turns {
    async fn take(&self, node: NodeId) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| turn.strong_count() > 0);
            let turn = turns.get(&node).and_then(Weak::upgrade).unwrap_or_default();
            turns.insert(node, Arc::downgrade(&turn));
            turn
        };
        turn.lock_owned().await
    }
}

/// Finishes removals as the cloud lets go of their nodes. Runs until the daemon stops.
pub(super) async fn follow_unbinds(hub: Arc<Hub>) {
    let Some(mut results) = hub.outbox.as_ref().map(|outbox| outbox.results()) else { return };
    loop {
        let result = tokio::select! {
            () = hub.stop.cancelled() => return,
            result = results.recv() => result,
        };
        match result {
            Ok(result) if result.kind == "unbind" && result.state.is_none() => hub.finish_unbound(result.node_id).await,
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

/// Goes on with removals that a stop or an absent device interrupted: at start, and whenever one of those nodes is seen.
pub(super) async fn resume_removals(hub: Arc<Hub>) {
    let Ok(removals) = hub.store.removals().await else { return };
    for removal in removals {
        if hub.stop.is_cancelled() {
            return;
        }
        if removal.stage != RemovalStage::Leftover
            && let Err(error) = hub.remove(removal.node_id, removal.forced).await
        {
            tracing::warn!(node.id = removal.node_id.0, %error, "removal not finished; it is resumed when the node is seen");
        }
    }
}

fn not_removed(error: &LinkError) -> Refusal {
    let mut refused = device_error(error);
    refused.hint = "it is removed when it is seen again; to forget it without the device, use --force".to_owned();
    refused
}
