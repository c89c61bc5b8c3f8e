//! The devices that a setup code may be for, one after the other, while a search runs.
//!
//! Not here: which of them it is. Only the passcode proves that, so whoever commissions tries each (`commissioning`).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, watch};

use super::cache::Kind;
use super::search::Wanted;
use super::{Asking, Command, Shared};
use crate::commissioning::ports::{CandidateSearch, DiscoverError};
use crate::node::CommissionableNode;

/// What fits a setup code now and from now on. While it lives, the LAN is asked again and again.
#[derive(Debug)]
pub struct Candidates {
    shared: Arc<Shared>,
    commands: mpsc::UnboundedSender<Command>,
    wanted: Wanted,
    /// By instance name, as they were given out.
    given: HashMap<String, CommissionableNode>,
    changes: watch::Receiver<u64>,
    _asking: Asking,
}

impl Candidates {
    pub(super) fn new(shared: &Arc<Shared>, commands: mpsc::UnboundedSender<Command>, wanted: Wanted) -> Self {
        Self {
            shared: Arc::clone(shared),
            commands,
            wanted,
            given: HashMap::new(),
            changes: shared.changes.subscribe(),
            _asking: Asking::new(shared, Some(wanted.subtype())),
        }
    }

    /// The next device that fits and has its window open: of those not given yet the one heard last, and then whoever
    /// appears before `until`. A device whose records have changed (another address or port, a window opened anew) is
    /// given again. `None` where nobody came until then; it may be asked again with a later time.
    ///
    /// # Errors
    /// [`DiscoverError::Unavailable`] where mDNS does not run, at once.
    pub async fn next(&mut self, until: Instant) -> Result<Option<CommissionableNode>, DiscoverError> {
        loop {
            self.changes.mark_unchanged();
            self.shared.check_running()?;
            let fresh = self.fitting().into_iter().find(|node| self.given.get(&node.instance) != Some(node));
            if let Some(node) = fresh {
                self.given.insert(node.instance.clone(), node.clone());
                return Ok(Some(node));
            }
            match tokio::time::timeout_at(until.into(), self.changes.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Ok(None),
            }
        }
    }

    /// Every device that fits and has its window open now, the one heard last first.
    pub fn fitting(&self) -> Vec<CommissionableNode> {
        self.wanted.fitting(&self.shared.cache())
    }

    /// A device that would fit if its window were open (`CM=0`).
    pub fn closed(&self) -> Option<CommissionableNode> {
        self.wanted.closed(&self.shared.cache())
    }

    /// Whether a device still announces itself as it was given.
    pub fn is_current(&self, node: &CommissionableNode) -> bool {
        self.fitting().contains(node)
    }

    /// A device did not answer: its records are asked for, and go where nobody answers within ten seconds (RFC 6762
    /// 10.4). One that answers keeps its place.
    pub fn confirm(&self, node: &CommissionableNode) {
        // An actor that has gone confirms nothing.
        let _ = self.commands.send(Command::Confirm(Kind::Commissionable, node.instance.clone()));
    }
}

impl CandidateSearch for Candidates {
    fn fitting(&self) -> Result<Vec<CommissionableNode>, DiscoverError> {
        self.shared.check_running()?;
        Ok(self.fitting())
    }

    fn announced(&self) -> Vec<CommissionableNode> {
        self.shared.cache().candidates()
    }

    fn closed(&self) -> Option<CommissionableNode> {
        self.closed()
    }

    fn at(&self, address: SocketAddr) -> Option<CommissionableNode> {
        self.shared.cache().commissionable_at(address.ip(), Some(address.port()))
    }

    async fn changed(&mut self) {
        // A closed channel means that the actor has gone: the caller's deadline ends the search then.
        if self.changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    fn doubt(&self, node: &CommissionableNode) {
        self.confirm(node);
    }
}
