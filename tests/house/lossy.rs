//! The Matter link where datagrams get lost, addresses are dead, and two ends do not understand each other.
//!
//! ```text
//! hub (Link) ── 127.0.0.1 ── relay: which datagram arrives? ── virtual device
//! ```

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use matterbind::facade::bluetooth::Bluetooth;
use matterbind::facade::commissioning::ports::{
    FailSafe, LinkError, MatterLink, NoAnswer, OperationalSession, PaseSession,
};
use matterbind::facade::config::BluetoothConfig;
use matterbind::facade::fabric::Cat;
use matterbind::facade::matter::{CaseLink, Credentials, Link, Stack, StackOptions, mint};
use matterbind::facade::node::{FabricId, NodeId, Peer};
use matterbind::facade::secret::Passcode;
use matterbind::facade::sim::virtual_device::{self, VirtualDeviceOptions};
use tokio_util::sync::CancellationToken;

use crate::support::relay::{From, Relay, Rule, is_acknowledgement, lossy};

const ADMIN_CAT: u32 = 0x0001_0001;
/// As for one step of an attempt.
const BUDGET: Duration = Duration::from_secs(15);

fn hub() -> Link {
    hub_at(0)
}

/// At this UDP port; 0 is any.
fn hub_at(port: u16) -> Link {
    let bundle = mint(FabricId(77), NodeId(1000), &[Cat::new(ADMIN_CAT).unwrap()], Timestamp::now()).unwrap();
    let stack = Stack::start(&StackOptions { port }, &bundle).unwrap();
    Link::new(
        stack,
        Arc::new(Credentials::new(bundle).unwrap()),
        Arc::new(Bluetooth::open(&BluetoothConfig { adapter: "none".to_owned() })),
    )
}

fn passcode() -> Passcode {
    Passcode::new(20_202_021u32)
}

fn everything() -> Rule {
    Box::new(|_, _| true)
}

struct Device {
    address: SocketAddr,
    stop: CancellationToken,
    _storage: tempfile::TempDir,
}

impl Drop for Device {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn device() -> Device {
    let storage = tempfile::tempdir().unwrap();
    let options =
        VirtualDeviceOptions { interfaces: vec!["lo".to_owned()], ..VirtualDeviceOptions::new(storage.path()) };
    let (stop, (ready, is_ready)) = (CancellationToken::new(), tokio::sync::oneshot::channel());
    let shutdown = stop.clone();
    tokio::spawn(async move {
        virtual_device::run(options, move |info| ready.send(info.port).unwrap(), shutdown).await.unwrap();
    });
    let port = is_ready.await.unwrap();
    Device { address: (Ipv4Addr::LOCALHOST, port).into(), stop, _storage: storage }
}

/// PASE to CommissioningComplete, without attestation and access control.
async fn commission(link: &Link, node: NodeId, address: SocketAddr) -> Result<CaseLink, LinkError> {
    let pase = link.open_pase(&[address.into()], &passcode(), BUDGET).await?;
    pase.arm_fail_safe(Duration::from_secs(20), 1).await?;
    let csr = pase.request_csr([9; 32]).await?;
    let elements = rs_matter::tlv::TLVElement::new(&csr.elements).structure().unwrap();
    let issued = link.issue_noc(node, elements.find_ctx(1).unwrap().str().unwrap()).await?;
    pase.add_root().await?;
    pase.add_noc(&issued, Cat::new(ADMIN_CAT).unwrap().subject()).await?;
    let case = link.open_case(node, &[address], BUDGET).await?;
    case.commissioning_complete().await?;
    Ok(case)
}

/// Loses the first thing that the device says, and lets its acknowledgements pass: they arrive before the repetition.
fn first_answer_lost() -> Rule {
    let mut lost = false;
    Box::new(move |from, datagram| {
        let this = !lost && from == From::Device && !is_acknowledgement(datagram);
        lost |= this;
        !this
    })
}

/// A repetition that comes after its acknowledgement is no duplicate, in either handshake and on the sessions that they make.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_answer_may_be_lost() {
    let (link, device) = (hub(), device().await);
    let relay = Relay::start(device.address, first_answer_lost());
    let begin = Instant::now();
    let pase = link.open_pase(&[relay.address.into()], &passcode(), BUDGET).await.unwrap();
    eprintln!("PASE without its first answer: {} ms", begin.elapsed().as_millis());
    relay.set_rule(first_answer_lost());
    let begin = Instant::now();
    pase.arm_fail_safe(Duration::ZERO, 0).await.unwrap();
    eprintln!("the first command of a session without its first answer: {} ms", begin.elapsed().as_millis());
    drop(pase);
    relay.set_rule(everything());
    // The device closed PASE with the fail-safe.
    let case = commission(&link, NodeId(5), relay.address).await.unwrap();
    relay.set_rule(first_answer_lost());
    let begin = Instant::now();
    let again = link.open_case(NodeId(5), &[relay.address], BUDGET).await.unwrap();
    eprintln!("CASE without its first answer: {} ms", begin.elapsed().as_millis());
    relay.set_rule(first_answer_lost());
    again.current_fabric_index().await.unwrap();
    drop(case);
}

/// Commissions `count` devices, four at a time; gives how many were, and checks that the others hold nothing of ours.
async fn commission_through_loss(percent: u32, count: u64, seed: u64) -> usize {
    let link = hub();
    let mut done = 0;
    let numbers: Vec<u64> = (1..=count).collect();
    for four in numbers.chunks(4) {
        let tries = four.iter().copied().map(|number| {
            let link = link.clone();
            tokio::spawn(async move {
                let (device, node) = (device().await, NodeId(2000 + number));
                let relay = Relay::start(device.address, lossy(percent, seed + number));
                let begin = Instant::now();
                let result = commission(&link, node, relay.address).await;
                let took = begin.elapsed().as_millis();
                match result {
                    Ok(_) => eprintln!("device {number}: commissioned in {took} ms"),
                    Err(ref error) => {
                        eprintln!("device {number}: {error} after {took} ms");
                        is_not_ours(&link, node, device.address).await;
                    }
                }
                result.is_ok()
            })
        });
        for done_or_not in futures_util::future::join_all(tries).await {
            done += usize::from(done_or_not.unwrap());
        }
    }
    done
}

/// The fail-safe has rolled the device back, or does so in time.
async fn is_not_ours(link: &Link, node: NodeId, address: SocketAddr) {
    let give_up = Instant::now() + Duration::from_secs(60);
    loop {
        match link.open_case(node, &[address], BUDGET).await {
            Err(LinkError::NoSharedTrustRoots { peer }) if peer == address => return,
            other => assert!(Instant::now() < give_up, "still on our fabric: {:?}", other.err()),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_in_ten_is_lost_and_nearly_all_are_commissioned() {
    let done = commission_through_loss(10, 20, 10_000).await;
    assert!(done >= 19, "{done} of 20");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_in_ten_are_lost_and_nothing_is_left_behind() {
    let done = commission_through_loss(30, 4, 30_000).await;
    eprintln!("{done} of 4 were commissioned");
}

/// A socket that nobody reads.
fn dead() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// A device has more addresses than answer: old ones, filtered ones, ones of a family that the hub has not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_addresses_cost_a_moment_each() {
    let (link, device) = (hub(), device().await);
    let silent: Vec<_> = (0..5).map(|_| dead()).collect();
    // Nobody may send there without asking for it first: a send fails at once, as where there is no route.
    let forbidden = SocketAddr::from((Ipv4Addr::BROADCAST, 5540));
    let mut addresses: Vec<SocketAddr> = silent.iter().map(|(_, address)| *address).collect();
    addresses.insert(0, forbidden);
    addresses.push(device.address);
    let begin = Instant::now();
    let peers: Vec<Peer> = addresses.iter().copied().map(Peer::Udp).collect();
    let pase = link.open_pase(&peers, &passcode(), BUDGET).await.unwrap();
    eprintln!("PASE past six dead addresses: {} ms", begin.elapsed().as_millis());
    assert_eq!(pase.peer(), device.address.into());
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    pase.arm_fail_safe(Duration::ZERO, 0).await.unwrap();
    drop(pase);
    drop(commission(&link, NodeId(6), device.address).await.unwrap());
    let begin = Instant::now();
    let case = link.open_case(NodeId(6), &addresses, BUDGET).await.unwrap();
    eprintln!("CASE past six dead addresses: {} ms", begin.elapsed().as_millis());
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    case.current_fabric_index().await.unwrap();

    let begin = Instant::now();
    let Err(LinkError::Unreachable { tried }) = link.open_case(NodeId(6), &[forbidden], BUDGET).await else {
        panic!("nobody is there")
    };
    assert!(matches!(&tried[..], [(address, NoAnswer::NoRoute(_))] if *address == forbidden.into()), "{tried:?}");
    assert!(begin.elapsed() < Duration::from_secs(2), "a send that fails is not waited for: {:?}", begin.elapsed());
}

/// An address that was given to another node of the fabric does not spoil the right one, and says who is not there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_answers_must_be_the_node() {
    let (link, ours, stranger) = (hub(), device().await, device().await);
    drop(commission(&link, NodeId(7), ours.address).await.unwrap());
    let case = link.open_case(NodeId(7), &[stranger.address, ours.address], BUDGET).await.unwrap();
    case.current_fabric_index().await.unwrap();
    let refused = link.open_case(NodeId(7), &[stranger.address], BUDGET).await.err();
    assert_eq!(refused, Some(LinkError::NoSharedTrustRoots { peer: stranger.address }));
}

/// More sessions at once than rs-matter has places for: they wait for each other, and all come about.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_wait_their_turn() {
    let link = hub();
    let mut devices = Vec::new();
    for node in 50..55 {
        let device = device().await;
        drop(commission(&link, NodeId(node), device.address).await.unwrap());
        devices.push((NodeId(node), device));
    }
    let begin = Instant::now();
    let opened = devices.iter().cycle().take(100).map(|(node, device)| {
        let (link, node, address) = (link.clone(), *node, device.address);
        tokio::spawn(async move {
            let case = link.open_case(node, &[address], BUDGET).await;
            // As long as a small read takes; the device has four handlers, which would be another test.
            tokio::time::sleep(Duration::from_millis(200)).await;
            case.map(drop)
        })
    });
    let results: Vec<_> = futures_util::future::join_all(opened).await.into_iter().map(Result::unwrap).collect();
    eprintln!("100 sessions at once: {} ms", begin.elapsed().as_millis());
    let failed: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    assert!(failed.is_empty(), "{} failed: {failed:?}", failed.len());
}

/// A message of a session that nobody knows is answered once; what the other end makes of that answer ends there. The
/// device here is an rs-matter of the same version without our way out, so alone it would go on for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_ends_that_lost_their_session_do_not_answer_each_other_for_ever() {
    let (link, device) = (hub(), device().await);
    let relay = Relay::start(device.address, everything());
    let pase = link.open_pase(&[relay.address.into()], &passcode(), BUDGET).await.unwrap();
    // Session 0x7777, counter 1, and some bytes that nobody can decrypt.
    let mut unknown = vec![0, 0x77, 0x77, 0, 1, 0, 0, 0];
    unknown.resize(80, 0xA5);
    let before = relay.passed();
    for _ in 0..50 {
        relay.forge(&unknown);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let passed = relay.passed() - before;
    eprintln!("{passed} datagrams after 50 messages of unknown sessions");
    assert!((1..=20).contains(&passed), "{passed}");
    // And the two still talk.
    pase.arm_fail_safe(Duration::ZERO, 0).await.unwrap();
}

/// Handshakes of strangers, a thousand a second: none is answered, and no device becomes silent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_who_want_a_session_make_no_device_silent() {
    let port = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let (link, device) = (hub_at(port), device().await);
    let stranger = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (stop, told) = (CancellationToken::new(), stranger.try_clone().unwrap());
    let stopped = stop.clone();
    let sending = std::thread::spawn(move || {
        for counter in 1_u32.. {
            if stopped.is_cancelled() {
                return;
            }
            // Unsecured, from a node that is made up for this one; the exchange's initiator asks for an acknowledgement.
            let mut opening = vec![0x04, 0, 0, 0];
            opening.extend(counter.to_le_bytes());
            opening.extend(u64::from(counter).to_le_bytes());
            let opcode = [0x20, 0x30][counter as usize % 2];
            opening.extend([5, opcode]);
            opening.extend([counter.to_le_bytes()[0], counter.to_le_bytes()[1], 0, 0]);
            opening.extend([0x15, 0x25, 2, 9, 0, 0x18]);
            told.send_to(&opening, (Ipv4Addr::LOCALHOST, port)).unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    for node in 1..=5 {
        let begin = Instant::now();
        let case = commission(&link, NodeId(3000 + node), device.address).await.unwrap();
        eprintln!("commissioned in {} ms among strangers", begin.elapsed().as_millis());
        case.remove_fabric(case.current_fabric_index().await.unwrap()).await.unwrap();
    }
    stop.cancel();
    sending.join().unwrap();
    stranger.set_nonblocking(true).unwrap();
    assert!(stranger.recv(&mut [0; 64]).is_err(), "a stranger was answered");
}
