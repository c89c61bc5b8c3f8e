//! Walks one device along the path of types (`path`), keeps time (`attempt`), writes what must be durable before it is
//! acted on, and rolls back whatever fails. One call of [`Commissioner::commission`] is one attempt.
//!
//! Many run side by side; `max_concurrent` of them at once. An attempt goes on when its client leaves. When the daemon
//! stops, the step under way ends first (or its deadline passes), then the fail-safe is expired.

mod approach;
mod finish;
mod joining;
mod known;
mod leftover;
mod record;
mod run;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use uuid::Uuid;

pub(crate) use self::approach::Turn;
use self::approach::{Found, Hold};
use self::finish::Beginning;
pub(crate) use self::finish::Resumption;
use self::joining::Joining;
use self::record::Draft;
pub(crate) use self::record::bind_task;
use self::run::{Run, now};
use crate::attestation::policy::AttestationOverride;
use crate::bind::CloudDevice;
use crate::commissioning::attempt::{Attempt, DeviceEvent, Limits, Undo};
use crate::commissioning::error::CommissioningError;
use crate::commissioning::fingerprint::FingerprintKey;
use crate::commissioning::identity::{self, Profile};
use crate::commissioning::network::HomeNetworks;
use crate::commissioning::path::{
    AcceptedTerms, ArmedCommissionee, AttestedCommissionee, Breadcrumb, CertifiedCommissionee, CommissionedNode,
    PaseCommissionee, Preparation, Shown,
};
use crate::commissioning::ports::{
    AttestationJudge, Discovery, FailSafe, MatterLink, NodeStore, Particulars, PaseSession, ProvisionalNode, Stage,
};
use crate::commissioning::radio::Radio;
use crate::commissioning::step::Step;
use crate::commissioning::together::Together;
use crate::durable::StoreError;
use crate::fabric::{Cat, CatGrant};
use crate::failpoint;
use crate::journal::{Event, EventSink, Level};
use crate::node::{BasicInformation, FabricId, NodeRecord};
use crate::onboarding::OnboardingPayload;
use crate::outbox::ports::OutboxId;

/// How long the rollback of a failed attempt may take: the client waits for it.
const ROLLBACK: Duration = Duration::from_secs(5);
/// CASE with the address that PASE used normally succeeds at once; only after this is mDNS asked.
const OPERATIONAL_LOOKUP: Duration = Duration::from_secs(5);
/// CASE is tried again after this, where the device was not met.
const MEET_AGAIN: Duration = Duration::from_millis(500);

/// What does not change from attempt to attempt.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub limits: Limits,
    pub fabric_id: FabricId,
    /// Its compressed id, which operational nodes announce.
    pub compressed_fabric_id: u64,
    /// What other administrators see as its name.
    pub label: String,
    /// The tag in the hub's own certificate.
    pub admin_cat: Cat,
    /// What other tags may do.
    pub grants: Vec<CatGrant>,
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
pub(crate) struct Order {
    pub attempt_id: Uuid,
    /// The understood code.
    pub payload: OnboardingPayload,
    /// Where the device is; it is tried there only.
    pub address: Option<SocketAddr>,
    /// What the record and the cloud are to say.
    pub particulars: Particulars,
    /// Let it pass whatever attestation finds.
    pub attestation_override: Option<AttestationOverride>,
    /// Which network of the home a device on Bluetooth is brought to; the default one where none is named.
    pub network: Option<String>,
    /// How long a device on Bluetooth waits for other credentials where it could not join.
    pub wait_network: Duration,
    /// Which of the device's terms a person has accepted.
    pub terms: Option<AcceptedTerms>,
}

/// A commissioned and recorded device.
#[derive(Debug, Clone)]
pub(crate) struct Commissioned {
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
pub(crate) enum Progress {
    /// A step began.
    Started(Step),
    /// A step ended well.
    Finished(Step, Duration),
    Note(String),
    /// The device waits until a person has done something.
    Waits {
        /// The stable word of what is in the way.
        code: &'static str,
        /// What is in the way, as a sentence.
        message: String,
        /// What to do about it.
        hint: &'static str,
        /// For how long yet.
        left: Duration,
    },
}

/// Takes progress; never blocks.
pub(crate) type ProgressFn<'a> = &'a (dyn Fn(Progress) + Send + Sync);

/// What the cloud says about a device that is about to get credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PreflightAnswer {
    /// Nothing speaks against it.
    Go,
    /// Go on, and say this.
    GoAnd(String),
    /// Leave the device as it is, for this reason.
    Refuse(String),
}

/// Asks the cloud about a device; answers within seconds, whatever the cloud does.
pub(crate) type Preflight = Arc<dyn Fn(CloudDevice) -> BoxFuture<'static, PreflightAnswer> + Send + Sync>;

/// Finds the record that a device had before it was reset: only one whose node surely does not answer any more, and that is
/// flagged so. Answers within seconds.
pub(crate) type FindPredecessor = Arc<dyn Fn(BasicInformation) -> BoxFuture<'static, Option<NodeRecord>> + Send + Sync>;

pub(crate) struct Commissioner<L, D, S, J> {
    /// The Matter stack.
    pub link: Arc<L>,
    pub discovery: Arc<D>,
    pub radio: Arc<dyn Radio>,
    /// The networks of the home.
    pub networks: Arc<dyn HomeNetworks>,
    /// Where the hub is, and what time it is there.
    pub place: Arc<dyn Fn() -> Preparation + Send + Sync>,
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

/// What a rollback works with: the sessions, and the device itself until that is over.
struct Reached<P, C> {
    pase: Option<Arc<P>>,
    node: Option<CommissionedNode<C>>,
    hold: Option<Hold>,
}

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
    pub(crate) async fn commission(
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
        let attempt = Attempt::new(self.settings.limits, now());
        let mut run = Run { attempt, progress, stop: &self.stop, breadcrumb: Breadcrumb::Armed };
        let mut held = Reached { pase: None, node: None, hold: None };
        match self.walk(&mut run, &order, turn, &mut held).await {
            Ok((record, outbox_id)) => Ok(Commissioned { record, outbox_id, attempt: run.attempt, ended: now() }),
            Err(error) => {
                let still_open = self.roll_back(&run, &held).await;
                self.note_failure(&order, &error, still_open).await;
                Err(error)
            }
        }
    }

    /// The path. What a rollback needs is left in `held`.
    async fn walk(
        &self,
        run: &mut Run<'_>,
        order: &Order,
        turn: Turn<'_>,
        held: &mut Reached<L::Pase, L::Case>,
    ) -> Result<(NodeRecord, Option<OutboxId>), CommissioningError> {
        let (found, pase) = self.begin_and_approach(run, order, turn, held).await?;
        let fail_safe = run.attempt.fail_safe();
        // Its answer may get lost.
        if !run.stop.is_cancelled() {
            run.device(DeviceEvent::Armed);
        }
        let armed = run.step(Step::ArmFailSafe, PaseCommissionee::new(Arc::clone(&pase)).arm(fail_safe)).await?;
        let attested = self.attest(run, order, armed).await?;
        let (certified, shown, row) = self.certify(run, order, &found, attested, pase.peer().udp()).await?;
        run.keep_armed(pase.as_ref()).await?;
        let rooted = run.step(Step::AddRoot, certified.add_root()).await?;
        let added = run.step(Step::AddNoc, rooted.add_noc(self.settings.admin_cat.subject())).await;
        let credentialed = match added {
            Ok(credentialed) => credentialed,
            Err(error) => return Err(self.named(error, &shown.description.basic).await),
        };
        let draft = Draft { settings: &self.settings, order, found: &found, shown: &shown, met_at: None };
        let joining = Joining { draft: &draft, row: &row, pase: pase.as_ref() };
        let networked = self.bring_onto_network(run, joining, credentialed).await?;
        let (joined, sleep) = (networked.clone(), run.attempt.sleep());
        let meeting = self.meet(&joined, sleep);
        let met = run.step(Step::Operational, networked.met(meeting)).await;
        let rearmed = run.keep_armed(pase.as_ref()).await;
        let (operational, ()) = (met?, rearmed?);
        let unfinished = draft.unfinished(run.attempt.fail_safe());
        let beginning = Beginning { row: &row, unfinished: &unfinished, description: &shown.description };
        self.finish(run, beginning, operational, pase.as_ref(), &mut held.node).await
    }

    /// From here on it is known that there was an attempt, and what recognises its code.
    async fn begin(&self, order: &Order) -> Result<(), CommissioningError> {
        failpoint::reach("attempt.before");
        let fingerprint = self.settings.fingerprints.fingerprint(&order.payload);
        let discriminator = order.payload.discriminator;
        let began = self.store.begin_attempt(order.attempt_id, discriminator, fingerprint, Timestamp::now()).await;
        began.map_err(at_store(Step::Parse))?;
        failpoint::reach("attempt.begun");
        Ok(())
    }

    /// Description and attestation, while the cloud is asked whether it would take the device.
    async fn attest(
        &self,
        run: &mut Run<'_>,
        order: &Order,
        armed: ArmedCommissionee<L::Pase>,
    ) -> Result<AttestedCommissionee<L::Pase>, CommissioningError> {
        let place = Preparation { terms: order.terms, ..(self.place)() };
        let described = run.step(Step::ReadInfo, armed.describe(&place)).await?;
        let overridden = order.attestation_override.as_ref();
        // The cloud answers while the device does: asking costs no time.
        let allowed = self.ask_cloud(order, &described.description().basic);
        let attesting = run.step(Step::Attestation, described.attest(self.judge.as_ref(), overridden));
        let (attested, allowed) = tokio::join!(attesting, allowed);
        let attested = attested?;
        match allowed {
            PreflightAnswer::Go => {}
            PreflightAnswer::GoAnd(note) => (run.progress)(Progress::Note(note)),
            PreflightAnswer::Refuse(reason) => return Err(CommissioningError::CloudRefuses { reason }),
        }
        for finding in &attested.shown().judgement.report.findings {
            (run.progress)(Progress::Note(format!("attestation: {} ({})", finding.message, finding.code)));
        }
        Ok(attested)
    }

    /// Whether the cloud would take the device, where its keys are known by now.
    fn ask_cloud(
        &self,
        order: &Order,
        basic: &BasicInformation,
    ) -> impl Future<Output = PreflightAnswer> + Send + use<L, D, S, J> {
        let device = identity::known_beforehand(&order.particulars.identity, &self.settings.profiles, basic);
        let asking = match (&self.preflight, device) {
            (Some(preflight), Some(device)) if !order.particulars.no_bind => Some(preflight(device)),
            _ => None,
        };
        async move {
            match asking {
                Some(asking) => asking.await,
                None => PreflightAnswer::Go,
            }
        }
    }

    /// CSR; node id and provisional row in one commit; NOC. The device has none of it yet. One that was met over IP is on our fabric
    /// as soon as it has its certificate; for any other the row says so when it is sent to its network.
    async fn certify(
        &self,
        run: &mut Run<'_>,
        order: &Order,
        found: &Found,
        attested: AttestedCommissionee<L::Pase>,
        met_at: Option<SocketAddr>,
    ) -> Result<(CertifiedCommissionee<L::Pase>, Shown, ProvisionalNode), CommissioningError> {
        let fail_safe = run.attempt.fail_safe();
        run.step(Step::Csr, async {
            let keyed = attested.request_csr().await?;
            let draft = Draft { settings: &self.settings, order, found, shown: keyed.shown(), met_at };
            let stage = match met_at {
                Some(_) => Stage::OnFabric(draft.unfinished(fail_safe)),
                None => Stage::GivenAway,
            };
            let row = draft.provisional(stage);
            let node = self.store.begin_provisional(row.clone()).await.map_err(at_store(Step::Csr))?;
            failpoint::reach("provisional.saved");
            let (certified, shown) = keyed.issue_noc(self.link.as_ref(), node).await?;
            Ok((certified, shown, row.with_node_id(node)))
        })
        .await
    }

    /// Undoes what the device holds of us; true where it may still hold it, so that the provisional row must stay.
    async fn roll_back(&self, run: &Run<'_>, held: &Reached<L::Pase, L::Case>) -> bool {
        let undo = run.attempt.undo();
        let undone = async {
            match (undo, &held.pase, &held.node) {
                (Undo::Nothing, _, _) => true,
                // Where this does not arrive, the fail-safe expires by itself: the device rolls back either way.
                (Undo::ExpireFailSafe, Some(pase), _) => {
                    let _ = pase.arm_fail_safe(Duration::ZERO, 0).await;
                    true
                }
                (Undo::ExpireFailSafe, None, _) => true,
                // A device that has completed has closed PASE: if it still answers there, it has not, and rolls back.
                (Undo::Probe, Some(pase), _) => pase.arm_fail_safe(Duration::ZERO, 0).await.is_ok(),
                (Undo::RemoveFabric, _, Some(node)) => node.remove().await.is_ok(),
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
}

fn at_store(step: Step) -> impl Fn(StoreError) -> CommissioningError {
    move |cause| CommissioningError::Store { step, cause }
}

#[cfg(test)]
#[cfg(feature = "sim")]
mod tests;
