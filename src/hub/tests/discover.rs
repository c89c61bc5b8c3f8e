//! What a watcher is told of LAN and Bluetooth.

use tokio::sync::mpsc;

use super::Rig;
use crate::commissioning::radio::BluetoothUnavailable;
use crate::hub::discover::{DiscoverChange, DiscoverDoor, DiscoverQuery, DiscoveredNode};

fn watched(ble: bool, lan: bool) -> DiscoverQuery {
    DiscoverQuery { watch: true, ble, lan, ..DiscoverQuery::default() }
}

/// The next device that appears; nothing else may come before it.
async fn appeared(changes: &mut mpsc::Receiver<DiscoverChange>) -> DiscoveredNode {
    match changes.recv().await {
        Some(DiscoverChange::Appeared(node)) => node,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_watcher_chooses_where_and_the_scan_ends_with_the_last_who_watches() {
    let rig = Rig::start(|_| {}).await;
    let boxed = rig.home.unbox(7, 3840, 20_202_021);
    let [mut both, mut air, mut lan] = [
        rig.hub.watch(&watched(false, false)).await.unwrap(),
        rig.hub.watch(&watched(true, false)).await.unwrap(),
        rig.hub.watch(&watched(false, true)).await.unwrap(),
    ];
    for changes in [&mut both, &mut air] {
        let node = appeared(changes).await;
        assert_eq!((node.txt["discriminator"].as_u64(), node.bluetooth.is_some()), (Some(3840), true));
    }
    rig.home.plug_in(8, 3841, 20_202_021);
    for changes in [&mut both, &mut lan] {
        let node = appeared(changes).await;
        assert_eq!((node.txt["discriminator"].as_u64(), node.bluetooth.is_some()), (Some(3841), false));
    }
    drop((air, lan));
    rig.home.unplug(&boxed);
    match both.recv().await {
        Some(DiscoverChange::Disappeared(node)) => assert_eq!(node.txt["discriminator"], 3840),
        other => panic!("{other:?}"),
    }
    assert!(rig.home.has_looker());
    drop(both);
    rig.until("the end of the scan", async || !rig.home.has_looker()).await;
    // What our own fabric has is not on Bluetooth.
    let _operational = rig.hub.watch(&DiscoverQuery { operational: true, ..watched(false, false) }).await.unwrap();
    assert!(!rig.home.has_looker());
}

#[tokio::test]
async fn a_hub_without_bluetooth_says_so_and_shows_the_lan() {
    let rig = Rig::start(|_| {}).await;
    rig.home.without_bluetooth(BluetoothUnavailable::NoBlueZ);
    let refusal = rig.hub.watch(&watched(true, false)).await.unwrap_err();
    assert_eq!(refusal.code, "bluetooth-unavailable");
    let mut both = rig.hub.watch(&watched(false, false)).await.unwrap();
    match both.recv().await {
        Some(DiscoverChange::BluetoothUnavailable { message, hint }) => {
            assert!(message.contains("not running") && hint.contains("bluez"), "{message} {hint}");
        }
        other => panic!("{other:?}"),
    }
    rig.home.plug_in(8, 3841, 20_202_021);
    assert_eq!(appeared(&mut both).await.txt["discriminator"], 3841);
}
