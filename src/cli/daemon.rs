//! `matterbind daemon` and `matterbind check-config`

use std::path::PathBuf;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::Global;
use super::exit::{CliError, ExitCode};
use super::output;
use crate::app;
use crate::config::load::{self, ConfigMistakes, Loaded, Secrets, Sources};
use crate::telemetry;

/// The admin API and the outbox wait far more than they compute; the Matter stack and the store have their own threads.
const WORKERS: usize = 2;

const ORDER: &str = "\
Order: defaults < file < MATTERBIND_* environment < flags.
  MATTERBIND_COMMISSIONING__DEADLINE=60s matterbind check-config";

/// `daemon`
#[derive(Debug, clap::Args)]
#[command(after_help = ORDER)]
pub struct DaemonArgs {
    /// The configuration [default: $MATTERBIND_CONFIG, else /etc/matterbind/matterbind.toml if it exists]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Keep the state here
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

/// `check-config`
#[derive(Debug, clap::Args)]
#[command(after_help = ORDER)]
pub struct CheckConfigArgs {
    /// The configuration [default: $MATTERBIND_CONFIG, else /etc/matterbind/matterbind.toml if it exists]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// The configuration as file, environment and flags make it.
///
/// # Errors
/// Every mistake.
pub fn load_config(
    global: &Global,
    file: Option<PathBuf>,
    state_dir: Option<PathBuf>,
    secrets: Secrets,
) -> Result<Loaded, ConfigMistakes> {
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    let mut sources = Sources::of_process(file);
    if let Some(socket) = &global.socket {
        sources = sources.with_flag("socket", text(socket.clone()), "--socket");
    }
    if let Some(state_dir) = state_dir {
        let whole = std::path::absolute(&state_dir).unwrap_or(state_dir);
        sources = sources.with_flag("state_dir", text(whole), "--state-dir");
    }
    load::load(&sources, secrets)
}

pub(super) fn run(global: &Global, args: DaemonArgs) -> Result<ExitCode, CliError> {
    let config = load_config(global, args.config, args.state_dir, Secrets::Read)?.config;
    telemetry::init(&config.log, global.verbose).map_err(anyhow::Error::new)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build();
    let runtime = runtime.map_err(|source| CliError::Io { what: "starting the runtime".to_owned(), source })?;
    runtime.block_on(async {
        let stop = stop_on_signal()?;
        app::run(config, stop).await
    })?;
    Ok(ExitCode::Done)
}

/// A token that SIGTERM or SIGINT cancels.
pub(super) fn stop_on_signal() -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let cancelled = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        cancelled.cancel();
    });
    Ok(stop)
}

pub(super) fn check_config(global: &Global, args: CheckConfigArgs) -> Result<ExitCode, CliError> {
    let Loaded { config, notes } = load_config(global, args.config, None, Secrets::Judge)?;
    for note in notes {
        eprintln!("note: {note}");
    }
    output::line(load::effective(&config).trim_end())?;
    Ok(ExitCode::Done)
}
