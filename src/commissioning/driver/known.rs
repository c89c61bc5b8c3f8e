//! What the record knows of a device already: which node it is, or was before it was reset. Not here: what a successor takes over
//! (`record`, `store::succession`).

use super::Commissioner;
use super::run::Run;
use crate::commissioning::error::CommissioningError;
use crate::commissioning::path::Shown;
use crate::commissioning::ports::{AttestationJudge, Discovery, MatterLink, NodeStore};
use crate::node::{BasicInformation, NodeRecord};

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
        shown: &Shown,
        pase: &L::Pase,
    ) -> Result<Option<NodeRecord>, CommissioningError> {
        let mut finding = (self.predecessor)(shown.description.basic.clone());
        loop {
            let pause = run.attempt.fail_safe() / 4;
            tokio::select! {
                found = &mut finding => {
                    run.keep_armed(pase).await?;
                    return Ok(found);
                }
                () = tokio::time::sleep(pause) => run.keep_armed(pase).await?,
            }
        }
    }
}
