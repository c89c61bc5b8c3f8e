//! What the record knows of a device already: which node it is, or was before it was reset, and whether a code is one of ours. Not
//! here: what a successor takes over (`record`, `store::succession`).

use std::future::pending;
use std::pin::Pin;
use std::time::Duration;

use super::run::Run;
use super::{Commissioner, Order};
use crate::commissioning::error::CommissioningError;
use crate::commissioning::ports::{AttestationJudge, Discovery, FailSafe, MatterLink, NodeStore, OperationalSession};
use crate::node::{Announced, BasicInformation, NodeRecord, Peer};
use crate::onboarding::Discriminator;

/// How long a node of ours may take to say that the code is its own.
const OURS: Duration = Duration::from_secs(3);
/// A device that is not known by its code, but by what the code tells of it, is asked only after a device in its box had the time
/// to be heard.
pub(super) const LOOKS_LIKE_OURS: Duration = Duration::from_secs(3);

/// A node of ours that answers, and that a code may belong to.
pub(super) struct Known {
    pub(super) record: Box<NodeRecord>,
    at: Peer,
    /// It was commissioned with this very code; otherwise it looks like what the code tells.
    pub(super) by_code: bool,
}

impl Known {
    /// Whether the node answers where `announced` was told to be, with this very code: then it is what was announced, while it was
    /// in its box.
    pub(super) fn is_at(&self, announced: &Announced) -> bool {
        self.by_code && announced.peers().contains(&self.at)
    }
}

/// Whether the code is one of ours: asked while the device is looked for and tried.
pub(super) struct Ours<'a> {
    asking: Option<Pin<Box<dyn Future<Output = Option<Known>> + Send + 'a>>>,
    pub(super) told: Option<Known>,
}

impl<'a> Ours<'a> {
    pub(super) fn of(asking: impl Future<Output = Option<Known>> + Send + 'a) -> Self {
        Self { asking: Some(Box::pin(asking)), told: None }
    }

    /// Comes back once, with the answer in `told`.
    pub(super) async fn come(&mut self) {
        let Some(asking) = &mut self.asking else { return pending().await };
        self.told = asking.as_mut().await;
        self.asking = None;
    }
}

impl<L, D, S, J> Commissioner<L, D, S, J>
where
    L: MatterLink,
    D: Discovery,
    S: NodeStore,
    J: AttestationJudge,
{
    /// A device that holds our fabric already is one of our nodes: which one, its identity tells.
    pub(super) async fn named(&self, error: CommissioningError, basic: &BasicInformation) -> CommissioningError {
        let (step, code) = (error.step(), error.code());
        if code != "already-on-this-fabric" {
            return error;
        }
        let same =
            |record: &NodeRecord| record.unique_id == basic.unique_id && record.serial_number == basic.serial_number;
        let known = self.store.nodes_of_product(basic.vendor_id, basic.product_id).await.unwrap_or_default();
        match known.into_iter().rfind(same) {
            Some(node) => CommissioningError::AlreadyOurs { step, node: Box::new(node) },
            None => error,
        }
    }

    /// Which record the device had before. Its old node is given time to answer, while the fail-safe is kept armed.
    pub(super) async fn predecessor_of(
        &self,
        run: &mut Run<'_>,
        basic: &BasicInformation,
        arming: &impl FailSafe,
    ) -> Result<Option<NodeRecord>, CommissioningError> {
        let mut finding = (self.predecessor)(basic.clone());
        loop {
            let pause = run.attempt.fail_safe() / 4;
            tokio::select! {
                found = &mut finding => {
                    run.keep_armed(arming).await?;
                    return Ok(found);
                }
                () = tokio::time::sleep(pause) => run.keep_armed(arming).await?,
            }
        }
    }

    /// The node of ours that this code belongs to, if it answers as ours now. Comes to an end only with an answer.
    pub(super) async fn ours(&self, order: &Order) -> Option<Known> {
        let fingerprint = self.settings.fingerprints.fingerprint(&order.payload);
        // Vendors ship one passcode with many products; a QR code says whose it is.
        let fits = |record: &NodeRecord| {
            record.discriminator.is_none_or(|discriminator| order.payload.discriminator.matches(discriminator))
                && order.payload.vid_pid.is_none_or(|product| product == (record.vendor_id, record.product_id))
        };
        let of_code = self.store.nodes_of_code(fingerprint).await.unwrap_or_default();
        if let Some((record, at)) = self.answering(of_code.into_iter().filter(fits)).await {
            return Some(Known { record, at, by_code: true });
        }
        // Nodes that were recorded before codes were remembered.
        let Discriminator::Long(_) = order.payload.discriminator else { return None };
        tokio::time::sleep(LOOKS_LIKE_OURS).await;
        let like =
            |record: &NodeRecord| fits(record) && order.payload.vid_pid == Some((record.vendor_id, record.product_id));
        let without_code = self.store.nodes_without_code().await.unwrap_or_default();
        let (record, at) = self.answering(without_code.into_iter().filter(like)).await?;
        Some(Known { record, at, by_code: false })
    }

    /// The first of them that answers as ours, and where.
    async fn answering(&self, records: impl Iterator<Item = NodeRecord>) -> Option<(Box<NodeRecord>, Peer)> {
        for record in records {
            if let Some(at) = self.answers_as_ours(&record).await {
                return Some((Box::new(record), at));
            }
        }
        None
    }

    /// Where the node answers now.
    async fn answers_as_ours(&self, record: &NodeRecord) -> Option<Peer> {
        let compressed = self.settings.compressed_fabric_id;
        let addresses = self.discovery.operational(compressed, record.node_id, OURS / 3).await;
        let patience = OURS + record.rhythm.session().sleep();
        if addresses.is_empty() {
            return None;
        }
        let session = self.link.open_case(record.node_id, &addresses, patience).await.ok()?;
        Some(Peer::Udp(session.peer()))
    }
}
