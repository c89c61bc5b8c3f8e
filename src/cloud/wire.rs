//! The service's JSON: written strictly, read leniently (cloud-contract 6).
//!
//! Reading never goes through `f64`: an id is an integer or a decimal string, or it is absent.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::bind::{BindReceipt, BindRequest, CloudDevice, CloudMatterInfo, CloudRecord};
use crate::outbox::ports::{BindPreview, CloudError};
use crate::plain;
use crate::secret::{AccessToken, AuthKey, RefreshToken};

/// Bit 3 of `capabilitiesBitmask`.
const MATTER_BIT: u8 = 1 << 3;
/// Above this the service, a Java program, cannot hold an id (cloud-contract 6.1).
const MAX_ID: u64 = i64::MAX as u64;

/// Body of `deviceBindingByWifi`, every field of the seed.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BindBody<'a> {
    binding_code: &'a str,
    capabilities_bitmask: u8,
    device_key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frid: Option<&'a str>,
    is_common_device: bool,
    is_matter: bool,
    matter_info: MatterBody<'a>,
    product_key: &'a str,
}

/// `matterInfo`; no field but an `extra` that there is not is ever left out, a discriminator of 0 included
/// (cloud-contract 6.7).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MatterBody<'a> {
    cat_list: Vec<CatBody>,
    discriminator: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    extra: Option<&'a str>,
    fabric_id: u64,
    matter_product_id: u16,
    matter_vendor_id: u16,
    matter_version: &'a str,
    node_id: u64,
}

#[derive(Serialize)]
struct CatBody {
    cat: u32,
    privilege: &'static str,
}

impl<'a> BindBody<'a> {
    /// Mask bit 3, `isMatter` and `matterInfo` are set here together and nowhere else.
    ///
    /// # Errors
    /// What the service would refuse or bend, as the code that it would answer with: an id above 2^63-1 (5883, 5885),
    /// an empty Matter version (5881).
    pub(crate) fn new(request: &'a BindRequest) -> Result<Self, CloudError> {
        let refused = |code, message: &str| CloudError::Code { code, message: format!("not sent: {message}") };
        let info = &request.matter_info;
        if info.fabric_id.0 == 0 || info.fabric_id.0 > MAX_ID {
            return Err(refused(5883, "the fabric id is not in 1..2^63"));
        }
        if info.node_id.0 == 0 || info.node_id.0 > MAX_ID {
            return Err(refused(5885, "the node id is not in 1..2^63"));
        }
        if info.matter_version.is_empty() {
            return Err(refused(5881, "the Matter version is empty"));
        }
        Ok(Self {
            binding_code: request.binding_code.expose(),
            capabilities_bitmask: request.capabilities_bitmask & 0x0F | MATTER_BIT,
            device_key: &request.device.device_key,
            device_name: request.device_name.as_deref().filter(|name| !name.is_empty()),
            fid: request.family_id.as_deref().filter(|id| !id.is_empty()),
            frid: request.room_id.as_deref().filter(|id| !id.is_empty()),
            is_common_device: request.options.is_common_device,
            is_matter: true,
            matter_info: MatterBody {
                cat_list: info
                    .cats
                    .iter()
                    .map(|grant| CatBody { cat: grant.cat.value(), privilege: grant.privilege.as_str() })
                    .collect(),
                discriminator: info.discriminator,
                extra: request.options.extra.as_deref(),
                fabric_id: info.fabric_id.0,
                matter_product_id: info.product_id,
                matter_vendor_id: info.vendor_id,
                matter_version: &info.matter_version,
                node_id: info.node_id.0,
            },
            product_key: &request.device.product_key,
        })
    }
}

/// One element of the family service's `setDeviceInfo`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MoveBody<'a> {
    pub dk: &'a str,
    pub pk: &'a str,
    pub fid: &'a str,
    /// Room it leaves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_frid: Option<&'a str>,
    /// Room it enters.
    pub new_frid: &'a str,
}

/// `{code, msg, data, extMsg}`; everything but `code` may be missing.
#[derive(Debug)]
pub struct Envelope {
    /// 200 is success, whatever HTTP said (cloud-contract 1).
    pub code: i64,
    /// `msg`, or empty.
    pub message: String,
    /// `data`, or null.
    pub data: Value,
}

impl Envelope {
    /// Reads a body; `None` without a usable `code`.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let Value::Object(mut object) = serde_json::from_slice(body).ok()? else { return None };
        let code = object.get("code").and_then(integer)?;
        let message = object.get("msg").and_then(Value::as_str).unwrap_or_default().to_owned();
        Some(Self { code, message, data: object.remove("data").unwrap_or_default() })
    }
}

/// An integer, or a decimal string of one.
fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// An unsigned id as the service may show it. What a signed column bent below zero is bent back, and flagged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LooseId {
    /// The id; `None` for null, fractions, exponents and anything else that is no integer.
    pub value: Option<u64>,
    /// Whether it came as a negative number.
    pub was_negative: bool,
}

impl LooseId {
    fn read(value: &Value) -> Self {
        let (unsigned, signed) = match value {
            Value::Number(number) => (number.as_u64(), number.as_i64()),
            Value::String(text) => (text.trim().parse().ok(), text.trim().parse::<i64>().ok()),
            _ => (None, None),
        };
        match (unsigned, signed) {
            (Some(value), _) => Self { value: Some(value), was_negative: false },
            (None, Some(negative)) => Self { value: Some(negative.cast_unsigned()), was_negative: true },
            (None, None) => Self::default(),
        }
    }
}

impl<'de> Deserialize<'de> for LooseId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(|value| Self::read(&value))
    }
}

fn loose_integer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    Value::deserialize(deserializer).map(|value| integer(&value))
}

/// true, 1, "1", "true": true; null and anything else: false.
fn loose_flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    Value::deserialize(deserializer).map(|value| match value {
        Value::Bool(flag) => Some(flag),
        Value::Number(number) => number.as_i64().map(|number| number != 0),
        Value::String(text) => match text.trim() {
            "1" | "true" => Some(true),
            "0" | "false" => Some(false),
            _ => None,
        },
        _ => None,
    })
}

/// A string without what could mislead a reader; a number is taken as its digits; empty is absent.
fn loose_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Value::deserialize(deserializer).map(|value| match value {
        Value::String(text) => Some(plain::clean(&text, usize::MAX)).filter(|text| !text.is_empty()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    })
}

/// A list; null and anything else is empty, elements that do not fit are left out.
fn loose_list<'de, D: Deserializer<'de>, T: serde::de::DeserializeOwned>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Value::deserialize(deserializer).map(|value| match value {
        Value::Array(items) => items.into_iter().filter_map(|item| serde_json::from_value(item).ok()).collect(),
        _ => Vec::new(),
    })
}

/// A list; anything else is absent, elements that do not fit are left out.
fn loose_optional_list<'de, D: Deserializer<'de>, T: serde::de::DeserializeOwned>(
    deserializer: D,
) -> Result<Option<Vec<T>>, D::Error> {
    Value::deserialize(deserializer).map(|value| match value {
        Value::Array(items) => Some(items.into_iter().filter_map(|item| serde_json::from_value(item).ok()).collect()),
        _ => None,
    })
}

/// An object; anything else is absent.
fn loose_object<'de, D: Deserializer<'de>, T: serde::de::DeserializeOwned>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    Value::deserialize(deserializer)
        .map(|value| value.is_object().then(|| serde_json::from_value(value).ok()).flatten())
}

/// `data` of the sign-in and of the refresh.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TokensData {
    pub access_token: TokenData<AccessToken>,
    pub refresh_token: TokenData<RefreshToken>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TokenData<S> {
    /// As returned, `Bearer ` included.
    pub token: S,
    /// Seconds since 1970 by the service's clock.
    #[serde(default, deserialize_with = "loose_integer")]
    pub expiration_time: Option<i64>,
}

/// `data` of `deviceBindingByWifi` and `getDeviceInfoByBinding`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BoundData {
    #[serde(deserialize_with = "loose_text")]
    auth_key: Option<String>,
    #[serde(deserialize_with = "loose_integer")]
    binding_mode: Option<i64>,
    #[serde(deserialize_with = "loose_text")]
    product_name: Option<String>,
}

impl BoundData {
    /// Reads `data`, null included.
    pub fn read(data: Value) -> Self {
        serde_json::from_value(data).unwrap_or_default()
    }

    /// As the bind's receipt.
    pub fn into_receipt(self) -> BindReceipt {
        BindReceipt {
            binding_mode: mode(self.binding_mode),
            auth_key: self.auth_key.map(AuthKey::new),
            product_name: self.product_name,
        }
    }

    /// As the answer before a bind.
    pub fn into_preview(self) -> BindPreview {
        BindPreview { binding_mode: mode(self.binding_mode), product_name: self.product_name }
    }
}

/// 1..=3; the documents' examples show 0, which is no mode.
fn mode(value: Option<i64>) -> Option<u8> {
    value.and_then(|mode| u8::try_from(mode).ok()).filter(|mode| (1..=3).contains(mode))
}

/// A page of `userDeviceList`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PageData {
    /// The records; `None` where the page has no list, which then is none of the service.
    #[serde(deserialize_with = "loose_optional_list")]
    pub list: Option<Vec<RecordData>>,
    /// Records on all pages.
    #[serde(deserialize_with = "loose_integer")]
    pub total: Option<i64>,
    /// Whether another page follows.
    #[serde(deserialize_with = "loose_flag")]
    pub has_next_page: Option<bool>,
}

/// A device record of `deviceInfo` and `userDeviceList`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RecordData {
    #[serde(deserialize_with = "loose_text")]
    product_key: Option<String>,
    #[serde(deserialize_with = "loose_text")]
    device_key: Option<String>,
    #[serde(deserialize_with = "loose_text")]
    device_name: Option<String>,
    #[serde(deserialize_with = "loose_integer")]
    status: Option<i64>,
    #[serde(deserialize_with = "loose_integer")]
    bind_status: Option<i64>,
    #[serde(deserialize_with = "loose_integer")]
    device_type: Option<i64>,
    #[serde(deserialize_with = "loose_flag")]
    is_matter: Option<bool>,
    #[serde(deserialize_with = "loose_object")]
    matter_info: Option<MatterData>,
    #[serde(deserialize_with = "loose_text")]
    auth_key: Option<String>,
    #[serde(deserialize_with = "loose_integer")]
    bind_mode: Option<i64>,
    #[serde(deserialize_with = "loose_text")]
    fid: Option<String>,
    #[serde(deserialize_with = "loose_text")]
    frid: Option<String>,
}

/// `matterInfo` of a record.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct MatterData {
    fabric_id: LooseId,
    node_id: LooseId,
    matter_vendor_id: LooseId,
    matter_product_id: LooseId,
    discriminator: LooseId,
    #[serde(deserialize_with = "loose_text")]
    matter_version: Option<String>,
    #[serde(deserialize_with = "loose_list")]
    cat_list: Vec<CatData>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CatData {
    cat: LooseId,
    #[serde(deserialize_with = "loose_text")]
    privilege: Option<String>,
}

impl RecordData {
    /// Whether a list's record leaves out what `deviceInfo` may have.
    pub fn lacks_matter_info(&self) -> bool {
        self.matter_info.is_none()
    }

    /// As our type; `None` without product key or device key.
    pub fn into_record(self) -> Option<CloudRecord> {
        let device = CloudDevice { product_key: self.product_key?, device_key: self.device_key? };
        let matter_info = self.matter_info.map(|info| info.into_info(&device));
        Some(CloudRecord {
            device_name: self.device_name,
            status: self.status.or(self.bind_status),
            device_type: self.device_type,
            is_matter: self.is_matter.unwrap_or(false),
            matter_info,
            auth_key: self.auth_key.map(AuthKey::new),
            binding_mode: mode(self.bind_mode),
            family_id: self.fid,
            room_id: self.frid,
            device,
        })
    }
}

impl MatterData {
    fn into_info(self, device: &CloudDevice) -> CloudMatterInfo {
        let ids = [self.fabric_id, self.node_id, self.matter_vendor_id, self.matter_product_id, self.discriminator];
        if ids.iter().any(|id| id.was_negative) || self.cat_list.iter().any(|entry| entry.cat.was_negative) {
            tracing::warn!(
                product_key = device.product_key,
                device_key = device.device_key,
                "the cloud shows a negative Matter id: it keeps ids in a signed column that is too narrow"
            );
        }
        CloudMatterInfo {
            fabric_id: self.fabric_id.value,
            node_id: self.node_id.value,
            vendor_id: self.matter_vendor_id.value,
            product_id: self.matter_product_id.value,
            discriminator: self.discriminator.value,
            matter_version: self.matter_version,
            cats: self
                .cat_list
                .into_iter()
                .filter_map(|entry| Some((narrow_cat(entry.cat)?, entry.privilege.unwrap_or_default())))
                .collect(),
        }
    }
}

/// A CAT has 32 bits: one from a signed 32-bit column comes back as it was sent.
fn narrow_cat(cat: LooseId) -> Option<u64> {
    let value = cat.value?;
    Some(if cat.was_negative && value >> 32 == u64::from(u32::MAX) { value & u64::from(u32::MAX) } else { value })
}

#[cfg(test)]
mod tests;
