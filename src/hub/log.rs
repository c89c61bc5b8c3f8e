//! Reads the admin log for those who ask. Not here: the log (`journal`, `store::journal`).

use std::future::Future;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use utoipa::IntoParams;
use uuid::Uuid;

use super::Hub;
use super::inventory::{InventoryDoor, NodeRef};
use super::refusal::Refusal;
use super::world::World;
use crate::journal::{Event, EventSink, Level};
use crate::store::JournalFilter;

/// So much text of the log is in memory at once, for each reader: there may be hundreds, and an entry may be long.
const PART: u32 = 64 << 10;

/// Shows the admin log.
pub trait LogDoor: Send + Sync + 'static {
    /// Entries of the admin log, oldest first; with a `limit`, the newest of them. `query.node` is an id here.
    fn logs(&self, query: &LogQuery) -> impl Future<Output = Result<Vec<Event>, Refusal>> + Send;
    /// The entries after `query.after` that fit into one part, at least one where there is any; `query.limit` does not count.
    fn log_part(&self, query: &LogQuery) -> impl Future<Output = Result<Vec<Event>, Refusal>> + Send;
    /// Every entry from now on, after it is durable.
    fn subscribe(&self) -> broadcast::Receiver<Event>;
    /// Notes that so many wrong tokens were shown since this was noted last, the latest by `peer`.
    fn note_wrong_tokens(&self, peer: &str, times: u64);
    /// The same of codes by which nobody enrols.
    fn note_wrong_codes(&self, peer: &str, times: u64);
    /// Notes who came in or went out by the page.
    fn note_access(&self, kind: &str, message: &str, peer: &str);
}

/// `GET /v1/logs` and `GET /v1/events`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
pub struct LogQuery {
    /// Entries from this time on.
    #[serde(skip_serializing_if = "Option::is_none")]
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
    pub attempt: Option<Uuid>,
    /// This level and above.
    #[serde(skip_serializing_if = "Option::is_none")]
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

impl<W: World> Hub<W> {
    /// The query with its node known by id.
    async fn filter(&self, query: &LogQuery) -> Result<JournalFilter, Refusal> {
        let node = match &query.node {
            None => None,
            Some(NodeRef::Id(id)) => Some(*id),
            Some(name @ NodeRef::Name(_)) => Some(self.resolve(name).await?),
        };
        Ok(JournalFilter {
            since: query.since,
            node,
            attempt: query.attempt,
            level: query.level,
            after_id: query.after,
            limit: query.limit,
            max_bytes: None,
        })
    }
}

impl<W: World> LogDoor for Hub<W> {
    async fn logs(&self, query: &LogQuery) -> Result<Vec<Event>, Refusal> {
        Ok(self.journal.query(self.filter(query).await?).await?)
    }

    async fn log_part(&self, query: &LogQuery) -> Result<Vec<Event>, Refusal> {
        let after_id = query.after.or(Some(0));
        let filter = JournalFilter { after_id, limit: None, max_bytes: Some(PART), ..self.filter(query).await? };
        Ok(self.journal.query(filter).await?)
    }

    fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.journal.subscribe()
    }

    fn note_wrong_tokens(&self, peer: &str, times: u64) {
        let what = if times == 1 { "a wrong token was".to_owned() } else { format!("{times} wrong tokens were") };
        let message = format!("{what} shown to the admin API, the last as {peer}");
        let event = Event::new(Timestamp::now(), Level::Warn, "wrong-token", message);
        self.journal.record(event.with("peer", peer).with("times", times));
    }

    fn note_wrong_codes(&self, peer: &str, times: u64) {
        let what = if times == 1 {
            "a code that cannot be used was".to_owned()
        } else {
            format!("{times} codes that cannot be used were")
        };
        let message = format!("{what} shown to enrol, the last from {peer}");
        let event = Event::new(Timestamp::now(), Level::Warn, "enrolment-refused", message);
        self.journal.record(event.with("peer", peer).with("times", times));
    }

    fn note_access(&self, kind: &str, message: &str, peer: &str) {
        self.journal.record(Event::new(Timestamp::now(), Level::Info, kind, message).with("peer", peer));
    }
}
