//! From an onboarding payload to a durable node record, as a path of types (see ARCHITECTURE.md, "The picture").
//!
//! `step` and `error` name what can happen, `attempt` keeps time (pure), `ports` says what is needed from outside,
//! `driver` walks the path; `candidates` decides who is tried
//! (pure), `together` is what attempts know of each other; `network` has the home's networks, `radio` what is needed of Bluetooth. Not here: Matter messages (`matter`), mDNS (`discovery`), SQL (`store`).

pub mod attempt;
pub mod candidates;
pub mod driver;
pub mod error;
pub mod fingerprint;
pub mod identity;
pub mod network;
pub mod path;
pub mod ports;
pub mod radio;
pub mod step;
pub mod together;

#[cfg(test)]
#[cfg(feature = "sim")]
pub(crate) mod tests;
