//! A UDP relay between a hub and one device, in user space: it sees each datagram and decides whether it arrives. So loss
//! needs no netem, and one certain datagram can be the lost one.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};

/// Where a datagram comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    Hub,
    Device,
}

/// Whether a datagram arrives.
pub type Rule = Box<dyn FnMut(From, &[u8]) -> bool + Send>;

/// Loses `percent` of the datagrams of both directions, always the same ones in the order in which they come.
pub fn lossy(percent: u32, seed: u64) -> Rule {
    let mut random = StdRng::seed_from_u64(seed);
    Box::new(move |_, _| random.random_range(0..100) >= percent)
}

/// An unsecured standalone acknowledgement, or a secured message without payload.
pub fn is_acknowledgement(datagram: &[u8]) -> bool {
    let is_unsecured = datagram.get(1..3) == Some(&[0, 0]);
    // 8 bytes of header, 8 of node id; then flags and opcode.
    if is_unsecured { datagram.get(17) == Some(&0x10) } else { datagram.len() <= 34 }
}

/// Runs until it is dropped.
pub struct Relay {
    /// What the hub takes for the device.
    pub address: SocketAddr,
    inside: UdpSocket,
    hub: Arc<Mutex<Option<SocketAddr>>>,
    rule: Arc<Mutex<Rule>>,
    passed: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Relay {
    pub fn start(device: SocketAddr, rule: Rule) -> Self {
        let socket = |address: Ipv4Addr| {
            let socket = UdpSocket::bind((address, 0)).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            socket
        };
        // From the loopback interface nobody elsewhere can be reached.
        let own = if device.ip().is_loopback() { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED };
        let (inside, outside) = (socket(Ipv4Addr::LOCALHOST), socket(own));
        outside.connect(device).unwrap();
        let address = inside.local_addr().unwrap();
        let (rule, hub, passed, stop) =
            (Arc::new(Mutex::new(rule)), Arc::new(Mutex::new(None)), Arc::default(), Arc::default());
        let mut relay = Self { address, inside, hub, rule, passed, stop, threads: Vec::new() };
        let (to_device, from_hub) = (outside.try_clone().unwrap(), relay.inside.try_clone().unwrap());
        let (hub, known) = (Arc::clone(&relay.hub), Arc::clone(&relay.hub));
        relay.spawn(From::Hub, from_hub, move |peer, datagram| {
            *hub.lock().unwrap() = Some(peer);
            let _ = to_device.send(datagram);
        });
        let to_hub = relay.inside.try_clone().unwrap();
        relay.spawn(From::Device, outside, move |_, datagram| {
            if let Some(hub) = *known.lock().unwrap() {
                let _ = to_hub.send_to(datagram, hub);
            }
        });
        relay
    }

    fn spawn(&mut self, from: From, socket: UdpSocket, forward: impl Fn(SocketAddr, &[u8]) + Send + 'static) {
        let (rule, passed, stop) = (Arc::clone(&self.rule), Arc::clone(&self.passed), Arc::clone(&self.stop));
        self.threads.push(std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !stop.load(Ordering::Relaxed) {
                // A time-out, or the device's port is closed for a moment.
                let Ok((length, peer)) = socket.recv_from(&mut buffer) else { continue };
                if rule.lock().unwrap()(from, &buffer[..length]) {
                    passed.fetch_add(1, Ordering::Relaxed);
                    forward(peer, &buffer[..length]);
                }
            }
        }));
    }

    /// From now on, another rule.
    pub fn set_rule(&self, rule: Rule) {
        *self.rule.lock().unwrap() = rule;
    }

    /// Datagrams that have arrived, both directions.
    pub fn passed(&self) -> usize {
        self.passed.load(Ordering::Relaxed)
    }

    /// To the hub, as if the device had sent it.
    pub fn forge(&self, datagram: &[u8]) {
        let hub = self.hub.lock().unwrap().expect("the hub has spoken");
        self.inside.send_to(datagram, hub).unwrap();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}
