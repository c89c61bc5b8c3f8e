//! Takes devices in: a request becomes an order, the order an attempt, and what came of it is told and written down. `attempts`
//! knows those under way. The way of one device is `commissioning::driver`'s.

use std::future::Future;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{broadcast, mpsc};
use uuid::Uuid;

use self::attempts::{Begun, UnderWay};
use super::Hub;
use super::refusal::Refusal;
use super::world::World;
pub(crate) use crate::attestation::policy::AttestationOverride;
use crate::bind::BindState;
use crate::commissioning::driver::{self, Commissioned, Order, Turn};
use crate::commissioning::error::CommissioningError;
use crate::commissioning::identity::{GivenIdentity, check_given};
use crate::commissioning::ports::{DiscoverError, Particulars};
use crate::commissioning::step::Step;
use crate::journal::{Event, EventSink, Level};
use crate::onboarding::OnboardingPayload;
use crate::outbox::dispatcher::{OutboxResult, wait_for};

mod answer;
pub(crate) mod attempts;

pub(super) use answer::write_binding_code;

pub use answer::{CommissionEvent, CommissionRequest, CommissionResult, Failure, Timings};

/// Commissions devices, from a setup code to a record and its binding.
pub trait CommissionDoor: Send + Sync + 'static {
    /// One attempt, from the setup code to the record, and up to `wait_bind_ms` longer for the cloud. A failure is a result.
    fn commission(
        &self,
        request: CommissionRequest,
        progress: ProgressSink,
    ) -> impl Future<Output = Result<CommissionResult, Refusal>> + Send;
}

/// Takes the progress of an attempt. Never blocks and never fails: an attempt goes on when nobody listens any more.
#[derive(Debug, Clone)]
pub struct ProgressSink(mpsc::UnboundedSender<CommissionEvent>);

impl ProgressSink {
    /// A sender and what comes out of it. An attempt sends a few dozen events, so the queue needs no bound.
    pub fn channel() -> (Self, mpsc::UnboundedReceiver<CommissionEvent>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    /// Passes an event on.
    pub fn report(&self, event: CommissionEvent) {
        // The client may have left; the attempt goes on.
        let _ = self.0.send(event);
    }

    /// Whether nobody listens any more.
    pub fn has_left(&self) -> bool {
        self.0.is_closed()
    }

    /// Comes back when nobody listens any more.
    pub async fn left(&self) {
        self.0.closed().await;
    }
}

/// The longest that a client may let an attempt wait for the cloud.
const WAIT_BIND_MAX: Duration = Duration::from_secs(600);

/// The longest that a device may wait for other credentials: what it grants its fail-safe in all.
const WAIT_NETWORK_MAX: Duration = Duration::from_secs(600);

impl<W: World> CommissionDoor for Hub<W> {
    /// A request for a device that is being taken in joins that attempt.
    async fn commission(
        &self,
        request: CommissionRequest,
        progress: ProgressSink,
    ) -> Result<CommissionResult, Refusal> {
        let attempt_id = Uuid::now_v7();
        let wait_bind = Duration::from_millis(request.wait_bind_ms).min(WAIT_BIND_MAX);
        let order = match order(attempt_id, request) {
            Ok(order) => order,
            Err(error) => {
                progress.report(CommissionEvent::Accepted { attempt_id });
                self.metrics.count_attempt("failed", error.code(), None);
                self.note_misunderstood(attempt_id, &error);
                return Ok(CommissionResult::Failed(Failure::new(attempt_id, &error)));
            }
        };
        let guard = match self.attempts.begin(attempt_id, &order.payload, order.address, progress)? {
            Begun::New(guard) => guard,
            Begun::Joined(other) => {
                return other.result().await.ok_or_else(|| Refusal::not_ready("the attempt's task"));
            }
        };
        let result = self.attempt(order, guard.attempt(), wait_bind).await;
        guard.finish(&result);
        Ok(result)
    }
}

impl<W: World> Hub<W> {
    /// Whether this attempt is running now.
    pub(super) fn is_under_way(&self, attempt: Uuid) -> bool {
        self.attempts.contains(attempt)
    }

    async fn attempt(&self, order: Order, under_way: &UnderWay, wait_bind: Duration) -> CommissionResult {
        let attempt_id = order.attempt_id;
        self.note_start(&order);
        // Before the row can be written: then its settling cannot be missed.
        let results = self.outbox.as_ref().map(|outbox| outbox.results());
        let report = |event: driver::Progress| under_way.report(self.observe(event));
        match self.commissioner.get().commission(order, &report, self.turn(under_way)).await {
            Ok(commissioned) => {
                let commissioned = self.taken_in(attempt_id, commissioned).await;
                self.await_bind(attempt_id, commissioned, results, wait_bind, under_way).await
            }
            Err(error) => {
                self.metrics.count_attempt("failed", error.code(), None);
                let mut failure = Failure::new(attempt_id, &error);
                if let CommissioningError::Discover(DiscoverError::NotFound { .. }) = error {
                    failure.hint.push_str(&self.foreign_hint().await);
                }
                let failed = CommissionResult::Failed(failure);
                let CommissioningError::BeingCommissioned { attempt } = error else { return failed };
                let message =
                    format!("attempt {attempt} is bringing this device in; what comes of it is the answer here too");
                under_way.report(CommissionEvent::Note { message });
                match self.interrupted.commissioned(attempt) {
                    Some(commissioned) => self.await_bind(attempt, commissioned, results, wait_bind, under_way).await,
                    None => self.join(attempt, failed).await,
                }
            }
        }
    }

    /// A device that is not found may be on our fabric without a record: then it does not wait for a commissioner.
    async fn foreign_hint(&self) -> String {
        match self.foreign_nodes().await.map_or(0, |foreign| foreign.len()) {
            0 => String::new(),
            count => format!(
                ". It may be one of {count} on our fabric without a record, as after an older backup was restored: \
                 `matterbind nodes` lists them"
            ),
        }
    }

    /// Another code of the same device is being worked on: what comes of that attempt is the answer.
    async fn join(&self, attempt: Uuid, otherwise: CommissionResult) -> CommissionResult {
        match self.attempts.get(attempt) {
            Some(other) => other.result().await.unwrap_or(otherwise),
            None => otherwise,
        }
    }

    /// What follows once a device is recorded.
    pub(super) async fn taken_in(&self, attempt_id: Uuid, mut commissioned: Commissioned) -> Commissioned {
        // The old node may have answered at the last moment; then it was not replaced.
        if commissioned.record.replaces.is_some()
            && let Ok(Some(stored)) = self.store.node(commissioned.record.node_id).await
        {
            commissioned.record = stored;
        }
        commissioned.record = self.register_new_icd(commissioned.record).await;
        self.tell_succession(&commissioned.record);
        self.note_commissioned(attempt_id, &commissioned);
        commissioned
    }

    /// The attempt's turn. One that has to wait for it ends where its clients leave or the daemon stops.
    fn turn<'a>(&'a self, under_way: &'a UnderWay) -> Turn<'a> {
        Box::pin(async move {
            tokio::select! {
                biased;
                turn = self.attempts.turn() => turn.ok_or(CommissioningError::Stopped { step: Step::Discover }),
                () = self.stop.cancelled() => Err(CommissioningError::Stopped { step: Step::Discover }),
                () = under_way.abandoned() => Err(CommissioningError::Abandoned),
            }
        })
    }

    fn note_misunderstood(&self, attempt_id: Uuid, error: &CommissioningError) {
        let message = format!("commissioning failed at {}: {error}. {}", error.step(), error.hint());
        let event = Event::new(Timestamp::now(), Level::Error, "commissioning-failed", message);
        let event = event.with("step", error.step().as_str()).with("code", error.code());
        self.journal.record(event.with_attempt(attempt_id));
    }

    fn note_start(&self, order: &Order) {
        let message = format!("commissioning a device with {}", order.payload.discriminator);
        let event = Event::new(Timestamp::now(), Level::Info, "commissioning-started", message);
        self.journal.record(event.with_attempt(order.attempt_id));
        if let Some(AttestationOverride { who, why }) = &order.attestation_override {
            let message = format!("{who} lets this device pass whatever attestation finds: {why}");
            let event = Event::new(Timestamp::now(), Level::Warn, "attestation-override", message);
            self.journal.record(event.with_attempt(order.attempt_id).with("who", who.clone()).with("why", why.clone()));
        }
    }

    fn note_commissioned(&self, attempt_id: Uuid, commissioned: &Commissioned) {
        let record = &commissioned.record;
        let took = commissioned.attempt.total(commissioned.ended);
        self.metrics.count_attempt("commissioned", "", Some(took));
        let message = format!(
            "node {} ({}) commissioned: vendor {:#06x}, product {:#06x}, attestation {}",
            record.node_id, record.name, record.vendor_id, record.product_id, record.attestation.verdict
        );
        let event = Event::new(Timestamp::now(), Level::Info, "node-commissioned", message)
            .with_attempt(attempt_id)
            .with_node(record.node_id)
            .with("duration_ms", took.as_millis() as u64);
        self.journal.record(event);
        if record.bind.state == BindState::NotEligible {
            let message = format!("node {} stays local: {}", record.node_id, record.bind.message);
            let event = Event::new(Timestamp::now(), Level::Info, "bind-not-eligible", message);
            self.journal.record(event.with_attempt(attempt_id).with_node(record.node_id));
        }
    }

    pub(super) fn observe(&self, event: driver::Progress) -> CommissionEvent {
        match event {
            driver::Progress::Started(step) => CommissionEvent::StepStarted { step },
            driver::Progress::Finished(step, took) => {
                self.metrics.observe_step(step.as_str(), took);
                CommissionEvent::StepFinished { step, duration_ms: took.as_millis() as u64 }
            }
            driver::Progress::Note(message) => CommissionEvent::Note { message },
            driver::Progress::Waits { code, message, hint, left } => CommissionEvent::Waiting {
                code: code.to_owned(),
                message,
                hint: hint.to_owned(),
                left_ms: left.as_millis() as u64,
            },
        }
    }

    async fn await_bind(
        &self,
        attempt_id: Uuid,
        commissioned: Commissioned,
        results: Option<broadcast::Receiver<OutboxResult>>,
        wait: Duration,
        under_way: &UnderWay,
    ) -> CommissionResult {
        let mut node = commissioned.record.clone();
        let mut timings_ms = timings(&commissioned);
        if let (Some(row), Some(mut results)) = (commissioned.outbox_id, results) {
            let began = Instant::now();
            // Where it is the row of an attempt that went on, it may be settled already.
            let stored = self.store.node(node.node_id).await.ok().flatten();
            if stored.is_none_or(|stored| stored.bind.state == BindState::Pending) {
                wait_for(&mut results, row, wait).await;
            }
            timings_ms.bind = began.elapsed().as_millis() as u64;
            // The record says it best: a row that was missed or is not settled yet has left its status there.
            if let Ok(Some(now)) = self.store.node(node.node_id).await {
                node = now;
            }
            under_way.report(CommissionEvent::Bind { bind: node.bind.clone() });
        }
        let (bind, replaces) = (node.bind.clone(), node.replaces);
        CommissionResult::Commissioned { attempt_id, replaces, node: Box::new(node), bind, timings_ms }
    }
}

/// Understands a request; everything that can be wrong without asking a device is found here.
fn order(attempt_id: Uuid, request: CommissionRequest) -> Result<Order, CommissioningError> {
    let payload: OnboardingPayload = request.setup_code.parse()?;
    let identity = GivenIdentity {
        product_key: request.product_key.filter(|key| !key.is_empty()),
        device_key: request.device_key.filter(|key| !key.is_empty()),
        binding_code: request.binding_code.filter(|code| !code.expose().is_empty()),
        extra: request.extra.filter(|extra| !extra.is_empty()),
        is_common_device: request.is_common_device,
    };
    check_given(&identity)?;
    let particulars = Particulars {
        identity,
        name: request.name.filter(|name| !name.is_empty()),
        family_id: request.family_id.filter(|id| !id.is_empty()),
        room_id: request.room_id.filter(|id| !id.is_empty()),
        no_bind: request.no_bind,
    };
    Ok(Order {
        attempt_id,
        payload,
        address: request.address.map(with_default_port),
        particulars,
        attestation_override: request.attestation_override,
        network: request.network.filter(|name| !name.is_empty()),
        wait_network: Duration::from_millis(request.wait_network_ms).min(WAIT_NETWORK_MAX),
        terms: request.accept_terms,
    })
}

fn with_default_port(address: SocketAddr) -> SocketAddr {
    match address.port() {
        0 => SocketAddr::new(address.ip(), rs_matter::MATTER_PORT),
        _ => address,
    }
}

fn timings(commissioned: &Commissioned) -> Timings {
    let ended = commissioned.ended;
    let sum = |steps: &[Step]| {
        let took: Duration = steps.iter().map(|step| commissioned.attempt.duration(*step, ended)).sum();
        took.as_millis() as u64
    };
    Timings {
        discover: sum(&[Step::Discover]),
        pase: sum(&[Step::Pase, Step::ArmFailSafe, Step::ReadInfo]),
        attestation: sum(&[Step::Attestation]),
        credentials: sum(&[Step::Csr, Step::AddRoot, Step::AddNoc]),
        network: sum(&[Step::Network]),
        operational: sum(&[Step::Operational, Step::Complete]),
        access: sum(&[Step::Access]),
        record: sum(&[Step::Record]),
        total: commissioned.attempt.total(ended).as_millis() as u64,
        bind: 0,
    }
}
