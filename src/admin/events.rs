//! The answers that go on: an attempt's progress, discovery, the admin log. One JSON object a line, or Server-Sent Events.
//!
//! Every stream ends when the daemon stops. A quiet one carries an empty line now and then, so that both ends notice when
//! the other is gone.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Json, Response};
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt};
use serde::Serialize;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::oneshot;

use super::auth::Peer;
use super::openapi::{NDJSON, TEXT};
use super::routes::{Api, Asked, Body, Refused, check_name};
use super::wire::{CommissionLine, CommissionRequest, DiscoverQuery, LogQuery, NodeRef, Refusal, SyncLine, SyncQuery};
use crate::hub::doors::{CommissionDoor, DiscoverDoor, InventoryDoor, LogDoor, ProgressSink, SyncDoor, SyncProgress};
use crate::journal::Event;

/// How long a stream may be quiet.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(10);
/// Nobody waits longer for a list of what is on the LAN.
const MAX_DISCOVER_MS: u64 = 60_000;
/// Nobody waits longer for the cloud.
const MAX_WAIT_BIND_MS: u64 = 600_000;

/// Lines with a heartbeat between them.
fn ndjson<T: Serialize + Send + 'static>(items: impl Stream<Item = T> + Send + 'static) -> Response {
    let lines = items.map(|item| {
        let mut line = serde_json::to_vec(&item).unwrap_or_default();
        line.push(b'\n');
        line
    });
    let quiet = stream::unfold(Box::pin(lines) as BoxStream<'static, Vec<u8>>, async |mut lines| {
        match tokio::time::timeout(HEARTBEAT, lines.next()).await {
            Ok(Some(line)) => Some((line, lines)),
            Ok(None) => None,
            Err(_) => Some((b"\n".to_vec(), lines)),
        }
    });
    let body = axum::body::Body::from_stream(quiet.map(Ok::<_, Infallible>));
    ([(header::CONTENT_TYPE, NDJSON)], body).into_response()
}

/// A further middleware, for routes that answer lines: they are called text where a client asks for text and not for lines.
pub(super) async fn as_text(request: Request, next: Next) -> Response {
    let accepts = request.headers().get(header::ACCEPT).and_then(|accepts| accepts.to_str().ok()).unwrap_or_default();
    let text = accepts.contains(TEXT) && !accepts.contains(NDJSON);
    let mut answer = next.run(request).await;
    if text && answer.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == NDJSON) {
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(TEXT));
    }
    answer
}

/// `POST /v1/commission`: the attempt is a task of its own and goes on when the client leaves.
pub(super) async fn commission<H: CommissionDoor>(
    State(api): State<Api<H>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Body(mut request): Body<CommissionRequest>,
) -> Result<Response, Refused> {
    if request.wait_bind_ms > MAX_WAIT_BIND_MS {
        return Err(Refusal::bad_request(format!("wait_bind_ms is at most {MAX_WAIT_BIND_MS}")).into());
    }
    // An empty one stands for none.
    if let Some(name) = request.name.as_deref().filter(|name| !name.is_empty()) {
        check_name(name)?;
    }
    if let Some(given) = &mut request.attestation_override {
        if given.why.trim().is_empty() {
            return Err(Refusal::bad_request("an override of attestation needs a reason").into());
        }
        given.who = peer.describe();
    }
    let (progress, mut events) = ProgressSink::channel();
    let (result_sender, result) = oneshot::channel();
    let hub = api.hub.clone();
    api.tasks.spawn(async move {
        // The client may have left.
        let _ = result_sender.send(hub.commission(request, progress).await);
    });
    // Every attempt begins with an event; a request that is refused before that has a status of its own.
    let Some(first) = events.recv().await else {
        return match result.await {
            Ok(Err(refusal)) => Err(refusal.into()),
            Ok(Ok(_)) | Err(_) => Err(Refusal::not_ready("the attempt's task").into()),
        };
    };
    // The attempt drops its progress when it ends, which ends the first part.
    let events = stream::unfold(events, async |mut events| events.recv().await.map(|event| (event, events)));
    let last = stream::once(async {
        match result.await {
            Ok(Ok(result)) => Line::Commission(CommissionLine::Result(result)),
            Ok(Err(error)) => Line::Error(error),
            Err(_) => Line::Error(Refusal::not_ready("the attempt's task")),
        }
    });
    let events = stream::iter([first]).chain(events);
    Ok(ndjson(events.map(|event| Line::Commission(CommissionLine::Event(event))).chain(last)))
}

/// `POST /v1/sync`: at once, or line by line.
pub(super) async fn sync<H: SyncDoor>(
    State(api): State<Api<H>>,
    Asked(query): Asked<SyncQuery>,
) -> Result<Response, Refused> {
    if !query.progress {
        return Ok(Json(api.hub.sync(None, query.intent(), SyncProgress::default()).await?).into_response());
    }
    let (progress, steps) = SyncProgress::channel();
    let (sender, result) = oneshot::channel();
    let hub = api.hub.clone();
    api.tasks.spawn(async move {
        // The client may have left.
        let _ = sender.send(hub.sync(None, query.intent(), progress).await);
    });
    let steps = stream::unfold(steps, async |mut steps| steps.recv().await.map(|step| (step, steps)));
    let last = stream::once(async {
        match result.await {
            Ok(Ok(report)) => SyncLine::Report(report),
            Ok(Err(error)) => SyncLine::Refused(error),
            Err(_) => SyncLine::Refused(Refusal::not_ready("the comparison's task")),
        }
    });
    Ok(ndjson(steps.map(SyncLine::Step).chain(last)))
}

#[derive(Serialize)]
#[serde(untagged)]
enum Line {
    Commission(CommissionLine),
    Error(Refusal),
}

/// `GET /v1/discover`
pub(super) async fn discover<H: DiscoverDoor>(
    State(api): State<Api<H>>,
    Asked(query): Asked<DiscoverQuery>,
) -> Result<Response, Refused> {
    if query.timeout_ms > MAX_DISCOVER_MS {
        return Err(Refusal::bad_request(format!("timeout_ms is at most {MAX_DISCOVER_MS}")).into());
    }
    if query.ble && (query.lan || query.operational) {
        return Err(Refusal::bad_request("ble goes with neither lan nor operational").into());
    }
    if !query.watch {
        return Ok(Json(api.hub.discover(&query).await?).into_response());
    }
    let changes = api.hub.watch(&query).await?;
    let changes = stream::unfold(changes, async |mut changes| changes.recv().await.map(|change| (change, changes)));
    Ok(ndjson(changes.take_until(api.stop.cancelled_owned())))
}

/// Turns a name into an id, so that live entries can be compared with it.
async fn resolved<H: InventoryDoor>(hub: &H, mut query: LogQuery) -> Result<LogQuery, Refused> {
    if let Some(node @ NodeRef::Name(_)) = &query.node {
        query.node = Some(NodeRef::Id(hub.resolve(node).await?));
    }
    Ok(query)
}

/// `GET /v1/logs`: NDJSON.
pub(super) async fn logs<H: InventoryDoor + LogDoor>(
    State(api): State<Api<H>>,
    Asked(query): Asked<LogQuery>,
) -> Result<Response, Refused> {
    let query = resolved(&*api.hub, query).await?;
    if query.follow {
        let entries = follow(Arc::clone(&api.hub), query).await?;
        return Ok(ndjson(entries.take_until(api.stop.cancelled_owned())));
    }
    let kept = Kept::read(&*api.hub, query).await?;
    let entries = stream::unfold((Arc::clone(&api.hub), kept), async |(hub, mut kept)| {
        let event = kept.next(&*hub).await?;
        Some((event, (hub, kept)))
    });
    Ok(ndjson(entries))
}

/// `GET /v1/events`: what happens from now on, and after a `Last-Event-ID` what was missed.
pub(super) async fn server_sent<H: InventoryDoor + LogDoor>(
    State(api): State<Api<H>>,
    headers: HeaderMap,
    Asked(query): Asked<LogQuery>,
) -> Result<Response, Refused> {
    let mut query = resolved(&*api.hub, query).await?;
    let last_seen = headers.get("last-event-id").and_then(|value| value.to_str().ok()?.parse().ok());
    if last_seen.is_some() {
        // Who comes back gets all that was missed, however few were asked for at first.
        (query.after, query.limit) = (last_seen, None);
    }
    if query.after.is_none() && query.since.is_none() && query.limit.is_none() {
        query.limit = Some(0);
    }
    let entries = follow(Arc::clone(&api.hub), query).await?.take_until(api.stop.cancelled_owned());
    let events = entries.map(|event| {
        let sent = sse::Event::default().event(event.kind.clone());
        // A browser comes back with the last id it saw; 0 is no place to go on from.
        let sent = if event.id > 0 { sent.id(event.id.to_string()) } else { sent };
        sent.json_data(&event)
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT)).into_response())
}

/// The kept entries that a query asks for, read as their reader takes them: a log has many megabytes.
struct Kept {
    read: std::vec::IntoIter<Event>,
    /// Where the next part begins; `None` behind the last one.
    rest: Option<LogQuery>,
    /// The last entry given.
    last: Option<i64>,
}

impl Kept {
    /// The first part. The newest so many are one part: who asks for a number has said how much that is.
    async fn read<H: LogDoor>(hub: &H, query: LogQuery) -> Result<Self, Refusal> {
        let last = query.after;
        let (read, rest) = match query.limit {
            Some(0) => (Vec::new(), None),
            Some(_) => (hub.logs(&query).await?, None),
            None => {
                let part = LogQuery { after: Some(query.after.unwrap_or(0)), ..query };
                let read = hub.log_part(&part).await?;
                let rest = following(&read, part);
                (read, rest)
            }
        };
        Ok(Self { read: read.into_iter(), rest, last })
    }

    async fn next<H: LogDoor>(&mut self, hub: &H) -> Option<Event> {
        loop {
            if let Some(event) = self.read.next() {
                self.last = Some(event.id);
                return Some(event);
            }
            let part = self.rest.take()?;
            match hub.log_part(&part).await {
                Ok(read) => {
                    self.rest = following(&read, part);
                    self.read = read.into_iter();
                }
                Err(error) => return Some(skipped(format!("the rest cannot be read: {error}"))),
            }
        }
    }
}

/// What comes after a part: another one, unless it was empty.
fn following(read: &[Event], part: LogQuery) -> Option<LogQuery> {
    let last = read.last()?;
    Some(LogQuery { after: Some(last.id), ..part })
}

/// The kept entries that `query` asks for, then the live ones, none of them twice.
async fn follow<H: LogDoor>(
    hub: Arc<H>,
    mut query: LogQuery,
) -> Result<impl Stream<Item = Event> + Send + use<H>, Refusal> {
    // Listen first: an entry between reading and listening would be lost.
    let live = hub.subscribe();
    let behind = is_ahead(&*hub, query.after).await?.then(|| {
        query.after = None;
        query.limit = Some(0);
        skipped(
            "the log goes on from an earlier entry, as it does after a backup was restored: read it anew".to_owned(),
        )
    });
    let kept = Kept::read(&*hub, query.clone()).await?;
    let query = LogQuery { since: None, ..query };
    Ok(stream::iter(behind).chain(stream::unfold(
        (hub, kept, live, query),
        async |(hub, mut kept, mut live, mut query)| {
            if let Some(event) = kept.next(&*hub).await {
                return Some((event, (hub, kept, live, query)));
            }
            query.after = kept.last;
            loop {
                let event = receive(&mut live).await?;
                if event.id == 0 || query.wants(&event) {
                    return Some((event, (hub, kept, live, query)));
                }
            }
        },
    )))
}

/// Whether a reader has seen an entry that the log has not: then everything that is to come would be older than it.
async fn is_ahead<H: LogDoor>(hub: &H, after: Option<i64>) -> Result<bool, Refusal> {
    let Some(after) = after else { return Ok(false) };
    let newest = hub.logs(&LogQuery { limit: Some(1), ..LogQuery::default() }).await?;
    Ok(newest.last().map_or(0, |event| event.id) < after)
}

/// The next entry; a client too slow to keep up is told so by an entry of its own.
async fn receive(live: &mut broadcast::Receiver<Event>) -> Option<Event> {
    match live.recv().await {
        Ok(event) => Some(event),
        Err(RecvError::Closed) => None,
        Err(RecvError::Lagged(missed)) => {
            let message =
                format!("{missed} entries were left out here: this client is too slow; ask for them with `after`");
            Some(skipped(message).with("missed", missed))
        }
    }
}

/// It is not in the store, so it keeps the id 0, and every filter lets it pass.
fn skipped(message: String) -> Event {
    Event::new(jiff::Timestamp::now(), crate::journal::Level::Warn, "entries-skipped", message)
}
