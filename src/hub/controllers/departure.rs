//! Shutting controllers out, and naming certificates that end. Every step is durable and can be done again.

use std::sync::Arc;
use std::time::Duration;

use super::view::name_of;
use super::{ControllerName, ControllerRemoval};
use crate::access::PolicyError;
use crate::controller::{ControllerState, Warned, settles_at, waits_for};
use crate::fabric::Cat;
use crate::failpoint;
use crate::hub::Hub;
use crate::hub::access::AccessReport;
use crate::hub::inventory::NodeRef;
use crate::hub::refusal::Refusal;
use crate::hub::world::World;
use crate::journal::Level;
use crate::node::NodeId;

/// How often certificates that end and departures that wait are looked at.
const LOOK: Duration = Duration::from_secs(3600);

impl<W: World> Hub<W> {
    /// Takes every departure as far as it can go: later versions are issued; where everybody else has one and had the time to use
    /// it, nodes ask for them. Answers what was told to the nodes, if anything.
    pub(super) async fn settle_departures(&self) -> Result<Option<AccessReport>, Refusal> {
        let turn = self.access.departures.lock().await;
        let all = self.store.controllers().await?;
        let leaving: Vec<_> = all.iter().filter(|controller| controller.state == ControllerState::Leaving).collect();
        if leaving.is_empty() {
            return Ok(None);
        }
        let (base, now) = (self.base(), self.clock.now());
        let held: Vec<Cat> = leaving.iter().flat_map(|controller| controller.cats.clone()).collect();
        self.mutate(|overlay| held.iter().try_for_each(|cat| overlay.issue_later_than(base, *cat))).await?;
        failpoint::reach("controller.issues-later");
        let mut gone = Vec::new();
        for controller in leaving {
            let overlay = self.access.overlay();
            let issued = |identifier: u16| overlay.issued(base, identifier).map_or(0, |cat| cat.version());
            let all_have_it = || {
                let arrived = settles_at(controller, &all).is_none_or(|at| at <= now);
                waits_for(controller, &all, issued).is_empty() && arrived
            };
            if controller.at_once || all_have_it() {
                gone.push(controller);
            }
        }
        if gone.is_empty() {
            return Ok(None);
        }
        let told = self.addressed(None).await?;
        self.mutate(|overlay| -> Result<(), PolicyError> {
            for controller in &gone {
                for cat in &controller.cats {
                    overlay.ask_for_issued(base, *cat);
                }
                overlay.shut_out(controller.node_id);
            }
            overlay.add_pending(told.clone());
            Ok(())
        })
        .await?;
        failpoint::reach("controller.in-force");
        for controller in gone {
            let node = controller.node_id;
            let removed = self.store.change_controller(node, |it| it.state = ControllerState::Removed).await?;
            failpoint::reach("controller.removed");
            let message = format!("controller {node} ({}) is shut out of every node that has been told", removed.name);
            self.tell_of(Level::Warn, "controller-removed", message, &removed);
        }
        // Before any node is told, where the tag is the hub's own.
        self.renew_hub().await?;
        // What is in force is durable; telling the nodes takes as long as they take, and nobody waits for that with a renewal.
        drop(turn);
        Ok(Some(self.tell(told).await?))
    }

    pub(super) async fn removal(
        &self,
        node: NodeId,
        report: Option<AccessReport>,
    ) -> Result<ControllerRemoval, Refusal> {
        let all = self.store.controllers().await?;
        let found = all.iter().find(|controller| controller.node_id == node);
        let found = found.ok_or_else(|| Refusal::unknown_node(&NodeRef::Id(node)))?;
        let (overlay, base) = (self.access.overlay(), self.base());
        let issued = |identifier: u16| overlay.issued(base, identifier).map_or(0, |cat| cat.version());
        let renew: Vec<ControllerName> = waits_for(found, &all, issued).into_iter().map(name_of).collect();
        let removed = found.is_removed();
        let settles_at = self.settles_at(found, &all);
        let in_force = |cat: &Cat| overlay.current(*cat).value();
        let pending = overlay.pending();
        let complete = removed && pending.is_empty();
        let message = match (removed, complete) {
            (false, _) if renew.is_empty() => format!(
                "Everybody else of its tags has a later certificate. Do they use it? Then say this again: `matterbind controller remove {node}`. Else it is done by itself{}.",
                settles_at.map_or_else(String::new, |at| format!(" at {at:.0}"))
            ),
            (false, _) => {
                let whoever =
                    if renew.len() == 1 { "One other holds its tag and has" } else { "Others hold its tags and have" };
                format!("{whoever} to renew first: `matterbind controller renew`. `--now` does not wait for that.")
            }
            (true, false) => "Nodes that are away are told when they return.".to_owned(),
            (true, true) => String::new(),
        };
        Ok(ControllerRemoval {
            node_id: node,
            name: found.name.clone(),
            state: found.state,
            complete,
            rotated: if removed { found.cats.iter().map(in_force).collect() } else { Vec::new() },
            renew,
            settles_at,
            nodes: report.map(|report| report.nodes).unwrap_or_default(),
            message,
        })
    }

    /// Says once that a certificate ends within a month, and once that it has ended.
    async fn warn_of_ends(&self) -> Result<(), Refusal> {
        if !self.clock.is_set() {
            return Ok(());
        }
        let now = self.clock.now();
        for controller in self.store.controllers().await? {
            let warning = controller.warning(now);
            if controller.is_removed() || warning == Warned::No || warning == controller.warned {
                continue;
            }
            let controller = self.store.change_controller(controller.node_id, move |it| it.warned = warning).await?;
            let (node, name) = (controller.node_id, &controller.name);
            let end = controller.expires_at.map_or_else(String::new, |end| format!("{end:.0}"));
            let (kind, what) = match warning {
                Warned::Over => ("controller-expired", "has run out on"),
                Warned::Soon | Warned::No => ("controller-expires", "runs out on"),
            };
            let message = format!(
                "the certificate of controller {node} ({name}) {what} {end}: `matterbind controller renew {node}` gives it another"
            );
            self.tell_of(Level::Warn, kind, message, &controller);
        }
        Ok(())
    }
}

/// Goes on with departures that a crash or a missing renewal left, and names certificates that end.
pub(in crate::hub) async fn follow<W: World>(hub: Arc<Hub<W>>) {
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            () = hub.stop.cancelled() => return,
            _ = look.tick() => {}
        }
        let both = async {
            hub.settle_departures().await?;
            hub.warn_of_ends().await
        };
        tokio::select! {
            () = hub.stop.cancelled() => return,
            done = both => if let Err(error) = done {
                tracing::warn!(%error, "controllers could not be looked after; it is tried again in an hour");
            },
        }
    }
}
