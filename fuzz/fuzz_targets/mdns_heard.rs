//! See `matterbind::discovery::fuzz`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| matterbind::discovery::fuzz::heard(data));
