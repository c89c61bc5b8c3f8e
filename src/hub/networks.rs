//! The networks of the home that devices are brought to over Bluetooth: set, listed without what joins them, forgotten. Not here:
//! how a device joins one (`commissioning`).

use std::path::PathBuf;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};
use tokio::sync::watch;
use utoipa::ToSchema;

use super::Hub;
use super::refusal::Refusal;
use super::world::World;
use crate::commissioning::error::Disposition;
use crate::commissioning::network::{HomeNetwork, HomeNetworks, NetworkCredentials, NetworkError, NetworkKind};
use crate::config::validate::MAX_SSID;
use crate::config::{HomeNetworkConfig, secret_file};
use crate::journal::{Event, EventSink, Level};
use crate::plain;
use crate::secret::{OperatorSecret, ThreadDataset, WifiPassword};
use crate::store::{Store, StoredNetwork};

/// A name that fits a line.
const MAX_NAME: usize = 64;
/// Credentials of AddOrUpdateWiFiNetwork (11.9.7.3), and a Thread dataset.
const MAX_PASSWORD: usize = 64;
const MAX_DATASET: usize = 254;
/// MeshCoP TLV types (Thread 8.10.1).
const EXTENDED_PAN_ID: u8 = 2;
const NETWORK_NAME: u8 = 3;
const NETWORK_KEY: u8 = 5;

/// Keeps the networks of the home.
pub trait NetworksDoor: Send + Sync + 'static {
    /// All of them, without what joins them.
    fn networks(&self) -> impl Future<Output = Result<NetworkList, Refusal>> + Send;
    /// Writes one down, or anew.
    fn set_network(
        &self,
        order: NetworkOrder,
        who: String,
    ) -> impl Future<Output = Result<NetworkList, Refusal>> + Send;
    /// Forgets the credentials of `name`; devices that have joined by them keep them.
    fn forget_network(&self, name: &str, who: String) -> impl Future<Output = Result<NetworkList, Refusal>> + Send;
}

/// `POST /v1/networks`. The command line writes it, so its secrets are exposed here, and nowhere else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum NetworkOrder {
    /// A Wi-Fi network.
    Wifi {
        /// 1 to 32 bytes.
        ssid: String,
        /// 8 to 63 characters, 64 hexadecimal digits, or empty for an open network. Never answered by anything.
        #[serde(serialize_with = "write_password")]
        #[schema(value_type = String)]
        password: WifiPassword,
        /// What to call it; else the SSID.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Whether devices are brought to it where nobody names another.
        #[serde(default)]
        default: bool,
    },
    /// A Thread network.
    Thread {
        /// The active operational dataset, TLV in hexadecimal. Never answered by anything.
        #[serde(serialize_with = "write_dataset")]
        #[schema(value_type = String)]
        dataset: OperatorSecret,
        /// What to call it; else its own name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Whether devices are brought to it where nobody names another.
        #[serde(default)]
        default: bool,
    },
}

fn write_password<S: Serializer>(password: &WifiPassword, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(password.expose())
}

fn write_dataset<S: Serializer>(dataset: &OperatorSecret, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(dataset.expose())
}

/// `GET /v1/networks`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetworkList {
    /// All that are kept, in the order of their names.
    pub networks: Vec<NetworkView>,
}

/// A network as it may be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetworkView {
    /// What people call it.
    pub name: String,
    /// `wifi` or `thread`.
    pub kind: String,
    /// The SSID, or the extended PAN id in hexadecimal.
    pub id: String,
    /// Whether devices of its kind are brought to it where nobody names another.
    pub default: bool,
    /// Whether the configuration has it; then it is not forgotten by command.
    pub configured: bool,
    /// When it was set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_at: Option<Timestamp>,
}

impl From<StoredNetwork> for NetworkView {
    fn from(stored: StoredNetwork) -> Self {
        Self {
            name: stored.name,
            kind: stored.kind.as_str().to_owned(),
            id: id_text(stored.kind, &stored.id),
            default: stored.is_default,
            configured: false,
            set_at: Some(stored.set_at),
        }
    }
}

fn id_text(kind: NetworkKind, id: &[u8]) -> String {
    match kind {
        NetworkKind::Wifi => String::from_utf8_lossy(id).into_owned(),
        NetworkKind::Thread => plain::lower_hex(id),
    }
}

/// Stored and configured networks, and who waits for them to change.
pub(crate) struct Networks {
    store: Store,
    configured: Vec<HomeNetworkConfig>,
    changes: watch::Sender<()>,
}

impl Networks {
    pub(crate) fn new(store: Store, configured: Vec<HomeNetworkConfig>) -> Self {
        Self { store, configured, changes: watch::Sender::new(()) }
    }

    /// One that the configuration has; its secret is read now, so that a changed file is a changed password.
    fn configured_as(&self, name: &str) -> Option<Result<HomeNetwork, NetworkError>> {
        let entry = self.configured.iter().find(|entry| entry.name() == name)?;
        let unreadable = |why| NetworkError::Unreadable { name: name.to_owned(), why };
        let read = |path: &PathBuf| secret_file::read(path).map_err(|error| unreadable(plain::with_causes(&error)));
        let network = match (&entry.ssid, &entry.password_file, &entry.dataset_file) {
            (_, _, Some(file)) => read(file).and_then(|secret| {
                let dataset = Dataset::read(secret.expose()).map_err(|what| unreadable(what.to_owned()))?;
                Ok(NetworkCredentials::Thread { extended_pan_id: dataset.extended_pan_id, dataset: dataset.tlv })
            }),
            (Some(ssid), Some(file), None) => read(file).map(|secret| NetworkCredentials::Wifi {
                ssid: ssid.as_bytes().to_vec(),
                password: WifiPassword::new(secret.expose()),
            }),
            (ssid, None, None) => Ok(NetworkCredentials::Wifi {
                ssid: ssid.clone().unwrap_or_default().into_bytes(),
                password: WifiPassword::new(""),
            }),
            (None, Some(_), None) => Err(NetworkError::Unknown { name: name.to_owned() }),
        };
        Some(network.map(|credentials| HomeNetwork { name: name.to_owned(), credentials }))
    }

    async fn of_name(&self, name: &str) -> Result<HomeNetwork, NetworkError> {
        if let Some(network) = self.store.network(name).await? {
            return Ok(network);
        }
        self.configured_as(name).unwrap_or_else(|| Err(NetworkError::Unknown { name: name.to_owned() }))
    }

    /// The stored default one of a kind, else the first that is configured.
    async fn default_of(&self, kinds: &[NetworkKind]) -> Result<HomeNetwork, NetworkError> {
        let stored = self.store.networks().await?;
        let default = kinds.iter().find_map(|kind| stored.iter().find(|one| one.kind == *kind && one.is_default));
        let configured =
            || self.configured.iter().find(|entry| kinds.contains(&entry.kind())).map(|entry| entry.name());
        match default.map(|one| one.name.clone()).or_else(configured) {
            Some(name) => self.of_name(&name).await,
            None => Err(NetworkError::NoneKnown { kinds: kinds.to_vec() }),
        }
    }
}

impl HomeNetworks for Networks {
    fn network<'a>(
        &'a self,
        name: Option<&'a str>,
        kinds: &'a [NetworkKind],
    ) -> BoxFuture<'a, Result<HomeNetwork, NetworkError>> {
        Box::pin(async move {
            let network = match name {
                Some(name) => self.of_name(name).await?,
                None => self.default_of(kinds).await?,
            };
            let kind = network.credentials.kind();
            if kinds.contains(&kind) {
                return Ok(network);
            }
            Err(NetworkError::WrongKind { name: network.name, kind, kinds: kinds.to_vec() })
        })
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }
}

impl<W: World> NetworksDoor for Hub<W> {
    async fn networks(&self) -> Result<NetworkList, Refusal> {
        let mut networks: Vec<NetworkView> =
            self.networks.store.networks().await?.into_iter().map(NetworkView::from).collect();
        for entry in &self.networks.configured {
            let (name, kind) = (entry.name(), entry.kind());
            if networks.iter().any(|one| one.name == name) {
                continue;
            }
            let default = !networks.iter().any(|one| one.default && one.kind == kind.as_str());
            let id = entry.ssid.clone().unwrap_or_default();
            networks.push(NetworkView {
                name,
                kind: kind.as_str().to_owned(),
                id,
                default,
                configured: true,
                set_at: None,
            });
        }
        Ok(NetworkList { networks })
    }

    async fn set_network(&self, order: NetworkOrder, who: String) -> Result<NetworkList, Refusal> {
        let (network, default) = understood(order)?;
        self.networks.store.set_network(&network, default, Timestamp::now()).await?;
        self.networks.changes.send_replace(());
        let kind = network.credentials.kind();
        let message = format!("{who} has set the {kind} network {:?}", network.name);
        self.journal.record(Event::new(Timestamp::now(), Level::Info, "network-set", message));
        NetworksDoor::networks(self).await
    }

    async fn forget_network(&self, name: &str, who: String) -> Result<NetworkList, Refusal> {
        if !self.networks.store.forget_network(name).await? {
            let (message, hint) = match self.networks.configured.iter().any(|entry| entry.name() == name) {
                true => {
                    (format!("{name:?} is in the configuration"), "take it out of [[networks]] and restart the daemon")
                }
                false => (
                    format!("the hub knows no network {name:?}"),
                    "`matterbind network list` shows those that it knows",
                ),
            };
            return Err(Refusal::new("unknown-network", Disposition::UserAction, message, hint));
        }
        self.networks.changes.send_replace(());
        let message = format!("{who} has had the network {name:?} forgotten");
        self.journal.record(Event::new(Timestamp::now(), Level::Info, "network-forgotten", message));
        NetworksDoor::networks(self).await
    }
}

/// An order with everything checked that can be known without a device. No message has a secret in it.
fn understood(order: NetworkOrder) -> Result<(HomeNetwork, bool), Refusal> {
    let wrong = |code: &str, message: &str, hint: &str| Refusal::new(code, Disposition::UserAction, message, hint);
    let (name, credentials, default) = match order {
        NetworkOrder::Wifi { ssid, password, name, default } => {
            if ssid.is_empty() || ssid.len() > MAX_SSID {
                return Err(wrong(
                    "invalid-ssid",
                    "an SSID has 1 to 32 bytes",
                    "check the name that the access point shows",
                ));
            }
            if !is_password(password.expose()) {
                let message = "a Wi-Fi password has 8 to 63 characters, or is 64 hexadecimal digits, or empty for an open network";
                return Err(wrong("invalid-password", message, "check what was typed; nothing was kept"));
            }
            let name = name.filter(|name| !name.is_empty()).unwrap_or_else(|| ssid.clone());
            (name, NetworkCredentials::Wifi { ssid: ssid.into_bytes(), password }, default)
        }
        NetworkOrder::Thread { dataset, name, default } => {
            let dataset = Dataset::read(dataset.expose())
                .map_err(|what| wrong("invalid-dataset", what, "`ot-ctl dataset active -x` prints the dataset"))?;
            let name = name.filter(|name| !name.is_empty()).unwrap_or(dataset.name);
            (
                name,
                NetworkCredentials::Thread { dataset: dataset.tlv, extended_pan_id: dataset.extended_pan_id },
                default,
            )
        }
    };
    if name.chars().count() > MAX_NAME || name.chars().any(char::is_control) {
        return Err(wrong("invalid-name", "a network's name has 1 to 64 characters", "choose another: --name"));
    }
    Ok((HomeNetwork { name, credentials }, default))
}

fn is_password(password: &str) -> bool {
    let is_key = password.len() == MAX_PASSWORD && password.bytes().all(|byte| byte.is_ascii_hexdigit());
    password.is_empty() || is_key || (8..MAX_PASSWORD).contains(&password.len())
}

/// A Thread operational dataset (Thread 8.10.1): types, lengths and values.
struct Dataset {
    tlv: ThreadDataset,
    extended_pan_id: [u8; 8],
    name: String,
}

impl Dataset {
    fn read(hex: &str) -> Result<Self, &'static str> {
        let digits: Vec<u8> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        let octet = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let bytes: Option<Vec<u8>> = digits.chunks(2).map(octet).collect();
        let bytes =
            bytes.filter(|_| digits.len().is_multiple_of(2)).ok_or("a dataset is written in hexadecimal digits")?;
        if bytes.is_empty() || bytes.len() > MAX_DATASET {
            return Err("a dataset has 1 to 254 bytes");
        }
        let (mut extended_pan_id, mut name, mut has_key): (Option<[u8; 8]>, _, _) = (None, String::new(), false);
        let mut rest = &bytes[..];
        while let [kind, length, tail @ ..] = rest {
            let value = tail.get(..usize::from(*length)).ok_or("the dataset breaks off")?;
            match *kind {
                EXTENDED_PAN_ID => extended_pan_id = value.try_into().ok(),
                NETWORK_NAME => name = String::from_utf8_lossy(value).into_owned(),
                NETWORK_KEY => has_key = value.len() == 16,
                _ => {}
            }
            rest = &tail[value.len()..];
        }
        if !rest.is_empty() {
            return Err("the dataset breaks off");
        }
        let extended_pan_id =
            extended_pan_id.filter(|_| has_key).ok_or("the dataset lacks extended PAN id or network key")?;
        let name = if name.is_empty() { id_text(NetworkKind::Thread, &extended_pan_id) } else { name };
        Ok(Self { tlv: ThreadDataset::new(bytes), extended_pan_id, name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the OpenThread documentation.
    const DATASET: &str = "0e080000000000010000000300000f35060004001fffe0020811111111222222220708fd61f77bd3df233e051000112233445566778899aabbccddeeff030e4f70656e54687265616444656d6f010212340410445f2b5ca6f2a93a55ce570a70efeecb0c0402a0f7f8";

    fn wifi(ssid: &str, password: &str) -> Result<(HomeNetwork, bool), Refusal> {
        let (ssid, password) = (ssid.to_owned(), WifiPassword::new(password));
        understood(NetworkOrder::Wifi { ssid, password, name: None, default: false })
    }

    #[test]
    fn what_cannot_join_is_refused_before_it_is_kept() {
        assert_eq!(wifi("Home", "correct horse").unwrap().0.name, "Home");
        assert!(wifi("Home", "").is_ok() && wifi("Home", &"a".repeat(64)).is_ok());
        for (ssid, password, code) in [
            ("", "correct horse", "invalid-ssid"),
            (&*"x".repeat(33), "correct horse", "invalid-ssid"),
            ("Home", "short", "invalid-password"),
            ("Home", &*"z".repeat(64), "invalid-password"),
        ] {
            let refused = wifi(ssid, password).unwrap_err();
            assert_eq!(refused.code, code);
            assert!(password.is_empty() || !refused.message.contains(password));
        }
    }

    #[test]
    fn a_dataset_tells_its_names() {
        let dataset = Dataset::read(DATASET).unwrap_or_else(|what| panic!("{what}"));
        assert_eq!(dataset.name, "OpenThreadDemo");
        assert_eq!(dataset.extended_pan_id, [0x11, 0x11, 0x11, 0x11, 0x22, 0x22, 0x22, 0x22]);
        for (hex, why) in [
            ("", "1 to 254"),
            ("0e0", "hexadecimal"),
            ("0e08", "breaks off"),
            ("0208111111112222222", "hexadecimal"),
            ("02081111111122222222", "lacks"),
        ] {
            assert!(Dataset::read(hex).err().is_some_and(|what| what.contains(why)), "{hex}");
        }
    }
}
