//! What the service manager is told: READY, STATUS, WATCHDOG, STOPPING. Without systemd every call does nothing.
//!
//! Not here: directories and credentials (`config`), what counts as ready (`app`).

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::OnceLock;
use std::time::Duration;

use sd_notify::NotifyState;

/// The daemon is ready: discovery and the Matter stack run.
pub(crate) fn ready() {
    send(&[NotifyState::Ready]);
}

/// The line that `systemctl status` shows.
pub(crate) fn status(line: &str) {
    send(&[NotifyState::Status(line)]);
}

/// A clean stop has begun.
pub(crate) fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// The daemon is alive: every part has answered.
pub(crate) fn beat() {
    if watchdog_interval().is_some() {
        send(&[NotifyState::Watchdog]);
    }
}

/// The socket is opened once and kept: a process without a free descriptor can still say so.
static MANAGER: OnceLock<Option<UnixDatagram>> = OnceLock::new();

fn connect() -> Option<UnixDatagram> {
    let name = std::env::var_os("NOTIFY_SOCKET")?;
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(abstract_name) => SocketAddr::from_abstract_name(abstract_name),
        None => SocketAddr::from_pathname(&name),
    };
    let connected =
        UnixDatagram::unbound().and_then(|socket| address.and_then(|at| socket.connect_addr(&at)).map(|()| socket));
    connected.inspect_err(|error| tracing::warn!(%error, "the service manager cannot be notified")).ok()
}

fn send(states: &[NotifyState<'_>]) {
    let Some(manager) = MANAGER.get_or_init(connect) else { return };
    let text: String = states.iter().map(|state| format!("{state}\n")).collect();
    if let Err(error) = manager.send(text.as_bytes()) {
        tracing::warn!(%error, "cannot notify the service manager");
    }
}

/// Half of WatchdogSec, if systemd watches this process.
pub(crate) fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|whole| whole / 2)
}

/// Whether stderr is connected to the journal (`$JOURNAL_STREAM` names its device and inode).
pub(crate) fn stderr_is_journal() -> bool {
    let Some((device, inode)) = std::env::var("JOURNAL_STREAM").ok().and_then(|text| {
        let (device, inode) = text.split_once(':')?;
        Some((device.parse::<u64>().ok()?, inode.parse::<u64>().ok()?))
    }) else {
        return false;
    };
    std::fs::metadata("/proc/self/fd/2").is_ok_and(|found| found.dev() == device && found.ino() == inode)
}
