//! Walks one device along the path of types (`path`), keeps time (`attempt`), writes what must be durable before it is
//! acted on, and rolls back whatever fails. One call of [`Commissioner::commission`] is one attempt.
//!
//! Many run side by side; `max_concurrent` of them at once. An attempt goes on when its client leaves. When the daemon
//! stops, the step under way ends first (or its deadline passes), then the fail-safe is expired.

mod approach;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use uuid::Uuid;

pub use self::approach::Turn;
use self::approach::{Hold, Met};
use crate::attestation::policy::{AttestationOverride, Judgement};
use crate::bind::{BindRequest, BindState, BindStatus, CloudDevice, MatterInfo};
use crate::commissioning::attempt::{Attempt, DeviceEvent, Expired, Limits, Undo};
use crate::commissioning::error::CommissioningError;
use crate::commissioning::fingerprint::FingerprintKey;
use crate::commissioning::identity::{self, Eligible, GivenIdentity, Profile};
use crate::commissioning::path::{
    AccessedNode, AttestedCommissionee, CredentialedCommissionee, PaseCommissionee, set_access, set_label,
};
use crate::commissioning::ports::{
    AttestationJudge, DeviceDescription, Discovery, LinkError, MatterLink, NodeStore, OperationalSession, PaseSession,
    ProvisionalNode,
};
use crate::commissioning::step::Step;
use crate::commissioning::together::Together;
use crate::durable::StoreError;
use crate::fabric::{Cat, CatGrant, plan_acl};
use crate::failpoint;
use crate::journal::{Event, EventSink, Level};
use crate::node::{BasicInformation, CommissionableNode, FabricId, NodeId, NodeRecord, NodeState};
use crate::onboarding::OnboardingPayload;
use crate::outbox::ports::{OutboxId, OutboxTask};
use crate::plain;

/// How long the rollback of a failed attempt may take: the client waits for it.
const ROLLBACK: Duration = Duration::from_secs(5);
/// CASE with the address that PASE used normally succeeds at once; only after this is mDNS asked.
const OPERATIONAL_LOOKUP: Duration = Duration::from_secs(5);
/// CASE is tried again after this, where the device was not met.
const MEET_AGAIN: Duration = Duration::from_millis(500);

/// What does not change from attempt to attempt.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Deadlines.
    pub limits: Limits,
    /// Our fabric.
    pub fabric_id: FabricId,
    /// Its compressed id, which operational nodes announce.
    pub compressed_fabric_id: u64,
    /// What other administrators see as its name.
    pub label: String,
    /// The tag in the hub's own certificate.
    pub admin_cat: Cat,
    /// What other tags may do.
    pub grants: Vec<CatGrant>,
    /// Product profiles.
    pub profiles: Vec<Profile>,
    /// Recognises codes that were used before.
    pub fingerprints: FingerprintKey,
    /// Whether a cloud is configured.
    pub cloud: bool,
    /// Family and room where the command names none.
    pub home: (Option<String>, Option<String>),
}

/// What an attempt is told.
#[derive(Debug, Clone)]
pub struct Order {
    /// Its id.
    pub attempt_id: Uuid,
    /// The understood code.
    pub payload: OnboardingPayload,
    /// Where the device is; it is tried there only.
    pub address: Option<SocketAddr>,
    /// The identity in the cloud, as far as the command gives it.
    pub identity: GivenIdentity,
    /// The person's name for it.
    pub name: Option<String>,
    /// Family in the cloud.
    pub family_id: Option<String>,
    /// Room in the cloud.
    pub room_id: Option<String>,
    /// Leave the cloud alone.
    pub no_bind: bool,
    /// Let it pass whatever attestation finds.
    pub attestation_override: Option<AttestationOverride>,
}

/// A commissioned and recorded device.
#[derive(Debug, Clone)]
pub struct Commissioned {
    /// The record as it is on disk.
    pub record: NodeRecord,
    /// The queued bind.
    pub outbox_id: Option<OutboxId>,
    /// How long each step took, and the whole.
    pub attempt: Attempt,
    /// When it ended, on the attempt's clock.
    pub ended: Instant,
}

/// What a listener is told while an attempt runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// A step began.
    Started(Step),
    /// A step ended well.
    Finished(Step, Duration),
    /// Worth knowing.
    Note(String),
}

/// Takes progress; never blocks.
pub type ProgressFn<'a> = &'a (dyn Fn(Progress) + Send + Sync);

/// What the cloud says about a device that is about to get credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PreflightAnswer {
    /// Nothing speaks against it.
    Go,
    /// Go on, and say this.
    GoAnd(String),
    /// Leave the device as it is, for this reason.
    Refuse(String),
}

/// Asks the cloud about a device; answers within seconds, whatever the cloud does.
pub type Preflight = Arc<dyn Fn(CloudDevice) -> BoxFuture<'static, PreflightAnswer> + Send + Sync>;

/// Finds the record that a device had before it was reset: only one whose node surely does not answer any more, and that is
/// flagged so. Answers within seconds.
pub type FindPredecessor = Arc<dyn Fn(BasicInformation) -> BoxFuture<'static, Option<NodeRecord>> + Send + Sync>;

/// Commissions devices.
pub struct Commissioner<L, D, S, J> {
    /// The Matter stack.
    pub link: Arc<L>,
    /// The LAN.
    pub discovery: Arc<D>,
    /// The durable side.
    pub store: Arc<S>,
    /// Verification and policy.
    pub judge: Arc<J>,
    /// Whether the cloud would take the device; `None`: nobody is asked.
    pub preflight: Option<Preflight>,
    /// Which record the device had before.
    pub predecessor: FindPredecessor,
    /// The admin log.
    pub journal: Arc<dyn EventSink>,
    /// What attempts know of each other.
    pub together: Together,
    /// What does not change.
    pub settings: Settings,
    /// The daemon is stopping.
    pub stop: CancellationToken,
}

/// One attempt under way: what the steps share.
struct Run<'a> {
    attempt: Attempt,
    progress: ProgressFn<'a>,
    stop: &'a CancellationToken,
}

impl Run<'_> {
    /// Runs one step within its deadline. A daemon that stops begins no new step.
    async fn step<T>(
        &mut self,
        step: Step,
        work: impl Future<Output = Result<T, CommissioningError>>,
    ) -> Result<T, CommissioningError> {
        if self.stop.is_cancelled() {
            return Err(CommissioningError::Stopped { step });
        }
        let began = Instant::now();
        self.attempt.handle_step(step, began);
        (self.progress)(Progress::Started(step));
        let span = tracing::info_span!("step", step = step.as_str());
        let deadline = tokio::time::Instant::from_std(self.attempt.next_deadline());
        let outcome = match tokio::time::timeout_at(deadline, work.instrument(span)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.expired(step)),
        };
        if outcome.is_ok() {
            (self.progress)(Progress::Finished(step, began.elapsed()));
        }
        outcome
    }

    fn expired(&self, step: Step) -> CommissioningError {
        match self.attempt.expired() {
            Expired::Step(after) => CommissioningError::StepTimeout { step, after },
            Expired::Attempt(after) => CommissioningError::Deadline { step, after },
            Expired::FailSafe(after) => CommissioningError::FailSafeExpired { step, after },
        }
    }

    fn device(&mut self, event: DeviceEvent) {
        self.attempt.handle_device(event, Instant::now());
    }

    /// Arms the fail-safe again when less than half of it is left.
    async fn keep_armed(&mut self, session: &impl PaseSession) -> Result<(), CommissioningError> {
        if self.attempt.rearm_due(Instant::now()) {
            let (step, expiry) = (self.attempt.step(), self.attempt.fail_safe());
            session.arm_fail_safe(expiry).await.map_err(|source| CommissioningError::Link { step, source })?;
            self.device(DeviceEvent::Armed);
        }
        Ok(())
    }
}

/// The sessions that an attempt holds; what is left of them is what a rollback can use.
struct Sessions<P, C> {
    pase: Option<P>,
    case: Option<C>,
    fabric_index: u8,
    hold: Option<Hold>,
}

/// A device that has credentials, and what is known about it.
struct Credentialed<P> {
    commissionee: CredentialedCommissionee<P>,
    description: DeviceDescription,
    judgement: Judgement,
    node: NodeId,
}

type Kept<P, T> = Result<T, (Option<P>, CommissioningError)>;

impl<L, D, S, J> Commissioner<L, D, S, J>
where
    L: MatterLink,
    D: Discovery,
    S: NodeStore,
    J: AttestationJudge,
{
    /// One attempt, from the understood code to the durable record.
    ///
    /// # Errors
    /// The reason, after the device was rolled back as far as it could be reached.
    pub async fn commission(
        &self,
        order: Order,
        progress: ProgressFn<'_>,
        turn: Turn<'_>,
    ) -> Result<Commissioned, CommissioningError> {
        let span = tracing::info_span!("attempt", attempt.id = %order.attempt_id);
        self.attempt(order, progress, turn).instrument(span).await
    }

    async fn attempt(
        &self,
        order: Order,
        progress: ProgressFn<'_>,
        turn: Turn<'_>,
    ) -> Result<Commissioned, CommissioningError> {
        let mut run = Run { attempt: Attempt::new(self.settings.limits, Instant::now()), progress, stop: &self.stop };
        failpoint::reach("attempt.before");
        let (discriminator, fingerprint) =
            (order.payload.discriminator, self.settings.fingerprints.fingerprint(&order.payload));
        let began = self.store.begin_attempt(order.attempt_id, discriminator, fingerprint, Timestamp::now()).await;
        began.map_err(at_store(Step::Parse))?;
        failpoint::reach("attempt.begun");
        let mut sessions = Sessions { pase: None, case: None, fabric_index: 0, hold: None };
        match self.walk(&mut run, &order, turn, &mut sessions).await {
            Ok((record, outbox_id)) => {
                Ok(Commissioned { record, outbox_id, attempt: run.attempt, ended: Instant::now() })
            }
            Err(error) => {
                let still_open = self.roll_back(&run, sessions).await;
                self.note_failure(&order, &error, still_open).await;
                Err(error)
            }
        }
    }

    /// The path. What a rollback needs is left in `sessions`.
    async fn walk(
        &self,
        run: &mut Run<'_>,
        order: &Order,
        turn: Turn<'_>,
        sessions: &mut Sessions<L::Pase, L::Case>,
    ) -> Result<(NodeRecord, Option<OutboxId>), CommissioningError> {
        let Met { node: found, discriminator, pase, hold } = self.approach(run, order, turn).await?;
        sessions.hold = Some(hold);
        let found = Found { node: found, discriminator };
        let attested = self.attest(run, order, pase).await.map_err(|(pase, error)| {
            sessions.pase = pase;
            error
        })?;
        let credentialed = self.give_credentials(run, order, &found, attested).await.map_err(|(pase, error)| {
            sessions.pase = pase;
            error
        })?;
        sessions.fabric_index = credentialed.commissionee.fabric_index();
        let (peer, node) = (credentialed.commissionee.session().peer(), credentialed.node);
        let plan = plan_acl(self.settings.admin_cat, &self.settings.grants, credentialed.description.acl_limits);
        let opened = run.step(Step::Operational, self.meet(node, peer, run.attempt.sleep())).await;
        let rearmed = run.keep_armed(credentialed.commissionee.session()).await;
        let Credentialed { commissionee, description, judgement, .. } = credentialed;
        sessions.pase = Some(commissionee.into_session());
        let case = opened?;
        rearmed?;
        failpoint::reach("case.opened");
        let accessed = run
            .step(Step::Access, async {
                let accessed = set_access(case, &plan?).await?;
                set_label(accessed.session(), &self.settings.label).await;
                Ok(accessed)
            })
            .await?;
        let before = (self.predecessor)(description.basic.clone()).await;
        let order = &succeeding(order, before.as_ref());
        let bind = match found.discriminator {
            Some(_) => self.bind_identity(run, order, &description, &accessed).await,
            None => Err(unknown_discriminator()),
        };
        let draft = Draft { order, found: &found, description: &description, judgement: &judgement, node, peer };
        let replaces = before.map(|before| before.node_id);
        let record = NodeRecord { replaces, ..self.record(&draft, sessions.fabric_index, accessed.cats(), &bind) };
        let task = bind.ok().map(|eligible| bind_task(&record, eligible));
        let ready = NodeRecord { state: NodeState::Provisional, ..record.clone() };
        let node = ProvisionalNode { attempt_id: order.attempt_id, record: ready, task, evidence: judgement.to_json() };
        self.complete(run, &accessed, &node, peer).await?;
        let ProvisionalNode { task, evidence, .. } = node;
        let committed = run
            .step(Step::Record, async {
                let commit = self.store.commit_commissioned(order.attempt_id, &record, task.as_ref(), &evidence);
                commit.await.map_err(at_store(Step::Record))
            })
            .await;
        failpoint::reach("record.committed");
        match committed {
            Ok(outbox_id) => Ok((record, outbox_id)),
            Err(error) => {
                sessions.case = Some(accessed.into_session());
                Err(error)
            }
        }
    }

    /// Fail-safe, description, attestation.
    async fn attest(
        &self,
        run: &mut Run<'_>,
        order: &Order,
        pase: L::Pase,
    ) -> Kept<L::Pase, AttestedCommissionee<L::Pase>> {
        let link = |step| move |source| CommissioningError::Link { step, source };
        let expiry = run.attempt.fail_safe();
        failpoint::reach("arm.before");
        let armed = run
            .step(Step::ArmFailSafe, async { pase.arm_fail_safe(expiry).await.map_err(link(Step::ArmFailSafe)) })
            .await;
        if let Err(error) = armed {
            return Err((Some(pase), error));
        }
        failpoint::reach("arm.after");
        run.device(DeviceEvent::Armed);
        let described = step_with_session(run, Step::ReadInfo, PaseCommissionee::new(pase).describe()).await?;
        let overridden = order.attestation_override.as_ref();
        // The cloud answers while the device does: asking costs no time.
        let allowed = self.ask_cloud(order, described.description());
        let attesting = step_with_session(run, Step::Attestation, described.attest(self.judge.as_ref(), overridden));
        let (attested, allowed) = tokio::join!(attesting, allowed);
        let attested = attested?;
        match allowed {
            PreflightAnswer::Go => {}
            PreflightAnswer::GoAnd(note) => (run.progress)(Progress::Note(note)),
            PreflightAnswer::Refuse(reason) => {
                return Err((Some(attested.into_session()), CommissioningError::CloudRefuses { reason }));
            }
        }
        for finding in &attested.judgement().report.findings {
            (run.progress)(Progress::Note(format!("attestation: {} ({})", finding.message, finding.code)));
        }
        Ok(attested)
    }

    /// Whether the cloud would take the device, where its keys are known by now.
    fn ask_cloud(
        &self,
        order: &Order,
        description: &DeviceDescription,
    ) -> impl Future<Output = PreflightAnswer> + Send + use<L, D, S, J> {
        let device = identity::known_beforehand(&order.identity, &self.settings.profiles, &description.basic);
        let asking = match (&self.preflight, device) {
            (Some(preflight), Some(device)) if !order.no_bind => Some(preflight(device)),
            _ => None,
        };
        async move {
            match asking {
                Some(asking) => asking.await,
                None => PreflightAnswer::Go,
            }
        }
    }

    /// CSR, node id, NOC, the provisional row, root and NOC.
    async fn give_credentials(
        &self,
        run: &mut Run<'_>,
        order: &Order,
        found: &Found,
        attested: AttestedCommissionee<L::Pase>,
    ) -> Kept<L::Pase, Credentialed<L::Pase>> {
        let (description, judgement) = (attested.description().clone(), attested.judgement().clone());
        let peer = attested.session().peer();
        let issued = run
            .step(Step::Csr, async {
                let csr = attested.request_csr().await?;
                let node = self.store.allocate_node_id().await.map_err(at_store(Step::Csr))?;
                failpoint::reach("node-id.allocated");
                let noc = attested.issue_noc(self.link.as_ref(), node, &csr).await?;
                failpoint::reach("noc.issued");
                let draft = Draft { order, found, description: &description, judgement: &judgement, node, peer };
                let provisional = ProvisionalNode {
                    attempt_id: order.attempt_id,
                    record: self.provisional_record(&draft),
                    task: None,
                    evidence: judgement.to_json(),
                };
                self.store.save_provisional(&provisional).await.map_err(at_store(Step::Csr))?;
                failpoint::reach("provisional.saved");
                Ok(noc)
            })
            .await;
        let noc = match issued {
            Ok(noc) => noc,
            Err(error) => return Err((Some(attested.into_session()), error)),
        };
        let rearmed = run.keep_armed(attested.session()).await;
        let rooted = match rearmed {
            Ok(()) => run.step(Step::AddRoot, attested.add_root()).await,
            Err(error) => Err(error),
        };
        if let Err(error) = rooted {
            return Err((Some(attested.into_session()), error));
        }
        let subject = self.settings.admin_cat.subject();
        let added = step_with_session(run, Step::AddNoc, attested.add_noc(&noc, subject)).await;
        let commissionee = match added {
            Ok(commissionee) => commissionee,
            Err((session, error)) => return Err((session, self.named(error, &description).await)),
        };
        Ok(Credentialed { commissionee, description, judgement, node: noc.node_id })
    }

    /// A device that holds our fabric already is one of our nodes: which one, its identity tells.
    async fn named(&self, error: CommissioningError, description: &DeviceDescription) -> CommissioningError {
        let (step, code, basic) = (error.step(), error.code(), &description.basic);
        if code != "already-on-this-fabric" {
            return error;
        }
        let same =
            |record: &NodeRecord| record.unique_id == basic.unique_id && record.serial_number == basic.serial_number;
        let known = self.store.nodes_of_product(basic.vendor_id, basic.product_id).await.unwrap_or_default();
        match known.into_iter().rfind(same) {
            Some(node) => CommissioningError::AlreadyOurs { step, node: Box::new(node) },
            None => error,
        }
    }

    /// CASE with the new node, at the address that PASE used and wherever it announces itself, until the step's time is over: a
    /// handshake that was not answered or refused once proves nothing while the fail-safe holds. `sleep` is what the device's
    /// own rhythm adds to the wait for it.
    async fn meet(&self, node: NodeId, peer: SocketAddr, sleep: Duration) -> Result<L::Case, CommissioningError> {
        let (budget, compressed) = (self.settings.limits.step / 2 + sleep, self.settings.compressed_fabric_id);
        let give_up = Instant::now() + (self.settings.limits.meeting() + sleep).saturating_sub(OPERATIONAL_LOOKUP);
        let mut addresses = vec![peer];
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
                    if Instant::now() >= give_up {
                        return Err(CommissioningError::Link { step: Step::Operational, source: error });
                    }
                    addresses = self.discovery.operational(compressed, node, OPERATIONAL_LOOKUP).await;
                    if !addresses.contains(&peer) {
                        addresses.push(peer);
                    }
                    tokio::time::sleep(MEET_AGAIN).await;
                }
                other => {
                    return other.map_err(|source| CommissioningError::Link { step: Step::Operational, source });
                }
            }
        }
    }

    /// The identity in the cloud, or the bind status of a device that has none. Asked before CommissioningComplete, but
    /// no reason to fail: a device without one stays local.
    async fn bind_identity(
        &self,
        run: &Run<'_>,
        order: &Order,
        description: &DeviceDescription,
        accessed: &AccessedNode<L::Case>,
    ) -> Result<Eligible, BindStatus> {
        if order.no_bind || !self.settings.cloud {
            let message = if order.no_bind { "asked not to bind" } else { "no cloud is configured" };
            return Err(BindStatus { message: message.to_owned(), ..BindStatus::default() });
        }
        let limit = self.settings.limits.step + run.attempt.sleep();
        let resolving =
            identity::resolve(&order.identity, &self.settings.profiles, &description.basic, accessed.session());
        match tokio::time::timeout(limit, resolving).await {
            Ok(resolved) => resolved.map_err(|not_eligible| not_eligible.status()),
            Err(_) => Err(BindStatus {
                state: BindState::NotEligible,
                message: "the device did not tell its cloud identity in time".to_owned(),
                ..BindStatus::default()
            }),
        }
    }

    /// The provisional row as the record will be, then CommissioningComplete: from here on the device may stay ours, and
    /// whoever finds the row after a crash needs all that the record and its bind are made of. A lost answer is settled by
    /// asking again in a new session: NoFailSafe then means that the first one arrived.
    async fn complete(
        &self,
        run: &mut Run<'_>,
        accessed: &AccessedNode<L::Case>,
        node: &ProvisionalNode,
        peer: SocketAddr,
    ) -> Result<(), CommissioningError> {
        let (id, sleep) = (node.record.node_id, run.attempt.sleep());
        if !run.stop.is_cancelled() {
            run.device(DeviceEvent::CompleteSent);
        }
        let completed = run
            .step(Step::Complete, async {
                self.store.save_provisional(node).await.map_err(at_store(Step::Complete))?;
                failpoint::reach("complete.saved");
                let answer = accessed.session().commissioning_complete().await;
                failpoint::reach("complete.sent");
                match answer {
                    Err(LinkError::Unreachable { .. } | LinkError::SessionLost) => {
                        let again = self.meet(id, peer, sleep).await?;
                        confirmed(again.commissioning_complete().await)
                    }
                    other => confirmed(other),
                }
                .map_err(|source| CommissioningError::Link { step: Step::Complete, source })
            })
            .await;
        if completed.is_ok() {
            failpoint::reach("complete.after");
            run.device(DeviceEvent::CompleteConfirmed);
        }
        completed
    }

    /// Undoes what the device holds of us; true where it may still hold it, so that the provisional row must stay.
    async fn roll_back(&self, run: &Run<'_>, sessions: Sessions<L::Pase, L::Case>) -> bool {
        let undo = run.attempt.undo();
        let undone = async {
            match (undo, &sessions.pase, &sessions.case) {
                (Undo::Nothing, _, _) => true,
                // Where this does not arrive, the fail-safe expires by itself: the device rolls back either way.
                (Undo::ExpireFailSafe, Some(pase), _) => {
                    let _ = pase.arm_fail_safe(Duration::ZERO).await;
                    true
                }
                (Undo::ExpireFailSafe, None, _) => true,
                // A device that has completed has closed PASE: if it still answers there, it has not, and rolls back.
                (Undo::Probe, Some(pase), _) => pase.arm_fail_safe(Duration::ZERO).await.is_ok(),
                (Undo::RemoveFabric, _, Some(case)) => case.remove_fabric(sessions.fabric_index).await.is_ok(),
                // Start-up and the next announcement ask the device.
                (Undo::Probe, None, _) | (Undo::RemoveFabric, _, None) => false,
            }
        };
        match tokio::time::timeout(ROLLBACK, undone).await {
            Ok(undone) => !undone,
            Err(_) => !matches!(undo, Undo::Nothing | Undo::ExpireFailSafe),
        }
    }

    async fn note_failure(&self, order: &Order, error: &CommissioningError, still_open: bool) {
        let (step, code) = (error.step(), error.code());
        let ended = self.store.fail_attempt(order.attempt_id, step.as_str(), code, still_open, Timestamp::now()).await;
        let message = format!("commissioning failed at {step}: {error}. {}", error.hint());
        let mut event = Event::new(Timestamp::now(), Level::Error, "commissioning-failed", message)
            .with_attempt(order.attempt_id)
            .with("step", step.as_str())
            .with("code", code)
            .with("discriminator", order.payload.discriminator.to_string());
        if let Err(store) = ended {
            event = event.with("store", store.to_string());
        }
        self.journal.record(event);
    }

    fn provisional_record(&self, draft: &Draft<'_>) -> NodeRecord {
        let status = BindStatus::default();
        let mut record = self.record(draft, 0, &[], &Err(status));
        record.state = NodeState::Provisional;
        record
    }

    fn record(
        &self,
        draft: &Draft<'_>,
        fabric_index: u8,
        cats: &[CatGrant],
        bind: &Result<Eligible, BindStatus>,
    ) -> NodeRecord {
        let Draft { order, found, description, judgement, node, peer } = *draft;
        let basic = &description.basic;
        let eligible = bind.as_ref().ok();
        let now = Timestamp::now();
        NodeRecord {
            fabric_id: self.settings.fabric_id,
            node_id: node,
            fabric_index,
            vendor_id: basic.vendor_id,
            product_id: basic.product_id,
            discriminator: found.discriminator,
            matter_version: basic.matter_version(),
            vendor_name: basic.vendor_name.clone(),
            product_name: basic.product_name.clone(),
            serial_number: basic.serial_number.clone(),
            unique_id: basic.unique_id.clone(),
            cats: cats.to_vec(),
            product_key: eligible.map(|e| e.device.product_key.clone()).or_else(|| order.identity.product_key.clone()),
            device_key: eligible.map(|e| e.device.device_key.clone()).or_else(|| order.identity.device_key.clone()),
            name: name_for(order, description, node),
            family_id: order.family_id.clone().or_else(|| self.settings.home.0.clone()),
            room_id: order.room_id.clone().or_else(|| self.settings.home.1.clone()),
            capabilities_bitmask: eligible.map_or(1 << 1 | 1 << 3, |e| e.capabilities_bitmask),
            bind_options: eligible.map(|e| e.options.clone()).unwrap_or_default(),
            attestation: judgement.summary(),
            addresses: addresses(&found.node, peer),
            port: peer.port(),
            rhythm: found.node.txt.rhythm(),
            also_known_as: Vec::new(),
            commissioned_at: now,
            last_seen_at: Some(now),
            state: NodeState::Operational,
            bind: match bind {
                Ok(_) => BindStatus { state: BindState::Pending, ..BindStatus::default() },
                Err(status) => status.clone(),
            },
            replaces: None,
        }
    }
}

/// A device that took the passcode.
struct Found {
    node: CommissionableNode,
    /// All twelve bits, where somebody told them.
    discriminator: Option<u16>,
}

/// What a record is made of.
#[derive(Clone, Copy)]
struct Draft<'a> {
    order: &'a Order,
    found: &'a Found,
    description: &'a DeviceDescription,
    judgement: &'a Judgement,
    node: NodeId,
    peer: SocketAddr,
}

/// A step whose work owns the session and gives it back with its error. When the step's deadline passes, the work is
/// dropped with the session; the device's own fail-safe then rolls it back.
async fn step_with_session<P, T>(
    run: &mut Run<'_>,
    step: Step,
    work: impl Future<Output = Result<T, (P, CommissioningError)>>,
) -> Kept<P, T> {
    let mut session = None;
    let outcome = run
        .step(step, async {
            work.await.map_err(|(kept, error)| {
                session = Some(kept);
                error
            })
        })
        .await;
    outcome.map_err(|error| (session, error))
}

fn at_store(step: Step) -> impl Fn(StoreError) -> CommissioningError {
    move |source| CommissioningError::Store { step, source }
}

/// NoFailSafe (3) in answer to CommissioningComplete means, over CASE, that there is nothing left to complete.
fn confirmed(answer: Result<(), LinkError>) -> Result<(), LinkError> {
    match answer {
        Err(LinkError::Commissioning { code: 3, .. }) => Ok(()),
        other => other,
    }
}

/// The cloud takes no device without its discriminator (5879), and a made-up number would be another device's.
fn unknown_discriminator() -> BindStatus {
    BindStatus {
        state: BindState::NotEligible,
        message: "nobody told the device's discriminator: the manual code has a part of it, and the device does not announce itself at \
                  the address that was given. Commission it by its QR code, or without --address"
            .to_owned(),
        ..BindStatus::default()
    }
}

/// The bind that a record asks for.
pub fn bind_task(record: &NodeRecord, eligible: Eligible) -> OutboxTask {
    OutboxTask::Bind(Box::new(BindRequest {
        device: eligible.device,
        binding_code: eligible.binding_code,
        // The cloud's limit is unknown (5333); 64 characters are surely taken (cloud-contract 5).
        device_name: Some(plain::clean(&record.name, usize::MAX).chars().take(64).collect()),
        family_id: record.family_id.clone(),
        room_id: record.room_id.clone(),
        capabilities_bitmask: eligible.capabilities_bitmask,
        options: eligible.options,
        matter_info: matter_info(record),
    }))
}

/// The Matter identity of a record, as the cloud is told.
pub fn matter_info(record: &NodeRecord) -> MatterInfo {
    MatterInfo::of(record)
}

/// All addresses, the one that answered first.
fn addresses(found: &CommissionableNode, peer: SocketAddr) -> Vec<String> {
    let (answered, others): (Vec<_>, Vec<_>) =
        found.addresses.iter().partition(|address| address.socket(found.port) == peer);
    let mut all: Vec<String> = answered.into_iter().chain(others).map(ToString::to_string).collect();
    all.dedup();
    all
}

fn name_for(order: &Order, description: &DeviceDescription, node: NodeId) -> String {
    let default = || NodeRecord::default_name(&description.basic.product_name, node);
    order.name.clone().unwrap_or_else(default)
}

/// The order with what its device had before, where the order says nothing.
fn succeeding(order: &Order, before: Option<&NodeRecord>) -> Order {
    let mut order = order.clone();
    let Some(before) = before else { return order };
    // A name that nobody gave has the old node's number in it.
    let named = (!before.has_default_name()).then(|| before.name.clone());
    order.name = order.name.or(named);
    order.family_id = order.family_id.or_else(|| before.family_id.clone());
    order.room_id = order.room_id.or_else(|| before.room_id.clone());
    let GivenIdentity { product_key, device_key, .. } = &mut order.identity;
    if product_key.is_none() && device_key.is_none() {
        (*product_key, *device_key) = (before.product_key.clone(), before.device_key.clone());
    }
    order
}
