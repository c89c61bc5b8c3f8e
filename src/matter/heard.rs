//! What is heard, and what could not be sent, in one handshake: evidence that belongs to the exchange and not to the address.
//!
//! rs-matter says `Invalid` for every refusal and nothing for a send that failed. The socket shows each datagram here. Each
//! handshake has an initiator node id of its own, made up for it, which answers echo (Matter Core 4.13.2.1); so what a
//! stranger says, or what comes late from an earlier handshake with the same address, is not taken for this one's answer.
//!
//! It also keeps the first acknowledgements of a peer from rs-matter. There, the first counter that is received marks the 16
//! before it as seen (`RxCtrState::new`); where a peer's first answer is lost and its acknowledgement arrives before the
//! repetition, that repetition is taken for a duplicate, acknowledged, and never processed. The repetition acknowledges as
//! well, or is made to (`implied`), so nothing is lost by waiting for it. But two are all that is kept back: a slow device's
//! acknowledgements are what keeps a handshake alive.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::task::Waker;
use std::time::Instant;

use crate::matter::datagram::{ChannelStatus, Datagram, Message};
use crate::node::Peer;

/// So many acknowledgements are kept back before a peer has said anything else.
const KEPT_BACK: u8 = 2;

/// What a peer has said since a handshake with it began.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    /// When its last datagram came.
    pub last: Option<Instant>,
    /// The last unsecured StatusReport that was no success.
    pub refusal: Option<ChannelStatus>,
    /// Why the hub has no way to it.
    pub no_route: Option<String>,
    /// Our id of the session that is being made.
    pub(super) session: Option<u16>,
    /// Whether more than acknowledgements came.
    pub(super) spoken: bool,
    pub(super) kept_back: u8,
}

impl Heard {
    /// Whether anything at all was heard.
    pub(crate) fn anything(&self) -> bool {
        self.last.is_some()
    }
}

/// All handshakes under way. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Watchers(Rc<RefCell<All>>);

#[derive(Default)]
struct All {
    /// By the initiator's node id.
    handshakes: HashMap<u64, (Peer, Heard)>,
    /// New sessions on which nothing but acknowledgements has come, and how many of those.
    new_sessions: HashMap<u16, u8>,
    /// Who waits for any of this: one task, as there is one root future.
    waiting: Option<Waker>,
}

impl Watchers {
    /// Begins to note what `peer` says to `initiator`.
    pub(crate) fn watch(&self, peer: Peer, initiator: u64) -> Watched {
        self.0.borrow_mut().handshakes.insert(initiator, (peer, Heard::default()));
        Watched { initiator, all: self.clone() }
    }

    /// A datagram is about to be sent.
    pub(crate) fn handle_sending(&self, datagram: &Datagram) {
        let Some(Message::Opening { session }) = datagram.unsecured.as_ref().map(|unsecured| &unsecured.message) else {
            return;
        };
        let mut all = self.0.borrow_mut();
        if let Some((_, heard)) = datagram.source.and_then(|initiator| all.handshakes.get_mut(&initiator)) {
            heard.session = *session;
        }
    }

    /// It could not be sent, and will not be the next time.
    pub(crate) fn handle_no_route(&self, datagram: &Datagram, why: String) {
        let mut all = self.0.borrow_mut();
        if let Some((_, heard)) = datagram.source.and_then(|initiator| all.handshakes.get_mut(&initiator)) {
            heard.no_route = Some(why);
            all.waiting.take().into_iter().for_each(Waker::wake);
        }
    }

    /// A datagram has come; false where rs-matter must not see it.
    ///
    /// Nobody opens a session with an administrator, which has no commissioning window and serves no cluster. rs-matter 0.4.1
    /// makes a session for each opening and refuses it reliably: at 2,000 a second devices that were there seemed silent.
    pub(crate) fn handle_received(&self, peer: Peer, datagram: &Datagram, now: Instant) -> bool {
        if datagram.is_opening() {
            return false;
        }
        let mut all = self.0.borrow_mut();
        let all = &mut *all;
        if datagram.unsecured.is_none() {
            let Some(kept_back) = all.new_sessions.get_mut(&datagram.session) else { return true };
            if datagram.is_acknowledgement() && *kept_back < KEPT_BACK {
                *kept_back += 1;
                return false;
            }
            all.new_sessions.remove(&datagram.session);
            return true;
        }
        match datagram.destination.and_then(|initiator| all.handshakes.get_mut(&initiator)) {
            Some((expected, heard)) if *expected == peer => {
                heard.last = Some(now);
                if let Some(status) = datagram.status().filter(|status| !status.success) {
                    heard.refusal = Some(status);
                }
                if !heard.spoken && datagram.is_acknowledgement() && heard.kept_back < KEPT_BACK {
                    heard.kept_back += 1;
                    return false;
                }
                heard.spoken |= !datagram.is_acknowledgement();
            }
            Some(_) => {}
            // It does not say whom it answers: it shows that somebody is there, and no more.
            None if datagram.destination.is_none() => {
                for (_, heard) in all.handshakes.values_mut().filter(|(expected, _)| *expected == peer) {
                    heard.last = Some(now);
                }
            }
            None => {}
        }
        true
    }
}

/// One handshake's notes.
pub(crate) struct Watched {
    initiator: u64,
    all: Watchers,
}

impl Watched {
    /// What was heard until now; `waker` is woken when the hub turns out to have no way to the peer.
    pub(crate) fn heard(&self, waker: &Waker) -> Heard {
        let mut all = self.all.0.borrow_mut();
        if !all.waiting.as_ref().is_some_and(|waiting| waiting.will_wake(waker)) {
            all.waiting = Some(waker.clone());
        }
        all.handshakes.get(&self.initiator).map(|(_, heard)| heard.clone()).unwrap_or_default()
    }

    /// The handshake made its session: the first acknowledgements on that are kept back, too.
    pub(crate) fn established(self) {
        let mut all = self.all.0.borrow_mut();
        let session = all.handshakes.get(&self.initiator).and_then(|(_, heard)| heard.session);
        if let Some(session) = session {
            all.new_sessions.insert(session, 0);
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.all.0.borrow_mut().handshakes.remove(&self.initiator);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matter::credentials::backend;
    use crate::matter::datagram::tests::unsecured;

    const INVALID_PARAMETER: [u8; 8] = [1, 0, 0, 0, 0, 0, 2, 0];

    fn read(bytes: &[u8]) -> Datagram {
        Datagram::read(bytes, backend()).expect("a Matter datagram")
    }

    fn at(text: &str) -> Peer {
        Peer::Udp(text.parse().expect("an address"))
    }

    fn heard(watched: &Watched) -> Heard {
        watched.heard(Waker::noop())
    }

    #[test]
    fn a_refusal_belongs_to_its_own_exchange() {
        let (watchers, now) = (Watchers::default(), Instant::now());
        let (peer, other) = (at("192.0.2.1:5540"), at("192.0.2.2:5540"));
        let watched = watchers.watch(peer, 77);
        let refusal = |initiator| read(&unsecured(0x40, true, 1, initiator, &INVALID_PARAMETER));
        assert!(watchers.handle_received(peer, &refusal(Some(76)), now));
        assert!(watchers.handle_received(other, &refusal(Some(77)), now));
        assert_eq!(heard(&watched), Heard::default());
        assert!(watchers.handle_received(peer, &refusal(None), now));
        assert_eq!((heard(&watched).anything(), heard(&watched).refusal), (true, None));
        assert!(watchers.handle_received(peer, &refusal(Some(77)), now));
        assert_eq!(heard(&watched).refusal.map(|status| status.code), Some(2));
    }

    #[test]
    fn nobody_opens_a_session_with_an_administrator() {
        let (watchers, peer) = (Watchers::default(), at("192.0.2.1:5540"));
        let _watched = watchers.watch(peer, 77);
        for opening in [
            unsecured(0x20, true, 1, None, &[0x15, 0x25, 2, 9, 0, 0x18]),
            unsecured(0x30, true, 1, None, &[0x15, 0x25, 2, 9, 0, 0x18]),
            unsecured(0x30, true, 1, Some(77), &[0x15; 1200]),
        ] {
            assert!(!watchers.handle_received(peer, &read(&opening), Instant::now()));
        }
    }

    #[test]
    fn two_acknowledgements_wait_for_the_answer_and_the_third_does_not() {
        let (watchers, now) = (Watchers::default(), Instant::now());
        let peer = at("192.0.2.1:5540");
        let acknowledgement = |counter| read(&unsecured(0x10, false, counter, Some(77), &[]));
        let watched = watchers.watch(peer, 77);
        let passed = [5, 6, 7].map(|counter| watchers.handle_received(peer, &acknowledgement(counter), now));
        assert_eq!(passed, [false, false, true]);
        assert!(heard(&watched).anything());
        let watched = watchers.watch(peer, 77);
        assert!(watchers.handle_received(peer, &read(&unsecured(0x21, true, 4, Some(77), &[])), now));
        assert!(watchers.handle_received(peer, &acknowledgement(5), now));
        // The session that came of it: known by the id in the request.
        watchers.handle_sending(&Datagram {
            source: Some(77),
            ..read(&unsecured(0x20, true, 1, None, &[0x15, 0x25, 2, 9, 0, 0x18]))
        });
        watched.established();
        let secured = |length| Datagram { session: 9, unsecured: None, length, ..acknowledgement(1) };
        assert!(!watchers.handle_received(peer, &secured(34), now));
        assert!(watchers.handle_received(peer, &secured(90), now));
        assert!(watchers.handle_received(peer, &secured(34), now));
    }
}
