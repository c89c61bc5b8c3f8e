//! The limits of the daemon's own unit, `systemd/matterbind.service`, enforced where the kernel lets us make a memory cgroup.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A value of the unit, for instance `MemoryMax`.
pub fn unit(key: &str) -> u64 {
    let unit = include_str!("../../systemd/matterbind.service");
    let value = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).expect("the unit says it");
    match value.strip_suffix('M') {
        Some(megabytes) => megabytes.parse::<u64>().unwrap() << 20,
        None => value.parse().unwrap(),
    }
}

/// A memory cgroup of this test; removed with it.
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// `None` where none can be made: then the peak is measured, and nothing enforced.
    pub fn with_limit(bytes: u64) -> Option<Self> {
        // The tests of this process run side by side.
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("matterbind-test-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        for (root, limit) in [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")] {
            let group = Self(Path::new(root).join(&name));
            if fs::create_dir(&group.0).is_ok() && fs::write(group.0.join(limit), bytes.to_string()).is_ok() {
                return Some(group);
            }
        }
        eprintln!("no memory cgroup can be made here: the peak is measured, the limit is not enforced");
        None
    }

    /// Takes a process in.
    pub fn take(&self, pid: u32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).unwrap();
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// One line of `/proc/<pid>/status`, in bytes: `VmHWM` is the peak of resident memory, `VmRSS` what it is now.
pub fn memory(pid: u32, which: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(which)?.strip_prefix(':')).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}
