//! `sync`, and the same by itself: at start, on a timer, and when a node is back. What is compared and mended is in
//! `reconcile`; here are the daemon's devices as it sees them, and when it runs.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Notify, broadcast};
use tokio::time::{Instant, sleep, sleep_until};

use super::Hub;
use super::bind::DeviceCodes;
use super::clock::has_just_booted;
use super::inventory::NodeRef;
use super::reach::Reached;
use super::refusal::Refusal;
use super::strangers::ForeignNode;
use super::world::{Case, Lan, World};
use crate::access;
use crate::bind::MatterInfo;
use crate::commissioning::path::set_access;
use crate::commissioning::ports::{LinkError, OperationalSession};
use crate::config::OnRejected;
use crate::durable::StoreError;
use crate::fabric::{CatGrant, granted_cats};
use crate::journal::{Event, EventSink, Level};
use crate::node::{FabricId, NodeId, NodeRecord, NodeState};
use crate::outbox::dispatcher::OutboxResult;
use crate::outbox::ports::{BindingCodeSource, OutboxState};
use crate::reconcile::compare::{DeviceFacts, DeviceView};
use crate::reconcile::driver::{CompareLimits, Memory, NodeFinding, Reconciler, RunFindings};
use crate::reconcile::mend::Policy;
use crate::reconcile::ports::{Devices, Examined};
use crate::rhythm::Place;
use crate::secret::BindingCode;

mod report;

pub use crate::reconcile::compare::{DifferingField, Verdict};
pub(crate) use report::SyncStep;
pub use report::{NodeComparison, NodeSync, SyncProgress, SyncReport};
use report::{comparison, removing, report, unknown};

/// Compares device, record and cloud.
pub trait SyncDoor: Send + Sync + 'static {
    /// Compares device, record and cloud now and mends what policy says; `None`: every node.
    fn sync(
        &self,
        node: Option<NodeId>,
        intent: Intent,
        progress: SyncProgress,
    ) -> impl Future<Output = Result<SyncReport, Refusal>> + Send;
    /// What device, record and cloud hold of one node now. Changes nothing.
    fn compare(&self, node: NodeId) -> impl Future<Output = Result<NodeComparison, Refusal>> + Send;
    /// What every node's last comparison came to, and when all were compared.
    fn last_report(&self) -> Option<(Timestamp, SyncReport)>;
}

/// What a comparison is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Intent {
    /// What policy says is done.
    #[default]
    Mend,
    /// Nothing is changed; the report says what would be done.
    Look,
}

/// Written down this often: it only matters after a restart.
const CONFIRM_EVERY: SignedDuration = SignedDuration::from_hours(6);
/// Announcements and the outbox's own work come first after a start.
const SETTLE: Duration = Duration::from_secs(5);
/// Everything is compared this often, and more seldom while nothing differs (`rhythm`).
const EVERY: Duration = Duration::from_secs(15 * 60);
/// Nodes that come back together (after a power cut) are compared together.
const GATHER: Duration = Duration::from_secs(1);
/// A session with a node that announces itself, and all questions after that.
const OPEN: Duration = Duration::from_secs(6);
const QUESTIONS: Duration = Duration::from_secs(4);
/// A session with one that does not.
const OPEN_DOUBTFUL: Duration = Duration::from_secs(4);
/// Writing a list and reading it back.
const RESTORE: Duration = Duration::from_secs(20);

/// What outlives a run.
#[derive(Default)]
pub(crate) struct Syncing {
    memory: Memory,
    /// One run at a time: two would mend the same things.
    turn: tokio::sync::Mutex<()>,
    asked_for: Mutex<BTreeSet<NodeId>>,
    wake: Notify,
    /// A person has everything compared: what the daemon compares by itself gives way, for that is part of it.
    person: Notify,
    /// What came of it when everything was compared, with what was compared since.
    last: Mutex<Option<(Timestamp, SyncReport)>>,
    /// When the cloud last showed a node as recorded, and when that was written down.
    confirmed: Mutex<BTreeMap<NodeId, Timestamp>>,
}

impl Syncing {
    /// Has a node compared soon.
    pub(super) fn compare_soon(&self, node: NodeId) {
        self.asked_for.lock().unwrap_or_else(PoisonError::into_inner).insert(node);
        self.wake.notify_one();
    }

    pub(super) fn compared_at(&self) -> Option<Timestamp> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(at, _)| *at)
    }

    /// Keeps what a comparison came to: of everything, or of some nodes.
    fn keep(&self, all_at: Option<Timestamp>, report: SyncReport) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match (all_at, &mut *last) {
            (Some(at), last) => *last = Some((at, report)),
            (None, Some((_, known))) => known.update(report),
            (None, None) => {}
        }
    }

    /// How many nodes last came out how.
    pub(super) fn verdicts(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        for node in last.iter().flat_map(|(_, report)| &report.nodes) {
            *counts.entry(node.verdict.as_str().to_owned()).or_default() += 1;
        }
        counts
    }

    /// A node has gone.
    pub(super) fn forget(&self, node: NodeId) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, report)) = &mut *last {
            report.forget(node);
        }
    }

    /// When the cloud last showed the node as recorded, since the start.
    pub(super) fn confirmed_at(&self, node: NodeId) -> Option<Timestamp> {
        self.confirmed.lock().unwrap_or_else(PoisonError::into_inner).get(&node).copied()
    }

    fn confirm(&self, nodes: &[NodeId], now: Timestamp) {
        let mut confirmed = self.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
        confirmed.extend(nodes.iter().map(|node| (*node, now)));
    }

    fn take(&self) -> BTreeSet<NodeId> {
        std::mem::take(&mut self.asked_for.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Runs until the daemon stops.
pub(super) async fn follow<W: World>(hub: Arc<Hub<W>>) {
    let work = async {
        sleep(SETTLE).await;
        let place = Place::of(hub.credentials.compressed_fabric_id());
        let began = Instant::now();
        let mut due = began;
        // A hub that has just booted may be one of thousands after a power cut, and all of them share one cloud: until its turn
        // it compares its devices only. A daemon that was started again by hand is alone.
        let turn = if has_just_booted() { began + place.first(EVERY) } else { began };
        let mut quiet = 0;
        loop {
            let only = tokio::select! {
                biased;
                () = sleep_until(due) => {
                    hub.syncing.take();
                    None
                }
                () = hub.syncing.wake.notified() => {
                    sleep(GATHER).await;
                    Some(hub.syncing.take())
                }
            };
            if only.as_ref().is_some_and(BTreeSet::is_empty) {
                continue;
            }
            let asks_cloud = Instant::now() >= turn;
            let progress = SyncProgress::default();
            let scope = Scope { only: only.as_ref(), fabric: None, insist: false, asks_cloud, intent: Intent::Mend };
            let compared = tokio::select! {
                compared = hub.compare_and_mend(scope, &progress) => compared,
                () = hub.syncing.person.notified() => {
                    due = due.max(Instant::now() + EVERY);
                    continue;
                }
            };
            match &compared {
                Ok(_) if only.is_some() => {}
                Ok(findings) if findings.nodes.iter().all(|finding| finding.comparison.in_sync()) => quiet += 1,
                Ok(_) => quiet = 0,
                Err(error) => tracing::warn!(%error, "devices, records and cloud could not be compared"),
            }
            if only.is_none() {
                due = if asks_cloud { Instant::now() + place.next(began.elapsed(), EVERY, quiet) } else { turn };
            }
        }
    };
    tokio::select! {
        () = hub.stop.cancelled() => {}
        () = work => {}
    }
}

/// `on_rejected = "decommission"`: a node that the cloud refuses for ever leaves our fabric again.
pub(super) async fn follow_rejections<W: World>(hub: Arc<Hub<W>>) {
    let wanted = hub.config.cloud.as_ref().map(|cloud| cloud.on_rejected) == Some(OnRejected::Decommission);
    let Some(outbox) = hub.outbox.as_ref().filter(|_| wanted) else { return };
    let mut results = outbox.results();
    // What was refused before this start, or while we looked away.
    hub.decommission_rejected().await;
    loop {
        let result = tokio::select! {
            () = hub.stop.cancelled() => return,
            result = results.recv() => result,
        };
        match result {
            Ok(OutboxResult { node_id, kind, state: Some(OutboxState::Rejected), .. }) if is_bind(kind) => {
                hub.decommission(node_id, "the cloud refuses it for ever").await;
            }
            Ok(_) => {}
            Err(broadcast::error::RecvError::Lagged(_)) => hub.decommission_rejected().await,
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

fn is_bind(kind: &str) -> bool {
    matches!(kind, "bind" | "update-matter-info")
}

impl<W: World> SyncDoor for Hub<W> {
    async fn sync(&self, node: Option<NodeId>, intent: Intent, progress: SyncProgress) -> Result<SyncReport, Refusal> {
        if let Some(node) = node
            && self.store.node(node).await?.is_none()
        {
            return match self.greet_strangers().await?.into_iter().find(|foreign| foreign.node_id == node) {
                Some(foreign) => Ok(SyncReport { in_sync: false, nodes: vec![unknown(foreign.node_id, true, false)] }),
                None => Err(Refusal::unknown_node(&NodeRef::Id(node))),
            };
        }
        if node.is_none() && intent == Intent::Mend {
            self.syncing.person.notify_waiters();
        }
        let only = node.map(|node| BTreeSet::from([node]));
        let fabric = node.is_none().then(|| self.credentials.bundle().fabric_id);
        let scope = Scope { only: only.as_ref(), fabric, insist: node.is_some(), asks_cloud: true, intent };
        let (findings, foreign) =
            tokio::join!(self.compare_and_mend(scope, &progress), self.greet_if_all(node.is_none()));
        let RunFindings { nodes, unrecorded, .. } = findings?;
        let mut report = report(&nodes);
        self.note_unheld_tags(&nodes, &mut report).await?;
        for record in self.store.nodes().await? {
            let asked_for = node.is_none_or(|node| node == record.node_id);
            if let Some(row) = report.nodes.iter_mut().find(|row| row.node_id == record.node_id) {
                row.name.clone_from(&record.name);
            }
            if asked_for && record.state == NodeState::Removing {
                report.nodes.push(removing(&record));
            }
        }
        let mut strangers: BTreeMap<NodeId, (bool, bool)> = BTreeMap::new();
        for foreign in foreign? {
            strangers.entry(foreign.node_id).or_default().0 = true;
        }
        for (node, _) in self.unrecorded_bindings(unrecorded).await? {
            strangers.entry(node).or_default().1 = true;
        }
        report.in_sync &= strangers.is_empty();
        report.nodes.extend(strangers.into_iter().map(|(node, (here, in_cloud))| unknown(node, here, in_cloud)));
        report.nodes.sort_by_key(|row| row.node_id);
        self.syncing.keep(node.is_none().then(Timestamp::now), report.clone());
        Ok(report)
    }

    async fn compare(&self, node: NodeId) -> Result<NodeComparison, Refusal> {
        let local = self.record(node).await?;
        let only = BTreeSet::from([node]);
        let scope = Scope { only: Some(&only), fabric: None, insist: true, asks_cloud: true, intent: Intent::Look };
        let findings = self.compare_and_mend(scope, &SyncProgress::default()).await?;
        Ok(comparison(&local, findings.nodes.first()))
    }

    fn last_report(&self) -> Option<(Timestamp, SyncReport)> {
        self.syncing.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What is compared, and what for.
struct Scope<'a> {
    /// `None`: every node.
    only: Option<&'a BTreeSet<NodeId>>,
    /// See [`Reconciler::fabric`].
    fabric: Option<FabricId>,
    /// Nodes that are known not to answer are asked all the same, for a person wants to know.
    insist: bool,
    asks_cloud: bool,
    intent: Intent,
}

impl<W: World> Hub<W> {
    /// A tag whose holders all have an earlier version than a node asks for lets nobody in there.
    async fn note_unheld_tags(&self, findings: &[NodeFinding], report: &mut SyncReport) -> Result<(), StoreError> {
        let tags = self.tag_holders(&self.store.controllers().await?);
        for (finding, row) in findings.iter().zip(&mut report.nodes) {
            let DeviceView::Seen(facts) = &finding.device else { continue };
            for asked in granted_cats(&facts.acl).into_iter().map(|grant| grant.cat) {
                let Some(tag) = tags.iter().find(|tag| (tag.cat >> 16) as u16 == asked.identifier()) else { continue };
                let all_earlier = tag.holders.iter().all(|holder| holder.cat < asked.value());
                // A tag that nobody holds yet locks nobody out, unless whoever gets it next is too early as well.
                let somebody_waits = !tag.holders.is_empty() || tag.issued < asked.value();
                if all_earlier && somebody_waits {
                    row.notes.push(format!(
                        "it asks for the tag {asked}, and nobody holds that version: `matterbind access show` names who has to renew"
                    ));
                }
            }
        }
        Ok(())
    }

    async fn greet_if_all(&self, all: bool) -> Result<Vec<ForeignNode>, StoreError> {
        if all { self.greet_strangers().await } else { Ok(Vec::new()) }
    }

    async fn compare_and_mend(&self, scope: Scope<'_>, progress: &SyncProgress) -> Result<RunFindings, StoreError> {
        let Scope { only, fabric, insist, asks_cloud, intent } = scope;
        let _turn = self.syncing.turn.lock().await;
        let policy = self.config.cloud.as_ref().map_or_else(Policy::default, |cloud| Policy {
            on_cloud_missing: cloud.on_cloud_missing,
            on_access_drift: cloud.on_access_drift,
        });
        let reconciler = Reconciler {
            devices: &LanDevices { hub: self, insist },
            records: &self.store,
            cloud: self.cloud.as_deref().filter(|_| asks_cloud),
            events: &self.journal,
            memory: &self.syncing.memory,
            policy,
            mends: intent == Intent::Mend,
            limits: CompareLimits::default(),
            fabric,
            progress: &|compared, of| progress.report(compared, of),
        };
        let findings = reconciler.run(only).await?;
        for finding in &findings.nodes {
            match &finding.device {
                DeviceView::Seen(_) => self.note_contact(finding.node_id).await,
                DeviceView::OffFabric(proof) => self.note_silence(finding.node_id, &proof.to_string()).await,
                // Its turn comes: it is asked again and again already.
                DeviceView::Silent { .. } if self.probes.is_silent(finding.node_id) => {}
                DeviceView::Silent { .. } => self.doubt(finding.node_id),
            }
        }
        if intent == Intent::Mend {
            self.end_predecessors(&findings.nodes).await;
        }
        let now = Timestamp::now();
        self.syncing.confirm(&findings.confirmed, now);
        self.store.confirm_bindings(&findings.confirmed, now, CONFIRM_EVERY).await?;
        if asks_cloud {
            self.syncing.keep(only.is_none().then_some(now), report(&findings.nodes));
        }
        Ok(findings)
    }

    async fn decommission_rejected(&self) {
        let Ok(rows) = self.store.outbox_entries().await else { return };
        for row in rows.iter().filter(|row| row.state == OutboxState::Rejected && is_bind(row.task.kind())) {
            self.decommission(row.node_id, "the cloud refuses it for ever").await;
        }
    }

    /// Begins a removal, which goes on by itself where the device does not answer.
    async fn decommission(&self, node: NodeId, why: &str) {
        match self.store.node(node).await {
            Ok(Some(record)) if record.state != NodeState::Removing => {}
            _ => return,
        }
        let message = format!("node {node} is removed from our fabric: {why}");
        let event = Event::new(jiff::Timestamp::now(), Level::Warn, "node-decommissioned", message);
        self.journal.record(event.with_node(node));
        if let Err(error) = self.remove_node(node, false).await {
            tracing::warn!(node.id = node.0, %error, "removal not finished; it is resumed when the node is seen");
        }
    }
}

/// The devices as this daemon reaches them.
struct LanDevices<'a, W: World> {
    hub: &'a Hub<W>,
    insist: bool,
}

impl<W: World> LanDevices<'_, W> {
    fn commissionable_again(&self, record: &NodeRecord) -> Option<String> {
        let looks_like = |txt: &crate::node::CommissionableTxt| {
            txt.commissioning_mode != 0
                && record.discriminator.is_none_or(|known| known == txt.discriminator)
                && txt.vendor_id == Some(record.vendor_id)
                && txt.product_id == Some(record.product_id)
        };
        let nodes = self.hub.lan.commissionable();
        nodes.into_iter().find(|node| looks_like(&node.txt)).map(|node| node.instance)
    }

    async fn device(&self, record: &NodeRecord) -> DeviceView {
        let silent = |reason: String| DeviceView::Silent { reason };
        let announced = self.is_announced(record);
        if !announced && !self.insist {
            if let Some(proof) = self.hub.reach.proof(record.node_id) {
                return DeviceView::OffFabric(proof);
            }
            if record.state == NodeState::Unreachable || self.hub.probes.is_silent(record.node_id) {
                return silent("it does not announce itself, and did not answer when it was asked last".to_owned());
            }
        }
        if !self.insist && self.hub.icd.sleep(record).is_some() && self.hub.icd.is_asleep(record.node_id) {
            self.hub.icd.owe_comparison(record.node_id);
            return silent("it sleeps, and is compared when it checks in".to_owned());
        }
        let session = match self.hub.standing(record, if announced { OPEN } else { OPEN_DOUBTFUL }).await {
            Reached::Ours(session) => session,
            Reached::NotOnOurFabric(proof) => return DeviceView::OffFabric(proof),
            standing @ (Reached::SomebodyElse(_) | Reached::Unknown(_)) => return silent(standing.to_string()),
        };
        match self.hub.facts(record.node_id, &session).await {
            Ok(facts) => DeviceView::Seen(Box::new(facts)),
            Err(error) => silent(error.to_string()),
        }
    }
}

impl<W: World> Devices for LanDevices<'_, W> {
    fn is_announced(&self, record: &NodeRecord) -> bool {
        self.hub.reach.announced(record.node_id).is_some()
    }

    fn patience(&self, record: &NodeRecord) -> Duration {
        let open = if self.is_announced(record) { OPEN } else { OPEN_DOUBTFUL };
        let sleep = self.hub.reach.sleep(record);
        open + sleep + QUESTIONS + sleep / 2
    }

    async fn examine(&self, record: &NodeRecord) -> Examined {
        let device = self.device(record).await;
        Examined { device, commissionable_again: self.commissionable_again(record) }
    }

    async fn restore_access(&self, record: &NodeRecord) -> Result<Vec<CatGrant>, String> {
        let wanted = self.hub.wanted(Some(record.node_id));
        let restored = async {
            let session = self.hub.meet(record).await.map_err(|error| error.to_string())?;
            let limits = session.describe().await.map_err(|error| error.to_string())?.acl_limits;
            let held = session.read_acl().await.map_err(|error| error.to_string())?;
            let plan = access::plan(&wanted, limits, &held).map_err(|error| error.to_string())?;
            set_access(&session, &plan.entries).await.map_err(|error| error.to_string())
        };
        let late = || Err(format!("no answer within {} s", RESTORE.as_secs()));
        tokio::time::timeout(RESTORE, restored).await.unwrap_or_else(|_| late())
    }

    async fn binding_code(&self, record: &NodeRecord) -> Option<BindingCode> {
        let codes = DeviceCodes {
            store: self.hub.store.clone(),
            reach: Arc::clone(&self.hub.reach),
            profiles: self.hub.commissioner.get().settings.profiles.clone(),
        };
        codes.fresh_code(record.node_id, &MatterInfo::of(record)).await
    }

    async fn decommission(&self, node: NodeId) -> Result<(), String> {
        self.hub.decommission(node, "the cloud does not have it any more").await;
        Ok(())
    }
}

impl<W: World> Hub<W> {
    async fn facts(&self, node: NodeId, session: &Case<W>) -> Result<DeviceFacts, LinkError> {
        let basic = session.describe().await?.basic;
        let acl = session.read_acl().await?;
        let fabric_index = session.current_fabric_index().await?;
        let fabrics = session.fabrics().await?;
        self.note_fabrics(node, &fabrics).await;
        let identity = fabrics.iter().find(|row| row.index == fabric_index).map(|row| (row.fabric_id, row.node_id));
        Ok(DeviceFacts { fabric_index, identity, basic, acl })
    }
}
