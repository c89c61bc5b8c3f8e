//! `matterbind commission --manifest`: many devices, some at once, results in the order of the file.

use std::path::Path;
use std::time::Instant;

use futures_util::{StreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Global;
use super::client::AdminClient;
use super::commission::{CommissionArgs, attempt, bind_sentence};
use super::exit::{CliError, ExitCode};
use super::output::{self, Paint, Tone};
use super::progress::Progress;
use crate::admin::wire::{CommissionRequest, CommissionResult};

/// One line. No `Debug`: it holds codes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    setup_code: String,
    #[serde(default)]
    product_key: Option<String>,
    #[serde(default)]
    device_key: Option<String>,
    #[serde(default)]
    binding_code: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    family: Option<String>,
    #[serde(default)]
    room: Option<String>,
}

/// A line of the file, understood.
pub(super) struct Job {
    /// Its number in the file.
    line: u64,
    request: CommissionRequest,
}

/// Reads the whole file before anything is sent.
///
/// # Errors
/// Every line that is wrong, by its number; what is in it is not repeated.
pub(super) fn read(file: &Path, args: &CommissionArgs) -> Result<Vec<Job>, CliError> {
    let named = |problem: String| CliError::Usage(format!("{}: {problem}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| named(error.to_string()))?;
    parse(&text, args).map_err(named)
}

fn parse(text: &str, args: &CommissionArgs) -> Result<Vec<Job>, String> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).comment(Some(b'#')).from_reader(text.as_bytes());
    const KNOWN: [&str; 7] = ["setup_code", "product_key", "device_key", "binding_code", "name", "family", "room"];
    let head = reader.headers().map_err(|_| "it has no head line".to_owned())?.clone();
    let unknown: Vec<&str> = head.iter().filter(|column| !KNOWN.contains(column)).collect();
    if !head.iter().any(|column| column == "setup_code") || !unknown.is_empty() {
        // The columns are not repeated: without a head line they would be the first device's codes.
        return Err(format!(
            "the first line must name the columns, only these and at least the first: {}",
            KNOWN.join(",")
        ));
    }
    let (mut jobs, mut wrong) = (Vec::new(), Vec::new());
    for record in reader.records() {
        let line = match &record {
            Ok(record) => record.position().map_or(0, csv::Position::line),
            Err(error) => error.position().map_or(0, csv::Position::line),
        };
        let row = record.ok().and_then(|record| record.deserialize::<Row>(Some(&head)).ok());
        match row {
            Some(row) if !row.setup_code.is_empty() => jobs.push(Job { line, request: request(row, args) }),
            Some(_) => wrong.push(format!("line {line} has no setup code")),
            None => wrong.push(format!("line {line} has not as many values as there are columns")),
        }
    }
    if !wrong.is_empty() {
        return Err(wrong.join("; "));
    }
    if jobs.is_empty() {
        return Err("it names no device".to_owned());
    }
    Ok(jobs)
}

fn request(row: Row, args: &CommissionArgs) -> CommissionRequest {
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let common = args.request();
    CommissionRequest {
        setup_code: row.setup_code,
        product_key: given(row.product_key),
        device_key: given(row.device_key),
        binding_code: given(row.binding_code),
        name: given(row.name),
        family_id: given(row.family).or(common.family_id),
        room_id: given(row.room).or(common.room_id),
        ..common
    }
}

/// Commissions all of them.
pub(super) async fn run(
    global: &Global,
    client: &AdminClient,
    args: &CommissionArgs,
    jobs: Vec<Job>,
) -> Result<ExitCode, CliError> {
    let begun = Instant::now();
    let bar = overall(jobs.len(), args.json);
    let paint = Paint::stderr(global.color);
    let attempts = stream::iter(jobs.into_iter().enumerate()).map(|(index, job)| async move {
        let result = attempt(client, &job.request, &Progress::Silent).await;
        (index, job.line, result)
    });
    let mut attempts = attempts.buffer_unordered(usize::from(args.jobs));
    let mut results = Vec::new();
    while let Some((index, line, result)) = attempts.next().await {
        // Where the daemon is away it is so for every line.
        if let Err(error @ CliError::Unreachable { .. }) = result {
            bar.finish_and_clear();
            return Err(error);
        }
        if !args.json {
            bar.suspend(|| eprintln!("{}", summary(line, &result, paint)));
        }
        bar.inc(1);
        results.push((index, result));
    }
    bar.finish_and_clear();
    results.sort_by_key(|(index, _)| *index);
    let codes: Vec<ExitCode> = results.iter().map(|(_, result)| code_of(result)).collect();
    if args.json {
        let documents: Vec<Value> = results.iter().map(|(_, result)| document(result)).collect();
        output::json(&json!({ "results": documents }))?;
    } else {
        let count = |wanted: &[ExitCode]| codes.iter().filter(|code| wanted.contains(code)).count();
        let pending = count(&[ExitCode::Pending]);
        let failed = codes.len() - count(&[ExitCode::Done]) - pending;
        let took = output::duration(u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX));
        let done = count(&[ExitCode::Done]);
        output::line(&format!(
            "{} devices in {took}: {done} done, {pending} pending in the cloud, {failed} failed.",
            codes.len()
        ))?;
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

fn code_of(result: &Result<CommissionResult, CliError>) -> ExitCode {
    match result {
        Ok(result) => ExitCode::of_result(result),
        Err(error) => error.exit_code(),
    }
}

fn document(result: &Result<CommissionResult, CliError>) -> Value {
    match result {
        Ok(result) => serde_json::to_value(result).unwrap_or_default(),
        Err(error) => {
            let mut document = serde_json::to_value(error.document()).unwrap_or_default();
            document["outcome"] = "failed".into();
            document
        }
    }
}

fn summary(line: u64, result: &Result<CommissionResult, CliError>, paint: Paint) -> String {
    match result {
        Ok(CommissionResult::Commissioned { node, bind, timings_ms, .. }) => format!(
            "{} line {line}: {} is node {} in {}. {}",
            paint.tone(Tone::Good, "✔"),
            node.name,
            node.node_id,
            output::duration(timings_ms.total),
            bind_sentence(bind, paint)
        ),
        Ok(CommissionResult::Failed(failure)) => {
            let mark = paint.tone(Tone::Bad, "✘");
            format!("{mark} line {line}: {} ({}); {}", failure.message, failure.code, failure.hint)
        }
        Err(error) => format!("{} line {line}: {error}", paint.tone(Tone::Bad, "✘")),
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

    #[test]
    fn columns_may_be_left_out_and_values_empty() {
        let jobs = parse("setup_code,name,family\nMT:AAA,Lamp,\n34970112332,,villa\n", &args()).unwrap();
        assert_eq!(jobs[0].request.setup_code, "MT:AAA");
        assert_eq!(jobs[0].request.name.as_deref(), Some("Lamp"));
        assert_eq!(jobs[0].request.family_id.as_deref(), Some("home"));
        assert_eq!(jobs[1].request.name, None);
        assert_eq!(jobs[1].request.family_id.as_deref(), Some("villa"));
        assert_eq!((jobs[1].line, jobs[1].request.wait_bind_ms), (3, 30_000));
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
