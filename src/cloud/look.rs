//! The way to the service, one step after the other: name, connection, who answers, and what time it is there. It needs no account
//! and changes nothing.
//!
//! Not here: signing in (`session`), what a person is told (`hub::doctor`).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::client::BuildError;
use super::health::HealthCell;
use super::transport::{Transport, Unmetered};
use crate::config::CloudConfig;
use crate::outbox::ports::CloudError;
use crate::plain;
use crate::tls::Now;

/// A resolver answers within this time, or is not there.
const RESOLVE: Duration = Duration::from_secs(5);
/// One address is tried so long.
const CONNECT: Duration = Duration::from_secs(3);
/// More addresses than these are not tried.
const ADDRESSES: usize = 4;

/// What was seen on the way. A step that was not reached is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Look {
    /// Host and port of the service.
    pub at: String,
    /// The variable that names a proxy: then the proxy resolves and connects.
    pub proxy: Option<String>,
    /// The addresses behind the name, or why there are none.
    pub resolved: Option<Result<Vec<IpAddr>, String>>,
    /// The first address that took a connection, or why none did.
    pub connected: Option<Result<SocketAddr, String>>,
    pub answered: Option<Answered>,
    /// What time it was there, by its answer.
    pub date: Option<Timestamp>,
    /// What time it was here.
    pub at_time: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answered {
    /// The service, in its own words.
    Service,
    /// Something before it.
    SomethingElse { seen: String, hint: String },
    /// Somebody whose certificate is not good.
    Untrusted { seen: String, hint: String },
    Nobody {
        /// What was seen instead.
        seen: String,
    },
}

/// Looks without a client that runs already; certificates are judged by `now`.
pub(crate) async fn look(config: &CloudConfig, now: Now) -> Result<Look, BuildError> {
    let health = Arc::new(HealthCell::default());
    Ok(along(&Transport::new(&config.base_url, config.timeout, health, Arc::new(Unmetered), now)?).await)
}

pub(super) async fn along(transport: &Transport) -> Look {
    let (host, port) = transport.place();
    let mut look = Look {
        at: format!("{host}:{port}"),
        proxy: transport.is_encrypted().then(|| proxy(&["HTTPS_PROXY", "ALL_PROXY"])).flatten(),
        resolved: None,
        connected: None,
        answered: None,
        date: None,
        at_time: Timestamp::now(),
    };
    if look.proxy.is_none() {
        let addresses = resolve(&host, port).await;
        look.resolved = Some(addresses.clone().map(|all| all.iter().map(SocketAddr::ip).collect()));
        let Ok(addresses) = addresses else { return look };
        let connected = connect(&addresses).await;
        look.connected = Some(connected.clone());
        if connected.is_err() {
            return look;
        }
    }
    let answered = transport.look().await;
    look.at_time = Timestamp::now();
    look.answered = Some(match answered {
        Ok((answer, date)) => {
            look.date = date;
            judge(answer.err())
        }
        Err(error) => judge(Some(error)),
    });
    look
}

/// Which of these variables is set; its value may hold a password.
fn proxy(names: &[&str]) -> Option<String> {
    let set = |name: &String| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    names.iter().flat_map(|name| [(*name).to_owned(), name.to_lowercase()]).find(set)
}

async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    match timeout(RESOLVE, lookup_host((host, port))).await {
        Ok(Ok(found)) => match found.collect::<Vec<_>>() {
            none if none.is_empty() => Err("the name has no address".to_owned()),
            addresses => Ok(addresses),
        },
        Ok(Err(error)) => Err(plain::cause(&error)),
        Err(_) => Err(format!("the resolver did not answer within {} s", RESOLVE.as_secs())),
    }
}

async fn connect(addresses: &[SocketAddr]) -> Result<SocketAddr, String> {
    let mut why = Vec::new();
    for address in addresses.iter().take(ADDRESSES) {
        match timeout(CONNECT, TcpStream::connect(address)).await {
            Ok(Ok(_)) => return Ok(*address),
            Ok(Err(error)) => why.push(format!("{address}: {}", plain::cause(&error))),
            Err(_) => why.push(format!("{address}: no answer within {} s", CONNECT.as_secs())),
        }
    }
    Err(why.join("; "))
}

fn judge(error: Option<CloudError>) -> Answered {
    match error {
        // Without a token it says that one is missing, in its own envelope.
        None | Some(CloudError::Code { .. } | CloudError::SignIn { .. }) => Answered::Service,
        Some(CloudError::Foreign { answer, .. }) => {
            Answered::SomethingElse { seen: answer.to_string(), hint: answer.hint() }
        }
        Some(CloudError::Untrusted { cause, hint }) => Answered::Untrusted { seen: cause, hint },
        Some(CloudError::NotSent { cause } | CloudError::Ambiguous { cause }) => Answered::Nobody { seen: cause },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::foreign::ForeignAnswer;

    #[test]
    fn only_the_services_own_words_are_the_service() {
        let code = CloudError::Code { code: 5013, message: "no token".to_owned() };
        assert_eq!((judge(None), judge(Some(code))), (Answered::Service, Answered::Service));
        let portal = ForeignAnswer { status: 302, location: Some("http://10.0.0.1/".to_owned()), ..Default::default() };
        let page = judge(Some(CloudError::Foreign { answer: Box::new(portal), sent: true }));
        assert!(
            matches!(page, Answered::SomethingElse { seen, hint } if seen.contains("302") && hint.contains("10.0.0.1"))
        );
        let gone = judge(Some(CloudError::NotSent { cause: "no route".to_owned() }));
        assert_eq!(gone, Answered::Nobody { seen: "no route".to_owned() });
    }

    #[tokio::test]
    async fn a_port_where_nobody_listens_is_told_apart_from_a_name_that_nobody_has() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let refused = connect(&resolve("127.0.0.1", free.port()).await.unwrap()).await.unwrap_err();
        assert!(refused.contains("refused"), "{refused}");
        assert!(resolve("no-such-host.invalid", 443).await.is_err());
    }
}
