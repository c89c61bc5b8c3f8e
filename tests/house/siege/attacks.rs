//! What comes from the LAN and from the hub's own users while the siege lasts: each attack is a loop of its own, until it is
//! told to stop, and says what it did.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rand::{Rng as _, RngExt as _};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::support::lab::INTERFACE;
use crate::support::mdns::{Claim, Ear, names};

/// What the attackers know of the hub.
#[derive(Debug, Clone)]
pub struct Target {
    /// The daemon's process.
    pub pid: u32,
    /// Its Matter ports.
    pub ports: Vec<u16>,
    /// Its admin API on the network.
    pub tcp: SocketAddr,
    /// And on the machine.
    pub socket: PathBuf,
}

/// Whether it goes on; waits for `pause` first, in small steps.
pub fn goes_on(stop: &AtomicBool, pause: Duration) -> bool {
    let until = Instant::now() + pause;
    while Instant::now() < until && !stop.load(Ordering::Relaxed) {
        sleep(Duration::from_millis(20));
    }
    !stop.load(Ordering::Relaxed)
}

fn claim(n: u64, service: &'static str, instance: String, discriminator: u16, name: &str) -> Claim {
    Claim {
        service,
        instance,
        subtypes: vec![format!("_L{discriminator}")],
        txt: vec![format!("D={discriminator}"), "CM=1".to_owned(), "VP=65521+32768".to_owned(), format!("DN={name}")],
        ip: format!("fd77::{:x}", 0x1000 + n % 60_000).parse().unwrap(),
        port: 5540,
    }
}

/// Liars on the LAN: 2,000 devices, nodes or bare names in four seconds, names that would clear a screen, and the light's twins.
pub async fn liars(stop: &AtomicBool, discriminators: &[u16]) -> String {
    let ear = Ear::open(INTERFACE);
    let devices: Vec<Claim> = (0..2000_u64)
        .map(|n| claim(n, "_matterc._udp", format!("{:016X}", 0xA000_0000_0000_0000 + n), (n % 4096) as u16, "flood"))
        .collect();
    let nodes = (0..2000).map(|n| claim(n, "_matter._tcp", format!("1122334455667788-{n:016X}"), 0, "flood").whole());
    let whole: Vec<_> = devices.iter().map(Claim::whole).collect();
    let (nodes, bare): (Vec<_>, Vec<_>) = (nodes.collect(), devices.chunks(20).map(names).collect());
    let mut said = 0;
    for round in 0_usize.. {
        for text in ["\u{1b}[2J\u{1b}]52;c;eA==\u{7}", "\u{202e}evil\u{2066}", "a\r\nb"] {
            ear.say(&claim(9, "_matterc._udp", text.to_owned(), 9, text).whole()).await;
            ear.say(&claim(9, "_matterc._udp", "00000000000000EE".to_owned(), 9, text).whole()).await;
        }
        // One that nobody answers for, and one that has the light's own address.
        let discriminator = discriminators[round % discriminators.len()];
        let twin = claim(round as u64, "_matterc._udp", format!("{:016X}", 0xB000 + round), discriminator, "twin");
        ear.say(&twin.whole()).await;
        let instance = format!("{:016X}", 0xC000 + round);
        ear.say(&Claim { ip: "fd77::2".parse().unwrap(), instance, ..twin }.whole()).await;
        let (packets, per_second) = [(&whole, 500), (&nodes, 500), (&bare, 25)][round % 3];
        for part in packets.chunks(per_second as usize) {
            ear.flood(part, per_second).await;
            said += part.len();
            if !goes_on(stop, Duration::ZERO) {
                return format!("{said} packets of records were multicast");
            }
        }
        if !goes_on(stop, Duration::from_secs(6)) {
            break;
        }
    }
    format!("{said} packets of records were multicast")
}

/// An unsecured message to the secure channel, as a stranger would send it.
fn unsecured(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut random = rand::rng();
    let mut message = vec![0x04, 0, 0, 0];
    message.extend((random.next_u32() >> 4).to_le_bytes());
    message.extend((random.next_u64() >> 1).to_le_bytes());
    message.extend([0x05, opcode]);
    message.extend((random.next_u32() as u16).to_le_bytes());
    message.extend([0, 0]);
    message.extend(payload);
    message
}

fn sigma1() -> Vec<u8> {
    let mut random = rand::rng();
    let mut octets = |tag: u8, length: u8| {
        let mut field = vec![0x30, tag, length];
        field.extend((0..length).map(|_| random.next_u32() as u8));
        field
    };
    let (nonce, destination, key) = (octets(1, 32), octets(3, 32), octets(4, 65));
    [&[0x15][..], &nonce, &[0x25, 2, 7, 1], &destination, &key, &[0x18]].concat()
}

fn packet(mode: usize) -> Vec<u8> {
    let mut random = rand::rng();
    match mode {
        0 => (0..random.random_range(0..1400)).map(|_| random.next_u32() as u8).collect(),
        1 => unsecured(0x30, &sigma1()),
        2 => {
            unsecured(0x20, &[&[0x15, 0x30, 1, 32][..], &[7; 32], &[0x25, 2, 9, 1, 0x24, 3, 0, 0x28, 4, 0x18]].concat())
        }
        3 => unsecured(0x30, &[0x15; 1200]),
        _ => {
            let mut message = unsecured(0x30, &sigma1());
            for _ in 0..5 {
                let at = random.random_range(0..message.len());
                message[at] = random.next_u32() as u8;
            }
            message.truncate(random.random_range(1..message.len()));
            message
        }
    }
}

/// Datagrams to the Matter ports, from 200 ports: noise, handshakes of nobody, nested TLV, bent messages.
pub fn datagrams(target: &Target, stop: &AtomicBool) -> String {
    let sockets: Vec<_> = (0..200).map(|_| UdpSocket::bind("[::]:0").unwrap()).collect();
    let mut sent = 0_usize;
    for mode in (0..5).cycle() {
        for _ in 0..40 {
            for _ in 0..50 {
                let port = target.ports[sent % target.ports.len()];
                // The hub's queue may be full.
                let _ = sockets[sent % sockets.len()].send_to(&packet(mode), ("fd77::1", port));
                sent += 1;
            }
            if !goes_on(stop, Duration::from_millis(20)) {
                return format!("{sent} datagrams were sent to ports {:?}", target.ports);
            }
        }
    }
    unreachable!("it cycles")
}

/// A crowd at the admin API's network address: connections that say nothing or half a word, wrong tokens, no HTTP at all.
pub fn strangers(target: &Target, stop: &AtomicBool) -> String {
    let (mut opened, mut refused) = (0, 0);
    let token = "Authorization: Bearer wrong-wrong-wrong-wrong-wrong-wrong\r\n";
    while goes_on(stop, Duration::from_secs(1)) {
        let mut crowd = Vec::new();
        for n in 0..150 {
            let Ok(mut stream) = TcpStream::connect_timeout(&target.tcp, Duration::from_secs(2)) else { continue };
            let words = match n % 5 {
                0 => String::new(),
                1 => "GET / HTTP/1.1\r\nX: ".to_owned(),
                2 => format!("GET /v1/nodes HTTP/1.1\r\nHost: h\r\n{token}\r\n"),
                3 => "\u{16}\u{3}\u{1}\0\0\r\n\r\n".to_owned(),
                _ => format!("POST /v1/commission HTTP/1.1\r\nHost: h\r\n{token}Content-Length: 999999999\r\n\r\n{{"),
            };
            // It may be closed already.
            let _ = stream.write_all(words.as_bytes());
            let _ = stream.set_read_timeout(Some(Duration::from_millis(1)));
            let mut answer = [0; 12];
            refused += usize::from(stream.read(&mut answer).is_ok_and(|length| length > 0));
            opened += 1;
            crowd.push(stream);
        }
        goes_on(stop, Duration::from_secs(3));
    }
    format!("{opened} connections were opened over TCP, {refused} of them answered at once")
}

fn post(socket: &Path, code: &str) -> std::io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let body = json!({ "setup_code": code }).to_string();
    let head = format!("POST /v1/commission HTTP/1.0\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all((head + &body).as_bytes())?;
    Ok(stream)
}

/// Users of the hub itself: attempts whose clients leave, a malformed code behind them, and fifty who want to see everything.
pub fn users(target: &Target, stop: &AtomicBool) -> String {
    let (mut abandoned, mut longest, mut lists) = (0, Duration::ZERO, 0);
    while goes_on(stop, Duration::from_secs(2)) {
        for _ in 0..8 {
            // No light has this code's discriminator: it would have to bear the refused tries.
            if let Ok(mut stream) = post(&target.socket, "34970112332") {
                let _ = stream.read(&mut [0; 300]);
                abandoned += 1;
            }
        }
        let begun = Instant::now();
        let mut answer = String::new();
        if post(&target.socket, "nonsense").and_then(|mut stream| stream.read_to_string(&mut answer)).is_ok() {
            assert!(answer.contains("\"failed\"") || answer.contains("too-many"), "{answer}");
            longest = longest.max(begun.elapsed());
        }
        std::thread::scope(|scope| {
            for n in 0..50 {
                let path = ["/v1/nodes", "/", "/v1/logs", "/v1/outbox", "/metrics"][n % 5];
                scope.spawn(move || {
                    let Ok(mut stream) = UnixStream::connect(&target.socket) else { return };
                    let _ = stream.set_read_timeout(Some(Duration::from_secs(60)));
                    let _ = write!(stream, "GET {path} HTTP/1.0\r\nHost: h\r\n\r\n");
                    let _ = std::io::copy(&mut stream, &mut std::io::sink());
                });
            }
        });
        lists += 50;
    }
    format!("{abandoned} attempts were abandoned, a malformed code waited {longest:?} at most, {lists} lists were read")
}

/// Signals that mean nothing to the daemon, and one that reloads.
pub fn signals(target: &Target, stop: &AtomicBool) -> String {
    let pid = Pid::from_raw(target.pid.cast_signed()).unwrap();
    let mut sent = 0;
    while goes_on(stop, Duration::from_millis(700)) {
        for signal in [Signal::HUP, Signal::USR1, Signal::USR2, Signal::ALARM] {
            // Whether it still lives is judged at the end.
            let _ = kill_process(pid, signal);
            sent += 1;
        }
    }
    format!("{sent} signals were sent")
}
