//! One node as each of the three holds it.

use super::compare::DeviceFacts;
use crate::bind::{BindState, BindStatus, CloudDevice, CloudMatterInfo, CloudRecord};
use crate::fabric::{AclLimits, Cat, CatGrant, Privilege, plan_acl};
use crate::node::sample::sample;
use crate::node::{BasicInformation, FabricId, NodeRecord};

pub(super) fn grant(cat: u32, privilege: Privilege) -> CatGrant {
    CatGrant { cat: Cat::new(cat).unwrap(), privilege }
}

pub(crate) fn record(node: u64) -> NodeRecord {
    NodeRecord {
        fabric_id: FabricId(7),
        product_id: 0x8001,
        serial_number: Some(format!("SN{node}")),
        unique_id: Some(format!("U{node}")),
        cats: vec![grant(0x0001_0001, Privilege::Administer), grant(0x0002_0001, Privilege::Operate)],
        device_key: Some(format!("SN{node}")),
        name: format!("Light {node}"),
        room_id: Some("kitchen".to_owned()),
        addresses: vec!["192.0.2.1".to_owned()],
        bind: BindStatus { state: BindState::Bound, code: Some(200), ..BindStatus::default() },
        ..sample(node)
    }
}

/// A device as it is recorded.
pub(super) fn facts(record: &NodeRecord) -> DeviceFacts {
    let limits = AclLimits { subjects_per_entry: 16, entries_per_fabric: 16 };
    let admin = grant(0x0001_0001, Privilege::Administer);
    let mut acl = plan_acl(admin.cat, &record.cats, limits).unwrap();
    if !record.cats.contains(&admin) {
        acl[0].subjects.retain(|subject| *subject != admin.cat.subject());
        acl.retain(|entry| !entry.subjects.is_empty());
    }
    DeviceFacts {
        fabric_index: record.fabric_index,
        identity: Some((record.fabric_id.0, record.node_id.0)),
        basic: BasicInformation {
            vendor_id: record.vendor_id,
            product_id: record.product_id,
            vendor_name: record.vendor_name.clone(),
            product_name: record.product_name.clone(),
            serial_number: record.serial_number.clone(),
            unique_id: record.unique_id.clone(),
            specification_version: Some(0x0104_0000),
            ..BasicInformation::default()
        },
        acl,
    }
}

/// What the cloud shows after a bind of this record.
pub(super) fn cloud_record(record: &NodeRecord) -> CloudRecord {
    CloudRecord {
        device: CloudDevice {
            product_key: record.product_key.clone().unwrap(),
            device_key: record.device_key.clone().unwrap(),
        },
        device_name: Some(crate::bind::name_in_cloud(&record.name)),
        status: Some(1),
        device_type: Some(1),
        is_matter: true,
        matter_info: Some(CloudMatterInfo {
            fabric_id: Some(record.fabric_id.0),
            node_id: Some(record.node_id.0),
            vendor_id: Some(record.vendor_id.into()),
            product_id: Some(record.product_id.into()),
            discriminator: record.discriminator.map(Into::into),
            matter_version: Some(record.matter_version.clone()),
            cats: (record.cats.iter())
                .map(|grant| (grant.cat.value().into(), grant.privilege.as_str().to_owned()))
                .collect(),
        }),
        auth_key: None,
        binding_mode: Some(1),
        family_id: Some("default".to_owned()),
        room_id: record.room_id.clone(),
    }
}
