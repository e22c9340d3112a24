"""`nacre demo` as a newcomer runs it: a guest that was logged in to, the same one again, and nothing left."""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nacre import guest
from nacre.cli.client import Client
from tests.host.cloud_lab import GUEST, ROOT, run

pytestmark = [pytest.mark.host, pytest.mark.timeout(300)]


class Demo:
    """The command over a data folder of its own."""

    def __init__(self, data: Path):
        self.data = data
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]

    def nacre(self, *args: str) -> str:
        environ = {k: v for k, v in os.environ.items() if not k.startswith("NACRE_")}
        environ |= {"PYTHONPATH": str(ROOT / "src"), "NACRE_PORT": str(self.port), "NACRE_HYPERVISOR": "libvirt"}
        done = subprocess.run([sys.executable, "-m", "nacre.cli.main", *args, "--data", str(self.data)],
                              env=environ, capture_output=True, text=True, timeout=250, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def facts(self) -> dict[str, Any]:
        return dict(json.loads(self.nacre("demo", "--json").splitlines()[-1]))


@pytest.fixture
def demo() -> Iterator[Demo]:
    folder = Path(tempfile.mkdtemp(prefix="nacre-demo-", dir="/var/tmp"))  # QEMU's own account must get in
    folder.chmod(0o755)
    made = Demo(folder / "data")
    made.data.mkdir()
    asyncio.run(guest.build(GUEST, lambda text: None))
    shutil.copytree(GUEST, made.data / "guest")
    try:
        yield made
    finally:
        made.nacre("down")
        shutil.rmtree(folder, ignore_errors=True)


def test_a_newcomer_gets_into_a_guest_and_finds_it_again(demo: Demo) -> None:
    first = demo.facts()
    server = first["server"]
    assert server["status"] == "ACTIVE" and server["name"] == "demo"
    assert first["ready"].startswith("TINY READY host=demo") and server["address"] in first["ready"]
    assert first["hostname"] == "demo"
    assert first["metadata"]["uuid"] == server["id"] and first["metadata"]["meta"] == {"made-by": "nacre demo"}
    steps = [step["step"] for step in first["timeline"][-1]["steps"]]
    assert {"schedule", "claim", "network.plug", "prepare", "spawn", "host.boot"} <= set(steps), steps
    begin = time.monotonic()
    second = demo.facts()
    assert second["server"] == server and second["metadata"] == first["metadata"]
    assert time.monotonic() - begin < 20  # nothing is built, downloaded or booted again
    client = Client(demo.data, "demo")
    port = client.get("network", "/ports", params={"device_id": server["id"]})["ports"][0]
    client.request("DELETE", "compute", f"/servers/{server['id']}")
    while client.get("compute", "/servers")["servers"]:
        time.sleep(0.2)
    assert server["id"] not in run("virsh", "list", "--all", "--uuid")
    assert f"tap{port['id'][:11]}" not in run("ip", "-o", "link")
    assert port["mac_address"] not in run("ovs-ofctl", "dump-flows", "br-int")
