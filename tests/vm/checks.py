"""What must hold of the installed package. In the order of a hub's life: each check leaves a hub that works behind, or says so.

Not here: the machine (`machine.py`), what is packed and reported (`run`).
"""

import json
import re
import threading
import time

from machine import HOST, Failed

CHECKS = []
UNIT = "/etc/systemd/system/matterbind.service.d"
READY = "systemctl show matterbind -p ActiveState | grep -qx ActiveState=active"

CONFIG = f"""\
[attestation]
allow_test = [ {{ vendor_id = 0xFFF1 }} ]

[cloud]
base_url = "http://{HOST}:8787"
user_domain = "demo"
user_domain_secret_file = "cloud-domain-secret"
email = "hub@example.com"
password_file = "cloud-password"

[[products]]
vendor_id = 0xFFF1
product_id = 0x8001
product_key = "p11abc"
device_key = "serial-number"
binding_code = "random"
"""

CREDENTIALS = """\
[Service]
LoadCredential=cloud-password:/etc/secrets/cloud-password
LoadCredential=cloud-domain-secret:/etc/secrets/cloud-domain-secret
LoadCredentialEncrypted=matterbind-seal:/etc/credstore.encrypted/matterbind-seal
"""
SEAL = ("head -c 32 /dev/urandom | base64 | systemd-creds encrypt {} --name=matterbind-seal - "
        "/etc/credstore.encrypted/matterbind-seal")


def check(points, text):
    """`points`: which of the issues' points it is about. The text says what holds if it passes."""
    def add(function):
        CHECKS.append((points, text, function))
        return function
    return add


def expect(holds, seen):
    if not holds:
        raise Failed(f"{seen}"[-1500:])


class Hub:
    """The machine with the product on it, and the house around."""

    def __init__(self, machine, house):
        self.m, self.house = machine, house
        self.devices = {}
        self.next = 100

    def sh(self, command, timeout=120):
        return self.m.sh(command, timeout)

    def as_person(self, name, command, timeout=120):
        return self.m.sh(f"runuser -u {name} -- {command}", timeout)

    def write(self, path, text):
        self.m.sh(f"mkdir -p {path.rsplit('/', 1)[0]} && cat > {path} <<'EOF_OF_FILE'\n{text}EOF_OF_FILE").ok()

    def show(self, name):
        return self.m.sh(f"systemctl show matterbind -p {name} --value").text.strip()

    def await_ready(self, timeout=60):
        self.m.until("the service to be ready", READY, timeout)

    def restart(self):
        self.m.sh("systemctl daemon-reload; systemctl reset-failed matterbind; systemctl restart matterbind").ok()
        self.await_ready()

    def start_took(self):
        """Seconds from the start of the process to READY."""
        begin, ready = int(self.show("ExecMainStartTimestampMonotonic")), int(self.show("ActiveEnterTimestampMonotonic"))
        return (ready - begin) / 1e6

    def new_device(self, name):
        self.next += 1
        process, code = self.house.device(self.next, name)
        self.devices[name] = process
        return code

    def commission(self, code, *options):
        return self.sh(f"matterbind commission '{code}' --json --wait-bind 60s {' '.join(options)}", 240)

    def nodes(self):
        return self.sh("matterbind nodes --json").json()["nodes"]

    def node_named(self, name):
        return [node for node in self.nodes() if node["product_name"] == name]

    def expect_bound(self, answer):
        result = answer.json()
        expect(answer.code == 0 and result["bind"]["state"] == "bound", answer.text)

    def expect_in_sync(self):
        answer = self.sh("matterbind sync --json")
        expect(answer.code == 0 and answer.json()["in_sync"], answer.text)

    def journal(self, *matches):
        """Entries of this boot that match, whole."""
        text = self.sh(f"journalctl --sync; journalctl -b -u matterbind -o json --all {' '.join(matches)}").text
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def reboot(self, cut=False, **how):
        if cut:
            self.m.power_cut()
        else:
            self.m.shut_down()
        return self.m.boot(**how)


# The package is installed.

@check("14, 13.7", "dpkg installs it without a question; user, group and directories are there, and nothing runs yet")
def install(hub):
    said = hub.sh("dpkg -i /share/matterbind_0.1.0-1_amd64.deb").ok()
    expect(hub.show("ActiveState") == "inactive", said)
    expect(hub.sh("stat -c '%U:%G %a' /etc/matterbind /etc/matterbind/matterbind.toml").ok().split("\n")[:2]
           == ["root:matterbind 750", "root:matterbind 640"], hub.sh("ls -la /etc/matterbind").text)
    hub.sh("getent passwd matterbind && getent group matterbind && dpkg --verify matterbind && test ! -e /var/lib/matterbind").ok()
    hub.sh("matterbind check-config").ok()
    hub.sh("test -e /usr/share/man/man1/matterbind.1.gz -a -e /usr/share/matterbind/matterbind.toml").ok()


@check("14", "systemd has nothing to say against the unit, and gives its sandbox an exposure of at most 1.0")
def unit_is_sound(hub):
    verified = hub.sh("systemd-analyze verify --man=no matterbind.service")
    expect(verified.code == 0 and not verified.text.strip(), verified.text)
    exposure = hub.sh("systemd-analyze security matterbind.service --no-pager | tail -n 1").text
    expect(float(re.search(r"(\d+\.\d+)", exposure).group(1)) <= 1.0, exposure)


@check("14.1", "with secrets that only the unit has, check-config says a note, and update-paa works before the first start "
               "and leaves what it makes to the service")
def tools_before_the_first_start(hub):
    hub.write("/etc/matterbind/matterbind.toml", CONFIG)
    hub.sh("mkdir -m 700 /etc/secrets; cd /etc/secrets; printf demo-password > cloud-password; "
           "printf demo-secret-0123456789abcdef > cloud-domain-secret").ok()
    hub.write(f"{UNIT}/secrets.conf", CREDENTIALS)
    judged = hub.sh("matterbind check-config")
    expect(judged.code == 0 and "note:" in judged.text, judged.text)
    hub.sh("matterbind attestation update-paa --from /share/paa").ok()
    owners = hub.sh("find /var/lib/matterbind -printf '%u:%g\\n' | sort -u").text.split()
    expect(owners == ["matterbind:matterbind"], owners)


@check("14.6", "the README's lines make the seal on Debian 12, with the host's key")
def make_the_seal(hub):
    hub.sh("mkdir -p -m 700 /etc/credstore.encrypted").ok()
    hub.sh(SEAL.format("")).ok()


@check("14.4", "the first start, which makes the fabric, is ready in under 3 s")
def first_start(hub):
    hub.sh("systemctl daemon-reload; systemctl enable --now matterbind").ok()
    hub.await_ready()
    took = hub.start_took()
    status = hub.sh("matterbind status --json").json()
    expect(status["ready"], status)
    expect(took < 3, f"it took {took:.2f} s")
    return f"{took:.2f} s"


@check("14, 13.8", "the keys are sealed, and the directory is the service's alone")
def keys_are_sealed(hub):
    expect(hub.sh("stat -c '%U %a' /var/lib/matterbind").text.strip() == "matterbind 700", "mode of the state directory")
    said = hub.sh("journalctl -b -u matterbind --no-pager").text
    expect("file's mode" not in said and "not sealed" not in said, said)


@check("14, 13.8", "a member of group matterbind commissions a device, and it is bound; device, record and cloud agree")
def member_commissions(hub):
    hub.sh("usermod -aG matterbind anna").ok()
    code = hub.new_device("Hall lamp")
    answer = hub.as_person("anna", f"matterbind commission '{code}' --json --wait-bind 60s --name Hall", 240)
    hub.expect_bound(answer)
    hub.expect_in_sync()
    return f"{answer.json()['timings_ms']['total']} ms"


@check("13.8", "somebody else is refused, and is told what to do")
def stranger_is_refused(hub):
    for command in ("status", "nodes", "commission MT:-24J0AFN00KA0648G00"):
        answer = hub.as_person("bert", f"matterbind {command}")
        expect(answer.code == 5 and "group" in answer.text, f"exit code {answer.code}: {answer.text}")
    for path in ("/var/lib/matterbind/fabric.keys", "/etc/matterbind/matterbind.toml"):
        hub.sh(f"test -s {path}").ok()
        expect(hub.as_person("bert", f"cat {path}").code != 0, f"bert reads {path}")


@check("14, 9.14", "with the unit's line about addresses narrowed, as its owner would fill it in, devices work; what is not listed "
                   "is out of reach")
def addresses_are_listed(hub):
    hub.write(f"{UNIT}/addresses.conf",
              "[Service]\nIPAddressAllow=\nIPAddressAllow=localhost link-local 224.0.0.251 ff02::fb fd77:1::/64 10.77.1.0/24\n")
    try:
        hub.restart()
        hub.expect_bound(hub.commission(hub.new_device("Listed lamp")))
        hub.write(f"{UNIT}/addresses.conf", "[Service]\nIPAddressAllow=\nIPAddressAllow=localhost\n")
        hub.restart()
        expect(hub.sh("matterbind node check Hall", 240).code == 4, "a node answers from an address that is not listed")
    finally:
        hub.sh(f"rm {UNIT}/addresses.conf").ok()
        hub.restart()
    hub.m.until("the node", "matterbind node check Hall", 120)


# The journal.

@check("14.8", "what people alert on has a MESSAGE_ID, and `journalctl -x` says what it means")
def message_ids(hub):
    ready = hub.journal("KIND=daemon-ready")
    expect(ready and all(re.fullmatch("[0-9a-f]{32}", entry.get("MESSAGE_ID", "")) for entry in ready), ready)
    refused = hub.sh("matterbind commission 3497-011-2332 --json --address 10.77.1.1", 240)
    expect(refused.code == 4, refused.text)
    failed = hub.journal("KIND=commissioning-failed")
    expect(failed and failed[-1].get("MESSAGE_ID"), failed)
    explained = hub.sh(f"journalctl -b -x --no-pager MESSAGE_ID={failed[-1]['MESSAGE_ID']}").text
    expect("docs/troubleshooting.md has a table of the codes" in explained, explained)


@check("14.8", "a node that is away fills no journal: at most five lines of the stack, and none names a file of the build machine")
def journal_is_quiet(hub):
    process = hub.devices["Hall lamp"]
    before = len(hub.journal())
    process.send_signal(19)
    try:
        for _ in range(3):
            expect(hub.sh("matterbind node check Hall", 240).code == 4, "a stopped device answers")
    finally:
        process.send_signal(18)
    entries = hub.journal()
    expect(len(entries) > 0, "the journal is empty")
    of_stack = [entry["MESSAGE"] for entry in entries[before:] if "rs_matter" in entry.get("LOG_TARGET", "")]
    expect(len(of_stack) <= 5, of_stack)
    paths = [(key, value) for entry in entries for key, value in entry.items()
             if isinstance(value, str) and re.search(r"/(registry/src|rustc|\.cargo|checkouts)/", value)]
    expect(not paths, paths[:3])
    hub.m.until("the node to answer again", "matterbind node check Hall", 120)
    return f"{len(entries) - before} lines, {len(of_stack)} of the stack"


@check("13.8", "systemctl reload takes over log.level")
def reload(hub):
    hub.write("/etc/matterbind/conf.d/level.toml", '[log]\nlevel = "info,matterbind=debug"\n')
    hub.sh("chown -R root:matterbind /etc/matterbind/conf.d && chmod 640 /etc/matterbind/conf.d/* && systemctl reload matterbind").ok()
    hub.m.until("the word of it", "journalctl -b -u matterbind --no-pager | grep -q 'reloaded: log.level'", 20)
    hub.sh("rm /etc/matterbind/conf.d/level.toml; systemctl reload matterbind").ok()


@check("14", "journald gone: the daemon goes on, commissions, and even starts; with journald back its lines are there again")
def journald_gone(hub):
    units = "systemd-journald.socket systemd-journald-dev-log.socket systemd-journald-audit.socket systemd-journald.service"
    hub.sh(f"systemctl stop {units}; ! systemctl is-active -q systemd-journald").ok()
    try:
        hub.expect_bound(hub.commission(hub.new_device("Mute lamp")))
        hub.restart()
        hub.sh("! systemctl is-active -q systemd-journald && matterbind node check Hall", 240).ok()
    finally:
        hub.sh("systemctl start systemd-journald.socket systemd-journald-dev-log.socket systemd-journald.service").ok()
    hub.restart()
    expect(hub.journal("KIND=daemon-ready"), "the journal has no line of the start")


# The watchdog.

STOP_THREAD = r"""
pid=$(systemctl show matterbind -p MainPID --value)
for task in /proc/$pid/task/*; do [ "$(cat $task/comm)" = NAME ] && tid=${tid:-${task##*/}}; done
[ -n "$tid" ] || exit 3
# PTRACE_SEIZE, PTRACE_INTERRUPT: the thread stands still. Whoever traces it has to wait for its end, or the process never ends.
setsid perl -e '$thread = $ARGV[0] + 0; alarm 300;
    syscall(101, 0x4206, $thread, 0, 0) == 0 or die $!; syscall(101, 0x4207, $thread, 0, 0) == 0 or die $!;
    1 while waitpid($thread, 0x40000000) > 0' $tid > /run/tracer 2>&1 < /dev/null &
sleep 1; cat /run/tracer; kill -0 $!
"""


def survives(hub, how, said):
    restarts, pid = int(hub.show("NRestarts")), hub.show("MainPID")
    begin = time.monotonic()
    hub.sh(how.replace("$PID", pid)).ok()
    if said:
        hub.m.until(f"STATUS to say {said!r}", f"systemctl show matterbind -p StatusText --value | grep -q '{said}'", 40)
    hub.m.until("a restart", f"test $(systemctl show matterbind -p NRestarts --value) -gt {restarts}", 150)
    hub.await_ready()
    took = time.monotonic() - begin
    hub.m.until("the node", "matterbind node check Hall", 120)
    return f"{took:.0f} s"


@check("14.3", "the watchdog: with the Matter thread stopped, it says what it waits for and is restarted")
def matter_thread_stands(hub):
    return survives(hub, STOP_THREAD.replace("NAME", "matter"), "waiting for the Matter stack")


@check("14.3", "the watchdog: with the mDNS thread stopped, it says what it waits for and is restarted")
def mdns_thread_stands(hub):
    return survives(hub, STOP_THREAD.replace("NAME", "mDNS_daemon"), "waiting for discovery")


@check("13.8", "the watchdog: kill -STOP ends in a restart")
def stopped(hub):
    return survives(hub, "kill -STOP $PID", None)


@check("14", "kill -9 ends in a restart")
def killed(hub):
    return survives(hub, "kill -KILL $PID", None)


MANY_CONNECTIONS = r"""
ulimit -n 4096
setsid runuser -u anna -- perl -MSocket -e '
    for (1 .. 1200) { socket(my $s, AF_UNIX, SOCK_STREAM, 0) or last; connect($s, sockaddr_un("/run/matterbind/admin.sock")) or last; push @s, $s }
    $| = 1; print scalar(@s), "\n"; sleep 75' > /run/crowd 2>&1 < /dev/null &
sleep 5
"""


@check("14.3", "a member with 1,200 connections, for longer than two beats: nothing is restarted, and the daemon answers")
def many_connections(hub):
    restarts, pid = hub.show("NRestarts"), hub.show("MainPID")
    hub.sh(MANY_CONNECTIONS).ok()
    files = hub.sh(f"ls /proc/{pid}/fd | wc -l").text.strip()
    time.sleep(70)
    hub.m.until("the crowd to be gone", "! pgrep -u anna perl", 60)
    expect((hub.show("NRestarts"), hub.show("MainPID")) == (restarts, pid), hub.sh("systemctl status matterbind --no-pager").text)
    hub.m.until("the node", "matterbind node check Hall", 120)
    return f"{hub.sh('cat /run/crowd').text.strip()} connected, {files} descriptors open"


# Network and time.

@check("14.4", "a boot without a network does not wait for one: ready in under 3 s of its start, and devices work as soon as the "
               "cable is in")
def late_network(hub):
    hub.reboot(cable=False)
    hub.m.until("the boot", "systemctl is-system-running | grep -q -e running -e degraded", 180)
    hub.await_ready()
    in_the_boot = hub.start_took()
    # What else a boot does at that moment is not the daemon's.
    hub.restart()
    took = hub.start_took()
    expect(hub.sh("matterbind node check Hall", 240).code == 4, "a node answers without a network")
    hub.m.cable(True)
    hub.m.until("the node", "matterbind node check Hall", 120)
    hub.expect_bound(hub.commission(hub.new_device("Late lamp")))
    expect(took < 3 and in_the_boot < 10, f"it took {took:.2f} s, {in_the_boot:.2f} s during the boot")
    return f"{took:.2f} s, {in_the_boot:.2f} s during the boot"


@check("14", "an interface that gets another name, and IPv6 switched off and on")
def network_changes(hub):
    hub.sh("ip link set eth0 down; ip link set eth0 name lan7; ip link set lan7 up; ip addr add 10.77.1.2/24 brd + dev lan7").ok()
    hub.m.until("the node, on lan7", "matterbind node check Hall", 120)
    hub.sh("sysctl -qw net.ipv6.conf.lan7.disable_ipv6=1; ip route add 224.0.0.0/4 dev lan7").ok()
    hub.m.until("the node, by IPv4", "matterbind node check Hall", 120)
    hub.sh("sysctl -qw net.ipv6.conf.lan7.disable_ipv6=0; ip route del 224.0.0.0/4 dev lan7; ip link set lan7 down; "
           "ip link set lan7 name eth0; ip link set eth0 up; systemctl restart systemd-networkd").ok()
    hub.m.until("the node, as before", "matterbind node check Hall", 120)


@check("14", "a clock of 1970: it starts and says that the clock is not set; with the right time everything is as before")
def clock_of_1970(hub):
    now = int(time.time())
    hub.sh("date -s @86400 && systemctl restart matterbind").ok()
    hub.await_ready()
    status = hub.sh("matterbind status").text
    expect("clock" in status, status)
    hub.sh("matterbind node check Hall", 240).ok()
    hub.sh(f"date -s @{now + 5}").ok()
    hub.restart()
    hub.expect_bound(hub.commission(hub.new_device("Time lamp")))
    hub.expect_in_sync()


@check("14", "a boot with a flat battery (1970 in the hardware clock): ready, and its nodes answer")
def flat_battery(hub):
    hub.reboot(rtc="base=1970-01-01T00:00:10")
    hub.await_ready(180)
    date = hub.sh("date -u +%Y-%m-%d").text.strip()
    hub.m.until("the node", "matterbind node check Hall", 120)
    hub.reboot()
    hub.await_ready(180)
    hub.m.until("the node", "matterbind node check Hall", 120)
    return f"systemd made it {date}"


# Power.

def cut_in_an_attempt(hub, name, step):
    """Cuts the power as soon as the attempt is at this step."""
    code = hub.new_device(name)
    hub.sh(f"setsid matterbind commission '{code}' --events > /root/events 2>&1 < /dev/null &").ok()
    # From inside, in the same moment: the machine is off before anybody outside could have pulled its plug.
    hub.m.send(f"""until grep -q '"step":"{step}"' /root/events; do :; done; echo b > /proc/sysrq-trigger""")
    hub.m.await_off(60)
    hub.m.boot()
    hub.await_ready(180)
    # It may still hold the fail-safe of the attempt that was cut: the hub knows that it was its own and waits for its end.
    again = hub.sh(f"matterbind commission '{code}' --events", 300)
    expect(again.code == 0 or "already-on-this-fabric" in again.text, again.text)
    hub.m.until("one node", f"matterbind nodes --json | grep -q '\"{name}\"'", 120)
    expect(len(hub.node_named(name)) == 1, hub.nodes())
    hub.m.until("agreement", "matterbind sync --json", 120)
    knew = "; the hub knew that it was its own attempt" if "an attempt of this hub" in again.text else ""
    return f"cut at {step}{knew}"


@check("14, 13.8", "a power cut in a commissioning, on a disk that stays, before the device has anything of ours: afterwards it is "
                   "one node, in sync")
def early_cut(hub):
    return cut_in_an_attempt(hub, "Cut lamp 1", "arm-fail-safe")


@check("14, 13.8", "the same while it gets its credentials")
def middle_cut(hub):
    return cut_in_an_attempt(hub, "Cut lamp 2", "add-noc")


@check("14, 13.8", "the same while it is completed")
def late_cut(hub):
    return cut_in_an_attempt(hub, "Cut lamp 3", "complete")


@check("14.5", "an upgrade in an attempt, with a new key in the reference and a configuration of the owner's: no question, "
               "the owner's words stay, and the device is one node in the end")
def upgrade_in_an_attempt(hub):
    before = hub.sh("cat /etc/matterbind/matterbind.toml").text
    pid = hub.show("MainPID")
    code = hub.new_device("Upgrade lamp")
    hub.sh(f"setsid matterbind commission '{code}' --events > /root/events 2>&1 < /dev/null &").ok()
    hub.m.until("the attempt to begin", "grep -q . /root/events", 30)
    said = hub.sh("dpkg -i /share/matterbind_0.1.1-1_amd64.deb").ok()
    hub.await_ready()
    expect(hub.show("MainPID") != pid, f"the old daemon still runs: {said}")
    expect("onfiguration file" not in said and hub.sh("cat /etc/matterbind/matterbind.toml").text == before, said)
    hub.sh("grep -q 'a key of the next version' /usr/share/matterbind/matterbind.toml && test -z \"$(find /etc/matterbind -name '*.dpkg*')\"").ok()
    hub.m.until("the attempt's end", "! pgrep -f 'matterbind commission'", 120)
    if not hub.node_named("Upgrade lamp"):
        answer = hub.commission(code)
        expect(answer.code == 0, hub.sh("cat /root/events").text + answer.text)
    expect(len(hub.node_named("Upgrade lamp")) == 1, hub.nodes())
    hub.m.until("agreement", "matterbind sync --json", 120)


# The bad days.

@check("14.2", "no CA certificates and an https cloud: the daemon starts, commissions, and says what is missing")
def no_certificates(hub):
    hub.sh("mv /etc/ssl/certs /etc/ssl/certs.away; mkdir /etc/ssl/certs; "
           f"sed -i 's#http://{HOST}:8787#https://iot-api.example.com#' /etc/matterbind/matterbind.toml; systemctl restart matterbind").ok()
    try:
        hub.await_ready()
        hub.sh("matterbind status").ok()
        answer = hub.sh(f"matterbind commission '{hub.new_device('Poor lamp')}' --json", 240)
        expect(answer.code in (0, 6) and answer.json()["outcome"] == "commissioned", answer.text)
        said = hub.sh("matterbind status; matterbind outbox").text
        expect("certificates" in said, said)
    finally:
        hub.sh("rmdir /etc/ssl/certs; mv /etc/ssl/certs.away /etc/ssl/certs; "
               f"sed -i 's#https://iot-api.example.com#http://{HOST}:8787#' /etc/matterbind/matterbind.toml").ok()
        hub.restart()
    hub.m.until("agreement", "matterbind outbox retry $(matterbind outbox --json | grep -o '\"id\":[0-9]*' | cut -d: -f2) 2>/dev/null; matterbind sync --json", 120)


def refuses_to_start(hub, change, undo, words):
    hub.sh("systemctl stop matterbind").ok()
    hub.sh(change).ok()
    try:
        since = hub.sh("date +%s.%N").text.strip()
        hub.sh("systemctl daemon-reload; systemctl reset-failed matterbind; systemctl start matterbind; sleep 8; true").ok()
        status, restarts = hub.show("ExecMainStatus"), hub.show("NRestarts")
        said = hub.sh(f"journalctl --sync; journalctl -u matterbind --since @{since} --no-pager -o cat").text
        expect(status == "2" and restarts == "0", f"exit code {status}, {restarts} restarts: {said}")
        lines = [line for line in said.splitlines() if words in line]
        expect(len(lines) == 1, said)
        return lines[0]
    finally:
        hub.sh(undo).ok()
        hub.restart()


@check("14.6", "another seal ends with exit 2 and one line that says what to do; no restart")
def wrong_seal(hub):
    refuses_to_start(hub, "cp -a /etc/credstore.encrypted/matterbind-seal /root/seal && " + SEAL.format(""),
                     "cp -a /root/seal /etc/credstore.encrypted/matterbind-seal", "fabric restore")


@check("14.6", "a seal that is not there any more ends with exit 2 and one line that says what to do; no restart")
def lost_seal(hub):
    refuses_to_start(hub, f"cp {UNIT}/secrets.conf /root/secrets.conf; sed -i /matterbind-seal/d {UNIT}/secrets.conf",
                     f"cp /root/secrets.conf {UNIT}/secrets.conf", "fabric restore")


@check("14.7", "a mistake in the configuration ends with exit 2 and says which; no restart")
def wrong_configuration(hub):
    refuses_to_start(hub, "cp -a /etc/matterbind/matterbind.toml /root/; echo 'colour = 1' >> /etc/matterbind/matterbind.toml",
                     "cp -a /root/matterbind.toml /etc/matterbind/", "colour")


@check("14.7", "starts that fail again and again end at the limit, and are one entry in the admin log")
def start_limit(hub):
    count = "matterbind logs --json | grep -c '\"start-failed\"\\|\"node-commissioned\"'"
    before = int(hub.sh(count).text)
    hub.write("/etc/matterbind/conf.d/socket.toml", 'socket = "/proc/nowhere/admin.sock"\n')
    hub.sh("chown -R root:matterbind /etc/matterbind/conf.d; systemctl restart matterbind --no-block; sleep 5").ok()
    try:
        hub.m.until("the limit", "systemctl show matterbind -p ActiveState | grep -q failed", 200)
        restarts, status = int(hub.show("NRestarts")), hub.show("ExecMainStatus")
    finally:
        hub.sh("rm /etc/matterbind/conf.d/socket.toml").ok()
        hub.restart()
    added = int(hub.sh(count).text) - before
    expect(restarts <= 10 and 0 <= added <= 1, f"{restarts} restarts, {added} more entries")
    return f"exit code {status}, {restarts} restarts"


@check("14.7", "a full disk: looking works, what needs the disk says disk-full, and all is well when there is room again")
def full_disk(hub):
    code = hub.new_device("Full lamp")
    hub.sh("fallocate -l $(df -B1 --output=avail / | tail -n 1) /full; dd if=/dev/zero of=/full2 bs=4k 2>/dev/null; df / | tail -n 1").ok()
    try:
        hub.sh("matterbind node check Hall", 240).ok()
        answer = hub.commission(code)
        result = answer.json()
        expect(answer.code == 1 and result["code"] == "disk-full" and result["step"], answer.text)
        expect(hub.show("ActiveState") == "active", hub.show("ActiveState"))
    finally:
        hub.sh("rm -f /full /full2").ok()
    hub.m.until("the daemon", READY, 60)
    again = hub.commission(code)
    if again.code != 0:
        time.sleep(65)
        again = hub.commission(code)
    hub.expect_bound(again)
    return f"at {result['step']}"


@check("13.8", "a disk that turns read-only: nodes answer, what writes says state-read-only; a start is refused by systemd with the "
               "code that the README explains; all is well when it is writable again")
def read_only_disk(hub):
    code = hub.new_device("Frozen lamp")
    hub.sh("sync; echo u > /proc/sysrq-trigger; sleep 2; ! touch /root/probe").ok()
    try:
        hub.sh("matterbind node check Hall", 240).ok()
        result = hub.commission(code).json()
        expect(result.get("code") == "state-read-only", result)
        hub.sh("systemctl restart matterbind --no-block; sleep 6")
        status = hub.show("ExecMainStatus")
    finally:
        hub.sh("mount -o remount,rw /").ok()
        hub.restart()
    expect(status in ("226", "238"), f"exit code {status}")
    hub.expect_bound(hub.commission(code))
    return f"systemd's code is {status}"


@check("13.8", "a recipient that is none is answered with what is wrong with it, not with a document")
def wrong_recipient(hub):
    answer = hub.sh("matterbind fabric backup /root/none.age --recipient age1nonsense")
    expect(answer.code == 2 and "recipient" in answer.text and "openapi" not in answer.text, answer.text)


@check("14.1, 13.8", "the worst day: a backup made under the unit's memory limit, the state gone, secrets only the unit has; "
                     "restore works as root and everything is the service's")
def worst_day(hub):
    hub.sh("printf 'a long passphrase' > /root/passphrase; matterbind fabric backup /root/hub.age --passphrase-file /root/passphrase", 240).ok()
    before = sorted(node["node_id"] for node in hub.nodes())
    hub.sh("systemctl stop matterbind; rm -rf /var/lib/matterbind").ok()
    hub.sh("matterbind fabric restore /root/hub.age --passphrase-file /root/passphrase", 240).ok()
    owners = hub.sh("find /var/lib/matterbind -printf '%u:%g\\n' | sort -u").text.split()
    expect(owners == ["matterbind:matterbind"], owners)
    hub.sh("matterbind attestation update-paa --from /share/paa").ok()
    hub.restart()
    expect(sorted(node["node_id"] for node in hub.nodes()) == before, hub.nodes())
    hub.m.until("the node", "matterbind node check Hall", 120)
    hub.expect_bound(hub.commission(hub.new_device("New lamp")))
    said = hub.sh("journalctl -b -u matterbind --no-pager | tail -n 40").text
    expect("file's mode" not in said, said)


@check("14", "a seal by the TPM, across a power cut")
def tpm(hub):
    hub.reboot(tpm=True)
    hub.await_ready(180)
    passphrase = "--passphrase-file /root/passphrase"
    hub.sh(f"matterbind fabric backup /root/tpm.age {passphrase} && systemctl stop matterbind && {SEAL.format('--with-key=tpm2')} "
           f"&& matterbind fabric restore --force /root/tpm.age {passphrase} && matterbind attestation update-paa --from /share/paa", 240).ok()
    hub.restart()
    hub.reboot(cut=True, tpm=True)
    hub.await_ready(180)
    hub.m.until("the node", "matterbind node check Hall", 120)
    # Another machine has another TPM: nothing opens.
    hub.reboot()
    hub.m.until("the end of it", "systemctl show matterbind -p ActiveState | grep -q failed", 180)
    status, restarts = hub.show("ExecMainStatus"), hub.show("NRestarts")
    expect(status == "243" and restarts == "0", f"exit code {status}, {restarts} restarts")


@check("14.9", "remove stops it; purge asks nothing, says what it leaves and how to delete it, and that deletes everything")
def purge(hub):
    said = hub.sh("DEBIAN_FRONTEND=noninteractive dpkg -r matterbind && dpkg -P matterbind").ok()
    expect("keys of your home" in said, said)
    hub.sh("test -d /var/lib/matterbind && ! pgrep -x matterbind").ok()
    line = re.search(r"matterbind:\s+(rm -rf .*)", said)
    expect(line, said)
    hub.sh(line.group(1)).ok()
    left = hub.sh("ls -d /var/lib/matterbind /etc/matterbind /usr/share/matterbind /run/matterbind 2>/dev/null; getent passwd matterbind").text
    expect(not left.strip(), left)
