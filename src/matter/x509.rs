//! A certificate in Matter TLV as the X.509 certificate that was signed (Matter Core 6.5.2), for tools that read PEM.
//!
//! Both forms are one certificate: the signature is over the X.509 form, and TLV only carries it in fewer bytes.

use der::asn1::{AnyRef, BitString, ObjectIdentifier};
use der::pem::LineEnding;
use der::{Decode, Encode, EncodePem, Sequence};
use p256::ecdsa::Signature;
use rs_matter::cert::{CertRef, MAX_CERT_ASN1_LEN};
use rs_matter::tlv::TLVElement;
use x509_cert::Certificate;
use x509_cert::spki::AlgorithmIdentifierOwned;

use super::credentials::CredentialError;

const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
/// The signature's tag in a TLV certificate (Matter Core 6.5.2): r and s in 32 bytes each.
const SIGNATURE: u8 = 11;

#[derive(Sequence)]
struct Signed<'a> {
    tbs: AnyRef<'a>,
    algorithm: AlgorithmIdentifierOwned,
    signature: BitString,
}

/// The certificate as PEM.
///
/// # Errors
/// It is no certificate in Matter TLV.
pub fn to_pem(tlv: &[u8]) -> Result<String, CredentialError> {
    let unusable = |error: &dyn std::fmt::Display| CredentialError::Unusable(error.to_string());
    let mut buffer = [0u8; MAX_CERT_ASN1_LEN];
    let element = TLVElement::new(tlv);
    let length = CertRef::new(element.clone()).as_asn1(&mut buffer).map_err(|error| unusable(&error))?;
    let raw = element.structure().and_then(|fields| fields.ctx(SIGNATURE)?.str()).map_err(|error| unusable(&error))?;
    let signature = Signature::from_slice(raw).map_err(|error| unusable(&error))?.to_der();
    let write = || {
        let signed = Signed {
            tbs: AnyRef::from_der(&buffer[..length])?,
            algorithm: AlgorithmIdentifierOwned { oid: ECDSA_WITH_SHA256, parameters: None },
            signature: BitString::from_bytes(signature.as_bytes())?,
        };
        Certificate::from_der(&signed.to_der()?)?.to_pem(LineEnding::LF)
    };
    write().map_err(|error: der::Error| unusable(&error))
}
