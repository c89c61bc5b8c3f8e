//! The daemon under the limits of its own unit, `systemd/matterbind.service`: what it is asked for must fit into them.
//!
//! The memory limit is enforced where the kernel lets us make a memory cgroup; where not, the peak is measured.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use matterbind::config::bearer;
use matterbind::journal::{Event, EventSink, Level};
use matterbind::store::{JournalFilter, JournalLimits, Store};
use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process, setrlimit};
use socket2::{Domain, Socket, Type};

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
        // The group goes after its process: fields are dropped after this.
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
        let log = fs::File::create(at("daemon.log")).unwrap();
        command.env("NOTIFY_SOCKET", at("notify.sock")).env_remove("RUST_BACKTRACE").stderr(log);
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

    /// A daemon whose API is on TCP too, at a port that was free a moment ago.
    fn on_tcp() -> (Self, SocketAddr, String) {
        let directory = tempfile::tempdir().unwrap();
        let token = bearer::make().expose().to_owned();
        let mut file = fs::OpenOptions::new();
        let mut file = file.write(true).create_new(true).mode(0o600).open(directory.path().join("token")).unwrap();
        file.write_all(token.as_bytes()).unwrap();
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let daemon = Self::start(directory, &format!("admin = {{ tcp = \"{address}\", token_file = \"token\" }}\n"));
        (daemon, address, token)
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.process.id().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    fn answers_locally(&self) {
        let ended = self.client(&["status", "--json"]).output().unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
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

/// From one of many addresses of this machine: each is a peer of its own.
fn connect(from: usize, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    let source: SocketAddr = format!("127.0.{}.{}:0", from / 200, 2 + from % 200).parse().unwrap();
    socket.bind(&source.into())?;
    socket.connect_timeout(&to.into(), Duration::from_secs(10))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket.into())
}

fn ask(stream: &mut TcpStream, token: &str) -> String {
    write!(stream, "GET /v1/status HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// 1,015 connections from 40 addresses that say nothing, or half a word: the Unix socket answers all the while, and the network
/// again as soon as they have been let go.
#[test]
fn a_crowd_on_the_network_leaves_the_socket_alone() {
    let (daemon, address, token) = Daemon::on_tcp();
    // After the daemon has started: it lives with the usual limit.
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let mut crowd = Vec::new();
    for i in 0..1015 {
        let mut stream = connect(i % 40, address).unwrap();
        if i % 2 == 0 {
            // It may be closed already.
            let _ = stream.write_all(b"GET / HTTP/1.1\r\nx: ");
        }
        crowd.push(stream);
        if i % 200 == 0 {
            daemon.answers_locally();
        }
    }
    daemon.answers_locally();
    let open = fs::read_dir(format!("/proc/{}/fd", daemon.process.id())).unwrap().count();
    assert!((96..256).contains(&open), "{open} descriptors");
    // Each of them is let go by the daemon.
    for stream in &mut crowd {
        let mut rest = Vec::new();
        // A reset says the same as an end.
        let _ = stream.read_to_end(&mut rest);
    }
    let answer = ask(&mut connect(3, address).unwrap(), &token);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // One address alone cannot keep the others out.
    let alone: Vec<_> = (0..200).map(|_| connect(7, address).unwrap()).collect();
    let answer = ask(&mut connect(8, address).unwrap(), &token);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop(alone);
}

/// Signals that mean nothing change nothing, HUP reloads, TERM ends it in order, and clients that neither send nor read are not
/// waited for; a second TERM waits for nobody.
#[test]
fn signals_end_the_daemon_only_where_they_should() {
    let (mut daemon, address, token) = Daemon::on_tcp();
    for signal in [Signal::USR1, Signal::USR2, Signal::ALARM, Signal::HUP] {
        daemon.signal(signal);
        daemon.answers_locally();
    }
    let text = fs::read_to_string(daemon.at("matterbind.toml")).unwrap();
    fs::write(daemon.at("matterbind.toml"), format!("{text}log = {{ level = \"warn,matterbind=debug\" }}\n")).unwrap();
    daemon.signal(Signal::HUP);
    let begun = Instant::now();
    let log = || fs::read_to_string(daemon.at("daemon.log")).unwrap();
    while !log().contains("warn,matterbind=debug") {
        assert!(begun.elapsed() < PATIENCE, "{}", log());
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut half_head = connect(0, address).unwrap();
    half_head.write_all(b"GET / HTTP/1.1\r\nx: ").unwrap();
    let mut deaf = connect(1, address).unwrap();
    let head = format!("host: x\r\nauthorization: Bearer {token}\r\n");
    write!(deaf, "GET /v1/events HTTP/1.1\r\n{head}\r\n").unwrap();
    let mut half_body = connect(2, address).unwrap();
    write!(half_body, "POST /v1/commission HTTP/1.1\r\n{head}content-length: 900\r\n\r\n{{").unwrap();
    daemon.answers_locally();
    let begun = Instant::now();
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.process.wait().unwrap().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(18), "{:?}", begun.elapsed());
}

#[test]
fn a_second_term_hurries() {
    let (mut daemon, address, token) = Daemon::on_tcp();
    let mut half_body = connect(2, address).unwrap();
    let head = format!("host: x\r\nauthorization: Bearer {token}\r\ncontent-length: 900\r\nexpect: 100-continue\r\n");
    write!(half_body, "POST /v1/commission HTTP/1.1\r\n{head}\r\n").unwrap();
    // The daemon asks for the body: the request is under way, and would be waited for.
    let mut asked = [0; 12];
    half_body.read_exact(&mut asked).unwrap();
    assert_eq!(&asked, b"HTTP/1.1 100");
    let begun = Instant::now();
    daemon.signal(Signal::TERM);
    // Signals of one kind that wait are one: the first must have been seen.
    let mut rest = Vec::new();
    while fs::metadata(daemon.at("admin.sock")).is_ok()
        && std::os::unix::net::UnixStream::connect(daemon.at("admin.sock")).is_ok()
    {
        std::thread::sleep(Duration::from_millis(20));
    }
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.process.wait().unwrap().code(), Some(0));
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(4), "{took:?}");
    let _ = half_body.read_to_end(&mut rest);
}
