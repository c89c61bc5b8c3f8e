//! Opens check-ins of devices with long idle times (Matter Core 4.20): unsecured messages that only whoever gave the key can read.
//! Not here: which keys there are, and whether a counter was there before (`hub::icd`).

use std::time::Duration;

use rs_matter::crypto::CanonAeadKeyRef;
use rs_matter::sc::checkin::CheckIn;

use crate::matter::credentials::backend;
use crate::secret::CheckInKey;

/// A check-in that was sealed with our key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Opened {
    /// The Check-In Counter.
    pub counter: u32,
    /// ActiveModeThreshold, where the device says it: for how long it is awake at least.
    pub awake: Option<Duration>,
}

/// What a check-in says, where it was sealed with this key.
pub(crate) fn open(key: &CheckInKey, payload: &[u8]) -> Option<Opened> {
    let mut copy = payload.to_vec();
    let read = CheckIn::new(CanonAeadKeyRef::new(key.expose())).parse(backend(), &mut copy).ok()?;
    let threshold = read.app_data.first_chunk().map(|ms| Duration::from_millis(u16::from_le_bytes(*ms).into()));
    Some(Opened { counter: read.counter, awake: threshold })
}

/// A check-in as a device makes it.
#[cfg(test)]
pub(crate) fn seal(key: &CheckInKey, counter: u32, awake_ms: u16) -> Vec<u8> {
    let mut buffer = [0; 64];
    let codec = CheckIn::new(CanonAeadKeyRef::new(key.expose()));
    codec.generate(backend(), counter, &awake_ms.to_le_bytes(), &mut buffer).unwrap().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The specification's own message, as the reference implementation's test has it.
    #[test]
    fn a_known_check_in_is_read_and_nothing_else_is() {
        let key = CheckInKey::new(*b"\xd9\x0e\x13\x18\x0d\x00\xba\xad\xd2\x0c\xf5\xed\x49\x13\xd3\xff");
        let payload =
            b"\x45\x80\xd2\xc6\xf1\x31\x0d\xc4\xeb\x64\xf1\xf8\xe8\xbd\xc2\x1f\xb5\x19\x5d\x74\x7d\xd2\x87\x9b\
                        \x2b\x0d\x43\xce\x5b\x1c\x56\x50\x78";
        assert_eq!(open(&key, payload), Some(Opened { counter: 12, awake: None }));
        assert_eq!(open(&CheckInKey::new([7; 16]), payload), None);
        for length in 0..payload.len() {
            assert_eq!(open(&key, &payload[..length]), None, "cut to {length}");
        }
        for changed in 0..payload.len() {
            let mut payload = payload.to_vec();
            payload[changed] ^= 1;
            assert_eq!(open(&key, &payload), None, "byte {changed}");
        }
        let ours = seal(&key, 77, 5_000);
        assert_eq!(open(&key, &ours), Some(Opened { counter: 77, awake: Some(Duration::from_secs(5)) }));
    }
}
