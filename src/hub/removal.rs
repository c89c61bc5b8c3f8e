//! Takes nodes away: device, cloud, record, in that order. Resumed at start, and when its device is seen again.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use utoipa::ToSchema;

use super::Hub;
use super::reach::{OPEN, Reached, device_error};
use super::refusal::Refusal;
use super::world::{Case, World};
use crate::bind::BindState;
use crate::commissioning::error::Disposition;
use crate::commissioning::ports::{LinkError, OperationalSession};
use crate::failpoint;
use crate::journal::{Event, EventSink, Level};
use crate::node::{NodeId, NodeRecord, NodeState};
use crate::outbox::dispatcher::wait_for;
use crate::outbox::ports::OutboxId;
use crate::standing::OffFabric;
use crate::store::{Removal, RemovalStage};

/// Removes nodes from device, cloud and record, in this order.
pub trait RemovalDoor: Send + Sync + 'static {
    /// Device, cloud, record, in that order; resumable. `who` asked is written down.
    fn remove(
        &self,
        node: NodeId,
        force: bool,
        who: String,
    ) -> impl Future<Output = Result<RemoveResult, Refusal>> + Send;
    /// Takes a removal back whose device has not been told yet.
    fn keep(&self, node: NodeId, who: String) -> impl Future<Output = Result<NodeRecord, Refusal>> + Send;
}

/// `node remove`: how far it came. It goes on by itself where something is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RemoveResult {
    /// The node that was removed.
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
/// Between the two times that a device that was told before says that it does not know us.
const SAY_IT_TWICE: Duration = Duration::from_secs(2);

impl<W: World> RemovalDoor for Hub<W> {
    async fn remove(&self, node: NodeId, force: bool, who: String) -> Result<RemoveResult, Refusal> {
        let Some(record) = self.store.node(node).await? else {
            return self.remove_stranger(node, &who).await;
        };
        let name = record.name;
        let by_force = if force { " by force" } else { "" };
        let message = format!("{who} asks for node {node} ({name}) to be removed{by_force}");
        let event = Event::new(Timestamp::now(), Level::Info, "removal-asked", message);
        self.journal.record(event.with_node(node).with("who", who).with("force", force));
        self.remove_node(node, force).await
    }

    async fn keep(&self, node: NodeId, who: String) -> Result<NodeRecord, Refusal> {
        // A try that is under way ends first: it may have told the device.
        let _turn = self.removing.take(node).await;
        self.record(node).await?;
        match self.store.keep_node(node).await? {
            None => {
                let message = format!("node {node} is not being removed");
                return Err(Refusal::new(
                    "not-being-removed",
                    Disposition::UserAction,
                    message,
                    "there is nothing to do",
                ));
            }
            Some(removal) if !removal.can_be_taken_back() => return Err(too_late(&removal)),
            Some(_) => {}
        }
        let message = format!("{who} keeps node {node}: its removal is taken back");
        let event = Event::new(Timestamp::now(), Level::Info, "node-kept", message);
        self.journal.record(event.with_node(node).with("who", who));
        self.know_nodes().await;
        self.doubt(node);
        self.record(node).await
    }
}

impl<W: World> Hub<W> {
    /// Device, cloud, record. What could not be done is resumed.
    pub(super) async fn remove_node(&self, node: NodeId, force: bool) -> Result<RemoveResult, Refusal> {
        // A command and the resumption, or two commands: the second finds what the first has left to do.
        let _turn = self.removing.take(node).await;
        let before = self.store.removals().await?.into_iter().find(|removal| removal.node_id == node);
        // Who was asked long ago and did not answer need not be waited for again.
        let gone = match (&before, self.store.node(node).await?) {
            (Some(removal), _) => !removal.told && !self.announces_itself(node),
            (None, record) => record.is_some_and(|record| record.state == NodeState::Unreachable),
        };
        let removal = match before {
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
            let away = LinkError::Unreachable { tried: Vec::new() };
            let asked = if gone && force { Err(away) } else { self.remove_from_device(&removal).await };
            match asked {
                Ok(_) => device_removed = true,
                Err(error) if removal.forced => {
                    let message = format!("removed by force: {error}; our fabric is still on the device");
                    let event = Event::new(Timestamp::now(), Level::Warn, "node-left-behind", message);
                    self.journal.record(event.with_node(node));
                }
                Err(error) => return Err(not_removed(&error, &removal.record)),
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

impl<W: World> Hub<W> {
    async fn unbind_row(&self, node: NodeId) -> Result<Option<OutboxId>, Refusal> {
        let rows = self.store.outbox_entries().await?;
        Ok(rows.iter().find(|row| row.node_id == node && row.task.kind() == "unbind").map(|row| row.id))
    }

    async fn finish_removal(&self, node: NodeId, name: &str) -> Result<(), Refusal> {
        let deleted = self.store.finish_removal(node).await?;
        self.syncing.forget(node);
        failpoint::reach("finish.after");
        if !deleted {
            return Ok(());
        }
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

    fn announces_itself(&self, node: NodeId) -> bool {
        self.reach.announced(node).is_some()
    }

    /// From now on the device may have been told. It is not told before that is on disk.
    async fn tell_removal(&self, node: NodeId) -> Result<(), LinkError> {
        self.store.tell_removal(node).await.map_err(|error| LinkError::Stack { what: error.to_string() })
    }

    /// Has the device forget us. Done only with its own proof of that.
    async fn remove_from_device(&self, removal: &Removal) -> Result<OffFabric, LinkError> {
        let record = &removal.record;
        match self.settled_standing(record).await {
            Reached::Ours(session) => self.within(record, self.remove_over(record, session)).await,
            Reached::NotOnOurFabric(proof) => Ok(proof),
            // It was told before, over CASE, and the daemon ended before it could note the answer.
            Reached::SomebodyElse(LinkError::NoSharedTrustRoots { peer }) if removal.told => {
                tokio::time::sleep(SAY_IT_TWICE).await;
                match self.reach.open_at(record, peer, OPEN).await {
                    Ok(session) => self.within(record, self.remove_over(record, session)).await,
                    Err(error @ LinkError::NoSharedTrustRoots { .. }) => {
                        let at_home = self.reach.remembers(record, peer);
                        at_home.then(|| OffFabric::removed_before(record.node_id, peer)).ok_or(error)
                    }
                    Err(error) => Err(error),
                }
            }
            Reached::SomebodyElse(error) | Reached::Unknown(error) => Err(error),
        }
    }

    /// RemoveFabric; again where no answer came, for that may have been lost, or the command.
    async fn remove_over(&self, record: &NodeRecord, mut session: Case<W>) -> Result<OffFabric, LinkError> {
        let node = record.node_id;
        let mut index = session.current_fabric_index().await;
        loop {
            let (peer, sent) = (session.peer(), Instant::now());
            self.tell_removal(node).await?;
            failpoint::reach("remove-fabric.before");
            let removed = match index {
                Ok(index) => session.remove_fabric(index).await,
                Err(error) => Err(error),
            };
            match removed {
                Ok(()) => {
                    failpoint::reach("remove-fabric.after");
                    return Ok(OffFabric::removed_by_us(node));
                }
                Err(LinkError::SessionLost | LinkError::Unreachable { .. }) => {}
                Err(error) => return Err(error),
            }
            session = match self.reach.open(record, OPEN).await {
                Err(LinkError::NoSharedTrustRoots { peer: refusing }) => {
                    let proof = OffFabric::removed_unanswered(node, peer, refusing, Instant::now() - sent);
                    return proof.ok_or(LinkError::NoSharedTrustRoots { peer: refusing });
                }
                opened => opened?,
            };
            index = session.current_fabric_index().await;
        }
    }
}

/// Finishes removals as the cloud lets go of their nodes. Runs until the daemon stops.
pub(super) async fn follow_unbinds<W: World>(hub: Arc<Hub<W>>) {
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
pub(super) async fn resume_removals<W: World>(hub: Arc<Hub<W>>) {
    let Ok(removals) = hub.store.removals().await else { return };
    for removal in removals {
        if hub.stop.is_cancelled() {
            return;
        }
        if removal.stage != RemovalStage::Leftover
            && let Err(error) = hub.remove_node(removal.node_id, removal.forced).await
        {
            tracing::warn!(node.id = removal.node_id.0, %error, "removal not finished; it is resumed when the node is seen");
        }
    }
}

/// The same for those whose device was told already.
pub(super) async fn resume_told<W: World>(hub: &Arc<Hub<W>>) {
    let Ok(removals) = hub.store.removals().await else { return };
    let due = |removal: &&Removal| {
        removal.told && removal.stage == RemovalStage::Device && !hub.icd.is_asleep(removal.node_id)
    };
    for removal in removals.iter().filter(due) {
        if let Err(error) = hub.remove_node(removal.node_id, removal.forced).await {
            tracing::debug!(node.id = removal.node_id.0, %error, "removal not finished; it is tried again");
        }
    }
}

/// Why it is not done, and what stands where.
fn not_removed(error: &LinkError, record: &NodeRecord) -> Refusal {
    let mut refused = device_error(error);
    let cloud = match record.bind.state {
        BindState::Bound => "it is still bound",
        BindState::Pending => "its bind still waits",
        BindState::Rejected | BindState::NotEligible | BindState::Disabled => "it is not bound",
    };
    refused.message = format!(
        "{error}. So on the device our fabric is still there, in the cloud {cloud}, and the record of node {} says that \
         it is being removed",
        record.node_id
    );
    refused.hint = format!(
        "it is removed when it is seen again; `matterbind node remove {0} --force` forgets it without the device, \
         `matterbind node keep {0}` takes the removal back",
        record.node_id
    );
    refused
}

fn too_late(removal: &Removal) -> Refusal {
    let how_far = match removal.stage {
        RemovalStage::Device => "the device has been told already",
        RemovalStage::Cloud => "the device is done with, and the cloud is being asked",
        RemovalStage::Record | RemovalStage::Leftover => "only the record is left",
    };
    let message = format!("the removal of node {} cannot be taken back: {how_far}", removal.node_id);
    let hint = "let it end, then commission the device again";
    Refusal::new("removal-too-late", Disposition::UserAction, message, hint)
}
