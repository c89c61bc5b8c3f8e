//! `matterbind doctor`: asks the daemon what it finds, and looks itself at what only the command line can see: systemd's unit, the
//! firewall's rules, its own version; everything that can be seen without a daemon where there is none.

use std::path::PathBuf;

use jiff::Timestamp;

use super::client::{AdminClient, SLOW};
use super::daemon::load_config;
use super::exit::{CliError, ExitCode};
use super::output::{self, Paint, Tone};
use super::{Global, block_on};
use crate::admin::wire::{Diagnosis, DoctorFinding, DoctorSeverity, Status};
use crate::config::load::{ConfigMistakes, Loaded, Secrets};
use crate::hub::doctor::facts::{Absent, Facts, Versions};
use crate::hub::doctor::{machine, offline};

mod bundle;

const NOTE: &str = "\
Exit 0: all is well. 1: there are warnings. 2: something does not work, or the archive cannot be written.
Run it as root to have the firewall's rules looked at, and everything else where the daemon does not run.

Examples:
  matterbind doctor
  sudo matterbind doctor --bundle support.tar      everything that support needs; no secrets";

/// `doctor`
#[derive(Debug, clap::Args)]
#[command(after_help = NOTE)]
pub(crate) struct DoctorArgs {
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
    /// Write what support needs into a tar archive, without secrets, and list what is in it
    #[arg(long, value_name = "FILE")]
    pub bundle: Option<PathBuf>,
    /// The configuration to look with where no daemon runs [default: as for the daemon]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

pub(super) fn run(global: &Global, args: &DoctorArgs) -> Result<ExitCode, CliError> {
    let client = global.client()?;
    let config = load_config(global, args.config.clone(), None, Secrets::NotUsed);
    let mut own = Facts { at: Timestamp::now(), unit: machine::unit(), ..Facts::default() };
    let (diagnosis, contents) = block_on(async {
        let diagnosis = match client.get::<Diagnosis>(&["doctor"], &(), SLOW).await {
            Ok(diagnosis) => {
                own.firewall = machine::firewall();
                own.versions = Some(versions(&client).await);
                diagnosis.with(Diagnosis::of(&own))
            }
            Err(error) => alone(absent(error)?, &config, &mut own).await,
        };
        let contents = match &args.bundle {
            Some(_) => bundle::gather(&client, &diagnosis, &own, &config).await,
            None => Vec::new(),
        };
        Ok((diagnosis, contents))
    })?;
    // The archive first: where it cannot be written, that is the answer, and the only one.
    let listed = args.bundle.as_ref().map(|file| bundle::write(file, &contents)).transpose()?;
    if args.json {
        output::json(&diagnosis)?;
    } else {
        output::line(&text(&diagnosis, Paint::stdout(global.color)))?;
    }
    if let Some(listed) = listed {
        if args.json { output::note(&listed) } else { output::line(&listed)? }
    }
    Ok(match diagnosis.verdict {
        DoctorSeverity::Ok | DoctorSeverity::Note => ExitCode::Done,
        // The numbers 1 and 2 are this command's own.
        DoctorSeverity::Warning => ExitCode::Internal,
        DoctorSeverity::Error => ExitCode::Usage,
    })
}

async fn versions(client: &AdminClient) -> Versions {
    let daemon = client.get::<Status>(&["status"], &(), SLOW).await.ok().map(|status| status.version);
    Versions { daemon, ..machine::versions() }
}

/// A daemon that is not there is a finding; anything else is a failure of this command.
fn absent(error: CliError) -> Result<Absent, CliError> {
    match error {
        CliError::Unreachable { denied, .. } => Ok(Absent { why: error.to_string(), denied }),
        CliError::Gone { .. } => Ok(Absent { why: error.to_string(), denied: false }),
        other => Err(other),
    }
}

/// Without a daemon: with the configuration that it would have, or with what is wrong about that.
async fn alone(absent: Absent, config: &Result<Loaded, ConfigMistakes>, own: &mut Facts) -> Diagnosis {
    let (absent, unit) = (Some(absent), own.unit.take());
    match config {
        Ok(Loaded { config, .. }) => {
            *own = Facts { absent, unit, ..offline::facts(config).await };
            Diagnosis::of(own)
        }
        Err(mistakes) => {
            *own = Facts { at: own.at, absent, unit, firewall: machine::firewall(), ..Facts::default() };
            let wrong = DoctorFinding {
                id: "configuration-wrong".to_owned(),
                severity: DoctorSeverity::Error,
                seen: format!("The configuration is wrong: {mistakes}."),
                hint: "`matterbind check-config` says the same; correct it, and start the service".to_owned(),
            };
            Diagnosis::of(own).and(wrong)
        }
    }
}

/// How a severity is painted.
pub(super) fn tone(severity: DoctorSeverity) -> Tone {
    match severity {
        DoctorSeverity::Ok => Tone::Good,
        DoctorSeverity::Note => Tone::Quiet,
        DoctorSeverity::Warning => Tone::Warn,
        DoctorSeverity::Error => Tone::Bad,
    }
}

fn text(diagnosis: &Diagnosis, paint: Paint) -> String {
    let mut lines = Vec::new();
    for DoctorFinding { id, severity, seen, hint } in &diagnosis.findings {
        let word = format!("{:<8}", severity.as_str());
        lines.push(format!(
            "{} {seen} {}",
            paint.tone(tone(*severity), word),
            paint.tone(Tone::Quiet, format!("[{id}]"))
        ));
        if !hint.is_empty() {
            lines.push(format!("         {} {hint}", paint.tone(Tone::Strong, "do:")));
        }
    }
    let count = |severity| diagnosis.findings.iter().filter(|finding| finding.severity == severity).count();
    let (errors, warnings) = (count(DoctorSeverity::Error), count(DoctorSeverity::Warning));
    lines.push(match (errors, warnings) {
        (0, 0) => paint.tone(Tone::Good, "All is well."),
        _ => {
            let (errors, warnings) = (output::counted(errors, "error"), output::counted(warnings, "warning"));
            paint.tone(tone(diagnosis.verdict), format!("{errors}, {warnings}."))
        }
    });
    lines.join("\n")
}
