//! Where secrets are written to: a file that was not there, one that a person wants replaced, or stdout.
//!
//! A file is whole and readable by its owner only, or it is not there. Not here: what is in it, and how it is encrypted.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use super::exit::CliError;
use crate::admin::wire::Refusal;
use crate::commissioning::error::Disposition;

/// A place that was looked at before anything was done that cannot be undone.
#[derive(Debug)]
pub(super) enum PrivateFile {
    /// `-`
    Stdout,
    File {
        path: PathBuf,
        /// Whether a file of that name may go.
        replace: bool,
    },
}

impl PrivateFile {
    /// Looks whether it could be written there, and takes nothing away.
    ///
    /// # Errors
    /// There is such a file and it may not be replaced, no file can be made there, or stdout is a terminal.
    pub(super) fn at(path: &Path, replace: bool) -> Result<Self, CliError> {
        if path == Path::new("-") {
            return match io::stdout().is_terminal() {
                true => {
                    Err(CliError::Usage("this holds secrets and is not shown: name a file instead of -".to_owned()))
                }
                false => Ok(Self::Stdout),
            };
        }
        if path.file_name().is_none() || path.is_dir() {
            return Err(CliError::Usage(format!("{} is no file name", path.display())));
        }
        if !replace && path.symlink_metadata().is_ok() {
            return Err(exists(path));
        }
        temporary(path).map_err(|source| unwritable(path, source))?;
        Ok(Self::File { path: path.to_owned(), replace })
    }

    /// Whether the secret goes to stdout, where nothing else may go then.
    pub(super) fn is_stdout(&self) -> bool {
        matches!(self, Self::Stdout)
    }

    /// Writes all of it, durably where the place knows that.
    ///
    /// # Errors
    /// It could not be written, or somebody else has made such a file meanwhile; nothing was replaced then.
    pub(super) fn write(&self, bytes: &[u8]) -> Result<(), CliError> {
        match self {
            Self::Stdout => {
                let mut out = io::stdout().lock();
                let written = out.write_all(bytes).and_then(|()| out.flush()).and_then(|()| settle(&out));
                // A pipe that breaks is no quiet end here: the secret has not arrived.
                written.map_err(|source| CliError::File { what: "writing to stdout".to_owned(), source })
            }
            Self::File { path, replace } => match replaced(path, bytes, *replace) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(exists(path)),
                written => written.map_err(|source| unwritable(path, source)),
            },
        }
    }
}

/// Beside the file: it is moved there at once when it is whole.
fn temporary(path: &Path) -> io::Result<tempfile::NamedTempFile> {
    tempfile::Builder::new().prefix(".matterbind-").tempfile_in(directory(path))
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn replaced(path: &Path, bytes: &[u8], replace: bool) -> io::Result<()> {
    let mut file = temporary(path)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    match replace {
        true => file.persist(path),
        false => file.persist_noclobber(path),
    }
    .map_err(|error| error.error)?;
    std::fs::File::open(directory(path))?.sync_all()
}

/// What stdout was led into may be a file; a pipe and a socket have nothing to settle.
fn settle(out: &io::StdoutLock<'_>) -> io::Result<()> {
    use rustix::io::Errno;
    match rustix::fs::fsync(out) {
        Ok(()) | Err(Errno::INVAL | Errno::ROFS | Errno::NOTSUP) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn unwritable(path: &Path, source: io::Error) -> CliError {
    CliError::File { what: format!("writing {}", path.display()), source }
}

fn exists(path: &Path) -> CliError {
    let message = format!("{} is there already and stays as it is: it may hold the only copy of a key", path.display());
    let hint = "name a file that is not there, or move that one away first";
    CliError::Api(Refusal::new("file-exists", Disposition::UserAction, message, hint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn code(error: CliError) -> String {
        error.document().code
    }

    #[test]
    fn nothing_is_replaced_that_nobody_wants_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("root.age");
        let first = PrivateFile::at(&path, false).unwrap();
        // Both have looked; the second comes too late.
        let second = PrivateFile::at(&path, false).unwrap();
        first.write(b"the only copy").unwrap();
        assert_eq!(code(second.write(b"another").unwrap_err()), "file-exists");
        assert_eq!(code(PrivateFile::at(&path, false).unwrap_err()), "file-exists");
        assert_eq!(std::fs::read(&path).unwrap(), b"the only copy");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        PrivateFile::at(&path, true).unwrap().write(b"as wanted").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"as wanted");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file stays");
        // A link that leads nowhere is a name that is taken.
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        assert_eq!(code(PrivateFile::at(&link, false).unwrap_err()), "file-exists");
    }

    #[test]
    fn a_place_where_nothing_can_be_made_is_said_before() {
        for path in ["/nowhere/x.age", "/proc/x.age", "/", "..", "/tmp"] {
            let error = PrivateFile::at(Path::new(path), true).unwrap_err();
            assert_eq!(error.exit_code() as u8, 2, "{path}: {error}");
        }
    }
}
