//! What an attempt of ours that was interrupted has left on a device: its fail-safe runs, and until it has run out the device is busy,
//! or not to be seen at all. It is told to roll back, or waited for. Not here: the search (`approach`).

use std::future::pending;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use uuid::Uuid;

use super::run::{Run, now};
use super::{Commissioner, Order, Progress};
use crate::commissioning::path::BUSY_WITH_OTHER_ADMIN;
use crate::commissioning::ports::{AttestationJudge, Discovery, FailSafe, LinkError, MatterLink, NodeStore};
use crate::commissioning::together::Resumable;

/// When a device that is at work with somebody else is asked again.
const BUSY_POLL: Duration = Duration::from_secs(2);
/// How long a device may take to roll back an earlier attempt of ours.
const LEFTOVER: Duration = Duration::from_secs(5);
/// What an attempt may have added to the fail-safe of a device that it sent to a network: how much, only the device knew.
const JOINS: Duration = Duration::from_secs(60);

impl<L, D, S, J> Commissioner<L, D, S, J>
where
    L: MatterLink,
    D: Discovery,
    S: NodeStore,
    J: AttestationJudge,
{
    /// An attempt of ours that was interrupted may have left the device with a fail-safe that runs and with the beginnings of
    /// credentials, which would stand in this attempt's way. It is told to roll back now, or its end is waited for. `None`:
    /// there was no such attempt; otherwise when the device is to be asked anew, for it ends this session as it rolls back.
    pub(super) async fn end_leftover(&self, run: &mut Run<'_>, order: &Order, pase: &L::Pase) -> Option<Instant> {
        self.interrupted(order).await?;
        match tokio::time::timeout(LEFTOVER, pase.arm_fail_safe(Duration::ZERO, 0)).await {
            // It has our credentials, so that only their fabric may end it.
            Ok(Err(LinkError::Commissioning { code: BUSY_WITH_OTHER_ADMIN, .. })) => {
                Some(self.free_again(run, order).await)
            }
            Ok(_) | Err(_) => {
                let note = "an attempt of this hub was interrupted; the device is told to roll back first";
                (run.progress)(Progress::Note(note.to_owned()));
                Some(now() + BUSY_POLL)
            }
        }
    }

    /// An attempt of ours with this code was interrupted when its device was on our fabric, and goes on by itself if it can.
    pub(super) fn left_in_the_middle(&self, run: &mut Run<'_>, order: &Order) -> Option<Resumable> {
        let fingerprint = self.settings.fingerprints.fingerprint(&order.payload);
        let left = self.together.resumable(fingerprint, &order.payload)?;
        let rest = left.until.saturating_duration_since(now());
        (run.progress)(Progress::Note(format!(
            "attempt {} of this hub with this code was interrupted when its device was on our fabric: it goes on by itself, or the \
             device is free in {} s at most",
            left.attempt,
            rest.as_secs()
        )));
        run.attempt.handle_leftover(rest);
        Some(left)
    }

    /// How long a device on Bluetooth may still hide: one that was left in the middle is not on the air, and lets nobody else in,
    /// before its fail-safe has run out (Matter Core 5.5, 11.10.7.2).
    pub(super) async fn hidden(&self, run: &mut Run<'_>, order: &Order) -> Duration {
        let Some(since) = self.interrupted(order).await else { return Duration::ZERO };
        let passed = Timestamp::now().duration_since(since).unsigned_abs();
        let left = (self.settings.limits.fail_safe + JOINS).saturating_sub(passed);
        (run.progress)(Progress::Note(format!(
            "an attempt of this hub with this code was interrupted: where its device is on Bluetooth, it shows itself when its fail-safe \
             has run out, in {} s at most; it is waited for",
            left.as_secs()
        )));
        run.attempt.handle_leftover(left);
        left
    }

    /// When an attempt with this code was interrupted, if its fail-safe may still run, or ran when the device was last tried.
    pub(super) async fn interrupted(&self, order: &Order) -> Option<Timestamp> {
        let fingerprint = self.settings.fingerprints.fingerprint(&order.payload);
        let limits = &self.settings.limits;
        let since = Timestamp::now() - limits.fail_safe - JOINS - limits.step;
        self.store.interrupted_since(fingerprint, since).await.ok().flatten()
    }

    /// When a busy device may be free: at once where somebody else is at work, who may be done any time.
    pub(super) async fn free_again(&self, run: &mut Run<'_>, order: &Order) -> Instant {
        self.rolled_back(run, order).await.unwrap_or_else(|| now() + BUSY_POLL)
    }

    /// When the fail-safe of an attempt of ours that was interrupted has run out, if there was one.
    pub(super) async fn rolled_back(&self, run: &mut Run<'_>, order: &Order) -> Option<Instant> {
        let passed = Timestamp::now().duration_since(self.interrupted(order).await?).unsigned_abs();
        let left = self.settings.limits.fail_safe.saturating_sub(passed);
        (run.progress)(Progress::Note(format!(
            "the device still holds the fail-safe of an attempt of this hub that was interrupted; it is free in {} s",
            left.as_secs()
        )));
        let until = left + BUSY_POLL;
        run.attempt.handle_leftover(until);
        Some(now() + until)
    }
}

/// Comes back when the attempt has brought its device to the end.
pub(super) async fn went_on(left: &mut Option<Resumable>) -> Uuid {
    if let Some(resumable) = left
        && resumable.ended().await
    {
        return resumable.attempt;
    }
    *left = None;
    pending().await
}
