//! TLS on the TCP listener: with the certificate that is configured, or with one that the hub makes for itself, whose fingerprint
//! goes with every invitation.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use der::asn1::BitString;
use der::pem::LineEnding;
use der::{Decode, Encode, EncodePem, Sequence};
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{DerSignature, SigningKey};
use p256::elliptic_curve::Generate;
use p256::pkcs8::EncodePrivateKey;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio_rustls::TlsAcceptor;
use x509_cert::Certificate;
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::time::Validity;
use zeroize::Zeroizing;

use crate::controller::csr::{ECDSA_WITH_SHA256, public_key};
use crate::plain;
use crate::secret::OperatorSecret;

/// What the store calls the certificate that the hub made.
pub(crate) const SELF_MADE: &str = "admin-tls";
/// Certificate or key files are no longer.
const MAX_FILE: usize = 64 * 1024;
/// A handshake takes no longer.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(10);

/// What answers handshakes now; every clone is changed together.
#[derive(Clone)]
pub struct Tls(Arc<RwLock<TlsAcceptor>>);

impl Tls {
    /// With this acceptor until another takes its place.
    pub fn new(acceptor: TlsAcceptor) -> Self {
        Self(Arc::new(RwLock::new(acceptor)))
    }

    /// The next handshakes are answered by another; connections that are open stay.
    pub fn replace(&self, acceptor: TlsAcceptor) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = acceptor;
    }

    /// What answers the next handshake.
    pub fn acceptor(&self) -> TlsAcceptor {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A certificate chain and its key, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPair {
    chain: String,
    key: OperatorSecret,
}

/// As it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    chain: String,
    key: String,
}

/// Why TLS cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{} cannot be read", path.display())]
    File { path: PathBuf, source: io::Error },
    /// What was read is no certificate with its key.
    #[error("the certificate for TLS cannot be used: {0}")]
    Unfit(String),
}

fn unfit(error: impl std::fmt::Display) -> TlsError {
    TlsError::Unfit(error.to_string())
}

impl KeyPair {
    /// Reads what is configured.
    ///
    /// # Errors
    /// A file cannot be read, or is longer than any certificate.
    pub fn read(chain: &Path, key: &Path) -> Result<Self, TlsError> {
        let read = |path: &Path| {
            let file = |source| TlsError::File { path: path.to_owned(), source };
            let text = std::fs::read_to_string(path).map_err(file)?;
            if text.len() > MAX_FILE {
                return Err(file(io::Error::other("it is longer than any certificate")));
            }
            Ok(text)
        };
        Ok(Self { chain: read(chain)?, key: OperatorSecret::new(read(key)?) })
    }

    /// A certificate for a hub that was given none. It names no address, for those change, and has no end: clients know it by
    /// its fingerprint.
    pub fn make(hub: &str) -> Result<Self, TlsError> {
        let secret = p256::SecretKey::generate_from_rng(&mut rand::rng());
        let signer = SigningKey::from(&secret);
        let chain = SelfMade::sign(hub, &signer).map_err(unfit)?;
        let key = secret.to_pkcs8_pem(LineEnding::LF).map_err(unfit)?;
        Ok(Self { chain, key: OperatorSecret::new(key.as_str()) })
    }

    /// What the store keeps: certificate and key, to be wiped after use.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let kept = Kept { chain: self.chain.clone(), key: self.key.expose().to_owned() };
        let bytes = serde_json::to_vec(&kept).expect("strings always serialise");
        zeroize::Zeroize::zeroize(&mut { kept.key });
        Zeroizing::new(bytes)
    }

    /// Reads [`Self::to_bytes`]; `None` where it is none.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let Kept { chain, key } = serde_json::from_slice(bytes).ok()?;
        Some(Self { chain, key: OperatorSecret::new(key) })
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        CertificateDer::pem_slice_iter(self.chain.as_bytes()).collect::<Result<_, _>>().map_err(unfit)
    }

    /// SHA-256 of the certificate that clients see, hex.
    pub fn fingerprint(&self) -> Result<String, TlsError> {
        let certificates = self.certificates()?;
        let first = certificates.first().ok_or_else(|| unfit("the file holds no certificate"))?;
        Ok(plain::lower_hex(&Sha256::digest(first)))
    }

    /// What answers handshakes.
    ///
    /// # Errors
    /// Certificate and key do not make a TLS server.
    pub fn acceptor(&self) -> Result<TlsAcceptor, TlsError> {
        let key = PrivateKeyDer::from_pem_slice(self.key.expose().as_bytes()).map_err(unfit)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = versions.map_err(unfit)?.with_no_client_auth().with_single_cert(self.certificates()?, key);
        let mut config = config.map_err(unfit)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// What is signed: version 3 without extensions, for nobody but its fingerprint says what it is good for.
#[derive(Sequence)]
struct ToBeSigned {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    version: u8,
    serial: SerialNumber,
    signature: AlgorithmIdentifierOwned,
    issuer: Name,
    validity: Validity,
    subject: Name,
    public_key: SubjectPublicKeyInfoOwned,
}

/// Signed by its own key.
#[derive(Sequence)]
struct SelfMade {
    signed: ToBeSigned,
    algorithm: AlgorithmIdentifierOwned,
    signature: BitString,
}

impl SelfMade {
    fn sign(hub: &str, key: &SigningKey) -> der::Result<String> {
        let algorithm = AlgorithmIdentifierOwned { oid: ECDSA_WITH_SHA256, parameters: None };
        let name: Name = format!("CN=matterbind {hub}").parse()?;
        let signed = ToBeSigned {
            version: 2,
            serial: SerialNumber::new(&[&[1][..], &rand::random::<[u8; 16]>()].concat())?,
            signature: algorithm.clone(),
            issuer: name.clone(),
            validity: Validity::infinity()?,
            subject: name,
            public_key: public_key(key)?,
        };
        let signature: DerSignature = key.sign(&signed.to_der()?);
        let whole = Self { signed, algorithm, signature: BitString::from_bytes(signature.as_bytes())? };
        Certificate::from_der(&whole.to_der()?)?.to_pem(LineEnding::LF)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_self_made_certificate_is_kept_and_used() {
        let made = KeyPair::make("87E1B004E235A130").unwrap();
        let kept = KeyPair::from_bytes(&made.to_bytes()).unwrap();
        assert_eq!(kept.fingerprint().unwrap(), made.fingerprint().unwrap());
        assert_eq!(made.fingerprint().unwrap().len(), 64);
        assert_ne!(KeyPair::make("87E1B004E235A130").unwrap().fingerprint().unwrap(), made.fingerprint().unwrap());
        assert!(kept.acceptor().is_ok());
        assert!(!format!("{made:?}").contains("PRIVATE"), "{made:?}");
        let other = KeyPair { key: KeyPair::make("x").unwrap().key, ..made };
        assert!(other.acceptor().is_err(), "a key that is not the certificate's");
        let none = KeyPair { chain: String::new(), ..other };
        assert!(none.fingerprint().is_err() && none.acceptor().is_err());
    }
}
