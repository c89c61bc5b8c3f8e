//! The one task that owns mdns-sd: it feeds the cache with what is heard and asks when the schedule says so.
//!
//! mdns-sd runs its own thread for the sockets. This task ends when the last [`super::LanDiscovery`] is dropped, and takes
//! that thread with it. Cancelling is safe at any await: everything it knows is in the shared cache.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mdns_sd::{IfKind, IfPredicate, Receiver, ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::address::{LocalPrefix, rank};
use super::cache::{Kind, RECONFIRM_WITHIN, Seen};
use super::interfaces::{local_prefixes, takes_part};
use super::schedule::Schedule;
use super::txt::{parse_commissionable, parse_operational_instance};
use crate::config::NetworkConfig;
use crate::node::{CommissionableNode, OperationalNode, ScopedAddress};

/// How soon mdns-sd notices an interface or address that came up, seconds.
const INTERFACE_CHECK_S: u32 = 2;
/// The records of one node come in one packet or shortly after each other; later, one of them was lost.
const INCOMPLETE_AFTER: Duration = Duration::from_millis(300);
/// An instance that stays incomplete through this many restarts is broken, not unlucky.
const MAX_RESTARTS: u8 = 3;
/// Bounds what a flood of incomplete instances can make us remember.
const MAX_INCOMPLETE: usize = 256;
/// Two restarts of one service type are at least this far apart.
const RESTART_GAP: Duration = Duration::from_secs(2);

/// See the module.
pub struct Actor {
    mdns: ServiceDaemon,
    shared: Arc<Shared>,
    browses: [Browse; 2],
    schedule: Schedule,
}

/// The browse of one service type.
struct Browse {
    kind: Kind,
    /// Opening a browse again gives a new channel; the old one is read to its end first, so that order is kept.
    channels: VecDeque<Receiver<ServiceEvent>>,
    /// Instances that were named but not resolved: since when, and after how many restarts.
    incomplete: HashMap<String, (Instant, u8)>,
    restarted: Option<Instant>,
}

impl Kind {
    fn service_type(self) -> &'static str {
        match self {
            Self::Commissionable => "_matterc._udp.local.",
            Self::Operational => "_matter._tcp.local.",
        }
    }
}

impl Actor {
    /// Starts mdns-sd in the calling thread's network namespace.
    pub fn start(config: &NetworkConfig, shared: Arc<Shared>) -> Result<Self, mdns_sd::Error> {
        let mdns = ServiceDaemon::new()?;
        mdns.disable_interface(IfKind::All)?;
        let config = config.clone();
        mdns.enable_interface(IfKind::Predicate(IfPredicate::new(move |interface| takes_part(&config, interface))))?;
        mdns.set_ip_check_interval(INTERFACE_CHECK_S)?;
        let browses = [Browse::new(Kind::Commissionable), Browse::new(Kind::Operational)];
        let mut actor = Self { mdns, shared, browses, schedule: Schedule::new(Instant::now()) };
        actor.ask();
        Ok(actor)
    }

    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let [commissionable, operational] = &mut self.browses;
            tokio::select! {
                () = stop.cancelled() => break,
                event = commissionable.next() => self.handle_event(Kind::Commissionable, event),
                event = operational.next() => self.handle_event(Kind::Operational, event),
                () = self.shared.search_began.notified() => self.schedule.handle_search(Instant::now()),
                () = tokio::time::sleep_until(self.schedule.next().into()) => self.ask(),
            }
        }
        // The answer would tell when the thread has ended; nothing waits for that.
        let _ = self.mdns.shutdown();
    }

    /// One query round for both service types on every interface.
    fn ask(&mut self) {
        let now = Instant::now();
        let events = self.shared.cache().handle_timeout(now);
        for index in 0..self.browses.len() {
            if let Err(error) = self.browse(index, now) {
                self.handle_failure(&error, now);
                return;
            }
        }
        self.shared.cache().handle_query(now);
        let unfinished = self.shared.cache().has_unconfirmed() || self.browses.iter().any(Browse::may_complete);
        let waiting = self.shared.waiting.load(Ordering::Relaxed) > 0;
        self.schedule.handle_round(now, waiting || unfinished);
        if self.shared.check_running().is_err() {
            tracing::info!("discovery runs again");
            self.shared.set_failure(None);
        }
        self.shared.announce(events);
    }

    fn browse(&mut self, index: usize, now: Instant) -> Result<(), mdns_sd::Error> {
        let browse = &mut self.browses[index];
        let service_type = browse.kind.service_type();
        if browse.needs_restart(now) {
            tracing::debug!(service_type, "records of a node are missing, asking without known answers");
            self.mdns.stop_browse(service_type)?;
            browse.handle_restart(now);
            self.shared.cache().handle_restart(browse.kind, now);
        }
        browse.channels.push_back(self.mdns.browse(service_type)?);
        Ok(())
    }

    fn handle_failure(&mut self, error: &mdns_sd::Error, now: Instant) {
        // `Again`: its command queue is full for a moment.
        if !matches!(error, mdns_sd::Error::Again) {
            tracing::error!(%error, "discovery has stopped; it is tried again with the next search");
            self.shared.set_failure(Some(error.to_string()));
        }
        self.schedule.handle_round(now, true);
    }

    fn handle_event(&mut self, kind: Kind, event: Option<ServiceEvent>) {
        let now = Instant::now();
        let Some(event) = event else {
            tracing::debug!(service_type = kind.service_type(), "the browse ended by itself, opening it again");
            self.schedule.handle_search(now);
            return;
        };
        let browse = self.browses.iter_mut().find(|browse| browse.kind == kind).expect("both kinds are browsed");
        let events = match event {
            ServiceEvent::ServiceFound(_, fullname) => {
                browse.handle_found(fullname, now);
                // Whatever is missing should come at once; if it does not, the next round must not be a minute away.
                if browse.may_complete() && self.schedule.next() > now + INCOMPLETE_AFTER {
                    self.schedule.handle_incomplete(now + INCOMPLETE_AFTER);
                }
                return;
            }
            ServiceEvent::ServiceResolved(service) => {
                let Some(seen) = understand(kind, &service, &local_prefixes()) else { return };
                browse.incomplete.remove(&service.fullname);
                self.shared.cache().handle_sighting(seen, now)
            }
            ServiceEvent::ServiceRemoved(_, fullname) => {
                browse.incomplete.remove(&fullname);
                let instance = instance_of(kind, &fullname);
                let mut cache = self.shared.cache();
                let gone = match kind {
                    Kind::Commissionable => cache.handle_commissionable_gone(instance),
                    Kind::Operational => parse_operational_instance(instance)
                        .and_then(|(fabric, node)| cache.handle_operational_gone(fabric, node)),
                };
                gone.into_iter().collect()
            }
            _ => return,
        };
        if !events.is_empty() {
            self.shared.announce(events);
        }
    }
}

impl Browse {
    fn new(kind: Kind) -> Self {
        Self { kind, channels: VecDeque::new(), incomplete: HashMap::new(), restarted: None }
    }

    /// The next event; `None` where the newest channel has ended. Safe to cancel.
    async fn next(&mut self) -> Option<ServiceEvent> {
        loop {
            // Without a channel there is nothing before the next round.
            let Some(channel) = self.channels.front() else { return std::future::pending().await };
            match channel.recv_async().await {
                Ok(event) => return Some(event),
                Err(_) => {
                    self.channels.pop_front();
                    if self.channels.is_empty() {
                        return None;
                    }
                }
            }
        }
    }

    fn handle_found(&mut self, fullname: String, now: Instant) {
        if self.incomplete.len() < MAX_INCOMPLETE {
            self.incomplete.entry(fullname).or_insert((now, 0));
        }
    }

    fn needs_restart(&self, now: Instant) -> bool {
        let overdue = |(since, restarts): &(Instant, u8)| now >= *since + INCOMPLETE_AFTER && *restarts < MAX_RESTARTS;
        self.restarted.is_none_or(|last| now >= last + RESTART_GAP) && self.incomplete.values().any(overdue)
    }

    fn handle_restart(&mut self, now: Instant) {
        self.restarted = Some(now);
        // What is beyond help is forgotten after a while, so that a repaired device gets its chance.
        self.incomplete.retain(|_, (since, restarts)| *restarts < MAX_RESTARTS || now < *since + RECONFIRM_WITHIN * 60);
        for (_, restarts) in self.incomplete.values_mut() {
            *restarts = restarts.saturating_add(1);
        }
    }

    fn may_complete(&self) -> bool {
        self.incomplete.values().any(|(_, restarts)| *restarts < MAX_RESTARTS)
    }
}

/// What a resolved service is to Matter; `None` where it is incomplete or none of ours.
fn understand(kind: Kind, service: &ResolvedService, local: &[LocalPrefix]) -> Option<Seen> {
    let addresses = rank(service.addresses.iter().flat_map(scoped).collect(), local);
    if addresses.is_empty() || service.port == 0 {
        return None;
    }
    let instance = instance_of(kind, &service.fullname);
    let port = service.port;
    match kind {
        Kind::Commissionable => {
            let txt = parse_commissionable(service.txt_properties.iter().map(|item| (item.key(), item.val())))?;
            Some(Seen::Commissionable(CommissionableNode { instance: instance.to_owned(), addresses, port, txt }))
        }
        Kind::Operational => {
            let (compressed_fabric_id, node_id) = parse_operational_instance(instance)?;
            Some(Seen::Operational(OperationalNode { compressed_fabric_id, node_id, addresses, port }))
        }
    }
}

fn scoped(address: &ScopedIp) -> Vec<ScopedAddress> {
    let on = |interface: &mdns_sd::InterfaceId| Some((interface.name.clone(), interface.index));
    match address {
        // An IPv4 address needs no interface to be sent to; the first one says where it was seen.
        ScopedIp::V4(v4) => {
            vec![ScopedAddress { ip: (*v4.addr()).into(), scope: v4.interface_ids().first().and_then(on) }]
        }
        ScopedIp::V6(v6) => vec![ScopedAddress { ip: (*v6.addr()).into(), scope: on(v6.scope_id()) }],
        _ => Vec::new(),
    }
}

fn instance_of(kind: Kind, fullname: &str) -> &str {
    let suffix = kind.service_type().len() + 1;
    fullname.len().checked_sub(suffix).and_then(|end| fullname.get(..end)).unwrap_or(fullname)
}
