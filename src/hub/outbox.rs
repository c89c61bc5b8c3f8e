//! What the cloud has not acknowledged, as people see it. Not here: who sends it (`outbox`).

use std::future::Future;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Hub;
use super::refusal::Refusal;
use super::world::{CloudService, World};
use crate::journal::{Event, EventSink, Level};
use crate::node::NodeId;
use crate::outbox::ports::{OutboxEntry, OutboxId, OutboxState};

/// Shows what waits for the cloud, and lets a person decide about it.
pub trait OutboxDoor: Send + Sync + 'static {
    /// What the cloud has not acknowledged.
    fn outbox(&self) -> impl Future<Output = Result<Outbox, Refusal>> + Send;
    /// Makes a row due now.
    fn outbox_retry(&self, id: i64) -> impl Future<Output = Result<Outbox, Refusal>> + Send;
    /// Gives a row up; the node stays, its bind is `rejected` or `disabled`.
    fn outbox_drop(&self, id: i64) -> impl Future<Output = Result<Outbox, Refusal>> + Send;
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
    /// By which the row is retried or dropped.
    pub id: i64,
    /// `bind`, `unbind`, `rename`, `move-room`, `update-matter-info`.
    pub kind: String,
    /// The node it is about.
    pub node_id: NodeId,
    /// Its name; empty where it has no record any more.
    #[serde(default)]
    pub name: String,
    /// Whether it waits, is being sent, or has failed for good.
    pub state: OutboxState,
    /// How often the cloud was asked.
    pub tries: u32,
    /// Body code of the last answer.
    pub last_code: Option<i64>,
    /// Message of the last answer, or why there was none.
    pub last_message: String,
    /// Not before; `null`: never by itself.
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
            name: String::new(),
            state: entry.state,
            tries: entry.tries,
            last_code: entry.last_code,
            last_message: entry.last_message.clone(),
            next_try_at: entry.next_try_at,
            hint: entry.hint.clone(),
        }
    }
}

impl<W: World> OutboxDoor for Hub<W> {
    async fn outbox(&self) -> Result<Outbox, Refusal> {
        let mut entries: Vec<OutboxItem> = self.store.outbox_entries().await?.iter().map(Into::into).collect();
        for item in &mut entries {
            item.name = self.store.node(item.node_id).await?.map(|record| record.name).unwrap_or_default();
        }
        Ok(Outbox { entries })
    }

    async fn outbox_retry(&self, id: i64) -> Result<Outbox, Refusal> {
        if self.store.outbox_entry(OutboxId(id)).await?.is_none() {
            return Err(Refusal::unknown_outbox_entry(id));
        }
        // A person asks: what blocked the sign-in may have been mended.
        if let Some(client) = &self.cloud {
            client.forget_refusals().await;
        }
        self.store.retry_outbox(OutboxId(id), Timestamp::now()).await?;
        self.outbox().await
    }

    async fn outbox_drop(&self, id: i64) -> Result<Outbox, Refusal> {
        let Some(entry) = self.store.outbox_entry(OutboxId(id)).await? else {
            return Err(Refusal::unknown_outbox_entry(id));
        };
        self.store.drop_outbox(OutboxId(id)).await?;
        let message = format!("outbox row {id} ({}) was given up by an operator", entry.task.kind());
        let event = Event::new(Timestamp::now(), Level::Warn, "outbox-dropped", message);
        self.journal.record(event.with_node(entry.node_id).with_outbox(id));
        self.finish_unbound(entry.node_id).await;
        self.outbox().await
    }
}
