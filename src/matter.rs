//! The hub as a Matter administrator, on rs-matter: commissioner over PASE, controller over CASE.
//!
//! `stack` owns the one thread on which rs-matter runs; `link` is what the rest of the hub sees (the ports of
//! `commissioning`). `session` opens sessions (`race`, `handshake`, `heard`, `places`); `network` is the way in and out, by
//! `socket` and `btp`, `datagram` reads what passes, `replies` holds back what must not leave, and `implied` writes in what an
//! answer leaves out; `pase` and `operational`
//! carry their commands, `command` checks every status, `codec` reads and writes what they carry, `credentials` mints and signs,
//! `x509` writes certificates for others, `check_in` opens what devices say that wake. Not here: finding addresses
//! (`discovery`: rs-matter's own mDNS is not used), judging attestation, the order of commissioning.

pub(crate) mod btp;
mod challenge;
pub(crate) mod check_in;
mod codec;
mod command;
pub(crate) mod credentials;
mod datagram;
#[cfg(feature = "sim")]
pub(crate) mod fuzz;
mod handshake;
mod heard;
mod implied;
pub(crate) mod link;
mod network;
pub(crate) mod operational;
pub(crate) mod pase;
mod places;
mod race;
mod replies;
mod session;
mod socket;
pub(crate) mod stack;
pub(crate) mod waker;
pub(crate) mod x509;

pub use credentials::{Credentials, mint};
pub use link::Link;
pub use operational::CaseLink;
pub use pase::PaseLink;
pub use stack::{Stack, StackOptions};

// embassy-time's driver links against a timer queue that is not tied to an executor; nothing else names the crate.
use embassy_time_queue_utils as _;
