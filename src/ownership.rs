//! Whom root acts for: the owner of a directory that root's commands write in.
//!
//! A state directory belongs to the service, and what belongs to the service may be anything: a symbolic link where a file is
//! expected leads wherever the service's user wants. So root becomes that user before it opens anything there: then it can do
//! what the service could do by itself, and nothing else, and whatever it makes has the right owner. Not here: what is read or
//! written meanwhile.

use std::fs::{self, DirBuilder};
use std::io;
use std::marker::PhantomData;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::unistd::User;
use rustix::fs::{Gid, Uid};
use rustix::process::{getegid, geteuid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// The service's user, as the package makes it.
const SERVICE_USER: &str = "matterbind";

/// This thread, and every one that it starts meanwhile, acts for somebody else; until this is dropped.
#[must_use]
#[derive(Debug)]
pub(crate) struct ActingFor {
    /// Root's own ids and groups; `None` where nothing was changed.
    before: Option<(Uid, Gid, Vec<Gid>)>,
    /// Credentials belong to the thread.
    not_send: PhantomData<*const ()>,
}

impl ActingFor {
    /// The owner of `directory`, which must exist. Whoever is not root stays who it is.
    ///
    /// # Errors
    /// The directory cannot be looked at, or the kernel refuses.
    pub(crate) fn owner_of(directory: &Path) -> io::Result<Self> {
        let nobody_else = Self { before: None, not_send: PhantomData };
        if !geteuid().is_root() {
            return Ok(nobody_else);
        }
        let found = fs::metadata(directory)?;
        let (uid, gid) = (Uid::from_raw(found.uid()), Gid::from_raw(found.gid()));
        if uid.is_root() {
            return Ok(nobody_else);
        }
        let (own_uid, own_gid, groups) = (geteuid(), getegid(), rustix::process::getgroups()?);
        // From here on the drop undoes what was done, also where the next step fails.
        let acting = Self { before: Some((own_uid, own_gid, groups)), not_send: PhantomData };
        set_thread_groups(&[])?;
        set_thread_res_gid(own_gid, gid, own_gid)?;
        set_thread_res_uid(own_uid, uid, own_uid)?;
        Ok(acting)
    }
}

impl Drop for ActingFor {
    fn drop(&mut self) {
        let Some((uid, gid, groups)) = self.before.take() else { return };
        // The saved ids are root's, so that the kernel has no reason to refuse.
        let _ = set_thread_res_uid(uid, uid, uid);
        let _ = set_thread_res_gid(gid, gid, gid);
        let _ = set_thread_groups(&groups);
    }
}

/// Makes the state directory before the first start of the service; root makes it for the service's user. One that is there is
/// left as it is.
pub(crate) fn make_state_dir(state_dir: &Path) -> io::Result<()> {
    if state_dir.exists() {
        return Ok(());
    }
    if let Some(parent) = state_dir.parent() {
        fs::create_dir_all(parent)?;
    }
    DirBuilder::new().mode(0o700).create(state_dir)?;
    let service = User::from_name(SERVICE_USER).ok().flatten();
    if let Some(service) = service.filter(|_| geteuid().is_root()) {
        // By its descriptor: the name may lead elsewhere by now.
        let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let made = fs::OpenOptions::new().read(true).custom_flags(flags).open(state_dir)?;
        rustix::fs::fchown(
            &made,
            Some(Uid::from_raw(service.uid.as_raw())),
            Some(Gid::from_raw(service.gid.as_raw())),
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    #[test]
    fn root_becomes_the_owner_and_root_again() {
        if !geteuid().is_root() {
            eprintln!("skipped: only root can act for another user");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (theirs, roots) = (dir.path().join("state"), dir.path().join("roots"));
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(&theirs).unwrap();
        chown(&theirs, Some(60_010), Some(60_011)).unwrap();
        fs::write(&roots, "precious").unwrap();
        fs::set_permissions(&roots, fs::Permissions::from_mode(0o600)).unwrap();
        symlink(&roots, theirs.join("link")).unwrap();
        {
            let _acting = ActingFor::owner_of(&theirs).unwrap();
            assert!(fs::read(theirs.join("link")).is_err(), "root's file is out of reach");
            fs::write(theirs.join("made"), "").unwrap();
            let made = fs::metadata(theirs.join("made")).unwrap();
            assert_eq!((made.uid(), made.gid()), (60_010, 60_011));
            // A thread that is started meanwhile is nobody else.
            let link = theirs.join("link");
            assert!(std::thread::spawn(move || fs::write(link, "x").is_err()).join().unwrap());
        }
        assert!(geteuid().is_root());
        assert_eq!(fs::read_to_string(&roots).unwrap(), "precious");
    }
}
