//! The routes: takes requests apart, asks the backend, answers JSON. Streams are in `events`.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Path, Query, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::auth::{self, Guard};
use super::wire::{NodeAction, NodeRef, Refusal};
use super::{events, keys, metrics, openapi, page};
use crate::commissioning::error::Disposition;
use crate::hub::door::Backend;
use crate::node::NodeId;
use crate::telemetry::metrics::Metrics;

/// No request is larger: a setup code and a few keys.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// Headers of every answer: nothing may be kept, nothing from elsewhere may be loaded, nobody may frame the page.
const HEADERS: [(HeaderName, &str); 4] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
];

/// What the handlers share.
pub struct Api<B> {
    /// The daemon.
    pub backend: Arc<B>,
    /// Counters and gauges.
    pub metrics: Arc<Metrics>,
    /// Attempts that outlive their client.
    pub tasks: TaskTracker,
    /// Ends the streams.
    pub stop: CancellationToken,
}

impl<B> Clone for Api<B> {
    fn clone(&self) -> Self {
        Self {
            backend: self.backend.clone(),
            metrics: self.metrics.clone(),
            tasks: self.tasks.clone(),
            stop: self.stop.clone(),
        }
    }
}

/// All routes, behind the guard.
pub fn router<B: Backend>(api: Api<B>, guard: Guard) -> Router {
    let key_routes = Router::new()
        .route("/fabric/backup", post(keys::backup::<B>))
        .route("/fabric/export-root", post(keys::export_root::<B>))
        .route("/fabric/import-root", post(keys::import_root::<B>))
        .route("/fabric/remove-root", post(keys::remove_root::<B>))
        .route_layer(middleware::from_fn(auth::only_local));
    let v1 = Router::new()
        .route("/openapi.json", get(openapi::document))
        .route("/status", get(status::<B>))
        .route("/fabric", get(fabric::<B>))
        .merge(key_routes)
        .route("/access", get(keys::access::<B>).post(keys::change_access::<B>))
        .route("/commission", post(events::commission::<B>))
        .route("/nodes", get(nodes::<B>))
        .route("/nodes/{node}", get(node::<B>))
        .route("/nodes/{node}/action", post(node_action::<B>))
        .route("/outbox", get(outbox::<B>))
        .route("/outbox/{id}/retry", post(outbox_retry::<B>))
        .route("/outbox/{id}", axum::routing::delete(outbox_drop::<B>))
        .route("/discover", get(events::discover::<B>))
        .route("/logs", get(events::logs::<B>))
        .route("/events", get(events::server_sent::<B>))
        .route("/sync", post(sync_all::<B>))
        .route("/sync/{node}", post(sync_one::<B>));
    Router::new()
        .nest("/v1", v1)
        .route("/", get(page::page::<B>))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz::<B>))
        .route("/metrics", get(metrics::scrape::<B>))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(api.metrics.clone(), observe))
        .layer(middleware::from_fn_with_state(guard, auth::check))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(api)
}

/// Counts the request and adds the headers of every answer.
async fn observe(State(metrics): State<Arc<Metrics>>, request: Request, next: Next) -> Response {
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
        ("method-not-allowed", _) => StatusCode::METHOD_NOT_ALLOWED,
        (_, Disposition::Retry) => StatusCode::SERVICE_UNAVAILABLE,
        (_, Disposition::UserAction) => StatusCode::CONFLICT,
        (_, Disposition::Bug) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

pub(super) fn error_response(status: StatusCode, error: &Refusal) -> Response {
    (status, Json(error)).into_response()
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
        let bytes = axum::body::Bytes::from_request(request, state)
            .await
            .map_err(|e| Refused(Refusal::bad_request(e.body_text())))?;
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

async fn status<B: Backend>(State(api): State<Api<B>>) -> Response {
    Json(api.backend.status().await).into_response()
}

async fn readyz<B: Backend>(State(api): State<Api<B>>) -> Response {
    let status = api.backend.status().await;
    if status.ready {
        "ready\n".into_response()
    } else {
        let text = format!("waiting for {}\n", status.waiting_for.join(", "));
        (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
    }
}

async fn fabric<B: Backend>(State(api): State<Api<B>>) -> Answer<super::wire::FabricInfo> {
    json(api.backend.fabric().await)
}

async fn nodes<B: Backend>(State(api): State<Api<B>>) -> Answer<super::wire::Nodes> {
    json(api.backend.nodes().await)
}

/// The id behind a path segment.
pub(super) async fn node_id<B: Backend>(backend: &B, text: &str) -> Result<NodeId, Refused> {
    let Ok(node) = text.parse::<NodeRef>();
    Ok(backend.resolve(&node).await?)
}

async fn node<B: Backend>(State(api): State<Api<B>>, Path(node): Path<String>) -> Answer<super::wire::NodeDetail> {
    let id = node_id(&*api.backend, &node).await?;
    json(api.backend.node(id).await)
}

async fn node_action<B: Backend>(
    State(api): State<Api<B>>,
    Path(node): Path<String>,
    Body(action): Body<NodeAction>,
) -> Result<Response, Refused> {
    let id = node_id(&*api.backend, &node).await?;
    let backend = &api.backend;
    Ok(match action {
        NodeAction::Check => Json(backend.check(id).await?).into_response(),
        NodeAction::Identify { seconds } => {
            backend.identify(id, seconds).await?;
            Json(serde_json::json!({ "node_id": id, "seconds": seconds })).into_response()
        }
        NodeAction::Rename { name } => {
            let length = name.chars().count();
            if !(1..=64).contains(&length) || name.chars().any(char::is_control) {
                return Err(
                    Refusal::bad_request("a name has 1 to 64 characters, none of them a control character").into()
                );
            }
            Json(backend.rename(id, name).await?).into_response()
        }
        NodeAction::Share { seconds } => {
            if !(180..=900).contains(&seconds) {
                return Err(Refusal::bad_request("a window stays open for 180 to 900 seconds").into());
            }
            Json(backend.share(id, seconds).await?).into_response()
        }
        NodeAction::Remove { force } => Json(backend.remove(id, force).await?).into_response(),
    })
}

async fn outbox<B: Backend>(State(api): State<Api<B>>) -> Answer<super::wire::Outbox> {
    json(api.backend.outbox().await)
}

async fn outbox_retry<B: Backend>(State(api): State<Api<B>>, Path(id): Path<i64>) -> Answer<super::wire::Outbox> {
    json(api.backend.outbox_retry(id).await)
}

async fn outbox_drop<B: Backend>(State(api): State<Api<B>>, Path(id): Path<i64>) -> Answer<super::wire::Outbox> {
    json(api.backend.outbox_drop(id).await)
}

async fn sync_all<B: Backend>(State(api): State<Api<B>>) -> Answer<super::wire::SyncReport> {
    json(api.backend.sync(None).await)
}

async fn sync_one<B: Backend>(State(api): State<Api<B>>, Path(node): Path<String>) -> Answer<super::wire::SyncReport> {
    let id = node_id(&*api.backend, &node).await?;
    json(api.backend.sync(Some(id)).await)
}

async fn unknown_path() -> Refused {
    let hint = "GET /v1/openapi.json lists every path";
    Refused(Refusal::new("unknown-path", Disposition::UserAction, "there is nothing at this path", hint))
}

async fn wrong_method() -> Refused {
    let hint = "GET /v1/openapi.json lists every path with its methods";
    Refused(Refusal::new("method-not-allowed", Disposition::UserAction, "this path has another method", hint))
}
