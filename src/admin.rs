//! The admin API: HTTP/1.1 and JSON on a Unix socket, optionally on TCP with a token; and the web page.
//!
//! `wire` has every document, `server` listens, `tls` encrypts, `auth` decides who may ask, by token, by `sessions`
//! of people, and not at the word of another's page (`origin`);
//! `routes` and `streams` answer, `page` draws. Not here: how anything is done (`hub`), the command line (`cli`).

pub(crate) mod auth;
mod connections;
mod controllers;
pub(crate) mod events;
mod keys;
pub(crate) mod metrics;
mod networks;
pub(crate) mod openapi;
mod origin;
pub(crate) mod page;
mod penalty;
pub(crate) mod routes;
pub(crate) mod server;
mod sessions;
pub(crate) mod tls;
pub(crate) mod wire;

/// The kebab-case word that a unit variant has in JSON.
pub(crate) fn wire_word<T: serde::Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}
