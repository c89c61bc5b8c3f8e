//! Which network interfaces the device is seen on.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::VirtualDeviceError;

/// One interface with the addresses that the device advertises there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interface {
    pub name: String,
    pub index: u32,
    pub v4: Option<Ipv4Addr>,
    pub v6: Vec<Ipv6Addr>,
}

/// The interfaces named, or, where none is named, every one that is up, without loopback unless it is all there is.
///
/// # Errors
/// `UnknownInterface` for a name that does not exist, is down or has no address; `NoInterface` when nothing is left.
pub(super) fn select(names: &[String]) -> Result<Vec<Interface>, VirtualDeviceError> {
    let found = if_addrs::get_if_addrs().map_err(VirtualDeviceError::Network)?;
    pick(found, names)
}

fn pick(found: Vec<if_addrs::Interface>, names: &[String]) -> Result<Vec<Interface>, VirtualDeviceError> {
    let mut all = BTreeMap::<String, (bool, Interface)>::new();
    for found in found.into_iter().filter(if_addrs::Interface::is_oper_up) {
        let (loopback, ip) = (found.is_loopback(), found.ip());
        let Some(index) = found.index else { continue };
        let (_, interface) = all
            .entry(found.name.clone())
            .or_insert_with(|| (loopback, Interface { name: found.name, index, v4: None, v6: Vec::new() }));
        match ip {
            IpAddr::V4(v4) => interface.v4 = interface.v4.or(Some(v4)),
            IpAddr::V6(v6) => interface.v6.push(v6),
        }
    }
    if let Some(unknown) = names.iter().find(|name| !all.contains_key(*name)) {
        return Err(VirtualDeviceError::UnknownInterface { name: unknown.clone() });
    }
    let only_loopback = all.values().all(|(loopback, _)| *loopback);
    let chosen: Vec<_> = all
        .into_values()
        .filter(
            |(loopback, interface)| {
                if names.is_empty() { only_loopback || !loopback } else { names.contains(&interface.name) }
            },
        )
        .map(|(_, interface)| interface)
        .collect();
    if chosen.is_empty() { Err(VirtualDeviceError::NoInterface) } else { Ok(chosen) }
}

#[cfg(test)]
mod tests {
    use if_addrs::{IfAddr, IfOperStatus, Ifv4Addr, Ifv6Addr};

    use super::*;

    fn found(name: &str, index: u32, ip: &str) -> if_addrs::Interface {
        let addr = match ip.parse().unwrap() {
            IpAddr::V4(ip) => IfAddr::V4(Ifv4Addr { ip, netmask: Ipv4Addr::BROADCAST, prefixlen: 32, broadcast: None }),
            IpAddr::V6(ip) => {
                IfAddr::V6(Ifv6Addr { ip, netmask: Ipv6Addr::UNSPECIFIED, prefixlen: 64, broadcast: None })
            }
        };
        if_addrs::Interface {
            name: name.into(),
            addr,
            index: Some(index),
            oper_status: IfOperStatus::Up,
            is_p2p: false,
        }
    }

    fn names(chosen: &[Interface]) -> Vec<&str> {
        chosen.iter().map(|interface| interface.name.as_str()).collect()
    }

    #[test]
    fn loopback_is_used_when_named_or_when_it_is_all_there_is() {
        let lan = [found("lo", 1, "127.0.0.1"), found("lo", 1, "::1"), found("eth0", 2, "fe80::1")];
        assert_eq!(names(&pick(lan.to_vec(), &[]).unwrap()), ["eth0"]);
        let lo = pick(lan.to_vec(), &["lo".into()]).unwrap();
        assert_eq!(lo, pick(lan[..2].to_vec(), &[]).unwrap());
        assert_eq!((lo[0].v4, lo[0].v6.len()), (Some(Ipv4Addr::LOCALHOST), 1));
        assert!(matches!(pick(lan.to_vec(), &["wlan9".into()]), Err(VirtualDeviceError::UnknownInterface { .. })));
        assert!(matches!(pick(Vec::new(), &[]), Err(VirtualDeviceError::NoInterface)));
    }
}
