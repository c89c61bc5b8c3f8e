//! Where a device's identity in the cloud comes from: the command first, then the product profile (interface.md).
//!
//! Not here: sending it (`outbox`), the profiles' syntax (`config`).

use crate::bind::{BindOptions, BindState, BindStatus, CapabilityMask, CloudDevice};
use crate::commissioning::ports::{AttributePath, LinkError, OperationalSession};
use crate::node::{BasicInformation, Marks};
use crate::secret::BindingCode;

/// What the command or the manifest says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct GivenIdentity {
    pub product_key: Option<String>,
    pub device_key: Option<String>,
    pub binding_code: Option<BindingCode>,
    /// `matterInfo.extra`.
    pub extra: Option<String>,
    /// Whether it is put on the list of common devices.
    pub is_common_device: Option<bool>,
}

/// A product profile, its attribute paths understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Profile {
    pub vendor_id: u16,
    pub product_id: u16,
    pub product_key: String,
    /// Where the device key comes from.
    pub device_key: DeviceKey,
    /// Where the binding code comes from.
    pub binding_code: BindingCodeOrigin,
    /// What the device can do besides LAN and Matter.
    pub capabilities: CapabilityMask,
    /// What else its bind says.
    pub options: BindOptions,
}

impl Profile {
    /// That of a product, by vendor id and product id.
    pub(crate) fn of(profiles: &[Self], product: (u16, u16)) -> Option<&Self> {
        profiles.iter().find(|profile| (profile.vendor_id, profile.product_id) == product)
    }
}

/// Where a device key comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeviceKey {
    /// Basic Information's SerialNumber.
    SerialNumber,
    /// Basic Information's UniqueID.
    UniqueId,
    /// Any readable attribute.
    Attribute(AttributePath),
}

impl DeviceKey {
    /// The key, where it is among what tells the device from others of its kind.
    pub(crate) fn among(self, marks: &Marks<'_>) -> Option<String> {
        let key = match self {
            Self::SerialNumber => marks.serial_number,
            Self::UniqueId => marks.unique_id,
            Self::Attribute(_) => None,
        };
        key.map(str::to_owned)
    }
}

/// Where a binding code comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BindingCodeOrigin {
    /// Made by the hub.
    Random,
    /// Made by the hub and written to the device, whose firmware reports it.
    Written(AttributePath),
    /// Read from the device.
    Attribute(AttributePath),
}

/// What a bind needs beside the Matter identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Eligible {
    /// Product key and device key.
    pub device: CloudDevice,
    pub binding_code: BindingCode,
    /// The mask, 1..=15.
    pub capabilities_bitmask: u8,
    /// What else the bind says.
    pub options: BindOptions,
}

/// Why there will be no bind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NotEligible {
    /// In plain words.
    pub reason: String,
}

impl NotEligible {
    /// The node record's bind status.
    pub(crate) fn status(&self) -> BindStatus {
        BindStatus { state: BindState::NotEligible, message: self.reason.clone(), ..BindStatus::default() }
    }
}

/// A fresh binding code: 16 characters `0-9A-F` (cloud-contract 3.1).
pub(crate) fn random_binding_code() -> BindingCode {
    BindingCode::new(format!("{:016X}", rand::random::<u64>()))
}

/// Finds all three parts, asking the device where the profile says so. What was `seen` of its capabilities counts where no profile
/// tells them.
///
/// # Errors
/// A part that has no source, or whose source gave nothing usable: the node stays local.
pub(crate) async fn resolve(
    given: &GivenIdentity,
    profiles: &[Profile],
    basic: &BasicInformation,
    seen: CapabilityMask,
    session: &impl OperationalSession,
) -> Result<Eligible, NotEligible> {
    let profile = Profile::of(profiles, basic.marks().product);
    let nothing_for = |part: &str| NotEligible {
        reason: format!(
            "no {part} for vendor {:#06x}, product {:#06x}: give it on the command line or in [[products]]",
            basic.vendor_id, basic.product_id
        ),
    };
    let product_key = given
        .product_key
        .clone()
        .or_else(|| profile.map(|p| p.product_key.clone()))
        .ok_or_else(|| nothing_for("product key"))?;
    let device_key = match (&given.device_key, profile) {
        (Some(given), _) => given.clone(),
        (None, Some(profile)) => device_key_from(profile.device_key, basic, session).await?,
        (None, None) => return Err(nothing_for("device key")),
    };
    check_device_key(&device_key)?;
    let binding_code = match (&given.binding_code, profile) {
        (Some(given), _) => given.clone(),
        (None, Some(profile)) => binding_code_from(profile.binding_code, session).await?,
        (None, None) => return Err(nothing_for("binding code")),
    };
    // Which network it is on is seen, whatever a profile says.
    let capabilities = profile.map_or(seen, |p| CapabilityMask { lan: seen.lan, ..p.capabilities });
    let options = profile.map(|p| p.options.clone()).unwrap_or_default();
    Ok(Eligible {
        device: CloudDevice { product_key, device_key },
        binding_code,
        capabilities_bitmask: capabilities.value(),
        options: BindOptions {
            extra: given.extra.clone().or(options.extra),
            is_common_device: given.is_common_device.unwrap_or(options.is_common_device),
        },
    })
}

/// The device in the cloud, as far as it can be told before the device is on our fabric; `None` where a key has to be read
/// from it, or where there is none.
pub(crate) fn known_beforehand(
    given: &GivenIdentity,
    profiles: &[Profile],
    basic: &BasicInformation,
) -> Option<CloudDevice> {
    let profile = Profile::of(profiles, basic.marks().product);
    let product_key = given.product_key.clone().or_else(|| profile.map(|p| p.product_key.clone()))?;
    let from_profile = || profile?.device_key.among(&basic.marks());
    let device_key = given.device_key.clone().or_else(from_profile)?;
    Some(CloudDevice { product_key, device_key })
}

/// A binding code from where the profile says; also used when the cloud asks for a fresh one (5213, 5461, 5462).
///
/// # Errors
/// The device does not answer, or not with 16 characters `0-9A-F`.
pub(crate) async fn binding_code_from(
    origin: BindingCodeOrigin,
    session: &impl OperationalSession,
) -> Result<BindingCode, NotEligible> {
    match origin {
        BindingCodeOrigin::Random => Ok(random_binding_code()),
        BindingCodeOrigin::Written(path) => {
            let code = random_binding_code();
            session.write_text(path, code.expose()).await.map_err(|error| unusable("binding code", path, &error))?;
            Ok(code)
        }
        BindingCodeOrigin::Attribute(path) => {
            let code = session.read_text(path).await.map_err(|error| unusable("binding code", path, &error))?;
            if is_binding_code(&code) {
                Ok(BindingCode::new(code))
            } else {
                Err(NotEligible {
                    reason: format!(
                        "the binding code in attribute {} is not 16 characters 0-9 A-F, but {} characters",
                        show(path),
                        code.chars().count()
                    ),
                })
            }
        }
    }
}

/// Whether the cloud would take the code's form (5213).
pub(crate) fn is_binding_code(code: &str) -> bool {
    code.len() == 16 && code.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b))
}

async fn device_key_from(
    origin: DeviceKey,
    basic: &BasicInformation,
    session: &impl OperationalSession,
) -> Result<String, NotEligible> {
    let absent = |what: &str| NotEligible { reason: format!("the device has no {what} to make its device key of") };
    match origin {
        DeviceKey::SerialNumber => origin.among(&basic.marks()).ok_or_else(|| absent("serial number")),
        DeviceKey::UniqueId => origin.among(&basic.marks()).ok_or_else(|| absent("unique id")),
        DeviceKey::Attribute(path) => {
            session.read_text(path).await.map_err(|error| unusable("device key", path, &error))
        }
    }
}

/// Something given by hand that the cloud would surely refuse. The code itself is a secret and not repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidIdentity {
    /// 5361.
    #[error("the device key {0:?} is not 4 to 32 letters or digits, so the cloud would refuse it")]
    DeviceKey(String),
    /// 5213.
    #[error("the binding code is not 16 characters 0-9 A-F, but {0} characters, so the cloud would refuse it")]
    BindingCode(usize),
}

impl InvalidIdentity {
    pub fn code(&self) -> &'static str {
        match self {
            Self::DeviceKey(_) => "invalid-device-key",
            Self::BindingCode(_) => "invalid-binding-code",
        }
    }
}

/// Checks what a person gave, before any device is touched.
///
/// # Errors
/// What the contract makes invalid.
pub(crate) fn check_given(given: &GivenIdentity) -> Result<(), InvalidIdentity> {
    if let Some(key) = given.device_key.as_ref().filter(|key| check_device_key(key).is_err()) {
        return Err(InvalidIdentity::DeviceKey(key.clone()));
    }
    match given.binding_code.as_ref().map(BindingCode::expose).filter(|code| !is_binding_code(code)) {
        Some(code) => Err(InvalidIdentity::BindingCode(code.chars().count())),
        None => Ok(()),
    }
}

/// The cloud's rule for device keys (5361): 4 to 32 letters or digits. What it would refuse is not sent.
pub(crate) fn check_device_key(device_key: &str) -> Result<(), NotEligible> {
    if (4..=32).contains(&device_key.len()) && device_key.bytes().all(|b| b.is_ascii_alphanumeric()) {
        Ok(())
    } else {
        Err(NotEligible { reason: format!("the device key {device_key:?} is not 4 to 32 letters or digits") })
    }
}

fn unusable(part: &str, path: AttributePath, error: &LinkError) -> NotEligible {
    NotEligible { reason: format!("no {part} from attribute {}: {error}", show(path)) }
}

fn show(path: AttributePath) -> String {
    format!("{}/{:#x}/{:#x}", path.endpoint, path.cluster, path.attribute)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_cloud_would_refuse_is_not_sent() {
        assert!(check_device_key("AB12").is_ok() && check_device_key("0012345678ABCDEFabcdef0123456789").is_ok());
        assert!(check_device_key("AB1").is_err() && check_device_key("AA:BB:CC:DD").is_err());
        assert!(is_binding_code("0123456789ABCDEF") && !is_binding_code("0123456789abcdef"));
        assert!(is_binding_code(random_binding_code().expose()));
    }

    #[test]
    fn what_a_person_gave_is_checked_before_any_device_is_touched() {
        let given = |device_key: &str, code: &str| GivenIdentity {
            product_key: None,
            device_key: (!device_key.is_empty()).then(|| device_key.to_owned()),
            binding_code: (!code.is_empty()).then(|| BindingCode::new(code)),
            ..GivenIdentity::default()
        };
        assert_eq!(check_given(&given("", "")), Ok(()));
        assert_eq!(check_given(&given("AB12", "0123456789ABCDEF")), Ok(()));
        assert_eq!(check_given(&given("AA:BB", "")), Err(InvalidIdentity::DeviceKey("AA:BB".to_owned())));
        let refused = check_given(&given("AB12", "0123456789abcde")).unwrap_err();
        assert_eq!(refused, InvalidIdentity::BindingCode(15));
        assert!(!refused.to_string().contains("0123456789"), "{refused}");
    }
}
