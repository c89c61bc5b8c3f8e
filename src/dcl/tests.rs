//! The client against a local server that gives the ledger's answers, paging included.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path as Segments, Query, State};
use axum::http::StatusCode as Code;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use der::asn1::BitString;
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use serde_json::{Value, json};
use x509_cert::Version;
use x509_cert::crl::{RevokedCert, TbsCertList};
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::AlgorithmIdentifierOwned;

use super::refresh::{RECORD_FILE, Refresh};
use super::*;
use crate::plain;
use crate::sim::evidence::{Builder, test_key};

/// What the server gives: a page per path and key, certificates by subject, and revocation lists.
#[derive(Default)]
struct Ledger {
    pages: HashMap<(String, String), Value>,
    certificates: HashMap<(String, String), Value>,
    list: Vec<u8>,
    down: bool,
}

type Shared = Arc<Mutex<Ledger>>;

async fn page(
    State(ledger): State<Shared>,
    Segments(list): Segments<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let key = query.get("pagination.key").cloned().unwrap_or_default();
    let ledger = ledger.lock().unwrap();
    let page = ledger.pages.get(&(list, key)).filter(|_| !ledger.down);
    page.map_or_else(|| Code::SERVICE_UNAVAILABLE.into_response(), |page| axum::Json(page.clone()).into_response())
}

async fn certificate(State(ledger): State<Shared>, Segments(key): Segments<(String, String)>) -> Response {
    let ledger = ledger.lock().unwrap();
    let answer = ledger.certificates.get(&key);
    answer.map_or_else(|| Code::NOT_FOUND.into_response(), |answer| axum::Json(answer.clone()).into_response())
}

async fn list(State(ledger): State<Shared>) -> Response {
    let ledger = ledger.lock().unwrap();
    if ledger.list.is_empty() { Code::BAD_GATEWAY.into_response() } else { ledger.list.clone().into_response() }
}

/// Serves a ledger on a loopback port; gives its address and a client of it.
async fn serve(ledger: Ledger) -> (String, Shared, DclClient) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let shared = Arc::new(Mutex::new(ledger));
    let router = Router::new()
        .route("/dcl/pki/{list}", get(page))
        .route("/dcl/pki/certificates/{subject}/{skid}", get(certificate))
        .route("/list.crl", get(list))
        .with_state(shared.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let client = DclClient::new(Client::new(), &base).unwrap();
    (base, shared, client)
}

fn paa(name: &str) -> Vec<u8> {
    let builder = Builder::new(1, 1).own_paa_with(None, |it| {
        *it = crate::sim::evidence::CertificateSpec::paa(None, test_key(name));
    });
    builder.build().paa
}

fn pem(der: &[u8]) -> String {
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", fold(&STANDARD.encode(der)))
}

fn fold(text: &str) -> String {
    text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line)).collect::<Vec<_>>().join("\n")
}

fn reference(subject: &str, skid: &str) -> Value {
    json!({ "subject": subject, "subjectKeyId": skid })
}

fn approved(subject: &str, skid: &str, pem: &str, is_root: bool) -> Value {
    json!({ "approvedCertificates": { "subject": subject, "subjectKeyId": skid, "schemaVersion": 0,
        "certs": [{ "pemCert": pem, "serialNumber": "1", "isRoot": is_root, "vid": 0, "owner": "cosmos1", "schemaVersion": 0 }] } })
}

/// Three roots on two pages: two PAAs and one that is none; and one that is gone when it is asked for.
fn ledger() -> Ledger {
    let page = |certs: Value, next: Value| {
        json!({ "approvedRootCertificates": { "certs": certs, "schemaVersion": 0 },
            "pagination": { "next_key": next, "total": "4" } })
    };
    let roots = "root-certificates".to_owned();
    let first = json!([reference("MC8x/+A==", "AA:01"), reference("MC8yQQ==", "AA:02")]);
    let second = json!([reference("MC8zQQ==", "AA:03"), reference("gone", "AA:04")]);
    let key = |subject: &str, skid: &str| (subject.to_owned(), skid.to_owned());
    let no_paa = Builder::new(1, 1).build().dac;
    Ledger {
        pages: HashMap::from([
            ((roots.clone(), String::new()), page(first, json!("a+/b="))),
            ((roots, "a+/b=".to_owned()), page(second, Value::Null)),
        ]),
        certificates: HashMap::from([
            (key("MC8x/+A==", "AA:01"), approved("MC8x/+A==", "AA:01", &pem(&paa("one")), true)),
            (key("MC8yQQ==", "AA:02"), approved("MC8yQQ==", "AA:02", &pem(&no_paa), true)),
            (key("MC8zQQ==", "AA:03"), approved("MC8zQQ==", "AA:03", &pem(&paa("two")), true)),
        ]),
        ..Ledger::default()
    }
}

#[tokio::test]
async fn every_page_is_fetched_and_each_certificate_judged_alone() {
    let (base, _, client) = serve(ledger()).await;
    let directory = tempfile::tempdir().unwrap();
    let now = "2026-01-01T00:00:00Z".parse().unwrap();
    let fetched = client.update_paas(directory.path(), now).await.unwrap();
    assert_eq!((fetched.paas, fetched.source), (2, format!("{base}/")));
    assert_eq!(fetched.rejected.keys().collect::<Vec<_>>(), ["AA:02"]);
    let loaded = paa::load(&[directory.path().to_owned()], None);
    assert_eq!((loaded.trust.paa_count(), loaded.quarantined.len()), (2, 0));
    assert_eq!(paa::last_fetched(directory.path()).unwrap().fetched_at, now);
}

#[tokio::test]
async fn a_failed_update_leaves_everything_as_it_was() {
    let (_, shared, client) = serve(ledger()).await;
    let directory = tempfile::tempdir().unwrap();
    let first = "2026-01-01T00:00:00Z".parse().unwrap();
    client.update_paas(directory.path(), first).await.unwrap();
    let later = "2026-02-01T00:00:00Z".parse().unwrap();
    shared.lock().unwrap().down = true;
    assert!(matches!(client.update_paas(directory.path(), later).await, Err(DclError::Status { .. })));
    let roots = |key: &str| ("root-certificates".to_owned(), key.to_owned());
    {
        let mut ledger = shared.lock().unwrap();
        ledger.down = false;
        ledger.pages.insert(roots("a+/b="), json!({ "something": "else" }));
    }
    assert!(matches!(client.update_paas(directory.path(), later).await, Err(DclError::Format { .. })));
    let empty = json!({ "approvedRootCertificates": { "certs": [] } });
    shared.lock().unwrap().pages.insert(roots(""), empty);
    let nothing = client.update_paas(directory.path(), later).await;
    assert!(matches!(nothing, Err(DclError::Store(StorePaaError::Empty { .. }))));
    assert_eq!(paa::last_fetched(directory.path()).unwrap().fetched_at, first);
    assert_eq!(paa::load(&[directory.path().to_owned()], None).trust.paa_count(), 2);
}

#[tokio::test]
async fn a_list_that_does_not_end_is_not_followed() {
    let mut ledger = ledger();
    let turning = json!({ "approvedRootCertificates": { "certs": [] }, "pagination": { "next_key": "same" } });
    for key in ["", "same"] {
        ledger.pages.insert(("root-certificates".to_owned(), key.to_owned()), turning.clone());
    }
    let (_, _, client) = serve(ledger).await;
    let directory = tempfile::tempdir().unwrap();
    let result = client.update_paas(directory.path(), Timestamp::UNIX_EPOCH).await;
    assert!(matches!(result, Err(DclError::Endless { .. })));
    assert!(DclClient::new(Client::new(), "file:///etc").is_err());
}

#[tokio::test]
async fn a_refresh_outlives_restarts_and_names_what_is_new() {
    const DAY: Duration = Duration::from_secs(86_400);
    const MINUTE: Duration = Duration::from_secs(60);
    let (base, shared, _) = serve(ledger()).await;
    let no_points = json!({ "PkiRevocationDistributionPoint": [], "pagination": { "next_key": null } });
    shared.lock().unwrap().pages.insert(("revocation-points".to_owned(), String::new()), no_points);
    let state = tempfile::tempdir().unwrap();
    let paas = state.path().join("paa");
    // As after each restart of the daemon.
    let refresh = || Refresh::new(&base, paas.clone(), state.path());
    let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let at = |time: Duration| start + time;

    assert_eq!(refresh().wait(DAY, start), Duration::ZERO);
    let first = refresh().attempt(start).await.unwrap();
    assert_eq!((first.fetched.paas, first.rejected.keys().map(String::as_str).collect()), (2, vec!["AA:02"]));
    assert_eq!(refresh().wait(DAY, at(MINUTE)), DAY - MINUTE);
    let again = refresh().attempt(at(DAY)).await.unwrap();
    assert_eq!((again.fetched.rejected.len(), again.rejected.len()), (1, 0), "it was named already");

    shared.lock().unwrap().down = true;
    let failed = refresh().attempt(at(2 * DAY)).await.unwrap_err();
    assert!(failed.first && matches!(failed.source, DclError::Status { .. }), "{failed:?}");
    assert_eq!(refresh().wait(DAY, at(2 * DAY)), 5 * MINUTE);
    assert!(!refresh().attempt(at(2 * DAY + 5 * MINUTE)).await.unwrap_err().first, "told once for each outage");
    assert_eq!(refresh().wait(DAY, at(2 * DAY + 5 * MINUTE)), 10 * MINUTE);
    assert_eq!(paa::last_fetched(&paas).unwrap().fetched_at, at(DAY), "fetched is recorded on success only");
    shared.lock().unwrap().down = false;
    refresh().attempt(at(3 * DAY)).await.unwrap();
    assert_eq!(refresh().wait(DAY, at(3 * DAY)), DAY);

    assert_eq!(Refresh::new("http://[::1]:1", paas.clone(), state.path()).wait(DAY, at(3 * DAY)), Duration::ZERO);
    std::fs::remove_dir_all(&paas).unwrap();
    assert_eq!(refresh().wait(DAY, at(3 * DAY)), Duration::ZERO, "what was fetched is gone");
    // A disk that does not take the record: back-off goes on in memory.
    std::fs::remove_file(state.path().join(RECORD_FILE)).unwrap();
    std::fs::create_dir(state.path().join(RECORD_FILE)).unwrap();
    let mut running = refresh();
    assert!(matches!(running.attempt(at(4 * DAY)).await.unwrap_err().source, DclError::Store(_)));
    assert_eq!(running.wait(DAY, at(4 * DAY)), 5 * MINUTE);
}

/// A revocation list by the PAA `paa`, which revokes `serial`.
fn crl(paa: &[u8], key: &[u8; 32], serial: &[u8]) -> Vec<u8> {
    let issuer = Certificate::from_der(paa).unwrap();
    let issuer = issuer.tbs_certificate();
    let algorithm = AlgorithmIdentifierOwned { parameters: None, ..issuer.signature().clone() };
    let tbs_cert_list = TbsCertList {
        version: Version::V2,
        signature: algorithm.clone(),
        issuer: issuer.subject().clone(),
        this_update: issuer.validity().not_before,
        next_update: None,
        revoked_certificates: Some(vec![RevokedCert {
            serial_number: SerialNumber::new(serial).unwrap(),
            revocation_date: issuer.validity().not_before,
            crl_entry_extensions: None,
        }]),
        crl_extensions: None,
    };
    let key = SigningKey::from_slice(key).unwrap();
    let signature: Signature = key.sign(&tbs_cert_list.to_der().unwrap());
    let signature = BitString::from_bytes(signature.to_der().as_bytes()).unwrap();
    CertificateList::<x509_cert::certificate::Rfc5280> { tbs_cert_list, signature_algorithm: algorithm, signature }
        .to_der()
        .unwrap()
}

fn points(base: &str, paa: &[u8], skid: &str) -> Value {
    let point = json!({ "vid": 65521, "pid": 0, "isPAA": true, "label": "one", "crlSignerDelegator": "",
        "crlSignerCertificate": pem(paa), "issuerSubjectKeyID": skid, "dataURL": format!("{base}/list.crl"),
        "dataFileSize": "0", "dataDigest": "", "dataDigestType": 0, "revocationType": 1, "schemaVersion": 0 });
    json!({ "PkiRevocationDistributionPoint": [point], "pagination": { "next_key": null } })
}

#[tokio::test]
async fn revocation_lists_become_sets_that_survive_an_outage() {
    let device = Builder::new(0xFFF1, 0x8000).own_paa(None).build();
    let pai = Certificate::from_der(&device.pai).unwrap();
    let serial = pai.tbs_certificate().serial_number().as_bytes().to_vec();
    let mut trust = crate::attestation::TrustStore::new();
    let skid = plain::upper_hex(&trust.add_paa(&device.paa).unwrap());
    let key = test_key("matterbind test PAA");
    let (base, shared, client) = serve(Ledger { list: crl(&device.paa, &key, &serial), ..Ledger::default() }).await;
    let list = ("revocation-points".to_owned(), String::new());
    shared.lock().unwrap().pages.insert(list, points(&base, &device.paa, &skid));
    let directory = tempfile::tempdir().unwrap();
    let revoked = || {
        let loaded = paa::load(&[], Some(directory.path()));
        assert!(loaded.quarantined.is_empty(), "{:?}", loaded.quarantined);
        let mut trust = loaded.trust;
        trust.add_paa(&device.paa).unwrap();
        let material = crate::attestation::Material {
            dac: &device.dac,
            pai: &device.pai,
            certification_declaration: &device.certification_declaration,
            vendor_id: 0xFFF1,
            product_id: 0x8000,
            at: "2026-01-01T00:00:00Z".parse().unwrap(),
        };
        let report = crate::attestation::verify_material(&material, &trust);
        report.findings.iter().any(|finding| finding.code.as_str() == "certificate-revoked")
    };
    let update = client.update_revocations(directory.path()).await.unwrap();
    assert_eq!((update.sets, update.serial_numbers, update.rejected.len()), (1, 1, 0));
    assert!(revoked());
    for bad in [crl(&device.paa, &[1; 32], b"\x01"), b"no list".to_vec(), Vec::new()] {
        shared.lock().unwrap().list = bad;
        let update = client.update_revocations(directory.path()).await.unwrap();
        assert_eq!((update.sets, update.rejected.len()), (0, 1));
        assert!(revoked(), "what was known stays");
    }
}
