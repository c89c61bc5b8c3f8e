//! matterbind commissions Matter devices into the hub's own fabric and keeps device, local record and cloud in agreement.
//!
//! The path of a device: `onboarding` → `discovery` → `commissioning` (over `matter`, judged by `attestation`) →
//! `store` (node record and outbox row in one transaction) → `outbox` → `cloud`. ARCHITECTURE.md draws it.

#![warn(unreachable_pub)]

mod access;
mod admin;
mod app;
mod attestation;
mod backup;
mod bind;
mod bluetooth;
mod cli;
mod clock;
mod cloud;
mod commissioning;
mod config;
mod controller;
mod dcl;
mod discovery;
mod durable;
mod fabric;
#[doc(hidden)]
pub mod facade;
mod failpoint;
mod hub;
mod journal;
mod keystore;
mod matter;
mod node;
mod onboarding;
mod outbox;
mod ownership;
mod paa;
mod plain;
mod reconcile;
mod rhythm;
mod secret;
#[cfg(feature = "sim")]
mod sim;
mod standing;
mod store;
mod systemd;
mod telemetry;
mod tls;

pub use cli::main;
