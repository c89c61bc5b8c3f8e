//! What is asked of recorded nodes: who they are, whether they answer, how they are called. Every call has a deadline. Not here:
//! finding and opening one (`reach`), sharing it with others (`sharing`), taking it away (`removal`).

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::str::FromStr;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::Hub;
use super::reach::device_error;
use super::refusal::Refusal;
use super::strangers::ForeignNode;
use super::sync::DifferingField;
use super::world::World;
use crate::bind::BindState;
use crate::commissioning::error::Disposition;
use crate::commissioning::ports::{LinkError, OperationalSession};
use crate::fabric::granted_cats;
use crate::failpoint;
use crate::journal::{Event, EventSink, Level};
use crate::node::{NodeId, NodeRecord, NodeState};

/// Looks nodes up, and asks one of them.
pub trait InventoryDoor: Send + Sync + 'static {
    /// Node records in the order of their ids: all, or a page of them.
    fn nodes(&self, query: &NodesQuery) -> impl Future<Output = Result<Nodes, Refusal>> + Send;
    /// The id that a name stands for; ids are passed through, known or not.
    fn resolve(&self, node: &NodeRef) -> impl Future<Output = Result<NodeId, Refusal>> + Send;
    /// One record with its evidence.
    fn node(&self, node: NodeId) -> impl Future<Output = Result<NodeDetail, Refusal>> + Send;
    /// Talks to the node now. Not answering is a result, not an error.
    fn check(&self, node: NodeId) -> impl Future<Output = Result<NodeCheck, Refusal>> + Send;
    /// Lets the node identify itself for `seconds`.
    fn identify(&self, node: NodeId, seconds: u16) -> impl Future<Output = Result<(), Refusal>> + Send;
    /// Renames in the record and queues the cloud's.
    fn rename(&self, node: NodeId, name: String) -> impl Future<Output = Result<NodeRecord, Refusal>> + Send;
    /// Moves to another room in the record and queues the cloud's.
    fn move_to(&self, node: NodeId, room_id: String) -> impl Future<Output = Result<NodeRecord, Refusal>> + Send;
}

/// A node as people name it: by id (decimal or 0x hex), else by its unique name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NodeRef {
    /// Which no other node of the fabric has.
    Id(NodeId),
    /// As a person gave it; several nodes may bear it.
    Name(String),
}

/// Never: every text is an id or a name.
pub(crate) type NodeRefError = Infallible;

impl FromStr for NodeRef {
    type Err = NodeRefError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(text.parse().map_or_else(|_| Self::Name(text.to_owned()), Self::Id))
    }
}

impl fmt::Display for NodeRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{id}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl Serialize for NodeRef {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NodeRef {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(text.parse().unwrap_or_else(|never: Infallible| match never {}))
    }
}

/// `GET /v1/nodes`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
pub struct NodesQuery {
    /// Only nodes with a greater id than this: the last one of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// At most so many, 1 to 200; all if left out. A page with fewer is the last, and has the nodes without a record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// `nodes --json`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Nodes {
    /// All node records, by node id.
    pub nodes: Vec<NodeRecord>,
    /// Nodes of our fabric of which there is no record.
    #[serde(default)]
    pub foreign: Vec<ForeignNode>,
}

/// `node show --json`: the record, and the evidence it was accepted on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeDetail {
    /// The node record, its fields beside the others.
    #[serde(flatten)]
    pub node: NodeRecord,
    /// Attestation evidence: certificates, declaration, elements; `null` where none was kept.
    pub attestation_evidence: Value,
}

/// `node check`: what a CASE session with the node showed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeCheck {
    /// The node that was asked.
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
    pub device: Value,
    /// Where its Basic Information or access list is not as recorded.
    pub differences: Vec<DifferingField>,
}

impl<W: World> InventoryDoor for Hub<W> {
    async fn nodes(&self, query: &NodesQuery) -> Result<Nodes, Refusal> {
        let mut nodes = self.store.nodes_after(query.after.map(NodeId), query.limit).await?;
        nodes.iter_mut().for_each(|node| self.freshen(node));
        let is_last = query.limit.is_none_or(|limit| nodes.len() < limit as usize);
        let foreign = if is_last { self.foreign_nodes().await? } else { Vec::new() };
        Ok(Nodes { nodes, foreign })
    }

    async fn resolve(&self, node: &NodeRef) -> Result<NodeId, Refusal> {
        match node {
            NodeRef::Id(id) => Ok(*id),
            NodeRef::Name(name) => {
                let found: Vec<NodeId> = self.store.nodes_by_name(name).await?.iter().map(|n| n.node_id).collect();
                match found.as_slice() {
                    [] => Err(Refusal::unknown_node(node)),
                    [one] => Ok(*one),
                    several => Err(Refusal::ambiguous_node(name, several)),
                }
            }
        }
    }

    async fn node(&self, node: NodeId) -> Result<NodeDetail, Refusal> {
        let mut record = self.record(node).await?;
        self.freshen(&mut record);
        let evidence = self.store.evidence(node).await?;
        let attestation_evidence = evidence.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        Ok(NodeDetail { node: record, attestation_evidence })
    }

    async fn check(&self, node: NodeId) -> Result<NodeCheck, Refusal> {
        // Who asks together gets one answer, a refusal too.
        let Ok(answer) = self.checks.get(node, async { Ok::<_, Infallible>(self.check_alone(node).await) }).await;
        answer
    }

    async fn identify(&self, node: NodeId, seconds: u16) -> Result<(), Refusal> {
        let record = self.record(node).await?;
        let identify = async { self.meet(&record).await?.identify(Duration::from_secs(u64::from(seconds))).await };
        self.within(&record, identify).await.map_err(|error| device_error(&error))
    }

    async fn rename(&self, node: NodeId, name: String) -> Result<NodeRecord, Refusal> {
        self.record(node).await?;
        self.store.rename_node(node, &name, Timestamp::now()).await?;
        failpoint::reach("rename.saved");
        let message = format!("node {node} is called {name:?} now");
        self.journal.record(Event::new(Timestamp::now(), Level::Info, "node-renamed", message).with_node(node));
        self.record(node).await
    }

    async fn move_to(&self, node: NodeId, room_id: String) -> Result<NodeRecord, Refusal> {
        let record = self.record(node).await?;
        if record.family_id.is_none() && matches!(record.bind.state, BindState::Bound | BindState::Pending) {
            let message = format!("the cloud moves devices within a family, and the record of node {node} names none");
            let hint = "set `cloud.family_id` in the configuration and bind the node anew";
            return Err(Refusal::new("no-family", Disposition::UserAction, message, hint));
        }
        self.store.move_node(node, &room_id, Timestamp::now()).await?;
        let message = format!("node {node} is in room {room_id:?} now");
        self.journal.record(Event::new(Timestamp::now(), Level::Info, "node-moved", message).with_node(node));
        self.record(node).await
    }
}

impl<W: World> Hub<W> {
    /// The store is told rarely when a node was last heard of.
    fn freshen(&self, record: &mut NodeRecord) {
        record.last_seen_at = record.last_seen_at.max(self.probes.last_contact(record.node_id));
        if record.bind.state == BindState::Bound {
            record.bind.confirmed_at = record.bind.confirmed_at.max(self.syncing.confirmed_at(record.node_id));
        }
    }

    pub(super) async fn record(&self, node: NodeId) -> Result<NodeRecord, Refusal> {
        self.store.node(node).await?.ok_or_else(|| Refusal::unknown_node(&NodeRef::Id(node)))
    }

    async fn check_alone(&self, node: NodeId) -> Result<NodeCheck, Refusal> {
        let record = self.record(node).await?;
        let began = Instant::now();
        let answer = self.within(&record, self.ask_device(&record)).await;
        let mut check = NodeCheck {
            node_id: node,
            reachable: answer.is_ok(),
            address: None,
            duration_ms: began.elapsed().as_millis() as u64,
            message: String::new(),
            device: serde_json::Value::Null,
            differences: Vec::new(),
        };
        match answer {
            Ok((address, device)) => {
                check.address = Some(address);
                // Who looks wants to know what the device says, also where that cannot be written down.
                if let Err(error) =
                    self.store.touch_node(node, Some(Timestamp::now()), None, NodeState::Operational).await
                {
                    tracing::warn!(node.id = node.0, %error, "that the node answered is not recorded");
                }
                check.differences = differing(&device, &record);
                check.device = device;
            }
            Err(error @ LinkError::Asleep { .. }) => {
                check.message = format!("{error}. {}", device_error(&error).hint);
            }
            Err(error) => check.message = error.to_string(),
        }
        Ok(check)
    }

    /// What the device says about itself, by the names of the node record.
    async fn ask_device(&self, record: &NodeRecord) -> Result<(String, serde_json::Value), LinkError> {
        let session = self.meet(record).await?;
        let basic = session.describe().await?.basic;
        let acl = session.read_acl().await?;
        let index = session.current_fabric_index().await?;
        let fabrics = session.fabrics().await?;
        self.note_fabrics(record.node_id, &fabrics).await;
        let fabric = fabrics.iter().find(|fabric| fabric.index == index);
        let address = self.reach.address(record, session.peer());
        let device = serde_json::json!({
            "fabric_id": fabric.map(|fabric| fabric.fabric_id),
            "node_id": fabric.map(|fabric| fabric.node_id),
            "fabric_index": index,
            "vendor_id": basic.vendor_id,
            "product_id": basic.product_id,
            "serial_number": basic.serial_number,
            "matter_version": basic.matter_version(),
            "cats": granted_cats(&acl),
        });
        Ok((address, device))
    }
}

fn differing(device: &serde_json::Value, record: &NodeRecord) -> Vec<DifferingField> {
    let local = serde_json::to_value(record).unwrap_or_default();
    let fields = device.as_object().into_iter().flatten();
    fields
        .filter(|(field, value)| local[field.as_str()] != **value)
        .map(|(field, value)| DifferingField {
            field: field.clone(),
            device: value.clone(),
            local: local[field.as_str()].clone(),
            cloud: serde_json::Value::Null,
        })
        .collect()
}
