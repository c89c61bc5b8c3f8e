//! Matter over Bluetooth: BTP (Matter Core 4.19) between a connection's GATT writes and indications and rs-matter.
//!
//! The protocol itself, segments, windows and acknowledgements, is rs-matter's `Btp`. There is one, so there is one connection at a
//! time. `pump` carries its segments; the rest keeps a slow or vanished device from holding up everything else: rs-matter's
//! transport waits for whatever it sends, so what is for Bluetooth goes into a queue and is taken from there. Not here: the radio
//! (`bluetooth`).

use std::cell::RefCell;
use std::future::pending;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rs_matter::crypto::Crypto;
use rs_matter::error::{Error, ErrorCode};
use rs_matter::transport::network::btp::Btp;
use rs_matter::transport::network::{Address, BtAddr, NetworkReceive, NetworkSend};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::commissioning::ports::{LinkError, NoAnswer};
use crate::commissioning::radio::{Gatt, Radio};
use crate::matter::datagram::Datagram;
use crate::matter::heard::Watchers;
use crate::matter::stack::Stack;
use crate::node::{BluetoothAddress, Peer};

/// Messages that wait for the radio. An exchange has one under way, so more than a few are repetitions.
const QUEUE: usize = 8;
/// The longest segment.
const SEGMENT: usize = 512;
/// Connecting may take so much of the time that a PASE session may.
const CONNECT_SHARE: f64 = 0.75;

/// The address as rs-matter has it.
pub(super) fn address_of(peer: Peer) -> Address {
    match peer {
        Peer::Udp(address) => Address::Udp(address),
        Peer::Bluetooth(BluetoothAddress(octets)) => Address::Btp(BtAddr(octets)),
    }
}

/// Connects to a device and starts the pump on the Matter thread.
///
/// # Errors
/// No connection came about within `budget`.
pub(super) async fn connect(
    stack: &Stack,
    radio: &dyn Radio,
    address: BluetoothAddress,
    budget: Duration,
) -> Result<Connection, LinkError> {
    let connecting = tokio::time::timeout(budget.mul_f64(CONNECT_SHARE), radio.connect(address));
    let gatt = connecting.await.unwrap_or_else(|_| {
        let why = NoAnswer::NoConnection("it did not answer in time".to_owned());
        Err(LinkError::Unreachable { tried: vec![(Peer::Bluetooth(address), why)] })
    })?;
    let (end, lost) = (CancellationToken::new(), CancellationToken::new());
    let (ended, gone) = (end.clone(), lost.clone().drop_guard());
    stack.spawn(move |context| async move {
        // The link is lost when this ends, however it does.
        let _gone = gone;
        tokio::select! {
            biased;
            () = ended.cancelled() => {}
            result = context.bluetooth.pump(gatt, address) => {
                tracing::debug!(%address, ?result, "the Bluetooth connection has ended");
            }
        }
        context.bluetooth.close();
    });
    Ok(Connection { lost, _end: end.drop_guard() })
}

/// A connection that is up, or was. Dropping it ends it.
pub(super) struct Connection {
    lost: CancellationToken,
    _end: DropGuard,
}

impl Connection {
    /// Cancelled when it has ended.
    pub fn lost(&self) -> CancellationToken {
        self.lost.clone()
    }

    /// The work's outcome, unless the connection ends before.
    pub async fn or_lost<T>(&self, work: impl Future<Output = Result<T, LinkError>>) -> Result<T, LinkError> {
        tokio::select! {
            biased;
            result = work => result,
            () = self.lost.cancelled() => Err(LinkError::BluetoothLost),
        }
    }
}

/// The one `Btp` of the stack. Lives on its thread; clones are the same.
#[derive(Clone)]
pub(crate) struct Bluetooth(Rc<Inner>);

/// Messages for the device that is connected.
type Queue = mpsc::Sender<(Vec<u8>, BtAddr)>;

struct Inner {
    btp: Btp,
    watchers: Watchers,
    queue: RefCell<Option<Queue>>,
}

impl Bluetooth {
    pub(super) fn new(watchers: Watchers) -> Self {
        Self(Rc::new(Inner { btp: Btp::new(), watchers, queue: RefCell::default() }))
    }

    /// What rs-matter sends and receives by.
    pub(super) fn network<C>(&self, crypto: C) -> BtpNetwork<C> {
        BtpNetwork { bluetooth: self.clone(), crypto }
    }

    /// Carries segments as the central until the connection ends.
    async fn pump(&self, gatt: Gatt, address: BluetoothAddress) -> Result<(), Error> {
        let (queue, mut queued) = mpsc::channel(QUEUE);
        self.0.btp.reset();
        self.0.btp.set_initiator(true);
        *self.0.queue.borrow_mut() = Some(queue);
        let feed = async {
            while let Some((message, to)) = queued.recv().await {
                self.0.btp.send(&message, to).await?;
            }
            Ok(())
        };
        tokio::select! {
            result = carry(&self.0.btp, gatt, BtAddr(address.0)) => result,
            result = feed => result,
        }
    }

    fn close(&self) {
        *self.0.queue.borrow_mut() = None;
        self.0.btp.reset();
    }
}

/// Carries segments between a connection and `btp` until one of them ends.
///
/// # Errors
/// What came is no BTP: a segment was lost or came out of its order, and the connection cannot go on (4.19.4.5).
pub(crate) async fn carry(btp: &Btp, gatt: Gatt, address: BtAddr) -> Result<(), Error> {
    let Gatt { mtu, writes, mut indications } = gatt;
    let receive = async {
        while let Some(segment) = indications.recv().await {
            btp.process_incoming(mtu, address, &segment)?;
        }
        Ok(())
    };
    let send = async {
        let mut segment = [0; SEGMENT];
        loop {
            let length = btp.process_outgoing(mtu, &mut segment)?;
            if length == 0 {
                btp.wait_outgoing().await;
            } else if writes.send(segment[..length].to_vec()).await.is_err() {
                return Ok(());
            }
        }
    };
    let silent = async {
        btp.wait_timeout().await;
        Err(ErrorCode::RxTimeout.into())
    };
    tokio::select! {
        result = receive => result,
        result = send => result,
        result = silent => result,
    }
}

/// See [`Bluetooth::network`].
pub(super) struct BtpNetwork<C> {
    bluetooth: Bluetooth,
    crypto: C,
}

impl<C: Crypto> NetworkSend for BtpNetwork<C> {
    async fn send_to(&mut self, data: &[u8], address: Address) -> Result<(), Error> {
        let to = address.btp().ok_or(ErrorCode::NoNetworkInterface)?;
        let Inner { watchers, queue, .. } = &*self.bluetooth.0;
        if let Some(datagram) = Datagram::read(data, &self.crypto) {
            watchers.handle_sending(&datagram);
        }
        // Without a connection it is lost, as what is sent to a device that has gone.
        let sent = queue.borrow().as_ref().is_some_and(|queue| queue.try_send((data.to_vec(), to)).is_ok());
        if !sent {
            tracing::debug!("a Matter message for Bluetooth was not sent: there is no connection, or it is too slow");
        }
        Ok(())
    }
}

impl<C: Crypto> NetworkReceive for BtpNetwork<C> {
    async fn wait_available(&mut self) -> Result<(), Error> {
        match self.bluetooth.0.btp.wait_available().await {
            Ok(()) => Ok(()),
            Err(_) => pending().await,
        }
    }

    async fn recv_from(&mut self, buffer: &mut [u8]) -> Result<(usize, Address), Error> {
        loop {
            let (length, from) = self.bluetooth.0.btp.recv(buffer).await?;
            if let Some(datagram) = Datagram::read(&buffer[..length], &self.crypto) {
                let peer = Peer::Bluetooth(BluetoothAddress(from.0));
                if !self.bluetooth.0.watchers.handle_received(peer, &datagram, Instant::now()) {
                    continue;
                }
            }
            return Ok((length, Address::Btp(from)));
        }
    }
}
