//! From an onboarding payload to a durable node record, as a path of types (see ARCHITECTURE.md, "The picture").
//!
//! `step` and `error` name what can happen, `attempt` keeps time (pure), `ports` says what is needed from outside,
//! `driver` walks the path; `candidates` decides who is tried
//! (pure), `together` is what attempts know of each other; `network` has the home's networks, `radio` what is needed of Bluetooth. Not here: Matter messages (`matter`), mDNS (`discovery`), SQL (`store`).

pub(crate) mod attempt;
pub(crate) mod candidates;
pub(crate) mod driver;
pub(crate) mod error;
pub(crate) mod fingerprint;
pub(crate) mod identity;
pub(crate) mod network;
pub(crate) mod path;
pub(crate) mod ports;
pub(crate) mod radio;
pub(crate) mod step;
pub(crate) mod together;

#[cfg(test)]
#[cfg(feature = "sim")]
pub(crate) mod tests;
