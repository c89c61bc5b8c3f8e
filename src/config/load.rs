//! Puts the layers together (defaults < file < environment < flags) and reports every mistake at once.
//!
//! The layers are merged as TOML, then each key is tried alone inside a sample that is known to be right: that is how
//! one wrong key does not hide the next. Not here: what a good value is (`validate`).

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::{
    AdminConfig, AllowTest, AttestationConfig, BindingCodeProfile, CloudConfig, CommissioningConfig, Config,
    DeviceKeySource, ProductProfile, RandomWord, validate,
};
use crate::fabric::{Cat, CatGrant, Privilege};
use crate::failpoint;

/// Where the configuration lies when nothing else is said.
pub(crate) const DEFAULT_FILE: &str = "/etc/matterbind/matterbind.toml";
/// Further files lie in this directory beside the file.
const DROP_INS: &str = "conf.d";
/// What every environment variable of ours begins with.
const PREFIX: &str = "MATTERBIND_";
/// Names the file; no key.
const FILE_VARIABLE: &str = "MATTERBIND_CONFIG";
/// Names the socket to the commands that talk to a daemon; it moves no daemon's.
pub(crate) const SOCKET_VARIABLE: &str = "MATTERBIND_SOCKET";

/// One mistake: where, what, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The key path, for instance `access.grants[1].cat`; empty for the file as a whole.
    pub key: String,
    /// Where it was said: a file, an environment variable, a flag; empty for a default.
    pub origin: String,
    pub problem: String,
    /// What to write instead.
    pub instead: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = if self.key.is_empty() { "configuration" } else { &self.key };
        write!(f, "{key}: {}", self.problem)?;
        if !self.instead.is_empty() {
            write!(f, "; {}", self.instead)?;
        }
        if !self.origin.is_empty() {
            write!(f, " ({})", self.origin)?;
        }
        Ok(())
    }
}

/// Everything that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} in the configuration:{}", count(.0.len()), lines(.0))]
pub struct ConfigMistakes(pub Vec<Mistake>);

fn count(mistakes: usize) -> String {
    if mistakes == 1 { "1 mistake".to_owned() } else { format!("{mistakes} mistakes") }
}

fn lines(mistakes: &[Mistake]) -> String {
    mistakes.iter().map(|mistake| format!("\n  {mistake}")).collect()
}

/// What the configuration is made of. [`Sources::of_process`] takes the real ones.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources {
    /// The file of `--config`; `None`: `MATTERBIND_CONFIG`, else [`DEFAULT_FILE`] if there is one.
    pub file: Option<PathBuf>,
    pub environment: Vec<(String, String)>,
    /// `(key path, value, flag)` from the command line.
    pub flags: Vec<(String, Value, String)>,
}

impl Sources {
    /// The process's own environment, and the file of `--config`.
    pub(crate) fn of_process(file: Option<PathBuf>) -> Self {
        let environment =
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect();
        Self { file, environment, flags: Vec::new() }
    }

    /// Adds a value from the command line, which wins over everything else.
    pub(crate) fn with_flag(mut self, key: &str, value: impl Into<Value>, flag: &str) -> Self {
        self.flags.push((key.to_owned(), value.into(), flag.to_owned()));
        self
    }

    fn variable(&self, name: &str) -> Option<&str> {
        self.environment.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()).filter(|v| !v.is_empty())
    }
}

/// What becomes of the secrets that the configuration names. A tool asks for what it uses: with the cloud's password in a
/// credential that only the unit has, a backup must be restored all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Secrets {
    /// All must be there and good: the daemon.
    Read,
    /// What cannot be had is a note where the service may have it: `check-config`.
    Judge,
    /// None is looked at: offline tools.
    NotUsed,
}

/// A configuration without mistakes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Loaded {
    /// What is in force.
    pub config: Config,
    /// What could not be judged by this process.
    pub notes: Vec<Mistake>,
}

/// Loads and judges the configuration.
///
/// # Errors
/// Every mistake in file, environment and flags, each with its key and what to write instead.
pub(crate) fn load(sources: &Sources, secrets: Secrets) -> Result<Loaded, ConfigMistakes> {
    let sample = sample();
    let mut layers = Layers::default();
    layers.add_service_directories(sources);
    layers.add_file(sources);
    layers.add_environment(sources, &sample);
    for (key, value, flag) in &sources.flags {
        layers.set(key.split('.'), value.clone(), flag);
    }
    let Layers { table, origins, mut mistakes } = layers;

    let accepted = probe("", &Value::Table(table), &sample, &|value| as_config(value).map(|_| ()), &mut mistakes);
    let mut config = as_config(accepted.clone()).unwrap_or_default();
    follow_deadline(&mut config.commissioning, accepted.get("commissioning"));
    if config.attestation.paa_dirs.is_empty() {
        config.attestation.paa_dirs = vec![config.state_dir.join("paa")];
    }
    let validate::Validated { mistakes: judged, mut notes } = validate::judge(&config, secrets);
    for judged in judged {
        let known = mistakes.iter().any(|m| !m.key.is_empty() && judged.key.starts_with(&m.key));
        if !known {
            mistakes.push(judged);
        }
    }
    for mistake in mistakes.iter_mut().chain(&mut notes).filter(|mistake| mistake.origin.is_empty()) {
        mistake.origin = origin_of(&mistake.key, &origins);
    }
    if mistakes.is_empty() { Ok(Loaded { config, notes }) } else { Err(ConfigMistakes(mistakes)) }
}

/// The configuration as TOML, every key with its effective value. It cannot contain a secret: secrets are in files.
pub(crate) fn effective(config: &Config) -> String {
    toml::to_string_pretty(config).expect("every value of Config has a form in TOML")
}

/// Times that nobody said are never longer than the deadline that somebody said.
fn follow_deadline(times: &mut CommissioningConfig, said: Option<&Value>) {
    let unsaid = |key: &str| said.is_none_or(|said| said.get(key).is_none());
    let most = times.deadline.max(Duration::from_secs(1));
    for (key, time) in [("discover_timeout", &mut times.discover_timeout), ("step_timeout", &mut times.step_timeout)] {
        if unsaid(key) {
            *time = most.min(*time);
        }
    }
    if unsaid("fail_safe") {
        times.fail_safe = Duration::from_secs(most.min(times.fail_safe).as_secs());
    }
}

fn as_config(value: Value) -> Result<Config, String> {
    value.try_into::<Config>().map_err(|error| error.message().to_owned())
}

fn origin_of(key: &str, origins: &BTreeMap<String, String>) -> String {
    let exact = origins.iter().filter(|(path, _)| key.starts_with(path.as_str()));
    exact.max_by_key(|(path, _)| path.len()).map(|(_, origin)| origin.clone()).unwrap_or_default()
}

/// The merged tables, who said what, and what could not be merged.
#[derive(Default)]
struct Layers {
    table: Table,
    origins: BTreeMap<String, String>,
    mistakes: Vec<Mistake>,
}

impl Layers {
    /// systemd's directories are defaults: a file may still say otherwise.
    fn add_service_directories(&mut self, sources: &Sources) {
        let first = |name| sources.variable(name).and_then(|list| list.split(':').next());
        if let Some(directory) = first("STATE_DIRECTORY") {
            self.set(["state_dir"].into_iter(), Value::String(directory.to_owned()), "$STATE_DIRECTORY");
        }
        if let Some(directory) = first("RUNTIME_DIRECTORY") {
            let socket = format!("{directory}/admin.sock");
            self.set(["socket"].into_iter(), Value::String(socket), "$RUNTIME_DIRECTORY");
        }
    }

    fn add_file(&mut self, sources: &Sources) {
        let named = sources.file.clone().or_else(|| sources.variable(FILE_VARIABLE).map(PathBuf::from));
        let path = named.clone().unwrap_or_else(|| DEFAULT_FILE.into());
        match std::fs::read_to_string(&path) {
            Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {}
            read => self.add_text(&path, read),
        }
        let directory = path.with_file_name(DROP_INS);
        let Ok(entries) = std::fs::read_dir(&directory) else { return };
        let mut drop_ins: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        drop_ins.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
        drop_ins.sort();
        for path in drop_ins {
            self.add_text(&path, std::fs::read_to_string(&path));
        }
    }

    fn add_text(&mut self, path: &Path, read: std::io::Result<String>) {
        let text = match read {
            Ok(text) => text,
            Err(error) => {
                let instead = "name another file with --config, or make this one readable".to_owned();
                self.fail(path, format!("cannot be read: {error}"), instead);
                return;
            }
        };
        match text.parse::<Table>() {
            Ok(mut table) => {
                let lines = Lines::read(&text, &self.table);
                let directory = path.parent().unwrap_or(Path::new(""));
                let directory = std::path::absolute(directory.join(".")).unwrap_or_else(|_| directory.to_owned());
                make_absolute(&mut table, &directory);
                let file = path.display().to_string();
                merge(&mut self.table, table, "", &file, &mut self.origins);
                self.origins.extend(lines.0.into_iter().map(|(key, line)| (key, format!("{file}:{line}"))));
            }
            Err(error) => {
                self.fail(path, format!("is not TOML: {}", error.to_string().trim_end()), String::new());
            }
        }
    }

    fn fail(&mut self, path: &Path, problem: String, instead: String) {
        let origin = path.display().to_string();
        self.mistakes.push(Mistake { key: String::new(), origin, problem, instead });
    }

    fn add_environment(&mut self, sources: &Sources, sample: &Value) {
        for (name, text) in &sources.environment {
            // What arms a crash test is a mistake like any other without the feature.
            let other = [FILE_VARIABLE, SOCKET_VARIABLE].contains(&name.as_str());
            let arms = cfg!(feature = "sim") && name == failpoint::VARIABLE;
            let Some(key) = name.strip_prefix(PREFIX).filter(|_| !other && !arms) else { continue };
            let path: Vec<String> = key.split("__").map(str::to_ascii_lowercase).collect();
            let known = path.iter().try_fold(sample, |value, part| value.get(part));
            let value = if known.is_some_and(Value::is_str) { Value::String(text.clone()) } else { read_value(text) };
            self.set(path.iter().map(String::as_str), value, name);
        }
    }

    /// Sets a value below tables that are made where they are missing.
    fn set<'a>(&mut self, path: impl Iterator<Item = &'a str>, value: Value, origin: &str) {
        let path: Vec<&str> = path.collect();
        let Some((last, parents)) = path.split_last() else { return };
        let mut table = &mut self.table;
        for parent in parents {
            let entry = table.entry(*parent).or_insert_with(|| Value::Table(Table::new()));
            if !entry.is_table() {
                *entry = Value::Table(Table::new());
            }
            let Value::Table(inner) = entry else { return };
            table = inner;
        }
        table.insert((*last).to_owned(), value);
        self.origins.insert(path.join("."), origin.to_owned());
    }
}

/// On which line of a file each key stands.
struct Lines(Vec<(String, usize)>);

impl Lines {
    /// `before` is what earlier files said: their lists of tables grow longer.
    fn read(text: &str, before: &Table) -> Self {
        let mut lines = Self(Vec::new());
        if let Ok(table) = DeTable::parse(text) {
            lines.table(table.get_ref(), Some(before), "", &|at| text[..at].matches('\n').count() + 1);
        }
        lines
    }

    fn table(&mut self, table: &DeTable<'_>, before: Option<&Table>, path: &str, line: &dyn Fn(usize) -> usize) {
        for (key, value) in table {
            let name: &str = key.get_ref();
            let place = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            let earlier = before.and_then(|before| before.get(name));
            self.0.push((place.clone(), line(key.span().start)));
            match value.get_ref() {
                DeValue::Table(inner) => self.table(inner, earlier.and_then(Value::as_table), &place, line),
                DeValue::Array(items) => {
                    let tables = items.iter().all(|item| item.get_ref().is_table());
                    let first = earlier.and_then(Value::as_array).filter(|_| tables).map_or(0, Vec::len);
                    for (index, item) in items.iter().enumerate() {
                        let place = format!("{place}[{}]", first + index);
                        self.0.push((place.clone(), line(item.span().start)));
                        if let DeValue::Table(inner) = item.get_ref() {
                            self.table(inner, None, &place, line);
                        }
                    }
                }
                _ => {}
            }
        }
    }
}

/// Puts a later file over earlier ones: tables grow together, lists of tables grow longer, anything else is replaced.
fn merge(into: &mut Table, from: Table, path: &str, origin: &str, origins: &mut BTreeMap<String, String>) {
    for (key, value) in from {
        let place = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match (into.get_mut(&key), value) {
            (Some(Value::Table(earlier)), Value::Table(later)) => merge(earlier, later, &place, origin, origins),
            (Some(Value::Array(earlier)), Value::Array(later))
                if later.iter().all(Value::is_table) && !later.is_empty() =>
            {
                earlier.extend(later);
            }
            (_, value) => {
                origins.insert(place, origin.to_owned());
                into.insert(key, value);
            }
        }
    }
}

/// A value from the environment: TOML where it is TOML (`8`, `true`, `["eth0"]`), else the text itself (`60s`).
fn read_value(text: &str) -> Value {
    let parsed = format!("value = {text}").parse::<Table>().ok().filter(|table| table.len() == 1);
    parsed.and_then(|mut table| table.remove("value")).unwrap_or_else(|| Value::String(text.to_owned()))
}

/// Paths in a file are relative to that file. A bare name may be a systemd credential and is left as it is if there is one.
fn make_absolute(table: &mut Table, directory: &Path) {
    for (key, value) in table.iter_mut() {
        match value {
            Value::Table(inner) => make_absolute(inner, directory),
            Value::String(text)
                if !text.is_empty() && (key.ends_with("_file") || key == "state_dir" || key == "socket") =>
            {
                *text = absolute(text, directory, key.ends_with("_file"));
            }
            Value::Array(items) if key == "paa_dirs" => {
                for item in items {
                    if let Value::String(text) = item {
                        *text = absolute(text, directory, false);
                    }
                }
            }
            _ => {}
        }
    }
}

fn absolute(text: &str, directory: &Path, may_be_credential: bool) -> String {
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY");
    let value = Path::new(text);
    let is_bare = value.components().count() == 1 && value.is_relative();
    let is_credential = super::secret_file::resolve(value, credentials.as_deref()) != value;
    // Neither here nor beside the file: a credential that systemd gives to the unit.
    if may_be_credential && (is_credential || (is_bare && !directory.join(value).exists())) {
        return text.to_owned();
    }
    directory.join(text).to_string_lossy().into_owned()
}

/// Tries each key of `user` alone in the place that it has in `sample`; gives back what can be kept, with the sample's
/// value where a mistake was noted.
fn probe(
    path: &str,
    user: &Value,
    sample: &Value,
    fits: &dyn Fn(Value) -> Result<(), String>,
    mistakes: &mut Vec<Mistake>,
) -> Value {
    match (user, sample) {
        (Value::Table(user), Value::Table(known)) => {
            let mut kept = Table::new();
            for (key, value) in user {
                let place = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let in_place = |value: Value| {
                    let mut whole = known.clone();
                    whole.insert(key.clone(), value);
                    fits(Value::Table(whole))
                };
                match known.get(key) {
                    Some(example) => {
                        kept.insert(key.clone(), probe(&place, value, example, &in_place, mistakes));
                    }
                    None => match in_place(value.clone()) {
                        Ok(()) => drop(kept.insert(key.clone(), value.clone())),
                        Err(problem) => mistakes.push(shape_mistake(place, problem)),
                    },
                }
            }
            for (key, example) in known.iter().filter(|(key, _)| !user.contains_key(*key)) {
                let mut without = known.clone();
                without.remove(key);
                if let Err(problem) = fits(Value::Table(without)) {
                    mistakes.push(shape_mistake(format!("{path}.{key}"), problem));
                    kept.insert(key.clone(), example.clone());
                }
            }
            Value::Table(kept)
        }
        (Value::Array(items), Value::Array(examples)) if examples.first().is_some_and(Value::is_table) => {
            let one = |value: Value| fits(Value::Array(vec![value]));
            let probed = items.iter().enumerate();
            Value::Array(
                probed.map(|(i, item)| probe(&format!("{path}[{i}]"), item, &examples[0], &one, mistakes)).collect(),
            )
        }
        _ => match fits(user.clone()) {
            Ok(()) => user.clone(),
            Err(problem) => {
                mistakes.push(shape_mistake(path.to_owned(), problem));
                sample.clone()
            }
        },
    }
}

fn shape_mistake(key: String, problem: String) -> Mistake {
    let instead = if problem.starts_with("unknown field") {
        "remove it or correct its name".to_owned()
    } else {
        validate::example_of(&key).map(|example| format!("write for instance {example}")).unwrap_or_default()
    };
    Mistake { key, origin: String::new(), problem: problem.trim().replace('\n', " "), instead }
}

/// A configuration in which every key has a value.
pub(crate) fn sample_config() -> Config {
    let cat = Cat::new(0x0002_0001).expect("version 1");
    Config {
        cloud: Some(CloudConfig {
            base_url: "https://iot-api.acceleronix.io".to_owned(),
            user_domain: "C.DM.1.1".to_owned(),
            user_domain_secret_file: "cloud-domain-secret".into(),
            email: "hub@example.com".to_owned(),
            password_file: "cloud-password".into(),
            family_id: String::new(),
            room_id: String::new(),
            timeout: super::default_cloud_timeout(),
            before_commissioning: super::BeforeCommissioning::default(),
            on_rejected: super::OnRejected::default(),
            on_cloud_missing: super::OnCloudMissing::default(),
            on_access_drift: super::OnAccessDrift::default(),
        }),
        products: vec![ProductProfile {
            vendor_id: 0xFFF1,
            product_id: 0x8000,
            product_key: "p11abc".to_owned(),
            device_key: DeviceKeySource::SerialNumber,
            binding_code: BindingCodeProfile::Word(RandomWord::Random),
            wan: false,
            ble: false,
            extra: Some("...".to_owned()),
            common: true,
        }],
        attestation: AttestationConfig {
            allow_test: vec![AllowTest { vendor_id: 0xFFF1, product_id: Some(0x8000) }],
            ..AttestationConfig::default()
        },
        access: super::AccessConfig {
            grants: vec![CatGrant { cat, privilege: Privilege::Operate }],
            ..super::AccessConfig::default()
        },
        networks: vec![super::HomeNetworkConfig {
            name: Some("Home".to_owned()),
            ssid: Some("Home".to_owned()),
            password_file: Some("wifi-password".into()),
            dataset_file: Some("thread-dataset".into()),
        }],
        admin: AdminConfig::default(),
        ..Config::default()
    }
}

fn sample() -> Value {
    Value::try_from(sample_config()).expect("every value of Config has a form in TOML")
}

#[cfg(test)]
mod tests;
