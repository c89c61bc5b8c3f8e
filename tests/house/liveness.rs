//! A light that loses its power is flagged, and its flag comes down when it is back; its neighbour is never doubted.

use crate::support::daemon::{Hub, Options};
use crate::support::lab::{Families, Lab};
use crate::support::matterjs::Lights;

#[test]
fn a_light_without_power_is_flagged_and_its_return_is_noticed() {
    let variables = [("SERIAL", "LIVE01"), ("NAME", "first")];
    let Some(lab) = Lab::new(Families::Both) else { return };
    let Some(mut light) = Lights::start(&lab, &variables) else { return };
    let second = [("SERIAL", "LIVE02"), ("NAME", "second"), ("PORT", "5560"), ("DISCRIMINATOR", "3900")];
    let neighbour = Lights::start(&lab, &second).unwrap();
    let hub = Hub::start(&lab, Options::default());
    let node = hub.commission_and_bind(&light.lights[0].qr)["node_id"].clone();
    let other = hub.commission_and_bind(&neighbour.lights[0].qr)["node_id"].clone();
    let state = || hub.ask(&["node", "show", &node.to_string()])["state"].clone();
    let mut log = hub.follow();
    let mut lan = hub.spawn_cli(["discover", "--watch", "--operational", "--json"]);
    let on_the_lan = |event: &'static str| {
        let node = node.clone();
        move |line: &serde_json::Value| line["event"] == event && line["node_id"] == node
    };
    lan.wait_for("the light", on_the_lan("appeared"));

    for forgotten in [false, true] {
        // Without a goodbye, so that mDNS remembers it.
        let storage = light.kill();
        log.wait_for("the flag", |line| line["kind"] == "node-unreachable" && line["node_id"] == node);
        assert_eq!(state(), "unreachable");
        if forgotten {
            // Its records would be good for longer, but who does not answer is not left there.
            lan.wait_for("the end of its records", on_the_lan("disappeared"));
        }
        light = Lights::start_on(&lab, &variables, storage).unwrap();
        log.wait_for("its return", |line| line["kind"] == "node-returned" && line["node_id"] == node);
        assert_eq!(state(), "operational");
    }
    let told = hub.cli(["logs", "--json"]).stdout;
    assert!(
        !told.lines().any(|line| line.contains("node-unreachable") && line.contains(&format!("\"node_id\":{other},")))
    );
}
