//! Bad input and bad days, as a user meets them: each gives the documented step, code, hint and exit code, and leaves no
//! half state behind, neither on the device (it can be commissioned again) nor in the store (no node that is not there).
//!
//! The lab is that of `main_job`. Deadlines are the configured ones; none is asserted by the clock, but a command that
//! passes its own would run into the harness's.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rs_matter::BasicCommData;
use serde_json::{Value, json};

use crate::support::daemon::{Hub, MATTERBIND, Options, PATIENCE, Running, VirtualDevice};
use crate::support::lab::{Families, Lab};
use crate::support::matterjs::Lights;
use crate::support::slow_link::SlowLink;

/// A hub that gives up early on devices that are not there.
fn hasty() -> Options {
    Options { commissioning: "discover_timeout = \"10s\"\nstep_timeout = \"8s\"".to_owned(), ..Options::default() }
}

/// 11 digits for a device with that passcode and discriminator.
fn manual_code(passcode: u32, discriminator: u16) -> String {
    BasicCommData { password: passcode.to_le_bytes().into(), discriminator }.compute_pairing_code().to_string()
}

fn no_nodes(hub: &Hub<'_>) {
    assert_eq!(hub.nodes(), Vec::<Value>::new());
    assert_eq!(hub.outbox(), Vec::<Value>::new());
}

#[test]
fn codes_that_no_device_has() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let mut hub = Hub::new(&lab, hasty());
    hub.start_daemon();
    let good = manual_code(20_202_021, 3840);
    let last = good.as_bytes()[10] - b'0';
    let wrong_digit = format!("{}{}", &good[..10], (last + 1) % 10);
    let cases = [
        (wrong_digit.as_str(), "wrong-check-digit"),
        (&good[..9], "wrong-code-length"),
        ("MT:Y.K908-8!", "malformed-setup-code"),
        ("hello", "malformed-setup-code"),
        (&manual_code(12_345_678, 3840), "reserved-passcode"),
        (&manual_code(87_654_321, 3840), "reserved-passcode"),
    ];
    for (code, word) in cases {
        let failure = hub.commission_fails(code, &[], "parse", word, 2);
        assert_eq!(failure["disposition"], "user-action");
        assert!(!failure.to_string().contains(code), "the code is a secret: {failure}");
    }
    // A good one, for a device that is not there.
    let failure = hub.commission_fails(&good, &[], "discover", "device-not-found", 4);
    assert_eq!(failure["disposition"], "user-action");
    no_nodes(&hub);
    // A command without a daemon.
    assert!(hub.stop_daemon().success());
    let answer = hub.cli(["nodes", "--json"]);
    assert_eq!((answer.code, &answer.json["code"]), (5, &json!("daemon-unreachable")), "{answer:?}");
    assert!(answer.json["hint"].as_str().is_some_and(|hint| !hint.is_empty()));
}

/// Two lights with one short discriminator (3840, 3841).
///
/// ```text
/// wrong code ─► first: refused                         told within seconds
/// three clicks on the first's code ─► one attempt      the same node for all
/// the first's code again ─► "this is node X"           at once, by any of its codes
/// wrong code ─► second: refused, three times; then     nobody is tried any more
/// ```
#[test]
fn a_wrong_passcode_a_double_click_a_device_that_is_ours_and_the_limit_of_tries() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let Some(lights) = Lights::start(&lab, &[("SERIAL", "JSWRONG"), ("COUNT", "2")]) else { return };
    let (first, second) = (lights.lights[0].clone(), lights.lights[1].clone());
    let hub = Hub::start(&lab, hasty());
    let mut watch = hub.spawn_cli(["discover", "--watch", "--json"]);
    watch.wait_for("the first light", |line| line["discriminator"] == 3840);

    // At its address the code is wrong. It is said soon, and the window stays open.
    let address = format!("10.77.0.2:{}", first.port);
    let began = Instant::now();
    let wrong = manual_code(first.passcode + 7, first.discriminator);
    hub.commission_fails(&wrong, &["--address", &address], "pase", "wrong-passcode", 4);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(12), "a wrong passcode is told after {took:?}");
    no_nodes(&hub);

    // Somebody clicks three times.
    let clicks: Vec<_> = (0..3).map(|_| hub.spawn_cli(["commission", &first.qr, "--json"])).collect();
    let answers: Vec<(i32, Value)> = clicks.into_iter().map(|click| click.result()).collect();
    let node = hub.nodes().first().cloned().unwrap();
    for (exit, answer) in &answers {
        // Who came when it was over is told which node it is.
        assert_eq!(answer["node"]["node_id"], node["node_id"], "{answer:#}\n{}", hub.daemon_log());
        assert!(*exit == 0 || answer["code"] == "already-on-this-fabric", "{answer:#}");
    }
    assert!(answers.iter().any(|(exit, _)| *exit == 0), "{answers:#?}");
    assert_eq!(hub.nodes().len(), 1);

    // It has us now: every code of it says so, wherever it is looked for.
    for more in [&[][..], &["--address", &address][..]] {
        for code in [&first.qr, &first.manual] {
            let (exit, failure) = hub.commission(code, more);
            let step = failure["step"].as_str().unwrap_or_default().to_owned();
            hub.check_failure(exit, &failure, &step, "already-on-this-fabric", 4);
            assert_eq!(failure["node"]["node_id"], node["node_id"], "{failure:#}");
        }
    }
    assert_eq!(hub.ask(&["node", "check", &node["node_id"].to_string()])["reachable"], true);

    // Once the first has said goodbye, only the second is left for the wrong code; it bears it three times.
    watch.wait_for("its goodbye", |line| line["event"] == "disappeared" && line["discriminator"] == 3840);
    let mut refused = 0;
    let failure = loop {
        let (exit, failure) = hub.commission(&wrong, &[]);
        if failure["code"] != "wrong-passcode" {
            hub.check_failure(exit, &failure, "discover", "ambiguous-device", 4);
            break failure;
        }
        refused += 1;
        assert!(refused <= 3, "{failure:#}");
    };
    // The first's manual code fits the second too, which may have borne one try of it before.
    assert!((2..=3).contains(&refused), "{refused}");
    assert!(failure["message"].as_str().unwrap().contains("3841"), "{failure:#}");
    hub.commission_fails(&second.qr, &[], "discover", "ambiguous-device", 4);
}

/// A device that dies in the middle of a step.
struct Victim {
    step: &'static str,
    device: VirtualDevice,
    link: SlowLink,
    storage: PathBuf,
    arguments: Vec<String>,
}

impl Victim {
    fn start(lab: &Lab, directory: &Path, number: u16, step: &'static str) -> Self {
        let (port, storage) = (5600 + number, directory.join(step));
        let arguments = vec![
            format!("--port={port}"),
            format!("--discriminator={}", 100 + number),
            format!("--passcode={}", 30_303_030 + u32::from(number)),
            format!("--serial-number=DIES{number}"),
        ];
        let device = Self::device(lab, &storage, &arguments);
        Self { step, device, link: SlowLink::to(lab, port), storage, arguments }
    }

    fn device(lab: &Lab, storage: &Path, arguments: &[String]) -> VirtualDevice {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        VirtualDevice::start(lab, storage, &arguments)
    }
}

const STEPS: [&str; 13] = [
    "parse",
    "discover",
    "pase",
    "arm-fail-safe",
    "read-info",
    "attestation",
    "csr",
    "add-root",
    "add-noc",
    "operational",
    "access",
    "complete",
    "record",
];

/// The device was killed when `step` had begun: the attempt failed there, or in a later step when the kill came late.
fn check_death(hub: &Hub<'_>, step: &str, exit: i32, failure: &Value) {
    let place = |name: &str| STEPS.iter().position(|step| *step == name).unwrap_or(usize::MAX);
    let told = failure["step"].as_str().unwrap_or_default();
    assert!(place(told) >= place(step) && place(told) < STEPS.len(), "killed at {step}: {failure:#}");
    if told != step {
        eprintln!("killed at {step}, failed at {told}");
    }
    hub.check_failure(exit, failure, told, "device-unreachable", 4);
    assert_eq!(failure["disposition"], "retry");
}

#[test]
fn a_virtual_device_that_dies_in_the_middle_of_a_step() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let directory = tempfile::tempdir().unwrap();
    let mut hub = Hub::start(&lab, hasty());
    let victims: Vec<_> = (0u16..)
        .zip(["pase", "attestation", "csr", "add-noc", "operational", "access"])
        .map(|(number, step)| Victim::start(&lab, directory.path(), number, step))
        .collect();
    let attempts: Vec<_> = victims
        .into_iter()
        .map(|victim| {
            let address = victim.link.address();
            let mut attempt = hub.spawn_cli(["commission", &victim.device.qr, "--events", "--address", &address]);
            attempt.wait_for_step(victim.step);
            let Victim { step, device, link, storage, arguments } = victim;
            let code = device.qr.clone();
            device.kill();
            (step, attempt, code, link, storage, arguments)
        })
        .collect();
    let mut after = Vec::new();
    for (step, attempt, code, _link, storage, arguments) in attempts {
        let (exit, failure) = attempt.result();
        check_death(&hub, step, exit, &failure);
        after.push((step, code, storage, arguments));
    }
    no_nodes(&hub);
    // What a power cut leaves of it is a device that was never commissioned.
    let mut devices = Vec::new();
    for (step, code, storage, arguments) in &after {
        let device = Victim::device(&lab, storage, arguments);
        assert!(device.commissionable, "killed at {step}");
        assert_eq!(device.qr, *code);
        devices.push(device);
    }
    for device in &devices {
        hub.commission_and_bind(&device.qr);
    }
    assert_eq!(hub.nodes().len(), devices.len());
    hub.kill_daemon();
    hub.start_daemon();
    assert_eq!(hub.nodes().len(), devices.len());
}

#[test]
fn a_light_that_dies_in_the_middle_of_a_step() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let hub = Hub::start(&lab, hasty());
    let mut deaths = Vec::new();
    for (number, step) in (0u16..).zip(["pase", "add-noc", "operational"]) {
        let (port, discriminator) = ((5700 + number).to_string(), (200 + number).to_string());
        let serial = format!("JSDIES{number}");
        let variables =
            [("SERIAL", serial.as_str()), ("PORT", &port), ("DISCRIMINATOR", &discriminator), ("NAME", &serial)]
                .map(|(key, value)| (key.to_owned(), value.to_owned()));
        let borrowed = variables.each_ref().map(|(key, value)| (key.as_str(), value.as_str()));
        let Some(lights) = Lights::start(&lab, &borrowed) else { return };
        let light = lights.lights[0].clone();
        let link = SlowLink::to(&lab, light.port);
        let mut attempt = hub.spawn_cli(["commission", &light.qr, "--events", "--address", &link.address()]);
        attempt.wait_for_step(step);
        deaths.push((step, attempt, lights.kill(), link, light, variables));
    }
    let mut again = Vec::new();
    for (step, attempt, storage, _link, light, variables) in deaths {
        let (exit, failure) = attempt.result();
        check_death(&hub, step, exit, &failure);
        again.push((storage, light, variables));
    }
    no_nodes(&hub);
    for (storage, light, variables) in again {
        let borrowed = variables.each_ref().map(|(key, value)| (key.as_str(), value.as_str()));
        let Some(mut lights) = Lights::start_on(&lab, &borrowed, storage) else { return };
        // A fail-safe does not outlive a power cut (Matter Core 11.10.7.2), but matter.js keeps a fabric that was never
        // completed. Its owner would have to reset it.
        if lights.lights[0].commissioned {
            lights.command("reset 0");
        }
        hub.commission_and_bind(&light.qr);
    }
}

/// The hub's power goes in the middle of an attempt. The light goes on holding what it was given, for as long as its fail-safe
/// is armed; the code is typed again at once.
#[test]
fn a_hub_that_dies_in_the_middle_of_an_attempt() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let Some(lights) = Lights::start(&lab, &[("SERIAL", "JSPOWER"), ("COUNT", "5")]) else { return };
    let commissioning = "discover_timeout = \"20s\"\nfail_safe = \"12s\"".to_owned();
    let resumed = |hub: &Hub<'_>| hub.cli(["logs", "--json"]).stdout.matches("\"attempt-resumed\"").count();
    let mut hub = Hub::new(&lab, Options { commissioning, ..Options::default() });
    hub.start_cloud();
    // What is on our fabric is gone on with, where the device's fail-safe lasts; the others begin anew.
    let points =
        [("arm.after", 0), ("add-root.after", 0), ("add-noc.after", 1), ("case.opened", 2), ("acl.read-back", 3)];
    for (light, (point, resumed_until_now)) in lights.lights.iter().zip(points) {
        hub.environment = vec![("MATTERBIND_FAILPOINT".to_owned(), point.to_owned())];
        hub.start_daemon();
        let (exit, answer) = hub.commission(&light.qr, &[]);
        assert_eq!(exit, 5, "{point}: {answer:#}");
        hub.kill_daemon();
        hub.environment.clear();
        hub.start_daemon();
        let (exit, answer) = hub.commission(&light.qr, &[]);
        assert_eq!(exit, 0, "{point}: {answer:#}\n{}", hub.daemon_log());
        assert_eq!(resumed(&hub), resumed_until_now, "{point}\n{}", hub.daemon_log());
        hub.kill_daemon();
    }
    hub.start_daemon();
    assert_eq!(hub.nodes().len(), 5);
    hub.synced("match");
}

#[test]
fn a_full_fabric_table_and_an_untrusted_root() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let Some(lights) = Lights::start(&lab, &[("SERIAL", "JSFULL"), ("MAXFABRICS", "5")]) else { return };
    let light = lights.lights[0].clone();
    let mut hub = Hub::new(&lab, Options { trusted_paa: false, ..hasty() });
    hub.start_daemon();

    // Nobody vouches for it: refused by policy, rolled back.
    let failure = hub.commission_fails(&light.qr, &[], "attestation", "attestation-rejected", 3);
    assert!(failure["findings"].as_array().is_some_and(|findings| !findings.is_empty()), "{failure:#}");
    no_nodes(&hub);

    // Five others, each let in by the one before.
    let mut code = light.qr.clone();
    let mut first = None;
    for _ in 0..5 {
        let mut other = Hub::new(&lab, hasty());
        other.start_daemon();
        let (exit, joined) = other.commission(&code, &["--no-bind"]);
        assert_eq!(exit, 0, "{joined:#}\n{}", other.daemon_log());
        let shared = other.ask(&["node", "share", &joined["node"]["node_id"].to_string()]);
        code = shared["qr_payload"].as_str().unwrap().to_owned();
        if first.is_none() {
            first = Some((other, joined["node"]["node_id"].to_string()));
        }
    }
    let mut sixth = Hub::start(&lab, hasty());
    let (exit, failure) = sixth.commission(&code, &[]);
    let step = failure["step"].as_str().unwrap_or_default().to_owned();
    assert!(matches!(step.as_str(), "read-info" | "add-root" | "add-noc"), "{failure:#}");
    sixth.check_failure(exit, &failure, &step, "fabric-table-full", 4);
    assert_eq!(failure["disposition"], "user-action");
    no_nodes(&sixth);

    // One leaves, and there is room; the window is still open.
    let (first, node) = first.unwrap();
    first.ask(&["node", "remove", &node]);
    sixth.commission_and_bind(&code);
    assert!(sixth.stop_daemon().success());
}

#[test]
fn a_cloud_that_is_down_or_talks_nonsense() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let storage = tempfile::tempdir().unwrap();
    let start = |number: u16| {
        let (serial, discriminator) = (format!("--serial-number=CLOUD{number}"), format!("--discriminator={number}"));
        VirtualDevice::start(&lab, &storage.path().join(number.to_string()), &[&serial, &discriminator])
    };
    let devices = [start(1), start(2), start(3)];
    let mut hub = Hub::new(&lab, hasty());
    hub.start_daemon();
    let mut log = hub.follow();

    // Down: done locally, and the row waits.
    let (exit, result) = hub.commission(&devices[0].qr, &["--wait-bind", "1s"]);
    assert_eq!((exit, &result["outcome"]), (6, &json!("commissioned")), "{result:#}");
    assert_eq!(result["bind"]["state"], "pending", "{result:#}");
    let give_up = Instant::now() + PATIENCE;
    loop {
        let rows = hub.outbox();
        assert_eq!((rows.len(), &rows[0]["kind"]), (1, &json!("bind")), "{rows:#?}");
        let has_been_tried = rows[0]["last_message"].as_str().is_some_and(|text| !text.is_empty());
        if rows[0]["state"] == "pending" && has_been_tried {
            break;
        }
        assert!(Instant::now() < give_up, "{rows:#?}");
    }
    // It survives the daemon's death, and settles when the cloud is there.
    hub.kill_daemon();
    drop(log);
    hub.start_daemon();
    assert_eq!(hub.outbox().len(), 1);
    log = hub.follow();
    hub.start_cloud();
    log.wait_for_event("node-bound");
    assert_eq!(hub.outbox(), Vec::<Value>::new());
    assert_eq!(hub.nodes()[0]["bind"]["state"], "bound");
    assert_eq!(hub.binding("CLOUD1")["matter_info"]["nodeId"], hub.nodes()[0]["node_id"]);

    // Nonsense before and after the bind took effect: settled in the end, bound once.
    for (device, key, after_commit) in [(&devices[1], "CLOUD2", false), (&devices[2], "CLOUD3", true)] {
        let fault = json!({ "endpoint": "deviceBindingByWifi", "kind": "garbage", "after_commit": after_commit });
        hub.cloud_call("POST", "/sim/fault", &fault);
        let (exit, result) = hub.commission(&device.qr, &["--wait-bind", "0s"]);
        assert!(matches!(exit, 0 | 6), "{result:#}");
        let node = result["node"]["node_id"].clone();
        log.wait_for("the bind", |line| line["kind"] == "node-bound" && line["node_id"] == node);
        assert_eq!(hub.binding(key)["matter_info"]["nodeId"], node);
        assert_eq!(hub.cloud_state()["counters"]["commits"][format!("p11abc/{key}")], 1);
        assert_eq!(hub.outbox(), Vec::<Value>::new());
    }
    assert!(hub.stop_daemon().success());
}

/// A daemon that must not start: it ends by itself with an error that says what to do, and with the code after which the unit
/// does not try again.
fn refuses_to_start(hub: &mut Hub<'_>, hint: &str) {
    let before = hub.whole_daemon_log().len();
    let status = hub.try_start_daemon().expect_err("it must not start");
    assert_eq!(status.code(), Some(2));
    let log = hub.whole_daemon_log();
    assert!(log[before..].contains(hint), "no {hint:?} in:\n{}", &log[before..]);
}

#[test]
fn state_that_is_damaged_or_in_use() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let storage = tempfile::tempdir().unwrap();
    let device = VirtualDevice::start(&lab, storage.path(), &["--serial-number", "STATE1"]);
    let mut hub = Hub::start(&lab, hasty());
    let node = hub.commission_and_bind(&device.qr);
    let fabric = hub.ask(&["fabric", "show"]);

    // A second daemon on the same socket, and on the same state.
    let second = |arguments: &[&str]| {
        let mut command = lab.hub_command(MATTERBIND);
        command.args(arguments).arg("daemon").arg("--config").arg(hub.config());
        Running::start(command).answer()
    };
    let answer = second(&[]);
    assert_eq!(answer.code, 1, "{answer:?}");
    assert!(answer.stderr.contains("admin.sock"), "{answer:?}");
    let elsewhere = hub.path().join("other.sock");
    let answer = second(&["--socket", elsewhere.to_str().unwrap()]);
    assert_eq!(answer.code, 1, "{answer:?}");
    assert!(answer.stderr.contains("stop it first"), "{answer:?}");
    assert_eq!(hub.ask(&["node", "check", &node["node_id"].to_string()])["reachable"], true);
    assert!(hub.stop_daemon().success());

    // Each loss on its own: it says what to do, and touches nothing.
    let database = hub.state_dir().join("matterbind.db");
    let keys = hub.state_dir().join("fabric.keys");
    let whole = fs::read(&database).unwrap();
    let garbage = b"this is no database".repeat(500);
    fs::write(&database, &garbage).unwrap();
    refuses_to_start(&mut hub, "restore the state directory from a backup");
    assert_eq!(fs::read(&database).unwrap(), garbage);
    fs::remove_file(&database).unwrap();
    refuses_to_start(&mut hub, "restore the state directory from a backup");
    assert!(!database.exists(), "never from nothing where something was");
    fs::write(&database, &whole).unwrap();

    let bundle = fs::read(&keys).unwrap();
    fs::remove_file(&keys).unwrap();
    refuses_to_start(&mut hub, "restore");
    assert!(!keys.exists(), "no second CA");
    fs::write(&keys, &bundle[..bundle.len() / 2]).unwrap();
    set_private(&keys);
    refuses_to_start(&mut hub, "restore");
    fs::write(&keys, &bundle).unwrap();
    hub.start_daemon();
    assert_eq!(hub.ask(&["fabric", "show"]), fabric);
    assert_eq!(hub.ask(&["node", "check", &node["node_id"].to_string()])["reachable"], true);
}

fn set_private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}
