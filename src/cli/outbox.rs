//! `matterbind outbox`

use super::client::PLAIN;
use super::exit::{CliError, ExitCode};
use super::output::{self, local, or_dash};
use super::{Global, block_on};
use crate::admin::wire::Outbox;
use crate::admin::wire_word;

const EXAMPLES: &str = "\
Examples:
  matterbind outbox
  matterbind outbox retry 12      try again now
  matterbind outbox drop 12       give it up; the node stays usable locally";

/// `outbox`
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = false)]
pub(crate) struct OutboxArgs {
    /// Print one JSON document
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do; without it: list
    #[command(subcommand)]
    pub action: Option<OutboxAction>,
}

/// `outbox …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum OutboxAction {
    /// Try an entry again now
    Retry {
        /// Its id
        id: i64,
    },
    /// Give an entry up
    Drop {
        /// Its id
        id: i64,
    },
}

pub(super) fn run(global: &Global, args: &OutboxArgs) -> Result<ExitCode, CliError> {
    let client = global.client()?;
    let outbox: Outbox = block_on(async {
        match args.action {
            None => client.get(&["outbox"], &(), PLAIN).await,
            Some(OutboxAction::Retry { id }) => client.post(&["outbox", &id.to_string(), "retry"], &(), PLAIN).await,
            Some(OutboxAction::Drop { id }) => client.delete(&["outbox", &id.to_string()]).await,
        }
    })?;
    if args.json {
        output::json(&outbox)?;
    } else if outbox.entries.is_empty() {
        output::line("The outbox is empty: the cloud has acknowledged everything.")?;
    } else {
        output::line(&table(&outbox))?;
    }
    Ok(ExitCode::Done)
}

fn table(outbox: &Outbox) -> String {
    let mut table = output::table(&["id", "node", "name", "what", "state", "tries", "next", "last answer"]);
    let mut hints = Vec::new();
    for entry in &outbox.entries {
        let answer = match entry.last_code {
            Some(code) => format!("{code} {}", entry.last_message),
            None => or_dash(Some(&entry.last_message)),
        };
        if !entry.hint.is_empty() {
            hints.push(format!("{}: {answer}; {}", entry.id, entry.hint));
        }
        table.add_row([
            entry.id.to_string(),
            entry.node_id.to_string(),
            or_dash(Some(&entry.name)),
            entry.kind.clone(),
            wire_word(&entry.state),
            entry.tries.to_string(),
            or_dash(entry.next_try_at.map(local)),
            answer,
        ]);
    }
    // Under the table, where there is room for a sentence.
    [output::table_text(&table)].into_iter().chain(hints).collect::<Vec<_>>().join("\n")
}
