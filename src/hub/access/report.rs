//! Who may do what, and what became of a change.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::fabric::CatGrant;
use crate::node::NodeId;

/// `access show --json`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AccessView {
    /// The hub's own tag, in the version in force.
    pub admin_cat: u32,
    /// The tags in the hub's certificate.
    pub hub_cats: Vec<u32>,
    /// What others may do on every node without grants of its own.
    #[schema(value_type = Vec<Object>)]
    pub grants: Vec<CatGrant>,
    /// Node by node.
    pub nodes: Vec<NodeAccess>,
}

/// One node of an [`AccessView`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeAccess {
    /// The node.
    #[schema(value_type = u64)]
    pub node_id: NodeId,
    /// Its name.
    pub name: String,
    /// `as-wanted`, `pending` (it is told when it is seen) or `differs` (`access apply` changes it).
    pub state: String,
    /// What it held when it was last read.
    #[schema(value_type = Vec<Object>)]
    pub cats: Vec<CatGrant>,
    /// What it shall hold.
    #[schema(value_type = Vec<Object>)]
    pub wanted: Vec<CatGrant>,
}

/// What became of an [`AccessAction`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AccessReport {
    /// Whether every node that it is about holds what it shall. Nodes that are away are told when they return.
    pub complete: bool,
    /// The new version of the tag, of a rotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotated: Option<u32>,
    /// Node by node.
    pub nodes: Vec<AccessOutcome>,
}

/// One node of an [`AccessReport`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AccessOutcome {
    /// The node.
    #[schema(value_type = u64)]
    pub node_id: NodeId,
    /// `written`, `unchanged`, `pending` (it is told when it is seen) or `failed` (it cannot hold this list).
    pub outcome: String,
    /// What it holds, read back; what it held when last read where it did not answer.
    #[schema(value_type = Vec<Object>)]
    pub cats: Vec<CatGrant>,
    /// Whether the cloud is going to be told.
    pub cloud_queued: bool,
    /// A stable word where it was not done; else empty.
    pub code: String,
    /// Why it was not done; else empty.
    pub message: String,
}
