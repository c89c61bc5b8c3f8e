//! Local equals cloud equals device: drift of each kind is made by hand on a matter.js light or in the cloud, `sync` names it
//! and, as configured, mends it. A device that was reset is only told about, never commissioned again by itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use matterbind::facade::bluetooth::Bluetooth;
use matterbind::facade::commissioning::ports::{MatterLink, OperationalSession};
use matterbind::facade::config::BluetoothConfig;
use matterbind::facade::fabric::{Cat, Privilege};
use matterbind::facade::keystore::Keystore;
use matterbind::facade::matter::credentials::reissue_hub_noc;
use matterbind::facade::matter::{Credentials, Link, Stack, StackOptions};
use matterbind::facade::node::NodeId;
use serde_json::{Value, json};

use crate::support::daemon::{Hub, Options, PATIENCE};
use crate::support::lab::{Families, Lab};
use crate::support::matterjs::{Lights, join_with_second_controller};

/// A hub that mends: binds again what the cloud lost, and restores or records what another administrator changed.
fn mending<'a>(lab: &'a Lab, on_access_drift: &str) -> Hub<'a> {
    let mut hub = Hub::new(lab, Options::default());
    let config = std::fs::read_to_string(hub.config()).unwrap();
    let kept = "password_file = \"password\"\n";
    let policy = format!("{kept}on_cloud_missing = \"rebind\"\non_access_drift = \"{on_access_drift}\"\n");
    std::fs::write(hub.config(), config.replace(kept, &policy)).unwrap();
    hub.start_cloud();
    hub.start_daemon();
    hub
}

/// One `sync`: exit code and the only node's row.
fn sync(hub: &Hub<'_>) -> (i32, Value) {
    let answer = hub.cli(["sync", "--json"]);
    (answer.code, answer.json["nodes"][0].clone())
}

/// The drift is named with its fields, by this `sync` or by the daemon's own run just before it; then all agree again.
fn is_named_and_mended(hub: &Hub<'_>, verdict: &str, field: &str) {
    let (exit, row) = sync(hub);
    let told = row["verdict"] == verdict && row.to_string().contains(field);
    let noted =
        || hub.cli(["logs", "--json"]).stdout.lines().any(|l| l.contains("sync-difference") && l.contains(field));
    assert!(told || noted(), "{verdict} in {field}: {exit} {row:#}");
    let give_up = Instant::now() + PATIENCE;
    loop {
        let (exit, row) = sync(hub);
        if exit == 0 {
            assert_eq!(row["verdict"], "match", "{row:#}");
            return;
        }
        assert!(Instant::now() < give_up, "{verdict} in {field} is not mended: {row:#}\n{}", hub.daemon_log());
    }
}

/// Another administrator of the fabric takes the View grant away.
fn take_view_away(lab: &Lab, hub: &Hub<'_>, light: NodeId, address: SocketAddr) {
    let mut bundle = Keystore::new(hub.state_dir(), None).load().unwrap().bundle;
    bundle.hub_node = NodeId(2_000_000_009);
    reissue_hub_noc(&mut bundle, &[Cat::new(0x0001_0001).unwrap()]).unwrap();
    lab.in_hub(|| async move {
        let stack = Stack::start(&StackOptions::default(), &bundle).unwrap();
        let link = Link::new(
            stack.clone(),
            Arc::new(Credentials::new(bundle).unwrap()),
            Arc::new(Bluetooth::open(&BluetoothConfig { adapter: "none".to_owned() })),
        );
        let session = link.open_case(light, &[address], Duration::from_secs(15)).await.unwrap();
        let mut entries = session.read_acl().await.unwrap();
        entries.retain(|entry| entry.privilege != Privilege::View.wire());
        session.write_acl(&entries).await.unwrap();
        drop(session);
        stack.stop().await;
    });
}

#[test]
fn drift_of_each_kind_is_named_and_mended() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let Some(mut lights) = Lights::start(&lab, &[("SERIAL", "DRIFT01")]) else { return };
    let hub = mending(&lab, "restore");
    let node = hub.commission_and_bind(&lights.lights[0].qr);
    let light = NodeId(node["node_id"].as_u64().unwrap());
    let which = json!({ "product_key": node["product_key"], "device_key": node["device_key"] });
    hub.synced("match");

    hub.cloud_call("POST", "/sim/drop-binding", &which);
    is_named_and_mended(&hub, "cloud-missing", "bind");
    let binding = hub.binding("DRIFT01");
    assert_eq!(binding["matter_info"]["nodeId"], node["node_id"], "{binding:#}");

    let mut change = which.clone();
    change["matter_info"] = json!({ "nodeId": 7, "fabricId": 8 });
    hub.cloud_call("POST", "/sim/change-matter-info", &change);
    is_named_and_mended(&hub, "cloud-differs", "node_id");
    assert_eq!(hub.binding("DRIFT01")["matter_info"]["fabricId"], node["fabric_id"]);

    let address: SocketAddr = format!("10.77.0.2:{}", lights.lights[0].port).parse().unwrap();
    take_view_away(&lab, &hub, light, address);
    is_named_and_mended(&hub, "drift", "cats");
    assert_eq!(hub.nodes()[0]["cats"], node["cats"]);
    assert_eq!(hub.ask(&["node", "check", &light.to_string()])["differences"], json!([]));

    lights.command("reset 0");
    let (exit, row) = sync(&hub);
    assert!(exit != 0 && row["verdict"] != "match", "{row:#}");
    // It waits for a commissioner and stays without one.
    let seen = hub.ask(&["discover", "--timeout", "2s"]);
    assert_eq!(seen["nodes"].as_array().unwrap().len(), 1, "{seen:#}");
}

#[test]
fn what_another_administrator_grants_is_recorded_and_told_to_the_cloud() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let Some(lights) = Lights::start(&lab, &[("SERIAL", "DRIFT02")]) else { return };
    let hub = mending(&lab, "record");
    let node = hub.commission_and_bind(&lights.lights[0].qr);
    let light = NodeId(node["node_id"].as_u64().unwrap());
    assert_eq!(hub.binding("DRIFT02")["matter_info"]["catList"], node["cats"]);
    let mut left = node["cats"].as_array().unwrap().clone();
    left.retain(|grant| grant["privilege"] != "View");
    assert_eq!(left.len() + 1, node["cats"].as_array().unwrap().len());

    let address: SocketAddr = format!("10.77.0.2:{}", lights.lights[0].port).parse().unwrap();
    take_view_away(&lab, &hub, light, address);
    is_named_and_mended(&hub, "drift", "cats");
    assert_eq!(hub.nodes()[0]["cats"], json!(left));
    assert_eq!(hub.binding("DRIFT02")["matter_info"]["catList"], json!(left));
    assert_eq!(hub.cloud_state()["counters"]["commits"]["p11abc/DRIFT02"], 2);
}

#[test]
fn a_node_that_another_administrator_took_from_us_is_unbound_and_can_be_removed() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let Some(mut lights) = Lights::start(&lab, &[("SERIAL", "DRIFT03")]) else { return };
    let hub = mending(&lab, "restore");
    let node = hub.commission_and_bind(&lights.lights[0].qr);
    let id = node["node_id"].to_string();

    let mut log = hub.follow();
    let shared = hub.ask(&["node", "share", &id]);
    let code = shared["manual_code"].as_str().unwrap();
    // A device is known by its other fabrics once the hub has read them; whoever throws it out in that moment leaves no proof.
    let known_by_both = || {
        let give_up = Instant::now() + PATIENCE;
        while hub.nodes()[0]["also_known_as"] == json!([]) {
            assert!(Instant::now() < give_up, "never known by its other fabric\n{}", hub.daemon_log());
        }
    };
    let evict = (node["fabric_index"].as_u64().unwrap(), &known_by_both as &dyn Fn());
    let said = join_with_second_controller(&lab, code, Some(evict)).unwrap();
    assert_eq!(said, r#"JOINED {"fabrics":1,"onOff":true}"#);
    lights.wait_for("FABRICS light 1");

    // Known as soon as mDNS has forgotten it. The cloud is told by itself.
    let give_up = Instant::now() + PATIENCE;
    let row = loop {
        let (exit, row) = sync(&hub);
        assert_ne!(exit, 0, "{row:#}");
        if row["verdict"] == "drift" {
            break row;
        }
        assert!(Instant::now() < give_up, "{row:#}\n{}", hub.daemon_log());
    };
    assert!(row["differences"].to_string().contains("fabric_index"), "{row:#}");
    log.wait_for("the unbind", |line| line["kind"] == "node-unbound" && line["node_id"] == node["node_id"]);
    assert_eq!(hub.binding("DRIFT03"), Value::Null);
    let record = &hub.nodes()[0];
    assert_eq!((&record["state"], &record["bind"]["state"]), (&json!("unreachable"), &json!("disabled")), "{record:#}");

    // Nothing is left to tell the device.
    hub.ask(&["node", "remove", &id]);
    assert_eq!(hub.nodes(), Vec::<Value>::new());
    assert_eq!(hub.outbox(), Vec::<Value>::new());
}
