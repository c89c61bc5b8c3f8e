//! Starts matter.js lights (tests/interop/device.mjs), installing the package from npm first.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::lab::{INTERFACE, Lab, skipped};

/// Loading matter.js takes a second on a quiet machine; this is for a busy one.
const START: Duration = Duration::from_secs(60);
/// Any other answer.
pub const ANSWER: Duration = Duration::from_secs(30);

const DEVICE: &str = "device.mjs";
const CONTROLLER: &str = "controller.mjs";
/// A controller with a certificate of the hub.
pub const PANEL: &str = "panel.mjs";

/// Lets an independent controller (controller.mjs) in the hub's namespace join the device of a manual code; what it says. `None`
/// where Node is missing. Where the index of another fabric is given, it removes that as soon as the closure has come back.
pub fn join_with_second_controller(lab: &Lab, manual_code: &str, evict: Option<(u64, &dyn Fn())>) -> Option<String> {
    let directory = match install() {
        Ok(directory) => directory,
        Err(reason) => {
            skipped(&format!("no matter.js: {reason}"));
            return None;
        }
    };
    let storage = tempfile::tempdir().expect("a temporary directory");
    let mut command = lab.hub_command("node");
    command.arg(directory.join(CONTROLLER)).arg(manual_code).args(evict.map(|(index, _)| index.to_string()));
    command.env("STORAGE", storage.path()).env("IFACE", INTERFACE);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("ip netns exec");
    let mut stdin = child.stdin.take().expect("it is piped");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines().map_while(Result::ok);
    let mut said = lines.next().unwrap_or_default();
    if let (Some((_, ready)), "ABOARD") = (evict, said.as_str()) {
        ready();
        writeln!(stdin).expect("it waits for a line");
        said = lines.next().unwrap_or_default();
    }
    child.wait().expect("it ends after it has said what became of it");
    Some(said)
}

/// What a light says of itself.
#[derive(Debug, Clone, Deserialize)]
pub struct Light {
    /// Its name.
    pub id: String,
    /// `MT:…`
    pub qr: String,
    /// 11 digits.
    pub manual: String,
    /// For PASE.
    pub passcode: u32,
    /// 12 bits.
    pub discriminator: u16,
    /// UDP.
    pub port: u16,
    /// Whether it is on a fabric already.
    #[serde(default)]
    pub commissioned: bool,
}

/// A process with one or more lights in the devices' namespace; killed when dropped.
#[derive(Debug)]
pub struct Lights {
    child: Child,
    lines: Receiver<String>,
    storage: Option<tempfile::TempDir>,
    /// In the order of their ports.
    pub lights: Vec<Light>,
}

impl Lights {
    /// Starts a process with the variables of device.mjs and waits until every light is up. `None` where Node is missing.
    pub fn start(lab: &Lab, variables: &[(&str, &str)]) -> Option<Self> {
        Self::start_on(lab, variables, tempfile::tempdir().expect("a temporary directory"))
    }

    /// The same with the state that earlier lights have left.
    pub fn start_on(lab: &Lab, variables: &[(&str, &str)], storage: tempfile::TempDir) -> Option<Self> {
        let script = match install() {
            Ok(directory) => directory.join(DEVICE),
            Err(reason) => {
                skipped(&format!("no matter.js: {reason}"));
                return None;
            }
        };
        let mut command = lab.device_command("node");
        command.arg(&script).env("STORAGE", storage.path()).env("IFACE", INTERFACE).envs(variables.iter().copied());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("ip netns exec");
        let stdout = child.stdout.take().expect("it is piped");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut lights = Self { child, lines, storage: Some(storage), lights: Vec::new() };
        let give_up = Instant::now() + START;
        loop {
            let line = lights.next_line(give_up).expect("the lights start");
            if let Some(json) = line.strip_prefix("READY ") {
                lights.lights.push(serde_json::from_str(json).expect("device.mjs prints JSON"));
            } else if line == "ALL-READY" {
                return Some(lights);
            }
        }
    }

    /// Sends a command line of device.mjs and waits until it is done.
    pub fn command(&mut self, line: &str) {
        self.send(line);
        self.wait_for(&format!("DONE {line}"));
    }

    /// Sends a command line without waiting.
    pub fn send(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().expect("it is piped");
        writeln!(stdin, "{line}").expect("the process runs");
    }

    /// Reads until a line that starts with `start`, and gives it.
    pub fn wait_for(&mut self, start: &str) -> String {
        let give_up = Instant::now() + ANSWER;
        loop {
            let line = self.next_line(give_up).unwrap_or_else(|| panic!("matter.js did not say {start:?}"));
            assert!(!line.starts_with("FAILED"), "{line}");
            if line.starts_with(start) {
                return line;
            }
        }
    }

    /// SIGKILL: no goodbye, no answer any more. Gives the state that they leave.
    pub fn kill(mut self) -> tempfile::TempDir {
        self.child.kill().expect("our own child");
        self.child.wait().expect("our own child");
        self.storage.take().expect("only this takes it")
    }

    fn next_line(&self, give_up: Instant) -> Option<String> {
        self.lines.recv_timeout(give_up.saturating_duration_since(Instant::now())).ok()
    }
}

impl Drop for Lights {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The directory with the scripts and their packages, or why Node or they are not to be had.
pub fn installed() -> Result<PathBuf, String> {
    install()
}

/// `npm ci` into the build directory, once for each version of the lock file; gives the directory with the scripts.
fn install() -> Result<PathBuf, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop");
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("interop");
    let failed = |what: &str, error: std::io::Error| format!("{what}: {error}");
    fs::create_dir_all(&directory).map_err(|error| failed("interop directory", error))?;
    // Test binaries run beside each other.
    let lock = File::create(directory.join("lock")).map_err(|error| failed("interop lock", error))?;
    lock.lock().map_err(|error| failed("interop lock", error))?;
    let wanted = fs::read(source.join("package-lock.json")).map_err(|error| failed("package-lock.json", error))?;
    let installed = directory.join("installed");
    if fs::read(&installed).ok().as_ref() != Some(&wanted) {
        for file in ["package.json", "package-lock.json", ".npmrc"] {
            fs::copy(source.join(file), directory.join(file)).map_err(|error| failed(file, error))?;
        }
        let mut npm = Command::new("npm");
        npm.args(["ci", "--ignore-scripts", "--no-progress"]).current_dir(&directory);
        let output = npm.output().map_err(|error| failed("npm cannot be run", error))?;
        if !output.status.success() {
            return Err(format!("npm ci: {}", String::from_utf8_lossy(&output.stderr).trim()));
        }
        fs::write(&installed, &wanted).map_err(|error| failed("interop marker", error))?;
    }
    for script in [DEVICE, CONTROLLER, PANEL] {
        let text = fs::read(source.join(script)).map_err(|error| failed(script, error))?;
        let copy = directory.join(script);
        if fs::read(&copy).ok().as_ref() != Some(&text) {
            fs::write(&copy, text).map_err(|error| failed(script, error))?;
        }
    }
    Ok(directory)
}
