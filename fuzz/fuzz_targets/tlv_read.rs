//! See `matterbind::facade::matter::fuzz`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| matterbind::facade::matter::fuzz::reads(data));
