//! `matterbind daemon` and `matterbind check-config`

use std::path::PathBuf;

use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::Global;
use super::exit::{CliError, ExitCode};
use super::output;
use crate::app;
use crate::config::load::{self, ConfigMistakes, Loaded, Mistake, Secrets, Sources};
use crate::keystore::LoadError;
use crate::plain;
use crate::store::{FabricMismatch, OpenError};
use crate::systemd;
use crate::telemetry;

/// The admin API and the outbox wait far more than they compute; the Matter stack and the store have their own threads. A second
/// worker would be woken by the first for nothing, at each turn of an idle hub.
const WORKERS: usize = 1;

const ORDER: &str = "\
Order: defaults < file < MATTERBIND_* environment < flags.
  MATTERBIND_COMMISSIONING__DEADLINE=60s matterbind check-config";

/// `daemon`
#[derive(Debug, clap::Args)]
#[command(after_help = ORDER)]
pub(crate) struct DaemonArgs {
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
pub(crate) struct CheckConfigArgs {
    /// The configuration [default: $MATTERBIND_CONFIG, else /etc/matterbind/matterbind.toml if it exists]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// The configuration as file, environment and flags make it.
///
/// # Errors
/// Every mistake.
pub(crate) fn load_config(
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
    let (file, state_dir) = (args.config, args.state_dir);
    let config = load_config(global, file.clone(), state_dir.clone(), Secrets::Read)?.config;
    telemetry::init(&config.log, global.verbose).map_err(anyhow::Error::new)?;
    let (verbose, again) = (global.verbose, global.clone());
    let reload = move || match load_config(&again, file.clone(), state_dir.clone(), Secrets::NotUsed) {
        Ok(Loaded { config, .. }) => match telemetry::reload(&config.log, verbose) {
            Ok(()) => tracing::info!(level = config.log.level, "reloaded: log.level; anything else takes a restart"),
            Err(error) => tracing::error!(%error, "the log level stays as it was"),
        },
        Err(mistakes) => tracing::error!(%mistakes, "nothing was reloaded"),
    };
    // Nobody but root may look into the memory, which holds the fabric's keys; `LimitCORE=0` alone stops core files only.
    if let Err(error) = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "other processes of this user may read the daemon's memory");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build();
    let runtime = runtime.map_err(|source| CliError::Io { what: "starting the runtime".to_owned(), source })?;
    let ended = runtime.block_on(async {
        let (stop, hurry) = (CancellationToken::new(), CancellationToken::new());
        tokio::spawn(Signals::listen()?.follow(stop.clone(), hurry.clone(), reload));
        app::run(config, stop, hurry).await
    });
    let Err(error) = ended else { return Ok(ExitCode::Done) };
    // One line is enough: where stderr is the journal, the daemon's log has said it there.
    let is_said = systemd::stderr_is_journal() && error.is::<app::StartFailed>();
    let failed = started_wrong(error);
    if is_said { Ok(failed.exit_code()) } else { Err(failed) }
}

/// What no restart mends ends with the code that the unit does not restart after: seal and keys, a state that is not whole.
fn started_wrong(error: anyhow::Error) -> CliError {
    let lasting = error.chain().any(|cause| {
        cause.is::<LoadError>()
            || cause.is::<FabricMismatch>()
            || matches!(
                cause.downcast_ref(),
                Some(OpenError::Missing { .. } | OpenError::Damaged { .. } | OpenError::NewerVersion { .. })
            )
    });
    if lasting { CliError::Usage(plain::with_causes(error.as_ref())) } else { CliError::Other(error) }
}

/// Everything that a signal may ask of the daemon. None ends it without a drain but those that no process can catch.
struct Signals {
    stop: [Signal; 2],
    reload: Signal,
    /// They mean nothing here, and would end a process that does not say so.
    ignored: [Signal; 3],
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            stop: [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?],
            reload: signal(SignalKind::hangup())?,
            ignored: [
                signal(SignalKind::user_defined1())?,
                signal(SignalKind::user_defined2())?,
                signal(SignalKind::alarm())?,
            ],
        })
    }

    /// The first TERM or INT stops, the second hurries; HUP reloads.
    async fn follow(mut self, stop: CancellationToken, hurry: CancellationToken, reload: impl Fn() + Send) {
        let [terminate, interrupt] = &mut self.stop;
        let [one, two, alarm] = &mut self.ignored;
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = self.reload.recv() => {
                    reload();
                    continue;
                }
                _ = one.recv() => continue,
                _ = two.recv() => continue,
                _ = alarm.recv() => continue,
            }
            let again = stop.is_cancelled();
            if again { hurry.cancel() } else { stop.cancel() }
        }
    }
}

/// A token that SIGTERM or SIGINT cancels.
#[cfg(feature = "sim")]
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
    let loaded = load_config(global, args.config, None, Secrets::Judge);
    if args.json {
        return check_config_json(loaded);
    }
    let Loaded { config, notes } = loaded?;
    for note in notes {
        output::note(&format!("note: {note}"));
    }
    output::line(load::effective(&config).trim_end())?;
    Ok(ExitCode::Done)
}

fn check_config_json(loaded: Result<Loaded, ConfigMistakes>) -> Result<ExitCode, CliError> {
    let listed = |mistakes: &[Mistake]| {
        let one =
            |it: &Mistake| json!({ "key": it.key, "origin": it.origin, "problem": it.problem, "instead": it.instead });
        mistakes.iter().map(one).collect::<Vec<_>>()
    };
    match loaded {
        Ok(Loaded { config, notes }) => {
            output::json(&json!({ "config": config, "notes": listed(&notes), "mistakes": [] }))?;
            Ok(ExitCode::Done)
        }
        Err(ConfigMistakes(mistakes)) => {
            output::json(&json!({ "config": null, "notes": [], "mistakes": listed(&mistakes) }))?;
            Ok(ExitCode::Usage)
        }
    }
}
