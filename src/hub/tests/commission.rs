//! Taking devices in.

use super::Rig;
use crate::bind::BindState;
use crate::commissioning::step::Step;
use crate::commissioning::tests::home::{Command, Fault};
use crate::hub::commission::CommissionResult;
use crate::hub::doors::{CommissionDoor, OutboxDoor, ProgressSink};
use crate::node::NodeState;
use crate::telemetry::exposition::Exposition;

#[tokio::test]
async fn device_record_and_cloud_agree() {
    let rig = Rig::start(|config| config.fabric.label = "Garden".to_owned()).await;
    let (device, node) = rig.with_device().await;
    assert_eq!((device.node(), device.label()), (Some(node.node_id), "Garden".to_owned()));
    let stored = rig.record(node.node_id).await.unwrap();
    assert_eq!((stored.state, stored.bind.state), (NodeState::Operational, BindState::Bound));
    let [held] = &rig.account.holds()[..] else { panic!("one device is bound") };
    let info = held.matter_info.as_ref().unwrap();
    assert_eq!((info.node_id, info.discriminator), (Some(node.node_id.0), Some(3840)));
    let metrics = rig.hub.metrics.encode(Exposition::Text);
    for line in [
        "matterbind_commissioning_attempts_total{outcome=\"commissioned\",code=\"\"} 1",
        "matterbind_commissioning_seconds_count 1",
        "matterbind_commissioning_step_seconds_count{step=\"complete\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    let kinds = rig.logged().await;
    for kind in ["commissioning-started", "node-commissioned", "node-bound"] {
        assert!(kinds.iter().any(|logged| logged == kind), "{kind} is not in {kinds:?}");
    }
}

#[tokio::test]
async fn a_device_of_ours_is_not_taken_in_again() {
    let rig = Rig::start(|_| {}).await;
    let (device, node) = rig.with_device().await;
    let asked = device.asked().len();
    let CommissionResult::Failed(failure) = rig.commission("34970112332").await else { panic!("it is ours already") };
    assert_eq!(failure.code, "already-on-this-fabric");
    assert_eq!(failure.node.map(|node| node.node_id), Some(node.node_id));
    // It was met, and nothing more.
    assert_eq!(device.asked()[asked..], [Command::Case]);
}

#[tokio::test]
async fn what_a_device_announced_in_its_box_does_not_hide_that_it_is_ours() {
    let rig = Rig::start(|_| {}).await;
    let (device, node) = rig.with_device().await;
    device.announce_window();
    device.fail(Command::Pase, Fault::Silent);
    let CommissionResult::Failed(failure) = rig.commission("34970112332").await else { panic!("it is ours already") };
    assert_eq!(failure.code, "already-on-this-fabric");
    assert_eq!(failure.node.map(|node| node.node_id), Some(node.node_id));
}

#[tokio::test]
async fn a_failed_attempt_leaves_nothing_behind() {
    let rig = Rig::start(|_| {}).await;
    let device = rig.home.plug_in(7, 3840, 20_202_021);
    device.fail(Command::AddNoc, Fault::Refused);
    let CommissionResult::Failed(failure) = rig.commission("34970112332").await else { panic!("it refused") };
    assert_eq!((failure.step, failure.code.as_str()), (Step::AddNoc, "certificate-refused"));
    assert_eq!((device.node(), rig.hub.store.nodes().await.unwrap().len(), rig.account.holds().len()), (None, 0, 0));
    device.heal();
    let CommissionResult::Commissioned { node, .. } = rig.commission("34970112332").await else { panic!("it is well") };
    assert_eq!(device.node(), Some(node.node_id));
}

#[tokio::test]
async fn a_cloud_that_is_away_keeps_nobody_out() {
    let rig = Rig::start(|_| {}).await;
    rig.account.set_down(true);
    rig.home.plug_in(7, 3840, 20_202_021);
    let request = serde_json::from_value(serde_json::json!({ "setup_code": "34970112332" })).unwrap();
    let (progress, _events) = ProgressSink::channel();
    let result = rig.hub.commission(request, progress).await.unwrap();
    assert_eq!(result.bind_state(), Some(BindState::Pending));
    rig.account.set_down(false);
    let CommissionResult::Commissioned { node, .. } = result else { panic!("it is commissioned") };
    let row = rig.hub.outbox().await.unwrap().entries[0].id;
    // It may have been tried again by itself in between, and be gone.
    let _ = rig.hub.outbox_retry(row).await;
    let bound = async || rig.record(node.node_id).await.unwrap().bind.state == BindState::Bound;
    rig.until("the bind", bound).await;
}

#[tokio::test]
async fn what_is_not_a_code_reaches_no_device() {
    let rig = Rig::start(|_| {}).await;
    let device = rig.home.plug_in(7, 3840, 20_202_021);
    let CommissionResult::Failed(failure) = rig.commission("34970112333").await else { panic!("a wrong digit") };
    assert_eq!((failure.step, failure.code.as_str()), (Step::Parse, "wrong-check-digit"));
    assert_eq!(device.asked(), []);
}
