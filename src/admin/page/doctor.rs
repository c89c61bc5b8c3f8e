//! `/doctor`: what is wrong around the hub, and what to do about it. Looking takes some seconds, so the script fetches it after the
//! view; without one a link does.

use axum::body::Bytes;
use axum::extract::State;
use axum::response::Html;
use jiff::Timestamp;
use maud::{Markup, html};
use serde::Deserialize;

use super::{Tab, Viewer, ago, document, icons, pill, prose};
use crate::admin::routes::{Api, Asked};
use crate::admin::wire::{Diagnosis, DoctorFinding, DoctorSeverity};
use crate::hub::doors::{DoctorDoor, Doors};

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct View {
    now: bool,
}

pub(super) async fn page<H: Doors>(State(api): State<Api<H>>, viewer: Viewer, Asked(view): Asked<View>) -> Html<Bytes> {
    let seen = if view.now { Some(api.hub.doctor().await) } else { None };
    document(
        "Doctor",
        Some(Tab::Doctor),
        viewer,
        &html! {
            div.heading { h1 { "Doctor" }
                form.script-only data-loads="diagnosis" { button.button { (icons::draw(icons::SYNC)) "Look again" } } }
            p.quiet { "Network, clock, storage, keys, trust store and the way to the cloud, looked at now." }
            div #diagnosis data-load=[view_path(seen.is_none())] {
                @match &seen {
                    Some(seen) => { (findings(seen, Timestamp::now())) }
                    None => {
                        p.quiet.script-only { "Looking; this takes some seconds…" }
                        p.no-script-only { a href="/doctor?now=true" { "Look now" } }
                    }
                }
            }
        },
    )
}

fn view_path(loads: bool) -> Option<&'static str> {
    loads.then_some("/doctor/found")
}

pub(super) async fn found<H: DoctorDoor>(State(api): State<Api<H>>) -> Html<Bytes> {
    let seen = api.hub.doctor().await;
    Html(findings(&seen, Timestamp::now()).into_string().into())
}

fn findings(seen: &Diagnosis, now: Timestamp) -> Markup {
    let (well, troubles): (Vec<_>, Vec<_>) = seen.findings.iter().partition(|it| it.severity == DoctorSeverity::Ok);
    html! {
        p.quiet { "Looked " (ago(seen.at, now)) "." @if troubles.is_empty() { " All is well." } }
        ul.cards { @for finding in troubles { li.card { (one(finding)) } } }
        @if !well.is_empty() { details.card { summary { (well.len()) " are well" }
            ul.plain { @for finding in well { li { (finding.seen) } } } } }
    }
}

fn one(finding: &DoctorFinding) -> Markup {
    let (class, word) = match finding.severity {
        DoctorSeverity::Error => ("bad", "does not work"),
        DoctorSeverity::Warning => ("warn", "look at it"),
        DoctorSeverity::Note | DoctorSeverity::Ok => ("plain", "worth knowing"),
    };
    html! {
        div.between { h2 { (finding.seen) } (pill(class, word)) }
        @if !finding.hint.is_empty() { p.hint { (prose(&finding.hint)) } }
        p.codes { code { (finding.id) } }
    }
}
