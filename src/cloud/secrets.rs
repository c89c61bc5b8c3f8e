//! Reads a secret that the configuration names by file.

use std::env;
use std::io;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::secret::OperatorSecret;

/// Why a secret could not be read. Says the path, never the content.
#[derive(Debug, thiserror::Error)]
pub enum ReadSecretError {
    /// The file cannot be read.
    #[error("cannot read the secret {}: {source}", path.display())]
    Unreadable {
        /// Where it was looked for.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There is nothing in it.
    #[error("the secret {} is empty", path.display())]
    Empty {
        /// Where it was looked for.
        path: PathBuf,
    },
}

/// Reads a secret, without the line break at its end. A bare name (no `/`) is a systemd credential where
/// `$CREDENTIALS_DIRECTORY` is set.
///
/// # Errors
/// The file cannot be read, is not UTF-8, or is empty.
pub fn read_secret(path: &Path) -> Result<OperatorSecret, ReadSecretError> {
    let path = resolve(path, env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from));
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => Zeroizing::new(text),
        Err(source) => return Err(ReadSecretError::Unreadable { path, source }),
    };
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() { Err(ReadSecretError::Empty { path }) } else { Ok(OperatorSecret::new(secret)) }
}

fn resolve(path: &Path, credentials: Option<PathBuf>) -> PathBuf {
    match credentials {
        Some(directory) if path.components().count() == 1 && path.is_relative() => directory.join(path),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_is_a_credential_where_there_is_such_a_directory() {
        let directory = || Some(PathBuf::from("/run/credentials/x"));
        assert_eq!(resolve(Path::new("password"), directory()), Path::new("/run/credentials/x/password"));
        assert_eq!(resolve(Path::new("/etc/p"), directory()), Path::new("/etc/p"));
        assert_eq!(resolve(Path::new("./p"), directory()), Path::new("./p"));
        assert_eq!(resolve(Path::new("password"), None), Path::new("password"));
    }

    #[test]
    fn only_the_last_line_break_is_dropped_and_an_empty_file_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("p");
        std::fs::write(&path, " pass word \r\n").unwrap();
        assert_eq!(read_secret(&path).unwrap().expose(), " pass word ");
        std::fs::write(&path, "\n").unwrap();
        assert!(matches!(read_secret(&path), Err(ReadSecretError::Empty { .. })));
        assert!(matches!(read_secret(&directory.path().join("q")), Err(ReadSecretError::Unreadable { .. })));
    }
}
