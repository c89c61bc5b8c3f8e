//! The answer to CSRRequest: is this certificate request from the device that was just attested (Matter Core 6.2.3.2)?
//!
//! Not here: the request's own signature, which whoever issues the NOC checks.

use rs_matter::tlv::TLVElement;

use super::certificate::{Role, parse};
use super::elements::is_signed;
use super::finding::{Finding, Findings, hex};

/// The longest NOCSRElements of any device, RESP_MAX (Matter Core 11.18.3), in bytes.
pub(crate) const NOCSR_SIZE_MAX: usize = 900;

/// Why a CSR is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsrRejected {
    /// NOCSRElements are longer than any device may send.
    #[error("NOCSRElements of {size} bytes are too long")]
    TooLarge {
        /// Their size in bytes.
        size: usize,
    },
    /// The DAC cannot be read.
    #[error("the DAC is not usable: {}", .findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Dac { findings: Vec<Finding> },
    /// The elements are not signed by the DAC's key for this session.
    #[error("the CSR is not signed by the DAC's key for this session")]
    Signature,
    /// The TLV of Matter Core 11.18.4.9 cannot be read.
    #[error("NOCSRElements lack {field} or have it wrong")]
    Malformed { field: &'static str },
    /// The nonce is not ours.
    #[error("the CSR answers to another nonce: {answered} in place of {sent}")]
    Nonce {
        sent: String,
        /// The device's, hex.
        answered: String,
    },
}

/// Judges NOCSRElements; gives the PKCS#10 request in DER.
pub fn verify_csr(
    dac: &[u8],
    nocsr_elements: &[u8],
    challenge: &[u8; 16],
    nonce: &[u8; 32],
    signature: &[u8],
) -> Result<Vec<u8>, CsrRejected> {
    if nocsr_elements.len() > NOCSR_SIZE_MAX {
        return Err(CsrRejected::TooLarge { size: nocsr_elements.len() });
    }
    let mut findings = Findings::default();
    let Some(dac) = parse(dac, Role::Dac, &mut findings) else {
        return Err(CsrRejected::Dac { findings: findings.into_vec() });
    };
    if !is_signed(&dac, nocsr_elements, challenge, signature) {
        return Err(CsrRejected::Signature);
    }
    let field = |field| move |_| CsrRejected::Malformed { field };
    let fields = TLVElement::new(nocsr_elements).structure().map_err(field("structure"))?;
    let octets = |tag, name| fields.ctx(tag).and_then(|element| element.str()).map_err(field(name));
    let answered = octets(2, "CSRNonce")?;
    if answered != nonce {
        return Err(CsrRejected::Nonce { sent: hex(nonce), answered: hex(answered) });
    }
    Ok(octets(1, "csr")?.to_vec())
}
