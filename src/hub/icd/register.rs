//! Registers the hub with a device that sleeps long, and again where one of the two has lost that. The key is on disk before it is
//! sent; which of two keys the device took is told by its answer, or by its first check-in.

use std::time::Duration;

use jiff::Timestamp;
use rand::RngExt as _;

use super::locked;
use crate::commissioning::ports::{LinkError, OperationalSession};
use crate::durable::StoreError;
use crate::failpoint;
use crate::hub::Hub;
use crate::hub::world::World;
use crate::journal::{Event, EventSink, Level};
use crate::node::{NodeId, NodeRecord, NodeState};
use crate::secret::CheckInKey;

/// How long an attempt waits for the registration of its device, which has to be told and is awake.
const AFTER_COMMISSIONING: Duration = Duration::from_secs(10);

/// How looking at a registration ended.
enum Settled {
    /// It is as it should be.
    Stands,
    /// The device has taken a new key.
    Registered,
    /// The device takes none.
    Never(String),
}

fn at_store(error: StoreError) -> LinkError {
    LinkError::Stack { what: error.to_string() }
}

impl<W: World> Hub<W> {
    /// The registration with a device that was just taken in; the record as it is then.
    pub(in crate::hub) async fn register_new_icd(&self, record: NodeRecord) -> NodeRecord {
        if record.icd.is_none() {
            return record;
        }
        let registering = self.register_icd(record.node_id, false);
        if tokio::time::timeout(AFTER_COMMISSIONING, registering).await.is_err() {
            tracing::warn!(
                node.id = record.node_id.0,
                "the device did not take the hub's registration in time; it is asked again"
            );
        }
        self.store.node(record.node_id).await.ok().flatten().unwrap_or(record)
    }

    /// Sees to it that the hub is registered. `renew`: with a new key in any case. What does not come about now is tried when the
    /// device is heard of again.
    pub(super) async fn register_icd(&self, node: NodeId, renew: bool) {
        let _turn = self.icd.turns.take(node).await;
        let Ok(Some(record)) = self.store.node(node).await else { return };
        if record.icd.is_none() || record.state == NodeState::Removing {
            return;
        }
        let settled = self.within(&record, self.settle_registration(&record, renew)).await;
        match settled {
            Ok(Settled::Stands) => {}
            Ok(Settled::Registered) => {
                let message =
                    format!("node {node} ({}) sleeps long and checks in with the hub from now on", record.name);
                self.note_icd(node, Level::Info, "icd-registered", message);
            }
            Ok(Settled::Never(why)) => self.give_up_registration(&record, &why).await,
            Err(error @ LinkError::Status { .. }) => self.give_up_registration(&record, &error.to_string()).await,
            Err(error) => tracing::debug!(node.id = node.0, %error, "the hub is not registered with the device yet"),
        }
    }

    async fn settle_registration(&self, record: &NodeRecord, renew: bool) -> Result<Settled, LinkError> {
        let (node, hub) = (record.node_id, self.credentials.bundle().hub_node);
        let session = self.meet(record).await?;
        let Some(icd) = session.icd().await?.filter(|icd| icd.checks_in) else {
            return Ok(Settled::Never("it has no check-in protocol".to_owned()));
        };
        if !renew && self.icd.sleep(record).is_some() && icd.clients.contains(&hub.0) {
            return Ok(Settled::Stands);
        }
        let key = CheckInKey::new(rand::rng().random::<[u8; 16]>());
        self.store.begin_registration(node, &key, &icd.sleep()).await.map_err(at_store)?;
        failpoint::reach("icd.begun");
        // Before the device can look for the hub; and a check-in may come before its answer.
        self.announce_hub();
        self.load_check_ins().await;
        let counter = session.register_client(hub, &key).await?;
        failpoint::reach("icd.sent");
        self.store.finish_registration(node, counter).await.map_err(at_store)?;
        failpoint::reach("icd.finished");
        self.load_check_ins().await;
        locked(&self.icd.given_up).remove(&node);
        self.icd.handle_contact(node, std::time::Instant::now());
        self.know_nodes().await;
        Ok(Settled::Registered)
    }

    /// It is asked by its rhythm from now on, as any other that sleeps.
    async fn give_up_registration(&self, record: &NodeRecord, why: &str) {
        let node = record.node_id;
        if let Err(error) = self.store.end_registration(node).await {
            tracing::warn!(node.id = node.0, %error, "cannot note that the hub is not registered with the device");
            return;
        }
        self.load_check_ins().await;
        self.know_nodes().await;
        if locked(&self.icd.given_up).insert(node) {
            let message = format!("node {node} ({}) sleeps long and takes no registration: {why}", record.name);
            self.note_icd(node, Level::Warn, "icd-not-registered", message);
        }
    }

    fn note_icd(&self, node: NodeId, level: Level, kind: &str, message: String) {
        self.journal.record(Event::new(Timestamp::now(), level, kind, message).with_node(node));
    }
}
