//! Bluetooth by BlueZ over D-Bus. Signals are read as a queue, in their order; rs-matter's own central reads them as a property
//! that forgets (one in three attempts lost a segment). Everything that was asked of BlueZ hangs on a bus connection of its own,
//! so that BlueZ ends it when that goes, with the process at the latest.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::{mpsc, watch};
use zbus::fdo::{DBusProxy, ManagedObjects, ObjectManagerProxy, PropertiesProxy};
use zbus::names::BusName;
use zbus::zvariant::{OwnedValue, Value};
use zbus::{Connection, DBusError, Proxy};

use super::turns::AdapterTurns;
use super::{SEGMENTS, advertised, tell};
use crate::commissioning::radio::{BluetoothUnavailable, Gatt, Heard};
use crate::node::{BluetoothAddress, BluetoothNode};

const BLUEZ: &str = "org.bluez";
const ADAPTER: &str = "org.bluez.Adapter1";
const DEVICE: &str = "org.bluez.Device1";
const CHARACTERISTIC: &str = "org.bluez.GattCharacteristic1";
/// Matter's service, and its characteristics C1 and C2 (Matter Core 4.19.4.2).
const SERVICE: &str = "0000fff6-0000-1000-8000-00805f9b34fb";
const C1: &str = "18ee2ef5-263d-4559-959f-4f9c429f9d11";
const C2: &str = "18ee2ef5-263d-4559-959f-4f9c429f9d12";
/// How often BlueZ's objects are looked at while somebody looks.
const LOOK: Duration = Duration::from_millis(500);
/// Answers of the bus and of BlueZ about itself, where somebody wants to know how it stands.
const ANSWER: Duration = Duration::from_secs(3);
/// The same where somebody wants to use it: a slow hub needs so long for a BlueZ that has just started.
const PATIENT_ANSWER: Duration = Duration::from_secs(15);
/// A device whose connection fails at once is asked again so often: the first tries often fail.
const CONNECTS: u32 = 4;
const CONNECT_AGAIN: Duration = Duration::from_millis(500);
/// From the connection to the list of its services.
const RESOLVE: Duration = Duration::from_millis(50);
/// What is not ended by then is ended by BlueZ, which notices that our connection to the bus has gone.
const FAREWELL: Duration = Duration::from_secs(2);

#[derive(Debug, Clone)]
pub(super) struct Bluez {
    wanted: Option<String>,
    ours: Ours,
    turns: AdapterTurns,
}

/// The devices, by their paths, to which this process has a connection or makes one.
#[derive(Debug, Clone, Default)]
struct Ours(Arc<Mutex<Vec<String>>>);

impl Ours {
    fn take(&self, device: &str) -> Taken {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(device.to_owned());
        Taken { ours: self.clone(), device: device.to_owned() }
    }

    fn has(&self, device: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|taken| taken == device)
    }
}

/// It is ours while this lives.
struct Taken {
    ours: Ours,
    device: String,
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut all = self.ours.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = all.iter().position(|taken| *taken == self.device) {
            all.swap_remove(at);
        }
    }
}

/// Why something was not done.
#[derive(Debug)]
pub(super) struct Failed(String);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<zbus::Error> for Failed {
    fn from(error: zbus::Error) -> Self {
        Self(said(&error))
    }
}

impl From<zbus::fdo::Error> for Failed {
    fn from(error: zbus::fdo::Error) -> Self {
        Self(error.to_string())
    }
}

/// The sentence of a D-Bus error, without its names.
fn said(error: &zbus::Error) -> String {
    match error {
        zbus::Error::MethodError(name, detail, _) => detail.clone().unwrap_or_else(|| name.to_string()),
        zbus::Error::FDO(error) => error.description().unwrap_or(error.name().as_str()).to_owned(),
        other => other.to_string(),
    }
}

fn unavailable(error: &zbus::Error) -> BluetoothUnavailable {
    let name = match error {
        zbus::Error::MethodError(name, _, _) => name.to_string(),
        // The same, as the proxies of the bus's own interfaces say it.
        zbus::Error::FDO(error) => error.name().to_string(),
        _ => return BluetoothUnavailable::Failed(said(error)),
    };
    match name.as_str() {
        "org.freedesktop.DBus.Error.AccessDenied" => BluetoothUnavailable::Denied(said(error)),
        "org.freedesktop.DBus.Error.ServiceUnknown" | "org.freedesktop.DBus.Error.NameHasNoOwner" => {
            BluetoothUnavailable::NoBlueZ
        }
        _ => BluetoothUnavailable::Failed(said(error)),
    }
}

type Properties = HashMap<String, OwnedValue>;

fn boolean(properties: &Properties, name: &str) -> bool {
    properties.get(name).and_then(|value| bool::try_from(value).ok()).unwrap_or(false)
}

/// An adapter that can be used, on a connection to the bus.
struct Ready {
    bus: Connection,
    path: String,
    name: String,
    objects: ManagedObjects,
}

impl Bluez {
    pub(super) fn new(wanted: Option<String>) -> Self {
        Self { wanted, ours: Ours::default(), turns: AdapterTurns::default() }
    }

    /// The adapter's name, or what is missing.
    pub(super) async fn adapter(&self) -> Result<String, BluetoothUnavailable> {
        self.ready(false).await.map(|ready| ready.name)
    }

    /// Finds the adapter, and powers it where somebody wants to use it now.
    async fn ready(&self, power: bool) -> Result<Ready, BluetoothUnavailable> {
        let patience = if power { PATIENT_ANSWER } else { ANSWER };
        match tokio::time::timeout(patience, self.find(power)).await {
            Ok(found) => found,
            Err(_) => Err(BluetoothUnavailable::Failed("it does not answer".to_owned())),
        }
    }

    async fn find(&self, power: bool) -> Result<Ready, BluetoothUnavailable> {
        let bus = Connection::system().await.map_err(|error| BluetoothUnavailable::NoBus(said(&error)))?;
        let names = DBusProxy::new(&bus).await.map_err(|error| unavailable(&error))?;
        let bluez = BusName::try_from(BLUEZ).map_err(|error| BluetoothUnavailable::Failed(error.to_string()))?;
        match names.name_has_owner(bluez).await {
            Ok(true) => {}
            Ok(false) => return Err(BluetoothUnavailable::NoBlueZ),
            Err(error) => return Err(BluetoothUnavailable::Denied(error.to_string())),
        }
        let objects = managed(&bus).await.map_err(|error| unavailable(&error))?;
        let wanted = |path: &str| self.wanted.as_deref().is_none_or(|name| path.ends_with(&format!("/{name}")));
        let mut adapters: Vec<(String, Properties)> = objects
            .iter()
            .filter_map(|(path, interfaces)| Some((path.to_string(), interfaces.get(ADAPTER)?)))
            .filter(|(path, _)| wanted(path))
            .map(|(path, properties)| (path, properties.iter().map(|(k, v)| (k.to_string(), v.clone())).collect()))
            .collect();
        adapters.sort_by(|a, b| a.0.cmp(&b.0));
        let Some((path, properties)) = adapters.into_iter().next() else {
            return Err(BluetoothUnavailable::NoAdapter { wanted: self.wanted.clone() });
        };
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        if !boolean(&properties, "Powered") {
            let powered = power && {
                let adapter =
                    Proxy::new(&bus, BLUEZ, path.clone(), ADAPTER).await.map_err(|error| unavailable(&error))?;
                adapter.set_property("Powered", true).await.is_ok()
            };
            if !powered {
                let state = properties.get("PowerState").and_then(|state| <&str>::try_from(state).ok());
                let blocked = state == Some("off-blocked");
                if power || blocked {
                    return Err(BluetoothUnavailable::Off { adapter: name, blocked });
                }
            }
        }
        Ok(Ready { bus, path, name, objects })
    }

    /// Scans until it fails or is dropped; BlueZ ends the scan with the connection that began it.
    pub(super) async fn scan(&self, heard: &watch::Sender<Heard>) -> BluetoothUnavailable {
        let ready = match self.ready(true).await {
            Ok(ready) => ready,
            Err(why) => return why,
        };
        ready.release_leftovers(&self.ours).await;
        match ready.scan(&self.turns, heard).await {
            Ok(never) => match never {},
            Err(error) => unavailable(&error),
        }
    }

    /// Connects, finds the service, and carries segments until either side drops the connection.
    pub(super) async fn connect(&self, address: BluetoothAddress) -> Result<Gatt, Failed> {
        let ready = self.ready(true).await.map_err(|why| Failed(why.to_string()))?;
        let device = format!("{}/dev_{}", ready.path, address.to_string().replace(':', "_"));
        let taken = Some(self.ours.take(&device));
        Link { bus: ready.bus, device, taken }.open(&self.turns).await
    }
}

enum Never {}

async fn managed(bus: &Connection) -> Result<ManagedObjects, zbus::Error> {
    let objects = ObjectManagerProxy::new(bus, BLUEZ, "/").await?;
    Ok(objects.get_managed_objects().await?)
}

impl Ready {
    async fn scan(&self, turns: &AdapterTurns, heard: &watch::Sender<Heard>) -> Result<Never, zbus::Error> {
        let adapter = Proxy::new(&self.bus, BLUEZ, self.path.clone(), ADAPTER).await?;
        // No filter by UUID: BlueZ looks for that in a list which Matter's advertisement does not have, and not in service data.
        let filter: HashMap<&str, Value<'_>> = [("Transport", "le".into()), ("DuplicateData", true.into())].into();
        adapter.call_method("SetDiscoveryFilter", &(filter,)).await?;
        loop {
            let turn = turns.scan().await;
            adapter.call_method("StartDiscovery", &()).await?;
            tokio::select! {
                failed = self.look(heard) => return failed,
                () = turns.is_over() => {}
            }
            adapter.call_method("StopDiscovery", &()).await?;
            drop(turn);
        }
    }

    async fn look(&self, heard: &watch::Sender<Heard>) -> Result<Never, zbus::Error> {
        loop {
            let objects = managed(&self.bus).await?;
            let mine = objects.iter().filter(|(path, _)| path.as_str().starts_with(&self.path));
            let seen = mine.filter_map(|(path, interfaces)| seen(path.as_str(), interfaces.get(DEVICE)?));
            tell(heard, seen.collect());
            tokio::time::sleep(LOOK).await;
        }
    }

    /// A hub that was killed may have left a device connected, which then advertises no more.
    async fn release_leftovers(&self, ours: &Ours) {
        for (path, interfaces) in &self.objects {
            let Some(device) = interfaces.get(DEVICE) else { continue };
            let is = |name: &str| device.get(name).and_then(|value| bool::try_from(value).ok()).unwrap_or(false);
            let left_over = path.as_str().starts_with(&self.path)
                && !ours.has(path.as_str())
                && is("Connected")
                && !is("Paired")
                && service_data(device).is_some();
            if left_over && let Ok(proxy) = Proxy::new(&self.bus, BLUEZ, path.clone(), DEVICE).await {
                let left = tokio::time::timeout(FAREWELL, proxy.call_method("Disconnect", &())).await;
                tracing::info!(device = %path, ended = left.is_ok(), "a Bluetooth connection was left over");
            }
        }
    }
}

fn service_data<K: std::borrow::Borrow<str> + std::hash::Hash + Eq>(
    device: &HashMap<K, OwnedValue>,
) -> Option<Vec<u8>> {
    let all = <HashMap<String, OwnedValue>>::try_from(device.get("ServiceData")?.clone()).ok()?;
    <Vec<u8>>::try_from(all.get(SERVICE)?.clone()).ok()
}

/// A device that is heard now: BlueZ keeps those that it heard once, without RSSI.
fn seen<K: std::borrow::Borrow<str> + std::hash::Hash + Eq>(
    path: &str,
    device: &HashMap<K, OwnedValue>,
) -> Option<BluetoothNode> {
    let rssi = i16::try_from(device.get("RSSI")?).ok()?;
    let address = path.rsplit("dev_").next()?.parse().ok()?;
    advertised(address, &service_data(device)?, rssi)
}

/// A connection to a device, on a connection to the bus of its own. Whoever drops it ends it, in the middle of connecting too.
struct Link {
    bus: Connection,
    device: String,
    taken: Option<Taken>,
}

impl Drop for Link {
    fn drop(&mut self) {
        let (bus, device, taken) = (self.bus.clone(), std::mem::take(&mut self.device), self.taken.take());
        // Where the runtime has ended, the process ends, and the next start releases what is left.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            if let Ok(proxy) = Proxy::new(&bus, BLUEZ, device.as_str(), DEVICE).await {
                let ended = tokio::time::timeout(FAREWELL, proxy.call_method("Disconnect", &())).await;
                tracing::debug!(device, ended = ended.is_ok(), "disconnected");
            }
            drop(taken);
        });
    }
}

impl Link {
    async fn open(self, turns: &AdapterTurns) -> Result<Gatt, Failed> {
        let turn = turns.connect().await;
        let device = Proxy::new(&self.bus, BLUEZ, self.device.clone(), DEVICE).await?;
        let properties = properties(&self.bus, &self.device).await?;
        // Subscribed before anything can change.
        let mut changes = properties.receive_properties_changed().await?;
        let mut tries = 1;
        while let Err(error) = device.call_method("Connect", &()).await {
            if tries == CONNECTS {
                return Err(error.into());
            }
            tries += 1;
            tokio::time::sleep(CONNECT_AGAIN).await;
        }
        drop(turn);
        while !device.get_property::<bool>("ServicesResolved").await? {
            tokio::time::sleep(RESOLVE).await;
        }
        let (c1, c2, mtu) = self.characteristics().await?;
        let mut values = properties_of(&self.bus, &c2).await?;
        let to = Proxy::new(&self.bus, BLUEZ, c1, CHARACTERISTIC).await?;
        let from = Proxy::new(&self.bus, BLUEZ, c2, CHARACTERISTIC).await?;
        let (writes, mut outgoing) = mpsc::channel::<Vec<u8>>(SEGMENTS);
        let (incoming, indications) = mpsc::channel(SEGMENTS);
        tokio::spawn(async move {
            let send = async {
                let mut subscribed = false;
                while let Some(segment) = outgoing.recv().await {
                    let options: HashMap<&str, Value<'_>> = [("type", "request".into())].into();
                    to.call_method("WriteValue", &(segment, options)).await?;
                    // The handshake first, then the subscription: its answer comes as the first indication.
                    if !subscribed {
                        from.call_method("StartNotify", &()).await?;
                        subscribed = true;
                    }
                }
                Ok::<_, zbus::Error>(())
            };
            let receive = async {
                while let Some(change) = values.next().await {
                    let Ok(change) = change.args() else { continue };
                    let Some(value) = change.changed_properties().get("Value") else { continue };
                    let Ok(segment) =
                        value.try_to_owned().map_err(drop).and_then(|v| <Vec<u8>>::try_from(v).map_err(drop))
                    else {
                        continue;
                    };
                    if !segment.is_empty() && incoming.send(segment).await.is_err() {
                        return;
                    }
                }
            };
            let gone = async {
                while let Some(change) = changes.next().await {
                    let Ok(change) = change.args() else { continue };
                    let connected = change.changed_properties().get("Connected");
                    if connected.is_some_and(|connected| bool::try_from(connected) == Ok(false)) {
                        return;
                    }
                }
            };
            tokio::select! {
                sent = send => tracing::debug!(?sent, "nothing more is written over Bluetooth"),
                () = receive => {}
                () = gone => tracing::debug!("the Bluetooth connection was lost"),
                () = incoming.closed() => {}
            }
            drop(self);
        });
        Ok(Gatt { mtu, writes, indications })
    }

    /// Paths of C1 and C2, and the MTU.
    async fn characteristics(&self) -> Result<(String, String, Option<u16>), Failed> {
        let objects = managed(&self.bus).await?;
        let (mut c1, mut c2, mut mtu) = (None, None, None);
        for (path, interfaces) in objects.iter().filter(|(path, _)| path.as_str().starts_with(&self.device)) {
            let Some(characteristic) = interfaces.get(CHARACTERISTIC) else { continue };
            let uuid = characteristic.get("UUID").and_then(|uuid| <&str>::try_from(uuid).ok());
            match uuid {
                Some(C1) => {
                    c1 = Some(path.to_string());
                    mtu = characteristic.get("MTU").and_then(|mtu| u16::try_from(mtu).ok());
                }
                Some(C2) => c2 = Some(path.to_string()),
                _ => {}
            }
        }
        let missing = || Failed("the device does not offer Matter's service".to_owned());
        Ok((c1.ok_or_else(missing)?, c2.ok_or_else(missing)?, mtu))
    }
}

async fn properties(bus: &Connection, path: &str) -> Result<PropertiesProxy<'static>, zbus::Error> {
    PropertiesProxy::builder(bus).destination(BLUEZ)?.path(path.to_owned())?.build().await
}

async fn properties_of(bus: &Connection, path: &str) -> Result<zbus::fdo::PropertiesChangedStream, zbus::Error> {
    properties(bus, path).await?.receive_properties_changed().await
}

#[cfg(test)]
mod tests {
    use zbus::fdo;

    use super::*;

    #[test]
    fn a_refusal_of_the_bus_is_told_from_a_bluez_that_fails() {
        let why = |error: fdo::Error| unavailable(&zbus::Error::FDO(Box::new(error)));
        let refused = why(fdo::Error::AccessDenied("Rejected send message".to_owned()));
        assert_eq!(refused, BluetoothUnavailable::Denied("Rejected send message".to_owned()));
        assert_eq!(why(fdo::Error::ServiceUnknown(String::new())), BluetoothUnavailable::NoBlueZ);
        assert_eq!(why(fdo::Error::NameHasNoOwner(String::new())), BluetoothUnavailable::NoBlueZ);
        let failed = why(fdo::Error::NoReply("too late".to_owned()));
        assert_eq!(failed, BluetoothUnavailable::Failed("too late".to_owned()));
    }
}
