//! Who may use the admin API: on the Unix socket root, the service's user and members of the group `matterbind`; on TCP
//! whoever shows the token or has logged in with it, but for the routes about keys. Not here: sessions (`sessions`), and what a browser may
//! have been made to send (`origin`).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use jiff::Timestamp;
use nix::unistd::{Group, Uid, User};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

use super::openapi::{NDJSON, TEXT};
use super::origin::{self, Foreign};
use super::penalty::Penalty;
use super::routes::error_response;
use super::sessions::{Known, Sessions};
use super::wire::Refusal;
use crate::commissioning::error::Disposition;
use crate::plain;
use crate::secret::OperatorSecret;
use crate::telemetry::metrics::Metrics;

/// The one path where a code is shown instead of a token.
pub(crate) const ENROL: &str = "/v1/enrol";
/// The group whose members may administer the hub.
pub(crate) const ADMIN_GROUP: &str = "matterbind";

/// Who is at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Peer {
    /// A local process, as the kernel knows it.
    Local {
        /// Effective user id when it connected.
        uid: u32,
        /// All group ids: the effective one and the supplementary ones.
        groups: Vec<u32>,
    },
    /// Somebody on the network.
    Remote(SocketAddr),
    /// Somebody on the network who has logged in on the page.
    Person(SocketAddr),
    /// The kernel did not say.
    Unknown,
}

impl Peer {
    /// Asks the kernel (SO_PEERCRED, SO_PEERGROUPS).
    pub(crate) fn of(stream: &UnixStream) -> Self {
        match (stream.peer_cred(), peer_groups(stream)) {
            (Ok(credentials), groups) => {
                let mut groups = groups.unwrap_or_default();
                groups.push(credentials.gid());
                Self::Local { uid: credentials.uid(), groups }
            }
            (Err(_), _) => Self::Unknown,
        }
    }

    /// Whether it came in by a log-in, and can log out.
    pub(crate) fn has_session(&self) -> bool {
        matches!(self, Self::Person(_))
    }

    /// Whether nobody else is on the way.
    pub(super) fn is_this_machine(&self) -> bool {
        match self {
            Self::Local { .. } => true,
            Self::Remote(address) | Self::Person(address) => address.ip().to_canonical().is_loopback(),
            Self::Unknown => false,
        }
    }

    /// Where it is: no token is known of whoever shows a code.
    pub(crate) fn place(&self) -> String {
        match self {
            Self::Remote(address) | Self::Person(address) => address.ip().to_canonical().to_string(),
            Self::Local { .. } | Self::Unknown => self.describe(),
        }
    }

    /// For the admin log.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Local { uid, .. } => match user_name(*uid) {
                Some(name) => format!("{name} (uid {uid})"),
                None => format!("uid {uid}"),
            },
            Self::Remote(address) => format!("token from {address}"),
            Self::Person(address) => format!("log-in from {}", address.ip().to_canonical()),
            Self::Unknown => "unknown".to_owned(),
        }
    }
}

/// The supplementary groups that the peer had when it connected.
fn peer_groups(stream: &UnixStream) -> io::Result<Vec<u32>> {
    use std::os::fd::AsRawFd;
    const MOST: usize = 1024;
    let mut groups = vec![0u32; MOST];
    let mut length = libc::socklen_t::try_from(MOST * size_of::<u32>()).map_err(io::Error::other)?;
    // SAFETY: the kernel writes at most `length` bytes into `groups`, which is that long, and stores how many they were.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    groups.truncate(length as usize / size_of::<u32>());
    Ok(groups)
}

/// As the machine's directories know the user, `/etc/passwd` or another.
fn user_name(uid: u32) -> Option<String> {
    Some(User::from_uid(Uid::from_raw(uid)).ok()??.name)
}

/// As the machine's directories know the group, `/etc/group` or another.
pub(crate) fn group_id(name: &str) -> Option<u32> {
    Some(Group::from_name(name).ok()??.gid.as_raw())
}

/// Who may come in.
#[derive(Debug, Clone)]
pub struct Guard {
    own_uid: u32,
    group: Option<u32>,
    token: Option<Arc<OperatorSecret>>,
    /// Whether whoever shows the code of an invitation may come as far as that.
    enrolment: bool,
    /// Names by which browsers may know the hub, beside its addresses.
    names: Arc<Vec<String>>,
    sessions: Arc<Sessions>,
    tokens: Arc<Penalty>,
    codes: Arc<Penalty>,
}

impl Guard {
    /// For this process's user and the group [`ADMIN_GROUP`]; `token` is for TCP.
    pub fn new(token: Option<OperatorSecret>) -> Self {
        let own_uid = rustix::process::geteuid().as_raw();
        Self::for_ids(own_uid, group_id(ADMIN_GROUP), token)
    }

    /// A guard for given ids, for tests.
    pub fn for_ids(own_uid: u32, group: Option<u32>, token: Option<OperatorSecret>) -> Self {
        let (tokens, codes) = (Arc::default(), Arc::default());
        let (names, sessions) = (Arc::default(), Arc::default());
        Self { own_uid, group, token: token.map(Arc::new), enrolment: false, names, sessions, tokens, codes }
    }

    /// The same, known by these names and by this machine's own.
    #[must_use]
    pub fn with_names(self, configured: Vec<String>) -> Self {
        let own = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let names = configured.into_iter().chain([format!("{own}.local"), own]).collect();
        Self { names: Arc::new(names), ..self }
    }

    pub(super) fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// Somebody shows the token in the form.
    pub(super) async fn log_in(&self, peer: &Peer, shown: &OperatorSecret, browser: &str, now: Timestamp) -> LogIn {
        let address = match peer {
            Peer::Remote(address) | Peer::Person(address) => address.ip(),
            Peer::Local { .. } | Peer::Unknown => std::net::Ipv4Addr::LOCALHOST.into(),
        };
        let right = |token: &Arc<OperatorSecret>| same(shown.expose().trim().as_bytes(), token.expose().as_bytes());
        if self.token.as_ref().is_some_and(right) {
            return LogIn::Done(self.sessions.begin(address, browser, now));
        }
        let unsaid = self.tokens.take_unsaid();
        match self.tokens.serve().await {
            Ok(()) => LogIn::Wrong { unsaid },
            Err(_) => LogIn::TooMany,
        }
    }

    /// The same, open for enrolment.
    #[must_use]
    pub fn with_enrolment(self) -> Self {
        Self { enrolment: true, ..self }
    }

    fn is_enrolment(&self, request: &Request) -> bool {
        self.enrolment && request.method() == Method::POST && request.uri().path() == ENROL
    }

    fn admits(&self, peer: &Peer, request: &Request) -> Admission {
        match peer {
            Peer::Local { uid, groups } => {
                let member = self.group.is_some_and(|group| groups.contains(&group));
                if *uid == 0 || *uid == self.own_uid || member { Admission::Admitted } else { Admission::Forbidden }
            }
            Peer::Remote(_) | Peer::Person(_) => {
                let open = matches!(
                    request.uri().path(),
                    "/healthz" | "/readyz" | "/login" | "/assets/style.css" | "/assets/icon.svg"
                );
                if self.shows_token(request) {
                    Admission::Admitted
                } else if let Some(session) = self.shows_session(request) {
                    Admission::Known(session)
                } else if open || self.is_enrolment(request) {
                    Admission::Admitted
                } else if request.headers().contains_key(header::AUTHORIZATION) {
                    Admission::WrongToken
                } else {
                    Admission::TokenNeeded
                }
            }
            Peer::Unknown => Admission::Forbidden,
        }
    }

    fn shows_session(&self, request: &Request) -> Option<Known> {
        let cookies = request.headers().get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let ours = cookies.flat_map(|line| line.split(';')).filter_map(|cookie| {
            let (name, word) = cookie.trim().split_once('=')?;
            COOKIES.contains(&name).then_some(word)
        });
        ours.take(4).find_map(|word| self.sessions.admit(word, Timestamp::now()))
    }

    fn shows_token(&self, request: &Request) -> bool {
        let Some(token) = &self.token else { return false };
        let Some(value) = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()) else {
            return false;
        };
        let Some((scheme, shown)) = value.split_once(' ') else { return false };
        scheme.eq_ignore_ascii_case("bearer") && same(shown.trim().as_bytes(), token.expose().as_bytes())
    }

    /// What a browser may have been made to send; a program that shows the token is no browser.
    fn is_foreign(&self, request: &Request, by_cookie: bool) -> Option<Foreign> {
        if self.shows_token(request) {
            return None;
        }
        origin::judge(request.method(), request.uri(), request.headers(), &self.names, by_cookie)
    }
}

/// What came of a log-in.
pub(super) enum LogIn {
    /// The word for the cookie.
    Done(OperatorSecret),
    Wrong {
        /// How many there were since it was told last, where it is time to tell it again.
        unsaid: Option<u64>,
    },
    TooMany,
}

/// The session's cookie, with TLS and without.
pub(super) const COOKIES: [&str; 2] = ["__Host-matterbind", "matterbind"];

enum Admission {
    Admitted,
    Known(Known),
    Forbidden,
    TokenNeeded,
    WrongToken,
}

/// Compares digests, so that the time it takes says nothing about the token, its length neither.
fn same(shown: &[u8], token: &[u8]) -> bool {
    Sha256::digest(shown).ct_eq(&Sha256::digest(token)).into()
}

/// Not `Basic`: a browser asks people for that by itself, and sends it to everybody who makes it send something here.
const ASK_TOKEN: (header::HeaderName, &str) = (header::WWW_AUTHENTICATE, "Bearer realm=\"matterbind\"");

/// Takes who showed what was wrong, and how many there were since it was told last.
pub(crate) type Tell = Arc<dyn Fn(String, u64) + Send + Sync>;

/// What the guard needs to let somebody through or to say that it did not.
#[derive(Clone)]
pub(crate) struct Gate {
    /// Who may come in.
    pub guard: Guard,
    /// Counts who may not.
    pub metrics: Arc<Metrics>,
    /// Is told of wrong tokens.
    pub wrong_tokens: Tell,
    /// Is told of codes by which nobody enrols.
    pub wrong_codes: Tell,
}

/// The middleware: lets a request through or answers 401 or 403.
pub(crate) async fn check(
    State(Gate { guard, metrics, wrong_tokens, wrong_codes }): State<Gate>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    let refuse = |status, message: &str, hint: &str| {
        error_response(status, &Refusal::new("forbidden", Disposition::UserAction, message, hint))
    };
    let verdict = guard.admits(&peer, &request);
    match guard.is_foreign(&request, matches!(verdict, Admission::Known(_))) {
        None => {}
        Some(Foreign::Host(host)) => {
            metrics.count_refused("unknown-host");
            let message = format!("this hub is not known as {:?}", plain::clean(&host, 100));
            let hint = "use its address, or name it in `admin.hosts`";
            return refuse(StatusCode::MISDIRECTED_REQUEST, &message, hint);
        }
        Some(Foreign::Page(page)) => {
            metrics.count_refused("other-page");
            let message = format!("this request comes from another page: {}", plain::clean(&page, 100));
            return refuse(StatusCode::FORBIDDEN, &message, "open the hub's own page and do it there");
        }
    }
    match verdict {
        Admission::Known(known) => {
            if let Peer::Remote(address) = peer {
                request.extensions_mut().insert(ConnectInfo(Peer::Person(address)));
            }
            request.extensions_mut().insert(known.clone());
            until(next.run(request).await, known.ended)
        }
        Admission::Admitted if guard.is_enrolment(&request) => {
            let answer = next.run(request).await;
            if answer.status() == StatusCode::FORBIDDEN {
                metrics.count_refused("wrong-code");
                if let Some(times) = guard.codes.take_unsaid() {
                    wrong_codes(peer.place(), times);
                }
                if guard.codes.serve().await.is_err() {
                    let hint = "try again in a few seconds";
                    return refuse(StatusCode::TOO_MANY_REQUESTS, "too many wrong codes are shown here", hint);
                }
            }
            answer
        }
        Admission::Admitted => next.run(request).await,
        Admission::Forbidden => {
            metrics.count_refused("forbidden");
            refuse(
                StatusCode::FORBIDDEN,
                "you may not use this socket",
                "run as root, or join the group: `usermod -aG matterbind $USER`, then log in again",
            )
        }
        Admission::TokenNeeded if wants_page(&request) => {
            let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
            let path = percent_encoding::utf8_percent_encode(path, percent_encoding::NON_ALPHANUMERIC);
            (StatusCode::SEE_OTHER, [(header::LOCATION, format!("/login?next={path}"))]).into_response()
        }
        Admission::TokenNeeded => {
            metrics.count_refused("no-token");
            let answer =
                refuse(StatusCode::UNAUTHORIZED, "a token is needed", "send `Authorization: Bearer` with the token");
            ([ASK_TOKEN], answer).into_response()
        }
        Admission::WrongToken => {
            metrics.count_refused("wrong-token");
            metrics.count_login_failure("token");
            if let Some(times) = guard.tokens.take_unsaid() {
                wrong_tokens(peer.describe(), times);
            }
            if guard.tokens.serve().await.is_err() {
                let hint = "try again in a few seconds; `matterbind logs` on the hub names who does this";
                let answer = refuse(StatusCode::TOO_MANY_REQUESTS, "too many wrong tokens are shown here", hint);
                return ([(header::RETRY_AFTER, "5")], answer).into_response();
            }
            let hint = "it is in the file that `admin.token_file` names on the hub";
            ([ASK_TOKEN], refuse(StatusCode::UNAUTHORIZED, "this is not the token", hint)).into_response()
        }
    }
}

/// A stream that ends with the session that asked for it, if it has not ended before.
fn until(answer: Response, ended: CancellationToken) -> Response {
    let kind = answer.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    match kind {
        Some("text/event-stream" | NDJSON | TEXT) => {
            answer.map(|body| Body::from_stream(body.into_data_stream().take_until(ended.cancelled_owned())))
        }
        Some(_) | None => answer,
    }
}

/// Whether a person looks, and not a program.
fn wants_page(request: &Request) -> bool {
    let accepts = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let path = request.uri().path();
    let program = path.starts_with("/v1/") || path == "/metrics";
    request.method() == Method::GET && !program && accepts.is_some_and(|accepts| accepts.contains("text/html"))
}

/// A further middleware, for routes with secrets: on TCP, where a token is enough to come in, the answer is 403.
pub(crate) async fn only_local(ConnectInfo(peer): ConnectInfo<Peer>, request: Request, next: Next) -> Response {
    if matches!(peer, Peer::Local { .. }) {
        return next.run(request).await;
    }
    let message = "keys, certificates and the secrets of networks are handled on the Unix socket only: over TCP a token would be enough to take them";
    let hint = "run `matterbind fabric …`, `matterbind controller …` or `matterbind network …` on the hub itself";
    error_response(StatusCode::FORBIDDEN, &Refusal::new("local-only", Disposition::UserAction, message, hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: Method, path: &str, authorization: Option<&str>) -> Request {
        let mut builder = Request::builder().method(method).uri(path);
        if let Some(value) = authorization {
            builder = builder.header(header::AUTHORIZATION, value);
        }
        builder.body(Body::empty()).unwrap()
    }

    fn admitted(guard: &Guard, peer: &Peer, request: &Request) -> bool {
        matches!(guard.admits(peer, request), Admission::Admitted)
    }

    #[test]
    fn root_the_service_and_the_group_come_in() {
        let guard = Guard::for_ids(990, Some(991), None);
        let plain = request(Method::GET, "/v1/status", None);
        for (uid, groups, expected) in
            [(0, vec![0], true), (990, vec![990], true), (1000, vec![1000, 991], true), (1000, vec![1000, 990], false)]
        {
            assert_eq!(admitted(&guard, &Peer::Local { uid, groups }, &plain), expected, "uid {uid}");
        }
        assert!(!admitted(&guard, &Peer::Unknown, &plain));
    }

    #[test]
    fn the_network_needs_the_token() {
        let guard = Guard::for_ids(0, None, Some(OperatorSecret::new("long random word")));
        let peer = Peer::Remote("192.0.2.1:4000".parse().unwrap());
        let basic = "Basic YW55b25lOmxvbmcgcmFuZG9tIHdvcmQ=";
        for (method, path, authorization, expected) in [
            (Method::GET, "/v1/nodes", None, false),
            (Method::GET, "/healthz", None, true),
            (Method::GET, "/v1/nodes", Some("Bearer long random word"), true),
            (Method::GET, "/v1/nodes", Some("Bearer long random wor"), false),
            (Method::GET, "/", Some(basic), false),
            (Method::GET, "/", None, false),
            (Method::GET, "/assets/app.js", None, false),
            (Method::GET, "/login", None, true),
        ] {
            let shown = request(method, path, authorization);
            assert_eq!(admitted(&guard, &peer, &shown), expected, "{shown:?}");
        }
        let without = Guard::for_ids(0, None, None);
        assert!(!admitted(&without, &peer, &request(Method::GET, "/", Some("Bearer "))));
    }

    #[test]
    fn users_and_groups_are_whom_the_machine_knows() {
        assert_eq!(user_name(0).as_deref(), Some("root"));
        assert_eq!(user_name(4_000_000_001), None);
        assert_eq!(group_id("root"), Some(0));
        assert_eq!(group_id("roo"), None);
    }
}
