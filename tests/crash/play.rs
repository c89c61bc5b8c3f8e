//! What is done until the daemon dies, how it goes on afterwards, and what must hold in the end.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use matterbind::facade::bind::BindState;
use matterbind::facade::cli::client::{AdminClient, PLAIN, SLOW};
use matterbind::facade::commissioning::ports::NodeStore;
use matterbind::facade::node::{NodeId, NodeRecord, NodeState};
use matterbind::facade::sim::cloud::{Fault, FaultKind};
use matterbind::facade::store::{AttemptState, FabricState, Store};
use serde_json::{Value, json};

use crate::controllers;
use crate::rig::{
    Ended, Light, NAMES, Result, Rig, SERIAL, act, commission, nodes, outbox, until, until_commissionable,
};

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Play {
    /// A device is commissioned and bound.
    Commission,
    /// The same, after a crash that left a completed device behind.
    Recover,
    /// The same, after a crash that left a device behind on our fabric, its fail-safe armed.
    Resume,
    /// The same out of its box, after a crash that left a device behind that rolls back.
    Abandon,
    /// A device out of its box is brought onto its network, commissioned and bound.
    Unbox,
    /// A device that sleeps long is commissioned and bound, and checks in.
    Sleep,
    /// And renamed.
    Rename,
    /// And removed.
    Remove,
    /// After it was commissioned, the hub's own tag gets a new version.
    Rotate,
    /// After it was commissioned, two controllers are enrolled, and one of them is shut out.
    ShutOut,
    /// After it was commissioned, the cloud forgets it, and it is bound again.
    Mend,
    /// After it was commissioned, a backup is put over the hub's state.
    Restore,
    /// After it was commissioned, its device is reset and commissioned again.
    Succeed,
}

const ALL: [Play; 13] = [
    Play::Unbox,
    Play::Sleep,
    Play::Commission,
    Play::Recover,
    Play::Resume,
    Play::Abandon,
    Play::Rename,
    Play::Remove,
    Play::Rotate,
    Play::ShutOut,
    Play::Mend,
    Play::Restore,
    Play::Succeed,
];

/// How often it is looked whether a device that sleeps has spoken; that is no entry of the log.
const LOOK: Duration = Duration::from_millis(100);
/// The hub's tag at first, and after its rotation.
const ADMIN_CATS: [u32; 2] = [0x0001_0001, 0x0001_0002];

impl Play {
    pub fn word(self) -> &'static str {
        match self {
            Self::Commission => "commission",
            Self::Recover => "recover",
            Self::Resume => "resume",
            Self::Abandon => "abandon",
            Self::Unbox => "unbox",
            Self::Sleep => "sleep",
            Self::Rename => "rename",
            Self::Remove => "remove",
            Self::Rotate => "rotate",
            Self::ShutOut => "shut-out",
            Self::Mend => "mend",
            Self::Restore => "restore",
            Self::Succeed => "succeed",
        }
    }

    pub fn from_word(word: &str) -> Option<Self> {
        ALL.into_iter().find(|play| play.word() == word)
    }

    /// The crash that comes before the one that is tried.
    fn prelude(self) -> Option<&'static str> {
        match self {
            Self::Recover => Some("complete.sent"),
            Self::Resume => Some("add-noc.after"),
            Self::Abandon => Some("network.before"),
            _ => None,
        }
    }

    /// Short, because a device that a dead daemon left armed is waited for; but not where that device goes on.
    fn fail_safe(self) -> &'static str {
        match self {
            Self::Resume => "60s",
            _ => "3s",
        }
    }

    /// Whether the device is commissioned, undisturbed, before the first crash.
    fn is_about_a_bound_node(self) -> bool {
        matches!(self, Self::Rotate | Self::ShutOut | Self::Mend | Self::Restore | Self::Succeed)
    }

    /// How often the cloud has bound and unbound in the end.
    fn effects(self) -> (u64, u64) {
        match self {
            Self::Commission
            | Self::Recover
            | Self::Resume
            | Self::Abandon
            | Self::Unbox
            | Self::Sleep
            | Self::Rename
            | Self::Restore => (1, 0),
            Self::Remove => (1, 1),
            // The cloud has no update.
            Self::Rotate | Self::ShutOut | Self::Succeed => (2, 1),
            // It forgot by itself.
            Self::Mend => (2, 0),
        }
    }
}

/// Plays one point; answers how often it was reached.
pub async fn play(point: &str, play: Play, directory: &Path) -> Result<u32> {
    let light = match play {
        Play::Unbox | Play::Abandon => Light::Boxed,
        Play::Sleep => Light::Sleeping,
        _ => Light::Ready,
    };
    let mut rig = Rig::new(directory, light, play.fail_safe()).await?;
    let mut story = Story { play: Play::Commission, was_bound: false, keys: None, before: None };
    if play.is_about_a_bound_node() {
        story.undisturbed(&mut rig).await?;
        match play {
            Play::Mend => rig.cloud.change_bindings(Vec::clear),
            Play::Restore => return restore(&mut rig, story, point).await,
            Play::Succeed => rig.reset_device().await?,
            _ => {}
        }
    }
    story.play = play;
    if point == "answer.saved" {
        // An answer that says yes is not written, for the disk says enough; one that is lost is.
        rig.cloud.fault(Fault::of_bind(FaultKind::Http { status: 500 }).after_commit());
    }
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
    story.undisturbed(&mut rig).await?;
    check_store(&rig, play).await?;
    Ok(reached)
}

/// Here not the daemon dies, but the command that puts the backup back. Whatever it leaves, the daemon starts from it, with
/// the same fabric and the same node.
async fn restore(rig: &mut Rig, mut story: Story, point: &str) -> Result<u32> {
    rig.back_up().await?;
    story.play = Play::Restore;
    let mut reached = 0;
    for _ in 0..2 {
        if !rig.restore(Some(point)).await? {
            break;
        }
        reached += 1;
        story.undisturbed(rig).await?;
    }
    if reached == 0 {
        return Err("the point was not reached".into());
    }
    if rig.restore(None).await? {
        return Err("the command was killed without a failpoint".into());
    }
    for left in ["restore.new", "restore.ready"] {
        expect(left, rig.state().join(left).exists(), false)?;
    }
    story.undisturbed(rig).await?;
    check_store(rig, Play::Restore).await?;
    Ok(reached)
}

struct Story {
    play: Play,
    was_bound: bool,
    /// The fabric's keys, once they were on disk.
    keys: Option<Vec<u8>>,
    /// The device's node before it was reset.
    before: Option<NodeId>,
}

impl Story {
    /// A life that nothing cuts short.
    async fn undisturbed(&mut self, rig: &mut Rig) -> Result<()> {
        if self.tell(rig, None).await? { Err("the daemon was killed without a failpoint".into()) } else { Ok(()) }
    }

    /// One life of the daemon; whether it was killed.
    async fn tell(&mut self, rig: &mut Rig, point: Option<&str>) -> Result<bool> {
        let mut daemon = rig.start(point)?;
        let ended = daemon.run(async |client| self.go_on(client, rig).await).await?;
        if let Ended::Done(()) = ended {
            daemon.stop().await?;
        }
        let keys = rig.keys();
        // A rotation and a restore give the hub a new certificate; that the fabric is the same, the device tells.
        if !matches!(self.play, Play::Rotate | Play::Restore) && self.keys.is_some() && self.keys != keys {
            return Err("the fabric's keys have changed".into());
        }
        self.keys = keys;
        Ok(matches!(ended, Ended::Killed))
    }

    /// From wherever things stand to the end.
    async fn go_on(&mut self, client: &AdminClient, rig: &Rig) -> Result<()> {
        if !self.was_bound {
            // What an attempt left on the device that the crash cut short is ours to end: the next one succeeds by itself. Only
            // a device on Bluetooth cannot be told before its fail-safe has run out, for it shows itself to nobody until then.
            while nodes(client).await?.is_empty()
                && !commission(client, &rig.code).await?
                && nodes(client).await?.is_empty()
            {
                if !matches!(self.play, Play::Unbox | Play::Abandon) {
                    return Err("the attempt after the crash was refused".into());
                }
            }
            until(client, async |client| Ok(outbox(client).await?.entries.is_empty())).await?;
            self.was_bound = true;
            self.before = nodes(client).await?.first().map(|node| node.node_id);
        }
        match self.play {
            Play::Commission | Play::Recover | Play::Resume | Play::Abandon | Play::Unbox | Play::Restore => {
                check_bound(client, rig, NAMES[0], self.play).await
            }
            Play::Sleep => {
                let record = async || only_as_told(client).await;
                while record().await?["icd"] != json!("registered") {
                    tokio::time::sleep(LOOK).await;
                }
                // It checks in with a key that the hub has: nobody asks it.
                let seen = record().await?["last_seen_at"].clone();
                while record().await?["last_seen_at"] == seen {
                    tokio::time::sleep(LOOK).await;
                }
                // It is asked as soon as it is awake for long enough.
                let node = only(client).await?;
                while act(client, &node, json!({ "action": "check" })).await?["reachable"] != json!(true) {
                    tokio::time::sleep(LOOK).await;
                }
                expect("the bind", node.bind.state, BindState::Bound)?;
                expect("bindings in the cloud", rig.cloud.bindings().len(), 1)?;
                check_effects(rig, self.play)
            }
            Play::Rename => {
                let record = only(client).await?;
                if record.name != NAMES[1] {
                    act(client, &record, json!({ "action": "rename", "name": NAMES[1] })).await?;
                }
                until(client, async |client| Ok(outbox(client).await?.entries.is_empty())).await?;
                check_bound(client, rig, NAMES[1], self.play).await
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
                expect("bindings in the cloud", rig.cloud.bindings().len(), 0)?;
                check_effects(rig, self.play)
            }
            Play::Rotate => {
                if access(client).await?["admin_cat"] == json!(ADMIN_CATS[0]) {
                    let rotate = json!({ "action": "rotate", "identifier": ADMIN_CATS[0] >> 16 });
                    client.post::<Value>(&["access"], &rotate, SLOW).await?;
                }
                // One that has begun goes on by itself.
                until(client, async |client| {
                    let state = &access(client).await?["nodes"][0]["state"];
                    Ok(state == "as-wanted" && outbox(client).await?.entries.is_empty())
                })
                .await?;
                let access = access(client).await?;
                expect("the hub's tag", &access["admin_cat"], &json!(ADMIN_CATS[1]))?;
                expect("the hub's certificate", &access["hub_cats"], &json!([ADMIN_CATS[1]]))?;
                let held: Vec<u32> = only(client).await?.cats.iter().map(|grant| grant.cat.value()).collect();
                expect("the device holds the new version", held.contains(&ADMIN_CATS[1]), true)?;
                expect("the device holds the old version", held.contains(&ADMIN_CATS[0]), false)?;
                check_bound(client, rig, NAMES[0], self.play).await
            }
            Play::ShutOut => {
                controllers::shut_one_out(client).await?;
                // One that has begun goes on by itself.
                until(client, async |client| {
                    let state = &access(client).await?["nodes"][0]["state"];
                    Ok(state == "as-wanted" && outbox(client).await?.entries.is_empty())
                })
                .await?;
                controllers::check(client, &only(client).await?).await?;
                check_bound(client, rig, NAMES[0], self.play).await
            }
            Play::Succeed => {
                let before = self.before.ok_or("the device had no node")?;
                let is_new = async || {
                    Ok::<_, Box<dyn std::error::Error>>(nodes(client).await?.iter().any(|node| node.node_id != before))
                };
                if !is_new().await? && !commission(client, &rig.code).await? && !is_new().await? {
                    return Err("the attempt after the reset was refused".into());
                }
                // Where the old node could not be asked while it was replaced, the next comparison ends it.
                until(client, async |client| {
                    if nodes(client).await?.len() > 1 {
                        client.post::<Value>(&["sync"], &json!({}), SLOW).await?;
                    }
                    Ok(nodes(client).await?.len() == 1 && outbox(client).await?.entries.is_empty())
                })
                .await?;
                let record = only(client).await?;
                expect("the node that it was", record.replaces, Some(before))?;
                check_bound(client, rig, NAMES[0], self.play).await
            }
            Play::Mend => {
                client.post::<Value>(&["sync"], &json!({}), SLOW).await?;
                until(client, async |client| Ok(outbox(client).await?.entries.is_empty())).await?;
                check_bound(client, rig, NAMES[0], self.play).await
            }
        }
    }
}

/// The one node, as the API tells it.
async fn only_as_told(client: &AdminClient) -> Result<Value> {
    let answer: Value = client.get(&["nodes"], &(), PLAIN).await?;
    Ok(answer["nodes"][0].clone())
}

async fn only(client: &AdminClient) -> Result<NodeRecord> {
    let mut nodes = nodes(client).await?;
    expect("nodes", nodes.len(), 1)?;
    nodes.pop().ok_or_else(|| "no node".into())
}

/// Device, record and cloud are of one mind.
async fn check_bound(client: &AdminClient, rig: &Rig, name: &str, play: Play) -> Result<()> {
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
    let sync = client.post::<Value>(&["sync"], &json!({}), SLOW).await?;
    expect("all match", &sync["in_sync"], &json!(true))?;
    check_effects(rig, play)
}

fn check_effects(rig: &Rig, play: Play) -> Result<()> {
    let (counters, (binds, unbinds)) = (rig.cloud.counters(), play.effects());
    expect("binds", counters.commits.values().sum::<u64>(), binds)?;
    expect("unbinds", counters.unbinds.values().sum::<u64>(), unbinds)
}

pub async fn access(client: &AdminClient) -> Result<Value> {
    Ok(client.get(&["access"], &(), PLAIN).await?)
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
    if play == Play::Resume {
        let given = attempts.iter().filter(|row| row.node_id.is_some()).count();
        expect("attempts that gave the device a certificate", given, 1)?;
    }
    let committed = attempts.iter().filter(|row| row.state == AttemptState::Committed).count();
    expect("committed attempts", committed, if play == Play::Succeed { 2 } else { 1 })?;
    for controller in store.controllers().await? {
        if !used.insert(controller.node_id) || controller.node_id.0 >= fabric.next_node_id {
            return Err(format!("node id {} was used twice or not taken", controller.node_id).into());
        }
    }
    if nodes.iter().any(|node| !used.contains(&node.node_id)) {
        return Err("a node has an id that no attempt was given".into());
    }
    store.close().await;
    Ok(())
}

pub fn expect<T: PartialEq + std::fmt::Debug>(what: &str, is: T, should_be: T) -> Result<()> {
    if is == should_be { Ok(()) } else { Err(format!("{what}: {is:?} instead of {should_be:?}").into()) }
}
