//! The states of a device on its way, as types: each method consumes a state and gives the next, so that no step can be
//! left out or taken twice. `driver` walks it, keeps time, and keeps the sessions that a rollback needs.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng;

use crate::attestation::policy::{AttestationOverride, Judgement};
use crate::attestation::{Evidence, csr};
use crate::commissioning::error::CommissioningError;
use crate::commissioning::ports::{
    AttestationJudge, DeviceDescription, IssuedNoc, LinkError, MatterLink, OperationalSession, PaseSession,
};
use crate::commissioning::step::Step;
use crate::fabric::{AclEntry, CatGrant, granted_cats};
use crate::failpoint;
use crate::node::NodeId;

mod breadcrumb;
mod interrupted;
mod network;
mod preparation;

pub(crate) use breadcrumb::Breadcrumb;
pub(crate) use interrupted::{FoundAgain, InterruptedCommissionee};
pub(in crate::commissioning) use network::ANSWER;
pub(crate) use network::{NetworkedCommissionee, OfflineCommissionee, Setback, Surveyed, Whereabouts};
pub(crate) use preparation::{AcceptedTerms, Preparation};

/// The passcode is proved.
pub(crate) struct PaseCommissionee<S> {
    session: Arc<S>,
}

/// Its fail-safe is armed: from here on whatever it is told, it forgets when that expires.
pub(crate) struct ArmedCommissionee<S> {
    session: Arc<S>,
}

/// What it is, is known.
pub(crate) struct DescribedCommissionee<S> {
    session: Arc<S>,
    description: DeviceDescription,
}

/// What a device has shown of itself until it was accepted.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    /// What it says of itself.
    pub description: DeviceDescription,
    /// Why it was accepted.
    pub judgement: Judgement,
}

/// Its evidence was judged and accepted; the only state that asks for its key.
pub(crate) struct AttestedCommissionee<S> {
    session: Arc<S>,
    shown: Shown,
}

/// Its own key is known: fresh, and signed by the key that was attested.
pub(crate) struct KeyedCommissionee<S> {
    session: Arc<S>,
    shown: Shown,
    csr: Vec<u8>,
}

/// A certificate is made for its key; the device knows nothing of it yet.
pub(crate) struct CertifiedCommissionee<S> {
    session: Arc<S>,
    noc: IssuedNoc,
}

/// It trusts our root, until the fail-safe expires.
pub(crate) struct RootedCommissionee<S> {
    session: Arc<S>,
    noc: IssuedNoc,
}

/// It has its certificate too, until the fail-safe expires.
pub(crate) struct CredentialedCommissionee<S> {
    session: Arc<S>,
    node: NodeId,
    fabric_index: u8,
}

/// It answered as our node.
pub(crate) struct OperationalCommissionee<C> {
    session: Arc<C>,
    fabric_index: u8,
}

/// Who may do what on it is set and read back.
pub(crate) struct AccessedCommissionee<C> {
    session: Arc<C>,
    fabric_index: u8,
    cats: Vec<CatGrant>,
}

/// It is ours for good, until it is told otherwise.
pub(crate) struct CommissionedNode<C> {
    session: Arc<C>,
    fabric_index: u8,
}

fn nonce() -> [u8; 32] {
    let mut nonce = [0; 32];
    rand::rng().fill_bytes(&mut nonce);
    nonce
}

fn at(step: Step) -> impl Fn(LinkError) -> CommissioningError {
    move |cause| CommissioningError::Link { step, cause }
}

impl<S: PaseSession> PaseCommissionee<S> {
    /// Begins the path.
    pub(crate) fn new(session: Arc<S>) -> Self {
        Self { session }
    }

    /// ArmFailSafe.
    ///
    /// # Errors
    /// The link's.
    pub(crate) async fn arm(self, expiry: Duration) -> Result<ArmedCommissionee<S>, CommissioningError> {
        failpoint::reach("arm.before");
        self.session.arm_fail_safe(expiry, Breadcrumb::Armed.value()).await.map_err(at(Step::ArmFailSafe))?;
        failpoint::reach("arm.after");
        Ok(ArmedCommissionee { session: self.session })
    }
}

impl<S: PaseSession> ArmedCommissionee<S> {
    /// Reads what the device is, refuses what could not be brought to an end before anything is installed, and tells it what a
    /// device must know of its place and time.
    ///
    /// # Errors
    /// The link's, a full fabric table, or terms that nobody has accepted.
    pub(crate) async fn describe(self, place: &Preparation) -> Result<DescribedCommissionee<S>, CommissioningError> {
        let description = self.session.describe().await.map_err(at(Step::ReadInfo))?;
        let (supported, commissioned) = description.fabrics;
        if supported > 0 && commissioned >= supported {
            return Err(CommissioningError::FabricTableFull { commissioned, supported });
        }
        preparation::prepare(self.session.as_ref(), &description, place).await?;
        Ok(DescribedCommissionee { session: self.session, description })
    }
}

impl<S: PaseSession> DescribedCommissionee<S> {
    /// What it says of itself.
    pub(crate) fn description(&self) -> &DeviceDescription {
        &self.description
    }

    /// Collects the evidence and judges it.
    ///
    /// # Errors
    /// The link's, or [`CommissioningError::AttestationRejected`].
    pub(crate) async fn attest(
        self,
        judge: &impl AttestationJudge,
        overridden: Option<&AttestationOverride>,
    ) -> Result<AttestedCommissionee<S>, CommissioningError> {
        let Self { session, description } = self;
        let nonce = nonce();
        let response = session.attestation(nonce).await.map_err(at(Step::Attestation))?;
        let evidence = Evidence {
            dac: response.dac,
            pai: response.pai,
            attestation_elements: response.elements,
            signature: response.signature,
            attestation_challenge: session.attestation_challenge(),
            nonce,
            basic_vendor_id: description.basic.vendor_id,
            basic_product_id: description.basic.product_id,
            at: jiff::Timestamp::now(),
        };
        let judgement = judge.judge(evidence, overridden.cloned());
        if !judgement.verdict.is_accepted() {
            return Err(CommissioningError::AttestationRejected { judgement: Box::new(judgement) });
        }
        Ok(AttestedCommissionee { session, shown: Shown { description, judgement } })
    }
}

impl<S: PaseSession> AttestedCommissionee<S> {
    /// What it has shown.
    pub(crate) fn shown(&self) -> &Shown {
        &self.shown
    }

    /// Asks for the device's key and checks that the answer is fresh and signed by the key that was attested.
    ///
    /// # Errors
    /// The link's, or [`CommissioningError::CsrRejected`].
    pub(crate) async fn request_csr(self) -> Result<KeyedCommissionee<S>, CommissioningError> {
        let Self { session, shown } = self;
        let nonce = nonce();
        let response = session.request_csr(nonce).await.map_err(at(Step::Csr))?;
        let (dac, challenge) = (&shown.judgement.evidence.dac, session.attestation_challenge());
        let csr = csr::verify_csr(dac, &response.elements, &challenge, &nonce, &response.signature)
            .map_err(|refused| CommissioningError::CsrRejected { reason: refused.to_string() })?;
        Ok(KeyedCommissionee { session, shown, csr })
    }
}

impl<S: PaseSession> KeyedCommissionee<S> {
    /// What it has shown.
    pub(crate) fn shown(&self) -> &Shown {
        &self.shown
    }

    /// Signs a certificate for the key in the CSR. A CSR that does not parse or that its own key did not sign is refused.
    ///
    /// # Errors
    /// [`CommissioningError::CsrRejected`], or the stack's.
    pub(crate) async fn issue_noc<L: MatterLink>(
        self,
        link: &L,
        node: NodeId,
    ) -> Result<(CertifiedCommissionee<S>, Shown), CommissioningError> {
        let noc = link.issue_noc(node, &self.csr).await.map_err(|error| match error {
            LinkError::Malformed { what } => CommissioningError::CsrRejected { reason: what },
            cause => CommissioningError::Link { step: Step::Csr, cause },
        })?;
        failpoint::reach("noc.issued");
        Ok((CertifiedCommissionee { session: self.session, noc }, self.shown))
    }
}

impl<S: PaseSession> CertifiedCommissionee<S> {
    /// AddTrustedRootCertificate.
    ///
    /// # Errors
    /// The link's.
    pub(crate) async fn add_root(self) -> Result<RootedCommissionee<S>, CommissioningError> {
        failpoint::reach("add-root.before");
        self.session.add_root().await.map_err(at(Step::AddRoot))?;
        failpoint::reach("add-root.after");
        Ok(RootedCommissionee { session: self.session, noc: self.noc })
    }
}

impl<S: PaseSession> RootedCommissionee<S> {
    /// AddNOC.
    ///
    /// # Errors
    /// The link's.
    pub(crate) async fn add_noc(
        self,
        case_admin_subject: u64,
    ) -> Result<CredentialedCommissionee<S>, CommissioningError> {
        failpoint::reach("add-noc.before");
        let added = self.session.add_noc(&self.noc, case_admin_subject).await;
        failpoint::reach("add-noc.after");
        let fabric_index = added.map_err(at(Step::AddNoc))?;
        Ok(CredentialedCommissionee { session: self.session, node: self.noc.node_id, fabric_index })
    }
}

impl<C: OperationalSession> OperationalCommissionee<C> {
    /// The session, which stays open while anybody has it.
    pub(crate) fn session(&self) -> Arc<C> {
        Arc::clone(&self.session)
    }

    /// Writes the access control list, reads it back and compares; then tells our fabric's label.
    ///
    /// # Errors
    /// The link's, or [`CommissioningError::AccessMismatch`].
    pub(crate) async fn set_access(
        self,
        plan: &[AclEntry],
        label: &str,
    ) -> Result<AccessedCommissionee<C>, CommissioningError> {
        let cats = set_access(self.session.as_ref(), plan).await?;
        // No reason to fail.
        if let Err(error) = set_label(self.session.as_ref(), label).await {
            tracing::warn!(%error, "the device does not know the fabric's label");
        }
        Ok(AccessedCommissionee { session: self.session, fabric_index: self.fabric_index, cats })
    }
}

impl<C: OperationalSession> AccessedCommissionee<C> {
    pub(crate) fn session(&self) -> &C {
        &self.session
    }

    /// The index under which the device keeps our fabric.
    pub(crate) fn fabric_index(&self) -> u8 {
        self.fabric_index
    }

    /// The CAT privileges as read back.
    pub(crate) fn cats(&self) -> &[CatGrant] {
        &self.cats
    }

    /// CommissioningComplete. A lost answer is settled by asking again, in the session that `again` opens: NoFailSafe then
    /// means that the first one arrived.
    ///
    /// # Errors
    /// The link's, or those of `again`.
    pub(crate) async fn complete(
        self,
        again: impl Future<Output = Result<C, CommissioningError>>,
    ) -> Result<CommissionedNode<C>, CommissioningError> {
        let answer = self.session.commissioning_complete().await;
        failpoint::reach("complete.sent");
        let (session, answer) = match answer {
            Err(LinkError::Unreachable { .. } | LinkError::SessionLost) => {
                let session = Arc::new(again.await?);
                let answer = session.commissioning_complete().await;
                (session, answer)
            }
            other => (self.session, other),
        };
        match answer {
            Ok(()) | Err(LinkError::Commissioning { code: NO_FAIL_SAFE, .. }) => {}
            Err(cause) => return Err(CommissioningError::Link { step: Step::Complete, cause }),
        }
        failpoint::reach("complete.after");
        Ok(CommissionedNode { session, fabric_index: self.fabric_index })
    }
}

impl<C: OperationalSession> CommissionedNode<C> {
    /// RemoveFabric: what undoes all of it.
    ///
    /// # Errors
    /// The link's.
    pub(crate) async fn remove(&self) -> Result<(), LinkError> {
        self.session.remove_fabric(self.fabric_index).await
    }
}

/// Writes the access control list, reads it back and compares; gives the CAT privileges as read back.
///
/// # Errors
/// The link's, or [`CommissioningError::AccessMismatch`].
pub(crate) async fn set_access(
    session: &impl OperationalSession,
    plan: &[AclEntry],
) -> Result<Vec<CatGrant>, CommissioningError> {
    failpoint::reach("acl.before");
    session.write_acl(plan).await.map_err(at(Step::Access))?;
    failpoint::reach("acl.written");
    let held = session.read_acl().await.map_err(at(Step::Access))?;
    failpoint::reach("acl.read-back");
    match acl_difference(plan, &held) {
        None => Ok(granted_cats(&held)),
        Some(difference) => Err(CommissioningError::AccessMismatch { difference }),
    }
}

/// CommissioningErrorEnum (11.10.5.1). In answer to CommissioningComplete over CASE: there is nothing left to complete.
pub(crate) const NO_FAIL_SAFE: u8 = 3;
/// CommissioningErrorEnum (11.10.5.1). Another fabric's administrator, or one with another session, has armed the fail-safe.
pub(crate) const BUSY_WITH_OTHER_ADMIN: u8 = 4;

/// NodeOperationalCertStatusEnum: another fabric on the device has that label already (11.18.4.3).
const LABEL_CONFLICT: u8 = 10;
/// FabricLabel, in bytes (11.18.4.5).
const LABEL: usize = 32;
/// Labels tried, with a number each, before the device stays without ours.
const LABELS: u32 = 9;

/// Tells the device our fabric's name, which other administrators show. A label that another fabric has gets a number. One that
/// the device does not take is said in the log: it works as well without.
///
/// # Errors
/// The device was not reached.
pub(crate) async fn set_label(session: &impl OperationalSession, label: &str) -> Result<(), LinkError> {
    for number in 1..=LABELS {
        match session.update_fabric_label(&numbered(label, number)).await {
            Ok(()) => return Ok(()),
            Err(LinkError::NocStatus { code: LABEL_CONFLICT, .. }) => {}
            Err(error @ (LinkError::NocStatus { .. } | LinkError::Status { .. } | LinkError::Malformed { .. })) => {
                tracing::warn!(%error, "the device did not take the fabric's label");
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
    tracing::warn!("the device has other fabrics with every label like {label:?}");
    Ok(())
}

/// `Home`, `Home 2`, … within what a label may have.
fn numbered(label: &str, number: u32) -> String {
    let suffix = if number == 1 { String::new() } else { format!(" {number}") };
    let mut room = LABEL - suffix.len();
    while !label.is_char_boundary(room.min(label.len())) {
        room -= 1;
    }
    format!("{}{suffix}", &label[..room.min(label.len())])
}

/// What differs between a list written and the list read back; the order of entries and subjects does not count.
pub(crate) fn acl_difference(written: &[AclEntry], held: &[AclEntry]) -> Option<String> {
    let normal = |entries: &[AclEntry]| {
        let mut entries: Vec<AclEntry> = entries.to_vec();
        for entry in &mut entries {
            entry.subjects.sort_unstable();
        }
        entries.sort_by(|a, b| (a.privilege, &a.subjects).cmp(&(b.privilege, &b.subjects)));
        entries
    };
    let (written, held) = (normal(written), normal(held));
    (written != held).then(|| format!("{} entries written, {} held: {held:x?}", written.len(), held.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_numbered_label_fits() {
        assert_eq!((numbered("Home", 1), numbered("Home", 2)), ("Home".to_owned(), "Home 2".to_owned()));
        let long = "ü".repeat(16);
        assert_eq!(numbered(&long, 1), long);
        assert_eq!(numbered(&long, 9), format!("{} 9", "ü".repeat(15)));
    }
}
