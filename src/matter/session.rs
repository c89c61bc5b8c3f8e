//! Opening sessions: a PASE or CASE handshake with an address that is already known, within a bounded time.
//!
//! rs-matter's own `initiate_pase` reuses any PASE session it has with an address, also one that the device forgot when it
//! restarted; its `initiate` looks addresses up by its own mDNS. So both handshakes are driven here, each on a plaintext
//! exchange of its own. Not here: commands (`matter::command`).

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use async_io::Timer;
use futures_util::future::{Either, select};
use rs_matter::error::{Error, ErrorCode};
use rs_matter::sc::case::CaseInitiator;
use rs_matter::sc::pase::PaseInitiator;
use rs_matter::transport::exchange::Exchange;
use rs_matter::transport::network::Address;
use rs_matter::transport::session::ReservedSession;

use crate::commissioning::ports::{LinkError, NoAnswer};
use crate::matter::challenge::{PaseProgress, WatchedCrypto};
use crate::matter::command::{link_error, unanswered};
use crate::matter::socket::{Heard, Refusal, canonical};
use crate::matter::stack::{Context, Stack};
use crate::node::NodeId;
use crate::secret::Passcode;

/// An address from which nothing at all came within this time is given up for the next one: by then MRP has sent the
/// message four times.
const FIRST_ANSWER: Duration = Duration::from_millis(3500);
/// The last address gets as long as MRP needs for its five transmissions.
const LAST_ANSWER: Duration = Duration::from_secs(6);
/// A whole handshake with a peer that does answer. Slow devices take seconds for their part of SPAKE2+.
const HANDSHAKE: Duration = Duration::from_secs(20);
/// How long to wait for a place among rs-matter's 64 sessions.
const ROOM: Duration = Duration::from_secs(5);
/// ProtocolCode of the secure channel (Matter Core 4.11.1.2).
const NO_SHARED_TRUST_ROOTS: u16 = 1;
/// rs-matter keeps the upper four bits of its own session ids for the exchange.
const SESSION_ID_MASK: u32 = 0x0FFF_FFFF;

/// A session in rs-matter's table, kept there until this is dropped. Then it may be evicted, which closes it at the peer.
pub(super) struct Session {
    pub stack: Stack,
    pub id: u32,
    pub peer: SocketAddr,
}

impl Drop for Session {
    fn drop(&mut self) {
        let id = self.id;
        self.stack.post(move |context| drop(context.pins.borrow_mut().remove(&id)));
    }
}

/// What came of one address.
enum Attempt {
    /// Not a single datagram came back.
    Silent,
    /// The handshake ended, with what the peer was heard to say.
    Ended(Result<(), Error>, Heard),
    /// The peer answered, but did not get to the end in time.
    TooSlow,
}

/// A new PASE session with the first address that answers: its id, the attestation challenge, the address.
///
/// The next address is tried only when the one before gave no answer at all: a device counts the tries of its passcode.
pub(super) async fn open_pase(
    context: &Context,
    addresses: &[SocketAddr],
    passcode: &Passcode,
    budget: Duration,
) -> Result<(u32, [u8; 16], SocketAddr), LinkError> {
    let deadline = Instant::now() + budget;
    for (peer, patience) in candidates(addresses) {
        let patience = patience.min(deadline.saturating_duration_since(Instant::now()));
        let crypto = WatchedCrypto::new(context.crypto);
        let handshake = |exchange| PaseInitiator::perform(exchange, &crypto, *passcode.expose());
        match establish(context, peer, patience, handshake).await? {
            (_, Attempt::Silent) => {}
            (id, Attempt::Ended(Ok(()), _)) => {
                let challenge = crypto
                    .take_challenge()
                    .ok_or_else(|| LinkError::Stack { what: "no attestation challenge was derived".to_owned() })?;
                pin_session(context, id)?;
                return Ok((id, challenge, peer));
            }
            (_, Attempt::Ended(Err(error), heard)) => return Err(pase_refused(&error, crypto.progress(), heard, peer)),
            (_, Attempt::TooSlow) => return Err(unanswered(peer)),
        }
    }
    Err(silent(addresses))
}

/// A new CASE session with the first address that answers.
pub(super) async fn open_case(
    context: &Context,
    node: NodeId,
    addresses: &[SocketAddr],
    budget: Duration,
) -> Result<(u32, SocketAddr), LinkError> {
    let deadline = Instant::now() + budget;
    for (peer, patience) in candidates(addresses) {
        let patience = patience.min(deadline.saturating_duration_since(Instant::now()));
        let handshake = |exchange| CaseInitiator::perform(exchange, &context.crypto, context.fabric, node.0);
        match establish(context, peer, patience, handshake).await? {
            (_, Attempt::Silent) => {}
            (id, Attempt::Ended(Ok(()), _)) => {
                pin_session(context, id)?;
                return Ok((id, peer));
            }
            (_, Attempt::Ended(Err(error), heard)) => return Err(case_refused(&error, heard, peer)),
            (_, Attempt::TooSlow) => return Err(unanswered(peer)),
        }
    }
    Err(silent(addresses))
}

fn silent(addresses: &[SocketAddr]) -> LinkError {
    LinkError::Unreachable { tried: addresses.iter().map(|address| (*address, NoAnswer::Silent)).collect() }
}

/// The addresses as rs-matter compares them, each with how long it may stay silent.
fn candidates(addresses: &[SocketAddr]) -> impl Iterator<Item = (SocketAddr, Duration)> {
    let last = addresses.len().saturating_sub(1);
    addresses
        .iter()
        .enumerate()
        .map(move |(index, address)| (canonical(*address), if index == last { LAST_ANSWER } else { FIRST_ANSWER }))
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
    peer: SocketAddr,
    patience: Duration,
    handshake: F,
) -> Result<(u32, Attempt), LinkError>
where
    F: FnOnce(Exchange<'static>) -> H,
    H: Future<Output = Result<(), Error>> + 'a,
{
    make_room(context).await?;
    let watched = context.watchers.watch(peer);
    let exchange = Exchange::initiate_plaintext(context.matter, context.crypto, Address::Udp(peer))
        .await
        .map_err(|error| link_error(&error, peer))?;
    let id = plaintext_session_id(&exchange)?.wrapping_add(1) & SESSION_ID_MASK;
    let free_before = !exists(context, id);
    let mut handshake = pin!(handshake(exchange));
    let first = poll_fn(|task| Poll::Ready(handshake.as_mut().poll(task))).await;
    if !free_before || (first.is_pending() && !exists(context, id)) {
        return Err(LinkError::Stack {
            what: "rs-matter numbers its sessions in another way than expected".to_owned(),
        });
    }
    if let Poll::Ready(result) = first {
        return Ok((id, Attempt::Ended(result, watched.heard())));
    }
    let handshake = match select(handshake, Timer::after(patience)).await {
        Either::Left((result, _)) => return Ok((id, ended(result, watched.heard()))),
        Either::Right((_, handshake)) => handshake,
    };
    if !watched.heard().anything {
        return Ok((id, Attempt::Silent));
    }
    Ok(match select(handshake, Timer::after(HANDSHAKE)).await {
        Either::Left((result, _)) => (id, ended(result, watched.heard())),
        Either::Right(_) => (id, Attempt::TooSlow),
    })
}

fn ended(result: Result<(), Error>, heard: Heard) -> Attempt {
    match &result {
        Err(error) if error.is_peer_unresponsive() && !heard.anything => Attempt::Silent,
        _ => Attempt::Ended(result, heard),
    }
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
async fn make_room(context: &Context) -> Result<(), LinkError> {
    let deadline = Instant::now() + ROOM;
    loop {
        let first = ReservedSession::reserve(context.matter, context.crypto).await;
        let second = ReservedSession::reserve(context.matter, context.crypto).await;
        // Both reservations end here, and the caller goes on in the same poll.
        match first.and(second) {
            Ok(_) => return Ok(()),
            Err(error) if error.code() != ErrorCode::NoSpaceSessions => {
                return Err(LinkError::Stack { what: error.to_string() });
            }
            Err(_) if Instant::now() >= deadline => {
                return Err(LinkError::Stack { what: "all of the hub's 64 Matter sessions are in use".to_owned() });
            }
            Err(_) => drop(Timer::after(Duration::from_millis(50)).await),
        }
    }
}

fn pin_session(context: &Context, id: u32) -> Result<(), LinkError> {
    let exchange =
        Exchange::initiate_for_session(context.matter, context.crypto, id).map_err(|_| LinkError::SessionLost)?;
    context.pins.borrow_mut().insert(id, exchange);
    Ok(())
}

fn pase_refused(error: &Error, progress: PaseProgress, heard: Heard, peer: SocketAddr) -> LinkError {
    if error.is_peer_unresponsive() {
        return unanswered(peer);
    }
    match (heard.refusal, progress) {
        (Some(refusal), _) if refusal.busy => LinkError::Busy,
        // cB is not what our passcode gives, or the device says the same of our cA.
        (_, PaseProgress::Confirming) if error.code() == ErrorCode::Invalid => LinkError::WrongPasscode,
        (Some(_), PaseProgress::Asked | PaseProgress::Parameters) => LinkError::WindowClosed,
        _ => link_error(error, peer),
    }
}

fn case_refused(error: &Error, heard: Heard, peer: SocketAddr) -> LinkError {
    if error.is_peer_unresponsive() {
        return unanswered(peer);
    }
    match (heard.refusal, error.code()) {
        (Some(refusal), _) if refusal.busy => LinkError::Busy,
        (Some(Refusal { code: NO_SHARED_TRUST_ROOTS, .. }), _) => LinkError::NoSharedTrustRoots { peer },
        (Some(Refusal { code, .. }), _) => LinkError::HandshakeRefused { peer, code },
        // What answers has no certificate of our fabric for this node: it is not the node we look for.
        (
            None,
            ErrorCode::Invalid
            | ErrorCode::InvalidSignature
            | ErrorCode::InvalidAuthKey
            | ErrorCode::InvalidAAD
            | ErrorCode::InvalidData,
        ) => LinkError::NotThatNode { peer },
        _ => link_error(error, peer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_apart_by_what_was_heard_and_how_far_pase_got() {
        let peer = "192.0.2.1:5540".parse().expect("an address");
        let invalid = Error::from(ErrorCode::Invalid);
        let heard = |busy| Heard { anything: true, refusal: Some(Refusal { busy, code: 2 }) };
        let silent = Heard { anything: true, refusal: None };
        let asked = PaseProgress::Asked;
        assert_eq!(pase_refused(&invalid, asked, heard(false), peer), LinkError::WindowClosed);
        assert_eq!(pase_refused(&invalid, asked, heard(true), peer), LinkError::Busy);
        assert_eq!(pase_refused(&invalid, PaseProgress::Confirming, silent, peer), LinkError::WrongPasscode);
        let timeout = Error::from(ErrorCode::TxTimeout);
        assert_eq!(pase_refused(&timeout, asked, silent, peer), unanswered(peer));
        assert_eq!(case_refused(&invalid, heard(false), peer), LinkError::HandshakeRefused { peer, code: 2 });
        let no_root = Heard { anything: true, refusal: Some(Refusal { busy: false, code: 1 }) };
        assert_eq!(case_refused(&invalid, no_root, peer), LinkError::NoSharedTrustRoots { peer });
        assert_eq!(case_refused(&invalid, silent, peer), LinkError::NotThatNode { peer });
    }
}
