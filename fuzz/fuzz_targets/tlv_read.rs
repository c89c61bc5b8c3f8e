//! See `matterbind::matter::fuzz`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| matterbind::matter::fuzz::reads(data));
