//! Product profiles as configured, with their attribute paths understood.

use anyhow::Context;

use crate::bind::{BindOptions, CapabilityMask};
use crate::commissioning::identity::{BindingCodeOrigin, DeviceKey, Profile};
use crate::commissioning::ports::AttributePath;
use crate::config::{BindingCodeProfile, DeviceKeySource, ProductProfile};

/// Understands every profile. `check-config` has found the same mistakes with their keys.
pub(super) fn from_config(products: &[ProductProfile]) -> anyhow::Result<Vec<Profile>> {
    products.iter().map(profile).collect()
}

fn profile(product: &ProductProfile) -> anyhow::Result<Profile> {
    Ok(Profile {
        vendor_id: product.vendor_id,
        product_id: product.product_id,
        product_key: product.product_key.clone(),
        device_key: match &product.device_key {
            DeviceKeySource::SerialNumber => DeviceKey::SerialNumber,
            DeviceKeySource::UniqueId => DeviceKey::UniqueId,
            DeviceKeySource::Attribute(path) => DeviceKey::Attribute(parse(path)?),
        },
        binding_code: match &product.binding_code {
            BindingCodeProfile::Word(_) => BindingCodeOrigin::Random,
            BindingCodeProfile::Write { write } => BindingCodeOrigin::Written(parse(write)?),
            BindingCodeProfile::Attribute { attribute } => BindingCodeOrigin::Attribute(parse(attribute)?),
        },
        capabilities: CapabilityMask { wan: product.wan, lan: true, ble: product.ble },
        options: BindOptions { extra: product.extra.clone(), is_common_device: product.common },
    })
}

fn parse(path: &str) -> anyhow::Result<AttributePath> {
    path.parse().with_context(|| format!("products: {path:?} is no attribute path"))
}
