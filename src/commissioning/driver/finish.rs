//! The end of the way, from CASE to the record: the same for a device whose attempt went through and for one that is met again after its
//! attempt was interrupted. The states are `path`'s. Not here: how it came to CASE (`driver`), when it is met again (`hub::recovery`).

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::record::{LastKnown, finished, succeeding, unknown_discriminator};
use super::run::{Run, now};
use super::{Commissioned, Commissioner, ProgressFn, at_store, bind_task};
use crate::bind::{BindState, BindStatus};
use crate::commissioning::attempt::{Attempt, DeviceEvent, Undo};
use crate::commissioning::error::CommissioningError;
use crate::commissioning::identity::{self, Eligible};
use crate::commissioning::path::{
    AccessedCommissionee, Breadcrumb, CommissionedNode, FoundAgain, InterruptedCommissionee, OperationalCommissionee,
};
use crate::commissioning::ports::{
    AttestationJudge, DeviceDescription, Discovery, FailSafe, MatterLink, NodeStore, OperationalSession,
    ProvisionalNode, Stage, Unfinished,
};
use crate::commissioning::step::Step;
use crate::fabric::plan_acl;
use crate::failpoint;
use crate::node::{NodeRecord, NodeState};
use crate::outbox::ports::OutboxId;

/// How long a device that is resumed in vain may take to roll back.
const ROLLBACK: Duration = Duration::from_secs(5);

/// What came of resuming an interrupted attempt.
#[derive(Debug)]
pub(crate) enum Resumption {
    /// It is at its end.
    Commissioned(Box<Commissioned>),
    /// The device is not where we left it, by its breadcrumb.
    Elsewhere {
        /// What it says.
        breadcrumb: u64,
    },
    /// It did not go through, and is worth another try while the fail-safe lasts; the row says how far it may be.
    Again(CommissioningError),
    /// It cannot go through. The device was told to roll back.
    RolledBack(CommissioningError),
}

/// What the device of one attempt is made ours with.
pub(super) struct Beginning<'a> {
    /// As it was written down before the device could be on our fabric.
    pub(super) row: &'a ProvisionalNode,
    pub(super) unfinished: &'a Unfinished,
    /// What it says of itself.
    pub(super) description: &'a DeviceDescription,
}

impl<L, D, S, J> Commissioner<L, D, S, J>
where
    L: MatterLink,
    D: Discovery,
    S: NodeStore,
    J: AttestationJudge,
{
    /// Access, the identity in the cloud, the row as the record will be, CommissioningComplete, the record. `arming` is the session
    /// that keeps the fail-safe armed; a node that is ours but not yet recorded is left in `complete`.
    ///
    /// Boxed, for both ways lead through here and the compiler would look into each of them again and again.
    pub(super) fn finish<'a>(
        &'a self,
        run: &'a mut Run<'_>,
        beginning: Beginning<'a>,
        operational: OperationalCommissionee<L::Case>,
        arming: &'a impl FailSafe,
        complete: &'a mut Option<CommissionedNode<L::Case>>,
    ) -> BoxFuture<'a, Result<(NodeRecord, Option<OutboxId>), CommissioningError>> {
        Box::pin(async move {
            let Beginning { row, unfinished, description } = beginning;
            let plan = plan_acl(self.settings.admin_cat, &self.settings.grants, description.acl_limits);
            let met_at = operational.session().peer();
            let accessing = async { operational.set_access(&plan?, &self.settings.label).await };
            let accessed = run.step(Step::Access, accessing).await?;
            let before = self.predecessor_of(run, &description.basic, arming).await?;
            let particulars = succeeding(&unfinished.particulars, before.as_ref());
            let unfinished = Unfinished { particulars, ..unfinished.clone() };
            let bind = match row.record.discriminator {
                Some(_) => self.bind_identity(run, &unfinished, description, &accessed).await,
                None => Err(unknown_discriminator()),
            };
            let (fabric_index, cats) = (accessed.fabric_index(), accessed.cats());
            let last = LastKnown { fabric_index, cats, bind: &bind, met_at, before: before.as_ref() };
            let record = finished(&row.record, &unfinished.particulars, &self.settings, &last);
            let task = bind.ok().map(|eligible| bind_task(&record, eligible));
            let ready = NodeRecord { state: NodeState::Provisional, ..record.clone() };
            let ready = ProvisionalNode { record: ready, task, stage: Stage::Ready, ..row.clone() };
            *complete = Some(self.complete(run, accessed, &ready, met_at).await?);
            let ProvisionalNode { attempt_id, task, evidence, .. } = ready;
            let committing = async {
                let committed = self.store.commit_commissioned(attempt_id, &record, task.as_ref(), &evidence).await;
                failpoint::reach("record.committed");
                committed.map_err(at_store(Step::Record))
            };
            let outbox_id = run.step(Step::Record, committing).await?;
            Ok((record, outbox_id))
        })
    }

    /// The identity in the cloud, or the bind status of a device that has none. Asked before CommissioningComplete, but
    /// no reason to fail: a device without one stays local.
    async fn bind_identity(
        &self,
        run: &Run<'_>,
        unfinished: &Unfinished,
        description: &DeviceDescription,
        accessed: &AccessedCommissionee<L::Case>,
    ) -> Result<Eligible, BindStatus> {
        let Unfinished { particulars, seen, .. } = unfinished;
        if particulars.no_bind || !self.settings.cloud {
            let message = if particulars.no_bind { "asked not to bind" } else { "no cloud is configured" };
            return Err(BindStatus { message: message.to_owned(), ..BindStatus::default() });
        }
        let limit = self.settings.limits.step + run.attempt.sleep();
        let (profiles, basic) = (&self.settings.profiles, &description.basic);
        let resolving = identity::resolve(&particulars.identity, profiles, basic, *seen, accessed.session());
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
    /// whoever finds the row after a crash needs all that the record and its bind are made of.
    async fn complete(
        &self,
        run: &mut Run<'_>,
        accessed: AccessedCommissionee<L::Case>,
        ready: &ProvisionalNode,
        peer: SocketAddr,
    ) -> Result<CommissionedNode<L::Case>, CommissioningError> {
        if !run.stop.is_cancelled() {
            run.device(DeviceEvent::CompleteSent);
        }
        let sleep = run.attempt.sleep();
        let completing = async {
            self.store.save_provisional(ready).await.map_err(at_store(Step::Complete))?;
            failpoint::reach("complete.saved");
            accessed.complete(self.meet_at(ready.record.node_id, Some(peer), sleep)).await
        };
        let completed = run.step(Step::Complete, completing).await?;
        run.device(DeviceEvent::CompleteConfirmed);
        Ok(completed)
    }

    /// Goes on with an attempt that was interrupted when its device was on our fabric: `session` is with that device. It is not
    /// sent to its network again.
    pub(crate) fn resume<'a>(
        &'a self,
        row: &'a ProvisionalNode,
        unfinished: &'a Unfinished,
        session: L::Case,
        progress: ProgressFn<'a>,
    ) -> BoxFuture<'a, Resumption> {
        Box::pin(async move {
            let mut attempt = Attempt::new(self.settings.limits, now());
            attempt.handle_sleep(row.record.rhythm.session().sleep());
            let mut run = Run { attempt, progress, stop: &self.stop, breadcrumb: Breadcrumb::Resumed };
            let left = match run.step(Step::ReadInfo, InterruptedCommissionee::find(session)).await {
                Ok(FoundAgain::Here(left)) => left,
                Ok(FoundAgain::Elsewhere { breadcrumb }) => return Resumption::Elsewhere { breadcrumb },
                Err(error) => return Resumption::Again(error),
            };
            let description = left.description().clone();
            run.device(DeviceEvent::Armed);
            let fail_safe = run.attempt.fail_safe();
            let operational = match run.step(Step::ArmFailSafe, left.rearm(fail_safe)).await {
                Ok(operational) => operational,
                Err(error) => return Resumption::Again(error),
            };
            let (session, mut complete) = (operational.session(), None);
            let beginning = Beginning { row, unfinished, description: &description };
            match self.finish(&mut run, beginning, operational, session.as_ref(), &mut complete).await {
                Ok((record, outbox_id)) => {
                    let commissioned = Commissioned { record, outbox_id, attempt: run.attempt, ended: now() };
                    Resumption::Commissioned(Box::new(commissioned))
                }
                Err(error) if is_final(&error) && run.attempt.undo() == Undo::ExpireFailSafe => {
                    let expiring = session.arm_fail_safe(Duration::ZERO, 0);
                    // Where this does not arrive, the fail-safe expires by itself.
                    let _ = tokio::time::timeout(ROLLBACK, expiring).await;
                    Resumption::RolledBack(error)
                }
                Err(error) => Resumption::Again(error),
            }
        })
    }
}

/// Whether trying again would end in the same way.
fn is_final(error: &CommissioningError) -> bool {
    match error {
        CommissioningError::Access(_) | CommissioningError::AccessMismatch { .. } => true,
        CommissioningError::Payload(_)
        | CommissioningError::Identity(_)
        | CommissioningError::Discover(_)
        | CommissioningError::Link { .. }
        | CommissioningError::StepTimeout { .. }
        | CommissioningError::Deadline { .. }
        | CommissioningError::FailSafeExpired { .. }
        | CommissioningError::AttestationRejected { .. }
        | CommissioningError::CsrRejected { .. }
        | CommissioningError::AlreadyOurs { .. }
        | CommissioningError::BeingCommissioned { .. }
        | CommissioningError::Abandoned
        | CommissioningError::FabricTableFull { .. }
        | CommissioningError::TermsRequired { .. }
        | CommissioningError::Network(_)
        | CommissioningError::CloudRefuses { .. }
        | CommissioningError::Store { .. }
        | CommissioningError::Stopped { .. } => false,
    }
}
