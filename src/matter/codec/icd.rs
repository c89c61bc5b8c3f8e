//! The TLV of ICD Management (Matter Core 9.16). Pure.

use std::time::Duration;

use rs_matter::error::Error;
use rs_matter::tlv::{TLVElement, TLVWrite};

use super::{FEATURE_MAP, fields, keep, malformed, tag};
use crate::commissioning::ports::LinkError;
use crate::matter::command::AttributeReport;
use crate::node::{IcdParameters, NodeId};
use crate::plain::clean;
use crate::secret::CheckInKey;

/// CheckInProtocolSupport in the FeatureMap (9.16.4).
const CHECK_IN_PROTOCOL: u32 = 1;
/// UserActiveModeTriggerInstruction, in bytes (9.16.6.8).
const INSTRUCTION: usize = 128;
/// ClientTypeEnum (9.16.5.2): a hub stays.
const PERMANENT: u8 = 0;

/// Takes one attribute. A value of an unexpected type counts as absent.
pub(crate) fn report(icd: &mut Option<IcdParameters>, report: &AttributeReport<'_>) -> Result<(), LinkError> {
    let (data, icd) = (&report.data, icd.get_or_insert_default());
    match report.attribute {
        0 => keep(&mut icd.idle, data.u32().map(|seconds| Duration::from_secs(seconds.into()))),
        2 => keep(&mut icd.active_threshold, data.u16().map(|ms| Duration::from_millis(ms.into()))),
        3 if report.is_item => icd.clients.extend(client(data)),
        3 => {
            icd.clients =
                data.array().iter().flat_map(|list| list.iter()).flatten().filter_map(|one| client(&one)).collect();
        }
        6 => keep(&mut icd.trigger, data.u32()),
        7 => keep(&mut icd.instruction, data.utf8().map(|text| clean(text, INSTRUCTION))),
        9 => keep(&mut icd.back_off, data.u32().map(|seconds| Duration::from_secs(seconds.into()))),
        FEATURE_MAP => icd.checks_in = data.u32().unwrap_or_default() & CHECK_IN_PROTOCOL != 0,
        _ => {}
    }
    Ok(())
}

/// MonitoringRegistrationStruct `{1: CheckInNodeID, …}` (9.16.5.4).
fn client(data: &TLVElement<'_>) -> Option<u64> {
    data.structure().and_then(|fields| fields.find_ctx(1)?.u64()).ok()
}

/// RegisterClient `{0: CheckInNodeID, 1: MonitoredSubject, 2: Key, 4: ClientType}` (9.16.7.1). An administrator needs no
/// verification key.
pub(crate) fn register_fields(writer: &mut impl TLVWrite, client: NodeId, key: &CheckInKey) -> Result<(), Error> {
    writer.u64(&tag(0), client.0)?;
    writer.u64(&tag(1), client.0)?;
    writer.str(&tag(2), key.expose())?;
    writer.u8(&tag(4), PERMANENT)
}

/// RegisterClientResponse `{0: ICDCounter}`.
pub(crate) fn register_response(data: Option<&TLVElement<'_>>) -> Result<u32, LinkError> {
    number("a RegisterClientResponse", data)
}

/// StayActiveResponse `{0: PromisedActiveDuration}`, milliseconds.
pub(crate) fn stay_active_response(data: Option<&TLVElement<'_>>) -> Result<Duration, LinkError> {
    number("a StayActiveResponse", data).map(|ms| Duration::from_millis(ms.into()))
}

fn number(what: &'static str, data: Option<&TLVElement<'_>>) -> Result<u32, LinkError> {
    fields(what, data)?.find_ctx(0).and_then(|number| number.u32()).map_err(malformed(what))
}
