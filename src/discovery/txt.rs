//! TXT records and instance names as Matter defines them (Matter Core 4.3). Pure.
//!
//! Whoever is on the LAN can put anything into a TXT record: a key that does not decode is as good as absent, except the
//! discriminator, without which a commissionable node is nobody's. Not here: which node fits a code (`search`).

use std::collections::HashMap;

use crate::node::{CommissionableTxt, NodeId, OperationalTxt};
use crate::onboarding::MAX_DISCRIMINATOR;
use crate::plain::clean;

/// `DN` and `PI` are at most 32 and 128 bytes, `RI` at most 100 hex digits (Matter Core 4.3.1.9 to 4.3.1.12).
const MAX_DEVICE_NAME: usize = 32;
const MAX_PAIRING_INSTRUCTION: usize = 128;
const MAX_ROTATING_ID: usize = 100;
/// `SII` and `SAI`: one hour (Matter Core 4.3.4).
const MAX_INTERVAL_MS: u32 = 3_600_000;

/// Reads the TXT record of a commissionable node (Matter Core 4.3.1.4 and 4.3.4).
///
/// Keys are case-insensitive and the first of a kind counts (RFC 6763 6.4). `None` where `D` is absent or no
/// discriminator: either the record has not arrived yet, or the advertiser is not a Matter device.
pub fn parse_commissionable<'a>(
    properties: impl IntoIterator<Item = (&'a str, Option<&'a [u8]>)>,
) -> Option<CommissionableTxt> {
    let record = Record::new(properties);
    let discriminator = record.number("D").and_then(|d| u16::try_from(d).ok()).filter(|d| *d <= MAX_DISCRIMINATOR)?;
    let (vendor_id, product_id) = record.vendor_and_product();
    let common = record.common();
    Some(CommissionableTxt {
        discriminator,
        // "The absence of key CM SHALL imply a value of 0" (Matter Core 4.3.1.7).
        commissioning_mode: record.number("CM").and_then(|mode| u8::try_from(mode).ok()).unwrap_or(0),
        vendor_id,
        product_id,
        device_type: record.number("DT"),
        device_name: record.text("DN", MAX_DEVICE_NAME),
        rotating_id: record
            .text("RI", MAX_ROTATING_ID)
            .filter(|id| id.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .map(|id| id.to_ascii_uppercase()),
        pairing_hint: record.number("PH"),
        pairing_instruction: record.text("PI", MAX_PAIRING_INSTRUCTION),
        joint_fabric: record.number("JF"),
        session_idle_interval_ms: common.session_idle_interval_ms,
        session_active_interval_ms: common.session_active_interval_ms,
        session_active_threshold_ms: common.session_active_threshold_ms,
        tcp: common.tcp,
        icd: common.icd,
    })
}

/// Reads the TXT record of an operational node (Matter Core 4.3.4). Each key may be absent, and so may the whole record.
pub(crate) fn parse_operational<'a>(
    properties: impl IntoIterator<Item = (&'a str, Option<&'a [u8]>)>,
) -> OperationalTxt {
    Record::new(properties).common()
}

/// Whether a commissionable instance name is Matter's: 16 hex digits (Matter Core 4.3.1.1).
pub(crate) fn is_commissionable_instance(instance: &str) -> bool {
    instance.len() == 16 && instance.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Reads `<compressed fabric id>-<node id>`, 16 hex digits each (Matter Core 4.3.2.1).
pub fn parse_operational_instance(instance: &str) -> Option<(u64, NodeId)> {
    let (fabric, node) = instance.split_once('-')?;
    let hex = |digits: &str| {
        (digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .then(|| u64::from_str_radix(digits, 16).ok())
            .flatten()
    };
    Some((hex(fabric)?, NodeId(hex(node)?)))
}

/// The first value of each key.
struct Record<'a>(HashMap<String, &'a [u8]>);

impl<'a> Record<'a> {
    fn new(properties: impl IntoIterator<Item = (&'a str, Option<&'a [u8]>)>) -> Self {
        let mut first = HashMap::new();
        for (key, value) in properties {
            first.entry(key.to_ascii_uppercase()).or_insert(value.unwrap_or_default());
        }
        Self(first)
    }

    /// The keys that both kinds of node have.
    fn common(&self) -> OperationalTxt {
        OperationalTxt {
            session_idle_interval_ms: self.number("SII").filter(|ms| *ms <= MAX_INTERVAL_MS),
            session_active_interval_ms: self.number("SAI").filter(|ms| *ms <= MAX_INTERVAL_MS),
            session_active_threshold_ms: self.number("SAT").filter(|ms| *ms <= u32::from(u16::MAX)),
            tcp: self.number("T"),
            icd: self.number("ICD").and_then(|icd| match icd {
                0 => Some(false),
                1 => Some(true),
                _ => None,
            }),
        }
    }

    /// A decimal number. Leading zeros are wrong by the specification, but nothing is gained by refusing them.
    fn number(&self, key: &str) -> Option<u32> {
        parse_number(self.0.get(key)?)
    }

    /// Text without what could mislead a reader, at most `max` bytes.
    fn text(&self, key: &str, max: usize) -> Option<String> {
        let kept = clean(std::str::from_utf8(self.0.get(key)?).ok()?, max);
        (!kept.is_empty()).then_some(kept)
    }

    /// `VP`: `vendor` or `vendor+product` (Matter Core 4.3.1.6).
    fn vendor_and_product(&self) -> (Option<u16>, Option<u16>) {
        let Some(value) = self.0.get("VP") else { return (None, None) };
        let mut parts = value.splitn(2, |byte| *byte == b'+');
        let mut id = || parts.next().and_then(parse_number).and_then(|id| u16::try_from(id).ok());
        match id() {
            Some(vendor) => (Some(vendor), id()),
            None => (None, None),
        }
    }
}

fn parse_number(value: &[u8]) -> Option<u32> {
    // `parse` alone would take a plus sign.
    let digits = !value.is_empty() && value.len() <= 10 && value.iter().all(u8::is_ascii_digit);
    digits.then(|| std::str::from_utf8(value).ok()?.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(record: &[(&str, &str)]) -> Option<CommissionableTxt> {
        parse_commissionable(record.iter().map(|(key, value)| (*key, Some(value.as_bytes()))))
    }

    #[test]
    fn every_key_is_read() {
        let txt = parse(&[
            ("D", "3840"),
            ("CM", "2"),
            ("VP", "65521+32768"),
            ("DT", "256"),
            ("DN", "Kitchen lamp"),
            ("RI", "0a1b"),
            ("PH", "33"),
            ("PI", "5 times"),
            ("JF", "1"),
            ("SII", "500"),
            ("SAI", "300"),
            ("SAT", "4000"),
            ("T", "6"),
            ("ICD", "1"),
        ]);
        let expected = CommissionableTxt {
            discriminator: 3840,
            commissioning_mode: 2,
            vendor_id: Some(0xFFF1),
            product_id: Some(0x8000),
            device_type: Some(256),
            device_name: Some("Kitchen lamp".to_owned()),
            rotating_id: Some("0A1B".to_owned()),
            pairing_hint: Some(33),
            pairing_instruction: Some("5 times".to_owned()),
            joint_fabric: Some(1),
            session_idle_interval_ms: Some(500),
            session_active_interval_ms: Some(300),
            session_active_threshold_ms: Some(4000),
            tcp: Some(6),
            icd: Some(true),
        };
        assert_eq!(txt, Some(expected));
    }

    #[test]
    fn an_operational_node_tells_its_rhythm() {
        let record = [("SII", "15000"), ("sai", "300"), ("SAT", "70000"), ("T", "6"), ("ICD", "1")];
        let txt = parse_operational(record.iter().map(|(key, value)| (*key, Some(value.as_bytes()))));
        let expected = OperationalTxt {
            session_idle_interval_ms: Some(15_000),
            session_active_interval_ms: Some(300),
            session_active_threshold_ms: None,
            tcp: Some(6),
            icd: Some(true),
        };
        assert_eq!(txt, expected);
    }

    #[test]
    fn without_a_discriminator_it_is_nobody() {
        for record in [&[][..], &[("D", "")], &[("D", "4096")], &[("D", "+1")], &[("D", "-1")], &[("D", "0x10")]] {
            assert_eq!(parse(record), None, "{record:?}");
        }
    }

    #[test]
    fn a_damaged_key_is_as_good_as_absent() {
        let txt = parse(&[("d", "1"), ("D", "2"), ("VP", "+1"), ("CM", "900"), ("SII", "99999999"), ("RI", "xyz")]);
        assert_eq!(txt, Some(CommissionableTxt { discriminator: 1, ..Default::default() }));
        let vendor_only = parse(&[("D", "1"), ("VP", "65521")]).map(|txt| (txt.vendor_id, txt.product_id));
        assert_eq!(vendor_only, Some((Some(0xFFF1), None)));
    }

    #[test]
    fn a_name_cannot_break_a_terminal_or_grow_without_bound() {
        let long = format!("\u{1b}[31m{}", "ä".repeat(40));
        let name = parse(&[("D", "1"), ("DN", &long)]).and_then(|txt| txt.device_name);
        assert_eq!(name, Some("ä".repeat(16)));
    }

    #[test]
    fn a_name_cannot_turn_or_hide_the_text_beside_it() {
        let name = |text: &str| parse(&[("D", "1"), ("DN", text)]).and_then(|txt| txt.device_name);
        assert_eq!(name("lamp\u{202e}gnp.exe\u{2066}\u{200b}\u{2028}\u{feff}"), Some("lampgnp.exe".to_owned()));
        assert_eq!(name("\u{202e}\u{1b}\u{9b}\u{85}"), None);
        assert_eq!(name("Küche 台所 مطبخ"), Some("Küche 台所 مطبخ".to_owned()));
    }

    #[test]
    fn a_commissionable_instance_is_a_number_of_64_bits() {
        assert!(is_commissionable_instance("A1b2C3D4E5F60718"));
        for wrong in ["", "A1B2C3D4E5F6071", "A1B2C3D4E5F607180", "\u{1b}]52;c;AAAA\u{7}..", "A1B2C3D4-5F60718"] {
            assert!(!is_commissionable_instance(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn an_operational_instance_names_fabric_and_node() {
        assert_eq!(
            parse_operational_instance("2906C908D115D362-8FC7772401CD0696"),
            Some((0x2906_C908_D115_D362, NodeId(0x8FC7_7724_01CD_0696)))
        );
        for wrong in ["", "-", "2906C908D115D362", "2906C908D115D362-8FC7", "+906C908D115D362-8FC7772401CD0696"] {
            assert_eq!(parse_operational_instance(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn nothing_on_the_wire_makes_it_panic(record in proptest::collection::vec((".*", any::<Vec<u8>>()), 0..8)) {
            let _ = parse_commissionable(record.iter().map(|(key, value)| (key.as_str(), Some(value.as_slice()))));
        }

        #[test]
        fn no_instance_name_makes_it_panic(name in ".*") {
            let _ = parse_operational_instance(&name);
        }
    }
}
