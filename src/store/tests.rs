//! The store as a daemon meets it: first start, crash, damage, full disk, another version, another process.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::*;
use crate::bind::{BindReceipt, BindRequest, BindStatus, CloudDevice, MatterInfo};
use crate::commissioning::ports::{NodeStore, ProvisionalNode, Stage};
use crate::journal::{EventSink, Level};
use crate::node::sample::sample;
use crate::node::{FabricId, NodeId, NodeRecord};
use crate::onboarding::Discriminator;
use crate::outbox::ports::{OutboxId, OutboxStore, OutboxTask};
use crate::secret::{AuthKey, BindingCode};
use rstest::rstest;
use tempfile::TempDir;
use uuid::Uuid;

mod harm;
mod keep;
mod labels;
mod rest;

const NOW: Timestamp = Timestamp::constant(1_795_000_000, 0);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(NOW.as_second() + seconds).unwrap()
}

pub(super) fn record(node: u64) -> NodeRecord {
    NodeRecord {
        serial_number: Some("S1".to_owned()),
        product_key: Some("p1".to_owned()),
        commissioned_at: NOW,
        ..sample(node)
    }
}

fn device(node: u64) -> CloudDevice {
    CloudDevice { product_key: "p1".to_owned(), device_key: format!("device{node}") }
}

fn bind(node: u64) -> OutboxTask {
    let matter_info = MatterInfo {
        fabric_id: FabricId(77),
        node_id: NodeId(node),
        vendor_id: 0xFFF1,
        product_id: 0x8000,
        discriminator: Some(3840),
        matter_version: "1.4".to_owned(),
        cats: Vec::new(),
    };
    OutboxTask::Bind(Box::new(BindRequest {
        device: device(node),
        binding_code: BindingCode::new("0123456789ABCDEF"),
        device_name: Some("light".to_owned()),
        family_id: Some("f".to_owned()),
        room_id: None,
        capabilities_bitmask: 10,
        options: Default::default(),
        matter_info,
    }))
}

async fn with_fabric(dir: &TempDir, hub: u64) -> Store {
    let store = Store::open(dir.path()).unwrap();
    store
        .begin_fabric(NewFabric {
            fabric_id: FabricId(77),
            compressed_id: 0xFFFF_0000_0000_0001,
            root_fingerprint: "AA".to_owned(),
            label: "Home".to_owned(),
            hub_node_id: NodeId(hub),
            next_node_id: hub + 1,
        })
        .await
        .unwrap();
    store.finish_fabric("AA").await.unwrap();
    store
}

async fn commit(store: &Store, node: u64) -> OutboxId {
    let attempt = Uuid::now_v7();
    store.begin_attempt(attempt, Discriminator::Long(3840), 7, NOW).await.unwrap();
    store.commit_commissioned(attempt, &record(node), Some(&bind(node)), "{}").await.unwrap().unwrap()
}

/// What a crash leaves: the files as they are at this moment, without the lock being given back or the log being moved.
fn crash_image(dir: &TempDir) -> TempDir {
    let image = tempfile::tempdir().unwrap();
    // The log first: what moves from it into the main file meanwhile is then in both, and not in none.
    let names = fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().file_name());
    for name in names.collect::<std::collections::BTreeSet<_>>().into_iter().rev() {
        fs::copy(dir.path().join(&name), image.path().join(&name)).unwrap();
    }
    image
}

#[tokio::test]
async fn directory_and_files_are_private() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("state");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    let store = Store::open(&dir).unwrap();
    store.save_blob("a", b"b").await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    let files: Vec<_> = fs::read_dir(&dir).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(files.len() >= 3, "{files:?}");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

#[tokio::test]
async fn node_ids_ascend_are_never_given_twice_and_run_out() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_fabric(&dir, 1000).await;
    assert_eq!(store.allocate_node_id().await.unwrap(), NodeId(1001));
    assert_eq!(store.allocate_node_id().await.unwrap(), NodeId(1002));
    // Killed right after the answer.
    let image = crash_image(&dir);
    let after_crash = Store::open(image.path()).unwrap();
    assert_eq!(after_crash.allocate_node_id().await.unwrap(), NodeId(1003));
    assert_eq!(after_crash.fabric_state().await.unwrap().unwrap().compressed_id, 0xFFFF_0000_0000_0001);

    let last = tempfile::tempdir().unwrap();
    let store = with_fabric(&last, crate::node::OWN_ID_MAX - 1).await;
    assert_eq!(store.allocate_node_id().await.unwrap(), NodeId(crate::node::OWN_ID_MAX));
    assert!(matches!(store.allocate_node_id().await, Err(StoreError::Failed(text)) if text.contains("node id")));
}

#[tokio::test]
async fn an_unfinished_fabric_gives_no_ids_and_a_finished_one_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert!(matches!(store.allocate_node_id().await, Err(StoreError::Missing(_))));
    let finished = tempfile::tempdir().unwrap();
    let store = with_fabric(&finished, 5).await;
    let again = NewFabric {
        fabric_id: FabricId(78),
        compressed_id: 2,
        root_fingerprint: "BB".to_owned(),
        label: String::new(),
        hub_node_id: NodeId(1),
        next_node_id: 2,
    };
    assert!(store.begin_fabric(again).await.is_err());
    assert_eq!(store.fabric_state().await.unwrap().unwrap().fabric_id, FabricId(77));
}

#[tokio::test]
async fn a_crash_after_the_answer_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_fabric(&dir, 1000).await;
    let row = commit(&store, 1001).await;
    let running = Uuid::now_v7();
    store.begin_attempt(running, Discriminator::Short(3), 8, NOW).await.unwrap();
    let provisional = ProvisionalNode {
        attempt_id: running,
        record: record(1002),
        task: Some(bind(1002)),
        evidence: "{\"dac\":1}".to_owned(),
        stage: Stage::Ready,
    };
    store.save_provisional(&provisional).await.unwrap();

    let image = crash_image(&dir);
    let store = Store::open(image.path()).unwrap();
    assert_eq!(store.nodes().await.unwrap(), vec![record(1001)]);
    assert_eq!(store.outbox_entry(row).await.unwrap().unwrap().task, bind(1001));
    assert_eq!(store.provisional_nodes().await.unwrap(), vec![provisional.clone()]);
    let attempts = store.attempts(10).await.unwrap();
    let interrupted = attempts.iter().find(|attempt| attempt.attempt_id == running).unwrap();
    assert_eq!((interrupted.state, interrupted.node_id), (AttemptState::Interrupted, Some(NodeId(1002))));

    // The probe found the device on our fabric: promote.
    store.commit_commissioned(running, &provisional.record, provisional.task.as_ref(), "{}").await.unwrap();
    assert!(store.provisional_nodes().await.unwrap().is_empty());
    assert_eq!(store.counts().await.unwrap().nodes[&NodeState::Operational], 2);
    assert_eq!(store.counts().await.unwrap().outbox_depth(), 2);
}

#[tokio::test]
async fn a_second_process_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert!(matches!(Store::open(dir.path()), Err(OpenError::Locked { .. })));
    store.close().await;
    assert!(matches!(store.nodes().await, Err(StoreError::Closed)));
    Store::open(dir.path()).unwrap();
}

/// Each way in which an earlier state can be unreadable; none of them starts from nothing.
#[rstest]
#[case::removed("removed")]
#[case::emptied("emptied")]
#[case::not_a_database("text")]
#[case::torn("torn")]
#[case::scribbled("scribbled")]
#[tokio::test]
async fn a_lost_or_damaged_database_is_refused(#[case] harm: &str) {
    let dir = tempfile::tempdir().unwrap();
    let store = with_fabric(&dir, 1000).await;
    for node in 1001..1040 {
        commit(&store, node).await;
    }
    store.close().await;
    let file = dir.path().join(DATABASE_FILE);
    let bytes = fs::read(&file).unwrap();
    match harm {
        "removed" => fs::remove_file(&file).unwrap(),
        "emptied" => fs::write(&file, b"").unwrap(),
        "text" => fs::write(&file, b"this is a text file, and long enough to have a header").unwrap(),
        "torn" => fs::write(&file, &bytes[..bytes.len() / 2]).unwrap(),
        _ => {
            let mut bytes = bytes;
            bytes[4096..].iter_mut().for_each(|byte| *byte ^= 0x5A);
            fs::write(&file, bytes).unwrap();
        }
    }
    let error = Store::open(dir.path()).err().unwrap();
    match harm {
        "removed" => assert!(matches!(error, OpenError::Missing { .. }), "{error}"),
        _ => assert!(matches!(error, OpenError::Damaged { .. }), "{error}"),
    }
    assert!(error.to_string().contains("backup"), "{error}");
    // Nothing was made in its place.
    assert_eq!(file.exists(), harm != "removed");
}

#[tokio::test]
async fn keys_without_a_database_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("fabric.keys"), b"x").unwrap();
    assert!(matches!(Store::open(dir.path()), Err(OpenError::Missing { .. })));
}

/// A transaction whose frames were only partly written was never answered, so it may go; all before it must stay.
#[tokio::test]
async fn a_torn_log_loses_only_what_was_not_answered() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_fabric(&dir, 1000).await;
    store.call(|connection| open::checkpoint(connection).map_err(store_error)).await.unwrap();
    commit(&store, 1001).await;
    let answered = fs::metadata(dir.path().join("matterbind.db-wal")).unwrap().len();
    commit(&store, 1002).await;
    let image = crash_image(&dir);
    let log = image.path().join("matterbind.db-wal");
    let bytes = fs::read(&log).unwrap();
    assert!(bytes.len() as u64 > answered + 100);
    fs::write(&log, &bytes[..answered as usize + 100]).unwrap();

    let store = Store::open(image.path()).unwrap();
    assert_eq!(store.nodes().await.unwrap(), vec![record(1001)]);
    assert_eq!(store.fabric_state().await.unwrap().unwrap().state, FabricState::Ready);
}

#[tokio::test]
async fn a_lost_log_does_not_look_like_a_first_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_fabric(&dir, 1000).await;
    commit(&store, 1001).await;
    let image = crash_image(&dir);
    fs::remove_file(image.path().join("matterbind.db-wal")).unwrap();
    let store = Store::open(image.path()).unwrap();
    assert_eq!(store.fabric_state().await.unwrap().unwrap().state, FabricState::Ready);
}

#[tokio::test]
async fn a_newer_version_is_refused_with_the_name_of_its_binary() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store
        .call(|connection| {
            connection.pragma_update(None, "user_version", SCHEMA_VERSION + 1).map_err(store_error)?;
            connection.execute("UPDATE meta SET value = 'matterbind 9.1.0'", []).map_err(store_error)?;
            Ok(())
        })
        .await
        .unwrap();
    store.close().await;
    let error = Store::open(dir.path()).err().unwrap();
    assert!(matches!(&error, OpenError::NewerVersion { found, .. } if *found == SCHEMA_VERSION + 1), "{error}");
    assert!(error.to_string().contains("start matterbind 9.1.0"), "{error}");
}

#[tokio::test]
async fn a_full_disk_is_said_and_leaves_nothing_half_written() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_fabric(&dir, 1000).await;
    commit(&store, 1001).await;
    store
        .call(|connection| {
            let pages: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0)).map_err(store_error)?;
            connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(())).map_err(store_error)
        })
        .await
        .unwrap();
    let big = "x".repeat(1 << 20);
    let attempt = Uuid::now_v7();
    let result = store.commit_commissioned(attempt, &record(1002), Some(&bind(1002)), &big).await;
    assert!(matches!(result, Err(StoreError::DiskFull)), "{result:?}");
    assert_eq!(store.nodes().await.unwrap().len(), 1);
    assert_eq!(store.outbox_entries().await.unwrap().len(), 1);
    // With room again all goes on.
    store
        .call(|connection| connection.query_row("PRAGMA max_page_count = 1000000", [], |_| Ok(())).map_err(store_error))
        .await
        .unwrap();
    store.commit_commissioned(attempt, &record(1002), Some(&bind(1002)), &big).await.unwrap();
}

#[tokio::test]
async fn only_the_oldest_row_of_a_device_is_due() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_fabric(&dir, 1000).await;
    let changes = store.outbox_changes();
    let first = commit(&store, 1001).await;
    assert!(changes.has_changed().unwrap());
    let second = store.rename_node(NodeId(1001), "lamp", at(1)).await.unwrap().unwrap();
    let other = commit(&store, 1002).await;
    let ids = |entries: Vec<crate::outbox::ports::OutboxEntry>| entries.iter().map(|e| e.id).collect::<Vec<_>>();
    assert_eq!(ids(store.due(at(2), &[], 16).await.unwrap()), vec![first, other]);
    assert_eq!(ids(store.due(at(2), &[device(1001)], 16).await.unwrap()), vec![other]);
    assert_eq!(store.next_due_at(&[device(1001), device(1002)]).await.unwrap(), None);

    let mut entry = store.outbox_entry(first).await.unwrap().unwrap();
    entry.next_try_at = Some(at(100));
    store.update(&entry).await.unwrap();
    assert_eq!(ids(store.due(at(2), &[], 16).await.unwrap()), vec![other]);
    assert_eq!(store.next_due_at(&[device(1002)]).await.unwrap(), Some(at(100)));
    // A row in flight when the daemon ended is due whatever its time.
    entry.state = OutboxState::Sending;
    store.update(&entry).await.unwrap();
    assert_eq!(ids(store.due(at(2), &[device(1002)], 16).await.unwrap()), vec![first]);
    // A refused row holds nothing up.
    (entry.state, entry.next_try_at) = (OutboxState::Rejected, None);
    store.update(&entry).await.unwrap();
    assert_eq!(ids(store.due(at(2), &[device(1002)], 16).await.unwrap()), vec![second]);

    let status = BindStatus { state: BindState::Bound, code: Some(200), ..BindStatus::default() };
    let receipt = BindReceipt { auth_key: Some(AuthKey::new("secret")), binding_mode: Some(2), product_name: None };
    let entry = store.outbox_entry(other).await.unwrap().unwrap();
    store.settle(&entry, Some(status.clone()), Some(&receipt)).await.unwrap();
    assert_eq!(store.node(NodeId(1002)).await.unwrap().unwrap().bind, status);
    assert!(matches!(store.update(&entry).await, Err(StoreError::Missing(_))));
    assert_eq!(store.nodes_by_name("lamp").await.unwrap()[0].node_id, NodeId(1001));
}

#[tokio::test]
async fn a_move_is_told_to_the_cloud_within_a_family_only() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_fabric(&dir, 1000).await;
    commit(&store, 1001).await;
    let node = NodeId(1001);
    store.modify_node(node, |record| (record.family_id, record.room_id) = (None, None)).await.unwrap();
    assert_eq!(store.move_node(node, "7", at(1)).await.unwrap(), None);
    store.modify_node(node, |record| record.family_id = Some("1".to_owned())).await.unwrap();
    let row = store.move_node(node, "8", at(2)).await.unwrap().unwrap();
    let [family_id, old_room_id, new_room_id] = ["1", "7", "8"].map(str::to_owned);
    let old_room_id = Some(old_room_id);
    let expected = OutboxTask::MoveRoom { device: device(1001), family_id, old_room_id, new_room_id };
    assert_eq!(store.outbox_entry(row).await.unwrap().unwrap().task, expected);
    assert_eq!(store.move_node(node, "8", at(3)).await.unwrap(), None, "it is there");
}

#[tokio::test]
async fn a_removal_is_resumed_and_remembers_what_it_left() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_fabric(&dir, 1000).await;
    commit(&store, 1001).await;
    let begun = store.begin_removal(NodeId(1001), false, NOW).await.unwrap();
    assert_eq!((begun.stage, begun.forced), (RemovalStage::Device, false));
    assert!(store.finish_removal(NodeId(1001)).await.is_err(), "not before the device stage is over");
    // Told again, now by force; and after a crash it is still there.
    assert!(store.begin_removal(NodeId(1001), true, at(9)).await.unwrap().forced);
    let unbind = store.advance_removal(NodeId(1001), true, at(10)).await.unwrap().unwrap();
    assert_eq!(store.advance_removal(NodeId(1001), true, at(11)).await.unwrap(), Some(unbind));
    let image = crash_image(&dir);
    let store = Store::open(image.path()).unwrap();
    assert_eq!(store.removals().await.unwrap()[0].stage, RemovalStage::Cloud);
    let kinds: Vec<_> = store.outbox_entries().await.unwrap().iter().map(|entry| entry.task.kind()).collect();
    assert_eq!(kinds, vec!["unbind"]);

    assert!(store.finish_removal(NodeId(1001)).await.unwrap());
    assert!(!store.finish_removal(NodeId(1001)).await.unwrap(), "who comes second has nothing to tell");
    assert!(store.nodes().await.unwrap().is_empty());
    assert_eq!(store.outbox_entries().await.unwrap().len(), 1, "the unbind goes on");
    let left = store.removals().await.unwrap();
    assert_eq!((left[0].stage, left[0].record.serial_number.as_deref()), (RemovalStage::Leftover, Some("S1")));
    store.forget_leftover(NodeId(1001)).await.unwrap();
    assert!(store.removals().await.unwrap().is_empty());
}

/// The cloud knows a device by its keys only, which a second commissioning does not change.
#[tokio::test]
async fn the_removal_of_an_old_record_leaves_the_newer_binding_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_fabric(&dir, 1000).await;
    commit(&store, 1001).await;
    let again = NodeRecord { device_key: record(1001).device_key, ..record(1002) };
    store.commit_commissioned(Uuid::now_v7(), &again, None, "{}").await.unwrap();
    store.begin_removal(NodeId(1001), true, NOW).await.unwrap();
    assert_eq!(store.advance_removal(NodeId(1001), false, at(1)).await.unwrap(), None);
    store.finish_removal(NodeId(1001)).await.unwrap();
    assert!(store.outbox_entries().await.unwrap().is_empty());
    assert_eq!(store.nodes().await.unwrap(), vec![again]);
    // Alone, it is unbound.
    store.begin_removal(NodeId(1002), false, at(2)).await.unwrap();
    store.advance_removal(NodeId(1002), false, at(3)).await.unwrap();
    assert_eq!(store.outbox_entries().await.unwrap().len(), usize::from(record(1002).bind.state == BindState::Bound));
}

#[tokio::test]
async fn the_journal_is_queried_streamed_and_kept_within_its_limits() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let journal = store.journal(JournalLimits { max_age: Duration::MAX, max_bytes: 20_000 }).await;
    let mut live = journal.subscribe();
    let attempt = Uuid::now_v7();
    journal.record(Event::new(at(0), Level::Info, "attempt-began", "an attempt began").with_attempt(attempt));
    journal
        .record(Event::new(at(1), Level::Warn, "node-lost", "a node is lost").with_node(NodeId(7)).with("for_ms", 5));
    let all = journal.query(JournalFilter::default()).await.unwrap();
    assert_eq!(all.iter().map(|event| event.kind.as_str()).collect::<Vec<_>>(), ["attempt-began", "node-lost"]);
    assert_eq!((live.recv().await.unwrap(), live.recv().await.unwrap()), (all[0].clone(), all[1].clone()));
    let by = |filter: JournalFilter| {
        let journal = journal.clone();
        async move { journal.query(filter).await.unwrap().iter().map(|event| event.id).collect::<Vec<_>>() }
    };
    assert_eq!(by(JournalFilter { node: Some(NodeId(7)), ..Default::default() }).await, [all[1].id]);
    assert_eq!(by(JournalFilter { attempt: Some(attempt), ..Default::default() }).await, [all[0].id]);
    assert_eq!(by(JournalFilter { level: Some(Level::Warn), ..Default::default() }).await, [all[1].id]);
    assert_eq!(by(JournalFilter { since: Some(at(1)), ..Default::default() }).await, [all[1].id]);
    assert_eq!(by(JournalFilter { after_id: Some(all[0].id), ..Default::default() }).await, [all[1].id]);
    assert_eq!(by(JournalFilter { limit: Some(1), ..Default::default() }).await, [all[1].id]);

    for index in 0..500 {
        journal.record(Event::new(at(2), Level::Debug, "noise", format!("noise {index}")));
    }
    let kept = journal.query(JournalFilter::default()).await.unwrap();
    assert!(kept.len() < 250 && kept.len() > 100, "{}", kept.len());
    assert_eq!(kept.last().unwrap().message, "noise 499");

    let journal = store.journal(JournalLimits { max_age: Duration::from_secs(1), max_bytes: 1 << 20 }).await;
    // Whatever the events' own times say: a clock that jumped ahead wrote some of them.
    let ahead = Timestamp::now() + Duration::from_secs(10 * 365 * 86_400);
    journal.record(Event::new(ahead, Level::Info, "ahead", "ten years on"));
    let before = journal.query(JournalFilter::default()).await.unwrap().len();
    assert_eq!(before, kept.len() + 1, "nothing is too old before it is known what time it is");
    journal.passed(at(2));
    assert_eq!(journal.query(JournalFilter::default()).await.unwrap().len(), before, "nor by a time that is long ago");
    journal.passed(Timestamp::now());
    let left = journal.query(JournalFilter::default()).await.unwrap();
    assert_eq!(
        left.iter().map(|event| event.kind.as_str()).collect::<Vec<_>>(),
        ["ahead"],
        "the rest is from long ago"
    );
}

#[tokio::test]
async fn blobs_are_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.load_blob("cloud").await.unwrap(), None);
    store.save_blob("cloud", b"one").await.unwrap();
    store.save_blob("cloud", b"two").await.unwrap();
    assert_eq!(store.load_blob("cloud").await.unwrap().as_deref(), Some(&b"two"[..]));
}
