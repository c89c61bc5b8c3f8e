//! See `matterbind::facade::discovery::fuzz`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| matterbind::facade::discovery::fuzz::heard(data));
