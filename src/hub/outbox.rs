//! What the cloud has not acknowledged, as people see it. Not here: who sends it (`outbox`).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::node::NodeId;
use crate::outbox::ports::{OutboxEntry, OutboxState};

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
