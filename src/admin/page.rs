//! The page for people: every view is drawn here as HTML, so that it can be looked at without script. The scripts in `assets` act
//! by the same API as everybody, and fetch a view again when the admin log has something new. Not here: who may look (`auth`).

use std::collections::BTreeMap;
use std::convert::Infallible;

use axum::Router;
use axum::body::Bytes;
use axum::extract::ConnectInfo;
use axum::response::Html;
use axum::routing::{get, post};
use jiff::{Timestamp, Unit};
use maud::{DOCTYPE, Markup, html};

use super::auth::Peer;
use super::routes::Api;
use super::wire::{NetworkView, Nodes, NodesQuery, Refusal};
use crate::bind::BindState;
use crate::commissioning::network::NetworkKind;
use crate::hub::doors::{Doors, InventoryDoor};
use crate::journal::{Event, Level};
use crate::node::{NodeId, NodeRecord, NodeState};

mod add;
mod assets;
mod controllers;
mod discover;
mod doctor;
mod history;
mod icons;
mod login;
mod more;
mod node;
mod nodes;
mod outbox;
mod sync;

/// The views and what they are made of.
pub(super) fn routes<H: Doors>() -> Router<Api<H>> {
    Router::new()
        .route("/", get(nodes::page))
        .route("/add", get(add::page))
        .route("/add/in-the-way", post(add::in_the_way))
        .route("/nodes/{node}", get(node::page))
        .route("/nodes/{node}/compared", get(node::compared))
        .route("/sync", get(sync::page))
        .route("/outbox", get(outbox::page))
        .route("/log", get(history::page))
        .route("/discover", get(discover::page))
        .route("/controllers", get(controllers::page))
        .route("/doctor", get(doctor::page))
        .route("/doctor/found", get(doctor::found))
        .route("/more", get(more::page))
        .route("/login", get(login::form).post(login::log_in))
        .route("/logout", post(login::log_out))
        .route("/sessions", get(login::page))
        .route("/assets/{*name}", get(assets::serve))
}

/// What browsers may load and do: our own files only, no script or style within a document, no frame around it.
pub(super) const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// So many records are in memory at once.
const AT_ONCE: u32 = 100;

/// Which entry of the navigation is lit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tab {
    Devices,
    Add,
    Sync,
    Outbox,
    Log,
    Discover,
    Controllers,
    Doctor,
    More,
}

impl Tab {
    /// Whether a telephone's bar has no room for it.
    fn is_rare(self) -> bool {
        matches!(self, Self::Discover | Self::Controllers | Self::Doctor)
    }

    fn about(self) -> &'static str {
        match self {
            Self::Discover => "Devices that wait to be added",
            Self::Controllers => "Who else holds rights on the devices",
            Self::Doctor => "What is wrong around the hub",
            Self::Devices | Self::Add | Self::Sync | Self::Outbox | Self::Log | Self::More => "",
        }
    }
}

/// Path, word, icon.
const TABS: [(Tab, &str, &str, &str); 9] = [
    (Tab::Devices, "/", "Devices", icons::DEVICES),
    (Tab::Add, "/add", "Add", icons::ADD),
    (Tab::Sync, "/sync", "Sync", icons::SYNC),
    (Tab::Outbox, "/outbox", "Outbox", icons::OUTBOX),
    (Tab::Log, "/log", "Log", icons::LOG),
    (Tab::Discover, "/discover", "Nearby", icons::NEARBY),
    (Tab::Controllers, "/controllers", "Controllers", icons::CONTROLLERS),
    (Tab::Doctor, "/doctor", "Doctor", icons::DOCTOR),
    (Tab::More, "/more", "More", icons::MORE),
];

/// Who looks, as far as it shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Viewer {
    /// Somebody who has logged in and may log out.
    has_session: bool,
}

impl<S: Send + Sync> axum::extract::FromRequestParts<S> for Viewer {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut axum::http::request::Parts, _: &S) -> Result<Self, Infallible> {
        let peer = parts.extensions.get::<ConnectInfo<Peer>>();
        Ok(Self { has_session: peer.is_some_and(|ConnectInfo(peer)| peer.has_session()) })
    }
}

/// A whole document around a view.
fn document(title: &str, tab: Option<Tab>, viewer: Viewer, view: &Markup) -> Html<Bytes> {
    let whole = html! {
        (DOCTYPE)
        html lang="en" {
            (head(title))
            body {
                a.skip href="#view" { "Skip to the content" }
                header.bar {
                    a.brand href="/" { (icons::draw(icons::BRAND)) span { "matterbind" } }
                    nav aria-label="Views" { ul { @for (known, path, word, icon) in TABS {
                        li.rare[known.is_rare()].narrow[known == Tab::More] { a href=(path) aria-current=[is_lit(known, tab).then_some("page")] {
                            (icons::draw(icon)) span { (word) }
                        } }
                    } } }
                    span #link.link.script-only role="status" { "connecting" }
                    @if viewer.has_session { a.quiet.who href="/sessions" { "Log-ins" } }
                }
                main #view tabindex="-1" {
                    noscript { p.note {
                        "This browser runs no scripts. Everything can be looked at; to change something use the command line."
                    } }
                    (view)
                }
                div #toasts role="status" aria-live="polite" {}
            }
        }
    };
    Html(whole.into_string().into())
}

/// The tab of the view; beside one that is rare, the one by which a telephone came there.
fn is_lit(tab: Tab, of_view: Option<Tab>) -> bool {
    of_view == Some(tab) || (tab == Tab::More && of_view.is_some_and(Tab::is_rare))
}

fn head(title: &str) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1, viewport-fit=cover";
            meta name="color-scheme" content="light dark";
            meta name="theme-color" media="(prefers-color-scheme: light)" content="#f6f7f9";
            meta name="theme-color" media="(prefers-color-scheme: dark)" content="#101419";
            title { (title) " · matterbind" }
            link rel="icon" type="image/svg+xml" href="/assets/icon.svg";
            link rel="stylesheet" href="/assets/style.css";
            script type="module" src="/assets/app.js" {}
        }
    }
}

/// What people call each node: an id alone tells them nothing.
async fn names<H: InventoryDoor>(hub: &H) -> BTreeMap<NodeId, String> {
    let mut names = BTreeMap::new();
    let mut query = NodesQuery { after: None, limit: Some(AT_ONCE) };
    while let Ok(Nodes { nodes, .. }) = hub.nodes(&query).await {
        let last = nodes.last().map(|node| node.node_id);
        let is_last = nodes.len() < AT_ONCE as usize;
        names.extend(nodes.into_iter().map(|node| (node.node_id, node.name)));
        match last {
            Some(last) if !is_last => query.after = Some(last.0),
            _ => break,
        }
    }
    names
}

/// A link to a node under its name.
fn link(node: NodeId, names: &BTreeMap<NodeId, String>) -> Markup {
    html! { a href=(format!("/nodes/{node}")) { @match names.get(&node) {
        Some(name) => { (name) }
        None => { "node " (node) }
    } } }
}

/// What the hub answered, or why it did not.
fn shown<T>(answer: &Result<T, Refusal>, draw: impl FnOnce(&T) -> Markup) -> Markup {
    match answer {
        Ok(value) => draw(value),
        Err(error) => problem(error),
    }
}

fn problem(error: &Refusal) -> Markup {
    html! {
        div.problem role="alert" {
            p { strong { (error.message) } }
            @if !error.hint.is_empty() { p { (prose(&error.hint)) } }
            p.codes { code { (error.code) } }
        }
    }
}

/// A sentence in which commands stand between backquotes; it begins with a capital, and a command as it is typed.
fn prose(text: &str) -> Markup {
    let mut rest = text.chars();
    let first = rest.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    html! { @for (place, part) in (first + rest.as_str()).split('`').enumerate() {
        @if place % 2 == 1 { code { (part) } } @else { (part) }
    } }
}

fn kind_of_network(network: &NetworkView) -> &'static str {
    if network.kind == NetworkKind::Thread.as_str() { "Thread" } else { "Wi-Fi" }
}

/// A place where nothing is yet, with what to do about it.
fn empty(icon: &str, title: &str, text: &Markup) -> Markup {
    html! { div.empty { (icons::draw(icon)) h3 { (title) } p { (text) } } }
}

fn pill(class: &str, word: &str) -> Markup {
    html! { span.pill.(class) { (word) } }
}

fn state_pill(node: &NodeRecord) -> Markup {
    match node.state {
        NodeState::Operational if node.rhythm.session().is_sleepy() => pill("good", "asleep, answers"),
        NodeState::Operational => pill("good", "answers"),
        NodeState::Unreachable => pill("bad", "does not answer"),
        NodeState::Provisional => pill("warn", "not complete"),
        NodeState::Removing => pill("warn", "being removed"),
    }
}

fn bind_pill(node: &NodeRecord) -> Markup {
    match node.bind.state {
        BindState::Bound => pill("good", "in the cloud"),
        BindState::Pending => pill("warn", "cloud pending"),
        BindState::Rejected => pill("bad", "cloud refuses"),
        BindState::NotEligible => pill("plain", "local only"),
        BindState::Disabled => pill("plain", "no cloud"),
    }
}

/// A moment as its age; the scripts keep it fresh.
fn ago(at: Timestamp, now: Timestamp) -> Markup {
    let text = if at > now { format!("in {}", age(now, at)) } else { format!("{} ago", age(at, now)) };
    html! { time datetime=(at) title=(format!("{at:.0}")) { (text) } }
}

/// A span of time in its largest unit: `5 s`, `3 min`, `2 h`, `4 d`.
fn age(from: Timestamp, to: Timestamp) -> String {
    let seconds = (to - from).total(Unit::Second).unwrap_or(0.0).max(0.0) as u64;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Entries of the admin log, newest first; with `names` each says which node it is about.
fn entries(events: &[Event], now: Timestamp, names: Option<&BTreeMap<NodeId, String>>) -> Markup {
    html! {
        ol.log { @for event in events.iter().rev() {
            li class=(match event.level {
                Level::Error => "bad",
                Level::Warn => "warn",
                Level::Info | Level::Debug => "plain",
            }) {
                span.when { (ago(event.at, now)) }
                span.what {
                    @match event.level {
                        Level::Error => { strong.bad { "Error: " } }
                        Level::Warn => { strong.warn { "Warning: " } }
                        Level::Info | Level::Debug => {}
                    }
                    (event.message)
                    @if let (Some(node), Some(names)) = (event.node_id, names) { " " (link(node, names)) }
                }
                code.kind { (event.kind) }
            }
        } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let before = |seconds: i64| age(Timestamp::from_second(1_000_000 - seconds).unwrap(), now);
        assert_eq!([before(5), before(600), before(7200), before(400_000)], ["5 s", "10 min", "2 h", "4 d"]);
        assert_eq!(age(now, Timestamp::from_second(0).unwrap()), "0 s");
    }
}
