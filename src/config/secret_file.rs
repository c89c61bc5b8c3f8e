//! Reads what the `…_file` keys name: a path, or the bare name of a systemd credential.
//!
//! Not here: which keys there are (`config`), sealing of the fabric's own keys (`store`).

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use zeroize::Zeroize;

use crate::secret::OperatorSecret;

/// Longer files are not what was meant: a password, a token, a domain secret.
const MAX_BYTES: u64 = 16 * 1024;

/// Why a secret could not be had. The path is named, the content never.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// Where it was looked for.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Nothing in it.
    #[error("{} is empty", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// More than 16 KiB, or not text.
    #[error("{} is no secret: more than 16 KiB, or not UTF-8", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
}

/// Where a `…_file` value points: a bare name is looked up in `credentials` (systemd's `$CREDENTIALS_DIRECTORY`) first.
pub fn resolve(value: &Path, credentials: Option<&OsStr>) -> PathBuf {
    let bare = value.components().count() == 1 && value.is_relative();
    match credentials {
        Some(directory) if bare && Path::new(directory).join(value).exists() => Path::new(directory).join(value),
        _ => value.to_owned(),
    }
}

/// Reads a secret; line ends at its end are not part of it, everything else is.
///
/// # Errors
/// The file is missing, unreadable, empty, too long or not text.
pub fn read(value: &Path) -> Result<OperatorSecret, SecretFileError> {
    read_from(value, std::env::var_os("CREDENTIALS_DIRECTORY").as_deref())
}

/// [`read`] with the credentials directory given.
///
/// # Errors
/// As [`read`].
pub fn read_from(value: &Path, credentials: Option<&OsStr>) -> Result<OperatorSecret, SecretFileError> {
    let path = resolve(value, credentials);
    let unreadable = |source| SecretFileError::Unreadable { path: path.clone(), source };
    if std::fs::metadata(&path).map_err(unreadable)?.len() > MAX_BYTES {
        return Err(SecretFileError::NotText { path });
    }
    let mut bytes = std::fs::read(&path).map_err(unreadable)?;
    let secret = std::str::from_utf8(&bytes).map(|text| OperatorSecret::new(text.trim_end_matches(['\r', '\n'])));
    let answer = match secret {
        Ok(secret) if secret.expose().is_empty() => Err(SecretFileError::Empty { path }),
        Ok(secret) => Ok(secret),
        Err(_) => Err(SecretFileError::NotText { path }),
    };
    bytes.zeroize();
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_is_a_credential_first() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("cloud-password"), "from systemd\n").unwrap();
        let secret = read_from(Path::new("cloud-password"), Some(directory.path().as_os_str())).unwrap();
        assert_eq!(secret.expose(), "from systemd");
        assert!(matches!(
            read_from(Path::new("./cloud-password"), Some(directory.path().as_os_str())),
            Err(SecretFileError::Unreadable { .. })
        ));
    }

    #[test]
    fn only_line_ends_are_dropped_and_what_is_no_secret_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        let read = |content: &[u8]| {
            std::fs::write(&path, content).unwrap();
            read_from(&path, None)
        };
        assert_eq!(read(b" pass word \r\n").unwrap().expose(), " pass word ");
        assert!(matches!(read(b"\n"), Err(SecretFileError::Empty { .. })));
        assert!(matches!(read(&[0xFF; 4]), Err(SecretFileError::NotText { .. })));
        assert!(matches!(read(&[b'a'; 17 * 1024]), Err(SecretFileError::NotText { .. })));
        assert!(matches!(read_from(&path.with_extension("none"), None), Err(SecretFileError::Unreadable { .. })));
    }
}
