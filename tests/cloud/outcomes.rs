//! What every code comes to: one bind through outbox, client and HTTP to the reference cloud, until it is settled. The
//! cloud comes to a code by itself where it can; the others are its answer to whatever is asked.
//!
//! Pauses are skipped: the outbox's clock goes on to the time at which the row is due.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};
use matterbind::facade::bind::{BindRequest, BindState, MatterInfo, codes};
use matterbind::facade::cloud::{Client, MemoryTokens};
use matterbind::facade::commissioning::ports::NodeStore;
use matterbind::facade::node::NodeId;
use matterbind::facade::outbox::dispatcher::{DispatchOptions, Dispatcher};
use matterbind::facade::outbox::ports::{BindApi, BindingCodeSource, OutboxState, OutboxStore, OutboxTask};
use matterbind::facade::secret::BindingCode;
use matterbind::facade::sim::cloud::{Fault, FaultKind};
use matterbind::facade::store::Store;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::household::{self, Silent};
use crate::rig::{Rig, device, request, scenario};

/// What the device MISMATCH1 has reported.
const FRESH: &str = "FEDCBA9876543210";

struct CodesFromDevice;

impl BindingCodeSource for CodesFromDevice {
    async fn fresh_code(&self, _: NodeId, _: &MatterInfo) -> Option<BindingCode> {
        Some(BindingCode::new(FRESH))
    }
}

/// How the cloud comes to its answer.
#[derive(Clone, Copy)]
enum Cause {
    /// The state of this device (tests/scenarios/every-code.toml).
    Device(&'static str, &'static str),
    /// What is asked.
    Asked(fn(&mut BindRequest)),
    /// It answers so each time, and does nothing.
    Always,
    /// It answers so once, and does nothing.
    Once,
    /// It answers so once, and has done it.
    Hidden,
}
use Cause::{Always, Asked, Device, Hidden, Once};

/// How the bind ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Bound,
    /// A person is told this.
    Operator(&'static str),
    /// Refused for good, and this is said.
    Rejected(&'static str),
}
use End::{Bound, Operator, Rejected};

/// Code, cause, end, and how often the bind was sent where that is all that matters.
type Case = (i64, Cause, End, Option<u32>);

const REACHES_THE_INTERNET: &str = "check that the device reaches the internet";
const REPORT: &str = "report it";

/// Cloud-contract 5, the seed's codes first.
#[rustfmt::skip]
const CASES: &[Case] = &[
    (200, Device("pstrict", "GOOD0001"), Bound, Some(1)),
    (5009, Device("pstrict", "UNVERIFIED1"), Operator(REACHES_THE_INTERNET), None),
    (5032, Always, Operator("check the hub's clock"), Some(2)),
    (5032, Once, Bound, Some(1)),
    (5048, Always, Operator("ask its operator"), Some(9)),
    (5048, Once, Bound, Some(2)),
    (5048, Hidden, Bound, Some(1)),
    (5049, Device("pstrict", "GOOD0001"), Operator("unbind and bind again"), Some(1)),
    (5049, Always, Operator("not to the hub's account"), Some(1)),
    (5049, Hidden, Bound, Some(1)),
    (5066, Asked(|request| request.device.product_key.clear()), Rejected("give the device's product key"), Some(1)),
    (5067, Asked(|request| request.device.device_key.clear()), Rejected("give the device's device key"), Some(1)),
    (5106, Always, Rejected("Authorization header"), Some(2)),
    (5106, Once, Bound, Some(1)),
    (5179, Asked(|request| request.binding_code = BindingCode::new("")), Rejected("give the device's binding code"), Some(1)),
    (5213, Always, Rejected("16 characters"), Some(2)),
    (5213, Asked(|request| request.binding_code = BindingCode::new("0123456789abcdef")), Bound, Some(2)),
    (5229, Device("pother", "AAAA0001"), Operator("associate the product"), Some(1)),
    (5314, Device("pstrict", "UNKNOWN1"), Operator("check product key and device key"), Some(6)),
    (5314, Once, Bound, Some(2)),
    (5333, Asked(|request| request.device_name = Some("x".repeat(255))), Bound, Some(2)),
    (5333, Always, Rejected("shorter name"), Some(2)),
    (5361, Asked(|request| request.device.device_key = "no-dk!".to_owned()), Rejected("check products.device_key"), Some(1)),
    (5412, Device("punique", "LOCK0001"), Operator("its owner must unbind or share it"), Some(1)),
    (5412, Hidden, Bound, Some(1)),
    (5460, Device("pstrict", "NOCODE01"), Operator(REACHES_THE_INTERNET), None),
    (5460, Once, Bound, Some(2)),
    (5460, Hidden, Bound, Some(1)),
    (5461, Device("pstrict", "EXPIRED1"), Operator("open the device's binding window again"), Some(4)),
    (5461, Hidden, Bound, Some(1)),
    (5462, Device("pstrict", "MISMATCH1"), Bound, Some(2)),
    (5462, Always, Operator("from this very device again"), Some(2)),
    (5462, Hidden, Bound, Some(1)),
    (5465, Device("pstrict", "NOSECRET1"), Operator("update its firmware"), None),
    (5879, Always, Rejected("discriminator is 0"), Some(1)),
    (5880, Always, Rejected("product id is 0"), Some(1)),
    (5881, Always, Rejected(REPORT), Some(1)),
    (5882, Always, Rejected(REPORT), Some(1)),
    (5883, Always, Rejected(REPORT), Some(1)),
    (5885, Always, Rejected(REPORT), Some(1)),
    (6083, Device("pstrict", "ELSEWHERE1"), Operator("set cloud.base_url"), Some(1)),
    // Unlisted.
    (5000, Always, Operator("the service keeps failing"), Some(9)),
    (5000, Hidden, Bound, Some(1)),
    (5624, Asked(|request| request.family_id = Some("f-off".to_owned())), Bound, Some(2)),
    (5636, Asked(|request| request.family_id = Some("f-none".to_owned())), Bound, Some(2)),
    (5669, Asked(|request| request.family_id = Some("f-member".to_owned())), Bound, Some(2)),
    (5624, Always, Operator("clear cloud.family_id"), Some(1)),
    (5636, Always, Operator("set cloud.family_id"), Some(1)),
    (5669, Always, Operator("administrator of the family"), Some(1)),
    (5893, Always, Operator("matterbind outbox retry"), Some(1)),
    (5893, Hidden, Bound, Some(1)),
    (6040, Always, Operator("remove the shared device"), Some(1)),
    (5884, Always, Operator("a code that is in no document"), Some(1)),
    (5884, Hidden, Bound, Some(1)),
    (0, Once, Bound, Some(2)),
    (0, Hidden, Bound, Some(1)),
];

#[tokio::test]
async fn every_code_ends_as_the_contract_says() {
    let mut wrong = Vec::new();
    for (code, cause, end, tries) in CASES {
        let (ended, tried, answered) = bind(*code, *cause).await;
        let as_said = match (end, &ended) {
            (Bound, (None, hint)) => hint.is_empty(),
            (Operator(expected), (Some(OutboxState::WaitingForOperator), hint))
            | (Rejected(expected), (Some(OutboxState::Rejected), hint)) => {
                hint.contains(expected) && answered == Some(*code)
            }
            _ => false,
        };
        if !as_said || tries.is_some_and(|tries| tries != tried) {
            wrong.push(format!("{code}: {end:?}, {tries:?} times; but {ended:?} after {answered:?}, {tried} times"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let reached = |row: &&codes::CodeMeaning| CASES.iter().any(|(code, ..)| *code == row.code);
    let missed: Vec<i64> =
        codes::CODES.iter().filter(|row| row.in_seed).filter(|row| !reached(row)).map(|row| row.code).collect();
    assert!(missed.is_empty(), "{missed:?}");
}

/// One bind to its end: where its row stands with its hint, how often it was sent, and the last code in the record.
async fn bind(code: i64, cause: Cause) -> ((Option<OutboxState>, String), u32, Option<i64>) {
    let rig = Rig::start(scenario("every-code")).await;
    let mut request = request(&device("p11abc", "NEW00001"));
    match cause {
        Device(product, key) => request.device = device(product, key),
        Asked(ask) => ask(&mut request),
        Always => rig.cloud.fault(Fault { times: u32::MAX, ..Fault::of_bind(FaultKind::Code { code }) }),
        Once => rig.cloud.fault(Fault::of_bind(FaultKind::Code { code })),
        Hidden => rig.cloud.fault(Fault::of_bind(FaultKind::Code { code }).after_commit()),
    }
    rig.cloud.change(|scenario| {
        let mut family = scenario.families[0].clone();
        (family.id, family.role) = ("f-member".to_owned(), 3);
        scenario.families.push(family);
        scenario.users[0].family_mode = request.family_id.as_deref() != Some("f-off");
    });
    match (code, cause) {
        // With ids that it had before.
        (5049, Device(..)) => {
            let mut earlier = request.clone();
            earlier.matter_info.node_id = NodeId(7);
            rig.client().bind(&earlier).await.unwrap();
        }
        (5412, Device(..)) => {
            let mut other = rig.config.clone();
            other.email = "other@example.com".to_owned();
            other.password_file = rig.secrets.path().join("other-password");
            std::fs::write(&other.password_file, "other-password").unwrap();
            Client::new(&other, MemoryTokens::default()).unwrap().bind(&request).await.unwrap();
        }
        _ => {}
    }

    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let ahead = Arc::new(AtomicI64::new(0));
    let clock = {
        let ahead = ahead.clone();
        move || Timestamp::now() + SignedDuration::from_micros(ahead.load(Ordering::Acquire))
    };
    let mut record = household::record(1000, clock());
    record.product_key = Some(request.device.product_key.clone());
    record.device_key = Some(request.device.device_key.clone());
    let (dispatcher, handle) = Dispatcher::new(
        Arc::new(store.clone()),
        Arc::new(rig.client()),
        Arc::new(CodesFromDevice),
        Arc::new(Silent),
        Arc::new(clock.clone()),
        DispatchOptions::default(),
    );
    let mut results = handle.results();
    let task = OutboxTask::Bind(Box::new(request));
    store.commit_commissioned(Uuid::now_v7(), &record, Some(&task), "{}").await.unwrap();
    let cancel = CancellationToken::new();
    let running = tokio::spawn(dispatcher.run(cancel.clone()));
    let result = loop {
        let result = results.recv().await.unwrap();
        if result.is_settled() {
            break result;
        }
        let pause = store.next_due_at(&[]).await.unwrap().unwrap().duration_since(clock());
        ahead.fetch_add(i64::try_from(pause.as_micros().max(0)).unwrap(), Ordering::AcqRel);
        handle.wake();
    };
    cancel.cancel();
    running.await.unwrap().unwrap();

    // Refused or not, the node stays, and its record says how it stands.
    let bind = store.node(NodeId(1000)).await.unwrap().unwrap().bind;
    let expected = match result.state {
        None => BindState::Bound,
        Some(OutboxState::Rejected) => BindState::Rejected,
        Some(_) => BindState::Pending,
    };
    assert_eq!(bind.state, expected, "{code}");
    let commits = rig.cloud.counters().commits;
    assert!(commits.values().all(|count| *count == 1), "{code}: {commits:?}");
    assert!(result.state.is_some() || commits.len() == 1, "{code}: {commits:?}");
    store.close().await;
    ((result.state, result.hint), bind.tries, bind.code)
}
