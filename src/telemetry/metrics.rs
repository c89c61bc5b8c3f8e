//! The metrics registry. Whoever does something counts it here; `GET /metrics` prints it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use rustix::process::{Resource, getrlimit};

use super::exposition::Exposition;

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

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerdictLabels {
    verdict: String,
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
    cloud_reachable: Gauge<f64, AtomicU64>,
    login_failures: Family<RefusedLabels, Counter>,
    outbox_age: Gauge<f64, AtomicU64>,
    verdicts: Family<VerdictLabels, Gauge<u64, AtomicU64>>,
    sync_age: Gauge<f64, AtomicU64>,
    paas: Gauge<u64, AtomicU64>,
    paa_age: Gauge<f64, AtomicU64>,
    process: Process,
}

/// What every exporter says of its process, under the names that every dashboard knows.
#[derive(Default)]
struct Process {
    cpu_seconds: Counter<f64, AtomicU64>,
    resident: Gauge<u64, AtomicU64>,
    virtual_memory: Gauge<u64, AtomicU64>,
    open_files: Gauge<u64, AtomicU64>,
    most_files: Gauge<u64, AtomicU64>,
    threads: Gauge<u64, AtomicU64>,
    started: Gauge<f64, AtomicU64>,
}

/// Of the hub, as it stands when it is asked.
#[derive(Debug, Clone, Default)]
pub struct HubStanding {
    /// How long the oldest outbox row has waited; `None`: there is none.
    pub outbox_age: Option<Duration>,
    /// How long ago everything was compared; `None`: not since the start.
    pub sync_age: Option<Duration>,
    /// Nodes by the verdict of their last comparison.
    pub verdicts: BTreeMap<String, u64>,
    /// PAA certificates that are trusted.
    pub paas: u64,
    /// How long ago they were fetched; `None`: nobody fetched them.
    pub paa_age: Option<Duration>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics(..)")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
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
            login_failures: Family::default(),
            outbox_age: Gauge::default(),
            verdicts: Family::default(),
            sync_age: Gauge::default(),
            paas: Gauge::default(),
            paa_age: Gauge::default(),
            process: Process::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let p = &self.process;
        let r = self.registry.sub_registry_with_prefix("process");
        r.register("cpu_seconds", "Processor time of the daemon", p.cpu_seconds.clone());
        r.register("resident_memory_bytes", "Resident memory of the daemon", p.resident.clone());
        r.register("virtual_memory_bytes", "Virtual memory of the daemon", p.virtual_memory.clone());
        r.register("open_fds", "Open files of the daemon", p.open_files.clone());
        r.register("max_fds", "How many files the daemon may open", p.most_files.clone());
        r.register("threads", "Threads of the daemon", p.threads.clone());
        r.register("start_time_seconds", "When the daemon started, since 1970", p.started.clone());
        let r = self.registry.sub_registry_with_prefix("matterbind");
        r.register("build", "What is running", Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]));
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
        r.register(
            "cloud_reachable",
            "1 if the cloud answered when last asked; NaN: not asked yet, or none is configured",
            self.cloud_reachable.clone(),
        );
        r.register("login_failures", "Log-ins to the admin API that failed, by reason", self.login_failures.clone());
        r.register("outbox_oldest_age_seconds", "How long the oldest outbox row has waited", self.outbox_age.clone());
        r.register("sync_nodes", "Nodes by the verdict of their last comparison", self.verdicts.clone());
        r.register("sync_age_seconds", "How long ago all nodes were compared; NaN: not yet", self.sync_age.clone());
        r.register("trust_store_paas", "PAA certificates that are trusted", self.paas.clone());
        r.register("trust_store_age_seconds", "How long ago they were fetched; NaN: never", self.paa_age.clone());
    }

    /// Counts an attempt that has ended, and how long it took where it came to an end of its own.
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
    pub fn set_cloud_reachable(&self, reachable: Option<bool>) {
        self.cloud_reachable.set(reachable.map_or(f64::NAN, |reachable| f64::from(u8::from(reachable))));
    }

    /// A log-in failed; the reason is a stable word.
    pub fn count_login_failure(&self, reason: &str) {
        self.login_failures.get_or_create(&RefusedLabels { reason: reason.to_owned() }).inc();
    }

    /// What is known when it is asked.
    pub fn set_standing(&self, standing: &HubStanding) {
        let or_nan = |age: Option<Duration>| age.map_or(f64::NAN, |age| age.as_secs_f64());
        self.outbox_age.set(standing.outbox_age.map_or(0.0, |age| age.as_secs_f64()));
        self.sync_age.set(or_nan(standing.sync_age));
        self.paa_age.set(or_nan(standing.paa_age));
        self.paas.set(standing.paas);
        // A verdict that nobody has any more is gone.
        self.verdicts.clear();
        for (verdict, count) in &standing.verdicts {
            self.verdicts.get_or_create(&VerdictLabels { verdict: verdict.clone() }).set(*count);
        }
    }

    /// Of this process, now, as the kernel counts it. What it does not tell stays as it was.
    pub fn read_process(&self, started_at: Timestamp) {
        let process = &self.process;
        process.started.set(started_at.as_second() as f64);
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // After the program's name, which may hold anything: fields 14 and 15 are user and system time, in ticks of which the
        // kernel shows a hundred a second on every machine.
        let fields = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').collect::<Vec<_>>()).unwrap_or_default();
        let ticks: u64 = fields.iter().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        process.cpu_seconds.inc_by((ticks as f64 / 100.0 - process.cpu_seconds.get()).max(0.0));
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let number = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        let set = |gauge: &Gauge<u64, AtomicU64>, value: Option<u64>| value.map(|value| gauge.set(value));
        set(&process.resident, number("VmRSS").map(|kib| kib << 10));
        set(&process.virtual_memory, number("VmSize").map(|kib| kib << 10));
        set(&process.threads, number("Threads"));
        set(&process.open_files, std::fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as u64));
        set(&process.most_files, getrlimit(Resource::Nofile).current);
    }

    /// All of them, as text.
    pub fn encode(&self, format: Exposition) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing into a String does not fail");
        format.of(text)
    }
}

/// Every metric after one event of its kind: of a family without any, nothing is printed.
#[cfg(test)]
pub(super) fn moved() -> Metrics {
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
    metrics.set_cloud_reachable(Some(true));
    metrics.count_login_failure("wrong-token");
    metrics.set_controllers("enrolled", 1);
    let age = Some(Duration::from_secs(1));
    let verdicts = BTreeMap::from([("match".to_owned(), 1)]);
    metrics.set_standing(&HubStanding { outbox_age: age, sync_age: age, verdicts, paas: 1, paa_age: age });
    metrics
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_moved_by_its_event_and_by_one() {
        let text = moved().encode(Exposition::OpenMetrics);
        let names: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        let names: Vec<&str> = names.into_iter().filter(|name| !name.starts_with("process_")).collect();
        assert_eq!(names.len(), 20, "{names:?}");
        for name in names {
            let ends = ["", "_total", "_count", "_info"].map(|end| format!("{name}{end}"));
            let is_its = |line: &&str| ends.iter().any(|own| line.split(['{', ' ']).next() == Some(own));
            let moved = text.lines().filter(is_its).any(|line| line.ends_with(" 1") || line.ends_with(" 1.0"));
            assert!(moved, "{name} did not move by one:\n{text}");
        }
    }

    /// What `promtool check metrics` looks for, where it is not to be had: names, units, help, types.
    #[test]
    fn names_and_units_are_as_prometheus_wants_them() {
        let metrics = moved();
        metrics.read_process(Timestamp::UNIX_EPOCH);
        let text = metrics.encode(Exposition::OpenMetrics);
        assert!(text.ends_with("# EOF\n"), "{text}");
        let meta = |kind: &str| -> BTreeMap<String, String> {
            let prefix = format!("# {kind} ");
            let lines = text.lines().filter_map(|line| line.strip_prefix(&prefix)?.split_once(' '));
            lines.map(|(name, rest)| (name.to_owned(), rest.to_owned())).collect()
        };
        let (types, help) = (meta("TYPE"), meta("HELP"));
        assert!(types.len() > 20, "{types:?}");
        for (name, kind) in &types {
            assert!(name.starts_with("matterbind_") || name.starts_with("process_"), "{name}");
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'), "{name}");
            assert!(help.get(name).is_some_and(|help| help.len() > 5), "{name} has no help");
            let words: Vec<&str> = name.split('_').collect();
            for wrong in
                ["ms", "milliseconds", "minutes", "hours", "days", "kib", "kb", "mb", "gauge", "counter", "histogram"]
            {
                assert!(!words.contains(&wrong), "{name}: base units, and no type, in a name");
            }
            // Of a counter the text adds _total, of an info _info; of a histogram _bucket, _sum and _count.
            for end in ["_total", "_info", "_bucket", "_sum", "_count"] {
                assert!(!name.ends_with(end), "{name}");
            }
            match kind.as_str() {
                "histogram" => assert!(name.ends_with("_seconds"), "{name}"),
                "counter" | "gauge" | "info" => {}
                other => panic!("{name} is a {other}"),
            }
            // Base units last: nothing follows them.
            for unit in ["seconds", "bytes"] {
                assert!(!words[..words.len() - 1].contains(&unit), "{name}: the unit comes last");
            }
        }
        for promised in
            ["matterbind_build", "process_cpu_seconds", "process_resident_memory_bytes", "matterbind_login_failures"]
        {
            assert!(types.contains_key(promised), "{promised}");
        }
        let resident = text.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes ")).unwrap();
        assert!(resident.parse::<u64>().unwrap() > 1 << 20, "{resident}");
    }
}
