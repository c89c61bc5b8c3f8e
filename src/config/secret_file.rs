//! Reads what the `…_file` keys name: a path, or the bare name of a systemd credential.
//!
//! Not here: which keys there are (`config`), sealing of the fabric's own keys (`store`).

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use zeroize::Zeroizing;

use crate::secret::OperatorSecret;

/// Longer files are not what was meant: a password, a token, a domain secret.
const MAX_BYTES: usize = 16 * 1024;
/// How long a pipe may say nothing.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a secret could not be had. The path is named, the content never.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// Where it was looked for.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    #[error("{} is empty", path.display())]
    Empty { path: PathBuf },
    /// More than 16 KiB, or not text.
    #[error("{} is no secret: more than 16 KiB, or not UTF-8", path.display())]
    NotText { path: PathBuf },
}

/// Where a `…_file` value points: a bare name is looked up in `credentials` (systemd's `$CREDENTIALS_DIRECTORY`) first.
pub(crate) fn resolve(value: &Path, credentials: Option<&OsStr>) -> PathBuf {
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
pub(crate) fn read(value: &Path) -> Result<OperatorSecret, SecretFileError> {
    read_from(value, std::env::var_os("CREDENTIALS_DIRECTORY").as_deref())
}

/// [`read`] with the credentials directory given.
pub(crate) fn read_from(value: &Path, credentials: Option<&OsStr>) -> Result<OperatorSecret, SecretFileError> {
    let path = resolve(value, credentials);
    let unreadable = |source| SecretFileError::Unreadable { path: path.clone(), source };
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_BYTES + 1));
    read_bounded(&path, &mut bytes).map_err(unreadable)?;
    if bytes.len() > MAX_BYTES {
        return Err(SecretFileError::NotText { path });
    }
    match std::str::from_utf8(&bytes).map(|text| OperatorSecret::new(text.trim_end_matches(['\r', '\n']))) {
        Ok(secret) if secret.expose().is_empty() => Err(SecretFileError::Empty { path }),
        Ok(secret) => Ok(secret),
        Err(_) => Err(SecretFileError::NotText { path }),
    }
}

/// At most one byte too many, and never for ever: a device such as `/dev/zero` has no end, a pipe may have nobody at its other
/// end. `<(pass show hub)` is a pipe, and somebody may have to type something first.
fn read_bounded(path: &Path, bytes: &mut Vec<u8>) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let kind = file.metadata()?.file_type();
    if !kind.is_file() && !kind.is_fifo() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    let give_up = Instant::now() + PATIENCE;
    let mut rest = (&mut file).take(MAX_BYTES as u64 + 1);
    loop {
        match rest.read_to_end(bytes) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        let left = give_up.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut ready = [PollFd::new(rest.get_ref(), PollFlags::IN)];
        if poll(&mut ready, Some(&left))? == 0 {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "nobody writes into it"));
        }
    }
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

    #[test]
    fn a_file_without_end_and_a_pipe_without_writer_end_quickly() {
        assert!(matches!(read_from(Path::new("/dev/zero"), None), Err(SecretFileError::Unreadable { .. })));
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(read_from(directory.path(), None), Err(SecretFileError::Unreadable { .. })));
        let fifo = directory.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, 0o600.into()).unwrap();
        assert!(matches!(read_from(&fifo, None), Err(SecretFileError::Empty { .. })));
        // One with somebody at the other end is what a shell's `<(…)` makes.
        let mut other = std::fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
        let writer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            std::io::Write::write_all(&mut other, b"from a pipe\n").unwrap();
        });
        assert_eq!(read_from(&fifo, None).unwrap().expose(), "from a pipe");
        writer.join().unwrap();
    }
}
