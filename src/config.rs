//! The configuration's types and defaults. `config/matterbind.toml` is the commented reference of every key.
//!
//! `load` puts the layers together and reports every mistake at once, `validate` judges values, `secret_file` reads
//! what the `…_file` keys name. Not here: anything that acts on a value.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use home::BluetoothConfig;
pub(crate) use home::HomeNetworkConfig;

use crate::fabric::{Cat, CatGrant, Privilege};

pub(crate) mod attribute_path;
pub(crate) mod bearer;
mod home;
pub(crate) mod load;
pub(crate) mod secret_file;
mod time;
pub(crate) mod validate;

/// Everything that can be configured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the durable state lies.
    pub state_dir: PathBuf,
    /// The admin API's Unix socket.
    pub socket: PathBuf,
    /// Interfaces.
    pub network: NetworkConfig,
    /// Bluetooth.
    pub bluetooth: BluetoothConfig,
    /// Networks that devices on Bluetooth are brought to, besides those that were set by command.
    pub networks: Vec<HomeNetworkConfig>,
    /// Our fabric.
    pub fabric: FabricConfig,
    /// Deadlines and limits of an attempt.
    pub commissioning: CommissioningConfig,
    /// Which devices are accepted.
    pub attestation: AttestationConfig,
    /// Who may do what.
    pub access: AccessConfig,
    /// The binding service; without it the daemon commissions and binds nothing.
    pub cloud: Option<CloudConfig>,
    /// Where a device's cloud identity comes from when the command does not say.
    pub products: Vec<ProductProfile>,
    /// The admin log.
    pub journal: JournalConfig,
    /// The admin API over TCP.
    pub admin: AdminConfig,
    /// Diagnostics.
    pub log: LogConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_dir: "/var/lib/matterbind".into(),
            socket: "/run/matterbind/admin.sock".into(),
            network: NetworkConfig::default(),
            bluetooth: BluetoothConfig::default(),
            networks: Vec::new(),
            fabric: FabricConfig::default(),
            commissioning: CommissioningConfig::default(),
            attestation: AttestationConfig::default(),
            access: AccessConfig::default(),
            cloud: None,
            products: Vec::new(),
            journal: JournalConfig::default(),
            admin: AdminConfig::default(),
            log: LogConfig::default(),
        }
    }
}

/// `[network]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkConfig {
    /// Interface names; empty: every interface that is up and multicast-capable.
    pub interfaces: Vec<String>,
    /// Whether the loopback interface may be one of them: for simulated devices on the hub itself.
    pub loopback: bool,
}

/// `[fabric]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FabricConfig {
    /// The fabric's label on each device, at most 32 bytes.
    pub label: String,
    /// AdminVendorId of AddNOC; 0xFFF1 is the first test vendor.
    pub admin_vendor_id: u16,
}

impl Default for FabricConfig {
    fn default() -> Self {
        Self { label: "Home".to_owned(), admin_vendor_id: 0xFFF1 }
    }
}

/// `[commissioning]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CommissioningConfig {
    /// One attempt in all, discovery included.
    #[serde(with = "time")]
    #[schemars(with = "String")]
    pub deadline: Duration,
    /// How long to look for the device.
    #[serde(with = "time")]
    #[schemars(with = "String")]
    pub discover_timeout: Duration,
    /// One step after discovery.
    #[serde(with = "time")]
    #[schemars(with = "String")]
    pub step_timeout: Duration,
    /// ArmFailSafe's expiry, 1 s to 65535 s.
    #[serde(with = "time")]
    #[schemars(with = "String")]
    pub fail_safe: Duration,
    /// Attempts at once; more wait their turn.
    pub max_concurrent: usize,
    /// ISO 3166-1 country code that devices with a radio are told; empty: none.
    pub country: String,
}

impl Default for CommissioningConfig {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(90),
            discover_timeout: Duration::from_secs(30),
            step_timeout: Duration::from_secs(15),
            fail_safe: Duration::from_secs(60),
            max_concurrent: 8,
            country: String::new(),
        }
    }
}

/// `[attestation]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AttestationConfig {
    /// What to do with findings.
    pub policy: AttestationPolicy,
    /// Directories of trusted PAA certificates; empty: `<state_dir>/paa`.
    pub paa_dirs: Vec<PathBuf>,
    /// The ledger (DCL) that PAAs and revocations are fetched from in the background; empty: none.
    pub paa_source: String,
    /// How often.
    #[serde(with = "time")]
    #[schemars(with = "String")]
    pub paa_refresh: Duration,
    /// Devices that may show a test certification declaration or a test PAA.
    pub allow_test: Vec<AllowTest>,
}

impl Default for AttestationConfig {
    fn default() -> Self {
        Self {
            policy: AttestationPolicy::Require,
            paa_dirs: Vec::new(),
            paa_source: String::new(),
            paa_refresh: Duration::from_secs(24 * 3600),
            allow_test: Vec::new(),
        }
    }
}

/// `attestation.policy`; unset means require.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AttestationPolicy {
    /// Production PAA, official or provisional declaration, no error.
    Require,
    /// Record the findings and go on.
    Warn,
}

/// One line of `attestation.allow_test`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AllowTest {
    /// Vendor id.
    pub vendor_id: u16,
    /// Product id; left out: all of the vendor's.
    pub product_id: Option<u16>,
}

/// `[access]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AccessConfig {
    /// The tag in the hub's own certificate, CaseAdminSubject of every device.
    #[schemars(with = "u32")]
    pub admin_cat: Cat,
    /// What other tags may do.
    #[serde(deserialize_with = "grant_lines")]
    #[schemars(with = "Vec<GrantLine>")]
    pub grants: Vec<CatGrant>,
}

/// A grant as it stands in the file: without keys that nobody knows. Elsewhere a grant may grow.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct GrantLine {
    /// The tag: identifier and version.
    #[schemars(with = "u32")]
    cat: Cat,
    /// `View`, `Operate`, `Manage` or `Administer`.
    #[schemars(with = "String")]
    privilege: Privilege,
}

fn grant_lines<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<CatGrant>, D::Error> {
    let lines = Vec::<GrantLine>::deserialize(deserializer)?;
    Ok(lines.into_iter().map(|GrantLine { cat, privilege }| CatGrant { cat, privilege }).collect())
}

/// The configuration's JSON Schema, for editors.
pub(crate) fn schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(Config).to_value();
    schema["title"] = "matterbind's configuration".into();
    schema
}

impl Default for AccessConfig {
    fn default() -> Self {
        Self { admin_cat: Cat::new(0x0001_0001).expect("version 1"), grants: Vec::new() }
    }
}

/// `[cloud]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CloudConfig {
    /// The region's service, without a path.
    pub base_url: String,
    /// Issued by the operator's console.
    pub user_domain: String,
    /// File or systemd credential with the domain's secret.
    pub user_domain_secret_file: PathBuf,
    /// The hub's own account.
    pub email: String,
    /// File or systemd credential with its password.
    pub password_file: PathBuf,
    /// `fid`.
    #[serde(default)]
    pub family_id: String,
    /// `frid`.
    #[serde(default)]
    pub room_id: String,
    /// One request.
    #[serde(default = "default_cloud_timeout", with = "time")]
    #[schemars(with = "String")]
    pub timeout: Duration,
    /// Whether the cloud is asked before a device gets credentials.
    #[serde(default)]
    pub before_commissioning: BeforeCommissioning,
    /// What becomes of a node that the cloud refuses for ever.
    #[serde(default)]
    pub on_rejected: OnRejected,
    /// What to do where the cloud has lost a binding.
    #[serde(default)]
    pub on_cloud_missing: OnCloudMissing,
    /// What to do where a device's access control list is not as recorded.
    #[serde(default)]
    pub on_access_drift: OnAccessDrift,
}

fn default_cloud_timeout() -> Duration {
    Duration::from_secs(10)
}

/// `cloud.before_commissioning`: what to do where the cloud says beforehand that a device may not be bound. A cloud that
/// cannot be asked stops nobody.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BeforeCommissioning {
    /// Do not ask.
    Skip,
    /// Say so and go on.
    Warn,
    /// Leave the device as it is.
    #[default]
    Refuse,
    /// The same for products in rotation mode, whose next user evicts the one before.
    Strict,
}

/// `cloud.on_rejected`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnRejected {
    /// The node stays local and usable.
    #[default]
    Keep,
    /// Remove it from our fabric again.
    Decommission,
}

/// `cloud.on_cloud_missing`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnCloudMissing {
    /// Bind again.
    Rebind,
    /// Remove the node from our fabric.
    Decommission,
    /// Say so.
    #[default]
    Report,
}

/// `cloud.on_access_drift`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnAccessDrift {
    /// Write the configured list again.
    Restore,
    /// Take over what the device holds.
    Record,
    /// Say so.
    #[default]
    Report,
}

/// `[[products]]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProductProfile {
    /// Vendor id.
    pub vendor_id: u16,
    /// Product id.
    pub product_id: u16,
    /// The cloud's product key.
    pub product_key: String,
    /// Where the device key comes from.
    pub device_key: DeviceKeySource,
    /// Where the binding code comes from.
    pub binding_code: BindingCodeProfile,
    /// Mask bit 0.
    #[serde(default)]
    pub wan: bool,
    /// Mask bit 2.
    #[serde(default)]
    pub ble: bool,
    /// `matterInfo.extra` of its bind, opaque to the hub.
    #[serde(default)]
    pub extra: Option<String>,
    /// Whether the family's list of common devices shows it.
    #[serde(default = "yes")]
    pub common: bool,
}

fn yes() -> bool {
    true
}

/// `products.device_key`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceKeySource {
    /// Basic Information's SerialNumber.
    SerialNumber,
    /// Basic Information's UniqueID.
    UniqueId,
    /// Any readable attribute, `endpoint/cluster/attribute`, numbers decimal or 0x hex.
    Attribute(String),
}

/// `products.binding_code`: `"random"`, `{ write = "…" }` or `{ attribute = "…" }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, deny_unknown_fields)]
pub enum BindingCodeProfile {
    /// `"random"`: made by the hub and only told to the cloud.
    Word(RandomWord),
    /// `{ write = "endpoint/cluster/attribute" }`: made by the hub, written to the device, told to the cloud.
    Write {
        /// The attribute to write.
        write: String,
    },
    /// `{ attribute = "…" }`: read from the device.
    Attribute {
        /// The attribute to read.
        attribute: String,
    },
}

/// The word `random`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RandomWord {
    /// Made by the hub.
    Random,
}

/// `[journal]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct JournalConfig {
    /// Older entries are dropped.
    #[serde(with = "time")]
    #[schemars(with = "String")]
    pub max_age: Duration,
    /// The oldest entries are dropped beyond this.
    #[schemars(with = "String")]
    pub max_size: bytesize::ByteSize,
}

impl Default for JournalConfig {
    fn default() -> Self {
        Self { max_age: Duration::from_secs(90 * 24 * 3600), max_size: bytesize::ByteSize::mib(64) }
    }
}

/// `[admin]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdminConfig {
    /// Address and port, empty for none; needs `token_file`.
    pub tcp: String,
    /// File with the bearer token.
    pub token_file: String,
    /// Whether TCP is encrypted.
    pub tls: TlsMode,
    /// The certificate chain, PEM; empty: the hub makes a certificate.
    pub tls_cert_file: String,
    /// Its key, PEM.
    pub tls_key_file: String,
    /// Names by which browsers may know the hub.
    pub hosts: Vec<String>,
    /// Whether apps on the network may enrol with a code.
    pub enrolment: bool,
}

impl AdminConfig {
    /// Whether there is TLS on the TCP listener.
    pub fn has_tls(&self) -> bool {
        let address = self.tcp.parse::<std::net::SocketAddr>();
        match self.tls {
            TlsMode::On => address.is_ok(),
            TlsMode::Off => false,
            TlsMode::Auto => address.is_ok_and(|address| !address.ip().to_canonical().is_loopback()),
        }
    }
}

/// `admin.tls`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// But on loopback.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never: others may read along.
    Off,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// A tracing filter, for instance `info` or `matterbind=debug`.
    pub level: String,
    /// Where and how.
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Auto }
    }
}

/// `log.format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// journald under systemd, text on a terminal, else JSON.
    Auto,
    /// journald.
    Journald,
    /// For a person.
    Text,
    /// For a machine.
    Json,
}
