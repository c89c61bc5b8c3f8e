//! How everything stands.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Hub;
use super::clock::ClockStatus;
use super::controllers::ControllerCounts;
use super::doctor::DoctorFinding;
use super::keys::FabricInfo;
use super::world::{CloudService, World};
use crate::node::NodeState;
use crate::outbox::ports::OutboxState;
use crate::systemd;

/// Tells how everything stands.
pub trait StatusDoor: Send + Sync + 'static {
    /// How everything stands. Answers at once, also before the daemon is ready.
    fn status(&self) -> impl Future<Output = Status> + Send;
}

/// `status --json`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// Whether discovery and the Matter stack run.
    pub ready: bool,
    /// What is still starting, or has failed; empty if ready.
    pub waiting_for: Vec<String>,
    /// The daemon's version.
    pub version: String,
    /// When the daemon started, by the hub's clock.
    pub started_at: Timestamp,
    /// The daemon's process.
    pub pid: u32,
    /// Our fabric, as soon as it is loaded.
    pub fabric: Option<FabricInfo>,
    /// How many nodes there are in each state.
    pub nodes: NodeCounts,
    /// Commissioning attempts that are under way now.
    pub attempts: u32,
    /// What the cloud has not acknowledged yet.
    pub outbox: OutboxCounts,
    /// How the cloud answered last.
    pub cloud: CloudStatus,
    /// When device, record and cloud of all nodes were last compared; `null`: not since the start.
    #[serde(default)]
    pub compared_at: Option<Timestamp>,
    /// How many nodes last came out how, by verdict.
    #[serde(default)]
    pub verdicts: BTreeMap<String, u64>,
    /// The PAA certificates that attestation trusts.
    #[serde(default)]
    pub trust: TrustStatus,
    /// The hub's clock.
    #[serde(default)]
    pub clock: ClockStatus,
    /// The Bluetooth adapter, or why there is none.
    #[serde(default)]
    pub bluetooth: BluetoothStatus,
    /// Other controllers with certificates of our fabric.
    #[serde(default)]
    pub controllers: ControllerCounts,
    /// What `doctor` last found that somebody should do something about, the worst first.
    #[serde(default)]
    pub findings: Vec<DoctorFinding>,
}

/// How many nodes there are in each state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeCounts {
    /// All nodes of the fabric.
    pub total: u64,
    /// Those that answered when they were last asked.
    pub operational: u64,
    /// Those that did not.
    pub unreachable: u64,
    /// Not known to be complete.
    pub provisional: u64,
    /// Those whose removal has begun and is not done.
    pub removing: u64,
    /// On our fabric, and in no record; not among `total`.
    #[serde(default)]
    pub foreign: u64,
}

/// The outbox's depth.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutboxCounts {
    /// All rows, whatever their state.
    pub total: u64,
    /// Rows that go by themselves.
    pub pending: u64,
    /// Rows that wait for a person.
    pub waiting_for_operator: u64,
    /// Rows that the cloud refused for ever.
    pub rejected: u64,
    /// When the oldest row that is not refused for ever came in.
    #[serde(default)]
    pub oldest_at: Option<Timestamp>,
}

/// Whose devices are genuine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TrustStatus {
    /// PAA certificates that are trusted; none: every device is refused.
    pub paas: u64,
    /// When they were last fetched; `null`: a person put them there.
    pub fetched_at: Option<Timestamp>,
}

/// How the cloud stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CloudStatus {
    /// Whether there is a `[cloud]` section.
    pub configured: bool,
    /// Whether it answered when last asked; `null`: not asked yet.
    pub reachable: Option<bool>,
    /// The service's address, as configured.
    pub base_url: Option<String>,
    /// When it last answered.
    pub last_answer_at: Option<Timestamp>,
    /// Why it did not answer or let us in; empty if it did.
    pub message: String,
    /// When the access token ends.
    pub token_expires_at: Option<Timestamp>,
}

impl<W: World> StatusDoor for Hub<W> {
    async fn status(&self) -> Status {
        let waiting_for = self.health.waiting_for();
        let (nodes, outbox) = self.counts().await;
        Status {
            ready: waiting_for.is_empty(),
            waiting_for,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started_at,
            pid: std::process::id(),
            fabric: Some(self.fabric_info()),
            nodes,
            attempts: self.attempts.count() as u32,
            outbox,
            cloud: self.cloud_status(),
            compared_at: self.syncing.compared_at(),
            verdicts: self.syncing.verdicts(),
            trust: self.judge.status(),
            clock: self.clock.status(),
            bluetooth: self.bluetooth_status().await,
            controllers: self.controller_counts().await,
            findings: self.doctor.troubles(),
        }
    }
}

/// How Bluetooth stands. A hub without it works as well, on the network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BluetoothStatus {
    /// The adapter that is used when a device is looked for.
    pub adapter: Option<String>,
    /// What is missing, where there is none.
    pub missing: Option<String>,
    /// What to do about that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl<W: World> Hub<W> {
    async fn bluetooth_status(&self) -> BluetoothStatus {
        match self.radio.adapter().await {
            Ok(adapter) => BluetoothStatus { adapter: Some(adapter), ..BluetoothStatus::default() },
            Err(why) => {
                let (missing, hint) = (Some(why.to_string()), Some(why.hint().to_owned()));
                BluetoothStatus { adapter: None, missing, hint }
            }
        }
    }

    /// Nodes and rows by state; nothing where the store does not answer.
    pub(super) async fn counts(&self) -> (NodeCounts, OutboxCounts) {
        let Ok(counts) = self.store.counts().await else { return Default::default() };
        let nodes = |state| counts.nodes.get(&state).copied().unwrap_or_default();
        let rows = |state| counts.outbox.get(&state).copied().unwrap_or_default();
        let waiting_for_operator = rows(OutboxState::WaitingForOperator);
        let rejected = rows(OutboxState::Rejected);
        let total = counts.outbox.values().sum();
        (
            NodeCounts {
                total: counts.nodes.values().sum(),
                operational: nodes(NodeState::Operational),
                unreachable: nodes(NodeState::Unreachable),
                provisional: nodes(NodeState::Provisional),
                removing: nodes(NodeState::Removing),
                foreign: self.foreign_nodes().await.map_or(0, |foreign| foreign.len() as u64),
            },
            OutboxCounts {
                total,
                pending: total - waiting_for_operator - rejected,
                waiting_for_operator,
                rejected,
                oldest_at: counts.oldest_at,
            },
        )
    }

    fn cloud_status(&self) -> CloudStatus {
        let Some(client) = &self.cloud else { return CloudStatus::default() };
        let health = client.health();
        CloudStatus {
            configured: true,
            reachable: health.reachable,
            base_url: self.config.cloud.as_ref().map(|cloud| cloud.base_url.clone()),
            last_answer_at: health.last_answer_at,
            message: health.sign_in_blocked.or(health.last_error).unwrap_or_default(),
            token_expires_at: health.token_expires_at,
        }
    }
}

/// How often the service manager's line is written anew: it tells ages in minutes.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Tells the service manager how everything stands, until the daemon stops.
pub(super) async fn tell_service_manager<W: World>(hub: Arc<Hub<W>>) {
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + TELL_EVERY, TELL_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = hub.stop.cancelled() => return,
            _ = ticks.tick() => systemd::status(&line(&hub.status().await, Timestamp::now())),
        }
    }
}

/// One line, with the age of what it says.
fn line(status: &Status, now: Timestamp) -> String {
    let (nodes, outbox) = (status.nodes, status.outbox);
    let minutes = |at: Timestamp| (now.duration_since(at).as_secs().max(0) / 60).to_string();
    let compared =
        status.compared_at.map_or("not compared yet".to_owned(), |at| format!("compared {} min ago", minutes(at)));
    let cloud = match (status.cloud.configured, status.cloud.reachable, status.cloud.last_answer_at) {
        (false, _, _) => "no cloud".to_owned(),
        (true, Some(false), Some(at)) => format!("cloud not reachable, answered {} min ago", minutes(at)),
        (true, _, Some(at)) => format!("cloud answered {} min ago", minutes(at)),
        (true, _, None) => "cloud has not answered yet".to_owned(),
    };
    let waits = if status.ready { String::new() } else { format!("waiting for {}; ", status.waiting_for.join(", ")) };
    format!(
        "{waits}{} nodes, {} unreachable, {compared}; {} rows in the outbox; {cloud}",
        nodes.total, nodes.unreachable, outbox.total
    )
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn the_line_for_the_service_manager_tells_its_age() {
        let now = Timestamp::UNIX_EPOCH + SignedDuration::from_mins(10);
        let status = Status {
            ready: true,
            waiting_for: Vec::new(),
            version: String::new(),
            started_at: Timestamp::UNIX_EPOCH,
            pid: 1,
            fabric: None,
            nodes: NodeCounts { total: 3, unreachable: 1, ..NodeCounts::default() },
            attempts: 0,
            outbox: OutboxCounts::default(),
            cloud: CloudStatus {
                configured: true,
                reachable: Some(true),
                last_answer_at: Some(Timestamp::UNIX_EPOCH + SignedDuration::from_mins(7)),
                ..CloudStatus::default()
            },
            compared_at: Some(Timestamp::UNIX_EPOCH),
            verdicts: BTreeMap::new(),
            trust: TrustStatus::default(),
            clock: ClockStatus::default(),
            bluetooth: BluetoothStatus::default(),
            controllers: ControllerCounts::default(),
            findings: Vec::new(),
        };
        let expected = "3 nodes, 1 unreachable, compared 10 min ago; 0 rows in the outbox; cloud answered 3 min ago";
        assert_eq!(line(&status, now), expected);
    }
}
