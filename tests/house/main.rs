//! The whole product as its users meet it: daemons with their devices in labs of network namespaces, and the admin API, the
//! page and the command line on a hub of fakes. One binary, for linking takes longer than compiling; each test has its own lab,
//! processes and directory. What measures its own process or the machine has a binary of its own.

#![cfg(feature = "sim")]
// Helpers of tests are tests, but clippy does not know.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod adoption;
mod api;
mod api_document;
mod attestation_e2e;
mod bad_days;
mod bad_disk;
mod bluetooth;
mod comings_and_goings;
mod controllers;
mod discovery;
mod doctor;
mod drift;
mod everyday;
mod front;
mod hostile_text;
mod icd;
mod intake;
mod keys;
mod liveness;
mod lossy;
mod main_job;
mod page;
mod page_day;
mod page_scan;
mod reach;
mod redaction;
mod rotation;
mod sessions;
mod sharing;
mod siege;
mod trust;

#[path = "../support"]
mod support {
    pub mod chromium;
    pub mod daemon;
    pub mod fake_backend;
    pub mod lab;
    pub mod matterjs;
    pub mod mdns;
    pub mod panel;
    pub mod relay;
    pub mod slow_link;
    pub mod unit;
}
