//! The cryptography of the email sign-in (cloud-contract 2.1), with its published test vectors. Pure.
//!
//! Not here: sending it (`session`). The algorithms are the vendor's choice; TLS is what protects the password.

#[cfg(any(feature = "sim", test))]
use aes::cipher::BlockModeDecrypt;
use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockModeEncrypt, KeyIvInit};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest as _, Md5};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::plain;

/// AES block length.
const BLOCK: usize = 16;
/// Letters and digits of `random`, 16 by convention.
const RANDOM_LEN: usize = 16;

/// A fresh `random`: 16 letters and digits.
pub(crate) fn fresh_random() -> String {
    use rand::distr::{Alphanumeric, SampleString as _};
    Alphanumeric.sample_string(&mut rand::rng(), RANDOM_LEN)
}

/// Key and IV that follow from `random`: characters 8..24 of the upper-case hex MD5, and its halves exchanged.
pub(crate) fn key_and_iv(random: &str) -> ([u8; BLOCK], [u8; BLOCK]) {
    let hex = plain::upper_hex(&Md5::digest(random.as_bytes()));
    let mut key = [0; BLOCK];
    key.copy_from_slice(&hex.as_bytes()[8..24]);
    let mut iv = [0; BLOCK];
    iv[..8].copy_from_slice(&key[8..]);
    iv[8..].copy_from_slice(&key[..8]);
    (key, iv)
}

/// The `pwd` parameter: AES-128-CBC, PKCS#7, standard Base64.
pub fn encrypt_password(password: &str, random: &str) -> String {
    let (key, iv) = key_and_iv(random);
    let mut buffer = Zeroizing::new(vec![0; (password.len() / BLOCK + 1) * BLOCK]);
    buffer[..password.len()].copy_from_slice(password.as_bytes());
    let cipher = cbc::Encryptor::<aes::Aes128>::new(&key.into(), &iv.into());
    let encrypted =
        cipher.encrypt_padded::<Pkcs7>(&mut buffer, password.len()).expect("the buffer has room for the padding");
    STANDARD.encode(encrypted)
}

/// The inverse of [`encrypt_password`], as the service does it; `None` for anything that is not such a text.
#[cfg(any(feature = "sim", test))]
pub(crate) fn decrypt_password(pwd: &str, random: &str) -> Option<Zeroizing<String>> {
    let (key, iv) = key_and_iv(random);
    let mut buffer = Zeroizing::new(STANDARD.decode(pwd).ok()?);
    let cipher = cbc::Decryptor::<aes::Aes128>::new(&key.into(), &iv.into());
    let plain = cipher.decrypt_padded::<Pkcs7>(&mut buffer).ok()?;
    String::from_utf8(plain.to_vec()).ok().map(Zeroizing::new)
}

/// SHA-256 over the plain concatenation, as lower-case hex: for an email sign-in `[email, pwd, random, secret]`.
pub fn signature(parts: &[&str]) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part.as_bytes());
    }
    plain::lower_hex(&digest.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The documentation's dummy secret.
    const SECRET: &str = "57Fk69oYgbs2aWWN362NtZwYB2RqKNqQ7yZESnF5VM22";

    #[test]
    fn the_password_vector() {
        let (key, iv) = key_and_iv("j1acpdj2bmtqZXVb");
        assert_eq!(&key, b"89A049614445CCA8");
        assert_eq!(&iv, b"4445CCA889A04961");
        assert_eq!(encrypt_password("china1234", "j1acpdj2bmtqZXVb"), "lkZMvj0KDSJXlp66jBieHA==");
        assert_eq!(*decrypt_password("lkZMvj0KDSJXlp66jBieHA==", "j1acpdj2bmtqZXVb").unwrap(), "china1234");
    }

    #[test]
    fn the_phone_vector_and_its_six_character_random() {
        assert_eq!(
            signature(&["86", "17132136550", "KbbO5AsWloh9gulLei6NhQ==", "abcdef", SECRET]),
            "1fd91ebf096be51dae1c6055bc930bd8e24b1f477d2a47ae87eedb0f73057bf0"
        );
        assert_eq!(*decrypt_password("KbbO5AsWloh9gulLei6NhQ==", "abcdef").unwrap(), "abcd1234");
    }

    #[test]
    fn the_email_vector() {
        assert_eq!(
            signature(&["hub@example.com", "lkZMvj0KDSJXlp66jBieHA==", "j1acpdj2bmtqZXVb", SECRET]),
            "7afd4cc6792905f239945f69eb6ea0726aa3c5313d0770d230192d1e712dd4a5"
        );
    }

    #[test]
    fn nothing_signed_is_the_digest_that_the_documentation_prints_by_mistake() {
        assert!(signature(&[]).starts_with("e3b0c442") && signature(&[]).ends_with("b855"));
    }

    #[test]
    fn every_length_round_trips_and_garbage_does_not_panic() {
        for length in 0..40 {
            let password: String = "päss word".chars().cycle().take(length).collect();
            let random = fresh_random();
            assert_eq!(*decrypt_password(&encrypt_password(&password, &random), &random).unwrap(), password);
        }
        for garbage in ["", "=", "AAAA", "not base64", "AAAAAAAAAAAAAAAAAAAAAA=="] {
            assert_eq!(decrypt_password(garbage, "r"), None);
        }
        assert_ne!(fresh_random(), fresh_random());
    }
}
