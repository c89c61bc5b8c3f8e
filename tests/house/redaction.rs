//! Whole attempts at the most talkative level, good and bad; then everything that anybody can read is searched for every
//! secret that took part: stdout and stderr of daemon and command lines, the admin log, every document of the admin API.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use matterbind::facade::keystore::Keystore;
use matterbind::facade::sim::cloud::{Fault, FaultKind, Scenario, SimCloud};
use rs_matter::BasicCommData;
use tokio_util::sync::CancellationToken;

use crate::support::daemon::{CLOUD, DOMAIN_SECRET, Hub, Options, PASSWORD, VirtualDevice};
use crate::support::lab::{Families, Lab};

const PASSCODE: u32 = 73_915_584;
const BINDING_CODE: &str = "0F1E2D3C4B5A6978";

/// One secret and its name, in each form in which bytes are printed.
struct Needle(String, Vec<String>);

impl Needle {
    fn text(name: &str, text: &str) -> Self {
        let mut forms = bytes_forms(text.as_bytes());
        forms.push(text.to_owned());
        Self(name.to_owned(), forms)
    }

    fn bytes(name: &str, bytes: &[u8]) -> Self {
        assert!(bytes.len() >= 16, "{name} is no secret of this length");
        Self(name.to_owned(), bytes_forms(bytes))
    }

    fn assert_absent(&self, place: &str, text: &str) {
        for form in &self.1 {
            if let Some(at) = text.find(form.as_str()) {
                let begin = text[..at].rfind('\n').map_or(0, |at| at + 1);
                let line = text[begin..].lines().next().unwrap_or_default();
                panic!("{} is in {place}: {line}", self.0);
            }
        }
    }
}

fn bytes_forms(bytes: &[u8]) -> Vec<String> {
    let joined = |separator: &str, form: fn(&u8) -> String| bytes.iter().map(form).collect::<Vec<_>>().join(separator);
    vec![
        joined("", |byte| format!("{byte:02x}")),
        joined("", |byte| format!("{byte:02X}")),
        joined(":", |byte| format!("{byte:02x}")),
        joined(", ", u8::to_string),
        joined(",", u8::to_string),
        joined(", ", |byte| format!("0x{byte:02x}")),
        STANDARD.encode(bytes),
        STANDARD_NO_PAD.encode(bytes),
        URL_SAFE.encode(bytes),
        URL_SAFE_NO_PAD.encode(bytes),
    ]
}

/// A document of the admin API.
fn get(hub: &Hub<'_>, path: &str) -> String {
    ask(hub, "GET", path, "")
}

fn ask(hub: &Hub<'_>, method: &str, path: &str, body: &str) -> String {
    let mut stream = UnixStream::connect(hub.socket()).unwrap();
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    answer
}

#[test]
fn no_secret_is_in_anything_that_can_be_read() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let cloud = SimCloud::new(Scenario::default());
    let end = CancellationToken::new();
    std::thread::scope(|scope| {
        let (listening, ready) = std::sync::mpsc::channel();
        let (served, until, lab) = (cloud.clone(), end.clone(), &lab);
        scope.spawn(move || {
            lab.in_hub(|| async move {
                let listener = tokio::net::TcpListener::bind(CLOUD).await.unwrap();
                listening.send(()).unwrap();
                served.serve(listener, until).await.unwrap();
            });
        });
        let _end = end.drop_guard();
        ready.recv().unwrap();
        whole_attempts(lab, &cloud);
    });
}

fn whole_attempts(lab: &Lab, cloud: &SimCloud) {
    let storage = tempfile::tempdir().unwrap();
    let device = |number: u32| {
        let arguments = [
            format!("--passcode={}", PASSCODE + number),
            format!("--discriminator={}", 1000 + 256 * number),
            format!("--serial-number=QUIET{number}"),
        ];
        let arguments = arguments.each_ref().map(String::as_str);
        VirtualDevice::start(lab, &storage.path().join(number.to_string()), &arguments)
    };
    let devices = [device(0), device(1)];
    let options =
        Options { flags: vec!["-vv".to_owned()], more: "[log]\nlevel = \"trace\"\n".to_owned(), ..Options::default() };
    let mut hub = Hub::new(lab, options);
    hub.start_daemon();
    let mut seen = Vec::new();
    let mut run = |hub: &Hub<'_>, arguments: &[&str]| {
        let answer = hub.cli([&["-vv"], arguments].concat());
        seen.push((arguments[0].to_owned(), answer.stdout, answer.stderr));
        (answer.code, answer.json)
    };

    // Refused: no code at all, a wrong check digit, a wrong passcode.
    let wrong = BasicCommData { password: (PASSCODE + 2).to_le_bytes().into(), discriminator: 1000 };
    let wrong = wrong.compute_pairing_code().to_string();
    let no_digit = format!("{}{}", &wrong[..10], (wrong.as_bytes()[10] - b'0' + 1) % 10);
    run(&hub, &["commission", &no_digit, "--binding-code", BINDING_CODE]);
    run(&hub, &["commission", &format!("{}?", devices[0].qr), "--events"]);
    let (_, failure) = run(&hub, &["commission", &wrong, "--json"]);
    assert_eq!(failure["code"], "wrong-passcode", "{failure:#}");
    // Bound after the cloud's worst days; one with a code that was given, one with a random one.
    for kind in [FaultKind::Garbage, FaultKind::Code { code: 5032 }] {
        cloud.fault(Fault::of_bind(kind));
    }
    let (exit, first) =
        run(&hub, &["commission", &devices[0].qr, "--binding-code", BINDING_CODE, "--json", "--wait-bind", "60s"]);
    assert!(matches!(exit, 0 | 6), "{first:#}");
    run(&hub, &["commission", &devices[1].manual, "--wait-bind", "60s"]);
    cloud.revoke_tokens(false);
    run(&hub, &["outbox", "--json"]);
    let id = first["node"]["node_id"].to_string();
    let shared = hub.ask(&["node", "share", &id]);
    run(&hub, &["node", "rename", &id, "Quiet lamp"]);
    for arguments in [
        &["node", "show", &id, "--json"][..],
        &["node", "check", &id],
        &["nodes"],
        &["status", "--json"],
        &["sync", "--json"],
        &["fabric", "show", "--json"],
        &["logs", "--json", "--level", "debug"],
        &["discover", "--timeout", "1s"],
        &["check-config", "--config", hub.config().to_str().unwrap()],
    ] {
        run(&hub, arguments);
    }
    let mut documents = String::new();
    for path in ["/v1/status", "/v1/nodes", "/v1/outbox", "/v1/logs", "/v1/fabric", "/metrics", "/"] {
        writeln!(documents, "{path}: {}", get(&hub, path)).unwrap();
    }
    writeln!(documents, "{}", get(&hub, &format!("/v1/nodes/{id}"))).unwrap();
    for code in [&devices[0].qr, &devices[1].manual] {
        let typed = serde_json::json!({ "setup_code": code }).to_string();
        writeln!(documents, "{}", ask(&hub, "POST", "/add/in-the-way", &typed)).unwrap();
    }
    assert!(hub.stop_daemon().success());

    let log = hub.whole_daemon_log();
    assert!(log.contains("\"TRACE\"") && log.contains("node-commissioned"), "the log says too little to judge");
    let mut places = vec![
        ("the daemon's stderr".to_owned(), log),
        ("the daemon's stdout".to_owned(), hub.daemon_stdout()),
        ("the admin API".to_owned(), documents),
    ];
    for (command, stdout, stderr) in seen {
        places.push((format!("stdout of {command}"), stdout));
        places.push((format!("stderr of {command}"), stderr));
    }
    let secrets = secrets(&hub, cloud, &devices, &[wrong, no_digit], &shared);
    for (place, text) in &places {
        for secret in &secrets {
            secret.assert_absent(place, text);
        }
    }
}

fn secrets(
    hub: &Hub<'_>,
    cloud: &SimCloud,
    devices: &[VirtualDevice],
    codes: &[String],
    shared: &serde_json::Value,
) -> Vec<Needle> {
    let bundle = Keystore::new(hub.state_dir(), None).load().unwrap().bundle;
    let mut all = vec![
        Needle::text("the domain secret", DOMAIN_SECRET),
        Needle::text("the password", PASSWORD),
        Needle::text("the binding code", BINDING_CODE),
        Needle::text("a wrong passcode", &(PASSCODE + 2).to_string()),
        Needle::bytes("the IPK", bundle.ipk.expose()),
        Needle::bytes("the ICAC's key", bundle.icac_key.expose()),
        Needle::bytes("the hub's key", bundle.hub_key.expose()),
    ];
    all.extend(bundle.rcac_key.iter().map(|key| Needle::bytes("the root's key", key.expose())));
    for (number, device) in (0u32..).zip(devices) {
        all.push(Needle::text("a passcode", &(PASSCODE + number).to_string()));
        all.push(Needle::text("a QR payload", &device.qr));
        all.push(Needle::text("a manual code", &device.manual));
    }
    all.extend(codes.iter().map(|code| Needle::text("a mistyped code", code)));
    for key in ["manual_code", "qr_payload"] {
        all.push(Needle::text("the code of a share", shared[key].as_str().unwrap()));
    }
    let of_cloud = cloud.secrets();
    assert!(of_cloud.len() >= 4, "tokens, near-field keys");
    all.extend(
        of_cloud.iter().map(|secret| Needle::text("a secret of the cloud", secret.trim_start_matches("Bearer "))),
    );
    all
}
