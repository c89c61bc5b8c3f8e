//! What no tenant can do: change the simulated cloud from outside, under `/sim/`. JSON bodies, snake_case.

use jiff::SignedDuration;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::fault::Fault;
use super::routes::Call;
use super::scenario::{Device, Product, Switches};
use super::world::{Refusal, World};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    product_key: String,
    device_key: String,
}

fn body<T: DeserializeOwned>(call: &Call) -> Result<T, Refusal> {
    serde_json::from_value(call.body().clone())
        .map_err(|error| Refusal { code: 5000, message: format!("bad back door call: {error}") })
}

/// The device reports a binding code, good for `seconds` or for ever.
pub(super) fn report_code(world: &mut World, call: &Call) -> Result<Value, Refusal> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Report {
        product_key: String,
        device_key: String,
        binding_code: String,
        seconds: Option<i64>,
    }
    let report: Report = body(call)?;
    let expires = report.seconds.map(|seconds| world.now() + SignedDuration::from_secs(seconds));
    let device = world.devices.get_mut(&(report.product_key, report.device_key)).ok_or(5314)?;
    device.facts.binding_code = Some(report.binding_code);
    device.code_expires_at = expires;
    Ok(Value::Null)
}

/// The binding window passes now.
pub(super) fn expire_code(world: &mut World, call: &Call) -> Result<Value, Refusal> {
    let which: Which = body(call)?;
    let now = world.now();
    world.devices.get_mut(&(which.product_key, which.device_key)).ok_or(5314)?.code_expires_at = Some(now);
    Ok(Value::Null)
}

/// Adds a device, or replaces one with all its facts: region, verified, secret_reported, code.
pub(super) fn put_device(world: &mut World, call: &Call) -> Result<Value, Refusal> {
    let device: Device = body(call)?;
    world.put_device(device);
    Ok(Value::Null)
}

/// Adds or replaces a product, and authorises every domain for it.
pub(super) fn put_product(world: &mut World, call: &Call) -> Result<Value, Refusal> {
    let product: Product = body(call)?;
    for domain in &mut world.scenario.domains {
        if !domain.products.contains(&product.key) {
            domain.products.push(product.key.clone());
        }
    }
    world.scenario.products.retain(|other| other.key != product.key);
    world.scenario.products.push(product);
    Ok(Value::Null)
}

/// Changes single facts of a device.
pub(super) fn change_device(world: &mut World, call: &Call) -> Result<Value, Refusal> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Change {
        product_key: String,
        device_key: String,
        region: Option<String>,
        verified: Option<bool>,
        secret_reported: Option<bool>,
    }
    let change: Change = body(call)?;
    let facts = &mut world.devices.get_mut(&(change.product_key, change.device_key)).ok_or(5314)?.facts;
    facts.region = change.region.or(facts.region.take());
    facts.verified = change.verified.unwrap_or(facts.verified);
    facts.secret_reported = change.secret_reported.unwrap_or(facts.secret_reported);
    Ok(Value::Null)
}

/// All tokens, or one account's, are worthless from now on.
pub(super) fn revoke_tokens(world: &mut World, call: &Call) -> Result<Value, Refusal> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Whose {
        email: Option<String>,
    }
    let whose: Whose = body(call)?;
    world.revoke_tokens(whose.email.as_deref(), None);
    Ok(Value::Null)
}

/// The simulated clock goes on by `seconds`.
pub(super) fn advance_clock(world: &mut World, call: &Call) -> Result<Value, Refusal> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Advance {
        seconds: i64,
    }
    let advance: Advance = body(call)?;
    world.offset = world.offset.saturating_add(SignedDuration::from_secs(advance.seconds));
    Ok(json!({ "now": world.now() }))
}

pub(super) fn queue_fault(world: &mut World, call: &Call) -> Result<Value, Refusal> {
    let fault: Fault = body(call)?;
    world.faults.push_back(fault);
    Ok(Value::Null)
}

/// Replaces all switches; left-out ones get their defaults.
pub(super) fn set_switches(world: &mut World, call: &Call) -> Result<Value, Refusal> {
    let switches: Switches = body(call)?;
    world.scenario.switches = switches;
    Ok(Value::Null)
}

/// Removes every account's binding of a device, as an operator of the cloud could.
pub(super) fn drop_binding(world: &mut World, call: &Call) -> Result<Value, Refusal> {
    let which: Which = body(call)?;
    world.bindings.retain(|row| row.product_key != which.product_key || row.device_key != which.device_key);
    Ok(Value::Null)
}

/// Overwrites fields of a binding's `matterInfo`: a drift.
pub(super) fn change_matter_info(world: &mut World, call: &Call) -> Result<Value, Refusal> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Change {
        product_key: String,
        device_key: String,
        matter_info: serde_json::Map<String, Value>,
    }
    let change: Change = body(call)?;
    let mut rows = world.bindings.iter_mut();
    let row =
        rows.find(|row| row.product_key == change.product_key && row.device_key == change.device_key).ok_or(5052)?;
    if let Some(info) = row.matter_info.as_object_mut() {
        info.extend(change.matter_info);
    }
    Ok(Value::Null)
}

/// What is bound, what was counted, what still waits.
pub(super) fn state(world: &mut World, _: &Call) -> Result<Value, Refusal> {
    let devices: Vec<&Device> = world.devices.values().map(|device| &device.facts).collect();
    Ok(json!({
        "now": world.now(), "bindings": world.bindings, "devices": devices, "counters": world.counters,
        "faults": world.faults, "switches": world.scenario.switches
    }))
}
