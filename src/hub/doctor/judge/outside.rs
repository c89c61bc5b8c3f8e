//! What surrounds the hub: the time, the cloud, the service manager.

use jiff::SignedDuration;

use super::{Findings, size};
use crate::cloud::{Answered, Look};
use crate::hub::doctor::facts::{Cloud, Facts, Process, Unit};

/// A time over the network is good to a second; certificates and tokens are patient.
const DRIFT: SignedDuration = SignedDuration::from_secs(30);
/// Sign-in and certificates are refused from about here on.
const WRONG: SignedDuration = SignedDuration::from_mins(5);
/// A cloud that has something to be asked is asked more often.
const SILENT: SignedDuration = SignedDuration::from_hours(1);
const SET_IT: &str = "set the clock: `timedatectl set-ntp true`, and check that an NTP server can be reached";

pub(super) fn clock(facts: &Facts, findings: &mut Findings) {
    let look = facts.cloud.iter().flatten().filter_map(|cloud| cloud.look.as_ref());
    let drift = look.filter_map(|look| Some(look.at_time.duration_since(look.date?))).next();
    if let Some(drift) = drift.filter(|drift| drift.abs() > DRIFT) {
        let way = if drift.is_negative() { "behind" } else { "ahead of" };
        let seen =
            format!("The hub's clock is {:#} {way} the cloud's.", SignedDuration::from_secs(drift.abs().as_secs()));
        if drift.abs() > WRONG {
            findings.error("clock-wrong", seen, SET_IT)
        } else {
            findings.warning("clock-drifts", seen, SET_IT)
        }
    }
    let Some(clock) = &facts.clock else { return };
    let says = clock.says.map(|at| at.strftime("%Y-%m-%d %H:%M UTC").to_string()).unwrap_or_default();
    match clock.standing.as_str() {
        "not-set" => {
            let least = clock.at_least.map(|at| at.strftime("%Y-%m-%d %H:%M UTC").to_string()).unwrap_or_default();
            findings.error(
                "clock-not-set",
                format!("The hub's clock says {says}, and it is {least} at least."),
                SET_IT,
            );
        }
        "unconfirmed" if drift.is_none() => {
            findings.note(
                "clock-unconfirmed",
                format!("The hub's clock says {says}; nobody has confirmed it yet."),
                SET_IT,
            );
        }
        _ if drift.is_none_or(|drift| drift.abs() <= DRIFT) => {
            let by = if drift.is_some() { ", and so does the cloud's" } else { "" };
            findings.well("clock", format!("The hub's clock says {says}{by}."));
        }
        _ => {}
    }
}

pub(super) fn cloud(facts: &Facts, findings: &mut Findings) {
    let Some(cloud) = &facts.cloud else { return };
    let Some(cloud) = cloud else {
        let hint = "right for a hub without a cloud; else write the section [cloud]";
        return findings.note("cloud-not-configured", "No cloud is configured: nothing is bound.", hint);
    };
    let reached = match &cloud.look {
        Some(look) => way(look, findings),
        None => None,
    };
    account(cloud, reached, facts, findings);
}

/// Whether the service itself answered; `None`: it was not asked.
fn way(look: &Look, findings: &mut Findings) -> Option<bool> {
    let at = &look.at;
    if let Some(Err(why)) = &look.resolved {
        let hint = "check the resolver (`resolvectl status`, /etc/resolv.conf) and cloud.base_url";
        findings.error("cloud-name", format!("There is no address for {at}: {why}."), hint);
    }
    if let Some(Err(why)) = &look.connected {
        let hint = "check the way to the internet (`ip route`), firewalls on it, and cloud.base_url";
        findings.error("cloud-unreachable", format!("No connection to {at} comes about: {why}."), hint);
    }
    let through = look.proxy.as_ref().map(|name| format!(" (through the proxy in {name})")).unwrap_or_default();
    match look.answered.as_ref() {
        Some(Answered::Service) => {
            findings.well("cloud", format!("The service at {at} answers{through}."));
            Some(true)
        }
        Some(Answered::SomethingElse { seen, hint }) => {
            let seen = format!("Not the service at {at} answers{through}, but something before it: {seen}.");
            findings.error("cloud-intercepted", seen, hint);
            Some(false)
        }
        Some(Answered::Untrusted { seen, hint }) => {
            findings.error("cloud-untrusted", format!("The cloud cannot be trusted{through}: {seen}."), hint);
            Some(false)
        }
        Some(Answered::Nobody { seen }) => {
            let hint = "it goes on by itself when the service is back; check what stands between hub and cloud";
            findings.error("cloud-silent", format!("The service at {at} gives no answer{through}: {seen}."), hint);
            Some(false)
        }
        None => (look.resolved.is_some() || look.connected.is_some()).then_some(false),
    }
}

fn account(cloud: &Cloud, reached: Option<bool>, facts: &Facts, findings: &mut Findings) {
    let Some(health) = &cloud.health else { return };
    if let Some(why) = &health.sign_in_blocked {
        let seen = format!("The hub cannot sign in to the cloud: {why}.");
        let hint = "check cloud.email, password_file, user_domain and its secret; then `matterbind outbox retry ID`, or restart the daemon";
        return findings.error("cloud-sign-in", seen, hint);
    }
    let Some(at) = health.last_answer_at else {
        if let (None, Some(false), Some(why)) = (reached, health.reachable, &health.last_error) {
            let hint = "`matterbind doctor` goes the whole way there and says where it ends";
            findings.error("cloud-silent", format!("The cloud has not answered since the start: {why}."), hint);
        }
        return;
    };
    let since = facts.at.duration_since(at);
    let waits = facts.daemon.as_ref().is_some_and(|daemon| daemon.pending_rows > 0);
    if since > SILENT && waits && reached != Some(false) {
        let why = health.last_error.as_deref().unwrap_or("it was not asked since");
        let seen = format!(
            "The cloud last answered {:#} ago, and work for it waits: {why}.",
            SignedDuration::from_mins(since.as_mins())
        );
        findings.warning(
            "cloud-stale",
            seen,
            "`matterbind outbox` says what waits; it goes on by itself when the cloud answers",
        );
    } else if health.reachable == Some(true) {
        findings.well(
            "cloud-account",
            format!("The hub is signed in; the cloud last answered {} s ago.", since.as_secs().max(0)),
        );
    } else if reached.is_none() {
        let why = health.last_error.as_deref().unwrap_or("no answer");
        findings.warning(
            "cloud-stale",
            format!("The cloud did not answer when last asked: {why}."),
            "it is asked again by itself",
        );
    }
}

pub(super) fn process(process: Option<&Process>, findings: &mut Findings) {
    let Some(process) = process else { return };
    if process.replaced {
        let hint = "`sudo systemctl restart matterbind`: it finishes what is under way first";
        findings.warning(
            "old-binary-runs",
            "The daemon's program was replaced since it started: the old one still runs.",
            hint,
        );
    }
    if let Some((used, limit)) = process.files.filter(|(used, limit)| used * 5 > limit * 4) {
        let hint = "`systemctl edit matterbind` with LimitNOFILE=4096; if it grows on, report it with `matterbind doctor --bundle`";
        findings.warning("open-files", format!("The daemon has {used} of {limit} files open."), hint);
    }
    if let Some((used, limit)) = process.memory.filter(|(used, limit)| used * 20 > limit * 17) {
        let hint = "`systemctl edit matterbind` with a higher MemoryMax; if it grows on, report it with `matterbind doctor --bundle`";
        findings.warning("memory-short", format!("The service has {} of {} in use.", size(used), size(limit)), hint);
    }
    match (process.managed, process.watchdog) {
        (false, _) => {
            let hint = "right for a trial; for good, use the unit of the package, which starts it again and watches it";
            findings.note("not-a-service", "No service manager watches the daemon.", hint);
        }
        (true, None) => {
            let hint = "`systemctl cat matterbind` should have WatchdogSec=30s, as the package's unit has";
            findings.warning(
                "no-watchdog",
                "The service manager does not watch whether the daemon stands still.",
                hint,
            );
        }
        (true, Some(_)) => findings.well("service", "The service manager watches the daemon."),
    }
}

pub(super) fn unit(unit: &Unit, findings: &mut Findings) {
    if unit.load == "not-found" {
        return;
    }
    for (name, path) in &unit.lost_credentials {
        let seen =
            format!("The unit's credential {name} is not at {}: it cannot start (243/CREDENTIALS).", path.display());
        let hint = "put the file back; a lost seal: `matterbind fabric restore --force` a backup under a new one";
        findings.error("credential-lost", seen, hint);
    }
    if unit.needs_reload {
        let hint = "`sudo systemctl daemon-reload && sudo systemctl restart matterbind`";
        findings.warning("unit-changed", "The unit's files were changed, and systemd has not read them.", hint);
    }
    let again = "then `sudo systemctl reset-failed matterbind && sudo systemctl start matterbind`";
    let failed = unit.active != "active";
    match (unit.exit_status, unit.result.as_str()) {
        (Some(226), _) if failed => findings.error(
            "unit-namespace",
            "systemd could not set up the service's directories (226/NAMESPACE): the state directory cannot be written.",
            format!("`dmesg` says why the disk is read-only: check it (`fsck`), mount it again, {again}"),
        ),
        (Some(238), _) if failed => findings.error(
            "unit-state-directory",
            "systemd could not make the state directory (238/STATE_DIRECTORY).",
            format!("check that /var/lib is there and can be written, {again}"),
        ),
        (Some(243), _) if failed => findings.error(
            "credential-lost",
            "systemd could not give the service its credentials (243/CREDENTIALS): a file is missing, or another machine encrypted it.",
            format!("`systemctl cat matterbind` names the files: put them back, or restore a backup under a new seal, {again}"),
        ),
        (Some(2), _) if failed => findings.error(
            "unit-refused",
            "The daemon refused to start: configuration, seal or state are wrong.",
            format!("`journalctl -u matterbind -n 20` says which, and `matterbind check-config`; {again}"),
        ),
        (_, "oom-kill") => findings.error(
            "unit-out-of-memory",
            "The service was killed: it needed more memory than MemoryMax allows.",
            format!("`systemctl edit matterbind` with a higher MemoryMax, {again}; and report it"),
        ),
        (_, "watchdog") => findings.error(
            "unit-watchdog",
            "The service was killed because it stood still.",
            "look at the disk and at the machine's load; report it with `matterbind doctor --bundle`",
        ),
        (_, "start-limit-hit") if failed => findings.error(
            "unit-start-limit",
            "systemd has given up: the service failed again and again.",
            format!("`journalctl -u matterbind -n 50` says why: mend that, {again}"),
        ),
        _ if unit.active == "failed" => findings.error(
            "unit-failed",
            format!("The service has failed ({}).", unit.result),
            format!("`journalctl -u matterbind -n 50` says why, {again}"),
        ),
        _ if failed => {
            findings.error("unit-stopped", "The service is not running.", "`sudo systemctl start matterbind`");
        }
        _ if unit.restarts >= 3 => findings.warning(
            "unit-restarts",
            format!("systemd has started the service {} times again.", unit.restarts),
            "`journalctl -u matterbind` says why it ended",
        ),
        _ if !unit.enabled => findings.warning(
            "unit-not-enabled",
            "The service does not start with the machine.",
            "`sudo systemctl enable matterbind`",
        ),
        _ => findings.well("unit", "systemd runs the service, and starts it with the machine."),
    }
}
