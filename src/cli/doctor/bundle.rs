//! `doctor --bundle`: one tar archive with what whoever helps from afar would ask for next. What the daemon answers holds no secret
//! by its types; what could tell one all the same (the account's address, a proxy's password) is masked here. The names, addresses
//! and serial numbers of devices are in it, and the listing says so.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use futures_util::StreamExt;
use jiff::Timestamp;
use serde_json::Value;

use crate::admin::wire::{Diagnosis, LogQuery};
use crate::cli::client::{AdminClient, PLAIN};
use crate::cli::exit::CliError;
use crate::config::Config;
use crate::config::load::{self, ConfigMistakes, Loaded};
use crate::hub::doctor::facts::Facts;
use crate::plain;

/// The newest entries of the admin log.
const ENTRIES: u32 = 5000;

/// One file of the archive.
pub(super) struct Content {
    name: &'static str,
    what: &'static str,
    bytes: Vec<u8>,
}

/// Everything that can be had now; what cannot is a file that says why.
pub(super) async fn gather(
    client: &AdminClient,
    diagnosis: &Diagnosis,
    own: &Facts,
    config: &Result<Loaded, ConfigMistakes>,
) -> Vec<Content> {
    let mut contents = Vec::new();
    let mut put = |name, what, bytes: Vec<u8>| contents.push(Content { name, what, bytes });
    put("doctor.json", "what doctor found", json(diagnosis));
    put("seen.json", "what it was found by", json(own));
    put(
        "config.toml",
        "the configuration in force; the account is masked, secrets are in other files",
        configuration(config),
    );
    for (name, what, path) in [
        ("status.json", "how the daemon stands", "status"),
        ("fabric.json", "the fabric's ids and its root's public key", "fabric"),
        ("nodes.json", "every node's record: names, addresses, serial numbers, keys in the cloud", "nodes"),
        ("outbox.json", "what the cloud has not acknowledged", "outbox"),
        ("access.json", "who may do what on the nodes", "access"),
    ] {
        let answer = client.get::<Value>(&[path], &(), PLAIN).await;
        put(name, what, answer.map_or_else(|error| plain::with_causes(&error).into_bytes(), |answer| json(&answer)));
    }
    let metrics = client.get_text("metrics").await.unwrap_or_else(|error| plain::with_causes(&error));
    put("metrics.txt", "the daemon's counters", metrics.into_bytes());
    put("log.ndjson", "the newest entries of the admin log", log(client).await.into_bytes());
    put(
        "unit.txt",
        "what systemd says of the service",
        commands(&[
            &["systemctl", "status", "--no-pager", "--lines=100", "matterbind"],
            &["systemctl", "cat", "matterbind"],
        ]),
    );
    put(
        "network.txt",
        "addresses, routes and UDP sockets of this machine",
        commands(&[&["ip", "addr"], &["ip", "route"], &["ip", "-6", "route"], &["ss", "-ulpn"]]),
    );
    contents
}

fn json(document: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec_pretty(document).unwrap_or_else(|error| error.to_string().into_bytes())
}

fn configuration(config: &Result<Loaded, ConfigMistakes>) -> Vec<u8> {
    match config {
        Ok(Loaded { config, .. }) => load::effective(&masked(config.clone())).into_bytes(),
        Err(mistakes) => mistakes.to_string().into_bytes(),
    }
}

fn masked(mut config: Config) -> Config {
    const MASK: &str = "(masked)";
    if let Some(cloud) = &mut config.cloud {
        cloud.email = MASK.to_owned();
        cloud.user_domain = MASK.to_owned();
    }
    for product in config.products.iter_mut().filter(|product| product.extra.is_some()) {
        product.extra = Some(MASK.to_owned());
    }
    config
}

async fn log(client: &AdminClient) -> String {
    let query = LogQuery { limit: Some(ENTRIES), ..LogQuery::default() };
    let mut text = String::new();
    match client.get_lines(&["logs"], &query).await {
        Ok(mut lines) => {
            while let Some(line) = lines.next().await {
                match line {
                    Ok(line) => text.push_str(&line),
                    Err(error) => text.push_str(&plain::with_causes(&error)),
                }
                text.push('\n');
            }
        }
        Err(error) => text = plain::with_causes(&error),
    }
    text
}

/// What these commands print, one after the other. `systemctl cat` may show a proxy's address in `Environment=`.
fn commands(lines: &[&[&str]]) -> Vec<u8> {
    let mut text = String::new();
    for line in lines {
        let (program, arguments) = (line[0], &line[1..]);
        text.push_str(&format!("$ {}\n", line.join(" ")));
        let output = Command::new(program).args(arguments).stdin(Stdio::null()).env("LC_ALL", "C").output();
        match output {
            Ok(output) => {
                text.push_str(&String::from_utf8_lossy(&output.stdout));
                text.push_str(&String::from_utf8_lossy(&output.stderr));
            }
            Err(error) => text.push_str(&format!("{error}\n")),
        }
    }
    text.lines().map(|line| without_secret(line) + "\n").collect::<String>().into_bytes()
}

/// A variable that a unit sets may be a secret, whatever its name; and an address may hold a password.
fn without_secret(line: &str) -> String {
    let trimmed = line.trim_start();
    if let Some((key, _)) = trimmed.split_once('=')
        && matches!(key, "Environment" | "SetCredential" | "SetCredentialEncrypted")
    {
        return format!("{key}=(masked)");
    }
    match line.split_once("://").and_then(|(before, rest)| Some((before, rest.split_once('@')?.1))) {
        Some((before, after)) => format!("{before}://(masked)@{after}"),
        None => line.to_owned(),
    }
}

/// Writes the archive, for nobody else to read; answers what is in it.
pub(super) fn write(file: &Path, contents: &[Content]) -> Result<String, CliError> {
    // Always a matter of what was asked for: exit code 1 says here that there are warnings.
    let failed =
        |error: std::io::Error| CliError::Usage(format!("writing {}: {}", file.display(), plain::cause(&error)));
    let mut options = OpenOptions::new();
    let out = options.write(true).create_new(true).mode(0o600).open(file).map_err(failed)?;
    let listing: Vec<String> = contents
        .iter()
        .map(|Content { name, what, bytes }| format!("  {name:<12} {:>8}  {what}", bytes.len()))
        .collect();
    let text = format!(
        "{} holds, without passwords, tokens, keys and setup codes:\n{}\nNames and addresses of your devices are in it: send it to \
         whom you trust with them.",
        file.display(),
        listing.join("\n")
    );
    let mut archive = tar::Builder::new(out);
    let now = u64::try_from(Timestamp::now().as_second()).unwrap_or_default();
    let listed = [("README.txt", text.as_bytes())];
    for (name, bytes) in listed.into_iter().chain(contents.iter().map(|content| (content.name, &content.bytes[..]))) {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(now);
        archive.append_data(&mut header, format!("matterbind-doctor/{name}"), bytes).map_err(failed)?;
    }
    archive.into_inner().and_then(|mut out| out.flush()).map_err(failed)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_unit_sets_is_masked() {
        assert_eq!(without_secret("Environment=HTTPS_PROXY=http://u:p@x TOKEN=1"), "Environment=(masked)");
        assert_eq!(without_secret("proxy is http://user:secret@proxy:3128/"), "proxy is http://(masked)@proxy:3128/");
        assert_eq!(without_secret("ExecStart=/usr/bin/matterbind daemon"), "ExecStart=/usr/bin/matterbind daemon");
    }

    #[test]
    fn the_account_is_masked_in_the_configuration() {
        let config = load::sample_config();
        let email = config.cloud.as_ref().unwrap().email.clone();
        let text = String::from_utf8(configuration(&Ok(Loaded { config, notes: Vec::new() }))).unwrap();
        assert!(!text.contains(&email) && text.contains("(masked)") && text.contains("base_url"), "{text}");
    }
}
