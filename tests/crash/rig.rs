//! One hub, one light, one cloud, in a network of their own: what stays when the daemon dies, and how it is started again.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use age::secrecy::ExposeSecret;
use futures_util::StreamExt;
use matterbind::facade::admin::wire::{CommissionLine, CommissionRequest, CommissionResult, Nodes, Outbox};
use matterbind::facade::cli::client::{AdminClient, PLAIN, SLOW};
use matterbind::facade::failpoint;
use matterbind::facade::node::NodeRecord;
use matterbind::facade::onboarding::SetupCode;
use matterbind::facade::sim::cloud::{Scenario, SimCloud};
use matterbind::facade::sim::evidence;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::{TcpListener, UnixDatagram};
use tokio::process::{Child, ChildStdout, Command};
use tokio_util::sync::CancellationToken;

pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const VENDOR_ID: u16 = 0xFFF1;
const PRODUCT_ID: u16 = 0x8001;
pub const SERIAL: &str = "CRASH0001";
pub const DISCRIMINATOR: u16 = 3840;
/// Where the light keeps its state.
const DEVICE: &str = "device";
/// The password of the home's network.
const WIFI: &str = "correct horse battery";
const BACKUP: &str = "hub.age";
const IDENTITY: &str = "identity";
/// How the device is called at first, and after the rename.
pub const NAMES: [&str; 2] = ["lamp", "another lamp"];

/// How the light lives.
#[derive(Debug, Clone, Copy)]
pub enum Light {
    /// On the network, and always awake.
    Ready,
    /// Only on Bluetooth, in its box.
    Boxed,
    /// Asleep as soon as the hub is registered with it, but for a moment every two seconds.
    Sleeping,
}

/// What outlives the daemon.
pub struct Rig {
    pub directory: PathBuf,
    pub cloud: SimCloud,
    pub code: String,
    device: Child,
    _device_output: Lines<BufReader<ChildStdout>>,
    _stop: tokio_util::sync::DropGuard,
    starts: u32,
}

impl Rig {
    pub async fn new(directory: &Path, light: Light, fail_safe: &str) -> Result<Self> {
        let stop = CancellationToken::new();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        write_config(directory, fail_safe, &format!("http://{}", listener.local_addr()?))?;
        let cloud = SimCloud::new(Scenario::default());
        let (serving, ended) = (cloud.clone(), stop.clone());
        tokio::spawn(async move { serving.serve(listener, ended).await });
        std::fs::create_dir_all(directory.join("air"))?;
        std::fs::write(directory.join("wifi-password"), WIFI)?;
        let (device, device_output, code) = start_device(directory, light).await?;
        let directory = directory.to_owned();
        let _stop = stop.drop_guard();
        Ok(Self { directory, cloud, code, device, _device_output: device_output, _stop, starts: 0 })
    }

    /// Takes the light back to its factory settings.
    pub async fn reset_device(&mut self) -> Result<()> {
        self.device.kill().await?;
        std::fs::remove_dir_all(self.directory.join(DEVICE))?;
        (self.device, self._device_output, self.code) = start_device(&self.directory, Light::Ready).await?;
        Ok(())
    }

    /// Starts the daemon, with a failpoint or without.
    pub fn start(&mut self, point: Option<&str>) -> Result<Daemon> {
        self.starts += 1;
        let manager = self.directory.join(format!("notify-{}", self.starts));
        let notified = UnixDatagram::bind(&manager)?;
        let log = File::create(self.directory.join(format!("daemon-{}.log", self.starts)))?;
        let child = self
            .command(&["daemon", "--config", "matterbind.toml"], point)
            .env("NOTIFY_SOCKET", &manager)
            .env("RUST_LOG", "info,matterbind=debug")
            .stderr(log)
            .spawn()?;
        let client = AdminClient::new(&self.directory.join("admin.sock"))?;
        Ok(Daemon { child, notified, client })
    }

    /// Makes a backup of the state as it is now, with the orderly command.
    pub async fn back_up(&mut self) -> Result<()> {
        let identity = age::x25519::Identity::generate();
        std::fs::write(self.directory.join(IDENTITY), identity.to_string().expose_secret())?;
        let recipient = identity.to_public().to_string();
        let daemon = self.start(None)?;
        ready(&daemon.notified).await?;
        let mut command = self.command(&["fabric", "backup", BACKUP, "--recipient", &recipient], None);
        let status = command.arg("--socket=admin.sock").status().await?;
        if !status.success() {
            return Err(format!("the backup ended with {status}").into());
        }
        daemon.stop().await
    }

    /// Puts the backup over whatever is there; whether the command was killed.
    pub async fn restore(&self, point: Option<&str>) -> Result<bool> {
        let words = ["fabric", "restore", BACKUP, "--force", "--identity", IDENTITY, "--config", "matterbind.toml"];
        let status = self.command(&words, point).status().await?;
        match (status.signal(), status.success()) {
            (Some(9), _) => Ok(true),
            (_, true) => Ok(false),
            _ => Err(format!("the restore ended with {status}").into()),
        }
    }

    fn command(&self, words: &[&str], point: Option<&str>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_matterbind"));
        for (key, _) in std::env::vars_os().filter(|(key, _)| key.as_encoded_bytes().starts_with(b"MATTERBIND_")) {
            command.env_remove(key);
        }
        if let Some(point) = point {
            command.env(failpoint::VARIABLE, point);
        }
        command.args(words).current_dir(&self.directory).env_remove("RUST_BACKTRACE");
        command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        command
    }

    /// The fabric's keys as they are on disk.
    pub fn keys(&self) -> Option<Vec<u8>> {
        std::fs::read(self.state().join("fabric.keys")).ok()
    }

    pub fn state(&self) -> PathBuf {
        self.directory.join("state")
    }
}

/// The running daemon.
pub struct Daemon {
    child: Child,
    notified: UnixDatagram,
    pub client: AdminClient,
}

/// How a piece of work with the daemon ended.
pub enum Ended<T> {
    Done(T),
    /// By its own SIGKILL.
    Killed,
}

impl Daemon {
    /// Does something with the daemon, unless it dies meanwhile.
    pub async fn run<T>(&mut self, work: impl AsyncFnOnce(&AdminClient) -> Result<T>) -> Result<Ended<T>> {
        let Self { child, notified, client } = self;
        let working = async {
            ready(notified).await?;
            work(client).await
        };
        tokio::select! {
            biased;
            status = child.wait() => killed(status?),
            done = working => match done {
                Ok(done) => Ok(Ended::Done(done)),
                // A request that breaks off is how a dying daemon looks from outside.
                Err(error) => match tokio::time::timeout(std::time::Duration::from_secs(30), child.wait()).await {
                    Ok(status) => killed(status?),
                    Err(_) => Err(error),
                },
            },
        }
    }

    /// SIGTERM and the orderly end.
    pub async fn stop(mut self) -> Result<()> {
        let pid = self.child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()));
        rustix::process::kill_process(pid.ok_or("it has ended already")?, rustix::process::Signal::TERM)?;
        let status = self.child.wait().await?;
        if status.success() { Ok(()) } else { Err(format!("the orderly end was {status}").into()) }
    }
}

fn killed<T>(status: ExitStatus) -> Result<Ended<T>> {
    if status.signal() == Some(9) {
        Ok(Ended::Killed)
    } else {
        Err(format!("the daemon ended by itself: {status}").into())
    }
}

async fn ready(notified: &UnixDatagram) -> Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let length = notified.recv(&mut buffer).await?;
        if String::from_utf8_lossy(&buffer[..length]).lines().any(|line| line == "READY=1") {
            return Ok(());
        }
    }
}

pub async fn nodes(client: &AdminClient) -> Result<Vec<NodeRecord>> {
    Ok(client.get::<Nodes>(&["nodes"], &(), PLAIN).await?.nodes)
}

pub async fn outbox(client: &AdminClient) -> Result<Outbox> {
    Ok(client.get(&["outbox"], &(), PLAIN).await?)
}

/// One attempt; `false` where it failed.
pub async fn commission(client: &AdminClient, code: &str) -> Result<bool> {
    let request = CommissionRequest {
        setup_code: SetupCode::new(code),
        name: Some(NAMES[0].to_owned()),
        ..CommissionRequest::default()
    };
    let mut lines = client.post_lines(&["commission"], &request).await?;
    while let Some(line) = lines.next().await {
        match serde_json::from_str(&line?)? {
            CommissionLine::Event(_) => {}
            CommissionLine::Result(CommissionResult::Commissioned { .. }) => return Ok(true),
            CommissionLine::Result(CommissionResult::Failed(failure)) => {
                eprintln!("attempt: {} {}: {}", failure.step, failure.code, failure.message);
                return Ok(false);
            }
        }
    }
    Err("the daemon's answer broke off".into())
}

pub async fn act(client: &AdminClient, record: &NodeRecord, action: Value) -> Result<Value> {
    let id = record.node_id.to_string();
    Ok(client.post(&["nodes", &id, "action"], &action, SLOW).await?)
}

/// Looks again after every entry of the admin log until `seen` is content.
pub async fn until(client: &AdminClient, seen: impl AsyncFn(&AdminClient) -> Result<bool>) -> Result<()> {
    let mut entries = client.get_lines(&["logs"], &json!({ "follow": true, "limit": 0 })).await?;
    loop {
        if seen(client).await? {
            return Ok(());
        }
        entries.next().await.ok_or("the log ended")??;
    }
}

/// Waits until the light waits for a commissioner.
pub async fn until_commissionable(client: &AdminClient) -> Result<()> {
    let query = json!({ "timeout_ms": 0, "operational": false, "watch": true });
    let mut changes = client.get_lines(&["discover"], &query).await?;
    loop {
        let change: Value = serde_json::from_str(&changes.next().await.ok_or("the watch ended")??)?;
        if change["discriminator"] == json!(DISCRIMINATOR) && change["event"] != json!("disappeared") {
            return Ok(());
        }
    }
}

/// The light, its output, and its code.
async fn start_device(directory: &Path, light: Light) -> Result<(Child, Lines<BufReader<ChildStdout>>, String)> {
    let life = match light {
        Light::Ready => Vec::new(),
        Light::Boxed => vec![format!("--ble={}", directory.join("air").display()), format!("--wifi=Home:{WIFI}")],
        Light::Sleeping => vec!["--sleeps=2s".to_owned(), "--awake=2s".to_owned()],
    };
    let mut device = Command::new(env!("CARGO_BIN_EXE_matterbind"))
        .args(["virtual-device", "--json", "--interface=lo", "--passcode=20202021"])
        .arg(format!("--discriminator={DISCRIMINATOR}"))
        .arg(format!("--vendor-id={VENDOR_ID}"))
        .arg(format!("--product-id={PRODUCT_ID}"))
        .arg(format!("--serial-number={SERIAL}"))
        .args(life)
        .arg(format!("--storage={}", directory.join(DEVICE).display()))
        .env_remove("RUST_BACKTRACE")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::options().create(true).append(true).open(directory.join("device.log"))?)
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(device.stdout.take().ok_or("no output")?).lines();
    let ready: Value = serde_json::from_str(&lines.next_line().await?.ok_or("the device did not start")?)?;
    let code = ready["qr_code"].as_str().ok_or("no code")?.to_owned();
    Ok((device, lines, code))
}

fn write_config(directory: &Path, fail_safe: &str, base_url: &str) -> Result<()> {
    let paa = directory.join("paa");
    std::fs::create_dir_all(&paa)?;
    std::fs::write(paa.join("test-paa.der"), evidence::generate(VENDOR_ID, PRODUCT_ID).paa)?;
    let scenario = Scenario::default();
    let (domain, user) = (&scenario.domains[0], &scenario.users[0]);
    std::fs::write(directory.join("domain-secret"), &domain.secret)?;
    std::fs::write(directory.join("password"), &user.password)?;
    let config = format!(
        r#"state_dir = "state"
socket = "admin.sock"
network = {{ interfaces = ["lo"], loopback = true }}
access = {{ grants = [ {{ cat = 0x0002_0001, privilege = "Operate" }} ] }}
commissioning = {{ fail_safe = "{fail_safe}", discover_timeout = "2s" }}

[bluetooth]
adapter = "air:air"

[[networks]]
ssid = "Home"
password_file = "wifi-password"

[attestation]
paa_dirs = ["paa"]
allow_test = [ {{ vendor_id = {VENDOR_ID} }} ]

[cloud]
base_url = "{base_url}"
user_domain = "{domain}"
user_domain_secret_file = "domain-secret"
email = "{email}"
password_file = "password"
on_cloud_missing = "rebind"

[[products]]
vendor_id = {VENDOR_ID}
product_id = {PRODUCT_ID}
product_key = "{product}"
device_key = "serial-number"
binding_code = "random"
"#,
        domain = domain.id,
        email = user.email,
        product = scenario.products[0].key,
    );
    Ok(std::fs::write(directory.join("matterbind.toml"), config)?)
}
