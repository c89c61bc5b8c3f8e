//! `matterbind commission`: one device. Many are in `manifest`.

use std::io::BufRead;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::StreamExt;

use super::client::AdminClient;
use super::exit::{CliError, ExitCode};
use super::output::{self, Paint, Tone};
use super::progress::Progress;
use super::{Global, block_on, manifest, numbers};
use crate::admin::wire::{
    AttestationOverride, CommissionEvent, CommissionLine, CommissionRequest, CommissionResult, Failure, Refusal,
};
use crate::bind::{BindState, BindStatus};
use crate::onboarding::SetupCode;
use crate::secret::BindingCode;

const EXAMPLES: &str = "\
Examples:
  matterbind commission MT:Y.K9042C00KA0648G00 --name 'Hall lamp'
  matterbind commission 3497-011-2332
  matterbind commission - < code.txt          keeps the code out of the list of processes
  matterbind commission MT:... --product-key p11abc --device-key VD0001 --binding-code 01234567...
  matterbind commission MT:... --json | jq .node.node_id
  matterbind commission --manifest new-devices.csv --jobs 8

A manifest has a head line with these columns, of which only the first is needed:
  setup_code,product_key,device_key,binding_code,name,family,room

Exit 0: commissioned and bound, or nothing to bind. 6: commissioned, the cloud is still to come.";

/// `commission`
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct CommissionArgs {
    /// QR payload (MT:...), manual code of 11 or 21 digits, or - to read it from stdin
    #[arg(
        value_name = "SETUP-CODE",
        required_unless_present = "manifest",
        conflicts_with = "manifest",
        value_parser = setup_code
    )]
    pub setup_code: Option<SetupCode>,
    /// Product key in the cloud
    #[arg(long, value_name = "KEY")]
    pub product_key: Option<String>,
    /// Device key in the cloud
    #[arg(long, value_name = "KEY")]
    pub device_key: Option<String>,
    /// Binding code that the device shows the cloud: 16 characters 0-9A-F
    #[arg(long, value_name = "CODE", value_parser = binding_code)]
    pub binding_code: Option<BindingCode>,
    /// What to call it
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Family (home) in the cloud
    #[arg(long, value_name = "ID")]
    pub family: Option<String>,
    /// Room in the cloud
    #[arg(long, value_name = "ID")]
    pub room: Option<String>,
    /// Where the device is; it is not looked for then
    #[arg(long, value_name = "IP[:PORT]", value_parser = numbers::address)]
    pub address: Option<SocketAddr>,
    /// Leave the cloud alone
    #[arg(long)]
    pub no_bind: bool,
    /// How long to wait for the cloud
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = numbers::duration)]
    pub wait_bind: Duration,
    /// Accept the device whatever attestation finds; the reason goes into the admin log
    #[arg(long, value_name = "REASON")]
    pub override_attestation: Option<String>,
    /// Commission every device of a CSV file
    #[arg(
        long,
        value_name = "FILE.csv",
        conflicts_with_all = ["product_key", "device_key", "binding_code", "name", "address", "events"]
    )]
    pub manifest: Option<PathBuf>,
    /// How many at once, with --manifest
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=24), requires = "manifest")]
    pub jobs: u8,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
    /// Print progress as NDJSON; the last line is the document of --json
    #[arg(long, conflicts_with = "json")]
    pub events: bool,
}

/// Judged by the daemon: an error here would repeat the code.
fn setup_code(typed: &str) -> Result<SetupCode, std::convert::Infallible> {
    Ok(SetupCode::new(typed))
}

fn binding_code(typed: &str) -> Result<BindingCode, std::convert::Infallible> {
    Ok(BindingCode::new(typed))
}

impl CommissionArgs {
    /// The request, but for the setup code.
    pub(super) fn request(&self) -> CommissionRequest {
        CommissionRequest {
            setup_code: String::new(),
            product_key: self.product_key.clone(),
            device_key: self.device_key.clone(),
            binding_code: self.binding_code.as_ref().map(|code| code.expose().to_owned()),
            name: self.name.clone(),
            family_id: self.family.clone(),
            room_id: self.room.clone(),
            address: self.address,
            no_bind: self.no_bind,
            alike: 0,
            wait_bind_ms: u64::try_from(self.wait_bind.as_millis()).unwrap_or(u64::MAX),
            attestation_override: self
                .override_attestation
                .clone()
                .map(|why| AttestationOverride { who: String::new(), why }),
        }
    }
}

pub(super) fn run(global: &Global, args: CommissionArgs) -> Result<ExitCode, CliError> {
    let client = global.client()?;
    if let Some(file) = &args.manifest {
        let rows = manifest::read(file, &args)?;
        return block_on(manifest::run(global, &client, &args, rows));
    }
    let mut request = args.request();
    request.setup_code = match args.setup_code.as_ref().map(SetupCode::expose) {
        Some("-") => from_stdin()?,
        Some(code) => code.to_owned(),
        None => return Err(CliError::Usage("a setup code is needed".to_owned())),
    };
    let progress = match (args.json, args.events) {
        (true, _) => Progress::Silent,
        (_, true) => Progress::Events,
        _ => Progress::for_person(global.color),
    };
    let result = block_on(attempt(&client, &request, &progress))?;
    match &result {
        _ if args.json => output::json(&result)?,
        _ if args.events => output::json_line(&result)?,
        _ => tell(&result, Paint::stdout(global.color), Paint::stderr(global.color))?,
    }
    Ok(ExitCode::of_result(&result))
}

fn from_stdin() -> Result<String, CliError> {
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    read.map_err(|source| CliError::Io { what: "stdin".to_owned(), source })?;
    if line.trim().is_empty() {
        return Err(CliError::Usage("no setup code on stdin".to_owned()));
    }
    Ok(line.trim().to_owned())
}

/// One attempt, from the request to its result; progress is shown on the way.
pub(super) async fn attempt(
    client: &AdminClient,
    request: &CommissionRequest,
    progress: &Progress,
) -> Result<CommissionResult, CliError> {
    let result = follow(client, request, progress).await;
    let failed_in = match &result {
        Ok(CommissionResult::Failed(failure)) => Some(failure.step.label()),
        _ => None,
    };
    progress.end(failed_in);
    result
}

async fn follow(
    client: &AdminClient,
    request: &CommissionRequest,
    progress: &Progress,
) -> Result<CommissionResult, CliError> {
    let mut lines = client.post_lines(&["commission"], request).await?;
    while let Some(line) = lines.next().await {
        let line = line?;
        match serde_json::from_str::<CommissionLine>(&line) {
            Ok(CommissionLine::Result(result)) => return Ok(result),
            Ok(CommissionLine::Event(event)) => progress.show(&event)?,
            // The error document, or an event of a newer daemon.
            Err(_) => match serde_json::from_str::<Refusal>(&line) {
                Ok(error) => return Err(error.into()),
                Err(_) => {
                    progress.show(&CommissionEvent::Note { message: "(news of a kind unknown here)".to_owned() })?
                }
            },
        }
    }
    let what = "ended without a result; the attempt may go on: see `matterbind nodes`".to_owned();
    Err(CliError::Gone { what, late: false })
}

/// The summary for a person: success on stdout, failure on stderr.
fn tell(result: &CommissionResult, out: Paint, err: Paint) -> Result<(), CliError> {
    match result {
        CommissionResult::Commissioned { node, bind, timings_ms, replaces, .. } => {
            let done = out.tone(Tone::Good, "Commissioned");
            let name = out.tone(Tone::Strong, &node.name);
            let product = format!("{} {}, Matter {}", node.vendor_name, node.product_name, node.matter_version);
            let took = output::duration(timings_ms.total);
            output::line(&format!("{done} {name} as node {} in {took} ({product}).", node.node_id))?;
            if let Some(old) = replaces {
                output::line(&format!("This device was node {old} before; that one has ended."))?;
            }
            output::line(&bind_sentence(bind, out))
        }
        CommissionResult::Failed(failure) => {
            eprint!("{}", failure_text(failure, err));
            Ok(())
        }
    }
}

/// How the bind stands, as a sentence.
pub(super) fn bind_sentence(bind: &BindStatus, paint: Paint) -> String {
    let because = if bind.message.is_empty() { String::new() } else { format!(": {}", bind.message) };
    let code = bind.code.filter(|code| *code != 200).map(|code| format!(" (code {code})")).unwrap_or_default();
    match bind.state {
        BindState::Bound => format!("{} in the cloud.", paint.tone(Tone::Good, "Bound")),
        BindState::Pending => {
            let word = paint.tone(Tone::Warn, "Not yet bound");
            format!("{word} in the cloud{because}{code}. It goes on by itself; `matterbind outbox` shows how.")
        }
        BindState::Rejected => {
            let word = paint.tone(Tone::Bad, "Refused");
            format!("{word} by the cloud{because}{code}. The node stays usable locally.")
        }
        BindState::NotEligible => format!("Not bound: it has no identity in the cloud{because}."),
        BindState::Disabled => "Not bound: no cloud was asked for.".to_owned(),
    }
}

/// A failed attempt for a person.
fn failure_text(failure: &Failure, paint: Paint) -> String {
    let mut text = format!(
        "{} {} ({} while {})\n",
        paint.tone(Tone::Bad, "error:"),
        failure.message,
        failure.code,
        failure.step.label()
    );
    for finding in &failure.findings {
        text.push_str(&format!("  {finding}\n"));
    }
    if !failure.hint.is_empty() {
        text.push_str(&format!("{} {}\n", paint.tone(Tone::Strong, "hint:"), failure.hint));
    }
    text
}
