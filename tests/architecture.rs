//! Who may import whom: the `crate::` paths of src/ against a table of allowed edges, each with its reason. And how long a
//! file may be, how much may be asked at one door of the hub, and that no error says its source itself.
//!
//! An edge that is not in the table is a decision: move the code, or add the edge and say why.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The vocabulary: no clock, no I/O, no runtime. And the points at which the crash tests end the process.
const CORE: &str = "secret node onboarding fabric bind durable journal failpoint plain standing";

/// A module (the longest prefix of a path counts), what it may import beside itself and `CORE`, and why.
const ALLOWED: &[(&str, &str, &str)] = &[
    // The middle.
    ("secret", "", "types only"),
    ("node", "attestation", "a record keeps what was found"),
    ("onboarding", "", "types only"),
    ("fabric", "", "types only"),
    ("bind", "", "types only"),
    ("standing", "", "what proves that a node has left, for all who destroy anything on that proof"),
    ("plain", "", "text in, text that may be shown out"),
    ("rhythm", "", "numbers in, pauses out"),
    ("clock", "", "readings in, what can be believed out"),
    ("durable", "", "the error that every store port shares"),
    ("journal", "", "the event and the sink that takes it"),
    ("failpoint", "", "names points, does nothing in the product"),
    ("attestation", "", "evidence in, findings out"),
    ("attestation/policy", "config", "the policy is configured"),
    ("access", "commissioning", "compares what the session ports read"),
    ("controller", "attestation", "judges requests with the verifier that attestation has"),
    ("commissioning", "attestation", "the path's types and ports"),
    ("commissioning/driver", "attestation outbox", "a record and the outbox row that binds it are one fact"),
    ("commissioning/ports", "attestation outbox", "a record and the outbox row that binds it are one fact"),
    ("reconcile", "outbox", "its ports take outbox tasks"),
    ("reconcile/compare", "", "pure"),
    ("reconcile/mend", "config", "what to do about a difference is configured"),
    ("outbox", "", "ports that the store and the cloud implement"),
    ("outbox/schedule", "", "pure"),
    // The adapters: none imports another.
    (
        "matter",
        "commissioning controller keystore",
        "implements MatterLink, with keys from the key store; signs checked requests",
    ),
    ("discovery", "commissioning config", "implements Discovery on the configured interfaces"),
    ("bluetooth", "commissioning config", "implements Radio on the configured adapter"),
    ("store", "commissioning controller outbox reconcile", "implements the three store ports; keeps controllers"),
    ("tls", "", "whom the hub trusts, and by which time"),
    ("cloud", "config outbox rhythm tls", "implements BindApi as configured; hubs renew their tokens one by one"),
    ("ownership", "", "whom root acts for"),
    ("keystore", "", "keys at rest"),
    ("paa", "attestation config", "loads what attestation trusts"),
    ("dcl", "attestation paa tls", "fetches what attestation trusts"),
    ("backup", "access keystore matter store", "reads and writes a whole state directory, offline"),
    // The outside.
    (
        "admin",
        "attestation backup commissioning config controller hub outbox telemetry",
        "translates between HTTP and the hub's use cases, and draws what was found of a device",
    ),
    ("cli", "admin commissioning config telemetry", "a client of the admin API"),
    ("cli/attestation", "admin commissioning config dcl ownership paa", "offline verification needs no daemon"),
    ("cli/admin", "config", "makes a token without a daemon"),
    ("cli/controller", "admin backup controller", "makes requests, encrypts bundles"),
    ("cli/network", "admin config", "reads secrets from files and credentials as the daemon does"),
    ("cli/daemon", "app config keystore store systemd telemetry", "starts the daemon, whose stderr may be the journal"),
    ("cli/doctor", "admin config hub", "looks at what can be seen without a daemon"),
    ("cli/demo", "admin sim", "plays the whole product"),
    ("cli/fabric", "admin backup commissioning config keystore ownership", "shows and backs up through the daemon"),
    ("cli/sim", "sim", "starts the simulations"),
    ("config", "commissioning", "checks limits and paths as the path understands them"),
    ("telemetry", "config systemd", "the configured filter; whether journald reads stderr"),
    ("systemd", "", "what the service manager is told"),
    ("sim", "", "the other side of every protocol"),
    ("sim/virtual_device", "matter", "rs-matter spins under any other waker, on the device's side too"),
    (
        "sim/virtual_device/long_idle",
        "commissioning config discovery",
        "a device that wakes looks for who is registered with it",
    ),
    (
        "sim/virtual_device/wireless",
        "bluetooth commissioning matter",
        "the device's end of the air, and the pump of segments that both ends share",
    ),
    ("sim/cloud/login", "cloud", "checks signatures by the same code that the test vectors pin"),
    ("main", "", "calls the command line"),
    (
        "hub",
        "access attestation backup bluetooth clock cloud commissioning config controller dcl discovery keystore matter outbox ownership paa \
         reconcile rhythm store systemd telemetry",
        "the use cases, on every adapter that they need",
    ),
    ("app", "*", "the composition root"),
    ("facade", "*", "what tests, benches and fuzz targets take hold of"),
];

/// Who may use which library, and why it is fenced in.
const FENCES: &[(&str, &str, &str)] = &[
    ("rusqlite", "store", "SQL in one place"),
    ("mdns_sd", "discovery", "one mDNS actor"),
    ("zbus", "bluetooth cli/network/otbr", "BlueZ, and the border router that a person's command asks"),
    ("axum", "admin sim", "servers"),
    ("hyper", "admin/connections", "one place that serves connections"),
    ("reqwest", "cloud dcl cli/client config/validate sim/cloud", "clients, and the URL type"),
    (
        "rs_matter",
        "matter sim onboarding attestation hub telemetry",
        "its runtime in matter and sim; its codecs where payloads and certificates are read or written; telemetry names its log targets",
    ),
];

/// Calls that have one place, and why.
const ONE_PLACE: &[(&str, &str, &str)] = &[
    (
        "open_case(",
        "hub/reach matter commissioning",
        "one way to a recorded node, with one policy of addresses, waits and proofs",
    ),
    ("OffFabric::removed_", "hub/removal standing", "only RemoveFabric over CASE makes these proofs"),
];

/// Pure modules: time is an argument, nothing waits.
const PURE: &str = "secret node onboarding fabric controller bind clock plain rhythm durable journal standing attestation commissioning/attempt \
                    commissioning/step reconcile/compare hub/liveness hub/reach/rank \
                    hub/doctor/facts hub/doctor/judge outbox/foreign outbox/schedule dcl/schedule discovery/search \
                    discovery/cache discovery/txt config/validate cloud/budget admin/origin";

/// Files over 500 lines, and why they are whole.
const LONG: &[(&str, &str)] = &[
    ("src/attestation/tests.rs", "one table of findings, one test for each"),
    ("src/commissioning/tests/home.rs", "the one home of fakes: devices that behave, and the LAN that shows them"),
    ("src/admin/routes.rs", "the one table of routes, and what answers them"),
    ("tests/support/fake_backend.rs", "one fake of every door"),
    ("tests/support/daemon.rs", "the one harness: processes of one hub and what they say"),
    ("tests/house/page_day.rs", "one telephone and one hub, and the days that are spent with them"),
    ("tests/house/api.rs", "one server and one command line, met in every way that users meet them"),
];

struct Source {
    path: PathBuf,
    /// `commissioning/driver` for src/commissioning/driver.rs.
    module: String,
    /// Without comments and unit tests.
    code: String,
}

fn files(directory: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut open = vec![root.join(directory)];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("node_modules") {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path.strip_prefix(root).unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let of = |path: PathBuf| {
        let module = path.strip_prefix("src").unwrap().with_extension("").to_str().unwrap().to_owned();
        let text = fs::read_to_string(root.join(&path)).unwrap();
        let code = text.split("mod tests {").next().unwrap().lines();
        let code = code.map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n");
        Source { path, module, code }
    };
    let product = |source: &Source| !source.module.split('/').any(|part| part == "tests") && source.module != "lib";
    files("src").into_iter().map(of).filter(product).collect()
}

/// The names after each `crate::`.
fn imports(code: &str) -> BTreeSet<String> {
    let word = |rest: &str| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    code.match_indices("crate::")
        .filter(|(at, _)| !code[..*at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$'))
        .map(|(at, found)| word(&code[at + found.len()..]))
        .collect()
}

/// `name` is `prefix` or below it.
fn is_within(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn any_of(name: &str, list: &str) -> bool {
    list.split_whitespace().any(|prefix| is_within(name, prefix))
}

#[test]
fn every_import_is_one_that_was_decided() {
    let modules: BTreeSet<String> =
        files("src").iter().map(|path| path.iter().nth(1).unwrap().to_str().unwrap().replace(".rs", "")).collect();
    let mut undecided = Vec::new();
    for source in sources() {
        let row = ALLOWED
            .iter()
            .filter(|(module, _, _)| is_within(&source.module, module))
            .max_by_key(|(module, _, _)| module.len());
        let Some((_, allowed, _)) = row else {
            undecided.push(format!("{} is in no row", source.path.display()));
            continue;
        };
        assert!(!source.code.contains("crate::{"), "{}: one path for each use", source.path.display());
        let own = source.module.split('/').next().unwrap();
        for import in imports(&source.code) {
            let known = modules.contains(&import);
            let fine = import == own || any_of(&import, CORE) || *allowed == "*" || any_of(&import, allowed);
            if known && !fine {
                undecided.push(format!("{} imports {import}", source.path.display()));
            }
        }
    }
    assert!(undecided.is_empty(), "not in the table of tests/architecture.rs:\n{}", undecided.join("\n"));
}

#[test]
fn no_row_of_the_table_is_out_of_date() {
    let sources = sources();
    let mut unused = Vec::new();
    for (module, allowed, _) in ALLOWED {
        let mine: Vec<_> = sources.iter().filter(|source| is_within(&source.module, module)).collect();
        assert!(!mine.is_empty(), "there is no module {module}");
        for target in allowed.split_whitespace().filter(|target| *target != "*") {
            let used = mine.iter().any(|source| imports(&source.code).contains(target));
            if !used {
                unused.push(format!("{module} does not import {target} any more"));
            }
        }
    }
    assert!(unused.is_empty(), "{}", unused.join("\n"));
}

#[test]
fn libraries_stay_behind_their_fences() {
    let mut outside = Vec::new();
    for source in sources() {
        for (library, allowed, why) in FENCES {
            if source.code.contains(&format!("{library}::")) && !any_of(&source.module, allowed) {
                outside.push(format!("{} uses {library} ({why})", source.path.display()));
            }
        }
        for (call, allowed, why) in ONE_PLACE {
            if source.code.contains(call) && !any_of(&source.module, allowed) {
                outside.push(format!("{} calls {call}) itself ({why})", source.path.display()));
            }
        }
        // `Instant` and `Timestamp` are types of arguments; asking them for the time is not.
        for call in
            ["tokio::", "async fn", "Instant::now(", "Timestamp::now(", "SystemTime::now(", "std::fs", "std::net::Udp"]
        {
            if any_of(&source.module, PURE) && source.code.contains(call) {
                outside.push(format!("{} is pure and has {call}", source.path.display()));
            }
        }
    }
    assert!(outside.is_empty(), "{}", outside.join("\n"));
}

#[test]
fn no_error_says_what_its_source_says() {
    let mut twice = Vec::new();
    for source in sources() {
        for error in source.code.split("#[error(").skip(1) {
            // A variant ends where the next one's text begins, the last one with its enum.
            let (text, rest) = error.split_once(")]").unwrap_or((error, ""));
            let variant = rest.split("\n}").next().unwrap();
            let cause = if variant.contains("(#[from] ") || variant.contains("(#[source] ") {
                "0"
            } else if let Some((_, field)) = variant.split_once("#[source]") {
                field.split(':').next().unwrap().split_whitespace().last().unwrap()
            } else if variant.contains(" source: ") {
                "source"
            } else {
                continue;
            };
            if text.contains(&format!("{{{cause}")) || text.contains(&format!(".{cause}")) {
                twice.push(format!("{}: {}", source.path.display(), text.trim()));
            }
        }
    }
    assert!(twice.is_empty(), "whoever prints an error prints its sources:\n{}", twice.join("\n"));
}

#[test]
fn a_long_file_has_a_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut long = Vec::new();
    for path in ["src", "tests", "benches"].into_iter().flat_map(files) {
        let lines = fs::read_to_string(root.join(&path)).unwrap().lines().count();
        let excused = LONG.iter().any(|(known, _)| Path::new(known) == path);
        assert!(lines <= 800, "{} has {lines} lines: split it", path.display());
        if lines > 500 && !excused {
            long.push(format!("{} has {lines} lines", path.display()));
        }
    }
    assert!(long.is_empty(), "over 500 lines without a reason in tests/architecture.rs:\n{}", long.join("\n"));
}

/// What a use case may be asked: a door that grows is two rooms.
const DOOR_MAX: usize = 7;

#[test]
fn a_door_is_small() {
    let mut doors = 0;
    for source in sources().iter().filter(|source| is_within(&source.module, "hub")) {
        for (_, door) in source.code.match_indices("Door: Send + Sync").map(|(at, _)| (at, &source.code[at..])) {
            let methods = door.split("\n}").next().unwrap().matches(" fn ").count();
            assert!(methods <= DOOR_MAX, "{}: a door with {methods} methods", source.path.display());
            doors += 1;
        }
    }
    assert!(doors > 10, "{doors}");
}
