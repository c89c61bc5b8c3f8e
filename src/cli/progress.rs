//! What a person sees while an attempt runs: on a terminal one line for each step with its time, else plain lines.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::exit::CliError;
use super::output::{self, Colour, Paint, Tone, duration};
use crate::admin::wire::CommissionEvent;
use crate::bind::BindState;

/// The column in which durations begin.
const WIDTH: usize = 34;

#[derive(Debug)]
pub(crate) enum ProgressLine {
    /// Says nothing: `--json`.
    Silent,
    /// One JSON object for each event: `--events`.
    Events,
    /// A spinner with finished steps above it.
    Terminal {
        /// The line that moves.
        bar: ProgressBar,
        paint: Paint,
    },
    /// A line for each finished step.
    Plain,
}

impl ProgressLine {
    /// For a person: as good as stderr can show it.
    pub(crate) fn for_person(colour: Colour) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::Plain;
        }
        let bar = ProgressBar::new_spinner();
        let style = ProgressStyle::with_template("{spinner} {msg:34} {elapsed:.dim}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        bar.enable_steady_tick(Duration::from_millis(100));
        Self::Terminal { bar, paint: Paint::stderr(colour) }
    }

    pub(crate) fn show(&self, event: &CommissionEvent) -> Result<(), CliError> {
        match self {
            Self::Silent => Ok(()),
            Self::Events => output::json_line(event),
            Self::Terminal { bar, paint } => {
                show_on_terminal(bar, *paint, event);
                Ok(())
            }
            Self::Plain => match finished(event) {
                Some((_, what, how)) => output::line(format!("{what:WIDTH$} {how}").trim_end()),
                None => Ok(()),
            },
        }
    }

    /// Nothing moves any more; `failed_in` is the step that did not succeed.
    pub(crate) fn end(&self, failed_in: Option<&str>) {
        if let Self::Terminal { bar, paint } = self {
            if let Some(label) = failed_in {
                bar.println(format!("{} {label}", paint.tone(Tone::Bad, "✘")));
            }
            bar.finish_and_clear();
        }
    }
}

fn show_on_terminal(bar: &ProgressBar, paint: Paint, event: &CommissionEvent) {
    match event {
        CommissionEvent::Accepted { .. } => bar.set_message("waiting for its turn"),
        CommissionEvent::StepStarted { step } => {
            bar.set_message(step.label());
            bar.reset_elapsed();
        }
        _ => {}
    }
    if let Some((tone, what, how)) = finished(event) {
        let mark = match tone {
            Tone::Good => "✔",
            Tone::Bad => "✘",
            _ => "•",
        };
        bar.println(format!("{} {what:WIDTH$} {}", paint.tone(tone, mark), paint.tone(Tone::Quiet, how)));
        bar.set_message("");
    }
}

/// The line for what is over: tone, what, how.
fn finished(event: &CommissionEvent) -> Option<(Tone, String, String)> {
    match event {
        CommissionEvent::Accepted { .. } | CommissionEvent::StepStarted { .. } => None,
        CommissionEvent::StepFinished { step, duration_ms } => {
            Some((Tone::Good, step.label().to_owned(), duration(*duration_ms)))
        }
        CommissionEvent::Note { message } => Some((Tone::Warn, message.clone(), String::new())),
        CommissionEvent::Waiting { message, hint, .. } => {
            Some((Tone::Warn, format!("{message}: {hint}"), String::new()))
        }
        CommissionEvent::Bind { bind } => {
            let (tone, word) = match bind.state {
                BindState::Bound => (Tone::Good, "bound"),
                BindState::Pending => (Tone::Warn, "not yet"),
                BindState::Rejected => (Tone::Bad, "refused"),
                BindState::NotEligible => (Tone::Quiet, "not eligible"),
                BindState::Disabled => (Tone::Quiet, "off"),
            };
            let message = if bind.message.is_empty() { String::new() } else { format!(": {}", bind.message) };
            Some((tone, "binding in the cloud".to_owned(), format!("{word}{message}")))
        }
    }
}
