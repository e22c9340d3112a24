"""Simulated hosts: each has network, mount, host name and process namespaces, and an Open vSwitch, of its own.

The namespaces have no names: they live as long as their first process, which dies with the process that started it.
Two switches in one more namespace join them: "mgmt", which the machine has a link into, and "under", for tunnels.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

from tests.host.cloud_lab import ROOT, run

SECONDS = 30.0
KINDS = ("net", "mnt", "uts", "pid")
INSIDE = Path(__file__).with_name("inside.py")
#: Before a command: the kernel ends it when the thread that started it does, however that comes about.
DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL")


def children(pid: int) -> list[int]:
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def namespaces(pid: int | str) -> set[str]:
    """Those that a process is in, as the kernel calls them: "net:[4026532281]"."""
    found = set[str]()
    for kind in KINDS:
        try:
            found.add(os.readlink(f"/proc/{pid}/ns/{kind}"))
        except OSError:
            continue
    return found


def inhabited(spaces: set[str]) -> dict[str, list[int]]:
    """Which of the namespaces still have processes."""
    found: dict[str, list[int]] = {}
    for process in Path("/proc").glob("[0-9]*"):
        for space in namespaces(process.name) & spaces:
            found.setdefault(space, []).append(int(process.name))
    return found


def unshared(*args: str, log: IO[bytes]) -> "subprocess.Popen[bytes]":
    """A process in namespaces of its own (args: unshare's), killed when we end."""
    return subprocess.Popen([*DIES_WITH_US, "unshare", *args], stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=log, cwd="/")


def until(what: str, ready: Callable[[], object], seconds: float = SECONDS) -> None:
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.01)


def end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()
    if process.stdout:
        process.stdout.close()


class Fabric:
    """The switches between hosts, and the machine's link into the first: `link`, with `address`. net: the third number
    of their networks. spaces: to be added to, all namespaces that were made."""

    def __init__(self, id: str, net: int, folder: Path, spaces: set[str]):
        self.link, self.net, self.spaces = f"lab-{id}", net, spaces
        self.address = self.management(1)
        with (folder / "fabric.log").open("ab") as log:
            self._process = unshared("--net", "sleep", "infinity", log=log)
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def _build(self) -> None:
        pid = str(self._process.pid)
        own = os.readlink("/proc/self/ns/net")
        until("the fabric's namespace", lambda: not self.alive or os.readlink(f"/proc/{pid}/ns/net") != own)
        self.spaces |= namespaces(pid) - namespaces("self")
        run("ip", "link", "add", self.link, "type", "veth", "peer", "name", "machine", "netns", pid)
        run("ip", "address", "add", f"{self.address}/24", "dev", self.link)
        run("ip", "link", "set", self.link, "up")
        for switch in ("mgmt", "under"):
            self.inside("ip", "link", "add", switch, "type", "bridge")
            self.inside("ip", "link", "set", switch, "up")
        self.plug("machine", "mgmt")

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def management(self, number: int) -> str:
        return f"198.18.{self.net}.{number}"

    def underlay(self, number: int) -> str:
        return f"198.19.{self.net}.{number}"

    @property
    def entrance(self) -> list[str]:
        """What stands before a command that is to run where the switches are."""
        return ["nsenter", "-t", str(self._process.pid), "-n", "--"]

    def inside(self, *args: str) -> str:
        return run(*self.entrance, *args)

    def plug(self, link: str, switch: str) -> None:
        self.inside("ip", "link", "set", link, "master", switch)
        self.inside("ip", "link", "set", link, "up")

    def card(self, number: int, name: str, switch: str, pid: int) -> None:
        """A link from the switch to a host, called `name` there."""
        here = f"{switch}{number}"
        run(*self.entrance, "ip", "link", "delete", here, check=False)  # of a host that was cut off just now
        self.inside("ip", "link", "add", here, "type", "veth", "peer", "name", name, "netns", str(pid))
        self.plug(here, switch)

    def close(self) -> None:
        run("ip", "link", "delete", self.link, check=False)
        end(self._process)


class Host:
    """One host. number: from 1 up, by which its addresses are made. folder: its data's."""

    def __init__(self, fabric: Fabric, name: str, number: int, folder: Path):
        self.name, self.number, self.folder, self._fabric = name, number, folder, fabric
        self.management, self.underlay = fabric.management(10 + number), fabric.underlay(10 + number)
        folder.mkdir(mode=0o755)
        self.switch_on()

    def switch_on(self) -> None:
        """It begins to boot: see `await_ready`. What it had on its disk it has again."""
        with (self.folder / "host.log").open("ab") as log:
            self._process = unshared(
                "--net", "--mount", "--uts", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", sys.executable,
                str(INSIDE), self.name, f"{self.management}/24", f"{self.underlay}/24", str(self.folder / "disk"),
                log=log)

    def await_ready(self) -> None:
        """Its links are there, and Open vSwitch runs."""
        until(f"{self.name}'s first process", lambda: children(self._process.pid) or self._process.poll() is not None)
        if self._process.poll() is None:
            self._fabric.card(self.number, "eth0", "mgmt", self._process.pid)
            self._fabric.card(self.number, "eth1", "under", self._process.pid)
        assert self._process.stdout is not None
        heard = select.select([self._process.stdout], [], [], SECONDS)[0] and self._process.stdout.readline()
        assert heard == b"ready\n", (self.folder / "host.log").read_text()[-3000:]
        spaces = namespaces(self.first) - namespaces("self")
        assert len(spaces) == len(KINDS), spaces
        self._fabric.spaces |= spaces

    def cut_power(self) -> None:
        """Every process in it is gone when this returns, guests too; its data stay."""
        for first in children(self._process.pid):
            os.kill(first, signal.SIGKILL)  # the kernel ends all the others before it says that this one ended
            self._process.wait(SECONDS)
        end(self._process)

    @property
    def first(self) -> int:
        """Its process 1, by the machine's count."""
        return children(self._process.pid)[0]

    @property
    def entrance(self) -> list[str]:
        """What stands before a command that is to run in the host."""
        return ["nsenter", "-t", str(self.first), "-m", "-n", "-u", "-p", "--"]

    def run(self, *args: str, check: bool = True, seconds: float = 90) -> str:
        return run(*self.entrance, *args, check=check, seconds=seconds)

    # --- its node ---------------------------------------------------------------------------------------------

    def nacre(self, *args: str, environ: Mapping[str, str]) -> str:
        """What the command prints in the host, over its data folder, with no options but these."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith("NACRE_")}
        done = subprocess.run(
            [*self.entrance, sys.executable, "-m", "nacre.cli.main", *args, "--data", str(self.folder)], text=True,
            capture_output=True, timeout=120, check=False, cwd="/",
            env={**clean, "PYTHONPATH": str(ROOT / "src"), "NACRE_FAKE_CRASH_FILE": str(self.trigger), **environ})
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @property
    def trigger(self) -> Path:
        """The file whose text names the point at which the node kills itself, once."""
        return self.folder / "crash"

    @property
    def node_pid(self) -> str:
        """By the host's count."""
        return (self.folder / "run" / "node.pid").read_text()

    def kill(self, command: str) -> None:
        """The host's processes that run this command, by force."""
        for file in self.run("sh", "-c", "grep -lx \"$0\" /proc/[0-9]*/comm || true", command).split():
            self.run("kill", "-9", file.split("/")[2])

    # --- what it has ------------------------------------------------------------------------------------------

    def domains(self) -> list[str]:
        return self.run("virsh", "list", "--all", "--uuid").split()

    def interfaces(self) -> dict[str, dict[str, str]]:
        """Of Open vSwitch: name -> external ids."""
        told = json.loads(self.run("ovs-vsctl", "--format=json", "--columns=name,external_ids", "list", "Interface"))
        return {name: dict(ids[1]) for name, ids in told["data"]}

    def flows(self, bridge: str, *more: str) -> list[str]:
        return self.run("ovs-ofctl", "-O", "OpenFlow14", *more, "dump-flows", bridge).splitlines()[1:]
