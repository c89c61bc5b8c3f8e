//! Local equals cloud, whatever happens, with everything real but the devices: outbox, store and cloud client in a process
//! of their own, the reference cloud over HTTP in a storm of its faults, SIGKILL, and two minutes that take seconds.
//!
//! ```text
//! test ── stdin: how far the clock is ahead ──▶ hub (killed and started again) ──HTTP──▶ reference cloud, in the test
//!      ◀── stdout: idle until / settled ──────
//! ```
//!
//! Time is the machine's time plus what was skipped. It is skipped only while the hub waits for its next row and the cloud
//! works on no request, so that whatever the cloud does late is done before the hub's pause is over, as it is outside.
//! The same with cloud and clock in memory, and for wishes of all kinds, is in `outbox_storm`.

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

#[path = "../outbox_storm/household.rs"]
mod household;
mod hub;

use std::collections::HashMap;
use std::iter;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use household::{Expected, device, queue, request, wishes};
use jiff::{SignedDuration, Timestamp};
use matterbind::facade::bind::BindState;
use matterbind::facade::node::NodeId;
use matterbind::facade::sim::cloud::{Scenario, SimCloud, Traffic};
use matterbind::facade::store::Store;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const DEVICES: usize = 200;
const SECONDS: i64 = 120;
const KILLS: usize = 4;
/// Of a whole storm; far above what it takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(240);
/// Where a hub finds its state, the cloud, the clock and its seed.
const STATE: &str = "MATTERBIND_STORM_STATE";
const CLOUD: &str = "MATTERBIND_STORM_CLOUD";
const AHEAD: &str = "MATTERBIND_STORM_AHEAD";
const SEED: &str = "MATTERBIND_STORM_SEED";

#[tokio::test]
async fn two_hundred_nodes_come_through_ten_storms_of_the_reference_cloud() {
    let storms = stream::iter(1..=10).map(|seed| tokio::spawn(storm(seed))).buffer_unordered(4);
    storms.for_each(|ended| async { println!("{}", ended.unwrap()) }).await;
}

/// The other process; nothing in the one that was started by hand.
#[tokio::test]
async fn hub_process() {
    let Some(state) = std::env::var_os(STATE) else { return };
    let text = |name| std::env::var(name).unwrap();
    hub::run(Path::new(&state), &text(CLOUD), text(AHEAD).parse().unwrap(), text(SEED).parse().unwrap()).await;
}

/// One storm; answers what it was like.
async fn storm(seed: u64) -> String {
    println!("fault storm of the reference cloud, seed {seed}");
    let dir = state_dir();
    std::fs::write(dir.path().join("domain-secret"), "demo-secret-0123456789abcdef").unwrap();
    std::fs::write(dir.path().join("password"), "demo-password").unwrap();
    let mut random = StdRng::seed_from_u64(seed);
    let expected = household(dir.path(), &mut random).await;

    let mut scenario = Scenario::parse(include_str!("../scenarios/storm.toml")).unwrap();
    let storm = scenario.storm.as_mut().unwrap();
    assert_eq!(storm.seconds, SECONDS);
    storm.seed = seed;
    // They expire in the middle of it.
    scenario.access_token_seconds = 20;
    let cloud = SimCloud::new(scenario);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    let shutdown = CancellationToken::new();
    let (server, token) = (cloud.clone(), shutdown.clone());
    let serving = tokio::spawn(async move { server.serve(listener, token).await });

    let weather = Weather { dir: dir.path(), base_url, seed, traffic: cloud.traffic(), cloud: cloud.clone() };
    let began = Timestamp::now();
    let (ahead, kills) = tokio::time::timeout(PATIENCE, weather.play(&mut random)).await.unwrap();
    let simulated = Timestamp::now().duration_since(began) + ahead;
    assert!(simulated.as_secs() >= SECONDS, "the storm is over when the last row is settled");
    check(dir.path(), &cloud, &expected).await;
    shutdown.cancel();
    serving.await.unwrap().unwrap();
    let counters = cloud.counters();
    let requests: u64 = counters.requests.values().sum();
    format!(
        "seed {seed}: {requests} requests, {} faults, {kills} kills, {} sign-ins and {} refreshes, {} s simulated",
        counters.faults,
        counters.logins,
        counters.refreshes,
        simulated.as_secs()
    )
}

/// Devices that are commissioned, and change, all through the storm.
async fn household(dir: &Path, random: &mut StdRng) -> HashMap<u64, Expected> {
    let store = Store::open(dir).unwrap();
    let now = Timestamp::now();
    let mut expected = HashMap::new();
    for (node, wishes) in iter::zip(1001.., wishes(random, DEVICES)) {
        let first = now + SignedDuration::from_millis(random.random_range(0..SECONDS * 1000));
        let later = iter::successors(Some(first), |last| {
            let rest = (now + SignedDuration::from_secs(SECONDS)).duration_since(*last);
            Some(*last + rest / 2)
        });
        expected.insert(node, queue(&store, node, &wishes, later).await);
    }
    store.close().await;
    expected
}

struct Weather<'a> {
    dir: &'a Path,
    base_url: String,
    seed: u64,
    cloud: SimCloud,
    traffic: watch::Receiver<Traffic>,
}

/// A hub at work.
struct Hub {
    process: Child,
    orders: ChildStdin,
    words: Lines<BufReader<ChildStdout>>,
}

impl Weather<'_> {
    /// Until nothing is left; answers how much time was skipped, and how often the hub was killed.
    async fn play(self, random: &mut StdRng) -> (SignedDuration, usize) {
        let mut ahead = SignedDuration::ZERO;
        let mut next_kill = 0;
        let mut kills: Vec<u64> = iter::repeat_with(|| {
            next_kill += random.random_range(30..400);
            next_kill
        })
        .take(KILLS)
        .collect();
        kills.reverse();
        let mut hub = self.start(ahead);
        loop {
            let due = kills.last().copied().unwrap_or(u64::MAX);
            tokio::select! {
                biased;
                // In the middle of a request, and mostly of sixteen.
                () = self.until(|traffic| traffic.begun >= due) => {
                    hub.process.kill().await.unwrap();
                    kills.pop();
                    // A start takes longer than the slowest request.
                    self.until(|traffic| (traffic.under_way, traffic.connections) == (0, 0)).await;
                    hub = self.start(ahead);
                }
                word = hub.next_word() => match word.split_once(' ') {
                    None => break,
                    Some((_, at)) => {
                        self.until(|traffic| traffic.under_way == 0).await;
                        let at: Timestamp = at.parse().unwrap();
                        let skip = at.duration_since(Timestamp::now() + ahead).max(SignedDuration::ZERO);
                        ahead += skip;
                        self.cloud.advance(skip);
                        hub.orders.write_all(format!("{}\n", ahead.as_micros()).as_bytes()).await.unwrap();
                    }
                },
            }
        }
        drop(hub.orders);
        assert!(hub.process.wait().await.unwrap().success());
        (ahead, KILLS - kills.len())
    }

    async fn until(&self, reached: impl FnMut(&Traffic) -> bool) {
        self.traffic.clone().wait_for(reached).await.unwrap();
    }

    fn start(&self, ahead: SignedDuration) -> Hub {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "hub_process", "--nocapture"])
            .env(STATE, self.dir)
            .env(CLOUD, &self.base_url)
            .env(AHEAD, ahead.as_micros().to_string())
            .env(SEED, self.seed.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (orders, words) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        Hub { process, orders, words: BufReader::new(words).lines() }
    }
}

impl Hub {
    /// The harness talks too.
    async fn next_word(&mut self) -> String {
        loop {
            let line = self.words.next_line().await.unwrap().expect("a hub does not end by itself");
            if let Some((_, word)) = line.split_once("storm: ") {
                return word.to_owned();
            }
        }
    }
}

async fn check(dir: &Path, cloud: &SimCloud, expected: &HashMap<u64, Expected>) {
    let store = Store::open(dir).unwrap();
    assert!(store.outbox_entries().await.unwrap().is_empty());
    let (bindings, counters) = (cloud.bindings(), cloud.counters());
    assert_eq!(bindings.len(), expected.values().filter(|expected| expected.bound.is_some()).count());
    for (node, expected) in expected {
        let key = device(*node);
        let held = bindings.iter().find(|row| row.device_key == key.device_key).map(|row| {
            let discriminator = row.matter_info["discriminator"].as_u64().unwrap();
            assert_eq!(row.matter_info["nodeId"], *node);
            assert_eq!(row.matter_info["fabricId"], request(*node, 0, "", None).matter_info.fabric_id.0);
            (row.device_name.clone(), row.room_id.clone(), discriminator)
        });
        assert_eq!(held, expected.bound, "node {node}");
        let name = format!("{}/{}", key.product_key, key.device_key);
        let took_effect = |counts: &std::collections::BTreeMap<String, u64>| counts.get(&name).copied().unwrap_or(0);
        assert_eq!(took_effect(&counters.commits), u64::from(expected.binds), "node {node}: each bind exactly once");
        assert_eq!(
            took_effect(&counters.unbinds),
            u64::from(expected.unbinds),
            "node {node}: each unbind exactly once"
        );
        let state = store.node(NodeId(*node)).await.unwrap().unwrap().bind.state;
        let wanted = if expected.bound.is_some() { BindState::Bound } else { BindState::Disabled };
        assert_eq!(state, wanted, "node {node}");
    }
    store.close().await;
}

/// The store is as real in memory-backed files, and `fsync` costs nothing there.
fn state_dir() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}
