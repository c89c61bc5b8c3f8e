//! The trust store is kept current in the background: a hub that trusts nobody yet is ready at once, fetches the PAAs from
//! its ledger, names the certificate that is none, and takes a device that it could not have taken before. And who joined is
//! judged again by what became known since.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use base64::Engine;
use matterbind::facade::sim::evidence::{TEST_PAA_NOVID_CERT, generate};
use serde_json::{Value, json};

use crate::support::daemon::{Hub, Options, PATIENCE, VirtualDevice};
use crate::support::lab::{Families, Lab};

/// A ledger that gives no answer before it is let go.
struct Ledger {
    let_go: Mutex<mpsc::Receiver<()>>,
    held: AtomicBool,
    down: AtomicBool,
}

fn pem(der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

async fn list(State(ledger): State<Arc<Ledger>>, Path(list): Path<String>) -> Response {
    if !ledger.held.swap(true, Ordering::SeqCst) {
        let ledger = Arc::clone(&ledger);
        let waiting = move || ledger.let_go.lock().unwrap().recv_timeout(PATIENCE);
        tokio::task::spawn_blocking(waiting).await.unwrap().unwrap();
    }
    if ledger.down.load(Ordering::SeqCst) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    Json(match list.as_str() {
        "root-certificates" => json!({ "approvedRootCertificates": { "certs": [
            { "subject": "paa", "subjectKeyId": "AA:01" }, { "subject": "none", "subjectKeyId": "AA:02" },
        ] } }),
        _ => json!({ "PkiRevocationDistributionPoint": [] }),
    })
    .into_response()
}

async fn certificate(Path((subject, _)): Path<(String, String)>) -> Json<Value> {
    let der = if subject == "paa" { TEST_PAA_NOVID_CERT.to_vec() } else { generate(0xFFF1, 0x8000).dac };
    Json(json!({ "approvedCertificates": { "certs": [{ "pemCert": pem(&der), "isRoot": true }] } }))
}

/// Serves on loopback in the hub's namespace; gives the address.
fn serve(lab: &Lab, ledger: Arc<Ledger>) -> String {
    let listener = lab.in_hub(|| async { std::net::TcpListener::bind("127.0.0.1:0").unwrap() });
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let router = axum::Router::new()
        .route("/dcl/pki/{list}", get(list))
        .route("/dcl/pki/certificates/{subject}/{skid}", get(certificate))
        .with_state(ledger);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, router).await
        })
    });
    format!("http://{address}")
}

#[test]
fn a_hub_fetches_whom_to_trust_and_keeps_it_through_an_outage() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let (let_go, waits) = mpsc::channel();
    let ledger = Arc::new(Ledger { let_go: Mutex::new(waits), held: false.into(), down: false.into() });
    let source = serve(&lab, Arc::clone(&ledger));
    let mut hub = Hub::new(&lab, Options { trusted_paa: false, ..Options::default() });
    let config = std::fs::read_to_string(hub.config()).unwrap();
    let with_source = config.replace("[attestation]\n", &format!("[attestation]\npaa_source = \"{source}\"\n"));
    std::fs::write(hub.config(), with_source).unwrap();
    hub.start_cloud();
    let storage = tempfile::tempdir().unwrap();
    let device = VirtualDevice::start(&lab, storage.path(), &[]);
    // The ledger says nothing yet: the start does not wait for it. Whatever takes long comes before, for the hub gives an answer ten
    // seconds, and asks again minutes later.
    hub.start_daemon();
    hub.commission_fails(&device.qr, &[], "attestation", "attestation-rejected", 3);

    let mut log = hub.follow();
    let_go.send(()).unwrap();
    let left_out = log.wait_for_event("paa-quarantined");
    assert!(left_out["message"].as_str().unwrap().contains("AA:02"), "{left_out:#}");
    let refreshed = log.wait_for_event("paa-refreshed");
    assert!(refreshed["message"].as_str().unwrap().starts_with("1 PAA certificates"), "{refreshed:#}");
    hub.commission_and_bind(&device.qr);

    // Due again, but the ledger is down: named once, and whom we trusted we trust.
    hub.stop_daemon();
    std::fs::remove_file(hub.state_dir().join("trust-refresh.json")).unwrap();
    ledger.down.store(true, Ordering::SeqCst);
    hub.start_daemon();
    let failed = hub.follow().wait_for_event("paa-refresh-failed");
    assert!(failed["message"].as_str().unwrap().contains("503"), "{failed:#}");
    let storage = tempfile::tempdir().unwrap();
    let other = VirtualDevice::start(&lab, storage.path(), &["--discriminator", "1234"]);
    hub.commission_and_bind(&other.qr);
}

#[test]
fn a_device_that_is_revoked_after_it_joined_is_named() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let mut hub = Hub::start(&lab, Options::default());
    let storage = tempfile::tempdir().unwrap();
    let device = VirtualDevice::start(&lab, storage.path(), &[]);
    let node = hub.commission_and_bind(&device.qr);
    assert_eq!(node["attestation"]["verdict"], "accepted");
    let show = || hub.ask(&["node", "show", &node["node_id"].to_string()]);
    let dac = show()["attestation_evidence"]["report"]["dac"].clone();
    let set = |serial: &Value| {
        json!([{ "type": "revocation_set", "issuer_subject_key_id": dac["authority_key_id"],
                 "revoked_serial_numbers": [serial] }])
    };
    let revocations = hub.state_dir().join("revocation");
    std::fs::create_dir_all(&revocations).unwrap();
    // As `attestation update-paa` does it: complete before it has its name.
    let publish = |sets: &Value| {
        std::fs::write(revocations.join("new"), sets.to_string()).unwrap();
        std::fs::rename(revocations.join("new"), revocations.join("dcl.json")).unwrap();
    };

    let mut log = hub.follow();
    publish(&set(&dac["serial_number"]));
    let named = log.wait_for_event("attestation-changed");
    assert_eq!((&named["level"], &named["node_id"]), (&json!("warn"), &node["node_id"]), "{named:#}");
    assert!(named["message"].as_str().unwrap().contains("certificate-revoked"), "{named:#}");
    let now = show();
    assert_eq!(now["attestation"]["verdict"], "rejected");
    assert_eq!(now["attestation_evidence"]["verdict"]["outcome"], "accepted", "what was decided then stays known");
    assert_eq!(hub.ask(&["node", "check", &node["node_id"].to_string()])["reachable"], true);

    // It was another one; the daemon hears of that while it is down.
    hub.stop_daemon();
    publish(&set(&json!("01")));
    hub.start_daemon();
    let mut log = hub.follow();
    let cleared = log.wait_for("its return to grace", |line| {
        line["kind"] == "attestation-changed" && line["level"] == "info" && line["node_id"] == node["node_id"]
    });
    assert!(cleared["message"].as_str().unwrap().contains("is accepted"), "{cleared:#}");
}
