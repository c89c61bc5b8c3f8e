//! Goes on with attempts whose device was on our fabric when they were interrupted, and asks those that may be complete. Each is met
//! again and again until it has answered, or must have rolled back: its fail-safe was armed before this start, and never for longer than
//! its row says, so that no clock but this process's own is needed. Not here: the way from there (`commissioning::driver`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use uuid::Uuid;

use super::{abandon, about, recover, waiting, weigh_refusal};
use crate::commissioning::attempt::Attempt;
use crate::commissioning::driver::{Commissioned, Progress, Resumption};
use crate::commissioning::ports::{LinkError, NodeStore, ProvisionalNode, Stage, Unfinished};
use crate::commissioning::step::Step;
use crate::commissioning::together::{Expected, Resuming};
use crate::hub::Hub;
use crate::hub::reach::OPEN;
use crate::hub::world::{Case, World};
use crate::journal::{EventSink, Level};
use crate::node::NodeRecord;
use crate::outbox::ports::OutboxId;

/// How much longer than its fail-safe a device may take to roll back.
const ROLLS_BACK: Duration = Duration::from_secs(5);
/// How long nobody else works on a device that may be complete: it answers at once, or is away.
const MAY_BE_COMPLETE: Duration = Duration::from_secs(60);
/// When a device that could not be met is tried again; mDNS was asked for it meanwhile.
const AGAIN: Duration = Duration::from_millis(500);

/// Attempts that this start has found interrupted, and what came of them.
#[derive(Default)]
pub(crate) struct Interrupted {
    expected: Mutex<Vec<ToResume>>,
    recorded: Mutex<BTreeMap<Uuid, Commissioned>>,
}

struct ToResume {
    attempt: Uuid,
    until: Instant,
    resuming: Resuming,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The clock that attempts are kept by.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl Interrupted {
    /// From now on nobody else works on its device.
    pub(super) async fn expect<W: World>(&self, hub: &Hub<W>, provisional: &ProvisionalNode) {
        let lasts = match &provisional.stage {
            Stage::OnFabric(unfinished) => unfinished.fail_safe + ROLLS_BACK,
            Stage::GivenAway | Stage::Ready => MAY_BE_COMPLETE,
        };
        let (attempt, until) = (provisional.attempt_id, now() + lasts);
        let NodeRecord { discriminator, addresses, .. } = provisional.record.clone();
        let fingerprint = hub.store.fingerprint(attempt).await.ok().flatten();
        let expected = Expected { attempt, fingerprint, discriminator, addresses, until };
        let resuming = hub.commissioner.get().together.expect(expected);
        locked(&self.expected).push(ToResume { attempt, until, resuming });
    }

    /// The device of an attempt was complete, and is recorded now.
    pub(super) fn note_recorded<W: World>(
        &self,
        hub: &Hub<W>,
        attempt: Uuid,
        record: NodeRecord,
        outbox_id: Option<OutboxId>,
    ) {
        let limits = hub.commissioner.get().settings.limits;
        let commissioned = Commissioned { record, outbox_id, attempt: Attempt::new(limits, now()), ended: now() };
        locked(&self.recorded).insert(attempt, commissioned);
    }

    /// What came of an attempt that went on.
    pub(in crate::hub) fn commissioned(&self, attempt: Uuid) -> Option<Commissioned> {
        locked(&self.recorded).get(&attempt).cloned()
    }
}

/// Runs until nothing is left to be resumed, or the daemon stops.
pub(in crate::hub) async fn follow<W: World>(hub: Arc<Hub<W>>) {
    let expected = std::mem::take(&mut *locked(&hub.interrupted.expected));
    tokio::select! {
        () = hub.stop.cancelled() => {}
        _ = join_all(expected.into_iter().map(|left| go_on(&hub, left))) => {}
    }
}

/// Until the attempt is at its end, or closed.
async fn go_on<W: World>(hub: &Hub<W>, left: ToResume) {
    let ToResume { attempt, until, resuming } = left;
    let mut resuming = Some(resuming);
    loop {
        let Ok(open) = hub.store.provisional_nodes().await else { return };
        let Some(row) = open.into_iter().find(|row| row.attempt_id == attempt) else {
            if let (Some(resuming), true) = (&resuming, hub.interrupted.commissioned(attempt).is_some()) {
                resuming.finish();
            }
            return;
        };
        let met = if now() < until {
            tokio::time::timeout_at(until.into(), meet(hub, &row, &mut resuming)).await.ok()
        } else {
            None
        };
        match (&row.stage, met) {
            (Stage::GivenAway, _) | (Stage::Ready, None) => return,
            (Stage::OnFabric(_), None) => return abandon(hub, &row).await,
            (Stage::OnFabric(unfinished), Some(Some(session))) => {
                if resume(hub, &row, unfinished, session).await {
                    continue;
                }
            }
            (Stage::Ready, Some(Some(session))) => {
                if recover(hub, &row, &session).await {
                    continue;
                }
            }
            (Stage::OnFabric(_) | Stage::Ready, Some(None)) => {}
        }
        // One that anybody may take in is not to be disturbed at that.
        tokio::time::sleep(if resuming.is_some() { AGAIN } else { AGAIN * 10 }).await;
    }
}

/// One try to meet its device. Who does not know our fabric may be taken in by anybody.
async fn meet<W: World>(hub: &Hub<W>, row: &ProvisionalNode, resuming: &mut Option<Resuming>) -> Option<Case<W>> {
    let waiting = waiting(hub, row);
    match hub.reach.open_among(&row.record, &waiting, OPEN).await {
        Ok(session) => return Some(session),
        Err(LinkError::NoSharedTrustRoots { peer }) => {
            *resuming = None;
            weigh_refusal(hub, row, &waiting, peer).await;
        }
        Err(error) => {
            let node = row.record.node_id;
            tracing::debug!(node.id = node.0, %error, "the device of an interrupted attempt does not answer yet");
        }
    }
    None
}

/// Goes on with a device that has answered; whether its attempt is settled.
async fn resume<W: World>(hub: &Hub<W>, row: &ProvisionalNode, unfinished: &Unfinished, session: Case<W>) -> bool {
    let node = row.record.node_id;
    let progress = |progress: Progress| {
        if let Progress::Finished(Step::ArmFailSafe, _) = progress {
            let message =
                format!("node {node} was on our fabric when its attempt was interrupted: it goes on from there");
            hub.journal.record(about(row, Level::Info, "attempt-resumed", message));
        }
        hub.observe(progress);
    };
    match hub.commissioner.get().resume(row, unfinished, session, &progress).await {
        Resumption::Commissioned(commissioned) => {
            let commissioned = hub.taken_in(row.attempt_id, *commissioned).await;
            locked(&hub.interrupted.recorded).insert(row.attempt_id, commissioned);
            true
        }
        Resumption::Elsewhere { breadcrumb } => {
            tracing::warn!(
                node.id = node.0,
                breadcrumb,
                "the device of an interrupted attempt is not where it was left"
            );
            abandon(hub, row).await;
            true
        }
        Resumption::Again(error) => {
            tracing::debug!(node.id = node.0, %error, "an interrupted attempt does not go on yet");
            false
        }
        Resumption::RolledBack(error) => {
            tracing::warn!(node.id = node.0, %error, "an interrupted attempt cannot go on, and its device was told to roll back");
            abandon(hub, row).await;
            true
        }
    }
}
