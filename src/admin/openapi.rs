//! `GET /v1/openapi.json`: the schemas come from the wire types, the paths from the table below.

use axum::response::{IntoResponse, Json, Response};
use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use super::wire;

#[derive(OpenApi)]
#[openapi(components(schemas(
    wire::AccessAction,
    wire::AccessReport,
    wire::AccessView,
    wire::Refusal,
    wire::BindResult,
    wire::CloseResult,
    wire::CommissionEvent,
    wire::CommissionRequest,
    wire::CommissionResult,
    wire::DiscoverChange,
    wire::Discovered,
    wire::Encryption,
    wire::FabricInfo,
    wire::ImportRoot,
    wire::NodeAction,
    wire::NodeCheck,
    wire::NodeDetail,
    wire::Nodes,
    wire::Outbox,
    wire::RemoveResult,
    wire::RemoveRoot,
    wire::ShareResult,
    wire::Status,
    wire::SyncReport,
    wire::SyncStep
)))]
struct Schemas;

/// One route: method, path, what it does, query parameters, body schema, answer schema, content type.
struct Route {
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    query: &'static [&'static str],
    body: Option<&'static str>,
    answer: Option<&'static str>,
    content: &'static str,
}

const JSON: &str = "application/json";
const BYTES: &str = "application/octet-stream";
const NDJSON: &str = "application/x-ndjson";
const LOG_QUERY: &[&str] = &["since", "after", "node", "attempt", "level", "limit"];

const fn reading(path: &'static str, summary: &'static str, answer: &'static str) -> Route {
    Route { method: "get", path, summary, query: &[], body: None, answer: Some(answer), content: JSON }
}

const fn acting(path: &'static str, summary: &'static str, answer: &'static str) -> Route {
    Route { method: "post", path, summary, query: &[], body: None, answer: Some(answer), content: JSON }
}

/// Every path of the API but this document's own.
const ROUTES: &[Route] = &[
    reading("/v1/status", "Daemon, fabric, node counts, outbox, cloud", "Status"),
    reading("/v1/fabric", "What may be known of our fabric", "FabricInfo"),
    Route {
        body: Some("Encryption"),
        answer: None,
        content: BYTES,
        ..acting("/v1/fabric/backup", "Keys, nodes, counters and outbox in one age-encrypted file; not on TCP", "")
    },
    Route {
        body: Some("Encryption"),
        answer: None,
        content: BYTES,
        ..acting("/v1/fabric/export-root", "The root key in an age-encrypted file; not on TCP", "")
    },
    Route {
        body: Some("RemoveRoot"),
        ..acting("/v1/fabric/remove-root", "Removes the root key that was exported last; not on TCP", "FabricInfo")
    },
    Route {
        body: Some("ImportRoot"),
        ..acting("/v1/fabric/import-root", "Brings an exported root key back; not on TCP", "FabricInfo")
    },
    reading("/v1/access", "Who may do what, in force and on the nodes", "AccessView"),
    Route { body: Some("AccessAction"), ..acting("/v1/access", "set, apply or rotate", "AccessReport") },
    Route {
        body: Some("CommissionRequest"),
        content: NDJSON,
        ..acting(
            "/v1/commission",
            "One attempt: CommissionEvent lines, the last line is the result",
            "CommissionResult",
        )
    },
    reading("/v1/nodes", "All node records", "Nodes"),
    reading("/v1/nodes/{node}", "One node record with its attestation evidence; by id or name", "NodeDetail"),
    Route {
        body: Some("NodeAction"),
        answer: None,
        ..acting(
            "/v1/nodes/{node}/action",
            "check, identify, rename, share, close-window, bind, adopt, remove or keep",
            "",
        )
    },
    reading("/v1/outbox", "Cloud work not yet acknowledged", "Outbox"),
    acting("/v1/outbox/{id}/retry", "Makes a row due now", "Outbox"),
    Route { method: "delete", ..acting("/v1/outbox/{id}", "Gives a row up", "Outbox") },
    Route {
        query: &["timeout_ms", "operational", "watch"],
        ..reading("/v1/discover", "Devices on the LAN; with watch=true DiscoverChange lines (NDJSON)", "Discovered")
    },
    Route {
        query: &["since", "after", "node", "attempt", "level", "limit", "follow"],
        answer: None,
        content: NDJSON,
        ..reading("/v1/logs", "The admin log, one entry a line", "")
    },
    Route {
        query: LOG_QUERY,
        answer: None,
        content: "text/event-stream",
        ..reading("/v1/events", "The admin log from now on; honours Last-Event-ID", "")
    },
    Route {
        query: &["progress"],
        ..acting(
            "/v1/sync",
            "Compares device, record and cloud of every node now; with progress=true SyncStep lines (NDJSON) first",
            "SyncReport",
        )
    },
    acting("/v1/sync/{node}", "The same for one node", "SyncReport"),
    Route { answer: None, content: "text/plain", ..reading("/healthz", "The daemon answers", "") },
    Route { answer: None, content: "text/plain", ..reading("/readyz", "200 once it is ready, 503 before", "") },
    Route { answer: None, content: "text/plain", ..reading("/metrics", "OpenMetrics text", "") },
    Route { answer: None, content: "text/html", ..reading("/", "A page for people", "") },
];

/// Serves the document.
pub(super) async fn document() -> Response {
    Json(openapi()).into_response()
}

/// The OpenAPI document.
pub fn openapi() -> Value {
    let mut document = serde_json::to_value(Schemas::openapi()).unwrap_or_default();
    let mut paths = Map::new();
    for route in ROUTES {
        let entry = paths.entry(route.path).or_insert_with(|| json!({}));
        entry[route.method] = operation(route);
    }
    document["paths"] = Value::Object(paths);
    document["info"] = json!({
        "title": "matterbind admin API",
        "version": env!("CARGO_PKG_VERSION"),
        "description": "On the Unix socket for root, the service user and the group matterbind; on TCP with a bearer token.",
    });
    document["components"]["securitySchemes"] = json!({ "token": { "type": "http", "scheme": "bearer" } });
    document["security"] = json!([{}, { "token": [] }]);
    document
}

fn operation(route: &Route) -> Value {
    let reference = |name: &str| json!({ "$ref": format!("#/components/schemas/{name}") });
    let in_path = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let parameters: Vec<Value> = in_path
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .chain(route.query.iter().map(|name| json!({ "name": name, "in": "query", "schema": { "type": "string" } })))
        .collect();
    let content = match route.answer {
        Some(answer) => json!({ route.content: { "schema": reference(answer) } }),
        None => json!({ route.content: {} }),
    };
    let failure = json!({ "description": "What went wrong, and what to do", "content": { JSON: { "schema": reference("ApiError") } } });
    let mut operation = json!({
        "summary": route.summary,
        "parameters": parameters,
        "responses": { "200": { "description": route.summary, "content": content }, "default": failure },
    });
    if let Some(body) = route.body {
        operation["requestBody"] = json!({ "required": true, "content": { JSON: { "schema": reference(body) } } });
    }
    operation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_leads_somewhere() {
        let document = openapi();
        let text = document.to_string();
        let mut names = text.match_indices("#/components/schemas/").map(|(at, prefix)| {
            let rest = &text[at + prefix.len()..];
            rest[..rest.find('"').unwrap()].to_owned()
        });
        assert!(names.all(|name| document["components"]["schemas"].get(&name).is_some()));
    }
}
