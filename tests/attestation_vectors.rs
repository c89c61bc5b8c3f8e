//! Plays the public attestation vectors of the Matter SDK (`../shared/vectors`) through the pure verification.
//!
//! The vectors are no part of this repository: where they are absent the tests say so and pass. `MATTERBIND_SHARED` names
//! the directory where it is another.

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test may stop where its data is not as promised")]

use std::path::{Path, PathBuf};

use base64::Engine;
use jiff::Timestamp;
use matterbind::facade::attestation::policy::{Outcome, decide};
use matterbind::facade::attestation::{Evidence, Material, Report, TrustStore, verify, verify_material};
use matterbind::facade::config::{AllowTest, AttestationConfig};
use matterbind::facade::sim::evidence::{attestation_elements, sign};
use serde_json::Value;

fn vectors() -> Option<PathBuf> {
    let shared = std::env::var_os("MATTERBIND_SHARED").map(PathBuf::from);
    let shared = shared.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"));
    let directory = shared.join("vectors");
    if !directory.is_dir() {
        println!("skipped: {} is not there", directory.display());
        return None;
    }
    Some(directory)
}

fn trust(vectors: &Path) -> TrustStore {
    let mut trust = TrustStore::new();
    for entry in std::fs::read_dir(vectors.join("paa")).unwrap() {
        trust.add_paa(&std::fs::read(entry.unwrap().path()).unwrap()).unwrap();
    }
    trust
}

struct Vector {
    name: String,
    json: Value,
}

impl Vector {
    fn bytes(&self, key: &str) -> Vec<u8> {
        let text = self.json[key].as_str().unwrap();
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    fn id(&self, key: &str) -> u16 {
        self.json[key].as_u64().map_or(0xFFF1, |id| u16::try_from(id).unwrap())
    }

    /// The evidence that a device with the vector's key gives.
    fn evidence(&self) -> Evidence {
        let (nonce, challenge) = ([7; 32], [9; 16]);
        let elements = attestation_elements(&self.bytes("certification_declaration"), &nonce, None);
        let key = self.bytes("dac_private_key").try_into().unwrap();
        Evidence {
            dac: self.bytes("dac_cert"),
            pai: self.bytes("pai_cert"),
            signature: sign(&key, &elements, &challenge),
            attestation_elements: elements,
            attestation_challenge: challenge,
            nonce,
            basic_vendor_id: self.id("basic_info_vid"),
            basic_product_id: self.id("basic_info_pid"),
            at: Timestamp::now(),
        }
    }
}

fn read(directory: &Path) -> Vec<Vector> {
    let mut vectors: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| Vector {
            name: path.file_stem().unwrap().to_string_lossy().into_owned(),
            json: serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap(),
        })
        .collect();
    vectors.sort_by(|one, other| one.name.cmp(&other.name));
    vectors
}

/// The vectors are test material; a hub that allows it must then decide by chain and declaration alone.
fn config() -> AttestationConfig {
    AttestationConfig { allow_test: vec![AllowTest { vendor_id: 0xFFF1, product_id: None }], ..Default::default() }
}

fn codes(report: &Report) -> Vec<&'static str> {
    report.findings.iter().map(|finding| finding.code.as_str()).collect()
}

#[test]
fn every_vector_is_decided_as_a_commissioner_must() {
    let Some(directory) = vectors() else { return };
    let trust = trust(&directory);
    let vectors = read(&directory.join("attestation"));
    let mut wrong = Vec::new();
    for vector in &vectors {
        let expected = vector.json["commissioner_accepts"].as_bool().unwrap();
        let evidence = vector.evidence();
        let declaration = vector.bytes("certification_declaration");
        let material = Material {
            dac: &evidence.dac,
            pai: &evidence.pai,
            certification_declaration: &declaration,
            vendor_id: evidence.basic_vendor_id,
            product_id: evidence.basic_product_id,
            at: evidence.at,
        };
        for (kind, report) in [("live", verify(&evidence, &trust)), ("files", verify_material(&material, &trust))] {
            println!("{} {kind}: {:?}", vector.name, codes(&report));
            if decide(&report, &config(), None).is_accepted() != expected {
                wrong.push(format!("{} ({kind}): expected {expected}, found {:?}", vector.name, codes(&report)));
            }
            let strict = decide(&report, &AttestationConfig::default(), None);
            assert_eq!(strict.outcome, Outcome::Rejected, "{}: test material needs allow_test", vector.name);
        }
    }
    assert!(wrong.is_empty(), "{} of {} are wrong:\n{}", wrong.len(), vectors.len(), wrong.join("\n"));
}

#[test]
fn revoked_chains_are_refused_because_of_the_set_alone() {
    let Some(directory) = vectors() else { return };
    let plain = trust(&directory);
    let mut informed = plain.clone();
    let set = std::fs::read(directory.join("revoked/revocation-set.json")).unwrap();
    assert!(informed.add_revocations(&set).unwrap() > 0);
    for vector in read(&directory.join("revoked")) {
        if !vector.json.is_object() {
            continue;
        }
        let mut evidence = vector.evidence();
        evidence.at = "2026-01-01T00:00:00Z".parse().unwrap();
        assert!(decide(&verify(&evidence, &plain), &config(), None).is_accepted(), "{}", vector.name);
        let report = verify(&evidence, &informed);
        assert!(codes(&report).contains(&"certificate-revoked"), "{}: {:?}", vector.name, codes(&report));
        assert_eq!(decide(&report, &config(), None).outcome, Outcome::Rejected, "{}", vector.name);
    }
}

#[test]
fn evidence_survives_its_json() {
    let Some(directory) = vectors() else { return };
    let evidence = read(&directory.join("attestation")).remove(1).evidence();
    let text = serde_json::to_string(&evidence).unwrap();
    assert!(text.contains(&base64::engine::general_purpose::STANDARD.encode(evidence.nonce)));
    assert_eq!(serde_json::from_str::<Evidence>(&text).unwrap(), evidence);
}
