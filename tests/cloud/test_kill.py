"""kill -9 at every step of a create and a delete, with real processes, ZeroMQ, SQLite and the fake hypervisor:
everything that was accepted ends as it should within 30 s of the restart, and nothing is leaked."""

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path

import pytest
from bench.client import Cloud

ROOT = Path(__file__).parents[2]
SECONDS = 30.0

CREATE = [f"{party} {step} {when}" for party, steps in {
    "control": ("network.plug", "claim", "prepare", "spawn"),
    "node": ("disks", "domain", "wiring", "boot"),
}.items() for step in steps for when in ("begins", "done")] + [
    f"control story {when}" for when in ("taken", "told")] + [f"node journal {stage}" for stage in (
        "claimed", "prepared", "spawning", "running")]
DELETE = [f"control {step} {when}" for step in ("destroy", "network.deallocate") for when in ("begins", "done")] + [
    "control story taken", "control story told", "node journal closing", "node journal gone"]


class Lab:
    """A cloud whose processes die on demand; its supervisor starts them again."""

    def __init__(self, folder: Path):
        self.data, self.trigger = folder / "data", folder / "crash" / "at"
        self.trigger.parent.mkdir()
        folder.chmod(0o777)
        self.trigger.parent.chmod(0o777)
        self.environ = {**os.environ, "NACRE_FAKE_CRASH_FILE": str(self.trigger), "PYTHONPATH": str(ROOT / "src")}
        port = str(20000 + os.getpid() % 20000)
        self.nacre("up", "-d", "--hypervisor", "fake", "--port", port)
        self.cloud = Cloud("demo", str(self.data / "clouds.yaml"))
        image = self.call("POST", "image", "/images", {
            "name": "little", "disk_format": "raw", "container_format": "bare"})["id"]
        self.cloud.raw("PUT", f"{self.cloud.roots['image']}/images/{image}/file", {"not": "json to it"},
                       {"Content-Type": "application/octet-stream"})
        net = self.call("POST", "network", "/networks", {"network": {"name": "lab"}})["network"]["id"]
        self.call("POST", "network", "/subnets", {"subnet": {
            "network_id": net, "ip_version": 4, "cidr": "192.0.2.0/24"}})
        flavor = min(self.call("GET", "compute", "/flavors/detail")["flavors"], key=lambda f: f["ram"])["id"]
        self.body = {"server": {"name": "s", "imageRef": image, "flavorRef": flavor, "networks": [{"uuid": net}]}}

    def nacre(self, *args: str) -> None:
        done = subprocess.run([sys.executable, "-m", "nacre.cli.main", *args, "--data", str(self.data)],
                              env=self.environ, capture_output=True, text=True, timeout=90, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

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
        with sqlite3.connect(f"file:{next(self.data.rglob('*.db'))}?mode=ro", uri=True) as db:
            left: dict[str, list[object]] = {
                "servers": db.execute("select id from servers where not deleted").fetchall(),
                "ports": db.execute("select id from ports where device_owner like 'compute:%'").fetchall(),
                "stories": db.execute("select kind from stories").fetchall(),
                "attempts": db.execute("select server_id, epoch from attempts").fetchall()}
        left["guests"] = [file.stem for file in (self.data / "node" / "fake-guests").glob("*.json")]
        return {k: v for k, v in left.items() if v}

    def no_leaks(self) -> None:
        end = time.monotonic() + SECONDS
        while (left := self.leaks()) and time.monotonic() < end:
            time.sleep(0.1)
        assert not left, left


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    made = Lab(tmp_path_factory.mktemp("kill"))
    yield made
    made.nacre("down")


pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]


@pytest.mark.parametrize("point", CREATE)
def test_killed_in_a_create(lab: Lab, point: str) -> None:
    lab.arm(point)
    server = str(lab.call("POST", "compute", "/servers", lab.body)["server"]["id"])  # type: ignore[index]
    lab.wait(server, "ACTIVE")
    assert not lab.trigger.exists(), f"no process ever passed {point!r}"
    lab.call("DELETE", "compute", f"/servers/{server}")
    lab.wait(server, "gone")
    lab.no_leaks()


@pytest.mark.parametrize("point", DELETE)
def test_killed_in_a_delete(lab: Lab, point: str) -> None:
    server = str(lab.call("POST", "compute", "/servers", lab.body)["server"]["id"])  # type: ignore[index]
    lab.wait(server, "ACTIVE")
    lab.arm(point)
    lab.cloud.raw("DELETE", f"{lab.cloud.roots['compute']}/servers/{server}")
    lab.wait(server, "gone")
    lab.no_leaks()
    assert not lab.trigger.exists(), f"no process ever passed {point!r}"


def test_twenty_at_once_survive_a_killed_control_and_node(lab: Lab) -> None:
    for role in ("control", "node"):
        body = {"server": {**lab.body["server"], "min_count": 8, "max_count": 8, "name": role}}
        lab.call("POST", "compute", "/servers", body)
        pid = int((lab.data / "run" / f"{role}.pid").read_text())
        os.kill(pid, 9)
        time.sleep(0.5)
        end = time.monotonic() + SECONDS
        servers: list[dict[str, object]] = []
        while time.monotonic() < end:
            with contextlib.suppress(OSError, HTTPException):
                servers = lab.call("GET", "compute", f"/servers/detail?name={role}")["servers"]  # type: ignore[assignment]
            if len(servers) == 8 and all(s["status"] == "ACTIVE" for s in servers):
                break
            time.sleep(0.1)
        assert [s["status"] for s in servers] == ["ACTIVE"] * 8
        for s in servers:
            lab.call("DELETE", "compute", f"/servers/{s['id']}")
        for s in servers:
            lab.wait(str(s["id"]), "gone")
    lab.no_leaks()
