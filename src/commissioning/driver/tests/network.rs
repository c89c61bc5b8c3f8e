//! Devices that are brought onto a network: what is taken for joined, and what is waited for.

use super::*;
use crate::node::NodeState;

/// Such a device announces itself on our fabric from where it is, as soon as it has its certificate: that says nothing of the
/// network that it is sent to.
#[tokio::test(start_paused = true)]
async fn one_that_is_on_another_network_is_sent_to_ours_and_its_refusal_counts() {
    let world = world(Some((Step::Network, Failure::Refused)));
    let device = world.device.as_ref().unwrap();
    device.heal();
    device.join_elsewhere();
    device.fail(Command::Connect, Fault::Hesitant);
    let error = world.attempt(None).await.unwrap_err();
    assert_eq!((error.step(), error.code()), (Step::Network, "wifi-password-wrong"));
    let asked = device.asked();
    assert!(asked.contains(&Command::AddNetwork) && asked.contains(&Command::Connect), "{asked:?}");
    assert!(!asked.contains(&Command::Case), "it is not met where it is: {asked:?}");
    assert_eq!((asked.last(), device.node()), (Some(&Command::Expire), None));
    // With a password that fits it goes, and is met.
    device.heal();
    assert!(world.attempt(None).await.is_ok());
    assert!(device.node().is_some());
}

/// A hub that was killed in the middle leaves a device that is not on the air before its fail-safe has run out.
#[tokio::test(start_paused = true)]
async fn a_device_that_an_interrupted_attempt_hides_is_waited_for() {
    let world = world(Some((Step::Network, Failure::Stopped)));
    let device = Arc::clone(world.device.as_ref().unwrap());
    world.commissioner.store.state.lock().unwrap().interrupted = Some(Timestamp::now());
    world.home.unplug(&device);
    let Limits { discover, fail_safe, .. } = world.commissioner.settings.limits;
    let hidden = discover + fail_safe / 2;
    let home = world.home.clone();
    let back = async {
        tokio::time::sleep(hidden).await;
        home.plug_in_again(&device);
        std::future::pending::<()>().await
    };
    let began = tokio::time::Instant::now();
    tokio::select! {
        commissioned = world.attempt(None) => drop(commissioned.unwrap()),
        () = back => {}
    }
    assert!(began.elapsed() >= hidden, "{:?}", began.elapsed());
    assert!(device.node().is_some());
    // Without such an attempt nobody waits for longer than a search takes.
    let world = super::world(Some((Step::Network, Failure::Stopped)));
    world.home.unplug(world.device.as_ref().unwrap());
    let began = tokio::time::Instant::now();
    assert_eq!(world.attempt(None).await.unwrap_err().code(), "device-not-found");
    assert!(began.elapsed() <= discover, "{:?}", began.elapsed());
}

/// What the next start would resume: written before the device can be on our fabric, and no earlier.
#[tokio::test(start_paused = true)]
async fn what_can_be_resumed_is_on_disk_before_it_can_be_met() {
    let after = async |step, failure, command, fault| {
        let world = world(Some((step, failure)));
        let device = world.device.as_ref().unwrap();
        device.heal();
        device.fail(command, fault);
        world.attempt(None).await.unwrap_err();
        let kept = world.commissioner.store.state.lock().unwrap();
        let rows: Vec<_> = kept.on_fabric.values().cloned().collect();
        let [ProvisionalNode { stage: Stage::OnFabric(unfinished), record, .. }] = &rows[..] else { return None };
        assert_eq!((record.node_id, record.state), (NodeId(1001), NodeState::Provisional));
        Some((record.addresses.clone(), unfinished.seen.ble, unfinished.fail_safe))
    };
    let fail_safe = Duration::from_secs(60);
    let on_network = Some((vec!["192.0.2.7".to_owned()], false, fail_safe));
    assert_eq!(after(Step::AddRoot, Failure::Refused, Command::AddRoot, Fault::Refused).await, on_network);
    assert_eq!(after(Step::Network, Failure::Wrong, Command::AddNetwork, Fault::Refused).await, None);
    let (addresses, bluetooth, lasts) =
        after(Step::Network, Failure::Wrong, Command::Connect, Fault::Refused).await.unwrap();
    assert_eq!((addresses.is_empty(), bluetooth), (true, true));
    assert!(lasts > fail_safe, "it covers the join too: {lasts:?}");
}
