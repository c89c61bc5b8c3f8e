//! What is written down of a device, and what the cloud is told of it. Not here: when (`driver`).

use std::net::SocketAddr;

use jiff::Timestamp;

use super::approach::Found;
use super::{Order, Settings};
use crate::bind::{BindRequest, BindState, BindStatus, CapabilityMask, MatterInfo, name_in_cloud};
use crate::commissioning::identity::{Eligible, GivenIdentity};
use crate::commissioning::path::Shown;
use crate::fabric::CatGrant;
use crate::node::{CommissionableNode, NodeId, NodeRecord, NodeState};
use crate::outbox::ports::OutboxTask;

/// What every device on our fabric can do.
const LAN_AND_MATTER: CapabilityMask = CapabilityMask { wan: false, ble: false };

/// What a record is made of.
pub(super) struct Draft<'a> {
    pub(super) settings: &'a Settings,
    pub(super) order: &'a Order,
    pub(super) found: &'a Found,
    pub(super) shown: &'a Shown,
    pub(super) node: NodeId,
    pub(super) peer: SocketAddr,
}

impl Draft<'_> {
    /// The record before the device has its certificate; the store gives it its node id.
    pub(super) fn provisional(&self) -> NodeRecord {
        NodeRecord { state: NodeState::Provisional, ..self.record(0, &[], &Err(BindStatus::default())) }
    }

    /// The record as it stays.
    pub(super) fn record(
        &self,
        fabric_index: u8,
        cats: &[CatGrant],
        bind: &Result<Eligible, BindStatus>,
    ) -> NodeRecord {
        let Draft { settings, order, found, shown, node, peer } = *self;
        let basic = &shown.description.basic;
        let eligible = bind.as_ref().ok();
        let now = Timestamp::now();
        NodeRecord {
            fabric_id: settings.fabric_id,
            node_id: node,
            fabric_index,
            vendor_id: basic.vendor_id,
            product_id: basic.product_id,
            discriminator: found.discriminator,
            matter_version: basic.matter_version(),
            vendor_name: basic.vendor_name.clone(),
            product_name: basic.product_name.clone(),
            serial_number: basic.serial_number.clone(),
            unique_id: basic.unique_id.clone(),
            cats: cats.to_vec(),
            product_key: eligible.map(|e| e.device.product_key.clone()).or_else(|| order.identity.product_key.clone()),
            device_key: eligible.map(|e| e.device.device_key.clone()).or_else(|| order.identity.device_key.clone()),
            name: name_for(order, &basic.product_name, node),
            family_id: order.family_id.clone().or_else(|| settings.home.0.clone()),
            room_id: order.room_id.clone().or_else(|| settings.home.1.clone()),
            capabilities_bitmask: eligible.map_or(LAN_AND_MATTER.value(), |e| e.capabilities_bitmask),
            bind_options: eligible.map(|e| e.options.clone()).unwrap_or_default(),
            attestation: shown.judgement.summary(),
            addresses: addresses(&found.node, peer),
            port: peer.port(),
            rhythm: found.node.txt.rhythm(),
            also_known_as: Vec::new(),
            commissioned_at: now,
            last_seen_at: Some(now),
            state: NodeState::Operational,
            bind: match bind {
                Ok(_) => BindStatus { state: BindState::Pending, ..BindStatus::default() },
                Err(status) => status.clone(),
            },
            replaces: None,
        }
    }
}

/// The bind that a record asks for.
pub fn bind_task(record: &NodeRecord, eligible: Eligible) -> OutboxTask {
    OutboxTask::Bind(Box::new(BindRequest {
        device: eligible.device,
        binding_code: eligible.binding_code,
        device_name: Some(name_in_cloud(&record.name)),
        family_id: record.family_id.clone(),
        room_id: record.room_id.clone(),
        capabilities_bitmask: eligible.capabilities_bitmask,
        options: eligible.options,
        matter_info: MatterInfo::of(record),
    }))
}

/// All addresses, the one that answered first.
fn addresses(found: &CommissionableNode, peer: SocketAddr) -> Vec<String> {
    let (answered, others): (Vec<_>, Vec<_>) =
        found.addresses.iter().partition(|address| address.socket(found.port) == peer);
    let mut all: Vec<String> = answered.into_iter().chain(others).map(ToString::to_string).collect();
    all.dedup();
    all
}

fn name_for(order: &Order, product_name: &str, node: NodeId) -> String {
    let default = || NodeRecord::default_name(product_name, node);
    order.name.clone().unwrap_or_else(default)
}

/// The cloud takes no device without its discriminator (5879), and a made-up number would be another device's.
pub(super) fn unknown_discriminator() -> BindStatus {
    BindStatus {
        state: BindState::NotEligible,
        message: "nobody told the device's discriminator: the manual code has a part of it, and the device does not announce itself at \
                  the address that was given. Commission it by its QR code, or without --address"
            .to_owned(),
        ..BindStatus::default()
    }
}

/// The order with what its device had before, where the order says nothing.
pub(super) fn succeeding(order: &Order, before: Option<&NodeRecord>) -> Order {
    let mut order = order.clone();
    let Some(before) = before else { return order };
    // A name that nobody gave has the old node's number in it.
    let named = (!before.has_default_name()).then(|| before.name.clone());
    order.name = order.name.or(named);
    order.family_id = order.family_id.or_else(|| before.family_id.clone());
    order.room_id = order.room_id.or_else(|| before.room_id.clone());
    let GivenIdentity { product_key, device_key, .. } = &mut order.identity;
    if product_key.is_none() && device_key.is_none() {
        (*product_key, *device_key) = (before.product_key.clone(), before.device_key.clone());
    }
    order
}
