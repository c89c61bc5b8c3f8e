//! What Breadcrumb (Matter Core 11.10.6.1) says at each step of ours. A device keeps it while its fail-safe is armed, and sets it to 0
//! when that has run out or was ended (11.10.7.2.2): whoever meets it again can tell how far it is, and whether by us.

/// `mbnd`, above the step: other commissioners count from 1.
const OURS: u64 = 0x6D62_6E64 << 32;

/// How far a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Breadcrumb {
    /// Its fail-safe is armed; on the LAN that is all that it is told.
    Armed,
    /// The network's credentials are on the device.
    NetworkAdded,
    /// The device was sent to the network.
    NetworkJoined,
    /// It was met again after its attempt was interrupted.
    Resumed,
}

impl Breadcrumb {
    const ALL: [Self; 4] = [Self::Armed, Self::NetworkAdded, Self::NetworkJoined, Self::Resumed];

    /// What the device is told.
    pub(crate) fn value(self) -> u64 {
        OURS | match self {
            Self::Armed => 0x01,
            Self::NetworkAdded => 0x10,
            Self::NetworkJoined => 0x11,
            Self::Resumed => 0x20,
        }
    }

    /// What a device says; `None` where it says nothing of ours.
    pub(crate) fn read(value: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|step| step.value() == value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_is_told_from_the_others_and_from_those_of_other_commissioners() {
        for step in Breadcrumb::ALL {
            assert_eq!(Breadcrumb::read(step.value()), Some(step));
        }
        for others in [0, 1, 2, 0x10, 0x11, OURS, u64::MAX] {
            assert_eq!(Breadcrumb::read(others), None);
        }
    }
}
