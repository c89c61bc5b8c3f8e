//! Access control, backup and root key: what is asked and what is answered.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::query::NodeRef;
use crate::fabric::CatGrant;
use crate::node::NodeId;
use crate::secret::OperatorSecret;

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

/// `POST /v1/access`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum AccessAction {
    /// Sets the grants of one node, or of all, and writes them.
    Set {
        /// Which node; left out: all.
        #[serde(default)]
        #[schema(value_type = Option<String>)]
        node: Option<NodeRef>,
        /// The grants; left out: back to those for all, or to the configuration's.
        #[serde(default)]
        #[schema(value_type = Option<Vec<Object>>)]
        grants: Option<Vec<CatGrant>>,
    },
    /// Writes what is in force to one node, or to all.
    Apply {
        /// Which node; left out: all.
        #[serde(default)]
        #[schema(value_type = Option<String>)]
        node: Option<NodeRef>,
    },
    /// Raises the version of a tag and writes it to every node.
    Rotate {
        /// The tag's identifier, its upper 16 bits.
        identifier: u16,
    },
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

/// To whom a file is encrypted: `POST /v1/fabric/backup` and `/v1/fabric/export-root`. One of the two.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Encryption {
    /// A passphrase; a secret.
    #[schema(value_type = Option<String>)]
    pub passphrase: Option<OperatorSecret>,
    /// An age recipient, `age1…`.
    pub recipient: Option<String>,
}

/// `POST /v1/fabric/remove-root`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RemoveRoot {
    /// SHA-256 of the exported file, hex: shows that it arrived.
    pub sha256: String,
}

/// `POST /v1/fabric/import-root`. The file, and one of the other two.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportRoot {
    /// What `export-root` answered, base64; encrypted.
    pub file: String,
    /// Its passphrase; a secret.
    #[schema(value_type = Option<String>)]
    pub passphrase: Option<OperatorSecret>,
    /// The age identity behind its recipient; a secret.
    #[schema(value_type = Option<String>)]
    pub identity: Option<OperatorSecret>,
}
