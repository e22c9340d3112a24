"""How long a real guest takes to its own READY line: through the whole cloud, and under plain QEMU.

    python bench/guest.py [--rounds 10] [--json FILE]               as root, where `nacre demo` works
    python bench/guest.py --clouds FILE [--cloud NAME] ...          a cloud that runs on this host, with libvirt

Without --clouds it starts a cloud of its own (another cloud with libvirt on this host must be down) and ends it. One
server is booted first: it fills the image cache, and its process shows the command line that libvirt runs QEMU with.
Then, `rounds` times, in turns, and each round in the other order: a server created by POST /servers, and that same
command line run by hand.

The same in both: machine, program, accelerator, CPU, memory, devices, firmware, disk cache modes, sandbox, base image
(the cloud's cached one), a fresh overlay of the same format and size (compared), a copy of the same config drive. READY
is looked for every 5 ms in the console's file.

Different by need: no `-S` and no monitor (nobody resumes it by hand); no file descriptors and key of libvirt's; the
console is written by QEMU itself in both, but under libvirt through a pty; QEMU's user network with its DHCP instead of
the tap, Open vSwitch and dnsmasq; no cgroup, and root instead of QEMU's own account. So plain QEMU's figure has no
network to be wired, and its DHCP answers inside the process: what a network costs is counted against the cloud.

Measured: plain, from the start of the process to READY; the cloud, from the POST to READY, and from its QEMU's start
(as the kernel has it, in steps of 10 ms). Parts: POST to QEMU's start; from there to the guest's first instruction, by
the server's own timeline; from there to READY; and the CPU time that QEMU had used by then, in both. Before each boot
the machine is waited for until it has been idle for a second (a minute at most). `load` is the load average at the end:
what else ran then slows both, and one round more than another.
"""

import argparse
import asyncio
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from nacre import guest
from nacre.cli import demo
from nacre.cli.client import Client
from nacre.cli.trace import timeline
from nacre.cli.up import network

#: Seconds: between looks at the console, at the processes; the longest wait for anything.
POLL, LOOK, LIMIT = 0.005, 0.05, 180.0
#: An idle machine: the most of its processors' time that is used; how long to wait for that (seconds).
IDLE, QUIET = 0.1, 60
#: The most that a guest may take, as a multiple of plain QEMU's time.
TARGET = 1.15
TICKS = os.sysconf("SC_CLK_TCK")


def now() -> float:
    """Seconds since the machine's boot: what the kernel dates processes by."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def until(what: Callable[[], Any], name: str, pause: float) -> Any:
    """What `what` answers once it is something."""
    end = now() + LIMIT
    while now() < end:
        if found := what():
            return found
        time.sleep(pause)
    raise SystemExit(f"waited {LIMIT:.0f} s in vain for {name}")


def used() -> tuple[int, int]:
    """The processors' ticks so far: idle ones, and all."""
    ticks = [int(x) for x in Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)


def quiet() -> None:
    """Returns when the machine was idle for a second, or after a minute."""
    for _ in range(QUIET):
        (idle, total), _ = used(), time.sleep(1)
        idle_then, total_then = used()
        if idle_then - idle > (1 - IDLE) * (total_then - total):
            return


def stat(pid: int) -> list[str]:
    """A process's figures from its third on (`man proc`: field n is at n - 3)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def cpu(pid: int) -> float:
    """Seconds of CPU that a process and all its threads have used."""
    return (int(stat(pid)[11]) + int(stat(pid)[12])) / TICKS


def qemu_of(server: str) -> int | None:
    """The process of a server's QEMU."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if b"qemu-system" in line.partition(b"\0")[0] and server.encode() in line and b"-S" in line.split(b"\0"):
            return int(entry.name)
    return None


def disk_facts(disk: Path) -> dict[str, Any]:
    told = subprocess.run(["qemu-img", "info", "-U", "--output=json", str(disk)], capture_output=True, check=True)
    return dict(json.loads(told.stdout))


class Cloud:
    """One cloud with one image, flavor and network."""

    def __init__(self, clouds: Path, name: str, image: str | None = None):
        self.client = Client(clouds.parent, name)
        if image is None:
            images = self.client.get("image", "/images", params={"name": "tiny"})["images"]
            image = str(images[0]["id"]) if images else sys.exit("the cloud has no image called tiny: run demo in it")
        self.image, self.network = image, network(self.client)
        flavors = self.client.get("compute", "/flavors/detail")["flavors"]
        self.flavor = min((f for f in flavors if f["ram"] >= 96), key=lambda f: (f["ram"], f["disk"]))["id"]

    def server(self, look: Callable[[int, Path], None] | None = None) -> dict[str, float]:
        """One server's times. look: told its process and its folder before it is deleted."""
        quiet()
        begin, wall = now(), time.time()
        made = self.client.post("compute", "/servers", {"server": {
            "name": "bench", "imageRef": self.image, "flavorRef": self.flavor, "config_drive": True,
            "networks": [{"uuid": self.network}]}})["server"]["id"]
        pid = until(lambda: qemu_of(made) or self.failed(made), f"QEMU of server {made}", LOOK)
        folder = Path(next(part.partition('"filename":"')[2].partition('"')[0]
                           for part in Path(f"/proc/{pid}/cmdline").read_text().split("\0")
                           if '/disk"' in part and '"filename":"' in part)).parent
        console = folder / "console.log"
        until(lambda: b"READY" in console.read_bytes(), f"READY in {console}", POLL)
        end, used, started = now(), cpu(pid), int(stat(pid)[19]) / TICKS
        first = until(lambda: self.first_instruction(made), f"the timeline of {made}", LOOK) - wall + begin
        if look is not None:
            look(pid, folder)
        self.client.request("DELETE", "compute", f"/servers/{made}")
        until(lambda: not Path(f"/proc/{pid}").exists() and not self.client.get(
            "compute", "/servers", params={"name": "^bench$"})["servers"], f"the end of server {made}", LOOK)
        return {"post": end - begin, "qemu": end - started, "post_to_qemu": started - begin,
                "qemu_to_guest": first - started, "guest_to_ready": end - first, "cpu": used}

    def first_instruction(self, server: str) -> float | None:
        """When the guest was resumed, in seconds since the epoch; None as long as it is not told. Other clouds than
        Nacre tell only when their whole create ended."""
        action = timeline(self.client, server)["actions"][0]
        ends = {s["step"]: s["at_ms"] + s["took_ms"] for s in action["steps"] if s["took_ms"] is not None}
        told = ends.get("host.boot", ends.get("compute__do_build_and_run_instance"))
        start = datetime.fromisoformat(action["started"].removesuffix("Z") + "+00:00").timestamp()
        return None if told is None else start + told / 1000

    def failed(self, server: str) -> None:
        found = self.client.get("compute", f"/servers/{server}")["server"]
        if found["status"] == "ERROR":
            sys.exit(f"the server failed: {found.get('fault')}")


class Plain:
    """The command line of a server, run by hand in a folder of ours."""

    def __init__(self, folder: Path):
        self.folder, self.disk, self.console = folder, folder / "plain.qcow2", folder / "plain.log"
        self.arguments: list[str] = []
        self.template: dict[str, Any] = {}
        self.own = folder

    def learn(self, pid: int, folder: Path) -> None:
        """From a server that runs."""
        self.arguments = Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
        self.own, self.template = folder, disk_facts(folder / "disk")
        shutil.copy(folder / "disk.config", self.folder / "disk.config")

    def overlay(self) -> None:
        """A fresh one, like the server's."""
        t = self.template
        for file in (self.disk, self.console):
            file.unlink(missing_ok=True)
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", t["full-backing-filename"], "-F",
                        t["backing-filename-format"], str(self.disk), str(t["virtual-size"])], check=True)
        made = disk_facts(self.disk)
        if different := [k for k in ("virtual-size", "cluster-size", "format-specific", "full-backing-filename")
                         if made[k] != t[k]]:
            sys.exit(f"the overlay is not like the server's: {different}")

    def boot(self) -> dict[str, float]:
        self.overlay()
        command = adapted(self.arguments, {f"{self.own}/{name}": str(new) for name, new in (
            ("disk.config", self.folder / "disk.config"), ("disk", self.disk))}, self.console)
        quiet()
        begin = now()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            def ready() -> bool:
                if process.poll() is not None:
                    sys.exit(f"QEMU ended: {process.communicate()[1].decode()[-2000:]}\n{process.args}")
                return self.console.exists() and b"READY" in self.console.read_bytes()
            try:
                until(ready, f"READY in {self.console}", POLL)
                return {"plain": now() - begin, "cpu": cpu(process.pid)}
            finally:
                process.terminate()


#: Options of libvirt's command line that only make sense under libvirt, with their values.
_LIBVIRT_ONLY = ("-mon", "-add-fd", "-name")
#: Options without a value.
_ALONE = ("-S", "-no-user-config", "-nodefaults", "-no-shutdown", "-no-hpet", "-no-acpi")


def adapted(arguments: list[str], files: dict[str, str], console: Path) -> list[str]:
    """libvirt's command line, to be run by hand: our files for its own, a user network for the tap."""
    found = [arguments[0]]
    rest = iter(arguments[1:])
    for option in rest:
        value = "" if option in _ALONE else next(rest)
        secret = option == "-object" and '"secret"' in value
        if option in ("-S", *_LIBVIRT_ONLY) or secret or "charmonitor" in value:
            continue
        if option == "-chardev" and "charserial" in value:
            value = f"file,id=charserial0,path={console}"
        elif option == "-chardev":
            value = f"null,id={value.split('id=')[1].split(',')[0]}"
        elif option == "-netdev":
            value = json.dumps({"type": "user", "id": json.loads(value)["id"]})
        elif option == "-vnc":
            value += ",to=99"  # another guest may have this screen
        for old, new in files.items():
            value = value.replace(f'"{old}"', f'"{new}"')
        found += [option] if option in _ALONE else [option, value]
    return found


def nacre(data: Path, *args: str) -> None:
    subprocess.run([sys.executable, "-m", "nacre.cli.main", *args, "--data", str(data)], check=True,
                   stdout=subprocess.DEVNULL)


def own_cloud(data: Path) -> Cloud:
    nacre(data, "up", "-d", "--hypervisor", "libvirt", "--port", "18774")
    images = asyncio.run(guest.build(Path("/var/tmp/nacre-test-guest"), lambda text: None))
    return Cloud(data / "clouds.yaml", "demo", demo.image(Client(data, "demo"), images.disk))


def measure(cloud: Cloud, folder: Path, rounds: int) -> list[tuple[dict[str, float], dict[str, float]]]:
    plain = Plain(folder)
    cloud.server(plain.learn)
    plain.boot()
    found = []
    for number in range(rounds):
        if number % 2:
            by_hand = plain.boot()
            found.append((cloud.server(), by_hand))
        else:
            found.append((cloud.server(), plain.boot()))
        print("round {}: {post:.2f} s from the POST, {qemu:.2f} s from QEMU's start; plain {plain:.2f} s".format(
            number + 1, **{**found[-1][1], **found[-1][0]}), file=sys.stderr, flush=True)
    return found


def report(rounds: list[tuple[dict[str, float], dict[str, float]]]) -> dict[str, Any]:
    """Medians; ratios of medians."""
    def median(which: int, key: str) -> float:
        return statistics.median(r[which][key] for r in rounds)

    plain = median(1, "plain")
    ratios = {"ratio_from_post": median(0, "post") / plain, "ratio_from_qemu": median(0, "qemu") / plain}
    parts = {f"{key}_s": round(median(0, key), 3) for key in ("post_to_qemu", "qemu_to_guest", "guest_to_ready")}
    return {
        "date": time.strftime("%Y-%m-%d"), "machine": f"{platform.machine()} {platform.release()}",
        "processors": os.cpu_count(), "load": [round(x, 2) for x in os.getloadavg()], "rounds": len(rounds),
        "plain_s": round(plain, 2), "from_post_s": round(median(0, "post"), 2),
        "from_qemu_s": round(median(0, "qemu"), 2), **{k: round(v, 3) for k, v in ratios.items()},
        "target": TARGET, "met": ratios["ratio_from_post"] <= TARGET, **parts,
        "cpu_cloud_s": round(median(0, "cpu"), 2), "cpu_plain_s": round(median(1, "cpu"), 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--clouds", type=Path, default=None, help="the clouds.yaml of a cloud that runs already")
    parser.add_argument("--cloud", default="demo", help="its name there")
    parser.add_argument("--json", type=Path, default=None, help="also write the result here, with every round")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to stop"))  # what was started is ended on the way out
    folder = Path(tempfile.mkdtemp(prefix="nacre-bench-", dir="/var/tmp"))  # QEMU's own account must get in
    folder.chmod(0o755)
    try:
        cloud = Cloud(args.clouds.absolute(), args.cloud) if args.clouds else own_cloud(folder / "data")
        rounds = measure(cloud, folder, args.rounds)
    finally:
        if not args.clouds:
            nacre(folder / "data", "down")
        shutil.rmtree(folder, ignore_errors=True)
    result = report(rounds)
    print(json.dumps(result, indent=1))
    if args.json:
        args.json.write_text(json.dumps({**result, "all": rounds}, indent=1))


if __name__ == "__main__":
    main()
