//! What is written down of a device, and what the cloud is told of it. Not here: when (`driver`).

use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;

use super::approach::Found;
use super::{Order, Settings};
use crate::bind::{BindOptions, BindRequest, BindState, BindStatus, CapabilityMask, MatterInfo, name_in_cloud};
use crate::commissioning::identity::{Eligible, GivenIdentity};
use crate::commissioning::network::NetworkKind;
use crate::commissioning::path::Shown;
use crate::commissioning::ports::{Particulars, ProvisionalNode, Stage, Unfinished};
use crate::fabric::CatGrant;
use crate::node::{Announced, IcdRegistration, NodeId, NodeRecord, NodeState};
use crate::outbox::ports::OutboxTask;

/// What a record is made of before the device has its certificate.
pub(super) struct Draft<'a> {
    pub(super) settings: &'a Settings,
    pub(super) order: &'a Order,
    pub(super) found: &'a Found,
    pub(super) shown: &'a Shown,
    /// Where it was met over IP; nowhere yet before it was brought there.
    pub(super) met_at: Option<SocketAddr>,
}

impl Draft<'_> {
    /// The row before anything of it is sent; the store gives it its node id.
    pub(super) fn provisional(&self, stage: Stage) -> ProvisionalNode {
        let evidence = self.shown.judgement.to_json();
        ProvisionalNode { attempt_id: self.order.attempt_id, record: self.record(), task: None, evidence, stage }
    }

    /// What finishing the device will take.
    pub(super) fn unfinished(&self, fail_safe: Duration) -> Box<Unfinished> {
        Box::new(Unfinished { particulars: self.order.particulars.clone(), seen: self.seen(), fail_safe })
    }

    /// What the way to it tells of its capabilities.
    fn seen(&self) -> CapabilityMask {
        let kinds = &self.shown.description.facts.network.kinds;
        let lan = kinds.is_empty() || kinds.contains(&NetworkKind::Wifi);
        let ble = matches!(self.found.node, Announced::Bluetooth(_)) || self.order.payload.says_bluetooth();
        CapabilityMask { wan: false, lan, ble }
    }

    fn record(&self) -> NodeRecord {
        let Draft { settings, order, found, shown, met_at } = *self;
        let basic = &shown.description.basic;
        let (now, node) = (Timestamp::now(), NodeId(0));
        NodeRecord {
            fabric_id: settings.fabric_id,
            node_id: node,
            fabric_index: 0,
            vendor_id: basic.vendor_id,
            product_id: basic.product_id,
            discriminator: found.discriminator,
            matter_version: basic.matter_version(),
            vendor_name: basic.vendor_name.clone(),
            product_name: basic.product_name.clone(),
            serial_number: basic.serial_number.clone(),
            unique_id: basic.unique_id.clone(),
            cats: Vec::new(),
            product_key: order.particulars.identity.product_key.clone(),
            device_key: order.particulars.identity.device_key.clone(),
            name: name_for(&order.particulars, &basic.product_name, node),
            family_id: order.particulars.family_id.clone(),
            room_id: order.particulars.room_id.clone(),
            capabilities_bitmask: self.seen().value(),
            bind_options: BindOptions::default(),
            attestation: shown.judgement.summary(),
            addresses: addresses(&found.node, met_at),
            port: met_at.map_or(0, |at| at.port()),
            rhythm: found.node.lan().map(|node| node.txt.rhythm()).unwrap_or_default(),
            icd: shown.description.facts.long_idle.then_some(IcdRegistration::NotRegistered),
            also_known_as: Vec::new(),
            commissioned_at: now,
            last_seen_at: Some(now),
            state: NodeState::Provisional,
            bind: BindStatus::default(),
            replaces: None,
        }
    }
}

/// What is known of a device at the end of its way only.
pub(super) struct LastKnown<'a> {
    pub(super) fabric_index: u8,
    /// The CAT privileges as read back.
    pub(super) cats: &'a [CatGrant],
    pub(super) bind: &'a Result<Eligible, BindStatus>,
    /// Where it was met on the network.
    pub(super) met_at: SocketAddr,
    pub(super) before: Option<&'a NodeRecord>,
}

/// The record as it stays, from the one that was written before the device got its certificate.
pub(super) fn finished(
    begun: &NodeRecord,
    particulars: &Particulars,
    settings: &Settings,
    last: &LastKnown<'_>,
) -> NodeRecord {
    let LastKnown { fabric_index, cats, bind, met_at, before } = *last;
    let eligible = bind.as_ref().ok();
    let now = Timestamp::now();
    NodeRecord {
        fabric_index,
        cats: cats.to_vec(),
        product_key: eligible
            .map(|e| e.device.product_key.clone())
            .or_else(|| particulars.identity.product_key.clone()),
        device_key: eligible.map(|e| e.device.device_key.clone()).or_else(|| particulars.identity.device_key.clone()),
        name: name_for(particulars, &begun.product_name, begun.node_id),
        family_id: particulars.family_id.clone().or_else(|| settings.home.0.clone()),
        room_id: particulars.room_id.clone().or_else(|| settings.home.1.clone()),
        capabilities_bitmask: eligible.map_or(begun.capabilities_bitmask, |e| e.capabilities_bitmask),
        bind_options: eligible.map(|e| e.options.clone()).unwrap_or_default(),
        addresses: first(met_at, &begun.addresses),
        port: met_at.port(),
        commissioned_at: now,
        last_seen_at: Some(now),
        state: NodeState::Operational,
        bind: match bind {
            Ok(_) => BindStatus { state: BindState::Pending, ..BindStatus::default() },
            Err(status) => status.clone(),
        },
        replaces: before.map(|before| before.node_id),
        ..begun.clone()
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

/// The addresses that a device announced, the one at which it was met first; a device that had none has that one.
fn first(met_at: SocketAddr, announced: &[String]) -> Vec<String> {
    let met_at = written(met_at);
    let others = announced.iter().filter(|address| **address != met_at);
    let is_known = announced.is_empty() || announced.contains(&met_at);
    is_known.then(|| met_at.clone()).into_iter().chain(others.cloned()).collect()
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

fn name_for(particulars: &Particulars, product_name: &str, node: NodeId) -> String {
    let default = || NodeRecord::default_name(product_name, node);
    particulars.name.clone().unwrap_or_else(default)
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

/// The particulars with what its device had before, where they say nothing.
pub(super) fn succeeding(particulars: &Particulars, before: Option<&NodeRecord>) -> Particulars {
    let mut particulars = particulars.clone();
    let Some(before) = before else { return particulars };
    // A name that nobody gave has the old node's number in it.
    let named = (!before.has_default_name()).then(|| before.name.clone());
    particulars.name = particulars.name.or(named);
    particulars.family_id = particulars.family_id.or_else(|| before.family_id.clone());
    particulars.room_id = particulars.room_id.or_else(|| before.room_id.clone());
    let GivenIdentity { product_key, device_key, .. } = &mut particulars.identity;
    if product_key.is_none() && device_key.is_none() {
        (*product_key, *device_key) = (before.product_key.clone(), before.device_key.clone());
    }
    particulars
}
