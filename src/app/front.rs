//! The daemon's front on TCP: its certificate. Not here: who is let in (`admin::auth`), where apps find it (`hub::controllers`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::auth::ENROL;
use crate::admin::server::AdminServer;
use crate::admin::tls::{KeyPair, SELF_MADE, Tls, TlsError};
use crate::config::{Config, secret_file};
use crate::hub::controllers::Front;
use crate::plain;
use crate::store::Store;

/// How often the configured files are looked at. Whoever renews a certificate does it weeks before the old one ends.
const LOOK: Duration = Duration::from_secs(10);

/// Puts TLS before the listener where it is to be; answers what apps have to know of it where they may enrol.
pub(super) async fn open(
    config: &Config,
    store: &Store,
    hub: u64,
    server: AdminServer,
    (tasks, stop): (&TaskTracker, &CancellationToken),
) -> anyhow::Result<(AdminServer, Option<Front>)> {
    let Some(address) = server.tcp_address() else { return Ok((server, None)) };
    if !config.admin.has_tls() {
        if !address.ip().to_canonical().is_loopback() {
            tracing::warn!(%address, "the admin API is not encrypted, as admin.tls says: others on the network may read tokens along");
        }
        return Ok((server, None));
    }
    let pair = key_pair(config, store, hub).await?;
    let certificate_sha256 = pair.fingerprint()?;
    let tls = Tls::new(pair.acceptor()?);
    if let Some(files) = Files::configured(config) {
        let (tls, stop) = (tls.clone(), stop.clone());
        tasks.spawn(async move { stop.run_until_cancelled(files.follow(pair, tls)).await });
    }
    tracing::info!(%address, sha256 = %certificate_sha256, "the admin API answers over TLS");
    let server = server.with_tls(tls);
    if !config.admin.enrolment {
        return Ok((server, None));
    }
    let front = Front { listens: address, path: ENROL, certificate_sha256 };
    Ok((server.with_enrolment(), Some(front)))
}

/// What is configured, else what the hub made for itself; it is kept, so that apps find the same certificate again.
async fn key_pair(config: &Config, store: &Store, hub: u64) -> anyhow::Result<KeyPair> {
    if let Some(files) = Files::configured(config) {
        return KeyPair::read(&files.chain, &files.key).context("admin.tls_cert_file and admin.tls_key_file");
    }
    if let Some(kept) = store.load_secret(SELF_MADE).await?.and_then(|bytes| KeyPair::from_bytes(&bytes)) {
        return Ok(kept);
    }
    let made = KeyPair::make(&format!("{hub:016X}"))?;
    store.save_secret(SELF_MADE, &made.to_bytes()).await?;
    Ok(made)
}

/// Certificate and key as somebody else keeps them up to date.
struct Files {
    chain: PathBuf,
    key: PathBuf,
}

impl Files {
    fn configured(config: &Config) -> Option<Self> {
        let admin = &config.admin;
        if admin.tls_cert_file.is_empty() {
            return None;
        }
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY");
        let resolve = |file: &str| secret_file::resolve(Path::new(file), credentials.as_deref());
        Some(Self { chain: resolve(&admin.tls_cert_file), key: resolve(&admin.tls_key_file) })
    }

    /// Looks whether they have changed, for ever. A pair that is no pair, as between the two writes of whoever renews it, is
    /// looked at again; until then the one before stays.
    async fn follow(self, mut known: KeyPair, tls: Tls) {
        let mut told = None;
        loop {
            tokio::time::sleep(LOOK).await;
            match KeyPair::read(&self.chain, &self.key) {
                Ok(read) if read == known => told = None,
                Ok(read) => match read.acceptor().and_then(|acceptor| Ok((acceptor, read.fingerprint()?))) {
                    Ok((acceptor, sha256)) => {
                        tls.replace(acceptor);
                        tracing::info!(%sha256, "the admin API has the new certificate");
                        (known, told) = (read, None);
                    }
                    Err(error) => tell_once(&mut told, &error),
                },
                Err(error) => tell_once(&mut told, &error),
            }
        }
    }
}

fn tell_once(told: &mut Option<String>, error: &TlsError) {
    let text = plain::with_causes(error);
    if told.as_ref() != Some(&text) {
        tracing::warn!(error = %text, "the changed certificate cannot be used; the one before stays");
        *told = Some(text);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_renewed_certificate_is_taken_over_as_soon_as_it_fits_its_key() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files { chain: directory.path().join("chain.pem"), key: directory.path().join("key.pem") };
        let write = |pair: &KeyPair, what: &[&str]| {
            let kept: serde_json::Value = serde_json::from_slice(&pair.to_bytes()).unwrap();
            for name in what {
                std::fs::write(directory.path().join(format!("{name}.pem")), kept[name].as_str().unwrap()).unwrap();
            }
        };
        let [old, new] = ["old", "new"].map(|name| KeyPair::make(name).unwrap());
        write(&old, &["chain", "key"]);
        let tls = Tls::new(old.acceptor().unwrap());
        let before = Arc::clone(tls.acceptor().config());
        let is_old = || Arc::ptr_eq(&before, tls.acceptor().config());
        let following = tokio::spawn(files.follow(old, tls.clone()));
        tokio::time::sleep(3 * LOOK).await;
        assert!(is_old(), "nothing has changed");
        write(&new, &["chain"]);
        tokio::time::sleep(3 * LOOK).await;
        assert!(is_old(), "the key is still the old one's");
        write(&new, &["key"]);
        tokio::time::sleep(3 * LOOK).await;
        assert!(!is_old());
        following.abort();
    }
}
