//! `/controllers`: who else holds rights on our devices, until when, and invitations that are open. Certificates are given on the
//! hub itself, never here.

use axum::body::Bytes;
use axum::extract::State;
use axum::response::Html;
use jiff::Timestamp;
use maud::{Markup, html};

use super::{Tab, Viewer, age, document, empty, icons, pill, shown};
use crate::admin::routes::Api;
use crate::admin::wire::{ControllerView, Controllers};
use crate::controller::ControllerState;
use crate::hub::doors::Doors;

pub(super) async fn page<H: Doors>(State(api): State<Api<H>>, viewer: Viewer) -> Html<Bytes> {
    let (found, now) = (api.hub.controllers().await, Timestamp::now());
    document(
        "Controllers",
        Some(Tab::Controllers),
        viewer,
        &html! {
            h1 { "Controllers" }
            p.quiet { "Wall panels, apps and bridges that hold a certificate of this hub's fabric. On the hub "
                code { "matterbind controller invite" } " makes a code for an app, " code { "controller add" } " a certificate." }
            div #controllers data-live { (shown(&found, |found| all(found, now))) }
        },
    )
}

fn all(found: &Controllers, now: Timestamp) -> Markup {
    let present: Vec<_> = found.controllers.iter().filter(|it| it.state != ControllerState::Removed).collect();
    html! {
        @if present.is_empty() && found.invites.is_empty() {
            (empty(icons::CONTROLLERS, "No other controllers", &html! { "Only this hub has rights on its devices." }))
        }
        ul.cards { @for it in present { li.card { (one(it, now)) } } }
        @if !found.invites.is_empty() { h2 { "Open invitations" } }
        ul.cards { @for invite in &found.invites { li.card {
            div.between {
                span { code { (invite.id) "-…" } " for " span data-until=(invite.expires_at) { (age(now, invite.expires_at)) } }
                form.script-only data-action=(format!("DELETE /v1/invites/{}", invite.id)) data-done="The code is void." {
                    button.button { "Take it back" } }
            }
            p.quiet { "Bears " (invite.tries_left) " more wrong tries." }
        } } }
    }
}

fn one(it: &ControllerView, now: Timestamp) -> Markup {
    let id = format!("remove-{}", it.node_id);
    html! {
        div.between {
            h2 { (it.name) " " small.quiet { "node " (it.node_id) } }
            @if it.state == ControllerState::Leaving { (pill("warn", "leaving")) }
            @else if it.certificate == "current" { (pill("good", "current")) }
            @else { (pill("bad", &it.certificate)) }
        }
        p { "Tags " @for cat in &it.cats { code { (format!("{cat:#010x}")) } " " } }
        p.quiet { @match it.expires_at {
            Some(end) if end <= now => { strong.bad { "Its certificate ended " (age(end, now)) " ago." } }
            Some(end) if it.expires_soon => { strong.bad { "Its certificate ends in " (age(now, end)) ": renew it on the hub." } }
            Some(end) => { "Its certificate is valid for another " (age(now, end)) "." }
            None => { "Its certificate has no end." }
        } }
        @if !it.waits_for.is_empty() {
            p.hint { "It leaves when these have renewed: " (it.waits_for.iter().map(|other| other.name.as_str()).collect::<Vec<_>>().join(", ")) "." }
        }
        div.row.script-only { button.button.danger data-opens=(id) { "Shut it out…" } }
        dialog id=(id) aria-labelledby=(format!("{id}-title")) {
            h2 #(format!("{id}-title")) { "Shut out " (it.name) "?" }
            p { "Every device is told a later version of its tags. Others with the same tags renew first, unless you do it at once." }
            form data-action=(format!("POST /v1/controllers/{}/remove", it.node_id)) data-body=r#"{"now":false}"# data-done="It is on its way out." {
                label.check { input type="checkbox" name="now"; span { "At once, also if others have to renew then" } }
                div.row { button.button type="button" data-closes { "Cancel" } button.button.danger { "Shut it out" } }
            }
        }
    }
}
