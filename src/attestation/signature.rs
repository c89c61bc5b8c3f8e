//! ECDSA on P-256 with SHA-256, the one signature scheme of attestation (Matter Core 3.5.3), for verification only.
//!
//! By *ring*, which the TLS stack brings along anyway: four signatures are most of the time of a verification, and it is
//! several times faster at them than `p256`. Points are still decoded by `p256`, which refuses what is not on the curve.

use ring::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

/// A public key that is a point on P-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PublicKey([u8; 65]);

impl PublicKey {
    /// From an uncompressed SEC1 point, the only form that Matter's certificates have; `None` where it is not on the curve.
    pub(crate) fn from_sec1(point: &[u8]) -> Option<Self> {
        let bytes = <[u8; 65]>::try_from(point).ok()?;
        p256::ecdsa::VerifyingKey::from_sec1_bytes(point).ok().map(|_| Self(bytes))
    }

    /// Whether `signature`, an ECDSA-Sig-Value in DER, is this key's over `message`.
    pub(crate) fn verifies_der(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.0).verify(message, signature).is_ok()
    }

    /// Whether `signature`, r and s in 32 bytes each, is this key's over `message`.
    pub(crate) fn verifies_raw(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.0).verify(message, signature).is_ok()
    }
}
