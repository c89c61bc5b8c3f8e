//! `matterbind nodes` and `matterbind node …`

use std::io::{IsTerminal, Write};
use std::time::Duration;

use jiff::Timestamp;
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::client::{AdminClient, PLAIN, SLOW};
use super::commission::{Told, bind_sentence};
use super::exit::{CliError, ExitCode};
use super::output::{self, Paint, Tone, local, or_dash};
use super::{Global, block_on, complete, numbers};
use crate::admin::wire::{
    BindOrder, BindResult, CloseResult, ForeignNode, NodeAction, NodeCheck, NodeDetail, NodeRef, Nodes, RemoveResult,
    ShareResult,
};
use crate::admin::wire_word;
use crate::bind::{BindState, BindStatus};
use crate::node::NodeRecord;
use crate::plain;
use crate::secret::BindingCode;

const EXAMPLES: &str = "\
NODE is a node id (1000 or 0x3E8) or a unique name.

Examples:
  matterbind node show 'Hall lamp'
  matterbind node check 1000
  matterbind node share 1000 --for 10m       prints a code for another controller
  matterbind node share 1000 --close
  matterbind node remove 1000 1001 --yes     device, cloud, record, in that order
  matterbind node bind 1000 --device-key AABBCC001122
  matterbind node adopt 1000                 after an older backup was restored
  matterbind node keep 1000                  takes that back, until the device is told";

/// `nodes`
#[derive(Debug, clap::Args)]
pub(crate) struct NodesArgs {
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// `node`
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct NodeArgs {
    /// What to do
    #[command(subcommand)]
    pub action: NodeCommand,
}

/// Which node, and how to answer.
#[derive(Debug, clap::Args)]
pub(crate) struct Which {
    /// Node id or unique name
    #[arg(add = complete::nodes())]
    pub node: NodeRef,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// `node …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum NodeCommand {
    /// Show its record, and why it was accepted
    Show {
        /// Which
        #[command(flatten)]
        which: Which,
    },
    /// Talk to it now, and compare it with its record
    Check {
        /// Which
        #[command(flatten)]
        which: Which,
    },
    /// Let it blink or beep
    Identify {
        /// Which
        #[command(flatten)]
        which: Which,
        /// For how long
        #[arg(long = "for", value_name = "TIME", default_value = "10s", value_parser = numbers::duration)]
        duration: Duration,
    },
    /// Give it another name, here and in the cloud
    Rename {
        /// Which
        #[command(flatten)]
        which: Which,
        /// 1 to 64 characters
        name: String,
    },
    /// Put it into another room, here and in the cloud
    Move {
        /// Which
        #[command(flatten)]
        which: Which,
        /// The room's id in the cloud
        room_id: String,
    },
    /// Let another controller in: open a commissioning window, print manual code and QR
    Share {
        /// Which
        #[command(flatten)]
        which: Which,
        /// How long the window stays open, 3m to 15m
        #[arg(long = "for", value_name = "TIME", default_value = "15m", value_parser = numbers::duration)]
        duration: Duration,
        /// Close the window that is open instead
        #[arg(long, conflicts_with = "duration")]
        close: bool,
    },
    /// Decommission them, unbind them in the cloud, delete their records
    Remove {
        /// Node ids or unique names
        #[arg(required = true, value_name = "NODE", add = complete::nodes())]
        nodes: Vec<NodeRef>,
        /// Also if the device cannot be reached
        #[arg(long)]
        force: bool,
        /// Do not ask first
        #[arg(long, short)]
        yes: bool,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Bind it in the cloud, or bind it anew under other keys
    Bind {
        /// Which
        #[command(flatten)]
        which: Which,
        /// Product key; else the record's or the profile's
        #[arg(long, value_name = "KEY")]
        product_key: Option<String>,
        /// Device key, 4 to 32 letters or digits; else the record's or the profile's
        #[arg(long, value_name = "KEY")]
        device_key: Option<String>,
        /// 16 characters 0-9 A-F; else from the profile
        #[arg(long, value_name = "CODE", value_parser = super::commission::binding_code)]
        binding_code: Option<BindingCode>,
    },
    /// Take a node into the record that is on our fabric without one
    Adopt {
        /// Which
        #[command(flatten)]
        which: Which,
    },
    /// Take its removal back, as long as the device has not been told
    Keep {
        /// Which
        #[command(flatten)]
        which: Which,
    },
}

impl NodeCommand {
    pub(super) fn json(&self) -> bool {
        match self {
            Self::Show { which }
            | Self::Check { which }
            | Self::Identify { which, .. }
            | Self::Rename { which, .. }
            | Self::Move { which, .. }
            | Self::Keep { which }
            | Self::Adopt { which }
            | Self::Bind { which, .. }
            | Self::Share { which, .. } => which.json,
            Self::Remove { json, .. } => *json,
        }
    }
}

pub(super) fn list(global: &Global, args: &NodesArgs) -> Result<ExitCode, CliError> {
    let client = global.client()?;
    let nodes: Nodes = block_on(client.get(&["nodes"], &(), PLAIN))?;
    if args.json {
        output::json(&nodes)?;
    } else if nodes.nodes.is_empty() && nodes.foreign.is_empty() {
        output::line("No nodes yet: `matterbind commission` adds one.")?;
    } else {
        output::line(&table(&nodes.nodes, Timestamp::now()))?;
        for foreign in &nodes.foreign {
            output::line(&foreign_text(foreign, Paint::stdout(global.color)))?;
        }
    }
    Ok(ExitCode::Done)
}

fn foreign_text(foreign: &ForeignNode, paint: Paint) -> String {
    let (id, word) = (foreign.node_id, paint.tone(Tone::Warn, "no record"));
    let at = foreign.addresses.first().map(|address| format!(" at {address}")).unwrap_or_default();
    format!(
        "There is {word} of node {id}, which is on our fabric{at}: `matterbind node adopt {id}` takes it in, \
         `matterbind node remove {id}` removes it."
    )
}

/// How the bind stands, and when the cloud last showed it.
fn bind_word(bind: &BindStatus, now: Timestamp) -> String {
    let word = wire_word(&bind.state);
    match bind.confirmed_at.filter(|_| bind.state == BindState::Bound) {
        Some(at) => format!("{word}, confirmed {}", output::ago(at, now)),
        None => word,
    }
}

/// A sleepy node is operational although it is silent for most of the time.
fn state_word(node: &NodeRecord) -> String {
    let (word, rhythm) = (node.state.as_str(), node.rhythm.session());
    match (node.icd, rhythm.is_sleepy()) {
        (Some(icd), _) => format!("{word}, {icd}"),
        (None, true) => format!("{word}, sleepy: listens every {:?}", rhythm.idle_interval),
        (None, false) => word.to_owned(),
    }
}

fn table(nodes: &[NodeRecord], now: Timestamp) -> String {
    let mut table = output::table(&["node", "name", "product", "state", "cloud", "seen"]);
    for node in nodes {
        table.add_row([
            node.node_id.to_string(),
            node.name.clone(),
            format!("{} {}", node.vendor_name, node.product_name),
            state_word(node),
            bind_word(&node.bind, now),
            or_dash(node.last_seen_at.map(|at| output::ago(at, now))),
        ]);
    }
    output::table_text(&table)
}

pub(super) fn run(global: &Global, args: NodeArgs) -> Result<ExitCode, CliError> {
    let client = global.client()?;
    block_on(act(global, &client, args.action))
}

async fn act(global: &Global, client: &AdminClient, command: NodeCommand) -> Result<ExitCode, CliError> {
    let paint = Paint::stdout(global.color);
    match command {
        NodeCommand::Show { which: Which { node, json } } => {
            let node = node.to_string();
            let detail: NodeDetail = client.get(&["nodes", &node], &(), PLAIN).await?;
            if json { output::json(&detail)? } else { output::line(&detail_text(&detail))? }
        }
        NodeCommand::Check { which: Which { node, json } } => {
            let check: NodeCheck = post(client, &node, &NodeAction::Check {}).await?;
            if json {
                output::json(&check)?
            } else {
                output::line(&check_text(&check, paint))?
            }
            return Ok(if check.reachable { ExitCode::Done } else { ExitCode::Device });
        }
        NodeCommand::Identify { which: Which { node, json }, duration } => {
            let seconds = seconds(duration)?;
            let answer: Value = post(client, &node, &NodeAction::Identify { seconds }).await?;
            // For no time at all ends what was begun before (Matter Application Clusters 1.2.5.1).
            let said = if seconds == 0 { "It should be still now." } else { "It should blink or beep now." };
            if json { output::json(&answer)? } else { output::line(said)? }
        }
        NodeCommand::Move { which: Which { node, json }, room_id } => {
            let record: NodeRecord = post(client, &node, &NodeAction::Move { room_id }).await?;
            if json {
                output::json(&record)?;
            } else {
                let room = record.room_id.as_deref().unwrap_or_default();
                output::line(&format!("{} is in room {} now.", record.name, paint.tone(Tone::Strong, room)))?;
            }
        }
        NodeCommand::Rename { which: Which { node, json }, name } => {
            let record: NodeRecord = post(client, &node, &NodeAction::Rename { name }).await?;
            if json {
                output::json(&record)?;
            } else {
                output::line(&format!("Node {} is now {}.", record.node_id, paint.tone(Tone::Strong, record.name)))?;
            }
        }
        NodeCommand::Share { which: Which { node, json }, close: true, .. } => {
            let result: CloseResult = post(client, &node, &NodeAction::CloseWindow {}).await?;
            let text = if result.closed { "The window is closed." } else { "No window was open." };
            if json { output::json(&result)? } else { output::line(text)? }
        }
        NodeCommand::Share { which: Which { node, json }, duration, close: false } => {
            let share: ShareResult = post(client, &node, &NodeAction::Share { seconds: seconds(duration)? }).await?;
            if json { output::json(&share)? } else { output::line(&share_text(&share, paint))? }
        }
        NodeCommand::Bind { which: Which { node, json }, product_key, device_key, binding_code } => {
            let order = BindOrder { product_key, device_key, binding_code };
            let result: BindResult = post(client, &node, &NodeAction::Bind(order)).await?;
            if json {
                output::json(&result)?
            } else {
                let told = Told::of(client, result.node_id, &result.bind).await;
                output::line(&bind_sentence(&result.bind, &told, paint))?
            }
            return Ok(ExitCode::of_bind(result.bind.state));
        }
        NodeCommand::Adopt { which: Which { node, json } } => {
            let record: NodeRecord = post(client, &node, &NodeAction::Adopt {}).await?;
            if json {
                output::json(&record)?
            } else {
                let told = Told::of(client, record.node_id, &record.bind).await;
                let (name, bind) = (paint.tone(Tone::Strong, &record.name), bind_sentence(&record.bind, &told, paint));
                output::line(&format!("Node {} is {name} now. {bind}", record.node_id))?
            }
        }
        NodeCommand::Keep { which: Which { node, json } } => {
            let record: NodeRecord = post(client, &node, &NodeAction::Keep {}).await?;
            let text = format!("Node {} ({}) stays. It is asked now whether it answers.", record.node_id, record.name);
            if json { output::json(&record)? } else { output::line(&text)? }
        }
        NodeCommand::Remove { nodes, force, yes, json } => {
            if !yes && std::io::stdin().is_terminal() && !confirmed(&nodes, force)? {
                return Err(CliError::Usage("nothing was removed".to_owned()));
            }
            return match nodes.as_slice() {
                [node] => remove_one(client, node, force, json, paint).await,
                several => remove_many(client, several, force, json, paint).await,
            };
        }
    }
    Ok(ExitCode::Done)
}

/// Asks the person at the terminal. Whoever pipes something in is a script and knows what it does.
fn confirmed(nodes: &[NodeRef], force: bool) -> Result<bool, CliError> {
    let names = nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let also = if force { ", also where a device does not answer and keeps our fabric" } else { "" };
    let failed = |source| CliError::Io { what: "asking".to_owned(), source };
    eprint!("Remove {} from this hub and from the cloud{also}? [y/N] ", plain::shown(&names));
    std::io::stderr().flush().map_err(failed)?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(failed)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

async fn remove_one(
    client: &AdminClient,
    node: &NodeRef,
    force: bool,
    json: bool,
    paint: Paint,
) -> Result<ExitCode, CliError> {
    let removed: RemoveResult = post(client, node, &NodeAction::Remove { force }).await?;
    if json {
        output::json(&removed)?
    } else {
        output::line(&remove_text(&removed, paint))?
    }
    Ok(exit_code(&removed))
}

/// One after the other; one that fails does not keep the others from going.
async fn remove_many(
    client: &AdminClient,
    nodes: &[NodeRef],
    force: bool,
    json: bool,
    paint: Paint,
) -> Result<ExitCode, CliError> {
    let (mut results, mut codes) = (Vec::new(), Vec::new());
    for node in nodes {
        match post::<RemoveResult>(client, node, &NodeAction::Remove { force }).await {
            Ok(removed) => {
                codes.push(exit_code(&removed));
                if !json {
                    output::line(&remove_text(&removed, paint))?;
                }
                results.push(serde_json::to_value(&removed).unwrap_or_default());
            }
            Err(error) => {
                codes.push(error.exit_code());
                if !json {
                    let word = paint.tone(Tone::Bad, "Not removed");
                    output::line(&format!("{word} node {node}: {}\n  {}", plain::with_causes(&error), error.hint()))?;
                }
                let mut document = serde_json::to_value(error.document()).unwrap_or_default();
                document["node"] = node.to_string().into();
                results.push(document);
            }
        }
    }
    if json {
        output::json(&serde_json::json!({ "results": results }))?;
    }
    Ok(ExitCode::worst(codes))
}

fn exit_code(removed: &RemoveResult) -> ExitCode {
    if removed.record_deleted { ExitCode::Done } else { ExitCode::Pending }
}

async fn post<T: DeserializeOwned>(client: &AdminClient, node: &NodeRef, action: &NodeAction) -> Result<T, CliError> {
    client.post(&["nodes", &node.to_string(), "action"], action, SLOW).await
}

fn seconds(duration: Duration) -> Result<u16, CliError> {
    u16::try_from(duration.as_secs()).map_err(|_| CliError::Usage("--for is at most 65535 seconds".to_owned()))
}

fn detail_text(detail: &NodeDetail) -> String {
    let node = &detail.node;
    let cats = node.cats.iter().map(|grant| format!("{} {}", grant.cat, grant.privilege.as_str()));
    let bind = &node.bind;
    let discriminator = node.discriminator.map_or_else(|| "unknown".to_owned(), |known| known.to_string());
    let rows = [
        ("name", node.name.clone()),
        ("node id", format!("{} on fabric {} (index {})", node.node_id, node.fabric_id.0, node.fabric_index)),
        ("state", format!("{}, last seen {}", node.state.as_str(), or_dash(node.last_seen_at.map(local)))),
        ("rhythm", node.icd.map_or_else(|| node.rhythm.session().to_string(), |icd| icd.to_string())),
        (
            "product",
            format!("{} {} ({:04X}/{:04X})", node.vendor_name, node.product_name, node.vendor_id, node.product_id),
        ),
        ("matter", format!("{}, discriminator {discriminator}", node.matter_version)),
        ("serial", or_dash(node.serial_number.as_ref())),
        ("unique id", or_dash(node.unique_id.as_ref())),
        ("access", cats.collect::<Vec<_>>().join(", ")),
        ("addresses", format!("{} port {}", node.addresses.join(" "), node.port)),
        ("commissioned", local(node.commissioned_at)),
        ("attestation", node.attestation.verdict.clone()),
        ("cloud", format!("{} {}", bind_word(bind, Timestamp::now()), bind.message).trim().to_owned()),
        ("cloud keys", format!("{} / {}", or_dash(node.product_key.as_ref()), or_dash(node.device_key.as_ref()))),
        ("family, room", format!("{} / {}", or_dash(node.family_id.as_ref()), or_dash(node.room_id.as_ref()))),
        ("capabilities", node.capabilities_bitmask.to_string()),
    ];
    let mut lines: Vec<String> = rows.iter().map(|(key, value)| format!("{key:13} {value}")).collect();
    for finding in &node.attestation.findings {
        lines.push(format!("{:13} {} {finding}", "", finding.severity));
    }
    lines.join("\n")
}

fn check_text(check: &NodeCheck, paint: Paint) -> String {
    if !check.reachable {
        return format!("Node {} {}: {}", check.node_id, paint.tone(Tone::Bad, "does not answer"), check.message);
    }
    let at = check.address.as_deref().unwrap_or("?");
    let took = output::duration(check.duration_ms);
    let mut text = format!("Node {} {} from {at} in {took}.", check.node_id, paint.tone(Tone::Good, "answers"));
    for difference in &check.differences {
        text.push_str(&format!("\n  {}: device {}, record {}", difference.field, difference.device, difference.local));
    }
    text
}

/// The QR code as blocks: black on white where colours may be used, else as it is right on a dark terminal.
pub(super) fn picture(payload: &str, paint: Paint) -> String {
    let Ok(code) = QrCode::new(payload.as_bytes()) else { return String::new() };
    if !paint.is_on() {
        return code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build() + "\n";
    }
    let blocks = code.render::<Dense1x2>().build();
    blocks.lines().map(|line| paint.tone(Tone::Paper, line) + "\n").collect()
}

fn share_text(share: &ShareResult, paint: Paint) -> String {
    let digits = &share.manual_code;
    let grouped = match digits.len() {
        11 if digits.is_ascii() => format!("{}-{}-{}", &digits[..4], &digits[4..7], &digits[7..]),
        _ => digits.clone(),
    };
    let picture = picture(&share.qr_payload, paint);
    format!(
        "{picture}Manual code  {grouped}\nQR payload   {}\nThe window is open until {}.",
        share.qr_payload,
        local(share.expires_at)
    )
}

fn remove_text(removed: &RemoveResult, paint: Paint) -> String {
    let device = if removed.device_removed { "the device has forgotten us" } else { "the device was not reached" };
    let cloud = match removed.cloud.as_str() {
        "removed" => "unbound in the cloud",
        "pending" => "the cloud is still to come",
        _ => "it was not bound",
    };
    let (word, rest) = match removed.record_deleted {
        true => (paint.tone(Tone::Good, "Removed"), String::new()),
        false => (paint.tone(Tone::Warn, "Not yet removed"), format!(" {}.", removed.message)),
    };
    format!("{word} node {}: {device}, {cloud}.{rest}", removed.node_id)
}
