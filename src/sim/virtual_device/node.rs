//! Puts the device together: Matter stack, data model (root node and an On/Off Light on endpoint 1), transport, mDNS and
//! the commissioning window. Runs as one future; see `waker` for why.

use std::cell::Cell;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rs_matter::Matter;
use rs_matter::crypto::backend::rustcrypto::RustCrypto;
use rs_matter::crypto::{Crypto, Rng};
use rs_matter::dm::clusters::app::level_control::LevelControlHooks;
use rs_matter::dm::clusters::app::on_off::{self, OnOffHandler, OnOffHooks};
use rs_matter::dm::clusters::basic_info::{BasicInfoConfig, DEFAULT_MATTER_SPEC_VERSION};
use rs_matter::dm::clusters::desc::{self, ClusterHandler as _};
use rs_matter::dm::clusters::dev_att::DeviceAttestation as _;
use rs_matter::dm::clusters::icd_mgmt::{self, Icd, IcdMgmtHandler};
use rs_matter::dm::clusters::identify::{self, IdentifyHandler};
use rs_matter::dm::devices::{DEV_TYPE_ON_OFF_LIGHT, DEV_TYPE_ROOT_NODE};
use rs_matter::dm::networks::SysNetifs;
use rs_matter::dm::networks::eth::EthNetwork;
use rs_matter::dm::{Async, Cluster, DataModel, Dataver, Endpoint, Node, endpoints};
use rs_matter::error::{Error, ErrorCode};
use rs_matter::im::{EthInteractionModelState, InteractionModel};
use rs_matter::respond::DefaultResponder;
use rs_matter::sc::pase::MAX_COMM_WINDOW_TIMEOUT_SECS;
use rs_matter::transport::exchange::MatterBuffers;
use rs_matter::transport::network::{Address, NetworkMulticast, NetworkReceive, NetworkSend};
use rs_matter::{clusters, devices, root_endpoint};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use super::advertise::Advertiser;
use super::light::Light;
use super::long_idle::{self, Ear, LongIdleOptions};
use super::storage::{HOST_KEY, Storage};
use super::{DeviceEvidence, ReadyInfo, VirtualDeviceError, VirtualDeviceOptions, interface, wireless};
use crate::sim::evidence::generate;

/// The endpoint with the light.
pub(super) const LIGHT_ENDPOINT: u16 = 1;

/// The Groups cluster that the device type also asks for needs a feature of rs-matter that this build leaves out.
const NODE: Node<'static> = Node { endpoints: &[root_endpoint!(eth), LIGHT] };

const LIGHT: Endpoint<'static> = Endpoint::new(
    LIGHT_ENDPOINT,
    devices!(DEV_TYPE_ON_OFF_LIGHT),
    clusters!(desc::DescHandler::CLUSTER, identify::CLUSTER, Light::CLUSTER),
);

/// ICD Management, which only a device with long idle times has.
const ICD: Cluster<'static> = <IcdMgmtHandler<'static> as icd_mgmt::ClusterHandler>::CLUSTER;

const LONG_IDLE_NODE: Node<'static> = Node {
    endpoints: &[Endpoint::new(endpoints::ROOT_ENDPOINT_ID, devices!(DEV_TYPE_ROOT_NODE), clusters!(eth; ICD)), LIGHT],
};

/// Names the step that rs-matter failed at.
pub(super) fn failed(what: &'static str) -> impl Fn(Error) -> VirtualDeviceError {
    move |error| VirtualDeviceError::Stack { what, code: error.code() }
}

/// Runs the device until `shutdown` or until the stack gives up.
pub(super) async fn run(
    options: &VirtualDeviceOptions,
    ready: impl FnOnce(ReadyInfo),
    shutdown: CancellationToken,
) -> Result<(), VirtualDeviceError> {
    let interfaces = interface::select(&options.interfaces)?;
    let storage = Storage::open(&options.storage)?;
    let kept = |source| VirtualDeviceError::Storage { dir: options.storage.clone(), source };
    let (qr_code, manual_code) = options.codes()?;
    let ear = Rc::new(Ear::default());
    let bound = bind(options.port).map_err(|source| VirtualDeviceError::Port { port: options.port, source })?;
    let socket = Udp(bound, Rc::clone(&ear));
    let port = socket.0.local_addr().map_err(VirtualDeviceError::Network)?.port();
    let advertiser = Advertiser::open(host_name(&storage).map_err(kept)?, &interfaces)?;
    if let Some(radio) = &options.radio {
        let parts = wireless::Parts { storage, socket, port, advertiser, codes: (qr_code, manual_code) };
        return wireless::run(options, radio, parts, ready, shutdown).await;
    }

    let evidence = evidence(options)?;
    let crypto = RustCrypto::new(StdRng::from_rng(&mut rand::rng()), evidence.dac_priv_key());
    let details = basic_information(options);
    let matter = Box::new(Matter::new(&details, options.commissioning_data(), &evidence, port));
    let kv = matter.kv(storage.clone());
    matter.startup(&kv).map_err(failed("loading its fabrics"))?;

    let random = crypto.rand().map_err(failed("random numbers"))?;
    let light = Light::remembered(storage).map_err(kept)?;
    let on_off = OnOffHandler::new_standalone(Dataver::new_rand(&mut { random }), LIGHT_ENDPOINT, light);
    let buffers = Box::new(<MatterBuffers>::new());
    let state = Box::new(<EthInteractionModelState>::new(EthNetwork::new_default()));
    let icd = options.long_idle.as_ref().map_or_else(|| LongIdleOptions::default().cluster(), LongIdleOptions::cluster);
    let node = if options.long_idle.is_some() { LONG_IDLE_NODE } else { NODE };
    let data_model = data_model(random, &on_off, node, &icd);
    let model = InteractionModel::new(&matter, &crypto, &*buffers, data_model, &kv, &*state);
    model.startup().await.map_err(failed("loading its state"))?;
    if options.long_idle.is_none() {
        // The handler is there in any case, and has announced what this device is not.
        matter.set_icd_mode(None);
    }
    matter.persist_reboot_count(&kv).map_err(failed("counting the restart"))?;

    let window = Window { had_fabrics: Cell::new(matter.has_fabrics()) };
    let open_window = || model.open_basic_comm_window(MAX_COMM_WINDOW_TIMEOUT_SECS);
    if !matter.has_fabrics() {
        open_window().map_err(failed("opening its commissioning window"))?;
    }
    let responder = DefaultResponder::new(&model);
    ready(ReadyInfo { port, qr_code, manual_code, commissionable: !matter.has_fabrics() });

    let sleeping = async {
        match &options.long_idle {
            Some(how) => long_idle::live(how, (&icd, &*ear), &matter, &crypto, &kv, &options.interfaces).await,
            None => std::future::pending().await,
        }
    };
    let ended = tokio::select! {
        slept = sleeping => return slept,
        result = matter.run(&crypto, &socket, &socket, &socket) => result,
        result = responder.run::<HANDLERS, 2>() => result,
        result = model.run() => result,
        () = advertiser.run(&matter, || window.check(&matter, open_window)) => Ok(()),
        () = shutdown.cancelled() => Ok(()),
    };
    advertiser.goodbye(&matter).await;
    ended.map_err(failed("running"))
}

/// Exchanges that are answered side by side. rs-matter 0.4.1's `CaseResponder` waits 48 s for a Sigma3 after it has refused a
/// Sigma1 with "no shared trust roots", so with its usual four a device that has left a fabric, or stands where another one
/// did, is soon busy for everybody. To be reported upstream: `CaseResponder::handle` goes on after `handle_casesigma1`
/// has completed the exchange.
pub(super) const HANDLERS: usize = 16;

/// Keeps the device reachable for a commissioner as long as it belongs to nobody.
pub(super) struct Window {
    pub(super) had_fabrics: Cell<bool>,
}

impl Window {
    /// Opens the window again when the last fabric has gone, by RemoveFabric or by the fail-safe (Matter Core 11.18.6.12).
    ///
    /// A window that was never used, or that closed after too many wrong passcodes, stays closed until a restart, as on
    /// any device that has to be power-cycled then (Matter Core 5.4.2.3).
    pub(super) fn check(&self, matter: &Matter<'_>, open: impl Fn() -> Result<(), Error>) {
        let has_fabrics = matter.has_fabrics();
        let left_the_last = self.had_fabrics.replace(has_fabrics) && !has_fabrics;
        if matter.comm_window_state().is_open() || has_fabrics {
            return;
        }
        if !left_the_last {
            tracing::warn!("the commissioning window has closed; restart the device to open it again");
        } else if let Err(error) = open() {
            tracing::warn!(code = ?error.code(), "the commissioning window could not be opened again");
        }
    }
}

pub(super) fn basic_information(options: &VirtualDeviceOptions) -> BasicInfoConfig<'_> {
    BasicInfoConfig {
        vid: options.vendor_id,
        pid: options.product_id,
        vendor_name: &options.vendor_name,
        product_name: &options.product_name,
        device_name: &options.device_name,
        serial_no: &options.serial_number,
        unique_id: &options.unique_id,
        hw_ver: 1,
        hw_ver_str: "1",
        sw_ver: 1,
        sw_ver_str: env!("CARGO_PKG_VERSION"),
        manufacturing_date: "20260101",
        specification_version: options.specification_version.unwrap_or(DEFAULT_MATTER_SPEC_VERSION),
        device_type: Some(DEV_TYPE_ON_OFF_LIGHT.dtype),
        ..BasicInfoConfig::new()
    }
}

pub(super) fn evidence(options: &VirtualDeviceOptions) -> Result<DeviceEvidence, VirtualDeviceError> {
    match &options.evidence {
        Some(given) => Ok(given.clone()),
        None => DeviceEvidence::try_from(&generate(options.vendor_id, options.product_id)),
    }
}

fn data_model<'a, H: OnOffHooks, L: LevelControlHooks>(
    mut random: impl Rng + Copy,
    on_off: &'a OnOffHandler<'a, H, L>,
    node: Node<'static>,
    icd: &'a Icd,
) -> impl DataModel + 'a {
    let handlers = endpoints::EthSysHandlerBuilder::new()
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
        )
        .chain(
            |endpoint, cluster| endpoint == endpoints::ROOT_ENDPOINT_ID && cluster == ICD.id,
            Async(IcdMgmtHandler::new(Dataver::new_rand(&mut random), icd).adapt()),
        );
    (node, handlers)
}

/// A stable host name like the MAC address that a real device would use (Matter Core 4.3.1.1): 16 hexadecimal digits.
pub(super) fn host_name(storage: &Storage) -> io::Result<String> {
    if let Some(kept) = storage.read(HOST_KEY)?.and_then(|kept| String::from_utf8(kept).ok()) {
        return Ok(kept);
    }
    let name = format!("{:016X}", rand::random::<u64>());
    storage.write(HOST_KEY, name.as_bytes())?;
    Ok(name)
}

/// One socket for both families; IPv4 alone where the host has no IPv6.
pub(super) fn bind(port: u16) -> io::Result<UdpSocket> {
    let open = |family, address: SocketAddr| {
        let socket = Socket::new(family, Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        UdpSocket::from_std(socket.into())
    };
    match open(Domain::IPV6, (Ipv6Addr::UNSPECIFIED, port).into()) {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
            open(Domain::IPV4, (Ipv4Addr::UNSPECIFIED, port).into())
        }
        bound => bound,
    }
}

pub(super) struct Udp(pub(super) UdpSocket, pub(super) Rc<Ear>);

impl NetworkSend for &Udp {
    async fn send_to(&mut self, data: &[u8], address: Address) -> Result<(), Error> {
        self.0.send_to(data, address.udp().ok_or(ErrorCode::NoNetworkInterface)?).await?;
        Ok(())
    }
}

impl NetworkReceive for &Udp {
    /// Not `readable()`: tokio may report that when nothing is there, and rs-matter would then wait for a packet while it
    /// holds its one receive buffer.
    async fn wait_available(&mut self) -> Result<(), Error> {
        loop {
            self.0.peek_from(&mut [0]).await?;
            if !self.1.is_asleep() {
                return Ok(());
            }
            // What comes while it sleeps is lost.
            let _ = self.0.recv_from(&mut [0]).await?;
        }
    }

    async fn recv_from(&mut self, buffer: &mut [u8]) -> Result<(usize, Address), Error> {
        loop {
            let (length, from) = self.0.recv_from(buffer).await?;
            if self.1.hears() {
                return Ok((length, Address::Udp(from)));
            }
        }
    }
}

/// Group messages are not supported: the light is spoken to by unicast.
impl NetworkMulticast for &Udp {
    async fn join(&mut self, _group: std::net::IpAddr) -> Result<(), Error> {
        Ok(())
    }

    async fn leave(&mut self, _group: std::net::IpAddr) -> Result<(), Error> {
        Ok(())
    }
}
