//! The state directory as it lies on the disk, looked at and left alone: room, sizes, whether the database is whole, when it was
//! last backed up. With or without a daemon on it; never through the daemon's own connection, so that nobody waits for it.
//!
//! Not here: what any of it means to a person (`hub::doctor`).

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rusqlite::{Connection, OpenFlags};
use rustix::fs::{Access, FlockOperation, access, flock, statvfs};
use serde::Serialize;

use super::open::{DATABASE_FILE, LOCK_FILE, is_read_only};

/// When the last backup was made, among the saved blobs.
pub(crate) const LAST_BACKUP: &str = "last-backup-at";
const LOG_FILE: &str = "matterbind.db-wal";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Examiner {
    /// The daemon whose state it is.
    Daemon,
    /// Somebody else, while the daemon runs or does not.
    Other,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Examined {
    pub state_dir: PathBuf,
    /// Whether it is there.
    pub exists: bool,
    /// Why it cannot be looked into or written; empty if it can.
    pub refused: String,
    /// Whether the file system it is on is mounted read-only.
    pub read_only: bool,
    /// Bytes that are free for the service.
    pub free: u64,
    /// Files that may still be made there; `None` where the file system does not count them.
    pub free_files: Option<u64>,
    /// The database's size; `None` where there is none.
    pub database: Option<u64>,
    /// The write-ahead log's.
    pub log: u64,
    /// Whether the database is whole.
    pub integrity: Integrity,
    /// When the last backup was made here.
    pub last_backup: Option<Timestamp>,
    /// Whether anything could be read out of the database.
    pub was_read: bool,
}

/// Whether the database is whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub enum Integrity {
    /// It was not looked at.
    #[default]
    NotLooked,
    /// SQLite finds nothing.
    Whole,
    Damaged(String),
}

/// Looks; with `thorough` the whole database is read. Blocks for as long as the disk takes.
pub(crate) fn examine(state_dir: &Path, examiner: Examiner, thorough: bool) -> Examined {
    let mut seen = Examined { state_dir: state_dir.to_owned(), ..Examined::default() };
    match fs::read_dir(state_dir) {
        Ok(_) => seen.exists = true,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return seen,
        Err(error) => {
            seen.exists = true;
            seen.refused = format!("it cannot be read: {error}");
            return seen;
        }
    }
    if let Ok(found) = statvfs(state_dir) {
        seen.free = found.f_bavail.saturating_mul(found.f_frsize);
        seen.free_files = (found.f_files > 0).then_some(found.f_favail);
    }
    seen.read_only = is_read_only(state_dir);
    if let Err(error) = access(state_dir, Access::WRITE_OK | Access::EXEC_OK) {
        seen.refused = format!("it cannot be written: {}", io::Error::from(error));
    }
    let size = |name| fs::metadata(state_dir.join(name)).ok().map(|found| found.len());
    seen.database = size(DATABASE_FILE);
    seen.log = size(LOG_FILE).unwrap_or_default();
    if seen.database.is_some()
        && let Some(database) = open(state_dir, examiner, seen.log)
    {
        seen.read(&database, thorough);
    }
    seen
}

impl Examined {
    fn read(&mut self, database: &Connection, thorough: bool) {
        let saved = "SELECT bytes FROM tokens WHERE name = ?1";
        match database.query_row(saved, [LAST_BACKUP], |row| row.get::<_, Vec<u8>>(0)) {
            Ok(bytes) => self.last_backup = std::str::from_utf8(&bytes).ok().and_then(|text| text.parse().ok()),
            Err(rusqlite::Error::QueryReturnedNoRows) => {}
            Err(error) => return self.integrity = Integrity::Damaged(error.to_string()),
        }
        self.was_read = true;
        if thorough {
            let verdict = database.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
            self.integrity = match verdict {
                Ok(verdict) if verdict == "ok" => Integrity::Whole,
                Ok(what) => Integrity::Damaged(what),
                Err(error) => Integrity::Damaged(error.to_string()),
            };
        }
    }
}

/// A connection that changes nothing. `None` where there can be none: another process may write at this moment, or has left a log
/// that belongs to the database, and to read that SQLite would have to write beside it.
fn open(state_dir: &Path, examiner: Examiner, log: u64) -> Option<Connection> {
    let path = state_dir.join(DATABASE_FILE);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if examiner == Examiner::Daemon {
        return Connection::open_with_flags(path, flags).ok();
    }
    let lock = File::open(state_dir.join(LOCK_FILE)).ok()?;
    if log > 0 || flock(&lock, FlockOperation::NonBlockingLockShared).is_err() {
        return None;
    }
    let name = utf8_percent_encode(path.to_str()?, NON_ALPHANUMERIC).to_string().replace("%2F", "/");
    let address = format!("file:{name}?immutable=1");
    Connection::open_with_flags(address, flags | OpenFlags::SQLITE_OPEN_URI).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn it_is_looked_at_with_and_without_a_daemon_and_left_as_it_is() {
        let home = tempfile::tempdir().unwrap();
        let state = home.path().join("a state?#%");
        assert!(!examine(&state, Examiner::Other, true).exists);
        let store = Store::open(&state).unwrap();
        let at = Timestamp::from_second(1_795_000_000).unwrap();
        store.save_blob(LAST_BACKUP, at.to_string().as_bytes()).await.unwrap();
        let seen = examine(&state, Examiner::Daemon, true);
        assert_eq!((&seen.integrity, seen.last_backup, seen.was_read), (&Integrity::Whole, Some(at), true));
        assert!(seen.free > 0 && seen.database.is_some() && seen.refused.is_empty() && !seen.read_only, "{seen:?}");
        let other = examine(&state, Examiner::Other, true);
        assert_eq!((other.integrity, other.was_read), (Integrity::NotLooked, false), "somebody else's daemon runs");
        store.close().await;
        let before = names(&state);
        let seen = examine(&state, Examiner::Other, true);
        assert_eq!((seen.integrity, seen.last_backup), (Integrity::Whole, Some(at)));
        assert_eq!(names(&state), before);
    }

    #[tokio::test]
    async fn a_damaged_database_is_named() {
        let state = tempfile::tempdir().unwrap();
        Store::open(state.path()).unwrap().close().await;
        let path = state.path().join(DATABASE_FILE);
        let mut bytes = fs::read(&path).unwrap();
        bytes[4096..].fill(0x5a);
        fs::write(&path, bytes).unwrap();
        assert!(matches!(examine(state.path(), Examiner::Other, true).integrity, Integrity::Damaged(_)));
    }
}
