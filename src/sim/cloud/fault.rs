//! Faults that wait in a queue, and the connection that a fault can cut.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use super::SimCloud;

/// One bad answer, used up when it strikes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The last part of the path it waits for, `*` for any.
    #[serde(default = "bind")]
    pub endpoint: String,
    /// What the call meets in place of its answer.
    #[serde(flatten)]
    pub kind: FaultKind,
    /// Whether the request takes effect all the same.
    #[serde(default)]
    pub after_commit: bool,
    /// How often it strikes.
    #[serde(default = "once")]
    pub times: u32,
}

/// What happens instead of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum FaultKind {
    /// This body code.
    Code {
        /// Body code, listed or not.
        code: i64,
    },
    /// This HTTP status, without a body code.
    Http {
        /// Of HTTP, 100..=599.
        status: u16,
    },
    /// The page of something that stands between hub and cloud.
    Page {
        /// Of HTTP, 100..=599.
        status: u16,
        /// Name and value of each header.
        #[serde(default)]
        headers: Vec<(String, String)>,
        /// A page of HTML, as proxies and portals send it.
        #[serde(default)]
        body: String,
    },
    /// The answer comes late; the request takes effect before the wait with `after_commit`, else after it.
    Delay {
        /// How late, in milliseconds.
        delay_ms: u64,
    },
    /// HTTP 200 with a body that is no JSON.
    Garbage,
    /// The connection is cut without a byte.
    Drop,
}

impl Fault {
    /// A fault of the bind, striking once, before it takes effect.
    pub fn of_bind(kind: FaultKind) -> Self {
        Self { endpoint: bind(), kind, after_commit: false, times: 1 }
    }

    /// The same, but the request takes effect.
    #[must_use]
    pub fn after_commit(self) -> Self {
        Self { after_commit: true, ..self }
    }

    /// The same, for another endpoint.
    #[must_use]
    pub fn on(self, endpoint: &str) -> Self {
        Self { endpoint: endpoint.to_owned(), ..self }
    }
}

fn bind() -> String {
    "deviceBindingByWifi".to_owned()
}

fn once() -> u32 {
    1
}

/// Lets a handler cut the connection that its request came on.
#[derive(Debug, Clone, Default)]
pub(super) struct ConnectionSwitch(Arc<AtomicBool>);

impl ConnectionSwitch {
    /// Nothing is written from now on; the peer sees a reset or an end.
    pub(super) fn cut(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// A TCP listener whose connections can be cut, and are counted.
pub(super) struct CuttableListener {
    pub(super) listener: TcpListener,
    pub(super) cloud: SimCloud,
}

/// One of its connections.
pub(super) struct CuttableStream {
    stream: TcpStream,
    switch: ConnectionSwitch,
    cloud: SimCloud,
}

impl Drop for CuttableStream {
    fn drop(&mut self) {
        self.cloud.with(|world| world.traffic.send_modify(|traffic| traffic.connections -= 1));
    }
}

impl Listener for CuttableListener {
    type Io = CuttableStream;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, address) = Listener::accept(&mut self.listener).await;
        self.cloud.with(|world| {
            world.counters.connections += 1;
            world.traffic.send_modify(|traffic| traffic.connections += 1);
        });
        let _ = stream.set_nodelay(true);
        (CuttableStream { stream, switch: ConnectionSwitch::default(), cloud: self.cloud.clone() }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

impl Connected<IncomingStream<'_, CuttableListener>> for ConnectionSwitch {
    fn connect_info(stream: IncomingStream<'_, CuttableListener>) -> Self {
        stream.io().switch.clone()
    }
}

impl AsyncRead for CuttableStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for CuttableStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.switch.0.load(Ordering::Acquire) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
