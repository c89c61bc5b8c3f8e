//! Opening sessions: PASE or CASE with a device whose addresses are known, within a bounded time.
//!
//! Addresses are tried side by side (`race`), each with a handshake of its own (`handshake`); what became of them decides
//! whether fresh handshakes follow. One lost datagram, or a peer that is still busy with a handshake that broke off, must not
//! be the end; and what proves something must not be waited over. Not here: commands (`matter::command`).

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use rs_matter::transport::exchange::Exchange;
use tokio::time::sleep;

use crate::commissioning::ports::{LinkError, NoAnswer};
use crate::matter::btp::Connection;
use crate::matter::handshake::{self, Ended, Failure, Goal, HandshakeState};
use crate::matter::places::Place;
use crate::matter::race::Race;
use crate::matter::socket::canonical;
use crate::matter::stack::{Context, Stack};
use crate::node::Peer;

/// The first pause before fresh handshakes; it doubles.
const PAUSE: Duration = Duration::from_millis(300);
/// A device that says no, or stops in the middle, is asked so many times.
const ROUNDS: u32 = 4;
/// A handshake needs that much time to be worth its beginning.
const WORTHWHILE: Duration = Duration::from_millis(500);

/// A session in rs-matter's table, kept there until this is dropped. Then it may be evicted, which closes it at the peer.
pub(super) struct Session {
    pub stack: Stack,
    pub id: u32,
    pub peer: Peer,
    /// The Bluetooth connection under it; it ends with the session.
    pub bluetooth: Option<Connection>,
    /// Its place among the sessions of the stack.
    pub _place: Place,
}

impl Drop for Session {
    fn drop(&mut self) {
        let id = self.id;
        self.stack.post(move |context| drop(context.pins.borrow_mut().remove(&id)));
    }
}

/// A session that was opened.
pub(super) struct Opened {
    pub id: u32,
    pub peer: Peer,
    pub place: Place,
    /// PASE: the attestation challenge.
    pub challenge: Option<[u8; 16]>,
}

impl Opened {
    pub(crate) fn session(self, stack: Stack, bluetooth: Option<Connection>) -> Session {
        Session { stack, id: self.id, peer: self.peer, bluetooth, _place: self.place }
    }
}

/// A new session with the first address at which the goal is reached. What counts against `budget` is the
/// time in which at least one handshake has its turn, and not the queue before it (see `places`).
pub(super) async fn open(
    context: &Context,
    addresses: &[Peer],
    budget: Duration,
    goal: Goal,
) -> Result<Opened, LinkError> {
    let mut left = budget;
    let mut broke_off = false;
    let mut open: Vec<Peer> = Vec::new();
    for address in addresses.iter().map(|peer| match peer {
        Peer::Udp(address) => Peer::Udp(canonical(*address)),
        Peer::Bluetooth(_) => *peer,
    }) {
        if !open.contains(&address) {
            open.push(address);
        }
    }
    let mut found: Vec<(Peer, Failure)> = Vec::new();
    let mut round = 0;
    loop {
        match race(context, &open, &mut left, &goal).await? {
            Raced::Won { id, peer, place, challenge } => {
                let exchange = Exchange::initiate_for_session(context.matter, context.crypto, id)
                    .map_err(|_| LinkError::SessionLost)?;
                context.pins.borrow_mut().insert(id, exchange);
                return Ok(Opened { id, peer, challenge, place: place.for_a_session() });
            }
            Raced::Lost(failures) => {
                broke_off |= failures.iter().any(|(_, failure)| *failure == Failure::NoAnswer(NoAnswer::Incomplete));
                found.retain(|(peer, _)| !failures.iter().any(|(other, _)| other == peer));
                found.extend(failures);
            }
        }
        match next(&goal, &found, Round { round, broke_off, left }) {
            Next::Again { after, at } => {
                sleep(after).await;
                left = left.saturating_sub(after);
                open = at;
                round += 1;
            }
            Next::End(error) => return Err(error),
        }
    }
}

enum Raced {
    Won {
        id: u32,
        peer: Peer,
        place: Place,
        challenge: Option<[u8; 16]>,
    },
    /// What became of each address.
    Lost(Vec<(Peer, Failure)>),
}

struct Runner<'a> {
    peer: Peer,
    progress: Rc<HandshakeState>,
    was_heard: bool,
    work: Pin<Box<dyn Future<Output = Result<Ended, LinkError>> + 'a>>,
}

/// One handshake with each address, side by side.
///
/// PASE is carried on with the first address that answers: a device counts the tries of its passcode, and two handshakes
/// with one device get in each other's way. Only where it says no before any passcode was needed, the others go on.
async fn race(context: &Context, addresses: &[Peer], left: &mut Duration, goal: &Goal) -> Result<Raced, LinkError> {
    let mut race = Race::new(addresses.len(), Instant::now());
    let mut running: Vec<Runner<'_>> = Vec::new();
    let mut failures: Vec<(Peer, Failure)> = Vec::new();
    let mut timer = pin!(sleep(Duration::MAX));
    let mut began: Option<Instant> = None;
    let mut over = pin!(sleep(Duration::MAX));
    // All are polled with the one waker of the root future (see `matter::waker`), so this is no `FuturesUnordered`.
    let winner = poll_fn(|task| {
        loop {
            let now = Instant::now();
            while !(goal.is_pase() && running.iter().any(|runner| runner.was_heard)) {
                let Some(index) = race.poll_start(now) else { break };
                let (peer, progress) = (addresses[index], Rc::new(HandshakeState::default()));
                let work = Box::pin(handshake::run(context, peer, goal, Rc::clone(&progress)));
                running.push(Runner { peer, progress, was_heard: false, work });
            }
            let mut ended = None;
            for (index, runner) in running.iter_mut().enumerate() {
                let polled = runner.work.as_mut().poll(task);
                if let (None, Some(first)) = (began, runner.progress.began.get()) {
                    began = Some(first);
                    over.as_mut().reset((first + *left).into());
                }
                if runner.progress.answered.get() && !runner.was_heard {
                    runner.was_heard = true;
                    race.handle_answer(now);
                }
                if let Poll::Ready(result) = polled {
                    ended = Some((index, result));
                    break;
                }
            }
            if let Some((index, result)) = ended {
                let Runner { peer, .. } = running.swap_remove(index);
                match result {
                    Ok(Ended::Opened { id, place, challenge }) => {
                        return Poll::Ready(Ok(Some((id, peer, place, challenge))));
                    }
                    Ok(Ended::Failed(failure)) => {
                        let is_final = goal.is_pase() && !failure.leaves_passcode_untried();
                        failures.push((peer, failure));
                        if is_final {
                            return Poll::Ready(Ok(None));
                        }
                    }
                    Err(error) => return Poll::Ready(Err(error)),
                }
                race.handle_failure(now);
                continue;
            }
            if goal.is_pase()
                && running.len() > 1
                && let Some(first) = running.iter().position(|one| one.was_heard)
            {
                running.swap(0, first);
                for dropped in running.drain(1..) {
                    failures.push((dropped.peer, Failure::NoAnswer(NoAnswer::NotTried)));
                }
            }
            if over.as_mut().poll(task).is_ready() || (running.is_empty() && race.next_start().is_none()) {
                return Poll::Ready(Ok(None));
            }
            let Some(next) = race.next_start().filter(|next| *next > now) else { return Poll::Pending };
            timer.as_mut().reset(next.into());
            if timer.as_mut().poll(task).is_pending() {
                return Poll::Pending;
            }
        }
    })
    .await?;
    *left = left.saturating_sub(began.map_or(Duration::ZERO, |began| began.elapsed()));
    if let Some((id, peer, place, challenge)) = winner {
        return Ok(Raced::Won { id, peer, place, challenge });
    }
    let cut_off = |runner: &Runner<'_>| match (runner.progress.began.get(), runner.was_heard) {
        (None, _) => NoAnswer::NotTried,
        (Some(_), false) => NoAnswer::Silent,
        (Some(_), true) => NoAnswer::Incomplete,
    };
    failures.extend(running.iter().map(|runner| (runner.peer, Failure::NoAnswer(cut_off(runner)))));
    for peer in addresses {
        if !failures.iter().any(|(known, _)| known == peer) {
            failures.push((*peer, Failure::NoAnswer(NoAnswer::NotTried)));
        }
    }
    // In the order that was given.
    failures.sort_by_key(|(peer, _)| addresses.iter().position(|address| address == peer));
    Ok(Raced::Lost(failures))
}

/// What follows a race that nobody won.
#[derive(Debug, PartialEq)]
enum Next {
    /// Fresh handshakes with these addresses.
    Again {
        after: Duration,
        at: Vec<Peer>,
    },
    End(LinkError),
}

/// Where an opening stands after a race.
#[derive(Clone, Copy)]
struct Round {
    round: u32,
    /// Whether a handshake began and did not come to its end. A device that is still at it may say no to the next one.
    broke_off: bool,
    left: Duration,
}

/// `found` has what became of every address, the latest that is known.
fn next(goal: &Goal, found: &[(Peer, Failure)], Round { round, broke_off, left }: Round) -> Next {
    let again = round + 1 < ROUNDS;
    let is_untried = |failure: &Failure| *failure == Failure::NoAnswer(NoAnswer::NotTried);
    let is_worth_it = |failure: &Failure| match failure {
        Failure::NoAnswer(NoAnswer::Silent | NoAnswer::NotTried) | Failure::Busy => true,
        // A device may count a handshake that broke off as one of its twenty tries.
        Failure::NoAnswer(NoAnswer::Incomplete) => again || !goal.is_pase(),
        Failure::Refused { .. } => again,
        Failure::WindowClosed => again && broke_off,
        Failure::NoAnswer(NoAnswer::NoRoute(_) | NoAnswer::NoConnection(_))
        | Failure::NoRoots
        | Failure::OtherNode
        | Failure::Final(_) => false,
    };
    let settles = |failure: &Failure| match failure {
        Failure::NoRoots | Failure::OtherNode | Failure::Final(_) => true,
        // Somebody else may be at that address.
        Failure::WindowClosed => !broke_off && !found.iter().any(|(_, failure)| is_untried(failure)),
        Failure::NoAnswer(_) | Failure::Busy | Failure::Refused { .. } => false,
    };
    let at: Vec<Peer> = found.iter().filter(|(_, failure)| is_worth_it(failure)).map(|(peer, _)| *peer).collect();
    let after = PAUSE * 2_u32.pow(round.min(3));
    if at.is_empty() || left < after + WORTHWHILE || found.iter().any(|(_, failure)| settles(failure)) {
        return Next::End(conclusion(found, broke_off));
    }
    Next::Again { after, at }
}

/// The strongest of what is known: what proves something before what does not.
fn conclusion(found: &[(Peer, Failure)], broke_off: bool) -> LinkError {
    let rank = |failure: &Failure| match failure {
        Failure::Final(_) => 0,
        Failure::Busy => 1,
        Failure::NoRoots => 2,
        Failure::OtherNode => 3,
        Failure::Refused { .. } => 4,
        Failure::WindowClosed => 5,
        Failure::NoAnswer(_) => 6,
    };
    match found.iter().min_by_key(|(_, failure)| rank(failure)) {
        Some((_, Failure::Final(error))) => error.clone(),
        Some((_, Failure::Busy)) => LinkError::Busy,
        Some((Peer::Udp(peer), Failure::NoRoots)) => LinkError::NoSharedTrustRoots { peer: *peer },
        Some((Peer::Udp(peer), Failure::OtherNode)) => LinkError::NotThatNode { peer: *peer },
        // Both are answers to CASE, which is never opened over Bluetooth.
        Some((peer @ Peer::Bluetooth(_), Failure::NoRoots | Failure::OtherNode)) => {
            LinkError::HandshakeRefused { peer: *peer, code: 1 }
        }
        Some((peer, Failure::Refused { code })) => LinkError::HandshakeRefused { peer: *peer, code: *code },
        Some((_, Failure::WindowClosed)) if broke_off => LinkError::Busy,
        Some((_, Failure::WindowClosed)) => LinkError::WindowClosed,
        Some((_, Failure::NoAnswer(_))) | None => {
            let tried = found.iter().map(|(peer, failure)| match failure {
                Failure::NoAnswer(why) => (*peer, why.clone()),
                _ => (*peer, NoAnswer::Incomplete),
            });
            LinkError::Unreachable { tried: tried.collect() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::NodeId;
    use crate::secret::Passcode;

    const LONG: Duration = Duration::from_secs(15);

    fn at(n: u8) -> Peer {
        Peer::Udp(address(n))
    }

    fn address(n: u8) -> std::net::SocketAddr {
        ([192, 0, 2, n], 5540).into()
    }

    fn decide(goal: &Goal, found: &[Failure], round: u32, left: Duration) -> Next {
        let found: Vec<_> = (1..).zip(found).map(|(n, failure)| (at(n), failure.clone())).collect();
        let broke_off = round > 0;
        next(goal, &found, Round { round, broke_off, left })
    }

    fn again(addresses: &[u8], ms: u64) -> Next {
        Next::Again { after: Duration::from_millis(ms), at: addresses.iter().map(|n| at(*n)).collect() }
    }

    #[test]
    fn what_proves_nothing_is_tried_again_and_what_proves_something_is_said() {
        let case = Goal::Case(NodeId(7));
        let silent = || Failure::NoAnswer(NoAnswer::Silent);
        let no_route = || Failure::NoAnswer(NoAnswer::NoRoute("Network is unreachable".to_owned()));
        let refused = || Failure::Refused { code: 2 };
        assert_eq!(decide(&case, &[silent(), no_route(), refused()], 0, LONG), again(&[1, 3], 300));
        assert_eq!(decide(&case, &[Failure::Busy], 9, LONG), again(&[1], 2_400));
        assert_eq!(
            decide(&case, &[refused()], ROUNDS - 1, LONG),
            Next::End(LinkError::HandshakeRefused { peer: at(1), code: 2 })
        );
        assert_eq!(
            decide(&case, &[silent(), Failure::NoRoots], 0, LONG),
            Next::End(LinkError::NoSharedTrustRoots { peer: address(2) })
        );
        assert_eq!(
            decide(&case, &[Failure::OtherNode, refused()], 0, LONG),
            Next::End(LinkError::NotThatNode { peer: address(1) })
        );
        let Next::End(error) = decide(&case, &[silent(), no_route()], 0, Duration::from_millis(700)) else {
            panic!("no time is left")
        };
        assert_eq!(
            error.to_string(),
            "no answer: 192.0.2.1:5540 is silent, 192.0.2.2:5540 cannot be reached from here (Network is unreachable)"
        );
        assert_eq!(decide(&case, &[no_route()], 0, LONG), decide(&case, &[no_route()], 0, Duration::ZERO));
    }

    #[test]
    fn a_closed_window_is_believed_unless_a_handshake_of_ours_broke_off() {
        let pase = Goal::Pase(Passcode::new(20_202_021u32));
        let incomplete = || Failure::NoAnswer(NoAnswer::Incomplete);
        assert_eq!(decide(&pase, &[Failure::WindowClosed], 0, LONG), Next::End(LinkError::WindowClosed));
        assert_eq!(decide(&pase, &[incomplete()], 0, LONG), again(&[1], 300));
        assert_eq!(decide(&pase, &[Failure::WindowClosed], 1, LONG), again(&[1], 600));
        assert_eq!(decide(&pase, &[Failure::WindowClosed], ROUNDS - 1, LONG), Next::End(LinkError::Busy));
        let not_tried = Failure::NoAnswer(NoAnswer::NotTried);
        assert_eq!(decide(&pase, &[Failure::WindowClosed, not_tried], 0, LONG), again(&[2], 300));
        let wrong = Failure::Final(LinkError::WrongPasscode);
        assert_eq!(decide(&pase, &[incomplete(), wrong], 0, LONG), Next::End(LinkError::WrongPasscode));
        let stopped = decide(&pase, &[incomplete()], ROUNDS - 1, LONG);
        assert_eq!(stopped, Next::End(LinkError::Unreachable { tried: vec![(at(1), NoAnswer::Incomplete)] }));
    }
}
