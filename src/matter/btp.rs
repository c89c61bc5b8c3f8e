//! Matter over Bluetooth: BTP (Matter Core 4.19) between a connection's GATT writes and indications and rs-matter.
//!
//! The protocol itself, segments, windows and acknowledgements, is rs-matter's `Btp`. There is one, so there is one connection at a
//! time. `pump` carries its segments; the rest keeps a slow or vanished device from holding up everything else: rs-matter's
//! transport waits for whatever it sends, so what is for Bluetooth goes into a queue and is taken from there. A connection that the
//! hub ends first says what was to be said. Not here: the radio (`bluetooth`), what rs-matter sends and receives by (`network`).

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use rs_matter::crypto::Crypto;
use rs_matter::error::{Error, ErrorCode};
use rs_matter::transport::network::btp::Btp;
use rs_matter::transport::network::{Address, BtAddr};
use tokio::sync::{Mutex, mpsc};
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::commissioning::ports::{LinkError, NoAnswer};
use crate::commissioning::radio::{Gatt, Radio};
use crate::matter::datagram::Datagram;
use crate::matter::heard::Watchers;
use crate::matter::stack::Stack;
use crate::node::{BluetoothAddress, Peer};

/// Messages that wait for the radio. An exchange has one under way, so more than a few are repetitions.
const QUEUE: usize = 8;
const SEGMENT: usize = 512;
/// Connecting may take so much of the time that a PASE session may.
const CONNECT_SHARE: f64 = 0.75;
/// So long a connection may go on when the hub ends it, for what the device is still to be told: why it was refused, for instance.
const FAREWELL: Duration = Duration::from_secs(1);
/// What rs-matter has been given to send is in the queue by then.
const HANDED_OVER: Duration = Duration::from_millis(30);

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
        let result = context.bluetooth.pump(gatt, address, ended).await;
        tracing::debug!(%address, ?result, "the Bluetooth connection has ended");
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
    pub(crate) fn lost(&self) -> CancellationToken {
        self.lost.clone()
    }

    /// The work's outcome, unless the connection ends before.
    pub(crate) async fn or_lost<T>(&self, work: impl Future<Output = Result<T, LinkError>>) -> Result<T, LinkError> {
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
    /// Messages in the queue, or not sent to their end.
    unsent: Cell<usize>,
    /// The connection's that is served.
    turn: Mutex<()>,
}

impl Bluetooth {
    pub(super) fn new(watchers: Watchers) -> Self {
        let (queue, unsent, turn) = (RefCell::default(), Cell::default(), Mutex::default());
        Self(Rc::new(Inner { btp: Btp::new(), watchers, queue, unsent, turn }))
    }

    /// Carries segments as the central until the connection ends, or the hub ends it.
    async fn pump(&self, gatt: Gatt, address: BluetoothAddress, end: CancellationToken) -> Result<(), Error> {
        let Inner { btp, unsent, turn, .. } = &*self.0;
        // The one before may still have something to say.
        let _turn = turn.lock().await;
        if end.is_cancelled() {
            return Ok(());
        }
        let (queue, mut queued) = mpsc::channel(QUEUE);
        btp.reset();
        btp.set_initiator(true);
        unsent.set(0);
        *self.0.queue.borrow_mut() = Some(queue);
        let feed = async {
            while let Some((message, to)) = queued.recv().await {
                btp.send(&message, to).await?;
            }
            Ok(())
        };
        let all_is_said = async {
            end.cancelled().await;
            sleep(HANDED_OVER).await;
            while unsent.get() > 0 {
                sleep(HANDED_OVER).await;
            }
        };
        let overdue = async {
            end.cancelled().await;
            sleep(FAREWELL).await;
            Err(ErrorCode::TxTimeout.into())
        };
        let sent = |segment: &[u8]| {
            if ends_message(segment) {
                unsent.update(|count| count.saturating_sub(1));
            }
        };
        let result = tokio::select! {
            result = carry(btp, gatt, BtAddr(address.0), sent, all_is_said) => result,
            result = feed => result,
            result = overdue => result,
        };
        self.close();
        result
    }

    /// Hands a message on to be sent. Without a connection it is lost, as what is sent to a device that has gone.
    pub(super) fn send(&self, data: &[u8], to: BtAddr, crypto: &impl Crypto) {
        let Inner { watchers, queue, unsent, .. } = &*self.0;
        if let Some(datagram) = Datagram::read(data, crypto) {
            watchers.handle_sending(&datagram);
        }
        if queue.borrow().as_ref().is_some_and(|queue| queue.try_send((data.to_vec(), to)).is_ok()) {
            unsent.update(|count| count + 1);
        } else {
            tracing::debug!("a Matter message for Bluetooth was not sent: there is no connection, or it is too slow");
        }
    }

    /// Comes back when a message is there.
    pub(super) async fn wait_available(&self) {
        if self.0.btp.wait_available().await.is_err() {
            pending().await
        }
    }

    /// The message that is there. Nothing where it went with its connection, or where rs-matter must not see it.
    pub(super) fn take(&self, buffer: &mut [u8], crypto: &impl Crypto) -> Option<(usize, Address)> {
        let (length, from) = match self.0.btp.recv(buffer).now_or_never()? {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, "what came over Bluetooth cannot be read");
                self.0.btp.reset();
                return None;
            }
        };
        let peer = Peer::Bluetooth(BluetoothAddress(from.0));
        let is_shown = Datagram::read(&buffer[..length], crypto)
            .is_none_or(|datagram| self.0.watchers.handle_received(peer, &datagram, Instant::now()));
        is_shown.then_some((length, Address::Btp(from)))
    }

    fn close(&self) {
        *self.0.queue.borrow_mut() = None;
        self.0.btp.reset();
    }
}

/// Whether a segment is the last of a message: flags Ending Segment, and not Handshake (4.19.3.1).
fn ends_message(segment: &[u8]) -> bool {
    segment.first().is_some_and(|flags| flags & 0b0100_0100 == 0b0000_0100)
}

/// Carries segments between a connection and `btp` until one of them ends, or until `end`: then the radio still writes what it has.
/// `sent` is told of each segment that was given to the radio.
///
/// # Errors
/// What came is no BTP: a segment was lost or came out of its order, and the connection cannot go on (4.19.4.5).
pub(crate) async fn carry(
    btp: &Btp,
    gatt: Gatt,
    address: BtAddr,
    sent: impl Fn(&[u8]),
    end: impl Future<Output = ()>,
) -> Result<(), Error> {
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
            } else {
                sent(&segment[..length]);
            }
        }
    };
    let silent = async {
        btp.wait_timeout().await;
        Err(ErrorCode::RxTimeout.into())
    };
    tokio::select! {
        result = receive => return result,
        result = send => return result,
        result = silent => return result,
        () = end => {}
    }
    drop(writes);
    while indications.recv().await.is_some() {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use futures_util::future::join3;

    use super::*;
    use crate::matter::credentials::backend;

    const MTU: Option<u16> = Some(247);
    const DEVICE: BluetoothAddress = BluetoothAddress([2; 6]);
    const HUB: BtAddr = BtAddr([1; 6]);

    impl Bluetooth {
        /// A device that connected to the hub says something, which fits one segment.
        pub(in crate::matter) fn hear(&self, message: &[u8]) {
            let btp = &self.0.btp;
            btp.reset();
            btp.set_initiator(false);
            let handshake = [0x65, 0x6c, 0x54, 0, 0, 0, 0xc8, 0, 5];
            btp.process_incoming(MTU, HUB, &handshake).unwrap();
            assert!(btp.process_outgoing(MTU, &mut [0; SEGMENT]).unwrap() > 0);
            let length = u16::try_from(message.len()).unwrap().to_le_bytes();
            btp.process_incoming(MTU, HUB, &[&[5, 0], &length[..], message].concat()).unwrap();
        }
    }

    /// A connection whose radio takes one segment at a time, and the device's end of it.
    fn connection() -> (Gatt, mpsc::Receiver<Vec<u8>>, mpsc::Sender<Vec<u8>>) {
        let ((writes, written), (indicate, indications)) = (mpsc::channel(1), mpsc::channel(1));
        (Gatt { mtu: MTU, writes, indications }, written, indicate)
    }

    #[tokio::test]
    async fn what_was_to_be_said_is_said_before_the_hub_ends_the_connection() {
        let (hub, device, end) = (Bluetooth::new(Watchers::default()), Btp::new(), CancellationToken::new());
        let (gatt, mut written, indicate) = connection();
        // Three segments, and the handshake before them.
        let message = [7; 700];
        let device_lives = async {
            while let Some(segment) = written.recv().await {
                device.process_incoming(MTU, HUB, &segment).unwrap();
                let mut answer = [0; SEGMENT];
                let length = device.process_outgoing(MTU, &mut answer).unwrap();
                if length > 0 {
                    indicate.send(answer[..length].to_vec()).await.unwrap();
                }
            }
            drop(indicate);
        };
        let hub_ends = async {
            hub.send(&message, BtAddr(DEVICE.0), &backend());
            end.cancel();
        };
        let (result, ..) = join3(hub.pump(gatt, DEVICE, end.clone()), device_lives, hub_ends).await;
        assert!(result.is_ok(), "{result:?}");
        let mut buffer = [0; 1280];
        let (length, _) = device.recv(&mut buffer).now_or_never().expect("it has come").unwrap();
        assert_eq!(buffer[..length], message);
    }

    #[tokio::test]
    async fn a_device_that_takes_nothing_does_not_hold_the_end_up_for_long() {
        let (hub, end, began) = (Bluetooth::new(Watchers::default()), CancellationToken::new(), Instant::now());
        let (gatt, _written, _indicate) = connection();
        let hub_ends = async {
            hub.send(&[7; 700], BtAddr(DEVICE.0), &backend());
            end.cancel();
        };
        // Another device's, which is lost at once; it gets its turn.
        let (lost, ..) = connection();
        let waits = hub.pump(lost, DEVICE, CancellationToken::new());
        let (result, (), next) = join3(hub.pump(gatt, DEVICE, end.clone()), hub_ends, waits).await;
        assert!(result.is_err() && next.is_ok(), "{result:?}, {next:?}");
        assert!(began.elapsed() < FAREWELL * 5, "{:?}", began.elapsed());
    }
}
