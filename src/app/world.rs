//! The world that the daemon stands on: rs-matter's stack, mDNS, the service over HTTP.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{broadcast, mpsc};

use crate::bluetooth::Bluetooth;
use crate::cloud::{self, CloudHealth, Look};
use crate::commissioning::ports::{CheckInMessage, LinkError};
use crate::commissioning::radio::Radio;
use crate::config::Config;
use crate::discovery::{Asking, DiscoveryEvent, Health, LanDiscovery, Survey};
use crate::hub::bind::StoredTokenStore;
use crate::hub::clock::Clock;
use crate::hub::world::{CloudService, HubLink, Lan, Outside, World};
use crate::keystore::KeyBundle;
use crate::matter::credentials::Credentials;
use crate::matter::link::Link;
use crate::matter::stack::{Stack, StackOptions};
use crate::node::{CommissionableNode, NodeId, OperationalNode};
use crate::store::Store;
use crate::telemetry::metrics::Metrics;

/// See the module.
pub(super) struct Household;

impl World for Household {
    type Link = Link;
    type Lan = LanDiscovery;
    type Cloud = cloud::Client<StoredTokenStore>;
}

/// Starts the stack and discovery; the cloud's client asks nobody before it has to.
pub(super) fn open(
    config: &Config,
    store: &Store,
    credentials: &Arc<Credentials>,
    metrics: &Arc<Metrics>,
    clock: &Arc<Clock>,
) -> anyhow::Result<Outside<Household>> {
    let stack = Stack::start(&StackOptions::default(), credentials.bundle())?;
    let radio: Arc<dyn Radio> = Arc::new(Bluetooth::open(&config.bluetooth));
    let link = Arc::new(Link::new(stack, Arc::clone(credentials), Arc::clone(&radio)));
    let lan = LanDiscovery::start(&config.network)?;
    let cloud = match &config.cloud {
        Some(cloud) => {
            let tokens = StoredTokenStore::new(store.clone());
            let (meter, clock) = (Arc::clone(metrics) as Arc<dyn cloud::Meter>, Arc::clone(clock));
            Some(Arc::new(cloud::Client::metered(cloud, tokens, meter, Arc::new(move || clock.now()))?))
        }
        None => None,
    };
    Ok(Outside { link, lan, radio, cloud })
}

impl HubLink for Link {
    async fn failed(&self) -> String {
        self.stack().failed().await
    }

    async fn answers(&self) -> Result<(), LinkError> {
        self.stack().answers().await
    }

    fn port(&self) -> Option<u16> {
        Some(self.stack().port())
    }

    async fn renew_hub_noc(&self, keys: &KeyBundle) -> Result<(), LinkError> {
        self.stack().renew_hub_noc(keys).await
    }

    fn check_ins(&self) -> Option<mpsc::Receiver<CheckInMessage>> {
        self.stack().check_ins()
    }

    async fn stop(&self) {
        self.stack().stop().await;
    }
}

impl Lan for LanDiscovery {
    type Asking = Asking;

    fn subscribe(&self) -> broadcast::Receiver<DiscoveryEvent> {
        self.subscribe()
    }

    fn commissionable(&self) -> Vec<CommissionableNode> {
        self.commissionable()
    }

    fn operational_nodes(&self) -> Vec<OperationalNode> {
        self.operational_nodes()
    }

    fn operational_node(&self, compressed_fabric_id: u64, node: NodeId) -> Option<OperationalNode> {
        self.operational_node(compressed_fabric_id, node)
    }

    fn confirmed_operational(&self, compressed_fabric_id: u64, node: NodeId) -> Option<OperationalNode> {
        self.confirmed_operational(compressed_fabric_id, node)
    }

    fn confirm(&self, node: &OperationalNode) {
        self.confirm(node);
    }

    fn announce(&self, compressed_fabric_id: u64, hub: NodeId, port: u16) {
        self.announce_hub(compressed_fabric_id, hub, port);
    }

    fn ask(&self) -> Asking {
        self.ask()
    }

    async fn health(&self) -> Health {
        self.health().await
    }

    async fn survey(&self) -> Survey {
        self.survey().await
    }
}

impl CloudService for cloud::Client<StoredTokenStore> {
    fn health(&self) -> CloudHealth {
        self.health()
    }

    async fn look(&self) -> Look {
        self.look().await
    }

    fn service_time(&self) -> Option<Timestamp> {
        self.service_time()
    }

    async fn forget_refusals(&self) {
        self.forget_refusals().await;
    }
}

impl cloud::Meter for Metrics {
    fn count(&self, call: &'static str, code: &str, took: Duration) {
        self.count_cloud_call(call, code, took);
    }
}
