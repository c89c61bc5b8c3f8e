//! Devices that sleep long: the hub registers with them, and lives by their check-ins.

use std::sync::Arc;

use super::Rig;
use crate::commissioning::tests::home::{Command, Device, Fault};
use crate::hub::commission::CommissionResult;
use crate::hub::doors::{AccessDoor, InventoryDoor, RemovalDoor};
use crate::node::{IcdRegistration, NodeRecord, NodeState};

const CODE: &str = "MT:-24J0AFN00KA0648G00";

/// A hub that listens, and a device that has taken its registration.
async fn registered() -> (Rig, Arc<Device>, NodeRecord) {
    let rig = Rig::start(|_| {}).await;
    let device = rig.home.plug_in_sleeper(7, 3840, 20_202_021);
    let CommissionResult::Commissioned { node, .. } = rig.commission(CODE).await else { panic!("it is well") };
    rig.spawn_followers();
    rig.until("listening", async || rig.home.has_listener() && rig.home.takes_check_ins()).await;
    (rig, device, *node)
}

#[tokio::test]
async fn a_device_that_sleeps_long_is_registered_with_as_it_is_taken_in() {
    let (rig, device, node) = registered().await;
    assert_eq!(node.icd, Some(IcdRegistration::Registered));
    assert_eq!(device.clients(), [rig.hub.credentials.bundle().hub_node]);
    let asked = device.asked();
    let complete = asked.iter().position(|command| *command == Command::Complete).unwrap();
    assert!(asked[complete..].contains(&Command::Register), "{asked:?}");
    assert!(rig.logged().await.iter().any(|kind| kind == "icd-registered"));
}

#[tokio::test]
async fn one_that_takes_no_registration_is_commissioned_all_the_same() {
    let rig = Rig::start(|_| {}).await;
    let device = rig.home.plug_in_sleeper(7, 3840, 20_202_021);
    device.fail(Command::Register, Fault::Refused);
    let CommissionResult::Commissioned { node, .. } = rig.commission(CODE).await else { panic!("it is well") };
    assert_eq!(node.icd, Some(IcdRegistration::NotRegistered));
    assert!(rig.hub.store.check_ins().await.unwrap().is_empty(), "no key of nothing is kept");
    assert!(rig.logged().await.iter().any(|kind| kind == "icd-not-registered"));
}

#[tokio::test]
async fn a_check_in_counts_once_and_only_with_our_key() {
    let (rig, device, node) = registered().await;
    let counted = async || rig.hub.store.check_ins().await.unwrap()[0].counter.last;
    device.fall_asleep();
    let messages = rig.home.check_in(&device).await;
    let (again, mut made_up) = (messages[0].clone(), messages[0].clone());
    made_up.payload[20] ^= 1;
    // They are handled one after the other, so that the last one, when it is taken, says that the others are done with.
    let handled = async |messages: Vec<_>| {
        for message in messages {
            rig.home.send_check_in(message).await;
        }
        rig.until("all were read", async || rig.home.check_ins_waiting() == 0).await;
    };
    handled(vec![again.clone()]).await;
    let heard = || rig.hub.probes.last_contact(node.node_id);
    let before = heard();
    assert!(before.is_some());
    device.fall_asleep();
    // Played again, or made up: nothing is concluded from it.
    handled(vec![again.clone(), made_up, again]).await;
    assert_eq!((messages.len(), heard(), counted().await), (1, before, Some(1)));
}

#[tokio::test]
async fn a_check_in_that_was_played_once_is_not_taken_after_a_restart() {
    let (rig, device, node) = registered().await;
    let messages = rig.home.check_in(&device).await;
    let counted = async |rig: &Rig| rig.hub.store.check_ins().await.unwrap()[0].counter.last;
    rig.until("it counts", async || counted(&rig).await == Some(1)).await;
    let rig = rig.restart(|_| {}).await;
    rig.hub.note_silence(node.node_id, "it has not checked in").await;
    device.fall_asleep();
    rig.spawn_followers();
    rig.until("listening", async || rig.home.has_listener() && rig.home.takes_check_ins()).await;
    rig.home.send_check_in(messages[0].clone()).await;
    rig.until("it was read", async || rig.home.check_ins_waiting() == 0).await;
    assert_eq!(rig.record(node.node_id).await.unwrap().state, NodeState::Unreachable);
}

#[tokio::test]
async fn whoever_asks_a_sleeping_device_is_told_that_it_sleeps_and_how_it_is_woken() {
    let (rig, device, node) = registered().await;
    device.fall_asleep();
    let check = rig.hub.check(node.node_id).await.unwrap();
    assert!(!check.reachable);
    assert!(check.message.contains("sleeps") && check.message.contains("press its setup button"), "{}", check.message);
    let refused = rig.hub.identify(node.node_id, 5).await.unwrap_err();
    assert_eq!(refused.code, "device-asleep");
    assert!(refused.hint.contains("press its setup button"), "{}", refused.hint);
    // Its sleep is no silence: nothing is flagged.
    assert_eq!(rig.record(node.node_id).await.unwrap().state, NodeState::Operational);
}

#[tokio::test]
async fn what_waits_for_a_device_is_done_when_it_wakes() {
    let (rig, device, node) = registered().await;
    device.fall_asleep();
    let report = rig.hub.apply_access(Some(node.node_id)).await.unwrap();
    assert_eq!((report.complete, report.nodes[0].code.as_str()), (false, "device-asleep"), "{report:?}");
    // It is noted as one that has to be told; the removal too.
    let refused = rig.hub.remove(node.node_id, false, "somebody".to_owned()).await.unwrap_err();
    assert_eq!(refused.code, "device-asleep");
    assert_eq!(rig.record(node.node_id).await.unwrap().state, NodeState::Removing);
    device.forget_asked();
    rig.home.check_in(&device).await;
    rig.until("the removal", async || rig.record(node.node_id).await.is_none()).await;
    assert_eq!((device.node(), device.clients()), (None, Vec::new()));
    assert!(device.asked().contains(&Command::StayActive), "it is asked to stay awake: {:?}", device.asked());
    assert!(rig.hub.store.check_ins().await.unwrap().is_empty(), "the key has gone with the node");
}

#[tokio::test]
async fn a_registration_that_either_side_lost_is_made_again() {
    let (rig, device, node) = registered().await;
    // The device has lost it, and says so when it is looked at.
    device.forget_clients();
    rig.hub.icd.want(node.node_id, false);
    rig.until("the registration", async || device.clients().len() == 1).await;
    // The hub has lost it: a restored backup is older than the registration. Its check-in cannot be read, and tells that it is awake.
    rig.hub.store.end_registration(node.node_id).await.unwrap();
    let rig = rig.restart(|_| {}).await;
    device.fall_asleep();
    rig.spawn_followers();
    rig.until("listening", async || rig.home.has_listener() && rig.home.takes_check_ins()).await;
    rig.home.check_in(&device).await;
    let registered = async || rig.record(node.node_id).await.unwrap().icd == Some(IcdRegistration::Registered);
    rig.until("the registration", registered).await;
    let [row] = &rig.hub.store.check_ins().await.unwrap()[..] else { panic!("one device checks in") };
    assert!(row.key.is_some() && row.next_key.is_none());
}

#[tokio::test]
async fn a_registration_whose_answer_was_lost_is_known_by_its_first_check_in() {
    let rig = Rig::start(|_| {}).await;
    let device = rig.home.plug_in_sleeper(7, 3840, 20_202_021);
    device.fail(Command::Register, Fault::Wrong);
    let CommissionResult::Commissioned { node, .. } = rig.commission(CODE).await else { panic!("it is well") };
    assert_eq!((node.icd, device.clients().len()), (Some(IcdRegistration::NotRegistered), 1));
    device.fall_asleep();
    rig.spawn_followers();
    rig.until("listening", async || rig.home.has_listener() && rig.home.takes_check_ins()).await;
    rig.home.check_in(&device).await;
    let registered = async || rig.record(node.node_id).await.unwrap().icd == Some(IcdRegistration::Registered);
    rig.until("the registration", registered).await;
}
