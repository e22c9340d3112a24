"""Controls are restarted one after the other behind a plain TCP balancer, under load: not one request fails."""

import http.client
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from nacre.cli.supervisor import free_port
from tests.cloud.balancer_lab import Balancer, Clients, get, haproxy, post
from tests.cloud.fleet_lab import fleet, servers, until
from tests.cloud.serving_lab import ROOT, Server, server
from tests.cloud.test_processes import Cloud
from tests.postgres_lab import new_database

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]

#: Longer than the balancer takes to notice.
DRAIN = 1.0


def restart(each: Server, front: Balancer) -> None:
    each.signal()
    each.end()
    front.wait(each.name)
    each.start()
    front.wait()


def test_servers_that_are_restarted_in_turn_fail_no_request(tmp_path: Path) -> None:
    with server(tmp_path, drain=DRAIN, name="one") as one, server(tmp_path, drain=DRAIN, name="two") as two, haproxy(
            tmp_path, {"one": one.port, "two": two.port}) as front:
        front.wait()
        clients = Clients(front.port)
        clients.add(4, get("/app/fast"))
        clients.add(2, post("/app/sum", b"x" * 100_000))
        clients.add(2, get("/app/slow?seconds=0.3"))
        clients.add(1, get("/app/slow?seconds=2.5"))  # longer than the draining
        clients.add(4, get("/app/fast"), pause=1.7)  # its connection is idle when the server ends
        with clients.running():
            for each in (one, two) * 3:
                restart(each, front)
        assert clients.failures == []
        assert clients.answers > 1000 and clients.reopened < clients.answers / 100
        assert [each.said().count("ended in order") for each in (one, two)] == [3, 3]
        assert "Traceback" not in one.said() + two.said()


@pytest.fixture
def database(postgres_server: str) -> str:
    return new_database(postgres_server)


class Second:
    """A control with a data folder of its own over the same database: its operator brought the seal key."""

    def __init__(self, folder: Path, first: Path, environ: dict[str, str]):
        self.folder, self.environ = folder, environ
        (folder / "control").mkdir(parents=True, mode=0o700)
        shutil.copy(first / "control" / "seal-key", folder / "control" / "seal-key")
        self.start()

    def start(self) -> None:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("NACRE_")}
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "nacre.cli.main", "control", "--data", str(self.folder)], stdout=log, stderr=log,
                env={**clean, "PYTHONPATH": str(ROOT / "src"), **self.environ})

    def restart(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(20) == 0, (self.folder / "log").read_text()[-2000:]
        self.start()


@pytest.fixture
def two_controls(database: str, tmp_path: Path) -> Iterator[tuple[Cloud, Second, Balancer]]:
    cloud, port = Cloud(tmp_path / "first"), free_port()
    with haproxy(tmp_path, {"one": cloud.port, "two": port}, tls=True) as front:
        environ = {"NACRE_DATABASE_URL": database, "NACRE_DRAIN": str(DRAIN), "NACRE_TLS_MODE": "on",
                   "NACRE_PUBLIC_URL": f"https://127.0.0.1:{front.port}", "NACRE_HYPERVISOR": "fake"}
        cloud.environ = environ
        second = None
        try:
            cloud.up()
            second = Second(tmp_path / "second", cloud.data, {**environ, "NACRE_PORT": str(port)})
            yield cloud, second, front
        finally:
            if second is not None:
                second.process.kill()
                second.process.wait()
            cloud.nacre("down", check=False)


def healthy(port: int, trust: ssl.SSLContext) -> None:
    end = time.monotonic() + 30
    while True:
        try:
            connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=5, context=trust)
            connection.request("GET", "/healthcheck")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.postgres
def test_two_controls_over_one_database_are_restarted_in_turn(two_controls: tuple[Cloud, Second, Balancer]) -> None:
    """Over TLS of one authority, with keys that rotate meanwhile."""
    cloud, second, front = two_controls
    trust = ssl.create_default_context(cafile=str(cloud.data / "authority.pem"))
    ports = cloud.port, int(second.environ["NACRE_PORT"])
    for port in ports:
        healthy(port, trust)
    front.wait()
    auth = yaml.safe_load((cloud.data / "clouds.yaml").read_text())["clouds"]["demo"]["auth"]
    body = json.dumps({"auth": {"identity": {"methods": ["password"], "password": {"user": {
        "name": auth["username"], "password": auth["password"], "domain": {"name": "Default"}}}},
        "scope": {"project": {"name": auth["project_name"], "domain": {"name": "Default"}}}}}).encode()
    connection = http.client.HTTPSConnection("127.0.0.1", front.port, timeout=20, context=trust)
    connection.request("POST", "/identity/v3/auth/tokens", body)
    token = connection.getresponse().getheader("x-subject-token") or ""

    def fresh(_: Clients, connection: http.client.HTTPConnection) -> int:
        """A token from whichever control, shown to whichever the next connection meets."""
        connection.request("POST", "/identity/v3/auth/tokens", body)
        answer = connection.getresponse()
        answer.read()
        made = answer.getheader("x-subject-token") or ""
        connection.close()
        return get("/compute/v2.1/servers", **{"X-Auth-Token": made})(_, connection)

    clients = Clients(front.port, trust)
    clients.add(3, get("/compute/v2.1/servers/detail", **{"X-Auth-Token": token}))
    clients.add(1, get("/network/v2.0/networks", **{"X-Auth-Token": token}), pause=1.7)
    clients.add(2, fresh, pause=0.1)
    with clients.running():
        for _ in range(2):
            second.restart()
            healthy(ports[1], trust)
            cloud.nacre("keys", "rotate")
            front.wait()
            old = cloud.pid("control")
            os.kill(old, signal.SIGTERM)
            while Path(f"/proc/{old}").exists():
                time.sleep(0.05)
            healthy(ports[0], trust)
            front.wait()
    assert clients.failures == []
    assert clients.answers > 100
    logs = (cloud.data / "logs" / "control.log").read_text() + (second.folder / "log").read_text()
    assert logs.count("draining") >= 4


def written(server: dict[str, Any], token: str) -> Callable[[Clients, http.client.HTTPConnection], int]:
    """A server made, seen and deleted, each by whichever control the connection goes to."""
    headers = {"X-Auth-Token": token, "OpenStack-API-Version": "compute 2.96", "Content-Type": "application/json"}

    def ask(connection: http.client.HTTPConnection, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        connection.request(method, path, json.dumps(body) if body else None, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()

    def run(_: Clients, connection: http.client.HTTPConnection) -> int:
        status, made = ask(connection, "POST", "/compute/v2.1/servers", server)
        if status != 202:
            return status
        path = f"/compute/v2.1/servers/{json.loads(made)['server']['id']}"
        connection.close()  # the next may be another's
        seen, _body = ask(connection, "GET", path)
        return seen if seen != 200 else ask(connection, "DELETE", path)[0]
    return run


@pytest.mark.postgres
def test_three_controls_are_restarted_in_turn_under_writes(database: str, tmp_path: Path) -> None:
    """A host that joined builds and ends servers all along."""
    names = ("one", "two", "three")
    with fleet(tmp_path, database, *names, NACRE_DRAIN=str(DRAIN)) as lab, haproxy(
            tmp_path, {name: lab.controls[name].port for name in names}) as front:
        lab.start()
        lab.join("two", "host-a")
        body, token = lab.image(), lab.client("one").token
        front.wait()
        clients = Clients(front.port)
        clients.add(2, get("/compute/v2.1/servers/detail", **{"X-Auth-Token": token}))
        clients.add(1, get("/network/v2.0/networks", **{"X-Auth-Token": token}), pause=1.7)
        clients.add(2, written(body, token), pause=0.2, wanted=204)
        with clients.running():
            for name in names:
                lab.controls[name].end()
                assert lab.controls[name].process.returncode == 0, lab.controls[name].said()[-2000:]
                front.wait(name)
                lab.controls[name].start()
                until(lab.controls[name].healthy, 90, why=lab.controls[name].said)
                front.wait()
        assert clients.failures == []
        assert clients.answers > 100
        until(lambda: servers(lab.client("three"), "s") == [])
        assert [c.name for c in lab.controls.values() if "Traceback" in c.said()] == []
