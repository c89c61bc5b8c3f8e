//! Text that would clear a screen, write a clipboard, forge a row or turn a line around: a light says it of itself, neighbours
//! announce it, the cloud answers with it. Nothing of it reaches what people read: any command's output, the logs, journald's
//! fields, the page.
//!
//! ```text
//! light, liars ══ mDNS, Matter ══► daemon ◄── HTTP ── reference cloud, bent
//!                                    │
//!        every command, log line, journald field, page: only characters that show as themselves
//! ```

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};

use matterbind::facade::plain::is_harmless;
use serde_json::{Value, json};

use crate::support::daemon::{Hub, MATTERBIND, Options};
use crate::support::lab::{Families, INTERFACE, Lab};
use crate::support::matterjs::{Light, Lights};
use crate::support::mdns::{Claim, Ear};

/// In all that is hostile and nowhere else: it shows that the text came through.
const MARK: &str = "Evil";
/// Clears the screen, sets colour and title, C1, breaks lines, turns text, hides it. At most 32 bytes with the mark.
const TEXTS: [&str; 6] = [
    "Evil\u{1b}[2J\u{1b}[8m",
    "Evil\u{1b}]52;c;eA==\u{7}\u{9b}31m",
    "Evil\r\n1000 forged row\t\u{7f}",
    "Evil\u{202e}gnp\u{2066}\u{200b}\u{2028}",
    "Evil\u{1b}]0;title\u{7}\u{85}\u{feff}",
    "Evil\u{1b}P+q\u{1b}\\\u{e0041}",
];

/// Lines of characters that show as themselves.
fn assert_plain(place: &str, text: &str) {
    for line in text.split('\n') {
        let harmful: Vec<char> = line.chars().filter(|c| !is_harmless(*c)).collect();
        assert!(harmful.is_empty(), "{place} has {harmful:?}: {line:?}");
    }
}

/// The same, and every string in it: JSON may hide a character behind a backslash.
fn assert_plain_json(place: &str, document: &Value) {
    match document {
        Value::String(text) => assert!(text.chars().all(is_harmless), "{place} has {text:?}"),
        Value::Array(items) => items.iter().for_each(|item| assert_plain_json(place, item)),
        Value::Object(fields) => fields.iter().for_each(|(key, value)| {
            assert!(key.chars().all(is_harmless), "{place} has {key:?}");
            assert_plain_json(place, value);
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// journald as far as a client sees it: a socket that takes datagrams of fields.
struct Journald {
    fields: Receiver<(String, String)>,
}

impl Journald {
    fn listen(socket: &Path) -> Self {
        let socket = UnixDatagram::bind(socket).unwrap();
        let (sender, fields) = channel();
        std::thread::spawn(move || {
            let mut datagram = vec![0; 1 << 20];
            while let Ok(length) = socket.recv(&mut datagram) {
                for field in entry(&datagram[..length]) {
                    if sender.send(field).is_err() {
                        return;
                    }
                }
            }
        });
        Self { fields }
    }

    fn taken(&self) -> Vec<(String, String)> {
        self.fields.try_iter().collect()
    }
}

/// The fields of one entry: `KEY=value`, or the key on a line, a length of 64 bits and the value.
fn entry(mut wire: &[u8]) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    while let Some(end) = wire.iter().position(|byte| *byte == b'\n') {
        let line = &wire[..end];
        wire = &wire[end + 1..];
        if let Some(equals) = line.iter().position(|byte| *byte == b'=') {
            fields.push((text(&line[..equals]), text(&line[equals + 1..])));
            continue;
        }
        let (length, rest) = wire.split_first_chunk::<8>().expect("a length");
        let length = usize::try_from(u64::from_le_bytes(*length)).unwrap();
        fields.push((text(line), text(&rest[..length])));
        wire = &rest[length + 1..];
    }
    fields
}

/// Starts the daemon where journald's socket is ours: `ip netns exec` gives it a view of the mounts that is its own.
fn with_journald(directory: &Path) -> Options {
    let script = directory.join("daemon.sh");
    let journal = "/run/systemd/journal";
    let text = format!(
        "#!/bin/sh -e\nmount -t tmpfs none /run\nmkdir -p {journal}\ntouch {journal}/socket\n\
         mount --bind {}/journald {journal}/socket\nexec {MATTERBIND} \"$@\"\n",
        directory.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    Options { program: script, ..Options::default() }
}

/// A document of the admin API, or the page.
fn get(hub: &Hub<'_>, path: &str) -> String {
    let mut stream = UnixStream::connect(hub.socket()).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    body.to_owned()
}

/// A command's output in each of its forms; with `--json` last, its document.
fn told(hub: &Hub<'_>, arguments: &[&str]) -> Value {
    let mut document = Value::Null;
    for more in [&[][..], &["--json"]] {
        let answer = hub.cli([arguments, more].concat());
        let place = format!("{arguments:?} {more:?}");
        assert_plain(&place, &answer.stdout);
        assert_plain(&place, &answer.stderr);
        answer.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).for_each(|line: Value| {
            assert_plain_json(&place, &line);
            document = line;
        });
    }
    document
}

fn liars(lab: &Lab) {
    let claim = |n: u16, instance: &str, name: &str| Claim {
        service: "_matterc._udp",
        instance: instance.to_owned(),
        subtypes: vec![format!("_L{n}")],
        txt: vec![
            format!("D={n}"),
            "CM=1".to_owned(),
            format!("DN={name}"),
            format!("PI={name}"),
            format!("RI={name}"),
        ],
        ip: "fd77::2".parse().unwrap(),
        port: 7000 + n,
    };
    let mut claims: Vec<_> = (0..).zip(TEXTS).map(|(n, text)| claim(n, &format!("{n:016X}"), text)).collect();
    // The names of these are no numbers of 64 bits: they are not Matter's, and nobody sees them.
    claims.extend((100..).zip(TEXTS).map(|(n, text)| claim(n, text, "no device of Matter")));
    claims.push(Claim { service: "_matter._tcp", ..claim(7, TEXTS[0], TEXTS[0]) });
    lab.among_devices(|| async move {
        let ear = Ear::open(INTERFACE);
        for claim in claims {
            ear.say(&claim.whole()).await;
        }
    });
}

/// What the light says of itself comes out cleaned, and under every command it stays so.
fn every_command(lab: &Lab, hub: &Hub<'_>, light: &Light) {
    let page = |body: &Value| json!({ "kind": "page", "status": 200, "body": body.to_string() });
    let fault = |endpoint: &str, body: &Value, times: u32| {
        let mut fault = page(body);
        (fault["endpoint"], fault["times"]) = (json!(endpoint), json!(times));
        hub.cloud_call("POST", "/sim/fault", &fault);
    };
    // It may have reset itself a moment ago.
    let mut watch = hub.spawn_cli(["discover", "--watch", "--lan", "--json"]);
    watch.wait_for("the light", |line| line["discriminator"] == light.discriminator);
    watch.kill();
    // Busy for long, so that the message is seen while the row waits.
    fault("deviceBindingByWifi", &json!({ "code": 5032, "msg": TEXTS.concat() }), 30);
    let events = hub.cli(["commission", &light.qr, "--events", "--device-key", "EVIL0001", "--wait-bind", "10s"]);
    for line in events.stdout.lines() {
        assert_plain("commission --events", line);
        assert_plain_json("commission --events", &serde_json::from_str(line).unwrap());
    }
    assert_plain("commission's stderr", &events.stderr);
    let last: Value = serde_json::from_str(events.stdout.lines().last().unwrap()).unwrap();
    assert_eq!(last["outcome"], "commissioned", "{last:#}\n{}", hub.daemon_log());
    let node = last["node"]["node_id"].to_string();
    for field in ["vendor_name", "product_name", "serial_number"] {
        assert!(last["node"][field].as_str().unwrap().starts_with(MARK), "{last:#}");
    }
    assert!(last["bind"]["message"].as_str().unwrap().contains(MARK), "{last:#}");

    liars(lab);
    let seen = told(hub, &["discover", "--timeout", "2s"]);
    let names: Vec<_> =
        seen["nodes"].as_array().unwrap().iter().filter_map(|node| node["device_name"].as_str()).collect();
    assert_eq!(names.iter().filter(|name| name.starts_with(MARK)).count(), TEXTS.len(), "{seen:#}");
    assert!(!names.contains(&"no device of Matter"), "{seen:#}");
    let _ = told(hub, &["discover", "--timeout", "1s", "--operational"]);
    // Nobody has this passcode: what fits it is named in the failure.
    let _ = told(hub, &["commission", "MT:Y.K90AFN00KA0648G00"]);
    let _ = told(hub, &["outbox"]);
    let _ = told(hub, &["status"]);
    let _ = told(hub, &["sync", "--node", &node]);
    // The cloud's records have such names too.
    let record = json!({
        "productKey": "p11abc", "deviceKey": "EVIL0001", "deviceName": TEXTS.concat(), "isMatter": 1, "fid": TEXTS[1],
        "matterInfo": { "fabricId": last["node"]["fabric_id"], "nodeId": last["node"]["node_id"], "matterVersion": TEXTS[2],
                        "catList": [{ "cat": 65537, "privilege": TEXTS[3] }] },
    });
    fault("userDeviceList", &json!({ "code": 200, "data": { "list": [record], "total": 1 } }), 20);
    fault("deviceInfo", &json!({ "code": 200, "data": record }), 20);
    let _ = told(hub, &["sync"]);
    let _ = told(hub, &["node", "bind", &node, "--device-key", "EVIL0002"]);
    for arguments in [
        &["nodes"][..],
        &["node", "show", &node],
        &["node", "check", &node],
        &["node", "identify", &node],
        &["node", "rename", &node, "A lamp"],
        &["node", "rename", &node, TEXTS[0]],
        &["node", "show", TEXTS[1]],
        &["node", "share", &node],
        &["access", "show"],
        &["fabric", "show"],
        &["logs", "--level", "debug"],
        &["logs", "--node", TEXTS[3]],
    ] {
        let _ = told(hub, arguments);
    }
    for path in ["/", "/v1/nodes", "/v1/outbox", "/v1/logs", "/v1/status", &format!("/v1/nodes/{node}")] {
        let body = get(hub, path);
        assert_plain(path, &body);
        body.lines().filter_map(|line| serde_json::from_str(line).ok()).for_each(|line| assert_plain_json(path, &line));
    }
    assert!(get(hub, "/").contains(MARK), "the page does not show the light");
    let _ = told(hub, &["node", "remove", &node, "--yes"]);
}

#[test]
fn nothing_hostile_reaches_a_reader() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let texts = json!({
        "vendorName": TEXTS[0], "productName": TEXTS[1], "serialNumber": TEXTS[2], "nodeLabel": TEXTS[3],
        "uniqueId": TEXTS[4], "productLabel": TEXTS[5], "softwareVersionString": TEXTS[5], "hardwareVersionString": TEXTS[0],
    });
    let variables = [("TEXTS", texts.to_string()), ("DN", TEXTS[0].to_owned())];
    let Some(mut lights) = Lights::start(&lab, &variables.each_ref().map(|(key, value)| (*key, value.as_str()))) else {
        return;
    };
    let light = lights.lights[0].clone();
    let directory = tempfile::tempdir().unwrap();
    let journald = Journald::listen(&directory.path().join("journald"));
    for format in ["journald", "text", "json"] {
        let more = format!("[log]\nlevel = \"info,matterbind=debug\"\nformat = \"{format}\"\n");
        let options = if format == "journald" { with_journald(directory.path()) } else { Options::default() };
        let commissioning = "discover_timeout = \"2s\"".to_owned();
        let mut hub = Hub::start(&lab, Options { more, commissioning, ..options });
        every_command(&lab, &hub, &light);
        lights.wait_for("DECOMMISSIONED");
        assert!(hub.stop_daemon().success());
        let (log, fields) = (hub.whole_daemon_log(), journald.taken());
        assert_plain(&format!("the log as {format}"), &log);
        log.lines().filter_map(|line| serde_json::from_str(line).ok()).for_each(|line| assert_plain_json("log", &line));
        for (key, value) in &fields {
            assert!(value.chars().all(is_harmless), "journald's {key} has {value:?}");
        }
        let named = if format == "journald" {
            fields.iter().any(|(_, value)| value.contains(MARK))
        } else {
            log.contains(MARK)
        };
        assert!(named, "the log as {format} names nobody:\n{log}");
    }
}
