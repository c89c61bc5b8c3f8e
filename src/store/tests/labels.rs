//! Names and rooms that the cloud was not told, and updates that are given up.

use super::*;
use crate::outbox::ports::{OutboxEntry, OutboxState};

/// A node that is bound, and nothing in the outbox.
async fn bound(dir: &TempDir) -> Store {
    let store = with_fabric(dir, 1000).await;
    let row = commit(&store, 1001).await;
    let entry = store.outbox_entry(row).await.unwrap().unwrap();
    store.settle(&entry, Some(BindStatus { state: BindState::Bound, ..BindStatus::default() }), None).await.unwrap();
    store
}

async fn rest_as(store: &Store, row: OutboxId, state: OutboxState) {
    let next_try_at = (state != OutboxState::Rejected).then_some(NOW);
    let entry = OutboxEntry { state, next_try_at, ..store.outbox_entry(row).await.unwrap().unwrap() };
    store.update(&entry).await.unwrap();
}

async fn names(store: &Store) -> Vec<String> {
    let rows = store.outbox_entries().await.unwrap().into_iter();
    rows.map(|row| match row.task {
        OutboxTask::Rename { name, .. } => name,
        other => panic!("{other:?} is no rename"),
    })
    .collect()
}

#[rstest]
#[case::waits(OutboxState::Pending)]
#[case::for_a_person(OutboxState::WaitingForOperator)]
#[case::refused(OutboxState::Rejected)]
#[tokio::test]
async fn a_later_name_takes_the_place_of_one_that_was_not_told(#[case] state: OutboxState) {
    let dir = tempfile::tempdir().unwrap();
    let store = bound(&dir).await;
    let old = store.rename_node(NodeId(1001), "Old", NOW).await.unwrap().unwrap();
    rest_as(&store, old, state).await;
    store.rename_node(NodeId(1001), "New", NOW).await.unwrap().unwrap();
    assert_eq!(names(&store).await, ["New"]);
}

#[tokio::test]
async fn a_name_that_is_under_way_is_refused_and_forgotten_when_the_later_one_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = bound(&dir).await;
    let old = store.rename_node(NodeId(1001), "Old", NOW).await.unwrap().unwrap();
    rest_as(&store, old, OutboxState::Sending).await;
    let new = store.rename_node(NodeId(1001), "New", NOW).await.unwrap().unwrap();
    assert_eq!(names(&store).await, ["Old", "New"], "its sender writes the outcome");
    rest_as(&store, old, OutboxState::Rejected).await;
    let entry = store.outbox_entry(new).await.unwrap().unwrap();
    store.settle(&entry, None, None).await.unwrap();
    assert_eq!(names(&store).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_later_move_begins_where_the_cloud_has_the_device() {
    let dir = tempfile::tempdir().unwrap();
    let store = bound(&dir).await;
    store.modify_node(NodeId(1001), |record| record.family_id = Some("1".to_owned())).await.unwrap();
    let room = |entry: &OutboxEntry| match &entry.task {
        OutboxTask::MoveRoom { old_room_id, new_room_id, .. } => (old_room_id.clone(), new_room_id.clone()),
        other => panic!("{other:?} is no move"),
    };
    let before = store.node(NodeId(1001)).await.unwrap().unwrap().room_id;
    let first = store.move_node(NodeId(1001), "hall", NOW).await.unwrap().unwrap();
    rest_as(&store, first, OutboxState::Rejected).await;
    store.move_node(NodeId(1001), "attic", NOW).await.unwrap().unwrap();
    let rows = store.outbox_entries().await.unwrap();
    assert_eq!(rows.iter().map(room).collect::<Vec<_>>(), [(before, "attic".to_owned())]);
}

#[tokio::test]
async fn a_node_whose_update_was_dropped_is_still_bound() {
    let dir = tempfile::tempdir().unwrap();
    let store = bound(&dir).await;
    let OutboxTask::Bind(request) = bind(1001) else { panic!("it is a bind") };
    let row = store.enqueue(NodeId(1001), &OutboxTask::UpdateMatterInfo(request), NOW).await.unwrap();
    let pending = BindStatus { state: BindState::Pending, ..BindStatus::default() };
    store.note_bind_status(NodeId(1001), pending).await.unwrap();
    store.drop_outbox(row).await.unwrap();
    assert_eq!(store.node(NodeId(1001)).await.unwrap().unwrap().bind.state, BindState::Bound);
    // So it is told what comes later.
    assert!(store.rename_node(NodeId(1001), "New", NOW).await.unwrap().is_some());
}
