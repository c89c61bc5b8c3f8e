//! Every step meets every kind of failure: what is undone on the device, which row stays, what the admin log says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use super::*;
use crate::attestation::policy::{Decision, Judgement, Outcome};
use crate::attestation::{Evidence, Report};
use crate::commissioning::network::{HomeNetwork, NetworkCredentials, NetworkError, NetworkKind};
use crate::commissioning::radio::BluetoothUnavailable;
use crate::commissioning::tests::home::{Command, Device, Fault, Home, PRODUCT, VENDOR};
use crate::node::NodeId;
use crate::onboarding::{Discriminator, SetupCode};
use crate::outbox::ports::OutboxTask;
use crate::secret::WifiPassword;

const CODE: &str = "34970112332";
const PASSCODE: u32 = 20_202_021;
const LONG: u16 = 3840;

/// The kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    Refused,
    Silent,
    Wrong,
    Deadline,
    Stopped,
    StoreFull,
}

impl Failure {
    const ALL: [Self; 6] = [Self::Refused, Self::Silent, Self::Wrong, Self::Deadline, Self::Stopped, Self::StoreFull];
}

/// What was undone on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Undone {
    /// There was nothing to undo, and nothing was sent for it.
    Nothing,
    /// ArmFailSafe(0).
    Expired,
    /// RemoveFabric.
    Removed,
    /// It is ours, and is asked again by whoever finds the row.
    Left,
}

/// What is on disk afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Row {
    None,
    /// The attempt, as failed.
    Failed,
    /// The attempt, and the row of a node that may be ours.
    Provisional,
}

/// `None`: it cannot happen there.
fn expected(step: Step, failure: Failure) -> Option<(&'static str, Undone, Row)> {
    use Failure::{Deadline, Refused, Silent, Stopped, StoreFull, Wrong};
    use Step::{
        Access, AddNoc, AddRoot, ArmFailSafe, Attestation, Complete, Csr, Discover, Network, Operational, Parse, Pase,
        ReadInfo, Record,
    };
    let failed = |code, undone| Some((code, undone, Row::Failed));
    match (step, failure) {
        // Nobody is asked there, or nothing is written.
        (Parse, Refused | Silent | Wrong | Deadline | Stopped)
        | (Discover | Record, Refused | Wrong)
        | (
            Discover | Pase | ArmFailSafe | ReadInfo | Attestation | AddRoot | AddNoc | Operational | Access,
            StoreFull,
        ) => None,
        // Nothing is noted, and the handshake that has begun meanwhile is not left half done.
        (Parse, StoreFull) => Some(("disk-full", Undone::Expired, Row::None)),
        // A device that was asked nothing that it keeps.
        (Discover, Silent | Deadline) => failed("device-not-found", Undone::Nothing),
        (Discover | Pase, Stopped) => failed("daemon-stopping", Undone::Nothing),
        (Pase, Refused) => failed("wrong-passcode", Undone::Nothing),
        (Pase, Silent) => failed("device-unreachable", Undone::Nothing),
        (Pase, Wrong) => failed("malformed-answer", Undone::Nothing),
        (Pase, Deadline) => failed("deadline-exceeded", Undone::Nothing),
        // Nothing was sent yet that would have to be undone.
        (ArmFailSafe, Stopped) => failed("daemon-stopping", Undone::Nothing),
        // Whatever it has heard of us, it forgets.
        (ArmFailSafe, Refused) => failed("device-busy", Undone::Expired),
        (ReadInfo | Attestation | Csr | AddRoot | Access | Complete, Refused) => {
            failed("device-error", Undone::Expired)
        }
        (AddNoc, Refused) => failed("certificate-refused", Undone::Expired),
        (Network, Refused) => failed("wifi-password-wrong", Undone::Expired),
        (Network, Wrong) => failed("network-not-found", Undone::Expired),
        (Operational, Refused | Wrong) => failed("case-refused", Undone::Expired),
        (ArmFailSafe | ReadInfo | AddRoot | AddNoc, Wrong) => failed("malformed-answer", Undone::Expired),
        (Attestation, Wrong) => failed("attestation-rejected", Undone::Expired),
        (Csr, Wrong) => failed("csr-rejected", Undone::Expired),
        (Access, Wrong) => failed("access-mismatch", Undone::Expired),
        (
            ArmFailSafe | ReadInfo | Attestation | Csr | AddRoot | AddNoc | Network | Operational | Access | Complete,
            Silent,
        ) => failed("device-unreachable", Undone::Expired),
        (
            ArmFailSafe | ReadInfo | Attestation | Csr | AddRoot | AddNoc | Network | Operational | Access | Complete,
            Deadline,
        ) => failed("deadline-exceeded", Undone::Expired),
        (ReadInfo | Attestation | Csr | AddRoot | AddNoc | Network | Operational | Access | Complete, Stopped) => {
            failed("daemon-stopping", Undone::Expired)
        }
        (Csr | Network | Complete, StoreFull) => failed("disk-full", Undone::Expired),
        // It has completed, and nobody knows.
        (Complete, Wrong) => Some(("malformed-answer", Undone::Left, Row::Provisional)),
        // It is ours, and cannot be written down.
        (Record, Silent) => failed("store-failed", Undone::Removed),
        (Record, Deadline) => failed("deadline-exceeded", Undone::Removed),
        (Record, Stopped) => failed("daemon-stopping", Undone::Removed),
        (Record, StoreFull) => failed("disk-full", Undone::Removed),
    }
}

/// The command on which a step turns.
fn command(step: Step, failure: Failure) -> Option<Command> {
    match step {
        Step::Parse | Step::Discover | Step::Record => None,
        Step::Pase => Some(Command::Pase),
        Step::ArmFailSafe => Some(Command::Arm),
        Step::ReadInfo => Some(Command::Describe),
        Step::Attestation => Some(Command::Attestation),
        Step::Csr => Some(Command::Csr),
        Step::AddRoot => Some(Command::AddRoot),
        Step::AddNoc => Some(Command::AddNoc),
        Step::Network => Some(if failure == Failure::Wrong { Command::Scan } else { Command::Connect }),
        Step::Operational => Some(Command::Case),
        Step::Access if failure == Failure::Wrong => Some(Command::ReadAcl),
        Step::Access => Some(Command::WriteAcl),
        Step::Complete => Some(Command::Complete),
    }
}

/// The one network of the home.
#[derive(Default)]
struct Networks(tokio::sync::watch::Sender<()>);

impl HomeNetworks for Networks {
    fn network<'a>(
        &'a self,
        _: Option<&'a str>,
        _: &'a [NetworkKind],
    ) -> BoxFuture<'a, Result<HomeNetwork, NetworkError>> {
        let password = WifiPassword::new("correct horse");
        let credentials = NetworkCredentials::Wifi { ssid: b"Home".to_vec(), password };
        Box::pin(async { Ok(HomeNetwork { name: "Home".to_owned(), credentials }) })
    }

    fn changes(&self) -> tokio::sync::watch::Receiver<()> {
        self.0.subscribe()
    }
}

/// A store in memory that fails on one step's writing.
#[derive(Default)]
struct Shelf {
    fault: Option<(Step, Failure)>,
    state: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    given: u64,
    interrupted: Option<Timestamp>,
    attempts: BTreeMap<Uuid, Option<(&'static str, &'static str)>>,
    provisional: BTreeSet<Uuid>,
    /// What the next start would resume.
    on_fabric: BTreeMap<Uuid, ProvisionalNode>,
    nodes: Vec<NodeRecord>,
}

impl Shelf {
    async fn write<T>(&self, step: Step, work: impl FnOnce(&mut Kept) -> T) -> Result<T, StoreError> {
        match self.fault.filter(|(on, _)| *on == step) {
            Some((_, Failure::StoreFull)) => return Err(StoreError::DiskFull),
            Some((_, Failure::Silent | Failure::Deadline)) => std::future::pending().await,
            Some(_) | None => {}
        }
        Ok(work(&mut self.state.lock().unwrap()))
    }

    fn row(&self) -> Row {
        let state = self.state.lock().unwrap();
        match (state.attempts.values().all(Option::is_some), state.attempts.len(), state.provisional.len()) {
            (_, 0, 0) => Row::None,
            (true, 1, 0) => Row::Failed,
            (true, 1, 1) => Row::Provisional,
            other => panic!("no such rows: {other:?}"),
        }
    }
}

impl NodeStore for Shelf {
    async fn begin_attempt(&self, id: Uuid, _: Discriminator, _: u16, _: Timestamp) -> Result<(), StoreError> {
        self.write(Step::Parse, |kept| {
            kept.attempts.insert(id, None);
        })
        .await
    }

    async fn begin_provisional(&self, node: ProvisionalNode) -> Result<NodeId, StoreError> {
        let begin = |kept: &mut Kept| {
            kept.given += 1;
            kept.provisional.insert(node.attempt_id);
            let id = NodeId(1000 + kept.given);
            if matches!(node.stage, Stage::OnFabric(_)) {
                kept.on_fabric.insert(node.attempt_id, node.with_node_id(id));
            }
            id
        };
        self.write(Step::Csr, begin).await
    }

    async fn save_provisional(&self, node: &ProvisionalNode) -> Result<(), StoreError> {
        let is_full = self.fault == Some((Step::Network, Failure::StoreFull));
        match &node.stage {
            Stage::GivenAway => panic!("that was written when it was begun"),
            Stage::OnFabric(_) if is_full => Err(StoreError::DiskFull),
            Stage::OnFabric(_) => {
                self.state.lock().unwrap().on_fabric.insert(node.attempt_id, node.clone());
                Ok(())
            }
            Stage::Ready => self.write(Step::Complete, |_| ()).await,
        }
    }

    async fn commit_commissioned(
        &self,
        id: Uuid,
        record: &NodeRecord,
        _: Option<&OutboxTask>,
        _: &str,
    ) -> Result<Option<OutboxId>, StoreError> {
        let commit = |kept: &mut Kept| {
            kept.provisional.remove(&id);
            kept.nodes.push(record.clone());
            None
        };
        self.write(Step::Record, commit).await
    }

    async fn fail_attempt(
        &self,
        id: Uuid,
        step: &'static str,
        code: &'static str,
        keep_provisional: bool,
        _: Timestamp,
    ) -> Result<(), StoreError> {
        let kept = &mut *self.state.lock().unwrap();
        if let Some(attempt) = kept.attempts.get_mut(&id) {
            *attempt = Some((step, code));
        }
        if !keep_provisional {
            kept.provisional.remove(&id);
        }
        Ok(())
    }

    async fn nodes_of_code(&self, _: u16) -> Result<Vec<NodeRecord>, StoreError> {
        Ok(Vec::new())
    }

    async fn nodes_without_code(&self) -> Result<Vec<NodeRecord>, StoreError> {
        Ok(Vec::new())
    }

    async fn nodes_of_product(&self, _: u16, _: u16) -> Result<Vec<NodeRecord>, StoreError> {
        Ok(Vec::new())
    }

    async fn interrupted_since(&self, _: u16, since: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.state.lock().unwrap().interrupted.filter(|at| *at > since))
    }

    async fn provisional_nodes(&self) -> Result<Vec<ProvisionalNode>, StoreError> {
        Ok(Vec::new())
    }
}

/// Refuses a signature of zeros.
struct Lenient;

impl AttestationJudge for Lenient {
    fn judge(&self, evidence: Evidence, overridden: Option<AttestationOverride>) -> Judgement {
        let rejected = evidence.signature.iter().all(|byte| *byte == 0);
        let outcome = if rejected { Outcome::Rejected } else { Outcome::Accepted };
        let report = Report {
            vendor_id: VENDOR,
            product_id: PRODUCT,
            findings: Vec::new(),
            dac: None,
            pai: None,
            paa: None,
            declaration: None,
        };
        Judgement { evidence, report, verdict: Decision { outcome, deciding: Vec::new(), overridden } }
    }
}

#[derive(Default)]
struct Log(Mutex<Vec<Event>>);

impl EventSink for Log {
    fn record(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

struct World {
    commissioner: Commissioner<Home, Home, Shelf, Lenient>,
    home: Home,
    device: Option<Arc<Device>>,
    log: Arc<Log>,
}

fn world(failure: Option<(Step, Failure)>) -> World {
    let second = Duration::from_secs(1);
    let mut limits = Limits { attempt: 900 * second, discover: 30 * second, step: 15 * second, fail_safe: 60 * second };
    if matches!(failure, Some((_, Failure::Deadline))) {
        limits = Limits { attempt: 8 * second, discover: 90 * second, step: 90 * second, fail_safe: 900 * second };
    }
    let (home, log) = (Home::new(), Arc::new(Log::default()));
    let absent = matches!(failure, Some((Step::Discover, Failure::Silent | Failure::Deadline)));
    // Only what is on Bluetooth is brought onto a network.
    let boxed = matches!(failure, Some((Step::Network, _)));
    let bring = |host| if boxed { home.unbox(host, LONG, PASSCODE) } else { home.plug_in(host, LONG, PASSCODE) };
    let device = (!absent).then(|| bring(7));
    if let (Some((step, failure)), Some(device)) = (failure, &device)
        && let Some(command) = command(step, failure)
    {
        match failure {
            Failure::Refused => device.fail(command, Fault::Refused),
            Failure::Silent | Failure::Deadline => device.fail(command, Fault::Silent),
            Failure::Wrong => device.fail(command, Fault::Wrong),
            Failure::Stopped | Failure::StoreFull => {}
        }
    }
    let settings = Settings {
        limits,
        fabric_id: FabricId(1),
        compressed_fabric_id: home.fabric(),
        label: "Home".to_owned(),
        admin_cat: Cat::new(0x0001_0001).unwrap(),
        grants: Vec::new(),
        profiles: Vec::new(),
        fingerprints: FingerprintKey::new(&[7; 16]),
        cloud: false,
        home: (None, None),
    };
    let commissioner = Commissioner {
        link: Arc::new(home.clone()),
        discovery: Arc::new(home.clone()),
        store: Arc::new(Shelf { fault: failure, state: Mutex::default() }),
        judge: Arc::new(Lenient),
        radio: Arc::new(home.clone()),
        networks: Arc::new(Networks::default()),
        place: Arc::new(Preparation::default),
        preflight: None,
        predecessor: Arc::new(|_| Box::pin(async { None })),
        journal: Arc::clone(&log) as Arc<dyn EventSink>,
        together: Together::default(),
        settings,
        stop: CancellationToken::new(),
    };
    World { commissioner, home, device, log }
}

impl World {
    /// One attempt; it is told to stop when `before` is about to begin.
    async fn attempt(&self, before: Option<Step>) -> Result<Commissioned, CommissioningError> {
        let payload: OnboardingPayload = SetupCode::new(CODE).parse().unwrap();
        let order = Order {
            attempt_id: Uuid::from_u128(1),
            payload,
            address: None,
            particulars: Particulars::default(),
            attestation_override: None,
            network: None,
            wait_network: Duration::ZERO,
            terms: None,
        };
        // A device that was met on its network is not brought onto one.
        let steps = Step::ALL.into_iter().filter(|step| *step != Step::Network || before == Some(Step::Network));
        let last = before.and_then(|before| steps.take_while(|step| *step != before).last());
        let stop = &self.commissioner.stop;
        if last == Some(Step::Parse) {
            stop.cancel();
        }
        let progress = move |event: Progress| {
            if matches!(event, Progress::Finished(step, _) if Some(step) == last) {
                stop.cancel();
            }
        };
        let turns = Arc::new(tokio::sync::Semaphore::new(1));
        let turn: Turn<'_> = Box::pin(async move { Ok(turns.acquire_owned().await.unwrap()) });
        self.commissioner.commission(order, &progress, turn).await
    }

    fn undone(&self) -> Undone {
        let Some(device) = &self.device else { return Undone::Nothing };
        match (device.asked().last(), device.node()) {
            (Some(Command::Expire), None) => Undone::Expired,
            (Some(Command::RemoveFabric), None) => Undone::Removed,
            (_, Some(_)) => Undone::Left,
            (_, None) => Undone::Nothing,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_step_survives_every_failure() {
    let mut wrong = Vec::new();
    for step in Step::ALL {
        for failure in Failure::ALL {
            let Some((code, undone, row)) = expected(step, failure) else { continue };
            let world = world(Some((step, failure)));
            let error = match world.attempt((failure == Failure::Stopped).then_some(step)).await {
                Ok(_) => panic!("{step} {failure:?}: it was commissioned"),
                Err(error) => error,
            };
            let events = world.log.0.lock().unwrap();
            let [event] = &events[..] else { panic!("{step} {failure:?}: {events:?}") };
            let says = event.message == format!("commissioning failed at {step}: {error}. {}", error.hint());
            let found = (error.step(), error.code(), world.undone(), world.commissioner.store.row(), says);
            if found != (step, code, undone, row, true) {
                wrong.push(format!("{step} {failure:?}: {found:?} in place of {code} {undone:?} {row:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(start_paused = true)]
async fn a_device_out_of_its_box_is_brought_onto_the_network_in_between() {
    use Command::{AddNetwork, AddNoc, Arm, Case, Connect, Scan};
    let world = world(Some((Step::Network, Failure::Stopped)));
    let commissioned = world.attempt(None).await.unwrap();
    let device = world.device.as_ref().unwrap();
    let asked = device.asked();
    let from = asked.iter().position(|command| *command == AddNoc).unwrap();
    assert_eq!(asked[from..from + 6], [AddNoc, Arm, Scan, AddNetwork, Connect, Case]);
    assert_eq!(device.node(), Some(commissioned.record.node_id));
    assert_eq!((commissioned.record.addresses, commissioned.record.port), (vec!["192.0.2.7".to_owned()], 5540));
    assert_eq!(commissioned.record.capabilities_bitmask, 14, "Bluetooth, Wi-Fi and Matter");
}

#[tokio::test(start_paused = true)]
async fn without_bluetooth_a_device_is_looked_for_on_the_network_and_the_answer_says_so() {
    let world = world(Some((Step::Discover, Failure::Silent)));
    world.home.without_bluetooth(BluetoothUnavailable::NoBlueZ);
    let error = world.attempt(None).await.err().unwrap();
    assert_eq!(error.code(), "device-not-found");
    assert!(error.to_string().contains("BlueZ (bluetoothd) is not running"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_left_out_and_nothing_is_done_twice() {
    use Command::{AddNoc, AddRoot, Arm, Attestation, Case, Complete, Csr, Describe, Label, Pase, ReadAcl, WriteAcl};
    let world = world(None);
    let commissioned = world.attempt(None).await.unwrap();
    let device = world.device.as_ref().unwrap();
    let path = [Pase, Arm, Describe, Attestation, Csr, AddRoot, AddNoc, Case, WriteAcl, ReadAcl, Label, Complete];
    assert_eq!(device.asked(), path);
    assert_eq!((device.node(), device.label()), (Some(NodeId(1001)), "Home".to_owned()));
    assert_eq!(commissioned.record.node_id, NodeId(1001));
    assert_eq!(world.commissioner.store.state.lock().unwrap().nodes, [commissioned.record]);
    assert_eq!(world.home.operational().len(), 1);
}

/// What an attempt that the power cut left on the device stands in the next one's way.
#[tokio::test(start_paused = true)]
async fn the_device_is_told_to_end_what_an_interrupted_attempt_left() {
    use Command::{Arm, Expire, Pase};
    let world = world(None);
    world.commissioner.store.state.lock().unwrap().interrupted = Some(Timestamp::now());
    world.attempt(None).await.unwrap();
    assert_eq!(world.device.as_ref().unwrap().asked()[..4], [Pase, Expire, Pase, Arm]);
}

#[tokio::test(start_paused = true)]
async fn a_fail_safe_of_ours_that_may_not_be_ended_is_waited_for() {
    let world = world(None);
    let device = world.device.as_ref().unwrap();
    device.fail(Command::Expire, Fault::Refused);
    world.commissioner.store.state.lock().unwrap().interrupted = Some(Timestamp::now());
    let began = tokio::time::Instant::now();
    world.attempt(None).await.unwrap();
    let waited = began.elapsed();
    assert!(waited >= world.commissioner.settings.limits.fail_safe - Duration::from_secs(1), "{waited:?}");
}

mod network;
