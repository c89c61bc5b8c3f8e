//! Watches the hub's clock, says when it is not set, and keeps the last known good time. What is thought of a clock is in
//! `crate::clock`; here are the readings, the witnesses, and who has to know.
//!
//! Two are believed about the time: systemd-timesyncd, by the file that it touches when it is synchronised, and a cloud whose
//! certificate was checked.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Hub;
use super::world::{CloudService, World};
use crate::clock::{Change, ClockStanding, Reading, Sanity};
use crate::durable::StoreError;
use crate::journal::{Event, EventSink, Level};
use crate::rhythm::together;
use crate::store::Store;

/// The last known good time in the database.
pub(super) const BLOB: &str = "last-known-good-time";
/// How often the clocks are read.
const LOOK: Duration = Duration::from_secs(5);
/// How often a good time is kept; a flash is worn out by more.
const KEEP: Duration = Duration::from_secs(3600);
/// A machine that has run no longer may have come back with all its neighbours.
const JUST_BOOTED: Duration = Duration::from_secs(5 * 60);
/// Touched by systemd-timesyncd when it is synchronised; poll intervals are up to half an hour.
const SYNCHRONISED: &str = "/run/systemd/timesync/synchronized";
const SYNCHRONISED_FOR: SignedDuration = SignedDuration::from_hours(2);

/// How the clock stands, for `status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClockStatus {
    /// `confirmed`, `unconfirmed` or `not-set`.
    pub standing: String,
    /// What the clock says.
    pub says: Option<Timestamp>,
    /// A time that has certainly passed.
    pub at_least: Option<Timestamp>,
}

/// The hub's idea of the time.
pub(crate) struct Clock {
    sanity: Mutex<Sanity>,
    started: Instant,
}

impl Clock {
    /// Goes on from what earlier runs knew.
    pub(crate) async fn open(store: &Store) -> Result<Self, StoreError> {
        let kept = store.load_blob(BLOB).await?;
        let known = kept.and_then(|bytes| std::str::from_utf8(&bytes).ok()?.parse().ok());
        let now = Reading { wall: Timestamp::now(), running: Duration::ZERO };
        Ok(Self { sanity: Mutex::new(Sanity::new(known, now)), started: Instant::now() })
    }

    /// The best guess at the time: certificates are made and judged by it.
    pub(crate) fn now(&self) -> Timestamp {
        self.with(|sanity, now| sanity.best(now))
    }

    /// Whether it is at least as late as a time that has certainly passed.
    pub(super) fn is_set(&self) -> bool {
        self.with(|sanity, _| sanity.standing() != ClockStanding::NotSet)
    }

    /// The time, where the clock may be told to others: it is not known to be wrong.
    pub(crate) fn believed(&self) -> Option<Timestamp> {
        self.with(|sanity, now| (sanity.standing() != ClockStanding::NotSet).then_some(now.wall))
    }

    pub(super) fn status(&self) -> ClockStatus {
        self.with(|sanity, now| ClockStatus {
            standing: sanity.standing().as_str().to_owned(),
            says: Some(now.wall),
            at_least: Some(sanity.at_least(now.running)),
        })
    }

    fn with<R>(&self, work: impl FnOnce(&mut Sanity, Reading) -> R) -> R {
        let now = Reading { wall: Timestamp::now(), running: self.started.elapsed() };
        work(&mut self.sanity.lock().unwrap_or_else(PoisonError::into_inner), now)
    }
}

/// Runs until the daemon stops.
pub(super) async fn follow<W: World>(hub: Arc<Hub<W>>, began: Instant) {
    let mut kept: Option<Instant> = None;
    let mut told = None;
    loop {
        let (read, standing) = hub.clock.with(|sanity, now| (sanity.read(now), sanity.standing()));
        let witness = synchronised(Path::new(SYNCHRONISED)).or_else(|| hub.cloud.as_ref()?.service_time());
        let confirmed = witness.map(|witness| hub.clock.with(|sanity, now| sanity.confirm(witness, now)));
        let standing = if confirmed.is_some() { hub.clock.with(|sanity, _| sanity.standing()) } else { standing };
        tell(&hub, read, standing, &mut told);
        let due = standing == ClockStanding::Confirmed && kept.is_none_or(|at| at.elapsed() >= KEEP);
        if due || confirmed.is_some_and(|change| change.was.is_some()) {
            kept = Some(Instant::now());
            keep(&hub).await;
        }
        tokio::select! {
            () = hub.stop.cancelled() => break,
            () = tokio::time::sleep(together(began.elapsed(), LOOK)) => {}
        }
    }
    if hub.clock.with(|sanity, _| sanity.standing()) == ClockStanding::Confirmed {
        keep(&hub).await;
    }
}

/// What has certainly passed is kept for the next start, and the admin log forgets by it.
async fn keep<W: World>(hub: &Hub<W>) {
    let passed = hub.clock.with(|sanity, now| sanity.at_least(now.running));
    hub.journal.passed(passed);
    if let Err(error) = hub.store.save_blob(BLOB, passed.to_string().as_bytes()).await {
        tracing::warn!(%error, "the last known good time could not be kept");
    }
}

fn tell<W: World>(hub: &Hub<W>, read: Change, standing: ClockStanding, told: &mut Option<ClockStanding>) {
    let now = Timestamp::now();
    if let Some(by) = read.stepped {
        let way = if by.is_negative() { "back" } else { "ahead" };
        let message =
            format!("the clock was set {way} by {:#}, to {now}", SignedDuration::from_secs(by.abs().as_secs()));
        hub.journal.record(Event::new(now, Level::Info, "clock-stepped", message).with("by_s", by.as_secs()));
        if let Some(outbox) = &hub.outbox {
            // What is due is another thing now.
            outbox.wake();
        }
    }
    match (standing, told.replace(standing)) {
        (ClockStanding::NotSet, before) if before != Some(ClockStanding::NotSet) => {
            let passed = hub.clock.with(|sanity, now| sanity.at_least(now.running));
            let message = format!(
                "clock-not-set: the hub's clock says {now}, and it is {passed} at least: set it (NTP); until then certificates \
                 are judged by that time, and the cloud's may be refused"
            );
            hub.journal.record(Event::new(now, Level::Warn, "clock-not-set", message));
        }
        (ClockStanding::Unconfirmed | ClockStanding::Confirmed, Some(ClockStanding::NotSet)) => {
            hub.journal.record(Event::new(now, Level::Info, "clock-set", format!("the hub's clock is set: {now}")));
        }
        (ClockStanding::NotSet | ClockStanding::Unconfirmed | ClockStanding::Confirmed, _) => {}
    }
}

/// Whether the machine has just started, and with it perhaps a whole street.
pub(super) fn has_just_booted() -> bool {
    let up = std::fs::read_to_string("/proc/uptime").ok();
    let seconds = up.and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok());
    seconds.is_some_and(|seconds| seconds < JUST_BOOTED.as_secs_f64())
}

/// The time, where systemd-timesyncd has found it lately by this very clock.
fn synchronised(path: &Path) -> Option<Timestamp> {
    let touched = Timestamp::try_from(std::fs::metadata(path).ok()?.modified().ok()?).ok()?;
    let now = Timestamp::now();
    let since = now.duration_since(touched);
    (!since.is_negative() && since <= SYNCHRONISED_FOR).then_some(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_another_time_has_touched_is_no_witness() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("synchronized");
        assert_eq!(synchronised(&path), None);
        let file = std::fs::File::create(&path).unwrap();
        assert!(synchronised(&path).is_some());
        let now = std::time::SystemTime::now();
        for touched in [now - Duration::from_secs(3 * 3600), now + Duration::from_secs(3600)] {
            file.set_modified(touched).unwrap();
            assert_eq!(synchronised(&path), None);
        }
    }
}
