//! What the running daemon knows, gathered; asked for by people, and now and then by itself for `status`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::facts::{Cloud, Daemon, Facts, Network, Routes, Trust, Unroutable};
use super::{Diagnosis, DoctorDoor, machine};
use crate::config::AttestationPolicy;
use crate::hub::Hub;
use crate::hub::status::TrustStatus;
use crate::hub::world::{CloudService, HubLink, Lan, World};
use crate::keystore;
use crate::node::NodeState;
use crate::paa;
use crate::plain;
use crate::store::{Examiner, examine};

/// Everything starts first, and what is found before that is no finding.
const SETTLE: Duration = Duration::from_secs(10);
/// Between two looks that nobody asked for: a few datagrams, and some files' sizes.
const EVERY: Duration = Duration::from_secs(5 * 60);

/// How much is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Depth {
    /// What costs nothing: for `status`.
    Light,
    /// The way to the cloud and the whole database too.
    Whole,
}

/// Looks now and then until the daemon stops.
pub(in crate::hub) async fn follow<W: World>(hub: Arc<Hub<W>>) {
    let mut pause = SETTLE;
    loop {
        tokio::select! {
            () = hub.stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = EVERY;
        let facts = tokio::select! {
            () = hub.stop.cancelled() => return,
            facts = hub.look_around(Depth::Light) => facts,
        };
        hub.doctor.keep(Diagnosis::of(&facts));
    }
}

impl<W: World> DoctorDoor for Hub<W> {
    async fn doctor(&self) -> Diagnosis {
        let asked = async { Ok::<_, Infallible>(Diagnosis::of(&self.look_around(Depth::Whole).await)) };
        let Ok(diagnosis) = self.doctor.answers.get((), asked).await;
        self.doctor.keep(diagnosis.clone());
        diagnosis
    }
}

impl<W: World> Hub<W> {
    async fn look_around(&self, depth: Depth) -> Facts {
        let state_dir = self.config.state_dir.clone();
        let whole = depth == Depth::Whole;
        let disk = tokio::task::spawn_blocking(move || {
            let sealed = keystore::is_sealed(&state_dir).ok();
            (examine(&state_dir, Examiner::Daemon, whole), sealed, machine::process(), machine::firewall())
        });
        // Nobody is told of it by `status`, which has a line of its own.
        let radio = async { if whole { Some(self.radio.adapter().await.into()) } else { None } };
        let (survey, daemon, cloud, routes, radio, disk) =
            tokio::join!(self.lan.survey(), self.own_facts(), self.cloud_facts(depth), self.routes(), radio, disk);
        let mut facts = Facts {
            at: Timestamp::now(),
            daemon: Some(daemon),
            network: Some(Network { configured: self.config.network.interfaces.clone(), survey }),
            routes,
            radio,
            clock: Some(self.clock.status()),
            cloud: Some(cloud),
            versions: Some(machine::versions()),
            ..Facts::default()
        };
        // It fails only where looking panicked; then nothing is said of the disk.
        if let Ok((state, sealed, process, firewall)) = disk {
            (facts.state, facts.sealed, facts.process, facts.firewall) = (Some(state), sealed, Some(process), firewall);
            facts.trust = Some(self.trust_facts());
        }
        facts
    }

    async fn own_facts(&self) -> Daemon {
        let (nodes, outbox) = self.counts().await;
        let deaf = self.lan.health().await.failure;
        Daemon {
            faults: self.health.waiting_for().into_iter().filter(|fault| Some(fault) != deaf.as_ref()).collect(),
            deaf,
            matter_port: self.link.port(),
            nodes: nodes.total,
            unreachable: nodes.unreachable,
            foreign: nodes.foreign,
            stuck_rows: outbox.waiting_for_operator + outbox.rejected,
            pending_rows: outbox.pending,
        }
    }

    async fn cloud_facts(&self, depth: Depth) -> Option<Cloud> {
        let cloud = self.cloud.as_ref()?;
        let look = if depth == Depth::Whole { Some(cloud.look().await) } else { None };
        Some(Cloud { health: Some(cloud.health()), look })
    }

    fn trust_facts(&self) -> Trust {
        let TrustStatus { paas, fetched_at } = self.judge.status();
        let config = &self.config.attestation;
        Trust {
            paas: paas as usize,
            left_out: self.judge.left_out(),
            directories: paa::paa_dirs(config, &self.config.state_dir),
            fetched_at,
            source: config.paa_source.clone(),
            lenient: config.policy == AttestationPolicy::Warn,
        }
    }

    /// Whether this machine knows a way to at least one address of each node.
    async fn routes(&self) -> Option<Routes> {
        let records = self.store.nodes().await.ok()?;
        let mut routes = Routes::default();
        for record in records.iter().filter(|record| record.state != NodeState::Removing) {
            let seen = self.lan.operational_node(self.credentials.compressed_fabric_id(), record.node_id);
            let now = seen.iter().flat_map(|seen| seen.addresses.iter().map(|address| address.socket(seen.port)));
            let mut ways: Vec<_> = now.map(|socket| (socket.ip().to_string(), machine::way_to(socket))).collect();
            if ways.is_empty() {
                ways.extend(record.addresses.iter().filter_map(|address| {
                    Some((address.clone(), machine::way_to(machine::remembered(address, record.port)?)))
                }));
            }
            routes.tried += ways.len();
            let open = ways.iter().any(|(_, way)| way.is_ok());
            if let Some((address, Err(why))) = ways.into_iter().next().filter(|_| !open) {
                let (node_id, name) = (record.node_id, record.name.clone());
                routes.without.push(Unroutable { node_id, name, address, why: plain::cause(&why) });
            }
        }
        Some(routes)
    }
}
