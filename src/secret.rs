//! Secrets as types: nothing in here can be printed, and all of it is wiped when dropped.
//!
//! `Debug` writes the type's name and nothing else, there is no `Display`, and serialisation is only possible where a
//! module says so itself by calling `expose`. A test runs whole attempts at `trace` level and searches every output.

use std::fmt;

use serde::{Deserialize, Deserializer};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Declares a secret around `$inner`; `expose` is the one way to read it, so that a reader can search for its uses.
macro_rules! secret {
    ($(#[$doc:meta])* $name:ident, $inner:ty, $exposed:ty) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
        pub struct $name($inner);

        impl $name {
            /// Takes the value into custody.
            pub fn new(value: impl Into<$inner>) -> Self {
                Self(value.into())
            }

            /// The value itself. Never pass it to a format string.
            pub fn expose(&self) -> &$exposed {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    };
}

/// Lets a string secret be read (never written) by serde.
macro_rules! deserialize_secret {
    ($($name:ident),*) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer).map(Self)
            }
        }
    )*};
}

secret! {
    /// The setup passcode of a commissionee, 1..=99_999_998 without the reserved values (Matter Core 5.1.7).
    Passcode, u32, u32
}
secret! {
    /// The Identity Protection Key's epoch key of our fabric, 16 bytes (Matter Core 4.15.2).
    IpkEpochKey, [u8; 16], [u8]
}
secret! {
    /// A P-256 private key in SEC1 form, 32 bytes: RCAC, ICAC or the hub's own operational key.
    OperationalSigningKey, [u8; 32], [u8]
}
secret! {
    /// The 16 characters `0-9A-F` that a device and its binder both show the cloud (cloud-contract 3.1).
    BindingCode, String, str
}
secret! {
    /// The near-field key that the cloud answers a bind with (cloud-contract 3.1).
    AuthKey, String, str
}
secret! {
    /// The cloud's access token exactly as returned, `Bearer ` included (cloud-contract 1).
    AccessToken, String, str
}
secret! {
    /// The cloud's refresh token exactly as returned (cloud-contract 2.3).
    RefreshToken, String, str
}
secret! {
    /// A password or another secret that an operator put into a file.
    OperatorSecret, String, str
}
secret! {
    /// The password of a Wi-Fi network of the home, or its 64 hexadecimal digits of PSK; empty for an open network.
    WifiPassword, String, str
}
secret! {
    /// The operational dataset of a Thread network of the home, TLV: it carries the network key.
    ThreadDataset, Vec<u8>, [u8]
}
secret! {
    /// The key that a device with long idle times seals its check-ins with, 16 bytes (Matter Core 9.16.7.1).
    CheckInKey, [u8; 16], [u8; 16]
}
deserialize_secret!(BindingCode, AuthKey, AccessToken, RefreshToken, OperatorSecret, WifiPassword);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_the_type_and_not_the_value() {
        assert_eq!(format!("{:?}", Passcode::new(20202021u32)), "Passcode(..)");
        assert_eq!(format!("{:?}", BindingCode::new("0123456789ABCDEF")), "BindingCode(..)");
        assert_eq!(format!("{:?}", Some(IpkEpochKey::new([7u8; 16]))), "Some(IpkEpochKey(..))");
    }
}
