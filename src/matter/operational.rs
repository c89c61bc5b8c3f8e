//! A node of our fabric over CASE: completing commissioning, access control, the fabric table, and what a hub does later.

use std::net::SocketAddr;
use std::time::Duration;

use rand::RngExt as _;
use rs_matter::tlv::{TLVTag, TLVWrite};

use crate::commissioning::ports::{
    AttributePath, DeviceDescription, FabricDescriptor, FailSafe, LinkError, OperationalSession,
};
use crate::fabric::AclEntry;
use crate::matter::codec::{self, cluster, icd, tag};
use crate::matter::command::{CommandPath, Missing, attribute, every, root};
use crate::matter::credentials::pake_verifier;
use crate::matter::pase::{arm_fail_safe, describe};
use crate::matter::session::Session;
use crate::node::{IcdParameters, NodeId};
use crate::secret::{CheckInKey, Passcode};

/// PBKDF iterations of an enhanced commissioning window (Matter Core 3.9: 1,000 to 100,000).
const WINDOW_ITERATIONS: u32 = 10_000;
/// StatusCodeEnum of Administrator Commissioning (Matter Core 11.19.6.1).
const WINDOW_NOT_OPEN: u16 = 4;
/// What of an access control list fits one message of 1,280 bytes beside headers and path.
const ACL_BYTES: usize = 1_000;

/// See [`OperationalSession`].
pub struct CaseLink {
    pub(super) session: Session,
    pub(super) at: SocketAddr,
}

impl FailSafe for CaseLink {
    async fn arm_fail_safe(&self, expiry: Duration, breadcrumb: u64) -> Result<(), LinkError> {
        arm_fail_safe(&self.session, expiry, breadcrumb).await
    }
}

impl OperationalSession for CaseLink {
    fn peer(&self) -> SocketAddr {
        self.at
    }

    async fn commissioning_complete(&self) -> Result<(), LinkError> {
        let path = CommandPath::root(cluster::GENERAL_COMMISSIONING, 4);
        self.session.invoke(path, |_| Ok(()), codec::commissioning_response).await
    }

    async fn read_acl(&self) -> Result<Vec<AclEntry>, LinkError> {
        let paths = vec![root(cluster::ACCESS_CONTROL, Some(codec::ACL))];
        self.session.read(paths, true, Vec::new(), codec::acl_report, Missing::Refuse).await
    }

    /// One message, so that the list is replaced whole or not at all. rs-matter's client writes no chunked requests, and
    /// appending in further writes would leave half a list behind where a device refuses one (matter.js does: Busy).
    async fn write_acl(&self, entries: &[AclEntry]) -> Result<(), LinkError> {
        if entries.iter().any(|entry| entry.has_targets) {
            // We do not know the targets, so writing the entry would widen it.
            return Err(LinkError::Malformed { what: "an entry limited to targets cannot be written".to_owned() });
        }
        let bytes = acl_bytes(entries);
        if bytes > ACL_BYTES {
            let what = format!("the access control list takes {bytes} bytes, one message holds {ACL_BYTES}");
            return Err(LinkError::Stack { what });
        }
        let entries = entries.to_vec();
        let list = move |writer: &mut rs_matter::im::client::WriteSenderSlot<'static>, own: &TLVTag| {
            writer.start_array(own)?;
            for entry in &entries {
                codec::write_acl_entry(writer, &TLVTag::Anonymous, entry)?;
            }
            writer.end_container()
        };
        self.session.write(root(cluster::ACCESS_CONTROL, Some(codec::ACL)), list).await
    }

    async fn describe(&self) -> Result<DeviceDescription, LinkError> {
        describe(&self.session).await
    }

    async fn fabrics(&self) -> Result<Vec<FabricDescriptor>, LinkError> {
        let paths = vec![root(cluster::OPERATIONAL_CREDENTIALS, Some(codec::FABRICS))];
        self.session.read(paths, false, Vec::new(), codec::fabric_report, Missing::Refuse).await
    }

    async fn current_fabric_index(&self) -> Result<u8, LinkError> {
        let paths = vec![root(cluster::OPERATIONAL_CREDENTIALS, Some(5))];
        let take = |index: &mut u8, report: &crate::matter::command::AttributeReport<'_>| {
            *index = report.data.u8().unwrap_or(0);
            Ok(())
        };
        match self.session.read(paths, false, 0, take, Missing::Refuse).await? {
            0 => Err(LinkError::Malformed { what: "CurrentFabricIndex is missing or 0".to_owned() }),
            index => Ok(index),
        }
    }

    async fn remove_fabric(&self, fabric_index: u8) -> Result<(), LinkError> {
        let path = CommandPath::root(cluster::OPERATIONAL_CREDENTIALS, 0x0A);
        let fields =
            move |writer: &mut rs_matter::im::client::InvokeSenderSlot<'static>| writer.u8(&tag(0), fabric_index);
        self.session.invoke(path, fields, codec::noc_response).await.map(drop)
    }

    async fn update_fabric_label(&self, label: &str) -> Result<(), LinkError> {
        let path = CommandPath::root(cluster::OPERATIONAL_CREDENTIALS, 9);
        let label = label.to_owned();
        self.session.invoke(path, move |writer| writer.utf8(&tag(0), &label), codec::noc_response).await.map(drop)
    }

    async fn identify(&self, duration: Duration) -> Result<(), LinkError> {
        // IdentifyTime on every endpoint tells where the cluster is.
        let lowest = |endpoint: &mut Option<u16>, report: &crate::matter::command::AttributeReport<'_>| {
            *endpoint = Some(endpoint.map_or(report.endpoint, |known| known.min(report.endpoint)));
            Ok(())
        };
        let paths = vec![every(cluster::IDENTIFY, Some(0))];
        let endpoint = self.session.read(paths, false, None, lowest, Missing::Tolerate).await?;
        let endpoint = endpoint.ok_or_else(|| LinkError::Malformed { what: "no endpoint has Identify".to_owned() })?;
        let seconds = u16::try_from(duration.as_secs()).unwrap_or(u16::MAX);
        let path = CommandPath { endpoint, cluster: cluster::IDENTIFY, command: 0, timed: false };
        self.session.invoke(path, move |writer| writer.u16(&tag(0), seconds), codec::success).await
    }

    async fn open_window(&self, timeout: Duration, discriminator: u16, passcode: &Passcode) -> Result<(), LinkError> {
        let salt: [u8; 32] = rand::rng().random();
        let passcode = passcode.clone();
        // PBKDF takes long enough to keep it off the Matter thread and off tokio's workers.
        let verifier = tokio::task::spawn_blocking(move || pake_verifier(&passcode, &salt, WINDOW_ITERATIONS))
            .await
            .map_err(|error| LinkError::Stack { what: error.to_string() })?
            .map_err(|error| LinkError::Stack { what: error.to_string() })?;
        let seconds = u16::try_from(timeout.as_secs()).unwrap_or(u16::MAX);
        let cluster = cluster::ADMINISTRATOR_COMMISSIONING;
        let path = CommandPath { endpoint: 0, cluster, command: 0, timed: true };
        let fields = move |writer: &mut rs_matter::im::client::InvokeSenderSlot<'static>| {
            writer.u16(&tag(0), seconds)?;
            writer.str(&tag(1), &verifier)?;
            writer.u16(&tag(2), discriminator)?;
            writer.u32(&tag(3), WINDOW_ITERATIONS)?;
            writer.str(&tag(4), &salt)
        };
        self.session.invoke(path, fields, codec::success).await
    }

    async fn close_window(&self) -> Result<bool, LinkError> {
        let cluster = cluster::ADMINISTRATOR_COMMISSIONING;
        let path = CommandPath { endpoint: 0, cluster, command: 2, timed: true };
        match self.session.invoke(path, |_| Ok(()), codec::success).await {
            Err(LinkError::Status { cluster: Some(WINDOW_NOT_OPEN), .. }) => Ok(false),
            other => other.map(|()| true),
        }
    }

    async fn icd(&self) -> Result<Option<IcdParameters>, LinkError> {
        let paths = vec![root(cluster::ICD_MANAGEMENT, None)];
        self.session.read(paths, true, None, icd::report, Missing::Tolerate).await
    }

    async fn register_client(&self, client: NodeId, key: &CheckInKey) -> Result<u32, LinkError> {
        let (path, key) = (CommandPath::root(cluster::ICD_MANAGEMENT, 0), key.clone());
        let fields = move |writer: &mut rs_matter::im::client::InvokeSenderSlot<'static>| {
            icd::register_fields(writer, client, &key)
        };
        self.session.invoke(path, fields, icd::register_response).await
    }

    async fn stay_active(&self, duration: Duration) -> Result<Duration, LinkError> {
        let ms = u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
        let path = CommandPath::root(cluster::ICD_MANAGEMENT, 3);
        self.session.invoke(path, move |writer| writer.u32(&tag(0), ms), icd::stay_active_response).await
    }

    async fn read_text(&self, path: AttributePath) -> Result<String, LinkError> {
        let take = |value: &mut Option<String>, report: &crate::matter::command::AttributeReport<'_>| {
            *value = Some(codec::scalar_text(&report.data)?);
            Ok(())
        };
        let value = self.session.read(vec![attribute(path)], true, None, take, Missing::Refuse).await?;
        value.ok_or_else(|| LinkError::Malformed { what: "the attribute was not reported".to_owned() })
    }

    async fn write_text(&self, path: AttributePath, value: &str) -> Result<(), LinkError> {
        let value = value.to_owned();
        self.session.write(attribute(path), move |writer, own| writer.utf8(own, &value)).await
    }
}

/// An upper bound of the list's size: an entry takes 13 bytes at most without its subjects, a subject 9.
fn acl_bytes(entries: &[AclEntry]) -> usize {
    entries.iter().map(|entry| 13 + 9 * entry.subjects.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_holds() {
        let entry = AclEntry { privilege: 5, auth_mode: 2, subjects: vec![u64::MAX; 4], has_targets: false };
        let mut buffer = [0u8; 256];
        let mut writer = rs_matter::utils::storage::WriteBuf::new(&mut buffer);
        codec::write_acl_entry(&mut writer, &TLVTag::Anonymous, &entry).unwrap();
        assert!(writer.as_slice().len() <= acl_bytes(&[entry]));
    }
}
