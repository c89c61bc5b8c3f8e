//! What tests of attempts, and of the hub's use cases, stand on.

pub(crate) mod home;
