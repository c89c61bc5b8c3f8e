//! One refresh of the trust store, PAAs and revocations together, and the durable record of how earlier ones ended.
//!
//! The try is recorded before anything is asked, its success after everything was stored: a daemon that is killed again and
//! again waits as one that fails does. Not here: when (`schedule`), and whom to tell (the caller).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::schedule::{self, History};
use super::{DclClient, DclError, RevocationUpdate};
use crate::paa::{self, Fetched, StorePaaError};

/// The record's name in the state directory. It is not part of a backup: what was fetched is not either.
pub(crate) const RECORD_FILE: &str = "trust-refresh.json";

/// How earlier tries ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    source: String,
    #[serde(default)]
    attempted_at: Option<Timestamp>,
    #[serde(default)]
    failures: u32,
    #[serde(default)]
    succeeded_at: Option<Timestamp>,
    /// Whether somebody was told that it fails.
    #[serde(default)]
    told: bool,
    /// Revocation lists that could not be used last time: named once, not every day.
    #[serde(default)]
    missed: BTreeMap<String, String>,
}

/// What a refresh got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refreshed {
    /// PAAs, and which were left out.
    pub fetched: Fetched,
    /// Revocation sets, and which could not be had.
    pub revocations: RevocationUpdate,
    /// Certificates that are left out for the first time, and why.
    pub rejected: BTreeMap<String, String>,
    /// Revocation lists that could not be used for the first time, and why.
    pub missed: BTreeMap<String, String>,
}

/// A refresh that failed. What was there stays; nothing is recorded as fetched.
#[derive(Debug, thiserror::Error)]
#[error("the trust store could not be refreshed from {ledger}")]
pub(crate) struct RefreshError {
    pub ledger: String,
    pub source: DclError,
    /// Whether this is the first failure since a success; the others are the same outage.
    pub first: bool,
}

/// The ledger at one address, and where what it says is kept.
#[derive(Debug)]
pub(crate) struct Refresh {
    paa_dir: PathBuf,
    revocation_dir: PathBuf,
    path: PathBuf,
    record: Record,
}

impl Refresh {
    /// Refreshes `paa_dir` and the revocation sets of `state_dir` from the ledger at `source`.
    pub(crate) fn new(source: &str, paa_dir: PathBuf, state_dir: &Path) -> Self {
        let (revocation_dir, path) = (paa::revocation_dir(state_dir), state_dir.join(RECORD_FILE));
        let record = Record { source: source.to_owned(), ..Record::default() };
        Self { paa_dir, revocation_dir, path, record }
    }

    /// How long to wait before the next [`Self::attempt`].
    pub(crate) fn wait(&mut self, every: Duration, now: Timestamp) -> Duration {
        self.reload();
        schedule::wait(&self.history(), every, now)
    }

    /// A success whose certificates are not there any more, for instance after a restore, is none.
    fn history(&self) -> History {
        let Record { attempted_at, failures, succeeded_at, .. } = self.record;
        let succeeded_at = succeeded_at.filter(|_| paa::last_fetched(&self.paa_dir).is_some());
        History { attempted_at, failures, succeeded_at }
    }

    /// Takes over a later record of the same ledger: the command line refreshes too, while the daemon runs.
    fn reload(&mut self) {
        let read = fs::read(&self.path).ok().and_then(|json| serde_json::from_slice::<Record>(&json).ok());
        if let Some(read) = read
            && read.source == self.record.source
            && read.attempted_at > self.record.attempted_at
        {
            self.record = read;
        }
    }

    /// Asks the ledger now.
    ///
    /// # Errors
    /// The ledger could not be asked, or what it said could not be stored.
    pub(crate) async fn attempt(&mut self, now: Timestamp) -> Result<Refreshed, RefreshError> {
        self.reload();
        let before = paa::last_fetched(&self.paa_dir).map(|fetched| fetched.rejected).unwrap_or_default();
        self.record.attempted_at = Some(now);
        self.record.failures = self.record.failures.saturating_add(1);
        match self.fetch(now, &before).await {
            Ok(refreshed) => Ok(refreshed),
            Err(source) => {
                let first = !std::mem::replace(&mut self.record.told, true);
                // Failing already: that this cannot be written either is not what has to be told.
                let _ = self.save().await;
                Err(RefreshError { ledger: self.record.source.clone(), source, first })
            }
        }
    }

    async fn fetch(&mut self, now: Timestamp, before: &BTreeMap<String, String>) -> Result<Refreshed, DclError> {
        self.save().await?;
        let client = DclClient::connect(&self.record.source, now)?;
        let fetched = client.update_paas(&self.paa_dir, now).await?;
        let revocations = client.update_revocations(&self.revocation_dir).await?;
        let rejected = new_ones(&fetched.rejected, before);
        let missed = new_ones(&revocations.rejected, &self.record.missed);
        let Record { source, attempted_at, .. } = self.record.clone();
        let known = revocations.rejected.clone();
        self.record = Record { source, attempted_at, succeeded_at: attempted_at, missed: known, ..Record::default() };
        self.save().await?;
        Ok(Refreshed { fetched, revocations, rejected, missed })
    }

    async fn save(&self) -> Result<(), DclError> {
        let json = serde_json::to_vec_pretty(&self.record).expect("a record of strings and numbers is JSON");
        let path = self.path.clone();
        let write = move || paa::write_atomically(&path, &json).map_err(|source| StorePaaError::Write { path, source });
        Ok(tokio::task::spawn_blocking(write).await.map_err(|_| DclError::Stopped)??)
    }
}

fn new_ones(now: &BTreeMap<String, String>, before: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    now.iter().filter(|(name, _)| !before.contains_key(*name)).map(|(name, why)| (name.clone(), why.clone())).collect()
}
