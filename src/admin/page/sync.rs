//! `/sync`: what the last comparison of device, record and cloud came to, and comparing again.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::Html;
use jiff::Timestamp;
use maud::{Markup, html};
use serde_json::Value;

use super::{Tab, Viewer, ago, document, empty, icons, link, names, pill};
use crate::admin::routes::Api;
use crate::admin::wire::{DifferingField, NodeSync, Verdict};
use crate::hub::doors::Doors;
use crate::node::NodeId;

pub(super) async fn page<H: Doors>(State(api): State<Api<H>>, viewer: Viewer) -> Html<Bytes> {
    let (last, names, now) = (api.hub.last_report(), names(&*api.hub).await, Timestamp::now());
    document(
        "Sync",
        Some(Tab::Sync),
        viewer,
        &html! {
            h1 { "Sync" }
            p.quiet { "Device, record and cloud, compared node by node. It also happens by itself, every quarter of an hour and when a device is back." }
            div.card.script-only #compare {
                div.row {
                    button.button.primary data-sync="" { (icons::draw(icons::SYNC)) "Compare and mend" }
                    button.button data-sync="look_only" { "Only look" }
                }
                p #sync-now role="status" hidden {}
                progress #sync-bar max="1" value="0" hidden aria-label="How many devices are asked" {}
            }
            div #report data-live { @match &last {
                None => { (empty(icons::SYNC, "Not compared yet", &html! { "The hub compares soon after it has started." })) }
                Some((at, report)) => {
                    @let rows: Vec<_> = report.nodes.iter().filter(|row| is_there(row, &names)).collect();
                    p.quiet { "Compared " (ago(*at, now)) ": " (in_words(&rows)) }
                    ul.cards { @for row in rows.iter().filter(|row| !row.verdict.is_in_sync() || !row.notes.is_empty()) { (one(row, &names)) } }
                    @let fine: Vec<_> = rows.iter().filter(|row| row.verdict.is_in_sync() && row.notes.is_empty()).collect();
                    @if !fine.is_empty() { details.card #fine open[fine.len() == rows.len() && rows.len() < 50] {
                        summary { (fine.len()) " agree" }
                        ul.plain { @for node in fine { li.between { (link(node.node_id, &names)) (verdict_pill(node.verdict)) } } }
                    } }
                }
            } }
        },
    )
}

/// Removed since, and therefore told no more.
fn is_there(row: &NodeSync, names: &BTreeMap<NodeId, String>) -> bool {
    row.verdict == Verdict::UnknownNode || names.contains_key(&row.node_id)
}

fn in_words(rows: &[&NodeSync]) -> String {
    match (rows.len(), rows.iter().filter(|row| !row.verdict.is_in_sync()).count()) {
        (0, _) => "there are no devices.".to_owned(),
        (_, 0) => "all agree.".to_owned(),
        (all, 1) => format!("one of {all} does not agree."),
        (all, odd) => format!("{odd} of {all} do not agree."),
    }
}

fn one(node: &NodeSync, names: &BTreeMap<NodeId, String>) -> Markup {
    html! {
        li.card {
            div.between { h2 { (link(node.node_id, names)) " " small.quiet { "node " (node.node_id) } } (verdict_pill(node.verdict)) }
            @if !node.differences.is_empty() { (differences(node.differences.iter())) }
            @for note in &node.notes { p.hint { (note) } }
            (mending(&node.mending))
        }
    }
}

pub(super) fn verdict_pill(verdict: Verdict) -> Markup {
    let (class, word) = match verdict {
        Verdict::Match => ("good", "all agree"),
        Verdict::NotEligible => ("plain", "local only"),
        Verdict::Drift => ("bad", "the device is not as recorded"),
        Verdict::DeviceUnreachable => ("bad", "the device does not answer"),
        Verdict::CloudMissing => ("bad", "the cloud does not have it"),
        Verdict::CloudUnreachable => ("warn", "the cloud does not answer"),
        Verdict::CloudDiffers => ("bad", "the cloud shows something else"),
        Verdict::Removing => ("warn", "being removed"),
        Verdict::UnknownNode => ("warn", "in no record"),
    };
    pill(class, word)
}

/// What was done about it, or would be.
pub(super) fn mending(actions: &[String]) -> Markup {
    let words = |action: &str| match action {
        "restore-access" => "the configured access is written to the device",
        "record" => "the record takes over what the device says",
        "rebind" => "it is bound again",
        "update-matter-info" => "the cloud is told the new identity, by unbinding and binding",
        "unbind" => "our binding in the cloud is taken back",
        "decommission" => "it is removed from this hub",
        _ => "something this page has no words for",
    };
    html! { @if !actions.is_empty() {
        p.hint { "Mending: " (actions.iter().map(|action| words(action)).collect::<Vec<_>>().join("; ")) "." }
    } }
}

/// The fields in which the three do not agree.
pub(super) fn differences<'a>(found: impl Iterator<Item = &'a DifferingField>) -> Markup {
    let value = |value: &Value| match value {
        Value::Null => html! { span.quiet { "–" } },
        Value::String(text) => html! { (text) },
        other => html! { code { (other) } },
    };
    html! {
        div.scroll tabindex="0" role="group" aria-label="Differences" { table.three {
            thead { tr { th {} th scope="col" { "Device" } th scope="col" { "Record" } th scope="col" { "Cloud" } } }
            tbody { @for it in found { tr {
                th scope="row" { (it.field.replace('_', " ")) }
                td { (value(&it.device)) } td { (value(&it.local)) } td { (value(&it.cloud)) }
            } } }
        } }
    }
}
