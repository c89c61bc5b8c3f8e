//! An [`OutboxTask`] as the JSON of its row. The one place where a binding code is written in the clear: the bind must
//! survive a restart, and the database is protected by its directory (0700) and its own rights (0600).
//!
//! The shape is part of the schema: add optional fields, never rename one without a migration.

use serde::{Deserialize, Serialize, Serializer};
use zeroize::Zeroizing;

use super::{from_json, to_json};
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
    #[serde(serialize_with = "in_the_clear")]
    binding_code: BindingCode,
    device_name: Option<String>,
    family_id: Option<String>,
    room_id: Option<String>,
    capabilities_bitmask: u8,
    #[serde(default)]
    options: BindOptions,
    matter_info: MatterInfo,
}

fn in_the_clear<S: Serializer>(code: &BindingCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(code.expose())
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
