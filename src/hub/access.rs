//! Brings what each device holds to what is in force. What must still be told is durable before anybody is told, so that a
//! crash, an absent device or a lost answer costs nothing but time.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use futures_util::StreamExt;
use jiff::Timestamp;
use tokio::sync::Notify;

use super::Hub;
use super::reach::device_error;
use super::refusal::Refusal;
use super::world::World;
use crate::access::{self, AccessOverlay, Base, PlanError, PolicyError, Wanted, expected_cats};
use crate::bind::{BindState, CapabilityMask, CloudDevice};
use crate::commissioning::driver::bind_task;
use crate::commissioning::error::Disposition;
use crate::commissioning::identity::{Eligible, Profile, binding_code_from};
use crate::commissioning::path;
use crate::commissioning::ports::{LinkError, OperationalSession};
use crate::fabric::{AclLimits, Cat, CatGrant, granted_cats, plan_acl};
use crate::failpoint;
use crate::journal::{Event, EventSink, Level};
use crate::node::{NodeId, NodeRecord, NodeState};
use crate::outbox::ports::OutboxTask;

mod door;

pub use door::{AccessDoor, AccessOutcome, AccessReport, AccessView, NodeAccess};

/// Devices that are told at the same time.
const AT_ONCE: usize = 8;
/// Nodes that nobody hears of are tried this often.
const ASK_AGAIN: Duration = Duration::from_secs(300);
/// One request waits no longer; the rest is done when the nodes are seen.
const REQUEST: Duration = Duration::from_secs(150);

/// The overlay in force, and who is being told right now.
pub(crate) struct Access {
    overlay: RwLock<AccessOverlay>,
    hub_cats: RwLock<Vec<Cat>>,
    turn: tokio::sync::Mutex<()>,
    /// Whoever issues certificates or looks at who leaves: a certificate with an earlier version must not be recorded after it was
    /// found that everybody has a later one.
    pub(super) departures: tokio::sync::Mutex<()>,
    /// Nodes that are being told, and whether somebody else came meanwhile.
    busy: Mutex<HashMap<NodeId, bool>>,
    heard: Mutex<HashSet<NodeId>>,
    wake: Notify,
}

impl Access {
    pub(crate) fn new(overlay: AccessOverlay, hub_cats: Vec<Cat>) -> Self {
        Self {
            overlay: RwLock::new(overlay),
            hub_cats: RwLock::new(hub_cats),
            turn: tokio::sync::Mutex::default(),
            departures: tokio::sync::Mutex::default(),
            busy: Mutex::default(),
            heard: Mutex::default(),
            wake: Notify::new(),
        }
    }

    pub(super) fn overlay(&self) -> AccessOverlay {
        self.overlay.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A node that was away when the list changed is told as soon as it is heard of.
    pub(super) fn heard_of(&self, node: NodeId) {
        if self.overlay.read().unwrap_or_else(PoisonError::into_inner).is_pending(node) {
            self.heard.lock().unwrap_or_else(PoisonError::into_inner).insert(node);
            self.wake.notify_one();
        }
    }

    fn take_heard(&self) -> Vec<NodeId> {
        let heard: Vec<_> = self.heard.lock().unwrap_or_else(PoisonError::into_inner).drain().collect();
        let overlay = self.overlay.read().unwrap_or_else(PoisonError::into_inner);
        heard.into_iter().filter(|node| overlay.is_pending(*node)).collect()
    }

    pub(super) fn hub_cats(&self) -> Vec<Cat> {
        self.hub_cats.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_hub_cats(&self, cats: Vec<Cat>) {
        *self.hub_cats.write().unwrap_or_else(PoisonError::into_inner) = cats;
    }
}

/// What telling one node came to.
enum Told {
    Written(Vec<CatGrant>, bool),
    Unchanged(Vec<CatGrant>, bool),
    /// It does not answer now.
    Away(Refusal),
    /// It cannot hold the list; only a person can change that.
    Never(Refusal),
}

impl<W: World> AccessDoor for Hub<W> {
    async fn access(&self) -> Result<AccessView, Refusal> {
        let overlay = self.access.overlay();
        let Wanted { admin, grants, .. } = self.wanted(None);
        let nodes = self.store.nodes().await?.into_iter().map(|record| {
            let wanted = expected_cats(&overlay.wanted(self.base(), Some(record.node_id)));
            let state = match (overlay.is_pending(record.node_id), sorted(&record.cats) == wanted) {
                (true, _) => "pending",
                (false, true) => "as-wanted",
                (false, false) => "differs",
            };
            let (node_id, name, cats) = (record.node_id, record.name, record.cats);
            NodeAccess { node_id, name, state: state.to_owned(), cats, wanted }
        });
        let hub_cats = self.access.hub_cats().iter().map(|cat| cat.value()).collect();
        let nodes = nodes.collect();
        let tags = self.tag_holders(&self.store.controllers().await?);
        Ok(AccessView { admin_cat: admin.value(), hub_cats, grants, tags, nodes })
    }

    async fn set_access(&self, node: Option<NodeId>, grants: Option<Vec<CatGrant>>) -> Result<AccessReport, Refusal> {
        let told = self.addressed(node).await?;
        if let Some(grants) = &grants {
            plan_acl(self.base().admin, grants, AclLimits::default()).map_err(|error| does_not_fit(&error))?;
        }
        let base = self.base();
        self.mutate(|overlay| {
            overlay.set_grants(base, node, grants)?;
            overlay.add_pending(told.clone());
            Ok(())
        })
        .await?;
        let whom = node.map_or_else(|| "all nodes".to_owned(), |node| format!("node {node}"));
        self.log(Level::Info, "access-set", format!("the grants of {whom} were changed"), node);
        self.tell(told).await
    }

    async fn apply_access(&self, node: Option<NodeId>) -> Result<AccessReport, Refusal> {
        let told = self.addressed(node).await?;
        self.mutate(|overlay| {
            overlay.add_pending(told.clone());
            Ok(())
        })
        .await?;
        self.tell(told).await
    }

    async fn rotate_cat(&self, identifier: u16) -> Result<AccessReport, Refusal> {
        let told = self.addressed(None).await?;
        let base = self.base();
        let cat = self
            .mutate(|overlay| {
                let cat = overlay.rotate(base, identifier)?;
                overlay.add_pending(told.clone());
                Ok(cat)
            })
            .await?;
        self.log(Level::Warn, "cat-rotated", format!("the tag {cat} replaces its earlier versions"), None);
        // Before any node is told: a device that asks for the new version must find it in the hub's certificate.
        self.renew_hub().await?;
        let report = self.tell(told).await?;
        Ok(AccessReport { rotated: Some(cat.value()), ..report })
    }
}

impl<W: World> Hub<W> {
    pub(super) fn base(&self) -> Base<'_> {
        Base { admin: self.config.access.admin_cat, grants: &self.config.access.grants }
    }

    pub(super) fn wanted(&self, node: Option<NodeId>) -> Wanted {
        self.access.overlay().wanted(self.base(), node)
    }

    /// Changes the overlay: first on disk, then in memory, then for attempts that begin from now on.
    pub(super) async fn mutate<T>(
        &self,
        change: impl FnOnce(&mut AccessOverlay) -> Result<T, PolicyError>,
    ) -> Result<T, Refusal> {
        let _turn = self.access.turn.lock().await;
        let before = self.access.overlay();
        let mut next = before.clone();
        let value = change(&mut next).map_err(|error| policy_error(&error))?;
        if next != before {
            self.store.save_blob(access::BLOB, &next.to_bytes()).await?;
            failpoint::reach("access.saved");
            *self.access.overlay.write().unwrap_or_else(PoisonError::into_inner) = next;
            self.commissioner.set(self.wanted(None));
        }
        Ok(value)
    }

    /// The nodes that an action is about.
    pub(super) async fn addressed(&self, node: Option<NodeId>) -> Result<Vec<NodeId>, Refusal> {
        match node {
            Some(node) => self.record(node).await.map(|record| vec![record.node_id]),
            None => {
                let nodes = self.store.nodes().await?;
                Ok(nodes.iter().filter(|node| node.state != NodeState::Removing).map(|node| node.node_id).collect())
            }
        }
    }

    pub(super) async fn tell(&self, nodes: Vec<NodeId>) -> Result<AccessReport, Refusal> {
        let end = tokio::time::sleep(REQUEST);
        let told = futures_util::stream::iter(nodes.clone()).map(|node| self.tell_node(node)).buffer_unordered(AT_ONCE);
        let mut outcomes: Vec<AccessOutcome> = told.take_until(end).collect().await;
        for node in nodes {
            if !outcomes.iter().any(|outcome| outcome.node_id == node) {
                outcomes.push(pending(node, Vec::new(), &Refusal::not_ready("telling this node")));
            }
        }
        outcomes.sort_by_key(|outcome| outcome.node_id);
        let complete = outcomes.iter().all(|outcome| matches!(outcome.outcome.as_str(), "written" | "unchanged"));
        Ok(AccessReport { complete, rotated: None, nodes: outcomes })
    }

    /// Tells one node, and notes what became of it. Never fails: one node does not stop the others.
    pub(super) async fn tell_node(&self, node: NodeId) -> AccessOutcome {
        let record = match self.store.node(node).await {
            Ok(Some(record)) => record,
            Ok(None) => {
                let forgotten = self
                    .mutate(|overlay| {
                        overlay.forget(node);
                        Ok(())
                    })
                    .await;
                let gone = Refusal::unknown_node(&super::inventory::NodeRef::Id(node));
                return pending(node, Vec::new(), &forgotten.err().unwrap_or(gone));
            }
            Err(error) => return pending(node, Vec::new(), &error.into()),
        };
        let Some(_busy) = Busy::take(&self.access, node) else {
            return pending(node, record.cats, &Refusal::not_ready("another change of this node"));
        };
        let wanted = self.wanted(Some(node));
        // Whoever was quicker than the rotation itself: a device that is told the new version lets the old one in no more,
        // not even for the read-back.
        if let Err(error) = self.renew_hub().await {
            return self.report(&record, Told::Away(error));
        }
        let told = match self.within(&record, self.write_list(&record, &wanted)).await {
            Ok(told) => told,
            Err(error) => Told::Away(device_error(&error)),
        };
        failpoint::reach("access.told");
        let settled = !matches!(told, Told::Away(_));
        // What is in force may have changed meanwhile; then the node stays noted.
        if settled
            && self.wanted(Some(node)) == wanted
            && let Err(error) = self.mutate(|overlay| Ok(overlay.remove_pending(node))).await
        {
            tracing::warn!(node.id = node.0, %error, "cannot note that the node holds its list; it is told again");
        }
        self.report(&record, told)
    }

    async fn write_list(&self, record: &NodeRecord, wanted: &Wanted) -> Result<Told, LinkError> {
        let session = self.meet(record).await?;
        let limits = session.describe().await?.acl_limits;
        let plan = match access::plan(wanted, limits, &session.read_acl().await?) {
            Ok(plan) => plan,
            Err(error) => return Ok(Told::Never(plan_error(&error))),
        };
        if !plan.differs {
            let cats = granted_cats(&plan.entries);
            let queued = self.note_cats(record, &cats, &session).await;
            return Ok(queued.map_or_else(Told::Away, |queued| Told::Unchanged(cats, queued)));
        }
        let cats = match path::set_access(&session, &plan.entries).await {
            Ok(cats) => cats,
            Err(error) => return Ok(Told::Away((&error).into())),
        };
        let queued = self.note_cats(record, &cats, &session).await;
        Ok(queued.map_or_else(Told::Away, |queued| Told::Written(cats, queued)))
    }

    /// The record follows what the device holds; the cloud is told in the same transaction.
    async fn note_cats(
        &self,
        record: &NodeRecord,
        cats: &[CatGrant],
        session: &impl OperationalSession,
    ) -> Result<bool, Refusal> {
        if sorted(&record.cats) == sorted(cats) {
            return Ok(false);
        }
        let eligible = self.eligible(record, session).await;
        let update = |record: &NodeRecord| match bind_task(record, eligible?) {
            OutboxTask::Bind(request) => Some(OutboxTask::UpdateMatterInfo(request)),
            _ => None,
        };
        Ok(self.store.change_cats(record.node_id, cats.to_vec(), update, Timestamp::now()).await?)
    }

    /// What binding again needs; the cloud has no update. A code that only the command line knew is not kept.
    async fn eligible(&self, record: &NodeRecord, session: &impl OperationalSession) -> Option<Eligible> {
        let unknown = matches!(record.bind.state, BindState::Disabled | BindState::NotEligible);
        if self.cloud.is_none() || unknown {
            return None;
        }
        let device = CloudDevice::of(record)?;
        let commissioner = self.commissioner.get();
        let code = match Profile::of(&commissioner.settings.profiles, record.marks().product) {
            Some(profile) => binding_code_from(profile.binding_code, session).await.map_err(|why| why.reason),
            None => Err("no product profile says where its binding code comes from".to_owned()),
        };
        match code {
            Ok(binding_code) => {
                let bitmask = record.capabilities_bitmask;
                let none = CapabilityMask::ON_THE_LAN.value();
                let capabilities_bitmask = if bitmask == 0 { none } else { bitmask };
                let options = record.bind_options.clone();
                Some(Eligible { device, binding_code, capabilities_bitmask, options })
            }
            Err(why) => {
                let message = format!("the cloud keeps showing node {}'s earlier privileges: {why}", record.node_id);
                self.log(Level::Warn, "cloud-access-stale", message, Some(record.node_id));
                None
            }
        }
    }

    fn report(&self, record: &NodeRecord, told: Told) -> AccessOutcome {
        let node = record.node_id;
        let done = |outcome: &str, cats, cloud_queued| AccessOutcome {
            node_id: node,
            outcome: outcome.to_owned(),
            cats,
            cloud_queued,
            code: String::new(),
            message: String::new(),
        };
        match told {
            Told::Written(cats, queued) => {
                let message = format!("node {node} ({}) holds its access list in force", record.name);
                self.log(Level::Info, "access-written", message, Some(node));
                done("written", cats, queued)
            }
            Told::Unchanged(cats, queued) => {
                let message = format!("node {node} ({}) held its access list in force already", record.name);
                self.log(Level::Info, "access-unchanged", message, Some(node));
                done("unchanged", cats, queued)
            }
            Told::Away(error) => {
                let message = format!("node {node} ({}) could not be told its access list: {error}", record.name);
                self.log(Level::Info, "access-pending", message, Some(node));
                pending(node, record.cats.clone(), &error)
            }
            Told::Never(error) => {
                let message = format!("node {node} ({}) cannot be given its access list: {error}", record.name);
                self.log(Level::Error, "access-refused", message, Some(node));
                AccessOutcome { outcome: "failed".to_owned(), ..pending(node, record.cats.clone(), &error) }
            }
        }
    }

    fn log(&self, level: Level, kind: &str, message: String, node: Option<NodeId>) {
        let event = Event::new(Timestamp::now(), level, kind, message);
        self.journal.record(match node {
            Some(node) => event.with_node(node),
            None => event,
        });
    }
}

/// Tells the nodes that were away: all that wait at start and from time to time, one as soon as it is heard of.
pub(super) async fn follow<W: World>(hub: Arc<Hub<W>>) {
    let mut again = tokio::time::interval(ASK_AGAIN);
    loop {
        let nodes = tokio::select! {
            () = hub.stop.cancelled() => return,
            // One that sleeps is told when it checks in.
            _ = again.tick() => {
                hub.access.overlay().pending().into_iter().filter(|node| !hub.icd.is_asleep(*node)).collect()
            }
            () = hub.access.wake.notified() => hub.access.take_heard(),
        };
        let told = futures_util::stream::iter(nodes).map(|node| hub.tell_node(node)).buffer_unordered(AT_ONCE);
        let mut told = std::pin::pin!(told.take_until(hub.stop.cancelled()));
        while told.next().await.is_some() {}
    }
}

/// One change of a node at a time. Whoever came meanwhile went away again; what they came for is done after this one.
struct Busy<'a>(&'a Access, NodeId);

impl<'a> Busy<'a> {
    fn take(access: &'a Access, node: NodeId) -> Option<Self> {
        match access.busy.lock().unwrap_or_else(PoisonError::into_inner).entry(node) {
            Entry::Occupied(mut busy) => {
                busy.insert(true);
                None
            }
            Entry::Vacant(free) => {
                free.insert(false);
                Some(Self(access, node))
            }
        }
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        let again = self.0.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
        if again == Some(true) {
            self.0.heard_of(self.1);
        }
    }
}

fn sorted(cats: &[CatGrant]) -> Vec<CatGrant> {
    let mut cats = cats.to_vec();
    cats.sort_unstable();
    cats
}

fn pending(node_id: NodeId, cats: Vec<CatGrant>, error: &Refusal) -> AccessOutcome {
    let (code, message) = (error.code.clone(), error.message.clone());
    AccessOutcome { node_id, outcome: "pending".to_owned(), cats, cloud_queued: false, code, message }
}

fn policy_error(error: &PolicyError) -> Refusal {
    let hint = "`matterbind access show` lists the tags in force";
    Refusal::new("bad-request", Disposition::UserAction, error.to_string(), hint)
}

fn does_not_fit(error: &dyn std::error::Error) -> Refusal {
    let hint = "grant fewer tags, or give several users one tag";
    Refusal::new("access-does-not-fit", Disposition::UserAction, error.to_string(), hint)
}

fn plan_error(error: &PlanError) -> Refusal {
    match error {
        PlanError::DoesNotFit(error) => does_not_fit(error),
        PlanError::ForeignEntry => {
            let hint = "remove the entry with the controller that wrote it, then `matterbind access apply`";
            Refusal::new("foreign-access-entry", Disposition::UserAction, error.to_string(), hint)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_one_turn_at_a_time() {
        let mut overlay = AccessOverlay::default();
        overlay.add_pending([NodeId(1001), NodeId(1002)]);
        let access = Access::new(overlay, Vec::new());
        let busy = Busy::take(&access, NodeId(1001));
        assert!(busy.is_some());
        assert!(Busy::take(&access, NodeId(1001)).is_none());
        assert!(Busy::take(&access, NodeId(1001)).is_none(), "one that was refused gives nothing free");
        assert!(Busy::take(&access, NodeId(1002)).is_some());
        assert!(access.take_heard().is_empty());
        drop(busy);
        assert_eq!(access.take_heard(), [NodeId(1001)], "it still has to be told, and somebody had come to do that");
        assert!(Busy::take(&access, NodeId(1001)).is_some());
    }
}
