//! What verification may find: a stable code, a severity, a sentence and the values that disagree.
//!
//! Codes are promised to operators and scripts: they may be added, never renamed.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::plain;

/// How bad a finding is by the specification; what follows from it is for `policy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Nothing is wrong; somebody may want to know.
    Info,
    /// The device proves less than a certified product does.
    Warning,
    /// The Device Attestation Procedure fails (Matter Core 6.2.3.1).
    Error,
}

/// Declares [`Code`] with its words, its severities and the list of all. A word is a `tt`: utoipa does not see through a `literal`.
macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $word:tt, $severity:ident;)*) => {
        /// The kinds of findings.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
        pub enum Code {
            $($(#[$doc])* #[serde(rename = $word)] $name,)*
        }

        impl Code {
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }

            /// How bad it is.
            pub fn severity(self) -> Severity {
                match self {
                    $(Self::$name => Severity::$severity,)*
                }
            }
        }
    };
}

codes! {
    /// A certificate is longer than the 600 bytes of Matter Core 6.1.3.
    CertificateTooLarge = "certificate-too-large", Error;
    /// A certificate is no DER or breaks X.509.
    CertificateMalformed = "certificate-malformed", Error;
    /// A certificate is not X.509 version 3.
    CertificateVersion = "certificate-version", Error;
    /// A certificate is not signed by ECDSA with SHA-256.
    SignatureAlgorithm = "signature-algorithm", Error;
    /// A certificate's key is not on P-256.
    PublicKey = "public-key", Error;
    /// Basic constraints are missing, not critical, or not those of the certificate's place in the chain.
    BasicConstraints = "basic-constraints", Error;
    /// Key usage is missing, not critical, or not that of the certificate's place in the chain.
    KeyUsage = "key-usage", Error;
    /// A subject key identifier is missing or not 20 bytes long.
    SubjectKeyIdentifier = "subject-key-identifier", Error;
    /// An authority key identifier is missing or not 20 bytes long.
    AuthorityKeyIdentifier = "authority-key-identifier", Error;
    /// A critical extension is not known to us (RFC 5280, 4.2).
    UnknownCriticalExtension = "unknown-critical-extension", Error;
    /// Vendor or product id in a subject is there and not four upper-case hex digits, or mixes both encodings.
    SubjectIdMalformed = "subject-id-malformed", Error;
    /// A DAC or PAI names no vendor id.
    VendorIdMissing = "vendor-id-missing", Error;
    /// A DAC names no product id.
    ProductIdMissing = "product-id-missing", Error;
    /// A certificate's issuer is not its authority's subject.
    IssuerName = "issuer-name-mismatch", Error;
    /// A certificate's authority key identifier is not its authority's subject key identifier.
    KeyIdentifier = "key-identifier-mismatch", Error;
    /// A certificate's signature does not verify.
    CertificateSignature = "certificate-signature-invalid", Error;
    /// No trusted PAA issued the PAI.
    PaaNotTrusted = "paa-not-trusted", Error;
    /// The DAC is not valid yet.
    DacNotYetValid = "dac-not-yet-valid", Error;
    /// The DAC is no longer valid.
    DacExpired = "dac-expired", Error;
    /// PAI or PAA was not valid when the DAC was issued.
    IssuerValidity = "issuer-not-valid-at-issuance", Error;
    /// DAC and PAI disagree on the vendor id.
    ChainVendorId = "chain-vendor-id-mismatch", Error;
    /// DAC and PAI disagree on the product id.
    ChainProductId = "chain-product-id-mismatch", Error;
    /// The PAA may issue for another vendor only.
    PaaVendorScope = "paa-vendor-scope", Error;
    /// A certificate is in a revocation set.
    CertificateRevoked = "certificate-revoked", Error;
    /// AttestationElements are longer than any device may send.
    ElementsTooLarge = "elements-too-large", Error;
    /// AttestationElements are not the TLV of Matter Core 11.18.4.7.
    ElementsMalformed = "elements-malformed", Error;
    /// The nonce is not the one that we sent: a replay.
    NonceMismatch = "nonce-mismatch", Error;
    /// The DAC's key did not sign these elements for this session.
    ElementsSignature = "elements-signature-invalid", Error;
    /// The declaration is longer than any device may send.
    DeclarationTooLarge = "declaration-too-large", Error;
    /// The declaration is not the CMS of Matter Core 6.3.2.
    DeclarationMalformed = "declaration-malformed", Error;
    /// CMS or SignerInfo version is not 3.
    DeclarationCmsVersion = "declaration-cms-version", Error;
    /// A digest algorithm is not SHA-256.
    DeclarationDigestAlgorithm = "declaration-digest-algorithm", Error;
    /// The signature algorithm is not ECDSA with SHA-256.
    DeclarationSignatureAlgorithm = "declaration-signature-algorithm", Error;
    /// The signer is no key of the Connectivity Standards Alliance that we know.
    DeclarationSignerUnknown = "declaration-signer-unknown", Error;
    /// The signer's signature does not verify.
    DeclarationSignature = "declaration-signature-invalid", Error;
    /// The declaration claims to be official and is signed with the public test key.
    OfficialDeclarationTestSigner = "official-declaration-test-signer", Error;
    /// The signed content is not the TLV of Matter Core 6.3.1.
    DeclarationContent = "declaration-content-malformed", Error;
    /// The format version is not 1.
    DeclarationFormatVersion = "declaration-format-version", Error;
    /// The certification type is none of the three.
    DeclarationCertificationType = "declaration-certification-type", Error;
    /// The declaration is for another vendor.
    DeclarationVendorId = "declaration-vendor-id-mismatch", Error;
    /// The declaration does not list the product.
    DeclarationProductId = "declaration-product-id-mismatch", Error;
    /// Only one of the two origin ids is there.
    DeclarationOriginIncomplete = "declaration-origin-incomplete", Error;
    /// The origin ids are not those of the chain.
    DeclarationOrigin = "declaration-origin-mismatch", Error;
    /// The declaration lists the PAAs that may be used, and this is none of them.
    DeclarationPaa = "declaration-paa-not-authorized", Error;
    /// The chain ends in a public test PAA.
    TestPaa = "test-paa", Warning;
    /// The declaration is for development and test.
    TestDeclaration = "test-declaration", Warning;
    /// The declaration is signed with the public test key.
    TestDeclarationSigner = "test-declaration-signer", Warning;
    /// The product is certified provisionally.
    ProvisionalDeclaration = "provisional-declaration", Info;
    /// The device told its firmware information, which only the DCL could judge (Matter Core 6.3.2).
    FirmwareInformation = "firmware-information", Info;
}

impl Code {
    /// Whether it says that the material is for tests: what `attestation.allow_test` lets pass.
    pub fn is_test_material(self) -> bool {
        matches!(self, Self::TestPaa | Self::TestDeclaration | Self::TestDeclarationSigner)
    }
}

impl Severity {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Something that verification found in a device's evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    /// By which policy, tests and people name this kind of finding.
    pub code: Code,
    /// How bad it is, before policy is asked.
    pub severity: Severity,
    /// A sentence for an operator.
    pub message: String,
    /// The values that disagree, and where they are from.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Findings(Vec<Finding>);

impl Findings {
    /// Notes a finding; `values` are `(name, value)`.
    pub(crate) fn add<const N: usize>(&mut self, code: Code, message: impl Into<String>, values: [(&str, String); N]) {
        let values = values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        self.0.push(Finding { code, severity: code.severity(), message: message.into(), values });
    }

    /// All of them in order.
    pub(crate) fn into_vec(self) -> Vec<Finding> {
        self.0
    }
}

/// Upper-case hex, cut after 64 bytes: values from a device are bounded wherever they are shown.
pub(super) fn hex(bytes: &[u8]) -> String {
    match bytes.split_at_checked(64) {
        Some((shown, [_, ..])) => plain::upper_hex(shown) + "…",
        _ => plain::upper_hex(bytes),
    }
}

/// A vendor or product id as the specification writes it.
pub(super) fn id(value: u16) -> String {
    format!("0x{value:04X}")
}

/// As [`id`], or `none`.
pub(super) fn optional_id(value: Option<u16>) -> String {
    value.map_or_else(|| "none".to_owned(), id)
}
