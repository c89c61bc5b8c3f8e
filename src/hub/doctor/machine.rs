//! What any process sees of its machine: itself and its limits, the firewall, the ways to addresses, systemd's unit. Reads, and
//! changes nothing.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Resource, getrlimit};
use serde_json::Value;

use super::facts::{DroppingChain, Firewall, Process, Unit, Versions};
use crate::node::read_scoped;
use crate::systemd;

/// The service's unit.
const UNIT: &str = "matterbind";
const MDNS_PORT: u64 = 5353;

/// This process and its limits.
pub(crate) fn process() -> Process {
    let open = fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as u64);
    Process {
        managed: std::env::var_os("NOTIFY_SOCKET").is_some(),
        watchdog: systemd::watchdog_interval().map(|half| half * 2),
        files: open.zip(getrlimit(Resource::Nofile).current),
        memory: memory(),
        replaced: fs::read_link("/proc/self/exe")
            .is_ok_and(|path| path.as_os_str().as_encoded_bytes().ends_with(b" (deleted)")),
    }
}

/// Of the control group that we are in, where it has a limit.
fn memory() -> Option<(u64, u64)> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = own.lines().find_map(|line| line.strip_prefix("0::/"))?.to_owned();
    let number =
        |name| fs::read_to_string(Path::new("/sys/fs/cgroup").join(&group).join(name)).ok()?.trim().parse().ok();
    Some((number("memory.current")?, number("memory.max")?))
}

/// Which versions are at work.
pub(crate) fn versions() -> Versions {
    let uname = rustix::system::uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let system = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    Versions {
        matterbind: env!("CARGO_PKG_VERSION").to_owned(),
        daemon: None,
        kernel: format!("{} {} ({})", text(uname.sysname()), text(uname.release()), text(uname.machine())),
        system: system.map_or_else(|| "an unnamed system".to_owned(), |name| name.trim_matches('"').to_owned()),
    }
}

/// Whether the kernel knows a way to an address. Nothing is sent.
pub(crate) fn way_to(socket: SocketAddr) -> io::Result<()> {
    let any: IpAddr = if socket.is_ipv4() { [0, 0, 0, 0].into() } else { Ipv6Addr::UNSPECIFIED.into() };
    UdpSocket::bind((any, 0))?.connect(socket)
}

/// `fe80::1%eth0` as it is kept in a record.
pub(crate) fn remembered(address: &str, port: u16) -> Option<SocketAddr> {
    match read_scoped(address)? {
        (IpAddr::V6(ip), Some(name)) => {
            let index = fs::read_to_string(Path::new("/sys/class/net").join(name).join("ifindex")).ok();
            // An interface that is gone has no number, and no way leads there.
            let index = index.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
            Some(SocketAddrV6::new(ip, port, 0, index).into())
        }
        (ip, _) => Some(SocketAddr::new(ip, port)),
    }
}

/// What guards this machine's ports, as far as this process may see it: only root sees the rules.
pub(crate) fn firewall() -> Firewall {
    let ufw =
        fs::read_to_string("/etc/ufw/ufw.conf").is_ok_and(|text| text.lines().any(|line| line.trim() == "ENABLED=yes"));
    let managers = [("ufw", ufw), ("firewalld", Path::new("/run/firewalld").exists())];
    let managers = managers.into_iter().filter(|(_, on)| *on).map(|(name, _)| name.to_owned()).collect();
    let rules = if rustix::process::geteuid().is_root() { run("nft", &["-j", "list", "ruleset"]) } else { None };
    Firewall { managers, dropping: rules.map(|rules| dropping(&rules)).unwrap_or_default() }
}

/// Input chains that drop by their policy, from `nft -j list ruleset`.
fn dropping(ruleset: &str) -> Vec<DroppingChain> {
    let Ok(document) = serde_json::from_str::<Value>(ruleset) else { return Vec::new() };
    let objects: Vec<&Value> = document["nftables"].as_array().into_iter().flatten().collect();
    let chains = objects.iter().map(|object| &object["chain"]);
    let drops = chains.filter(|chain| chain["hook"] == "input" && chain["policy"] == "drop");
    drops
        .map(|chain| {
            let beside = |rule: &Value| rule["family"] == chain["family"] && rule["table"] == chain["table"];
            let rules = objects.iter().map(|object| &object["rule"]).filter(|rule| beside(rule));
            let text = |key: &str| chain[key].as_str().unwrap_or_default().to_owned();
            DroppingChain {
                name: format!("{} {} {}", text("family"), text("table"), text("name")),
                names_mdns: rules.into_iter().any(|rule| names(&rule["expr"], MDNS_PORT)),
            }
        })
        .collect()
}

fn names(value: &Value, port: u64) -> bool {
    match value {
        Value::Number(number) => number.as_u64() == Some(port),
        Value::Array(items) => items.iter().any(|item| names(item, port)),
        Value::Object(object) => object.values().any(|item| names(item, port)),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}

/// What systemd says of the unit; `None` where there is no systemd.
pub(crate) fn unit() -> Option<Unit> {
    let properties = "--property=LoadState,ActiveState,Result,ExecMainStatus,NRestarts,NeedDaemonReload,UnitFileState";
    let said = run("systemctl", &["show", UNIT, properties])?;
    let files = run("systemctl", &["cat", UNIT]).unwrap_or_default();
    Some(read_unit(&said, &files, &|path| path.exists()))
}

/// As `systemctl show` and `systemctl cat` print it.
fn read_unit(said: &str, files: &str, exists: &dyn Fn(&Path) -> bool) -> Unit {
    let value = |key: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_default().to_owned()
    };
    // An absolute path only: a bare name is looked for in several places.
    let credentials = files.lines().filter_map(|line| {
        let (key, given) = line.trim().split_once('=')?;
        let (name, path) = given.split_once(':')?;
        let is_one = matches!(key, "LoadCredential" | "LoadCredentialEncrypted") && path.starts_with('/');
        is_one.then(|| (name.to_owned(), PathBuf::from(path)))
    });
    Unit {
        load: value("LoadState"),
        active: value("ActiveState"),
        result: value("Result"),
        exit_status: value("ExecMainStatus").parse().ok(),
        restarts: value("NRestarts").parse().unwrap_or_default(),
        needs_reload: value("NeedDaemonReload") == "yes",
        enabled: value("UnitFileState").starts_with("enabled"),
        lost_credentials: credentials.filter(|(_, path)| !exists(path)).collect(),
    }
}

/// A command's output, in the language that its programs read; `None` where it is missing or fails.
fn run(program: &str, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C").env("SYSTEMD_PAGER", "").stdin(Stdio::null()).stderr(Stdio::null());
    let output = command.output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_that_drops_is_named_with_whether_it_knows_mdns() {
        let ruleset = |rule: &str| {
            format!(
                r#"{{"nftables":[{{"metainfo":{{"version":"1.0.6"}}}},
                {{"table":{{"family":"inet","name":"filter"}}}},
                {{"chain":{{"family":"inet","table":"filter","name":"input","hook":"input","prio":0,"policy":"drop"}}}},
                {{"chain":{{"family":"inet","table":"filter","name":"output","hook":"output","prio":0,"policy":"drop"}}}},
                {{"chain":{{"family":"ip","table":"nat","name":"input","hook":"input","prio":0,"policy":"accept"}}}},
                {{"rule":{{"family":"inet","table":"filter","chain":"input","expr":[{{"match":{{"op":"==",
                  "left":{{"payload":{{"protocol":"udp","field":"dport"}}}},"right":{rule}}}}},{{"accept":null}}]}}}}]}}"#
            )
        };
        let named = |names_mdns| vec![DroppingChain { name: "inet filter input".to_owned(), names_mdns }];
        assert_eq!(dropping(&ruleset("22")), named(false));
        assert_eq!(dropping(&ruleset("5353")), named(true));
        assert_eq!(dropping(&ruleset(r#"{"set":[22,5353,5540]}"#)), named(true));
        assert_eq!(dropping("Operation not permitted"), Vec::new());
    }

    #[test]
    fn a_lost_credential_is_read_out_of_the_unit() {
        let said = "LoadState=loaded\nActiveState=failed\nResult=exit-code\nExecMainStatus=243\nNRestarts=0\n\
                    NeedDaemonReload=no\nUnitFileState=enabled\n";
        let files = "# /usr/lib/systemd/system/matterbind.service\n[Service]\n#LoadCredential=a:/etc/a\n\
                     LoadCredential=cloud-password:/etc/matterbind/cloud-password\n\
                     LoadCredentialEncrypted=matterbind-seal:/etc/credstore.encrypted/matterbind-seal\nLoadCredential=bare:bare\n";
        let unit = read_unit(said, files, &|path| path.ends_with("cloud-password"));
        let lost = ("matterbind-seal".to_owned(), PathBuf::from("/etc/credstore.encrypted/matterbind-seal"));
        assert_eq!((unit.exit_status, unit.enabled, unit.lost_credentials), (Some(243), true, vec![lost]));
    }

    #[test]
    fn there_is_a_way_to_ourselves_and_none_without_an_interface() {
        assert!(way_to("127.0.0.1:5540".parse().unwrap()).is_ok());
        assert!(way_to(remembered("fe80::1%no-such0", 5540).unwrap()).is_err());
        assert_eq!(remembered("not an address", 5540), None);
    }

    #[test]
    fn this_process_knows_itself() {
        let process = process();
        assert!(
            process.files.is_some_and(|(used, limit)| used > 0 && used < limit) && !process.replaced,
            "{process:?}"
        );
        assert!(versions().kernel.starts_with("Linux"));
    }
}
