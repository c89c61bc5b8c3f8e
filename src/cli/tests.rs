//! Every promised command and option exists, and what is wrong is refused before anything is sent.

use rstest::rstest;

use super::*;

fn names(command: &clap::Command) -> Vec<&str> {
    command.get_subcommands().map(clap::Command::get_name).collect()
}

#[test]
fn every_promised_command_is_there() {
    let mut command = Cli::command();
    command.build();
    command.clone().debug_assert();
    let promised = [
        (
            "",
            "daemon check-config discover commission nodes node outbox sync logs status doctor access admin fabric attestation completions man",
        ),
        ("node", "show check identify rename share remove keep bind adopt"),
        ("outbox", "retry drop"),
        ("access", "show set apply rotate"),
        ("controller", "add list show renew remove invite withdraw"),
        ("fabric", "show backup restore export-root import-root"),
        ("attestation", "verify update-paa"),
        ("network", "set list forget"),
        ("admin", "token"),
    ];
    for (group, expected) in promised {
        let at = if group.is_empty() { &command } else { command.find_subcommand(group).unwrap() };
        for name in expected.split(' ') {
            assert!(names(at).contains(&name), "matterbind {group} {name}");
        }
    }
    #[cfg(feature = "sim")]
    for name in ["demo", "cloud-sim", "virtual-device"] {
        assert!(names(&command).contains(&name), "matterbind {name}");
    }
}

#[rstest]
#[case("daemon --config x.toml")]
#[case("check-config --config x.toml")]
#[case("admin token")]
#[case("discover --timeout 3s --operational --watch --json")]
#[case("commission MT:ABC --product-key a --device-key b --binding-code c --name d --family e --room f --json")]
#[case("commission 34970112332 --address 192.168.1.7:5540 --no-bind --wait-bind 60s --events")]
#[case("commission -")]
#[case("commission --manifest x.csv --jobs 8 --json")]
#[case("nodes --json")]
#[case("node show 0x3E8 --json")]
#[case("node check lamp")]
#[case("node identify lamp")]
#[case("node rename lamp light")]
#[case("node share lamp")]
#[case("node share lamp --close")]
#[case("node remove 1000 --force")]
#[case("node remove 1000 lamp --yes --json")]
#[case("node keep lamp")]
#[case("node adopt 1000 --json")]
#[case("node bind lamp --product-key a --device-key b --binding-code c --json")]
#[case("outbox --json")]
#[case("outbox retry 12")]
#[case("outbox drop 12")]
#[case("sync --node 1000 --json")]
#[case("sync --look-only")]
#[case("node move 1000 4711")]
#[case("logs -f --since 2h --node lamp --attempt 0193a1b2-0000-7000-8000-000000000000 --level warn --json")]
#[case("status --json")]
#[case("doctor --json --bundle x.tar --config y.toml")]
#[case("network set wifi Home --password-file x --default")]
#[case("network set thread --from-otbr http://otbr.local:8081 --name Thread")]
#[case("network set thread --from-otbr --name Thread")]
#[case("network set thread --from-otbr dbus:wpan1")]
#[case("network list --json")]
#[case("network forget Home")]
#[case("commission MT:ABC --network Home --wait-network 2m --accept-terms 3:0x1")]
#[case("discover --ble --json")]
#[case("discover --lan")]
#[case("fabric show")]
#[case("fabric backup x --passphrase-file y")]
#[case("fabric backup x --recipient age1x")]
#[case("fabric restore x")]
#[case("fabric restore x --identity y --force --state-dir z")]
#[case("fabric export-root x --passphrase-file y --keep")]
#[case("fabric import-root x --identity y --json")]
#[case("controller add panel --csr x --cat 0x0002 --cat 0x0003_0001 --valid 365d --out y --recipient age1x")]
#[case("controller add panel --new-key --admin --json")]
#[case("controller list --all --json")]
#[case("controller renew panel --csr - --out -")]
#[case("controller remove panel --now --json")]
#[case("controller invite --cat 0x0002 --for 10m --name phone")]
#[case("access show --json")]
#[case("access show lamp")]
#[case("access set lamp --grant 0x0002_0001=Operate --grant 196609=view")]
#[case("access set --default --json")]
#[case("access apply lamp")]
#[case("access rotate 0x0002_0001")]
#[case("attestation verify --dac a --pai b --cd c --vendor-id 0xFFF1 --product-id 32768 --paa-dir d --json")]
#[case("attestation update-paa --from dir")]
#[case("completions bash")]
#[case("man dir")]
#[case("--socket /tmp/s -v --color never status")]
#[case("status --socket /tmp/s -vv --color always")]
fn the_promised_options_are_understood(#[case] line: &str) {
    Cli::try_parse_from(["matterbind"].into_iter().chain(line.split(' '))).unwrap_or_else(|error| panic!("{error}"));
}

#[cfg(feature = "sim")]
#[rstest]
#[case("demo --devices 3 --json --keep dir")]
#[case("cloud-sim --listen 127.0.0.1:8787 --scenario x.toml")]
#[case("virtual-device --discriminator 1 --passcode 2 --vendor-id 3 --product-id 4 --port 5 --storage dir")]
fn the_promised_options_of_the_simulators(#[case] line: &str) {
    Cli::try_parse_from(["matterbind"].into_iter().chain(line.split(' '))).unwrap_or_else(|error| panic!("{error}"));
}

#[rstest]
#[case("commission")]
#[case("commission MT:ABC --manifest x.csv")]
#[case("commission MT:ABC --json --events")]
#[case("commission MT:ABC --address lamp")]
#[case("discover --timeout soon")]
#[case("node show")]
#[case("frobnicate")]
#[case("outbox retry lamp")]
fn what_makes_no_sense_is_refused(#[case] line: &str) {
    let error = Cli::try_parse_from(["matterbind"].into_iter().chain(line.split(' '))).expect_err(line);
    assert_eq!(error.exit_code(), 2);
}

/// The help texts, for reading in a review.
#[cfg(feature = "sim")]
#[rstest]
#[case("")]
#[case("commission")]
#[case("discover")]
#[case("node")]
#[case("outbox")]
#[case("logs")]
#[case("daemon")]
fn help(#[case] command: &str) {
    let line = ["matterbind"].into_iter().chain((!command.is_empty()).then_some(command)).chain(["--help"]);
    let whole = Cli::command().term_width(100);
    let text = whole.try_get_matches_from(line).expect_err("help").to_string();
    let name = if command.is_empty() { "top" } else { command };
    insta::assert_snapshot!(format!("help_{name}"), text);
}

#[rstest]
#[case("commission MT:Y.K9042C00KA0648G00 MT:SECOND")]
#[case("34970112332")]
#[case("commission -x 3497-011-2332 3497-011-2332")]
#[case("status --binding-code=0123456789ABCDEF")]
#[case("virtual-device --passcode 12345678")]
#[case("commission MT:ABC --address 34970112332")]
fn a_mistake_is_named_without_the_code(#[case] line: &str) {
    let arguments: Vec<OsString> = ["matterbind"].into_iter().chain(line.split(' ')).map(OsString::from).collect();
    let error = Cli::try_parse_from(&arguments).expect_err(line);
    let shown = without_codes(error.to_string(), &arguments, plain_value(&error));
    for code in ["MT:", "3497", "0123456789ABCDEF", "12345678"] {
        assert!(!shown.contains(code), "{shown}");
    }
}

#[rstest]
#[case("logs --since 2026-13-01", "2026-13-01")]
#[case("attestation verify --vendor-id 99999", "99999")]
#[case("attestation verify --product-id=0x99999", "0x99999")]
fn what_is_no_code_is_named_as_it_was_typed(#[case] line: &str, #[case] value: &str) {
    let arguments: Vec<OsString> = ["matterbind"].into_iter().chain(line.split(' ')).map(OsString::from).collect();
    let error = Cli::try_parse_from(&arguments).expect_err(line);
    let shown = without_codes(error.to_string(), &arguments, plain_value(&error));
    assert!(shown.contains(value), "{shown}");
}

#[test]
fn arguments_do_not_show_codes_in_debug() {
    let line = "matterbind commission 34970112332 --binding-code 0123456789ABCDEF".split(' ');
    let shown = format!("{:?}", Cli::try_parse_from(line).unwrap());
    assert!(!shown.contains("34970112332") && !shown.contains("0123456789ABCDEF"), "{shown}");
}

/// Whatever prints an answer prints it for a script too.
#[test]
fn every_command_that_prints_takes_json() {
    // They run until they are stopped, or print another language.
    const NONE: &[&str] = &["daemon", "cloud-sim", "completions", "man", "config-schema"];
    fn without(command: &clap::Command, above: &str, found: &mut Vec<String>) {
        let takes = command.get_arguments().any(|argument| argument.get_id() == "json");
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            let name = format!("{above} {}", sub.get_name());
            let has = takes || sub.get_arguments().any(|argument| argument.get_id() == "json");
            if sub.has_subcommands() {
                without(sub, &name, found);
            } else if !has && !NONE.contains(&sub.get_name()) {
                found.push(name);
            }
        }
    }
    let mut command = Cli::command();
    command.build();
    let mut found = Vec::new();
    without(&command, "matterbind", &mut found);
    assert!(found.is_empty(), "without --json: {found:?}");
}

#[rstest]
#[case("status --json --frobnicate", JsonFailure::Document)]
#[case("--json nonsense", JsonFailure::Document)]
#[case("outbox retry lamp --json", JsonFailure::Document)]
#[case("node --json", JsonFailure::Document)]
#[case("--socket /x commission --json", JsonFailure::Outcome)]
#[case("commission MT:SECRET --events --address lamp", JsonFailure::Outcome)]
#[case("status --frobnicate", JsonFailure::No)]
#[case("node rename -- --json", JsonFailure::No)]
fn a_line_that_is_not_understood_is_a_document_too(#[case] line: &str, #[case] expected: JsonFailure) {
    let arguments: Vec<OsString> = ["matterbind"].into_iter().chain(line.split(' ')).map(OsString::from).collect();
    let error = Cli::try_parse_from(&arguments).expect_err(line);
    assert_eq!(JsonFailure::of_line(&arguments), expected);
    let said = mistake(&without_codes(error.to_string(), &arguments, None));
    assert!(!said.is_empty() && !said.contains('\n') && !said.contains("SECRET") && !said.contains("tip:"), "{said}");
}
