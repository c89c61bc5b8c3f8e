//! The trust store on disk: PAA certificates from directories, revocation sets from the state directory, and the offline
//! verification of files.
//!
//! Every file is judged alone: one that is no PAA is named and left out, and the rest load. Reading is quick and needs no
//! network, so the daemon's start never waits for it. Not here: what a certificate must look like (`attestation`), and
//! fetching (`dcl`).

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use der::Decode;
use der::pem;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::attestation::finding::Finding;
use crate::attestation::policy::{Outcome, decide};
use crate::attestation::revocation::{REVOCATION_SIZE_MAX, RevocationFormatError};
use crate::attestation::trust::{PAA_SIZE_MAX, PaaRejected, TrustStore};
use crate::attestation::{Material, Report, certification_declaration::DECLARATION_SIZE_MAX, verify_material};
use crate::config::{AllowTest, AttestationConfig, AttestationPolicy};
use crate::plain;

/// The name of the record of the last successful fetch, in a PAA directory.
pub(crate) const FETCHED_FILE: &str = "fetched.json";

/// The most certificates of one PEM file.
const PEM_CERTIFICATES_MAX: usize = 1000;

/// A file that was left out, and why.
#[derive(Debug, thiserror::Error)]
#[error("{}", path.display())]
pub(crate) struct Quarantined {
    pub path: PathBuf,
    #[source]
    pub reason: QuarantineReason,
}

/// Why a file was left out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QuarantineReason {
    /// It cannot be read.
    #[error("it cannot be read")]
    Read(#[from] io::Error),
    /// It is too long to be what it should be.
    #[error("it is longer than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// It is PEM, and not well-formed.
    #[error("its PEM is not well-formed: {0}")]
    Pem(String),
    /// It is no PAA certificate.
    #[error(transparent)]
    Paa(#[from] PaaRejected),
    /// It holds no revocation sets.
    #[error(transparent)]
    Revocation(#[from] RevocationFormatError),
}

#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// Certificates and revocations that are good.
    pub trust: TrustStore,
    /// Files that are not.
    pub quarantined: Vec<Quarantined>,
}

/// Loads every PAA of `paa_dirs` and every `*.json` of `revocation_dir`. A directory that does not exist is an empty one.
pub(crate) fn load(paa_dirs: &[PathBuf], revocation_dir: Option<&Path>) -> Loaded {
    let mut loaded = Loaded::default();
    let paa_files: Vec<_> = paa_dirs.iter().flat_map(|directory| files(directory, &mut loaded.quarantined)).collect();
    for path in paa_files {
        if has_extension(&path, &["der", "pem", "cer", "crt"])
            && let Err(reason) = load_paa(&path, &mut loaded.trust)
        {
            loaded.quarantined.push(Quarantined { path, reason });
        }
    }
    let revocations = revocation_dir.map(|directory| files(directory, &mut loaded.quarantined)).unwrap_or_default();
    for path in revocations {
        if has_extension(&path, &["json"])
            && let Err(reason) = load_revocations(&path, &mut loaded.trust)
        {
            loaded.quarantined.push(Quarantined { path, reason });
        }
    }
    loaded
}

/// The directories of PAAs: those configured, or `<state_dir>/paa`.
pub(crate) fn paa_dirs(config: &AttestationConfig, state_dir: &Path) -> Vec<PathBuf> {
    if config.paa_dirs.is_empty() { vec![state_dir.join("paa")] } else { config.paa_dirs.clone() }
}

/// The directory of revocation sets.
pub(crate) fn revocation_dir(state_dir: &Path) -> PathBuf {
    state_dir.join("revocation")
}

/// The files of a directory in the order of their names, hidden ones (half-written ones) left out.
fn files(directory: &Path, quarantined: &mut Vec<Quarantined>) -> Vec<PathBuf> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            quarantined.push(Quarantined { path: directory.to_owned(), reason: error.into() });
            return Vec::new();
        }
    };
    let hidden = |path: &Path| path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(|path| !hidden(path)).collect();
    paths.sort();
    paths
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    extensions.iter().any(|one| one.eq_ignore_ascii_case(extension))
}

/// Reads a file that must not be longer than `limit`.
fn read_bounded(path: &Path, limit: usize) -> Result<Vec<u8>, QuarantineReason> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit { Err(QuarantineReason::TooLarge { limit }) } else { Ok(bytes) }
}

fn load_paa(path: &Path, trust: &mut TrustStore) -> Result<(), QuarantineReason> {
    let bytes = read_bounded(path, PAA_SIZE_MAX * PEM_CERTIFICATES_MAX)?;
    // All or nothing: a file of which one certificate is bad is a bad file.
    let mut with_file = trust.clone();
    for certificate in certificates(&bytes)? {
        with_file.add_paa(&certificate)?;
    }
    *trust = with_file;
    Ok(())
}

/// The certificates of a DER or PEM text, as DER.
pub(crate) fn certificates(bytes: &[u8]) -> Result<Vec<Vec<u8>>, QuarantineReason> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let Some(text) = std::str::from_utf8(bytes).ok().filter(|text| text.contains(BEGIN)) else {
        return Ok(vec![bytes.to_vec()]);
    };
    text.split_inclusive(END)
        .filter_map(|part| part.find(BEGIN).map(|start| &part[start..]))
        .take(PEM_CERTIFICATES_MAX)
        .map(|part| {
            let (_, der) =
                pem::decode_vec(part.as_bytes()).map_err(|error| QuarantineReason::Pem(error.to_string()))?;
            Ok(der)
        })
        .collect()
}

fn load_revocations(path: &Path, trust: &mut TrustStore) -> Result<(), QuarantineReason> {
    trust.add_revocations(&read_bounded(path, REVOCATION_SIZE_MAX)?)?;
    Ok(())
}

/// What a fetch got and left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fetched {
    /// Where it came from: an URL or a directory.
    pub source: String,
    pub fetched_at: Timestamp,
    /// How many PAAs were written.
    pub paas: usize,
    /// Certificates that are no PAA, by name, and why.
    pub rejected: BTreeMap<String, String>,
}

/// Why PAAs could not be stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StorePaaError {
    /// The file system failed; what was there before is still there.
    #[error("{} cannot be written", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The source directory cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// None of the certificates is a PAA: a source like that is not believed.
    #[error("{origin} holds no usable PAA certificate")]
    Empty {
        /// Where they came from.
        origin: String,
    },
}

/// The last successful fetch into a PAA directory.
pub(crate) fn last_fetched(directory: &Path) -> Option<Fetched> {
    serde_json::from_slice(&read_bounded(&directory.join(FETCHED_FILE), 1 << 20).ok()?).ok()
}

/// Stores certificates, each judged alone, one file per subject key identifier, and records the success last. Files that
/// were there stay: what an operator put in is theirs.
pub(crate) fn store(
    directory: &Path,
    source: &str,
    certificates: impl IntoIterator<Item = (String, Vec<u8>)>,
    now: Timestamp,
) -> Result<Fetched, StorePaaError> {
    let mut fetched = Fetched { source: source.to_owned(), fetched_at: now, ..Fetched::default() };
    let mut good = BTreeMap::new();
    let mut trust = TrustStore::new();
    for (name, der) in certificates {
        match trust.add_paa(&der) {
            // Two certificates may share a key: the serial number keeps their files apart.
            Ok(skid) => {
                let serial = x509_cert::Certificate::from_der(&der)
                    .map(|certificate| plain::upper_hex(certificate.tbs_certificate().serial_number().as_bytes()))
                    .unwrap_or_default();
                good.insert(format!("{}-{serial}.der", plain::upper_hex(&skid)), der);
            }
            Err(error) => {
                fetched.rejected.insert(name, error.to_string());
            }
        }
    }
    if good.is_empty() {
        return Err(StorePaaError::Empty { origin: source.to_owned() });
    }
    fetched.paas = good.len();
    let write = |name: &str, bytes: &[u8]| {
        let path = directory.join(name);
        write_atomically(&path, bytes).map_err(|source| StorePaaError::Write { path, source })
    };
    fs::create_dir_all(directory).map_err(|source| StorePaaError::Write { path: directory.to_owned(), source })?;
    for (name, der) in &good {
        write(name, der)?;
    }
    write(FETCHED_FILE, &serde_json::to_vec_pretty(&fetched).expect("a record of strings and numbers is JSON"))?;
    Ok(fetched)
}

/// `attestation update-paa --from DIR`: every certificate file of `source`, for [`store`].
///
/// # Errors
/// `source` is no directory.
pub(crate) fn collect(source: &Path) -> Result<Vec<(String, Vec<u8>)>, StorePaaError> {
    let read = |error| StorePaaError::Read { path: source.to_owned(), source: error };
    let mut unreadable = Vec::new();
    if !source.is_dir() {
        return Err(read(io::Error::from(io::ErrorKind::NotADirectory)));
    }
    let paths = files(source, &mut unreadable);
    let mut found = Vec::new();
    for path in paths.iter().filter(|path| has_extension(path, &["der", "pem", "cer", "crt"])) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let bytes = read_bounded(path, PAA_SIZE_MAX * PEM_CERTIFICATES_MAX).and_then(|bytes| certificates(&bytes));
        // A file that cannot be read is judged as an empty certificate, so that it is named among the rejected.
        let ders = bytes.unwrap_or_else(|_| vec![Vec::new()]);
        found.extend(ders.into_iter().enumerate().map(|(index, der)| (format!("{name}#{index}"), der)));
    }
    Ok(found)
}

/// Writes by temporary file, fsync, rename and fsync of the directory: the file is the old one or the new one, never half.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write;
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let temporary = directory.join(format!(".{}.tmp", Uuid::now_v7()));
    let written = (|| {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        fs::File::open(directory)?.sync_all()
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Why files cannot be verified.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be read", path.display())]
pub(crate) struct VerifyFilesError {
    pub path: PathBuf,
    #[source]
    pub source: io::Error,
}

/// What `matterbind attestation verify --json` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OfflineResult {
    /// Whether chain and declaration are valid.
    pub accepted: bool,
    pub verdict: Outcome,
    pub findings: Vec<Finding>,
    pub report: Report,
    /// Files of the trust store that were left out, and why.
    pub quarantined: Vec<String>,
}

/// The files of `matterbind attestation verify`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EvidenceFiles<'a> {
    /// DAC, DER or PEM.
    pub dac: &'a Path,
    /// PAI, DER or PEM.
    pub pai: &'a Path,
    /// Certification declaration, DER.
    pub certification_declaration: &'a Path,
    /// The vendor id that the device claims.
    pub vendor_id: u16,
    /// The product id that the device claims.
    pub product_id: u16,
}

/// Verifies files at `now`. There is no session, so nonce and signature are not judged; test material is reported and
/// accepted, since this asks whether the evidence is valid, not whether this hub would take the device.
pub(crate) fn verify_files(
    files: &EvidenceFiles<'_>,
    paa_dirs: &[PathBuf],
    revocation_dir: Option<&Path>,
    now: Timestamp,
) -> Result<OfflineResult, VerifyFilesError> {
    let loaded = load(paa_dirs, revocation_dir);
    let dac = read_evidence(files.dac)?;
    let pai = read_evidence(files.pai)?;
    let certification_declaration = read_evidence(files.certification_declaration)?;
    let material = Material {
        dac: &dac,
        pai: &pai,
        certification_declaration: &certification_declaration,
        vendor_id: files.vendor_id,
        product_id: files.product_id,
        at: now,
    };
    let report = verify_material(&material, &loaded.trust);
    let config = AttestationConfig {
        policy: AttestationPolicy::Require,
        allow_test: vec![AllowTest { vendor_id: files.vendor_id, product_id: Some(files.product_id) }],
        ..AttestationConfig::default()
    };
    let verdict = decide(&report, &config, None);
    Ok(OfflineResult {
        accepted: verdict.is_accepted(),
        verdict: verdict.outcome,
        findings: report.findings.clone(),
        report,
        quarantined: loaded.quarantined.iter().map(|left_out| plain::with_causes(left_out)).collect(),
    })
}

/// Reads evidence. What is longer than any evidence may be is cut, and is then refused for its length as a finding.
fn read_evidence(path: &Path) -> Result<Vec<u8>, VerifyFilesError> {
    let fail = |source| VerifyFilesError { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(fail)?;
    file.take(16 * DECLARATION_SIZE_MAX as u64).read_to_end(&mut bytes).map_err(fail)?;
    // PEM that does not decode is no certificate either: the verification says so.
    Ok(certificates(&bytes).ok().and_then(|all| all.into_iter().next()).unwrap_or(bytes))
}

#[cfg(test)]
#[cfg(feature = "sim")]
mod tests {
    use base64::Engine;

    use super::*;
    use crate::attestation::finding::Code;
    use crate::sim::evidence::{Builder, TEST_PAA_NOVID_CERT, generate};

    fn put(directory: &Path, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = directory.join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    fn pem(der: &[u8]) -> String {
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
    }

    #[test]
    fn a_bad_file_is_named_and_the_rest_load() {
        let directory = tempfile::tempdir().unwrap();
        let own = Builder::new(1, 2).own_paa(None).build();
        put(directory.path(), "chip.der", TEST_PAA_NOVID_CERT);
        put(directory.path(), "own.pem", format!("# a comment\n{}", pem(&own.paa)));
        put(directory.path(), "dac.der", &own.dac);
        put(directory.path(), "empty.der", "");
        put(directory.path(), "broken.pem", "-----BEGIN CERTIFICATE-----\nAAA!\n-----END CERTIFICATE-----\n");
        put(directory.path(), "README", "not a certificate, and not meant as one");
        put(directory.path(), ".half-written.der", "");
        let revocations = tempfile::tempdir().unwrap();
        put(revocations.path(), "good.json", "[]");
        put(revocations.path(), "bad.json", "{");
        let dirs = [directory.path().to_owned(), directory.path().join("absent")];
        let loaded = load(&dirs, Some(revocations.path()));
        assert_eq!(loaded.trust.paa_count(), 2);
        let names: Vec<_> = loaded.quarantined.iter().map(|it| it.path.file_name().unwrap()).collect();
        assert_eq!(names, ["broken.pem", "dac.der", "empty.der", "bad.json"]);
        assert!(plain::with_causes(&loaded.quarantined[1]).contains("it is no PAA"), "{:?}", loaded.quarantined[1]);
    }

    #[test]
    fn a_directory_is_taken_over_and_the_success_recorded() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        put(from.path(), "none.der", "");
        let import = |from: &Path| store(to.path(), "a directory", collect(from)?, now);
        let refused = import(from.path());
        assert!(matches!(refused, Err(StorePaaError::Empty { .. })), "{refused:?}");
        assert_eq!(last_fetched(to.path()), None);
        assert!(import(&from.path().join("absent")).is_err());
        put(from.path(), "chip.pem", pem(TEST_PAA_NOVID_CERT));
        let fetched = import(from.path()).unwrap();
        assert_eq!((fetched.paas, fetched.rejected.len()), (1, 1));
        assert_eq!(last_fetched(to.path()), Some(fetched));
        assert_eq!(load(&[to.path().to_owned()], None).trust.paa_count(), 1);
    }

    #[test]
    fn files_are_verified_offline() {
        let directory = tempfile::tempdir().unwrap();
        put(directory.path(), "paa.der", TEST_PAA_NOVID_CERT);
        let verify = |evidence: &crate::sim::evidence::Evidence, product_id| {
            let files = tempfile::tempdir().unwrap();
            let files = EvidenceFiles {
                dac: &put(files.path(), "dac", &evidence.dac),
                pai: &put(files.path(), "pai", pem(&evidence.pai)),
                certification_declaration: &put(files.path(), "cd", &evidence.certification_declaration),
                vendor_id: 0xFFF1,
                product_id,
            };
            let now = "2026-01-01T00:00:00Z".parse().unwrap();
            verify_files(&files, &[directory.path().to_owned()], None, now).unwrap()
        };
        let evidence = generate(0xFFF1, 0x8000);
        let good = verify(&evidence, 0x8000);
        assert!(good.accepted);
        let json = serde_json::to_value(&good).unwrap();
        assert_eq!((&json["accepted"], &json["verdict"]), (&true.into(), &"accepted".into()));
        assert_eq!(json["findings"][0]["code"], "test-paa");
        let other = verify(&evidence, 0x8001);
        assert_eq!((other.accepted, other.verdict), (false, Outcome::Rejected));
        let mut long = evidence;
        long.dac = vec![0x30; 1 << 20];
        assert_eq!(verify(&long, 0x8000).findings[0].code, Code::CertificateTooLarge);
    }
}
