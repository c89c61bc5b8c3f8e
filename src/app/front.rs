//! The daemon's front on TCP: its certificate. Not here: who is let in (`admin::auth`), where apps find it (`hub::controllers`).

use std::path::Path;

use anyhow::Context;

use crate::admin::auth::ENROL;
use crate::admin::server::AdminServer;
use crate::admin::tls::{KeyPair, SELF_MADE};
use crate::config::{Config, secret_file};
use crate::hub::controllers::Front;
use crate::store::Store;

/// Puts TLS before the listener where it is to be; answers what apps have to know of it where they may enrol.
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
    let front = Front { listens: address, path: ENROL, certificate_sha256 };
    Ok((server.with_enrolment(), Some(front)))
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
