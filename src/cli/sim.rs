//! `matterbind demo`, `cloud-sim`, `virtual-device`: to try things on. Left out of the hub's package.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::exit::{CliError, ExitCode};
use super::{Global, numbers};
use crate::onboarding::{MAX_DISCRIMINATOR, RESERVED_PASSCODES};
use crate::secret::Passcode;

/// `demo`
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit 0 only if every device is in sync.")]
pub struct DemoArgs {
    /// How many virtual devices
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub devices: u16,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
    /// Keep state and logs in this directory
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}

/// `cloud-sim`
#[derive(Debug, clap::Args)]
pub struct CloudSimArgs {
    /// Where to listen
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8787")]
    pub listen: SocketAddr,
    /// Faults to play, as TOML
    #[arg(long, value_name = "FILE")]
    pub scenario: Option<PathBuf>,
}

/// `virtual-device`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  matterbind virtual-device
  matterbind virtual-device --discriminator 2000 --port 5550 --storage /tmp/lamp --serial-number VD0002")]
pub struct VirtualDeviceArgs {
    /// 12 bits
    #[arg(long, value_name = "N", default_value = "3840", value_parser = discriminator)]
    pub discriminator: u16,
    /// Setup passcode
    #[arg(long, value_name = "N", default_value = "20202021", value_parser = passcode)]
    pub passcode: Passcode,
    /// Vendor id
    #[arg(long, value_name = "N", default_value = "0xFFF1", value_parser = numbers::u16_any_base)]
    pub vendor_id: u16,
    /// Product id
    #[arg(long, value_name = "N", default_value = "0x8001", value_parser = numbers::u16_any_base)]
    pub product_id: u16,
    /// UDP port; 0: any
    #[arg(long, value_name = "N", default_value_t = 5540)]
    pub port: u16,
    /// Where it keeps its fabrics; without it, it forgets them at the end
    #[arg(long, value_name = "DIR")]
    pub storage: Option<PathBuf>,
    /// Serial number
    #[arg(long, value_name = "TEXT", default_value = "VD0001")]
    pub serial_number: String,
    /// Device attestation certificate (DER); without evidence of its own, test evidence is used
    #[arg(long, value_name = "FILE", requires_all = ["dac_key", "pai", "cd"])]
    pub dac: Option<PathBuf>,
    /// The certificate's private key (PKCS#8 or SEC1, DER or PEM)
    #[arg(long, value_name = "FILE", requires = "dac")]
    pub dac_key: Option<PathBuf>,
    /// Product attestation intermediate certificate (DER)
    #[arg(long, value_name = "FILE", requires = "dac")]
    pub pai: Option<PathBuf>,
    /// Certification declaration (DER)
    #[arg(long, value_name = "FILE", requires = "dac")]
    pub cd: Option<PathBuf>,
}

/// The message does not repeat the value; `main` takes it out of clap's.
fn passcode(text: &str) -> Result<Passcode, String> {
    match text.parse::<u32>() {
        Ok(value) if (1..=99_999_998).contains(&value) && !RESERVED_PASSCODES.contains(&value) => {
            Ok(Passcode::new(value))
        }
        _ => Err("1 to 99999998 is needed, and none of the reserved ones".to_owned()),
    }
}

fn discriminator(text: &str) -> Result<u16, String> {
    let value = numbers::u16_any_base(text)?;
    if value <= MAX_DISCRIMINATOR { Ok(value) } else { Err("0 to 4095 is needed".to_owned()) }
}

/// Called before any thread exists: it makes its own namespaces.
pub(super) fn demo(_: &Global, _: DemoArgs) -> Result<ExitCode, CliError> {
    Err(CliError::NotInThisBuild("demo"))
}

pub(super) fn cloud_sim(_: &Global, _: CloudSimArgs) -> Result<ExitCode, CliError> {
    Err(CliError::NotInThisBuild("cloud-sim"))
}

pub(super) fn virtual_device(_: &Global, _: VirtualDeviceArgs) -> Result<ExitCode, CliError> {
    Err(CliError::NotInThisBuild("virtual-device"))
}
