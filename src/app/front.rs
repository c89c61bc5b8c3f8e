//! The daemon's front on TCP: its certificate, and where apps find it. Not here: who is let in (`admin::auth`).

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::Context;

use crate::admin::auth::ENROL;
use crate::admin::server::AdminServer;
use crate::admin::tls::{KeyPair, SELF_MADE};
use crate::config::{Config, secret_file};
use crate::discovery::interfaces::takes_part;
use crate::hub::controllers::Front;
use crate::store::Store;

/// Puts TLS before the listener where it is to be; answers where apps find it then.
pub(super) async fn open(
    config: &Config,
    store: &Store,
    hub: u64,
    server: AdminServer,
) -> anyhow::Result<(AdminServer, Option<Front>)> {
    let Some(address) = server.tcp_address().filter(|_| config.admin.has_tls()) else { return Ok((server, None)) };
    let pair = key_pair(config, store, hub).await?;
    let certificate_sha256 = pair.fingerprint()?;
    tracing::info!(%address, sha256 = %certificate_sha256, "the admin API answers over TLS");
    let server = server.with_tls(pair.acceptor()?);
    if !config.admin.enrolment {
        return Ok((server, None));
    }
    let urls = addresses(config, address).into_iter().map(|address| format!("https://{address}{ENROL}")).collect();
    Ok((server.with_enrolment(), Some(Front { urls, certificate_sha256 })))
}

/// What is configured, else what the hub made for itself; it is kept, so that apps find the same certificate again.
async fn key_pair(config: &Config, store: &Store, hub: u64) -> anyhow::Result<KeyPair> {
    let admin = &config.admin;
    if !admin.tls_cert_file.is_empty() {
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY");
        let resolve = |file: &str| secret_file::resolve(Path::new(file), credentials.as_deref());
        return KeyPair::read(&resolve(&admin.tls_cert_file), &resolve(&admin.tls_key_file))
            .context("admin.tls_cert_file and admin.tls_key_file");
    }
    if let Some(kept) = store.load_secret(SELF_MADE).await?.and_then(|bytes| KeyPair::from_bytes(&bytes)) {
        return Ok(kept);
    }
    let made = KeyPair::make(&format!("{hub:016X}"))?;
    store.save_secret(SELF_MADE, &made.to_bytes()).await?;
    Ok(made)
}

/// The listener's own address, or those of the hub where it listens on all.
fn addresses(config: &Config, listens: SocketAddr) -> Vec<SocketAddr> {
    if !listens.ip().is_unspecified() {
        return vec![listens];
    }
    let usable = |address: IpAddr| match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        // A link-local address means nothing without the app's own interface.
        IpAddr::V6(v6) => listens.is_ipv6() && !v6.is_loopback() && !v6.is_unicast_link_local(),
    };
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let mut found: Vec<IpAddr> = interfaces
        .iter()
        .filter(|interface| takes_part(&config.network, interface))
        .map(if_addrs::Interface::ip)
        .filter(|address| usable(*address))
        .collect();
    // IPv4 first: every phone can type it.
    found.sort_by_key(|address| (address.is_ipv6(), *address));
    found.into_iter().map(|address| SocketAddr::new(address, listens.port())).collect()
}
