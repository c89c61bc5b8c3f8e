//! One handshake with one address: PASE or CASE, and what it proves where it fails.
//!
//! rs-matter's own `initiate_pase` reuses any PASE session it has with an address, also one that the device forgot when it
//! restarted; its `initiate` looks addresses up by its own mDNS. So both handshakes are driven here, each on a plaintext
//! exchange of its own. Dropping one is harmless to others: rs-matter closes the plaintext session that it was on, and
//! nothing of that leaves the hub (`matter::replies`). Not here: several addresses, several tries (`matter::session`).

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use rs_matter::error::{Error, ErrorCode};
use rs_matter::sc::case::CaseInitiator;
use rs_matter::sc::pase::PaseInitiator;
use rs_matter::transport::exchange::Exchange;
use rs_matter::transport::session::ReservedSession;
use tokio::time::{sleep, sleep_until};

use crate::commissioning::ports::{LinkError, NoAnswer};
use crate::matter::btp::address_of;
use crate::matter::challenge::{PaseProgress, WatchedCrypto};
use crate::matter::command::link_error;
use crate::matter::datagram::ChannelStatus;
use crate::matter::heard::{Heard, Watched};
use crate::matter::places::{Place, Turn};
use crate::matter::stack::Context;
use crate::node::{NodeId, Peer};
use crate::secret::Passcode;

/// As long as MRP needs for its five transmissions.
const FIRST_ANSWER: Duration = Duration::from_secs(6);
/// A peer that has answered is given up when nothing more came for so long. A slow device takes two or three seconds for its
/// part of SPAKE2+ or of the certificates; a lost datagram was sent five times by then.
const STALL: Duration = Duration::from_secs(6);
/// Where nothing is heard for so long, whoever waits for the same address may try it too.
const SILENT_TURN: Duration = Duration::from_secs(1);
/// How long to wait for rs-matter to clear a place that is free by our own count.
const CLEARING: Duration = Duration::from_millis(20);
/// ProtocolCode of the secure channel (Matter Core 4.11.1.2).
const NO_SHARED_TRUST_ROOTS: u16 = 1;
/// rs-matter keeps the upper four bits of its own session ids for the exchange.
const SESSION_ID_MASK: u32 = 0x0FFF_FFFF;

pub(super) enum Goal {
    Pase(Passcode),
    Case(NodeId),
}

impl Goal {
    pub(crate) fn is_pase(&self) -> bool {
        matches!(self, Self::Pase(_))
    }
}

/// How a handshake ended.
pub(super) enum Ended {
    Opened { id: u32, place: Place, challenge: Option<[u8; 16]> },
    Failed(Failure),
}

/// Why there is no session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    NoAnswer(NoAnswer),
    Busy,
    /// CASE: NO_SHARED_TRUST_ROOTS.
    NoRoots,
    /// CASE: another certificate than that node's.
    OtherNode,
    Refused {
        code: u16,
    },
    /// PASE: refused before a passcode was needed.
    WindowClosed,
    /// Asking again would change nothing, or must not be.
    Final(LinkError),
}

impl Failure {
    /// PASE: whether the device has certainly not counted a try of its passcode.
    pub(crate) fn leaves_passcode_untried(&self) -> bool {
        match self {
            Self::NoAnswer(
                NoAnswer::Silent | NoAnswer::NoRoute(_) | NoAnswer::NoConnection(_) | NoAnswer::NotTried,
            )
            | Self::Busy
            | Self::WindowClosed => true,
            Self::NoAnswer(NoAnswer::Incomplete)
            | Self::NoRoots
            | Self::OtherNode
            | Self::Refused { .. }
            | Self::Final(_) => false,
        }
    }
}

/// What others may know of a handshake while it runs.
#[derive(Default)]
pub(super) struct HandshakeState {
    /// When its turn came.
    pub began: Cell<Option<Instant>>,
    /// Whether its peer was heard.
    pub answered: Cell<bool>,
}

/// Runs one handshake, as soon as it is its turn.
pub(super) async fn run(
    context: &Context,
    peer: Peer,
    goal: &Goal,
    progress: Rc<HandshakeState>,
) -> Result<Ended, LinkError> {
    let turn = context.places.turn(peer).await?;
    let place = context.places.take().await?;
    progress.began.set(Some(Instant::now()));
    match goal {
        Goal::Pase(passcode) => {
            let crypto = WatchedCrypto::new(context.crypto);
            let handshake = |exchange| PaseInitiator::perform(exchange, &crypto, *passcode.expose());
            let (id, end) = establish(context, peer, turn, &progress.answered, handshake).await?;
            Ok(match end {
                End::Done(Ok(()), _) => {
                    let challenge = crypto.take_challenge();
                    challenge
                        .ok_or_else(|| LinkError::Stack { what: "no attestation challenge was derived".to_owned() })?;
                    Ended::Opened { id, place, challenge }
                }
                End::Done(Err(error), heard) => Ended::Failed(pase_failed(&error, crypto.progress(), &heard, peer)),
                End::GivenUp(why) => Ended::Failed(Failure::NoAnswer(why)),
            })
        }
        Goal::Case(node) => {
            let handshake = |exchange| CaseInitiator::perform(exchange, &context.crypto, context.fabric, node.0);
            let (id, end) = establish(context, peer, turn, &progress.answered, handshake).await?;
            Ok(match end {
                End::Done(Ok(()), _) => Ended::Opened { id, place, challenge: None },
                End::Done(Err(error), heard) => Ended::Failed(case_failed(&error, &heard, peer)),
                End::GivenUp(why) => Ended::Failed(Failure::NoAnswer(why)),
            })
        }
    }
}

enum End {
    /// rs-matter came to an end.
    Done(Result<(), Error>, Heard),
    /// It was not waited for any longer.
    GivenUp(NoAnswer),
}

/// Runs one handshake; gives the id of the session that it makes.
///
/// rs-matter does not tell which session a handshake made. But it numbers its sessions in the order in which they are
/// added, and the first thing that both initiators do is to reserve theirs. With room for two sessions made beforehand,
/// adding the plaintext one and reserving the other happen in one poll of this thread, so nothing can come between:
/// plaintext id + 1. That it was free before that poll and taken after it is checked each time, so that another rs-matter
/// with another order is an error and never a command to the wrong device.
async fn establish<'a, F, H>(
    context: &'a Context,
    peer: Peer,
    turn: Turn,
    answered: &Cell<bool>,
    handshake: F,
) -> Result<(u32, End), LinkError>
where
    F: FnOnce(Exchange<'static>) -> H,
    H: Future<Output = Result<(), Error>> + 'a,
{
    make_room(context).await?;
    let drawing = WatchedCrypto::new(context.crypto);
    let exchange = Exchange::initiate_plaintext(context.matter, &drawing, address_of(peer))
        .await
        .map_err(|error| link_error(&error, peer))?;
    // The last number drawn for a plaintext session is its initiator's node id.
    let watched = context.watchers.watch(peer, drawing.last_drawn());
    let id = plaintext_session_id(&exchange)?.wrapping_add(1) & SESSION_ID_MASK;
    let free_before = !exists(context, id);
    let mut handshake = pin!(handshake(exchange));
    let first = poll_fn(|task| Poll::Ready(handshake.as_mut().poll(task))).await;
    if !free_before || (first.is_pending() && !exists(context, id)) {
        return Err(LinkError::Stack {
            what: "rs-matter numbers its sessions in another way than expected".to_owned(),
        });
    }
    let end = match first {
        Poll::Ready(result) => {
            poll_fn(|task| Poll::Ready(watched.heard(task.waker()))).map(|heard| End::Done(result, heard)).await
        }
        Poll::Pending => watch(handshake, &watched, turn, answered).await,
    };
    if let End::Done(Ok(()), _) = &end {
        watched.established();
    }
    Ok((id, end))
}

/// Polls a handshake to its end, or until waiting longer makes no sense.
async fn watch(
    mut handshake: std::pin::Pin<&mut impl Future<Output = Result<(), Error>>>,
    watched: &Watched,
    turn: Turn,
    answered: &Cell<bool>,
) -> End {
    let begin = Instant::now();
    let mut turn = Some(turn);
    let mut until = begin + SILENT_TURN;
    let mut timer = pin!(sleep_until(until.into()));
    poll_fn(|task| {
        let done = handshake.as_mut().poll(task);
        let heard = watched.heard(task.waker());
        answered.set(heard.anything());
        if let Poll::Ready(result) = done {
            return Poll::Ready(End::Done(result, heard));
        }
        let incomplete = if heard.anything() { NoAnswer::Incomplete } else { NoAnswer::Silent };
        if let (Some(why), None) = (&heard.no_route, heard.last) {
            return Poll::Ready(End::GivenUp(NoAnswer::NoRoute(why.clone())));
        }
        loop {
            let patience = match heard.last {
                Some(last) => last + STALL,
                None if turn.is_some() => begin + SILENT_TURN,
                None => begin + FIRST_ANSWER,
            };
            if patience != until {
                until = patience;
                timer.as_mut().reset(until.into());
            }
            match timer.as_mut().poll(task) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(_) if heard.last.is_none() && turn.take().is_some() => {}
                Poll::Ready(_) => return Poll::Ready(End::GivenUp(incomplete.clone())),
            }
        }
    })
    .await
}

fn plaintext_session_id(exchange: &Exchange<'_>) -> Result<u32, LinkError> {
    // `Display` of an exchange id is `session::exchange`; rs-matter has no other public way to the number.
    let text = exchange.id().to_string();
    text.split("::").next().and_then(|id| id.parse().ok()).ok_or(LinkError::Stack {
        what: format!("rs-matter writes an exchange id as {text:?}, which is not what was expected"),
    })
}

/// Whether the table has a session of this id. The exchange that finds out is gone again at once; it sends nothing.
fn exists(context: &Context, id: u32) -> bool {
    Exchange::initiate_for_session(context.matter, context.crypto, id).is_ok()
}

/// Makes sure that two sessions can be added without waiting, by evicting the least recently used ones that nobody holds.
/// There is room by our own count (`matter::places`), so this waits only for what is being closed.
async fn make_room(context: &Context) -> Result<(), LinkError> {
    loop {
        let first = ReservedSession::reserve(context.matter, context.crypto).await;
        let second = ReservedSession::reserve(context.matter, context.crypto).await;
        // Both reservations end here, and the caller goes on in the same poll.
        match first.and(second) {
            Ok(_) => return Ok(()),
            Err(error) if error.code() != ErrorCode::NoSpaceSessions => {
                return Err(LinkError::Stack { what: error.to_string() });
            }
            Err(_) => sleep(CLEARING).await,
        }
    }
}

fn unresponsive(heard: &Heard) -> Failure {
    Failure::NoAnswer(if heard.anything() { NoAnswer::Incomplete } else { NoAnswer::Silent })
}

fn pase_failed(error: &Error, progress: PaseProgress, heard: &Heard, peer: Peer) -> Failure {
    match (heard.refusal, progress) {
        (Some(ChannelStatus { busy: true, .. }), _) => Failure::Busy,
        // cB is not what our passcode gives, or the device says the same of our cA.
        (_, PaseProgress::Confirming) if error.code() == ErrorCode::Invalid => Failure::Final(LinkError::WrongPasscode),
        (Some(_), PaseProgress::Asked) => Failure::WindowClosed,
        (
            Some(ChannelStatus { code, .. }),
            PaseProgress::Parameters | PaseProgress::Confirming | PaseProgress::Proved,
        ) => Failure::Refused { code },
        (None, _) if broke_off(error) => unresponsive(heard),
        (None, _) => Failure::Final(link_error(error, peer)),
    }
}

/// Whether the exchange ended without an answer: given up by MRP, or its plaintext session was closed under it.
fn broke_off(error: &Error) -> bool {
    let gone = [ErrorCode::NoSession, ErrorCode::NoExchange, ErrorCode::InvalidState];
    error.is_peer_unresponsive() || gone.contains(&error.code())
}

fn case_failed(error: &Error, heard: &Heard, peer: Peer) -> Failure {
    match (heard.refusal, error.code()) {
        (Some(ChannelStatus { busy: true, .. }), _) => Failure::Busy,
        (Some(ChannelStatus { code: NO_SHARED_TRUST_ROOTS, .. }), _) => Failure::NoRoots,
        (Some(ChannelStatus { code, .. }), _) => Failure::Refused { code },
        (None, _) if broke_off(error) => unresponsive(heard),
        // What answers has no certificate of our fabric for this node: it is not the node we look for.
        (
            None,
            ErrorCode::Invalid
            | ErrorCode::InvalidSignature
            | ErrorCode::InvalidAuthKey
            | ErrorCode::InvalidAAD
            | ErrorCode::InvalidData,
        ) => Failure::OtherNode,
        (None, _) => Failure::Final(link_error(error, peer)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_apart_by_what_was_heard_and_how_far_pase_got() {
        let peer = Peer::Udp("192.0.2.1:5540".parse().unwrap());
        let (invalid, timeout) = (Error::from(ErrorCode::Invalid), Error::from(ErrorCode::TxTimeout));
        let said = |busy, code| Heard {
            last: Some(Instant::now()),
            refusal: Some(ChannelStatus { success: false, busy, code }),
            ..Heard::default()
        };
        let acknowledged = Heard { last: Some(Instant::now()), ..Heard::default() };
        let (asked, confirming) = (PaseProgress::Asked, PaseProgress::Confirming);
        assert_eq!(pase_failed(&invalid, asked, &said(false, 2), peer), Failure::WindowClosed);
        assert_eq!(pase_failed(&invalid, asked, &said(true, 4), peer), Failure::Busy);
        assert_eq!(
            pase_failed(&invalid, PaseProgress::Parameters, &said(false, 2), peer),
            Failure::Refused { code: 2 }
        );
        let wrong = pase_failed(&invalid, confirming, &acknowledged, peer);
        assert_eq!(wrong, Failure::Final(LinkError::WrongPasscode));
        let no_answer = Failure::NoAnswer(NoAnswer::Silent);
        assert_eq!(pase_failed(&timeout, asked, &Heard::default(), peer), no_answer);
        assert_eq!(case_failed(&timeout, &Heard::default(), peer), no_answer);
        assert_eq!(case_failed(&timeout, &acknowledged, peer), Failure::NoAnswer(NoAnswer::Incomplete));
        assert_eq!(case_failed(&invalid, &said(false, 2), peer), Failure::Refused { code: 2 });
        assert_eq!(case_failed(&invalid, &said(false, 1), peer), Failure::NoRoots);
        assert_eq!(case_failed(&invalid, &acknowledged, peer), Failure::OtherNode);
    }
}
