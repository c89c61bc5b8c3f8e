//! See `targets::controller_csr`.

#![no_main]

#[path = "../targets.rs"]
#[allow(dead_code, reason = "each fuzzer runs one of them")]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::controller_csr(data));
