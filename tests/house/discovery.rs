//! Discovery over real multicast between two network namespaces, against matter.js lights.
//!
//! ```text
//! hub namespace: LanDiscovery ── mb0 ══ veth ══ mb0 ── devices' namespace: matter.js
//! ```

use std::collections::HashSet;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use matterbind::facade::commissioning::ports::{DiscoverError, Discovery};
use matterbind::facade::config::NetworkConfig;
use matterbind::facade::discovery::{DiscoveryEvent, LanDiscovery, Seen};
use matterbind::facade::node::{Announced, CommissionableNode};
use matterbind::facade::onboarding::Discriminator;
use tokio::sync::broadcast;

use crate::support::daemon::VirtualDevice;
use crate::support::lab::{Families, INTERFACE, Lab};
use crate::support::matterjs::{ANSWER, Lights};
use crate::support::mdns::{Claim, Ear, names};

/// Far beyond what a search takes; a test that runs into it has failed.
const BUDGET: Duration = Duration::from_secs(20);

fn start() -> LanDiscovery {
    LanDiscovery::start(&NetworkConfig::default()).expect("mDNS starts")
}

async fn find(discovery: &LanDiscovery, discriminator: Discriminator) -> Result<CommissionableNode, DiscoverError> {
    discovery.find(discriminator, None, BUDGET).await
}

/// The next event that says `instance` is gone.
async fn gone(events: &mut broadcast::Receiver<DiscoveryEvent>, instance: &str) {
    let waiting = async {
        loop {
            if let DiscoveryEvent::Gone(Seen::Commissionable(node)) = events.recv().await.expect("discovery runs")
                && node.instance == instance
            {
                return;
            }
        }
    };
    tokio::time::timeout(ANSWER, waiting).await.expect("a device that leaves is noticed");
}

/// A command to the lights, off the thread that runs discovery.
async fn command(mut lights: Lights, line: String) -> Lights {
    let run = move || {
        lights.command(&line);
        lights
    };
    tokio::task::spawn_blocking(run).await.expect("the command is done")
}

#[test]
fn a_device_is_found_with_all_it_says() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let Some(lights) = Lights::start(&lab, &[("COUNT", "2"), ("DISCRIMINATOR", "1000")]) else { return };
    lab.in_hub(|| async {
        let discovery = start();
        for light in &lights.lights {
            let node = find(&discovery, Discriminator::Long(light.discriminator)).await.expect("it advertises");
            assert_eq!((node.port, node.txt.commissioning_mode), (light.port, 1));
            assert_eq!((node.txt.vendor_id, node.txt.product_id), (Some(0xFFF1), Some(0x8000)));
            assert_eq!((node.txt.device_type, node.txt.device_name.as_ref()), (Some(256), Some(&light.id)));
            let addresses: Vec<_> = node.addresses.iter().map(ToString::to_string).collect();
            assert_eq!(addresses.len(), 3, "{addresses:?}");
            assert_eq!((addresses[0].as_str(), addresses[2].as_str()), ("fd77::2", "10.77.0.2"));
            assert!(addresses[1].starts_with("fe80::") && addresses[1].ends_with(&format!("%{INTERFACE}")));
        }
        assert_eq!(discovery.commissionable().len(), 2);

        let absent = discovery.find(Discriminator::Long(1), None, Duration::from_millis(500)).await;
        let Err(DiscoverError::NotFound { others, .. }) = absent else { panic!("{absent:?}") };
        assert_eq!(others.len(), 2);
    });
}

/// The acceptance of trap 12: eight searches at once, 25 times, every other time by a daemon that has just started, and
/// each time after one of the lights has gone back to factory settings and come up under a new name.
#[test]
fn two_hundred_searches_without_a_miss() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let Some(mut lights) = Lights::start(&lab, &[("COUNT", "8")]) else { return };
    lab.in_hub(|| async {
        let mut discovery = start();
        let mut seen = HashSet::new();
        for round in 0..25 {
            let leaving = round % lights.lights.len();
            let old =
                find(&discovery, Discriminator::Long(lights.lights[leaving].discriminator)).await.expect("it is there");
            let mut events = discovery.subscribe();
            lights = command(lights, format!("reset {leaving}")).await;
            gone(&mut events, &old.instance).await;
            if round % 2 == 1 {
                discovery = start();
            }
            let searches = lights.lights.iter().map(|light| find(&discovery, Discriminator::Long(light.discriminator)));
            for (light, node) in lights.lights.iter().zip(futures_util::future::join_all(searches).await) {
                let node = node.unwrap_or_else(|error| panic!("round {round}, {}: {error}", light.id));
                assert_eq!((node.txt.discriminator, node.port), (light.discriminator, light.port));
                assert_ne!(node.instance, old.instance, "round {round}: that instance had said goodbye");
                seen.insert(node.instance);
            }
        }
        // Every reset gave one more instance name.
        assert_eq!(seen.len(), 8 + 24);
    });
}

#[test]
fn a_manual_code_never_picks_one_of_several() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let Some(first) = Lights::start(&lab, &[("DISCRIMINATOR", "3840"), ("NAME", "first"), ("PID", "32769")]) else {
        return;
    };
    let second = [("DISCRIMINATOR", "3841"), ("NAME", "second"), ("PORT", "5541")];
    let Some(mut second) = Lights::start(&lab, &second) else { return };
    lab.in_hub(|| async {
        // A daemon that has just started must not take the first that answers.
        for _ in 0..5 {
            let discovery = start();
            let ambiguous = find(&discovery, Discriminator::Short(15)).await;
            let Err(DiscoverError::Ambiguous { candidates }) = ambiguous else { panic!("{ambiguous:?}") };
            let mut found: Vec<_> = candidates.iter().map(Announced::discriminator).collect();
            found.sort_unstable();
            assert_eq!(found, [3840, 3841]);
        }
        let discovery = start();
        // A 21-digit code narrows by vendor and product.
        let narrowed = discovery.find(Discriminator::Short(15), Some((0xFFF1, 0x8001)), BUDGET).await;
        assert_eq!(narrowed.expect("one fits").txt.discriminator, 3840);
        let exact = find(&discovery, Discriminator::Long(3841)).await.expect("one fits");

        let mut events = discovery.subscribe();
        second = command(second, "offline 0".to_owned()).await;
        gone(&mut events, &exact.instance).await;
        let left = find(&discovery, Discriminator::Short(15)).await.expect("one is left");
        assert_eq!((left.txt.discriminator, left.port), (3840, first.lights[0].port));

        second = command(second, "online 0".to_owned()).await;
        let back = find(&discovery, Discriminator::Long(3841)).await.expect("it is back");
        assert_ne!(back.instance, exact.instance);
        drop(second);
    });
}

#[test]
fn link_local_addresses_are_enough() {
    let Some(lab) = Lab::new(Families::LinkLocal) else { return };
    let variables = [("COUNT", "2"), ("DISCRIMINATOR", "2000")];
    let Some(mut lights) = Lights::start(&lab, &variables) else { return };
    lab.in_hub(|| async {
        let discovery = start();
        let searches = [2000, 2001].map(|long| find(&discovery, Discriminator::Long(long)));
        let mut instances = Vec::new();
        for node in futures_util::future::join_all(searches).await {
            let node = node.expect("it advertises");
            assert!(
                node.addresses.iter().all(|address| address.is_link_local() && address.scope.is_some()),
                "{node:?}"
            );
            assert!(!node.sockets().is_empty());
            instances.push(node.instance);
        }
        // Killed without a goodbye, and started again: the new instance is meant, and the old one is shown until its records end.
        let restarted = || {
            drop(lights);
            Lights::start(&lab, &variables)
        };
        let mut events = discovery.subscribe();
        let restarting = std::thread::scope(|scope| scope.spawn(restarted).join().expect("they start"));
        let Some(again) = restarting else { return };
        lights = again;
        let back = async {
            loop {
                if let DiscoveryEvent::Appeared(Seen::Commissionable(node)) =
                    events.recv().await.expect("discovery runs")
                    && node.txt.discriminator == 2000
                {
                    return node.instance;
                }
            }
        };
        let back = tokio::time::timeout(ANSWER, back).await.expect("it is back");
        let node = find(&discovery, Discriminator::Long(2000)).await.expect("it is back");
        assert!(node.instance == back && !instances.contains(&back));
        assert!(discovery.commissionable().iter().any(|shown| shown.instance == instances[0]), "a twin hides nobody");
        drop(lights);
    });
}

#[test]
fn what_a_responder_announces_is_found_and_leaves() {
    use matterbind::facade::node::NodeId;

    let Some(lab) = Lab::new(Families::Both) else { return };
    let responder = lab.among_devices(|| async { mdns_sd::ServiceDaemon::new().expect("mDNS starts") });
    lab.in_hub(|| async {
        let discovery = start();
        let mut events = discovery.subscribe();
        let instance = "A1B2C3D4E5F60718";
        announce(&responder, instance, 3840);
        let node = find(&discovery, Discriminator::Long(3840)).await.expect("it is announced");
        assert_eq!((node.instance.as_str(), node.txt.vendor_id), (instance, Some(0xFFF1)));
        // mdns-sd tells IPv4 addresses over IPv4 and IPv6 addresses over IPv6.
        while discovery.commissionable()[0].addresses.len() < 3 {
            let event = tokio::time::timeout(ANSWER, events.recv()).await;
            event.expect("the other family's addresses come").expect("discovery runs");
        }

        let operational = "2906C908D115D362-00000000000003E8";
        announce_as(&responder, "_I2906C908D115D362._sub._matter._tcp.local.", operational, &[]);
        let sockets = discovery.operational(0x2906_C908_D115_D362, NodeId(1000), BUDGET).await;
        assert!(!sockets.is_empty());
        let other = discovery.operational(0x2906_C908_D115_D362, NodeId(1001), Duration::from_millis(300)).await;
        assert_eq!(other, []);

        responder.unregister(&format!("{instance}._matterc._udp.local.")).expect("mDNS runs");
        gone(&mut events, instance).await;
    });
}

/// An honest device: an independent responder in the devices' namespace.
fn announce(responder: &mdns_sd::ServiceDaemon, instance: &str, discriminator: u16) {
    let (service, discriminator) = (format!("_L{discriminator}._sub._matterc._udp.local."), discriminator.to_string());
    announce_as(responder, &service, instance, &[("D", &discriminator), ("CM", "1"), ("VP", "65521+32768")]);
}

fn announce_as(responder: &mdns_sd::ServiceDaemon, service: &str, instance: &str, txt: &[(&str, &str)]) {
    let service = mdns_sd::ServiceInfo::new(service, instance, &format!("{instance}.local."), (), 5540, txt);
    let mut service = service.expect("a service").enable_addr_auto();
    service.set_requires_probe(false);
    responder.register(service).expect("it is taken");
}

fn claim(n: u64, discriminator: u16, ip: &str) -> Claim {
    Claim {
        service: "_matterc._udp",
        instance: format!("{:016X}", 0xA000_0000_0000_0000 + n),
        subtypes: vec![format!("_L{discriminator}")],
        txt: vec![format!("D={discriminator}"), "CM=1".to_owned(), "VP=65521+32768".to_owned()],
        ip: ip.parse().expect("an address"),
        port: 5540,
    }
}

/// In twelve seconds, over one IP family: two searches of six rounds, and what the fresh starts ask. It was thousands a second.
const MAX_QUERIES: usize = 150;

/// 2,000 records in four seconds from one liar, of each kind: the hub's own queries stay few, during the storm and while the
/// records live, and an honest device is found in the middle of it and after it.
///
/// ```text
/// hub: search 3000 ──────────► found      search 3001, 3002 ──► found
/// liar:  |== 500 records a second ==|  (they live for 75 minutes)
/// ear:   |== counts the hub's queries ==================|
/// ```
#[test]
fn a_storm_of_records_makes_no_storm_of_queries() {
    let commissionable: Vec<_> = (0..2000).map(|n| claim(n, u16::try_from(n).expect("12 bits"), "fd77::66")).collect();
    let operational: Vec<_> = (0..2000)
        .map(|n| Claim {
            service: "_matter._tcp",
            instance: format!("1122334455667788-{n:016X}"),
            ..claim(n, 0, "fd77::66")
        })
        .collect();
    let whole = |claims: &[Claim]| claims.iter().map(Claim::whole).collect::<Vec<_>>();
    for (kind, packets, per_second) in [
        ("commissionable devices", whole(&commissionable), 500),
        ("operational nodes", whole(&operational), 500),
        ("names and nothing behind them", commissionable.chunks(20).map(names).collect(), 25),
    ] {
        let Some(lab) = Lab::new(Families::Both) else { return };
        let (storage, started) = (tempfile::tempdir().expect("a directory"), AtomicBool::new(false));
        let (storage, started, lab) = (storage.path(), &started, &lab);
        let begin = Barrier::new(2);
        std::thread::scope(|scope| {
            let outside = scope.spawn(|| {
                lab.among_devices(|| async {
                    let responder = mdns_sd::ServiceDaemon::new().expect("mDNS starts");
                    announce(&responder, "00000000000003E8", 3000);
                    let ear = Ear::open(INTERFACE);
                    begin.wait();
                    let start = Instant::now();
                    let flood = async {
                        ear.flood(&packets, per_second).await;
                        announce(&responder, "00000000000003E9", 3001);
                    };
                    let ((), counted) = tokio::join!(flood, ear.count_queries(start + Duration::from_secs(12)));
                    let _ = responder.shutdown();
                    (counted, start.elapsed())
                })
            });
            // A device whose responder answers as Matter wants it, and that nobody has heard of before the storm is over.
            scope.spawn(move || {
                std::thread::sleep(Duration::from_secs(5));
                let device = VirtualDevice::start(lab, storage, &["--discriminator", "3002"]);
                started.store(true, Ordering::Relaxed);
                while started.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(50));
                }
                device.kill();
            });
            lab.in_hub(|| async {
                let discovery = start();
                begin.wait();
                tokio::time::sleep(Duration::from_secs(2)).await;
                for discriminator in [3000, 3001, 3002] {
                    while discriminator == 3002 && !started.load(Ordering::Relaxed) {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    let began = Instant::now();
                    let node = find(&discovery, Discriminator::Long(discriminator)).await;
                    let node = node.unwrap_or_else(|error| panic!("{kind}: {error}"));
                    assert!(discriminator == 3002 || node.instance.starts_with("00000000000003E"), "{node:?}");
                    println!("{kind}: device {discriminator} found in {:?}", began.elapsed());
                    // The others appear when the storm is over.
                    if discriminator == 3000 {
                        tokio::time::sleep(Duration::from_secs(4)).await;
                    }
                }
                started.store(false, Ordering::Relaxed);
                assert!(discovery.commissionable().len() <= 512 && discovery.operational_nodes().len() <= 512);
                assert!(discovery.health().await.is_well());
                // Keeps its records alive until all is counted.
                while !outside.is_finished() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                let ((v4, v6), took) = outside.join().expect("counted");
                println!("{kind}: {v4} and {v6} queries over IPv4 and IPv6 in {took:?}");
                assert!(v4 > 0 && v6 > 0, "the ear hears nothing");
                assert!(v4.max(v6) <= MAX_QUERIES, "{kind}: {v4} and {v6} queries in {took:?}");
            });
        });
    }
}

/// A liar takes the address and port of a device, and claims others that nobody can have.
#[test]
fn a_twin_hides_nobody_and_a_silent_one_goes() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let responder = lab.among_devices(|| async { mdns_sd::ServiceDaemon::new().expect("mDNS starts") });
    let real = "00000000000003E8";
    announce(&responder, real, 3000);
    lab.in_hub(|| async {
        let discovery = start();
        let mut events = discovery.subscribe();
        let mut candidates = discovery.candidates(Discriminator::Long(3000), Some((0xFFF1, 0x8000)));
        let until = || Instant::now() + BUDGET;
        let first = candidates.next(until()).await.expect("discovery runs").expect("the device");
        assert_eq!(first.instance, real);

        let say = |claims: Vec<Claim>| {
            lab.among_devices(|| async move {
                let ear = Ear::open(INTERFACE);
                for claim in claims {
                    ear.say(&claim.whole()).await;
                }
            });
        };
        let twin = claim(1, 3000, "fd77::2");
        let silent = claim(2, 3000, "fd77::99");
        let nobodys = ["::ffff:127.0.0.1", "::ffff:10.77.0.2", "::1", "::", "ff02::1"];
        let nobodys = (10..).zip(nobodys).map(|(n, ip)| claim(n, 3000, ip));
        let liars = HashSet::from([twin.instance.clone(), silent.instance.clone()]);
        // These two are heard after all the others.
        say(nobodys.chain([twin.clone(), silent.clone()]).collect());
        let mut given = HashSet::new();
        while !given.is_superset(&liars) {
            let next = candidates.next(until()).await.expect("discovery runs").expect("another candidate");
            given.insert(next.instance);
        }
        given.remove(real);
        assert_eq!(given, liars);

        // Both do not answer when their records are confirmed, and the real one does.
        let lied: Vec<_> = candidates
            .fitting()
            .into_iter()
            .filter(|node| node.instance != real)
            .inspect(|n| candidates.confirm(n))
            .collect();
        assert_eq!(lied.len(), 2);
        candidates.confirm(&first);
        let mut left = HashSet::from([twin.instance, silent.instance]);
        let leaving = async {
            while !left.is_empty() {
                if let DiscoveryEvent::Gone(Seen::Commissionable(node)) = events.recv().await.expect("discovery runs") {
                    left.remove(&node.instance);
                }
            }
        };
        tokio::time::timeout(ANSWER, leaving).await.expect("the silent ones go");
        let real_one = |node: &CommissionableNode| node.instance == real;
        assert!(candidates.fitting().iter().all(real_one) && candidates.fitting().len() == 1);
        assert!(!candidates.is_current(&lied[0]));
    });
    let _ = responder.shutdown();
}

/// A hub whose configured interface is not there says so at once, and works as soon as it comes.
#[test]
fn without_an_interface_a_search_fails_at_once() {
    let Some(lab) = Lab::new(Families::Both) else { return };
    let ip = |arguments: &[&str]| {
        let status = lab.hub_command("ip").args(arguments).status().expect("ip can be run");
        assert!(status.success(), "ip {arguments:?}");
    };
    lab.in_hub(|| async {
        let discovery = LanDiscovery::start(&NetworkConfig { interfaces: vec!["late0".to_owned()], loopback: false })
            .expect("mDNS starts");
        let began = Instant::now();
        let deaf = find(&discovery, Discriminator::Long(3840)).await;
        let Err(DiscoverError::Unavailable(why)) = deaf else { panic!("{deaf:?}") };
        assert!(why.contains("late0") && began.elapsed() < BUDGET / 2, "{why}");
        let health = discovery.health().await;
        assert_eq!((health.is_well(), health.missing.as_slice()), (false, ["late0".to_owned()].as_slice()));

        ip(&["link", "add", "late0", "type", "veth", "peer", "name", "late1"]);
        ip(&["addr", "add", "10.78.0.1/24", "dev", "late0"]);
        ip(&["link", "set", "late0", "up"]);
        let well = async {
            while !discovery.health().await.is_well() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(ANSWER, well).await.expect("the interface is noticed");
        assert_eq!(discovery.health().await.interfaces, ["late0"]);
        let absent = discovery.find(Discriminator::Long(3840), None, Duration::from_millis(300)).await;
        assert!(matches!(absent, Err(DiscoverError::NotFound { .. })), "{absent:?}");
    });
}
