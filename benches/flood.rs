//! Finding a device while somebody floods the LAN with records, and after it: `cargo bench --bench flood`.
//! Prints medians and ratios, asserts nothing. Needs root and iproute2.
//!
//! ```text
//! hub namespace: LanDiscovery ── mb0 ══ veth ══ mb0 ── devices' namespace: honest responders, one liar, an ear
//! ```
//!
//! The liar says 500 packets of records a second for eight seconds, three times: devices, nodes, names with nothing behind them.
//! Each device is switched on when it is looked for; 0.75 s of what is printed is its responder, which asks first whether its
//! name is free (RFC 6762 8.1).
//! Goals: found within 2 s during the flood and after it.

#[path = "../tests/support"]
#[allow(dead_code, reason = "shared with the tests, which use more of it")]
mod support {
    pub mod lab;
    pub mod mdns;
}

use std::sync::Barrier;
use std::time::{Duration, Instant};

use matterbind::facade::config::NetworkConfig;
use matterbind::facade::discovery::LanDiscovery;
use matterbind::facade::onboarding::Discriminator;

use tokio::sync::{Notify, mpsc};

use support::lab::{Families, INTERFACE, Lab};
use support::mdns::{Claim, Ear, names};

/// Searches in each of the three parts.
const SEARCHES: u16 = 9;
const FLOOD: Duration = Duration::from_secs(8);
const PER_SECOND: u32 = 500;
/// What takes longer is broken.
const BUDGET: Duration = Duration::from_secs(10);
const FIRST: u16 = 3000;

fn main() {
    println!("goal: 2000 ms during a flood and after it");
    let devices: Vec<Claim> = (0..2000).map(|n| claim(n, "_matterc._udp", format!("{:016X}", 0xA0_0000 + n))).collect();
    let nodes = (0..2000_u64).map(|n| claim(n, "_matter._tcp", format!("1122334455667788-{n:016X}")).whole()).collect();
    let bare = devices.iter().map(|device| names(std::slice::from_ref(device))).collect();
    let whole = devices.iter().map(Claim::whole).collect();
    let kinds: [(&str, Vec<Vec<u8>>); 3] = [("devices", whole), ("nodes", nodes), ("bare names", bare)];
    for (kind, packets) in &kinds {
        measure(kind, packets);
    }
}

fn claim(n: u64, service: &'static str, instance: String) -> Claim {
    let discriminator = n % 2048;
    Claim {
        service,
        instance,
        subtypes: vec![format!("_L{discriminator}")],
        txt: vec![format!("D={discriminator}"), "CM=1".to_owned(), "VP=65521+32768".to_owned()],
        ip: "fd77::66".parse().expect("an address"),
        port: 5540,
    }
}

/// A device whose responder is not ours. Two with one address and port would be taken for one that started again.
fn announce(responder: &mdns_sd::ServiceDaemon, discriminator: u16) {
    let instance = format!("{:016X}", 0xD000 + u64::from(discriminator));
    let (service, host) = (format!("_L{discriminator}._sub._matterc._udp.local."), format!("{instance}.local."));
    let (port, discriminator) = (5540 + discriminator, discriminator.to_string());
    let txt = [("D", discriminator.as_str()), ("CM", "1"), ("VP", "65521+32768")];
    let service = mdns_sd::ServiceInfo::new(&service, &instance, &host, (), port, txt.as_slice()).expect("a service");
    responder.register(service.enable_addr_auto()).expect("it is taken");
}

fn measure(kind: &str, packets: &[Vec<u8>]) {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let (begin, end) = (Notify::new(), Barrier::new(2));
    let (switch_on, mut switched_on) = mpsc::unbounded_channel();
    std::thread::scope(|scope| {
        let outside = scope.spawn(|| {
            lab.among_devices(|| async {
                let responder = mdns_sd::ServiceDaemon::new().expect("mDNS starts");
                let devices = async {
                    while let Some(discriminator) = switched_on.recv().await {
                        announce(&responder, discriminator);
                    }
                };
                let ear = Ear::open(INTERFACE);
                let rounds = FLOOD.as_secs() as usize * PER_SECOND as usize;
                let packets: Vec<_> = packets.iter().cycle().take(rounds).cloned().collect();
                let liar = async {
                    begin.notified().await;
                    let counted = ear.count_queries(Instant::now() + FLOOD + FLOOD);
                    tokio::join!(ear.flood(&packets, PER_SECOND), counted).1
                };
                let (queries, ()) = tokio::join!(liar, devices);
                end.wait();
                let _ = responder.shutdown();
                queries
            })
        });
        lab.in_hub(|| async {
            let discovery = LanDiscovery::start(&NetworkConfig::default()).expect("mDNS starts");
            let quiet = search(&discovery, &switch_on, FIRST).await;
            begin.notify_one();
            let start = Instant::now();
            tokio::time::sleep(Duration::from_secs(1)).await;
            let during = search(&discovery, &switch_on, FIRST + SEARCHES).await;
            tokio::time::sleep((FLOOD + Duration::from_secs(1)).saturating_sub(start.elapsed())).await;
            let after = search(&discovery, &switch_on, FIRST + 2 * SEARCHES).await;
            for (when, took) in [("before", &quiet), ("during", &during), ("after", &after)] {
                println!(
                    "{kind}, {when}: median {:.0} ms, worst {:.0} ms, {:.1} times the quiet median",
                    ms(median(took)),
                    ms(took[took.len() - 1]),
                    median(took).as_secs_f64() / median(&quiet).as_secs_f64()
                );
            }
            drop(switch_on);
            end.wait();
        });
        let (v4, v6) = outside.join().expect("counted");
        println!(
            "{kind}: the hub asked {v4} times over IPv4 and {v6} over IPv6 in {:.0} s",
            (FLOOD + FLOOD).as_secs_f64()
        );
    });
}

/// Switches one device after the other on and looks for it; what each search took, the fastest first.
async fn search(discovery: &LanDiscovery, switch_on: &mpsc::UnboundedSender<u16>, first: u16) -> Vec<Duration> {
    let mut took = Vec::new();
    for discriminator in first..first + SEARCHES {
        let start = Instant::now();
        switch_on.send(discriminator).expect("the devices listen");
        if let Err(error) = discovery.find(Discriminator::Long(discriminator), None, BUDGET).await {
            println!("{discriminator} was not found: {error}");
        }
        took.push(start.elapsed());
    }
    took.sort();
    took
}

fn median(sorted: &[Duration]) -> Duration {
    sorted[sorted.len() / 2]
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
