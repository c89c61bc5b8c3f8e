//! What the service manager sees of the daemon: READY, STATUS, WATCHDOG, STOPPING, a state directory that only it can
//! read, and an exit code of 0 on SIGTERM. The manager is a datagram socket here; the daemon is the real one.

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
    let config = directory.join("matterbind.toml");
    let text = "state_dir = \"state\"\nsocket = \"admin.sock\"\nnetwork = { interfaces = [\"lo\"] }\n";
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
