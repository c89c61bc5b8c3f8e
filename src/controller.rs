//! Controllers of the household: who else has a certificate of our fabric, with which tags, and until when. Pure.
//!
//! A wall panel or a phone app holds a node operational certificate with CASE Authenticated Tags, and devices let it in by those.
//! Nothing takes a certificate back; what shuts somebody out is a later version of the tag on the devices, which everybody
//! else of the same tag must have in their certificate before. `csr` judges the request of a new one, `invite` the codes by
//! which apps enrol. Not here: signing (`matter::credentials`), the devices' lists (`access`), how it is done (`hub::controllers`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

use crate::fabric::Cat;
use crate::node::NodeId;

pub(crate) mod csr;
pub(crate) mod invite;

/// A certificate that ends sooner is named wherever people look.
pub(crate) const EXPIRES_SOON: SignedDuration = SignedDuration::from_hours(30 * 24);
/// So long a new certificate may take from the hub to its controller.
pub(crate) const ON_ITS_WAY: SignedDuration = SignedDuration::from_hours(24);
/// A name has at most so many characters.
pub(crate) const NAME_MAX: usize = 64;

/// Where a controller stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ControllerState {
    /// It has a certificate.
    Enrolled,
    /// It is to be shut out as soon as everybody else of its tags has a certificate with a later version.
    Leaving,
    /// Its tags' versions are no longer asked for anywhere, but on nodes that were away.
    Removed,
}

/// What was said about a certificate's end, so that it is not said at every start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Warned {
    #[default]
    No,
    /// That it is near.
    Soon,
    /// That it has come.
    Over,
}

/// One controller, as the store keeps it. No secret is in here: its private key never leaves it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Controller {
    /// Its node id on our fabric, from the same counter as the devices'. It is kept when the certificate is renewed.
    pub node_id: NodeId,
    /// How people call it; unique among those that are not removed.
    pub name: String,
    /// The tags in its certificate, in their versions.
    pub cats: Vec<Cat>,
    /// SHA-256 of its public key, hex.
    pub key: String,
    /// The certificate, Matter TLV.
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub noc: Vec<u8>,
    /// When it got its first certificate.
    pub enrolled_at: Timestamp,
    /// When it got this one.
    pub issued_at: Timestamp,
    /// When this one ends; `None`: never.
    pub expires_at: Option<Timestamp>,
    /// Whether its certificates are in force.
    pub state: ControllerState,
    /// Whether it is shut out without waiting for others.
    #[serde(default)]
    pub at_once: bool,
    /// What was said about the end.
    #[serde(default)]
    pub warned: Warned,
}

impl Controller {
    /// The version of the tag with this identifier in its certificate.
    pub fn version(&self, identifier: u16) -> Option<u16> {
        self.cats.iter().find(|cat| cat.identifier() == identifier).map(|cat| cat.version())
    }

    /// Whether it is shut out already.
    pub fn is_removed(&self) -> bool {
        self.state == ControllerState::Removed
    }

    /// What should be said now about its certificate's end.
    pub fn warning(&self, now: Timestamp) -> Warned {
        match self.expires_at {
            Some(end) if end <= now => Warned::Over,
            Some(end) if end.duration_since(now) < EXPIRES_SOON => Warned::Soon,
            _ => Warned::No,
        }
    }
}

/// Who has to renew before `leaving` can be shut out without locking anybody else out: everybody else who stays and has one
/// of its tags in an earlier version than certificates are issued with now. The order is: new certificates, then the nodes.
pub(crate) fn waits_for<'a>(
    leaving: &Controller,
    all: &'a [Controller],
    issued: impl Fn(u16) -> u16,
) -> Vec<&'a Controller> {
    let shares_an_old_tag = |other: &Controller| {
        leaving.cats.iter().any(|cat| {
            let identifier = cat.identifier();
            other.version(identifier).is_some_and(|version| version < issued(identifier))
        })
    };
    all.iter().filter(|other| other.state == ControllerState::Enrolled && shares_an_old_tag(other)).collect()
}

/// Until when those of its tags who were renewed may still use the certificate that they had before. A certificate is carried by
/// hand sometimes, and nobody tells the hub when it has arrived.
pub(crate) fn settles_at(leaving: &Controller, all: &[Controller]) -> Option<Timestamp> {
    let shares_a_tag = |other: &&Controller| leaving.cats.iter().any(|cat| other.version(cat.identifier()).is_some());
    let renewed =
        all.iter().filter(|other| other.state == ControllerState::Enrolled && other.issued_at > other.enrolled_at);
    renewed.filter(shares_a_tag).map(|other| other.issued_at + ON_ITS_WAY).max()
}

/// Whether a name can be used for a controller.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=NAME_MAX).contains(&name.chars().count()) && !name.chars().any(char::is_control) && name.trim() == name
}

fn to_base64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&BASE64.encode(bytes))
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    BASE64.decode(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_795_000_000, 0);

    fn controller(node: u64, cats: &[u32]) -> Controller {
        Controller {
            node_id: NodeId(node),
            name: format!("panel {node}"),
            cats: cats.iter().map(|cat| Cat::new(*cat).unwrap()).collect(),
            key: format!("{node:064x}"),
            noc: vec![1, 2, 3],
            enrolled_at: NOW,
            issued_at: NOW,
            expires_at: Some(NOW + SignedDuration::from_hours(365 * 24)),
            state: ControllerState::Enrolled,
            at_once: false,
            warned: Warned::No,
        }
    }

    #[test]
    fn nobody_is_locked_out_by_a_removal() {
        let leaving = Controller { state: ControllerState::Leaving, ..controller(1, &[0x0002_0001]) };
        let old = controller(2, &[0x0002_0001, 0x0003_0001]);
        let renewed = controller(3, &[0x0002_0002]);
        let other_tag = controller(4, &[0x0003_0001]);
        let gone = Controller { state: ControllerState::Removed, ..controller(5, &[0x0002_0001]) };
        let also_leaving = Controller { state: ControllerState::Leaving, ..controller(6, &[0x0002_0001]) };
        let all = [leaving.clone(), old.clone(), renewed, other_tag, gone, also_leaving];
        assert_eq!(waits_for(&leaving, &all, |_| 2), [&old]);
        assert!(waits_for(&leaving, &all, |_| 1).is_empty());
        let none = controller(7, &[]);
        assert!(waits_for(&none, &all, |_| 9).is_empty());
    }

    #[test]
    fn whoever_was_renewed_has_a_day_to_use_it() {
        let leaving = Controller { state: ControllerState::Leaving, ..controller(1, &[0x0002_0001]) };
        let renewed = |node, hours, cat| Controller {
            issued_at: NOW + SignedDuration::from_hours(hours),
            ..controller(node, &[cat])
        };
        let fresh = controller(4, &[0x0002_0002]);
        let other_tag = renewed(5, 9, 0x0003_0002);
        let gone = Controller { state: ControllerState::Removed, ..renewed(6, 9, 0x0002_0002) };
        assert_eq!(settles_at(&leaving, &[leaving.clone(), fresh, other_tag, gone]), None);
        let all = [leaving.clone(), renewed(2, 1, 0x0002_0002), renewed(3, 2, 0x0002_0002)];
        assert_eq!(settles_at(&leaving, &all), Some(NOW + SignedDuration::from_hours(26)));
    }

    #[test]
    fn an_end_is_named_a_month_before() {
        let end = NOW + SignedDuration::from_hours(365 * 24);
        let controller = controller(1, &[]);
        assert_eq!(controller.warning(NOW), Warned::No);
        assert_eq!(controller.warning(end - EXPIRES_SOON), Warned::No);
        assert_eq!(controller.warning(end - EXPIRES_SOON + SignedDuration::from_secs(1)), Warned::Soon);
        assert_eq!(controller.warning(end), Warned::Over);
        let endless = Controller { expires_at: None, ..controller };
        assert_eq!(endless.warning(Timestamp::MAX), Warned::No);
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let controller = controller(1001, &[0x0002_0001]);
        let text = serde_json::to_string(&controller).unwrap();
        assert!(text.contains("\"noc\":\"AQID\""), "{text}");
        assert_eq!(serde_json::from_str::<Controller>(&text).unwrap(), controller);
    }

    #[test]
    fn names_are_for_people() {
        assert!(is_name("Wall panel") && is_name(&"ä".repeat(NAME_MAX)));
        assert!(!is_name("") && !is_name("a\nb") && !is_name(" a") && !is_name(&"a".repeat(NAME_MAX + 1)));
    }
}
