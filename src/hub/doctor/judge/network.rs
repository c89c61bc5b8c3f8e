//! Interfaces, echoes, ports, and the ways to the nodes.

use std::net::Ipv6Addr;

use super::{Findings, listed, sentence};
use crate::discovery::{Echo, EchoOutcome, InterfaceState};
use crate::hub::doctor::facts::{Facts, Firewall, Network, Radio};

const PORTS: &str = "UDP 5353 (mDNS) and UDP 5540 (Matter)";

pub(super) fn judge(facts: &Facts, findings: &mut Findings) {
    let deaf = facts.daemon.as_ref().and_then(|daemon| daemon.deaf.as_deref());
    match &facts.network {
        Some(network) => {
            interfaces(network, deaf, findings);
            echoes(&network.survey.echoes, &facts.firewall, findings);
        }
        None => {
            if let Some(deaf) = deaf {
                findings.error(
                    "discovery-unavailable",
                    sentence(deaf),
                    "restart the daemon; if it stays so, report it",
                );
            }
        }
    }
    firewall(facts, findings);
    radio(facts.radio.as_ref(), findings);
    if let Some(port) = facts.daemon.as_ref().and_then(|daemon| daemon.matter_port) {
        findings.well("matter-port", format!("Devices answer to UDP port {port}."));
    }
    ways(facts, findings);
}

fn interfaces(network: &Network, deaf: Option<&str>, findings: &mut Findings) {
    let parts: Vec<&InterfaceState> = network.survey.interfaces.iter().filter(|found| found.takes_part).collect();
    let missing: Vec<String> = network
        .configured
        .iter()
        .filter(|name| parts.iter().all(|part| part.name != **name))
        .map(|n| why_not(network, n))
        .collect();
    let edit = "correct network.interfaces (`ip link` shows the names; an empty list takes every one), then restart the daemon";
    if parts.is_empty() {
        if network.configured.is_empty() {
            let others: Vec<String> = network.survey.interfaces.iter().map(stands).collect();
            let seen = format!("No network interface is up, has an address and can multicast: {}.", listed(&others));
            findings.error(
                "no-interface",
                seen,
                "connect the hub to the network, or bring an interface up: `ip link`, `ip addr`",
            );
        } else {
            let seen =
                format!("No device can be found: of the interfaces in network.interfaces, {}.", listed(&missing));
            findings.error("no-interface", seen, edit);
        }
        return;
    }
    if !missing.is_empty() {
        findings.warning(
            "interface-missing",
            format!("Of the interfaces in network.interfaces, {}.", listed(&missing)),
            edit,
        );
    }
    if let Some(deaf) = deaf {
        let hint =
            "another program may hold UDP 5353 for itself: `ss -ulpn sport = 5353` names it; restart the daemon then";
        findings.error("discovery-unavailable", sentence(deaf), hint);
    }
    for part in &parts {
        one(part, findings);
    }
}

fn one(part: &InterfaceState, findings: &mut Findings) {
    let name = &part.name;
    if part.loopback {
        let hint = "right for simulated devices on the hub itself; else correct network.interfaces";
        return findings.note(
            "loopback",
            format!("Devices are looked for on {name}, where there is only this machine."),
            hint,
        );
    }
    if !part.running {
        let seen = format!("{name} has no carrier: no cable, or no access point.");
        findings.warning("no-carrier", seen, "plug it in, or join the wireless network");
    }
    if !part.multicast {
        let hint = format!(
            "`ip link set {name} multicast on`; a tunnel or a mobile link cannot do it: name another interface"
        );
        findings.warning("no-multicast", format!("{name} does not multicast: no device is found on it."), hint);
    }
    let routable = part.v6.iter().any(|ip| !is_link_local(ip));
    if part.v6.is_empty() {
        let hint = format!(
            "switch IPv6 on: `sysctl net.ipv6.conf.{name}.disable_ipv6=0`; Matter is spoken over IPv6, and only some devices answer over IPv4"
        );
        findings.warning("no-ipv6", format!("{name} has no IPv6 address."), hint);
    } else if !routable {
        let hint = "devices on this link are reached; for those behind a Thread border router, the hub must accept its router \
                    advertisements";
        findings.note("link-local-only", format!("{name} has a link-local IPv6 address and no other."), hint);
    }
    let addresses: Vec<String> =
        part.v4.iter().map(ToString::to_string).chain(part.v6.iter().map(ToString::to_string)).collect();
    findings.well("interface", format!("Devices are looked for on {name} ({}).", listed(&addresses)));
}

fn is_link_local(ip: &Ipv6Addr) -> bool {
    ip.segments()[0] & 0xffc0 == 0xfe80
}

/// `eth7 does not exist`, `eth1 is down`.
fn why_not(network: &Network, name: &str) -> String {
    match network.survey.interfaces.iter().find(|found| found.name == name) {
        None => format!("{name} does not exist"),
        Some(found) => stands(found),
    }
}

fn stands(found: &InterfaceState) -> String {
    let name = &found.name;
    if found.loopback {
        format!("{name} is the loopback interface, where there is only this machine")
    } else if !found.up {
        format!("{name} is down")
    } else if found.v4.is_empty() && found.v6.is_empty() {
        format!("{name} has no address")
    } else if !found.multicast {
        format!("{name} does not multicast")
    } else {
        format!("{name} is up")
    }
}

fn echoes(echoes: &[Echo], firewall: &Firewall, findings: &mut Findings) {
    let places = |fits: &dyn Fn(&Echo) -> bool| -> Vec<String> {
        echoes
            .iter()
            .filter(|echo| fits(echo))
            .map(|echo| format!("{} over IPv{}", echo.interface, echo.family))
            .collect()
    };
    let guard = match firewall.managers.first().map(String::as_str) {
        Some("ufw") => "`sudo ufw allow 5353/udp && sudo ufw allow 5540/udp`".to_owned(),
        Some("firewalld") => {
            "`sudo firewall-cmd --permanent --add-service=mdns --add-port=5540/udp && sudo firewall-cmd --reload`"
                .to_owned()
        }
        _ => format!("let {PORTS} in and out: `sudo nft list ruleset` shows what drops them"),
    };
    let silent = places(&|echo| echo.is_mdns() && echo.outcome == EchoOutcome::Silent);
    if !silent.is_empty() {
        let seen = format!(
            "What the hub sends by mDNS does not come back to it on {}: a firewall of this machine drops it.",
            listed(&silent)
        );
        findings.error("mdns-silent", seen, guard.clone());
    }
    for echo in echoes.iter().filter(|echo| echo.is_mdns()) {
        if let EchoOutcome::Failed(why) = &echo.outcome {
            let (name, family) = (&echo.interface, echo.family);
            let seen = format!("mDNS cannot be spoken on {name} over IPv{family}: {}", sentence(why));
            let hint = "another program may hold UDP 5353 for itself, or there is no way to multicast: `ss -ulpn sport = 5353`, `ip route`";
            findings.error("mdns-failed", seen, hint);
        }
    }
    let blocked = places(&|echo| !echo.is_mdns() && echo.outcome != EchoOutcome::Heard);
    if !blocked.is_empty() && silent.is_empty() {
        let seen = format!("UDP port 5540, where devices listen, does not get through on {}.", listed(&blocked));
        findings.warning("matter-port-blocked", seen, guard);
    }
    let heard = places(&|echo| echo.is_mdns() && echo.outcome == EchoOutcome::Heard);
    if !heard.is_empty() {
        findings.well("mdns-echo", format!("mDNS comes back on {}.", listed(&heard)));
    }
}

fn firewall(facts: &Facts, findings: &mut Findings) {
    let Firewall { managers, dropping } = &facts.firewall;
    let closed: Vec<String> =
        dropping.iter().filter(|chain| !chain.names_mdns).map(|chain| chain.name.clone()).collect();
    let hint = format!("it must let {PORTS} in on the devices' interface");
    if !closed.is_empty() {
        let seen = format!("A firewall drops what it has no rule for, and no rule names mDNS: {}.", listed(&closed));
        findings.warning("firewall-drops", seen, hint);
    } else if !managers.is_empty() {
        findings.note("firewall", format!("A firewall is switched on: {}.", listed(managers)), hint);
    }
}

fn radio(radio: Option<&Radio>, findings: &mut Findings) {
    let Some(Radio { adapter, missing, hint, amiss }) = radio else { return };
    let seen = || format!("No device can be brought in over Bluetooth: {}", sentence(missing));
    match adapter {
        Some(adapter) => findings.well("bluetooth", format!("Devices on Bluetooth are found by {adapter}.")),
        None if *amiss => findings.warning("bluetooth-unavailable", seen(), hint),
        None => findings.note("no-bluetooth", seen(), hint),
    }
}

fn ways(facts: &Facts, findings: &mut Findings) {
    let Some(routes) = &facts.routes else { return };
    let Some(first) = routes.without.first() else {
        if routes.tried > 0 {
            findings.well("routes", format!("There is a way to each of the nodes' {} addresses.", routes.tried));
        }
        return;
    };
    let names: Vec<String> = routes.without.iter().map(|node| format!("{} ({})", node.name, node.node_id)).collect();
    let seen = format!(
        "There is no way from this machine to {}; for instance to {}: {}",
        listed(&names),
        first.address,
        sentence(&first.why)
    );
    let hint = "check `ip -6 route` and `ip route`: a device behind a Thread border router needs the route that it announces \
                (accept_ra_rt_info_max_plen)";
    findings.warning("node-unroutable", seen, hint);
}
