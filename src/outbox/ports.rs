//! What the outbox needs from the outside: a cloud to talk to and a durable queue. Implemented in `cloud` and `store`.

use std::collections::BTreeSet;
use std::future::Future;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use utoipa::ToSchema;

use super::foreign::ForeignAnswer;
use crate::bind::codes::meaning_of;
use crate::bind::{BindReceipt, BindRequest, BindStatus, CloudDevice, CloudRecord, MatterInfo};
use crate::durable::StoreError;
use crate::node::{FabricId, NodeId};
use crate::secret::BindingCode;

/// Identifies a row of the outbox; ascending, so that the order for each device is the order of ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OutboxId(pub i64);

/// Why a call to the cloud did not end with body code 200.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloudError {
    /// The cloud answered with another body code than 200 (or 0): nothing was changed there, unless `bind::codes`
    /// says that the code is ambiguous.
    #[error("the cloud answered {code} {message}")]
    Code {
        /// The `code` in the body, which `bind::codes` explains.
        code: i64,
        /// The cloud's `msg`.
        message: String,
    },
    /// Nothing can have happened: the request never left (no connection, no name, TLS refused).
    #[error("{cause}")]
    NotSent {
        /// What failed, with the host, as a sentence.
        cause: String,
    },
    /// Nothing can have happened: whoever answers cannot be trusted, or the hub has nothing to trust it by.
    #[error("{cause}")]
    Untrusted {
        /// What does not fit, as a sentence; times are said as dates.
        cause: String,
        /// What a person can do about it.
        hint: String,
    },
    /// The request left, what became of it is unknown: timeout, reset, an answer that breaks off, body code 0.
    #[error("the cloud's answer is unknown: {cause}")]
    Ambiguous {
        /// What was seen.
        cause: String,
    },
    /// Something answered that is not the service. It says nothing about what was asked.
    #[error("not the cloud answered, but something before it: {answer}")]
    Foreign {
        /// As much of it as helps to find out who that is.
        answer: Box<ForeignAnswer>,
        /// Whether it was the request itself that was answered so, and not the sign-in that it needed.
        sent: bool,
    },
    /// Signing in is not possible now; asking again earlier than `not_before` would lock the account.
    #[error("cannot sign in to the cloud: {message}")]
    SignIn {
        /// The cloud's code, where it gave one.
        code: Option<i64>,
        /// What to tell the operator.
        message: String,
        /// `None`: not before an operator has changed something (password, domain).
        not_before: Option<Timestamp>,
    },
}

impl CloudError {
    /// Whether what was asked for may have happened all the same, whoever says otherwise.
    pub fn may_hide_success(&self) -> bool {
        match self {
            Self::Code { code, .. } => meaning_of(*code).ambiguous,
            Self::Ambiguous { .. } => true,
            Self::Foreign { answer, sent } => *sent && answer.may_hide_success(),
            Self::NotSent { .. } | Self::Untrusted { .. } | Self::SignIn { .. } => false,
        }
    }
}

/// What `getDeviceInfoByBinding` says about a device before it is bound (cloud-contract 3.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindPreview {
    /// 1 multi-user, 2 owner, 3 rotation (would evict whoever has it now).
    pub binding_mode: Option<u8>,
    /// The product's name.
    pub product_name: Option<String>,
}

/// The binding service (cloud-contract 3.2).
pub trait BindApi: Send + Sync + 'static {
    /// Binds. Without idempotency key: after [`CloudError::Ambiguous`] read back before anything else.
    fn bind(&self, request: &BindRequest) -> impl Future<Output = Result<BindReceipt, CloudError>> + Send;
    /// Our account's record of one device, `None` where it has none.
    fn find(&self, device: &CloudDevice) -> impl Future<Output = Result<Option<CloudRecord>, CloudError>> + Send;
    /// Those of `wanted` that our account has, from its whole list, and whatever else it shows on `fabric`. An account may
    /// have a hundred thousand devices, so nothing else of the list is kept.
    fn held(
        &self,
        wanted: &BTreeSet<CloudDevice>,
        fabric: Option<FabricId>,
    ) -> impl Future<Output = Result<Vec<CloudRecord>, CloudError>> + Send;
    /// Removes our binding. A device that is not bound is `Ok`.
    fn unbind(&self, device: &CloudDevice) -> impl Future<Output = Result<(), CloudError>> + Send;
    /// `setDeviceInfo` (cloud-contract 3.6).
    fn rename(&self, device: &CloudDevice, name: &str) -> impl Future<Output = Result<(), CloudError>> + Send;
    /// Moves to another room of the family.
    fn move_room(
        &self,
        device: &CloudDevice,
        family_id: &str,
        old_room_id: Option<&str>,
        new_room_id: &str,
    ) -> impl Future<Output = Result<(), CloudError>> + Send;
    /// Asks before binding whether it could succeed.
    fn preview(&self, device: &CloudDevice) -> impl Future<Output = Result<BindPreview, CloudError>> + Send;
}

/// What a row wants of the cloud.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutboxTask {
    /// `deviceBindingByWifi`.
    Bind(Box<BindRequest>),
    /// `unbundlingDeviceDk`.
    Unbind(CloudDevice),
    /// `setDeviceInfo`.
    Rename {
        /// The one to bind.
        device: CloudDevice,
        /// Its new name.
        name: String,
    },
    /// Move to a room.
    MoveRoom {
        /// The one to unbind.
        device: CloudDevice,
        /// The family both rooms belong to.
        family_id: String,
        /// Where it is now.
        old_room_id: Option<String>,
        /// Where it goes.
        new_room_id: String,
    },
    /// The Matter identity or the access list changed: the cloud has no update, so unbind, then bind (cloud-contract 4).
    UpdateMatterInfo(Box<BindRequest>),
}

impl OutboxTask {
    /// The word in JSON and in the store.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Bind(_) => "bind",
            Self::Unbind(_) => "unbind",
            Self::Rename { .. } => "rename",
            Self::MoveRoom { .. } => "move-room",
            Self::UpdateMatterInfo(_) => "update-matter-info",
        }
    }

    /// The device that the row is about; rows of one device are done in order, one at a time.
    pub fn device(&self) -> &CloudDevice {
        match self {
            Self::Bind(request) | Self::UpdateMatterInfo(request) => &request.device,
            Self::Unbind(device) | Self::Rename { device, .. } | Self::MoveRoom { device, .. } => device,
        }
    }
}

/// Where a row stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OutboxState {
    /// To be sent when due.
    Pending,
    /// Sent, or about to be: after a crash the outcome is unknown, so read back first.
    Sending,
    /// The outcome is unknown; read back before anything else.
    Unsettled,
    /// A person must do something first; looked at again at `next_try_at`.
    WaitingForOperator,
    /// Permanently refused.
    Rejected,
}

/// One thing to be told to the cloud, and how far that has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxEntry {
    /// What was queued first has the lower one.
    pub id: OutboxId,
    /// The node it is about.
    pub node_id: NodeId,
    /// What to do.
    pub task: OutboxTask,
    /// Where it stands.
    pub state: OutboxState,
    /// How often the cloud was asked to do it.
    pub tries: u32,
    /// Tries in the state that the schedule counts now (reset when the class of answer changes).
    pub tries_in_class: u32,
    /// Body code of the last answer.
    pub last_code: Option<i64>,
    /// Message of the last answer, or why there was none.
    pub last_message: String,
    /// Not before this time; `None` only for rejected rows.
    pub next_try_at: Option<Timestamp>,
    /// When the row was written.
    pub created_at: Timestamp,
    /// When it was first sent; the bind window of 5460 counts from here.
    pub first_sent_at: Option<Timestamp>,
    /// What a person can do about it.
    pub hint: String,
}

/// The durable side of the queue.
pub trait OutboxStore: Send + Sync + 'static {
    /// Changes whenever a row was added, made due or finished. Subscribe before reading the queue: then none is missed.
    fn changes(&self) -> watch::Receiver<u64>;
    /// Rows that are due at `now`: for each device only the oldest unfinished row, `limit` at most, none in `busy`.
    fn due(
        &self,
        now: Timestamp,
        busy: &[CloudDevice],
        limit: usize,
    ) -> impl Future<Output = Result<Vec<OutboxEntry>, StoreError>> + Send;
    /// When the next row that may be worked on will be due, if any waits; rows of devices in `busy` do not count.
    fn next_due_at(&self, busy: &[CloudDevice]) -> impl Future<Output = Result<Option<Timestamp>, StoreError>> + Send;
    /// Writes a row's new standing, before or after a call. `Sending` is written before the request leaves. A row that was
    /// dropped meanwhile is [`StoreError::Missing`] and stays dropped.
    fn update(&self, entry: &OutboxEntry) -> impl Future<Output = Result<(), StoreError>> + Send;
    /// The row is done: deletes it and writes the node's bind status and, for a bind, what the cloud gave, in one
    /// transaction.
    fn settle(
        &self,
        entry: &OutboxEntry,
        status: Option<BindStatus>,
        receipt: Option<&BindReceipt>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
    /// Writes the node's bind status without finishing the row (for `pending` with its reason).
    fn note_bind_status(
        &self,
        node_id: NodeId,
        status: BindStatus,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// Fresh binding codes, read from the device again where its profile says how (5213, 5461, 5462).
pub trait BindingCodeSource: Send + Sync + 'static {
    /// A fresh code for `node`, or `None` where there is no way to get one.
    fn fresh_code(&self, node: NodeId, matter_info: &MatterInfo) -> impl Future<Output = Option<BindingCode>> + Send;
}
