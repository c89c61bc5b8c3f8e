//! Hostile attestation evidence: whatever a device sends is judged without a panic, and only the genuine is accepted.
//!
//! The input replaces one part of good evidence, so that the fuzzer reaches every parser behind the others.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use matterbind::attestation::csr::verify_csr;
use matterbind::attestation::{Evidence, Material, TrustStore, verify, verify_material};
use matterbind::sim::evidence::{Evidence as Device, generate};

const NONCE: [u8; 32] = [7; 32];
const CHALLENGE: [u8; 16] = [9; 16];

static DEVICE: LazyLock<Device> = LazyLock::new(|| generate(0xFFF1, 0x8000));
static TRUST: LazyLock<TrustStore> = LazyLock::new(|| {
    let mut trust = TrustStore::new();
    trust.add_paa(&DEVICE.paa).expect("the test PAA is a PAA");
    trust
});

fuzz_target!(|data: &[u8]| {
    let Some((part, bytes)) = data.split_first() else { return };
    let at = jiff::Timestamp::UNIX_EPOCH;
    let material = Material {
        dac: if part % 7 == 0 { bytes } else { &DEVICE.dac },
        pai: if part % 7 == 1 { bytes } else { &DEVICE.pai },
        certification_declaration: if part % 7 == 2 { bytes } else { &DEVICE.certification_declaration },
        vendor_id: 0xFFF1,
        product_id: 0x8000,
        at,
    };
    match part % 7 {
        0..=2 => drop(verify_material(&material, &TRUST)),
        3 => {
            let evidence = Evidence {
                dac: DEVICE.dac.clone(),
                pai: DEVICE.pai.clone(),
                attestation_elements: bytes.to_vec(),
                signature: vec![1; 64],
                attestation_challenge: CHALLENGE,
                nonce: NONCE,
                basic_vendor_id: 0xFFF1,
                basic_product_id: 0x8000,
                at,
            };
            drop(verify(&evidence, &TRUST));
        }
        4 => {
            let signature = DEVICE.sign(bytes, &CHALLENGE);
            drop(verify_csr(&DEVICE.dac, bytes, &CHALLENGE, &NONCE, &signature));
        }
        5 => drop(TrustStore::new().add_revocations(bytes)),
        _ => drop(TrustStore::new().add_paa(bytes)),
    }
});
