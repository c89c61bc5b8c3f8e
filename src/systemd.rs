//! What the service manager is told: READY, STATUS, WATCHDOG, STOPPING. Without systemd every call does nothing.
//!
//! Not here: directories and credentials (`config`), what counts as ready (`app`).

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// The daemon is ready: discovery and the Matter stack run.
pub fn ready() {
    send(&[NotifyState::Ready]);
}

/// The line that `systemctl status` shows.
pub fn status(line: &str) {
    send(&[NotifyState::Status(line)]);
}

/// A clean stop has begun.
pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot notify the service manager");
    }
}

/// Tells systemd that we are alive, twice in each of its intervals, for as long as `is_alive` says so; until `stop`.
///
/// `is_alive` should ask the parts whose standstill a restart would mend (the Matter stack's thread, the store's). When it
/// does not answer `true` within an interval, systemd restarts the daemon.
pub async fn watchdog<F>(stop: CancellationToken, mut is_alive: impl FnMut() -> F + Send)
where
    F: Future<Output = bool> + Send,
{
    let Some(interval) = watchdog_interval() else { return };
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        match tokio::time::timeout(interval, is_alive()).await {
            Ok(true) => send(&[NotifyState::Watchdog]),
            Ok(false) => tracing::error!("a part of the daemon stands still; systemd will restart it"),
            Err(_) => tracing::error!("a part of the daemon does not answer; systemd will restart it"),
        }
    }
}

/// Half of WatchdogSec, if systemd watches this process.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|whole| whole / 2)
}

/// Whether stderr is connected to the journal (`$JOURNAL_STREAM` names its device and inode).
pub fn stderr_is_journal() -> bool {
    let Some((device, inode)) = std::env::var("JOURNAL_STREAM").ok().and_then(|text| {
        let (device, inode) = text.split_once(':')?;
        Some((device.parse::<u64>().ok()?, inode.parse::<u64>().ok()?))
    }) else {
        return false;
    };
    std::fs::metadata("/proc/self/fd/2").is_ok_and(|found| found.dev() == device && found.ino() == inode)
}
