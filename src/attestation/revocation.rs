//! Revocation sets as the DCL's tooling writes them: which serial numbers of which issuer are revoked (Matter Core 6.2.4).

use std::collections::{HashMap, HashSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::certificate::{AttestationCertificate, KeyId, key_id_text};
use super::chain::Chain;
use super::finding::{Code, Findings, hex};
use super::trust::TrustStore;

/// The longest revocation file that is read, in bytes.
pub(crate) const REVOCATION_SIZE_MAX: usize = 16 << 20;

/// Why revocation sets cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RevocationFormatError {
    /// It is longer than [`REVOCATION_SIZE_MAX`].
    #[error("{size} bytes are too many")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
    },
    /// It is no JSON array of revocation sets.
    #[error("it is no JSON array of revocation sets")]
    Json(#[from] serde_json::Error),
    /// One entry's values are not what they should be. Nothing of the file is taken.
    #[error("entry {index}: {field} is not well-formed")]
    Entry {
        /// Which one, from 0.
        index: usize,
        field: &'static str,
    },
}

/// All known revocations, by the issuer's key identifier.
#[derive(Debug, Clone, Default)]
pub(crate) struct RevocationSets(HashMap<KeyId, Vec<RevocationSet>>);

#[derive(Debug, Clone)]
struct RevocationSet {
    issuer_name: Option<Vec<u8>>,
    serials: HashSet<Vec<u8>>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    issuer_subject_key_id: String,
    #[serde(default)]
    issuer_name: Option<String>,
    #[serde(default)]
    revoked_serial_numbers: Vec<String>,
}

impl RevocationSets {
    /// Adds the sets of a JSON array; entries of other types are passed over. All or nothing; gives how many were added.
    pub(crate) fn add(&mut self, json: &[u8]) -> Result<usize, RevocationFormatError> {
        if json.len() > REVOCATION_SIZE_MAX {
            return Err(RevocationFormatError::TooLarge { size: json.len() });
        }
        let entries: Vec<Entry> = serde_json::from_slice(json)?;
        let sets = entries
            .iter()
            .enumerate()
            .filter(|(_, entry)| entry.kind == "revocation_set")
            .map(|(index, entry)| read(entry).map_err(|field| RevocationFormatError::Entry { index, field }))
            .collect::<Result<Vec<_>, _>>()?;
        let added = sets.len();
        for (issuer, set) in sets {
            self.0.entry(issuer).or_default().push(set);
        }
        Ok(added)
    }

    /// How many sets there are.
    pub(crate) fn len(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    fn revokes(&self, certificate: &AttestationCertificate) -> bool {
        let sets = certificate.akid.and_then(|akid| self.0.get(&akid));
        sets.into_iter().flatten().any(|set| {
            set.issuer_name.as_ref().is_none_or(|name| *name == certificate.issuer_der)
                && set.serials.contains(&certificate.serial)
        })
    }
}

fn read(entry: &Entry) -> Result<(KeyId, RevocationSet), &'static str> {
    let issuer = unhex(&entry.issuer_subject_key_id)
        .and_then(|bytes| KeyId::try_from(bytes).ok())
        .ok_or("issuer_subject_key_id")?;
    let issuer_name =
        entry.issuer_name.as_ref().map(|text| STANDARD.decode(text)).transpose().map_err(|_| "issuer_name")?;
    let serials = entry
        .revoked_serial_numbers
        .iter()
        .map(|text| Some(unhex(text)?.into_iter().skip_while(|byte| *byte == 0).collect()))
        .collect::<Option<_>>()
        .ok_or("revoked_serial_numbers")?;
    Ok((issuer, RevocationSet { issuer_name, serials }))
}

/// Hex digits in either case, with or without colons, an odd number having a leading zero.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .bytes()
        .filter(|byte| *byte != b':')
        .map(|byte| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    Some(digits.rchunks(2).rev().map(|pair| pair.iter().fold(0, |value, digit| value << 4 | digit)).collect())
}

/// Notes each revoked certificate of the chain.
pub(crate) fn check(chain: &Chain, trust: &TrustStore, findings: &mut Findings) {
    for certificate in [&chain.dac, &chain.pai].into_iter().flatten() {
        if trust.revocations().revokes(certificate) {
            let name = certificate.role.as_str();
            let values = [
                ("certificate", name.to_owned()),
                ("serial_number", hex(&certificate.serial)),
                ("issuer_key_id", key_id_text(certificate.akid.as_ref())),
            ];
            findings.add(Code::CertificateRevoked, format!("the {name} was revoked by its issuer"), values);
        }
    }
}
