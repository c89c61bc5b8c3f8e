use super::*;
use crate::bind::MatterInfo;
use crate::commissioning::ports::NodeStore;
use crate::onboarding::Discriminator;
use crate::outbox::ports::OutboxStore;
use crate::reconcile::tests::record;
use crate::secret::BindingCode;
use rstest::rstest;
use uuid::Uuid;

const OLD: NodeId = NodeId(1000);
const NEW: NodeId = NodeId(1001);
const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// The same device as two nodes.
fn device_as(node: NodeId) -> NodeRecord {
    NodeRecord {
        serial_number: Some("S1".to_owned()),
        device_key: Some("S1KEY".to_owned()),
        name: NodeRecord::default_name("Light", node),
        ..record(node.0)
    }
}

fn bind(record: &NodeRecord) -> OutboxTask {
    OutboxTask::Bind(Box::new(BindRequest {
        device: CloudDevice::of(record).unwrap(),
        binding_code: BindingCode::new("0123456789ABCDEF"),
        device_name: Some(record.name.clone()),
        family_id: None,
        room_id: None,
        capabilities_bitmask: 10,
        options: crate::bind::BindOptions::default(),
        matter_info: MatterInfo::of(record),
    }))
}

async fn commission(store: &Store, record: &NodeRecord, task: Option<&OutboxTask>) {
    let attempt = Uuid::now_v7();
    store.begin_attempt(attempt, Discriminator::Long(3840), 7, NOW).await.unwrap();
    store.commit_commissioned(attempt, record, task, "{}").await.unwrap();
}

/// A store that holds the old node, bound.
async fn with_old(directory: &tempfile::TempDir, state: NodeState) -> Store {
    let store = Store::open(directory.path()).unwrap();
    let old = NodeRecord { state, name: "hall".to_owned(), room_id: Some("r1".to_owned()), ..device_as(OLD) };
    commission(&store, &old, None).await;
    store
}

async fn tasks(store: &Store) -> Vec<(NodeId, &'static str, String)> {
    let rows = store.outbox_entries().await.unwrap();
    rows.iter().map(|row| (row.node_id, row.task.kind(), row.task.device().device_key.clone())).collect()
}

#[rstest]
#[case::silent(NodeState::Unreachable)]
#[case::being_removed(NodeState::Removing)]
#[tokio::test]
async fn the_commit_of_the_new_node_ends_the_silent_old_one_and_its_binding_is_brought_over(#[case] state: NodeState) {
    let directory = tempfile::tempdir().unwrap();
    let store = with_old(&directory, state).await;
    let new = NodeRecord { replaces: Some(OLD), ..device_as(NEW) };
    commission(&store, &new, Some(&bind(&new))).await;
    assert_eq!(
        store.nodes().await.unwrap().iter().map(|r| (r.node_id, r.replaces)).collect::<Vec<_>>(),
        [(NEW, Some(OLD))]
    );
    assert_eq!(tasks(&store).await, [(NEW, "update-matter-info", "S1KEY".to_owned())]);
    assert!(store.removals().await.unwrap().is_empty());
    store.close().await;
}

#[tokio::test]
async fn a_node_that_answers_or_is_another_device_is_never_ended() {
    let directory = tempfile::tempdir().unwrap();
    let store = with_old(&directory, NodeState::Operational).await;
    let new = NodeRecord { replaces: Some(OLD), ..device_as(NEW) };
    commission(&store, &new, Some(&bind(&new))).await;
    assert_eq!(store.nodes().await.unwrap().iter().map(|r| r.replaces).collect::<Vec<_>>(), [None, None]);
    assert_eq!(tasks(&store).await, [(NEW, "bind", "S1KEY".to_owned())]);
    assert_eq!(store.succeed(NEW, OLD, NOW).await.unwrap(), None);

    store.touch_node(OLD, None, None, NodeState::Unreachable).await.unwrap();
    let stranger = NodeId(1002);
    commission(&store, &NodeRecord { replaces: Some(OLD), ..record(stranger.0) }, None).await;
    assert_eq!(store.nodes().await.unwrap().len(), 3);
    assert_eq!(store.node(stranger).await.unwrap().unwrap().replaces, None);
    store.close().await;
}

#[tokio::test]
async fn other_keys_are_bound_and_the_old_ones_unbound() {
    let directory = tempfile::tempdir().unwrap();
    let store = with_old(&directory, NodeState::Unreachable).await;
    let new = NodeRecord { replaces: Some(OLD), device_key: Some("OTHER".to_owned()), ..device_as(NEW) };
    commission(&store, &new, Some(&bind(&new))).await;
    let expected = [(OLD, "unbind", "S1KEY".to_owned()), (NEW, "bind", "OTHER".to_owned())];
    assert_eq!(tasks(&store).await, expected);
    store.close().await;
}

#[tokio::test]
async fn without_a_code_the_binding_stays_and_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let store = with_old(&directory, NodeState::Unreachable).await;
    commission(&store, &NodeRecord { replaces: Some(OLD), ..device_as(NEW) }, None).await;
    let new = store.node(NEW).await.unwrap().unwrap();
    assert_eq!(new.bind.state, BindState::Bound);
    assert!(new.bind.message.contains("node bind 1001"), "{}", new.bind.message);
    assert!(tasks(&store).await.is_empty());
    store.close().await;
}

#[tokio::test]
async fn two_records_of_one_device_become_one_with_the_name_and_place_of_the_old() {
    let directory = tempfile::tempdir().unwrap();
    let store = with_old(&directory, NodeState::Unreachable).await;
    let new = NodeRecord { room_id: None, ..device_as(NEW) };
    commission(&store, &new, Some(&bind(&new))).await;
    let merged = store.succeed(NEW, OLD, NOW).await.unwrap().unwrap();
    assert_eq!((merged.name.as_str(), merged.room_id.as_deref(), merged.replaces), ("hall", Some("r1"), Some(OLD)));
    assert_eq!(store.nodes().await.unwrap(), [merged]);
    let rows = store.outbox_entries().await.unwrap();
    let [row] = rows.as_slice() else { panic!("{rows:?}") };
    let OutboxTask::UpdateMatterInfo(request) = &row.task else { panic!("{row:?}") };
    assert_eq!((request.device_name.as_deref(), request.matter_info.node_id), (Some("hall"), NEW));
    store.close().await;
}

#[tokio::test]
async fn a_rebind_under_other_keys_unbinds_the_old_and_its_end_does_not_hide_the_new_bind() {
    let directory = tempfile::tempdir().unwrap();
    let store = with_old(&directory, NodeState::Operational).await;
    let device = CloudDevice { product_key: "p11abc".to_owned(), device_key: "OTHER".to_owned() };
    store.rebind(OLD, device.clone(), bind, NOW).await.unwrap();
    let expected = [(OLD, "unbind", "S1KEY".to_owned()), (OLD, "bind", "OTHER".to_owned())];
    assert_eq!(tasks(&store).await, expected);
    let unbind = store.outbox_entries().await.unwrap().remove(0);
    store.settle(&unbind, Some(BindStatus::default()), None).await.unwrap();
    assert_eq!(store.node(OLD).await.unwrap().unwrap().bind.state, BindState::Pending);
    // A removal takes the new binding back, whatever else waits.
    store.begin_removal(OLD, true, NOW).await.unwrap();
    store.advance_removal(OLD, false, NOW).await.unwrap();
    assert_eq!(tasks(&store).await, [(OLD, "unbind", "OTHER".to_owned())]);

    let directory = tempfile::tempdir().unwrap();
    let again = with_old(&directory, NodeState::Operational).await;
    let same = CloudDevice { device_key: "S1KEY".to_owned(), ..device };
    again.rebind(OLD, same, bind, NOW).await.unwrap();
    assert_eq!(tasks(&again).await, [(OLD, "update-matter-info", "S1KEY".to_owned())]);
    store.close().await;
    again.close().await;
}
