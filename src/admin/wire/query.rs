//! What is asked: which node, which log entries, which kind of discovery.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::journal::{Event, Level};
use crate::node::NodeId;

/// A node as people name it: by id (decimal or 0x hex), else by its unique name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NodeRef {
    /// By id.
    Id(NodeId),
    /// By name.
    Name(String),
}

/// Never: every text is an id or a name.
pub type NodeRefError = Infallible;

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

/// `GET /v1/discover`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
pub struct DiscoverQuery {
    /// How long to listen, milliseconds; at most 60000.
    pub timeout_ms: u64,
    /// Nodes of our fabric instead of commissionable ones.
    pub operational: bool,
    /// Go on, one change a line.
    pub watch: bool,
}

impl Default for DiscoverQuery {
    fn default() -> Self {
        Self { timeout_ms: 3000, operational: false, watch: false }
    }
}

/// `GET /v1/logs` and `GET /v1/events`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
pub struct LogQuery {
    /// Not before.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub since: Option<Timestamp>,
    /// Only entries after this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<i64>,
    /// Only about this node.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub node: Option<NodeRef>,
    /// Only of this attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub attempt: Option<Uuid>,
    /// This level and above.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub level: Option<Level>,
    /// The newest so many; all if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Go on with what happens from now on.
    pub follow: bool,
}

impl LogQuery {
    /// Whether an entry is asked for. Names must have been resolved: a [`NodeRef::Name`] fits nothing.
    pub fn wants(&self, event: &Event) -> bool {
        let node_fits = match &self.node {
            None => true,
            Some(NodeRef::Id(id)) => event.node_id == Some(*id),
            Some(NodeRef::Name(_)) => false,
        };
        node_fits
            && self.since.is_none_or(|since| event.at >= since)
            && self.after.is_none_or(|after| event.id > after)
            && self.attempt.is_none_or(|attempt| event.attempt_id == Some(attempt))
            && self.level.is_none_or(|level| event.level >= level)
    }
}

/// `POST /v1/nodes/{node}/{action}`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum NodeAction {
    /// Talk to it now.
    Check,
    /// Let it blink or beep.
    Identify {
        /// For how long, seconds.
        seconds: u16,
    },
    /// Give it another name, in the record and in the cloud.
    Rename {
        /// 1 to 64 characters.
        name: String,
    },
    /// Open an enhanced commissioning window.
    Share {
        /// For how long, 180 to 900 seconds.
        seconds: u16,
    },
    /// Decommission, unbind, delete, in that order.
    Remove {
        /// Also where the device cannot be reached.
        force: bool,
    },
}
