//! Who answers is proved, and whoever is there is found: a stranger at a lamp's address, addresses that nobody has any more, a
//! hub that restarts, more questions at once than the stack has sessions, and a device that stands still for a while.
//!
//! ```text
//! hub (daemon, reference cloud) ── switch ── hosts with a light each
//! ```

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::daemon::{Hub, MATTERBIND, Options, PATIENCE, VirtualDevice};
use crate::support::lab::{Families, INTERFACE, Lab};
use crate::support::matterjs::Lights;

fn light(lab: &Lab, host: usize, storage: &std::path::Path, serial: &str) -> VirtualDevice {
    let discriminator = (200 + host).to_string();
    let arguments = ["--port", "5540", "--serial-number", serial, "--discriminator", &discriminator];
    VirtualDevice::launch(lab.host_command(host, MATTERBIND), storage, &arguments)
}

/// A lamp is unplugged, and its address goes to another Matter device, on the port that all of them have. Whatever that says to
/// the hub, nothing is unbound and nothing is forgotten; the lamp is bound as before when it is back.
#[test]
fn a_stranger_at_a_lamp_s_address_costs_it_nothing() {
    let Some(lab) = Lab::home(3) else { return };
    let storage = tempfile::tempdir().unwrap();
    let (home, foreign) = (storage.path().join("lamp"), storage.path().join("stranger"));
    lab.set_host_address(0, 20);
    lab.set_host_address(2, 30);
    let hub = Hub::start(&lab, Options::default());
    let lamp = light(&lab, 0, &home, "REACH01");
    let node = hub.commission_and_bind(&lamp.qr)["node_id"].clone();
    let id = node.to_string();
    let bound = hub.binding("REACH01");
    let mut log = hub.follow();

    lamp.kill();
    lab.set_host_address(0, 21);
    lab.set_host_address(2, 20);
    let stranger = light(&lab, 2, &foreign, "REACH02");
    let check = hub.cli(["node", "check", &id, "--json"]);
    assert_eq!((check.code, &check.json["reachable"]), (4, &json!(false)), "{check:?}");
    assert_eq!(hub.synced("device-unreachable")["in_sync"], false);
    log.wait_for("the flag", |line| line["kind"] == "node-unreachable" && line["node_id"] == node);
    let removal = hub.cli(["node", "remove", &id, "--json"]);
    assert_eq!(removal.code, 4, "{removal:?}");
    let message = removal.json["message"].as_str().unwrap();
    assert!(message.contains("on the device our fabric is still there"), "{message}");
    hub.ask(&["node", "keep", &id]);
    let told = hub.cli(["logs", "--json"]).stdout;
    assert!(!told.contains("node-off-fabric"), "nothing was proved:\n{told}");
    assert_eq!(hub.binding("REACH01"), bound, "nothing was unbound");

    stranger.kill();
    let _lamp = light(&lab, 0, &home, "REACH01");
    log.wait_for("its return", |line| line["kind"] == "node-returned" && line["node_id"] == node);
    assert_eq!(hub.synced("match")["in_sync"], true);
    assert_eq!(hub.binding("REACH01"), bound);
    assert_eq!(hub.cloud_state()["counters"]["unbinds"], json!({}));
}

/// A device that announces more addresses than it has: some that it has lost, some to which there is no way. It is commissioned
/// all the same, stays reachable, and the address that is reported is one that it has.
#[test]
fn dead_addresses_of_a_device_do_not_hide_it() {
    let Some(lab) = Lab::home(1) else { return };
    let storage = tempfile::tempdir().unwrap();
    lab.set_host_address(0, 20);
    let dead = ["fd77::d1/64", "fd77::d2/64", "2001:db8:77::1/64", "fd99::1/64"];
    let host = |words: &[&str]| assert!(lab.host_command(0, "ip").args(words).status().unwrap().success());
    dead.iter().for_each(|address| host(&["addr", "add", address, "dev", INTERFACE, "nodad"]));
    let mut hub = Hub::start(&lab, Options::default());
    let lamp = light(&lab, 0, storage.path(), "REACH03");
    // What it has announced stays announced.
    dead.iter().for_each(|address| host(&["addr", "del", address, "dev", INTERFACE]));
    let began = Instant::now();
    let node = hub.commission_and_bind(&lamp.qr);
    let took = began.elapsed();
    let id = node["node_id"].to_string();
    let is_dead = |address: &str| dead.iter().any(|dead| dead.split('/').next() == Some(address));
    let reported = node["addresses"][0].as_str().unwrap().to_owned();
    assert!(!is_dead(&reported), "{node:#}");
    let check = |hub: &Hub<'_>| {
        let check = hub.ask(&["node", "check", &id]);
        assert_eq!(check["reachable"], true, "{check:#}\n{}", hub.daemon_log());
        assert!(!is_dead(check["address"].as_str().unwrap()), "{check:#}");
        check["duration_ms"].as_u64().unwrap()
    };
    let first = check(&hub);
    hub.stop_daemon();
    hub.start_daemon();
    let after_restart = check(&hub);
    println!("commissioned in {took:?}, check {first} ms, after a restart {after_restart} ms");
    // Far below what waiting for one dead address after the other takes.
    assert!(took < Duration::from_secs(12), "{took:?}");
    assert!(first < 3_000 && after_restart < 3_000, "{first} {after_restart}");
    assert_eq!(hub.nodes()[0]["state"], "operational");
}

/// A restarted hub tries the addresses that it remembers beside asking mDNS: five nodes answer at once, although their one
/// responder is slow to tell of more than one service.
#[test]
fn after_a_restart_the_nodes_answer_at_once() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let Some(lights) = Lights::start(&lab, &[("SERIAL", "REACH1"), ("COUNT", "5")]) else { return };
    let mut hub = Hub::start(&lab, Options::default());
    let ids: Vec<String> =
        lights.lights.iter().map(|light| hub.commission_and_bind(&light.qr)["node_id"].to_string()).collect();
    hub.stop_daemon();
    hub.start_daemon();
    let began = Instant::now();
    let checks: Vec<_> = ids.iter().map(|id| hub.spawn_cli(["node", "check", id, "--json"])).collect();
    for check in checks {
        let answer = check.answer();
        assert_eq!(answer.json["reachable"], true, "{answer:?}\n{}", hub.daemon_log());
    }
    let took = began.elapsed();
    println!("five nodes {took:?} after the restart");
    assert!(took < Duration::from_secs(7), "{took:?}");
    let told = hub.cli(["logs", "--json"]).stdout;
    assert!(!told.contains("node-unreachable"), "{told}");
}

/// `node check` over the socket, without a process for each; what it said.
fn check(socket: &std::path::Path, id: &str) -> Value {
    let body = json!({ "action": "check" }).to_string();
    let mut client = UnixStream::connect(socket).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!("POST /v1/nodes/{id}/action HTTP/1.1\r\nhost: hub\r\ncontent-type: application/json");
    let length = body.len();
    write!(client, "{head}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    let document = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    serde_json::from_str(&document).unwrap_or_else(|_| panic!("no JSON: {answer}"))
}

/// A light beside the others, commissioned and bound; and its node id.
fn bound_light(lab: &Lab, hub: &Hub<'_>, storage: &std::path::Path, number: u16) -> (VirtualDevice, String) {
    let (port, discriminator) = ((5600 + number).to_string(), (400 + number).to_string());
    let serial = format!("REACH2{number:02}");
    let arguments = ["--port", &port, "--discriminator", &discriminator, "--serial-number", &serial];
    let device = VirtualDevice::start(lab, &storage.join(&serial), &arguments);
    let id = hub.commission_and_bind(&device.qr)["node_id"].to_string();
    (device, id)
}

/// The stack has 64 sessions. Questions beyond them wait for their turn; none fails.
#[test]
fn two_hundred_and_fifty_checks_at_once_all_end_well() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let storage = tempfile::tempdir().unwrap();
    let hub = Hub::start(&lab, Options::default());
    let devices: Vec<_> = (0..2).map(|number| bound_light(&lab, &hub, storage.path(), number)).collect();
    let (socket, began) = (hub.socket(), Instant::now());
    let answers: Vec<Value> = std::thread::scope(|scope| {
        let ask = |number: usize| {
            let (socket, id) = (&socket, &devices[number % devices.len()].1);
            scope.spawn(move || check(socket, id))
        };
        let asking: Vec<_> = (0..250).map(ask).collect();
        asking.into_iter().map(|one| one.join().unwrap()).collect()
    });
    println!("250 checks in {:?}", began.elapsed());
    let failed: Vec<&Value> = answers.iter().filter(|answer| answer["reachable"] != true).collect();
    assert!(failed.is_empty(), "{} failed, the first: {:#}\n{}", failed.len(), failed[0], hub.daemon_log());
}

/// Datagrams that the hub's namespace has sent and received so far, both families.
fn datagrams(lab: &Lab) -> u64 {
    lab.in_hub(|| async {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default();
        let six = read("snmp6");
        let named = |name: &str| {
            let line = six.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.trim().parse::<u64>().ok()).unwrap_or(0)
        };
        let four = read("snmp");
        let mut udp = four.lines().filter_map(|line| line.strip_prefix("Udp: "));
        let (names, values) = (udp.next().unwrap_or_default(), udp.next().unwrap_or_default());
        let of = |name: &str| {
            let place = names.split_whitespace().position(|known| known == name);
            place.and_then(|place| values.split_whitespace().nth(place)?.parse::<u64>().ok()).unwrap_or(0)
        };
        named("Udp6InDatagrams") + named("Udp6OutDatagrams") + of("InDatagrams") + of("OutDatagrams")
    })
}

/// A device that stood still answers everything at once when it goes on. That neither makes the two ends answer each other's
/// acknowledgements for ever nor fills the log, and its neighbour answers throughout.
#[test]
fn a_device_that_stood_still_starts_no_storm() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let storage = tempfile::tempdir().unwrap();
    let hub = Hub::start(&lab, Options::default());
    let (stalled, id) = bound_light(&lab, &hub, storage.path(), 0);
    let (_neighbour, other) = bound_light(&lab, &hub, storage.path(), 1);
    let (lines, sent) = (hub.whole_daemon_log().lines().count(), datagrams(&lab));
    stalled.stall(true);
    // Handshakes and reads that are broken off on our side while their answers wait on the other.
    for _ in 0..3 {
        let checks: Vec<_> = (0..4).map(|_| hub.spawn_cli(["node", "check", &id, "--json"])).collect();
        let also = hub.cli(["node", "check", &other, "--json"]);
        assert_eq!(also.json["reachable"], true, "{also:?}");
        checks.into_iter().for_each(|check| assert_eq!(check.answer().json["reachable"], false));
    }
    stalled.stall(false);
    let give_up = Instant::now() + PATIENCE;
    while hub.cli(["node", "check", &id, "--json"]).json["reachable"] != true {
        assert!(Instant::now() < give_up, "it does not come back\n{}", hub.daemon_log());
    }
    // A storm would be there by now.
    let (before, begin) = (datagrams(&lab), Instant::now());
    std::thread::sleep(Duration::from_secs(3));
    let rate = (datagrams(&lab) - before) as f64 / begin.elapsed().as_secs_f64();
    let (lines, sent) = (hub.whole_daemon_log().lines().count() - lines, before - sent);
    println!("{lines} log lines, {sent} datagrams, then {rate:.0} a second");
    assert!(lines < 400, "{lines} lines:\n{}", hub.daemon_log());
    assert!(sent < 5_000 && rate < 200.0, "{sent} datagrams, then {rate:.0} a second");
    assert_eq!(hub.ask(&["node", "check", &other])["reachable"], true);
}
