//! The routes: takes requests apart, asks the hub, answers JSON. Streams are in `events`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{ConnectInfo, DefaultBodyLimit, FromRequest, FromRequestParts, Path, Query, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::auth::{self, Guard, Peer};
use super::wire::{NodeAction, NodeRef, Refusal};
use super::{events, keys, metrics, openapi, page};
use crate::commissioning::error::Disposition;
use crate::hub::doors::{
    BindingDoor, Doors, InventoryDoor, KeysDoor, OutboxDoor, RemovalDoor, StatusDoor, StrangersDoor, SyncDoor,
    SyncProgress,
};
use crate::node::NodeId;
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
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
];

/// What the handlers share.
pub struct Api<H> {
    /// The daemon.
    pub hub: Arc<H>,
    /// Counters and gauges.
    pub metrics: Arc<Metrics>,
    /// Attempts that outlive their client.
    pub tasks: TaskTracker,
    /// Ends the streams.
    pub stop: CancellationToken,
}

impl<H> Clone for Api<H> {
    fn clone(&self) -> Self {
        Self {
            hub: self.hub.clone(),
            metrics: self.metrics.clone(),
            tasks: self.tasks.clone(),
            stop: self.stop.clone(),
        }
    }
}

/// All routes, behind the guard.
pub fn router<H: Doors>(api: Api<H>, guard: Guard) -> Router {
    let key_routes = Router::new()
        .route("/fabric/backup", post(keys::backup::<H>))
        .route("/fabric/export-root", post(keys::export_root::<H>))
        .route("/fabric/import-root", post(keys::import_root::<H>))
        .route("/fabric/remove-root", post(keys::remove_root::<H>))
        .route_layer(middleware::from_fn(auth::only_local));
    let v1 = Router::new()
        .route("/openapi.json", get(openapi::document))
        .route("/status", get(status::<H>))
        .route("/fabric", get(fabric::<H>))
        .merge(key_routes)
        .route("/access", get(keys::access::<H>).post(keys::change_access::<H>))
        .route("/commission", post(events::commission::<H>))
        .route("/nodes", get(nodes::<H>))
        .route("/nodes/{node}", get(node::<H>))
        .route("/nodes/{node}/action", post(node_action::<H>))
        .route("/outbox", get(outbox::<H>))
        .route("/outbox/{id}/retry", post(outbox_retry::<H>))
        .route("/outbox/{id}", axum::routing::delete(outbox_drop::<H>))
        .route("/discover", get(events::discover::<H>))
        .route("/logs", get(events::logs::<H>))
        .route("/events", get(events::server_sent::<H>))
        .route("/sync", post(events::sync::<H>))
        .route("/sync/{node}", post(sync_one::<H>));
    Router::new()
        .nest("/v1", v1)
        .route("/", get(page::page::<H>))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz::<H>))
        .route("/metrics", get(metrics::scrape::<H>))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state((guard, api.metrics.clone()), auth::check))
        // Around the guard: what it refuses is counted, and has the same headers.
        .layer(middleware::from_fn_with_state((api.metrics.clone(), api.tasks.clone()), observe))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(api)
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
pub struct Refused(pub Refusal);

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
        ("unknown-node" | "unknown-outbox-entry" | "not-found" | "unknown-path", _) => StatusCode::NOT_FOUND,
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
        let read = tokio::time::timeout(BODY, axum::body::Bytes::from_request(request, state)).await;
        let bytes = read.map_err(|_| too_slow())?.map_err(|error| match error.status() {
            StatusCode::PAYLOAD_TOO_LARGE => too_large(),
            _ => Refused(Refusal::bad_request(error.body_text())),
        })?;
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

async fn readyz<H: StatusDoor>(State(api): State<Api<H>>) -> Response {
    let status = api.hub.status().await;
    if status.ready {
        "ready\n".into_response()
    } else {
        let text = format!("waiting for {}\n", status.waiting_for.join(", "));
        (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
    }
}

async fn fabric<H: KeysDoor>(State(api): State<Api<H>>) -> Answer<super::wire::FabricInfo> {
    json(api.hub.fabric().await)
}

async fn nodes<H: InventoryDoor>(State(api): State<Api<H>>) -> Answer<super::wire::Nodes> {
    json(api.hub.nodes().await)
}

/// The id behind a path segment.
pub(super) async fn node_id<H: InventoryDoor>(hub: &H, text: &str) -> Result<NodeId, Refused> {
    let Ok(node) = text.parse::<NodeRef>();
    Ok(hub.resolve(&node).await?)
}

async fn node<H: InventoryDoor>(
    State(api): State<Api<H>>,
    InPath(node): InPath<String>,
) -> Answer<super::wire::NodeDetail> {
    let id = node_id(&*api.hub, &node).await?;
    json(api.hub.node(id).await)
}

async fn node_action<H: BindingDoor + InventoryDoor + RemovalDoor + StrangersDoor>(
    State(api): State<Api<H>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    InPath(node): InPath<String>,
    Body(action): Body<NodeAction>,
) -> Result<Response, Refused> {
    let id = node_id(&*api.hub, &node).await?;
    let hub = &api.hub;
    Ok(match action {
        NodeAction::Check => Json(hub.check(id).await?).into_response(),
        NodeAction::Identify { seconds } => {
            hub.identify(id, seconds).await?;
            Json(serde_json::json!({ "node_id": id, "seconds": seconds })).into_response()
        }
        NodeAction::Rename { name } => {
            let length = name.chars().count();
            if !(1..=64).contains(&length) || name.chars().any(char::is_control) {
                return Err(
                    Refusal::bad_request("a name has 1 to 64 characters, none of them a control character").into()
                );
            }
            Json(hub.rename(id, name).await?).into_response()
        }
        NodeAction::Share { seconds } => {
            if !(180..=900).contains(&seconds) {
                return Err(Refusal::bad_request("a window stays open for 180 to 900 seconds").into());
            }
            Json(hub.share(id, seconds).await?).into_response()
        }
        NodeAction::Remove { force } => Json(hub.remove(id, force, peer.describe()).await?).into_response(),
        NodeAction::Keep => Json(hub.keep(id, peer.describe()).await?).into_response(),
        NodeAction::Bind(order) => Json(hub.bind(id, order, peer.describe()).await?).into_response(),
        NodeAction::Adopt => Json(hub.adopt(id, peer.describe()).await?).into_response(),
        NodeAction::CloseWindow => Json(hub.close_window(id).await?).into_response(),
    })
}

async fn outbox<H: OutboxDoor>(State(api): State<Api<H>>) -> Answer<super::wire::Outbox> {
    json(api.hub.outbox().await)
}

async fn outbox_retry<H: OutboxDoor>(
    State(api): State<Api<H>>,
    InPath(id): InPath<i64>,
) -> Answer<super::wire::Outbox> {
    json(api.hub.outbox_retry(id).await)
}

async fn outbox_drop<H: OutboxDoor>(State(api): State<Api<H>>, InPath(id): InPath<i64>) -> Answer<super::wire::Outbox> {
    json(api.hub.outbox_drop(id).await)
}

async fn sync_one<H: InventoryDoor + SyncDoor>(
    State(api): State<Api<H>>,
    InPath(node): InPath<String>,
) -> Answer<super::wire::SyncReport> {
    let id = node_id(&*api.hub, &node).await?;
    json(api.hub.sync(Some(id), SyncProgress::default()).await)
}

async fn unknown_path() -> Refused {
    let hint = "GET /v1/openapi.json lists every path";
    Refused(Refusal::new("unknown-path", Disposition::UserAction, "there is nothing at this path", hint))
}

async fn wrong_method() -> Refused {
    let hint = "GET /v1/openapi.json lists every path with its methods";
    Refused(Refusal::new("method-not-allowed", Disposition::UserAction, "this path has another method", hint))
}
