"""A cloud of real processes that die on demand, for tests: its supervisor starts them again."""

import collections
import contextlib
import json
import os
import subprocess
import sys
import time
from http.client import HTTPException
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from bench.client import Cloud

from nacre.base.db import make_engine
from nacre.cli.supervisor import free_port

ROOT = Path(__file__).parents[2]
SECONDS = 30.0


def nacre(data: Path, *args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """The command, over a data folder, with no options but these."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("NACRE_")}
    return subprocess.run([sys.executable, "-m", "nacre.cli.main", *args, "--data", str(data)],
                          env={**clean, "PYTHONPATH": str(ROOT / "src"), **environ}, capture_output=True, text=True,
                          timeout=90, check=False)


class Lab:
    """A cloud whose processes die on demand; its supervisor starts them again."""

    def __init__(self, folder: Path, database: str = ""):
        self.data, self.trigger, self.database = folder / "data", folder / "crash" / "at", database
        self.trigger.parent.mkdir()
        folder.chmod(0o777)
        self.trigger.parent.chmod(0o777)
        self.environ = {"NACRE_FAKE_CRASH_FILE": str(self.trigger), "NACRE_FAKE_VCPUS": "4096",
                        "NACRE_FAKE_MEMORY_MB": "4000000"}
        self.port = str(free_port())
        self.up()
        self.cloud = Cloud("demo", str(self.data / "clouds.yaml"))
        image = self.call("POST", "image", "/images", {
            "name": "little", "disk_format": "raw", "container_format": "bare"})["id"]
        status, _, answer = self.cloud.raw(
            "PUT", f"{self.cloud.roots['image']}/images/{image}/file", {"not": "json to it"},
            {"Content-Type": "application/octet-stream"})
        assert status == 204, answer
        net = self.call("POST", "network", "/networks", {"network": {"name": "lab"}})["network"]["id"]
        self.call("POST", "network", "/subnets", {"subnet": {
            "network_id": net, "ip_version": 4, "cidr": "10.64.0.0/16"}})
        flavor = min(self.call("GET", "compute", "/flavors/detail")["flavors"], key=lambda f: f["ram"])["id"]
        self.body = {"server": {"name": "s", "imageRef": image, "flavorRef": flavor, "networks": [{"uuid": net}]}}

    def up(self) -> None:
        self.nacre("up", "-d", "--hypervisor", "fake", "--port", self.port,
                   *(("--database", self.database) if self.database else ()))

    def nacre(self, *args: str) -> str:
        done = nacre(self.data, *args, **self.environ)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def call(self, method: str, service: str, path: str, body: object = None) -> dict[str, object]:
        return self.cloud.call(method, service, path, body)  # type: ignore[no-any-return]

    def arm(self, point: str) -> None:
        staged = self.trigger.with_suffix(".new")
        staged.write_text(point)
        staged.chmod(0o666)
        staged.rename(self.trigger)

    def wait(self, server: str, wanted: str) -> None:
        """Until the server's status is `wanted` ("gone": 404); the API may be away in between."""
        end, seen = time.monotonic() + SECONDS, "?"
        while time.monotonic() < end:
            try:
                status, _, data = self.cloud.raw("GET", f"{self.cloud.roots['compute']}/servers/{server}")
            except (OSError, HTTPException) as error:
                seen = str(error)
            else:
                seen = "gone" if status == 404 else json.loads(data).get("server", {}).get("status", str(status))
                if seen == wanted:
                    return
                assert seen != "ERROR", data
            time.sleep(0.05)
        raise AssertionError(f"{server} is {seen}, not {wanted}, after {SECONDS} s; logs in {self.data}/logs")

    def leaks(self) -> dict[str, list[object]]:
        """What is left though no server is: rows by table, guests and claims at the node."""
        engine = make_engine(self.database or f"sqlite:///file:{self.data}/control/nacre.db?mode=ro&uri=true")
        with engine.connect() as db:
            left: dict[str, list[object]] = {name: list(db.execute(sa.text(query)).all()) for name, query in {
                "servers": "select id from servers where not deleted",
                "ports": "select id from ports where device_owner like 'compute:%'",
                "addresses": "select ip_address from port_addresses join ports on ports.id = port_id "
                             "where device_owner like 'compute:%'",
                "stories": "select kind from stories", "allocations": "select server_id, host, state from allocations",
                "usage": "select project_id, instances from project_usage where instances != 0"}.items()}
        engine.dispose()
        left["guests"] = [file.stem for file in (self.data / "node" / "fake-guests").glob("*.json")]
        return {k: v for k, v in left.items() if v}

    def no_leaks(self) -> None:
        end = time.monotonic() + SECONDS
        while (left := self.leaks()) and time.monotonic() < end:
            time.sleep(0.1)
        assert not left, left

    def lift_quotas(self) -> None:
        """Of the project demo: no limits for what builds need."""
        admin = Cloud("nacre", str(self.data / "clouds.yaml"))
        project = next(p["id"] for p in self.cloud.call("GET", "identity", "/v3/auth/projects")["projects"]
                       if p["name"] == "demo")
        admin.call("PUT", "compute", f"/os-quota-sets/{project}", {"quota_set": {
            "instances": -1, "cores": -1, "ram": -1}})
        admin.call("PUT", "network", f"/quotas/{project}", {"quota": {"port": -1}})

    def until_active(self, name: str, count: int, seconds: float = SECONDS) -> list[dict[str, Any]]:
        """The servers whose names begin so, once there are that many and all are ACTIVE; the API may be away."""
        end, servers = time.monotonic() + seconds, list[dict[str, Any]]()
        while time.monotonic() < end:
            with contextlib.suppress(OSError, HTTPException):
                servers = self.call("GET", "compute", f"/servers/detail?name=^{name}")["servers"]  # type: ignore[assignment]
            if len(servers) == count and all(s["status"] == "ACTIVE" for s in servers):
                return servers
            time.sleep(0.1)
        found = collections.Counter(s["status"] for s in servers)
        raise AssertionError(f"{dict(found)}, not {count} active, after {seconds} s: "
                             f"{[s['fault'] for s in servers if 'fault' in s][:3]}; logs in {self.data}/logs")
