//! `access rotate`: a second controller of our fabric, with its own certificate and a tag of its own, is let in by a matter.js
//! light for as long as its tag's version is the one in force, and refused once the version was raised.

#![allow(clippy::unwrap_used, reason = "a test may")]

#[allow(dead_code, reason = "shared by several test binaries, none of which uses all of it")]
mod support {
    pub mod daemon;
    pub mod lab;
    pub mod matterjs;
}

use std::net::SocketAddr;
use std::sync::Arc;

use matterbind::commissioning::ports::{AttributePath, LinkError, MatterLink, OperationalSession};
use matterbind::fabric::Cat;
use matterbind::keystore::{KeyBundle, Keystore};
use matterbind::matter::credentials::reissue_hub_noc;
use matterbind::matter::{Credentials, Link, Stack, StackOptions};
use matterbind::node::NodeId;
use serde_json::json;

use support::daemon::{Hub, Options};
use support::lab::{Families, Lab};
use support::matterjs::Lights;

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
        let link = Link::new(stack.clone(), Arc::new(Credentials::new(bundle).unwrap()));
        let session = link.open_case(light, &[address]).await?;
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
