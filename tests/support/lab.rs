//! Two network namespaces joined by a veth pair: the hub's and the devices'. Real multicast, nothing leaves the machine.
//!
//! Needs root and iproute2. Where that is missing [`Lab::new`] says why and gives `None`, so that the test is skipped; with
//! `CI=true` it panics instead.

use std::fs::File;
use std::future::Future;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Which addresses the link has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Families {
    /// IPv4, IPv6 unique local and link-local.
    Both,
    /// IPv6 link-local and nothing else.
    LinkLocal,
}

/// The two namespaces, and those of a street's houses; removed when dropped.
#[derive(Debug)]
pub struct Lab {
    hub: String,
    devices: String,
    hosts: Vec<String>,
}

/// The interface's name in either namespace.
pub const INTERFACE: &str = "mb0";

static NEXT: AtomicU32 = AtomicU32::new(0);

impl Lab {
    /// A fresh pair, or `None` where it cannot be made.
    pub fn new(families: Families) -> Option<Self> {
        match Self::build(families) {
            Ok(lab) => Some(lab),
            Err(reason) => {
                skipped(&format!("no network namespaces: {reason}"));
                None
            }
        }
    }

    /// A hub and `hosts` further hosts on one switch, each with a namespace and addresses of its own: a home in which an
    /// address can pass from one device to another. Every second host has IPv4 only. `None` where it cannot be made.
    pub fn home(hosts: usize) -> Option<Self> {
        let built = Self::build(Families::Both).and_then(|mut lab| lab.add_hosts(hosts).map(|()| lab));
        match built {
            Ok(lab) => Some(lab),
            Err(reason) => {
                skipped(&format!("no network namespaces: {reason}"));
                None
            }
        }
    }

    fn add_hosts(&mut self, hosts: usize) -> Result<(), String> {
        let switch = self.devices.clone();
        ip(&["-n", &switch, "addr", "flush", "dev", INTERFACE])?;
        ip(&["-n", &switch, "link", "add", "switch", "type", "bridge", "mcast_snooping", "0"])?;
        ip(&["-n", &switch, "link", "set", "switch", "up"])?;
        ip(&["-n", &switch, "link", "set", INTERFACE, "master", "switch"])?;
        for host in 0..hosts {
            let (namespace, port) = (format!("{switch}-{host}"), format!("port{host}"));
            ip(&["netns", "add", &namespace])?;
            self.hosts.push(namespace.clone());
            let peer = ["type", "veth", "peer", "name", INTERFACE, "netns", &namespace];
            ip(&[&["-n", &switch, "link", "add", &port][..], &peer].concat())?;
            ip(&["-n", &switch, "link", "set", &port, "master", "switch", "up"])?;
            ip(&["-n", &namespace, "link", "set", "lo", "up"])?;
            if self.is_ipv4_only(host) {
                ip(&["-n", &namespace, "link", "set", INTERFACE, "addrgenmode", "none"])?;
            }
            ip(&["-n", &namespace, "link", "set", INTERFACE, "up"])?;
            ip(&["-n", &namespace, "route", "add", "224.0.0.0/4", "dev", INTERFACE])?;
        }
        let mut dual = (0..hosts).filter(|host| !self.is_ipv4_only(*host));
        dual.try_for_each(|host| await_link_local(&self.hosts[host]))
    }

    /// Every second host has no IPv6 address.
    pub fn is_ipv4_only(&self, host: usize) -> bool {
        host % 2 == 1
    }

    /// Gives a host the addresses 10.77.0.`number` and, unless it is IPv4 only, fd77::`number`, instead of those it had.
    pub fn set_host_address(&self, host: usize, number: u8) {
        let namespace = &self.hosts[host];
        let (v4, v6) = (format!("10.77.0.{number}/24"), format!("fd77::{number:x}/64"));
        let set = |arguments: &[&str]| ip(&[&["-n", namespace], arguments].concat()).expect("the lab's own host");
        set(&["addr", "flush", "dev", INTERFACE, "scope", "global"]);
        set(&["addr", "add", &v4, "brd", "+", "dev", INTERFACE]);
        if !self.is_ipv4_only(host) {
            set(&["addr", "add", &v6, "dev", INTERFACE, "nodad"]);
        }
    }

    /// `program` in a host's namespace.
    pub fn host_command(&self, host: usize, program: impl AsRef<Path>) -> Command {
        command_in(&self.hosts[host], program.as_ref())
    }

    /// A thread of its own in the hub's namespace, and all that it starts.
    pub fn spawn_in_hub(&self, work: impl FnOnce() + Send + 'static) {
        let namespace = self.hub.clone();
        std::thread::spawn(move || {
            enter(&namespace);
            work();
        });
    }

    fn build(families: Families) -> Result<Self, String> {
        let id = format!("mb-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let lab = Self { hub: format!("{id}-hub"), devices: format!("{id}-dev"), hosts: Vec::new() };
        ip(&["netns", "add", &lab.hub])?;
        ip(&["netns", "add", &lab.devices])?;
        ip(&[
            "link",
            "add",
            INTERFACE,
            "netns",
            &lab.hub,
            "type",
            "veth",
            "peer",
            "name",
            INTERFACE,
            "netns",
            &lab.devices,
        ])?;
        for (namespace, host) in [(&lab.hub, 1), (&lab.devices, 2)] {
            ip(&["-n", namespace, "link", "set", "lo", "up"])?;
            ip(&["-n", namespace, "link", "set", INTERFACE, "up"])?;
            if families == Families::Both {
                let (v4, v6) = (format!("10.77.0.{host}/24"), format!("fd77::{host}/64"));
                ip(&["-n", namespace, "addr", "add", &v4, "brd", "+", "dev", INTERFACE])?;
                ip(&["-n", namespace, "addr", "add", &v6, "dev", INTERFACE, "nodad"])?;
                ip(&["-n", namespace, "route", "add", "224.0.0.0/4", "dev", INTERFACE])?;
            }
        }
        for namespace in [&lab.hub, &lab.devices] {
            await_link_local(namespace)?;
        }
        Ok(lab)
    }

    /// `program` in the hub's namespace.
    pub fn hub_command(&self, program: impl AsRef<Path>) -> Command {
        command_in(&self.hub, program.as_ref())
    }

    /// `program` in the devices' namespace.
    pub fn device_command(&self, program: impl AsRef<Path>) -> Command {
        command_in(&self.devices, program.as_ref())
    }

    /// Runs `work` on a thread of its own in the hub's namespace, with a tokio runtime that never leaves that thread.
    /// What `work` starts there (mdns-sd's thread, sockets) stays in the namespace.
    pub fn in_hub<F: Future<Output = T>, T: Send>(&self, work: impl FnOnce() -> F + Send) -> T {
        run_in(&self.hub, work)
    }

    /// The same among the devices.
    pub fn among_devices<F: Future<Output = T>, T: Send>(&self, work: impl FnOnce() -> F + Send) -> T {
        run_in(&self.devices, work)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in self.hosts.iter().chain([&self.hub, &self.devices]) {
            // Half-built labs lack the second one.
            let _ = ip(&["netns", "del", namespace]);
        }
    }
}

/// Says that a test was skipped, or fails where skipping is not allowed.
pub fn skipped(reason: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "skipping is not allowed with CI=true: {reason}");
    eprintln!("skipped: {reason}");
}

fn run_in<F: Future<Output = T>, T: Send>(namespace: &str, work: impl FnOnce() -> F + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            enter(namespace);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(work())
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Moves this thread into a namespace; threads that it starts are born there.
fn enter(namespace: &str) {
    use std::os::fd::AsFd;
    let file = File::open(format!("/run/netns/{namespace}")).expect("the lab's own namespace");
    rustix::thread::move_into_link_name_space(file.as_fd(), Some(rustix::thread::LinkNameSpaceType::Network))
        .expect("root may enter a namespace");
}

fn command_in(namespace: &str, program: &Path) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).arg(program);
    command
}

/// Until duplicate address detection is over, nothing can be sent from a link-local address.
fn await_link_local(namespace: &str) -> Result<(), String> {
    let give_up = Instant::now() + Duration::from_secs(10);
    loop {
        let addresses = ip(&["-n", namespace, "-6", "addr", "show", "dev", INTERFACE, "scope", "link"])?;
        if addresses.contains("fe80") && !addresses.contains("tentative") {
            return Ok(());
        }
        if Instant::now() > give_up {
            return Err(format!("no link-local address in {namespace}: IPv6 is off?"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn ip(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("ip").args(arguments).output().map_err(|error| format!("ip cannot be run: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
    }
}
