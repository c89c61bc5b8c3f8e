//! `GET /`: one page for people. No script, nothing from elsewhere; it reloads itself.

use std::convert::Infallible;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::Html;
use jiff::{Timestamp, Unit};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::routes::Api;
use super::wire::{Controllers, LogQuery, Nodes, NodesQuery, Outbox, Refusal, Status};
use crate::bind::BindState;
use crate::controller::ControllerState;
use crate::hub::doors::{ControllersDoor, InventoryDoor, LogDoor, OutboxDoor, StatusDoor};
use crate::journal::{Event, Level};
use crate::node::{NodeId, NodeRecord, NodeState};
use crate::outbox::ports::OutboxState;

/// How many log entries are shown.
const ENTRIES: u32 = 25;
/// How many nodes are shown; the command line lists them all.
const NODES: u32 = 500;
/// How often the page reloads itself, seconds.
const RELOAD: &str = "10";
const STYLE: &str = include_str!("page.css");

pub(super) async fn page<H: ControllersDoor + InventoryDoor + LogDoor + OutboxDoor + StatusDoor>(
    State(api): State<Api<H>>,
) -> Html<Bytes> {
    let hub = &api.hub;
    let drawn = async {
        let first = NodesQuery { after: None, limit: Some(NODES) };
        let newest = LogQuery { limit: Some(ENTRIES), level: Some(Level::Info), ..LogQuery::default() };
        let (status, nodes, controllers, outbox, entries) =
            tokio::join!(hub.status(), hub.nodes(&first), hub.controllers(), hub.outbox(), hub.logs(&newest));
        let page = render(&status, &nodes, &controllers, &outbox, &entries, Timestamp::now());
        Ok::<_, Infallible>(Bytes::from(page.into_string()))
    };
    // Browsers that reload together get one page.
    let Ok(page) = api.shared.page.get((), drawn).await;
    Html(page)
}

fn render(
    status: &Status,
    nodes: &Result<Nodes, Refusal>,
    controllers: &Result<Controllers, Refusal>,
    outbox: &Result<Outbox, Refusal>,
    entries: &Result<Vec<Event>, Refusal>,
    now: Timestamp,
) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta http-equiv="refresh" content=(RELOAD);
                title { "matterbind" @if !status.ready { " (starting)" } }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { "matterbind" }
                    @if status.ready { span.pill.good { "ready" } }
                    @else { span.pill.warn { "waiting for " (status.waiting_for.join(", ")) } }
                    span.quiet { "version " (status.version) ", up " (age(status.started_at, now)) }
                }
                main {
                    (tiles(status, now))
                    section {
                        h2 { "Nodes" }
                        (shown(nodes, |nodes| node_table(&nodes.nodes, now)))
                        @if status.nodes.total > u64::from(NODES) {
                            p.quiet { "The first " (NODES) ": " code { "matterbind nodes" } " lists all." }
                        }
                    }
                    section {
                        h2 { "Other controllers" }
                        (shown(controllers, |controllers| controller_table(controllers, now)))
                    }
                    section {
                        h2 { "Waiting for the cloud" }
                        (shown(outbox, |outbox| outbox_table(outbox, now)))
                    }
                    section {
                        h2 { "What happened" }
                        (shown(entries, |entries| log_table(entries, now)))
                    }
                }
            }
        }
    }
}

fn shown<T>(answer: &Result<T, Refusal>, draw: impl FnOnce(&T) -> Markup) -> Markup {
    match answer {
        Ok(value) => draw(value),
        Err(error) => html! { p.bad { (error.message) "; " (error.hint) } },
    }
}

fn tiles(status: &Status, now: Timestamp) -> Markup {
    let cloud = &status.cloud;
    html! {
        div.tiles {
            div.tile {
                b { (status.nodes.total) } span { "nodes" }
                small {
                    (status.nodes.operational) " answer"
                    @if status.nodes.unreachable > 0 { ", " span.bad { (status.nodes.unreachable) " do not" } }
                    @if status.attempts > 0 { ", " (status.attempts) " joining now" }
                }
            }
            div.tile {
                b { (status.outbox.total) } span { "waiting for the cloud" }
                small {
                    @if status.outbox.waiting_for_operator > 0 {
                        span.bad { (status.outbox.waiting_for_operator) " for you to see to" }
                    } @else if status.outbox.rejected > 0 { span.bad { (status.outbox.rejected) " refused" } }
                    @else { "nothing needs you" }
                }
            }
            div.tile {
                @match (cloud.configured, cloud.reachable) {
                    (false, _) => { b { "off" } }
                    (true, Some(true)) => { b.good { "reachable" } }
                    (true, Some(false)) => { b.bad { "not reachable" } }
                    (true, None) => { b { "not asked yet" } }
                }
                span { "cloud" }
                small {
                    @if !cloud.message.is_empty() { span.bad { (cloud.message) } }
                    @else if let Some(end) = cloud.token_expires_at { "signed in for " (age(now, end)) }
                    @else if let Some(url) = &cloud.base_url { (url) }
                }
            }
            @if let Some(fabric) = &status.fabric {
                div.tile {
                    b { (fabric.label) } span { "fabric " (fabric.fabric_id) }
                    small { code { (format!("{:016X}", fabric.compressed_fabric_id)) } }
                }
            }
        }
    }
}

fn node_table(nodes: &[NodeRecord], now: Timestamp) -> Markup {
    if nodes.is_empty() {
        return html! { p.quiet { "None yet: " code { "matterbind commission MT:…" } } };
    }
    html! {
        div.scroll { table {
            thead { tr { th { "Node" } th { "Name" } th { "Product" } th { "State" } th { "Cloud" } th { "Seen" } } }
            tbody { @for node in nodes { tr {
                td { code { (node.node_id) } }
                td { (node.name) }
                td { (node.vendor_name) " " (node.product_name) }
                td {
                    span class=(state_class(node.state)) { (node.state.as_str()) }
                    @if node.rhythm.session().is_sleepy() { " " small.quiet { "sleepy" } }
                }
                td { (bind_cell(node)) }
                td.quiet { @if let Some(at) = node.last_seen_at { (age(at, now)) " ago" } @else { "never" } }
            } } }
        } }
    }
}

fn state_class(state: NodeState) -> &'static str {
    match state {
        NodeState::Operational => "pill good",
        NodeState::Unreachable => "pill bad",
        NodeState::Provisional | NodeState::Removing => "pill warn",
    }
}

fn bind_cell(node: &NodeRecord) -> Markup {
    let (class, word) = match node.bind.state {
        BindState::Bound => ("pill good", "bound"),
        BindState::Pending => ("pill warn", "pending"),
        BindState::Rejected => ("pill bad", "rejected"),
        BindState::NotEligible => ("pill", "not eligible"),
        BindState::Disabled => ("pill", "off"),
    };
    html! {
        span class=(class) { (word) }
        @if node.bind.state != BindState::Bound && !node.bind.message.is_empty() { " " small.quiet { (node.bind.message) } }
    }
}

fn controller_table(found: &Controllers, now: Timestamp) -> Markup {
    let present: Vec<_> = found.controllers.iter().filter(|it| it.state != ControllerState::Removed).collect();
    html! {
        @if present.is_empty() {
            p.quiet { "None: " code { "matterbind controller add" } " or " code { "matterbind controller invite" } }
        } @else {
            div.scroll { table {
                thead { tr { th { "Node" } th { "Name" } th { "Tags" } th { "Certificate" } th { "Valid" } } }
                tbody { @for it in present { tr {
                    td { code { (it.node_id) } }
                    td { (it.name) }
                    td { @for cat in &it.cats { code { (format!("{cat:#010x}")) } " " } }
                    td {
                        @if it.state == ControllerState::Leaving { span.pill.warn { "leaving" } }
                        @else if it.certificate == "current" { span.pill.good { "current" } }
                        @else { span.pill.bad { (it.certificate) } }
                    }
                    td.quiet { @match it.expires_at {
                        Some(end) if end <= now => { span.bad { "ended " (age(end, now)) " ago" } }
                        Some(end) if it.expires_soon => { span.bad { "ends in " (age(now, end)) } }
                        Some(end) => { "for " (age(now, end)) }
                        None => { "for ever" }
                    } }
                } } }
            } }
        }
        @for invite in &found.invites {
            p { "Invitation " code { (invite.id) "-…" } " is open for " (age(now, invite.expires_at)) ", "
                (invite.tries_left) " tries left." }
        }
    }
}

fn outbox_table(outbox: &Outbox, now: Timestamp) -> Markup {
    if outbox.entries.is_empty() {
        return html! { p.quiet { "Nothing." } };
    }
    html! {
        div.scroll { table {
            thead { tr { th { "#" } th { "Node" } th { "What" } th { "State" } th { "Tries" } th { "Last answer" } th { "Next" } } }
            tbody { @for entry in &outbox.entries { tr {
                td { code { (entry.id) } }
                td { code { (entry.node_id) } }
                td { (entry.kind) }
                td { (outbox_state(entry.state)) }
                td { (entry.tries) }
                td {
                    @if let Some(code) = entry.last_code { code { (code) } " " }
                    (entry.last_message)
                    @if !entry.hint.is_empty() { br; small.quiet { (entry.hint) } }
                }
                td.quiet { @match entry.next_try_at {
                    Some(at) if at > now => { "in " (age(now, at)) }
                    Some(_) => { "now" }
                    None => { "not by itself" }
                } }
            } } }
        } }
    }
}

fn outbox_state(state: OutboxState) -> Markup {
    let (class, word) = match state {
        OutboxState::Pending => ("pill", "pending"),
        OutboxState::Sending => ("pill", "sending"),
        OutboxState::Unsettled => ("pill warn", "being looked up"),
        OutboxState::WaitingForOperator => ("pill bad", "needs you"),
        OutboxState::Rejected => ("pill bad", "refused"),
    };
    html! { span class=(class) { (word) } }
}

/// The node of an event whose words do not name it.
fn unnamed_node(event: &Event) -> Option<NodeId> {
    event.node_id.filter(|node| !event.message.contains(&node.to_string()))
}

fn log_table(entries: &[Event], now: Timestamp) -> Markup {
    html! {
        div.scroll { table.log {
            tbody { @for event in entries.iter().rev() { tr {
                td.quiet title=(event.at) { (age(event.at, now)) " ago" }
                td { @match event.level {
                    Level::Error => { span.pill.bad { "error" } }
                    Level::Warn => { span.pill.warn { "warning" } }
                    Level::Info | Level::Debug => {}
                } }
                td { (event.message) @if let Some(node) = unnamed_node(event) { " " small.quiet { "node " (node) } } }
            } } }
        } }
    }
}

/// A span of time in its largest unit: `5 s`, `3 min`, `2 h`, `4 d`.
fn age(from: Timestamp, to: Timestamp) -> String {
    let seconds = (to - from).total(Unit::Second).unwrap_or(0.0).max(0.0) as u64;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let before = |seconds: i64| age(Timestamp::from_second(1_000_000 - seconds).unwrap(), now);
        assert_eq!([before(5), before(600), before(7200), before(400_000)], ["5 s", "10 min", "2 h", "4 d"]);
        assert_eq!(age(now, Timestamp::from_second(0).unwrap()), "0 s");
    }
}
