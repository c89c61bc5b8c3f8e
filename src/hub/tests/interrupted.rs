//! Attempts that a crash has cut short: which of them go on, and which are closed.

use std::sync::Arc;
use std::time::Duration;

use super::{Rig, recovery};
use crate::bind::BindState;
use crate::commissioning::ports::{NodeStore, Stage};
use crate::commissioning::tests::home::{Command, Device, Fault};
use crate::hub::commission::{CommissionDoor, CommissionRequest, CommissionResult, ProgressSink};
use crate::hub::networks::NetworksDoor;
use crate::node::{NodeId, NodeState};
use crate::store::AttemptState;

const CODE: &str = "34970112332";

/// Where the device is when the hub dies.
#[derive(Clone, Copy)]
enum Way {
    /// On the network all the time.
    Lan,
    /// On the network that it was sent to.
    Joined,
}

/// The hub dies while the device is asked `at`, which it does not answer. What it has been told of before is in its state.
async fn interrupted(way: Way, at: Command) -> (Rig, Arc<Device>) {
    interrupted_with(way, at, |_| {}).await
}

async fn interrupted_with(
    way: Way,
    at: Command,
    configure: impl Fn(&mut crate::config::Config) + Copy,
) -> (Rig, Arc<Device>) {
    let rig = Rig::start(configure).await;
    let device = match way {
        Way::Lan => rig.home.plug_in(7, 3840, 20_202_021),
        Way::Joined => {
            let home = serde_json::json!({ "kind": "wifi", "ssid": "Home", "password": "correct horse" });
            rig.hub.set_network(serde_json::from_value(home).unwrap(), "somebody".to_owned()).await.unwrap();
            rig.home.unbox(7, 3840, 20_202_021)
        }
    };
    device.fail(at, Fault::Silent);
    let hub = Arc::clone(&rig.hub);
    let request: CommissionRequest =
        serde_json::from_value(serde_json::json!({ "setup_code": CODE, "name": "lamp" })).unwrap();
    let attempt = tokio::spawn(async move {
        let (progress, _events) = ProgressSink::channel();
        hub.commission(request, progress).await
    });
    rig.until("the command", async || device.asked().contains(&at)).await;
    attempt.abort();
    assert!(attempt.await.unwrap_err().is_cancelled());
    device.heal();
    device.forget_asked();
    (rig.restart(configure).await, device)
}

/// The one node that there is in the end.
async fn resumed(rig: &Rig) -> crate::node::NodeRecord {
    let there = async || rig.hub.store.nodes().await.unwrap().iter().any(|node| node.bind.state == BindState::Bound);
    rig.until("the bind", there).await;
    let [node] = &rig.hub.store.nodes().await.unwrap()[..] else { panic!("one node") };
    node.clone()
}

async fn the_attempt(rig: &Rig) -> AttemptState {
    let [attempt] = &rig.hub.store.attempts(9).await.unwrap()[..] else { panic!("one attempt") };
    attempt.state
}

#[tokio::test]
async fn a_device_on_our_fabric_goes_on_from_there() {
    use Command::{Arm, Case, Complete, Describe, Label, ReadAcl, WriteAcl};
    for (way, at) in [
        (Way::Lan, Command::Case),
        (Way::Lan, Command::WriteAcl),
        (Way::Joined, Command::Case),
        (Way::Joined, Command::ReadAcl),
    ] {
        let (rig, device) = interrupted(way, at).await;
        rig.spawn_followers();
        let node = resumed(&rig).await;
        assert_eq!(
            (device.node(), node.state, node.name.as_str()),
            (Some(node.node_id), NodeState::Operational, "lamp")
        );
        assert_eq!((node.addresses.clone(), node.port), (vec!["192.0.2.7".to_owned()], 5540));
        // Where it was; nothing of what it was told before is said again.
        let asked: Vec<_> = device.asked().into_iter().filter(|command| *command != Command::Read).collect();
        assert_eq!(asked[..7], [Case, Describe, Arm, WriteAcl, ReadAcl, Label, Complete]);
        assert_eq!(the_attempt(&rig).await, AttemptState::Committed);
        assert_eq!(rig.account.holds().len(), 1);
        for kind in ["attempt-resumed", "node-commissioned", "node-bound"] {
            rig.until(kind, async || rig.logged().await.iter().any(|logged| logged == kind)).await;
        }
    }
}

/// It takes its time to join the network that it was sent to.
#[tokio::test]
async fn a_device_that_announces_itself_later_is_met_then() {
    let (rig, device) = interrupted(Way::Joined, Command::Case).await;
    rig.home.unplug(&device);
    rig.spawn_followers();
    rig.until("listening", async || rig.home.has_listener()).await;
    rig.home.plug_in_again(&device);
    assert_eq!(Some(resumed(&rig).await.node_id), device.node());
}

/// The person gives the command again: there are never two attempts at one device, and one answer.
#[tokio::test]
async fn who_asks_for_it_again_hears_what_comes_of_it() {
    for way in [Way::Lan, Way::Joined] {
        let (rig, device) = interrupted(way, Command::WriteAcl).await;
        let (result, ()) = tokio::join!(rig.commission(CODE), async { rig.spawn_followers() });
        let CommissionResult::Commissioned { node, bind, attempt_id, .. } = result else { panic!("{result:?}") };
        assert_eq!((device.node(), bind.state), (Some(node.node_id), BindState::Bound));
        assert!(!device.asked().contains(&Command::Pase), "{:?}", device.asked());
        let attempts = rig.hub.store.attempts(9).await.unwrap();
        let resumed = attempts.iter().find(|attempt| attempt.attempt_id == attempt_id).unwrap();
        assert_eq!((resumed.state, resumed.node_id), (AttemptState::Committed, Some(node.node_id)));
        // And who asks later that it is ours.
        let CommissionResult::Failed(failure) = rig.commission(CODE).await else { panic!("it is ours") };
        assert_eq!(failure.code, "already-on-this-fabric");
    }
}

/// The hub was away for longer than the device waits.
#[tokio::test]
async fn a_device_that_has_rolled_back_is_taken_in_anew() {
    for way in [Way::Lan, Way::Joined] {
        let (rig, device) = interrupted(way, Command::Case).await;
        device.expire();
        rig.spawn_followers();
        let CommissionResult::Commissioned { node, .. } = rig.commission(CODE).await else {
            panic!("it is in its box")
        };
        assert_eq!(device.node(), Some(node.node_id));
        assert_ne!(node.node_id, NodeId(1001), "ids are not used again");
        rig.until("the end of the first", async || rig.hub.store.provisional_nodes().await.unwrap().is_empty()).await;
        let states: Vec<_> = rig.hub.store.attempts(9).await.unwrap().iter().map(|attempt| attempt.state).collect();
        assert_eq!(states, [AttemptState::Committed, AttemptState::Interrupted]);
    }
}

/// Its breadcrumb says that it is not where we left it.
#[tokio::test]
async fn somebody_elses_breadcrumb_is_not_followed() {
    for breadcrumb in [0, 1] {
        let (rig, device) = interrupted(Way::Lan, Command::Case).await;
        device.leave_breadcrumb(breadcrumb);
        rig.spawn_followers();
        rig.until("the end", async || rig.logged().await.iter().any(|kind| kind == "attempt-abandoned")).await;
        assert_eq!(device.asked(), [Command::Case, Command::Describe]);
        assert!(rig.hub.store.provisional_nodes().await.unwrap().is_empty());
    }
}

/// A device that never comes back has rolled back when its fail-safe must be over, whatever the wall clock says.
#[tokio::test(start_paused = true)]
async fn who_does_not_come_back_is_given_up_in_time() {
    let short = |config: &mut crate::config::Config| config.commissioning.fail_safe = Duration::from_secs(20);
    let began = tokio::time::Instant::now();
    let (rig, device) = interrupted_with(Way::Joined, Command::Case, short).await;
    rig.home.unplug(&device);
    let [row] = &rig.hub.store.provisional_nodes().await.unwrap()[..] else { panic!("one attempt is open") };
    let Stage::OnFabric(unfinished) = &row.stage else { panic!("it can be resumed: {row:?}") };
    recovery::follow(Arc::clone(&rig.hub)).await;
    assert!(rig.hub.store.provisional_nodes().await.unwrap().is_empty());
    // A paused clock runs ahead while the store works, so there is no bound above.
    assert!(began.elapsed() >= unfinished.fail_safe, "{:?}", began.elapsed());
}

/// One that cannot be what the configuration asks for is told to roll back, and not asked again and again.
#[tokio::test]
async fn a_device_that_keeps_another_access_list_is_rolled_back() {
    let (rig, device) = interrupted(Way::Lan, Command::WriteAcl).await;
    device.fail(Command::ReadAcl, Fault::Wrong);
    rig.spawn_followers();
    rig.until("the end", async || rig.hub.store.provisional_nodes().await.unwrap().is_empty()).await;
    assert_eq!(device.asked().last(), Some(&Command::Expire));
    assert_eq!((device.node(), rig.hub.store.nodes().await.unwrap().len()), (None, 0));
}

/// A device on Bluetooth that was sent to no network yet cannot be met: that is over at once, as it always was.
#[tokio::test]
async fn before_it_is_sent_to_its_network_nothing_is_resumed() {
    let (rig, device) = interrupted(Way::Joined, Command::Scan).await;
    assert!(rig.hub.store.provisional_nodes().await.unwrap().is_empty());
    rig.spawn_followers();
    device.expire();
    let CommissionResult::Commissioned { node, .. } = rig.commission(CODE).await else { panic!("it is in its box") };
    assert_eq!(device.node(), Some(node.node_id));
}

/// Its answer to CommissioningComplete is lost together with the hub that went on.
#[tokio::test]
async fn what_was_sent_before_the_second_crash_is_settled_by_asking() {
    let (rig, device) = interrupted(Way::Lan, Command::WriteAcl).await;
    device.fail(Command::Complete, Fault::Silent);
    rig.spawn_followers();
    rig.until("the command", async || device.asked().contains(&Command::Complete)).await;
    device.heal();
    let rig = rig.restart(|_| {}).await;
    rig.spawn_followers();
    assert_eq!(Some(resumed(&rig).await.node_id), device.node());
    rig.until("the word", async || rig.logged().await.iter().any(|kind| kind == "attempt-recovered")).await;
}
