//! The cloud client against the reference cloud over real HTTP on loopback.
//!
//! ```text
//! test ── matterbind::facade::cloud::Client ──HTTP──▶ matterbind::facade::sim::cloud::SimCloud ◀── back door ── test
//! ```
#![cfg(feature = "sim")]
// A test program: its helpers may stop it too, not just its tests.
#![allow(clippy::unwrap_used)]

mod bind;
mod devices;
mod foreign;
#[path = "../outbox_storm/household.rs"]
#[allow(dead_code, reason = "the storms' tests use all of it")]
mod household;
mod openapi;
mod outcomes;
mod redaction;
mod rig;
mod sign_in;
mod tls;
