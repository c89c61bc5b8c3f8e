//! What can go wrong when a fact is made durable. The one error that every store port shares; see `store` for SQLite.

use zeroize::Zeroizing;

/// A read or write of the durable state failed; the fact is not recorded.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// No space left: nothing was written.
    #[error("the disk that holds the state directory is full")]
    DiskFull,
    /// The file system or database cannot be written.
    #[error("the state directory is read-only")]
    ReadOnly,
    /// Another process holds the database.
    #[error("the database is held by another process")]
    Busy,
    /// The database cannot be read as what it should be.
    #[error("the database is damaged: {0}")]
    Corrupt(String),
    /// A row that must exist does not, for instance a node that was removed meanwhile.
    #[error("{0} is not in the store")]
    Missing(String),
    /// The store has stopped.
    #[error("the store has been closed")]
    Closed,
    /// Anything else SQLite says.
    #[error("the store failed: {0}")]
    Failed(String),
}

impl StoreError {
    /// The stable word, whatever the store was asked for.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::DiskFull => "disk-full",
            Self::ReadOnly => "state-read-only",
            Self::Missing(_) => "not-found",
            Self::Closed => "daemon-stopping",
            Self::Busy | Self::Corrupt(_) | Self::Failed(_) => "store-failed",
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::DiskFull => "free space on the disk that holds state_dir, then try again",
            Self::ReadOnly => "check the mount and the owner of state_dir",
            Self::Busy => "only one matterbind daemon may use a state directory: stop the other",
            Self::Corrupt(_) => "restore state_dir from a backup; the daemon will not start from an empty one",
            Self::Missing(_) => "run `matterbind nodes` to see what is recorded",
            Self::Closed => "the daemon is stopping; start it again",
            Self::Failed(_) => "see `matterbind logs`; if it comes back, report it",
        }
    }
}

/// Hides bytes at rest.
pub trait Seal: Send + Sync + 'static {
    /// The bytes as only [`Self::open`] reads them.
    ///
    /// # Errors
    /// The sealing library fails.
    fn seal(&self, plain: &[u8]) -> Result<Vec<u8>, StoreError>;
    /// What was sealed; `None` where it was not by this seal.
    fn open(&self, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>>;
}
