//! For the fuzzers and `tests/corpora.rs`: any answer of a device to our reads and commands, as TLV. Not in the hub package.

use rs_matter::tlv::TLVElement;

use super::codec::{self, Gathered, cluster};
use super::command::AttributeReport;
use crate::plain;

/// Every attribute that `describe` reads, and some that nobody asked for.
const ATTRIBUTES: [(u32, &[u32]); 6] = [
    (cluster::BASIC_INFORMATION, &[0, 1, 2, 3, 4, 5, 9, 0x0A, 0x0F, 0x12, 0x15, 0x16, 0xFFFC]),
    (cluster::ACCESS_CONTROL, &[codec::ACL, 2, 4]),
    (cluster::GENERAL_COMMISSIONING, &[1, 2]),
    (cluster::NETWORK_COMMISSIONING, &[codec::FEATURE_MAP]),
    (cluster::OPERATIONAL_CREDENTIALS, &[codec::FABRICS, 2, 3]),
    (cluster::IDENTIFY, &[0]),
];

/// Reports, each of them: which attribute, whether it is an item of a list, its length, its TLV.
pub fn reads(data: &[u8]) {
    let (mut gathered, mut entries, mut fabrics) = (Gathered::default(), Vec::new(), Vec::new());
    let mut rest = data;
    while let [cluster, attribute, is_item, length, tail @ ..] = rest {
        let (tlv, behind) = tail.split_at(usize::from(*length).min(tail.len()));
        rest = behind;
        let (cluster, attributes) = ATTRIBUTES[usize::from(*cluster) % ATTRIBUTES.len()];
        let attribute = attributes[usize::from(*attribute) % attributes.len()];
        let report =
            AttributeReport { endpoint: 0, cluster, attribute, is_item: is_item % 2 == 1, data: TLVElement::new(tlv) };
        gathered.take(&report);
        // What does not decode is an error, and nothing else.
        let _ = codec::acl_report(&mut entries, &report);
        let _ = codec::fabric_report(&mut fabrics, &report);
        if let Ok(text) = codec::scalar_text(&report.data) {
            assert!(text.chars().all(plain::is_harmless), "{text:?} misleads a reader");
        }
        for answer in [Some(&report.data), None] {
            let _ = codec::commissioning_response(answer);
            let _ = codec::noc_response(answer);
            let _ = codec::signed_elements(answer);
            let _ = codec::certificate(answer);
            let _ = codec::success(answer);
        }
    }
    for fabric in &fabrics {
        assert!(fabric.label.len() <= 32 && fabric.label.chars().all(plain::is_harmless), "{:?}", fabric.label);
    }
    let Ok(description) = gathered.finish() else { return };
    let basic = description.basic;
    for text in [
        &basic.vendor_name,
        &basic.product_name,
        &basic.node_label,
        &basic.software_version_string,
        &basic.serial_number.unwrap_or_default(),
        &basic.unique_id.unwrap_or_default(),
    ] {
        assert!(text.len() <= 64 && text.chars().all(plain::is_harmless), "{text:?} misleads a reader");
    }
}
