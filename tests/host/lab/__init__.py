"""Several hosts of one cloud on one machine, each with libvirt, Open vSwitch, node process and data folder of its own.

    with lab(hosts=2) as cloud:
        cloud.boot(...)

By hand: `python -m tests.host.lab [HOSTS]`, as root. Names carry an id, so any number of labs run beside each other and
beside other clouds, and when a lab ends, nothing of it is left, which is checked.
"""

import contextlib
import os
import random
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from tests.host.cloud_lab import run
from tests.host.lab.cloud import HostsLab
from tests.host.lab.hosts import Fabric, Host, inhabited, until

__all__ = ["HostsLab", "lab"]


@contextlib.contextmanager
def lab(hosts: int = 2, **environ: str) -> Iterator[HostsLab]:
    """A cloud of this many hosts, all up. environ: more options of all its processes."""
    id = uuid.uuid4().hex[:8]
    folder = Path(tempfile.mkdtemp(prefix=f"nacre-lab-{id}-", dir="/var/tmp"))  # QEMU's own account must get in
    folder.chmod(0o755)
    spaces = set[str]()
    with contextlib.ExitStack() as end:
        end.callback(nothing_is_left, id, spaces)
        end.callback(shutil.rmtree, folder)
        fabric = Fabric(id, _free_net(), folder, spaces)
        end.callback(fabric.close)
        cloud = HostsLab(folder, fabric, environ)
        end.callback(cloud.kill_control)
        for number in range(1, hosts + 1):
            host = Host(fabric, f"host{number}", number, folder / f"host{number}")
            end.callback(host.cut_power)
            cloud.hosts[host.name] = host
        for host in cloud.hosts.values():
            host.await_ready()
        cloud.up()
        yield cloud


def _free_net() -> int:
    """The third number of a network of 198.18.0.0/15, which is for such trials, that this machine has no address in."""
    used = run("ip", "-o", "-4", "address")
    return random.choice([net for net in range(1, 255) if f" 198.18.{net}." not in used])


def nothing_is_left(id: str, spaces: set[str]) -> None:
    """Of the lab with this id, which had these namespaces: no process, so no namespace; no link, mount, or folder."""
    until(f"the processes in {spaces} are gone: {inhabited(spaces)}", lambda: not inhabited(spaces), 10)
    left = [line for command in (("ip", "-o", "link"), ("ip", "netns", "list"), ("ps", "-ww", "-eo", "pid,args"))
            for line in run(*command).splitlines() if f"lab-{id}" in line and "grep" not in line]
    left += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if id in line]
    left += [name for name in os.listdir("/var/tmp") if id in name]
    assert not left, left
