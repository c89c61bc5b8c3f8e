//! Which network interfaces take part.

use std::net::IpAddr;

use if_addrs::{IfAddr, Interface};

use super::address::LocalPrefix;
use crate::config::NetworkConfig;

/// Whether an interface takes part: a named one always, and with no names every one that is up and multicast-capable.
/// That leaves the loopback interface out, which has no MULTICAST flag unless somebody set it.
pub fn takes_part(config: &NetworkConfig, interface: &Interface) -> bool {
    if config.interfaces.is_empty() {
        multicast_capable(&interface.name)
    } else {
        config.interfaces.contains(&interface.name)
    }
}

/// The names of the interfaces that take part now, and the configured ones of which there is nothing: no such interface,
/// not up, or without an address.
pub fn survey(config: &NetworkConfig) -> (Vec<String>, Vec<String>) {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let mut usable: Vec<_> =
        interfaces.iter().filter(|interface| takes_part(config, interface)).map(|i| i.name.clone()).collect();
    usable.sort_unstable();
    usable.dedup();
    let missing = config.interfaces.iter().filter(|name| !usable.contains(name)).cloned().collect();
    (usable, missing)
}

/// Our own addresses with their prefixes; empty where the system does not tell.
pub fn local_prefixes() -> Vec<LocalPrefix> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let prefix = |interface: &Interface| {
        let (ip, length) = match &interface.addr {
            IfAddr::V4(v4) => (IpAddr::V4(v4.ip), v4.prefixlen),
            IfAddr::V6(v6) => (IpAddr::V6(v6.ip), v6.prefixlen),
        };
        LocalPrefix { ip, length, interface: interface.index.unwrap_or(0), loopback: interface.is_loopback() }
    };
    interfaces.iter().map(prefix).collect()
}

/// IFF_UP and IFF_MULTICAST, asked of the calling thread's network namespace.
fn multicast_capable(name: &str) -> bool {
    let wanted = (libc::IFF_UP | libc::IFF_MULTICAST) as libc::c_short;
    flags(name).is_some_and(|flags| flags & wanted == wanted)
}

fn flags(name: &str) -> Option<libc::c_short> {
    use std::os::fd::AsRawFd;
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::DGRAM, None).ok()?;
    // SAFETY: all-zero bytes are a valid ifreq, which is plain data.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays 0: names are at most 15 bytes.
    if name.len() >= request.ifr_name.len() {
        return None;
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    // SAFETY: SIOCGIFFLAGS reads ifr_name and writes ifru_flags of the ifreq behind the pointer, which outlives the call.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &raw mut request) };
    // SAFETY: every bit pattern is a valid c_short; it is what the kernel wrote where the call succeeded.
    (answer == 0).then_some(unsafe { request.ifr_ifru.ifru_flags })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configured_interface_that_is_not_there_is_named() {
        let config = NetworkConfig { interfaces: vec!["no-such".to_owned()] };
        assert_eq!(survey(&config), (Vec::new(), vec!["no-such".to_owned()]));
    }

    #[test]
    fn the_loopback_interface_takes_part_when_named() {
        let interfaces = if_addrs::get_if_addrs().expect("interfaces");
        let loopback = interfaces.iter().find(|interface| interface.is_loopback()).expect("a loopback interface");
        let named = NetworkConfig { interfaces: vec![loopback.name.clone()] };
        assert!(takes_part(&named, loopback));
        let up = flags(&loopback.name).expect("its flags") & libc::IFF_UP as libc::c_short;
        assert_ne!(up, 0);
        assert_eq!(flags("no-such-interface-at-all"), None);
    }
}
