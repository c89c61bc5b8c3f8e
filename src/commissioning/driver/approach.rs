//! Finds the device that a code is for and proves the passcode to it: every device that fits is tried in turn, as
//! `candidates` decides. Not here: what an attempt that broke off has left (`leftover`), what is done with the device then (`driver`).

use std::future::pending;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::known::{Known, LOOKS_LIKE_OURS, Ours};
use super::leftover::went_on;
use super::run::{Run, now};
use super::{Commissioner, Order, Progress, Reached};
use crate::commissioning::attempt::DeviceEvent;
use crate::commissioning::candidates::{Candidate, Ending, Fruitless, Next, Search};
use crate::commissioning::error::CommissioningError;
use crate::commissioning::ports::{
    AttestationJudge, CandidateSearch, DiscoverError, Discovery, LinkError, MatterLink, NoAnswer, NodeStore,
};
use crate::commissioning::radio::{BluetoothUnavailable, Looking};
use crate::commissioning::step::Step;
use crate::commissioning::together::Claimed;
use crate::node::{Announced, BluetoothNode, CommissionableNode, CommissionableTxt, Peer, ScopedAddress};
use crate::onboarding::{Discriminator, OnboardingPayload};

/// How long a device that announces its commissioning window may refuse in one try.
const WINDOW_OPENS: Duration = Duration::from_secs(1);
/// How often it is asked then.
const WINDOW_POLL: Duration = Duration::from_millis(300);
/// How long the announcement of a device that was found by its address is waited for.
const HEARD: Duration = Duration::from_secs(2);
/// What a try must leave of its step, so that its own answer comes before the step's deadline.
const MARGIN: Duration = Duration::from_millis(500);
/// What a handshake is given to come to its end, where the attempt has failed without it.
const HANDSHAKE_ENDS: Duration = Duration::from_secs(2);

/// The attempt's turn: as many devices as configured are worked on at once. Asked for when there is a device to work on, so that
/// nobody who searches holds up the others.
pub(crate) type Turn<'a> = BoxFuture<'a, Result<OwnedSemaphorePermit, CommissioningError>>;

/// A device as it was found.
pub(super) struct Found {
    pub(super) node: Announced,
    /// All twelve bits of its discriminator, where somebody told them.
    pub(super) discriminator: Option<u16>,
}

/// A device that took the passcode.
pub(super) struct Met<P> {
    pub(super) found: Found,
    pub(super) pase: P,
    pub(super) hold: Hold,
}

/// What an attempt holds while it works on a device: until it has ended, its rollback included.
pub(super) struct Hold {
    _claimed: Claimed,
    _turn: OwnedSemaphorePermit,
    _radio: Option<OwnedSemaphorePermit>,
}

/// Everywhere that one code is looked for.
struct Places<S> {
    lan: S,
    /// Where the code may be for a device on Bluetooth.
    bluetooth: Option<Looking>,
    wanted: OnboardingPayload,
}

impl<S: CandidateSearch> Places<S> {
    /// Who fits over Bluetooth, the strongest first.
    fn over_bluetooth(&self) -> Vec<Announced> {
        let heard = self.bluetooth.as_ref().and_then(|looking| looking.heard().ok()).unwrap_or_default();
        let told = |code: u16, seen: u16| code == 0 || seen == 0 || code == seen;
        let fits = |node: &BluetoothNode| {
            self.wanted.discriminator.matches(node.discriminator)
                && self.wanted.vid_pid.is_none_or(|(vid, pid)| told(vid, node.vendor_id) && told(pid, node.product_id))
        };
        let mut fitting: Vec<_> = heard.into_iter().filter(fits).collect();
        fitting.sort_by_key(|node| std::cmp::Reverse(node.rssi));
        fitting.into_iter().map(Announced::Bluetooth).collect()
    }

    fn announced(&self) -> Vec<Announced> {
        let heard = self.bluetooth.as_ref().and_then(|looking| looking.heard().ok()).unwrap_or_default();
        let lan = self.lan.announced().into_iter().map(Announced::Lan);
        lan.chain(heard.into_iter().map(Announced::Bluetooth)).collect()
    }

    /// Whether a device on Bluetooth would be heard.
    fn may_hear_bluetooth(&self) -> bool {
        self.bluetooth.is_some() && self.unavailable().is_none()
    }

    /// Why nobody can be heard over Bluetooth.
    fn unavailable(&self) -> Option<BluetoothUnavailable> {
        self.bluetooth.as_ref().and_then(|looking| looking.heard().err())
    }

    async fn changed(&mut self) {
        let Self { lan, bluetooth, .. } = self;
        let radio = async {
            match bluetooth {
                Some(looking) => looking.changed().await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = lan.changed() => {}
            () = radio => {}
        }
    }

    fn doubt(&self, node: &Announced) {
        if let Some(node) = node.lan() {
            self.lan.doubt(node);
        }
    }
}

impl<L, D, S, J> Commissioner<L, D, S, J>
where
    L: MatterLink,
    D: Discovery,
    S: NodeStore,
    J: AttestationJudge,
{
    /// Finds the device and proves the passcode while the disk notes the attempt; nothing that the disk keeps is asked of the
    /// device before. An attempt that cannot be noted ends, but not in the middle of a handshake: the device would wait for the
    /// rest, and say meanwhile that it is busy to whoever tries again.
    pub(super) async fn begin_and_approach(
        &self,
        run: &mut Run<'_>,
        order: &Order,
        turn: Turn<'_>,
        held: &mut Reached<L::Pase, L::Case>,
    ) -> Result<(Found, Arc<L::Pase>), CommissioningError> {
        let ended = {
            let (mut beginning, mut approaching) = (pin!(self.begin(order)), pin!(self.approach(run, order, turn)));
            tokio::select! {
                biased;
                begun = &mut beginning => match begun {
                    Ok(()) => Ok(approaching.await?),
                    Err(error) => Err((error, timeout(HANDSHAKE_ENDS, approaching).await.ok().and_then(Result::ok))),
                },
                met = &mut approaching => match (met?, beginning.await) {
                    (met, Ok(())) => Ok(met),
                    (met, Err(error)) => Err((error, Some(met))),
                },
            }
        };
        let (begun, Met { found, pase, hold }) = match ended {
            Ok(met) => (Ok(()), met),
            Err((error, Some(met))) => (Err(error), met),
            Err((error, None)) => return Err(error),
        };
        let pase = Arc::new(pase);
        (held.hold, held.pase) = (Some(hold), Some(Arc::clone(&pase)));
        if begun.is_err() {
            // The device armed it by itself when PASE came about (Matter Core 5.5).
            run.device(DeviceEvent::Armed);
        }
        begun.map(|()| (found, pase))
    }

    /// From the code to a PASE session.
    async fn approach(
        &self,
        run: &mut Run<'_>,
        order: &Order,
        turn: Turn<'_>,
    ) -> Result<Met<L::Pase>, CommissioningError> {
        let wanted = order.payload.clone();
        let looks_for_bluetooth = wanted.rendezvous.bluetooth && order.address.is_none();
        let mut lan = Places {
            lan: self.discovery.search(wanted.discriminator, wanted.vid_pid),
            bluetooth: looks_for_bluetooth.then(|| self.radio.look()),
            wanted,
        };
        let mut left = self.left_in_the_middle(run, order);
        let hidden = match &left {
            Some(left) => left.until.saturating_duration_since(now()),
            None if lan.may_hear_bluetooth() => self.hidden(run, order).await,
            None => Duration::ZERO,
        };
        let budget = run.attempt.discover_budget(now()).saturating_sub(MARGIN) + hidden;
        let began = now();
        let mut search = Search::new(began, budget);
        let mut others = self.together.changes();
        let mut first = Some(turn);
        let mut held = None;
        let mut radio = None;
        let mut ours = Ours::of(self.ours(order));
        let mut leftover_ended = false;
        let mut unanswered = None;
        loop {
            let looking = async {
                loop {
                    others.mark_unchanged();
                    let fitting = self.fitting(&lan, order)?;
                    if let (true, true, Some(why)) =
                        (fitting.is_empty(), order.payload.rendezvous.needs_bluetooth(), lan.unavailable())
                    {
                        return Err(DiscoverError::NoBluetooth(why).into());
                    }
                    let until = match search.poll(&fitting, now()) {
                        Next::Try(node) => return Ok(node),
                        Next::Over(ending) => return Err(self.over(ending, order, &lan, &search, unanswered.take())),
                        Next::WaitUntil(until) => until,
                    };
                    // A device in its box goes before a node that only looks like it, and so does one that has had the time
                    // to show itself before a node of the same code elsewhere.
                    let early = now() - began < LOOKS_LIKE_OURS;
                    let is_it = |known: &mut Known| {
                        let all_there = fitting.iter().all(|candidate| known.is_at(&candidate.node));
                        all_there || known.by_code && early
                    };
                    if let Some(known) = ours.told.take_if(is_it) {
                        return Err(CommissioningError::AlreadyOurs { step: Step::Discover, node: known.record });
                    }
                    tokio::select! {
                        // Before its device is looked at: what that announced in its box may still be remembered.
                        biased;
                        attempt = went_on(&mut left) => {
                            return Err(CommissioningError::BeingCommissioned { attempt });
                        }
                        () = ours.come() => {}
                        () = lan.changed() => {}
                        _ = others.changed() => {}
                        () = tokio::time::sleep_until(until.into()) => {}
                    }
                }
            };
            let node = run.step(Step::Discover, looking).await?;
            if let Some(turn) = first.take() {
                let asked = now();
                held = Some(turn.await?);
                let waited = now() - asked;
                run.attempt.handle_wait(waited);
                search.handle_wait(waited);
                if waited > WINDOW_POLL {
                    // It may have gone in the meantime.
                    continue;
                }
            }
            if matches!(*node, Announced::Bluetooth(_)) && radio.is_none() {
                radio = self.together.try_radio();
                if radio.is_none() {
                    let message =
                        "another device is being brought in over Bluetooth: this one waits until that has ended";
                    (run.progress)(Progress::Note(message.to_owned()));
                    let asked = now();
                    radio = tokio::select! {
                        radio = self.together.radio() => radio,
                        () = run.stop.cancelled() => return Err(CommissioningError::Stopped { step: Step::Discover }),
                    };
                    let waited = now() - asked;
                    run.attempt.handle_wait(waited);
                    search.handle_wait(waited);
                    continue;
                }
            }
            let Some(claimed) = self.together.claim(order.attempt_id, &order.payload, &node) else { continue };
            run.attempt.handle_sleep(node.session().sleep());
            let tried = self.try_one(run, order, &node, &mut lan, &search, &mut ours).await;
            let leftover = match &tried {
                Ok(pase) if !leftover_ended => self.end_leftover(run, order, pase).await,
                _ => None,
            };
            leftover_ended |= leftover.is_some();
            let fruitless = match tried {
                Ok(_) if let Some(until) = leftover => Fruitless::Busy { until },
                Ok(pase) => {
                    claimed.prove();
                    let discriminator = self.told(order, &node, &mut lan).await;
                    let turn = held.take().expect("a turn was taken before the first try");
                    let radio = radio.filter(|_| matches!(*node, Announced::Bluetooth(_)));
                    let hold = Hold { _claimed: claimed, _turn: turn, _radio: radio };
                    let found = Found { node: *node, discriminator };
                    return Ok(Met { found, pase, hold });
                }
                Err(CommissioningError::Link { cause: LinkError::Unreachable { tried }, .. }) => {
                    // Some devices that are at work with somebody else do not say so, but leave the handshake lying.
                    let left_lying = tried.iter().any(|(_, why)| *why == NoAnswer::Incomplete);
                    unanswered = Some(LinkError::Unreachable { tried });
                    let ours = if left_lying { self.rolled_back(run, order).await } else { None };
                    ours.map_or(Fruitless::Silent { waited_out: true }, |until| Fruitless::Busy { until })
                }
                Err(error) => self.fruitless(run, order, error).await?,
            };
            match fruitless {
                Fruitless::Refused => {
                    self.together.refused(&node, now());
                    if order.address.is_none() {
                        let message = format!("the device at {} has another passcode", place(&node));
                        (run.progress)(Progress::Note(message));
                    }
                }
                Fruitless::Silent { .. } => lan.doubt(&node),
                Fruitless::Closed | Fruitless::Busy { .. } => {}
            }
            search.handle_fruitless(&node, fruitless, now());
        }
    }

    /// Who fits, and who of them may be tried; at an address that a person gave only who is there.
    fn fitting(&self, lan: &Places<D::Search>, order: &Order) -> Result<Vec<Candidate>, CommissioningError> {
        let fitting: Vec<Announced> = match order.address {
            None => lan.lan.fitting()?.into_iter().map(Announced::Lan).chain(lan.over_bluetooth()).collect(),
            Some(address) => vec![Announced::Lan(named_by_address(address, &lan.lan))],
        };
        let announced = lan.announced();
        let now = now();
        let eligibility =
            |node: &Announced| self.together.eligibility(order.attempt_id, &order.payload, node, &announced, now);
        let mut fitting: Vec<_> =
            fitting.into_iter().map(|node| Candidate { eligibility: eligibility(&node), node }).collect();
        // Where several codes fit several devices, the refusals are shared out: none has more to bear than it must.
        fitting.sort_by_cached_key(|candidate| self.together.borne(&candidate.node, &announced, now));
        Ok(fitting)
    }

    /// One try. Another device that fits cuts the wait for one that does not answer short; and so does a node of ours that has
    /// the code and answers in its place: what is tried then is what it announced while it was in its box.
    async fn try_one(
        &self,
        run: &mut Run<'_>,
        order: &Order,
        node: &Announced,
        lan: &mut Places<D::Search>,
        search: &Search,
        ours: &mut Ours<'_>,
    ) -> Result<L::Pase, CommissioningError> {
        let peers = node.peers();
        let since = now();
        let trying = async {
            let mut proving = pin!(self.prove(order, &peers, node.session().sleep()));
            loop {
                if let Some(known) = ours.told.take_if(|known| known.is_at(node)) {
                    return Err(CommissioningError::AlreadyOurs { step: Step::Discover, node: known.record });
                }
                let patience = search.patience(&self.fitting(lan, order)?, node, since);
                let given_up = async {
                    match patience {
                        Some(at) => tokio::time::sleep_until(at.into()).await,
                        None => pending().await,
                    }
                };
                tokio::select! {
                    proved = &mut proving => {
                        return proved.map_err(|cause| CommissioningError::Link { step: Step::Pase, cause });
                    }
                    () = given_up => {
                        return Err(CommissioningError::StepTimeout { step: Step::Pase, after: now() - since });
                    }
                    () = lan.changed() => {}
                    () = ours.come() => {}
                }
            }
        };
        run.step(Step::Pase, trying).await
    }

    /// PASE. An announced window that turns out closed is asked again for a moment: a device that was just reset announces
    /// before it lets anybody in, and no try of the passcode is counted until it does.
    async fn prove(&self, order: &Order, peers: &[Peer], sleep: Duration) -> Result<L::Pase, LinkError> {
        let give_up = now() + if order.address.is_some() { Duration::ZERO } else { WINDOW_OPENS };
        let budget = self.settings.limits.step.saturating_sub(MARGIN) + sleep;
        loop {
            match self.link.open_pase(peers, &order.payload.passcode, budget).await {
                Err(LinkError::WindowClosed) if now() < give_up => tokio::time::sleep(WINDOW_POLL).await,
                opened => return opened,
            }
        }
    }

    /// What a failed try means for the search; an error that says nothing about the device ends it.
    async fn fruitless(
        &self,
        run: &mut Run<'_>,
        order: &Order,
        error: CommissioningError,
    ) -> Result<Fruitless, CommissioningError> {
        match error {
            CommissioningError::StepTimeout { after, .. } => {
                Ok(Fruitless::Silent { waited_out: after >= self.settings.limits.step })
            }
            CommissioningError::Link { cause, step } => match cause {
                LinkError::WrongPasscode => Ok(Fruitless::Refused),
                LinkError::SessionLost | LinkError::BluetoothLost => Ok(Fruitless::Silent { waited_out: true }),
                LinkError::WindowClosed => Ok(Fruitless::Closed),
                LinkError::Busy => Ok(Fruitless::Busy { until: self.free_again(run, order).await }),
                cause => Err(CommissioningError::Link { step, cause }),
            },
            error => Err(error),
        }
    }

    fn over(
        &self,
        ending: Ending,
        order: &Order,
        lan: &Places<D::Search>,
        search: &Search,
        unanswered: Option<LinkError>,
    ) -> CommissioningError {
        let at_pase = |cause| CommissioningError::Link { step: Step::Pase, cause };
        match ending {
            Ending::Refused => at_pase(LinkError::WrongPasscode),
            Ending::Closed => at_pase(LinkError::WindowClosed),
            Ending::Busy => at_pase(LinkError::Busy),
            Ending::Silent => at_pase(unanswered.unwrap_or(LinkError::Unreachable { tried: Vec::new() })),
            Ending::Forbidden(candidates) => DiscoverError::Ambiguous { candidates }.into(),
            Ending::Taken(attempt) => CommissioningError::BeingCommissioned { attempt },
            Ending::NotFound => match lan.lan.closed() {
                Some(node) => DiscoverError::NotInCommissioningMode { node: Box::new(node) }.into(),
                None => {
                    let (discriminator, waited) = (order.payload.discriminator, search.took(now()));
                    let (others, bluetooth) = (lan.announced(), lan.unavailable());
                    DiscoverError::NotFound { discriminator, waited, others, bluetooth }.into()
                }
            },
        }
    }

    /// All twelve bits of the discriminator: from the device's own announcement, or from a code that has them. A device that a
    /// person found by its address may not have been heard yet.
    async fn told(&self, order: &Order, node: &Announced, lan: &mut Places<D::Search>) -> Option<u16> {
        let address = match (order.address, order.payload.discriminator) {
            (None, _) => return Some(node.discriminator()),
            (Some(_), Discriminator::Long(long)) => return Some(long),
            (Some(address), Discriminator::Short(_)) => address,
        };
        let heard = async {
            loop {
                if let Some(told) = announced_at(address, order, &lan.lan) {
                    return told;
                }
                lan.changed().await;
            }
        };
        tokio::time::timeout(HEARD, heard).await.ok()
    }
}

fn announced_at(address: SocketAddr, order: &Order, lan: &impl CandidateSearch) -> Option<u16> {
    let announced = lan.at(address)?;
    order.payload.discriminator.matches(announced.txt.discriminator).then_some(announced.txt.discriminator)
}

/// What is at an address that a person gave: it is tried there and nowhere else.
fn named_by_address(address: SocketAddr, lan: &impl CandidateSearch) -> CommissionableNode {
    let scope = match address {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => Some((v6.scope_id().to_string(), v6.scope_id())),
        SocketAddr::V6(_) | SocketAddr::V4(_) => None,
    };
    let addresses = vec![ScopedAddress { ip: address.ip(), scope }];
    match lan.at(address) {
        Some(node) => CommissionableNode { addresses, port: address.port(), ..node },
        None => CommissionableNode {
            instance: String::new(),
            addresses,
            port: address.port(),
            txt: CommissionableTxt { commissioning_mode: 1, ..CommissionableTxt::default() },
        },
    }
}

fn place(node: &Announced) -> String {
    node.peers().first().map(ToString::to_string).unwrap_or_else(|| node.instance())
}
