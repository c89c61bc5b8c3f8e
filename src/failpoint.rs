//! Named places at which the daemon can be killed, to prove that no crash loses anything (`tests/crash`).
//!
//! With the feature `sim` the process kills itself with SIGKILL when it reaches the point that `MATTERBIND_FAILPOINT`
//! names (`name`, or `name:N` for the N-th time); with `name@FIFO` it holds there until somebody has opened and closed the
//! FIFO, to change the world around it meanwhile. Without the feature [`reach`] is nothing. A point stands before or after
//! a step that outlives the process: a transaction, a file, a command to a device, a request to the cloud. Not here: what
//! must hold afterwards.

/// The environment variable that arms one point.
pub const VARIABLE: &str = "MATTERBIND_FAILPOINT";

/// Every point, in the order in which a device's life reaches them. Each is in the source exactly once.
pub const ALL: &[&str] = &[
    // first start
    "state.locked",
    "state.database-file",
    "state.configured",
    "state.migrated",
    "state.checkpointed",
    "state.remembered",
    "fabric.minted",
    "fabric.begun",
    "keys.temporary",
    "keys.renamed",
    "fabric.keys-saved",
    "fabric.finished",
    // the admin log
    "journal.in-transaction",
    "journal.stored",
    // one attempt
    "attempt.before",
    "attempt.begun",
    "arm.before",
    "arm.after",
    "node-id.in-transaction",
    "provisional.in-transaction",
    "provisional.saved",
    "noc.issued",
    "add-root.before",
    "add-root.after",
    "add-noc.before",
    "add-noc.after",
    "network.before",
    "network.added",
    "network.saved",
    "network.connected",
    "case.opened",
    "acl.before",
    "acl.written",
    "acl.read-back",
    "complete.saved",
    "complete.sent",
    "complete.after",
    "record.in-transaction",
    "record.committed",
    // the hub registers with a device that sleeps long
    "icd.begun",
    "icd.sent",
    "icd.finished",
    // and it was another node before it was reset
    "succession.in-transaction",
    // an attempt that the daemon finds at its start: it goes on, is found complete, or is closed
    "resume.met",
    "resume.armed",
    "recover.before",
    "recover.completed",
    "recover.recorded",
    "abandon.in-transaction",
    "abandon.after",
    // the cloud
    "sending.before",
    "sending.saved",
    "http.before",
    "http.after",
    "tokens.before",
    "tokens.saved",
    "answer.received",
    "answer.saved",
    "settle.before",
    "settle.in-transaction",
    "settle.after",
    // changes and removal
    "rename.in-transaction",
    "rename.saved",
    "removal.before",
    "removal.in-transaction",
    "removal.begun",
    "remove-fabric.before",
    "remove-fabric.after",
    "advance.in-transaction",
    "advance.after",
    "finish.in-transaction",
    "finish.after",
    // a tag gets a new version
    "access.saved",
    "hub-noc.saved",
    "hub-noc.in-force",
    "cats.in-transaction",
    "access.told",
    // another controller gets a certificate, another one, and is shut out
    "controller.issued",
    "controller.in-transaction",
    "controller.recorded",
    "controller.leaving",
    "controller.issues-later",
    "controller.renewal-issued",
    "controller.renewed",
    "controller.in-force",
    "controller.removed",
    // device, record and cloud are brought together
    "mend.in-transaction",
    "mend.saved",
    // a backup is put back
    "restore.database-copied",
    "restore.adopted",
    "restore.prepared",
    "restore.synced",
    "restore.decided",
    "restore.moved-aside",
    "restore.placed",
    "restore.finished",
];

/// A point is reached.
#[cfg(not(feature = "sim"))]
#[inline(always)]
pub(crate) fn reach(_name: &'static str) {}

/// A point is reached: where it is the armed one, the process ends here, as if the power had gone, or holds.
#[cfg(feature = "sim")]
pub(crate) fn reach(name: &'static str) {
    armed::reach(name);
}

#[cfg(feature = "sim")]
mod armed {
    use std::path::PathBuf;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    use rustix::process::{Signal, getpid, kill_process};

    static POINT: OnceLock<Option<Point>> = OnceLock::new();
    static TIMES: AtomicU32 = AtomicU32::new(0);

    #[derive(Debug, PartialEq, Eq)]
    pub(super) struct Point {
        pub(super) name: String,
        pub(super) time: u32,
        pub(super) hold: Option<PathBuf>,
    }

    pub(super) fn reach(name: &'static str) {
        let armed = POINT.get_or_init(|| std::env::var(super::VARIABLE).ok().map(|text| parse(&text)));
        let Some(point) = armed else { return };
        if point.name == name && TIMES.fetch_add(1, Ordering::SeqCst) + 1 == point.time {
            if let Some(fifo) = &point.hold {
                // Opens when the other side opens it, and ends when that closes it.
                let _ = std::fs::read(fifo);
                return;
            }
            // Nothing runs after this signal; should it be refused, the exit at least writes nothing more.
            let _ = kill_process(getpid(), Signal::KILL);
            std::process::abort();
        }
    }

    pub(super) fn parse(text: &str) -> Point {
        if let Some((name, fifo)) = text.split_once('@') {
            return Point { name: name.to_owned(), time: 1, hold: Some(fifo.into()) };
        }
        let counted = text.rsplit_once(':').and_then(|(name, time)| Some((name, time.parse().ok()?)));
        let (name, time) = counted.unwrap_or((text, 1));
        Point { name: name.to_owned(), time, hold: None }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::Path;

    use super::*;

    fn sources(directory: &Path, text: &mut String) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, text);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text.push_str(&std::fs::read_to_string(&path).unwrap());
            }
        }
    }

    #[test]
    fn every_name_is_in_the_source_once() {
        let mut text = String::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut text);
        let mut found: HashMap<&str, u32> = HashMap::new();
        // Put together here, so that this line is none of them.
        let call = ["failpoint", "::reach(\""].concat();
        for rest in text.split(&call).skip(1) {
            *found.entry(rest.split('"').next().unwrap()).or_default() += 1;
        }
        let mut expected: HashMap<&str, u32> = HashMap::new();
        for name in ALL {
            *expected.entry(name).or_default() += 1;
        }
        assert_eq!(found, expected);
        assert!(expected.values().all(|times| *times == 1));
    }

    #[cfg(feature = "sim")]
    #[test]
    fn a_point_may_name_its_turn() {
        let read = |text| {
            let point = armed::parse(text);
            (point.name, point.time, point.hold)
        };
        assert_eq!(read("http.after:3"), ("http.after".to_owned(), 3, None));
        assert_eq!(read("http.after"), ("http.after".to_owned(), 1, None));
        assert_eq!(read("http.after@/tmp/a:1"), ("http.after".to_owned(), 1, Some("/tmp/a:1".into())));
    }
}
