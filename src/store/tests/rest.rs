//! What somebody finds who gets hold of the files.

use std::time::Instant;

use super::*;
use crate::bind::CapabilityMask;
use crate::commissioning::identity::GivenIdentity;
use crate::commissioning::ports::{Particulars, Unfinished};
use crate::keystore::SealKey;

/// Which of the texts stand in the database, its log or any other file of the directory.
fn found(dir: &TempDir, texts: &[&'static str]) -> Vec<&'static str> {
    let files: Vec<Vec<u8>> =
        fs::read_dir(dir.path()).unwrap().map(|file| fs::read(file.unwrap().path()).unwrap()).collect();
    let holds = |text: &str| files.iter().any(|file| file.windows(text.len()).any(|window| window == text.as_bytes()));
    texts.iter().copied().filter(|text| holds(text)).collect()
}

/// Waits until none of the texts is found. The store is idle then, and open.
async fn until_gone(dir: &TempDir, texts: &[&'static str]) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !found(dir, texts).is_empty() {
        assert!(Instant::now() < deadline, "{:?} stays in the files", found(dir, texts));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

const CODE: &str = "0123456789ABCDEF";
const AUTH_KEY: &str = "bmVhci1maWVsZC1rZXk=";

/// The binding code of a bind that waits.
async fn code(store: &Store, row: OutboxId) -> String {
    match store.outbox_entry(row).await.unwrap().unwrap().task {
        OutboxTask::Bind(request) => request.binding_code.expose().to_owned(),
        other => panic!("{other:?} is no bind"),
    }
}

async fn bound(store: &Store, row: OutboxId) {
    let status = BindStatus { state: BindState::Bound, code: Some(200), ..BindStatus::default() };
    let receipt = BindReceipt { auth_key: Some(AuthKey::new(AUTH_KEY)), binding_mode: Some(2), product_name: None };
    let entry = store.outbox_entry(row).await.unwrap().unwrap();
    store.settle(&entry, Some(status), Some(&receipt)).await.unwrap();
}

#[tokio::test]
async fn a_used_binding_code_leaves_no_copy() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_fabric(&dir, 1000).await;
    let (used, dropped) = (commit(&store, 1001).await, commit(&store, 1002).await);
    // It is there while it is needed, in the main file as well as in what a running hub has not moved there yet.
    assert_eq!(found(&dir, &[CODE]), [CODE]);
    bound(&store, used).await;
    assert_eq!(found(&dir, &[CODE]), [CODE], "the other bind still needs it");
    store.drop_outbox(dropped).await.unwrap();
    until_gone(&dir, &[CODE]).await;
    // A removal takes its waiting bind along.
    commit(&store, 1003).await;
    assert_eq!(found(&dir, &[CODE]), [CODE]);
    store.begin_removal(NodeId(1003), true, NOW).await.unwrap();
    store.advance_removal(NodeId(1003), true, NOW).await.unwrap();
    until_gone(&dir, &[CODE]).await;
}

#[tokio::test]
async fn secrets_are_sealed_those_of_before_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_fabric(&dir, 1000).await;
    let (before, after) = (commit(&store, 1001).await, commit(&store, 1002).await);
    let waiting = commit(&store, 1003).await;
    store.save_secret(TOKENS, b"{an-early-token}").await.unwrap();
    bound(&store, before).await;
    assert_eq!(found(&dir, &["an-early-token", AUTH_KEY]), ["an-early-token", AUTH_KEY], "no seal yet");

    store.seal_with(SealKey::new(b"one")).await.unwrap();
    until_gone(&dir, &["an-early-token", AUTH_KEY, CODE]).await;
    assert_eq!(code(&store, waiting).await, CODE);
    assert_eq!(store.load_secret(TOKENS).await.unwrap().unwrap().as_slice(), b"{an-early-token}");
    store.save_secret(TOKENS, b"{a-later-token}").await.unwrap();
    bound(&store, after).await;
    let later = commit(&store, 1004).await;
    assert_eq!(code(&store, later).await, CODE);
    assert_eq!(found(&dir, &["an-early-token", "a-later-token", AUTH_KEY, CODE]), Vec::<&str>::new());
    assert_eq!(store.auth_key(1001).await.as_deref(), Some(AUTH_KEY));
    assert_eq!(store.auth_key(1002).await.as_deref(), Some(AUTH_KEY));
    store.close().await;

    // The same seal opens them after a restart, another costs one sign-in and is no error.
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.load_secret(TOKENS).await.unwrap(), None, "sealed, and no seal is given yet");
    store.seal_with(SealKey::new(b"one")).await.unwrap();
    assert_eq!(store.load_secret(TOKENS).await.unwrap().unwrap().as_slice(), b"{a-later-token}");
    assert_eq!((code(&store, waiting).await, code(&store, later).await), (CODE.to_owned(), CODE.to_owned()));
    store.close().await;
    let store = Store::open(dir.path()).unwrap();
    store.seal_with(SealKey::new(b"two")).await.unwrap();
    assert_eq!(store.load_secret(TOKENS).await.unwrap(), None);
    assert_eq!(code(&store, later).await, "", "the cloud refuses it, and the row says so");
}

/// What a device is to be bound with waits on disk until it can be: sealed as the waiting bind is.
#[tokio::test]
async fn the_code_of_a_device_that_is_not_finished_is_sealed() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_fabric(&dir, 1000).await;
    store.seal_with(SealKey::new(b"one")).await.unwrap();
    let attempt_id = Uuid::now_v7();
    store.begin_attempt(attempt_id, Discriminator::Long(3840), 7, NOW).await.unwrap();
    let identity = GivenIdentity { binding_code: Some(BindingCode::new(CODE)), ..GivenIdentity::default() };
    let unfinished = Unfinished {
        particulars: Particulars { identity, ..Particulars::default() },
        seen: CapabilityMask::ON_THE_LAN,
        fail_safe: Duration::from_secs(60),
    };
    let stage = Stage::OnFabric(Box::new(unfinished));
    let row = ProvisionalNode { attempt_id, record: record(0), task: None, evidence: "{}".to_owned(), stage };
    let node = store.begin_provisional(row.clone()).await.unwrap();
    assert_eq!(found(&dir, &[CODE]), Vec::<&str>::new());
    assert_eq!(store.provisional_nodes().await.unwrap(), [row.with_node_id(node)]);
}
