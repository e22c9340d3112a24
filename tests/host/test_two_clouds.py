"""Two clouds with guests on one machine: the second is told no, and the first does not notice."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.cloud_lab import ROOT, CloudLab, run

pytestmark = [pytest.mark.host, pytest.mark.timeout(300)]


@pytest.fixture
def lab() -> Iterator[CloudLab]:
    folder = Path(tempfile.mkdtemp(prefix="nacre-first-", dir="/var/tmp"))  # QEMU's own account must get in
    made = CloudLab(folder)
    try:
        yield made
    finally:
        again(made)
        made.delete(*made.ids())
        made.nacre("down")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def second() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="nacre-second-", dir="/var/tmp"))
    folder.chmod(0o755)
    try:
        yield folder / "data"
    finally:
        nacre(folder / "data", "down")
        shutil.rmtree(folder, ignore_errors=True)


def nacre(data: Path, *args: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", "nacre.cli.main", *args, "--data", str(data)], capture_output=True,
                          text=True, timeout=120, check=False, env={**os.environ, "PYTHONPATH": str(ROOT / "src")})


def start(data: Path) -> "subprocess.CompletedProcess[str]":
    return nacre(data, "up", "-d", "--hypervisor", "libvirt", "--port", "18790")


def again(lab: CloudLab) -> None:
    lab.nacre("up", "-d", "--hypervisor", "libvirt", "--port", str(lab.port))


def mark() -> str:
    return run("ovs-vsctl", "br-get-external-id", "br-int", "nacre-data").strip()


def test_the_second_cloud_is_refused_until_the_first_is_done(lab: CloudLab, second: Path) -> None:
    node = (lab.data / "run" / "node.pid").read_text()
    begin = time.monotonic()
    no = start(second)
    assert time.monotonic() - begin < 10
    assert no.returncode == 1 and f"nacre down --data {lab.data}" in no.stderr and "Traceback" not in no.stderr
    assert mark() == str(lab.data) and not (second / "run" / "node.pid").exists()
    assert [f["state"] for f in json.loads(nacre(second, "doctor", "--json").stdout) if f["name"] == "bridge"] == [
        "failed"]
    assert nacre(second, "up", "-d", "--hypervisor", "fake", "--port", "18790").returncode == 0  # has no guests
    nacre(second, "down")

    # A node whose `up` did not look, or looked too early, has to give way by itself.
    alone = subprocess.run(
        [sys.executable, "-m", "nacre.cli.main", "node", "--data", str(second)], capture_output=True, text=True,
        timeout=60, check=False, env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "NACRE_HYPERVISOR": "libvirt",
                                      "NACRE_RPC_CONTROL": "tcp://127.0.0.1:1", "NACRE_RPC_CONTROL_KEY": "0" * 40})
    assert alone.returncode == 1 and f"nacre down --data {lab.data}" in alone.stderr
    assert mark() == str(lab.data) and (lab.data / "run" / "node.pid").read_text() == node

    net = lab.network("kept", "192.0.2.0/24")
    server = lab.boot("kept", net)
    lab.active(server)
    flows = len(run("ovs-ofctl", "dump-flows", "br-int").splitlines())
    lab.nacre("down")
    no = start(second)
    assert no.returncode == 1 and "1 with a port" in no.stderr and str(lab.data) in no.stderr
    assert len(run("ovs-ofctl", "dump-flows", "br-int").splitlines()) == flows
    again(lab)
    lab.ready(server)
    lab.delete(server)
    lab.nacre("down")

    yes = start(second)
    assert yes.returncode == 0, yes.stderr
    assert mark() == str(second)
    assert f"nacre down --data {second}" in start(lab.data).stderr
    assert nacre(second, "down").returncode == 0
