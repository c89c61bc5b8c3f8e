//! `/discover`: devices nearby that wait for a commissioner.

use axum::body::Bytes;
use axum::extract::State;
use axum::response::Html;
use maud::{Markup, html};

use super::{Tab, Viewer, document, empty, icons, shown};
use crate::admin::routes::Api;
use crate::admin::wire::{DiscoverQuery, Discovered, DiscoveredNode};
use crate::hub::doors::Doors;

/// How long the view listens before it is drawn; what is known already is drawn too.
const LISTEN_MS: u64 = 1500;

pub(super) async fn page<H: Doors>(State(api): State<Api<H>>, viewer: Viewer) -> Html<Bytes> {
    let found = api.hub.discover(&DiscoverQuery { timeout_ms: LISTEN_MS, ..DiscoverQuery::default() }).await;
    document(
        "Nearby",
        Some(Tab::Discover),
        viewer,
        &html! {
            div.heading { h1 { "Nearby" } a.button.primary href="/add" { (icons::draw(icons::ADD)) "Add a device" } }
            p.quiet { "Devices that can be heard on this network or over Bluetooth and wait to be added. To add one takes its code." }
            div #nearby data-live data-every="6" { (shown(&found, list)) }
        },
    )
}

fn list(found: &Discovered) -> Markup {
    html! {
        @if found.nodes.is_empty() {
            (empty(icons::NEARBY, "Nothing to be heard", &html! {
                "Put a device into pairing mode: usually by holding a button until it blinks. It shows up here by itself."
            }))
        } @else {
            ul.devices { @for node in &found.nodes { (one(node)) } }
        }
        @if let Some(why) = &found.bluetooth {
            p.quiet { "Over Bluetooth nothing can be heard: " (why) ". " a href="/doctor" { "What to do" } }
        }
    }
}

/// A device on Bluetooth has no room for a name in what it sends.
fn nameless(node: &DiscoveredNode) -> &'static str {
    if node.bluetooth.is_some() { "A device out of its box" } else { "A device without a name" }
}

/// How a device was found: over Bluetooth with its signal, or on the network, and where.
fn way(node: &DiscoveredNode) -> Markup {
    match &node.bluetooth {
        Some(seen) => html! { "Bluetooth, " (signal(seen.rssi)) " (" (seen.rssi) " dBm)" },
        None => html! {
            "network" @if !node.interfaces.is_empty() { " " (node.interfaces.join(", ")) }
            @if let Some(address) = node.addresses.first() { ", " (address) }
        },
    }
}

/// In words; at about -90 dBm connections begin to break.
fn signal(rssi: i16) -> &'static str {
    match rssi {
        -65.. => "strong signal",
        -80..-65 => "fair signal",
        _ => "weak signal: bring it nearer",
    }
}

fn one(node: &DiscoveredNode) -> Markup {
    let text = |key: &str| {
        node.txt.get(key).filter(|value| !value.is_null()).map(|value| match value {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        })
    };
    let hex = |key: &str| node.txt.get(key).and_then(serde_json::Value::as_u64).map(|id| format!("0x{id:04X}"));
    html! {
        li.device {
            div.name {
                strong { (text("device_name").unwrap_or_else(|| nameless(node).to_owned())) }
                small {
                    @if let Some(vendor) = hex("vendor_id") { "vendor " (vendor) }
                    @if let Some(product) = hex("product_id") { ", product " (product) }
                    @if let Some(discriminator) = text("discriminator") { " · discriminator " (discriminator) }
                }
                small.way { (way(node)) }
                @if let Some(hint) = text("pairing_instruction") { small { (hint) } }
                @if !node.same_address_as.is_empty() {
                    small.warn { "Another name has the same address: a device that came back, or one that lies." }
                }
            }
            div.pills { @match text("commissioning_mode").as_deref() {
                Some("0") => { span.pill.plain { "not in pairing mode" } }
                Some("2") => { span.pill.good { "shared by another administrator" } }
                _ => { span.pill.good { "in pairing mode" } }
            } }
        }
    }
}
