//! What a Matter node is to us, from an advertisement to a durable record. Data only: no I/O, no clock.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::attestation::finding::Finding;
use crate::bind::{BindOptions, BindStatus};
use crate::fabric::CatGrant;

mod icd;
mod marks;
mod number;
mod peer;
#[cfg(any(test, feature = "sim"))]
pub(crate) mod sample;
mod session;

pub(crate) use icd::{CheckInCounter, Counted, IcdParameters, IcdSleep};
pub(crate) use marks::Marks;
pub(crate) use number::number;
pub(crate) use peer::BluetoothAddress;
pub use peer::{Announced, BluetoothNode, Peer};
pub(crate) use session::SessionParameters;

/// The range from which the hub allocates fabric and node ids: exact in every JSON reader (cloud-contract 6.3).
pub(crate) const OWN_ID_MAX: u64 = (1 << 31) - 1;

/// A 64-bit operational node id (Matter Core 2.5.5.1). The hub's own devices lie in 1..=[`OWN_ID_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A text is no node id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a node id is needed, decimal or hexadecimal like 0x1F")]
pub struct NoNodeId;

impl FromStr for NodeId {
    type Err = NoNodeId;

    /// Decimal, or hexadecimal after `0x`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        number(text).map(Self).ok_or(NoNodeId)
    }
}

/// A fabric id (Matter Core 2.5.1), for our own fabric in 1..=[`OWN_ID_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct FabricId(pub u64);

/// An IP address with the interface it was seen on: a link-local address means nothing without it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ScopedAddress {
    /// Link-local ones need `scope`.
    pub ip: IpAddr,
    /// Name and index of the interface on which it was seen. Only link-local addresses need it to be sent to.
    pub scope: Option<(String, u32)>,
}

impl ScopedAddress {
    /// The socket address to send to.
    pub fn socket(&self, port: u16) -> SocketAddr {
        match (self.ip, &self.scope) {
            // A scope on any other address would make it unequal to the peer address of what comes back.
            (IpAddr::V6(ip), Some((_, index))) if is_unicast_link_local(ip) => {
                SocketAddrV6::new(ip, port, 0, *index).into()
            }
            (ip, _) => SocketAddr::new(ip, port),
        }
    }

    /// Whether the address needs its scope.
    pub fn is_link_local(&self) -> bool {
        matches!(self.ip, IpAddr::V6(ip) if is_unicast_link_local(ip))
    }
}

/// fe80::/10.
pub(crate) fn is_unicast_link_local(ip: Ipv6Addr) -> bool {
    ip.segments()[0] & 0xFFC0 == 0xFE80
}

impl fmt::Display for ScopedAddress {
    /// `fe80::1%eth0`, or the plain address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.scope {
            Some((name, _)) if self.is_link_local() => write!(f, "{}%{name}", self.ip),
            _ => write!(f, "{}", self.ip),
        }
    }
}

/// Reads `fe80::1%eth0`, or a plain address, as [`ScopedAddress`] is written: the address, and the name of its interface.
pub(crate) fn read_scoped(text: &str) -> Option<(IpAddr, Option<&str>)> {
    let (ip, interface) = text.split_once('%').map_or((text, None), |(ip, name)| (ip, Some(name)));
    Some((ip.parse().ok()?, interface))
}

/// A commissionable node as its DNS-SD records describe it (Matter Core 4.3.1). One per service instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommissionableNode {
    /// The DNS-SD instance name: 16 hex digits, new at every boot of the device.
    pub instance: String,
    /// All addresses, best first.
    pub addresses: Vec<ScopedAddress>,
    /// Of UDP, 5540 unless the device has another.
    pub port: u16,
    /// What the TXT record says.
    pub txt: CommissionableTxt,
}

impl CommissionableNode {
    /// All socket addresses, best first.
    pub fn sockets(&self) -> Vec<SocketAddr> {
        self.addresses.iter().map(|address| address.socket(self.port)).collect()
    }
}

/// Every TXT key of a commissionable node (Matter Core 4.3.1.4 and 4.3.4).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommissionableTxt {
    /// `D`: the 12-bit discriminator.
    pub discriminator: u16,
    /// `CM`: 0 not in commissioning mode, 1 passcode, 2 dynamic passcode (window opened by an administrator), 3 joint.
    pub commissioning_mode: u8,
    /// `VP`, first part.
    pub vendor_id: Option<u16>,
    /// `VP`, second part; 0 where the device hides it.
    pub product_id: Option<u16>,
    /// `DT`: primary device type.
    pub device_type: Option<u32>,
    /// `DN`: device name.
    pub device_name: Option<String>,
    /// `RI`: rotating device identifier, upper-case hex.
    pub rotating_id: Option<String>,
    /// `PH`: pairing hint bits.
    pub pairing_hint: Option<u32>,
    /// `PI`: pairing instruction.
    pub pairing_instruction: Option<String>,
    /// `JF`: joint fabric bits.
    pub joint_fabric: Option<u32>,
    /// `SII`: session idle interval, milliseconds.
    pub session_idle_interval_ms: Option<u32>,
    /// `SAI`: session active interval, milliseconds.
    pub session_active_interval_ms: Option<u32>,
    /// `SAT`: session active threshold, milliseconds.
    pub session_active_threshold_ms: Option<u32>,
    /// `T`: TCP support bits.
    pub tcp: Option<u32>,
    /// `ICD`: long idle time operating mode.
    pub icd: Option<bool>,
}

impl CommissionableTxt {
    /// The keys that an operational node has too.
    pub fn rhythm(&self) -> OperationalTxt {
        OperationalTxt {
            session_idle_interval_ms: self.session_idle_interval_ms,
            session_active_interval_ms: self.session_active_interval_ms,
            session_active_threshold_ms: self.session_active_threshold_ms,
            tcp: self.tcp,
            icd: self.icd,
        }
    }

    /// The node's rhythm, with the specification's defaults for what it does not say.
    pub fn session(&self) -> SessionParameters {
        SessionParameters::new(
            self.session_idle_interval_ms,
            self.session_active_interval_ms,
            self.session_active_threshold_ms,
            self.icd,
        )
    }
}

/// Every TXT key of an operational node (Matter Core 4.3.4).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OperationalTxt {
    /// `SII`: session idle interval, milliseconds.
    pub session_idle_interval_ms: Option<u32>,
    /// `SAI`: session active interval, milliseconds.
    pub session_active_interval_ms: Option<u32>,
    /// `SAT`: session active threshold, milliseconds.
    pub session_active_threshold_ms: Option<u32>,
    /// `T`: TCP support bits.
    pub tcp: Option<u32>,
    /// `ICD`: long idle time operating mode. A record has these beside its own `icd`, which says something else.
    #[serde(rename = "long_idle")]
    pub icd: Option<bool>,
}

impl OperationalTxt {
    /// The node's rhythm, with the specification's defaults for what it does not say.
    pub fn session(&self) -> SessionParameters {
        SessionParameters::new(
            self.session_idle_interval_ms,
            self.session_active_interval_ms,
            self.session_active_threshold_ms,
            self.icd,
        )
    }
}

/// A name under which DNS-SD knows a node, on our fabric or another (Matter Core 4.3.2.1). Both numbers are the device's own
/// and nobody else's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct OperationalIdentity {
    /// The 64-bit compressed fabric id.
    pub compressed_fabric_id: u64,
    /// The node id on that fabric.
    pub node_id: NodeId,
}

impl OperationalIdentity {
    /// The DNS-SD instance name, `<compressed fabric id>-<node id>` (Matter Core 4.3.2.1).
    pub fn instance(&self) -> String {
        format!("{:016X}-{:016X}", self.compressed_fabric_id, self.node_id.0)
    }
}

/// An operational node as DNS-SD announces it (Matter Core 4.3.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationalNode {
    /// The 64-bit compressed fabric id.
    pub compressed_fabric_id: u64,
    /// The node id on that fabric.
    pub node_id: NodeId,
    /// All addresses, best first.
    pub addresses: Vec<ScopedAddress>,
    pub port: u16,
    /// What the TXT record says.
    pub txt: OperationalTxt,
}

impl OperationalNode {
    /// The DNS-SD instance name, `<compressed fabric id>-<node id>` (Matter Core 4.3.2.1).
    pub fn instance(&self) -> String {
        self.identity().instance()
    }

    /// The name that it has by DNS-SD.
    fn identity(&self) -> OperationalIdentity {
        OperationalIdentity { compressed_fabric_id: self.compressed_fabric_id, node_id: self.node_id }
    }

    /// All socket addresses, best first.
    pub fn sockets(&self) -> Vec<SocketAddr> {
        self.addresses.iter().map(|address| address.socket(self.port)).collect()
    }
}

/// What the Basic Information cluster says (Matter Core 11.1).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BasicInformation {
    /// VendorID.
    pub vendor_id: u16,
    /// ProductID.
    pub product_id: u16,
    /// VendorName.
    pub vendor_name: String,
    /// ProductName.
    pub product_name: String,
    /// SerialNumber, where the device has one.
    pub serial_number: Option<String>,
    /// UniqueID, where the device has one.
    pub unique_id: Option<String>,
    /// NodeLabel.
    pub node_label: String,
    /// SoftwareVersion.
    pub software_version: u32,
    /// SoftwareVersionString.
    pub software_version_string: String,
    /// SpecificationVersion; absent before Matter 1.3.
    pub specification_version: Option<u32>,
    /// DataModelRevision, from which the version of older devices follows.
    pub data_model_revision: u16,
}

impl BasicInformation {
    /// The Matter version as the cloud wants it, for instance `1.4`.
    ///
    /// SpecificationVersion is `0xMMmmpprr` (Matter Core 11.1.5.22). Devices before 1.3 lack it; their
    /// DataModelRevision tells: 16 is 1.0 and 1.1, 17 is 1.2 and 1.3.
    pub fn matter_version(&self) -> String {
        match self.specification_version {
            Some(version) if version != 0 => match (version >> 24, version >> 16 & 0xFF, version >> 8 & 0xFF) {
                (major, minor, 0) => format!("{major}.{minor}"),
                (major, minor, patch) => format!("{major}.{minor}.{patch}"),
            },
            _ if self.data_model_revision >= 17 => "1.2".to_owned(),
            _ => "1.0".to_owned(),
        }
    }
}

/// Where a node stands between the first durable row and its removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// A node operational certificate was issued; CommissioningComplete is not yet known.
    Provisional,
    /// On our fabric, and it answered when last asked.
    Operational,
    /// On our fabric, but it does not answer.
    Unreachable,
    /// Its removal has begun and is resumed until done.
    Removing,
}

impl NodeState {
    /// The word in JSON and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Provisional => "provisional",
            Self::Operational => "operational",
            Self::Unreachable => "unreachable",
            Self::Removing => "removing",
        }
    }
}

/// Whether a device with long idle times tells this hub when it is awake (Matter Core 9.16).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum IcdRegistration {
    /// It sends check-ins.
    Registered,
    /// It does not; it is heard of when it announces itself.
    NotRegistered,
}

/// Attestation as it is kept with the node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AttestationSummary {
    /// `accepted`, `accepted-with-warnings` or `accepted-by-override`; `rejected` where it would not be accepted by what is
    /// known today.
    pub verdict: String,
    /// Everything that was found.
    pub findings: Vec<Finding>,
}

/// The node record of interface.md: what is known durably about one commissioned device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeRecord {
    /// Our fabric's id.
    pub fabric_id: FabricId,
    /// The node's id on our fabric.
    pub node_id: NodeId,
    /// The index under which the device keeps our fabric, 1..=254.
    pub fabric_index: u8,
    /// Vendor id from Basic Information.
    pub vendor_id: u16,
    /// Product id from Basic Information.
    pub product_id: u16,
    /// The full 12-bit discriminator, from DNS-SD where the code had only four bits; `None` where nobody told it.
    pub discriminator: Option<u16>,
    /// For instance `1.4`.
    pub matter_version: String,
    /// As the device reported it; untrusted text.
    pub vendor_name: String,
    /// As the device reported it; untrusted text.
    pub product_name: String,
    /// As the device reported it, where it did; untrusted text.
    pub serial_number: Option<String>,
    /// The device's UniqueID, where it has one.
    pub unique_id: Option<String>,
    /// CAT privileges, read back from the device's own access control list.
    pub cats: Vec<CatGrant>,
    /// Product key in the cloud; absent where the device is not eligible.
    pub product_key: Option<String>,
    /// Device key in the cloud.
    pub device_key: Option<String>,
    /// The person's name for it.
    pub name: String,
    /// Family (home) in the cloud.
    pub family_id: Option<String>,
    /// Room in the cloud.
    pub room_id: Option<String>,
    /// The mask sent with the bind, 1..=15 (cloud-contract 4).
    pub capabilities_bitmask: u8,
    /// What else the bind says, where a profile or a person wanted it otherwise.
    #[serde(default, skip_serializing_if = "BindOptions::is_default")]
    pub bind_options: BindOptions,
    /// Why the device was accepted.
    pub attestation: AttestationSummary,
    /// Addresses when last seen, `fe80::1%eth0`; the one that answered last comes first.
    pub addresses: Vec<String>,
    /// UDP port when last seen.
    pub port: u16,
    /// What it announced of its rhythm when last seen: how long it sleeps between two looks at its radio.
    #[serde(flatten)]
    pub rhythm: OperationalTxt,
    /// The names that its own fabric table gives it on other fabrics, when last read.
    #[serde(default)]
    pub also_known_as: Vec<OperationalIdentity>,
    /// When it joined our fabric.
    pub commissioned_at: Timestamp,
    /// When it last answered or announced itself.
    pub last_seen_at: Option<Timestamp>,
    /// Whether it answers, or is being removed.
    pub state: NodeState,
    /// How its bind in the cloud stands.
    pub bind: BindStatus,
    /// Whether the hub is registered with a device that supports long idle times; absent for all others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icd: Option<IcdRegistration>,
    /// The node that this device was before it was reset and commissioned again; its name and place went over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<NodeId>,
}

impl NodeRecord {
    /// The name of a device for which nobody gave one.
    pub fn default_name(product_name: &str, node: NodeId) -> String {
        if product_name.is_empty() { format!("node {node}") } else { format!("{product_name} {node}") }
    }

    /// Whether nobody gave it its name.
    pub fn has_default_name(&self) -> bool {
        self.name == Self::default_name(&self.product_name, self.node_id)
    }

    /// What tells its device from others of its kind.
    pub fn marks(&self) -> Marks<'_> {
        Marks {
            product: (self.vendor_id, self.product_id),
            serial_number: self.serial_number.as_deref(),
            unique_id: self.unique_id.as_deref(),
        }
    }
}

impl BasicInformation {
    /// What tells the device from others of its kind.
    pub fn marks(&self) -> Marks<'_> {
        Marks {
            product: (self.vendor_id, self.product_id),
            serial_number: self.serial_number.as_deref(),
            unique_id: self.unique_id.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn node_ids_are_read_in_both_bases() {
        assert_eq!("1000".parse(), Ok(NodeId(1000)));
        assert_eq!("0x3E8".parse(), Ok(NodeId(1000)));
        assert!("light".parse::<NodeId>().is_err());
    }

    #[test]
    fn the_matter_version_comes_from_the_device() {
        let with = |specification_version, data_model_revision| {
            BasicInformation { specification_version, data_model_revision, ..Default::default() }.matter_version()
        };
        assert_eq!(with(Some(0x0106_0000), 19), "1.6");
        assert_eq!(with(Some(0x0104_0100), 18), "1.4.1");
        assert_eq!(with(None, 17), "1.2");
        assert_eq!(with(None, 16), "1.0");
    }

    #[test]
    fn a_node_that_says_nothing_has_the_specifications_rhythm() {
        assert_eq!(OperationalTxt::default().session(), SessionParameters::default());
        let sleepy =
            CommissionableTxt { session_idle_interval_ms: Some(15_000), icd: Some(true), ..Default::default() };
        let expected =
            SessionParameters { idle_interval: Duration::from_secs(15), long_idle: true, ..Default::default() };
        assert_eq!(sleepy.session(), expected);
    }

    #[test]
    fn a_link_local_address_keeps_its_interface() {
        let address = ScopedAddress { ip: "fe80::1".parse().expect("an address"), scope: Some(("eth0".to_owned(), 2)) };
        assert_eq!(address.to_string(), "fe80::1%eth0");
        assert_eq!(address.socket(5540).to_string(), "[fe80::1%2]:5540");
    }
}
