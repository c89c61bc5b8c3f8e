//! From a device that has its certificate to one that is on its network (Matter Core 11.9). One that was met over IP is there
//! already; one that was met over Bluetooth is surveyed, told the credentials, and sent. What can be mended by other credentials
//! gives the device back in the state from which it can be tried again, while its fail-safe lasts.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{Breadcrumb, CredentialedCommissionee};
use crate::commissioning::error::CommissioningError;
use crate::commissioning::network::{HomeNetwork, NetworkError, NetworkInterface};
use crate::commissioning::ports::{LinkError, PaseSession};
use crate::commissioning::step::Step;
use crate::failpoint;
use crate::node::{NodeId, Peer};

/// What an answer over Bluetooth may take beyond what the device says that it needs.
pub(in crate::commissioning) const ANSWER: Duration = Duration::from_secs(5);

/// Where a device is when it has its certificate.
pub(crate) enum Whereabouts<S> {
    /// It was met over IP.
    OnNetwork(NetworkedCommissionee),
    /// It was met over Bluetooth.
    OffNetwork(OfflineCommissionee<S>),
}

/// It has its certificate and no network.
pub(crate) struct OfflineCommissionee<S> {
    session: Arc<S>,
    node: NodeId,
    fabric_index: u8,
}

/// It sees the network that it is to join.
pub(crate) struct SurveyedCommissionee<S> {
    offline: OfflineCommissionee<S>,
    network: HomeNetwork,
}

/// It knows the credentials.
pub(crate) struct ProvisionedCommissionee<S> {
    offline: OfflineCommissionee<S>,
    network: HomeNetwork,
}

/// It is on its network, as far as it says, until the fail-safe expires. The only state that is met by CASE.
#[derive(Debug, Clone)]
pub(crate) struct NetworkedCommissionee {
    pub(super) node: NodeId,
    pub(super) fabric_index: u8,
    /// Where it was met over IP.
    pub(super) at: Option<SocketAddr>,
    /// Which network it was sent to over Bluetooth.
    pub(super) joined: Option<String>,
}

/// The device is as it was, and may be tried with other credentials.
pub(crate) struct Setback<S> {
    /// In the state from which it can be tried again.
    pub commissionee: OfflineCommissionee<S>,
    /// What went wrong.
    pub error: CommissioningError,
}

impl<S: PaseSession> CredentialedCommissionee<S> {
    /// Decided by where it was met, and by nothing else.
    pub(crate) fn whereabouts(self) -> Whereabouts<S> {
        let Self { session, node, fabric_index } = self;
        match session.peer() {
            Peer::Udp(address) => {
                Whereabouts::OnNetwork(NetworkedCommissionee { node, fabric_index, at: Some(address), joined: None })
            }
            Peer::Bluetooth(_) => Whereabouts::OffNetwork(OfflineCommissionee { session, node, fabric_index }),
        }
    }
}

impl<S: PaseSession> OfflineCommissionee<S> {
    /// Which node it will be.
    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    fn set_back(self, error: CommissioningError) -> Box<Setback<S>> {
        Box::new(Setback { commissionee: self, error })
    }

    fn link(self, cause: LinkError) -> Box<Setback<S>> {
        self.set_back(CommissioningError::Link { step: Step::Network, cause })
    }

    fn joined(self, network: &HomeNetwork) -> NetworkedCommissionee {
        let joined = Some(network.name.clone());
        NetworkedCommissionee { node: self.node, fabric_index: self.fabric_index, at: None, joined }
    }

    /// ScanNetworks: whether the device sees the network. One that is connected to it already, as after an attempt that broke
    /// off, needs nothing more.
    ///
    /// # Errors
    /// The link's, or [`NetworkError::NotSeen`] with what it sees instead.
    pub(crate) async fn survey(
        self,
        network: HomeNetwork,
        interface: &NetworkInterface,
    ) -> Result<Surveyed<S>, Box<Setback<S>>> {
        let id = network.credentials.id();
        if interface.connected.as_deref() == Some(id) {
            return Ok(Surveyed::Connected(self.joined(&network)));
        }
        failpoint::reach("network.before");
        let scanned = self.session.scan_networks(&network.credentials, interface.scan_max + ANSWER).await;
        let mut seen = match scanned {
            Ok(seen) => seen,
            Err(LinkError::Networking { status, text }) => {
                return Err(self.refused(&network, status, text));
            }
            Err(error) => return Err(self.link(error)),
        };
        if !seen.iter().any(|one| one.id == id) {
            seen.sort_by_key(|one| std::cmp::Reverse(one.rssi));
            let mut names: Vec<String> = Vec::new();
            for one in seen {
                if !names.contains(&one.name) {
                    names.push(one.name);
                }
            }
            let error = NetworkError::NotSeen { name: network.name, seen: names };
            return Err(self.set_back(error.into()));
        }
        Ok(Surveyed::Seen(SurveyedCommissionee { offline: self, network }))
    }

    fn refused(self, network: &HomeNetwork, status: u8, text: String) -> Box<Setback<S>> {
        let (name, kind) = (network.name.clone(), network.credentials.kind());
        self.set_back(NetworkError::Refused { name, kind, status, text }.into())
    }
}

/// What a survey says.
pub(crate) enum Surveyed<S> {
    /// The network is there.
    Seen(SurveyedCommissionee<S>),
    /// The device is on it already.
    Connected(NetworkedCommissionee),
}

impl<S: PaseSession> SurveyedCommissionee<S> {
    /// AddOrUpdateWiFiNetwork or AddOrUpdateThreadNetwork.
    ///
    /// # Errors
    /// The link's, or what the device does not like about the credentials.
    pub(crate) async fn add_network(self) -> Result<ProvisionedCommissionee<S>, Box<Setback<S>>> {
        let Self { offline, network } = self;
        let added = offline.session.add_network(&network.credentials, Breadcrumb::NetworkAdded.value()).await;
        failpoint::reach("network.added");
        match added {
            Ok(()) => Ok(ProvisionedCommissionee { offline, network }),
            Err(LinkError::Networking { status, text }) => Err(offline.refused(&network, status, text)),
            Err(error) => Err(offline.link(error)),
        }
    }
}

impl<S: PaseSession> ProvisionedCommissionee<S> {
    /// ConnectNetwork. A device with one radio drops Bluetooth instead of answering: once it has `appeared` on the network no
    /// answer is waited for. The answer of any other decides, for it may be on another network of the home already.
    ///
    /// # Errors
    /// Why the device could not join.
    pub(crate) async fn connect(
        self,
        interface: &NetworkInterface,
        appeared: impl Future<Output = ()>,
    ) -> Result<NetworkedCommissionee, Box<Setback<S>>> {
        let Self { offline, network } = self;
        let limit = interface.connect_max + ANSWER;
        let (id, breadcrumb) = (network.credentials.id(), Breadcrumb::NetworkJoined.value());
        let appeared = async { if interface.concurrent { pending().await } else { appeared.await } };
        let answer = tokio::select! {
            biased;
            answer = offline.session.connect_network(id, limit, breadcrumb) => answer,
            () = appeared => Ok(()),
        };
        failpoint::reach("network.connected");
        match answer {
            // It may have dropped Bluetooth because it has one radio, or for good: the network tells.
            Ok(()) | Err(LinkError::BluetoothLost | LinkError::SessionLost) => Ok(offline.joined(&network)),
            // A device with one radio may be gone without the link's end having been noticed yet.
            Err(LinkError::Unreachable { .. }) if !interface.concurrent => Ok(offline.joined(&network)),
            Err(LinkError::Networking { status, text }) => Err(offline.refused(&network, status, text)),
            Err(error) => Err(offline.link(error)),
        }
    }
}

impl NetworkedCommissionee {
    /// Which node it is.
    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    /// Where it was met over IP.
    pub(crate) fn at(&self) -> Option<SocketAddr> {
        self.at
    }

    /// Which network it was sent to.
    pub(crate) fn joined(&self) -> Option<&str> {
        self.joined.as_deref()
    }

    /// It showed its certificate, in a CASE session that `meeting` has opened with it.
    ///
    /// # Errors
    /// Those of `meeting`.
    pub(crate) async fn met<C>(
        self,
        meeting: impl Future<Output = Result<C, CommissioningError>>,
    ) -> Result<super::OperationalCommissionee<C>, CommissioningError> {
        let session = Arc::new(meeting.await?);
        failpoint::reach("case.opened");
        Ok(super::OperationalCommissionee { session, fabric_index: self.fabric_index })
    }
}
