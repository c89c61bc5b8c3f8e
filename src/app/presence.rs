//! Follows what the LAN shows: nodes of ours that appear are noted, interrupted attempts are settled by asking the device,
//! removals go on when their device is back.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use super::{Hub, nodes};
use crate::commissioning::ports::{Discovery, LinkError, MatterLink, NodeStore, OperationalSession, ProvisionalNode};
use crate::discovery::{DiscoveryEvent, Seen};
use crate::fabric::granted_cats;
use crate::journal::{Event, EventSink, Level};
use crate::node::{NodeId, NodeState, OperationalNode};

/// An interrupted attempt's device is looked for this long before it is left for its next announcement.
const LOOKUP: Duration = Duration::from_secs(5);
/// And asked again this often, for devices that announce themselves without our hearing it.
const ASK_AGAIN: Duration = Duration::from_secs(300);
/// A node that appears so soon after it was commissioned need not be compared again.
const JUST_COMMISSIONED: SignedDuration = SignedDuration::from_secs(60);

/// What takes time, so that nobody's return has to wait for it.
enum Job {
    /// Interrupted attempts, and a leftover where this is one.
    Stranger(NodeId),
    /// Removals.
    Removals,
}

/// Runs until the daemon stops.
pub(super) async fn follow(hub: Arc<Hub>) {
    let (jobs, work) = tokio::sync::mpsc::unbounded_channel();
    tokio::select! {
        () = hub.stop.cancelled() => {}
        () = listen(&hub, jobs) => {}
        () = settle_strangers(&hub, work) => {}
    }
}

async fn listen(hub: &Arc<Hub>, jobs: UnboundedSender<Job>) {
    let mut events = hub.discovery.subscribe();
    let ours = hub.link.credentials().compressed_fabric_id();
    loop {
        match events.recv().await {
            Ok(DiscoveryEvent::Appeared(Seen::Operational(node))) if node.compressed_fabric_id == ours => {
                seen(hub, &node, true, &jobs).await;
            }
            Ok(DiscoveryEvent::Updated(Seen::Operational(node))) if node.compressed_fabric_id == ours => {
                seen(hub, &node, false, &jobs).await;
            }
            Ok(DiscoveryEvent::Gone(Seen::Operational(node))) if node.compressed_fabric_id == ours => {
                hub.doubt(node.node_id);
            }
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

async fn settle_strangers(hub: &Arc<Hub>, mut work: UnboundedReceiver<Job>) {
    settle_all(hub).await;
    let mut ask_again = tokio::time::interval(ASK_AGAIN);
    ask_again.tick().await;
    loop {
        tokio::select! {
            _ = ask_again.tick() => settle_all(hub).await,
            job = work.recv() => match job {
                Some(Job::Stranger(node)) => {
                    settle_all(hub).await;
                    finish_leftover(hub, node).await;
                }
                Some(Job::Removals) => nodes::resume_removals(Arc::clone(hub)).await,
                None => return,
            },
        }
    }
}

async fn seen(hub: &Arc<Hub>, node: &OperationalNode, appeared: bool, jobs: &UnboundedSender<Job>) {
    let record = match hub.store.node(node.node_id).await {
        Ok(Some(record)) => record,
        Ok(None) => {
            // The receiver lives as long as this.
            let _ = jobs.send(Job::Stranger(node.node_id));
            return;
        }
        Err(error) => {
            tracing::warn!(%error, "cannot look up a node that announced itself");
            return;
        }
    };
    if record.state == NodeState::Removing {
        let _ = jobs.send(Job::Removals);
        return;
    }
    let (addresses, port): (Vec<String>, _) = (node.addresses.iter().map(ToString::to_string).collect(), node.port);
    if (&record.addresses, record.port) != (&addresses, port) {
        let moved = hub.store.modify_node(node.node_id, move |record| {
            (record.addresses, record.port) = (addresses, port);
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
    let age = Timestamp::now().duration_since(record.commissioned_at);
    if appeared && age > JUST_COMMISSIONED {
        hub.syncing.ask(node.node_id);
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

/// Settles every attempt that a crash or a lost answer left open.
async fn settle_all(hub: &Arc<Hub>) {
    let Ok(open) = hub.store.provisional_nodes().await else { return };
    for provisional in open {
        // One that is under way right now settles itself.
        if !hub.is_under_way(provisional.attempt_id) {
            settle(hub, provisional).await;
        }
    }
}

/// Asks the device: it is on our fabric (then it is completed and recorded), or it is not (then it was rolled back).
async fn settle(hub: &Arc<Hub>, provisional: ProvisionalNode) {
    let node = provisional.record.node_id;
    let compressed = hub.link.credentials().compressed_fabric_id();
    let addresses = hub.discovery.operational(compressed, node, LOOKUP).await;
    if addresses.is_empty() {
        return;
    }
    match hub.link.open_case(node, &addresses).await {
        Ok(session) => match promote(hub, &provisional, &session).await {
            Ok(()) => {
                let message = format!("node {node} was complete when the attempt was interrupted, and is recorded now");
                hub.journal.record(about(&provisional, Level::Info, "attempt-recovered", message));
            }
            Err(error) => tracing::warn!(node.id = node.0, %error, "an interrupted attempt cannot be settled yet"),
        },
        Err(LinkError::CaseRefused) => {
            if hub.store.abandon_provisional(provisional.attempt_id).await.is_ok() {
                let message = format!("node {node} was rolled back when the attempt was interrupted");
                hub.journal.record(about(&provisional, Level::Info, "attempt-abandoned", message));
            }
        }
        Err(error) => tracing::debug!(node.id = node.0, %error, "an interrupted attempt's device does not answer yet"),
    }
}

async fn promote(
    hub: &Arc<Hub>,
    provisional: &ProvisionalNode,
    session: &impl OperationalSession,
) -> anyhow::Result<()> {
    match session.commissioning_complete().await {
        // NoFailSafe: there is nothing left to complete.
        Ok(()) | Err(LinkError::Commissioning { code: 3, .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let mut record = provisional.record.clone();
    record.cats = granted_cats(&session.read_acl().await?);
    record.fabric_index = session.current_fabric_index().await?;
    record.state = NodeState::Operational;
    record.last_seen_at = Some(Timestamp::now());
    let attempt = provisional.attempt_id;
    hub.store.commit_commissioned(attempt, &record, provisional.task.as_ref(), &provisional.evidence).await?;
    Ok(())
}

fn about(provisional: &ProvisionalNode, level: Level, kind: &str, message: String) -> Event {
    Event::new(Timestamp::now(), level, kind, message)
        .with_node(provisional.record.node_id)
        .with_attempt(provisional.attempt_id)
}
