"""kill -9 at every step of a create and a delete, with real processes, ZeroMQ, SQLite and the fake hypervisor:
everything that was accepted ends as it should within 30 s of the restart, and nothing is leaked."""

import contextlib
import os
import time
from collections.abc import Iterator
from http.client import HTTPException

import pytest

from tests.cloud.process_lab import SECONDS, Lab

CREATE = [f"{party} {step} {when}" for party, steps in {
    "control": ("network.plug", "prepare", "spawn"),
    "node": ("claim", "disks", "domain", "wiring", "boot"),
}.items() for step in steps for when in ("begins", "done")] + [
    f"control story {when}" for when in ("taken", "told")] + [f"node journal {stage}" for stage in (
        "claimed", "prepared", "spawning", "running")]
DELETE = [f"control {step} {when}" for step in ("destroy", "network.deallocate") for when in ("begins", "done")] + [
    "control story taken", "control story told", "node journal ending", "node journal gone"]


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
