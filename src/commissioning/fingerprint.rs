//! Recognises a setup code that was used before without keeping it: 16 bits of a keyed hash. With the key, which is the
//! fabric's and never stored beside it, two thousand passcodes still share each value; without it, all do.

use std::fmt;

use ring::hmac;

use crate::onboarding::{Discriminator, OnboardingPayload};

/// The key of this hub's fingerprints.
#[derive(Clone)]
pub(crate) struct FingerprintKey(hmac::Key);

impl fmt::Debug for FingerprintKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FingerprintKey(..)")
    }
}

impl FingerprintKey {
    /// Derived from a secret of the fabric.
    pub(crate) fn new(secret: &[u8]) -> Self {
        let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), b"matterbind setup code fingerprint");
        Self(hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()))
    }

    /// The same for the manual and the QR code of one device: both tell the passcode and the upper four bits of the
    /// discriminator.
    pub(crate) fn fingerprint(&self, payload: &OnboardingPayload) -> u16 {
        let short = match payload.discriminator {
            Discriminator::Long(long) => (long >> 8) as u8,
            Discriminator::Short(short) => short,
        };
        let [a, b, c, d] = payload.passcode.expose().to_be_bytes();
        let tag = hmac::sign(&self.0, &[a, b, c, d, short]);
        u16::from_be_bytes([tag.as_ref()[0], tag.as_ref()[1]])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onboarding::SetupCode;

    #[test]
    fn both_codes_of_a_device_have_one_fingerprint() {
        let key = FingerprintKey::new(&[7; 16]);
        let of = |code: &str| key.fingerprint(&SetupCode::new(code).parse().expect("a code"));
        assert_eq!(of("34970112332"), of("MT:-24J0AFN00KA0648G00"));
        assert_ne!(
            of("34970112332"),
            FingerprintKey::new(&[8; 16]).fingerprint(&SetupCode::new("34970112332").parse().expect("a code"))
        );
    }

    #[test]
    fn the_key_cannot_be_printed() {
        assert_eq!(format!("{:?}", FingerprintKey::new(&[7; 16])), "FingerprintKey(..)");
    }
}
