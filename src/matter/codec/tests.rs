//! What is written can be read, and what is malformed is said.

use super::*;
use rs_matter::utils::storage::WriteBuf;

fn tlv(write: impl FnOnce(&mut WriteBuf<'_>) -> Result<(), Error>) -> Vec<u8> {
    let mut buffer = [0u8; 1024];
    let mut writer = WriteBuf::new(&mut buffer);
    write(&mut writer).unwrap();
    writer.as_slice().to_vec()
}

fn report<'a>(cluster: u32, attribute: u32, is_item: bool, data: &'a [u8]) -> AttributeReport<'a> {
    AttributeReport { endpoint: 0, cluster, attribute, is_item, data: TLVElement::new(data) }
}

fn entry(privilege: u8, subjects: &[u64]) -> AclEntry {
    AclEntry { privilege, auth_mode: 2, subjects: subjects.to_vec(), has_targets: false }
}

#[test]
fn an_access_control_list_comes_back_whole_and_item_by_item() {
    let entries = [entry(5, &[0xFFFF_FFFD_0001_0001]), entry(3, &[1, 2, u64::MAX]), entry(1, &[])];
    let list = tlv(|writer| {
        writer.start_array(&TLVTag::Anonymous)?;
        for entry in &entries[..2] {
            write_acl_entry(&mut *writer, &TLVTag::Anonymous, entry)?;
        }
        writer.end_container()
    });
    let item = tlv(|writer| write_acl_entry(writer, &TLVTag::Anonymous, &entries[2]));
    let mut read = vec![entry(4, &[9])];
    acl_report(&mut read, &report(cluster::ACCESS_CONTROL, ACL, false, &list)).unwrap();
    acl_report(&mut read, &report(cluster::ACCESS_CONTROL, ACL, true, &item)).unwrap();
    assert_eq!(read, entries);
}

#[test]
fn an_entry_limited_to_targets_is_seen() {
    let item = tlv(|writer| {
        writer.start_struct(&TLVTag::Anonymous)?;
        writer.u8(&tag(1), 3)?;
        writer.u8(&tag(2), 2)?;
        writer.null(&tag(3))?;
        writer.start_array(&tag(4))?;
        writer.start_struct(&TLVTag::Anonymous)?;
        writer.u32(&tag(0), 6)?;
        writer.end_container()?;
        writer.end_container()?;
        writer.end_container()
    });
    let mut read = Vec::new();
    acl_report(&mut read, &report(cluster::ACCESS_CONTROL, ACL, true, &item)).unwrap();
    assert!(read[0].has_targets);
    let cut = acl_report(&mut read, &report(cluster::ACCESS_CONTROL, ACL, true, &item[..4]));
    assert!(matches!(cut, Err(LinkError::Malformed { .. })), "{cut:?}");
}

#[test]
fn responses_give_their_code_and_text() {
    let response = |code, text: &'static str| {
        tlv(move |writer| {
            writer.start_struct(&TLVTag::Anonymous)?;
            writer.u8(&tag(0), code)?;
            writer.utf8(&tag(1), text)?;
            writer.end_container()
        })
    };
    assert_eq!(commissioning_response(Some(&TLVElement::new(&response(0, "")))), Ok(()));
    let busy = commissioning_response(Some(&TLVElement::new(&response(4, "later"))));
    assert_eq!(busy, Err(LinkError::Commissioning { code: 4, text: "later".to_owned() }));
    assert!(matches!(commissioning_response(None), Err(LinkError::Malformed { .. })));
    let noc = tlv(|writer| {
        writer.start_struct(&TLVTag::Anonymous)?;
        writer.u8(&tag(0), 0)?;
        writer.u8(&tag(1), 3)?;
        writer.end_container()
    });
    assert_eq!(noc_response(Some(&TLVElement::new(&noc))), Ok(3));
    let conflict = noc_response(Some(&TLVElement::new(&response(9, ""))));
    assert!(matches!(conflict, Err(LinkError::NocStatus { code: 9, .. })), "{conflict:?}");
}

#[test]
fn a_description_tolerates_what_a_device_lacks() {
    let value = |write: fn(&mut WriteBuf<'_>) -> Result<(), Error>| tlv(write);
    let mut gathered = Gathered::default();
    gathered.take(&report(cluster::BASIC_INFORMATION, 2, false, &value(|w| w.u16(&TLVTag::Anonymous, 0xFFF1))));
    gathered.take(&report(cluster::BASIC_INFORMATION, 0x0F, false, &value(|w| w.utf8(&TLVTag::Anonymous, ""))));
    gathered.take(&report(
        cluster::NETWORK_COMMISSIONING,
        FEATURE_MAP,
        false,
        &value(|w| w.u32(&TLVTag::Anonymous, 2)),
    ));
    let description = gathered.finish().unwrap();
    assert_eq!(description.basic.vendor_id, 0xFFF1);
    assert_eq!(description.basic.serial_number, None);
    assert_eq!(description.acl_limits, AclLimits::default());
    assert_eq!(description.max_cumulative_fail_safe, DEFAULT_CUMULATIVE_FAIL_SAFE);
    assert!(description.needs_regulatory_config);
    assert!(matches!(Gathered::default().finish(), Err(LinkError::Malformed { .. })));
}

#[test]
fn scalars_become_text() {
    let text = |write: fn(&mut WriteBuf<'_>) -> Result<(), Error>| scalar_text(&TLVElement::new(&tlv(write)));
    assert_eq!(text(|w| w.utf8(&TLVTag::Anonymous, "SN-1")), Ok("SN-1".to_owned()));
    assert_eq!(text(|w| w.str(&TLVTag::Anonymous, &[0xAB, 1])), Ok("AB01".to_owned()));
    assert_eq!(text(|w| w.u64(&TLVTag::Anonymous, 12)), Ok("12".to_owned()));
    assert_eq!(text(|w| w.i64(&TLVTag::Anonymous, -12)), Ok("-12".to_owned()));
    assert_eq!(text(|w| w.bool(&TLVTag::Anonymous, true)), Ok("true".to_owned()));
    assert!(text(|w| w.null(&TLVTag::Anonymous)).is_err());
}

#[test]
fn strings_from_devices_are_cleaned_and_limited() {
    let cleaned = |text: &str| clean(text, NAME);
    assert_eq!(cleaned("Lampe Küche 灯 🏳️‍🌈"), "Lampe Küche 灯 🏳️‍🌈");
    assert_eq!(cleaned("\u{1B}[2J\u{1B}[1;31mred\u{1B}[0m"), "red");
    assert_eq!(cleaned("\u{1B}]52;c;ZXZpbA==\u{7}lamp"), "lamp");
    assert_eq!(cleaned("\u{1B}]0;title\u{1B}\\lamp"), "lamp");
    assert_eq!(cleaned("\u{9B}31mlamp\u{1B}"), "lamp");
    assert_eq!(cleaned("a\r\n| forged | row |\tb\0\u{7F}\u{85}"), "a| forged | row |b");
    assert_eq!(cleaned("\u{202E}pmal\u{202C}\u{2066}x\u{2069}\u{200F}\u{FEFF}\u{2028}"), "pmalx");
    assert_eq!(cleaned(&"x".repeat(500)).len(), NAME);
    // Cut between characters.
    assert_eq!(cleaned(&"ü".repeat(17)), "ü".repeat(16));
    assert_eq!(cleaned("\u{1B}["), "");
}
