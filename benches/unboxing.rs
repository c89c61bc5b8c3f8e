//! What the hub adds to an unboxing, on air without radio: `cargo bench --bench unboxing`. Prints, asserts nothing. Needs root and
//! iproute2.
//!
//! ```text
//! hub namespace: daemon        devices' namespace: virtual-device --ble
//!             ╰── a directory: GATT writes and indications ──╯
//!             mb0 ═════ veth: only once it has joined ═════ mb0
//! ```
//!
//! The network's share is what the device is told to take for its scan and for joining; the device's is its processor time; what is
//! left of the whole is the hub's, with everything that neither of the three can be blamed for (BTP's pacing, the kernel, other
//! processes of the machine). Goal for that rest: 100 ms. The hub's own processor time is printed beside it.

#![allow(clippy::unwrap_used, reason = "the harness of the tests may")]

#[path = "../tests/support"]
#[allow(dead_code, reason = "shared with the tests, which use more of it")]
mod support {
    pub mod daemon;
    pub mod lab;
}

use std::fs;
use std::time::Duration;

use support::daemon::{Hub, Options, VirtualDevice};
use support::lab::{Families, Lab};

const PASSWORD: &str = "correct horse battery";
/// The first warms up.
const RUNS: usize = 7;
/// ScanNetworks on the virtual device (`RadioOptions::new`); how long joining takes, it is told.
const SCAN: Duration = Duration::from_millis(100);
const JOIN: Duration = Duration::from_millis(200);

struct Run {
    total: f64,
    device: f64,
    hub: f64,
    steps: serde_json::Value,
}

impl Run {
    fn rest(&self) -> f64 {
        self.total - self.device - ms(SCAN + JOIN)
    }
}

fn main() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let air = directory.path().join("air");
    fs::create_dir(&air).expect("a directory of our own");
    let air = air.display().to_string();
    let more = format!("[bluetooth]\nadapter = \"air:{air}\"\n");
    let hub = Hub::start(&lab, Options { more, ..Options::default() });
    let file = hub.path().join("wifi-password");
    fs::write(&file, PASSWORD).expect("a directory of our own");
    let file = file.display().to_string();
    assert_eq!(hub.cli(["network", "set", "wifi", "Home", "--password-file", &file]).code, 0, "the network is set");
    let mut runs: Vec<Run> = (0..RUNS).map(|number| unbox(&lab, &hub, &air, number)).skip(1).collect();
    runs.sort_by(|a, b| a.rest().total_cmp(&b.rest()));
    let (median, worst) = (&runs[runs.len() / 2], &runs[runs.len() - 1]);
    println!("out of the box, {} runs, by what the hub adds", runs.len());
    for (what, run) in [("median", median), ("worst", worst)] {
        println!(
            "{what}: {:.0} ms in all; network {:.0} ms, device {:.0} ms of processor time, the rest {:.0} ms (goal 100), of which the \
             hub's processor time is {:.0} ms",
            run.total,
            ms(SCAN + JOIN),
            run.device,
            run.rest(),
            run.hub
        );
    }
    println!("steps of the median, ms: {}", median.steps);
}

fn unbox(lab: &Lab, hub: &Hub<'_>, air: &str, number: usize) -> Run {
    let storage = tempfile::tempdir().expect("a temporary directory");
    let (wifi, discriminator) = (format!("Home:{PASSWORD}"), (100 + number).to_string());
    let arguments = ["--ble", air, "--wifi", &wifi, "--connect-time", "200ms", "--discriminator", &discriminator];
    let device = VirtualDevice::start(lab, storage.path(), &arguments);
    let (daemon, light) = (hub.daemon_pid(), device.pid());
    let before = (processor_time(light), processor_time(daemon));
    let (exit, result) = hub.commission(&device.qr, &["--no-bind"]);
    let after = (processor_time(light), processor_time(daemon));
    assert_eq!(exit, 0, "{result:#}");
    let steps = result["timings_ms"].clone();
    Run {
        total: steps["total"].as_f64().unwrap_or(f64::NAN),
        device: after.0 - before.0,
        hub: after.1 - before.1,
        steps,
    }
}

/// Of all its threads so far, in milliseconds (the first field of /proc/…/schedstat is in nanoseconds).
fn processor_time(process: u32) -> f64 {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("it runs");
    let of = |task: fs::DirEntry| {
        let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        text.split(' ').next().and_then(|time| time.parse::<f64>().ok()).unwrap_or_default()
    };
    tasks.flatten().map(of).sum::<f64>() / 1e6
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
