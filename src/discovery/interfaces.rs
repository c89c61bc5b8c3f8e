//! Which network interfaces take part, and how those that do not stand.
//!
//! Listing them costs more than all else that an idle hub does, so what was listed is kept until the kernel tells of a change.
//! Not here: hearing of it (`changes`).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use if_addrs::{IfAddr, Interface};
use nix::net::if_::InterfaceFlags;
use serde::Serialize;

use super::address::LocalPrefix;
use crate::config::NetworkConfig;

/// What was listed is believed for so long where the kernel tells of changes.
const KEPT: Duration = Duration::from_secs(60);
/// And where it does not.
const KEPT_BLINDLY: Duration = Duration::from_secs(1);

/// Whether an interface takes part: a named one, and with no names every one that is up and multicast-capable. On the loopback
/// interface there is nobody but this machine: it takes part where somebody made it a network, by its MULTICAST flag or by
/// `network.loopback`.
pub(crate) fn takes_part(config: &NetworkConfig, interface: &Interface) -> bool {
    takes_part_with(config, interface, &Flags::now())
}

fn takes_part_with(config: &NetworkConfig, interface: &Interface, flags: &Flags) -> bool {
    if config.interfaces.is_empty() {
        return flags.multicast_capable(&interface.name);
    }
    let is_network = || !interface.is_loopback() || config.loopback || flags.multicast_capable(&interface.name);
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
    pub v4: Vec<Ipv4Addr>,
    pub v6: Vec<Ipv6Addr>,
    /// Whether devices are looked for on it.
    pub takes_part: bool,
}

/// Every interface of the machine, those without an address too.
pub(crate) fn all(config: &NetworkConfig) -> Vec<InterfaceState> {
    let flags = Flags::now();
    let state = |(name, flags): (&String, &InterfaceFlags)| {
        let state = InterfaceState {
            name: name.clone(),
            up: flags.contains(InterfaceFlags::IFF_UP),
            multicast: flags.contains(InterfaceFlags::IFF_MULTICAST),
            loopback: flags.contains(InterfaceFlags::IFF_LOOPBACK),
            running: flags.contains(InterfaceFlags::IFF_RUNNING),
            ..InterfaceState::default()
        };
        (name.clone(), state)
    };
    let mut found: BTreeMap<String, InterfaceState> = flags.0.iter().map(state).collect();
    for interface in if_addrs::get_if_addrs().unwrap_or_default() {
        let part = takes_part_with(config, &interface, &flags);
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

/// The hub's place in its networks; empty where the system does not tell.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    /// The names of the interfaces that take part.
    pub(crate) usable: Vec<String>,
    /// The configured ones of which there is nothing: no such interface, not up, or without an address.
    pub(crate) missing: Vec<String>,
    /// Our own addresses with their prefixes.
    pub(crate) prefixes: Vec<LocalPrefix>,
}

impl Standing {
    /// As it is now.
    fn now(config: &NetworkConfig) -> Self {
        let (interfaces, flags) = (if_addrs::get_if_addrs().unwrap_or_default(), Flags::now());
        let part = interfaces.iter().filter(|interface| takes_part_with(config, interface, &flags));
        let mut usable: Vec<_> = part.map(|interface| interface.name.clone()).collect();
        usable.sort_unstable();
        usable.dedup();
        let missing = config.interfaces.iter().filter(|name| !usable.contains(name)).cloned().collect();
        let prefix = |interface: &Interface| {
            let (ip, length) = match &interface.addr {
                IfAddr::V4(v4) => (IpAddr::V4(v4.ip), v4.prefixlen),
                IfAddr::V6(v6) => (IpAddr::V6(v6.ip), v6.prefixlen),
            };
            LocalPrefix { ip, length, interface: interface.index.unwrap_or(0), loopback: interface.is_loopback() }
        };
        Self { usable, missing, prefixes: interfaces.iter().map(prefix).collect() }
    }
}

/// The standing as it was listed last.
#[derive(Debug)]
pub(crate) struct Known {
    config: NetworkConfig,
    state: Mutex<KnownState>,
}

#[derive(Debug, Default)]
struct KnownState {
    /// The kernel tells of changes.
    is_told: bool,
    listed: Option<(Instant, Arc<Standing>)>,
}

impl Known {
    pub(crate) fn new(config: NetworkConfig) -> Self {
        Self { config, state: Mutex::default() }
    }

    pub(crate) fn config(&self) -> &NetworkConfig {
        &self.config
    }

    /// From the calling thread's network namespace, listed again where that may say something new.
    pub(crate) fn get(&self, now: Instant) -> Arc<Standing> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = if state.is_told { KEPT } else { KEPT_BLINDLY };
        match &state.listed {
            Some((at, standing)) if now < *at + kept => Arc::clone(standing),
            _ => {
                let standing = Arc::new(Standing::now(&self.config));
                state.listed = Some((now, Arc::clone(&standing)));
                standing
            }
        }
    }

    /// The kernel tells of changes from now on, or does not any more.
    pub(crate) fn handle_told(&self, is_told: bool) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = KnownState { is_told, listed: None };
    }

    /// Something has changed.
    pub(crate) fn handle_change(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).listed = None;
    }
}

/// Of every interface in a network namespace, those without an address too.
struct Flags(BTreeMap<String, InterfaceFlags>);

impl Flags {
    /// In the calling thread's.
    fn now() -> Self {
        let listed = nix::ifaddrs::getifaddrs().into_iter().flatten();
        Self(listed.map(|interface| (interface.interface_name, interface.flags)).collect())
    }

    fn multicast_capable(&self, name: &str) -> bool {
        let wanted = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_MULTICAST;
        self.0.get(name).is_some_and(|flags| flags.contains(wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configured_interface_that_is_not_there_is_named() {
        let config = NetworkConfig { interfaces: vec!["no-such".to_owned()], loopback: false };
        let standing = Standing::now(&config);
        assert_eq!((standing.usable, standing.missing), (Vec::new(), vec!["no-such".to_owned()]));
    }

    #[test]
    fn what_was_listed_is_kept_until_a_change_is_told_of() {
        let (known, now) = (Known::new(NetworkConfig::default()), Instant::now());
        let listed_again = |last: &Arc<Standing>, now| !Arc::ptr_eq(last, &known.get(now));
        let first = known.get(now);
        assert!(!listed_again(&first, now));
        assert!(listed_again(&first, now + KEPT_BLINDLY), "nobody tells");
        known.handle_told(true);
        let first = known.get(now);
        assert!(!listed_again(&first, now + KEPT - KEPT_BLINDLY));
        known.handle_change();
        assert!(listed_again(&first, now));
    }

    #[test]
    fn the_loopback_interface_takes_part_when_it_is_named_and_meant() {
        let interfaces = if_addrs::get_if_addrs().expect("interfaces");
        let loopback = interfaces.iter().find(|interface| interface.is_loopback()).expect("a loopback interface");
        let named = |meant| NetworkConfig { interfaces: vec![loopback.name.clone()], loopback: meant };
        assert!(takes_part(&named(true), loopback));
        assert_eq!(takes_part(&named(false), loopback), Flags::now().multicast_capable(&loopback.name));
        let all = all(&named(true));
        let listed = all.iter().find(|state| state.name == loopback.name).expect("it is listed");
        assert!(listed.loopback && listed.up && listed.takes_part, "{listed:?}");
        assert!(!Flags::now().multicast_capable("no-such-interface-at-all"));
    }
}
