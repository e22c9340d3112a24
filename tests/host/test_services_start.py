"""Nodes of several clouds that start at the same time on a machine where neither libvirt nor Open vSwitch runs."""

import json
import shutil
import subprocess
import sys

import pytest

from tests.host.cloud_lab import ROOT

pytestmark = [pytest.mark.host, pytest.mark.skipif(not shutil.which("ovs-vswitchd") or not shutil.which("libvirtd"),
                                                   reason="needs libvirt and Open vSwitch")]
#: A machine of its own: what these daemons write lies in memory, and nobody outside sees them.
ALONE = """
set -e
mount --make-rprivate /
for folder in /run /etc/openvswitch /var/lib/openvswitch /var/log/openvswitch /etc/libvirt /var/lib/libvirt \
        /var/cache/libvirt /var/log/libvirt; do
    mkdir -p $folder; mount -t tmpfs tmpfs $folder
done
mkdir -p /run/lock
ip link set lo up
exec "$@"
"""
#: Three nodes' first step, then who runs.
START = """
import asyncio, json, subprocess, sys
NODE = '''
import asyncio
from nacre.node.hypervisor.libvirt.service import ensure_services as libvirt
from nacre.node.ovs.service import ensure_services as openvswitch
async def both():
    return (await asyncio.gather(libvirt(), openvswitch()))[1]
print(asyncio.run(both()))
'''
nodes = [subprocess.Popen([sys.executable, "-c", NODE], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
         for _ in range(3)]
said = [node.communicate() for node in nodes]
names = subprocess.run(["ps", "-eo", "stat,comm"], stdout=subprocess.PIPE, text=True).stdout.splitlines()
alive = [line.split()[1] for line in names if not line.startswith("Z")]
print(json.dumps({"started": [out.split()[-1:] for out, _ in said], "why": [err[-2000:] for _, err in said],
                  "running": {name: alive.count(name) for name in ("libvirtd", "virtlogd", "ovsdb-server")}}))
"""


def test_the_services_are_started_once() -> None:
    done = subprocess.run(
        ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", ALONE, "sh",
         sys.executable, "-c", START], capture_output=True, text=True, timeout=110, check=False,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": str(ROOT / "src")})
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert sorted(found["started"]) == [["False"], ["False"], ["True"]], found
    assert found["running"] == {"libvirtd": 1, "virtlogd": 1, "ovsdb-server": 1}, found
