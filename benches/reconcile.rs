//! How long comparing takes: `cargo bench --bench reconcile`. Prints medians, asserts nothing.
//!
//! Goal: 1,000 nodes' three views in less than 50 ms.

use std::hint::black_box;
use std::time::{Duration, Instant};

use matterbind::facade::bind::{BindState, BindStatus, CloudDevice, CloudMatterInfo, CloudRecord};
use matterbind::facade::fabric::{AclLimits, Cat, CatGrant, Privilege, granted_cats, plan_acl};
use matterbind::facade::node::{BasicInformation, FabricId, NodeRecord, sample};
use matterbind::facade::reconcile::compare::{CloudView, DeviceFacts, DeviceView, Views, compare, superseded};
use matterbind::facade::reconcile::mend::{Policy, mend};

const ROUNDS: usize = 31;
const NODES: u64 = 1000;

fn main() {
    let all: Vec<_> = (1..=NODES).map(three_views).collect();
    let agree = median(|| run(&all));
    let bent: Vec<_> = all
        .iter()
        .cloned()
        .map(|(mut local, device, cloud)| {
            local.matter_version = "1.3".to_owned();
            (local, device, cloud)
        })
        .collect();
    let differ = median(|| run(&bent));
    println!("{NODES} nodes that agree   {:8.2} ms", agree.as_secs_f64() * 1e3);
    println!("{NODES} nodes that differ  {:8.2} ms", differ.as_secs_f64() * 1e3);
}

fn run(all: &[(NodeRecord, DeviceView, CloudView)]) {
    let replaced = superseded(all.iter().map(|(local, _, _)| local));
    for (local, device, cloud) in all {
        let superseded_by = replaced.get(&local.node_id).copied();
        let views = Views { local, device, cloud, queued: false, superseded_by, commissionable_again: None };
        let comparison = black_box(compare(views));
        black_box(mend(Policy::default(), views, &comparison));
    }
}

fn median(mut work: impl FnMut()) -> Duration {
    let mut rounds: Vec<_> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed()
        })
        .collect();
    rounds.sort_unstable();
    rounds[ROUNDS / 2]
}

fn three_views(node: u64) -> (NodeRecord, DeviceView, CloudView) {
    let cat = |value| Cat::new(value).expect("a version");
    let grants: Vec<CatGrant> =
        (2..6).map(|id| CatGrant { cat: cat(id << 16 | 1), privilege: Privilege::Operate }).collect();
    let acl = plan_acl(cat(0x0001_0001), &grants, AclLimits::default()).expect("fits");
    let cats = granted_cats(&acl);
    let (product_key, device_key) = ("p11abc".to_owned(), format!("SN{node:08}"));
    let basic = BasicInformation {
        vendor_id: 0xFFF1,
        product_id: 0x8001,
        vendor_name: "Vendor".to_owned(),
        product_name: "Light".to_owned(),
        serial_number: Some(device_key.clone()),
        unique_id: Some(format!("U{node}")),
        specification_version: Some(0x0104_0000),
        ..BasicInformation::default()
    };
    let local = NodeRecord {
        fabric_id: FabricId(7),
        product_id: basic.product_id,
        serial_number: basic.serial_number.clone(),
        unique_id: basic.unique_id.clone(),
        cats: cats.clone(),
        product_key: Some(product_key.clone()),
        device_key: Some(device_key.clone()),
        name: format!("Light {node}"),
        bind: BindStatus { state: BindState::Bound, ..BindStatus::default() },
        ..sample(node)
    };
    let held = CloudRecord {
        device: CloudDevice { product_key, device_key },
        device_name: Some(local.name.clone()),
        status: Some(1),
        device_type: Some(1),
        is_matter: true,
        matter_info: Some(CloudMatterInfo {
            fabric_id: Some(7),
            node_id: Some(node),
            vendor_id: Some(0xFFF1),
            product_id: Some(0x8001),
            discriminator: Some(3840),
            matter_version: Some(local.matter_version.clone()),
            cats: cats.iter().map(|grant| (grant.cat.value().into(), grant.privilege.as_str().to_owned())).collect(),
        }),
        auth_key: None,
        binding_mode: Some(1),
        family_id: None,
        room_id: None,
    };
    let facts = DeviceFacts { fabric_index: 1, identity: Some((7, node)), basic, acl };
    (local, DeviceView::Seen(Box::new(facts)), CloudView::Held(Some(Box::new(held))))
}
