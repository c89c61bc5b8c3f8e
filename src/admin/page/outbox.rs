//! `/outbox`: what the cloud has not acknowledged, and what can be done about it.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::Html;
use jiff::Timestamp;
use maud::{Markup, html};

use super::{Tab, Viewer, ago, document, empty, icons, link, names, pill, prose, shown};
use crate::admin::routes::Api;
use crate::admin::wire::{Outbox, OutboxItem};
use crate::hub::doors::Doors;
use crate::node::NodeId;
use crate::outbox::ports::OutboxState;

pub(super) async fn page<H: Doors>(State(api): State<Api<H>>, viewer: Viewer) -> Html<Bytes> {
    let (outbox, names, now) = (api.hub.outbox().await, names(&*api.hub).await, Timestamp::now());
    document(
        "Outbox",
        Some(Tab::Outbox),
        viewer,
        &html! {
            h1 { "Outbox" }
            p.quiet { "What the cloud has not acknowledged yet. Most of it goes by itself." }
            div #outbox data-live { (shown(&outbox, |outbox| entries(outbox, &names, now))) }
        },
    )
}

fn entries(outbox: &Outbox, names: &BTreeMap<NodeId, String>, now: Timestamp) -> Markup {
    if outbox.entries.is_empty() {
        return empty(icons::OUTBOX, "Nothing waits", &html! { "The cloud knows all that it should know." });
    }
    html! { ul.cards { @for entry in &outbox.entries { li.card #(format!("row-{}", entry.id)) { (one(entry, names, now)) } } } }
}

fn one(entry: &OutboxItem, names: &BTreeMap<NodeId, String>, now: Timestamp) -> Markup {
    html! {
        div.between {
            h2 { (words(&entry.kind)) " " (link(entry.node_id, names)) }
            (state(entry.state))
        }
        @if !entry.last_message.is_empty() || entry.last_code.is_some() {
            p { "The cloud said: " (entry.last_message) @if let Some(code) = entry.last_code { " " code { (code) } } }
        }
        @if !entry.hint.is_empty() { p.hint { (prose(&entry.hint)) } }
        p.quiet {
            @match entry.tries { 0 => { "Not asked yet" } 1 => { "Asked once" } tries => { "Asked " (tries) " times" } }
            @match entry.next_try_at {
                Some(at) if at > now => { ", next " (ago(at, now)) }
                Some(_) => { ", next now" }
                None => { ", not again by itself" }
            }
            " · entry " (entry.id)
        }
        div.row.script-only {
            form data-action=(format!("POST /v1/outbox/{}/retry", entry.id)) data-done="It is tried now." {
                button.button { "Try now" } }
            button.button.danger data-opens=(format!("drop-{}", entry.id)) { "Give up…" }
        }
        dialog id=(format!("drop-{}", entry.id)) aria-labelledby=(format!("drop-title-{}", entry.id)) {
            h2 #(format!("drop-title-{}", entry.id)) { "Give this up?" }
            p { "The cloud is not told. The device stays in this hub." }
            form data-action=(format!("DELETE /v1/outbox/{}", entry.id)) data-done="It was given up." { div.row {
                button.button type="button" data-closes { "Keep it" }
                button.button.danger { "Give up" }
            } }
        }
    }
}

fn words(kind: &str) -> &str {
    match kind {
        "bind" => "Bind",
        "unbind" => "Unbind",
        "rename" => "Rename",
        "move-room" => "Move",
        "update-matter-info" => "Tell the new identity of",
        other => other,
    }
}

fn state(state: OutboxState) -> Markup {
    match state {
        OutboxState::Pending => pill("plain", "pending"),
        OutboxState::Sending => pill("plain", "being sent"),
        OutboxState::Unsettled => pill("warn", "being looked up"),
        OutboxState::WaitingForOperator => pill("bad", "needs you"),
        OutboxState::Rejected => pill("bad", "refused"),
    }
}
