//! The product's own suite: chains and declarations made here, one wrong thing at a time, every finding covered.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use cms::content_info::CmsVersion;
use der::asn1::{ObjectIdentifier, OctetString};
use proptest::prelude::*;
use rstest::rstest;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{KeyUsage, KeyUsages};

use super::csr::{CsrRejected, verify_csr};
use super::finding::Code;
use super::policy::{AttestationOverride, Outcome, decide};
use super::*;
use crate::config::{AllowTest, AttestationConfig, AttestationPolicy};
use crate::sim::evidence::certificate::{COMMON_NAME, PRODUCT_ID, VENDOR_ID, public_key};
use crate::sim::evidence::{
    Builder, CertificateSpec, DeclarationSpec, Evidence as Device, TEST_PAA_NOVID_CERT, nocsr_elements, sign, test_key,
};

const VID: u16 = 0x1234;
const PID: u16 = 0x5678;
const NONCE: [u8; 32] = [7; 32];
const CHALLENGE: [u8; 16] = [9; 16];
const SIGNER_SKID: [u8; 20] = [0x5A; 20];
const SHA1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.14.3.2.26");
const ECDSA_WITH_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
const SECP256K1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.10");
/// 2022-01-01 and 2023-01-01.
const YEARS: (u64, u64) = (1_640_995_200, 1_672_531_200);

/// A certified product: a PAA of its own, an official declaration by a signer of its own.
fn production() -> Builder {
    Builder::new(VID, PID).own_paa(None).declaration(|it| {
        it.certification_type = Some(2);
        it.signer_key = test_key("matterbind test signer");
        it.signer_skid = SIGNER_SKID.to_vec();
    })
}

/// Trusts the own PAA of this evidence, CHIP's test PAA and the own signer.
fn trust(device: &Device) -> TrustStore {
    let mut trust = TrustStore::new();
    trust.add_paa(TEST_PAA_NOVID_CERT).unwrap();
    trust.add_paa(&device.paa).unwrap();
    assert!(trust.add_declaration_signer(SIGNER_SKID, &public_key(&test_key("matterbind test signer"))));
    trust
}

fn evidence(device: &Device) -> Evidence {
    let attestation_elements = device.attestation_elements(&NONCE, None);
    Evidence {
        dac: device.dac.clone(),
        pai: device.pai.clone(),
        signature: device.sign(&attestation_elements, &CHALLENGE),
        attestation_elements,
        attestation_challenge: CHALLENGE,
        nonce: NONCE,
        basic_vendor_id: VID,
        basic_product_id: PID,
        at: "2026-01-01T00:00:00Z".parse().unwrap(),
    }
}

fn codes(report: &Report) -> Vec<Code> {
    report.findings.iter().map(|finding| finding.code).collect()
}

fn judge(device: &Device) -> Vec<Code> {
    codes(&verify(&evidence(device), &trust(device)))
}

#[test]
fn a_certified_product_has_no_finding() {
    let device = production().build();
    let report = verify(&evidence(&device), &trust(&device));
    assert_eq!(codes(&report), []);
    assert_eq!(decide(&report, &AttestationConfig::default(), None).outcome, Outcome::Accepted);
    assert_eq!(report.dac.unwrap().product_id, Some(PID));
    assert!(report.paa.is_some() && report.declaration.is_some());
}

type Dac = fn(&mut CertificateSpec);

fn unknown_extension() -> Extension {
    let extn_value = OctetString::new(vec![0x05, 0x00]).unwrap();
    Extension { extn_id: ObjectIdentifier::new_unwrap("1.3.6.1.4.1.37244.9.9"), critical: true, extn_value }
}

fn usage(usage: KeyUsages) -> Option<(bool, KeyUsage)> {
    Some((true, KeyUsage(usage.into())))
}

/// What is wrong with a DAC or PAI by itself; each fault once in the DAC and, where it means the same there, in the PAI.
fn certificate_faults() -> Vec<(&'static str, bool, Dac, Vec<Code>)> {
    use Code::*;
    vec![
        ("version", true, |it| it.version = 1, vec![CertificateVersion]),
        ("algorithm", true, |it| it.signature_algorithm = ECDSA_WITH_SHA384, vec![SignatureAlgorithm]),
        ("no constraints", true, |it| it.basic_constraints = None, vec![BasicConstraints]),
        (
            "constraints not critical",
            false,
            |it| it.basic_constraints = Some((false, false, None)),
            vec![BasicConstraints],
        ),
        ("a device that is a CA", false, |it| it.basic_constraints = Some((true, true, None)), vec![BasicConstraints]),
        ("path length", true, |it| it.basic_constraints = Some((true, true, Some(1))), vec![BasicConstraints]),
        ("length without CA", true, |it| it.basic_constraints = Some((true, false, Some(0))), vec![BasicConstraints]),
        ("no key usage", true, |it| it.key_usage = None, vec![Code::KeyUsage]),
        ("usage not critical", true, |it| it.key_usage.as_mut().unwrap().0 = false, vec![Code::KeyUsage]),
        ("wrong usage", true, |it| it.key_usage = usage(KeyUsages::KeyAgreement), vec![Code::KeyUsage]),
        ("no SKID", false, |it| it.skid = None, vec![SubjectKeyIdentifier]),
        ("no AKID", false, |it| it.omit_akid = true, vec![AuthorityKeyIdentifier]),
        ("short AKID", false, |it| it.akid = Some(vec![1; 19]), vec![AuthorityKeyIdentifier]),
        ("another AKID", false, |it| it.akid = Some(vec![1; 20]), vec![Code::KeyIdentifier]),
        ("critical extension", true, |it| it.extra.push(unknown_extension()), vec![UnknownCriticalExtension]),
        ("another issuer", true, |it| it.issuer = Some(vec![(COMMON_NAME, "Nobody".into())]), vec![IssuerName]),
        ("another key", true, |it| it.signed_by = Some([1; 32]), vec![CertificateSignature]),
        ("short vendor id", false, |it| it.subject[1].1 = "123".into(), vec![SubjectIdMalformed]),
        ("lower-case id", false, |it| it.subject[2].1 = "567a".into(), vec![SubjectIdMalformed]),
        ("vendor id twice", false, |it| it.subject.push((VENDOR_ID, "1234".into())), vec![SubjectIdMalformed]),
        ("no vendor id", false, |it| it.subject.retain(|(oid, _)| *oid != VENDOR_ID), vec![VendorIdMissing]),
        ("no product id", false, |it| it.subject.retain(|(oid, _)| *oid != PRODUCT_ID), vec![ProductIdMissing]),
    ]
}

#[test]
fn each_fault_of_a_certificate_is_one_finding() {
    for (name, in_pai, fault, expected) in certificate_faults() {
        assert_eq!(judge(&production().dac(fault).build()), expected, "DAC: {name}");
        if in_pai {
            assert_eq!(judge(&production().pai(fault).build()), expected, "PAI: {name}");
        }
    }
}

#[test]
fn a_critical_key_identifier_and_an_oversized_certificate_are_refused() {
    let padding = Extension {
        extn_id: ObjectIdentifier::new_unwrap("1.3.6.1.4.1.37244.9.9"),
        critical: false,
        extn_value: OctetString::new(vec![0; 300]).unwrap(),
    };
    let device = production().dac(|it| it.extra.push(padding)).build();
    assert_eq!(judge(&device)[..1], [Code::CertificateTooLarge]);
}

#[test]
fn a_key_off_the_curve_proves_nothing() {
    let device = production().dac(|it| it.curve = SECP256K1).build();
    assert_eq!(judge(&device), [Code::PublicKey, Code::ElementsSignature]);
}

#[test]
fn garbage_is_no_certificate() {
    let device = production().build();
    for (certificate, expected) in [(vec![], 1), (vec![0x30, 0x80], 1), (device.dac[..100].to_vec(), 1)] {
        let evidence = Evidence { dac: certificate, ..evidence(&device) };
        let found = codes(&verify(&evidence, &trust(&device)));
        assert_eq!(found.iter().filter(|code| **code == Code::CertificateMalformed).count(), expected, "{found:?}");
    }
}

#[rstest]
#[case("ACME Matter Devel DAC 5CDA9899 Mvid:1234 Mpid:5678", true)]
#[case("Mpid:5678,ACME Matter Devel DAC 5CDA9899,Mvid:1234", true)]
#[case("ACME Mvid:1234Mpid:5678", true)]
#[case("Mvid:1234ACME Matter Devel DAC 5CDAMpid:56789899", true)]
#[case("ACME Mvid:123 Mpid:5678", false)]
#[case("ACME Mvid:1234 Mpid:567", false)]
#[case("ACME Mvid:1234 Mpid:567a", false)]
#[case("ACME Mpid: Mvid:1234", false)]
#[case("ACME Mpid_5678 Mvid_1234", false)]
#[case("ACME MVID:1234 MPID:5678", false)]
fn ids_in_the_common_name(#[case] common_name: &str, #[case] good: bool) {
    let device = production().dac(|it| it.subject = vec![(COMMON_NAME, common_name.to_owned())]).build();
    assert_eq!(judge(&device).is_empty(), good, "{common_name}");
}

#[test]
fn matter_s_own_attributes_silence_the_common_name() {
    let contradiction = |it: &mut CertificateSpec| it.subject[0].1 = "Mvid:FFF2 Mpid:FFF3".to_owned();
    assert_eq!(judge(&production().dac(contradiction).build()), []);
    let mixed = |it: &mut CertificateSpec| {
        it.subject = vec![(COMMON_NAME, "Mvid:1234".to_owned()), (PRODUCT_ID, "5678".to_owned())];
    };
    assert_eq!(judge(&production().dac(mixed).build()), [Code::VendorIdMissing]);
}

#[test]
fn dac_and_pai_must_agree_on_vendor_and_product() {
    let other_vendor = production().pai(|it| it.subject[1].1 = "1235".into()).build();
    assert_eq!(judge(&other_vendor), [Code::ChainVendorId, Code::DeclarationVendorId]);
    let other_product = production().pai(|it| it.subject.push((PRODUCT_ID, "5679".into()))).build();
    assert_eq!(judge(&other_product), [Code::ChainProductId, Code::DeclarationProductId]);
    assert_eq!(judge(&production().pai(|it| it.subject.push((PRODUCT_ID, "5678".into()))).build()), []);
}

#[test]
fn a_paa_may_be_for_one_vendor_only() {
    assert_eq!(judge(&production().own_paa(Some(VID)).build()), []);
    assert_eq!(judge(&production().own_paa(Some(VID + 1)).build()), [Code::PaaVendorScope]);
}

#[test]
fn an_unknown_paa_is_not_trusted() {
    let device = production().build();
    assert_eq!(
        codes(&verify(&evidence(&device), &{
            let mut trust = TrustStore::new();
            trust.add_declaration_signer(SIGNER_SKID, &public_key(&test_key("matterbind test signer")));
            trust
        })),
        [Code::PaaNotTrusted]
    );
}

#[test]
fn an_unfit_paa_is_not_taken() {
    let mut trust = TrustStore::new();
    let faults: [Dac; 5] = [
        |it| it.basic_constraints = Some((true, false, None)),
        |it| it.basic_constraints = Some((true, true, Some(2))),
        |it| it.key_usage = usage(KeyUsages::DigitalSignature),
        |it| it.subject.push((PRODUCT_ID, "8000".to_owned())),
        |it| it.signed_by = Some([1; 32]),
    ];
    for fault in faults {
        let device = production().own_paa_with(None, fault).build();
        assert!(trust.add_paa(&device.paa).is_err());
    }
    assert!(trust.add_paa(&production().build().dac).is_err());
    assert!(trust.add_paa(&vec![0x30; 5000]).is_err());
    assert_eq!(trust.paa_count(), 0);
}

#[test]
fn validity_is_judged_now_for_the_dac_and_at_its_issuance_for_its_issuers() {
    let old = |it: &mut CertificateSpec| (it.not_before, it.not_after) = YEARS;
    let new = |it: &mut CertificateSpec| it.not_before = YEARS.0 + 1;
    assert_eq!(judge(&production().dac(old).build()), [Code::DacExpired]);
    let future = |it: &mut CertificateSpec| it.not_before = 2_000_000_000;
    assert_eq!(judge(&production().dac(future).build()), [Code::DacNotYetValid]);
    assert_eq!(judge(&production().pai(old).dac(new).build()), [], "the PAI expired after it had issued the DAC");
    assert_eq!(judge(&production().pai(old).build()), [Code::IssuerValidity], "the DAC is older than the PAI");
    assert_eq!(judge(&production().own_paa_with(None, old).pai(new).dac(future).build())[1..], [Code::IssuerValidity]);
}

#[test]
fn revoked_certificates_are_named() {
    let device = production().build();
    let report = verify(&evidence(&device), &trust(&device));
    for summary in [report.dac.unwrap(), report.pai.unwrap()] {
        let mut trust = trust(&device);
        let sets = serde_json::json!([{
            "type": "revocation_set",
            "issuer_subject_key_id": summary.authority_key_id,
            "revoked_serial_numbers": ["01", summary.serial_number],
        }, { "type": "something else", "issuer_subject_key_id": "" }]);
        assert_eq!(trust.add_revocations(sets.to_string().as_bytes()).unwrap(), 1);
        assert_eq!(codes(&verify(&evidence(&device), &trust)), [Code::CertificateRevoked]);
    }
    let mut trust = trust(&device);
    for bad in ["", "{}", r#"[{"type":"revocation_set","issuer_subject_key_id":"00"}]"#] {
        assert!(trust.add_revocations(bad.as_bytes()).is_err());
    }
    assert_eq!(trust.revocation_count(), 0);
}

type Cd = fn(&mut DeclarationSpec);

/// What is wrong with a declaration.
fn declaration_faults() -> Vec<(&'static str, Cd, Vec<Code>)> {
    use Code::*;
    vec![
        ("CMS version", |it| it.cms_version = CmsVersion::V1, vec![DeclarationCmsVersion]),
        ("signer version", |it| it.signer_version = CmsVersion::V1, vec![DeclarationCmsVersion]),
        ("digest", |it| it.digest_algorithm = SHA1, vec![DeclarationDigestAlgorithm]),
        ("signer's digest", |it| it.signer_digest_algorithm = SHA1, vec![DeclarationDigestAlgorithm]),
        ("algorithm", |it| it.signature_algorithm = ECDSA_WITH_SHA384, vec![DeclarationSignatureAlgorithm]),
        ("content type", |it| it.content_type = SHA1, vec![DeclarationMalformed]),
        ("signer", |it| it.signer_skid = vec![1; 20], vec![DeclarationSignerUnknown]),
        ("short signer", |it| it.signer_skid = vec![1; 3], vec![DeclarationSignerUnknown]),
        ("signature", |it| it.signer_key = [1; 32], vec![DeclarationSignature]),
        ("no format", |it| it.format_version = None, vec![DeclarationContent]),
        ("no vendor", |it| it.vendor_id = None, vec![DeclarationContent]),
        ("no products", |it| it.product_ids = None, vec![DeclarationContent]),
        ("empty products", |it| it.product_ids = Some(vec![]), vec![DeclarationContent]),
        ("101 products", |it| it.product_ids = Some(vec![PID; 101]), vec![DeclarationContent]),
        ("no device type", |it| it.device_type_id = None, vec![DeclarationContent]),
        ("no id", |it| it.certificate_id = None, vec![DeclarationContent]),
        ("short id", |it| it.certificate_id = Some("CSA".into()), vec![DeclarationContent]),
        ("no security level", |it| it.security_level = None, vec![DeclarationContent]),
        ("no security information", |it| it.security_information = None, vec![DeclarationContent]),
        ("no version number", |it| it.version_number = None, vec![DeclarationContent]),
        ("no type", |it| it.certification_type = None, vec![DeclarationContent]),
        ("empty PAA list", |it| it.authorized_paa_list = Some(vec![]), vec![DeclarationContent]),
        ("short PAA id", |it| it.authorized_paa_list = Some(vec![vec![1; 19]]), vec![DeclarationContent]),
        ("format 2", |it| it.format_version = Some(2), vec![DeclarationFormatVersion]),
        ("type 3", |it| it.certification_type = Some(3), vec![DeclarationCertificationType]),
        ("type 0", |it| it.certification_type = Some(0), vec![TestDeclaration]),
        ("type 1", |it| it.certification_type = Some(1), vec![ProvisionalDeclaration]),
        ("another PAA", |it| it.authorized_paa_list = Some(vec![vec![1; 20]]), vec![DeclarationPaa]),
        ("half an origin", |it| it.dac_origin_vendor_id = Some(VID), vec![DeclarationOriginIncomplete]),
        ("the other half", |it| it.dac_origin_product_id = Some(PID), vec![DeclarationOriginIncomplete]),
        (
            "another origin",
            |it| (it.dac_origin_vendor_id, it.dac_origin_product_id) = (Some(VID + 1), Some(PID)),
            vec![DeclarationOrigin, DeclarationOrigin],
        ),
        (
            "another product of the origin",
            |it| (it.dac_origin_vendor_id, it.dac_origin_product_id) = (Some(VID), Some(PID + 1)),
            vec![DeclarationOrigin],
        ),
        ("any security", |it| (it.security_level, it.security_information) = (Some(9), Some(9)), vec![]),
        ("100 products", |it| it.product_ids = Some((PID - 99..=PID).collect()), vec![]),
    ]
}

#[test]
fn each_fault_of_a_declaration_is_found() {
    for (name, fault, expected) in declaration_faults() {
        assert_eq!(judge(&production().declaration(fault).build()), expected, "{name}");
    }
}

#[test]
fn the_declaration_is_for_this_vendor_and_product() {
    // Device, DAC and PAI all disagree with it.
    let vendor = production().declaration(|it| it.vendor_id = Some(VID + 1)).build();
    assert_eq!(judge(&vendor), [Code::DeclarationVendorId; 3]);
    let product = production().declaration(|it| it.product_ids = Some(vec![PID + 1, PID + 2])).build();
    assert_eq!(judge(&product), [Code::DeclarationProductId; 2]);
}

#[test]
fn a_declaration_may_name_another_origin_of_the_dac() {
    // Sold under VID/PID, made with the DAC of 0x4321/0x8765 (6.3.1, dac_origin_*).
    let device = Builder::new(0x4321, 0x8765)
        .own_paa(None)
        .declaration(|it| {
            *it = DeclarationSpec::new(VID, PID);
            (it.dac_origin_vendor_id, it.dac_origin_product_id) = (Some(0x4321), Some(0x8765));
        })
        .build();
    assert_eq!(judge(&device), [Code::TestDeclarationSigner, Code::TestDeclaration]);
}

#[test]
fn only_the_alliance_makes_a_declaration_official() {
    let signed_by_test_key = |certification_type| {
        let device =
            Builder::new(VID, PID).own_paa(None).declaration(|it| it.certification_type = Some(certification_type));
        device.build()
    };
    let allowed = AttestationConfig {
        allow_test: vec![AllowTest { vendor_id: VID, product_id: None }],
        ..AttestationConfig::default()
    };
    let official = signed_by_test_key(2);
    let report = verify(&evidence(&official), &trust(&official));
    assert_eq!(codes(&report), [Code::TestDeclarationSigner, Code::OfficialDeclarationTestSigner]);
    assert_eq!(decide(&report, &allowed, None).outcome, Outcome::Rejected, "allow_test lets no lie pass");
    for certification_type in [0, 1] {
        let device = signed_by_test_key(certification_type);
        let report = verify(&evidence(&device), &trust(&device));
        assert_eq!(decide(&report, &allowed, None).outcome, Outcome::Accepted, "type {certification_type}");
    }
}

#[test]
fn a_device_that_lies_in_basic_information_is_found() {
    let device = production().build();
    let lie = Evidence { basic_vendor_id: VID + 1, basic_product_id: PID + 1, ..evidence(&device) };
    let found = codes(&verify(&lie, &trust(&device)));
    assert_eq!(found, [Code::DeclarationVendorId, Code::DeclarationProductId]);
}

#[test]
fn replayed_evidence_fails_by_nonce_and_by_challenge() {
    let device = production().build();
    let trust = trust(&device);
    let other_nonce = Evidence { nonce: [8; 32], ..evidence(&device) };
    assert_eq!(codes(&verify(&other_nonce, &trust)), [Code::NonceMismatch]);
    let other_session = Evidence { attestation_challenge: [8; 16], ..evidence(&device) };
    assert_eq!(codes(&verify(&other_session, &trust)), [Code::ElementsSignature]);
    let short = Evidence { signature: vec![1; 63], ..evidence(&device) };
    assert_eq!(codes(&verify(&short, &trust)), [Code::ElementsSignature]);
}

#[test]
fn elements_are_bounded_and_well_formed() {
    let device = production().build();
    let with = |attestation_elements: Vec<u8>| {
        let signature = device.sign(&attestation_elements, &CHALLENGE);
        codes(&verify(&Evidence { attestation_elements, signature, ..evidence(&device) }, &trust(&device)))
    };
    assert_eq!(with(device.attestation_elements(&NONCE, Some(&[1, 2, 3]))), [Code::FirmwareInformation]);
    assert_eq!(with(device.attestation_elements(&[7; 31], None)), [Code::NonceMismatch]);
    assert_eq!(with(vec![0x15, 0x18])[0], Code::ElementsMalformed);
    assert_eq!(with(vec![0x15; 901])[0], Code::ElementsTooLarge);
    let mut long = Findings::default();
    certification_declaration::parse(&[0x30; 901], &TrustStore::new(), &mut long);
    assert_eq!(long.into_vec()[0].code, Code::DeclarationTooLarge);
}

#[test]
fn a_virtual_device_is_test_material_in_three_ways() {
    let device = Builder::new(VID, PID).build();
    assert_eq!(judge(&device), [Code::TestPaa, Code::TestDeclarationSigner, Code::TestDeclaration]);
}

/// Every code is expected by a test of this file: a new one without a test breaks this.
#[test]
fn every_code_has_its_test() {
    let source = include_str!("tests.rs");
    let untested: Vec<_> = Code::ALL.iter().filter(|code| !source.contains(&format!("{code:?}"))).collect();
    assert!(untested.is_empty(), "{untested:?}");
    let words: BTreeSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(words.len(), Code::ALL.len());
    for code in Code::ALL {
        assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
    }
}

fn allow(product_id: Option<u16>) -> AttestationConfig {
    AttestationConfig { allow_test: vec![AllowTest { vendor_id: VID, product_id }], ..Default::default() }
}

#[test]
fn policy_rejects_test_material_unless_the_product_is_named() {
    let device = Builder::new(VID, PID).build();
    let report = verify(&evidence(&device), &trust(&device));
    let outcome = |config: &AttestationConfig| decide(&report, config, None).outcome;
    assert_eq!(outcome(&AttestationConfig::default()), Outcome::Rejected);
    assert_eq!(outcome(&allow(None)), Outcome::Accepted);
    assert_eq!(outcome(&allow(Some(PID))), Outcome::Accepted);
    assert_eq!(outcome(&allow(Some(PID + 1))), Outcome::Rejected);
    let summary = decide(&report, &allow(None), None).summary(&report);
    assert_eq!(summary.verdict, "accepted");
    assert_eq!(summary.findings[0].code, Code::TestPaa);
    assert_eq!(summary.findings[0].severity, Severity::Warning);
}

#[test]
fn policy_never_lets_an_error_pass_but_by_warn_or_override() {
    let device = production().dac(|it| it.signed_by = Some([1; 32])).build();
    let report = verify(&evidence(&device), &trust(&device));
    let rejected = decide(&report, &allow(None), None);
    assert_eq!((rejected.outcome, rejected.deciding[0].code), (Outcome::Rejected, Code::CertificateSignature));
    let warn = AttestationConfig { policy: AttestationPolicy::Warn, ..Default::default() };
    assert_eq!(decide(&report, &warn, None).outcome, Outcome::AcceptedWithWarnings);
    let person = AttestationOverride { who: "root".to_owned(), why: "prototype".to_owned() };
    let overridden = decide(&report, &AttestationConfig::default(), Some(person.clone()));
    assert_eq!((overridden.outcome, overridden.overridden), (Outcome::AcceptedByOverride, Some(person.clone())));
    let good = production().build();
    let unneeded = decide(&verify(&evidence(&good), &trust(&good)), &AttestationConfig::default(), Some(person));
    assert_eq!((unneeded.outcome, unneeded.overridden), (Outcome::Accepted, None));
}

#[test]
fn a_provisional_product_is_accepted() {
    let device = production().declaration(|it| it.certification_type = Some(1)).build();
    let report = verify(&evidence(&device), &trust(&device));
    assert_eq!(decide(&report, &AttestationConfig::default(), None).outcome, Outcome::Accepted);
}

#[test]
fn evidence_is_kept_as_json_and_verified_again() {
    let device = production().build();
    let kept = serde_json::to_string(&evidence(&device)).unwrap();
    let again: Evidence = serde_json::from_str(&kept).unwrap();
    assert_eq!(again, evidence(&device));
    assert!(serde_json::from_str::<Evidence>(&kept.replacen("CQkJ", "", 1)).is_err(), "a short challenge");
    let report = verify(&again, &trust(&device));
    assert_eq!(serde_json::from_value::<Report>(serde_json::to_value(&report).unwrap()).unwrap(), report);
}

#[test]
fn a_csr_is_signed_by_the_dac_for_this_session_and_nonce() {
    let device = production().build();
    let elements = nocsr_elements(b"a request", &NONCE);
    let verify = |elements: &[u8], challenge, nonce, signature: &[u8]| {
        verify_csr(&device.dac, elements, challenge, nonce, signature)
    };
    let signature = device.sign(&elements, &CHALLENGE);
    assert_eq!(verify(&elements, &CHALLENGE, &NONCE, &signature).unwrap(), b"a request");
    assert_eq!(verify(&elements, &[0; 16], &NONCE, &signature), Err(CsrRejected::Signature));
    assert_eq!(verify(&elements, &CHALLENGE, &NONCE, &signature[1..]), Err(CsrRejected::Signature));
    let other_key = sign(&[1; 32], &elements, &CHALLENGE);
    assert_eq!(verify(&elements, &CHALLENGE, &NONCE, &other_key), Err(CsrRejected::Signature));
    assert!(matches!(verify(&elements, &CHALLENGE, &[0; 32], &signature), Err(CsrRejected::Nonce { .. })));
    for (bad, field) in [(vec![0x15, 0x18], "CSRNonce"), (vec![0x04], "structure")] {
        let signature = device.sign(&bad, &CHALLENGE);
        assert_eq!(verify(&bad, &CHALLENGE, &NONCE, &signature), Err(CsrRejected::Malformed { field }));
    }
    assert_eq!(verify(&[0; 901], &CHALLENGE, &NONCE, &signature), Err(CsrRejected::TooLarge { size: 901 }));
    assert!(matches!(verify_csr(&[], &elements, &CHALLENGE, &NONCE, &signature), Err(CsrRejected::Dac { .. })));
}

/// Flips bits, cuts and lengthens: whatever comes of it, no panic.
fn mangle(bytes: &[u8], at: usize, with: u8, cut: Option<usize>) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let index = at % bytes.len();
    bytes[index] ^= with;
    bytes.truncate(cut.map_or(usize::MAX, |cut| cut % bytes.len()));
    bytes
}

/// Made once: signing is slow in a debug build.
static DEVICE: LazyLock<Device> = LazyLock::new(|| production().build());
static TRUST: LazyLock<TrustStore> = LazyLock::new(|| trust(&DEVICE));

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn hostile_evidence_never_panics_and_a_changed_certificate_never_passes(
        part in 0..4usize, at in any::<usize>(), with in 1..=255u8, cut in proptest::option::weighted(0.3, any::<usize>()),
    ) {
        let mut evidence = evidence(&DEVICE);
        let field = match part {
            0 => &mut evidence.dac,
            1 => &mut evidence.pai,
            2 => &mut evidence.attestation_elements,
            _ => &mut evidence.signature,
        };
        *field = mangle(field, at, with, cut);
        let report = verify(&evidence, &TRUST);
        let verdict = decide(&report, &AttestationConfig::default(), None);
        prop_assert_eq!(verdict.outcome, Outcome::Rejected);
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1000)) {
        let (device, trust) = (&*DEVICE, &*TRUST);
        let _ = verify(&Evidence { attestation_elements: bytes.clone(), ..evidence(device) }, trust);
        let _ = verify(&Evidence { dac: bytes.clone(), pai: bytes.clone(), ..evidence(device) }, trust);
        let signature = device.sign(&bytes, &CHALLENGE);
        let _ = verify_csr(&device.dac, &bytes, &CHALLENGE, &NONCE, &signature);
        let _ = certification_declaration::parse(&bytes, trust, &mut Findings::default());
    }
}
