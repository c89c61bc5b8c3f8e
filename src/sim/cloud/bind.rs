//! `deviceBindingByWifi`: the check table of cloud-contract 7, step by step.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::routes::Call;
use super::scenario::{Device, IdStorage, User};
use super::world::{Binding, Refusal, World};

const BODY: &[&str] = &[
    "bindingCode",
    "capabilitiesBitmask",
    "deviceKey",
    "deviceName",
    "fid",
    "frid",
    "isCommonDevice",
    "isMatter",
    "matterInfo",
    "productKey",
];
const MATTER: &[&str] =
    &["catList", "discriminator", "extra", "fabricId", "matterProductId", "matterVendorId", "matterVersion", "nodeId"];
const CAT: &[&str] = &["cat", "privilege"];
/// Legacy code 5069 names this limit.
const MAX_NAME: usize = 254;
/// Numbers among `matterInfo`, in the order of their codes.
const MATTER_NUMBERS: [(&str, i64); 5] = [
    ("discriminator", 5879),
    ("matterProductId", 5880),
    ("matterVendorId", 5882),
    ("fabricId", 5883),
    ("nodeId", 5885),
];

pub(super) fn device_binding_by_wifi(world: &mut World, call: &Call) -> Result<Value, Refusal> {
    let user = world.caller(call.token())?;
    let body = call.body().as_object().ok_or_else(|| unreadable("no object"))?;
    check_types(body, world.switches().strict)?;
    let text = |key: &str| body.get(key).and_then(Value::as_str).filter(|text| !text.trim().is_empty());
    let pk = text("productKey").ok_or(5066)?;
    let dk = text("deviceKey").ok_or(5067)?;
    let code = text("bindingCode").ok_or(5179)?;
    check_formats(dk, code, text("deviceName").unwrap_or_default())?;
    check_matter(body, world.switches().zero_discriminator_missing)?;
    check_home(world, &user, text("fid"), text("frid"))?;
    let mode = check_device(world, &user, pk, dk)?;
    check_bindings(world, &user, pk, dk, mode)?;
    check_code(world, pk, dk, code)?;

    if mode == 3 {
        // Rotation evicts whoever has it, within one App only (cloud-contract 3.1).
        world.bindings.retain(|row| row.domain != user.domain || row.product_key != pk || row.device_key != dk);
    }
    let auth_key = STANDARD.encode(rand::random::<[u8; 16]>());
    let is_matter = body.get("isMatter").and_then(Value::as_bool).unwrap_or(false);
    let product_name = world.product(pk).map(|product| product.name.clone()).unwrap_or_default();
    world.bindings.push(Binding {
        email: user.email,
        domain: user.domain,
        product_key: pk.to_owned(),
        device_key: dk.to_owned(),
        device_name: text("deviceName").unwrap_or(&product_name).to_owned(),
        family_id: text("fid").map(str::to_owned),
        room_id: text("frid").map(str::to_owned),
        capabilities_bitmask: body.get("capabilitiesBitmask").and_then(Value::as_i64),
        is_matter,
        matter_info: store(body.get("matterInfo").unwrap_or(&Value::Null), world.switches().id_storage),
        auth_key: auth_key.clone(),
    });
    if let Some(device) = world.devices.get_mut(&(pk.to_owned(), dk.to_owned())) {
        device.facts.binding_code = None;
    }
    *world.counters.commits.entry(format!("{pk}/{dk}")).or_default() += 1;
    Ok(json!({ "authKey": auth_key, "bindingMode": mode, "productLogo": "", "productName": product_name }))
}

fn unreadable(what: &str) -> Refusal {
    Refusal { code: 5000, message: format!("JSON parse error: {what}") }
}

/// Unknown fields, and values of another type than the seed's.
fn check_types(body: &Map<String, Value>, strict: bool) -> Result<(), Refusal> {
    check_fields(body, BODY, strict)?;
    if let Some(info) = body.get("matterInfo").filter(|info| !info.is_null()) {
        let info = info.as_object().ok_or_else(|| unreadable("matterInfo"))?;
        check_fields(info, MATTER, strict)?;
        for cat in info.get("catList").and_then(Value::as_array).into_iter().flatten() {
            check_fields(cat.as_object().ok_or_else(|| unreadable("catList"))?, CAT, strict)?;
        }
    }
    Ok(())
}

fn check_fields(object: &Map<String, Value>, known: &[&str], strict: bool) -> Result<(), Refusal> {
    for (key, value) in object {
        let right_type = match key.as_str() {
            _ if value.is_null() => true,
            "isMatter" | "isCommonDevice" => value.is_boolean(),
            "matterInfo" => value.is_object(),
            "catList" => value.is_array(),
            "privilege" => matches!(value.as_str(), Some("View" | "Operate" | "Administer")),
            "capabilitiesBitmask" => value.as_i64().is_some_and(|mask| (1..=15).contains(&mask)),
            "cat" => value.is_u64(),
            number if MATTER_NUMBERS.iter().any(|(name, _)| *name == number) => value.is_u64() || value.is_i64(),
            known_text if known.contains(&known_text) => value.is_string(),
            _ => !strict,
        };
        if !right_type {
            return Err(unreadable(key));
        }
    }
    Ok(())
}

fn check_formats(dk: &str, code: &str, name: &str) -> Result<(), Refusal> {
    if !(4..=32).contains(&dk.len()) || !dk.chars().all(|c| c.is_ascii_alphanumeric()) {
        return Err(5361.into());
    }
    if code.len() != 16 || !code.chars().all(|c| matches!(c, '0'..='9' | 'A'..='F')) {
        return Err(5213.into());
    }
    if name.chars().count() > MAX_NAME { Err(5333.into()) } else { Ok(()) }
}

fn check_matter(body: &Map<String, Value>, zero_discriminator_missing: bool) -> Result<(), Refusal> {
    if body.get("isMatter") != Some(&Value::Bool(true)) {
        return Ok(());
    }
    let info = body.get("matterInfo").and_then(Value::as_object).ok_or(5879)?;
    let missing = |key: &str| info.get(key).is_none_or(Value::is_null);
    for (key, code) in MATTER_NUMBERS {
        let zero = key == "discriminator" && zero_discriminator_missing && info.get(key) == Some(&json!(0));
        if missing(key) || zero {
            return Err(code.into());
        }
        if key == "matterProductId"
            && info.get("matterVersion").and_then(Value::as_str).is_none_or(|v| v.trim().is_empty())
        {
            return Err(5881.into());
        }
    }
    Ok(())
}

/// Codes that the page does not list and its siblings do (cloud-contract 3.2).
pub(super) fn check_home(world: &World, user: &User, fid: Option<&str>, frid: Option<&str>) -> Result<(), Refusal> {
    let Some(fid) = fid else { return if frid.is_some() { Err(5618.into()) } else { Ok(()) } };
    if !user.family_mode {
        return Err(5624.into());
    }
    let family = world.family(&user.email, fid).ok_or(5636)?;
    if family.role == 3 {
        return Err(5669.into());
    }
    match frid {
        Some(frid) if !family.rooms.iter().any(|room| room.id == frid) => Err(5041.into()),
        _ => Ok(()),
    }
}

/// Step 5; the binding mode where the device may be bound at all.
pub(super) fn check_device(world: &mut World, user: &User, pk: &str, dk: &str) -> Result<u8, Refusal> {
    let authorised = world
        .scenario
        .domains
        .iter()
        .any(|domain| domain.id == user.domain && domain.products.iter().any(|key| key == pk));
    if !authorised {
        return Err(5229.into());
    }
    let product = world.product(pk).ok_or(5314)?.clone();
    let id = (pk.to_owned(), dk.to_owned());
    if product.auto_devices && !world.devices.contains_key(&id) {
        world.put_device(Device {
            product_key: id.0.clone(),
            device_key: id.1.clone(),
            region: None,
            verified: true,
            secret_reported: true,
            binding_code: None,
            code_seconds: None,
        });
    }
    let device = world.devices.get(&id);
    if device.and_then(|device| device.facts.region.as_ref()).is_some_and(|region| *region != world.scenario.region) {
        return Err(6083.into());
    }
    let device = device.ok_or(5314)?;
    if device.facts.verified { Ok(product.binding_mode) } else { Err(5009.into()) }
}

/// Step 6.
pub(super) fn check_bindings(world: &World, user: &User, pk: &str, dk: &str, mode: u8) -> Result<(), Refusal> {
    if world.binding(&user.email, pk, dk).is_some() {
        return Err(5049.into());
    }
    let other =
        world.bindings.iter().any(|row| row.product_key == pk && row.device_key == dk && row.domain == user.domain);
    if mode == 2 && other { Err(5412.into()) } else { Ok(()) }
}

/// Step 7.
fn check_code(world: &World, pk: &str, dk: &str, code: &str) -> Result<(), Refusal> {
    let device = world.devices.get(&(pk.to_owned(), dk.to_owned())).ok_or(5314)?;
    if !device.facts.secret_reported {
        return Err(5465.into());
    }
    let any_code = world.product(pk).is_some_and(|product| product.any_code);
    let Some(reported) = &device.facts.binding_code else {
        return if any_code { Ok(()) } else { Err(5460.into()) };
    };
    if device.code_expires_at.is_some_and(|deadline| deadline <= world.now()) {
        return Err(5461.into());
    }
    if reported == code { Ok(()) } else { Err(5462.into()) }
}

/// `matterInfo` as the column's type keeps it.
pub(super) fn store(info: &Value, storage: IdStorage) -> Value {
    match info {
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(id), _) => bend(id, storage),
            (None, Some(id)) => bend(id.cast_unsigned(), storage),
            (None, None) => info.clone(),
        },
        Value::Array(items) => items.iter().map(|item| store(item, storage)).collect(),
        Value::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), store(value, storage))).collect(),
        _ => info.clone(),
    }
}

fn bend(id: u64, storage: IdStorage) -> Value {
    match storage {
        IdStorage::I32 => json!(id as i32),
        IdStorage::I64 => json!(id.cast_signed()),
        IdStorage::F64 => json!(id as f64 as u64),
        IdStorage::U64 => json!(id),
    }
}
