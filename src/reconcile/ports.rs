//! What reconciliation needs of the outside: devices, the durable record, and the cloud (`outbox::ports::BindApi`).

use std::collections::BTreeSet;
use std::net::SocketAddr;

use jiff::Timestamp;

use super::compare::DeviceView;
use super::mend::Change;
use crate::durable::StoreError;
use crate::fabric::CatGrant;
use crate::node::{NodeId, NodeRecord};
use crate::outbox::ports::{OutboxId, OutboxTask};
use crate::secret::BindingCode;

/// Where a node may be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Located {
    /// Whether it announces itself on our fabric now.
    pub announced: bool,
    /// Announced addresses first, then those where it was last.
    pub addresses: Vec<SocketAddr>,
    /// DNS-SD instance of a commissionable device of the same vendor, product and discriminator.
    pub commissionable_again: Option<String>,
}

/// The devices of our fabric.
pub trait Devices: Send + Sync {
    /// Where the node is; may wait for an announcement, some seconds at most.
    fn locate(&self, record: &NodeRecord) -> impl Future<Output = Located> + Send;
    /// Asks the node over CASE.
    fn look(&self, record: &NodeRecord, located: &Located) -> impl Future<Output = DeviceView> + Send;
    /// Writes the configured access control list and gives what the device grants afterwards.
    fn restore_access(&self, record: &NodeRecord) -> impl Future<Output = Result<Vec<CatGrant>, String>> + Send;
    /// A binding code for a new bind; `None` where there is no way to get one.
    fn binding_code(&self, record: &NodeRecord) -> impl Future<Output = Option<BindingCode>> + Send;
    /// Begins the removal of the node and brings it as far as it goes now.
    fn decommission(&self, node: NodeId) -> impl Future<Output = Result<(), String>> + Send;
}

/// The durable side.
pub trait Records: Send + Sync {
    /// Every recorded node.
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
