//! What a comparison answers, and how far it is. Not here: comparing (`sync`, `reconcile`).

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use utoipa::ToSchema;

use crate::fabric::granted_cats;
use crate::node::{NodeId, NodeRecord, NodeState};
use crate::reconcile::compare::{self, CloudView, DeviceView, DifferingField, Verdict};
use crate::reconcile::driver::NodeFinding;

/// Takes the progress of a comparison. Never blocks and never fails.
#[derive(Debug, Clone, Default)]
pub struct SyncProgress(Option<mpsc::UnboundedSender<SyncStep>>);

/// How far a comparison is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SyncStep {
    /// So many nodes were asked.
    pub compared: usize,
    /// How many nodes are compared in all.
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
    /// What was found of each node.
    pub nodes: Vec<NodeSync>,
}

/// One node of a [`SyncReport`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeSync {
    /// The node that was compared.
    pub node_id: NodeId,
    /// Its name; empty where there is no record.
    #[serde(default)]
    pub name: String,
    /// How the node stands, all differences considered.
    pub verdict: Verdict,
    /// Where the three disagree.
    pub differences: Vec<DifferingField>,
    /// What was done about it by policy; where somebody only looks, what would be: `restore-access`, `record`, `rebind`,
    /// `update-matter-info`, `unbind`, `decommission`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mending: Vec<String>,
    /// What all three agree on and is of no use as it is: a tag in a version that nobody holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl SyncReport {
    /// Takes over what was compared later.
    pub(super) fn update(&mut self, later: Self) {
        for row in later.nodes {
            match self.nodes.binary_search_by_key(&row.node_id, |known| known.node_id) {
                Ok(place) => self.nodes[place] = row,
                Err(place) => self.nodes.insert(place, row),
            }
        }
        self.judge();
    }

    /// The node has gone, and with it what was wrong with it.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.nodes.retain(|known| known.node_id != node);
        self.judge();
    }

    fn judge(&mut self) {
        self.in_sync = self.nodes.iter().all(|row| row.verdict.is_in_sync());
    }
}

/// `GET /v1/nodes/{node}/compare`: what the three hold of one node, by the names of the node record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeComparison {
    /// The node that was compared.
    pub node_id: NodeId,
    /// How the node stands, all differences considered.
    pub verdict: Verdict,
    /// Why the device or the cloud is not known; empty if both are.
    pub message: String,
    /// What the device says of itself; `null` if it did not answer.
    pub device: Value,
    /// What the hub's own record holds.
    pub local: Value,
    /// What the cloud shows; `null` if it has nothing, or was not asked.
    pub cloud: Value,
    /// Each field in which device, record and cloud disagree.
    pub differences: Vec<DifferingField>,
    /// What mending by policy would do.
    pub mending: Vec<String>,
}

/// A node that is being removed, and what the cloud still holds of it as far as is known.
pub(super) fn removing(record: &NodeRecord) -> NodeSync {
    let state = DifferingField {
        field: "state".to_owned(),
        device: Value::Null,
        local: json!(NodeState::Removing),
        cloud: json!(record.bind.state),
    };
    NodeSync {
        node_id: record.node_id,
        name: record.name.clone(),
        verdict: Verdict::Removing,
        differences: vec![state],
        mending: Vec::new(),
        notes: Vec::new(),
    }
}

/// A node of ours without a record: on the LAN, in the cloud, or both.
pub(super) fn unknown(node: NodeId, here: bool, in_cloud: bool) -> NodeSync {
    let shown = |there: bool| if there { json!(node) } else { Value::Null };
    let id =
        DifferingField { field: "node_id".to_owned(), device: shown(here), local: Value::Null, cloud: shown(in_cloud) };
    NodeSync {
        node_id: node,
        name: String::new(),
        verdict: Verdict::UnknownNode,
        differences: vec![id],
        mending: Vec::new(),
        notes: Vec::new(),
    }
}

pub(super) fn report(findings: &[NodeFinding]) -> SyncReport {
    let nodes = findings.iter().map(|finding| NodeSync {
        node_id: finding.node_id,
        name: String::new(),
        verdict: finding.comparison.verdict,
        differences: rows(finding),
        mending: mending(finding),
        notes: Vec::new(),
    });
    SyncReport { in_sync: findings.iter().all(|finding| finding.comparison.in_sync()), nodes: nodes.collect() }
}

fn rows(finding: &NodeFinding) -> Vec<DifferingField> {
    compare::rows(&finding.comparison.differences)
}

fn mending(finding: &NodeFinding) -> Vec<String> {
    finding.actions.iter().map(|action| action.as_str().to_owned()).collect()
}

/// What the three hold of a node; without a finding it was removed while it was asked, or is being removed.
pub(super) fn comparison(local: &NodeRecord, finding: Option<&NodeFinding>) -> NodeComparison {
    let local_view = json!(local);
    let Some(finding) = finding else {
        return NodeComparison {
            node_id: local.node_id,
            verdict: Verdict::Removing,
            message: "it is being removed".to_owned(),
            device: Value::Null,
            local: local_view,
            cloud: Value::Null,
            differences: Vec::new(),
            mending: Vec::new(),
        };
    };
    let (device, device_says) = device_view(&finding.device);
    let (cloud, cloud_says) = cloud_view(&finding.cloud);
    let says = [device_says, cloud_says].into_iter().filter(|text| !text.is_empty());
    NodeComparison {
        node_id: local.node_id,
        verdict: finding.comparison.verdict,
        message: says.collect::<Vec<_>>().join("; "),
        device,
        local: local_view,
        cloud,
        differences: rows(finding),
        mending: mending(finding),
    }
}

fn device_view(view: &DeviceView) -> (Value, String) {
    let facts = match view {
        DeviceView::Seen(facts) => facts,
        DeviceView::OffFabric(proof) => return (Value::Null, format!("the device is not on our fabric: {proof}")),
        DeviceView::Silent { reason } => return (Value::Null, format!("the device does not answer: {reason}")),
    };
    let basic = &facts.basic;
    let device = json!({
        "fabric_id": facts.identity.map(|(fabric, _)| fabric),
        "node_id": facts.identity.map(|(_, node)| node),
        "fabric_index": facts.fabric_index,
        "vendor_id": basic.vendor_id,
        "product_id": basic.product_id,
        "vendor_name": basic.vendor_name,
        "product_name": basic.product_name,
        "serial_number": basic.serial_number,
        "unique_id": basic.unique_id,
        "matter_version": basic.matter_version(),
        "cats": granted_cats(&facts.acl),
    });
    (device, String::new())
}

fn cloud_view(view: &CloudView) -> (Value, String) {
    let held = match view {
        CloudView::Held(Some(held)) => held,
        CloudView::Held(None) => return (Value::Null, "the cloud does not have it".to_owned()),
        CloudView::NotAsked => return (Value::Null, "the cloud has no part in it".to_owned()),
        CloudView::Unknown { reason } => return (Value::Null, format!("the cloud does not answer: {reason}")),
    };
    let info = held.matter_info.clone().unwrap_or_default();
    let cats: Vec<Value> =
        info.cats.iter().map(|(cat, privilege)| json!({ "cat": cat, "privilege": privilege })).collect();
    let cloud = json!({
        "product_key": held.device.product_key,
        "device_key": held.device.device_key,
        "name": held.device_name,
        "family_id": held.family_id,
        "room_id": held.room_id,
        "fabric_id": info.fabric_id,
        "node_id": info.node_id,
        "vendor_id": info.vendor_id,
        "product_id": info.product_id,
        "discriminator": info.discriminator,
        "matter_version": info.matter_version,
        "cats": cats,
    });
    (cloud, String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_kept_up_to_date_node_by_node() {
        let row = |id: u64, verdict| NodeSync {
            node_id: NodeId(id),
            name: String::new(),
            verdict,
            differences: Vec::new(),
            mending: Vec::new(),
            notes: Vec::new(),
        };
        let mut kept = SyncReport { in_sync: false, nodes: vec![row(1, Verdict::Match), row(3, Verdict::Drift)] };
        kept.update(SyncReport { in_sync: true, nodes: vec![row(2, Verdict::NotEligible), row(3, Verdict::Match)] });
        let ids: Vec<u64> = kept.nodes.iter().map(|row| row.node_id.0).collect();
        assert_eq!((kept.in_sync, ids), (true, vec![1, 2, 3]));
        kept.update(SyncReport { in_sync: false, nodes: vec![row(1, Verdict::CloudMissing)] });
        assert!(!kept.in_sync && kept.nodes.len() == 3);
        kept.forget(NodeId(1));
        assert!(kept.in_sync && kept.nodes.len() == 2, "what was wrong has gone with its node");
    }
}
