//! Twelve devices and a hub live through what real homes do to them: power cuts, new addresses, an address that a stranger has
//! now, stalls, devices that are reset and paired again, an absent cloud, captive portals, a clock that jumps by ten years.
//!
//! ```text
//! hub (daemon, reference cloud, front) ── switch ── twelve hosts with a light each, one for the stranger
//! ```
//!
//! At the end device, record and cloud agree for every light, nothing was unbound but what was paired again, and neither memory
//! nor log has grown. Each kind of trouble comes once, then at random. By hand, for an hour, a new trouble each minute:
//!
//! ```sh
//! MATTERBIND_SOAK_MINUTES=60 MATTERBIND_SOAK_PAUSE=60 cargo test --test soak -- --nocapture
//! ```
//!
//! `MATTERBIND_SOAK_SEED` repeats a run; the seed is printed first.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod front;
#[allow(dead_code, reason = "shared by several test binaries, none of which uses all of it")]
#[path = "../support"]
mod support {
    pub mod daemon;
    pub mod lab;
}

use std::fs;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use front::{FRONT, Front, PAGES, Weather};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;
use support::daemon::{Hub, Options, VirtualDevice};
use support::lab::{Lab, skipped};

const LIGHTS: usize = 12;
/// The host on which the stranger lives.
const STRANGER: usize = LIGHTS;
/// The short run: each kind once and a few more.
const SHORT: Duration = Duration::from_secs(150);
const SHORT_PAUSE: Duration = Duration::from_secs(8);
/// After the last trouble everything agrees again within this time: a row of the outbox waits fifteen minutes at most, the
/// troubles of a soak are shorter.
const HEAL: Duration = Duration::from_secs(300);
/// What resident memory may gain between the first third and the end, in KiB. An allocator that settles needs a few.
const GROWTH_KIB: u64 = 12 * 1024;
/// Lines of the daemon's own log for each trouble; a storm would write this in a tenth of a second.
const LINES_PER_TROUBLE: usize = 1500;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    HubPowerCut,
    DevicePowerCut,
    NewAddress,
    AddressTaken,
    Stall,
    ResetAndPairAgain,
    CloudDown,
    Portal,
    ClockJump,
}

const TROUBLES: [Trouble; 9] = [
    Trouble::HubPowerCut,
    Trouble::DevicePowerCut,
    Trouble::NewAddress,
    Trouble::AddressTaken,
    Trouble::Stall,
    Trouble::ResetAndPairAgain,
    Trouble::CloudDown,
    Trouble::Portal,
    Trouble::ClockJump,
];

struct Light {
    host: usize,
    number: u8,
    storage: PathBuf,
    device: Option<VirtualDevice>,
    /// How often it was reset and paired again.
    paired_again: u64,
}

impl Light {
    fn serial(&self) -> String {
        format!("SOAK{:02}", self.host)
    }

    fn switch_on(&mut self, lab: &Lab) {
        lab.set_host_address(self.host, self.number);
        let (serial, discriminator) = (self.serial(), (300 + 256 * self.host).to_string());
        let passcode = (30_303_030 + self.host).to_string();
        let arguments = ["--port", "5540", "--serial-number", &serial, "--unique-id", &serial, "--discriminator"];
        let arguments = [&arguments[..], &[&discriminator, "--passcode", &passcode]].concat();
        let command = lab.host_command(self.host, support::daemon::MATTERBIND);
        self.device = Some(VirtualDevice::launch(command, &self.storage, &arguments));
    }

    fn switch_off(&mut self) {
        self.device.take().expect("it is on").kill();
    }
}

struct Home<'a> {
    lab: &'a Lab,
    hub: Hub<'a>,
    front: Front,
    lights: Vec<Light>,
    clock: PathBuf,
    random: StdRng,
    next_number: u8,
    pause: Duration,
    memory: Vec<u64>,
}

fn seconds(name: &str, scale: f64, otherwise: Duration) -> Duration {
    match std::env::var(name) {
        Ok(text) => Duration::from_secs_f64(text.parse::<f64>().expect("a number") * scale),
        Err(_) => otherwise,
    }
}

/// Resident memory of a process now.
fn resident_kib(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("our own child");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the kernel says it");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn device_record_and_cloud_agree_after_all_that_real_homes_do() {
    let seed = std::env::var("MATTERBIND_SOAK_SEED").map_or_else(|_| rand::random(), |text| text.parse().unwrap());
    println!("soak with seed {seed}");
    let (length, pause) =
        (seconds("MATTERBIND_SOAK_MINUTES", 60.0, SHORT), seconds("MATTERBIND_SOAK_PAUSE", 1.0, SHORT_PAUSE));
    let Some(faketime) = faketime() else {
        return skipped("no libfaketime: install the package `faketime`");
    };
    let Some(lab) = Lab::home(LIGHTS + 1) else { return };
    let scratch = tempfile::tempdir().unwrap();
    let clock = scratch.path().join("clock");
    fs::write(&clock, "+0").unwrap();
    let environment = [
        ("LD_PRELOAD", faketime.to_str().unwrap()),
        ("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
    ];
    let environment = environment.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
    let front = Front::start(&lab);
    let hub = Hub::start(&lab, Options { environment, cloud: FRONT.to_owned(), ..Options::default() });
    let lights = (0..LIGHTS).map(|host| Light {
        host,
        number: 20 + host as u8,
        storage: scratch.path().join(format!("light{host}")),
        device: None,
        paired_again: 0,
    });
    let mut home = Home {
        lab: &lab,
        hub,
        front,
        lights: lights.collect(),
        clock: clock.clone(),
        random: StdRng::seed_from_u64(seed),
        next_number: 100,
        pause,
        memory: Vec::new(),
    };
    home.move_in();
    home.live(length);
    home.check();
}

fn faketime() -> Option<PathBuf> {
    let libraries = ["x86_64-linux-gnu", "aarch64-linux-gnu", "arm-linux-gnueabihf"];
    let paths = libraries.map(|library| format!("/usr/lib/{library}/faketime/libfaketimeMT.so.1"));
    paths.iter().map(PathBuf::from).find(|path| path.exists())
}

impl Home<'_> {
    fn move_in(&mut self) {
        for light in &mut self.lights {
            light.switch_on(self.lab);
            let node = self.hub.commission_and_bind(&light.device.as_ref().unwrap().qr);
            assert_eq!(node["serial_number"], light.serial());
        }
    }

    fn live(&mut self, length: Duration) {
        let end = Instant::now() + length;
        let mut plan = TROUBLES.to_vec();
        plan.shuffle(&mut self.random);
        let mut played = 0;
        while Instant::now() < end || !plan.is_empty() {
            let trouble = plan.pop().unwrap_or_else(|| TROUBLES[self.random.random_range(0..TROUBLES.len())]);
            let which = self.random.random_range(0..LIGHTS);
            println!("{:>4} s: {trouble:?}, light {which}", (length.saturating_sub(end - Instant::now())).as_secs());
            self.strike(trouble, which);
            sleep(self.pause / 2);
            played += 1;
            self.memory.push(resident_kib(self.hub.daemon_pid()));
        }
        let lines = self.hub.whole_daemon_log().lines().count();
        println!("{played} troubles, {lines} log lines, resident KiB {:?}", self.memory);
        assert!(lines < LINES_PER_TROUBLE * played, "the daemon wrote {lines} lines in {played} troubles");
        let early = self.memory[..self.memory.len().div_ceil(3)].iter().max().unwrap();
        let last = self.memory.last().unwrap();
        assert!(*last <= early + GROWTH_KIB, "resident memory went from {early} to {last} KiB");
    }

    /// A trouble from its beginning to its end.
    fn strike(&mut self, trouble: Trouble, which: usize) {
        match trouble {
            Trouble::HubPowerCut => {
                self.hub.kill_daemon();
                // A hub without a battery boots with a clock of its own.
                let boots_at = ["+0", "-3650d", "+3650d"][self.random.random_range(0..3)];
                self.set_clock(boots_at);
                self.hub.start_daemon();
                self.hold();
                self.set_clock("+0");
            }
            Trouble::DevicePowerCut => {
                self.lights[which].switch_off();
                self.hold();
                self.lights[which].switch_on(self.lab);
            }
            Trouble::NewAddress => {
                self.lights[which].switch_off();
                self.lights[which].number = self.fresh_number();
                self.lights[which].switch_on(self.lab);
                self.hold();
            }
            Trouble::AddressTaken => self.address_taken(which),
            Trouble::Stall => {
                self.lights[which].device.as_ref().unwrap().stall(true);
                self.hold();
                self.lights[which].device.as_ref().unwrap().stall(false);
            }
            Trouble::ResetAndPairAgain => self.reset_and_pair_again(which),
            Trouble::CloudDown => {
                self.front.set(Weather::Down);
                self.change_name(which);
                self.hold();
                self.front.set(Weather::Clear);
            }
            Trouble::Portal => {
                self.front.set(Weather::Portal(self.random.random_range(0..PAGES.len())));
                self.change_name(which);
                self.hold();
                self.front.set(Weather::Clear);
            }
            Trouble::ClockJump => {
                let jump = ["-3650d", "+3650d"][self.random.random_range(0..2)];
                self.set_clock(jump);
                self.change_name(which);
                self.hold();
                self.set_clock("+0");
            }
        }
    }

    /// Its length, with somebody who looks at everything meanwhile.
    fn hold(&mut self) {
        let end = Instant::now() + self.pause;
        self.hub.cli(["sync", "--json"]);
        sleep(end.saturating_duration_since(Instant::now()));
    }

    fn set_clock(&self, time: &str) {
        let new = self.clock.with_extension("new");
        fs::write(&new, time).unwrap();
        fs::rename(&new, &self.clock).unwrap();
    }

    fn fresh_number(&mut self) -> u8 {
        self.next_number = if self.next_number >= 240 { 100 } else { self.next_number + 1 };
        self.next_number
    }

    /// A light without power loses its address to another Matter device, and comes back elsewhere.
    fn address_taken(&mut self, which: usize) {
        self.lights[which].switch_off();
        self.lab.set_host_address(STRANGER, self.lights[which].number);
        let storage = tempfile::tempdir().unwrap();
        let command = self.lab.host_command(STRANGER, support::daemon::MATTERBIND);
        let arguments = ["--port", "5540", "--serial-number", "STRANGER", "--discriminator", "77"];
        let stranger = VirtualDevice::launch(command, storage.path(), &arguments);
        let node = self.node_id(which);
        self.hub.cli(["node", "check", &node.to_string(), "--json"]);
        self.hold();
        stranger.kill();
        self.lab.set_host_address(STRANGER, 250);
        self.lights[which].number = self.fresh_number();
        self.lights[which].switch_on(self.lab);
    }

    fn reset_and_pair_again(&mut self, which: usize) {
        let before = self.node_id(which);
        let light = &mut self.lights[which];
        light.switch_off();
        fs::remove_dir_all(&light.storage).unwrap();
        light.switch_on(self.lab);
        light.paired_again += 1;
        let node = self.hub.commission_and_bind(&light.device.as_ref().unwrap().qr);
        assert_ne!(node["node_id"], before);
    }

    /// Work for the outbox.
    fn change_name(&mut self, which: usize) {
        let (node, name) = (self.node_id(which).to_string(), format!("lamp {}", self.random.random::<u16>()));
        assert_eq!(self.hub.cli(["node", "rename", &node, &name, "--json"]).code, 0);
    }

    fn node_id(&self, which: usize) -> u64 {
        self.record(&self.lights[which].serial())["node_id"].as_u64().unwrap()
    }

    fn record(&self, serial: &str) -> Value {
        let nodes = self.hub.nodes();
        let mut found: Vec<_> = nodes.into_iter().filter(|node| node["serial_number"] == serial).collect();
        assert_eq!(found.len(), 1, "{serial} has one record: {found:#?}");
        found.remove(0)
    }

    fn check(&self) {
        let give_up = Instant::now() + HEAL;
        let report = loop {
            let answer = self.hub.cli(["sync", "--json"]);
            if answer.code == 0 {
                break answer.json;
            }
            assert!(Instant::now() < give_up, "not in sync: {}\n{}", answer.stdout, self.hub.daemon_log());
            sleep(Duration::from_secs(2));
        };
        assert_eq!(report["in_sync"], true, "{report:#}");
        assert_eq!(self.hub.nodes().len(), LIGHTS);
        let state = self.hub.cloud_state();
        for light in &self.lights {
            let serial = light.serial();
            let record = self.record(&serial);
            assert_eq!(record["state"], "operational", "{record:#}");
            assert_eq!(record["bind"]["state"], "bound", "{record:#}");
            let binding = self.hub.binding(&serial);
            assert_eq!(binding["matter_info"]["nodeId"], record["node_id"], "{binding:#}");
            let check = self.hub.ask(&["node", "check", &record["node_id"].to_string()]);
            assert_eq!(check["reachable"], true, "{check:#}");
            assert_eq!(check["differences"], serde_json::json!([]), "{check:#}");
            let unbinds = state["counters"]["unbinds"][format!("p11abc/{serial}")].as_u64().unwrap_or(0);
            assert!(
                unbinds <= light.paired_again,
                "{serial} was unbound {unbinds} times, paired {}",
                light.paired_again
            );
        }
    }
}
