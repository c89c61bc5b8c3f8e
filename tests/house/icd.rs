//! A device that sleeps long, on a real network: the hub registers with it, it sleeps and hears nothing, wakes and checks in.
//!
//! ```text
//! hub namespace: matterbind daemon, announced as a node of its fabric     devices' namespace: virtual-device --sleeps
//!                       mb0 ═════════════════════ veth ═════════════════════ mb0
//! ```

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::daemon::{Hub, Options, VirtualDevice};
use crate::support::lab::{Families, Lab};

/// Longer than any wait below may take by itself.
const PATIENCE: Duration = Duration::from_secs(90);

fn last_seen(hub: &Hub<'_>, node: &str) -> String {
    hub.ask(&["node", "show", node])["last_seen_at"].as_str().unwrap().to_owned()
}

/// It was heard of again, while nobody has asked it.
fn until_heard_of(hub: &Hub<'_>, node: &str, than: &str) -> String {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let seen = last_seen(hub, node);
        if seen.as_str() > than {
            return seen;
        }
        assert!(Instant::now() < give_up, "no check-in since {than}\n{}", hub.daemon_log());
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn a_device_that_sleeps_long_is_lived_with_by_its_check_ins() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let mut hub = Hub::start(&lab, Options::default());
    let storage = tempfile::tempdir().unwrap();
    let device = VirtualDevice::start(&lab, storage.path(), &["--sleeps", "4s", "--awake", "500ms"]);
    let (exit, result) = hub.commission(&device.qr, &["--wait-bind", "60s"]);
    assert_eq!(exit, 0, "{result:#}\n{}", hub.daemon_log());
    assert_eq!(result["node"]["icd"], "registered", "{result:#}\n{}", hub.daemon_log());
    let node = result["node"]["node_id"].to_string();

    // Two check-ins in a row, and more after the hub was started again.
    let first = until_heard_of(&hub, &node, &last_seen(&hub, &node));
    until_heard_of(&hub, &node, &first);
    hub.kill_daemon();
    hub.start_daemon();
    let before = last_seen(&hub, &node);
    until_heard_of(&hub, &node, &before);
    assert_eq!(hub.ask(&["node", "show", &node])["state"], "operational");

    // One that does not come any more is said, without a single question.
    let mut log = hub.follow();
    device.stall(true);
    let silence = log.wait_for("its silence", |line| line["kind"] == "node-unreachable");
    assert!(silence["message"].as_str().unwrap().contains("checked in"), "{silence:#}");
    device.stall(false);
    log.wait_for("its return", |line| line["kind"] == "node-returned");

    // It goes from both sides.
    let give_up = Instant::now() + PATIENCE;
    while hub.cli(["node", "remove", &node]).code != 0 && !hub.nodes().is_empty() {
        assert!(Instant::now() < give_up, "{}", hub.daemon_log());
    }
    assert_eq!(hub.nodes(), Vec::<serde_json::Value>::new());
}

#[test]
fn what_a_sleeping_device_has_to_be_told_is_told_when_it_wakes() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let hub = Hub::start(&lab, Options::default());
    let storage = tempfile::tempdir().unwrap();
    // Awake for as long as one that sleeps long is at least (Matter Core 9.16.6.3).
    let device = VirtualDevice::start(&lab, storage.path(), &["--sleeps", "60s", "--awake", "5s"]);
    let (exit, result) = hub.commission(&device.qr, &["--no-bind"]);
    assert_eq!((exit, &result["node"]["icd"]), (0, &json!("registered")), "{result:#}\n{}", hub.daemon_log());
    let node = result["node"]["node_id"].to_string();
    // It was asked to stay awake for ten seconds; then it sleeps, for longer than what follows takes. Asking it keeps it awake.
    let give_up = Instant::now() + PATIENCE;
    let asleep = loop {
        std::thread::sleep(Duration::from_secs(12));
        let answer = hub.ask_any(&["node", "check", &node]);
        if answer["reachable"] == false {
            break answer;
        }
        assert!(Instant::now() < give_up, "it does not fall asleep: {answer:#}");
    };
    let message = asleep["message"].as_str().unwrap();
    assert!(message.contains("sleeps") && message.contains("press its setup button"), "{message}");
    let mut log = hub.follow();
    let report = hub.ask_any(&["access", "apply", &node]);
    assert_eq!(report["nodes"][0]["code"], "device-asleep", "{report:#}\n{}", hub.daemon_log());
    let node_id = &result["node"]["node_id"];
    log.wait_for("the access list", |line| line["kind"] == "access-unchanged" && line["node_id"] == *node_id);
    assert_eq!(hub.ask(&["node", "show", &node])["state"], "operational", "its sleep is no silence");
}
