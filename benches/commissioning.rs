//! The daemon against independent lights (matter.js) over real multicast: `cargo bench --bench commissioning`.
//! Prints medians and ratios, asserts nothing. Needs root, iproute2 and Node.
//!
//! ```text
//! hub namespace: daemon, reference cloud ── mb0 ══ veth ══ mb0 ── devices' namespace: matter.js
//! ```
//!
//! `BENCH_BIN` names another binary to measure, for instance the hub's (`--no-default-features`). Lights share one
//! Node process, so what eight at once take is mostly theirs.
//!
//! Goals: 200 ms for one, 2 s for eight at once, ready in 100 ms, 16 MiB after eight devices, 0.05 % CPU when idle, 7 syncs of
//! a file for a device (counted by strace, where it is installed).

#[path = "../tests/support"]
#[allow(dead_code, reason = "shared with the tests, which use more of it")]
mod support {
    pub mod lab;
    pub mod matterjs;
}

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use support::lab::{Families, Lab};
use support::matterjs::{Light, Lights};

/// Commissioned before anything is measured, so that matter.js is warm.
const WARM_UP: usize = 2;
const SINGLE: usize = 9;
const AT_ONCE: usize = 8;
const RESTARTS: usize = 5;
const SETTLE: Duration = Duration::from_secs(45);
const IDLE: Duration = Duration::from_secs(60);
const SLEEPS: Duration = Duration::from_millis(200);
/// What takes longer is broken.
const BUDGET: Duration = Duration::from_secs(60);
const CLOUD: &str = "127.0.0.1:8787";
const STEPS: [&str; 9] =
    ["discover", "pase", "attestation", "credentials", "operational", "access", "record", "total", "bind"];

fn main() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let count = (WARM_UP + SINGLE + 1 + AT_ONCE).to_string();
    let Some(lights) = Lights::start(&lab, &[("COUNT", count.as_str()), ("SERIAL", "BENCH")]) else { return };
    let _cloud = start_cloud(&lab);
    let (first, eight) = lights.lights.split_at(WARM_UP + SINGLE + 1);
    one_by_one(&lab, first);
    together(&lab, eight);
}

/// One daemon, one device after the other.
fn one_by_one(lab: &Lab, lights: &[Light]) {
    let home = Home::new();
    let (daemon, made) = home.start(lab);
    println!("start with a new fabric: {:.0} ms", ms(made));
    drop(daemon);
    let mut starts: Vec<_> = (0..RESTARTS).map(|_| home.start(lab).1).collect();
    starts.sort();
    println!(
        "start with state: median {:.0} ms (goal 100; {:.0} of it `ip netns exec`)",
        ms(starts[RESTARTS / 2]),
        ms(bare(lab))
    );

    let (last, lights) = lights.split_last().expect("there are lights");
    let (daemon, _) = home.start(lab);
    let results: Vec<Value> =
        lights.iter().map(|light| home.commission(&["commission", &light.qr, "--json"])).collect();
    for step in STEPS {
        let mut took: Vec<_> =
            results[WARM_UP..].iter().filter_map(|result| result["timings_ms"][step].as_u64()).collect();
        took.sort();
        println!("one device, {step}: median {} ms, worst {} ms", took[took.len() / 2], took[took.len() - 1]);
    }
    println!("goal for the total: 200 ms");
    drop(daemon);
    syncs(lab, &home, last);
}

/// How often the daemon waits for the disk while it commissions and binds one device.
fn syncs(lab: &Lab, home: &Home, light: &Light) {
    let (daemon, _) = home.start(lab);
    let (process, log) = (daemon.0.id().to_string(), home.path("strace"));
    let mut strace = Command::new("strace");
    strace.args(["-f", "-e", "trace=fsync,fdatasync", "-e", "signal=none", "-p", &process, "-o"]).arg(&log);
    let Ok(child) = strace.stderr(Stdio::piped()).spawn() else {
        return println!("syncs for one device: not counted, strace is not installed");
    };
    let mut strace = Running(child, None);
    let mut attached = String::new();
    let stderr = strace.0.stderr.take().expect("it is piped");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stderr), &mut attached).expect("it says what it follows");
    home.commission(&["commission", &light.qr, "--json"]);
    drop(strace);
    let log = fs::read_to_string(&log).expect("it was written");
    let syncs = log.lines().filter(|line| line.contains("sync(") && !line.contains("resumed")).count();
    println!("syncs for one device, bind and all: {syncs} (goal 7)");
}

/// A fresh daemon, eight at once; then what it holds and what it does when nothing happens.
fn together(lab: &Lab, lights: &[Light]) {
    let home = Home::new();
    let (daemon, _) = home.start(lab);
    println!("memory without devices: {}", memory(daemon.0.id()));
    let manifest = home.path("manifest.csv");
    let rows: String = lights.iter().map(|light| format!("{}\n", light.qr)).collect();
    fs::write(&manifest, format!("setup_code\n{rows}")).expect("the home can be written");
    let began = Instant::now();
    let manifest = manifest.to_str().expect("a temporary path is text");
    let result = home.commission(&["commission", "--manifest", manifest, "--jobs", "8", "--json"]);
    let took = began.elapsed();
    let empty = Vec::new();
    let results = result["results"].as_array().unwrap_or(&empty);
    let done = results.iter().filter(|result| result["outcome"] == "commissioned").count();
    println!("{AT_ONCE} at once: {done} recorded and bound in {:.0} ms (goal 2000)", ms(took));
    println!("memory after {done} devices: {} (goal: resident 16 MiB)", memory(daemon.0.id()));
    idle(daemon.0.id());
}

/// What the daemon does while nothing happens, thread by thread. A machine that is itself a guest may take many times what a
/// hub takes for a wake; what it takes for a thread that only sleeps stands beside it.
fn idle(process: u32) {
    // What the last device caused is over then, and every device has been asked once whether it lives: the first question opens a
    // session, which is kept.
    std::thread::sleep(SETTLE);
    let before = threads(process);
    let wake = sleeper();
    let after = threads(process);
    let used = |thread: &OsString, now: &Used| {
        let earlier = before.get(thread);
        let time = now.time.saturating_sub(earlier.map_or(Duration::ZERO, |used| used.time));
        Used { name: now.name.clone(), time, wakes: now.wakes - earlier.map_or(0, |used| used.wakes) }
    };
    let mut all: Vec<Used> = after.iter().map(|(thread, now)| used(thread, now)).collect();
    all.sort_by_key(|used| std::cmp::Reverse(used.time));
    let share = |time: Duration| time.as_secs_f64() / IDLE.as_secs_f64() * 100.0;
    let a_second = |wakes: u64| wakes as f64 / IDLE.as_secs_f64();
    let (time, wakes) = (all.iter().map(|used| used.time).sum(), all.iter().map(|used| used.wakes).sum());
    println!(
        "idle for {} s: {:.3} % CPU (goal 0.05) in {:.1} wakes a second; as many of a bare sleeper take {:.3} % here",
        IDLE.as_secs(),
        share(time),
        a_second(wakes),
        share(wake * u32::try_from(wakes).unwrap_or(u32::MAX)),
    );
    for Used { name, time, wakes } in all.iter().take(5) {
        println!("  thread {name}: {:.3} % in {:.1} wakes a second", share(*time), a_second(*wakes));
    }
}

/// What one wake of a thread that only sleeps costs, while the daemon is looked at.
fn sleeper() -> Duration {
    let began = Instant::now();
    let own = || read_used(Path::new("/proc/thread-self")).expect("this thread runs");
    let before = own();
    while began.elapsed() < IDLE {
        std::thread::sleep(SLEEPS);
    }
    let after = own();
    (after.time - before.time) / u32::try_from(after.wakes - before.wakes).unwrap_or(u32::MAX).max(1)
}

/// Configuration, state and sockets of one daemon.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        let home = Self(tempfile::tempdir().expect("a temporary directory"));
        let dev = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/dev");
        let quoted = |path: PathBuf| format!("{:?}", path.display().to_string());
        let config = format!(
            "state_dir = {}\nsocket = {}\n[attestation]\npaa_dirs = [{}]\nallow_test = [{{ vendor_id = 0xFFF1 }}]\n\
             [cloud]\nbase_url = \"http://{CLOUD}\"\nuser_domain = \"demo\"\nuser_domain_secret_file = {}\n\
             email = \"hub@example.com\"\npassword_file = {}\n\
             [[products]]\nvendor_id = 0xFFF1\nproduct_id = 0x8000\nproduct_key = \"p11abc\"\n\
             device_key = \"serial-number\"\nbinding_code = \"random\"\n[log]\nlevel = \"error\"\n",
            quoted(home.path("state")),
            quoted(home.path("admin.sock")),
            quoted(dev.join("paa")),
            quoted(dev.join("domain-secret")),
            quoted(dev.join("password")),
        );
        fs::write(home.path("matterbind.toml"), config).expect("the home can be written");
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Starts the daemon and waits for READY=1; gives how long that took.
    fn start(&self, lab: &Lab) -> (Running, Duration) {
        let notify = self.path("notify.sock");
        let _ = fs::remove_file(&notify);
        let told = UnixDatagram::bind(&notify).expect("the home can be written");
        told.set_read_timeout(Some(BUDGET)).expect("a minute is a time");
        let mut command = lab.hub_command(binary());
        command.args(["daemon", "--config"]).arg(self.path("matterbind.toml")).env("NOTIFY_SOCKET", &notify);
        let began = Instant::now();
        let daemon = Running(command.stdout(Stdio::null()).spawn().expect("ip netns exec"), Some(told));
        let told = daemon.1.as_ref().expect("it was just put there");
        let mut message = [0; 4096];
        loop {
            let length = told.recv(&mut message).expect("the daemon is ready within the budget");
            if message[..length].starts_with(b"READY=1") {
                return (daemon, began.elapsed());
            }
        }
    }

    /// A command whose stdout is one JSON document.
    fn commission(&self, arguments: &[&str]) -> Value {
        let mut command = Command::new(binary());
        command.args(arguments).env("MATTERBIND_SOCKET", self.path("admin.sock"));
        let Output { status, stdout, stderr } = command.output().expect("the binary runs");
        assert!(status.success(), "{status}: {}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        serde_json::from_slice(&stdout).expect("--json prints one document")
    }
}

/// A process that is ended by SIGTERM and waited for, with the socket to which it sends its notifications.
struct Running(Child, Option<UnixDatagram>);

impl Drop for Running {
    fn drop(&mut self) {
        let id = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(id) = id {
            let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        }
        let _ = self.0.wait();
    }
}

fn binary() -> PathBuf {
    std::env::var_os("BENCH_BIN").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_matterbind")), PathBuf::from)
}

fn start_cloud(lab: &Lab) -> Running {
    // The measured binary may be without it.
    let mut command = lab.hub_command(env!("CARGO_BIN_EXE_matterbind"));
    let child = command.args(["cloud-sim", "--listen", CLOUD]).stdout(Stdio::piped()).spawn();
    let mut child = child.expect("ip netns exec");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("it is piped");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).expect("it says where it listens");
    Running(child, None)
}

/// What it takes to start anything at all in the namespace.
fn bare(lab: &Lab) -> Duration {
    let began = Instant::now();
    lab.hub_command("true").status().expect("ip netns exec");
    began.elapsed()
}

fn memory(process: u32) -> String {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("the daemon runs");
    let value = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        let kib: f64 = line.trim().trim_end_matches(" kB").parse().unwrap_or(f64::NAN);
        kib / 1024.0
    };
    let (resident, own, peak) = (value("VmRSS:"), value("RssAnon:"), value("VmHWM:"));
    format!("resident {resident:.1} MiB, of which not file pages {own:.1} MiB, peak {peak:.1} MiB")
}

/// What a thread has used of a processor, and how often it began to.
struct Used {
    name: String,
    time: Duration,
    wakes: u64,
}

/// Name and processor time so far of each thread (the first field of /proc/…/schedstat, in nanoseconds).
fn threads(process: u32) -> HashMap<OsString, Used> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("the daemon runs");
    tasks.flatten().filter_map(|task| Some((task.file_name(), read_used(&task.path())?))).collect()
}

/// From a thread's directory in /proc.
fn read_used(task: &Path) -> Option<Used> {
    let read = |file: &str| fs::read_to_string(task.join(file)).unwrap_or_default();
    let schedstat = read("schedstat");
    let mut numbers = schedstat.split_ascii_whitespace().map_while(|number| number.parse().ok());
    let (time, _waited, wakes) = (numbers.next()?, numbers.next()?, numbers.next()?);
    Some(Used { name: read("comm").trim().to_owned(), time: Duration::from_nanos(time), wakes })
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
