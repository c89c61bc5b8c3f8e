//! What `matterbind discover` shows: one flat document for both kinds of node (interface.md, "discover --json").

use serde::{Deserialize, Serialize};

use super::cache::{DiscoveryEvent, Seen};
use crate::node::{CommissionableNode, OperationalNode, ScopedAddress};

/// A node on the LAN as a JSON document. Fields that do not apply are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct DiscoveredNode {
    /// The DNS-SD instance name.
    pub instance: String,
    /// 0..=4095.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discriminator: Option<u16>,
    /// Vendor id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vendor_id: Option<u16>,
    /// Product id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product_id: Option<u16>,
    /// Device name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_name: Option<String>,
    /// Primary device type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_type: Option<u32>,
    /// 0 closed, 1 passcode, 2 window opened by an administrator, 3 joint fabric.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commissioning_mode: Option<u8>,
    /// Pairing hint bits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pairing_hint: Option<u32>,
    /// Pairing instruction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pairing_instruction: Option<String>,
    /// Rotating device identifier, upper-case hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotating_id: Option<String>,
    /// Session idle interval, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_idle_interval_ms: Option<u32>,
    /// Session active interval, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_active_interval_ms: Option<u32>,
    /// Session active threshold, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_active_threshold_ms: Option<u32>,
    /// TCP support bits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<u32>,
    /// Long idle time operating mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icd: Option<bool>,
    /// Joint fabric bits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub joint_fabric: Option<u32>,
    /// Operational nodes: the 64-bit compressed fabric id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compressed_fabric_id: Option<u64>,
    /// Operational nodes: the node id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_id: Option<u64>,
    /// Best first, link-local ones with their interface: `fe80::1%eth0`.
    pub addresses: Vec<String>,
    /// UDP port.
    pub port: u16,
    /// The interfaces on which it was seen.
    pub interfaces: Vec<String>,
}

impl From<&CommissionableNode> for DiscoveredNode {
    fn from(node: &CommissionableNode) -> Self {
        let txt = &node.txt;
        Self {
            instance: node.instance.clone(),
            discriminator: Some(txt.discriminator),
            vendor_id: txt.vendor_id,
            product_id: txt.product_id,
            device_name: txt.device_name.clone(),
            device_type: txt.device_type,
            commissioning_mode: Some(txt.commissioning_mode),
            pairing_hint: txt.pairing_hint,
            pairing_instruction: txt.pairing_instruction.clone(),
            rotating_id: txt.rotating_id.clone(),
            session_idle_interval_ms: txt.session_idle_interval_ms,
            session_active_interval_ms: txt.session_active_interval_ms,
            session_active_threshold_ms: txt.session_active_threshold_ms,
            tcp: txt.tcp,
            icd: txt.icd,
            joint_fabric: txt.joint_fabric,
            compressed_fabric_id: None,
            node_id: None,
            addresses: node.addresses.iter().map(ToString::to_string).collect(),
            port: node.port,
            interfaces: interfaces(&node.addresses),
        }
    }
}

impl From<&OperationalNode> for DiscoveredNode {
    fn from(node: &OperationalNode) -> Self {
        Self {
            instance: format!("{:016X}-{:016X}", node.compressed_fabric_id, node.node_id.0),
            compressed_fabric_id: Some(node.compressed_fabric_id),
            node_id: Some(node.node_id.0),
            addresses: node.addresses.iter().map(ToString::to_string).collect(),
            port: node.port,
            interfaces: interfaces(&node.addresses),
            ..Self::default()
        }
    }
}

impl From<&Seen> for DiscoveredNode {
    fn from(seen: &Seen) -> Self {
        match seen {
            Seen::Commissionable(node) => node.into(),
            Seen::Operational(node) => node.into(),
        }
    }
}

/// One line of `discover --watch --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DiscoveredChange {
    /// `appeared`, `updated` or `gone`.
    pub event: String,
    /// The node, as last seen where it is gone.
    #[serde(flatten)]
    pub node: DiscoveredNode,
}

impl From<&DiscoveryEvent> for DiscoveredChange {
    fn from(event: &DiscoveryEvent) -> Self {
        let (word, seen) = match event {
            DiscoveryEvent::Appeared(seen) => ("appeared", seen),
            DiscoveryEvent::Updated(seen) => ("updated", seen),
            DiscoveryEvent::Gone(seen) => ("gone", seen),
        };
        Self { event: word.to_owned(), node: seen.into() }
    }
}

fn interfaces(addresses: &[ScopedAddress]) -> Vec<String> {
    let mut names: Vec<_> = addresses.iter().filter_map(|address| Some(address.scope.as_ref()?.0.clone())).collect();
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::cache::tests::commissionable;
    use crate::node::NodeId;

    #[test]
    fn a_commissionable_node_has_the_promised_fields() {
        let view = DiscoveredNode::from(&commissionable("5A1B", 3840, 1));
        let json = serde_json::to_value(&view).expect("plain data");
        assert_eq!(
            json,
            serde_json::json!({
                "instance": "5A1B", "discriminator": 3840, "commissioning_mode": 1,
                "addresses": ["fe80::1%eth0"], "port": 5540, "interfaces": ["eth0"]
            })
        );
    }

    #[test]
    fn an_operational_node_carries_fabric_and_node() {
        let node =
            OperationalNode { compressed_fabric_id: 0xAB, node_id: NodeId(1000), addresses: Vec::new(), port: 5540 };
        let json = serde_json::to_value(DiscoveredNode::from(&node)).expect("plain data");
        assert_eq!(json["instance"], "00000000000000AB-00000000000003E8");
        assert_eq!((&json["compressed_fabric_id"], &json["node_id"]), (&0xAB.into(), &1000.into()));
    }
}
