//! Small things that people meet every day, on the real command line before a daemon that only pretends: what a shell proposes,
//! where a log begins, whose name stands beside an id, what a script gets.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::fake_backend::{Running, entry, start};
use matterbind::facade::journal::Level;
use serde_json::Value;

fn command(running: &Running, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_matterbind"));
    command.env_clear().env("MATTERBIND_SOCKET", &running.socket).args(arguments).stdin(Stdio::null());
    command
}

/// stdout and the exit code; the daemon that pretends lives in this process and must go on.
async fn ran(mut command: Command) -> (String, i32) {
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.code().unwrap())
}

#[tokio::test]
async fn a_shell_proposes_the_nodes_by_id_and_by_name() {
    let running = start().await;
    let proposed = async |words: &[&str]| {
        let mut asked = command(&running, &[&["--"], words].concat());
        asked.env("COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", (words.len() - 1).to_string()).env("_CLAP_IFS", "\n");
        ran(asked).await.0
    };
    let all = proposed(&["matterbind", "node", "show", ""]).await;
    assert!(all.lines().any(|word| word == "1000") && all.lines().any(|word| word == "Attic/1"), "{all}");
    // A shell would take it for two words.
    assert!(!all.contains("Hall"), "{all}");
    assert_eq!(proposed(&["matterbind", "node", "check", "Att"]).await.trim(), "Attic/1");
    assert_eq!(proposed(&["matterbind", "logs", "--node", "1001"]).await.trim(), "1001");
    let commands = proposed(&["matterbind", "doc"]).await;
    assert_eq!(commands.trim(), "doctor");
    // The script of each shell asks this program.
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (script, code) = ran(command(&running, &["completions", shell])).await;
        assert!(code == 0 && script.contains("COMPLETE"), "{shell}: {script}");
    }
}

#[tokio::test]
async fn a_log_that_is_followed_begins_now() {
    let running = start().await;
    let first = async |arguments: &[&str], sends: bool| {
        let mut child = command(&running, arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let read = tokio::task::spawn_blocking(move || lines.next().unwrap().unwrap());
        tokio::pin!(read);
        let line = loop {
            tokio::select! {
                line = &mut read => break line.unwrap(),
                () = tokio::time::sleep(Duration::from_millis(50)) => {
                    if sends {
                        // Nobody may be listening yet.
                        let _ = running.fake.events.send(entry(77, Level::Info, 1000, "something new"));
                    }
                }
            }
        };
        child.kill().unwrap();
        child.wait().unwrap();
        line
    };
    let new: Value = serde_json::from_str(&first(&["logs", "-f", "--json"], true).await).unwrap();
    assert_eq!(new["id"], 77);
    let old: Value =
        serde_json::from_str(&first(&["logs", "-f", "--since", "1970-01-02", "--json"], false).await).unwrap();
    assert_eq!(old["id"], 1);
    // The name stands beside the id.
    let shown = first(&["logs", "-f"], true).await;
    assert!(shown.contains("something new") && shown.contains("node=1000 (Hall lamp)"), "{shown}");
}

#[tokio::test]
async fn names_stand_beside_ids() {
    let running = start().await;
    let (sync, _) = ran(command(&running, &["sync"])).await;
    assert!(sync.contains("node 1000 (Hall lamp): match"), "{sync}");
    let (outbox, _) = ran(command(&running, &["outbox"])).await;
    assert!(outbox.lines().nth(1).unwrap().contains("Hall lamp"), "{outbox}");
    // What to do stands under the table, where there is room for it.
    assert!(outbox.lines().last().unwrap().ends_with("check that the device reaches the internet"), "{outbox}");
    let (status, _) = ran(command(&running, &["status"])).await;
    assert!(status.contains("doctor   error No PAA certificate is trusted."), "{status}");
}

#[tokio::test]
async fn a_script_gets_the_mistakes_of_a_configuration_with_their_lines() {
    let running = start().await;
    let file = running.directory.path().join("wrong.toml");
    std::fs::write(&file, "\n[log]\nlevel = \"loud\"\n").unwrap();
    let (text, code) = ran(command(&running, &["check-config", "--json", "--config", file.to_str().unwrap()])).await;
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, document["mistakes"].as_array().unwrap().len()), (2, 1), "{document:#}");
    assert!(document["mistakes"][0]["origin"].as_str().unwrap().ends_with("wrong.toml:3"), "{document:#}");
    std::fs::write(&file, "[log]\nlevel = \"debug\"\n").unwrap();
    let (text, code) = ran(command(&running, &["check-config", "--json", "--config", file.to_str().unwrap()])).await;
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, document["config"]["log"]["level"].as_str()), (0, Some("debug")), "{document:#}");
    let (token, code) = ran(command(&running, &["admin", "token", "--json"])).await;
    assert!(
        code == 0 && serde_json::from_str::<Value>(&token).unwrap()["token"].as_str().unwrap().len() >= 32,
        "{token}"
    );
    let (schema, code) = ran(command(&running, &["config-schema"])).await;
    let schema: Value = serde_json::from_str(&schema).unwrap();
    assert!(code == 0 && schema["additionalProperties"] == false && schema["properties"]["cloud"].is_object());
}
