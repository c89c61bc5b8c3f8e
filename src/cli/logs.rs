//! `matterbind logs`

use std::collections::{HashMap, HashSet};

use futures_util::StreamExt;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use uuid::Uuid;

use super::client::{AdminClient, PLAIN};
use super::exit::{CliError, ExitCode};
use super::output::{self, Paint, Tone, local};
use super::{Global, block_on, complete};
use crate::admin::wire::{LogQuery, NodeRef, Nodes};
use crate::journal::{Event, Level};
use crate::node::NodeId;

const EXAMPLES: &str = "\
Examples:
  matterbind logs --since 2h --level warn
  matterbind logs -f --node 'Hall lamp'
  matterbind logs --attempt 0193a1b2-... --json

A time is a day (2026-11-22), RFC 3339 (2026-11-22T20:00:00Z) or how long ago (30m, 2h, 3d).
With -f nothing is shown that has happened before, unless -n, --since or --attempt asks for it.";

/// `logs`
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct LogsArgs {
    /// Go on with what happens from now on
    #[arg(short, long)]
    pub follow: bool,
    /// Not before this time
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub since: Option<Timestamp>,
    /// Only about this node: id or unique name
    #[arg(long, value_name = "NODE", add = complete::nodes())]
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
    // As the clock on the wall shows it; a day begins at midnight.
    if let Ok(at) = text.parse::<DateTime>().and_then(|at| at.to_zoned(TimeZone::system())) {
        return Ok(at.timestamp());
    }
    let ago = humantime::parse_duration(text).ok().and_then(|ago| jiff::SignedDuration::try_from(ago).ok());
    let at = ago.and_then(|ago| Timestamp::now().checked_sub(ago).ok());
    at.ok_or_else(|| "a time is needed, for instance 2h, 2026-11-22 or 2026-11-22T20:00:00Z".to_owned())
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
    // An attempt is short, and whoever follows one wants to see how it began.
    let only_new = args.follow && args.since.is_none() && args.attempt.is_none();
    let query = LogQuery {
        since: args.since,
        after: None,
        node: args.node,
        attempt: args.attempt,
        level: args.level,
        limit: args.limit.or(only_new.then_some(0)),
        follow: args.follow,
    };
    let paint = Paint::stdout(global.color);
    block_on(async {
        let mut names = Names::default();
        let mut lines = client.get_lines(&["logs"], &query).await?;
        while let Some(line) = lines.next().await {
            let line = line?;
            match serde_json::from_str::<Event>(&line) {
                Ok(event) if !args.json => {
                    let name = match event.node_id {
                        Some(node) => names.of(node, &client).await,
                        None => None,
                    };
                    output::line(&event_line(&event, name, paint))?;
                }
                _ => output::line(&line)?,
            }
        }
        Ok(ExitCode::Done)
    })
}

/// The nodes' names, asked for when one is met that is not known yet.
#[derive(Default)]
struct Names {
    known: HashMap<NodeId, String>,
    /// Nodes that have no record: they are not asked for again.
    nameless: HashSet<NodeId>,
}

impl Names {
    async fn of(&mut self, node: NodeId, client: &AdminClient) -> Option<&str> {
        if !self.known.contains_key(&node) && !self.nameless.contains(&node) {
            let all = client.get::<Nodes>(&["nodes"], &(), PLAIN).await.unwrap_or_default();
            self.known.extend(all.nodes.into_iter().map(|node| (node.node_id, node.name)));
            if !self.known.contains_key(&node) {
                self.nameless.insert(node);
            }
        }
        self.known.get(&node).map(String::as_str)
    }
}

fn event_line(event: &Event, name: Option<&str>, paint: Paint) -> String {
    let (tone, word) = match event.level {
        Level::Debug => (Tone::Quiet, "debug"),
        Level::Info => (Tone::Good, "info "),
        Level::Warn => (Tone::Warn, "warn "),
        Level::Error => (Tone::Bad, "error"),
    };
    let mut line = format!("{} {} {}", paint.tone(Tone::Quiet, local(event.at)), paint.tone(tone, word), event.message);
    let mut about = Vec::new();
    if let Some(node) = event.node_id {
        about.push(match name {
            // Where the sentence says it already.
            Some(name) if !event.message.contains(name) => format!("node={node} ({name})"),
            _ => format!("node={node}"),
        });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_day_a_time_of_day_or_how_long_ago() {
        let midnight = since("2026-11-28").unwrap().to_zoned(TimeZone::system());
        assert_eq!(midnight.strftime("%Y-%m-%d %H:%M:%S").to_string(), "2026-11-28 00:00:00");
        let evening = since("2026-11-28 20:30").unwrap().to_zoned(TimeZone::system());
        assert_eq!(evening.strftime("%H:%M").to_string(), "20:30");
        assert_eq!(since("2026-11-28T20:00:00Z").unwrap(), "2026-11-28T20:00:00Z".parse().unwrap());
        assert!(since("2h").unwrap() < Timestamp::now());
        for wrong in ["yesterday", "2026-13-01", ""] {
            assert!(since(wrong).is_err(), "{wrong}");
        }
    }
}
