//! What the daemon must answer for the admin API. The composition root implements it, tests have a fake.

use std::future::Future;

use tokio::sync::{broadcast, mpsc};

use super::access::{AccessReport, AccessView};
use super::commission::{CommissionEvent, CommissionRequest, CommissionResult};
use super::discover::{DiscoverChange, DiscoverQuery, Discovered};
use super::inventory::{NodeCheck, NodeDetail, NodeRef, Nodes, ShareResult};
use super::keys::FabricInfo;
use super::log::LogQuery;
use super::outbox::Outbox;
use super::refusal::Refusal;
use super::removal::RemoveResult;
use super::status::Status;
use super::sync::SyncReport;
use crate::backup::{Lock, Unlock};
use crate::fabric::CatGrant;
use crate::journal::Event;
use crate::node::{NodeId, NodeRecord};

/// Takes the progress of an attempt. Never blocks and never fails: an attempt goes on when nobody listens any more.
#[derive(Debug, Clone)]
pub struct Progress(Option<mpsc::UnboundedSender<CommissionEvent>>);

impl Progress {
    /// A sender and what comes out of it. An attempt sends a few dozen events, so the queue needs no bound.
    pub fn channel() -> (Self, mpsc::UnboundedReceiver<CommissionEvent>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(Some(sender)), receiver)
    }

    /// For whom progress is of no interest.
    pub fn ignored() -> Self {
        Self(None)
    }

    /// Passes an event on.
    pub fn report(&self, event: CommissionEvent) {
        if let Some(sender) = &self.0 {
            // The client may have left; the attempt goes on.
            let _ = sender.send(event);
        }
    }
}

/// Answers for the admin API. Every method has its own deadline; none waits for ever.
pub trait Backend: Send + Sync + 'static {
    /// How everything stands. Answers at once, also before the daemon is ready.
    fn status(&self) -> impl Future<Output = Status> + Send;
    /// One attempt, from the setup code to the record, and up to `wait_bind_ms` longer for the cloud. A failure is a result.
    fn commission(
        &self,
        request: CommissionRequest,
        progress: Progress,
    ) -> impl Future<Output = Result<CommissionResult, Refusal>> + Send;

    /// All node records.
    fn nodes(&self) -> impl Future<Output = Result<Nodes, Refusal>> + Send;
    /// The id that a name stands for; ids are passed through, known or not.
    fn resolve(&self, node: &NodeRef) -> impl Future<Output = Result<NodeId, Refusal>> + Send;
    /// One record with its evidence.
    fn node(&self, node: NodeId) -> impl Future<Output = Result<NodeDetail, Refusal>> + Send;
    /// Talks to the node now. Not answering is a result, not an error.
    fn check(&self, node: NodeId) -> impl Future<Output = Result<NodeCheck, Refusal>> + Send;
    /// Lets the node identify itself for `seconds`.
    fn identify(&self, node: NodeId, seconds: u16) -> impl Future<Output = Result<(), Refusal>> + Send;
    /// Renames in the record and queues the cloud's.
    fn rename(&self, node: NodeId, name: String) -> impl Future<Output = Result<NodeRecord, Refusal>> + Send;
    /// Opens a commissioning window for `seconds`, 180 to 900.
    fn share(&self, node: NodeId, seconds: u16) -> impl Future<Output = Result<ShareResult, Refusal>> + Send;
    /// Device, cloud, record, in that order; resumable.
    fn remove(&self, node: NodeId, force: bool) -> impl Future<Output = Result<RemoveResult, Refusal>> + Send;

    /// What the cloud has not acknowledged.
    fn outbox(&self) -> impl Future<Output = Result<Outbox, Refusal>> + Send;
    /// Makes a row due now.
    fn outbox_retry(&self, id: i64) -> impl Future<Output = Result<Outbox, Refusal>> + Send;
    /// Gives a row up; the node stays, its bind is `rejected` or `disabled`.
    fn outbox_drop(&self, id: i64) -> impl Future<Output = Result<Outbox, Refusal>> + Send;

    /// Listens for `timeout_ms` and lists what is there.
    fn discover(&self, query: &DiscoverQuery) -> impl Future<Output = Result<Discovered, Refusal>> + Send;
    /// What is there, then every change, until the receiver is dropped.
    fn watch(
        &self,
        query: &DiscoverQuery,
    ) -> impl Future<Output = Result<mpsc::Receiver<DiscoverChange>, Refusal>> + Send;

    /// Entries of the admin log, oldest first; with a `limit`, the newest of them. `query.node` is an id here.
    fn logs(&self, query: &LogQuery) -> impl Future<Output = Result<Vec<Event>, Refusal>> + Send;
    /// Every entry from now on, after it is durable.
    fn subscribe(&self) -> broadcast::Receiver<Event>;

    /// Compares device, record and cloud now and mends what policy says; `None`: every node.
    fn sync(&self, node: Option<NodeId>) -> impl Future<Output = Result<SyncReport, Refusal>> + Send;
    /// What may be known of our fabric.
    fn fabric(&self) -> impl Future<Output = Result<FabricInfo, Refusal>> + Send;
    /// The encrypted backup, of one instant.
    fn backup(&self, lock: Lock) -> impl Future<Output = Result<Vec<u8>, Refusal>> + Send;
    /// The root key in an encrypted file.
    fn export_root(&self, lock: Lock) -> impl Future<Output = Result<Vec<u8>, Refusal>> + Send;
    /// Removes the root key from this hub, if `sha256` is that of the file that was exported last.
    fn remove_root(&self, sha256: &str) -> impl Future<Output = Result<FabricInfo, Refusal>> + Send;
    /// Brings the root key of an exported file back, if it is the key of this fabric's root certificate.
    fn import_root(&self, file: Vec<u8>, unlock: Unlock) -> impl Future<Output = Result<FabricInfo, Refusal>> + Send;

    /// Who may do what, in force and on the nodes.
    fn access(&self) -> impl Future<Output = Result<AccessView, Refusal>> + Send;
    /// Sets the grants of one node or of all, and writes them; `None` for the grants: as configured.
    fn set_access(
        &self,
        node: Option<NodeId>,
        grants: Option<Vec<CatGrant>>,
    ) -> impl Future<Output = Result<AccessReport, Refusal>> + Send;
    /// Writes what is in force to one node or to all; what cannot be written now is written when the node is seen.
    fn apply_access(&self, node: Option<NodeId>) -> impl Future<Output = Result<AccessReport, Refusal>> + Send;
    /// Raises the version of the tag with this identifier, and writes it to all.
    fn rotate_cat(&self, identifier: u16) -> impl Future<Output = Result<AccessReport, Refusal>> + Send;
}
