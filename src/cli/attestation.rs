//! `matterbind attestation …`: works without the daemon.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::daemon::load_config;
use super::exit::{CliError, ExitCode};
use super::{Global, block_on, numbers, output};
use crate::admin::wire::Refusal;
use crate::commissioning::error::Disposition;
use crate::config::load::Secrets;
use crate::dcl::refresh::{Refresh, RefreshError};
use crate::dcl::{self, DclError};
use crate::ownership::{self, ActingFor};
use crate::paa::{self, EvidenceFiles, StorePaaError};
use crate::plain;

/// `attestation`
#[derive(Debug, clap::Args)]
pub(crate) struct AttestationArgs {
    /// What to do
    #[command(subcommand)]
    pub action: AttestationCommand,
}

/// `attestation …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum AttestationCommand {
    /// Verify a device's evidence from DER files. Exit 0: accepted, 3: rejected
    Verify(VerifyArgs),
    /// Refresh the store of trusted PAA certificates
    UpdatePaa(UpdatePaaArgs),
}

/// `attestation verify`
#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    /// Device attestation certificate
    #[arg(long, value_name = "FILE")]
    pub dac: PathBuf,
    /// Product attestation intermediate certificate
    #[arg(long, value_name = "FILE")]
    pub pai: PathBuf,
    /// Certification declaration
    #[arg(long, value_name = "FILE")]
    pub cd: PathBuf,
    /// Vendor id from Basic Information
    #[arg(long, value_name = "N", value_parser = numbers::u16_any_base)]
    pub vendor_id: u16,
    /// Product id from Basic Information
    #[arg(long, value_name = "N", value_parser = numbers::u16_any_base)]
    pub product_id: u16,
    /// Trusted PAA certificates; else the configured directories
    #[arg(long, value_name = "DIR")]
    pub paa_dir: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// `attestation update-paa`
#[derive(Debug, clap::Args)]
pub(crate) struct UpdatePaaArgs {
    /// Where from: a DCL's REST address, or a directory [default: attestation.paa_source, else the DCL's main net]
    #[arg(long, value_name = "URL|DIR")]
    pub from: Option<String>,
    /// The configuration
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

impl AttestationCommand {
    pub(super) fn json(&self) -> bool {
        matches!(self, Self::Verify(VerifyArgs { json: true, .. }) | Self::UpdatePaa(UpdatePaaArgs { json: true, .. }))
    }
}

pub(super) fn run(global: &Global, args: AttestationArgs) -> Result<ExitCode, CliError> {
    match args.action {
        AttestationCommand::Verify(args) => verify(global, &args),
        AttestationCommand::UpdatePaa(args) => update_paa(global, &args),
    }
}

fn verify(global: &Global, args: &VerifyArgs) -> Result<ExitCode, CliError> {
    let (paa_dirs, revocations) = match &args.paa_dir {
        Some(directory) => (vec![directory.clone()], None),
        None => {
            let config = load_config(global, None, None, Secrets::NotUsed)?.config;
            (paa::paa_dirs(&config.attestation, &config.state_dir), Some(paa::revocation_dir(&config.state_dir)))
        }
    };
    let files = EvidenceFiles {
        dac: &args.dac,
        pai: &args.pai,
        certification_declaration: &args.cd,
        vendor_id: args.vendor_id,
        product_id: args.product_id,
    };
    let result = paa::verify_files(&files, &paa_dirs, revocations.as_deref(), Timestamp::now())
        .map_err(|error| CliError::Usage(plain::with_causes(&error)))?;
    if args.json {
        output::json(&result)?;
    } else {
        for finding in &result.findings {
            output::line(&finding.to_string())?;
        }
        for left_out in &result.quarantined {
            output::line(&format!("left out of the trust store: {left_out}"))?;
        }
        output::line(if result.accepted { "accepted" } else { "rejected" })?;
    }
    Ok(if result.accepted { ExitCode::Done } else { ExitCode::Refused })
}

/// The daemon notices changed directories by itself at its next attempt.
fn update_paa(global: &Global, args: &UpdatePaaArgs) -> Result<ExitCode, CliError> {
    let config = load_config(global, args.config.clone(), None, Secrets::NotUsed)?.config;
    let directory = paa::paa_dirs(&config.attestation, &config.state_dir)
        .into_iter()
        .next()
        .ok_or_else(|| CliError::Usage("attestation.paa_dirs names no directory".to_owned()))?;
    let configured = Some(config.attestation.paa_source.as_str()).filter(|source| !source.is_empty());
    let source = args.from.as_deref().or(configured).unwrap_or(dcl::PRODUCTION_URL);
    let now = Timestamp::now();
    // Before anything is made: a place that was mistyped leaves no trace.
    let found = match source.contains("://") {
        true => None,
        false => Some(paa::collect(Path::new(source)).map_err(not_stored)?),
    };
    let making = |source| CliError::Io { what: format!("making {}", config.state_dir.display()), source };
    ownership::make_state_dir(&config.state_dir).map_err(making)?;
    let acting = |directory: &Path| {
        // What lies in the state directory is its owner's doing, also where a link leads.
        let mut above = directory
            .ancestors()
            .skip_while(|above| above.starts_with(&config.state_dir) && *above != config.state_dir);
        let directory = above.find(|above| above.exists()).unwrap_or(directory);
        let failed = |source| CliError::Io { what: format!("acting for the owner of {}", directory.display()), source };
        ActingFor::owner_of(directory).map_err(failed)
    };
    if let Some(found) = found {
        let _acting = acting(&directory)?;
        let fetched = paa::store(&directory, source, found, now).map_err(not_stored)?;
        return told(args.json, &directory, &fetched, None);
    }
    let _acting = acting(&config.state_dir)?;
    let mut refresh = Refresh::new(source, directory.clone(), &config.state_dir);
    block_on(async {
        let refreshed = refresh.attempt(now).await.map_err(not_refreshed)?;
        let revocations = (refreshed.revocations.sets, paa::revocation_dir(&config.state_dir));
        told(args.json, &directory, &refreshed.fetched, Some(revocations))
    })
}

/// A source that holds nothing of use was named by a person; that the store cannot be written is the hub's trouble.
fn not_stored(error: StorePaaError) -> CliError {
    match error {
        StorePaaError::Read { .. } | StorePaaError::Empty { .. } => CliError::Usage(plain::with_causes(&error)),
        StorePaaError::Write { .. } => CliError::Other(anyhow::Error::new(error)),
    }
}

/// A ledger that does not answer, or is none, is no fault of this program.
fn not_refreshed(error: RefreshError) -> CliError {
    match error.source {
        DclError::Url { .. } => CliError::Usage(plain::with_causes(&error)),
        DclError::Store(StorePaaError::Write { .. }) | DclError::Client(_) | DclError::Stopped => {
            CliError::Other(anyhow::Error::new(error))
        }
        DclError::Untrusting(_)
        | DclError::Request { .. }
        | DclError::Status { .. }
        | DclError::TooLarge { .. }
        | DclError::Format { .. }
        | DclError::Endless { .. }
        | DclError::Deadline
        | DclError::Store(_) => {
            let hint = "see whether the address is the ledger's (--from, or attestation.paa_source) and this machine reaches \
                        it; what was fetched before stays in force";
            let (code, message) = ("dcl-unavailable", plain::with_causes(&error));
            CliError::Api(Refusal::new(code, Disposition::Retry, message, hint))
        }
    }
}

fn told(
    json: bool,
    directory: &Path,
    fetched: &paa::Fetched,
    revocations: Option<(usize, PathBuf)>,
) -> Result<ExitCode, CliError> {
    if json {
        let sets = revocations.map(|(sets, _)| sets);
        output::json(&serde_json::json!({ "paas": fetched.paas, "directory": directory, "revocation_sets": sets }))?;
        return Ok(ExitCode::Done);
    }
    output::line(&format!("{} PAA certificates in {}", fetched.paas, directory.display()))?;
    if let Some((sets, directory)) = revocations {
        output::line(&format!("{sets} revocation sets in {}", directory.display()))?;
    }
    Ok(ExitCode::Done)
}
