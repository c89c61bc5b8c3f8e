//! The binding service over HTTP: the one implementation of `outbox::ports::BindApi` (cloud-contract 1 to 6).
//!
//! `client` has the calls, `session` the tokens that they need, `login` the sign-in's cryptography, `transport` one
//! request and how its end is judged, `look` the way there for who asks why, `budget` what a service that asks for patience still gets, `wire` the service's JSON.
//!
//! Not here: when to try again and what a code means for a bind (`outbox`, `bind::codes`), where tokens are kept
//! (whoever implements [`TokenStore`]).

pub(crate) mod budget;
mod client;
mod health;
pub(crate) mod login;
mod look;
mod session;
mod tokens;
mod transport;
pub(crate) mod wire;

pub use client::Client;
pub(crate) use health::CloudHealth;
pub(crate) use look::{Answered, Look, look};
pub use session::RENEW_AHEAD;
pub use tokens::MemoryTokens;
pub(crate) use tokens::{StoredTokens, TokenStore};
pub use transport::Meter;
