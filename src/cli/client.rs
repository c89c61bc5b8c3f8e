//! The admin API's client: one method for each kind of request, over the Unix socket.
//!
//! Here the daemon's JSON enters the command line, and here it loses what could mislead a reader (`plain`): what a command
//! shows need not be cleaned again. `output` guards the way out.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use reqwest::{Method, RequestBuilder, Response, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio_util::io::StreamReader;

use super::exit::CliError;
use crate::admin::events::HEARTBEAT;
use crate::admin::wire::Refusal;
use crate::plain;
use crate::secret::OperatorSecret;

/// A plain answer takes no longer.
pub const PLAIN: Duration = Duration::from_secs(30);
/// What talks to devices or the cloud takes no longer.
pub const SLOW: Duration = Duration::from_secs(180);

/// An answer that comes line by line; fails when it breaks off.
pub(crate) type Lines = BoxStream<'static, Result<String, CliError>>;

/// The active dataset of a border router, from its REST interface (openthread/ot-br-posix).
///
/// # Errors
/// It does not answer, or not with a dataset.
pub(crate) async fn active_dataset(url: &str) -> Result<OperatorSecret, CliError> {
    let failed = |error: reqwest::Error| {
        CliError::Usage(format!("the border router did not tell its dataset: {}", plain::with_causes(&error)))
    };
    let _ = rustls::crypto::ring::default_provider().install_default();
    // It is in the home, where no proxy leads.
    let http = reqwest::Client::builder().no_proxy().timeout(PLAIN).build().map_err(failed)?;
    let asked = http.get(format!("{}/node/dataset/active", url.trim_end_matches('/'))).header("accept", "text/plain");
    let text = asked.send().await.and_then(Response::error_for_status).map_err(failed)?.text().await.map_err(failed)?;
    Ok(OperatorSecret::new(text.trim()))
}

/// A client of one daemon.
#[derive(Debug, Clone)]
pub struct AdminClient {
    http: reqwest::Client,
    socket: PathBuf,
}

impl AdminClient {
    /// For the daemon at `socket`. Connects at the first request.
    ///
    /// # Errors
    /// The HTTP client cannot be set up.
    pub fn new(socket: &Path) -> Result<Self, CliError> {
        // reqwest wants a TLS provider even where no TLS is spoken. Installed already: just as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .unix_socket(socket)
            .no_proxy()
            // Nothing is encrypted on the socket, and the machine may have no trust store.
            .tls_certs_only([])
            .read_timeout(HEARTBEAT * 3 + SLOW)
            .build()
            .map_err(|error| CliError::Other(anyhow::Error::new(error).context("setting up the HTTP client")))?;
        Ok(Self { http, socket: socket.to_owned() })
    }

    /// `GET /v1/…`; a node's name may be a segment of `path`.
    ///
    /// # Errors
    /// The daemon is away, refuses, or answers nonsense.
    pub async fn get<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &impl Serialize,
        limit: Duration,
    ) -> Result<T, CliError> {
        self.json(self.request(Method::GET, path).query(query).timeout(limit)).await
    }

    /// The lines or the text at a path beside `/v1`, for instance `metrics`.
    pub async fn get_text(&self, path: &str) -> Result<String, CliError> {
        let request = self.http.get(format!("http://matterbind/{path}")).timeout(PLAIN);
        let bytes = self.send(request).await?.bytes().await.map_err(|error| self.failed(&error))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// `POST /v1/…` with a JSON body.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &impl Serialize,
        limit: Duration,
    ) -> Result<T, CliError> {
        self.json(self.request(Method::POST, path).json(body).timeout(limit)).await
    }

    /// `POST /v1/…` without a body.
    pub async fn post_query<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &impl Serialize,
        limit: Duration,
    ) -> Result<T, CliError> {
        self.json(self.request(Method::POST, path).query(query).timeout(limit)).await
    }

    /// `POST /v1/…`, an answer of bytes.
    pub async fn post_bytes(&self, path: &[&str], body: &impl Serialize, limit: Duration) -> Result<Vec<u8>, CliError> {
        let response = self.send(self.request(Method::POST, path).json(body).timeout(limit)).await?;
        Ok(response.bytes().await.map_err(|error| self.failed(&error))?.to_vec())
    }

    /// `DELETE /v1/…`
    pub async fn delete<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T, CliError> {
        self.json(self.request(Method::DELETE, path).timeout(PLAIN)).await
    }

    /// `GET /v1/…`, an answer of lines.
    ///
    /// # Errors
    /// As [`Self::get`]; the stream's items fail when it breaks off.
    pub async fn get_lines(&self, path: &[&str], query: &impl Serialize) -> Result<Lines, CliError> {
        let response = self.send(self.request(Method::GET, path).query(query)).await?;
        Ok(lines(response))
    }

    /// `POST /v1/…`, an answer of lines.
    pub async fn post_lines(&self, path: &[&str], body: &impl Serialize) -> Result<Lines, CliError> {
        let response = self.send(self.request(Method::POST, path).json(body)).await?;
        Ok(lines(response))
    }

    /// `POST /v1/…` without a body, an answer of lines.
    pub async fn post_for_lines(&self, path: &[&str], query: &impl Serialize) -> Result<Lines, CliError> {
        let response = self.send(self.request(Method::POST, path).query(query)).await?;
        Ok(lines(response))
    }

    fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        let mut url = Url::parse("http://matterbind/v1").expect("a URL");
        url.path_segments_mut().expect("http has segments").extend(path);
        self.http.request(method, url)
    }

    async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, CliError> {
        let bytes = self.send(request).await?.bytes().await.map_err(|error| self.failed(&error))?;
        let text = String::from_utf8_lossy(&bytes);
        let understood = serde_json::from_str(&plain::shown_json(&text));
        understood.map_err(|error| CliError::Answer(format!("cannot be understood: {error}")))
    }

    /// Sends, and turns an error status into the daemon's error.
    async fn send(&self, request: RequestBuilder) -> Result<Response, CliError> {
        let response = request.send().await.map_err(|error| self.failed(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.bytes().await.unwrap_or_default();
        let error = serde_json::from_str::<Refusal>(&plain::shown_json(&String::from_utf8_lossy(&body)));
        Err(error.map_or_else(|_| CliError::Answer(format!("was HTTP {status}")), CliError::Api))
    }

    fn failed(&self, error: &reqwest::Error) -> CliError {
        let cause = system_error(error);
        if error.is_connect() {
            let denied = cause.is_some_and(|cause| cause.kind() == io::ErrorKind::PermissionDenied);
            let cause = match cause.map(io::Error::kind) {
                Some(io::ErrorKind::NotFound) => "there is no such socket".to_owned(),
                Some(io::ErrorKind::ConnectionRefused) => "nobody listens".to_owned(),
                Some(io::ErrorKind::PermissionDenied) => "permission denied".to_owned(),
                _ => cause.map_or_else(|| plain::cause(error), plain::cause),
            };
            return CliError::Unreachable { socket: self.socket.clone(), cause, denied };
        }
        if error.is_timeout() {
            return CliError::Gone { what: "did not come in time".to_owned(), late: true };
        }
        broke_off(cause.map_or_else(|| plain::cause(error), plain::cause))
    }
}

/// The system's error at the end of the chain.
fn system_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a io::Error> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut found = None;
    while let Some(error) = next {
        found = error.downcast_ref::<io::Error>().or(found);
        next = error.source();
    }
    found
}

fn broke_off(cause: String) -> CliError {
    CliError::Gone { what: format!("broke off: {cause}"), late: false }
}

/// The lines of an answer without its heartbeats.
fn lines(response: Response) -> Lines {
    let bytes = response.bytes_stream().map_err(io::Error::other);
    let reader = BufReader::new(StreamReader::new(bytes)).lines();
    let lines = futures_util::stream::unfold(reader, async |mut reader| match reader.next_line().await {
        Ok(Some(line)) => Some((Ok(plain::shown_json(&line).into_owned()), reader)),
        Ok(None) => None,
        Err(error) => {
            let cause = system_error(&error).map_or_else(|| plain::cause(&error), plain::cause);
            Some((Err(broke_off(cause)), reader))
        }
    });
    lines.filter(|line| std::future::ready(!matches!(line, Ok(text) if text.trim().is_empty()))).boxed()
}

/// Where the daemon listens when nothing is said: the system's socket, else the user's.
pub(crate) fn default_socket() -> PathBuf {
    let system = PathBuf::from("/run/matterbind/admin.sock");
    let own = std::env::var_os("XDG_RUNTIME_DIR").map(|directory| Path::new(&directory).join("matterbind/admin.sock"));
    match own {
        Some(own) if !system.exists() && own.exists() => own,
        _ => system,
    }
}
