//! A run over fakes of the ports.

use super::*;
use crate::bind::BindReceipt;
use crate::config::{OnAccessDrift, OnCloudMissing};
use crate::fabric::{CatGrant, Privilege};
use crate::outbox::ports::{BindPreview, CloudError, OutboxId};
use crate::reconcile::compare::{DeviceFacts, Verdict};
use crate::reconcile::tests::{cloud_record, facts, grant, record};
use crate::secret::BindingCode;

/// For each device.
const PATIENCE: Duration = Duration::from_secs(5);

/// Devices, record and cloud in memory.
#[derive(Default)]
struct World {
    /// `None`: it never answers.
    devices: BTreeMap<NodeId, Option<DeviceFacts>>,
    records: Mutex<BTreeMap<NodeId, NodeRecord>>,
    cloud: Mutex<BTreeMap<CloudDevice, CloudRecord>>,
    /// What the list leaves out although it is there.
    hole: Option<CloudDevice>,
    cloud_is_down: bool,
    code: Option<&'static str>,
    rows: Mutex<Vec<(NodeId, OutboxTask)>>,
    removed: Mutex<Vec<NodeId>>,
    calls: Mutex<Vec<&'static str>>,
}

impl World {
    /// So many nodes that agree everywhere.
    fn of(nodes: std::ops::Range<u64>) -> Self {
        let records: BTreeMap<_, _> = nodes.map(|node| (NodeId(node), record(node))).collect();
        Self {
            devices: records.iter().map(|(node, record)| (*node, Some(facts(record)))).collect(),
            cloud: Mutex::new(
                records.values().map(|record| (cloud_record(record).device, cloud_record(record))).collect(),
            ),
            records: Mutex::new(records),
            code: Some("0123456789ABCDEF"),
            ..Self::default()
        }
    }

    fn lose_binding(&self, node: u64) {
        self.cloud.lock().unwrap().remove(&cloud_record(&record(node)).device);
    }

    fn kinds(&self) -> Vec<(NodeId, &'static str)> {
        self.rows.lock().unwrap().iter().map(|(node, task)| (*node, task.kind())).collect()
    }

    fn record(&self, node: u64) -> NodeRecord {
        self.records.lock().unwrap()[&NodeId(node)].clone()
    }
}

impl Devices for World {
    fn is_announced(&self, record: &NodeRecord) -> bool {
        self.devices[&record.node_id].is_some()
    }

    fn patience(&self, _record: &NodeRecord) -> Duration {
        PATIENCE
    }

    async fn examine(&self, record: &NodeRecord) -> Examined {
        match &self.devices[&record.node_id] {
            Some(facts) => Examined { device: DeviceView::Seen(Box::new(facts.clone())), commissionable_again: None },
            None => std::future::pending().await,
        }
    }

    async fn restore_access(&self, record: &NodeRecord) -> Result<Vec<CatGrant>, String> {
        self.calls.lock().unwrap().push("restore");
        Ok(record.cats.clone())
    }

    async fn binding_code(&self, _record: &NodeRecord) -> Option<BindingCode> {
        self.code.map(BindingCode::new)
    }

    async fn decommission(&self, node: NodeId) -> Result<(), String> {
        self.removed.lock().unwrap().push(node);
        Ok(())
    }
}

impl Records for World {
    async fn records(&self) -> Result<Vec<NodeRecord>, StoreError> {
        Ok(self.records.lock().unwrap().values().cloned().collect())
    }

    async fn queued(&self) -> Result<BTreeSet<NodeId>, StoreError> {
        Ok(self.rows.lock().unwrap().iter().map(|(node, _)| *node).collect())
    }

    async fn mend(
        &self,
        node: NodeId,
        change: Change,
        task: Option<OutboxTask>,
        _now: Timestamp,
    ) -> Result<Option<OutboxId>, StoreError> {
        change.apply(self.records.lock().unwrap().get_mut(&node).unwrap());
        Ok(task.map(|task| {
            let mut rows = self.rows.lock().unwrap();
            rows.push((node, task));
            OutboxId(rows.len() as i64)
        }))
    }
}

impl BindApi for World {
    async fn bind(&self, _request: &BindRequest) -> Result<BindReceipt, CloudError> {
        panic!("the outbox binds")
    }

    async fn find(&self, device: &CloudDevice) -> Result<Option<CloudRecord>, CloudError> {
        self.calls.lock().unwrap().push("find");
        Ok(self.cloud.lock().unwrap().get(device).cloned())
    }

    async fn held(
        &self,
        _wanted: &BTreeSet<CloudDevice>,
        _fabric: Option<FabricId>,
    ) -> Result<Vec<CloudRecord>, CloudError> {
        self.calls.lock().unwrap().push("list");
        if self.cloud_is_down {
            return Err(CloudError::NotSent { cause: "no route".to_owned() });
        }
        let cloud = self.cloud.lock().unwrap();
        Ok(cloud.values().filter(|record| Some(&record.device) != self.hole.as_ref()).cloned().collect())
    }

    async fn unbind(&self, _device: &CloudDevice) -> Result<(), CloudError> {
        panic!("the outbox unbinds")
    }

    async fn rename(&self, _device: &CloudDevice, _name: &str) -> Result<(), CloudError> {
        panic!("the outbox renames")
    }

    async fn move_room(
        &self,
        _device: &CloudDevice,
        _family_id: &str,
        _old_room_id: Option<&str>,
        _new_room_id: &str,
    ) -> Result<(), CloudError> {
        panic!("the outbox moves")
    }

    async fn preview(&self, _device: &CloudDevice) -> Result<BindPreview, CloudError> {
        panic!("nobody asked")
    }
}

#[derive(Default)]
struct Log(Mutex<Vec<String>>);

impl EventSink for Log {
    fn record(&self, event: Event) {
        self.0.lock().unwrap().push(event.kind);
    }
}

impl Log {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// The world with its log and memory.
#[derive(Default)]
struct Watch {
    log: Log,
    memory: Memory,
}

impl Watch {
    async fn run(&self, world: &World, policy: Policy, only: Option<u64>) -> Vec<NodeFinding> {
        let reconciler = Reconciler {
            mends: true,
            devices: world,
            records: world,
            cloud: Some(world),
            events: &self.log,
            memory: &self.memory,
            policy,
            limits: CompareLimits::default(),
            progress: &|_, _| {},
            fabric: only.is_none().then_some(FabricId(7)),
        };
        let only = only.map(|node| BTreeSet::from([NodeId(node)]));
        reconciler.run(only.as_ref()).await.unwrap().nodes
    }
}

const REBIND: Policy = Policy { on_cloud_missing: OnCloudMissing::Rebind, on_access_drift: OnAccessDrift::Restore };

fn verdicts(findings: &[NodeFinding]) -> Vec<Verdict> {
    findings.iter().map(|finding| finding.comparison.verdict).collect()
}

#[tokio::test(start_paused = true)]
async fn dead_nodes_hold_up_nobody_and_one_list_serves_all() {
    let mut world = World::of(0..100);
    for node in 0..12 {
        world.devices.insert(NodeId(node), None);
    }
    let (watch, began) = (Watch::default(), tokio::time::Instant::now());
    let found = verdicts(&watch.run(&world, REBIND, None).await);
    assert_eq!(found.iter().filter(|verdict| **verdict == Verdict::DeviceUnreachable).count(), 12);
    assert_eq!(found.iter().filter(|verdict| **verdict == Verdict::Match).count(), 88);
    assert_eq!(began.elapsed(), PATIENCE, "the dead ones, all at once");
    assert_eq!(*world.calls.lock().unwrap(), ["list"]);
    assert_eq!(watch.log.take(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_thousand_absent_nodes_end_in_time_and_those_that_are_there_are_seen() {
    let mut world = World::of(0..1000);
    for node in 10..1000 {
        world.devices.insert(NodeId(node), None);
    }
    let began = tokio::time::Instant::now();
    let found = verdicts(&Watch::default().run(&world, REBIND, None).await);
    assert_eq!(found[..10], [Verdict::Match; 10]);
    assert!(found[10..].iter().all(|verdict| *verdict == Verdict::DeviceUnreachable));
    assert!(began.elapsed() <= Duration::from_secs(30), "{:?}", began.elapsed());
    assert!(world.kinds().is_empty(), "nothing is concluded from silence");
}

#[tokio::test]
async fn a_lost_binding_is_queued_once_and_told_once() {
    let (world, watch) = (World::of(1000..1003), Watch::default());
    world.lose_binding(1001);
    let found = watch.run(&world, REBIND, None).await;
    assert_eq!(verdicts(&found), [Verdict::Match, Verdict::CloudMissing, Verdict::Match]);
    assert_eq!(found[1].actions, [Action::Rebind]);
    assert_eq!(world.kinds(), [(NodeId(1001), "bind")]);
    assert_eq!(watch.log.take(), ["sync-difference", "sync-mended"]);
    let again = watch.run(&world, REBIND, None).await;
    assert_eq!((verdicts(&again)[1], world.kinds().len()), (Verdict::CloudMissing, 1), "the row is under way");
}

#[tokio::test]
async fn a_report_is_made_once_and_taken_back_once() {
    let (world, watch) = (World::of(1000..1001), Watch::default());
    world.lose_binding(1000);
    for expected in [&["sync-difference"][..], &[]] {
        assert_eq!(verdicts(&watch.run(&world, Policy::default(), None).await), [Verdict::CloudMissing]);
        assert_eq!(watch.log.take(), expected);
    }
    let back = cloud_record(&record(1000));
    world.cloud.lock().unwrap().insert(back.device.clone(), back);
    for expected in [&["sync-settled"][..], &[]] {
        watch.run(&world, Policy::default(), None).await;
        assert_eq!(watch.log.take(), expected);
    }
    assert!(world.kinds().is_empty());
}

#[tokio::test]
async fn a_hole_in_the_clouds_list_costs_no_device_its_place() {
    let mut world = World::of(1000..1002);
    world.hole = Some(cloud_record(&record(1000)).device);
    let policy = Policy { on_cloud_missing: OnCloudMissing::Decommission, ..REBIND };
    let found = Watch::default().run(&world, policy, None).await;
    assert_eq!(found[0].actions, []);
    assert!(world.removed.lock().unwrap().is_empty());
    world.lose_binding(1000);
    let found = Watch::default().run(&world, policy, None).await;
    assert_eq!(
        (&found[0].actions[..], &world.removed.lock().unwrap()[..]),
        (&[Action::Decommission][..], &[NodeId(1000)][..])
    );
}

#[tokio::test]
async fn without_a_binding_code_it_is_reported_and_not_queued() {
    let mut world = World::of(1000..1001);
    world.code = None;
    world.lose_binding(1000);
    let watch = Watch::default();
    assert_eq!(watch.run(&world, REBIND, None).await[0].actions, []);
    assert_eq!(watch.log.take(), ["sync-difference", "sync-mend-failed"]);
    watch.run(&world, REBIND, None).await;
    assert_eq!(watch.log.take(), Vec::<String>::new());
    assert!(world.kinds().is_empty());
}

#[tokio::test]
async fn access_is_restored_or_recorded() {
    let mut world = World::of(1000..1001);
    world.devices.get_mut(&NodeId(1000)).unwrap().as_mut().unwrap().acl.pop();
    let found = Watch::default().run(&world, REBIND, Some(1000)).await;
    assert_eq!((verdicts(&found)[0], &found[0].actions[..]), (Verdict::Drift, &[Action::RestoreAccess][..]));
    assert_eq!(*world.calls.lock().unwrap(), ["find", "restore"]);
    assert!(world.kinds().is_empty());

    let record_it = Policy { on_access_drift: OnAccessDrift::Record, ..Policy::default() };
    Watch::default().run(&world, record_it, Some(1000)).await;
    assert_eq!(world.kinds(), [(NodeId(1000), "update-matter-info")]);
    let only_admin = [grant(0x0001_0001, Privilege::Administer)];
    assert_eq!(world.record(1000).cats, only_admin);
    match &world.rows.lock().unwrap()[0].1 {
        OutboxTask::UpdateMatterInfo(request) => assert_eq!(request.matter_info.cats, only_admin),
        other => panic!("{}", other.kind()),
    }
}

#[tokio::test]
async fn a_cloud_that_is_down_is_told_and_nothing_is_done() {
    let mut world = World::of(1000..1002);
    world.cloud_is_down = true;
    let policy = Policy { on_cloud_missing: OnCloudMissing::Decommission, ..REBIND };
    let found = Watch::default().run(&world, policy, None).await;
    assert_eq!(verdicts(&found), [Verdict::CloudUnreachable; 2]);
    assert!(world.kinds().is_empty() && world.removed.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_node_that_is_being_removed_is_left_to_that() {
    let world = World::of(1000..1002);
    world.records.lock().unwrap().get_mut(&NodeId(1000)).unwrap().state = NodeState::Removing;
    let found = Watch::default().run(&world, REBIND, None).await;
    assert_eq!(found.iter().map(|finding| finding.node_id).collect::<Vec<_>>(), [NodeId(1001)]);
}
