//! Which of rs-matter's automatic replies leave the hub. Pure: every method takes `now` where it needs it.
//!
//! rs-matter 0.4.1 answers a message for which it has no session with an unsecured SessionNotFound, also where that message
//! is itself an unsecured acknowledgement or status report, and it acknowledges every duplicate, also one that asked for no
//! acknowledgement. Each of its SessionNotFound has the counter 1, so the second is a duplicate of the first. Two ends that
//! do this answer each other without end, at the speed of the CPU, after any one message that outlived its session: a peer
//! that was stopped for a minute is enough (its neighbours log 30,000 lines a second). Matter Core 4.13.2.3 wants unsecured
//! messages without a session dropped, and 4.12.5.2 acknowledges reliable messages only. The crate cannot be changed here,
//! so what breaks these rules is dropped where it leaves. To be reported upstream: `TransportRunner::handle_rx_packet`,
//! arms `NoSession` and `Duplicate`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::matter::datagram::{ChannelStatus, Datagram};

/// ProtocolCodes of the secure channel (Matter Core 4.11.1.2).
const CLOSE_SESSION: u16 = 3;
const SESSION_NOT_FOUND: u16 = 5;

/// A peer that lost its session table needs to hear it once.
const PER_PEER: Duration = Duration::from_secs(1);
/// All peers together, in one `PER_PEER`. It also bounds what is remembered.
const AT_ONCE: usize = 32;

/// See the module's documentation.
#[derive(Default)]
pub(crate) struct Replies {
    /// What came last: rs-matter sends its automatic replies before it takes the next datagram.
    last: Option<(SocketAddr, Datagram)>,
    told: HashMap<SocketAddr, Instant>,
}

impl Replies {
    /// A datagram has come.
    pub(crate) fn handle_received(&mut self, peer: SocketAddr, datagram: &Datagram) {
        self.last = Some((peer, datagram.clone()));
    }

    /// Whether this datagram may leave.
    pub(crate) fn allows(&mut self, peer: SocketAddr, datagram: &Datagram, now: Instant) -> bool {
        let Some(unsecured) = &datagram.unsecured else { return true };
        let cause = self.last.as_ref().filter(|(from, _)| *from == peer).and_then(|(_, cause)| {
            let unsecured = cause.unsecured.as_ref()?;
            Some((cause.counter, unsecured.reliable))
        });
        match datagram.status() {
            // Only a secured session can be closed; this one would tell a stranger's exchange to end.
            Some(ChannelStatus { success: true, code: CLOSE_SESSION, .. }) => false,
            Some(ChannelStatus { code: SESSION_NOT_FOUND, .. }) => cause.is_none() && self.may_tell(peer, now),
            Some(_) => true,
            None if datagram.is_acknowledgement() => match cause {
                Some((counter, reliable)) => reliable || unsecured.acknowledges != Some(counter),
                None => true,
            },
            None => true,
        }
    }

    fn may_tell(&mut self, peer: SocketAddr, now: Instant) -> bool {
        self.told.retain(|_, at| now.saturating_duration_since(*at) < PER_PEER);
        if self.told.contains_key(&peer) || self.told.len() >= AT_ONCE {
            return false;
        }
        self.told.insert(peer, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matter::credentials::backend;
    use crate::matter::datagram::tests::unsecured;

    fn read(bytes: &[u8]) -> Datagram {
        Datagram::read(bytes, backend()).expect("a Matter datagram")
    }

    fn not_found() -> Datagram {
        read(&unsecured(0x40, false, 1, Some(0), &[1, 0, 0, 0, 0, 0, 5, 0]))
    }

    fn secured() -> Datagram {
        Datagram { session: 9, unsecured: None, ..not_found() }
    }

    /// What rs-matter sends for a duplicate.
    fn acknowledgement(of: u32) -> Datagram {
        let mut datagram = read(&unsecured(0x10, false, 3, None, &[]));
        datagram.unsecured.as_mut().expect("unsecured").acknowledges = Some(of);
        datagram
    }

    #[test]
    fn two_ends_do_not_answer_each_other_for_ever() {
        let peer: SocketAddr = "192.0.2.1:5540".parse().unwrap();
        let now = Instant::now();
        let (mut ours, mut theirs) = (Replies::default(), Replies::default());
        // Ours is asked on a session that it does not have, and says so, once.
        ours.handle_received(peer, &secured());
        assert!(ours.allows(peer, &not_found(), now));
        // The other has no session for that either, and would say so; then the duplicates would begin.
        theirs.handle_received(peer, &not_found());
        assert!(!theirs.allows(peer, &not_found(), now));
        assert!(!theirs.allows(peer, &acknowledgement(1), now));
        ours.handle_received(peer, &acknowledgement(1));
        assert!(!ours.allows(peer, &not_found(), now));
    }

    #[test]
    fn what_a_handshake_needs_is_sent() {
        let peer: SocketAddr = "192.0.2.1:5540".parse().unwrap();
        let now = Instant::now();
        let mut replies = Replies::default();
        // A repeated Success asks for its acknowledgement again.
        replies.handle_received(peer, &read(&unsecured(0x40, true, 12, Some(77), &[0; 8])));
        assert!(replies.allows(peer, &acknowledgement(12), now));
        replies.handle_received(peer, &read(&unsecured(0x10, false, 13, Some(77), &[])));
        assert!(replies.allows(peer, &acknowledgement(12), now));
        assert!(!replies.allows(peer, &acknowledgement(13), now));
        let invalid_parameter = read(&unsecured(0x40, true, 1, Some(0), &[1, 0, 0, 0, 0, 0, 2, 0]));
        assert!(replies.allows(peer, &invalid_parameter, now));
        let close = read(&unsecured(0x40, false, 1, Some(0), &[0, 0, 0, 0, 0, 0, 3, 0]));
        assert!(!replies.allows(peer, &close, now));
    }

    #[test]
    fn a_flood_of_unknown_sessions_is_answered_a_few_times_a_second() {
        let begin = Instant::now();
        let mut replies = Replies::default();
        let mut answered = 0;
        for n in 0..100_000_u32 {
            let now = begin + Duration::from_micros(u64::from(n) * 20);
            let peer = SocketAddr::from(([10, 0, (n >> 8) as u8, n as u8], 5540));
            replies.handle_received(peer, &secured());
            answered += usize::from(replies.allows(peer, &not_found(), now));
        }
        // Two seconds.
        assert!((AT_ONCE..=3 * AT_ONCE).contains(&answered), "{answered}");
    }
}
