//! `matterbind sync`

use futures_util::StreamExt;
use indicatif::ProgressBar;

use super::client::{AdminClient, SLOW};
use super::exit::{CliError, ExitCode};
use super::output::{self, Paint, Tone};
use super::{Global, block_on, complete};
use crate::admin::wire::{NodeRef, SyncLine, SyncQuery, SyncReport, SyncStep, Verdict};

/// `sync`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit 0 only if all match. 4: a device does not answer. 6: the cloud differs. 1: a device has drifted, or one has no record."
)]
pub(crate) struct SyncArgs {
    /// Only this node: id or unique name
    #[arg(long, value_name = "NODE", add = complete::nodes())]
    pub node: Option<NodeRef>,
    /// Change nothing; say what mending would do
    #[arg(long)]
    pub look_only: bool,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

pub(super) fn run(global: &Global, args: &SyncArgs) -> Result<ExitCode, CliError> {
    let client = global.client()?;
    let query = SyncQuery { progress: args.node.is_none(), look_only: args.look_only };
    let report: SyncReport = block_on(async {
        match &args.node {
            Some(node) => client.post_query(&["sync", &node.to_string()], &query, SLOW).await,
            None => all(&client, &query).await,
        }
    })?;
    if args.json {
        output::json(&report)?;
    } else {
        output::line(&text(&report, Paint::stdout(global.color)))?;
    }
    Ok(exit_code(&report))
}

/// All nodes; how far it is stands on stderr, where that is a terminal.
async fn all(client: &AdminClient, query: &SyncQuery) -> Result<SyncReport, CliError> {
    let mut lines = client.post_for_lines(&["sync"], query).await?;
    let bar = ProgressBar::no_length();
    while let Some(line) = lines.next().await {
        match serde_json::from_str(&line?) {
            Ok(SyncLine::Step(SyncStep { compared, of })) => {
                bar.set_length(of as u64);
                bar.set_position(compared as u64);
            }
            Ok(SyncLine::Report(report)) => {
                bar.finish_and_clear();
                return Ok(report);
            }
            Ok(SyncLine::Refused(refusal)) => return Err(CliError::Api(refusal)),
            Err(error) => return Err(CliError::Answer(format!("cannot be understood: {error}"))),
        }
    }
    Err(CliError::Answer("ended without a result".to_owned()))
}

/// What the worst verdict means to a script.
fn exit_code(report: &SyncReport) -> ExitCode {
    if report.in_sync {
        return ExitCode::Done;
    }
    let code = |verdict| match verdict {
        Verdict::Match | Verdict::NotEligible | Verdict::Removing => ExitCode::Done,
        Verdict::Drift | Verdict::UnknownNode => ExitCode::Internal,
        Verdict::DeviceUnreachable => ExitCode::Device,
        Verdict::CloudMissing | Verdict::CloudUnreachable | Verdict::CloudDiffers => ExitCode::Pending,
    };
    match ExitCode::worst(report.nodes.iter().map(|node| code(node.verdict))) {
        ExitCode::Done => ExitCode::Internal,
        worst => worst,
    }
}

fn text(report: &SyncReport, paint: Paint) -> String {
    let mut lines = Vec::new();
    for node in &report.nodes {
        let tone = match node.verdict {
            Verdict::Match => Tone::Good,
            Verdict::NotEligible | Verdict::Removing => Tone::Quiet,
            Verdict::Drift
            | Verdict::DeviceUnreachable
            | Verdict::CloudMissing
            | Verdict::CloudUnreachable
            | Verdict::CloudDiffers
            | Verdict::UnknownNode => Tone::Bad,
        };
        let name = if node.name.is_empty() { String::new() } else { format!(" ({})", node.name) };
        lines.push(format!("node {}{name}: {}", node.node_id, paint.tone(tone, node.verdict.as_str())));
        for difference in &node.differences {
            lines.push(format!(
                "  {}: device {}, record {}, cloud {}",
                difference.field, difference.device, difference.local, difference.cloud
            ));
        }
    }
    for node in report.nodes.iter().filter(|node| !node.mending.is_empty()) {
        lines.push(format!("node {}: mending: {}", node.node_id, node.mending.join(", ")));
    }
    for node in report.nodes.iter().filter(|node| !node.notes.is_empty()) {
        lines.push(format!("node {}: {}", node.node_id, node.notes.join("; ")));
    }
    lines.push(match (report.nodes.len(), report.in_sync) {
        (0, _) => "There are no nodes.".to_owned(),
        (count, true) => paint.tone(Tone::Good, format!("All {count} in sync{}.", reservations(report))),
        (_, false) => paint.tone(Tone::Bad, "Not in sync."),
    });
    lines.join("\n")
}

/// Nodes that agree with nobody, because nobody expects them to.
fn reservations(report: &SyncReport) -> String {
    let count = |wanted| report.nodes.iter().filter(|node| node.verdict == wanted).count();
    let parts: Vec<String> =
        [(count(Verdict::NotEligible), "not eligible for the cloud"), (count(Verdict::Removing), "being removed")]
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
    if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::wire::NodeSync;
    use crate::node::NodeId;

    fn report(verdicts: &[Verdict]) -> SyncReport {
        let nodes = verdicts.iter().enumerate().map(|(at, verdict)| NodeSync {
            node_id: NodeId(1000 + at as u64),
            name: String::new(),
            verdict: *verdict,
            differences: Vec::new(),
            mending: Vec::new(),
            notes: Vec::new(),
        });
        let settled = |verdict: &Verdict| matches!(verdict, Verdict::Match | Verdict::NotEligible | Verdict::Removing);
        SyncReport { in_sync: verdicts.iter().all(settled), nodes: nodes.collect() }
    }

    #[test]
    fn who_counts_as_in_sync_without_a_match_is_said() {
        use Verdict::{CloudUnreachable, Match, NotEligible, Removing, UnknownNode};
        let last = |verdicts: &[Verdict]| {
            let report = report(verdicts);
            (text(&report, Paint::plain()).lines().last().unwrap().to_owned(), exit_code(&report))
        };
        assert_eq!(last(&[Match, Match]), ("All 2 in sync.".to_owned(), ExitCode::Done));
        let told = "All 3 in sync (1 not eligible for the cloud, 1 being removed).".to_owned();
        assert_eq!(last(&[Match, NotEligible, Removing]), (told, ExitCode::Done));
        assert_eq!(last(&[Match, UnknownNode]), ("Not in sync.".to_owned(), ExitCode::Internal));
        assert_eq!(last(&[Match, CloudUnreachable]), ("Not in sync.".to_owned(), ExitCode::Pending));
    }
}
