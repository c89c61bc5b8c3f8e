//! `matterbind status`

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::client::PLAIN;
use super::exit::{CliError, ExitCode};
use super::output::{self, Paint, Tone, local};
use super::{Global, block_on, controller, doctor};
use crate::admin::wire::{CloudStatus, DoctorFinding, Status, Verdict};

/// `status`
#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

pub(super) fn run(global: &Global, args: &StatusArgs) -> Result<ExitCode, CliError> {
    let client = global.client()?;
    let status: Status = block_on(client.get(&["status"], &(), PLAIN))?;
    if args.json {
        output::json(&status)?;
    } else {
        output::line(&text(&status, Paint::stdout(global.color), Timestamp::now()))?;
    }
    Ok(ExitCode::Done)
}

fn text(status: &Status, paint: Paint, now: Timestamp) -> String {
    let daemon = if status.ready {
        paint.tone(Tone::Good, "ready")
    } else {
        paint.tone(Tone::Warn, format!("waiting for {}", status.waiting_for.join(", ")))
    };
    let mut lines = vec![format!(
        "daemon   {daemon}, version {}, pid {}, since {}",
        status.version,
        status.pid,
        local(status.started_at)
    )];
    match &status.fabric {
        Some(fabric) => lines.push(format!(
            "fabric   {:?}, id {}, compressed id {:016X}, this hub is node {}",
            fabric.label, fabric.fabric_id, fabric.compressed_fabric_id, fabric.node_id
        )),
        None => lines.push(format!("fabric   {}", paint.tone(Tone::Warn, "not loaded yet"))),
    }
    let nodes = status.nodes;
    let mut parts = vec![format!("{} operational", nodes.operational)];
    for (count, word) in
        [(nodes.unreachable, "unreachable"), (nodes.provisional, "provisional"), (nodes.removing, "being removed")]
    {
        if count > 0 {
            parts.push(paint.tone(Tone::Warn, format!("{count} {word}")));
        }
    }
    if status.attempts > 0 {
        parts.push(format!("{} joining now", status.attempts));
    }
    if nodes.foreign > 0 {
        let text = format!("{} more on our fabric without a record: `matterbind nodes`", nodes.foreign);
        parts.push(paint.tone(Tone::Bad, text));
    }
    if let Some(at) = status.compared_at {
        parts.push(format!("compared {}", output::ago(at, now)));
    }
    lines.push(format!("nodes    {}: {}", nodes.total, parts.join(", ")));
    lines.extend(disagreement(&status.verdicts, paint));
    let outbox = status.outbox;
    let mut parts = vec![format!("{} pending", outbox.pending)];
    if outbox.waiting_for_operator > 0 {
        parts.push(paint.tone(Tone::Bad, format!("{} need you: `matterbind outbox`", outbox.waiting_for_operator)));
    }
    if outbox.rejected > 0 {
        parts.push(paint.tone(Tone::Bad, format!("{} refused", outbox.rejected)));
    }
    lines.push(format!("outbox   {}: {}", outbox.total, parts.join(", ")));
    let controllers = &status.controllers;
    if controllers.total > 0 {
        let mut parts: Vec<String> = Vec::new();
        for (count, words) in [(controllers.leaving, "leaving"), (controllers.shut_out, "shut out until they renew")] {
            if count > 0 {
                parts.push(paint.tone(Tone::Warn, format!("{count} {words}")));
            }
        }
        let ends = controllers.expiring.iter().map(|it| controller::ends(&it.name, it.expires_at, now));
        parts.extend(ends.map(|text| paint.tone(Tone::Warn, text)));
        let rest = if parts.is_empty() { String::new() } else { format!(": {}", parts.join(", ")) };
        let word = if controllers.total == 1 { "controller" } else { "controllers" };
        lines.push(format!("others   {} {word}{rest}", controllers.total));
    }
    let bluetooth = &status.bluetooth;
    match (&bluetooth.adapter, &bluetooth.missing) {
        (Some(adapter), _) => lines.push(format!("radio    Bluetooth adapter {adapter}")),
        (None, Some(missing)) => lines.push(format!("radio    no Bluetooth: {missing}")),
        (None, None) => {}
    }
    lines.push(format!("cloud    {}", cloud(&status.cloud, paint, now)));
    if status.clock.standing == "not-set" {
        let times = status.clock.says.zip(status.clock.at_least);
        let times = times.map_or_else(String::new, |(says, passed)| {
            format!(": it says {}, and it is {} at least; set it (NTP)", local(says), local(passed))
        });
        lines.push(format!("clock    {}{times}", paint.tone(Tone::Bad, "clock-not-set")));
    }
    lines.extend(findings(&status.findings, paint));
    lines.join("\n")
}

/// What the last comparison left to do or to tell.
fn disagreement(verdicts: &BTreeMap<String, u64>, paint: Paint) -> Option<String> {
    let is_well = |verdict: &str| [Verdict::Match, Verdict::NotEligible].iter().any(|well| well.as_str() == verdict);
    let open: Vec<(&String, &u64)> = verdicts.iter().filter(|(verdict, _)| !is_well(verdict)).collect();
    let total: u64 = open.iter().map(|(_, count)| **count).sum();
    let each = open.iter().map(|(verdict, count)| format!("{count} {verdict}")).collect::<Vec<_>>().join(", ");
    let word = paint.tone(Tone::Warn, format!("{total} not in agreement"));
    (total > 0).then(|| format!("         {word} ({each}): `matterbind sync` says what differs and mends what it may"))
}

/// The worst of what `doctor` found.
fn findings(findings: &[DoctorFinding], paint: Paint) -> Vec<String> {
    const SHOWN: usize = 3;
    let lines = findings.iter().take(SHOWN).enumerate().map(|(at, finding)| {
        let head = if at == 0 { "doctor" } else { "" };
        format!("{head:<9}{} {}", paint.tone(doctor::tone(finding.severity), finding.severity.as_str()), finding.seen)
    });
    let rest = match findings.len() {
        0 => None,
        count if count > SHOWN => Some(format!("         {} more; `matterbind doctor` says what to do", count - SHOWN)),
        _ => Some("         `matterbind doctor` says what to do".to_owned()),
    };
    lines.chain(rest).collect()
}

fn cloud(cloud: &CloudStatus, paint: Paint, now: Timestamp) -> String {
    if !cloud.configured {
        return "not configured: nothing is bound".to_owned();
    }
    let url = cloud.base_url.as_deref().unwrap_or_default();
    let word = match cloud.reachable {
        Some(true) => paint.tone(Tone::Good, "reachable"),
        Some(false) => paint.tone(Tone::Bad, "not reachable"),
        None => "not asked yet".to_owned(),
    };
    let message = if cloud.message.is_empty() { String::new() } else { format!(" ({})", cloud.message) };
    let token = match cloud.token_expires_at {
        Some(end) if end > now => format!(", signed in until {}", local(end)),
        Some(_) => ", sign-in has run out".to_owned(),
        None => String::new(),
    };
    let answered = match cloud.last_answer_at {
        Some(at) => format!(", answered {}", output::ago(at, now)),
        None => String::new(),
    };
    format!("{word}{message}{answered}, {url}{token}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::Colour;

    #[test]
    fn what_does_not_agree_is_named_with_what_to_do() {
        let of = |verdicts: &[(&str, u64)]| {
            let verdicts = verdicts.iter().map(|(verdict, count)| ((*verdict).to_owned(), *count)).collect();
            disagreement(&verdicts, Paint::stdout(Colour::Never))
        };
        assert_eq!(of(&[("match", 4), ("not-eligible", 1)]), None);
        let said = of(&[("cloud-missing", 1), ("drift", 2), ("match", 4)]).unwrap();
        assert!(said.contains("3 not in agreement (1 cloud-missing, 2 drift): `matterbind sync`"), "{said}");
    }
}
