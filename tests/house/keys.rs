//! Keys that survive: tags are rotated on a device that runs, the hub is wiped and restored from a backup that is older than
//! the rotation, and controls its node without anybody touching it.

use matterbind::facade::backup::{Identity, export_root};
use matterbind::facade::keystore::Keystore;
use matterbind::facade::secret::OperationalSigningKey;
use serde_json::json;

use crate::support::daemon::{Hub, Options};
use crate::support::lab::{Families, Lab};
use crate::support::matterjs::Lights;

#[test]
fn a_wiped_hub_is_restored_from_before_a_rotation() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let Some(lights) = Lights::start(&lab, &[("SERIAL", "KEYS01")]) else { return };
    let mut hub = Hub::start(&lab, Options::default());
    let node = hub.commission_and_bind(&lights.lights[0].qr);
    let id = node["node_id"].to_string();
    let word = hub.path().join("word");
    let identity = Identity::generate();
    std::fs::write(&word, identity.secret_text().expose()).unwrap();
    let recipient = identity.recipient_text();
    let (file, root) = (hub.path().join("hub.age"), hub.path().join("root.age"));
    let (word, file, root) = (word.to_str().unwrap(), file.to_str().unwrap(), root.to_str().unwrap());
    let made = hub.cli(["fabric", "backup", file, "--recipient", &recipient]);
    assert_eq!(made.code, 0, "{made:?}");
    let fabric = hub.ask(&["fabric", "show"]);
    assert_eq!(fabric["root_key_online"], true);

    let set = hub.ask(&["access", "set", "--grant", "0x0005_0001=View"]);
    assert_eq!((&set["complete"], &set["nodes"][0]["outcome"]), (&json!(true), &json!("written")), "{set:#}");
    for (tag, version) in [("0x0005_0001", 0x0005_0002), ("0x0001_0001", 0x0001_0002)] {
        let rotated = hub.ask(&["access", "rotate", tag]);
        assert_eq!((&rotated["complete"], &rotated["rotated"]), (&json!(true), &json!(version)), "{rotated:#}");
        assert_eq!(rotated["nodes"][0]["cloud_queued"], true, "{rotated:#}");
    }
    let held = hub.ask(&["access", "show"]);
    let cats = json!([{ "cat": 0x0001_0002, "privilege": "Administer" }, { "cat": 0x0005_0002, "privilege": "View" }]);
    assert_eq!((&held["nodes"][0]["cats"], &held["nodes"][0]["state"]), (&cats, &json!("as-wanted")), "{held:#}");
    assert_eq!(held["hub_cats"], json!([0x0001_0002]), "{held:#}");

    let exported = hub.cli(["fabric", "export-root", root, "--recipient", &recipient]);
    assert_eq!(exported.code, 0, "{exported:?}");
    assert_eq!(hub.ask(&["fabric", "show"])["root_key_online"], false);
    // It comes back from its own file only, and goes again.
    let import = |file: &str| hub.cli(["fabric", "import-root", file, "--identity", word, "--json"]);
    let wrong = import(file);
    assert_eq!((wrong.code, &wrong.json["code"]), (2, &json!("not-a-root-key")), "{wrong:?}");
    let mut keys = Keystore::new(hub.state_dir(), None).load().unwrap().bundle;
    keys.rcac_key = Some(OperationalSigningKey::new([7; 32]));
    let forged = hub.path().join("forged.age");
    std::fs::write(&forged, export_root(&keys, &identity.recipient()).unwrap().unwrap()).unwrap();
    let wrong = import(forged.to_str().unwrap());
    assert_eq!((wrong.code, &wrong.json["code"]), (2, &json!("root-key-of-another-fabric")), "{wrong:?}");
    assert_eq!(Keystore::new(hub.state_dir(), None).load().unwrap().bundle.rcac_key, None, "nothing was written");
    let back = import(root);
    assert_eq!((back.code, &back.json["root_key_online"]), (0, &json!(true)), "{back:?}");
    assert!(Keystore::new(hub.state_dir(), None).load().unwrap().bundle.rcac_key.is_some());
    let again = hub.cli(["fabric", "export-root", root, "--recipient", &recipient, "--json"]);
    assert_eq!((again.code, &again.json["code"]), (2, &json!("file-exists")), "the only copy stays: {again:?}");
    let elsewhere = hub.path().join("root-2.age");
    let exported = hub.cli(["fabric", "export-root", elsewhere.to_str().unwrap(), "--recipient", &recipient]);
    assert_eq!(exported.code, 0, "{exported:?}");
    for (more, code) in [(&[][..], 2), (&["--replace"][..], 0), (&[], 0)] {
        let line = ["fabric", "backup", root, "--recipient", &recipient];
        let over = hub.cli([&line, more].concat());
        assert_eq!(over.code, code, "only by that word, or over a backup: {over:?}");
    }

    // All of it must be there again after a crash.
    hub.kill_daemon();
    hub.start_daemon();
    let check = hub.ask(&["node", "check", &id]);
    assert_eq!((&check["reachable"], &check["differences"]), (&json!(true), &json!([])), "{check:#}");
    assert_eq!(hub.ask(&["access", "show"])["hub_cats"], json!([0x0001_0002]));

    let config = hub.config();
    let restore = |more: &[&str]| {
        let line = ["fabric", "restore", file, "--identity", word, "--config", config.to_str().unwrap()];
        hub.cli([&line, more].concat())
    };
    let running = restore(&["--force", "--json"]);
    assert_eq!((running.code, &running.json["code"]), (2, &json!("daemon-running")), "{running:?}");
    hub.stop_daemon();
    std::fs::remove_dir_all(hub.state_dir()).unwrap();
    let restore = |more: &[&str]| {
        let line = ["fabric", "restore", file, "--identity", word, "--config", config.to_str().unwrap()];
        hub.cli([&line, more].concat())
    };
    let restored = restore(&["--json"]);
    let compressed = &fabric["compressed_fabric_id"];
    assert!(restored.code == 0 && compressed.is_u64(), "{restored:?}");
    assert_eq!(&restored.json["compressed_fabric_id"], compressed, "a number here too: {restored:?}");
    let again = restore(&["--json"]);
    assert_eq!((again.code, &again.json["code"]), (2, &json!("state-exists")), "{again:?}");
    hub.start_daemon();
    assert_eq!(hub.ask(&["fabric", "show"])["root_public_key"], fabric["root_public_key"]);
    let check = hub.ask(&["node", "check", &id]);
    assert_eq!(check["reachable"], true, "{check:#}");
    // The device holds later versions than the backup knew; ours lets us in all the same.
    let applied = hub.ask(&["access", "apply", &id]);
    assert_eq!(
        (&applied["complete"], &applied["nodes"][0]["outcome"]),
        (&json!(true), &json!("written")),
        "{applied:#}"
    );
}
