//! A commissionee whose passcode was proved, and the commands that it takes before it is on our fabric (Matter Core 5.5).

use std::sync::Arc;
use std::time::Duration;

use rs_matter::tlv::TLVWrite;
use zeroize::Zeroizing;

use crate::commissioning::network::{NetworkCredentials, SeenNetwork};
use crate::commissioning::ports::{
    AttestationResponse, CsrResponse, DeviceDescription, FailSafe, IssuedNoc, LinkError, LocalTime, PaseSession,
};
use crate::matter::codec::{self, cluster, tag};
use crate::matter::command::{CommandPath, Missing, root};
use crate::matter::credentials::Credentials;
use crate::matter::session::Session;
use crate::node::Peer;

mod network;

/// See [`PaseSession`].
pub struct PaseLink {
    pub(super) session: Session,
    pub(super) challenge: [u8; 16],
    pub(super) credentials: Arc<Credentials>,
}

impl FailSafe for PaseLink {
    async fn arm_fail_safe(&self, expiry: Duration, breadcrumb: u64) -> Result<(), LinkError> {
        arm_fail_safe(&self.session, expiry, breadcrumb).await
    }
}

impl PaseSession for PaseLink {
    fn attestation_challenge(&self) -> [u8; 16] {
        self.challenge
    }

    fn peer(&self) -> Peer {
        self.session.peer
    }

    async fn describe(&self) -> Result<DeviceDescription, LinkError> {
        describe(&self.session).await
    }

    /// SetRegulatoryConfig `{0: location, 1: country, 2: breadcrumb}` (11.10.7.4).
    async fn set_regulatory_config(&self, country: &str, breadcrumb: u64) -> Result<(), LinkError> {
        // LocationCapability: a device that is built for indoors or outdoors only takes nothing else.
        let capability = self
            .session
            .read(
                vec![root(cluster::GENERAL_COMMISSIONING, Some(3))],
                false,
                INDOOR_OUTDOOR,
                |capability, report| {
                    *capability = report.data.u8().unwrap_or(INDOOR_OUTDOOR);
                    Ok(())
                },
                Missing::Tolerate,
            )
            .await?;
        let country = country.to_owned();
        let fields = move |writer: &mut _| regulatory_fields(writer, capability, &country, breadcrumb);
        let path = CommandPath::root(cluster::GENERAL_COMMISSIONING, 2);
        self.session.invoke(path, fields, codec::commissioning_response).await
    }

    /// SetTCAcknowledgements `{0: version, 1: bits}` (11.10.7.8).
    async fn acknowledge_terms(&self, version: u16, bits: u16) -> Result<(), LinkError> {
        let fields = move |writer: &mut rs_matter::im::client::InvokeSenderSlot<'static>| {
            writer.u16(&tag(0), version)?;
            writer.u16(&tag(1), bits)
        };
        let path = CommandPath::root(cluster::GENERAL_COMMISSIONING, 6);
        self.session.invoke(path, fields, codec::commissioning_response).await
    }

    async fn set_time(&self, time: LocalTime) -> Result<(), LinkError> {
        self.tell_time(time).await
    }

    async fn scan_networks(&self, wanted: &NetworkCredentials, limit: Duration) -> Result<Vec<SeenNetwork>, LinkError> {
        self.scan(wanted, limit).await
    }

    async fn add_network(&self, credentials: &NetworkCredentials, breadcrumb: u64) -> Result<(), LinkError> {
        self.add(credentials, breadcrumb).await
    }

    async fn connect_network(&self, id: &[u8], limit: Duration, breadcrumb: u64) -> Result<(), LinkError> {
        self.join(id, limit, breadcrumb).await
    }

    async fn attestation(&self, nonce: [u8; 32]) -> Result<AttestationResponse, LinkError> {
        let (elements, signature) = self.signed(0, nonce).await?;
        // CertificateChainTypeEnum: 1 DAC, 2 PAI (11.18.4.2).
        let dac = self.certificate(1).await?;
        let pai = self.certificate(2).await?;
        Ok(AttestationResponse { elements, signature, dac, pai })
    }

    async fn request_csr(&self, nonce: [u8; 32]) -> Result<CsrResponse, LinkError> {
        let (elements, signature) = self.signed(4, nonce).await?;
        Ok(CsrResponse { elements, signature })
    }

    /// AddTrustedRootCertificate `{0: certificate}` (11.18.6.13).
    async fn add_root(&self) -> Result<(), LinkError> {
        let credentials = Arc::clone(&self.credentials);
        let path = CommandPath::root(cluster::OPERATIONAL_CREDENTIALS, 0x0B);
        self.session.invoke(path, move |writer| writer.str(&tag(0), credentials.rcac()), codec::success).await
    }

    /// AddNOC `{0: NOC, 1: ICAC, 2: IPK, 3: CaseAdminSubject, 4: AdminVendorId}` (11.18.6.8).
    async fn add_noc(&self, issued: &IssuedNoc, case_admin_subject: u64) -> Result<u8, LinkError> {
        let (credentials, noc) = (Arc::clone(&self.credentials), issued.noc.clone());
        let ipk = Zeroizing::new(credentials.bundle().ipk.expose().to_vec());
        let path = CommandPath::root(cluster::OPERATIONAL_CREDENTIALS, 6);
        let fields = move |writer: &mut rs_matter::im::client::InvokeSenderSlot<'static>| {
            writer.str(&tag(0), &noc)?;
            writer.str(&tag(1), &credentials.bundle().icac)?;
            writer.str(&tag(2), &ipk)?;
            writer.u64(&tag(3), case_admin_subject)?;
            writer.u16(&tag(4), credentials.admin_vendor_id())
        };
        match self.session.invoke(path, fields, codec::noc_response).await? {
            0 => Err(LinkError::Malformed { what: "AddNOC succeeded without a fabric index".to_owned() }),
            index => Ok(index),
        }
    }
}

/// RegulatoryLocationTypeEnum (11.10.5.3).
const INDOOR_OUTDOOR: u8 = 2;

/// ArmFailSafe `{0: expiry, 1: breadcrumb}` (11.10.7.2).
pub(super) async fn arm_fail_safe(session: &Session, expiry: Duration, breadcrumb: u64) -> Result<(), LinkError> {
    let seconds = u16::try_from(expiry.as_secs()).unwrap_or(u16::MAX);
    let path = CommandPath::root(cluster::GENERAL_COMMISSIONING, 0);
    let fields = move |writer: &mut _| arm_fields(writer, seconds, breadcrumb);
    session.invoke(path, fields, codec::commissioning_response).await
}

fn arm_fields(writer: &mut impl TLVWrite, seconds: u16, breadcrumb: u64) -> Result<(), rs_matter::error::Error> {
    writer.u16(&tag(0), seconds)?;
    writer.u64(&tag(1), breadcrumb)
}

fn regulatory_fields(
    writer: &mut impl TLVWrite,
    location: u8,
    country: &str,
    breadcrumb: u64,
) -> Result<(), rs_matter::error::Error> {
    writer.u8(&tag(0), location)?;
    writer.utf8(&tag(1), country)?;
    writer.u64(&tag(2), breadcrumb)
}

impl PaseLink {
    /// AttestationRequest (0) and CSRRequest (4), both `{0: nonce}`.
    async fn signed(&self, command: u32, nonce: [u8; 32]) -> Result<(Vec<u8>, Vec<u8>), LinkError> {
        let path = CommandPath::root(cluster::OPERATIONAL_CREDENTIALS, command);
        self.session.invoke(path, move |writer| writer.str(&tag(0), &nonce), codec::signed_elements).await
    }

    /// CertificateChainRequest `{0: type}` (11.18.6.3).
    async fn certificate(&self, kind: u8) -> Result<Vec<u8>, LinkError> {
        let path = CommandPath::root(cluster::OPERATIONAL_CREDENTIALS, 2);
        self.session.invoke(path, move |writer| writer.u8(&tag(0), kind), codec::certificate).await
    }
}

/// One read for all that is asked of a device before it gets credentials. Nine paths: as many must be supported (2.11.2.1).
pub(super) async fn describe(session: &Session) -> Result<DeviceDescription, LinkError> {
    let paths = vec![
        root(cluster::BASIC_INFORMATION, None),
        root(cluster::GENERAL_COMMISSIONING, None),
        root(cluster::NETWORK_COMMISSIONING, None),
        root(cluster::ICD_MANAGEMENT, Some(codec::FEATURE_MAP)),
        root(cluster::TIME_SYNCHRONIZATION, Some(codec::FEATURE_MAP)),
        root(cluster::ACCESS_CONTROL, Some(2)),
        root(cluster::ACCESS_CONTROL, Some(4)),
        root(cluster::OPERATIONAL_CREDENTIALS, Some(2)),
        root(cluster::OPERATIONAL_CREDENTIALS, Some(3)),
    ];
    let take = |gathered: &mut codec::Gathered, report: &crate::matter::command::AttributeReport<'_>| {
        gathered.take(report);
        Ok(())
    };
    session.read(paths, false, codec::Gathered::default(), take, Missing::Tolerate).await?.finish()
}
