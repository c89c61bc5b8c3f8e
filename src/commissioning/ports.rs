//! What the driver needs from outside, and nothing more. `matter`, `discovery` and `store` implement these.

mod failure;
mod provisional;

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use crate::attestation::Evidence;
use crate::attestation::policy::{AttestationOverride, Judgement};
use crate::commissioning::network::{NetworkCredentials, NetworkInterface, SeenNetwork};
use crate::durable::StoreError;
use crate::fabric::{AclEntry, AclLimits};
use crate::node::{BasicInformation, CommissionableNode, IcdParameters, NodeId, NodeRecord, Peer};
use crate::onboarding::Discriminator;
use crate::outbox::ports::{OutboxId, OutboxTask};
use crate::secret::{CheckInKey, Passcode};

pub use failure::{DiscoverError, LinkError, NoAnswer};
pub(crate) use provisional::Particulars;
pub use provisional::{ProvisionalNode, Stage, Unfinished};

/// What a device says of itself before it gets credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceDescription {
    pub basic: BasicInformation,
    /// Access Control limits; defaults where the device does not say.
    pub acl_limits: AclLimits,
    /// Whether LocationCapability is such that SetRegulatoryConfig must be sent (11.10.5.3): a device with a radio.
    pub needs_regulatory_config: bool,
    /// MaxCumulativeFailsafeSeconds of BasicCommissioningInfo.
    pub max_cumulative_fail_safe: Duration,
    /// SupportedFabrics and CommissionedFabrics.
    pub fabrics: (u8, u8),
    /// What else decides how it is commissioned.
    pub facts: SurveyFacts,
}

/// What decides how a device is commissioned, besides what it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SurveyFacts {
    /// Its network interface.
    pub network: NetworkInterface,
    /// Breadcrumb (11.10.6.1): how far an earlier commissioner has got within the fail-safe that is armed.
    pub breadcrumb: u64,
    /// Terms and conditions, where it has any.
    pub terms: Option<Terms>,
    /// Whether it has the Time Synchronization cluster.
    pub keeps_time: bool,
    /// Whether it is an intermittently connected device that supports long idle times (9.16.4).
    pub long_idle: bool,
}

/// The terms and conditions of General Commissioning (11.10.6.6).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Terms {
    /// TCMinRequiredVersion.
    pub minimum_version: u16,
    /// TCAcknowledgementsRequired.
    pub required: bool,
}

/// A moment and a zone, as Time Synchronization wants them (11.17).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalTime {
    pub utc: Timestamp,
    /// Of the zone, without summer time, seconds.
    pub offset_s: i32,
    /// What summer time adds now, seconds.
    pub summer_s: i32,
    /// When it ends.
    pub summer_until: Option<Timestamp>,
    /// The zone's IANA name.
    pub zone: Option<String>,
}

/// Everything that AttestationRequest and CertificateChainRequest give (11.18.6.1, 11.18.6.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttestationResponse {
    /// AttestationElements, TLV as signed.
    pub elements: Vec<u8>,
    /// Raw ECDSA signature, 64 bytes when well-formed.
    pub signature: Vec<u8>,
    /// DAC, DER.
    pub dac: Vec<u8>,
    /// PAI, DER.
    pub pai: Vec<u8>,
}

/// NOCSRElements and their signature (11.18.6.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CsrResponse {
    /// NOCSRElements, TLV as signed.
    pub elements: Vec<u8>,
    /// Raw ECDSA signature, 64 bytes when well-formed.
    pub signature: Vec<u8>,
}

/// The credentials for one device: its NOC chain. The root and the IPK are the fabric's and known to the link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedNoc {
    /// The node's id, as in the certificate.
    pub node_id: NodeId,
    /// NOC, Matter TLV.
    pub noc: Vec<u8>,
}

/// A session over which the fail-safe can be armed: the one that armed it, and from AddNOC on any of our fabric (11.10.7.2).
pub trait FailSafe: Send + Sync + 'static {
    /// ArmFailSafe; zero expires it at once, which rolls the device back. `breadcrumb` is what Breadcrumb says then.
    fn arm_fail_safe(&self, expiry: Duration, breadcrumb: u64) -> impl Future<Output = Result<(), LinkError>> + Send;
}

/// A session with a commissionee whose passcode was proved. All commands go to endpoint 0.
pub trait PaseSession: FailSafe {
    /// The attestation challenge of this session (4.14.1.2), 16 bytes.
    fn attestation_challenge(&self) -> [u8; 16];
    /// Where it answered.
    fn peer(&self) -> Peer;
    /// Basic Information, General Commissioning, Access Control limits, fabric counts.
    fn describe(&self) -> impl Future<Output = Result<DeviceDescription, LinkError>> + Send;
    /// SetRegulatoryConfig: IndoorOutdoor as the device is capable, and the country.
    fn set_regulatory_config(
        &self,
        country: &str,
        breadcrumb: u64,
    ) -> impl Future<Output = Result<(), LinkError>> + Send;
    /// SetTCAcknowledgements (11.10.7.8).
    fn acknowledge_terms(&self, version: u16, bits: u16) -> impl Future<Output = Result<(), LinkError>> + Send;
    /// SetUTCTime, SetTimeZone and SetDSTOffset, as far as the device has them (11.17.9).
    fn set_time(&self, time: LocalTime) -> impl Future<Output = Result<(), LinkError>> + Send;
    /// ScanNetworks (11.9.7.1), for the network of these credentials; within `limit`.
    fn scan_networks(
        &self,
        wanted: &NetworkCredentials,
        limit: Duration,
    ) -> impl Future<Output = Result<Vec<SeenNetwork>, LinkError>> + Send;
    /// AddOrUpdateWiFiNetwork or AddOrUpdateThreadNetwork (11.9.7.3, 11.9.7.4).
    fn add_network(
        &self,
        credentials: &NetworkCredentials,
        breadcrumb: u64,
    ) -> impl Future<Output = Result<(), LinkError>> + Send;
    /// ConnectNetwork (11.9.7.9); within `limit`.
    fn connect_network(
        &self,
        id: &[u8],
        limit: Duration,
        breadcrumb: u64,
    ) -> impl Future<Output = Result<(), LinkError>> + Send;
    /// AttestationRequest and both CertificateChainRequests.
    fn attestation(&self, nonce: [u8; 32]) -> impl Future<Output = Result<AttestationResponse, LinkError>> + Send;
    /// CSRRequest.
    fn request_csr(&self, nonce: [u8; 32]) -> impl Future<Output = Result<CsrResponse, LinkError>> + Send;
    /// AddTrustedRootCertificate with our RCAC.
    fn add_root(&self) -> impl Future<Output = Result<(), LinkError>> + Send;
    /// AddNOC with our ICAC and IPK; gives the device's index for our fabric.
    fn add_noc(
        &self,
        credentials: &IssuedNoc,
        case_admin_subject: u64,
    ) -> impl Future<Output = Result<u8, LinkError>> + Send;
}

/// A CASE session with a node of our fabric.
pub trait OperationalSession: FailSafe {
    /// The address at which the node has proved to be it.
    fn peer(&self) -> SocketAddr;
    /// CommissioningComplete (11.10.7.6).
    fn commissioning_complete(&self) -> impl Future<Output = Result<(), LinkError>> + Send;
    /// Our fabric's entries of the access control list (fabric-filtered read).
    fn read_acl(&self) -> impl Future<Output = Result<Vec<AclEntry>, LinkError>> + Send;
    /// Replaces our fabric's entries.
    fn write_acl(&self, entries: &[AclEntry]) -> impl Future<Output = Result<(), LinkError>> + Send;
    /// Basic Information and limits, as over PASE.
    fn describe(&self) -> impl Future<Output = Result<DeviceDescription, LinkError>> + Send;
    /// The device's fabric table as `(index, fabric id, node id, root public key, label)`, all fabrics.
    fn fabrics(&self) -> impl Future<Output = Result<Vec<FabricDescriptor>, LinkError>> + Send;
    /// CurrentFabricIndex: ours.
    fn current_fabric_index(&self) -> impl Future<Output = Result<u8, LinkError>> + Send;
    /// RemoveFabric: the device forgets us and closes the session.
    fn remove_fabric(&self, fabric_index: u8) -> impl Future<Output = Result<(), LinkError>> + Send;
    /// UpdateFabricLabel: the name that other administrators see for our fabric, at most 32 bytes (11.18.6.11).
    fn update_fabric_label(&self, label: &str) -> impl Future<Output = Result<(), LinkError>> + Send;
    /// Identify for `duration` on the first endpoint that has the cluster.
    fn identify(&self, duration: Duration) -> impl Future<Output = Result<(), LinkError>> + Send;
    /// Opens an enhanced commissioning window with a fresh passcode (11.19.8.1).
    fn open_window(
        &self,
        timeout: Duration,
        discriminator: u16,
        passcode: &Passcode,
    ) -> impl Future<Output = Result<(), LinkError>> + Send;
    /// RevokeCommissioning (11.19.8.3): closes the window, whoever opened it. False where none is open.
    fn close_window(&self) -> impl Future<Output = Result<bool, LinkError>> + Send;
    /// How a device with long idle times sleeps, and who is registered with it (9.16.6); `None` where it has no such cluster.
    fn icd(&self) -> impl Future<Output = Result<Option<IcdParameters>, LinkError>> + Send;
    /// RegisterClient (9.16.7.1): `client` gets its check-ins from now on, sealed with this key. Gives ICDCounter.
    fn register_client(&self, client: NodeId, key: &CheckInKey) -> impl Future<Output = Result<u32, LinkError>> + Send;
    /// StayActiveRequest (9.16.7.4): it does not fall asleep again for so long, if it can. Gives what it promises.
    fn stay_active(&self, duration: Duration) -> impl Future<Output = Result<Duration, LinkError>> + Send;
    /// Reads any attribute as a string: text as it is, octet strings as upper-case hex, integers in decimal.
    fn read_text(&self, path: AttributePath) -> impl Future<Output = Result<String, LinkError>> + Send;
    /// Writes a text attribute.
    fn write_text(&self, path: AttributePath, value: &str) -> impl Future<Output = Result<(), LinkError>> + Send;
}

/// Endpoint, cluster and attribute of a concrete attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AttributePath {
    /// Endpoint, 0..=65534.
    pub endpoint: u16,
    /// Of 32 bits: the vendor's prefix above, the cluster below (Matter Core 7.10).
    pub cluster: u32,
    /// Of 32 bits: the vendor's prefix above, the attribute below (Matter Core 7.10).
    pub attribute: u32,
}

/// One row of the device's Fabrics attribute (11.18.4.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FabricDescriptor {
    /// FabricIndex, 1..=254.
    pub index: u8,
    /// FabricID.
    pub fabric_id: u64,
    /// NodeID.
    pub node_id: u64,
    /// VendorID of the administrator.
    pub vendor_id: u16,
    pub label: String,
    /// RootPublicKey, 65 bytes.
    pub root_public_key: Vec<u8>,
}

/// A check-in as it came: an unsecured message of which only the payload is sealed (4.20).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckInMessage {
    /// Who says so; anybody can.
    pub from: SocketAddr,
    /// Nonce, sealed counter and application data.
    pub payload: Vec<u8>,
}

/// The Matter stack.
pub trait MatterLink: Send + Sync + 'static {
    /// See [`PaseSession`].
    type Pase: PaseSession;
    /// See [`OperationalSession`].
    type Case: OperationalSession;

    /// A new PASE session with the first of the peers that answers. The device counts one try of the passcode at most, and none
    /// where no answer came. Ends within `budget`, as an error that says what became of each address.
    fn open_pase(
        &self,
        peers: &[Peer],
        passcode: &Passcode,
        budget: Duration,
    ) -> impl Future<Output = Result<Self::Pase, LinkError>> + Send;
    /// A new CASE session with that node, at the first of the addresses at which it proves to be it. They are tried in this
    /// order, side by side; an address at which somebody else answers does not spoil the others. Ends within `budget`.
    fn open_case(
        &self,
        node: NodeId,
        addresses: &[SocketAddr],
        budget: Duration,
    ) -> impl Future<Output = Result<Self::Case, LinkError>> + Send;
    /// Signs a NOC for the key in `csr` (PKCS#10, DER; its own signature is checked here).
    fn issue_noc(&self, node: NodeId, csr: &[u8]) -> impl Future<Output = Result<IssuedNoc, LinkError>> + Send;
}

/// A search for the devices that fit one code; asks the LAN while it lives.
pub trait CandidateSearch: Send + Sync {
    /// Who fits and has an open window, in the order in which they should be tried.
    ///
    /// # Errors
    /// mDNS does not run.
    fn fitting(&self) -> Result<Vec<CommissionableNode>, DiscoverError>;
    /// Everybody with an open window.
    fn announced(&self) -> Vec<CommissionableNode>;
    /// A node that would fit if its window were open.
    fn closed(&self) -> Option<CommissionableNode>;
    /// Who announces to be at an address.
    fn at(&self, address: SocketAddr) -> Option<CommissionableNode>;
    /// Comes back when any of this may have changed.
    fn changed(&mut self) -> impl Future<Output = ()> + Send;
    /// A node does not answer: its records are confirmed, and go where nobody does (RFC 6762 10.4).
    fn doubt(&self, node: &CommissionableNode);
}

/// What mDNS tells of commissionable devices and of nodes, and what the hub announces of itself.
pub trait Discovery: Send + Sync + 'static {
    /// See [`CandidateSearch`].
    type Search: CandidateSearch;

    /// Looks for the devices that fit a code.
    fn search(&self, discriminator: Discriminator, vid_pid: Option<(u16, u16)>) -> Self::Search;
    /// Where a node of our fabric is now; empty where it does not announce itself within `budget`.
    fn operational(
        &self,
        compressed_fabric_id: u64,
        node: NodeId,
        budget: Duration,
    ) -> impl Future<Output = Vec<SocketAddr>> + Send;
}

/// The durable side of commissioning. Every call returns after the fact is on disk.
pub trait NodeStore: Send + Sync + 'static {
    /// Notes that an attempt has begun, and of its code what recognises it.
    fn begin_attempt(
        &self,
        attempt_id: Uuid,
        discriminator: Discriminator,
        fingerprint: u16,
        at: Timestamp,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
    /// Gives the node the next id, which is never given twice, and writes it down, in one commit. Before anything of it is
    /// sent.
    fn begin_provisional(&self, node: ProvisionalNode) -> impl Future<Output = Result<NodeId, StoreError>> + Send;
    /// The same node at a later stage, before the device is told what brings it there.
    fn save_provisional(&self, node: &ProvisionalNode) -> impl Future<Output = Result<(), StoreError>> + Send;
    /// Node record and outbox row in one transaction; ends the attempt and the provisional row.
    fn commit_commissioned(
        &self,
        attempt_id: Uuid,
        record: &NodeRecord,
        task: Option<&OutboxTask>,
        evidence: &str,
    ) -> impl Future<Output = Result<Option<OutboxId>, StoreError>> + Send;
    /// Ends an attempt that failed; its node id stays used. `keep_provisional` where the device may have completed.
    fn fail_attempt(
        &self,
        attempt_id: Uuid,
        step: &'static str,
        code: &'static str,
        keep_provisional: bool,
        at: Timestamp,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
    /// The nodes that were taken in with a code of this fingerprint, the newest first.
    fn nodes_of_code(&self, fingerprint: u16) -> impl Future<Output = Result<Vec<NodeRecord>, StoreError>> + Send;
    /// The nodes of whose code nothing is known.
    fn nodes_without_code(&self) -> impl Future<Output = Result<Vec<NodeRecord>, StoreError>> + Send;
    /// The nodes of one product.
    fn nodes_of_product(
        &self,
        vendor_id: u16,
        product_id: u16,
    ) -> impl Future<Output = Result<Vec<NodeRecord>, StoreError>> + Send;
    /// When the last attempt with a code of this fingerprint was found interrupted, if that was after `since`.
    fn interrupted_since(
        &self,
        fingerprint: u16,
        since: Timestamp,
    ) -> impl Future<Output = Result<Option<Timestamp>, StoreError>> + Send;
    /// Provisional rows left by a crash.
    fn provisional_nodes(&self) -> impl Future<Output = Result<Vec<ProvisionalNode>, StoreError>> + Send;
}

/// Verification and policy together, with the trust store that is loaded now.
pub(crate) trait AttestationJudge: Send + Sync + 'static {
    /// Verifies and decides.
    fn judge(&self, evidence: Evidence, overridden: Option<AttestationOverride>) -> Judgement;
}
