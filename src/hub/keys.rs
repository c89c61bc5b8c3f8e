//! The fabric's keys while the daemon runs: backup, the root key that goes offline and comes back, the
//! hub's NOC when its tags change.
//!
//! The root key is on disk only, never in the credentials that the stack and commissioning work with. Every reader and
//! writer of the bundle holds the lock, so that a backup has keys and records of one instant.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::future::Future;
use std::io::{self, BufWriter, Read, Seek};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::Hub;
use super::refusal::Refusal;
use super::world::{HubLink, World};
use crate::access;
use crate::backup::{self, Identity, Recipient};
use crate::commissioning::error::Disposition;
use crate::failpoint;
use crate::journal::{Event, EventSink, Level};
use crate::keystore::Keystore;
use crate::matter::credentials::reissue_hub_noc;
use crate::node::NodeId;
use crate::plain;
use crate::store::LAST_BACKUP;

/// Shows the fabric, backs it up, and takes the root key off the hub and back.
pub trait KeysDoor: Send + Sync + 'static {
    /// What may be known of our fabric.
    fn fabric(&self) -> impl Future<Output = Result<FabricInfo, Refusal>> + Send;
    /// The encrypted backup, of one instant. It counts as made when somebody says that it was kept.
    fn backup(&self, recipient: Recipient) -> impl Future<Output = Result<File, Refusal>> + Send;
    /// A backup arrived and is durable elsewhere: one that was made since the start, whose file has this checksum.
    fn backup_kept(&self, sha256: &str) -> impl Future<Output = Result<FabricInfo, Refusal>> + Send;
    /// The root key in an encrypted file.
    fn export_root(&self, recipient: Recipient) -> impl Future<Output = Result<Vec<u8>, Refusal>> + Send;
    /// Removes the root key from this hub, if `sha256` is that of the file that was exported last.
    fn remove_root(&self, sha256: &str) -> impl Future<Output = Result<FabricInfo, Refusal>> + Send;
    /// Brings the root key of an exported file back, if it is the key of this fabric's root certificate.
    fn import_root(
        &self,
        file: Vec<u8>,
        identity: Identity,
    ) -> impl Future<Output = Result<FabricInfo, Refusal>> + Send;
}

/// `fabric show --json`: what may be known of our fabric.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FabricInfo {
    /// Which our certificates bear; chosen when the fabric was made.
    pub fabric_id: u64,
    /// By which our nodes announce themselves on the LAN (Matter Core 4.3.2.2).
    pub compressed_fabric_id: u64,
    /// The hub's own node id.
    pub node_id: NodeId,
    /// The label on devices.
    pub label: String,
    /// The vendor id that other administrators see (AddNOC's AdminVendorId).
    pub admin_vendor_id: u16,
    /// The tag in the hub's certificate.
    pub admin_cat: u32,
    /// The root's public key, 65 bytes in hex.
    pub root_public_key: String,
    /// Whether the root's private key is on this hub; it is only needed to sign another intermediate certificate.
    #[serde(default)]
    pub root_key_online: bool,
}

/// The bundle on disk and what is known about it.
pub(crate) struct Keys {
    store: tokio::sync::Mutex<Stored>,
    /// One backup is made at a time: each takes the disk's room twice.
    backup: tokio::sync::Mutex<Backups>,
    root_online: AtomicBool,
}

/// Those that were handed out since the start.
#[derive(Default)]
struct Backups {
    /// Checksum and time of the newest, which may not have arrived yet: several may be on their way.
    made: VecDeque<(String, Timestamp)>,
    /// When the newest was made of which is known that it arrived.
    kept: Option<Timestamp>,
}

/// More backups than this are not on their way at once.
const ON_THEIR_WAY: usize = 32;

struct Stored {
    keystore: Keystore,
    /// Checksum of the root key's file that was handed out last: only who has it may have the key removed.
    exported: Option<String>,
}

impl Keys {
    pub(crate) fn new(keystore: Keystore, root_online: bool) -> Self {
        let stored = Stored { keystore, exported: None };
        Self {
            store: tokio::sync::Mutex::new(stored),
            backup: tokio::sync::Mutex::default(),
            root_online: AtomicBool::new(root_online),
        }
    }

    pub(super) fn root_online(&self) -> bool {
        self.root_online.load(Ordering::Relaxed)
    }
}

impl<W: World> KeysDoor for Hub<W> {
    async fn fabric(&self) -> Result<FabricInfo, Refusal> {
        Ok(self.fabric_info())
    }

    async fn backup(&self, recipient: Recipient) -> Result<File, Refusal> {
        let mut backups = self.keys.backup.lock().await;
        let stored = self.keys.store.lock().await;
        let keys = stored.keystore.load().map_err(|error| failed("the fabric's keys", &error))?.bundle;
        let snapshot = self.store.snapshot().await?;
        drop(stored);
        let nodes = snapshot.nodes;
        let state_dir = self.config.state_dir.clone();
        let make = move || -> anyhow::Result<(File, u64, String)> {
            let file = nameless(&state_dir)?;
            backup::make(&keys, snapshot, Timestamp::now(), &recipient, BufWriter::new(&file))?;
            let length = (&file).stream_position()?;
            (&file).rewind()?;
            let sha256 = checksum_of(&file)?;
            (&file).rewind()?;
            Ok((file, length, sha256))
        };
        let (file, length, sha256) = match tokio::task::spawn_blocking(make).await {
            Ok(Ok(made)) => made,
            Ok(Err(error)) => return Err(failed("the backup", &*error)),
            Err(error) => return Err(failed("the backup", &error)),
        };
        let now = Timestamp::now();
        backups.made.push_back((sha256, now));
        if backups.made.len() > ON_THEIR_WAY {
            backups.made.pop_front();
        }
        let message = format!("a backup of the fabric with {nodes} nodes was made, {length} bytes");
        self.journal.record(Event::new(now, Level::Info, "fabric-backup", message));
        Ok(file)
    }

    async fn backup_kept(&self, sha256: &str) -> Result<FabricInfo, Refusal> {
        let mut backups = self.keys.backup.lock().await;
        let Some((_, at)) = backups.made.iter().find(|(made, _)| made == sha256).cloned() else {
            return Err(Refusal::new(
                "not-the-backup",
                Disposition::UserAction,
                "this is not the checksum of a backup that was made since the start",
                "`matterbind fabric backup FILE` makes one",
            ));
        };
        if backups.kept.is_none_or(|kept| kept < at) {
            self.store.save_blob(LAST_BACKUP, at.to_string().as_bytes()).await?;
            backups.kept = Some(at);
        }
        Ok(self.fabric_info())
    }

    async fn export_root(&self, recipient: Recipient) -> Result<Vec<u8>, Refusal> {
        let mut stored = self.keys.store.lock().await;
        let keys = stored.keystore.load().map_err(|error| failed("the fabric's keys", &error))?.bundle;
        let file = match backup::export_root(&keys, &recipient) {
            Ok(Some(file)) => file,
            Ok(None) => return Err(root_offline()),
            Err(error) => return Err(failed("the root key", &error)),
        };
        stored.exported = Some(checksum(&file));
        let event = Event::new(Timestamp::now(), Level::Warn, "root-key-exported", "the root key was exported");
        self.journal.record(event);
        Ok(file)
    }

    async fn remove_root(&self, sha256: &str) -> Result<FabricInfo, Refusal> {
        let mut stored = self.keys.store.lock().await;
        if stored.exported.as_deref() != Some(sha256) {
            return Err(Refusal::new(
                "root-key-not-exported",
                Disposition::UserAction,
                "this is not the checksum of the root key's file that was made last",
                "`matterbind fabric export-root FILE` makes one",
            ));
        }
        let mut keys = stored.keystore.load().map_err(|error| failed("the fabric's keys", &error))?.bundle;
        keys.rcac_key = None;
        stored.keystore.replace(&keys).map_err(|error| failed("the fabric's keys", &error))?;
        stored.exported = None;
        self.keys.root_online.store(false, Ordering::Relaxed);
        let message = "the root key was removed from this hub; the intermediate certificate signs as before";
        self.journal.record(Event::new(Timestamp::now(), Level::Warn, "root-key-offline", message));
        Ok(self.fabric_info())
    }

    /// The opposite: the key of a file that was exported, once it is known to be the root certificate's.
    async fn import_root(&self, file: Vec<u8>, identity: Identity) -> Result<FabricInfo, Refusal> {
        let stored = self.keys.store.lock().await;
        let mut keys = stored.keystore.load().map_err(|error| failed("the fabric's keys", &error))?.bundle;
        let key = backup::read_root(&file, identity, &keys)
            .map_err(|error| Refusal::new(error.code(), Disposition::UserAction, error.to_string(), error.hint()))?;
        keys.rcac_key = Some(key);
        if !self.keys.root_online() {
            stored.keystore.replace(&keys).map_err(|error| failed("the fabric's keys", &error))?;
            self.keys.root_online.store(true, Ordering::Relaxed);
            let message = "the root key was brought back to this hub";
            self.journal.record(Event::new(Timestamp::now(), Level::Warn, "root-key-imported", message));
        }
        Ok(self.fabric_info())
    }
}

impl<W: World> Hub<W> {
    pub(super) fn fabric_info(&self) -> FabricInfo {
        let credentials = &self.credentials;
        let bundle = credentials.bundle();
        FabricInfo {
            fabric_id: bundle.fabric_id.0,
            compressed_fabric_id: credentials.compressed_fabric_id(),
            node_id: bundle.hub_node,
            label: self.config.fabric.label.clone(),
            admin_vendor_id: credentials.admin_vendor_id(),
            admin_cat: self.wanted(None).admin.value(),
            root_key_online: self.keys.root_online(),
            root_public_key: plain::upper_hex(credentials.root_public_key()),
        }
    }

    /// Gives the hub a NOC with its tag in the version in force, where it does not have it: first on disk, then in the
    /// stack. Devices that know an earlier version let it in as before.
    pub(super) async fn renew_hub(&self) -> Result<(), Refusal> {
        let stored = self.keys.store.lock().await;
        let Some(cats) = access::hub_cats(&self.access.hub_cats(), self.wanted(None).admin) else { return Ok(()) };
        let mut keys = stored.keystore.load().map_err(|error| failed("the fabric's keys", &error))?.bundle;
        reissue_hub_noc(&mut keys, &cats).map_err(|error| failed("the hub's certificate", &error))?;
        stored.keystore.replace(&keys).map_err(|error| failed("the fabric's keys", &error))?;
        failpoint::reach("hub-noc.saved");
        keys.rcac_key = None;
        self.link.renew_hub_noc(&keys).await.map_err(|error| failed("the hub's certificate", &error))?;
        failpoint::reach("hub-noc.in-force");
        self.access.set_hub_cats(cats);
        let event = Event::new(Timestamp::now(), Level::Info, "hub-noc-reissued", "the hub has a new certificate");
        self.journal.record(event);
        Ok(())
    }
}

/// A file that goes away with its last reader. Its size is the database's, which may be too much for memory.
fn nameless(state_dir: &Path) -> io::Result<File> {
    let path = state_dir.join("backup.new");
    // A crash may have left one.
    let _ = fs::remove_file(&path);
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

fn checksum(bytes: &[u8]) -> String {
    plain::lower_hex(&Sha256::digest(bytes))
}

/// The same of a file from where it stands.
fn checksum_of(mut file: &File) -> io::Result<String> {
    let mut digest = Sha256::new();
    let mut part = [0; 8192];
    loop {
        match file.read(&mut part)? {
            0 => return Ok(plain::lower_hex(&digest.finalize())),
            read => digest.update(&part[..read]),
        }
    }
}

fn root_offline() -> Refusal {
    let hint = "its file is where `fabric export-root` wrote it; `fabric import-root` brings it back";
    Refusal::new("root-key-offline", Disposition::UserAction, "the root key is not on this hub any more", hint)
}

fn failed(what: &str, error: &(dyn std::error::Error + 'static)) -> Refusal {
    let hint = "`matterbind logs` and the system's journal have the details";
    Refusal::new("keys-failed", Disposition::Bug, format!("{what}: {}", plain::with_causes(error)), hint)
}
