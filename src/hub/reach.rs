//! Finding and opening a node of ours, wherever it is now. Not here: who may be asked when (`liveness`), what is asked.

use std::time::Duration;

use super::Hub;
use super::refusal::Refusal;
use crate::commissioning::error::Disposition;
use crate::commissioning::ports::{Discovery, LinkError, MatterLink};
use crate::matter::operational::CaseLink;
use crate::node::NodeRecord;

/// How long a node's announcement is waited for before its last known addresses are tried.
const LOOKUP: Duration = Duration::from_secs(2);
/// A session with it, wherever it is.
pub(super) const OPEN: Duration = Duration::from_secs(8);
/// Everything that one request asks of a device.
const DEVICE: Duration = Duration::from_secs(20);

impl Hub {
    /// A CASE session with a recorded node, wherever it is now.
    pub(super) async fn meet(&self, record: &NodeRecord) -> Result<CaseLink, LinkError> {
        let compressed = self.link.credentials().compressed_fabric_id();
        let mut addresses = self.discovery.operational(compressed, record.node_id, LOOKUP).await;
        for known in last_known(record) {
            if !addresses.contains(&known) {
                addresses.push(known);
            }
        }
        let session = self.link.open_case(record.node_id, &addresses, OPEN).await;
        match &session {
            Ok(_) => self.note_contact(record.node_id).await,
            Err(LinkError::Unreachable { .. }) => self.doubt(record.node_id),
            Err(_) => {}
        }
        session
    }
}

pub(super) async fn within<T>(work: impl Future<Output = Result<T, LinkError>>) -> Result<T, LinkError> {
    let late = LinkError::Unreachable { tried: Vec::new() };
    tokio::time::timeout(DEVICE, work).await.unwrap_or(Err(late))
}

/// Addresses that need no interface name; link-local ones are found by mDNS.
pub(super) fn last_known(record: &NodeRecord) -> Vec<std::net::SocketAddr> {
    let ips = record.addresses.iter().filter_map(|address| address.parse::<std::net::IpAddr>().ok());
    ips.filter(|ip| !matches!(ip, std::net::IpAddr::V6(v6) if crate::node::is_unicast_link_local(*v6)))
        .map(|ip| std::net::SocketAddr::new(ip, record.port))
        .collect()
}

pub(super) fn device_error(error: &LinkError) -> Refusal {
    let (code, hint) = match error {
        LinkError::NoSharedTrustRoots { .. } | LinkError::NotThatNode { .. } => {
            ("case-refused", "another device may have its address, or it was reset; `matterbind sync` tells")
        }
        LinkError::HandshakeRefused { .. } => ("handshake-refused", "packets may get lost on the way; try again"),
        LinkError::Unreachable { .. } | LinkError::SessionLost => {
            ("device-unreachable", "check that the device has power and is near enough, then try again")
        }
        LinkError::Busy => ("device-busy", "wait a minute, then try again"),
        LinkError::Stack { .. } => ("stack-failed", "restart the daemon; `matterbind logs` has the details"),
        _ => ("device-error", "try again; `matterbind logs` has the details"),
    };
    Refusal::new(code, Disposition::Retry, error.to_string(), hint)
}
