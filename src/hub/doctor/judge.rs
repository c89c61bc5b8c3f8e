//! What is wrong, by what was seen: facts in, findings out, each with what to do. Pure: the time is among the facts.
//!
//! `network` judges interfaces, echoes, ports and ways, `state` what lies on the disk, `outside` the cloud, the clock and the service
//! manager. Not here: looking (`machine`, `live`, `offline`).

use super::facts::{Absent, Daemon, Facts, Versions};
use super::{DoctorFinding, DoctorSeverity};

mod network;
mod outside;
mod state;
#[cfg(test)]
mod tests;

/// Everything that there is to say, the worst first.
pub(super) fn judge(facts: &Facts) -> Vec<DoctorFinding> {
    let mut findings = Findings::default();
    daemon(facts.daemon.as_ref(), &mut findings);
    match &facts.absent {
        Some(Absent { why, denied: true }) => findings.error(
            "socket-refused",
            sentence(why),
            "run it as root, or join the group: `sudo usermod -aG matterbind $USER`, then log in again",
        ),
        Some(Absent { why, denied: false }) => findings.error(
            "daemon-not-running",
            sentence(why),
            "`systemctl status matterbind` shows whether it runs, `journalctl -u matterbind` why not; the rest was looked at without it",
        ),
        None => {}
    }
    network::judge(facts, &mut findings);
    outside::clock(facts, &mut findings);
    state::judge(facts, &mut findings);
    outside::cloud(facts, &mut findings);
    outside::process(facts.process.as_ref(), &mut findings);
    if let Some(unit) = &facts.unit {
        outside::unit(unit, &mut findings);
    }
    versions(facts.versions.as_ref(), &mut findings);
    let mut findings = findings.0;
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    findings
}

/// What is said, one after the other.
#[derive(Default)]
struct Findings(Vec<DoctorFinding>);

impl Findings {
    fn say(&mut self, severity: DoctorSeverity, id: &str, seen: String, hint: impl Into<String>) {
        self.0.push(DoctorFinding { id: id.to_owned(), severity, seen, hint: hint.into() });
    }

    fn error(&mut self, id: &str, seen: impl Into<String>, hint: impl Into<String>) {
        self.say(DoctorSeverity::Error, id, seen.into(), hint);
    }

    fn warning(&mut self, id: &str, seen: impl Into<String>, hint: impl Into<String>) {
        self.say(DoctorSeverity::Warning, id, seen.into(), hint);
    }

    fn note(&mut self, id: &str, seen: impl Into<String>, hint: impl Into<String>) {
        self.say(DoctorSeverity::Note, id, seen.into(), hint);
    }

    fn well(&mut self, id: &str, seen: impl Into<String>) {
        self.say(DoctorSeverity::Ok, id, seen.into(), "");
    }
}

fn daemon(daemon: Option<&Daemon>, findings: &mut Findings) {
    let Some(daemon) = daemon else { return };
    for fault in &daemon.faults {
        let hint = "the service restarts by itself where that helps; `journalctl -u matterbind` shows what came before";
        findings.error("part-failed", format!("This does not work: {fault}."), hint);
    }
    if daemon.faults.is_empty() && daemon.deaf.is_none() {
        findings.well("daemon", "The daemon runs and every part of it answers.");
    }
    if daemon.unreachable > 0 {
        findings.warning(
            "nodes-unreachable",
            format!("{} of {} nodes do not answer.", daemon.unreachable, daemon.nodes),
            "check their power; `matterbind nodes` names them, `matterbind node check` asks one now",
        );
    }
    if daemon.foreign > 0 {
        findings.warning(
            "nodes-without-record",
            match daemon.foreign {
                1 => "1 node of our fabric has no record.".to_owned(),
                many => format!("{many} nodes of our fabric have no record."),
            },
            "`matterbind nodes` names them; `matterbind node adopt` takes one in, `matterbind node remove` removes it",
        );
    }
    if daemon.stuck_rows > 0 {
        findings.warning(
            "outbox-waits",
            match daemon.stuck_rows {
                1 => "1 piece of work for the cloud needs you.".to_owned(),
                many => format!("{many} pieces of work for the cloud need you."),
            },
            "`matterbind outbox` says why; `matterbind outbox retry ID` after you have mended it",
        );
    }
}

fn versions(versions: Option<&Versions>, findings: &mut Findings) {
    let Some(versions) = versions else { return };
    let Versions { matterbind, daemon, kernel, system } = versions;
    match daemon {
        Some(daemon) if daemon != matterbind => findings.warning(
            "version-differs",
            format!("The daemon is matterbind {daemon}, this command {matterbind}."),
            "`sudo systemctl restart matterbind` starts the one that is installed",
        ),
        _ => findings.well("versions", format!("matterbind {matterbind} on {system}, {kernel}.")),
    }
}

/// `eth0`, `eth0 and eth1`, `eth0, eth1 and eth2`; of more than five the first ones and how many more.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 5;
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] if names.len() <= SHOWN => format!("{} and {last}", most.join(", ")),
        _ => format!("{} and {} more", names[..SHOWN].join(", "), names.len() - SHOWN),
    }
}

/// With a capital and a full stop.
fn sentence(text: &str) -> String {
    let mut chars = text.trim_end_matches('.').chars();
    let first: String = chars.next().map(|first| first.to_uppercase().collect()).unwrap_or_default();
    format!("{first}{}.", chars.as_str())
}

/// `3 MiB`, `12 GiB`.
fn size(bytes: u64) -> String {
    match bytes {
        0..0x10_0000 => format!("{} KiB", bytes >> 10),
        0x10_0000..0x4000_0000 => format!("{} MiB", bytes >> 20),
        _ => format!("{} GiB", bytes >> 30),
    }
}
