//! Setup codes as anybody may type or print them: QR payloads and manual codes, right or not, never a panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use matterbind::onboarding::SetupCode;

fuzz_target!(|data: &str| {
    drop(SetupCode::new(data).parse());
});
