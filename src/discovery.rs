//! Matter nodes on the LAN: who may be commissioned, and where the nodes of a fabric are (Matter Core 4.3).
//!
//! One actor for the daemon's life keeps mdns-sd browsing both service types on every configured interface and over both
//! IP families, and keeps what it hears in a cache of nodes. A search looks there first; while it waits, the actor keeps
//! asking. `txt`, `address`, `cache`, `search` and `schedule` are pure; `actor` is the only one that does I/O.
//! Not here: talking to a device (`matter`), trying passcodes (`commissioning`).
//!
//! # Why devices were missed, and what is done about it
//! Read in mdns-sd 0.21.7 and seen on the wire against matter.js:
//! - A browse asks after 1, 2, 4, 8 … s, and the pauses grow to an hour. matter.js multicasts no record twice within a
//!   second (RFC 6762 6), so the first repetitions can fall into that pause, and whoever starts listening after an answer
//!   has gone by waits seconds for the next. Here a search starts the series anew (`schedule`), and the browse is
//!   open long before a search comes.
//! - A repeated query carries the PTR records that are known. The device then leaves out its whole answer, the
//!   SRV, TXT and address records beside the PTR too (RFC 6762 7.1); where one of those was lost, nothing brings it back.
//!   mdns-sd asks for a lost SRV or address, but never for a lost TXT record: it reports the service as resolved, without
//!   a discriminator. A node that stays incomplete therefore makes the actor drop the record cache of its service type
//!   and ask without known answers. Nodes that do not answer then within ten seconds are gone.
//! - A goodbye leaves empty record lists behind in mdns-sd, which it takes for present records, so that a name which comes
//!   back (an operational node that joins again) is never asked for its SRV record. The same restart cures that.
//! - matter.js keeps that pause by record name, not by record. Where one process has several services of a type (several
//!   devices, or one device on several fabrics) only the first of them answers a query for the type; the others are
//!   heard when they announce themselves, and never again. A query for the subtype (`_L3840`, `_S15`, `_I<fabric>`;
//!   Matter Core 4.3.1.3 and 4.3.2.3) reaches the one that is meant, so a search asks for that too.
//! - The goodbye of one service carries the addresses of its host (matter.js sends them with a TTL of 0), and mdns-sd then
//!   drops every other service of that host: a device that has just left a fabric says goodbye for its operational
//!   instance and so takes its commissionable one along. What follows is the case above, missing addresses behind a
//!   known PTR record; a plain repetition of the query could not heal it for up to an hour.
//! - A device that loses its power and comes back before its records expire (two minutes for most) announces nothing that
//!   mdns-sd does not know, and so there is no event. Whoever finds that a node does not answer therefore has its records
//!   confirmed ([`LanDiscovery::confirm`]).
//! - mdns-sd keeps every record that anybody sends, and asks four times for what a name lacks. A neighbour that announces more
//!   than a home has to say (`guard`) makes the actor start it anew, which drops records and questions alike; the flooded
//!   service type is opened again after a pause that grows, and until then a search asks for its device's subtype alone.
//! - A second `browse` of the same type silently replaces the first; a full event channel ends it. So there is one, the
//!   actor's, and whatever ends it counts as such a flood.

mod actor;
mod address;
mod browse;
mod cache;
mod candidates;
mod changes;

#[cfg(feature = "sim")]
pub(crate) mod fuzz;
mod guard;
mod health;
pub(crate) mod interfaces;
mod own;
mod schedule;
mod search;
mod survey;
pub(crate) mod txt;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use self::cache::{Cache, Kind};
pub use self::cache::{DiscoveryEvent, Seen};
pub(crate) use self::candidates::Candidates;
pub(crate) use self::health::Health;
pub(crate) use self::interfaces::InterfaceState;
use self::search::{SearchState, Wanted};
pub(crate) use self::survey::{Echo, EchoOutcome, Survey, survey};
use crate::commissioning::ports::{DiscoverError, Discovery};
use crate::config::NetworkConfig;
use crate::node::{Announced, CommissionableNode, NodeId, OperationalIdentity, OperationalNode};
use crate::onboarding::Discriminator;

/// A subscriber that falls behind by more than this loses the oldest events; a snapshot tells the rest.
const EVENT_BACKLOG: usize = 1024;

/// How long discovery has to answer the hub itself: it never does anything that takes long.
const ROUND_TRIP: Duration = Duration::from_secs(5);

/// mDNS could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Neither socket nor thread, or the interfaces could not be set.
    #[error("mDNS cannot be started (UDP port 5353)")]
    Mdns(#[source] mdns_sd::Error),
}

/// The handle of the running discovery; clones share it. The last one to go stops it.
#[derive(Debug, Clone)]
pub struct LanDiscovery {
    shared: Arc<Shared>,
    commands: mpsc::UnboundedSender<Command>,
    _stop: Arc<tokio_util::sync::DropGuard>,
}

/// What the actor is told.
#[derive(Debug)]
enum Command {
    /// The instance does not answer although its records are valid.
    Confirm(Kind, String),
    /// The hub announces itself as this node of its fabric, at this port.
    Announce(OperationalIdentity, u16),
    /// Whoever hears the answer knows that actor and mDNS run.
    Ping(oneshot::Sender<()>),
}

/// What searches and the actor share.
#[derive(Debug)]
struct Shared {
    interfaces: interfaces::Known,
    cache: Mutex<Cache>,
    /// Counts changes of the cache and query rounds: a search looks again after each.
    changes: watch::Sender<u64>,
    events: broadcast::Sender<DiscoveryEvent>,
    /// What is searched now, and by how many; the key `None` is a listing.
    searches: Mutex<HashMap<Option<(Kind, String)>, usize>>,
    search_began: Notify,
    /// Why there is nothing to wait for.
    failure: Mutex<Option<String>>,
}

impl LanDiscovery {
    /// Starts browsing, in the network namespace of the calling thread. Needs a tokio runtime.
    pub fn start(config: &NetworkConfig) -> Result<Self, StartError> {
        let shared = Arc::new(Shared {
            interfaces: interfaces::Known::new(config.clone()),
            cache: Mutex::default(),
            changes: watch::Sender::new(0),
            events: broadcast::Sender::new(EVENT_BACKLOG),
            searches: Mutex::default(),
            search_began: Notify::new(),
            failure: Mutex::default(),
        });
        let stop = CancellationToken::new();
        let actor = actor::Actor::start(Arc::clone(&shared)).map_err(StartError::Mdns)?;
        let (commands, orders) = mpsc::unbounded_channel();
        tokio::spawn(actor.run(stop.clone(), orders));
        Ok(Self { shared, commands, _stop: Arc::new(stop.drop_guard()) })
    }

    /// What appears, changes and goes from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<DiscoveryEvent> {
        self.shared.events.subscribe()
    }

    /// The commissionable nodes now, the one seen first first. Those with a closed window too, and both of two that have one
    /// address: which of them is the device, only its passcode tells.
    pub fn commissionable(&self) -> Vec<CommissionableNode> {
        self.shared.cache().commissionable_entries().map(|entry| entry.node.clone()).collect()
    }

    /// The operational nodes now, of every fabric on the LAN.
    pub fn operational_nodes(&self) -> Vec<OperationalNode> {
        self.shared.cache().operational_nodes()
    }

    /// One operational node, as it is remembered now.
    pub fn operational_node(&self, compressed_fabric_id: u64, node: NodeId) -> Option<OperationalNode> {
        self.shared.cache().operational(compressed_fabric_id, node).cloned()
    }

    /// One operational node, unless it still has to answer for itself. Some seconds after [`LanDiscovery::confirm`] this is
    /// no memory.
    pub fn confirmed_operational(&self, compressed_fabric_id: u64, node: NodeId) -> Option<OperationalNode> {
        self.shared.cache().confirmed_operational(compressed_fabric_id, node).cloned()
    }

    /// A node does not answer although its records are still valid: they are asked for, and go where nobody answers within
    /// ten seconds (RFC 6762 10.4). Otherwise its return would announce nothing new, and not be heard for minutes.
    pub fn confirm(&self, node: &OperationalNode) {
        // An actor that has gone confirms nothing.
        let _ = self.commands.send(Command::Confirm(Kind::Operational, node.instance()));
    }

    /// From now on the hub announces itself as this node of the fabric, where it can be reached at `port`.
    pub fn announce_hub(&self, compressed_fabric_id: u64, hub: NodeId, port: u16) {
        let name = OperationalIdentity { compressed_fabric_id, node_id: hub };
        // An actor that has gone announces nothing.
        let _ = self.commands.send(Command::Announce(name, port));
    }

    /// The devices that a code may be for, one after the other; the LAN is asked for more while the answer lives.
    /// `vid_pid` is from the code, where it has them.
    pub fn candidates(&self, discriminator: Discriminator, vid_pid: Option<(u16, u16)>) -> Candidates {
        Candidates::new(&self.shared, self.commands.clone(), Wanted { discriminator, vid_pid })
    }

    /// Who announces itself as commissionable at this address: what `--address` names. The one heard last, where several do.
    /// Without a port, whichever it has. `None` where nobody does within `budget`; who is known is given at once.
    ///
    /// # Errors
    /// [`DiscoverError::Unavailable`] where mDNS does not run.
    pub async fn commissionable_at(
        &self,
        ip: IpAddr,
        port: Option<u16>,
        budget: Duration,
    ) -> Result<Option<CommissionableNode>, DiscoverError> {
        let deadline = tokio::time::Instant::now() + budget;
        let mut changes = self.shared.changes.subscribe();
        let mut asking = None;
        loop {
            changes.mark_unchanged();
            self.shared.check_running()?;
            if let Some(node) = self.shared.cache().commissionable_at(ip, port) {
                return Ok(Some(node));
            }
            asking.get_or_insert_with(|| self.ask());
            match tokio::time::timeout_at(deadline, changes.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Ok(None),
            }
        }
    }

    /// Whether devices can be found: interfaces, and a round trip through everything that runs here.
    pub async fn health(&self) -> Health {
        let standing = self.shared.interfaces.get(Instant::now());
        let (ping, answer) = oneshot::channel();
        // Where the actor has gone, the answer fails at once.
        let _ = self.commands.send(Command::Ping(ping));
        let failure = match (self.shared.check_running(), tokio::time::timeout(ROUND_TRIP, answer).await) {
            (Err(error), _) => Some(error.to_string()),
            (Ok(()), Ok(Ok(()))) => None,
            (Ok(()), Ok(Err(_)) | Err(_)) => Some("discovery does not answer the hub itself".to_owned()),
        };
        Health { interfaces: standing.usable.clone(), missing: standing.missing.clone(), failure }
    }

    /// The network as it is now, with an echo on every interface that takes part.
    pub async fn survey(&self) -> Survey {
        survey(self.shared.interfaces.config()).await
    }

    /// Keeps asking the LAN for as long as the guard lives: for a listing that should be complete.
    pub fn ask(&self) -> Asking {
        Asking::new(&self.shared, None)
    }

    /// The one node that a code is for, where only one fits.
    ///
    /// # Errors
    /// Nobody or several fit, or mDNS does not run.
    pub async fn find(
        &self,
        discriminator: Discriminator,
        vid_pid: Option<(u16, u16)>,
        budget: Duration,
    ) -> Result<CommissionableNode, DiscoverError> {
        self.search_one(Wanted { discriminator, vid_pid }, budget).await
    }

    /// Judges again after every change, until there is an answer or the budget is used up. Where a match has to settle
    /// when the budget ends, that is waited for: twice [`search::SETTLE`] at most.
    async fn search_one(&self, wanted: Wanted, budget: Duration) -> Result<CommissionableNode, DiscoverError> {
        let began = Instant::now();
        let deadline = began + budget;
        let mut changes = self.shared.changes.subscribe();
        let mut asking = None;
        loop {
            changes.mark_unchanged();
            self.shared.check_running()?;
            let now = Instant::now();
            let (wake, patience) = match wanted.judge(&self.shared.cache(), now) {
                SearchState::Found(node) => return Ok(node),
                SearchState::Ambiguous(candidates) => {
                    let candidates = candidates.into_iter().map(Announced::Lan).collect();
                    return Err(DiscoverError::Ambiguous { candidates });
                }
                SearchState::WaitUntil(settled) => (settled, deadline + search::SETTLE * 2),
                SearchState::Nothing => (deadline, deadline),
            };
            if now >= patience {
                return Err(self.not_found(wanted, now - began));
            }
            asking.get_or_insert_with(|| Asking::new(&self.shared, Some(wanted.subtype())));
            // Either way it is judged again; a closed channel means that the actor has gone, and the deadline ends it.
            let _ = tokio::time::timeout_at(wake.min(patience).into(), changes.changed()).await;
        }
    }

    fn not_found(&self, wanted: Wanted, waited: Duration) -> DiscoverError {
        if let Some(node) = wanted.closed(&self.shared.cache()) {
            return DiscoverError::NotInCommissioningMode { node: Box::new(node) };
        }
        let open = |node: &CommissionableNode| node.txt.commissioning_mode != 0;
        let others = self.commissionable().into_iter().filter(open).map(Announced::Lan).collect();
        DiscoverError::NotFound { discriminator: wanted.discriminator, waited, others, bluetooth: None }
    }
}

/// The subtype of all nodes of a fabric (Matter Core 4.3.2.3).
fn nodes_of(compressed_fabric_id: u64) -> String {
    format!("_I{compressed_fabric_id:016X}._sub.{}", Kind::Operational.service_type())
}

impl Discovery for LanDiscovery {
    type Search = Candidates;

    fn search(&self, discriminator: Discriminator, vid_pid: Option<(u16, u16)>) -> Candidates {
        self.candidates(discriminator, vid_pid)
    }

    async fn operational(&self, compressed_fabric_id: u64, node: NodeId, budget: Duration) -> Vec<SocketAddr> {
        let deadline = tokio::time::Instant::now() + budget;
        let mut changes = self.shared.changes.subscribe();
        let mut asking = None;
        self.shared.cache().handle_asked(compressed_fabric_id, node);
        loop {
            changes.mark_unchanged();
            let found = self.shared.cache().operational(compressed_fabric_id, node).map(OperationalNode::sockets);
            if let Some(sockets) = found.filter(|sockets| !sockets.is_empty()) {
                return sockets;
            }
            asking.get_or_insert_with(|| {
                Asking::new(&self.shared, Some((Kind::Operational, nodes_of(compressed_fabric_id))))
            });
            match tokio::time::timeout_at(deadline, changes.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Vec::new(),
            }
        }
    }
}

impl Shared {
    /// Each use leaves the cache whole, so a panic elsewhere is no reason to stop answering.
    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn searches(&self) -> MutexGuard<'_, HashMap<Option<(Kind, String)>, usize>> {
        self.searches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn somebody_waits(&self) -> bool {
        !self.searches().is_empty()
    }

    fn searched(&self) -> Vec<(Kind, String)> {
        self.searches().keys().flatten().cloned().collect()
    }

    fn check_running(&self) -> Result<(), DiscoverError> {
        if let Some(failure) = &*self.failure.lock().unwrap_or_else(PoisonError::into_inner) {
            return Err(DiscoverError::Unavailable(failure.clone()));
        }
        let standing = self.interfaces.get(Instant::now());
        if standing.usable.is_empty() {
            return Err(DiscoverError::Unavailable(health::no_interface(&standing.missing)));
        }
        Ok(())
    }

    fn set_failure(&self, failure: Option<String>) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
        self.announce(Vec::new());
    }

    fn announce(&self, events: Vec<DiscoveryEvent>) {
        for event in events {
            // Nobody may be listening.
            let _ = self.events.send(event);
        }
        self.changes.send_modify(|count| *count += 1);
    }
}

/// Makes the actor ask again and again while it lives.
#[derive(Debug)]
pub struct Asking {
    shared: Arc<Shared>,
    subtype: Option<(Kind, String)>,
}

impl Asking {
    fn new(shared: &Arc<Shared>, subtype: Option<(Kind, String)>) -> Self {
        *shared.searches().entry(subtype.clone()).or_default() += 1;
        shared.search_began.notify_one();
        Self { shared: Arc::clone(shared), subtype }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let mut searches = self.shared.searches();
        if let Some(count) = searches.get_mut(&self.subtype) {
            *count -= 1;
            if *count == 0 {
                searches.remove(&self.subtype);
            }
        }
    }
}
