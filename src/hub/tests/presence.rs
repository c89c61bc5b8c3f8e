//! What the LAN shows.

use super::Rig;
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
