//! The ledger's JSON: the parts of its answers that we read, and the revocation sets that we write.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::plain;

/// Any list with the ledger's paging.
#[derive(Deserialize)]
pub(crate) struct Page<T> {
    #[serde(flatten)]
    pub content: T,
    #[serde(default)]
    pub pagination: Option<Pagination>,
}

#[derive(Deserialize)]
pub(crate) struct Pagination {
    #[serde(default)]
    pub next_key: Option<String>,
}

/// `/dcl/pki/root-certificates`
#[derive(Deserialize)]
pub(crate) struct RootCertificates {
    #[serde(rename = "approvedRootCertificates")]
    pub approved_root_certificates: References,
}

#[derive(Deserialize)]
pub(crate) struct References {
    #[serde(default)]
    pub certs: Vec<CertificateReference>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CertificateReference {
    pub subject: String,
    pub subject_key_id: String,
}

/// `/dcl/pki/certificates/{subject}/{subjectKeyId}`
#[derive(Deserialize)]
pub(crate) struct Certificates {
    #[serde(rename = "approvedCertificates")]
    pub approved_certificates: ApprovedCertificates,
}

#[derive(Deserialize)]
pub(crate) struct ApprovedCertificates {
    #[serde(default)]
    pub certs: Vec<ApprovedCertificate>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ApprovedCertificate {
    pub pem_cert: String,
    #[serde(default)]
    pub is_root: bool,
}

/// `/dcl/pki/revocation-points`
#[derive(Deserialize)]
pub(crate) struct RevocationPoints {
    #[serde(rename = "PkiRevocationDistributionPoint", default)]
    pub points: Vec<RevocationPoint>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RevocationPoint {
    #[serde(default)]
    pub vid: u16,
    #[serde(default)]
    pub label: String,
    #[serde(rename = "issuerSubjectKeyID")]
    pub issuer_subject_key_id: String,
    pub crl_signer_certificate: String,
    #[serde(default)]
    pub crl_signer_delegator: String,
    #[serde(rename = "dataURL")]
    pub data_url: String,
    pub revocation_type: u32,
}

/// One entry of a file of revocation sets.
#[derive(Serialize, Deserialize)]
pub(crate) struct RevocationSet {
    #[serde(rename = "type")]
    kind: String,
    pub issuer_subject_key_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    issuer_name: Option<String>,
    pub revoked_serial_numbers: Vec<String>,
}

impl RevocationSet {
    /// From bytes to the texts of the format.
    pub(crate) fn new<'a>(
        issuer_subject_key_id: String,
        issuer_name: Option<Vec<u8>>,
        serials: impl Iterator<Item = &'a [u8]>,
    ) -> Self {
        Self {
            kind: "revocation_set".to_owned(),
            issuer_subject_key_id,
            issuer_name: issuer_name.map(|name| STANDARD.encode(name)),
            revoked_serial_numbers: serials.map(plain::upper_hex).collect(),
        }
    }
}
