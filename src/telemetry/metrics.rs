//! The metrics registry. Whoever does something counts it here; `GET /metrics` prints it.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// From an answer within the LAN to an attempt that runs into its deadline, seconds.
const BUCKETS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 10.0, 30.0, 90.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AttemptLabels {
    outcome: String,
    code: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StepLabels {
    step: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BindLabels {
    kind: String,
    code: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    kind: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    path: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusedLabels {
    reason: String,
}

#[derive(Clone)]
struct Seconds;

impl MetricConstructor<Histogram> for Seconds {
    fn new_metric(&self) -> Histogram {
        Histogram::new(BUCKETS)
    }
}

/// All metrics of the daemon.
pub struct Metrics {
    registry: Registry,
    attempts: Family<AttemptLabels, Counter>,
    attempt_seconds: Histogram,
    step_seconds: Family<StepLabels, Histogram, Seconds>,
    cloud_calls: Family<BindLabels, Counter>,
    cloud_seconds: Family<CallLabels, Histogram, Seconds>,
    requests: Family<RequestLabels, Counter>,
    request_seconds: Histogram,
    refused: Family<RefusedLabels, Counter>,
    nodes: Family<StateLabels, Gauge<u64, AtomicU64>>,
    outbox: Family<StateLabels, Gauge<u64, AtomicU64>>,
    controllers: Family<StateLabels, Gauge<u64, AtomicU64>>,
    ready: Gauge<u64, AtomicU64>,
    cloud_reachable: Gauge<u64, AtomicU64>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics(..)")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("matterbind"),
            attempts: Family::default(),
            attempt_seconds: Histogram::new(BUCKETS),
            step_seconds: Family::new_with_constructor(Seconds),
            cloud_calls: Family::default(),
            cloud_seconds: Family::new_with_constructor(Seconds),
            requests: Family::default(),
            request_seconds: Histogram::new(BUCKETS),
            refused: Family::default(),
            nodes: Family::default(),
            outbox: Family::default(),
            controllers: Family::default(),
            ready: Gauge::default(),
            cloud_reachable: Gauge::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("commissioning_attempts", "Finished attempts by outcome and failure code", self.attempts.clone());
        r.register("commissioning_seconds", "Successful attempts, code to record", self.attempt_seconds.clone());
        r.register("commissioning_step_seconds", "Steps of attempts", self.step_seconds.clone());
        r.register("cloud_calls", "Calls to the cloud by kind and body code", self.cloud_calls.clone());
        r.register("cloud_call_seconds", "Calls to the cloud until their answer, by kind", self.cloud_seconds.clone());
        r.register("admin_requests", "Admin API requests by path and status", self.requests.clone());
        r.register("admin_request_seconds", "Admin API requests until their first byte", self.request_seconds.clone());
        r.register("admin_refused", "What the admin API let nobody do, by reason", self.refused.clone());
        r.register("nodes", "Nodes by state", self.nodes.clone());
        r.register("outbox_entries", "Outbox rows by state", self.outbox.clone());
        r.register(
            "controllers",
            "Other controllers: enrolled or leaving; of both: shut out until they renew, and with a certificate that ends within a month",
            self.controllers.clone(),
        );
        r.register("ready", "1 once discovery and the Matter stack run", self.ready.clone());
        r.register("cloud_reachable", "1 if the cloud answered when last asked", self.cloud_reachable.clone());
    }

    /// An attempt ended.
    pub fn count_attempt(&self, outcome: &str, code: &str, took: Option<Duration>) {
        let labels = AttemptLabels { outcome: outcome.to_owned(), code: code.to_owned() };
        self.attempts.get_or_create(&labels).inc();
        if let Some(took) = took {
            self.attempt_seconds.observe(took.as_secs_f64());
        }
    }

    /// A step of an attempt succeeded.
    pub fn observe_step(&self, step: &str, took: Duration) {
        self.step_seconds.get_or_create(&StepLabels { step: step.to_owned() }).observe(took.as_secs_f64());
    }

    /// The cloud was asked; `code` is the body code, or a word such as `not-sent`.
    pub fn count_cloud_call(&self, kind: &str, code: &str, took: Duration) {
        self.cloud_seconds.get_or_create(&CallLabels { kind: kind.to_owned() }).observe(took.as_secs_f64());
        self.cloud_calls.get_or_create(&BindLabels { kind: kind.to_owned(), code: code.to_owned() }).inc();
    }

    /// An admin request was answered.
    pub fn count_request(&self, path: &str, status: u16, took: Duration) {
        self.requests.get_or_create(&RequestLabels { path: path.to_owned(), status }).inc();
        self.request_seconds.observe(took.as_secs_f64());
    }

    /// A connection or a request was refused; the reason is a stable word.
    pub fn count_refused(&self, reason: &str) {
        self.refused.get_or_create(&RefusedLabels { reason: reason.to_owned() }).inc();
    }

    /// Nodes in one state.
    pub fn set_nodes(&self, state: &str, count: u64) {
        self.nodes.get_or_create(&StateLabels { state: state.to_owned() }).set(count);
    }

    /// Outbox rows in one state.
    pub fn set_outbox(&self, state: &str, count: u64) {
        self.outbox.get_or_create(&StateLabels { state: state.to_owned() }).set(count);
    }

    /// Controllers in one state.
    pub fn set_controllers(&self, state: &str, count: u64) {
        self.controllers.get_or_create(&StateLabels { state: state.to_owned() }).set(count);
    }

    /// Whether the daemon is ready.
    pub fn set_ready(&self, ready: bool) {
        self.ready.set(u64::from(ready));
    }

    /// Whether the cloud answered when last asked.
    pub fn set_cloud_reachable(&self, reachable: bool) {
        self.cloud_reachable.set(u64::from(reachable));
    }

    /// OpenMetrics text.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing into a String does not fail");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_moved_by_its_event_and_by_one() {
        let metrics = Metrics::default();
        let took = Duration::from_secs(1);
        metrics.count_attempt("commissioned", "", Some(took));
        metrics.observe_step("pase", took);
        metrics.count_cloud_call("bind", "200", took);
        metrics.count_request("/v1/nodes", 200, took);
        metrics.count_refused("forbidden");
        metrics.set_nodes("operational", 1);
        metrics.set_outbox("waiting", 1);
        metrics.set_ready(true);
        metrics.set_cloud_reachable(true);
        let text = metrics.encode();
        let names: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        assert_eq!(names.len(), 12, "{names:?}");
        for name in names {
            let ends = ["", "_total", "_count"].map(|end| format!("{name}{end}"));
            let is_its = |line: &&str| ends.iter().any(|own| line.split(['{', ' ']).next() == Some(own));
            let moved = text.lines().filter(is_its).any(|line| line.ends_with(" 1"));
            assert!(moved, "{name} did not move by one:\n{text}");
        }
    }
}
