//! `matterbind demo`: the whole product in one go, hermetic. A private network, a reference cloud, virtual devices and the
//! real daemon as processes of their own; then device, record and cloud side by side.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio_util::sync::CancellationToken;

use super::client::{AdminClient, PLAIN, SLOW};
use super::exit::{CliError, ExitCode};
use super::output::{self, Paint, Tone};
use super::sim::DemoArgs;
use super::{Global, block_on};
use crate::admin::wire::{CommissionLine, CommissionRequest, CommissionResult, NodeCheck, Status};
use crate::node::NodeRecord;
use crate::onboarding::SetupCode;
use crate::sim::cloud::{Scenario, SimCloud};
use crate::sim::evidence;
use crate::sim::namespace::{Isolation, enter_private_network};

/// A child that is not ready after this will not be.
const READY: Duration = Duration::from_secs(60);
/// How long a child may take to end before it is killed.
const END: Duration = Duration::from_secs(10);
const VENDOR_ID: u16 = 0xFFF1;
const PRODUCT_ID: u16 = 0x8001;
/// The fields that all three parties know, in the order in which they are shown.
const FIELDS: [&str; 7] =
    ["fabric_id", "node_id", "vendor_id", "product_id", "discriminator", "matter_version", "cats"];

/// What the demo ends with.
#[derive(Debug, Serialize)]
struct DemoResult {
    in_sync: bool,
    nodes: Vec<Compared>,
    timings_ms: BTreeMap<&'static str, u64>,
}

/// One device as each of the three holds it.
#[derive(Debug, Serialize)]
struct Compared {
    node_id: Value,
    device: Value,
    local: Value,
    cloud: Value,
    verdict: String,
}

/// Called before any thread exists: it moves the process into a network of its own.
pub(super) fn run(global: &Global, args: DemoArgs) -> Result<ExitCode, CliError> {
    let paint = Paint::stderr(global.color);
    let interface = match enter_private_network() {
        Ok(_) => Some(Isolation::INTERFACE),
        Err(refused) if refused.can_go_on() => {
            let why = format!("no private network here ({refused}): the demo uses this machine's loopback");
            output::note(&format!("{} {why}", paint.tone(Tone::Strong, "note:")));
            Some(Isolation::INTERFACE)
        }
        Err(refused) => return Err(CliError::Other(anyhow!(refused))),
    };
    let scratch = Scratch::new(args.keep.clone())?;
    let progress = |line: &str| output::note(&format!("{} {line}", paint.tone(Tone::Strong, "demo:")));
    let outcome = block_on(async { Ok(play(&args, &scratch.path, interface, &progress).await?) });
    if let Some(kept) = &args.keep {
        progress(&format!("state and logs are in {}", kept.display()));
    }
    let outcome = outcome?;
    if args.json {
        output::json(&outcome)?;
    } else {
        show(&outcome, Paint::stdout(global.color))?;
    }
    Ok(if outcome.in_sync { ExitCode::Done } else { ExitCode::Internal })
}

async fn play(
    args: &DemoArgs,
    directory: &Path,
    interface: Option<&str>,
    progress: &(dyn Fn(&str) + Send + Sync),
) -> anyhow::Result<DemoResult> {
    let mut timings = BTreeMap::new();
    let began = Instant::now();
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.context("listening for the reference cloud")?;
    let base_url = format!("http://{}", listener.local_addr()?);
    let cloud = SimCloud::new(Scenario::default());
    let serving = cloud.clone();
    tokio::spawn(async move { serving.serve(listener, stop).await });
    progress(&format!("reference cloud on {base_url}"));

    let config = write_config(directory, &base_url, interface)?;
    let daemon = Process::start("daemon", &["daemon", "--config", &text(&config)], directory, Stdio::null())?;
    let mut devices = Vec::new();
    for number in 0..args.devices {
        devices.push(start_device(number, directory, interface)?);
    }
    let mut codes = Vec::new();
    for device in &mut devices {
        codes.push(device.ready_code().await?);
    }
    progress(&match codes.len() {
        1 => "1 virtual device is ready".to_owned(),
        count => format!("{count} virtual devices are ready"),
    });
    let client = AdminClient::new(&directory.join("admin.sock"))?;
    wait_until_ready(&client, &daemon).await?;
    progress("the daemon is ready");
    timings.insert("start", began.elapsed().as_millis() as u64);

    let commissioning = Instant::now();
    let mut attempts: FuturesOrdered<_> =
        codes.into_iter().enumerate().map(|(number, code)| commission(&client, number, code)).collect();
    let mut records = Vec::new();
    while let Some(record) = attempts.next().await {
        let record = record?;
        progress(&format!("{} is node {}, bind {}", record.name, record.node_id, bind_word(&record)));
        records.push(record);
    }
    timings.insert("commission_and_bind", commissioning.elapsed().as_millis() as u64);

    let comparing = Instant::now();
    let mut nodes = Vec::new();
    for record in &records {
        let id = record.node_id.to_string();
        let path = ["nodes", &id, "action"];
        let check: NodeCheck = client.post(&path, &json!({ "action": "check" }), SLOW).await?;
        nodes.push(compare(record, &check, &cloud));
    }
    timings.insert("compare", comparing.elapsed().as_millis() as u64);
    timings.insert("total", began.elapsed().as_millis() as u64);
    daemon.end().await;
    for device in devices {
        device.process.end().await;
    }
    let in_sync = nodes.len() == usize::from(args.devices) && nodes.iter().all(|node| node.verdict == "match");
    Ok(DemoResult { in_sync, nodes, timings_ms: timings })
}

/// Everything that the daemon needs, below one directory.
fn write_config(directory: &Path, base_url: &str, interface: Option<&str>) -> anyhow::Result<PathBuf> {
    let paa = directory.join("paa");
    std::fs::create_dir_all(&paa)?;
    std::fs::write(paa.join("test-paa.der"), evidence::generate(VENDOR_ID, PRODUCT_ID).paa)?;
    let scenario = Scenario::default();
    let (domain, user) = (&scenario.domains[0], &scenario.users[0]);
    std::fs::write(directory.join("domain-secret"), &domain.secret)?;
    std::fs::write(directory.join("password"), &user.password)?;
    let interfaces: Vec<&str> = interface.into_iter().collect();
    let config = format!(
        r#"state_dir = "state"
socket = "admin.sock"
network = {{ interfaces = {interfaces:?}, loopback = true }}
access = {{ grants = [ {{ cat = 0x0002_0001, privilege = "Operate" }}, {{ cat = 0x0003_0001, privilege = "View" }} ] }}

[attestation]
paa_dirs = ["paa"]
allow_test = [ {{ vendor_id = {VENDOR_ID} }} ]

[cloud]
base_url = "{base_url}"
user_domain = "{domain}"
user_domain_secret_file = "domain-secret"
email = "{email}"
password_file = "password"

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
    let file = directory.join("matterbind.toml");
    std::fs::write(&file, config)?;
    Ok(file)
}

fn start_device(number: u16, directory: &Path, interface: Option<&str>) -> anyhow::Result<Device> {
    let (discriminator, passcode) = (3840 - number, 20_202_021 + u32::from(number));
    let mut arguments = vec![
        "virtual-device".to_owned(),
        "--json".to_owned(),
        format!("--discriminator={discriminator}"),
        format!("--passcode={passcode}"),
        format!("--vendor-id={VENDOR_ID}"),
        format!("--product-id={PRODUCT_ID}"),
        format!("--serial-number=DEMO{number:04}"),
        format!("--unique-id=demo-{number}"),
        format!("--storage={}", text(&directory.join(format!("device-{number}")))),
    ];
    arguments.extend(interface.map(|name| format!("--interface={name}")));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let process = Process::start(&format!("device-{number}"), &arguments, directory, Stdio::piped())?;
    Ok(Device { process })
}

/// A child process that is ended, or at least killed, with the demo.
struct Process {
    name: String,
    child: Option<Child>,
    log: PathBuf,
}

impl Process {
    fn start(name: &str, arguments: &[&str], directory: &Path, stdout: Stdio) -> anyhow::Result<Self> {
        let log = directory.join(format!("{name}.log"));
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments).stdin(Stdio::null()).stdout(stdout).stderr(File::create(&log)?);
        // rs-matter would capture a backtrace with every error, which takes more memory than all the rest.
        command.env_remove("RUST_BACKTRACE");
        // The person's own settings are for their own daemon.
        for (key, _) in std::env::vars_os().filter(|(key, _)| key.as_encoded_bytes().starts_with(b"MATTERBIND_")) {
            command.env_remove(key);
        }
        let child = command.spawn().with_context(|| format!("starting {name}"))?;
        Ok(Self { name: name.to_owned(), child: Some(child), log })
    }

    /// The last lines that the child wrote, for an error.
    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }

    /// SIGTERM, then the wait; what is still there is killed by `drop`.
    async fn end(mut self) {
        let Some(child) = &mut self.child else { return };
        if let Some(pid) = rustix::process::Pid::from_raw(child.id().cast_signed()) {
            // One that ended already is as good.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let deadline = Instant::now() + END;
        while Instant::now() < deadline {
            if !matches!(child.try_wait(), Ok(None)) {
                self.child = None;
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

struct Device {
    process: Process,
}

impl Device {
    /// Its QR payload, from the line that it prints when it is ready.
    async fn ready_code(&mut self) -> anyhow::Result<String> {
        let stdout = self.process.child.as_mut().and_then(|child| child.stdout.take());
        let stdout = stdout.context("the device's output was read already")?;
        let stdout = tokio::process::ChildStdout::from_std(stdout)?;
        let mut lines = BufReader::new(stdout).lines();
        let line = tokio::time::timeout(READY, lines.next_line()).await;
        let Ok(Ok(Some(line))) = line else {
            bail!("{} did not become ready:\n{}", self.process.name, self.process.last_words());
        };
        let ready: Value = serde_json::from_str(&line)?;
        ready["qr_code"].as_str().map(str::to_owned).context("the device shows no QR payload")
    }
}

async fn wait_until_ready(client: &AdminClient, daemon: &Process) -> anyhow::Result<()> {
    let deadline = Instant::now() + READY;
    loop {
        let status: Result<Status, CliError> = client.get(&["status"], &(), PLAIN).await;
        match status {
            Ok(status) if status.ready => return Ok(()),
            _ if Instant::now() > deadline => bail!("the daemon did not become ready:\n{}", daemon.last_words()),
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn commission(client: &AdminClient, number: usize, setup_code: String) -> anyhow::Result<NodeRecord> {
    let request = CommissionRequest {
        setup_code: SetupCode::new(&setup_code),
        name: Some(format!("demo light {}", number + 1)),
        wait_bind_ms: 30_000,
        ..CommissionRequest::default()
    };
    let mut lines = client.post_lines(&["commission"], &request).await?;
    while let Some(line) = lines.next().await {
        let line = line?;
        if line.is_empty() {
            continue;
        }
        match serde_json::from_str(&line)? {
            CommissionLine::Event(_) => {}
            CommissionLine::Result(CommissionResult::Commissioned { node, .. }) => return Ok(*node),
            CommissionLine::Result(CommissionResult::Failed(failure)) => {
                bail!("device {}: {} failed ({}): {}", number + 1, failure.step, failure.code, failure.message)
            }
        }
    }
    bail!("the daemon's answer broke off")
}

fn compare(record: &NodeRecord, check: &NodeCheck, cloud: &SimCloud) -> Compared {
    let local = serde_json::to_value(record).unwrap_or_default();
    let cloud = cloud_view(record, cloud);
    let differs = |field: &&str| {
        let (device, shown) = (&check.device[*field], &cloud[*field]);
        // Only the cloud and the record know the discriminator.
        (!device.is_null() && *device != local[*field]) || *shown != local[*field]
    };
    let different: Vec<&str> = FIELDS.iter().copied().filter(|field| differs(field)).collect();
    let verdict = match (check.reachable, different.is_empty()) {
        (false, _) => "device-unreachable".to_owned(),
        (true, true) => "match".to_owned(),
        (true, false) => format!("differs in {}", different.join(", ")),
    };
    Compared { node_id: json!(record.node_id), device: check.device.clone(), local, cloud, verdict }
}

/// The cloud's record, by the names of ours.
fn cloud_view(record: &NodeRecord, cloud: &SimCloud) -> Value {
    let device_key = record.device_key.as_deref().unwrap_or_default();
    let binding = cloud.bindings().into_iter().find(|binding| binding.device_key == device_key);
    let Some(binding) = binding else { return Value::Null };
    let binding = serde_json::to_value(binding).unwrap_or_default();
    let info = &binding["matter_info"];
    json!({
        "fabric_id": info["fabricId"], "node_id": info["nodeId"],
        "vendor_id": info["matterVendorId"], "product_id": info["matterProductId"],
        "discriminator": info["discriminator"], "matter_version": info["matterVersion"],
        "cats": info["catList"], "product_key": binding["product_key"], "device_key": binding["device_key"],
        "name": binding["device_name"],
    })
}

fn show(outcome: &DemoResult, paint: Paint) -> Result<(), CliError> {
    for node in &outcome.nodes {
        let good = node.verdict == "match";
        let verdict = paint.tone(if good { Tone::Good } else { Tone::Bad }, &node.verdict);
        output::line(&format!("\nnode {} ({}): {verdict}", node.node_id, plain(&node.local["name"])))?;
        let mut table = output::table(&["", "device", "record", "cloud"]);
        for field in FIELDS {
            let cell = |view: &Value| plain(&view[field]);
            table.add_row([field.to_owned(), cell(&node.device), cell(&node.local), cell(&node.cloud)]);
        }
        output::line(&output::table_text(&table))?;
    }
    let total = outcome.timings_ms.get("total").copied().unwrap_or_default();
    let commission = outcome.timings_ms.get("commission_and_bind").copied().unwrap_or_default();
    let (count, devices) = match outcome.nodes.len() {
        1 => (1, "device"),
        count => (count, "devices"),
    };
    output::line(&format!(
        "\n{count} {devices} commissioned and bound in {}, {} in all: device, record and cloud {}",
        output::duration(commission),
        output::duration(total),
        if outcome.in_sync { paint.tone(Tone::Good, "agree") } else { paint.tone(Tone::Bad, "do not agree") },
    ))
}

/// A value as people read it.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(cats) => cats.iter().map(cat).collect::<Vec<_>>().join("\n"),
        other => other.to_string(),
    }
}

fn cat(grant: &Value) -> String {
    format!("{:#010x} {}", grant["cat"].as_u64().unwrap_or_default(), grant["privilege"].as_str().unwrap_or("?"))
}

fn bind_word(record: &NodeRecord) -> String {
    serde_json::to_value(record.bind.state).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default()
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The demo's directory: kept where one was named, else removed at the end.
struct Scratch {
    path: PathBuf,
    keep: bool,
}

impl Scratch {
    fn new(keep: Option<PathBuf>) -> anyhow::Result<Self> {
        let path = match &keep {
            Some(path) => std::path::absolute(path)?,
            None => std::env::temp_dir().join(format!("matterbind-demo-{}", std::process::id())),
        };
        std::fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(Self { path, keep: keep.is_some() })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.keep {
            // A file that cannot be removed from a temporary directory does no harm there.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}
