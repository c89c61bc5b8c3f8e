//! What the driver needs of Bluetooth: who advertises now, and a connection to one of them. `bluetooth` implements it. Not here:
//! BTP, the protocol on that connection (`matter::btp`).

use std::future::pending;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, watch};

use crate::commissioning::ports::LinkError;
use crate::node::{BluetoothAddress, BluetoothNode};

/// Why Bluetooth cannot be used, as a person can mend it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BluetoothUnavailable {
    /// `bluetooth.adapter` is `"none"`.
    #[error("Bluetooth is switched off in the configuration")]
    SwitchedOff,
    /// No system bus.
    #[error("there is no D-Bus system bus: {0}")]
    NoBus(String),
    /// Nobody owns org.bluez.
    #[error("BlueZ (bluetoothd) is not running")]
    NoBlueZ,
    /// The bus or BlueZ says no.
    #[error("D-Bus refuses the hub the use of BlueZ: {0}")]
    Denied(String),
    /// No adapter, or not the one that is configured.
    #[error("there is no Bluetooth adapter{}", .wanted.as_deref().map(|name| format!(" {name}")).unwrap_or_default())]
    NoAdapter {
        /// `bluetooth.adapter`.
        wanted: Option<String>,
    },
    /// Soft-blocked, or it cannot be powered.
    #[error("the Bluetooth adapter {adapter} is switched off{}", if *.blocked { " (blocked by rfkill)" } else { "" })]
    Off { adapter: String, blocked: bool },
    /// BlueZ answers in another way than it should.
    #[error("BlueZ failed: {0}")]
    Failed(String),
}

impl BluetoothUnavailable {
    /// Whether there is Bluetooth, and something is wrong with it; a hub without any lacks nothing.
    pub fn is_amiss(&self) -> bool {
        match self {
            Self::SwitchedOff | Self::NoBus(_) | Self::NoBlueZ | Self::NoAdapter { wanted: None } => false,
            Self::NoAdapter { wanted: Some(_) } | Self::Denied(_) | Self::Off { .. } | Self::Failed(_) => true,
        }
    }

    /// What to do now.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::SwitchedOff => "set bluetooth.adapter in the configuration and restart the daemon",
            Self::NoBus(_) => {
                "install and start dbus, or bring the device onto the network with another commissioner and share it"
            }
            Self::NoBlueZ => "`systemctl enable --now bluetooth` (package bluez)",
            Self::Denied(_) => {
                "install the D-Bus policy /usr/share/dbus-1/system.d/matterbind.conf, then restart dbus and the daemon"
            }
            Self::NoAdapter { .. } => "plug a Bluetooth adapter in; `bluetoothctl list` shows what BlueZ has",
            Self::Off { blocked: true, .. } => "`rfkill unblock bluetooth`",
            Self::Off { blocked: false, .. } => "`bluetoothctl power on`",
            Self::Failed(_) => "`systemctl restart bluetooth`, then try again",
        }
    }
}

/// Who advertises, or why nobody can be heard.
pub(crate) type Heard = Result<Vec<BluetoothNode>, BluetoothUnavailable>;

/// The radio scans while this lives.
pub struct Looking {
    heard: watch::Receiver<Heard>,
    _scanning: Option<Arc<dyn Send + Sync>>,
}

impl Looking {
    /// `scanning` ends the scan when it is dropped.
    pub fn new(heard: watch::Receiver<Heard>, scanning: Arc<dyn Send + Sync>) -> Self {
        Self { heard, _scanning: Some(scanning) }
    }

    /// Nobody is heard, for this reason.
    pub fn unavailable(why: BluetoothUnavailable) -> Self {
        Self { heard: watch::Sender::new(Err(why)).subscribe(), _scanning: None }
    }

    /// As far as is known now.
    pub fn heard(&self) -> Heard {
        self.heard.borrow().clone()
    }

    /// Comes back when that has changed.
    pub async fn changed(&mut self) {
        if self.heard.changed().await.is_err() {
            pending().await
        }
    }
}

/// A connection to a device's Matter service: GATT writes to C1, indications of C2. It ends when either side drops it.
pub struct Gatt {
    /// ATT_MTU, where it is known.
    pub mtu: Option<u16>,
    /// To C1. The first one is written before C2 is subscribed to (Matter Core 4.19.4.3).
    pub writes: mpsc::Sender<Vec<u8>>,
    /// From C2, in their order; none is left out.
    pub indications: mpsc::Receiver<Vec<u8>>,
}

pub trait Radio: Send + Sync + 'static {
    /// Begins to scan, or joins who does; goes on until the last one who looks is gone.
    fn look(&self) -> Looking;
    /// Connects, and finds the Matter service.
    fn connect(&self, address: BluetoothAddress) -> BoxFuture<'static, Result<Gatt, LinkError>>;
    /// The adapter that would be used, or what is missing. Answers within seconds.
    fn adapter(&self) -> BoxFuture<'static, Result<String, BluetoothUnavailable>>;
}
