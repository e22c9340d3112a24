"""How long a real guest takes to its own READY line: through the whole cloud, and under plain QEMU.

    python bench/guest.py [--rounds 10] [--json FILE]         (as root, on a host where `nacre demo` works)

Starts a cloud of its own with libvirt (other clouds with libvirt on this host must be down), boots one server to see
the command line that libvirt runs QEMU with, then interleaves, `rounds` times: a server created by POST /servers, and
that same command line run by hand: same machine, CPU, memory, devices and sandbox, a fresh overlay of the same cached
image, the same config drive. What differs by need: no `-S` and no monitor (nobody resumes it), the console in
a file of ours, and QEMU's own user network with its DHCP in place of the tap.

Measured: plain, from the start of the process to READY; Nacre, from the POST to READY, and from its QEMU's start. READY
is looked for every 5 ms in the console's file in both cases. Everything made is deleted.
"""

import argparse
import asyncio
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from nacre import guest
from nacre.cli import demo
from nacre.cli.client import Client

POLL, LIMIT = 0.005, 120.0


def ready(console: Path, since: float, process: "subprocess.Popen[bytes] | None" = None) -> float:
    """Seconds from `since` (monotonic) until the file has a READY line."""
    while time.monotonic() - since < LIMIT:
        if process and process.poll() is not None:
            raise SystemExit(f"QEMU ended: {process.communicate()[1].decode()[-2000:]}\n{process.args}")
        if console.exists() and b"READY" in console.read_bytes():
            return time.monotonic() - since
        time.sleep(POLL)
    raise SystemExit(f"no READY in {console} within {LIMIT:.0f} s")


class Bench:
    """One cloud with one image and network, and what is booted in it."""

    def __init__(self, folder: Path):
        self.folder, self.data = folder, folder / "data"
        self.nacre("up", "-d", "--hypervisor", "libvirt", "--port", "18774")
        self.client = Client(self.data, "demo")
        images = asyncio.run(guest.build(Path("/var/tmp/nacre-test-guest"), print))
        self.image, self.network = demo.image(self.client, images.disk), demo.network(self.client)
        flavors = self.client.get("compute", "/flavors/detail")["flavors"]
        self.flavor = min((f for f in flavors if f["ram"] >= 96), key=lambda f: (f["ram"], f["disk"]))["id"]
        self.arguments: list[str] = []

    def nacre(self, *args: str) -> None:
        subprocess.run([sys.executable, "-m", "nacre.cli.main", *args, "--data", str(self.data)], check=True)

    def server(self) -> tuple[float, float]:
        """A server's seconds to READY, from the POST and from its QEMU's start; it is deleted after it."""
        begin = time.monotonic()
        made = self.client.post("compute", "/servers", {"server": {
            "name": "bench", "imageRef": self.image, "flavorRef": self.flavor, "config_drive": True,
            "networks": [{"uuid": self.network}]}})["server"]["id"]
        folder = self._folder(made, begin)
        whole = ready(folder / "console.log", begin)
        pid = self._pid(made)
        started = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
        if not self.arguments:
            self.arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]
            shutil.copy(folder / "disk.config", self.folder / "disk.config")
            self.backing = self._backing(folder / "disk")
            self.own = str(folder)
        self.client.request("DELETE", "compute", f"/servers/{made}")
        while self.client.get("compute", "/servers")["servers"]:
            time.sleep(0.1)
        return whole, whole - (started - begin)

    def _folder(self, server: str, begin: float) -> Path:
        while time.monotonic() - begin < LIMIT:
            for root in (self.data, Path("/var/lib/nacre")):
                if found := next(root.rglob(f"{server}/console.log"), None):
                    return found.parent
            time.sleep(POLL)
        raise SystemExit(f"no console appeared of {self.client.get('compute', f'/servers/{server}')}")

    def _pid(self, server: str) -> int:
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if line.startswith(b"/usr/bin/qemu") and server.encode() in line:
                return int(entry.name)
        raise SystemExit("the server's QEMU is not there")

    @staticmethod
    def _backing(disk: Path) -> dict[str, Any]:
        told = subprocess.run(["qemu-img", "info", "-U", "--output=json", str(disk)], capture_output=True, check=True)
        return dict(json.loads(told.stdout))

    def plain(self) -> float:
        """Seconds to READY of the same command line without a cloud."""
        disk, console = self.folder / "plain.qcow2", self.folder / "plain.log"
        for file in (disk, console):
            file.unlink(missing_ok=True)
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", self.backing["full-backing-filename"], "-F",
                        self.backing["backing-filename-format"], str(disk), str(self.backing["virtual-size"])],
                       check=True)
        command = adapted(self.arguments, {f"{self.own}/disk.config": str(self.folder / "disk.config"),
                                           f"{self.own}/disk": str(disk)}, console)
        begin = time.monotonic()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            try:
                return ready(console, begin, process)
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
        if option == "-netdev":
            value = json.dumps({"type": "user", "id": json.loads(value)["id"]})
        for old, new in files.items():
            value = value.replace(f'"{old}"', f'"{new}"')
        found += [option] if option in _ALONE else [option, value]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", default=None, help="also write the result here")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="nacre-bench-", dir="/var/tmp"))  # QEMU's own account must get in
    folder.chmod(0o755)
    bench = Bench(folder)
    try:
        bench.server()  # the first fills the image cache and shows the command line
        bench.plain()
        rounds = [(bench.server(), bench.plain()) for _ in range(args.rounds)]
    finally:
        bench.nacre("down")
        shutil.rmtree(folder, ignore_errors=True)
    post, qemu, plain = ([r[0][0] for r in rounds], [r[0][1] for r in rounds], [r[1] for r in rounds])
    result = {"machine": f"{platform.machine()} {platform.release()}", "date": time.strftime("%Y-%m-%d"),
              "rounds": args.rounds, "plain_s": round(statistics.median(plain), 2),
              "from_post_s": round(statistics.median(post), 2), "from_qemu_s": round(statistics.median(qemu), 2),
              "ratio": round(statistics.median(post) / statistics.median(plain), 3)}
    print(json.dumps(result, indent=1))
    if args.json:
        Path(args.json).write_text(json.dumps({**result, "all": rounds}, indent=1))


if __name__ == "__main__":
    main()
