//! How long the hub takes to judge evidence: `cargo bench --bench attestation`. Prints medians and ratios, asserts nothing.
//!
//! Goals: 1,000 verifications a second on one core; at most 60 ms of the hub's time in a commissioning.

use std::hint::black_box;
use std::time::{Duration, Instant};

use matterbind::attestation::policy::decide;
use matterbind::attestation::{Evidence, Material, TrustStore, csr::verify_csr, verify, verify_material};
use matterbind::config::AttestationConfig;
use matterbind::sim::evidence::{generate, nocsr_elements};

const ROUNDS: usize = 15;
const PER_ROUND: u32 = 50;

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
    report("verify and decide", live);
    report("files (no elements)", files);
    report("NOCSR", csr);
    println!("files take {:.2} of the live verification", files.as_secs_f64() / live.as_secs_f64());
    println!("verify, decide and NOCSR take {:.2} % of 60 ms", (live + csr).as_secs_f64() / 0.060 * 100.0);
}

fn median(mut work: impl FnMut()) -> Duration {
    let mut rounds: Vec<_> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            (0..PER_ROUND).for_each(|_| work());
            start.elapsed() / PER_ROUND
        })
        .collect();
    rounds.sort();
    rounds[ROUNDS / 2]
}

fn report(what: &str, median: Duration) {
    println!("{what}: median {} us, {:.0} a second", median.as_micros(), 1.0 / median.as_secs_f64());
}
