//! All that may be asked of the hub from outside: each door stands in the room that answers.

pub use super::access::AccessDoor;
pub use super::commission::{CommissionDoor, Progress};
pub use super::discover::DiscoverDoor;
pub use super::inventory::InventoryDoor;
pub use super::keys::KeysDoor;
pub use super::log::LogDoor;
pub use super::outbox::OutboxDoor;
pub use super::removal::RemovalDoor;
pub use super::status::StatusDoor;
pub use super::sync::SyncDoor;

/// Who answers at every door. Every operation has its own deadline; none waits for ever.
pub trait Doors:
    AccessDoor
    + CommissionDoor
    + DiscoverDoor
    + InventoryDoor
    + KeysDoor
    + LogDoor
    + OutboxDoor
    + RemovalDoor
    + StatusDoor
    + SyncDoor
{
}

impl<T> Doors for T where
    T: AccessDoor
        + CommissionDoor
        + DiscoverDoor
        + InventoryDoor
        + KeysDoor
        + LogDoor
        + OutboxDoor
        + RemovalDoor
        + StatusDoor
        + SyncDoor
{
}
