//! An answer that is not the cloud's: of a captive portal, a proxy, a block page, or a gateway whose service is away. It is no
//! verdict about anything that was asked. Pure.
//!
//! Not here: which answers are the cloud's own (`cloud::transport`), when to ask again (`schedule`).

use std::fmt;
use std::time::Duration;

/// What answered, as far as it showed itself. No part of a body is kept: a page may hold anything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ForeignAnswer {
    /// Of HTTP.
    pub status: u16,
    /// The `Server` header.
    pub server: Option<String>,
    /// Where a redirect leads, without its query.
    pub location: Option<String>,
    /// The `Content-Type` header.
    pub content_type: Option<String>,
    /// How long it asks to be left alone.
    pub retry_after: Option<Duration>,
}

impl ForeignAnswer {
    /// Whether the service behind it may have done what was asked. What never passes a request on is certain not to.
    pub fn may_hide_success(&self) -> bool {
        !matches!(self.status, 300..=399 | 401 | 407 | 429 | 511)
    }

    /// What a person can do about it.
    pub fn hint(&self) -> String {
        let goes_on = "it goes on by itself then";
        match self.status {
            300..=399 => {
                let target = self.location.as_deref().unwrap_or("another address");
                format!(
                    "the network sends the hub to {target}, as a network that asks for a sign-in does: sign in there or take the \
                     hub out of it; if the service has moved, correct cloud.base_url; {goes_on}"
                )
            }
            401 => {
                format!("something before the cloud asks for credentials: check cloud.base_url and proxies; {goes_on}")
            }
            403 | 451 => format!("a firewall, proxy or web filter blocks the cloud's host: allow it there; {goes_on}"),
            404 | 405 | 410 => {
                format!(
                    "there is no such service at that address: check cloud.base_url (it is without a path); {goes_on}"
                )
            }
            407 => format!("a proxy asks for a sign-in: let the hub past it, or give it user and password; {goes_on}"),
            408 | 429 => "the cloud asks for patience: nothing needs to be done, it goes on by itself".to_owned(),
            511 => format!("the network asks for a sign-in: sign in from it, or take the hub out of it; {goes_on}"),
            500..=599 => {
                "the cloud's gateway answers and its service does not: nothing needs to be done, it goes on by itself"
                    .to_owned()
            }
            200..=299 => format!(
                "a page came instead of the service's answer, as from a network that asks for a sign-in or from another server: \
                 sign in, or check cloud.base_url; {goes_on}"
            ),
            _ => format!("ask whoever runs the network between hub and cloud; {goes_on}"),
        }
    }
}

/// A clause that reads after "answered" or "got".
impl fmt::Display for ForeignAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HTTP {}", self.status)?;
        if let Some(location) = &self.location {
            write!(f, " to {location}")?;
        }
        write!(f, " without an answer of the service (server: {}", self.server.as_deref().unwrap_or("not named"))?;
        match &self.content_type {
            Some(content_type) => write!(f, ", content: {content_type})"),
            None => f.write_str(")"),
        }
    }
}
