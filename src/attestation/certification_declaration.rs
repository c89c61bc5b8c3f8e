//! The certification declaration: CMS envelope, signature and content (Matter Core 6.3), and what it allows.
//!
//! Security level, security information, version number, device type and the certificate id's value are read, since they
//! must be there, and not judged: the first three by 6.3.1, the others only the DCL could.

use cms::content_info::{CmsVersion, ContentInfo};
use cms::signed_data::{SignedData, SignerIdentifier, SignerInfo};
use der::Decode;
use der::asn1::{ObjectIdentifier, OctetString};
use rs_matter::error::Error as TlvError;
use rs_matter::tlv::{TLVElement, TLVSequence};
use serde::{Deserialize, Serialize};

use super::Material;
use super::certificate::{KeyId, key_id_text};
use super::chain::Chain;
use super::finding::{Code, Findings, hex, id, optional_id};
use super::trust::TrustStore;

/// The longest declaration that is read, in bytes: what AttestationElements have room for, RESP_MAX (Matter Core 11.18.3).
pub(crate) const DECLARATION_SIZE_MAX: usize = 900;
/// The most product ids of one declaration (Matter Core 6.3.1).
pub(crate) const PRODUCT_IDS_MAX: usize = 100;
/// The most authorized PAAs of one declaration (Matter Core 6.3.1).
pub(crate) const AUTHORIZED_PAAS_MAX: usize = 10;
/// Length of a certificate id (Matter Core 6.3.1).
pub(crate) const CERTIFICATE_ID_SIZE: usize = 19;

const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
const DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");

/// CertificationType (Matter Core 6.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CertificationType {
    /// 0: development and test.
    Test,
    /// 1: provisional.
    Provisional,
    /// 2: official.
    Official,
}

/// CertificationElements as signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declaration {
    /// format_version, 1.
    pub format_version: u16,
    pub vendor_id: u16,
    /// product_id_array, 1 to 100.
    pub product_ids: Vec<u16>,
    pub device_type_id: u32,
    /// certificate_id, 19 characters.
    pub certificate_id: String,
    pub security_level: u8,
    pub security_information: u16,
    pub version_number: u16,
    /// certification_type as encoded.
    pub certification_type: u8,
    pub dac_origin_vendor_id: Option<u16>,
    pub dac_origin_product_id: Option<u16>,
    /// authorized_paa_list, 1 to 10.
    pub authorized_paas: Option<Vec<KeyId>>,
}

impl Declaration {
    /// The certification type, where it is one of the three.
    pub fn certification_type(&self) -> Option<CertificationType> {
        match self.certification_type {
            0 => Some(CertificationType::Test),
            1 => Some(CertificationType::Provisional),
            2 => Some(CertificationType::Official),
            _ => None,
        }
    }
}

/// A declaration as a report shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeclarationSummary {
    pub vendor_id: u16,
    /// How many products it is for.
    pub product_count: usize,
    /// Certificate id of the Alliance.
    pub certificate_id: String,
    pub device_type_id: u32,
    /// Test, provisional or official, where it is one of them.
    pub certification_type: Option<CertificationType>,
}

impl From<&Declaration> for DeclarationSummary {
    fn from(declaration: &Declaration) -> Self {
        Self {
            vendor_id: declaration.vendor_id,
            product_count: declaration.product_ids.len(),
            certificate_id: declaration.certificate_id.clone(),
            device_type_id: declaration.device_type_id,
            certification_type: declaration.certification_type(),
        }
    }
}

/// Reads a declaration and judges its envelope and signature; the content where it can be read, trusted or not.
pub(crate) fn parse(der: &[u8], trust: &TrustStore, findings: &mut Findings) -> Option<Declaration> {
    if der.len() > DECLARATION_SIZE_MAX {
        let values = [("bytes", der.len().to_string()), ("limit", DECLARATION_SIZE_MAX.to_string())];
        findings.add(Code::DeclarationTooLarge, "the certification declaration is too long", values);
        return None;
    }
    let malformed = |findings: &mut Findings, what: String| {
        let message = "the certification declaration is no CMS message as Matter defines it";
        findings.add(Code::DeclarationMalformed, message, [("what", what)]);
    };
    let signed = match ContentInfo::from_der(der).and_then(|info| {
        if info.content_type != SIGNED_DATA {
            return Err(der::ErrorKind::OidUnknown { oid: info.content_type }.into());
        }
        info.content.decode_as::<SignedData>()
    }) {
        Ok(signed) => signed,
        Err(error) => {
            malformed(findings, error.to_string());
            return None;
        }
    };
    let content = signed.encap_content_info.econtent.as_ref().and_then(|any| any.decode_as::<OctetString>().ok());
    let ([signer], Some(content)) = (signed.signer_infos.0.as_slice(), content) else {
        malformed(findings, "it has not exactly one signer and one content".to_owned());
        return None;
    };
    if let Some(what) = surplus(&signed, signer) {
        malformed(findings, what.to_owned());
    }
    check_envelope(&signed, signer, findings);
    let signer = check_signature(signer, content.as_bytes(), trust, findings);
    match read(content.as_bytes()) {
        Ok(declaration) => {
            // The test key is public: whoever claims more with it than a test or provisional product has made it up.
            if signer == Signer::Test && declaration.certification_type() == Some(CertificationType::Official) {
                let message =
                    "the certification declaration claims to be official and is signed with the public test key";
                findings.add(Code::OfficialDeclarationTestSigner, message, []);
            }
            Some(declaration)
        }
        Err(ContentError { field }) => {
            let message = "the certification declaration's content lacks a field or has it wrong";
            findings.add(Code::DeclarationContent, message, [("field", field.to_owned())]);
            None
        }
    }
}

/// What the profile of 6.3.2 leaves no room for.
fn surplus(signed: &SignedData, signer: &SignerInfo) -> Option<&'static str> {
    if signed.encap_content_info.econtent_type != DATA {
        return Some("its content type is not pkcs7-data");
    }
    if signed.certificates.is_some() || signed.crls.is_some() {
        return Some("it carries certificates or revocation lists");
    }
    if signer.signed_attrs.is_some() || signer.unsigned_attrs.is_some() {
        return Some("its signer has attributes");
    }
    None
}

fn check_envelope(signed: &SignedData, signer: &SignerInfo, findings: &mut Findings) {
    if signed.version != CmsVersion::V3 || signer.version != CmsVersion::V3 {
        let values = [("cms", format!("{:?}", signed.version)), ("signer", format!("{:?}", signer.version))];
        findings.add(Code::DeclarationCmsVersion, "the certification declaration's CMS is not version 3", values);
    }
    let digests: Vec<_> = signed.digest_algorithms.iter().map(|algorithm| algorithm.oid).collect();
    if digests != [SHA256] || signer.digest_alg.oid != SHA256 {
        let digests = digests.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let values = [("cms", digests), ("signer", signer.digest_alg.oid.to_string())];
        findings.add(Code::DeclarationDigestAlgorithm, "the certification declaration's digest is not SHA-256", values);
    }
    if signer.signature_algorithm.oid != ECDSA_WITH_SHA256 {
        let message = "the certification declaration is not signed by ECDSA with SHA-256";
        let values = [("found", signer.signature_algorithm.oid.to_string())];
        findings.add(Code::DeclarationSignatureAlgorithm, message, values);
    }
}

/// Who signed, as far as it matters for what the declaration may claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signer {
    /// Nobody whom we know.
    Unknown,
    /// Whoever has read the Matter SDK.
    Test,
    Alliance,
}

fn check_signature(signer: &SignerInfo, content: &[u8], trust: &TrustStore, findings: &mut Findings) -> Signer {
    let skid = match &signer.sid {
        SignerIdentifier::SubjectKeyIdentifier(skid) => skid.0.as_bytes(),
        SignerIdentifier::IssuerAndSerialNumber(_) => &[],
    };
    let Some(known) = trust.declaration_signer(skid) else {
        let message = "the certification declaration is signed by nobody whom the Alliance has named";
        findings.add(Code::DeclarationSignerUnknown, message, [("signer", hex(skid))]);
        return Signer::Unknown;
    };
    if known.is_test {
        let message = "the certification declaration is signed with the public test key";
        findings.add(Code::TestDeclarationSigner, message, [("signer", hex(skid))]);
    }
    if !known.key.verifies_der(content, signer.signature.as_bytes()) {
        let message = "the certification declaration's signature is not its signer's";
        findings.add(Code::DeclarationSignature, message, [("signer", hex(skid))]);
    }
    if known.is_test { Signer::Test } else { Signer::Alliance }
}

/// Which field cannot be read.
#[derive(Debug, PartialEq, Eq)]
struct ContentError {
    field: &'static str,
}

/// Reads CertificationElements (6.3.1): a structure with tags in ascending order; tags that are not ours are passed over.
fn read(content: &[u8]) -> Result<Declaration, ContentError> {
    let at = |field| move |_: TlvError| ContentError { field };
    let fields = TLVElement::new(content).structure().map_err(at("structure"))?;
    check_order(&fields)?;
    let field = |tag: u8, name: &'static str| fields.ctx(tag).map_err(at(name));
    let optional = |tag: u8, name: &'static str| {
        let element = fields.find_ctx(tag).map_err(at(name))?;
        Ok((!element.is_empty()).then_some(element))
    };
    let product_ids =
        read_list(&field(2, "product_id_array")?, PRODUCT_IDS_MAX, "product_id_array", |id| id.u16().ok())?;
    let certificate_id = field(4, "certificate_id")?.utf8().map_err(at("certificate_id"))?;
    if certificate_id.len() != CERTIFICATE_ID_SIZE {
        return Err(ContentError { field: "certificate_id" });
    }
    let optional_u16 = |tag, name| optional(tag, name)?.map(|element| element.u16().map_err(at(name))).transpose();
    let authorized_paas = optional(11, "authorized_paa_list")?
        .map(|list| {
            read_list(&list, AUTHORIZED_PAAS_MAX, "authorized_paa_list", |skid| KeyId::try_from(skid.str().ok()?).ok())
        })
        .transpose()?;
    Ok(Declaration {
        format_version: field(0, "format_version")?.u16().map_err(at("format_version"))?,
        vendor_id: field(1, "vendor_id")?.u16().map_err(at("vendor_id"))?,
        product_ids,
        device_type_id: field(3, "device_type_id")?.u32().map_err(at("device_type_id"))?,
        certificate_id: certificate_id.to_owned(),
        security_level: field(5, "security_level")?.u8().map_err(at("security_level"))?,
        security_information: field(6, "security_information")?.u16().map_err(at("security_information"))?,
        version_number: field(7, "version_number")?.u16().map_err(at("version_number"))?,
        certification_type: field(8, "certification_type")?.u8().map_err(at("certification_type"))?,
        dac_origin_vendor_id: optional_u16(9, "dac_origin_vendor_id")?,
        dac_origin_product_id: optional_u16(10, "dac_origin_product_id")?,
        authorized_paas,
    })
}

/// Fields of a TLV structure come in the order of their tags and once each; then a first match is the only one.
fn check_order(fields: &TLVSequence<'_>) -> Result<(), ContentError> {
    let malformed = ContentError { field: "structure" };
    let mut last = None;
    for element in fields.iter() {
        let tag = element.and_then(|element| element.try_ctx()).map_err(|_| ContentError { field: "structure" })?;
        if tag.is_some() && tag <= last {
            return Err(malformed);
        }
        last = tag.or(last);
    }
    Ok(())
}

fn read_list<T>(
    list: &TLVElement<'_>,
    most: usize,
    field: &'static str,
    read: impl Fn(&TLVElement<'_>) -> Option<T>,
) -> Result<Vec<T>, ContentError> {
    let malformed = || ContentError { field };
    let mut values = Vec::new();
    for element in list.array().map_err(|_| malformed())?.iter() {
        if values.len() == most {
            return Err(malformed());
        }
        values.push(element.ok().as_ref().and_then(&read).ok_or_else(malformed)?);
    }
    if values.is_empty() { Err(malformed()) } else { Ok(values) }
}

/// What a declaration is compared with.
#[derive(Debug)]
pub(crate) struct Device<'a> {
    vendor_id: u16,
    product_id: u16,
    chain: &'a Chain,
}

impl<'a> Device<'a> {
    /// The claims of Basic Information, and the chain.
    pub(crate) fn new(material: &Material<'_>, chain: &'a Chain) -> Self {
        Self { vendor_id: material.vendor_id, product_id: material.product_id, chain }
    }
}

/// Compares a declaration with the device (6.2.3.1, "Validating the Certification Declaration").
pub(crate) fn check(declaration: &Declaration, device: &Device<'_>, findings: &mut Findings) {
    if declaration.format_version != 1 {
        let values = [("expected", "1".to_owned()), ("found", declaration.format_version.to_string())];
        findings.add(Code::DeclarationFormatVersion, "the certification declaration's format is not known", values);
    }
    check_type(declaration, findings);
    if declaration.vendor_id != device.vendor_id {
        let values = [("declaration", id(declaration.vendor_id)), ("device", id(device.vendor_id))];
        findings.add(Code::DeclarationVendorId, "the certification declaration is for another vendor", values);
    }
    if !declaration.product_ids.contains(&device.product_id) {
        let values = [("declaration", products(declaration)), ("device", id(device.product_id))];
        findings.add(Code::DeclarationProductId, "the certification declaration does not list the product", values);
    }
    match (declaration.dac_origin_vendor_id, declaration.dac_origin_product_id) {
        (Some(vendor_id), Some(product_id)) => check_origin(vendor_id, product_id, device.chain, findings),
        (None, None) => check_chain_ids(declaration, device.chain, findings),
        (vendor_id, product_id) => {
            let values = [("vendor_id", optional_id(vendor_id)), ("product_id", optional_id(product_id))];
            let message = "the certification declaration has only one of the two DAC origin ids";
            findings.add(Code::DeclarationOriginIncomplete, message, values);
        }
    }
    let paa = device.chain.paa.as_ref().and_then(|paa| paa.skid);
    if let (Some(list), Some(paa)) = (&declaration.authorized_paas, paa)
        && !list.contains(&paa)
    {
        let list = list.iter().map(|skid| hex(skid)).collect::<Vec<_>>().join(" ");
        let values = [("authorized", list), ("paa", key_id_text(Some(&paa)))];
        findings.add(Code::DeclarationPaa, "the certification declaration does not allow this PAA", values);
    }
}

fn check_type(declaration: &Declaration, findings: &mut Findings) {
    match declaration.certification_type() {
        Some(CertificationType::Official) => {}
        Some(CertificationType::Provisional) => {
            findings.add(Code::ProvisionalDeclaration, "the product is certified provisionally", []);
        }
        Some(CertificationType::Test) => {
            let message = "the certification declaration is for development and test only";
            findings.add(Code::TestDeclaration, message, []);
        }
        None => {
            let values = [("found", declaration.certification_type.to_string())];
            let message = "the certification declaration's type is neither test, provisional nor official";
            findings.add(Code::DeclarationCertificationType, message, values);
        }
    }
}

/// "If dac_origin_vendor_id and dac_origin_product_id are present, they shall match the DAC's and the PAI's".
fn check_origin(vendor_id: u16, product_id: u16, chain: &Chain, findings: &mut Findings) {
    for certificate in [&chain.dac, &chain.pai].into_iter().flatten() {
        let wrong_vendor = certificate.vendor_id.is_some_and(|found| found != vendor_id);
        let wrong_product = certificate.product_id.is_some_and(|found| found != product_id);
        if wrong_vendor || wrong_product {
            let name = certificate.role.as_str();
            let values = [
                ("certificate", name.to_owned()),
                ("origin_vendor_id", id(vendor_id)),
                ("vendor_id", optional_id(certificate.vendor_id)),
                ("origin_product_id", id(product_id)),
                ("product_id", optional_id(certificate.product_id)),
            ];
            let message = format!("the {name} is not of the origin that the certification declaration names");
            findings.add(Code::DeclarationOrigin, message, values);
        }
    }
}

/// Without an origin, "the VendorID of DAC and PAI shall match vendor_id, their ProductIDs shall be in product_id_array".
fn check_chain_ids(declaration: &Declaration, chain: &Chain, findings: &mut Findings) {
    for certificate in [&chain.dac, &chain.pai].into_iter().flatten() {
        let name = certificate.role.as_str();
        if let Some(found) = certificate.vendor_id
            && found != declaration.vendor_id
        {
            let values = [("declaration", id(declaration.vendor_id)), (name, id(found))];
            let message = format!("the certification declaration is for another vendor than the {name}");
            findings.add(Code::DeclarationVendorId, message, values);
        }
        if let Some(found) = certificate.product_id
            && !declaration.product_ids.contains(&found)
        {
            let values = [("declaration", products(declaration)), (name, id(found))];
            let message = format!("the certification declaration does not list the {name}'s product");
            findings.add(Code::DeclarationProductId, message, values);
        }
    }
}

fn products(declaration: &Declaration) -> String {
    declaration.product_ids.iter().map(|product| id(*product)).collect::<Vec<_>>().join(" ")
}
