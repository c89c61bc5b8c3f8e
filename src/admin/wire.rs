//! Every document of the admin API and of the command line's `--json` (interface.md). The same types on both sides.
//!
//! What the hub answers is the hub's own (`hub`, in the room that makes it); here are the bodies that only HTTP has.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::fabric::CatGrant;
use crate::hub::sync::Intent;
use crate::node::{NodeId, NodeRecord};
use crate::secret::OperatorSecret;

pub(crate) use crate::commissioning::path::AcceptedTerms;
pub use crate::hub::access::{AccessOutcome, AccessReport, AccessView, NodeAccess};
pub use crate::hub::binding::{BindOrder, BindResult};
pub(crate) use crate::hub::commission::AttestationOverride;
pub use crate::hub::commission::{CommissionEvent, CommissionRequest, CommissionResult, Failure, Timings};
pub(crate) use crate::hub::controllers::RemoveOrder;
pub use crate::hub::controllers::{
    BundleNode, CertificateForms, ControllerBundle, ControllerName, ControllerOrder, ControllerRemoval, ControllerView,
    Controllers, EnrolRequest, Invitation, InviteOrder, InviteView, RenewOrder,
};
pub use crate::hub::discover::{DiscoverChange, DiscoverQuery, Discovered, DiscoveredNode};
pub use crate::hub::doctor::{Diagnosis, DoctorFinding, DoctorSeverity};
pub use crate::hub::inventory::{NodeCheck, NodeDetail, NodeRef, Nodes, NodesQuery};
pub use crate::hub::keys::FabricInfo;
pub use crate::hub::log::LogQuery;
pub use crate::hub::networks::{NetworkList, NetworkOrder, NetworkView};
pub use crate::hub::outbox::{Outbox, OutboxItem};
pub use crate::hub::refusal::Refusal;
pub use crate::hub::removal::RemoveResult;
pub use crate::hub::sharing::{CloseResult, ShareResult};
pub use crate::hub::status::{BluetoothStatus, CloudStatus, NodeCounts, OutboxCounts, Status};
pub(crate) use crate::hub::strangers::ForeignNode;
pub(crate) use crate::hub::sync::SyncStep;
pub use crate::hub::sync::{DifferingField, NodeComparison, NodeSync, SyncReport, Verdict};
pub(crate) use crate::outbox::ports::OutboxState;

/// `GET /v1/sessions`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct SessionList {
    /// Who is logged in on the page, the latest first.
    pub sessions: Vec<SessionView>,
}

/// Somebody who is logged in on the page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct SessionView {
    /// Names it; not what lets anybody in.
    pub id: String,
    /// The address that the log-in came from.
    pub from: String,
    /// What the browser says of itself.
    pub browser: String,
    /// When the person logged in.
    pub began_at: Timestamp,
    /// When it was last used.
    pub used_at: Timestamp,
    /// Whether it is the one that asks.
    pub current: bool,
}

/// `POST /v1/sync`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
pub struct SyncQuery {
    /// Answer line by line: how far it is, and last the report.
    pub progress: bool,
    /// Change nothing; the report says what mending would do.
    pub look_only: bool,
}

impl SyncQuery {
    /// What the comparison is for.
    pub fn intent(self) -> Intent {
        if self.look_only { Intent::Look } else { Intent::Mend }
    }
}

/// One line of the answer to `POST /v1/sync?progress=true`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum SyncLine {
    /// The last line: what was compared.
    Report(SyncReport),
    /// Every line before it: how far the comparison is.
    Step(SyncStep),
    /// The last line, where it failed.
    Refused(Refusal),
}

/// One line of the answer to `POST /v1/commission`: progress, and last the result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum CommissionLine {
    /// The last line: how the attempt ended.
    Result(CommissionResult),
    /// Every line before it: what happens.
    Event(CommissionEvent),
}

/// `POST /v1/nodes/{node}/action`. A variant without fields has braces: serde would let a unit have any.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "action", rename_all = "kebab-case", deny_unknown_fields)]
pub enum NodeAction {
    /// Talk to it now.
    Check {},
    /// Let it blink or beep.
    Identify {
        /// For how long, seconds.
        seconds: u16,
    },
    /// Give it another name, in the record and in the cloud.
    Rename {
        /// 1 to 64 characters.
        name: String,
    },
    /// Put it into another room, in the record and in the cloud.
    Move {
        /// The room's id in the cloud, 1 to 64 characters.
        room_id: String,
    },
    /// Open an enhanced commissioning window.
    Share {
        /// For how long, 180 to 900 seconds.
        seconds: u16,
    },
    /// Decommission, unbind, delete, in that order.
    Remove {
        /// Also where the device cannot be reached.
        force: bool,
    },
    /// Take a removal back whose device has not been told yet.
    Keep {},
    /// Close the commissioning window that is open.
    CloseWindow {},
    /// Bind it, or bind it anew under other keys.
    Bind(BindOrder),
    /// Take a node of our fabric into the record that has none.
    Adopt {},
}

/// What came of a [`NodeAction`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum NodeAnswer {
    /// To `check`.
    Checked(NodeCheck),
    /// To `identify`.
    Identifying {
        /// The node that identifies itself.
        node_id: NodeId,
        /// How long it identifies itself, seconds.
        seconds: u16,
    },
    /// To `rename`, `move`, `keep` and `adopt`: the record as it is now.
    Record(Box<NodeRecord>),
    /// To `bind`.
    Bound(BindResult),
    /// To `close-window`.
    Closed(CloseResult),
    /// To `share`.
    Shared(ShareResult),
    /// To `remove`.
    Removed(RemoveResult),
}

/// `POST /v1/access`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "action", rename_all = "kebab-case", deny_unknown_fields)]
pub enum AccessAction {
    /// Sets the grants of one node, or of all, and writes them.
    Set {
        /// Which node; left out: all.
        #[serde(default)]
        #[schema(value_type = Option<String>)]
        node: Option<NodeRef>,
        /// The grants; left out: back to those for all, or to the configuration's.
        #[serde(default)]
        grants: Option<Vec<CatGrant>>,
    },
    /// Writes what is in force to one node, or to all.
    Apply {
        /// Which node; left out: all.
        #[serde(default)]
        #[schema(value_type = Option<String>)]
        node: Option<NodeRef>,
    },
    /// Raises the version of a tag and writes it to every node.
    Rotate {
        /// The tag's identifier, its upper 16 bits.
        identifier: u16,
    },
}

/// To whom a file is encrypted: `POST /v1/fabric/backup` and `/v1/fabric/export-root`. A passphrase's key takes more memory
/// than the daemon has: the client derives it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Encryption {
    /// An age recipient, `age1…`.
    pub recipient: String,
}

/// `POST /v1/fabric/backup-kept`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BackupKept {
    /// SHA-256 of the file as the hub sent it, hex: shows that it arrived.
    pub sha256: String,
}

/// `POST /v1/fabric/remove-root`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveRoot {
    /// SHA-256 of the exported file, hex: shows that it arrived.
    pub sha256: String,
}

/// `POST /v1/fabric/import-root`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportRoot {
    /// What `export-root` answered, base64; encrypted to a recipient.
    pub file: String,
    /// The age identity behind that recipient; a secret.
    #[schema(value_type = String)]
    pub identity: OperatorSecret,
}
