//! What is on the LAN, as people see it. Not here: who listens (`discovery`).

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{broadcast, mpsc};
use utoipa::{IntoParams, ToSchema};

use super::Hub;
use super::refusal::Refusal;
use super::world::{Lan, World};
use crate::commissioning::error::Disposition;
use crate::discovery::{DiscoveryEvent, Seen};
use crate::node::{BluetoothNode, CommissionableNode, CommissionableTxt, NodeId, OperationalNode, ScopedAddress};
use crate::store::Store;

/// The longest listing of `discover`.
const LISTEN_MAX: Duration = Duration::from_secs(60);
/// Changes that a slow watcher may be behind.
const WATCHED: usize = 256;

/// Shows what is on the LAN.
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

impl Default for DiscoverQuery {
    fn default() -> Self {
        Self { timeout_ms: 3000, operational: false, watch: false, ble: false, lan: false }
    }
}

/// `discover --json`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Discovered {
    /// What was seen.
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
    /// UDP port.
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
pub struct DiscoverChange {
    /// What happened.
    pub event: DiscoverChangeKind,
    /// To which node.
    #[serde(flatten)]
    pub node: DiscoveredNode,
}

/// What happened to a node that is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DiscoverChangeKind {
    /// It was not there before.
    Appeared,
    /// It was there, and something about it is new.
    Changed,
    /// It is gone.
    Disappeared,
}

impl<W: World> DiscoverDoor for Hub<W> {
    async fn discover(&self, query: &DiscoverQuery) -> Result<Discovered, Refusal> {
        let looking = (!query.lan && !query.operational && !query.watch).then(|| self.radio.look());
        let listening = (!query.ble).then(|| self.lan.ask());
        tokio::time::sleep(Duration::from_millis(query.timeout_ms).min(LISTEN_MAX)).await;
        drop(listening);
        let heard = looking.map(|looking| looking.heard());
        if let (true, Some(Err(why))) = (query.ble, &heard) {
            let message = format!("Bluetooth cannot be used: {why}");
            return Err(Refusal::new("bluetooth-unavailable", Disposition::UserAction, message, why.hint()));
        }
        let (over_bluetooth, bluetooth) = match heard {
            Some(Ok(nodes)) => (nodes, None),
            Some(Err(why)) => (Vec::new(), Some(why.to_string())),
            None => (Vec::new(), None),
        };
        let mut nodes: Vec<DiscoveredNode> = if query.ble {
            Vec::new()
        } else if query.operational {
            let ours = self.credentials.compressed_fabric_id();
            let all = self.lan.operational_nodes();
            all.iter().filter(|node| node.compressed_fabric_id == ours).map(DiscoveredNode::from).collect()
        } else {
            listed(&self.lan.commissionable())
        };
        for node in &mut nodes {
            node.name = name_of(&self.store, node.node_id).await;
        }
        nodes.extend(over_bluetooth.iter().map(DiscoveredNode::from));
        Ok(Discovered { nodes, bluetooth })
    }

    async fn watch(&self, query: &DiscoverQuery) -> Result<mpsc::Receiver<DiscoverChange>, Refusal> {
        let mut events = self.lan.subscribe();
        let there = self.discover(&DiscoverQuery { timeout_ms: 0, ..query.clone() }).await?;
        let (sender, receiver) = mpsc::channel(WATCHED);
        let asking = self.lan.ask();
        let (ours, operational) = (self.credentials.compressed_fabric_id(), query.operational);
        let (stop, store) = (self.stop.clone(), self.store.clone());
        tokio::spawn(async move {
            let _asking = asking;
            for node in there.nodes {
                let change = DiscoverChange { event: DiscoverChangeKind::Appeared, node };
                if sender.send(change).await.is_err() {
                    return;
                }
            }
            loop {
                let event = tokio::select! {
                    () = stop.cancelled() => return,
                    () = sender.closed() => return,
                    event = events.recv() => event,
                };
                let (event, seen) = match event {
                    Ok(DiscoveryEvent::Appeared(seen)) => (DiscoverChangeKind::Appeared, seen),
                    Ok(DiscoveryEvent::Updated(seen)) => (DiscoverChangeKind::Changed, seen),
                    Ok(DiscoveryEvent::Gone(seen)) => (DiscoverChangeKind::Disappeared, seen),
                    Err(broadcast::error::RecvError::Lagged(_)) => continue,
                    Err(broadcast::error::RecvError::Closed) => return,
                };
                let mut node = match &seen {
                    Seen::Commissionable(node) if !operational => DiscoveredNode::from(node),
                    Seen::Operational(node) if operational && node.compressed_fabric_id == ours => {
                        DiscoveredNode::from(node)
                    }
                    Seen::Commissionable(_) | Seen::Operational(_) => continue,
                };
                node.name = name_of(&store, node.node_id).await;
                if sender.send(DiscoverChange { event, node }).await.is_err() {
                    return;
                }
            }
        });
        Ok(receiver)
    }
}
