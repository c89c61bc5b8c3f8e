//! Exit codes (interface.md) and the one place that maps results and failures to them.

use std::io;
use std::path::PathBuf;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::admin::wire::{CommissionResult, Failure, Refusal};
use crate::bind::BindState;
use crate::commissioning::error::Disposition;
use crate::commissioning::step::Step;
use crate::config::load::ConfigMistakes;
use crate::plain;

/// What the process ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ExitCode {
    Done = 0,
    /// Something is wrong with the hub or with matterbind.
    Internal = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    /// Refused by policy: attestation, or for ever by the cloud.
    Refused = 3,
    /// The device: not found, wrong passcode, unreachable, an error of its own.
    Device = 4,
    /// The daemon cannot be reached.
    Unreachable = 5,
    /// Done locally, the cloud is still to come.
    Pending = 6,
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

impl ExitCode {
    /// For a failure, by its stable word first, then by the step, then by who can do something about it.
    pub fn of_failure(step: Option<Step>, code: &str, disposition: Disposition) -> Self {
        match code {
            "attestation-rejected" | "cloud-would-refuse" | "forbidden" | "local-only" => return Self::Refused,
            "daemon-unreachable" | "daemon-stopping" | "not-ready" | "too-many-attempts" => return Self::Unreachable,
            "bad-request"
            | "access-does-not-fit"
            | "unknown-node"
            | "unknown-controller"
            | "unknown-tag"
            | "admin-tag"
            | "last-admin-holder"
            | "too-many-tags"
            | "name-in-use"
            | "key-in-use"
            | "controller-leaving"
            | "enrolment-off"
            | "csr-too-long"
            | "csr-malformed"
            | "csr-wrong-curve"
            | "csr-wrong-algorithm"
            | "csr-wrong-signature"
            | "not-being-removed"
            | "being-removed"
            | "already-recorded"
            | "no-cloud-identity"
            | "no-binding-code"
            | "no-discriminator"
            | "cloud-not-configured"
            | "ambiguous-node"
            | "unknown-outbox-entry"
            | "unknown-network"
            | "network-secret-unreadable"
            | "not-the-backup"
            | "invalid-ssid"
            | "invalid-password"
            | "invalid-dataset"
            | "invalid-name"
            | "not-found"
            | "not-a-backup"
            | "wrong-passphrase"
            | "backup-damaged"
            | "backup-of-another-version"
            | "backup-of-another-fabric"
            | "state-exists"
            | "daemon-running"
            | "root-key-not-exported"
            | "root-key-offline"
            | "not-a-root-key"
            | "root-key-of-another-fabric"
            | "file-exists"
            | "dcl-unavailable"
            | "no-family"
            | "body-too-large" => return Self::Usage,
            "disk-full" | "state-read-only" | "store-failed" | "stack-failed" | "discovery-unavailable" => {
                return Self::Internal;
            }
            "bluetooth-unavailable"
            | "device-not-found"
            | "device-unreachable"
            | "device-asleep"
            | "wrong-passcode"
            | "already-on-this-fabric"
            | "case-refused"
            | "handshake-refused"
            | "device-busy"
            | "device-error"
            | "window-open"
            | "removal-too-late" => {
                return Self::Device;
            }
            _ => {}
        }
        match (step, disposition) {
            (Some(Step::Parse), _) => Self::Usage,
            (Some(Step::Record), _) => Self::Internal,
            (Some(_), _) => Self::Device,
            (None, _) => Self::Internal,
        }
    }

    /// For an error of the admin API.
    pub fn of_api(error: &Refusal) -> Self {
        Self::of_failure(error.step, &error.code, error.disposition)
    }

    /// For a device that is commissioned.
    pub fn of_bind(state: BindState) -> Self {
        match state {
            BindState::Bound | BindState::NotEligible | BindState::Disabled => Self::Done,
            BindState::Pending => Self::Pending,
            BindState::Rejected => Self::Refused,
        }
    }

    pub fn of_result(result: &CommissionResult) -> Self {
        match result {
            CommissionResult::Commissioned { bind, .. } => Self::of_bind(bind.state),
            CommissionResult::Failed(Failure { step, code, disposition, .. }) => {
                Self::of_failure(Some(*step), code, *disposition)
            }
        }
    }

    /// The worst of many: a fault of ours, then whatever stopped a device, then what goes on by itself.
    pub fn worst(codes: impl IntoIterator<Item = Self>) -> Self {
        const BY_BADNESS: [ExitCode; 7] = [
            ExitCode::Internal,
            ExitCode::Unreachable,
            ExitCode::Refused,
            ExitCode::Device,
            ExitCode::Usage,
            ExitCode::Pending,
            ExitCode::Done,
        ];
        let seen: Vec<Self> = codes.into_iter().collect();
        BY_BADNESS.into_iter().find(|code| seen.contains(code)).unwrap_or(Self::Done)
    }
}

/// How far an attempt was when its client last heard of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reached {
    /// By which log and events name it.
    pub attempt: Option<Uuid>,
    /// The step that had begun.
    pub step: Option<Step>,
}

/// Why a command ended without its result.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The command line makes no sense in a way that clap cannot see.
    #[error("{0}")]
    Usage(String),
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigMistakes),
    /// Nobody listens on the socket, or we may not connect.
    #[error("the daemon cannot be reached at {}: {cause}", socket.display())]
    Unreachable {
        /// Where it was looked for.
        socket: PathBuf,
        /// What the system says.
        cause: String,
        /// Whether the socket is there and we may not use it.
        denied: bool,
    },
    /// The daemon refused or failed.
    #[error(transparent)]
    Api(#[from] Refusal),
    /// The daemon was there and has gone in the middle of an answer, or it says nothing.
    #[error("the daemon's answer {what}")]
    Gone {
        /// What became of the answer.
        what: String,
        /// Whether the daemon may still be there.
        late: bool,
    },
    /// This client leaves, or was left, while an attempt was under way.
    #[error("{message}")]
    Left {
        /// `interrupted` or `daemon-gone`.
        code: &'static str,
        /// What happened, and what goes on.
        message: String,
        hint: String,
        /// What a script needs to look for the rest.
        reached: Reached,
    },
    /// The daemon's answer makes no sense.
    #[error("the daemon's answer {0}")]
    Answer(String),
    /// A file that a person named cannot be read or written.
    #[error("{what}")]
    File {
        /// What was read or written.
        what: String,
        /// What the system says.
        source: io::Error,
    },
    /// stdout, stdin or a file of ours.
    #[error("{what}")]
    Io {
        /// What was read or written.
        what: String,
        /// What the system says.
        source: io::Error,
    },
    /// Left out of this binary.
    #[error("`matterbind {0}` is not available in this build")]
    NotInThisBuild(&'static str),
    /// Whatever else a command of the daemon's side says.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

impl CliError {
    /// Somebody pressed Ctrl-C.
    pub fn interrupted(reached: Reached) -> Self {
        let (message, hint) = match reached.attempt {
            Some(attempt) => (
                format!("interrupted; attempt {attempt} goes on in the daemon, if its turn had come"),
                format!("`matterbind logs -f --attempt {attempt}` shows how it goes on"),
            ),
            None => (
                "interrupted before the daemon had taken the request".to_owned(),
                "`matterbind nodes` shows what there is".to_owned(),
            ),
        };
        Self::Left { code: "interrupted", message, hint, reached }
    }

    /// The same error, said of an attempt: what becomes of it, and how to look.
    pub fn during(self, reached: Reached) -> Self {
        match (self, reached.attempt) {
            (gone @ Self::Gone { .. }, Some(attempt)) => Self::Left {
                code: "daemon-gone",
                message: format!("{gone}, and attempt {attempt} was under way"),
                hint: format!(
                    "where the daemon still runs, the attempt goes on; where it has ended, the device was recorded or takes itself \
                     back: `matterbind logs --attempt {attempt}` shows it once the daemon runs"
                ),
                reached,
            },
            (error, _) => error,
        }
    }

    /// The failure answer of `commission`: as much of the attempt as is known.
    pub fn outcome(&self) -> Value {
        let reached = match self {
            Self::Left { reached, .. } => *reached,
            Self::Api(Refusal { step, .. }) => Reached { attempt: None, step: *step },
            _ => Reached::default(),
        };
        let mut document = serde_json::to_value(self.document()).unwrap_or_default();
        document["outcome"] = "failed".into();
        document["attempt_id"] = json!(reached.attempt);
        document["step"] = json!(reached.step);
        document
    }

    /// Whether it is of no use to ask this daemon for anything else.
    pub fn ends_all(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Gone { .. } | Self::Left { .. })
    }

    /// With what the process ends.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) | Self::Config(_) | Self::NotInThisBuild(_) => ExitCode::Usage,
            Self::Unreachable { .. } | Self::Gone { .. } | Self::Left { .. } => ExitCode::Unreachable,
            Self::Api(error) => ExitCode::of_api(error),
            Self::File { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ExitCode::Internal,
                _ => ExitCode::Usage,
            },
            Self::Answer(_) | Self::Io { .. } | Self::Other(_) => ExitCode::Internal,
        }
    }

    /// What to do now; empty where nothing is known.
    pub fn hint(&self) -> &str {
        match self {
            Self::Unreachable { denied: true, .. } => {
                "run it as root, or join the group: `sudo usermod -aG matterbind $USER`, then log in again"
            }
            Self::Unreachable { .. } => {
                "`systemctl status matterbind` shows whether it runs; --socket names another place"
            }
            // What the daemon tells programs of its paths and fields is of no use to who typed a command.
            Self::Api(error) if error.hint.contains("GET /v1/openapi.json") => "`--help` says what the command takes",
            Self::Api(error) => &error.hint,
            Self::Left { hint, .. } => hint,
            Self::Gone { late: true, .. } => {
                "it has too much to do, or stands still: `matterbind status` answers at once if not"
            }
            Self::Gone { late: false, .. } => {
                "the daemon ended meanwhile: `systemctl status matterbind` shows how, `journalctl -u matterbind` why"
            }
            Self::Answer(_) => "client and daemon may be of different versions: `matterbind status` shows the daemon's",
            _ => "",
        }
    }

    /// As the error document of `--json`.
    pub fn document(&self) -> Refusal {
        let (code, disposition) = match self {
            Self::Api(error) => return error.clone(),
            Self::Unreachable { .. } => ("daemon-unreachable", Disposition::UserAction),
            Self::Gone { .. } => ("daemon-gone", Disposition::Retry),
            Self::Left { code, .. } => (*code, Disposition::Retry),
            Self::Usage(_) => ("usage", Disposition::UserAction),
            Self::Config(_) => ("configuration", Disposition::UserAction),
            Self::NotInThisBuild(_) => ("not-in-this-build", Disposition::UserAction),
            Self::Io { .. } | Self::File { .. } => ("io", Disposition::UserAction),
            Self::Answer(_) | Self::Other(_) => ("internal", Disposition::Bug),
        };
        Refusal::new(code, disposition, plain::with_causes(self), self.hint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(Some(Step::Parse), "wrong-check-digit", Disposition::UserAction, ExitCode::Usage)]
    #[case(Some(Step::Parse), "reserved-passcode", Disposition::UserAction, ExitCode::Usage)]
    #[case(Some(Step::Discover), "device-not-found", Disposition::UserAction, ExitCode::Device)]
    #[case(Some(Step::Discover), "ambiguous-device", Disposition::UserAction, ExitCode::Device)]
    #[case(Some(Step::Discover), "discovery-unavailable", Disposition::UserAction, ExitCode::Internal)]
    #[case(Some(Step::Discover), "window-closed", Disposition::UserAction, ExitCode::Device)]
    #[case(Some(Step::Pase), "wrong-passcode", Disposition::UserAction, ExitCode::Device)]
    #[case(Some(Step::Pase), "device-unreachable", Disposition::Retry, ExitCode::Device)]
    #[case(Some(Step::Pase), "stack-failed", Disposition::Bug, ExitCode::Internal)]
    #[case(Some(Step::ReadInfo), "fabric-table-full", Disposition::UserAction, ExitCode::Device)]
    #[case(Some(Step::ReadInfo), "cloud-would-refuse", Disposition::UserAction, ExitCode::Refused)]
    #[case(Some(Step::Attestation), "attestation-rejected", Disposition::UserAction, ExitCode::Refused)]
    #[case(Some(Step::Csr), "csr-rejected", Disposition::Bug, ExitCode::Device)]
    #[case(Some(Step::Access), "access-does-not-fit", Disposition::UserAction, ExitCode::Usage)]
    #[case(Some(Step::Access), "access-mismatch", Disposition::Bug, ExitCode::Device)]
    #[case(Some(Step::Operational), "fail-safe-expired", Disposition::Retry, ExitCode::Device)]
    #[case(Some(Step::Operational), "deadline-exceeded", Disposition::Retry, ExitCode::Device)]
    #[case(Some(Step::Record), "disk-full", Disposition::UserAction, ExitCode::Internal)]
    #[case(Some(Step::Complete), "daemon-stopping", Disposition::Retry, ExitCode::Unreachable)]
    #[case(None, "unknown-node", Disposition::UserAction, ExitCode::Usage)]
    #[case(None, "bad-request", Disposition::UserAction, ExitCode::Usage)]
    #[case(None, "forbidden", Disposition::UserAction, ExitCode::Refused)]
    #[case(None, "not-ready", Disposition::Retry, ExitCode::Unreachable)]
    #[case(None, "device-unreachable", Disposition::Retry, ExitCode::Device)]
    #[case(None, "handshake-refused", Disposition::Retry, ExitCode::Device)]
    #[case(None, "case-refused", Disposition::Retry, ExitCode::Device)]
    #[case(None, "device-busy", Disposition::Retry, ExitCode::Device)]
    #[case(None, "something-new", Disposition::Bug, ExitCode::Internal)]
    fn failures(
        #[case] step: Option<Step>,
        #[case] code: &str,
        #[case] disposition: Disposition,
        #[case] expected: ExitCode,
    ) {
        assert_eq!(ExitCode::of_failure(step, code, disposition), expected);
    }

    #[rstest]
    #[case(BindState::Bound, 0)]
    #[case(BindState::NotEligible, 0)]
    #[case(BindState::Disabled, 0)]
    #[case(BindState::Rejected, 3)]
    #[case(BindState::Pending, 6)]
    fn binds(#[case] state: BindState, #[case] expected: u8) {
        assert_eq!(ExitCode::of_bind(state) as u8, expected);
    }

    #[test]
    fn the_worst_of_many() {
        use ExitCode::{Device, Done, Pending, Refused};
        assert_eq!(ExitCode::worst([Done, Done]), Done);
        assert_eq!(ExitCode::worst([Done, Pending]), Pending);
        assert_eq!(ExitCode::worst([Done, Pending, Device, Refused]), Refused);
    }
}
