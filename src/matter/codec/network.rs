//! The TLV of Network Commissioning (Matter Core 11.9) and Time Synchronization (11.17): fields in, values out. Pure.

use jiff::Timestamp;
use rs_matter::error::Error;
use rs_matter::tlv::{TLVElement, TLVTag, TLVWrite};

use super::{NAME, debug_text, fields, malformed, tag};
use crate::commissioning::network::{NetworkCredentials, SeenNetwork};
use crate::commissioning::ports::{LinkError, LocalTime};
use crate::plain::clean;

/// NetworkCommissioningStatusEnum (11.9.5.3).
const SUCCESS: u8 = 0;
pub(in crate::matter) const NETWORK_NOT_FOUND: u8 = 5;
/// 2000-01-01T00:00:00Z, from which Matter counts (Matter Core 7.19.2.8).
const EPOCH_S: i64 = 946_684_800;
/// GranularityEnum: seconds (11.17.6.1); the hub's own clock is kept by NTP at best.
const SECONDS_GRANULARITY: u8 = 2;

/// ScanNetworks `{0: SSID, 1: breadcrumb}`.
pub(in crate::matter) fn scan_fields(writer: &mut impl TLVWrite, ssid: Option<&[u8]>) -> Result<(), Error> {
    match ssid {
        Some(ssid) => writer.str(&tag(0), ssid),
        None => writer.null(&tag(0)),
    }
}

/// AddOrUpdateWiFiNetwork `{0: SSID, 1: credentials, 2: breadcrumb}`, AddOrUpdateThreadNetwork `{0: dataset, 1: breadcrumb}`.
pub(in crate::matter) fn network_fields(
    writer: &mut impl TLVWrite,
    credentials: &NetworkCredentials,
    breadcrumb: u64,
) -> Result<(), Error> {
    match credentials {
        NetworkCredentials::Wifi { ssid, password } => {
            writer.str(&tag(0), ssid)?;
            writer.str(&tag(1), password.expose().as_bytes())?;
            writer.u64(&tag(2), breadcrumb)
        }
        NetworkCredentials::Thread { dataset, .. } => {
            writer.str(&tag(0), dataset.expose())?;
            writer.u64(&tag(1), breadcrumb)
        }
    }
}

/// ConnectNetwork `{0: network id, 1: breadcrumb}`.
pub(in crate::matter) fn connect_fields(writer: &mut impl TLVWrite, id: &[u8], breadcrumb: u64) -> Result<(), Error> {
    writer.str(&tag(0), id)?;
    writer.u64(&tag(1), breadcrumb)
}

/// NetworkConfigResponse and ConnectNetworkResponse: `{0: status, 1: text, …}`.
pub(in crate::matter) fn networking_response(data: Option<&TLVElement<'_>>) -> Result<(), LinkError> {
    let response = fields("a networking response", data)?;
    let status = response.find_ctx(0).and_then(|status| status.u8()).map_err(malformed("NetworkingStatus"))?;
    let text = debug_text(&response, 1);
    if status == SUCCESS { Ok(()) } else { Err(LinkError::Networking { status, text }) }
}

/// ScanNetworksResponse `{0: status, 1: text, 2: Wi-Fi results, 3: Thread results}`. A result that does not decode is left out.
pub(in crate::matter) fn scan_response(data: Option<&TLVElement<'_>>) -> Result<Vec<SeenNetwork>, LinkError> {
    networking_response(data)?;
    let response = fields("ScanNetworksResponse", data)?;
    let mut seen = Vec::new();
    let results = |number| response.find_ctx(number).and_then(|list| list.array()).ok();
    for result in results(2).iter().flat_map(|list| list.iter()).flatten() {
        seen.extend(wifi_result(&result).ok());
    }
    for result in results(3).iter().flat_map(|list| list.iter()).flatten() {
        seen.extend(thread_result(&result).ok());
    }
    Ok(seen)
}

/// WiFiInterfaceScanResultStruct `{1: SSID, 5: RSSI}`.
fn wifi_result(data: &TLVElement<'_>) -> Result<SeenNetwork, Error> {
    let result = data.structure()?;
    let id = result.find_ctx(1)?.str()?.to_vec();
    let name = clean(&String::from_utf8_lossy(&id), NAME);
    Ok(SeenNetwork { id, name, rssi: result.find_ctx(5).and_then(|rssi| rssi.i8()).unwrap_or(i8::MIN) })
}

/// ThreadInterfaceScanResultStruct `{1: extended PAN id, 2: name, 6: RSSI}`.
fn thread_result(data: &TLVElement<'_>) -> Result<SeenNetwork, Error> {
    let result = data.structure()?;
    let id = result.find_ctx(1)?.u64()?.to_be_bytes().to_vec();
    let name = result.find_ctx(2).and_then(|name| name.utf8().map(|name| clean(name, NAME))).unwrap_or_default();
    Ok(SeenNetwork { id, name, rssi: result.find_ctx(6).and_then(|rssi| rssi.i8()).unwrap_or(i8::MIN) })
}

/// The network of NetworkInfoStruct `{0: id, 1: connected}` that is connected.
pub(super) fn connected(data: &TLVElement<'_>) -> Option<Vec<u8>> {
    let info = data.structure().ok()?;
    let is_connected = info.find_ctx(1).and_then(|connected| connected.bool()).unwrap_or(false);
    is_connected.then(|| info.find_ctx(0).and_then(|id| id.str().map(<[u8]>::to_vec)).ok()).flatten()
}

/// Microseconds since Matter's epoch.
fn epoch_us(at: Timestamp) -> u64 {
    u64::try_from(at.as_microsecond() - EPOCH_S * 1_000_000).unwrap_or_default()
}

/// SetUTCTime `{0: time, 1: granularity}` (11.17.9.1).
pub(in crate::matter) fn utc_fields(writer: &mut impl TLVWrite, time: &LocalTime) -> Result<(), Error> {
    writer.u64(&tag(0), epoch_us(time.utc))?;
    writer.u8(&tag(1), SECONDS_GRANULARITY)
}

/// SetTimeZone `{0: [{0: offset, 1: valid at, 2: name}]}` (11.17.9.3).
pub(in crate::matter) fn zone_fields(writer: &mut impl TLVWrite, time: &LocalTime) -> Result<(), Error> {
    writer.start_array(&tag(0))?;
    writer.start_struct(&TLVTag::Anonymous)?;
    writer.i32(&tag(0), time.offset_s)?;
    writer.u64(&tag(1), 0)?;
    if let Some(zone) = &time.zone {
        writer.utf8(&tag(2), zone)?;
    }
    writer.end_container()?;
    writer.end_container()
}

/// SetDSTOffset `{0: [{0: offset, 1: valid starting, 2: valid until}]}` (11.17.9.5).
pub(in crate::matter) fn summer_fields(writer: &mut impl TLVWrite, time: &LocalTime) -> Result<(), Error> {
    writer.start_array(&tag(0))?;
    writer.start_struct(&TLVTag::Anonymous)?;
    writer.i32(&tag(0), time.summer_s)?;
    writer.u64(&tag(1), 0)?;
    match time.summer_until {
        Some(until) => writer.u64(&tag(2), epoch_us(until))?,
        None => writer.null(&tag(2))?,
    }
    writer.end_container()?;
    writer.end_container()
}
