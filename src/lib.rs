//! matterbind commissions Matter devices into the hub's own fabric and keeps device, local record and cloud in agreement.
//!
//! The path of a device: `onboarding` → `discovery` → `commissioning` (over `matter`, judged by `attestation`) →
//! `store` (node record and outbox row in one transaction) → `outbox` → `cloud`. ARCHITECTURE.md draws it.

pub mod access;
pub mod admin;
pub mod app;
pub mod attestation;
pub mod backup;
pub mod bind;
pub mod bluetooth;
pub mod cli;
pub mod clock;
pub mod cloud;
pub mod commissioning;
pub mod config;
pub mod controller;
pub mod dcl;
pub mod discovery;
pub mod durable;
pub mod fabric;
pub mod failpoint;
pub mod hub;
pub mod journal;
pub mod keystore;
pub mod matter;
pub mod node;
pub mod onboarding;
pub mod outbox;
pub mod ownership;
pub mod paa;
pub mod plain;
pub mod reconcile;
pub mod rhythm;
pub mod secret;
#[cfg(feature = "sim")]
pub mod sim;
pub mod standing;
pub mod store;
pub mod systemd;
pub mod telemetry;
pub mod tls;
