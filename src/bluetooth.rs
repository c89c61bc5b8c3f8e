//! The hub's Bluetooth: who advertises, and connections to them. `bluez` is the real one; `air` (feature `sim`) is a directory in
//! which virtual devices advertise, for tests and machines without a radio. Not here: BTP and Matter (`matter::btp`).
//!
//! Nothing is asked of the radio before somebody looks or connects, and the scan ends when the last who looks has gone. Whoever
//! drops a connection ends it.

#[cfg(feature = "sim")]
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::commissioning::ports::{LinkError, NoAnswer};
use crate::commissioning::radio::{BluetoothUnavailable, Gatt, Heard, Looking, Radio};
use crate::config::BluetoothConfig;
use crate::node::{BluetoothAddress, BluetoothNode, Peer};

#[cfg(feature = "sim")]
pub(crate) mod air;
mod bluez;
mod turns;

/// `bluetooth.adapter` for hubs that shall not use theirs.
const NONE: &str = "none";
/// Before the name of a directory, in place of an adapter's.
#[cfg(feature = "sim")]
const AIR: &str = "air:";
/// A scan that failed is begun again after this, while somebody looks.
const SCAN_AGAIN: Duration = Duration::from_secs(2);
/// Segments that wait for the radio or for the protocol. A BTP window is smaller.
const SEGMENTS: usize = 32;
/// Matter's service data (Matter Core 5.4.2.5.6): opcode, discriminator and version, vendor, product, flags.
const COMMISSIONABLE: u8 = 0;

/// Where radio signals come from.
#[derive(Debug, Clone)]
enum Source {
    SwitchedOff,
    Bluez(bluez::Bluez),
    #[cfg(feature = "sim")]
    Air(PathBuf),
}

/// See the module. Clones are the same.
#[derive(Clone)]
pub struct Bluetooth(Arc<Inner>);

struct Inner {
    source: Source,
    heard: watch::Sender<Heard>,
    scan: Mutex<Weak<DropGuard>>,
}

impl Bluetooth {
    /// As configured. Asks nobody yet.
    pub fn open(config: &BluetoothConfig) -> Self {
        let source = match config.adapter.as_str() {
            NONE => Source::SwitchedOff,
            #[cfg(feature = "sim")]
            air if air.starts_with(AIR) => Source::Air(air[AIR.len()..].into()),
            "" => Source::Bluez(bluez::Bluez::new(None)),
            adapter => Source::Bluez(bluez::Bluez::new(Some(adapter.to_owned()))),
        };
        Self(Arc::new(Inner { source, heard: watch::Sender::new(Ok(Vec::new())), scan: Mutex::default() }))
    }
}

impl Radio for Bluetooth {
    fn look(&self) -> Looking {
        let mut scan = self.0.scan.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(scanning) = scan.upgrade() {
            return Looking::new(self.0.heard.subscribe(), scanning);
        }
        if matches!(self.0.source, Source::SwitchedOff) {
            return Looking::unavailable(BluetoothUnavailable::SwitchedOff);
        }
        // What was heard an hour ago is not there now.
        drop(self.0.heard.send_replace(Ok(Vec::new())));
        let heard = self.0.heard.subscribe();
        let end = CancellationToken::new();
        let scanning = Arc::new(end.clone().drop_guard());
        *scan = Arc::downgrade(&scanning);
        let inner = Arc::clone(&self.0);
        tokio::spawn(async move { end.run_until_cancelled(inner.scan()).await });
        Looking::new(heard, scanning)
    }

    fn connect(&self, address: BluetoothAddress) -> BoxFuture<'static, Result<Gatt, LinkError>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            let connected = match &inner.source {
                Source::SwitchedOff => Err(BluetoothUnavailable::SwitchedOff.to_string()),
                Source::Bluez(bluez) => bluez.connect(address).await.map_err(|error| error.to_string()),
                #[cfg(feature = "sim")]
                Source::Air(directory) => air::connect(directory, address).await.map_err(|error| error.to_string()),
            };
            connected.map_err(|why| LinkError::Unreachable {
                tried: vec![(Peer::Bluetooth(address), NoAnswer::NoConnection(why))],
            })
        })
    }

    fn adapter(&self) -> BoxFuture<'static, Result<String, BluetoothUnavailable>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            match &inner.source {
                Source::SwitchedOff => Err(BluetoothUnavailable::SwitchedOff),
                Source::Bluez(bluez) => bluez.adapter().await,
                #[cfg(feature = "sim")]
                Source::Air(directory) => Ok(directory.display().to_string()),
            }
        })
    }
}

impl Inner {
    /// Scans until it is dropped. Where that fails, everybody who looks is told why, and it is tried again: an adapter may be
    /// plugged in, BlueZ may be restarted.
    async fn scan(&self) {
        loop {
            let failed = match &self.source {
                Source::SwitchedOff => BluetoothUnavailable::SwitchedOff,
                Source::Bluez(bluez) => bluez.scan(&self.heard).await,
                #[cfg(feature = "sim")]
                Source::Air(directory) => air::scan(directory, &self.heard).await,
            };
            tracing::debug!(why = %failed, "the Bluetooth scan has ended");
            drop(self.heard.send_replace(Err(failed)));
            tokio::time::sleep(SCAN_AGAIN).await;
        }
    }
}

/// Reads Matter's service data; nothing where the device is not commissionable.
fn advertised(address: BluetoothAddress, data: &[u8], rssi: i16) -> Option<BluetoothNode> {
    let [COMMISSIONABLE, d0, d1, v0, v1, p0, p1, flags, ..] = *data else { return None };
    Some(BluetoothNode {
        address,
        discriminator: u16::from_le_bytes([d0, d1]) & 0x0FFF,
        vendor_id: u16::from_le_bytes([v0, v1]),
        product_id: u16::from_le_bytes([p0, p1]),
        additional_data: flags & 1 != 0,
        rssi,
    })
}

/// Tells those who look, if it is news.
fn tell(heard: &watch::Sender<Heard>, mut nodes: Vec<BluetoothNode>) {
    nodes.sort_by_key(|node| node.address);
    heard.send_if_modified(|known| {
        let is_news = known.as_ref().ok() != Some(&nodes);
        if is_news {
            *known = Ok(nodes);
        }
        is_news
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_data_is_read_and_what_is_not_commissionable_is_left_out() {
        let address = BluetoothAddress([1; 6]);
        let node = advertised(address, &[0, 0x00, 0x1F, 0xF1, 0xFF, 0x01, 0x80, 1], -70).unwrap();
        assert_eq!((node.discriminator, node.vendor_id, node.product_id), (0xF00, 0xFFF1, 0x8001));
        assert!(node.additional_data && node.rssi == -70);
        assert_eq!(advertised(address, &[1, 0, 0x0F, 0xF1, 0xFF, 0x01, 0x80, 0], -70), None, "network recovery");
        assert_eq!(advertised(address, &[0, 0, 0x0F], -70), None);
    }

    #[cfg(feature = "sim")]
    #[tokio::test]
    async fn the_radio_scans_only_while_somebody_looks() {
        let directory = tempfile::tempdir().unwrap();
        let adapter = format!("air:{}", directory.path().display());
        let bluetooth = Bluetooth::open(&BluetoothConfig { adapter });
        let device = air::Station::open(directory.path(), BluetoothAddress([2; 6])).unwrap();
        device.advertise(Some(&[0, 0, 0x0F, 0xF1, 0xFF, 0x01, 0x80, 0])).unwrap();
        let mut looking = bluetooth.look();
        let also = bluetooth.look();
        while looking.heard().unwrap().is_empty() {
            looking.changed().await;
        }
        assert_eq!(also.heard().unwrap(), looking.heard().unwrap());
        drop(looking);
        assert!(bluetooth.0.scan.lock().unwrap().upgrade().is_some());
        drop(also);
        assert!(bluetooth.0.scan.lock().unwrap().upgrade().is_none());
        device.advertise(None).unwrap();
        let mut looking = bluetooth.look();
        assert_eq!(looking.heard(), Ok(Vec::new()), "what was heard before is not there any more");
        let change = tokio::time::timeout(Duration::from_millis(500), looking.changed()).await;
        assert!(change.is_err() || looking.heard() == Ok(Vec::new()));
    }
}
