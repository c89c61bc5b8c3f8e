//! DAC, PAI and PAA as a chain: names, key identifiers, signatures, validity, vendor and product ids (Matter Core 6.2.3.1).

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::certificate::{AttestationCertificate, Role, bounded, key_id_text, parse};
use super::finding::{Code, Findings, hex, id};
use super::trust::TrustStore;

/// The certificates that could be read.
#[derive(Debug)]
pub(crate) struct Chain {
    pub dac: Option<AttestationCertificate>,
    pub pai: Option<AttestationCertificate>,
    /// The trusted root that the PAI names and that signed it.
    pub paa: Option<Arc<AttestationCertificate>>,
}

/// A certificate as a report shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateSummary {
    /// Subject, RFC 4514, cut at 128 characters.
    pub subject: String,
    /// Issuer, RFC 4514, cut at 128 characters.
    pub issuer: String,
    /// Serial number, hex.
    pub serial_number: String,
    /// Subject key identifier, hex, or `none`.
    pub subject_key_id: String,
    /// Authority key identifier, hex, or `none`.
    pub authority_key_id: String,
    /// Vendor id of the subject.
    pub vendor_id: Option<u16>,
    /// Product id of the subject.
    pub product_id: Option<u16>,
    /// When it begins to be valid, RFC 3339.
    pub not_before: String,
    /// RFC 3339; the year 9999 means no expiry.
    pub not_after: String,
}

impl From<&AttestationCertificate> for CertificateSummary {
    fn from(certificate: &AttestationCertificate) -> Self {
        Self {
            subject: bounded(&certificate.subject.to_string()),
            issuer: bounded(&certificate.issuer.to_string()),
            serial_number: hex(&certificate.serial),
            subject_key_id: key_id_text(certificate.skid.as_ref()),
            authority_key_id: key_id_text(certificate.akid.as_ref()),
            vendor_id: certificate.vendor_id,
            product_id: certificate.product_id,
            not_before: certificate.validity.0.clone(),
            not_after: certificate.validity.1.clone(),
        }
    }
}

/// Judges the chain at `at`.
pub(crate) fn check(dac: &[u8], pai: &[u8], at: Timestamp, trust: &TrustStore, findings: &mut Findings) -> Chain {
    let dac = parse(dac, Role::Dac, findings);
    let pai = parse(pai, Role::Pai, findings);
    let paa = pai.as_ref().and_then(|pai| find_paa(pai, trust, findings));
    if let (Some(dac), Some(pai)) = (&dac, &pai) {
        check_link(dac, pai, findings);
        check_ids(dac, pai, findings);
    }
    if let (Some(pai), Some(paa)) = (&pai, &paa) {
        check_link(pai, paa, findings);
        check_scope(pai, paa, findings);
        if trust.is_test_paa(paa) {
            let values = [("subject_key_id", key_id_text(paa.skid.as_ref()))];
            findings.add(Code::TestPaa, "the chain ends in a public test PAA, whose key anyone may use", values);
        }
    }
    if let Some(dac) = &dac {
        check_validity(dac, pai.as_ref(), paa.as_deref(), at, findings);
    }
    Chain { dac, pai, paa }
}

/// The trusted PAA that the PAI names; where several share a key identifier, the one that signed.
fn find_paa(
    pai: &AttestationCertificate,
    trust: &TrustStore,
    findings: &mut Findings,
) -> Option<Arc<AttestationCertificate>> {
    let candidates = pai.akid.map(|akid| trust.paas(&akid)).unwrap_or_default();
    let paa = candidates.iter().find(|paa| pai.is_signed_by(paa)).or(candidates.first());
    if paa.is_none() {
        let values = [
            ("authority_key_id", key_id_text(pai.akid.as_ref())),
            ("issuer", bounded(&pai.issuer.to_string())),
            ("trusted", trust.paa_count().to_string()),
        ];
        findings.add(Code::PaaNotTrusted, "the PAI's issuer is none of the trusted PAAs", values);
    }
    paa.cloned()
}

fn check_link(certificate: &AttestationCertificate, issuer: &AttestationCertificate, findings: &mut Findings) {
    let (name, issuer_name) = (certificate.role.as_str(), issuer.role.as_str());
    if !certificate.is_named_by(issuer) {
        let values = [
            ("certificate", name.to_owned()),
            ("issuer", bounded(&certificate.issuer.to_string())),
            ("subject", bounded(&issuer.subject.to_string())),
        ];
        findings.add(Code::IssuerName, format!("the {name}'s issuer is not the {issuer_name}"), values);
    }
    if certificate.akid.is_some() && certificate.akid != issuer.skid {
        let values = [
            ("certificate", name.to_owned()),
            ("authority_key_id", key_id_text(certificate.akid.as_ref())),
            ("subject_key_id", key_id_text(issuer.skid.as_ref())),
        ];
        let message = format!("the {name} names another key than the {issuer_name}'s");
        findings.add(Code::KeyIdentifier, message, values);
    }
    if !certificate.is_signed_by(issuer) {
        let message = format!("the {name} is not signed by the {issuer_name}");
        findings.add(Code::CertificateSignature, message, [("certificate", name.to_owned())]);
    }
}

/// A missing id is a finding of the certificate itself. "The VendorID in the DAC shall match the PAI's; if the PAI has a ProductID, it shall match the DAC's" (6.2.2).
fn check_ids(dac: &AttestationCertificate, pai: &AttestationCertificate, findings: &mut Findings) {
    if let (Some(ours), Some(theirs)) = (dac.vendor_id, pai.vendor_id)
        && ours != theirs
    {
        let values = [("dac", id(ours)), ("pai", id(theirs))];
        findings.add(Code::ChainVendorId, "DAC and PAI are for different vendors", values);
    }
    if let (Some(ours), Some(theirs)) = (dac.product_id, pai.product_id)
        && ours != theirs
    {
        let values = [("dac", id(ours)), ("pai", id(theirs))];
        findings.add(Code::ChainProductId, "the PAI may only issue for another product", values);
    }
}

/// "If the PAA has a VendorID, it shall match the PAI's" (6.2.2.5).
fn check_scope(pai: &AttestationCertificate, paa: &AttestationCertificate, findings: &mut Findings) {
    if let (Some(ours), Some(theirs)) = (pai.vendor_id, paa.vendor_id)
        && ours != theirs
    {
        let values = [("pai", id(ours)), ("paa", id(theirs))];
        findings.add(Code::PaaVendorScope, "the PAA may only issue for another vendor", values);
    }
}

/// The DAC must be valid now, its issuers when it was issued (6.2.3.1: "with respect to the notBefore of the DAC").
fn check_validity(
    dac: &AttestationCertificate,
    pai: Option<&AttestationCertificate>,
    paa: Option<&AttestationCertificate>,
    at: Timestamp,
    findings: &mut Findings,
) {
    let now = at.as_second();
    if now < dac.not_before {
        let values = [("not_before", dac.validity.0.clone()), ("at", at.to_string())];
        findings.add(
            Code::DacNotYetValid,
            "the DAC is not valid yet: it is from the future, or the hub's clock is wrong",
            values,
        );
    }
    if now > dac.not_after {
        let values = [("not_after", dac.validity.1.clone()), ("at", at.to_string())];
        findings.add(Code::DacExpired, "the DAC has expired", values);
    }
    for issuer in [pai, paa].into_iter().flatten() {
        if !issuer.is_valid_at(dac.not_before) {
            let name = issuer.role.as_str();
            let values = [
                ("certificate", name.to_owned()),
                ("not_before", issuer.validity.0.clone()),
                ("not_after", issuer.validity.1.clone()),
                ("dac_not_before", dac.validity.0.clone()),
            ];
            findings.add(Code::IssuerValidity, format!("the {name} was not valid when the DAC was issued"), values);
        }
    }
}
