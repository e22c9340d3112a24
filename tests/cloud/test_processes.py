"""`nacre up` for real: the processes, what they leave in the data folder, and a process that dies."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

SOURCE = Path(__file__).parents[2] / "src"


def runs(pid: int) -> bool:
    """A process that nobody waits for stays behind as a zombie, without a command line."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


class Cloud:
    """The command over one data folder."""

    def __init__(self, data: Path):
        self.data, self.environ = data, dict[str, str]()
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]

    def nacre(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        environ = {k: v for k, v in os.environ.items() if not k.startswith("NACRE_")}
        environ |= {"PYTHONPATH": f"{SOURCE}:{environ.get('PYTHONPATH', '')}", **self.environ}
        return subprocess.run([sys.executable, "-m", "nacre.cli.main", *args, "--data", str(self.data)],
                              env=environ, capture_output=True, text=True, timeout=90, check=check)

    def up(self) -> subprocess.CompletedProcess[str]:
        return self.nacre("up", "-d", "--hypervisor", "fake", "--port", str(self.port))

    def token(self, cloud: str) -> httpx.Response:
        auth = yaml.safe_load((self.data / "clouds.yaml").read_text())["clouds"][cloud]["auth"]
        scope: dict[str, Any] = {"system": {"all": True}} if "system_scope" in auth else {
            "project": {"name": auth["project_name"], "domain": {"name": "Default"}}}
        return httpx.post(auth["auth_url"] + "/auth/tokens", json={"auth": {
            "identity": {"methods": ["password"], "password": {"user": {
                "name": auth["username"], "password": auth["password"], "domain": {"name": "Default"}}}},
            "scope": scope}})

    def pid(self, name: str) -> int:
        return int((self.data / "run" / f"{name}.pid").read_text())


pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    made = Cloud(tmp_path_factory.mktemp("cloud"))
    try:
        made.up()
        yield made
    finally:
        made.nacre("down", check=False)


def test_every_user_of_the_clouds_file_gets_a_token(cloud: Cloud) -> None:
    for name in ("nacre", "demo", "demo-alt", "nacre-system"):
        assert cloud.token(name).status_code == 201, name


def test_secrets_are_the_owners_only(cloud: Cloud) -> None:
    secret = [cloud.data / "clouds.yaml", cloud.data / "control" / "passwords.json",
              cloud.data / "control" / "rpc-key.json", cloud.data / "node" / "rpc-key.json"]
    kept = [*secret, cloud.data / "control" / "nacre.db"]
    assert [oct(p.stat().st_mode & 0o777) for p in kept] == ["0o600"] * 5
    words = [yaml.safe_load(secret[0].read_text())["clouds"]["demo"]["auth"]["password"]]
    words += [json.loads(p.read_text())["secret"] for p in secret[2:]]
    logs = "".join(p.read_text() for p in (cloud.data / "logs").iterdir())
    assert not [w for w in words if w in logs]


def test_status_shows_all_of_it(cloud: Cloud) -> None:
    found = json.loads(cloud.nacre("status", "--json").stdout)
    assert found["running"] and all(p["running"] for p in found["processes"])
    assert {s["state"] for s in found["services"] if s["binary"] == "nova-compute"} == {"up"}
    assert sum(p["memory_mb"] for p in found["processes"]) < 250


def test_starting_twice_is_harmless(cloud: Cloud) -> None:
    before = cloud.pid("supervisor")
    assert "already" in cloud.up().stderr and cloud.pid("supervisor") == before


@pytest.mark.parametrize("name", ["control", "node"])
def test_a_process_that_dies_comes_back(cloud: Cloud, name: str) -> None:
    old = cloud.pid(name)
    os.kill(old, signal.SIGKILL)
    end = time.monotonic() + 20
    while True:
        try:
            if cloud.pid(name) != old and cloud.token("nacre").status_code == 201:
                break
        except (OSError, ValueError, httpx.HTTPError):
            pass
        assert time.monotonic() < end, (cloud.data / "logs" / f"{name}.log").read_text()[-2000:]
        time.sleep(0.1)
    assert json.loads(cloud.nacre("status", "--json").stdout)["error"] is None


def test_down_and_up_again_keeps_everything(cloud: Cloud) -> None:
    before = (cloud.data / "clouds.yaml").read_text()
    pids = [cloud.pid(name) for name in ("supervisor", "control", "node")]
    assert "stopped" in cloud.nacre("down").stdout
    assert not [p for p in pids if runs(p)]
    assert cloud.nacre("status", check=False).returncode == 1
    cloud.nacre("up", "-d")  # as it was started: with this port, and without guests
    assert (cloud.data / "clouds.yaml").read_text() == before
    assert cloud.token("demo").status_code == 201


def test_a_wrong_option_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "nacre.toml").write_text("[scheduler]\nperiod = 0\n")
    answer = Cloud(tmp_path).nacre("up", "-d", "--hypervisor", "fake", check=False)
    assert answer.returncode == 1 and "scheduler.period" in answer.stderr and "Traceback" not in answer.stderr


def test_hosts_are_listed_drained_and_given_back(cloud: Cloud) -> None:
    def host() -> dict[str, Any]:
        [found] = json.loads(cloud.nacre("host", "list", "--json").stdout)["hosts"]
        return dict(found)

    before = host()
    assert (before["state"], before["status"], before["orphans"], before["guests"]) == ("up", "enabled", 0, 0)
    assert before["version"] and before["last_beat"] and before["capacity"]["vcpus"]
    said = cloud.nacre("host", "drain", before["name"], "--reason", "a new disk").stdout
    assert f"nacre host drain {before['name']} --undo" in said
    assert (host()["status"], host()["disabled_reason"]) == ("disabled", "a new disk")
    assert "drained" in cloud.nacre("host", "list").stdout and "a new disk" in cloud.nacre("host", "list").stdout
    services = json.loads(cloud.nacre("status", "--json").stdout)["services"]
    assert [s["status"] for s in services if s["binary"] == "nova-compute"] == ["disabled"]  # one way, not two
    cloud.nacre("host", "drain", before["name"], "--undo")
    assert (host()["status"], host()["disabled_reason"]) == ("enabled", None)
    for args in (("drain", "nobody"), ("remove", "nobody"), ("accept", "nobody"), ("orphans", "nobody"),
                 ("adopt", "nobody"), ("forget", "nobody")):
        refused = cloud.nacre("host", *args, check=False)
        assert refused.returncode == 1 and "nobody" in refused.stderr and "Traceback" not in refused.stderr
