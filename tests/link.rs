//! The Matter link against lights that we did not write (matter.js), on loopback, without discovery.
//!
//! Where Node or npm is missing each test says that it was skipped; with `CI=true` that is a failure.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use matterbind::facade::bluetooth::Bluetooth;
use matterbind::facade::commissioning::ports::{
    AttributePath, FailSafe, LinkError, MatterLink, NoAnswer, OperationalSession, PaseSession,
};
use matterbind::facade::config::BluetoothConfig;
use matterbind::facade::fabric::{AclEntry, AclLimits, Cat, CatGrant, Privilege, granted_cats, plan_acl};
use matterbind::facade::matter::credentials::reissue_hub_noc;
use matterbind::facade::matter::{CaseLink, Credentials, Link, PaseLink, Stack, StackOptions, mint};
use matterbind::facade::node::{FabricId, NodeId};
use matterbind::facade::onboarding::SetupCode;
use matterbind::facade::secret::Passcode;

/// For one session, whatever comes.
const BUDGET: Duration = Duration::from_secs(15);
const PASSCODE: u32 = 34_567_890;
const ADMIN_CAT: u32 = 0x0001_0001;

/// One Node process with some lights.
struct Lights {
    child: Child,
    _stdin: ChildStdin,
    _storage: tempfile::TempDir,
    lights: Vec<(SocketAddr, String)>,
}

impl Drop for Lights {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn interop() -> Option<&'static Path> {
    static INSTALLED: OnceLock<Option<PathBuf>> = OnceLock::new();
    let directory = INSTALLED.get_or_init(|| {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop");
        if directory.join("node_modules/@matter/main").is_dir() {
            return Some(directory);
        }
        let npm = Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(&directory).output();
        matches!(npm, Ok(output) if output.status.success()).then_some(directory)
    });
    if directory.is_none() {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "Node with @matter/main is needed");
        eprintln!("skipped: `npm ci` in tests/interop does not work here");
    }
    directory.as_deref()
}

/// The first of `count` UDP ports in a row that are free now.
fn free_ports(count: usize) -> u16 {
    loop {
        let first = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let base = first.local_addr().unwrap().port();
        let rest = (1..u16::try_from(count).unwrap())
            .map(|index| UdpSocket::bind((Ipv4Addr::LOCALHOST, base.checked_add(index)?)).ok());
        if rest.collect::<Option<Vec<_>>>().is_some() {
            return base;
        }
    }
}

fn lights(count: usize) -> Option<Lights> {
    let directory = interop()?;
    let storage = tempfile::tempdir().unwrap();
    let mut child = Command::new("node")
        .arg(directory.join("device.mjs"))
        .env("STORAGE", storage.path())
        .env("IFACE", "lo")
        .env("COUNT", count.to_string())
        .env("PORT", free_ports(count).to_string())
        .env("PASSCODE", PASSCODE.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdin = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut ready = Vec::new();
    while ready.len() < count {
        let line = lines.next().expect("the lights start").unwrap();
        if let Some(json) = line.strip_prefix("READY ") {
            let light: serde_json::Value = serde_json::from_str(json).unwrap();
            let port = u16::try_from(light["port"].as_u64().unwrap()).unwrap();
            ready.push((SocketAddr::from((Ipv4Addr::LOCALHOST, port)), light["qr"].as_str().unwrap().to_owned()));
        }
    }
    // Keep the pipe drained, or the lights stop when it is full.
    std::thread::spawn(move || lines.for_each(drop));
    Some(Lights { child, _stdin: stdin, _storage: storage, lights: ready })
}

fn hub() -> Link {
    let cat = Cat::new(ADMIN_CAT).unwrap();
    let bundle = mint(FabricId(123_456_789), NodeId(1000), &[cat], Timestamp::now()).unwrap();
    let stack = Stack::start(&StackOptions::default(), &bundle).unwrap();
    Link::new(
        stack,
        Arc::new(Credentials::new(bundle).unwrap()),
        Arc::new(Bluetooth::open(&BluetoothConfig { adapter: "none".to_owned() })),
    )
}

fn passcode(qr: &str) -> Passcode {
    SetupCode::new(qr).parse().unwrap().passcode.clone()
}

/// Prints how long each step took; nothing is asserted about it.
struct Stopwatch(Instant, Vec<String>);

impl Stopwatch {
    fn new() -> Self {
        Self(Instant::now(), Vec::new())
    }

    fn lap(&mut self, what: &str) {
        self.1.push(format!("{what} {}", self.0.elapsed().as_millis()));
        self.0 = Instant::now();
    }
}

async fn to_case(
    link: &Link,
    node: NodeId,
    address: SocketAddr,
    qr: &str,
    watch: &mut Stopwatch,
) -> (PaseLink, CaseLink) {
    let pase = link.open_pase(&[address.into()], &passcode(qr), BUDGET).await.unwrap();
    watch.lap("pase");
    assert_eq!(pase.peer(), address.into());
    assert_ne!(pase.attestation_challenge(), [0; 16]);
    pase.arm_fail_safe(Duration::from_secs(60), 7).await.unwrap();
    watch.lap("arm");
    let described = pase.describe().await.unwrap();
    assert_eq!((described.basic.vendor_id, described.basic.product_id), (0xFFF1, 0x8000));
    assert_eq!(described.basic.serial_number, Some(format!("SN-{}", described.basic.node_label)));
    assert!(described.fabrics.0 >= 5 && described.fabrics.1 == 0, "{described:?}");
    assert!(described.acl_limits.entries_per_fabric >= 4);
    assert_eq!(described.facts.breadcrumb, 7);
    watch.lap("describe");
    pase.set_regulatory_config("XX", 7).await.unwrap();
    watch.lap("regulatory");
    let evidence = pase.attestation([7; 32]).await.unwrap();
    assert_eq!(evidence.signature.len(), 64);
    assert!(evidence.dac.len() > 300 && evidence.pai.len() > 300);
    assert!(evidence.elements.windows(32).any(|window| window == [7; 32]));
    watch.lap("attestation");
    let csr = pase.request_csr([9; 32]).await.unwrap();
    let elements = rs_matter::tlv::TLVElement::new(&csr.elements).structure().unwrap();
    assert_eq!(elements.find_ctx(2).unwrap().str().unwrap(), [9; 32]);
    let issued = link.issue_noc(node, elements.find_ctx(1).unwrap().str().unwrap()).await.unwrap();
    watch.lap("csr");
    pase.add_root().await.unwrap();
    watch.lap("root");
    let admin = Cat::new(ADMIN_CAT).unwrap();
    let index = pase.add_noc(&issued, admin.subject()).await.unwrap();
    assert!(index > 0);
    watch.lap("noc");
    let case = link.open_case(node, &[address], BUDGET).await.unwrap();
    watch.lap("case");
    (pase, case)
}

async fn commission(link: &Link, node: NodeId, address: SocketAddr, qr: &str) -> (CaseLink, Stopwatch) {
    let mut watch = Stopwatch::new();
    let (_pase, case) = to_case(link, node, address, qr, &mut watch).await;
    let grants = [
        CatGrant { cat: Cat::new(0x0002_0001).unwrap(), privilege: Privilege::Operate },
        CatGrant { cat: Cat::new(0x0003_0001).unwrap(), privilege: Privilege::View },
    ];
    let planned = plan_acl(Cat::new(ADMIN_CAT).unwrap(), &grants, AclLimits::default()).unwrap();
    case.write_acl(&planned).await.unwrap();
    let read = case.read_acl().await.unwrap();
    assert_eq!(read, planned);
    assert_eq!(granted_cats(&read).len(), 3);
    watch.lap("acl");
    case.commissioning_complete().await.unwrap();
    watch.lap("complete");
    (case, watch)
}

/// Memory and CPU time of the hub's process until now.
fn usage() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let memory: Vec<&str> = status.lines().filter(|line| line.starts_with("VmHWM")).collect();
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks: u64 = stat.split(' ').skip(13).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    format!("{}, {} ms of CPU", memory.concat(), ticks * 10)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_light_is_commissioned_and_administered() {
    let Some(lights) = lights(1) else { return };
    let (address, qr) = lights.lights[0].clone();
    let link = hub();
    let (case, watch) = commission(&link, NodeId(1001), address, &qr).await;
    eprintln!("one light, ms: {}; {}", watch.1.join(", "), usage());

    let index = case.current_fabric_index().await.unwrap();
    case.update_fabric_label("Hub").await.unwrap();
    let fabrics = case.fabrics().await.unwrap();
    assert_eq!(fabrics.len(), 1);
    assert_eq!((fabrics[0].index, fabrics[0].fabric_id, fabrics[0].node_id), (index, 123_456_789, 1001));
    assert_eq!(fabrics[0].label, "Hub");
    assert_eq!(fabrics[0].root_public_key, link.credentials().root_public_key());
    let label = AttributePath { endpoint: 0, cluster: 0x28, attribute: 5 };
    case.write_text(label, "Hall").await.unwrap();
    assert_eq!(case.read_text(label).await.unwrap(), "Hall");
    let missing = AttributePath { attribute: 0x777, ..label };
    let status = case.read_text(missing).await.unwrap_err();
    assert!(
        matches!(&status, LinkError::Status { status: 0x86, name, .. } if name == "UnsupportedAttribute"),
        "{status:?}"
    );
    case.identify(Duration::from_secs(1)).await.unwrap();
    assert_eq!(case.describe().await.unwrap().fabrics.1, 1);

    // As much as fits one message arrives whole; this device holds fewer entries and says so.
    let many =
        vec![AclEntry { privilege: 3, auth_mode: 2, subjects: vec![5, 6, 7, u64::MAX >> 8], has_targets: false }; 20];
    let refused = case.write_acl(&many).await.unwrap_err();
    assert!(matches!(refused, LinkError::Status { status: 0x89, .. }), "{refused:?}");
    let too_many = case.write_acl(&[many.clone(), many].concat()).await.unwrap_err();
    assert!(matches!(too_many, LinkError::Stack { .. }), "{too_many:?}");
    assert_eq!(case.read_acl().await.unwrap().len(), 3);

    // The hub gets another key and a NOC with a later version of the admin CAT: it satisfies the entry with the earlier.
    let mut bundle = link.credentials().bundle().clone();
    reissue_hub_noc(&mut bundle, &[Cat::new(ADMIN_CAT + 1).unwrap()]).unwrap();
    link.stack().renew_hub_noc(&bundle).await.unwrap();
    let renewed = link.open_case(NodeId(1001), &[address], BUDGET).await.unwrap();
    assert_eq!(renewed.read_acl().await.unwrap().len(), 3);

    // Commissioned, so its window is closed.
    let closed = link.open_pase(&[address.into()], &passcode(&qr), BUDGET).await.err();
    assert_eq!(closed, Some(LinkError::WindowClosed));
    // Opened again by us, with a passcode of our own.
    let fresh = Passcode::new(20_202_021u32);
    case.open_window(Duration::from_secs(180), 321, &fresh).await.unwrap();
    let pase = link.open_pase(&[address.into()], &fresh, BUDGET).await.unwrap();
    drop(pase);

    let unknown = link.open_case(NodeId(4242), &[address], BUDGET).await.err();
    assert_eq!(unknown, Some(LinkError::NoSharedTrustRoots { peer: address }));
    case.remove_fabric(index).await.unwrap();
    let gone = link.open_case(NodeId(1001), &[address], BUDGET).await.err();
    assert_eq!(gone, Some(LinkError::NoSharedTrustRoots { peer: address }));
    link.stack().stop().await;
    let stopped = case.read_acl().await.unwrap_err();
    assert!(matches!(stopped, LinkError::Stack { .. }), "{stopped:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_passcode_is_said_fast_and_leaves_the_window_open() {
    let Some(lights) = lights(1) else { return };
    let (address, qr) = lights.lights[0].clone();
    let link = hub();
    let begin = Instant::now();
    // The second address is the same device: it must not be tried after the device has answered.
    let wrong = link.open_pase(&[address.into(), address.into()], &Passcode::new(20_202_021u32), BUDGET).await.err();
    eprintln!("wrong passcode after {} ms", begin.elapsed().as_millis());
    assert_eq!(wrong, Some(LinkError::WrongPasscode));
    let pase = link.open_pase(&[address.into()], &passcode(&qr), BUDGET).await.unwrap();
    pase.arm_fail_safe(Duration::from_secs(60), 7).await.unwrap();
    pase.arm_fail_safe(Duration::ZERO, 0).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_there_is_unreachable_and_the_next_address_is_tried() {
    let Some(lights) = lights(1) else { return };
    let (address, qr) = lights.lights[0].clone();
    let link = hub();
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let dead = silent.local_addr().unwrap();
    let begin = Instant::now();
    let absent = link.open_pase(&[dead.into()], &passcode(&qr), BUDGET).await.err();
    eprintln!("PASE with nobody given up after {} ms", begin.elapsed().as_millis());
    assert_eq!(absent, Some(LinkError::Unreachable { tried: vec![(dead.into(), NoAnswer::Silent)] }));
    let absent = link.open_case(NodeId(1001), &[dead], BUDGET).await.err();
    assert_eq!(absent, Some(LinkError::Unreachable { tried: vec![(dead.into(), NoAnswer::Silent)] }));
    let pase = link.open_pase(&[dead.into(), address.into()], &passcode(&qr), BUDGET).await.unwrap();
    assert_eq!(pase.peer(), address.into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_lights_at_once() {
    let Some(lights) = lights(8) else { return };
    let link = hub();
    eprintln!("before: {}", usage());
    let begin = Instant::now();
    let tasks: Vec<_> = (0u64..)
        .zip(lights.lights.clone())
        .map(|(index, (address, qr))| {
            let link = link.clone();
            tokio::spawn(async move { commission(&link, NodeId(2000 + index), address, &qr).await.1 })
        })
        .collect();
    for task in tasks {
        eprintln!("one of eight, ms: {}", task.await.unwrap().1.join(", "));
    }
    eprintln!("eight lights at once: {} ms; {}", begin.elapsed().as_millis(), usage());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_sessions_one_after_the_other() {
    let Some(lights) = lights(1) else { return };
    let (address, qr) = lights.lights[0].clone();
    let link = hub();
    let (kept, _) = commission(&link, NodeId(1001), address, &qr).await;
    let begin = Instant::now();
    for _ in 0..200 {
        let case = link.open_case(NodeId(1001), &[address], BUDGET).await.unwrap();
        assert!(case.current_fabric_index().await.unwrap() > 0);
    }
    eprintln!("200 CASE sessions: {} ms; {}", begin.elapsed().as_millis(), usage());
    // The first one was held all the time; matter.js may have closed it for its own limit, our table has not.
    eprintln!("the session held meanwhile: {:?}", kept.current_fabric_index().await);
}
