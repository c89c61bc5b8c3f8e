//! A node of our fabric over CASE: completing commissioning, access control, the fabric table, and what a hub does later.

use std::time::Duration;

use rand::RngExt as _;
use rs_matter::tlv::{Nullable, TLVTag, TLVWrite};

use crate::commissioning::ports::{AttributePath, DeviceDescription, FabricDescriptor, LinkError, OperationalSession};
use crate::fabric::AclEntry;
use crate::matter::codec::{self, cluster, tag};
use crate::matter::command::{CommandPath, Missing, attribute, every, root};
use crate::matter::credentials::pake_verifier;
use crate::matter::pase::describe;
use crate::matter::session::Session;
use crate::secret::Passcode;

/// PBKDF iterations of an enhanced commissioning window (Matter Core 3.9: 1,000 to 100,000).
const WINDOW_ITERATIONS: u32 = 10_000;
/// What of an access control list goes into one message; the rest is appended. A message holds about 1,200 bytes.
const ACL_BYTES_PER_WRITE: usize = 900;

/// See [`OperationalSession`].
pub struct CaseLink {
    pub(super) session: Session,
}

impl OperationalSession for CaseLink {
    async fn commissioning_complete(&self) -> Result<(), LinkError> {
        let path = CommandPath::root(cluster::GENERAL_COMMISSIONING, 4);
        self.session.invoke(path, |_| Ok(()), codec::commissioning_response).await
    }

    async fn read_acl(&self) -> Result<Vec<AclEntry>, LinkError> {
        let paths = vec![root(cluster::ACCESS_CONTROL, Some(codec::ACL))];
        self.session.read(paths, true, Vec::new(), codec::acl_report, Missing::Refuse).await
    }

    /// The first write replaces the list. A list that does not fit one message goes on item by item, so the entry that
    /// lets us go on, Administer for the admin CAT, must be among the first: `plan_acl` puts it first.
    async fn write_acl(&self, entries: &[AclEntry]) -> Result<(), LinkError> {
        if entries.iter().any(|entry| entry.has_targets) {
            // We do not know the targets, so writing the entry would widen it.
            return Err(LinkError::Malformed { what: "an entry limited to targets cannot be written".to_owned() });
        }
        let (first, rest) = entries.split_at(first_write(entries));
        let first = first.to_vec();
        let path = root(cluster::ACCESS_CONTROL, Some(codec::ACL));
        let write_list = move |writer: &mut rs_matter::im::client::WriteSenderSlot<'static>, own: &TLVTag| {
            writer.start_array(own)?;
            for entry in &first {
                codec::write_acl_entry(writer, &TLVTag::Anonymous, entry)?;
            }
            writer.end_container()
        };
        self.session.write(path.clone(), write_list).await?;
        for entry in rest {
            let entry = entry.clone();
            let mut append = path.clone();
            append.list_index = Some(Nullable::none());
            self.session.write(append, move |writer, own| codec::write_acl_entry(writer, own, &entry)).await?;
        }
        Ok(())
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
        let take = |index: &mut u8, report: &crate::matter::command::Report<'_>| {
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
        let lowest = |endpoint: &mut Option<u16>, report: &crate::matter::command::Report<'_>| {
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

    async fn read_text(&self, path: AttributePath) -> Result<String, LinkError> {
        let take = |value: &mut Option<String>, report: &crate::matter::command::Report<'_>| {
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

/// How many entries go into the first message: an entry takes about 12 bytes, a subject 9.
fn first_write(entries: &[AclEntry]) -> usize {
    let mut bytes = 0;
    entries
        .iter()
        .take_while(|entry| {
            bytes += 12 + 9 * entry.subjects.len();
            bytes <= ACL_BYTES_PER_WRITE
        })
        .count()
        .max(usize::from(!entries.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_is_split_and_a_short_one_is_not() {
        let entry = AclEntry { privilege: 3, auth_mode: 2, subjects: vec![1; 10], has_targets: false };
        assert_eq!(first_write(&[]), 0);
        assert_eq!(first_write(&vec![entry.clone(); 4]), 4);
        assert_eq!(first_write(&vec![entry.clone(); 20]), 8);
        let huge = AclEntry { subjects: vec![1; 200], ..entry };
        assert_eq!(first_write(&[huge]), 1);
    }
}
