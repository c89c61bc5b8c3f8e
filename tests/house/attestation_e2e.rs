//! Attestation as a device meets it: the virtual device shows good and bad evidence over PASE, and the daemon accepts or
//! refuses it, says which finding decided, and leaves a refused device as it was.
//!
//! The evidence is made here. Where the SDK's public vectors are at hand (`../shared/vectors`), a sample of them is played
//! the same way; without them the test says so and passes.

use std::path::{Path, PathBuf};

use matterbind::facade::sim::evidence::certificate::CertificateSpec;
use matterbind::facade::sim::evidence::{Builder, Evidence};
use serde_json::Value;

use crate::support::daemon::{Hub, Options, VirtualDevice};
use crate::support::lab::{Families, Lab};

const VENDOR: u16 = 0xFFF1;
const PRODUCT: u16 = 0x8000;

/// Evidence, and the finding that must decide; `None`: the device is accepted.
struct Case {
    name: String,
    evidence: Evidence,
    product: u16,
    decides: Option<&'static str>,
}

fn case(name: &str, builder: Builder, decides: Option<&'static str>) -> Case {
    Case { name: name.to_owned(), evidence: builder.build(), product: PRODUCT, decides }
}

fn cases() -> Vec<Case> {
    let good = || Builder::new(VENDOR, PRODUCT);
    let expired = |it: &mut CertificateSpec| (it.not_before, it.not_after) = (1_650_000_000, 1_660_000_000);
    let mut cases = vec![
        case("good", good(), None),
        case("version 1 DAC", good().dac(|it| it.version = 1), Some("certificate-version")),
        case(
            "DAC that is a CA",
            good().dac(|it| it.basic_constraints = Some((true, true, None))),
            Some("basic-constraints"),
        ),
        case(
            "PAI with a path length",
            good().pai(|it| it.basic_constraints = Some((true, true, Some(1)))),
            Some("basic-constraints"),
        ),
        case("no key usage", good().dac(|it| it.key_usage = None), Some("key-usage")),
        case("another AKID", good().dac(|it| it.akid = Some(vec![1; 20])), Some("key-identifier-mismatch")),
        case("forged DAC", good().dac(|it| it.signed_by = Some([1; 32])), Some("certificate-signature-invalid")),
        case("forged PAI", good().pai(|it| it.signed_by = Some([1; 32])), Some("certificate-signature-invalid")),
        case(
            "another vendor's PAI",
            good().pai(|it| it.subject[1].1 = "FFF2".to_owned()),
            Some("chain-vendor-id-mismatch"),
        ),
        case("expired DAC", good().dac(expired), Some("dac-expired")),
        case("unknown PAA", good().own_paa(None), Some("paa-not-trusted")),
        case(
            "declaration of another vendor",
            good().declaration(|it| it.vendor_id = Some(0xFFF2)),
            Some("declaration-vendor-id-mismatch"),
        ),
        case(
            "declaration of another product",
            good().declaration(|it| it.product_ids = Some(vec![0x8001])),
            Some("declaration-product-id-mismatch"),
        ),
        case(
            "declaration by a stranger",
            good().declaration(|it| it.signer_skid = vec![7; 20]),
            Some("declaration-signer-unknown"),
        ),
        case(
            "forged declaration",
            good().declaration(|it| it.signer_key = [1; 32]),
            Some("declaration-signature-invalid"),
        ),
    ];
    let liar = Case {
        product: PRODUCT + 1,
        ..case("Basic Information says another product", good(), Some("declaration-product-id-mismatch"))
    };
    cases.push(liar);
    cases
}

/// Writes evidence and gives the device's arguments.
fn arguments(directory: &Path, evidence: &Evidence) -> Vec<String> {
    let file = |name: &str, bytes: &[u8]| {
        let path = directory.join(name);
        std::fs::write(&path, bytes).unwrap();
        format!("--{name}={}", path.display())
    };
    vec![
        file("dac", &evidence.dac),
        file("dac-key", &evidence.dac_key),
        file("pai", &evidence.pai),
        file("cd", &evidence.certification_declaration),
    ]
}

/// Plays one case; the failure or the node.
fn play(lab: &Lab, hub: &Hub<'_>, number: u16, case: &Case) -> (i32, Value) {
    let directory = tempfile::tempdir().unwrap();
    let mut arguments = arguments(directory.path(), &case.evidence);
    arguments.push(format!("--discriminator={}", 0x100 + number));
    arguments.push(format!("--vendor-id={VENDOR}"));
    arguments.push(format!("--product-id={}", case.product));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let storage = directory.path().join("storage");
    let device = VirtualDevice::start(lab, &storage, &arguments);
    let outcome = hub.commission(&device.qr, &["--no-bind"]);
    if outcome.0 != 0 {
        // Refused, and rolled back: it still waits for a commissioner, and its one try of the passcode was right.
        let again = hub.commission(&device.qr, &["--no-bind", "--override-attestation", "the test says so"]);
        assert_eq!(again.0, 0, "{}: {:#}\n{}", case.name, again.1, hub.daemon_log());
        assert_eq!(again.1["node"]["attestation"]["verdict"], "accepted-by-override", "{}", case.name);
    }
    outcome
}

fn check(lab: &Lab, hub: &Hub<'_>, number: u16, case: &Case) {
    let (exit, result) = play(lab, hub, number, case);
    match case.decides {
        None => {
            assert_eq!(exit, 0, "{}: {result:#}\n{}", case.name, hub.daemon_log());
            assert_eq!(result["node"]["attestation"]["verdict"], "accepted", "{}", case.name);
        }
        Some(finding) => {
            hub.check_failure(exit, &result, "attestation", "attestation-rejected", 3);
            let findings = result["findings"].as_array().unwrap();
            let found = findings.iter().any(|it| it["code"] == finding && it["severity"] == "error");
            assert!(found, "{}: {finding} is not among {findings:#?}", case.name);
        }
    }
}

#[test]
fn a_device_is_taken_or_refused_for_what_it_shows() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let hub = Hub::start(&lab, Options::default());
    for (number, case) in cases().iter().enumerate() {
        check(&lab, &hub, u16::try_from(number).unwrap(), case);
    }
    // The overrides are in the admin log with who and why.
    let log = hub.cli(["logs", "--json"]).stdout;
    let overrides = log.lines().filter(|line| line.contains("\"attestation-override\"")).count();
    assert_eq!(overrides, cases().iter().filter(|case| case.decides.is_some()).count());
    assert!(log.contains("the test says so"));
}

fn vectors() -> Option<PathBuf> {
    let shared = std::env::var_os("MATTERBIND_SHARED").map(PathBuf::from);
    let shared = shared.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"));
    let directory = shared.join("vectors/attestation");
    if !directory.is_dir() {
        println!("skipped: {} is not there", directory.display());
        return None;
    }
    Some(directory)
}

/// Every seventh vector, which is thirteen and more, of each kind some.
#[test]
fn a_sample_of_the_public_vectors_is_decided_end_to_end() {
    let Some(directory) = vectors() else { return };
    let Some(lab) = Lab::new(Families::Both) else { return };
    let mut files: Vec<_> = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let hub = Hub::start(&lab, Options::default());
    let paa = std::fs::read(directory.join("../paa/Chip-Test-PAA-FFF1-Cert.der")).unwrap();
    std::fs::write(hub.path().join("paa/fff1.der"), paa).unwrap();
    for (number, path) in files.iter().step_by(7).enumerate() {
        let vector: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let bytes = |key: &str| {
            let text = vector[key].as_str().unwrap();
            (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect::<Vec<_>>()
        };
        let evidence = Evidence {
            paa: Vec::new(),
            pai: bytes("pai_cert"),
            dac: bytes("dac_cert"),
            dac_key: bytes("dac_private_key").try_into().unwrap(),
            certification_declaration: bytes("certification_declaration"),
        };
        let product = u16::try_from(vector["basic_info_pid"].as_u64().unwrap_or(0x8000)).unwrap();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let case = Case { name, evidence, product, decides: None };
        let (exit, result) = play(&lab, &hub, u16::try_from(number).unwrap(), &case);
        let accepts = vector["commissioner_accepts"].as_bool().unwrap();
        assert_eq!(exit == 0, accepts, "{}: {result:#}", case.name);
        if !accepts {
            hub.check_failure(exit, &result, "attestation", "attestation-rejected", 3);
        }
        println!("{}: {}", case.name, if accepts { "accepted" } else { "refused" });
    }
}
