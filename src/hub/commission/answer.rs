//! One commissioning attempt: request, progress, result.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize, Serializer};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::attestation::finding::Finding;
use crate::attestation::policy::AttestationOverride;
use crate::bind::{BindState, BindStatus};
use crate::commissioning::error::{CommissioningError, Disposition};
use crate::commissioning::path::AcceptedTerms;
use crate::commissioning::step::Step;
use crate::node::{NodeId, NodeRecord};
use crate::onboarding::SetupCode;
use crate::secret::BindingCode;

/// `POST /v1/commission`. The command line writes it, so its two secrets are exposed here, and nowhere else.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CommissionRequest {
    /// `MT:…` or 11 or 21 digits.
    #[serde(serialize_with = "write_setup_code")]
    #[schema(value_type = String)]
    pub setup_code: SetupCode,
    /// Product key in the cloud; else the product profile's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product_key: Option<String>,
    /// Device key in the cloud; else from the product profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_key: Option<String>,
    /// 16 characters `0-9A-F`; else from the product profile.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "write_binding_code")]
    #[schema(value_type = Option<String>)]
    pub binding_code: Option<BindingCode>,
    /// Sent with the bind as `matterInfo.extra`; else the product profile's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra: Option<String>,
    /// Whether the family's list of common devices shows it; else as the product profile says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_common_device: Option<bool>,
    /// What people call it; else made from its product name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Family in the cloud; else the configured one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family_id: Option<String>,
    /// Room in the cloud; else the configured one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room_id: Option<String>,
    /// Where the device is: discovery is skipped. Port 5540 if none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub address: Option<SocketAddr>,
    /// Leave the cloud alone.
    #[serde(default)]
    pub no_bind: bool,
    /// How long the result may wait for the cloud, milliseconds.
    #[serde(default)]
    pub wait_bind_ms: u64,
    /// Which network of the home a device on Bluetooth is brought to; else the default one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// How long a device on Bluetooth that could not join waits for other credentials, milliseconds.
    #[serde(default)]
    pub wait_network_ms: u64,
    /// Which of the device's terms and conditions a person has accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accept_terms: Option<AcceptedTerms>,
    /// Accept whatever attestation finds, for this attempt; goes into the admin log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attestation_override: Option<AttestationOverride>,
}

fn write_setup_code<S: Serializer>(code: &SetupCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(code.expose())
}

/// A binding code on its way to the daemon.
pub(in crate::hub) fn write_binding_code<S: Serializer>(
    code: &Option<BindingCode>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    code.as_ref().map(BindingCode::expose).serialize(serializer)
}

/// A line of progress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum CommissionEvent {
    /// The attempt has an id; it may wait for its turn.
    Accepted {
        /// By which log and events name the attempt.
        attempt_id: Uuid,
    },
    /// The attempt has begun with a step.
    StepStarted {
        /// The step of the attempt.
        step: Step,
    },
    /// The step is done, and the next one follows.
    StepFinished {
        /// The step of the attempt.
        step: Step,
        /// How long it took.
        duration_ms: u64,
    },
    /// Worth knowing, for instance a finding that policy let pass.
    Note {
        /// A line that reads alone.
        message: String,
    },
    /// The device waits until a person has done something; the next event tells that it goes on.
    Waiting {
        /// The stable word of what is in the way, as a failure would have it.
        code: String,
        /// What is in the way.
        message: String,
        /// What to do about it.
        hint: String,
        /// For how long it waits yet.
        left_ms: u64,
    },
    /// The bind stands differently.
    Bind {
        /// How the binding stands in the cloud.
        bind: BindStatus,
    },
}

/// What came of an attempt; the `commission --json` object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum CommissionResult {
    /// The device is on our fabric and recorded.
    Commissioned {
        /// By which log and events name the attempt.
        attempt_id: Uuid,
        /// The node as it was recorded.
        node: Box<NodeRecord>,
        /// How its bind stands now.
        bind: BindStatus,
        /// How long the parts took.
        timings_ms: Timings,
        /// The node that this device was before it was reset; that one has ended.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replaces: Option<NodeId>,
    },
    /// It is not, and was rolled back as far as it could be reached.
    Failed(Failure),
}

/// The failure answer of interface.md.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Failure {
    /// By which log and events name the attempt.
    pub attempt_id: Uuid,
    /// The step that failed.
    pub step: Step,
    /// A stable kebab-case word.
    pub code: String,
    /// Who can do something about it.
    pub disposition: Disposition,
    /// What happened, with values.
    pub message: String,
    /// What to do now.
    pub hint: String,
    /// Attestation findings, where they decided.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// The node that the device is already, with `already-on-this-fabric`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Box<NodeRecord>>,
}

impl Failure {
    /// The failure answer for an error.
    pub fn new(attempt_id: Uuid, error: &CommissioningError) -> Self {
        let findings = match error {
            CommissioningError::AttestationRejected { judgement } => judgement.report.findings.clone(),
            _ => Vec::new(),
        };
        let node = match error {
            CommissioningError::AlreadyOurs { node, .. } => Some(node.clone()),
            _ => None,
        };
        Self {
            node,
            attempt_id,
            step: error.step(),
            code: error.code().to_owned(),
            disposition: error.disposition(),
            message: error.to_string(),
            hint: error.hint(),
            findings,
        }
    }
}

impl CommissionResult {
    /// The bind state of a device that was commissioned.
    pub fn bind_state(&self) -> Option<BindState> {
        match self {
            Self::Commissioned { bind, .. } => Some(bind.state),
            Self::Failed(_) => None,
        }
    }
}

/// Milliseconds by part of the work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Timings {
    /// Until the device was found.
    pub discover: u64,
    /// The handshake with the passcode.
    pub pase: u64,
    /// Evidence and its judgement.
    pub attestation: u64,
    /// CSR, root, NOC.
    pub credentials: u64,
    /// Finding it on our fabric, CASE.
    pub operational: u64,
    /// Onto its network, where it was on Bluetooth.
    pub network: u64,
    /// Writing and reading the access list.
    pub access: u64,
    /// Record and outbox row, in one transaction.
    pub record: u64,
    /// From the request to the record.
    pub total: u64,
    /// From the record to the cloud's acknowledgement.
    pub bind: u64,
}
