//! What was seen of the hub, before anybody says what it means. Whatever could not be looked at is absent, and nothing is said of
//! it. Not here: looking (`machine`, `live`, `offline`), judging (`judge`).

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::cloud::{CloudHealth, Look};
use crate::commissioning::radio::BluetoothUnavailable;
use crate::discovery::Survey;
use crate::hub::clock::ClockStatus;
use crate::node::NodeId;
use crate::store::Examined;

#[derive(Debug, Clone, Default, Serialize)]
pub struct Facts {
    /// When it was looked at, by the hub's own clock.
    pub at: Timestamp,
    pub daemon: Option<Daemon>,
    /// Why there is none to ask, where somebody wanted to.
    pub absent: Option<Absent>,
    pub network: Option<Network>,
    pub radio: Option<Radio>,
    /// What guards this machine's ports.
    pub firewall: Firewall,
    /// Addresses of nodes to which this machine knows no way.
    pub routes: Option<Routes>,
    pub clock: Option<ClockStatus>,
    pub state: Option<Examined>,
    /// Whether the fabric's keys are sealed; within, `None`: there are no keys.
    pub sealed: Option<Option<bool>>,
    pub trust: Option<Trust>,
    /// The cloud; within, `None`: none is configured.
    pub cloud: Option<Option<Cloud>>,
    /// This process and its limits.
    pub process: Option<Process>,
    pub unit: Option<Unit>,
    /// Which versions are at work.
    pub versions: Option<Versions>,
}

/// What a running daemon knows of itself.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Daemon {
    /// What does not work, besides discovery.
    pub faults: Vec<String>,
    /// Why no device can be found.
    pub deaf: Option<String>,
    /// Where devices answer to.
    pub matter_port: Option<u16>,
    /// Nodes in the record.
    pub nodes: u64,
    /// Those that do not answer.
    pub unreachable: u64,
    /// Nodes of our fabric without a record.
    pub foreign: u64,
    /// Outbox rows that wait for a person, or that the cloud refused for ever.
    pub stuck_rows: u64,
    /// Outbox rows that go by themselves.
    pub pending_rows: u64,
}

/// A daemon that cannot be asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Absent {
    /// As the command line says it.
    pub why: String,
    /// Whether it may run, and only this user may not ask it.
    pub denied: bool,
}

/// The network, and what is configured of it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Network {
    /// `network.interfaces`
    pub configured: Vec<String>,
    pub survey: Survey,
}

/// Bluetooth, or why there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Radio {
    /// The adapter that is used when a device is looked for.
    pub adapter: Option<String>,
    pub missing: String,
    /// What to do about it.
    pub hint: String,
    /// Whether something is wrong, and not only not there.
    pub amiss: bool,
}

impl From<Result<String, BluetoothUnavailable>> for Radio {
    fn from(adapter: Result<String, BluetoothUnavailable>) -> Self {
        match adapter {
            Ok(name) => Self { adapter: Some(name), ..Self::default() },
            Err(why) => {
                let (hint, amiss) = (why.hint().to_owned(), why.is_amiss());
                Self { adapter: None, missing: why.to_string(), hint, amiss }
            }
        }
    }
}

/// What guards this machine's ports, as far as it shows itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Firewall {
    /// Programs that are switched on: `ufw`, `firewalld`.
    pub managers: Vec<String>,
    /// Chains that drop what no rule of theirs lets in, and whether one of their table's rules names the ports.
    pub dropping: Vec<DroppingChain>,
}

/// An input chain whose policy is to drop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DroppingChain {
    /// `inet filter input`
    pub name: String,
    /// Whether a rule beside it names mDNS's port.
    pub names_mdns: bool,
}

/// The ways to the nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Routes {
    /// How many addresses were tried.
    pub tried: usize,
    /// Nodes of which not one address can be sent to.
    pub without: Vec<Unroutable>,
}

/// A node to which there is no way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unroutable {
    pub node_id: NodeId,
    pub name: String,
    /// The address that it had last.
    pub address: String,
    /// What the kernel says.
    pub why: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Trust {
    /// PAA certificates that count.
    pub paas: usize,
    /// Files that were left out.
    pub left_out: usize,
    pub directories: Vec<PathBuf>,
    /// When it was last fetched.
    pub fetched_at: Option<Timestamp>,
    /// The ledger that is asked by itself; empty: none.
    pub source: String,
    /// Whether devices that are not genuine are let in.
    pub lenient: bool,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct Cloud {
    /// How it answered the daemon's own calls.
    pub health: Option<CloudHealth>,
    /// The way there, where it was gone.
    pub look: Option<Look>,
}

/// A process and its limits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Process {
    /// Whether a service manager started it and waits to hear from it.
    pub managed: bool,
    /// How often the watchdog wants to hear from it, at least.
    pub watchdog: Option<Duration>,
    /// Open files, and how many there may be.
    pub files: Option<(u64, u64)>,
    /// Memory of the unit, and how much it may have.
    pub memory: Option<(u64, u64)>,
    /// Whether its program was replaced on the disk since it started.
    pub replaced: bool,
}

/// What systemd says of the unit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Unit {
    /// `loaded`, `not-found`, …
    pub load: String,
    /// `active`, `failed`, …
    pub active: String,
    /// `success`, `exit-code`, `start-limit-hit`, `oom-kill`, `watchdog`, …
    pub result: String,
    /// How its last main process ended.
    pub exit_status: Option<i32>,
    /// How often systemd has started it again.
    pub restarts: u32,
    /// Whether its files were changed and not read since.
    pub needs_reload: bool,
    /// Whether it starts with the machine.
    pub enabled: bool,
    /// Files of credentials that the unit names and that are not there: name and path.
    pub lost_credentials: Vec<(String, PathBuf)>,
}

/// Which versions are at work.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Versions {
    /// The version of this program.
    pub matterbind: String,
    /// Of the daemon, where somebody else looks.
    pub daemon: Option<String>,
    /// Kernel and machine.
    pub kernel: String,
    pub system: String,
}
