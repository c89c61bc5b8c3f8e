//! Carries a fabric label that was changed in the configuration to the nodes that know the earlier one. Which of them are still
//! to be told is durable, so that an absent device or a crash costs nothing but time. Not here: the label of a new device
//! (`commissioning::path`).

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::Hub;
use super::world::World;
use crate::commissioning::path::set_label;
use crate::durable::StoreError;
use crate::journal::{Event, EventSink, Level};
use crate::node::NodeId;

/// Where the store keeps it.
const BLOB: &str = "fabric-label";
/// Nodes that nobody hears of are tried this often.
const ASK_AGAIN: Duration = Duration::from_secs(300);

/// What nodes are told, and who was not yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Telling {
    label: String,
    pending: BTreeSet<NodeId>,
}

#[derive(Default)]
pub(crate) struct Labels {
    pending: Mutex<BTreeSet<NodeId>>,
    wake: Notify,
}

impl Labels {
    fn pending(&self) -> MutexGuard<'_, BTreeSet<NodeId>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node that was away when the label changed is told as soon as it is heard of.
    pub(super) fn heard_of(&self, node: NodeId) {
        if self.pending().contains(&node) {
            self.wake.notify_one();
        }
    }
}

/// Runs until the daemon stops, or everybody knows the label.
pub(super) async fn follow<W: World>(hub: Arc<Hub<W>>) {
    let mut telling = match hub.telling().await {
        Ok(telling) => telling,
        Err(error) => {
            tracing::warn!(%error, "cannot look up who knows the fabric's label; the next start does");
            return;
        }
    };
    let mut again = tokio::time::interval(ASK_AGAIN);
    while !telling.pending.is_empty() {
        hub.labels.pending().clone_from(&telling.pending);
        tokio::select! {
            () = hub.stop.cancelled() => return,
            _ = again.tick() => {}
            () = hub.labels.wake.notified() => {}
        }
        // One that sleeps is told when it checks in.
        for node in telling.pending.clone().into_iter().filter(|node| !hub.icd.is_asleep(*node)) {
            if hub.stop.is_cancelled() {
                return;
            }
            if hub.tell_label(node, &telling.label).await {
                telling.pending.remove(&node);
                hub.keep_telling(&telling).await;
            }
        }
    }
    hub.labels.pending().clear();
}

impl<W: World> Hub<W> {
    /// Who is to be told: everybody, where the configuration has another label than the last time.
    async fn telling(&self) -> Result<Telling, StoreError> {
        let label = &self.config.fabric.label;
        let kept = self.store.load_blob(BLOB).await?;
        let kept = match kept.and_then(|bytes| serde_json::from_slice::<Telling>(&bytes).ok()) {
            Some(kept) => kept,
            // Nodes learnt the label that the fabric was made with.
            None => Telling {
                label: self.store.fabric_state().await?.map_or_else(|| label.clone(), |fabric| fabric.label),
                pending: BTreeSet::new(),
            },
        };
        if kept.label == *label {
            return Ok(kept);
        }
        let pending: BTreeSet<_> = self.store.nodes().await?.iter().map(|record| record.node_id).collect();
        let message = format!("the fabric's label is {label:?} now; {} nodes are told", pending.len());
        self.journal.record(Event::new(Timestamp::now(), Level::Info, "label-changed", message));
        let telling = Telling { label: label.clone(), pending };
        self.keep_telling(&telling).await;
        Ok(telling)
    }

    async fn keep_telling(&self, telling: &Telling) {
        let bytes = serde_json::to_vec(telling).expect("a label and node ids are JSON");
        if let Err(error) = self.store.save_blob(BLOB, &bytes).await {
            tracing::warn!(%error, "cannot note who knows the fabric's label; they are told again after a restart");
        }
    }

    /// Whether this node is done with: it was told, it refused for good, or it is gone.
    async fn tell_label(&self, node: NodeId, label: &str) -> bool {
        let record = match self.store.node(node).await {
            Ok(Some(record)) => record,
            Ok(None) => return true,
            Err(_) => return false,
        };
        let told = async { set_label(&self.meet(&record).await?, label).await };
        match self.within(&record, told).await {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(node.id = node.0, %error, "the node does not know the fabric's label yet");
                false
            }
        }
    }
}
