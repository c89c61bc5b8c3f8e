//! What a person types or scans (`SetupCode`) and what it means (`OnboardingPayload`); Matter Core 5.1.
//!
//! Everything that can be known to be wrong about a code is refused here, before anything is sent. Base38 and Verhoeff
//! are rs-matter's. Not here: finding the device (`discovery`), proving the passcode (`matter`).

mod typed;

use std::fmt;

use rs_matter::pairing::DiscoveryCapabilities;
use rs_matter::pairing::qr::{CommFlowType, QrPayload};
use serde::{Deserialize, Serialize};
use zeroize::ZeroizeOnDrop;

use crate::secret::Passcode;

/// Passcodes that no device may use (Matter Core 5.1.7.1).
pub(crate) const RESERVED_PASSCODES: [u32; 12] = [
    0, 11_111_111, 22_222_222, 33_333_333, 44_444_444, 55_555_555, 66_666_666, 77_777_777, 88_888_888, 99_999_999,
    12_345_678, 87_654_321,
];
/// The largest value that a 12-bit discriminator holds.
pub const MAX_DISCRIMINATOR: u16 = 0x0FFF;

/// An onboarding code as typed or scanned, unchecked. It contains the passcode, so it cannot be printed.
#[derive(Clone, Default, PartialEq, Eq, ZeroizeOnDrop)]
pub struct SetupCode(String);

impl<'de> Deserialize<'de> for SetupCode {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|typed| Self::new(&zeroize::Zeroizing::new(typed)))
    }
}

impl fmt::Debug for SetupCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SetupCode(..)")
    }
}

/// How much of the 12-bit discriminator a code tells (Matter Core 5.4.2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Discriminator {
    /// All 12 bits, from a QR code: 0..=4095.
    Long(u16),
    /// The upper 4 bits, from a manual code: 0..=15. May fit several devices.
    Short(u8),
}

impl Discriminator {
    /// Whether a device that advertises `long` may be the one that this code is for.
    pub fn matches(self, long: u16) -> bool {
        match self {
            Self::Long(own) => own == long,
            Self::Short(own) => u16::from(own) == long >> 8,
        }
    }
}

impl fmt::Display for Discriminator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Long(own) => write!(f, "discriminator {own}"),
            Self::Short(own) => write!(f, "short discriminator {own}"),
        }
    }
}

/// The commissioning flow that the vendor wants (Matter Core 5.1.3.1, "Custom Flow").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CommissioningFlow {
    /// The device waits for a commissioner as soon as it has power.
    Standard,
    /// A person must do something first, for instance press a button.
    UserIntent,
    /// The vendor's own steps come first.
    Custom,
}

/// A checked onboarding payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnboardingPayload {
    /// Which device, as far as the code says.
    pub discriminator: Discriminator,
    /// The secret that PASE proves.
    pub passcode: Passcode,
    /// Vendor and product id, where the code carries them.
    pub vid_pid: Option<(u16, u16)>,
    /// The flow, where the code determines it.
    pub flow: Option<CommissioningFlow>,
    /// Where the device may be before it is commissioned.
    pub rendezvous: Rendezvous,
}

/// Discovery capabilities (Matter Core 5.1.3.1): where a device shows itself before it is commissioned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rendezvous {
    /// On the IP network already.
    pub on_network: bool,
    /// It advertises over Bluetooth.
    pub bluetooth: bool,
}

impl Rendezvous {
    /// A manual code does not say.
    pub const ANYWHERE: Self = Self { on_network: true, bluetooth: true };

    /// Whether a device that is not found over Bluetooth is found nowhere.
    pub fn needs_bluetooth(self) -> bool {
        self.bluetooth && !self.on_network
    }
}

/// Why a code was refused; nothing has been sent to any device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    #[error("the setup code is empty")]
    Empty,
    /// Neither `MT:…` nor digits.
    #[error("a setup code is a QR payload that starts with MT: or a manual code of 11 or 21 digits")]
    UnknownForm,
    /// A manual code of another length.
    #[error("a manual code has 11 or 21 digits, this one has {digits}")]
    WrongLength {
        /// How many digits were given.
        digits: usize,
    },
    /// A QR code for several devices (Matter Core 5.1.5).
    #[error("the code holds the payloads of {count} devices, and one is taken in at a time")]
    SeveralPayloads { count: usize },
    /// Verhoeff check failed (Matter Core 5.1.4.1.5).
    #[error("the check digit is wrong: one of the digits was mistyped")]
    WrongCheckDigit,
    /// A first digit of 8 or 9, or a QR version other than 0.
    #[error("the code's version is {version}, only version 0 is known")]
    UnknownVersion {
        /// The version found; for a manual code its first digit.
        version: u8,
    },
    /// Well-formed at first sight, but a field does not decode.
    #[error("the code is damaged: {what}")]
    Malformed {
        /// The part that does not decode.
        what: &'static str,
    },
    /// One of [`RESERVED_PASSCODES`].
    #[error("the code carries a reserved passcode that no device may use")]
    ReservedPasscode,
    /// Outside 1..=99_999_998.
    #[error("the code's passcode is outside 1 to 99999998")]
    PasscodeOutOfRange,
}

impl PayloadError {
    /// The stable word of the documented failure answer.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty | Self::UnknownForm | Self::Malformed { .. } => "malformed-setup-code",
            Self::WrongLength { .. } => "wrong-code-length",
            Self::SeveralPayloads { .. } => "several-payloads",
            Self::WrongCheckDigit => "wrong-check-digit",
            Self::UnknownVersion { .. } => "unknown-code-version",
            Self::ReservedPasscode => "reserved-passcode",
            Self::PasscodeOutOfRange => "passcode-out-of-range",
        }
    }
}

impl OnboardingPayload {
    /// Whether the code itself says that the device has Bluetooth; a manual code says nothing.
    pub fn says_bluetooth(&self) -> bool {
        matches!(self.discriminator, Discriminator::Long(_)) && self.rendezvous.bluetooth
    }
}

impl SetupCode {
    /// Takes a code as typed, pasted or scanned.
    pub fn new(typed: &str) -> Self {
        Self(typed::cleaned(typed))
    }

    /// The codes of the single devices: more than one for a QR code that names several (`MT:A*B`, Matter Core 5.1.5).
    pub fn each(&self) -> Vec<Self> {
        if !self.is_qr() {
            return vec![self.clone()];
        }
        let mut each: Vec<Self> = Vec::new();
        for payload in typed::payloads(&self.0).map(|payload| Self(format!("MT:{payload}"))) {
            if !each.contains(&payload) {
                each.push(payload);
            }
        }
        if each.is_empty() { vec![self.clone()] } else { each }
    }

    fn is_qr(&self) -> bool {
        self.0.starts_with("MT:")
    }

    /// The code itself, for the wire between command line and daemon. Never pass it to a format string.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Understands the code.
    ///
    /// # Errors
    /// Every way in which a code can be known to be wrong without asking a device.
    pub fn parse(&self) -> Result<OnboardingPayload, PayloadError> {
        if self.0.is_empty() {
            return Err(PayloadError::Empty);
        }
        let payload = if self.is_qr() { parse_qr(&self.0)? } else { parse_manual(&self.0)? };
        check_passcode(*payload.passcode.expose())?;
        Ok(payload)
    }
}

/// Matter Core 5.1.7.1: 1..=99_999_998 without the reserved ones.
///
/// # Errors
/// `ReservedPasscode` or `PasscodeOutOfRange`.
pub fn check_passcode(passcode: u32) -> Result<(), PayloadError> {
    if RESERVED_PASSCODES.contains(&passcode) {
        Err(PayloadError::ReservedPasscode)
    } else if passcode > 99_999_998 {
        Err(PayloadError::PasscodeOutOfRange)
    } else {
        Ok(())
    }
}

fn parse_qr(code: &str) -> Result<OnboardingPayload, PayloadError> {
    let count = typed::payloads(code).count();
    if count > 1 {
        return Err(PayloadError::SeveralPayloads { count });
    }
    // The packed payload is never longer than its base38 text.
    let mut packed = vec![0; code.len()];
    let qr = QrPayload::parse(code, &mut packed).map_err(|_| PayloadError::Malformed { what: "the QR payload" })?;
    if qr.version() != 0 {
        return Err(PayloadError::UnknownVersion { version: qr.version() });
    }
    let known = |id: u16| id != 0;
    Ok(OnboardingPayload {
        discriminator: Discriminator::Long(qr.discriminator()),
        passcode: Passcode::new(qr.passcode()),
        vid_pid: (known(qr.vid()) || known(qr.pid())).then(|| (qr.vid(), qr.pid())),
        flow: Some(qr.comm_flow().into()),
        rendezvous: Rendezvous {
            on_network: qr.discovery_capabilities().contains(DiscoveryCapabilities::IP),
            bluetooth: qr.discovery_capabilities().contains(DiscoveryCapabilities::BLE),
        },
    })
}

fn parse_manual(code: &str) -> Result<OnboardingPayload, PayloadError> {
    let digits: String = code.chars().filter(|c| !typed::is_separator(*c)).collect();
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(PayloadError::UnknownForm);
    }
    if !matches!(digits.len(), 11 | 21) {
        return Err(PayloadError::WrongLength { digits: digits.len() });
    }
    // rs-matter answers every fault alike. A first digit of 8 or 9 is another version (Matter Core 5.1.4.1); what is left
    // after that, when the flag for vendor and product id fits the length, is the check digit or a field out of range.
    let first = digits.as_bytes()[0] - b'0';
    if first > 7 {
        return Err(PayloadError::UnknownVersion { version: first });
    }
    if !rs_matter_accepts_check_digit(&digits) {
        return Err(PayloadError::WrongCheckDigit);
    }
    if (first >= 4) != (digits.len() == 21) {
        return Err(PayloadError::Malformed { what: "its first digit does not fit its length" });
    }
    let manual =
        QrPayload::parse_pairing_code(&digits).map_err(|_| PayloadError::Malformed { what: "a digit group" })?;
    Ok(OnboardingPayload {
        discriminator: Discriminator::Short(manual.short_discriminator()),
        passcode: Passcode::new(manual.passcode()),
        vid_pid: manual.vid_pid(),
        flow: manual.comm_flow().map(Into::into),
        rendezvous: Rendezvous::ANYWHERE,
    })
}

fn rs_matter_accepts_check_digit(digits: &str) -> bool {
    use verhoeff::Verhoeff;
    digits.validate_verhoeff_check_digit()
}

impl From<CommFlowType> for CommissioningFlow {
    fn from(flow: CommFlowType) -> Self {
        match flow {
            CommFlowType::Standard => Self::Standard,
            CommFlowType::UserIntent => Self::UserIntent,
            CommFlowType::Custom => Self::Custom,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn parse(code: &str) -> Result<OnboardingPayload, PayloadError> {
        SetupCode::new(code).parse()
    }

    #[test]
    fn a_qr_payload_tells_everything() {
        let payload = parse("MT:Y.K90AFN00KA0648G00").expect("the SDK's example code");
        assert!(matches!(payload.discriminator, Discriminator::Long(_)));
        assert_eq!(payload.vid_pid.map(|(vid, _)| vid), Some(0xFFF1));
        assert!(payload.rendezvous.on_network);
    }

    #[test]
    fn a_manual_code_tells_the_short_discriminator() {
        let payload = parse("3497-0112-332").expect("the SDK's example code");
        assert_eq!(payload.discriminator, Discriminator::Short(15));
        assert_eq!(*payload.passcode.expose(), 20202021);
        assert!(payload.discriminator.matches(3840) && !payload.discriminator.matches(255));
    }

    #[test]
    fn each_fault_has_its_own_refusal() {
        assert_eq!(parse(""), Err(PayloadError::Empty));
        assert_eq!(parse("hello"), Err(PayloadError::UnknownForm));
        assert_eq!(parse("349701123"), Err(PayloadError::WrongLength { digits: 9 }));
        assert_eq!(parse("34970112333"), Err(PayloadError::WrongCheckDigit));
        assert_eq!(parse("84970112332"), Err(PayloadError::UnknownVersion { version: 8 }));
        assert!(matches!(parse("MT:Y.K9"), Err(PayloadError::Malformed { .. })));
        assert_eq!(parse("MT:Y.K90AFN00KA0648G00*Y.K90"), Err(PayloadError::SeveralPayloads { count: 2 }));
    }

    #[rstest]
    #[case::plain("34970112332")]
    #[case::grouped("3497-011-2332")]
    #[case::no_break_hyphen("3497\u{2011}011\u{2011}2332")]
    #[case::en_dash("3497\u{2013}011\u{2013}2332")]
    #[case::bar("3497\u{2015}011\u{2015}2332")]
    #[case::minus("3497\u{2212}011\u{2212}2332")]
    #[case::long_vowel("3497\u{30FC}011\u{30FC}2332")]
    #[case::soft_hyphen("3497\u{AD}011\u{AD}2332")]
    #[case::no_break_space("3497\u{A0}011\u{A0}2332")]
    #[case::narrow_no_break_space("3497\u{202F}011\u{202F}2332")]
    #[case::thin_space("3497\u{2009}011\u{2009}2332")]
    #[case::wide_space("3497\u{3000}011\u{3000}2332")]
    #[case::zero_width("\u{FEFF}\u{200B}3497011\u{200D}2332\u{2060}")]
    #[case::full_width("３４９７－０１１－２３３２")]
    #[case::dots("3497.011.2332")]
    #[case::line_breaks("3497\r\n011\n2332\r\n")]
    #[case::tabs("\t3497\t011\t2332")]
    #[case::quotes(" \"3497-011-2332\" ")]
    #[case::typographic_quotes("“3497-011-2332”")]
    #[case::angle_quotes("«3497 011 2332»")]
    fn a_manual_code_as_people_paste_it(#[case] pasted: &str) {
        assert_eq!(parse(pasted), parse("34970112332"));
    }

    #[rstest]
    #[case::lower("mt:y.k90afn00ka0648g00")]
    #[case::space("MT: Y.K90AFN00KA0648G00")]
    #[case::broken("MT:Y.K90AFN00\r\n  KA0648G00\n")]
    #[case::marked("\u{FEFF}MT:Y.K90AFN00KA0648G00\u{200B}")]
    #[case::full_width("ＭＴ：Ｙ．Ｋ９０ＡＦＮ００ＫＡ０６４８Ｇ００")]
    #[case::quotes("'MT:Y.K90AFN00KA0648G00'")]
    #[case::link("https://example.com/?p=MT:Y.K90AFN00KA0648G00")]
    #[case::escaped_link("<https://example.com/qrcode.html?data=MT%3AY.K90AFN00KA0648G00&lang=en#top>")]
    #[case::path_of_a_link("HTTP://smt:8080/mt:y.k90afn00ka0648g00")]
    fn a_qr_payload_as_people_paste_it(#[case] pasted: &str) {
        assert!(parse(pasted).is_ok());
        assert_eq!(parse(pasted), parse("MT:Y.K90AFN00KA0648G00"));
    }

    #[test]
    fn a_hyphen_that_belongs_to_a_payload_stays() {
        let payload = "MT:-24J0AFN00KA0648G00";
        assert_eq!(SetupCode::new("MT:\u{2011}24J0AFN00KA0648G00"), SetupCode::new(payload));
        assert_eq!(SetupCode::new(payload).expose(), payload);
    }

    #[rstest]
    #[case::one("MT:AAA", &["MT:AAA"])]
    #[case::joined("MT:AAA*BBB*CCC", &["MT:AAA", "MT:BBB", "MT:CCC"])]
    #[case::the_same_twice("MT:AAA*AAA", &["MT:AAA"])]
    #[case::one_after_the_other("mt:aaa\nmt:bbb", &["MT:AAA", "MT:BBB"])]
    #[case::nothing_in_it("MT:*", &["MT:*"])]
    #[case::manual("34970112332", &["34970112332"])]
    #[case::in_a_link("https://example.com/?p=MT:AAA%2ABBB&q=1", &["MT:AAA", "MT:BBB"])]
    #[case::link_without_one("https://example.com/34970112332", &["https://example.com/34970112332"])]
    fn a_code_for_several_devices_is_taken_apart(#[case] typed: &str, #[case] single: &[&str]) {
        let each = SetupCode::new(typed).each();
        assert_eq!(each.iter().map(SetupCode::expose).collect::<Vec<_>>(), single);
    }

    #[test]
    fn every_reserved_passcode_is_refused() {
        for passcode in RESERVED_PASSCODES {
            assert_eq!(check_passcode(passcode), Err(PayloadError::ReservedPasscode), "{passcode}");
        }
        assert_eq!(check_passcode(100_000_000), Err(PayloadError::PasscodeOutOfRange));
        assert_eq!(check_passcode(20202021), Ok(()));
    }

    #[test]
    fn a_code_cannot_be_printed() {
        assert_eq!(format!("{:?}", SetupCode::new("34970112332")), "SetupCode(..)");
    }
}
