//! One certificate of a test chain: every field can be set to what a correct authority would never sign.

use der::asn1::{Any, BitString, GeneralizedTime, ObjectIdentifier, OctetString, SetOfVec, Utf8StringRef};
use der::{Encode, Sequence};
use p256::ecdsa::Signature;
use p256::ecdsa::signature::Signer;
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{AuthorityKeyIdentifier, BasicConstraints, KeyUsage, KeyUsages, SubjectKeyIdentifier};
use x509_cert::name::{RdnSequence, RelativeDistinguishedName};
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::time::{Time, Validity};

use super::{TEST_PAA_NOVID_KEY, TEST_PAA_NOVID_SKID, key_identifier, signing_key};

/// id-at-commonName.
pub(crate) const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
/// Matter's VendorID attribute (Matter Core 6.1.1).
pub(crate) const VENDOR_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.37244.2.1");
/// Matter's ProductID attribute (Matter Core 6.1.1).
pub(crate) const PRODUCT_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.37244.2.2");
pub(crate) const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// prime256v1.
pub(crate) const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
const SUBJECT_KEY_IDENTIFIER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.14");
const AUTHORITY_KEY_IDENTIFIER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.35");

/// Subject and key of a certificate, and everything that may be wrong with it.
#[derive(Clone)]
pub struct CertificateSpec {
    /// The version field as encoded: 2 is X.509 version 3.
    pub version: u8,
    /// Serial number, big endian.
    pub serial: Vec<u8>,
    /// Named in both places of the certificate; the signature itself is always ECDSA with SHA-256.
    pub signature_algorithm: ObjectIdentifier,
    /// Subject attributes in order.
    pub subject: Vec<(ObjectIdentifier, String)>,
    /// The issuer's subject when `None`.
    pub issuer: Option<Vec<(ObjectIdentifier, String)>>,
    /// Seconds since 1970.
    pub not_before: u64,
    /// Seconds since 1970.
    pub not_after: u64,
    /// Critical, CA, path length.
    pub basic_constraints: Option<(bool, bool, Option<u8>)>,
    /// Critical, bits.
    pub key_usage: Option<(bool, KeyUsage)>,
    /// Subject key identifier.
    pub skid: Option<Vec<u8>>,
    /// Authority key identifier; the issuer's SKID when `None`.
    pub akid: Option<Vec<u8>>,
    /// Leaves the authority key identifier out.
    pub omit_akid: bool,
    /// The curve that the public key claims.
    pub curve: ObjectIdentifier,
    /// Further extensions as they are.
    pub extra: Vec<Extension>,
    /// The subject's private key.
    pub key: [u8; 32],
    /// Signs with this key in place of the issuer's.
    pub signed_by: Option<[u8; 32]>,
}

#[derive(Sequence)]
struct Tbs {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    version: u8,
    serial: SerialNumber,
    signature: AlgorithmIdentifierOwned,
    issuer: RdnSequence,
    validity: Validity,
    subject: RdnSequence,
    public_key: SubjectPublicKeyInfoOwned,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT")]
    extensions: Vec<Extension>,
}

#[derive(Sequence)]
struct Signed {
    tbs: Tbs,
    signature_algorithm: AlgorithmIdentifierOwned,
    signature: BitString,
}

/// 2021-06-28, the first day of the CHIP test PAAs.
const NOT_BEFORE: u64 = 1_624_890_223;
/// 9999-12-31T23:59:59Z: "no expiry" (Matter Core 6.2.2).
const NO_EXPIRY: u64 = 253_402_300_799;

impl CertificateSpec {
    /// A correct PAA (Matter Core 6.2.2.5).
    pub fn paa(vendor_id: Option<u16>, key: [u8; 32]) -> Self {
        let mut subject = vec![(COMMON_NAME, "matterbind test PAA".to_owned())];
        subject.extend(vendor_id.map(|id| (VENDOR_ID, format!("{id:04X}"))));
        Self::authority(subject, key, 1)
    }

    /// A correct PAI without product id (Matter Core 6.2.2.4).
    pub fn pai(vendor_id: u16, key: [u8; 32]) -> Self {
        let subject = vec![(COMMON_NAME, "matterbind test PAI".to_owned()), (VENDOR_ID, format!("{vendor_id:04X}"))];
        Self::authority(subject, key, 0)
    }

    /// A correct DAC (Matter Core 6.2.2.3).
    pub fn dac(vendor_id: u16, product_id: u16, key: [u8; 32]) -> Self {
        let subject = vec![
            (COMMON_NAME, "matterbind test DAC".to_owned()),
            (VENDOR_ID, format!("{vendor_id:04X}")),
            (PRODUCT_ID, format!("{product_id:04X}")),
        ];
        Self {
            basic_constraints: Some((true, false, None)),
            key_usage: Some((true, KeyUsage(KeyUsages::DigitalSignature.into()))),
            ..Self::authority(subject, key, 0)
        }
    }

    /// Name and key of the CHIP test PAA without vendor id, to sign below it.
    pub(super) fn chip_test_paa() -> Self {
        let skid = TEST_PAA_NOVID_SKID.to_vec();
        let subject = vec![(COMMON_NAME, "Matter Test PAA".to_owned())];
        Self { skid: Some(skid), ..Self::authority(subject, TEST_PAA_NOVID_KEY, 1) }
    }

    fn authority(subject: Vec<(ObjectIdentifier, String)>, key: [u8; 32], path_length: u8) -> Self {
        let skid = key_identifier(&public_key(&key));
        Self {
            version: 2,
            serial: skid[..8].iter().map(|byte| byte | 0x01).collect(),
            signature_algorithm: ECDSA_WITH_SHA256,
            subject,
            issuer: None,
            not_before: NOT_BEFORE,
            not_after: NO_EXPIRY,
            basic_constraints: Some((true, true, Some(path_length))),
            key_usage: Some((true, KeyUsage(KeyUsages::KeyCertSign | KeyUsages::CRLSign))),
            skid: Some(skid),
            akid: None,
            omit_akid: false,
            curve: P256,
            extra: Vec::new(),
            key,
            signed_by: None,
        }
    }

    /// The certificate, DER, signed by `issuer`.
    pub fn sign(&self, issuer: &Self) -> Vec<u8> {
        let algorithm = AlgorithmIdentifierOwned { oid: self.signature_algorithm, parameters: None };
        let tbs = Tbs {
            version: self.version,
            serial: SerialNumber::new(&self.serial).expect("test serial numbers are short"),
            signature: algorithm.clone(),
            issuer: name(self.issuer.as_ref().unwrap_or(&issuer.subject)),
            validity: Validity::new(time(self.not_before), time(self.not_after)),
            subject: name(&self.subject),
            public_key: SubjectPublicKeyInfoOwned {
                algorithm: AlgorithmIdentifierOwned {
                    oid: EC_PUBLIC_KEY,
                    parameters: Some(Any::encode_from(&self.curve).expect("an object identifier encodes")),
                },
                subject_public_key: BitString::from_bytes(&public_key(&self.key)).expect("65 bytes fit"),
            },
            extensions: self.extensions(issuer),
        };
        let key = signing_key(self.signed_by.as_ref().unwrap_or(&issuer.key));
        let signature: Signature = key.sign(&der(&tbs));
        let signature = BitString::from_bytes(signature.to_der().as_bytes()).expect("72 bytes fit");
        der(&Signed { tbs, signature_algorithm: algorithm, signature })
    }

    fn extensions(&self, issuer: &Self) -> Vec<Extension> {
        let mut extensions = Vec::new();
        if let Some((critical, ca, path_len_constraint)) = self.basic_constraints {
            extensions.push(extension(BASIC_CONSTRAINTS, critical, &BasicConstraints { ca, path_len_constraint }));
        }
        if let Some((critical, usage)) = &self.key_usage {
            extensions.push(extension(KEY_USAGE, *critical, usage));
        }
        if let Some(skid) = &self.skid {
            extensions.push(extension(SUBJECT_KEY_IDENTIFIER, false, &SubjectKeyIdentifier(octets(skid))));
        }
        let akid = self.akid.as_ref().or(issuer.skid.as_ref());
        if let (Some(akid), false) = (akid, self.omit_akid) {
            let value = AuthorityKeyIdentifier { key_identifier: Some(octets(akid)), ..Default::default() };
            extensions.push(extension(AUTHORITY_KEY_IDENTIFIER, false, &value));
        }
        extensions.extend(self.extra.iter().cloned());
        extensions
    }
}

/// The uncompressed public key of a private key, 65 bytes.
pub(crate) fn public_key(key: &[u8; 32]) -> Vec<u8> {
    signing_key(key).verifying_key().to_sec1_point(false).as_bytes().to_vec()
}

fn extension(extn_id: ObjectIdentifier, critical: bool, value: &impl Encode) -> Extension {
    Extension { extn_id, critical, extn_value: octets(&der(value)) }
}

fn octets(bytes: &[u8]) -> OctetString {
    OctetString::new(bytes).expect("test values are short")
}

fn der(value: &impl Encode) -> Vec<u8> {
    value.to_der().expect("test structures encode")
}

fn time(seconds: u64) -> Time {
    let since_1970 = std::time::Duration::from_secs(seconds);
    Time::GeneralTime(GeneralizedTime::from_unix_duration(since_1970).expect("test times lie before the year 10000"))
}

fn name(attributes: &[(ObjectIdentifier, String)]) -> RdnSequence {
    let mut sequence = RdnSequence::default();
    for (oid, text) in attributes {
        let text = Utf8StringRef::new(text).expect("a string is UTF-8");
        let value = Any::encode_from(&text).expect("a short string encodes");
        let set = SetOfVec::try_from(vec![AttributeTypeAndValue { oid: *oid, value }]).expect("one element is a set");
        sequence.push(RelativeDistinguishedName::from(set));
    }
    sequence
}
