//! `/nodes/{node}`: one device, what can be done with it, and device, record and cloud side by side.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use jiff::Timestamp;
use maud::{Markup, html};
use serde_json::Value;

use super::add::{room_field, rooms};
use super::sync::{differences, mending, verdict_pill};
use super::{Tab, Viewer, age, ago, bind_pill, document, entries, icons, pill, problem, shown, state_pill};
use crate::admin::routes::{Api, InPath, Refused, node_id};
use crate::admin::wire::{LogQuery, NodeComparison, NodeRef};
use crate::attestation::finding::{Finding, Severity};
use crate::hub::doors::Doors;
use crate::journal::Event;
use crate::node::{NodeRecord, NodeState};

/// The device's part of the log.
const ENTRIES: u32 = 30;

/// What the three hold, by the names of the node record, and for people.
const FIELDS: [(&str, &str); 15] = [
    ("name", "Name"),
    ("room_id", "Room"),
    ("family_id", "Family"),
    ("vendor_name", "Vendor"),
    ("product_name", "Product"),
    ("vendor_id", "Vendor id"),
    ("product_id", "Product id"),
    ("serial_number", "Serial number"),
    ("unique_id", "Unique id"),
    ("matter_version", "Matter version"),
    ("discriminator", "Discriminator"),
    ("fabric_id", "Fabric"),
    ("node_id", "Node id"),
    ("fabric_index", "Fabric index"),
    ("cats", "Access"),
];

pub(super) async fn page<H: Doors>(
    State(api): State<Api<H>>,
    viewer: Viewer,
    InPath(node): InPath<String>,
) -> Response {
    let hub = &*api.hub;
    let found = async {
        let id = node_id(hub, &node).await?;
        Ok::<_, Refused>(hub.node(id).await?.node)
    };
    let record = match found.await {
        Ok(record) => record,
        Err(Refused(error)) => {
            let view = html! { div #node data-live { h1 { "Device " (node) } (problem(&error)) p { a href="/" { "All devices" } } } };
            return (StatusCode::NOT_FOUND, document("Device", Some(Tab::Devices), viewer, &view)).into_response();
        }
    };
    let query = LogQuery { node: Some(NodeRef::Id(record.node_id)), limit: Some(ENTRIES), ..LogQuery::default() };
    let (log, rooms, now) = (hub.logs(&query).await, rooms(hub).await, Timestamp::now());
    document(
        &record.name,
        Some(Tab::Devices),
        viewer,
        &html! {
            p.crumb { a href="/" { "Devices" } }
            div #node data-live data-node=(record.node_id) {
                div.heading { h1 { (record.name) } div.pills { (state_pill(&record)) (bind_pill(&record)) } }
                p.quiet { (record.vendor_name) " " (record.product_name) " · node " (record.node_id)
                    @if let Some(at) = record.last_seen_at { " · last contact " (ago(at, now)) } }
                (banner(&record, log.as_deref().unwrap_or_default(), now))
            }
            (actions(&record))
            section.card aria-labelledby="three" {
                div.between { h2 #three { "Device, record and cloud" }
                    form.script-only data-loads="compared" { button.button { (icons::draw(icons::SYNC)) "Compare" } } }
                div #compared data-load=(format!("/nodes/{}/compared", record.node_id)) { (record_only(&record)) }
            }
            div.columns #facts data-live {
                (attestation(&record))
                (place(&record, now))
            }
            section.card aria-labelledby="its-log" {
                h2 #its-log { "What happened" }
                div #log data-live { (shown(&log, |log| if log.is_empty() {
                    html! { p.quiet { "Nothing has been written about it yet." } }
                } else { entries(log, now, None) })) }
                p { a href=(format!("/log?node={}", record.node_id)) { "All of it" } }
            }
            (dialogs(&record, &room_field(&rooms, record.room_id.as_deref().unwrap_or_default())))
        },
    )
    .into_response()
}

/// `GET /nodes/{node}/compared`: asks the device and the cloud now, and draws what the three hold. Changes nothing.
pub(super) async fn compared<H: Doors>(
    State(api): State<Api<H>>,
    InPath(node): InPath<String>,
) -> Result<Html<Bytes>, Refused> {
    let id = node_id(&*api.hub, &node).await?;
    let part = match api.hub.compare(id).await {
        Ok(found) => three(&found),
        Err(error) => problem(&error),
    };
    Ok(Html(part.into_string().into()))
}

fn three(found: &NodeComparison) -> Markup {
    let cell = |value: &Value, field: &str, odd: bool| {
        html! { td.odd[odd] { (written(value, field)) } }
    };
    html! {
        p { (verdict_pill(found.verdict)) @if !found.message.is_empty() { " " span.quiet { (found.message) } } }
        div.scroll tabindex="0" role="group" aria-label="Device, record and cloud, field by field" { table.three {
            thead { tr { th {} th scope="col" { "Device" } th scope="col" { "Record" } th scope="col" { "Cloud" } } }
            tbody { @for (field, word) in FIELDS {
                @let [device, local, cloud] = [&found.device[field], &found.local[field], &found.cloud[field]];
                @let differs = found.differences.iter().find(|it| it.field == field);
                tr.differs[differs.is_some()] {
                    th scope="row" { (word) }
                    (cell(device, field, differs.is_some_and(|it| !it.device.is_null())))
                    (cell(local, field, false))
                    (cell(cloud, field, differs.is_some_and(|it| !it.cloud.is_null())))
                }
            } }
        } }
        @let others: Vec<_> = found.differences.iter().filter(|it| FIELDS.iter().all(|(field, _)| *field != it.field)).collect();
        @if !others.is_empty() { (differences(others.into_iter())) }
        (mending(&found.mending))
    }
}

/// Until the others are asked.
fn record_only(record: &NodeRecord) -> Markup {
    let record = serde_json::to_value(record).unwrap_or_default();
    html! {
        table.three.one { tbody { @for (field, word) in FIELDS {
            tr { th scope="row" { (word) } td { (written(&record[field], field)) } }
        } } }
    }
}

/// A value as people write it.
fn written(value: &Value, field: &str) -> Markup {
    match (value, field) {
        (Value::Null, _) => html! { span.quiet { "–" } },
        (Value::Number(number), "vendor_id" | "product_id") => {
            html! { code { (format!("0x{:04X}", number.as_u64().unwrap_or_default())) } }
        }
        (Value::Array(grants), "cats") if grants.is_empty() => html! { span.quiet { "nobody" } },
        (Value::Array(grants), "cats") => html! { ul.plain { @for grant in grants { li {
            code { (format!("0x{:08X}", grant["cat"].as_u64().unwrap_or_default())) } " "
            (grant["privilege"].as_str().unwrap_or_default())
        } } } },
        (Value::String(text), _) => html! { (text) },
        (other, _) => html! { (other) },
    }
}

/// A window that is open, or a removal that has begun.
fn banner(record: &NodeRecord, log: &[Event], now: Timestamp) -> Markup {
    let act = |action: &str, done: &str, word: &str| {
        html! {
            form.script-only data-action=(format!("POST /v1/nodes/{}/action", record.node_id))
                data-body=(format!(r#"{{"action":"{action}"}}"#)) data-done=(done) { button.button { (word) } }
        }
    };
    html! {
        @if record.state == NodeState::Removing {
            div.banner { p { "It is being removed: the device first, then the cloud, then the record. It goes on when the device answers." }
                (act("keep", "It stays.", "Keep it")) }
        }
        @if let Some(until) = open_until(log, now) {
            div.banner { p { "A commissioning window is open for " span data-until=(until) { (age(now, until)) } "." }
                (act("close-window", "The window is closed.", "Close it")) }
        }
        @if !record.bind.message.is_empty() {
            p.quiet { "Cloud: " (record.bind.message) @if let Some(code) = record.bind.code { " " code { (code) } } }
        }
    }
}

/// Until when a window that we opened is open, as far as the log tells.
fn open_until(log: &[Event], now: Timestamp) -> Option<Timestamp> {
    let last = log.iter().rev().find(|event| matches!(event.kind.as_str(), "node-shared" | "window-closed"))?;
    let until = last.fields.get("until")?.as_str()?.parse::<Timestamp>().ok()?;
    (last.kind == "node-shared" && until > now).then_some(until)
}

fn actions(record: &NodeRecord) -> Markup {
    let path = format!("POST /v1/nodes/{}/action", record.node_id);
    html! {
        div.actions.script-only role="group" aria-label="Actions" {
            form data-action=(path) data-body=r#"{"action":"identify","seconds":15}"# data-done="It identifies itself for 15 s." {
                button.button { (icons::draw(icons::BLINK)) "Let it blink" } }
            button.button data-opens="share" { (icons::draw(icons::SHARE)) "Share" }
            button.button data-opens="rename" { (icons::draw(icons::PEN)) "Rename" }
            button.button data-opens="move" { (icons::draw(icons::ROOM)) "Move" }
            button.button.danger data-opens="remove" { (icons::draw(icons::BIN)) "Remove" }
        }
    }
}

fn dialogs(record: &NodeRecord, room: &Markup) -> Markup {
    let path = format!("POST /v1/nodes/{}/action", record.node_id);
    let cancel = html! { button.button type="button" data-closes { "Cancel" } };
    html! {
        dialog #rename aria-labelledby="rename-title" {
            h2 #rename-title { "Rename" }
            form data-action=(path) data-body=r#"{"action":"rename"}"# data-done="It has its new name." {
                label.field { span { "Name" } input name="name" required maxlength="64" value=(record.name) autocomplete="off"; }
                div.row { (cancel) button.button.primary { "Rename" } }
            }
        }
        dialog #move aria-labelledby="move-title" {
            h2 #move-title { "Move to another room" }
            form data-action=(path) data-body=r#"{"action":"move"}"# data-done="It has its new room." {
                (room)
                div.row { (cancel) button.button.primary { "Move" } }
            }
        }
        dialog #remove aria-labelledby="remove-title" {
            h2 #remove-title { "Remove " (record.name) "?" }
            p { "The device forgets this hub, the cloud loses its binding, and the record is deleted, in this order." }
            form data-action=(path) data-body=r#"{"action":"remove","force":false}"# data-done="Removed." data-then="/" {
                label.check { input type="checkbox" name="force";
                    span { "Also if the device does not answer " small { "it keeps our certificate then" } } }
                div.row { (cancel) button.button.danger { "Remove" } }
            }
        }
        dialog #share aria-labelledby="share-title" {
            h2 #share-title { "Share with another app" }
            form #share-form data-node=(record.node_id) {
                p { "Opens a commissioning window: whoever has its code can add the device beside this hub." }
                label.field { span { "For" } select name="seconds" {
                    option value="180" { "3 minutes" } option value="600" { "10 minutes" } option value="900" { "15 minutes" } } }
                div.row { (cancel) button.button.primary { "Open the window" } }
            }
            div #shared hidden {
                div #shared-qr.qr {}
                p.big #shared-code {}
                p.quiet role="timer" { "Open for " span #shared-left {} }
                div.row {
                    button.button type="button" data-closes { "Done" }
                    form data-action=(path) data-body=r#"{"action":"close-window"}"# data-done="The window is closed." {
                        button.button { "Close the window" } }
                }
            }
        }
    }
}

fn attestation(record: &NodeRecord) -> Markup {
    let found = &record.attestation;
    let (class, word) = match found.verdict.as_str() {
        "accepted" if found.findings.iter().all(|finding| finding.severity == Severity::Info) => ("good", "genuine"),
        "accepted" => ("warn", "accepted"),
        "accepted-with-warnings" => ("warn", "accepted with warnings"),
        "accepted-by-override" => ("warn", "accepted by somebody's word"),
        "rejected" => ("bad", "would be refused today"),
        other => ("plain", other),
    };
    html! {
        section.card aria-labelledby="attestation" {
            h2 #attestation { "Attestation " (pill(class, word)) }
            @if found.findings.is_empty() { p.quiet { "Nothing was found against it." } }
            @else { ul.findings { @for finding in &found.findings { (self::finding(finding)) } } }
        }
    }
}

fn finding(finding: &Finding) -> Markup {
    let class = match finding.severity {
        Severity::Info => "plain",
        Severity::Warning => "warn",
        Severity::Error => "bad",
    };
    html! {
        li.(class) {
            (finding.message) " " code { (finding.code.as_str()) }
            @if !finding.values.is_empty() {
                dl { @for (name, value) in &finding.values { dt { (name) } dd { (value) } } }
            }
        }
    }
}

/// Where it is and when it was there.
fn place(record: &NodeRecord, now: Timestamp) -> Markup {
    let rhythm = record.rhythm.session();
    html! {
        section.card aria-labelledby="place" {
            h2 #place { "Where it is" }
            dl {
                dt { "Addresses" } dd { @if record.addresses.is_empty() { "not known" } @else {
                    ul.plain { @for address in &record.addresses { li { code { (address) } } } } } }
                dt { "Port" } dd { (record.port) }
                dt { "Last contact" } dd { @match record.last_seen_at { Some(at) => { (ago(at, now)) } None => { "never" } } }
                dt { "Joined" } dd { (ago(record.commissioned_at, now)) }
                @if let Some(icd) = record.icd { dt { "Sleep" } dd { (icd) } }
                @if record.icd.is_none() && rhythm.is_sleepy() { dt { "Sleeps" } dd { "up to " (rhythm.idle_interval.as_secs()) " s between two looks" } }
                @if let Some(key) = &record.device_key { dt { "Device key" } dd { code { (key) } } }
                @if let Some(key) = &record.product_key { dt { "Product key" } dd { code { (key) } } }
                @if let Some(at) = record.bind.confirmed_at { dt { "Cloud showed it" } dd { (ago(at, now)) } }
                @if let Some(old) = record.replaces { dt { "Was before" } dd { "node " (old) } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Level;

    #[test]
    fn a_window_is_open_until_it_ends_or_is_closed() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let later = Timestamp::from_second(1_000_300).unwrap();
        let event = |kind: &str| Event::new(now, Level::Info, kind, "x").with("until", later.to_string());
        assert_eq!(open_until(&[event("node-shared")], now), Some(later));
        assert_eq!(open_until(&[event("node-shared"), event("node-renamed")], now), Some(later));
        assert_eq!(open_until(&[event("node-shared"), event("window-closed")], now), None);
        assert_eq!(open_until(&[event("node-shared")], later), None, "it has ended by itself");
        assert_eq!(open_until(&[], now), None);
    }
}
