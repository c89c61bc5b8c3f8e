//! The hub's side, a process of its own: the real outbox, store and cloud client. It is killed in between.
//!
//! It tells the test how far it is (`storm: idle <time>`, `storm: settled`), and hears how far the clock is ahead.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use matterbind::facade::bind::MatterInfo;
use matterbind::facade::cloud::{Client, MemoryTokens};
use matterbind::facade::config::{BeforeCommissioning, CloudConfig, OnAccessDrift, OnCloudMissing, OnRejected};
use matterbind::facade::node::NodeId;
use matterbind::facade::outbox::dispatcher::{DispatchOptions, Dispatcher};
use matterbind::facade::outbox::ports::{BindingCodeSource, OutboxStore};
use matterbind::facade::secret::BindingCode;
use matterbind::facade::store::Store;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio_util::sync::CancellationToken;

use crate::household::Silent;

/// Below the longest delay of the storm.
const TIMEOUT: Duration = Duration::from_millis(500);

/// A device that always has a fresh code.
struct CodesFromDevice;

impl BindingCodeSource for CodesFromDevice {
    async fn fresh_code(&self, _node: NodeId, _matter_info: &MatterInfo) -> Option<BindingCode> {
        Some(BindingCode::new("FEDCBA9876543210"))
    }
}

/// Works until nothing is left and the test has closed its end.
pub async fn run(dir: &Path, base_url: &str, ahead_micros: i64, seed: u64) {
    let store = Store::open(dir).unwrap();
    let client = Client::new(&config(dir, base_url), MemoryTokens::default()).unwrap();
    let ahead = Arc::new(AtomicI64::new(ahead_micros));
    let clock = {
        let ahead = ahead.clone();
        move || Timestamp::now() + SignedDuration::from_micros(ahead.load(Ordering::Acquire))
    };
    let (dispatcher, handle) = Dispatcher::new(
        Arc::new(store.clone()),
        Arc::new(client),
        Arc::new(CodesFromDevice),
        Arc::new(Silent),
        Arc::new(clock.clone()),
        DispatchOptions { seed, ..DispatchOptions::default() },
    );
    let mut results = handle.results();
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    let cancel = CancellationToken::new();
    let running = tokio::spawn(dispatcher.run(cancel.clone()));
    loop {
        // A row that is worked on stays due until its standing is written: a queue that is due later is at rest.
        match store.next_due_at(&[]).await.unwrap() {
            None => say("settled"),
            Some(at) if at > clock() => say(&format!("idle {at}")),
            Some(_) => {
                // Whoever is behind looks at the queue once more.
                let _ = results.recv().await;
                continue;
            }
        }
        let Some(order) = orders.next_line().await.unwrap() else { break };
        ahead.store(order.parse().unwrap(), Ordering::Release);
        handle.wake();
    }
    cancel.cancel();
    running.await.unwrap().unwrap();
    store.close().await;
}

/// Past the harness, which keeps what `println` prints.
fn say(what: &str) {
    let mut out = std::io::stdout();
    writeln!(out, "storm: {what}").and_then(|()| out.flush()).unwrap();
}

fn config(dir: &Path, base_url: &str) -> CloudConfig {
    CloudConfig {
        base_url: base_url.to_owned(),
        user_domain: "demo".to_owned(),
        user_domain_secret_file: dir.join("domain-secret"),
        email: "hub@example.com".to_owned(),
        password_file: dir.join("password"),
        family_id: String::new(),
        room_id: String::new(),
        timeout: TIMEOUT,
        before_commissioning: BeforeCommissioning::Skip,
        on_rejected: OnRejected::Keep,
        on_cloud_missing: OnCloudMissing::Report,
        on_access_drift: OnAccessDrift::Report,
    }
}
