//! The steps of a commissioning, in order. Logs, errors, progress and the admin API all print the same words.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One step (interface.md, `commission --json`). The sections are those of the Matter Core specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Understand the setup code (5.1).
    Parse,
    /// Find the commissionable node on the LAN or over Bluetooth (5.4.2).
    Discover,
    /// Prove the passcode (4.14.1).
    Pase,
    /// ArmFailSafe (11.10.7.2).
    ArmFailSafe,
    /// Basic Information and the limits of the device (11.1, 11.10, 9.10); regulatory configuration where needed.
    ReadInfo,
    /// Device attestation (6.2.3).
    Attestation,
    /// CSRRequest, and its signature (11.18.6.5).
    Csr,
    /// AddTrustedRootCertificate (11.18.6.13).
    AddRoot,
    /// AddNOC (11.18.6.8).
    AddNoc,
    /// Bring the node onto its network (11.9); only over Bluetooth.
    Network,
    /// Find the node operationally and establish CASE (4.14.2).
    Operational,
    /// Write the access control list and read it back (9.10.5.3).
    Access,
    /// CommissioningComplete (11.10.7.6).
    Complete,
    /// Write the record and its outbox row in one transaction.
    Record,
}

impl Step {
    /// All steps in their order.
    pub const ALL: [Self; 14] = [
        Self::Parse,
        Self::Discover,
        Self::Pase,
        Self::ArmFailSafe,
        Self::ReadInfo,
        Self::Attestation,
        Self::Csr,
        Self::AddRoot,
        Self::AddNoc,
        Self::Network,
        Self::Operational,
        Self::Access,
        Self::Complete,
        Self::Record,
    ];

    /// The stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Parse => "parse",
            Self::Discover => "discover",
            Self::Pase => "pase",
            Self::ArmFailSafe => "arm-fail-safe",
            Self::ReadInfo => "read-info",
            Self::Attestation => "attestation",
            Self::Csr => "csr",
            Self::AddRoot => "add-root",
            Self::AddNoc => "add-noc",
            Self::Network => "network",
            Self::Operational => "operational",
            Self::Access => "access",
            Self::Complete => "complete",
            Self::Record => "record",
        }
    }

    /// What a person reads on the progress line.
    pub fn label(self) -> &'static str {
        match self {
            Self::Parse => "reading the setup code",
            Self::Discover => "looking for the device",
            Self::Pase => "proving the passcode",
            Self::ArmFailSafe => "arming the fail-safe",
            Self::ReadInfo => "asking what it is",
            Self::Attestation => "checking that it is genuine",
            Self::Csr => "asking for its key",
            Self::AddRoot => "installing our root",
            Self::AddNoc => "installing its certificate",
            Self::Network => "bringing it onto its network",
            Self::Operational => "meeting it on our fabric",
            Self::Access => "setting who may do what",
            Self::Complete => "completing",
            Self::Record => "recording",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
