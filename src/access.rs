//! Who may do what, as it is in force now: the configuration, what `access set` and `access rotate` changed since, and the
//! list that one device shall hold. Pure.
//!
//! The configuration says which tags there are; the overlay, kept in the store, says their versions since, other grants,
//! and which nodes still have to be told. Not here: reading and writing a device's list (`hub::access`).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::commissioning::path::acl_difference;
use crate::fabric::{
    AUTH_MODE_CASE, AclDoesNotFit, AclEntry, AclLimits, Cat, CatGrant, MAX_CATS_PER_NOC, Privilege, plan_acl,
};
use crate::node::NodeId;

/// The overlay's name in the store.
pub(crate) const BLOB: &str = "access";
/// By how much a restore raises the versions of the hub's own tags. A certificate with a later version satisfies an
/// earlier entry (Matter Core 6.6.2.1.2), so the hub is let in by devices that were rotated after the backup was made.
pub(crate) const RESTORE_VERSION_GAP: u16 = 64;

/// What was changed since the configuration was written. One JSON document in the store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct AccessOverlay {
    /// The version in force of each rotated tag, by identifier. Never less than before.
    versions: BTreeMap<u16, u16>,
    /// Grants for all nodes, in place of the configuration's.
    grants: Option<Vec<CatGrant>>,
    /// Grants for one node, in place of those for all.
    nodes: BTreeMap<u64, Vec<CatGrant>>,
    /// Nodes that have yet to be told.
    pending: BTreeSet<u64>,
    /// The version that certificates are issued with, where it is ahead of the one in force: first everybody gets a new
    /// certificate, then the nodes ask for it.
    issued: BTreeMap<u16, u16>,
    /// How far it is ahead of the one in force for every other tag: a restored hub does not know how often the tag was rotated
    /// since its backup.
    issued_ahead: u16,
    /// Node ids of controllers that were removed: an entry for one of them does not stay on a node.
    shut_out: BTreeSet<u64>,
}

/// The tags and grants in force for one node, or for one that is commissioned now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The hub's own tag.
    pub admin: Cat,
    /// What others may do.
    pub grants: Vec<CatGrant>,
    /// Whose node ids no entry may have.
    pub shut_out: Vec<NodeId>,
}

/// What the configuration says; see [`crate::config`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Base<'a> {
    /// The hub's own tag.
    pub admin: Cat,
    /// What others may do.
    pub grants: &'a [CatGrant],
}

/// Why a change of the policy is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PolicyError {
    /// No such tag in force.
    #[error("no grant has a tag with identifier {0:#06x}")]
    UnknownTag(u16),
    /// Its version is 65535.
    #[error("{0} has the last version that there is; give its users a tag with another identifier")]
    LastVersion(Cat),
    /// Two grants of one identifier, or one that is the hub's.
    #[error("identifier {0:#06x} is granted twice, or is the hub's own")]
    Twice(u16),
}

impl AccessOverlay {
    /// Reads [`Self::to_bytes`].
    ///
    /// # Errors
    /// It is damaged.
    pub(crate) fn from_bytes(bytes: Option<&[u8]>) -> Result<Self, serde_json::Error> {
        bytes.map_or_else(|| Ok(Self::default()), serde_json::from_slice)
    }

    /// For the store.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("numbers always serialise")
    }

    /// A tag with the version in force: the configured one, or the one that it was rotated to since.
    pub(crate) fn current(&self, cat: Cat) -> Cat {
        let version = self.versions.get(&cat.identifier()).copied().unwrap_or(0).max(cat.version());
        with_version(cat, version)
    }

    /// What is in force for a node; `None`: for one that has no grants of its own.
    pub(crate) fn wanted(&self, base: Base<'_>, node: Option<NodeId>) -> Wanted {
        let own = node.and_then(|node| self.nodes.get(&node.0));
        let grants = own.or(self.grants.as_ref()).map_or(base.grants, Vec::as_slice);
        Wanted {
            admin: self.current(base.admin),
            grants: grants.iter().map(|grant| CatGrant { cat: self.current(grant.cat), ..*grant }).collect(),
            shut_out: self.shut_out.iter().copied().map(NodeId).collect(),
        }
    }

    /// All tags that are granted anywhere and the hub's own, in the versions in force, by identifier.
    pub(crate) fn tags(&self, base: Base<'_>) -> Vec<Cat> {
        let granted = base.grants.iter().chain(self.grants.iter().flatten()).chain(self.nodes.values().flatten());
        let mut tags: BTreeMap<u16, Cat> = BTreeMap::new();
        for cat in granted.map(|grant| grant.cat).chain([base.admin]).map(|cat| self.current(cat)) {
            let known = tags.entry(cat.identifier()).or_insert(cat);
            *known = (*known).max(cat);
        }
        tags.into_values().collect()
    }

    fn tag(&self, base: Base<'_>, identifier: u16) -> Option<Cat> {
        self.tags(base).into_iter().find(|cat| cat.identifier() == identifier)
    }

    /// A tag with the version that new certificates get: never an earlier one than any node asks for. `None` where nobody is
    /// granted anything by it.
    pub(crate) fn issued(&self, base: Base<'_>, identifier: u16) -> Option<Cat> {
        self.tag(base, identifier).map(|cat| with_version(cat, self.issued_version(cat)))
    }

    fn issued_version(&self, current: Cat) -> u16 {
        match self.issued.get(&current.identifier()) {
            Some(version) => current.version().max(*version),
            None => current.version().saturating_add(self.issued_ahead),
        }
    }

    /// Issues later versions of this tag than `held` from now on, if it is not so already. Nodes ask for what they asked.
    ///
    /// # Errors
    /// There is no later version.
    pub(crate) fn issue_later_than(&mut self, base: Base<'_>, held: Cat) -> Result<(), PolicyError> {
        let identifier = held.identifier();
        let current = self.tag(base, identifier).unwrap_or_else(|| self.current(held));
        let issued = self.issued_version(current);
        if issued <= held.version() {
            let next = held.version().checked_add(1).ok_or(PolicyError::LastVersion(held))?;
            self.issued.insert(identifier, next);
        } else {
            self.issued.insert(identifier, issued);
        }
        Ok(())
    }

    /// Nodes ask for the version that certificates are issued with; answers the tag.
    pub(crate) fn ask_for_issued(&mut self, base: Base<'_>, held: Cat) -> Cat {
        let current = self.tag(base, held.identifier()).unwrap_or_else(|| self.current(held));
        let version = self.issued_version(current);
        self.versions.insert(held.identifier(), version);
        with_version(current, version)
    }

    /// No entry for this controller stays on a node.
    pub(crate) fn shut_out(&mut self, controller: NodeId) {
        self.shut_out.insert(controller.0);
    }

    /// Sets the grants of one node, or of all; `None` goes back to those for all, or to the configuration's.
    ///
    /// # Errors
    /// [`PolicyError::Twice`]; nothing is changed then.
    pub(crate) fn set_grants(
        &mut self,
        base: Base<'_>,
        node: Option<NodeId>,
        grants: Option<Vec<CatGrant>>,
    ) -> Result<(), PolicyError> {
        let mut seen = BTreeSet::from([base.admin.identifier()]);
        if let Some(twice) = grants.iter().flatten().find(|grant| !seen.insert(grant.cat.identifier())) {
            return Err(PolicyError::Twice(twice.cat.identifier()));
        }
        match (node, grants) {
            (None, grants) => self.grants = grants,
            (Some(node), Some(grants)) => drop(self.nodes.insert(node.0, grants)),
            (Some(node), None) => drop(self.nodes.remove(&node.0)),
        }
        Ok(())
    }

    /// Raises the version of the tag with this identifier by one.
    ///
    /// # Errors
    /// Nobody has such a tag, or there is no later version.
    pub(crate) fn rotate(&mut self, base: Base<'_>, identifier: u16) -> Result<Cat, PolicyError> {
        let cat = self.issued(base, identifier).ok_or(PolicyError::UnknownTag(identifier))?;
        let version = cat.version().checked_add(1).ok_or(PolicyError::LastVersion(cat))?;
        self.versions.insert(identifier, version);
        self.issued.insert(identifier, version);
        Ok(with_version(cat, version))
    }

    /// Takes over what an overlay of the same fabric knew later, and raises the hub's own tags past everything that may
    /// have been in force after the backup. Every node is told again.
    pub(crate) fn after_restore(mut self, hub_cats: &[Cat], later: Option<&Self>) -> Self {
        for (identifier, version) in later.into_iter().flat_map(|later| &later.versions) {
            let known = self.versions.entry(*identifier).or_default();
            *known = (*known).max(*version);
        }
        for (identifier, version) in later.into_iter().flat_map(|later| &later.issued) {
            let known = self.issued.entry(*identifier).or_default();
            *known = (*known).max(*version);
        }
        self.shut_out.extend(later.into_iter().flat_map(|later| &later.shut_out));
        // Whoever enrols or renews from now on is let in by nodes that ask for a version that this hub does not know of.
        let ahead = later.map_or(self.issued_ahead, |later| self.issued_ahead.max(later.issued_ahead));
        self.issued_ahead = ahead.saturating_add(RESTORE_VERSION_GAP);
        for version in self.issued.values_mut() {
            *version = version.saturating_add(RESTORE_VERSION_GAP);
        }
        for cat in hub_cats {
            let version = self.current(*cat).version().saturating_add(RESTORE_VERSION_GAP);
            self.versions.insert(cat.identifier(), version);
            self.issued.insert(cat.identifier(), version);
        }
        self
    }

    /// Notes that these have to be told.
    pub(crate) fn add_pending(&mut self, nodes: impl IntoIterator<Item = NodeId>) {
        self.pending.extend(nodes.into_iter().map(|node| node.0));
    }

    /// Notes that this one was told, or is gone. Answers whether it was to be.
    pub(crate) fn remove_pending(&mut self, node: NodeId) -> bool {
        self.pending.remove(&node.0)
    }

    /// Forgets what was set for a node that is gone.
    pub(crate) fn forget(&mut self, node: NodeId) {
        self.pending.remove(&node.0);
        self.nodes.remove(&node.0);
    }

    /// Whether a node has to be told.
    pub(crate) fn is_pending(&self, node: NodeId) -> bool {
        self.pending.contains(&node.0)
    }

    /// Those that have to be told.
    pub(crate) fn pending(&self) -> Vec<NodeId> {
        self.pending.iter().copied().map(NodeId).collect()
    }
}

/// The hub's tags after its own was raised or added: one version of each identifier, the others kept, because devices
/// that were told of them let the hub in by nothing else. `None` where nothing changes.
pub(crate) fn hub_cats(held: &[Cat], admin: Cat) -> Option<Vec<Cat>> {
    let mut cats = held.to_vec();
    match cats.iter().position(|cat| cat.identifier() == admin.identifier()) {
        // A certificate with a later version does what one with the earlier does.
        Some(index) if cats[index].version() >= admin.version() => return None,
        Some(index) => cats[index] = admin,
        None => {
            if cats.len() == MAX_CATS_PER_NOC {
                cats.remove(0);
            }
            cats.push(admin);
        }
    }
    Some(cats)
}

/// The list for one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AccessPlan {
    /// All entries of our fabric, as they shall be.
    pub entries: Vec<AclEntry>,
    /// Whether the device holds another list now.
    pub differs: bool,
}

/// Why no list can be made for a device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PlanError {
    #[error(transparent)]
    DoesNotFit(#[from] AclDoesNotFit),
    /// Somebody else wrote an entry which cannot be written back as it is.
    #[error("the device holds an entry for groups or for single targets that this hub did not write and would lose")]
    ForeignEntry,
}

/// Plans the list of a device from what is wanted, its limits and the entries of our fabric that stand on it. Tags are
/// ours: they are replaced, but never by an earlier version than the device asks for. Subjects that are node ids were
/// written by somebody else on our fabric and are kept, but for those of controllers that were removed. Entries of other fabrics are never seen and never touched.
///
/// # Errors
/// See [`PlanError`].
pub(crate) fn plan(wanted: &Wanted, limits: AclLimits, standing: &[AclEntry]) -> Result<AccessPlan, PlanError> {
    if standing.iter().any(|entry| entry.has_targets || entry.auth_mode != AUTH_MODE_CASE) {
        return Err(PlanError::ForeignEntry);
    }
    let tags = || standing.iter().flat_map(|entry| &entry.subjects).filter_map(|subject| Cat::from_subject(*subject));
    let not_earlier = |cat: Cat| tags().filter(|held| held.identifier() == cat.identifier()).fold(cat, Cat::max);
    let grants: Vec<CatGrant> =
        wanted.grants.iter().map(|grant| CatGrant { cat: not_earlier(grant.cat), ..*grant }).collect();
    // The hub's own tag is not raised so: a device must not be able to lock the hub out of itself.
    let mut entries = plan_acl(wanted.admin, &grants, limits)?;
    for entry in standing {
        let stays =
            |subject: &u64| Cat::from_subject(*subject).is_none() && !wanted.shut_out.contains(&NodeId(*subject));
        let subjects: Vec<u64> = entry.subjects.iter().copied().filter(stays).collect();
        // An entry without subjects means everybody.
        if !subjects.is_empty() || entry.subjects.is_empty() {
            entries.push(AclEntry { subjects, ..entry.clone() });
        }
    }
    if entries.len() > usize::from(limits.entries_per_fabric) {
        return Err(PlanError::DoesNotFit(AclDoesNotFit {
            needed: entries.len(),
            available: limits.entries_per_fabric,
            subjects_per_entry: limits.subjects_per_entry,
        }));
    }
    let differs = acl_difference(&entries, standing).is_some();
    Ok(AccessPlan { entries, differs })
}

/// What `granted_cats` says of a device that holds what is wanted.
pub(crate) fn expected_cats(wanted: &Wanted) -> Vec<CatGrant> {
    let own = CatGrant { cat: wanted.admin, privilege: Privilege::Administer };
    let mut cats: Vec<CatGrant> = wanted.grants.iter().copied().chain([own]).collect();
    cats.sort_unstable();
    cats.dedup();
    cats
}

fn with_version(cat: Cat, version: u16) -> Cat {
    Cat::new(u32::from(cat.identifier()) << 16 | u32::from(version)).unwrap_or(cat)
}

#[cfg(test)]
mod tests;
