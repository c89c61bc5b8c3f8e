//! Devices of a household, what is wished of them, and what the cloud must hold in the end.

use jiff::Timestamp;
use matterbind::facade::bind::{BindRequest, CloudDevice, MatterInfo};
use matterbind::facade::commissioning::ports::NodeStore;
use matterbind::facade::journal::{Event, EventSink};
use matterbind::facade::node::{FabricId, NodeId, NodeRecord, sample};
use matterbind::facade::outbox::ports::OutboxTask;
use matterbind::facade::secret::BindingCode;
use matterbind::facade::store::Store;
use rand::RngExt as _;
use rand::rngs::StdRng;
use uuid::Uuid;

/// Of the reference cloud's demo tenant, as are family and rooms.
pub const PRODUCT: &str = "p11abc";
pub const FAMILY: &str = "f-demo";
const ROOMS: [&str; 2] = ["r-kitchen", "r-hall"];

/// What the household wants of one device, in this order, after its bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    Rename,
    Move,
    NewIdentity,
    Unbind,
}

/// What the cloud must hold in the end, and how many binds it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Name, room and discriminator.
    pub bound: Option<(String, Option<String>, u64)>,
    /// Binds that take effect.
    pub binds: u32,
    /// Unbinds that take effect, a change of identity included.
    pub unbinds: u32,
}

pub fn device(node: u64) -> CloudDevice {
    CloudDevice { product_key: PRODUCT.to_owned(), device_key: format!("device{node}") }
}

pub fn request(node: u64, discriminator: u16, name: &str, room: Option<String>) -> Box<BindRequest> {
    Box::new(BindRequest {
        device: device(node),
        binding_code: BindingCode::new("0123456789ABCDEF"),
        device_name: Some(name.to_owned()),
        family_id: Some(FAMILY.to_owned()),
        room_id: room,
        capabilities_bitmask: 10,
        options: Default::default(),
        matter_info: MatterInfo {
            fabric_id: FabricId(77),
            node_id: NodeId(node),
            vendor_id: 0xFFF1,
            product_id: 0x8000,
            discriminator: Some(discriminator),
            matter_version: "1.4".to_owned(),
            cats: Vec::new(),
        },
    })
}

pub fn record(node: u64, commissioned_at: Timestamp) -> NodeRecord {
    NodeRecord { discriminator: Some(0), name: "light".to_owned(), commissioned_at, ..sample(node) }
}

/// Commits a node with its bind and queues its wishes, each due after the one before; answers what must come of it.
pub async fn queue(store: &Store, node: u64, wishes: &[Wish], mut due: impl Iterator<Item = Timestamp>) -> Expected {
    let mut next = || due.next().expect("there is no last moment");
    let bind = OutboxTask::Bind(request(node, 0, "light", None));
    store.commit_commissioned(Uuid::now_v7(), &record(node, next()), Some(&bind), "{}").await.unwrap();
    let mut expected = Expected { bound: Some(("light".to_owned(), None, 0)), binds: 1, unbinds: 0 };
    for (index, wish) in wishes.iter().enumerate() {
        let Some((name, room, discriminator)) = &mut expected.bound else { break };
        let task = match wish {
            Wish::Rename => {
                *name = format!("name {index}");
                OutboxTask::Rename { device: device(node), name: name.clone() }
            }
            Wish::Move => {
                let new = ROOMS[index % ROOMS.len()].to_owned();
                let old = room.replace(new.clone());
                OutboxTask::MoveRoom {
                    device: device(node),
                    family_id: FAMILY.to_owned(),
                    old_room_id: old,
                    new_room_id: new,
                }
            }
            Wish::NewIdentity => {
                *discriminator = index as u64 + 1;
                expected.binds += 1;
                expected.unbinds += 1;
                OutboxTask::UpdateMatterInfo(request(node, *discriminator as u16, name, room.clone()))
            }
            Wish::Unbind => {
                expected.bound = None;
                expected.unbinds += 1;
                OutboxTask::Unbind(device(node))
            }
        };
        store.enqueue(NodeId(node), &task, next()).await.unwrap();
    }
    expected
}

/// Events only count.
#[derive(Default)]
pub struct Silent;

impl EventSink for Silent {
    fn record(&self, _event: Event) {}
}

/// None to three wishes for each device.
pub fn wishes(random: &mut StdRng, devices: usize) -> Vec<Vec<Wish>> {
    let all = [Wish::Rename, Wish::Move, Wish::NewIdentity, Wish::Unbind];
    let mut some = || (0..random.random_range(0..4)).map(|_| all[random.random_range(0..4)]).collect();
    (0..devices).map(|_| some()).collect()
}
