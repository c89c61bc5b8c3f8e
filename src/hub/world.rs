//! The outside world as the hub sees it: its Matter stack, the LAN and the cloud. The daemon stands on the real one, a test on
//! fakes, with the same use cases between. Not here: sessions and searches (`commissioning::ports`), binds (`outbox::ports`).

use std::future::Future;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::{broadcast, mpsc};

use crate::cloud::{CloudHealth, Look};
use crate::commissioning::ports::{CheckInMessage, Discovery, LinkError, MatterLink};
use crate::commissioning::radio::Radio;
use crate::discovery::{DiscoveryEvent, Health, Survey};
use crate::keystore::KeyBundle;
use crate::node::{CommissionableNode, NodeId, OperationalNode};
use crate::outbox::ports::BindApi;

/// One world: which stack, which LAN, which cloud.
pub(crate) trait World: Send + Sync + 'static {
    type Link: HubLink;
    /// What is announced on the network.
    type Lan: Lan;
    type Cloud: CloudService;
}

/// A session with a node of ours.
pub(crate) type Case<W> = <<W as World>::Link as MatterLink>::Case;

/// A world with what the hub needs of it, opened.
pub(crate) struct Outside<W: World> {
    pub(crate) link: Arc<W::Link>,
    pub(crate) lan: W::Lan,
    pub(crate) radio: Arc<dyn Radio>,
    /// `None` where the configuration names none.
    pub(crate) cloud: Option<Arc<W::Cloud>>,
}

/// The Matter stack, besides the sessions that it opens.
pub(crate) trait HubLink: MatterLink {
    /// Comes back when it has ended without being asked to, with the reason.
    fn failed(&self) -> impl Future<Output = String> + Send;
    /// Comes back when the stack has taken a turn: it lives.
    fn answers(&self) -> impl Future<Output = Result<(), LinkError>> + Send;
    /// The UDP port that devices answer to; `None` where there is no socket.
    fn port(&self) -> Option<u16>;
    /// The hub's own certificate from now on.
    fn renew_hub_noc(&self, keys: &KeyBundle) -> impl Future<Output = Result<(), LinkError>> + Send;
    /// The check-ins that come from now on; `None` where somebody has taken them before.
    fn check_ins(&self) -> Option<mpsc::Receiver<CheckInMessage>>;
    fn stop(&self) -> impl Future<Output = ()> + Send;
}

/// What is announced on the network, besides what one attempt looks for.
pub(crate) trait Lan: Discovery + Clone {
    /// While it lives, the LAN is asked again and again.
    type Asking: Send;

    /// What appears, changes and goes from now on.
    fn subscribe(&self) -> broadcast::Receiver<DiscoveryEvent>;
    /// The commissionable nodes now, those with a closed window too.
    fn commissionable(&self) -> Vec<CommissionableNode>;
    /// The operational nodes now, of every fabric.
    fn operational_nodes(&self) -> Vec<OperationalNode>;
    /// One of them, as it is remembered.
    fn operational_node(&self, compressed_fabric_id: u64, node: NodeId) -> Option<OperationalNode>;
    /// One of them, unless it still has to answer for itself after [`Lan::confirm`].
    fn confirmed_operational(&self, compressed_fabric_id: u64, node: NodeId) -> Option<OperationalNode>;
    /// A node does not answer: its records are asked for, and go where nobody does.
    fn confirm(&self, node: &OperationalNode);
    /// From now on the hub announces itself as this node of the fabric, where it can be reached at a port.
    fn announce(&self, compressed_fabric_id: u64, hub: NodeId, port: u16);
    /// Keeps the LAN being asked: for a listing that should be complete.
    fn ask(&self) -> Self::Asking;
    /// Whether devices can be found.
    fn health(&self) -> impl Future<Output = Health> + Send;
    /// The interfaces, and what comes back from them.
    fn survey(&self) -> impl Future<Output = Survey> + Send;
}

/// The binding service, besides binding.
pub(crate) trait CloudService: BindApi {
    /// How it answered last.
    fn health(&self) -> CloudHealth;
    /// The way there, step by step.
    fn look(&self) -> impl Future<Output = Look> + Send;
    /// Its own time, where its certificate was checked.
    fn service_time(&self) -> Option<Timestamp>;
    /// An operator asks: the next call goes whatever the cloud has asked for, and signs in again.
    fn forget_refusals(&self) -> impl Future<Output = ()> + Send;
}
