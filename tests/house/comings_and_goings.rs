//! Devices that leave and come back: a removal that can be taken back until the device is told, a dead device that goes at
//! once by force, a window that is open already, and a device that was reset and commissioned again.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::daemon::{Hub, Options};
use crate::support::lab::{Families, Lab};
use crate::support::matterjs::Lights;

#[test]
fn a_removal_is_taken_back_until_the_device_is_told_and_a_dead_device_goes_at_once_by_force() {
    let variables = [("SERIAL", "GOING01")];
    let Some(lab) = Lab::new(Families::Both) else { return };
    let Some(light) = Lights::start(&lab, &variables) else { return };
    let hub = Hub::start(&lab, Options::default());
    let node = hub.commission_and_bind(&light.lights[0].qr)["node_id"].clone();
    let id = node.to_string();
    let mut log = hub.follow();
    let storage = light.kill();

    // Nobody answers: it says what stands where, and the person changes their mind.
    let failed = hub.cli(["node", "remove", &id, "--json"]);
    assert_eq!((failed.code, &failed.json["code"]), (4, &json!("device-unreachable")), "{}", failed.json);
    let message = failed.json["message"].as_str().unwrap();
    for part in ["on the device our fabric is still there", "in the cloud it is still bound", "is being removed"] {
        assert!(message.contains(part), "{message}");
    }
    let asked = log.wait_for_event("removal-asked");
    assert_eq!(asked["fields"]["who"], "root (uid 0)", "{asked:#}");
    assert_eq!(hub.synced("removing")["in_sync"], true);
    assert_eq!(hub.ask(&["node", "keep", &id])["node_id"], node);
    let again = hub.cli(["node", "keep", &id, "--json"]);
    assert_eq!((again.code, &again.json["code"]), (2, &json!("not-being-removed")), "{}", again.json);

    // Back with power, it is what it was.
    let light = Lights::start_on(&lab, &variables, storage).unwrap();
    log.wait_for("its return", |line| line["kind"] == "node-returned" && line["node_id"] == node);
    hub.synced("match");

    // Dead for good, and known to be: by force there is nothing to wait for.
    let _storage = light.kill();
    log.wait_for("the flag", |line| line["kind"] == "node-unreachable" && line["node_id"] == node);
    let began = Instant::now();
    let removed = hub.ask(&["node", "remove", &id, "--force", "--yes"]);
    assert_eq!((&removed["device_removed"], &removed["record_deleted"]), (&json!(false), &json!(true)), "{removed:#}");
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    assert_eq!(hub.binding("GOING01"), Value::Null);
}

#[test]
fn sharing_while_a_window_is_open_says_until_when_and_a_window_can_be_closed() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let Some(light) = Lights::start(&lab, &[("SERIAL", "GOING02")]) else { return };
    let hub = Hub::start(&lab, Options::default());
    let id = hub.commission_and_bind(&light.lights[0].qr)["node_id"].to_string();
    assert_eq!(hub.ask(&["node", "share", &id, "--close"])["closed"], false);
    let shared = hub.ask(&["node", "share", &id, "--for", "5m"]);
    let again = hub.cli(["node", "share", &id, "--json"]);
    assert_eq!((again.code, &again.json["code"]), (4, &json!("window-open")), "{}", again.json);
    let until = &shared["expires_at"].as_str().unwrap()[..16];
    assert!(again.json["message"].as_str().unwrap().contains(until), "{until}: {}", again.json);
    assert_eq!(hub.ask(&["node", "share", &id, "--close"])["closed"], true);
    hub.ask(&["node", "share", &id, "--for", "5m"]);
}

#[test]
fn a_device_that_was_reset_and_paired_again_takes_its_old_node_s_place() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let Some(mut lights) = Lights::start(&lab, &[("SERIAL", "GOING03")]) else { return };
    let hub = Hub::start(&lab, Options::default());
    let (code, first) = hub.commission(&lights.lights[0].qr, &["--name", "hall", "--wait-bind", "30s"]);
    assert_eq!((code, &first["bind"]["state"]), (0, &json!("bound")), "{first:#}");
    lights.command("reset 0");

    // Without a name this time: it keeps the one that it had.
    let (code, second) = hub.commission(&lights.lights[0].qr, &["--wait-bind", "30s"]);
    assert_eq!((code, &second["bind"]["state"]), (0, &json!("bound")), "{second:#}");
    assert_eq!((&second["replaces"], &second["node"]["name"]), (&first["node"]["node_id"], &json!("hall")));
    let nodes = hub.nodes();
    let ids: Vec<&Value> = nodes.iter().map(|node| &node["node_id"]).collect();
    assert_eq!(ids, [&second["node"]["node_id"]]);
    assert_eq!(hub.binding("GOING03")["matter_info"]["nodeId"], second["node"]["node_id"]);
    assert_eq!(hub.outbox(), Vec::<Value>::new());
    hub.synced("match");
    let told = hub.cli(["logs", "--json"]).stdout;
    assert!(told.lines().any(|line| line.contains("node-replaced")), "{told}");

    hub.ask(&["node", "remove", "hall"]);
    assert_eq!(hub.binding("GOING03"), Value::Null);
}
