//! The states of a device on its way, as types: each method consumes a state and gives the next, so that no step can be
//! left out or taken twice. `driver` walks it and keeps time.

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

/// PASE is up and the fail-safe is armed.
pub struct PaseCommissionee<S> {
    session: S,
}

/// What it is, is known.
pub struct DescribedCommissionee<S> {
    session: S,
    description: DeviceDescription,
}

/// Its evidence was judged and accepted; the only state with [`Self::request_csr`].
pub struct AttestedCommissionee<S> {
    session: S,
    description: DeviceDescription,
    judgement: Judgement,
}

/// A CSR that is the device's own.
pub struct VerifiedCsr(Vec<u8>);

/// It has our root and its own certificate, until the fail-safe expires.
pub struct CredentialedCommissionee<S> {
    session: S,
    fabric_index: u8,
}

/// Who may do what on it is set and read back.
pub struct AccessedNode<C> {
    session: C,
    cats: Vec<CatGrant>,
}

fn nonce() -> [u8; 32] {
    let mut nonce = [0; 32];
    rand::rng().fill_bytes(&mut nonce);
    nonce
}

fn at(step: Step) -> impl Fn(LinkError) -> CommissioningError {
    move |source| CommissioningError::Link { step, source }
}

impl<S: PaseSession> PaseCommissionee<S> {
    /// Takes over a session whose fail-safe was just armed.
    pub fn new(session: S) -> Self {
        Self { session }
    }

    /// Reads what the device is, refuses one fabric too many before anything is installed, and sets the regulatory
    /// configuration where the device needs it.
    ///
    /// # Errors
    /// The link's, or a full fabric table. The session comes back with every error, so that it can be rolled back.
    pub async fn describe(self) -> Result<DescribedCommissionee<S>, (S, CommissioningError)> {
        let described = async {
            let description = self.session.describe().await.map_err(at(Step::ReadInfo))?;
            let (supported, commissioned) = description.fabrics;
            if supported > 0 && commissioned >= supported {
                return Err(CommissioningError::FabricTableFull { commissioned, supported });
            }
            if description.needs_regulatory_config {
                self.session.set_regulatory_config().await.map_err(at(Step::ReadInfo))?;
            }
            Ok(description)
        }
        .await;
        match described {
            Ok(description) => Ok(DescribedCommissionee { session: self.session, description }),
            Err(error) => Err((self.session, error)),
        }
    }
}

impl<S: PaseSession> DescribedCommissionee<S> {
    /// What it says of itself.
    pub fn description(&self) -> &DeviceDescription {
        &self.description
    }

    /// Collects the evidence and judges it.
    ///
    /// # Errors
    /// The link's, or [`CommissioningError::AttestationRejected`].
    pub async fn attest(
        self,
        judge: &impl AttestationJudge,
        overridden: Option<&AttestationOverride>,
    ) -> Result<AttestedCommissionee<S>, (S, CommissioningError)> {
        let nonce = nonce();
        let response = match self.session.attestation(nonce).await {
            Ok(response) => response,
            Err(error) => return Err((self.session, at(Step::Attestation)(error))),
        };
        let evidence = Evidence {
            dac: response.dac,
            pai: response.pai,
            attestation_elements: response.elements,
            signature: response.signature,
            attestation_challenge: self.session.attestation_challenge(),
            nonce,
            basic_vendor_id: self.description.basic.vendor_id,
            basic_product_id: self.description.basic.product_id,
            at: jiff::Timestamp::now(),
        };
        let judgement = judge.judge(evidence, overridden.cloned());
        if !judgement.verdict.is_accepted() {
            return Err((self.session, CommissioningError::AttestationRejected { judgement: Box::new(judgement) }));
        }
        Ok(AttestedCommissionee { session: self.session, description: self.description, judgement })
    }
}

impl<S: PaseSession> AttestedCommissionee<S> {
    /// What it says of itself.
    pub fn description(&self) -> &DeviceDescription {
        &self.description
    }

    /// Why it was accepted.
    pub fn judgement(&self) -> &Judgement {
        &self.judgement
    }

    /// The session, for the fail-safe.
    pub fn session(&self) -> &S {
        &self.session
    }

    /// Gives the session up, to roll back.
    pub fn into_session(self) -> S {
        self.session
    }

    /// Asks for the device's key and checks that the answer is fresh and signed by the key that was attested.
    ///
    /// # Errors
    /// The link's, or [`CommissioningError::CsrRejected`].
    pub async fn request_csr(&self) -> Result<VerifiedCsr, CommissioningError> {
        let nonce = nonce();
        let response = self.session.request_csr(nonce).await.map_err(at(Step::Csr))?;
        let (dac, challenge) = (&self.judgement.evidence.dac, self.session.attestation_challenge());
        csr::verify_csr(dac, &response.elements, &challenge, &nonce, &response.signature)
            .map(VerifiedCsr)
            .map_err(|refused| CommissioningError::CsrRejected { reason: refused.to_string() })
    }

    /// Signs a certificate for the key in the CSR. A CSR that does not parse or that its own key did not sign is refused.
    ///
    /// # Errors
    /// [`CommissioningError::CsrRejected`], or the stack's.
    pub async fn issue_noc<L: MatterLink>(
        &self,
        link: &L,
        node: NodeId,
        csr: &VerifiedCsr,
    ) -> Result<IssuedNoc, CommissioningError> {
        link.issue_noc(node, &csr.0).await.map_err(|error| match error {
            LinkError::Malformed { what } => CommissioningError::CsrRejected { reason: what },
            source => CommissioningError::Link { step: Step::Csr, source },
        })
    }

    /// Installs root and certificate. On failure the session stays usable for the rollback.
    ///
    /// # Errors
    /// The link's, by step.
    pub async fn add_root(&self) -> Result<(), CommissioningError> {
        failpoint::reach("add-root.before");
        self.session.add_root().await.map_err(at(Step::AddRoot))?;
        failpoint::reach("add-root.after");
        Ok(())
    }

    /// AddNOC.
    ///
    /// # Errors
    /// The link's; the state comes back for the rollback.
    pub async fn add_noc(
        self,
        credentials: &IssuedNoc,
        case_admin_subject: u64,
    ) -> Result<CredentialedCommissionee<S>, (S, CommissioningError)> {
        failpoint::reach("add-noc.before");
        let added = self.session.add_noc(credentials, case_admin_subject).await;
        failpoint::reach("add-noc.after");
        match added {
            Ok(fabric_index) => Ok(CredentialedCommissionee { session: self.session, fabric_index }),
            Err(error) => Err((self.session, at(Step::AddNoc)(error))),
        }
    }
}

impl<S: PaseSession> CredentialedCommissionee<S> {
    /// The index under which the device keeps our fabric.
    pub fn fabric_index(&self) -> u8 {
        self.fabric_index
    }

    /// The PASE session, for the fail-safe.
    pub fn session(&self) -> &S {
        &self.session
    }

    /// Gives the session up, to roll back.
    pub fn into_session(self) -> S {
        self.session
    }
}

/// Writes the access control list, reads it back and compares.
///
/// # Errors
/// The link's, or [`CommissioningError::AccessMismatch`].
pub async fn set_access<C: OperationalSession>(
    session: C,
    plan: &[AclEntry],
) -> Result<AccessedNode<C>, CommissioningError> {
    failpoint::reach("acl.before");
    session.write_acl(plan).await.map_err(at(Step::Access))?;
    failpoint::reach("acl.written");
    let held = session.read_acl().await.map_err(at(Step::Access))?;
    failpoint::reach("acl.read-back");
    match acl_difference(plan, &held) {
        None => Ok(AccessedNode { session, cats: granted_cats(&held) }),
        Some(difference) => Err(CommissioningError::AccessMismatch { difference }),
    }
}

/// NodeOperationalCertStatusEnum: another fabric on the device has that label already (11.18.4.3).
const LABEL_CONFLICT: u8 = 10;
/// FabricLabel, in bytes (11.18.4.5).
const LABEL: usize = 32;
/// Labels tried, with a number each, before the device stays without ours.
const LABELS: u32 = 9;

/// Tells the device our fabric's name, which other administrators show. A label that another fabric has gets a number. No
/// reason to fail: a device without it works as well.
pub async fn set_label<C: OperationalSession>(session: &C, label: &str) {
    for number in 1..=LABELS {
        match session.update_fabric_label(&numbered(label, number)).await {
            Ok(()) => return,
            Err(LinkError::NocStatus { code: LABEL_CONFLICT, .. }) => {}
            Err(error) => {
                tracing::warn!(%error, "the device did not take the fabric's label");
                return;
            }
        }
    }
    tracing::warn!("the device has other fabrics with every label like {label:?}");
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
pub fn acl_difference(written: &[AclEntry], held: &[AclEntry]) -> Option<String> {
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

impl<C: OperationalSession> AccessedNode<C> {
    /// The session.
    pub fn session(&self) -> &C {
        &self.session
    }

    /// Gives the session up.
    pub fn into_session(self) -> C {
        self.session
    }

    /// The CAT privileges as read back.
    pub fn cats(&self) -> &[CatGrant] {
        &self.cats
    }
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
