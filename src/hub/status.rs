//! How everything stands.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::keys::FabricInfo;

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
