//! `GET /metrics`: Prometheus' text, in the format that is asked for. Counters are kept in `telemetry::metrics`; the gauges are set from the status when asked.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};

use jiff::Timestamp;

use super::routes::Api;
use crate::hub::doors::StatusDoor;
use crate::telemetry::exposition::Exposition;
use crate::telemetry::metrics::HubStanding;

pub(super) async fn scrape<H: StatusDoor>(State(api): State<Api<H>>, asked: HeaderMap) -> Response {
    let accept = asked.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let format = Exposition::asked_by(accept);
    let status = api.hub.status().await;
    let metrics = &api.metrics;
    metrics.set_ready(status.ready);
    for (state, count) in [
        ("operational", status.nodes.operational),
        ("unreachable", status.nodes.unreachable),
        ("provisional", status.nodes.provisional),
        ("removing", status.nodes.removing),
    ] {
        metrics.set_nodes(state, count);
    }
    for (state, count) in [
        ("pending", status.outbox.pending),
        ("waiting-for-operator", status.outbox.waiting_for_operator),
        ("rejected", status.outbox.rejected),
    ] {
        metrics.set_outbox(state, count);
    }
    let controllers = &status.controllers;
    for (state, count) in [
        ("enrolled", controllers.total - controllers.leaving),
        ("leaving", controllers.leaving),
        ("shut-out", controllers.shut_out),
        ("expiring", controllers.expiring.len() as u64),
    ] {
        metrics.set_controllers(state, count);
    }
    metrics.set_cloud_reachable(status.cloud.reachable);
    let now = Timestamp::now();
    let age = |at: Option<Timestamp>| at.map(|at| Duration::try_from(now.duration_since(at)).unwrap_or_default());
    metrics.set_standing(&HubStanding {
        outbox_age: age(status.outbox.oldest_at),
        sync_age: age(status.compared_at),
        verdicts: status.verdicts,
        paas: status.trust.paas,
        paa_age: age(status.trust.fetched_at),
    });
    metrics.read_process(status.started_at);
    ([(header::CONTENT_TYPE, format.content_type())], metrics.encode(format)).into_response()
}
