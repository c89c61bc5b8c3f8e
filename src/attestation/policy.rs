//! From findings to a verdict: the only place that accepts or rejects a device.
//!
//! `require` accepts a production PAA and an official or provisional declaration without an error; test material passes
//! for the products of `allow_test`, never an error. `warn` records whatever was found and goes on. An override is for
//! one attempt, by a person who is named. Nothing configured means `require`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::finding::{Finding, Severity};
use super::{Evidence, Report};
use crate::config::{AttestationConfig, AttestationPolicy};
use crate::node::AttestationSummary;

/// A person lets a device pass whatever is found, for one attempt; it goes to the admin log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AttestationOverride {
    /// The user who asked, filled in by the admin API from the peer's credentials; what a client says is not believed.
    #[serde(default)]
    pub who: String,
    /// In the operator's words.
    pub why: String,
}

/// A device's evidence, what was found in it, and what was decided: all that is kept with a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    /// What the device gave.
    pub evidence: Evidence,
    pub report: Report,
    /// What becomes of the device.
    pub verdict: Decision,
}

impl Judgement {
    /// What the node record keeps.
    pub fn summary(&self) -> AttestationSummary {
        self.verdict.summary(&self.report)
    }

    /// The JSON that the store keeps.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("evidence, report and verdict have only string keys")
    }
}

/// What becomes of the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Policy accepts it; what `allow_test` lets pass by name is in the findings.
    Accepted,
    /// `warn` lets it pass in spite of warnings or errors.
    AcceptedWithWarnings,
    /// Policy would have rejected it; a person decided otherwise.
    AcceptedByOverride,
    /// It gets no credentials.
    Rejected,
}

impl Outcome {
    /// The word in JSON, the database and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::AcceptedWithWarnings => "accepted-with-warnings",
            Self::AcceptedByOverride => "accepted-by-override",
            Self::Rejected => "rejected",
        }
    }
}

/// The decision, and what it rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// What becomes of the device.
    pub outcome: Outcome,
    /// Rejected or overridden: the findings that policy does not accept. Otherwise those that it let pass.
    pub deciding: Vec<Finding>,
    /// Who overrode and why, where that decided.
    #[serde(rename = "override", default, skip_serializing_if = "Option::is_none")]
    pub overridden: Option<AttestationOverride>,
}

impl Decision {
    /// Whether the device gets credentials.
    pub fn is_accepted(&self) -> bool {
        self.outcome != Outcome::Rejected
    }

    /// The deciding findings as one line, for errors and logs.
    pub fn reasons(&self) -> String {
        self.deciding.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    /// What the node record keeps: the verdict and every finding of the report.
    pub fn summary(&self, report: &Report) -> AttestationSummary {
        AttestationSummary { verdict: self.outcome.as_str().to_owned(), findings: report.findings.clone() }
    }
}

/// Decides by configuration, and by a person's word where that would reject.
pub fn decide(report: &Report, config: &AttestationConfig, overridden: Option<AttestationOverride>) -> Decision {
    let (refused, passed): (Vec<_>, Vec<_>) = report
        .findings
        .iter()
        .filter(|finding| finding.severity > Severity::Info)
        .cloned()
        .partition(|finding| is_refused(finding, report, config));
    let lenient = config.policy == AttestationPolicy::Warn && !passed.is_empty();
    let outcome = match (refused.is_empty(), &overridden) {
        (true, _) if lenient => Outcome::AcceptedWithWarnings,
        (true, _) => Outcome::Accepted,
        (false, Some(_)) => Outcome::AcceptedByOverride,
        (false, None) => Outcome::Rejected,
    };
    let overridden = overridden.filter(|_| outcome == Outcome::AcceptedByOverride);
    Decision { outcome, deciding: if refused.is_empty() { passed } else { refused }, overridden }
}

fn is_refused(finding: &Finding, report: &Report, config: &AttestationConfig) -> bool {
    match (config.policy, finding.severity) {
        (AttestationPolicy::Warn, _) => false,
        (AttestationPolicy::Require, Severity::Error) => true,
        (AttestationPolicy::Require, _) => finding.code.is_test_material() && !allows_test(report, config),
    }
}

/// Whether `allow_test` names the product that the device claims to be; a false claim is an error by itself.
fn allows_test(report: &Report, config: &AttestationConfig) -> bool {
    config.allow_test.iter().any(|allowed| {
        allowed.vendor_id == report.vendor_id && allowed.product_id.is_none_or(|id| id == report.product_id)
    })
}
