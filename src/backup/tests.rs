//! A backup comes back whole or not at all, and nothing that only ever rises goes back.

use std::fs;
use std::path::Path;

use super::restore::{NODE_ID_GAP, RestoreError, restore};
use super::*;
use crate::access::{AccessOverlay, BLOB};
use crate::fabric::Cat;
use crate::keystore::{Keystore, SealKey};
use crate::matter::credentials::mint;
use crate::node::{FabricId, NodeId, OWN_ID_MAX};
use crate::secret::OperationalSigningKey;
use crate::store::{NewFabric, OpenError, Store};

const NOW: Timestamp = Timestamp::constant(1_795_000_000, 0);

fn lock(secret: &str) -> Lock {
    Lock::Passphrase { secret: OperatorSecret::new(secret), work_factor: 2 }
}

fn unlock(secret: &str) -> Unlock {
    Unlock::Passphrase(OperatorSecret::new(secret))
}

/// A hub with a fabric and two node ids given away; its store stays open.
async fn hub(dir: &Path, fabric: u64) -> (Store, KeyBundle) {
    let cat = Cat::new(0x0001_0001).unwrap();
    let keys = mint(FabricId(fabric), NodeId(10), &[cat], NOW).unwrap();
    let store = Store::open(dir).unwrap();
    let compressed_id = Credentials::new(keys.clone()).unwrap().compressed_fabric_id();
    let new = NewFabric {
        fabric_id: keys.fabric_id,
        compressed_id,
        root_fingerprint: keys.root_fingerprint(),
        label: "Home".to_owned(),
        hub_node_id: keys.hub_node,
        next_node_id: 11,
    };
    store.begin_fabric(new).await.unwrap();
    Keystore::new(dir, None).create(&keys).unwrap();
    store.finish_fabric(&keys.root_fingerprint()).await.unwrap();
    store.allocate_node_id().await.unwrap();
    store.allocate_node_id().await.unwrap();
    store.save_blob("cloud-tokens", b"tokens").await.unwrap();
    (store, keys)
}

async fn backup_of(store: &Store, keys: &KeyBundle) -> Vec<u8> {
    // As the command line does it: the daemon encrypts to a recipient, the passphrase's lock comes after.
    let once = Identity::generate();
    let mut file = Vec::new();
    make(keys, store.snapshot().await.unwrap(), NOW, &once.recipient(), &mut file).unwrap();
    relock(&file, &Unlock::Identity(once), &lock("correct horse")).unwrap()
}

fn read_ok(file: &[u8]) -> Backup {
    read(file, &unlock("correct horse")).unwrap_or_else(|error| panic!("{error}"))
}

fn error_of(file: &[u8], unlock: &Unlock) -> BackupError {
    read(file, unlock).err().unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn an_empty_hub_goes_on_where_the_old_one_was() {
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (store, keys) = hub(old.path(), 77).await;
    let file = backup_of(&store, &keys).await;
    assert!(!names(old.path()).contains(&"matterbind.db.copy".to_owned()));
    let backup = read_ok(&file);
    assert_eq!((backup.manifest.next_node_id, backup.manifest.root_key), (13, true));
    let restored = restore(&backup, new.path(), None, false, NOW).await.unwrap();
    assert_eq!((restored.next_node_id, restored.kept_aside), (13 + NODE_ID_GAP, None));
    assert_eq!(names(new.path()), ["fabric.keys", "matterbind.db", "matterbind.lock"]);

    let store = Store::open(new.path()).unwrap();
    assert_eq!(store.allocate_node_id().await.unwrap(), NodeId(13 + NODE_ID_GAP));
    assert_eq!(store.load_blob("cloud-tokens").await.unwrap().as_deref(), Some(&b"tokens"[..]));
    let loaded = Keystore::new(new.path(), None).load().unwrap().bundle;
    assert_eq!((&loaded.rcac, &loaded.icac, &loaded.ipk), (&keys.rcac, &keys.icac, &keys.ipk));
    // Devices that were rotated after the backup still let this hub in.
    assert_eq!(loaded.hub_cats, vec![Cat::new(0x0001_0041).unwrap()]);
    let overlay = AccessOverlay::from_bytes(store.load_blob(BLOB).await.unwrap().as_deref()).unwrap();
    assert_eq!(overlay.current(keys.hub_cats[0]), loaded.hub_cats[0]);
}

#[tokio::test]
async fn whatever_is_cut_or_flipped_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (store, keys) = hub(dir.path(), 77).await;
    let file = backup_of(&store, &keys).await;
    for length in [0, 1, 10, 40, 150, 200, file.len() / 2, file.len() - 17, file.len() - 1] {
        let error = error_of(&file[..length], &unlock("correct horse"));
        let said = matches!(error, BackupError::Damaged(_)) || length == 0;
        assert!(said, "cut to {length}: {error}");
    }
    let step = file.len() / 20;
    for index in (0..file.len()).step_by(step) {
        let mut flipped = file.clone();
        flipped[index] ^= 0x04;
        assert!(read(&flipped, &unlock("correct horse")).is_err(), "byte {index}");
    }
    let longer = [&file[..], b"more"].concat();
    assert!(matches!(error_of(&longer, &unlock("correct horse")), BackupError::Damaged(_)));
}

#[tokio::test]
async fn what_is_not_ours_says_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (store, keys) = hub(dir.path(), 77).await;
    let file = backup_of(&store, &keys).await;
    assert!(matches!(error_of(&file, &unlock("wrong")), BackupError::WrongKey));
    assert!(matches!(error_of(b"PK\x03\x04 a zip", &unlock("x")), BackupError::NotABackup));
    let other = encrypt(b"just a letter\n", &lock("x")).unwrap();
    assert!(matches!(error_of(&other, &unlock("x")), BackupError::NotABackup));
    let newer = encrypt(format!("{MAGIC} 2\n").as_bytes(), &lock("x")).unwrap();
    assert!(matches!(error_of(&newer, &unlock("x")), BackupError::OtherFormat { .. }));
    let text = error_of(&newer, &unlock("x")).to_string();
    assert!(text.contains("format 2"), "{text}");
    let once = Identity::generate();
    let root = export_root(&keys, &once.recipient()).unwrap().unwrap();
    assert!(matches!(error_of(&root, &Unlock::Identity(once)), BackupError::NotABackup));
}

#[tokio::test]
async fn keys_of_one_fabric_do_not_go_with_records_of_another() {
    let (one, two, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (store, _) = hub(one.path(), 77).await;
    let (_, keys) = hub(two.path(), 78).await;
    let backup = read_ok(&backup_of(&store, &keys).await);
    let result = restore(&backup, new.path(), None, false, NOW).await;
    assert!(matches!(result, Err(RestoreError::OtherFabric)), "{result:?}");
    assert_eq!(names(new.path()), ["matterbind.lock"], "nothing half-written");
}

#[tokio::test]
async fn existing_state_is_kept_unless_forced_and_kept_aside_then() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (store, keys) = hub(one.path(), 77).await;
    let backup = read_ok(&backup_of(&store, &keys).await);
    let (other, other_keys) = hub(two.path(), 78).await;
    let running = restore(&backup, two.path(), None, true, NOW).await;
    assert!(matches!(running, Err(RestoreError::State(OpenError::Locked { .. }))), "{running:?}");
    other.close().await;
    let refused = restore(&backup, two.path(), None, false, NOW).await.unwrap_err();
    assert!(refused.to_string().contains("another fabric"), "{refused}");
    assert_eq!(Keystore::new(two.path(), None).load().unwrap().bundle, other_keys);

    let aside = restore(&backup, two.path(), None, true, NOW).await.unwrap().kept_aside.unwrap();
    assert_eq!(Keystore::new(&aside, None).load().unwrap().bundle, other_keys);
    assert_eq!(Store::open(&aside).unwrap().fabric_state().await.unwrap().unwrap().fabric_id, FabricId(78));
    assert_eq!(Store::open(two.path()).unwrap().fabric_state().await.unwrap().unwrap().fabric_id, FabricId(77));
}

#[tokio::test]
async fn nothing_goes_backwards_over_a_later_state_of_the_same_fabric() {
    let dir = tempfile::tempdir().unwrap();
    let (store, keys) = hub(dir.path(), 77).await;
    let backup = read_ok(&backup_of(&store, &keys).await);
    for _ in 0..50 {
        store.allocate_node_id().await.unwrap();
    }
    let base = crate::access::Base { admin: keys.hub_cats[0], grants: &[] };
    let mut overlay = AccessOverlay::default();
    for _ in 0..5 {
        overlay.rotate(base, 1).unwrap();
    }
    store.save_blob(BLOB, &overlay.to_bytes()).await.unwrap();
    store.close().await;
    let restored = restore(&backup, dir.path(), None, true, NOW).await.unwrap();
    assert_eq!(restored.next_node_id, 63 + NODE_ID_GAP);
    let loaded = Keystore::new(dir.path(), None).load().unwrap().bundle;
    assert_eq!(loaded.hub_cats, vec![Cat::new(0x0001_0046).unwrap()]);
}

#[tokio::test]
async fn the_gap_ends_where_the_ids_end() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (store, keys) = hub(one.path(), 77).await;
    store.adopt_restored(OWN_ID_MAX - 3, BLOB, b"{}").await.unwrap();
    let backup = read_ok(&backup_of(&store, &keys).await);
    let restored = restore(&backup, two.path(), None, false, NOW).await.unwrap();
    assert_eq!(restored.next_node_id, OWN_ID_MAX + 1);
    assert!(Store::open(two.path()).unwrap().allocate_node_id().await.is_err());
}

#[tokio::test]
async fn a_recipients_backup_opens_with_its_identity_and_is_sealed_again() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (store, keys) = hub(one.path(), 77).await;
    let identity = Identity::generate();
    let recipient: Recipient = identity.recipient_text().parse().unwrap();
    let mut file = Vec::new();
    make(&keys, store.snapshot().await.unwrap(), NOW, &recipient, &mut file).unwrap();
    let text = format!("# created: today\n{}\n", identity.secret_text().expose());
    let backup =
        read(&file, &Unlock::Identity(Identity::read(&text).unwrap())).unwrap_or_else(|error| panic!("{error}"));
    assert!(matches!(error_of(&file, &unlock("x")), BackupError::WrongKey));
    restore(&backup, two.path(), Some(SealKey::new(b"tpm")), false, NOW).await.unwrap();
    assert!(Keystore::new(two.path(), Some(SealKey::new(b"tpm"))).load().unwrap().sealed);
    assert!("age1nonsense".parse::<Recipient>().is_err());
}

#[tokio::test]
async fn the_root_key_goes_into_a_file_of_its_own_and_the_icac_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (_store, mut keys) = hub(dir.path(), 77).await;
    let identity = Identity::generate();
    let text = identity.secret_text();
    let again = || Identity::read(text.expose()).unwrap();
    let file = export_root(&keys, &identity.recipient()).unwrap().unwrap();
    let root = keys.rcac_key.take();
    assert_eq!(Some(read_root(&file, again(), &keys).unwrap()), root);
    let other = mint(FabricId(78), NodeId(10), &keys.hub_cats.clone(), NOW).unwrap();
    assert!(matches!(read_root(&file, again(), &other), Err(BackupError::OtherRoot)));
    // The right certificate with another's key.
    let forged = KeyBundle { rcac_key: Some(OperationalSigningKey::new([7; 32])), ..keys.clone() };
    let forged = export_root(&forged, &identity.recipient()).unwrap().unwrap();
    assert!(matches!(read_root(&forged, again(), &keys), Err(BackupError::OtherRoot)));
    assert!(export_root(&keys, &identity.recipient()).unwrap().is_none());
    Keystore::new(dir.path(), None).replace(&keys).unwrap();
    let loaded = Keystore::new(dir.path(), None).load().unwrap().bundle;
    assert_eq!(loaded.rcac_key, None);
    crate::matter::credentials::reissue_hub_noc(&mut loaded.clone(), &keys.hub_cats).unwrap();
}
