//! What a simulated cloud starts with: `cloud-sim --scenario FILE`, TOML. Without a file there is a demo tenant.

use serde::{Deserialize, Serialize};

use super::fault::Fault;
use super::storm::Storm;

/// A whole scenario. Every key has a default; unknown keys are errors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    /// The service's region; devices of another one are refused with 6083.
    pub region: String,
    /// Lifetime of an access token in seconds.
    pub access_token_seconds: i64,
    /// Lifetime of a refresh token in seconds.
    pub refresh_token_seconds: i64,
    /// Behaviour that is not documented and may be either way.
    pub switches: Switches,
    /// User domains (Apps).
    pub domains: Vec<Domain>,
    /// Who may sign in.
    pub users: Vec<User>,
    /// Which product keys are known.
    pub products: Vec<Product>,
    /// What exists, bound or not.
    pub devices: Vec<Device>,
    /// Families (homes).
    pub families: Vec<Family>,
    /// Faults that wait from the start.
    pub faults: Vec<Fault>,
    /// Faults at random.
    pub storm: Option<Storm>,
}

impl Default for Scenario {
    /// The demo tenant: one domain, one account, one open product whose devices need no preparation.
    fn default() -> Self {
        Self {
            region: "eu".to_owned(),
            access_token_seconds: 7200,
            refresh_token_seconds: 30 * 24 * 3600,
            switches: Switches::default(),
            domains: vec![Domain {
                id: "demo".to_owned(),
                secret: "demo-secret-0123456789abcdef".to_owned(),
                products: vec!["p11abc".to_owned()],
                disabled: false,
            }],
            users: vec![User {
                domain: "demo".to_owned(),
                email: "hub@example.com".to_owned(),
                password: "demo-password".to_owned(),
                family_mode: true,
            }],
            products: vec![Product {
                key: "p11abc".to_owned(),
                name: "Demo light".to_owned(),
                binding_mode: 1,
                auto_devices: true,
                any_code: true,
            }],
            devices: Vec::new(),
            families: vec![Family {
                id: "f-demo".to_owned(),
                name: "Home".to_owned(),
                email: "hub@example.com".to_owned(),
                role: 1,
                rooms: vec![
                    Room { id: "r-kitchen".to_owned(), name: "Kitchen".to_owned() },
                    Room { id: "r-hall".to_owned(), name: "Hall".to_owned() },
                ],
            }],
            faults: Vec::new(),
            storm: None,
        }
    }
}

impl Scenario {
    /// Reads a scenario file's text.
    ///
    /// # Errors
    /// No TOML, or an unknown or badly typed key, with its place.
    pub fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }
}

/// How ids are kept (cloud-contract 6.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IdStorage {
    /// Signed 32 bits: wider ids are cut, and may come back negative.
    I32,
    /// Signed 64 bits.
    I64,
    /// A double: ids above 2^53 are rounded.
    F64,
    /// Unsigned 64 bits.
    #[default]
    U64,
}

/// How an answer without data shows it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EmptyData {
    /// `"data": null`.
    #[default]
    Null,
    /// No `data`, no `extMsg`.
    Absent,
}

/// What the documents leave open (cloud-contract 7 and 8).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Switches {
    /// How ids are kept.
    pub id_storage: IdStorage,
    /// Ids come back as decimal strings.
    pub ids_as_strings: bool,
    /// Unknown fields in a body are refused.
    pub strict: bool,
    /// HTTP status of refusals: 200, or for instance 400.
    pub error_status: u16,
    /// How an answer without data shows it.
    pub empty_data: EmptyData,
    /// Successes carry body code 0, as the documents' examples do.
    pub success_code_zero: bool,
    /// A discriminator of 0 counts as missing.
    pub zero_discriminator_missing: bool,
    /// A refresh makes the old refresh token worthless.
    pub rotate_refresh_tokens: bool,
    /// A sign-in makes all earlier tokens of the account worthless.
    pub single_session: bool,
    /// `userDeviceList` leaves out `matterInfo`; only `deviceInfo` has it.
    pub list_without_matter_info: bool,
    /// `isMatter` of answers is 0 or 1, as documented, else a boolean.
    pub matter_flag_as_integer: bool,
}

impl Default for Switches {
    fn default() -> Self {
        Self {
            id_storage: IdStorage::U64,
            ids_as_strings: false,
            strict: true,
            error_status: 200,
            empty_data: EmptyData::Null,
            success_code_zero: false,
            zero_discriminator_missing: false,
            rotate_refresh_tokens: true,
            single_session: false,
            list_without_matter_info: false,
            matter_flag_as_integer: true,
        }
    }
}

/// A user domain (App).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Domain {
    /// `userDomain`.
    pub id: String,
    /// `userDomainSecret`.
    pub secret: String,
    /// Keys of the products it is authorised for.
    #[serde(default)]
    pub products: Vec<String>,
    /// Sign-ins end with 5104.
    #[serde(default)]
    pub disabled: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    pub domain: String,
    pub email: String,
    pub password: String,
    /// Whether it uses families; without, a bind with `fid` is 5624.
    #[serde(default = "yes")]
    pub family_mode: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Product {
    pub key: String,
    #[serde(default)]
    pub name: String,
    /// 1 multi-user, 2 owner, 3 rotation.
    #[serde(default = "one")]
    pub binding_mode: u8,
    /// A device key that was never heard of is created on first sight.
    #[serde(default)]
    pub auto_devices: bool,
    /// Any well-formed binding code is taken as the one that the device reported.
    #[serde(default)]
    pub any_code: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    pub product_key: String,
    pub device_key: String,
    /// Region; left out: the service's.
    #[serde(default)]
    pub region: Option<String>,
    /// Whether it has authenticated itself (else 5009).
    #[serde(default = "yes")]
    pub verified: bool,
    /// Whether it has reported its binding secret (else 5465).
    #[serde(default = "yes")]
    pub secret_reported: bool,
    /// The binding code that it has reported (else 5460).
    #[serde(default)]
    pub binding_code: Option<String>,
    /// How long that code is good from the start, in seconds; left out: for ever.
    #[serde(default)]
    pub code_seconds: Option<i64>,
}

/// A family, as one account sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Family {
    /// `fid`.
    pub id: String,
    #[serde(default)]
    pub name: String,
    pub email: String,
    /// 1 creator, 2 administrator, 3 member (who may not bind: 5669).
    #[serde(default = "one")]
    pub role: u8,
    #[serde(default)]
    pub rooms: Vec<Room>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Room {
    /// `frid`.
    pub id: String,
    #[serde(default)]
    pub name: String,
}

fn yes() -> bool {
    true
}

fn one() -> u8 {
    1
}
