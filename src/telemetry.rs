//! Diagnostics: who sees which record, where, in which form. `metrics` counts, `exposition` is how it is told.
//!
//! Records of this process only; what an operator must be able to look up later is the admin log (`journal`).
//! rs-matter's records come through the `log` bridge that `tracing-subscriber` installs. They are held to warnings: at
//! debug and below that stack prints message payloads, and with them keys. Lines that a stranger on the network can cause
//! are limited (`limiter`).

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tracing::level_filters::LevelFilter;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::filter::{FilterExt as _, Targets};
use tracing_subscriber::layer::{Context, Filter, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

use crate::config::{LogConfig, LogFormat};
use crate::plain;

use self::journald::Journald;
use self::limiter::{Limiter, Place};

pub(crate) mod exposition;
mod journald;
mod limiter;
pub(crate) mod metrics;

/// Libraries that print what they send or receive, or what we say ourselves, and the most that they may print whatever the filter
/// says.
const CAPPED: [(&str, LevelFilter); 9] = [
    ("rs_matter", LevelFilter::WARN),
    ("rustls", LevelFilter::INFO),
    ("hyper", LevelFilter::INFO),
    ("hyper_util", LevelFilter::INFO),
    ("h2", LevelFilter::INFO),
    ("reqwest", LevelFilter::INFO),
    ("mdns_sd", LevelFilter::INFO),
    ("age", LevelFilter::INFO),
    // The store says itself what was brought up to date.
    ("rusqlite_migration", LevelFilter::WARN),
];

/// Whose lines others can cause: what reads from the network.
const LIMITED: [&str; 4] = ["rs_matter", "mdns_sd", "matterbind::matter", "matterbind::discovery"];
/// What rs-matter calls errors although it is only a device that does not answer, or answers no. The hub tells that itself,
/// with the node's name; these are for whoever looks into the stack, with `-v` or by name in the filter.
const OF_PEERS: [&str; 3] = ["rs_matter::transport", "rs_matter::sc", "rs_matter::respond"];
/// How often it is told what was held back.
const TELL: Duration = Duration::from_secs(10);

/// Replaces the filter of the process's subscriber.
type Replace = Box<dyn Fn(Targets) -> bool + Send + Sync>;
static FILTER: OnceLock<Replace> = OnceLock::new();

/// Diagnostics cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TelemetryError {
    /// The filter does not parse.
    #[error("log.level: {0}")]
    Filter(tracing_subscriber::filter::ParseError),
    /// journald was asked for and is not there.
    #[error("log.format = \"journald\", but journald cannot be reached")]
    Journald(#[source] io::Error),
    /// Diagnostics were not set up here.
    #[error("there is no filter to replace")]
    NoFilter,
    /// There is a subscriber already.
    #[error("diagnostics are set up already")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Sets diagnostics up for this process. `verbose` counts the `-v`: one is debug, two is trace, for our own code.
///
/// Output goes to stderr or to journald, never to stdout.
///
/// # Errors
/// The filter is wrong, or journald was asked for by name and is not there.
pub(crate) fn init(config: &LogConfig, verbose: u8) -> Result<(), TelemetryError> {
    let filter: Targets = directives(&config.level, verbose).parse().map_err(TelemetryError::Filter)?;
    let layer = output(config.format)?;
    let caps = Caps::new(verbose > 0 || config.level.contains("rs_matter"));
    let limiter = Arc::clone(&caps.limiter);
    let (filter, handle) = reload::Layer::new(filter);
    tracing_subscriber::registry().with(layer.with_filter(filter.and(caps))).try_init()?;
    // There is one subscriber, and this is its filter.
    let _ = FILTER.set(Box::new(move |filter| handle.reload(filter).is_ok()));
    // Without this thread only the numbers are missing.
    let _ = std::thread::Builder::new().name("log-repeats".to_owned()).spawn(move || tell_repeats(&limiter));
    Ok(())
}

/// Puts another level in force.
///
/// # Errors
/// The filter is wrong; the earlier one stays.
pub(crate) fn reload(config: &LogConfig, verbose: u8) -> Result<(), TelemetryError> {
    let filter: Targets = directives(&config.level, verbose).parse().map_err(TelemetryError::Filter)?;
    match FILTER.get() {
        Some(replace) if replace(filter) => {
            // The bridge was told the most that anybody prints when it was set up. Both crates name their levels alike.
            if let Ok(most) = LevelFilter::current().to_string().parse() {
                tracing::log::set_max_level(most);
            }
            Ok(())
        }
        _ => Err(TelemetryError::NoFilter),
    }
}

fn tell_repeats(limiter: &Mutex<Limiter>) {
    loop {
        std::thread::sleep(TELL);
        // The lock is free again before anything is printed: printing asks for it.
        let repeats = limiter.lock().unwrap_or_else(PoisonError::into_inner).take_repeats();
        for ((module, line), times) in repeats {
            tracing::warn!("a line of {module} (line {line} there) was repeated {times} times");
        }
    }
}

fn directives(level: &str, verbose: u8) -> String {
    match verbose {
        0 => level.to_owned(),
        1 => format!("{level},matterbind=debug"),
        _ => format!("{level},matterbind=trace"),
    }
}

fn output(format: LogFormat) -> Result<Box<dyn Layer<Registry> + Send + Sync>, TelemetryError> {
    Ok(match format {
        LogFormat::Journald => Journald::connect().map_err(TelemetryError::Journald)?.boxed(),
        LogFormat::Auto if crate::systemd::stderr_is_journal() => match Journald::connect() {
            Ok(layer) => layer.boxed(),
            Err(_) => text().boxed(),
        },
        LogFormat::Auto if io::stderr().is_terminal() => text().boxed(),
        LogFormat::Text => text().boxed(),
        LogFormat::Auto | LogFormat::Json => {
            tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(|| PlainStderr).boxed()
        }
    })
}

fn text<S: Subscriber + for<'a> LookupSpan<'a>>() -> impl Layer<S> + Send + Sync {
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    tracing_subscriber::fmt::layer().with_ansi(colour).with_target(false).with_writer(|| PlainStderr)
}

/// stderr, where nothing but our own colours reaches a terminal: a line may name what a stranger sent.
#[derive(Debug)]
struct PlainStderr;

impl Write for PlainStderr {
    /// Takes a whole line: the formatter writes none in parts.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        io::stderr().lock().write_all(plain::for_terminal(&String::from_utf8_lossy(line)).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}

/// Holds libraries to their cap, whatever the configured filter says, and lines that others cause to the limit.
#[derive(Debug)]
struct Caps {
    limiter: Arc<Mutex<Limiter>>,
    /// Whether `OF_PEERS` is shown.
    shows_peers: bool,
}

impl Caps {
    fn new(shows_peers: bool) -> Self {
        Self { limiter: Arc::default(), shows_peers }
    }

    fn admits(&self, place: &Place, now: Instant) -> bool {
        if !self.shows_peers && is_of(&OF_PEERS, &place.0) {
            return false;
        }
        !is_of(&LIMITED, &place.0) || self.limiter.lock().unwrap_or_else(PoisonError::into_inner).admits(place, now)
    }

    fn cap(target: &str) -> Option<LevelFilter> {
        let crate_name = target.split("::").next().unwrap_or(target);
        CAPPED.iter().find(|(name, _)| *name == crate_name).map(|(_, cap)| *cap)
    }

    fn allows(target: &str, level: tracing::Level) -> bool {
        Self::cap(target).is_none_or(|cap| level <= cap)
    }
}

impl<S> Filter<S> for Caps {
    /// It has no say in this, and must say so: without a hint every record of every library is made and shown to it.
    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::TRACE)
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        // A bridged `log` record has the target `log` here and its own in `event_enabled`.
        Self::allows(metadata.target(), *metadata.level())
    }

    fn event_enabled(&self, event: &tracing::Event<'_>, _: &Context<'_, S>) -> bool {
        let metadata = event.metadata();
        match Bridged::place(event) {
            Some(place) => Self::allows(&place.0, *metadata.level()) && self.admits(&place, Instant::now()),
            None if is_of(&LIMITED, metadata.target()) => {
                self.admits(&(metadata.target().to_owned(), metadata.line().unwrap_or_default()), Instant::now())
            }
            None => true,
        }
    }
}

/// Whether `target` is one of these modules or below one.
fn is_of(modules: &[&str], target: &str) -> bool {
    let below =
        |module: &str| target.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    modules.iter().any(|module| below(module))
}

/// Where a bridged `log` record was made: the bridge passes it on as fields.
#[derive(Default)]
struct Bridged {
    target: Option<String>,
    line: u32,
}

impl Bridged {
    fn place(event: &tracing::Event<'_>) -> Option<Place> {
        if event.metadata().target() != "log" {
            return None;
        }
        let mut visitor = Self::default();
        event.record(&mut visitor);
        Some((visitor.target?, visitor.line))
    }
}

impl tracing::field::Visit for Bridged {
    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        if field.name() == "log.target" {
            self.target = Some(value.to_owned());
        }
    }

    fn record_u64(&mut self, field: &tracing::field::Field, value: u64) {
        if field.name() == "log.line" {
            self.line = u32::try_from(value).unwrap_or_default();
        }
    }

    fn record_debug(&mut self, _: &tracing::field::Field, _: &dyn std::fmt::Debug) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_matter_stack_is_held_to_warnings() {
        assert!(Caps::allows("rs_matter::transport", tracing::Level::WARN));
        assert!(!Caps::allows("rs_matter::transport", tracing::Level::INFO));
        assert!(!Caps::allows("rs_matter", tracing::Level::TRACE));
        assert!(Caps::allows("matterbind::matter", tracing::Level::TRACE));
        assert!(Caps::allows("rs_matterless", tracing::Level::TRACE));
    }

    #[test]
    fn what_a_device_does_not_answer_is_no_error_and_a_flood_is_a_few_lines() {
        let now = Instant::now();
        let at = |target: &str| (target.to_owned(), 7);
        let caps = Caps::new(false);
        assert!(!caps.admits(&at("rs_matter::transport::mrp"), now));
        assert!(caps.admits(&at("rs_matter::fabric"), now));
        let printed = |target: &str| (0..1000).filter(|_| caps.admits(&at(target), now)).count();
        assert_eq!(printed("matterbind::matter::socket"), 3);
        assert_eq!(printed("matterbind::store"), 1000);
        let verbose = Caps::new(true);
        assert_eq!((0..1000).filter(|_| verbose.admits(&at("rs_matter::transport::mrp"), now)).count(), 3);
    }

    #[test]
    fn the_filter_holds_a_storm_back_and_nothing_else() {
        #[derive(Clone, Default)]
        struct Written(Arc<Mutex<Vec<u8>>>);
        impl io::Write for Written {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().extend(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let written = Written::default();
        let writer = written.clone();
        let layer = tracing_subscriber::fmt::layer().with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(layer.with_filter(Caps::new(true)));
        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..1000 {
                tracing::warn!(target: "rs_matter::transport", "a hostile packet");
                tracing::info!("our own");
            }
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches("a hostile packet").count(), 3);
        assert_eq!(text.matches("our own").count(), 1000);
    }

    #[test]
    fn what_nobody_prints_is_not_made() {
        let most = |level: &str| {
            let (filter, _handle) = reload::Layer::new(level.parse::<Targets>().unwrap());
            let layer = tracing_subscriber::fmt::layer().with_writer(io::sink);
            tracing_subscriber::registry().with(layer.with_filter(filter.and(Caps::new(false)))).max_level_hint()
        };
        assert_eq!(most("warn,matterbind::store=info"), Some(LevelFilter::INFO));
        assert_eq!(most("debug"), Some(LevelFilter::DEBUG));
    }

    #[test]
    fn verbosity_is_for_our_own_code() {
        assert_eq!(directives("info", 0), "info");
        assert_eq!(directives("info", 2), "info,matterbind=trace");
        directives("warn,matterbind::store=debug", 1).parse::<Targets>().unwrap();
    }
}
