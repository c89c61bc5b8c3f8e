//! Why an attempt failed: step, stable code, disposition, cause with values, and what to do.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::attestation::finding::{Code, Finding};
use crate::attestation::policy::Judgement;
use crate::commissioning::identity::InvalidIdentity;
use crate::commissioning::network::NetworkError;
use crate::commissioning::path::NO_FAIL_SAFE;
use crate::commissioning::ports::{DiscoverError, LinkError};
use crate::commissioning::step::Step;
use crate::durable::StoreError;
use crate::fabric::AclDoesNotFit;
use crate::node::NodeRecord;
use crate::onboarding::PayloadError;

/// Who can do something about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Disposition {
    /// The same again may succeed.
    Retry,
    /// A person must do something first.
    UserAction,
    /// The hub or the device is wrong.
    Bug,
}

impl From<&StoreError> for Disposition {
    fn from(error: &StoreError) -> Self {
        match error {
            StoreError::DiskFull | StoreError::ReadOnly | StoreError::Busy | StoreError::Missing(_) => Self::UserAction,
            StoreError::Closed => Self::Retry,
            StoreError::Corrupt(_) | StoreError::Failed(_) => Self::Bug,
        }
    }
}

/// A failed attempt. Wherever it happened, the device has been rolled back as far as it could be reached.
#[derive(Debug, thiserror::Error)]
pub enum CommissioningError {
    /// The code was refused; nothing was sent.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// What was given for the cloud is invalid; nothing was sent.
    #[error(transparent)]
    Identity(#[from] InvalidIdentity),
    /// The device was not found, or more than one fits.
    #[error(transparent)]
    Discover(#[from] DiscoverError),
    /// A command to the device failed.
    #[error("{cause}")]
    Link {
        /// During which step.
        step: Step,
        /// What the link says.
        cause: LinkError,
    },
    /// A step did not end in its time.
    #[error("the step took longer than {} ms", after.as_millis())]
    StepTimeout {
        /// The one that was under way.
        step: Step,
        /// What the step was given.
        after: Duration,
    },
    /// The attempt did not end in its time.
    #[error("the attempt took longer than {} ms", after.as_millis())]
    Deadline {
        /// Where it was then.
        step: Step,
        /// `commissioning.deadline`.
        after: Duration,
    },
    /// The fail-safe ran out on the device.
    #[error("the device's fail-safe of {} s ran out", after.as_secs())]
    FailSafeExpired {
        /// Where it was then.
        step: Step,
        /// `commissioning.fail_safe`.
        after: Duration,
    },
    /// Evidence was judged and not accepted.
    #[error("the device was not accepted: {}", judgement.verdict.reasons())]
    AttestationRejected {
        /// What was found, and what decided.
        judgement: Box<Judgement>,
    },
    /// The CSR is not what was asked for.
    #[error("the device's certificate request was refused: {reason}")]
    CsrRejected {
        /// Which check failed.
        reason: String,
    },
    /// The device is a node of ours.
    #[error("this is node {} ({})", node.node_id, node.name)]
    AlreadyOurs {
        /// When that turned out.
        step: Step,
        /// The record of ours that names this device.
        node: Box<NodeRecord>,
    },
    /// Another attempt of ours has proved the same passcode to it.
    #[error("attempt {attempt} is bringing this device in")]
    BeingCommissioned {
        /// The one that began before.
        attempt: Uuid,
    },
    /// The client left before it was the attempt's turn.
    #[error("nobody waited for this attempt any more when it was its turn")]
    Abandoned,
    /// The configured grants do not fit.
    #[error(transparent)]
    Access(#[from] AclDoesNotFit),
    /// The list read back is not the list written.
    #[error("the access control list read back differs from the one written: {difference}")]
    AccessMismatch {
        /// What was written, and what stands there.
        difference: String,
    },
    /// The device's fabric table is full.
    #[error("the device holds {commissioned} of {supported} fabrics already")]
    FabricTableFull {
        /// CommissionedFabrics.
        commissioned: u8,
        /// SupportedFabrics.
        supported: u8,
    },
    /// The device must be told that a person has accepted its terms.
    #[error("the device requires that its terms and conditions are accepted, version {version} or later{}", accepted.map(|accepted| format!("; version {accepted} was accepted")).unwrap_or_default())]
    TermsRequired {
        /// TCMinRequiredVersion.
        version: u16,
        /// What the command says was accepted.
        accepted: Option<u16>,
    },
    /// The device did not get onto its network.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The cloud said beforehand that the device cannot be bound.
    #[error("the cloud would refuse this device: {reason}")]
    CloudRefuses {
        /// The cloud's answer, in a sentence.
        reason: String,
    },
    /// The state directory cannot be written.
    #[error("{cause}")]
    Store {
        /// During which step.
        step: Step,
        /// What the store says.
        cause: StoreError,
    },
    /// The daemon is stopping.
    #[error("the daemon is stopping")]
    Stopped {
        /// Where the attempt was then.
        step: Step,
    },
}

impl CommissioningError {
    /// The step during which it happened.
    pub fn step(&self) -> Step {
        match self {
            Self::Payload(_) | Self::Identity(_) => Step::Parse,
            Self::Discover(_) => Step::Discover,
            Self::Link { step, .. }
            | Self::StepTimeout { step, .. }
            | Self::Deadline { step, .. }
            | Self::FailSafeExpired { step, .. }
            | Self::Store { step, .. }
            | Self::AlreadyOurs { step, .. }
            | Self::Stopped { step } => *step,
            Self::BeingCommissioned { .. } | Self::Abandoned => Step::Discover,
            Self::AttestationRejected { .. } => Step::Attestation,
            Self::CsrRejected { .. } => Step::Csr,
            Self::Access(_) | Self::AccessMismatch { .. } => Step::Access,
            Self::FabricTableFull { .. } | Self::CloudRefuses { .. } | Self::TermsRequired { .. } => Step::ReadInfo,
            Self::Network(NetworkError::NotShown { .. }) => Step::Operational,
            Self::Network(_) => Step::Network,
        }
    }

    /// The stable kebab-case word of interface.md.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Payload(error) => error.code(),
            Self::Identity(error) => error.code(),
            Self::Discover(error) => match error {
                DiscoverError::NotFound { .. } => "device-not-found",
                DiscoverError::Ambiguous { .. } => "ambiguous-device",
                DiscoverError::NotInCommissioningMode { .. } => "window-closed",
                DiscoverError::Unavailable(_) => "discovery-unavailable",
                DiscoverError::NoBluetooth(_) => "bluetooth-unavailable",
            },
            Self::Link { step, cause } => link_code(*step, cause),
            Self::StepTimeout { step: Step::Record, .. } => "store-failed",
            Self::StepTimeout { .. } => "device-unreachable",
            Self::Deadline { .. } => "deadline-exceeded",
            Self::FailSafeExpired { .. } => "fail-safe-expired",
            Self::AttestationRejected { .. } => "attestation-rejected",
            Self::CsrRejected { .. } => "csr-rejected",
            Self::AlreadyOurs { .. } => "already-on-this-fabric",
            Self::BeingCommissioned { .. } => "already-being-commissioned",
            Self::Abandoned => "abandoned",
            Self::Access(_) => "access-does-not-fit",
            Self::AccessMismatch { .. } => "access-mismatch",
            Self::FabricTableFull { .. } => "fabric-table-full",
            Self::TermsRequired { .. } => "terms-required",
            Self::Network(error) => error.code(),
            Self::CloudRefuses { .. } => "cloud-would-refuse",
            Self::Store { cause, .. } => cause.code(),
            Self::Stopped { .. } => "daemon-stopping",
        }
    }

    /// Who can do something about it.
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Store { cause, .. } | Self::Network(NetworkError::Store(cause)) => cause.into(),
            Self::Payload(_)
            | Self::Identity(_)
            | Self::Access(_)
            | Self::AttestationRejected { .. }
            | Self::FabricTableFull { .. }
            | Self::AlreadyOurs { .. }
            | Self::CloudRefuses { .. }
            | Self::TermsRequired { .. }
            | Self::Network(_)
            | Self::Discover(_) => Disposition::UserAction,
            Self::Link { step, cause } => match cause {
                LinkError::WrongPasscode | LinkError::WindowClosed => Disposition::UserAction,
                LinkError::Malformed { .. } | LinkError::Stack { .. } => Disposition::Bug,
                _ if link_code(*step, cause) == "fabric-table-full" => Disposition::UserAction,
                _ => Disposition::Retry,
            },
            Self::StepTimeout { .. }
            | Self::Deadline { .. }
            | Self::FailSafeExpired { .. }
            | Self::BeingCommissioned { .. }
            | Self::Abandoned
            | Self::Stopped { .. } => Disposition::Retry,
            Self::CsrRejected { .. } | Self::AccessMismatch { .. } => Disposition::Bug,
        }
    }

    /// What to do now, for somebody at 3 a.m.
    pub fn hint(&self) -> String {
        if let Some(hint) = self.clock_hint() {
            return hint;
        }
        match self {
            Self::Network(error) => return error.hint().to_owned(),
            Self::Discover(DiscoverError::NoBluetooth(why)) => return why.hint().to_owned(),
            _ => {}
        }
        match self.code() {
            "device-not-found" => {
                "power the device, put it into pairing mode, and check that it is on this network; \
                 `matterbind discover` lists what can be seen"
            }
            "ambiguous-device" => {
                "each of these devices has refused passcodes of this hub as often as it may have to. Take those that are not meant out of \
                 pairing mode, or open the window of the one that is meant again, then try again"
            }
            "window-closed" => "put the device into pairing mode again, or share it from the administrator that has it",
            "wrong-passcode" => {
                "every device that fits the code has another passcode: check that the code is the one on this device, and that the \
                 device is in pairing mode. Each wrong try counts, after twenty the device locks"
            }
            "device-unreachable" => "check that the device has power and is near enough, then try again",
            "bluetooth-link-lost" => {
                "the device has gone out of reach, lost its power, or the adapter was pulled: bring hub and device nearer to each other \
                 and try again. The device rolls back by itself"
            }
            "terms-required" => {
                "read the vendor's terms with whoever owns the device, then say which were accepted: \
                 `matterbind commission --accept-terms VERSION:BITS`"
            }
            "device-busy" => "another commissioner is at work on the device; wait a minute, then try again",
            "handshake-refused" => "packets may get lost on the way; try again nearer to the device, then reset it",
            "attestation-rejected" => {
                "the device cannot prove that it is genuine. If it is a development device, allow it under \
                 attestation.allow_test; if it is new, run `matterbind attestation update-paa`"
            }
            "fabric-table-full" => "remove the device from another controller first",
            "already-on-this-fabric" => {
                "nothing is to be done: it is commissioned already. To pair it afresh, `matterbind node remove` it or reset it first"
            }
            "already-being-commissioned" => "wait for that attempt; `matterbind logs --attempt ID` shows how it goes",
            "abandoned" => "nothing was sent to the device; ask again",
            "access-does-not-fit" => "configure fewer grants under [access], or merge tags",
            "fail-safe-expired" | "deadline-exceeded" => "the device has rolled back; try again nearer to it",
            "daemon-stopping" => "the device has rolled back; try again when the daemon runs",
            "csr-rejected" | "access-mismatch" => "reset the device and try again; if it comes back, report it",
            "discovery-unavailable" => "check that an interface is up and multicast-capable, then restart the daemon",
            "cloud-would-refuse" => "resolve it in the cloud, or commission with --no-bind",
            "invalid-device-key" => "check the key in the cloud's console; nothing was sent",
            "invalid-binding-code" => "check the code that the device or its label shows; nothing was sent",
            "reserved-passcode" | "passcode-out-of-range" => "this code cannot be a device's: check what was scanned",
            "malformed-setup-code" | "wrong-code-length" | "wrong-check-digit" | "unknown-code-version" => {
                "check the code on the device or its box; nothing was sent"
            }
            "several-payloads" => "`matterbind commission` takes such a code and brings in each device in turn",
            _ => match self {
                Self::Store { cause, .. } => cause.hint(),
                _ => "try again; `matterbind logs` has the details",
            },
        }
        .to_owned()
    }
}

impl CommissioningError {
    /// Certificates that do not fit the time: the hub's clock is the first to look at.
    fn clock_hint(&self) -> Option<String> {
        let Self::AttestationRejected { judgement } = self else { return None };
        let of_time = |finding: &&Finding| matches!(finding.code, Code::DacNotYetValid | Code::DacExpired);
        let finding = judgement.report.findings.iter().find(of_time)?;
        let value = |name: &str| finding.values.get(name).map_or("an unknown time", String::as_str);
        let (says, valid) = match finding.code {
            Code::DacExpired => (value("at"), format!("was valid until {}", value("not_after"))),
            _ => (value("at"), format!("is valid from {} on", value("not_before"))),
        };
        Some(format!(
            "check the hub's clock first: it says {says}, and the device's certificate {valid}; set it (NTP) and try again. If the \
             clock is right, the certificate is not"
        ))
    }
}

/// NodeOperationalCertStatusEnum (11.18.4.3).
const TABLE_FULL: u8 = 5;
const FABRIC_CONFLICT: u8 = 9;
/// IM statuses (8.10.1).
const CONSTRAINT_ERROR: u16 = 0x87;
const RESOURCE_EXHAUSTED: u16 = 0x89;
const FAILSAFE_REQUIRED: u16 = 0xCA;

fn link_code(step: Step, error: &LinkError) -> &'static str {
    match error {
        LinkError::WrongPasscode => "wrong-passcode",
        LinkError::WindowClosed => "window-closed",
        LinkError::Busy => "device-busy",
        LinkError::Unreachable { .. } | LinkError::SessionLost => "device-unreachable",
        LinkError::Asleep { .. } => "device-asleep",
        LinkError::BluetoothLost => "bluetooth-link-lost",
        LinkError::Networking { .. } => "network-refused",
        LinkError::NoSharedTrustRoots { .. } | LinkError::NotThatNode { .. } => "case-refused",
        LinkError::HandshakeRefused { .. } => "handshake-refused",
        LinkError::NocStatus { code: TABLE_FULL, .. } => "fabric-table-full",
        LinkError::NocStatus { code: FABRIC_CONFLICT, .. } => "already-on-this-fabric",
        LinkError::NocStatus { .. } => "certificate-refused",
        // matter.js refuses the root of one fabric too many with ConstraintError, others with ResourceExhausted.
        LinkError::Status { status: CONSTRAINT_ERROR | RESOURCE_EXHAUSTED, .. } if step == Step::AddRoot => {
            "fabric-table-full"
        }
        LinkError::Status { status: FAILSAFE_REQUIRED, .. } | LinkError::Commissioning { code: NO_FAIL_SAFE, .. } => {
            "fail-safe-expired"
        }
        LinkError::Commissioning { code: 4, .. } => "device-busy",
        LinkError::Status { .. } | LinkError::Commissioning { .. } => "device-error",
        LinkError::Malformed { .. } => "malformed-answer",
        LinkError::Stack { .. } => "stack-failed",
    }
}
