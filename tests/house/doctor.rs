//! Broken set-ups, made one by one, and named by `matterbind doctor` each: with the daemon that runs on them, and without one.
//!
//! ```text
//!   namespace "hub": daemon, cloud-sim or what stands in its place      command line: `doctor`, `status`, `commission`
//!   unshare -m: a state directory on a disk of its own                  a `systemctl` that says what systemd would
//! ```

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::daemon::{Answer, CLOUD, DOMAIN_SECRET, Hub, MATTERBIND, Options, PASSWORD, Running};
use crate::support::lab::{Families, Lab, skipped};
use serde_json::Value;

/// What was found: severities by id, and the exit code.
struct Found {
    code: i32,
    by_id: BTreeMap<String, String>,
    document: Value,
}

impl Found {
    fn of(answer: Answer) -> Self {
        let findings = answer.json["findings"].as_array().unwrap_or_else(|| panic!("no findings: {answer:?}"));
        let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
        for finding in findings.iter().filter(|finding| finding["severity"] != "ok") {
            assert!(!text(finding, "hint").is_empty() && text(finding, "seen").ends_with('.'), "{finding}");
        }
        let by_id = findings.iter().map(|finding| (text(finding, "id"), text(finding, "severity"))).collect();
        Self { code: answer.code, by_id, document: answer.json }
    }

    /// The set-up has this name, and the exit code says how bad it is.
    fn names(&self, id: &str, severity: &str) {
        assert_eq!(self.by_id.get(id).map(String::as_str), Some(severity), "{:#}", self.document);
        let worst = if self.by_id.values().any(|severity| severity == "error") { 2 } else { 1 };
        assert_eq!(self.code, worst, "{:#}", self.document);
    }

    fn does_not_name(&self, id: &str) {
        assert!(!matches!(self.by_id.get(id).map(String::as_str), Some("warning" | "error")), "{:#}", self.document);
    }
}

fn doctor(hub: &Hub<'_>) -> Found {
    Found::of(hub.cli(["doctor", "--json"]))
}

fn with(variable: &str, value: &str) -> Options {
    Options { environment: vec![(variable.to_owned(), value.to_owned())], ..Options::default() }
}

#[test]
fn a_hub_that_works_is_told_so_and_its_bundle_holds_no_secret() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let hub = Hub::start(&lab, Options::default());
    let found = doctor(&hub);
    for well in ["daemon", "interface", "mdns-echo", "cloud", "store", "trust-store", "versions"] {
        assert_eq!(found.by_id.get(well).map(String::as_str), Some("ok"), "{well}: {:#}", found.document);
    }
    found.names("keys-not-sealed", "warning");
    assert!(!found.by_id.values().any(|severity| severity == "error"), "{:#}", found.document);
    // What is found stands in the status until the next look.
    let status = hub.ask(&["status"]);
    let told = status["findings"].as_array().unwrap().iter().any(|finding| finding["id"] == "keys-not-sealed");
    assert!(told && status["ready"] == true, "{status:#}");
    let shown = hub.cli(["status"]).stdout;
    assert!(shown.contains("doctor   warning"), "{shown}");

    let file = hub.path().join("support.tar");
    let config = hub.config();
    let answer = hub.cli(["doctor", "--bundle", file.to_str().unwrap(), "--config", config.to_str().unwrap()]);
    assert_eq!(answer.code, 1, "{answer:?}");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let mut archive = tar::Archive::new(std::fs::File::open(&file).unwrap());
    let mut names = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        for secret in [PASSWORD, DOMAIN_SECRET, "hub@example.com"] {
            assert!(!text.contains(secret), "{name} holds {secret}");
        }
        assert!(!text.is_empty(), "{name}");
        // Each is named in what the command prints.
        assert!(name == "README.txt" || answer.stdout.contains(&name), "{name}: {}", answer.stdout);
        names.push(name);
    }
    for name in ["doctor.json", "config.toml", "nodes.json", "log.ndjson", "metrics.txt", "unit.txt"] {
        assert!(names.iter().any(|found| found == name), "{names:?}");
    }
    // Never over a file that is there.
    let refused = hub.cli(["doctor", "--json", "--bundle", file.to_str().unwrap()]);
    assert_eq!(
        (refused.code, &refused.json["code"]),
        (2, &"usage".into()),
        "one document, and no warnings: {refused:?}"
    );
    let kept = std::fs::metadata(&file).unwrap().len();
    assert!(kept > 10_000, "{kept}");
}

/// 1 and 2: an interface that does not exist, and only the loopback interface. Everything that tells says so, and nobody waits for
/// a device that cannot be heard.
#[test]
fn a_hub_without_an_interface_says_so_everywhere_and_at_once() {
    for (interfaces, said) in [(r#"["nosuch0"]"#, "nosuch0"), (r#"["lo"]"#, "loopback")] {
        let Some(lab) = Lab::new(Families::Both) else { return };
        let mut hub = Hub::new(&lab, with("MATTERBIND_NETWORK__INTERFACES", interfaces));
        hub.start_daemon();
        let found = doctor(&hub);
        found.names("no-interface", "error");
        let status = hub.ask(&["status"]);
        assert!(status["ready"] == false && status["waiting_for"].to_string().contains(said), "{status:#}");
        assert!(status["findings"].to_string().contains("no-interface"), "{status:#}");
        let began = Instant::now();
        hub.commission_fails("34970112332", &[], "discover", "discovery-unavailable", 1);
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "at once, not after discover_timeout: {:?}",
            began.elapsed()
        );
    }
}

/// 3: a firewall drops what the hub's network sends.
#[test]
fn a_firewall_is_noticed_by_the_echo_and_named_by_its_chain() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let Ok(there) = Command::new("nft").arg("--version").output() else { return skipped("no nft") };
    assert!(there.status.success());
    let rules = "table inet guard {\n chain incoming {\n type filter hook input priority 0; policy drop;\n iif lo accept\n }\n}\n";
    assert!(lab.hub_command("nft").arg(rules).status().unwrap().success());
    let mut hub = Hub::new(&lab, Options::default());
    hub.start_daemon();
    doctor(&hub).names("mdns-silent", "error");
    // Root in the same network sees the rules.
    let mut command = lab.hub_command(MATTERBIND);
    command.arg("--socket").arg(hub.socket()).args(["doctor", "--json"]);
    Found::of(Running::start(command).answer()).names("firewall-drops", "warning");
}

/// 4: nobody's devices are trusted.
#[test]
fn an_empty_trust_store_is_an_error_with_the_command_that_fills_it() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let hub = Hub::start(&lab, Options { trusted_paa: false, ..Options::default() });
    let found = doctor(&hub);
    found.names("trust-store-empty", "error");
    assert!(found.document.to_string().contains("matterbind attestation update-paa"), "{:#}", found.document);
}

/// 5 to 8: nobody listens where the cloud should be; its name does not exist; a portal answers in its place; its time is another.
#[test]
fn what_is_wrong_between_hub_and_cloud_has_its_own_name() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let mut hub = Hub::new(&lab, Options::default());
    hub.start_daemon();
    doctor(&hub).names("cloud-unreachable", "error");
    hub.start_cloud();
    let found = doctor(&hub);
    found.does_not_name("cloud-unreachable");
    assert_eq!(found.by_id.get("cloud").map(String::as_str), Some("ok"), "{:#}", found.document);
    drop(hub);

    let mut hub = Hub::new(&lab, with("MATTERBIND_CLOUD__BASE_URL", "https://cloud.invalid"));
    hub.start_daemon();
    doctor(&hub).names("cloud-name", "error");
    drop(hub);

    let portal = "HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1/login\r\nServer: Portal\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let late = "HTTP/1.1 200 OK\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\nContent-Length: 27\r\nConnection: close\r\n\r\n{\"code\":5013,\"msg\":\"token\"}";
    for (answer, id) in [(portal, "cloud-intercepted"), (late, "clock-wrong")] {
        let Some(lab) = Lab::new(Families::Both) else { return };
        let (ready, is_ready) = std::sync::mpsc::channel();
        lab.spawn_in_hub(move || {
            let listener = TcpListener::bind(CLOUD).unwrap();
            ready.send(()).unwrap();
            for mut stream in listener.incoming().flatten() {
                let mut buffer = [0; 4096];
                let _ = stream.read(&mut buffer);
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        is_ready.recv().unwrap();
        let mut hub = Hub::new(&lab, Options::default());
        hub.start_daemon();
        doctor(&hub).names(id, "error");
    }
}

/// `doctor` where no daemon runs, in a mount namespace that `prepare` (a shell's lines) has changed, with `systemctl` as the shell
/// function's text says it.
fn alone(hub: &Hub<'_>, lab: &Lab, prepare: &str, systemctl: &str) -> Found {
    let bin = hub.path().join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    let fake = bin.join("systemctl");
    std::fs::write(&fake, format!("#!/bin/sh\n{systemctl}\n")).unwrap();
    std::fs::set_permissions(&fake, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = lab.hub_command("unshare");
    let path = std::env::var("PATH").unwrap_or_default();
    command.args(["-m", "sh", "-c", &format!("set -e\n{prepare}\nexec \"$@\""), "sh", MATTERBIND, "--socket"]);
    command.arg(hub.socket()).args(["doctor", "--json", "--config"]).arg(hub.config());
    command.env("PATH", format!("{}:{path}", bin.display()));
    Found::of(Running::start(command).answer())
}

/// 9 to 14: the daemon does not run, because its disk is read-only or full, its database is torn, its credential is lost, its
/// configuration is wrong, or for no reason at all.
#[test]
fn without_a_daemon_it_says_why_there_is_none() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    if !Command::new("unshare").args(["-m", "true"]).status().is_ok_and(|status| status.success()) {
        return skipped("no mount namespaces");
    }
    let mut hub = Hub::start(&lab, Options::default());
    hub.stop_daemon();
    let state = hub.state_dir().display().to_string();
    let stopped = "echo LoadState=loaded; echo ActiveState=inactive; echo Result=success; echo ExecMainStatus=0";

    let found = alone(&hub, &lab, "", stopped);
    found.names("daemon-not-running", "error");
    found.names("unit-stopped", "error");
    for well in ["mdns-echo", "cloud", "store", "trust-store"] {
        assert_eq!(found.by_id.get(well).map(String::as_str), Some("ok"), "{well}: {:#}", found.document);
    }
    assert_eq!(found.document["daemon"], false);

    let namespace = "echo LoadState=loaded; echo ActiveState=failed; echo Result=exit-code; echo ExecMainStatus=226";
    let found =
        alone(&hub, &lab, &format!("mount --bind '{state}' '{state}'; mount -o remount,ro,bind '{state}'"), namespace);
    found.names("state-read-only", "error");
    found.names("unit-namespace", "error");

    let found = alone(&hub, &lab, &format!("mount -t tmpfs -o size=1m,mode=700 none '{state}'"), stopped);
    found.names("disk-full", "error");

    let credential = format!(
        "if [ \"$1\" = cat ]; then echo LoadCredentialEncrypted=matterbind-seal:{state}/no-such-seal; exit; fi\n\
         echo LoadState=loaded; echo ActiveState=failed; echo Result=exit-code; echo ExecMainStatus=243"
    );
    alone(&hub, &lab, "", &credential).names("credential-lost", "error");

    let database = hub.state_dir().join("matterbind.db");
    let whole = std::fs::read(&database).unwrap();
    let mut torn = whole.clone();
    torn[4096..].fill(0x5a);
    std::fs::write(&database, torn).unwrap();
    alone(&hub, &lab, "", stopped).names("database-damaged", "error");
    std::fs::write(&database, whole).unwrap();

    std::fs::write(hub.config(), "no_such_key = 1\n").unwrap();
    alone(&hub, &lab, "", "exit 1").names("configuration-wrong", "error");
    // Looking has changed nothing: the next start is as if nobody had looked.
    assert!(!hub.state_dir().join("matterbind.db-wal").exists());
}
