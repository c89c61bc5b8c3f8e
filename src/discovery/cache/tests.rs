use super::*;
use crate::node::{CommissionableTxt, OperationalTxt};

pub(crate) fn commissionable(instance: &str, discriminator: u16, host: u8) -> CommissionableNode {
    let ip = format!("fe80::{host}").parse().expect("an address");
    CommissionableNode {
        instance: instance.to_owned(),
        addresses: vec![ScopedAddress { ip, scope: Some(("eth0".to_owned(), 2)) }],
        port: 5540,
        txt: CommissionableTxt { discriminator, commissioning_mode: 1, ..Default::default() },
    }
}

pub(crate) fn sighting(node: &CommissionableNode) -> Seen {
    Seen::Commissionable(node.clone())
}

fn visible(cache: &Cache) -> Vec<&str> {
    cache.commissionable_entries().map(|entry| entry.node.instance.as_str()).collect()
}

#[test]
fn it_appears_changes_and_goes_once_each() {
    let now = Instant::now();
    let mut cache = Cache::default();
    let mut node = commissionable("A", 3840, 1);
    assert_eq!(cache.handle_sighting(sighting(&node), now), [DiscoveryEvent::Appeared(sighting(&node))]);
    assert_eq!(cache.handle_sighting(sighting(&node), now), []);
    node.txt.commissioning_mode = 2;
    assert_eq!(cache.handle_sighting(sighting(&node), now), [DiscoveryEvent::Updated(sighting(&node))]);
    assert_eq!(cache.handle_commissionable_gone("a", now), Some(DiscoveryEvent::Gone(sighting(&node))));
    assert_eq!(cache.handle_commissionable_gone("a", now), None);
}

#[test]
fn a_twin_hides_nobody_and_the_older_one_is_tried_last() {
    let start = Instant::now();
    let (old, new) = (commissionable("A", 3840, 1), commissionable("B", 3841, 1));
    let mut cache = Cache::default();
    cache.handle_sighting(sighting(&old), start);
    let events = cache.handle_sighting(sighting(&new), start + Duration::from_secs(1));
    assert_eq!(events, [DiscoveryEvent::Appeared(sighting(&new))]);
    // The record cache replays the old one until it expires.
    cache.handle_sighting(sighting(&old), start + Duration::from_secs(2));
    assert_eq!(visible(&cache), ["A", "B"]);
    assert_eq!(cache.candidates(), [new.clone(), old.clone()]);
    assert_eq!(cache.handle_commissionable_gone("A", start), Some(DiscoveryEvent::Gone(sighting(&old))));
    assert_eq!(visible(&cache), ["B"]);
}

#[test]
fn devices_on_one_host_are_told_apart_by_port() {
    let now = Instant::now();
    let (a, mut b) = (commissionable("A", 3840, 1), commissionable("B", 3840, 1));
    b.port = 5541;
    let mut cache = Cache::default();
    cache.handle_sighting(sighting(&a), now);
    cache.handle_sighting(sighting(&b), now + Duration::from_secs(1));
    assert_eq!(visible(&cache), ["A", "B"]);
}

#[test]
fn who_does_not_answer_after_a_restart_is_gone() {
    let start = Instant::now();
    let (a, b) = (commissionable("A", 3840, 1), commissionable("B", 3841, 2));
    let mut cache = Cache::default();
    cache.handle_sighting(sighting(&a), start);
    cache.handle_sighting(sighting(&b), start);
    cache.handle_restart(Kind::Operational, start);
    assert!(!cache.has_unconfirmed());
    cache.handle_restart(Kind::Commissionable, start);
    cache.handle_sighting(sighting(&b), start);
    assert!(cache.has_unconfirmed());
    assert_eq!(cache.handle_timeout(start + RECONFIRM_WITHIN / 2), []);
    assert_eq!(cache.handle_timeout(start + RECONFIRM_WITHIN), [DiscoveryEvent::Gone(sighting(&a))]);
    assert_eq!(visible(&cache), ["B"]);
}

#[test]
fn who_is_at_an_address_is_told() {
    let now = Instant::now();
    let node = commissionable("A", 3840, 1);
    let mut cache = Cache::default();
    cache.handle_sighting(sighting(&node), now);
    let ip = node.addresses[0].ip;
    assert_eq!(cache.commissionable_at(ip, None), Some(node.clone()));
    assert_eq!(cache.commissionable_at(ip, Some(5540)), Some(node));
    assert_eq!(cache.commissionable_at(ip, Some(5541)), None);
    assert_eq!(cache.commissionable_at("fe80::2".parse().expect("an address"), None), None);
}

#[test]
fn a_flood_does_not_grow_without_bound() {
    let now = Instant::now();
    let mut cache = Cache::default();
    for n in 0..MAX_INSTANCES + 10 {
        let node = OperationalNode {
            compressed_fabric_id: 1,
            node_id: NodeId(n as u64),
            addresses: Vec::new(),
            port: 5540,
            txt: OperationalTxt::default(),
        };
        cache.handle_sighting(Seen::Operational(node), now);
    }
    assert_eq!(cache.operational_nodes().len(), MAX_INSTANCES);
}

#[test]
fn what_is_searched_has_its_place_in_a_flood() {
    let now = Instant::now();
    let mut cache = Cache::default();
    cache.handle_searches(vec![Discriminator::Long(3840)]);
    for n in 0..MAX_INSTANCES + 10 {
        let port = u16::try_from(n).expect("few");
        let node = CommissionableNode { port, ..commissionable(&format!("F{n}"), 1, 1) };
        cache.handle_sighting(sighting(&node), now);
    }
    let wanted = commissionable("A", 3840, 2);
    let events = cache.handle_sighting(sighting(&wanted), now);
    let [DiscoveryEvent::Gone(_), DiscoveryEvent::Appeared(seen)] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((seen, cache.commissionable.len()), (&sighting(&wanted), MAX_INSTANCES));

    let operational = |node_id| OperationalNode {
        compressed_fabric_id: 1,
        node_id: NodeId(node_id),
        addresses: Vec::new(),
        port: 5540,
        txt: OperationalTxt::default(),
    };
    cache.handle_asked(1, NodeId(7));
    (1000..2000).for_each(|n| drop(cache.handle_sighting(Seen::Operational(operational(n)), now)));
    cache.handle_sighting(Seen::Operational(operational(7)), now);
    assert!(cache.operational(1, NodeId(7)).is_some());
    assert_eq!(cache.operational_nodes().len(), MAX_INSTANCES);
}

#[test]
fn who_is_asked_to_answer_is_confirmed_by_what_outlives_its_records() {
    let start = Instant::now();
    let after = |ms| start + Duration::from_millis(ms);
    let node = OperationalNode {
        compressed_fabric_id: 1,
        node_id: NodeId(7),
        addresses: vec![ScopedAddress { ip: IpAddr::from([192, 0, 2, 1]), scope: None }],
        port: 5540,
        txt: OperationalTxt::default(),
    };
    let seen = || Seen::Operational(node.clone());
    let confirmed = |cache: &Cache| cache.confirmed_operational(1, NodeId(7)).is_some();
    let mut cache = Cache::default();
    cache.handle_sighting(seen(), start);
    assert!(confirmed(&cache));
    cache.handle_confirm(Kind::Operational, &node.instance(), after(1_000));
    // Told again from memory.
    cache.handle_sighting(seen(), after(9_000));
    assert!(!confirmed(&cache) && cache.has_unconfirmed());
    cache.handle_sighting(seen(), after(12_000));
    assert!(confirmed(&cache) && !cache.has_unconfirmed());
    // Asked twice: the answer to the first is none to the second, but keeps it from being given up.
    cache.handle_confirm(Kind::Operational, &node.instance(), after(20_000));
    cache.handle_confirm(Kind::Operational, &node.instance(), after(28_000));
    cache.handle_sighting(seen(), after(31_000));
    assert!(!confirmed(&cache));
    assert_eq!(cache.handle_timeout(after(36_000)), []);
    // Nothing more is told of it, and nobody says that it went.
    assert_eq!(cache.handle_timeout(after(43_000)), [DiscoveryEvent::Gone(seen())]);
}
