//! The comparison of three views of one node. Pure: no clock, no I/O.
//!
//! Not here: what to do about a difference (`mend`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::bind::{BindState, CloudRecord, FieldDifference, MatterInfo, name_in_cloud};
use crate::fabric::{AUTH_MODE_CASE, AclEntry, Cat, CatGrant, Privilege, granted_cats};
use crate::node::{BasicInformation, NodeId, NodeRecord};
use crate::standing::OffFabric;

/// `deviceType` of a record that somebody shares with our account.
const SHARED: i64 = 2;

/// What a CASE session with a node showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceFacts {
    /// CurrentFabricIndex (Matter Core 11.18.5.6).
    pub fabric_index: u8,
    /// FabricID and NodeID of that row of Fabrics (11.18.5.2), where the device shows it.
    pub identity: Option<(u64, u64)>,
    /// Basic Information (11.1).
    pub basic: BasicInformation,
    /// Our fabric's entries of the access control list (9.10.6.3).
    pub acl: Vec<AclEntry>,
}

/// How the device stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceView {
    /// It answered on our fabric.
    Seen(Box<DeviceFacts>),
    /// It has proved that it is not on our fabric any more.
    OffFabric(OffFabric),
    /// It did not answer, whoever else did.
    Silent {
        /// Why, in plain words.
        reason: String,
    },
}

/// How the cloud stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloudView {
    /// There is no cloud, or the node has no keys there.
    NotAsked,
    /// It could not be asked.
    Unknown {
        /// Why, in plain words.
        reason: String,
    },
    /// What our account holds.
    Held(Option<Box<CloudRecord>>),
}

/// Everything that is compared.
#[derive(Debug, Clone, Copy)]
pub struct Views<'a> {
    /// What the hub has written down.
    pub local: &'a NodeRecord,
    /// What the device said of itself, or why it said nothing.
    pub device: &'a DeviceView,
    /// What the account's list says of it.
    pub cloud: &'a CloudView,
    /// Whether the outbox holds a bind, an unbind or a change of the Matter identity for it, in whatever state.
    pub queued: bool,
    /// A node that was commissioned later and is the same device (see [`superseded`]).
    pub superseded_by: Option<NodeId>,
    /// DNS-SD instance of a commissionable device that looks like this one.
    pub commissionable_again: Option<&'a str>,
}

/// A value of Basic Information that the record repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BasicField {
    VendorId,
    ProductId,
    SerialNumber,
    UniqueId,
    /// From SpecificationVersion; an update of the firmware changes it.
    MatterVersion,
    VendorName,
    ProductName,
}

impl BasicField {
    /// The field's name in the node record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::VendorId => "vendor_id",
            Self::ProductId => "product_id",
            Self::SerialNumber => "serial_number",
            Self::UniqueId => "unique_id",
            Self::MatterVersion => "matter_version",
            Self::VendorName => "vendor_name",
            Self::ProductName => "product_name",
        }
    }

    /// Whether another value means another device, which no firmware update explains.
    pub fn is_identity(self) -> bool {
        matches!(self, Self::VendorId | Self::ProductId | Self::SerialNumber | Self::UniqueId)
    }
}

/// One thing in which the three do not agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// The device keeps our fabric under another index.
    FabricIndex {
        device: u8,
        local: u8,
    },
    /// The device's fabric table has other ids for us: a defect, for the ids are in its certificate.
    FabricTable {
        /// Fabric id and node id on the device.
        device: (u64, u64),
        local: (u64, u64),
    },
    Basic {
        field: BasicField,
        device: Value,
        local: Value,
    },
    /// The device grants other CAT privileges than recorded.
    Access {
        /// On the device, sorted.
        device: Vec<CatGrant>,
        /// In the record, sorted.
        local: Vec<CatGrant>,
    },
    /// The device lets in others than tags on our fabric: node ids, everybody, groups, or for targets only.
    ForeignAccess(Vec<AclEntry>),
    /// The device does not know our fabric any more: reset, or removed by another administrator.
    OffFabric {
        /// The index that it had.
        local: u8,
    },
    /// A device that looks like it can be commissioned again.
    CommissionableAgain {
        /// Its DNS-SD instance.
        instance: String,
    },
    /// The same device was commissioned again as another node.
    Superseded {
        by: NodeId,
    },
    /// The cloud holds it or not, against what the record says.
    Bind {
        local: BindState,
        /// Whether our account holds it.
        held: bool,
        /// Whether the outbox is going to change that.
        queued: bool,
    },
    /// The cloud could not be asked.
    CloudUnknown {
        local: BindState,
        reason: String,
    },
    /// The cloud's record is invalid, or only shared with our account.
    NotOurs,
    /// The cloud holds another Matter identity.
    MatterInfo(FieldDifference),
    /// The cloud shows another name, family or room.
    Label(FieldDifference),
}

/// The verdict on one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// All agree.
    Match,
    /// The device is not as recorded.
    Drift,
    /// The device does not answer.
    DeviceUnreachable,
    /// The cloud does not have it.
    CloudMissing,
    /// The cloud could not be asked.
    CloudUnreachable,
    /// The cloud shows something else.
    CloudDiffers,
    /// It has no identity in the cloud.
    NotEligible,
    /// It is being removed: device, cloud and record follow each other.
    Removing,
    /// It is on our fabric or in our account, and there is no record of it.
    UnknownNode,
}

/// What came of comparing one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// The verdict: the first of unreachable, drift, cloud unreachable, missing, differs that holds.
    pub verdict: Verdict,
    /// Everything that was found, the device's first.
    pub differences: Vec<Difference>,
}

impl Comparison {
    /// Whether nothing is left to do or to tell.
    pub fn in_sync(&self) -> bool {
        self.verdict.is_in_sync()
    }
}

/// One field, as each of the three holds it; `null` where one does not know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Difference)]
pub struct DifferingField {
    /// The field's name in the node record.
    pub field: String,
    /// On the device.
    pub device: Value,
    /// In the record.
    pub local: Value,
    /// In the cloud.
    pub cloud: Value,
}

/// Compares the three views.
pub fn compare(views: Views<'_>) -> Comparison {
    let mut differences = Vec::new();
    match views.device {
        DeviceView::Seen(facts) => device_differences(facts, views.local, &mut differences),
        DeviceView::OffFabric(_) => differences.push(Difference::OffFabric { local: views.local.fabric_index }),
        DeviceView::Silent { .. } => {}
    }
    let answers = matches!(views.device, DeviceView::Seen(_));
    if let Some(instance) = views.commissionable_again.filter(|_| !answers) {
        differences.push(Difference::CommissionableAgain { instance: instance.to_owned() });
    }
    if let Some(by) = views.superseded_by {
        differences.push(Difference::Superseded { by });
    }
    let of_device = differences.len();
    // What the cloud holds under these keys belongs to the newer node then.
    if views.superseded_by.is_none() {
        cloud_differences(&views, &mut differences);
    }
    let verdict = verdict(&views, &differences[..of_device], &differences[of_device..]);
    Comparison { verdict, differences }
}

fn verdict(views: &Views<'_>, device: &[Difference], cloud: &[Difference]) -> Verdict {
    let unknown = |difference: &Difference| matches!(difference, Difference::CloudUnknown { .. });
    let missing = |difference: &Difference| matches!(difference, Difference::Bind { held: false, .. });
    match views.device {
        _ if views.superseded_by.is_some() => Verdict::Drift,
        DeviceView::Silent { .. } => Verdict::DeviceUnreachable,
        DeviceView::OffFabric(_) => Verdict::Drift,
        DeviceView::Seen(_) if !device.is_empty() => Verdict::Drift,
        DeviceView::Seen(_) if cloud.iter().any(unknown) => Verdict::CloudUnreachable,
        DeviceView::Seen(_) if cloud.iter().any(missing) => Verdict::CloudMissing,
        DeviceView::Seen(_) if !cloud.is_empty() => Verdict::CloudDiffers,
        DeviceView::Seen(_) if views.local.bind.state == BindState::NotEligible => Verdict::NotEligible,
        DeviceView::Seen(_) => Verdict::Match,
    }
}

fn device_differences(facts: &DeviceFacts, local: &NodeRecord, found: &mut Vec<Difference>) {
    if facts.fabric_index != local.fabric_index {
        found.push(Difference::FabricIndex { device: facts.fabric_index, local: local.fabric_index });
    }
    let ids = (local.fabric_id.0, local.node_id.0);
    if let Some(device) = facts.identity.filter(|device| *device != ids) {
        found.push(Difference::FabricTable { device, local: ids });
    }
    basic_differences(&facts.basic, local, found);
    let (device, recorded) = (granted_cats(&facts.acl), sorted(&local.cats));
    if device != recorded {
        found.push(Difference::Access { device, local: recorded });
    }
    let foreign: Vec<AclEntry> = facts.acl.iter().filter(|entry| is_foreign(entry)).cloned().collect();
    if !foreign.is_empty() {
        found.push(Difference::ForeignAccess(foreign));
    }
}

fn basic_differences(basic: &BasicInformation, local: &NodeRecord, found: &mut Vec<Difference>) {
    let mut check = |field, same: bool, device: &dyn Fn() -> Value, recorded: &dyn Fn() -> Value| {
        if !same {
            found.push(Difference::Basic { field, device: device(), local: recorded() });
        }
    };
    let version = basic.matter_version();
    macro_rules! field {
        ($field:expr, $device:expr, $local:expr) => {
            check($field, $device == $local, &|| json!($device), &|| json!($local))
        };
    }
    field!(BasicField::VendorId, basic.vendor_id, local.vendor_id);
    field!(BasicField::ProductId, basic.product_id, local.product_id);
    field!(BasicField::SerialNumber, basic.serial_number, local.serial_number);
    field!(BasicField::UniqueId, basic.unique_id, local.unique_id);
    field!(BasicField::MatterVersion, version, local.matter_version);
    field!(BasicField::VendorName, basic.vendor_name, local.vendor_name);
    field!(BasicField::ProductName, basic.product_name, local.product_name);
}

/// Whether an entry lets in others than CASE Authenticated Tags, or something that [`granted_cats`] leaves out. An entry
/// without subjects lets in everybody on the fabric.
fn is_foreign(entry: &AclEntry) -> bool {
    entry.auth_mode != AUTH_MODE_CASE
        || entry.has_targets
        || entry.subjects.is_empty()
        || Privilege::from_wire(entry.privilege).is_none()
        || entry.subjects.iter().any(|subject| Cat::from_subject(*subject).is_none())
}

fn cloud_differences(views: &Views<'_>, found: &mut Vec<Difference>) {
    let local = views.local.bind.state;
    let held = match views.cloud {
        CloudView::NotAsked => return,
        CloudView::Unknown { reason } => {
            // Nothing is expected there, so nothing is unknown.
            if matches!(local, BindState::Bound | BindState::Pending) {
                found.push(Difference::CloudUnknown { local, reason: reason.clone() });
            }
            return;
        }
        CloudView::Held(held) => held,
    };
    match (held, local) {
        (None, BindState::Bound | BindState::Pending | BindState::Rejected) => {
            found.push(Difference::Bind { local, held: false, queued: views.queued });
        }
        (None, BindState::Disabled | BindState::NotEligible) => {}
        // A row that is under way may have taken effect already.
        (Some(_), BindState::Disabled | BindState::NotEligible | BindState::Rejected) => {
            found.push(Difference::Bind { local, held: true, queued: views.queued });
        }
        (Some(record), BindState::Bound | BindState::Pending) => record_differences(record, views.local, found),
    }
}

fn record_differences(cloud: &CloudRecord, local: &NodeRecord, found: &mut Vec<Difference>) {
    if cloud.device_type == Some(SHARED) || cloud.status.is_some_and(|status| status != 1) {
        found.push(Difference::NotOurs);
        return;
    }
    let shown = cloud.matter_info.clone().unwrap_or_default();
    found.extend(MatterInfo::of(local).differences(&shown).into_iter().map(|difference| {
        let in_record = |cats: &[(u64, String)]| {
            cats.iter().map(|(cat, privilege)| json!({ "cat": cat, "privilege": privilege })).collect()
        };
        Difference::MatterInfo(match difference.field.as_str() {
            // As the record writes them, so that both are easy to compare.
            "cats" => FieldDifference { local: json!(local.cats), cloud: in_record(&shown.cats), ..difference },
            _ => difference,
        })
    }));
    let name = name_in_cloud(&local.name);
    let labels = [
        ("name", Some(&name), cloud.device_name.as_ref()),
        ("family_id", local.family_id.as_ref(), cloud.family_id.as_ref()),
        ("room_id", local.room_id.as_ref(), cloud.room_id.as_ref()),
    ];
    for (field, local, cloud) in labels {
        // The cloud has a home and a name of its own for what was bound without.
        if let (Some(local), Some(cloud)) = (local, cloud)
            && local != cloud
        {
            let (local, cloud) = (json!(local), json!(cloud));
            found.push(Difference::Label(FieldDifference { field: field.to_owned(), local, cloud }));
        }
    }
}

/// Which nodes are the same device as one that was commissioned later: same vendor, product and unique id or serial
/// number. A device that was reset and commissioned again leaves its old record behind.
pub fn superseded<'a>(records: impl IntoIterator<Item = &'a NodeRecord>) -> BTreeMap<NodeId, NodeId> {
    let mut newest: BTreeMap<_, &NodeRecord> = BTreeMap::new();
    let mut old = BTreeMap::new();
    for record in records {
        let Some(key) = record.marks().key() else { continue };
        let Some(other) = newest.insert(key, record) else { continue };
        let age = |record: &NodeRecord| (record.commissioned_at, record.node_id);
        let (older, newer) = if age(other) < age(record) { (other, record) } else { (record, other) };
        newest.insert(key, newer);
        old.insert(older.node_id, newer.node_id);
    }
    old
}

impl Verdict {
    /// Whether nothing is left to do or to tell.
    pub fn is_in_sync(self) -> bool {
        matches!(self, Self::Match | Self::NotEligible)
    }

    /// The word in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Match => "match",
            Self::Drift => "drift",
            Self::DeviceUnreachable => "device-unreachable",
            Self::CloudMissing => "cloud-missing",
            Self::CloudUnreachable => "cloud-unreachable",
            Self::CloudDiffers => "cloud-differs",
            Self::NotEligible => "not-eligible",
            Self::Removing => "removing",
            Self::UnknownNode => "unknown-node",
        }
    }
}

impl Difference {
    /// Each of the three, side by side.
    pub fn rows(&self) -> Vec<DifferingField> {
        let row = |field: &str, device: Value, local: Value, cloud: Value| DifferingField {
            field: field.to_owned(),
            device,
            local,
            cloud,
        };
        let one = match self {
            Self::FabricIndex { device, local } => row("fabric_index", json!(device), json!(local), Value::Null),
            Self::FabricTable { device, local } => {
                return [("fabric_id", device.0, local.0), ("node_id", device.1, local.1)]
                    .into_iter()
                    .filter(|(_, device, local)| device != local)
                    .map(|(field, device, local)| row(field, json!(device), json!(local), Value::Null))
                    .collect();
            }
            Self::Basic { field, device, local } => row(field.as_str(), device.clone(), local.clone(), Value::Null),
            Self::Access { device, local } => row("cats", json!(device), json!(local), Value::Null),
            Self::ForeignAccess(entries) => row("access_entries", json!(entries), json!([]), Value::Null),
            Self::OffFabric { local } => row("fabric_index", json!("not on our fabric"), json!(local), Value::Null),
            Self::CommissionableAgain { instance } => {
                row("commissionable_instance", json!(instance), Value::Null, Value::Null)
            }
            Self::Superseded { by } => row("superseded_by", json!(by), Value::Null, Value::Null),
            Self::Bind { local, held, .. } => {
                let cloud = if *held { json!(BindState::Bound) } else { Value::Null };
                row("bind", Value::Null, json!(local), cloud)
            }
            Self::CloudUnknown { local, reason } => row("bind", Value::Null, json!(local), json!(reason)),
            Self::NotOurs => row("bind", Value::Null, json!(BindState::Bound), json!("not-ours")),
            Self::MatterInfo(field) | Self::Label(field) => {
                row(&field.field, Value::Null, field.local.clone(), field.cloud.clone())
            }
        };
        vec![one]
    }
}

/// All differences as rows, one for each field.
pub(crate) fn rows(differences: &[Difference]) -> Vec<DifferingField> {
    let mut rows: Vec<DifferingField> = Vec::new();
    for row in differences.iter().flat_map(Difference::rows) {
        match rows.iter_mut().find(|known| known.field == row.field) {
            Some(known) if known.device.is_null() && !row.device.is_null() => known.device = row.device,
            Some(known) if known.cloud.is_null() && !row.cloud.is_null() => known.cloud = row.cloud,
            Some(_) => {}
            None => rows.push(row),
        }
    }
    rows
}

fn sorted(cats: &[CatGrant]) -> Vec<CatGrant> {
    let mut cats = cats.to_vec();
    cats.sort_unstable();
    cats
}

#[cfg(test)]
mod tests;
