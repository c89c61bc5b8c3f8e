//! What is on the LAN and on the air, as people see it. Not here: who listens (`discovery`, `bluetooth`).

use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, pending};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{broadcast, mpsc};
use utoipa::{IntoParams, ToSchema};

use super::Hub;
use super::refusal::Refusal;
use super::world::{Lan, World};
use crate::commissioning::error::Disposition;
use crate::commissioning::radio::{BluetoothUnavailable, Looking};
use crate::discovery::{DiscoveryEvent, Seen};
use crate::node::{BluetoothNode, CommissionableNode, CommissionableTxt, NodeId, OperationalNode, ScopedAddress};
use crate::store::Store;

mod bluetooth;

/// The longest listing of `discover`.
const LISTEN_MAX: Duration = Duration::from_secs(60);
/// Changes that a slow watcher may be behind.
const WATCHED: usize = 256;

/// Shows what is on the LAN and on the air.
pub trait DiscoverDoor: Send + Sync + 'static {
    /// Listens for `timeout_ms` and lists what is there.
    fn discover(&self, query: &DiscoverQuery) -> impl Future<Output = Result<Discovered, Refusal>> + Send;
    /// What is there, then every change, until the receiver is dropped.
    fn watch(
        &self,
        query: &DiscoverQuery,
    ) -> impl Future<Output = Result<mpsc::Receiver<DiscoverChange>, Refusal>> + Send;
}

/// `GET /v1/discover`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
pub struct DiscoverQuery {
    /// How long to listen, milliseconds; at most 60000.
    pub timeout_ms: u64,
    /// Nodes of our fabric instead of commissionable ones.
    pub operational: bool,
    /// Go on, one change a line.
    pub watch: bool,
    /// Devices on Bluetooth only.
    pub ble: bool,
    /// Devices on the LAN only.
    pub lan: bool,
}

impl DiscoverQuery {
    /// What our fabric has is on the LAN.
    fn wants_bluetooth(&self) -> bool {
        !self.lan && !self.operational
    }
}

impl Default for DiscoverQuery {
    fn default() -> Self {
        Self { timeout_ms: 3000, operational: false, watch: false, ble: false, lan: false }
    }
}

/// `discover --json`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Discovered {
    /// Everything that was heard within the time asked for.
    pub nodes: Vec<DiscoveredNode>,
    /// Why nothing was heard over Bluetooth, where it was asked for and is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bluetooth: Option<String>,
}

/// One node as its DNS-SD records describe it: commissionable, or operational on our fabric.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiscoveredNode {
    /// DNS-SD instance name.
    pub instance: String,
    /// Every TXT key that the node shows, decoded: `discriminator`, `vendor_id`, `device_name`, ….
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub txt: BTreeMap<String, Value>,
    /// Compressed fabric id, of an operational node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compressed_fabric_id: Option<u64>,
    /// Node id, of an operational node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_id: Option<NodeId>,
    /// Its name in the record, of an operational node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Addresses, best first; link-local ones with their interface.
    pub addresses: Vec<String>,
    /// The UDP port that it announces.
    pub port: u16,
    /// Interfaces it was seen on.
    pub interfaces: Vec<String>,
    /// What is known of a device on Bluetooth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bluetooth: Option<BluetoothSeen>,
    /// Other instances with the same address and port: a device that came back under another name, or a liar.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub same_address_as: Vec<String>,
}

impl From<&CommissionableNode> for DiscoveredNode {
    fn from(node: &CommissionableNode) -> Self {
        Self {
            instance: node.instance.clone(),
            txt: decoded(&node.txt),
            addresses: node.addresses.iter().map(ToString::to_string).collect(),
            port: node.port,
            interfaces: interfaces(&node.addresses),
            ..Self::default()
        }
    }
}

impl From<&OperationalNode> for DiscoveredNode {
    fn from(node: &OperationalNode) -> Self {
        Self {
            instance: node.instance(),
            txt: decoded(&node.txt),
            compressed_fabric_id: Some(node.compressed_fabric_id),
            node_id: Some(node.node_id),
            addresses: node.addresses.iter().map(ToString::to_string).collect(),
            port: node.port,
            interfaces: interfaces(&node.addresses),
            ..Self::default()
        }
    }
}

/// A Bluetooth advertisement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BluetoothSeen {
    /// The device's address, which it changes every few minutes.
    pub address: String,
    /// How strongly it is received, dBm.
    pub rssi: i16,
    /// Whether it has additional data to read, for instance a rotating id.
    pub additional_data: bool,
}

impl From<&BluetoothNode> for DiscoveredNode {
    fn from(node: &BluetoothNode) -> Self {
        let txt = CommissionableTxt {
            discriminator: node.discriminator,
            commissioning_mode: 1,
            vendor_id: (node.vendor_id != 0).then_some(node.vendor_id),
            product_id: (node.product_id != 0).then_some(node.product_id),
            ..CommissionableTxt::default()
        };
        let (rssi, additional_data) = (node.rssi, node.additional_data);
        Self {
            instance: node.instance(),
            txt: decoded(&txt),
            bluetooth: Some(BluetoothSeen { address: node.address.to_string(), rssi, additional_data }),
            ..Self::default()
        }
    }
}

/// All of them, and which have one address.
fn listed(nodes: &[CommissionableNode]) -> Vec<DiscoveredNode> {
    let mut there: BTreeMap<(&ScopedAddress, u16), Vec<&str>> = BTreeMap::new();
    for node in nodes {
        node.addresses.iter().for_each(|address| there.entry((address, node.port)).or_default().push(&node.instance));
    }
    let twins = |node: &CommissionableNode| {
        let here = node.addresses.iter().filter_map(|address| there.get(&(address, node.port))).flatten();
        let others: BTreeSet<&str> = here.copied().filter(|instance| *instance != node.instance).collect();
        others.into_iter().map(str::to_owned).collect()
    };
    nodes.iter().map(|node| DiscoveredNode { same_address_as: twins(node), ..node.into() }).collect()
}

fn decoded(txt: &impl Serialize) -> BTreeMap<String, Value> {
    match serde_json::to_value(txt) {
        Ok(Value::Object(fields)) => fields.into_iter().collect(),
        _ => BTreeMap::new(),
    }
}

fn interfaces(addresses: &[ScopedAddress]) -> Vec<String> {
    let mut names: Vec<String> =
        addresses.iter().filter_map(|a| a.scope.as_ref().map(|(name, _)| name.clone())).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// What a node is called in the record; `None` without one, or while the store does not answer.
async fn name_of(store: &Store, node: Option<NodeId>) -> Option<String> {
    Some(store.node(node?).await.ok()??.name)
}

/// One line of `discover --watch --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum DiscoverChange {
    /// It was not there before.
    Appeared(DiscoveredNode),
    /// It was there, and something about it is new.
    Changed(DiscoveredNode),
    /// It said goodbye, or nobody renewed what it had announced.
    Disappeared(DiscoveredNode),
    /// Nobody is heard over Bluetooth from now on; devices that appear say that this has changed.
    BluetoothUnavailable {
        /// Why nothing is heard over Bluetooth.
        message: String,
        /// What to do about it.
        hint: String,
    },
}

impl<W: World> DiscoverDoor for Hub<W> {
    async fn discover(&self, query: &DiscoverQuery) -> Result<Discovered, Refusal> {
        let looking = query.wants_bluetooth().then(|| self.radio.look());
        let listening = (!query.ble).then(|| self.lan.ask());
        tokio::time::sleep(Duration::from_millis(query.timeout_ms).min(LISTEN_MAX)).await;
        drop(listening);
        let heard = looking.map(|looking| looking.heard());
        if let (true, Some(Err(why))) = (query.ble, &heard) {
            return Err(unusable(why));
        }
        let (over_bluetooth, bluetooth) = match heard {
            Some(Ok(nodes)) => (nodes, None),
            Some(Err(why)) => (Vec::new(), Some(why.to_string())),
            None => (Vec::new(), None),
        };
        let mut nodes = if query.ble { Vec::new() } else { self.on_the_lan(query.operational).await };
        nodes.extend(over_bluetooth.iter().map(DiscoveredNode::from));
        Ok(Discovered { nodes, bluetooth })
    }

    async fn watch(&self, query: &DiscoverQuery) -> Result<mpsc::Receiver<DiscoverChange>, Refusal> {
        if query.ble
            && let Err(why) = self.radio.adapter().await
        {
            return Err(unusable(&why));
        }
        let (sender, receiver) = mpsc::channel(WATCHED);
        if query.wants_bluetooth() {
            self.spawn_teller(&sender, tell_bluetooth(self.radio.look(), sender.clone()));
        }
        if !query.ble {
            let (events, asking) = (self.lan.subscribe(), self.lan.ask());
            let there = self.on_the_lan(query.operational).await;
            let ours = query.operational.then(|| self.credentials.compressed_fabric_id());
            let (store, to) = (self.store.clone(), sender.clone());
            self.spawn_teller(&sender, async move {
                let _asking = asking;
                tell_lan(there, events, ours, store, to).await;
            });
        }
        Ok(receiver)
    }
}

impl<W: World> Hub<W> {
    /// Devices to commission, or the nodes of our fabric.
    async fn on_the_lan(&self, operational: bool) -> Vec<DiscoveredNode> {
        if !operational {
            return listed(&self.lan.commissionable());
        }
        let ours = self.credentials.compressed_fabric_id();
        let all = self.lan.operational_nodes();
        let mut nodes: Vec<DiscoveredNode> =
            all.iter().filter(|node| node.compressed_fabric_id == ours).map(DiscoveredNode::from).collect();
        for node in &mut nodes {
            node.name = name_of(&self.store, node.node_id).await;
        }
        nodes
    }

    /// Tells a watcher until it leaves or the daemon stops; what is listened with ends then.
    fn spawn_teller(&self, watcher: &mpsc::Sender<DiscoverChange>, telling: impl Future<Output = ()> + Send + 'static) {
        let (stop, watcher) = (self.stop.clone(), watcher.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = watcher.closed() => {}
                () = telling => {}
            }
        });
    }
}

fn unusable(why: &BluetoothUnavailable) -> Refusal {
    let message = format!("Bluetooth cannot be used: {why}");
    Refusal::new("bluetooth-unavailable", Disposition::UserAction, message, why.hint())
}

/// `ours` is the fabric whose nodes are watched; `None` for devices to commission.
async fn tell_lan(
    there: Vec<DiscoveredNode>,
    mut events: broadcast::Receiver<DiscoveryEvent>,
    ours: Option<u64>,
    store: Store,
    watcher: mpsc::Sender<DiscoverChange>,
) {
    for node in there {
        if watcher.send(DiscoverChange::Appeared(node)).await.is_err() {
            return;
        }
    }
    loop {
        let (change, seen): (fn(DiscoveredNode) -> DiscoverChange, Seen) = match events.recv().await {
            Ok(DiscoveryEvent::Appeared(seen)) => (DiscoverChange::Appeared, seen),
            Ok(DiscoveryEvent::Updated(seen)) => (DiscoverChange::Changed, seen),
            Ok(DiscoveryEvent::Gone(seen)) => (DiscoverChange::Disappeared, seen),
            Err(broadcast::error::RecvError::Lagged(_)) => continue,
            Err(broadcast::error::RecvError::Closed) => return,
        };
        let mut node = match (&seen, ours) {
            (Seen::Commissionable(node), None) => DiscoveredNode::from(node),
            (Seen::Operational(node), Some(ours)) if node.compressed_fabric_id == ours => DiscoveredNode::from(node),
            (Seen::Commissionable(_) | Seen::Operational(_), _) => continue,
        };
        node.name = name_of(&store, node.node_id).await;
        if watcher.send(change(node)).await.is_err() {
            return;
        }
    }
}

async fn tell_bluetooth(mut looking: Looking, watcher: mpsc::Sender<DiscoverChange>) {
    let mut told = bluetooth::Told::default();
    loop {
        for change in told.news(&looking.heard(), Instant::now()) {
            if watcher.send(change).await.is_err() {
                return;
            }
        }
        let due = told.due();
        let somebody_is_gone = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = looking.changed() => {}
            () = somebody_is_gone => {}
        }
    }
}
