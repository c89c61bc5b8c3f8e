//! What the service manager sees of the daemon: READY, STATUS, WATCHDOG, STOPPING, a state directory that only it can
//! read, and an exit code of 0 on SIGTERM. The manager is a datagram socket here; the daemon is the real one.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Far above what a start or a stop takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Killed if a test fails before it has stopped it.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(directory: &Path, manager: &Path) -> Daemon {
    start_on(directory, manager, "interfaces = [\"lo\"], loopback = true")
}

fn start_on(directory: &Path, manager: &Path, network: &str) -> Daemon {
    let config = directory.join("matterbind.toml");
    let text = format!("state_dir = \"state\"\nsocket = \"admin.sock\"\nnetwork = {{ {network} }}\n");
    std::fs::write(&config, text).expect("a temporary directory");
    let child = Command::new(env!("CARGO_BIN_EXE_matterbind"))
        .args(["daemon", "--config"])
        .arg(&config)
        .env("NOTIFY_SOCKET", manager)
        .env("WATCHDOG_USEC", "400000")
        .env_remove("WATCHDOG_PID")
        .env_remove("RUST_BACKTRACE")
        .stderr(Stdio::null())
        .spawn()
        .expect("the daemon starts");
    Daemon(child)
}

/// Reads notifications until one has a line that begins with `wanted`; gives everything read until then.
fn read_until(manager: &UnixDatagram, wanted: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let length = manager.recv(&mut buffer).unwrap_or_else(|error| panic!("no {wanted} after {lines:?}: {error}"));
        lines.extend(String::from_utf8_lossy(&buffer[..length]).lines().map(str::to_owned));
        if lines.iter().any(|line| line.starts_with(wanted)) {
            return lines;
        }
    }
}

#[test]
fn the_service_manager_is_told_everything() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("notify.sock");
    let manager = UnixDatagram::bind(&path).expect("a socket in a temporary directory");
    manager.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
    let mut daemon = start(directory.path(), &path);

    read_until(&manager, "READY=1");
    let mode = |name: &str| {
        let found = std::fs::metadata(directory.path().join("state").join(name)).expect("it exists once ready");
        found.permissions().mode() & 0o777
    };
    assert_eq!((mode(""), mode("fabric.keys"), mode("matterbind.db")), (0o700, 0o600, 0o600));
    read_until(&manager, "STATUS=ready");
    read_until(&manager, "WATCHDOG=1");
    read_until(&manager, "WATCHDOG=1");

    let stop = Command::new("kill").arg(daemon.0.id().to_string()).status().expect("kill runs");
    assert!(stop.success());
    read_until(&manager, "STOPPING=1");
    let ended = daemon.0.wait().expect("our own child");
    assert_eq!(ended.code(), Some(0));
    assert!(!directory.path().join("admin.sock").exists(), "the socket is removed");
}

/// A daemon that can hear nobody runs, so that somebody can ask it why, and the service manager's line says it.
#[test]
fn without_an_interface_the_status_line_says_so() {
    for (network, said) in [("interfaces = [\"nosuch0\"]", "nosuch0"), ("interfaces = [\"lo\"]", "loopback")] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("notify.sock");
        let manager = UnixDatagram::bind(&path).expect("a socket in a temporary directory");
        manager.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
        let _daemon = start_on(directory.path(), &path, network);
        let lines = read_until(&manager, "STATUS=waiting for");
        assert!(lines.last().is_some_and(|line| line.contains(said)), "{lines:?}");
        let mut stream =
            std::os::unix::net::UnixStream::connect(directory.path().join("admin.sock")).expect("it listens");
        let mut answer = String::new();
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: hub\r\nconnection: close\r\n\r\n").expect("it reads");
        stream.read_to_string(&mut answer).expect("it answers");
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains(said), "{answer}");
    }
}

/// A freezer cgroup (v1, which freezes single threads); removed with the test.
struct Freezer(std::path::PathBuf);

impl Freezer {
    fn new() -> Option<Self> {
        let group = Self(Path::new("/sys/fs/cgroup/freezer").join(format!("matterbind-test-{}", std::process::id())));
        std::fs::create_dir(&group.0).ok()?;
        Some(group)
    }

    fn freeze(&self, daemon: &Child, name: &str) {
        for task in std::fs::read_dir(format!("/proc/{}/task", daemon.id())).expect("our own child") {
            let task = task.expect("a thread").path();
            if std::fs::read_to_string(task.join("comm")).expect("its name").trim() == name {
                let id = task.file_name().expect("its number").to_string_lossy().into_owned();
                std::fs::write(self.0.join("tasks"), id).expect("a thread of our own child");
                std::fs::write(self.0.join("freezer.state"), "FROZEN").expect("our own cgroup");
                return;
            }
        }
        panic!("there is no thread {name}");
    }

    fn thaw(&self) {
        std::fs::write(self.0.join("freezer.state"), "THAWED").expect("our own cgroup");
        for task in std::fs::read_to_string(self.0.join("tasks")).expect("our own cgroup").lines() {
            // It may have ended.
            let _ = std::fs::write("/sys/fs/cgroup/freezer/tasks", task);
        }
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        let _ = std::fs::write(self.0.join("freezer.state"), "THAWED");
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// A thread that stands still: the beat stays out, and what stands still is named; once it goes on, all is well again.
#[test]
fn a_part_that_stands_still_stops_the_beat() {
    let Some(freezer) = Freezer::new() else {
        eprintln!("skipped: no freezer cgroup can be made here");
        return;
    };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("notify.sock");
    let manager = UnixDatagram::bind(&path).expect("a socket in a temporary directory");
    manager.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
    let daemon = start(directory.path(), &path);
    read_until(&manager, "READY=1");
    read_until(&manager, "WATCHDOG=1");
    for (thread, part) in [("matter", "the Matter stack"), ("mDNS_daemon", "discovery")] {
        freezer.freeze(&daemon.0, thread);
        read_until(&manager, &format!("STATUS=waiting for {part}"));
        manager.set_read_timeout(Some(Duration::from_secs(3))).expect("a timeout above zero");
        let mut buffer = [0; 4096];
        let beat = manager.recv(&mut buffer).map(|length| String::from_utf8_lossy(&buffer[..length]).into_owned());
        assert!(!beat.as_ref().is_ok_and(|line| line.contains("WATCHDOG")), "{thread} is frozen: {beat:?}");
        manager.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
        freezer.thaw();
        read_until(&manager, "WATCHDOG=1");
    }
}

/// Keys that are sealed with another credential: exit code 2, after which the unit does not start again; one line that says
/// what to do; and one entry in the admin log, however often it is tried.
#[test]
fn a_wrong_seal_is_said_once_and_ends_with_two() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let at = |name: &str| directory.path().join(name);
    let path = at("notify.sock");
    let manager = UnixDatagram::bind(&path).expect("a socket in a temporary directory");
    manager.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
    std::fs::create_dir(at("credentials")).expect("a temporary directory");
    let seal = |text: &str| std::fs::write(at("credentials/matterbind-seal"), text).expect("a file");
    seal("the right one");
    let run = |config: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_matterbind"));
        command.args(["daemon", "--config"]).arg(config).env("CREDENTIALS_DIRECTORY", at("credentials"));
        command
            .env("NOTIFY_SOCKET", &path)
            .env_remove("WATCHDOG_USEC")
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::null());
        command
    };
    let config = at("matterbind.toml");
    let text = "state_dir = \"state\"\nsocket = \"admin.sock\"\nnetwork = { interfaces = [\"lo\"], loopback = true }\n";
    std::fs::write(&config, text).expect("a file");
    let mut daemon = Daemon(run(&config).stderr(Stdio::null()).spawn().expect("the daemon starts"));
    read_until(&manager, "READY=1");
    let stop = Command::new("kill").arg(daemon.0.id().to_string()).status().expect("kill runs");
    assert!(stop.success() && daemon.0.wait().expect("our own child").success());
    seal("another one");
    for _ in 0..5 {
        let ended = run(&config).output().expect("the daemon starts");
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(2), "{said}");
        let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("error:")).collect();
        assert!(errors.len() == 1 && errors[0].contains("fabric restore"), "{said}");
    }
    seal("the right one");
    let _daemon = Daemon(run(&config).stderr(Stdio::null()).spawn().expect("the daemon starts"));
    read_until(&manager, "READY=1");
    let mut logs = Command::new(env!("CARGO_BIN_EXE_matterbind"));
    let said = logs.arg("--socket").arg(at("admin.sock")).args(["logs", "--json"]).output().expect("the client runs");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert_eq!(said.lines().filter(|line| line.contains("\"start-failed\"")).count(), 1, "{said}");
}
