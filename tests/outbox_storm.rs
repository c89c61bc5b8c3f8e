//! Local equals cloud, whatever happens: the real outbox and the real store against a cloud that fails at random, on a
//! virtual clock, with the dispatcher killed and started again in between.
//!
//! Checked at the end of every run: no row is left, the cloud holds exactly what was asked for, and every bind took effect
//! exactly once. The failing cloud is in `fake_cloud`; the HTTP one has its own tests.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

#[path = "outbox_storm/fake_cloud.rs"]
mod fake_cloud;
#[path = "outbox_storm/household.rs"]
mod household;

use std::collections::HashMap;
use std::iter;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fake_cloud::{CodesFromDevice, FakeCloud};
use household::{Expected, Silent, Wish, device, queue, record, request, wishes};
use jiff::Timestamp;
use matterbind::facade::bind::BindState;
use matterbind::facade::commissioning::ports::NodeStore;
use matterbind::facade::journal::EventSink;
use matterbind::facade::node::NodeId;
use matterbind::facade::outbox::dispatcher::{DispatchOptions, Dispatcher, Now, OutboxHandle, wait_for};
use matterbind::facade::outbox::ports::OutboxTask;
use matterbind::facade::store::{JournalFilter, JournalLimits, Store};
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const START: Timestamp = Timestamp::constant(1_795_000_000, 0);

fn clock() -> Now {
    let begin = Instant::now();
    Arc::new(move || START.checked_add(begin.elapsed()).expect("a test lasts days, not millennia"))
}

fn dispatcher<E: EventSink>(
    store: &Store,
    cloud: &Arc<FakeCloud>,
    events: E,
    clock: &Now,
    seed: u64,
) -> (Dispatcher<Store, FakeCloud, CodesFromDevice, E>, OutboxHandle) {
    let options = DispatchOptions { seed, ..DispatchOptions::default() };
    let codes = Arc::new(CodesFromDevice);
    Dispatcher::new(Arc::new(store.clone()), cloud.clone(), codes, Arc::new(events), clock.clone(), options)
}

/// Runs until nothing is left, killing the dispatcher `kills` times on the way.
async fn weather(store: &Store, cloud: &Arc<FakeCloud>, seed: u64, kills: u32) {
    let clock = clock();
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..kills {
        let (dispatcher, _) = dispatcher(store, cloud, Silent, &clock, seed);
        let running = tokio::spawn(dispatcher.run(CancellationToken::new()));
        tokio::time::sleep(Duration::from_millis(random.random_range(50..20_000))).await;
        // As SIGKILL does: calls are cut off wherever they are.
        running.abort();
        let _ = running.await;
    }
    let (dispatcher, handle) = dispatcher(store, cloud, Silent, &clock, seed);
    let mut results = handle.results();
    let cancel = CancellationToken::new();
    let running = tokio::spawn(dispatcher.run(cancel.clone()));
    while !store.counts().await.unwrap().outbox.is_empty() {
        // A listener that is behind only looks at the queue once more.
        let _ = results.recv().await;
    }
    cancel.cancel();
    running.await.unwrap().unwrap();
}

async fn check(store: &Store, cloud: &FakeCloud, expected: &HashMap<u64, Expected>) {
    for (node, expected) in expected {
        assert_eq!(&cloud.holds(&device(*node)), &expected.bound, "node {node}");
        assert_eq!(cloud.binds_committed(&device(*node)), expected.binds, "node {node}: each bind exactly once");
        let state = store.node(NodeId(*node)).await.unwrap().unwrap().bind.state;
        let wanted = if expected.bound.is_some() { BindState::Bound } else { BindState::Disabled };
        assert_eq!(state, wanted, "node {node}");
    }
}

/// The store is as real in memory-backed files, and `fsync` costs nothing there.
fn state_dir() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

async fn storm(seed: u64, devices: &[Vec<Wish>], kills: u32) {
    let dir = state_dir();
    let store = Store::open(dir.path()).unwrap();
    let cloud = Arc::new(FakeCloud::stormy(seed, Duration::from_secs(120)));
    let mut expected = HashMap::new();
    for (index, wishes) in devices.iter().enumerate() {
        let node = 1001 + index as u64;
        expected.insert(node, queue(&store, node, wishes, iter::repeat(START)).await);
    }
    weather(&store, &cloud, seed, kills).await;
    check(&store, &cloud, &expected).await;
    store.close().await;
}

#[tokio::test(start_paused = true)]
async fn two_hundred_nodes_come_through_ten_storms() {
    for seed in 1..=10 {
        println!("fault storm, seed {seed}");
        let mut random = StdRng::seed_from_u64(seed ^ 0xABCD);
        let devices = wishes(&mut random, 200);
        storm(seed, &devices, 3).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn whatever_is_wished_and_whatever_fails_the_cloud_ends_as_the_hub(
        seed: u64,
        kills in 0u32..4,
        devices in proptest::collection::vec(
            proptest::collection::vec(
                prop_oneof![Just(Wish::Rename), Just(Wish::Move), Just(Wish::NewIdentity), Just(Wish::Unbind)], 0..5),
            1..6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(storm(seed, &devices, kills));
    }
}

/// One bind without trouble: the caller hears of it, the record says bound, the log has one line about it.
#[tokio::test]
async fn a_calm_bind_is_awaited_and_logged_once() {
    let dir = state_dir();
    let store = Store::open(dir.path()).unwrap();
    let journal = store.journal(JournalLimits::default()).await;
    let cloud = Arc::new(FakeCloud::calm());
    let clock: Now = Arc::new(Timestamp::now);
    let (dispatcher, handle) = dispatcher(&store, &cloud, journal.clone(), &clock, 1);
    let cancel = CancellationToken::new();
    let running = tokio::spawn(dispatcher.run(cancel.clone()));
    let mut results = handle.results();
    let bind = OutboxTask::Bind(request(1001, 0, "light", None));
    let row =
        store.commit_commissioned(Uuid::now_v7(), &record(1001, START), Some(&bind), "{}").await.unwrap().unwrap();
    let result = wait_for(&mut results, row, Duration::from_secs(30)).await.unwrap();
    assert_eq!((result.state, result.status.map(|status| status.state)), (None, Some(BindState::Bound)));
    assert_eq!(store.node(NodeId(1001)).await.unwrap().unwrap().bind.state, BindState::Bound);
    cancel.cancel();
    running.await.unwrap().unwrap();
    let events = journal.query(JournalFilter::default()).await.unwrap();
    let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["node-bound"]);
    let shown = format!("{events:?}");
    assert!(!shown.contains("0123456789ABCDEF") && !shown.contains("auth-key"), "no secret in the log");
}

/// A refusal that only a person can lift is one event with a hint, not one for each daily look.
#[tokio::test(start_paused = true)]
async fn a_row_that_waits_for_a_person_says_so_once() {
    let dir = state_dir();
    let store = Store::open(dir.path()).unwrap();
    let journal = store.journal(JournalLimits { max_age: Duration::MAX, max_bytes: 1 << 20 }).await;
    let cloud = Arc::new(FakeCloud::always(5229));
    let clock = clock();
    let (dispatcher, handle) = dispatcher(&store, &cloud, journal.clone(), &clock, 1);
    let cancel = CancellationToken::new();
    let mut results = handle.results();
    let running = tokio::spawn(dispatcher.run(cancel.clone()));
    let bind = OutboxTask::Bind(request(1001, 0, "light", None));
    store.commit_commissioned(Uuid::now_v7(), &record(1001, START), Some(&bind), "{}").await.unwrap();
    // The first try and two daily ones.
    for _ in 0..3 {
        let result = results.recv().await.unwrap();
        assert!(result.is_settled() && result.hint.contains("associate the product"), "{result:?}");
    }
    cancel.cancel();
    running.await.unwrap().unwrap();
    let events = journal.query(JournalFilter::default()).await.unwrap();
    assert_eq!(events.iter().map(|event| event.kind.as_str()).collect::<Vec<_>>(), ["needs-operator"]);
    let node = store.node(NodeId(1001)).await.unwrap().unwrap();
    assert_eq!((node.bind.state, node.bind.code, node.bind.tries), (BindState::Pending, Some(5229), 3));
}
