//! Stand-ins to try matterbind on: a virtual Matter device and the private network of `matterbind demo`.
//!
//! The hub package leaves all of this out (`--no-default-features`); nothing outside `sim`, `cli` and `app` may use it.

pub mod namespace;
pub mod virtual_device;
