//! Lists, rename, rooms, unbind.

use matterbind::facade::outbox::ports::{BindApi, CloudError};
use matterbind::facade::sim::cloud::{Fault, FaultKind};

use crate::rig::{Rig, device, request};

#[tokio::test]
async fn all_pages_are_read_each_device_once() {
    let rig = Rig::demo().await;
    let client = rig.client();
    assert_eq!(client.list().await.unwrap(), []);
    for index in 0..123 {
        client.bind(&request(&device("p11abc", &format!("DEV{index:05}")))).await.unwrap();
    }
    let mut keys: Vec<String> =
        client.list().await.unwrap().into_iter().map(|record| record.device.device_key).collect();
    keys.sort();
    assert_eq!(keys.len(), 123);
    assert_eq!((keys[0].as_str(), keys[122].as_str()), ("DEV00000", "DEV00122"));
    let counters = rig.cloud.counters();
    assert_eq!((counters.logins, counters.requests["userDeviceList"]), (1, 1 + 3));
    assert_eq!(counters.connections, 1, "one after the other needs one connection");
    // A key that is part of other keys is not those.
    assert_eq!(client.find(&device("p11abc", "DEV0000")).await.unwrap(), None);
    assert!(client.find(&device("p11abc", "DEV00007")).await.unwrap().is_some());
    // One page that fails is no shorter list.
    rig.cloud.fault(Fault::of_bind(FaultKind::Garbage).on("userDeviceList"));
    assert!(client.list().await.is_err());
}

/// Of an account with many devices only those are kept that are asked about, and no page is read that nobody needs.
#[tokio::test]
async fn of_a_long_list_only_what_is_wanted_is_kept() {
    let rig = Rig::demo().await;
    let client = rig.client();
    for index in 0..220 {
        client.bind(&request(&device("p11abc", &format!("DEV{index:05}")))).await.unwrap();
    }
    let pages = || rig.cloud.counters().requests.get("userDeviceList").copied().unwrap_or_default();
    let wanted = |keys: &[&str]| keys.iter().map(|key| device("p11abc", key)).collect();
    let held = client.held(&wanted(&["DEV00001", "DEV00219", "GONE0001"]), None).await.unwrap();
    assert_eq!(held.len(), 2);
    assert_eq!(pages(), 5, "one that is not there is looked for to the end");
    let whole = pages();
    assert_eq!(client.held(&wanted(&["DEV00000", "DEV00001"]), None).await.unwrap().len(), 2);
    assert!(pages() - whole <= 5);
    // A service that takes no notice of pages is asked twice, not four thousand times.
    let body = serde_json::json!({ "code": 200, "data": { "hasNextPage": true, "list": [
        { "productKey": "p11abc", "deviceKey": "DEV00000" }] } });
    let same = FaultKind::Page { status: 200, headers: Vec::new(), body: body.to_string() };
    rig.cloud.fault(Fault { times: 100, ..Fault::of_bind(same).on("userDeviceList") });
    let before = pages();
    assert!(client.held(&wanted(&["DEV00007"]), None).await.unwrap().is_empty());
    assert_eq!(pages() - before, 2);
}

#[tokio::test]
async fn a_list_without_matter_ids_is_completed() {
    let rig = Rig::demo().await;
    rig.cloud.change(|scenario| scenario.switches.list_without_matter_info = true);
    let client = rig.client();
    for index in 0..20 {
        client.bind(&request(&device("p11abc", &format!("DEV{index:05}")))).await.unwrap();
    }
    let records = client.list().await.unwrap();
    assert_eq!(records.len(), 20);
    assert!(records.iter().all(|record| record.matter_info.as_ref().unwrap().node_id == Some(1000)));
    assert_eq!(rig.cloud.counters().requests["deviceInfo"], 20);
}

#[tokio::test]
async fn a_device_is_renamed_moved_and_unbound_twice() {
    let rig = Rig::demo().await;
    let client = rig.client();
    let light = device("p11abc", "LIGHT001");
    let mut bind = request(&light);
    bind.family_id = Some("f-demo".to_owned());
    bind.room_id = Some("r-hall".to_owned());
    client.bind(&bind).await.unwrap();
    client.rename(&light, "Küche & Flur +1").await.unwrap();
    client.move_room(&light, "f-demo", Some("r-hall"), "r-kitchen").await.unwrap();
    let record = client.device_info(&light).await.unwrap();
    assert_eq!(record.device_name.as_deref(), Some("Küche & Flur +1"));
    assert_eq!((record.family_id.as_deref(), record.room_id.as_deref()), (Some("f-demo"), Some("r-kitchen")));
    let nowhere = client.move_room(&light, "f-demo", None, "r-none").await;
    assert!(matches!(nowhere, Err(CloudError::Code { code: 5041, .. })), "{nowhere:?}");
    client.unbind(&light).await.unwrap();
    client.unbind(&light).await.unwrap();
    assert_eq!(client.find(&light).await.unwrap(), None);
    let gone = client.device_info(&light).await;
    assert!(matches!(gone, Err(CloudError::Code { code: 5052, .. })), "{gone:?}");
    assert_eq!(rig.cloud.counters().unbinds["p11abc/LIGHT001"], 1);
}

#[tokio::test]
async fn the_codes_of_families_are_reached() {
    let rig = Rig::demo().await;
    let client = rig.client();
    let bind_into = async |family: Option<&str>, room: Option<&str>| {
        let mut bind = request(&device("p11abc", "LIGHT001"));
        bind.family_id = family.map(str::to_owned);
        bind.room_id = room.map(str::to_owned);
        match client.bind(&bind).await {
            Err(CloudError::Code { code, .. }) => code,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(bind_into(Some("f-none"), None).await, 5636);
    assert_eq!(bind_into(None, Some("r-hall")).await, 5618);
    rig.cloud.change(|scenario| scenario.families[0].role = 3);
    assert_eq!(bind_into(Some("f-demo"), None).await, 5669);
    rig.cloud.change(|scenario| scenario.users[0].family_mode = false);
    assert_eq!(bind_into(Some("f-demo"), None).await, 5624);
}
