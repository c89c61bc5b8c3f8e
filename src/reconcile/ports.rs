//! What reconciliation needs of the outside: devices, the durable record, and the cloud (`outbox::ports::BindApi`).

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use super::compare::DeviceView;
use super::mend::Change;
use crate::durable::StoreError;
use crate::fabric::CatGrant;
use crate::node::{NodeId, NodeRecord};
use crate::outbox::ports::{OutboxId, OutboxTask};
use crate::secret::BindingCode;

/// How a node stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Examined {
    /// What it showed, or proved.
    pub device: DeviceView,
    /// DNS-SD instance of a commissionable device of the same vendor, product and discriminator.
    pub commissionable_again: Option<String>,
}

/// The devices of our fabric.
pub(crate) trait Devices: Send + Sync {
    /// Whether the node announces itself on our fabric now. Those that do are asked first.
    fn is_announced(&self, record: &NodeRecord) -> bool;
    /// How long the node may take to answer, all questions.
    fn patience(&self, record: &NodeRecord) -> Duration;
    /// Asks the node over CASE; one that is known not to answer is not waited for.
    fn examine(&self, record: &NodeRecord) -> impl Future<Output = Examined> + Send;
    /// Writes the configured access control list and gives what the device grants afterwards.
    fn restore_access(&self, record: &NodeRecord) -> impl Future<Output = Result<Vec<CatGrant>, String>> + Send;
    /// A binding code for a new bind; `None` where there is no way to get one.
    fn binding_code(&self, record: &NodeRecord) -> impl Future<Output = Option<BindingCode>> + Send;
    /// Begins the removal of the node and brings it as far as it goes now.
    fn decommission(&self, node: NodeId) -> impl Future<Output = Result<(), String>> + Send;
}

pub(crate) trait Records: Send + Sync {
    fn records(&self) -> impl Future<Output = Result<Vec<NodeRecord>, StoreError>> + Send;
    /// Nodes for which the outbox holds a bind, an unbind or a change of the Matter identity, in whatever state.
    fn queued(&self) -> impl Future<Output = Result<BTreeSet<NodeId>, StoreError>> + Send;
    /// Changes the record and queues `task`, in one transaction. The task is left out where the node is being removed or
    /// [`Records::queued`] has it by then; answers its row.
    fn mend(
        &self,
        node: NodeId,
        change: Change,
        task: Option<OutboxTask>,
        now: Timestamp,
    ) -> impl Future<Output = Result<Option<OutboxId>, StoreError>> + Send;
}
