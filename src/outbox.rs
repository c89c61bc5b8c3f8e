//! Cloud work not yet acknowledged: rows first, then sending (house rule 7). `schedule` decides, `dispatcher` acts.
//!
//! Not here: HTTP (`cloud`), SQL (`store`), what to compare (`reconcile`).

pub mod dispatcher;
pub mod foreign;
pub mod ports;
pub mod schedule;
