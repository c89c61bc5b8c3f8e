//! What the LAN shows.

use std::sync::Arc;

use super::Rig;
use crate::commissioning::tests::home::{Command, Fault};
use crate::hub::inventory::InventoryDoor;
use crate::node::NodeState;

#[tokio::test]
async fn the_flag_comes_down_when_the_node_answers() {
    let rig = Rig::start(|_| {}).await;
    let (device, node) = rig.with_device().await;
    rig.home.unplug(&device);
    rig.hub.note_silence(node.node_id, "it does not answer").await;
    assert_eq!(rig.record(node.node_id).await.unwrap().state, NodeState::Unreachable);
    rig.spawn_followers();
    rig.until("listening", async || rig.home.has_listener()).await;
    rig.home.plug_in_again(&device);
    let well = async || rig.record(node.node_id).await.unwrap().state == NodeState::Operational;
    rig.until("the node's return", well).await;
}

#[tokio::test]
async fn where_a_node_is_now_is_noted() {
    let rig = Rig::start(|_| {}).await;
    let (device, node) = rig.with_device().await;
    assert_eq!(node.addresses, ["192.0.2.7"]);
    rig.spawn_followers();
    rig.until("listening", async || rig.home.has_listener()).await;
    rig.home.move_to(&device, 9);
    let moved =
        async || rig.record(node.node_id).await.unwrap().addresses.first().map(String::as_str) == Some("192.0.2.9");
    rig.until("the new address", moved).await;
}

#[tokio::test]
async fn a_node_that_comes_back_elsewhere_while_it_is_asked_is_met_there() {
    let rig = Rig::start(|_| {}).await;
    let (device, node) = rig.with_device().await;
    device.fail(Command::Case, Fault::Silent);
    let heard = device.asked().len();
    let hub = Arc::clone(&rig.hub);
    let check = tokio::spawn(async move { hub.check(node.node_id).await });
    rig.until("a handshake", async || device.asked().len() > heard).await;
    device.heal();
    rig.home.move_to(&device, 9);
    let check = check.await.unwrap().unwrap();
    assert_eq!((check.reachable, check.address.as_deref()), (true, Some("192.0.2.9")), "{}", check.message);
}
