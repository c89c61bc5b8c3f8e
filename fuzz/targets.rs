//! What each fuzz target does with its bytes. Shared with `tests/corpora.rs`, which plays what the fuzzers have found
//! interesting again in every test run, without a fuzzer.

use std::sync::LazyLock;

use age::secrecy::ExposeSecret as _;
use age::x25519::Identity;
use axum::extract::Query;
use axum::http::Uri;
use matterbind::facade::admin::wire::{
    AccessAction, CommissionRequest, DiscoverQuery, Encryption, ImportRoot, LogQuery, NodeAction, NodesQuery,
    RemoveRoot, SyncQuery,
};
use matterbind::facade::attestation::csr::verify_csr;
use matterbind::facade::attestation::{Evidence, Material, TrustStore, verify, verify_material};
use matterbind::facade::backup::{self, Unlock};
use matterbind::facade::cloud::wire::{BoundData, Envelope, PageData, RecordData};
use matterbind::facade::controller::csr::CheckedCsr;
use matterbind::facade::controller::invite::InviteCode;
use matterbind::facade::discovery::txt::{parse_commissionable, parse_operational_instance};
use matterbind::facade::fabric::Cat;
use matterbind::facade::matter::x509::to_pem;
use matterbind::facade::matter::{Credentials, mint};
use matterbind::facade::node::{FabricId, NodeId};
use matterbind::facade::onboarding::{Discriminator, MAX_DISCRIMINATOR, SetupCode, check_passcode};
use matterbind::facade::sim::evidence::{Evidence as Device, generate};
use x509_cert::Certificate;
use x509_cert::der::DecodePem;

/// A target: its name, which is also its folder under tests/corpora, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const ALL: &[Target] = &[
    ("admin_request", admin_request),
    ("attestation_evidence", attestation_evidence),
    ("backup_file", backup_file),
    ("cloud_answer", cloud_answer),
    ("controller_csr", controller_csr),
    ("mdns_heard", matterbind::facade::discovery::fuzz::heard),
    ("mdns_txt", mdns_txt),
    ("onboarding_payload", onboarding_payload),
    ("tlv_read", matterbind::facade::matter::fuzz::reads),
];

const NONCE: [u8; 32] = [7; 32];
const CHALLENGE: [u8; 16] = [9; 16];

static IDENTITY: LazyLock<Identity> = LazyLock::new(Identity::generate);
static DEVICE: LazyLock<Device> = LazyLock::new(|| generate(0xFFF1, 0x8000));
static FABRIC: LazyLock<Credentials> = LazyLock::new(|| {
    let tag = Cat::new(0x0001_0001).expect("version 1");
    let bundle =
        mint(FabricId(77), NodeId(1000), &[tag], jiff::Timestamp::UNIX_EPOCH).expect("the random source works");
    Credentials::new(bundle).expect("it was just made")
});
static TRUST: LazyLock<TrustStore> = LazyLock::new(|| {
    let mut trust = TrustStore::new();
    trust.add_paa(&DEVICE.paa).expect("the test PAA is a PAA");
    trust
});

/// What anybody who may use the admin API, or got hold of its token, sends: bodies and queries. The first byte says to which
/// route. What is understood is shown without the secrets in it.
pub fn admin_request(data: &[u8]) {
    let Some((route, bytes)) = data.split_first() else { return };
    fn body<T: serde::de::DeserializeOwned + std::fmt::Debug>(bytes: &[u8]) -> String {
        serde_json::from_slice::<T>(bytes).map(|body| format!("{body:?}")).unwrap_or_default()
    }
    fn query<T: serde::de::DeserializeOwned>(bytes: &[u8]) {
        let Some(uri) = std::str::from_utf8(bytes).ok().and_then(|text| format!("/v1?{text}").parse::<Uri>().ok())
        else {
            return;
        };
        drop(Query::<T>::try_from_uri(&uri));
    }
    match route % 10 {
        0 => {
            let Ok(request) = serde_json::from_slice::<CommissionRequest>(bytes) else { return };
            let shown = format!("{request:?}");
            // Its digits alone may be anywhere, in a number of milliseconds for instance.
            assert!(
                shown.starts_with("CommissionRequest { setup_code: SetupCode(..), "),
                "the setup code is shown: {shown}"
            );
            let value: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
            let code = value["setup_code"].as_str().unwrap_or_default();
            drop(SetupCode::new(code).parse());
        }
        1 => drop(body::<NodeAction>(bytes)),
        2 => drop(body::<AccessAction>(bytes)),
        3 => drop(body::<Encryption>(bytes)),
        4 => drop(body::<RemoveRoot>(bytes)),
        5 => drop(body::<ImportRoot>(bytes)),
        6 => query::<LogQuery>(bytes),
        7 => query::<DiscoverQuery>(bytes),
        8 => query::<NodesQuery>(bytes),
        _ => query::<SyncQuery>(bytes),
    }
}

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

/// A certificate request as any app on the LAN may post it. What is taken is signed by its own key, reads the same again, and makes a
/// certificate for that key and no other.
pub fn controller_csr(data: &[u8]) {
    drop(std::str::from_utf8(data).map(InviteCode::read));
    let Ok(csr) = CheckedCsr::check(data) else { return };
    assert_eq!(CheckedCsr::check(csr.der()).as_ref(), Ok(&csr), "one request has one meaning");
    let Ok(noc) = FABRIC.issue_controller_noc(NodeId(1002), &csr, &[], None) else { return };
    let pem = to_pem(&noc).expect("our own certificates have both forms");
    let certificate = Certificate::from_pem(pem).expect("PEM");
    let key = certificate.tbs_certificate().subject_public_key_info().subject_public_key.raw_bytes();
    assert_eq!(key, csr.public_key());
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
