//! The bind as the cloud understands it: request, receipt, and every code's meaning (seed; cloud-contract 4 and 5). Pure.
//!
//! Not here: HTTP (`cloud`), when to try again (`outbox::schedule`).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::fabric::CatGrant;
use crate::node::{FabricId, NodeId, NodeRecord};
use crate::plain;
use crate::secret::{AuthKey, BindingCode};

pub(crate) mod codes;

/// `capabilitiesBitmask`, 1..=15 (seed). Bit 3, Matter, is the same decision as `isMatter` and `matterInfo`: every
/// device that this daemon binds is on its fabric, so the mask cannot be built without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CapabilityMask {
    /// Bit 0: reaches the cloud by itself.
    pub wan: bool,
    /// Bit 1: Wi-Fi or Ethernet. A device on Thread has no bit for its network.
    pub lan: bool,
    /// Bit 2: Bluetooth.
    pub ble: bool,
}

impl CapabilityMask {
    /// A device of which nothing else is known than that it is on the network.
    pub(crate) const ON_THE_LAN: Self = Self { wan: false, lan: true, ble: false };

    /// The mask with Matter (bit 3), which every device on our fabric has.
    pub(crate) fn value(self) -> u8 {
        u8::from(self.wan) | u8::from(self.lan) << 1 | u8::from(self.ble) << 2 | 1 << 3
    }
}

/// What the bind request says beside the identity, where a profile or a person wants it otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct BindOptions {
    /// `matterInfo.extra`, opaque to the hub; left out where there is none.
    pub extra: Option<String>,
    /// Whether the device is put on the family's list of common devices; the cloud does so by itself.
    pub is_common_device: bool,
}

impl Default for BindOptions {
    fn default() -> Self {
        Self { extra: None, is_common_device: true }
    }
}

impl BindOptions {
    /// Whether nothing was asked for.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// `matterInfo` of the bind request, and what the cloud shows of it afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatterInfo {
    /// Fabric id, 1..=2^31-1.
    pub fabric_id: FabricId,
    /// Node id, 1..=2^31-1.
    pub node_id: NodeId,
    /// VendorID of Basic Information.
    pub vendor_id: u16,
    /// ProductID of Basic Information.
    pub product_id: u16,
    /// 12-bit discriminator; 0 is legal and always sent (cloud-contract 6.7).
    pub discriminator: Option<u16>,
    /// For instance `1.4`, never empty.
    pub matter_version: String,
    /// CAT privileges, as the device holds them.
    pub cats: Vec<CatGrant>,
}

/// A device in the cloud: product key and device key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CloudDevice {
    /// The cloud's `pk`, from the product profile.
    pub product_key: String,
    /// Device key, case and leading zeros kept.
    pub device_key: String,
}

/// The cloud's limit for a name is unknown (5333); 64 characters are surely taken (cloud-contract 5).
const NAME_IN_CLOUD: usize = 64;

/// A node's name as the cloud is told, and as what the cloud says is read.
pub(crate) fn name_in_cloud(name: &str) -> String {
    plain::clean(name, usize::MAX).chars().take(NAME_IN_CLOUD).collect()
}

/// Everything that `deviceBindingByWifi` is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindRequest {
    /// The product key and the device key under which the cloud knows it.
    pub device: CloudDevice,
    /// The code that device and binder share.
    pub binding_code: BindingCode,
    /// Name, at most 64 characters; `None` after the cloud refused its length (5333).
    pub device_name: Option<String>,
    /// Family (home).
    pub family_id: Option<String>,
    /// The cloud's `frid`.
    pub room_id: Option<String>,
    /// 1..=15, with bit 3.
    pub capabilities_bitmask: u8,
    /// What a profile or a person wants otherwise.
    pub options: BindOptions,
    /// What identifies the device on our fabric.
    pub matter_info: MatterInfo,
}

/// A successful bind: body code 200 and, after it, a read-back that showed the same Matter ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindReceipt {
    /// The near-field key; a secret.
    pub auth_key: Option<AuthKey>,
    /// 1 multi-user, 2 owner, 3 rotation.
    pub binding_mode: Option<u8>,
    /// The product's name in the cloud.
    pub product_name: Option<String>,
}

/// A device as the cloud shows it (`deviceInfo`, `userDeviceList`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudRecord {
    /// By the cloud's keys, which it gives no other device.
    pub device: CloudDevice,
    /// How the cloud and its apps call it.
    pub device_name: Option<String>,
    /// 1 normal, 2 invalid.
    pub status: Option<i64>,
    /// 1 own, 2 shared.
    pub device_type: Option<i64>,
    /// Whether the cloud holds it as a Matter device.
    pub is_matter: bool,
    /// The Matter identity it holds, field by field: the cloud may have lost or bent one (cloud-contract 6).
    pub matter_info: Option<CloudMatterInfo>,
    /// The near-field key.
    pub auth_key: Option<AuthKey>,
    /// 1 multi-user, 2 owner, 3 rotation.
    pub binding_mode: Option<u8>,
    /// Family (home).
    pub family_id: Option<String>,
    /// The cloud's `frid`.
    pub room_id: Option<String>,
}

/// [`MatterInfo`] as it came back. Ids that no integer could hold are `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloudMatterInfo {
    /// As the cloud holds it, which may be more than a fabric id.
    pub fabric_id: Option<u64>,
    /// As the cloud holds it, which may be no node of ours.
    pub node_id: Option<u64>,
    /// As the cloud holds it, which may be more than 16 bits.
    pub vendor_id: Option<u64>,
    /// As the cloud holds it, which may be more than 16 bits.
    pub product_id: Option<u64>,
    /// As the cloud holds it, which may be more than 12 bits.
    pub discriminator: Option<u64>,
    /// As the cloud spells it.
    pub matter_version: Option<String>,
    /// Each tag with its privilege, as the cloud holds them.
    pub cats: Vec<(u64, String)>,
}

/// One field in which the cloud shows something else than was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldDifference {
    /// The field's name in the node record.
    pub field: String,
    /// What the hub holds.
    pub local: serde_json::Value,
    /// What the cloud shows.
    pub cloud: serde_json::Value,
}

impl CloudDevice {
    /// The device in the cloud that a record is about.
    pub(crate) fn of(record: &NodeRecord) -> Option<Self> {
        Some(Self { product_key: record.product_key.clone()?, device_key: record.device_key.clone()? })
    }
}

impl MatterInfo {
    /// The Matter identity of a record, as the cloud is told.
    pub fn of(record: &NodeRecord) -> Self {
        Self {
            fabric_id: record.fabric_id,
            node_id: record.node_id,
            vendor_id: record.vendor_id,
            product_id: record.product_id,
            discriminator: record.discriminator,
            matter_version: record.matter_version.clone(),
            cats: record.cats.clone(),
        }
    }

    /// Compares with what the cloud shows; empty means that both agree.
    pub fn differences(&self, cloud: &CloudMatterInfo) -> Vec<FieldDifference> {
        use serde_json::json;
        let mut local_cats: Vec<(u64, String)> =
            self.cats.iter().map(|grant| (u64::from(grant.cat.value()), grant.privilege.as_str().to_owned())).collect();
        let mut cloud_cats = cloud.cats.clone();
        local_cats.sort_unstable();
        cloud_cats.sort_unstable();
        let rows = [
            ("fabric_id", json!(self.fabric_id), json!(cloud.fabric_id)),
            ("node_id", json!(self.node_id), json!(cloud.node_id)),
            ("vendor_id", json!(self.vendor_id), json!(cloud.vendor_id)),
            ("product_id", json!(self.product_id), json!(cloud.product_id)),
            ("discriminator", json!(self.discriminator), json!(cloud.discriminator)),
            ("matter_version", json!(self.matter_version), json!(cloud.matter_version)),
            ("cats", json!(local_cats), json!(cloud_cats)),
        ];
        rows.into_iter()
            .filter(|(_, local, cloud)| local != cloud)
            .map(|(field, local, cloud)| FieldDifference { field: field.to_owned(), local, cloud })
            .collect()
    }
}

/// `bind.state` of interface.md.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BindState {
    /// Acknowledged by the cloud and read back.
    Bound,
    /// The outbox holds it.
    Pending,
    /// The cloud will not take it; the code says why.
    Rejected,
    /// No product key, device key or binding code for it.
    NotEligible,
    /// No cloud configured, or `--no-bind`.
    #[default]
    Disabled,
}

/// The `bind` object of a node record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BindStatus {
    /// Whether the cloud has acknowledged it.
    pub state: BindState,
    /// The cloud's last body code.
    pub code: Option<i64>,
    /// The cloud's last message, or why there is none.
    pub message: String,
    /// How often it was sent.
    pub tries: u32,
    /// When it was acknowledged.
    pub bound_at: Option<Timestamp>,
    /// When the cloud last showed it. Written down rarely: asking every minute must not wear out the disk.
    #[serde(default)]
    pub confirmed_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_always_says_lan_and_matter() {
        let mask = |wan, lan, ble| CapabilityMask { wan, lan, ble }.value();
        assert_eq!((mask(false, true, false), mask(true, true, false)), (10, 11));
        assert_eq!((mask(false, true, true), mask(true, true, true)), (14, 15));
        assert_eq!((mask(false, false, false), mask(false, false, true)), (8, 12), "Thread has no bit");
    }
}
