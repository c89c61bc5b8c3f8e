use super::*;
use crate::bind::CloudDevice;
use crate::commissioning::ports::NodeStore;
use crate::onboarding::Discriminator;
use crate::reconcile::tests::record;
use uuid::Uuid;

const NODE: NodeId = NodeId(1000);

async fn store_with_node(directory: &tempfile::TempDir) -> Store {
    let store = Store::open(directory.path()).unwrap();
    let attempt = Uuid::now_v7();
    store.begin_attempt(attempt, Discriminator::Long(3840), 7, Timestamp::UNIX_EPOCH).await.unwrap();
    store.commit_commissioned(attempt, &record(NODE.0), None, "{}").await.unwrap();
    store
}

fn unbind() -> OutboxTask {
    OutboxTask::Unbind(CloudDevice { product_key: "p11abc".to_owned(), device_key: "SN1000".to_owned() })
}

#[tokio::test]
async fn record_and_row_are_written_together_and_nothing_is_queued_twice() {
    let directory = tempfile::tempdir().unwrap();
    let store = store_with_node(&directory).await;
    let change = Change { matter_version: Some("1.5".to_owned()), ..Change::default() };
    let row = store.mend(NODE, change, Some(unbind()), Timestamp::UNIX_EPOCH).await.unwrap();
    assert!(row.is_some());
    assert_eq!(store.node(NODE).await.unwrap().unwrap().matter_version, "1.5");
    assert_eq!(store.queued().await.unwrap(), BTreeSet::from([NODE]));
    let again = store.mend(NODE, Change::default(), Some(unbind()), Timestamp::UNIX_EPOCH).await.unwrap();
    assert_eq!((again, store.outbox_entries().await.unwrap().len()), (None, 1));
    store.close().await;
}

#[tokio::test]
async fn a_node_that_is_being_removed_gets_no_work() {
    let directory = tempfile::tempdir().unwrap();
    let store = store_with_node(&directory).await;
    store.begin_removal(NODE, false, Timestamp::UNIX_EPOCH).await.unwrap();
    assert_eq!(store.mend(NODE, Change::default(), Some(unbind()), Timestamp::UNIX_EPOCH).await.unwrap(), None);
    let gone = store.mend(NodeId(1), Change::default(), None, Timestamp::UNIX_EPOCH).await;
    assert!(matches!(gone, Err(StoreError::Missing(_))));
    store.close().await;
}
