use rstest::rstest;

use super::*;
use crate::bind::BindStatus;
use crate::fabric::AclEntry;
use crate::reconcile::compare::{DeviceFacts, compare};
use crate::reconcile::tests::{cloud_record, facts, record};

/// A node that agrees everywhere, to be bent.
struct Case {
    local: NodeRecord,
    device: DeviceView,
    cloud: CloudView,
    queued: bool,
    again: Option<&'static str>,
    superseded_by: Option<NodeId>,
}

impl Case {
    fn new() -> Self {
        let local = record(1000);
        Self {
            device: DeviceView::Seen(Box::new(facts(&local))),
            cloud: CloudView::Held(Some(Box::new(cloud_record(&local)))),
            local,
            queued: false,
            again: None,
            superseded_by: None,
        }
    }

    fn facts(&mut self) -> &mut DeviceFacts {
        match &mut self.device {
            DeviceView::Seen(facts) => facts,
            _ => panic!("not seen"),
        }
    }

    fn bend_cloud(&mut self) {
        match &mut self.cloud {
            CloudView::Held(Some(record)) => record.matter_info.as_mut().unwrap().node_id = Some(1),
            _ => panic!("not held"),
        }
    }

    fn actions(&self, on_cloud_missing: OnCloudMissing, on_access_drift: OnAccessDrift) -> Vec<Action> {
        let views = Views {
            local: &self.local,
            device: &self.device,
            cloud: &self.cloud,
            queued: self.queued,
            superseded_by: self.superseded_by,
            commissionable_again: self.again,
        };
        mend(Policy { on_cloud_missing, on_access_drift }, views, &compare(views))
    }

    /// With the policies that do most.
    fn eagerly(&self) -> Vec<Action> {
        self.actions(OnCloudMissing::Decommission, OnAccessDrift::Restore)
    }
}

#[rstest]
#[case(OnCloudMissing::Report, vec![])]
#[case(OnCloudMissing::Rebind, vec![Action::Rebind])]
#[case(OnCloudMissing::Decommission, vec![Action::Decommission])]
fn the_cloud_has_lost_the_binding(#[case] policy: OnCloudMissing, #[case] expected: Vec<Action>) {
    let mut case = Case::new();
    case.cloud = CloudView::Held(None);
    assert_eq!(case.actions(policy, OnAccessDrift::Restore), expected);
    case.queued = true;
    assert_eq!(case.actions(policy, OnAccessDrift::Restore), [], "nothing is queued twice");
    case.queued = false;
    case.device = DeviceView::Silent { reason: String::new() };
    assert_eq!(case.actions(policy, OnAccessDrift::Restore), [], "the device may have to give a code, or to forget us");
}

#[rstest]
#[case(OnAccessDrift::Report)]
#[case(OnAccessDrift::Restore)]
#[case(OnAccessDrift::Record)]
fn the_access_list_was_changed(#[case] policy: OnAccessDrift) {
    let mut case = Case::new();
    case.facts().acl.pop();
    let taken = Change { cats: Some(vec![case.local.cats[0]]), ..Change::default() };
    let expected = match policy {
        OnAccessDrift::Report => vec![],
        OnAccessDrift::Restore => vec![Action::RestoreAccess],
        OnAccessDrift::Record => vec![Action::Record(taken.clone()), Action::UpdateMatterInfo],
    };
    assert_eq!(case.actions(OnCloudMissing::Report, policy), expected);
    // While the outbox is at work, the record is mended and the cloud is left alone.
    case.queued = true;
    let expected: Vec<Action> = expected.into_iter().filter(|action| *action != Action::UpdateMatterInfo).collect();
    assert_eq!(case.actions(OnCloudMissing::Report, policy), expected);
}

#[test]
fn an_entry_that_is_no_tag_cannot_be_recorded_and_is_restored_once() {
    let mut case = Case::new();
    let stranger = AclEntry { subjects: vec![112_233], ..case.facts().acl[0].clone() };
    case.facts().acl = vec![stranger];
    assert_eq!(case.actions(OnCloudMissing::Report, OnAccessDrift::Restore), [Action::RestoreAccess]);
    let stranger = AclEntry { subjects: vec![112_233], ..case.facts().acl[0].clone() };
    *case.facts() = facts(&case.local);
    case.facts().acl.push(stranger);
    assert_eq!(case.actions(OnCloudMissing::Report, OnAccessDrift::Record), []);
}

#[test]
fn ids_that_differ_in_the_cloud_are_bound_anew_whatever_the_policy() {
    let mut case = Case::new();
    case.bend_cloud();
    assert_eq!(case.actions(OnCloudMissing::Report, OnAccessDrift::Report), [Action::UpdateMatterInfo]);
    case.local.bind = BindStatus { state: BindState::Rejected, ..BindStatus::default() };
    assert_eq!(case.eagerly(), [], "an operator decides about what was rejected");
}

#[test]
fn what_is_only_shared_with_us_or_unknown_is_reported() {
    let mut case = Case::new();
    match &mut case.cloud {
        CloudView::Held(Some(record)) => record.device_type = Some(2),
        _ => panic!("not held"),
    }
    assert_eq!(case.eagerly(), []);
    case.cloud = CloudView::Unknown { reason: String::new() };
    assert_eq!(case.eagerly(), []);
}

#[test]
fn a_name_that_was_changed_in_the_cloud_is_left_to_people() {
    let mut case = Case::new();
    case.local.name = "other".to_owned();
    assert_eq!(case.eagerly(), []);
}

#[test]
fn an_updated_firmware_is_recorded_and_told() {
    let mut case = Case::new();
    case.facts().basic.specification_version = Some(0x0105_0000);
    case.facts().fabric_index = 2;
    let change = Change { matter_version: Some("1.5".to_owned()), fabric_index: Some(2), ..Change::default() };
    assert_eq!(case.eagerly(), [Action::Record(change.clone()), Action::UpdateMatterInfo]);
    let mut mended = case.local.clone();
    change.apply(&mut mended);
    assert_eq!((mended.matter_version.as_str(), mended.fabric_index), ("1.5", 2));
    assert_eq!(mended.cats, case.local.cats);
}

#[test]
fn a_name_alone_is_not_worth_a_new_binding() {
    let mut case = Case::new();
    case.facts().basic.product_name = "Lamp".to_owned();
    let change = Change { product_name: Some("Lamp".to_owned()), ..Change::default() };
    assert_eq!(case.eagerly(), [Action::Record(change)]);
}

#[rstest]
#[case::serial(|facts: &mut DeviceFacts| facts.basic.serial_number = Some("other".to_owned()))]
#[case::table(|facts: &mut DeviceFacts| facts.identity = Some((7, 8)))]
fn another_device_is_only_reported(#[case] change: fn(&mut DeviceFacts)) {
    let mut case = Case::new();
    change(case.facts());
    case.facts().acl.pop();
    case.cloud = CloudView::Held(None);
    assert_eq!(case.eagerly(), []);
}

#[test]
fn a_device_that_another_administrator_took_from_us_is_unbound() {
    let mut case = Case::new();
    case.device = DeviceView::OffFabric(OffFabric::removed_by_us(record(1000).node_id));
    assert_eq!(case.eagerly(), [Action::Unbind]);
    case.again = Some("A1B2");
    assert_eq!(case.eagerly(), [], "it was reset: its owner is about to commission it again");
    case.again = None;
    case.queued = true;
    assert_eq!(case.eagerly(), []);
    case.queued = false;
    case.bend_cloud();
    assert_eq!(case.eagerly(), [], "the cloud holds another node's binding");
    case.cloud = CloudView::Unknown { reason: String::new() };
    assert_eq!(case.eagerly(), []);
    case.cloud = CloudView::Held(None);
    assert_eq!(case.eagerly(), []);
}

#[test]
fn what_another_node_proved_or_nobody_said_costs_nothing() {
    let mut case = Case::new();
    case.device = DeviceView::OffFabric(OffFabric::removed_by_us(NodeId(7)));
    assert_eq!(case.eagerly(), []);
    case.device = DeviceView::Silent { reason: "what answers at its address is not on our fabric".to_owned() };
    assert_eq!(case.eagerly(), []);
}

#[test]
fn a_replaced_node_is_left_alone() {
    let mut case = Case::new();
    case.superseded_by = Some(NodeId(1001));
    case.device = DeviceView::OffFabric(OffFabric::removed_by_us(record(1000).node_id));
    assert_eq!(case.eagerly(), []);
}

#[test]
fn what_agrees_is_left_alone() {
    assert_eq!(Case::new().eagerly(), []);
}
