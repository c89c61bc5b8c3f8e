"""A hub, a light in its box, and the air between them, in one machine: BlueZ with two virtual controllers, simulated Wi-Fi, and the
package's unit in a network namespace of its own.

    namespace `hub`: matterbind (the unit, user matterbind), hostapd on wlan0, eth0 to the cloud outside
          │ D-Bus: bluetoothd, hci0      ║ v1 ═ v0: in place of Wi-Fi and Thread; v0 gets addresses when the light joins
          │ virtual air                  ║ wlan0 ≈ wlan1: real WPA2, where a round wants that
    the machine itself: the light (Node, bleno on hci1), which the kernel lets have a controller nowhere else

Not here: what is played on it and what must come of it (`rounds.py`).
"""

import json
import shlex
import time

from machine import HOST, Failed

SSID, PASSWORD = "VMLAB", "correct horse"
# Extended PAN id 1122334455667788, and a key that nobody has.
DATASET = ("0e080000000000010000000300000f35060004001fffe0020811223344556677880708fd00112233440000"
           "0510001122334455667788" "99aabbccddeeff0308564d5448524541440102123404"
           "10ffeeddccbbaa998877665544332211000c0402a0f7f8")

CONFIG = """\
[network]
interfaces = ["{interface}"]

[bluetooth]
adapter = "hci0"

# A machine without KVM is ten to twenty times slower than a hub, and so is the light in it.
[commissioning]
deadline = "5m"
discover_timeout = "90s"
step_timeout = "60s"
fail_safe = "120s"

[attestation]
paa_dirs = ["/etc/matterbind/paa"]
allow_test = [ {{ vendor_id = 0xFFF1 }} ]

[cloud]
base_url = "http://{host}:8787"
user_domain = "demo"
user_domain_secret_file = "cloud-domain-secret"
email = "hub@example.com"
password_file = "cloud-password"

[[products]]
vendor_id = 0xFFF1
product_id = 0x8000
product_key = "p11abc"
device_key = "serial-number"
binding_code = "random"

[log]
level = "info,matterbind=debug"
"""

INSTALL = """\
set -e
cp /share/matterbind /usr/bin/matterbind
cp /share/light.mjs /share/join /opt/light/
install -D -m 644 /share/matterbind-dbus.conf /usr/share/dbus-1/system.d/matterbind.conf
install -D -m 644 /share/matterbind.service /etc/systemd/system/matterbind.service
install -D -m 644 /share/matterbind.sysusers /usr/lib/sysusers.d/matterbind.conf
install -D -m 644 /share/matterbind.tmpfiles /usr/lib/tmpfiles.d/matterbind.conf
systemd-sysusers
systemd-tmpfiles --create matterbind.conf
mkdir -p /etc/matterbind/paa /etc/systemd/system/matterbind.service.d
cp /share/paa/* /etc/matterbind/paa/
chmod 755 /etc/matterbind/paa
mkdir -m 700 /etc/secrets
printf demo-password > /etc/secrets/cloud-password
printf demo-secret-0123456789abcdef > /etc/secrets/cloud-domain-secret
cat > /etc/systemd/system/matterbind.service.d/lab.conf <<'X'
[Service]
NetworkNamespacePath=/run/netns/hub
LoadCredential=cloud-password:/etc/secrets/cloud-password
LoadCredential=cloud-domain-secret:/etc/secrets/cloud-domain-secret
X
"""

RADIOS = f"""\
set -e
modprobe -a bluetooth hci_vhci veth algif_hash algif_skcipher ecb cmac drbg ecdh_generic
modprobe mac80211_hwsim radios=2
ip netns add hub
ip -n hub link set lo up
systemctl stop systemd-networkd.socket systemd-networkd
ip link set eth0 netns hub
ip -n hub addr add 10.77.1.2/24 dev eth0
ip -n hub link set eth0 up
ip link add v0 type veth peer name v1 netns hub
ip -n hub addr add 192.168.77.2/24 dev v1
ip -n hub link set v1 up
ip link set v0 up
for _ in {{1..100}}; do [ -e /sys/class/net/wlan0 ] && [ -e /sys/class/net/wlan1 ] && break; sleep .2; done
iw phy "$(cat /sys/class/net/wlan0/phy80211/name)" set netns name hub
cat > /run/hostapd.conf <<'X'
interface=wlan0
driver=nl80211
ssid={SSID}
hw_mode=g
channel=1
wpa=2
wpa_key_mgmt=WPA-PSK
rsn_pairwise=CCMP
wpa_passphrase={PASSWORD}
X
systemd-run --quiet --unit=access-point -p NetworkNamespacePath=/run/netns/hub hostapd -t /run/hostapd.conf
systemctl daemon-reload
systemctl reload dbus
for _ in {{1..50}}; do
  ip link set wlan1 up
  iw dev wlan1 scan 2>/dev/null | grep -q 'SSID: {SSID}' && exit 0
  sleep .5
done
journalctl --no-pager -u access-point | tail -n 5
exit 1
"""

# New controllers, a light that nobody has met, and a hub that has met nobody. BlueZ keeps what it knows of a device for as long as
# the adapter is there, and longer on disk.
FRESH = """\
systemctl --quiet kill -s KILL matterbind 2>/dev/null
systemctl --quiet stop matterbind light joined 2>/dev/null
systemctl --quiet stop controllers bluetooth 2>/dev/null
for _ in {{1..100}}; do [ -z "$(ls /sys/class/bluetooth)" ] && break; sleep .1; done
rm -rf /var/lib/matterbind /var/lib/bluetooth/* /run/light /run/light.log /run/join.log
systemctl --quiet reset-failed matterbind light controllers bluetooth 2>/dev/null
set -e
ip link set wlan1 down
ip addr flush dev wlan1
ip link set wlan1 up
echo 1 > /proc/sys/net/ipv6/conf/v0/disable_ipv6
ip addr flush dev v0
cat > /etc/matterbind/matterbind.toml <<'X'
{config}X
systemctl start bluetooth
systemd-run --quiet --unit=controllers -p KillSignal=SIGKILL btvirt -L -l2
for _ in {{1..200}}; do [ -e /sys/class/bluetooth/hci1 ] && break; sleep .1; done
for _ in {{1..100}}; do
  busctl --quiet set-property org.bluez /org/bluez/hci0 org.bluez.Adapter1 Powered b true 2>/dev/null && break
  sleep .3
done
hciconfig hci1 down
systemd-run --quiet --unit=light -p WorkingDirectory=/opt/light -p StandardOutput=append:/run/light.log -p StandardError=inherit -p KillSignal=SIGKILL -p Restart=always \\
  -E NODE_COMPILE_CACHE=/var/cache/light {environment} /usr/local/bin/node light.mjs
systemctl start matterbind
for _ in {{1..300}}; do
  grep -q ADVERTISING /run/light.log && break
  systemctl --quiet is-active light || break
  sleep .2
done
cat /run/light.log
[ "$(busctl get-property org.bluez /org/bluez/hci0 org.bluez.Adapter1 Powered)" = 'b true' ]
"""


class NoLight(Failed):
    """The lab did not come up, so nothing is known of the hub."""


class Boxed:
    """The machine with a hub and a light in it."""

    def __init__(self, machine, house):
        self.m, self.house = machine, house
        self.cloud = None
        # What the light has on its box, as a QR code says it: on Bluetooth and nowhere else.
        self.code = None
        self.repeated = 0

    def sh(self, command, timeout=120):
        return self.m.sh(command, timeout)

    def install(self):
        self.sh(INSTALL).ok()
        self.sh(RADIOS).ok()

    def fresh(self, wifi=False, **environment):
        """A new hub and a new light. A light that does not come to advertise is the lab's fault, not the hub's: it is made again, once,
        and counted."""
        if self.cloud is not None:
            self.cloud.kill()
            self.cloud.wait()
        self.cloud = self.house.cloud()
        environment["JOINS"] = "wlan1" if wifi else "v0"
        options = " ".join(f"-E {shlex.quote(f'{name}={value}')}" for name, value in environment.items())
        script = FRESH.format(config=CONFIG.format(interface="wlan0" if wifi else "v1", host=HOST), environment=options)
        answer = self.sh(script)
        if not self.is_ready(answer):
            self.repeated += 1
            answer = self.sh(script)
            if not self.is_ready(answer):
                raise NoLight(f"the light does not advertise: {answer.text.strip()[-600:]}")
        self.code = next(line.split()[2] for line in answer.text.splitlines() if " READY " in line)

    @staticmethod
    def is_ready(answer):
        return answer.code == 0 and " READY MT:" in answer.text and " ADVERTISING" in answer.text

    def set_wifi(self, password=PASSWORD):
        self.sh(f"printf %s {shlex.quote(password)} | matterbind network set wifi {SSID}").ok()

    def set_thread(self):
        self.sh(f"echo {DATASET} | matterbind network set thread").ok()

    def attempt(self, *options, code=None):
        return Attempt(self, [code or self.code, "--events", "--wait-bind", "60s", *options])

    def commission(self, *options, code=None):
        return self.attempt(*options, code=code).result()

    def expect_in_sync(self):
        answer = self.sh("matterbind sync --json")
        if answer.code != 0 or not answer.json()["in_sync"]:
            raise Failed(f"not in sync: {answer.text[-600:]}")

    def bluez(self):
        """What BlueZ is doing: scans, connections, subscriptions."""
        answer = self.sh("busctl --json=short call org.bluez / org.freedesktop.DBus.ObjectManager GetManagedObjects")
        answer.ok()
        doing = []
        for path, interfaces in answer.json()["data"][0].items():
            for interface, name in (("Adapter1", "Discovering"), ("Device1", "Connected"), ("GattCharacteristic1", "Notifying")):
                if interfaces.get(f"org.bluez.{interface}", {}).get(name, {}).get("data"):
                    doing.append(f"{name} {path.removeprefix('/org/bluez/')}")
        return doing

    def until_bluez(self, what, fits, timeout):
        """Asks until what BlueZ is doing fits; answers how long that took."""
        begin = time.monotonic()
        while not fits(doing := self.bluez()):
            if time.monotonic() - begin > timeout:
                raise Failed(f"not within {timeout} s: {what}; BlueZ: {doing}")
            time.sleep(0.2)
        return time.monotonic() - begin

    def light_said(self, word):
        """When the light said that last, in Unix time."""
        lines = self.sh("cat /run/light.log").text.splitlines()
        times = [line.split(" ", 1)[0] for line in lines if f" {word}" in line]
        if not times:
            raise Failed(f"the light did not say {word}: {lines[-5:]}")
        return float(times[-1])

    def await_advertising(self, since):
        """The light can be found again."""
        deadline = time.monotonic() + 120
        while self.light_said("ADVERTISING") < since:
            if time.monotonic() > deadline:
                raise NoLight("the light does not advertise again")
            time.sleep(1)

    def story(self):
        """What a person would want to read after a failure."""
        return self.sh("""
            echo '== light'; tail -n 60 /run/light.log
            echo '== daemon'; journalctl --no-pager -o short-precise -u matterbind | tail -n 150
            echo '== bluetoothd'; journalctl --no-pager -o short-precise -u bluetooth -u controllers | tail -n 20
            echo '== Wi-Fi'; journalctl --no-pager -u access-point -u joined | tail -n 20; tail -n 15 /run/join.log
            echo '== kernel'; dmesg | tail -n 8; uptime""").text


class Attempt:
    """`matterbind commission` under way in the machine; each of its lines gets the time at which it came."""

    count = 0

    def __init__(self, boxed, arguments):
        Attempt.count += 1
        self.boxed = boxed
        self.log = f"/run/attempt-{Attempt.count}"
        words = " ".join(shlex.quote(word) for word in arguments)
        self.boxed.sh(f"""
            stamped() {{ while IFS= read -r line; do printf '%s %s\\n' "$EPOCHREALTIME" "$line"; done; }}
            attempt() {{ echo '{{"begin": true}}'; matterbind commission {words}; echo "{{\\"exit\\": $?}}"; }}
            {{ attempt 2> {self.log}.stderr | stamped > {self.log}; touch {self.log}.done; }} < /dev/null > /dev/null 2>&1 &""").ok()

    def events(self):
        lines = self.boxed.sh(f"cat {self.log} {self.log}.stderr").text.splitlines()
        parted = [line.split(" ", 1) for line in lines]
        return [(float(parts[0]), json.loads(parts[1])) for parts in parted if len(parts) == 2 and parts[1].startswith("{")]

    def wait_for(self, what, fits, timeout):
        """The first event that fits, and its time."""
        deadline = time.monotonic() + timeout
        while True:
            events = self.events()
            for at, event in events:
                if fits(event):
                    return at, event
            if time.monotonic() > deadline or any("exit" in event for _, event in events):
                raise Failed(f"no {what}: {json.dumps([event for _, event in events][-3:])[-900:]}")
            time.sleep(0.4)

    def result(self, timeout=300):
        waited = self.boxed.sh(f"for _ in {{1..{timeout * 5}}}; do [ -e {self.log}.done ] && exit; sleep .2; done; exit 1", timeout)
        if waited.code != 0:
            raise Failed(f"the attempt does not end within {timeout} s: {json.dumps(self.events()[-3:])[-900:]}")
        return Outcome(self.events())


class Outcome:
    """How an attempt ended, and when it was where."""

    def __init__(self, events):
        (self.begin, _), *self.events, (_, end) = events
        self.exit = end["exit"]
        self.end, self.last = self.events[-1] if self.events else (self.begin, {})
        self.total = self.end - self.begin

    def at(self, event, step):
        """When that event of that step came first."""
        times = [at for at, seen in self.events if (seen.get("event"), seen.get("step")) == (event, step)]
        if not times:
            raise Failed(f"no {event} of {step}: {json.dumps(self.last)[-600:]}")
        return times[0]

    def steps(self):
        """How long the long steps took, in seconds."""
        took = {seen["step"]: seen["duration_ms"] / 1000 for _, seen in self.events if seen.get("event") == "step-finished"}
        return {step: took[step] for step in ("discover", "pase", "network", "operational") if step in took}

    def expect_bound(self):
        if self.exit != 0 or self.last.get("bind", {}).get("state") != "bound":
            raise Failed(f"exit {self.exit}: {json.dumps(self.last)[-900:]}")
        return self

    def expect_refused(self, step, code):
        if self.exit == 0 or (self.last.get("step"), self.last.get("code")) != (step, code):
            raise Failed(f"not {step}/{code}: exit {self.exit}: {json.dumps(self.last)[-900:]}")
        return self
