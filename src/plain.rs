//! Text as it may be shown: of strangers, which are devices, neighbours on the LAN and the cloud, and of errors. Pure.
//!
//! What begins an escape sequence, breaks a line, turns the direction of text or cannot be seen misleads whoever reads it
//! in a terminal, a log or a page. Names lose such characters where they enter ([`clean`]); sentences show where they were
//! ([`shown`]); a stream of our own keeps its colours ([`for_terminal`]). Not here: HTML, which the page escapes itself.

use std::borrow::Cow;
use std::error::Error;
use std::fmt::Write;
use std::iter::successors;

use serde_json::Value;

/// Stands where something was that must not be shown.
const REPLACED: char = '\u{FFFD}';

/// Whether a character shows as itself: no control character, no line or paragraph separator, nothing that turns the
/// direction of the text beside it, nothing invisible. What joins letters and emoji is needed, and harmless.
pub fn is_harmless(character: char) -> bool {
    !character.is_control()
        && !matches!(
            character,
            '\u{AD}'
                | '\u{61C}'
                | '\u{180E}'
                | '\u{200B}'
                | '\u{200E}'
                | '\u{200F}'
                | '\u{2028}'..='\u{202E}'
                | '\u{2060}'..='\u{206F}'
                | '\u{FEFF}'
                | '\u{FFF0}'..='\u{FFFB}'
                | '\u{E0000}'..='\u{E0FFF}'
        )
}

/// Bytes as lower-case hexadecimal. Nothing of them is left in memory that was outgrown, so secrets may be written by it.
pub(crate) fn lower_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Bytes as upper-case hexadecimal.
pub(crate) fn upper_hex(bytes: &[u8]) -> String {
    lower_hex(bytes).to_ascii_uppercase()
}

/// An error with its causes: none of ours names its source in its own words.
pub(crate) fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut said = error.to_string();
    for cause in successors(error.source(), |&cause| cause.source()) {
        let _ = write!(said, ": {cause}");
    }
    said
}

/// A name without harmful characters and what they begin (escape sequences), at most `limit` bytes long.
pub(crate) fn clean(text: &str, limit: usize) -> String {
    let mut kept = String::new();
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            // ESC and its sequence (ECMA-48): CSI ends with one of @ to ~, OSC and the like with BEL or another ESC.
            '\u{1B}' => match characters.next() {
                Some('[') => drop(characters.find(|c| ('@'..='~').contains(c))),
                Some(']' | 'P' | 'X' | '^' | '_') => {
                    while characters.next_if(|c| *c != '\u{7}' && *c != '\u{1B}').is_some() {}
                }
                Some(_) | None => {}
            },
            '\u{9B}' => drop(characters.find(|c| ('@'..='~').contains(c))),
            c if !is_harmless(c) => {}
            c if kept.len() + c.len_utf8() > limit => break,
            c => kept.push(c),
        }
    }
    kept
}

/// A sentence on one line: where it has harmful characters it shows so.
pub(crate) fn shown(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_harmless) {
        return Cow::Borrowed(text);
    }
    let one = |c: char| match c {
        '\t' | '\n' | '\r' => ' ',
        c if is_harmless(c) => c,
        _ => REPLACED,
    };
    Cow::Owned(text.chars().map(one).collect())
}

/// Every string in a document as [`shown`], names of fields too.
pub(crate) fn shown_document(document: &mut Value) {
    match document {
        Value::String(text) => {
            if let Cow::Owned(shown) = shown(text) {
                *text = shown;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(shown_document),
        Value::Object(fields) => {
            if !fields.keys().all(|key| key.chars().all(is_harmless)) {
                let renamed = std::mem::take(fields).into_iter().map(|(key, value)| (shown(&key).into_owned(), value));
                *fields = renamed.collect();
            }
            fields.values_mut().for_each(shown_document);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// JSON text whose strings are as [`shown`]. What is no JSON is one such string.
pub(crate) fn shown_json(text: &str) -> Cow<'_, str> {
    // A harmful character is there as itself, or behind a backslash.
    if text.chars().all(|c| is_harmless(c) && c != '\\') {
        return Cow::Borrowed(text);
    }
    match serde_json::from_str::<Value>(text) {
        Ok(mut document) => {
            shown_document(&mut document);
            Cow::Owned(document.to_string())
        }
        Err(_) => shown(text),
    }
}

/// Our own lines on their way to a terminal or a log: line breaks, tabs and colours stay, everything else is as [`shown`].
pub(crate) fn for_terminal(text: &str) -> Cow<'_, str> {
    if text.chars().all(|c| is_harmless(c) || matches!(c, '\n' | '\t')) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let colour = colour(rest);
        match character {
            _ if colour > 0 => safe.push_str(&rest[..colour]),
            '\n' | '\t' => safe.push(character),
            c => safe.push_str(&shown(c.encode_utf8(&mut [0; 4]))),
        }
        rest = &rest[colour.max(character.len_utf8())..];
    }
    Cow::Owned(safe)
}

/// How many bytes of a colour (`ESC [ 1;31 m`) the text begins with.
fn colour(text: &str) -> usize {
    let Some(parameters) = text.strip_prefix("\u{1B}[") else { return 0 };
    let digits = parameters.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b';').count();
    if digits <= 8 && parameters.as_bytes().get(digits) == Some(&b'm') { digits + 3 } else { 0 }
}

/// What the system says of a failure, to be read within a sentence: `connection refused` for `Connection refused (os error 111)`.
pub(crate) fn cause(error: &(impl std::fmt::Display + ?Sized)) -> String {
    let text = error.to_string();
    if text.starts_with("failed to lookup address information") {
        return "its name cannot be resolved".to_owned();
    }
    let text = match text.rsplit_once(" (os error ") {
        Some((said, number)) if number.ends_with(')') => said,
        _ => &text,
    };
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        // Not where the first word is a name in capitals.
        (Some(first), Some(second)) if first.is_ascii_uppercase() && second.is_ascii_lowercase() => {
            format!("{}{}", first.to_ascii_lowercase(), &text[1..])
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn causes_follow_their_error() {
        let there = std::io::Error::from_raw_os_error(libc::EEXIST);
        assert_eq!(with_causes(&there), "File exists (os error 17)");
        let error = anyhow::Error::new(there).context("the file cannot be made").context("the daemon did not start");
        assert_eq!(
            with_causes(error.as_ref()),
            "the daemon did not start: the file cannot be made: File exists (os error 17)"
        );
    }

    #[test]
    fn a_system_error_reads_as_a_clause() {
        let refused = std::io::Error::from_raw_os_error(libc::ECONNREFUSED);
        assert_eq!(cause(&refused), "connection refused");
        assert_eq!(
            cause(&"failed to lookup address information: Name or service not known"),
            "its name cannot be resolved"
        );
        assert_eq!(cause(&"TLS is not spoken there"), "TLS is not spoken there");
        assert_eq!(cause(&""), "");
    }

    /// One of each kind: clears the screen, writes the clipboard, C1, breaks the line, turns the text, cannot be seen.
    const HARMFUL: &str = "a\u{1b}[2J\u{1b}]52;c;eA==\u{7}\u{9b}31m\r\n\u{7f}\u{85}\u{202e}\u{2066}\u{200b}\u{2028}b";

    #[test]
    fn names_lose_what_is_harmful_and_keep_every_script() {
        assert_eq!(clean(HARMFUL, 32), "ab");
        assert_eq!(clean("\u{1B}]0;title\u{1B}\\lamp", 32), "lamp");
        for name in ["Lampe Küche 灯 🏳️‍🌈", "台所 مطبخ می‌خواهم"] {
            assert_eq!((clean(name, 64).as_str(), shown(name).as_ref()), (name, name));
        }
        assert_eq!(clean(&"ü".repeat(17), 33), "ü".repeat(16));
    }

    #[test]
    fn a_sentence_shows_where_something_was() {
        assert_eq!(shown("row\n1\t2\u{1b}[2J\u{202e}x"), "row 1 2\u{FFFD}[2J\u{FFFD}x");
        let mut document = json!({ "a\u{1b}": ["b\u{9b}", 1, { "c": "d\n" }] });
        shown_document(&mut document);
        assert_eq!(document, json!({ "a\u{FFFD}": ["b\u{FFFD}", 1, { "c": "d " }] }));
        assert_eq!(shown_json(r#"{"z":"plain","a":1}"#), r#"{"z":"plain","a":1}"#);
        let escaped = shown_json(r#"{"z":"\u001b\\","a":18446744073709551615}"#);
        let expected = json!({ "z": "\u{FFFD}\\", "a": u64::MAX });
        assert_eq!(serde_json::from_str::<Value>(&escaped).expect("JSON"), expected);
        assert_eq!(shown_json("no JSON\u{1b}[m"), "no JSON\u{FFFD}[m");
    }

    #[test]
    fn our_own_colours_stay() {
        let line = "\u{1b}[1;31merror:\u{1b}[0m a\tb\nc";
        assert_eq!(for_terminal(line), line);
        assert_eq!(
            for_terminal("\u{1b}[2J\u{1b}[31;1H\u{1b}[m\r\u{202e}"),
            "\u{FFFD}[2J\u{FFFD}[31;1H\u{1b}[m \u{FFFD}"
        );
    }

    proptest! {
        #[test]
        fn whatever_comes_nothing_harmful_is_left(text in "(?s).*", limit in 0_usize..64) {
            let cleaned = clean(&text, limit);
            prop_assert!(cleaned.len() <= limit && cleaned.chars().all(is_harmless));
            prop_assert!(shown(&text).chars().all(is_harmless));
            let document = json!({ &text: [&text] }).to_string();
            prop_assert!(shown_json(&document).chars().all(is_harmless));
            let colourless = for_terminal(&text).replace("\u{1b}[", "");
            prop_assert!(colourless.chars().all(|c| is_harmless(c) || matches!(c, '\n' | '\t')));
        }
    }
}
