//! `/more`: the views that a telephone's bar has no room for.

use axum::body::Bytes;
use axum::response::Html;
use maud::html;

use super::{TABS, Tab, Viewer, document, icons};

pub(super) async fn page(viewer: Viewer) -> Html<Bytes> {
    document(
        "More",
        Some(Tab::More),
        viewer,
        &html! {
            h1 { "More" }
            ul.cards { @for (tab, path, word, icon) in TABS.into_iter().filter(|(tab, ..)| tab.is_rare()) {
                li.card.goes { (icons::draw(icon)) a href=(path) { (word) } span.quiet { (tab.about()) } }
            }
                @if viewer.has_session { li.card.goes { (icons::draw(icons::PERSON)) a href="/sessions" { "Log-ins" } span.quiet { "Who is logged in, and logging out" } } }
            }
        },
    )
}
