//! Devices that are brought onto a network: what is taken for joined, and what is waited for.

use super::*;

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
