//! Announces Matter services: the other side of discovery, for the virtual device.
//!
//! mdns-sd registers one subtype for each service instance. It is the one by which most commissioners look: the long
//! discriminator, and the fabric for operational nodes; the others find the instance under its plain type.

use std::time::Duration;

use mdns_sd::{IfKind, IfPredicate, ServiceDaemon, ServiceInfo, UnregisterStatus};

use super::interfaces::takes_part;
use crate::config::NetworkConfig;

/// Which of the two service types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServiceKind {
    /// `_matterc._udp`.
    Commissionable,
    /// `_matter._tcp`.
    Operational,
}

/// An announcement failed.
#[derive(Debug, thiserror::Error)]
pub enum AdvertiseError {
    /// mDNS has no socket, or does not take the service.
    #[error("mDNS refused the service")]
    Mdns(#[from] mdns_sd::Error),
}

/// Announces services until dropped.
pub struct Advertiser {
    mdns: ServiceDaemon,
    host: String,
}

/// How long a goodbye may take to leave.
const GOODBYE: Duration = Duration::from_secs(2);

impl Advertiser {
    /// Starts a responder in the calling thread's network namespace. Takes part are the same interfaces as in
    /// discovery: name `lo` to be heard on loopback.
    ///
    /// # Errors
    /// Where mDNS has no socket.
    pub fn new(config: &NetworkConfig) -> Result<Self, AdvertiseError> {
        let mdns = ServiceDaemon::new()?;
        mdns.disable_interface(IfKind::All)?;
        let config = config.clone();
        mdns.enable_interface(IfKind::Predicate(IfPredicate::new(move |interface| takes_part(&config, interface))))?;
        // A host name of 12 hex digits as Matter Core 4.3.1.1 has it; random, because several run on one host.
        let host = format!("{:012X}.local.", rand::random::<u64>() & 0xFFFF_FFFF_FFFF);
        Ok(Self { mdns, host })
    }

    /// Announces an instance, or changes what is announced for it.
    ///
    /// # Errors
    /// Where mDNS does not take the service.
    pub fn advertise(
        &self,
        kind: ServiceKind,
        instance: &str,
        port: u16,
        txt: Vec<(String, String)>,
    ) -> Result<(), AdvertiseError> {
        let service_type = match subtype(kind, instance, &txt) {
            Some(subtype) => format!("{subtype}._sub.{}", kind.service_type()),
            None => kind.service_type().to_owned(),
        };
        let mut service =
            ServiceInfo::new(&service_type, instance, &self.host, (), port, txt.as_slice())?.enable_addr_auto();
        // The names are random numbers of 64 bits; probing for conflicts would cost a second.
        service.set_requires_probe(false);
        self.mdns.register(service)?;
        Ok(())
    }

    /// Says goodbye for an instance, and returns when that was sent.
    ///
    /// # Errors
    /// Where mDNS has stopped. An instance that is not announced is no error.
    pub async fn withdraw(&self, kind: ServiceKind, instance: &str) -> Result<(), AdvertiseError> {
        let sent = self.mdns.unregister(&format!("{instance}.{}", kind.service_type()))?;
        match tokio::time::timeout(GOODBYE, sent.recv_async()).await {
            Ok(Ok(UnregisterStatus::OK)) => {}
            _ => tracing::debug!(instance, "no goodbye was sent"),
        }
        Ok(())
    }
}

impl Drop for Advertiser {
    fn drop(&mut self) {
        // Says goodbye for everything that is still announced.
        let _ = self.mdns.shutdown();
    }
}

impl ServiceKind {
    fn service_type(self) -> &'static str {
        match self {
            Self::Commissionable => "_matterc._udp.local.",
            Self::Operational => "_matter._tcp.local.",
        }
    }
}

/// `_L<discriminator>` (Matter Core 4.3.1.3) or `_I<compressed fabric id>` (4.3.2.3).
fn subtype(kind: ServiceKind, instance: &str, txt: &[(String, String)]) -> Option<String> {
    match kind {
        ServiceKind::Commissionable => {
            let (_, discriminator) = txt.iter().find(|(key, _)| key == "D")?;
            Some(format!("_L{discriminator}"))
        }
        ServiceKind::Operational => instance.split_once('-').map(|(fabric, _)| format!("_I{fabric}")),
    }
}
