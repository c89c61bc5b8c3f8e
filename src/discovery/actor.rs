//! The one task that owns mdns-sd: it feeds the cache with what is heard and asks when the schedule says so.
//!
//! mdns-sd runs its own thread for the sockets. This task ends when the last [`super::LanDiscovery`] is dropped, and takes
//! that thread with it. Cancelling is safe at any await: everything it knows is in the shared cache.

use std::future::{pending, poll_fn};
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use mdns_sd::{
    DaemonStatus, IfKind, IfPredicate, ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent, VERIFY_TIMEOUT_DEFAULT,
};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;

use super::address::{LocalPrefix, rank};
use super::browse::Browse;
use super::cache::{Kind, Seen};
use super::changes::Changes;
use super::guard::{Guard, MAX_UNRESOLVED};
use super::interfaces::takes_part;
use super::own::Own;
use super::schedule::Schedule;
use super::txt::{is_commissionable_instance, parse_commissionable, parse_operational, parse_operational_instance};
use super::{Command, Shared};
use crate::config::NetworkConfig;
use crate::node::{CommissionableNode, OperationalNode, ScopedAddress};
use crate::onboarding::Discriminator;

/// How soon mdns-sd notices an interface or address that came up, seconds: where the kernel does not tell of it.
const CHECK_BLINDLY_S: u32 = 2;
/// For a while after it has told of one; more may follow, and an address is not ready at once.
const CHECK_AFTER_CHANGE_S: u32 = 1;
const CHECKED_FOR: Duration = Duration::from_secs(10);
const CHECK_S: u32 = 60;
/// Two restarts of one service type are at least this far apart.
const RESTART_GAP: Duration = Duration::from_secs(2);
/// Subtypes stay open after their search, so that mdns-sd goes on watching what it found; the oldest goes for a new one.
const MAX_SUBTYPES: usize = 64;
/// So many events are taken from mdns-sd's channels before anything else is done: as many as two of them hold.
const DRAIN: usize = 2000;

/// See the module.
pub(crate) struct Actor {
    mdns: ServiceDaemon,
    guards: [Guard; 2],
    /// `None` where the kernel does not tell of changes.
    changes: Option<Changes>,
    /// Until then mdns-sd looks often.
    checked_until: Option<Instant>,
    own: Option<Own>,
    shared: Arc<Shared>,
    /// The two service types first, then the subtypes in the order of their first search.
    browses: Vec<Browse>,
    restarted: [Option<Instant>; 2],
    schedule: Schedule,
}

impl Actor {
    /// Starts mdns-sd in the calling thread's network namespace.
    pub(crate) fn start(shared: Arc<Shared>) -> Result<Self, mdns_sd::Error> {
        let changes = Changes::open().inspect_err(|error| {
            tracing::info!(%error, "the system does not tell of interfaces that come and go; they are looked for");
        });
        let changes = changes.ok();
        shared.interfaces.handle_told(changes.is_some());
        let mdns = open(shared.interfaces.config(), check_interval(changes.as_ref(), None))?;
        let kinds = [Kind::Commissionable, Kind::Operational];
        let browses = kinds.map(|kind| Browse::new(kind, kind.service_type().to_owned())).into();
        Ok(Self {
            mdns,
            guards: Default::default(),
            changes,
            checked_until: None,
            own: None,
            shared,
            browses,
            restarted: [None; 2],
            schedule: Schedule::new(Instant::now()),
        })
    }

    /// Runs until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken, mut commands: UnboundedReceiver<Command>) {
        loop {
            let due = self.due();
            let browses = &mut self.browses;
            let heard = poll_fn(|context| {
                let mut ready =
                    browses.iter_mut().enumerate().map(|(index, browse)| match browse.poll_event(context) {
                        Poll::Ready(event) => Poll::Ready((index, event)),
                        Poll::Pending => Poll::Pending,
                    });
                ready.find(Poll::is_ready).unwrap_or(Poll::Pending)
            });
            tokio::select! {
                () = stop.cancelled() => break,
                (index, event) = heard => {
                    self.handle_event(index, event);
                    self.drain();
                }
                Some(command) = commands.recv() => self.handle_command(command),
                () = self.shared.search_began.notified() => self.handle_search(Instant::now()),
                () = tokio::time::sleep_until(due.into()) => self.ask(),
                told = changed(self.changes.as_ref()) => self.handle_change(told, Instant::now()),
                () = until(self.checked_until) => self.check_interfaces(None),
            }
        }
        // The answer would tell when the thread has ended; nothing waits for that.
        let _ = self.mdns.shutdown();
    }

    fn handle_search(&mut self, now: Instant) {
        let searched = self.shared.searched();
        let discriminators = searched.iter().filter_map(|(kind, subtype)| discriminator(*kind, subtype)).collect();
        self.shared.cache().handle_searches(discriminators);
        self.schedule.handle_search(now);
    }

    /// Takes what else has been heard, so that no channel runs over.
    fn drain(&mut self) {
        for _ in 0..DRAIN {
            let mut context = Context::from_waker(Waker::noop());
            let mut browses = self.browses.iter_mut().enumerate();
            let next = browses.find_map(|(index, browse)| match browse.poll_event(&mut context) {
                Poll::Ready(event) => Some((index, event)),
                Poll::Pending => None,
            });
            let Some((index, event)) = next else { return };
            self.handle_event(index, event);
        }
    }

    /// Somebody announces more than a home has to say. A new mdns-sd has neither the records nor the questions about them; the
    /// service type that was flooded is left alone for a while, the other one and searches for one device go on.
    fn handle_overflow(&mut self, kind: Kind, now: Instant) {
        self.guards[kind as usize].handle_overflow(now);
        tracing::warn!(
            service_type = kind.service_type(),
            "more is announced on the network than a home has to say; it is dropped, and devices are asked again shortly"
        );
        self.renew(now);
    }

    fn renew(&mut self, now: Instant) {
        // The answer would tell when the thread has ended; nothing waits for that.
        let _ = self.mdns.shutdown();
        match open(self.shared.interfaces.config(), self.check_interval()) {
            Ok(mdns) => self.mdns = mdns,
            // The next round fails and tries again.
            Err(error) => tracing::warn!(%error, "mDNS cannot be started anew"),
        }
        self.announce_own();
        self.browses.truncate(2);
        self.browses.iter_mut().for_each(Browse::handle_new_daemon);
        self.guards.iter_mut().for_each(Guard::handle_restart);
        for kind in [Kind::Commissionable, Kind::Operational] {
            if self.guards[kind as usize].reopens_at().is_none() {
                self.shared.cache().handle_restart(kind, now);
            }
        }
        self.schedule.handle_search(now);
    }

    /// The kernel told of an interface or an address, or tells nothing any more.
    fn handle_change(&mut self, told: io::Result<()>, now: Instant) {
        match told {
            Ok(()) => self.shared.interfaces.handle_change(),
            Err(error) => {
                tracing::warn!(%error, "the system tells no more of interfaces that come and go; they are looked for");
                self.changes = None;
                self.shared.interfaces.handle_told(false);
            }
        }
        self.check_interfaces(Some(now + CHECKED_FOR));
    }

    /// Has mdns-sd look often until then.
    fn check_interfaces(&mut self, until: Option<Instant>) {
        let changes_pace = until.is_some() != self.checked_until.is_some();
        self.checked_until = until;
        // One that does not take it has ended, or has too much to do: the next round tells.
        if changes_pace && let Err(error) = self.mdns.set_ip_check_interval(self.check_interval()) {
            tracing::debug!(%error, "mDNS was not told how often to look at the interfaces");
        }
    }

    fn check_interval(&self) -> u32 {
        check_interval(self.changes.as_ref(), self.checked_until)
    }

    fn announce_own(&self) {
        let Some(own) = &self.own else { return };
        if let Err(error) = own.announce(&self.mdns) {
            tracing::warn!(%error, "the hub is not announced: devices that sleep do not find it when they wake");
        }
    }

    fn handle_command(&mut self, command: Command) {
        match command {
            Command::Announce(name, port) => {
                if self.own.is_none() {
                    self.own = Some(Own::new(name, port));
                    self.announce_own();
                }
            }
            Command::Confirm(kind, instance) => {
                let now = Instant::now();
                self.shared.cache().handle_confirm(kind, &instance, now);
                self.schedule.handle_search(now);
                let instance = format!("{instance}.{}", kind.service_type());
                if let Err(error) = self.mdns.verify(instance, VERIFY_TIMEOUT_DEFAULT) {
                    // Whoever doubts asks again.
                    tracing::debug!(%error, "the records of a node cannot be confirmed now");
                }
            }
            Command::Ping(answer) => match self.mdns.status() {
                Ok(status) => {
                    tokio::spawn(async move {
                        if let Ok(DaemonStatus::Running) = status.recv_async().await {
                            // Whoever asked may have gone.
                            let _ = answer.send(());
                        }
                    });
                }
                Err(error) => tracing::debug!(%error, "mDNS does not take a question"),
            },
        }
    }

    /// When to ask next: as scheduled, or sooner where records of a node were lost.
    fn due(&self) -> Instant {
        let restart = |browse: &Browse| {
            let gap = self.restarted[browse.kind as usize].map(|last| last + RESTART_GAP);
            browse.overdue_at().map(|overdue| gap.map_or(overdue, |gap| gap.max(overdue)))
        };
        let reopening = self.guards.iter().filter_map(Guard::reopens_at);
        self.browses.iter().filter_map(restart).chain(reopening).fold(self.schedule.next(), Instant::min)
    }

    /// One query round on every interface: both service types, and the subtypes that somebody searches.
    fn ask(&mut self) {
        let now = Instant::now();
        let events = self.shared.cache().handle_timeout(now);
        let searched = self.shared.searched();
        if let Err(error) = self.query(&searched, now) {
            self.handle_failure(&error, now);
            return;
        }
        let unfinished = {
            let mut cache = self.shared.cache();
            cache.handle_query(now);
            cache.has_unconfirmed()
        };
        self.schedule.handle_round(now, self.shared.somebody_waits() || unfinished);
        if self.shared.check_running().is_err() {
            tracing::info!("discovery runs again");
            self.shared.set_failure(None);
        }
        self.shared.announce(events);
    }

    fn query(&mut self, searched: &[(Kind, String)], now: Instant) -> Result<(), mdns_sd::Error> {
        for (kind, subtype) in searched {
            self.open_subtype(*kind, subtype, now)?;
        }
        let restarting = [Kind::Commissionable, Kind::Operational].map(|kind| self.needs_restart(kind, now));
        for (kind, restart) in [Kind::Commissionable, Kind::Operational].into_iter().zip(restarting) {
            if restart {
                self.restart(kind, now)?;
            }
        }
        let mut closed = [false; 2];
        for kind in [Kind::Commissionable, Kind::Operational] {
            match self.guards[kind as usize].poll_closed(now) {
                Some(true) => self.shared.cache().handle_restart(kind, now),
                Some(false) => closed[kind as usize] = true,
                None => {}
            }
        }
        for (index, browse) in self.browses.iter_mut().enumerate() {
            if index < 2 && closed[browse.kind as usize] {
                continue;
            }
            let wanted = searched.iter().any(|(_, subtype)| *subtype == browse.service_type);
            if index < 2 || wanted || restarting[browse.kind as usize] {
                // Asking by browsing again: it replays what is known and sends a query.
                browse.push(self.mdns.browse(&browse.service_type)?);
            }
        }
        Ok(())
    }

    fn open_subtype(&mut self, kind: Kind, subtype: &str, now: Instant) -> Result<(), mdns_sd::Error> {
        if self.browses.iter().any(|browse| browse.service_type == subtype) {
            return Ok(());
        }
        if self.browses.len() >= 2 + MAX_SUBTYPES {
            let oldest = self.browses.remove(2);
            self.mdns.stop_browse(&oldest.service_type)?;
            // That dropped the records of the nodes found by it; whoever is still there answers the next query.
            self.shared.cache().handle_restart(oldest.kind, now);
        }
        self.browses.push(Browse::new(kind, subtype.to_owned()));
        Ok(())
    }

    fn needs_restart(&self, kind: Kind, now: Instant) -> bool {
        self.restarted[kind as usize].is_none_or(|last| now >= last + RESTART_GAP)
            && self.browses.iter().any(|browse| browse.kind == kind && browse.overdue_at().is_some_and(|at| now >= at))
    }

    /// Drops the record cache of a service type, so that the next query carries no known answers.
    fn restart(&mut self, kind: Kind, now: Instant) -> Result<(), mdns_sd::Error> {
        tracing::debug!(service_type = kind.service_type(), "records of a node are missing, asking for all of them");
        self.guards[kind as usize].handle_restart();
        for browse in self.browses.iter_mut().filter(|browse| browse.kind == kind) {
            self.mdns.stop_browse(&browse.service_type)?;
            browse.handle_restart(now);
        }
        self.restarted[kind as usize] = Some(now);
        self.shared.cache().handle_restart(kind, now);
        Ok(())
    }

    fn handle_failure(&mut self, error: &mdns_sd::Error, now: Instant) {
        // `Again`: its command queue is full for a moment.
        if !matches!(error, mdns_sd::Error::Again) && self.shared.check_running().is_ok() {
            tracing::error!(%error, "discovery has stopped; restart the daemon if it does not come back");
            self.shared.set_failure(Some(error.to_string()));
        }
        if !matches!(error, mdns_sd::Error::Again) {
            self.renew(now);
        }
        self.schedule.handle_round(now, true);
    }

    fn handle_event(&mut self, index: usize, event: Option<ServiceEvent>) {
        let now = Instant::now();
        let browse = &mut self.browses[index];
        let kind = browse.kind;
        let events = match event {
            None => {
                tracing::debug!(browse.service_type, "the browse has ended by itself");
                self.handle_overflow(kind, now);
                return;
            }
            Some(ServiceEvent::ServiceFound(_, fullname)) => {
                browse.handle_found(&fullname, now);
                let empty = browse.unresolved() > MAX_UNRESOLVED;
                if self.guards[kind as usize].handle_found(&fullname) || empty {
                    self.handle_overflow(kind, now);
                }
                return;
            }
            Some(ServiceEvent::ServiceResolved(service)) => {
                let instance = instance_of(kind, &service.fullname);
                if self.own.as_ref().is_some_and(|own| own.is(instance)) {
                    self.handle_settled(kind, &service.fullname);
                    return;
                }
                let Some(seen) = understand(kind, &service, &self.shared.interfaces.get(now).prefixes) else { return };
                self.handle_settled(kind, &service.fullname);
                self.shared.cache().handle_sighting(seen, now)
            }
            Some(ServiceEvent::ServiceRemoved(_, fullname)) => {
                self.handle_settled(kind, &fullname);
                self.guards[kind as usize].handle_gone(&fullname);
                let instance = instance_of(kind, &fullname);
                let mut cache = self.shared.cache();
                let gone = match kind {
                    Kind::Commissionable => cache.handle_commissionable_gone(instance, now),
                    Kind::Operational => parse_operational_instance(instance)
                        .and_then(|(fabric, node)| cache.handle_operational_gone(fabric, node)),
                };
                gone.into_iter().collect()
            }
            Some(_) => return,
        };
        if !events.is_empty() {
            self.shared.announce(events);
        }
    }

    fn handle_settled(&mut self, kind: Kind, fullname: &str) {
        for browse in self.browses.iter_mut().filter(|browse| browse.kind == kind) {
            browse.handle_settled(fullname);
        }
    }
}

/// How often mdns-sd is to look at the interfaces, seconds.
fn check_interval(changes: Option<&Changes>, checked_until: Option<Instant>) -> u32 {
    match (changes, checked_until) {
        (_, Some(_)) => CHECK_AFTER_CHANGE_S,
        (Some(_), None) => CHECK_S,
        (None, None) => CHECK_BLINDLY_S,
    }
}

/// Comes back when the kernel tells of a change; never where it does not.
async fn changed(changes: Option<&Changes>) -> io::Result<()> {
    match changes {
        Some(changes) => changes.next().await,
        None => pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => pending().await,
    }
}

/// mdns-sd in the calling thread's network namespace, on the configured interfaces, which it looks at every `check_s` seconds.
fn open(config: &NetworkConfig, check_s: u32) -> Result<ServiceDaemon, mdns_sd::Error> {
    let mdns = ServiceDaemon::new()?;
    mdns.disable_interface(IfKind::All)?;
    let config = config.clone();
    mdns.enable_interface(IfKind::Predicate(IfPredicate::new(move |interface| takes_part(&config, interface))))?;
    mdns.set_ip_check_interval(check_s)?;
    Ok(mdns)
}

/// The discriminator that a subtype stands for (Matter Core 4.3.1.3).
fn discriminator(kind: Kind, subtype: &str) -> Option<Discriminator> {
    let (label, _) = subtype.split_once('.')?;
    match (kind, label.split_at_checked(2)?) {
        (Kind::Commissionable, ("_L", long)) => long.parse().ok().map(Discriminator::Long),
        (Kind::Commissionable, ("_S", short)) => short.parse().ok().map(Discriminator::Short),
        (Kind::Commissionable | Kind::Operational, _) => None,
    }
}

/// What a resolved service is to Matter; `None` where it is incomplete or none of ours.
pub(super) fn understand(kind: Kind, service: &ResolvedService, local: &[LocalPrefix]) -> Option<Seen> {
    let addresses = rank(service.addresses.iter().filter_map(scoped).collect(), local);
    if addresses.is_empty() || service.port == 0 {
        return None;
    }
    let instance = instance_of(kind, &service.fullname);
    let port = service.port;
    let properties = service.txt_properties.iter().map(|item| (item.key(), item.val()));
    match kind {
        Kind::Commissionable if !is_commissionable_instance(instance) => None,
        Kind::Commissionable => {
            let txt = parse_commissionable(properties)?;
            Some(Seen::Commissionable(CommissionableNode { instance: instance.to_owned(), addresses, port, txt }))
        }
        Kind::Operational => {
            let (compressed_fabric_id, node_id) = parse_operational_instance(instance)?;
            let txt = parse_operational(properties);
            Some(Seen::Operational(OperationalNode { compressed_fabric_id, node_id, addresses, port, txt }))
        }
    }
}

fn scoped(address: &ScopedIp) -> Option<ScopedAddress> {
    let on = |interface: &mdns_sd::InterfaceId| Some((interface.name.clone(), interface.index));
    match address {
        // An IPv4 address needs no interface to be sent to; the first one says where it was seen.
        ScopedIp::V4(v4) => {
            Some(ScopedAddress { ip: (*v4.addr()).into(), scope: v4.interface_ids().first().and_then(on) })
        }
        ScopedIp::V6(v6) => Some(ScopedAddress { ip: (*v6.addr()).into(), scope: on(v6.scope_id()) }),
        _ => None,
    }
}

fn instance_of(kind: Kind, fullname: &str) -> &str {
    let suffix = kind.service_type().len() + 1;
    fullname.len().checked_sub(suffix).and_then(|end| fullname.get(..end)).unwrap_or(fullname)
}
