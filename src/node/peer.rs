//! Where a device is spoken to: on the IP network, or over Bluetooth before it is on any. Data only.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use super::{CommissionableNode, SessionParameters};

/// One end of a conversation with a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Peer {
    /// On the LAN; a link-local address carries its interface's number.
    Udp(SocketAddr),
    /// BTP (Matter Core 4.19).
    Bluetooth(BluetoothAddress),
}

impl Peer {
    /// The address on the IP network, where it is there.
    pub fn udp(self) -> Option<SocketAddr> {
        match self {
            Self::Udp(address) => Some(address),
            Self::Bluetooth(_) => None,
        }
    }

    /// The Bluetooth address, where it is spoken to over Bluetooth.
    pub fn bluetooth(self) -> Option<BluetoothAddress> {
        match self {
            Self::Udp(_) => None,
            Self::Bluetooth(address) => Some(address),
        }
    }
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        Self::Udp(address)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp(address) => write!(f, "{address}"),
            Self::Bluetooth(address) => write!(f, "Bluetooth {address}"),
        }
    }
}

/// A Bluetooth device address, first octet first. Devices change it every few minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BluetoothAddress(pub [u8; 6]);

impl fmt::Display for BluetoothAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, last] = self.0;
        write!(f, "{a:02X}:{b:02X}:{c:02X}:{d:02X}:{e:02X}:{last:02X}")
    }
}

impl FromStr for BluetoothAddress {
    type Err = String;

    /// Six pairs of hexadecimal digits, with `:` between them, or `_` as BlueZ writes them.
    fn from_str(text: &str) -> Result<Self, String> {
        let octets = text.split([':', '_']).map(|pair| u8::from_str_radix(pair, 16));
        let octets: Vec<u8> = octets.collect::<Result<_, _>>().map_err(|_| format!("{text:?} is no address"))?;
        octets.try_into().map(Self).map_err(|_| format!("{text:?} is no address"))
    }
}

/// A commissionable node as its Bluetooth advertisement describes it (Matter Core 5.4.2.5.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BluetoothNode {
    /// The address that it advertises from; it may change.
    pub address: BluetoothAddress,
    /// The long discriminator, 12 bits.
    pub discriminator: u16,
    /// Vendor id; 0 where the device hides it.
    pub vendor_id: u16,
    /// Product id; 0 where the device hides it.
    pub product_id: u16,
    /// Whether C3 has additional data to read, for instance a rotating id.
    pub additional_data: bool,
    /// How strongly it is received, dBm.
    pub rssi: i16,
}

impl BluetoothNode {
    /// What stands for a DNS-SD instance name.
    pub fn instance(&self) -> String {
        self.address.to_string()
    }
}

/// A device that can be commissioned, wherever it shows itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Announced {
    /// On the network, by DNS-SD.
    Lan(CommissionableNode),
    /// By a Bluetooth advertisement.
    Bluetooth(BluetoothNode),
}

impl Announced {
    /// What tells it from others; empty for what is only known by an address that a person gave.
    pub fn instance(&self) -> String {
        match self {
            Self::Lan(node) => node.instance.clone(),
            Self::Bluetooth(node) => node.instance(),
        }
    }

    /// Where it may be spoken to, best first.
    pub fn peers(&self) -> Vec<Peer> {
        match self {
            Self::Lan(node) => node.sockets().into_iter().map(Peer::Udp).collect(),
            Self::Bluetooth(node) => vec![Peer::Bluetooth(node.address)],
        }
    }

    /// All twelve bits of its discriminator.
    pub fn discriminator(&self) -> u16 {
        match self {
            Self::Lan(node) => node.txt.discriminator,
            Self::Bluetooth(node) => node.discriminator,
        }
    }

    /// How it listens, as far as it has said.
    pub fn session(&self) -> SessionParameters {
        match self {
            Self::Lan(node) => node.txt.session(),
            // A device that is connected over Bluetooth is awake.
            Self::Bluetooth(_) => SessionParameters::default(),
        }
    }

    /// The device as its DNS-SD records describe it, where it has any.
    pub fn lan(&self) -> Option<&CommissionableNode> {
        match self {
            Self::Lan(node) => Some(node),
            Self::Bluetooth(_) => None,
        }
    }
}

impl fmt::Display for Announced {
    /// As a person can tell it from the others.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lan(node) => {
                let name = node.txt.device_name.as_deref().unwrap_or("unnamed");
                let at = node.addresses.first().map(|address| format!(" at {address}")).unwrap_or_default();
                write!(f, "{name:?} with discriminator {}{at}", node.txt.discriminator)
            }
            Self::Bluetooth(node) => {
                write!(f, "one over Bluetooth with discriminator {} ({} dBm)", node.discriminator, node.rssi)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_as_bluez_and_people_write_it() {
        let address = BluetoothAddress([0x00, 0xAA, 0x01, 0, 0, 0x23]);
        assert_eq!(address.to_string(), "00:AA:01:00:00:23");
        assert_eq!("00_AA_01_00_00_23".parse(), Ok(address));
        for wrong in ["", "00:AA", "00:AA:01:00:00:23:7", "00:AA:01:00:00:XY"] {
            assert!(wrong.parse::<BluetoothAddress>().is_err(), "{wrong}");
        }
    }
}
