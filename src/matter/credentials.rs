//! Our certificate authority: RCAC, ICAC and IPK minted once, NOCs signed for nodes and for the hub (Matter Core 6.4, 6.5).
//!
//! Certificates of devices and of the hub have no end of validity (Matter Core 6.5.10: NotAfter 0), because a device whose
//! certificate expires is lost; those of controllers have one. Not here: where the keys lie (`keystore`), which node ids are given (the caller).

use jiff::Timestamp;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rs_matter::cert::CertRef;
use rs_matter::cert::MAX_CERT_TLV_AND_ASN1_LEN;
use rs_matter::cert::r#gen::{VALID_FOREVER, Validity};
use rs_matter::crypto::backend::rustcrypto::RustCrypto;
use rs_matter::crypto::{
    CanonPkcPublicKey, CanonPkcSecretKey, CanonPkcSecretKeyRef, CanonUint320Ref, Crypto, CryptoSensitive,
    CryptoSensitiveRef, EcPoint, EcScalar, PbKdf, PublicKey, Rng, SecretKey, SigningSecretKey,
};
use rs_matter::error::Error;
use rs_matter::onboard::cac::{IcacGenerator, RcacGenerator};
use rs_matter::onboard::noc::NocGenerator;
use rs_matter::tlv::TLVElement;
use zeroize::Zeroizing;

use crate::controller::csr::CheckedCsr;
use crate::fabric::{Cat, MAX_CATS_PER_NOC};
use crate::keystore::KeyBundle;
use crate::node::{FabricId, NodeId};
use crate::secret::{IpkEpochKey, OperationalSigningKey, Passcode};

/// VendorID of the administrator where none is configured, and in our own fabric table. We have none assigned: the first test
/// vendor id.
pub(crate) const ADMIN_VENDOR_ID: u16 = 0xFFF1;
/// Certificates count seconds from 2000-01-01 (Matter Core 7.19.2.5).
const MATTER_EPOCH: i64 = 946_684_800;
/// A CSR of a P-256 key takes about 230 bytes.
const CSR_LEN: usize = 512;

/// The cryptography that rs-matter and our authority use.
pub(crate) type Backend = RustCrypto<'static, StdRng>;

/// A backend of its own random state.
pub(crate) fn backend() -> Backend {
    // The "singleton key" is a device's attestation key; an administrator has none and never uses it.
    static UNUSED: [u8; 32] = [0x42; 32];
    RustCrypto::new(StdRng::from_rng(&mut rand::rng()), CanonPkcSecretKeyRef::new(&UNUSED))
}

/// A certificate could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// No CSR, or its own signature does not verify.
    #[error("the certificate signing request is malformed or not signed by its own key")]
    Csr,
    /// One to three CATs belong into the hub's NOC.
    #[error("a node operational certificate holds at most {MAX_CATS_PER_NOC} tags, {0} were given")]
    TooManyCats(usize),
    /// A certificate may carry one version of a tag only (Matter Core 6.6.2.1.2); devices refuse CASE with two.
    #[error("a node operational certificate holds one version of a tag, {0:#06x} was given in two")]
    TwoVersions(u16),
    /// Certificates count 32 bits of seconds from the year 2000.
    #[error("a certificate cannot end at {0}")]
    Validity(Timestamp),
    /// The stored keys do not make certificates.
    #[error("the fabric's keys are unusable: {0}")]
    Unusable(String),
}

fn unusable(error: Error) -> CredentialError {
    CredentialError::Unusable(error.to_string())
}

/// Makes a fabric: RCAC, ICAC, IPK and the hub's own key and NOC with the admin CATs. `fabric_id` and `hub_node` are the
/// caller's choice, random in 1..=[`crate::node::OWN_ID_MAX`].
///
/// # Errors
/// No or too many CATs, two versions of one, or the random source fails.
pub fn mint(
    fabric_id: FabricId,
    hub_node: NodeId,
    hub_cats: &[Cat],
    now: Timestamp,
) -> Result<KeyBundle, CredentialError> {
    let crypto = backend();
    let mut buffer = [0u8; MAX_CERT_TLV_AND_ASN1_LEN];
    let mut generator = RcacGenerator::new(&mut buffer);
    let (rcac_key, rcac) = generator.generate(&crypto, fabric_id.0, VALID_FOREVER).map_err(unusable)?;
    let mut buffer = [0u8; MAX_CERT_TLV_AND_ASN1_LEN];
    let mut generator = IcacGenerator::new(&mut buffer);
    let (icac_key, icac) = generator.generate(&crypto, rcac_key.reference(), rcac, VALID_FOREVER).map_err(unusable)?;
    let mut ipk = Zeroizing::new([0u8; 16]);
    crypto.rand().map_err(unusable)?.fill_bytes(&mut *ipk);
    let mut bundle = KeyBundle {
        fabric_id,
        hub_node,
        hub_cats: Vec::new(),
        rcac: rcac.to_vec(),
        rcac_key: Some(signing_key(&rcac_key)?),
        icac: icac.to_vec(),
        icac_key: signing_key(&icac_key)?,
        ipk: IpkEpochKey::new(*ipk),
        hub_noc: Vec::new(),
        hub_key: OperationalSigningKey::new([0; 32]),
        created_at: now,
    };
    reissue_hub_noc(&mut bundle, hub_cats)?;
    Ok(bundle)
}

/// Gives the hub a new operational key and a NOC with other CATs, for instance when a CAT's version is raised. The caller
/// stores the bundle and restarts the stack with it, or installs it there.
///
/// # Errors
/// No or too many CATs, two versions of one, or keys that do not sign.
pub fn reissue_hub_noc(bundle: &mut KeyBundle, hub_cats: &[Cat]) -> Result<(), CredentialError> {
    if hub_cats.is_empty() {
        return Err(CredentialError::TooManyCats(0));
    }
    check_cats(hub_cats)?;
    let crypto = backend();
    let key = crypto.generate_secret_key().map_err(unusable)?;
    let mut canonical = CanonPkcSecretKey::new();
    key.write_canon(&mut canonical).map_err(unusable)?;
    let mut csr = [0u8; CSR_LEN];
    let csr = key.csr(&mut csr).map_err(unusable)?;
    bundle.hub_noc = sign(bundle, &crypto, csr, bundle.hub_node, hub_cats, VALID_FOREVER)?;
    bundle.hub_key = signing_key(&canonical)?;
    bundle.hub_cats = hub_cats.to_vec();
    Ok(())
}

/// What a certificate may carry of tags.
fn check_cats(cats: &[Cat]) -> Result<(), CredentialError> {
    if cats.len() > MAX_CATS_PER_NOC {
        return Err(CredentialError::TooManyCats(cats.len()));
    }
    for (index, cat) in cats.iter().enumerate() {
        if cats[..index].iter().any(|other| other.identifier() == cat.identifier()) {
            return Err(CredentialError::TwoVersions(cat.identifier()));
        }
    }
    Ok(())
}

/// Until when a certificate is valid (Matter Core 6.5.10). It begins in 2000, so that a peer whose clock is not set takes it too.
fn valid_until(end: Option<Timestamp>) -> Result<Validity, CredentialError> {
    let Some(end) = end else { return Ok(VALID_FOREVER) };
    let not_after = u32::try_from(end.as_second() - MATTER_EPOCH).ok().filter(|seconds| *seconds > 1);
    let not_after = not_after.ok_or(CredentialError::Validity(end))?;
    Ok(Validity { not_after, ..VALID_FOREVER })
}

fn signing_key(key: &CanonPkcSecretKey) -> Result<OperationalSigningKey, CredentialError> {
    let bytes: [u8; 32] =
        key.access().as_slice().try_into().map_err(|_| CredentialError::Unusable("key length".to_owned()))?;
    Ok(OperationalSigningKey::new(bytes))
}

fn sign(
    bundle: &KeyBundle,
    crypto: &Backend,
    csr: &[u8],
    node: NodeId,
    cats: &[Cat],
    validity: Validity,
) -> Result<Vec<u8>, CredentialError> {
    let key = CanonPkcSecretKeyRef::try_new(bundle.icac_key.expose()).map_err(unusable)?;
    let mut buffer = [0u8; MAX_CERT_TLV_AND_ASN1_LEN];
    let mut generator = NocGenerator::create(key, &bundle.rcac, &bundle.icac, &mut buffer).map_err(unusable)?;
    let cats: Vec<u32> = cats.iter().map(|cat| cat.value()).collect();
    generator.generate(crypto, csr, node.0, &cats, validity).map(<[u8]>::to_vec).map_err(unusable)
}

/// What signs for the fabric's nodes, with the public facts about the fabric.
#[derive(Debug, Clone)]
pub struct Credentials {
    bundle: KeyBundle,
    root_public_key: Vec<u8>,
    compressed_fabric_id: u64,
    admin_vendor_id: u16,
}

impl Credentials {
    /// # Errors
    /// The bundle's certificates do not parse.
    pub fn new(bundle: KeyBundle) -> Result<Self, CredentialError> {
        let rcac = CertRef::new(TLVElement::new(&bundle.rcac));
        let root_public_key = rcac.pubkey().map_err(unusable)?.to_vec();
        let compressed_fabric_id = compressed_fabric_id(&root_public_key, bundle.fabric_id)?;
        Ok(Self { bundle, root_public_key, compressed_fabric_id, admin_vendor_id: ADMIN_VENDOR_ID })
    }

    /// The same, with the vendor id that devices are told in AddNOC.
    #[must_use]
    pub fn with_admin_vendor_id(self, admin_vendor_id: u16) -> Self {
        Self { admin_vendor_id, ..self }
    }

    /// AdminVendorId (11.18.6.8): the vendor of this administrator, as other administrators see it.
    pub fn admin_vendor_id(&self) -> u16 {
        self.admin_vendor_id
    }

    /// The keys and certificates that these credentials are made of.
    pub fn bundle(&self) -> &KeyBundle {
        &self.bundle
    }

    /// RCAC, Matter TLV.
    pub fn rcac(&self) -> &[u8] {
        &self.bundle.rcac
    }

    /// RCAC public key, 65 bytes, uncompressed.
    pub fn root_public_key(&self) -> &[u8] {
        &self.root_public_key
    }

    /// What DNS-SD calls our fabric (Matter Core 4.3.2.2).
    pub fn compressed_fabric_id(&self) -> u64 {
        self.compressed_fabric_id
    }

    /// Signs a NOC without CATs for the key in `csr` (PKCS#10, DER).
    ///
    /// # Errors
    /// The CSR does not parse or is not signed by its own key.
    pub fn issue_noc(&self, node: NodeId, csr: &[u8]) -> Result<Vec<u8>, CredentialError> {
        let crypto = backend();
        let request = rs_matter::cert::x509::csr::CsrRef::new(csr).map_err(|_| CredentialError::Csr)?;
        request.verify(&crypto).map_err(|_| CredentialError::Csr)?;
        sign(&self.bundle, &crypto, csr, node, &[], VALID_FOREVER)
    }

    /// Signs a NOC with up to three CATs for a controller, valid until `end`.
    ///
    /// # Errors
    /// Too many CATs, two versions of one, an end that a certificate cannot name, or a CSR that rs-matter does not take.
    pub fn issue_controller_noc(
        &self,
        node: NodeId,
        csr: &CheckedCsr,
        cats: &[Cat],
        end: Option<Timestamp>,
    ) -> Result<Vec<u8>, CredentialError> {
        check_cats(cats)?;
        let noc = sign(&self.bundle, &backend(), csr.der(), node, cats, valid_until(end)?)?;
        // Two parsers have read the request; the certificate is for the key that was checked.
        let key = CertRef::new(TLVElement::new(&noc)).pubkey().map_err(unusable)?.to_vec();
        if key == csr.public_key() { Ok(noc) } else { Err(CredentialError::Csr) }
    }

    /// Whether a key is one of the fabric's own: the root's, the intermediate's or the hub's.
    ///
    /// # Errors
    /// The bundle's certificates do not parse.
    pub fn is_own_key(&self, public_key: &[u8]) -> Result<bool, CredentialError> {
        let bundle = &self.bundle;
        for certificate in [&bundle.rcac, &bundle.icac, &bundle.hub_noc] {
            if CertRef::new(TLVElement::new(certificate)).pubkey().map_err(unusable)? == public_key {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether `key` is the private half of the key that the root certificate shows.
pub(crate) fn is_root_key(rcac: &[u8], key: &OperationalSigningKey) -> bool {
    let same = || -> Result<bool, Error> {
        let secret = backend().secret_key(CanonPkcSecretKeyRef::try_new(key.expose())?)?;
        let mut public = CanonPkcPublicKey::new();
        secret.pub_key()?.write_canon(&mut public)?;
        Ok(CertRef::new(TLVElement::new(rcac)).pubkey()? == public.access().as_slice())
    };
    same().unwrap_or(false)
}

/// HKDF-SHA256 over the root public key without its leading 0x04, salted with the fabric id (Matter Core 4.3.2.2).
pub(crate) fn compressed_fabric_id(root_public_key: &[u8], fabric: FabricId) -> Result<u64, CredentialError> {
    use rs_matter::crypto::Kdf;
    let ikm = CryptoSensitiveRef::<64>::try_new(root_public_key.get(1..).unwrap_or_default()).map_err(unusable)?;
    let mut id = CryptoSensitive::<8>::new();
    backend()
        .kdf()
        .and_then(|kdf| kdf.expand(&fabric.0.to_be_bytes(), ikm, b"CompressedFabric", &mut id))
        .map_err(unusable)?;
    id.access().as_slice().try_into().map(u64::from_be_bytes).map_err(|_| CredentialError::Unusable("HKDF".to_owned()))
}

/// PAKEPasscodeVerifier `w0 ‖ L`, 97 bytes (Matter Core 3.10), for an enhanced commissioning window.
pub(crate) fn pake_verifier(passcode: &Passcode, salt: &[u8], iterations: u32) -> Result<Vec<u8>, CredentialError> {
    let crypto = backend();
    let compute = || -> Result<Vec<u8>, Error> {
        let mut ws = CryptoSensitive::<80>::new();
        let passcode = Zeroizing::new(passcode.expose().to_le_bytes());
        crypto.pbkdf()?.derive(CryptoSensitiveRef::<4>::new(&passcode), iterations as usize, salt, &mut ws)?;
        let (w0, w1) = ws.access().split_at(40);
        let w0 = crypto.ec_scalar_mod_p(CanonUint320Ref::try_new(w0)?)?;
        let w1 = crypto.ec_scalar_mod_p(CanonUint320Ref::try_new(w1)?)?;
        let l = crypto.ec_generator_point()?.mul(&w1)?;
        let (mut scalar, mut point) = (CryptoSensitive::<32>::new(), CryptoSensitive::<65>::new());
        w0.write_canon(&mut scalar)?;
        l.write_canon(&mut point)?;
        Ok([scalar.access().as_slice(), point.access().as_slice()].concat())
    };
    compute().map_err(unusable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cat(value: u32) -> Cat {
        Cat::new(value).unwrap()
    }

    fn csr() -> Vec<u8> {
        let mut buffer = [0u8; CSR_LEN];
        backend().generate_secret_key().unwrap().csr(&mut buffer).unwrap().to_vec()
    }

    #[test]
    fn a_minted_fabric_signs_and_the_hub_carries_the_admin_cat() {
        let bundle = mint(FabricId(77), NodeId(1000), &[cat(0x0001_0001)], Timestamp::UNIX_EPOCH).unwrap();
        let noc = CertRef::new(TLVElement::new(&bundle.hub_noc));
        assert_eq!(noc.get_node_id().unwrap(), 1000);
        assert_eq!(noc.get_fabric_id().unwrap(), 77);
        let mut cats = [0u32; 3];
        noc.get_cat_ids(&mut cats).unwrap();
        assert_eq!(cats, [0x0001_0001, 0, 0]);
        let credentials = Credentials::new(bundle).unwrap();
        let noc = credentials.issue_noc(NodeId(1001), &csr()).unwrap();
        assert_eq!(CertRef::new(TLVElement::new(&noc)).get_node_id().unwrap(), 1001);
        assert_eq!(credentials.root_public_key().len(), 65);
    }

    #[test]
    fn a_csr_that_is_cut_or_signed_by_another_key_is_refused() {
        let bundle = mint(FabricId(77), NodeId(1000), &[cat(0x0001_0001)], Timestamp::UNIX_EPOCH).unwrap();
        let credentials = Credentials::new(bundle).unwrap();
        let csr = csr();
        let mut other = csr.clone();
        *other.last_mut().unwrap() ^= 1;
        assert_eq!(credentials.issue_noc(NodeId(1001), &other), Err(CredentialError::Csr));
        for length in 0..csr.len() {
            assert_eq!(credentials.issue_noc(NodeId(1001), &csr[..length]), Err(CredentialError::Csr));
        }
    }

    #[test]
    fn the_hub_gets_another_noc_when_a_cat_is_rotated() {
        let mut bundle = mint(FabricId(77), NodeId(1000), &[cat(0x0001_0001)], Timestamp::UNIX_EPOCH).unwrap();
        let before = bundle.clone();
        reissue_hub_noc(&mut bundle, &[cat(0x0001_0002), cat(0x0009_0001)]).unwrap();
        assert_ne!((&bundle.hub_noc, &bundle.hub_key), (&before.hub_noc, &before.hub_key));
        assert_eq!((&bundle.rcac, &bundle.icac), (&before.rcac, &before.icac));
        assert_eq!(reissue_hub_noc(&mut bundle, &[]), Err(CredentialError::TooManyCats(0)));
        let two = [cat(0x0001_0002), cat(0x0001_0001)];
        assert_eq!(reissue_hub_noc(&mut bundle, &two), Err(CredentialError::TwoVersions(1)));
        bundle.rcac_key = None;
        reissue_hub_noc(&mut bundle, &[cat(0x0001_0003)]).unwrap();
    }

    #[test]
    fn a_controller_gets_its_tags_and_its_end() {
        let mut bundle = mint(FabricId(77), NodeId(1000), &[cat(0x0001_0001)], Timestamp::UNIX_EPOCH).unwrap();
        // The root's key is kept elsewhere: the intermediate signs all the same.
        bundle.rcac_key = None;
        let credentials = Credentials::new(bundle).unwrap();
        let csr = CheckedCsr::check(&csr()).unwrap();
        let cats = [cat(0x0002_0001), cat(0x0003_0007), cat(0x0004_0001)];
        let end = Timestamp::from_second(1_900_000_000).unwrap();
        for (end, year) in [(Some(end), Some("2030")), (None, None)] {
            let noc = credentials.issue_controller_noc(NodeId(1002), &csr, &cats, end).unwrap();
            let certificate = CertRef::new(TLVElement::new(&noc));
            let mut found = [0u32; 3];
            certificate.get_cat_ids(&mut found).unwrap();
            assert_eq!((certificate.get_node_id().unwrap(), found), (1002, cats.map(Cat::value)));
            assert_eq!(certificate.pubkey().unwrap(), csr.public_key());
            let pem = crate::matter::x509::to_pem(&noc).unwrap();
            let x509 = <x509_cert::Certificate as der::DecodePem>::from_pem(pem.as_bytes()).unwrap();
            let validity = x509.tbs_certificate().validity();
            assert_eq!(validity.not_before.to_date_time().year(), 2000);
            let ends = validity.not_after.to_date_time();
            assert_eq!(ends.year().to_string(), year.unwrap_or("9999"));
        }
        let four = [&cats[..], &[cat(0x0005_0001)]].concat();
        assert_eq!(
            credentials.issue_controller_noc(NodeId(1), &csr, &four, None),
            Err(CredentialError::TooManyCats(4))
        );
        let two = [cat(0x0002_0001), cat(0x0002_0002)];
        assert_eq!(credentials.issue_controller_noc(NodeId(1), &csr, &two, None), Err(CredentialError::TwoVersions(2)));
        let late = Timestamp::MAX;
        let refused = credentials.issue_controller_noc(NodeId(1), &csr, &cats, Some(late));
        assert_eq!(refused, Err(CredentialError::Validity(late)));
    }

    #[test]
    fn the_fabrics_own_keys_are_known() {
        let bundle = mint(FabricId(77), NodeId(1000), &[cat(0x0001_0001)], Timestamp::UNIX_EPOCH).unwrap();
        let keys = [&bundle.rcac, &bundle.icac, &bundle.hub_noc]
            .map(|certificate| CertRef::new(TLVElement::new(certificate)).pubkey().unwrap().to_vec());
        let credentials = Credentials::new(bundle).unwrap();
        assert!(keys.iter().all(|key| credentials.is_own_key(key).unwrap()));
        assert!(!credentials.is_own_key(CheckedCsr::check(&csr()).unwrap().public_key()).unwrap());
    }

    /// The example of Matter Core 4.3.2.2.
    #[test]
    fn the_compressed_fabric_id_is_the_specifications() {
        let key: [u8; 65] = [
            0x04, 0x4a, 0x9f, 0x42, 0xb1, 0xca, 0x48, 0x40, 0xd3, 0x72, 0x92, 0xbb, 0xc7, 0xf6, 0xa7, 0xe1, 0x1e, 0x22,
            0x20, 0x0c, 0x97, 0x6f, 0xc9, 0x00, 0xdb, 0xc9, 0x8a, 0x7a, 0x38, 0x3a, 0x64, 0x1c, 0xb8, 0x25, 0x4a, 0x2e,
            0x56, 0xd4, 0xe2, 0x95, 0xa8, 0x47, 0x94, 0x3b, 0x4e, 0x38, 0x97, 0xc4, 0xa7, 0x73, 0xe9, 0x30, 0x27, 0x7b,
            0x4d, 0x9f, 0xbe, 0xde, 0x8a, 0x05, 0x26, 0x86, 0xbf, 0xac, 0xfa,
        ];
        assert_eq!(compressed_fabric_id(&key, FabricId(0x2906_C908_D115_D362)), Ok(0x87E1_B004_E235_A130));
    }
}
