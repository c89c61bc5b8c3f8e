//! `matterbind virtual-device`: its options as typed, and what it prints when the device is ready.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{DeviceEvidence, LongIdleOptions, RadioOptions, ReadyInfo, VirtualDeviceOptions, run};
use crate::node;
use crate::onboarding::{MAX_DISCRIMINATOR, check_passcode};
use crate::secret::{Passcode, WifiPassword};

/// A Matter on/off light to try things on.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct VirtualDeviceArgs {
    /// Discriminator, 0 to 4095
    #[arg(long, default_value = "3840", value_parser = discriminator)]
    discriminator: u16,
    /// Setup passcode, 1 to 99999998
    #[arg(long, default_value = "20202021", value_parser = passcode)]
    passcode: Passcode,
    /// Vendor id
    #[arg(long, default_value = "0xFFF1", value_parser = number::<u16>)]
    vendor_id: u16,
    /// Product id
    #[arg(long, default_value = "0x8001", value_parser = number::<u16>)]
    product_id: u16,
    /// UDP port, 0 for any free one
    #[arg(long, default_value = "0", value_parser = number::<u16>)]
    port: u16,
    /// Directory that keeps fabrics and state; without it they go when the device stops
    #[arg(long, value_name = "DIR")]
    storage: Option<PathBuf>,
    /// Serial number, at most 32 bytes [default: MB-, vendor, product, discriminator]
    #[arg(long)]
    serial_number: Option<String>,
    /// Unique id, at most 32 bytes [default: matterbind-, vendor, product, discriminator]
    #[arg(long)]
    unique_id: Option<String>,
    /// Interface to be seen on, may be repeated [default: all but loopback]
    #[arg(long, value_name = "NAME")]
    interface: Vec<String>,
    /// Device attestation certificate, DER or PEM
    #[arg(long, value_name = "FILE", requires_all = ["dac_key", "pai", "cd"])]
    dac: Option<PathBuf>,
    /// Private key of the device attestation certificate: 32 raw bytes, SEC1 or PKCS #8
    #[arg(long, value_name = "FILE", requires = "dac")]
    dac_key: Option<PathBuf>,
    /// Product attestation intermediate certificate, DER or PEM
    #[arg(long, value_name = "FILE", requires = "dac")]
    pai: Option<PathBuf>,
    /// Certification declaration, DER
    #[arg(long, value_name = "FILE", requires = "dac")]
    cd: Option<PathBuf>,
    /// Out of its box: on Bluetooth, here in the air of this directory (`bluetooth.adapter = "air:DIR"`), and on no network
    #[arg(long, value_name = "DIR")]
    ble: Option<PathBuf>,
    /// The network within its reach, SSID:PASSWORD; without it the access point is off
    #[arg(long, value_name = "SSID:PASSWORD", requires = "ble", value_parser = wifi)]
    wifi: Option<(String, WifiPassword)>,
    /// How long it takes to join
    #[arg(long, value_name = "TIME", requires = "ble", value_parser = humantime::parse_duration, default_value = "200ms")]
    connect_time: Duration,
    /// It has one radio, and says so: Bluetooth is dropped when it joins
    #[arg(long, requires = "ble")]
    one_radio: bool,
    /// It drops Bluetooth when it joins, and says that it would not
    #[arg(long, requires = "ble")]
    drops_ble: bool,
    /// It joins and gets no address
    #[arg(long, requires = "ble")]
    no_dhcp: bool,
    /// The indication of this number is lost
    #[arg(long, value_name = "N", requires = "ble")]
    lose: Option<u32>,
    /// The indication of this number overtakes the one before it
    #[arg(long, value_name = "N", requires = "ble")]
    swap: Option<u32>,
    /// It sleeps for so long while somebody is registered with it, and checks in when it wakes (ICD with long idle times)
    #[arg(long, value_name = "TIME", conflicts_with = "ble", value_parser = humantime::parse_duration)]
    sleeps: Option<Duration>,
    /// How long it stays awake after it has heard something
    #[arg(long, value_name = "TIME", requires = "sleeps", value_parser = humantime::parse_duration, default_value = "5s")]
    awake: Duration,
    /// Name in the advertisement and as product name, at most 32 bytes
    #[arg(long, default_value = "Virtual Light")]
    name: String,
    /// Print one JSON line when ready
    #[arg(long)]
    json: bool,
}

/// Decimal or `0x` hexadecimal.
fn number<T: TryFrom<u64>>(typed: &str) -> Result<T, String> {
    node::number(typed).ok_or_else(|| "not a decimal or 0x number, or too large".to_owned())
}

fn passcode(typed: &str) -> Result<Passcode, String> {
    let value = number::<u32>(typed)?;
    check_passcode(value).map_err(|error| error.to_string())?;
    Ok(Passcode::new(value))
}

fn wifi(typed: &str) -> Result<(String, WifiPassword), String> {
    let (ssid, password) = typed.split_once(':').ok_or("SSID:PASSWORD is needed")?;
    Ok((ssid.to_owned(), WifiPassword::new(password)))
}

fn discriminator(typed: &str) -> Result<u16, String> {
    let value = number::<u16>(typed)?;
    if value <= MAX_DISCRIMINATOR { Ok(value) } else { Err(format!("0 to {MAX_DISCRIMINATOR} is needed")) }
}

impl VirtualDeviceArgs {
    /// The device that was asked for; `scratch` is its storage where none was named.
    ///
    /// # Errors
    /// An evidence file that cannot be read, or a key that is none.
    pub(crate) fn options(&self, scratch: &Path) -> anyhow::Result<VirtualDeviceOptions> {
        let device = format!("{:04X}-{:04X}-{}", self.vendor_id, self.product_id, self.discriminator);
        Ok(VirtualDeviceOptions {
            discriminator: self.discriminator,
            passcode: self.passcode.clone(),
            vendor_id: self.vendor_id,
            product_id: self.product_id,
            port: self.port,
            storage: self.storage.clone().unwrap_or_else(|| scratch.to_owned()),
            serial_number: self
                .serial_number
                .clone()
                .unwrap_or_else(|| format!("MB{:04X}{:04X}{}", self.vendor_id, self.product_id, self.discriminator)),
            unique_id: self.unique_id.clone().unwrap_or_else(|| format!("matterbind-{device}")),
            vendor_name: "matterbind".to_owned(),
            product_name: self.name.clone(),
            device_name: self.name.clone(),
            interfaces: self.interface.clone(),
            evidence: self.evidence()?,
            radio: self.radio(),
            long_idle: self.sleeps.map(|idle| LongIdleOptions { idle, awake: self.awake }),
            specification_version: None,
        })
    }

    fn radio(&self) -> Option<RadioOptions> {
        let air = self.ble.as_ref()?;
        Some(RadioOptions {
            wifi: self.wifi.clone(),
            connect: self.connect_time,
            drops_at_connect: self.one_radio || self.drops_ble,
            concurrent: !self.one_radio,
            no_address: self.no_dhcp,
            loses: self.lose,
            swaps: self.swap,
            ..RadioOptions::new(air)
        })
    }

    fn evidence(&self) -> anyhow::Result<Option<DeviceEvidence>> {
        let (Some(dac), Some(dac_key), Some(pai), Some(cd)) = (&self.dac, &self.dac_key, &self.pai, &self.cd) else {
            return Ok(None);
        };
        let read = |path: &PathBuf| std::fs::read(path).with_context(|| format!("reading {}", path.display()));
        Ok(Some(DeviceEvidence::new(&read(dac)?, &read(dac_key)?, &read(pai)?, &read(cd)?)?))
    }
}

/// Runs `matterbind virtual-device` until SIGINT or SIGTERM; standard output gets one announcement when it is ready.
pub(crate) async fn main(args: VirtualDeviceArgs) -> anyhow::Result<()> {
    let scratch = Scratch(std::env::temp_dir().join(format!("matterbind-virtual-device-{}", std::process::id())));
    let options = args.options(&scratch.0)?;
    let shutdown = CancellationToken::new();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let json = args.json;
    let device = run(options, move |info| announce(&info, json), shutdown.clone());
    let signalled = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        shutdown.cancel();
        std::future::pending::<()>().await
    };
    tokio::select! {
        ended = device => Ok(ended?),
        () = signalled => Ok(()),
    }
}

/// Storage of a device that shall not be remembered.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // Where it was never made, there is nothing to remove.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn announce(info: &ReadyInfo, json: bool) {
    use std::io::Write as _;
    let text = if json { json_line(info) } else { friendly(info) };
    // A reader that went away does not stop the device.
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn json_line(info: &ReadyInfo) -> String {
    let line = serde_json::json!({
        "ready": true,
        "port": info.port,
        "qr_code": info.qr_code,
        "manual_code": info.manual_code,
        "commissionable": info.commissionable,
        "pid": std::process::id(),
    });
    format!("{line}\n")
}

fn friendly(info: &ReadyInfo) -> String {
    let mut text = String::new();
    if info.commissionable {
        if let Ok(code) = QrCode::new(&info.qr_code) {
            text = code.render::<Dense1x2>().build();
        }
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\n\nThe virtual light waits for a commissioner for 15 minutes, on UDP port {}.\n\n  QR payload   {}\n  manual code  {}\n\n  matterbind commission {}\n\n",
            info.port, info.qr_code, info.manual_code, info.qr_code
        );
    } else {
        let _ = writeln!(text, "The virtual light is commissioned and runs on UDP port {}.", info.port);
    }
    text + "Stop it with Ctrl-C.\n"
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        device: VirtualDeviceArgs,
    }

    fn parse(args: &[&str]) -> Result<VirtualDeviceArgs, clap::Error> {
        Cli::try_parse_from(["virtual-device"].iter().chain(args)).map(|cli| cli.device)
    }

    #[test]
    fn numbers_are_decimal_or_hexadecimal() {
        let args = parse(&["--vendor-id", "0xfff2", "--product-id", "32770", "--discriminator", "0XABC"]).unwrap();
        let options = args.options(Path::new("scratch")).unwrap();
        assert_eq!((options.vendor_id, options.product_id, options.discriminator), (0xFFF2, 0x8002, 0xABC));
        assert_eq!(options.serial_number, "MBFFF280022748");
        assert_eq!(options.storage, Path::new("scratch"));
        assert!(options.check().is_ok());
        for bad in ["0x10000", "12a", "", "-1"] {
            assert!(parse(&["--vendor-id", bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn evidence_comes_whole_or_not_at_all() {
        assert!(parse(&[]).unwrap().options(Path::new("x")).unwrap().evidence.is_none());
        assert!(parse(&["--dac", "a.der"]).is_err());
        assert!(parse(&["--cd", "a.der"]).is_err());
        let args = parse(&["--dac", "/nowhere", "--dac-key", "b", "--pai", "c", "--cd", "d"]).unwrap();
        assert!(args.options(Path::new("x")).unwrap_err().to_string().contains("/nowhere"));
    }

    #[test]
    fn the_ready_line_is_one_json_document() {
        let info =
            ReadyInfo { port: 5540, qr_code: "MT:Y".into(), manual_code: "34970112332".into(), commissionable: true };
        let line = json_line(&info);
        let parsed: serde_json::Value = serde_json::from_str(line.trim_end()).unwrap();
        assert_eq!((&parsed["ready"], &parsed["port"]), (&true.into(), &5540.into()));
        assert_eq!(line.lines().count(), 1);
        assert!(friendly(&info).contains("34970112332"));
    }
}
