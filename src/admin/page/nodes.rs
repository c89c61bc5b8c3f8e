//! `/`: what needs a person, and every device. Not here: one device (`node`).

use std::collections::BTreeSet;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{Html, IntoResponse, Response};
use jiff::Timestamp;
use maud::{Markup, html};
use serde::Deserialize;

use super::{AT_ONCE, Tab, Viewer, age, ago, bind_pill, document, empty, icons, problem, prose, state_pill};
use crate::admin::routes::{Api, Asked, Refused};
use crate::admin::wire::{DoctorSeverity, ForeignNode, Nodes, NodesQuery, Refusal, Status};
use crate::bind::BindState;
use crate::hub::doors::{Doors, InventoryDoor};
use crate::node::{NodeId, NodeRecord, NodeState};

/// More are not asked for one by one.
const MOST_ONLY: usize = 100;

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct View {
    /// Part of a name, product, room or id.
    q: String,
    show: Show,
    /// Only these ids, with commas: what the scripts fetch after something happened to them.
    only: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Show {
    #[default]
    All,
    Silent,
    NotInCloud,
}

impl Show {
    fn wants(self, node: &NodeRecord) -> bool {
        match self {
            Self::All => true,
            Self::Silent => node.state != NodeState::Operational,
            Self::NotInCloud => node.bind.state != BindState::Bound,
        }
    }
}

pub(super) async fn page<H: Doors>(
    State(api): State<Api<H>>,
    viewer: Viewer,
    Asked(view): Asked<View>,
) -> Result<Response, Refused> {
    let drawn = async { Ok::<_, Refusal>(draw(&*api.hub, viewer, &view).await) };
    // Browsers that ask together get one page.
    if view == View::default() && !viewer.has_session {
        return Ok(Html(api.shared.page.get((), drawn).await?).into_response());
    }
    Ok(Html(drawn.await?).into_response())
}

async fn draw<H: Doors>(hub: &H, viewer: Viewer, view: &View) -> Bytes {
    let now = Timestamp::now();
    let status = hub.status().await;
    let only: BTreeSet<NodeId> = view.only.split(',').take(MOST_ONLY).filter_map(|id| id.parse().ok()).collect();
    let listed = if only.is_empty() { all(hub, view, now).await } else { some(hub, &only, view, now).await };
    let title = if status.ready { "Devices" } else { "Starting" };
    let Html(page) = document(
        title,
        Some(Tab::Devices),
        viewer,
        &html! {
            (attention(&status, now))
            section aria-labelledby="devices" {
                div.heading {
                    h1 #devices { "Devices" }
                    a.button.primary href="/add" { (icons::draw(icons::ADD)) "Add a device" }
                }
                @match &listed {
                    Err(error) => { (problem(error)) }
                    Ok(_) if status.nodes.total == 0 && view == &View::default() => { (empty(icons::DEVICES, "No devices yet", &html! {
                        "Put a device into pairing mode, then " a href="/add" { "add it" } " with the code that is printed on it."
                    })) }
                    Ok((rows, foreign)) => {
                        (search(view, &status))
                        (list(rows, view))
                        (strangers(foreign))
                    }
                }
            }
        },
    );
    page
}

type Listed = (Vec<Markup>, Vec<ForeignNode>);

/// Page by page: as rows they take a fraction of what the records take.
async fn all<H: InventoryDoor>(hub: &H, view: &View, now: Timestamp) -> Result<Listed, Refusal> {
    let mut rows = Vec::new();
    let mut query = NodesQuery { after: None, limit: Some(AT_ONCE) };
    loop {
        let Nodes { nodes, foreign } = hub.nodes(&query).await?;
        rows.extend(nodes.iter().filter(|node| is_wanted(node, view)).map(|node| row(node, now)));
        match nodes.last() {
            Some(last) if nodes.len() >= AT_ONCE as usize => query.after = Some(last.node_id.0),
            _ => return Ok((rows, foreign)),
        }
    }
}

async fn some<H: InventoryDoor>(
    hub: &H,
    only: &BTreeSet<NodeId>,
    view: &View,
    now: Timestamp,
) -> Result<Listed, Refusal> {
    let mut rows = Vec::new();
    for node in only {
        match hub.node(*node).await {
            Ok(detail) if is_wanted(&detail.node, view) => rows.push(row(&detail.node, now)),
            Ok(_) => {}
            Err(error) if error.code == "unknown-node" => {}
            Err(error) => return Err(error),
        }
    }
    Ok((rows, Vec::new()))
}

fn is_wanted(node: &NodeRecord, view: &View) -> bool {
    let text = haystack(node);
    view.show.wants(node) && view.q.to_lowercase().split_whitespace().all(|word| text.contains(word))
}

/// What a search looks at, here and in the script.
fn haystack(node: &NodeRecord) -> String {
    let room = node.room_id.as_deref().unwrap_or_default();
    let serial = node.serial_number.as_deref().unwrap_or_default();
    let NodeRecord { name, vendor_name, product_name, node_id, .. } = node;
    format!("{name} {vendor_name} {product_name} {room} {serial} {node_id}").to_lowercase()
}

/// The choices under which the script shows it.
fn kinds(node: &NodeRecord) -> String {
    let fits = [(Show::All, "all"), (Show::Silent, "silent"), (Show::NotInCloud, "not-in-cloud")];
    fits.iter().filter(|(show, _)| show.wants(node)).map(|(_, word)| *word).collect::<Vec<_>>().join(" ")
}

fn row(node: &NodeRecord, now: Timestamp) -> Markup {
    html! {
        li.device id=(format!("node-{}", node.node_id)) data-text=(haystack(node)) data-is=(kinds(node)) {
            div.name {
                a href=(format!("/nodes/{}", node.node_id)) { (node.name) }
                small { (node.vendor_name) " " (node.product_name) " · " (node.node_id)
                    @if let Some(room) = &node.room_id { " · room " (room) } }
            }
            div.pills { (state_pill(node)) (bind_pill(node)) }
            div.seen { @match node.last_seen_at {
                Some(at) => { (ago(at, now)) }
                None => { "never seen" }
            } }
        }
    }
}

fn list(rows: &[Markup], view: &View) -> Markup {
    let searched = !view.q.is_empty() || view.show != Show::All;
    html! {
        ul.devices #list data-rows { @for row in rows { (row) } }
        p.nothing #nothing hidden[!(rows.is_empty() && searched)] {
            "No device fits. " a href="/" { "Show all" }
        }
    }
}

fn search(view: &View, status: &Status) -> Markup {
    let chip = |show: Show, value: &str, word: &str, count: Option<u64>| {
        html! {
            label.chip { input type="radio" name="show" value=(value) checked[view.show == show];
                span { (word) @if let Some(count) = count { " " b id=(format!("count-{value}")) data-live { (count) } } } }
        }
    };
    let silent = status.nodes.total - status.nodes.operational;
    html! {
        form.search method="get" action="/" role="search" data-filters {
            label.field { span.hidden { "Search devices" }
                input type="search" name="q" value=(view.q) placeholder="Name, product, room or id" autocomplete="off"; }
            fieldset.chips { legend.hidden { "Show" }
                (chip(Show::All, "all", "All", Some(status.nodes.total)))
                (chip(Show::Silent, "silent", "Not answering", Some(silent)))
                (chip(Show::NotInCloud, "not-in-cloud", "Not in the cloud", None))
            }
            button.button.no-script-only { "Search" }
        }
    }
}

fn strangers(foreign: &[ForeignNode]) -> Markup {
    html! { @if !foreign.is_empty() {
        section.card #strangers data-live {
            h2 { "On this fabric, and in no record" }
            p.quiet { "As after an older backup was restored. Take them in if they are yours." }
            ul.plain { @for node in foreign { li.between {
                span { "node " (node.node_id) " " small.quiet { (node.addresses.join(", ")) } }
                form.script-only data-action=(format!("POST /v1/nodes/{}/action", node.node_id))
                    data-body=r#"{"action":"adopt"}"# data-done="It is in the record now." { button.button { "Take it in" } }
            } } }
        }
    } }
}

/// What needs a person; one line each, with where to go.
fn attention(status: &Status, now: Timestamp) -> Markup {
    let (nodes, outbox, cloud) = (&status.nodes, &status.outbox, &status.cloud);
    let mut lines: Vec<(&str, Markup)> = Vec::new();
    let several =
        |count: u64, one: &str, more: &str| if count == 1 { one.to_owned() } else { format!("{count} {more}") };
    if !status.ready {
        lines.push(("warn", html! { "The hub is waiting for " (status.waiting_for.join(", ")) "." }));
    }
    if status.clock.standing == "not-set" {
        lines.push(("warn", html! { "The hub's clock is not set; certificates cannot be judged by it." }));
    }
    for finding in &status.findings {
        let class = if finding.severity >= DoctorSeverity::Error { "bad" } else { "warn" };
        lines.push((
            class,
            html! { a href="/doctor" { (finding.seen) } @if !finding.hint.is_empty() { small { (prose(&finding.hint)) } } },
        ));
    }
    if nodes.unreachable > 0 {
        let who = several(nodes.unreachable, "One device does", "devices do");
        lines.push(("bad", html! { a href="/?show=silent" { (who) " not answer" } "." }));
    }
    if outbox.waiting_for_operator > 0 {
        let what = several(outbox.waiting_for_operator, "One entry waits", "entries wait");
        lines.push(("bad", html! { a href="/outbox" { (what) " for you in the outbox" } "." }));
    }
    if outbox.rejected > 0 {
        let what = several(outbox.rejected, "one entry", "entries");
        lines.push(("bad", html! { a href="/outbox" { "The cloud refuses " (what) } " for good." }));
    }
    if cloud.configured && cloud.reachable == Some(false) {
        let since = cloud.last_answer_at.map(|at| format!(", last answer {} ago", age(at, now))).unwrap_or_default();
        lines.push((
            "bad",
            html! { "The cloud does not answer" (since) "."
            @if !cloud.message.is_empty() { " " small { (cloud.message) } } },
        ));
    }
    html! {
        section.attention #attention data-live aria-label="What needs you" {
            @if lines.is_empty() {
                p.good { (icons::draw(icons::CHECK)) span { "All is well. " span.quiet {
                    (several(nodes.operational, "One device answers", "devices answer"))
                    @if outbox.total > 0 { ", " a href="/outbox" { (outbox.total) " on the way to the cloud" } }
                    @if status.attempts > 0 { ", " (status.attempts) " joining now" }
                    "."
                } } }
            } @else { ul { @for (class, line) in lines { li.(class) { span { (line) } } } } }
        }
    }
}
