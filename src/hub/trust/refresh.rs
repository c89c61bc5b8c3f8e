//! Keeps the trust store current where `attestation.paa_source` names a ledger: asks it in the background, and says once
//! that it cannot be had. Attempts notice what is new by themselves (`judge`). Not here: when to ask (`dcl::schedule`).

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::dcl::refresh::{Refresh, RefreshError, Refreshed};
use crate::hub::Hub;
use crate::hub::clock::has_just_booted;
use crate::hub::world::World;
use crate::journal::{Event, EventSink, Level};
use crate::paa;
use crate::plain;
use crate::rhythm::Place;

/// The clock may be set while we sleep, so that we look at it so often at least.
const LOOK: Duration = Duration::from_secs(3600);
/// And two tries are never closer, whatever the clock and the disk do.
const BETWEEN: Duration = Duration::from_secs(60);

/// Runs until the daemon stops; not at all without a source.
pub(in crate::hub) async fn follow<W: World>(hub: Arc<Hub<W>>) {
    let config = &hub.config.attestation;
    let Some(directory) = paa::paa_dirs(config, &hub.config.state_dir).into_iter().next() else { return };
    if config.paa_source.is_empty() {
        return;
    }
    let mut refresh = Refresh::new(&config.paa_source, directory, &hub.config.state_dir);
    let place = Place::of(hub.credentials.compressed_fabric_id());
    // A hub's day is a little longer or shorter than its neighbours', and after a power cut it waits for its turn.
    let every = place.period(config.paa_refresh);
    // But for a hub that has nothing yet: it refuses every device until it has asked.
    let waits = has_just_booted() && hub.judge.status().paas > 0;
    let turn = if waits { place.first(LOOK) } else { Duration::ZERO };
    tokio::select! {
        () = hub.stop.cancelled() => return,
        () = tokio::time::sleep(turn) => {}
    }
    loop {
        let wait = refresh.wait(every, hub.clock.now());
        let next = async {
            if !wait.is_zero() {
                return tokio::time::sleep(wait.min(LOOK)).await;
            }
            match refresh.attempt(hub.clock.now()).await {
                Ok(refreshed) => refreshed_line(&hub, &refreshed),
                Err(error) => failed_line(&hub, error),
            }
            tokio::time::sleep(BETWEEN).await;
        };
        tokio::select! {
            () = hub.stop.cancelled() => return,
            () = next => {}
        }
    }
}

fn refreshed_line<W: World>(hub: &Hub<W>, refreshed: &Refreshed) {
    let log = |level, kind, message| hub.journal.record(Event::new(Timestamp::now(), level, kind, message));
    let source = &refreshed.fetched.source;
    for (name, why) in &refreshed.rejected {
        log(Level::Warn, "paa-quarantined", format!("left out of the trust store: {name} of {source}: {why}"));
    }
    for (name, why) in &refreshed.missed {
        let message = format!("the revocation list {name} cannot be used, what was known of it stays in force: {why}");
        log(Level::Warn, "revocations-missed", message);
    }
    let (paas, sets) = (refreshed.fetched.paas, refreshed.revocations.sets);
    log(Level::Info, "paa-refreshed", format!("{paas} PAA certificates and {sets} revocation sets from {source}"));
}

fn failed_line<W: World>(hub: &Hub<W>, error: RefreshError) {
    let first = error.first;
    let error = plain::with_causes(&error);
    if first {
        let message = format!("{error}; what was trusted before stays so, and it is tried again");
        hub.journal.record(Event::new(Timestamp::now(), Level::Warn, "paa-refresh-failed", message));
    } else {
        tracing::debug!(error, "the trust store still cannot be refreshed");
    }
}
