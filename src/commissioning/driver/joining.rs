//! From the certificate to CASE: the device is brought onto its network where it was met over Bluetooth, and met there. The states
//! are `path`'s; here is what is repeated, and for how long.

use std::net::SocketAddr;
use std::time::Duration;

use super::record::Draft;
use super::run::{Run, now};
use super::{Commissioner, MEET_AGAIN, OPERATIONAL_LOOKUP, Progress, Shown, at_store};
use crate::commissioning::attempt::DeviceEvent;
use crate::commissioning::error::CommissioningError;
use crate::commissioning::network::{HomeNetwork, NetworkError};
use crate::commissioning::path::{
    ANSWER, Breadcrumb, CredentialedCommissionee, NetworkedCommissionee, OfflineCommissionee, Setback, Surveyed,
    Whereabouts,
};
use crate::commissioning::ports::{
    AttestationJudge, Discovery, FailSafe, LinkError, MatterLink, NodeStore, ProvisionalNode, Stage,
};
use crate::commissioning::step::Step;
use crate::failpoint;
use crate::node::NodeId;

/// A device that joins a network takes a moment to announce itself; it is looked for in so many lookups at most before a person
/// is told.
const SHOWS_ITSELF: Duration = Duration::from_secs(30);

/// What it takes to bring a device onto its network.
pub(super) struct Joining<'a, P> {
    pub(super) draft: &'a Draft<'a>,
    /// Its row as it was begun.
    pub(super) row: &'a ProvisionalNode,
    pub(super) pase: &'a P,
}

impl<P> Clone for Joining<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for Joining<'_, P> {}

/// One try of the network: the device is on it, or as it was.
type Tried<S> = Result<NetworkedCommissionee, Box<Setback<S>>>;

impl<L, D, S, J> Commissioner<L, D, S, J>
where
    L: MatterLink,
    D: Discovery,
    S: NodeStore,
    J: AttestationJudge,
{
    /// Onto the network, where the device is on none yet.
    pub(super) async fn bring_onto_network(
        &self,
        run: &mut Run<'_>,
        joining: Joining<'_, L::Pase>,
        credentialed: CredentialedCommissionee<L::Pase>,
    ) -> Result<NetworkedCommissionee, CommissioningError> {
        let mut offline = match credentialed.whereabouts() {
            Whereabouts::OnNetwork(networked) => return Ok(networked),
            Whereabouts::OffNetwork(offline) => offline,
        };
        let Joining { draft, pase, .. } = joining;
        let (order, interface) = (draft.order, &draft.shown.description.facts.network);
        if interface.kinds.is_empty() {
            return Err(NetworkError::NoInterface.into());
        }
        let give_up = now() + order.wait_network;
        let mut changes = self.networks.changes();
        loop {
            changes.mark_unchanged();
            let tried = match self.networks.network(order.network.as_deref(), &interface.kinds).await {
                Ok(network) => self.try_network(run, joining, offline, network).await?,
                Err(error) => Err(Box::new(Setback { commissionee: offline, error: error.into() })),
            };
            let setback = match tried {
                Ok(networked) => return Ok(networked),
                Err(setback) => *setback,
            };
            let left = give_up.saturating_duration_since(now());
            let mended = match &setback.error {
                CommissioningError::Network(error) if error.is_mended_by_credentials() && !left.is_zero() => error,
                _ => return Err(setback.error),
            };
            (run.progress)(Progress::Waits {
                code: mended.code(),
                message: format!("{mended}; the device waits up to {} s for other credentials", left.as_secs()),
                hint: mended.hint(),
                left,
            });
            self.await_credentials(run, pase, &mut changes, left, &setback.error).await?;
            offline = setback.commissionee;
        }
    }

    /// Until another network is set, or this one again. The device's fail-safe is kept armed meanwhile.
    async fn await_credentials(
        &self,
        run: &mut Run<'_>,
        pase: &L::Pase,
        changes: &mut tokio::sync::watch::Receiver<()>,
        left: Duration,
        error: &CommissioningError,
    ) -> Result<(), CommissioningError> {
        let began = now();
        let over = || match error {
            CommissioningError::Network(error) => CommissioningError::Network(error.clone()),
            _ => CommissioningError::StepTimeout { step: Step::Network, after: left },
        };
        loop {
            run.keep_armed(pase).await?;
            let rest = left.saturating_sub(now() - began);
            let turn = rest.min(run.attempt.fail_safe() / 4);
            tokio::select! {
                changed = changes.changed() => {
                    changed.map_err(|_| over())?;
                    run.attempt.handle_wait(now() - began);
                    return Ok(());
                }
                () = run.stop.cancelled() => return Err(CommissioningError::Stopped { step: Step::Network }),
                () = tokio::time::sleep(turn) => {}
            }
            if now() - began >= left {
                return Err(over());
            }
        }
    }

    /// Survey, credentials, join.
    async fn try_network(
        &self,
        run: &mut Run<'_>,
        joining: Joining<'_, L::Pase>,
        offline: OfflineCommissionee<L::Pase>,
        network: HomeNetwork,
    ) -> Result<Tried<L::Pase>, CommissioningError> {
        let Joining { draft, row, pase } = joining;
        let Shown { description, .. } = draft.shown;
        let interface = &description.facts.network;
        // All that the device may take, and the meeting after it; never more than it grants in all.
        let joining = interface.scan_max + interface.connect_max + ANSWER * 3;
        run.attempt.handle_joining(joining);
        let expiry = run.attempt.fail_safe().min(description.max_cumulative_fail_safe);
        let armed = pase.arm_fail_safe(expiry, run.breadcrumb.value()).await;
        armed.map_err(|cause| CommissioningError::Link { step: Step::Network, cause })?;
        run.device(DeviceEvent::Armed);
        (run.progress)(Progress::Note(format!("the device is sent to the network {:?}", network.name)));
        let (node, compressed) = (offline.node(), self.settings.compressed_fabric_id);
        let appeared = async {
            loop {
                let found = self.discovery.operational(compressed, node, OPERATIONAL_LOOKUP).await;
                if !found.is_empty() {
                    return;
                }
                tokio::time::sleep(MEET_AGAIN).await;
            }
        };
        // From here on the next start may meet it.
        let on_fabric = Stage::OnFabric(draft.unfinished(run.attempt.fail_safe()));
        let on_fabric = ProvisionalNode { stage: on_fabric, ..row.clone() };
        let noted = async {
            let saved = self.store.save_provisional(&on_fabric).await;
            failpoint::reach("network.saved");
            saved.map_err(at_store(Step::Network))
        };
        let joined = async {
            let surveyed = match offline.survey(network, interface).await {
                Ok(Surveyed::Seen(surveyed)) => surveyed,
                Ok(Surveyed::Connected(networked)) => {
                    noted.await?;
                    return Ok(Ok(networked));
                }
                Err(setback) => return Ok(Err(setback)),
            };
            let provisioned = match surveyed.add_network().await {
                Ok(provisioned) => provisioned,
                Err(setback) => return Ok(Err(setback)),
            };
            noted.await?;
            Ok(provisioned.connect(interface, appeared).await)
        };
        let tried = run.step(Step::Network, joined).await?;
        run.breadcrumb = if tried.is_ok() { Breadcrumb::NetworkJoined } else { Breadcrumb::Armed };
        Ok(tried)
    }

    /// CASE with the new node, where it was met over IP and wherever it announces itself, until the step's time is over: a
    /// handshake that was not answered or refused once proves nothing while the fail-safe holds. `sleep` is what the device's
    /// own rhythm adds to the wait for it.
    pub(super) async fn meet(
        &self,
        networked: &NetworkedCommissionee,
        sleep: Duration,
    ) -> Result<L::Case, CommissioningError> {
        let node = networked.node();
        match (networked.at(), networked.joined()) {
            (Some(peer), _) => self.meet_at(node, Some(peer), sleep).await,
            (None, joined) => {
                let met = self.meet_at(node, None, sleep).await;
                match (met, joined) {
                    (Err(CommissioningError::Link { cause: LinkError::Unreachable { tried }, .. }), Some(name))
                        if tried.is_empty() =>
                    {
                        let waited = self.meeting(None) + sleep;
                        Err(NetworkError::NotShown { name: name.to_owned(), waited }.into())
                    }
                    (met, _) => met,
                }
            }
        }
    }

    /// How long a device is tried to be met.
    fn meeting(&self, peer: Option<SocketAddr>) -> Duration {
        let meeting = self.settings.limits.meeting();
        let limit = if peer.is_some() { meeting } else { meeting.min(SHOWS_ITSELF) };
        limit.saturating_sub(OPERATIONAL_LOOKUP)
    }

    /// See [`Self::meet`].
    pub(super) async fn meet_at(
        &self,
        node: NodeId,
        peer: Option<SocketAddr>,
        sleep: Duration,
    ) -> Result<L::Case, CommissioningError> {
        let (budget, compressed) = (self.settings.limits.step / 2 + sleep, self.settings.compressed_fabric_id);
        let give_up = now() + self.meeting(peer) + sleep;
        let mut addresses: Vec<SocketAddr> = peer.into_iter().collect();
        if addresses.is_empty() {
            addresses = self.discovery.operational(compressed, node, OPERATIONAL_LOOKUP).await;
        }
        loop {
            match self.link.open_case(node, &addresses, budget).await {
                Err(
                    error @ (LinkError::Unreachable { .. }
                    | LinkError::SessionLost
                    | LinkError::Busy
                    | LinkError::NoSharedTrustRoots { .. }
                    | LinkError::NotThatNode { .. }
                    | LinkError::HandshakeRefused { .. }),
                ) => {
                    tracing::debug!(%error, "the new node was not met yet");
                    if now() >= give_up {
                        return Err(CommissioningError::Link { step: Step::Operational, cause: error });
                    }
                    addresses = self.discovery.operational(compressed, node, OPERATIONAL_LOOKUP).await;
                    if let Some(peer) = peer.filter(|peer| !addresses.contains(peer)) {
                        addresses.push(peer);
                    }
                    tokio::time::sleep(MEET_AGAIN).await;
                }
                other => {
                    return other.map_err(|cause| CommissioningError::Link { step: Step::Operational, cause });
                }
            }
        }
    }
}
