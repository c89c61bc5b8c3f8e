//! Nodes of our own fabric of which nobody here has a record: devices that were added after a backup that was restored. They
//! are believed when they let us in; then a person takes them into the record, or removes them.
//!
//! Not here: devices of interrupted attempts, which settle themselves (`recovery`).

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Hub;
use super::inventory::NodeRef;
use super::reach::device_error;
use super::refusal::Refusal;
use super::world::{Case, Lan, World};
use crate::bind::{BindOptions, BindState, BindStatus, CapabilityMask, CloudDevice, CloudRecord};
use crate::commissioning::error::Disposition;
use crate::commissioning::identity::{self, GivenIdentity};
use crate::commissioning::ports::{LinkError, NodeStore, OperationalSession};
use crate::durable::StoreError;
use crate::fabric::granted_cats;
use crate::journal::{Event, EventSink, Level};
use crate::node::{AttestationSummary, IcdRegistration, NodeId, NodeRecord, NodeState, OperationalNode};
use crate::outbox::ports::{BindApi, OutboxTask};

/// Who announces itself answers soon.
const OPEN: Duration = Duration::from_secs(5);
/// Asking the cloud what it holds.
const CLOUD: Duration = Duration::from_secs(20);

/// Takes nodes of our fabric into the record that have none.
pub trait StrangersDoor: Send + Sync + 'static {
    /// Opens CASE with the node, reads everything, and writes record and cloud work.
    fn adopt(&self, node: NodeId, who: String) -> impl Future<Output = Result<NodeRecord, Refusal>> + Send;
}

/// A node of our fabric without a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ForeignNode {
    /// Its id on our fabric.
    pub node_id: NodeId,
    /// Where it announces itself.
    pub addresses: Vec<String>,
    /// The UDP port that it announces.
    pub port: u16,
}

/// Those that have let us in.
#[derive(Default)]
pub(crate) struct Strangers(Mutex<BTreeMap<NodeId, ForeignNode>>);

impl Strangers {
    fn replace(&self, node: NodeId, known: Option<ForeignNode>) -> Option<ForeignNode> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match known {
            Some(known) => all.insert(node, known),
            None => all.remove(&node),
        }
    }

    fn all(&self) -> Vec<ForeignNode> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

impl<W: World> StrangersDoor for Hub<W> {
    async fn adopt(&self, node: NodeId, who: String) -> Result<NodeRecord, Refusal> {
        let _turn = self.removing.take(node).await;
        if self.store.node(node).await?.is_some() {
            let message = format!("node {node} is recorded already");
            return Err(Refusal::new(
                "already-recorded",
                Disposition::UserAction,
                message,
                "`matterbind nodes` shows it",
            ));
        }
        let session = self.open_stranger(node).await.map_err(|error| device_error(&error))?;
        let mut record = self.read_stranger(node, &session).await.map_err(|error| device_error(&error))?;
        let held = self.held_by_cloud().await.unwrap_or_default();
        match held.iter().find(|held| self.is_about(held, node)) {
            Some(held) => take_over(&mut record, held),
            None => self.give_keys(&mut record, &session).await,
        }
        self.store.adopt(&record).await?;
        self.strangers.replace(node, None);
        let message = format!("{who} takes node {node} ({}) into the record: it is on our fabric", record.name);
        let event = Event::new(Timestamp::now(), Level::Info, "node-adopted", message);
        self.journal.record(event.with_node(node).with("who", who));
        self.know_nodes().await;
        if record.icd.is_some() {
            self.icd.want(node, false);
        }
        self.record(node).await
    }
}

impl<W: World> Hub<W> {
    /// Who announces itself on our fabric, is in no record, and is nobody's attempt or leftover.
    async fn unrecorded(&self) -> Result<Vec<OperationalNode>, StoreError> {
        let mut known: BTreeSet<NodeId> = self.store.nodes().await?.iter().map(|record| record.node_id).collect();
        known.extend(self.store.provisional_nodes().await?.iter().map(|provisional| provisional.record.node_id));
        known.extend(self.store.removals().await?.iter().map(|removal| removal.node_id));
        // Controllers announce themselves as nodes do.
        known.extend(self.store.controllers().await?.iter().map(|controller| controller.node_id));
        let credentials = &self.credentials;
        known.insert(credentials.bundle().hub_node);
        let ours = credentials.compressed_fabric_id();
        let seen = self.lan.operational_nodes().into_iter();
        Ok(seen.filter(|seen| seen.compressed_fabric_id == ours && !known.contains(&seen.node_id)).collect())
    }

    /// Asks a node without a record whether it lets us in: what mDNS says may be a memory.
    async fn greet(&self, seen: &OperationalNode) {
        let node = seen.node_id;
        let known = match self.reach.open_unrecorded(node, OPEN).await {
            Ok(_) => ForeignNode {
                node_id: node,
                addresses: seen.addresses.iter().map(ToString::to_string).collect(),
                port: seen.port,
            },
            Err(error) => {
                tracing::debug!(node.id = node.0, %error, "a node without a record announces itself, and does not let us in");
                self.strangers.replace(node, None);
                return;
            }
        };
        if self.strangers.replace(node, Some(known)).is_none() {
            let message = format!(
                "node {node} is on our fabric, and there is no record of it: `matterbind node adopt {node}` takes it in, \
                 `matterbind node remove {node}` removes it"
            );
            self.journal.record(Event::new(Timestamp::now(), Level::Warn, "unknown-node", message).with_node(node));
        }
    }

    /// One that has just announced itself.
    pub(super) async fn stranger_seen(&self, node: NodeId) {
        let Ok(unrecorded) = self.unrecorded().await else { return };
        if let Some(seen) = unrecorded.iter().find(|seen| seen.node_id == node) {
            self.greet(seen).await;
        }
    }

    /// Asks all of them now.
    pub(super) async fn greet_strangers(&self) -> Result<Vec<ForeignNode>, StoreError> {
        join_all(self.unrecorded().await?.iter().map(|seen| self.greet(seen))).await;
        self.foreign_nodes().await
    }

    /// Those that have let us in, and are still there without a record.
    pub(super) async fn foreign_nodes(&self) -> Result<Vec<ForeignNode>, StoreError> {
        let unrecorded: BTreeSet<NodeId> = self.unrecorded().await?.iter().map(|seen| seen.node_id).collect();
        let mut all = self.strangers.all();
        all.retain(|foreign| unrecorded.contains(&foreign.node_id));
        Ok(all)
    }

    /// What the cloud holds on our fabric and nobody here knows.
    pub(super) async fn unrecorded_bindings(
        &self,
        held: Vec<CloudRecord>,
    ) -> Result<Vec<(NodeId, CloudDevice)>, StoreError> {
        let rows = self.store.outbox_entries().await?;
        let at_work = |held: &CloudRecord| rows.iter().any(|row| *row.task.device() == held.device);
        let provisional = self.store.provisional_nodes().await?;
        let about_to_come = |node: NodeId| provisional.iter().any(|open| open.record.node_id == node);
        let ours = self.credentials.bundle().fabric_id.0;
        let unknown = held.into_iter().filter_map(|held| {
            let info = held.matter_info.as_ref().filter(|info| info.fabric_id == Some(ours))?;
            let node = NodeId(info.node_id?);
            (!at_work(&held) && !about_to_come(node)).then_some((node, held.device))
        });
        Ok(unknown.collect())
    }

    /// Takes a node without a record off our fabric and out of the cloud.
    pub(super) async fn remove_stranger(
        &self,
        node: NodeId,
        who: &str,
    ) -> Result<super::removal::RemoveResult, Refusal> {
        let held = self.held_by_cloud().await;
        let bound = held.iter().flatten().find(|held| self.is_about(held, node)).map(|held| held.device.clone());
        let seen = self.unrecorded().await?.into_iter().any(|seen| seen.node_id == node);
        if !seen && bound.is_none() {
            return Err(Refusal::unknown_node(&NodeRef::Id(node)));
        }
        let mut device_removed = false;
        if seen {
            let removed = async {
                let session = self.open_stranger(node).await?;
                session.remove_fabric(session.current_fabric_index().await?).await
            };
            removed.await.map_err(|error| device_error(&error))?;
            device_removed = true;
            self.strangers.replace(node, None);
        }
        let cloud = match bound {
            Some(device) => {
                self.store.enqueue(node, &OutboxTask::Unbind(device), Timestamp::now()).await?;
                "pending"
            }
            None => "not-bound",
        };
        let message = format!("{who} has node {node} removed, of which there was no record");
        let event = Event::new(Timestamp::now(), Level::Info, "node-removed", message);
        self.journal.record(event.with_node(node).with("who", who));
        let message = match held {
            Some(_) => String::new(),
            None => "the cloud could not be asked whether it holds it; `matterbind sync` tells later".to_owned(),
        };
        Ok(super::removal::RemoveResult {
            node_id: node,
            device_removed,
            cloud: cloud.to_owned(),
            record_deleted: true,
            message,
        })
    }

    async fn open_stranger(&self, node: NodeId) -> Result<Case<W>, LinkError> {
        self.reach.open_unrecorded(node, OPEN).await
    }

    /// All that a record says, from the device itself. What only commissioning knows stays empty.
    async fn read_stranger(&self, node: NodeId, session: &Case<W>) -> Result<NodeRecord, LinkError> {
        let description = session.describe().await?;
        let basic = description.basic;
        let cats = granted_cats(&session.read_acl().await?);
        let fabric_index = session.current_fabric_index().await?;
        let now = Timestamp::now();
        let seen = self.unrecorded().await.unwrap_or_default().into_iter().find(|seen| seen.node_id == node);
        let (addresses, port, rhythm) = seen.map(|seen| (seen.addresses, seen.port, seen.txt)).unwrap_or_default();
        Ok(NodeRecord {
            fabric_id: self.credentials.bundle().fabric_id,
            node_id: node,
            fabric_index,
            vendor_id: basic.vendor_id,
            product_id: basic.product_id,
            discriminator: None,
            matter_version: basic.matter_version(),
            name: NodeRecord::default_name(&basic.product_name, node),
            vendor_name: basic.vendor_name,
            product_name: basic.product_name,
            serial_number: basic.serial_number,
            unique_id: basic.unique_id,
            cats,
            product_key: None,
            device_key: None,
            family_id: None,
            room_id: None,
            capabilities_bitmask: CapabilityMask::ON_THE_LAN.value(),
            attestation: AttestationSummary { verdict: "not-kept".to_owned(), findings: Vec::new() },
            addresses: addresses.iter().map(ToString::to_string).collect(),
            port,
            rhythm,
            also_known_as: Vec::new(),
            commissioned_at: now,
            last_seen_at: Some(now),
            state: NodeState::Operational,
            bind_options: BindOptions::default(),
            bind: BindStatus::default(),
            icd: description.facts.long_idle.then_some(IcdRegistration::NotRegistered),
            replaces: None,
        })
    }

    /// Its keys in the cloud by the product's profile; why it is not bound, where the cloud does not hold it.
    async fn give_keys(&self, record: &mut NodeRecord, session: &Case<W>) {
        if self.cloud.is_none() {
            record.bind.message = "no cloud is configured".to_owned();
            return;
        }
        let profiles = self.commissioner.get().settings.profiles.clone();
        let basic = match session.describe().await {
            Ok(description) => description.basic,
            Err(_) => return,
        };
        record.bind =
            match identity::resolve(&GivenIdentity::default(), &profiles, &basic, CapabilityMask::ON_THE_LAN, session)
                .await
            {
                Ok(eligible) => {
                    (record.product_key, record.device_key) =
                        (Some(eligible.device.product_key), Some(eligible.device.device_key));
                    record.capabilities_bitmask = eligible.capabilities_bitmask;
                    record.bind_options = eligible.options;
                    let message = "the cloud does not hold it, and its discriminator is not known: commission it again"
                        .to_owned();
                    BindStatus { state: BindState::NotEligible, message, ..BindStatus::default() }
                }
                Err(not_eligible) => not_eligible.status(),
            };
    }

    /// What the cloud shows on our fabric; `None` where there is no cloud, or it does not answer.
    async fn held_by_cloud(&self) -> Option<Vec<CloudRecord>> {
        let (cloud, ours) = (self.cloud.as_ref()?, self.credentials.bundle().fabric_id);
        tokio::time::timeout(CLOUD, cloud.held(&BTreeSet::new(), Some(ours))).await.ok()?.ok()
    }

    fn is_about(&self, held: &CloudRecord, node: NodeId) -> bool {
        let ours = self.credentials.bundle().fabric_id.0;
        held.matter_info.as_ref().is_some_and(|info| info.fabric_id == Some(ours) && info.node_id == Some(node.0))
    }
}

/// What the cloud holds of the node: who it is there, and what only commissioning could tell us. Where it shows something else
/// than the device, `sync` says so and mends it.
fn take_over(record: &mut NodeRecord, held: &CloudRecord) {
    record.product_key = Some(held.device.product_key.clone());
    record.device_key = Some(held.device.device_key.clone());
    record.discriminator =
        held.matter_info.as_ref().and_then(|info| info.discriminator).and_then(|value| u16::try_from(value).ok());
    if let Some(name) = held.device_name.clone().filter(|name| !name.is_empty()) {
        record.name = name;
    }
    (record.family_id, record.room_id) = (held.family_id.clone(), held.room_id.clone());
    let now = Some(Timestamp::now());
    record.bind = BindStatus { state: BindState::Bound, confirmed_at: now, ..BindStatus::default() };
}
