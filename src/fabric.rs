//! Fabric policy: CASE Authenticated Tags, grants, and the access control entries they become. Pure.
//!
//! Not here: keys and certificates (`matter::credentials`), reading and writing a device's list (`matter::link`).

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

/// The upper half of a subject that is a CASE Authenticated Tag (Matter Core 2.5.5.5).
const CAT_SUBJECT_PREFIX: u64 = 0xFFFF_FFFD_0000_0000;
/// A certificate holds at most three tags (Matter Core 6.6.2.1.2).
pub(crate) const MAX_CATS_PER_NOC: usize = 3;

/// A CASE Authenticated Tag: identifier in the upper 16 bits, version (never 0) in the lower (Matter Core 6.6.2.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cat(u32);

/// Why a number is no CAT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0:#010x} is no CASE Authenticated Tag: its version, the lower 16 bits, must not be 0")]
pub struct CatVersionZero(u32);

impl Cat {
    /// # Errors
    /// A version of 0: devices refuse CASE with it.
    pub fn new(value: u32) -> Result<Self, CatVersionZero> {
        if value & 0xFFFF == 0 { Err(CatVersionZero(value)) } else { Ok(Self(value)) }
    }

    /// The bare 32 bits, as the cloud wants them (cloud-contract 6.5).
    pub fn value(self) -> u32 {
        self.0
    }

    /// The upper 16 bits.
    pub fn identifier(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// The lower 16 bits, 1..=65535.
    pub fn version(self) -> u16 {
        self.0 as u16
    }

    /// The subject form of an access control entry.
    pub fn subject(self) -> u64 {
        CAT_SUBJECT_PREFIX | u64::from(self.0)
    }

    /// Reads a subject, if it is a CAT.
    pub fn from_subject(subject: u64) -> Option<Self> {
        (subject & 0xFFFF_FFFF_0000_0000 == CAT_SUBJECT_PREFIX).then(|| Self::new(subject as u32).ok()).flatten()
    }
}

impl fmt::Display for Cat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}

impl Serialize for Cat {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0)
    }
}

impl<'de> Deserialize<'de> for Cat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(u32::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// The privileges that both Matter (Core 9.10.5.3) and the cloud (cloud-contract 6.6) know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub enum Privilege {
    /// Read only.
    View,
    /// Read, and use the device.
    Operate,
    /// Everything, access control included.
    Administer,
}

impl Privilege {
    /// AccessControlEntryPrivilegeEnum on the wire.
    pub fn wire(self) -> u8 {
        match self {
            Self::View => 1,
            Self::Operate => 3,
            Self::Administer => 5,
        }
    }

    /// Reads the wire value; Manage is mapped down to Operate, ProxyView has no counterpart (cloud-contract 6.6).
    pub fn from_wire(value: u8) -> Option<Self> {
        match value {
            1 => Some(Self::View),
            3 | 4 => Some(Self::Operate),
            5 => Some(Self::Administer),
            _ => None,
        }
    }

    /// The word that the cloud wants.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::View => "View",
            Self::Operate => "Operate",
            Self::Administer => "Administer",
        }
    }
}

/// A tag and what it may do: a line of the configuration, of the node record, and of `matterInfo.catList`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct CatGrant {
    /// The tag.
    #[schema(value_type = u32)]
    pub cat: Cat,
    /// What it may do.
    pub privilege: Privilege,
}

/// One entry of a device's access control list, as far as we use it (Matter Core 9.10.5.6).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclEntry {
    /// AccessControlEntryPrivilegeEnum.
    pub privilege: u8,
    /// AccessControlEntryAuthModeEnum: 1 PASE, 2 CASE, 3 group.
    pub auth_mode: u8,
    /// Node ids or CAT subjects; empty means every subject of that mode.
    pub subjects: Vec<u64>,
    /// Whether the entry is limited to targets. We never write such entries and never widen one.
    pub has_targets: bool,
}

pub(crate) const AUTH_MODE_CASE: u8 = 2;

/// What a device's Access Control cluster can hold (Matter Core 9.10.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclLimits {
    /// SubjectsPerAccessControlEntry, at least 4.
    pub subjects_per_entry: u16,
    /// AccessControlEntriesPerFabric, at least 4.
    pub entries_per_fabric: u16,
}

impl Default for AclLimits {
    /// The smallest limits that the specification allows.
    fn default() -> Self {
        Self { subjects_per_entry: 4, entries_per_fabric: 4 }
    }
}

/// The configured grants do not fit on the device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the configured grants need {needed} access control entries, the device holds {available} for each fabric \
     with {subjects_per_entry} subjects each"
)]
pub struct AclDoesNotFit {
    /// Entries that the plan needs.
    pub needed: usize,
    /// AccessControlEntriesPerFabric.
    pub available: u16,
    /// SubjectsPerAccessControlEntry.
    pub subjects_per_entry: u16,
}

/// The access control list that a device shall hold for our fabric: the admin CAT with Administer, then the grants, one
/// entry for each privilege, split where a device holds few subjects for each entry.
///
/// # Errors
/// More entries than the device holds.
pub fn plan_acl(admin: Cat, grants: &[CatGrant], limits: AclLimits) -> Result<Vec<AclEntry>, AclDoesNotFit> {
    let mut entries = Vec::new();
    for privilege in [Privilege::Administer, Privilege::Operate, Privilege::View] {
        let own = (privilege == Privilege::Administer).then_some(admin.subject());
        let mut subjects: Vec<u64> = own.into_iter().collect();
        for grant in grants.iter().filter(|grant| grant.privilege == privilege) {
            if !subjects.contains(&grant.cat.subject()) {
                subjects.push(grant.cat.subject());
            }
        }
        for chunk in subjects.chunks(usize::from(limits.subjects_per_entry.max(1))) {
            entries.push(AclEntry {
                privilege: privilege.wire(),
                auth_mode: AUTH_MODE_CASE,
                subjects: chunk.to_vec(),
                has_targets: false,
            });
        }
    }
    if entries.len() > usize::from(limits.entries_per_fabric) {
        return Err(AclDoesNotFit {
            needed: entries.len(),
            available: limits.entries_per_fabric,
            subjects_per_entry: limits.subjects_per_entry,
        });
    }
    Ok(entries)
}

/// The CAT privileges that a list read from a device really grants, sorted. Entries limited to targets do not count: they
/// do not grant the privilege on the node.
pub fn granted_cats(entries: &[AclEntry]) -> Vec<CatGrant> {
    let mut cats: Vec<CatGrant> = entries
        .iter()
        .filter(|entry| entry.auth_mode == AUTH_MODE_CASE && !entry.has_targets)
        .filter_map(|entry| Privilege::from_wire(entry.privilege).map(|privilege| (privilege, entry)))
        .flat_map(|(privilege, entry)| {
            entry
                .subjects
                .iter()
                .filter_map(move |subject| Cat::from_subject(*subject).map(|cat| CatGrant { cat, privilege }))
        })
        .collect();
    cats.sort_unstable();
    cats.dedup();
    cats
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cat(value: u32) -> Cat {
        Cat::new(value).expect("a version")
    }

    #[test]
    fn version_zero_is_no_tag() {
        assert_eq!(Cat::new(0x0002_0000), Err(CatVersionZero(0x0002_0000)));
        assert!(serde_json::from_str::<Cat>("131072").is_err());
        assert_eq!(cat(0x0002_0001).subject(), 0xFFFF_FFFD_0002_0001);
        assert_eq!(Cat::from_subject(0xFFFF_FFFD_0002_0001), Some(cat(0x0002_0001)));
        assert_eq!(Cat::from_subject(112_233), None);
    }

    #[test]
    fn the_plan_and_what_is_read_back_agree() {
        let grants = [
            CatGrant { cat: cat(0x0002_0001), privilege: Privilege::Operate },
            CatGrant { cat: cat(0x0003_0001), privilege: Privilege::View },
        ];
        let entries = plan_acl(cat(0x0001_0001), &grants, AclLimits::default()).expect("fits");
        assert_eq!(entries.len(), 3);
        let mut expected = grants.to_vec();
        expected.push(CatGrant { cat: cat(0x0001_0001), privilege: Privilege::Administer });
        expected.sort_unstable();
        assert_eq!(granted_cats(&entries), expected);
    }

    #[test]
    fn more_than_the_device_holds_is_refused() {
        let grants: Vec<CatGrant> =
            (2..22).map(|id| CatGrant { cat: cat(id << 16 | 1), privilege: Privilege::Operate }).collect();
        let error = plan_acl(cat(0x0001_0001), &grants, AclLimits::default()).expect_err("twenty do not fit");
        assert_eq!(error.needed, 6);
    }
}
