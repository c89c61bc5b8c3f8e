//! The crash matrix: at every failpoint the real daemon kills itself, alone and again after its restart; then device,
//! record and cloud must agree, and nothing may be lost, used twice or left behind.
//!
//! Real processes, real mDNS and Matter on the loopback of a private network for each point, the reference cloud over
//! real HTTP. No libtest: each point is a process of its own, which has to move into its network before it has threads.
//! Where that is not allowed the matrix is skipped; with `CI=true` that is a failure.
//!
//! `cargo test --test crash -- removal` plays the points with `removal` in their names; with `CRASH_KEEP=1` the logs stay.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod controllers;
mod play;
mod rig;

use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use matterbind::facade::failpoint;
use matterbind::facade::sim::namespace::enter_private_network;
use play::Play;

/// Far above what one point takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// The exit code of a child that has no network of its own.
const NO_NAMESPACE: u8 = 77;

/// Points that are reached more than once: the other times, and in other plays.
const MORE: &[(&str, Play)] = &[
    ("journal.stored:3", Play::Commission),
    ("provisional.in-transaction:2", Play::Commission),
    // sign-in, the question whether it may be bound, bind, read-back; then the next row
    ("http.after:2", Play::Commission),
    ("http.before:3", Play::Commission),
    ("http.after:3", Play::Commission),
    ("http.after:4", Play::Commission),
    ("record.in-transaction", Play::Recover),
    // it went on, and was cut short again
    ("acl.written", Play::Resume),
    ("complete.saved", Play::Resume),
    ("complete.sent", Play::Resume),
    ("complete.after", Play::Resume),
    ("record.in-transaction", Play::Resume),
    ("record.committed", Play::Resume),
    // a device out of its box, on its network and not completed
    ("case.opened", Play::Unbox),
    ("acl.read-back", Play::Unbox),
    ("complete.saved", Play::Unbox),
    ("complete.sent", Play::Unbox),
    ("sending.saved:2", Play::Rename),
    ("http.after:5", Play::Rename),
    ("settle.in-transaction:2", Play::Rename),
    ("sending.saved:2", Play::Remove),
    ("http.before:5", Play::Remove),
    ("http.after:5", Play::Remove),
    ("settle.before:2", Play::Remove),
    ("settle.after:2", Play::Remove),
    ("keys.temporary", Play::Rotate),
    ("keys.renamed", Play::Rotate),
    ("access.saved:2", Play::Rotate),
    ("acl.before", Play::Rotate),
    ("acl.written", Play::Rotate),
    ("acl.read-back", Play::Rotate),
    // unbind, bind, read-back
    ("sending.saved", Play::Rotate),
    ("http.after:2", Play::Rotate),
    ("http.after:3", Play::Rotate),
    ("settle.in-transaction", Play::Rotate),
    ("settle.after", Play::Rotate),
    ("sending.saved", Play::Mend),
    ("http.after:2", Play::Mend),
    ("http.after:3", Play::Mend),
    ("settle.in-transaction", Play::Mend),
    ("settle.after", Play::Mend),
    // later versions are issued, nodes ask for them
    ("access.saved", Play::ShutOut),
    ("access.saved:2", Play::ShutOut),
    ("access.told", Play::ShutOut),
    ("acl.written", Play::ShutOut),
    ("complete.sent", Play::Succeed),
    ("record.in-transaction", Play::Succeed),
    ("record.committed", Play::Succeed),
    ("keys.temporary", Play::Restore),
    ("keys.renamed", Play::Restore),
    // the keys first, then the database
    ("restore.moved-aside:2", Play::Restore),
    ("restore.placed:2", Play::Restore),
];

fn play_of(point: &str) -> Play {
    match point.split_once('.').map_or(point, |(group, _)| group) {
        "network" => Play::Unbox,
        "icd" => Play::Sleep,
        "recover" => Play::Recover,
        "resume" => Play::Resume,
        "abandon" => Play::Abandon,
        "rename" => Play::Rename,
        "removal" | "remove-fabric" | "advance" | "finish" => Play::Remove,
        "access" | "hub-noc" | "cats" => Play::Rotate,
        "controller" => Play::ShutOut,
        "mend" => Play::Mend,
        "succession" => Play::Succeed,
        "restore" => Play::Restore,
        _ => Play::Commission,
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, point, play] = arguments.as_slice()
        && flag == "--play"
    {
        return child(point, Play::from_word(play).unwrap());
    }
    if arguments.iter().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    let filters: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let all = failpoint::ALL.iter().map(|point| (*point, play_of(point))).chain(MORE.iter().copied());
    let wanted = |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()));
    matrix(all.filter(|(point, play)| wanted(&format!("crash {point} {}", play.word()))).collect())
}

/// How one point ended: the child's last word, or why it failed.
struct Row {
    point: &'static str,
    play: Play,
    took: Duration,
    outcome: Result<String, String>,
}

fn matrix(points: Vec<(&'static str, Play)>) -> ExitCode {
    let began = Instant::now();
    let (queue, rows) = (Mutex::new(points.into_iter()), Mutex::new(Vec::new()));
    let side_by_side = 2 * std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..side_by_side {
            scope.spawn(|| {
                loop {
                    let Some((point, play)) = queue.lock().unwrap().next() else { return };
                    let row = process(point, play);
                    rows.lock().unwrap().push(row);
                }
            });
        }
    });
    let rows = rows.into_inner().unwrap();
    if let Some(reason) = rows.iter().find_map(|row| row.outcome.as_ref().err()?.strip_prefix("skip: ")) {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "skipping is not allowed with CI=true: {reason}");
        println!("skipped: no private network: {reason}");
        return ExitCode::SUCCESS;
    }
    for Row { point, play, took, outcome } in &rows {
        let (verdict, text) = match outcome {
            Ok(text) => ("ok", text),
            Err(text) => ("FAILED", text),
        };
        println!("{point:26} {:11} {verdict:7} {:5.1} s  {}", play.word(), took.as_secs_f32(), text.trim_end());
    }
    let failed = rows.iter().filter(|row| row.outcome.is_err()).count();
    println!("crash matrix: {} points, {failed} failed, {:.0} s", rows.len(), began.elapsed().as_secs_f32());
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Plays a point in a process of its own.
fn process(point: &'static str, play: Play) -> Row {
    let began = Instant::now();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--play", point, play.word()])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let outcome = match output.status.code() {
        Some(0) => Ok(text),
        Some(code) if code == i32::from(NO_NAMESPACE) => Err(format!("skip: {text}")),
        _ => Err(format!("{text}\n{}", String::from_utf8_lossy(&output.stderr))),
    };
    Row { point, play, took: began.elapsed(), outcome }
}

/// One point, in this process.
fn child(point: &str, play: Play) -> ExitCode {
    if let Err(refused) = enter_private_network() {
        println!("{refused}");
        return ExitCode::from(NO_NAMESPACE);
    }
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let played = runtime.block_on(async {
        match tokio::time::timeout(PATIENCE, play::play(point, play, directory.path())).await {
            Ok(played) => played,
            Err(_) => Err(format!("not at its end after {} s", PATIENCE.as_secs()).into()),
        }
    });
    drop(runtime);
    match played {
        Ok(reached) => {
            println!("killed {reached} times");
            if std::env::var_os("CRASH_KEEP").is_some() {
                println!("logs in {}", directory.keep().display());
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{error} (logs in {})", directory.keep().display());
            ExitCode::FAILURE
        }
    }
}
