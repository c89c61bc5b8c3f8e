//! Cloud work not yet acknowledged: rows first, then sending (house rule 7). `schedule` decides, `dispatcher` acts.
//!
//! Not here: HTTP (`cloud`), SQL (`store`), what to compare (`reconcile`).

pub(crate) mod dispatcher;
pub(crate) mod foreign;
pub(crate) mod ports;
pub(crate) mod schedule;
