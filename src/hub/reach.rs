//! The one way to a node of ours: find it, open it, and say who answered. Whoever wants a session with a node comes here.
//!
//! All addresses that may be the node's are tried side by side (`rank`), those that are known at once, while mDNS is asked
//! for others; how long depends on the node's own rhythm (`node::SessionParameters`). What a refusal means is in `standing`.
//! Not here: who is asked when (`liveness`), what is asked.

mod prove;
mod rank;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::{Either, select};
use tokio::sync::Notify;
use tokio::sync::broadcast::error::RecvError;

use self::rank::{Hearsay, Trail};
use super::Hub;
use super::refusal::Refusal;
use super::world::{Case, Lan, World};
use crate::commissioning::error::Disposition;
use crate::commissioning::ports::{Discovery, LinkError, MatterLink, OperationalSession};
use crate::node::{
    IcdRegistration, NodeId, NodeRecord, OperationalIdentity, OperationalNode, SessionParameters, read_scoped,
};
use crate::standing::OffFabric;

pub(super) use prove::follow;

/// How long mDNS is asked for a node that it does not know, beside what is tried already.
const LOOKUP: Duration = Duration::from_secs(3);
/// A session with a node that is always awake.
pub(crate) const OPEN: Duration = Duration::from_secs(8);
/// Everything that one request asks of such a device.
const DEVICE: Duration = Duration::from_secs(20);

/// Where a node stands, by who answered when it was asked.
pub(super) enum Reached<W: World> {
    /// It answered itself, with its certificate of our fabric.
    Ours(Case<W>),
    /// It has proved itself that it is not on our fabric any more. Only this is a reason to destroy anything.
    NotOnOurFabric(OffFabric),
    /// What answers at its address is another device, as far as is known: nothing is known of ours.
    SomebodyElse(LinkError),
    /// Nobody answered, or it could not be asked.
    Unknown(LinkError),
}

/// See the module. Shared by everything that opens nodes.
pub(crate) struct Reach<W: World> {
    link: Arc<W::Link>,
    lan: W::Lan,
    compressed_fabric_id: u64,
    trails: Mutex<BTreeMap<NodeId, Trail>>,
    /// What nodes have proved since they were last heard of.
    proofs: Mutex<BTreeMap<NodeId, OffFabric>>,
    errands: Mutex<BTreeSet<prove::Errand>>,
    wake: Notify,
}

impl<W: World> Reach<W> {
    pub(crate) fn new(link: Arc<W::Link>, lan: W::Lan, compressed_fabric_id: u64) -> Self {
        Self {
            link,
            lan,
            compressed_fabric_id,
            trails: Mutex::default(),
            proofs: Mutex::default(),
            errands: Mutex::default(),
            wake: Notify::new(),
        }
    }

    fn trails(&self) -> MutexGuard<'_, BTreeMap<NodeId, Trail>> {
        self.trails.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn proofs(&self) -> MutexGuard<'_, BTreeMap<NodeId, OffFabric>> {
        self.proofs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name of a node on our fabric.
    fn ours(&self, node: NodeId) -> OperationalIdentity {
        OperationalIdentity { compressed_fabric_id: self.compressed_fabric_id, node_id: node }
    }

    /// What mDNS says of a node now; it may be a memory.
    pub(super) fn announced(&self, node: NodeId) -> Option<OperationalNode> {
        self.lan.operational_node(self.ours(node).compressed_fabric_id, node)
    }

    /// The rhythm of a node: as announced now, else as recorded.
    pub(super) fn rhythm(&self, record: &NodeRecord) -> SessionParameters {
        self.announced(record.node_id).map_or_else(|| record.rhythm.session(), |node| node.txt.session())
    }

    /// What the sleep of a node adds to every wait for it. One that checks in sleeps for longer than anybody waits: it hears at once,
    /// or not at all.
    pub(super) fn sleep(&self, record: &NodeRecord) -> Duration {
        match record.icd {
            Some(IcdRegistration::Registered) => Duration::ZERO,
            Some(IcdRegistration::NotRegistered) | None => self.rhythm(record).sleep(),
        }
    }

    /// What a node has proved since it was last heard of.
    pub(super) fn proof(&self, node: NodeId) -> Option<OffFabric> {
        self.proofs().get(&node).cloned()
    }

    /// Where it answered last, since the start.
    pub(super) fn good(&self, node: NodeId) -> Option<SocketAddr> {
        self.trails().get(&node).and_then(Trail::good)
    }

    /// A CASE session with the node, wherever it is now. `budget` is for one that is always awake; a sleepy one gets its
    /// sleep in addition.
    ///
    /// # Errors
    /// Who refused, or what became of each address.
    pub(crate) async fn open(&self, record: &NodeRecord, budget: Duration) -> Result<Case<W>, LinkError> {
        self.open_among(record, &[], budget).await
    }

    /// The same for a node that may also be at `more`.
    pub(super) async fn open_among(
        &self,
        record: &NodeRecord,
        more: &[SocketAddr],
        budget: Duration,
    ) -> Result<Case<W>, LinkError> {
        let node = record.node_id;
        let begun = Instant::now();
        let deadline = begun + budget + self.sleep(record);
        let mut announced = self.announced(node).map(|seen| seen.sockets()).unwrap_or_default();
        let is_told = !announced.is_empty();
        announced.extend(more);
        let known = self.rank(record, &announced);
        let remembered = std::pin::pin!(self.try_all(node, &known, deadline));
        // A node that comes back in this very moment may be elsewhere.
        let news = std::pin::pin!(self.news(record, &known));
        // What mDNS tells now counts for more than what was remembered.
        match select(remembered, news).await {
            Either::Left((Ok(session), _)) => Ok(session),
            Either::Left((Err(error), news)) => {
                let is_silent = matches!(error, LinkError::Unreachable { .. });
                let patience =
                    if is_told && !is_silent { Duration::ZERO } else { LOOKUP.saturating_sub(begun.elapsed()) };
                let Ok(fresh) = tokio::time::timeout(patience, news).await else { return Err(error) };
                self.try_all(node, &fresh, deadline).await.map_err(|other| stronger(other, error))
            }
            Either::Right((fresh, remembered)) => {
                let there = std::pin::pin!(self.try_all(node, &fresh, deadline));
                match select(remembered, there).await {
                    Either::Left((Ok(session), _)) | Either::Right((Ok(session), _)) => Ok(session),
                    Either::Left((Err(error), there)) => there.await.map_err(|other| stronger(other, error)),
                    Either::Right((Err(error), remembered)) => remembered.await.map_err(|other| stronger(error, other)),
                }
            }
        }
    }

    /// The same at one address only: where it matters that the same one is asked again.
    pub(super) async fn open_at(
        &self,
        record: &NodeRecord,
        peer: SocketAddr,
        budget: Duration,
    ) -> Result<Case<W>, LinkError> {
        let deadline = Instant::now() + budget + self.sleep(record);
        self.try_all(record.node_id, &[peer], deadline).await
    }

    /// A CASE session with a node that has no record: where it announces itself, and nowhere else.
    pub(super) async fn open_unrecorded(&self, node: NodeId, budget: Duration) -> Result<Case<W>, LinkError> {
        let deadline = Instant::now() + budget;
        let name = self.ours(node);
        let announced = self.lan.operational(name.compressed_fabric_id, node, LOOKUP.min(budget)).await;
        self.try_all(node, &announced, deadline).await
    }

    /// Where mDNS tells the node to be besides what is `known`: now, or as soon as it does. Whoever asks says how long. Nothing
    /// where mDNS was asked and does not know it.
    async fn news(&self, record: &NodeRecord, known: &[SocketAddr]) -> Vec<SocketAddr> {
        let OperationalIdentity { compressed_fabric_id, node_id } = self.ours(record.node_id);
        let mut changes = self.lan.subscribe();
        let mut announced = match self.announced(node_id) {
            Some(seen) => seen.sockets(),
            None => self.lan.operational(compressed_fabric_id, node_id, LOOKUP).await,
        };
        loop {
            if announced.is_empty() {
                return announced;
            }
            announced.retain(|address| !known.contains(address));
            // Ranking asks for the hub's interfaces: not for what somebody else on the LAN announces.
            if !announced.is_empty() {
                let mut fresh = self.rank(record, &announced);
                fresh.retain(|address| announced.contains(address));
                if !fresh.is_empty() {
                    return fresh;
                }
            }
            if matches!(changes.recv().await, Err(RecvError::Closed)) {
                std::future::pending::<()>().await;
            }
            // While it is away, nothing is news.
            announced = self.announced(node_id).map_or_else(|| known.to_vec(), |seen| seen.sockets());
        }
    }

    async fn try_all(&self, node: NodeId, addresses: &[SocketAddr], deadline: Instant) -> Result<Case<W>, LinkError> {
        if addresses.is_empty() {
            return Err(LinkError::Unreachable { tried: Vec::new() });
        }
        let budget = deadline.saturating_duration_since(Instant::now());
        let opened = self.link.open_case(node, addresses, budget).await;
        let now = Instant::now();
        let mut trails = self.trails();
        let trail = trails.entry(node).or_default();
        match &opened {
            Ok(session) => trail.handle_answer(session.peer(), addresses, now),
            Err(LinkError::Unreachable { tried }) => {
                tried.iter().filter_map(|(peer, _)| peer.udp()).for_each(|at| trail.handle_failure(at, now));
            }
            Err(LinkError::NoSharedTrustRoots { peer } | LinkError::NotThatNode { peer }) => {
                trail.handle_failure(*peer, now);
            }
            Err(_) => {}
        }
        opened
    }

    fn rank(&self, record: &NodeRecord, announced: &[SocketAddr]) -> Vec<SocketAddr> {
        let interfaces = Interfaces::now();
        let remembered = interfaces.sockets(record);
        let taken = self.taken(record.node_id);
        let known = Hearsay { announced, remembered: &remembered, taken: &taken, own: &interfaces.own };
        let trails = self.trails();
        trails.get(&record.node_id).unwrap_or(&Trail::default()).rank(known, Instant::now())
    }

    /// Where other nodes of ours are now.
    fn taken(&self, node: NodeId) -> BTreeSet<SocketAddr> {
        let ours = self.ours(node).compressed_fabric_id;
        let others = self.lan.operational_nodes().into_iter();
        let others = others.filter(|other| other.compressed_fabric_id == ours && other.node_id != node);
        let announced = others.flat_map(|other| other.sockets());
        let trails = self.trails();
        let proved = trails.iter().filter(|(other, _)| **other != node).filter_map(|(_, trail)| trail.good());
        announced.chain(proved).collect()
    }

    /// An address of a node as records and people write it.
    pub(super) fn address(&self, record: &NodeRecord, peer: SocketAddr) -> String {
        let announced = self.announced(record.node_id).into_iter().flat_map(|node| {
            let port = node.port;
            node.addresses.into_iter().map(move |address| (address.socket(port), address.to_string()))
        });
        let interfaces = Interfaces::now();
        let recorded =
            record.addresses.iter().filter_map(|text| Some((interfaces.socket(text, record.port)?, text.clone())));
        let mut known = announced.chain(recorded);
        known.find(|(socket, _)| *socket == peer).map_or_else(|| peer.ip().to_string(), |(_, text)| text)
    }

    /// The addresses that a node announces, as its record keeps them: where it answered last comes first.
    pub(super) fn addresses(&self, record: &NodeRecord, seen: &OperationalNode) -> Vec<String> {
        let good = self.good(record.node_id).or_else(|| Interfaces::now().sockets(record).first().copied());
        let (mut first, rest): (Vec<_>, Vec<_>) =
            seen.addresses.iter().partition(|address| Some(address.socket(seen.port)) == good);
        first.extend(rest);
        first.into_iter().map(ToString::to_string).collect()
    }

    /// Whether a node was there when it was heard of last.
    pub(super) fn remembers(&self, record: &NodeRecord, peer: SocketAddr) -> bool {
        Interfaces::now().sockets(record).contains(&peer)
    }

    /// Whether a node was at that host when it was heard of last.
    pub(super) fn remembers_host(&self, record: &NodeRecord, host: IpAddr) -> bool {
        Interfaces::now().sockets(record).iter().any(|socket| socket.ip() == host)
    }

    /// A node was heard of: what was proved before does not hold any more.
    pub(super) fn handle_contact(&self, node: NodeId) {
        self.proofs().remove(&node);
    }

    /// These are the nodes now.
    pub(super) fn keep_only(&self, nodes: &BTreeSet<NodeId>) {
        self.trails().retain(|node, _| nodes.contains(node));
        self.proofs().retain(|node, _| nodes.contains(node));
    }
}

/// The one that says more: `first`, unless nobody was asked for it.
fn stronger(first: LinkError, second: LinkError) -> LinkError {
    match (first, second) {
        (LinkError::Unreachable { tried }, LinkError::Unreachable { tried: more }) => {
            LinkError::Unreachable { tried: tried.into_iter().chain(more).collect() }
        }
        (LinkError::Unreachable { tried }, second) if tried.is_empty() => second,
        (first, _) => first,
    }
}

/// The hub's own interfaces, which give a remembered link-local address its meaning.
struct Interfaces {
    own: Vec<IpAddr>,
    index: BTreeMap<String, u32>,
}

impl Interfaces {
    /// Empty where the system does not tell.
    fn now() -> Self {
        let all = if_addrs::get_if_addrs().unwrap_or_default();
        let own = all.iter().map(if_addrs::Interface::ip).collect();
        Self { own, index: all.into_iter().filter_map(|one| Some((one.name, one.index?))).collect() }
    }

    /// Where a node was by its record.
    fn sockets(&self, record: &NodeRecord) -> Vec<SocketAddr> {
        record.addresses.iter().filter_map(|text| self.socket(text, record.port)).collect()
    }

    /// `fe80::1%eth0`, or a plain address.
    fn socket(&self, text: &str, port: u16) -> Option<SocketAddr> {
        match read_scoped(text)? {
            (ip, None) => {
                let needs_interface = matches!(ip, IpAddr::V6(v6) if crate::node::is_unicast_link_local(v6));
                (!needs_interface).then(|| SocketAddr::new(ip, port))
            }
            (IpAddr::V6(ip), Some(interface)) => {
                Some(std::net::SocketAddrV6::new(ip, port, 0, *self.index.get(interface)?).into())
            }
            (IpAddr::V4(_), Some(_)) => None,
        }
    }
}

impl<W: World> Reached<W> {
    fn of(error: LinkError) -> Self {
        match error {
            LinkError::NoSharedTrustRoots { .. } | LinkError::NotThatNode { .. } => Self::SomebodyElse(error),
            error => Self::Unknown(error),
        }
    }
}

impl<W: World> fmt::Display for Reached<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ours(session) => write!(f, "it answers at {}", session.peer()),
            Self::NotOnOurFabric(proof) => proof.fmt(f),
            Self::SomebodyElse(error) => write!(f, "{error}; where the node itself is, is not known"),
            Self::Unknown(error) => error.fmt(f),
        }
    }
}

impl<W: World> Hub<W> {
    /// A CASE session with a recorded node, wherever it is now.
    pub(super) async fn meet(&self, record: &NodeRecord) -> Result<Case<W>, LinkError> {
        self.meet_within(record, OPEN).await
    }

    async fn meet_within(&self, record: &NodeRecord, budget: Duration) -> Result<Case<W>, LinkError> {
        let node = record.node_id;
        let session = self.reach.open(record, budget).await;
        match &session {
            Ok(session) => {
                self.note_contact(node).await;
                self.note_address(record, session.peer()).await;
                self.keep_awake(record, session).await;
            }
            Err(LinkError::NoSharedTrustRoots { peer }) => {
                self.reach.suspect(node, *peer);
                self.doubt(node);
            }
            Err(LinkError::Unreachable { .. } | LinkError::NotThatNode { .. }) => self.doubt(node),
            Err(_) => {}
        }
        session.map_err(|error| self.or_asleep(record, error))
    }

    /// Where it answered comes first, also after a restart.
    async fn note_address(&self, record: &NodeRecord, peer: SocketAddr) {
        let address = self.reach.address(record, peer);
        if record.addresses.first() == Some(&address) && record.port == peer.port() {
            return;
        }
        let changed = self.store.modify_node(record.node_id, move |record| {
            record.addresses.retain(|known| *known != address);
            record.addresses.insert(0, address);
            record.port = peer.port();
        });
        if let Err(error) = changed.await {
            tracing::debug!(node.id = record.node_id.0, %error, "cannot note where the node answered");
        }
    }

    /// Where a node stands, as far as that is known within `budget`. Proving that it has left takes longer, and goes on
    /// by itself where there is a reason; what it came to is known here then.
    pub(super) async fn standing(&self, record: &NodeRecord, budget: Duration) -> Reached<W> {
        match self.meet_within(record, budget).await {
            Ok(session) => Reached::Ours(session),
            Err(error) => match self.reach.proof(record.node_id) {
                Some(proof) => Reached::NotOnOurFabric(proof),
                None => Reached::of(error),
            },
        }
    }

    /// The same, to the end: where something says that the node has left, the proof is waited for, some 15 s.
    pub(super) async fn settled_standing(&self, record: &NodeRecord) -> Reached<W> {
        let standing = self.standing(record, OPEN).await;
        let Reached::SomebodyElse(LinkError::NoSharedTrustRoots { peer }) = &standing else { return standing };
        match self.reach.prove(record, *peer).await {
            Some(proof) => Reached::NotOnOurFabric(proof),
            None => standing,
        }
    }

    /// Ends work with a node in time, with a sleepy one's sleep in addition.
    pub(super) async fn within<T>(
        &self,
        record: &NodeRecord,
        work: impl Future<Output = Result<T, LinkError>>,
    ) -> Result<T, LinkError> {
        let late = LinkError::Unreachable { tried: Vec::new() };
        let budget = DEVICE + self.reach.sleep(record);
        let ended = tokio::time::timeout(budget, work).await.unwrap_or(Err(late));
        ended.map_err(|error| self.or_asleep(record, error))
    }
}

pub(super) fn device_error(error: &LinkError) -> Refusal {
    let (code, hint) = match error {
        LinkError::Asleep { wake, .. } => {
            let hint =
                format!("what waits for it is done when it checks in; to have it done now, {wake} and try again");
            return Refusal::new("device-asleep", Disposition::Retry, error.to_string(), hint);
        }
        LinkError::NoSharedTrustRoots { .. } | LinkError::NotThatNode { .. } => {
            ("case-refused", "another device may have its address, or it was reset; `matterbind sync` tells")
        }
        LinkError::HandshakeRefused { .. } => ("handshake-refused", "packets may get lost on the way; try again"),
        LinkError::Unreachable { .. } | LinkError::SessionLost => {
            ("device-unreachable", "check that the device has power and is near enough, then try again")
        }
        LinkError::Busy => ("device-busy", "wait a minute, then try again"),
        LinkError::Stack { .. } => ("stack-failed", "restart the daemon; `matterbind logs` has the details"),
        _ => ("device-error", "try again; `matterbind logs` has the details"),
    };
    Refusal::new(code, Disposition::Retry, error.to_string(), hint)
}
