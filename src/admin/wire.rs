//! Every document of the admin API and of the command line's `--json` (interface.md). The same types on both sides.
//!
//! Here: errors, inventory, outbox, status, fabric, sync. `commission`: an attempt. `query`: what is asked.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::commissioning::error::{CommissioningError, Disposition};
use crate::commissioning::step::Step;
use crate::durable::StoreError;
use crate::node::{CommissionableNode, NodeId, NodeRecord, OperationalNode};
use crate::outbox::ports::{OutboxEntry, OutboxState};

mod access;
mod commission;
mod query;

pub use access::{
    AccessAction, AccessOutcome, AccessReport, AccessView, Encryption, ImportRoot, NodeAccess, RemoveRoot,
};
pub use commission::{
    AttestationOverride, CommissionEvent, CommissionLine, CommissionRequest, CommissionResult, Failure, Timings,
};
pub use query::{DiscoverQuery, LogQuery, NodeAction, NodeRef, NodeRefError};

/// What every request that fails answers with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The commissioning step, where it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub step: Option<Step>,
    /// A stable kebab-case word.
    pub code: String,
    /// Who can do something about it.
    #[schema(value_type = String)]
    pub disposition: Disposition,
    /// What happened.
    pub message: String,
    /// What to do now.
    pub hint: String,
}

impl ApiError {
    /// An error outside a commissioning step.
    pub fn new(code: &str, disposition: Disposition, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { step: None, code: code.to_owned(), disposition, message: message.into(), hint: hint.into() }
    }

    /// The request does not make sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new("bad-request", Disposition::UserAction, message, "see GET /v1/openapi.json")
    }

    /// No such node.
    pub fn unknown_node(node: &NodeRef) -> Self {
        let message = format!("there is no node {node}");
        Self::new("unknown-node", Disposition::UserAction, message, "`matterbind nodes` lists them")
    }

    /// A name that several nodes have.
    pub fn ambiguous_node(name: &str, nodes: &[NodeId]) -> Self {
        let ids = nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let message = format!("several nodes have the name {name:?}: {ids}");
        Self::new("ambiguous-node", Disposition::UserAction, message, "name it by its node id")
    }

    /// No such outbox row.
    pub fn unknown_outbox_entry(id: i64) -> Self {
        let message = format!("the outbox holds no entry {id}");
        Self::new("unknown-outbox-entry", Disposition::UserAction, message, "`matterbind outbox` lists what it holds")
    }

    /// Discovery or the Matter stack does not run yet.
    pub fn not_ready(what: &str) -> Self {
        let message = format!("{what} does not run yet");
        Self::new("not-ready", Disposition::Retry, message, "try again in a moment; `matterbind status` tells")
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let (code, disposition) = match &error {
            StoreError::DiskFull => ("disk-full", Disposition::UserAction),
            StoreError::ReadOnly => ("state-read-only", Disposition::UserAction),
            StoreError::Missing(_) => ("not-found", Disposition::UserAction),
            StoreError::Closed => ("daemon-stopping", Disposition::Retry),
            StoreError::Busy | StoreError::Corrupt(_) | StoreError::Failed(_) => ("store-failed", Disposition::Bug),
        };
        Self::new(code, disposition, error.to_string(), error.hint())
    }
}

impl From<&CommissioningError> for ApiError {
    fn from(error: &CommissioningError) -> Self {
        Self {
            step: Some(error.step()),
            code: error.code().to_owned(),
            disposition: error.disposition(),
            message: error.to_string(),
            hint: error.hint(),
        }
    }
}

/// `nodes --json`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Nodes {
    /// All node records, by node id.
    #[schema(value_type = Vec<Object>)]
    pub nodes: Vec<NodeRecord>,
}

/// `node show --json`: the record, and the evidence it was accepted on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeDetail {
    /// The node record.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub node: NodeRecord,
    /// Attestation evidence: certificates, declaration, elements; `null` where none was kept.
    #[schema(value_type = Object)]
    pub attestation_evidence: Value,
}

/// `node check`: what a CASE session with the node showed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeCheck {
    /// The node.
    #[schema(value_type = u64)]
    pub node_id: NodeId,
    /// Whether it answered on our fabric.
    pub reachable: bool,
    /// The address that answered.
    pub address: Option<String>,
    /// From the first datagram to the answer.
    pub duration_ms: u64,
    /// Why it did not answer; empty if it did.
    pub message: String,
    /// What the device itself says, by the names of the node record; `null` if it did not answer.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub device: Value,
    /// Where its Basic Information or access list is not as recorded.
    pub differences: Vec<Difference>,
}

/// `node share`: a window is open, and this opens it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ShareResult {
    /// The node.
    #[schema(value_type = u64)]
    pub node_id: NodeId,
    /// 11 digits.
    pub manual_code: String,
    /// `MT:…`
    pub qr_payload: String,
    /// Discriminator of the window.
    pub discriminator: u16,
    /// When the window closes by itself.
    #[schema(value_type = String)]
    pub expires_at: Timestamp,
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

/// `outbox --json`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Outbox {
    /// What the cloud has not acknowledged, oldest first.
    pub entries: Vec<OutboxItem>,
}

/// One outbox row as people see it. The binding code in its task has no field here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutboxItem {
    /// Its id.
    pub id: i64,
    /// `bind`, `unbind`, `rename`, `move-room`, `update-matter-info`.
    pub kind: String,
    /// The node it is about.
    #[schema(value_type = u64)]
    pub node_id: NodeId,
    /// Where it stands.
    #[schema(value_type = String)]
    pub state: OutboxState,
    /// How often the cloud was asked.
    pub tries: u32,
    /// Body code of the last answer.
    pub last_code: Option<i64>,
    /// Message of the last answer, or why there was none.
    pub last_message: String,
    /// Not before; `null`: never by itself.
    #[schema(value_type = Option<String>)]
    pub next_try_at: Option<Timestamp>,
    /// What a person can do.
    pub hint: String,
}

impl From<&OutboxEntry> for OutboxItem {
    fn from(entry: &OutboxEntry) -> Self {
        Self {
            id: entry.id.0,
            kind: entry.task.kind().to_owned(),
            node_id: entry.node_id,
            state: entry.state,
            tries: entry.tries,
            last_code: entry.last_code,
            last_message: entry.last_message.clone(),
            next_try_at: entry.next_try_at,
            hint: entry.hint.clone(),
        }
    }
}

/// `status --json`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// Whether discovery and the Matter stack run.
    pub ready: bool,
    /// What is still starting, or has failed; empty if ready.
    pub waiting_for: Vec<String>,
    /// The daemon's version.
    pub version: String,
    /// When it started.
    #[schema(value_type = String)]
    pub started_at: Timestamp,
    /// Process id.
    pub pid: u32,
    /// Our fabric, as soon as it is loaded.
    pub fabric: Option<FabricInfo>,
    /// Nodes by state.
    pub nodes: NodeCounts,
    /// Attempts under way.
    pub attempts: u32,
    /// The outbox.
    pub outbox: OutboxCounts,
    /// The cloud.
    pub cloud: CloudStatus,
}

/// Nodes by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeCounts {
    /// All.
    pub total: u64,
    /// They answer.
    pub operational: u64,
    /// They do not.
    pub unreachable: u64,
    /// Not known to be complete.
    pub provisional: u64,
    /// Being removed.
    pub removing: u64,
}

/// The outbox's depth.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutboxCounts {
    /// All rows.
    pub total: u64,
    /// Rows that go by themselves.
    pub pending: u64,
    /// Rows that wait for a person.
    pub waiting_for_operator: u64,
    /// Rows that the cloud refused for ever.
    pub rejected: u64,
}

/// How the cloud stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CloudStatus {
    /// Whether there is a `[cloud]` section.
    pub configured: bool,
    /// Whether it answered when last asked; `null`: not asked yet.
    pub reachable: Option<bool>,
    /// Where it is.
    pub base_url: Option<String>,
    /// When it last answered.
    #[schema(value_type = Option<String>)]
    pub last_answer_at: Option<Timestamp>,
    /// Why it did not answer or let us in; empty if it did.
    pub message: String,
    /// When the access token ends.
    #[schema(value_type = Option<String>)]
    pub token_expires_at: Option<Timestamp>,
}

/// `fabric show --json`: what may be known of our fabric.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FabricInfo {
    /// Fabric id.
    pub fabric_id: u64,
    /// Compressed fabric id.
    pub compressed_fabric_id: u64,
    /// The hub's own node id.
    #[schema(value_type = u64)]
    pub node_id: NodeId,
    /// The label on devices.
    pub label: String,
    /// AdminVendorId.
    pub admin_vendor_id: u16,
    /// The tag in the hub's certificate.
    pub admin_cat: u32,
    /// The root's public key, 65 bytes in hex.
    pub root_public_key: String,
    /// Whether the root's private key is on this hub; it is only needed to sign another intermediate certificate.
    #[serde(default)]
    pub root_key_online: bool,
}

/// `sync --json`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SyncReport {
    /// Whether device, record and cloud agree for every node.
    pub in_sync: bool,
    /// Node by node.
    pub nodes: Vec<NodeSync>,
}

/// One node of a [`SyncReport`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeSync {
    /// The node.
    #[schema(value_type = u64)]
    pub node_id: NodeId,
    /// What came out.
    pub verdict: Verdict,
    /// Where the three disagree.
    pub differences: Vec<Difference>,
}

/// The verdict on one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// All agree.
    Match,
    /// The device is not as recorded.
    Drift,
    /// The device does not answer.
    DeviceUnreachable,
    /// The cloud does not have it.
    CloudMissing,
    /// The cloud shows something else.
    CloudDiffers,
    /// It has no identity in the cloud.
    NotEligible,
}

impl Verdict {
    /// The word in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Match => "match",
            Self::Drift => "drift",
            Self::DeviceUnreachable => "device-unreachable",
            Self::CloudMissing => "cloud-missing",
            Self::CloudDiffers => "cloud-differs",
            Self::NotEligible => "not-eligible",
        }
    }
}

/// One field, as each of the three holds it; `null` where one does not know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Difference {
    /// The field's name in the node record.
    pub field: String,
    /// On the device.
    #[schema(value_type = Object)]
    pub device: Value,
    /// In the record.
    #[schema(value_type = Object)]
    pub local: Value,
    /// In the cloud.
    #[schema(value_type = Object)]
    pub cloud: Value,
}

/// `discover --json`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Discovered {
    /// What was seen.
    pub nodes: Vec<DiscoveredNode>,
}

/// One node as its DNS-SD records describe it: commissionable, or operational on our fabric.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiscoveredNode {
    /// DNS-SD instance name.
    pub instance: String,
    /// Every TXT key that the node shows, decoded: `discriminator`, `vendor_id`, `device_name`, ….
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub txt: BTreeMap<String, Value>,
    /// Compressed fabric id, of an operational node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compressed_fabric_id: Option<u64>,
    /// Node id, of an operational node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub node_id: Option<NodeId>,
    /// Addresses, best first; link-local ones with their interface.
    pub addresses: Vec<String>,
    /// UDP port.
    pub port: u16,
    /// Interfaces it was seen on.
    pub interfaces: Vec<String>,
}

impl From<&CommissionableNode> for DiscoveredNode {
    fn from(node: &CommissionableNode) -> Self {
        let txt = match serde_json::to_value(&node.txt) {
            Ok(Value::Object(fields)) => fields.into_iter().collect(),
            _ => BTreeMap::new(),
        };
        Self {
            instance: node.instance.clone(),
            txt,
            addresses: node.addresses.iter().map(ToString::to_string).collect(),
            port: node.port,
            interfaces: interfaces(&node.addresses),
            ..Self::default()
        }
    }
}

impl From<&OperationalNode> for DiscoveredNode {
    fn from(node: &OperationalNode) -> Self {
        Self {
            instance: node.instance(),
            compressed_fabric_id: Some(node.compressed_fabric_id),
            node_id: Some(node.node_id),
            addresses: node.addresses.iter().map(ToString::to_string).collect(),
            port: node.port,
            interfaces: interfaces(&node.addresses),
            ..Self::default()
        }
    }
}

fn interfaces(addresses: &[crate::node::ScopedAddress]) -> Vec<String> {
    let mut names: Vec<String> =
        addresses.iter().filter_map(|a| a.scope.as_ref().map(|(name, _)| name.clone())).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// One line of `discover --watch --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiscoverChange {
    /// What happened.
    pub event: DiscoverChangeKind,
    /// To which node.
    #[serde(flatten)]
    pub node: DiscoveredNode,
}

/// What happened to a node that is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DiscoverChangeKind {
    /// It was not there before.
    Appeared,
    /// It was there, and something about it is new.
    Changed,
    /// It is gone.
    Disappeared,
}
