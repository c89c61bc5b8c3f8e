//! The product as its users meet it: the daemon and the reference cloud as child processes in the hub's namespace, the
//! command line as further child processes with `--json`.
//!
//! Waiting is always for something that a process says (a READY notification, a line of `--events`, of `logs -f`), with a
//! deadline that a working product never comes near. Children are ended by their own handles only.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use matterbind::facade::sim::evidence::TEST_PAA_NOVID_CERT;
use serde_json::{Value, json};

use super::lab::{INTERFACE, Lab};

/// The program under test.
pub const MATTERBIND: &str = env!("CARGO_BIN_EXE_matterbind");
/// Whatever is waited for comes long before this, or never.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// The reference cloud's address in the hub's namespace, where every port is free.
pub const CLOUD: &str = "127.0.0.1:8787";
/// Secrets of the reference cloud's demo tenant.
pub const DOMAIN_SECRET: &str = "demo-secret-0123456789abcdef";
pub const PASSWORD: &str = "demo-password";

/// What differs from test to test.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether the PAA of the test devices is in the trust store.
    pub trusted_paa: bool,
    /// `[commissioning]`, without its heading.
    pub commissioning: String,
    /// Further sections.
    pub more: String,
    /// `-v` and so on, for the daemon.
    pub flags: Vec<String>,
    /// Where the state is, if not below the hub's directory.
    pub state_dir: Option<PathBuf>,
    /// Variables of the daemon.
    pub environment: Vec<(String, String)>,
    /// Where the hub finds its cloud: the reference cloud itself, or what stands before it.
    pub cloud: String,
    /// The daemon's program, where something starts before it.
    pub program: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            trusted_paa: true,
            commissioning: "discover_timeout = \"20s\"\ndeadline = \"60s\"".to_owned(),
            more: String::new(),
            flags: Vec::new(),
            state_dir: None,
            environment: Vec::new(),
            cloud: CLOUD.to_owned(),
            program: MATTERBIND.into(),
        }
    }
}

/// A hub: a directory with its configuration and state, and at most one daemon on it.
pub struct Hub<'a> {
    lab: &'a Lab,
    directory: tempfile::TempDir,
    state_dir: PathBuf,
    program: PathBuf,
    flags: Vec<String>,
    /// Variables of the next daemon.
    pub environment: Vec<(String, String)>,
    daemon: Option<Child>,
    cloud: Option<Child>,
}

/// What a command line ended with.
#[derive(Debug)]
pub struct Answer {
    /// Exit code.
    pub code: i32,
    /// stdout, if it is one JSON document; else null.
    pub json: Value,
    /// stdout as it is.
    pub stdout: String,
    /// stderr as it is.
    pub stderr: String,
}

impl<'a> Hub<'a> {
    /// Writes configuration and secrets; nothing runs yet.
    pub fn new(lab: &'a Lab, options: Options) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path();
        fs::create_dir(path.join("paa")).unwrap();
        if options.trusted_paa {
            fs::write(path.join("paa/test-paa.der"), TEST_PAA_NOVID_CERT).unwrap();
        }
        fs::write(path.join("domain-secret"), DOMAIN_SECRET).unwrap();
        fs::write(path.join("password"), PASSWORD).unwrap();
        let state_dir = options.state_dir.clone().unwrap_or_else(|| path.join("state"));
        let config = config(&state_dir, &options);
        fs::write(path.join("matterbind.toml"), config).unwrap();
        let Options { program, flags, environment, .. } = options;
        Self { lab, directory, state_dir, program, flags, environment, daemon: None, cloud: None }
    }

    /// A hub whose cloud and daemon run.
    pub fn start(lab: &'a Lab, options: Options) -> Self {
        let mut hub = Self::new(lab, options);
        hub.start_cloud();
        hub.start_daemon();
        hub
    }

    /// Starts the daemon and waits until it says READY to its service manager, which is us.
    pub fn start_daemon(&mut self) {
        if let Err(status) = self.try_start_daemon() {
            panic!("the daemon ended with {status}:\n{}", self.daemon_log());
        }
    }

    /// The same, or the status with which the daemon ended before it was ready.
    pub fn try_start_daemon(&mut self) -> Result<(), ExitStatus> {
        assert!(self.daemon.is_none(), "one daemon at a time");
        let notify = self.directory.path().join("notify");
        let _ = fs::remove_file(&notify);
        let manager = UnixDatagram::bind(&notify).expect("the notification socket");
        // Only so long between looks whether the daemon is still there.
        manager.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
        let mut command = self.lab.hub_command(&self.program);
        let log = File::options().create(true).append(true).open(self.directory.path().join("daemon.log")).unwrap();
        let out = File::options().create(true).append(true).open(self.directory.path().join("daemon.out")).unwrap();
        command.args(&self.flags).arg("daemon").arg("--config").arg(self.config());
        clean(&mut command).envs(self.environment.iter().cloned());
        command.env("NOTIFY_SOCKET", &notify).stdin(Stdio::null()).stdout(out).stderr(log);
        let mut child = command.spawn().expect("ip netns exec");
        let give_up = Instant::now() + PATIENCE;
        let mut buffer = [0; 4096];
        loop {
            if let Ok(length) = manager.recv(&mut buffer)
                && buffer[..length].split(|byte| *byte == b'\n').any(|line| line == b"READY=1")
            {
                self.daemon = Some(child);
                return Ok(());
            }
            if let Some(status) = child.try_wait().expect("our own child") {
                return Err(status);
            }
            assert!(Instant::now() < give_up, "the daemon is not ready:\n{}", self.daemon_log());
        }
    }

    /// SIGKILL, as a power cut would.
    pub fn kill_daemon(&mut self) {
        let mut daemon = self.daemon.take().expect("the daemon runs");
        daemon.kill().expect("our own child");
        daemon.wait().expect("our own child");
    }

    /// The daemon's process.
    pub fn daemon_pid(&self) -> u32 {
        self.daemon.as_ref().expect("the daemon runs").id()
    }

    /// SIGTERM, and the orderly end.
    pub fn stop_daemon(&mut self) -> ExitStatus {
        let daemon = self.daemon.take().expect("the daemon runs");
        terminate(daemon)
    }

    /// Starts the reference cloud with the demo tenant and waits until it listens. It starts from nothing each time.
    pub fn start_cloud(&mut self) {
        assert!(self.cloud.is_none(), "one cloud at a time");
        let mut command = self.lab.hub_command(MATTERBIND);
        clean(command.args(["cloud-sim", "--listen", CLOUD])).stdout(Stdio::piped()).stdin(Stdio::null());
        let mut child = command.spawn().expect("ip netns exec");
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("the cloud says where it is");
        assert!(line.contains("http://"), "the cloud did not start: {line:?}");
        std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
        self.cloud = Some(child);
    }

    /// SIGTERM to the reference cloud.
    pub fn stop_cloud(&mut self) {
        let cloud = self.cloud.take().expect("the cloud runs");
        assert!(terminate(cloud).success());
    }

    /// What the reference cloud holds (`GET /sim/state`).
    pub fn cloud_state(&self) -> Value {
        self.cloud_call("GET", "/sim/state", &Value::Null)
    }

    /// The cloud's binding of a device key; null without one.
    pub fn binding(&self, device_key: &str) -> Value {
        let state = self.cloud_state();
        let bindings = state["bindings"].as_array().expect("bindings");
        bindings.iter().find(|row| row["device_key"] == device_key).cloned().unwrap_or_default()
    }

    /// The back door of the reference cloud; the answer's data.
    pub fn cloud_call(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {CLOUD}\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = self.lab.in_hub(|| async {
            let mut stream = std::net::TcpStream::connect(CLOUD).expect("the cloud runs");
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            stream.write_all(request.as_bytes()).expect("the cloud reads");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("the cloud answers");
            answer
        });
        let (_, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
        let document: Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(document["code"], 200, "{method} {path}: {body}");
        document["data"].clone()
    }

    /// One command line against this daemon, to its end.
    pub fn cli<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Answer {
        self.spawn_cli(arguments).answer()
    }

    /// The same with `--json`; its document, which must come with exit code 0.
    pub fn ask(&self, arguments: &[&str]) -> Value {
        let answer = self.cli([arguments, &["--json"]].concat());
        assert_eq!(answer.code, 0, "{arguments:?}: {answer:?}\n{}", self.daemon_log());
        answer.json
    }

    /// The document of `--json`, whatever the exit code.
    pub fn ask_any(&self, arguments: &[&str]) -> Value {
        self.cli([arguments, &["--json"]].concat()).json
    }

    /// Starts a command line against this daemon.
    pub fn spawn_cli<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Running {
        let mut command = Command::new(MATTERBIND);
        clean(command.arg("--socket").arg(self.socket()).args(arguments));
        Running::start(command)
    }

    /// `commission CODE --json` with further arguments.
    pub fn commission(&self, code: &str, more: &[&str]) -> (i32, Value) {
        let answer = self.cli([&["commission", code, "--json"], more].concat());
        (answer.code, answer.json)
    }

    /// `commission` of a device that must come out bound; its node record.
    pub fn commission_and_bind(&self, code: &str) -> Value {
        let (exit, result) = self.commission(code, &["--wait-bind", "60s"]);
        assert_eq!(exit, 0, "{result:#}\n{}", self.daemon_log());
        assert_eq!(result["outcome"], "commissioned", "{result:#}");
        assert_eq!(result["bind"]["state"], "bound", "{result:#}\n{}", self.daemon_log());
        assert_eq!(result["bind"]["code"], 200);
        result["node"].clone()
    }

    /// `commission` that must fail: step and code as given, an exit code, and a hint.
    pub fn commission_fails(&self, code: &str, more: &[&str], step: &str, word: &str, exit: i32) -> Value {
        let (ended, failure) = self.commission(code, more);
        self.check_failure(ended, &failure, step, word, exit);
        failure
    }

    /// A failure has everything that interface.md promises.
    pub fn check_failure(&self, ended: i32, failure: &Value, step: &str, word: &str, exit: i32) {
        assert_eq!(failure["outcome"], "failed", "{failure:#}");
        let told = (failure["step"].as_str(), failure["code"].as_str(), ended);
        assert_eq!(told, (Some(step), Some(word), exit), "{failure:#}\n{}", self.daemon_log());
        for text in ["hint", "message", "attempt_id"] {
            assert!(failure[text].as_str().is_some_and(|text| !text.is_empty()), "no {text}: {failure:#}");
        }
        assert!(matches!(failure["disposition"].as_str(), Some("retry" | "user-action" | "bug")), "{failure:#}");
    }

    /// What `sync` says of the only node, as soon as it is `verdict`.
    pub fn synced(&self, verdict: &str) -> Value {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let answer = self.cli(["sync", "--json"]);
            if answer.json["nodes"][0]["verdict"] == verdict {
                return answer.json;
            }
            assert!(Instant::now() < give_up, "never {verdict}: {:#}\n{}", answer.json, self.daemon_log());
        }
    }

    /// `nodes --json`, only what does not move by itself.
    pub fn nodes(&self) -> Vec<Value> {
        let mut nodes = self.ask(&["nodes"])["nodes"].as_array().expect("nodes").clone();
        for node in &mut nodes {
            let node = node.as_object_mut().expect("a record");
            node.remove("last_seen_at");
            node.remove("addresses");
            // The daemon's own comparison notes it, five seconds after its start.
            if let Some(bind) = node.get_mut("bind").and_then(Value::as_object_mut) {
                bind.remove("confirmed_at");
            }
        }
        nodes
    }

    /// `outbox --json`.
    pub fn outbox(&self) -> Vec<Value> {
        self.ask(&["outbox"])["entries"].as_array().expect("entries").clone()
    }

    /// `logs -f --json`, from the beginning.
    pub fn follow(&self) -> Running {
        self.spawn_cli(["logs", "-f", "--since", "1970-01-02", "--json"])
    }

    /// What the daemon has written to stderr; the end of it.
    pub fn daemon_log(&self) -> String {
        let log = self.whole_daemon_log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// All of it.
    pub fn whole_daemon_log(&self) -> String {
        fs::read_to_string(self.directory.path().join("daemon.log")).unwrap_or_default()
    }

    /// What the daemon has written to stdout.
    pub fn daemon_stdout(&self) -> String {
        fs::read_to_string(self.directory.path().join("daemon.out")).unwrap_or_default()
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.directory.path().join("matterbind.toml")
    }

    /// The admin socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("admin.sock")
    }

    /// Where the state is.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// The directory of everything.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Hub<'_> {
    fn drop(&mut self) {
        for child in [&mut self.daemon, &mut self.cloud].into_iter().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn config(state_dir: &Path, options: &Options) -> String {
    let Options { commissioning, more, cloud, .. } = options;
    let state_dir = state_dir.display();
    let products: String = [0x8000, 0x8001]
        .map(|product| {
            format!(
                "[[products]]\nvendor_id = 0xFFF1\nproduct_id = {product}\nproduct_key = \"p11abc\"\n\
                 device_key = \"serial-number\"\nbinding_code = \"random\"\n\n"
            )
        })
        .concat();
    format!(
        r#"state_dir = "{state_dir}"
socket = "admin.sock"
network = {{ interfaces = ["{INTERFACE}"] }}
access = {{ grants = [ {{ cat = 0x0002_0001, privilege = "Operate" }}, {{ cat = 0x0003_0001, privilege = "View" }} ] }}

[commissioning]
{commissioning}

[attestation]
paa_dirs = ["paa"]
allow_test = [ {{ vendor_id = 0xFFF1 }} ]

[cloud]
base_url = "http://{cloud}"
user_domain = "demo"
user_domain_secret_file = "domain-secret"
email = "hub@example.com"
password_file = "password"

{products}{more}"#
    )
}

/// Without the settings of whoever runs the tests.
fn clean(command: &mut Command) -> &mut Command {
    for (key, _) in std::env::vars_os() {
        if key.as_encoded_bytes().starts_with(b"MATTERBIND_") {
            command.env_remove(key);
        }
    }
    command.env_remove("RUST_BACKTRACE").env_remove("RUST_LOG").env_remove("NOTIFY_SOCKET")
}

fn terminate(mut child: Child) -> ExitStatus {
    let pid = rustix::process::Pid::from_raw(child.id().cast_signed()).expect("a child has a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("our own child");
    child.wait().expect("our own child")
}

/// A child process whose stdout is read line by line; killed when dropped.
pub struct Running {
    child: Child,
    lines: Receiver<String>,
    errors: Option<std::thread::JoinHandle<String>>,
}

impl Running {
    /// Starts it with its output piped.
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program can be started");
        let (stdout, mut stderr) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let errors = std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stderr.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        Self { child, lines, errors: Some(errors) }
    }

    /// The next line; `None` at the end of the output.
    pub fn line(&mut self) -> Option<String> {
        self.line_after(&[], PATIENCE)
    }

    fn line_after(&mut self, passed: &[String], patience: Duration) -> Option<String> {
        match self.lines.recv_timeout(patience) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("nothing was said for {patience:?} after\n{}", passed.join("\n")),
        }
    }

    /// Reads on to a JSON line that fits.
    pub fn wait_for(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let mut passed = Vec::new();
        while let Some(line) = self.line_after(&passed, PATIENCE) {
            let document: Value = serde_json::from_str(&line).unwrap_or_default();
            if fits(&document) {
                return document;
            }
            passed.push(line);
        }
        panic!("it ended without {what}:\n{}", passed.join("\n"));
    }

    /// Reads on to the beginning of a commissioning step (`commission --events`).
    pub fn wait_for_step(&mut self, step: &str) {
        let begin = json!({ "event": "step-started", "step": step });
        self.wait_for(&format!("step {step}"), |line| *line == begin);
    }

    /// Reads on to an event of the admin log (`logs -f --json`).
    pub fn wait_for_event(&mut self, kind: &str) -> Value {
        self.wait_for(&format!("event {kind}"), |line| line["kind"] == kind)
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().expect("our own child");
        self.child.wait().expect("our own child");
    }

    /// To its end.
    pub fn answer(self) -> Answer {
        self.answer_within(PATIENCE)
    }

    /// The same of a command that says nothing for longer.
    pub fn answer_within(mut self, patience: Duration) -> Answer {
        let mut lines = Vec::new();
        while let Some(line) = self.line_after(&[], patience) {
            lines.push(line);
        }
        let status = self.child.wait().expect("our own child");
        let stderr = self.errors.take().and_then(|errors| errors.join().ok()).unwrap_or_default();
        let stdout = lines.join("\n");
        let json = serde_json::from_str(&stdout).unwrap_or_default();
        Answer { code: status.code().unwrap_or(-1), json, stdout, stderr }
    }

    /// The last line and the exit code, of `commission --events`.
    pub fn result(mut self) -> (i32, Value) {
        let mut last = String::new();
        while let Some(line) = self.line() {
            last = line;
        }
        let status = self.child.wait().expect("our own child");
        (status.code().unwrap_or(-1), serde_json::from_str(&last).unwrap_or_default())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A `matterbind virtual-device` in the devices' namespace; killed when dropped.
pub struct VirtualDevice {
    process: Running,
    /// `MT:…`
    pub qr: String,
    /// 11 digits.
    pub manual: String,
    /// Whether it waits for a commissioner.
    pub commissionable: bool,
}

impl VirtualDevice {
    /// Starts it with further arguments and waits until it is announced.
    pub fn start(lab: &Lab, storage: &Path, arguments: &[&str]) -> Self {
        Self::launch(lab.device_command(MATTERBIND), storage, arguments)
    }

    /// The same, wherever the command has it run.
    pub fn launch(mut command: Command, storage: &Path, arguments: &[&str]) -> Self {
        command.args(["virtual-device", "--json", "--interface", INTERFACE, "--storage"]).arg(storage).args(arguments);
        clean(&mut command);
        let mut process = Running::start(command);
        let ready = process.wait_for("its READY line", |line| line["ready"] == true);
        let text = |key: &str| ready[key].as_str().expect("a code").to_owned();
        Self {
            qr: text("qr_code"),
            manual: text("manual_code"),
            commissionable: ready["commissionable"] == true,
            process,
        }
    }

    /// SIGKILL: no goodbye, no answer any more.
    pub fn kill(self) {
        self.process.kill();
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// Stops its process (`true`), which then answers nothing, or lets it go on.
    pub fn stall(&self, stalled: bool) {
        let signal = if stalled { rustix::process::Signal::STOP } else { rustix::process::Signal::CONT };
        let pid = rustix::process::Pid::from_raw(self.pid().cast_signed()).expect("a child has a pid");
        rustix::process::kill_process(pid, signal).expect("our own child");
    }
}
