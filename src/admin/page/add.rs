//! `/add`: the form, the steps that the script lights one by one, and what came of it. The attempt itself is
//! `POST /v1/commission`, as for everybody.

use std::collections::BTreeSet;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::Html;
use maud::{Markup, html};
use serde::Deserialize;

use super::{Tab, Viewer, document, icons, kind_of_network, prose};
use crate::admin::routes::{Api, Body};
use crate::admin::wire::{BluetoothStatus, NetworkView, NodesQuery};
use crate::commissioning::step::Step;
use crate::hub::doors::{Doors, InventoryDoor};
use crate::onboarding::SetupCode;

/// Rooms are offered from so many nodes.
const LOOKED_AT: u32 = 200;

pub(super) async fn page<H: Doors>(State(api): State<Api<H>>, viewer: Viewer) -> Html<Bytes> {
    let rooms = rooms(&*api.hub).await;
    let networks = api.hub.networks().await.map(|list| list.networks).unwrap_or_default();
    document(
        "Add a device",
        Some(Tab::Add),
        viewer,
        &html! {
            h1 { "Add a device" }
            p.quiet { "Put the device into pairing mode. Its code is on the device, in its manual, or shown by the app that shares it." }
            form.card #add.script-only autocomplete="off" {
                label.field { span { "Setup code" }
                    input.code #code name="setup_code" required maxlength="256" placeholder="MT:… or 11 digits" autocapitalize="characters"
                        autocorrect="off" spellcheck="false" aria-describedby="code-help"; }
                p.help #code-help { "Blanks and hyphens do not matter." }
                div.row {
                    button.button #scan type="button" hidden { (icons::draw(icons::CAMERA)) "Scan with the camera" }
                    label.button.file { (icons::draw(icons::PHOTO)) span { "Take or choose a photo" }
                        input #photo type="file" accept="image/*" capture="environment"; }
                }
                div #viewfinder hidden {
                    video playsinline muted aria-label="What the camera sees" {}
                    button.button #scan-stop type="button" { "Stop the camera" }
                }
                p.note #scan-note role="status" hidden {}
                div #in-the-way role="status" {}
                div.pair {
                    label.field { span { "Name " small { "if you like" } } input name="name" maxlength="64"; }
                    (room_field(&rooms, ""))
                    (network_field(&networks))
                }
                details { summary { "More" }
                    label.field { span { "Address " small { "if discovery does not find it: 192.0.2.7:5540" } } input name="address" maxlength="64" spellcheck="false"; }
                    label.check { input type="checkbox" name="no_bind"; span { "Leave the cloud alone" } }
                    label.field { span { "Terms of its vendor that its owner has accepted " small { "if it asks for that; version and bits, as 1:1" } }
                        input name="terms" maxlength="16" spellcheck="false" inputmode="numeric" pattern="[0-9]+:(0x[0-9a-fA-F]+|[0-9]+)"; }
                    label.field { span { "Accept it whatever attestation finds, because " small { "goes into the log" } } input name="why" maxlength="200"; }
                }
                button.button.primary.wide { "Add" }
            }
            section.card #progress hidden aria-labelledby="progress-title" {
                h2 #progress-title tabindex="-1" { "Adding the device" }
                p #now role="status" {}
                div #waits role="alert" {}
                ol.steps { @for step in Step::ALL {
                    // Only a device on Bluetooth has this one.
                    li data-step=(step.as_str()) hidden[step == Step::Network] { span { (step.label()) } small {} }
                } }
                ul.notes #notes {}
            }
            section #outcome tabindex="-1" aria-live="polite" {}
            template #added { div.card.success {
                h2 { (icons::draw(icons::CHECK)) span data-slot="title" {} }
                p data-slot="text" {}
                div.row {
                    a.button.primary data-slot="link" { "Show it" }
                    button.button data-slot="identify" { (icons::draw(icons::BLINK)) "Let it blink" }
                    button.button data-slot="again" { "Add another" }
                }
            } }
        },
    )
}

/// What is in the code field. Nothing of it is sent back.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Typed {
    setup_code: SetupCode,
}

/// `POST /add/in-the-way`: what keeps the device with this code from coming in, as far as its code and the hub know.
pub(super) async fn in_the_way<H: Doors>(State(api): State<Api<H>>, Body(typed): Body<Typed>) -> Html<Bytes> {
    let needs_bluetooth = |code: &SetupCode| code.parse().is_ok_and(|payload| payload.rendezvous.needs_bluetooth());
    if !typed.setup_code.each().iter().any(needs_bluetooth) {
        return Html(Bytes::new());
    }
    let networks = api.hub.networks().await.map(|list| list.networks).unwrap_or_default();
    Html(before_bluetooth(&api.hub.status().await.bluetooth, &networks).into_string().into())
}

/// What keeps a device from coming in that is only on Bluetooth.
fn before_bluetooth(bluetooth: &BluetoothStatus, networks: &[NetworkView]) -> Markup {
    html! {
        @if let Some(missing) = &bluetooth.missing {
            div.problem {
                p { strong { "This device is on Bluetooth, and the hub cannot use it: " (missing) } }
                @if let Some(hint) = &bluetooth.hint { p { (prose(hint)) } }
                p.codes { code { "bluetooth-unavailable" } }
            }
        } @else if networks.is_empty() {
            div.problem {
                p { strong { "This device is on Bluetooth, and the hub knows no network to bring it to" } }
                p { "What joins a network is told to the hub itself, not by the page: " code { "matterbind network set wifi SSID" }
                    " or " code { "matterbind network set thread" } }
                p.codes { code { "network-not-configured" } }
            }
        }
    }
}

/// Which network a device out of its box is brought to, where there is a choice.
fn network_field(networks: &[NetworkView]) -> Markup {
    let usual: Vec<&str> = networks.iter().filter(|one| one.default).map(|one| one.name.as_str()).collect();
    let usual =
        if usual.is_empty() { "as the hub chooses".to_owned() } else { format!("the usual one: {}", usual.join(", ")) };
    html! {
        @if !networks.is_empty() {
            label.field { span { "Network " small { "for a device out of its box" } }
                select name="network" {
                    option value="" { (usual) }
                    @for one in networks { option value=(one.name) { (one.name) " (" (kind_of_network(one)) ")" } }
                } }
        }
    }
}

/// The rooms that devices are in already.
pub(super) async fn rooms<H: InventoryDoor>(hub: &H) -> BTreeSet<String> {
    let query = NodesQuery { after: None, limit: Some(LOOKED_AT) };
    let nodes = hub.nodes(&query).await.map(|found| found.nodes).unwrap_or_default();
    nodes.into_iter().filter_map(|node| node.room_id).collect()
}

pub(super) fn room_field(rooms: &BTreeSet<String>, value: &str) -> Markup {
    html! {
        label.field { span { "Room " small { "its id in the cloud" } }
            input name="room_id" maxlength="64" list="rooms" value=(value); }
        datalist #rooms { @for room in rooms { option value=(room) {} } }
    }
}
