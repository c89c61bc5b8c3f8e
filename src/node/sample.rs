//! A record for tests and benches: of a light that was commissioned and whose bind waits. They say what they want otherwise.

use jiff::Timestamp;

use super::{AttestationSummary, FabricId, NodeId, NodeRecord, NodeState, OperationalTxt};
use crate::bind::{BindOptions, BindState, BindStatus};

/// The record of a node.
pub fn sample(node: u64) -> NodeRecord {
    NodeRecord {
        fabric_id: FabricId(77),
        node_id: NodeId(node),
        fabric_index: 1,
        vendor_id: 0xFFF1,
        product_id: 0x8000,
        discriminator: Some(3840),
        matter_version: "1.4".to_owned(),
        vendor_name: "Vendor".to_owned(),
        product_name: "Light".to_owned(),
        serial_number: None,
        unique_id: None,
        cats: Vec::new(),
        product_key: Some("p11abc".to_owned()),
        device_key: Some(format!("device{node}")),
        name: format!("light {node}"),
        family_id: None,
        room_id: None,
        capabilities_bitmask: 10,
        bind_options: BindOptions::default(),
        attestation: AttestationSummary::default(),
        addresses: vec!["fe80::1%eth0".to_owned()],
        port: 5540,
        rhythm: OperationalTxt::default(),
        also_known_as: Vec::new(),
        commissioned_at: Timestamp::UNIX_EPOCH,
        last_seen_at: None,
        state: NodeState::Operational,
        bind: BindStatus { state: BindState::Pending, ..BindStatus::default() },
        icd: None,
        replaces: None,
    }
}
