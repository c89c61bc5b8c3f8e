//! Many devices at once, and what their codes leave open: codes that collide, a device found by its address, requests whose
//! clients have gone. matter.js lights over real multicast.
//!
//! ```text
//! hub namespace: matterbind daemon ─ cloud-sim      devices' namespace: matter.js lights
//!                       mb0 ══════════════ veth ══════════════ mb0
//! ```

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rs_matter::BasicCommData;
use serde_json::{Value, json};

use crate::support::daemon::{Hub, Options};
use crate::support::lab::{Families, Lab};
use crate::support::matterjs::Lights;

const LIGHTS: usize = 6;

/// Six manual codes, of which three each have one short discriminator: each is tried on the lights in turn until it has found its
/// own. Run again, each row answers with its node.
#[test]
fn a_manifest_of_codes_that_collide_is_worked_through_and_can_be_run_again() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let collide = ("DISCRIMINATORS", "3840,3841,3842,256,257,258");
    let Some(lights) = Lights::start(&lab, &[("SERIAL", "JSMANY"), ("COUNT", "6"), collide]) else { return };
    let hub = Hub::start(&lab, Options::default());
    let manifest = hub.path().join("new.csv");
    let rows = lights.lights.iter().enumerate().map(|(index, light)| format!("{};lamp {index}\r\n", light.manual));
    std::fs::write(&manifest, format!("Setup Code;Name\r\n{}", rows.collect::<String>())).unwrap();
    let line = ["commission", "--manifest", manifest.to_str().unwrap(), "--wait-bind", "60s", "--json"];

    let first = hub.cli(line);
    assert_eq!(first.code, 0, "{:#}\n{}", first.json, hub.daemon_log());
    let results = first.json["results"].as_array().unwrap();
    assert_eq!(results.len(), LIGHTS);
    for (index, (result, light)) in results.iter().zip(&lights.lights).enumerate() {
        assert_eq!((&result["outcome"], &result["bind"]["state"]), (&json!("commissioned"), &json!("bound")));
        assert_eq!((&result["line"], &result["name"]), (&json!(index + 2), &json!(format!("lamp {index}"))));
        assert_eq!(result["node"]["discriminator"], light.discriminator, "its own light: {result:#}");
    }
    let nodes = hub.nodes();

    let again = hub.cli(line);
    assert_eq!(again.code, 0, "{:#}\n{}", again.json, hub.daemon_log());
    for (before, now) in results.iter().zip(again.json["results"].as_array().unwrap()) {
        let told = (&now["outcome"], &now["code"], &now["bind"]["state"]);
        assert_eq!(told, (&json!("commissioned"), &json!("already-on-this-fabric"), &json!("bound")), "{now:#}");
        assert_eq!(now["node"]["node_id"], before["node"]["node_id"]);
    }
    assert_eq!(hub.nodes().len(), nodes.len());
}

/// A manual code has four bits of the discriminator. Who announces to be at the address tells the others.
#[test]
fn a_device_that_is_named_by_its_address_gets_no_made_up_discriminator() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let Some(lights) = Lights::start(&lab, &[("SERIAL", "JSPLACE"), ("COUNT", "2")]) else { return };
    let second = lights.lights[1].clone();
    let hub = Hub::start(&lab, Options::default());
    let address = format!("10.77.0.2:{}", second.port);
    let (exit, result) = hub.commission(&second.manual, &["--address", &address, "--wait-bind", "60s"]);
    assert_eq!(exit, 0, "{result:#}\n{}", hub.daemon_log());
    assert_eq!(result["node"]["discriminator"], second.discriminator, "{result:#}");
    let device_key = result["node"]["device_key"].as_str().unwrap();
    assert_eq!(hub.binding(device_key)["matter_info"]["discriminator"], second.discriminator);
}

/// Asks for an attempt by hand; the connection is the client.
fn ask(socket: &Path, code: &str) -> UnixStream {
    let body = json!({ "setup_code": code }).to_string();
    let mut client = UnixStream::connect(socket).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let head = "POST /v1/commission HTTP/1.1\r\nhost: hub\r\ncontent-type: application/json\r\nconnection: close";
    write!(client, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
    client
}

/// A script asks for devices that are not there and leaves: a code that is malformed is refused at once all the same, and a
/// good one finds its device.
#[test]
fn requests_whose_clients_have_gone_hold_nobody_up() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let Some(lights) = Lights::start(&lab, &[("SERIAL", "JSQUEUE")]) else { return };
    // Whoever were held up by those who have gone would wait for eighty seconds.
    let commissioning = "discover_timeout = \"80s\"\ndeadline = \"90s\"".to_owned();
    let hub = Hub::start(&lab, Options { commissioning, ..Options::default() });
    for passcode in 1000..1024_u32 {
        // Nobody has these codes: short discriminator 0.
        let code = BasicCommData { password: passcode.to_le_bytes().into(), discriminator: 5 };
        let mut client = ask(&hub.socket(), code.compute_pairing_code().as_ref());
        let _ = client.read(&mut [0; 300]).unwrap();
    }
    let began = Instant::now();
    let (exit, failure) = hub.commission("nonsense", &[]);
    assert_eq!((exit, &failure["code"]), (2, &json!("malformed-setup-code")), "{failure:#}");
    let malformed = began.elapsed();
    let node: Value = hub.commission_and_bind(&lights.lights[0].qr);
    assert_eq!(node["serial_number"], "JSQUEUE");
    let good = began.elapsed();
    assert!(malformed < Duration::from_secs(10) && good < Duration::from_secs(60), "{malformed:?} {good:?}");
}
