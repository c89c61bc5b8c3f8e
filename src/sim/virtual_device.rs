//! A Matter on/off light on rs-matter's device side, to try things on: real PASE, attestation, CASE, access control,
//! fail-safe and persistence, advertised over real mDNS.
//!
//! One device is one OS thread that polls one future (`node`). Not here: judging what it shows (`attestation`), and the
//! commissioner's side of any of this (`matter`).

mod advertise;
pub(crate) mod args;
mod evidence;
mod interface;
mod light;
mod long_idle;
mod node;
mod storage;
mod wireless;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rs_matter::BasicCommData;
use rs_matter::error::ErrorCode;
use rs_matter::pairing::DiscoveryCapabilities;
use rs_matter::pairing::qr::{CommFlowType, NoOptionalData, QrPayload, no_optional_data};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

pub(crate) use self::evidence::DeviceEvidence;
pub(crate) use self::long_idle::LongIdleOptions;
use crate::onboarding::{MAX_DISCRIMINATOR, PayloadError, check_passcode};
use crate::secret::{Passcode, WifiPassword};

/// Stack of the device's thread: without optimisation rs-matter's futures are large. Only touched pages count.
const STACK_BYTES: usize = 8 << 20;

/// What the device is.
#[derive(Debug, Clone)]
pub struct VirtualDeviceOptions {
    /// 0..=4095 (Matter Core 5.1.1.5).
    pub discriminator: u16,
    /// The setup passcode; reserved ones are refused.
    pub passcode: Passcode,
    /// Vendor id; 0xFFF1..=0xFFF4 are the test vendors.
    pub vendor_id: u16,
    /// Of Basic Information and the certification declaration.
    pub product_id: u16,
    /// UDP port of the Matter messages; 0 takes a free one.
    pub port: u16,
    /// Where fabrics and state are kept; made where missing, used by one device at a time.
    pub storage: PathBuf,
    /// Basic Information SerialNumber, at most 32 bytes.
    pub serial_number: String,
    /// Basic Information UniqueID, at most 32 bytes.
    pub unique_id: String,
    /// Basic Information VendorName, at most 32 bytes.
    pub vendor_name: String,
    /// Basic Information ProductName, at most 32 bytes.
    pub product_name: String,
    /// The name in the commissionable advertisement (`DN`), at most 32 bytes.
    pub device_name: String,
    /// Names of the interfaces to advertise on; none means all but loopback, and loopback where there is no other.
    pub interfaces: Vec<String>,
    /// What it shows at attestation; by default evidence that fits vendor and product.
    pub evidence: Option<DeviceEvidence>,
    /// The device is out of its box: on Bluetooth, and on no network before it has joined one.
    pub radio: Option<RadioOptions>,
    /// It sleeps while somebody is registered with it.
    pub long_idle: Option<LongIdleOptions>,
    /// Basic Information SpecificationVersion, for instance 0x0104_0000; by default rs-matter's.
    pub specification_version: Option<u32>,
}

/// The air around a device: where it advertises, which network is there, and what goes wrong.
#[derive(Debug, Clone)]
pub struct RadioOptions {
    /// The directory that is the air (`bluetooth::air`).
    pub air: PathBuf,
    /// The network that is within reach, with its password; nothing where its access point is off.
    pub wifi: Option<(String, WifiPassword)>,
    /// How long ScanNetworks takes.
    pub scan: Duration,
    /// How long ConnectNetwork takes.
    pub connect: Duration,
    /// Bluetooth is dropped at ConnectNetwork, as by a device with one radio.
    pub drops_at_connect: bool,
    /// What SupportsConcurrentConnection says.
    pub concurrent: bool,
    /// It joins and gets no address: it never shows itself on the network.
    pub no_address: bool,
    /// So many indications after the connection, one is lost.
    pub loses: Option<u32>,
    /// So many indications after the connection, one overtakes the one before it.
    pub swaps: Option<u32>,
}

impl RadioOptions {
    /// Nothing goes wrong.
    pub fn new(air: impl Into<PathBuf>) -> Self {
        Self {
            air: air.into(),
            wifi: None,
            scan: Duration::from_millis(100),
            connect: Duration::from_millis(200),
            drops_at_connect: false,
            concurrent: true,
            no_address: false,
            loses: None,
            swaps: None,
        }
    }
}

impl VirtualDeviceOptions {
    /// A test light with the SDK's well-known discriminator, passcode and ids, keeping its state in `storage`.
    pub fn new(storage: impl Into<PathBuf>) -> Self {
        Self {
            discriminator: 3840,
            passcode: Passcode::new(20_202_021u32),
            vendor_id: 0xFFF1,
            product_id: 0x8001,
            port: 0,
            storage: storage.into(),
            serial_number: "MB-VIRTUAL-1".to_owned(),
            unique_id: "matterbind-virtual-1".to_owned(),
            vendor_name: "matterbind".to_owned(),
            product_name: "Virtual Light".to_owned(),
            device_name: "Virtual Light".to_owned(),
            interfaces: Vec::new(),
            evidence: None,
            radio: None,
            long_idle: None,
            specification_version: None,
        }
    }

    /// # Errors
    /// The first option that no device may have.
    pub fn check(&self) -> Result<(), VirtualDeviceError> {
        if self.discriminator > MAX_DISCRIMINATOR {
            return Err(VirtualDeviceError::Discriminator(self.discriminator));
        }
        check_passcode(*self.passcode.expose()).map_err(VirtualDeviceError::Passcode)?;
        let texts = [
            ("serial number", &self.serial_number),
            ("unique id", &self.unique_id),
            ("vendor name", &self.vendor_name),
            ("product name", &self.product_name),
            ("device name", &self.device_name),
        ];
        match texts.into_iter().find(|(_, text)| text.len() > 32) {
            Some((what, _)) => Err(VirtualDeviceError::TooLong { what }),
            None => Ok(()),
        }
    }

    fn commissioning_data(&self) -> BasicCommData {
        let passcode = self.passcode.expose().to_le_bytes();
        BasicCommData { password: (&passcode).into(), discriminator: self.discriminator }
    }

    /// The codes that a person would read off the device (Matter Core 5.1.3 and 5.1.4).
    fn codes(&self) -> Result<(String, String), VirtualDeviceError> {
        let data = self.commissioning_data();
        let manual_code = data.compute_pairing_code().to_string();
        let payload = QrPayload::<NoOptionalData>::new(
            if self.radio.is_some() { DiscoveryCapabilities::BLE } else { DiscoveryCapabilities::IP },
            CommFlowType::Standard,
            data,
            self.vendor_id,
            self.product_id,
            "",
            no_optional_data,
        );
        let mut text = [0; 128];
        let (qr_code, _) = payload.as_str(&mut text).map_err(node::failed("the QR payload"))?;
        Ok((qr_code.to_owned(), manual_code))
    }
}

/// The device listens, and is announced.
#[derive(Clone, PartialEq, Eq)]
pub struct ReadyInfo {
    /// The UDP port that it listens on.
    pub port: u16,
    /// Its QR payload, `MT:…`. Carries the passcode.
    pub qr_code: String,
    /// Its 11-digit manual code. Carries the passcode.
    pub manual_code: String,
    /// Whether it waits for a commissioner; otherwise it is on at least one fabric already.
    pub commissionable: bool,
}

/// Why a device could not be started, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum VirtualDeviceError {
    #[error("the discriminator {0} is above 4095")]
    Discriminator(u16),
    /// Reserved or out of range.
    #[error("the passcode cannot be used")]
    Passcode(#[source] PayloadError),
    /// Longer than the attribute allows.
    #[error("the {what} is longer than 32 bytes")]
    TooLong { what: &'static str },
    /// Neither 32 raw bytes nor SEC1 nor PKCS #8.
    #[error("the DAC key is no P-256 private key (32 raw bytes, SEC1 or PKCS #8, in DER or PEM)")]
    DacKey,
    /// The storage directory cannot be used.
    #[error("the storage directory {} cannot be used", dir.display())]
    Storage {
        dir: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Another device runs on it.
    #[error("another device uses the storage directory {}", dir.display())]
    StorageInUse { dir: PathBuf },
    /// The UDP port cannot be had.
    #[error("UDP port {port} cannot be used")]
    Port {
        /// The port asked for.
        port: u16,
        #[source]
        source: io::Error,
    },
    /// Not there, or down.
    #[error("there is no interface {name} that is up and has an address")]
    UnknownInterface {
        /// The name asked for.
        name: String,
    },
    /// Nothing to be seen on.
    #[error("there is no network interface that is up")]
    NoInterface,
    /// mDNS sockets or interfaces.
    #[error("the network cannot be used")]
    Network(#[source] io::Error),
    /// The Matter stack gave up.
    #[error("the Matter stack failed at {what}: {code:?}")]
    Stack {
        what: &'static str,
        /// rs-matter's word for it.
        code: ErrorCode,
    },
    /// The thread could not be made, or panicked.
    #[error("the device's thread failed")]
    Thread(#[source] io::Error),
}

/// Runs a device on a thread of its own until `shutdown`, which it answers with an mDNS goodbye.
///
/// `ready` runs on the device's thread as soon as the device listens and is announced.
pub async fn run(
    options: VirtualDeviceOptions,
    ready: impl FnOnce(ReadyInfo) + Send + 'static,
    shutdown: CancellationToken,
) -> Result<(), VirtualDeviceError> {
    let (ended, end) = oneshot::channel();
    std::thread::Builder::new()
        .name("virtual-device".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(move || {
            // The receiver is gone when the caller dropped the future: nobody is left to tell.
            let _ = ended.send(run_on_this_thread(&options, ready, shutdown));
        })
        .map_err(VirtualDeviceError::Thread)?;
    end.await.unwrap_or_else(|_| Err(VirtualDeviceError::Thread(io::Error::other("it panicked"))))
}

/// [`run`] without the thread: blocks this one, which must not belong to an async runtime.
pub(crate) fn run_on_this_thread(
    options: &VirtualDeviceOptions,
    ready: impl FnOnce(ReadyInfo),
    shutdown: CancellationToken,
) -> Result<(), VirtualDeviceError> {
    options.check()?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(VirtualDeviceError::Thread)?;
    runtime.block_on(crate::matter::waker::stable(node::run(options, ready, shutdown)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onboarding::SetupCode;
    use crate::plain;

    #[test]
    fn the_codes_say_what_the_device_is() {
        let options = VirtualDeviceOptions { discriminator: 0x0ABC, ..VirtualDeviceOptions::new("unused") };
        let (qr, manual) = options.codes().unwrap();
        for code in [qr, manual] {
            let payload = SetupCode::new(&code).parse().unwrap();
            assert!(payload.discriminator.matches(0x0ABC));
            assert_eq!(payload.passcode, options.passcode);
        }
    }

    #[test]
    fn impossible_options_are_refused() {
        let good = VirtualDeviceOptions::new("unused");
        assert!(good.check().is_ok());
        let check = |options: VirtualDeviceOptions| plain::with_causes(&options.check().unwrap_err());
        assert!(check(VirtualDeviceOptions { discriminator: 4096, ..good.clone() }).contains("4095"));
        assert!(
            check(VirtualDeviceOptions { passcode: Passcode::new(11_111_111u32), ..good.clone() }).contains("reserved")
        );
        assert!(check(VirtualDeviceOptions { unique_id: "x".repeat(33), ..good }).contains("unique id"));
    }
}
