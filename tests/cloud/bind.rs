//! Every outcome of a bind: success, each code of the seed, and what nobody can know.

use std::collections::BTreeSet;

use matterbind::facade::bind::{CloudDevice, codes};
use matterbind::facade::cloud::Client;
use matterbind::facade::node::{FabricId, NodeId};
use matterbind::facade::outbox::ports::{BindApi, CloudError};
use matterbind::facade::sim::cloud::{Fault, FaultKind, IdStorage, Scenario};
use serde_json::{Value, json};

use crate::rig::{CODE, Rig, device, request, scenario};

fn demo_device() -> CloudDevice {
    device("p11abc", "00ABCDEF01")
}

fn code_of<T: std::fmt::Debug>(outcome: Result<T, CloudError>) -> i64 {
    match outcome {
        Err(CloudError::Code { code, .. }) => code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_bind_succeeds_and_reads_back_as_it_was_sent() {
    let rig = Rig::demo().await;
    let client = rig.client();
    let request = request(&demo_device());
    let receipt = client.bind(&request).await.unwrap();
    assert_eq!(receipt.binding_mode, Some(1));
    assert_eq!(receipt.product_name.as_deref(), Some("Demo light"));
    let record = client.find(&request.device).await.unwrap().unwrap();
    assert_eq!(request.matter_info.differences(record.matter_info.as_ref().unwrap()), []);
    assert!(record.is_matter);
    assert_eq!(record.device_name, request.device_name);
    assert_eq!((record.status, record.device_type, record.auth_key), (Some(1), Some(1), receipt.auth_key));
    assert_eq!(rig.cloud.bindings()[0].capabilities_bitmask, Some(10));
    let health = client.health();
    assert_eq!((health.reachable, health.last_error), (Some(true), None));
    assert!(health.token_expires_at.is_some());
}

/// The codes that the service itself comes to, from the state of device, product and account.
#[tokio::test]
async fn every_code_that_depends_on_the_device_is_reached() {
    let rig = Rig::start(scenario("every-code")).await;
    let client = rig.client();
    let mut other = rig.config.clone();
    other.email = "other@example.com".to_owned();
    other.password_file = rig.secrets.path().join("other-password");
    std::fs::write(&other.password_file, "other-password").unwrap();
    let other = Client::new(&other, matterbind::facade::cloud::MemoryTokens::default()).unwrap();

    client.bind(&request(&device("pstrict", "GOOD0001"))).await.unwrap();
    other.bind(&request(&device("punique", "LOCK0001"))).await.unwrap();
    let mut long_name = request(&device("p11abc", "NAME0001"));
    long_name.device_name = Some("x".repeat(255));
    let mut bad_code = request(&device("p11abc", "CODE0001"));
    bad_code.binding_code = matterbind::facade::secret::BindingCode::new("0123456789abcdef");
    let cases = [
        (5049, request(&device("pstrict", "GOOD0001"))),
        (5412, request(&device("punique", "LOCK0001"))),
        (5009, request(&device("pstrict", "UNVERIFIED1"))),
        (5460, request(&device("pstrict", "NOCODE01"))),
        (5461, request(&device("pstrict", "EXPIRED1"))),
        (5462, request(&device("pstrict", "MISMATCH1"))),
        (5465, request(&device("pstrict", "NOSECRET1"))),
        (6083, request(&device("pstrict", "ELSEWHERE1"))),
        (5229, request(&device("pother", "AAAA0001"))),
        (5314, request(&device("pghost", "AAAA0001"))),
        (5314, request(&device("pstrict", "UNKNOWN1"))),
        (5361, request(&device("p11abc", "no-dk!"))),
        (5333, long_name),
        (5213, bad_code),
        (5066, request(&device("", "AAAA0001"))),
        (5067, request(&device("p11abc", " "))),
    ];
    for (expected, request) in cases {
        assert_eq!(code_of(client.bind(&request).await), expected, "{:?}", request.device);
    }
    assert_eq!(rig.cloud.counters().commits.len(), 2);
}

/// What our writer never leaves out is missing here: the reference cloud finds each of it.
#[tokio::test]
async fn every_code_for_a_missing_field_is_reached() {
    let rig = Rig::demo().await;
    let token = rig.sign_in_by_hand().await;
    let whole = json!({
        "bindingCode": CODE, "deviceKey": "AAAA0001", "productKey": "p11abc", "isMatter": true, "capabilitiesBitmask": 10,
        "matterInfo": { "discriminator": 0, "fabricId": 1, "nodeId": 2, "matterProductId": 3, "matterVendorId": 4, "matterVersion": "1.4" }
    });
    let without = |path: &str| {
        let mut body = whole.clone();
        *body.pointer_mut(path).unwrap() = Value::Null;
        body
    };
    for (expected, body) in [
        (5066, without("/productKey")),
        (5067, without("/deviceKey")),
        (5179, without("/bindingCode")),
        (5879, without("/matterInfo")),
        (5879, without("/matterInfo/discriminator")),
        (5880, without("/matterInfo/matterProductId")),
        (5881, without("/matterInfo/matterVersion")),
        (5882, without("/matterInfo/matterVendorId")),
        (5883, without("/matterInfo/fabricId")),
        (5885, without("/matterInfo/nodeId")),
        (200, whole.clone()),
    ] {
        assert_eq!(rig.post_bind(Some(&token), &body).await["code"], expected, "{body}");
    }
    assert_eq!(rig.post_bind(None, &whole).await["code"], 5106);
    assert_eq!(rig.post_bind(Some("Bearer nonsense"), &whole).await["code"], 5032);
    let mut odd = whole.clone();
    odd["matterinfo"] = json!(1);
    assert_eq!(rig.post_bind(Some(&token), &odd).await["code"], 5000);
}

/// Each of the 26 comes through the client as itself, and has its row.
#[tokio::test]
async fn every_code_of_the_seed_is_mapped() {
    let rig = Rig::demo().await;
    let client = rig.client();
    let request = request(&demo_device());
    let mut seen = BTreeSet::new();
    for row in codes::CODES.iter().filter(|row| row.in_seed) {
        let kind = FaultKind::Code { code: row.code };
        // A token that stays refused is replayed after a refresh and after a sign-in.
        rig.cloud.fault(Fault { times: if matches!(row.code, 5032 | 5106) { 3 } else { 1 }, ..Fault::of_bind(kind) });
        match client.bind(&request).await {
            Ok(_) => assert_eq!(row.code, 200),
            Err(CloudError::Code { code, message }) => assert_eq!((code, message.as_str()), (row.code, row.message)),
            Err(other) => panic!("{}: {other:?}", row.code),
        }
        assert_eq!(codes::meaning_of(row.code), row);
        seen.insert(row.code);
    }
    assert_eq!(seen.len(), 26);
    assert!(rig.cloud.bindings().is_empty());
    for code in [5000, 5624, 5636, 5669, 5893, 6040, 77_777] {
        rig.cloud.fault(Fault::of_bind(FaultKind::Code { code }));
        assert_eq!(code_of(client.bind(&request).await), code);
    }
}

#[tokio::test]
async fn what_cannot_be_known_is_ambiguous_and_the_read_back_settles_it() {
    let rig = Rig::demo().await;
    let client = rig.client();
    client.list().await.unwrap();
    let hasty = rig.hasty_client();
    let kinds = [
        FaultKind::Drop,
        FaultKind::Http { status: 500 },
        FaultKind::Http { status: 200 },
        FaultKind::Garbage,
        FaultKind::Code { code: 0 },
        FaultKind::Delay { delay_ms: 60_000 },
    ];
    for (index, kind) in kinds.into_iter().enumerate() {
        for after_commit in [false, true] {
            let request = request(&device("p11abc", &format!("AAAA{index}{after_commit}")));
            let late = matches!(kind, FaultKind::Delay { .. });
            rig.cloud.fault(Fault { after_commit, ..Fault::of_bind(kind.clone()) });
            let outcome = if late { hasty.bind(&request).await } else { client.bind(&request).await };
            assert!(outcome.as_ref().is_err_and(CloudError::may_hide_success), "{kind:?} {after_commit}: {outcome:?}");
            let record = client.find(&request.device).await.unwrap();
            assert_eq!(record.is_some(), after_commit, "{kind:?}");
            let again = client.bind(&request).await;
            assert_eq!(again.is_ok(), !after_commit, "{kind:?}: {again:?}");
        }
    }
    assert!(rig.cloud.counters().commits.values().all(|count| *count == 1), "{:?}", rig.cloud.counters());
}

/// The worst case: the read-back sees nothing, and the bind takes effect afterwards. The next try is told so.
#[tokio::test]
async fn a_bind_that_takes_effect_late_is_found_by_the_next_try() {
    let rig = Rig::demo().await;
    let client = rig.client();
    client.list().await.unwrap();
    let hasty = rig.hasty_client();
    let request = request(&demo_device());
    rig.cloud.fault(Fault::of_bind(FaultKind::Delay { delay_ms: 2000 }));
    assert!(matches!(hasty.bind(&request).await, Err(CloudError::Ambiguous { .. })));
    while rig.cloud.counters().commits.is_empty() {
        tokio::task::yield_now().await;
    }
    let code = code_of(client.bind(&request).await);
    assert!(codes::meaning_of(code).ambiguous);
    assert!(client.find(&request.device).await.unwrap().is_some());
    assert_eq!(rig.cloud.counters().commits["p11abc/00ABCDEF01"], 1);
}

#[tokio::test]
async fn nothing_sent_is_told_apart_from_nothing_answered() {
    let rig = Rig::demo().await;
    let mut config = rig.config.clone();
    let unused = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    config.base_url = format!("http://{}", unused.local_addr().unwrap());
    drop(unused);
    // No listener, no name, and no TLS at the other end.
    let no_tls = rig.config.base_url.replace("http:", "https:");
    for base_url in [config.base_url.clone(), "http://no-such-host.invalid".to_owned(), no_tls] {
        config.base_url = base_url;
        let client = Client::new(&config, rig.tokens.clone()).unwrap();
        let outcome = client.bind(&request(&demo_device())).await;
        assert!(matches!(outcome, Err(CloudError::NotSent { .. })), "{outcome:?}");
        assert_eq!(client.health().reachable, Some(false));
    }
    // A sign-in without an answer says for certain that the bind was not sent.
    rig.cloud.fault(Fault::of_bind(FaultKind::Drop).on("emailPwdLogin"));
    let outcome = rig.client().bind(&request(&demo_device())).await;
    assert!(matches!(outcome, Err(CloudError::NotSent { .. })), "{outcome:?}");
    assert!(rig.cloud.bindings().is_empty());
}

#[tokio::test]
async fn a_status_without_a_code_and_a_success_that_claims_code_0() {
    let rig = Rig::demo().await;
    let client = rig.client();
    let request = request(&demo_device());
    rig.cloud.fault(Fault::of_bind(FaultKind::Http { status: 429 }));
    let refused = client.bind(&request).await;
    assert!(matches!(&refused, Err(CloudError::Foreign { answer, sent: true }) if answer.status == 429), "{refused:?}");
    // The cloud asked for patience, so nothing is sent, until a person asks again.
    let early = client.bind(&request).await;
    assert!(matches!(&early, Err(CloudError::Foreign { answer, sent: false }) if answer.status == 429), "{early:?}");
    assert_eq!(rig.cloud.counters().requests.get("deviceBindingByWifi"), Some(&1));
    client.forget_refusals().await;
    rig.cloud.change(|scenario| scenario.switches.error_status = 400);
    rig.cloud.fault(Fault::of_bind(FaultKind::Code { code: 5229 }));
    assert_eq!(code_of(client.bind(&request).await), 5229);
    rig.cloud.change(|scenario| scenario.switches.success_code_zero = true);
    assert!(matches!(client.bind(&request).await, Err(CloudError::Ambiguous { .. })));
    rig.cloud.change(|scenario| scenario.switches.success_code_zero = false);
    assert!(client.find(&request.device).await.unwrap().is_some());
}

#[tokio::test]
async fn ids_that_the_cloud_bends_are_noticed() {
    for (storage, id, expected) in [
        (IdStorage::I32, 1000, 0),
        (IdStorage::I32, 0x1_0000_0005, 2),
        (IdStorage::I32, 0x8000_0000, 2),
        (IdStorage::F64, (1 << 53) - 1, 0),
        (IdStorage::F64, (1 << 53) + 1, 2),
        (IdStorage::I64, i64::MAX as u64, 0),
        (IdStorage::U64, i64::MAX as u64, 0),
    ] {
        for ids_as_strings in [false, true] {
            let mut scenario = Scenario::default();
            scenario.switches.id_storage = storage;
            scenario.switches.ids_as_strings = ids_as_strings;
            scenario.switches.list_without_matter_info = ids_as_strings;
            scenario.switches.matter_flag_as_integer = !ids_as_strings;
            let rig = Rig::start(scenario).await;
            let client = rig.client();
            let mut request = request(&demo_device());
            request.matter_info.fabric_id = FabricId(id);
            request.matter_info.node_id = NodeId(id);
            client.bind(&request).await.unwrap();
            let record = client.find(&request.device).await.unwrap().unwrap();
            let differences = request.matter_info.differences(&record.matter_info.unwrap());
            assert_eq!(differences.len(), expected, "{storage:?} {id}: {differences:?}");
        }
    }
}

#[tokio::test]
async fn a_discriminator_of_0_is_sent_even_where_the_cloud_will_not_have_it() {
    let rig = Rig::start(scenario("narrow-ids")).await;
    assert_eq!(code_of(rig.client().bind(&request(&demo_device())).await), 5879);
}

#[tokio::test]
async fn a_rotation_product_evicts_and_the_preview_says_so() {
    let rig = Rig::start(scenario("every-code")).await;
    let client = rig.client();
    let bike = device("protate", "BIKE0001");
    assert_eq!(client.preview(&bike).await.unwrap().binding_mode, Some(3));
    client.bind(&request(&bike)).await.unwrap();
    assert_eq!(code_of(client.preview(&bike).await), 5049);
    assert_eq!(code_of(client.preview(&device("pother", "AAAA0001")).await), 5229);
}
