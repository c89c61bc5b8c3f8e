//! What a person typed or pasted, made comparable: text programs change hyphens, spaces and digits on the way. Not here: what the
//! code means (`onboarding`).

use percent_encoding::percent_decode_str;

/// Around a code that was copied out of a sentence.
const QUOTES: [char; 17] = ['"', '\'', '`', '´', '“', '”', '„', '‘', '’', '‚', '«', '»', '‹', '›', '<', '>', ' '];

/// The code without quotes and invisible characters, its dashes, spaces and full-width forms as the plain ones. White space
/// within a QR payload comes from a line that was broken, so it goes. Out of a link comes the payload that it carries.
pub(super) fn cleaned(typed: &str) -> String {
    let plain: String = typed.chars().filter_map(plain).collect();
    let code = plain.trim_matches(QUOTES);
    let linked = carried_by_link(code);
    let code = linked.as_deref().unwrap_or(code);
    let begins_as_qr = code.chars().filter(|c| *c != ' ').take(3).map(|c| c.to_ascii_uppercase()).eq("MT:".chars());
    // Base38 has upper-case letters only; a code that was typed in lower case means the same.
    if begins_as_qr { code.to_ascii_uppercase().replace(' ', "") } else { code.to_owned() }
}

/// The single payloads of a cleaned QR code: `MT:A*B` stands for `MT:A` and `MT:B` (Matter Core 5.1.5). Several codes that were
/// pasted one after the other are taken apart too: a payload contains no colon.
pub(super) fn payloads(code: &str) -> impl Iterator<Item = &str> {
    code.split("MT:").flat_map(|part| part.split('*')).filter(|payload| !payload.is_empty())
}

/// The QR payload in a link, as pages that show QR codes have it in their address; with its escapes undone.
fn carried_by_link(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let is_link = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    let plain = percent_decode_str(rest).decode_utf8().ok().filter(|_| is_link)?.to_ascii_uppercase();
    // A payload begins a value, so that no host or path that ends so is taken for one.
    let start = plain.match_indices("MT:").find(|(at, _)| plain[..*at].ends_with(['=', '/', '#', '?', '&']))?.0;
    let is_payload = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '-' | '.' | '*' | ' ');
    Some(plain[start..].chars().take_while(|c| is_payload(*c)).collect())
}

/// What may stand between the groups of a manual code.
pub(super) fn is_separator(c: char) -> bool {
    matches!(c, ' ' | '-' | '.' | '_' | '·' | '•' | '‧' | '・' | '。')
}

/// `None` for what cannot be seen.
fn plain(c: char) -> Option<char> {
    match c {
        // Full-width forms, as Japanese and Chinese keyboards type them, stand in the order of ASCII.
        '\u{FF01}'..='\u{FF5E}' => char::from_u32(u32::from(c) - 0xFEE0),
        // Hyphens, dashes, the minus sign, and the long vowel sign that shares its key on a Japanese keyboard.
        '\u{2010}'..='\u{2015}' | '\u{2043}' | '\u{2212}' | '\u{30FC}' | '\u{FE58}' | '\u{FE63}' | '\u{FF70}' => {
            Some('-')
        }
        // The soft hyphen, zero-width spaces and joiners, marks of direction, the byte order mark.
        '\u{AD}'
        | '\u{61C}'
        | '\u{180E}'
        | '\u{200B}'..='\u{200F}'
        | '\u{202A}'..='\u{202E}'
        | '\u{2060}'..='\u{206F}'
        | '\u{FEFF}' => None,
        c if c.is_whitespace() => Some(' '),
        c if c.is_control() => None,
        c => Some(c),
    }
}
