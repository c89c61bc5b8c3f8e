//! Whether a node is still on our fabric, and what proves that it is not. Pure: takes `now`. Not here: asking (`hub::reach`).
//!
//! CASE proves who answers; a refusal proves nothing about the device that was meant. Addresses are given to others, all
//! Matter devices listen on the same port, and a StatusReport is not authenticated. So what destroys anything (an unbind,
//! the end of a record) asks for a value of [`OffFabric`], and there are two ways to one only: the device itself has just
//! been told RemoveFabric over CASE, and answered or does not know us any more; or it said "no shared trust roots" twice, at an address that mDNS gives for this very
//! device, with its records confirmed in between. A commissionable device of the same kind is neither: its discriminator,
//! vendor and product are those of every other one of its model, and proving more takes its passcode.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::node::{NodeId, OperationalIdentity};

/// Between the two refusals. The records of a device that does not answer for itself are gone after ten seconds (RFC 6762
/// 10.4), so what mDNS still gives after this was said by the device in between; a round of queries has shown it by then.
const PAUSE: Duration = Duration::from_secs(15);

/// No address is given to another device so soon after its owner has used it.
const STILL_THERE: Duration = Duration::from_secs(30);

/// The device of `node` is not on our fabric any more: proved by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffFabric {
    node: NodeId,
    proof: Proof,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Proof {
    RemovedByUs,
    RemovedUnanswered { peer: SocketAddr },
    Refused { peer: SocketAddr, announced_as: OperationalIdentity },
}

impl OffFabric {
    /// To be called where RemoveFabric for our fabric was answered with success over CASE with `node`, and nowhere else.
    pub fn removed_by_us(node: NodeId) -> Self {
        Self { node, proof: Proof::RemovedByUs }
    }

    /// RemoveFabric was sent to `peer` over CASE with `node`, `ago`, and no answer came. Now `refusing` says that it does not
    /// know our fabric. `None` unless that is the address at which the device was itself just before.
    pub fn removed_unanswered(node: NodeId, peer: SocketAddr, refusing: SocketAddr, ago: Duration) -> Option<Self> {
        let is_itself = peer == refusing && ago <= STILL_THERE;
        is_itself.then_some(Self { node, proof: Proof::RemovedUnanswered { peer } })
    }

    /// RemoveFabric was sent over CASE before the daemon ended, as is on disk, and what is at the device's address says twice
    /// that it does not know our fabric. A person has asked for the removal, so what a mistake would cost is its message.
    pub fn removed_before(node: NodeId, peer: SocketAddr) -> Self {
        Self { node, proof: Proof::RemovedUnanswered { peer } }
    }

    /// Whose device it is about.
    pub fn node(&self) -> NodeId {
        self.node
    }
}

impl fmt::Display for OffFabric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.proof {
            Proof::RemovedByUs => write!(f, "the device has removed our fabric as we asked"),
            Proof::RemovedUnanswered { peer } => write!(
                f,
                "the device was told to remove our fabric, and says at {peer} that it does not know it any more"
            ),
            Proof::Refused { peer, .. } => write!(
                f,
                "the device itself says at {peer}, twice, that it does not know our fabric: it was reset, or another \
                 administrator removed us"
            ),
        }
    }
}

/// A first "no shared trust roots" from an address that mDNS gives for the node's device. It proves nothing yet: the
/// announcement may be the memory of one that has lost this address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Suspicion {
    node: NodeId,
    announced_as: OperationalIdentity,
    since: Instant,
}

impl Suspicion {
    /// `peer` refused `node`. `known` is every name that `node`'s device has, ours among them, each with where mDNS has it
    /// now. `None` where `peer` is at none of them, that is, somebody else.
    pub(crate) fn begin(
        node: NodeId,
        peer: SocketAddr,
        known: &[(OperationalIdentity, Vec<SocketAddr>)],
        now: Instant,
    ) -> Option<Self> {
        let (announced_as, _) = known.iter().find(|(_, sockets)| sockets.contains(&peer))?;
        Some(Self { node, announced_as: *announced_as, since: now })
    }

    /// The name whose records have to be confirmed now, and looked at again at [`Suspicion::ask_again_at`].
    pub(crate) fn announced_as(&self) -> OperationalIdentity {
        self.announced_as
    }

    /// When the device may be asked again.
    pub(crate) fn ask_again_at(&self) -> Instant {
        self.since + PAUSE
    }

    /// `peer` refused again. `sockets` is where mDNS has the device now that its records were confirmed.
    pub(crate) fn conclude(self, peer: SocketAddr, sockets: &[SocketAddr], now: Instant) -> Option<OffFabric> {
        let at_home = sockets.contains(&peer) && now >= self.ask_again_at();
        let proof = Proof::Refused { peer, announced_as: self.announced_as };
        at_home.then_some(OffFabric { node: self.node, proof })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(1001);
    const OURS: OperationalIdentity = OperationalIdentity { compressed_fabric_id: 1, node_id: NODE };
    const THEIRS: OperationalIdentity = OperationalIdentity { compressed_fabric_id: 2, node_id: NodeId(7) };

    fn socket(host: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, host], 5540))
    }

    #[test]
    fn whoever_is_at_a_remembered_address_is_somebody_else() {
        let now = Instant::now();
        assert_eq!(Suspicion::begin(NODE, socket(1), &[], now), None);
        assert_eq!(Suspicion::begin(NODE, socket(1), &[(OURS, Vec::new())], now), None);
        let elsewhere = [(OURS, vec![socket(2)]), (THEIRS, vec![socket(2)])];
        assert_eq!(Suspicion::begin(NODE, socket(1), &elsewhere, now), None);
    }

    #[test]
    fn a_lost_answer_to_remove_fabric_is_made_up_for_by_the_same_device_only() {
        let soon = Duration::from_secs(5);
        assert!(OffFabric::removed_unanswered(NODE, socket(1), socket(1), soon).is_some());
        assert_eq!(OffFabric::removed_unanswered(NODE, socket(1), socket(2), soon), None);
        assert_eq!(OffFabric::removed_unanswered(NODE, socket(1), socket(1), STILL_THERE * 2), None);
    }

    #[test]
    fn the_device_itself_has_to_say_it_twice() {
        let now = Instant::now();
        for announced_as in [OURS, THEIRS] {
            let known = [(announced_as, vec![socket(1), socket(2)])];
            let first = Suspicion::begin(NODE, socket(1), &known, now).expect("it is announced there");
            assert_eq!(first.announced_as(), announced_as);
            let again = first.ask_again_at();
            assert!(again > now + Duration::from_secs(10), "its records need ten seconds to go");
            // Too soon; gone from mDNS since; elsewhere since, so that this is another device.
            assert_eq!(first.clone().conclude(socket(1), &[socket(1)], now), None);
            assert_eq!(first.clone().conclude(socket(1), &[], again), None);
            assert_eq!(first.clone().conclude(socket(1), &[socket(3)], again), None);
            // By another of its addresses it is the same device.
            let proof = first.conclude(socket(2), &[socket(1), socket(2)], again).expect("a proof");
            assert_eq!(proof.node(), NODE);
            assert!(proof.to_string().contains("192.0.2.2:5540"), "{proof}");
        }
    }
}
