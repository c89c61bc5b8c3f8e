//! Logging in on TCP, logging out, and who is logged in. The cookie's flags are here; what a session is, is in `sessions`.

use axum::Extension;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use maud::{DOCTYPE, Markup, html};
use serde::Deserialize;

use super::{Viewer, ago, document, head, icons, pill};
use crate::admin::auth::{Guard, LogIn, Peer};
use crate::admin::connections::Channel;
use crate::admin::routes::{Api, Asked, Filled};
use crate::admin::sessions::Known;
use crate::admin::wire::SessionView;
use crate::hub::doors::LogDoor;
use crate::secret::OperatorSecret;

/// Where somebody goes afterwards.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Next {
    next: String,
}

#[derive(Deserialize)]
pub(super) struct LogInForm {
    token: OperatorSecret,
    #[serde(default)]
    next: String,
}

pub(super) async fn form(
    Extension(channel): Extension<Channel>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    viewer: Viewer,
    Asked(Next { next }): Asked<Next>,
) -> Response {
    // On the Unix socket everybody is let in already.
    if viewer.has_session || matches!(peer, Peer::Local { .. }) {
        return see(within(&next));
    }
    gate(StatusCode::OK, &next, None, channel, &peer)
}

pub(super) async fn log_in<H: LogDoor>(
    State(api): State<Api<H>>,
    Extension(guard): Extension<Guard>,
    Extension(channel): Extension<Channel>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    headers: HeaderMap,
    Filled(LogInForm { token, next }): Filled<LogInForm>,
) -> Response {
    let browser = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match guard.log_in(&peer, &token, browser, Timestamp::now()).await {
        LogIn::Done(word) => {
            api.hub.note_access(
                "logged-in",
                &format!("{} has logged in on the page", peer.describe()),
                &peer.describe(),
            );
            let answer = see(within(&next));
            ([set_cookie(word.expose(), channel)], answer).into_response()
        }
        LogIn::Wrong { unsaid } => {
            api.metrics.count_refused("wrong-log-in");
            api.metrics.count_login_failure("form");
            if let Some(times) = unsaid {
                api.hub.note_wrong_tokens(&peer.describe(), times);
            }
            gate(StatusCode::UNAUTHORIZED, &next, Some("This is not the token."), channel, &peer)
        }
        LogIn::TooMany => {
            api.metrics.count_refused("wrong-log-in");
            api.metrics.count_login_failure("too-many");
            let text = "Too many wrong tokens are shown here. Try again in a few seconds.";
            gate(StatusCode::TOO_MANY_REQUESTS, &next, Some(text), channel, &peer)
        }
    }
}

pub(super) async fn log_out<H: LogDoor>(
    State(api): State<Api<H>>,
    Extension(guard): Extension<Guard>,
    Extension(channel): Extension<Channel>,
    known: Option<Extension<Known>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
) -> Response {
    if let Some(Extension(Known { id, .. })) = known {
        guard.sessions().end(&id);
        api.hub.note_access("logged-out", &format!("{} has logged out", peer.describe()), &peer.describe());
    }
    ([set_cookie("", channel)], see("/login")).into_response()
}

pub(super) async fn page(
    Extension(guard): Extension<Guard>,
    known: Option<Extension<Known>>,
    viewer: Viewer,
) -> Response {
    let now = Timestamp::now();
    let current = known.map(|Extension(known)| known.id);
    let open = guard.sessions().list(current.as_deref(), now);
    document("Log-ins", None, viewer, &html! {
        h1 { "Log-ins" }
        p.quiet { "Who is logged in on this page. A log-in ends after a day without use, after a month, and when the hub starts anew. "
            "Programs that show the token are not here." }
        div #sessions data-live {
            @if open.is_empty() { p.quiet { "Nobody is." } }
            ul.cards { @for session in &open { li.card.between { (one(session, now)) } } }
        }
        @if viewer.has_session { form method="post" action="/logout" { button.button { "Log out" } } }
    }).into_response()
}

fn one(session: &SessionView, now: Timestamp) -> Markup {
    html! {
        div {
            strong { (session.from) } @if session.current { " " (pill("good", "this one")) }
            p.quiet { (session.browser) }
            p.quiet { "Logged in " (ago(session.began_at, now)) ", used " (ago(session.used_at, now)) }
        }
        @if !session.current {
            form.script-only data-action=(format!("DELETE /v1/sessions/{}", session.id)) data-done="It is ended." {
                button.button.danger { "End it" } }
        }
    }
}

fn gate(status: StatusCode, next: &str, wrong: Option<&str>, channel: Channel, peer: &Peer) -> Response {
    let read_along = channel == Channel::Plain && !peer.is_this_machine();
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            (head("Log in"))
            body { main.gate {
                p.brand { (icons::draw(icons::BRAND)) span { "matterbind" } }
                form.card method="post" action="/login" {
                    h1 { "Log in" }
                    @if let Some(wrong) = wrong { p.problem role="alert" { (wrong) } }
                    @if read_along { p.note { "This connection is not encrypted: others on the network can read along." } }
                    input type="hidden" name="next" value=(within(next));
                    label.field { span { "Token" }
                        input type="password" name="token" required autofocus autocomplete="current-password" maxlength="512"; }
                    p.help { "It is in the file that " code { "admin.token_file" } " names on the hub." }
                    button.button.primary.wide { "Log in" }
                }
            } }
        }
    };
    (status, axum::response::Html(page.into_string())).into_response()
}

/// A path of this page and nothing else: who follows a link to the log-in must not end elsewhere.
fn within(next: &str) -> &str {
    let safe = next.starts_with('/')
        && !next.starts_with("//")
        && next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if safe { next } else { "/" }
}

fn see(path: &str) -> Response {
    // `within` leaves only what a header can carry.
    let place = HeaderValue::from_str(path).unwrap_or(HeaderValue::from_static("/"));
    (StatusCode::SEE_OTHER, [(header::LOCATION, place)]).into_response()
}

/// The session's cookie; an empty word takes it away. Under TLS its name keeps other hosts and plain HTTP from setting it.
fn set_cookie(word: &str, channel: Channel) -> (HeaderName, HeaderValue) {
    let (name, secure) = match channel {
        Channel::Encrypted => ("__Host-matterbind", "; Secure"),
        Channel::Plain => ("matterbind", ""),
    };
    let age = if word.is_empty() { "; Max-Age=0" } else { "; Max-Age=2592000" };
    let text = format!("{name}={word}; Path=/; HttpOnly; SameSite=Strict{secure}{age}");
    (header::SET_COOKIE, HeaderValue::from_str(&text).expect("base64 and our own words are a header's value"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_ends_within_the_page() {
        for path in ["/", "/nodes/1000", "/log?level=warn&node=1"] {
            assert_eq!(within(path), path);
        }
        for path in ["", "//evil.com", "https://evil.com", "/\\evil.com", "/a b", "/ä", "/\r\nset-cookie:x"] {
            assert_eq!(within(path), "/", "{path:?}");
        }
    }

    #[test]
    fn a_cookie_is_for_this_page_alone() {
        let (_, value) = set_cookie("word", Channel::Encrypted);
        let text = value.to_str().unwrap();
        assert!(text.starts_with("__Host-matterbind=word; Path=/; HttpOnly; SameSite=Strict; Secure"), "{text}");
        let (_, value) = set_cookie("", Channel::Plain);
        assert_eq!(value, "matterbind=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0");
    }
}
