//! Out of the box: a device that is only on Bluetooth, through the whole path, on air without radio (`bluetooth::air`). The daemon,
//! BTP, the device with its Network Commissioning cluster and the network are the product's own; what is missing is BlueZ.
//!
//! ```text
//! hub namespace: matterbind daemon ─ cloud-sim       devices' namespace: virtual-device --ble
//!                       ╰── a directory: GATT writes and indications ──╯
//!                       mb0 ═══════ veth: only once it has joined ═══════ mb0
//! ```

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use serde_json::{Value, json};

use crate::support::daemon::{Answer, Hub, MATTERBIND, Options, Running, VirtualDevice};
use crate::support::lab::{Families, Lab};

const PASSWORD: &str = "correct horse battery";

/// A hub with an adapter, and the air that it hears.
struct Rig<'a> {
    hub: Hub<'a>,
    air: PathBuf,
    _directory: tempfile::TempDir,
    lab: &'a Lab,
}

impl<'a> Rig<'a> {
    fn new(lab: &'a Lab) -> Self {
        Self::with(lab, "")
    }

    fn with(lab: &'a Lab, commissioning: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let air = directory.path().join("air");
        fs::create_dir(&air).unwrap();
        let more = format!("[bluetooth]\nadapter = \"air:{}\"\n", air.display());
        let commissioning = format!("{}\n{commissioning}", Options::default().commissioning);
        let hub = Hub::start(lab, Options { more, commissioning, ..Options::default() });
        Self { hub, air, _directory: directory, lab }
    }

    fn set_wifi(&self, password: &str) {
        set_wifi(&self.hub, password);
    }

    fn device(&self, storage: &Path, more: &[&str]) -> VirtualDevice {
        let wifi = format!("Home:{PASSWORD}");
        let air = self.air.display().to_string();
        let own = ["--ble", &air, "--wifi", &wifi];
        VirtualDevice::start(self.lab, storage, &[&own[..], more].concat())
    }
}

fn set_wifi(hub: &Hub<'_>, password: &str) {
    let file = hub.path().join("wifi-password");
    fs::write(&file, password).unwrap();
    let set = hub.cli(["network", "set", "wifi", "Home", "--json", "--password-file", file.to_str().unwrap()]);
    assert_eq!(set.code, 0, "{}", set.stderr);
    assert_eq!(set.json["networks"][0]["name"], "Home");
    assert!(!set.stdout.contains(password), "what joins a network is never shown");
}

/// The time between two lines of the daemon's log is too coarse; the attempt's own timings are not.
fn timing(result: &Value, part: &str) -> u64 {
    result["timings_ms"][part].as_u64().unwrap()
}

fn found(answer: &Answer) -> usize {
    answer.json["nodes"].as_array().unwrap().iter().filter(|node| node["bluetooth"].is_object()).count()
}

#[test]
fn a_device_out_of_its_box_is_found_brought_onto_the_network_and_bound() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let rig = Rig::new(&lab);
    rig.set_wifi(PASSWORD);
    let storage = tempfile::tempdir().unwrap();
    let device = rig.device(storage.path(), &[]);
    let both = rig.hub.cli(["discover", "--json", "--timeout", "1s"]);
    assert_eq!(found(&both), 1, "{:#}", both.json);
    assert_eq!(both.json["nodes"][0]["discriminator"], 3840);
    assert_eq!(found(&rig.hub.cli(["discover", "--lan", "--json", "--timeout", "1s"])), 0);

    let (exit, result) = rig.hub.commission(&device.qr, &["--wait-bind", "60s"]);
    assert_eq!(exit, 0, "{result:#}\n{}", rig.hub.daemon_log());
    let node = &result["node"];
    eprintln!("out of the box: {}", result["timings_ms"]);
    assert_eq!(result["bind"]["state"], "bound");
    assert_eq!((&node["discriminator"], &node["state"]), (&json!(3840), &json!("operational")));
    assert!(node["addresses"].as_array().is_some_and(|all| !all.is_empty()), "{node:#}");
    assert!(timing(&result, "network") >= 200, "joining takes the device 200 ms: {result:#}");
    assert_eq!(rig.hub.synced("match")["in_sync"], true);
    assert_eq!(found(&rig.hub.cli(["discover", "--ble", "--json", "--timeout", "1s"])), 0, "its box is closed");
    let log = rig.hub.whole_daemon_log();
    assert!(!log.contains(PASSWORD));
    // A restart finds it on the network, at another port: it is asked once the hub has heard of that.
    drop(device);
    let _device = rig.device(storage.path(), &[]);
    let give_up = Instant::now() + Duration::from_secs(30);
    while rig.hub.ask(&["discover", "--operational", "--timeout", "1s"])["nodes"][0]["port"] == node["port"] {
        assert!(Instant::now() < give_up, "its new port is not heard of");
    }
    assert_eq!(rig.hub.ask(&["node", "check", &node["node_id"].to_string()])["reachable"], true);
}

/// The air's directory: who scans opens it every 50 ms.
struct Air(OwnedFd);

impl Air {
    fn of(directory: &Path) -> Self {
        let notices = inotify::init(inotify::CreateFlags::CLOEXEC).unwrap();
        inotify::add_watch(&notices, directory, inotify::WatchFlags::OPEN).unwrap();
        Self(notices)
    }

    /// Whether somebody scans in half a second from now on.
    fn is_scanned(&self) -> bool {
        let half_a_second = Timespec { tv_sec: 0, tv_nsec: 500_000_000 };
        let mut seen = [PollFd::new(&self.0, PollFlags::IN)];
        if poll(&mut seen, Some(&half_a_second)).unwrap() == 0 {
            return false;
        }
        rustix::io::read(&self.0, &mut [0; 65536][..]).unwrap();
        true
    }

    fn wait_until(&self, scanned: bool) {
        let give_up = Instant::now() + Duration::from_secs(30);
        while self.is_scanned() != scanned {
            assert!(Instant::now() < give_up, "somebody scans: {}", !scanned);
        }
    }
}

/// `discover --watch` with Bluetooth, with it alone and without it: what each is shown, and that nobody scans for those who have left.
#[test]
fn who_watches_sees_bluetooth_and_the_scan_ends_with_them() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let rig = Rig::new(&lab);
    let air = Air::of(&rig.air);
    let watch = |more: &[&str]| rig.hub.spawn_cli([&["discover", "--watch", "--json"], more].concat());
    let [mut both, mut ble, mut lan] = [watch(&[]), watch(&["--ble"]), watch(&["--lan"])];
    air.wait_until(true);
    let is = |event: &'static str, discriminator: u16, over_bluetooth: bool| {
        move |line: &Value| {
            line["event"] == event
                && line["discriminator"] == discriminator
                && line["bluetooth"].is_object() == over_bluetooth
        }
    };
    let (boxed, networked) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let boxed = rig.device(boxed.path(), &[]);
    both.wait_for("the one on Bluetooth", is("appeared", 3840, true));
    ble.wait_for("the one on Bluetooth", is("appeared", 3840, true));
    let networked = VirtualDevice::start(&lab, networked.path(), &["--discriminator", "78"]);
    both.wait_for("the one on the LAN", is("appeared", 78, false));
    lan.wait_for("the one on the LAN", |line| {
        assert!(line["bluetooth"].is_null(), "{line}");
        is("appeared", 78, false)(line)
    });
    drop((boxed, networked));
    // One that was killed leaves its advertisement behind.
    for entry in fs::read_dir(&rig.air).unwrap() {
        let _ = fs::remove_file(entry.unwrap().path());
    }
    ble.wait_for("its end", |line| {
        assert!(line["bluetooth"].is_object(), "{line}");
        is("disappeared", 3840, true)(line)
    });
    both.wait_for("its end", is("disappeared", 3840, true));
    ble.kill();
    assert!(air.is_scanned(), "one is left who watches Bluetooth");
    both.kill();
    air.wait_until(false);
    lan.kill();
}

#[test]
fn a_device_with_one_radio_is_met_as_soon_as_it_is_on_the_network() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let rig = Rig::new(&lab);
    rig.set_wifi(PASSWORD);
    for (way, discriminator) in [("--one-radio", "21"), ("--drops-ble", "22")] {
        let storage = tempfile::tempdir().unwrap();
        let device = rig.device(storage.path(), &[way, "--connect-time", "1s", "--discriminator", discriminator]);
        let (exit, result) = rig.hub.commission(&device.qr, &["--no-bind"]);
        assert_eq!(exit, 0, "{way}: {result:#}\n{}", rig.hub.daemon_log());
        eprintln!("{way}: {}", result["timings_ms"]);
        assert!(timing(&result, "operational") < 5_000, "{way}: lost link to CASE: {result:#}");
    }
}

#[test]
fn a_wrong_password_is_said_and_mended_while_the_device_waits() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let rig = Rig::new(&lab);
    rig.set_wifi("a wrong password");
    let storage = tempfile::tempdir().unwrap();
    let device = rig.device(storage.path(), &[]);
    let failure = rig.hub.commission_fails(&device.qr, &[], "network", "wifi-password-wrong", 4);
    assert!(!failure.to_string().contains("a wrong password"), "{failure:#}");
    // It has rolled back, and can be tried again; this time the attempt waits for the right one.
    let mut attempt = rig.hub.spawn_cli(["commission", &device.qr, "--events", "--no-bind", "--wait-network", "60s"]);
    attempt.wait_for("a note that it waits", |line| {
        line["message"].as_str().is_some_and(|message| message.contains("waits up to"))
    });
    rig.set_wifi(PASSWORD);
    let (exit, result) = attempt.result();
    assert_eq!((exit, &result["outcome"]), (0, &json!("commissioned")), "{result:#}\n{}", rig.hub.daemon_log());
}

#[test]
fn what_keeps_a_device_from_its_network_has_a_name() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let rig = Rig::with(&lab, "fail_safe = \"20s\"\nstep_timeout = \"8s\"");
    let storage = |_: &str| tempfile::tempdir().unwrap();
    let (first, second, third) = (storage("a"), storage("b"), storage("c"));
    let device = rig.device(first.path(), &["--discriminator", "1"]);
    let failure = rig.hub.commission_fails(&device.qr, &[], "network", "network-not-configured", 4);
    assert!(failure["hint"].as_str().unwrap().contains("network set wifi"), "{failure:#}");
    rig.set_wifi(PASSWORD);
    rig.hub.commission_fails(&device.qr, &["--network", "Elsewhere"], "network", "unknown-network", 2);
    drop(device);
    // The access point is off.
    let air = rig.air.display().to_string();
    let device = VirtualDevice::start(&lab, second.path(), &["--ble", &air, "--discriminator", "2"]);
    let failure = rig.hub.commission_fails(&device.qr, &[], "network", "network-not-found", 4);
    assert!(failure["message"].as_str().unwrap().contains("neighbours"), "it lists what it sees: {failure:#}");
    drop(device);
    // DHCP is silent.
    let device = rig.device(third.path(), &["--no-dhcp", "--discriminator", "3"]);
    let began = Instant::now();
    rig.hub.commission_fails(&device.qr, &[], "operational", "not-seen-on-network", 4);
    eprintln!("DHCP is silent: told after {} ms", began.elapsed().as_millis());
    // Nothing is left behind of any of them.
    assert_eq!(rig.hub.nodes(), Vec::<Value>::new());
}

#[test]
fn a_wrong_passcode_is_told_within_five_seconds_and_the_window_stays_open() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let rig = Rig::new(&lab);
    rig.set_wifi(PASSWORD);
    let storage = tempfile::tempdir().unwrap();
    let device = rig.device(storage.path(), &["--passcode", "20202022"]);
    let began = Instant::now();
    // The manual code of the same discriminator with another passcode.
    let failure = rig.hub.commission_fails("34970112332", &[], "pase", "wrong-passcode", 4);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(7), "{took:?}: {failure:#}");
    let (exit, result) = rig.hub.commission(&device.qr, &["--no-bind"]);
    assert_eq!(exit, 0, "{result:#}\n{}", rig.hub.daemon_log());
}

#[test]
fn segments_that_are_lost_or_overtake_each_other_end_in_a_documented_way() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let rig = Rig::with(&lab, "fail_safe = \"15s\"\nstep_timeout = \"8s\"");
    rig.set_wifi(PASSWORD);
    for trouble in ["--lose", "--swap"] {
        for (number, at) in ["4", "12", "20"].into_iter().enumerate() {
            let storage = tempfile::tempdir().unwrap();
            let discriminator = (100 + number).to_string();
            let device = rig.device(storage.path(), &[trouble, at, "--discriminator", &discriminator]);
            let (exit, result) = rig.hub.commission(&device.qr, &["--no-bind"]);
            let code = result["code"].as_str().unwrap_or("commissioned");
            eprintln!("{trouble} {at}: {} {code}", result["step"]);
            let documented = ["bluetooth-link-lost", "device-unreachable", "commissioned", "device-busy"];
            assert!(documented.contains(&code), "{trouble} {at}: {exit} {result:#}\n{}", rig.hub.daemon_log());
        }
    }
}

/// Threadhome, with a key that nobody has: timestamp, channel, extended PAN id, mesh-local prefix, key, name, PAN id.
const DATASET: &str = "0e080000000000010000000300000f020811111111222222220708fdd0a1b2c3d4e5f6\
                       051000112233445566778899aabbccddeeff030a546872656164686f6d6501021234";
const THREAD_KEY: &str = "00112233445566778899aabbccddeeff";

#[test]
fn the_dataset_of_a_border_router_is_taken_and_never_shown() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let rig = Rig::new(&lab);
    let (asked, requests) = std::sync::mpsc::channel();
    let (bound, listens) = std::sync::mpsc::channel();
    // The command line asks, and it is where this test is.
    std::thread::spawn(move || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        bound.send(listener.local_addr().unwrap()).unwrap();
        for answer in [("200 OK", DATASET), ("404 Not Found", "")] {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = String::new();
            let mut lines = BufReader::new(stream.try_clone().unwrap());
            while !request.ends_with("\r\n\r\n") {
                lines.read_line(&mut request).unwrap();
            }
            asked.send(request).unwrap();
            let (status, body) = answer;
            let length = body.len();
            write!(stream, "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
                .unwrap();
        }
    });
    let url = format!("http://{}/", listens.recv_timeout(Duration::from_secs(10)).unwrap());
    let set = ["network", "set", "thread", "--json", "--from-otbr", &url];
    let answer = rig.hub.cli(set);
    assert_eq!(answer.code, 0, "{}", answer.stderr);
    let request = requests.recv_timeout(Duration::from_secs(10)).unwrap().to_lowercase();
    assert!(
        request.starts_with("get /node/dataset/active http/1.1") && request.contains("accept: text/plain"),
        "{request}"
    );
    let network = &answer.json["networks"][0];
    assert_eq!((&network["name"], &network["kind"]), (&json!("Threadhome"), &json!("thread")));
    assert_eq!(network["id"], "1111111122222222");
    // A border router without a network changes nothing.
    let refused = rig.hub.cli(set);
    assert_eq!((refused.code, refused.stderr.contains("404")), (2, true), "{}", refused.stderr);
    let list = rig.hub.cli(["network", "list", "--json"]);
    assert_eq!(list.json["networks"].as_array().unwrap().len(), 1);
    for text in [&answer.stdout, &list.stdout, &rig.hub.whole_daemon_log()] {
        assert!(!text.to_lowercase().contains(THREAD_KEY), "the key is shown");
    }
}

/// OpenThread's border router, as it shows itself on D-Bus.
struct BorderRouter(Vec<u8>);

#[zbus::interface(name = "io.openthread.BorderRouter")]
impl BorderRouter {
    #[zbus(property)]
    fn active_dataset_tlvs(&self) -> Vec<u8> {
        self.0.clone()
    }
}

/// A bus of its own; it ends with the test.
struct Bus(std::process::Child);

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_dataset_of_a_border_router_on_this_machine_is_taken_over_d_bus() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let rig = Rig::new(&lab);
    let address = format!("unix:path={}", rig.hub.path().join("bus").display());
    let mut daemon = Command::new("dbus-daemon");
    daemon.args(["--session", "--nofork", "--nopidfile", "--print-address=1", "--address", &address]);
    let Ok(mut child) = daemon.stdout(Stdio::piped()).spawn() else {
        return eprintln!("skipped: there is no dbus-daemon");
    };
    let mut told = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut told).unwrap();
    let _bus = Bus(child);
    let set = |more: &[&str]| {
        let mut command = Command::new(MATTERBIND);
        command.arg("--socket").arg(rig.hub.socket()).args(["network", "set", "thread", "--json", "--from-otbr"]);
        command.args(more).env("DBUS_SYSTEM_BUS_ADDRESS", &address);
        Running::start(command).answer()
    };
    // Nobody is there yet.
    let nobody = set(&[]);
    assert_eq!((nobody.code, nobody.stderr.contains("otbr-agent")), (2, true), "{}", nobody.stderr);
    let bytes =
        |hex: &str| (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let serve = async |interface: &str, dataset: Vec<u8>| {
        let connection = zbus::connection::Builder::address(address.as_str()).unwrap();
        let connection = connection.name(format!("io.openthread.BorderRouter.{interface}")).unwrap();
        let path = format!("/io/openthread/BorderRouter/{interface}");
        connection.serve_at(path, BorderRouter(dataset)).unwrap().build().await.unwrap()
    };
    let _routers = runtime.block_on(async { (serve("wpan0", bytes(DATASET)).await, serve("wpan1", Vec::new()).await) });
    let answer = set(&["--name", "Mesh"]);
    assert_eq!(answer.code, 0, "{}", answer.stderr);
    let network = &answer.json["networks"][0];
    assert_eq!((&network["name"], &network["id"]), (&json!("Mesh"), &json!("1111111122222222")));
    let offline = set(&["dbus:wpan1"]);
    assert_eq!((offline.code, offline.stderr.contains("on no network")), (2, true), "{}", offline.stderr);
    for text in [&answer.stdout, &answer.stderr, &rig.hub.whole_daemon_log()] {
        assert!(!text.to_lowercase().contains(THREAD_KEY), "the key is shown");
    }
}

/// The hub is killed while the device joins. The device is not on the air again before its fail-safe has run out; the command that
/// is given anew waits for that by itself.
#[test]
fn an_unboxing_in_which_the_hub_was_killed_goes_on_by_itself_when_it_is_asked_for_again() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let mut rig = Rig::with(&lab, "fail_safe = \"20s\"\nstep_timeout = \"8s\"");
    rig.set_wifi(PASSWORD);
    let storage = tempfile::tempdir().unwrap();
    let device = rig.device(storage.path(), &["--connect-time", "5s"]);
    let mut attempt = rig.hub.spawn_cli(["commission", &device.qr, "--events", "--no-bind"]);
    attempt.wait_for_step("network");
    rig.hub.kill_daemon();
    drop(attempt);
    rig.hub.start_daemon();
    let began = Instant::now();
    let mut again = rig.hub.spawn_cli(["commission", &device.qr, "--events", "--no-bind"]);
    again.wait_for("a note that it waits", |line| {
        line["message"].as_str().is_some_and(|message| message.contains("was interrupted"))
    });
    let (exit, result) = again.result();
    assert_eq!((exit, &result["outcome"]), (0, &json!("commissioned")), "{result:#}\n{}", rig.hub.daemon_log());
    eprintln!("killed in the middle: commissioned {} ms after the next start", began.elapsed().as_millis());
    assert_eq!(rig.hub.nodes().len(), 1);
}

/// The hub is killed when the device is on its network and not yet complete. The next start goes on where it was: nothing is sent over
/// Bluetooth again, and nobody waits for the fail-safe.
#[test]
fn an_unboxing_in_which_the_hub_was_killed_after_the_join_goes_on_where_it_was() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let mut rig = Rig::with(&lab, "fail_safe = \"60s\"");
    rig.set_wifi(PASSWORD);
    rig.hub.kill_daemon();
    let mut devices = Vec::new();
    for (index, point) in ["network.connected", "case.opened", "acl.read-back"].into_iter().enumerate() {
        rig.hub.environment = vec![("MATTERBIND_FAILPOINT".to_owned(), point.to_owned())];
        rig.hub.start_daemon();
        let storage = tempfile::tempdir().unwrap();
        devices.push((rig.device(storage.path(), &["--discriminator", &(31 + index).to_string()]), storage));
        let code = &devices[index].0.qr;
        let (exit, answer) = rig.hub.commission(code, &[]);
        assert_eq!(exit, 5, "{point}: {answer:#}");
        rig.hub.kill_daemon();
        rig.hub.environment.clear();
        let air = Air::of(&rig.air);
        rig.hub.start_daemon();
        let began = Instant::now();
        let mut journal = rig.hub.follow();
        let resumed = (0..=index).map(|_| journal.wait_for_event("attempt-resumed")).last().unwrap();
        let is_bound = |line: &Value| line["kind"] == "node-bound" && line["node_id"] == resumed["node_id"];
        journal.wait_for("its bind", is_bound);
        let took = began.elapsed();
        eprintln!("killed at {point}: bound {} ms after the next start", took.as_millis());
        assert!(took < Duration::from_secs(30), "{point}: its fail-safe is far from its end: {took:?}");
        assert!(!air.is_scanned(), "{point}: it is met on its network");
        let joins = fs::read_to_string(devices[index].1.path().join("joins")).unwrap();
        assert_eq!(joins, "Home\n", "{point}: it is sent to its network once");
        let synced = rig.hub.synced("match");
        assert_eq!((&synced["in_sync"], rig.hub.nodes().len()), (&json!(true), index + 1));
        // Who gives the command again is told that it is ours.
        rig.hub.commission_fails(code, &[], "discover", "already-on-this-fabric", 4);
        rig.hub.kill_daemon();
    }
}

#[test]
fn a_hub_without_bluetooth_says_so_at_once_and_works_on_the_network() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let directory = tempfile::tempdir().unwrap();
    let air = directory.path().join("air");
    fs::create_dir(&air).unwrap();
    let more = "[bluetooth]\nadapter = \"none\"\n".to_owned();
    let hub = Hub::start(&lab, Options { more, ..Options::default() });
    set_wifi(&hub, PASSWORD);
    let air = air.display().to_string();
    let boxed = VirtualDevice::start(&lab, &directory.path().join("a"), &["--ble", &air, "--discriminator", "77"]);
    let began = Instant::now();
    let failure = hub.commission_fails(&boxed.qr, &[], "discover", "bluetooth-unavailable", 4);
    assert!(began.elapsed() < Duration::from_secs(5), "{failure:#}");
    assert!(failure["message"].as_str().unwrap().contains("switched off in the configuration"), "{failure:#}");
    let mut watch = hub.spawn_cli(["discover", "--watch", "--json"]);
    let said = watch.wait_for("why Bluetooth hears nobody", |line| line["event"] == "bluetooth-unavailable");
    assert!(said["message"].as_str().unwrap().contains("switched off in the configuration"), "{said:#}");
    let refused = hub.cli(["discover", "--watch", "--ble", "--json"]);
    assert_eq!((refused.code, &refused.json["code"]), (4, &json!("bluetooth-unavailable")), "{refused:?}");
    let status = hub.cli(["status"]);
    assert!(status.stdout.contains("no Bluetooth: Bluetooth is switched off"), "{}", status.stdout);
    let device = VirtualDevice::start(&lab, &directory.path().join("b"), &["--discriminator", "78"]);
    watch.wait_for("what is on the LAN", |line| line["event"] == "appeared" && line["discriminator"] == 78);
    let (exit, result) = hub.commission(&device.manual, &["--no-bind"]);
    assert_eq!(exit, 0, "{result:#}");
}
