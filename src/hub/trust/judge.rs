//! Verification and policy with the trust store that is loaded now: the driver's [`AttestationJudge`].

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use jiff::Timestamp;

use crate::attestation::policy::{self, AttestationOverride, Judgement};
use crate::attestation::{self, Evidence, TrustStore};
use crate::commissioning::ports::AttestationJudge;
use crate::config::{AttestationConfig, Config};
use crate::hub::clock::Clock;
use crate::hub::status::TrustStatus;
use crate::journal::{Event, EventSink, Level};
use crate::paa;
use crate::plain;
use crate::store::JournalHandle;

pub(crate) struct Judge {
    loaded: Mutex<Loaded>,
    policy: AttestationConfig,
    paa_dirs: Vec<PathBuf>,
    revocation_dir: PathBuf,
    journal: JournalHandle,
    clock: Arc<Clock>,
}

struct Loaded {
    trust: Arc<TrustStore>,
    /// Files that are no PAA and no revocations.
    left_out: usize,
    /// When what is there was last fetched.
    fetched_at: Option<Timestamp>,
    /// When each directory last changed; files are put there by rename, which changes it.
    changed: Vec<Option<SystemTime>>,
}

impl Judge {
    /// Loads the PAA directories and the revocation sets.
    pub(crate) fn load(config: &Config, journal: JournalHandle, clock: Arc<Clock>) -> Self {
        let judge = Self {
            loaded: Mutex::new(Loaded { trust: Arc::default(), left_out: 0, fetched_at: None, changed: Vec::new() }),
            policy: config.attestation.clone(),
            paa_dirs: paa::paa_dirs(&config.attestation, &config.state_dir),
            revocation_dir: paa::revocation_dir(&config.state_dir),
            journal,
            clock,
        };
        if judge.trust().paa_count() == 0 {
            let until = match config.attestation.paa_source.as_str() {
                "" => "`matterbind attestation update-paa`, or attestation.paa_source is set",
                _ => "attestation.paa_source was asked",
            };
            tracing::warn!("no PAA is trusted: every device will be refused until {until}");
        }
        judge
    }

    /// The trust store, loaded again where a directory has changed, for instance by `attestation update-paa`. Each bad file
    /// is named in the admin log, and the rest counts.
    pub(in crate::hub) fn trust(&self) -> Arc<TrustStore> {
        let directories = self.paa_dirs.iter().chain([&self.revocation_dir]);
        let changed: Vec<_> =
            directories.map(|path| std::fs::metadata(path).and_then(|found| found.modified()).ok()).collect();
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded.changed != changed {
            let fresh = paa::load(&self.paa_dirs, Some(&self.revocation_dir));
            for bad in &fresh.quarantined {
                let message = format!("left out of the trust store: {}", plain::with_causes(bad));
                self.journal.record(Event::new(Timestamp::now(), Level::Warn, "paa-quarantined", message));
            }
            let fetched = self.paa_dirs.iter().filter_map(|directory| paa::last_fetched(directory));
            *loaded = Loaded {
                trust: Arc::new(fresh.trust),
                left_out: fresh.quarantined.len(),
                fetched_at: fetched.map(|fetched| fetched.fetched_at).max(),
                changed,
            };
        }
        Arc::clone(&loaded.trust)
    }

    /// How it stands, for `status`.
    pub(in crate::hub) fn status(&self) -> TrustStatus {
        let paas = self.trust().paa_count() as u64;
        let fetched_at = self.loaded.lock().unwrap_or_else(PoisonError::into_inner).fetched_at;
        TrustStatus { paas, fetched_at }
    }

    /// How many files were left out of it when it was loaded.
    pub(in crate::hub) fn left_out(&self) -> usize {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).left_out
    }

    /// Judges what was kept of a device again, as of the time when it joined; a person's override then counts now too.
    /// `None` where nothing was kept that can be read.
    pub(in crate::hub) fn again(&self, kept: &str, trust: &TrustStore) -> Option<Judgement> {
        let kept: Judgement = serde_json::from_str(kept).ok()?;
        Some(self.decide(kept.evidence, trust, kept.verdict.overridden))
    }

    fn decide(&self, evidence: Evidence, trust: &TrustStore, overridden: Option<AttestationOverride>) -> Judgement {
        let report = attestation::verify(&evidence, trust);
        let verdict = policy::decide(&report, &self.policy, overridden);
        Judgement { evidence, report, verdict }
    }
}

impl AttestationJudge for Judge {
    fn judge(&self, evidence: Evidence, overridden: Option<AttestationOverride>) -> Judgement {
        // By a clock that is not set every certificate would be from the future.
        let at = evidence.at.max(self.clock.now());
        self.decide(Evidence { at, ..evidence }, &self.trust(), overridden)
    }
}
