//! Serves the connections of one listener: how many there may be at once, how long each may keep us waiting, how they end.
//!
//! A client that says nothing, or half a request, is let go, and sooner where others wait; on the network there are few
//! connections in all and fewer for one peer, so that the process's descriptors suffice for the Unix socket whatever happens
//! there. Not here: what is answered (`routes`), whom (`auth`).

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service;

use super::auth::Peer;
use super::tls::{HANDSHAKE, Tls};
use crate::telemetry::metrics::Metrics;

/// From the first to the last byte of a request's head, and between two requests.
const HEAD: Duration = Duration::from_secs(10);
/// The same on a listener where others wait, once half of its places are taken: who says nothing is let go before whoever
/// waits behind it, and that may be the watchdog's own question.
const HURRIED: Duration = Duration::from_millis(500);
/// After a listener has failed, for instance because no descriptor is left.
const PAUSE: Duration = Duration::from_millis(100);
/// Local clients at once. More wait in the listener's queue.
const LOCAL: usize = 256;
/// Connections from the network at once, and from one address of it. More are closed at once.
const REMOTE: usize = 96;
const REMOTE_PEER: usize = 32;

/// Whether others on the way can read along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Channel {
    /// They can, if there are any.
    Plain,
    Encrypted,
}

/// Where connections come from.
pub(super) trait Accept: Send + 'static {
    type Stream: Send + 'static;
    /// A connection that requests come over.
    type Open: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    const CHANNEL: Channel;
    async fn next(&self) -> io::Result<(Self::Stream, Peer)>;
    /// How many there may be, and whether one too many waits.
    fn places(&self) -> (usize, bool);
    /// What comes before the first request; the listener does not wait for it.
    fn open(&self, stream: Self::Stream) -> impl Future<Output = io::Result<Self::Open>> + Send + 'static;
}

impl Accept for UnixListener {
    type Stream = UnixStream;
    type Open = UnixStream;
    const CHANNEL: Channel = Channel::Plain;

    async fn next(&self) -> io::Result<(UnixStream, Peer)> {
        let (stream, _) = self.accept().await?;
        let peer = Peer::of(&stream);
        Ok((stream, peer))
    }

    fn places(&self) -> (usize, bool) {
        (LOCAL, true)
    }

    fn open(&self, stream: UnixStream) -> impl Future<Output = io::Result<UnixStream>> + Send + 'static {
        std::future::ready(Ok(stream))
    }
}

impl Accept for TcpListener {
    type Stream = TcpStream;
    type Open = TcpStream;
    const CHANNEL: Channel = Channel::Plain;

    async fn next(&self) -> io::Result<(TcpStream, Peer)> {
        let (stream, address) = self.accept().await?;
        Ok((stream, Peer::Remote(address)))
    }

    fn places(&self) -> (usize, bool) {
        (REMOTE, false)
    }

    fn open(&self, stream: TcpStream) -> impl Future<Output = io::Result<TcpStream>> + Send + 'static {
        std::future::ready(Ok(stream))
    }
}

/// A TCP listener that speaks TLS and nothing else.
pub(super) struct Encrypted {
    pub(super) listener: TcpListener,
    pub(super) tls: Tls,
}

impl Accept for Encrypted {
    type Stream = TcpStream;
    type Open = TlsStream<TcpStream>;
    const CHANNEL: Channel = Channel::Encrypted;

    async fn next(&self) -> io::Result<(TcpStream, Peer)> {
        self.listener.next().await
    }

    fn places(&self) -> (usize, bool) {
        self.listener.places()
    }

    fn open(&self, stream: TcpStream) -> impl Future<Output = io::Result<Self::Open>> + Send + 'static {
        let handshake = self.tls.acceptor().accept(stream);
        async move { tokio::time::timeout(HANDSHAKE, handshake).await.map_err(io::Error::from)? }
    }
}

/// What all connections share.
#[derive(Clone)]
pub(super) struct Serving {
    pub(super) router: Router,
    pub(super) metrics: Arc<Metrics>,
    pub(super) open: TaskTracker,
    /// Nothing new is taken, and idle connections end.
    pub(super) stop: CancellationToken,
    /// Whoever is still there is let go.
    pub(super) close: CancellationToken,
}

impl Serving {
    /// Until `stop`.
    pub(super) async fn listen<L: Accept>(self, listener: L) {
        let (places, waits) = listener.places();
        let (places, peers) = (Arc::new(Semaphore::new(places)), Peers::default());
        loop {
            let early = if waits {
                tokio::select! {
                    () = self.stop.cancelled() => return,
                    place = Arc::clone(&places).acquire_owned() => place.ok(),
                }
            } else {
                None
            };
            let accepted = tokio::select! {
                () = self.stop.cancelled() => return,
                accepted = listener.next() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::debug!(%error, "a connection to the admin API could not be taken");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let place = early.or_else(|| Arc::clone(&places).try_acquire_owned().ok());
            match (place, peers.enter(&peer)) {
                (Some(place), Some(seat)) => {
                    let crowded = waits && places.available_permits() < listener.places().0 / 2;
                    let head = if crowded { HURRIED } else { HEAD };
                    let (opening, serving) = (listener.open(stream), self.clone());
                    self.open.spawn(async move {
                        let opened = tokio::select! {
                            opened = opening => opened,
                            () = serving.stop.cancelled() => return,
                        };
                        match opened {
                            Ok(stream) => serving.connection(stream, peer, (L::CHANNEL, head), (place, seat)).await,
                            Err(_) => serving.metrics.count_refused("tls-handshake"),
                        }
                    });
                }
                _ => self.metrics.count_refused("too-many-connections"),
            }
        }
    }

    async fn connection<S>(
        self,
        stream: S,
        peer: Peer,
        (channel, head): (Channel, Duration),
        _place: (OwnedSemaphorePermit, Seat),
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let router = self.router;
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let (mut router, peer) = (router.clone(), peer.clone());
            async move {
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(ConnectInfo(peer));
                request.extensions_mut().insert(channel);
                // A router is always ready.
                Service::call(&mut router, request).await as Result<_, Infallible>
            }
        });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(head);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        tokio::select! {
            // Whatever went wrong with it, the client knows.
            _ = connection.as_mut() => return,
            () = self.stop.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        tokio::select! {
            _ = connection => {}
            () = self.close.cancelled() => {}
        }
    }
}

/// How many connections each address of the network has.
#[derive(Clone, Default)]
struct Peers(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// A connection's place among those of its address.
struct Seat(Option<(Peers, IpAddr)>);

impl Peers {
    fn enter(&self, peer: &Peer) -> Option<Seat> {
        let (Peer::Remote(address) | Peer::Person(address)) = peer else { return Some(Seat(None)) };
        let address = neighbourhood(address.ip());
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(address).or_default();
        if *count >= REMOTE_PEER {
            return None;
        }
        *count += 1;
        Some(Seat(Some((self.clone(), address))))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Some((peers, address)) = &self.0 else { return };
        let mut taken = peers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(address) {
            *count -= 1;
            if *count == 0 {
                taken.remove(address);
            }
        }
    }
}

/// One machine has a whole IPv6 network to itself.
fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 64 << 64).into()),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_peer_takes_its_own_places_only() {
        let peers = Peers::default();
        let peer = |text: &str| Peer::Remote(text.parse().unwrap());
        let seats: Vec<Seat> =
            (0..REMOTE_PEER).map(|i| peers.enter(&peer(&format!("[2001:db8::{i}]:1"))).unwrap()).collect();
        assert!(peers.enter(&peer("[2001:db8::ffff]:2")).is_none(), "another address of the same network");
        let other = peers.enter(&peer("[2001:db8:0:1::1]:1"));
        assert!(other.is_some() && peers.enter(&peer("192.0.2.1:1")).is_some());
        assert!(peers.enter(&Peer::Local { uid: 1, groups: Vec::new() }).is_some());
        drop((seats, other));
        assert!(peers.0.lock().unwrap().is_empty(), "nothing is remembered of those who left");
    }
}
