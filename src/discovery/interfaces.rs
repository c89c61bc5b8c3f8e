//! Which network interfaces take part, and how those that do not stand.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use if_addrs::{IfAddr, Interface};
use nix::net::if_::InterfaceFlags;
use serde::Serialize;

use super::address::LocalPrefix;
use crate::config::NetworkConfig;

/// Whether an interface takes part: a named one, and with no names every one that is up and multicast-capable. On the loopback
/// interface there is nobody but this machine: it takes part where somebody made it a network, by its MULTICAST flag or by
/// `network.loopback`.
pub(crate) fn takes_part(config: &NetworkConfig, interface: &Interface) -> bool {
    if config.interfaces.is_empty() {
        return multicast_capable(&interface.name);
    }
    let is_network = || !interface.is_loopback() || config.loopback || multicast_capable(&interface.name);
    config.interfaces.contains(&interface.name) && is_network()
}

/// An interface as it stands now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct InterfaceState {
    pub name: String,
    pub index: u32,
    /// IFF_UP
    pub up: bool,
    /// IFF_MULTICAST
    pub multicast: bool,
    /// IFF_LOOPBACK
    pub loopback: bool,
    /// IFF_RUNNING: there is a cable, or an access point.
    pub running: bool,
    /// Its IPv4 addresses.
    pub v4: Vec<Ipv4Addr>,
    /// Its IPv6 addresses.
    pub v6: Vec<Ipv6Addr>,
    /// Whether devices are looked for on it.
    pub takes_part: bool,
}

/// Every interface of the machine, those without an address too.
pub(crate) fn all(config: &NetworkConfig) -> Vec<InterfaceState> {
    let mut found: BTreeMap<String, InterfaceState> = flags()
        .map(|(name, flags)| {
            let state = InterfaceState {
                name: name.clone(),
                up: flags.contains(InterfaceFlags::IFF_UP),
                multicast: flags.contains(InterfaceFlags::IFF_MULTICAST),
                loopback: flags.contains(InterfaceFlags::IFF_LOOPBACK),
                running: flags.contains(InterfaceFlags::IFF_RUNNING),
                ..InterfaceState::default()
            };
            (name, state)
        })
        .collect();
    for interface in if_addrs::get_if_addrs().unwrap_or_default() {
        let part = takes_part(config, &interface);
        let Some(state) = found.get_mut(&interface.name) else { continue };
        state.takes_part |= part;
        state.index = interface.index.unwrap_or(state.index);
        match interface.addr {
            IfAddr::V4(v4) => state.v4.push(v4.ip),
            IfAddr::V6(v6) => state.v6.push(v6.ip),
        }
    }
    found.into_values().collect()
}

/// The names of the interfaces that take part now, and the configured ones of which there is nothing: no such interface,
/// not up, or without an address.
pub(crate) fn survey(config: &NetworkConfig) -> (Vec<String>, Vec<String>) {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let mut usable: Vec<_> =
        interfaces.iter().filter(|interface| takes_part(config, interface)).map(|i| i.name.clone()).collect();
    usable.sort_unstable();
    usable.dedup();
    let missing = config.interfaces.iter().filter(|name| !usable.contains(name)).cloned().collect();
    (usable, missing)
}

/// Our own addresses with their prefixes; empty where the system does not tell.
pub(crate) fn local_prefixes() -> Vec<LocalPrefix> {
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

fn multicast_capable(name: &str) -> bool {
    let wanted = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_MULTICAST;
    flags().any(|(interface, flags)| interface == name && flags.contains(wanted))
}

/// Of every interface in the calling thread's network namespace, those without an address too; once for each address.
fn flags() -> impl Iterator<Item = (String, InterfaceFlags)> {
    let listed = nix::ifaddrs::getifaddrs().into_iter().flatten();
    listed.map(|interface| (interface.interface_name, interface.flags))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configured_interface_that_is_not_there_is_named() {
        let config = NetworkConfig { interfaces: vec!["no-such".to_owned()], loopback: false };
        assert_eq!(survey(&config), (Vec::new(), vec!["no-such".to_owned()]));
    }

    #[test]
    fn the_loopback_interface_takes_part_when_it_is_named_and_meant() {
        let interfaces = if_addrs::get_if_addrs().expect("interfaces");
        let loopback = interfaces.iter().find(|interface| interface.is_loopback()).expect("a loopback interface");
        let named = |meant| NetworkConfig { interfaces: vec![loopback.name.clone()], loopback: meant };
        assert!(takes_part(&named(true), loopback));
        assert_eq!(takes_part(&named(false), loopback), multicast_capable(&loopback.name));
        let all = all(&named(true));
        let listed = all.iter().find(|state| state.name == loopback.name).expect("it is listed");
        assert!(listed.loopback && listed.up && listed.takes_part, "{listed:?}");
        assert!(!multicast_capable("no-such-interface-at-all"));
    }
}
