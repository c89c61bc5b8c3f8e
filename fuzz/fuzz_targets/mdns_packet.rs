//! Packets as they come from the network, into mdns-sd's parser. Its findings are mdns-sd's; no corpus of ours plays them.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mdns_sd::fuzz_api::parse_packet(data));
