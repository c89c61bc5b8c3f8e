//! `doctor`: everything that can be wrong around the hub, looked at and named with what to do about it.
//!
//! Facts are gathered at the edges (`machine` what any process sees of its machine, `live` what the daemon knows, `offline` the same
//! without one), put into one value (`facts`), and judged by pure functions (`judge`). Not here: mending anything; whether the
//! daemon's own parts work from moment to moment (`health`).

use std::future::Future;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::turns::Answers;

pub(crate) mod facts;
mod judge;
mod live;
pub(crate) mod machine;
pub(crate) mod offline;

pub(super) use live::follow;

/// Judges how the hub stands.
pub trait DoctorDoor: Send + Sync + 'static {
    /// Looks at everything now. Takes some seconds: it goes the way to the cloud and listens for its own multicast.
    fn doctor(&self) -> impl Future<Output = Diagnosis> + Send;
}

/// `doctor --json`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Diagnosis {
    /// The worst severity among the findings.
    pub verdict: DoctorSeverity,
    /// When it was made.
    pub at: Timestamp,
    /// Whether a running daemon was asked; else only what can be seen without one was looked at.
    pub daemon: bool,
    /// All findings, the worst first; what is well is among them.
    pub findings: Vec<DoctorFinding>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DoctorFinding {
    /// A stable word, for instance `trust-store-empty`.
    pub id: String,
    /// How bad it is.
    pub severity: DoctorSeverity,
    /// What was seen, and why, as a sentence.
    pub seen: String,
    /// What to do about it; empty where it is well.
    pub hint: String,
}

/// How bad something is, the better first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DoctorSeverity {
    /// It was looked at and is well.
    Ok,
    /// Nothing is wrong; somebody may want to know.
    Note,
    /// It works, and will not for ever or not for everybody.
    Warning,
    /// Something does not work.
    Error,
}

impl DoctorSeverity {
    /// The word in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl Diagnosis {
    /// Judges what was seen.
    pub fn of(facts: &facts::Facts) -> Self {
        Self::new(facts.at, facts.daemon.is_some(), judge::judge(facts))
    }

    fn new(at: Timestamp, daemon: bool, findings: Vec<DoctorFinding>) -> Self {
        let verdict = findings.iter().map(|finding| finding.severity).max().unwrap_or(DoctorSeverity::Ok);
        Self { verdict, at, daemon, findings }
    }

    /// This one, with what else somebody has found; of two findings with one name the other's stays.
    pub fn with(self, other: Self) -> Self {
        let known = |finding: &DoctorFinding| other.findings.iter().any(|found| found.id == finding.id);
        let mut findings: Vec<_> = self.findings.into_iter().filter(|finding| !known(finding)).collect();
        findings.extend(other.findings);
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        Self::new(self.at, self.daemon || other.daemon, findings)
    }

    /// This one, and one thing more.
    pub fn and(self, finding: DoctorFinding) -> Self {
        let more = Self::new(self.at, self.daemon, vec![finding]);
        self.with(more)
    }

    /// What somebody should do something about.
    pub fn troubles(&self) -> impl Iterator<Item = &DoctorFinding> {
        self.findings.iter().filter(|finding| finding.severity >= DoctorSeverity::Warning)
    }
}

/// What was last found, for `status`, which answers at once.
#[derive(Default)]
pub(crate) struct Doctor {
    last: Mutex<Option<Diagnosis>>,
    answers: Answers<(), Diagnosis>,
}

impl Doctor {
    /// What of the last diagnosis somebody should do something about, the worst first.
    pub(super) fn troubles(&self) -> Vec<DoctorFinding> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.iter().flat_map(Diagnosis::troubles).cloned().collect()
    }

    fn keep(&self, diagnosis: Diagnosis) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(diagnosis);
    }
}
