//! The same light with long idle times (Matter Core 9.16): while somebody is registered with it, it sleeps, hears nothing, and checks
//! in each time it wakes. The cluster is rs-matter's; here are the sleep and where check-ins go. Not here: the light (`light`).

use std::cell::Cell;
use std::net::SocketAddr;
use std::num::NonZeroU8;
use std::time::Duration;

use rs_matter::Matter;
use rs_matter::crypto::{CanonAeadKey, Crypto};
use rs_matter::dm::clusters::icd_mgmt::{Icd, IcdModeConfig, OperatingModeEnum};
use rs_matter::persist::KvBlobStoreAccess;
use rs_matter::sc::OpCode;
use rs_matter::sc::checkin::CheckIn;
use rs_matter::transport::exchange::Exchange;
use rs_matter::transport::network::Address;
use tokio::time::Instant;

use super::VirtualDeviceError;
use crate::commissioning::ports::Discovery as _;
use crate::config::NetworkConfig;
use crate::discovery::LanDiscovery;
use crate::node::NodeId;

/// Check-ins between two writes of their counter.
const EPOCH: u32 = 16;
/// How long a client is looked for.
const LOOKUP: Duration = Duration::from_secs(3);
/// How often it looks whether it may sleep.
const LOOK: Duration = Duration::from_millis(100);
/// UserActiveModeTriggerHint (9.16.5.1): its setup button.
const SETUP_BUTTON: u32 = 1 << 12;

#[derive(Debug, Clone)]
pub struct LongIdleOptions {
    /// IdleModeDuration, at least a second.
    pub idle: Duration,
    /// ActiveModeThreshold.
    pub awake: Duration,
}

impl Default for LongIdleOptions {
    /// As long as a device with a button cell sleeps.
    fn default() -> Self {
        Self { idle: Duration::from_secs(3600), awake: Duration::from_secs(5) }
    }
}

impl LongIdleOptions {
    pub(super) fn cluster(&self) -> Icd {
        let awake_ms = u16::try_from(self.awake.as_millis()).unwrap_or(u16::MAX);
        Icd::new(
            EPOCH,
            IcdModeConfig {
                idle_mode_duration_s: u32::try_from(self.idle.as_secs().max(1)).unwrap_or(u32::MAX),
                active_mode_duration_ms: awake_ms.into(),
                active_mode_threshold_ms: awake_ms,
                user_active_mode_trigger_hint: SETUP_BUTTON,
                user_active_mode_trigger_instruction: "",
            },
        )
    }
}

/// Whether the device hears anything.
pub(super) struct Ear {
    asleep: Cell<bool>,
    heard: Cell<Instant>,
}

impl Default for Ear {
    fn default() -> Self {
        Self { asleep: Cell::new(false), heard: Cell::new(Instant::now()) }
    }
}

impl Ear {
    /// A datagram has come; false where nobody is awake for it.
    pub(super) fn hears(&self) -> bool {
        if !self.asleep.get() {
            self.heard.set(Instant::now());
        }
        !self.asleep.get()
    }

    pub(super) fn is_asleep(&self) -> bool {
        self.asleep.get()
    }
}

/// Sleeps and wakes until dropped.
pub(super) async fn live<'a, C: Crypto>(
    options: &LongIdleOptions,
    (icd, ear): (&Icd, &Ear),
    matter: &'a Matter<'a>,
    crypto: &C,
    kv: &impl KvBlobStoreAccess,
    interfaces: &[String],
) -> Result<(), VirtualDeviceError> {
    let config = NetworkConfig { interfaces: interfaces.to_vec(), ..NetworkConfig::default() };
    let lan = LanDiscovery::start(&config)
        .map_err(|error| VirtualDeviceError::Network(std::io::Error::other(error.to_string())))?;
    loop {
        while !may_sleep(options, icd, ear, matter) {
            tokio::time::sleep(LOOK).await;
        }
        tracing::debug!("it sleeps");
        ear.asleep.set(true);
        tokio::time::sleep(options.idle).await;
        ear.asleep.set(false);
        ear.heard.set(Instant::now());
        check_in(icd, matter, crypto, kv, &lan).await;
        // Whoever is told that it is awake needs a moment to speak.
        ear.heard.set(Instant::now());
    }
}

/// Only while somebody is told when it wakes, and nobody works with it.
fn may_sleep(options: &LongIdleOptions, icd: &Icd, ear: &Ear, matter: &Matter<'_>) -> bool {
    let asked_to_stay = icd.active_until().is_some_and(|until| embassy_time::Instant::now() < until);
    icd.operating_mode() == OperatingModeEnum::LIT
        && !matter.comm_window_state().is_open()
        && !asked_to_stay
        && ear.heard.get().elapsed() >= options.awake
}

async fn check_in<'a, C: Crypto>(
    icd: &Icd,
    matter: &'a Matter<'a>,
    crypto: &C,
    kv: &impl KvBlobStoreAccess,
    lan: &LanDiscovery,
) {
    let clients: Vec<(NonZeroU8, u64, CanonAeadKey)> = icd.with_registrations(|clients| {
        clients.iter().map(|client| (client.fab_idx, client.check_in_node_id, client.key.clone())).collect()
    });
    let (counter, awake) = (icd.next_counter(), icd.mode().active_mode_threshold_ms.to_le_bytes());
    for (fabric, client, key) in clients {
        let Ok(fabric) =
            matter.with_state(|state| state.fabrics.fabric(fabric).map(|fabric| fabric.compressed_fabric_id()))
        else {
            continue;
        };
        let mut buffer = [0; 64];
        let Ok(payload) = CheckIn::new(key.reference()).generate(crypto, counter, &awake, &mut buffer) else {
            continue;
        };
        for address in lan.operational(fabric, NodeId(client), LOOKUP).await {
            if let Err(error) = send(matter, crypto, address, payload).await {
                tracing::debug!(%address, code = ?error.code(), "a check-in could not be sent");
            }
        }
    }
    // A counter that is used twice with one key gives that key away.
    if let Err(error) = kv.access(|store, buffer| icd.advance_counter(store, buffer)) {
        tracing::warn!(code = ?error.code(), "the counter of check-ins could not be kept");
    }
}

async fn send<'a, C: Crypto>(
    matter: &'a Matter<'a>,
    crypto: &C,
    address: SocketAddr,
    payload: &[u8],
) -> Result<(), rs_matter::error::Error> {
    let mut exchange = Exchange::initiate_plaintext(matter, crypto, Address::Udp(address)).await?;
    exchange.send(OpCode::CheckIn, payload).await
}
