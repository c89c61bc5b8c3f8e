//! The disk below the state: full at the worst moments, read-only, or with a database of a newer matterbind. It is said, what
//! cannot be kept is undone, and nothing starts from nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::channel;

use matterbind::facade::failpoint;
use rusqlite::Connection;
use serde_json::Value;

use crate::support::daemon::{Hub, Options, PATIENCE, VirtualDevice};
use crate::support::lab::{Families, Lab, skipped};

/// A hub that gives up early on devices that are not there.
fn hasty() -> Options {
    Options { commissioning: "discover_timeout = \"10s\"\nstep_timeout = \"8s\"".to_owned(), ..Options::default() }
}

fn no_nodes(hub: &Hub<'_>) {
    assert_eq!(hub.nodes(), Vec::<Value>::new());
    assert_eq!(hub.outbox(), Vec::<Value>::new());
}

/// A small file system of its own; unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(size: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "none"]).arg(directory.path()).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(directory)),
            Ok(output) => {
                skipped(&format!("no tmpfs: {}", String::from_utf8_lossy(&output.stderr).trim()));
                None
            }
            Err(error) => {
                skipped(&format!("no tmpfs: {error}"));
                None
            }
        }
    }

    /// Not one byte is left.
    fn fill(&self) {
        use std::io::Write;
        let mut file = fs::File::options().create(true).append(true).open(self.0.path().join("ballast")).unwrap();
        for size in [65_536, 4096, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
    }

    fn remount(&self, how: &str) {
        let mut mount = Command::new("mount");
        let status = mount.args(["-o", &format!("remount,{how}")]).arg(self.0.path()).status().unwrap();
        assert!(status.success(), "remount {how}");
    }

    fn free(&self) {
        fs::remove_file(self.0.path().join("ballast")).unwrap();
    }
}

/// A disk with an ext4 that can have an error.
struct BrokenDisk {
    mounted: SmallDisk,
    _image: tempfile::NamedTempFile,
}

impl BrokenDisk {
    fn new() -> Option<Self> {
        let run = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
        let (image, directory) = (tempfile::NamedTempFile::new().unwrap(), tempfile::tempdir().unwrap());
        image.as_file().set_len(32 << 20).unwrap();
        let made = run(Command::new("mkfs.ext4").arg("-q").arg(image.path()))
            && run(Command::new("mount").args(["-o", "loop"]).arg(image.path()).arg(directory.path()));
        if !made {
            println!("skipped: there is no loop device or no ext4 here");
            return None;
        }
        Some(Self { mounted: SmallDisk(directory), _image: image })
    }

    fn state_dir(&self) -> Option<PathBuf> {
        Some(self.mounted.0.path().join("state"))
    }

    /// What ext4 does about an error: it takes no write any more, whatever is open.
    fn fail(&self) {
        self.mounted.remount("abort");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A process that just ended may hold it for a moment; lazily, it goes with its last user.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_disk_that_is_full() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let Some(disk) = SmallDisk::new("4m") else { return };
    let storage = tempfile::tempdir().unwrap();
    let device = VirtualDevice::start(&lab, storage.path(), &["--serial-number", "DISK1"]);
    let (fifo, environment) = hold_at("case.opened", storage.path());
    let mut hub = Hub::new(&lab, Options { state_dir: Some(disk.0.path().join("state")), environment, ..hasty() });
    hub.start_cloud();
    hub.start_daemon();

    // Before the attempt.
    disk.fill();
    let (exit, failure) = hub.commission(&device.qr, &[]);
    let step = failure["step"].as_str().unwrap_or_default().to_owned();
    hub.check_failure(exit, &failure, &step, "disk-full", 1);
    assert_eq!(failure["disposition"], "user-action");
    // Whoever asks how things stand is told, whether or not anything had to be written.
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let status = hub.ask(&["status"]);
        if status["waiting_for"].to_string().contains("room on the disk") {
            assert_eq!(status["ready"], false, "{status:#}");
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{status:#}");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    disk.free();
    no_nodes(&hub);

    // In the middle of it: what cannot be recorded is undone on the device.
    let attempt = hub.spawn_cli(["commission", &device.qr, "--json"]);
    while_it_holds(&fifo, || disk.fill());
    let (exit, failure) = attempt.result();
    let step = failure["step"].as_str().unwrap_or_default().to_owned();
    hub.check_failure(exit, &failure, &step, "disk-full", 1);
    no_nodes(&hub);
    // It restarts on the full disk or says why not; with room it goes on as if nothing had been.
    disk.free();
    hub.kill_daemon();
    hub.environment.clear();
    hub.start_daemon();
    no_nodes(&hub);
    let result = hub.commission_and_bind(&device.qr);
    // Who only looks is answered on a full disk, too.
    disk.fill();
    let node = result["node_id"].to_string();
    let checked = hub.cli(["node", "check", &node, "--json"]);
    assert_eq!((checked.code, &checked.json["reachable"]), (0, &Value::Bool(true)), "{}", checked.stderr);
}

/// A daemon that must not start: it ends by itself with an error that says what to do. With exit code 2 the unit does not try
/// again.
fn refuses_to_start(hub: &mut Hub<'_>, hint: &str, exit: i32) {
    let before = hub.whole_daemon_log().len();
    let status = hub.try_start_daemon().expect_err("it must not start");
    assert_eq!(status.code(), Some(exit));
    let log = hub.whole_daemon_log();
    assert!(log[before..].contains(hint), "no {hint:?} in:\n{}", &log[before..]);
}

/// A daemon with these variables holds at its failpoint until the FIFO has been opened and closed.
fn hold_at(point: &str, storage: &Path) -> (PathBuf, Vec<(String, String)>) {
    let fifo = storage.join("hold");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    let variable = (failpoint::VARIABLE.to_owned(), format!("{point}@{}", fifo.display()));
    (fifo, vec![variable])
}

/// Runs `act` while the daemon holds at its failpoint.
fn while_it_holds(fifo: &Path, act: impl FnOnce()) {
    let (reached, wait) = channel();
    let path = fifo.to_owned();
    // Opens only when the daemon opens it too.
    std::thread::spawn(move || reached.send(fs::File::options().write(true).open(path)));
    let held = wait.recv_timeout(PATIENCE).expect("the daemon reaches the point").unwrap();
    act();
    drop(held);
}

/// The device has completed and is ours for good, and there is no room to record it: it is let go again.
#[test]
fn a_disk_that_fills_up_just_before_the_record() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let Some(disk) = SmallDisk::new("4m") else { return };
    let storage = tempfile::tempdir().unwrap();
    let device = VirtualDevice::start(&lab, storage.path(), &["--serial-number", "DISK2"]);
    let (fifo, environment) = hold_at("complete.after", storage.path());
    let state_dir = Some(disk.0.path().join("state"));
    let mut hub = Hub::new(&lab, Options { state_dir, environment, ..hasty() });
    hub.start_cloud();
    hub.start_daemon();

    let attempt = hub.spawn_cli(["commission", &device.qr, "--json"]);
    while_it_holds(&fifo, || disk.fill());
    let (exit, failure) = attempt.result();
    hub.check_failure(exit, &failure, "record", "disk-full", 1);
    assert_eq!(failure["disposition"], "user-action");
    disk.free();
    no_nodes(&hub);
    // Nothing is left on the device, and nothing stands in the way here.
    hub.kill_daemon();
    hub.environment.clear();
    hub.start_daemon();
    no_nodes(&hub);
    hub.commission_and_bind(&device.qr);
    assert_eq!(hub.nodes().len(), 1);
}

#[test]
fn a_disk_that_is_read_only_and_a_database_from_the_future() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let Some(disk) = SmallDisk::new("4m") else { return };
    let mut hub = Hub::new(&lab, Options { state_dir: Some(disk.0.path().join("state")), ..hasty() });
    hub.start_cloud();
    hub.start_daemon();
    let fabric = hub.ask(&["fabric", "show"]);
    assert!(hub.stop_daemon().success());

    disk.remount("ro");
    refuses_to_start(&mut hub, "cannot be written: check mount and owner", 1);
    disk.remount("rw");

    let database = hub.state_dir().join("matterbind.db");
    let set = |version: i64, written_by: &str| {
        let connection = Connection::open(&database).unwrap();
        connection.pragma_update(None, "user_version", version).unwrap();
        connection.execute("UPDATE meta SET value = ?1 WHERE name = 'written_by'", [written_by]).unwrap();
    };
    let version: i64 =
        Connection::open(&database).unwrap().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    set(version + 1, "matterbind 9.1.0");
    refuses_to_start(&mut hub, "start matterbind 9.1.0 or a later one", 2);
    set(version, "matterbind 0.0.1");

    hub.start_daemon();
    assert_eq!(hub.ask(&["fabric", "show"]), fabric);
}

/// A flash that wears out under a running hub: what is asked is answered, what would have to be kept is refused by name.
#[test]
fn a_disk_that_turns_read_only_under_the_daemon() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let Some(disk) = BrokenDisk::new() else { return };
    let storage = tempfile::tempdir().unwrap();
    let device = VirtualDevice::start(&lab, storage.path(), &["--serial-number", "DISK3"]);
    let other = tempfile::tempdir().unwrap();
    let more = ["--port", "5651", "--discriminator", "3841", "--serial-number", "DISK4"];
    let second = VirtualDevice::start(&lab, other.path(), &more);
    let mut hub = Hub::new(&lab, Options { state_dir: disk.state_dir(), ..hasty() });
    hub.start_cloud();
    hub.start_daemon();
    let node = hub.commission_and_bind(&device.qr)["node_id"].to_string();

    disk.fail();
    let (exit, failure) = hub.commission(&second.qr, &[]);
    let step = failure["step"].as_str().unwrap_or_default().to_owned();
    hub.check_failure(exit, &failure, &step, "state-read-only", 1);
    assert_eq!(failure["disposition"], "user-action");
    let refused = hub.cli(["node", "rename", &node, "Lamp", "--json"]);
    assert_eq!(refused.json["code"], "state-read-only", "{refused:?}");
    let checked = hub.cli(["node", "check", &node, "--json"]);
    assert_eq!((checked.code, &checked.json["reachable"]), (0, &Value::Bool(true)), "{}", checked.stderr);
    let deadline = std::time::Instant::now() + PATIENCE;
    while !hub.ask(&["status"])["waiting_for"].to_string().contains("read-only") {
        assert!(std::time::Instant::now() < deadline, "{:#}", hub.ask(&["status"]));
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}
