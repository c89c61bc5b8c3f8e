//! Stand-ins for what the hub meets: used by `matterbind demo`, `virtual-device`, `cloud-sim` and the tests.
//!
//! Not in the hub package (feature `sim`), and nothing outside tests, the demo and the simulators' own commands may use it.

pub(crate) mod cloud;
pub(crate) mod evidence;
pub(crate) mod namespace;
pub(crate) mod virtual_device;
