//! Local equals cloud: what a device holds, what the hub recorded and what the cloud shows, compared and mended.
//!
//! `compare` and `mend` are pure: views in, typed differences, a verdict and actions out. `driver` asks and acts through
//! `ports`. Not here: when to look (`app`), sending to the cloud (`outbox`), talking to devices (`matter`).

pub(crate) mod compare;
pub(crate) mod driver;
pub(crate) mod mend;
pub(crate) mod ports;

#[cfg(test)]
pub(crate) mod tests;
