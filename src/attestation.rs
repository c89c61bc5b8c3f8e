//! Device attestation: from what a device shows to typed findings, and from findings to a verdict (Matter Core 6.2, 6.3).
//!
//! [`verify`] is a pure function: evidence and trust in, a [`Report`] out; [`policy::decide`] is the only place that
//! accepts or rejects. The parts (`chain`, `certification_declaration`, `elements`, `revocation`) each judge one thing and
//! never stop at the first fault, so that a report names them all. Input is hostile: every part bounds what it reads and
//! none panics. Not here: files (`paa`), the Distributed Compliance Ledger (`dcl`), the exchange with the device
//! (`commissioning`), a clock (the evidence carries its own time).

pub(crate) mod certificate;
pub(crate) mod certification_declaration;
pub(crate) mod chain;
pub(crate) mod csr;
pub(crate) mod elements;
pub(crate) mod finding;
pub(crate) mod policy;
pub(crate) mod revocation;
pub(crate) mod signature;
#[cfg(test)]
#[cfg(feature = "sim")]
mod tests;
pub(crate) mod trust;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use certification_declaration::DeclarationSummary;
use chain::CertificateSummary;
use finding::{Finding, Findings, Severity};
pub use trust::TrustStore;

/// Everything that a verdict rests on. Kept with the node, so that it can be verified again when a PAA or a revocation
/// becomes known; byte strings are base64 in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Device Attestation Certificate, DER.
    #[serde(with = "base64_bytes")]
    pub dac: Vec<u8>,
    /// Product Attestation Intermediate certificate, DER.
    #[serde(with = "base64_bytes")]
    pub pai: Vec<u8>,
    /// AttestationElements, TLV as signed (Matter Core 11.18.4.7).
    #[serde(with = "base64_bytes")]
    pub attestation_elements: Vec<u8>,
    /// The DAC's raw signature over elements and challenge, 64 bytes when well-formed.
    #[serde(with = "base64_bytes")]
    pub signature: Vec<u8>,
    /// The PASE session's attestation challenge (Matter Core 4.14.1.2).
    #[serde(with = "base64_bytes")]
    pub attestation_challenge: [u8; 16],
    /// The nonce of our AttestationRequest.
    #[serde(with = "base64_bytes")]
    pub nonce: [u8; 32],
    /// VendorID as Basic Information says.
    pub basic_vendor_id: u16,
    /// ProductID as Basic Information says.
    pub basic_product_id: u16,
    /// When it was shown to us; certificates are judged at this time.
    pub at: Timestamp,
}

/// Chain and declaration without the live proof: what files can show.
#[derive(Debug, Clone, Copy)]
pub struct Material<'a> {
    /// Device Attestation Certificate, DER.
    pub dac: &'a [u8],
    /// Product Attestation Intermediate certificate, DER.
    pub pai: &'a [u8],
    /// Certification declaration, CMS in DER.
    pub certification_declaration: &'a [u8],
    /// The vendor id that the device claims.
    pub vendor_id: u16,
    /// The product id that the device claims.
    pub product_id: u16,
    /// The time at which the certificates have to be valid.
    pub at: Timestamp,
}

/// What was found, and of whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The vendor id that the device claims.
    pub vendor_id: u16,
    /// The product id that the device claims.
    pub product_id: u16,
    /// All findings, in the order of the checks.
    pub findings: Vec<Finding>,
    /// The DAC, where it could be read.
    pub dac: Option<CertificateSummary>,
    /// The PAI, where it could be read.
    pub pai: Option<CertificateSummary>,
    /// The trusted PAA, where one issued the PAI.
    pub paa: Option<CertificateSummary>,
    /// The declaration, where it could be read.
    pub declaration: Option<DeclarationSummary>,
}

impl Report {
    /// Findings of this severity.
    pub fn of(&self, severity: Severity) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(move |finding| finding.severity == severity)
    }
}

/// Judges everything that the Device Attestation Procedure names (Matter Core 6.2.3.1).
pub fn verify(evidence: &Evidence, trust: &TrustStore) -> Report {
    let mut findings = Findings::default();
    let elements = elements::parse(&evidence.attestation_elements, &mut findings);
    if let Some(elements) = &elements {
        elements::check_nonce(elements, &evidence.nonce, &mut findings);
    }
    let material = Material {
        dac: &evidence.dac,
        pai: &evidence.pai,
        certification_declaration: elements.as_ref().map_or(&[], |elements| elements.certification_declaration),
        vendor_id: evidence.basic_vendor_id,
        product_id: evidence.basic_product_id,
        at: evidence.at,
    };
    judge(&material, trust, findings, |dac, findings| {
        elements::check_signature(
            dac,
            &evidence.attestation_elements,
            &evidence.attestation_challenge,
            &evidence.signature,
            findings,
        );
    })
}

/// Judges chain, revocation and declaration; nothing says that whoever shows them holds the DAC's key.
pub fn verify_material(material: &Material<'_>, trust: &TrustStore) -> Report {
    judge(material, trust, Findings::default(), |_, _| {})
}

fn judge(
    material: &Material<'_>,
    trust: &TrustStore,
    mut findings: Findings,
    prove: impl FnOnce(&certificate::AttestationCertificate, &mut Findings),
) -> Report {
    let chain = chain::check(material.dac, material.pai, material.at, trust, &mut findings);
    if let Some(dac) = &chain.dac {
        prove(dac, &mut findings);
    }
    revocation::check(&chain, trust, &mut findings);
    let declaration = certification_declaration::parse(material.certification_declaration, trust, &mut findings);
    if let Some(declaration) = &declaration {
        let device = certification_declaration::Device::new(material, &chain);
        certification_declaration::check(declaration, &device, &mut findings);
    }
    Report {
        vendor_id: material.vendor_id,
        product_id: material.product_id,
        findings: findings.into_vec(),
        dac: chain.dac.as_ref().map(CertificateSummary::from),
        pai: chain.pai.as_ref().map(CertificateSummary::from),
        paa: chain.paa.as_ref().map(|paa| CertificateSummary::from(&**paa)),
        declaration: declaration.as_ref().map(DeclarationSummary::from),
    }
}

/// Byte strings as base64 text.
mod base64_bytes {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(bytes: &impl AsRef<[u8]>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(crate) fn deserialize<'de, T: TryFrom<Vec<u8>>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        let bytes = STANDARD.decode(String::deserialize(deserializer)?).map_err(Error::custom)?;
        let length = bytes.len();
        T::try_from(bytes).map_err(|_| Error::custom(format!("{length} bytes are not the right number")))
    }
}
