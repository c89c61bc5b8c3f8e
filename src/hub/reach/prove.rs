//! What takes too long for whoever asked: proving that a node has left our fabric, and reading under which other names it is
//! known. Not here: what a proof takes (`standing`).

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use tokio::task::JoinSet;

use super::{OPEN, Reach};
use crate::commissioning::ports::{FabricDescriptor, LinkError, MatterLink, OperationalSession};
use crate::hub::Hub;
use crate::hub::world::{Lan, World};
use crate::journal::{Event, EventSink, Level};
use crate::matter::credentials::compressed_fabric_id;
use crate::node::{FabricId, NodeId, NodeRecord, OperationalIdentity};
use crate::standing::{OffFabric, Suspicion};

/// One thing to do about a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Errand {
    /// This address says that it does not know our fabric.
    Prove(NodeId, SocketAddr),
    /// It is on another fabric too: its fabric table says who it is there.
    ReadFabrics(NodeId),
}

/// Runs until the daemon stops.
pub(in crate::hub) async fn follow<W: World>(hub: Arc<Hub<W>>) {
    // Dropped, and so ended, with this task.
    let mut tasks = JoinSet::new();
    let mut running = BTreeSet::new();
    loop {
        tokio::select! {
            () = hub.stop.cancelled() => return,
            () = hub.reach.wake.notified() => {}
            Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                if let Ok(errand) = ended {
                    running.remove(&errand);
                }
                continue;
            }
        }
        for errand in hub.reach.take_errands() {
            // Whoever asks again while it runs finds the same.
            if running.insert(errand) {
                let hub = Arc::clone(&hub);
                tasks.spawn(async move {
                    hub.run(errand).await;
                    errand
                });
            }
        }
    }
}

impl<W: World> Hub<W> {
    async fn run(&self, errand: Errand) {
        match errand {
            Errand::Prove(node, peer) => {
                let Ok(Some(record)) = self.store.node(node).await else { return };
                if let Some(proof) = self.reach.prove(&record, peer).await {
                    let message = format!("node {node} ({}) is not on our fabric any more: {proof}", record.name);
                    let event = Event::new(Timestamp::now(), Level::Warn, "node-off-fabric", message);
                    self.journal.record(event.with_node(node));
                    self.note_silence(node, &proof.to_string()).await;
                    self.syncing.compare_soon(node);
                }
            }
            Errand::ReadFabrics(node) => {
                let Ok(Some(record)) = self.store.node(node).await else { return };
                let read = async { self.meet(&record).await?.fabrics().await };
                match self.within(&record, read).await {
                    Ok(fabrics) => self.note_fabrics(node, &fabrics).await,
                    Err(error) => tracing::debug!(node.id = node.0, %error, "the node's other fabrics are not known"),
                }
            }
        }
    }

    /// A node's own fabric table: the names under which it is known besides ours.
    pub(in crate::hub) async fn note_fabrics(&self, node: NodeId, fabrics: &[FabricDescriptor]) {
        let ours = self.reach.ours(node);
        let names = fabrics.iter().filter_map(identity).filter(|name| *name != ours);
        let mut names: Vec<OperationalIdentity> = names.collect();
        names.sort_unstable();
        let Ok(Some(record)) = self.store.node(node).await else { return };
        if record.also_known_as == names {
            return;
        }
        if let Err(error) = self.store.modify_node(node, move |record| record.also_known_as = names).await {
            tracing::warn!(node.id = node.0, %error, "cannot note on which other fabrics the node is");
        }
    }
}

impl<W: World> Reach<W> {
    /// `peer` refused `node` with "no shared trust roots". Whether that is the node itself is found out beside other work.
    pub(in crate::hub) fn suspect(&self, node: NodeId, peer: SocketAddr) {
        if !self.proofs().contains_key(&node) {
            self.send(Errand::Prove(node, peer));
        }
    }

    /// A device that may be `node` was seen on another fabric.
    pub(in crate::hub) fn seen_on_another_fabric(&self, node: NodeId) {
        self.send(Errand::ReadFabrics(node));
    }

    fn send(&self, errand: Errand) {
        self.errands.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(errand);
        self.wake.notify_one();
    }

    fn take_errands(&self) -> Vec<Errand> {
        let mut errands = self.errands.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        std::mem::take(&mut *errands).into_iter().collect()
    }

    /// Whether the node itself says that it has left our fabric, after `peer` has said so once.
    pub(in crate::hub) async fn prove(&self, record: &NodeRecord, peer: SocketAddr) -> Option<OffFabric> {
        let node = record.node_id;
        let names = record.also_known_as.iter().copied().chain([self.ours(node)]);
        let known: Vec<_> = names
            .filter_map(|name| {
                let seen = self.lan.operational_node(name.compressed_fabric_id, name.node_id)?;
                Some((name, seen))
            })
            .collect();
        let sockets: Vec<_> = known.iter().map(|(name, seen)| (*name, seen.sockets())).collect();
        let suspicion = Suspicion::begin(node, peer, &sockets, Instant::now())?;
        let name = suspicion.announced_as();
        known.iter().filter(|(known, _)| *known == name).for_each(|(_, seen)| self.lan.confirm(seen));
        tokio::time::sleep_until(suspicion.ask_again_at().into()).await;
        let confirmed = self.lan.confirmed_operational(name.compressed_fabric_id, name.node_id)?.sockets();
        // A device may need most of a minute for each handshake that it refused (rs-matter 0.4.1 does): it is not asked twice at
        // once.
        let again = if confirmed.contains(&peer) { vec![peer] } else { confirmed.clone() };
        match self.link.open_case(node, &again, OPEN).await {
            Err(LinkError::NoSharedTrustRoots { peer }) => {
                let proof = suspicion.conclude(peer, &confirmed, Instant::now())?;
                self.proofs().insert(node, proof.clone());
                Some(proof)
            }
            Ok(_) | Err(_) => None,
        }
    }
}

fn identity(fabric: &FabricDescriptor) -> Option<OperationalIdentity> {
    let compressed_fabric_id = compressed_fabric_id(&fabric.root_public_key, FabricId(fabric.fabric_id)).ok()?;
    Some(OperationalIdentity { compressed_fabric_id, node_id: NodeId(fabric.node_id) })
}
