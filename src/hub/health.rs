//! Whether the daemon works: each part is asked for an answer, and what the service manager and `status` are told follows.
//!
//! A part that does not answer although nothing outside is missing stands still, and a restart would mend it: then the beat to
//! systemd's watchdog stays out. What only the world can mend (no network, no room on the disk) is said and waited for. Not here:
//! how systemd is spoken to (`systemd`).

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use jiff::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::Hub;
use super::world::{HubLink, Lan, World};
use crate::journal::{Event, EventSink, Level};
use crate::rhythm::together;
use crate::store::is_read_only;
use crate::systemd;

/// A part answers within this time; a busy hub takes a fraction of it.
const ANSWER: Duration = Duration::from_secs(5);
/// From one round to the next where everything works, unless systemd wants to hear from us sooner.
const ROUND: Duration = Duration::from_secs(10);
/// And where something does not.
const FAULTY: Duration = Duration::from_secs(5);
/// While the daemon starts.
const STARTING: Duration = Duration::from_millis(50);
/// With less room than this the next commissioning may not be recorded.
const LITTLE_ROOM: u64 = 4 << 20;

/// Something that does not work.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    /// What, as it stands after "waiting for".
    what: String,
    /// How far it has come; a figure that moves makes no other fault.
    figure: Option<String>,
    /// Whether a restart would mend it.
    stands_still: bool,
}

impl PartialEq for Fault {
    fn eq(&self, other: &Self) -> bool {
        (&self.what, self.stands_still) == (&other.what, other.stands_still)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        self.figure.iter().try_for_each(|figure| write!(f, ": {figure}"))
    }
}

/// What the last round found.
#[derive(Debug, Default)]
pub(crate) struct Health(Mutex<Option<Vec<Fault>>>);

impl Health {
    /// What does not work; before the first round nothing is known to.
    pub(super) fn waiting_for(&self) -> Vec<String> {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(faults) => faults.iter().map(ToString::to_string).collect(),
            None => vec!["discovery and the Matter stack".to_owned()],
        }
    }

    /// Keeps a round; answers what was there before it.
    fn replace(&self, faults: Vec<Fault>) -> Vec<Fault> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).replace(faults).unwrap_or_default()
    }
}

/// Asks again and again until the daemon stops; says READY after the first round in which every part answers.
pub(super) async fn follow<W: World>(hub: Arc<Hub<W>>, began: Instant) {
    let every = |round| systemd::watchdog_interval().map_or(round, |interval| interval.min(round));
    let mut ready = false;
    while !hub.stop.is_cancelled() {
        let faults = tokio::select! {
            () = hub.stop.cancelled() => return,
            faults = hub.ask_everybody() => faults,
        };
        let alive = faults.iter().all(|fault| !fault.stands_still);
        let before = hub.health.replace(faults.clone());
        if alive {
            systemd::beat();
        }
        if alive && !ready {
            ready = true;
            hub.announce(began.elapsed());
        }
        if ready && faults != before {
            hub.tell_change(&faults, &before);
        }
        let pause = match (ready, faults.is_empty()) {
            (false, _) => STARTING,
            (true, true) => together(began.elapsed(), every(ROUND)),
            (true, false) => together(began.elapsed(), every(FAULTY)),
        };
        tokio::select! {
            () = hub.stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

impl<W: World> Hub<W> {
    async fn ask_everybody(&self) -> Vec<Fault> {
        let still = |what: &str| Some(Fault { what: what.to_owned(), figure: None, stands_still: true });
        let stack = async {
            if let Some(why) = self.link.failed().now_or_never() {
                return still(&format!("the Matter stack, which has ended: {why}"));
            }
            match tokio::time::timeout(ANSWER, self.link.answers()).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => still(&format!("the Matter stack: {error}")),
                Err(_) => still("the Matter stack, which does not answer"),
            }
        };
        let discovery = async {
            let health = self.lan.health().await;
            // Without an interface it has nothing to do, and the network may come.
            health.failure.map(|what| Fault { what, figure: None, stands_still: !health.interfaces.is_empty() })
        };
        let store = async {
            match tokio::time::timeout(ANSWER, self.store.answers()).await {
                Ok(Ok(())) => None,
                // The disk may be the reason, and comes back by itself.
                Ok(Err(error)) => {
                    Some(Fault { what: format!("the store: {error}"), figure: None, stands_still: false })
                }
                Err(_) => still("the store, which does not answer"),
            }
        };
        let socket = async {
            match tokio::time::timeout(ANSWER, request(&self.config.socket)).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => still(&format!("the admin socket: {error}")),
                Err(_) => still("the admin socket, which does not answer"),
            }
        };
        let (stack, discovery, store, socket) = tokio::join!(stack, discovery, store, socket);
        [stack, discovery, store, socket, disk(&self.config.state_dir)].into_iter().flatten().collect()
    }

    fn announce(&self, took: Duration) {
        let fabric = self.credentials.bundle().fabric_id.0;
        let message = format!("ready after {} ms on fabric {fabric}", took.as_millis());
        self.journal.record(Event::new(Timestamp::now(), Level::Info, "daemon-ready", message.clone()));
        systemd::ready();
        systemd::status(&message);
    }

    /// A change of what works, for whoever reads the log or asks systemd.
    fn tell_change(&self, faults: &[Fault], before: &[Fault]) {
        for fault in faults.iter().filter(|fault| !before.contains(fault)) {
            let message = format!("this does not work: {fault}");
            self.journal.record(Event::new(Timestamp::now(), Level::Error, "part-failed", message));
        }
        let line = if faults.is_empty() {
            self.journal.record(Event::new(Timestamp::now(), Level::Info, "parts-work", "everything works again"));
            "ready".to_owned()
        } else {
            format!("waiting for {}", faults.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
        };
        systemd::status(&line);
    }
}

/// One request as any client would make it.
async fn request(socket: &Path) -> std::io::Result<()> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: matterbind\r\nconnection: close\r\n\r\n").await?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await?;
    if &answer == b"HTTP/1.1 200" { Ok(()) } else { Err(std::io::Error::other("it refuses the daemon itself")) }
}

/// A disk that is full or read-only before anything had to be written.
fn disk(state_dir: &Path) -> Option<Fault> {
    let on = || format!("on the disk that holds {}", state_dir.display());
    if is_read_only(state_dir) {
        let what = format!("leave to write {}: it is read-only", on());
        return Some(Fault { what, figure: None, stands_still: false });
    }
    let found = rustix::fs::statvfs(state_dir).ok()?;
    let left = found.f_bavail.saturating_mul(found.f_frsize);
    (left < LITTLE_ROOM).then(|| Fault {
        what: format!("room {}", on()),
        figure: Some(format!("{} KiB are left", left >> 10)),
        stands_still: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_that_moves_is_no_other_fault() {
        let room = |left: u64| Fault {
            what: "room on the disk".to_owned(),
            figure: Some(format!("{left} KiB are left")),
            stands_still: false,
        };
        assert_eq!(room(2844), room(2832), "each entry about it would take room, and be news again");
        assert_eq!(room(2844).to_string(), "room on the disk: 2844 KiB are left");
        assert_ne!(room(1), Fault { stands_still: true, ..room(1) });
    }
}
