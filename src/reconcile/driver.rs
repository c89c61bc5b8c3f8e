//! Asks devices, record and cloud, compares, and does what policy says.
//!
//! Nodes are asked side by side, those that announce themselves first, so that one that is gone makes no other wait; and
//! the whole ends in time, however many are gone. Not here: judging (`compare`, `mend`), when to run (`app`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use super::compare::{CloudView, Comparison, DeviceView, Difference, Views, compare, rows, superseded};
use super::mend::{Action, Change, Policy, mend};
use super::ports::{Devices, Examined, Records};
use crate::bind::{BindRequest, BindState, CloudDevice, CloudRecord, MatterInfo, name_in_cloud};
use crate::durable::StoreError;
use crate::failpoint;
use crate::journal::{Event, EventSink, Level};
use crate::node::{FabricId, NodeId, NodeRecord, NodeState};
use crate::outbox::ports::{BindApi, OutboxTask};

/// Why there is no bind.
const NO_CODE: &str = "there is no binding code: give the product's source of it in [[products]]";

/// How much at once, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CompareLimits {
    /// Nodes that are asked side by side.
    pub parallel: usize,
    /// All nodes together. Sleepy ones may take longer, each by its own rhythm.
    pub looks: Duration,
    /// The cloud, all pages.
    pub cloud: Duration,
}

impl Default for CompareLimits {
    fn default() -> Self {
        Self { parallel: 24, looks: Duration::from_secs(20), cloud: Duration::from_secs(20) }
    }
}

/// What was found out about one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeFinding {
    pub node_id: NodeId,
    /// How its device stands.
    pub device: DeviceView,
    /// How the cloud stands.
    pub cloud: CloudView,
    /// What came of comparing.
    pub comparison: Comparison,
    /// What was done about it; where nothing may be done, what would be.
    pub actions: Vec<Action>,
}

/// What was told already: each difference is told once, and not at every run.
#[derive(Debug, Default)]
pub(crate) struct Memory(Mutex<BTreeMap<NodeId, Vec<Difference>>>);

impl Memory {
    /// Notes what was found; what it was before.
    fn replace(&self, node: NodeId, differences: &[Difference]) -> Vec<Difference> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before =
            if differences.is_empty() { known.remove(&node) } else { known.insert(node, differences.to_vec()) };
        before.unwrap_or_default()
    }

    fn keep_only(&self, nodes: &BTreeSet<NodeId>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|node, _| nodes.contains(node));
    }
}

/// Everything that a run needs. Runs must not overlap.
pub(crate) struct Reconciler<'a, D, R, B, E> {
    pub devices: &'a D,
    pub records: &'a R,
    /// The cloud; `None`: not configured.
    pub cloud: Option<&'a B>,
    pub events: &'a E,
    /// What was told already.
    pub memory: &'a Memory,
    pub policy: Policy,
    /// Whether it is done, and told to the admin log; else a person only looks.
    pub mends: bool,
    /// How much at once.
    pub limits: CompareLimits,
    /// Our fabric, where the cloud is to be asked what it holds on it without a record here.
    pub fabric: Option<FabricId>,
    /// Told how many nodes are asked already, of how many.
    pub progress: &'a (dyn Fn(usize, usize) + Send + Sync),
}

/// What a run came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RunFindings {
    pub nodes: Vec<NodeFinding>,
    /// What the cloud holds for our account and nobody here has a record of.
    pub unrecorded: Vec<CloudRecord>,
    /// Nodes that the cloud shows exactly as the record says.
    pub confirmed: Vec<NodeId>,
}

/// Whose turn it is, and until when there is one.
struct Turns {
    semaphore: Semaphore,
    end: Instant,
}

/// What the cloud said, for all nodes of a run.
enum Cloud {
    NotConfigured,
    Unknown(String),
    Holds(BTreeMap<CloudDevice, CloudRecord>),
}

impl<D: Devices, R: Records, B: BindApi, E: EventSink> Reconciler<'_, D, R, B, E> {
    /// Compares and mends `only` these nodes, or all. Nodes whose removal has begun are left to that.
    ///
    /// # Errors
    /// The store fails. A device or a cloud that cannot be asked is a finding.
    pub(crate) async fn run(&self, only: Option<&BTreeSet<NodeId>>) -> Result<RunFindings, StoreError> {
        let all = self.records.records().await?;
        self.memory.keep_only(&all.iter().map(|record| record.node_id).collect());
        let replaced = superseded(&all);
        let wanted = |record: &&NodeRecord| {
            record.state != NodeState::Removing && only.is_none_or(|only| only.contains(&record.node_id))
        };
        let mut chosen: Vec<&NodeRecord> = all.iter().filter(wanted).collect();
        chosen.sort_by_key(|record| !self.devices.is_announced(record));
        let turns = Turns { semaphore: Semaphore::new(self.limits.parallel), end: Instant::now() + self.limits.looks };
        let (asked, of) = (AtomicUsize::new(0), chosen.len());
        let looks = join_all(chosen.iter().map(async |record| {
            let look = self.examine(record, &turns).await;
            (self.progress)(asked.fetch_add(1, Ordering::Relaxed) + 1, of);
            look
        }));
        let (looks, cloud) = tokio::join!(looks, self.ask_cloud(&chosen, self.fabric));
        // After the cloud was asked: a row that was settled meanwhile has changed the record with it.
        let queued = self.records.queued().await?;
        let now: BTreeMap<NodeId, NodeRecord> =
            self.records.records().await?.into_iter().map(|record| (record.node_id, record)).collect();
        let mut findings = Vec::new();
        let mut confirmed = Vec::new();
        for (record, Examined { device, commissionable_again }) in chosen.iter().zip(looks) {
            // Removed while it was asked.
            let Some(local) = now.get(&record.node_id).filter(|now| now.state != NodeState::Removing) else { continue };
            // Renamed, bound or unbound while it was asked: what the cloud said may be older than the record.
            let cloud = if is_outdated(record, local) { self.ask_about(local).await } else { cloud.view(local) };
            let views = Views {
                local,
                device: &device,
                cloud: &cloud,
                queued: queued.contains(&local.node_id),
                // Two that answer are two devices, whatever they are numbered.
                superseded_by: replaced.get(&local.node_id).filter(|_| !matches!(device, DeviceView::Seen(_))).copied(),
                commissionable_again: commissionable_again.as_deref(),
            };
            let comparison = compare(views);
            if matches!(&cloud, CloudView::Held(Some(_))) && !comparison.differences.iter().any(is_about_the_cloud) {
                confirmed.push(local.node_id);
            }
            let actions = if self.mends {
                self.tell_and_mend(views, &comparison).await?
            } else {
                mend(self.policy, views, &comparison)
            };
            findings.push(NodeFinding { node_id: local.node_id, device, cloud, comparison, actions });
        }
        let known: BTreeSet<CloudDevice> = all.iter().chain(now.values()).filter_map(CloudDevice::of).collect();
        let unrecorded = match cloud {
            Cloud::Holds(held) if self.fabric.is_some() => {
                held.into_values().filter(|held| !known.contains(&held.device)).collect()
            }
            Cloud::Holds(_) | Cloud::NotConfigured | Cloud::Unknown(_) => Vec::new(),
        };
        findings.sort_by_key(|finding| finding.node_id);
        Ok(RunFindings { nodes: findings, unrecorded, confirmed })
    }

    async fn examine(&self, record: &NodeRecord, turns: &Turns) -> Examined {
        let silent = |reason: &str| Examined {
            device: DeviceView::Silent { reason: reason.to_owned() },
            commissionable_again: None,
        };
        let Ok(Ok(_place)) = timeout_at(turns.end, turns.semaphore.acquire()).await else {
            return silent("it was not asked: too many others did not answer");
        };
        let patience = self.devices.patience(record);
        match timeout(patience, self.devices.examine(record)).await {
            Ok(look) => look,
            Err(_) => silent(&format!("no answer within {} s", patience.as_secs())),
        }
    }

    /// One list for many nodes, one search for one; the whole list where it is to show what nobody here knows.
    async fn ask_cloud(&self, records: &[&NodeRecord], fabric: Option<FabricId>) -> Cloud {
        let Some(api) = self.cloud else { return Cloud::NotConfigured };
        let devices: Vec<CloudDevice> = records.iter().filter_map(|record| CloudDevice::of(record)).collect();
        let asked = async {
            match devices.as_slice() {
                all if fabric.is_some() => api.held(&all.iter().cloned().collect(), fabric).await,
                [] => Ok(Vec::new()),
                [one] => api.find(one).await.map(|record| record.into_iter().collect()),
                many => api.held(&many.iter().cloned().collect(), None).await,
            }
        };
        match timeout(self.limits.cloud, asked).await {
            Ok(Ok(held)) => Cloud::Holds(held.into_iter().map(|record| (record.device.clone(), record)).collect()),
            Ok(Err(error)) => Cloud::Unknown(error.to_string()),
            Err(_) => Cloud::Unknown(format!("no answer within {} s", self.limits.cloud.as_secs())),
        }
    }

    async fn ask_about(&self, record: &NodeRecord) -> CloudView {
        self.ask_cloud(&[record], None).await.view(record)
    }

    /// Tells what was found and does what policy says.
    async fn tell_and_mend(&self, views: Views<'_>, comparison: &Comparison) -> Result<Vec<Action>, StoreError> {
        let node = views.local.node_id;
        let before = self.memory.replace(node, &comparison.differences);
        let is_new = before != comparison.differences;
        if is_new {
            self.tell(node, comparison);
        }
        let mut actions = mend(self.policy, views, comparison);
        if actions.iter().any(|action| matches!(action, Action::Rebind | Action::Decommission)) {
            // A list with a hole in it must not cost a device its binding, or more.
            match self.ask_about(views.local).await {
                CloudView::Held(None) => {}
                CloudView::Held(Some(_)) | CloudView::NotAsked | CloudView::Unknown { .. } => {
                    actions.retain(|action| !matches!(action, Action::Rebind | Action::Decommission));
                }
            }
        }
        let outcomes = self.act(views.local, actions).await?;
        for (action, outcome) in &outcomes {
            match outcome {
                Ok(done) => self.log(Level::Info, "sync-mended", node, format!("node {node}: {done}"), action),
                Err(why) if is_new => {
                    let message = format!("node {node}: {} is not possible now: {why}", action.as_str());
                    self.log(Level::Warn, "sync-mend-failed", node, message, action);
                }
                Err(_) => {}
            }
        }
        Ok(outcomes.into_iter().filter(|(_, outcome)| outcome.is_ok()).map(|(action, _)| action).collect())
    }

    /// Does one node's actions; record and cloud work are written together, last.
    async fn act(&self, record: &NodeRecord, actions: Vec<Action>) -> Result<Vec<Mended>, StoreError> {
        let (mut outcomes, mut change, mut work) = (Vec::new(), Change::default(), None);
        for action in actions {
            match action {
                Action::RestoreAccess => {
                    let restored = self.devices.restore_access(record).await.map(|cats| {
                        // The configuration may grant other things than it did when the device was commissioned.
                        if cats != record.cats {
                            change.cats = Some(cats);
                            work = (record.bind.state == BindState::Bound).then_some(Action::UpdateMatterInfo);
                        }
                        "the configured access control list was written and read back"
                    });
                    outcomes.push((Action::RestoreAccess, restored));
                }
                Action::Record(taken) => change = Change { cats: taken.cats.clone().or(change.cats), ..taken },
                Action::Decommission => {
                    let begun = self.devices.decommission(record.node_id).await;
                    outcomes.push((Action::Decommission, begun.map(|()| "it is removed from our fabric")));
                }
                Action::Rebind | Action::UpdateMatterInfo | Action::Unbind => work = Some(action),
            }
        }
        if !change.is_empty() || work.is_some() {
            self.write(record, change, work, &mut outcomes).await?;
        }
        Ok(outcomes)
    }

    async fn write(
        &self,
        record: &NodeRecord,
        change: Change,
        work: Option<Action>,
        outcomes: &mut Vec<Mended>,
    ) -> Result<(), StoreError> {
        let mut changed = record.clone();
        change.clone().apply(&mut changed);
        let task = match &work {
            Some(work) => self.task(&changed, work).await,
            None => None,
        };
        let wanted = task.is_some();
        let row = match self.records.mend(record.node_id, change.clone(), task, Timestamp::now()).await {
            // Removed meanwhile.
            Err(StoreError::Missing(_)) => return Ok(()),
            other => other?,
        };
        failpoint::reach("mend.saved");
        if !change.is_empty() {
            outcomes.push((Action::Record(change), Ok("the record has taken over what the device says")));
        }
        if let Some(work) = work {
            let outcome = match (wanted, row) {
                (_, Some(_)) => Ok("it is in the outbox"),
                (true, None) => Err("the outbox is at work on this node already".to_owned()),
                (false, None) => Err(NO_CODE.to_owned()),
            };
            outcomes.push((work, outcome));
        }
        Ok(())
    }

    async fn task(&self, record: &NodeRecord, work: &Action) -> Option<OutboxTask> {
        let device = CloudDevice::of(record)?;
        if *work == Action::Unbind {
            return Some(OutboxTask::Unbind(device));
        }
        // The cloud takes none without (5879).
        record.discriminator?;
        let request = Box::new(BindRequest {
            device,
            matter_info: MatterInfo::of(record),
            binding_code: self.devices.binding_code(record).await?,
            device_name: Some(name_in_cloud(&record.name)),
            family_id: record.family_id.clone(),
            room_id: record.room_id.clone(),
            capabilities_bitmask: record.capabilities_bitmask,
            options: record.bind_options.clone(),
        });
        Some(match work {
            Action::Rebind => OutboxTask::Bind(request),
            _ => OutboxTask::UpdateMatterInfo(request),
        })
    }

    fn tell(&self, node: NodeId, comparison: &Comparison) {
        let verdict = comparison.verdict.as_str();
        let event = match comparison.differences.as_slice() {
            [] => {
                let message = format!("node {node}: device, record and cloud do not differ any more ({verdict})");
                Event::new(Timestamp::now(), Level::Info, "sync-settled", message)
            }
            differences => {
                let fields: Vec<String> = rows(differences).into_iter().map(|row| row.field).collect();
                let message = format!("node {node}: {verdict}: {}", fields.join(", "));
                Event::new(Timestamp::now(), Level::Warn, "sync-difference", message)
                    .with("differences", serde_json::json!(rows(differences)))
            }
        };
        self.events.record(event.with_node(node).with("verdict", verdict));
    }

    fn log(&self, level: Level, kind: &str, node: NodeId, message: String, action: &Action) {
        let event = Event::new(Timestamp::now(), level, kind, message);
        self.events.record(event.with_node(node).with("action", action.as_str()));
    }
}

fn is_about_the_cloud(difference: &Difference) -> bool {
    match difference {
        Difference::Bind { .. }
        | Difference::CloudUnknown { .. }
        | Difference::NotOurs
        | Difference::MatterInfo(_)
        | Difference::Label(_) => true,
        Difference::FabricIndex { .. }
        | Difference::FabricTable { .. }
        | Difference::Basic { .. }
        | Difference::Access { .. }
        | Difference::ForeignAccess(_)
        | Difference::OffFabric { .. }
        | Difference::CommissionableAgain { .. }
        | Difference::Superseded { .. } => false,
    }
}

/// What was done, in words, or why it was not.
type Mended = (Action, Result<&'static str, String>);

impl Cloud {
    fn view(&self, record: &NodeRecord) -> CloudView {
        match (self, CloudDevice::of(record)) {
            (Self::NotConfigured, _) | (_, None) => CloudView::NotAsked,
            (Self::Unknown(reason), Some(_)) => CloudView::Unknown { reason: reason.clone() },
            (Self::Holds(held), Some(device)) => CloudView::Held(held.get(&device).cloned().map(Box::new)),
        }
    }
}

/// Whether what the cloud should hold became another thing between two reads of the record.
fn is_outdated(before: &NodeRecord, now: &NodeRecord) -> bool {
    let told = |record: &NodeRecord| (record.bind.state, record.name.clone(), MatterInfo::of(record));
    told(before) != told(now)
}

#[cfg(test)]
mod tests;
