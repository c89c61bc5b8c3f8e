//! Which of Prometheus' two texts a reader gets: OpenMetrics where it asks for it, and otherwise the older text that every
//! tool reads. Series have the same names in both. What is counted is in `metrics`.

use std::collections::BTreeMap;

/// A text format of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposition {
    /// What Prometheus itself asks for.
    OpenMetrics,
    /// What agents and `promtool check metrics` read.
    Text,
}

impl Exposition {
    /// What an `Accept` header asks for.
    pub fn asked_by(accept: &str) -> Self {
        let asks = |range: &str| {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            kind.eq_ignore_ascii_case("application/openmetrics-text")
                && !parts.any(|part| matches!(part, "q=0" | "q=0.0"))
        };
        if accept.split(',').any(asks) { Self::OpenMetrics } else { Self::Text }
    }

    /// As the answer to a scrape names it.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// OpenMetrics text in this format.
    pub(super) fn of(self, open_metrics: String) -> String {
        match self {
            Self::OpenMetrics => open_metrics,
            Self::Text => text(&open_metrics),
        }
    }
}

/// In the older text a counter is called what its series is called, an info is a gauge, and nothing marks the end.
fn text(open_metrics: &str) -> String {
    let described = |line: &str, what: &str| -> Option<(String, String)> {
        let (name, rest) = line.strip_prefix("# ")?.strip_prefix(what)?.strip_prefix(' ')?.split_once(' ')?;
        Some((name.to_owned(), rest.to_owned()))
    };
    let kinds: BTreeMap<String, String> = open_metrics.lines().filter_map(|line| described(line, "TYPE")).collect();
    let series = |name: &str| match kinds.get(name).map(String::as_str) {
        Some("counter") => format!("{name}_total"),
        Some("info") => format!("{name}_info"),
        _ => name.to_owned(),
    };
    let mut text = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines() {
        if let Some((name, help)) = described(line, "HELP") {
            text += &format!("# HELP {} {help}\n", series(&name));
        } else if let Some((name, kind)) = described(line, "TYPE") {
            let kind = if kind == "info" { "gauge" } else { &kind };
            text += &format!("# TYPE {} {kind}\n", series(&name));
        } else if !line.starts_with('#') {
            text += line;
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::telemetry::metrics::moved;

    #[test]
    fn prometheus_gets_open_metrics_and_everybody_else_the_older_text() {
        let of_prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
        assert_eq!(Exposition::asked_by(of_prometheus), Exposition::OpenMetrics);
        for other in ["", "*/*", "text/plain", "text/html, */*;q=0.8", "application/openmetrics-text;q=0, text/plain"] {
            assert_eq!(Exposition::asked_by(other), Exposition::Text, "{other}");
        }
    }

    #[test]
    fn both_texts_have_the_same_series() {
        let series = |format| -> Vec<String> {
            let text: String = moved().encode(format);
            text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
        };
        assert_eq!(series(Exposition::Text), series(Exposition::OpenMetrics));
        let text = moved().encode(Exposition::Text);
        for line in [
            "# TYPE matterbind_build_info gauge\n",
            "# TYPE matterbind_login_failures_total counter\n",
            "# HELP matterbind_login_failures_total Log-ins",
            "# TYPE matterbind_commissioning_seconds histogram\n",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("# EOF"), "{text}");
    }

    /// `promtool check metrics` has nothing to say against any metric. It is Debian's package `prometheus`: the test says that it
    /// is skipped where there is none, and fails if `PROMTOOL` names one that does not run.
    #[test]
    fn promtool_has_nothing_to_say() {
        let named = std::env::var_os("PROMTOOL");
        let program = named.clone().unwrap_or_else(|| "promtool".into());
        let started = Command::new(program)
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut promtool = match started {
            Ok(child) => child,
            Err(error) if named.is_none() => {
                eprintln!("skipped: there is no promtool here ({error})");
                return;
            }
            Err(error) => panic!("PROMTOOL does not run: {error}"),
        };
        let text = moved().encode(Exposition::Text);
        promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let ended = promtool.wait_with_output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
        assert!(ended.status.success() && said.trim().is_empty(), "{}: {said}\n{text}", ended.status);
    }
}
