//! `matterbind attestation …`: works without the daemon.

use std::path::PathBuf;

use super::exit::{CliError, ExitCode};
use super::{Global, numbers};

/// `attestation`
#[derive(Debug, clap::Args)]
pub struct AttestationArgs {
    /// What to do
    #[command(subcommand)]
    pub action: AttestationCommand,
}

/// `attestation …`
#[derive(Debug, clap::Subcommand)]
pub enum AttestationCommand {
    /// Verify a device's evidence from DER files. Exit 0: accepted, 3: rejected
    Verify(VerifyArgs),
    /// Refresh the store of trusted PAA certificates
    UpdatePaa(UpdatePaaArgs),
}

/// `attestation verify`
#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
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
pub struct UpdatePaaArgs {
    /// Where from: a DCL's REST address, or a directory [default: the main net of the DCL]
    #[arg(long, value_name = "URL|DIR")]
    pub from: Option<String>,
    /// The configuration
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl AttestationCommand {
    pub(super) fn json(&self) -> bool {
        matches!(self, Self::Verify(VerifyArgs { json: true, .. }))
    }
}

pub(super) fn run(global: &Global, args: AttestationArgs) -> Result<ExitCode, CliError> {
    match args.action {
        AttestationCommand::Verify(args) => verify(global, &args),
        AttestationCommand::UpdatePaa(args) => update_paa(global, &args),
    }
}

fn verify(_: &Global, _: &VerifyArgs) -> Result<ExitCode, CliError> {
    Err(CliError::NotInThisBuild("attestation verify"))
}

fn update_paa(_: &Global, _: &UpdatePaaArgs) -> Result<ExitCode, CliError> {
    Err(CliError::NotInThisBuild("attestation update-paa"))
}
