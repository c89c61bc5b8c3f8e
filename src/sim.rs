//! The outside world for demo, tests and integrators; the hub package leaves it out.

pub mod cloud;
