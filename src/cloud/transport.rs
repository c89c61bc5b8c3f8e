//! One request, and how its end is judged: body first, then HTTP status (cloud-contract 1).

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use reqwest::header::{CONTENT_TYPE, DATE, HeaderMap, HeaderName, LOCATION, RETRY_AFTER, SERVER};
use reqwest::{Method, RequestBuilder, StatusCode, Url};
use serde_json::Value;

use super::budget::Budget;
use super::client::BuildError;
use super::health::HealthCell;
use super::wire::Envelope;
use crate::bind::codes;
use crate::failpoint;
use crate::outbox::foreign::ForeignAnswer;
use crate::outbox::ports::CloudError;
use crate::plain;
use crate::tls::{self, Now};

mod failure;

/// An answer of this length is no answer of this service: a page of 50 devices has some 50 KB.
const MAX_BODY_BYTES: usize = 2 << 20;
/// The service's messages are short; what is longer is cut before it is kept or logged.
const MAX_MESSAGE_CHARS: usize = 300;
/// So are the headers that are named.
const MAX_HEADER_CHARS: usize = 120;
/// A time that the service said is good for so long; the monotonic clock carries it.
const SAID_LATELY: Duration = Duration::from_secs(3600);
/// What no code of the service is.
const HTTP_STATUSES: std::ops::RangeInclusive<i64> = 100..=599;
/// Kept longer than the outbox's usual pace, so that connections and TLS sessions are reused.
const POOL_IDLE: Duration = Duration::from_secs(90);

/// Counts and times what the cloud is asked, for the metrics.
pub trait Meter: Send + Sync + 'static {
    /// A request ended; `code` is the body code, or a word such as `not-sent`.
    fn count(&self, call: &'static str, code: &str, took: Duration);
}

pub(super) struct Unmetered;

impl Meter for Unmetered {
    fn count(&self, _call: &'static str, _code: &str, _took: Duration) {}
}

/// What requests are made with.
#[derive(Clone)]
struct Http {
    client: reqwest::Client,
    /// Why no server can be trusted now.
    untrusting: Option<CloudError>,
}

/// The HTTP client, bound to one service.
pub(super) struct Transport {
    http: RwLock<Http>,
    timeout: Duration,
    meter: Arc<dyn Meter>,
    /// What certificates are judged by, and pauses counted by.
    now: Now,
    /// What the service has asked of all requests.
    budget: Mutex<Budget>,
    /// What time the service said it was, and when it said so.
    said: Mutex<Option<(Timestamp, Instant)>>,
    base: Url,
    /// Host and port, for errors.
    at: String,
    health: Arc<HealthCell>,
}

impl Transport {
    pub(super) fn new(
        base_url: &str,
        timeout: Duration,
        health: Arc<HealthCell>,
        meter: Arc<dyn Meter>,
        now: Now,
    ) -> Result<Self, BuildError> {
        let base = Url::parse(base_url.trim_end_matches('/')).map_err(|source| BuildError::BaseUrl { source })?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
            return Err(BuildError::NotHttp { scheme: base.scheme().to_owned() });
        }
        // Another part of the process may have chosen a provider before; then that one serves.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let at = match (base.host_str().unwrap_or_default(), base.port()) {
            (host, Some(port)) => format!("{host}:{port}"),
            (host, None) => host.to_owned(),
        };
        let http = http(&base, timeout, &now);
        if let Some(error) = &http.untrusting {
            health.failed(error);
        }
        let (http, budget) = (RwLock::new(http), Mutex::default());
        Ok(Self { http, timeout, meter, now, budget, said: Mutex::default(), base, at, health })
    }

    /// What is there, made again where there was no trust store: one may have been installed since.
    fn http(&self) -> Http {
        let now = self.http.read().unwrap_or_else(PoisonError::into_inner).clone();
        if now.untrusting.is_none() {
            return now;
        }
        let again = http(&self.base, self.timeout, &self.now);
        *self.http.write().unwrap_or_else(PoisonError::into_inner) = again.clone();
        again
    }

    /// A request to a path of the service.
    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        self.http().client.request(method, url)
    }

    /// Sends; `Ok` is `data` of body code 200.
    pub(super) async fn send(&self, name: &'static str, request: RequestBuilder) -> Result<Value, CloudError> {
        self.budget()
            .admit((self.now)())
            .map_err(|answer| CloudError::Foreign { answer: Box::new(answer), sent: false })?;
        let started = tokio::time::Instant::now();
        failpoint::reach("http.before");
        let untrusting = self.http.read().unwrap_or_else(PoisonError::into_inner).untrusting.clone();
        let outcome = match untrusting {
            Some(error) => Err(error),
            None => self.exchange(request).await,
        };
        failpoint::reach("http.after");
        let took = started.elapsed();
        self.meter.count(name, &word(&outcome), took);
        let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        match &outcome {
            Ok(_) => tracing::debug!(call = name, duration_ms, code = codes::SUCCESS, "the cloud answered"),
            Err(error) => tracing::debug!(call = name, duration_ms, %error, "the cloud call did not succeed"),
        }
        match &outcome {
            Ok(_) | Err(CloudError::Code { .. }) => self.budget().reset(),
            Err(CloudError::Foreign { answer, .. }) => self.budget().handle_foreign(answer, (self.now)()),
            Err(_) => {}
        }
        self.health.update(|health| match &outcome {
            Ok(_) | Err(CloudError::Code { .. }) => {
                health.reachable = Some(true);
                health.last_answer_at = Some(Timestamp::now());
            }
            Err(_) => health.reachable = Some(false),
        });
        outcome
    }

    fn budget(&self) -> MutexGuard<'_, Budget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets requests leave although the service asked for patience: a person asks again.
    pub(super) fn forget_patience(&self) {
        self.budget().reset();
    }

    async fn exchange(&self, request: RequestBuilder) -> Result<Value, CloudError> {
        let (answer, date) = self.ask(request).await?;
        // Only a server whose certificate was checked is believed about the time, and only the service itself.
        let own = matches!(answer, Ok(_) | Err(CloudError::Code { .. })) && self.is_encrypted();
        if let Some(date) = date.filter(|_| own) {
            let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
            *said = Some((date, Instant::now()));
        }
        answer
    }

    /// Asks for a page of the device list without a token, whatever the service has asked for: what answers, and what time it
    /// says it is. `Err` within is an answer too, this one where nobody gave one.
    pub(super) async fn look(&self) -> Result<(Result<Value, CloudError>, Option<Timestamp>), CloudError> {
        let Http { untrusting, .. } = self.http();
        match untrusting {
            Some(error) => Err(error),
            None => self.ask(self.request(Method::GET, super::client::DEVICE_LIST)).await,
        }
    }

    async fn ask(&self, request: RequestBuilder) -> Result<(Result<Value, CloudError>, Option<Timestamp>), CloudError> {
        let failed = |error| failure::judge(error, &self.at, Timestamp::now());
        let mut response = request.send().await.map_err(failed)?;
        let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > MAX_BODY_BYTES {
                return Err(CloudError::Ambiguous { cause: format!("an answer of more than {MAX_BODY_BYTES} bytes") });
            }
            body.extend_from_slice(&chunk);
        }
        let date = headers.get(DATE).and_then(|value| jiff::fmt::rfc2822::parse(value.to_str().ok()?).ok());
        Ok((judge_answer(status, &headers, &body, Timestamp::now()), date.map(|date| date.timestamp())))
    }

    /// Whether requests go over TLS.
    pub(super) fn is_encrypted(&self) -> bool {
        self.base.scheme() == "https"
    }

    /// Host and port of the service.
    pub(super) fn place(&self) -> (String, u16) {
        let host = self.base.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        (host, self.base.port_or_known_default().unwrap_or(443))
    }

    /// What time it is by the service, if it said so in the last hour.
    pub(super) fn service_time(&self) -> Option<Timestamp> {
        let (date, at) = (*self.said.lock().unwrap_or_else(PoisonError::into_inner))?;
        let since = at.elapsed();
        (since <= SAID_LATELY).then(|| date.checked_add(since).ok()).flatten()
    }
}

/// A client with the machine's trust store, or, where there is none, one that trusts nobody.
fn http(base: &Url, timeout: Duration, now: &Now) -> Http {
    let builder = || {
        reqwest::Client::builder()
            .user_agent(concat!("matterbind/", env!("CARGO_PKG_VERSION")))
            .timeout(timeout)
            // Shorter than the whole, so that "no connection" is told apart from "no answer".
            .connect_timeout(timeout / 2)
            .pool_idle_timeout(POOL_IDLE)
            .tcp_nodelay(true)
            // A redirect would carry the token to another host.
            .redirect(reqwest::redirect::Policy::none())
    };
    // Without TLS there is no need to read the machine's trust store, which may not even exist.
    let trust = (base.scheme() == "https").then(|| tls::config(now));
    let (client, untrusting) = match trust {
        Some(Ok(trust)) => match builder().tls_backend_preconfigured(trust).build() {
            Ok(client) => (Some(client), None),
            Err(error) => (None, Some(failure::no_trust_store(&error))),
        },
        Some(Err(error)) => (None, Some(failure::no_trust_store(&error))),
        None => (None, None),
    };
    let client = client.unwrap_or_else(|| {
        builder().tls_certs_only([]).build().expect("a client without certificates reads nothing that could be missing")
    });
    Http { client, untrusting }
}

/// How a request ended, for who counts them.
fn word(outcome: &Result<Value, CloudError>) -> Cow<'static, str> {
    match outcome {
        Ok(_) => Cow::Owned(codes::SUCCESS.to_string()),
        Err(CloudError::Code { code, .. }) => Cow::Owned(code.to_string()),
        Err(CloudError::Foreign { answer, .. }) => Cow::Owned(format!("http-{}", answer.status)),
        Err(CloudError::NotSent { .. }) => Cow::Borrowed("not-sent"),
        Err(CloudError::Untrusted { .. }) => Cow::Borrowed("untrusted"),
        Err(CloudError::Ambiguous { .. }) => Cow::Borrowed("unknown"),
        Err(CloudError::SignIn { .. }) => Cow::Borrowed("sign-in"),
    }
}

/// Body first: only what the service says in its own envelope is a verdict. Whatever else answers, with whatever status, is
/// something between hub and cloud.
fn judge_answer(status: StatusCode, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Result<Value, CloudError> {
    let foreign = |status| CloudError::Foreign { answer: Box::new(foreign(status, headers, now)), sent: true };
    match Envelope::parse(body) {
        Some(Envelope { code: codes::SUCCESS, data, .. }) => Ok(data),
        Some(Envelope { code: 0, .. }) => Err(CloudError::Ambiguous { cause: "the answer has body code 0".to_owned() }),
        // Gateways say their HTTP status in JSON, under the very name; the service's codes have four digits.
        Some(Envelope { code, .. }) if HTTP_STATUSES.contains(&code) && codes::lookup(code).is_none() => {
            Err(foreign(u16::try_from(code).unwrap_or(status.as_u16())))
        }
        Some(Envelope { code, message, .. }) => Err(CloudError::Code { code, message: tidy(&message) }),
        None => Err(foreign(status.as_u16())),
    }
}

fn foreign(status: u16, headers: &HeaderMap, now: Timestamp) -> ForeignAnswer {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let short = |text: &str| tidy(text).chars().take(MAX_HEADER_CHARS).collect::<String>();
    ForeignAnswer {
        status,
        server: text(SERVER).map(short),
        // What follows the path is between the portal and a browser.
        location: text(LOCATION).map(|target| short(target.split(['?', '#']).next().unwrap_or_default())),
        content_type: text(CONTENT_TYPE).map(short),
        retry_after: text(RETRY_AFTER).and_then(|value| retry_after(value, now)),
    }
}

/// Seconds, or a date (RFC 9110 10.2.3).
fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(value.trim()).ok()?.timestamp();
    Duration::try_from(date.duration_since(now)).ok()
}

fn tidy(message: &str) -> String {
    plain::shown(message).chars().take(MAX_MESSAGE_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_795_000_000, 0);

    fn judge(status: u16, headers: &[(HeaderName, &'static str)], body: &str) -> Result<Value, CloudError> {
        let headers = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        judge_answer(StatusCode::from_u16(status).unwrap(), &headers, body.as_bytes(), NOW)
    }

    #[test]
    fn the_body_decides_before_the_status() {
        for status in [200, 302, 401, 403, 407, 429, 500, 503] {
            assert_eq!(judge(status, &[], r#"{"code":200,"data":1}"#), Ok(Value::from(1)), "{status}");
            let refused = judge(status, &[], r#"{"code":5066,"msg":"m"}"#);
            assert!(matches!(refused, Err(CloudError::Code { code: 5066, .. })), "{status}");
            let unlisted = judge(status, &[], r#"{"code":77777,"msg":"m"}"#);
            assert!(matches!(unlisted, Err(CloudError::Code { code: 77_777, .. })), "{status}");
            assert!(matches!(judge(status, &[], r#"{"code":0}"#), Err(CloudError::Ambiguous { .. })), "{status}");
        }
    }

    #[test]
    fn whatever_has_no_code_of_the_service_is_no_verdict_of_it() {
        let bodies = [
            "",
            "<html><body>Request blocked</body></html>",
            "null",
            "[5066]",
            "5066",
            "{}",
            r#"{"message":"Too Many Requests"}"#,
            r#"{"error":{"code":5066}}"#,
            r#"{"code":null}"#,
            r#"{"code":"blocked"}"#,
            r#"{"code":5066.5}"#,
            r#"{"code":5066"#,
            r#"{"code":403,"msg":"Forbidden"}"#,
            r#"{"code":"429"}"#,
        ];
        let types = [None, Some("text/html"), Some("application/json")];
        for status in [200, 204, 301, 302, 307, 400, 401, 403, 404, 407, 408, 418, 429, 451, 500, 502, 503, 511] {
            for (body, content_type) in bodies.iter().flat_map(|body| types.map(|kind| (body, kind))) {
                let headers: Vec<_> = content_type.map(|kind| (CONTENT_TYPE, kind)).into_iter().collect();
                let outcome = judge(status, &headers, body);
                let Err(CloudError::Foreign { answer, sent: true }) = &outcome else {
                    panic!("{status} {content_type:?} {body}: {outcome:?}")
                };
                assert_eq!(answer.content_type.as_deref(), content_type);
                assert!(!answer.hint().is_empty());
            }
        }
    }

    #[test]
    fn what_answered_is_named() {
        let headers = [
            (SERVER, "GuestPortal/2.1"),
            (LOCATION, "http://10.0.0.1/login?token=secret#x"),
            (RETRY_AFTER, "Sat, 14 Nov 2026 19:34:20 GMT"),
        ];
        let Err(CloudError::Foreign { answer, .. }) = judge(302, &headers, "") else { panic!() };
        let said = answer.to_string();
        assert_eq!(
            said,
            "HTTP 302 to http://10.0.0.1/login without an answer of the service (server: GuestPortal/2.1)"
        );
        assert!(answer.hint().contains("http://10.0.0.1/login"), "{}", answer.hint());
        let asked = "Sat, 14 Nov 2026 19:34:20 GMT";
        let date = jiff::fmt::rfc2822::parse(asked).unwrap().timestamp();
        assert_eq!(retry_after(asked, date - Duration::from_secs(90)), Some(Duration::from_secs(90)));
        for (value, expected) in [("120", Some(120)), ("-1", None), ("soon", None), ("", None)] {
            assert_eq!(retry_after(value, NOW), expected.map(Duration::from_secs), "{value}");
        }
    }

    #[test]
    fn a_message_cannot_break_a_log_line() {
        assert_eq!(tidy("a\nb\u{1b}[c"), "a b\u{FFFD}[c");
        assert_eq!(tidy(&"x".repeat(1000)).len(), MAX_MESSAGE_CHARS);
    }
}
