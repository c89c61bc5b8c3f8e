//! `access rotate`: a second controller of our fabric, with its own certificate and a tag of its own, is let in by a matter.js
//! light for as long as its tag's version is the one in force, and refused once the version was raised. A node that was away
//! meanwhile is told when it returns.

use std::net::SocketAddr;
use std::sync::Arc;

use matterbind::facade::bluetooth::Bluetooth;
use matterbind::facade::commissioning::ports::{AttributePath, LinkError, MatterLink, OperationalSession};
use matterbind::facade::config::BluetoothConfig;
use matterbind::facade::fabric::Cat;
use matterbind::facade::keystore::{KeyBundle, Keystore};
use matterbind::facade::matter::credentials::reissue_hub_noc;
use matterbind::facade::matter::{Credentials, Link, Stack, StackOptions};
use matterbind::facade::node::NodeId;
use serde_json::json;

use crate::support::daemon::{Hub, Options, VirtualDevice};
use crate::support::lab::{Families, Lab};
use crate::support::matterjs::Lights;

const NODE_LABEL: AttributePath = AttributePath { endpoint: 0, cluster: 0x28, attribute: 5 };
/// IM status UnsupportedAccess (Matter Core 8.10.1).
const UNSUPPORTED_ACCESS: u16 = 0x7E;

/// A controller with its own node id and key, and one tag.
fn controller(hub: &Hub<'_>, node: u64, tag: u32) -> KeyBundle {
    let mut bundle = Keystore::new(hub.state_dir(), None).load().unwrap().bundle;
    bundle.hub_node = NodeId(node);
    reissue_hub_noc(&mut bundle, &[Cat::new(tag).unwrap()]).unwrap();
    bundle
}

/// What the light answers to a controller that reads its label over a CASE session of its own.
fn read_label(lab: &Lab, bundle: KeyBundle, light: NodeId, address: SocketAddr) -> Result<String, LinkError> {
    lab.in_hub(|| async move {
        let stack = Stack::start(&StackOptions::default(), &bundle).unwrap();
        let link = Link::new(
            stack.clone(),
            Arc::new(Credentials::new(bundle).unwrap()),
            Arc::new(Bluetooth::open(&BluetoothConfig { adapter: "none".to_owned() })),
        );
        let session = link.open_case(light, &[address], std::time::Duration::from_secs(15)).await?;
        let label = session.read_text(NODE_LABEL).await;
        drop(session);
        stack.stop().await;
        label
    })
}

#[test]
fn a_controller_with_the_old_version_is_refused_after_a_rotation() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let Some(lights) = Lights::start(&lab, &[("SERIAL", "ROTATE01")]) else { return };
    let hub = Hub::start(&lab, Options::default());
    let node = hub.commission_and_bind(&lights.lights[0].qr);
    let light = NodeId(node["node_id"].as_u64().unwrap());
    let address: SocketAddr = format!("10.77.0.2:{}", lights.lights[0].port).parse().unwrap();
    let read = |id: u64, tag: u32| read_label(&lab, controller(&hub, id, tag), light, address);

    assert_eq!(read(2_000_000_001, 0x0002_0001), Ok("light".to_owned()));
    let stranger = read(2_000_000_002, 0x0009_0001);
    assert!(matches!(stranger, Err(LinkError::Status { status: UNSUPPORTED_ACCESS, .. })), "{stranger:?}");

    let rotated = hub.ask(&["access", "rotate", "0x0002_0001"]);
    assert_eq!((&rotated["complete"], &rotated["rotated"]), (&json!(true), &json!(0x0002_0002)), "{rotated:#}");

    let old = read(2_000_000_003, 0x0002_0001);
    assert!(matches!(old, Err(LinkError::Status { status: UNSUPPORTED_ACCESS, .. })), "{old:?}");
    assert_eq!(read(2_000_000_004, 0x0002_0002), Ok("light".to_owned()));
    // What is recorded and bound is what the light holds.
    let check = hub.ask(&["node", "check", &light.to_string()]);
    assert_eq!((&check["reachable"], &check["differences"]), (&json!(true), &json!([])), "{check:#}");
}

/// Two nodes, one of which has no power while the hub's own tag and a controller's are rotated, and while the hub is
/// restarted. The other one is done at once, this one as soon as it is back.
#[test]
fn a_node_that_was_away_is_done_when_it_returns() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let variables = [("SERIAL", "ROTATE02"), ("DISCRIMINATOR", "1111")];
    let Some(lights) = Lights::start(&lab, &variables) else { return };
    let storage = tempfile::tempdir().unwrap();
    let device = VirtualDevice::start(&lab, storage.path(), &["--discriminator", "2222", "--port", "0"]);
    let mut hub = Hub::start(&lab, Options::default());
    let id = |node: serde_json::Value| NodeId(node["node_id"].as_u64().unwrap());
    let here = id(hub.commission_and_bind(&device.qr));
    let away = id(hub.commission_and_bind(&lights.lights[0].qr));
    let address: SocketAddr = format!("10.77.0.2:{}", lights.lights[0].port).parse().unwrap();
    let one = |list: &serde_json::Value, node: NodeId| {
        let nodes = list["nodes"].as_array().unwrap();
        nodes.iter().find(|entry| entry["node_id"] == node.0).cloned().unwrap()
    };

    let left = lights.kill();
    for (tag, version) in [("0x0001", 0x0001_0002), ("0x0002", 0x0002_0002)] {
        let rotated = hub.cli(["access", "rotate", tag, "--json"]);
        let told = (rotated.code, &rotated.json["rotated"], &rotated.json["complete"]);
        assert_eq!(told, (6, &json!(version), &json!(false)), "{rotated:?}");
        assert_eq!(one(&rotated.json, here)["outcome"], "written", "{rotated:?}");
        assert_eq!(one(&rotated.json, away)["outcome"], "pending", "{rotated:?}");
    }
    hub.kill_daemon();
    hub.start_daemon();
    let held = hub.ask(&["access", "show"]);
    assert_eq!(one(&held, here)["state"], "as-wanted", "{held:#}");
    assert_eq!(one(&held, away)["state"], "pending", "{held:#}");
    // A later version does what the earlier one does, so that the earlier is dropped at once and the light lets us in.
    assert_eq!(held["hub_cats"], json!([0x0001_0002]), "{held:#}");

    let mut log = hub.follow();
    let Some(lights) = Lights::start_on(&lab, &variables, left) else { return };
    log.wait_for("the light's list", |line| line["kind"] == "access-written" && line["node_id"] == away.0);
    let held = hub.ask(&["access", "show"]);
    let cats = json!([
        { "cat": 0x0001_0002, "privilege": "Administer" },
        { "cat": 0x0002_0002, "privilege": "Operate" },
        { "cat": 0x0003_0001, "privilege": "View" },
    ]);
    let light = one(&held, away);
    assert_eq!((&light["state"], &light["cats"]), (&json!("as-wanted"), &cats), "{held:#}");
    let check = hub.ask(&["node", "check", &away.to_string()]);
    assert_eq!((&check["reachable"], &check["differences"]), (&json!(true), &json!([])), "{check:#}");
    let read = |id: u64, tag: u32| read_label(&lab, controller(&hub, id, tag), away, address);
    let old = read(2_000_000_005, 0x0002_0001);
    assert!(matches!(old, Err(LinkError::Status { status: UNSUPPORTED_ACCESS, .. })), "{old:?}");
    assert_eq!(read(2_000_000_006, 0x0002_0002), Ok("light".to_owned()));
    drop(lights);
}
