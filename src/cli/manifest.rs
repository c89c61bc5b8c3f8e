//! `matterbind commission --manifest`: many devices, some at once, results in the order of the file.

use std::path::Path;
use std::time::Instant;

use futures_util::{StreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::AdminClient;
use super::commission::{Attempted, CommissionArgs, Told, attempt, bind_sentence, binding_code};
use super::exit::{CliError, ExitCode};
use super::output::{self, Paint, Tone};
use super::progress::ProgressLine;
use super::{Global, numbers};
use crate::admin::wire::{CommissionRequest, CommissionResult, Failure};
use crate::onboarding::SetupCode;
use crate::plain;
use crate::secret::BindingCode;

/// The columns, of which only the first is needed.
const KNOWN: [&str; 10] =
    ["setup_code", "product_key", "device_key", "binding_code", "name", "family", "room", "address", "extra", "common"];

/// One line. No `Debug`: it holds codes.
#[derive(Deserialize)]
struct Row {
    setup_code: SetupCode,
    #[serde(default)]
    product_key: Option<String>,
    #[serde(default)]
    device_key: Option<String>,
    #[serde(default)]
    binding_code: Option<BindingCode>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    family: Option<String>,
    #[serde(default)]
    room: Option<String>,
    #[serde(default)]
    address: Option<String>,
    #[serde(default)]
    extra: Option<String>,
    #[serde(default)]
    common: Option<String>,
}

/// A line of the file, understood. A QR code for several devices makes several of it.
pub(super) struct Planned {
    /// Its number in the file.
    line: u64,
    request: CommissionRequest,
}

/// Reads the whole file before anything is sent; columns that are not known are told on stderr.
///
/// # Errors
/// Every line that is wrong, by its number; what is in it is not repeated.
pub(super) fn read(file: &Path, args: &CommissionArgs) -> Result<Vec<Planned>, CliError> {
    let named = |problem: String| CliError::Usage(format!("{}: {problem}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| named(error.to_string()))?;
    let (jobs, ignored) = parse(&text, args).map_err(named)?;
    if !ignored.is_empty() {
        output::note(&format!(
            "note: {}: these columns are not known and ignored: {}",
            file.display(),
            ignored.join(", ")
        ));
    }
    Ok(jobs)
}

/// The jobs, and the columns that were ignored.
fn parse(text: &str, args: &CommissionArgs) -> Result<(Vec<Planned>, Vec<String>), String> {
    // Spreadsheets write a byte order mark, and semicolons where the comma is the decimal point.
    // Line numbers count the newline only.
    let text = text.trim_start_matches('\u{FEFF}').replace("\r\n", "\n").replace('\r', "\n");
    let first = text.lines().find(|line| !line.trim().is_empty() && !line.starts_with('#')).unwrap_or_default();
    let count = |delimiter: u8| first.bytes().filter(|byte| *byte == delimiter).count();
    let delimiter = [b',', b';', b'\t'].into_iter().max_by_key(|delimiter| (count(*delimiter), *delimiter == b','));
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter.unwrap_or(b','))
        .trim(csv::Trim::All)
        .comment(Some(b'#'))
        .from_reader(text.as_bytes());
    let head = reader.headers().map_err(|_| "it has no head line".to_owned())?;
    let head: csv::StringRecord =
        head.iter().map(|column| column.to_lowercase().replace([' ', '-'], "_")).collect::<Vec<_>>().into();
    if !head.iter().any(|column| column == KNOWN[0]) {
        // The columns are not repeated: without a head line they would be the first device's codes.
        return Err(format!("the first line must name the columns, at least the first of these: {}", KNOWN.join(",")));
    }
    let ignored = head.iter().filter(|column| !KNOWN.contains(column) && !column.is_empty());
    let ignored: Vec<String> = ignored.map(str::to_owned).collect();
    let (mut jobs, mut wrong) = (Vec::new(), Vec::new());
    for record in reader.records() {
        let position = match &record {
            Ok(record) => record.position(),
            Err(error) => error.position(),
        };
        let line = position.map_or(0, |position| line_at(&text, position.byte()));
        match record.ok().and_then(|record| record.deserialize::<Row>(Some(&head)).ok()) {
            Some(row) if row.setup_code.expose().is_empty() => wrong.push(format!("line {line} has no setup code")),
            Some(row) => match requests(row, args) {
                Ok(requests) => jobs.extend(requests.into_iter().map(|request| Planned { line, request })),
                Err(problem) => wrong.push(format!("line {line}: {problem}")),
            },
            None => wrong.push(format!("line {line} has not as many values as there are columns")),
        }
    }
    if !wrong.is_empty() {
        return Err(wrong.join("; "));
    }
    if jobs.is_empty() {
        return Err("it names no device".to_owned());
    }
    Ok((jobs, ignored))
}

/// The line, as an editor numbers it, of the record that the reader began to look for at this byte: empty lines and comments
/// before it are passed over.
fn line_at(text: &str, byte: u64) -> u64 {
    let mut at = usize::try_from(byte).unwrap_or(usize::MAX).min(text.len());
    while let Some(rest) = text.get(at..).filter(|rest| rest.starts_with(['\n', '#'])) {
        at += rest.find('\n').map_or(rest.len(), |end| end + 1);
    }
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count() as u64
}

/// The requests of a row: one, but for a code that names several devices.
fn requests(row: Row, args: &CommissionArgs) -> Result<Vec<CommissionRequest>, String> {
    let codes = row.setup_code.each();
    let common = request(row, args)?;
    Ok(codes.into_iter().map(|setup_code| CommissionRequest { setup_code, ..common.clone() }).collect())
}

fn request(row: Row, args: &CommissionArgs) -> Result<CommissionRequest, String> {
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let common = args.request();
    let address = given(row.address).map(|text| numbers::address(&text)).transpose()?;
    let common_device = match given(row.common).map(|text| text.to_lowercase()).as_deref() {
        None => common.is_common_device,
        Some("true" | "yes" | "1") => Some(true),
        Some("false" | "no" | "0") => Some(false),
        Some(_) => return Err("`common` is true or false".to_owned()),
    };
    Ok(CommissionRequest {
        extra: given(row.extra).or(common.extra),
        is_common_device: common_device,
        setup_code: row.setup_code,
        product_key: given(row.product_key),
        device_key: given(row.device_key),
        binding_code: row.binding_code.filter(|code| !code.expose().is_empty()).map(|code| {
            let Ok(code) = binding_code(code.expose());
            code
        }),
        name: given(row.name),
        family_id: given(row.family).or(common.family_id),
        room_id: given(row.room).or(common.room_id),
        address,
        ..common
    })
}

/// Commissions all of them.
pub(super) async fn run(
    global: &Global,
    client: &AdminClient,
    args: &CommissionArgs,
    jobs: Vec<Planned>,
) -> Result<ExitCode, CliError> {
    let begun = Instant::now();
    let bar = overall(jobs.len(), args.json);
    let paint = Paint::stderr(global.color);
    let attempts = stream::iter(jobs.into_iter().enumerate()).map(|(index, job)| async move {
        let result = attempt(client, &job.request, &ProgressLine::Silent).await;
        let told = match &result {
            Ok(result) if !args.json => Told::of_result(client, result).await,
            _ => Told::default(),
        };
        (index, Answered { line: job.line, name: job.request.name, result, told })
    });
    let mut attempts = attempts.buffer_unordered(usize::from(args.jobs));
    let mut results = Vec::new();
    while let Some((index, answered)) = attempts.next().await {
        // Where the daemon is away it is so for every line; what is known by now is told all the same.
        let last = answered.result.as_ref().is_err_and(CliError::ends_all);
        if !args.json {
            bar.suspend(|| output::note(&summary(&answered, paint)));
        }
        bar.inc(1);
        results.push((index, answered));
        if last {
            break;
        }
    }
    bar.finish_and_clear();
    results.sort_by_key(|(index, _)| *index);
    let codes: Vec<ExitCode> = results.iter().map(|(_, answered)| code_of(&answered.result)).collect();
    if args.json {
        let documents = results.iter().map(|(_, answered)| {
            let Answered { line, name, result, .. } = answered;
            document(*line, name.as_deref(), result)
        });
        let documents: Vec<Value> = documents.collect();
        output::json(&json!({ "results": documents }))?;
    } else {
        let count = |wanted: &[ExitCode]| codes.iter().filter(|code| wanted.contains(code)).count();
        let pending = count(&[ExitCode::Pending]);
        let failed = codes.len() - count(&[ExitCode::Done]) - pending;
        let took = output::duration(u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX));
        let done = count(&[ExitCode::Done]);
        let devices = output::counted(codes.len(), "device");
        output::line(&format!("{devices} in {took}: {done} done, {pending} pending in the cloud, {failed} failed."))?;
    }
    Ok(ExitCode::worst(codes))
}

fn overall(length: usize, silent: bool) -> ProgressBar {
    if silent {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(length as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed:.dim}") {
        bar.set_style(style);
    }
    bar
}

/// What came of a row.
struct Answered {
    line: u64,
    name: Option<String>,
    result: Attempted,
    told: Told,
}

/// A device that is a node already is what the row wants.
pub(super) fn code_of(result: &Attempted) -> ExitCode {
    match result {
        Ok(CommissionResult::Failed(Failure { node: Some(node), .. })) => ExitCode::of_bind(node.bind.state),
        Ok(result) => ExitCode::of_result(result),
        Err(error) => error.exit_code(),
    }
}

/// The `--json` object of one device, with its line and the name that was asked for or that it has. A device that is a node
/// already is commissioned; `code` says that it was so before.
pub(super) fn document(line: u64, name: Option<&str>, result: &Attempted) -> Value {
    let (mut document, known) = match result {
        Ok(CommissionResult::Failed(Failure { node: Some(node), attempt_id, code, message, .. })) => {
            let document = json!({
                "outcome": "commissioned", "attempt_id": attempt_id, "code": code, "message": message,
                "node": node, "bind": node.bind,
            });
            (document, Some(node.name.clone()))
        }
        Ok(result) => {
            let known = match result {
                CommissionResult::Commissioned { node, .. } => Some(node.name.clone()),
                CommissionResult::Failed(_) => None,
            };
            (serde_json::to_value(result).unwrap_or_default(), known)
        }
        Err(error) => (error.outcome(), None),
    };
    document["line"] = line.into();
    document["name"] = known.or_else(|| name.map(str::to_owned)).into();
    document
}

fn summary(Answered { line, result, told, .. }: &Answered, paint: Paint) -> String {
    match result {
        Ok(CommissionResult::Commissioned { node, bind, timings_ms, .. }) => format!(
            "{} line {line}: {} is node {} in {}. {}",
            paint.tone(Tone::Good, "✔"),
            node.name,
            node.node_id,
            output::duration(timings_ms.total),
            bind_sentence(bind, told, paint)
        ),
        Ok(CommissionResult::Failed(Failure { node: Some(node), .. })) => {
            let mark = paint.tone(Tone::Good, "✔");
            format!(
                "{mark} line {line}: is node {} ({}) already. {}",
                node.node_id,
                node.name,
                bind_sentence(&node.bind, told, paint)
            )
        }
        Ok(CommissionResult::Failed(failure)) => {
            let mark = paint.tone(Tone::Bad, "✘");
            format!("{mark} line {line}: {} ({}); {}", failure.message, failure.code, failure.hint)
        }
        Err(error) => {
            let (mark, said) = (paint.tone(Tone::Bad, "✘"), plain::with_causes(error));
            format!("{mark} line {line}: {said}. {}", error.hint())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn args() -> CommissionArgs {
        let cli =
            super::super::Cli::parse_from(["matterbind", "commission", "--manifest", "x.csv", "--family", "home"]);
        match cli.command {
            super::super::Command::Commission(args) => args,
            other => panic!("{other:?}"),
        }
    }

    fn jobs(text: &str) -> Vec<Planned> {
        parse(text, &args()).map_err(|problem| panic!("{problem}")).unwrap().0
    }

    #[test]
    fn columns_may_be_left_out_and_values_empty() {
        let jobs = jobs("setup_code,name,family\nMT:AAA,Lamp,\n34970112332,,villa\n");
        assert_eq!(jobs[0].request.setup_code.expose(), "MT:AAA");
        assert_eq!(jobs[0].request.name.as_deref(), Some("Lamp"));
        assert_eq!(jobs[0].request.family_id.as_deref(), Some("home"));
        assert_eq!(jobs[1].request.name, None);
        assert_eq!(jobs[1].request.family_id.as_deref(), Some("villa"));
        assert_eq!((jobs[1].line, jobs[1].request.wait_bind_ms), (3, 30_000));
    }

    #[test]
    fn a_file_as_spreadsheets_write_it() {
        let text = "\u{FEFF}Setup Code;NAME;Serial;Address\r\n\"3497-011-2332\";Lamp;77;192.0.2.7:5541\r\n";
        let (jobs, ignored) = parse(text, &args()).map_err(|problem| panic!("{problem}")).unwrap();
        assert_eq!(ignored, ["serial"]);
        assert_eq!(jobs[0].request.name.as_deref(), Some("Lamp"));
        assert_eq!(jobs[0].request.address, Some("192.0.2.7:5541".parse().unwrap()));
        let wrong = parse("setup_code,address\nMT:SECRET,nowhere\n", &args()).err().unwrap();
        assert!(wrong.contains("line 2") && !wrong.contains("SECRET"), "{wrong}");
    }

    #[test]
    fn what_else_a_bind_says_may_be_given_for_each() {
        let jobs = jobs("setup_code,extra,common\nMT:AAA,x1,false\nMT:BBB,,\n");
        let told: Vec<_> =
            jobs.iter().map(|job| (job.request.extra.as_deref(), job.request.is_common_device)).collect();
        assert_eq!(told, [(Some("x1"), Some(false)), (None, None)]);
        assert!(parse("setup_code,common\nMT:AAA,perhaps\n", &args()).is_err());
    }

    #[test]
    fn lines_are_numbered_as_an_editor_shows_them() {
        let text =
            "# made by hand\n\nsetup_code,name\n\n# upstairs\nMT:AAA,Lamp\n\n\nMT:BBB,\"Fan\nin the attic\"\nMT:CCC,\n";
        for text in [text.to_owned(), text.replace('\n', "\r\n"), format!("\u{FEFF}{text}"), text.replace('\n', "\r")] {
            assert_eq!(jobs(&text).iter().map(|job| job.line).collect::<Vec<_>>(), [6, 9, 11], "{text:?}");
            let wrong = parse(&text.replace("MT:CCC,", "# no more\rMT:CCC,a,b"), &args()).err().unwrap();
            assert!(wrong.starts_with("line 12 "), "{wrong}");
        }
    }

    #[test]
    fn a_code_for_two_devices_is_two_jobs_of_one_line() {
        let jobs = jobs("setup_code,family\nMT:AAA*BBB,villa\n");
        assert_eq!(jobs.iter().map(|job| job.request.setup_code.expose()).collect::<Vec<_>>(), ["MT:AAA", "MT:BBB"]);
        assert!(jobs.iter().all(|job| job.line == 2 && job.request.family_id.as_deref() == Some("villa")));
    }

    #[test]
    fn every_wrong_line_is_named_and_no_code_is_shown() {
        let problem = parse("setup_code,name\nMT:SECRET,a,b\n,Lamp\nMT:OK,c\n", &args()).err().unwrap();
        assert!(problem.contains("line 2") && problem.contains("line 3"), "{problem}");
        assert!(!problem.contains("SECRET"), "{problem}");
        let problem = parse("MT:SECRET,Lamp\n", &args()).err().unwrap();
        assert!(!problem.contains("SECRET"), "{problem}");
    }
}
