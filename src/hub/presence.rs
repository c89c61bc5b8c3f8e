//! Follows what the LAN shows: nodes of ours that appear are noted, interrupted attempts are settled (`recovery`), removals
//! go on when their device is back.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use super::reach::Reached;
use super::world::{Lan, World};
use super::{Hub, recovery, removal};
use crate::commissioning::ports::OperationalSession;
use crate::discovery::{DiscoveryEvent, Seen};
use crate::journal::{Event, EventSink, Level};
use crate::node::{CommissionableNode, NodeId, NodeRecord, NodeState, OperationalNode};

/// Devices of interrupted attempts are asked again this often, for those that announce themselves without our hearing it.
const ASK_AGAIN: Duration = Duration::from_secs(300);
/// A removal whose device was told already is tried again this often after a start, so many times, and later with
/// `ASK_AGAIN`: it will not announce itself on our fabric again, and may be busy with an answer that it could not deliver.
const TOLD_AGAIN: Duration = Duration::from_secs(12);
const TOLD_TRIES: u32 = 8;
/// A node that appears so soon after it was commissioned need not be compared again.
const JUST_COMMISSIONED: SignedDuration = SignedDuration::from_secs(60);

/// What takes time, so that nobody's return has to wait for it.
enum Errand {
    /// Interrupted attempts, and a leftover where this is one.
    Stranger(NodeId),
    Removals,
    /// A device that waits for a commissioner: perhaps one that was rolled back.
    Waiting(CommissionableNode),
}

/// Runs until the daemon stops.
pub(super) async fn follow<W: World>(hub: Arc<Hub<W>>) {
    let (errands, work) = tokio::sync::mpsc::unbounded_channel();
    tokio::select! {
        () = hub.stop.cancelled() => {}
        () = listen(&hub, errands) => {}
        () = settle_strangers(&hub, work) => {}
    }
}

async fn listen<W: World>(hub: &Arc<Hub<W>>, errands: UnboundedSender<Errand>) {
    let mut events = hub.lan.subscribe();
    let ours = hub.credentials.compressed_fabric_id();
    loop {
        match events.recv().await {
            Ok(DiscoveryEvent::Appeared(Seen::Operational(node))) if node.compressed_fabric_id == ours => {
                seen(hub, &node, true, &errands).await;
            }
            Ok(DiscoveryEvent::Updated(Seen::Operational(node))) if node.compressed_fabric_id == ours => {
                seen(hub, &node, false, &errands).await;
            }
            Ok(DiscoveryEvent::Appeared(Seen::Operational(node))) => hub.seen_elsewhere(&node),
            Ok(DiscoveryEvent::Gone(Seen::Operational(node))) if node.compressed_fabric_id == ours => {
                hub.doubt(node.node_id);
            }
            Ok(
                DiscoveryEvent::Appeared(Seen::Commissionable(node))
                | DiscoveryEvent::Updated(Seen::Commissionable(node)),
            ) => {
                let _ = errands.send(Errand::Waiting(node));
            }
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

async fn settle_strangers<W: World>(hub: &Arc<Hub<W>>, mut work: UnboundedReceiver<Errand>) {
    // Here and not beside this: a removal that is resumed twice at once asks a device that has just forgotten us.
    tokio::join!(recovery::ask_devices(hub), removal::resume_removals(Arc::clone(hub)));
    let mut ask_again = tokio::time::interval(ASK_AGAIN);
    ask_again.tick().await;
    let mut told_again = tokio::time::interval(TOLD_AGAIN);
    told_again.tick().await;
    let mut tries = 0;
    loop {
        tokio::select! {
            _ = told_again.tick(), if tries < TOLD_TRIES => {
                tries += 1;
                removal::resume_told(hub).await;
            }
            _ = ask_again.tick() => {
                recovery::ask_devices(hub).await;
                removal::resume_told(hub).await;
            }
            job = work.recv() => match job {
                Some(Errand::Stranger(node)) => {
                    recovery::ask_devices(hub).await;
                    finish_leftover(hub, node).await;
                    hub.stranger_seen(node).await;
                }
                Some(Errand::Removals) => removal::resume_removals(Arc::clone(hub)).await,
                Some(Errand::Waiting(node)) => recovery::commissionable_seen(hub, &node).await,
                None => return,
            },
        }
    }
}

async fn seen<W: World>(hub: &Arc<Hub<W>>, node: &OperationalNode, appeared: bool, errands: &UnboundedSender<Errand>) {
    let record = match hub.store.node(node.node_id).await {
        Ok(Some(record)) => record,
        Ok(None) => {
            // The receiver lives as long as this.
            let _ = errands.send(Errand::Stranger(node.node_id));
            return;
        }
        Err(error) => {
            tracing::warn!(%error, "cannot look up a node that announced itself");
            return;
        }
    };
    if record.state == NodeState::Removing {
        let _ = errands.send(Errand::Removals);
        return;
    }
    let (addresses, port, rhythm) = (hub.reach.addresses(&record, node), node.port, node.txt.clone());
    if (&record.addresses, record.port, &record.rhythm) != (&addresses, port, &rhythm) {
        let moved = hub.store.modify_node(node.node_id, move |record| {
            (record.addresses, record.port, record.rhythm) = (addresses, port, rhythm);
        });
        if let Err(error) = moved.await {
            tracing::warn!(node.id = node.node_id.0, %error, "cannot note where the node is");
        }
    }
    // What mDNS knows may be old, so the flag comes down only when the node answers.
    if record.state == NodeState::Unreachable {
        hub.announced(node.node_id);
    } else if appeared {
        hub.note_contact(node.node_id).await;
    }
    let record = NodeRecord { rhythm: node.txt.clone(), ..record };
    hub.icd.handle_announced(&record, appeared);
    hub.access.heard_of(node.node_id);
    hub.labels.heard_of(node.node_id);
    let age = Timestamp::now().duration_since(record.commissioned_at);
    if appeared && age > JUST_COMMISSIONED {
        hub.syncing.compare_soon(node.node_id);
    }
}

impl<W: World> Hub<W> {
    /// A device on another fabric has the address of one of our nodes: it may be the same, which its fabric table tells.
    fn seen_elsewhere(&self, seen: &OperationalNode) {
        let ours = self.credentials.compressed_fabric_id();
        let sockets = seen.sockets();
        let nodes = self.lan.operational_nodes().into_iter().filter(|node| node.compressed_fabric_id == ours);
        for node in nodes.filter(|node| node.sockets().iter().any(|socket| sockets.contains(socket))) {
            self.reach.seen_on_another_fabric(node.node_id);
        }
    }
}

/// A device that was removed by force while it was away is told now.
async fn finish_leftover<W: World>(hub: &Arc<Hub<W>>, node: NodeId) {
    let Ok(removals) = hub.store.removals().await else { return };
    let Some(leftover) = removals.into_iter().find(|removal| removal.node_id == node) else { return };
    let told = match hub.settled_standing(&leftover.record).await {
        Reached::Ours(session) => {
            let told = async { session.remove_fabric(session.current_fabric_index().await?).await };
            hub.within(&leftover.record, told).await.is_ok()
        }
        Reached::NotOnOurFabric(_) => true,
        Reached::SomebodyElse(_) | Reached::Unknown(_) => false,
    };
    if told && hub.store.forget_leftover(node).await.is_ok() {
        let event = Event::new(Timestamp::now(), Level::Info, "leftover-removed", "the device has forgotten us too");
        hub.journal.record(event.with_node(node));
    }
}
