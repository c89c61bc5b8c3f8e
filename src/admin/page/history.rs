//! `/log`: the admin log, newest first, with filters.

use axum::body::Bytes;
use axum::extract::State;
use axum::response::Html;
use jiff::Timestamp;
use maud::html;
use serde::Deserialize;

use super::{Tab, Viewer, document, empty, entries, icons, names, shown};
use crate::admin::routes::{Api, Asked};
use crate::admin::wire::{LogQuery, NodeRef, Refusal};
use crate::hub::doors::{Doors, InventoryDoor, LogDoor};
use crate::journal::{Event, Level};

/// How many entries are offered; the first unless somebody asks for more.
const COUNTS: [u32; 3] = [100, 500, 2000];

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct View {
    level: String,
    /// An id or a name.
    node: String,
    /// Part of a line or of its kind.
    q: String,
    count: Option<u32>,
}

pub(super) async fn page<H: Doors>(State(api): State<Api<H>>, viewer: Viewer, Asked(view): Asked<View>) -> Html<Bytes> {
    let (found, names, now) = (read(&*api.hub, &view).await, names(&*api.hub).await, Timestamp::now());
    let count = view.count.unwrap_or(COUNTS[0]);
    document(
        "Log",
        Some(Tab::Log),
        viewer,
        &html! {
            h1 { "Log" }
            form.search method="get" action="/log" role="search" data-submits {
                label.field { span { "Text" } input type="search" name="q" value=(view.q) autocomplete="off"; }
                label.field { span { "Device" } input name="node" value=(view.node) placeholder="name or id" autocomplete="off"; }
                label.field { span { "From" } select name="level" {
                    @for (value, word) in [("info", "everything"), ("warn", "warnings on"), ("error", "errors only"), ("debug", "details too")] {
                        option value=(value) selected[value == view.level] { (word) }
                    }
                } }
                label.field { span { "Newest" } select name="count" { @for it in COUNTS { option selected[it == count] { (it) } } } }
                button.button { "Show" }
            }
            div.card #log data-live { (shown(&found, |events| if events.is_empty() {
                empty(icons::LOG, "Nothing fits", &html! { a href="/log" { "Show everything" } })
            } else {
                entries(events, now, Some(&names))
            })) }
        },
    )
}

async fn read<H: InventoryDoor + LogDoor>(hub: &H, view: &View) -> Result<Vec<Event>, Refusal> {
    let level = match view.level.as_str() {
        "debug" => Level::Debug,
        "warn" => Level::Warn,
        "error" => Level::Error,
        _ => Level::Info,
    };
    let node = match view.node.trim() {
        "" => None,
        text => {
            let Ok(node) = text.parse::<NodeRef>();
            Some(NodeRef::Id(hub.resolve(&node).await?))
        }
    };
    let limit = view.count.unwrap_or(COUNTS[0]).clamp(1, COUNTS[2]);
    let query = LogQuery { level: Some(level), node, limit: Some(limit), ..LogQuery::default() };
    let mut events = hub.logs(&query).await?;
    let wanted = view.q.to_lowercase();
    events.retain(|event| event.message.to_lowercase().contains(&wanted) || event.kind.contains(&wanted));
    Ok(events)
}
