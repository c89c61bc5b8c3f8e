//! How controllers stand, as people see it: one by one, tag by tag, and for `status`. Not here: changing anything.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ControllerName, ControllerView, Controllers, InviteView};
use crate::controller::{Controller, ControllerState, Warned, settles_at, waits_for};
use crate::fabric::Cat;
use crate::hub::Hub;
use crate::hub::refusal::Refusal;
use crate::hub::world::World;
use crate::node::NodeId;

/// Controllers in `status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct ControllerCounts {
    /// Those that are not removed.
    pub total: u64,
    /// Those that are shut out as soon as others have renewed.
    pub leaving: u64,
    /// Those that nodes do not let in any more until they renew.
    pub shut_out: u64,
    /// Certificates that end within a month, or have ended.
    pub expiring: Vec<ExpiringController>,
}

/// A certificate that ends soon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExpiringController {
    /// The node id that the certificate is made out to.
    pub node_id: NodeId,
    /// How people call the controller.
    pub name: String,
    /// When the certificate ends.
    pub expires_at: Timestamp,
}

/// A tag and who holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TagHolders {
    /// The tag, in the version that nodes ask for.
    pub cat: u32,
    /// In the version that certificates are issued with.
    pub issued: u32,
    /// Who has it in a certificate, this hub included.
    pub holders: Vec<Holder>,
}

/// Who holds a tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Holder {
    /// The node id that its certificates are made out to.
    pub node_id: NodeId,
    /// How people call the controller.
    pub name: String,
    /// The tag in its certificate.
    pub cat: u32,
    /// Until when; `null`: for ever.
    pub expires_at: Option<Timestamp>,
    /// Whether nodes let it in by this tag.
    pub admitted: bool,
}

pub(super) fn name_of(controller: &Controller) -> ControllerName {
    ControllerName { node_id: controller.node_id, name: controller.name.clone() }
}

impl<W: World> Hub<W> {
    pub(super) async fn all_controllers(&self) -> Result<Controllers, Refusal> {
        let all = self.store.controllers().await?;
        let now = self.clock.now();
        let invites = self.store.invites().await?.into_iter().filter(|invite| invite.is_open(now));
        let invites = invites.map(|invite| InviteView {
            id: invite.id,
            cats: invite.cats,
            name: invite.name,
            expires_at: invite.expires_at,
            tries_left: invite.tries_left,
        });
        Ok(Controllers { controllers: all.iter().map(|it| self.view(it, &all)).collect(), invites: invites.collect() })
    }

    pub(super) fn view(&self, controller: &Controller, all: &[Controller]) -> ControllerView {
        let (overlay, base, now) = (self.access.overlay(), self.base(), self.clock.now());
        let issued = |identifier: u16| overlay.issued(base, identifier).map_or(0, |cat| cat.version());
        let waits = match controller.state {
            ControllerState::Leaving if !controller.at_once => waits_for(controller, all, issued),
            _ => Vec::new(),
        };
        let behind = |version: &dyn Fn(&Cat) -> u16| controller.cats.iter().any(|cat| cat.version() < version(cat));
        let certificate = if controller.is_removed() || behind(&|cat| overlay.current(*cat).version()) {
            "shut-out"
        } else if controller.warning(now) == Warned::Over {
            "expired"
        } else if behind(&|cat| issued(cat.identifier())) {
            "renew"
        } else {
            "current"
        };
        ControllerView {
            node_id: controller.node_id,
            name: controller.name.clone(),
            state: controller.state,
            certificate: certificate.to_owned(),
            cats: controller.cats.iter().map(|cat| cat.value()).collect(),
            key: controller.key.clone(),
            enrolled_at: controller.enrolled_at,
            issued_at: controller.issued_at,
            expires_at: controller.expires_at,
            expires_soon: !controller.is_removed() && controller.warning(now) != Warned::No,
            waits_for: waits.into_iter().map(name_of).collect(),
            settles_at: self.settles_at(controller, all),
            pending_nodes: if controller.is_removed() { overlay.pending() } else { Vec::new() },
        }
    }

    /// When it is shut out by itself, where nobody has to renew any more.
    pub(super) fn settles_at(&self, controller: &Controller, all: &[Controller]) -> Option<Timestamp> {
        let (overlay, base) = (self.access.overlay(), self.base());
        let issued = |identifier: u16| overlay.issued(base, identifier).map_or(0, |cat| cat.version());
        let waits = controller.state == ControllerState::Leaving && !controller.at_once;
        if waits && waits_for(controller, all, issued).is_empty() { settles_at(controller, all) } else { None }
    }

    /// Each tag that is granted or held, and who holds it.
    pub(in crate::hub) fn tag_holders(&self, all: &[Controller]) -> Vec<TagHolders> {
        let (overlay, base) = (self.access.overlay(), self.base());
        let credentials = &self.credentials;
        let hub = (credentials.bundle().hub_node, self.access.hub_cats());
        let tags = overlay.tags(base).into_iter().map(|tag| {
            let held = |cats: &[Cat]| cats.iter().copied().find(|cat| cat.identifier() == tag.identifier());
            let holder = |node_id, name: &str, cat: Cat, expires_at| {
                let name = name.to_owned();
                Holder { node_id, name, cat: cat.value(), expires_at, admitted: cat >= tag }
            };
            let own = held(&hub.1).map(|cat| holder(hub.0, "this hub", cat, None));
            let others = all.iter().filter(|controller| !controller.is_removed());
            let others = others.filter_map(|it| Some(holder(it.node_id, &it.name, held(&it.cats)?, it.expires_at)));
            let issued = overlay.issued(base, tag.identifier()).unwrap_or(tag);
            TagHolders { cat: tag.value(), issued: issued.value(), holders: own.into_iter().chain(others).collect() }
        });
        tags.collect()
    }

    /// For `status`.
    pub(in crate::hub) async fn controller_counts(&self) -> ControllerCounts {
        let Ok(all) = self.store.controllers().await else { return ControllerCounts::default() };
        let now = self.clock.now();
        let views: Vec<_> = all.iter().filter(|it| !it.is_removed()).map(|it| self.view(it, &all)).collect();
        let expiring = all.iter().filter(|it| !it.is_removed() && it.warning(now) != Warned::No);
        let expiring = expiring.filter_map(|it| {
            Some(ExpiringController { node_id: it.node_id, name: it.name.clone(), expires_at: it.expires_at? })
        });
        ControllerCounts {
            total: views.len() as u64,
            leaving: views.iter().filter(|it| it.state == ControllerState::Leaving).count() as u64,
            shut_out: views.iter().filter(|it| it.certificate == "shut-out").count() as u64,
            expiring: expiring.collect(),
        }
    }
}
