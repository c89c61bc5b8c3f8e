//! A home of fakes: devices that behave as Matter devices do, a network that announces them, and a link that opens sessions with
//! them. A test says which command meets which fault. No sockets, no threads, no time of its own.

use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, Weak};
use std::time::Duration;

use futures_util::future::BoxFuture;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use tokio::sync::{broadcast, mpsc, watch};

use crate::commissioning::network::{NetworkCredentials, NetworkInterface, NetworkKind, SeenNetwork};
use crate::commissioning::path::BUSY_WITH_OTHER_ADMIN;
use crate::commissioning::ports::{
    AttestationResponse, AttributePath, CandidateSearch, CheckInMessage, CsrResponse, DeviceDescription, DiscoverError,
    Discovery, FabricDescriptor, FailSafe, IssuedNoc, LinkError, LocalTime, MatterLink, NoAnswer, OperationalSession,
    PaseSession, SurveyFacts,
};
use crate::commissioning::radio::{BluetoothUnavailable, Gatt, Heard, Looking, Radio};
use crate::discovery::{DiscoveryEvent, Seen};
use crate::fabric::{AclEntry, AclLimits};
use crate::node::{
    BasicInformation, BluetoothAddress, BluetoothNode, CommissionableNode, CommissionableTxt, IcdParameters, NodeId,
    OperationalNode, OperationalTxt, Peer, ScopedAddress,
};
use crate::onboarding::Discriminator;
use crate::secret::{CheckInKey, Passcode};
use crate::sim::evidence::{Evidence, certificate, generate, nocsr_elements};

mod long_idle;

use self::long_idle::LongIdle;

pub(crate) const VENDOR: u16 = 0xFFF1;
pub(crate) const PRODUCT: u16 = 0x8000;
const CHALLENGE: [u8; 16] = [7; 16];
/// What a device takes that tries to join a network.
const HESITATION: Duration = Duration::from_secs(3);
/// What every device of a home shows; made once, for it takes a while.
static EVIDENCE: LazyLock<Evidence> = LazyLock::new(|| generate(VENDOR, PRODUCT));

/// What a device is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    Pase,
    Arm,
    /// ArmFailSafe(0).
    Expire,
    Describe,
    Attestation,
    Csr,
    AddRoot,
    AddNoc,
    Scan,
    AddNetwork,
    Connect,
    Case,
    WriteAcl,
    ReadAcl,
    Label,
    Complete,
    RemoveFabric,
    Read,
    Icd,
    Register,
    StayActive,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It says no, and does nothing.
    Refused,
    /// It says nothing, and does nothing.
    Silent,
    /// It does what it was asked, and its answer is not one.
    Wrong,
    /// It takes its time before it says no.
    Hesitant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Membership {
    node: NodeId,
    index: u8,
}

struct State {
    address: SocketAddr,
    /// It is out of its box, and on no network before it has joined one.
    bluetooth: Option<BluetoothAddress>,
    joined: bool,
    /// It was on another network before anybody sent it to one.
    elsewhere: bool,
    window: bool,
    armed: bool,
    /// Breadcrumb.
    breadcrumb: u64,
    /// Until the fail-safe expires.
    added: Option<Membership>,
    ours: Option<Membership>,
    off: bool,
    /// It sleeps long.
    long_idle: Option<LongIdle>,
    acl: Vec<AclEntry>,
    label: String,
    faults: Vec<(Command, Fault)>,
    asked: Vec<Command>,
}

impl State {
    fn is_deaf(&self) -> bool {
        self.off || self.long_idle.as_ref().is_some_and(LongIdle::is_asleep)
    }

    /// Its fail-safe has run out, or was ended.
    fn roll_back(&mut self) {
        (self.armed, self.breadcrumb, self.added) = (false, 0, None);
        self.joined = self.elsewhere;
        self.acl.clear();
    }

    fn addresses(&self) -> Vec<ScopedAddress> {
        vec![ScopedAddress { ip: self.address.ip(), scope: None }]
    }
}

pub(crate) struct Device {
    discriminator: u16,
    passcode: u32,
    state: Mutex<State>,
}

impl Device {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn address(&self) -> SocketAddr {
        self.state().address
    }

    /// It is on another network of the home already, and on Bluetooth as well.
    pub(crate) fn join_elsewhere(&self) {
        let mut state = self.state();
        (state.joined, state.elsewhere) = (true, true);
    }

    /// Its fail-safe runs out.
    pub(crate) fn expire(&self) {
        self.state().roll_back();
    }

    /// What its breadcrumb says from now on.
    pub(crate) fn leave_breadcrumb(&self, breadcrumb: u64) {
        self.state().breadcrumb = breadcrumb;
    }

    /// It has forgotten what it was told last.
    pub(crate) fn forget_asked(&self) {
        self.state().asked.clear();
    }

    /// From now on this command meets this fault.
    pub(crate) fn fail(&self, command: Command, fault: Fault) {
        self.state().faults.push((command, fault));
    }

    /// It announces a window: the one of its box where it is on our fabric already.
    pub(crate) fn announce_window(&self) {
        self.state().window = true;
    }

    /// It works as it should again.
    pub(crate) fn heal(&self) {
        self.state().faults.clear();
    }

    /// The commands that it heard, in their order.
    pub(crate) fn asked(&self) -> Vec<Command> {
        self.state().asked.clone()
    }

    /// Who it is on our fabric, for good.
    pub(crate) fn node(&self) -> Option<NodeId> {
        self.state().ours.map(|ours| ours.node)
    }

    pub(crate) fn acl(&self) -> Vec<AclEntry> {
        self.state().acl.clone()
    }

    pub(crate) fn label(&self) -> String {
        self.state().label.clone()
    }

    /// `Ok(false)` where the answer must be a wrong one.
    async fn hear(&self, command: Command) -> Result<bool, LinkError> {
        let mut fault = {
            let mut state = self.state();
            if state.is_deaf() {
                return Err(LinkError::Unreachable { tried: vec![(state.address.into(), NoAnswer::Silent)] });
            }
            state.asked.push(command);
            state.faults.iter().find(|(on, _)| *on == command).map(|(_, fault)| *fault)
        };
        if fault == Some(Fault::Hesitant) {
            tokio::time::sleep(HESITATION).await;
            fault = Some(Fault::Refused);
        }
        match fault {
            None => Ok(true),
            Some(Fault::Silent) => pending().await,
            Some(Fault::Wrong) => Ok(false),
            Some(Fault::Refused | Fault::Hesitant) => Err(match command {
                Command::Pase => LinkError::WrongPasscode,
                Command::Case => LinkError::NoSharedTrustRoots { peer: self.address() },
                Command::Arm | Command::Expire => {
                    LinkError::Commissioning { code: BUSY_WITH_OTHER_ADMIN, text: String::new() }
                }
                Command::Complete => LinkError::Commissioning { code: 2, text: String::new() },
                Command::Scan | Command::AddNetwork | Command::Connect => {
                    LinkError::Networking { status: 7, text: String::new() }
                }
                Command::AddNoc | Command::Label | Command::RemoveFabric => {
                    LinkError::NocStatus { code: 3, text: String::new() }
                }
                Command::Describe
                | Command::Attestation
                | Command::Csr
                | Command::AddRoot
                | Command::WriteAcl
                | Command::ReadAcl
                | Command::Read
                | Command::Icd
                | Command::Register
                | Command::StayActive => LinkError::Status { status: 1, name: "Failure".to_owned(), cluster: None },
            }),
        }
    }

    /// The same for a command whose answer says nothing but that it was done.
    async fn do_it(&self, command: Command, work: impl FnOnce(&mut State)) -> Result<(), LinkError> {
        let rightly = self.hear(command).await?;
        work(&mut self.state());
        if rightly { Ok(()) } else { Err(malformed()) }
    }

    async fn arm(&self, expiry: Duration, breadcrumb: u64) -> Result<(), LinkError> {
        if expiry.is_zero() {
            return self.do_it(Command::Expire, State::roll_back).await;
        }
        let arm = |state: &mut State| (state.armed, state.breadcrumb) = (true, breadcrumb);
        self.do_it(Command::Arm, arm).await
    }

    fn description(&self) -> DeviceDescription {
        let basic = BasicInformation {
            vendor_id: VENDOR,
            product_id: PRODUCT,
            vendor_name: "Example".to_owned(),
            product_name: "Lamp".to_owned(),
            serial_number: Some(format!("SN{:04}", self.discriminator)),
            unique_id: Some(format!("U{:04}", self.discriminator)),
            specification_version: Some(0x0104_0000),
            ..BasicInformation::default()
        };
        let (fabrics, long_idle, breadcrumb) = {
            let state = self.state();
            (u8::from(state.ours.is_some()), state.long_idle.is_some(), state.breadcrumb)
        };
        DeviceDescription {
            basic,
            acl_limits: AclLimits::default(),
            needs_regulatory_config: false,
            max_cumulative_fail_safe: Duration::from_secs(900),
            fabrics: (5, fabrics),
            facts: SurveyFacts { network: self.interface(), long_idle, breadcrumb, ..SurveyFacts::default() },
        }
    }

    fn interface(&self) -> NetworkInterface {
        let state = self.state();
        let kinds = if state.bluetooth.is_some() { vec![NetworkKind::Wifi] } else { Vec::new() };
        let connected = (state.bluetooth.is_some() && state.joined).then(|| b"Elsewhere".to_vec());
        NetworkInterface { kinds, connected, ..NetworkInterface::default() }
    }

    /// How it advertises itself over Bluetooth.
    fn advertisement(&self) -> Option<BluetoothNode> {
        let state = self.state();
        // Not while its fail-safe is armed for a fabric that was added.
        let address = state.bluetooth.filter(|_| state.window && !state.off && state.added.is_none())?;
        let (vendor_id, product_id, discriminator) = (VENDOR, PRODUCT, self.discriminator);
        Some(BluetoothNode { address, discriminator, vendor_id, product_id, additional_data: false, rssi: -60 })
    }

    fn commissionable(&self) -> Option<CommissionableNode> {
        let state = self.state();
        (state.window && !state.off && state.bluetooth.is_none()).then(|| CommissionableNode {
            instance: format!("{:016X}", self.discriminator),
            addresses: state.addresses(),
            port: state.address.port(),
            txt: CommissionableTxt {
                discriminator: self.discriminator,
                commissioning_mode: 1,
                vendor_id: Some(VENDOR),
                product_id: Some(PRODUCT),
                ..CommissionableTxt::default()
            },
        })
    }

    fn operational(&self, compressed_fabric_id: u64) -> Option<OperationalNode> {
        let state = self.state();
        let on_network = !state.off && (state.bluetooth.is_none() || state.joined);
        let Membership { node, .. } = state.ours.or(state.added).filter(|_| on_network)?;
        Some(OperationalNode {
            compressed_fabric_id,
            node_id: node,
            addresses: state.addresses(),
            port: state.address.port(),
            txt: OperationalTxt::default(),
        })
    }
}

fn at_host(host: u8) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(192, 0, 2, host), 5540))
}

fn malformed() -> LinkError {
    LinkError::Malformed { what: "the answer".to_owned() }
}

/// The raw signature of the attestation key over `elements` and the challenge.
fn sign(elements: &[u8]) -> Vec<u8> {
    let random = ring::rand::SystemRandom::new();
    let public = certificate::public_key(&EVIDENCE.dac_key);
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let key = EcdsaKeyPair::from_private_key_and_public_key(algorithm, &EVIDENCE.dac_key, &public, &random).unwrap();
    key.sign(&random, &[elements, &CHALLENGE].concat()).unwrap().as_ref().to_vec()
}

/// A PASE session.
pub(crate) struct Pase(Arc<Device>);

impl FailSafe for Pase {
    async fn arm_fail_safe(&self, expiry: Duration, breadcrumb: u64) -> Result<(), LinkError> {
        // CommissioningComplete ends PASE (11.10.7.6).
        if self.0.state().ours.is_some() {
            return Err(LinkError::SessionLost);
        }
        self.0.arm(expiry, breadcrumb).await
    }
}

impl PaseSession for Pase {
    fn attestation_challenge(&self) -> [u8; 16] {
        CHALLENGE
    }

    fn peer(&self) -> Peer {
        let bluetooth = self.0.state().bluetooth;
        bluetooth.map_or_else(|| Peer::Udp(self.0.address()), Peer::Bluetooth)
    }

    async fn describe(&self) -> Result<DeviceDescription, LinkError> {
        if self.0.hear(Command::Describe).await? { Ok(self.0.description()) } else { Err(malformed()) }
    }

    async fn set_regulatory_config(&self, _: &str, _: u64) -> Result<(), LinkError> {
        Ok(())
    }

    async fn acknowledge_terms(&self, _: u16, _: u16) -> Result<(), LinkError> {
        Ok(())
    }

    async fn set_time(&self, _: LocalTime) -> Result<(), LinkError> {
        Ok(())
    }

    async fn scan_networks(&self, wanted: &NetworkCredentials, _: Duration) -> Result<Vec<SeenNetwork>, LinkError> {
        let rightly = self.0.hear(Command::Scan).await?;
        let seen = if rightly { wanted.id().to_vec() } else { b"neighbours".to_vec() };
        Ok(vec![SeenNetwork { name: String::from_utf8_lossy(&seen).into_owned(), id: seen, rssi: -50 }])
    }

    async fn add_network(&self, _: &NetworkCredentials, breadcrumb: u64) -> Result<(), LinkError> {
        self.0.do_it(Command::AddNetwork, |state| state.breadcrumb = breadcrumb).await
    }

    async fn connect_network(&self, _: &[u8], _: Duration, breadcrumb: u64) -> Result<(), LinkError> {
        self.0.do_it(Command::Connect, |state| (state.joined, state.breadcrumb) = (true, breadcrumb)).await
    }

    async fn attestation(&self, nonce: [u8; 32]) -> Result<AttestationResponse, LinkError> {
        let rightly = self.0.hear(Command::Attestation).await?;
        let elements = EVIDENCE.attestation_elements(&nonce, None);
        let signature = if rightly { sign(&elements) } else { vec![0; 64] };
        Ok(AttestationResponse { elements, signature, dac: EVIDENCE.dac.clone(), pai: EVIDENCE.pai.clone() })
    }

    async fn request_csr(&self, nonce: [u8; 32]) -> Result<CsrResponse, LinkError> {
        let nonce = if self.0.hear(Command::Csr).await? { nonce } else { [0; 32] };
        let elements = nocsr_elements(b"csr", &nonce);
        Ok(CsrResponse { signature: sign(&elements), elements })
    }

    async fn add_root(&self) -> Result<(), LinkError> {
        self.0.do_it(Command::AddRoot, |_| {}).await
    }

    async fn add_noc(&self, credentials: &IssuedNoc, case_admin_subject: u64) -> Result<u8, LinkError> {
        let added = Membership { node: credentials.node_id, index: 1 };
        let administrator =
            AclEntry { privilege: 5, auth_mode: 2, subjects: vec![case_admin_subject], has_targets: false };
        let add = |state: &mut State| {
            state.added = Some(added);
            state.acl = vec![administrator];
        };
        self.0.do_it(Command::AddNoc, add).await.map(|()| added.index)
    }
}

/// A CASE session.
pub(crate) struct Case(Arc<Device>);

impl FailSafe for Case {
    async fn arm_fail_safe(&self, expiry: Duration, breadcrumb: u64) -> Result<(), LinkError> {
        self.0.arm(expiry, breadcrumb).await
    }
}

impl OperationalSession for Case {
    fn peer(&self) -> SocketAddr {
        self.0.address()
    }

    async fn commissioning_complete(&self) -> Result<(), LinkError> {
        let complete = |state: &mut State| {
            if let Some(added) = state.added.take() {
                state.ours = Some(added);
            }
            (state.armed, state.breadcrumb, state.window) = (false, 0, false);
        };
        self.0.do_it(Command::Complete, complete).await
    }

    async fn read_acl(&self) -> Result<Vec<AclEntry>, LinkError> {
        if self.0.hear(Command::ReadAcl).await? { Ok(self.0.acl()) } else { Ok(Vec::new()) }
    }

    async fn write_acl(&self, entries: &[AclEntry]) -> Result<(), LinkError> {
        self.0.do_it(Command::WriteAcl, |state| state.acl = entries.to_vec()).await
    }

    async fn describe(&self) -> Result<DeviceDescription, LinkError> {
        if self.0.hear(Command::Describe).await? { Ok(self.0.description()) } else { Err(malformed()) }
    }

    async fn fabrics(&self) -> Result<Vec<FabricDescriptor>, LinkError> {
        self.0.hear(Command::Read).await.map(|_| Vec::new())
    }

    async fn current_fabric_index(&self) -> Result<u8, LinkError> {
        self.0.hear(Command::Read).await?;
        let state = self.0.state();
        state.ours.or(state.added).map(|member| member.index).ok_or(LinkError::SessionLost)
    }

    async fn remove_fabric(&self, _: u8) -> Result<(), LinkError> {
        let remove = |state: &mut State| {
            state.ours = None;
            state.long_idle.iter_mut().for_each(LongIdle::forget);
            state.acl.clear();
        };
        self.0.do_it(Command::RemoveFabric, remove).await
    }

    async fn update_fabric_label(&self, label: &str) -> Result<(), LinkError> {
        self.0.do_it(Command::Label, |state| state.label = label.to_owned()).await
    }

    async fn identify(&self, _: Duration) -> Result<(), LinkError> {
        Ok(())
    }

    async fn open_window(&self, _: Duration, _: u16, _: &Passcode) -> Result<(), LinkError> {
        self.0.state().window = true;
        Ok(())
    }

    async fn close_window(&self) -> Result<bool, LinkError> {
        Ok(std::mem::take(&mut self.0.state().window))
    }

    async fn icd(&self) -> Result<Option<IcdParameters>, LinkError> {
        self.0.hear(Command::Icd).await?;
        Ok(self.0.state().long_idle.as_ref().map(LongIdle::parameters))
    }

    async fn register_client(&self, client: NodeId, key: &CheckInKey) -> Result<u32, LinkError> {
        let rightly = self.0.hear(Command::Register).await?;
        let mut state = self.0.state();
        let counter = state.long_idle.as_mut().ok_or_else(malformed)?.register(client, key);
        // Its answer may get lost.
        if rightly { Ok(counter) } else { Err(LinkError::SessionLost) }
    }

    async fn stay_active(&self, duration: Duration) -> Result<Duration, LinkError> {
        self.0.hear(Command::StayActive).await.map(|_| duration)
    }

    async fn read_text(&self, _: AttributePath) -> Result<String, LinkError> {
        self.0.hear(Command::Read).await.map(|_| "18".to_owned())
    }

    async fn write_text(&self, _: AttributePath, _: &str) -> Result<(), LinkError> {
        Ok(())
    }
}

/// Clones are the same home.
#[derive(Clone)]
pub(crate) struct Home(Arc<Inside>);

struct Inside {
    devices: Mutex<Vec<Arc<Device>>>,
    /// The compressed id of our fabric.
    fabric: Mutex<u64>,
    changes: watch::Sender<()>,
    events: broadcast::Sender<DiscoveryEvent>,
    no_bluetooth: Mutex<Option<BluetoothUnavailable>>,
    /// Who looks for devices on Bluetooth.
    lookers: Mutex<Vec<Weak<watch::Sender<Heard>>>>,
    check_ins: Mutex<Option<mpsc::Sender<CheckInMessage>>>,
    /// The hub, where it announces itself.
    hub: Mutex<Option<NodeId>>,
}

impl Home {
    /// Nobody lives in it yet.
    pub(crate) fn new() -> Self {
        let (changes, events) = (watch::Sender::new(()), broadcast::Sender::new(64));
        let (devices, fabric, no_bluetooth) = (Mutex::default(), Mutex::default(), Mutex::default());
        let (lookers, check_ins, hub) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self(Arc::new(Inside { devices, fabric, changes, events, no_bluetooth, lookers, check_ins, hub }))
    }

    pub(crate) fn set_fabric(&self, compressed_fabric_id: u64) {
        *self.0.fabric.lock().unwrap() = compressed_fabric_id;
    }

    pub(crate) fn fabric(&self) -> u64 {
        *self.0.fabric.lock().unwrap()
    }

    /// A device out of its box, at 192.0.2.`host`.
    pub(crate) fn plug_in(&self, host: u8, discriminator: u16, passcode: u32) -> Arc<Device> {
        let address = at_host(host);
        let state = State {
            address,
            bluetooth: None,
            joined: false,
            elsewhere: false,
            window: true,
            armed: false,
            breadcrumb: 0,
            added: None,
            ours: None,
            off: false,
            long_idle: None,
            acl: Vec::new(),
            label: String::new(),
            faults: Vec::new(),
            asked: Vec::new(),
        };
        let device = Arc::new(Device { discriminator, passcode, state: Mutex::new(state) });
        self.0.devices.lock().unwrap().push(Arc::clone(&device));
        self.changed(&device);
        device
    }

    /// It loses its power, without a word.
    pub(crate) fn unplug(&self, device: &Device) {
        device.state().off = true;
        self.0.changes.send_replace(());
        self.tell_lookers();
    }

    /// It has power again, and announces itself.
    pub(crate) fn plug_in_again(&self, device: &Device) {
        device.state().off = false;
        self.changed(device);
    }

    /// It gets another address, and announces it.
    pub(crate) fn move_to(&self, device: &Device, host: u8) {
        device.state().address = at_host(host);
        self.changed(device);
    }

    /// Whether somebody hears what is announced.
    pub(crate) fn has_listener(&self) -> bool {
        self.0.events.receiver_count() > 0
    }

    /// Whether somebody looks for devices on Bluetooth.
    pub(crate) fn has_looker(&self) -> bool {
        self.0.lookers.lock().unwrap().iter().any(|looker| looker.strong_count() > 0)
    }

    /// What is on the air.
    fn advertised(&self) -> Vec<BluetoothNode> {
        self.devices().iter().filter_map(|device| device.advertisement()).collect()
    }

    fn tell_lookers(&self) {
        let lookers = self.0.lookers.lock().unwrap().clone();
        lookers.iter().filter_map(Weak::upgrade).for_each(|looker| drop(looker.send_replace(Ok(self.advertised()))));
    }

    fn changed(&self, device: &Device) {
        self.0.changes.send_replace(());
        self.tell_lookers();
        let seen = device.operational(self.fabric()).map(Seen::Operational);
        if let Some(seen) = seen.or_else(|| device.commissionable().map(Seen::Commissionable)) {
            // Nobody may be listening.
            let _ = self.0.events.send(DiscoveryEvent::Appeared(seen));
        }
    }

    fn devices(&self) -> Vec<Arc<Device>> {
        self.0.devices.lock().unwrap().clone()
    }

    fn at(&self, address: SocketAddr) -> Option<Arc<Device>> {
        let there = |device: &Arc<Device>| {
            let state = device.state();
            state.address == address && !state.is_deaf() && (state.bluetooth.is_none() || state.joined)
        };
        self.devices().into_iter().find(there)
    }

    fn spoken_to_at(&self, peer: Peer) -> Option<Arc<Device>> {
        match peer {
            Peer::Udp(address) => self.at(address),
            Peer::Bluetooth(address) => {
                let is_it = |device: &Arc<Device>| device.state().bluetooth == Some(address) && !device.state().off;
                self.devices().into_iter().find(is_it)
            }
        }
    }

    /// A device out of its box that is only on Bluetooth; 192.0.2.`host` is the address that it will get.
    pub(crate) fn unbox(&self, host: u8, discriminator: u16, passcode: u32) -> Arc<Device> {
        let device = self.plug_in(host, discriminator, passcode);
        device.state().bluetooth = Some(BluetoothAddress([0, 0, 0, 0, 0, host]));
        self.changed(&device);
        device
    }

    /// Bluetooth is not there, for this reason.
    pub(crate) fn without_bluetooth(&self, why: BluetoothUnavailable) {
        *self.0.no_bluetooth.lock().unwrap() = Some(why);
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<DiscoveryEvent> {
        self.0.events.subscribe()
    }

    pub(crate) fn commissionable(&self) -> Vec<CommissionableNode> {
        self.devices().iter().filter_map(|device| device.commissionable()).collect()
    }

    pub(crate) fn operational(&self) -> Vec<OperationalNode> {
        let fabric = self.fabric();
        self.devices().iter().filter_map(|device| device.operational(fabric)).collect()
    }
}

impl MatterLink for Home {
    type Pase = Pase;
    type Case = Case;

    async fn open_pase(&self, peers: &[Peer], passcode: &Passcode, _: Duration) -> Result<Pase, LinkError> {
        let silent = peers.iter().map(|peer| (*peer, NoAnswer::Silent)).collect();
        let Some(device) = peers.iter().find_map(|peer| self.spoken_to_at(*peer)) else {
            return Err(LinkError::Unreachable { tried: silent });
        };
        if !device.hear(Command::Pase).await? {
            return Err(malformed());
        }
        match (device.state().window, *passcode == Passcode::new(device.passcode)) {
            (false, _) => Err(LinkError::WindowClosed),
            (true, false) => Err(LinkError::WrongPasscode),
            (true, true) => Ok(Pase(Arc::clone(&device))),
        }
    }

    async fn open_case(&self, node: NodeId, addresses: &[SocketAddr], _: Duration) -> Result<Case, LinkError> {
        let silent = addresses.iter().map(|address| ((*address).into(), NoAnswer::Silent)).collect();
        let mut refused = LinkError::Unreachable { tried: silent };
        for device in addresses.iter().filter_map(|address| self.at(*address)) {
            let peer = device.address();
            let rightly = device.hear(Command::Case).await;
            let state = device.state();
            let is_it = state.ours.or(state.added).is_some_and(|member| member.node == node);
            refused = match rightly {
                Ok(true) if is_it => return Ok(Case(Arc::clone(&device))),
                Ok(true) => LinkError::NoSharedTrustRoots { peer },
                Ok(false) => LinkError::NotThatNode { peer },
                Err(error) => error,
            };
        }
        Err(refused)
    }

    async fn issue_noc(&self, node: NodeId, _: &[u8]) -> Result<IssuedNoc, LinkError> {
        Ok(IssuedNoc { node_id: node, noc: Vec::new() })
    }
}

impl Radio for Home {
    fn look(&self) -> Looking {
        if let Some(why) = self.0.no_bluetooth.lock().unwrap().clone() {
            return Looking::unavailable(why);
        }
        let sender = Arc::new(watch::Sender::new(Ok(self.advertised())));
        self.0.lookers.lock().unwrap().push(Arc::downgrade(&sender));
        Looking::new(sender.subscribe(), sender)
    }

    fn connect(&self, address: BluetoothAddress) -> BoxFuture<'static, Result<Gatt, LinkError>> {
        unreachable!("a home's own link opens PASE, at {address} too")
    }

    fn adapter(&self) -> BoxFuture<'static, Result<String, BluetoothUnavailable>> {
        let missing = self.0.no_bluetooth.lock().unwrap().clone();
        Box::pin(async move { missing.map_or(Ok("home0".to_owned()), Err) })
    }
}

/// A search in the home.
pub(crate) struct Search {
    home: Home,
    wanted: Discriminator,
    changes: watch::Receiver<()>,
}

impl CandidateSearch for Search {
    fn fitting(&self) -> Result<Vec<CommissionableNode>, DiscoverError> {
        let fits = |node: &CommissionableNode| self.wanted.matches(node.txt.discriminator);
        Ok(self.home.commissionable().into_iter().filter(fits).collect())
    }

    fn announced(&self) -> Vec<CommissionableNode> {
        self.home.commissionable()
    }

    fn closed(&self) -> Option<CommissionableNode> {
        None
    }

    fn at(&self, address: SocketAddr) -> Option<CommissionableNode> {
        self.home.at(address)?.commissionable()
    }

    async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            pending().await
        }
    }

    fn doubt(&self, _: &CommissionableNode) {}
}

impl Discovery for Home {
    type Search = Search;

    fn search(&self, discriminator: Discriminator, _: Option<(u16, u16)>) -> Search {
        Search { home: self.clone(), wanted: discriminator, changes: self.0.changes.subscribe() }
    }

    /// Whoever is there is known at once.
    async fn operational(&self, _: u64, node: NodeId, _: Duration) -> Vec<SocketAddr> {
        self.operational().iter().find(|seen| seen.node_id == node).map(OperationalNode::sockets).unwrap_or_default()
    }
}
