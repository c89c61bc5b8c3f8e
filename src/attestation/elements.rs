//! AttestationElements: what the DAC's key signs for this one session (Matter Core 11.18.4.7).

use rs_matter::tlv::TLVElement;

use super::certificate::AttestationCertificate;
use super::finding::{Code, Findings, hex};

/// The longest AttestationElements of any device, RESP_MAX (Matter Core 11.18.3), in bytes.
pub(crate) const ELEMENTS_SIZE_MAX: usize = 900;

/// The parts of AttestationElements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Elements<'a> {
    /// Certification declaration, CMS in DER.
    pub certification_declaration: &'a [u8],
    /// The nonce that the device answers to.
    pub nonce: &'a [u8],
    /// Seconds since 2000, 0 where the device has no clock.
    pub timestamp: u32,
    /// Opaque to all but the DCL.
    pub firmware_information: Option<&'a [u8]>,
}

/// Reads AttestationElements; `None` where they cannot be read, and a finding says so.
pub(crate) fn parse<'a>(tlv: &'a [u8], findings: &mut Findings) -> Option<Elements<'a>> {
    if tlv.len() > ELEMENTS_SIZE_MAX {
        let values = [("bytes", tlv.len().to_string()), ("limit", ELEMENTS_SIZE_MAX.to_string())];
        findings.add(Code::ElementsTooLarge, "the attestation elements are too long", values);
        return None;
    }
    let elements = match read(tlv) {
        Ok(elements) => elements,
        Err(field) => {
            let message = "the attestation elements lack a field or have it wrong";
            findings.add(Code::ElementsMalformed, message, [("field", field.to_owned())]);
            return None;
        }
    };
    if let Some(firmware) = elements.firmware_information {
        let message = "the device told its firmware information, which is not checked: that needs the DCL";
        findings.add(Code::FirmwareInformation, message, [("firmware_information", hex(firmware))]);
    }
    Some(elements)
}

fn read(tlv: &[u8]) -> Result<Elements<'_>, &'static str> {
    let fields = TLVElement::new(tlv).structure().map_err(|_| "structure")?;
    let octets = |tag, name| fields.ctx(tag).and_then(|element| element.str()).map_err(|_| name);
    let firmware = fields.find_ctx(4).map_err(|_| "firmware_information")?;
    Ok(Elements {
        certification_declaration: octets(1, "certification_declaration")?,
        nonce: octets(2, "attestation_nonce")?,
        timestamp: fields.ctx(3).and_then(|element| element.u32()).map_err(|_| "timestamp")?,
        firmware_information: firmware
            .non_empty()
            .map(|it| it.str().map_err(|_| "firmware_information"))
            .transpose()?,
    })
}

/// The nonce must be the one that we sent, or these elements were made for somebody else.
pub(crate) fn check_nonce(elements: &Elements<'_>, nonce: &[u8; 32], findings: &mut Findings) {
    if elements.nonce != nonce {
        let values = [("sent", hex(nonce)), ("answered", hex(elements.nonce))];
        findings.add(Code::NonceMismatch, "the device answered to another nonce than ours: a replay", values);
    }
}

/// "The attestation_signature shall verify with the DAC's key over attestation_tbs" (6.2.3.1).
pub(crate) fn check_signature(
    dac: &AttestationCertificate,
    tlv: &[u8],
    challenge: &[u8; 16],
    signature: &[u8],
    findings: &mut Findings,
) {
    if !is_signed(dac, tlv, challenge, signature) {
        let message = "the attestation elements are not signed by the DAC's key for this session";
        findings.add(Code::ElementsSignature, message, [("signature_bytes", signature.len().to_string())]);
    }
}

/// Whether the DAC's key made the raw `signature` over `tlv` followed by `challenge`.
pub(super) fn is_signed(dac: &AttestationCertificate, tlv: &[u8], challenge: &[u8; 16], signature: &[u8]) -> bool {
    dac.verifies(&[tlv, challenge].concat(), signature)
}
