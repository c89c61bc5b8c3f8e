//! Who may do what.

use super::Rig;
use crate::commissioning::tests::home::{Command, Fault};
use crate::fabric::{Cat, CatGrant, Privilege, granted_cats};
use crate::hub::doors::AccessDoor;

fn view() -> Vec<CatGrant> {
    vec![CatGrant { cat: Cat::new(0x0003_0001).unwrap(), privilege: Privilege::View }]
}

#[tokio::test]
async fn a_grant_is_on_the_device_in_the_record_and_in_the_cloud() {
    let rig = Rig::start(|_| {}).await;
    let (device, node) = rig.with_device().await;
    let report = rig.hub.set_access(None, Some(view())).await.unwrap();
    assert!(report.complete, "{report:?}");
    let held = granted_cats(&device.acl());
    assert!(held.contains(&view()[0]), "{held:?}");
    assert_eq!(rig.record(node.node_id).await.unwrap().cats, held);
    rig.until("the cloud's knowledge", async || {
        let held = rig.account.holds();
        held.iter().filter_map(|record| record.matter_info.as_ref()).any(|info| info.cats.len() == 2)
    })
    .await;
}

#[tokio::test]
async fn a_node_that_was_away_is_told_when_it_is_back() {
    let rig = Rig::start(|_| {}).await;
    let (device, node) = rig.with_device().await;
    rig.spawn_followers();
    rig.home.unplug(&device);
    let report = rig.hub.set_access(None, Some(view())).await.unwrap();
    assert_eq!((report.complete, report.nodes[0].outcome.as_str()), (false, "pending"));
    assert_eq!(rig.hub.access().await.unwrap().nodes[0].state, "pending");
    rig.home.plug_in_again(&device);
    rig.until("the telling", async || rig.hub.access().await.unwrap().nodes[0].state == "as-wanted").await;
    assert_eq!(rig.record(node.node_id).await.unwrap().cats, granted_cats(&device.acl()));
}

#[tokio::test]
async fn a_list_that_is_read_back_otherwise_is_not_recorded() {
    let rig = Rig::start(|_| {}).await;
    let (device, node) = rig.with_device().await;
    device.fail(Command::WriteAcl, Fault::Wrong);
    let report = rig.hub.set_access(Some(node.node_id), Some(view())).await.unwrap();
    assert!(!report.complete, "{report:?}");
    assert_eq!(rig.record(node.node_id).await.unwrap().cats, node.cats);
}
