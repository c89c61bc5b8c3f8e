//! Diagnostics: who sees which record, where, in which form. `metrics` counts.
//!
//! Records of this process only; what an operator must be able to look up later is the admin log (`journal`).
//! rs-matter's records come through the `log` bridge that `tracing-subscriber` installs. They are held to warnings: at
//! debug and below that stack prints message payloads, and with them keys.

use std::io::{self, IsTerminal};
use std::sync::OnceLock;

use tracing::level_filters::LevelFilter;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use crate::config::{LogConfig, LogFormat};

pub mod metrics;

/// Libraries that print what they send or receive, and the most that they may print whatever the filter says.
const CAPPED: [(&str, LevelFilter); 8] = [
    ("rs_matter", LevelFilter::WARN),
    ("rustls", LevelFilter::INFO),
    ("hyper", LevelFilter::INFO),
    ("hyper_util", LevelFilter::INFO),
    ("h2", LevelFilter::INFO),
    ("reqwest", LevelFilter::INFO),
    ("mdns_sd", LevelFilter::INFO),
    ("age", LevelFilter::INFO),
];

/// Replaces the filter of the process's subscriber.
type Replace = Box<dyn Fn(EnvFilter) -> bool + Send + Sync>;
static FILTER: OnceLock<Replace> = OnceLock::new();

/// Diagnostics cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter does not parse.
    #[error("log.level: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// journald was asked for and is not there.
    #[error("log.format = \"journald\", but journald cannot be reached: {0}")]
    Journald(io::Error),
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
pub fn init(config: &LogConfig, verbose: u8) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(directives(&config.level, verbose))?;
    let layer = output(config.format)?;
    let (filter, handle) = reload::Layer::new(filter);
    tracing_subscriber::registry().with(layer.with_filter(filter).with_filter(Caps)).try_init()?;
    // There is one subscriber, and this is its filter.
    let _ = FILTER.set(Box::new(move |filter| handle.reload(filter).is_ok()));
    Ok(())
}

/// Puts another level in force.
///
/// # Errors
/// The filter is wrong; the earlier one stays.
pub fn reload(config: &LogConfig, verbose: u8) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(directives(&config.level, verbose))?;
    match FILTER.get() {
        Some(replace) if replace(filter) => Ok(()),
        _ => Err(TelemetryError::NoFilter),
    }
}

/// The filter's text.
fn directives(level: &str, verbose: u8) -> String {
    match verbose {
        0 => level.to_owned(),
        1 => format!("{level},matterbind=debug"),
        _ => format!("{level},matterbind=trace"),
    }
}

fn output(format: LogFormat) -> Result<Box<dyn Layer<Registry> + Send + Sync>, TelemetryError> {
    Ok(match format {
        LogFormat::Journald => tracing_journald::layer().map_err(TelemetryError::Journald)?.boxed(),
        LogFormat::Auto if crate::systemd::stderr_is_journal() => match tracing_journald::layer() {
            Ok(layer) => layer.boxed(),
            Err(_) => text().boxed(),
        },
        LogFormat::Auto if io::stderr().is_terminal() => text().boxed(),
        LogFormat::Text => text().boxed(),
        LogFormat::Auto | LogFormat::Json => {
            tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(io::stderr).boxed()
        }
    })
}

fn text<S: Subscriber + for<'a> LookupSpan<'a>>() -> impl Layer<S> + Send + Sync {
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    tracing_subscriber::fmt::layer().with_ansi(colour).with_target(false).with_writer(io::stderr)
}

/// Holds libraries to their cap, whatever the configured filter says.
#[derive(Debug, Clone, Copy)]
pub struct Caps;

impl Caps {
    fn cap(target: &str) -> Option<LevelFilter> {
        let crate_name = target.split("::").next().unwrap_or(target);
        CAPPED.iter().find(|(name, _)| *name == crate_name).map(|(_, cap)| *cap)
    }

    fn allows(target: &str, level: tracing::Level) -> bool {
        Self::cap(target).is_none_or(|cap| level <= cap)
    }
}

impl<S> Filter<S> for Caps {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        // A bridged `log` record has the target `log` here and its own in `event_enabled`.
        Self::allows(metadata.target(), *metadata.level())
    }

    fn event_enabled(&self, event: &tracing::Event<'_>, _: &Context<'_, S>) -> bool {
        match BridgedTarget::of(event) {
            Some(target) => Self::allows(&target, *event.metadata().level()),
            None => true,
        }
    }
}

/// The target of a bridged `log` record: the bridge passes it on as a field.
#[derive(Default)]
struct BridgedTarget(Option<String>);

impl BridgedTarget {
    fn of(event: &tracing::Event<'_>) -> Option<String> {
        if event.metadata().target() != "log" {
            return None;
        }
        let mut visitor = Self::default();
        event.record(&mut visitor);
        visitor.0
    }
}

impl tracing::field::Visit for BridgedTarget {
    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        if field.name() == "log.target" {
            self.0 = Some(value.to_owned());
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
    fn verbosity_is_for_our_own_code() {
        assert_eq!(directives("info", 0), "info");
        assert_eq!(directives("info", 2), "info,matterbind=trace");
        EnvFilter::try_new(directives("warn,matterbind::store=debug", 1)).unwrap();
    }
}
