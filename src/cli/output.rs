//! How results reach a person or a script: JSON, tables, colours.

use std::io::{self, IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::exit::CliError;
use crate::plain;

/// A table is not squeezed into less.
const MIN_WIDTH: u16 = 60;
/// What stands for the rest of a cell.
const REST: &str = "…";

/// `--color`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Colour {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    Always,
    Never,
}

impl Colour {
    fn on(self, stream: &impl IsTerminal) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        }
    }
}

/// Good, middling, bad, beside the point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// As it should be.
    Good,
    /// To be looked at.
    Warn,
    Bad,
    Quiet,
    /// Worth the first look.
    Strong,
    /// Black on white, whatever the terminal's colours are.
    Paper,
}

/// Paints for one stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paint(bool);

impl Paint {
    pub(crate) fn stdout(colour: Colour) -> Self {
        Self(colour.on(&io::stdout()))
    }

    pub(crate) fn stderr(colour: Colour) -> Self {
        Self(colour.on(&io::stderr()))
    }

    #[cfg(test)]
    pub(crate) fn plain() -> Self {
        Self(false)
    }

    /// Whether colours are used.
    pub(crate) fn is_on(self) -> bool {
        self.0
    }

    /// The text in its tone.
    pub(crate) fn tone(self, tone: Tone, text: impl std::fmt::Display) -> String {
        if !self.0 {
            return text.to_string();
        }
        let code = match tone {
            Tone::Good => "32",
            Tone::Warn => "33",
            Tone::Bad => "31",
            Tone::Quiet => "2",
            Tone::Strong => "1",
            Tone::Paper => "30;107",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// Prints one document: on a terminal over several lines, else on one.
pub(crate) fn json(document: &impl Serialize) -> Result<(), CliError> {
    let text = if io::stdout().is_terminal() {
        serde_json::to_string_pretty(document)
    } else {
        serde_json::to_string(document)
    };
    line(&text.map_err(anyhow::Error::new)?)
}

/// Prints one document on one line, for NDJSON.
pub(crate) fn json_line(document: &impl Serialize) -> Result<(), CliError> {
    line(&serde_json::to_string(document).map_err(anyhow::Error::new)?)
}

/// Prints a line, and flushes: somebody may be reading as we go. Only our own colours reach a terminal.
pub(crate) fn line(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    let written = writeln!(out, "{}", plain::for_terminal(text)).and_then(|()| out.flush());
    written.map_err(|source| CliError::Io { what: "stdout".to_owned(), source })
}

/// Tells a person something on stderr. Where that is closed there is nobody to tell.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", plain::for_terminal(text));
}

/// A table with a head and no lines that would get in the way of `cut` and `awk`.
pub(crate) fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    // Cells are cut for people; and some terminals say that they have no columns at all.
    if io::stdout().is_terminal() && table.width().is_some_and(|width| width >= MIN_WIDTH) {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    table.set_truncation_indicator(REST);
    table.set_header(head.iter().map(|word| word.to_uppercase()).collect::<Vec<_>>());
    if let Some(first) = table.column_mut(0) {
        first.set_padding((0, 1));
    }
    table
}

/// The table as text without blanks at line ends. Where it has to fit a terminal, each row has one line, or as many as its cells
/// say themselves, and what has no room is cut.
pub(crate) fn table_text(table: &Table) -> String {
    let mut table = table.clone();
    for row in table.row_iter_mut() {
        let own = row.cell_iter().map(|cell| cell.content().lines().count()).max().unwrap_or(1).max(1);
        row.max_height(own);
    }
    table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// A time as the clock on the wall shows it.
pub(crate) fn local(at: Timestamp) -> String {
    at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// `1 device`, `2 devices`.
pub(crate) fn counted(count: usize, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

/// `-` where there is nothing.
pub(crate) fn or_dash(text: Option<impl ToString>) -> String {
    text.map(|text| text.to_string()).filter(|text| !text.is_empty()).unwrap_or_else(|| "-".to_owned())
}

/// How long ago something was: `12 s ago`, `3 min ago`, `5 h ago`, `9 days ago`. What lies in the future was just now.
pub(crate) fn ago(at: Timestamp, now: Timestamp) -> String {
    match now.duration_since(at).as_secs().max(0) {
        seconds @ 0..100 => format!("{seconds} s ago"),
        seconds @ 100..6000 => format!("{} min ago", seconds / 60),
        seconds @ 6000..180_000 => format!("{} h ago", seconds / 3600),
        seconds => format!("{} days ago", seconds / 86_400),
    }
}

/// `850 ms`, `1.2 s`, `75 s`.
pub(crate) fn duration(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..20_000 => format!("{:.1} s", ms as f64 / 1000.0),
        _ => format!("{} s", ms / 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use unicode_width::UnicodeWidthStr;

    #[test]
    fn a_table_fits_its_terminal_whatever_the_names_are() {
        let mut table = table(&["node", "name", "product", "state", "cloud", "seen"]);
        for name in ["玄関ホールの読書灯と廊下の足元灯とその隣の部屋の天井灯", &"n".repeat(64), "Hall lamp"]
        {
            let product = "A maker with a long name and a Product With A Long Name Too";
            let seen = "12 min ago";
            table.add_row([
                "2147483647",
                name,
                product,
                "operational, sleepy: listens every 15s",
                "bound, confirmed 3 h ago",
                seen,
            ]);
        }
        let whole = table_text(&table);
        assert!(whole.contains(&"n".repeat(64)) && !whole.contains(REST), "a script gets everything:\n{whole}");
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(80);
        let text = table_text(&table);
        assert_eq!(text.lines().count(), 4, "{text}");
        for line in text.lines() {
            assert!(line.width() <= 80, "{} columns:\n{text}", line.width());
        }
        assert!(text.contains(REST) && text.contains("2147483647"), "{text}");
        // Lines that a cell has itself are kept.
        table.add_row(["1", "a\nb", "", "", "", ""]);
        assert_eq!(table_text(&table).lines().count(), 6);
    }
}
