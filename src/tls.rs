//! Whom the hub trusts over TLS: whoever the machine's trust store vouches for, at a time that can be believed. A hub whose
//! clock says 1970 knows what time it is at least (`clock`), and may speak to the cloud and the ledger by that. Not here: what a
//! person is told when nobody is trusted (`cloud::transport::failure`), and the admin listener's own certificate (`admin::tls`).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::ClientConfig;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use rustls_platform_verifier::Verifier;

/// What time it is, as far as it can be believed.
pub(crate) type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Certificates are judged by this time, whenever one is shown.
struct Believed(Now);

impl fmt::Debug for Believed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Believed").field(&(self.0)()).finish()
    }
}

impl TimeProvider for Believed {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from((self.0)().as_second()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

/// What connections are made with.
///
/// # Errors
/// The machine has no certificates to trust anybody by.
pub(crate) fn config(now: &Now) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Verifier::new(Arc::clone(&provider))?;
    let config = ClientConfig::builder_with_details(provider, Arc::new(Believed(Arc::clone(now))))
        .with_safe_default_protocol_versions()?
        // The verifier is the one that the HTTP client would take; only the time is another.
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    Ok(config.with_no_client_auth())
}
