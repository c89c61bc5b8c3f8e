//! The attestation evidence that the device shows (Matter Core 6.2): the chain, the key and the declaration as bytes.
//!
//! Any bytes will do, hostile ones included: the device presents them as they are. Not here: judging evidence.

use p256::elliptic_curve::sec1::ToSec1Point as _;
use rs_matter::crypto::{CanonPkcPublicKeyRef, CanonPkcSecretKeyRef, PKC_CANON_PUBLIC_KEY_LEN};
use rs_matter::dm::clusters::dev_att::DeviceAttestation;
use rs_matter::utils::sync::DynBase;

use super::VirtualDeviceError;
use crate::secret::OperationalSigningKey;
use crate::sim::evidence::Evidence;

/// What the device answers to CertificateChainRequest and AttestationRequest.
#[derive(Clone)]
pub struct DeviceEvidence {
    dac: Vec<u8>,
    pai: Vec<u8>,
    certification_declaration: Vec<u8>,
    key: OperationalSigningKey,
    public_key: [u8; PKC_CANON_PUBLIC_KEY_LEN],
}

impl std::fmt::Debug for DeviceEvidence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DeviceEvidence(..)")
    }
}

impl DeviceEvidence {
    /// Evidence from its parts; certificates and declaration in DER, or in PEM, are shown as the DER they hold.
    ///
    /// `dac_key` is 32 raw bytes, SEC1 or PKCS #8, the latter two in DER or PEM.
    ///
    /// # Errors
    /// `DacKey` when it is none of these. The other parts are not looked into.
    pub fn new(
        dac: &[u8],
        dac_key: &[u8],
        pai: &[u8],
        certification_declaration: &[u8],
    ) -> Result<Self, VirtualDeviceError> {
        let secret = parse_key(dac_key).ok_or(VirtualDeviceError::DacKey)?;
        let point = secret.public_key().to_sec1_point(false);
        Ok(Self {
            dac: unwrap_pem(dac),
            pai: unwrap_pem(pai),
            certification_declaration: unwrap_pem(certification_declaration),
            key: OperationalSigningKey::new(<[u8; 32]>::from(secret.to_bytes())),
            public_key: point.as_bytes().try_into().map_err(|_| VirtualDeviceError::DacKey)?,
        })
    }
}

impl TryFrom<&Evidence> for DeviceEvidence {
    type Error = VirtualDeviceError;

    fn try_from(made: &Evidence) -> Result<Self, Self::Error> {
        Self::new(&made.dac, &made.dac_key, &made.pai, &made.certification_declaration)
    }
}

impl DynBase for DeviceEvidence {}

impl DeviceAttestation for DeviceEvidence {
    fn cert_declaration(&self) -> &[u8] {
        &self.certification_declaration
    }

    fn pai(&self) -> &[u8] {
        &self.pai
    }

    fn dac(&self) -> &[u8] {
        &self.dac
    }

    fn dac_pub_key(&self) -> CanonPkcPublicKeyRef<'_> {
        CanonPkcPublicKeyRef::new(&self.public_key)
    }

    fn dac_priv_key(&self) -> CanonPkcSecretKeyRef<'_> {
        CanonPkcSecretKeyRef::new_from_slice(self.key.expose())
    }
}

fn parse_key(bytes: &[u8]) -> Option<p256::SecretKey> {
    use p256::pkcs8::DecodePrivateKey as _;
    if bytes.len() == 32 {
        return p256::SecretKey::from_slice(bytes).ok();
    }
    let der = unwrap_pem(bytes);
    p256::SecretKey::from_sec1_der(&der)
        .or_else(|_| p256::SecretKey::from_pkcs8_der(&der).map_err(|_| p256::elliptic_curve::Error))
        .ok()
}

/// The bytes inside a PEM block, or the bytes as they are.
fn unwrap_pem(bytes: &[u8]) -> Vec<u8> {
    der::pem::decode_vec(bytes).map_or_else(|_| bytes.to_vec(), |(_label, der)| der)
}

#[cfg(test)]
mod tests {
    use p256::pkcs8::{EncodePrivateKey as _, LineEnding};

    use super::*;
    use crate::sim::evidence::generate;

    #[test]
    fn a_key_is_understood_in_every_form() {
        let made = generate(0xFFF2, 0x8005);
        let raw = DeviceEvidence::try_from(&made).unwrap();
        let key = p256::SecretKey::from_slice(&made.dac_key).unwrap();
        let forms = [
            key.to_sec1_der().unwrap().to_vec(),
            key.to_sec1_pem(LineEnding::LF).unwrap().as_bytes().to_vec(),
            key.to_pkcs8_der().unwrap().as_bytes().to_vec(),
            key.to_pkcs8_pem(LineEnding::LF).unwrap().as_bytes().to_vec(),
        ];
        for form in forms {
            let read = DeviceEvidence::new(&made.dac, &form, &made.pai, &made.certification_declaration).unwrap();
            assert_eq!(read.dac_pub_key().access(), raw.dac_pub_key().access());
            assert_eq!(read.dac_priv_key().access(), &made.dac_key);
        }
        let bad = DeviceEvidence::new(&made.dac, &[0; 32], &made.pai, &made.certification_declaration);
        assert!(matches!(bad, Err(VirtualDeviceError::DacKey)));
    }

    #[test]
    fn certificates_are_shown_as_der_and_other_bytes_as_they_are() {
        let made = generate(0xFFF1, 0x8001);
        let pem = der::pem::encode_string("CERTIFICATE", der::pem::LineEnding::LF, &made.dac).unwrap();
        let device = DeviceEvidence::new(pem.as_bytes(), &made.dac_key, b"hostile", b"").unwrap();
        assert_eq!((device.dac(), device.pai(), device.cert_declaration()), (&made.dac[..], &b"hostile"[..], &b""[..]));
    }
}
