//! How a command line may go on: the shell's script asks this program (`COMPLETE=bash matterbind -- …`), which knows its own
//! words, and the running daemon the nodes' names. Not here: the scripts (`generate`).

use std::time::Duration;

use clap::CommandFactory;
use clap_complete::env::CompleteEnv;
use clap_complete::{ArgValueCompleter, CompletionCandidate};

use super::{Cli, Global, block_on};
use crate::admin::wire::Nodes;

/// The variable with which the shell asks.
pub(super) const VARIABLE: &str = "COMPLETE";
/// Whoever presses a key waits no longer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Answers a shell's question, where it is one.
pub(super) fn environment() -> CompleteEnv<'static, fn() -> clap::Command> {
    CompleteEnv::with_factory(Cli::command as fn() -> clap::Command).var(VARIABLE)
}

/// For an argument that names a node: names as they are where a shell takes them for one word, and every id with the name beside
/// it.
pub(super) fn nodes() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &std::ffi::OsStr| {
        let Some(begun) = current.to_str() else { return Vec::new() };
        let global = Global { socket: None, verbose: 0, color: super::Colour::Never };
        let asked =
            global.client().and_then(|client| block_on(async { client.get::<Nodes>(&["nodes"], &(), PATIENCE).await }));
        let nodes = asked.map(|answer| answer.nodes).unwrap_or_default();
        let candidates = nodes.into_iter().flat_map(|node| {
            let id = CompletionCandidate::new(node.node_id.to_string()).help(Some(node.name.clone().into()));
            let plain = !node.name.is_empty()
                && node.name.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '/'));
            let name = plain.then(|| CompletionCandidate::new(node.name).help(Some(node.product_name.into())));
            name.into_iter().chain([id])
        });
        candidates.filter(|candidate| candidate.get_value().to_string_lossy().starts_with(begun)).collect()
    })
}
