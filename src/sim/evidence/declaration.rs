//! A certification declaration (Matter Core 6.3) of which every part can be wrong.

use cms::content_info::{CmsVersion, ContentInfo};
use cms::signed_data::{EncapsulatedContentInfo, SignedData, SignerIdentifier, SignerInfo, SignerInfos};
use der::Encode;
use der::asn1::{Any, ObjectIdentifier, OctetString, SetOfVec};
use p256::ecdsa::Signature;
use p256::ecdsa::signature::Signer;
use rs_matter::tlv::{TLVTag, TLVWrite};
use x509_cert::ext::pkix::SubjectKeyIdentifier;
use x509_cert::spki::AlgorithmIdentifierOwned;

use super::certificate::ECDSA_WITH_SHA256;
use super::{signing_key, tlv};

/// Private key of the CHIP test signer of certification declarations, public test data from Matter Core 1.1, appendix F;
/// also in @matter/protocol 0.17 as `TestCMS_SignerPrivateKey`.
pub(crate) const TEST_SIGNER_KEY: [u8; 32] = [
    0xae, 0xf3, 0x48, 0x41, 0x16, 0xe9, 0x48, 0x1e, 0xc5, 0x7b, 0xe0, 0x47, 0x2d, 0xf4, 0x1b, 0xf4, 0x99, 0x06, 0x4e,
    0x50, 0x24, 0xad, 0x86, 0x9e, 0xca, 0x5e, 0x88, 0x98, 0x02, 0xd4, 0x80, 0x75,
];
/// Subject key identifier of the same signer's certificate.
pub(crate) const TEST_SIGNER_SKID: [u8; 20] = rs_matter::attest::cd_keys::TEST_CD_KID;

const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
const DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");

/// The fields of a declaration and of the CMS around it; `None` leaves a field out.
#[derive(Clone)]
pub struct DeclarationSpec {
    /// CMS version, 3 when right.
    pub cms_version: CmsVersion,
    /// SignerInfo version, 3 when right.
    pub signer_version: CmsVersion,
    /// Digest algorithm of the SignedData.
    pub digest_algorithm: ObjectIdentifier,
    /// Digest algorithm of the SignerInfo.
    pub signer_digest_algorithm: ObjectIdentifier,
    /// Signature algorithm of the SignerInfo.
    pub signature_algorithm: ObjectIdentifier,
    /// eContentType.
    pub content_type: ObjectIdentifier,
    /// Which key claims to have signed.
    pub signer_skid: Vec<u8>,
    /// Which key signs.
    pub signer_key: [u8; 32],
    /// Tag 0.
    pub format_version: Option<u16>,
    /// Tag 1.
    pub vendor_id: Option<u16>,
    /// Tag 2.
    pub product_ids: Option<Vec<u16>>,
    /// Tag 3.
    pub device_type_id: Option<u32>,
    /// Tag 4.
    pub certificate_id: Option<String>,
    /// Tag 5.
    pub security_level: Option<u8>,
    /// Tag 6.
    pub security_information: Option<u16>,
    /// Tag 7.
    pub version_number: Option<u16>,
    /// Tag 8.
    pub certification_type: Option<u8>,
    /// Tag 9.
    pub dac_origin_vendor_id: Option<u16>,
    /// Tag 10.
    pub dac_origin_product_id: Option<u16>,
    /// Tag 11.
    pub authorized_paa_list: Option<Vec<Vec<u8>>>,
}

impl DeclarationSpec {
    /// A correct test declaration (certification type 0) by the CHIP test signer.
    pub fn new(vendor_id: u16, product_id: u16) -> Self {
        Self {
            cms_version: CmsVersion::V3,
            signer_version: CmsVersion::V3,
            digest_algorithm: SHA256,
            signer_digest_algorithm: SHA256,
            signature_algorithm: ECDSA_WITH_SHA256,
            content_type: DATA,
            signer_skid: TEST_SIGNER_SKID.to_vec(),
            signer_key: TEST_SIGNER_KEY,
            format_version: Some(1),
            vendor_id: Some(vendor_id),
            product_ids: Some(vec![product_id]),
            device_type_id: Some(0x0016),
            certificate_id: Some("CSA00000SWC00000-00".to_owned()),
            security_level: Some(0),
            security_information: Some(0),
            version_number: Some(1),
            certification_type: Some(0),
            dac_origin_vendor_id: None,
            dac_origin_product_id: None,
            authorized_paa_list: None,
        }
    }

    /// CertificationElements, TLV (Matter Core 6.3.1).
    pub fn content(&self) -> Vec<u8> {
        tlv(|w| {
            w.start_struct(&TLVTag::Anonymous)?;
            put_u16(w, 0, self.format_version)?;
            put_u16(w, 1, self.vendor_id)?;
            if let Some(ids) = &self.product_ids {
                w.start_array(&TLVTag::Context(2))?;
                ids.iter().try_for_each(|id| w.u16(&TLVTag::Anonymous, *id))?;
                w.end_container()?;
            }
            self.device_type_id.map_or(Ok(()), |id| w.u32(&TLVTag::Context(3), id))?;
            self.certificate_id.as_ref().map_or(Ok(()), |id| w.utf8(&TLVTag::Context(4), id))?;
            self.security_level.map_or(Ok(()), |level| w.u8(&TLVTag::Context(5), level))?;
            put_u16(w, 6, self.security_information)?;
            put_u16(w, 7, self.version_number)?;
            self.certification_type.map_or(Ok(()), |kind| w.u8(&TLVTag::Context(8), kind))?;
            put_u16(w, 9, self.dac_origin_vendor_id)?;
            put_u16(w, 10, self.dac_origin_product_id)?;
            if let Some(list) = &self.authorized_paa_list {
                w.start_array(&TLVTag::Context(11))?;
                list.iter().try_for_each(|skid| w.str(&TLVTag::Anonymous, skid))?;
                w.end_container()?;
            }
            w.end_container()
        })
    }

    /// The declaration as CMS SignedData, DER.
    pub fn sign(&self) -> Vec<u8> {
        let content = self.content();
        let signature: Signature = signing_key(&self.signer_key).sign(&content);
        let algorithm = |oid| AlgorithmIdentifierOwned { oid, parameters: None };
        let signer = SignerInfo {
            version: self.signer_version,
            sid: SignerIdentifier::SubjectKeyIdentifier(SubjectKeyIdentifier(octets(&self.signer_skid))),
            digest_alg: algorithm(self.signer_digest_algorithm),
            signed_attrs: None,
            signature_algorithm: algorithm(self.signature_algorithm),
            signature: octets(signature.to_der().as_bytes()),
            unsigned_attrs: None,
        };
        let signed = SignedData {
            version: self.cms_version,
            digest_algorithms: SetOfVec::try_from(vec![algorithm(self.digest_algorithm)])
                .expect("one element is a set"),
            encap_content_info: EncapsulatedContentInfo {
                econtent_type: self.content_type,
                econtent: Some(Any::encode_from(&octets(&content)).expect("an octet string encodes")),
            },
            certificates: None,
            crls: None,
            signer_infos: SignerInfos(SetOfVec::try_from(vec![signer]).expect("one element is a set")),
        };
        let content = Any::encode_from(&signed).expect("a declaration encodes");
        ContentInfo { content_type: SIGNED_DATA, content }.to_der().expect("a declaration encodes")
    }
}

fn put_u16(w: &mut impl TLVWrite, tag: u8, value: Option<u16>) -> Result<(), rs_matter::error::Error> {
    value.map_or(Ok(()), |value| w.u16(&TLVTag::Context(tag), value))
}

fn octets(bytes: &[u8]) -> OctetString {
    OctetString::new(bytes).expect("test values are short")
}
