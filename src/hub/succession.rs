//! A device that was reset and commissioned again is the same device. Which record it had before is told by its marks, and
//! believed only where the old node surely does not answer: two devices may carry one serial number.
//!
//! Not here: what goes over to the new node (`store::succession`).

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::Hub;
use super::reach::Reach;
use super::world::World;
use crate::commissioning::driver::FindPredecessor;
use crate::commissioning::ports::LinkError;
use crate::journal::{Event, EventSink, Level};
use crate::node::{BasicInformation, IcdRegistration, NodeId, NodeRecord, NodeState};
use crate::reconcile::compare::{DeviceView, Difference};
use crate::reconcile::driver::NodeFinding;
use crate::store::{JournalHandle, Store};

/// How long the old node may take to answer; the device's fail-safe runs meanwhile.
const ANSWER: Duration = Duration::from_secs(4);

/// Asks the old node, over what attempts are made with.
pub(crate) struct Predecessors<W: World> {
    pub(crate) store: Store,
    pub(crate) reach: Arc<Reach<W>>,
    pub(crate) journal: JournalHandle,
}

impl<W: World> Predecessors<W> {
    pub(crate) fn finder(self) -> FindPredecessor {
        let this = Arc::new(self);
        Arc::new(move |basic| {
            let this = Arc::clone(&this);
            Box::pin(async move { this.find(&basic).await })
        })
    }

    async fn find(&self, basic: &BasicInformation) -> Option<NodeRecord> {
        let records = self.store.nodes().await.ok()?;
        let mut alike = records.into_iter().filter(|record| record.marks().are_of_one_device(&basic.marks()));
        let (before, another) = (alike.next()?, alike.next());
        if another.is_some() {
            tracing::warn!("several nodes have the marks of this device, so they tell nothing");
            return None;
        }
        if before.state == NodeState::Unreachable || self.is_silent(&before).await { Some(before) } else { None }
    }

    /// Asks once more, and flags the node where it does not answer.
    async fn is_silent(&self, record: &NodeRecord) -> bool {
        let node = record.node_id;
        match self.reach.open(record, ANSWER).await {
            // One that sleeps hears nothing: it counts as silent when its check-ins stay away.
            Err(LinkError::Unreachable { .. }) if record.icd == Some(IcdRegistration::Registered) => return false,
            // Alive; or something that says nothing about the device.
            Ok(_)
            | Err(
                LinkError::Busy | LinkError::Stack { .. } | LinkError::HandshakeRefused { .. } | LinkError::SessionLost,
            ) => {
                return false;
            }
            Err(_) => {}
        }
        if let Err(error) = self.store.touch_node(node, None, None, NodeState::Unreachable).await {
            tracing::warn!(node.id = node.0, %error, "cannot note that a node does not answer");
            return false;
        }
        let message = format!("node {node} ({}) does not answer, and a device with its marks is here", record.name);
        self.journal.record(Event::new(Timestamp::now(), Level::Info, "node-unreachable", message).with_node(node));
        true
    }
}

impl<W: World> Hub<W> {
    /// Says which node a device was before, where it was one.
    pub(super) fn tell_succession(&self, record: &NodeRecord) {
        let Some(old) = record.replaces else { return };
        let message =
            format!("node {} ({}) is the device that was node {old}, which ends", record.node_id, record.name);
        let event = Event::new(Timestamp::now(), Level::Info, "node-replaced", message);
        self.journal.record(event.with_node(record.node_id).with("replaces", old.0));
    }

    /// Ends the nodes that a comparison found to be another one by now, and silent as themselves.
    pub(super) async fn end_predecessors(&self, findings: &[NodeFinding]) {
        for finding in findings {
            let by = finding.comparison.differences.iter().find_map(|difference| match difference {
                Difference::Superseded { by } => Some(*by),
                _ => None,
            });
            let sleeps = match self.store.node(finding.node_id).await {
                Ok(Some(record)) => self.icd.sleep(&record).is_some() && !self.probes.is_silent(finding.node_id),
                Ok(None) | Err(_) => false,
            };
            if sleeps {
                continue;
            }
            if let (Some(by), DeviceView::Silent { .. } | DeviceView::OffFabric(_)) = (by, &finding.device) {
                self.end_predecessor(finding.node_id, by).await;
            }
        }
    }

    async fn end_predecessor(&self, old: NodeId, new: NodeId) {
        self.note_silence(old, "its device is another node now").await;
        match self.store.succeed(new, old, Timestamp::now()).await {
            Ok(Some(record)) => self.tell_succession(&record),
            Ok(None) => {}
            Err(error) => tracing::warn!(node.id = old.0, %error, "the record of a replaced node stays for now"),
        }
    }
}
