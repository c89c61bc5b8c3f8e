//! Follows what the LAN shows: nodes of ours that appear are noted, interrupted attempts are settled (`recovery`), removals
//! go on when their device is back.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::{Hub, nodes, recovery};
use crate::commissioning::ports::{LinkError, OperationalSession};
use crate::discovery::{DiscoveryEvent, Seen};
use crate::journal::{Event, EventSink, Level};
use crate::node::{NodeId, NodeState, OperationalNode};

/// Devices of interrupted attempts are asked again this often, for those that announce themselves without our hearing it.
const ASK_AGAIN: Duration = Duration::from_secs(300);

/// Runs until the daemon stops.
pub(super) async fn follow(hub: Arc<Hub>) {
    let mut events = hub.discovery.subscribe();
    let ours = hub.link.credentials().compressed_fabric_id();
    recovery::settle_all(&hub).await;
    let mut ask_again = tokio::time::interval(ASK_AGAIN);
    ask_again.tick().await;
    loop {
        tokio::select! {
            () = hub.stop.cancelled() => return,
            _ = ask_again.tick() => recovery::settle_all(&hub).await,
            event = events.recv() => match event {
                Ok(DiscoveryEvent::Appeared(Seen::Operational(node)) | DiscoveryEvent::Updated(Seen::Operational(node)))
                    if node.compressed_fabric_id == ours => seen(&hub, &node).await,
                Ok(DiscoveryEvent::Appeared(Seen::Commissionable(node)) | DiscoveryEvent::Updated(Seen::Commissionable(node))) =>
                    recovery::commissionable_seen(&hub, &node).await,
                Ok(_) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
            },
        }
    }
}

async fn seen(hub: &Arc<Hub>, node: &OperationalNode) {
    let addresses: Vec<String> = node.addresses.iter().map(ToString::to_string).collect();
    match hub.store.node(node.node_id).await {
        Ok(Some(record)) if record.state == NodeState::Removing => {
            nodes::resume_removals(Arc::clone(hub)).await;
        }
        Ok(Some(record)) => {
            let port = node.port;
            let touched = hub
                .store
                .touch_node(node.node_id, Some(Timestamp::now()), Some((addresses, port)), NodeState::Operational)
                .await;
            if let Err(error) = touched {
                tracing::warn!(node.id = node.node_id.0, %error, "cannot note where the node is");
            }
            if record.state == NodeState::Unreachable {
                let message = format!("node {} ({}) is back", node.node_id, record.name);
                let event = Event::new(Timestamp::now(), Level::Info, "node-returned", message);
                hub.journal.record(event.with_node(node.node_id));
            }
        }
        Ok(None) => {
            recovery::settle_all(hub).await;
            finish_leftover(hub, node.node_id).await;
        }
        Err(error) => tracing::warn!(%error, "cannot look up a node that announced itself"),
    }
}

/// A device that was removed by force while it was away is told now.
async fn finish_leftover(hub: &Arc<Hub>, node: NodeId) {
    let Ok(removals) = hub.store.removals().await else { return };
    let Some(leftover) = removals.into_iter().find(|removal| removal.node_id == node) else { return };
    let told = async {
        let session = match hub.meet(&leftover.record).await {
            Err(LinkError::CaseRefused) => return Ok(()),
            session => session?,
        };
        let index = session.current_fabric_index().await?;
        session.remove_fabric(index).await
    };
    if told.await.is_ok() && hub.store.forget_leftover(node).await.is_ok() {
        let event = Event::new(Timestamp::now(), Level::Info, "leftover-removed", "the device has forgotten us too");
        hub.journal.record(event.with_node(node));
    }
}
