//! Makes attestation evidence: PAI, DAC, DAC key and certification declaration, right or wrong in one chosen way.
//!
//! By default the chain ends in the CHIP test PAA without vendor id and the declaration is signed with the CHIP test key,
//! so that any hub that trusts that test PAA accepts a virtual device. All keys in here are public test data or derived
//! from public words. Not here: judging evidence (`attestation`), or production keys of any kind.

pub(crate) mod certificate;
pub(crate) mod declaration;

use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use rs_matter::tlv::{TLVTag, TLVWrite};
use rs_matter::utils::storage::WriteBuf;
use sha2::{Digest, Sha256};

pub(crate) use certificate::CertificateSpec;
pub(crate) use declaration::DeclarationSpec;

/// Certificate of the CHIP test PAA without vendor id (connectedhomeip `Chip-Test-PAA-NoVID-Cert.der`).
pub const TEST_PAA_NOVID_CERT: &[u8] = include_bytes!("evidence/Chip-Test-PAA-NoVID-Cert.der");
/// Subject key identifier of that certificate.
pub(crate) const TEST_PAA_NOVID_SKID: [u8; 20] = [
    0x78, 0x5c, 0xe7, 0x05, 0xb8, 0x6b, 0x8f, 0x4e, 0x6f, 0xc7, 0x93, 0xaa, 0x60, 0xcb, 0x43, 0xea, 0x69, 0x68, 0x82,
    0xd5,
];

/// Private key of the CHIP test PAA without vendor id, public test data: connectedhomeip `Chip-Test-PAA-NoVID-Key.pem`,
/// also in @matter/protocol 0.17 as `TestCert_PAA_NoVID_PrivateKey`.
pub(crate) const TEST_PAA_NOVID_KEY: [u8; 32] = [
    0xe1, 0xf0, 0x73, 0xc9, 0x34, 0x85, 0x3b, 0xaf, 0xfb, 0x38, 0xbf, 0x7e, 0x8b, 0xda, 0xd7, 0xa0, 0xa6, 0x74, 0x10,
    0x7c, 0x77, 0x69, 0x89, 0x2a, 0x0f, 0xf2, 0xe0, 0x6c, 0x1a, 0x2e, 0xf7, 0xa7,
];

/// What a device shows to prove that it is genuine, and the key to prove it with.
#[derive(Clone)]
pub struct Evidence {
    /// The root, DER.
    pub paa: Vec<u8>,
    /// Product Attestation Intermediate, DER.
    pub pai: Vec<u8>,
    /// Device Attestation Certificate, DER.
    pub dac: Vec<u8>,
    /// Private key of the DAC: a P-256 scalar.
    pub dac_key: [u8; 32],
    /// Certification declaration, CMS SignedData in DER.
    pub certification_declaration: Vec<u8>,
}

impl Evidence {
    /// AttestationElements (Matter Core 11.18.4.7) around this declaration.
    pub fn attestation_elements(&self, nonce: &[u8], firmware_information: Option<&[u8]>) -> Vec<u8> {
        attestation_elements(&self.certification_declaration, nonce, firmware_information)
    }

    /// The DAC's raw signature over `elements` followed by `challenge` (Matter Core 11.18.4.7), 64 bytes.
    pub fn sign(&self, elements: &[u8], challenge: &[u8]) -> Vec<u8> {
        sign(&self.dac_key, elements, challenge)
    }
}

/// Evidence for a device of this vendor and product that a hub trusting the CHIP test PAA accepts.
pub fn generate(vendor_id: u16, product_id: u16) -> Evidence {
    Builder::new(vendor_id, product_id).build()
}

/// AttestationElements (Matter Core 11.18.4.7) with timestamp 0.
pub fn attestation_elements(declaration: &[u8], nonce: &[u8], firmware_information: Option<&[u8]>) -> Vec<u8> {
    tlv(|w| {
        w.start_struct(&TLVTag::Anonymous)?;
        w.str(&TLVTag::Context(1), declaration)?;
        w.str(&TLVTag::Context(2), nonce)?;
        w.u32(&TLVTag::Context(3), 0)?;
        if let Some(firmware) = firmware_information {
            w.str(&TLVTag::Context(4), firmware)?;
        }
        w.end_container()
    })
}

/// NOCSRElements (Matter Core 11.18.4.9).
pub fn nocsr_elements(csr: &[u8], nonce: &[u8]) -> Vec<u8> {
    tlv(|w| {
        w.start_struct(&TLVTag::Anonymous)?;
        w.str(&TLVTag::Context(1), csr)?;
        w.str(&TLVTag::Context(2), nonce)?;
        w.end_container()
    })
}

/// A raw ECDSA signature by `key` over `elements` followed by `challenge`, 64 bytes.
pub fn sign(key: &[u8; 32], elements: &[u8], challenge: &[u8]) -> Vec<u8> {
    let signature: Signature = signing_key(key).sign(&[elements, challenge].concat());
    signature.to_bytes().to_vec()
}

/// Runs `write` on a buffer that every test structure fits into.
fn tlv(write: impl FnOnce(&mut WriteBuf<'_>) -> Result<(), rs_matter::error::Error>) -> Vec<u8> {
    let mut buffer = vec![0; 8192];
    let mut writer = WriteBuf::new(&mut buffer);
    write(&mut writer).expect("test structures are smaller than the buffer");
    writer.as_slice().to_vec()
}

/// A key from a public word, the same at every call: test evidence is no secret.
pub(crate) fn test_key(word: &str) -> [u8; 32] {
    let mut scalar: [u8; 32] = Sha256::digest(word.as_bytes()).into();
    while SigningKey::from_slice(&scalar).is_err() {
        scalar = Sha256::digest(scalar).into();
    }
    scalar
}

fn signing_key(scalar: &[u8; 32]) -> SigningKey {
    SigningKey::from_slice(scalar).expect("test keys are scalars between 1 and the group order")
}

/// A 20-byte key identifier: the leftmost 160 bits of the SHA-256 of the public key (RFC 7093, method 1).
fn key_identifier(public_key: &[u8]) -> Vec<u8> {
    Sha256::digest(public_key)[..20].to_vec()
}

/// Builds evidence step by step. Each closure sees the correct values and changes what the test wants wrong.
pub struct Builder {
    paa: Paa,
    pai: CertificateSpec,
    dac: CertificateSpec,
    declaration: DeclarationSpec,
}

enum Paa {
    ChipTest,
    Own(Box<CertificateSpec>),
}

impl Builder {
    /// Correct evidence below the CHIP test PAA without vendor id.
    pub fn new(vendor_id: u16, product_id: u16) -> Self {
        let pai_key = test_key(&format!("matterbind test PAI {vendor_id:04X}"));
        let dac_key = test_key(&format!("matterbind test DAC {vendor_id:04X} {product_id:04X}"));
        Self {
            paa: Paa::ChipTest,
            pai: CertificateSpec::pai(vendor_id, pai_key),
            dac: CertificateSpec::dac(vendor_id, product_id, dac_key),
            declaration: DeclarationSpec::new(vendor_id, product_id),
        }
    }

    /// A PAA of the test's own instead of CHIP's; `vendor_id` makes it vendor-scoped.
    pub fn own_paa(self, vendor_id: Option<u16>) -> Self {
        self.own_paa_with(vendor_id, |_| {})
    }

    /// As [`Self::own_paa`], changed.
    pub fn own_paa_with(mut self, vendor_id: Option<u16>, change: impl FnOnce(&mut CertificateSpec)) -> Self {
        let mut paa = CertificateSpec::paa(vendor_id, test_key("matterbind test PAA"));
        change(&mut paa);
        self.paa = Paa::Own(Box::new(paa));
        self
    }

    /// Changes the PAI.
    pub fn pai(mut self, change: impl FnOnce(&mut CertificateSpec)) -> Self {
        change(&mut self.pai);
        self
    }

    /// Changes the DAC.
    pub fn dac(mut self, change: impl FnOnce(&mut CertificateSpec)) -> Self {
        change(&mut self.dac);
        self
    }

    /// Changes the certification declaration.
    pub fn declaration(mut self, change: impl FnOnce(&mut DeclarationSpec)) -> Self {
        change(&mut self.declaration);
        self
    }

    /// Makes and signs the chain and the elements.
    pub fn build(self) -> Evidence {
        let (paa_spec, paa) = match self.paa {
            Paa::ChipTest => (CertificateSpec::chip_test_paa(), TEST_PAA_NOVID_CERT.to_vec()),
            Paa::Own(spec) => {
                let der = spec.sign(&spec);
                (*spec, der)
            }
        };
        Evidence {
            pai: self.pai.sign(&paa_spec),
            dac: self.dac.sign(&self.pai),
            dac_key: self.dac.key,
            certification_declaration: self.declaration.sign(),
            paa,
        }
    }
}

#[cfg(test)]
mod tests {
    use der::Decode;
    use p256::ecdsa::VerifyingKey;

    use super::*;

    #[test]
    fn the_test_paa_s_key_belongs_to_its_certificate() {
        let certificate = x509_cert::Certificate::from_der(TEST_PAA_NOVID_CERT).unwrap();
        let expected = certificate.tbs_certificate().subject_public_key_info().subject_public_key.raw_bytes();
        assert_eq!(certificate::public_key(&TEST_PAA_NOVID_KEY), expected);
    }

    #[test]
    fn certificates_and_declaration_decode() {
        let evidence = generate(0xFFF1, 0x8000);
        let dac = x509_cert::Certificate::from_der(&evidence.dac).unwrap();
        let key = dac.tbs_certificate().subject_public_key_info().subject_public_key.raw_bytes();
        assert!(VerifyingKey::from_sec1_bytes(key).is_ok());
        assert!(x509_cert::Certificate::from_der(&evidence.pai).is_ok());
        assert!(cms::content_info::ContentInfo::from_der(&evidence.certification_declaration).is_ok());
        assert!(
            evidence.dac.len() < 600 && evidence.certification_declaration.len() < 400,
            "DER sizes of Matter Core 6.2"
        );
    }
}
