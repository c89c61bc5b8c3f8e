//! Families (homes) and rooms (cloud-contract 3.2).

use serde_json::{Value, json};

use super::routes::Call;
use super::scenario::{Family, Room, User};
use super::world::{Refusal, World};

/// Characters of a family's name.
const MAX_FAMILY_NAME: usize = 256;
/// Characters of a room's name.
const MAX_ROOM_NAME: usize = 30;

/// The caller, if the account uses families.
fn member(world: &World, call: &Call) -> Result<User, Refusal> {
    let user = world.caller(call.token())?;
    if user.family_mode { Ok(user) } else { Err(5635.into()) }
}

pub(super) fn get_family_list(world: &mut World, call: &Call) -> Result<Value, Refusal> {
    let user = member(world, call)?;
    let own = world.scenario.families.iter().filter(|family| family.email == user.email);
    Ok(own.map(|family| json!({ "fid": family.id, "familyName": family.name, "memberRole": family.role })).collect())
}

pub(super) fn add_family(world: &mut World, call: &Call) -> Result<Value, Refusal> {
    let user = member(world, call)?;
    let name = call.body().get("familyName").and_then(Value::as_str).filter(|name| !name.is_empty()).ok_or(5613)?;
    if name.chars().count() > MAX_FAMILY_NAME {
        return Err(5616.into());
    }
    let id = world.fresh_id("f");
    let mut rooms = Vec::new();
    for room in
        call.body().get("familyRoomList").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
    {
        rooms.push(Room { id: world.fresh_id("r"), name: room.to_owned() });
    }
    world.scenario.families.push(Family { id: id.clone(), name: name.to_owned(), email: user.email, role: 1, rooms });
    Ok(json!({ "fid": id }))
}

pub(super) fn get_family_room_list(world: &mut World, call: &Call) -> Result<Value, Refusal> {
    let user = member(world, call)?;
    let family = world.family(&user.email, call.required("fid", 5618)?).ok_or(5041)?;
    Ok(family.rooms.iter().map(|room| json!({ "frid": room.id, "roomName": room.name })).collect())
}

pub(super) fn add_family_room(world: &mut World, call: &Call) -> Result<Value, Refusal> {
    let user = member(world, call)?;
    let fid = call.required("fid", 5618)?;
    let name = call.required("roomName", 5640)?;
    if name.chars().count() > MAX_ROOM_NAME {
        return Err(5642.into());
    }
    let id = world.fresh_id("r");
    let mut families = world.scenario.families.iter_mut();
    let family = families.find(|family| family.id == fid && family.email == user.email).ok_or(5041)?;
    family.rooms.push(Room { id: id.clone(), name: name.to_owned() });
    Ok(json!({ "frid": id }))
}

/// Moves or renames, each item for itself: body code 200 even where all of them fail.
pub(super) fn set_device_info(world: &mut World, call: &Call) -> Result<Value, Refusal> {
    let user = member(world, call)?;
    let mut successes = Vec::new();
    let mut failures = Vec::new();
    for item in call.body().as_array().into_iter().flatten() {
        match change(world, &user, item) {
            Ok(()) => successes.push(json!({ "data": item })),
            Err(refusal) => failures.push(json!({ "data": item, "code": refusal.code, "msg": refusal.message })),
        }
    }
    Ok(json!({ "successList": successes, "failureList": failures }))
}

fn change(world: &mut World, user: &User, item: &Value) -> Result<(), Refusal> {
    let text = |key: &str| item.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let (pk, dk) = (text("pk").ok_or(5066)?, text("dk").ok_or(5067)?);
    let room = match (text("fid"), text("newFrid")) {
        (_, None) => None,
        (None, Some(_)) => return Err(5618.into()),
        (Some(fid), Some(frid)) => {
            let family = world.family(&user.email, fid).ok_or(5636)?;
            let room = family.rooms.iter().find(|room| room.id == frid).ok_or(5041)?;
            Some((family.id.clone(), room.id.clone()))
        }
    };
    let binding = world.binding_mut(&user.email, pk, dk).ok_or(5041)?;
    if let Some((fid, frid)) = room {
        binding.family_id = Some(fid);
        binding.room_id = Some(frid);
    }
    if let Some(name) = text("deviceName") {
        binding.device_name = name.to_owned();
    }
    Ok(())
}
