//! A slow link: a relay in the hub's namespace that holds every datagram back a little. Steps of a commissioning then last
//! long enough to be met half-way, for instance by the device's death.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::lab::Lab;

/// One way. Far below the first retransmission (300 ms and more).
const LATENCY: Duration = Duration::from_millis(60);
/// How often a thread looks whether it should end.
const LOOK: Duration = Duration::from_millis(200);

/// Ends when dropped.
pub struct SlowLink {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
}

impl SlowLink {
    /// A relay to the device on `port`.
    pub fn to(lab: &Lab, port: u16) -> Self {
        let device = SocketAddr::from((Ipv4Addr::new(10, 77, 0, 2), port));
        // A socket stays in the namespace in which it was made.
        let (near, far) = lab.in_hub(|| async {
            let near = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
            (near, UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a free port"))
        });
        let address = near.local_addr().expect("it is bound");
        let ended = Arc::new(AtomicBool::new(false));
        let hub = Arc::new(Mutex::new(None));
        let (near, far) = (Arc::new(near), Arc::new(far));
        for (from, into, outward) in [(near.clone(), far.clone(), true), (far, near, false)] {
            from.set_read_timeout(Some(LOOK)).expect("a timeout");
            let (ended, hub) = (ended.clone(), hub.clone());
            std::thread::spawn(move || relay(&from, &into, &hub, outward.then_some(device), &ended));
        }
        Self { address, ended }
    }

    /// For `--address`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }
}

impl Drop for SlowLink {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

fn relay(
    from: &UdpSocket,
    into: &UdpSocket,
    hub: &Mutex<Option<SocketAddr>>,
    device: Option<SocketAddr>,
    ended: &AtomicBool,
) {
    let mut buffer = [0; 2048];
    while !ended.load(Ordering::Relaxed) {
        let (length, sender) = match from.recv_from(&mut buffer) {
            Ok(received) => received,
            // Nothing came, or the other side has no socket there any more.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionRefused) => continue,
            Err(error) => panic!("the slow link broke: {error}"),
        };
        let target = match device {
            Some(device) => {
                *hub.lock().expect("nobody panics with it") = Some(sender);
                Some(device)
            }
            None => *hub.lock().expect("nobody panics with it"),
        };
        std::thread::sleep(LATENCY);
        if let Some(target) = target {
            // Lost, as on any link, when nobody listens.
            let _ = into.send_to(&buffer[..length], target);
        }
    }
}
