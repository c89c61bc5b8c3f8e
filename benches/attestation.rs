//! How long the hub takes to judge evidence: `cargo bench --bench attestation`. Prints medians and ratios, asserts nothing.
//!
//! What attestation adds to a commissioning is verification, policy, the document that is kept, the CSR's signature, and the
//! writing of that document to a real store: once before the device is given credentials, once with the record. The same
//! writes without evidence are measured in turn with it and subtracted. The device's own time and the radio's are not here.
//!
//! Goals: 1,000 verifications a second on one core; at most 60 ms of the hub's time in a commissioning.

use std::hint::black_box;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use matterbind::facade::attestation::policy::decide;
use matterbind::facade::attestation::{Evidence, Material, TrustStore, csr::verify_csr, verify, verify_material};
use matterbind::facade::commissioning::ports::{NodeStore, ProvisionalNode, Stage};
use matterbind::facade::config::AttestationConfig;
use matterbind::facade::node::{NodeRecord, NodeState, sample};
use matterbind::facade::sim::evidence::{generate, nocsr_elements};
use matterbind::facade::store::Store;
use uuid::Uuid;

const ROUNDS: usize = 15;
const PER_ROUND: u32 = 50;
/// Commissionings written with evidence, and as many without.
const WRITTEN: u64 = 60;
/// The goal for all of it.
const BUDGET: Duration = Duration::from_millis(60);

fn main() {
    let device = generate(0xFFF1, 0x8000);
    let mut trust = TrustStore::new();
    trust.add_paa(&device.paa).expect("the test PAA is a PAA");
    let (nonce, challenge) = ([7; 32], [9; 16]);
    let attestation_elements = device.attestation_elements(&nonce, None);
    let evidence = Evidence {
        dac: device.dac.clone(),
        pai: device.pai.clone(),
        signature: device.sign(&attestation_elements, &challenge),
        attestation_elements,
        attestation_challenge: challenge,
        nonce,
        basic_vendor_id: 0xFFF1,
        basic_product_id: 0x8000,
        at: jiff::Timestamp::now(),
    };
    let material = Material {
        dac: &device.dac,
        pai: &device.pai,
        certification_declaration: &device.certification_declaration,
        vendor_id: 0xFFF1,
        product_id: 0x8000,
        at: evidence.at,
    };
    let nocsr = nocsr_elements(&[1; 200], &nonce);
    let csr_signature = device.sign(&nocsr, &challenge);
    let config = AttestationConfig::default();

    let live = median(|| drop(black_box(decide(&verify(&evidence, &trust), &config, None))));
    let files = median(|| drop(black_box(verify_material(&material, &trust))));
    let csr = median(|| drop(black_box(verify_csr(&device.dac, &nocsr, &challenge, &nonce, &csr_signature))));
    show("verify and decide", live);
    show("files (no elements)", files);
    show("NOCSR", csr);
    println!("files take {:.2} of the live verification", files.as_secs_f64() / live.as_secs_f64());
    let keep = || {
        let report = verify(&evidence, &trust);
        let verdict = decide(&report, &config, None);
        serde_json::json!({ "evidence": evidence, "report": report, "verdict": verdict }).to_string()
    };
    let judged = median(|| drop(black_box(keep())));
    show("verify, decide and the document", judged);
    let document = keep();
    let (with, without) = written(&document);
    let added = with.saturating_sub(without);
    println!(
        "both writes: median {:.2} ms with {} bytes of evidence, {:.2} ms without, ratio {:.2}",
        ms(with),
        document.len(),
        ms(without),
        with.as_secs_f64() / without.as_secs_f64()
    );
    let all = judged + csr + added;
    let (share, goal) = (all.as_secs_f64() / BUDGET.as_secs_f64() * 100.0, BUDGET.as_millis());
    println!(
        "attestation adds {:.2} ms of the hub's time to a commissioning, {share:.1} % of the goal {goal} ms",
        ms(all)
    );
    println!("  judging {:.2} ms, NOCSR {:.2} ms, keeping {:.2} ms", ms(judged), ms(csr), ms(added));
}

/// Medians of the two writes of a commissioning, with `document` and without.
fn written(document: &str) -> (Duration, Duration) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let store = Store::open(directory.path()).expect("an empty directory can be opened");
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for node in 0..WRITTEN {
            with.push(commission(&store, 2 * node + 1, document).await);
            without.push(commission(&store, 2 * node + 2, "{}").await);
        }
        store.close().await;
        (middle(with), middle(without))
    })
}

async fn commission(store: &Store, node: u64, evidence: &str) -> Duration {
    let (attempt_id, record) = (Uuid::now_v7(), record(node));
    let ready = NodeRecord { state: NodeState::Provisional, ..record.clone() };
    let provisional =
        ProvisionalNode { attempt_id, record: ready, task: None, evidence: evidence.to_owned(), stage: Stage::Ready };
    let began = Instant::now();
    store.save_provisional(&provisional).await.expect("the store holds");
    store.commit_commissioned(attempt_id, &record, None, evidence).await.expect("the store holds");
    began.elapsed()
}

fn record(node: u64) -> NodeRecord {
    NodeRecord { commissioned_at: Timestamp::now(), ..sample(node) }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn middle(mut rounds: Vec<Duration>) -> Duration {
    rounds.sort();
    rounds[rounds.len() / 2]
}

fn median(mut work: impl FnMut()) -> Duration {
    let rounds = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            (0..PER_ROUND).for_each(|_| work());
            start.elapsed() / PER_ROUND
        })
        .collect();
    middle(rounds)
}

fn show(what: &str, median: Duration) {
    println!("{what}: median {} us, {:.0} a second", median.as_micros(), 1.0 / median.as_secs_f64());
}
