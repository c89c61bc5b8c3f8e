//! The TLV of the clusters that commissioning uses: fields in, values out. Pure.
//!
//! Not here: sending them (`matter::command`).

use std::time::Duration;

use rs_matter::error::Error;
use rs_matter::tlv::{TLVElement, TLVTag, TLVWrite};

use crate::commissioning::network::NetworkKind;
use crate::commissioning::ports::{DeviceDescription, FabricDescriptor, LinkError, SurveyFacts};
use crate::fabric::{AclEntry, AclLimits};
use crate::matter::command::AttributeReport;
use crate::node::BasicInformation;
use crate::plain::{clean, upper_hex};

pub(super) mod icd;
pub(super) mod network;

/// Clusters (Matter Core 9 and 11; Identify is Application Clusters 1.2).
pub(super) mod cluster {
    pub(crate) const IDENTIFY: u32 = 0x03;
    pub(crate) const ACCESS_CONTROL: u32 = 0x1F;
    pub(crate) const BASIC_INFORMATION: u32 = 0x28;
    pub(crate) const GENERAL_COMMISSIONING: u32 = 0x30;
    pub(crate) const NETWORK_COMMISSIONING: u32 = 0x31;
    pub(crate) const TIME_SYNCHRONIZATION: u32 = 0x38;
    pub(crate) const ADMINISTRATOR_COMMISSIONING: u32 = 0x3C;
    pub(crate) const OPERATIONAL_CREDENTIALS: u32 = 0x3E;
    pub(crate) const ICD_MANAGEMENT: u32 = 0x46;
}

/// Global attribute FeatureMap (Matter Core 7.13).
pub(super) const FEATURE_MAP: u32 = 0xFFFC;
/// Access Control's list (9.10.6.3).
pub(super) const ACL: u32 = 0;
/// Operational Credentials' Fabrics (11.18.5.2).
pub(super) const FABRICS: u32 = 1;
/// Wi-Fi and Thread in Network Commissioning's FeatureMap (11.9.4).
const WIFI: u32 = 0b01;
const THREAD: u32 = 0b10;
const RADIO_FEATURES: u32 = WIFI | THREAD;
/// LongIdleTimeSupport in ICD Management's FeatureMap (9.16.4).
const LONG_IDLE_TIME: u32 = 0b100;
/// MaxCumulativeFailsafeSeconds where a device does not say (11.10.5.2 recommends it).
const DEFAULT_CUMULATIVE_FAIL_SAFE: Duration = Duration::from_secs(900);

/// Context tag `number`.
pub(super) const fn tag(number: u8) -> TLVTag {
    TLVTag::Context(number)
}

fn malformed(what: &'static str) -> impl Fn(Error) -> LinkError {
    move |error| LinkError::Malformed { what: format!("{what}: {error}") }
}

fn fields<'a>(what: &'static str, data: Option<&TLVElement<'a>>) -> Result<rs_matter::tlv::TLVSequence<'a>, LinkError> {
    let data = data.ok_or_else(|| LinkError::Malformed { what: format!("{what} has no fields") })?;
    data.structure().map_err(malformed(what))
}

/// The octet string with context tag `number`.
fn octets(what: &'static str, data: &rs_matter::tlv::TLVSequence<'_>, number: u8) -> Result<Vec<u8>, LinkError> {
    data.find_ctx(number).and_then(|field| field.str().map(<[u8]>::to_vec)).map_err(malformed(what))
}

fn debug_text(response: &rs_matter::tlv::TLVSequence<'_>, number: u8) -> String {
    response.find_ctx(number).and_then(|text| text.utf8().map(|text| clean(text, DEBUG_TEXT))).unwrap_or_default()
}

/// ArmFailSafeResponse, SetRegulatoryConfigResponse, CommissioningCompleteResponse: `{0: error, 1: text}` (11.10.7).
pub(super) fn commissioning_response(data: Option<&TLVElement<'_>>) -> Result<(), LinkError> {
    let response = fields("a general commissioning response", data)?;
    let code = response.find_ctx(0).and_then(|code| code.u8()).map_err(malformed("ErrorCode"))?;
    let text = debug_text(&response, 1);
    if code == 0 { Ok(()) } else { Err(LinkError::Commissioning { code, text }) }
}

/// NOCResponse `{0: status, 1: fabric index, 2: text}` (11.18.6.10); gives the index, 0 where there is none.
pub(super) fn noc_response(data: Option<&TLVElement<'_>>) -> Result<u8, LinkError> {
    let response = fields("a NOCResponse", data)?;
    let code = response.find_ctx(0).and_then(|code| code.u8()).map_err(malformed("StatusCode"))?;
    let text = debug_text(&response, 2);
    if code != 0 {
        return Err(LinkError::NocStatus { code, text });
    }
    Ok(response.find_ctx(1).and_then(|index| index.u8()).unwrap_or(0))
}

/// AttestationResponse and CSRResponse: `{0: elements, 1: signature}` (11.18.6.2, 11.18.6.6).
pub(super) fn signed_elements(data: Option<&TLVElement<'_>>) -> Result<(Vec<u8>, Vec<u8>), LinkError> {
    let response = fields("a signed response", data)?;
    Ok((octets("elements", &response, 0)?, octets("signature", &response, 1)?))
}

/// CertificateChainResponse `{0: certificate}` (11.18.6.4).
pub(super) fn certificate(data: Option<&TLVElement<'_>>) -> Result<Vec<u8>, LinkError> {
    octets("certificate", &fields("a CertificateChainResponse", data)?, 0)
}

/// A command whose only good answer is the status Success.
pub(super) fn success(data: Option<&TLVElement<'_>>) -> Result<(), LinkError> {
    match data {
        None => Ok(()),
        Some(_) => Err(LinkError::Malformed { what: "data where only a status was expected".to_owned() }),
    }
}

/// AccessControlEntryStruct (9.10.5.6). The entry must not be limited to targets: see [`AclEntry`].
pub(super) fn write_acl_entry(writer: &mut impl TLVWrite, own: &TLVTag, entry: &AclEntry) -> Result<(), Error> {
    writer.start_struct(own)?;
    writer.u8(&tag(1), entry.privilege)?;
    writer.u8(&tag(2), entry.auth_mode)?;
    if entry.subjects.is_empty() {
        writer.null(&tag(3))?;
    } else {
        writer.start_array(&tag(3))?;
        for subject in &entry.subjects {
            writer.u64(&TLVTag::Anonymous, *subject)?;
        }
        writer.end_container()?;
    }
    writer.null(&tag(4))?;
    writer.end_container()
}

fn acl_entry(data: &TLVElement<'_>) -> Result<AclEntry, Error> {
    let entry = data.structure()?;
    let mut subjects = Vec::new();
    if let Ok(list) = entry.find_ctx(3)?.array() {
        for subject in list.iter() {
            subjects.push(subject?.u64()?);
        }
    }
    let has_targets = match entry.find_ctx(4)?.array() {
        Ok(targets) => targets.iter().next().is_some(),
        Err(_) => false,
    };
    Ok(AclEntry { privilege: entry.find_ctx(1)?.u8()?, auth_mode: entry.find_ctx(2)?.u8()?, subjects, has_targets })
}

/// One report of the access control list: the list's beginning, or one more item.
pub(super) fn acl_report(entries: &mut Vec<AclEntry>, report: &AttributeReport<'_>) -> Result<(), LinkError> {
    list_report(entries, report, "an access control entry", acl_entry)
}

/// One report of Fabrics.
pub(super) fn fabric_report(
    fabrics: &mut Vec<FabricDescriptor>,
    report: &AttributeReport<'_>,
) -> Result<(), LinkError> {
    list_report(fabrics, report, "a fabric descriptor", |data| {
        let row = data.structure()?;
        Ok(FabricDescriptor {
            index: row.find_ctx(0xFE)?.u8()?,
            fabric_id: row.find_ctx(3)?.u64()?,
            node_id: row.find_ctx(4)?.u64()?,
            vendor_id: row.find_ctx(2)?.u16()?,
            label: clean(row.find_ctx(5)?.utf8()?, NAME),
            root_public_key: row.find_ctx(1)?.str()?.to_vec(),
        })
    })
}

fn list_report<T>(
    items: &mut Vec<T>,
    report: &AttributeReport<'_>,
    what: &'static str,
    decode: impl Fn(&TLVElement<'_>) -> Result<T, Error>,
) -> Result<(), LinkError> {
    if report.is_item {
        items.push(decode(&report.data).map_err(malformed(what))?);
        return Ok(());
    }
    items.clear();
    for item in report.data.array().map_err(malformed(what))?.iter() {
        items.push(item.and_then(|item| decode(&item)).map_err(malformed(what))?);
    }
    Ok(())
}

/// What `describe` gathers from one read.
#[derive(Debug, Clone, Default)]
pub(super) struct Gathered {
    basic: BasicInformation,
    limits: AclLimits,
    features: u32,
    cumulative: Option<u16>,
    fabrics: (u8, u8),
    facts: SurveyFacts,
}

impl Gathered {
    /// Takes one attribute. A value of an unexpected type counts as absent: this is information, and not proof.
    pub(crate) fn take(&mut self, report: &AttributeReport<'_>) {
        let data = &report.data;
        let limited = |limit| data.utf8().map(|text| clean(text, limit)).unwrap_or_default();
        let text = || limited(NAME);
        let some_text = || Some(text()).filter(|text| !text.is_empty());
        match (report.cluster, report.attribute) {
            (cluster::BASIC_INFORMATION, attribute) => match attribute {
                0 => self.basic.data_model_revision = data.u16().unwrap_or_default(),
                1 => self.basic.vendor_name = text(),
                2 => self.basic.vendor_id = data.u16().unwrap_or_default(),
                3 => self.basic.product_name = text(),
                4 => self.basic.product_id = data.u16().unwrap_or_default(),
                5 => self.basic.node_label = text(),
                9 => self.basic.software_version = data.u32().unwrap_or_default(),
                0x0A => self.basic.software_version_string = limited(VERSION),
                0x0F => self.basic.serial_number = some_text(),
                0x12 => self.basic.unique_id = some_text(),
                0x15 => self.basic.specification_version = data.u32().ok(),
                _ => {}
            },
            (cluster::ACCESS_CONTROL, 2) => keep(&mut self.limits.subjects_per_entry, data.u16()),
            (cluster::ACCESS_CONTROL, 4) => keep(&mut self.limits.entries_per_fabric, data.u16()),
            (cluster::GENERAL_COMMISSIONING, 1) => {
                self.cumulative = data.structure().and_then(|info| info.find_ctx(1)?.u16()).ok();
            }
            (cluster::GENERAL_COMMISSIONING, 0) => keep(&mut self.facts.breadcrumb, data.u64()),
            (cluster::GENERAL_COMMISSIONING, 4) => keep(&mut self.facts.network.concurrent, data.bool()),
            (cluster::GENERAL_COMMISSIONING, 6) => {
                keep(&mut self.facts.terms.get_or_insert_default().minimum_version, data.u16());
            }
            (cluster::GENERAL_COMMISSIONING, 8) => {
                keep(&mut self.facts.terms.get_or_insert_default().required, data.bool());
            }
            (cluster::NETWORK_COMMISSIONING, attribute) => self.take_network(attribute, report),
            (cluster::ICD_MANAGEMENT, FEATURE_MAP) => {
                self.facts.long_idle = data.u32().unwrap_or_default() & LONG_IDLE_TIME != 0;
            }
            (cluster::TIME_SYNCHRONIZATION, FEATURE_MAP) => self.facts.keeps_time = true,
            (cluster::OPERATIONAL_CREDENTIALS, 2) => keep(&mut self.fabrics.0, data.u8()),
            (cluster::OPERATIONAL_CREDENTIALS, 3) => keep(&mut self.fabrics.1, data.u8()),
            _ => {}
        }
    }

    fn take_network(&mut self, attribute: u32, report: &AttributeReport<'_>) {
        let (data, interface) = (&report.data, &mut self.facts.network);
        let seconds = |place: &mut Duration| keep(place, data.u8().map(|seconds| Duration::from_secs(seconds.into())));
        match attribute {
            1 if report.is_item => interface.connected = interface.connected.take().or(network::connected(data)),
            1 => {
                let items = data.array().ok();
                interface.connected =
                    items.iter().flat_map(|list| list.iter()).flatten().find_map(|item| network::connected(&item));
            }
            2 => seconds(&mut interface.scan_max),
            3 => seconds(&mut interface.connect_max),
            FEATURE_MAP => {
                let features = data.u32().unwrap_or_default();
                self.features |= features;
                let kinds = [(WIFI, NetworkKind::Wifi), (THREAD, NetworkKind::Thread)];
                interface.kinds =
                    kinds.into_iter().filter(|(bit, _)| features & bit != 0).map(|(_, kind)| kind).collect();
            }
            _ => {}
        }
    }

    /// # Errors
    /// Not even VendorID and ProductID were reported.
    pub(crate) fn finish(self) -> Result<DeviceDescription, LinkError> {
        if self.basic.vendor_id == 0 && self.basic.product_id == 0 {
            return Err(LinkError::Malformed { what: "Basic Information lacks VendorID and ProductID".to_owned() });
        }
        let cumulative = self.cumulative.map(|seconds| Duration::from_secs(seconds.into()));
        Ok(DeviceDescription {
            basic: self.basic,
            acl_limits: self.limits,
            needs_regulatory_config: self.features & RADIO_FEATURES != 0,
            max_cumulative_fail_safe: cumulative.unwrap_or(DEFAULT_CUMULATIVE_FAIL_SAFE),
            fabrics: self.fabrics,
            facts: self.facts,
        })
    }
}

fn keep<T>(place: &mut T, value: Result<T, Error>) {
    if let Ok(value) = value {
        *place = value;
    }
}

/// Lengths in bytes: Basic Information's names and numbers (11.1.5), SoftwareVersionString, DebugText.
const NAME: usize = 32;
const VERSION: usize = 64;
const DEBUG_TEXT: usize = 128;
/// What one message can hold.
const ANY: usize = 1_280;

/// Any scalar as text: text as it is, octets in upper-case hex, numbers in decimal, booleans as words.
pub(super) fn scalar_text(data: &TLVElement<'_>) -> Result<String, LinkError> {
    if let Ok(text) = data.utf8() {
        return Ok(clean(text, ANY));
    }
    if let Ok(octets) = data.str() {
        return Ok(upper_hex(octets));
    }
    if let Ok(value) = data.bool() {
        return Ok(value.to_string());
    }
    let number = data.u64().map(|number| number.to_string()).or_else(|_| data.i64().map(|number| number.to_string()));
    number.map_err(malformed("an attribute that is no text, octet string or number"))
}

#[cfg(test)]
mod tests;
