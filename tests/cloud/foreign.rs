//! Something answers instead of the cloud: a captive portal, a proxy, a block page, a gateway without its service. Whatever it
//! says, and at whichever call, it is no verdict: nothing is refused for good, and everything goes on when it is gone.
//!
//! ```text
//! outbox ── client ──HTTP──▶ [page] ▶ reference cloud        the page answers some calls, then it is gone
//! ```
//! Pauses are skipped: the outbox's clock goes on to the time at which the row is due.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use matterbind::facade::bind::{BindState, MatterInfo};
use matterbind::facade::cloud::Client;
use matterbind::facade::commissioning::ports::NodeStore;
use matterbind::facade::node::NodeId;
use matterbind::facade::outbox::dispatcher::{DispatchOptions, Dispatcher};
use matterbind::facade::outbox::ports::{BindApi, BindingCodeSource, CloudError, OutboxState, OutboxStore, OutboxTask};
use matterbind::facade::secret::BindingCode;
use matterbind::facade::sim::cloud::{Fault, FaultKind};
use matterbind::facade::store::Store;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::household::{self, Silent};
use crate::rig::{Rig, device, request};

/// The longest pause between two tries, a sign-in that the service itself forbids excepted.
const LONGEST: SignedDuration = SignedDuration::from_mins(15);
/// How often the page answers before it is gone.
const ANSWERS: u32 = 3;

struct SameCode;

impl BindingCodeSource for SameCode {
    async fn fresh_code(&self, _: NodeId, _: &MatterInfo) -> Option<BindingCode> {
        Some(BindingCode::new(crate::rig::CODE))
    }
}

fn page(status: u16, headers: &[(&str, &str)], body: &str) -> FaultKind {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    FaultKind::Page { status, headers, body: body.to_owned() }
}

const HTML: (&str, &str) = ("Content-Type", "text/html");
const JSON: (&str, &str) = ("Content-Type", "application/json");
const TERMS: &str = "<html><title>Guest Wi-Fi</title>Please accept the terms</html>";

/// Each kind of answer, and what the hint must name.
fn pages() -> Vec<(FaultKind, &'static str)> {
    vec![
        (page(200, &[HTML], TERMS), "a page came"),
        (page(200, &[JSON], "{}"), "a page came"),
        (page(200, &[JSON], r#"{"result":"ok"}"#), "a page came"),
        (page(302, &[("Location", "http://10.0.0.1/login?next=x")], ""), "http://10.0.0.1/login"),
        (page(307, &[("Location", "http://10.0.0.1/login")], TERMS), "http://10.0.0.1/login"),
        (page(400, &[HTML], "bad request"), "who"),
        (page(401, &[("WWW-Authenticate", "Basic")], ""), "credentials"),
        (page(403, &[HTML, ("Server", "waf/1")], "Request blocked"), "firewall"),
        (page(403, &[JSON], r#"{"code":403,"msg":"Forbidden"}"#), "firewall"),
        (page(404, &[HTML], "not found"), "cloud.base_url"),
        (page(407, &[HTML], "proxy"), "proxy"),
        (page(429, &[JSON], r#"{"message":"Too Many Requests"}"#), "patience"),
        (page(429, &[("Retry-After", "3600")], ""), "patience"),
        (page(451, &[HTML], "blocked"), "firewall"),
        (page(500, &[HTML], "oops"), "gateway"),
        (page(502, &[HTML], "oops"), "gateway"),
        (page(503, &[("Retry-After", "120")], ""), "gateway"),
        (page(511, &[HTML], TERMS), "sign-in"),
    ]
}

/// What happened until the row was settled.
struct Course {
    ended: Option<OutboxState>,
    hints: Vec<String>,
    longest: SignedDuration,
}

async fn run(rig: &Rig, update: bool) -> Course {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let ahead = Arc::new(AtomicI64::new(0));
    let clock = {
        let ahead = ahead.clone();
        move || Timestamp::now() + SignedDuration::from_micros(ahead.load(Ordering::Acquire))
    };
    let request = Box::new(request(&device("p11abc", "NEW00001")));
    let mut record = household::record(1000, clock());
    record.product_key = Some(request.device.product_key.clone());
    record.device_key = Some(request.device.device_key.clone());
    let (meter, now) = (Arc::new(Counted::default()), Arc::new(clock.clone()));
    let client = Client::metered(&rig.config, rig.tokens.clone(), meter, now).unwrap();
    let (dispatcher, handle) = Dispatcher::new(
        Arc::new(store.clone()),
        Arc::new(client),
        Arc::new(SameCode),
        Arc::new(Silent),
        Arc::new(clock.clone()),
        DispatchOptions::default(),
    );
    let mut results = handle.results();
    let task = if update { OutboxTask::UpdateMatterInfo(request) } else { OutboxTask::Bind(request) };
    store.commit_commissioned(Uuid::now_v7(), &record, Some(&task), "{}").await.unwrap();
    let cancel = CancellationToken::new();
    let running = tokio::spawn(dispatcher.run(cancel.clone()));
    let (mut hints, mut longest) = (Vec::new(), SignedDuration::ZERO);
    let ended = loop {
        let result = results.recv().await.unwrap();
        if result.is_settled() {
            break result.state;
        }
        hints.push(result.hint);
        let pause = store.next_due_at(&[]).await.unwrap().unwrap().duration_since(clock());
        longest = longest.max(pause);
        ahead.fetch_add(i64::try_from(pause.as_micros().max(0)).unwrap(), Ordering::AcqRel);
        handle.wake();
    };
    cancel.cancel();
    running.await.unwrap().unwrap();
    let state = store.node(NodeId(1000)).await.unwrap().unwrap().bind.state;
    assert_eq!(state, if ended.is_none() { BindState::Bound } else { BindState::Pending });
    store.close().await;
    Course { ended, hints, longest }
}

#[tokio::test]
async fn no_page_costs_a_binding_at_whichever_call_it_comes() {
    let mut wrong = Vec::new();
    for (kind, named) in pages() {
        for endpoint in ["deviceBindingByWifi", "emailPwdLogin", "userDeviceList", "unbundlingDeviceDk", "*"] {
            for update in [false, true] {
                if endpoint == "unbundlingDeviceDk" && !update {
                    continue;
                }
                let rig = Rig::demo().await;
                if update {
                    // Bound for long; now its grants have changed.
                    let mut earlier = request(&device("p11abc", "NEW00001"));
                    earlier.matter_info.cats.clear();
                    Arc::new(rig.client()).bind(&earlier).await.unwrap();
                    let forget = endpoint == "emailPwdLogin";
                    if forget {
                        rig.tokens.forget();
                    }
                }
                let fault = Fault::of_bind(kind.clone()).on(endpoint);
                rig.cloud.fault(Fault { times: ANSWERS, ..fault });
                let course = run(&rig, update).await;
                let bound = rig.cloud.bindings().len() == 1;
                let said = course.hints.iter().any(|hint| hint.contains(named));
                // A 401 is also how a gateway says that the token is old: then a renewal mends it, and nobody needs a hint.
                let mended = matches!(kind, FaultKind::Page { status: 401, .. });
                if course.ended.is_some() || !bound || course.longest > LONGEST || !(said || mended) {
                    let (ended, longest, hints) = (course.ended, course.longest, course.hints);
                    wrong.push(format!("{kind:?} {endpoint} update={update}: {ended:?} {bound} {longest} {hints:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[derive(Default)]
struct Counted(std::sync::Mutex<Vec<String>>);

impl matterbind::facade::cloud::Meter for Counted {
    fn count(&self, call: &'static str, code: &str, _took: Duration) {
        self.0.lock().unwrap().push(format!("{call} {code}"));
    }
}

#[tokio::test]
async fn every_request_is_counted_with_what_answered() {
    let rig = Rig::demo().await;
    let counted = Arc::new(Counted::default());
    let now = Arc::new(jiff::Timestamp::now);
    let client = Client::metered(&rig.config, rig.tokens.clone(), counted.clone(), now).unwrap();
    client.bind(&request(&device("p11abc", "NEW00001"))).await.unwrap();
    assert!(client.bind(&request(&device("p11abc", "NEW00001"))).await.is_err());
    for kind in [page(403, &[HTML], TERMS), FaultKind::Drop, FaultKind::Code { code: 0 }] {
        rig.cloud.fault(Fault::of_bind(kind));
        assert!(client.bind(&request(&device("p11abc", "NEW00001"))).await.is_err());
    }
    let bind = |code| format!("deviceBindingByWifi {code}");
    let expected =
        ["emailPwdLogin 200".to_owned(), bind("200"), bind("5049"), bind("http-403"), bind("unknown"), bind("unknown")];
    assert_eq!(*counted.0.lock().unwrap(), expected);
}

/// The household's on_rejected looks at `rejected` rows: none comes of a page that stays for a week.
#[tokio::test]
async fn a_page_that_stays_is_waited_for() {
    for (kind, _) in pages() {
        let rig = Rig::demo().await;
        rig.cloud.fault(Fault { times: 60, ..Fault::of_bind(kind.clone()).on("*") });
        let course = run(&rig, false).await;
        assert_eq!(course.ended, None, "{kind:?}");
        assert!(course.longest <= LONGEST, "{kind:?} {}", course.longest);
    }
}

#[tokio::test]
async fn a_page_is_no_empty_list_and_no_redirect_is_followed() {
    let elsewhere = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("http://{}/login", elsewhere.local_addr().unwrap());
    let rig = Rig::demo().await;
    let client = rig.client();
    client.bind(&request(&device("p11abc", "NEW00001"))).await.unwrap();
    for body in ["{}", r#"{"code":200}"#, r#"{"code":200,"data":{}}"#, r#"{"code":200,"data":{"list":null}}"#, "[]"] {
        rig.cloud.fault(Fault::of_bind(page(200, &[JSON], body)).on("userDeviceList"));
        let outcome = client.list().await;
        assert!(outcome.as_ref().is_err_and(CloudError::may_hide_success), "{body}: {outcome:?}");
        rig.cloud.fault(Fault::of_bind(page(200, &[JSON], body)).on("userDeviceList"));
        assert!(client.find(&device("p11abc", "NEW00001")).await.is_err(), "{body}");
    }
    for status in [301, 302, 303, 307, 308] {
        rig.cloud.fault(Fault::of_bind(page(status, &[("Location", &target)], "")).on("userDeviceList"));
        assert!(matches!(client.list().await, Err(CloudError::Foreign { .. })));
    }
    let nobody_came = tokio::time::timeout(Duration::from_millis(50), elsewhere.accept()).await;
    assert!(nobody_came.is_err(), "the token would have gone to {target}");
    assert_eq!(client.list().await.unwrap().len(), 1);
}
