//! One certificate of an attestation chain, read and judged by itself (Matter Core 6.2.2).
//!
//! Not here: what certificates say of each other (`chain`).

use der::asn1::{AnyRef, BitStringRef, ObjectIdentifier};
use der::{Decode, Encode, Sequence, Tag, Tagged};
use x509_cert::ext::pkix::{AuthorityKeyIdentifier, BasicConstraints, KeyUsage, KeyUsages, SubjectKeyIdentifier};
use x509_cert::name::Name;
use x509_cert::{Certificate, Version};

use super::finding::{Code, Findings, hex};
use super::signature::PublicKey;
use crate::plain;

/// The longest DER certificate that a device may show (Matter Core 6.1.3), in bytes.
pub(crate) const CERTIFICATE_SIZE_MAX: usize = 600;

/// A key identifier: 20 bytes everywhere in a chain.
pub(crate) type KeyId = [u8; 20];

const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const PRIME256V1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const MATTER_VENDOR_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.37244.2.1");
const MATTER_PRODUCT_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.37244.2.2");

/// Extensions that we understand or that Matter Core 6.2.2 lets stand whatever they say: basic constraints, key usage,
/// both key identifiers, extended key usage, authority information access, subject alternative name, certificate
/// policies, CRL distribution points.
const KNOWN_EXTENSIONS: [ObjectIdentifier; 9] = [
    ObjectIdentifier::new_unwrap("2.5.29.19"),
    ObjectIdentifier::new_unwrap("2.5.29.15"),
    ObjectIdentifier::new_unwrap("2.5.29.14"),
    ObjectIdentifier::new_unwrap("2.5.29.35"),
    ObjectIdentifier::new_unwrap("2.5.29.37"),
    ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.1.1"),
    ObjectIdentifier::new_unwrap("2.5.29.17"),
    ObjectIdentifier::new_unwrap("2.5.29.32"),
    ObjectIdentifier::new_unwrap("2.5.29.31"),
];

/// A certificate's place in the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The device's own, Device Attestation Certificate.
    Dac,
    /// Its maker's for a product, Product Attestation Intermediate.
    Pai,
    /// The root that is trusted, Product Attestation Authority.
    Paa,
}

impl Role {
    /// `DAC`, `PAI`, `PAA`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dac => "DAC",
            Self::Pai => "PAI",
            Self::Paa => "PAA",
        }
    }

    fn value(self) -> (&'static str, String) {
        ("certificate", self.as_str().to_owned())
    }
}

/// What later checks need of a certificate. Fields are `None` where the certificate has no usable value; a finding says so.
#[derive(Debug, Clone)]
pub struct AttestationCertificate {
    pub role: Role,
    pub subject: Name,
    pub issuer: Name,
    pub issuer_der: Vec<u8>,
    /// Serial number, big endian, without leading zeros.
    pub serial: Vec<u8>,
    /// First valid second since 1970.
    pub not_before: i64,
    /// Last valid second since 1970.
    pub not_after: i64,
    pub validity: (String, String),
    /// Vendor id of the subject.
    pub vendor_id: Option<u16>,
    /// Product id of the subject.
    pub product_id: Option<u16>,
    pub skid: Option<KeyId>,
    pub akid: Option<KeyId>,
    key: Option<PublicKey>,
    signed: Vec<u8>,
    signature: Vec<u8>,
}

/// The three parts of a certificate with the signed one as it was encoded.
#[derive(Sequence)]
struct Parts<'a> {
    signed: AnyRef<'a>,
    algorithm: AnyRef<'a>,
    signature: BitStringRef<'a>,
}

impl AttestationCertificate {
    /// Whether this certificate's key made the raw `signature` over `message`; false where it has no usable key.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.key.is_some_and(|key| key.verifies_raw(message, signature))
    }

    /// Whether `issuer`'s key signed this certificate.
    pub fn is_signed_by(&self, issuer: &Self) -> bool {
        issuer.key.is_some_and(|key| key.verifies_der(&self.signed, &self.signature))
    }

    /// Whether `issuer`'s subject is this certificate's issuer; string types may differ (RFC 5280, 7.1).
    pub fn is_named_by(&self, issuer: &Self) -> bool {
        self.issuer.len() == issuer.subject.len()
            && self.issuer.iter().zip(issuer.subject.iter()).all(|(ours, theirs)| {
                ours.oid == theirs.oid
                    && ours.value.value() == theirs.value.value()
                    && is_text(ours.value.tag()) == is_text(theirs.value.tag())
            })
    }

    /// Whether `second` since 1970 lies in its validity.
    pub fn is_valid_at(&self, second: i64) -> bool {
        (self.not_before..=self.not_after).contains(&second)
    }
}

fn is_text(tag: Tag) -> bool {
    matches!(tag, Tag::Utf8String | Tag::PrintableString)
}

/// Reads a certificate and judges it for its place; `None` where it cannot be read at all.
pub(crate) fn parse(der: &[u8], role: Role, findings: &mut Findings) -> Option<AttestationCertificate> {
    let name = role.as_str();
    if role != Role::Paa && der.len() > CERTIFICATE_SIZE_MAX {
        let values = [role.value(), ("bytes", der.len().to_string()), ("limit", CERTIFICATE_SIZE_MAX.to_string())];
        findings.add(Code::CertificateTooLarge, format!("the {name} is too long"), values);
        return None;
    }
    let read = || Ok::<_, der::Error>((Certificate::from_der(der)?, Parts::from_der(der)?));
    let (certificate, parts) = match read() {
        Ok(read) => read,
        Err(error) => {
            findings.add(Code::CertificateMalformed, format!("the {name} is no certificate: {error}"), [role.value()]);
            return None;
        }
    };
    check_form(&certificate, role, findings);
    let (skid, akid) = check_extensions(&certificate, role, findings);
    let tbs = certificate.tbs_certificate();
    let (vendor_id, product_id) = subject_ids(tbs.subject(), role, findings);
    let validity = tbs.validity();
    Some(AttestationCertificate {
        role,
        subject: tbs.subject().clone(),
        issuer: tbs.issuer().clone(),
        issuer_der: tbs.issuer().to_der().unwrap_or_default(),
        serial: tbs.serial_number().as_bytes().iter().copied().skip_while(|byte| *byte == 0).collect(),
        not_before: seconds(validity.not_before),
        not_after: seconds(validity.not_after),
        validity: (validity.not_before.to_string(), validity.not_after.to_string()),
        vendor_id,
        product_id,
        skid,
        akid,
        key: public_key(&certificate, role, findings),
        signed: parts.signed.to_der().unwrap_or_default(),
        signature: parts.signature.as_bytes().unwrap_or_default().to_vec(),
    })
}

fn seconds(time: x509_cert::time::Time) -> i64 {
    i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX)
}

fn check_form(certificate: &Certificate, role: Role, findings: &mut Findings) {
    let tbs = certificate.tbs_certificate();
    let name = role.as_str();
    if tbs.version() != Version::V3 {
        let values = [role.value(), ("version", format!("{:?}", tbs.version()).to_lowercase())];
        findings.add(Code::CertificateVersion, format!("the {name} is not X.509 version 3"), values);
    }
    let (inner, outer) = (tbs.signature(), certificate.signature_algorithm());
    if inner.oid != ECDSA_WITH_SHA256 || inner != outer {
        let values = [role.value(), ("inner", inner.oid.to_string()), ("outer", outer.oid.to_string())];
        findings.add(Code::SignatureAlgorithm, format!("the {name} is not signed by ECDSA with SHA-256"), values);
    }
}

fn public_key(certificate: &Certificate, role: Role, findings: &mut Findings) -> Option<PublicKey> {
    let info = certificate.tbs_certificate().subject_public_key_info();
    let curve = info.algorithm.parameters.as_ref().and_then(|any| any.decode_as::<ObjectIdentifier>().ok());
    let key = (info.algorithm.oid == EC_PUBLIC_KEY && curve == Some(PRIME256V1))
        .then(|| info.subject_public_key.as_bytes())
        .flatten()
        .and_then(PublicKey::from_sec1);
    if key.is_none() {
        let curve = curve.map_or_else(|| "none".to_owned(), |oid| oid.to_string());
        let values = [role.value(), ("algorithm", info.algorithm.oid.to_string()), ("curve", curve)];
        findings.add(Code::PublicKey, format!("the {}'s key is no point of P-256", role.as_str()), values);
    }
    key
}

/// Extensions of Matter Core 6.2.2.3 (DAC), 6.2.2.4 (PAI) and 6.2.2.5 (PAA); gives both key identifiers.
fn check_extensions(certificate: &Certificate, role: Role, findings: &mut Findings) -> (Option<KeyId>, Option<KeyId>) {
    let tbs = certificate.tbs_certificate();
    let name = role.as_str();
    check_basic_constraints(certificate, role, findings);
    check_key_usage(certificate, role, findings);
    for extension in tbs.extensions().into_iter().flatten() {
        if extension.critical && !KNOWN_EXTENSIONS.contains(&extension.extn_id) {
            let values = [role.value(), ("extension", extension.extn_id.to_string())];
            let message = format!("the {name} has a critical extension that is not known");
            findings.add(Code::UnknownCriticalExtension, message, values);
        }
    }
    let skid = tbs.get_extension::<SubjectKeyIdentifier>().ok().flatten();
    let skid = skid.and_then(|(critical, skid)| (!critical).then(|| key_id(skid.0.as_bytes())).flatten());
    if skid.is_none() {
        let message = format!("the {name} has no subject key identifier of 20 bytes");
        findings.add(Code::SubjectKeyIdentifier, message, [role.value()]);
    }
    let akid = match tbs.get_extension::<AuthorityKeyIdentifier>() {
        Ok(Some((critical, akid))) => {
            let id = akid.key_identifier.as_ref().and_then(|id| key_id(id.as_bytes()));
            (!critical).then_some(id).flatten().ok_or(())
        }
        // A root need not name itself.
        Ok(None) if role == Role::Paa => return (skid, None),
        _ => Err(()),
    };
    if akid.is_err() {
        let message = format!("the {name} has no authority key identifier of 20 bytes");
        findings.add(Code::AuthorityKeyIdentifier, message, [role.value()]);
    }
    (skid, akid.ok())
}

fn key_id(bytes: &[u8]) -> Option<KeyId> {
    bytes.try_into().ok()
}

fn check_basic_constraints(certificate: &Certificate, role: Role, findings: &mut Findings) {
    let found = certificate.tbs_certificate().get_extension::<BasicConstraints>();
    let right = matches!(&found, Ok(Some((true, constraints))) if match role {
        Role::Dac => !constraints.ca && constraints.path_len_constraint.is_none(),
        Role::Pai => constraints.ca && constraints.path_len_constraint == Some(0),
        Role::Paa => constraints.ca && matches!(constraints.path_len_constraint, None | Some(1)),
    });
    if right {
        return;
    }
    let expected = match role {
        Role::Dac => "critical, no CA, no path length",
        Role::Pai => "critical, CA, path length 0",
        Role::Paa => "critical, CA, path length 1 or none",
    };
    let found = match found {
        Ok(Some((critical, constraints))) => {
            let length = constraints.path_len_constraint.map_or_else(|| "none".to_owned(), |n| n.to_string());
            format!("critical {critical}, CA {}, path length {length}", constraints.ca)
        }
        Ok(None) => "none".to_owned(),
        Err(error) => error.to_string(),
    };
    let values = [role.value(), ("expected", expected.to_owned()), ("found", found)];
    findings.add(Code::BasicConstraints, format!("the {}'s basic constraints are wrong", role.as_str()), values);
}

fn check_key_usage(certificate: &Certificate, role: Role, findings: &mut Findings) {
    let found = certificate.tbs_certificate().get_extension::<KeyUsage>();
    let authority = KeyUsages::KeyCertSign | KeyUsages::CRLSign;
    let right = matches!(&found, Ok(Some((true, usage))) if match role {
        Role::Dac => usage.0 == KeyUsages::DigitalSignature,
        Role::Pai | Role::Paa => usage.0 == authority || usage.0 == (authority | KeyUsages::DigitalSignature),
    });
    if right {
        return;
    }
    let expected = match role {
        Role::Dac => "critical, DigitalSignature",
        Role::Pai | Role::Paa => "critical, KeyCertSign and CRLSign, perhaps DigitalSignature",
    };
    let found = match found {
        Ok(Some((critical, usage))) => {
            let bits: Vec<_> = usage.0.into_iter().map(|bit| format!("{bit:?}")).collect();
            format!("critical {critical}, {}", bits.join(", "))
        }
        Ok(None) => "none".to_owned(),
        Err(error) => error.to_string(),
    };
    let values = [role.value(), ("expected", expected.to_owned()), ("found", found)];
    findings.add(Code::KeyUsage, format!("the {}'s key usage is wrong", role.as_str()), values);
}

/// Why a subject gives no id.
#[derive(Debug)]
struct MalformedId(String);

/// Vendor and product id of a subject: Matter's own attributes, or else the common name (Matter Core 6.2.2.1, 6.2.2.2).
fn subject_ids(subject: &Name, role: Role, findings: &mut Findings) -> (Option<u16>, Option<u16>) {
    let ids = match read_ids(subject) {
        Ok(ids) => ids,
        Err(MalformedId(found)) => {
            let message = format!("the {}'s subject has a vendor or product id that is not well-formed", role.as_str());
            findings.add(Code::SubjectIdMalformed, message, [role.value(), ("found", found)]);
            return (None, None);
        }
    };
    if ids.0.is_none() && role != Role::Paa {
        let message = format!("the {}'s subject names no vendor id", role.as_str());
        findings.add(Code::VendorIdMissing, message, [role.value(), ("subject", bounded(&subject.to_string()))]);
    }
    if ids.1.is_none() && role == Role::Dac {
        let message = "the DAC's subject names no product id";
        findings.add(Code::ProductIdMissing, message, [role.value(), ("subject", bounded(&subject.to_string()))]);
    }
    if ids.1.is_some() && role == Role::Paa {
        let message = "a PAA must not name a product id";
        findings.add(Code::SubjectIdMalformed, message, [role.value(), ("found", bounded(&subject.to_string()))]);
    }
    ids
}

fn read_ids(subject: &Name) -> Result<(Option<u16>, Option<u16>), MalformedId> {
    let vendor_id = attribute_id(subject, MATTER_VENDOR_ID)?;
    let product_id = attribute_id(subject, MATTER_PRODUCT_ID)?;
    if vendor_id.is_some() || product_id.is_some() {
        // "If either is present, the fallback encoding shall not be considered" (6.2.2.2).
        return Ok((vendor_id, product_id));
    }
    let Some(common_name) = subject.iter().find(|attribute| attribute.oid == COMMON_NAME) else {
        return Ok((None, None));
    };
    let common_name = common_name.value.value();
    Ok((common_name_id(common_name, b"Mvid:")?, common_name_id(common_name, b"Mpid:")?))
}

fn attribute_id(subject: &Name, oid: ObjectIdentifier) -> Result<Option<u16>, MalformedId> {
    let mut matching = subject.iter().filter(|attribute| attribute.oid == oid);
    let Some(attribute) = matching.next() else { return Ok(None) };
    let bytes = attribute.value.value();
    let malformed = || MalformedId(format!("{oid}={}", bounded(&String::from_utf8_lossy(bytes))));
    if matching.next().is_some() || !is_text(attribute.value.tag()) {
        return Err(malformed());
    }
    let digits = <&[u8; 4]>::try_from(bytes).map_err(|_| malformed())?;
    four_hex_digits(digits).map(Some).ok_or_else(malformed)
}

/// The leftmost `prefix` must be followed by exactly four upper-case hex digits; what comes after them does not matter.
fn common_name_id(common_name: &[u8], prefix: &[u8; 5]) -> Result<Option<u16>, MalformedId> {
    let Some(start) = common_name.windows(prefix.len()).position(|window| window == prefix) else { return Ok(None) };
    common_name[start + prefix.len()..]
        .first_chunk::<4>()
        .and_then(four_hex_digits)
        .map(Some)
        .ok_or_else(|| MalformedId(bounded(&String::from_utf8_lossy(common_name))))
}

fn four_hex_digits(digits: &[u8; 4]) -> Option<u16> {
    digits.iter().try_fold(0, |value, digit| match digit {
        b'0'..=b'9' => Some(value << 4 | u16::from(digit - b'0')),
        b'A'..=b'F' => Some(value << 4 | u16::from(digit - b'A' + 10)),
        _ => None,
    })
}

/// Text from a device as it may be shown, cut at 128 characters.
pub(super) fn bounded(text: &str) -> String {
    plain::shown(text).chars().take(128).collect()
}

/// A key identifier in hex, or `none`.
pub(super) fn key_id_text(id: Option<&KeyId>) -> String {
    id.map_or_else(|| "none".to_owned(), |id| hex(id))
}
