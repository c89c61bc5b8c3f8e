//! A removal that is taken back.

use super::*;

#[tokio::test]
async fn a_removal_is_taken_back_until_the_device_may_have_been_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_fabric(&dir, 1000).await;
    commit(&store, 1001).await;
    assert_eq!(store.keep_node(NodeId(1001)).await.unwrap(), None);
    store.begin_removal(NodeId(1001), false, NOW).await.unwrap();
    assert!(store.keep_node(NodeId(1001)).await.unwrap().unwrap().can_be_taken_back());
    // Nothing of it is left, and nobody says that it answers.
    assert_eq!(store.removals().await.unwrap(), vec![]);
    assert_eq!(store.node(NodeId(1001)).await.unwrap().unwrap().state, NodeState::Unreachable);
    assert_eq!(store.outbox_entries().await.unwrap().len(), 1);

    store.begin_removal(NodeId(1001), false, NOW).await.unwrap();
    store.tell_removal(NodeId(1001)).await.unwrap();
    assert!(!store.keep_node(NodeId(1001)).await.unwrap().unwrap().can_be_taken_back());
    assert_eq!(store.removals().await.unwrap().len(), 1);
    assert_eq!(store.node(NodeId(1001)).await.unwrap().unwrap().state, NodeState::Removing);
}
