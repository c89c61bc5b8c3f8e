//! Puts a verified backup into a state directory, all of it or nothing, while no daemon runs.
//!
//! Three things go on from later than the backup, because the hub may have run after it: the node ids (a gap is left, an id
//! is never given twice), the versions of the hub's own CATs, and the rotated versions where the state that is replaced is
//! of the same fabric. Message counters of Matter's sessions need nothing: they start at random with every session.

use std::fs;
use std::io;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::Backup;
use crate::access::{self, AccessOverlay};
use crate::durable::StoreError;
use crate::failpoint;
use crate::keystore::{Keystore, SaveError, SealKey};
use crate::matter::credentials::{CredentialError, reissue_hub_noc};
use crate::node::OWN_ID_MAX;
use crate::store::{DATABASE_FILE, FabricRow, OfflineState, OpenError, Store};

/// Node ids left out after a restore: more than anybody commissions between two backups.
pub(crate) const NODE_ID_GAP: u64 = 1000;

/// Why a backup was not restored. The state is as it was.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestoreError {
    /// The directory cannot be used, for instance because the daemon runs.
    #[error(transparent)]
    State(#[from] OpenError),
    /// Something is here already.
    #[error("{} holds {what} already", state_dir.display())]
    Exists {
        state_dir: PathBuf,
        /// A fabric, as far as it can be told.
        what: String,
    },
    /// The backup's database and keys are of two fabrics.
    #[error("the records of this backup are of another fabric than its keys")]
    OtherFabric,
    #[error("{} cannot be written", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("the restored records cannot be used")]
    Store(#[from] StoreError),
    /// The keys cannot be written.
    #[error(transparent)]
    Keys(#[from] SaveError),
    /// The restored keys do not sign.
    #[error("the restored keys cannot be used")]
    Credentials(#[from] CredentialError),
}

impl RestoreError {
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::State(OpenError::Locked { .. }) => "daemon-running",
            Self::Exists { .. } => "state-exists",
            Self::OtherFabric => "backup-of-another-fabric",
            _ => "restore-failed",
        }
    }

    /// What to do now.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::State(OpenError::Locked { .. }) => "stop the daemon: `systemctl stop matterbind`",
            Self::Exists { .. } => "--force restores all the same, and keeps the old state aside",
            Self::OtherFabric => "use another backup",
            _ => "nothing was changed; mend what the message says and try again",
        }
    }
}

/// What a restore made of the backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Restored {
    /// The node id that is given away next.
    pub next_node_id: u64,
    /// Where the old state is.
    pub kept_aside: Option<PathBuf>,
}

/// Restores. `seal` is the credential of this machine, if there is one; without it the next start seals.
pub(crate) async fn restore(
    backup: &Backup,
    state_dir: &Path,
    seal: Option<SealKey>,
    force: bool,
    now: Timestamp,
) -> Result<Restored, RestoreError> {
    let state = OfflineState::take(state_dir)?;
    let old = state.peek(access::BLOB);
    if state.holds_state() && !force {
        let what = old.map_or_else(|| "state that cannot be read".to_owned(), |(row, _)| what(&row, backup));
        return Err(RestoreError::Exists { state_dir: state_dir.to_owned(), what });
    }
    let io = |source| RestoreError::Io { path: state_dir.to_owned(), source };
    let staging = state.staging().map_err(io)?;
    let prepared = prepare(backup, &staging, seal, old).await;
    match prepared {
        Ok(next_node_id) => {
            let kept_aside = state.replace(now).map_err(io)?;
            Ok(Restored { next_node_id, kept_aside })
        }
        Err(error) => {
            state.discard();
            Err(error)
        }
    }
}

fn what(row: &FabricRow, backup: &Backup) -> String {
    let same = row.root_fingerprint == backup.keys.root_fingerprint();
    let which = if same { "this fabric" } else { "another fabric" };
    format!("{which} ({:016X}, node ids up to {})", row.compressed_id, row.next_node_id - 1)
}

/// The whole new state, in a directory of its own, opened once to prove that it can be.
async fn prepare(
    backup: &Backup,
    staging: &Path,
    seal: Option<SealKey>,
    old: Option<(FabricRow, Option<Vec<u8>>)>,
) -> Result<u64, RestoreError> {
    let io = |source| RestoreError::Io { path: staging.to_owned(), source };
    let mut database = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(staging.join(DATABASE_FILE))
        .map_err(io)?;
    database.write_all(&backup.database).and_then(|()| database.sync_all()).map_err(io)?;
    drop(database);
    failpoint::reach("restore.database-copied");
    let store = Store::open(staging)?;
    let adopted = adopt(backup, &store, old).await;
    store.close().await;
    let (next_node_id, admin_cats) = adopted?;
    failpoint::reach("restore.adopted");
    let mut keys = backup.keys.clone();
    reissue_hub_noc(&mut keys, &admin_cats)?;
    Keystore::new(staging, seal).create(&keys)?;
    failpoint::reach("restore.prepared");
    Ok(next_node_id)
}

/// Raises what must never go backwards. Answers the next node id and the tags of the hub.
async fn adopt(
    backup: &Backup,
    store: &Store,
    old: Option<(FabricRow, Option<Vec<u8>>)>,
) -> Result<(u64, Vec<crate::fabric::Cat>), RestoreError> {
    let fingerprint = backup.keys.root_fingerprint();
    let row = store.fabric_state().await?.filter(|row| row.root_fingerprint == fingerprint);
    let row = row.ok_or(RestoreError::OtherFabric)?;
    let same = old.filter(|(old, _)| old.root_fingerprint == fingerprint);
    let used = same.as_ref().map_or(0, |(old, _)| old.next_node_id).max(row.next_node_id);
    let next_node_id = used.saturating_add(NODE_ID_GAP).min(OWN_ID_MAX + 1);
    let saved = store.load_blob(access::BLOB).await?;
    let overlay = AccessOverlay::from_bytes(saved.as_deref()).unwrap_or_default();
    // An old overlay that cannot be read says nothing; the gap is there for that.
    let later = same.and_then(|(_, bytes)| AccessOverlay::from_bytes(bytes.as_deref()).ok());
    let overlay = overlay.after_restore(&backup.keys.hub_cats, later.as_ref());
    store.adopt_restored(next_node_id, access::BLOB, &overlay.to_bytes()).await?;
    Ok((next_node_id, backup.keys.hub_cats.iter().map(|cat| overlay.current(*cat)).collect()))
}
