//! `matterbind sync`

use super::client::SLOW;
use super::exit::{CliError, ExitCode};
use super::output::{self, Paint, Tone};
use super::{Global, block_on};
use crate::admin::wire::{NodeRef, SyncReport, Verdict};

/// `sync`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit 0 only if all match. 4: a device does not answer. 6: the cloud differs. 1: a device has drifted."
)]
pub struct SyncArgs {
    /// Only this node: id or unique name
    #[arg(long, value_name = "NODE")]
    pub node: Option<NodeRef>,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

pub(super) fn run(global: &Global, args: &SyncArgs) -> Result<ExitCode, CliError> {
    let client = global.client()?;
    let report: SyncReport = block_on(async {
        match &args.node {
            Some(node) => client.post(&["sync", &node.to_string()], &(), SLOW).await,
            None => client.post(&["sync"], &(), SLOW).await,
        }
    })?;
    if args.json {
        output::json(&report)?;
    } else {
        output::line(&text(&report, Paint::stdout(global.color)))?;
    }
    Ok(exit_code(&report))
}

/// What the worst verdict means to a script.
fn exit_code(report: &SyncReport) -> ExitCode {
    if report.in_sync {
        return ExitCode::Done;
    }
    let code = |verdict| match verdict {
        Verdict::Match | Verdict::NotEligible => ExitCode::Done,
        Verdict::Drift => ExitCode::Internal,
        Verdict::DeviceUnreachable => ExitCode::Device,
        Verdict::CloudMissing | Verdict::CloudDiffers => ExitCode::Pending,
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
            Verdict::NotEligible => Tone::Quiet,
            _ => Tone::Bad,
        };
        lines.push(format!("node {}: {}", node.node_id, paint.tone(tone, node.verdict.as_str())));
        for difference in &node.differences {
            lines.push(format!(
                "  {}: device {}, record {}, cloud {}",
                difference.field, difference.device, difference.local, difference.cloud
            ));
        }
    }
    lines.push(match (report.nodes.len(), report.in_sync) {
        (0, _) => "There are no nodes.".to_owned(),
        (count, true) => paint.tone(Tone::Good, format!("All {count} in sync.")),
        (_, false) => paint.tone(Tone::Bad, "Not in sync."),
    });
    lines.join("\n")
}
