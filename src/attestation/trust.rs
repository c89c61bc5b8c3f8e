//! Whom we trust: PAAs, signers of certification declarations, and what was revoked. Data only; `paa` fills it from files.

use std::collections::HashMap;
use std::sync::Arc;

use rs_matter::attest::cd_keys;

use super::certificate::{AttestationCertificate, KeyId, Role, parse};
use super::finding::{Finding, Findings, Severity};
use super::revocation::{RevocationFormatError, RevocationSets};
use super::signature::PublicKey;

/// Subject key identifiers of the public CHIP test PAAs (connectedhomeip, `credentials/development/paa-root-certs`): for
/// vendor 0xFFF1 and without vendor id.
pub(crate) const TEST_PAA_SKIDS: [KeyId; 2] = [
    [
        0x6a, 0xfd, 0x22, 0x77, 0x1f, 0x51, 0x1f, 0xec, 0xbf, 0x16, 0x41, 0x97, 0x67, 0x10, 0xdc, 0xdc, 0x31, 0xa1,
        0x71, 0x7e,
    ],
    [
        0x78, 0x5c, 0xe7, 0x05, 0xb8, 0x6b, 0x8f, 0x4e, 0x6f, 0xc7, 0x93, 0xaa, 0x60, 0xcb, 0x43, 0xea, 0x69, 0x68,
        0x82, 0xd5,
    ],
];

/// The longest PAA certificate that is read, in bytes: generous, since a PAA is not sent by devices.
pub(crate) const PAA_SIZE_MAX: usize = 4096;

/// Why a certificate is not taken as a PAA.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PaaRejected {
    /// It is longer than [`PAA_SIZE_MAX`].
    #[error("{size} bytes are too many for a certificate")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
    },
    /// It is not what Matter Core 6.2.2.5 asks of a PAA.
    #[error("it is no PAA: {}", .findings.iter().map(|finding| finding.message.as_str()).collect::<Vec<_>>().join("; "))]
    Unfit { findings: Vec<Finding> },
    /// It is not signed by itself.
    #[error("it is not a root: its signature is not its own")]
    NotSelfSigned,
}

/// Trusted PAAs, trusted signers, and revocations.
#[derive(Debug, Clone, Default)]
pub struct TrustStore {
    paas: HashMap<KeyId, Vec<Arc<AttestationCertificate>>>,
    signers: HashMap<KeyId, PublicKey>,
    revocations: RevocationSets,
}

/// A key that may sign certification declarations.
#[derive(Debug, Clone)]
pub(super) struct DeclarationSigner {
    pub key: PublicKey,
    pub is_test: bool,
}

impl TrustStore {
    /// Trusts no PAA, and the Alliance's well-known signers of declarations.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts a PAA (DER) after judging it by itself; gives its subject key identifier. The same certificate twice is once.
    pub fn add_paa(&mut self, der: &[u8]) -> Result<KeyId, PaaRejected> {
        if der.len() > PAA_SIZE_MAX {
            return Err(PaaRejected::TooLarge { size: der.len() });
        }
        let mut findings = Findings::default();
        let certificate = parse(der, Role::Paa, &mut findings);
        let findings: Vec<_> =
            findings.into_vec().into_iter().filter(|finding| finding.severity == Severity::Error).collect();
        let (Some(certificate), true) = (certificate, findings.is_empty()) else {
            return Err(PaaRejected::Unfit { findings });
        };
        if !certificate.is_signed_by(&certificate) || !certificate.is_named_by(&certificate) {
            return Err(PaaRejected::NotSelfSigned);
        }
        let Some(skid) = certificate.skid else { return Err(PaaRejected::Unfit { findings: Vec::new() }) };
        let same_key = self.paas.entry(skid).or_default();
        if !same_key.iter().any(|known| known.serial == certificate.serial && known.issuer == certificate.issuer) {
            same_key.push(Arc::new(certificate));
        }
        Ok(skid)
    }

    /// Trusts a further signer of certification declarations: a SEC1 point on P-256. False where it is no such point.
    pub fn add_declaration_signer(&mut self, skid: KeyId, public_key: &[u8]) -> bool {
        let key = PublicKey::from_sec1(public_key);
        key.is_some_and(|key| {
            self.signers.insert(skid, key);
            true
        })
    }

    /// Adds revocation sets in the DCL's format, a JSON array; gives how many it held.
    pub fn add_revocations(&mut self, json: &[u8]) -> Result<usize, RevocationFormatError> {
        self.revocations.add(json)
    }

    /// How many PAAs are trusted.
    pub fn paa_count(&self) -> usize {
        self.paas.values().map(Vec::len).sum()
    }

    /// How many revocation sets are known.
    pub fn revocation_count(&self) -> usize {
        self.revocations.len()
    }

    /// Whether a PAA is one of the public test PAAs.
    pub fn is_test_paa(&self, paa: &AttestationCertificate) -> bool {
        paa.skid.is_some_and(|skid| TEST_PAA_SKIDS.contains(&skid))
    }

    pub(super) fn paas(&self, skid: &KeyId) -> &[Arc<AttestationCertificate>] {
        self.paas.get(skid).map_or(&[], Vec::as_slice)
    }

    pub(super) fn revocations(&self) -> &RevocationSets {
        &self.revocations
    }

    pub(super) fn declaration_signer(&self, skid: &[u8]) -> Option<DeclarationSigner> {
        let own = <KeyId>::try_from(skid).ok().and_then(|skid| self.signers.get(&skid).copied());
        if let Some(key) = own {
            return Some(DeclarationSigner { key, is_test: false });
        }
        let key = PublicKey::from_sec1(cd_keys::lookup_cd_signing_key(skid)?)?;
        Some(DeclarationSigner { key, is_test: cd_keys::is_test_cd_key(skid) })
    }
}
