//! The device's memory: one file for each key, replaced as a whole, so that `kill -9` at any point leaves the old or the
//! new value. rs-matter's own `DirKvBlobStore` truncates first and takes an unreadable file for an absent one.
//!
//! Not here: what the values mean; those under [`LIGHT_KEY`] are the light's, all others rs-matter's.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rs_matter::error::{Error, ErrorCode};
use rs_matter::persist::{KvBlobStore, VENDOR_KEYS_START};
use rustix::fs::{FlockOperation, flock};

use super::VirtualDeviceError;

/// Where the light keeps whether it is on.
pub(super) const LIGHT_KEY: u16 = VENDOR_KEYS_START;
/// Where the device keeps its host name.
pub(super) const HOST_KEY: u16 = VENDOR_KEYS_START + 1;

/// A storage directory that this process alone uses.
#[derive(Clone)]
pub(super) struct Storage {
    dir: PathBuf,
    /// Held until the last clone goes; the kernel drops the lock with the process.
    _lock: Arc<File>,
}

impl Storage {
    /// Makes the directory where needed and takes it for this process.
    pub(super) fn open(dir: &Path) -> Result<Self, VirtualDeviceError> {
        let failed = |source| VirtualDeviceError::Storage { dir: dir.to_owned(), source };
        fs::create_dir_all(dir).map_err(failed)?;
        let lock =
            OpenOptions::new().create(true).truncate(false).write(true).open(dir.join("lock")).map_err(failed)?;
        match flock(lock.as_fd(), FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { dir: dir.to_owned(), _lock: Arc::new(lock) }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(VirtualDeviceError::StorageInUse { dir: dir.to_owned() }),
            Err(errno) => Err(failed(errno.into())),
        }
    }

    /// The value under `key`, if there is one.
    pub(super) fn read(&self, key: u16) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.path(key)) {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces the value under `key`; on return it is on the disk.
    pub(super) fn write(&self, key: u16, value: &[u8]) -> io::Result<()> {
        let next = self.dir.join("next");
        let mut file = File::create(&next)?;
        file.write_all(value)?;
        file.sync_all()?;
        fs::rename(&next, self.path(key))?;
        self.sync_dir()
    }

    fn delete(&self, key: u16) -> io::Result<()> {
        match fs::remove_file(self.path(key)) {
            Ok(()) => self.sync_dir(),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    fn path(&self, key: u16) -> PathBuf {
        self.dir.join(format!("k_{key:04x}"))
    }
}

impl KvBlobStore for Storage {
    fn load<'a>(&mut self, key: u16, buf: &'a mut [u8]) -> Result<Option<&'a [u8]>, Error> {
        let Some(value) = self.read(key)? else { return Ok(None) };
        let place = buf.get_mut(..value.len()).ok_or(ErrorCode::NoSpace)?;
        place.copy_from_slice(&value);
        Ok(Some(place))
    }

    fn store(&mut self, key: u16, data: &[u8], _buf: &mut [u8]) -> Result<(), Error> {
        Ok(self.write(key, data)?)
    }

    fn remove(&mut self, key: u16, _buf: &mut [u8]) -> Result<(), Error> {
        Ok(self.delete(key)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_outlive_the_process_and_the_directory_has_one_user() {
        let dir = tempfile::tempdir().unwrap();
        let mut storage = Storage::open(dir.path()).unwrap();
        assert!(matches!(Storage::open(dir.path()), Err(VirtualDeviceError::StorageInUse { .. })));
        let mut buf = [0; 8];
        assert!(storage.load(7, &mut buf).unwrap().is_none());
        storage.store(7, b"one", &mut buf).unwrap();
        storage.store(7, b"two", &mut buf).unwrap();
        drop(storage);

        let mut storage = Storage::open(dir.path()).unwrap();
        assert_eq!(storage.load(7, &mut buf).unwrap(), Some(&b"two"[..]));
        assert!(storage.load(7, &mut [0; 2]).is_err());
        storage.remove(7, &mut buf).unwrap();
        storage.remove(7, &mut buf).unwrap();
        assert!(storage.load(7, &mut buf).unwrap().is_none());
    }
}
