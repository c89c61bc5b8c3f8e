//! `matterbind logs`

use futures_util::StreamExt;
use jiff::Timestamp;
use uuid::Uuid;

use super::exit::{CliError, ExitCode};
use super::output::{self, Paint, Tone, local};
use super::{Global, block_on};
use crate::admin::wire::{LogQuery, NodeRef};
use crate::journal::{Event, Level};

const EXAMPLES: &str = "\
Examples:
  matterbind logs --since 2h --level warn
  matterbind logs -f --node 'Hall lamp'
  matterbind logs --attempt 0193a1b2-... --json

A time is RFC 3339 (2026-11-22T20:00:00Z) or how long ago (30m, 2h, 3d).";

/// `logs`
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct LogsArgs {
    /// Go on with what happens from now on
    #[arg(short, long)]
    pub follow: bool,
    /// Not before this time
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub since: Option<Timestamp>,
    /// Only about this node: id or unique name
    #[arg(long, value_name = "NODE")]
    pub node: Option<NodeRef>,
    /// Only of this commissioning attempt
    #[arg(long, value_name = "ID")]
    pub attempt: Option<Uuid>,
    /// This level and above: debug, info, warn, error
    #[arg(long, value_name = "LEVEL", value_parser = level)]
    pub level: Option<Level>,
    /// Only the newest so many
    #[arg(short = 'n', long, value_name = "N")]
    pub limit: Option<u32>,
    /// Print one JSON object a line
    #[arg(long)]
    pub json: bool,
}

fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(at) = text.parse() {
        return Ok(at);
    }
    let ago = humantime::parse_duration(text).ok().and_then(|ago| jiff::SignedDuration::try_from(ago).ok());
    let at = ago.and_then(|ago| Timestamp::now().checked_sub(ago).ok());
    at.ok_or_else(|| "a time is needed, for instance 2h or 2026-11-22T20:00:00Z".to_owned())
}

fn level(text: &str) -> Result<Level, String> {
    match text.to_ascii_lowercase().as_str() {
        "debug" => Ok(Level::Debug),
        "info" => Ok(Level::Info),
        "warn" | "warning" => Ok(Level::Warn),
        "error" => Ok(Level::Error),
        _ => Err("one of debug, info, warn, error is needed".to_owned()),
    }
}

pub(super) fn run(global: &Global, args: LogsArgs) -> Result<ExitCode, CliError> {
    let client = global.client()?;
    let query = LogQuery {
        since: args.since,
        after: None,
        node: args.node,
        attempt: args.attempt,
        level: args.level,
        limit: args.limit,
        follow: args.follow,
    };
    let paint = Paint::stdout(global.color);
    block_on(async {
        let mut lines = client.get_lines(&["logs"], &query).await?;
        while let Some(line) = lines.next().await {
            let line = line?;
            match serde_json::from_str::<Event>(&line) {
                Ok(event) if !args.json => output::line(&event_line(&event, paint))?,
                _ => output::line(&line)?,
            }
        }
        Ok(ExitCode::Done)
    })
}

fn event_line(event: &Event, paint: Paint) -> String {
    let (tone, word) = match event.level {
        Level::Debug => (Tone::Quiet, "debug"),
        Level::Info => (Tone::Good, "info "),
        Level::Warn => (Tone::Warn, "warn "),
        Level::Error => (Tone::Bad, "error"),
    };
    let mut line = format!("{} {} {}", paint.tone(Tone::Quiet, local(event.at)), paint.tone(tone, word), event.message);
    let mut about = Vec::new();
    if let Some(node) = event.node_id {
        about.push(format!("node={node}"));
    }
    if let Some(id) = event.outbox_id {
        about.push(format!("outbox={id}"));
    }
    about.extend(event.fields.iter().map(|(key, value)| match value {
        serde_json::Value::String(text) => format!("{key}={text}"),
        value => format!("{key}={value}"),
    }));
    if !about.is_empty() {
        line.push_str(&format!("  {}", paint.tone(Tone::Quiet, about.join(" "))));
    }
    line
}
