//! What the documents list is what the code has: every stable code of a failed commissioning, every finding of the doctor, every
//! metric that is worth an alert; and every link leads somewhere.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::collections::BTreeSet;
use std::path::Path;

use matterbind::facade::telemetry::exposition::Exposition;
use matterbind::facade::telemetry::metrics::{HubStanding, Metrics};

/// Where a commissioning's codes are given.
const SOURCES: &[&str] = &[
    "src/commissioning/error.rs",
    "src/commissioning/network.rs",
    "src/commissioning/identity.rs",
    "src/onboarding.rs",
];

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
fn every_code_of_a_failure_is_explained() {
    let text = read("docs/troubleshooting.md");
    let found: BTreeSet<String> = SOURCES.iter().flat_map(|path| codes(&read(path))).collect();
    assert!(
        found.contains("wrong-passcode") && found.contains("wrong-check-digit"),
        "the codes are not found: {found:?}"
    );
    let missing: Vec<_> = found.iter().filter(|code| !text.contains(&format!("`{code}`"))).collect();
    assert!(missing.is_empty(), "not in docs/troubleshooting.md: {missing:?}");
}

#[test]
fn every_finding_of_the_doctor_is_explained_and_no_other() {
    let text = read("docs/troubleshooting.md");
    let table = text.split("## What doctor finds").nth(1).unwrap().split("\n## ").next().unwrap();
    let explained: BTreeSet<&str> = table.split('`').skip(1).step_by(2).collect();
    let mut found = BTreeSet::new();
    let sources = ["network", "outside", "state"].map(|name| read(&format!("src/hub/doctor/judge/{name}.rs")));
    for source in sources.into_iter().chain([read("src/hub/doctor/judge.rs"), read("src/cli/doctor.rs")]) {
        for call in ["findings.error(", "findings.warning(", "findings.note(", "id: "] {
            let after = source.match_indices(call).map(|(at, call)| source[at + call.len()..].trim_start());
            let ids = after.filter_map(|rest| rest.strip_prefix('"')?.split('"').next());
            found.extend(ids.map(str::to_owned));
        }
    }
    let found: BTreeSet<&str> = found.iter().map(String::as_str).collect();
    assert!(found.len() > 40, "{found:?}");
    let missing: Vec<_> = found.difference(&explained).collect();
    let gone: Vec<_> = explained.difference(&found).collect();
    assert!(missing.is_empty() && gone.is_empty(), "not explained: {missing:?}; explained, and never found: {gone:?}");
}

#[test]
fn every_metric_that_is_worth_an_alert_is_one() {
    let metrics = Metrics::default();
    // Of a family without any nothing is printed.
    metrics.count_login_failure("wrong-token");
    metrics.set_nodes("operational", 1);
    metrics.set_outbox("pending", 1);
    metrics.set_standing(&HubStanding { verdicts: [("match".to_owned(), 1)].into(), ..HubStanding::default() });
    let text = metrics.encode(Exposition::Text);
    let document = read("docs/operations.md");
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let names = rows.filter(|name| name.starts_with("matterbind_") || name.starts_with("process_"));
    let names: Vec<&str> = names.map(|name| name.split('{').next().unwrap()).collect();
    assert!(names.len() > 8, "{names:?}");
    for name in names {
        let typed = format!("# TYPE {name} ");
        assert!(text.contains(&typed), "{name} is no metric");
    }
}

#[test]
fn the_architecture_is_one_page() {
    let lines = read("ARCHITECTURE.md").lines().count();
    assert!(lines <= 80, "{lines}: reasons and tables stand in docs/design");
}

#[test]
fn every_link_of_the_documents_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents = vec![root.join("README.md"), root.join("ARCHITECTURE.md")];
    for folder in ["docs", "docs/design"] {
        documents.extend(std::fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path()));
    }
    let mut links = 0;
    for document in documents.iter().filter(|path| path.extension().is_some_and(|end| end == "md")) {
        let text = std::fs::read_to_string(document).unwrap();
        for (_, rest) in text.match_indices("](").map(|(at, open)| (at, &text[at + open.len()..])) {
            let target = rest.split(')').next().unwrap().split('#').next().unwrap();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            links += 1;
            assert!(document.parent().unwrap().join(target).exists(), "{}: {target}", document.display());
        }
    }
    assert!(links > 10, "{links}");
}
