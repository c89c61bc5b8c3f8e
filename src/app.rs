//! The composition root: configuration and the outside world in, a running daemon out; and its orderly end.
//!
//! `fabric` opens or makes the fabric, `profiles` reads what is configured of products. Not here: what the hub does (`hub`).
//! Nothing imports this module but the command line.

use std::sync::{Arc, OnceLock, RwLock};
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::{Base, Wanted};
use crate::admin::server::{AdminOptions, AdminServer};
use crate::commissioning::attempt::Limits;
use crate::commissioning::driver::{Commissioner, Settings};
use crate::commissioning::fingerprint::FingerprintKey;
use crate::commissioning::identity::Profile;
use crate::commissioning::network::HomeNetworks;
use crate::commissioning::path::Preparation;
use crate::commissioning::together::Together;
use crate::config::Config;
use crate::hub::bind::DeviceCodes;
use crate::hub::clock::Clock;
use crate::hub::commission::attempts::Attempts;
use crate::hub::networks::Networks;
use crate::hub::reach::Reach;
use crate::hub::succession::Predecessors;
use crate::hub::trust::judge::Judge;
use crate::hub::world::{HubLink, Outside, World};
use crate::hub::{
    Commissioning, Hub, access, doctor, health, icd, keys, label, preflight, probe, recovery, strangers, sync, turns,
};
use crate::journal::{Event, EventSink, Level};
use crate::matter::credentials::Credentials;
use crate::outbox::dispatcher::{DispatchOptions, Dispatcher};
use crate::plain;
use crate::store::{JournalFilter, JournalHandle, JournalLimits, Store};
use crate::systemd;
use crate::telemetry::metrics::Metrics;

pub(crate) mod fabric;
mod front;
mod profiles;
mod world;

/// The deadline of an orderly end: below the unit's TimeoutStopSec.
const DRAIN: Duration = Duration::from_secs(20);

/// Why the daemon could not start is in its log already.
#[derive(Debug, thiserror::Error)]
#[error("the daemon cannot start")]
pub(crate) struct StartFailed;

/// Runs the daemon until `stop`; after `hurry` its end waits for nobody.
///
/// # Errors
/// It cannot start: state that cannot be read, a socket in use, a secret that is missing. Nothing was changed then.
pub(crate) async fn run(config: Config, stop: CancellationToken, hurry: CancellationToken) -> anyhow::Result<()> {
    let began = std::time::Instant::now();
    let tasks = TaskTracker::new();
    // Before anything durable is touched: a second daemon must not get that far.
    let server = AdminServer::bind(AdminOptions::from_config(&config)?).await?;
    let store = Store::open(&config.state_dir)
        .with_context(|| format!("the state in {} cannot be used", config.state_dir.display()))?;
    let limits = JournalLimits { max_age: config.journal.max_age, max_bytes: config.journal.max_size.as_u64() };
    let journal = store.journal(limits).await;
    let built = async {
        let clock = Arc::new(Clock::open(&store).await?);
        let fabric = fabric::open(&config, &store, &journal, &clock).await?;
        let metrics = Arc::new(Metrics::default());
        let compressed_id = fabric.credentials.compressed_fabric_id();
        let (server, front) = front::open(&config, &store, compressed_id, server, (&tasks, &stop)).await?;
        let outside = world::open(&config, &store, &fabric.credentials, &metrics, &clock)?;
        let inside = Inside { store: store.clone(), journal: journal.clone(), clock, fabric, metrics };
        let hub = build(config, inside, outside, &tasks, &stop)?;
        if let Some(front) = front {
            // Nobody has set it before.
            let _ = hub.front.set(front);
        }
        anyhow::Ok((hub, server))
    };
    let (hub, server) = match built.await {
        Ok(built) => built,
        Err(error) => {
            // Whoever reads the admin log later must find out why the daemon was not there. That it was not there again and
            // again for the same reason must not push out what else happened.
            let message = plain::with_causes(error.as_ref());
            let last = journal.query(JournalFilter { limit: Some(1), ..JournalFilter::default() }).await;
            let told = last.is_ok_and(|last| last.iter().any(|e| e.kind == "start-failed" && e.message == message));
            let event = Event::new(Timestamp::now(), Level::Error, "start-failed", message);
            if told {
                journal.repeat(&event)
            } else {
                journal.record(event)
            }
            store.close().await;
            return Err(error.context(StartFailed));
        }
    };
    recovery::sort_interrupted(&hub).await;
    let serving = tokio::spawn(server.serve(Arc::clone(&hub), Arc::clone(&hub.metrics), stop.clone()));
    hub.spawn_followers(&tasks, began);
    let ended = tokio::select! {
        () = stop.cancelled() => Ok(()),
        what = hub.link.failed() => Err(anyhow::anyhow!("the Matter stack ended by itself: {what}")),
    };
    drain(&hub, serving, &tasks, &hurry).await;
    ended
}

/// What the hub is built of that is its own: its state, opened.
pub(crate) struct Inside {
    pub(crate) store: Store,
    pub(crate) journal: JournalHandle,
    pub(crate) clock: Arc<Clock>,
    pub(crate) fabric: fabric::Opened,
    pub(crate) metrics: Arc<Metrics>,
}

/// The hub in a world; starts the outbox. What else runs is begun by [`Hub::spawn_followers`].
///
/// # Errors
/// The configuration of products cannot be used.
pub(crate) fn build<W: World>(
    config: Config,
    inside: Inside,
    outside: Outside<W>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> anyhow::Result<Arc<Hub<W>>> {
    let Inside { store, journal, clock, fabric, metrics } = inside;
    let fabric::Opened { credentials, overlay, keystore, root_online } = fabric;
    let Outside { link, lan, radio, cloud } = outside;
    let hub_cats = credentials.bundle().hub_cats.clone();
    let profiles = profiles::from_config(&config.products)?;
    let judge = Arc::new(Judge::load(&config, journal.clone(), Arc::clone(&clock)));
    let base = Base { admin: config.access.admin_cat, grants: &config.access.grants };
    let settings = settings(&config, &credentials, profiles.clone(), overlay.wanted(base, None));
    let asked = config.cloud.as_ref().map(|cloud| cloud.before_commissioning).zip(cloud.as_ref());
    let reach = Arc::new(Reach::new(Arc::clone(&link), lan.clone(), credentials.compressed_fabric_id()));
    let predecessors = Predecessors { store: store.clone(), reach: Arc::clone(&reach), journal: journal.clone() };
    let networks = Arc::new(Networks::new(store.clone(), config.networks.clone()));
    let commissioner = Commissioner {
        link: Arc::clone(&link),
        discovery: Arc::new(lan.clone()),
        store: Arc::new(store.clone()),
        judge: Arc::clone(&judge),
        predecessor: predecessors.finder(),
        radio: Arc::clone(&radio),
        networks: Arc::clone(&networks) as Arc<dyn HomeNetworks>,
        place: place(&config, &clock),
        preflight: asked.and_then(|(policy, cloud)| preflight::preflight(policy, cloud)),
        journal: Arc::new(journal.clone()),
        together: Together::default(),
        settings,
        stop: stop.clone(),
    };
    let outbox = cloud.as_ref().map(|client| {
        let codes = DeviceCodes { store: store.clone(), reach: Arc::clone(&reach), profiles };
        let options = DispatchOptions { seed: rand::random(), ..DispatchOptions::default() };
        let (dispatcher, handle) = Dispatcher::new(
            Arc::new(store.clone()),
            Arc::clone(client),
            Arc::new(codes),
            Arc::new(journal.clone()),
            Arc::new(Timestamp::now),
            options,
        );
        let token = stop.clone();
        tasks.spawn(async move {
            if let Err(error) = dispatcher.run(token.child_token()).await {
                tracing::error!(%error, "the outbox has stopped: the store cannot be used");
            }
        });
        handle
    });
    Ok(Arc::new(Hub {
        attempts: Attempts::new(config.commissioning.max_concurrent),
        config,
        store,
        journal,
        link,
        credentials,
        lan,
        commissioner: Commissioning(RwLock::new(Arc::new(commissioner))),
        judge,
        keys: keys::Keys::new(keystore, root_online),
        access: access::Access::new(overlay, hub_cats),
        labels: label::Labels::default(),
        networks,
        radio,
        front: OnceLock::new(),
        reach,
        removing: turns::Turns::default(),
        checks: turns::Answers::default(),
        interrupted: recovery::Interrupted::default(),
        strangers: strangers::Strangers::default(),
        cloud,
        outbox,
        clock,
        syncing: sync::Syncing::default(),
        probes: probe::Probes::default(),
        icd: icd::Icd::default(),
        health: health::Health::default(),
        doctor: doctor::Doctor::default(),
        metrics,
        started_at: Timestamp::now(),
        stop: stop.clone(),
    }))
}

fn settings(config: &Config, credentials: &Credentials, profiles: Vec<Profile>, access: Wanted) -> Settings {
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let home = config.cloud.as_ref().map(|cloud| (given(&cloud.family_id), given(&cloud.room_id)));
    Settings {
        limits: Limits {
            attempt: config.commissioning.deadline,
            discover: config.commissioning.discover_timeout,
            step: config.commissioning.step_timeout,
            fail_safe: config.commissioning.fail_safe,
        },
        fabric_id: credentials.bundle().fabric_id,
        compressed_fabric_id: credentials.compressed_fabric_id(),
        label: config.fabric.label.clone(),
        admin_cat: access.admin,
        grants: access.grants,
        profiles,
        fingerprints: FingerprintKey::new(credentials.bundle().ipk.expose()),
        cloud: config.cloud.is_some(),
        home: home.unwrap_or_default(),
    }
}

/// Where the hub is, and what time it is there, as far as it can be believed.
fn place(config: &Config, clock: &Arc<Clock>) -> Arc<dyn Fn() -> Preparation + Send + Sync> {
    let (country, clock) = (config.commissioning.country.clone(), Arc::clone(clock));
    Arc::new(move || {
        let time = clock.believed().map(|now| (now, jiff::tz::TimeZone::system()));
        let country = (!country.is_empty()).then(|| country.clone());
        Preparation { country, time, terms: None }
    })
}

/// Attempts end their step and expire their fail-safe, the outbox ends its calls, then the stack and the store close.
async fn drain<W: World>(
    hub: &Hub<W>,
    serving: tokio::task::JoinHandle<()>,
    tasks: &TaskTracker,
    hurry: &CancellationToken,
) {
    systemd::stopping();
    hub.stop.cancel();
    tasks.close();
    let orderly = async {
        let served = serving.await;
        tasks.wait().await;
        served
    };
    tokio::select! {
        served = orderly => if let Err(error) = served {
            tracing::error!(%error, "the admin API panicked");
        },
        () = tokio::time::sleep(DRAIN) => {
            tracing::warn!("stopping took too long; what is not settled is resumed at the next start");
        }
        () = hurry.cancelled() => {
            tracing::warn!("asked to hurry; what is not settled is resumed at the next start");
        }
    }
    hub.journal.record(Event::new(Timestamp::now(), Level::Info, "daemon-stopped", "stopped"));
    hub.link.stop().await;
    hub.store.close().await;
}
