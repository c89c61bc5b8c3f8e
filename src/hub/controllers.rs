//! Controllers of the household: enrolled, renewed and shut out.
//!
//! A certificate is recorded before it is given out. Somebody is shut out in an order that locks nobody else out: certificates are
//! issued with a later version, everybody else renews, then the nodes ask for that version (`hub::access` tells them, those
//! that are away when they return). Each step is durable before the next, and `settle_departures` goes on from wherever a
//! crash or a missing renewal left it. Not here: what is pure about it (`controller`), signing (`matter::credentials`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::{SignedDuration, Timestamp};

use super::Hub;
use super::inventory::NodeRef;
use super::refusal::Refusal;
use super::world::World;
use crate::commissioning::error::Disposition;
use crate::controller::csr::{CheckedCsr, CsrRefused};
use crate::controller::{Controller, ControllerState, Warned, is_name};
use crate::fabric::{Cat, MAX_CATS_PER_NOC};
use crate::failpoint;
use crate::journal::{Event, EventSink, Level};
use crate::matter::credentials::CredentialError;
use crate::matter::x509;
use crate::node::NodeId;
use crate::store::Enrolled;

mod departure;
mod door;
mod enrolment;
mod view;

pub(super) use departure::follow;
pub(crate) use door::RemoveOrder;
pub use door::{
    BundleNode, CertificateForms, ControllerBundle, ControllerName, ControllerOrder, ControllerRemoval, ControllerView,
    Controllers, ControllersDoor, EnrolRequest, Invitation, InviteOrder, InviteView, InvitesDoor, RenewOrder,
};
pub(crate) use enrolment::Front;
#[cfg(test)]
pub(crate) use enrolment::refused;
pub(crate) use view::{ControllerCounts, TagHolders};

/// How long a certificate is valid where nobody says.
const VALID: u64 = 365 * 86_400;
/// The shortest and the longest validity, seconds.
const VALIDITY: std::ops::RangeInclusive<u64> = 60..=20 * 365 * 86_400;

/// What a certificate is to say.
struct Wish {
    name: String,
    cats: Vec<u16>,
    admin: bool,
    valid_s: u64,
    invite: Option<String>,
}

/// Whether a request is answered by a new certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    First,
    /// Whoever asks again did not get the answer.
    Repeated,
}

impl Answer {
    fn of(new: bool) -> Self {
        if new { Self::First } else { Self::Repeated }
    }
}

impl<W: World> ControllersDoor for Hub<W> {
    async fn controllers(&self) -> Result<Controllers, Refusal> {
        self.all_controllers().await
    }

    async fn controller(&self, controller: &str) -> Result<ControllerView, Refusal> {
        let found = self.find_controller(controller).await?;
        Ok(self.view(&found, &self.store.controllers().await?))
    }

    async fn add_controller(&self, order: ControllerOrder, who: String) -> Result<ControllerBundle, Refusal> {
        let ControllerOrder { name, csr, cats, admin, valid_s } = order;
        let wish = Wish { name, cats, admin, valid_s: valid_s.unwrap_or(VALID), invite: None };
        let csr = checked(&csr)?;
        let (controller, new) = self.certify(wish, &csr).await?;
        if new {
            let level = if admin { Level::Warn } else { Level::Info };
            let tags = tags(&controller.cats);
            let rights = if admin { ", which may change who may do what" } else { "" };
            let message = format!(
                "{who} has enrolled controller {} ({}) with {tags}{rights}",
                controller.node_id, controller.name
            );
            self.tell_of(level, "controller-enrolled", message, &controller);
        }
        self.bundle(&controller, Answer::of(new)).await
    }

    async fn renew_controller(
        &self,
        controller: &str,
        order: RenewOrder,
        who: String,
    ) -> Result<ControllerBundle, Refusal> {
        let csr = checked(&order.csr)?;
        let turn = self.access.departures.lock().await;
        let before = self.find_controller(controller).await?;
        let key = csr.fingerprint();
        // Whoever did not get the answer asks again.
        if before.key == key && before.state == ControllerState::Enrolled {
            return self.bundle(&before, Answer::Repeated).await;
        }
        if before.state != ControllerState::Enrolled {
            let message = format!("controller {} ({}) is being removed", before.node_id, before.name);
            let hint = "enrol it under another name: `matterbind controller add`";
            return Err(Refusal::new("controller-leaving", Disposition::UserAction, message, hint));
        }
        self.refuse_known_key(&csr).await?;
        let cats =
            before.cats.iter().map(|cat| self.access.overlay().issued(self.base(), cat.identifier()).unwrap_or(*cat));
        let cats: Vec<Cat> = cats.collect();
        let (now, expires_at) = self.validity(order.valid_s.unwrap_or(VALID))?;
        let noc = self.sign(before.node_id, &csr, &cats, expires_at)?;
        let renewed = Controller { cats, key, noc, issued_at: now, expires_at, warned: Warned::No, ..before };
        failpoint::reach("controller.renewal-issued");
        match self.store.renew_controller(renewed.clone()).await? {
            Enrolled::Done => {}
            other => return Err(not_recorded(other, &renewed.name)),
        }
        drop(turn);
        // Whoever waited for this goes on waiting: nobody knows yet that the new certificate is used.
        failpoint::reach("controller.renewed");
        let message =
            format!("{who} has renewed controller {} ({}) with {}", renewed.node_id, renewed.name, tags(&renewed.cats));
        self.tell_of(Level::Info, "controller-renewed", message, &renewed);
        self.bundle(&renewed, Answer::First).await
    }

    async fn remove_controller(
        &self,
        controller: &str,
        at_once: bool,
        who: String,
    ) -> Result<ControllerRemoval, Refusal> {
        let hub = self.credentials.bundle().hub_node;
        if NodeRef::Id(hub) == named(controller) {
            let tag = self.wanted(None).admin;
            let message = format!("node {hub} is this hub, and without it nobody holds the administrators' tag {tag}");
            let hint = "a hub that leaves for good removes its nodes first: `matterbind node remove`";
            return Err(Refusal::new("last-admin-holder", Disposition::UserAction, message, hint));
        }
        let found = self.find_controller(controller).await?;
        if !found.is_removed() {
            let first = found.state == ControllerState::Enrolled;
            // Asked for again when nobody has to renew any more: the new certificates have arrived. That is kept, as `--now` is.
            let at_once = at_once || self.settles_at(&found, &self.store.controllers().await?).is_some();
            let leaving = self
                .store
                .change_controller(found.node_id, move |controller| {
                    controller.state = ControllerState::Leaving;
                    controller.at_once |= at_once;
                })
                .await?;
            failpoint::reach("controller.leaving");
            if first {
                let message = format!("{who} has controller {} ({}) removed", leaving.node_id, leaving.name);
                self.tell_of(Level::Warn, "controller-leaving", message, &leaving);
            }
        }
        let report = self.settle_departures().await?;
        self.removal(found.node_id, report).await
    }
}

impl<W: World> InvitesDoor for Hub<W> {
    async fn invite(&self, order: InviteOrder, who: String) -> Result<Invitation, Refusal> {
        self.make_invite(order, who).await
    }

    async fn withdraw_invite(&self, invite: &str, who: String) -> Result<Controllers, Refusal> {
        self.drop_invite(invite, who).await?;
        self.all_controllers().await
    }

    async fn enrol(&self, request: EnrolRequest, from: String) -> Result<ControllerBundle, Refusal> {
        self.enrol_by_code(request, from).await
    }
}

impl<W: World> Hub<W> {
    async fn find_controller(&self, text: &str) -> Result<Controller, Refusal> {
        let all = self.store.controllers().await?;
        let found = match named(text) {
            NodeRef::Id(id) => all.into_iter().find(|controller| controller.node_id == id),
            // A name may be used again once its holder is gone.
            NodeRef::Name(name) => {
                let mut same: Vec<_> = all.into_iter().filter(|controller| controller.name == name).collect();
                same.sort_by_key(|controller| (controller.is_removed(), std::cmp::Reverse(controller.node_id)));
                same.into_iter().next()
            }
        };
        found.ok_or_else(|| {
            let hint = "`matterbind controller list` lists them";
            Refusal::new("unknown-controller", Disposition::UserAction, format!("there is no controller {text}"), hint)
        })
    }

    /// A certificate for a key that has none. Answers the controller and whether it is new: somebody who asks for the same with
    /// the same key did not get the answer.
    async fn certify(&self, wish: Wish, csr: &CheckedCsr) -> Result<(Controller, bool), Refusal> {
        if !is_name(&wish.name) {
            return Err(no_name());
        }
        let _turn = self.access.departures.lock().await;
        let cats = self.tags_for(&wish)?;
        let key = csr.fingerprint();
        let identifiers = |cats: &[Cat]| cats.iter().map(|cat| cat.identifier()).collect::<Vec<_>>();
        if let Some(owner) = self.store.controller_of_key(&key).await? {
            let known = self.store.controllers().await?.into_iter().find(|known| known.node_id == owner);
            return match known {
                Some(known)
                    if known.key == key
                        && known.state == ControllerState::Enrolled
                        && known.name == wish.name
                        && identifiers(&known.cats) == identifiers(&cats) =>
                {
                    Ok((known, false))
                }
                _ => Err(not_recorded(Enrolled::KeyUsed(owner), &wish.name)),
            };
        }
        self.refuse_known_key(csr).await?;
        let (now, expires_at) = self.validity(wish.valid_s)?;
        let node_id = self.store.allocate_node_id().await?;
        let noc = self.sign(node_id, csr, &cats, expires_at)?;
        failpoint::reach("controller.issued");
        let controller = Controller {
            node_id,
            name: wish.name,
            cats,
            key,
            noc,
            enrolled_at: now,
            issued_at: now,
            expires_at,
            state: ControllerState::Enrolled,
            at_once: false,
            warned: Warned::No,
        };
        match self.store.enrol(controller.clone(), wish.invite).await? {
            Enrolled::Done => {}
            other => return Err(not_recorded(other, &controller.name)),
        }
        failpoint::reach("controller.recorded");
        Ok((controller, true))
    }

    /// The tags that are wished for, in the versions that are issued now.
    fn tags_for(&self, wish: &Wish) -> Result<Vec<Cat>, Refusal> {
        let (overlay, base) = (self.access.overlay(), self.base());
        let admin = base.admin.identifier();
        if wish.cats.contains(&admin) && !wish.admin {
            let message = format!("{admin:#06x} is the tag of this hub: its holders may do everything");
            let hint = "say `matterbind controller add --admin` if that is what you want; an invitation cannot give it";
            return Err(Refusal::new("admin-tag", Disposition::UserAction, message, hint));
        }
        let mut identifiers = wish.cats.clone();
        identifiers.extend(wish.admin.then_some(admin));
        identifiers.sort_unstable();
        identifiers.dedup();
        if identifiers.len() > MAX_CATS_PER_NOC {
            let message = format!("a certificate carries {MAX_CATS_PER_NOC} tags, {} were given", identifiers.len());
            return Err(Refusal::new(
                "too-many-tags",
                Disposition::UserAction,
                message,
                "grant one tag what it shall do",
            ));
        }
        let issued = |identifier: &u16| {
            overlay.issued(base, *identifier).ok_or_else(|| {
                let message = format!("no node grants anything to the tag {identifier:#06x}");
                let hint = "grant it first: `matterbind access set --grant`, or `[access] grants`";
                Refusal::new("unknown-tag", Disposition::UserAction, message, hint)
            })
        };
        identifiers.iter().map(issued).collect()
    }

    async fn refuse_known_key(&self, csr: &CheckedCsr) -> Result<(), Refusal> {
        if self.credentials.is_own_key(csr.public_key()).map_err(|error| unsigned(&error))? {
            let message = "the certificate request is for a key of this fabric itself";
            return Err(Refusal::new("key-in-use", Disposition::UserAction, message, FRESH_KEY));
        }
        match self.store.controller_of_key(&csr.fingerprint()).await? {
            Some(owner) => Err(not_recorded(Enrolled::KeyUsed(owner), "")),
            None => Ok(()),
        }
    }

    /// Now, and the end. While the clock is not set there is no end: whatever it were, it could be over before it began.
    fn validity(&self, seconds: u64) -> Result<(Timestamp, Option<Timestamp>), Refusal> {
        if !VALIDITY.contains(&seconds) {
            let message = "a certificate is valid for one minute to twenty years";
            return Err(Refusal::new("bad-request", Disposition::UserAction, message, "for instance `--valid 365d`"));
        }
        let now = self.clock.now();
        let length = SignedDuration::from_secs(seconds.cast_signed());
        Ok((now, self.clock.is_set().then(|| now + length)))
    }

    fn sign(&self, node: NodeId, csr: &CheckedCsr, cats: &[Cat], end: Option<Timestamp>) -> Result<Vec<u8>, Refusal> {
        self.credentials.issue_controller_noc(node, csr, cats, end).map_err(|error| unsigned(&error))
    }

    async fn bundle(&self, controller: &Controller, answer: Answer) -> Result<ControllerBundle, Refusal> {
        let credentials = &self.credentials;
        let keys = credentials.bundle();
        let forms = |tlv: &[u8]| -> Result<CertificateForms, Refusal> {
            let pem = x509::to_pem(tlv).map_err(|error| unsigned(&error))?;
            Ok(CertificateForms { tlv: BASE64.encode(tlv), pem })
        };
        let fabric = credentials.compressed_fabric_id();
        let nodes = self.store.nodes().await?.into_iter().map(|record| BundleNode {
            instance: format!("{fabric:016X}-{:016X}", record.node_id.0),
            node_id: record.node_id,
            name: record.name,
            vendor_id: record.vendor_id,
            product_id: record.product_id,
            addresses: record.addresses,
            port: record.port,
        });
        let mut notes = Vec::new();
        if answer == Answer::Repeated {
            notes.push("This request was answered before, by this same certificate.".to_owned());
        }
        if controller.expires_at.is_none() {
            notes.push("The hub's clock is not set, so the certificate has no end.".to_owned());
        }
        if controller.cats.is_empty() {
            notes.push("The certificate has no tag: no node lets its holder do anything.".to_owned());
        }
        Ok(ControllerBundle {
            name: controller.name.clone(),
            node_id: controller.node_id,
            fabric_id: keys.fabric_id.0,
            compressed_fabric_id: fabric,
            admin_vendor_id: credentials.admin_vendor_id(),
            hub_node_id: keys.hub_node,
            cats: controller.cats.iter().map(|cat| cat.value()).collect(),
            issued_at: controller.issued_at,
            expires_at: controller.expires_at,
            rcac: forms(&keys.rcac)?,
            icac: forms(&keys.icac)?,
            noc: forms(&controller.noc)?,
            ipk: keys.ipk.clone(),
            private_key: None,
            nodes: nodes.collect(),
            notes,
        })
    }

    fn tell_of(&self, level: Level, kind: &str, message: String, controller: &Controller) {
        let cats: Vec<u32> = controller.cats.iter().map(|cat| cat.value()).collect();
        let event = Event::new(Timestamp::now(), level, kind, message).with_node(controller.node_id);
        self.journal.record(event.with("name", controller.name.clone()).with("cats", cats));
    }
}

fn no_name() -> Refusal {
    let message =
        "a controller's name has 1 to 64 characters, none of them a control character, and no blanks around it";
    Refusal::new("bad-request", Disposition::UserAction, message, "for instance 'Wall panel'")
}

const FRESH_KEY: &str = "make a new key for every certificate, and keep it where it was made";

fn named(text: &str) -> NodeRef {
    let Ok(named) = text.parse::<NodeRef>();
    named
}

/// The request as it comes in JSON: PEM, or DER in base64.
fn checked(text: &str) -> Result<CheckedCsr, Refusal> {
    let bytes = match text.trim_start().starts_with("-----BEGIN ") {
        true => text.as_bytes().to_vec(),
        false => BASE64.decode(text.trim()).map_err(|_| csr_refused(CsrRefused::Malformed))?,
    };
    CheckedCsr::check(&bytes).map_err(csr_refused)
}

fn csr_refused(error: CsrRefused) -> Refusal {
    let hint = "make one: `openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout panel.key -subj /CN=panel -out panel.csr`";
    Refusal::new(error.code(), Disposition::UserAction, error.to_string(), hint)
}

fn unsigned(error: &CredentialError) -> Refusal {
    match error {
        CredentialError::Csr => csr_refused(CsrRefused::Malformed),
        _ => {
            let hint = "`matterbind logs` and the system's journal have the details";
            Refusal::new("keys-failed", Disposition::Bug, format!("the certificate: {error}"), hint)
        }
    }
}

fn not_recorded(why: Enrolled, name: &str) -> Refusal {
    let new = |code, message: String, hint| Refusal::new(code, Disposition::UserAction, message, hint);
    match why {
        Enrolled::NameTaken(node) => {
            new("name-in-use", format!("controller {node} is called {name:?} already"), "give it another name")
        }
        Enrolled::KeyUsed(node) => {
            new("key-in-use", format!("a certificate was issued for this key before, to controller {node}"), FRESH_KEY)
        }
        Enrolled::InviteUsed | Enrolled::Done => enrolment::refused(),
    }
}

fn tags(cats: &[Cat]) -> String {
    match cats {
        [] => "no tag".to_owned(),
        [one] => format!("the tag {one}"),
        cats => format!("the tags {}", cats.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
    }
}
