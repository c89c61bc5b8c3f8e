"""A hub in a box: QEMU, its power switch, its network cable, its clock, its TPM, and commands inside it.

Not here: what is checked (`checks.py`), what is on the disk (`image`).
"""

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

# The hub's other end of the cable, where devices and cloud are.
HOST = "10.77.1.1"
# Where disks are kept.
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "matterbind"


class Failed(Exception):
    """A check does not hold; the text says what was seen instead."""


class Answer:
    """What a command in the machine ended with."""

    def __init__(self, code, text, seconds):
        self.code, self.text, self.seconds = code, text, seconds

    def ok(self):
        if self.code != 0:
            raise Failed(f"exit code {self.code}: {self.text.strip()[-800:]}")
        return self.text

    def json(self):
        """The last line that is a JSON document; what stands before it went to stderr."""
        for line in reversed(self.text.strip().splitlines()):
            try:
                return json.loads(line)
            except ValueError:
                continue
        raise Failed(f"no JSON (exit code {self.code}): {self.text.strip()[-800:]}")


class Machine:
    def __init__(self, image, work, share):
        self.image, self.work, self.share = Path(image), Path(work), Path(share)
        self.disk = self.work / "disk.qcow2"
        self.process = self.tpm = self.port = None
        self.received = b""
        self.number = 0
        # Without KVM every instruction is computed, and patience has to be longer. The device file alone proves nothing.
        flags = Path("/proc/cpuinfo").read_text().split()
        self.has_kvm = os.access("/dev/kvm", os.R_OK | os.W_OK) and ("vmx" in flags or "svm" in flags)
        self.patience = 1 if self.has_kvm else 5

    def new_disk(self):
        """As after installing Debian; whatever was on the disk is gone."""
        self.disk.unlink(missing_ok=True)
        run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", self.image / "disk.img", self.disk)

    def boot(self, rtc="base=utc", cable=True, tpm=False):
        """Switches it on and waits for the agent, which is up long before the services are."""
        for name in ("agent", "qmp", "serial.log"):
            (self.work / name).unlink(missing_ok=True)
        accelerator = ["-accel", "kvm", "-cpu", "host"] if self.has_kvm else ["-accel", "tcg,thread=multi", "-cpu", "max"]
        command = [
            "qemu-system-x86_64", "-M", "q35,usb=off,vmport=off", *accelerator, "-m", "1024", "-smp", "2", "-nodefaults",
            "-display", "none", "-no-reboot", "-rtc", rtc, "-serial", f"file:{self.work}/serial.log",
            "-kernel", self.image / "vmlinuz", "-initrd", self.image / "initrd",
            "-append", "console=ttyS0 quiet panic=-1 mitigations=off net.ifnames=0 systemd.show_status=false root=/dev/vda rw",
            "-drive", f"file={self.disk},if=virtio,format=qcow2", "-device", "virtio-rng-pci",
            "-netdev", "tap,id=n0,ifname=tap0,script=no,downscript=no", "-device", "virtio-net-pci,netdev=n0",
            "-fsdev", f"local,id=f0,path={self.share},security_model=none,readonly=on",
            "-device", "virtio-9p-pci,fsdev=f0,mount_tag=share",
            "-device", "virtio-serial-pci", "-chardev", f"socket,id=c0,path={self.work}/agent,server=on,wait=off",
            "-device", "virtserialport,chardev=c0,name=agent",
            "-qmp", f"unix:{self.work}/qmp,server=on,wait=off",
        ]
        if tpm:
            command += self.start_tpm()
        self.started = time.monotonic()
        self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL)
        self.qmp = Qmp(self.work / "qmp")
        self.qmp.say("set_link", name="n0", up=cable)
        self.port = connect(self.work / "agent")
        self.received = b""
        self.read_line(120 * self.patience)
        self.sh("mountpoint -q /share || mount -t 9p -o trans=virtio,version=9p2000.L,ro share /share").ok()
        return time.monotonic() - self.started

    def start_tpm(self):
        state = self.work / "tpm"
        state.mkdir(exist_ok=True)
        self.tpm = subprocess.Popen(
            ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={state}", "--ctrl", f"type=unixio,path={self.work}/tpm.sock"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for("the TPM", lambda: (self.work / "tpm.sock").exists(), 10)
        return ["-chardev", f"socket,id=t0,path={self.work}/tpm.sock", "-tpmdev", "emulator,id=t0,chardev=t0",
                "-device", "tpm-tis,tpmdev=t0"]

    def power_cut(self):
        """What the machine had not flushed to its disk is lost."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        if self.tpm is not None:
            self.tpm.kill()
            self.tpm.wait()
            (self.work / "tpm.sock").unlink(missing_ok=True)
        self.process = self.tpm = None

    def shut_down(self):
        self.send("systemctl poweroff")
        self.await_off(120)

    def await_off(self, timeout):
        try:
            self.process.wait(timeout * self.patience)
        except subprocess.TimeoutExpired:
            raise Failed(f"it is not off within {timeout} s") from None
        finally:
            self.power_cut()

    def cable(self, plugged):
        self.qmp.say("set_link", name="n0", up=plugged)

    def send(self, command):
        self.number += 1
        coded = base64.b64encode(command.encode()).decode()
        self.port.sendall(f"{self.number} {coded}\n".encode())

    def sh(self, command, timeout=120):
        """Runs a script in the machine, as root."""
        begin = time.monotonic()
        self.send(command)
        while True:
            number, code, *output = self.read_line(timeout * self.patience).split()
            if int(number) == self.number:
                break
        text = base64.b64decode(output[0]).decode(errors="replace") if output else ""
        return Answer(int(code), text, time.monotonic() - begin)

    def read_line(self, timeout):
        deadline = time.monotonic() + timeout
        while b"\n" not in self.received:
            self.port.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                read = self.port.recv(1 << 20)
            except TimeoutError:
                raise Failed(f"the machine does not answer within {timeout:.0f} s") from None
            if not read:
                raise Failed(f"the machine went off: {self.serial()[-800:]}")
            self.received += read
        line, self.received = self.received.split(b"\n", 1)
        return line.decode()

    def serial(self):
        """What the kernel said on its console."""
        return (self.work / "serial.log").read_text(errors="replace")

    def until(self, what, command, timeout=60):
        """Asks again until the command ends with 0."""
        last = None

        def holds():
            nonlocal last
            last = self.sh(command)
            return last.code == 0

        try:
            wait_for(what, holds, timeout * self.patience, 0.3)
        except Failed as failed:
            raise Failed(f"{failed}: {last.text.strip()[-500:]}") from None
        return last


class Qmp:
    """QEMU's own socket."""

    def __init__(self, path):
        self.stream = connect(path).makefile("rw")
        self.stream.readline()
        self.say("qmp_capabilities")

    def say(self, command, **arguments):
        self.stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.stream.flush()
        while True:
            answer = json.loads(self.stream.readline())
            if "error" in answer:
                raise Failed(f"QEMU refuses {command}: {answer['error']}")
            if "return" in answer:
                return


class House:
    """What is at the other end of the cable: the reference cloud and virtual devices. They keep their power."""

    def __init__(self, binary, work):
        self.binary, self.work = binary, Path(work)
        self.running = []
        run("ip", "link", "set", "lo", "up")
        run("ip", "tuntap", "add", "tap0", "mode", "tap")
        run("ip", "addr", "add", f"{HOST}/24", "brd", "+", "dev", "tap0")
        run("ip", "addr", "add", "fd77:1::1/64", "dev", "tap0", "nodad")
        run("ip", "link", "set", "tap0", "up")
        run("ip", "route", "add", "224.0.0.0/4", "dev", "tap0")

    def start(self, name, *arguments):
        log = open(self.work / f"{name}.log", "ab")
        process = subprocess.Popen([self.binary, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)
        self.running.append(process)
        return process

    def cloud(self):
        process = self.start("cloud", "cloud-sim", "--listen", f"{HOST}:8787")
        process.stdout.readline()
        return process

    def device(self, discriminator, name):
        """A light in pairing mode; answers its setup code."""
        storage = self.work / f"device-{discriminator}"
        process = self.start(f"device-{discriminator}", "virtual-device", "--json", "--interface", "tap0", "--storage", storage,
                             "--discriminator", str(discriminator), "--name", name)
        ready = json.loads(process.stdout.readline())
        return process, ready["qr_code"]

    def stop(self):
        for process in self.running:
            process.kill()
            process.wait()


def run(*command):
    subprocess.run([str(word) for word in command], check=True, stdin=subprocess.DEVNULL)


def connect(path):
    wait_for(f"{path}", path.exists, 30)
    stream = socket.socket(socket.AF_UNIX)
    deadline = time.monotonic() + 30
    while True:
        try:
            stream.connect(str(path))
            return stream
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def wait_for(what, holds, timeout, pause=0.05):
    deadline = time.monotonic() + timeout
    while not holds():
        if time.monotonic() > deadline:
            raise Failed(f"waited {timeout:.0f} s for {what}")
        time.sleep(pause)


def missing(*programs):
    return [program for program in programs if shutil.which(program) is None]


def need(programs):
    """Installs Debian's packages of those programs that are missing."""
    absent = missing(*programs)
    if absent:
        packages = [programs[program] for program in absent]
        subprocess.run(["apt-get", "update", "-q"], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["apt-get", "install", "-qy", "--no-install-recommends", *packages], check=True,
                       stdout=subprocess.DEVNULL, env=dict(os.environ, DEBIAN_FRONTEND="noninteractive"))
