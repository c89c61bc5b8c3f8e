//! What is done until the daemon dies, how it goes on afterwards, and what must hold in the end.

use std::collections::HashSet;
use std::path::Path;

use matterbind::bind::BindState;
use matterbind::cli::client::AdminClient;
use matterbind::commissioning::ports::NodeStore;
use matterbind::node::{NodeRecord, NodeState};
use matterbind::store::{AttemptState, FabricState, Store};
use serde_json::json;

use crate::rig::{Ended, NAMES, Result, Rig, SERIAL, act, commission, nodes, outbox, until, until_commissionable};

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Play {
    /// A device is commissioned and bound.
    Commission,
    /// The same, after a crash that left a completed device behind.
    Recover,
    /// The same, after a crash that left a device behind that rolls back.
    Abandon,
    /// And renamed.
    Rename,
    /// And removed.
    Remove,
}

impl Play {
    pub fn word(self) -> &'static str {
        match self {
            Self::Commission => "commission",
            Self::Recover => "recover",
            Self::Abandon => "abandon",
            Self::Rename => "rename",
            Self::Remove => "remove",
        }
    }

    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Commission, Self::Recover, Self::Abandon, Self::Rename, Self::Remove]
            .into_iter()
            .find(|play| play.word() == word)
    }

    /// The crash that comes before the one that is tried.
    fn prelude(self) -> Option<&'static str> {
        match self {
            Self::Recover => Some("complete.sent"),
            Self::Abandon => Some("add-noc.after"),
            Self::Commission | Self::Rename | Self::Remove => None,
        }
    }
}

/// Plays one point; answers how often it was reached.
pub async fn play(point: &str, play: Play, directory: &Path) -> Result<u32> {
    let mut rig = Rig::new(directory).await?;
    let mut story = Story { play, was_bound: false, keys: None };
    let mut reached = 0;
    if let Some(prelude) = play.prelude()
        && !story.tell(&mut rig, Some(prelude)).await?
    {
        return Err(format!("{prelude} was not reached").into());
    }
    // Twice, for what comes after a crash can crash at the same place.
    for _ in 0..2 {
        if !story.tell(&mut rig, Some(point)).await? {
            break;
        }
        reached += 1;
    }
    if reached == 0 {
        return Err("the point was not reached".into());
    }
    if story.tell(&mut rig, None).await? {
        return Err("the daemon was killed without a failpoint".into());
    }
    check_store(&rig, play).await?;
    Ok(reached)
}

struct Story {
    play: Play,
    was_bound: bool,
    /// The fabric's keys, once they were on disk.
    keys: Option<Vec<u8>>,
}

impl Story {
    /// One life of the daemon; whether it was killed.
    async fn tell(&mut self, rig: &mut Rig, point: Option<&str>) -> Result<bool> {
        let mut daemon = rig.start(point)?;
        let ended = daemon.run(async |client| self.go_on(client, rig).await).await?;
        if let Ended::Done(()) = ended {
            daemon.stop().await?;
        }
        let keys = rig.keys();
        if self.keys.is_some() && self.keys != keys {
            return Err("the fabric's keys have changed".into());
        }
        self.keys = keys;
        Ok(matches!(ended, Ended::Killed))
    }

    /// From wherever things stand to the end.
    async fn go_on(&mut self, client: &AdminClient, rig: &Rig) -> Result<()> {
        if !self.was_bound {
            while nodes(client).await?.is_empty() {
                // A device whose fail-safe is armed refuses: that is asked for until it has expired.
                if !commission(client, &rig.code).await? && !nodes(client).await?.is_empty() {
                    break;
                }
            }
            until(client, async |client| Ok(outbox(client).await?.entries.is_empty())).await?;
            self.was_bound = true;
        }
        match self.play {
            Play::Commission | Play::Recover | Play::Abandon => check_bound(client, rig, NAMES[0]).await,
            Play::Rename => {
                let record = only(client).await?;
                if record.name != NAMES[1] {
                    act(client, &record, json!({ "action": "rename", "name": NAMES[1] })).await?;
                }
                until(client, async |client| Ok(outbox(client).await?.entries.is_empty())).await?;
                check_bound(client, rig, NAMES[1]).await
            }
            Play::Remove => {
                // One that has begun goes on by itself.
                if let Some(record) = nodes(client).await?.first().filter(|node| node.state != NodeState::Removing) {
                    act(client, record, json!({ "action": "remove", "force": false })).await?;
                }
                until(client, async |client| {
                    Ok(nodes(client).await?.is_empty() && outbox(client).await?.entries.is_empty())
                })
                .await?;
                until_commissionable(client).await?;
                let counters = rig.cloud.counters();
                expect("bindings in the cloud", rig.cloud.bindings().len(), 0)?;
                expect("binds", counters.commits.values().sum::<u64>(), 1)?;
                expect("unbinds", counters.unbinds.values().sum::<u64>(), 1)
            }
        }
    }
}

async fn only(client: &AdminClient) -> Result<NodeRecord> {
    let mut nodes = nodes(client).await?;
    expect("nodes", nodes.len(), 1)?;
    nodes.pop().ok_or_else(|| "no node".into())
}

/// Device, record and cloud are of one mind.
async fn check_bound(client: &AdminClient, rig: &Rig, name: &str) -> Result<()> {
    let record = only(client).await?;
    expect("the bind", record.bind.state, BindState::Bound)?;
    expect("the state", record.state, NodeState::Operational)?;
    expect("the name", record.name.as_str(), name)?;
    expect("grants", record.cats.len(), 2)?;
    expect("the key", record.device_key.as_deref(), Some(SERIAL))?;
    let check = act(client, &record, json!({ "action": "check" })).await?;
    expect("the device answers", &check["reachable"], &json!(true))?;
    expect("the device differs", &check["differences"], &json!([]))?;
    let bindings = rig.cloud.bindings();
    expect("bindings in the cloud", bindings.len(), 1)?;
    expect("the node in the cloud", &bindings[0].matter_info["nodeId"], &json!(record.node_id))?;
    expect("the fabric in the cloud", &bindings[0].matter_info["fabricId"], &json!(record.fabric_id))?;
    expect("the name in the cloud", bindings[0].device_name.as_str(), name)?;
    let counters = rig.cloud.counters();
    expect("binds", counters.commits.values().sum::<u64>(), 1)?;
    expect("unbinds", counters.unbinds.values().sum::<u64>(), 0)
}

/// What the store holds after the orderly end.
async fn check_store(rig: &Rig, play: Play) -> Result<()> {
    let store = Store::open(&rig.state())?;
    let fabric = store.fabric_state().await?.ok_or("no fabric")?;
    expect("the fabric", fabric.state, FabricState::Ready)?;
    expect("provisional rows", store.provisional_nodes().await?.len(), 0)?;
    expect("removals", store.removals().await?.len(), 0)?;
    expect("outbox rows", store.outbox_entries().await?.len(), 0)?;
    let nodes = store.nodes().await?;
    expect("nodes", nodes.len(), usize::from(play != Play::Remove))?;
    let attempts = store.attempts(10_000).await?;
    expect("running attempts", attempts.iter().filter(|row| row.state == AttemptState::Running).count(), 0)?;
    let mut used = HashSet::from([fabric.hub_node_id]);
    for node in attempts.iter().filter_map(|row| row.node_id) {
        if !used.insert(node) || node.0 >= fabric.next_node_id {
            return Err(format!("node id {node} was used twice or not taken").into());
        }
    }
    let committed = attempts.iter().filter(|row| row.state == AttemptState::Committed).count();
    expect("committed attempts", committed, 1)?;
    if nodes.iter().any(|node| !used.contains(&node.node_id)) {
        return Err("a node has an id that no attempt was given".into());
    }
    store.close().await;
    Ok(())
}

fn expect<T: PartialEq + std::fmt::Debug>(what: &str, is: T, should_be: T) -> Result<()> {
    if is == should_be { Ok(()) } else { Err(format!("{what}: {is:?} instead of {should_be:?}").into()) }
}
