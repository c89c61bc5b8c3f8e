//! The routes: takes requests apart, asks the hub, answers JSON. Streams are in `events`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::{ConnectInfo, DefaultBodyLimit, FromRequest, FromRequestParts, Path, Query, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use axum::{Extension, Form, Router};
use jiff::Timestamp;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::auth::{self, Guard, Peer};
use super::openapi::Route;
use super::sessions::Known;
use super::wire::{
    AccessAction, AccessReport, AccessView, BackupKept, CommissionLine, CommissionRequest, Diagnosis, DiscoverChange,
    DiscoverQuery, Discovered, Encryption, FabricInfo, ImportRoot, LogQuery, NodeAction, NodeAnswer, NodeComparison,
    NodeDetail, NodeRef, Nodes, NodesQuery, Outbox, Refusal, RemoveRoot, SessionList, Status, SyncLine, SyncQuery,
    SyncReport,
};
use super::{controllers, events, keys, metrics, networks, openapi, page};
use crate::commissioning::error::Disposition;
use crate::hub::doors::{
    BindingDoor, DoctorDoor, Doors, InventoryDoor, KeysDoor, LogDoor, OutboxDoor, RemovalDoor, SharingDoor, StatusDoor,
    StrangersDoor, SyncDoor, SyncProgress,
};
use crate::hub::turns::Answers;
use crate::journal::Event;
use crate::node::NodeId;
use crate::plain;
use crate::telemetry::exposition::Exposition;
use crate::telemetry::metrics::Metrics;

/// No request is larger: a setup code and a few keys.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// A whole body comes within this time.
const BODY: Duration = Duration::from_secs(5);
/// When somebody who asks too much may ask again, seconds.
const RETRY_AFTER_S: &str = "5";
/// Headers of every answer: nothing may be kept, nothing from elsewhere may be loaded, nobody may frame the page.
const HEADERS: [(HeaderName, &str); 4] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::CONTENT_SECURITY_POLICY, page::POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    // Within the page only; with none at all browsers would not say where a form comes from.
    (header::REFERRER_POLICY, "same-origin"),
];

/// What the handlers share.
pub(crate) struct Api<H> {
    pub hub: Arc<H>,
    pub metrics: Arc<Metrics>,
    /// Attempts that outlive their client.
    pub tasks: TaskTracker,
    pub stop: CancellationToken,
    /// Long answers that many may ask for at once.
    pub(super) shared: Arc<SharedAnswers>,
}

/// What each of them is.
#[derive(Debug, Default)]
pub(super) struct SharedAnswers {
    pub(super) nodes: Answers<(), Bytes>,
    pub(super) outbox: Answers<(), Bytes>,
    pub(super) page: Answers<(), Bytes>,
}

impl<H> Clone for Api<H> {
    fn clone(&self) -> Self {
        Self {
            hub: self.hub.clone(),
            metrics: self.metrics.clone(),
            tasks: self.tasks.clone(),
            stop: self.stop.clone(),
            shared: Arc::clone(&self.shared),
        }
    }
}

/// All routes, behind the guard.
pub(crate) fn router<H: Doors>(api: Api<H>, guard: Guard) -> Router {
    let routes = table::<H>();
    let document = openapi::document(&routes);
    let (tokens, codes) = (Arc::clone(&api.hub), Arc::clone(&api.hub));
    let gate = auth::Gate {
        guard: guard.clone(),
        metrics: Arc::clone(&api.metrics),
        wrong_tokens: Arc::new(move |peer, times| tokens.note_wrong_tokens(&peer, times)),
        wrong_codes: Arc::new(move |peer, times| codes.note_wrong_codes(&peer, times)),
    };
    let mut router = Router::new().route("/v1/openapi.json", get(|| async { Json(document) }));
    for route in routes {
        router = router.route(route.path, route.handler);
    }
    router
        .merge(page::routes())
        .layer(Extension(guard))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(gate, auth::check))
        // Around the guard: what it refuses is counted, and has the same headers.
        .layer(middleware::from_fn_with_state((api.metrics.clone(), api.tasks.clone()), observe))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(api)
}

/// Every path of the API but its document's own.
fn table<H: Doors>() -> Vec<Route<H>> {
    let mut routes = vec![
        Route::get("/v1/status", "status", "Daemon, fabric, node counts, outbox, cloud", status).answers::<Status>(),
        Route::get("/v1/doctor", "doctor", "Looks at everything now and says what is wrong", doctor)
            .answers::<Diagnosis>(),
        Route::get("/v1/fabric", "fabric", "What may be known of our fabric", fabric).answers::<FabricInfo>(),
        Route::post("/v1/fabric/backup", "backup", "The hub in one age-encrypted file; not on TCP", keys::backup)
            .body::<Encryption>()
            .sends(keys::BYTES)
            .local_only(),
        Route::post(
            "/v1/fabric/backup-kept",
            "backup_kept",
            "A backup arrived: only now it counts; not on TCP",
            keys::backup_kept,
        )
        .body::<BackupKept>()
        .answers::<FabricInfo>()
        .local_only(),
        Route::post("/v1/fabric/export-root", "export_root", "The root key, encrypted; not on TCP", keys::export_root)
            .body::<Encryption>()
            .sends(keys::BYTES)
            .local_only(),
        Route::post("/v1/fabric/remove-root", "remove_root", "Removes the exported key; not on TCP", keys::remove_root)
            .body::<RemoveRoot>()
            .answers::<FabricInfo>()
            .local_only(),
        Route::post("/v1/fabric/import-root", "import_root", "Brings the key back; not on TCP", keys::import_root)
            .body::<ImportRoot>()
            .answers::<FabricInfo>()
            .local_only(),
        Route::get("/v1/access", "access", "Who may do what, in force and on the nodes", keys::access)
            .answers::<AccessView>(),
        Route::post("/v1/access", "change_access", "Sets, applies or rotates", keys::change_access)
            .body::<AccessAction>()
            .answers::<AccessReport>(),
        Route::post("/v1/commission", "commission", "One attempt: events, and last its result", events::commission)
            .body::<CommissionRequest>()
            .lines::<CommissionLine>(),
        Route::get("/v1/nodes", "nodes", "Node records, all or a page of them", nodes)
            .query::<NodesQuery>()
            .answers::<Nodes>(),
        Route::get("/v1/nodes/{node}", "node", "One node record with its attestation evidence", node)
            .answers::<NodeDetail>(),
        Route::post("/v1/nodes/{node}/action", "node_action", "Asks one node, or removes it", node_action)
            .body::<NodeAction>()
            .answers::<NodeAnswer>(),
        Route::get(
            "/v1/nodes/{node}/compare",
            "compare",
            "What device, record and cloud hold of one node now",
            compare,
        )
        .answers::<NodeComparison>(),
        Route::get("/v1/outbox", "outbox", "Cloud work not yet acknowledged", outbox).answers::<Outbox>(),
        Route::post("/v1/outbox/{id}/retry", "outbox_retry", "Makes a row due now", outbox_retry).answers::<Outbox>(),
        Route::delete("/v1/outbox/{id}", "outbox_drop", "Gives a row up", outbox_drop).answers::<Outbox>(),
        Route::get(
            "/v1/discover",
            "discover",
            "Devices on LAN and Bluetooth; watched, a change a line",
            events::discover,
        )
        .query::<DiscoverQuery>()
        .lines::<DiscoverChange>()
        .answers::<Discovered>(),
        Route::get("/v1/logs", "logs", "The admin log, one entry a line", events::logs)
            .query::<LogQuery>()
            .lines::<Event>(),
        Route::get("/v1/events", "events", "The admin log from now on; honours Last-Event-ID", events::server_sent)
            .query::<LogQuery>()
            .sends("text/event-stream"),
        Route::post("/v1/sync", "sync", "Compares device, record and cloud of every node now", events::sync)
            .query::<SyncQuery>()
            .lines::<SyncLine>()
            .answers::<SyncReport>(),
        Route::post("/v1/sync/{node}", "sync_node", "Compares device, record and cloud of one node now", sync_one)
            .query::<SyncQuery>()
            .answers::<SyncReport>(),
        Route::get("/v1/sessions", "sessions", "Who is logged in on the page", sessions).answers::<SessionList>(),
        Route::delete("/v1/sessions/{session}", "end_session", "Ends a log-in", end_session).answers::<SessionList>(),
        Route::get("/healthz", "healthz", "The daemon answers", async || "ok\n").sends(openapi::TEXT),
        Route::get("/readyz", "readyz", "200 once it is ready, 503 before", readyz).sends(openapi::TEXT),
        Route::get("/metrics", "metrics", "Prometheus text, or OpenMetrics if that is asked for", metrics::scrape)
            .sends(Exposition::Text.content_type())
            .sends(Exposition::OpenMetrics.content_type()),
    ];
    routes.extend(controllers::routes());
    routes.extend(networks::routes());
    routes
}

/// Counts the request and adds the headers of every answer.
async fn observe(
    State((metrics, tasks)): State<(Arc<Metrics>, TaskTracker)>,
    request: Request,
    next: Next,
) -> Response {
    // A stop waits for what is being answered.
    let _under_way = tasks.token();
    let begun = Instant::now();
    let path = request.extensions().get::<axum::extract::MatchedPath>().map(|path| path.as_str().to_owned());
    let mut response = next.run(request).await;
    for (name, value) in HEADERS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    metrics.count_request(path.as_deref().unwrap_or("other"), response.status().as_u16(), begun.elapsed());
    response
}

/// An error as the client gets it.
#[derive(Debug)]
pub(crate) struct Refused(pub Refusal);

impl From<Refusal> for Refused {
    fn from(error: Refusal) -> Self {
        Self(error)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        error_response(status_of(&self.0), &self.0)
    }
}

/// The HTTP status that goes with an error; the body says more.
fn status_of(error: &Refusal) -> StatusCode {
    match (error.code.as_str(), error.disposition) {
        ("bad-request", _) => StatusCode::BAD_REQUEST,
        (
            "unknown-node"
            | "unknown-network"
            | "unknown-outbox-entry"
            | "unknown-controller"
            | "not-found"
            | "unknown-path",
            _,
        ) => StatusCode::NOT_FOUND,
        ("code-refused" | "tls-needed", _) => StatusCode::FORBIDDEN,
        ("body-too-large", _) => StatusCode::PAYLOAD_TOO_LARGE,
        ("body-too-slow", _) => StatusCode::REQUEST_TIMEOUT,
        ("method-not-allowed", _) => StatusCode::METHOD_NOT_ALLOWED,
        ("too-many-attempts", _) => StatusCode::TOO_MANY_REQUESTS,
        (_, Disposition::Retry) => StatusCode::SERVICE_UNAVAILABLE,
        (_, Disposition::UserAction) => StatusCode::CONFLICT,
        (_, Disposition::Bug) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

pub(super) fn error_response(status: StatusCode, error: &Refusal) -> Response {
    let mut response = (status, Json(error)).into_response();
    if status == StatusCode::TOO_MANY_REQUESTS {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
    }
    response
}

/// What a handler answers.
pub(super) type Answer<T> = Result<Json<T>, Refused>;

pub(super) fn json<T: Serialize>(answer: Result<T, Refusal>) -> Answer<T> {
    answer.map(Json).map_err(Refused)
}

/// A query string, with our error body where it is wrong.
pub(super) struct Asked<T>(pub T);

impl<T: serde::de::DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut axum::http::request::Parts, state: &S) -> Result<Self, Refused> {
        let parsed = Query::<T>::from_request_parts(parts, state).await;
        parsed.map(|Query(query)| Self(query)).map_err(|e| Refused(Refusal::bad_request(e.body_text())))
    }
}

/// A JSON body, with our error body where it is wrong. The message names the key, never the value: it may be a code.
pub(super) struct Body<T>(pub T);

impl<T: serde::de::DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        let bytes = whole(request, state).await?;
        serde_json::from_slice(&bytes).map(Self).map_err(|error| {
            let place = format!("line {} column {}", error.line(), error.column());
            let what = match error.classify() {
                serde_json::error::Category::Data => "a key is unknown, missing or of the wrong type",
                _ => "it is not JSON",
            };
            Refused(Refusal::bad_request(format!("the request's body is wrong: {what} ({place})")))
        })
    }
}

/// A form as a browser sends it, with our error body where it is wrong.
pub(super) struct Filled<T>(pub T);

impl<T: serde::de::DeserializeOwned, S: Send + Sync> FromRequest<S> for Filled<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        let (head, body) = request.into_parts();
        let bytes = whole(Request::from_parts(head.clone(), body), state).await?;
        let parsed = Form::<T>::from_request(Request::from_parts(head, bytes.into()), state).await;
        parsed.map(|Form(form)| Self(form)).map_err(|e| Refused(Refusal::bad_request(e.body_text())))
    }
}

/// The only way in which a body is read: nobody may take for ever to send one.
async fn whole<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Refused> {
    let read = tokio::time::timeout(BODY, Bytes::from_request(request, state)).await;
    read.map_err(|_| too_slow())?.map_err(|error| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(),
        _ => Refused(Refusal::bad_request(error.body_text())),
    })
}

fn too_large() -> Refused {
    let message = format!("the request's body is longer than {} KiB", MAX_BODY_BYTES / 1024);
    Refused(Refusal::new("body-too-large", Disposition::UserAction, message, "see GET /v1/openapi.json"))
}

fn too_slow() -> Refused {
    let message = format!("the request's body did not come within {} s", BODY.as_secs());
    Refused(Refusal::new("body-too-slow", Disposition::Retry, message, "send it in one piece"))
}

/// A part of the path, with our error body where it is none.
pub(super) struct InPath<T>(pub T);

impl<T: serde::de::DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for InPath<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut axum::http::request::Parts, state: &S) -> Result<Self, Refused> {
        let parsed = Path::<T>::from_request_parts(parts, state).await;
        parsed.map(|Path(value)| Self(value)).map_err(|e| Refused(Refusal::bad_request(e.body_text())))
    }
}

async fn status<H: StatusDoor>(State(api): State<Api<H>>) -> Response {
    Json(api.hub.status().await).into_response()
}

async fn doctor<H: DoctorDoor>(State(api): State<Api<H>>) -> Json<Diagnosis> {
    Json(api.hub.doctor().await)
}

async fn readyz<H: StatusDoor>(State(api): State<Api<H>>) -> Response {
    let status = api.hub.status().await;
    if status.ready {
        "ready\n".into_response()
    } else {
        let text = format!("waiting for {}\n", status.waiting_for.join(", "));
        (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
    }
}

async fn fabric<H: KeysDoor>(State(api): State<Api<H>>) -> Answer<FabricInfo> {
    json(api.hub.fabric().await)
}

async fn nodes<H: InventoryDoor>(
    State(api): State<Api<H>>,
    Asked(query): Asked<NodesQuery>,
) -> Result<Response, Refused> {
    if query.limit.is_some_and(|limit| !(1..=MOST_NODES).contains(&limit)) {
        return Err(Refusal::bad_request(format!("a page has 1 to {MOST_NODES} nodes")).into());
    }
    if query != NodesQuery::default() {
        return Ok(Json(api.hub.nodes(&query).await?).into_response());
    }
    Ok(json_bytes(api.shared.nodes.get((), all_nodes(&*api.hub)).await?))
}

const MOST_NODES: u32 = 200;
/// So many records are in memory at once while the list of all is written.
const NODES_AT_ONCE: u32 = 100;

/// The document of all nodes, written page by page: as text it takes a fraction of what the records take.
async fn all_nodes<H: InventoryDoor>(hub: &H) -> Result<Bytes, Refusal> {
    let mut text = br#"{"nodes":["#.to_vec();
    let mut query = NodesQuery { after: None, limit: Some(NODES_AT_ONCE) };
    loop {
        let Nodes { nodes, foreign } = hub.nodes(&query).await?;
        for (index, node) in nodes.iter().enumerate() {
            if index > 0 || query.after.is_some() {
                text.push(b',');
            }
            write_json(&mut text, node);
        }
        match nodes.last() {
            Some(last) if nodes.len() >= NODES_AT_ONCE as usize => query.after = Some(last.node_id.0),
            _ => {
                text.extend(br#"],"foreign":"#);
                write_json(&mut text, &foreign);
                text.push(b'}');
                text.shrink_to_fit();
                return Ok(text.into());
            }
        }
    }
}

fn write_json(text: &mut Vec<u8>, document: &impl Serialize) {
    serde_json::to_writer(text, document).expect("our documents have strings as keys, and memory takes every byte");
}

fn json_bytes(text: Bytes) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

/// The id behind a path segment.
pub(super) async fn node_id<H: InventoryDoor>(hub: &H, text: &str) -> Result<NodeId, Refused> {
    let Ok(node) = text.parse::<NodeRef>();
    Ok(hub.resolve(&node).await?)
}

async fn node<H: InventoryDoor>(State(api): State<Api<H>>, InPath(node): InPath<String>) -> Answer<NodeDetail> {
    let id = node_id(&*api.hub, &node).await?;
    json(api.hub.node(id).await)
}

/// A node's name shows as itself wherever it is read, and the node can be called by it. The cloud takes no blank one
/// (cloud-contract, code 5068).
pub(super) fn check_name(name: &str) -> Result<(), Refusal> {
    check_text("a name", name)?;
    match name.parse() {
        Ok(NodeRef::Name(_)) => Ok(()),
        Ok(NodeRef::Id(_)) => Err(Refusal::bad_request("a name is no number: it would be taken for a node id")),
    }
}

fn check_text(what: &str, text: &str) -> Result<(), Refusal> {
    let wrong = |why: &str| Err(Refusal::bad_request(format!("{what} {why}")));
    if !(1..=64).contains(&text.chars().count()) {
        return wrong("has 1 to 64 characters");
    }
    if text.trim() != text {
        return wrong("has no blanks around it");
    }
    if !text.chars().all(plain::is_harmless) {
        return wrong("has no control characters, and none that are invisible or turn the text beside it");
    }
    Ok(())
}

async fn node_action<H: BindingDoor + InventoryDoor + RemovalDoor + SharingDoor + StrangersDoor>(
    State(api): State<Api<H>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    InPath(node): InPath<String>,
    Body(action): Body<NodeAction>,
) -> Answer<NodeAnswer> {
    let id = node_id(&*api.hub, &node).await?;
    let hub = &api.hub;
    json(match action {
        NodeAction::Check {} => hub.check(id).await.map(NodeAnswer::Checked),
        NodeAction::Identify { seconds } => {
            hub.identify(id, seconds).await.map(|()| NodeAnswer::Identifying { node_id: id, seconds })
        }
        NodeAction::Rename { name } => {
            check_name(&name)?;
            hub.rename(id, name).await.map(Box::new).map(NodeAnswer::Record)
        }
        NodeAction::Move { room_id } => {
            check_text("a room's id", &room_id)?;
            hub.move_to(id, room_id).await.map(Box::new).map(NodeAnswer::Record)
        }
        NodeAction::Share { seconds } => {
            if !(180..=900).contains(&seconds) {
                return Err(Refusal::bad_request("a window stays open for 180 to 900 seconds").into());
            }
            hub.share(id, seconds).await.map(NodeAnswer::Shared)
        }
        NodeAction::Remove { force } => hub.remove(id, force, peer.describe()).await.map(NodeAnswer::Removed),
        NodeAction::Keep {} => hub.keep(id, peer.describe()).await.map(Box::new).map(NodeAnswer::Record),
        NodeAction::Bind(order) => hub.bind(id, order, peer.describe()).await.map(NodeAnswer::Bound),
        NodeAction::Adopt {} => hub.adopt(id, peer.describe()).await.map(Box::new).map(NodeAnswer::Record),
        NodeAction::CloseWindow {} => hub.close_window(id).await.map(NodeAnswer::Closed),
    })
}

async fn outbox<H: OutboxDoor>(State(api): State<Api<H>>) -> Result<Response, Refused> {
    let made = async {
        let mut text = Vec::new();
        write_json(&mut text, &api.hub.outbox().await?);
        Ok::<_, Refusal>(text.into())
    };
    Ok(json_bytes(api.shared.outbox.get((), made).await?))
}

async fn outbox_retry<H: OutboxDoor>(State(api): State<Api<H>>, InPath(id): InPath<i64>) -> Answer<Outbox> {
    json(api.hub.outbox_retry(id).await)
}

async fn outbox_drop<H: OutboxDoor>(State(api): State<Api<H>>, InPath(id): InPath<i64>) -> Answer<Outbox> {
    json(api.hub.outbox_drop(id).await)
}

async fn compare<H: InventoryDoor + SyncDoor>(
    State(api): State<Api<H>>,
    InPath(node): InPath<String>,
) -> Answer<NodeComparison> {
    let id = node_id(&*api.hub, &node).await?;
    json(api.hub.compare(id).await)
}

async fn sync_one<H: InventoryDoor + SyncDoor>(
    State(api): State<Api<H>>,
    InPath(node): InPath<String>,
    Asked(query): Asked<SyncQuery>,
) -> Answer<SyncReport> {
    let id = node_id(&*api.hub, &node).await?;
    json(api.hub.sync(Some(id), query.intent(), SyncProgress::default()).await)
}

async fn sessions(Extension(guard): Extension<Guard>, known: Option<Extension<Known>>) -> Json<SessionList> {
    let current = known.map(|Extension(known)| known.id);
    Json(SessionList { sessions: guard.sessions().list(current.as_deref(), Timestamp::now()) })
}

async fn end_session<H: LogDoor>(
    State(api): State<Api<H>>,
    Extension(guard): Extension<Guard>,
    known: Option<Extension<Known>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    InPath(session): InPath<String>,
) -> Answer<SessionList> {
    // One that has ended by itself is ended too.
    if guard.sessions().end(&session) {
        let message = format!("{} has ended a log-in on the page", peer.describe());
        api.hub.note_access("session-ended", &message, &peer.describe());
    }
    Ok(sessions(Extension(guard), known).await)
}

async fn unknown_path() -> Refused {
    let hint = "GET /v1/openapi.json lists every path";
    Refused(Refusal::new("unknown-path", Disposition::UserAction, "there is nothing at this path", hint))
}

async fn wrong_method() -> Refused {
    let hint = "GET /v1/openapi.json lists every path with its methods";
    Refused(Refusal::new("method-not-allowed", Disposition::UserAction, "this path has another method", hint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Hub;
    use crate::hub::tests::Fakes;

    #[test]
    fn every_operation_has_its_own_name_and_every_reference_leads_somewhere() {
        let document = openapi::document(&table::<Hub<Fakes>>());
        let paths = document["paths"].as_object().unwrap();
        let ids: Vec<_> = paths.values().flat_map(|path| path.as_object().unwrap().values()).collect();
        let distinct: std::collections::BTreeSet<_> =
            ids.iter().map(|it| it["operationId"].as_str().unwrap()).collect();
        assert_eq!((ids.len(), distinct.len()), (table::<Hub<Fakes>>().len(), table::<Hub<Fakes>>().len()));
        let text = document.to_string();
        assert!(!text.contains("\"allOf\""), "client generators do not take it in a variant");
        for (at, prefix) in text.match_indices("#/components/schemas/") {
            let rest = &text[at + prefix.len()..];
            let name = &rest[..rest.find('"').unwrap()];
            assert!(document["components"]["schemas"].get(name).is_some(), "{name} is not described");
        }
    }
}
