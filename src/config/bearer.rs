//! The token of `admin.token_file`: what makes one good enough for a network, and making one.
//!
//! Not here: who shows it (`admin::auth`).

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use super::secret_file::{self, SecretFileError};
use crate::secret::OperatorSecret;

/// How to make one; the end of every refusal.
pub(crate) const HOW: &str =
    "make one with `matterbind admin token | sudo install -m 640 -g matterbind /dev/stdin /etc/matterbind/token`";
/// What somebody who guesses needs to have against them.
const BITS: f64 = 128.0;
/// A random token of 128 bits that has fewer different characters does not come up in a lifetime.
const DIFFERENT: usize = 8;

/// Why a token is refused. The token is never named.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It cannot be read.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// Users of this machine who are not the service may read it.
    #[error("{} has mode {mode:03o}: everybody on this machine may read the token", path.display())]
    Exposed { path: PathBuf, mode: u32 },
    /// An HTTP header cannot carry it.
    #[error("{} holds a token with blanks or characters that a header cannot carry", .0.display())]
    Unsendable(PathBuf),
    #[error("{} holds a token that can be guessed: it has fewer than 128 bits", .0.display())]
    Weak(PathBuf),
}

/// A fresh token of 256 bits.
pub fn make() -> OperatorSecret {
    let bytes = Zeroizing::new(rand::random::<[u8; 32]>());
    OperatorSecret::new(URL_SAFE_NO_PAD.encode(*bytes))
}

/// Reads the token that a `token_file` value names.
///
/// # Errors
/// It is not there, others may read it, or it is no good token.
pub(crate) fn read(value: &Path) -> Result<OperatorSecret, TokenError> {
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY");
    let path = secret_file::resolve(value, credentials.as_deref());
    let token = secret_file::read(value)?;
    if let Ok(found) = std::fs::metadata(&path)
        && found.permissions().mode() & 0o007 != 0
    {
        return Err(TokenError::Exposed { path, mode: found.permissions().mode() & 0o777 });
    }
    if !token.expose().chars().all(|c| c.is_ascii_graphic()) {
        return Err(TokenError::Unsendable(path));
    }
    if is_strong(token.expose()) { Ok(token) } else { Err(TokenError::Weak(path)) }
}

/// At most as many bits as its length and its alphabet allow: what a person typed has fewer, which nobody can measure, but what
/// is too short for them is refused.
fn is_strong(token: &str) -> bool {
    let has = |class: fn(&char) -> bool| token.chars().any(|c| class(&c));
    let hex = token.chars().all(|c| c.is_ascii_hexdigit());
    let alphabet: u32 = if hex {
        if has(char::is_ascii_alphabetic) { 16 } else { 10 }
    } else {
        // Punctuation counts as what base64 uses of it.
        u32::from(has(char::is_ascii_digit)) * 10
            + u32::from(has(char::is_ascii_lowercase)) * 26
            + u32::from(has(char::is_ascii_uppercase)) * 26
            + u32::from(has(char::is_ascii_punctuation)) * 2
    };
    let different: HashSet<char> = token.chars().collect();
    token.len() as f64 * f64::from(alphabet).log2() >= BITS && different.len() >= DIFFERENT
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{Permissions, set_permissions};

    #[test]
    fn what_can_be_guessed_is_refused() {
        for weak in [
            "secret",
            "hub-token-2026",
            "0123456789",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "abababababababababababababababababab",
            "00112233445566778899aabbccddee",
            "12345678901234567890123456789012345678",
        ] {
            assert!(!is_strong(weak), "{weak}");
        }
        for strong in
            ["00112233445566778899aabbccddeeff", "Zm9vYmFyYmF6cXV4MTIzNA", "0193a1b2-7c4d-7000-8e1f-5a6b7c8d9e0f"]
        {
            assert!(is_strong(strong), "{strong}");
        }
        for _ in 0..1000 {
            assert!(is_strong(make().expose()));
        }
    }

    #[test]
    fn a_file_that_everybody_reads_is_no_secret() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, format!("{}\n", make().expose())).unwrap();
        for (mode, good) in [(0o600, true), (0o640, true), (0o644, false), (0o604, false)] {
            set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert_eq!(read(&path).is_ok(), good, "{mode:o}");
        }
        set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        for (text, wanted) in
            [("   \n", "blanks"), ("two words of which nobody knows anything at all", "blanks"), ("x\n", "128")]
        {
            std::fs::write(&path, text).unwrap();
            let error = read(&path).unwrap_err().to_string();
            assert!(error.contains(wanted) && !error.contains("words of"), "{error}");
        }
    }
}
