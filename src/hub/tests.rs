//! The real hub on fakes: its use cases with a real store, in a home and with a cloud of which nothing leaves the process.

mod access;
mod cloud;
mod commission;
mod controllers;
mod discover;
mod icd;
mod interrupted;
mod keys;
mod label;
mod presence;
mod removal;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::cloud::Account;
use super::clock::Clock;
use super::commission::{CommissionDoor, CommissionRequest, CommissionResult, ProgressSink};
use super::world::{HubLink, Lan, Outside, World};
use super::{Hub, recovery};
use crate::app::{self, Inside};
use crate::commissioning::ports::{CheckInMessage, LinkError};
use crate::commissioning::tests::home::{Device, Home, PRODUCT, VENDOR};
use crate::config::{
    AttestationPolicy, BindingCodeProfile, CloudConfig, Config, DeviceKeySource, ProductProfile, RandomWord,
};
use crate::discovery::{DiscoveryEvent, Health, Survey};
use crate::keystore::KeyBundle;
use crate::node::{CommissionableNode, NodeId, NodeRecord, OperationalNode};
use crate::store::{JournalLimits, Store};
use crate::telemetry::metrics::Metrics;

/// The world of these tests.
pub(crate) struct Fakes;

impl World for Fakes {
    type Link = Home;
    type Lan = Home;
    type Cloud = Account;
}

impl HubLink for Home {
    async fn failed(&self) -> String {
        std::future::pending().await
    }

    async fn answers(&self) -> Result<(), LinkError> {
        Ok(())
    }

    fn port(&self) -> Option<u16> {
        Some(5540)
    }

    async fn renew_hub_noc(&self, _: &KeyBundle) -> Result<(), LinkError> {
        Ok(())
    }

    fn check_ins(&self) -> Option<tokio::sync::mpsc::Receiver<CheckInMessage>> {
        self.take_check_ins()
    }

    async fn stop(&self) {}
}

impl Lan for Home {
    type Asking = ();

    fn subscribe(&self) -> tokio::sync::broadcast::Receiver<DiscoveryEvent> {
        self.subscribe()
    }

    fn commissionable(&self) -> Vec<CommissionableNode> {
        self.commissionable()
    }

    fn operational_nodes(&self) -> Vec<OperationalNode> {
        self.operational()
    }

    fn operational_node(&self, compressed_fabric_id: u64, node: NodeId) -> Option<OperationalNode> {
        let is_it = |seen: &OperationalNode| seen.compressed_fabric_id == compressed_fabric_id && seen.node_id == node;
        self.operational().into_iter().find(is_it)
    }

    fn confirmed_operational(&self, compressed_fabric_id: u64, node: NodeId) -> Option<OperationalNode> {
        self.operational_node(compressed_fabric_id, node)
    }

    fn confirm(&self, _: &OperationalNode) {}

    fn announce(&self, _: u64, hub: NodeId, _: u16) {
        self.hub_announced(hub);
    }

    fn ask(&self) {}

    async fn health(&self) -> Health {
        Health { interfaces: vec!["home".to_owned()], ..Health::default() }
    }

    async fn survey(&self) -> Survey {
        Survey::default()
    }
}

/// A hub, what it stands in, and what it keeps.
struct Rig {
    hub: Arc<Hub<Fakes>>,
    home: Home,
    account: Arc<Account>,
    tasks: TaskTracker,
    state: Arc<tempfile::TempDir>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.hub.stop.cancel();
    }
}

fn config(state_dir: &std::path::Path) -> Config {
    let mut config = Config { state_dir: state_dir.to_owned(), ..Config::default() };
    config.socket = state_dir.join("admin.sock");
    config.attestation.policy = AttestationPolicy::Warn;
    config.cloud = Some(CloudConfig {
        base_url: "http://cloud.example".to_owned(),
        user_domain: "demo".to_owned(),
        user_domain_secret_file: "secret".into(),
        email: "hub@example.com".to_owned(),
        password_file: "password".into(),
        family_id: String::new(),
        room_id: String::new(),
        timeout: Duration::from_secs(10),
        before_commissioning: Default::default(),
        on_rejected: Default::default(),
        on_cloud_missing: Default::default(),
        on_access_drift: Default::default(),
    });
    config.products = vec![ProductProfile {
        vendor_id: VENDOR,
        product_id: PRODUCT,
        product_key: "p11abc".to_owned(),
        device_key: DeviceKeySource::SerialNumber,
        binding_code: BindingCodeProfile::Word(RandomWord::Random),
        wan: false,
        ble: false,
        extra: None,
        common: true,
    }];
    config
}

impl Rig {
    /// `configure` says what is unusual.
    async fn start(configure: impl FnOnce(&mut Config)) -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap()), Home::new(), Arc::default(), configure).await
    }

    async fn start_in(
        state: Arc<tempfile::TempDir>,
        home: Home,
        account: Arc<Account>,
        configure: impl FnOnce(&mut Config),
    ) -> Self {
        let mut config = config(state.path());
        configure(&mut config);
        let store = Store::open(state.path()).unwrap();
        let limits = JournalLimits { max_age: Duration::from_secs(3600), max_bytes: 1 << 20 };
        let journal = store.journal(limits).await;
        let clock = Arc::new(Clock::open(&store).await.unwrap());
        let fabric = app::fabric::open(&config, &store, &journal, &clock).await.unwrap();
        home.set_fabric(fabric.credentials.compressed_fabric_id());
        let inside = Inside { store, journal, clock, fabric, metrics: Arc::new(Metrics::default()) };
        let outside = Outside {
            link: Arc::new(home.clone()),
            lan: home.clone(),
            radio: Arc::new(home.clone()),
            cloud: Some(Arc::clone(&account)),
        };
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let hub = app::build::<Fakes>(config, inside, outside, &tasks, &stop).unwrap();
        recovery::sort_interrupted(&hub).await;
        Self { hub, home, account, tasks, state }
    }

    /// The daemon ends, and starts with another configuration.
    async fn restart(self, configure: impl FnOnce(&mut Config)) -> Self {
        self.hub.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.hub.store.close().await;
        let (state, home, account) = (Arc::clone(&self.state), self.home.clone(), Arc::clone(&self.account));
        drop(self);
        Self::start_in(state, home, account, configure).await
    }

    /// What runs beside the use cases, too.
    fn spawn_followers(&self) {
        self.hub.spawn_followers(&self.tasks, Instant::now());
    }

    async fn commission(&self, setup_code: &str) -> CommissionResult {
        let request: CommissionRequest =
            serde_json::from_value(serde_json::json!({ "setup_code": setup_code, "wait_bind_ms": 10_000 })).unwrap();
        let (progress, _events) = ProgressSink::channel();
        self.hub.commission(request, progress).await.unwrap()
    }

    /// A device on our fabric, recorded and bound.
    async fn with_device(&self) -> (Arc<Device>, NodeRecord) {
        let device = self.home.plug_in(7, 3840, 20_202_021);
        match self.commission("MT:-24J0AFN00KA0648G00").await {
            CommissionResult::Commissioned { node, .. } => (device, *node),
            CommissionResult::Failed(failure) => panic!("{failure:?}"),
        }
    }

    async fn record(&self, node: NodeId) -> Option<NodeRecord> {
        self.hub.store.node(node).await.unwrap()
    }

    /// Comes back when `there` is true; what runs by itself has no other end.
    async fn until(&self, what: &str, there: impl AsyncFn() -> bool) {
        let reached = async {
            while !there().await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(60), reached).await.is_ok(), "{what} never happened");
    }

    /// The kinds of what the admin log has, the oldest first.
    async fn logged(&self) -> Vec<String> {
        let all = self.hub.journal.query(crate::store::JournalFilter::default()).await.unwrap();
        all.into_iter().map(|event| event.kind.to_string()).collect()
    }
}
