//! The admin log: what happened, when, to which node and attempt. Durable, limited by size and age.
//!
//! This file has the event; the store keeps it, `telemetry` prints it, the admin API streams it. No secret has a field here, and
//! nothing that would mislead a reader: whoever names a device, neighbour or cloud in an event need not think of it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::node::NodeId;
use crate::plain;

pub(crate) use self::message_id::message_id;

mod message_id;

/// How much an operator should care.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// What a developer wants to know.
    Debug,
    /// Something happened as it should.
    Info,
    /// Something should be looked at.
    Warn,
    /// Something failed that somebody has to see to.
    Error,
}

/// One entry of the admin log, as `logs --json` and `/v1/events` print it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Ascending; assigned by the store, 0 before that.
    pub id: i64,
    /// When it happened, by the hub's clock.
    pub at: Timestamp,
    /// How much it matters.
    pub level: Level,
    /// A stable kebab-case word, for instance `node-commissioned`.
    pub kind: String,
    /// A line that reads alone.
    pub message: String,
    /// The node it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_id: Option<NodeId>,
    /// The attempt it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt_id: Option<Uuid>,
    /// The outbox row it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outbox_id: Option<i64>,
    /// Further values: step, code, duration_ms, …
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub fields: serde_json::Map<String, serde_json::Value>,
}

impl Event {
    /// An event about nothing in particular; the `with_*` methods say what it is about.
    pub fn new(at: Timestamp, level: Level, kind: &str, message: impl Into<String>) -> Self {
        Self {
            id: 0,
            at,
            level,
            kind: kind.to_owned(),
            message: plain::shown(&message.into()).into_owned(),
            node_id: None,
            attempt_id: None,
            outbox_id: None,
            fields: serde_json::Map::new(),
        }
    }

    /// Says which node it is about, so that `--node` finds it.
    pub fn with_node(mut self, node: NodeId) -> Self {
        self.node_id = Some(node);
        self
    }

    /// Part of an attempt.
    pub fn with_attempt(mut self, attempt: Uuid) -> Self {
        self.attempt_id = Some(attempt);
        self
    }

    /// Part of an outbox row's life.
    pub fn with_outbox(mut self, id: i64) -> Self {
        self.outbox_id = Some(id);
        self
    }

    /// With a further value.
    pub fn with(mut self, key: &str, value: impl Into<serde_json::Value>) -> Self {
        let mut value = value.into();
        plain::shown_document(&mut value);
        self.fields.insert(key.to_owned(), value);
        self
    }
}

/// Takes events; made so that writing the log never holds up or fails what it reports.
pub trait EventSink: Send + Sync + 'static {
    /// Takes an event; whatever becomes of it, nobody waits for it.
    fn record(&self, event: Event);
}
