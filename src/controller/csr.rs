//! The request of a controller for a certificate: PKCS#10 (RFC 2986) for a key on P-256, signed by that key.
//!
//! Anybody on the network may send one, so nothing is believed: it must be one canonical DER document or one PEM block, as
//! short as such a request is. What stands in it beside the key (subject, attributes) is of no consequence: a node operational
//! certificate says what the fabric says (Matter Core 6.5.6). Not here: whether the key is somebody's already (`hub::controllers`).

use der::asn1::{Any, BitString};
use der::oid::ObjectIdentifier;
use der::{Decode, DecodePem, Encode};
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{DerSignature, SigningKey};
use sha2::{Digest, Sha256};
use x509_cert::name::Name;
use x509_cert::request::{CertReq, CertReqInfo, Version};
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

use crate::attestation::signature::PublicKey;

/// A request takes about 230 bytes in DER; subjects and attributes that tools add make it longer.
pub(crate) const CSR_MAX: usize = 4096;
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
pub(crate) const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CsrRefused {
    /// Longer than any honest one.
    #[error("the certificate request has {0} bytes, and {CSR_MAX} are the most")]
    TooLong(usize),
    /// Neither canonical DER nor PEM of a PKCS#10 request.
    #[error("this is no PKCS#10 certificate request, in DER or PEM")]
    Malformed,
    /// Another kind of key.
    #[error("the certificate request is for a key that is not on the curve P-256")]
    Curve,
    /// Signed in another way.
    #[error("the certificate request is not signed with ECDSA and SHA-256")]
    Algorithm,
    /// Signed by another key, or changed since.
    #[error("the certificate request is not signed by its own key")]
    Signature,
}

impl CsrRefused {
    pub fn code(self) -> &'static str {
        match self {
            Self::TooLong(_) => "csr-too-long",
            Self::Malformed => "csr-malformed",
            Self::Curve => "csr-wrong-curve",
            Self::Algorithm => "csr-wrong-algorithm",
            Self::Signature => "csr-wrong-signature",
        }
    }
}

/// A request that was found good: whoever sent it has the private key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedCsr {
    der: Vec<u8>,
    key: [u8; 65],
}

impl CheckedCsr {
    /// Judges a request in DER or PEM.
    ///
    /// # Errors
    /// See [`CsrRefused`].
    pub fn check(request: &[u8]) -> Result<Self, CsrRefused> {
        if request.len() > CSR_MAX {
            return Err(CsrRefused::TooLong(request.len()));
        }
        let parsed = if request.trim_ascii_start().starts_with(b"-----BEGIN ") {
            CertReq::from_pem(request.trim_ascii()).map_err(|_| CsrRefused::Malformed)?
        } else {
            let parsed = CertReq::from_der(request).map_err(|_| CsrRefused::Malformed)?;
            // What is signed is what was read, byte for byte: one document has one meaning.
            if parsed.to_der().ok().as_deref() != Some(request) {
                return Err(CsrRefused::Malformed);
            }
            parsed
        };
        let key = &parsed.info.public_key;
        let curve = key.algorithm.parameters.as_ref().and_then(|it| it.decode_as::<ObjectIdentifier>().ok());
        if key.algorithm.oid != EC_PUBLIC_KEY || curve != Some(P256) {
            return Err(CsrRefused::Curve);
        }
        let point = key.subject_public_key.as_bytes().ok_or(CsrRefused::Malformed)?;
        let public = PublicKey::from_sec1(point).ok_or(CsrRefused::Curve)?;
        if parsed.algorithm.oid != ECDSA_WITH_SHA256 {
            return Err(CsrRefused::Algorithm);
        }
        let signed = parsed.info.to_der().map_err(|_| CsrRefused::Malformed)?;
        let signature = parsed.signature.as_bytes().ok_or(CsrRefused::Malformed)?;
        if !public.verifies_der(&signed, signature) {
            return Err(CsrRefused::Signature);
        }
        let der = parsed.to_der().map_err(|_| CsrRefused::Malformed)?;
        Ok(Self { der, key: point.try_into().map_err(|_| CsrRefused::Malformed)? })
    }

    /// The request, DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The public key, an uncompressed point.
    pub fn public_key(&self) -> &[u8; 65] {
        &self.key
    }

    /// What tells the key apart: [`fingerprint`] of it.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.key)
    }
}

/// A request for a key of one's own, for tools that cannot make one.
pub fn request(key: &SigningKey) -> der::Result<CertReq> {
    let info = CertReqInfo {
        version: Version::V1,
        subject: Name::default(),
        public_key: public_key(key)?,
        attributes: Default::default(),
    };
    let signature: DerSignature = key.sign(&info.to_der()?);
    let algorithm = AlgorithmIdentifierOwned { oid: ECDSA_WITH_SHA256, parameters: None };
    Ok(CertReq { info, algorithm, signature: BitString::from_bytes(signature.as_bytes())? })
}

/// The public half of a key as certificates hold it.
pub(crate) fn public_key(key: &SigningKey) -> der::Result<SubjectPublicKeyInfoOwned> {
    let algorithm = AlgorithmIdentifierOwned { oid: EC_PUBLIC_KEY, parameters: Some(Any::encode_from(&P256)?) };
    let point = key.verifying_key().to_sec1_point(false);
    Ok(SubjectPublicKeyInfoOwned { algorithm, subject_public_key: BitString::from_bytes(point.as_bytes())? })
}

/// SHA-256 of a public key, hex.
pub(crate) fn fingerprint(public_key: &[u8]) -> String {
    crate::plain::lower_hex(&Sha256::digest(public_key))
}

#[cfg(test)]
mod tests;
