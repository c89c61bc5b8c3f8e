//! A backup that is older than the home: devices that were added after it are on our fabric and in no record. They are told of,
//! nothing is in sync until somebody has decided, and each is taken into the record or removed.
//!
//! ```text
//! A ─ backup ─ B, C ─ restore ─► A is a node; B and C are foreign ─ adopt B, remove C ─► in sync
//! ```

use std::time::Instant;

use serde_json::{Value, json};

use crate::support::daemon::{Hub, MATTERBIND, Options, PATIENCE, Running, VirtualDevice};
use crate::support::lab::{Families, Lab};

/// The verdict of each node, as soon as `sync` shows these nodes.
fn verdicts(hub: &Hub<'_>, wanted: &[(&Value, &str)]) -> Value {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let report = hub.cli(["sync", "--json"]).json;
        let shown = report["nodes"].as_array().cloned().unwrap_or_default();
        let is = |(id, verdict): &(&Value, &str)| {
            shown.iter().any(|node| node["node_id"] == **id && node["verdict"] == *verdict)
        };
        if shown.len() == wanted.len() && wanted.iter().all(is) {
            return report;
        }
        assert!(Instant::now() < give_up, "never {wanted:?}: {report:#}\n{}", hub.daemon_log());
    }
}

/// `nodes`, as soon as it shows these and no others as foreign.
fn with_foreign(hub: &Hub<'_>, wanted: &[&Value]) -> Value {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let nodes = hub.ask(&["nodes"]);
        if nodes["foreign"].as_array().unwrap().iter().map(|node| &node["node_id"]).eq(wanted.iter().copied()) {
            return nodes;
        }
        assert!(Instant::now() < give_up, "never {wanted:?}: {nodes:#}\n{}", hub.daemon_log());
    }
}

#[test]
fn what_an_older_backup_does_not_know_is_adopted_or_removed() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let storage = tempfile::tempdir().unwrap();
    let mut hub = Hub::start(&lab, Options::default());
    let add = |hub: &Hub<'_>, number: u16| {
        let (port, discriminator) = ((5640 + number).to_string(), (440 + number).to_string());
        let serial = format!("ADOPT{number}");
        let arguments = ["--port", &port, "--discriminator", &discriminator, "--serial-number", &serial];
        let device = VirtualDevice::start(&lab, &storage.path().join(&serial), &arguments);
        let (code, result) = hub.commission(&device.qr, &["--name", &format!("lamp {number}"), "--wait-bind", "60s"]);
        assert_eq!((code, &result["bind"]["state"]), (0, &json!("bound")), "{result:#}");
        (device, result["node"].clone())
    };
    let (_a, first) = add(&hub, 0);
    let (backup, word) = (hub.path().join("hub.age"), hub.path().join("word"));
    std::fs::write(&word, "correct horse battery staple").unwrap();
    let (backup, word) = (backup.to_str().unwrap().to_owned(), word.to_str().unwrap().to_owned());
    assert_eq!(hub.cli(["fabric", "backup", &backup, "--passphrase-file", &word]).code, 0);
    let ((_b, second), (_c, third)) = (add(&hub, 1), add(&hub, 2));
    let bound = hub.binding("ADOPT1");
    hub.stop_daemon();
    let mut restore = lab.hub_command(MATTERBIND);
    restore.args(["fabric", "restore", &backup, "--force", "--passphrase-file", &word, "--config"]).arg(hub.config());
    let restored = Running::start(restore).answer();
    assert_eq!(restored.code, 0, "{restored:?}");
    hub.start_daemon();

    // They let us in, so they are ours, and nobody says that all is well.
    let (a, b, c) = (&first["node_id"], &second["node_id"], &third["node_id"]);
    let report = verdicts(&hub, &[(a, "match"), (b, "unknown-node"), (c, "unknown-node")]);
    assert_eq!(report["in_sync"], false);
    // `sync` knows them from the cloud at once; `nodes` has each as soon as the device itself has let the hub in.
    let nodes = with_foreign(&hub, &[b, c]);
    assert_eq!(nodes["nodes"].as_array().unwrap().len(), 1, "{nodes:#}");

    // Adopted, it is what it was: its keys and its name come from the cloud, everything else from the device.
    let adopted = hub.ask(&["node", "adopt", &b.to_string()]);
    for same in ["serial_number", "device_key", "product_key", "name", "discriminator", "cats"] {
        assert_eq!(adopted[same], second[same], "{same}: {adopted:#}");
    }
    assert_eq!(adopted["bind"]["state"], "bound", "{adopted:#}");
    let again = hub.cli(["node", "adopt", &b.to_string(), "--json"]);
    assert_eq!((again.code, &again.json["code"]), (2, &json!("already-recorded")), "{again:?}");
    let removed = hub.ask(&["node", "remove", &c.to_string(), "--yes"]);
    assert_eq!(removed["device_removed"], true, "{removed:#}");
    let report = verdicts(&hub, &[(a, "match"), (b, "match")]);
    assert_eq!(report["in_sync"], true, "{report:#}");
    assert_eq!(hub.binding("ADOPT1"), bound, "nothing was unbound");
    with_foreign(&hub, &[]);
    // Ids that were given away after the backup are not given away again.
    let (_d, fourth) = add(&hub, 3);
    assert!([a, b, c].iter().all(|known| **known != fourth["node_id"]), "{fourth:#}");
}
