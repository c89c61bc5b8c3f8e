//! `matterbind fabric …`

use std::fs::{File, OpenOptions};
use std::io::{BufRead, IsTerminal, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::client::{PLAIN, SLOW};
use super::daemon::load_config;
use super::exit::{CliError, ExitCode};
use super::output;
use super::private_file::PrivateFile;
use super::{Global, block_on};
use crate::admin::wire::{BackupKept, FabricInfo, Refusal, RemoveRoot};
use crate::backup::{self, BackupError, Identity, Lock, RelockError, Unlock};
use crate::commissioning::error::Disposition;
use crate::config::load::Secrets;
use crate::config::secret_file;
use crate::keystore::SealKey;
use crate::ownership::{self, ActingFor};
use crate::plain;
use crate::secret::OperatorSecret;

/// Far above a database with ten thousand nodes and the longest admin log.
const MAX_FILE: u64 = 1 << 30;
const BACKUP_NOTE: &str = "\
The daemon makes the backup, of one instant, and must run. The file holds the fabric's keys: whoever opens it controls
every node.";
const RESTORE_NOTE: &str = "\
Stop the daemon first. The file is verified whole before anything is written; then all of it is in place, or nothing.
Node ids go on 1000 after the backup's, and the hub's own tag 64 versions later: the hub may have gone on after it.";

/// `fabric`
#[derive(Debug, clap::Args)]
pub(crate) struct FabricArgs {
    /// What to do
    #[command(subcommand)]
    pub action: FabricCommand,
}

/// `fabric …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum FabricCommand {
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
pub(crate) struct DecryptArgs {
    /// A file with the passphrase; else it is asked for, or read from stdin's first line
    #[arg(long, value_name = "FILE", conflicts_with = "identity")]
    pub passphrase_file: Option<PathBuf>,
    /// The age identity behind the file's recipient
    #[arg(long, value_name = "FILE")]
    pub identity: Option<PathBuf>,
}

/// How a file is encrypted
#[derive(Debug, clap::Args)]
pub(crate) struct EncryptArgs {
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
pub(crate) struct BackupArgs {
    /// The file to write; an earlier backup there gives way, - writes to stdout
    pub file: PathBuf,
    /// Replace the file whatever it is
    #[arg(long)]
    pub replace: bool,
    /// How.
    #[command(flatten)]
    pub encrypt: EncryptArgs,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// `fabric restore`
#[derive(Debug, clap::Args)]
#[command(after_help = RESTORE_NOTE)]
pub(crate) struct RestoreArgs {
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
pub(crate) struct ExportRootArgs {
    /// The file to write, which must not be there; - writes to stdout
    pub file: PathBuf,
    /// How.
    #[command(flatten)]
    pub encrypt: EncryptArgs,
    /// Leave the key on the hub as well
    #[arg(long)]
    pub keep: bool,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// `fabric import-root`
#[derive(Debug, clap::Args)]
pub(crate) struct ImportRootArgs {
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
                | Self::Backup(BackupArgs { json: true, .. })
                | Self::ExportRoot(ExportRootArgs { json: true, .. })
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
    let file = destination(&args.file, args.replace || is_a_backup(&args.file), args.json)?;
    let (sha256, bytes) = fetch(global, "backup", &args.encrypt)?;
    file.write(&bytes)?;
    // Only now: the file is durable, or the pipe has taken all of it. A hub that was started anew meanwhile has forgotten that it
    // made it; the file is as good.
    let noted =
        block_on(global.client()?.post::<FabricInfo>(&["fabric", "backup-kept"], &BackupKept { sha256 }, PLAIN));
    if let Err(error) = noted {
        output::note(&format!("note: the hub does not count this backup: {}", plain::with_causes(&error)));
    }
    let text = match file.is_stdout() {
        true => format!("Wrote {} bytes to stdout. Keep them where this hub is not.", bytes.len()),
        false => format!("Wrote {} ({} bytes). Keep it where this hub is not.", args.file.display(), bytes.len()),
    };
    written(args.json, &file, &serde_json::json!({ "file": args.file, "bytes": bytes.len() }), &text)
}

/// An earlier backup gives way to a later one, as a nightly job has it: it is encrypted, and longer than any root key's file.
fn is_a_backup(path: &Path) -> bool {
    let begins = |mut file: File| {
        let mut magic = [0; backup::AGE_MAGIC.len()];
        file.read_exact(&mut magic).is_ok() && magic == *backup::AGE_MAGIC
    };
    let long = std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() > backup::ROOT_FILE_MAX as u64);
    long && File::open(path).is_ok_and(begins)
}

fn export_root(global: &Global, args: &ExportRootArgs) -> Result<ExitCode, CliError> {
    // What is in a file of that name may be the root key: there is no word to replace it.
    let file = destination(&args.file, false, args.json)?;
    let (sha256, bytes) = fetch(global, "export-root", &args.encrypt)?;
    file.write(&bytes)?;
    let document = serde_json::json!({ "file": args.file, "bytes": bytes.len(), "root_key_online": args.keep });
    let place = if file.is_stdout() { "to stdout".to_owned() } else { args.file.display().to_string() };
    if args.keep {
        return written(args.json, &file, &document, &format!("Wrote {place}. The root key is on the hub as well."));
    }
    // Only now: the file is durable, or the pipe has taken all of it.
    let client = global.client()?;
    let _: FabricInfo = block_on(client.post(&["fabric", "remove-root"], &RemoveRoot { sha256 }, PLAIN))?;
    let rest = "The root key is no longer on the hub; earlier backups may still hold it.";
    written(args.json, &file, &document, &format!("Wrote {place}. {rest}"))
}

/// Before the daemon is asked for anything. Stdout holds the document or the file, and not both.
fn destination(path: &Path, replace: bool, json: bool) -> Result<PrivateFile, CliError> {
    let file = PrivateFile::at(path, replace)?;
    if json && file.is_stdout() {
        return Err(CliError::Usage("with --json stdout holds the document: name a file instead of -".to_owned()));
    }
    Ok(file)
}

/// Tells that it is written; on stderr where stdout has it.
fn written(json: bool, file: &PrivateFile, document: &serde_json::Value, text: &str) -> Result<ExitCode, CliError> {
    match (json, file.is_stdout()) {
        (true, _) => output::json(document)?,
        (false, true) => output::note(text),
        (false, false) => output::line(text)?,
    }
    Ok(ExitCode::Done)
}

fn import_root(global: &Global, args: &ImportRootArgs) -> Result<ExitCode, CliError> {
    let file = read_file(&args.file)?;
    if file.len() > backup::ROOT_FILE_MAX {
        let error = BackupError::NotARootKey;
        return Err(refused(error.code(), &error, error.hint()));
    }
    // Neither passphrase nor identity leaves this process: the daemon gets an identity of this one call.
    let once = Identity::generate();
    let file = match backup::relock(&file, &unlock(&args.decrypt)?, &Lock::Recipient(once.recipient())) {
        Ok(file) => STANDARD.encode(file),
        Err(RelockError::Open(BackupError::NotABackup)) => {
            let error = BackupError::NotARootKey;
            return Err(refused(error.code(), &error, error.hint()));
        }
        Err(RelockError::Open(error)) => return Err(refused(error.code(), &error, error.hint())),
        Err(RelockError::Encrypt(error)) => return Err(CliError::Other(error.into())),
    };
    let body = serde_json::json!({ "file": file, "identity": once.secret_text().expose() });
    let client = global.client()?;
    let fabric: FabricInfo = block_on(client.post(&["fabric", "import-root"], &body, SLOW))?;
    if args.json {
        output::json(&fabric)?;
    } else {
        output::line("The root key is on the hub again. `matterbind fabric export-root FILE` takes it off.")?;
    }
    Ok(ExitCode::Done)
}

/// What the daemon hands out, locked as the person wants it; and the checksum of what the daemon made. A passphrase's key is
/// derived here: it takes more memory than the daemon may have, and the passphrase stays in this process.
fn fetch(global: &Global, what: &str, args: &EncryptArgs) -> Result<(String, Vec<u8>), CliError> {
    let client = global.client()?;
    let get = |recipient: String| {
        let bytes =
            block_on(client.post_bytes(&["fabric", what], &serde_json::json!({ "recipient": recipient }), SLOW))?;
        let sha256 = plain::lower_hex(&Sha256::digest(&bytes));
        Ok::<_, CliError>((sha256, bytes))
    };
    if let Some(recipient) = &args.recipient {
        return get(recipient.clone());
    }
    let lock = Lock::passphrase(passphrase(args.passphrase_file.as_deref(), true)?);
    let once = Identity::generate();
    let (sha256, bytes) = get(once.recipient_text())?;
    let locked = backup::relock(&bytes, &Unlock::Identity(once), &lock);
    Ok((sha256, locked.context("what the daemon made cannot be locked with the passphrase")?))
}

fn read_file(path: &Path) -> Result<Vec<u8>, CliError> {
    let failed = |source| CliError::File { what: format!("reading {}", path.display()), source };
    // Not blocking: opening a FIFO would wait for its other end.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(CliError::Usage(format!("{} is no regular file: copy the backup into one first", path.display())));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(CliError::Usage(format!("{} is larger than any backup of a hub", path.display())));
    }
    Ok(bytes)
}

fn unlock(args: &DecryptArgs) -> Result<Unlock, CliError> {
    let Some(path) = &args.identity else {
        return Ok(Unlock::Passphrase(passphrase(args.passphrase_file.as_deref(), false)?));
    };
    let text = secret_file::read(path).map_err(|error| CliError::Usage(plain::with_causes(&error)))?;
    let none = || CliError::Usage(format!("{} holds no age identity", path.display()));
    Identity::read(text.expose()).map(Unlock::Identity).ok_or_else(none)
}

fn restore(global: &Global, args: RestoreArgs) -> Result<ExitCode, CliError> {
    let state_dir = load_config(global, args.config, args.state_dir, Secrets::NotUsed)?.config.state_dir;
    let file = read_file(&args.file)?;
    let backup =
        backup::read(&file, &unlock(&args.decrypt)?).map_err(|error| refused(error.code(), &error, error.hint()))?;
    let manifest = &backup.manifest;
    let what = format!(
        "Backup of fabric {} (compressed id {}), {}, made {} by {}.",
        manifest.fabric_id,
        manifest.compressed_fabric_id,
        output::counted(usize::try_from(manifest.nodes).unwrap_or(usize::MAX), "node"),
        output::local(manifest.made_at),
        manifest.written_by
    );
    // Before anything is written. With --json stdout belongs to the document.
    if args.json {
        output::note(&what)
    } else {
        output::line(&what)?
    }
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let seal = SealKey::from_credentials_directory(credentials.as_deref())
        .map_err(|source| CliError::Io { what: "reading the sealing credential".to_owned(), source })?;
    let io = |source| CliError::Io { what: format!("using {}", state_dir.display()), source };
    ownership::make_state_dir(&state_dir).map_err(io)?;
    // From here on root can do in this directory what its owner can, and nothing elsewhere.
    let _acting = ActingFor::owner_of(&state_dir).map_err(io)?;
    let restored = block_on(async {
        backup::restore::restore(&backup, &state_dir, seal, args.force, Timestamp::now())
            .await
            .map_err(|error| refused(error.code(), &error, error.hint()))
    })?;
    if args.json {
        output::json(&serde_json::json!({
            "fabric_id": manifest.fabric_id,
            // A number, as everywhere; the file has it in hexadecimal.
            "compressed_fabric_id": u64::from_str_radix(&manifest.compressed_fabric_id, 16).ok(),
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

fn refused(code: &str, error: &(dyn std::error::Error + 'static), hint: &str) -> CliError {
    CliError::Api(Refusal::new(code, Disposition::UserAction, plain::with_causes(error), hint))
}

/// The passphrase: from a file, from the terminal (twice where it is new), else from the first line of stdin.
///
/// # Errors
/// None was given, or the two differ.
pub(crate) fn passphrase(file: Option<&Path>, is_new: bool) -> Result<OperatorSecret, CliError> {
    let stdin_error = |source| CliError::Io { what: "reading the passphrase".to_owned(), source };
    let secret = match file {
        Some(file) => first_line(file)?,
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

/// The first line of a file, and nothing else: stdin gives no more either, and what one locks the other must open.
fn first_line(path: &Path) -> Result<OperatorSecret, CliError> {
    let secret = secret_file::read(path).map_err(|error| CliError::Usage(plain::with_causes(&error)))?;
    if secret.expose().contains(['\n', '\r']) {
        return Err(CliError::Usage(format!("{} holds more than one line: a passphrase is one line", path.display())));
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passphrase_is_one_line_wherever_it_comes_from() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("word");
        for (text, expected) in [("correct horse", true), ("correct horse\r\n", true), ("correct\nhorse\n", false)] {
            std::fs::write(&path, text).unwrap();
            match first_line(&path) {
                Ok(word) => assert!(expected && word.expose() == "correct horse", "{text:?}"),
                Err(error) => assert!(!expected && error.to_string().contains("one line"), "{error}"),
            }
        }
    }
}
