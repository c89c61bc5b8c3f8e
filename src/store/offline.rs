//! The state directory while no daemon runs: taking it, and replacing what is in it in one step.
//!
//! A replacement is prepared in `restore.new`, made durable, and decided by one rename to `restore.ready`. What follows
//! (the old files into `before-restore-…`, the new ones to their places) can be done again from any point, and the next
//! start does so before it looks at anything. Everything happens inside of the directory, so that a mount point or a
//! directory of systemd's works too. Root acts for the directory's owner meanwhile (`ownership`): nothing here changes an owner.
//! Not here: what a backup is (`backup`).

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags};

use super::fabric::{FabricRow, row};
use super::open::{self, DATABASE_FILE, LOCK_FILE, OpenError};
use crate::failpoint;

const STAGING: &str = "restore.new";
const DECIDED: &str = "restore.ready";
/// Holds the name of the directory that takes the old files.
const ASIDE: &str = "aside";
/// What the names of those directories begin with.
const KEPT: &str = "before-restore-";
const KEYS_FILE: &str = "fabric.keys";
/// Go with the database.
const BESIDE_DATABASE: [&str; 2] = ["matterbind.db-wal", "matterbind.db-shm"];

/// A state directory that no daemon uses, as long as this lives.
#[derive(Debug)]
pub(crate) struct OfflineState {
    state_dir: PathBuf,
    _lock: File,
}

impl OfflineState {
    /// Takes the directory's lock, makes the directory where there is none, and finishes a replacement that was decided.
    ///
    /// # Errors
    /// A daemon runs, or the directory cannot be written.
    pub(crate) fn take(state_dir: &Path) -> Result<Self, OpenError> {
        open::make_private(state_dir)?;
        let (lock, _) = open::take_lock(state_dir)?;
        finish(state_dir).map_err(|source| open::io_error(state_dir, source))?;
        Ok(Self { state_dir: state_dir.to_owned(), _lock: lock })
    }

    /// Whether a database or keys lie here, readable or not.
    pub(crate) fn holds_state(&self) -> bool {
        [DATABASE_FILE, KEYS_FILE].iter().any(|name| self.state_dir.join(name).exists())
    }

    /// The fabric row and a saved blob of the state that lies here; `None` where it cannot be read.
    pub(crate) fn peek(&self, blob: &str) -> Option<(FabricRow, Option<Vec<u8>>)> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(self.state_dir.join(DATABASE_FILE), flags).ok()?;
        let row = row(&connection).ok()??;
        let bytes = connection.query_row("SELECT bytes FROM tokens WHERE name = ?1", [blob], |row| row.get(0)).ok();
        Some((row, bytes))
    }

    /// An empty directory for the new files.
    pub(crate) fn staging(&self) -> io::Result<PathBuf> {
        let staging = self.state_dir.join(STAGING);
        remove_dir(&staging)?;
        DirBuilder::new().mode(0o700).create(&staging)?;
        Ok(staging)
    }

    /// Gives the prepared files up.
    pub(crate) fn discard(&self) {
        // What stays is removed by the next one.
        let _ = remove_dir(&self.state_dir.join(STAGING));
    }

    /// Decides for the prepared files, and puts them in place. Answers where the old ones are.
    ///
    /// # Errors
    /// Before the decision: nothing has changed. After it: the next start goes on.
    pub(crate) fn replace(&self, now: Timestamp) -> io::Result<Option<PathBuf>> {
        let staging = self.state_dir.join(STAGING);
        // A lock file of the preparation would be in the way of the directory's own.
        ignore_missing(fs::remove_file(staging.join(LOCK_FILE)))?;
        let aside = format!("{KEPT}{}", now.strftime("%Y%m%dT%H%M%S%.3fZ"));
        fs::write(staging.join(ASIDE), &aside)?;
        for file in fs::read_dir(&staging)? {
            File::open(file?.path())?.sync_all()?;
        }
        File::open(&staging)?.sync_all()?;
        failpoint::reach("restore.synced");
        fs::rename(&staging, self.state_dir.join(DECIDED))?;
        File::open(&self.state_dir)?.sync_all()?;
        failpoint::reach("restore.decided");
        finish(&self.state_dir)?;
        let aside = self.state_dir.join(aside);
        Ok(aside.exists().then_some(aside))
    }
}

/// Finishes a replacement that was decided; nothing where there is none. The caller holds the lock.
pub(super) fn finish(state_dir: &Path) -> io::Result<()> {
    let decided = state_dir.join(DECIDED);
    if !decided.exists() {
        return Ok(());
    }
    let aside = match fs::read_to_string(decided.join(ASIDE)) {
        Ok(name) if is_ours(&name) => state_dir.join(name),
        Ok(_) => {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "restore.ready/aside names no directory of ours"));
        }
        // Only the empty directory was left.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return remove_dir(&decided),
        Err(error) => return Err(error),
    };
    // The keys first: a database without its keys is what a start refuses, keys without a database as well.
    for (name, beside) in [(KEYS_FILE, &[][..]), (DATABASE_FILE, &BESIDE_DATABASE[..])] {
        // As long as the new file waits, what lies in its place is the old one.
        if !decided.join(name).exists() {
            continue;
        }
        for old in beside.iter().copied().chain([name]).filter(|old| state_dir.join(old).exists()) {
            ignore_existing(DirBuilder::new().mode(0o700).create(&aside))?;
            fs::rename(state_dir.join(old), aside.join(old))?;
            File::open(&aside)?.sync_all()?;
            failpoint::reach("restore.moved-aside");
        }
        fs::rename(decided.join(name), state_dir.join(name))?;
        File::open(state_dir)?.sync_all()?;
        failpoint::reach("restore.placed");
    }
    fs::remove_file(decided.join(ASIDE))?;
    failpoint::reach("restore.finished");
    remove_dir(&decided)?;
    File::open(state_dir)?.sync_all()
}

/// A plain name as [`OfflineState::replace`] makes them: it cannot lead out of the directory.
fn is_ours(name: &str) -> bool {
    name.strip_prefix(KEPT).is_some_and(|time| time.chars().all(|c| c.is_ascii_alphanumeric() || c == '.'))
}

fn remove_dir(path: &Path) -> io::Result<()> {
    ignore_missing(fs::remove_dir_all(path))
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    result.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

fn ignore_existing(result: io::Result<()>) -> io::Result<()> {
    result.or_else(|error| if error.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(error) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_files_go_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        fs::create_dir_all(state.join(DECIDED)).unwrap();
        for name in ["../elsewhere", "/etc", "before-restore-../../x", "", "kept"] {
            fs::write(state.join(KEYS_FILE), "old").unwrap();
            fs::write(state.join(DECIDED).join(KEYS_FILE), "new").unwrap();
            fs::write(state.join(DECIDED).join(ASIDE), name).unwrap();
            assert_eq!(finish(&state).unwrap_err().kind(), io::ErrorKind::InvalidData, "{name:?}");
            assert_eq!(fs::read_to_string(state.join(KEYS_FILE)).unwrap(), "old");
        }
        assert!(!dir.path().join("elsewhere").exists());
    }

    /// Every point at which the power may go after the decision.
    #[test]
    fn a_decided_replacement_is_finished_from_any_point() {
        for cut in 0..6 {
            let dir = tempfile::tempdir().unwrap();
            let at = |name: &str| dir.path().join(name);
            fs::create_dir(at(DECIDED)).unwrap();
            for name in [KEYS_FILE, DATABASE_FILE] {
                fs::write(at(name), "old").unwrap();
                fs::write(at(DECIDED).join(name), "new").unwrap();
            }
            fs::write(at("matterbind.db-wal"), "old").unwrap();
            fs::write(at(DECIDED).join(ASIDE), "before-restore-then").unwrap();
            let moves = [
                (at(KEYS_FILE), at("before-restore-then").join(KEYS_FILE)),
                (at(DECIDED).join(KEYS_FILE), at(KEYS_FILE)),
                (at("matterbind.db-wal"), at("before-restore-then").join("matterbind.db-wal")),
                (at(DATABASE_FILE), at("before-restore-then").join(DATABASE_FILE)),
                (at(DECIDED).join(DATABASE_FILE), at(DATABASE_FILE)),
            ];
            for (from, to) in &moves[..cut.min(moves.len())] {
                fs::create_dir_all(at("before-restore-then")).unwrap();
                fs::rename(from, to).unwrap();
            }
            finish(dir.path()).unwrap();
            finish(dir.path()).unwrap();
            for name in [KEYS_FILE, DATABASE_FILE] {
                assert_eq!(fs::read_to_string(at(name)).unwrap(), "new", "cut {cut}");
                assert_eq!(fs::read_to_string(at("before-restore-then").join(name)).unwrap(), "old", "cut {cut}");
            }
            assert!(!at("matterbind.db-wal").exists() && !at(DECIDED).exists());
        }
    }
}
