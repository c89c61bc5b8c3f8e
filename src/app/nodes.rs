//! What the admin API asks of one node: check, identify, share, remove. Every call has a deadline; a removal is resumable.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use rs_matter::BasicCommData;
use rs_matter::pairing::DiscoveryCapabilities;
use rs_matter::pairing::qr::{CommFlowType, QrPayload, no_optional_data};

use tokio::sync::broadcast;

use super::Hub;
use crate::admin::wire::{ApiError, Difference, NodeCheck, RemoveResult, ShareResult};
use crate::commissioning::error::Disposition;
use crate::commissioning::ports::{Discovery, LinkError, MatterLink, OperationalSession};
use crate::fabric::granted_cats;
use crate::failpoint;
use crate::journal::{Event, EventSink, Level};
use crate::matter::operational::CaseLink;
use crate::node::{NodeId, NodeRecord, NodeState};
use crate::onboarding::{MAX_DISCRIMINATOR, check_passcode};
use crate::outbox::dispatcher::wait_for;
use crate::outbox::ports::OutboxId;
use crate::secret::Passcode;
use crate::store::RemovalStage;

/// How long a node's announcement is waited for before its last known addresses are tried.
const LOOKUP: Duration = Duration::from_secs(2);
/// Everything that one request asks of a device.
const DEVICE: Duration = Duration::from_secs(20);
/// How long `node remove` waits for the cloud before it says that the rest goes on by itself.
const UNBIND: Duration = Duration::from_secs(10);

impl Hub {
    /// A CASE session with a recorded node, wherever it is now.
    pub(super) async fn meet(&self, record: &NodeRecord) -> Result<CaseLink, LinkError> {
        let compressed = self.link.credentials().compressed_fabric_id();
        let mut addresses = self.discovery.operational(compressed, record.node_id, LOOKUP).await;
        for known in last_known(record) {
            if !addresses.contains(&known) {
                addresses.push(known);
            }
        }
        let session = self.link.open_case(record.node_id, &addresses).await;
        match &session {
            Ok(_) => self.note_contact(record.node_id).await,
            Err(LinkError::Unreachable { .. }) => self.doubt(record.node_id),
            Err(_) => {}
        }
        session
    }

    pub(super) async fn record(&self, node: NodeId) -> Result<NodeRecord, ApiError> {
        self.store.node(node).await?.ok_or_else(|| ApiError::unknown_node(&crate::admin::wire::NodeRef::Id(node)))
    }

    pub(super) async fn check_node(&self, node: NodeId) -> Result<NodeCheck, ApiError> {
        let record = self.record(node).await?;
        let began = Instant::now();
        let answer = within(self.ask_device(&record)).await;
        let mut check = NodeCheck {
            node_id: node,
            reachable: answer.is_ok(),
            address: record.addresses.first().cloned().filter(|_| answer.is_ok()),
            duration_ms: began.elapsed().as_millis() as u64,
            message: String::new(),
            device: serde_json::Value::Null,
            differences: Vec::new(),
        };
        match answer {
            Ok(device) => {
                self.store.touch_node(node, Some(Timestamp::now()), None, NodeState::Operational).await?;
                check.differences = differing(&device, &record);
                check.device = device;
            }
            Err(error) => check.message = error.to_string(),
        }
        Ok(check)
    }

    /// What the device says about itself, by the names of the node record.
    async fn ask_device(&self, record: &NodeRecord) -> Result<serde_json::Value, LinkError> {
        let session = self.meet(record).await?;
        let basic = session.describe().await?.basic;
        let acl = session.read_acl().await?;
        let index = session.current_fabric_index().await?;
        let fabric = session.fabrics().await?.into_iter().find(|fabric| fabric.index == index);
        Ok(serde_json::json!({
            "fabric_id": fabric.as_ref().map(|fabric| fabric.fabric_id),
            "node_id": fabric.as_ref().map(|fabric| fabric.node_id),
            "fabric_index": index,
            "vendor_id": basic.vendor_id,
            "product_id": basic.product_id,
            "serial_number": basic.serial_number,
            "matter_version": basic.matter_version(),
            "cats": granted_cats(&acl),
        }))
    }

    pub(super) async fn identify_node(&self, node: NodeId, seconds: u16) -> Result<(), ApiError> {
        let record = self.record(node).await?;
        let identify = async { self.meet(&record).await?.identify(Duration::from_secs(u64::from(seconds))).await };
        within(identify).await.map_err(|error| device_error(&error))
    }

    pub(super) async fn share_node(&self, node: NodeId, seconds: u16) -> Result<ShareResult, ApiError> {
        let record = self.record(node).await?;
        let (passcode, discriminator) = fresh_window();
        let secret = Passcode::new(passcode);
        let open = async {
            let window = Duration::from_secs(u64::from(seconds));
            self.meet(&record).await?.open_window(window, discriminator, &secret).await
        };
        within(open).await.map_err(|error| device_error(&error))?;
        let expires_at = Timestamp::now() + SignedDuration::from_secs(i64::from(seconds));
        let message = format!("commissioning window open until {expires_at:.0}");
        self.journal.record(Event::new(Timestamp::now(), Level::Info, "node-shared", message).with_node(node));
        let (manual_code, qr_payload) = codes(passcode, discriminator, &record)
            .ok_or_else(|| internal("the onboarding codes could not be written"))?;
        Ok(ShareResult { node_id: node, manual_code, qr_payload, discriminator, expires_at })
    }

    /// Device, cloud, record, in that order. What could not be done is resumed.
    pub(super) async fn remove_node(&self, node: NodeId, force: bool) -> Result<RemoveResult, ApiError> {
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

    async fn unbind_row(&self, node: NodeId) -> Result<Option<OutboxId>, ApiError> {
        let rows = self.store.outbox_entries().await?;
        Ok(rows.iter().find(|row| row.node_id == node && row.task.kind() == "unbind").map(|row| row.id))
    }

    async fn finish_removal(&self, node: NodeId, name: &str) -> Result<(), ApiError> {
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
                Err(LinkError::CaseRefused) => return Ok(()),
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
pub(super) struct Turns(Mutex<HashMap<NodeId, Weak<tokio::sync::Mutex<()>>>>);

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
            && let Err(error) = hub.remove_node(removal.node_id, removal.forced).await
        {
            tracing::warn!(node.id = removal.node_id.0, %error, "removal not finished; it is resumed when the node is seen");
        }
    }
}

pub(super) async fn within<T>(work: impl Future<Output = Result<T, LinkError>>) -> Result<T, LinkError> {
    let late = LinkError::Unreachable { addresses: Vec::new() };
    tokio::time::timeout(DEVICE, work).await.unwrap_or(Err(late))
}

/// Addresses that need no interface name; link-local ones are found by mDNS.
pub(super) fn last_known(record: &NodeRecord) -> Vec<std::net::SocketAddr> {
    let ips = record.addresses.iter().filter_map(|address| address.parse::<std::net::IpAddr>().ok());
    ips.filter(|ip| !matches!(ip, std::net::IpAddr::V6(v6) if crate::node::is_unicast_link_local(*v6)))
        .map(|ip| std::net::SocketAddr::new(ip, record.port))
        .collect()
}

fn differing(device: &serde_json::Value, record: &NodeRecord) -> Vec<Difference> {
    let local = serde_json::to_value(record).unwrap_or_default();
    let fields = device.as_object().into_iter().flatten();
    fields
        .filter(|(field, value)| local[field.as_str()] != **value)
        .map(|(field, value)| Difference {
            field: field.clone(),
            device: value.clone(),
            local: local[field.as_str()].clone(),
            cloud: serde_json::Value::Null,
        })
        .collect()
}

/// A passcode and a discriminator for an enhanced window (Matter Core 5.1.7, 11.19.8.1).
fn fresh_window() -> (u32, u16) {
    let passcode = std::iter::repeat_with(|| rand::random_range(1..=99_999_998))
        .find(|passcode| check_passcode(*passcode).is_ok())
        .expect("nearly every number of the range is a passcode");
    (passcode, rand::random_range(0..=MAX_DISCRIMINATOR))
}

fn codes(passcode: u32, discriminator: u16, record: &NodeRecord) -> Option<(String, String)> {
    let data = BasicCommData { password: passcode.to_le_bytes().into(), discriminator };
    let manual = data.compute_pairing_code().to_string();
    let qr = QrPayload::new(
        DiscoveryCapabilities::IP,
        CommFlowType::Standard,
        data,
        record.vendor_id,
        record.product_id,
        "",
        no_optional_data,
    );
    let mut buffer = [0; 256];
    let (text, _) = qr.as_str(&mut buffer).ok()?;
    Some((manual, text.to_owned()))
}

fn internal(message: &str) -> ApiError {
    ApiError::new("internal", Disposition::Bug, message, "`matterbind logs` has the details; report it")
}

fn not_removed(error: &LinkError) -> ApiError {
    let mut refused = device_error(error);
    refused.hint = "it is removed when it is seen again; to forget it without the device, use --force".to_owned();
    refused
}

pub(super) fn device_error(error: &LinkError) -> ApiError {
    let (code, hint) = match error {
        LinkError::CaseRefused => ("case-refused", "the device was reset or removed us; `matterbind sync` tells"),
        LinkError::Unreachable { .. } | LinkError::SessionLost => {
            ("device-unreachable", "check that the device has power and is near enough, then try again")
        }
        LinkError::Busy => ("device-busy", "wait a minute, then try again"),
        LinkError::Stack { .. } => ("stack-failed", "restart the daemon; `matterbind logs` has the details"),
        _ => ("device-error", "try again; `matterbind logs` has the details"),
    };
    ApiError::new(code, Disposition::Retry, error.to_string(), hint)
}
