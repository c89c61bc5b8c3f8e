//! What is written down of a device, and what the cloud is told of it. Not here: when (`driver`).

use std::net::SocketAddr;

use jiff::Timestamp;

use super::approach::Found;
use super::{Order, Settings};
use crate::bind::{BindRequest, BindState, BindStatus, CapabilityMask, MatterInfo, name_in_cloud};
use crate::commissioning::identity::{Eligible, GivenIdentity};
use crate::commissioning::network::NetworkKind;
use crate::commissioning::path::Shown;
use crate::fabric::CatGrant;
use crate::node::{Announced, IcdRegistration, NodeId, NodeRecord, NodeState};
use crate::outbox::ports::OutboxTask;

/// What a record is made of.
pub(super) struct Draft<'a> {
    pub(super) settings: &'a Settings,
    pub(super) order: &'a Order,
    pub(super) found: &'a Found,
    pub(super) shown: &'a Shown,
    pub(super) node: NodeId,
    /// Where it was met on the network; nowhere yet before it was brought there.
    pub(super) met_at: Option<SocketAddr>,
}

impl Draft<'_> {
    /// The record before the device has its certificate; the store gives it its node id.
    pub(super) fn provisional(&self) -> NodeRecord {
        NodeRecord { state: NodeState::Provisional, ..self.record(0, &[], &Err(BindStatus::default())) }
    }

    /// What the way to it tells of its capabilities.
    pub(super) fn seen(&self) -> CapabilityMask {
        let kinds = &self.shown.description.facts.network.kinds;
        let lan = kinds.is_empty() || kinds.contains(&NetworkKind::Wifi);
        let ble = matches!(self.found.node, Announced::Bluetooth(_)) || self.order.payload.says_bluetooth();
        CapabilityMask { wan: false, lan, ble }
    }

    /// The record as it stays.
    pub(super) fn record(
        &self,
        fabric_index: u8,
        cats: &[CatGrant],
        bind: &Result<Eligible, BindStatus>,
    ) -> NodeRecord {
        let Draft { settings, order, found, shown, node, met_at } = *self;
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
            capabilities_bitmask: eligible.map_or(self.seen().value(), |e| e.capabilities_bitmask),
            bind_options: eligible.map(|e| e.options.clone()).unwrap_or_default(),
            attestation: shown.judgement.summary(),
            addresses: addresses(&found.node, met_at),
            port: met_at.map_or(0, |at| at.port()),
            rhythm: found.node.lan().map(|node| node.txt.rhythm()).unwrap_or_default(),
            icd: shown.description.facts.long_idle.then_some(IcdRegistration::NotRegistered),
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
pub(crate) fn bind_task(record: &NodeRecord, eligible: Eligible) -> OutboxTask {
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
fn addresses(found: &Announced, met_at: Option<SocketAddr>) -> Vec<String> {
    let Announced::Lan(found) = found else {
        return met_at.map(written).into_iter().collect();
    };
    let (answered, others): (Vec<_>, Vec<_>) =
        found.addresses.iter().partition(|address| Some(address.socket(found.port)) == met_at);
    let mut all: Vec<String> = answered.into_iter().chain(others).map(ToString::to_string).collect();
    all.dedup();
    all
}

/// An address as a record keeps it: a link-local one with the name of its interface.
fn written(at: SocketAddr) -> String {
    match at {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => {
            let names = if_addrs::get_if_addrs().unwrap_or_default();
            let named = names.into_iter().find(|one| one.index == Some(v6.scope_id()));
            named.map_or_else(|| v6.ip().to_string(), |one| format!("{}%{}", v6.ip(), one.name))
        }
        _ => at.ip().to_string(),
    }
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
