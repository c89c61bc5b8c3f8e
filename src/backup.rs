//! The backup file: keys, nodes, counters and outbox of one instant, encrypted with age; and the exported root key.
//!
//! Inside of the encryption lie a line with magic word and format version, a line with the manifest (JSON), the key bundle
//! and the database. `age -d` opens the file without matterbind. The daemon encrypts to recipients only, which costs no
//! memory to speak of. A passphrase's key takes 256 MB, as much as the daemon's unit grants it, so the command line derives it:
//! it hands the daemon a recipient that lives for one answer, and locks what it gets again ([`relock`]). Not here: making a copy of the database (`store::snapshot`), putting a backup back (`backup::restore`).

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, Write};
use std::str::FromStr;

use age::secrecy::{ExposeSecret, SecretString};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::keystore::KeyBundle;
use crate::matter::credentials::{Credentials, is_root_key};
use crate::plain;
use crate::secret::OperatorSecret;
use crate::store::{SCHEMA_VERSION, Snapshot};

pub(crate) mod restore;

const MAGIC: &str = "matterbind-backup";
const ROOT_MAGIC: &str = "matterbind-root-key";
/// The format that this binary writes and reads.
pub(crate) const FORMAT: u32 = 1;
/// Far above what a root key's file takes; a whole backup is longer.
pub(crate) const ROOT_FILE_MAX: usize = 16 * 1024;
/// 2^18 rounds of scrypt: about a second, and 256 MB of memory for each guess.
pub(crate) const WORK_FACTOR: u8 = 18;
/// A file that asks for more, a gigabyte, is not ours: it would stop the machine.
const MAX_WORK_FACTOR: u8 = 20;
/// How every file of age begins that is not armoured.
pub(crate) const AGE_MAGIC: &[u8] = b"age-encryption.org/";

/// Whoever has the identity behind it opens the file.
#[derive(Clone)]
pub struct Recipient(age::x25519::Recipient);

impl FromStr for Recipient {
    type Err = String;

    /// Reads `age1…`; the error says why it is none.
    fn from_str(text: &str) -> Result<Self, String> {
        text.trim().parse().map(Self).map_err(|error: &str| error.to_owned())
    }
}

/// A key pair of age; opens what is encrypted to its recipient.
pub struct Identity(age::x25519::Identity);

impl Identity {
    /// A passphrase that nobody has chosen.
    pub fn generate() -> Self {
        Self(age::x25519::Identity::generate())
    }

    /// Reads an identity file as `age-keygen` writes it: comments, and one `AGE-SECRET-KEY-1…`.
    pub fn read(text: &str) -> Option<Self> {
        let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'))?;
        line.parse().ok().map(Self)
    }

    /// What files are encrypted to.
    pub fn recipient(&self) -> Recipient {
        Recipient(self.0.to_public())
    }

    /// The recipient as text, `age1…`.
    pub fn recipient_text(&self) -> String {
        self.0.to_public().to_string()
    }

    /// What [`Self::read`] reads.
    pub fn secret_text(&self) -> OperatorSecret {
        OperatorSecret::new(self.0.to_string().expose_secret())
    }
}

/// How a file is locked that a person keeps.
pub enum Lock {
    /// By a passphrase; scrypt with 2^`work_factor` rounds.
    Passphrase {
        /// It never reaches the daemon.
        secret: OperatorSecret,
        /// [`WORK_FACTOR`], less in tests.
        work_factor: u8,
    },
    /// To the key of an age recipient.
    Recipient(Recipient),
}

impl Lock {
    /// A passphrase, at the usual cost.
    pub fn passphrase(secret: OperatorSecret) -> Self {
        Self::Passphrase { secret, work_factor: WORK_FACTOR }
    }
}

/// What opens a file.
pub enum Unlock {
    /// The key that locks the file is derived from it by scrypt.
    Passphrase(OperatorSecret),
    /// The identity behind the recipient.
    Identity(Identity),
}

/// Why a file is not taken. In every case nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Not encrypted with age.
    #[error("this file is no backup of matterbind")]
    NotABackup,
    /// It does not open.
    #[error("the passphrase (or the identity) is not the one that this file was made with")]
    WrongKey,
    /// It opened in part, or not at all.
    #[error("the file is damaged or incomplete: {0}")]
    Damaged(String),
    /// Written by another version.
    #[error("the backup has format {found}, this matterbind reads {FORMAT}")]
    OtherFormat { found: String },
    /// Its database is from a newer version.
    #[error("the backup was made by {written_by} with database schema {found}, this matterbind knows {SCHEMA_VERSION}")]
    NewerSchema {
        /// Which version made it.
        written_by: String,
        found: i32,
    },
    /// Keys and manifest are of two fabrics.
    #[error("the parts of this file belong to different fabrics")]
    MixedFabrics,
    /// Not a file of a root key.
    #[error("this file is no root key of matterbind")]
    NotARootKey,
    /// A root key, but not of this fabric's root certificate.
    #[error("this is not the root key of this fabric")]
    OtherRoot,
}

impl BackupError {
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotABackup => "not-a-backup",
            Self::WrongKey => "wrong-passphrase",
            Self::Damaged(_) => "backup-damaged",
            Self::OtherFormat { .. } | Self::NewerSchema { .. } => "backup-of-another-version",
            Self::MixedFabrics => "backup-of-another-fabric",
            Self::NotARootKey => "not-a-root-key",
            Self::OtherRoot => "root-key-of-another-fabric",
        }
    }

    /// What to do now.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotABackup => "name the file that `matterbind fabric backup` wrote",
            Self::WrongKey => "try again; a backup for a recipient opens with --identity FILE",
            Self::Damaged(_) | Self::MixedFabrics => "copy it again from where it was kept, or use an earlier backup",
            Self::NotARootKey | Self::OtherRoot => {
                "name the file that `matterbind fabric export-root` wrote on this hub"
            }
            Self::OtherFormat { .. } | Self::NewerSchema { .. } => {
                "install the matterbind that made it, or a later one"
            }
        }
    }
}

/// The backup could not be made.
#[derive(Debug, thiserror::Error)]
#[error("the backup cannot be encrypted: {0}")]
pub struct EncryptFailed(String);

/// A file could not be locked in another way.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RelockError {
    /// It does not open.
    #[error(transparent)]
    Open(#[from] BackupError),
    /// It cannot be encrypted again.
    #[error(transparent)]
    Encrypt(#[from] EncryptFailed),
}

/// What a backup says of itself; checked against its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// For instance `matterbind 0.1.0`.
    pub written_by: String,
    pub made_at: Timestamp,
    pub fabric_id: u64,
    /// Compressed fabric id, 16 hex digits.
    pub compressed_fabric_id: String,
    /// The hub's node id.
    pub hub_node: u64,
    /// The node id that was next.
    pub next_node_id: u64,
    /// How many nodes it holds.
    pub nodes: u64,
    /// Whether the root key is in it.
    pub root_key: bool,
    pub schema: i32,
    keys: Part,
    database: Part,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Part {
    bytes: u64,
    sha256: String,
}

impl Part {
    fn of(bytes: &[u8]) -> Self {
        Self { bytes: bytes.len() as u64, sha256: plain::lower_hex(&Sha256::digest(bytes)) }
    }

    /// Reads the file through, and goes back to its beginning.
    fn of_file(file: &mut File) -> io::Result<Self> {
        let mut hash = Sha256::new();
        let mut bytes = 0;
        file.rewind()?;
        let mut read = BufReader::with_capacity(64 * 1024, &mut *file);
        loop {
            let piece = read.fill_buf()?;
            if piece.is_empty() {
                break;
            }
            hash.update(piece);
            let length = piece.len();
            bytes += length as u64;
            read.consume(length);
        }
        file.rewind()?;
        Ok(Self { bytes, sha256: plain::lower_hex(&hash.finalize()) })
    }

    fn take<'a>(&self, rest: &mut &'a [u8], name: &str) -> Result<&'a [u8], BackupError> {
        let length = usize::try_from(self.bytes).unwrap_or(usize::MAX);
        let (part, after) =
            rest.split_at_checked(length).ok_or_else(|| BackupError::Damaged(format!("its {name} end early")))?;
        if Self::of(part) != *self {
            return Err(BackupError::Damaged(format!("its {name} have another checksum")));
        }
        *rest = after;
        Ok(part)
    }
}

/// A backup that was read and verified whole.
pub struct Backup {
    pub manifest: Manifest,
    pub keys: KeyBundle,
    pub database: Vec<u8>,
}

/// Writes the file, piece by piece: neither the records nor the result are ever in memory as a whole.
///
/// # Errors
/// The keys do not make a fabric, or `to` cannot be written.
pub fn make(
    keys: &KeyBundle,
    mut snapshot: Snapshot,
    now: Timestamp,
    recipient: &Recipient,
    to: impl Write,
) -> Result<(), EncryptFailed> {
    let failed = |error: &dyn std::fmt::Display| EncryptFailed(error.to_string());
    let compressed = Credentials::new(keys.clone()).map_err(|error| failed(&error))?;
    let plain = keys.to_plain();
    let manifest = Manifest {
        written_by: concat!("matterbind ", env!("CARGO_PKG_VERSION")).to_owned(),
        made_at: now,
        fabric_id: keys.fabric_id.0,
        compressed_fabric_id: format!("{:016X}", compressed.compressed_fabric_id()),
        hub_node: keys.hub_node.0,
        next_node_id: snapshot.fabric.next_node_id,
        nodes: snapshot.nodes,
        root_key: keys.rcac_key.is_some(),
        schema: snapshot.schema,
        keys: Part::of(&plain),
        database: Part::of_file(&mut snapshot.database).map_err(|error| failed(&error))?,
    };
    let manifest = serde_json::to_string(&manifest).map_err(|error| failed(&error))?;
    let write = || -> io::Result<()> {
        let mut sealed = seal(recipient, to)?;
        sealed.write_all(format!("{MAGIC} {FORMAT}\n{manifest}\n").as_bytes())?;
        sealed.write_all(&plain)?;
        io::copy(&mut snapshot.database, &mut sealed)?;
        sealed.finish()?.flush()
    };
    write().map_err(|error| failed(&error))
}

/// Opens and verifies a file: encryption, format, checksums, and that manifest and keys are of one fabric.
pub fn read(file: &[u8], unlock: &Unlock) -> Result<Backup, BackupError> {
    let content = decrypt(file, unlock)?;
    let mut rest = after_header(&content, MAGIC)?;
    let manifest = line(&mut rest).ok_or_else(|| BackupError::Damaged("it has no manifest".to_owned()))?;
    let manifest: Manifest =
        serde_json::from_str(manifest).map_err(|_| BackupError::Damaged("its manifest does not parse".to_owned()))?;
    if manifest.schema > SCHEMA_VERSION {
        return Err(BackupError::NewerSchema { written_by: manifest.written_by, found: manifest.schema });
    }
    let keys = manifest.keys.take(&mut rest, "keys")?;
    let database = manifest.database.take(&mut rest, "records")?.to_vec();
    if !rest.is_empty() {
        return Err(BackupError::Damaged("it goes on after its end".to_owned()));
    }
    let keys = KeyBundle::from_plain(keys).ok_or_else(|| BackupError::Damaged("its keys do not decode".to_owned()))?;
    let credentials =
        Credentials::new(keys.clone()).map_err(|_| BackupError::Damaged("its root certificate is none".to_owned()))?;
    let compressed = format!("{:016X}", credentials.compressed_fabric_id());
    if (keys.fabric_id.0, &compressed) != (manifest.fabric_id, &manifest.compressed_fabric_id) {
        return Err(BackupError::MixedFabrics);
    }
    Ok(Backup { manifest, keys, database })
}

/// The root key in a file of its own, to be kept offline.
#[derive(Serialize, Deserialize)]
struct RootKey {
    fabric_id: u64,
    rcac: String,
    rcac_key: String,
}

/// Encrypts the root key; `None` where the bundle does not have it.
pub fn export_root(keys: &KeyBundle, recipient: &Recipient) -> Result<Option<Vec<u8>>, EncryptFailed> {
    let Some(key) = &keys.rcac_key else { return Ok(None) };
    let root =
        RootKey { fabric_id: keys.fabric_id.0, rcac: BASE64.encode(&keys.rcac), rcac_key: BASE64.encode(key.expose()) };
    let json = Zeroizing::new(serde_json::to_string(&root).map_err(|error| EncryptFailed(error.to_string()))?);
    let content = Zeroizing::new(format!("{ROOT_MAGIC} {FORMAT}\n{}\n", *json));
    zeroize::Zeroize::zeroize(&mut { root.rcac_key });
    encrypt(content.as_bytes(), &Lock::Recipient(recipient.clone())).map(Some)
}

/// Reads [`export_root`] back: the key, if it is the one of this fabric's root certificate.
pub(crate) fn read_root(
    file: &[u8],
    identity: Identity,
    keys: &KeyBundle,
) -> Result<crate::secret::OperationalSigningKey, BackupError> {
    if file.len() > ROOT_FILE_MAX {
        return Err(BackupError::NotARootKey);
    }
    let none = |error| if matches!(error, BackupError::NotABackup) { BackupError::NotARootKey } else { error };
    let content = decrypt(file, &Unlock::Identity(identity)).map_err(none)?;
    let json = after_header(&content, ROOT_MAGIC).map_err(none)?;
    let damaged = || BackupError::Damaged("the root key does not decode".to_owned());
    let root: RootKey = serde_json::from_slice(json).map_err(|_| damaged())?;
    if root.fabric_id != keys.fabric_id.0 || BASE64.decode(&root.rcac).ok().as_ref() != Some(&keys.rcac) {
        return Err(BackupError::OtherRoot);
    }
    let key = Zeroizing::new(BASE64.decode(&root.rcac_key).map_err(|_| damaged())?);
    let key: [u8; 32] = key.as_slice().try_into().map_err(|_| damaged())?;
    let key = crate::secret::OperationalSigningKey::new(key);
    if is_root_key(&keys.rcac, &key) { Ok(key) } else { Err(BackupError::OtherRoot) }
}

/// Opens a file and locks what is in it in another way.
///
/// # Errors
/// It does not open, or the library fails.
pub(crate) fn relock(file: &[u8], unlock: &Unlock, lock: &Lock) -> Result<Vec<u8>, RelockError> {
    Ok(encrypt(&decrypt(file, unlock)?, lock)?)
}

fn seal<W: Write>(recipient: &Recipient, to: W) -> io::Result<age::stream::StreamWriter<W>> {
    let recipients = std::iter::once(&recipient.0 as &dyn age::Recipient);
    age::Encryptor::with_recipients(recipients).map_err(io::Error::other)?.wrap_output(to)
}

/// Locks whatever it is.
pub fn encrypt(content: &[u8], lock: &Lock) -> Result<Vec<u8>, EncryptFailed> {
    match lock {
        Lock::Passphrase { secret, work_factor } => {
            let mut recipient = age::scrypt::Recipient::new(SecretString::from(secret.expose().to_owned()));
            recipient.set_work_factor(*work_factor);
            age::encrypt(&recipient, content)
        }
        Lock::Recipient(recipient) => age::encrypt(&recipient.0, content),
    }
    .map_err(|error| EncryptFailed(error.to_string()))
}

/// Opens a file, whatever is in it.
///
/// # Errors
/// It does not open, or is none of age's.
pub fn decrypt(file: &[u8], unlock: &Unlock) -> Result<Zeroizing<Vec<u8>>, BackupError> {
    // A file that is cut within the first words is half a backup, and not something else.
    let start = &file[..file.len().min(AGE_MAGIC.len())];
    if start.is_empty() || !AGE_MAGIC.starts_with(start) {
        return Err(BackupError::NotABackup);
    }
    let plain = match unlock {
        Unlock::Passphrase(secret) => {
            let mut identity = age::scrypt::Identity::new(SecretString::from(secret.expose().to_owned()));
            identity.set_max_work_factor(MAX_WORK_FACTOR);
            age::decrypt(&identity, file)
        }
        Unlock::Identity(identity) => age::decrypt(&identity.0, file),
    };
    plain.map(Zeroizing::new).map_err(|error| match error {
        age::DecryptError::KeyDecryptionFailed
        | age::DecryptError::DecryptionFailed
        | age::DecryptError::NoMatchingKeys => BackupError::WrongKey,
        age::DecryptError::UnknownFormat => BackupError::NotABackup,
        age::DecryptError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            BackupError::Damaged("it ends early".to_owned())
        }
        other => BackupError::Damaged(other.to_string()),
    })
}

fn after_header<'a>(content: &'a [u8], magic: &str) -> Result<&'a [u8], BackupError> {
    let mut rest = content;
    let header = line(&mut rest).ok_or(BackupError::NotABackup)?;
    let (word, version) = header.split_once(' ').ok_or(BackupError::NotABackup)?;
    if word != magic {
        return Err(BackupError::NotABackup);
    }
    if version != FORMAT.to_string() {
        return Err(BackupError::OtherFormat { found: version.chars().take(16).collect() });
    }
    Ok(rest)
}

fn line<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let end = rest.iter().take(64 * 1024).position(|byte| *byte == b'\n')?;
    let line = std::str::from_utf8(&rest[..end]).ok()?;
    *rest = &rest[end + 1..];
    Some(line)
}

#[cfg(test)]
mod tests;
