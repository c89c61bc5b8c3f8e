//! Taking devices away.

use super::Rig;
use crate::commissioning::tests::home::{Command, Fault};
use crate::hub::doors::RemovalDoor;
use crate::node::NodeState;

#[tokio::test]
async fn device_cloud_and_record_forget_each_other() {
    let rig = Rig::start(|_| {}).await;
    let (device, node) = rig.with_device().await;
    // One of them is woken by the cloud's answer and ends the removal, too.
    rig.spawn_followers();
    let removed = rig.hub.remove(node.node_id, false, "somebody".to_owned()).await.unwrap();
    assert_eq!((removed.device_removed, removed.cloud.as_str(), removed.record_deleted), (true, "removed", true));
    assert_eq!((device.node(), rig.account.holds().len()), (None, 0));
    assert_eq!(rig.record(node.node_id).await, None);
    let told = rig.logged().await.into_iter().filter(|kind| kind == "node-removed").count();
    assert_eq!(told, 1);
}

#[tokio::test]
async fn a_device_that_is_away_is_told_when_it_is_back() {
    let rig = Rig::start(|_| {}).await;
    let (device, node) = rig.with_device().await;
    rig.spawn_followers();
    rig.home.unplug(&device);
    let refused = rig.hub.remove(node.node_id, false, "somebody".to_owned()).await.unwrap_err();
    assert_eq!(refused.code, "device-unreachable");
    // Nothing is destroyed before the device has said so.
    assert_eq!(rig.record(node.node_id).await.unwrap().state, NodeState::Removing);
    assert_eq!(rig.account.holds().len(), 1);
    rig.home.plug_in_again(&device);
    rig.until("the removal", async || rig.record(node.node_id).await.is_none()).await;
    assert_eq!((device.node(), rig.account.holds().len()), (None, 0));
}

#[tokio::test]
async fn by_force_the_record_goes_first_and_the_device_later() {
    let rig = Rig::start(|_| {}).await;
    let (device, node) = rig.with_device().await;
    rig.spawn_followers();
    rig.home.unplug(&device);
    let removed = rig.hub.remove(node.node_id, true, "somebody".to_owned()).await.unwrap();
    assert_eq!((removed.device_removed, removed.record_deleted), (false, true));
    assert_eq!((rig.record(node.node_id).await, rig.account.holds().len()), (None, 0));
    assert_eq!(device.node(), Some(node.node_id));
    rig.home.plug_in_again(&device);
    rig.until("the leftover's end", async || device.node().is_none()).await;
}

#[tokio::test]
async fn a_removal_is_taken_back_until_the_device_is_told() {
    let rig = Rig::start(|_| {}).await;
    let (device, node) = rig.with_device().await;
    rig.home.unplug(&device);
    rig.hub.remove(node.node_id, false, "somebody".to_owned()).await.unwrap_err();
    let kept = rig.hub.keep(node.node_id, "somebody".to_owned()).await.unwrap();
    assert_ne!(kept.state, NodeState::Removing);
    rig.home.plug_in_again(&device);
    let again = rig.hub.keep(node.node_id, "somebody".to_owned()).await.unwrap_err();
    assert_eq!((again.code.as_ref(), device.node()), ("not-being-removed", Some(node.node_id)));
}

#[tokio::test]
async fn a_device_that_refuses_keeps_everything() {
    let rig = Rig::start(|_| {}).await;
    let (device, node) = rig.with_device().await;
    device.fail(Command::RemoveFabric, Fault::Refused);
    let refused = rig.hub.remove(node.node_id, false, "somebody".to_owned()).await.unwrap_err();
    assert_eq!(refused.code, "device-error");
    assert_eq!((device.node(), rig.account.holds().len()), (Some(node.node_id), 1));
    assert!(rig.record(node.node_id).await.is_some());
}
