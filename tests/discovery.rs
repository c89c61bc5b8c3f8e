//! Discovery over real multicast between two network namespaces, against matter.js lights.
//!
//! ```text
//! hub namespace: LanDiscovery ── mb0 ══ veth ══ mb0 ── devices' namespace: matter.js
//! ```

#[allow(dead_code, reason = "shared by several test binaries, none of which uses all of it")]
mod support {
    pub mod lab;
    pub mod matterjs;
}

use std::collections::HashSet;
use std::time::Duration;

use matterbind::commissioning::ports::{DiscoverError, Discovery};
use matterbind::config::NetworkConfig;
use matterbind::discovery::{DiscoveryEvent, LanDiscovery, Seen};
use matterbind::node::CommissionableNode;
use matterbind::onboarding::Discriminator;
use tokio::sync::broadcast;

use support::lab::{Families, INTERFACE, Lab};
use support::matterjs::{ANSWER, Lights};

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
            let mut found: Vec<_> = candidates.iter().map(|node| node.txt.discriminator).collect();
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
    });
    drop(second);
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
        // Killed without a goodbye, and started again: one device, the new instance.
        let restarted = || {
            drop(lights);
            Lights::start(&lab, &variables)
        };
        let mut events = discovery.subscribe();
        let restarting = std::thread::scope(|scope| scope.spawn(restarted).join().expect("they start"));
        let Some(again) = restarting else { return };
        lights = again;
        gone(&mut events, &instances[0]).await;
        let node = find(&discovery, Discriminator::Long(2000)).await.expect("it is back");
        assert!(!instances.contains(&node.instance));
        drop(lights);
    });
}

#[cfg(feature = "sim")]
#[test]
fn what_the_advertiser_announces_is_found_and_leaves() {
    use matterbind::discovery::register::{Advertiser, ServiceKind};
    use matterbind::node::NodeId;

    let Some(lab) = Lab::new(Families::Both) else { return };
    let advertiser = lab.among_devices(|| async { Advertiser::new(&NetworkConfig::default()).expect("mDNS starts") });
    lab.in_hub(|| async {
        let discovery = start();
        let mut events = discovery.subscribe();
        let txt = [("D", "3840"), ("CM", "1"), ("VP", "65521+32768"), ("DN", "Lamp")];
        let txt = txt.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
        let instance = "A1B2C3D4E5F60718";
        advertiser.advertise(ServiceKind::Commissionable, instance, 5540, txt).expect("it is taken");
        let node = find(&discovery, Discriminator::Long(3840)).await.expect("it is announced");
        assert_eq!((node.instance.as_str(), node.txt.device_name.as_deref()), (instance, Some("Lamp")));
        assert_eq!(node.addresses.len(), 3, "{node:?}");

        let operational = "2906C908D115D362-00000000000003E8";
        advertiser.advertise(ServiceKind::Operational, operational, 5540, Vec::new()).expect("it is taken");
        let sockets = discovery.operational(0x2906_C908_D115_D362, NodeId(1000), BUDGET).await;
        assert_eq!(sockets.len(), 3, "{sockets:?}");
        let other = discovery.operational(0x2906_C908_D115_D362, NodeId(1001), Duration::from_millis(300)).await;
        assert_eq!(other, []);

        advertiser.withdraw(ServiceKind::Commissionable, instance).await.expect("mDNS runs");
        gone(&mut events, instance).await;
    });
}
