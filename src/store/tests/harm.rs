//! Harm from outside: a write-ahead log that is torn or garbled, somebody else's lock, and every schema there ever was.

use rusqlite_migration::Migrations;

use super::*;
use crate::commissioning::ports::Unfinished;
use crate::node::IcdRegistration;

const LOG: &str = "matterbind.db-wal";

/// What a power cut or a bad disk does to the log.
#[rstest]
#[case::header(|log: &mut Vec<u8>| log[8] ^= 0xFF)]
#[case::first_frame(|log: &mut Vec<u8>| log[32 + 24 + 100] ^= 0x5A)]
#[case::middle(|log: &mut Vec<u8>| { let at = log.len() / 2; log[at..at + 512].fill(0) })]
#[case::last_byte(|log: &mut Vec<u8>| *log.last_mut().unwrap() ^= 1)]
#[case::in_the_header(|log: &mut Vec<u8>| log.truncate(17))]
#[case::within_a_frame(|log: &mut Vec<u8>| log.truncate(log.len() / 2 + 7))]
#[case::emptied(|log: &mut Vec<u8>| log.clear())]
#[case::rubbish(|log: &mut Vec<u8>| log.iter_mut().enumerate().for_each(|(index, byte)| *byte = index as u8))]
#[case::a_tail_of_rubbish(|log: &mut Vec<u8>| log.extend((0..10_000).map(|index| index as u8)))]
#[tokio::test]
async fn a_harmed_log_leaves_a_whole_state_from_before_the_harm(#[case] harm: fn(&mut Vec<u8>)) {
    let dir = tempfile::tempdir().unwrap();
    let store = with_fabric(&dir, 1000).await;
    store.call(|connection| open::checkpoint(connection).map_err(store_error)).await.unwrap();
    for node in 1001..1011 {
        commit(&store, node).await;
    }
    let image = crash_image(&dir);
    // What SQLite knows of the log in memory is gone with the power.
    fs::remove_file(image.path().join("matterbind.db-shm")).unwrap();
    let mut log = fs::read(image.path().join(LOG)).unwrap();
    harm(&mut log);
    fs::write(image.path().join(LOG), log).unwrap();

    let store = Store::open(image.path()).unwrap();
    assert_eq!(store.fabric_state().await.unwrap().unwrap().state, FabricState::Ready, "never from nothing");
    let nodes = store.nodes().await.unwrap();
    let expected: Vec<NodeRecord> = (1001..1011).map(record).take(nodes.len()).collect();
    assert_eq!(nodes, expected, "the first ones, without a gap");
    // Node and row were one transaction.
    let tasks: Vec<OutboxTask> = store.outbox_entries().await.unwrap().into_iter().map(|entry| entry.task).collect();
    assert_eq!(tasks, (1001..1011).map(bind).take(nodes.len()).collect::<Vec<_>>());
    commit(&store, 2000).await;
}

/// Somebody looks into the database by hand and forgets to end the transaction.
#[tokio::test]
async fn somebody_else_s_lock_is_said_and_passes() {
    let dir = tempfile::tempdir().unwrap();
    let store = with_fabric(&dir, 1000).await;
    let shell = Connection::open(dir.path().join(DATABASE_FILE)).unwrap();
    shell.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(matches!(store.allocate_node_id().await, Err(StoreError::Busy)));
    assert_eq!(store.nodes().await.unwrap(), vec![], "reading goes on");
    shell.execute_batch("ROLLBACK").unwrap();
    assert_eq!(store.allocate_node_id().await.unwrap(), NodeId(1001), "no id was lost by it");
    store.close().await;

    // At the start too, and nothing is done to the files.
    shell.execute_batch("BEGIN EXCLUSIVE; UPDATE meta SET value = 'somebody'").unwrap();
    let error = Store::open(dir.path()).err().unwrap();
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    assert!(error.to_string().contains("another process"), "{error}");
    shell.execute_batch("ROLLBACK").unwrap();
    drop(shell);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.allocate_node_id().await.unwrap(), NodeId(1002));
}

/// Built by the migrations up to each version, then brought forward in one start; what such a version leaves is in the frozen
/// fixtures.
#[tokio::test]
async fn every_version_that_the_migrations_make_is_brought_forward() {
    for version in 0..=open::MIGRATIONS.len() {
        let dir = tempfile::tempdir().unwrap();
        let mut connection = Connection::open(dir.path().join(DATABASE_FILE)).unwrap();
        Migrations::from_slice(open::MIGRATIONS).to_version(&mut connection, version).unwrap();
        let reached: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
        assert_eq!(usize::try_from(reached).unwrap(), version);
        connection.pragma_update(None, "application_id", 0x6D62_6E64).unwrap();
        drop(connection);
        let store = Store::open(dir.path()).unwrap();
        assert!(store.nodes().await.unwrap().is_empty());
        let now = store.call(|connection| {
            connection.pragma_query_value(None, "user_version", |row| row.get::<_, i32>(0)).map_err(store_error)
        });
        assert_eq!(now.await.unwrap(), SCHEMA_VERSION);
        if version > 0 {
            let fixture = format!("{}/src/store/fixtures/v{version}.sql", env!("CARGO_MANIFEST_DIR"));
            assert!(fs::exists(&fixture).unwrap(), "a new schema needs its fixture: {fixture}");
        }
    }
}

/// The fixtures are frozen: a new schema adds a file and a case here.
#[rstest]
#[case::v1(include_str!("../fixtures/v1.sql"))]
#[case::v2(include_str!("../fixtures/v2.sql"))]
#[case::v3(include_str!("../fixtures/v3.sql"))]
#[case::v4(include_str!("../fixtures/v4.sql"))]
#[case::v5(include_str!("../fixtures/v5.sql"))]
#[case::v6(include_str!("../fixtures/v6.sql"))]
#[case::v7(include_str!("../fixtures/v7.sql"))]
#[tokio::test]
async fn every_old_version_opens(#[case] dump: &str) {
    let dir = tempfile::tempdir().unwrap();
    Connection::open(dir.path().join(DATABASE_FILE)).unwrap().execute_batch(dump).unwrap();
    let store = Store::open(dir.path()).unwrap();
    let nodes = store.nodes().await.unwrap();
    assert_eq!(nodes, vec![record(1001)]);
    assert_eq!(store.evidence(NodeId(1001)).await.unwrap().as_deref(), Some("{}"));
    let entries = store.outbox_entries().await.unwrap();
    assert_eq!(entries.iter().map(|entry| &entry.task).collect::<Vec<_>>(), vec![&bind(1001)]);
    let [provisional] = &store.provisional_nodes().await.unwrap()[..] else { panic!("one attempt is open") };
    assert_eq!(store.removals().await.unwrap().len(), 1);
    assert_eq!(store.load_blob("cloud").await.unwrap().as_deref(), Some(&b"sealed"[..]));
    assert_eq!(store.fabric_state().await.unwrap().unwrap().next_node_id, 1003);
    let journal = store.journal(JournalLimits { max_age: Duration::MAX, max_bytes: u64::MAX }).await;
    assert_eq!(journal.query(JournalFilter::default()).await.unwrap().len(), 1);
    // What schema 4 has brought.
    let names: Vec<String> = store.controllers().await.unwrap().into_iter().map(|it| it.name).collect();
    assert!(names.is_empty() || names == ["panel"], "{names:?}");
    assert_eq!(store.invites().await.unwrap().len(), names.len());
    // What schema 5 has brought.
    let networks: Vec<String> = store.networks().await.unwrap().into_iter().map(|it| it.name).collect();
    assert!(networks.is_empty() || networks == ["Home"], "{networks:?}");
    // What schema 6 has brought.
    let check_ins = store.check_ins().await.unwrap();
    assert!(check_ins.iter().all(|row| row.node_id == NodeId(1001) && row.key.is_some()), "{check_ins:?}");
    // What schema 7 has brought.
    match &provisional.stage {
        Stage::Ready => {}
        Stage::OnFabric(unfinished) => {
            let Unfinished { particulars, fail_safe, .. } = unfinished.as_ref();
            assert_eq!(particulars.identity.binding_code, Some(BindingCode::new("0123456789ABCDEF")));
            assert_eq!(*fail_safe, Duration::from_secs(75));
        }
        Stage::GivenAway => panic!("it has the index of the fabric"),
    }
}

/// Until schema 7 the index of the fabric told whether CommissioningComplete may have been sent.
#[tokio::test]
async fn an_attempt_that_was_not_ready_is_none_that_can_be_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let connection = Connection::open(dir.path().join(DATABASE_FILE)).unwrap();
    connection.execute_batch(include_str!("../fixtures/v6.sql")).unwrap();
    connection.execute_batch("UPDATE provisional SET record = json_set(record, '$.fabric_index', 0)").unwrap();
    drop(connection);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.provisional_nodes().await.unwrap()[0].stage, Stage::GivenAway);
}

/// Until schema 6 two things of a record had one name; a record with both could not be read.
#[rstest]
#[case::announced(r#""icd":null"#, None)]
#[case::both(r#""icd":true,"icd":"not-registered""#, Some(IcdRegistration::NotRegistered))]
#[tokio::test]
async fn a_record_of_a_device_that_sleeps_long_is_mended(
    #[case] written: &str,
    #[case] registration: Option<IcdRegistration>,
) {
    let dir = tempfile::tempdir().unwrap();
    let connection = Connection::open(dir.path().join(DATABASE_FILE)).unwrap();
    connection.execute_batch(include_str!("../fixtures/v5.sql")).unwrap();
    let with = format!(r#"UPDATE nodes SET record = '{{{written},' || substr(record, 2)"#);
    connection.execute_batch(&with).unwrap();
    drop(connection);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.nodes().await.unwrap(), [NodeRecord { icd: registration, ..record(1001) }]);
}
