//! The fabric's keys on disk: one file, `fabric.keys`, that is either whole or refused.
//!
//! Written by temporary file, fsync, rename and fsync of the directory; mode 0600; checksummed; sealed where systemd gives
//! a credential. Nothing here mints a key: a missing file is an error that the caller must decide about, so that a damaged
//! state directory never turns into a second certificate authority. Not here: what the keys sign (`matter::credentials`).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use age::secrecy::SecretString;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use crate::durable::{Seal, StoreError};
use crate::fabric::Cat;
use crate::failpoint;
use crate::node::{FabricId, NodeId};
use crate::secret::{IpkEpochKey, OperationalSigningKey};

/// The file's name in the state directory.
pub(crate) const FILE_NAME: &str = "fabric.keys";
/// The credential's name for systemd's `LoadCredentialEncrypted=`.
pub(crate) const CREDENTIAL_NAME: &str = "matterbind-seal";
const MAGIC: &str = "matterbind-fabric-keys";
const VERSION: u32 = 1;
/// Far above what a bundle takes; a larger file is not ours.
const MAX_LEN: u64 = 64 * 1024;
/// The credential is a key and not a person's password, so stretching it would only slow every start.
const SEAL_WORK_FACTOR: u8 = 4;

/// Everything that makes the hub this fabric's administrator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyBundle {
    /// Our fabric's id.
    pub fabric_id: FabricId,
    /// The hub's own node id.
    pub hub_node: NodeId,
    /// The admin CATs in the hub's NOC, one to three.
    pub hub_cats: Vec<Cat>,
    /// RCAC, Matter TLV.
    pub rcac: Vec<u8>,
    /// The root's key; absent where it is kept offline. Only needed to sign another ICAC.
    pub rcac_key: Option<OperationalSigningKey>,
    /// ICAC, Matter TLV.
    pub icac: Vec<u8>,
    /// Signs every NOC.
    pub icac_key: OperationalSigningKey,
    /// The fabric's IPK epoch key.
    pub ipk: IpkEpochKey,
    /// The hub's NOC, Matter TLV.
    pub hub_noc: Vec<u8>,
    /// The hub's operational key.
    pub hub_key: OperationalSigningKey,
    /// When the fabric was made.
    pub created_at: Timestamp,
}

impl KeyBundle {
    /// SHA-256 of the root certificate, hex: names the root without being a secret.
    pub fn root_fingerprint(&self) -> String {
        crate::plain::lower_hex(&Sha256::digest(&self.rcac))
    }

    /// Seals the secrets in the database. Made of a key that stays the same as long as the fabric and goes into every backup, so
    /// that a restored database opens under whatever seal the new hub has. It is at rest what this bundle is: sealed where a
    /// credential is given.
    pub fn database_seal(&self) -> SealKey {
        let mut secret = Zeroizing::new(b"matterbind database v1\0".to_vec());
        secret.extend_from_slice(self.icac_key.expose());
        SealKey::new(&secret)
    }

    /// The whole bundle, all keys in the clear: only for what is encrypted next.
    pub fn to_plain(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(Stored::from(self).to_json())
    }

    /// Reads [`Self::to_plain`]; `None` where it is none.
    pub fn from_plain(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice::<Stored>(bytes).ok()?.bundle()
    }
}

/// Why a bundle was not loaded. In no case may another be minted in its place without a person's word.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is no file.
    #[error("{} does not exist", .0.display())]
    Missing(PathBuf),
    /// It cannot be read.
    #[error("{} cannot be read", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    /// Others may read it.
    #[error("{} has mode {mode:03o}, others than its owner may read the fabric's keys: chmod 600 it", path.display())]
    Exposed {
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Cut off, changed, or never ours.
    #[error("{} is damaged ({what}): restore it from a backup", path.display())]
    Damaged {
        path: PathBuf,
        /// What does not fit.
        what: &'static str,
    },
    /// A later matterbind wrote it.
    #[error("{} has format version {found}, this matterbind reads {VERSION}: install the newer one", path.display())]
    NewerVersion { path: PathBuf, found: u32 },
    /// Sealed, and no credential was given.
    #[error(
        "{} is sealed, and no credential {CREDENTIAL_NAME} was given: give the unit its \
         LoadCredentialEncrypted={CREDENTIAL_NAME} again, or restore a backup with `matterbind fabric restore --force`",
        .0.display()
    )]
    Sealed(PathBuf),
    /// Sealed with another credential.
    #[error(
        "{} is sealed with another credential than the {CREDENTIAL_NAME} that was given: give the unit the one that it was sealed \
         with, or restore a backup with `matterbind fabric restore --force`",
        .0.display()
    )]
    WrongSeal(PathBuf),
}

/// The bundle is not on disk.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// A first bundle may not replace another.
    #[error("{} exists already", .0.display())]
    Exists(PathBuf),
    /// The disk says no; the earlier file stands.
    #[error("{} cannot be written", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// The sealing library failed.
    #[error("the bundle cannot be sealed: {0}")]
    Seal(String),
}

/// The key that seals the bundle at rest.
pub struct SealKey(SecretString);

impl SealKey {
    /// Derives the key from a credential's content.
    pub fn new(credential: &[u8]) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"matterbind fabric.keys seal v1\0");
        hash.update(credential);
        Self(SecretString::from(encoded(&hash.finalize())))
    }

    /// Reads the credential `matterbind-seal` from systemd's credentials directory; `None` where there is none.
    ///
    /// # Errors
    /// The credential is there but cannot be read.
    pub fn from_credentials_directory(directory: Option<&Path>) -> io::Result<Option<Self>> {
        let Some(directory) = directory else { return Ok(None) };
        match fs::read(directory.join(CREDENTIAL_NAME)).map(Zeroizing::new) {
            Ok(credential) => Ok(Some(Self::new(&credential))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn seal(&self, content: &[u8]) -> Result<Vec<u8>, age::EncryptError> {
        let mut recipient = age::scrypt::Recipient::new(self.0.clone());
        recipient.set_work_factor(SEAL_WORK_FACTOR);
        age::encrypt(&recipient, content)
    }

    fn open(&self, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        age::decrypt(&age::scrypt::Identity::new(self.0.clone()), sealed).ok().map(Zeroizing::new)
    }
}

impl Seal for SealKey {
    fn seal(&self, plain: &[u8]) -> Result<Vec<u8>, StoreError> {
        Self::seal(self, plain).map_err(|error| StoreError::Failed(format!("a secret cannot be sealed: {error}")))
    }

    fn open(&self, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        Self::open(self, sealed)
    }
}

/// A bundle that was loaded.
#[derive(Debug)]
pub struct Loaded {
    pub bundle: KeyBundle,
    /// Whether they were sealed; plain keys deserve one warning.
    pub sealed: bool,
}

/// Whether the bundle that lies in `state_dir` is sealed, by its header alone; `None` where there is none.
///
/// # Errors
/// It cannot be read.
pub(crate) fn is_sealed(state_dir: &Path) -> io::Result<Option<bool>> {
    let mut header = [0; 64];
    let length = match File::open(state_dir.join(FILE_NAME)).and_then(|mut file| file.read(&mut header)) {
        Ok(length) => length,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let form = header[..length].split(|byte| matches!(byte, b' ' | b'\n')).nth(2);
    Ok(Some(form == Some(b"sealed")))
}

/// Where the bundle lies and how it is sealed.
pub struct Keystore {
    path: PathBuf,
    seal: Option<SealKey>,
}

impl Keystore {
    /// The file `fabric.keys` in `state_dir`.
    pub fn new(state_dir: &Path, seal: Option<SealKey>) -> Self {
        Self { path: state_dir.join(FILE_NAME), seal }
    }

    /// The file that holds the bundle, sealed or not.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether what is written will be sealed.
    pub fn seals(&self) -> bool {
        self.seal.is_some()
    }

    /// Whether anything stands at the path, readable or not: then nothing may be minted.
    pub fn exists(&self) -> bool {
        !matches!(fs::symlink_metadata(&self.path), Err(error) if error.kind() == io::ErrorKind::NotFound)
    }

    /// Reads the bundle.
    pub fn load(&self) -> Result<Loaded, LoadError> {
        let unreadable = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => LoadError::Missing(self.path.clone()),
            _ => LoadError::Unreadable { path: self.path.clone(), source },
        };
        let file = File::open(&self.path).map_err(unreadable)?;
        let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(LoadError::Exposed { path: self.path.clone(), mode });
        }
        let mut content = Zeroizing::new(Vec::new());
        file.take(MAX_LEN + 1).read_to_end(&mut content).map_err(unreadable)?;
        self.decode(&content)
    }

    /// Writes the first bundle.
    ///
    /// # Errors
    /// Something stands there already, or the disk says no.
    pub fn create(&self, bundle: &KeyBundle) -> Result<(), SaveError> {
        if self.exists() {
            return Err(SaveError::Exists(self.path.clone()));
        }
        self.replace(bundle)
    }

    /// Writes the bundle over an earlier one, for instance after the root key went offline.
    ///
    /// # Errors
    /// The disk says no; the earlier file stands then.
    pub fn replace(&self, bundle: &KeyBundle) -> Result<(), SaveError> {
        let content = self.encode(bundle)?;
        self.write(&content).map_err(|source| SaveError::Io { path: self.path.clone(), source })
    }

    fn write(&self, content: &[u8]) -> io::Result<()> {
        let temporary = self.path.with_extension("keys.new");
        // A crash may have left one; nothing refers to it.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        failpoint::reach("keys.temporary");
        fs::rename(&temporary, &self.path)?;
        failpoint::reach("keys.renamed");
        File::open(self.path.parent().unwrap_or(Path::new(".")))?.sync_all()
    }

    /// `magic version plain|sealed sha256\n`, then the content that the checksum covers.
    fn encode(&self, bundle: &KeyBundle) -> Result<Zeroizing<Vec<u8>>, SaveError> {
        let content = Zeroizing::new(Stored::from(bundle).to_json());
        let (form, content) = match &self.seal {
            Some(seal) => ("sealed", Zeroizing::new(seal.seal(&content).map_err(|e| SaveError::Seal(e.to_string()))?)),
            None => ("plain", content),
        };
        let mut file = Zeroizing::new(Vec::with_capacity(content.len() + 128));
        file.extend(format!("{MAGIC} {VERSION} {form} {}\n", encoded(&Sha256::digest(&content))).bytes());
        file.extend_from_slice(&content);
        Ok(file)
    }

    fn decode(&self, file: &[u8]) -> Result<Loaded, LoadError> {
        let damaged = |what| LoadError::Damaged { path: self.path.clone(), what };
        if file.len() as u64 > MAX_LEN {
            return Err(damaged("it is too long"));
        }
        let end = file.iter().position(|byte| *byte == b'\n').ok_or(damaged("it has no header"))?;
        let header = std::str::from_utf8(&file[..end]).map_err(|_| damaged("its header is no text"))?;
        let content = &file[end + 1..];
        let mut words = header.split(' ');
        if words.next() != Some(MAGIC) {
            return Err(damaged("its header is another"));
        }
        let version = words.next().and_then(|word| word.parse().ok()).ok_or(damaged("its header has no version"))?;
        if version == 0 {
            return Err(damaged("its header has no version"));
        }
        if version > VERSION {
            return Err(LoadError::NewerVersion { path: self.path.clone(), found: version });
        }
        let (form, checksum) = (words.next(), words.next());
        if checksum != Some(encoded(&Sha256::digest(content)).as_str()) {
            return Err(damaged("its checksum is wrong"));
        }
        let (plain, sealed) = match (form, &self.seal) {
            (Some("plain"), _) => (Zeroizing::new(content.to_vec()), false),
            (Some("sealed"), Some(seal)) => {
                (seal.open(content).ok_or_else(|| LoadError::WrongSeal(self.path.clone()))?, true)
            }
            (Some("sealed"), None) => return Err(LoadError::Sealed(self.path.clone())),
            _ => return Err(damaged("its header names no form")),
        };
        let stored: Stored = serde_json::from_slice(&plain).map_err(|_| damaged("its content does not decode"))?;
        let bundle = stored.bundle().ok_or(damaged("a key has the wrong length"))?;
        Ok(Loaded { bundle, sealed })
    }
}

/// The bundle as JSON, all binary values in base64. Wiped when dropped.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    fabric_id: FabricId,
    hub_node: NodeId,
    hub_cats: Vec<Cat>,
    rcac: String,
    rcac_key: Option<String>,
    icac: String,
    icac_key: String,
    ipk: String,
    hub_noc: String,
    hub_key: String,
    created_at: Timestamp,
}

impl Drop for Stored {
    fn drop(&mut self) {
        self.rcac_key.zeroize();
        self.icac_key.zeroize();
        self.ipk.zeroize();
        self.hub_key.zeroize();
    }
}

impl From<&KeyBundle> for Stored {
    fn from(bundle: &KeyBundle) -> Self {
        Self {
            fabric_id: bundle.fabric_id,
            hub_node: bundle.hub_node,
            hub_cats: bundle.hub_cats.clone(),
            rcac: encoded(&bundle.rcac),
            rcac_key: bundle.rcac_key.as_ref().map(|key| encoded(key.expose())),
            icac: encoded(&bundle.icac),
            icac_key: encoded(bundle.icac_key.expose()),
            ipk: encoded(bundle.ipk.expose()),
            hub_noc: encoded(&bundle.hub_noc),
            hub_key: encoded(bundle.hub_key.expose()),
            created_at: bundle.created_at,
        }
    }
}

impl Stored {
    fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and numbers always serialise")
    }

    fn bundle(&self) -> Option<KeyBundle> {
        Some(KeyBundle {
            fabric_id: self.fabric_id,
            hub_node: self.hub_node,
            hub_cats: self.hub_cats.clone(),
            rcac: decoded(&self.rcac)?,
            rcac_key: match &self.rcac_key {
                Some(key) => Some(OperationalSigningKey::new(fixed::<32>(key)?)),
                None => None,
            },
            icac: decoded(&self.icac)?,
            icac_key: OperationalSigningKey::new(fixed::<32>(&self.icac_key)?),
            ipk: IpkEpochKey::new(fixed::<16>(&self.ipk)?),
            hub_noc: decoded(&self.hub_noc)?,
            hub_key: OperationalSigningKey::new(fixed::<32>(&self.hub_key)?),
            created_at: self.created_at,
        })
    }
}

fn encoded(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text).ok()
}

fn fixed<const N: usize>(text: &str) -> Option<[u8; N]> {
    Zeroizing::new(decoded(text)?).as_slice().try_into().ok()
}

#[cfg(test)]
mod tests;
