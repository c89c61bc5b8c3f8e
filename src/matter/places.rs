//! Who may begin a handshake: two fair queues, so that what is too much at once waits instead of failing.
//!
//! One is for rs-matter's table of 64 sessions. The other is for each address: a device carries on one handshake at a time,
//! or a few, and tells the rest that it is busy, or lets them time out. Not here: sessions.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::commissioning::ports::LinkError;
use crate::node::Peer;

/// Places that the hub gives itself; the rest is for who opens a session to it.
const OURS: usize = 60;
/// A handshake has a plaintext session, and the one that it makes.
const HANDSHAKE: u32 = 2;
/// Callers have deadlines of their own; this one is for those that forgot.
const QUEUE: Duration = Duration::from_secs(60);

pub(crate) struct Places {
    sessions: Arc<Semaphore>,
    addresses: RefCell<HashMap<Peer, Arc<Semaphore>>>,
}

impl Default for Places {
    fn default() -> Self {
        Self { sessions: Arc::new(Semaphore::new(OURS)), addresses: RefCell::default() }
    }
}

/// The turn at one address; the next one's when this is dropped.
pub(crate) struct Turn {
    _permit: OwnedSemaphorePermit,
}

/// A place for a handshake, later for the session that it made; free again when it is dropped.
pub(crate) struct Place(OwnedSemaphorePermit);

impl Places {
    /// Waits until nobody else begins a handshake with this address.
    pub(crate) async fn turn(&self, peer: Peer) -> Result<Turn, LinkError> {
        let queue = {
            let mut addresses = self.addresses.borrow_mut();
            addresses.retain(|_, queue| Arc::strong_count(queue) > 1);
            Arc::clone(addresses.entry(peer).or_insert_with(|| Arc::new(Semaphore::new(1))))
        };
        in_time(queue.acquire_owned()).await.map(|permit| Turn { _permit: permit })
    }

    /// Waits for room for one handshake.
    pub(crate) async fn take(&self) -> Result<Place, LinkError> {
        in_time(Arc::clone(&self.sessions).acquire_many_owned(HANDSHAKE)).await.map(Place)
    }
}

async fn in_time(
    queue: impl Future<Output = Result<OwnedSemaphorePermit, AcquireError>>,
) -> Result<OwnedSemaphorePermit, LinkError> {
    match timeout(QUEUE, queue).await {
        Ok(taken) => taken.map_err(|error| LinkError::Stack { what: error.to_string() }),
        Err(_) => Err(LinkError::Stack { what: "too much is asked of the hub's Matter sessions at once".to_owned() }),
    }
}

impl Place {
    /// Gives back what only the handshake needed.
    pub(crate) fn for_a_session(mut self) -> Self {
        let surplus = self.0.num_permits().saturating_sub(1);
        drop(self.0.split(surplus));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn more_than_fit_wait_their_turn() {
        let places = Places::default();
        let mut handshakes: Vec<Place> = Vec::new();
        while let Some(taken) = places.take().now_or_never() {
            handshakes.push(taken.expect("the semaphore is never closed"));
        }
        assert_eq!(handshakes.len(), OURS / HANDSHAKE as usize);
        let mut first = Box::pin(places.take());
        let mut second = Box::pin(places.take());
        assert!(first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
        // Two that have become sessions make room for one handshake.
        let sessions: Vec<Place> = handshakes.drain(..2).map(Place::for_a_session).collect();
        assert!(second.as_mut().now_or_never().is_none(), "the queue is fair");
        assert!(first.as_mut().now_or_never().is_some());
        drop(sessions);
        assert!(second.as_mut().now_or_never().is_some());
    }

    #[tokio::test]
    async fn one_at_a_time_begins_at_an_address() {
        let places = Places::default();
        let at = |text: &str| Peer::Udp(text.parse().unwrap());
        let (one, other) = (at("192.0.2.1:5540"), at("192.0.2.2:5540"));
        let first = places.turn(one).now_or_never().expect("nobody else is there").unwrap();
        let mut second = Box::pin(places.turn(one));
        assert!(second.as_mut().now_or_never().is_none());
        assert!(places.turn(other).now_or_never().is_some());
        drop(first);
        assert!(second.as_mut().now_or_never().is_some());
    }
}
