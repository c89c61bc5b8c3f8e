//! The daemon under the limits of its own unit, `systemd/matterbind.service`: what it is asked for must fit into them.
//!
//! The memory limit is enforced where the kernel lets us make a memory cgroup; where not, the peak is measured.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod support {
    pub mod unit;
}

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use matterbind::facade::config::bearer;
use matterbind::facade::journal::{Event, EventSink, Level};
use matterbind::facade::store::{JournalFilter, JournalLimits, Store};
use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process, setrlimit};
use serde_json::json;
use socket2::{Domain, Socket, Type};

use support::unit::{Cgroup, memory, unit};

const MATTERBIND: &str = env!("CARGO_BIN_EXE_matterbind");
/// Far above what anything here takes.
const PATIENCE: Duration = Duration::from_secs(120);

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
        let text =
            "state_dir = \"state\"\nsocket = \"admin.sock\"\nnetwork = { interfaces = [\"lo\"], loopback = true }\n";
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
            cgroup.take(process.id());
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
        memory(self.process.id(), "VmHWM")
    }

    /// Resident memory now.
    fn resident(&self) -> u64 {
        memory(self.process.id(), "VmRSS")
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

/// A state with so many nodes, each with as much text as a device may have.
fn many_nodes(directory: &Path, count: u64) {
    let node = |id: u64| {
        let text = |kind: &str| format!("{kind} of node {id} {}", "x".repeat(100))[..32].to_owned();
        let record = json!({
            "fabric_id": 1_234_567, "node_id": id, "fabric_index": 1, "vendor_id": 0xFFF1, "product_id": 0x8000,
            "discriminator": 3840, "matter_version": "1.4", "vendor_name": text("vendor"), "product_name": text("product"),
            "serial_number": text("serial"), "unique_id": text("unique id"), "product_key": "p11abc",
            "cats": [{ "cat": 0x0001_0001, "privilege": "Administer" }, { "cat": 0x0002_0001, "privilege": "Operate" }],
            "device_key": format!("KEY{id:013}"), "name": text("name"), "family_id": "f", "room_id": "r",
            "capabilities_bitmask": 10, "addresses": ["fe80::1%lo", "fd00::1", "192.0.2.1"], "port": 5540,
            "attestation": { "verdict": "accepted", "findings": [
                { "code": "test-paa", "severity": "warning", "message": "the chain ends in a public test PAA" } ] },
            "commissioned_at": "2026-11-22T20:00:00Z", "last_seen_at": null, "state": "unreachable",
            "bind": { "state": "disabled", "code": null, "message": "", "tries": 0, "bound_at": null },
        });
        serde_json::from_value(record).unwrap()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Store::open(&directory.join("state")).unwrap();
        let adopted = (1000..1000 + count).map(|id| {
            let store = &store;
            async move { store.adopt(&node(id)).await.unwrap() }
        });
        futures_util::future::join_all(adopted).await;
        store.close().await;
    });
}

/// What a client of the Unix socket is answered, and after how long. Nothing of it is kept here.
fn asked(socket: &Path, path: &str) -> (u64, Duration) {
    let begun = Instant::now();
    let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nhost: x\r\n\r\n").unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.0 200", "{path}");
    let length = std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
    (length, begun.elapsed())
}

/// 200 people at once ask for 2,000 nodes and for the page: each is made for all who wait for it together. Thirty read a log of
/// twelve megabytes, of which little is in memory for each.
#[test]
fn a_crowd_that_asks_for_everything_shares_it() {
    let directory = tempfile::tempdir().unwrap();
    many_nodes(directory.path(), 2000);
    long_log(directory.path());
    let daemon = Daemon::start(directory, "");
    let before = daemon.resident();
    for (path, crowd) in [("/v1/nodes", 200), ("/", 200), ("/v1/logs", 30)] {
        let socket = daemon.at("admin.sock");
        let asking: Vec<_> = (0..crowd)
            .map(|_| {
                let socket = socket.clone();
                std::thread::spawn(move || asked(&socket, path))
            })
            .collect();
        let mut answers: Vec<_> = asking.into_iter().map(|asking| asking.join().unwrap()).collect();
        answers.sort_by_key(|(_, took)| *took);
        let ((length, middle), (_, last)) = (answers[crowd / 2], answers[crowd - 1 - crowd / 100]);
        println!(
            "{path}: {crowd} answers of {} KiB, half of them within {middle:?}, 99 in 100 within {last:?}; {} MB at the peak, {} MB \
             afterwards, {} MB before",
            length >> 10,
            daemon.peak() >> 20,
            daemon.resident() >> 20,
            before >> 20
        );
        assert!(length > 100 << 10, "{path}: {length} bytes");
    }
    daemon.answers_locally();
    let (peak, limit) = (daemon.peak(), unit("MemoryMax"));
    assert!(peak < limit / 2, "at its peak the daemon took {} MB of {} MB", peak >> 20, limit >> 20);
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

/// A program of the house that opens 1,200 connections to the Unix socket and says nothing on them: whoever has something to ask
/// has his answer before the watchdog, which asks there too, would give up. One listener's queue and places take that many.
#[test]
fn a_silent_crowd_on_the_socket_is_let_go_before_the_watchdog_barks() {
    let daemon = Daemon::start(tempfile::tempdir().unwrap(), "");
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let socket = daemon.at("admin.sock");
    let crowd: Vec<_> = (0..1200).map(|_| std::os::unix::net::UnixStream::connect(&socket).unwrap()).collect();
    let (_, took) = asked(&socket, "/healthz");
    println!("answered after {took:?} behind {} silent connections", crowd.len());
    // Letting 256 go every ten seconds takes forty.
    assert!(took < Duration::from_secs(20), "{took:?}");
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
    let (mut crowd, mut most) = (Vec::new(), 0);
    for i in 0..1015 {
        let mut stream = connect(i % 40, address).unwrap();
        if i % 2 == 0 {
            // It may be closed already.
            let _ = stream.write_all(b"GET / HTTP/1.1\r\nx: ");
        }
        crowd.push(stream);
        if i % 200 == 0 {
            daemon.answers_locally();
            // They are let go after ten seconds: counted while they come.
            most = most.max(fs::read_dir(format!("/proc/{}/fd", daemon.process.id())).unwrap().count());
        }
    }
    daemon.answers_locally();
    assert!((96..256).contains(&most), "{most} descriptors");
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
    // Who tries tokens is slowed down, and named in the admin log.
    let answer = ask(&mut connect(9, address).unwrap(), "not-the-token-but-as-long-as-one-would-be");
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    let logs = daemon.client(&["logs", "--json"]).output().unwrap();
    let logs = String::from_utf8(logs.stdout).unwrap();
    let entry = logs.lines().find(|line| line.contains("\"wrong-token\"")).unwrap_or_else(|| panic!("{logs}"));
    assert!(entry.contains("127.0.0.11"), "{entry}");
}

/// What is no HTTP gets the HTTP library's answer, a bare status, and the connection is closed; what is HTTP and wrong gets our
/// error body. The daemon goes on either way.
#[test]
fn malformed_requests_are_answered_and_closed() {
    let (daemon, address, token) = Daemon::on_tcp();
    let long = format!("GET /v1/status HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    let head = format!("host: x\r\nauthorization: Bearer {token}\r\nconnection: close\r\n");
    let chunked = format!("POST /v1/commission HTTP/1.1\r\n{head}transfer-encoding: chunked\r\n\r\nzz\r\n");
    let body = format!("POST /v1/commission HTTP/1.1\r\n{head}content-length: 2\r\n\r\n[]");
    let query = format!("GET /v1/nodes?limit=x HTTP/1.1\r\n{head}\r\n");
    let cases: [(&[u8], &str, bool); 8] = [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "400", false),
        (b"GET / HTTP/9.9\r\n\r\n", "400", false),
        (b"\0\0\0\0\r\n\r\n", "400", false),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n", "400", false),
        (long.as_bytes(), "431", false),
        (chunked.as_bytes(), "400", true),
        (body.as_bytes(), "400", true),
        (query.as_bytes(), "400", true),
    ];
    for (request, status, ours) in cases {
        let shown = String::from_utf8_lossy(&request[..request.len().min(60)]).into_owned();
        let mut stream = connect(3, address).unwrap();
        // It may be answered and closed before all is written.
        let _ = stream.write_all(request);
        // Who has asked properly and hangs up has left, and need not be answered.
        if !ours {
            let _ = stream.shutdown(std::net::Shutdown::Write);
        }
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{shown:?}: {answer}");
        assert_eq!(answer.contains("\"code\":\"bad-request\""), ours, "{shown:?}: {answer}");
    }
    daemon.answers_locally();
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
