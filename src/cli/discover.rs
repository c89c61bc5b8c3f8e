//! `matterbind discover`

use std::time::Duration;

use futures_util::StreamExt;

use super::client::PLAIN;
use super::exit::{CliError, ExitCode};
use super::output::{self, Paint, Tone, or_dash};
use super::{Global, block_on, numbers};
use crate::admin::wire::{DiscoverChange, DiscoverQuery, Discovered, DiscoveredNode};

const EXAMPLES: &str = "\
Examples:
  matterbind discover                        devices that can be commissioned
  matterbind discover --operational          nodes of our fabric that announce themselves
  matterbind discover --watch                go on, and say what comes and goes
  matterbind discover --ble --watch          the same of Bluetooth only";

/// `discover`
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DiscoverArgs {
    /// How long to listen
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = numbers::duration)]
    pub timeout: Duration,
    /// Nodes of our fabric instead of devices to commission
    #[arg(long)]
    pub operational: bool,
    /// Devices on Bluetooth only
    #[arg(long, conflicts_with_all = ["lan", "operational"])]
    pub ble: bool,
    /// Devices on the LAN only
    #[arg(long)]
    pub lan: bool,
    /// Go on until interrupted
    #[arg(long)]
    pub watch: bool,
    /// Print JSON; with --watch one object a line
    #[arg(long)]
    pub json: bool,
}

pub(super) fn run(global: &Global, args: &DiscoverArgs) -> Result<ExitCode, CliError> {
    let client = global.client()?;
    let query = DiscoverQuery {
        timeout_ms: u64::try_from(args.timeout.as_millis()).unwrap_or(u64::MAX),
        operational: args.operational,
        watch: args.watch,
        ble: args.ble,
        lan: args.lan,
    };
    let paint = Paint::stdout(global.color);
    block_on(async {
        if args.watch {
            let mut changes = client.get_lines(&["discover"], &query).await?;
            while let Some(line) = changes.next().await {
                let line = line?;
                if args.json {
                    output::line(&line)?;
                } else if let Ok(change) = serde_json::from_str::<DiscoverChange>(&line) {
                    tell(&change, paint)?;
                }
            }
            return Ok(ExitCode::Done);
        }
        let found: Discovered = client.get(&["discover"], &query, args.timeout + PLAIN).await?;
        if let Some(why) = found.bluetooth.as_ref().filter(|_| !args.json) {
            output::note(&format!("Nothing was heard over Bluetooth: {why}."));
        }
        if args.json {
            output::json(&found)?;
        } else if found.nodes.is_empty() {
            let what = if args.operational { "node of our fabric" } else { "commissionable device" };
            output::note(&format!("No {what} within {}.", output::duration(query.timeout_ms)));
        } else {
            output::line(&table(&found.nodes, args.operational))?;
        }
        Ok(ExitCode::Done)
    })
}

fn text(node: &DiscoveredNode, key: &str) -> String {
    match node.txt.get(key) {
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(serde_json::Value::Null) | None => "-".to_owned(),
        Some(value) => value.to_string(),
    }
}

fn hex(node: &DiscoveredNode, key: &str) -> String {
    match node.txt.get(key).and_then(serde_json::Value::as_u64) {
        Some(id) => format!("{id:04X}"),
        None => "-".to_owned(),
    }
}

fn mode(node: &DiscoveredNode) -> &'static str {
    match node.txt.get("commissioning_mode").and_then(serde_json::Value::as_u64) {
        Some(0) => "closed",
        Some(1) => "open",
        Some(2) => "open (shared)",
        Some(3) => "open (joint fabric)",
        _ => "-",
    }
}

fn where_it_is(node: &DiscoveredNode) -> String {
    match node.addresses.first() {
        Some(first) if first.contains(':') => format!("[{first}]:{}", node.port),
        Some(first) => format!("{first}:{}", node.port),
        None => match &node.bluetooth {
            Some(bluetooth) => format!("Bluetooth, {} dBm", bluetooth.rssi),
            None => "-".to_owned(),
        },
    }
}

fn table(nodes: &[DiscoveredNode], operational: bool) -> String {
    if operational {
        let mut table = output::table(&["node", "name", "address", "interfaces", "instance"]);
        for node in nodes {
            table.add_row([
                or_dash(node.node_id),
                or_dash(node.name.as_ref()),
                where_it_is(node),
                node.interfaces.join(" "),
                node.instance.clone(),
            ]);
        }
        return output::table_text(&table);
    }
    let mut table = output::table(&["discriminator", "vendor", "product", "name", "window", "address", "instance"]);
    for node in nodes {
        table.add_row([
            text(node, "discriminator"),
            hex(node, "vendor_id"),
            hex(node, "product_id"),
            text(node, "device_name"),
            mode(node).to_owned(),
            where_it_is(node),
            match node.same_address_as.as_slice() {
                [] => node.instance.clone(),
                twins => format!("{} (at the same address: {})", node.instance, twins.join(", ")),
            },
        ]);
    }
    output::table_text(&table)
}

fn tell(change: &DiscoverChange, paint: Paint) -> Result<(), CliError> {
    let (tone, sign, node) = match change {
        DiscoverChange::Appeared(node) => (Tone::Good, "+", node),
        DiscoverChange::Changed(node) => (Tone::Warn, "~", node),
        DiscoverChange::Disappeared(node) => (Tone::Bad, "-", node),
        DiscoverChange::BluetoothUnavailable { message, .. } => {
            output::note(&format!("Nothing is heard over Bluetooth: {message}."));
            return Ok(());
        }
    };
    let what = match node.node_id {
        Some(id) => match &node.name {
            Some(name) => format!("node {id} ({name})"),
            None => format!("node {id}"),
        },
        None => format!(
            "discriminator {} vendor {} product {} {}",
            text(node, "discriminator"),
            hex(node, "vendor_id"),
            hex(node, "product_id"),
            mode(node)
        ),
    };
    output::line(&format!("{} {what} at {} ({})", paint.tone(tone, sign), where_it_is(node), node.instance))
}
