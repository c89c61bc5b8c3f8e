//! What the outbox adds to the cloud's own time: `cargo bench --bench outbox`. Prints medians and ratios, asserts nothing.
//!
//! Real store, real dispatcher, real HTTP client; the reference cloud answers after a fixed time. A bind is two requests:
//! the bind and the read-back that compares the Matter ids. What the cloud's answer takes by itself is measured beside it, by
//! a bare HTTP client that keeps its connection: a timer of 50 ms rings later than that.
//!
//! Goals: one bind at most 5 ms above the cloud's own time; 1,000 binds, 16 at a time, within 1.2 times the arithmetic.

#[path = "../tests/cloud/rig.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "shared with the cloud's tests, where a panic is the report")]
mod rig;

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use matterbind::facade::bind::{BindRequest, BindState, MatterInfo};
use matterbind::facade::commissioning::ports::NodeStore;
use matterbind::facade::journal::{Event, EventSink};
use matterbind::facade::node::{NodeId, NodeRecord, sample};
use matterbind::facade::outbox::dispatcher::{DispatchOptions, Dispatcher, OutboxHandle, wait_for};
use matterbind::facade::outbox::ports::{BindingCodeSource, OutboxTask};
use matterbind::facade::secret::BindingCode;
use matterbind::facade::sim::cloud::{Fault, FaultKind, Scenario};
use matterbind::facade::store::Store;
use rig::Rig;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How long the cloud takes for each answer.
const ANSWER: Duration = Duration::from_millis(50);
const SINGLE: u64 = 40;
const QUEUED: u64 = 1000;
const AT_ONCE: usize = 16;
/// A run that takes longer is broken.
const BUDGET: Duration = Duration::from_secs(120);

#[tokio::main]
async fn main() {
    one_at_a_time().await;
    many_queued().await;
}

/// From the commit of the node record to the settled row, one device after the other.
async fn one_at_a_time() {
    let (rig, directory) = (slow_cloud().await, tempfile::tempdir().expect("a temporary directory"));
    let store = Store::open(&directory.path().join("state")).expect("an empty directory can be opened");
    let stop = CancellationToken::new();
    let (handle, running) = start(&rig, &store, &stop);
    bind(&store, &handle, 0).await;
    let before = rig.cloud.counters().requests.values().sum::<u64>();
    let (mut took, mut bare, mut bare_requests) = (Vec::new(), Vec::new(), 0);
    let client = reqwest::Client::new();
    for node in 1..=SINGLE {
        let began = Instant::now();
        bind(&store, &handle, node).await;
        took.push(began.elapsed());
        bare.push(ask(&client, &rig).await);
        bare_requests += 1;
    }
    let requests = rig.cloud.counters().requests.values().sum::<u64>() - before - bare_requests;
    let (median, answer, each) = (middle(took), middle(bare), requests as f64 / SINGLE as f64);
    let added = median.as_secs_f64() - each * answer.as_secs_f64();
    println!("one bind: median {:.1} ms with {each:.1} requests", ms(median));
    println!("the cloud's own answer: median {:.1} ms for a bare client", ms(answer));
    println!("one bind: the hub adds {:.2} ms (goal 5)", added * 1000.0);
    stop.cancel();
    running.await.expect("no panic");
}

/// One request of a bare client.
async fn ask(client: &reqwest::Client, rig: &Rig) -> Duration {
    let began = Instant::now();
    let url = format!("{}/v2/binding/enduserapi/userDeviceList", rig.config.base_url);
    let answer = client.get(url).send().await.expect("the cloud answers");
    answer.bytes().await.expect("to the end");
    began.elapsed()
}

/// Everything queued before the dispatcher starts.
async fn many_queued() {
    let (rig, directory) = (slow_cloud().await, tempfile::tempdir().expect("a temporary directory"));
    let store = Store::open(&directory.path().join("state")).expect("an empty directory can be opened");
    let began = Instant::now();
    for node in 0..QUEUED {
        commit(&store, node).await;
    }
    println!("{QUEUED} commits of record and row: {:.2} ms each", ms(began.elapsed()) / QUEUED as f64);
    let stop = CancellationToken::new();
    let began = Instant::now();
    let (handle, running) = start(&rig, &store, &stop);
    let mut results = handle.results();
    let mut settled = 0;
    while settled < QUEUED {
        let result = tokio::time::timeout(BUDGET, results.recv()).await.expect("in time").expect("it can keep up");
        settled += u64::from(result.is_settled());
    }
    let took = began.elapsed();
    let requests = rig.cloud.counters().requests.values().sum::<u64>();
    let ideal = requests as f64 / AT_ONCE as f64 * ANSWER.as_secs_f64();
    println!(
        "{QUEUED} binds, {AT_ONCE} at a time, {requests} requests of {} ms: {:.2} s",
        ANSWER.as_millis(),
        took.as_secs_f64()
    );
    println!("arithmetic {ideal:.2} s, ratio {:.3} (goal 1.2)", took.as_secs_f64() / ideal);
    stop.cancel();
    running.await.expect("no panic");
}

async fn slow_cloud() -> Rig {
    let rig = Rig::start(Scenario::default()).await;
    let kind = FaultKind::Delay { delay_ms: u64::try_from(ANSWER.as_millis()).expect("50 fits") };
    rig.cloud.fault(Fault { times: u32::MAX, ..Fault::of_bind(kind).on("*") });
    rig
}

fn start(rig: &Rig, store: &Store, stop: &CancellationToken) -> (OutboxHandle, tokio::task::JoinHandle<()>) {
    let options = DispatchOptions { parallel: AT_ONCE, ..DispatchOptions::default() };
    let (store, client) = (Arc::new(store.clone()), Arc::new(rig.client()));
    let (dispatcher, handle) =
        Dispatcher::new(store, client, Arc::new(NoCodes), Arc::new(Silent), Arc::new(Timestamp::now), options);
    let stop = stop.clone();
    (handle, tokio::spawn(async move { dispatcher.run(stop).await.expect("the store holds") }))
}

async fn bind(store: &Store, handle: &OutboxHandle, node: u64) {
    let mut results = handle.results();
    let row = commit(store, node).await;
    let result = wait_for(&mut results, row, BUDGET).await.expect("it is settled");
    assert_eq!(result.status.map(|status| status.state), Some(BindState::Bound), "a benchmark of failures is none");
}

async fn commit(store: &Store, node: u64) -> matterbind::facade::outbox::ports::OutboxId {
    let (record, request) = (record(node), request(node));
    let row =
        store.commit_commissioned(Uuid::now_v7(), &record, Some(&OutboxTask::Bind(Box::new(request))), "{}").await;
    row.expect("the store holds").expect("there is a task")
}

fn request(node: u64) -> BindRequest {
    let plain = rig::request(&rig::device("p11abc", &format!("BENCH{node:05}")));
    BindRequest {
        binding_code: BindingCode::new("0123456789ABCDEF"),
        matter_info: MatterInfo { node_id: NodeId(1000 + node), discriminator: Some(3840), ..plain.matter_info },
        ..plain
    }
}

fn record(node: u64) -> NodeRecord {
    let BindRequest { device, matter_info, .. } = request(node);
    NodeRecord {
        fabric_id: matter_info.fabric_id,
        serial_number: Some(device.device_key.clone()),
        cats: matter_info.cats,
        product_key: Some(device.product_key),
        device_key: Some(device.device_key),
        commissioned_at: Timestamp::now(),
        ..sample(matter_info.node_id.0)
    }
}

fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// No device to read a code from.
struct NoCodes;

impl BindingCodeSource for NoCodes {
    async fn fresh_code(&self, _: NodeId, _: &MatterInfo) -> Option<BindingCode> {
        None
    }
}

/// Events only count.
struct Silent;

impl EventSink for Silent {
    fn record(&self, _: Event) {}
}
