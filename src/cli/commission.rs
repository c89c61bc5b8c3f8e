//! `matterbind commission`: one device. Many are in `manifest`.

use std::collections::VecDeque;
use std::io::{self, BufRead};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::json;
use tokio::sync::mpsc;

use super::client::{AdminClient, PLAIN};
use super::exit::{CliError, ExitCode, Reached};
use super::output::{self, Paint, Tone};
use super::progress::ProgressLine;
use super::{Global, block_on, manifest, numbers};
use crate::admin::wire::{
    AcceptedTerms, AttestationOverride, CommissionEvent, CommissionLine, CommissionRequest, CommissionResult, Failure,
    Outbox, OutboxItem, OutboxState, Refusal,
};
use crate::bind::{BindState, BindStatus};
use crate::node::NodeId;
use crate::onboarding::SetupCode;
use crate::plain;
use crate::secret::BindingCode;

const EXAMPLES: &str = "\
Examples:
  matterbind commission MT:Y.K9042C00KA0648G00 --name 'Hall lamp'
  matterbind commission 3497-011-2332
  matterbind commission - < codes.txt         one code in a line, as a barcode scanner types them
  matterbind commission MT:... --product-key p11abc --device-key VD0001 --binding-code 01234567...
  matterbind commission MT:... --json | jq .node.node_id
  matterbind commission --manifest new-devices.csv --jobs 8

A manifest has a head line with these columns, of which only the first is needed; `,` or `;` between them:
  setup_code,product_key,device_key,binding_code,name,family,room,address,extra,common
It can be run again: a row whose device is a node already answers with that node.

Exit 0: commissioned and bound, or nothing to bind. 6: commissioned, the cloud is still to come.";

/// `commission`
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CommissionArgs {
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
    /// Sent to the cloud with its Matter identity, as it stands
    #[arg(long, value_name = "TEXT")]
    pub extra: Option<String>,
    /// Whether the family's list of common devices shows it
    #[arg(long, value_name = "BOOL")]
    pub common: Option<bool>,
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
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = wait_bind)]
    pub wait_bind: Duration,
    /// Which network of the home a device on Bluetooth is brought to [default: the default one]
    #[arg(long, value_name = "NAME")]
    pub network: Option<String>,
    /// How long a device on Bluetooth that could not join waits for `matterbind network set`
    #[arg(long, value_name = "TIME", value_parser = numbers::duration)]
    pub wait_network: Option<Duration>,
    /// Which of the device's terms and conditions were accepted, as VERSION:BITS
    #[arg(long, value_name = "VERSION:BITS", value_parser = numbers::terms)]
    pub accept_terms: Option<AcceptedTerms>,
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

/// Labels are read aloud and typed in small letters; the cloud knows the code in capitals only.
pub(super) fn binding_code(typed: &str) -> Result<BindingCode, std::convert::Infallible> {
    Ok(BindingCode::new(typed.to_ascii_uppercase()))
}

/// As long as the daemon lets anybody wait.
fn wait_bind(text: &str) -> Result<Duration, String> {
    const MAX: Duration = Duration::from_secs(600);
    let wait = numbers::duration(text)?;
    if wait > MAX { Err("at most 10m: the daemon goes on without you after that".to_owned()) } else { Ok(wait) }
}

impl CommissionArgs {
    /// What names one device cannot be said of several.
    fn check_for_several(&self) -> Result<(), CliError> {
        let one =
            self.device_key.is_some() || self.binding_code.is_some() || self.name.is_some() || self.address.is_some();
        if one {
            let message =
                "--name, --device-key, --binding-code and --address are for one device; a manifest has them for each";
            return Err(CliError::Usage(message.to_owned()));
        }
        Ok(())
    }

    /// The request, but for the setup code.
    pub(super) fn request(&self) -> CommissionRequest {
        CommissionRequest {
            setup_code: SetupCode::default(),
            product_key: self.product_key.clone(),
            device_key: self.device_key.clone(),
            binding_code: self.binding_code.clone(),
            extra: self.extra.clone(),
            is_common_device: self.common,
            name: self.name.clone(),
            family_id: self.family.clone(),
            room_id: self.room.clone(),
            address: self.address,
            no_bind: self.no_bind,
            wait_bind_ms: u64::try_from(self.wait_bind.as_millis()).unwrap_or(u64::MAX),
            network: self.network.clone(),
            wait_network_ms: self.wait_network.map_or(0, |wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
            accept_terms: self.accept_terms,
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
    let codes = match &args.setup_code {
        Some(code) if code.expose() == "-" => Codes::Typed { lines: typed_lines(), read: 0 },
        Some(code) => Codes::Given(code.each().into()),
        None => return Err(CliError::Usage("a setup code is needed".to_owned())),
    };
    block_on(each(global, &client, &args, codes))
}

/// Where the codes come from.
enum Codes {
    /// One QR code may name several devices.
    Given(VecDeque<SetupCode>),
    /// One code in a line of stdin, as a barcode scanner types them.
    Typed {
        lines: mpsc::UnboundedReceiver<io::Result<String>>,
        /// How many lines there were, empty ones included.
        read: u64,
    },
}

impl Codes {
    /// The next code and the number of its line; waits for a person or a scanner.
    async fn next(&mut self) -> Result<Option<(u64, SetupCode)>, CliError> {
        match self {
            Self::Given(codes) => Ok(codes.pop_front().map(|code| (1, code))),
            Self::Typed { lines, read } => loop {
                let line = tokio::select! {
                    line = lines.recv() => line,
                    _ = tokio::signal::ctrl_c() => None,
                };
                let Some(line) = line else { return Ok(None) };
                let line = line.map_err(|source| CliError::Io { what: "stdin".to_owned(), source })?;
                *read += 1;
                if !line.trim().is_empty() {
                    return Ok(Some((*read, SetupCode::new(&line))));
                }
            },
        }
    }
}

/// The lines of stdin, read by a thread of its own: whoever waits for the next one can be interrupted.
fn typed_lines() -> mpsc::UnboundedReceiver<io::Result<String>> {
    let (sender, lines) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// Brings in one device after the other: the document of one, or of each.
async fn each(
    global: &Global,
    client: &AdminClient,
    args: &CommissionArgs,
    mut codes: Codes,
) -> Result<ExitCode, CliError> {
    let (out, err) = (Paint::stdout(global.color), Paint::stderr(global.color));
    if matches!(&codes, Codes::Given(codes) if codes.len() > 1) {
        args.check_for_several()?;
    }
    let mut results: Vec<(u64, Attempted)> = Vec::new();
    while let Some((line, code)) = codes.next().await? {
        if !results.is_empty() {
            args.check_for_several()?;
        }
        let single = code.each();
        if single.len() > 1 {
            args.check_for_several()?;
        }
        for code in single {
            let request = CommissionRequest { setup_code: code, ..args.request() };
            let progress = match (args.json, args.events) {
                (true, _) => ProgressLine::Silent,
                (_, true) => ProgressLine::Events,
                _ => ProgressLine::for_person(global.color),
            };
            let result = attempt(client, &request, &progress).await;
            match &result {
                Ok(result) if args.events => output::json_line(result)?,
                Ok(result) if !args.json => tell(result, &Told::of_result(client, result).await, out, err)?,
                Ok(_) | Err(_) => {}
            }
            let last = result.as_ref().is_err_and(CliError::ends_all);
            results.push((line, result));
            if last {
                return finish(results, args, err);
            }
        }
    }
    match results.as_slice() {
        [] => Err(CliError::Usage("no setup code on stdin".to_owned())),
        [_, ..] => finish(results, args, err),
    }
}

/// What came of one device.
pub(super) type Attempted = Result<CommissionResult, CliError>;

/// The end of a command for one device or several: one device's document is the document.
fn finish(mut results: Vec<(u64, Attempted)>, args: &CommissionArgs, err: Paint) -> Result<ExitCode, CliError> {
    if results.len() == 1 {
        let (_, result) = results.pop().expect("there is one");
        let result = result?;
        if args.json {
            output::json(&result)?;
        }
        return Ok(ExitCode::of_result(&result));
    }
    let code = ExitCode::worst(results.iter().map(|(_, result)| manifest::code_of(result)));
    let documents = || results.iter().map(|(line, result)| manifest::document(*line, None, result)).collect::<Vec<_>>();
    match (args.json, args.events) {
        (true, _) => output::json(&json!({ "results": documents() }))?,
        (_, true) => output::json_line(&json!({ "results": documents() }))?,
        _ => {
            for (_, result) in &results {
                if let Err(error) = result {
                    let said = plain::with_causes(error);
                    output::note(&format!("{} {said}. {}", err.tone(Tone::Bad, "error:"), error.hint()));
                }
            }
        }
    }
    Ok(code)
}

/// One attempt, from the request to its result; progress is shown on the way.
pub(super) async fn attempt(client: &AdminClient, request: &CommissionRequest, progress: &ProgressLine) -> Attempted {
    let mut reached = Reached::default();
    let followed = tokio::select! {
        result = follow(client, request, progress, &mut reached) => Some(result),
        _ = tokio::signal::ctrl_c() => None,
    };
    let result = match followed {
        Some(result) => result.map_err(|error| error.during(reached)),
        None => Err(CliError::interrupted(reached)),
    };
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
    progress: &ProgressLine,
    reached: &mut Reached,
) -> Attempted {
    let mut lines = client.post_lines(&["commission"], request).await?;
    while let Some(line) = lines.next().await {
        let line = line?;
        match serde_json::from_str::<CommissionLine>(&line) {
            Ok(CommissionLine::Result(result)) => return Ok(result),
            Ok(CommissionLine::Event(event)) => {
                match &event {
                    CommissionEvent::Accepted { attempt_id } => reached.attempt = Some(*attempt_id),
                    CommissionEvent::StepStarted { step } => reached.step = Some(*step),
                    _ => {}
                }
                progress.show(&event)?;
            }
            // The error document, or an event of a newer daemon.
            Err(_) => match serde_json::from_str::<Refusal>(&line) {
                Ok(error) => return Err(error.into()),
                Err(_) => {
                    progress.show(&CommissionEvent::Note { message: "(news of a kind unknown here)".to_owned() })?
                }
            },
        }
    }
    Err(CliError::Gone { what: "ended without a result".to_owned(), late: false })
}

/// The summary for a person: success on stdout, failure on stderr.
fn tell(result: &CommissionResult, bind_told: &Told, out: Paint, err: Paint) -> Result<(), CliError> {
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
            output::line(&bind_sentence(bind, bind_told, out))
        }
        CommissionResult::Failed(failure) => {
            output::note(failure_text(failure, err).trim_end());
            Ok(())
        }
    }
}

/// What the outbox says of a bind that is pending: the record does not know whether it waits for a person.
#[derive(Debug, Default)]
pub(super) struct Told {
    waits: Option<OutboxItem>,
}

impl Told {
    /// Asks where there is something to ask. Where the daemon does not answer, nothing more is known.
    pub(super) async fn of(client: &AdminClient, node: NodeId, bind: &BindStatus) -> Self {
        if bind.state != BindState::Pending {
            return Self::default();
        }
        let entries =
            client.get(&["outbox"], &(), PLAIN).await.map(|outbox: Outbox| outbox.entries).unwrap_or_default();
        let waits = |entry: &OutboxItem| entry.node_id == node && entry.state == OutboxState::WaitingForOperator;
        Self { waits: entries.into_iter().find(waits) }
    }

    pub(super) async fn of_result(client: &AdminClient, result: &CommissionResult) -> Self {
        match result {
            CommissionResult::Commissioned { node, bind, .. } => Self::of(client, node.node_id, bind).await,
            CommissionResult::Failed(Failure { node: Some(node), .. }) => {
                Self::of(client, node.node_id, &node.bind).await
            }
            CommissionResult::Failed(_) => Self::default(),
        }
    }
}

/// How the bind stands, as a sentence.
pub(super) fn bind_sentence(bind: &BindStatus, told: &Told, paint: Paint) -> String {
    let because = if bind.message.is_empty() { String::new() } else { format!(": {}", bind.message) };
    let code = bind.code.filter(|code| *code != 200).map(|code| format!(" (code {code})")).unwrap_or_default();
    match bind.state {
        BindState::Bound => format!("{} in the cloud.", paint.tone(Tone::Good, "Bound")),
        BindState::Pending => {
            let word = paint.tone(Tone::Warn, "Not yet bound");
            let next = match &told.waits {
                Some(OutboxItem { id, hint, .. }) if hint.is_empty() => {
                    format!(
                        "It waits for you; `matterbind outbox` shows why, `matterbind outbox retry {id}` tries it again."
                    )
                }
                Some(OutboxItem { hint, .. }) => format!("It waits for you: {}.", hint.trim_end_matches('.')),
                None => "It goes on by itself; `matterbind outbox` shows how.".to_owned(),
            };
            format!("{word} in the cloud{because}{code}. {next}")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_taken_as_people_type_them() {
        let Ok(code) = binding_code("0123456789abcdef");
        assert_eq!(code.expose(), "0123456789ABCDEF");
        assert_eq!(wait_bind("10m"), Ok(Duration::from_secs(600)));
        assert!(wait_bind("11m").unwrap_err().contains("at most 10m"));
    }

    #[test]
    fn a_bind_that_waits_for_a_person_says_so() {
        let status =
            |state| serde_json::from_value(json!({ "state": state, "message": "no rights", "tries": 1 })).unwrap();
        let pending: BindStatus = status("pending");
        let sentence = |told: &Told| bind_sentence(&pending, told, Paint::plain());
        assert!(sentence(&Told::default()).contains("goes on by itself"));
        let waits = |hint: &str| {
            let item = json!({
                "id": 12, "kind": "bind", "node_id": 1000, "state": "waiting-for-operator", "tries": 1, "last_message": "",
                "hint": hint,
            });
            sentence(&Told { waits: Some(serde_json::from_value(item).unwrap()) })
        };
        let said = waits("give the account the right to bind, then `matterbind outbox retry 12`");
        assert!(
            said.ends_with("It waits for you: give the account the right to bind, then `matterbind outbox retry 12`.")
        );
        assert!(waits("").contains("matterbind outbox retry 12"), "{}", waits(""));
    }
}
