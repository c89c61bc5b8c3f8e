//! An [`OutboxTask`] as the JSON of its row. The binding code in it must survive a restart: it is sealed where there is a
//! seal, else protected by the rights of the database alone.
//!
//! Rows are written and read on the store's thread only, which has the store's seal. The shape is part of the schema: add
//! optional fields, never rename one without a migration.

use std::cell::OnceCell;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use super::{SharedSeal, from_json, to_json};
use crate::bind::{BindOptions, BindRequest, CloudDevice, MatterInfo};
use crate::durable::StoreError;
use crate::outbox::ports::OutboxTask;
use crate::secret::BindingCode;

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum TaskRow {
    Bind(BindRow),
    Unbind { device: CloudDevice },
    Rename { device: CloudDevice, name: String },
    MoveRoom { device: CloudDevice, family_id: String, old_room_id: Option<String>, new_room_id: String },
    UpdateMatterInfo(BindRow),
}

#[derive(Serialize, Deserialize)]
struct BindRow {
    device: CloudDevice,
    #[serde(serialize_with = "at_rest", deserialize_with = "from_rest")]
    binding_code: BindingCode,
    device_name: Option<String>,
    family_id: Option<String>,
    room_id: Option<String>,
    capabilities_bitmask: u8,
    #[serde(default)]
    options: BindOptions,
    matter_info: MatterInfo,
}

/// Before a code that is sealed; a code has hex digits only.
pub(super) const SEALED: &str = "sealed:";

thread_local! {
    static SEAL: OnceCell<SharedSeal> = const { OnceCell::new() };
}

/// The calling thread is the store's, and this is its seal, which may be given later.
pub(super) fn use_seal(seal: SharedSeal) {
    // A thread has one store.
    let _ = SEAL.with(|own| own.set(seal));
}

/// A code in a document of another module.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct CodeAtRest(
    #[serde(serialize_with = "at_rest", deserialize_with = "from_rest")] pub(super) BindingCode,
);

fn at_rest<S: Serializer>(code: &BindingCode, serializer: S) -> Result<S::Ok, S::Error> {
    let sealed = SEAL.with(|own| own.get()?.get().map(|seal| seal.seal(code.expose().as_bytes())));
    match sealed {
        Some(Ok(sealed)) => serializer.serialize_str(&format!("{SEALED}{}", BASE64.encode(sealed))),
        Some(Err(error)) => Err(serde::ser::Error::custom(error)),
        None => serializer.serialize_str(code.expose()),
    }
}

/// A code that was sealed by another seal is none: the cloud refuses it, and the row says so.
fn from_rest<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BindingCode, D::Error> {
    let text = Zeroizing::new(String::deserialize(deserializer)?);
    let Some(sealed) = text.strip_prefix(SEALED) else { return Ok(BindingCode::new(text.as_str())) };
    let opened = SEAL.with(|own| own.get()?.get()?.open(&BASE64.decode(sealed).ok()?));
    let code = opened.and_then(|code| String::from_utf8(code.to_vec()).ok().map(Zeroizing::new)).unwrap_or_default();
    Ok(BindingCode::new(code.as_str()))
}

impl From<&BindRequest> for BindRow {
    fn from(request: &BindRequest) -> Self {
        Self {
            device: request.device.clone(),
            binding_code: request.binding_code.clone(),
            device_name: request.device_name.clone(),
            family_id: request.family_id.clone(),
            room_id: request.room_id.clone(),
            capabilities_bitmask: request.capabilities_bitmask,
            options: request.options.clone(),
            matter_info: request.matter_info.clone(),
        }
    }
}

impl From<BindRow> for Box<BindRequest> {
    fn from(row: BindRow) -> Self {
        Box::new(BindRequest {
            device: row.device,
            binding_code: row.binding_code,
            device_name: row.device_name,
            family_id: row.family_id,
            room_id: row.room_id,
            capabilities_bitmask: row.capabilities_bitmask,
            options: row.options,
            matter_info: row.matter_info,
        })
    }
}

/// The row's text; wiped when dropped.
pub(super) fn write(task: &OutboxTask) -> Result<Zeroizing<String>, StoreError> {
    let row = match task {
        OutboxTask::Bind(request) => TaskRow::Bind(request.as_ref().into()),
        OutboxTask::Unbind(device) => TaskRow::Unbind { device: device.clone() },
        OutboxTask::Rename { device, name } => TaskRow::Rename { device: device.clone(), name: name.clone() },
        OutboxTask::MoveRoom { device, family_id, old_room_id, new_room_id } => TaskRow::MoveRoom {
            device: device.clone(),
            family_id: family_id.clone(),
            old_room_id: old_room_id.clone(),
            new_room_id: new_room_id.clone(),
        },
        OutboxTask::UpdateMatterInfo(request) => TaskRow::UpdateMatterInfo(request.as_ref().into()),
    };
    to_json(&row).map(Zeroizing::new)
}

/// Reads the row's text.
pub(super) fn read(text: &str) -> Result<OutboxTask, StoreError> {
    Ok(match from_json::<TaskRow>(text)? {
        TaskRow::Bind(row) => OutboxTask::Bind(row.into()),
        TaskRow::Unbind { device } => OutboxTask::Unbind(device),
        TaskRow::Rename { device, name } => OutboxTask::Rename { device, name },
        TaskRow::MoveRoom { device, family_id, old_room_id, new_room_id } => {
            OutboxTask::MoveRoom { device, family_id, old_room_id, new_room_id }
        }
        TaskRow::UpdateMatterInfo(row) => OutboxTask::UpdateMatterInfo(row.into()),
    })
}
