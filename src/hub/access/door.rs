//! What may be asked about access, and what is answered.

use std::future::Future;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::fabric::CatGrant;
use crate::hub::controllers::TagHolders;
use crate::hub::refusal::Refusal;
use crate::node::NodeId;

/// Shows and changes who may do what on the nodes.
pub trait AccessDoor: Send + Sync + 'static {
    /// Who may do what, in force and on the nodes.
    fn access(&self) -> impl Future<Output = Result<AccessView, Refusal>> + Send;
    /// Sets the grants of one node or of all, and writes them; `None` for the grants: as configured.
    fn set_access(
        &self,
        node: Option<NodeId>,
        grants: Option<Vec<CatGrant>>,
    ) -> impl Future<Output = Result<AccessReport, Refusal>> + Send;
    /// Writes what is in force to one node or to all; what cannot be written now is written when the node is seen.
    fn apply_access(&self, node: Option<NodeId>) -> impl Future<Output = Result<AccessReport, Refusal>> + Send;
    /// Raises the version of the tag with this identifier, and writes it to all.
    fn rotate_cat(&self, identifier: u16) -> impl Future<Output = Result<AccessReport, Refusal>> + Send;
}

/// `access show --json`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AccessView {
    /// The hub's own tag, in the version in force.
    pub admin_cat: u32,
    /// The tags in the hub's certificate.
    pub hub_cats: Vec<u32>,
    /// What others may do on every node without grants of its own.
    pub grants: Vec<CatGrant>,
    /// Tag by tag: who holds it, in which version, until when.
    #[serde(default)]
    pub tags: Vec<TagHolders>,
    /// How it stands on each node.
    pub nodes: Vec<NodeAccess>,
}

/// One node of an [`AccessView`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeAccess {
    /// The node whose access list this is.
    pub node_id: NodeId,
    /// The name in its record.
    pub name: String,
    /// `as-wanted`, `pending` (it is told when it is seen) or `differs` (`access apply` changes it).
    pub state: String,
    /// What it held when it was last read.
    pub cats: Vec<CatGrant>,
    /// What it shall hold.
    pub wanted: Vec<CatGrant>,
}

/// What became of a change of access.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AccessReport {
    /// Whether every node that it is about holds what it shall. Nodes that are away are told when they return.
    pub complete: bool,
    /// The new version of the tag, of a rotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotated: Option<u32>,
    /// How it stands on each node.
    pub nodes: Vec<AccessOutcome>,
}

/// One node of an [`AccessReport`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AccessOutcome {
    /// The node whose access list this is.
    pub node_id: NodeId,
    /// `written`, `unchanged`, `pending` (it is told when it is seen) or `failed` (it cannot hold this list).
    pub outcome: String,
    /// What it holds, read back; what it held when last read where it did not answer.
    pub cats: Vec<CatGrant>,
    /// Whether the cloud is going to be told.
    pub cloud_queued: bool,
    /// A stable word where it was not done; else empty.
    pub code: String,
    /// Why it was not done; else empty.
    pub message: String,
}
