//! `matterbind fabric …`

use std::fs::OpenOptions;
use std::io::{BufRead, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::client::{PLAIN, SLOW};
use super::daemon::load_config;
use super::exit::{CliError, ExitCode};
use super::output;
use super::{Global, block_on};
use crate::admin::wire::{FabricInfo, Refusal, RemoveRoot};
use crate::backup::{self, BackupError, Unlock};
use crate::commissioning::error::Disposition;
use crate::config::secret_file;
use crate::keystore::SealKey;
use crate::secret::OperatorSecret;

const BACKUP_NOTE: &str = "\
The daemon makes the backup, of one instant, and must run. The file holds the fabric's keys: whoever opens it controls
every node.";
const RESTORE_NOTE: &str = "\
Stop the daemon first. The file is verified whole before anything is written; then all of it is in place, or nothing.
Node ids go on 1000 after the backup's, and the hub's own tag 64 versions later: the hub may have gone on after it.";

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
    /// Write the root key into an encrypted file and remove it from the hub
    ExportRoot(ExportRootArgs),
    /// Bring an exported root key back to the hub
    ImportRoot(ImportRootArgs),
}

/// How a file opens
#[derive(Debug, clap::Args)]
pub struct DecryptArgs {
    /// A file with the passphrase; else it is asked for, or read from stdin's first line
    #[arg(long, value_name = "FILE", conflicts_with = "identity")]
    pub passphrase_file: Option<PathBuf>,
    /// The age identity behind the file's recipient
    #[arg(long, value_name = "FILE")]
    pub identity: Option<PathBuf>,
}

/// How a file is encrypted
#[derive(Debug, clap::Args)]
pub struct EncryptArgs {
    /// A file with the passphrase; else it is asked for, or read from stdin's first line
    #[arg(long, value_name = "FILE", conflicts_with = "recipient")]
    pub passphrase_file: Option<PathBuf>,
    /// Encrypt to an age recipient instead of a passphrase
    #[arg(long, value_name = "age1…")]
    pub recipient: Option<String>,
}

/// `fabric backup`
#[derive(Debug, clap::Args)]
#[command(after_help = BACKUP_NOTE)]
pub struct BackupArgs {
    /// The file to write
    pub file: PathBuf,
    /// How.
    #[command(flatten)]
    pub encrypt: EncryptArgs,
}

/// `fabric restore`
#[derive(Debug, clap::Args)]
#[command(after_help = RESTORE_NOTE)]
pub struct RestoreArgs {
    /// The file to read
    pub file: PathBuf,
    /// How it opens.
    #[command(flatten)]
    pub decrypt: DecryptArgs,
    /// The configuration [default: $MATTERBIND_CONFIG, else /etc/matterbind/matterbind.toml if it exists]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Restore into this directory
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Restore over existing state, which is kept aside
    #[arg(long)]
    pub force: bool,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// `fabric export-root`
#[derive(Debug, clap::Args)]
pub struct ExportRootArgs {
    /// The file to write
    pub file: PathBuf,
    /// How.
    #[command(flatten)]
    pub encrypt: EncryptArgs,
    /// Leave the key on the hub as well
    #[arg(long)]
    pub keep: bool,
}

/// `fabric import-root`
#[derive(Debug, clap::Args)]
pub struct ImportRootArgs {
    /// The file that `export-root` wrote
    pub file: PathBuf,
    /// How it opens.
    #[command(flatten)]
    pub decrypt: DecryptArgs,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

impl FabricCommand {
    pub(super) fn json(&self) -> bool {
        matches!(
            self,
            Self::Show { json: true }
                | Self::Restore(RestoreArgs { json: true, .. })
                | Self::ImportRoot(ImportRootArgs { json: true, .. })
        )
    }
}

pub(super) fn run(global: &Global, args: FabricArgs) -> Result<ExitCode, CliError> {
    match args.action {
        FabricCommand::Show { json } => show(global, json),
        FabricCommand::Backup(args) => backup(global, &args),
        FabricCommand::Restore(args) => restore(global, args),
        FabricCommand::ExportRoot(args) => export_root(global, &args),
        FabricCommand::ImportRoot(args) => import_root(global, &args),
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
        ("root public key", fabric.root_public_key),
        ("root key", if fabric.root_key_online { "on this hub" } else { "offline" }.to_owned()),
    ];
    let lines: Vec<String> = rows.iter().map(|(key, value)| format!("{key:16} {value}")).collect();
    output::line(&lines.join("\n"))?;
    Ok(ExitCode::Done)
}

fn backup(global: &Global, args: &BackupArgs) -> Result<ExitCode, CliError> {
    let client = global.client()?;
    let bytes = block_on(client.post_bytes(&["fabric", "backup"], &encryption(&args.encrypt)?, SLOW))?;
    write_private(&args.file, &bytes)?;
    output::line(&format!("Wrote {} ({} bytes). Keep it where this hub is not.", args.file.display(), bytes.len()))?;
    Ok(ExitCode::Done)
}

fn export_root(global: &Global, args: &ExportRootArgs) -> Result<ExitCode, CliError> {
    let client = global.client()?;
    let bytes = block_on(client.post_bytes(&["fabric", "export-root"], &encryption(&args.encrypt)?, SLOW))?;
    write_private(&args.file, &bytes)?;
    if args.keep {
        output::line(&format!("Wrote {}. The root key is on the hub as well.", args.file.display()))?;
        return Ok(ExitCode::Done);
    }
    // Only now: the file is durable.
    let sha256 = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let _: FabricInfo = block_on(client.post(&["fabric", "remove-root"], &RemoveRoot { sha256 }, PLAIN))?;
    let text = "Wrote {}. The root key is no longer on the hub; earlier backups may still hold it.";
    output::line(&text.replace("{}", &args.file.display().to_string()))?;
    Ok(ExitCode::Done)
}

fn import_root(global: &Global, args: &ImportRootArgs) -> Result<ExitCode, CliError> {
    let file = read_file(&args.file)?;
    if file.len() > backup::ROOT_FILE_MAX {
        let error = BackupError::NotARootKey;
        return Err(refused(error.code(), &error, error.hint()));
    }
    let file = STANDARD.encode(file);
    let body = match key(&args.decrypt)? {
        Key::Passphrase(secret) => serde_json::json!({ "file": file, "passphrase": secret.expose() }),
        Key::Identity(_, text) => serde_json::json!({ "file": file, "identity": text.expose() }),
    };
    let client = global.client()?;
    let fabric: FabricInfo = block_on(client.post(&["fabric", "import-root"], &body, SLOW))?;
    if args.json {
        output::json(&fabric)?;
    } else {
        output::line("The root key is on the hub again. `matterbind fabric export-root FILE` takes it off.")?;
    }
    Ok(ExitCode::Done)
}

fn read_file(path: &Path) -> Result<Vec<u8>, CliError> {
    std::fs::read(path).map_err(|source| CliError::Io { what: format!("reading {}", path.display()), source })
}

/// What opens a file.
enum Key {
    Passphrase(OperatorSecret),
    Identity(PathBuf, OperatorSecret),
}

fn key(args: &DecryptArgs) -> Result<Key, CliError> {
    Ok(match &args.identity {
        Some(path) => {
            let text = secret_file::read(path).map_err(|error| CliError::Usage(error.to_string()))?;
            Key::Identity(path.clone(), text)
        }
        None => Key::Passphrase(passphrase(args.passphrase_file.as_deref(), false)?),
    })
}

fn restore(global: &Global, args: RestoreArgs) -> Result<ExitCode, CliError> {
    let state_dir = load_config(global, args.config, args.state_dir)?.state_dir;
    let file = read_file(&args.file)?;
    let unlock = match key(&args.decrypt)? {
        Key::Passphrase(secret) => Unlock::Passphrase(secret),
        Key::Identity(path, text) => {
            let none = || CliError::Usage(format!("{} holds no age identity", path.display()));
            Unlock::identity(text.expose()).ok_or_else(none)?
        }
    };
    let backup = backup::read(&file, &unlock).map_err(|error| refused(error.code(), &error, error.hint()))?;
    let manifest = &backup.manifest;
    let what = format!(
        "Backup of fabric {} (compressed id {}), {} nodes, made {} by {}.",
        manifest.fabric_id,
        manifest.compressed_fabric_id,
        manifest.nodes,
        output::local(manifest.made_at),
        manifest.written_by
    );
    // Before anything is written. With --json stdout belongs to the document.
    if args.json {
        eprintln!("{what}")
    } else {
        output::line(&what)?
    }
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let seal = SealKey::from_credentials_directory(credentials.as_deref())
        .map_err(|source| CliError::Io { what: "reading the sealing credential".to_owned(), source })?;
    let restored = block_on(async {
        backup::restore::restore(&backup, &state_dir, seal, args.force, Timestamp::now())
            .await
            .map_err(|error| refused(error.code(), &error, error.hint()))
    })?;
    if args.json {
        output::json(&serde_json::json!({
            "fabric_id": manifest.fabric_id,
            "compressed_fabric_id": manifest.compressed_fabric_id,
            "nodes": manifest.nodes,
            "next_node_id": restored.next_node_id,
            "state_dir": state_dir,
            "kept_aside": restored.kept_aside,
        }))?;
    } else {
        let aside = restored.kept_aside.map(|path| format!(" The old state is in {}.", path.display()));
        let aside = aside.unwrap_or_default();
        output::line(&format!("Restored into {}.{aside} Start the daemon now.", state_dir.display()))?;
    }
    Ok(ExitCode::Done)
}

fn refused(code: &str, error: &dyn std::error::Error, hint: &str) -> CliError {
    CliError::Api(Refusal::new(code, Disposition::UserAction, error.to_string(), hint))
}

/// The request's body. It holds the passphrase, and goes nowhere but to the daemon's socket.
fn encryption(args: &EncryptArgs) -> Result<serde_json::Value, CliError> {
    Ok(match &args.recipient {
        Some(recipient) => serde_json::json!({ "recipient": recipient }),
        None => {
            let secret = passphrase(args.passphrase_file.as_deref(), true)?;
            serde_json::json!({ "passphrase": secret.expose() })
        }
    })
}

/// Whole and readable by its owner only, or not at all: a temporary file beside it, fsync, rename.
fn write_private(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    let failed = |source| CliError::Io { what: format!("writing {}", path.display()), source };
    let name = path.file_name().ok_or_else(|| CliError::Usage(format!("{} is no file name", path.display())))?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}", std::process::id()));
    let temporary = directory.join(temporary);
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        std::fs::File::open(directory)?.sync_all()
    };
    write().map_err(|error| {
        // Whatever was written is of no use.
        let _ = std::fs::remove_file(&temporary);
        failed(error)
    })
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
