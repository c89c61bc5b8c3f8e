//! `matterbind outbox`

use super::client::PLAIN;
use super::exit::{CliError, ExitCode};
use super::output::{self, local, or_dash};
use super::{Global, block_on};
use crate::admin::wire::{Outbox, OutboxItem};
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
    let (outbox, dropped) = block_on(async {
        let outbox: Outbox = match args.action {
            None => client.get(&["outbox"], &(), PLAIN).await?,
            Some(OutboxAction::Retry { id }) => client.post(&["outbox", &id.to_string(), "retry"], &(), PLAIN).await?,
            Some(OutboxAction::Drop { id }) => {
                // Afterwards nobody knows any more what it was.
                let before: Outbox = client.get(&["outbox"], &(), PLAIN).await?;
                let left = client.delete(&["outbox", &id.to_string()]).await?;
                return Ok((left, before.entries.into_iter().find(|entry| entry.id == id)));
            }
        };
        Ok((outbox, None))
    })?;
    if args.json {
        output::json(&outbox)?;
    } else {
        output::line(&text(&outbox, dropped.as_ref()))?;
    }
    Ok(ExitCode::Done)
}

fn text(outbox: &Outbox, dropped: Option<&OutboxItem>) -> String {
    let given_up = dropped.map(|entry| {
        let OutboxItem { id, kind, node_id, name, .. } = entry;
        let name = if name.is_empty() { String::new() } else { format!(" ({name})") };
        format!("Given up: {id}, `{kind}` of node {node_id}{name}. The cloud is not told of it any more.")
    });
    let rest = match (outbox.entries.is_empty(), dropped) {
        (false, _) => table(outbox),
        (true, Some(_)) => "Nothing else waits for the cloud.".to_owned(),
        (true, None) => "The outbox is empty: nothing waits for the cloud.".to_owned(),
    };
    given_up.into_iter().chain([rest]).collect::<Vec<_>>().join("\n")
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_was_given_up_is_not_called_acknowledged() {
        let entry: OutboxItem = serde_json::from_value(json!({
            "id": 12, "kind": "bind", "node_id": 1000, "name": "Lamp", "state": "waiting-for-operator", "tries": 3,
            "last_code": 5461, "last_message": "", "next_try_at": null, "hint": "",
        }))
        .unwrap();
        let said = text(&Outbox::default(), Some(&entry));
        assert_eq!(
            said,
            "Given up: 12, `bind` of node 1000 (Lamp). The cloud is not told of it any more.\nNothing else waits for the cloud."
        );
        let left = Outbox { entries: vec![OutboxItem { id: 13, ..entry.clone() }] };
        assert!(text(&left, Some(&entry)).contains("13"));
        assert!(!text(&Outbox::default(), None).contains("acknowledged"), "others may have been given up before");
    }
}
