//! The bundle survives or is refused; nothing in between.

use super::*;

fn bundle() -> KeyBundle {
    KeyBundle {
        fabric_id: FabricId(7),
        hub_node: NodeId(1000),
        hub_cats: vec![Cat::new(0x0001_0001).expect("a version")],
        rcac: vec![1, 2, 3],
        rcac_key: Some(OperationalSigningKey::new([4; 32])),
        icac: vec![5; 200],
        icac_key: OperationalSigningKey::new([6; 32]),
        ipk: IpkEpochKey::new([7; 16]),
        hub_noc: vec![8; 200],
        hub_key: OperationalSigningKey::new([9; 32]),
        created_at: Timestamp::UNIX_EPOCH,
    }
}

fn store(directory: &tempfile::TempDir, seal: Option<&[u8]>) -> Keystore {
    Keystore::new(directory.path(), seal.map(SealKey::new))
}

#[test]
fn a_bundle_comes_back_as_it_was_and_only_its_owner_may_read_it() {
    let directory = tempfile::tempdir().unwrap();
    let keys = store(&directory, None);
    assert!(matches!(keys.load(), Err(LoadError::Missing(_))));
    assert!(!keys.exists());
    keys.create(&bundle()).unwrap();
    let loaded = keys.load().unwrap();
    assert_eq!((loaded.bundle, loaded.sealed), (bundle(), false));
    assert_eq!(fs::metadata(keys.path()).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(matches!(keys.create(&bundle()), Err(SaveError::Exists(_))));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn the_root_key_may_be_absent() {
    let directory = tempfile::tempdir().unwrap();
    let keys = store(&directory, None);
    let offline = KeyBundle { rcac_key: None, ..bundle() };
    keys.create(&bundle()).unwrap();
    keys.replace(&offline).unwrap();
    assert_eq!(keys.load().unwrap().bundle, offline);
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let keys = store(&directory, None);
    let whole = keys.encode(&bundle()).unwrap();
    for index in 0..whole.len() {
        let mut flipped = whole.to_vec();
        flipped[index] ^= 1;
        assert!(keys.decode(&flipped).is_err(), "byte {index} changed");
    }
    for length in 0..whole.len() {
        assert!(matches!(keys.decode(&whole[..length]), Err(LoadError::Damaged { .. })), "cut to {length}");
    }
}

#[test]
fn a_later_format_is_named_and_not_called_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let keys = store(&directory, None);
    let newer = format!("{MAGIC} 2 another-form\nanything");
    assert!(matches!(keys.decode(newer.as_bytes()), Err(LoadError::NewerVersion { found: 2, .. })));
}

#[test]
fn a_file_that_others_may_read_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let keys = store(&directory, None);
    keys.create(&bundle()).unwrap();
    fs::set_permissions(keys.path(), fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(keys.load(), Err(LoadError::Exposed { mode: 0o640, .. })));
}

#[test]
fn a_sealed_bundle_opens_with_its_own_credential_only() {
    let directory = tempfile::tempdir().unwrap();
    let keys = store(&directory, Some(b"the hub's credential"));
    keys.create(&bundle()).unwrap();
    let loaded = keys.load().unwrap();
    assert_eq!((loaded.bundle, loaded.sealed), (bundle(), true));
    assert!(matches!(store(&directory, Some(b"another")).load(), Err(LoadError::WrongSeal(_))));
    assert!(matches!(store(&directory, None).load(), Err(LoadError::Sealed(_))));
    let content = fs::read(keys.path()).unwrap();
    let key = encoded(bundle().icac_key.expose());
    assert!(!content.windows(key.len()).any(|window| window == key.as_bytes()));
}

#[test]
fn the_credential_is_found_where_systemd_puts_it() {
    let directory = tempfile::tempdir().unwrap();
    assert!(SealKey::from_credentials_directory(None).unwrap().is_none());
    assert!(SealKey::from_credentials_directory(Some(directory.path())).unwrap().is_none());
    fs::write(directory.path().join(CREDENTIAL_NAME), b"secret").unwrap();
    assert!(SealKey::from_credentials_directory(Some(directory.path())).unwrap().is_some());
}

#[test]
fn whether_it_is_sealed_is_seen_without_the_seal() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(is_sealed(directory.path()).unwrap(), None);
    store(&directory, None).create(&bundle()).unwrap();
    assert_eq!(is_sealed(directory.path()).unwrap(), Some(false));
    store(&directory, Some(b"a seal")).replace(&bundle()).unwrap();
    assert_eq!(is_sealed(directory.path()).unwrap(), Some(true));
}
