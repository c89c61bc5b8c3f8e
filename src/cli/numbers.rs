//! Values on the command line: numbers in both bases, durations, addresses with an interface.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use crate::admin::wire::AcceptedTerms;
use crate::node::number;

/// The port of Matter (Matter Core 4.3.1).
const MATTER_PORT: u16 = 5540;

/// A 16-bit number, decimal or hexadecimal after `0x`.
///
/// # Errors
/// No number, or too large.
pub(crate) fn u16_any_base(text: &str) -> Result<u16, String> {
    number(text).ok_or_else(|| "a number from 0 to 65535 is needed, decimal or hexadecimal like 0xFFF1".to_owned())
}

/// `VERSION:BITS`, both decimal or hexadecimal.
pub(crate) fn terms(text: &str) -> Result<AcceptedTerms, String> {
    let wrong = || "version and bits are needed, for instance 1:0x1".to_owned();
    let (version, bits) = text.split_once(':').ok_or_else(wrong)?;
    let number = |text| u16_any_base(text).map_err(|_| wrong());
    Ok(AcceptedTerms { version: number(version)?, bits: number(bits)? })
}

/// `3s`, `2m`, `500ms`; a bare number is seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    humantime::parse_duration(text).map_err(|_| "a duration is needed, for instance 3s, 500ms or 2m".to_owned())
}

/// `IP[:PORT]`: `192.168.1.7`, `192.168.1.7:5541`, `fd00::7`, `[fd00::7]:5541`, `fe80::7%eth0`, `[fe80::7%eth0]:5541`.
///
/// # Errors
/// No such address, or no such interface.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    const WRONG: &str = "an address is needed, for instance 192.168.1.7, [fd00::7]:5541 or fe80::7%eth0";
    if let Ok(socket) = text.parse() {
        return Ok(socket);
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or(WRONG)?;
            let port = match after.strip_prefix(':') {
                Some(port) => port.parse().map_err(|_| WRONG)?,
                None if after.is_empty() => MATTER_PORT,
                None => return Err(WRONG.to_owned()),
            };
            (host, port)
        }
        None => (text, MATTER_PORT),
    };
    match crate::node::read_scoped(host).ok_or(WRONG)? {
        (IpAddr::V6(ip), Some(interface)) => Ok(SocketAddrV6::new(ip, port, 0, interface_index(interface)?).into()),
        (IpAddr::V4(_), Some(_)) => Err(WRONG.to_owned()),
        (IpAddr::V6(ip), None) if crate::node::is_unicast_link_local(ip) => {
            Err(format!("{ip} is link-local: say on which interface, for instance {ip}%eth0"))
        }
        (ip, None) => Ok(SocketAddr::new(ip, port)),
    }
}

fn interface_index(name: &str) -> Result<u32, String> {
    if let Ok(index) = name.parse() {
        return Ok(index);
    }
    if name.contains('/') {
        return Err(format!("{name:?} is no interface"));
    }
    let index = std::fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).ok();
    index.and_then(|text| text.trim().parse().ok()).ok_or_else(|| format!("there is no interface {name:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_may_leave_out_the_port() {
        for (text, expected) in [
            ("192.168.1.7", "192.168.1.7:5540"),
            ("192.168.1.7:5541", "192.168.1.7:5541"),
            ("fd00::7", "[fd00::7]:5540"),
            ("[fd00::7]:5541", "[fd00::7]:5541"),
            ("[fd00::7]", "[fd00::7]:5540"),
            ("fe80::7%lo", "[fe80::7%1]:5540"),
            ("[fe80::7%lo]:1", "[fe80::7%1]:1"),
        ] {
            assert_eq!(address(text).unwrap().to_string(), expected, "{text}");
        }
        for text in ["", "light", "fe80::7", "fe80::7%no-such", "1.2.3.4%lo", "[fd00::7]x"] {
            assert!(address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_and_durations() {
        assert_eq!(u16_any_base("0xFFF1"), Ok(0xFFF1));
        assert_eq!(u16_any_base("3840"), Ok(3840));
        assert!(u16_any_base("70000").is_err());
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("5"), Ok(Duration::from_secs(5)));
    }
}
