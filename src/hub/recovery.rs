//! Settles attempts that a crash or a lost answer interrupted. The stage of their provisional row says which of three cases it is:
//! where nobody can meet the device on our fabric, it rolls back by itself; where it can be met while its fail-safe lasts, its attempt
//! goes on (`resume`); where CommissioningComplete may have been sent, the device itself is asked. Not here: the attempt
//! (`commissioning::driver`).

mod resume;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::time::sleep;

pub(crate) use self::resume::Interrupted;
pub(super) use self::resume::follow;
use super::Hub;
use super::reach::OPEN;
use super::world::{Lan, World};
use crate::commissioning::path::NO_FAIL_SAFE;
use crate::commissioning::ports::{LinkError, NodeStore, OperationalSession, ProvisionalNode, Stage};
use crate::fabric::granted_cats;
use crate::failpoint;
use crate::journal::{Event, EventSink, Level};
use crate::node::{CommissionableNode, NodeRecord, NodeState};

/// A device that has just rolled back may say things that it does not say a moment later.
const SAY_IT_TWICE: Duration = Duration::from_secs(2);

/// At start, before any attempt can run: who rolls back by himself, and whom an attempt waits for.
pub(crate) async fn sort_interrupted<W: World>(hub: &Hub<W>) {
    let Ok(open) = hub.store.provisional_nodes().await else { return };
    for provisional in open {
        match &provisional.stage {
            Stage::GivenAway => abandon(hub, &provisional).await,
            Stage::OnFabric(_) | Stage::Ready => hub.interrupted.expect(hub, &provisional).await,
        }
    }
}

/// Asks the devices of all attempts that are open and not under way.
pub(super) async fn ask_devices<W: World>(hub: &Hub<W>) {
    let Ok(open) = hub.store.provisional_nodes().await else { return };
    let open = open.into_iter().filter(|provisional| is_left_alone(hub, provisional));
    join_all(open.map(|provisional| ask_where_it_is(hub, provisional))).await;
}

/// A device that waits for a commissioner may be one that was rolled back after its attempt was interrupted.
pub(super) async fn commissionable_seen<W: World>(hub: &Arc<Hub<W>>, node: &CommissionableNode) {
    let Ok(open) = hub.store.provisional_nodes().await else { return };
    for provisional in open {
        if is_left_alone(hub, &provisional) && looks_like(node, &provisional.record) {
            ask_device(hub, provisional, &node.sockets()).await;
        }
    }
}

/// Whether CommissioningComplete may have been sent and nobody is at it: an attempt that is under way settles itself, and so does one
/// that goes on.
fn is_left_alone<W: World>(hub: &Hub<W>, provisional: &ProvisionalNode) -> bool {
    let attempt = provisional.attempt_id;
    let is_ready = matches!(provisional.stage, Stage::Ready);
    is_ready && !hub.is_under_way(attempt) && !hub.commissioner.get().together.expects(attempt)
}

/// Where the device is: announced on our fabric, or waiting for a commissioner at the address that it had.
async fn ask_where_it_is<W: World>(hub: &Hub<W>, provisional: ProvisionalNode) {
    let waiting = waiting(hub, &provisional);
    ask_device(hub, provisional, &waiting).await;
}

/// Where one that looks like the device waits for a commissioner.
fn waiting<W: World>(hub: &Hub<W>, provisional: &ProvisionalNode) -> Vec<SocketAddr> {
    let waiting = hub.lan.commissionable().into_iter().find(|node| looks_like(node, &provisional.record));
    waiting.map(|node| node.sockets()).unwrap_or_default()
}

/// Asks the device: it is on our fabric (then it is completed and recorded), or it is not (then it was rolled back).
/// `waiting` is where one that looks like it waits for a commissioner.
async fn ask_device<W: World>(hub: &Hub<W>, provisional: ProvisionalNode, waiting: &[SocketAddr]) {
    let node = provisional.record.node_id;
    let refused = match hub.reach.open_among(&provisional.record, waiting, OPEN).await {
        Ok(session) => {
            recover(hub, &provisional, &session).await;
            return;
        }
        Err(LinkError::NoSharedTrustRoots { peer }) => peer,
        Err(error) => {
            tracing::debug!(node.id = node.0, %error, "an interrupted attempt's device does not answer yet");
            return;
        }
    };
    weigh_refusal(hub, &provisional, waiting, refused).await;
}

/// The device at `refused` does not know our fabric: where it proves that it was rolled back, the attempt is closed.
async fn weigh_refusal<W: World>(
    hub: &Hub<W>,
    provisional: &ProvisionalNode,
    waiting: &[SocketAddr],
    refused: SocketAddr,
) {
    let is_proved = if waiting.contains(&refused) {
        // No proof, but the best that there can be: a commissionable device says nothing else of itself. A mistake here
        // costs no binding, for there is none yet; and a node of ours without a record is told of when it announces itself.
        sleep(SAY_IT_TWICE).await;
        let again = hub.reach.open_among(&provisional.record, waiting, OPEN).await;
        matches!(again, Err(LinkError::NoSharedTrustRoots { peer }) if waiting.contains(&peer))
    } else {
        hub.reach.prove(&provisional.record, refused).await.is_some()
    };
    if is_proved {
        abandon(hub, provisional).await;
    }
}

/// Completes and records a device that has answered as ours; whether that is done.
async fn recover<W: World>(hub: &Hub<W>, provisional: &ProvisionalNode, session: &impl OperationalSession) -> bool {
    let node = provisional.record.node_id;
    match promote(hub, provisional, session).await {
        Ok(()) => {
            let message = format!("node {node} was complete when the attempt was interrupted, and is recorded now");
            hub.journal.record(about(provisional, Level::Info, "attempt-recovered", message));
            true
        }
        Err(error) => {
            tracing::warn!(node.id = node.0, %error, "an interrupted attempt cannot be settled yet");
            false
        }
    }
}

async fn promote<W: World>(
    hub: &Hub<W>,
    provisional: &ProvisionalNode,
    session: &impl OperationalSession,
) -> anyhow::Result<()> {
    failpoint::reach("recover.before");
    match session.commissioning_complete().await {
        // NoFailSafe: there is nothing left to complete.
        Ok(()) | Err(LinkError::Commissioning { code: NO_FAIL_SAFE, .. }) => {}
        Err(error) => return Err(error.into()),
    }
    failpoint::reach("recover.completed");
    let mut record = provisional.record.clone();
    record.cats = granted_cats(&session.read_acl().await?);
    record.fabric_index = session.current_fabric_index().await?;
    record.state = NodeState::Operational;
    record.last_seen_at = Some(Timestamp::now());
    let ProvisionalNode { attempt_id, task, evidence, .. } = provisional;
    let outbox_id = hub.store.commit_commissioned(*attempt_id, &record, task.as_ref(), evidence).await?;
    failpoint::reach("recover.recorded");
    hub.tell_succession(&record);
    hub.interrupted.note_recorded(hub, *attempt_id, record, outbox_id);
    Ok(())
}

async fn abandon<W: World>(hub: &Hub<W>, provisional: &ProvisionalNode) {
    match hub.store.abandon_provisional(provisional.attempt_id).await {
        Ok(()) => {
            failpoint::reach("abandon.after");
            let node = provisional.record.node_id;
            let message =
                format!("the attempt for node {node} was interrupted, the device is not ours: commission it again");
            hub.journal.record(about(provisional, Level::Warn, "attempt-abandoned", message));
        }
        Err(error) => tracing::warn!(%error, "an interrupted attempt cannot be closed yet"),
    }
}

/// The same code, the same product, and an address that the device had: nothing in its announcement says more.
fn looks_like(node: &CommissionableNode, record: &NodeRecord) -> bool {
    let told = |seen: Option<u16>, known: u16| seen.is_none_or(|seen| seen == 0 || seen == known);
    node.txt.commissioning_mode != 0
        && record.discriminator.is_none_or(|known| known == node.txt.discriminator)
        && told(node.txt.vendor_id, record.vendor_id)
        && told(node.txt.product_id, record.product_id)
        && node.addresses.iter().any(|address| record.addresses.contains(&address.to_string()))
}

fn about(provisional: &ProvisionalNode, level: Level, kind: &str, message: String) -> Event {
    Event::new(Timestamp::now(), level, kind, message)
        .with_node(provisional.record.node_id)
        .with_attempt(provisional.attempt_id)
}
