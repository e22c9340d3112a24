"""A whole cloud with real guests: `nacre up --hypervisor libvirt` in a folder of its own, driven by the public APIs."""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nacre import guest
from nacre.cli import demo
from nacre.cli.client import Client
from nacre.cli.supervisor import cloud_id
from nacre.node.names import Names
from nacre.node.ovs.agent import decommission

ROOT = Path(__file__).parents[2]
#: The tiny guest is built once for all test runs of this machine.
GUEST = Path("/var/tmp/nacre-test-guest")


def run(*args: str, check: bool = True, seconds: float = 90) -> str:
    done = subprocess.run(args, capture_output=True, text=True, timeout=seconds, check=False)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(args)}: {done.stderr or done.stdout}")
    return done.stdout


def names_of(data: Path) -> Names:
    """What the things of the cloud in this folder are called on this machine."""
    return Names(cloud_id(data))


def remove(data: Path) -> None:
    """Nothing is left of a cloud that is down and has no guests, and of the folder that it was tried in."""
    asyncio.run(decommission(names_of(data)))
    shutil.rmtree(data.parent)


class Tenant:
    """An ordinary user of a running cloud, with what a guest needs: image, flavor, key, group. data: where the cloud's
    clouds.yaml lies."""

    def __init__(self, data: Path):
        self.demo = Client(data, "demo")
        images = asyncio.run(guest.build(GUEST, lambda text: None))
        self.image = demo.image(self.demo, images.disk)
        self.key = demo.key_pair(self.demo, data)
        demo.security_group(self.demo)
        self.flavor = min((f for f in self.demo.get("compute", "/flavors/detail")["flavors"] if f["ram"] >= 96),
                          key=lambda f: f["ram"])["id"]

    def network(self, name: str, cidr: str) -> str:
        net = self.demo.post("network", "/networks", {"network": {"name": name}})["network"]
        self.demo.post("network", "/subnets", {"subnet": {"network_id": net["id"], "ip_version": 4, "cidr": cidr}})
        return str(net["id"])

    def boot(self, name: str, network: str, **more: Any) -> str:
        """A server's id; not waited for."""
        body = {"name": name, "imageRef": self.image, "flavorRef": self.flavor, "key_name": demo.NAME,
                "networks": [{"uuid": network}], "security_groups": [{"name": demo.NAME}], **more}
        hints = body.pop("hints", {})
        answer = self.demo.post("compute", "/servers", {"server": body, "os:scheduler_hints": hints})
        return str(answer["server"]["id"])

    def show(self, server: str) -> dict[str, Any]:
        return dict(self.demo.get("compute", f"/servers/{server}")["server"])

    def act(self, server: str, action: dict[str, Any]) -> Any:
        return self.demo.post("compute", f"/servers/{server}/action", action)

    def console(self, server: str) -> str:
        return str(self.act(server, {"os-getConsoleOutput": {}})["output"])

    def active(self, server: str, seconds: float = 60) -> dict[str, Any]:
        found: dict[str, Any] = self.wait(
            lambda: (s := self.show(server))["status"] in ("ACTIVE", "ERROR") and s, f"{server} ACTIVE", seconds)
        assert found["status"] == "ACTIVE", found.get("fault")
        return found

    def ready(self, server: str, times: int = 1) -> str:
        """The guest's own word, the given number of times."""
        self.active(server)
        return self.wait(lambda: (c := self.console(server)).count("READY") >= times and c, f"{server} READY", 90)

    def wait(self, what: Callable[[], Any], name: str, seconds: float) -> Any:
        end, last = time.monotonic() + seconds, None
        while time.monotonic() < end:
            try:
                if found := what():
                    return found
            except Exception as error:
                last = error
            time.sleep(0.2)
        raise AssertionError(f"not within {seconds} s: {name} ({last})")

    def address(self, server: str) -> str:
        return next(a["addr"] for nets in self.show(server)["addresses"].values() for a in nets)

    def ports(self, server: str) -> list[dict[str, Any]]:
        return list(self.demo.get("network", "/ports", params={"device_id": server})["ports"])

    def delete(self, *servers: str) -> None:
        for server in servers:
            self.demo.request("DELETE", "compute", f"/servers/{server}")
        for server in servers:
            self.wait(lambda s=server: s not in self.ids(), f"{server} gone", 60)  # type: ignore[misc]

    def ids(self) -> set[str]:
        return {s["id"] for s in self.demo.get("compute", "/servers")["servers"]}


class CloudLab(Tenant):
    """One cloud, and what a test does with it."""

    def __init__(self, folder: Path, **environ: str):
        self.environ = environ
        folder.chmod(0o755)
        self.data, self.trigger = folder / "data", folder / "crash" / "at"
        self.trigger.parent.mkdir()
        self.trigger.parent.chmod(0o777)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.up()
        self.names = names_of(self.data)
        super().__init__(self.data)

    def up(self) -> None:
        self.nacre("up", "-d", "--hypervisor", "libvirt", "--port", str(self.port))

    def close(self) -> None:
        """Nothing is left of it."""
        self.delete(*self.ids())
        self.nacre("down")
        remove(self.data)

    def nacre(self, *args: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "nacre.cli.main", *args, "--data", str(self.data)], capture_output=True, text=True,
            timeout=120, check=False, env={**os.environ, "PYTHONPATH": str(ROOT / "src"),
                                           "NACRE_FAKE_CRASH_FILE": str(self.trigger), **self.environ})
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def ssh(self, network: str, address: str, command: str) -> str:
        """What a command prints in a guest; reached from the network's namespace on this host."""
        return demo.ssh(self.names.namespace(network), self.key, address, command)

    def leftovers(self, server: str, port: dict[str, Any]) -> dict[str, str]:
        """What this machine still has of a server that is gone."""
        mac, tap = port["mac_address"], self.names.tap(port["id"])
        found = {
            "domain": server if server in run("virsh", "list", "--all", "--uuid") else "",
            "tap": tap if tap in run("ip", "-o", "link") else "",
            "bridge port": port["id"] if port["id"] in run("ovs-vsctl", "--columns=external_ids", "list",
                                                           "Interface") else "",
            "flows": "\n".join(x for x in run("ovs-ofctl", "dump-flows", self.names.bridge).splitlines() if mac in x),
            "disk": " ".join(str(p) for root in (self.data, Path("/var/lib/nacre")) if root.exists()
                             for p in root.rglob(server)),
            "lease": " ".join(str(p) for p in self.names.run.rglob("*lease*")
                              if p.is_file() and mac in p.read_text(errors="replace")),
            "port": " ".join(p["id"] for p in self.ports(server)),
        }
        admin = Client(self.data, "nacre")
        host = admin.get("compute", "/os-hypervisors/detail", headers={"OpenStack-API-Version": "compute 2.87"})
        if not self.ids() and (used := host["hypervisors"][0]["memory_mb_used"]):
            found["claim"] = f"{used} MB of memory"
        return {k: v for k, v in found.items() if v}

    def arm(self, point: str) -> None:
        staged = self.trigger.with_suffix(".new")
        staged.write_text(point)
        staged.chmod(0o666)
        staged.rename(self.trigger)

    def status(self) -> dict[str, Any]:
        return dict(json.loads(self.nacre("status", "--json")))
