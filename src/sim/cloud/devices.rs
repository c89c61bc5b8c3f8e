//! Records, lists, rename and unbind (cloud-contract 3.2).

use serde_json::{Value, json};

use super::bind;
use super::routes::Call;
use super::world::{Binding, Refusal, World};

pub(super) fn get_device_info_by_binding(world: &mut World, call: &Call) -> Result<Value, Refusal> {
    let user = world.caller(call.token())?;
    let pk = call.required("pk", 5066)?;
    let product = world.product(pk).ok_or(5229)?.clone();
    bind::check_home(world, &user, call.param("fid"), None)?;
    if let Some(dk) = call.param("dk") {
        if call.param("checkExistInCloud") != Some("false") {
            bind::check_device(world, &user, pk, dk)?;
        }
        // An owner product that another account has: this page has 5049 for it, not 5412.
        bind::check_bindings(world, &user, pk, dk, product.binding_mode).map_err(|_| Refusal::from(5049))?;
    }
    Ok(json!({
        "activeBluetooth": false, "bindingMode": product.binding_mode, "productLogo": "", "productName": product.name
    }))
}

pub(super) fn device_info(world: &mut World, call: &Call) -> Result<Value, Refusal> {
    let user = world.caller(call.token())?;
    let (pk, dk) = (call.required("pk", 5140)?, call.required("dk", 5140)?);
    let binding = world.binding(&user.email, pk, dk).ok_or(5052)?;
    Ok(record(world, binding, true))
}

pub(super) fn user_device_list(world: &mut World, call: &Call) -> Result<Value, Refusal> {
    let user = world.caller(call.token())?;
    let pks: Option<Vec<&str>> = call.param("pkList").map(|list| list.split(',').collect());
    let dk = call.param("dk");
    let name = call.param("deviceName").unwrap_or_default();
    let number =
        |key: &str, default: usize| call.param(key).and_then(|text| text.parse().ok()).unwrap_or(default).max(1);
    let (page, size) = (number("page", 1), number("pageSize", 10));
    let rows: Vec<&Binding> = world
        .bindings
        .iter()
        .filter(|row| row.email == user.email && row.device_name.contains(name))
        .filter(|row| dk.is_none_or(|dk| row.device_key.contains(dk)))
        .filter(|row| pks.as_ref().is_none_or(|pks| pks.contains(&row.product_key.as_str())))
        .collect();
    let with_matter = !world.switches().list_without_matter_info;
    let list: Vec<Value> =
        rows.iter().skip((page - 1) * size).take(size).map(|row| record(world, row, with_matter)).collect();
    Ok(json!({
        "list": list, "total": rows.len(), "pageNum": page, "pageSize": size,
        "pages": rows.len().div_ceil(size), "hasNextPage": page * size < rows.len()
    }))
}

pub(super) fn unbundling_device_dk(world: &mut World, call: &Call) -> Result<Value, Refusal> {
    let user = world.caller(call.token())?;
    let pk = call.required("pk", 5066)?;
    let dk = call.required("dk", 5067)?;
    world.binding(&user.email, pk, dk).ok_or(5052)?;
    world.bindings.retain(|row| row.email != user.email || row.product_key != pk || row.device_key != dk);
    *world.counters.unbinds.entry(format!("{pk}/{dk}")).or_default() += 1;
    Ok(json!({ "bindingSum": 0 }))
}

pub(super) fn set_device_info(world: &mut World, call: &Call) -> Result<Value, Refusal> {
    let user = world.caller(call.token())?;
    let pk = call.required("pk", 5066)?;
    let dk = call.required("dk", 5067)?;
    let name = call.required("deviceName", 5068)?;
    if name.chars().count() > 254 {
        return Err(5333.into());
    }
    world.binding_mut(&user.email, pk, dk).ok_or(5041)?.device_name = name.to_owned();
    Ok(Value::Null)
}

/// A device record with the vendor's spelling and types (cloud-contract 3.2).
fn record(world: &World, row: &Binding, with_matter: bool) -> Value {
    let switches = world.switches();
    let is_matter =
        if switches.matter_flag_as_integer { json!(i64::from(row.is_matter)) } else { json!(row.is_matter) };
    let mut info = if with_matter { row.matter_info.clone() } else { Value::Null };
    if switches.ids_as_strings {
        for key in ["fabricId", "nodeId"] {
            if let Some(id) = info.get_mut(key) {
                *id = json!(id.to_string());
            }
        }
    }
    let product = world.product(&row.product_key);
    json!({
        "productKey": row.product_key, "deviceKey": row.device_key, "deviceName": row.device_name,
        "productName": product.map(|product| &product.name), "bindMode": product.map(|product| product.binding_mode),
        "bindStatus": 1, "status": 1, "deviceType": 1, "bindingType": 2, "isMatter": is_matter, "matterInfo": info,
        "authKey": row.auth_key, "fid": row.family_id, "frid": row.room_id, "uid": row.email, "verified": "1",
        "capabilitiesBitmask": row.capabilities_bitmask, "onlineStatus": 1, "invaildTime": null
    })
}
