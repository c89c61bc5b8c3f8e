//! Devices with long idle times: they hear nothing while they sleep, so the hub registers with them (`register`) and lives by their
//! check-ins. A check-in says that the device lives and is awake for a moment: what waits for it is done then. Not here: when a
//! missing one counts as silence (`liveness`), the sealing of check-ins (`matter::check_in`).

mod register;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::Hub;
use super::turns::Turns;
use super::world::{HubLink, Lan, World};
use crate::commissioning::ports::{CheckInMessage, LinkError, OperationalSession};
use crate::matter::check_in::{self, Opened};
use crate::node::{CheckInCounter, Counted, IcdRegistration, IcdSleep, NodeId, NodeRecord, NodeState};
use crate::store::{CheckInRow, RemovalStage};

/// Devices without a registration are asked again this often, for those that were heard of without our hearing it.
const ASK_AGAIN: Duration = Duration::from_secs(300);
/// A check-in that nobody can read has its sender's registration looked at, but only this often: anybody can send one.
const UNREADABLE_AGAIN: Duration = Duration::from_secs(60);
/// Keys that are tried on check-ins in one second: a flood of them must not cost more.
const KEYS_A_SECOND: usize = 512;
/// How long a device is asked to stay awake while the hub works with it: each grants up to 30 s (9.16.7.4), and a battery should last.
const STAY: Duration = Duration::from_secs(10);

/// What is known of one device.
#[derive(Debug)]
struct Sleeper {
    row: CheckInRow,
    /// Until when it is surely awake.
    awake_until: Option<Instant>,
    /// Its comparison with record and cloud was put off until it wakes.
    owed: bool,
}

/// How many keys were tried in the current second.
#[derive(Debug)]
struct Budget {
    since: Instant,
    tried: usize,
}

pub(crate) struct Icd {
    sleepers: Mutex<BTreeMap<NodeId, Sleeper>>,
    /// Whose registration is to be looked at, and whether its key is to be replaced whatever that says.
    wanted: Mutex<BTreeMap<NodeId, bool>>,
    /// Who has said that it takes no registration, since the start.
    given_up: Mutex<BTreeSet<NodeId>>,
    unreadable: Mutex<BTreeMap<NodeId, Instant>>,
    budget: Mutex<Budget>,
    turns: Turns<NodeId>,
    wake: Notify,
}

impl Default for Icd {
    fn default() -> Self {
        Self {
            sleepers: Mutex::default(),
            wanted: Mutex::default(),
            given_up: Mutex::default(),
            unreadable: Mutex::default(),
            budget: Mutex::new(Budget { since: Instant::now(), tried: 0 }),
            turns: Turns::default(),
            wake: Notify::new(),
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A check-in that one of our keys opens.
struct CheckedIn {
    node: NodeId,
    opened: Opened,
    counter: CheckInCounter,
    /// It was sealed with the key whose taking the device has not confirmed.
    with_next_key: bool,
}

impl Icd {
    /// How a node sleeps that checks in; `None` for one that has to be asked.
    pub(super) fn sleep(&self, record: &NodeRecord) -> Option<IcdSleep> {
        let registered = record.icd == Some(IcdRegistration::Registered);
        let sleepers = locked(&self.sleepers);
        let sleeper = sleepers.get(&record.node_id).filter(|sleeper| registered && sleeper.row.key.is_some())?;
        Some(sleeper.row.sleep.clone())
    }

    /// Whether a node that checks in is not surely awake now.
    pub(super) fn is_asleep(&self, node: NodeId) -> bool {
        let now = Instant::now();
        let asleep =
            |sleeper: &Sleeper| sleeper.row.key.is_some() && sleeper.awake_until.is_none_or(|until| until < now);
        locked(&self.sleepers).get(&node).is_some_and(asleep)
    }

    /// A node was heard of: it does not fall asleep at once.
    pub(super) fn handle_contact(&self, node: NodeId, now: Instant) {
        if let Some(sleeper) = locked(&self.sleepers).get_mut(&node) {
            sleeper.awake_until = sleeper.awake_until.max(Some(now + sleeper.row.sleep.wake()));
        }
    }

    fn stays_awake(&self, node: NodeId, until: Instant) {
        if let Some(sleeper) = locked(&self.sleepers).get_mut(&node) {
            sleeper.awake_until = sleeper.awake_until.max(Some(until));
        }
    }

    /// A node is compared when it wakes.
    pub(super) fn owe_comparison(&self, node: NodeId) {
        if let Some(sleeper) = locked(&self.sleepers).get_mut(&node) {
            sleeper.owed = true;
        }
    }

    fn take_owed(&self, node: NodeId) -> bool {
        locked(&self.sleepers).get_mut(&node).is_some_and(|sleeper| std::mem::take(&mut sleeper.owed))
    }

    /// Has the registration with a node looked at.
    pub(super) fn want(&self, node: NodeId, renew: bool) {
        *locked(&self.wanted).entry(node).or_default() |= renew;
        self.wake.notify_one();
    }

    /// A node announced itself: what it refused before it may take now.
    pub(super) fn handle_announced(&self, record: &NodeRecord, appeared: bool) {
        let node = record.node_id;
        if appeared {
            locked(&self.given_up).remove(&node);
        }
        // One that sleeps long says so only while somebody is registered with it (DynamicSitLitSupport).
        let lost = record.rhythm.icd == Some(false) && self.sleep(record).is_some();
        if lost || (record.icd.is_some() && self.sleep(record).is_none() && !locked(&self.given_up).contains(&node)) {
            self.want(node, false);
        }
    }

    fn replace(&self, rows: Vec<CheckInRow>) {
        let mut sleepers = locked(&self.sleepers);
        let mut before = std::mem::take(&mut *sleepers);
        for row in rows {
            let known = before.remove(&row.node_id);
            let (awake_until, owed) = known.map_or((None, false), |known| (known.awake_until, known.owed));
            sleepers.insert(row.node_id, Sleeper { row, awake_until, owed });
        }
    }

    /// Whose key opens it, as far as keys may be tried now.
    fn open(&self, payload: &[u8], now: Instant) -> Option<CheckedIn> {
        let sleepers = locked(&self.sleepers);
        for (node, Sleeper { row, .. }) in &*sleepers {
            let keys = [(&row.key, row.counter, false), (&row.next_key, CheckInCounter::default(), true)];
            for (key, counter, with_next_key) in keys {
                let Some(key) = key else { continue };
                if !self.may_try(now) {
                    return None;
                }
                if let Some(opened) = check_in::open(key, payload) {
                    return Some(CheckedIn { node: *node, opened, counter, with_next_key });
                }
            }
        }
        None
    }

    fn may_try(&self, now: Instant) -> bool {
        let mut budget = locked(&self.budget);
        if now >= budget.since + Duration::from_secs(1) {
            *budget = Budget { since: now, tried: 0 };
        }
        budget.tried += 1;
        budget.tried <= KEYS_A_SECOND
    }

    /// Whether the registration of who sent what nobody can read is to be looked at.
    fn is_news(&self, node: NodeId, now: Instant) -> bool {
        let mut unreadable = locked(&self.unreadable);
        let known = unreadable.get(&node).is_some_and(|last| now < *last + UNREADABLE_AGAIN);
        if !known {
            unreadable.insert(node, now);
        }
        !known
    }
}

/// Runs until the daemon stops.
pub(super) async fn follow<W: World>(hub: Arc<Hub<W>>) {
    hub.load_check_ins().await;
    hub.know_nodes().await;
    hub.want_registrations().await;
    let Some(mut check_ins) = hub.link.check_ins() else { return };
    let mut again = tokio::time::interval(ASK_AGAIN);
    again.tick().await;
    // Dropped, and so ended, with this task.
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            () = hub.stop.cancelled() => return,
            Some(message) = check_ins.recv() => {
                if let Some(node) = hub.handle_check_in(message).await {
                    let hub = Arc::clone(&hub);
                    tasks.spawn(async move { hub.do_what_waits(node).await });
                }
            }
            () = hub.icd.wake.notified() => {
                for (node, renew) in std::mem::take(&mut *locked(&hub.icd.wanted)) {
                    let hub = Arc::clone(&hub);
                    tasks.spawn(async move { hub.register_icd(node, renew).await });
                }
            }
            _ = again.tick() => hub.want_registrations().await,
            Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
        }
    }
}

impl<W: World> Hub<W> {
    async fn load_check_ins(&self) {
        match self.store.check_ins().await {
            Ok(rows) => self.icd.replace(rows),
            Err(error) => tracing::warn!(%error, "cannot read the keys of check-ins; devices that sleep seem silent"),
        }
    }

    /// Where devices look for the hub when they wake.
    fn announce_hub(&self) {
        if let Some(port) = self.link.port() {
            let hub = self.credentials.bundle().hub_node;
            self.lan.announce(self.credentials.compressed_fabric_id(), hub, port);
        }
    }

    /// Everybody who sleeps long and does not check in.
    async fn want_registrations(&self) {
        let Ok(records) = self.store.nodes().await else { return };
        if records.iter().any(|record| record.icd.is_some()) {
            // Also one whose key was lost looks for the hub, and has it asked then.
            self.announce_hub();
        }
        let given_up = locked(&self.icd.given_up).clone();
        let unregistered = |record: &&NodeRecord| {
            record.icd.is_some()
                && record.state == NodeState::Operational
                && self.icd.sleep(record).is_none()
                && !given_up.contains(&record.node_id)
        };
        records.iter().filter(unregistered).for_each(|record| self.icd.want(record.node_id, false));
    }

    /// A check-in has come; who has woken, where that is proved.
    async fn handle_check_in(&self, CheckInMessage { from, payload }: CheckInMessage) -> Option<NodeId> {
        let Some(CheckedIn { node, opened, counter, with_next_key }) = self.icd.open(&payload, Instant::now()) else {
            self.handle_unreadable(from).await;
            return None;
        };
        let counter = if with_next_key { CheckInCounter { start: opened.counter, last: None } } else { counter };
        let Counted::New { counter, worn } = counter.judge(opened.counter) else {
            tracing::debug!(node.id = node.0, %from, "a check-in that was there before");
            return None;
        };
        let noted = async {
            if with_next_key {
                // It has taken the key that we have sent; only its answer was lost.
                self.store.finish_registration(node, opened.counter).await?;
            }
            self.store.note_check_in(node, counter).await
        };
        // What is not on disk could be played again after a restart.
        if let Err(error) = noted.await {
            tracing::warn!(node.id = node.0, %error, "a check-in cannot be noted, so it does not count");
            return None;
        }
        if with_next_key {
            self.load_check_ins().await;
        } else if let Some(sleeper) = locked(&self.icd.sleepers).get_mut(&node) {
            sleeper.row.counter = counter;
        }
        tracing::debug!(node.id = node.0, %from, counter = opened.counter, "a device has checked in");
        if let Some(awake) = opened.awake {
            self.icd.stays_awake(node, Instant::now() + awake);
        }
        self.note_contact(node).await;
        if worn {
            self.icd.want(node, true);
        }
        Some(node)
    }

    /// What waited for a device that has just woken, before it sleeps again.
    async fn do_what_waits(&self, node: NodeId) {
        self.access.heard_of(node);
        self.labels.heard_of(node);
        if self.icd.take_owed(node) {
            self.syncing.compare_soon(node);
        }
        let Ok(Some(record)) = self.store.node(node).await else { return };
        if record.state != NodeState::Removing {
            return;
        }
        let Ok(removals) = self.store.removals().await else { return };
        let waits = |removal: &&crate::store::Removal| removal.node_id == node && removal.stage == RemovalStage::Device;
        if let Some(removal) = removals.iter().find(waits)
            && let Err(error) = self.remove_node(node, removal.forced).await
        {
            tracing::debug!(node.id = node.0, %error, "removal not finished; it is tried at the next check-in");
        }
    }

    /// Perhaps the hub has lost the key: a restored backup is older than the last registration. The sender is awake now.
    async fn handle_unreadable(&self, from: SocketAddr) {
        let Ok(records) = self.store.nodes().await else { return };
        let sender = |record: &&NodeRecord| {
            let sockets = self.reach.announced(record.node_id).map(|seen| seen.sockets()).unwrap_or_default();
            record.icd.is_some()
                && (sockets.iter().any(|socket| socket.ip() == from.ip())
                    || self.reach.remembers_host(record, from.ip()))
        };
        let Some(record) = records.iter().find(sender) else { return };
        if self.icd.is_news(record.node_id, Instant::now()) {
            tracing::debug!(node.id = record.node_id.0, %from, "a check-in that no key of ours opens");
            self.icd.want(record.node_id, false);
        }
    }

    /// What a device's silence means, where it may just sleep.
    pub(super) fn or_asleep(&self, record: &NodeRecord, error: LinkError) -> LinkError {
        let overdue = record.state == NodeState::Unreachable || self.probes.is_silent(record.node_id);
        match self.icd.sleep(record).filter(|_| !overdue) {
            Some(sleep) if matches!(error, LinkError::Unreachable { .. }) => {
                LinkError::Asleep { every: sleep.every, wake: sleep.how_to_wake() }
            }
            Some(_) | None => error,
        }
    }

    /// Asks a device that sleeps long not to fall asleep while the hub works with it.
    pub(super) async fn keep_awake(&self, record: &NodeRecord, session: &impl OperationalSession) {
        if record.icd.is_none() {
            return;
        }
        match session.stay_active(STAY).await {
            Ok(promised) => self.icd.stays_awake(record.node_id, Instant::now() + promised),
            // One with short sleeps only has no such command.
            Err(error) => tracing::debug!(node.id = record.node_id.0, %error, "it does not promise to stay awake"),
        }
    }
}
