//! A device on its way, as the disk knows it: what the next start needs of an attempt that a crash has cut short. Not here: what is
//! done about it (`hub::recovery`), the columns (`store`).

use std::time::Duration;

use uuid::Uuid;

use crate::bind::CapabilityMask;
use crate::commissioning::identity::GivenIdentity;
use crate::node::{NodeId, NodeRecord};
use crate::outbox::ports::OutboxTask;

/// A node whose id is given away but whose CommissioningComplete is not yet known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvisionalNode {
    /// The attempt it belongs to.
    pub attempt_id: Uuid,
    /// What the record will be, as far as `stage` says.
    pub record: NodeRecord,
    /// The cloud work to queue when it is promoted.
    pub task: Option<OutboxTask>,
    /// Evidence to keep with the node, as JSON (see `attestation`).
    pub evidence: String,
    /// How far it may have come.
    pub stage: Stage,
}

/// How far the device of an attempt may have come, by what was written before it was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// Its node id is given away. Nobody can meet it on our fabric: it rolls back by itself when its fail-safe expires (Matter Core
    /// 11.10.7.2).
    GivenAway,
    /// It may be on our fabric until its fail-safe expires, and can be finished over CASE until then.
    OnFabric(Box<Unfinished>),
    /// CommissioningComplete may have been sent; `record` and `task` are as they stay.
    Ready,
}

/// What finishing a device takes beside its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// What the person asked for.
    pub(crate) particulars: Particulars,
    /// What the way to the device tells of its capabilities.
    pub(crate) seen: CapabilityMask,
    /// Its fail-safe was never armed for longer than this.
    pub(crate) fail_safe: Duration,
}

/// What a person wants of the record and of the cloud.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Particulars {
    /// The identity in the cloud, as far as the command gives it.
    pub(crate) identity: GivenIdentity,
    /// The person's name for it.
    pub(crate) name: Option<String>,
    /// Family in the cloud.
    pub(crate) family_id: Option<String>,
    /// Room in the cloud.
    pub(crate) room_id: Option<String>,
    /// Leave the cloud alone.
    pub(crate) no_bind: bool,
}

impl ProvisionalNode {
    /// With its id, and the name that follows from it where nobody gave one.
    pub fn with_node_id(mut self, node: NodeId) -> Self {
        if self.record.has_default_name() {
            self.record.name = NodeRecord::default_name(&self.record.product_name, node);
        }
        self.record.node_id = node;
        self
    }
}
