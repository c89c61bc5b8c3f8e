use serde_json::json;

use super::*;
use crate::bind::{BindOptions, MatterInfo};
use crate::fabric::{Cat, CatGrant, Privilege};
use crate::node::{FabricId, NodeId};
use crate::secret::BindingCode;

fn request() -> BindRequest {
    BindRequest {
        device: CloudDevice { product_key: "p11abc".to_owned(), device_key: "00AB".to_owned() },
        binding_code: BindingCode::new("0123456789ABCDEF"),
        device_name: None,
        family_id: Some(String::new()),
        room_id: None,
        capabilities_bitmask: 2,
        options: BindOptions::default(),
        matter_info: MatterInfo {
            fabric_id: FabricId(7),
            node_id: NodeId(9),
            vendor_id: 0xFFF1,
            product_id: 0x8000,
            discriminator: Some(0),
            matter_version: "1.4".to_owned(),
            cats: vec![CatGrant { cat: Cat::new(0x0002_0001).unwrap(), privilege: Privilege::Operate }],
        },
    }
}

#[test]
fn the_bind_is_written_as_the_seed_wants_it() {
    let request = request();
    assert_eq!(
        serde_json::to_value(BindBody::new(&request).unwrap()).unwrap(),
        json!({
            "bindingCode": "0123456789ABCDEF", "capabilitiesBitmask": 10, "deviceKey": "00AB", "productKey": "p11abc",
            "isCommonDevice": true, "isMatter": true,
            "matterInfo": {
                "catList": [{ "cat": 131_073, "privilege": "Operate" }], "discriminator": 0, "fabricId": 7,
                "matterProductId": 32768, "matterVendorId": 65521, "matterVersion": "1.4", "nodeId": 9
            }
        })
    );
}

#[test]
fn what_a_profile_wants_otherwise_is_sent() {
    let mut request = request();
    request.options = BindOptions { extra: Some("{\"zone\":1}".to_owned()), is_common_device: false };
    let body = serde_json::to_value(BindBody::new(&request).unwrap()).unwrap();
    assert_eq!((&body["isCommonDevice"], &body["matterInfo"]["extra"]), (&json!(false), &json!("{\"zone\":1}")));
}

#[test]
fn ids_that_the_service_cannot_hold_are_not_sent() {
    let mut wide = request();
    wide.matter_info.node_id = NodeId(u64::MAX);
    assert!(matches!(BindBody::new(&wide), Err(CloudError::Code { code: 5885, .. })));
    let mut none = request();
    none.matter_info.fabric_id = FabricId(0);
    assert!(matches!(BindBody::new(&none), Err(CloudError::Code { code: 5883, .. })));
}

#[test]
fn ids_are_read_from_numbers_and_strings_and_never_from_fractions() {
    let read = |value: Value| serde_json::from_value::<LooseId>(value).unwrap();
    assert_eq!(read(json!(5)).value, Some(5));
    assert_eq!(read(json!("18446744004990074879")).value, Some(18_446_744_004_990_074_879));
    assert_eq!(read(json!(u64::MAX)).value, Some(u64::MAX));
    assert_eq!(read(json!(-1)), LooseId { value: Some(u64::MAX), was_negative: true });
    assert_eq!(read(json!("-1")), LooseId { value: Some(u64::MAX), was_negative: true });
    for bad in [json!(1.0), json!(1e3), json!("1e3"), json!("0x10"), json!(null), json!([]), json!({}), json!(true)] {
        assert_eq!(read(bad.clone()).value, None, "{bad}");
    }
}

#[test]
fn a_record_is_read_whatever_its_types() {
    let record = |matter: Value, flag: Value| {
        serde_json::from_value::<RecordData>(json!({
            "productKey": "p", "deviceKey": "00123", "deviceName": null, "status": "1", "deviceType": 1, "isMatter": flag,
            "matterInfo": matter, "bindMode": 0, "unknown": { "x": [] }, "authKey": ""
        }))
        .unwrap()
        .into_record()
        .unwrap()
    };
    for (flag, expected) in [
        (json!(0), false),
        (json!(1), true),
        (json!(true), true),
        (json!(false), false),
        (json!("0"), false),
        (json!("1"), true),
        (json!(null), false),
        (json!([]), false),
    ] {
        assert_eq!(record(json!(null), flag).is_matter, expected);
    }
    let whole = record(
        json!({ "fabricId": "7", "nodeId": 9, "matterVendorId": 65521, "matterProductId": 32768, "discriminator": 0,
                "matterVersion": "1.4", "catList": [{ "cat": 131_073, "privilege": "Operate" }, 5] }),
        json!(1),
    );
    assert_eq!((whole.status, whole.binding_mode, whole.auth_key), (Some(1), None, None));
    assert_eq!(request().matter_info.differences(&whole.matter_info.unwrap()), []);
    let bent = record(json!({ "fabricId": 7.0, "nodeId": -9, "catList": null }), json!(1)).matter_info.unwrap();
    let fields: Vec<String> = request().matter_info.differences(&bent).into_iter().map(|row| row.field).collect();
    assert_eq!(fields, ["fabric_id", "node_id", "vendor_id", "product_id", "discriminator", "matter_version", "cats"]);
}

#[test]
fn an_envelope_needs_nothing_but_a_code() {
    assert_eq!(Envelope::parse(b"{\"code\":\"5032\"}").unwrap().code, 5032);
    assert_eq!(Envelope::parse(b"{\"code\":200,\"data\":null,\"msg\":null}").unwrap().message, "");
    for garbage in ["", "<html>", "[]", "{}", "{\"code\":null}", "{\"code\":200.0}", "{\"code\":200"] {
        assert!(Envelope::parse(garbage.as_bytes()).is_none(), "{garbage}");
    }
}

#[test]
fn a_cat_from_a_signed_column_is_read_as_it_was_sent() {
    assert_eq!(narrow_cat(LooseId::read(&json!(0x8000_0001_u32.cast_signed()))), Some(0x8000_0001));
}
