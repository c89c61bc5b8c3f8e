use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::bind::{BindStatus, CloudDevice, CloudMatterInfo};
use crate::reconcile::tests::{cloud_record, facts, grant, record};

fn views<'a>(local: &'a NodeRecord, device: &'a DeviceView, cloud: &'a CloudView) -> Views<'a> {
    Views { local, device, cloud, queued: false, superseded_by: None, commissionable_again: None }
}

fn seen(record: &NodeRecord) -> DeviceView {
    DeviceView::Seen(Box::new(facts(record)))
}

fn held(record: &NodeRecord) -> CloudView {
    CloudView::Held(Some(Box::new(cloud_record(record))))
}

fn bound_as(state: BindState) -> NodeRecord {
    NodeRecord { bind: BindStatus { state, ..BindStatus::default() }, ..record(1000) }
}

/// The fields that a comparison shows.
fn fields(comparison: &Comparison) -> Vec<String> {
    rows(&comparison.differences).into_iter().map(|row| row.field).collect()
}

#[rstest]
#[case::index(|facts: &mut DeviceFacts| facts.fabric_index = 2, "fabric_index")]
#[case::node_id(|facts: &mut DeviceFacts| facts.identity = Some((7, 9)), "node_id")]
#[case::fabric_id(|facts: &mut DeviceFacts| facts.identity = Some((8, 1000)), "fabric_id")]
#[case::vendor(|facts: &mut DeviceFacts| facts.basic.vendor_id = 1, "vendor_id")]
#[case::product(|facts: &mut DeviceFacts| facts.basic.product_id = 1, "product_id")]
#[case::serial(|facts: &mut DeviceFacts| facts.basic.serial_number = None, "serial_number")]
#[case::unique(|facts: &mut DeviceFacts| facts.basic.unique_id = Some("other".to_owned()), "unique_id")]
#[case::version(|facts: &mut DeviceFacts| facts.basic.specification_version = Some(0x0105_0000), "matter_version")]
#[case::vendor_name(|facts: &mut DeviceFacts| facts.basic.vendor_name = "other".to_owned(), "vendor_name")]
#[case::product_name(|facts: &mut DeviceFacts| facts.basic.product_name = "other".to_owned(), "product_name")]
#[case::tag_gone(|facts: &mut DeviceFacts| drop(facts.acl.pop()), "cats")]
#[case::wildcard(|facts: &mut DeviceFacts| facts.acl[0].subjects.clear(), "cats")]
#[case::node_subject(|facts: &mut DeviceFacts| facts.acl[0].subjects.push(112_233), "access_entries")]
#[case::group(|facts: &mut DeviceFacts| facts.acl.push(AclEntry { auth_mode: 3, ..facts.acl[0].clone() }), "access_entries")]
#[case::targets(|facts: &mut DeviceFacts| facts.acl.push(AclEntry { has_targets: true, ..facts.acl[0].clone() }), "access_entries")]
fn whatever_differs_on_the_device_is_drift(#[case] change: fn(&mut DeviceFacts), #[case] field: &str) {
    let local = record(1000);
    let mut facts = facts(&local);
    change(&mut facts);
    let comparison = compare(views(&local, &DeviceView::Seen(Box::new(facts)), &held(&local)));
    assert_eq!(comparison.verdict, Verdict::Drift);
    assert!(fields(&comparison).contains(&field.to_owned()), "{comparison:?}");
    assert!(!comparison.in_sync());
}

#[rstest]
#[case::fabric(|info: &mut CloudMatterInfo| info.fabric_id = None, "fabric_id")]
#[case::node(|info: &mut CloudMatterInfo| info.node_id = Some(1), "node_id")]
#[case::vendor(|info: &mut CloudMatterInfo| info.vendor_id = Some(1), "vendor_id")]
#[case::product(|info: &mut CloudMatterInfo| info.product_id = Some(1), "product_id")]
#[case::discriminator(|info: &mut CloudMatterInfo| info.discriminator = Some(1), "discriminator")]
#[case::version(|info: &mut CloudMatterInfo| info.matter_version = None, "matter_version")]
#[case::cats(|info: &mut CloudMatterInfo| info.cats.clear(), "cats")]
fn whatever_matter_id_differs_in_the_cloud_is_told(#[case] change: fn(&mut CloudMatterInfo), #[case] field: &str) {
    let local = record(1000);
    let mut shown = cloud_record(&local);
    change(shown.matter_info.as_mut().unwrap());
    let comparison = compare(views(&local, &seen(&local), &CloudView::Held(Some(Box::new(shown)))));
    assert_eq!((comparison.verdict, fields(&comparison)), (Verdict::CloudDiffers, vec![field.to_owned()]));
}

#[rstest]
#[case::bound(BindState::Bound, false, Verdict::CloudMissing)]
#[case::pending(BindState::Pending, false, Verdict::CloudMissing)]
#[case::rejected(BindState::Rejected, false, Verdict::CloudMissing)]
#[case::disabled(BindState::Disabled, false, Verdict::Match)]
#[case::not_eligible(BindState::NotEligible, false, Verdict::NotEligible)]
#[case::bound_there(BindState::Bound, true, Verdict::Match)]
#[case::pending_there(BindState::Pending, true, Verdict::Match)]
#[case::rejected_there(BindState::Rejected, true, Verdict::CloudDiffers)]
#[case::disabled_there(BindState::Disabled, true, Verdict::CloudDiffers)]
fn the_cloud_has_it_or_not(#[case] state: BindState, #[case] there: bool, #[case] verdict: Verdict) {
    let local = bound_as(state);
    let cloud = if there { held(&local) } else { CloudView::Held(None) };
    assert_eq!(compare(views(&local, &seen(&local), &cloud)).verdict, verdict);
}

#[test]
fn a_name_or_room_changed_elsewhere_and_a_binding_of_somebody_else_are_told() {
    let local = record(1000);
    let mut shown = cloud_record(&local);
    (shown.device_name, shown.room_id) = (Some("other".to_owned()), Some("other".to_owned()));
    let cloud = CloudView::Held(Some(Box::new(shown.clone())));
    let comparison = compare(views(&local, &seen(&local), &cloud));
    assert_eq!(
        (comparison.verdict, fields(&comparison)),
        (Verdict::CloudDiffers, vec!["name".into(), "room_id".into()])
    );
    for theirs in [
        CloudRecord { device_type: Some(2), ..cloud_record(&local) },
        CloudRecord { status: Some(2), ..cloud_record(&local) },
    ] {
        let comparison = compare(views(&local, &seen(&local), &CloudView::Held(Some(Box::new(theirs)))));
        assert_eq!(
            (comparison.verdict, &comparison.differences[..]),
            (Verdict::CloudDiffers, &[Difference::NotOurs][..])
        );
    }
}

#[test]
fn a_cloud_that_cannot_be_asked_is_no_agreement() {
    let unknown = CloudView::Unknown { reason: "no route".to_owned() };
    let local = record(1000);
    let comparison = compare(views(&local, &seen(&local), &unknown));
    assert_eq!((comparison.verdict, fields(&comparison)), (Verdict::CloudUnreachable, vec!["bind".into()]));
    let local = bound_as(BindState::Disabled);
    assert_eq!(compare(views(&local, &seen(&local), &unknown)).verdict, Verdict::Match);
}

#[test]
fn a_device_that_does_not_answer_is_unreachable_and_the_cloud_is_compared_all_the_same() {
    let local = record(1000);
    let device = DeviceView::Silent { reason: String::new() };
    let comparison = compare(views(&local, &device, &CloudView::Held(None)));
    assert_eq!((comparison.verdict, fields(&comparison)), (Verdict::DeviceUnreachable, vec!["bind".into()]));
}

#[test]
fn a_device_that_left_our_fabric_has_drifted_and_says_whether_it_can_be_commissioned_again() {
    let local = record(1000);
    let (device, cloud) = (DeviceView::OffFabric(OffFabric::removed_by_us(local.node_id)), held(&local));
    let all = Views { commissionable_again: Some("A1B2"), ..views(&local, &device, &cloud) };
    let comparison = compare(all);
    assert_eq!(comparison.verdict, Verdict::Drift);
    assert_eq!(fields(&comparison), ["fabric_index", "commissionable_instance"]);
    // A window that somebody opened on a device that answers is no reset.
    let device = seen(&local);
    assert_eq!(compare(Views { device: &device, ..all }).verdict, Verdict::Match);
}

#[test]
fn a_device_that_was_commissioned_again_is_recognised_by_its_serial_number() {
    let old = record(1000);
    let new = NodeRecord { commissioned_at: old.commissioned_at + jiff::SignedDuration::from_hours(1), ..record(1001) };
    let (old, new) = (
        NodeRecord { serial_number: Some("S1".into()), ..old },
        NodeRecord { serial_number: Some("S1".into()), ..new },
    );
    let other = NodeRecord { product_id: 1, ..new.clone() };
    for order in [[&old, &new, &other], [&new, &other, &old]] {
        assert_eq!(superseded(order), BTreeMap::from([(NodeId(1000), NodeId(1001))]));
    }
    let (device, cloud) = (DeviceView::Silent { reason: String::new() }, held(&new));
    let comparison = compare(Views { superseded_by: Some(NodeId(1001)), ..views(&old, &device, &cloud) });
    // What the cloud holds is the newer node's affair.
    assert_eq!((comparison.verdict, fields(&comparison)), (Verdict::Drift, vec!["superseded_by".into()]));
}

#[test]
fn one_field_is_one_row() {
    let local = record(1000);
    let mut facts = facts(&local);
    facts.acl.pop();
    let mut shown = cloud_record(&local);
    shown.matter_info.as_mut().unwrap().cats.clear();
    let device = DeviceView::Seen(Box::new(facts));
    let comparison = compare(views(&local, &device, &CloudView::Held(Some(Box::new(shown)))));
    let rows = rows(&comparison.differences);
    assert_eq!(rows.len(), 1);
    assert_eq!(
        json!(rows[0]),
        json!({
            "field": "cats",
            "device": [{ "cat": 65_537, "privilege": "Administer" }],
            "local": [{ "cat": 65_537, "privilege": "Administer" }, { "cat": 131_073, "privilege": "Operate" }],
            "cloud": [],
        })
    );
}

proptest! {
    /// compare(x, x, x)
    #[test]
    fn what_is_the_same_everywhere_matches(
        ids in (1u64..1 << 31, 1u64..1 << 31, 1u8..255),
        product in (any::<u16>(), any::<u16>(), 0u16..4096),
        specification in proptest::option::of(0x0100_0000u32..0x0200_0000),
        texts in (".*", ".{0,100}", proptest::option::of(".*"), proptest::option::of(".*")),
        cats in proptest::collection::vec((1u32.., 0usize..3), 0..6),
        keys in ("[a-z]{1,8}", "[0-9A-F]{4,32}"),
    ) {
        let basic = BasicInformation {
            vendor_id: product.0,
            product_id: product.1,
            vendor_name: texts.0.clone(),
            serial_number: texts.2.clone(),
            unique_id: texts.3.clone(),
            specification_version: specification,
            ..BasicInformation::default()
        };
        let privileges = [Privilege::View, Privilege::Operate, Privilege::Administer];
        let mut cats: Vec<CatGrant> =
            cats.into_iter().map(|(cat, at)| grant(cat | 1, privileges[at])).collect();
        cats.sort_unstable();
        cats.dedup();
        let local = NodeRecord {
            fabric_id: crate::node::FabricId(ids.0),
            node_id: NodeId(ids.1),
            fabric_index: ids.2,
            vendor_id: product.0,
            product_id: product.1,
            discriminator: Some(product.2),
            matter_version: basic.matter_version(),
            vendor_name: texts.0,
            product_name: String::new(),
            serial_number: texts.2,
            unique_id: texts.3,
            name: texts.1,
            cats,
            product_key: Some(keys.0),
            device_key: Some(keys.1),
            ..record(1000)
        };
        let device = DeviceView::Seen(Box::new(DeviceFacts { basic, ..facts(&local) }));
        let comparison = compare(views(&local, &device, &held(&local)));
        prop_assert_eq!(comparison, Comparison { verdict: Verdict::Match, differences: Vec::new() });
    }
}

#[test]
fn the_device_that_is_asked_for_is_the_one_compared() {
    // The fixtures agree with each other.
    let local = record(1000);
    assert_eq!(cloud_record(&local).device, CloudDevice { product_key: "p11abc".into(), device_key: "SN1000".into() });
}
