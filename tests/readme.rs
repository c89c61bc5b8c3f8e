//! The README's table of failures is the code's: every stable code of a failed commissioning stands in it.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::collections::BTreeSet;
use std::path::Path;

/// Where a commissioning's codes are given.
const SOURCES: &[&str] = &["src/commissioning/error.rs", "src/commissioning/identity.rs", "src/onboarding.rs"];

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// `"kebab-case"` where a match arm gives it, as in `=> "wrong-passcode",`.
fn codes(source: &str) -> BTreeSet<String> {
    let product = source.split("mod tests {").next().unwrap();
    let is_code = |text: &str| text.contains('-') && text.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    let arms = product.match_indices("=> ").filter_map(|(at, arrow)| {
        let rest = product[at + arrow.len()..].trim_start_matches(|c: char| c == '{' || c.is_whitespace());
        rest.strip_prefix('"')?.split('"').next()
    });
    arms.filter(|text| is_code(text)).map(str::to_owned).collect()
}

#[test]
fn every_code_of_a_failure_is_in_the_readme() {
    let readme = read("README.md");
    let found: BTreeSet<String> = SOURCES.iter().flat_map(|path| codes(&read(path))).collect();
    assert!(
        found.contains("wrong-passcode") && found.contains("wrong-check-digit"),
        "the codes are not found: {found:?}"
    );
    let missing: Vec<_> = found.iter().filter(|code| !readme.contains(&format!("`{code}`"))).collect();
    assert!(missing.is_empty(), "not in the README's table: {missing:?}");
}
