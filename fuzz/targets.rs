//! What each fuzz target does with its bytes. Shared with `tests/corpora.rs`, which plays what the fuzzers have found
//! interesting again in every test run, without a fuzzer.

use std::sync::LazyLock;

use age::secrecy::ExposeSecret as _;
use age::x25519::Identity;
use matterbind::attestation::csr::verify_csr;
use matterbind::attestation::{Evidence, Material, TrustStore, verify, verify_material};
use matterbind::backup::{self, Unlock};
use matterbind::cloud::wire::{BoundData, Envelope, PageData, RecordData};
use matterbind::discovery::txt::{parse_commissionable, parse_operational_instance};
use matterbind::onboarding::{Discriminator, MAX_DISCRIMINATOR, SetupCode, check_passcode};
use matterbind::sim::evidence::{Evidence as Device, generate};

/// A target: its name, which is also its folder under tests/corpora, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const ALL: &[Target] = &[
    ("attestation_evidence", attestation_evidence),
    ("backup_file", backup_file),
    ("cloud_answer", cloud_answer),
    ("mdns_txt", mdns_txt),
    ("onboarding_payload", onboarding_payload),
];

const NONCE: [u8; 32] = [7; 32];
const CHALLENGE: [u8; 16] = [9; 16];

static IDENTITY: LazyLock<Identity> = LazyLock::new(Identity::generate);
static DEVICE: LazyLock<Device> = LazyLock::new(|| generate(0xFFF1, 0x8000));
static TRUST: LazyLock<TrustStore> = LazyLock::new(|| {
    let mut trust = TrustStore::new();
    trust.add_paa(&DEVICE.paa).expect("the test PAA is a PAA");
    trust
});

/// Hostile attestation evidence: whatever a device sends is judged without a panic.
///
/// The first byte says which part of good evidence the rest replaces, so that every parser behind the others is reached.
pub fn attestation_evidence(data: &[u8]) {
    let Some((part, bytes)) = data.split_first() else { return };
    let at = jiff::Timestamp::UNIX_EPOCH;
    let material = Material {
        dac: if part % 7 == 0 { bytes } else { &DEVICE.dac },
        pai: if part % 7 == 1 { bytes } else { &DEVICE.pai },
        certification_declaration: if part % 7 == 2 { bytes } else { &DEVICE.certification_declaration },
        vendor_id: 0xFFF1,
        product_id: 0x8000,
        at,
    };
    match part % 7 {
        0..=2 => drop(verify_material(&material, &TRUST)),
        3 => {
            let evidence = Evidence {
                dac: DEVICE.dac.clone(),
                pai: DEVICE.pai.clone(),
                attestation_elements: bytes.to_vec(),
                signature: vec![1; 64],
                attestation_challenge: CHALLENGE,
                nonce: NONCE,
                basic_vendor_id: 0xFFF1,
                basic_product_id: 0x8000,
                at,
            };
            drop(verify(&evidence, &TRUST));
        }
        4 => {
            let signature = DEVICE.sign(bytes, &CHALLENGE);
            drop(verify_csr(&DEVICE.dac, bytes, &CHALLENGE, &NONCE, &signature));
        }
        5 => drop(TrustStore::new().add_revocations(bytes)),
        _ => drop(TrustStore::new().add_paa(bytes)),
    }
}

/// What somebody may put into a backup: the file around it is encrypted, so the bytes are what a good envelope holds.
///
/// The first byte says whether they follow the header or stand for the whole content.
pub fn backup_file(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else { return };
    let header: &[u8] = if kind % 2 == 0 { b"" } else { b"matterbind-backup 1\n" };
    let content = [header, bytes].concat();
    let file = age::encrypt(&IDENTITY.to_public(), &content).expect("memory is enough");
    let identity = IDENTITY.to_string();
    let unlock = Unlock::Identity(backup::Identity::read(identity.expose_secret()).expect("an identity of age"));
    // Keys that fit each other cannot come out of thin air.
    assert!(backup::read(&file, &unlock).is_err());
    // And as it came: no envelope at all.
    assert!(backup::read(bytes, &unlock).is_err());
}

/// What stands where the cloud should: its own JSON bent in every way, or anything else.
pub fn cloud_answer(data: &[u8]) {
    let Some(envelope) = Envelope::parse(data) else { return };
    drop(BoundData::read(envelope.data.clone()).into_receipt());
    drop(BoundData::read(envelope.data.clone()).into_preview());
    if let Ok(record) = serde_json::from_value::<RecordData>(envelope.data.clone()) {
        let known = record.into_record();
        assert!(known.is_none_or(|record| record.binding_mode.is_none_or(|mode| (1..=3).contains(&mode))));
    }
    let page = serde_json::from_value::<PageData>(envelope.data).unwrap_or_default();
    page.list.into_iter().flatten().for_each(|record| drop(record.into_record()));
}

/// What anybody on the LAN may announce: instance name and TXT record, one `key=value` for each line.
///
/// What comes out keeps the specification's limits, since it ends in logs, in JSON and on the page.
pub fn mdns_txt(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let instance = lines.next().unwrap_or_default();
    if let Some((_, node)) = parse_operational_instance(&String::from_utf8_lossy(instance)) {
        assert!(instance.len() == 33, "{node:?} is written with 16 digits");
    }
    let properties: Vec<(String, Option<&[u8]>)> = lines
        .map(|line| {
            let mut halves = line.splitn(2, |byte| *byte == b'=');
            let key = String::from_utf8_lossy(halves.next().unwrap_or_default()).into_owned();
            (key, halves.next())
        })
        .collect();
    let Some(txt) = parse_commissionable(properties.iter().map(|(key, value)| (key.as_str(), *value))) else { return };
    assert!(txt.discriminator <= MAX_DISCRIMINATOR, "12 bits");
    assert!(txt.product_id.is_none() || txt.vendor_id.is_some(), "a product belongs to a vendor");
    for (text, limit) in [(&txt.device_name, 32), (&txt.pairing_instruction, 128), (&txt.rotating_id, 100)] {
        let text = text.as_deref().unwrap_or_default();
        assert!(text.len() <= limit && !text.chars().any(char::is_control), "{text:?} would spoil a log line");
    }
}

/// Setup codes as anybody may type or print them. What is understood has a passcode and a discriminator that the
/// specification allows, and is shown without the passcode.
pub fn onboarding_payload(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(payload) = SetupCode::new(text).parse() else { return };
    check_passcode(*payload.passcode.expose()).expect("a reserved passcode is refused");
    match payload.discriminator {
        Discriminator::Long(long) => assert!(long <= MAX_DISCRIMINATOR, "12 bits"),
        Discriminator::Short(short) => assert!(short < 16, "4 bits"),
    }
}
