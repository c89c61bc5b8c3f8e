//! The daemon under the limits of its own unit, `systemd/matterbind.service`: what it is asked for must fit into them.
//!
//! The memory limit is enforced where the kernel lets us make a memory cgroup; where not, the peak is measured.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use matterbind::journal::{Event, EventSink, Level};
use matterbind::store::{JournalFilter, JournalLimits, Store};

const MATTERBIND: &str = env!("CARGO_BIN_EXE_matterbind");
/// Far above what anything here takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// A value of the unit, for instance `MemoryMax`.
fn unit(key: &str) -> u64 {
    let unit = include_str!("../systemd/matterbind.service");
    let value = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).expect("the unit says it");
    match value.strip_suffix('M') {
        Some(megabytes) => megabytes.parse::<u64>().unwrap() << 20,
        None => value.parse().unwrap(),
    }
}

/// A memory cgroup of this test; removed with it.
struct Cgroup(PathBuf);

impl Cgroup {
    fn with_limit(bytes: u64) -> Option<Self> {
        let name = format!("matterbind-test-{}", std::process::id());
        for (root, limit) in [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")] {
            let group = Self(Path::new(root).join(&name));
            if fs::create_dir(&group.0).is_ok() && fs::write(group.0.join(limit), bytes.to_string()).is_ok() {
                return Some(group);
            }
        }
        eprintln!("no memory cgroup can be made here: the peak is measured, the limit is not enforced");
        None
    }

    fn take(&self, process: &Child) {
        fs::write(self.0.join("cgroup.procs"), process.id().to_string()).unwrap();
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// A daemon with a state of its own, on loopback.
struct Daemon {
    directory: tempfile::TempDir,
    process: Child,
    _cgroup: Option<Cgroup>,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Daemon {
    fn start(directory: tempfile::TempDir, more: &str) -> Self {
        let at = |name: &str| directory.path().join(name);
        let text = "state_dir = \"state\"\nsocket = \"admin.sock\"\nnetwork = { interfaces = [\"lo\"] }\n";
        fs::write(at("matterbind.toml"), format!("{text}{more}")).unwrap();
        let manager = UnixDatagram::bind(at("notify.sock")).unwrap();
        manager.set_read_timeout(Some(PATIENCE)).unwrap();
        let cgroup = Cgroup::with_limit(unit("MemoryMax"));
        let mut command = Command::new(MATTERBIND);
        command.args(["daemon", "--config"]).arg(at("matterbind.toml"));
        command.env("NOTIFY_SOCKET", at("notify.sock")).env_remove("RUST_BACKTRACE").stderr(Stdio::null());
        let process = command.spawn().unwrap();
        if let Some(cgroup) = &cgroup {
            cgroup.take(&process);
        }
        let daemon = Self { directory, process, _cgroup: cgroup };
        let mut buffer = [0; 4096];
        loop {
            let length = manager.recv(&mut buffer).expect("the daemon says READY");
            if buffer[..length].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
                return daemon;
            }
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn client(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(MATTERBIND);
        command.arg("--socket").arg(self.at("admin.sock")).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Resident memory at its highest.
    fn peak(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
    }
}

/// A state with a long admin log. In memory eight copies of it, in the clear and encrypted, would take 200 MB.
fn long_log(directory: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Store::open(&directory.join("state")).unwrap();
        let journal = store.journal(JournalLimits::default()).await;
        let text = "x".repeat(16 * 1024);
        for _ in 0..20 {
            for _ in 0..40 {
                journal.record(Event::new(Timestamp::now(), Level::Info, "filler", text.clone()));
            }
            journal.query(JournalFilter { limit: Some(1), ..JournalFilter::default() }).await.unwrap();
        }
        store.close().await;
    });
    let length = fs::metadata(directory.join("state/matterbind.db")).unwrap().len();
    assert!(length > 12 << 20, "{length}");
}

/// Eight people back up at once a hub with a long log, by passphrase, and take the root key off and back.
#[test]
fn backups_fit_into_the_units_memory() {
    let directory = tempfile::tempdir().unwrap();
    long_log(directory.path());
    fs::write(directory.path().join("word"), "correct horse\n").unwrap();
    let mut daemon = Daemon::start(directory, "");
    let word = daemon.at("word");
    let word = ["--passphrase-file", word.to_str().unwrap()];
    let files: Vec<PathBuf> = (0..8).map(|i| daemon.at(&format!("{i}.age"))).collect();
    let running: Vec<Child> = files
        .iter()
        .map(|file| {
            daemon.client(&[&["fabric", "backup", file.to_str().unwrap()], &word[..]].concat()).spawn().unwrap()
        })
        .collect();
    for client in running {
        let ended = client.wait_with_output().unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    }
    let root = daemon.at("root.age");
    for command in ["export-root", "import-root"] {
        let ended =
            daemon.client(&[&["fabric", command, root.to_str().unwrap()], &word[..]].concat()).output().unwrap();
        assert!(ended.status.success(), "{command}: {}", String::from_utf8_lossy(&ended.stderr));
    }
    assert!(daemon.process.try_wait().unwrap().is_none(), "the daemon lives");
    let (peak, limit) = (daemon.peak(), unit("MemoryMax"));
    assert!(peak < limit / 2, "at its peak the daemon took {} MB of {} MB", peak >> 20, limit >> 20);
    // Nothing is left beside the state.
    let left: Vec<_> = fs::read_dir(daemon.at("state")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name == "backup.new" || name == "matterbind.db.copy"), "{left:?}");
    let restored = daemon.at("restored");
    let line = ["fabric", "restore", files[3].to_str().unwrap(), "--state-dir", restored.to_str().unwrap()];
    let ended = daemon.client(&[&line, &word[..]].concat()).output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
}

/// What is no backup ends with a word instead of filling memory or waiting for ever.
#[test]
fn files_without_an_end_are_refused_quickly() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    fs::write(at("word"), "correct horse\n").unwrap();
    fs::write(at("hub.age"), "age-encryption.org/v1\n").unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, at("fifo"), 0o600.into()).unwrap();
    let (word, backup, fifo, state) = (at("word"), at("hub.age"), at("fifo"), at("state"));
    let began = Instant::now();
    for (file, word) in [
        ("/dev/zero", &word),
        (fifo.as_str(), &word),
        (directory.path().to_str().unwrap(), &word),
        (backup.as_str(), &"/dev/zero".to_owned()),
        (backup.as_str(), &fifo),
    ] {
        for command in [&["restore", file, "--state-dir", &state][..], &["import-root", file]] {
            let mut matterbind = Command::new(MATTERBIND);
            matterbind.arg("fabric").args(command).args(["--passphrase-file", word]).stdin(Stdio::null());
            let ended = matterbind.output().unwrap();
            assert_eq!(ended.status.code(), Some(2), "{command:?}: {}", String::from_utf8_lossy(&ended.stderr));
        }
    }
    assert!(began.elapsed() < PATIENCE / 4);
    assert!(!Path::new(&state).exists(), "nothing was written");
}
