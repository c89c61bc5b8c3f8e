//! Whether nodes still answer: a light probe of each that was silent for a while, and what its answer means for the record.
//!
//! One session for each node is kept where there is room, so that a probe is one small read and leaves no session behind on
//! the device. When to ask is in `liveness`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use super::Hub;
use super::liveness::{Liveness, Pulse, Question};
use super::world::{Case, Lan, World};
use crate::commissioning::ports::{AttributePath, LinkError, OperationalSession};
use crate::journal::{Event, EventSink, Level};
use crate::node::{NodeId, NodeState};
use crate::rhythm::together;

/// DataModelRevision of Basic Information: every node has it, and it is small.
const SMALLEST: AttributePath = AttributePath { endpoint: 0, cluster: 0x28, attribute: 0 };
/// A read on a kept session; MRP has sent it several times by then.
const READ: Duration = Duration::from_secs(3);
/// A sleepy node that misses one question may just have slept on.
const SLEEPY_FAILURES: u32 = 2;
/// Of the Matter stack's 64 sessions, so many are kept for probes.
const KEPT: usize = 16;
/// New nodes are noticed this soon.
const REFRESH: Duration = Duration::from_secs(10);
/// Nodes that fall silent within so long are flagged in one commit, but for the first: a power cut in the house must not wear
/// the hub's flash out.
const FLAG_TOGETHER: Duration = Duration::from_secs(5);

/// What a probe found.
enum Probed {
    Alive,
    Silent(String),
    /// Another device answers where it was.
    SomebodyElse(String),
    /// Our own stack failed.
    NotAsked,
}

/// The state of all probes.
pub(crate) struct Probes<W: World> {
    liveness: Mutex<Liveness>,
    kept: Mutex<BTreeMap<NodeId, Case<W>>>,
    /// Who was asked last in which task.
    asked: Mutex<BTreeMap<NodeId, AbortHandle>>,
    /// Who did not answer and is not flagged yet, and what became of the question.
    silent: Mutex<BTreeMap<NodeId, String>>,
    wake: Notify,
}

impl<W: World> Default for Probes<W> {
    fn default() -> Self {
        let (liveness, kept, asked) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { liveness, kept, asked, silent: Mutex::default(), wake: Notify::new() }
    }
}

impl<W: World> Probes<W> {
    fn liveness(&self) -> MutexGuard<'_, Liveness> {
        self.liveness.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<NodeId, Case<W>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn asked(&self) -> MutexGuard<'_, BTreeMap<NodeId, AbortHandle>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn silent(&self) -> MutexGuard<'_, BTreeMap<NodeId, String>> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, node: NodeId, session: Case<W>) {
        let mut kept = self.kept();
        if kept.len() < KEPT || kept.contains_key(&node) {
            kept.insert(node, session);
        }
    }

    /// Whether a node was asked in vain since it was last heard of.
    pub(super) fn is_silent(&self, node: NodeId) -> bool {
        self.liveness().is_silent(node)
    }

    /// When a node was last heard of, since the start.
    pub(super) fn last_contact(&self, node: NodeId) -> Option<Timestamp> {
        self.liveness().last(node)
    }
}

/// Runs until the daemon stops.
pub(super) async fn watch<W: World>(hub: Arc<Hub<W>>, began: Instant) {
    hub.know_nodes().await;
    let first = tokio::time::Instant::now() + together(began.elapsed(), REFRESH);
    let mut refresh = tokio::time::interval_at(first, REFRESH);
    // Dropped, and so ended, with this task.
    let mut probes = JoinSet::new();
    let mut flagged = Instant::now() - FLAG_TOGETHER;
    loop {
        let now = Instant::now();
        for (node, waited) in hub.probes.liveness().take_overdue(now) {
            let why = format!("it should have checked in within {} s, and has not", waited.as_secs());
            hub.probes.silent().insert(node, why);
        }
        let flag_at = if hub.probes.silent().is_empty() { None } else { Some(flagged + FLAG_TOGETHER) };
        if flag_at.is_some_and(|at| at <= now) {
            hub.flag_silent().await;
            flagged = Instant::now();
            continue;
        }
        let questions = hub.probes.liveness().begin_due(now, probes.len());
        for question in questions {
            let asker = Arc::clone(&hub);
            let task = probes.spawn(async move { asker.probe(question).await });
            hub.probes.asked().insert(question.node, task);
        }
        let next = hub.probes.liveness().next_due(now).unwrap_or(now + REFRESH).min(flag_at.unwrap_or(now + REFRESH));
        tokio::select! {
            () = hub.stop.cancelled() => return,
            _ = refresh.tick() => hub.know_nodes().await,
            () = hub.probes.wake.notified() => {}
            () = tokio::time::sleep_until(next.into()) => {}
            Some(_) = probes.join_next(), if !probes.is_empty() => {}
        }
    }
}

impl<W: World> Hub<W> {
    pub(super) async fn know_nodes(&self) {
        let Ok(records) = self.store.nodes().await else { return };
        let probed = records.iter().filter(|record| record.state != NodeState::Removing);
        let pulse = |record| match self.icd.sleep(record) {
            Some(sleep) => Pulse::ChecksIn(sleep.patience()),
            None => Pulse::Asked(self.reach.rhythm(record)),
        };
        let pulses: BTreeMap<NodeId, Pulse> = probed.map(|record| (record.node_id, pulse(record))).collect();
        let nodes: BTreeSet<NodeId> = pulses.keys().copied().collect();
        self.reach.keep_only(&records.iter().map(|record| record.node_id).collect());
        self.probes.kept().retain(|node, _| nodes.contains(node));
        self.probes.asked().retain(|node, _| nodes.contains(node));
        self.probes.liveness().know(&pulses, Instant::now());
    }

    /// A node was heard of: a flag that says otherwise comes down.
    pub(super) async fn note_contact(&self, node: NodeId) {
        let now = Timestamp::now();
        self.reach.handle_contact(node);
        self.icd.handle_contact(node, Instant::now());
        if !self.probes.liveness().contact(node, Instant::now(), now) {
            return;
        }
        let Ok(Some(record)) = self.store.node(node).await else { return };
        if let Err(error) = self.store.touch_node(node, Some(now), None, NodeState::Operational).await {
            tracing::warn!(node.id = node.0, %error, "cannot note that a node answers");
            return;
        }
        if record.state == NodeState::Unreachable {
            let message = format!("node {node} ({}) is back", record.name);
            self.journal.record(Event::new(now, Level::Info, "node-returned", message).with_node(node));
            self.access.heard_of(node);
            self.syncing.compare_soon(node);
        }
    }

    /// Flags the nodes that were silent when they were asked, and have been since.
    async fn flag_silent(&self) {
        let mut silent = std::mem::take(&mut *self.probes.silent());
        silent.retain(|node, _| self.probes.is_silent(*node));
        self.note_silences(&silent).await;
    }

    /// A node did not answer when it was asked.
    pub(super) async fn note_silence(&self, node: NodeId, why: &str) {
        self.note_silences(&BTreeMap::from([(node, why.to_owned())])).await;
    }

    async fn note_silences(&self, silent: &BTreeMap<NodeId, String>) {
        let nodes = silent.keys().map(|node| (*node, self.probes.last_contact(*node))).collect();
        let flagged = match self.store.flag_silent(nodes).await {
            Ok(flagged) => flagged,
            Err(error) => {
                tracing::warn!(%error, "cannot note that nodes do not answer");
                return;
            }
        };
        for record in flagged {
            let node = record.node_id;
            let why = silent.get(&node).map(String::as_str).unwrap_or_default();
            let message = format!("node {node} ({}) does not answer: {why}", record.name);
            self.journal.record(Event::new(Timestamp::now(), Level::Warn, "node-unreachable", message).with_node(node));
        }
    }

    /// Has a node asked at once.
    pub(super) fn doubt(&self, node: NodeId) {
        self.probes.liveness().doubt(node, Instant::now());
        self.probes.wake.notify_one();
    }

    /// A node announced itself, maybe elsewhere than before: it is asked there at once.
    pub(super) fn announced(&self, node: NodeId) {
        self.probes.kept().remove(&node);
        // Its place is needed.
        if let Some(overtaken) = self.probes.asked().remove(&node) {
            overtaken.abort();
        }
        self.probes.liveness().announced(node, Instant::now());
        self.probes.wake.notify_one();
    }

    async fn probe(&self, Question { node, number, patience, sleepy }: Question) {
        let answer = self.ask(node, patience, sleepy).await;
        let failed = || {
            let seen = self.reach.announced(node);
            seen.iter().for_each(|seen| self.lan.confirm(seen));
            self.probes.liveness().failed(node, number, Instant::now(), seen.is_some())
        };
        match answer {
            Probed::Alive => {
                self.note_contact(node).await;
                // Also where it came back before anybody had flagged it.
                self.access.heard_of(node);
            }
            Probed::NotAsked => self.probes.liveness().later(node, number, Instant::now()),
            Probed::Silent(why) | Probed::SomebodyElse(why) => {
                if failed().is_some_and(|failures| failures >= if sleepy { SLEEPY_FAILURES } else { 1 }) {
                    self.probes.silent().insert(node, why);
                }
            }
        }
    }

    async fn ask(&self, node: NodeId, patience: Duration, sleepy: bool) -> Probed {
        let kept = self.probes.kept().remove(&node);
        if let Some(session) = kept
            && let Ok(Ok(_)) = timeout(READ, session.read_text(SMALLEST)).await
        {
            self.probes.keep(node, session);
            return Probed::Alive;
        }
        let Ok(Some(record)) = self.store.node(node).await else { return Probed::NotAsked };
        match self.reach.open(&record, patience).await {
            Ok(session) => {
                // A session with a sleepy node would have to outlast its sleep.
                if !sleepy {
                    self.probes.keep(node, session);
                }
                Probed::Alive
            }
            Err(LinkError::Stack { what }) => {
                tracing::debug!(node.id = node.0, what, "a node could not be asked");
                Probed::NotAsked
            }
            Err(error @ LinkError::NoSharedTrustRoots { peer }) => {
                self.reach.suspect(node, peer);
                Probed::SomebodyElse(error.to_string())
            }
            Err(error @ LinkError::NotThatNode { .. }) => Probed::SomebodyElse(error.to_string()),
            // Somebody is there, be it this node or not: nothing is known.
            Err(LinkError::Busy) => Probed::NotAsked,
            Err(error) => Probed::Silent(error.to_string()),
        }
    }
}
