//! Versions only rise, nodes that are away are remembered, and entries of others survive.

use super::*;

fn cat(value: u32) -> Cat {
    Cat::new(value).unwrap()
}

fn grant(value: u32, privilege: Privilege) -> CatGrant {
    CatGrant { cat: cat(value), privilege }
}

const ADMIN: u32 = 0x0001_0001;

fn wanted() -> Wanted {
    Wanted { admin: cat(ADMIN), grants: vec![grant(0x0002_0001, Privilege::Operate)], shut_out: Vec::new() }
}

fn case(privilege: u8, subjects: &[u64]) -> AclEntry {
    AclEntry { privilege, auth_mode: AUTH_MODE_CASE, subjects: subjects.to_vec(), has_targets: false }
}

#[test]
fn a_rotation_survives_and_never_goes_back() {
    let grants = [grant(0x0002_0001, Privilege::Operate)];
    let base = Base { admin: cat(ADMIN), grants: &grants };
    let mut overlay = AccessOverlay::default();
    assert_eq!(overlay.rotate(base, 2), Ok(cat(0x0002_0002)));
    assert_eq!(overlay.rotate(base, 1), Ok(cat(0x0001_0002)));
    assert_eq!(overlay.rotate(base, 9), Err(PolicyError::UnknownTag(9)));
    overlay.add_pending([NodeId(7), NodeId(8)]);
    let overlay = AccessOverlay::from_bytes(Some(&overlay.to_bytes())).unwrap();
    let now = overlay.wanted(base, None);
    assert_eq!((now.admin, now.grants[0].cat), (cat(0x0001_0002), cat(0x0002_0002)));
    assert_eq!(overlay.pending(), vec![NodeId(7), NodeId(8)]);
    // A later version in the configuration counts as well, an earlier one does not.
    assert_eq!(overlay.current(cat(0x0002_0005)), cat(0x0002_0005));
    assert_eq!(overlay.current(cat(0x0002_0001)), cat(0x0002_0002));
    let last = Base { admin: cat(0x0001_FFFF), grants: &[] };
    assert_eq!(AccessOverlay::default().rotate(last, 1), Err(PolicyError::LastVersion(cat(0x0001_FFFF))));
}

#[test]
fn grants_of_one_node_stand_before_those_for_all() {
    let grants = [grant(0x0002_0001, Privilege::Operate)];
    let base = Base { admin: cat(ADMIN), grants: &grants };
    let mut overlay = AccessOverlay::default();
    let view = vec![grant(0x0003_0001, Privilege::View)];
    overlay.set_grants(base, Some(NodeId(7)), Some(view.clone())).unwrap();
    overlay.set_grants(base, None, Some(Vec::new())).unwrap();
    assert_eq!(overlay.wanted(base, Some(NodeId(7))).grants, view);
    assert!(overlay.wanted(base, Some(NodeId(8))).grants.is_empty());
    overlay.set_grants(base, None, None).unwrap();
    assert_eq!(overlay.wanted(base, Some(NodeId(8))).grants, grants);
    assert_eq!(overlay.rotate(base, 3), Ok(cat(0x0003_0002)), "a tag that only one node knows");
    let before = overlay.clone();
    let admin_again = Some(vec![grant(0x0001_0004, Privilege::View)]);
    assert_eq!(overlay.set_grants(base, None, admin_again), Err(PolicyError::Twice(1)));
    assert_eq!(overlay, before);
}

#[test]
fn a_restore_raises_the_hubs_tags_past_what_may_have_been() {
    let base = Base { admin: cat(ADMIN), grants: &[] };
    let mut later = AccessOverlay::default();
    for _ in 0..3 {
        later.rotate(base, 1).unwrap();
    }
    let restored = AccessOverlay::default().after_restore(&[cat(ADMIN)], None);
    assert_eq!(restored.current(cat(ADMIN)), cat(0x0001_0041));
    let restored = AccessOverlay::default().after_restore(&[cat(ADMIN)], Some(&later));
    assert_eq!(restored.current(cat(ADMIN)), cat(0x0001_0044));
}

#[test]
fn the_hub_keeps_what_lets_it_in() {
    assert_eq!(hub_cats(&[cat(ADMIN)], cat(ADMIN)), None);
    assert_eq!(hub_cats(&[cat(0x0001_0005)], cat(ADMIN)), None, "a later version does as well");
    assert_eq!(hub_cats(&[cat(ADMIN)], cat(0x0001_0002)), Some(vec![cat(0x0001_0002)]));
    assert_eq!(hub_cats(&[cat(ADMIN)], cat(0x0009_0001)), Some(vec![cat(ADMIN), cat(0x0009_0001)]));
    let full = [cat(0x0001_0001), cat(0x0002_0001), cat(0x0003_0001)];
    let next = hub_cats(&full, cat(0x0004_0001)).unwrap();
    assert_eq!(next, [cat(0x0002_0001), cat(0x0003_0001), cat(0x0004_0001)]);
}

#[test]
fn what_stands_as_wanted_is_not_written_again() {
    let first = plan(&wanted(), AclLimits::default(), &[]).unwrap();
    assert!(first.differs);
    let mut held = first.entries;
    held.reverse();
    assert!(!plan(&wanted(), AclLimits::default(), &held).unwrap().differs);
    assert_eq!(crate::fabric::granted_cats(&held), expected_cats(&wanted()));
}

#[test]
fn an_old_version_is_replaced_and_a_later_one_is_not_lowered() {
    let held = [case(5, &[cat(ADMIN).subject()]), case(3, &[cat(0x0002_0001).subject()])];
    let rotated = Wanted { grants: vec![grant(0x0002_0002, Privilege::Operate)], ..wanted() };
    let plan_now = plan(&rotated, AclLimits::default(), &held).unwrap();
    assert_eq!(plan_now.entries[1], case(3, &[cat(0x0002_0002).subject()]));
    // After a restore the hub may know less than the device.
    let behind = plan(&wanted(), AclLimits::default(), &plan_now.entries).unwrap();
    assert!(!behind.differs, "{behind:?}");
}

#[test]
fn a_grant_that_is_gone_is_taken_away() {
    let held = plan(&wanted(), AclLimits::default(), &[]).unwrap().entries;
    let none = Wanted { grants: Vec::new(), ..wanted() };
    let now = plan(&none, AclLimits::default(), &held).unwrap();
    assert_eq!((now.entries.len(), now.differs), (1, true));
}

#[test]
fn what_somebody_else_granted_on_our_fabric_is_kept_or_the_list_is_left_alone() {
    let mut held = plan(&wanted(), AclLimits::default(), &[]).unwrap().entries;
    held.push(case(4, &[0x77, cat(0x0005_0001).subject()]));
    let now = plan(&wanted(), AclLimits::default(), &held).unwrap();
    assert_eq!(now.entries.last().unwrap(), &case(4, &[0x77]), "the node id stays, the unknown tag goes");
    held.push(AclEntry { has_targets: true, ..case(3, &[0x78]) });
    assert_eq!(plan(&wanted(), AclLimits::default(), &held), Err(PlanError::ForeignEntry));
    let group = AclEntry { auth_mode: 3, ..case(3, &[1]) };
    assert_eq!(plan(&wanted(), AclLimits::default(), &[group]), Err(PlanError::ForeignEntry));
}

#[test]
fn kept_entries_count_against_the_devices_limit() {
    let held = [case(1, &[0x77]), case(3, &[0x78]), case(4, &[0x79])];
    let error = plan(&wanted(), AclLimits::default(), &held).unwrap_err();
    assert!(matches!(error, PlanError::DoesNotFit(AclDoesNotFit { needed: 5, available: 4, .. })), "{error:?}");
}

#[test]
fn certificates_are_issued_before_nodes_ask_for_them() {
    let grants = [grant(0x0002_0001, Privilege::Operate)];
    let base = Base { admin: cat(ADMIN), grants: &grants };
    let mut overlay = AccessOverlay::default();
    assert_eq!(overlay.issued(base, 2), Some(cat(0x0002_0001)));
    assert_eq!(overlay.issued(base, 9), None);
    overlay.issue_later_than(base, cat(0x0002_0001)).unwrap();
    overlay.issue_later_than(base, cat(0x0002_0001)).unwrap();
    let overlay = AccessOverlay::from_bytes(Some(&overlay.to_bytes())).unwrap();
    assert_eq!(overlay.issued(base, 2), Some(cat(0x0002_0002)), "once, however often it is begun");
    assert_eq!(overlay.wanted(base, None).grants, grants, "nodes ask for the old version as yet");
    let mut overlay = overlay;
    assert_eq!(overlay.ask_for_issued(base, cat(0x0002_0001)), cat(0x0002_0002));
    assert_eq!(overlay.ask_for_issued(base, cat(0x0002_0001)), cat(0x0002_0002));
    assert_eq!(overlay.wanted(base, None).grants[0].cat, cat(0x0002_0002));
    assert_eq!(overlay.rotate(base, 2), Ok(cat(0x0002_0003)));
    assert_eq!(overlay.issued(base, 2), Some(cat(0x0002_0003)));
    // A tag that is granted to nobody now: its holder stays out when it is granted again.
    overlay.issue_later_than(base, cat(0x0009_0004)).unwrap();
    assert_eq!(overlay.ask_for_issued(base, cat(0x0009_0004)), cat(0x0009_0005));
    assert_eq!(overlay.current(cat(0x0009_0001)), cat(0x0009_0005));
    assert_eq!(
        overlay.issue_later_than(base, cat(0x0009_FFFF)),
        Err(PolicyError::LastVersion(cat(0x0009_FFFF))),
        "there is no later version"
    );
}

#[test]
fn after_a_restore_new_certificates_are_ahead_of_what_nodes_may_ask_for() {
    let grants = [grant(0x0002_0001, Privilege::Operate)];
    let base = Base { admin: cat(ADMIN), grants: &grants };
    let mut later = AccessOverlay::default();
    later.rotate(base, 2).unwrap();
    later.shut_out(NodeId(5));
    let restored = AccessOverlay::default().after_restore(&[cat(ADMIN)], None);
    assert_eq!(restored.issued(base, 2), Some(cat(0x0002_0041)));
    assert_eq!(restored.current(cat(0x0002_0001)), cat(0x0002_0001), "those who were enrolled before are let in");
    assert_eq!(restored.issued(base, 1), Some(restored.current(cat(ADMIN))));
    let mut restored = restored;
    restored.issue_later_than(base, cat(0x0002_0001)).unwrap();
    assert_eq!(restored.ask_for_issued(base, cat(0x0002_0001)), cat(0x0002_0041));
    let again = restored.after_restore(&[cat(ADMIN)], Some(&later));
    assert_eq!(again.issued(base, 2), Some(cat(0x0002_0081)));
    assert_eq!(again.wanted(base, None).shut_out, [NodeId(5)]);
}

#[test]
fn a_removed_controller_leaves_no_entry_behind() {
    let standing = [case(5, &[cat(ADMIN).subject(), 77]), case(3, &[77]), case(1, &[78])];
    let limits = AclLimits { subjects_per_entry: 4, entries_per_fabric: 8 };
    let wanted = Wanted { shut_out: vec![NodeId(77)], ..wanted() };
    let plan = plan(&wanted, limits, &standing).unwrap();
    assert!(plan.differs);
    let held: Vec<u64> = plan.entries.iter().flat_map(|entry| entry.subjects.clone()).collect();
    assert!(!held.contains(&77) && held.contains(&78), "{held:?}");
    assert!(plan.entries.iter().all(|entry| !entry.subjects.is_empty()), "nothing is open to everybody");
}
