//! What may be asked about controllers, and what is answered.

use std::fmt;
use std::future::Future;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

use crate::controller::ControllerState;
use crate::hub::access::AccessOutcome;
use crate::hub::refusal::Refusal;
use crate::node::NodeId;
use crate::secret::{IpkEpochKey, OperatorSecret};

/// Gives other controllers certificates of our fabric, renews them, and shuts their holders out.
pub trait ControllersDoor: Send + Sync + 'static {
    /// All of them, and the invitations that are open.
    fn controllers(&self) -> impl Future<Output = Result<Controllers, Refusal>> + Send;
    /// One, by node id or name.
    fn controller(&self, controller: &str) -> impl Future<Output = Result<ControllerView, Refusal>> + Send;
    /// A new one: its bundle.
    fn add_controller(
        &self,
        order: ControllerOrder,
        who: String,
    ) -> impl Future<Output = Result<ControllerBundle, Refusal>> + Send;
    /// Another certificate with the versions that are issued now.
    fn renew_controller(
        &self,
        controller: &str,
        order: RenewOrder,
        who: String,
    ) -> impl Future<Output = Result<ControllerBundle, Refusal>> + Send;
    /// Shuts it out: when everybody else has a later version and uses it, which whoever asks again says; or at once.
    fn remove_controller(
        &self,
        controller: &str,
        at_once: bool,
        who: String,
    ) -> impl Future<Output = Result<ControllerRemoval, Refusal>> + Send;
}

/// Gives apps a code by which they get their certificate themselves.
pub trait InvitesDoor: Send + Sync + 'static {
    /// Makes a code by which one app enrols.
    fn invite(&self, order: InviteOrder, who: String) -> impl Future<Output = Result<Invitation, Refusal>> + Send;
    /// Takes a code back.
    fn withdraw_invite(&self, invite: &str, who: String) -> impl Future<Output = Result<Controllers, Refusal>> + Send;
    /// An app on the network shows a code; `from` is where it is.
    fn enrol(
        &self,
        request: EnrolRequest,
        from: String,
    ) -> impl Future<Output = Result<ControllerBundle, Refusal>> + Send;
}

/// `POST /v1/controllers`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ControllerOrder {
    /// How people call it: 1 to 64 characters, unique.
    pub name: String,
    /// The certificate request: PEM, or DER in base64.
    pub csr: String,
    /// The identifiers of the tags, the upper 16 bits; three at most. Without a tag no node lets it in.
    #[serde(default)]
    pub cats: Vec<u16>,
    /// It gets the hub's own tag as well, and may then change who may do what.
    #[serde(default)]
    pub admin: bool,
    /// How long the certificate is valid, seconds; left out: a year.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_s: Option<u64>,
}

/// `POST /v1/controllers/{controller}/renew`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RenewOrder {
    /// A request for a new key: PEM, or DER in base64.
    pub csr: String,
    /// How long the certificate is valid, seconds; left out: a year.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_s: Option<u64>,
}

/// `POST /v1/controllers/{controller}/remove`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RemoveOrder {
    /// Do not wait until the others of its tags have renewed: they are shut out until they do.
    pub now: bool,
}

/// `POST /v1/invites`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InviteOrder {
    /// The identifiers of the tags that its certificate gets, never the hub's own.
    pub cats: Vec<u16>,
    /// How the controller is to be called; left out: as it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How long the code is good, seconds: 60 to 86400.
    pub for_s: u64,
    /// How long the certificate is valid, seconds; left out: a year.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_s: Option<u64>,
}

/// `POST /v1/enrol`
#[derive(Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnrolRequest {
    /// The code of the invitation; a secret.
    #[schema(value_type = String)]
    pub code: OperatorSecret,
    /// The certificate request: PEM, or DER in base64.
    pub csr: String,
    /// How it calls itself, where the invitation does not say.
    #[serde(default)]
    pub name: Option<String>,
}

impl fmt::Debug for EnrolRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnrolRequest").field("name", &self.name).finish_non_exhaustive()
    }
}

/// `controller list --json`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Controllers {
    /// All controllers by node id, those that were removed included.
    pub controllers: Vec<ControllerView>,
    /// The invitations that can be used.
    pub invites: Vec<InviteView>,
}

/// How a controller stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ControllerView {
    /// Its node id on our fabric.
    pub node_id: NodeId,
    /// How people call it.
    pub name: String,
    /// `enrolled`, `leaving` (others must renew first) or `removed`.
    pub state: ControllerState,
    /// `current`, `renew` (later versions are issued by now), `shut-out` (a node asks for a later version) or `expired`.
    pub certificate: String,
    /// The tags in its certificate.
    pub cats: Vec<u32>,
    /// SHA-256 of its public key, hex.
    pub key: String,
    /// When it got its first certificate.
    pub enrolled_at: Timestamp,
    /// When it got this one.
    pub issued_at: Timestamp,
    /// When this one ends; `null`: never.
    pub expires_at: Option<Timestamp>,
    /// Whether it ends within a month, or has ended.
    pub expires_soon: bool,
    /// Who has to renew before it is shut out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits_for: Vec<ControllerName>,
    /// When it is shut out by itself, unless that is asked for again before: everybody else was renewed, perhaps not long ago.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settles_at: Option<Timestamp>,
    /// Nodes that have not been told yet that it is removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pending_nodes: Vec<NodeId>,
}

/// A controller in few words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ControllerName {
    /// Its node id on our fabric.
    pub node_id: NodeId,
    /// How people call it.
    pub name: String,
}

/// An invitation that can be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InviteView {
    /// The first part of its code.
    pub id: String,
    /// The identifiers of its tags.
    pub cats: Vec<u16>,
    /// How the controller will be called.
    pub name: Option<String>,
    /// From then on it is refused.
    pub expires_at: Timestamp,
    /// Wrong codes that it bears yet.
    pub tries_left: u8,
}

/// `controller invite --json`: the code, this once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Invitation {
    /// The first part of the code.
    pub id: String,
    /// What a person types into the app; a secret.
    #[serde(serialize_with = "expose")]
    #[schema(value_type = String)]
    pub code: OperatorSecret,
    /// What the app scans: where to post, the certificate to expect there, and the code.
    #[serde(serialize_with = "expose")]
    #[schema(value_type = String)]
    pub qr_payload: OperatorSecret,
    /// The addresses of the hub at which `POST /v1/enrol` is answered.
    pub urls: Vec<String>,
    /// SHA-256 of the certificate that answers there, hex.
    pub certificate_sha256: String,
    /// From then on it is refused.
    pub expires_at: Timestamp,
}

/// A certificate in both of its forms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CertificateForms {
    /// Matter TLV, base64.
    pub tlv: String,
    /// X.509, PEM.
    pub pem: String,
}

/// The controller bundle: all that a controller needs to talk to our nodes, but for the private key, which it has. See
/// docs/controllers.md.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ControllerBundle {
    /// How people call it.
    pub name: String,
    /// Its node id on our fabric.
    pub node_id: NodeId,
    /// The fabric id that stands in all of its certificates.
    pub fabric_id: u64,
    /// What DNS-SD calls our fabric.
    pub compressed_fabric_id: u64,
    /// The vendor id of the administrator.
    pub admin_vendor_id: u16,
    /// The hub's node id.
    pub hub_node_id: NodeId,
    /// The tags in its certificate.
    pub cats: Vec<u32>,
    /// When the certificate was issued.
    pub issued_at: Timestamp,
    /// When it ends; `null`: never.
    pub expires_at: Option<Timestamp>,
    /// The root certificate.
    pub rcac: CertificateForms,
    /// The intermediate certificate.
    pub icac: CertificateForms,
    /// Its own certificate.
    pub noc: CertificateForms,
    /// The fabric's Identity Protection Key (the epoch key), base64; a secret.
    #[serde(serialize_with = "ipk_to_base64", deserialize_with = "ipk_from_base64")]
    #[schema(value_type = String)]
    pub ipk: IpkEpochKey,
    /// The private key, PEM, where the command line made it (`--new-key`); a secret. Never in an answer of the daemon.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "expose_some")]
    #[schema(value_type = Option<String>)]
    pub private_key: Option<OperatorSecret>,
    /// The nodes and where they were last.
    pub nodes: Vec<BundleNode>,
    /// What else should be known, for instance that the hub's clock is not set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// A node in a [`ControllerBundle`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BundleNode {
    /// What DNS-SD calls it (`_matter._tcp`): compressed fabric id and node id, hex.
    pub instance: String,
    /// Its node id on our fabric.
    pub node_id: NodeId,
    /// How people call it.
    pub name: String,
    /// The vendor id that it reported when it was commissioned.
    pub vendor_id: u16,
    /// The product id that it reported then.
    pub product_id: u16,
    /// Where it was last.
    pub addresses: Vec<String>,
    /// The UDP port that it listens on for Matter.
    pub port: u16,
}

/// `controller remove --json`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ControllerRemoval {
    /// Its node id on our fabric.
    pub node_id: NodeId,
    /// How people call it.
    pub name: String,
    /// `removed`, or `leaving` where others have to renew first.
    pub state: ControllerState,
    /// Whether it is shut out of every node.
    pub complete: bool,
    /// The tags as nodes ask for them from now on.
    pub rotated: Vec<u32>,
    /// Who has to renew: first, where it is `leaving`; else because they are shut out as well.
    pub renew: Vec<ControllerName>,
    /// When it is shut out by itself, unless that is asked for again before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settles_at: Option<Timestamp>,
    /// Node by node, once they are told.
    pub nodes: Vec<AccessOutcome>,
    /// What happens next, as a sentence for a person.
    pub message: String,
}

fn expose<S: Serializer>(secret: &OperatorSecret, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose())
}

fn expose_some<S: Serializer>(secret: &Option<OperatorSecret>, serializer: S) -> Result<S::Ok, S::Error> {
    secret.as_ref().map(OperatorSecret::expose).serialize(serializer)
}

fn ipk_to_base64<S: Serializer>(ipk: &IpkEpochKey, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&zeroize::Zeroizing::new(BASE64.encode(ipk.expose())))
}

fn ipk_from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IpkEpochKey, D::Error> {
    let bytes = BASE64.decode(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)?;
    let bytes: [u8; 16] = bytes.try_into().map_err(|_| serde::de::Error::custom("an IPK has 16 bytes"))?;
    Ok(IpkEpochKey::new(bytes))
}
