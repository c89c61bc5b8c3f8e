"""What a hub with Bluetooth has to be able to do, and how it goes wrong. Each round begins with a fresh hub and a fresh light and is
played any number of times.

Not here: the machine and what is in it (`boxed.py`), how rounds are counted and reported (`ble`).
"""

import json
import shlex
import time

from boxed import DATASET
from machine import Failed

ROUNDS = []
# Another code of the same discriminator: the one with passcode 20202021.
WRONG_CODE = "34970112332"


def a_round(text, counts=True):
    """The text says what holds if it passes. A round answers the seconds that matter by their names. Those that do not count are no
    rows of the sixty."""
    def add(function):
        ROUNDS.append((function.__name__, text, counts, function))
        return function
    return add


def expect(holds, seen):
    if not holds:
        raise Failed(f"{seen}"[-1500:])


def bound(outcome):
    outcome.expect_bound()
    return {"total": outcome.total, **outcome.steps()}


@a_round("simulated Wi-Fi, ConnectNetwork takes 8 s: bound")
def simulated(boxed, _):
    boxed.fresh(CONNECT_S=8)
    boxed.set_wifi()
    return bound(boxed.commission())


@a_round("a real WPA2 join, CASE over that Wi-Fi: bound, in sync with the cloud")
def wpa2(boxed, _):
    boxed.fresh(wifi=True)
    boxed.set_wifi()
    times = bound(boxed.commission())
    boxed.expect_in_sync()
    return times


@a_round("one radio, which drops Bluetooth at ConnectNetwork: bound in under 35 s once found, met in under 5 s once it has joined")
def one_radio(boxed, _):
    boxed.fresh(CONNECT_S=8, ONE_RADIO=1)
    boxed.set_wifi()
    outcome = boxed.commission()
    times = bound(outcome)
    # btvirt passes an advertisement on once in a scan of ten seconds, so that the search takes one second or ten more.
    times["found"] = outcome.end - outcome.at("step-finished", "discover")
    times["met"] = outcome.at("step-finished", "operational") - boxed.light_said("JOINED")
    expect(times["found"] < 35, f"{times['found']:.1f} s: {times}")
    expect(times["met"] < 5, f"met {times['met']:.1f} s after it had joined: {times}")
    return times


@a_round("Thread: the light takes the dataset; bound")
def thread(boxed, _):
    boxed.fresh(CONNECT_S=2, NET="thread")
    boxed.set_thread()
    times = bound(boxed.commission())
    boxed.light_said(f"AddOrUpdateThreadNetwork {len(DATASET) // 2} bytes, extended PAN id 1122334455667788")
    return times


@a_round("a wrong Wi-Fi password, refused by real WPA2: said as that, and mended by another while the light waits; bound")
def wrong_password(boxed, _):
    boxed.fresh(wifi=True)
    boxed.set_wifi("a wrong horse")
    attempt = boxed.attempt("--wait-network", "3m")
    told, note = attempt.wait_for("note that it waits", lambda event: "waits up to" in event.get("message", ""), 200)
    expect(note["code"] == "wifi-password-wrong" and "a wrong horse" not in json.dumps(note), note)
    boxed.set_wifi()
    outcome = attempt.result()
    return {**bound(outcome), "told": told - outcome.at("step-started", "network")}


@a_round("a wrong passcode: refused in under 5 s once connected (15 s without KVM), and the right code then works; bound")
def wrong_passcode(boxed, _):
    boxed.fresh(PASSCODE=20202022, CONNECT_S=1)
    boxed.set_wifi()
    refused = boxed.commission(code=WRONG_CODE).expect_refused("pase", "wrong-passcode")
    took = refused.end - boxed.light_said("CONNECTED")
    # This light cannot be connected to twice: it starts anew. That a window stays open is seen in tests/house/bluetooth.rs.
    boxed.await_advertising(boxed.light_said("DISCONNECTED"))
    times = bound(boxed.commission())
    expect(took < (5 if boxed.m.has_kvm else 15), f"refused after {took:.1f} s: {times}")
    return {**times, "refused": took}


@a_round("a wrong Wi-Fi password, and nobody waits: wifi-password-wrong", counts=False)
def wrong_password_ends(boxed, _):
    boxed.fresh(wifi=True)
    boxed.set_wifi("a wrong horse")
    outcome = boxed.commission().expect_refused("network", "wifi-password-wrong")
    return {"total": outcome.total}


@a_round("kill -9 while it scans, while it connects, while the light joins: nothing is scanning, connected or notifying any more",
         counts=False)
def killed(boxed, number):
    # One after another, so that a few times play them all.
    what, holds, options = (
        ("it scans", lambda doing: any("Discovering" in one for one in doing), ["discover", "--ble", "--timeout", "60s"]),
        ("it is connected", lambda doing: any("Connected" in one for one in doing), None),
        ("the light joins", lambda doing: any("Notifying" in one for one in doing), None),
    )[number % 3]
    boxed.fresh(CONNECT_S=60)
    boxed.set_wifi()
    expect(boxed.bluez() == [], "something is under way before anybody asks")
    if options:
        boxed.sh(f"matterbind {' '.join(options)} > /dev/null 2>&1 < /dev/null &")
    else:
        attempt = boxed.attempt()
        if what == "the light joins":
            attempt.wait_for("ConnectNetwork", lambda event: event.get("step") == "network", 120)
            time.sleep(2)
    boxed.until_bluez(what, holds, 90)
    pid = boxed.sh("systemctl show -p MainPID --value matterbind").text.strip()
    boxed.sh(f"kill -9 {pid}").ok()
    ended = boxed.until_bluez("nothing is under way", lambda doing: doing == [], 10)
    # It stays like that when the unit has started the hub again.
    boxed.m.until("the hub to be back", f"[ $(systemctl show -p MainPID --value matterbind) != {pid} ] && matterbind status", 60)
    expect(boxed.bluez() == [], boxed.bluez())
    return {"total": ended}


@a_round("only the package's D-Bus policy lets the unit's user speak to BlueZ; who has none is refused at once and told why",
         counts=False)
def stranger(boxed, _):
    boxed.fresh()
    user = boxed.sh("ps -o user= -p $(systemctl show -p MainPID --value matterbind)").text.strip()
    expect(user == "matterb+" or user == "matterbind", user)
    status = boxed.sh("matterbind status").ok()
    expect("hci0" in status, status)
    config = "/home/bert/hub.toml"
    boxed.sh(f"""mkdir -p /home/bert/run && cat > {config} <<'X'
state_dir = "/home/bert/state"
socket = "/home/bert/run/admin.sock"
[network]
interfaces = ["v1"]
[bluetooth]
adapter = "hci0"
X
        chown -R bert: /home/bert
        systemctl --quiet stop matterbind
        systemd-run --quiet --collect --unit=stranger -p User=bert -p NetworkNamespacePath=/run/netns/hub \\
          /usr/bin/matterbind daemon --config {config}""").ok()
    theirs = "runuser -u bert -- matterbind --socket /home/bert/run/admin.sock"
    try:
        boxed.m.until("the stranger's hub to be up", f"{theirs} status", 60)
        answer = boxed.sh(f"begin=$EPOCHREALTIME; {theirs} commission {shlex.quote(boxed.code)} --json; echo $begin $EPOCHREALTIME")
        *_, last = answer.text.strip().splitlines()
        begin, end = map(float, last.split())
        failure = answer.json()
        expect((failure.get("step"), failure.get("code")) == ("discover", "bluetooth-unavailable"), failure)
        expect("D-Bus refuses" in failure["message"] and "policy" in failure["hint"], json.dumps(failure))
        return {"total": end - begin}
    finally:
        boxed.sh("systemctl --quiet stop stranger; rm -rf /home/bert/state")
