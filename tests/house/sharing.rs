//! `node share`: the codes that it prints open the device to an independent second commissioner, which then uses it beside
//! us; removing ours leaves theirs.

use serde_json::{Value, json};

use crate::support::daemon::{Hub, Options};
use crate::support::lab::{Families, Lab};
use crate::support::matterjs::{Lights, join_with_second_controller};

#[test]
fn a_second_commissioner_joins_with_the_shared_code() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let Some(mut lights) = Lights::start(&lab, &[("SERIAL", "SHARED01")]) else { return };
    let hub = Hub::start(&lab, Options::default());
    let node = hub.commission_and_bind(&lights.lights[0].qr);
    let id = node["node_id"].to_string();

    let shared = hub.ask(&["node", "share", &id]);
    let said = join_with_second_controller(&lab, shared["manual_code"].as_str().unwrap(), None).unwrap();
    let joined: Value = serde_json::from_str(said.strip_prefix("JOINED ").unwrap_or_else(|| panic!("{said}"))).unwrap();
    assert_eq!(joined, json!({ "fabrics": 2, "onOff": true }));

    // Ours is still what it was, and goes alone.
    let check = hub.ask(&["node", "check", &id]);
    assert_eq!((&check["reachable"], &check["differences"]), (&json!(true), &json!([])), "{check:#}");
    hub.ask(&["node", "remove", &id]);
    assert_eq!(lights.wait_for("FABRICS light 1"), "FABRICS light 1");
}
