//! One request, and how its end is judged: body first, then HTTP status (cloud-contract 1).

use std::error::Error as _;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::{Method, RequestBuilder, StatusCode, Url};
use serde_json::Value;

use super::client::BuildError;
use super::health::HealthCell;
use super::wire::Envelope;
use crate::bind::codes;
use crate::failpoint;
use crate::outbox::ports::CloudError;

/// An answer of this length is no answer of this service.
const MAX_BODY_BYTES: usize = 16 << 20;
/// The service's messages are short; what is longer is cut before it is kept or logged.
const MAX_MESSAGE_CHARS: usize = 300;
/// Kept longer than the outbox's usual pace, so that connections and TLS sessions are reused.
const POOL_IDLE: Duration = Duration::from_secs(90);

/// The HTTP client, bound to one service.
pub(super) struct Transport {
    http: reqwest::Client,
    base: Url,
    health: Arc<HealthCell>,
}

impl Transport {
    pub(super) fn new(base_url: &str, timeout: Duration, health: Arc<HealthCell>) -> Result<Self, BuildError> {
        let base = Url::parse(base_url.trim_end_matches('/')).map_err(|source| BuildError::BaseUrl { source })?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
            return Err(BuildError::NotHttp { scheme: base.scheme().to_owned() });
        }
        // Another part of the process may have chosen a provider before; then that one serves.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("matterbind/", env!("CARGO_PKG_VERSION")))
            .timeout(timeout)
            // Shorter than the whole, so that "no connection" is told apart from "no answer".
            .connect_timeout(timeout / 2)
            .pool_idle_timeout(POOL_IDLE)
            .tcp_nodelay(true)
            // A redirect would carry the token to another host.
            .redirect(reqwest::redirect::Policy::none());
        if base.scheme() == "http" {
            // Without TLS there is no need to read the machine's trust store, which may not even exist.
            builder = builder.tls_certs_only([]);
        }
        let http = builder.build().map_err(|source| BuildError::Http { source })?;
        Ok(Self { http, base, health })
    }

    /// A request to a path of the service.
    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        self.http.request(method, url)
    }

    /// Sends; `Ok` is `data` of body code 200.
    pub(super) async fn send(&self, name: &'static str, request: RequestBuilder) -> Result<Value, CloudError> {
        let started = tokio::time::Instant::now();
        failpoint::reach("http.before");
        let outcome = self.exchange(request).await;
        failpoint::reach("http.after");
        let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        match &outcome {
            Ok(_) => tracing::debug!(call = name, duration_ms, code = codes::SUCCESS, "the cloud answered"),
            Err(error) => tracing::debug!(call = name, duration_ms, %error, "the cloud call did not succeed"),
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

    async fn exchange(&self, request: RequestBuilder) -> Result<Value, CloudError> {
        let mut response = request.send().await.map_err(judge_failure)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(judge_failure)? {
            if body.len() + chunk.len() > MAX_BODY_BYTES {
                return Err(CloudError::Ambiguous { cause: format!("an answer of more than {MAX_BODY_BYTES} bytes") });
            }
            body.extend_from_slice(&chunk);
        }
        judge_answer(status, &body)
    }
}

/// Connection, name or TLS failed: nothing left the hub. Anything later may have arrived.
fn judge_failure(error: reqwest::Error) -> CloudError {
    let not_sent = error.is_connect() || error.is_builder();
    // The URL may hold a device key, and says nothing that the operator did not configure.
    let error = error.without_url();
    let mut cause = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let _ = write!(cause, ": {inner}");
        source = inner.source();
    }
    if not_sent { CloudError::NotSent { cause } } else { CloudError::Ambiguous { cause } }
}

/// Body first; a body without a usable code leaves the HTTP status, which then stands for the code.
fn judge_answer(status: StatusCode, body: &[u8]) -> Result<Value, CloudError> {
    match Envelope::parse(body) {
        Some(Envelope { code: codes::SUCCESS, data, .. }) => Ok(data),
        Some(Envelope { code: 0, .. }) => Err(CloudError::Ambiguous { cause: "the answer has body code 0".to_owned() }),
        Some(Envelope { code, message, .. }) => Err(CloudError::Code { code, message: tidy(&message) }),
        None if status.is_success() || status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => {
            Err(CloudError::Ambiguous { cause: format!("HTTP {} without a body code", status.as_u16()) })
        }
        None => {
            let code = i64::from(status.as_u16());
            Err(CloudError::Code { code, message: format!("HTTP {}", status.as_u16()) })
        }
    }
}

fn tidy(message: &str) -> String {
    message.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_MESSAGE_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_decides_before_the_status() {
        let judge = |status: u16, body: &str| judge_answer(StatusCode::from_u16(status).unwrap(), body.as_bytes());
        assert_eq!(judge(500, r#"{"code":200,"data":1}"#), Ok(Value::from(1)));
        assert!(matches!(judge(400, r#"{"code":5066,"msg":"m"}"#), Err(CloudError::Code { code: 5066, .. })));
        assert!(matches!(judge(200, r#"{"code":0}"#), Err(CloudError::Ambiguous { .. })));
        for status in [200, 204, 408, 500, 502, 504] {
            assert!(matches!(judge(status, "<html>"), Err(CloudError::Ambiguous { .. })), "{status}");
        }
        for status in [302, 401, 404, 429] {
            assert!(matches!(judge(status, ""), Err(CloudError::Code { code, .. }) if code == i64::from(status)));
        }
    }

    #[test]
    fn a_message_cannot_break_a_log_line() {
        assert_eq!(tidy("a\nb\u{1b}[c"), "a b [c");
        assert_eq!(tidy(&"x".repeat(1000)).len(), MAX_MESSAGE_CHARS);
    }
}
