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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nacre import guest
from nacre.cli.client import Client
from tests.host.cloud_lab import GUEST, ROOT, names_of, remove, run

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
        made.nacre("down", "--purge")
        remove(made.data)


def test_a_newcomer_gets_into_a_guest_and_finds_it_again(demo: Demo) -> None:
    first = demo.facts()
    server = first["server"]
    assert server["status"] == "ACTIVE" and server["name"] == "demo"
    assert first["ready"].startswith("TINY READY host=demo") and server["address"] in first["ready"]
    assert first["hostname"] == "demo"
    by_router(demo, first["outside"])
    assert first["metadata"]["uuid"] == server["id"] and first["metadata"]["meta"] == {"made-by": "nacre demo"}
    (action,) = first["timeline"]
    steps = [step["step"] for step in action["steps"]]
    assert action["action"] == "create" and all(step["took_ms"] >= 0 for step in action["steps"])
    assert {"schedule", "network.plug", "prepare", "spawn", "host.claim", "host.boot"} <= set(steps), steps
    begin = time.monotonic()
    second = demo.facts()
    assert second["server"] == server and second["metadata"] == first["metadata"]
    assert time.monotonic() - begin < 20  # nothing is built, downloaded or booted again
    assert len(Client(demo.data, "demo").get("compute", "/servers")["servers"]) == 1
    leaves_nothing(demo, str(server["id"]))


def by_router(demo: Demo, out: dict[str, Any] | None) -> None:
    """The guest was logged in to by a floating IP from this machine, and fetched a page of it by its router."""
    assert out is not None, demo.nacre("status")
    assert out["hostname"] == "demo" and out["seen_as"] == out["router"] != out["floating_ip"]
    assert run("ping", "-c", "2", "-W", "2", str(out["floating_ip"]))
    assert names_of(demo.data).nat[0] in run("ip", "route", "get", str(out["floating_ip"]))


def unrouted(client: Client, net: str) -> None:
    """The network has no router any more, and no address of the outside."""
    for each in client.get("network", "/floatingips")["floatingips"]:
        client.request("DELETE", "network", f"/floatingips/{each['id']}")
    for port in client.get("network", "/ports", params={
            "network_id": net, "device_owner": "network:router_interface"})["ports"]:
        client.request("PUT", "network", f"/routers/{port['device_id']}/remove_router_interface",
                       json={"port_id": port["id"]})


def leaves_nothing(demo: Demo, server: str) -> None:
    """Server and network are deleted through the API, as a person would: this machine has nothing of them then."""
    client = Client(demo.data, "demo")
    port = client.get("network", "/ports", params={"device_id": server})["ports"][0]
    names, net, mac = names_of(demo.data), port["network_id"], port["mac_address"]
    tap, space = names.tap(port["id"]), names.namespace(net)

    def seen() -> dict[str, str]:
        """What there is of them, by kind."""
        found = {
            "domain": server if server in run("virsh", "list", "--all", "--uuid") else "",
            "tap": tap if tap in run("ip", "-o", "link") else "",
            "flows": " ".join(x for x in run("ovs-ofctl", "dump-flows", names.bridge).splitlines() if mac in x),
            "disk": " ".join(str(p) for root in (demo.data, Path("/var/lib/nacre")) if root.exists()
                             for p in root.rglob(server)),
            "namespace": space if space in run("ip", "netns", "list") else "",
            "dnsmasq": " ".join(x for x in run("ps", "-ww", "-eo", "args").splitlines() if "dnsmasq" in x and net in x)}
        return {kind: what for kind, what in found.items() if what}

    assert set(seen()) == {"domain", "tap", "flows", "disk", "namespace", "dnsmasq"}  # it does look in the right places
    client.request("DELETE", "compute", f"/servers/{server}")
    eventually(lambda: not client.get("compute", "/servers")["servers"], lambda: "the server is still there")
    unrouted(client, net)
    client.request("DELETE", "network", f"/networks/{net}")
    eventually(lambda: not seen(), seen)
    admin = Client(demo.data, "nacre")
    host = admin.get("compute", "/os-hypervisors/detail", headers={"OpenStack-API-Version": "compute 2.87"})
    assert host["hypervisors"][0]["memory_mb_used"] == 0  # the claim


def eventually(check: Callable[[], bool], else_what: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, else_what()
        time.sleep(0.2)
