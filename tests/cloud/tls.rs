//! A cloud with a certificate that was valid in January 2020 only (tests/cloud/tls, from a test CA that nobody else trusts): what
//! counts is the time that the hub believes, not what its clock says. The CA comes by SSL_CERT_FILE, so each case runs in a
//! process of its own.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;

use jiff::Timestamp;
use matterbind::facade::bind::CloudDevice;
use matterbind::facade::cloud::{Client, MemoryTokens, Meter};
use matterbind::facade::outbox::ports::{BindApi, CloudError};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::rig::{DOMAIN_SECRET, PASSWORD, config};

const CASE: &str = "MATTERBIND_TEST_BELIEVED_TIME";
const FILES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cloud/tls");

struct Unmetered;

impl Meter for Unmetered {
    fn count(&self, _call: &'static str, _code: &str, _took: std::time::Duration) {}
}

/// Answers every request with 503, as a gateway whose service is away.
fn serve(listener: TcpListener) {
    let certificate = CertificateDer::from_pem_file(format!("{FILES}/server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(format!("{FILES}/server.key")).unwrap();
    let config =
        rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    let config = Arc::new(config);
    for stream in listener.incoming().map_while(Result::ok) {
        let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut tls = rustls::StreamOwned::new(connection, stream);
        // A client that does not trust us leaves.
        if tls.read(&mut [0; 4096]).is_ok() {
            let _ =
                tls.write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    }
}

fn run(believed: &str) -> String {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "tls::asks_at_the_time_of_the_case", "--ignored", "--nocapture"]);
    let output = child.env(CASE, believed).env("SSL_CERT_FILE", format!("{FILES}/ca.pem")).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// Not a test of its own.
#[tokio::test]
#[ignore = "is run by the test below, with its environment"]
async fn asks_at_the_time_of_the_case() {
    let believed: Timestamp = std::env::var(CASE).unwrap().parse().unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || serve(listener));
    let secrets = tempfile::tempdir().unwrap();
    std::fs::write(secrets.path().join("password"), PASSWORD).unwrap();
    std::fs::write(secrets.path().join("domain-secret"), DOMAIN_SECRET).unwrap();
    let config = config(format!("https://localhost:{port}"), secrets.path());
    let now = Arc::new(move || believed);
    let client = Client::metered(&config, MemoryTokens::default(), Arc::new(Unmetered), now).unwrap();
    let device = CloudDevice { product_key: "p".to_owned(), device_key: "dev1".to_owned() };
    match client.find(&device).await {
        Err(CloudError::Foreign { answer, .. }) => println!("answered with {}", answer.status),
        Err(CloudError::Untrusted { cause, .. }) => println!("untrusted: {cause}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_certificate_is_judged_by_the_time_that_the_hub_believes() {
    let inside = run("2020-01-15T00:00:00Z");
    assert!(inside.contains("answered with 503"), "{inside}");
    let early = run("1970-01-01T00:01:00Z");
    assert!(early.contains("untrusted") && early.contains("is valid from 2020-01-01"), "{early}");
    let late = run("2020-03-01T00:00:00Z");
    assert!(late.contains("untrusted") && late.contains("was valid until 2020-02-01"), "{late}");
}
