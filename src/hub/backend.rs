//! Answers the admin API: the hub as its clients see it. What takes more than looking something up is in `nodes`.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{broadcast, mpsc};
use uuid::Uuid;

use super::Hub;
use super::access::{AccessReport, AccessView};
use super::commission::{CommissionEvent, CommissionRequest, CommissionResult, Failure, Timings};
use super::discover::{DiscoverChange, DiscoverChangeKind, DiscoverQuery, Discovered, DiscoveredNode};
use super::door::{Backend, Progress};
use super::inventory::{NodeCheck, NodeDetail, NodeRef, Nodes, ShareResult};
use super::keys::FabricInfo;
use super::log::LogQuery;
use super::outbox::Outbox;
use super::refusal::Refusal;
use super::removal::RemoveResult;
use super::status::{CloudStatus, NodeCounts, OutboxCounts, Status};
use super::sync::SyncReport;
use crate::backup::{Lock, Unlock};
use crate::bind::BindState;
use crate::commissioning::driver::{self, Commissioned, Order};
use crate::commissioning::error::CommissioningError;
use crate::commissioning::identity::{GivenIdentity, is_binding_code};
use crate::commissioning::ports::AttestationOverride;
use crate::commissioning::step::Step;
use crate::discovery::{DiscoveryEvent, Seen};
use crate::fabric::CatGrant;
use crate::failpoint;
use crate::journal::{Event, EventSink, Level};
use crate::matter::stack::StackHealth;
use crate::node::{NodeId, NodeRecord, NodeState};
use crate::onboarding::{OnboardingPayload, SetupCode};
use crate::outbox::dispatcher::{OutboxResult, wait_for};
use crate::outbox::ports::{OutboxId, OutboxState};
use crate::secret::BindingCode;
use crate::store::JournalFilter;

/// The longest that a client may let an attempt wait for the cloud.
const WAIT_BIND_MAX: Duration = Duration::from_secs(600);
/// The longest listing of `discover`.
const LISTEN_MAX: Duration = Duration::from_secs(60);
/// Changes that a slow watcher may be behind.
const WATCHED: usize = 256;

impl Hub {
    /// Whether this attempt is running now.
    pub(super) fn is_under_way(&self, attempt: Uuid) -> bool {
        self.running().contains(&attempt)
    }

    fn running(&self) -> MutexGuard<'_, HashSet<Uuid>> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn attempt(&self, attempt_id: Uuid, request: CommissionRequest, progress: &Progress) -> CommissionResult {
        let wait_bind = Duration::from_millis(request.wait_bind_ms).min(WAIT_BIND_MAX);
        let order = match order(attempt_id, request) {
            Ok(order) => order,
            Err(error) => {
                let message = format!("commissioning failed at {}: {error}. {}", error.step(), error.hint());
                let event = Event::new(Timestamp::now(), Level::Error, "commissioning-failed", message);
                let event = event.with("step", error.step().as_str()).with("code", error.code());
                self.journal.record(event.with_attempt(attempt_id));
                return CommissionResult::Failed(Failure::new(attempt_id, &error));
            }
        };
        self.note_start(&order);
        // Before the row can be written: then its settling cannot be missed.
        let results = self.outbox.as_ref().map(|outbox| outbox.results());
        let report = |event: driver::Progress| progress.report(self.observe(event));
        match self.commissioner.get().commission(order, &report).await {
            Ok(mut commissioned) => {
                // The old node may have answered at the last moment; then it was not replaced.
                if commissioned.record.replaces.is_some()
                    && let Ok(Some(stored)) = self.store.node(commissioned.record.node_id).await
                {
                    commissioned.record = stored;
                }
                self.tell_succession(&commissioned.record);
                self.note_commissioned(attempt_id, &commissioned);
                self.await_bind(attempt_id, commissioned, results, wait_bind, progress).await
            }
            Err(error) => {
                self.metrics.count_attempt("failed", error.code(), None);
                CommissionResult::Failed(Failure::new(attempt_id, &error))
            }
        }
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

    fn observe(&self, event: driver::Progress) -> CommissionEvent {
        match event {
            driver::Progress::Started(step) => CommissionEvent::StepStarted { step },
            driver::Progress::Finished(step, took) => {
                self.metrics.observe_step(step.as_str(), took);
                CommissionEvent::StepFinished { step, duration_ms: took.as_millis() as u64 }
            }
            driver::Progress::Note(message) => CommissionEvent::Note { message },
        }
    }

    async fn await_bind(
        &self,
        attempt_id: Uuid,
        commissioned: Commissioned,
        results: Option<broadcast::Receiver<OutboxResult>>,
        wait: Duration,
        progress: &Progress,
    ) -> CommissionResult {
        let mut node = commissioned.record.clone();
        let mut timings_ms = timings(&commissioned);
        if let (Some(row), Some(mut results)) = (commissioned.outbox_id, results) {
            let began = Instant::now();
            wait_for(&mut results, row, wait).await;
            timings_ms.bind = began.elapsed().as_millis() as u64;
            // The record says it best: a row that was missed or is not settled yet has left its status there.
            if let Ok(Some(now)) = self.store.node(node.node_id).await {
                node = now;
            }
            progress.report(CommissionEvent::Bind { bind: node.bind.clone() });
        }
        let (bind, replaces) = (node.bind.clone(), node.replaces);
        CommissionResult::Commissioned { attempt_id, replaces, node: Box::new(node), bind, timings_ms }
    }

    async fn counts(&self) -> (NodeCounts, OutboxCounts) {
        let Ok(counts) = self.store.counts().await else { return Default::default() };
        let nodes = |state| counts.nodes.get(&state).copied().unwrap_or_default();
        let rows = |state| counts.outbox.get(&state).copied().unwrap_or_default();
        let waiting_for_operator = rows(OutboxState::WaitingForOperator);
        let rejected = rows(OutboxState::Rejected);
        let total = counts.outbox.values().sum();
        (
            NodeCounts {
                total: counts.nodes.values().sum(),
                operational: nodes(NodeState::Operational),
                unreachable: nodes(NodeState::Unreachable),
                provisional: nodes(NodeState::Provisional),
                removing: nodes(NodeState::Removing),
            },
            OutboxCounts { total, pending: total - waiting_for_operator - rejected, waiting_for_operator, rejected },
        )
    }

    fn cloud_status(&self) -> CloudStatus {
        let Some(client) = &self.cloud else { return CloudStatus::default() };
        let health = client.health();
        CloudStatus {
            configured: true,
            reachable: health.reachable,
            base_url: self.config.cloud.as_ref().map(|cloud| cloud.base_url.clone()),
            last_answer_at: health.last_answer_at,
            message: health.sign_in_blocked.or(health.last_error).unwrap_or_default(),
            token_expires_at: health.token_expires_at,
        }
    }

    /// The store is told rarely when a node was last heard of.
    fn freshen(&self, record: &mut NodeRecord) {
        record.last_seen_at = record.last_seen_at.max(self.probes.last_contact(record.node_id));
    }

    pub(super) fn fabric_info(&self) -> FabricInfo {
        let credentials = self.link.credentials();
        let bundle = credentials.bundle();
        FabricInfo {
            fabric_id: bundle.fabric_id.0,
            compressed_fabric_id: credentials.compressed_fabric_id(),
            node_id: bundle.hub_node,
            label: self.config.fabric.label.clone(),
            admin_vendor_id: self.config.fabric.admin_vendor_id,
            admin_cat: self.wanted(None).admin.value(),
            root_key_online: self.keys.root_online(),
            root_public_key: credentials.root_public_key().iter().map(|byte| format!("{byte:02X}")).collect(),
        }
    }
}

impl Backend for Hub {
    async fn status(&self) -> Status {
        let mut waiting_for = Vec::new();
        if self.stack.health() != StackHealth::Running {
            waiting_for.push("the Matter stack".to_owned());
        }
        let (nodes, outbox) = self.counts().await;
        Status {
            ready: waiting_for.is_empty(),
            waiting_for,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started_at,
            pid: std::process::id(),
            fabric: Some(self.fabric_info()),
            nodes,
            attempts: self.running().len() as u32,
            outbox,
            cloud: self.cloud_status(),
        }
    }

    async fn commission(&self, request: CommissionRequest, progress: Progress) -> Result<CommissionResult, Refusal> {
        let attempt_id = Uuid::now_v7();
        progress.report(CommissionEvent::Accepted { attempt_id });
        let _turn = tokio::select! {
            turn = self.turns.acquire() => turn.map_err(|_| Refusal::not_ready("commissioning"))?,
            () = self.stop.cancelled() => {
                let error = CommissioningError::Stopped { step: Step::Parse };
                return Ok(CommissionResult::Failed(Failure::new(attempt_id, &error)));
            }
        };
        self.running().insert(attempt_id);
        let result = self.attempt(attempt_id, request, &progress).await;
        self.running().remove(&attempt_id);
        Ok(result)
    }

    async fn nodes(&self) -> Result<Nodes, Refusal> {
        let mut nodes = self.store.nodes().await?;
        nodes.iter_mut().for_each(|node| self.freshen(node));
        Ok(Nodes { nodes })
    }

    async fn resolve(&self, node: &NodeRef) -> Result<NodeId, Refusal> {
        match node {
            NodeRef::Id(id) => Ok(*id),
            NodeRef::Name(name) => {
                let found: Vec<NodeId> = self.store.nodes_by_name(name).await?.iter().map(|n| n.node_id).collect();
                match found.as_slice() {
                    [] => Err(Refusal::unknown_node(node)),
                    [one] => Ok(*one),
                    several => Err(Refusal::ambiguous_node(name, several)),
                }
            }
        }
    }

    async fn node(&self, node: NodeId) -> Result<NodeDetail, Refusal> {
        let mut record = self.record(node).await?;
        self.freshen(&mut record);
        let evidence = self.store.evidence(node).await?;
        let attestation_evidence = evidence.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        Ok(NodeDetail { node: record, attestation_evidence })
    }

    async fn check(&self, node: NodeId) -> Result<NodeCheck, Refusal> {
        self.check_node(node).await
    }

    async fn identify(&self, node: NodeId, seconds: u16) -> Result<(), Refusal> {
        self.identify_node(node, seconds).await
    }

    async fn rename(&self, node: NodeId, name: String) -> Result<NodeRecord, Refusal> {
        self.record(node).await?;
        self.store.rename_node(node, &name, Timestamp::now()).await?;
        failpoint::reach("rename.saved");
        let message = format!("node {node} is called {name:?} now");
        self.journal.record(Event::new(Timestamp::now(), Level::Info, "node-renamed", message).with_node(node));
        self.record(node).await
    }

    async fn share(&self, node: NodeId, seconds: u16) -> Result<ShareResult, Refusal> {
        self.share_node(node, seconds).await
    }

    async fn remove(&self, node: NodeId, force: bool) -> Result<RemoveResult, Refusal> {
        self.remove_node(node, force).await
    }

    async fn outbox(&self) -> Result<Outbox, Refusal> {
        Ok(Outbox { entries: self.store.outbox_entries().await?.iter().map(Into::into).collect() })
    }

    async fn outbox_retry(&self, id: i64) -> Result<Outbox, Refusal> {
        if self.store.outbox_entry(OutboxId(id)).await?.is_none() {
            return Err(Refusal::unknown_outbox_entry(id));
        }
        // A person asks: what blocked the sign-in may have been mended.
        if let Some(client) = &self.cloud {
            client.forget_sign_in_block().await;
        }
        self.store.retry_outbox(OutboxId(id), Timestamp::now()).await?;
        self.outbox().await
    }

    async fn outbox_drop(&self, id: i64) -> Result<Outbox, Refusal> {
        let Some(entry) = self.store.outbox_entry(OutboxId(id)).await? else {
            return Err(Refusal::unknown_outbox_entry(id));
        };
        self.store.drop_outbox(OutboxId(id)).await?;
        let message = format!("outbox row {id} ({}) was given up by an operator", entry.task.kind());
        let event = Event::new(Timestamp::now(), Level::Warn, "outbox-dropped", message);
        self.journal.record(event.with_node(entry.node_id).with_outbox(id));
        self.finish_unbound(entry.node_id).await;
        self.outbox().await
    }

    async fn discover(&self, query: &DiscoverQuery) -> Result<Discovered, Refusal> {
        let listening = self.discovery.ask();
        tokio::time::sleep(Duration::from_millis(query.timeout_ms).min(LISTEN_MAX)).await;
        drop(listening);
        let nodes = if query.operational {
            let ours = self.link.credentials().compressed_fabric_id();
            let all = self.discovery.operational_nodes();
            all.iter().filter(|node| node.compressed_fabric_id == ours).map(DiscoveredNode::from).collect()
        } else {
            self.discovery.commissionable().iter().map(DiscoveredNode::from).collect()
        };
        Ok(Discovered { nodes })
    }

    async fn watch(&self, query: &DiscoverQuery) -> Result<mpsc::Receiver<DiscoverChange>, Refusal> {
        let mut events = self.discovery.subscribe();
        let there = self.discover(&DiscoverQuery { timeout_ms: 0, ..query.clone() }).await?;
        let (sender, receiver) = mpsc::channel(WATCHED);
        let asking = self.discovery.ask();
        let (ours, operational) = (self.link.credentials().compressed_fabric_id(), query.operational);
        let stop = self.stop.clone();
        tokio::spawn(async move {
            let _asking = asking;
            for node in there.nodes {
                let change = DiscoverChange { event: DiscoverChangeKind::Appeared, node };
                if sender.send(change).await.is_err() {
                    return;
                }
            }
            loop {
                let event = tokio::select! {
                    () = stop.cancelled() => return,
                    () = sender.closed() => return,
                    event = events.recv() => event,
                };
                let (event, seen) = match event {
                    Ok(DiscoveryEvent::Appeared(seen)) => (DiscoverChangeKind::Appeared, seen),
                    Ok(DiscoveryEvent::Updated(seen)) => (DiscoverChangeKind::Changed, seen),
                    Ok(DiscoveryEvent::Gone(seen)) => (DiscoverChangeKind::Disappeared, seen),
                    Err(broadcast::error::RecvError::Lagged(_)) => continue,
                    Err(broadcast::error::RecvError::Closed) => return,
                };
                let node = match &seen {
                    Seen::Commissionable(node) if !operational => DiscoveredNode::from(node),
                    Seen::Operational(node) if operational && node.compressed_fabric_id == ours => {
                        DiscoveredNode::from(node)
                    }
                    Seen::Commissionable(_) | Seen::Operational(_) => continue,
                };
                if sender.send(DiscoverChange { event, node }).await.is_err() {
                    return;
                }
            }
        });
        Ok(receiver)
    }

    async fn logs(&self, query: &LogQuery) -> Result<Vec<Event>, Refusal> {
        let node = match &query.node {
            None => None,
            Some(NodeRef::Id(id)) => Some(*id),
            Some(name @ NodeRef::Name(_)) => Some(self.resolve(name).await?),
        };
        let filter = JournalFilter {
            since: query.since,
            node,
            attempt: query.attempt,
            level: query.level,
            after_id: query.after,
            limit: query.limit,
        };
        Ok(self.journal.query(filter).await?)
    }

    fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.journal.subscribe()
    }

    async fn sync(&self, node: Option<NodeId>) -> Result<SyncReport, Refusal> {
        self.reconcile(node).await
    }

    async fn fabric(&self) -> Result<FabricInfo, Refusal> {
        Ok(self.fabric_info())
    }

    async fn backup(&self, lock: Lock) -> Result<Vec<u8>, Refusal> {
        self.make_backup(lock).await
    }

    async fn export_root(&self, lock: Lock) -> Result<Vec<u8>, Refusal> {
        self.make_root_export(lock).await
    }

    async fn remove_root(&self, sha256: &str) -> Result<FabricInfo, Refusal> {
        self.take_root_offline(sha256).await
    }

    async fn import_root(&self, file: Vec<u8>, unlock: Unlock) -> Result<FabricInfo, Refusal> {
        self.bring_root_back(file, unlock).await
    }

    async fn access(&self) -> Result<AccessView, Refusal> {
        self.show_access().await
    }

    async fn set_access(&self, node: Option<NodeId>, grants: Option<Vec<CatGrant>>) -> Result<AccessReport, Refusal> {
        self.set_grants(node, grants).await
    }

    async fn apply_access(&self, node: Option<NodeId>) -> Result<AccessReport, Refusal> {
        self.apply_grants(node).await
    }

    async fn rotate_cat(&self, identifier: u16) -> Result<AccessReport, Refusal> {
        self.rotate(identifier).await
    }
}

/// Understands a request; everything that can be wrong without asking a device is found here.
fn order(attempt_id: Uuid, request: CommissionRequest) -> Result<Order, CommissioningError> {
    let payload: OnboardingPayload = SetupCode::new(&request.setup_code).parse()?;
    let binding_code = request.binding_code.filter(|code| !code.is_empty());
    Ok(Order {
        attempt_id,
        payload,
        address: request.address.map(with_default_port),
        identity: GivenIdentity {
            product_key: request.product_key.filter(|key| !key.is_empty()),
            device_key: request.device_key.filter(|key| !key.is_empty()),
            // A code that the cloud would refuse (5213) is as good as none; the record says so.
            binding_code: binding_code.filter(|code| is_binding_code(code)).map(BindingCode::new),
        },
        name: request.name.filter(|name| !name.is_empty()),
        family_id: request.family_id.filter(|id| !id.is_empty()),
        room_id: request.room_id.filter(|id| !id.is_empty()),
        no_bind: request.no_bind,
        attestation_override: request.attestation_override.map(|by| AttestationOverride { who: by.who, why: by.why }),
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
        operational: sum(&[Step::Operational, Step::Complete]),
        access: sum(&[Step::Access]),
        record: sum(&[Step::Record]),
        total: commissioned.attempt.total(ended).as_millis() as u64,
        bind: 0,
    }
}
