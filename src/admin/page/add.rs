//! `/add`: the form, the steps that the script lights one by one, and what came of it. The attempt itself is
//! `POST /v1/commission`, as for everybody.

use std::collections::BTreeSet;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::Html;
use maud::{Markup, html};

use super::{Tab, Viewer, document, icons};
use crate::admin::routes::Api;
use crate::admin::wire::NodesQuery;
use crate::commissioning::step::Step;
use crate::hub::doors::{Doors, InventoryDoor};

/// Rooms are offered from so many nodes.
const LOOKED_AT: u32 = 200;

pub(super) async fn page<H: Doors>(State(api): State<Api<H>>, viewer: Viewer) -> Html<Bytes> {
    let rooms = rooms(&*api.hub).await;
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
                div.pair {
                    label.field { span { "Name " small { "if you like" } } input name="name" maxlength="64"; }
                    (room_field(&rooms, ""))
                }
                details { summary { "More" }
                    label.field { span { "Address " small { "if discovery does not find it: 192.0.2.7:5540" } } input name="address" maxlength="64" spellcheck="false"; }
                    label.check { input type="checkbox" name="no_bind"; span { "Leave the cloud alone" } }
                    label.field { span { "Accept it whatever attestation finds, because " small { "goes into the log" } } input name="why" maxlength="200"; }
                }
                button.button.primary.wide { "Add" }
            }
            section.card #progress hidden aria-labelledby="progress-title" {
                h2 #progress-title tabindex="-1" { "Adding the device" }
                p #now role="status" {}
                ol.steps { @for step in Step::ALL { li data-step=(step.as_str()) { span { (step.label()) } small {} } } }
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
