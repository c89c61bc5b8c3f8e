//! All that may be asked of the hub from outside: each door stands in the room that answers.

pub use super::access::AccessDoor;
pub use super::binding::BindingDoor;
pub use super::commission::{CommissionDoor, ProgressSink};
pub use super::controllers::{ControllersDoor, InvitesDoor};
pub use super::discover::DiscoverDoor;
pub use super::doctor::DoctorDoor;
pub use super::inventory::InventoryDoor;
pub use super::keys::KeysDoor;
pub use super::log::LogDoor;
pub use super::networks::NetworksDoor;
pub use super::outbox::OutboxDoor;
pub use super::removal::RemovalDoor;
pub use super::sharing::SharingDoor;
pub use super::status::StatusDoor;
pub use super::strangers::StrangersDoor;
pub use super::sync::{Intent, SyncDoor, SyncProgress};

/// Who answers at every door. Every operation has its own deadline; none waits for ever.
pub trait Doors:
    AccessDoor
    + BindingDoor
    + CommissionDoor
    + ControllersDoor
    + DiscoverDoor
    + DoctorDoor
    + InventoryDoor
    + InvitesDoor
    + KeysDoor
    + LogDoor
    + NetworksDoor
    + OutboxDoor
    + RemovalDoor
    + SharingDoor
    + StatusDoor
    + StrangersDoor
    + SyncDoor
{
}

impl<T> Doors for T where
    T: AccessDoor
        + BindingDoor
        + CommissionDoor
        + ControllersDoor
        + DiscoverDoor
        + DoctorDoor
        + InventoryDoor
        + InvitesDoor
        + KeysDoor
        + LogDoor
        + NetworksDoor
        + OutboxDoor
        + RemovalDoor
        + SharingDoor
        + StatusDoor
        + StrangersDoor
        + SyncDoor
{
}
