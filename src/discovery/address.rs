//! Which of a node's addresses are worth trying, and in which order. Pure.

use std::net::{IpAddr, Ipv6Addr};

use crate::node::{ScopedAddress, is_unicast_link_local};

/// More than this nobody needs, whatever a responder puts into its records.
const MAX_ADDRESSES: usize = 16;

/// An address of this host with its prefix, from which follows what is on-link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LocalPrefix {
    pub ip: IpAddr,
    /// 0..=128.
    pub length: u8,
    /// The interface it belongs to.
    pub interface: u32,
    /// Whether that is the loopback interface.
    pub loopback: bool,
}

/// Orders addresses best first and drops those that cannot be a peer's.
///
/// The order is that of the Matter SDK: on-link unique local and global addresses, link-local, other unique local and
/// global ones, IPv4. A loopback address counts only where it was heard on the loopback interface: from elsewhere it
/// would make the hub talk to itself.
pub(crate) fn rank(mut addresses: Vec<ScopedAddress>, local: &[LocalPrefix]) -> Vec<ScopedAddress> {
    addresses.retain(|address| {
        let heard_on_loopback = address
            .scope
            .as_ref()
            .is_some_and(|(_, index)| local.iter().any(|own| own.loopback && own.interface == *index));
        may_be_a_neighbours(address.ip)
            && !local.iter().any(|own| is_broadcast_of(own, address.ip))
            && (!address.ip.is_loopback() || heard_on_loopback)
            && (!address.is_link_local() || address.scope.is_some())
    });
    addresses.sort_by_cached_key(|address| (preference(address.ip, local), address.clone()));
    addresses.dedup();
    addresses.truncate(MAX_ADDRESSES);
    addresses
}

/// Whether one host can have the address at all. An IPv4 address in an AAAA record (RFC 4291 2.5.5) is nobody's: a socket
/// would send it over IPv4, past every check of IPv4 addresses.
fn may_be_a_neighbours(ip: IpAddr) -> bool {
    match ip {
        // 0.0.0.0/8 is "this network", 240.0.0.0/4 reserved, with the limited broadcast address at its end.
        IpAddr::V4(v4) => v4.octets()[0] != 0 && !v4.is_multicast() && v4.octets()[0] < 240,
        IpAddr::V6(v6) => {
            let embeds_v4 = v6.segments()[..5] == [0; 5] && matches!(v6.segments()[5], 0 | 0xFFFF) && !v6.is_loopback();
            !v6.is_multicast() && !embeds_v4
        }
    }
}

/// The network's own address and its broadcast address; a prefix of 31 bits or more has neither.
fn is_broadcast_of(own: &LocalPrefix, ip: IpAddr) -> bool {
    let (IpAddr::V4(_), IpAddr::V4(other)) = (own.ip, ip) else { return false };
    let host_bits = u32::MAX.checked_shr(own.length.into()).unwrap_or(0);
    let host = other.to_bits() & host_bits;
    own.length > 0 && own.length < 31 && shares_prefix(own, ip) && !own.loopback && (host == 0 || host == host_bits)
}

fn preference(ip: IpAddr, local: &[LocalPrefix]) -> u8 {
    let on_link = || local.iter().any(|own| shares_prefix(own, ip));
    match ip {
        IpAddr::V6(v6) if is_unicast_link_local(v6) => 2,
        IpAddr::V6(v6) => match (is_unique_local(v6), on_link()) {
            (true, true) => 0,
            (false, true) => 1,
            (true, false) => 4,
            (false, false) => 5,
        },
        IpAddr::V4(_) if on_link() => 3,
        IpAddr::V4(_) => 6,
    }
}

/// fc00::/7.
fn is_unique_local(ip: Ipv6Addr) -> bool {
    ip.segments()[0] & 0xFE00 == 0xFC00
}

fn shares_prefix(own: &LocalPrefix, other: IpAddr) -> bool {
    match (own.ip, other) {
        (IpAddr::V6(a), IpAddr::V6(b)) => leading_bits_equal(a.to_bits(), b.to_bits(), 128, own.length),
        (IpAddr::V4(a), IpAddr::V4(b)) => leading_bits_equal(a.to_bits().into(), b.to_bits().into(), 32, own.length),
        _ => false,
    }
}

fn leading_bits_equal(a: u128, b: u128, width: u8, length: u8) -> bool {
    let differing = a ^ b;
    let common = differing.leading_zeros() - (128 - u32::from(width));
    common >= u32::from(length.min(width))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(ip: &str, interface: &str, index: u32) -> ScopedAddress {
        ScopedAddress { ip: ip.parse().expect("an address"), scope: Some((interface.to_owned(), index)) }
    }

    fn local(ip: &str, length: u8, interface: u32, loopback: bool) -> LocalPrefix {
        LocalPrefix { ip: ip.parse().expect("an address"), length, interface, loopback }
    }

    #[test]
    fn what_is_on_link_comes_first() {
        let own = [local("fd77::1", 64, 2, false), local("10.77.0.1", 24, 2, false), local("127.0.0.1", 8, 1, true)];
        let seen = ["192.168.9.9", "10.77.0.2", "fe80::2", "2001:db8::2", "fd99::2", "fd77::2"]
            .map(|ip| address(ip, "eth0", 2))
            .to_vec();
        let order: Vec<_> = rank(seen, &own).iter().map(ToString::to_string).collect();
        assert_eq!(order, ["fd77::2", "fe80::2%eth0", "10.77.0.2", "fd99::2", "2001:db8::2", "192.168.9.9"]);
    }

    #[test]
    fn what_cannot_be_a_peer_is_dropped() {
        let own = [local("127.0.0.1", 8, 1, true)];
        let mut seen = vec![
            address("127.0.0.1", "eth0", 2),
            address("::", "eth0", 2),
            address("ff02::fb", "eth0", 2),
            address("127.0.0.1", "lo", 1),
        ];
        seen.push(ScopedAddress { ip: "fe80::1".parse().expect("an address"), scope: None });
        assert_eq!(rank(seen, &own), [address("127.0.0.1", "lo", 1)]);
    }

    #[test]
    fn what_nobody_can_have_is_dropped() {
        let own = [local("10.77.0.1", 24, 2, false), local("127.0.0.1", 8, 1, true), local("10.0.0.0", 31, 3, false)];
        for ip in [
            "::ffff:127.0.0.1",
            "::ffff:10.77.0.9",
            "::127.0.0.1",
            "0.0.0.0",
            "0.1.2.3",
            "255.255.255.255",
            "240.0.0.1",
            "10.77.0.255",
            "10.77.0.0",
            "224.0.0.251",
            "ff02::1",
        ] {
            assert_eq!(rank(vec![address(ip, "eth0", 2)], &own), [], "{ip}");
        }
        for ip in ["10.77.0.254", "10.77.1.255", "10.0.0.1", "fd77::ffff", "192.168.1.1"] {
            assert_eq!(rank(vec![address(ip, "eth0", 2)], &own).len(), 1, "{ip}");
        }
    }

    #[test]
    fn a_link_local_address_on_two_links_is_two_addresses() {
        let seen = vec![address("fe80::2", "eth0", 2), address("fe80::2", "eth1", 3), address("fe80::2", "eth0", 2)];
        assert_eq!(rank(seen, &[]).len(), 2);
    }
}
