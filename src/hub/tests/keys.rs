//! What counts as a backup.

use std::io::Read;

use sha2::{Digest, Sha256};

use super::*;
use crate::backup::Identity;
use crate::hub::keys::KeysDoor;
use crate::plain;
use crate::store::LAST_BACKUP;

#[tokio::test]
async fn a_backup_counts_when_it_was_kept() {
    let rig = Rig::start(|_| {}).await;
    let counts = async || rig.hub.store.load_blob(LAST_BACKUP).await.unwrap().is_some();
    let make = async || {
        let mut bytes = Vec::new();
        let mut file = rig.hub.backup(Identity::generate().recipient()).await.unwrap();
        file.read_to_end(&mut bytes).unwrap();
        plain::lower_hex(&Sha256::digest(&bytes))
    };
    let first = make().await;
    let second = make().await;
    assert!(!counts().await, "nobody has received one");
    assert_eq!(rig.hub.backup_kept("00").await.unwrap_err().code, "not-the-backup");
    assert!(!counts().await);
    rig.hub.backup_kept(&second).await.unwrap();
    assert!(counts().await);
    // Several may be on their way at once; the newest that arrived counts.
    let newest = rig.hub.store.load_blob(LAST_BACKUP).await.unwrap();
    rig.hub.backup_kept(&first).await.unwrap();
    assert_eq!(rig.hub.store.load_blob(LAST_BACKUP).await.unwrap(), newest);
}
