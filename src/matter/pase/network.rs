//! The commands that bring a commissionee onto its network (Matter Core 11.9.7), and those that tell it the time (11.17.9).

use std::sync::Arc;
use std::time::Duration;

use rs_matter::utils::storage::WriteBuf;

use super::PaseLink;
use crate::commissioning::network::{NetworkCredentials, SeenNetwork};
use crate::commissioning::ports::{LinkError, LocalTime};
use crate::matter::codec::network::{self, NETWORK_NOT_FOUND};
use crate::matter::codec::{self, cluster};
use crate::matter::command::CommandPath;

impl PaseLink {
    /// The network that is looked for by its name, as one that is hidden must be; where it is not there, all that the device sees.
    pub(super) async fn scan(
        &self,
        wanted: &NetworkCredentials,
        limit: Duration,
    ) -> Result<Vec<SeenNetwork>, LinkError> {
        let path = CommandPath::root(cluster::NETWORK_COMMISSIONING, 0);
        if let NetworkCredentials::Wifi { ssid, .. } = wanted {
            let asked = ssid.clone();
            let fields = move |writer: &mut WriteBuf<'_>| network::scan_fields(writer, Some(&asked));
            match self.session.invoke_slowly(path, limit, fields, network::scan_response).await {
                Ok(seen) if seen.iter().any(|one| one.id == *ssid) => return Ok(seen),
                Ok(_) | Err(LinkError::Networking { status: NETWORK_NOT_FOUND, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let fields = |writer: &mut WriteBuf<'_>| network::scan_fields(writer, None);
        self.session.invoke_slowly(path, limit, fields, network::scan_response).await
    }

    pub(super) async fn add(&self, credentials: &NetworkCredentials, breadcrumb: u64) -> Result<(), LinkError> {
        let command = match credentials {
            NetworkCredentials::Wifi { .. } => 2,
            NetworkCredentials::Thread { .. } => 3,
        };
        let path = CommandPath::root(cluster::NETWORK_COMMISSIONING, command);
        let credentials = Arc::new(credentials.clone());
        let fields = move |writer: &mut _| network::network_fields(writer, &credentials, breadcrumb);
        self.session.invoke(path, fields, network::networking_response).await
    }

    pub(super) async fn join(&self, id: &[u8], limit: Duration, breadcrumb: u64) -> Result<(), LinkError> {
        let (path, id) = (CommandPath::root(cluster::NETWORK_COMMISSIONING, 6), id.to_vec());
        let fields = move |writer: &mut WriteBuf<'_>| network::connect_fields(writer, &id, breadcrumb);
        self.session.invoke_slowly(path, limit, fields, network::networking_response).await
    }

    /// A device without zones has the first command only.
    pub(super) async fn tell_time(&self, time: LocalTime) -> Result<(), LinkError> {
        let time = Arc::new(time);
        let path = |command| CommandPath::root(cluster::TIME_SYNCHRONIZATION, command);
        let told = Arc::clone(&time);
        self.session.invoke(path(0), move |writer| network::utc_fields(writer, &told), codec::success).await?;
        let told = Arc::clone(&time);
        let zone = self.session.invoke(path(2), move |writer| network::zone_fields(writer, &told), |_| Ok(())).await;
        match zone {
            Ok(()) => {
                self.session.invoke(path(4), move |writer| network::summer_fields(writer, &time), codec::success).await
            }
            Err(LinkError::Status { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
