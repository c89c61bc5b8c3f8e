//! What a comparison answers, and how far it is. Not here: comparing (`sync`, `reconcile`).

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc;
use utoipa::ToSchema;

use crate::node::{NodeId, NodeRecord, NodeState};
use crate::reconcile::compare::{self, Row};
use crate::reconcile::driver::Finding;

/// Takes the progress of a comparison. Never blocks and never fails.
#[derive(Debug, Clone, Default)]
pub struct SyncProgress(Option<mpsc::UnboundedSender<SyncStep>>);

/// How far a comparison is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SyncStep {
    /// So many nodes were asked.
    pub compared: usize,
    /// Of so many.
    pub of: usize,
}

impl SyncProgress {
    /// A sender and what comes out of it: one step for each node.
    pub fn channel() -> (Self, mpsc::UnboundedReceiver<SyncStep>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(Some(sender)), receiver)
    }

    /// Passes a step on.
    pub fn report(&self, compared: usize, of: usize) {
        if let Some(sender) = &self.0 {
            // The client may have left.
            let _ = sender.send(SyncStep { compared, of });
        }
    }
}

/// `sync --json`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SyncReport {
    /// Whether device, record and cloud agree for every node.
    pub in_sync: bool,
    /// Node by node.
    pub nodes: Vec<NodeSync>,
}

/// One node of a [`SyncReport`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeSync {
    /// The node.
    pub node_id: NodeId,
    /// What came out.
    pub verdict: Verdict,
    /// Where the three disagree.
    pub differences: Vec<Difference>,
    /// What all three agree on and is of no use as it is: a tag in a version that nobody holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// The verdict on one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// All agree.
    Match,
    /// The device is not as recorded.
    Drift,
    /// The device does not answer.
    DeviceUnreachable,
    /// The cloud does not have it.
    CloudMissing,
    /// The cloud could not be asked.
    CloudUnreachable,
    /// The cloud shows something else.
    CloudDiffers,
    /// It has no identity in the cloud.
    NotEligible,
    /// It is being removed: device, cloud and record follow each other.
    Removing,
    /// It is on our fabric or in our account, and there is no record of it.
    UnknownNode,
}

impl Verdict {
    /// The word in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Match => "match",
            Self::Drift => "drift",
            Self::DeviceUnreachable => "device-unreachable",
            Self::CloudMissing => "cloud-missing",
            Self::CloudUnreachable => "cloud-unreachable",
            Self::CloudDiffers => "cloud-differs",
            Self::NotEligible => "not-eligible",
            Self::Removing => "removing",
            Self::UnknownNode => "unknown-node",
        }
    }
}

/// One field, as each of the three holds it; `null` where one does not know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Difference {
    /// The field's name in the node record.
    pub field: String,
    /// On the device.
    pub device: Value,
    /// In the record.
    pub local: Value,
    /// In the cloud.
    pub cloud: Value,
}

/// A node that is being removed, and what the cloud still holds of it as far as is known.
pub(super) fn removing(record: &NodeRecord) -> NodeSync {
    let state = Difference {
        field: "state".to_owned(),
        device: Value::Null,
        local: serde_json::json!(NodeState::Removing),
        cloud: serde_json::json!(record.bind.state),
    };
    NodeSync { node_id: record.node_id, verdict: Verdict::Removing, differences: vec![state], notes: Vec::new() }
}

/// A node of ours without a record: on the LAN, in the cloud, or both.
pub(super) fn unknown(node: NodeId, here: bool, in_cloud: bool) -> NodeSync {
    let shown = |there: bool| if there { serde_json::json!(node) } else { Value::Null };
    let id =
        Difference { field: "node_id".to_owned(), device: shown(here), local: Value::Null, cloud: shown(in_cloud) };
    NodeSync { node_id: node, verdict: Verdict::UnknownNode, differences: vec![id], notes: Vec::new() }
}

pub(super) fn report(findings: &[Finding]) -> SyncReport {
    let nodes = findings.iter().map(|finding| NodeSync {
        node_id: finding.node_id,
        verdict: verdict(finding.comparison.verdict),
        differences: compare::rows(&finding.comparison.differences).into_iter().map(difference).collect(),
        notes: Vec::new(),
    });
    SyncReport { in_sync: findings.iter().all(|finding| finding.comparison.in_sync()), nodes: nodes.collect() }
}

fn verdict(verdict: compare::Verdict) -> Verdict {
    match verdict {
        compare::Verdict::Match => Verdict::Match,
        compare::Verdict::Drift => Verdict::Drift,
        compare::Verdict::DeviceUnreachable => Verdict::DeviceUnreachable,
        compare::Verdict::CloudMissing => Verdict::CloudMissing,
        compare::Verdict::CloudUnreachable => Verdict::CloudUnreachable,
        compare::Verdict::CloudDiffers => Verdict::CloudDiffers,
        compare::Verdict::NotEligible => Verdict::NotEligible,
    }
}

fn difference(Row { field, device, local, cloud }: Row) -> Difference {
    Difference { field, device, local, cloud }
}
