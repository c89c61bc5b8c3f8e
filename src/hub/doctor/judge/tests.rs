//! One table: what is seen, and the findings that must come of it, with their severity.

use std::net::Ipv4Addr;

use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::cloud::{Answered, CloudHealth, Look};
use crate::commissioning::radio::BluetoothUnavailable;
use crate::discovery::{Echo, EchoOutcome, InterfaceState, Survey};
use crate::hub::clock::ClockStatus;
use crate::hub::doctor::facts::{
    Cloud, DroppingChain, Firewall, Network, Process, Radio, Routes, Trust, Unit, Unroutable,
};
use crate::node::NodeId;
use crate::store::{Examined, Integrity};

fn now() -> Timestamp {
    Timestamp::from_second(1_795_000_000).unwrap()
}

fn interface(name: &str) -> InterfaceState {
    InterfaceState {
        name: name.to_owned(),
        index: 2,
        up: true,
        multicast: true,
        loopback: false,
        running: true,
        v4: vec![Ipv4Addr::new(192, 168, 1, 7)],
        v6: vec!["fe80::1".parse().unwrap(), "fd00::7".parse().unwrap()],
        takes_part: true,
    }
}

fn echo(port: u16, outcome: EchoOutcome) -> Echo {
    Echo { interface: "eth0".to_owned(), family: 6, port, outcome }
}

fn look() -> Look {
    Look {
        at: "cloud.example:443".to_owned(),
        proxy: None,
        resolved: Some(Ok(vec!["192.0.2.1".parse().unwrap()])),
        connected: Some(Ok("192.0.2.1:443".parse().unwrap())),
        answered: Some(Answered::Service),
        date: Some(now()),
        at_time: now(),
    }
}

/// A hub of which everything is well.
fn well() -> Facts {
    let echoes = [5353, 5540].map(|port| echo(port, EchoOutcome::Heard)).to_vec();
    let ago = |hours| now() - SignedDuration::from_hours(hours);
    Facts {
        at: now(),
        absent: None,
        daemon: Some(Daemon { matter_port: Some(40_000), nodes: 3, ..Daemon::default() }),
        network: Some(Network {
            configured: Vec::new(),
            survey: Survey { interfaces: vec![interface("eth0")], echoes },
        }),
        radio: Some(Radio { adapter: Some("hci0".to_owned()), ..Radio::default() }),
        firewall: Firewall::default(),
        routes: Some(Routes { tried: 3, without: Vec::new() }),
        clock: Some(ClockStatus { standing: "confirmed".to_owned(), says: Some(now()), at_least: Some(ago(1)) }),
        state: Some(Examined {
            state_dir: "/var/lib/matterbind".into(),
            exists: true,
            free: 8 << 30,
            free_files: Some(100_000),
            database: Some(1 << 20),
            integrity: Integrity::Whole,
            last_backup: Some(ago(48)),
            was_read: true,
            ..Examined::default()
        }),
        sealed: Some(Some(true)),
        trust: Some(Trust {
            paas: 70,
            directories: vec!["/var/lib/matterbind/paa".into()],
            fetched_at: Some(ago(20)),
            source: "https://on.dcl.csa-iot.org".to_owned(),
            ..Trust::default()
        }),
        cloud: Some(Some(Cloud {
            health: Some(CloudHealth { reachable: Some(true), last_answer_at: Some(now()), ..CloudHealth::default() }),
            look: Some(look()),
        })),
        process: Some(Process {
            managed: true,
            watchdog: Some(std::time::Duration::from_secs(30)),
            files: Some((30, 1024)),
            memory: Some((20 << 20, 256 << 20)),
            replaced: false,
        }),
        unit: Some(Unit {
            load: "loaded".to_owned(),
            active: "active".to_owned(),
            result: "success".to_owned(),
            exit_status: Some(0),
            enabled: true,
            ..Unit::default()
        }),
        versions: Some(Versions { matterbind: "1".to_owned(), ..Versions::default() }),
    }
}

/// What is found where `breaks` is done to a hub that was well.
fn troubles(breaks: impl FnOnce(&mut Facts)) -> Vec<(String, DoctorSeverity)> {
    let mut facts = well();
    breaks(&mut facts);
    let troubles = judge(&facts).into_iter().filter(|finding| finding.severity > DoctorSeverity::Ok);
    troubles
        .map(|finding| {
            assert!(finding.seen.ends_with('.') && !finding.hint.is_empty(), "{finding:?}");
            (finding.id, finding.severity)
        })
        .collect()
}

fn cloud(facts: &mut Facts) -> &mut Cloud {
    facts.cloud.as_mut().unwrap().as_mut().unwrap()
}

#[test]
fn a_hub_that_is_well_has_no_troubles_and_nothing_is_said_of_what_was_not_looked_at() {
    assert_eq!(troubles(|_| {}), []);
    assert!(judge(&well()).len() > 10);
    assert_eq!(judge(&Facts::default()), []);
}

#[test]
fn each_broken_set_up_has_its_name() {
    use DoctorSeverity::{Error, Note, Warning};
    type Break = fn(&mut Facts);
    let table: &[(&str, DoctorSeverity, Break)] = &[
        ("part-failed", Error, |f| f.daemon.as_mut().unwrap().faults.push("the store: it is slow".to_owned())),
        ("daemon-not-running", Error, |f| f.absent = Some(Absent { why: "nobody listens".to_owned(), denied: false })),
        ("socket-refused", Error, |f| f.absent = Some(Absent { why: "permission denied".to_owned(), denied: true })),
        ("nodes-unreachable", Warning, |f| f.daemon.as_mut().unwrap().unreachable = 1),
        ("nodes-without-record", Warning, |f| f.daemon.as_mut().unwrap().foreign = 1),
        ("outbox-waits", Warning, |f| f.daemon.as_mut().unwrap().stuck_rows = 2),
        ("no-interface", Error, |f| {
            f.network = Some(Network { configured: vec!["nosuch0".to_owned()], ..Network::default() })
        }),
        ("no-interface", Error, |f| f.network = Some(Network::default())),
        ("interface-missing", Warning, |f| {
            f.network.as_mut().unwrap().configured = vec!["eth0".to_owned(), "eth1".to_owned()]
        }),
        ("discovery-unavailable", Error, |f| f.daemon.as_mut().unwrap().deaf = Some("it has stopped".to_owned())),
        ("no-carrier", Warning, |f| f.network.as_mut().unwrap().survey.interfaces[0].running = false),
        ("no-multicast", Warning, |f| f.network.as_mut().unwrap().survey.interfaces[0].multicast = false),
        ("no-ipv6", Warning, |f| f.network.as_mut().unwrap().survey.interfaces[0].v6.clear()),
        ("link-local-only", Note, |f| f.network.as_mut().unwrap().survey.interfaces[0].v6.truncate(1)),
        ("loopback", Note, |f| f.network.as_mut().unwrap().survey.interfaces[0].loopback = true),
        ("mdns-silent", Error, |f| f.network.as_mut().unwrap().survey.echoes[0].outcome = EchoOutcome::Silent),
        ("mdns-failed", Error, |f| {
            f.network.as_mut().unwrap().survey.echoes[0].outcome = EchoOutcome::Failed("address in use".to_owned());
        }),
        ("matter-port-blocked", Warning, |f| {
            f.network.as_mut().unwrap().survey.echoes[1].outcome = EchoOutcome::Silent
        }),
        ("no-bluetooth", Note, |f| f.radio = Some(Err(BluetoothUnavailable::NoBlueZ).into())),
        ("no-bluetooth", Note, |f| f.radio = Some(Err(BluetoothUnavailable::NoAdapter { wanted: None }).into())),
        ("bluetooth-unavailable", Warning, |f| {
            f.radio = Some(Err(BluetoothUnavailable::Denied("rejected send message".to_owned())).into());
        }),
        ("bluetooth-unavailable", Warning, |f| {
            f.radio = Some(Err(BluetoothUnavailable::Off { adapter: "hci0".to_owned(), blocked: true }).into());
        }),
        ("firewall", Note, |f| f.firewall.managers.push("ufw".to_owned())),
        ("firewall-drops", Warning, |f| {
            f.firewall.dropping.push(DroppingChain { name: "inet filter input".to_owned(), names_mdns: false });
        }),
        ("node-unroutable", Warning, |f| {
            let (name, address, why) = ("Lamp".to_owned(), "fd00::9".to_owned(), "network is unreachable".to_owned());
            f.routes.as_mut().unwrap().without.push(Unroutable { node_id: NodeId(1000), name, address, why });
        }),
        ("clock-not-set", Error, |f| f.clock.as_mut().unwrap().standing = "not-set".to_owned()),
        ("clock-drifts", Warning, |f| cloud(f).look.as_mut().unwrap().at_time += SignedDuration::from_mins(2)),
        ("clock-wrong", Error, |f| cloud(f).look.as_mut().unwrap().at_time -= SignedDuration::from_hours(2)),
        ("clock-unconfirmed", Note, |f| {
            f.clock.as_mut().unwrap().standing = "unconfirmed".to_owned();
            cloud(f).look.as_mut().unwrap().date = None;
        }),
        ("state-missing", Note, |f| f.state = Some(Examined::default())),
        ("state-read-only", Error, |f| f.state.as_mut().unwrap().read_only = true),
        ("state-refused", Error, |f| f.state.as_mut().unwrap().refused = "permission denied".to_owned()),
        ("disk-full", Error, |f| f.state.as_mut().unwrap().free = 1 << 20),
        ("disk-low", Warning, |f| f.state.as_mut().unwrap().free = 20 << 20),
        ("disk-full", Error, |f| f.state.as_mut().unwrap().free_files = Some(3)),
        ("database-damaged", Error, |f| f.state.as_mut().unwrap().integrity = Integrity::Damaged("torn".to_owned())),
        ("log-long", Warning, |f| f.state.as_mut().unwrap().log = 1 << 30),
        ("no-backup", Warning, |f| f.state.as_mut().unwrap().last_backup = None),
        ("backup-old", Warning, |f| f.state.as_mut().unwrap().last_backup = Some(Timestamp::UNIX_EPOCH)),
        ("keys-not-sealed", Warning, |f| f.sealed = Some(Some(false))),
        ("keys-missing", Error, |f| f.sealed = Some(None)),
        ("trust-store-empty", Error, |f| f.trust.as_mut().unwrap().paas = 0),
        ("trust-store-old", Warning, |f| f.trust.as_mut().unwrap().fetched_at = Some(Timestamp::UNIX_EPOCH)),
        ("trust-store-quarantine", Warning, |f| f.trust.as_mut().unwrap().left_out = 1),
        ("attestation-lenient", Warning, |f| f.trust.as_mut().unwrap().lenient = true),
        ("cloud-not-configured", Note, |f| f.cloud = Some(None)),
        ("cloud-name", Error, |f| {
            let look = cloud(f).look.as_mut().unwrap();
            (look.resolved, look.connected, look.answered) = (Some(Err("no such name".to_owned())), None, None);
        }),
        ("cloud-unreachable", Error, |f| {
            let look = cloud(f).look.as_mut().unwrap();
            (look.connected, look.answered) = (Some(Err("refused".to_owned())), None);
        }),
        ("cloud-intercepted", Error, |f| {
            let (seen, hint) = ("HTTP 302".to_owned(), "sign in".to_owned());
            cloud(f).look.as_mut().unwrap().answered = Some(Answered::SomethingElse { seen, hint });
        }),
        ("cloud-untrusted", Error, |f| {
            let (seen, hint) = ("expired".to_owned(), "set the clock".to_owned());
            cloud(f).look.as_mut().unwrap().answered = Some(Answered::Untrusted { seen, hint });
        }),
        ("cloud-silent", Error, |f| {
            cloud(f).look.as_mut().unwrap().answered = Some(Answered::Nobody { seen: "reset".to_owned() });
        }),
        ("cloud-sign-in", Error, |f| {
            cloud(f).health.as_mut().unwrap().sign_in_blocked = Some("wrong password".to_owned())
        }),
        ("cloud-stale", Warning, |f| {
            cloud(f).health.as_mut().unwrap().last_answer_at = Some(Timestamp::UNIX_EPOCH);
            f.daemon.as_mut().unwrap().pending_rows = 1;
        }),
        ("not-a-service", Note, |f| f.process.as_mut().unwrap().managed = false),
        ("no-watchdog", Warning, |f| f.process.as_mut().unwrap().watchdog = None),
        ("open-files", Warning, |f| f.process.as_mut().unwrap().files = Some((1000, 1024))),
        ("memory-short", Warning, |f| f.process.as_mut().unwrap().memory = Some((250 << 20, 256 << 20))),
        ("old-binary-runs", Warning, |f| f.process.as_mut().unwrap().replaced = true),
        ("version-differs", Warning, |f| f.versions.as_mut().unwrap().daemon = Some("0".to_owned())),
        ("unit-changed", Warning, |f| f.unit.as_mut().unwrap().needs_reload = true),
        ("unit-not-enabled", Warning, |f| f.unit.as_mut().unwrap().enabled = false),
        ("unit-restarts", Warning, |f| f.unit.as_mut().unwrap().restarts = 9),
        ("credential-lost", Error, |f| {
            f.unit.as_mut().unwrap().lost_credentials.push(("matterbind-seal".to_owned(), "/etc/seal".into()));
        }),
    ];
    for (id, severity, breaks) in table {
        assert_eq!(troubles(breaks), [((*id).to_owned(), *severity)], "{id}");
    }
}

#[test]
fn a_unit_that_failed_says_how() {
    for (status, result, id) in [
        (226, "exit-code", "unit-namespace"),
        (238, "exit-code", "unit-state-directory"),
        (243, "exit-code", "credential-lost"),
        (2, "exit-code", "unit-refused"),
        (1, "start-limit-hit", "unit-start-limit"),
        (0, "oom-kill", "unit-out-of-memory"),
        (0, "watchdog", "unit-watchdog"),
        (1, "exit-code", "unit-failed"),
    ] {
        let failed = |facts: &mut Facts| {
            let unit = facts.unit.as_mut().unwrap();
            (unit.active, unit.result, unit.exit_status) = ("failed".to_owned(), result.to_owned(), Some(status));
        };
        assert_eq!(troubles(failed), [(id.to_owned(), DoctorSeverity::Error)], "{status} {result}");
    }
    let stopped = |facts: &mut Facts| facts.unit.as_mut().unwrap().active = "inactive".to_owned();
    assert_eq!(troubles(stopped), [("unit-stopped".to_owned(), DoctorSeverity::Error)]);
}

#[test]
fn a_fresh_hub_without_nodes_is_not_warned_of_its_backup() {
    let fresh = |facts: &mut Facts| {
        facts.daemon.as_mut().unwrap().nodes = 0;
        facts.state.as_mut().unwrap().last_backup = None;
    };
    assert_eq!(troubles(fresh), [("no-backup".to_owned(), DoctorSeverity::Note)]);
}

#[test]
fn the_worst_comes_first() {
    let findings = judge(&{
        let mut facts = well();
        facts.sealed = Some(Some(false));
        facts.trust.as_mut().unwrap().paas = 0;
        facts
    });
    let order: Vec<DoctorSeverity> = findings.iter().map(|finding| finding.severity).collect();
    assert!(order.is_sorted_by(|worse, better| worse >= better), "{order:?}");
    assert_eq!(findings[0].id, "trust-store-empty");
}

#[test]
fn many_names_are_a_few_and_how_many_more() {
    let names: Vec<String> = (0..7).map(|number| format!("eth{number}")).collect();
    assert_eq!(listed(&names[..1]), "eth0");
    assert_eq!(listed(&names[..3]), "eth0, eth1 and eth2");
    assert_eq!(listed(&names), "eth0, eth1, eth2, eth3, eth4 and 2 more");
}
