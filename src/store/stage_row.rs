//! The stage of a provisional row as its two columns keep it. The shape of the document is part of the schema: add optional fields,
//! never rename one without a migration. Not here: the row (`nodes`).

use std::time::Duration;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::task_row::CodeAtRest;
use super::{from_json, to_json};
use crate::bind::CapabilityMask;
use crate::commissioning::identity::GivenIdentity;
use crate::commissioning::ports::{Particulars, Stage, Unfinished};
use crate::durable::StoreError;

#[derive(Serialize, Deserialize)]
struct UnfinishedRow {
    product_key: Option<String>,
    device_key: Option<String>,
    binding_code: Option<CodeAtRest>,
    extra: Option<String>,
    is_common_device: Option<bool>,
    name: Option<String>,
    family_id: Option<String>,
    room_id: Option<String>,
    no_bind: bool,
    wan: bool,
    lan: bool,
    ble: bool,
    fail_safe_s: u64,
}

impl From<&Unfinished> for UnfinishedRow {
    fn from(unfinished: &Unfinished) -> Self {
        let Unfinished { particulars, seen, fail_safe } = unfinished.clone();
        let Particulars { identity, name, family_id, room_id, no_bind } = particulars;
        let GivenIdentity { product_key, device_key, binding_code, extra, is_common_device } = identity;
        Self {
            product_key,
            device_key,
            binding_code: binding_code.map(CodeAtRest),
            extra,
            is_common_device,
            name,
            family_id,
            room_id,
            no_bind,
            wan: seen.wan,
            lan: seen.lan,
            ble: seen.ble,
            fail_safe_s: fail_safe.as_secs() + u64::from(fail_safe.subsec_nanos() > 0),
        }
    }
}

impl From<UnfinishedRow> for Unfinished {
    fn from(row: UnfinishedRow) -> Self {
        let identity = GivenIdentity {
            product_key: row.product_key,
            device_key: row.device_key,
            binding_code: row.binding_code.map(|CodeAtRest(code)| code),
            extra: row.extra,
            is_common_device: row.is_common_device,
        };
        let UnfinishedRow { name, family_id, room_id, no_bind, wan, lan, ble, fail_safe_s, .. } = row;
        let particulars = Particulars { identity, name, family_id, room_id, no_bind };
        let seen = CapabilityMask { wan, lan, ble };
        Self { particulars, seen, fail_safe: Duration::from_secs(fail_safe_s) }
    }
}

/// Both columns; wiped when dropped.
pub(super) fn write(stage: &Stage) -> Result<(&'static str, Option<Zeroizing<String>>), StoreError> {
    Ok(match stage {
        Stage::GivenAway => ("given-away", None),
        Stage::OnFabric(unfinished) => {
            let text = to_json(&UnfinishedRow::from(unfinished.as_ref()))?;
            ("on-fabric", Some(Zeroizing::new(text)))
        }
        Stage::Ready => ("ready", None),
    })
}

/// Reads both columns.
pub(super) fn read(stage: &str, unfinished: Option<&str>) -> Result<Stage, StoreError> {
    match (stage, unfinished) {
        ("given-away", None) => Ok(Stage::GivenAway),
        ("on-fabric", Some(text)) => Ok(Stage::OnFabric(Box::new(from_json::<UnfinishedRow>(text)?.into()))),
        ("ready", None) => Ok(Stage::Ready),
        (other, _) => Err(StoreError::Corrupt(format!("the stage of a provisional node: {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::BindingCode;

    #[test]
    fn every_stage_is_read_as_it_was_written() {
        let identity = GivenIdentity {
            product_key: Some("p1".to_owned()),
            device_key: Some("d1".to_owned()),
            binding_code: Some(BindingCode::new("0123456789ABCDEF")),
            extra: Some("more".to_owned()),
            is_common_device: Some(false),
        };
        let particulars = Particulars {
            identity,
            name: Some("lamp".to_owned()),
            family_id: Some("f".to_owned()),
            room_id: Some("r".to_owned()),
            no_bind: true,
        };
        let seen = CapabilityMask { wan: false, lan: true, ble: true };
        let fail_safe = Duration::from_secs(75);
        let unfinished = Box::new(Unfinished { particulars, seen, fail_safe });
        for stage in [Stage::GivenAway, Stage::OnFabric(unfinished), Stage::Ready] {
            let (word, text) = write(&stage).unwrap();
            assert_eq!(read(word, text.as_ref().map(|text| text.as_str())).unwrap(), stage);
        }
        assert!(read("on-fabric", None).is_err());
    }
}
