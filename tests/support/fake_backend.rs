//! A daemon that only pretends: two nodes, one outbox row, and attempts whose outcome the setup code decides.

use std::io::{Seek, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use jiff::Timestamp;
use matterbind::facade::admin::server::{AdminOptions, AdminServer};
use matterbind::facade::admin::wire::{
    BindOrder, BindResult, BluetoothStatus, CloseResult, CloudStatus, CommissionEvent, CommissionRequest,
    CommissionResult, Diagnosis, DifferingField, DiscoverChange, DiscoverQuery, Discovered, DiscoveredNode,
    DoctorFinding, DoctorSeverity, FabricInfo, Failure, LogQuery, NodeCheck, NodeComparison, NodeCounts, NodeDetail,
    NodeRef, NodeSync, Nodes, NodesQuery, Outbox, OutboxCounts, OutboxItem, Refusal, RemoveResult, ShareResult, Status,
    SyncReport, Timings, Verdict,
};
use matterbind::facade::backup::{Identity, Lock, Recipient, Unlock, decrypt, encrypt};
use matterbind::facade::bind::{BindState, BindStatus};
use matterbind::facade::commissioning::error::CommissioningError;
use matterbind::facade::commissioning::ports::DiscoverError;
use matterbind::facade::commissioning::step::Step;
use matterbind::facade::fabric::{Cat, CatGrant, Privilege};
use matterbind::facade::hub::doors::{
    BindingDoor, CommissionDoor, DiscoverDoor, DoctorDoor, Intent, InventoryDoor, KeysDoor, LogDoor, OutboxDoor,
    ProgressSink, RemovalDoor, SharingDoor, StatusDoor, StrangersDoor, SyncDoor, SyncProgress,
};
use matterbind::facade::journal::{Event, Level};
use matterbind::facade::node::{
    AttestationSummary, BluetoothNode, CommissionableNode, CommissionableTxt, FabricId, NodeId, NodeRecord, NodeState,
    ScopedAddress, sample,
};
use matterbind::facade::onboarding::{Discriminator, SetupCode};
use matterbind::facade::outbox::ports::OutboxState;
use matterbind::facade::secret::OperatorSecret;
use matterbind::facade::telemetry::metrics::Metrics;
use tokio::sync::{Notify, broadcast, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

#[path = "fake_controllers.rs"]
pub mod fake_controllers;

/// A code that is commissioned and bound.
pub const GOOD: &str = "34970112332";
/// A code whose attempt waits for [`Fake::go_on`] after its first step.
pub const SLOW: &str = "MT:SLOW";
/// A code whose device is not there.
pub const ABSENT: &str = "MT:ABSENT";
/// Codes whose bind ends otherwise.
pub const PENDING: &str = "MT:PENDING";
pub const REJECTED: &str = "MT:REJECTED";
/// A code whose device waits for a network that lets it in, until [`Fake::go_on`].
pub const WAITS: &str = "MT:WAITS";
/// A code whose device wants its terms accepted.
pub const TERMS: &str = "MT:TERMS";

pub struct Fake {
    pub events: broadcast::Sender<Event>,
    pub go_on: Notify,
    pub finished: Notify,
    pub attempts: AtomicU32,
    pub wrong_tokens: AtomicU32,
    pub last_request: std::sync::Mutex<Option<CommissionRequest>>,
    pub nodes: std::sync::Mutex<Vec<NodeRecord>>,
    pub bluetooth: std::sync::Mutex<BluetoothStatus>,
}

impl Default for Fake {
    fn default() -> Self {
        Self {
            events: broadcast::channel(16).0,
            go_on: Notify::new(),
            finished: Notify::new(),
            attempts: AtomicU32::new(0),
            wrong_tokens: AtomicU32::new(0),
            last_request: std::sync::Mutex::default(),
            nodes: std::sync::Mutex::new(vec![
                node(1000, "Hall lamp", NodeState::Operational, BindState::Bound),
                node(1001, "Attic/1", NodeState::Unreachable, BindState::Pending),
            ]),
            bluetooth: std::sync::Mutex::new(BluetoothStatus {
                adapter: Some("hci0".to_owned()),
                ..BluetoothStatus::default()
            }),
        }
    }
}

pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_795_377_600 + seconds).unwrap()
}

pub fn entry(id: i64, level: Level, node: u64, message: &str) -> Event {
    let mut event =
        Event::new(at(id), level, "node-commissioned", message).with_node(NodeId(node)).with("step", "record");
    event.id = id;
    event
}

pub fn node(id: u64, name: &str, state: NodeState, bind: BindState) -> NodeRecord {
    let bound = bind == BindState::Bound;
    let findings = serde_json::json!([{ "code": "test-paa", "severity": "info", "message": "a public test PAA" }]);
    let findings = serde_json::from_value(findings).unwrap();
    NodeRecord {
        fabric_id: FabricId(1_234_567),
        product_id: 0x8001,
        vendor_name: "Acme".to_owned(),
        serial_number: Some("VD0001".to_owned()),
        cats: vec![CatGrant { cat: Cat::new(0x0001_0001).unwrap(), privilege: Privilege::Administer }],
        device_key: Some("VD0001".to_owned()),
        name: name.to_owned(),
        attestation: AttestationSummary { verdict: "accepted".to_owned(), findings },
        commissioned_at: at(0),
        last_seen_at: Some(at(60)),
        state,
        bind: BindStatus {
            state: bind,
            code: bound.then_some(200),
            message: if bound { String::new() } else { "the cloud could not be reached".to_owned() },
            tries: 1,
            bound_at: bound.then(|| at(1)),
            confirmed_at: bound.then(|| at(2)),
        },
        ..sample(id)
    }
}

impl Fake {
    async fn attempt(&self, request: &CommissionRequest, progress: &ProgressSink) -> CommissionResult {
        let attempt_id = Uuid::from_u128(
            0x0193_a1b2_0000_7000_8000_0000_0000_0000 + u128::from(self.attempts.load(Ordering::SeqCst)),
        );
        progress.report(CommissionEvent::Accepted { attempt_id });
        let code = request.setup_code.expose();
        if !code.starts_with("MT:")
            && let Err(error) = SetupCode::new(code).parse()
        {
            return CommissionResult::Failed(Failure::new(attempt_id, &error.into()));
        }
        progress.report(CommissionEvent::StepFinished { step: Step::Parse, duration_ms: 0 });
        if code == SLOW {
            self.go_on.notified().await;
        }
        progress.report(CommissionEvent::StepStarted { step: Step::Discover });
        if code == ABSENT {
            let waited = std::time::Duration::from_secs(30);
            let error = DiscoverError::NotFound {
                discriminator: Discriminator::Long(3840),
                waited,
                others: Vec::new(),
                bluetooth: None,
            };
            return CommissionResult::Failed(Failure::new(attempt_id, &CommissioningError::Discover(error)));
        }
        if code == TERMS && request.accept_terms.is_none() {
            let error = CommissioningError::TermsRequired { version: 1, accepted: None };
            return CommissionResult::Failed(Failure::new(attempt_id, &error));
        }
        if code == WAITS {
            progress.report(CommissionEvent::StepStarted { step: Step::Network });
            progress.report(CommissionEvent::Waiting {
                code: "wifi-password-wrong".to_owned(),
                message: "the device could not join \"Home\": the password was refused (networking status 7); the device waits up to 180 s for other credentials"
                    .to_owned(),
                hint: "set the password again: `matterbind network set wifi SSID`, then try again".to_owned(),
                left_ms: 180_000,
            });
            self.go_on.notified().await;
        }
        for step in Step::ALL[1..].iter().filter(|step| code == WAITS || **step != Step::Network) {
            progress.report(CommissionEvent::StepFinished { step: *step, duration_ms: 12 });
        }
        let state = match code {
            PENDING => BindState::Pending,
            REJECTED => BindState::Rejected,
            _ if request.no_bind => BindState::Disabled,
            _ => BindState::Bound,
        };
        let name = request.name.as_deref().unwrap_or("Light");
        let node = node(1000, name, NodeState::Operational, state);
        let bind = node.bind.clone();
        progress.report(CommissionEvent::Bind { bind: bind.clone() });
        CommissionResult::Commissioned {
            attempt_id,
            node: Box::new(node),
            bind,
            timings_ms: Timings { total: 187, ..Timings::default() },
            replaces: None,
        }
    }

    pub fn all(&self) -> Vec<NodeRecord> {
        self.nodes.lock().unwrap().clone()
    }

    fn known(&self, id: NodeId) -> Result<NodeRecord, Refusal> {
        let found = self.all().into_iter().find(|node| node.node_id == id);
        found.ok_or_else(|| Refusal::unknown_node(&NodeRef::Id(id)))
    }
}

impl StatusDoor for Fake {
    async fn status(&self) -> Status {
        let nodes = self.all();
        let total = nodes.len() as u64;
        let operational = nodes.iter().filter(|node| node.state == NodeState::Operational).count() as u64;
        Status {
            ready: true,
            waiting_for: Vec::new(),
            version: "0.1.0".to_owned(),
            started_at: at(0),
            pid: 42,
            fabric: self.fabric().await.ok(),
            nodes: NodeCounts { total, operational, unreachable: total - operational, ..NodeCounts::default() },
            attempts: 0,
            outbox: OutboxCounts { total: 1, pending: 1, ..OutboxCounts::default() },
            cloud: CloudStatus {
                configured: true,
                reachable: Some(false),
                base_url: Some("https://iot-api.acceleronix.io".to_owned()),
                message: "no route to host".to_owned(),
                ..CloudStatus::default()
            },
            compared_at: None,
            verdicts: Default::default(),
            trust: Default::default(),
            clock: Default::default(),
            controllers: Default::default(),
            findings: vec![finding()],
            bluetooth: self.bluetooth.lock().unwrap().clone(),
        }
    }
}

/// What the doctor finds.
fn finding() -> DoctorFinding {
    DoctorFinding {
        id: "trust-store-empty".to_owned(),
        severity: DoctorSeverity::Error,
        seen: "No PAA certificate is trusted.".to_owned(),
        hint: "`matterbind attestation update-paa` fetches them".to_owned(),
    }
}

impl DoctorDoor for Fake {
    async fn doctor(&self) -> Diagnosis {
        Diagnosis { verdict: DoctorSeverity::Error, at: at(0), daemon: true, findings: vec![finding()] }
    }
}

impl CommissionDoor for Fake {
    async fn commission(
        &self,
        request: CommissionRequest,
        progress: ProgressSink,
    ) -> Result<CommissionResult, Refusal> {
        self.attempts.fetch_add(1, Ordering::SeqCst);
        let result = self.attempt(&request, &progress).await;
        *self.last_request.lock().unwrap() = Some(request);
        self.finished.notify_one();
        Ok(result)
    }
}

impl InventoryDoor for Fake {
    async fn nodes(&self, query: &NodesQuery) -> Result<Nodes, Refusal> {
        let after = query.after.unwrap_or_default();
        let nodes = self.all().into_iter().filter(|node| node.node_id.0 > after);
        Ok(Nodes { nodes: nodes.take(query.limit.unwrap_or(u32::MAX) as usize).collect(), foreign: Vec::new() })
    }

    async fn resolve(&self, node: &NodeRef) -> Result<NodeId, Refusal> {
        match node {
            NodeRef::Id(id) => Ok(*id),
            NodeRef::Name(name) => {
                let found = self.all().into_iter().find(|node| node.name == *name);
                found.map(|node| node.node_id).ok_or_else(|| Refusal::unknown_node(node))
            }
        }
    }

    async fn node(&self, node: NodeId) -> Result<NodeDetail, Refusal> {
        Ok(NodeDetail { node: self.known(node)?, attestation_evidence: serde_json::json!({ "dac": "MIIB" }) })
    }

    async fn check(&self, node: NodeId) -> Result<NodeCheck, Refusal> {
        let record = self.known(node)?;
        let reachable = record.state == NodeState::Operational;
        Ok(NodeCheck {
            node_id: node,
            reachable,
            address: reachable.then(|| "[fe80::1%2]:5540".to_owned()),
            duration_ms: 21,
            message: if reachable { String::new() } else { "no answer from [fe80::1%2]:5540".to_owned() },
            device: serde_json::Value::Null,
            differences: Vec::new(),
        })
    }

    async fn identify(&self, node: NodeId, _: u16) -> Result<(), Refusal> {
        self.known(node).map(|_| ())
    }

    async fn rename(&self, node: NodeId, name: String) -> Result<NodeRecord, Refusal> {
        Ok(NodeRecord { name, ..self.known(node)? })
    }

    async fn move_to(&self, node: NodeId, room_id: String) -> Result<NodeRecord, Refusal> {
        Ok(NodeRecord { room_id: Some(room_id), ..self.known(node)? })
    }
}

impl SharingDoor for Fake {
    async fn close_window(&self, node: NodeId) -> Result<CloseResult, Refusal> {
        self.known(node).map(|_| CloseResult { node_id: node, closed: true })
    }

    async fn share(&self, node: NodeId, _: u16) -> Result<ShareResult, Refusal> {
        self.known(node)?;
        Ok(ShareResult {
            node_id: node,
            manual_code: GOOD.to_owned(),
            qr_payload: "MT:Y.K9042C00KA0648G00".to_owned(),
            discriminator: 3840,
            expires_at: at(900),
        })
    }
}

impl RemovalDoor for Fake {
    async fn keep(&self, node: NodeId, _: String) -> Result<NodeRecord, Refusal> {
        self.known(node)
    }

    async fn remove(&self, node: NodeId, force: bool, who: String) -> Result<RemoveResult, Refusal> {
        assert!(!who.is_empty());
        let reached = self.known(node)?.state == NodeState::Operational;
        Ok(RemoveResult {
            node_id: node,
            device_removed: reached,
            cloud: "removed".to_owned(),
            record_deleted: reached || force,
            message: "It goes on when the device answers; --force gives it up.".to_owned(),
        })
    }
}

impl OutboxDoor for Fake {
    async fn outbox(&self) -> Result<Outbox, Refusal> {
        Ok(Outbox {
            entries: vec![OutboxItem {
                id: 12,
                kind: "bind".to_owned(),
                node_id: NodeId(1001),
                name: "Hall lamp".to_owned(),
                state: OutboxState::Pending,
                tries: 3,
                last_code: Some(5460),
                last_message: "the device has not reported its code".to_owned(),
                next_try_at: Some(at(90)),
                hint: "check that the device reaches the internet".to_owned(),
            }],
        })
    }

    async fn outbox_retry(&self, id: i64) -> Result<Outbox, Refusal> {
        if id == 12 { self.outbox().await } else { Err(Refusal::unknown_outbox_entry(id)) }
    }

    async fn outbox_drop(&self, id: i64) -> Result<Outbox, Refusal> {
        if id == 12 { Ok(Outbox::default()) } else { Err(Refusal::unknown_outbox_entry(id)) }
    }
}

impl DiscoverDoor for Fake {
    async fn discover(&self, query: &DiscoverQuery) -> Result<Discovered, Refusal> {
        if query.operational {
            return Ok(Discovered::default());
        }
        let bluetooth = self.bluetooth.lock().unwrap().missing.clone();
        let mut nodes = vec![commissionable()];
        nodes.extend(bluetooth.is_none().then(in_its_box));
        Ok(Discovered { nodes, bluetooth })
    }

    async fn watch(&self, query: &DiscoverQuery) -> Result<mpsc::Receiver<DiscoverChange>, Refusal> {
        let (sender, receiver) = mpsc::channel(2);
        let _ = sender.send(DiscoverChange::Appeared(commissionable())).await;
        if !query.lan {
            let (message, hint) = ("BlueZ (bluetoothd) is not running".to_owned(), "start it".to_owned());
            let _ = sender.send(DiscoverChange::BluetoothUnavailable { message, hint }).await;
        }
        Ok(receiver)
    }
}

impl LogDoor for Fake {
    async fn logs(&self, query: &LogQuery) -> Result<Vec<Event>, Refusal> {
        let kept = [
            entry(1, Level::Info, 1000, "node 1000 is commissioned"),
            entry(2, Level::Warn, 1001, "node 1001 does not answer"),
        ];
        let mut kept: Vec<Event> = kept.into_iter().filter(|event| query.wants(event)).collect();
        let newest = query.limit.map_or(kept.len(), |limit| limit as usize).min(kept.len());
        Ok(kept.split_off(kept.len() - newest))
    }

    async fn log_part(&self, query: &LogQuery) -> Result<Vec<Event>, Refusal> {
        self.logs(query).await
    }

    fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    fn note_wrong_tokens(&self, _: &str, times: u64) {
        self.wrong_tokens.fetch_add(u32::try_from(times).unwrap(), Ordering::SeqCst);
    }

    fn note_access(&self, kind: &str, message: &str, _: &str) {
        let _ = self.events.send(Event::new(at(0), Level::Info, kind, message));
    }

    fn note_wrong_codes(&self, _: &str, _: u64) {}
}

impl BindingDoor for Fake {
    async fn bind(&self, node: NodeId, order: BindOrder, _: String) -> Result<BindResult, Refusal> {
        let record = self.known(node)?;
        Ok(BindResult {
            node_id: node,
            product_key: order.product_key.or(record.product_key).unwrap_or_default(),
            device_key: order.device_key.or(record.device_key).unwrap_or_default(),
            bind: record.bind,
        })
    }
}

impl StrangersDoor for Fake {
    async fn adopt(&self, node: NodeId, _: String) -> Result<NodeRecord, Refusal> {
        self.known(node)
    }
}

impl SyncDoor for Fake {
    async fn sync(&self, node: Option<NodeId>, _: Intent, progress: SyncProgress) -> Result<SyncReport, Refusal> {
        progress.report(1, 2);
        progress.report(2, 2);
        let row = |id, verdict| NodeSync {
            node_id: NodeId(id),
            name: if id == 1000 { "Hall lamp".to_owned() } else { String::new() },
            verdict,
            differences: Vec::new(),
            mending: Vec::new(),
            notes: Vec::new(),
        };
        let (matches, missing) = (row(1000, Verdict::Match), row(1001, Verdict::CloudMissing));
        Ok(match node {
            Some(NodeId(1000)) => SyncReport { in_sync: true, nodes: vec![matches] },
            _ => SyncReport { in_sync: false, nodes: vec![matches, missing] },
        })
    }

    async fn compare(&self, node: NodeId) -> Result<NodeComparison, Refusal> {
        let local = serde_json::to_value(self.known(node)?).unwrap();
        let room = DifferingField {
            field: "room_id".to_owned(),
            device: serde_json::json!(null),
            local: serde_json::json!("7"),
            cloud: serde_json::json!("8"),
        };
        Ok(NodeComparison {
            node_id: node,
            verdict: Verdict::CloudDiffers,
            message: String::new(),
            device: local.clone(),
            cloud: local.clone(),
            local,
            differences: vec![room],
            mending: vec!["rebind".to_owned()],
        })
    }

    fn last_report(&self) -> Option<(Timestamp, SyncReport)> {
        let verdict = |node: &NodeRecord| match node.state {
            NodeState::Operational => Verdict::Match,
            _ => Verdict::DeviceUnreachable,
        };
        let row = |node: &NodeRecord| NodeSync {
            node_id: node.node_id,
            name: node.name.clone(),
            verdict: verdict(node),
            differences: Vec::new(),
            mending: Vec::new(),
            notes: Vec::new(),
        };
        let nodes: Vec<NodeSync> = self.all().iter().map(row).collect();
        Some((at(60), SyncReport { in_sync: nodes.iter().all(|row| row.verdict == Verdict::Match), nodes }))
    }
}

impl KeysDoor for Fake {
    async fn fabric(&self) -> Result<FabricInfo, Refusal> {
        Ok(FabricInfo {
            fabric_id: 1_234_567,
            compressed_fabric_id: 0x87E1_B004_E235_A130,
            node_id: NodeId(1),
            label: "Home".to_owned(),
            admin_vendor_id: 0xFFF1,
            admin_cat: 0x0001_0001,
            root_public_key: "04AB".to_owned(),
            root_key_online: true,
        })
    }

    async fn backup_kept(&self, _: &str) -> Result<FabricInfo, Refusal> {
        self.fabric().await
    }

    async fn backup(&self, recipient: Recipient) -> Result<std::fs::File, Refusal> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&encrypt(b"all of it", &Lock::Recipient(recipient)).unwrap()).unwrap();
        file.rewind().unwrap();
        Ok(file)
    }

    async fn export_root(&self, recipient: Recipient) -> Result<Vec<u8>, Refusal> {
        Ok(encrypt(b"root key", &Lock::Recipient(recipient)).unwrap())
    }

    async fn remove_root(&self, sha256: &str) -> Result<FabricInfo, Refusal> {
        assert_eq!(sha256.len(), 64);
        Ok(FabricInfo { root_key_online: false, ..self.fabric().await? })
    }

    async fn import_root(&self, file: Vec<u8>, identity: Identity) -> Result<FabricInfo, Refusal> {
        // Whatever the person's file was locked with, what arrives is locked to the identity beside it.
        assert_eq!(decrypt(&file, &Unlock::Identity(identity)).unwrap().as_slice(), b"root key");
        self.fabric().await
    }
}

fn commissionable() -> DiscoveredNode {
    DiscoveredNode::from(&CommissionableNode {
        instance: "0011223344556677".to_owned(),
        addresses: vec![ScopedAddress { ip: "fe80::1".parse().unwrap(), scope: Some(("eth0".to_owned(), 2)) }],
        port: 5540,
        txt: CommissionableTxt {
            discriminator: 3840,
            commissioning_mode: 1,
            vendor_id: Some(0xFFF1),
            product_id: Some(0x8001),
            device_name: Some("Light".to_owned()),
            ..CommissionableTxt::default()
        },
    })
}

fn in_its_box() -> DiscoveredNode {
    DiscoveredNode::from(&BluetoothNode {
        address: "C4:7C:8D:00:11:22".parse().unwrap(),
        discriminator: 2976,
        vendor_id: 0xFFF1,
        product_id: 0x8001,
        additional_data: false,
        rssi: -71,
    })
}

/// A server with the fake behind it, in a directory of its own. Stops when dropped.
pub struct Running {
    pub fake: Arc<Fake>,
    pub socket: PathBuf,
    pub tcp: std::net::SocketAddr,
    pub directory: tempfile::TempDir,
    pub stop: CancellationToken,
    pub served: tokio::task::JoinHandle<()>,
    _guard: DropGuard,
}

/// The token on TCP.
pub const TOKEN: &str = "a long random word";

pub async fn start() -> Running {
    start_with(|server| server).await
}

/// With another front on TCP.
pub async fn start_with(front: impl FnOnce(AdminServer) -> AdminServer) -> Running {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin.sock");
    let tcp = Some(("127.0.0.1:0".parse().unwrap(), OperatorSecret::new(TOKEN)));
    let server =
        AdminServer::bind(AdminOptions { socket: socket.clone(), tcp, hosts: vec!["hub.example.org".to_owned()] })
            .await
            .unwrap();
    let tcp = server.tcp_address().unwrap();
    let (fake, stop) = (Arc::new(Fake::default()), CancellationToken::new());
    let served = tokio::spawn(front(server).serve(fake.clone(), Arc::new(Metrics::default()), stop.clone()));
    Running { fake, socket, tcp, directory, _guard: stop.clone().drop_guard(), stop, served }
}
