//! The main job on real parts: the daemon's process commissions lights that we did not write (matter.js), and our own
//! virtual device, over real multicast, and binds them in the reference cloud's process.
//!
//! ```text
//! hub namespace: matterbind daemon ─ cloud-sim      devices' namespace: matter.js, virtual-device
//!                       mb0 ══════════════ veth ══════════════ mb0
//! ```
//!
//! Not here: what goes wrong (`bad_days`).

use serde_json::{Value, json};

use crate::support::daemon::{Hub, Options, VirtualDevice};
use crate::support::lab::{Families, Lab};
use crate::support::matterjs::Lights;

/// The cloud holds the Matter ids of the record.
fn assert_bound_as_recorded(hub: &Hub<'_>, node: &Value) {
    let binding = hub.binding(node["device_key"].as_str().unwrap());
    let info = &binding["matter_info"];
    let told = json!({
        "fabric_id": info["fabricId"], "node_id": info["nodeId"], "vendor_id": info["matterVendorId"],
        "product_id": info["matterProductId"], "discriminator": info["discriminator"],
        "matter_version": info["matterVersion"], "cats": info["catList"], "product_key": binding["product_key"],
        "capabilities_bitmask": binding["capabilities_bitmask"], "name": binding["device_name"],
    });
    for (field, value) in told.as_object().unwrap() {
        assert_eq!(*value, node[field], "{field}: {binding:#}");
    }
    assert_eq!(binding["is_matter"], true);
}

/// The record says what the device says, read now.
fn assert_recorded_as_is(hub: &Hub<'_>, node: &Value) {
    let id = node["node_id"].to_string();
    let check = hub.ask(&["node", "check", &id]);
    assert_eq!(check["reachable"], true, "{check:#}");
    assert_eq!(check["differences"], json!([]), "{check:#}");
    let shown = hub.ask(&["node", "show", &id]);
    assert!(shown["attestation_evidence"].is_object(), "{shown:#}");
    // What these development devices show is allowed by the configuration, and said.
    assert!(shown["attestation"]["verdict"].as_str().unwrap().starts_with("accepted"), "{shown:#}");
}

/// Removes a node everywhere.
fn remove(hub: &Hub<'_>, node: &Value) {
    let removed = hub.ask(&["node", "remove", &node["node_id"].to_string()]);
    assert_eq!((&removed["device_removed"], &removed["record_deleted"]), (&json!(true), &json!(true)), "{removed:#}");
    assert_eq!(removed["cloud"], "removed", "{removed:#}\n{}", hub.daemon_log());
    assert!(hub.nodes().iter().all(|left| left["node_id"] != node["node_id"]));
    assert_eq!(hub.binding(node["device_key"].as_str().unwrap()), Value::Null);
}

/// SIGKILL and restart: the same truth.
fn survives_a_kill(hub: &mut Hub<'_>) {
    let (nodes, outbox, fabric) = (hub.nodes(), hub.outbox(), hub.ask(&["fabric", "show"]));
    hub.kill_daemon();
    hub.start_daemon();
    assert_eq!((hub.nodes(), hub.outbox()), (nodes, outbox));
    assert_eq!(hub.ask(&["fabric", "show"]), fabric);
}

#[test]
fn a_light_is_commissioned_bound_shared_renamed_removed_and_commissioned_again() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let Some(mut lights) = Lights::start(&lab, &[("SERIAL", "JSLIGHT"), ("COUNT", "2")]) else { return };
    let mut hub = Hub::start(&lab, Options::default());
    let (first, second) = (lights.lights[0].clone(), lights.lights[1].clone());

    // By QR; the daemon is killed right after the reply.
    let node = hub.commission_and_bind(&first.qr);
    survives_a_kill(&mut hub);
    let expected = json!({
        "vendor_id": 0xFFF1, "product_id": 0x8000, "discriminator": first.discriminator, "vendor_name": "Interop",
        "product_name": "Interop Light", "serial_number": "JSLIGHT0", "unique_id": format!("u-{}", first.id),
        "device_key": "JSLIGHT0", "product_key": "p11abc", "state": "operational", "capabilities_bitmask": 10,
    });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(node[field], *value, "{field}: {node:#}");
    }
    let cats = json!([
        { "cat": 0x0001_0001, "privilege": "Administer" },
        { "cat": 0x0002_0001, "privilege": "Operate" },
        { "cat": 0x0003_0001, "privilege": "View" },
    ]);
    assert_eq!(node["cats"], cats);
    assert_bound_as_recorded(&hub, &node);
    assert_recorded_as_is(&hub, &node);

    // By manual code.
    let other = hub.commission_and_bind(&second.manual);
    assert_bound_as_recorded(&hub, &other);
    assert_recorded_as_is(&hub, &other);
    assert_eq!(other["node_id"].as_u64(), node["node_id"].as_u64().map(|id| id + 1), "ids ascend");
    assert_eq!(hub.outbox(), Vec::<Value>::new());

    // A second commissioner with a state of its own joins by the printed code.
    let shared = hub.ask(&["node", "share", &node["node_id"].to_string()]);
    let mut guest = Hub::new(&lab, Options::default());
    guest.start_daemon();
    let (exit, joined) = guest.commission(shared["qr_payload"].as_str().unwrap(), &["--no-bind"]);
    assert_eq!(exit, 0, "{joined:#}\n{}", guest.daemon_log());
    assert_ne!(joined["node"]["fabric_id"], node["fabric_id"]);
    assert_eq!(joined["node"]["serial_number"], "JSLIGHT0");
    assert_eq!(joined["bind"]["state"], "disabled");
    assert_recorded_as_is(&hub, &node);
    guest.ask(&["node", "remove", &joined["node"]["node_id"].to_string()]);
    assert_eq!(guest.nodes(), Vec::<Value>::new());
    assert!(guest.stop_daemon().success());

    // A new name reaches the cloud.
    let mut log = hub.follow();
    hub.ask(&["node", "rename", &node["node_id"].to_string(), "Hall lamp"]);
    log.wait_for_event("node-renamed-in-cloud");
    assert_eq!(hub.binding("JSLIGHT0")["device_name"], "Hall lamp");
    assert_eq!(hub.ask(&["node", "show", "Hall lamp"])["node_id"], node["node_id"]);

    // Removed; it is found again each time.
    for light in [&first, &second, &first] {
        let serial = format!("JSLIGHT{}", light.id.trim_start_matches("light"));
        let nodes = hub.nodes();
        let node = nodes.iter().find(|node| node["serial_number"] == serial).unwrap();
        remove(&hub, node);
        lights.wait_for(&format!("DECOMMISSIONED {}", light.id));
        let again = hub.commission_and_bind(&light.qr);
        assert!(again["node_id"].as_u64() > node["node_id"].as_u64(), "never reused");
        assert_bound_as_recorded(&hub, &again);
    }
    assert!(hub.stop_daemon().success());
}

#[test]
fn eight_lights_at_once() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let Some(lights) = Lights::start(&lab, &[("SERIAL", "JSEIGHT"), ("COUNT", "8")]) else { return };
    let mut hub = Hub::start(&lab, Options::default());
    let commissions: Vec<_> = lights
        .lights
        .iter()
        .map(|light| hub.spawn_cli(["commission", &light.qr, "--json", "--wait-bind", "60s", "--name", &light.id]))
        .collect();
    for commission in commissions {
        let answer = commission.answer();
        assert_eq!(answer.code, 0, "{answer:?}\n{}", hub.daemon_log());
        assert_eq!(answer.json["bind"]["state"], "bound", "{answer:?}");
        assert_bound_as_recorded(&hub, &answer.json["node"]);
    }
    survives_a_kill(&mut hub);
    let nodes = hub.nodes();
    assert_eq!(nodes.len(), 8);
    assert_eq!(hub.outbox(), Vec::<Value>::new());
    for node in &nodes {
        assert_recorded_as_is(&hub, node);
    }
    let status = hub.ask(&["status"]);
    assert_eq!((&status["nodes"]["operational"], &status["outbox"]["total"]), (&json!(8), &json!(0)), "{status:#}");
}

/// The acknowledgement comes by itself then, as the first word on a new session, and the answer says nothing about it.
#[test]
fn a_device_that_takes_its_time_is_no_silent_one() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let Some(lights) = Lights::start(&lab, &[("SERIAL", "JSSLOW"), ("SLOW", "600")]) else { return };
    let hub = Hub::start(&lab, Options::default());
    let node = hub.commission_and_bind(&lights.lights[0].qr);
    assert_bound_as_recorded(&hub, &node);
    assert_recorded_as_is(&hub, &node);
}

#[test]
fn the_virtual_device_goes_the_same_way() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let storage = tempfile::tempdir().unwrap();
    let (qr, manual) = (storage.path().join("one"), storage.path().join("two"));
    let mut hub = Hub::start(&lab, Options::default());
    let one = VirtualDevice::start(&lab, &qr, &["--serial-number", "VDONE", "--discriminator", "2000"]);
    let arguments = ["--serial-number", "VDTWO", "--discriminator", "1000", "--passcode", "34567890"];
    let two = VirtualDevice::start(&lab, &manual, &arguments);

    let node = hub.commission_and_bind(&one.qr);
    survives_a_kill(&mut hub);
    assert_eq!((&node["serial_number"], &node["product_id"]), (&json!("VDONE"), &json!(0x8001)), "{node:#}");
    assert_bound_as_recorded(&hub, &node);
    assert_recorded_as_is(&hub, &node);
    let other = hub.commission_and_bind(&two.manual);
    assert_bound_as_recorded(&hub, &other);
    assert_recorded_as_is(&hub, &other);

    // It keeps its fabric over a power cut, and is met again wherever it is.
    two.kill();
    let two = VirtualDevice::start(&lab, &manual, &arguments);
    assert!(!two.commissionable);
    assert_recorded_as_is(&hub, &other);

    let shared = hub.ask(&["node", "share", &other["node_id"].to_string()]);
    let mut guest = Hub::new(&lab, Options::default());
    guest.start_daemon();
    let (exit, joined) = guest.commission(shared["manual_code"].as_str().unwrap(), &["--no-bind"]);
    assert_eq!(exit, 0, "{joined:#}\n{}", guest.daemon_log());

    for (node, code) in [(&node, &one.qr), (&other, &two.manual)] {
        if node["serial_number"] == "VDTWO" {
            guest.ask(&["node", "remove", &joined["node"]["node_id"].to_string()]);
        }
        remove(&hub, node);
        let again = hub.commission_and_bind(code);
        assert_bound_as_recorded(&hub, &again);
    }
    assert!(hub.stop_daemon().success());
}
