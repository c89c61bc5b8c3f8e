//! The same light out of its box: on Bluetooth, and on no network before a commissioner has sent it to one (Matter Core 11.9).
//! BTP and the cluster are rs-matter's; here are the air, and the network that is there or not. Not here: the light (`light`).

use std::cell::{Cell, RefCell};
use std::fs::OpenOptions;
use std::future::pending;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rs_matter::Matter;
use rs_matter::crypto::backend::rustcrypto::RustCrypto;
use rs_matter::crypto::{Crypto, Rng};
use rs_matter::dm::clusters::app::level_control::LevelControlHooks;
use rs_matter::dm::clusters::app::on_off::{self, OnOffHandler, OnOffHooks};
use rs_matter::dm::clusters::desc::{self, ClusterHandler as _};
use rs_matter::dm::clusters::dev_att::DeviceAttestation as _;
use rs_matter::dm::clusters::identify::{self, IdentifyHandler};
use rs_matter::dm::clusters::net_comm::{
    NetCtl, NetCtlError, NetCtlStatus, NetworkCommissioningStatusEnum, NetworkScanInfo, NetworkType, WiFiBandEnum,
    WiFiSecurityBitmap, WirelessCreds,
};
use rs_matter::dm::clusters::wifi_diag::{WifiDiag, WirelessDiag};
use rs_matter::dm::devices::DEV_TYPE_ON_OFF_LIGHT;
use rs_matter::dm::networks::wireless::{NetCtlState, WifiNetworks};
use rs_matter::dm::networks::{NetChangeNotif, SysNetifs};
use rs_matter::dm::{Async, DataModel, Dataver, Endpoint, Node, endpoints};
use rs_matter::error::Error;
use rs_matter::im::{InteractionModel, WirelessInteractionModelState};
use rs_matter::respond::DefaultResponder;
use rs_matter::sc::pase::MAX_COMM_WINDOW_TIMEOUT_SECS;
use rs_matter::transport::exchange::MatterBuffers;
use rs_matter::transport::network::btp::{AdvData, Btp};
use rs_matter::transport::network::{Address, BtAddr, ChainedNetwork};
use rs_matter::utils::sync::DynBase;
use rs_matter::{clusters, devices, root_endpoint};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::advertise::Advertiser;
use super::light::Light;
use super::node::{HANDLERS, LIGHT_ENDPOINT, Udp, Window, basic_information, evidence, failed};
use super::storage::Storage;
use super::{RadioOptions, ReadyInfo, VirtualDeviceError, VirtualDeviceOptions};
use crate::bluetooth::air::{self, Station};
use crate::commissioning::radio::Gatt;
use crate::matter::btp::carry;
use crate::node::BluetoothAddress;

/// How often it looks whether it still has to advertise.
const LOOK: Duration = Duration::from_millis(50);
/// Networks that it can remember.
const NETWORKS: usize = 2;
/// Segments between the two halves of a connection.
const SEGMENTS: usize = 8;
/// The one channel of the one access point.
const CHANNEL: u16 = 6;
const BSSID: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// In its storage: a line for each ConnectNetwork that it was sent.
const JOINS: &str = "joins";

const NODE: Node<'static> = Node {
    endpoints: &[
        root_endpoint!(wifi),
        Endpoint::new(
            LIGHT_ENDPOINT,
            devices!(DEV_TYPE_ON_OFF_LIGHT),
            clusters!(desc::DescHandler::CLUSTER, identify::CLUSTER, Light::CLUSTER),
        ),
    ],
};

/// What the device is made of already.
pub(super) struct Parts {
    pub(super) storage: Storage,
    pub(super) socket: Udp,
    pub(super) port: u16,
    pub(super) advertiser: Advertiser,
    pub(super) codes: (String, String),
}

/// Its Wi-Fi: one access point, or none.
struct Wifi {
    options: RadioOptions,
    state: RefCell<NetCtlState>,
    joined: Cell<bool>,
    changed: Notify,
    /// Bluetooth shall be dropped.
    drop_link: Notify,
    /// See [`JOINS`].
    joins: PathBuf,
}

/// Clones are the same.
#[derive(Clone)]
struct AirWifi(Rc<Wifi>);

impl AirWifi {
    async fn join(&self, creds: &WirelessCreds<'_>) -> Result<(), NetCtlError> {
        let options = &self.0.options;
        let WirelessCreds::Wifi { ssid, pass } = creds else { return Err(NetCtlError::UnsupportedSecurity) };
        if options.drops_at_connect {
            self.0.drop_link.notify_one();
        }
        tokio::time::sleep(options.connect).await;
        match &options.wifi {
            Some((there, _)) if there.as_bytes() != *ssid => Err(NetCtlError::NetworkNotFound),
            None => Err(NetCtlError::NetworkNotFound),
            Some((_, password)) if password.expose().as_bytes() != *pass => Err(NetCtlError::AuthFailure),
            Some(_) => {
                self.set_joined(!options.no_address);
                Ok(())
            }
        }
    }

    fn note_join(&self, ssid: &str) -> io::Result<()> {
        let mut joins = OpenOptions::new().create(true).append(true).open(&self.0.joins)?;
        joins.write_all(format!("{ssid}\n").as_bytes())
    }

    fn set_joined(&self, joined: bool) {
        self.0.joined.set(joined);
        self.0.changed.notify_waiters();
    }

    /// Comes back when it is on the network, or not any more.
    async fn until(&self, joined: bool) {
        loop {
            let changed = self.0.changed.notified();
            if self.0.joined.get() == joined {
                return;
            }
            changed.await;
        }
    }
}

impl NetCtl for AirWifi {
    fn net_type(&self) -> NetworkType {
        NetworkType::Wifi
    }

    fn connect_max_time_seconds(&self) -> u8 {
        u8::try_from(self.0.options.connect.as_secs() + 2).unwrap_or(u8::MAX)
    }

    fn scan_max_time_seconds(&self) -> u8 {
        u8::try_from(self.0.options.scan.as_secs() + 2).unwrap_or(u8::MAX)
    }

    async fn scan<F>(&self, network: Option<&[u8]>, mut found: F) -> Result<(), NetCtlError>
    where
        F: FnMut(&NetworkScanInfo<'_>) -> Result<(), Error>,
    {
        tokio::time::sleep(self.0.options.scan).await;
        let ours = self.0.options.wifi.iter().map(|(ssid, _)| ssid.as_bytes());
        for ssid in ours.chain([b"neighbours".as_slice()]).filter(|ssid| network.is_none_or(|wanted| wanted == *ssid)) {
            let (security, band) = (WiFiSecurityBitmap::WPA_2_PERSONAL, WiFiBandEnum::V2G4);
            found(&NetworkScanInfo::Wifi { security, ssid, bssid: &BSSID, channel: CHANNEL, band, rssi: -50 })?;
        }
        Ok(())
    }

    async fn connect(&self, creds: &WirelessCreds<'_>) -> Result<(), NetCtlError> {
        self.note_join(&String::from_utf8_lossy(creds.id()?)).map_err(|error| {
            tracing::error!(%error, "a join could not be noted");
            NetCtlError::OtherConnectionFailure
        })?;
        let joined = self.join(creds).await;
        self.0.state.borrow_mut().update(creds.id().ok(), joined)
    }
}

impl NetCtlStatus for AirWifi {
    fn last_networking_status(&self) -> Result<Option<NetworkCommissioningStatusEnum>, Error> {
        Ok(self.0.state.borrow().networking_status)
    }

    fn last_network_id<F, R>(&self, read: F) -> Result<R, Error>
    where
        F: FnOnce(Option<&[u8]>) -> Result<R, Error>,
    {
        let state = self.0.state.borrow();
        read((!state.network_id.is_empty()).then_some(&state.network_id[..]))
    }

    fn last_connect_error_value(&self) -> Result<Option<i32>, Error> {
        Ok(self.0.state.borrow().connect_error_value)
    }
}

impl DynBase for AirWifi {}

impl WirelessDiag for AirWifi {
    fn connected(&self) -> Result<bool, Error> {
        Ok(self.0.joined.get())
    }
}

impl WifiDiag for AirWifi {}

impl NetChangeNotif for AirWifi {
    async fn wait_changed(&self) {
        self.0.changed.notified().await;
    }
}

/// See `node::run`.
pub(super) async fn run(
    options: &VirtualDeviceOptions,
    radio: &RadioOptions,
    parts: Parts,
    ready: impl FnOnce(ReadyInfo),
    shutdown: CancellationToken,
) -> Result<(), VirtualDeviceError> {
    let Parts { storage, socket, port, advertiser, codes: (qr_code, manual_code) } = parts;
    let kept = |source| VirtualDeviceError::Storage { dir: options.storage.clone(), source };
    let evidence = evidence(options)?;
    let crypto = RustCrypto::new(StdRng::from_rng(&mut rand::rng()), evidence.dac_priv_key());
    let details = basic_information(options);
    let matter = Box::new(Matter::new(&details, options.commissioning_data(), &evidence, port));
    let kv = matter.kv(storage.clone());
    matter.startup(&kv).map_err(failed("loading its fabrics"))?;

    let random = crypto.rand().map_err(failed("random numbers"))?;
    let light = Light::remembered(storage).map_err(kept)?;
    let on_off = OnOffHandler::new_standalone(Dataver::new_rand(&mut { random }), LIGHT_ENDPOINT, light);
    let wifi = AirWifi(Rc::new(Wifi {
        options: radio.clone(),
        state: RefCell::new(NetCtlState::new()),
        joined: Cell::new(false),
        changed: Notify::new(),
        drop_link: Notify::new(),
        joins: options.storage.join(JOINS),
    }));
    let buffers = Box::new(<MatterBuffers>::new());
    let state = Box::new(<WirelessInteractionModelState<WifiNetworks<NETWORKS>>>::new(WifiNetworks::new()));
    let model = InteractionModel::new_with_net_ctl(
        &matter,
        &crypto,
        &*buffers,
        data_model(random, &on_off, &wifi, &radio.concurrent),
        &kv,
        wifi.clone(),
        &*state,
    );
    model.startup().await.map_err(failed("loading its state"))?;
    matter.persist_reboot_count(&kv).map_err(failed("counting the restart"))?;

    let window = Window { had_fabrics: Cell::new(matter.has_fabrics()) };
    let open_window = || model.open_basic_comm_window(MAX_COMM_WINDOW_TIMEOUT_SECS);
    if matter.has_fabrics() {
        // It comes back to where it was.
        wifi.set_joined(!radio.no_address);
    } else {
        open_window().map_err(failed("opening its commissioning window"))?;
    }
    let station = Station::open(&radio.air, address(options)).map_err(VirtualDeviceError::Network)?;
    let btp = Btp::new();
    let responder = DefaultResponder::new(&model);
    ready(ReadyInfo { port, qr_code, manual_code, commissionable: !matter.has_fabrics() });

    let adv = AdvData::new(&details, options.discriminator);
    let network = || ChainedNetwork::new(Address::is_btp, &btp, &socket);
    let on_lan = async {
        loop {
            tokio::select! {
                () = wifi.until(true) => {}
                () = async {
                    loop {
                        matter.transport().wait_mdns().await;
                        window.check(&matter, open_window);
                    }
                } => {}
            }
            tokio::select! {
                () = wifi.until(false) => {}
                () = advertiser.run(&matter, || window.check(&matter, open_window)) => {}
            }
            advertiser.goodbye(&matter).await;
        }
    };
    let ended = tokio::select! {
        result = matter.run(&crypto, network(), network(), &socket) => result,
        result = responder.run::<HANDLERS, 2>() => result,
        result = model.run() => result,
        () = on_lan => Ok(()),
        () = peripheral(&btp, &station, &matter, &wifi, &adv) => Ok(()),
        () = shutdown.cancelled() => Ok(()),
    };
    advertiser.goodbye(&matter).await;
    ended.map_err(failed("running"))
}

/// Made of what tells it from others, so that it stays the same.
fn address(options: &VirtualDeviceOptions) -> BluetoothAddress {
    let [high, low] = options.discriminator.to_be_bytes();
    let [port_high, port_low] = options.port.to_be_bytes();
    BluetoothAddress([0xC0, 0, high, low, port_high, port_low])
}

/// Advertises while it waits for a commissioner, and speaks with one at a time.
async fn peripheral(btp: &Btp, station: &Station, matter: &Matter<'_>, wifi: &AirWifi, adv: &AdvData) {
    let data: Vec<u8> = adv.service_payload_iter().collect();
    let mut connections = 0u8;
    loop {
        let advertising = async {
            let mut told = None;
            loop {
                let wanted = matter.comm_window_state().is_open() && !matter.has_fabrics();
                if told != Some(wanted) {
                    // A directory that has gone is a radio that was switched off.
                    let _ = station.advertise(wanted.then_some(&data));
                    told = Some(wanted);
                }
                // A fail-safe that expired has taken the network along.
                if wanted && wifi.0.joined.get() {
                    wifi.set_joined(false);
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        let connected = tokio::select! {
            connected = station.accept() => connected,
            () = advertising => pending().await,
        };
        let Ok(stream) = connected else { return };
        let _ = station.advertise(None);
        connections = connections.wrapping_add(1).max(1);
        btp.reset();
        let gatt = troubled(air::gatt(stream), &wifi.0.options);
        tokio::select! {
            result = carry(btp, gatt, BtAddr([connections; 6]), |_| {}, pending()) => tracing::debug!(?result, "the connection has ended"),
            () = wifi.0.drop_link.notified() => tracing::debug!("it leaves Bluetooth"),
        }
        // What came last is heard, as on a radio, which takes longer to notice that the other side has gone.
        tokio::time::sleep(LOOK).await;
        btp.reset();
    }
}

/// A connection on which an indication is lost, or overtakes another.
fn troubled(gatt: Gatt, options: &RadioOptions) -> Gatt {
    if options.loses.is_none() && options.swaps.is_none() {
        return gatt;
    }
    let (loses, swaps) = (options.loses, options.swaps);
    let (writes, mut outgoing) = mpsc::channel::<Vec<u8>>(SEGMENTS);
    let onwards = gatt.writes;
    tokio::spawn(async move {
        let mut number = 0;
        let mut held = None;
        while let Some(segment) = outgoing.recv().await {
            number += 1;
            if loses == Some(number) {
                continue;
            }
            if swaps == Some(number + 1) {
                held = Some(segment);
                continue;
            }
            for segment in [Some(segment), held.take()].into_iter().flatten() {
                if onwards.send(segment).await.is_err() {
                    return;
                }
            }
        }
    });
    Gatt { writes, ..gatt }
}

fn data_model<'a, H: OnOffHooks, L: LevelControlHooks>(
    mut random: impl Rng + Copy,
    on_off: &'a OnOffHandler<'a, H, L>,
    wifi: &'a AirWifi,
    concurrent: &'a bool,
) -> impl DataModel + 'a {
    let handlers = endpoints::WifiSysHandlerBuilder::new(wifi.clone(), wifi)
        .comm_policy(concurrent)
        .netif_diag(&SysNetifs)
        .build(random)
        .chain(
            |endpoint, cluster| endpoint == LIGHT_ENDPOINT && cluster == desc::DescHandler::CLUSTER.id,
            Async(desc::DescHandler::new(Dataver::new_rand(&mut random)).adapt()),
        )
        .chain(
            |endpoint, cluster| endpoint == LIGHT_ENDPOINT && cluster == identify::CLUSTER.id,
            Async(IdentifyHandler::new(Dataver::new_rand(&mut random)).adapt()),
        )
        .chain(
            |endpoint, cluster| endpoint == LIGHT_ENDPOINT && cluster == Light::CLUSTER.id,
            on_off::HandlerAsyncAdaptor(on_off),
        );
    (NODE, handlers)
}
