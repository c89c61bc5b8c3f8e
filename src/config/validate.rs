//! Judges a well-formed configuration: values out of range, values that contradict each other, files that are not there.
//!
//! Not here: keys and types (`load`).

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

use super::load::{Mistake, Secrets};
use super::{BindingCodeProfile, CloudConfig, Config, DeviceKeySource, bearer, secret_file};
use crate::commissioning::ports::AttributePath;
use crate::fabric::{AclLimits, plan_acl};
use crate::plain;

/// FabricLabel's length (Matter Core 11.18.4.5).
const MAX_LABEL_BYTES: usize = 32;
/// The last vendor id that is no wildcard (Matter Core 2.5.2).
const MAX_VENDOR_ID: u16 = 0xFFF4;
/// `sun_path` with its closing zero.
const MAX_SOCKET_PATH: usize = 107;
/// Length of an SSID (IEEE 802.11), in bytes.
pub(crate) const MAX_SSID: usize = 32;
/// IFNAMSIZ without its closing zero.
const MAX_INTERFACE_NAME: usize = 15;
/// The Matter stack holds 64 sessions; an attempt needs two, a window shared with others some more.
const MAX_CONCURRENT: usize = 24;

/// What a right value of a key looks like, in TOML.
pub(crate) fn example_of(key: &str) -> Option<&'static str> {
    let name = key.rsplit(['.', ']']).next().unwrap_or(key);
    Some(match name {
        "deadline" => "deadline = \"90s\"",
        "discover_timeout" => "discover_timeout = \"30s\"",
        "step_timeout" => "step_timeout = \"15s\"",
        "fail_safe" => "fail_safe = \"60s\"",
        "timeout" => "timeout = \"10s\"",
        "max_age" => "max_age = \"90d\"",
        "max_size" => "max_size = \"64MiB\"",
        "max_concurrent" => "max_concurrent = 8",
        "country" => "country = \"DE\"",
        "adapter" => "adapter = \"hci0\"",
        "ssid" => "ssid = \"Home\"",
        "dataset_file" => "dataset_file = \"/etc/matterbind/thread-dataset\"",
        "vendor_id" | "admin_vendor_id" => "0xFFF1",
        "product_id" => "0x8000",
        "cat" | "admin_cat" => "0x0001_0001 (identifier and version, the version not 0)",
        "privilege" => "privilege = \"Operate\" (View, Operate or Administer)",
        "policy" => "policy = \"require\"",
        "device_key" => "device_key = \"serial-number\", \"unique-id\" or { attribute = \"0/0x28/0x0f\" }",
        "binding_code" => "binding_code = \"random\", { write = \"1/0x1234/0\" } or { attribute = \"1/0x1234/0\" }",
        "interfaces" => "interfaces = [\"eth0\"]",
        "paa_source" => "paa_source = \"https://on.dcl.csa-iot.org\"",
        "paa_refresh" => "paa_refresh = \"24h\"",
        "paa_dirs" => "paa_dirs = [\"/var/lib/matterbind/paa\"]",
        "level" => "level = \"info\"",
        "log" => "level = \"info\" under [log], or MATTERBIND_LOG__LEVEL=info",
        "base_url" => "base_url = \"https://iot-api.acceleronix.io\"",
        "user_domain" => "user_domain = \"C.DM.1.1\", as the operator's console shows it",
        "user_domain_secret_file" => "user_domain_secret_file = \"/etc/matterbind/domain-secret\"",
        "password_file" => "password_file = \"/etc/matterbind/password\"",
        "email" => "email = \"hub@example.com\"",
        "wan" | "ble" => "true or false",
        _ => return None,
    })
}

/// What a judge says.
#[derive(Default)]
pub(crate) struct Validated {
    /// In the order of the sections.
    pub(crate) mistakes: Vec<Mistake>,
    /// What cannot be judged here, because only the service has it.
    pub(crate) notes: Vec<Mistake>,
}

/// Judges `config`; `secrets` says what of the files that it names.
pub(crate) fn judge(config: &Config, secrets: Secrets) -> Validated {
    let mut judge = Validation { secrets, mistakes: Vec::new(), notes: Vec::new() };
    judge.top_level(config);
    judge.networks(config);
    judge.commissioning(config);
    judge.attestation(config);
    judge.access(config);
    if let Some(cloud) = &config.cloud {
        judge.cloud(cloud);
    }
    judge.products(config);
    judge.journal_admin_log(config);
    Validated { mistakes: judge.mistakes, notes: judge.notes }
}

struct Validation {
    secrets: Secrets,
    mistakes: Vec<Mistake>,
    notes: Vec<Mistake>,
}

impl Validation {
    /// Notes a mistake unless `good`.
    fn demand(&mut self, good: bool, key: &str, problem: impl FnOnce() -> String, instead: &str) {
        if !good {
            let (key, instead) = (key.to_owned(), instead.to_owned());
            self.mistakes.push(Mistake { key, origin: String::new(), problem: problem(), instead });
        }
    }

    /// The same for what a running hub can do without until it is needed: somebody who asks is told, and no start is refused for it.
    fn demand_of_person(&mut self, good: bool, key: &str, problem: impl FnOnce() -> String, instead: &str) {
        self.demand(good || self.secrets != Secrets::Judge, key, problem, instead);
    }

    fn file_of_person(&mut self, key: &str, file: Option<&Path>) {
        if let Some(file) = file.filter(|file| self.secrets == Secrets::Judge && !file.as_os_str().is_empty()) {
            self.secret_file(key, file);
        }
    }

    fn pem_of_person(&mut self, key: &str, file: &Path, label: &str) {
        if self.secrets != Secrets::Judge || file.as_os_str().is_empty() {
            return;
        }
        let read = |path: &Path| match secret_file::read(path) {
            Ok(text) if text.expose().contains(label) => Ok(()),
            Ok(_) => Err(Unfit::Bad(format!("{} holds no PEM with {label:?}", path.display()))),
            // A chain may be longer than any secret.
            Err(secret_file::SecretFileError::NotText { .. }) => Ok(()),
            Err(error) => Err(Unfit::Unread(error)),
        };
        self.secret(key, file, read, "name a readable file in PEM, or a systemd credential");
    }

    fn within(&mut self, key: &str, value: Duration, range: std::ops::RangeInclusive<u64>) {
        let show = |seconds| humantime::format_duration(Duration::from_secs(seconds)).to_string();
        let (low, high) = (show(*range.start()), show(*range.end()));
        let good = value >= Duration::from_secs(*range.start()) && value <= Duration::from_secs(*range.end());
        let problem = || format!("{} is out of range", humantime::format_duration(value));
        self.demand(good, key, problem, &format!("write a time from {low} to {high}"));
    }

    fn top_level(&mut self, config: &Config) {
        let socket_length = config.socket.as_os_str().len();
        self.demand(
            config.state_dir.is_absolute(),
            "state_dir",
            || format!("{} is relative", config.state_dir.display()),
            "write the whole path, for instance /var/lib/matterbind",
        );
        self.demand(
            (1..=MAX_SOCKET_PATH).contains(&socket_length),
            "socket",
            || format!("a socket's path has 1 to {MAX_SOCKET_PATH} bytes, this one {socket_length}"),
            "choose a shorter path, for instance /run/matterbind/admin.sock",
        );
        for (i, name) in config.network.interfaces.iter().enumerate() {
            self.demand(
                (1..=MAX_INTERFACE_NAME).contains(&name.len()) && !name.contains(['/', ' ']),
                &format!("network.interfaces[{i}]"),
                || format!("{name:?} cannot be an interface's name"),
                "write a name as `ip link` shows it, or leave the list empty for all",
            );
        }
        let label = &config.fabric.label;
        self.demand(
            (1..=MAX_LABEL_BYTES).contains(&label.len()),
            "fabric.label",
            || format!("a fabric's label has 1 to {MAX_LABEL_BYTES} bytes, this one {}", label.len()),
            "write a shorter one, for instance \"Home\"",
        );
        self.demand(
            (1..=MAX_VENDOR_ID).contains(&config.fabric.admin_vendor_id),
            "fabric.admin_vendor_id",
            || format!("{:#06X} is no vendor id", config.fabric.admin_vendor_id),
            "write your own, or 0xFFF1 (test vendor)",
        );
    }

    fn networks(&mut self, config: &Config) {
        for (i, network) in config.networks.iter().enumerate() {
            let right = match (&network.ssid, &network.password_file, &network.dataset_file) {
                (Some(ssid), _, None) => (1..=MAX_SSID).contains(&ssid.len()),
                (None, None, Some(_)) => true,
                _ => false,
            };
            self.demand(
                right,
                &format!("networks[{i}]"),
                || "a network has either an ssid of 1 to 32 bytes, or a dataset_file".to_owned(),
                "write ssid and password_file for Wi-Fi, dataset_file for Thread",
            );
            let twice = config.networks[..i].iter().any(|other| other.name() == network.name());
            let name = network.name();
            let problem = || format!("a network of the name {name:?} stands above");
            self.demand_of_person(!twice, &format!("networks[{i}]"), problem, "give it a name of its own");
            self.file_of_person(&format!("networks[{i}].password_file"), network.password_file.as_deref());
            self.file_of_person(&format!("networks[{i}].dataset_file"), network.dataset_file.as_deref());
        }
    }

    fn commissioning(&mut self, config: &Config) {
        let country = &config.commissioning.country;
        self.demand(
            country.is_empty() || country.len() == 2 && country.bytes().all(|letter| letter.is_ascii_uppercase()),
            "commissioning.country",
            || format!("{country:?} is no country code"),
            "write two capital letters (ISO 3166-1), for instance \"DE\", or leave it empty",
        );
        let times = &config.commissioning;
        self.within("commissioning.deadline", times.deadline, 5..=900);
        self.within("commissioning.discover_timeout", times.discover_timeout, 1..=900);
        self.within("commissioning.step_timeout", times.step_timeout, 1..=300);
        self.within("commissioning.fail_safe", times.fail_safe, 1..=65535);
        self.demand(
            times.fail_safe.subsec_nanos() == 0,
            "commissioning.fail_safe",
            || "the fail-safe is sent in whole seconds".to_owned(),
            "write for instance \"60s\"",
        );
        for (key, value) in [
            ("commissioning.discover_timeout", times.discover_timeout),
            ("commissioning.step_timeout", times.step_timeout),
            ("commissioning.fail_safe", times.fail_safe),
        ] {
            let shown = humantime::format_duration(value);
            self.demand(
                value <= times.deadline,
                key,
                || format!("{shown} is longer than commissioning.deadline"),
                "make it shorter, or the deadline longer",
            );
        }
        self.demand(
            (1..=MAX_CONCURRENT).contains(&times.max_concurrent),
            "commissioning.max_concurrent",
            || format!("{} is out of range", times.max_concurrent),
            &format!("write a number from 1 to {MAX_CONCURRENT}; further attempts wait their turn"),
        );
    }

    fn attestation(&mut self, config: &Config) {
        let source = &config.attestation.paa_source;
        if !source.is_empty() {
            let url = reqwest::Url::parse(source).ok().filter(|url| matches!(url.scheme(), "https" | "http"));
            let plain = url.as_ref().is_some_and(|url| url.scheme() == "http" && !is_near(url));
            self.demand(
                url.is_some(),
                "attestation.paa_source",
                || format!("{source:?} is no ledger's address"),
                "write for instance https://on.dcl.csa-iot.org; a directory belongs into paa_dirs",
            );
            self.demand(
                !plain,
                "attestation.paa_source",
                || "over plain http anybody on the way could say whom to trust".to_owned(),
                "write https://; http:// is for localhost and private addresses",
            );
        }
        self.within("attestation.paa_refresh", config.attestation.paa_refresh, 3600..=90 * 86_400);
        let mut allowed = HashSet::new();
        for (i, line) in config.attestation.allow_test.iter().enumerate() {
            self.demand(
                allowed.insert((line.vendor_id, line.product_id)),
                &format!("attestation.allow_test[{i}]"),
                || "the same vendor and product stand in an earlier line".to_owned(),
                "remove one of them",
            );
        }
    }

    fn access(&mut self, config: &Config) {
        let access = &config.access;
        let mut seen = HashSet::from([access.admin_cat.identifier()]);
        for (i, grant) in access.grants.iter().enumerate() {
            let key = format!("access.grants[{i}].cat");
            self.demand(
                seen.insert(grant.cat.identifier()),
                &key,
                || format!("{} has the identifier of another grant or of admin_cat", grant.cat),
                "give each tag an identifier (upper 16 bits) of its own, and one privilege",
            );
        }
        if let Err(error) = plan_acl(access.admin_cat, &access.grants, AclLimits::default()) {
            self.demand(
                false,
                "access.grants",
                || format!("{error}, and the specification asks no more of a device"),
                "configure fewer grants, or give several users one tag",
            );
        }
    }

    fn cloud(&mut self, cloud: &CloudConfig) {
        self.base_url(&cloud.base_url);
        self.demand(
            !cloud.user_domain.trim().is_empty(),
            "cloud.user_domain",
            || "it is empty".to_owned(),
            "write the domain that the operator's console shows",
        );
        let email_parts = cloud.email.split_once('@');
        self.demand(
            email_parts.is_some_and(|(user, host)| !user.is_empty() && !host.is_empty() && !host.contains('@'))
                && !cloud.email.contains(char::is_whitespace),
            "cloud.email",
            || format!("{:?} is no email address", cloud.email),
            "write the address of the hub's own account, for instance hub@example.com",
        );
        self.within("cloud.timeout", cloud.timeout, 1..=300);
        self.secret_file("cloud.user_domain_secret_file", &cloud.user_domain_secret_file);
        self.secret_file("cloud.password_file", &cloud.password_file);
        self.demand(
            cloud.room_id.is_empty() || !cloud.family_id.is_empty(),
            "cloud.room_id",
            || "a room belongs to a family, and family_id is empty".to_owned(),
            "set cloud.family_id too",
        );
    }

    fn base_url(&mut self, text: &str) {
        const KEY: &str = "cloud.base_url";
        const INSTEAD: &str = "write the region's service, for instance https://iot-api.acceleronix.io";
        let url = match reqwest::Url::parse(text) {
            Ok(url) if matches!(url.scheme(), "https" | "http") => url,
            Ok(url) => {
                let scheme = url.scheme().to_owned();
                return self.demand(false, KEY, || format!("{scheme}: is neither https: nor http:"), INSTEAD);
            }
            Err(error) => return self.demand(false, KEY, || format!("{text:?} is no URL: {error}"), INSTEAD),
        };
        let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        self.demand(bare, KEY, || "it has a path".to_owned(), "write it without a path: the paths are the cloud's own");
        let no_user = url.username().is_empty() && url.password().is_none();
        self.demand(
            no_user,
            KEY,
            || "it contains a user or a password".to_owned(),
            "secrets belong into password_file",
        );
        self.demand(
            url.scheme() == "https" || is_near(&url),
            KEY,
            || "plain http would send tokens readable for everybody on the way".to_owned(),
            "write https://; http:// is for localhost and private addresses",
        );
    }

    fn products(&mut self, config: &Config) {
        let mut seen = HashSet::new();
        for (i, product) in config.products.iter().enumerate() {
            let at = |name: &str| format!("products[{i}].{name}");
            self.demand(
                seen.insert((product.vendor_id, product.product_id)),
                &at("product_id"),
                || format!("{:#06X}/{:#06X} has a profile already", product.vendor_id, product.product_id),
                "keep one [[products]] for each vendor and product id",
            );
            let key = &product.product_key;
            self.demand(
                !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric()),
                &at("product_key"),
                || format!("{key:?} is no product key"),
                "write the key as the console shows it: letters and digits",
            );
            if let DeviceKeySource::Attribute(path) = &product.device_key {
                self.attribute(&at("device_key.attribute"), path);
            }
            match &product.binding_code {
                BindingCodeProfile::Word(_) => {}
                BindingCodeProfile::Write { write } => self.attribute(&at("binding_code.write"), write),
                BindingCodeProfile::Attribute { attribute } => {
                    self.attribute(&at("binding_code.attribute"), attribute);
                }
            }
        }
    }

    fn attribute(&mut self, key: &str, path: &str) {
        if let Err(error) = path.parse::<AttributePath>() {
            self.demand(false, key, || error.to_string(), "write endpoint/cluster/attribute, for instance 0/0x28/0x0f");
        }
    }

    fn journal_admin_log(&mut self, config: &Config) {
        self.within("journal.max_age", config.journal.max_age, 3600..=3650 * 86_400);
        self.demand(
            config.journal.max_size.as_u64() >= 64 * 1024,
            "journal.max_size",
            || format!("{} holds too little to be of use", config.journal.max_size),
            "write at least 64KiB",
        );
        let admin = &config.admin;
        if !admin.tcp.is_empty() {
            self.demand(
                admin.tcp.parse::<SocketAddr>().is_ok(),
                "admin.tcp",
                || format!("{:?} is no address with a port", admin.tcp),
                "write for instance 127.0.0.1:8480 or [::1]:8480",
            );
            if admin.token_file.is_empty() {
                let problem = || "admin.tcp is open to the network and needs a token".to_owned();
                self.demand(false, "admin.token_file", problem, "name a file with a long random word");
            }
        }
        self.demand(
            admin.tls_cert_file.is_empty() == admin.tls_key_file.is_empty(),
            "admin.tls_cert_file",
            || "a certificate is of no use without its key, nor a key without its certificate".to_owned(),
            "name both admin.tls_cert_file and admin.tls_key_file, or neither",
        );
        // At a start they may be a moment late: that is tried again.
        self.pem_of_person("admin.tls_cert_file", Path::new(&admin.tls_cert_file), "BEGIN CERTIFICATE-----");
        self.pem_of_person("admin.tls_key_file", Path::new(&admin.tls_key_file), "PRIVATE KEY-----");
        self.demand(
            !admin.enrolment || admin.has_tls(),
            "admin.enrolment",
            || "apps enrol over TLS only, and there is none".to_owned(),
            "name an address in admin.tcp, and set admin.tls to \"on\" where that is loopback",
        );
        if !admin.token_file.is_empty() {
            let read = |path: &Path| match bearer::read(path) {
                Ok(_) => Ok(()),
                Err(bearer::TokenError::File(error)) => Err(Unfit::Unread(error)),
                Err(error) => Err(Unfit::Bad(error.to_string())),
            };
            self.secret("admin.token_file", Path::new(&admin.token_file), read, bearer::HOW);
        }
        let instead = "write a level (error, warn, info, debug, trace) or a filter such as matterbind=debug";
        let level = &config.log.level;
        if let Err(error) = level.parse::<Targets>() {
            self.demand(false, "log.level", || error.to_string(), instead);
        }
        // To the filter a word alone is a module of that name, at every level.
        let words = level.split(',').map(str::trim).filter(|word| !word.contains('='));
        for word in words.filter(|word| !word.is_empty() && word.parse::<LevelFilter>().is_err()) {
            self.demand(false, "log.level", || format!("{word:?} is no level"), instead);
        }
    }

    fn secret_file(&mut self, key: &str, value: &Path) {
        let instead = "name a readable file that holds the secret and nothing else, or a systemd credential";
        self.secret(key, value, |path| secret_file::read(path).map(drop).map_err(Unfit::Unread), instead);
    }

    /// Judges what a `…_file` key names, as far as this process is asked to and able to.
    fn secret(&mut self, key: &str, value: &Path, read: impl Fn(&Path) -> Result<(), Unfit>, instead: &str) {
        let problem = match self.secrets {
            Secrets::NotUsed => return,
            Secrets::Read | Secrets::Judge => match read(value) {
                Ok(()) => return,
                Err(Unfit::Unread(error)) if self.secrets == Secrets::Judge && is_the_services(value, &error) => {
                    let problem = format!("{}; the service may have it", plain::with_causes(&error));
                    let instead = "`systemctl start matterbind` says whether it does".to_owned();
                    self.notes.push(Mistake { key: key.to_owned(), origin: String::new(), problem, instead });
                    return;
                }
                Err(Unfit::Unread(error)) => plain::with_causes(&error),
                Err(Unfit::Bad(problem)) => problem,
            },
        };
        self.demand(false, key, || problem, instead);
    }
}

/// Why a secret is not good.
enum Unfit {
    /// It cannot be had.
    Unread(secret_file::SecretFileError),
    /// It was read, and this is wrong with it.
    Bad(String),
}

/// A bare name stands for a credential that systemd gives to the unit only; a file may be readable for the service only.
fn is_the_services(value: &Path, error: &secret_file::SecretFileError) -> bool {
    let secret_file::SecretFileError::Unreadable { source, .. } = error else { return false };
    match source.kind() {
        io::ErrorKind::NotFound => value.components().count() == 1 && value.is_relative(),
        io::ErrorKind::PermissionDenied => true,
        _ => false,
    }
}

/// Whether plain HTTP stays on this machine or in this house.
fn is_near(url: &reqwest::Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        Ok(IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}
