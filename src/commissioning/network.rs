//! Networks of the home, what devices say of theirs, and what can go wrong between them (Matter Core 11.9). Types and tables:
//! no I/O. Not here: the commands (`matter`), where the credentials are kept (`store`).

use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::durable::StoreError;
use crate::secret::{ThreadDataset, WifiPassword};

/// NetworkCommissioningStatusEnum (11.9.5.3).
mod status {
    pub(crate) const NETWORK_NOT_FOUND: u8 = 5;
    pub(crate) const REGULATORY_ERROR: u8 = 6;
    pub(crate) const AUTH_FAILURE: u8 = 7;
    pub(crate) const UNSUPPORTED_SECURITY: u8 = 8;
    pub(crate) const IPV6_FAILED: u8 = 10;
    pub(crate) const IP_BIND_FAILED: u8 = 11;
}

/// The kinds of network that devices join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NetworkKind {
    Wifi,
    Thread,
}

impl NetworkKind {
    /// The word in the store, the API and the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wifi => "wifi",
            Self::Thread => "thread",
        }
    }
}

impl fmt::Display for NetworkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wifi => "Wi-Fi",
            Self::Thread => "Thread",
        })
    }
}

/// What a device needs to join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkCredentials {
    Wifi {
        /// 1 to 32 bytes.
        ssid: Vec<u8>,
        /// Empty for an open network.
        password: WifiPassword,
    },
    Thread {
        /// The operational dataset, TLV.
        dataset: ThreadDataset,
        /// Its extended PAN id, which names it.
        extended_pan_id: [u8; 8],
    },
}

impl NetworkCredentials {
    pub fn kind(&self) -> NetworkKind {
        match self {
            Self::Wifi { .. } => NetworkKind::Wifi,
            Self::Thread { .. } => NetworkKind::Thread,
        }
    }

    /// NetworkID (11.9.6): the SSID, or the extended PAN id.
    pub fn id(&self) -> &[u8] {
        match self {
            Self::Wifi { ssid, .. } => ssid,
            Self::Thread { extended_pan_id, .. } => extended_pan_id,
        }
    }
}

/// One network of the home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HomeNetwork {
    /// What people call it: for Wi-Fi the SSID, where nobody said otherwise.
    pub name: String,
    /// What a device needs to join.
    pub credentials: NetworkCredentials,
}

/// The networks of the home, as an attempt asks for them.
pub(crate) trait HomeNetworks: Send + Sync + 'static {
    /// The one of this name, or the default one of a kind that the device has.
    fn network<'a>(
        &'a self,
        name: Option<&'a str>,
        kinds: &'a [NetworkKind],
    ) -> BoxFuture<'a, Result<HomeNetwork, NetworkError>>;
    /// Wakes when a network was set or forgotten.
    fn changes(&self) -> watch::Receiver<()>;
}

/// A network that a device sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenNetwork {
    /// NetworkID.
    pub id: Vec<u8>,
    /// As a person knows it.
    pub name: String,
    /// How strongly it is received, dBm.
    pub rssi: i8,
}

/// A device's own network interface, from Network Commissioning and General Commissioning on its root endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkInterface {
    /// What it can join; empty for Ethernet, or where it does not say.
    pub kinds: Vec<NetworkKind>,
    /// ScanMaxTimeSeconds.
    pub scan_max: Duration,
    /// ConnectMaxTimeSeconds.
    pub connect_max: Duration,
    /// SupportsConcurrentConnection.
    pub concurrent: bool,
    /// The network that it says to be connected to.
    pub connected: Option<Vec<u8>>,
}

/// Where a device does not say how long it scans or connects: the largest sensible value (11.9.6.3, 11.9.6.4).
const DEFAULT_MAX: Duration = Duration::from_secs(30);

impl Default for NetworkInterface {
    fn default() -> Self {
        Self { kinds: Vec::new(), scan_max: DEFAULT_MAX, connect_max: DEFAULT_MAX, concurrent: true, connected: None }
    }
}

/// What happens between a device and its network.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NetworkError {
    /// The hub has no network of a kind that the device can join.
    #[error("the device joins {}, and the hub knows no such network", list(kinds))]
    NoneKnown {
        /// What the device can join.
        kinds: Vec<NetworkKind>,
    },
    /// There is no network of that name.
    #[error("the hub knows no network {name:?}")]
    Unknown {
        /// Which was asked for.
        name: String,
    },
    /// The configuration has it, and its password or dataset cannot be had.
    #[error("the secret of the network {name:?} cannot be had: {why}")]
    Unreadable { name: String, why: String },
    /// The network is of a kind that the device lacks.
    #[error("{name:?} is a {kind} network, and the device joins {}", list(kinds))]
    WrongKind {
        name: String,
        kind: NetworkKind,
        /// What the device can join.
        kinds: Vec<NetworkKind>,
    },
    /// The device has no interface that the hub could configure.
    #[error("the device says that it has neither Wi-Fi nor Thread")]
    NoInterface,
    /// The device does not see it.
    #[error("the device does not see the network {name:?}; it sees {}", if seen.is_empty() { "none".to_owned() } else { seen.join(", ") })]
    NotSeen {
        name: String,
        /// What it sees instead.
        seen: Vec<String>,
    },
    /// The device tried, and said why it could not.
    #[error("the device could not join {name:?}: {} (networking status {status}{})", meaning(*status, *kind).1, said(text))]
    Refused {
        name: String,
        kind: NetworkKind,
        /// NetworkCommissioningStatusEnum.
        status: u8,
        /// DebugText.
        text: String,
    },
    /// It was sent to a network, and does not show itself there.
    #[error("the device was sent to {name:?} and has not shown itself there within {} s", waited.as_secs())]
    NotShown {
        name: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The hub's own store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn list(kinds: &[NetworkKind]) -> String {
    kinds.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

/// What a status means: its stable word, and a person's.
fn meaning(status: u8, kind: NetworkKind) -> (&'static str, &'static str) {
    match (status, kind) {
        (status::NETWORK_NOT_FOUND, _) => ("network-not-found", "it does not find it"),
        (status::AUTH_FAILURE, NetworkKind::Wifi) => ("wifi-password-wrong", "the password was refused"),
        (status::AUTH_FAILURE, NetworkKind::Thread) => ("thread-dataset-wrong", "the dataset was refused"),
        (status::UNSUPPORTED_SECURITY, _) => ("network-security-unsupported", "it lacks that network's security"),
        (status::IPV6_FAILED | status::IP_BIND_FAILED, _) => ("no-ip-address", "it got no address there"),
        (status::REGULATORY_ERROR, _) => {
            ("regulatory-refused", "it may not use that network's channel in this country")
        }
        _ => ("network-refused", "it tried, and failed"),
    }
}

fn said(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(", {text:?}") }
}

impl NetworkError {
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoneKnown { .. } => "network-not-configured",
            Self::Unknown { .. } => "unknown-network",
            Self::Unreadable { .. } => "network-secret-unreadable",
            Self::WrongKind { .. } | Self::NoInterface => "network-kind-unsupported",
            Self::NotSeen { .. } => "network-not-found",
            Self::Refused { status, kind, .. } => meaning(*status, *kind).0,
            Self::NotShown { .. } => "not-seen-on-network",
            Self::Store(error) => error.code(),
        }
    }

    /// Whether other credentials, or another network, may be tried while the fail-safe lasts.
    pub fn is_mended_by_credentials(&self) -> bool {
        match self {
            Self::NoneKnown { .. }
            | Self::Unknown { .. }
            | Self::Unreadable { .. }
            | Self::WrongKind { .. }
            | Self::NotSeen { .. }
            | Self::Refused { .. } => true,
            Self::NoInterface | Self::NotShown { .. } | Self::Store(_) => false,
        }
    }

    /// What to do now.
    pub fn hint(&self) -> &'static str {
        if let Self::Store(error) = self {
            return error.hint();
        }
        match self.code() {
            "network-not-configured" => {
                "tell the hub the network of the home: `matterbind network set wifi SSID` or `matterbind network set thread`"
            }
            "unknown-network" => "`matterbind network list` shows the networks that the hub knows",
            "network-secret-unreadable" => {
                "let the service read the file that [[networks]] names (`matterbind check-config` says what is wrong with it), or set \
                 the network by `matterbind network set`"
            }
            "network-kind-unsupported" => {
                "choose a network of a kind that the device has: `matterbind commission --network NAME`"
            }
            "network-not-found" => {
                "check that the access point or border router has power and that the device is within its reach; a device that \
                 joins 2.4 GHz only does not see 5 GHz"
            }
            "wifi-password-wrong" => "set the password again: `matterbind network set wifi SSID`, then try again",
            "thread-dataset-wrong" => "set the dataset again: `matterbind network set thread`, then try again",
            "network-security-unsupported" => {
                "the device lacks this network's security (WPA3 perhaps): let the access point offer WPA2 too"
            }
            "no-ip-address" => {
                "the device joined and got no address: check the DHCP server, or the router's advertisements"
            }
            "regulatory-refused" => "set commissioning.country in the configuration to the country that the hub is in",
            "not-seen-on-network" => {
                "check that hub and device are on one network: DHCP answers, the access point does not isolate its clients, the Thread \
                 border router runs"
            }
            _ => "try again; `matterbind logs` has the details",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_device_answers_is_told_in_words_that_a_person_understands() {
        let refused =
            |status, kind| NetworkError::Refused { name: "Home".to_owned(), kind, status, text: String::new() };
        let table = [
            (5, "network-not-found"),
            (6, "regulatory-refused"),
            (7, "wifi-password-wrong"),
            (8, "network-security-unsupported"),
            (9, "network-refused"),
            (10, "no-ip-address"),
            (11, "no-ip-address"),
            (12, "network-refused"),
        ];
        for (status, code) in table {
            assert_eq!(refused(status, NetworkKind::Wifi).code(), code);
            assert!(!refused(status, NetworkKind::Wifi).hint().is_empty());
        }
        assert_eq!(refused(7, NetworkKind::Thread).code(), "thread-dataset-wrong");
    }
}
