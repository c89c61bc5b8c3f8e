//! A client of the Distributed Compliance Ledger's REST interface: which PAAs there are, and which certificates are revoked.
//!
//! It runs in the background or on request, never in the way of start-up. What it fetches is judged like any other file
//! (`paa`), and a fetch is recorded only when all of it succeeded. `schedule` says when to ask again, `refresh` asks and
//! remembers how it ended. Not here: what a PAA must look like (`attestation`).

pub(crate) mod refresh;
pub(crate) mod schedule;
mod wire;

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use der::{Decode, Encode};
use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use reqwest::{Client, StatusCode, Url};
use serde::de::DeserializeOwned;
use x509_cert::Certificate;
use x509_cert::crl::CertificateList;

use crate::attestation::revocation::REVOCATION_SIZE_MAX;
use crate::attestation::signature::PublicKey;
use crate::paa::{self, Fetched, StorePaaError, certificates};
use crate::tls;
use wire::{CertificateReference, RevocationPoint};

/// The Alliance's production ledger.
pub(crate) const PRODUCTION_URL: &str = "https://on.dcl.csa-iot.org";
/// The file, in the directory of revocation sets, that a fetch replaces.
pub(crate) const REVOCATION_FILE: &str = "dcl.json";

/// The deadline of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The deadline of a whole update.
const UPDATE_TIMEOUT: Duration = Duration::from_secs(300);
/// The longest answer that is read, in bytes.
const ANSWER_SIZE_MAX: usize = 8 << 20;
/// The most pages of one list: a ledger that never ends its list is not followed for ever.
const PAGES_MAX: usize = 1000;
/// Requests at a time.
const CONCURRENCY: usize = 4;

/// Why an update failed. Nothing that was there before is lost.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DclError {
    /// The address is no http(s) URL.
    #[error("{url} is not an http(s) URL")]
    Url { url: String },
    /// There can be no client, for instance because this machine has no trusted certificates for TLS.
    #[error("no HTTP client can be made")]
    Client(#[source] reqwest::Error),
    /// This machine has no certificates to trust anybody by.
    #[error("this machine's trusted certificates cannot be used: install the package ca-certificates")]
    Untrusting(#[source] rustls::Error),
    /// Nothing answered, or the connection broke.
    #[error("{url} did not answer")]
    Request {
        url: Url,
        #[source]
        source: reqwest::Error,
    },
    /// The ledger answered with an error.
    #[error("{url} answered {status}")]
    Status { url: Url, status: StatusCode },
    /// An answer is too long.
    #[error("the answer of {url} is longer than {ANSWER_SIZE_MAX} bytes")]
    TooLarge { url: Url },
    /// An answer is not what the ledger's interface promises.
    #[error("the answer of {url} is not the ledger's")]
    Format {
        url: Url,
        #[source]
        source: serde_json::Error,
    },
    /// A list does not end.
    #[error("the list at {url} does not end")]
    Endless { url: Url },
    /// The whole update took too long.
    #[error("the update did not end within {} s", UPDATE_TIMEOUT.as_secs())]
    Deadline,
    /// What was fetched could not be stored.
    #[error(transparent)]
    Store(#[from] StorePaaError),
    /// The thread that writes files is gone.
    #[error("the update was stopped")]
    Stopped,
}

/// What a fetch of revocations got.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RevocationUpdate {
    /// How many revocation sets were written.
    pub sets: usize,
    /// Serial numbers in them.
    pub serial_numbers: usize,
    /// Distribution points that could not be used, by label, and why: their issuers' certificates are not checked anew.
    pub rejected: BTreeMap<String, String>,
}

#[derive(Debug, Clone)]
pub(crate) struct DclClient {
    http: Client,
    base: Url,
}

impl DclClient {
    /// Uses `http`, whose TLS settings are the caller's, for the ledger at `base`.
    pub(crate) fn new(http: Client, base: &str) -> Result<Self, DclError> {
        let parsed = Url::parse(base).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        Ok(Self { http, base: parsed.ok_or_else(|| DclError::Url { url: base.to_owned() })? })
    }

    /// A client of its own for the ledger at `base`: made when it is needed, since it is needed once a day.
    /// Its certificate is judged by `now`, for the machine's clock may not be set.
    pub(crate) fn connect(base: &str, now: Timestamp) -> Result<Self, DclError> {
        // Installed already: just as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = Client::builder().connect_timeout(REQUEST_TIMEOUT);
        let builder = if base.starts_with("http:") {
            // Without TLS there is no need to read the machine's trust store, which may not even exist.
            builder.tls_certs_only([])
        } else {
            let now: tls::Now = Arc::new(move || now);
            builder.tls_backend_preconfigured(tls::config(&now).map_err(DclError::Untrusting)?)
        };
        Self::new(builder.build().map_err(DclError::Client)?, base)
    }

    /// Fetches every approved PAA into `directory`, each judged alone; the success is recorded last.
    pub(crate) async fn update_paas(&self, directory: &Path, now: Timestamp) -> Result<Fetched, DclError> {
        let found = tokio::time::timeout(UPDATE_TIMEOUT, self.root_certificates()).await;
        let found = found.map_err(|_| DclError::Deadline)??;
        let (directory, source) = (directory.to_owned(), self.base.to_string());
        let stored = tokio::task::spawn_blocking(move || paa::store(&directory, &source, found, now)).await;
        Ok(stored.map_err(|_| DclError::Stopped)??)
    }

    /// Fetches every revocation list into `directory`, as revocation sets in one file. Where a list cannot be had, the sets
    /// of its issuer that were known before stay: an outage must not make a revoked certificate good again.
    pub(crate) async fn update_revocations(&self, directory: &Path) -> Result<RevocationUpdate, DclError> {
        let fetched = tokio::time::timeout(UPDATE_TIMEOUT, self.revocation_sets()).await;
        let (update, sets, missed) = fetched.map_err(|_| DclError::Deadline)??;
        let directory = directory.to_owned();
        let written = tokio::task::spawn_blocking(move || write_revocations(&directory, sets, &missed));
        written.await.map_err(|_| DclError::Stopped)??;
        Ok(update)
    }

    /// Every approved root certificate as `(name, DER)`; one that does not decode is an empty one, to be named later.
    async fn root_certificates(&self) -> Result<Vec<(String, Vec<u8>)>, DclError> {
        let references = self.root_references().await?;
        let fetched: Vec<Vec<(String, Vec<u8>)>> = stream::iter(references)
            .map(|reference| async move { self.certificate(&reference).await })
            .buffer_unordered(CONCURRENCY)
            .try_collect()
            .await?;
        Ok(fetched.into_iter().flatten().collect())
    }

    /// `/dcl/pki/root-certificates`, all pages.
    async fn root_references(&self) -> Result<Vec<CertificateReference>, DclError> {
        let pages: Vec<wire::RootCertificates> = self.pages(&["dcl", "pki", "root-certificates"]).await?;
        Ok(pages.into_iter().flat_map(|page| page.approved_root_certificates.certs).collect())
    }

    /// `/dcl/pki/certificates/{subject}/{subjectKeyId}`; one that was taken away meanwhile is none.
    async fn certificate(&self, reference: &CertificateReference) -> Result<Vec<(String, Vec<u8>)>, DclError> {
        let url = self.url(&["dcl", "pki", "certificates", &reference.subject, &reference.subject_key_id]);
        let answer: wire::Certificates = match self.json(url).await {
            Err(DclError::Status { status: StatusCode::NOT_FOUND, .. }) => return Ok(Vec::new()),
            answer => answer?,
        };
        let roots = answer.approved_certificates.certs.into_iter().filter(|certificate| certificate.is_root);
        let ders = roots.map(|certificate| {
            let der = certificates(certificate.pem_cert.as_bytes()).ok().and_then(|all| all.into_iter().next());
            (reference.subject_key_id.clone(), der.unwrap_or_default())
        });
        Ok(ders.collect())
    }

    /// What was got, the sets, and the issuers whose lists could not be had.
    async fn revocation_sets(&self) -> Result<(RevocationUpdate, Vec<wire::RevocationSet>, HashSet<String>), DclError> {
        let pages: Vec<wire::RevocationPoints> = self.pages(&["dcl", "pki", "revocation-points"]).await?;
        let points = pages.into_iter().flat_map(|page| page.points);
        let results: Vec<_> = stream::iter(points)
            .map(|point| async move {
                let set = self.revocation_set(&point).await;
                (point, set)
            })
            .buffered(CONCURRENCY)
            .collect()
            .await;
        let (mut update, mut sets, mut missed) = (RevocationUpdate::default(), Vec::new(), HashSet::new());
        for (point, set) in results {
            match set {
                Ok(set) => {
                    update.sets += 1;
                    update.serial_numbers += set.revoked_serial_numbers.len();
                    sets.push(set);
                }
                Err(reason) => {
                    let label = format!("{:04X} {} {}", point.vid, point.issuer_subject_key_id, point.label);
                    update.rejected.insert(label, reason);
                    missed.insert(point.issuer_subject_key_id);
                }
            }
        }
        Ok((update, sets, missed))
    }

    /// The revocation list of a distribution point, checked against the ledger's word about its signer (Matter Core 6.2.4).
    async fn revocation_set(&self, point: &RevocationPoint) -> Result<wire::RevocationSet, String> {
        const CRL: u32 = 1;
        if point.revocation_type != CRL {
            return Err(format!("revocation type {} is not known", point.revocation_type));
        }
        let url = Url::parse(&point.data_url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let url = url.ok_or_else(|| format!("{:?} is not an http(s) URL", point.data_url))?;
        let bytes = self.bytes(url).await.map_err(|error| error.to_string())?;
        read_crl(&bytes, point)
    }

    /// Follows `pagination.next_key` to the last page.
    async fn pages<T: DeserializeOwned>(&self, path: &[&str]) -> Result<Vec<T>, DclError> {
        let first = self.url(path);
        let (mut url, mut pages, mut seen) = (first.clone(), Vec::new(), HashSet::new());
        loop {
            let page: wire::Page<T> = self.json(url).await?;
            pages.push(page.content);
            let Some(key) = page.pagination.and_then(|it| it.next_key).filter(|key| !key.is_empty()) else {
                return Ok(pages);
            };
            if pages.len() == PAGES_MAX || !seen.insert(key.clone()) {
                return Err(DclError::Endless { url: first });
            }
            url = first.clone();
            url.query_pairs_mut().append_pair("pagination.key", &key);
        }
    }

    async fn json<T: DeserializeOwned>(&self, url: Url) -> Result<T, DclError> {
        let bytes = self.bytes(url.clone()).await?;
        serde_json::from_slice(&bytes).map_err(|source| DclError::Format { url, source })
    }

    async fn bytes(&self, url: Url) -> Result<Vec<u8>, DclError> {
        let failed = |source: reqwest::Error| DclError::Request { url: url.clone(), source };
        let response = self.http.get(url.clone()).timeout(REQUEST_TIMEOUT).send().await.map_err(failed)?;
        if !response.status().is_success() {
            return Err(DclError::Status { status: response.status(), url });
        }
        let mut body = response.bytes_stream();
        let mut bytes = Vec::new();
        while let Some(chunk) = body.next().await {
            bytes.extend_from_slice(&chunk.map_err(failed)?);
            if bytes.len() > ANSWER_SIZE_MAX.min(REVOCATION_SIZE_MAX) {
                return Err(DclError::TooLarge { url });
            }
        }
        Ok(bytes)
    }

    /// The ledger's address with these path segments, each escaped: a subject is base64 and may have slashes.
    fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }
}

/// Replaces the file of revocation sets, keeping what it says of `missed` issuers.
fn write_revocations(
    directory: &Path,
    mut sets: Vec<wire::RevocationSet>,
    missed: &HashSet<String>,
) -> Result<(), StorePaaError> {
    let path = directory.join(REVOCATION_FILE);
    let before = std::fs::read(&path).ok();
    let before: Vec<wire::RevocationSet> =
        before.and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default();
    sets.extend(before.into_iter().filter(|set| missed.contains(&set.issuer_subject_key_id)));
    let json = serde_json::to_vec_pretty(&sets).expect("sets of strings are JSON");
    std::fs::create_dir_all(directory)
        .and_then(|()| paa::write_atomically(&path, &json))
        .map_err(|source| StorePaaError::Write { path, source })
}

/// Reads a revocation list, DER or PEM, that the point's signer must have signed.
fn read_crl(bytes: &[u8], point: &RevocationPoint) -> Result<wire::RevocationSet, String> {
    let wrong = |what: &'static str| move |error: der::Error| format!("{what}: {error}");
    let der = der::pem::decode_vec(bytes).map_or_else(|_| bytes.to_vec(), |(_, der)| der);
    let list: CertificateList = CertificateList::from_der(&der).map_err(wrong("it is no revocation list"))?;
    let signer = certificates(point.crl_signer_certificate.as_bytes()).map_err(|error| error.to_string())?;
    let signer = Certificate::from_der(signer.first().map_or(&[], Vec::as_slice)).map_err(wrong("no signer"))?;
    let signer = signer.tbs_certificate();
    let key = signer.subject_public_key_info().subject_public_key.raw_bytes();
    let signed = list.tbs_cert_list.to_der().map_err(wrong("it is no revocation list"))?;
    let verified = PublicKey::from_sec1(key).is_some_and(|key| key.verifies_der(&signed, list.signature.raw_bytes()));
    if !verified || list.tbs_cert_list.issuer != *signer.subject() {
        return Err("it is not signed by the signer that the ledger names".to_owned());
    }
    // A delegated signer speaks for another issuer, whose name is in the entries: match by key identifier alone then.
    let issuer_name = point.crl_signer_delegator.is_empty().then(|| signer.subject().to_der()).transpose();
    let serials = list.tbs_cert_list.revoked_certificates.unwrap_or_default();
    Ok(wire::RevocationSet::new(
        point.issuer_subject_key_id.clone(),
        issuer_name.map_err(wrong("no issuer"))?,
        serials.iter().map(|revoked| revoked.serial_number.as_bytes()),
    ))
}

#[cfg(test)]
#[cfg(feature = "sim")]
mod tests;
