//! Opens our fabric, or makes it on the very first start. Never makes a second one: see `store::fabric` for the protocol.

use std::sync::Arc;

use anyhow::Context;
use jiff::Timestamp;

use crate::access::{self, AccessOverlay};
use crate::config::Config;
use crate::failpoint;
use crate::hub::clock::Clock;
use crate::journal::{Event, EventSink, Level};
use crate::keystore::{KeyBundle, Keystore, SealKey};
use crate::matter::credentials::{Credentials, mint, reissue_hub_noc};
use crate::store::JournalHandle;
use crate::store::Store;
use crate::store::{FabricStart, NewFabric, fabric_start, random_fabric_id, random_hub_node_id};

/// Where the store keeps the administrator's vendor id.
const ADMIN_VENDOR: &str = "admin-vendor-id";

/// What a start finds or makes.
pub(crate) struct Opened {
    /// The keys that the daily work needs; without the root's.
    pub(crate) credentials: Arc<Credentials>,
    /// Rotated tags and grants.
    pub(crate) overlay: AccessOverlay,
    /// Where the keys lie.
    pub(crate) keystore: Keystore,
    /// Whether the root's key is among them.
    pub(crate) root_online: bool,
}

/// The fabric's credentials, loaded or made.
pub(crate) async fn open(
    config: &Config,
    store: &Store,
    journal: &JournalHandle,
    clock: &Clock,
) -> anyhow::Result<Opened> {
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(std::path::PathBuf::from);
    let seal = SealKey::from_credentials_directory(credentials.as_deref()).context("reading the sealing credential")?;
    let keystore = Keystore::new(&config.state_dir, seal);
    let loaded = if keystore.exists() { Some(keystore.load()?) } else { None };
    let row = store.fabric_state().await?;
    let keys = loaded.as_ref().map(|loaded| loaded.bundle.root_fingerprint());
    let start = fabric_start(row, keys.as_deref())?;
    let overlay = AccessOverlay::from_bytes(store.load_blob(access::BLOB).await?.as_deref())
        .context("the access policy in the database cannot be read")?;
    let mut bundle = match (start, loaded) {
        (FabricStart::Use(_), Some(loaded)) => {
            if !loaded.sealed && keystore.seals() {
                keystore.replace(&loaded.bundle).context("sealing the fabric's keys")?;
            }
            loaded.bundle
        }
        (FabricStart::Finish(row), Some(loaded)) => {
            store.finish_fabric(&row.root_fingerprint).await?;
            loaded.bundle
        }
        (FabricStart::Make, None) => make(config, store, &keystore, journal, clock).await?,
        // `fabric_start` answers `Make` only without keys, and the others only with them.
        (start, _) => anyhow::bail!("the fabric's keys changed while the daemon started ({start:?})"),
    };
    if !keystore.seals() {
        tracing::warn!(
            "the fabric's keys are not sealed; give the unit LoadCredentialEncrypted=matterbind-seal to seal them"
        );
    }
    // A rotation that a crash cut short, or another tag in the configuration.
    if let Some(cats) = access::hub_cats(&bundle.hub_cats, overlay.current(config.access.admin_cat)) {
        reissue_hub_noc(&mut bundle, &cats)?;
        keystore.replace(&bundle)?;
        journal.record(Event::new(Timestamp::now(), Level::Info, "hub-noc-reissued", "the hub has a new certificate"));
    }
    store.seal_with(bundle.database_seal()).await.context("sealing the secrets in the database")?;
    // Nothing in memory needs the root key.
    let root_online = bundle.rcac_key.take().is_some();
    let vendor = admin_vendor_id(config, store).await?;
    let credentials =
        Credentials::new(bundle).context("the fabric's keys cannot be used")?.with_admin_vendor_id(vendor);
    Ok(Opened { credentials: Arc::new(credentials), overlay, keystore, root_online })
}

/// The administrator's vendor id that the fabric has. Devices keep the one that they were told in AddNOC, and nothing changes
/// it later, so the configuration counts once.
async fn admin_vendor_id(config: &Config, store: &Store) -> anyhow::Result<u16> {
    let configured = config.fabric.admin_vendor_id;
    let kept = store.load_blob(ADMIN_VENDOR).await?.and_then(|bytes| <[u8; 2]>::try_from(bytes).ok());
    let Some(kept) = kept.map(u16::from_be_bytes) else {
        store.save_blob(ADMIN_VENDOR, &configured.to_be_bytes()).await?;
        return Ok(configured);
    };
    if kept != configured {
        tracing::warn!(
            "fabric.admin_vendor_id is {configured:#06X}, but this fabric was made with {kept:#06X} and keeps it: a device \
             that has joined cannot be told another"
        );
    }
    Ok(kept)
}

async fn make(
    config: &Config,
    store: &Store,
    keystore: &Keystore,
    journal: &JournalHandle,
    clock: &Clock,
) -> anyhow::Result<KeyBundle> {
    let hub_node = random_hub_node_id();
    let bundle = mint(random_fabric_id(), hub_node, &[config.access.admin_cat], clock.now())?;
    let compressed_id = Credentials::new(bundle.clone())?.compressed_fabric_id();
    let new = NewFabric {
        fabric_id: bundle.fabric_id,
        compressed_id,
        root_fingerprint: bundle.root_fingerprint(),
        label: config.fabric.label.clone(),
        hub_node_id: hub_node,
        next_node_id: hub_node.0 + 1,
    };
    failpoint::reach("fabric.minted");
    store.begin_fabric(new).await?;
    failpoint::reach("fabric.begun");
    keystore.create(&bundle)?;
    failpoint::reach("fabric.keys-saved");
    store.finish_fabric(&bundle.root_fingerprint()).await?;
    failpoint::reach("fabric.finished");
    let message = format!("made fabric {} with compressed id {compressed_id:016X}", bundle.fabric_id.0);
    journal.record(Event::new(Timestamp::now(), Level::Info, "fabric-created", message));
    Ok(bundle)
}
