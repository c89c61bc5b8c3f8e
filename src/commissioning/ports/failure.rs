//! Why a device was not found, or did not do what it was asked. Not here: who can do something about it (`commissioning::error`).

use std::net::SocketAddr;
use std::time::Duration;

use crate::commissioning::radio::BluetoothUnavailable;
use crate::node::{Announced, CommissionableNode, Peer};
use crate::onboarding::Discriminator;

/// Why a command to a device did not do what it should. Ordered by what a person would do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// SPAKE2+ confirmation failed: the device's passcode is another one. It has counted one of its twenty tries.
    #[error("the device refused the passcode")]
    WrongPasscode,
    /// The device answered PASE with a status report before any passcode was proved: its window is closed.
    #[error("the device does not accept a commissioner now")]
    WindowClosed,
    /// Another commissioner is at work, or the device asked us to wait.
    #[error("the device is busy")]
    Busy,
    /// No session came about at any of the addresses, and nobody refused one.
    #[error("no answer: {}", list(.tried))]
    Unreachable {
        /// Every address that was tried, in that order, and what became of it.
        tried: Vec<(Peer, NoAnswer)>,
    },
    /// It did not answer, and is a device with long idle times that is not due yet: it hears nothing before it checks in.
    #[error("the device sleeps: it hears nothing before it checks in, which it does every {} at least", spoken(*every))]
    Asleep {
        /// How often it wakes by itself at least.
        every: Duration,
        /// What a person does to wake it now.
        wake: String,
    },
    /// NO_SHARED_TRUST_ROOTS in answer to this very handshake (Matter Core 4.14.2.2): what is at that address holds no
    /// certificate of our fabric for this node. Whether it is our device is another question: addresses are given away.
    #[error("what answers at {peer} is not on our fabric")]
    NoSharedTrustRoots {
        /// Who says so.
        peer: SocketAddr,
    },
    /// The handshake was refused in another way (INVALID_PARAMETER and the like). A lost or repeated datagram is enough for
    /// that, so it proves nothing about what the device holds; it was tried again in fresh handshakes.
    #[error("the handshake was refused by {peer} with status {code}")]
    HandshakeRefused {
        /// Where the refusal came from.
        peer: Peer,
        /// The secure channel's ProtocolCode: 2 is INVALID_PARAMETER.
        code: u16,
    },
    /// Somebody answers who cannot show the certificate of that node.
    #[error("what answers at {peer} is another node")]
    NotThatNode {
        /// Where the session was to be opened.
        peer: SocketAddr,
    },
    /// The Bluetooth connection under the session has ended.
    #[error("the Bluetooth connection to the device was lost")]
    BluetoothLost,
    /// A NetworkCommissioningStatusEnum other than Success (Matter Core 11.9.5.3).
    #[error("the device answered networking status {status}{}", quoted(.text))]
    Networking {
        /// 5 NetworkNotFound, 7 AuthFailure, 10 IPV6Failed, 11 IPBindFailed, …
        status: u8,
        /// DebugText.
        text: String,
    },
    /// The session was closed or has expired while a command was under way.
    #[error("the session with the device is gone")]
    SessionLost,
    /// An Interaction Model status other than success (Matter Core 8.10).
    #[error("the device answered {name} ({status:#04x}){}", cluster.map(|c| format!(", cluster status {c:#04x}")).unwrap_or_default())]
    Status {
        /// The status code.
        status: u16,
        /// Its name, for instance `ConstraintError`.
        name: String,
        /// The cluster's own status.
        cluster: Option<u16>,
    },
    /// A CommissioningErrorEnum other than OK (Matter Core 11.10.5.1).
    #[error("the device answered commissioning error {code}{}", quoted(.text))]
    Commissioning {
        /// 1 ValueOutsideRange, 2 InvalidAuthentication, 3 NoFailSafe, 4 BusyWithOtherAdmin, …
        code: u8,
        /// DebugText.
        text: String,
    },
    /// A NodeOperationalCertStatusEnum other than OK (Matter Core 11.18.4.3).
    #[error("the device answered certificate status {code}{}", quoted(.text))]
    NocStatus {
        /// 1 InvalidPublicKey, 3 InvalidNOC, 5 TableFull, 9 FabricConflict, 11 InvalidFabricIndex, …
        code: u8,
        /// DebugText.
        text: String,
    },
    /// The answer does not decode or lacks what it must have.
    #[error("the device's answer is malformed: {what}")]
    Malformed {
        /// What was read, and what is wrong with it.
        what: String,
    },
    /// The hub's own Matter stack failed: out of sessions, socket closed, stopped.
    #[error("the hub's Matter stack failed: {what}")]
    Stack {
        /// What it says.
        what: String,
    },
}

/// Why an address gave no session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// Not a single datagram came back.
    #[error("is silent")]
    Silent,
    /// The handshake began and did not come to its end.
    #[error("answered, but not to the end")]
    Incomplete,
    /// The hub has no way there: no route, no such interface.
    #[error("cannot be reached from here ({0})")]
    NoRoute(String),
    /// Bluetooth: no connection came about.
    #[error("cannot be connected to ({0})")]
    NoConnection(String),
    /// The time was over before its turn came.
    #[error("was not tried in time")]
    NotTried,
}

fn list(tried: &[(Peer, NoAnswer)]) -> String {
    if tried.is_empty() {
        return "no address of the device is known, or the time was over".to_owned();
    }
    tried.iter().map(|(address, why)| format!("{address} {why}")).collect::<Vec<_>>().join(", ")
}

/// In the largest unit that fits, rounded up.
fn spoken(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds.div_ceil(60)),
        seconds => format!("{} h", seconds.div_ceil(3600)),
    }
}

fn quoted(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text:?}") }
}

fn others_are(count: usize) -> String {
    if count == 1 { "1 other device is".to_owned() } else { format!("{count} other devices are") }
}

/// A search for one device came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiscoverError {
    /// Nobody advertises it.
    #[error("no commissionable device with {discriminator} within {:.0} s; {} commissionable now{}", waited.as_secs_f64(), others_are(others.len()), not_over_bluetooth(bluetooth.as_ref()))]
    NotFound {
        /// What was looked for.
        discriminator: Discriminator,
        /// From the beginning of the search on.
        waited: Duration,
        /// What else advertises itself.
        others: Vec<Announced>,
        /// Why it was not looked for over Bluetooth, where it was not.
        bluetooth: Option<BluetoothUnavailable>,
    },
    /// Every device that fits the code has had to bear as many refused tries as it may.
    #[error("{} devices fit this code, and none of them may be tried again now: {}", candidates.len(), candidates.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Ambiguous {
        /// All of them.
        candidates: Vec<Announced>,
    },
    /// The device is there and says that its window is closed (`CM=0`).
    #[error("the device advertises itself, but is not in commissioning mode")]
    NotInCommissioningMode {
        /// As it announces itself now.
        node: Box<CommissionableNode>,
    },
    /// mDNS does not run.
    #[error("discovery does not run: {0}")]
    Unavailable(String),
    /// The code says that the device is on Bluetooth only, and the hub has none.
    #[error("the code is for a device that is on Bluetooth, and Bluetooth cannot be used: {0}")]
    NoBluetooth(BluetoothUnavailable),
}

fn not_over_bluetooth(why: Option<&BluetoothUnavailable>) -> String {
    why.map(|why| format!("; it was not looked for over Bluetooth: {why}")).unwrap_or_default()
}
