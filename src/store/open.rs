//! Opening the state directory: rights, the lock, what must be there, the schema version.
//!
//! The rule is that the daemon never starts from nothing where something was. Three witnesses say that something was: the
//! lock file's text (written once the first schema is durable), a key bundle, and files that SQLite left beside the
//! database. Not here: what is in the tables.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};
use rusqlite_migration::{M, Migrations};
use rustix::fs::{FlockOperation, flock};

use super::{offline, sqlite_code};
use crate::failpoint;

/// The database's name in the state directory.
pub(crate) const DATABASE_FILE: &str = "matterbind.db";
/// The lock file's name; it also remembers that the database was made.
pub(crate) const LOCK_FILE: &str = "matterbind.lock";
/// Files that the database has owned or that lie beside it; where one exists, the database must exist too.
const WITNESSES: [&str; 4] = ["matterbind.db-wal", "matterbind.db-shm", "fabric.keys", "fabric.keys.new"];
/// `mbnd`: marks the file as ours for `file(1)` and for us.
const APPLICATION_ID: i32 = 0x6D62_6E64;
const LOCK_TEXT: &str = "matterbind: the database in this directory has been created; keep this file\n";
/// How long one statement waits for another process that reads the file, for instance the `sqlite3` shell.
const BUSY_TIMEOUT: Duration = Duration::from_millis(1000);
/// The header that every SQLite file begins with.
const SQLITE_MAGIC: &[u8; 16] = b"SQLite format 3\0";

pub(super) const MIGRATIONS: &[M<'static>] = &[
    M::up(include_str!("migrations/001_initial.sql")).foreign_key_check(),
    M::up(include_str!("migrations/002_removal_told.sql")),
    M::up(include_str!("migrations/003_setup_codes.sql")).foreign_key_check(),
    M::up(include_str!("migrations/004_controllers.sql")),
    M::up(include_str!("migrations/005_networks.sql")),
    M::up(include_str!("migrations/006_check_ins.sql")).foreign_key_check(),
    M::up(include_str!("migrations/007_stages.sql")),
];

/// The schema that this binary writes.
pub(crate) const SCHEMA_VERSION: i32 = MIGRATIONS.len() as i32;

/// Why the state directory cannot be used. Every variant says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory held a database once.
    #[error(
        "{} is missing, but {} shows that it existed: restore the state directory from a backup; the daemon does not start \
         from an empty one, since that would strand every commissioned device",
        database.display(), witness.display()
    )]
    Missing {
        database: PathBuf,
        /// What remembers it.
        witness: PathBuf,
    },
    /// Not a database, or one whose content does not hang together.
    #[error("{} is damaged ({detail}): restore the state directory from a backup", database.display())]
    Damaged { database: PathBuf, detail: String },
    /// A newer binary has used this directory.
    #[error(
        "{} has schema {found}, this is matterbind {} with schema {SCHEMA_VERSION}: start {written_by} or a later one",
        database.display(), env!("CARGO_PKG_VERSION")
    )]
    NewerVersion {
        database: PathBuf,
        /// Its schema version.
        found: i32,
        /// The binary that wrote it last, for instance `matterbind 0.3.0`.
        written_by: String,
    },
    /// Another daemon uses the directory.
    #[error("another process uses {} (it holds {LOCK_FILE}): stop it first", state_dir.display())]
    Locked { state_dir: PathBuf },
    /// The directory or a file in it cannot be written.
    #[error("{} cannot be written: check mount and owner", path.display())]
    ReadOnly { path: PathBuf },
    #[error("the disk that holds {} is full: free some space", state_dir.display())]
    Full { state_dir: PathBuf },
    /// The operating system refuses something else.
    #[error("{}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// SQLite refuses something else.
    #[error("{} cannot be opened: {cause}", database.display())]
    Sqlite { database: PathBuf, cause: rusqlite::Error },
}

/// An open database and the lock that makes it ours. The lock ends when this is dropped, after the connection.
pub(super) struct Opened {
    pub(super) connection: Connection,
    pub(super) _lock: File,
}

/// Opens, checks and migrates.
pub(super) fn open(state_dir: &Path) -> Result<Opened, OpenError> {
    make_private(state_dir)?;
    let (mut lock, created_before) = take_lock(state_dir)?;
    offline::finish(state_dir).map_err(|source| io_error(state_dir, source))?;
    failpoint::reach("state.locked");
    let database = state_dir.join(DATABASE_FILE);
    let fresh = check_presence(state_dir, &database, created_before)?;
    create_private_file(&database)?;
    failpoint::reach("state.database-file");
    let sqlite = |source| sqlite_error(state_dir, &database, source);

    let mut connection =
        Connection::open_with_flags(&database, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)
            .map_err(sqlite)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(sqlite)?;
    if connection.is_readonly("main").map_err(sqlite)? {
        return Err(OpenError::ReadOnly { path: database });
    }
    if !fresh {
        check_content(&connection, &database, created_before)?;
    }
    configure(&connection).map_err(sqlite)?;
    failpoint::reach("state.configured");
    migrate(&mut connection, &database).map_err(|source| sqlite_error(state_dir, &database, source))?;
    if !created_before {
        remember_creation(&mut lock).map_err(|source| io_error(&state_dir.join(LOCK_FILE), source))?;
        sync_dir(state_dir)?;
        failpoint::reach("state.remembered");
    }
    Ok(Opened { connection, _lock: lock })
}

/// Whether the file system takes no writes any more, as after an error of the disk. It is asked for a file without a name,
/// which leaves nothing behind: what the mount says of itself may be older than the error.
pub(crate) fn is_read_only(state_dir: &Path) -> bool {
    use rustix::fs::{CWD, Mode, OFlags, openat};
    let asked = openat(CWD, state_dir, OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR);
    asked.is_err_and(|error| error == rustix::io::Errno::ROFS)
}

/// Makes the directory where needed, and 0700 in any case, whatever the umask.
pub(super) fn make_private(state_dir: &Path) -> Result<(), OpenError> {
    let io = |source| io_error(state_dir, source);
    DirBuilder::new().recursive(true).mode(0o700).create(state_dir).map_err(io)?;
    let mode = fs::metadata(state_dir).map_err(io)?.permissions().mode();
    if mode & 0o777 != 0o700 {
        fs::set_permissions(state_dir, Permissions::from_mode(0o700)).map_err(io)?;
    }
    Ok(())
}

/// Takes the lock, and tells whether a database was made here before.
pub(super) fn take_lock(state_dir: &Path) -> Result<(File, bool), OpenError> {
    let path = state_dir.join(LOCK_FILE);
    let io = |source| io_error(&path, source);
    // Not where a symbolic link leads: the directory may be another user's.
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let mut file = options.open(&path).map_err(io)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Err(OpenError::Locked { state_dir: state_dir.to_owned() }),
        Err(errno) => return Err(io(errno.into())),
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(io)?;
    Ok((file, !text.is_empty()))
}

/// Whether the database is to be made now; an error where it ought to be here.
fn check_presence(state_dir: &Path, database: &Path, created_before: bool) -> Result<bool, OpenError> {
    let size = match fs::metadata(database) {
        Ok(metadata) => Some(metadata.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(source) => return Err(io_error(database, source)),
    };
    let witness = if created_before {
        Some(state_dir.join(LOCK_FILE))
    } else {
        WITNESSES.iter().map(|name| state_dir.join(name)).find(|path| path.exists())
    };
    match (size, witness) {
        // An empty file without witness: the very first start was interrupted before anything was written.
        (None | Some(0), None) => Ok(true),
        (None, Some(witness)) => Err(OpenError::Missing { database: database.to_owned(), witness }),
        (Some(0), Some(_)) => Err(damaged(database, "the file is empty")),
        (Some(_), _) => {
            let mut header = [0u8; 16];
            File::open(database)
                .and_then(|mut file| file.read_exact(&mut header))
                .map_err(|source| damaged(database, format!("its header cannot be read: {source}")))?;
            if &header == SQLITE_MAGIC { Ok(false) } else { Err(damaged(database, "it is not a database")) }
        }
    }
}

/// Makes the database file if it is not there, and 0600; SQLite gives its other files the same rights.
fn create_private_file(database: &Path) -> Result<(), OpenError> {
    let io = |source| io_error(database, source);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(database)
        .map_err(io)?;
    file.set_permissions(Permissions::from_mode(0o600)).map_err(io)?;
    for name in [LOCK_FILE, "matterbind.db-wal", "matterbind.db-shm"] {
        let path = database.with_file_name(name);
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&path);
        match opened.and_then(|file| file.set_permissions(Permissions::from_mode(0o600))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error(&path, error)),
            _ => {}
        }
    }
    Ok(())
}

/// Is this ours, is it whole, and can this binary read it?
fn check_content(connection: &Connection, database: &Path, created_before: bool) -> Result<(), OpenError> {
    let sqlite = |source| sqlite_error(database.parent().unwrap_or(database), database, source);
    let number = |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0));
    let application = number("application_id").map_err(sqlite)?;
    let version = number("user_version").map_err(sqlite)?;
    // The schema is in the main file before the lock file says so: a zero means that the file was replaced or torn.
    if created_before && version == 0 {
        return Err(damaged(database, "its schema is gone"));
    }
    if application != APPLICATION_ID && (application, version) != (0, 0) {
        return Err(damaged(database, "it belongs to another program"));
    }
    if version > SCHEMA_VERSION {
        let written_by = connection
            .query_row("SELECT value FROM meta WHERE name = 'written_by'", [], |row| row.get(0))
            .unwrap_or_else(|_| "the newer matterbind that wrote it".to_owned());
        return Err(OpenError::NewerVersion { database: database.to_owned(), found: version, written_by });
    }
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(sqlite)?;
    if verdict == "ok" { Ok(()) } else { Err(damaged(database, verdict)) }
}

/// What holds for every connection.
fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // What is deleted is overwritten: a binding code or a token that was used leaves no copy in a free page.
    connection.pragma_update_and_check(None, "secure_delete", true, |_| Ok(()))?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "journal_size_limit", 8 << 20)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}

/// Brings the schema up to [`SCHEMA_VERSION`], each step in its transaction, and moves the result into the main file, so
/// that even a lost write-ahead log cannot make the database look new.
fn migrate(connection: &mut Connection, database: &Path) -> rusqlite::Result<()> {
    let before = connection.pragma_query_value(None, "user_version", |row| row.get::<_, i32>(0))?;
    if before < SCHEMA_VERSION {
        connection.pragma_update(None, "application_id", APPLICATION_ID)?;
        Migrations::from_slice(MIGRATIONS).to_latest(connection).map_err(|error| match error {
            rusqlite_migration::Error::RusqliteError { err, .. } => err,
            other => rusqlite::Error::ToSqlConversionFailure(Box::new(other)),
        })?;
        tracing::info!(
            from = before,
            to = SCHEMA_VERSION,
            "the schema of {} was brought up to date",
            database.display()
        );
    }
    let own = concat!("matterbind ", env!("CARGO_PKG_VERSION"));
    connection.execute(
        "INSERT INTO meta (name, value) VALUES ('written_by', ?1)
         ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE value <> excluded.value",
        [own],
    )?;
    if before < SCHEMA_VERSION {
        failpoint::reach("state.migrated");
        checkpoint(connection)?;
        failpoint::reach("state.checkpointed");
    }
    Ok(())
}

/// Moves everything that is in the write-ahead log into the main file.
pub(super) fn checkpoint(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}

fn remember_creation(lock: &mut File) -> io::Result<()> {
    lock.rewind()?;
    lock.write_all(LOCK_TEXT.as_bytes())?;
    lock.sync_all()
}

fn sync_dir(state_dir: &Path) -> Result<(), OpenError> {
    File::open(state_dir).and_then(|dir| dir.sync_all()).map_err(|source| io_error(state_dir, source))
}

fn damaged(database: &Path, detail: impl Into<String>) -> OpenError {
    OpenError::Damaged { database: database.to_owned(), detail: detail.into() }
}

pub(super) fn io_error(path: &Path, source: io::Error) -> OpenError {
    match source.kind() {
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            OpenError::ReadOnly { path: path.to_owned() }
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            OpenError::Full { state_dir: path.parent().unwrap_or(path).to_owned() }
        }
        _ => OpenError::Io { path: path.to_owned(), source },
    }
}

fn sqlite_error(state_dir: &Path, database: &Path, cause: rusqlite::Error) -> OpenError {
    match sqlite_code(&cause) {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => damaged(database, cause.to_string()),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            OpenError::Locked { state_dir: state_dir.to_owned() }
        }
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => OpenError::ReadOnly { path: database.to_owned() },
        Some(ErrorCode::DiskFull) => OpenError::Full { state_dir: state_dir.to_owned() },
        _ => OpenError::Sqlite { database: database.to_owned(), cause },
    }
}
