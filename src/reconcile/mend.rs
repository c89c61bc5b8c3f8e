//! What policy says about the differences of one node. Pure; an empty answer means: report.
//!
//! Not here: doing it (`driver`).

use super::compare::CloudView;
use super::compare::{BasicField, Comparison, DeviceView, Difference, Views};
use crate::bind::BindState;
use crate::config::{OnAccessDrift, OnCloudMissing};
use crate::fabric::CatGrant;
use crate::node::{NodeId, NodeRecord};
use crate::standing::OffFabric;

/// `cloud.on_cloud_missing` and `cloud.on_access_drift`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Policy {
    /// The cloud has lost a binding.
    pub on_cloud_missing: OnCloudMissing,
    /// A device's access control list is not as recorded.
    pub on_access_drift: OnAccessDrift,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Write the configured access control list and read it back.
    RestoreAccess,
    /// Take over what the device says of itself.
    Record(Change),
    /// Queue a bind.
    Rebind,
    /// Queue an unbind and a bind with the record's Matter identity (cloud-contract 4).
    UpdateMatterInfo,
    /// Queue an unbind: the device is not ours any more.
    Unbind,
    /// Begin the removal of the node.
    Decommission,
}

impl Action {
    /// The word in the admin log.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::RestoreAccess => "restore-access",
            Self::Record(_) => "record",
            Self::Rebind => "rebind",
            Self::UpdateMatterInfo => "update-matter-info",
            Self::Unbind => "unbind",
            Self::Decommission => "decommission",
        }
    }
}

/// What is taken over from a device; `None` stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// The device's index for our fabric.
    pub fabric_index: Option<u8>,
    /// After an update of its firmware.
    pub matter_version: Option<String>,
    /// See `matter_version`.
    pub vendor_name: Option<String>,
    /// See `matter_version`.
    pub product_name: Option<String>,
    /// What its access control list grants.
    pub cats: Option<Vec<CatGrant>>,
}

impl Change {
    /// Whether there is nothing to take over.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the cloud was told a value that changes.
    pub fn concerns_cloud(&self) -> bool {
        self.matter_version.is_some() || self.cats.is_some()
    }

    /// Writes it into a record.
    pub fn apply(self, record: &mut NodeRecord) {
        let Self { fabric_index, matter_version, vendor_name, product_name, cats } = self;
        record.fabric_index = fabric_index.unwrap_or(record.fabric_index);
        let texts = [
            (matter_version, &mut record.matter_version),
            (vendor_name, &mut record.vendor_name),
            (product_name, &mut record.product_name),
        ];
        for (new, place) in texts {
            if let Some(new) = new {
                *place = new;
            }
        }
        if let Some(cats) = cats {
            record.cats = cats;
        }
    }
}

/// What to do about a comparison of `views`, in this order.
///
/// Nothing is done for a node that a newer one replaced, for a device that may be another one than recorded, or in the
/// cloud while the outbox is at work there or the device does not answer: its binding code may have to come from it.
pub fn mend(policy: Policy, views: Views<'_>, comparison: &Comparison) -> Vec<Action> {
    let facts = match views.device {
        _ if views.superseded_by.is_some() => return Vec::new(),
        DeviceView::Silent { .. } => return Vec::new(),
        DeviceView::OffFabric(proof) => return lost(views, proof),
        DeviceView::Seen(facts) => facts,
    };
    let differences = &comparison.differences;
    if differences.iter().any(is_other_device) {
        return Vec::new();
    }
    let mut actions = Vec::new();
    let mut change = Change::default();
    for difference in differences {
        match difference {
            Difference::FabricIndex { device, .. } => change.fabric_index = Some(*device),
            Difference::Basic { field: BasicField::MatterVersion, .. } => {
                change.matter_version = Some(facts.basic.matter_version());
            }
            Difference::Basic { field: BasicField::VendorName, .. } => {
                change.vendor_name = Some(facts.basic.vendor_name.clone());
            }
            Difference::Basic { field: BasicField::ProductName, .. } => {
                change.product_name = Some(facts.basic.product_name.clone());
            }
            Difference::Access { device, .. } if policy.on_access_drift == OnAccessDrift::Record => {
                change.cats = Some(device.clone());
            }
            Difference::Access { .. } | Difference::ForeignAccess(_)
                if policy.on_access_drift == OnAccessDrift::Restore && actions.is_empty() =>
            {
                actions.push(Action::RestoreAccess);
            }
            _ => {}
        }
    }
    let told = change.concerns_cloud();
    if !change.is_empty() {
        actions.push(Action::Record(change));
    }
    actions.extend(in_cloud(policy, views, differences, told));
    actions
}

/// The cloud's part, for a device that answers and is the one recorded.
fn in_cloud(policy: Policy, views: Views<'_>, differences: &[Difference], told: bool) -> Option<Action> {
    if views.queued {
        return None;
    }
    let missing = |difference: &Difference| {
        matches!(difference, Difference::Bind { local: BindState::Bound | BindState::Pending, held: false, .. })
    };
    if differences.iter().any(missing) {
        return match policy.on_cloud_missing {
            OnCloudMissing::Rebind => Some(Action::Rebind),
            OnCloudMissing::Decommission => Some(Action::Decommission),
            OnCloudMissing::Report => None,
        };
    }
    // What is only shared with us cannot be bound anew. One that is pending without a row was left so by an earlier version, which
    // forgot to say that an update was dropped.
    let ours = matches!(views.local.bind.state, BindState::Bound | BindState::Pending);
    if differences.contains(&Difference::NotOurs) || !ours {
        return None;
    }
    let differs = differences.iter().any(|difference| matches!(difference, Difference::MatterInfo(_)));
    (differs || told).then_some(Action::UpdateMatterInfo)
}

/// The device is not on our fabric any more. Our binding is taken back where the cloud surely holds this very node; one
/// that can be commissioned again keeps it, for its owner is about to do that.
fn lost(views: Views<'_>, proof: &OffFabric) -> Vec<Action> {
    let held = match views.cloud {
        CloudView::Held(Some(record)) => record.matter_info.as_ref().and_then(|info| info.node_id).map(NodeId),
        CloudView::Held(None) | CloudView::NotAsked | CloudView::Unknown { .. } => None,
    };
    let ours = held == Some(views.local.node_id) && proof.node() == views.local.node_id;
    if ours && !views.queued && views.commissionable_again.is_none() { vec![Action::Unbind] } else { Vec::new() }
}

fn is_other_device(difference: &Difference) -> bool {
    match difference {
        Difference::FabricTable { .. } => true,
        Difference::Basic { field, .. } => field.is_identity(),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
