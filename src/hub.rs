//! What the hub does: its use cases, each in a room of its own. Not here: how they are put together (`app`), how clients ask for
//! them (`admin`).
//!
//! `commission` takes devices in, `removal` takes them away, `inventory` asks one node, `access` writes who may do what,
//! `controllers` gives others certificates, `keys` backs up, `sync` compares device, record and cloud, `trust` judges who joins, `succession` knows devices again after a reset, `strangers` are
//! nodes of ours without a record, `binding` gives a node other keys, `recovery` settles what a crash interrupted,
//! `networks` keeps what devices on Bluetooth are brought to, `doctor` looks at all around the hub,
//! `label` tells nodes a changed name of the fabric, `health` asks every part whether it works,
//! `clock` says whether the hub's clock can be believed, `presence` follows what the LAN shows, `probe` and `liveness` ask who is silent, `icd` lives by the check-ins of those that sleep long,
//! `turns` keeps those who want the same node from getting in each other's way, and `reach` is the way to a node.

use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Instant;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::Wanted;
use crate::commissioning::driver::{Commissioner, Settings};
use crate::commissioning::radio::Radio;
use crate::config::Config;
use crate::matter::credentials::Credentials;
use crate::node::NodeId;
use crate::outbox::dispatcher::OutboxHandle;
use crate::store::{JournalHandle, Store};
use crate::telemetry::metrics::Metrics;

pub(crate) mod access;
pub(crate) mod bind;
pub(crate) mod binding;
pub(crate) mod clock;
pub(crate) mod commission;
pub(crate) mod controllers;
pub(crate) mod discover;
pub(crate) mod doctor;
pub(crate) mod doors;
pub(crate) mod health;
pub(crate) mod icd;
pub(crate) mod inventory;
pub(crate) mod keys;
pub(crate) mod label;
mod liveness;
pub(crate) mod log;
pub(crate) mod networks;
pub(crate) mod outbox;
pub(crate) mod preflight;
mod presence;
pub(crate) mod probe;
pub(crate) mod reach;
pub(crate) mod recovery;
pub(crate) mod refusal;
pub(crate) mod removal;
pub(crate) mod sharing;
pub(crate) mod status;
pub(crate) mod strangers;
pub(crate) mod succession;
pub(crate) mod sync;
pub(crate) mod trust;
pub(crate) mod turns;
pub(crate) mod world;

#[cfg(test)]
#[cfg(feature = "sim")]
pub(crate) mod tests;

use trust::judge::Judge;
use trust::{refresh, review};
use world::World;

/// What attempts are made with. They go on with what was in force when they began.
pub(crate) struct Commissioning<W: World>(pub(crate) RwLock<Arc<WorldCommissioner<W>>>);

type WorldCommissioner<W> = Commissioner<<W as World>::Link, <W as World>::Lan, Store, Judge>;

impl<W: World> Commissioning<W> {
    pub(super) fn get(&self) -> Arc<WorldCommissioner<W>> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn set(&self, access: Wanted) {
        let now = self.get();
        let settings = Settings { admin_cat: access.admin, grants: access.grants, ..now.settings.clone() };
        let next = Commissioner {
            link: Arc::clone(&now.link),
            discovery: Arc::clone(&now.discovery),
            store: Arc::clone(&now.store),
            judge: Arc::clone(&now.judge),
            radio: Arc::clone(&now.radio),
            networks: Arc::clone(&now.networks),
            place: Arc::clone(&now.place),
            preflight: now.preflight.clone(),
            predecessor: Arc::clone(&now.predecessor),
            journal: Arc::clone(&now.journal),
            together: now.together.clone(),
            settings,
            stop: now.stop.clone(),
        };
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
    }
}

/// The running daemon, as its own parts and the admin API see it.
pub(crate) struct Hub<W: World> {
    pub(crate) config: Config,
    pub(crate) store: Store,
    pub(crate) journal: JournalHandle,
    pub(crate) link: Arc<W::Link>,
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) lan: W::Lan,
    pub(crate) commissioner: Commissioning<W>,
    pub(crate) judge: Arc<Judge>,
    pub(crate) keys: keys::Keys,
    pub(crate) access: access::Access,
    pub(crate) labels: label::Labels,
    pub(crate) networks: Arc<networks::Networks>,
    pub(crate) radio: Arc<dyn Radio>,
    /// Where apps on the network find this hub; set once it listens there.
    pub(crate) front: OnceLock<controllers::Front>,
    pub(crate) reach: Arc<reach::Reach<W>>,
    pub(crate) removing: turns::Turns<NodeId>,
    pub(crate) checks: turns::Answers<NodeId, Result<inventory::NodeCheck, refusal::Refusal>>,
    pub(crate) attempts: commission::attempts::Attempts,
    pub(crate) interrupted: recovery::Interrupted,
    pub(crate) strangers: strangers::Strangers,
    pub(crate) cloud: Option<Arc<W::Cloud>>,
    pub(crate) outbox: Option<OutboxHandle>,
    pub(crate) clock: Arc<clock::Clock>,
    pub(crate) syncing: sync::Syncing,
    pub(crate) probes: probe::Probes<W>,
    pub(crate) icd: icd::Icd,
    pub(crate) health: health::Health,
    pub(crate) doctor: doctor::Doctor,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) started_at: Timestamp,
    pub(crate) stop: CancellationToken,
}

impl<W: World> Hub<W> {
    pub(crate) fn spawn_followers(self: &Arc<Self>, tasks: &TaskTracker, began: Instant) {
        tasks.spawn(clock::follow(Arc::clone(self), began));
        tasks.spawn(recovery::follow(Arc::clone(self)));
        tasks.spawn(presence::follow(Arc::clone(self)));
        tasks.spawn(access::follow(Arc::clone(self)));
        tasks.spawn(label::follow(Arc::clone(self)));
        tasks.spawn(controllers::follow(Arc::clone(self)));
        tasks.spawn(probe::watch(Arc::clone(self), began));
        tasks.spawn(icd::follow(Arc::clone(self)));
        tasks.spawn(reach::follow(Arc::clone(self)));
        tasks.spawn(sync::follow(Arc::clone(self)));
        tasks.spawn(refresh::follow(Arc::clone(self)));
        tasks.spawn(review::follow(Arc::clone(self), began));
        tasks.spawn(sync::follow_rejections(Arc::clone(self)));
        tasks.spawn(removal::follow_unbinds(Arc::clone(self)));
        tasks.spawn(health::follow(Arc::clone(self), began));
        tasks.spawn(doctor::follow(Arc::clone(self)));
        tasks.spawn(status::tell_service_manager(Arc::clone(self)));
    }
}
