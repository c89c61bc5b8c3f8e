//! Who may import whom (ARCHITECTURE.md): reads every `crate::` path under src/ against a table. An edge that is not in the
//! table is a decision: make it here, with its reason, or do not make it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The core: types and pure functions, open to everybody.
const CORE: &[&str] = &["bind", "durable", "fabric", "journal", "node", "onboarding", "secret"];

/// Module, what it may import beside the core, and why.
const ALLOWED: &[(&str, &[&str], &str)] = &[
    ("bind", &[], "core"),
    ("durable", &[], "core"),
    ("fabric", &[], "core"),
    ("journal", &[], "core"),
    ("node", &[], "core"),
    ("onboarding", &[], "core"),
    ("secret", &[], "core"),
    ("access", &["commissioning"], "pure: the comparison of two lists"),
    ("attestation", &["config"], "pure: the policy's types"),
    ("commissioning", &["outbox"], "the task that is committed together with the record"),
    ("config", &["commissioning"], "the type of an attribute path"),
    ("discovery", &["commissioning", "config"], "implements its port"),
    ("keystore", &[], "keys on disk"),
    ("matter", &["commissioning", "keystore"], "implements its ports on our credentials"),
    ("outbox", &[], "defines its ports"),
    ("reconcile", &["config", "outbox"], "what policy says, and the cloud's port"),
    ("store", &["commissioning", "outbox", "reconcile"], "implements their ports"),
    ("cloud", &["config", "outbox"], "implements BindApi"),
    (
        "backup",
        &["access", "keystore", "matter", "store"],
        "everything that a hub is, in one file; credentials only of matter",
    ),
    ("paa", &["attestation", "config"], "fills the trust store from files"),
    ("dcl", &["attestation", "paa"], "fetches what `paa` keeps"),
    ("telemetry", &["config", "systemd"], "where records go"),
    ("systemd", &[], "notifications"),
    ("admin", &["backup", "commissioning", "config", "outbox", "telemetry"], "read models; never an adapter"),
    ("sim", &["cloud"], "the sign-in's cryptography, from the other side"),
    (
        "cli",
        &["access", "admin", "app", "backup", "commissioning", "config", "dcl", "keystore", "paa", "sim", "telemetry"],
        "wire types; `app` for the daemon, the rest for what works without one; never the store",
    ),
];

/// May import everything.
const ROOT: &str = "app";

#[test]
fn every_import_is_in_the_table() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&source, &mut files);
    let mut wrong = BTreeSet::new();
    for file in &files {
        let inside = file.strip_prefix(&source).expect("it was found there");
        let first = inside.components().next().expect("a file has a name").as_os_str().to_string_lossy();
        let module = first.trim_end_matches(".rs").to_owned();
        if ["lib", "main", ROOT].contains(&module.as_str()) {
            continue;
        }
        let Some((_, allowed, _)) = ALLOWED.iter().find(|(name, ..)| *name == module) else {
            wrong.insert(format!("{module} is not in the table"));
            continue;
        };
        let text = fs::read_to_string(file).expect("a source file is text");
        for other in imports(&text) {
            if other != module && !CORE.contains(&other.as_str()) && !allowed.contains(&other.as_str()) {
                wrong.insert(format!("{module} imports {other} ({})", inside.display()));
            }
        }
    }
    assert!(files.len() > 50, "the source is at {}", source.display());
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_core_imports_only_itself() {
    for module in CORE {
        let row = ALLOWED.iter().find(|(name, ..)| name == module).expect("the core is in the table");
        assert!(row.1.is_empty(), "{module}");
    }
}

/// The first words after `crate::` in code that is not a test's.
fn imports(text: &str) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let mut found = BTreeSet::new();
    for line in lines {
        for after in line.split("crate::").skip(1) {
            let name: String = after.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
            if !name.is_empty() {
                found.insert(name);
            }
        }
    }
    found
}

/// Every source file but those that are nothing but tests.
fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("the source is there") {
        let path = entry.expect("it can be listed").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            files.push(path);
        }
    }
}
