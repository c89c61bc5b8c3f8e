//! `matterbind fabric …`

use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};

use super::client::PLAIN;
use super::exit::{CliError, ExitCode};
use super::output;
use super::{Global, block_on};
use crate::admin::wire::FabricInfo;
use crate::config::secret_file;
use crate::secret::OperatorSecret;

/// `fabric`
#[derive(Debug, clap::Args)]
pub struct FabricArgs {
    /// What to do
    #[command(subcommand)]
    pub action: FabricCommand,
}

/// `fabric …`
#[derive(Debug, clap::Subcommand)]
pub enum FabricCommand {
    /// Show ids, label and root key
    Show {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Write keys, nodes, counters and outbox into one encrypted file
    Backup(BackupArgs),
    /// Bring a backup back, on a hub without state
    Restore(RestoreArgs),
}

/// `fabric backup`
#[derive(Debug, clap::Args)]
pub struct BackupArgs {
    /// The file to write
    pub file: PathBuf,
    /// A file with the passphrase; else it is asked for, or read from stdin's first line
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// The configuration
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// `fabric restore`
#[derive(Debug, clap::Args)]
pub struct RestoreArgs {
    /// The file to read
    pub file: PathBuf,
    /// A file with the passphrase; else it is asked for, or read from stdin's first line
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// The configuration
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Restore over existing state, which is kept aside
    #[arg(long)]
    pub force: bool,
}

impl FabricCommand {
    pub(super) fn json(&self) -> bool {
        matches!(self, Self::Show { json: true })
    }
}

pub(super) fn run(global: &Global, args: FabricArgs) -> Result<ExitCode, CliError> {
    match args.action {
        FabricCommand::Show { json } => show(global, json),
        FabricCommand::Backup(args) => backup(global, &args),
        FabricCommand::Restore(args) => restore(global, &args),
    }
}

fn show(global: &Global, json: bool) -> Result<ExitCode, CliError> {
    let client = global.client()?;
    let fabric: FabricInfo = block_on(client.get(&["fabric"], &(), PLAIN))?;
    if json {
        output::json(&fabric)?;
        return Ok(ExitCode::Done);
    }
    let rows = [
        ("label", fabric.label),
        ("fabric id", fabric.fabric_id.to_string()),
        ("compressed id", format!("{:016X}", fabric.compressed_fabric_id)),
        ("this hub", format!("node {}", fabric.node_id)),
        ("admin vendor", format!("{:#06X}", fabric.admin_vendor_id)),
        ("admin CAT", format!("{:#010x}", fabric.admin_cat)),
        ("root key", fabric.root_public_key),
    ];
    let lines: Vec<String> = rows.iter().map(|(key, value)| format!("{key:14} {value}")).collect();
    output::line(&lines.join("\n"))?;
    Ok(ExitCode::Done)
}

fn backup(_: &Global, _: &BackupArgs) -> Result<ExitCode, CliError> {
    Err(CliError::NotInThisBuild("fabric backup"))
}

fn restore(_: &Global, _: &RestoreArgs) -> Result<ExitCode, CliError> {
    Err(CliError::NotInThisBuild("fabric restore"))
}

/// The passphrase: from a file, from the terminal (twice where it is new), else from the first line of stdin.
///
/// # Errors
/// None was given, or the two differ.
pub fn passphrase(file: Option<&Path>, is_new: bool) -> Result<OperatorSecret, CliError> {
    let stdin_error = |source| CliError::Io { what: "reading the passphrase".to_owned(), source };
    let secret = match file {
        Some(file) => secret_file::read(file).map_err(|error| CliError::Usage(error.to_string()))?,
        None if std::io::stdin().is_terminal() => {
            let first = OperatorSecret::new(rpassword::prompt_password("Passphrase: ").map_err(stdin_error)?);
            if is_new {
                let again = rpassword::prompt_password("Once more:  ").map_err(stdin_error)?;
                if OperatorSecret::new(again) != first {
                    return Err(CliError::Usage("the two passphrases differ".to_owned()));
                }
            }
            first
        }
        None => {
            let mut line = String::new();
            std::io::stdin().lock().read_line(&mut line).map_err(stdin_error)?;
            OperatorSecret::new(line.trim_end_matches(['\r', '\n']))
        }
    };
    if secret.expose().is_empty() {
        return Err(CliError::Usage("the passphrase is empty".to_owned()));
    }
    Ok(secret)
}
