"""A cloud of several controls and nodes over one PostgreSQL, each a real process that tests kill, freeze and cut off.

How a further control and a further node are started stands here only (`Fleet`)."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import sqlalchemy as sa
import yaml

from nacre.base.db import make_engine
from nacre.base.rpc.keys import load_keys
from nacre.cli.supervisor import free_port
from tests.chaos.wire import Wire

ROOT = Path(__file__).parents[2]
#: Where each API begins.
ROOTS = {"identity": "/identity/v3", "compute": "/compute/v2.1", "network": "/network/v2.0", "image": "/image/v2"}
#: Seconds until a process that was started must answer.
PATIENCE = 40.0
#: What a request ends with when no answer comes: nobody knows what became of it.
NO_ANSWER = (OSError, http.client.HTTPException)
#: No limits, and hosts that are large.
PLENTY = {"NACRE_QUOTAS_INSTANCES": "-1", "NACRE_QUOTAS_CORES": "-1", "NACRE_QUOTAS_RAM_MB": "-1",
          "NACRE_QUOTAS_PORTS": "-1", "NACRE_FAKE_VCPUS": "4096", "NACRE_FAKE_MEMORY_MB": "4000000"}


def environment(**given: str) -> dict[str, str]:
    """This process's, with no options but those given."""
    return {**{k: v for k, v in os.environ.items() if not k.startswith("NACRE_")}, "PYTHONPATH": str(ROOT / "src"),
            **given}


def command(role: str, data: Path) -> list[str]:
    return [sys.executable, "-m", "nacre.cli.main", *role.split(), "--data", str(data)]


class Member:
    """One process. port: of its APIs, or of its RPC if it has none; wire: a control's way to the database."""

    def __init__(self, name: str, role: str, data: Path, environ: Mapping[str, str]):
        self.name, self.role, self.data = name, role, data
        self._environ = environment(**environ)
        self.rpc_port = int(environ["NACRE_RPC_PORT"])
        self.port = int(environ.get("NACRE_PORT", "0"))
        self.wire: Wire | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.frozen = False

    @property
    def log(self) -> Path:
        return self.data.parent / f"{self.name}.log"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        assert not self.alive
        self.frozen = False
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command(self.role, self.data), stdin=subprocess.DEVNULL, stdout=log,
                                             stderr=log, env=self._environ)

    def kill(self) -> None:
        """As by a power cut."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)
        self.frozen = True

    def thaw(self) -> None:
        self.frozen = False
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)


class Fleet:
    """Controls `control-0` .. and nodes `node-0` .., all started and heard of."""

    def __init__(self, folder: Path, database: str, controls: int, nodes: int, **environ: str):
        self.folder, self.database = folder, database
        self.environ = {"NACRE_HYPERVISOR": "fake", "NACRE_NODE_REPORT_PERIOD": "2",
                        "NACRE_IMAGES_FOLDER": str(folder / "images"), **PLENTY, **environ}
        (folder / "images").mkdir()
        self.controls: list[Member] = []
        self.nodes: list[Member] = []
        self._keys = {f"node-{n}": (load_keys(folder / f"node-{n}" / "node" / "rpc-key.json").public, free_port())
                      for n in range(nodes)}
        try:
            for n in range(controls):
                self._add_control(n)
            for n in range(nodes):
                self._add_node(n)
            self._enter()
        except BaseException:
            self.close()
            raise

    @property
    def members(self) -> list[Member]:
        return [*self.controls, *self.nodes]

    def close(self) -> None:
        for member in self.members:
            member.kill()
            if member.wire is not None:
                member.wire.close()

    def heal(self) -> None:
        """Everything runs, and every way is open."""
        for member in self.members:
            if member.wire is not None:
                member.wire.release()
            if not member.alive:
                member.start()
            elif member.frozen:
                member.thaw()

    # --- how they are started -----------------------------------------------------------------------------------

    def _add_control(self, number: int) -> None:
        name = f"control-{number}"
        data, place = self.folder / name, urlsplit(self.database)
        assert place.hostname and place.port
        wire = Wire(place.hostname, place.port)
        url = self.database.replace(f":{place.port}/", f":{wire.port}/")
        member = Member(name, "control", data, {
            **self.environ, "NACRE_DATABASE_URL": url, "NACRE_RPC_NAME": name, "NACRE_PORT": str(free_port()),
            "NACRE_RPC_PORT": str(free_port()), "NACRE_DRAIN": "0",
            "NACRE_RPC_NODE_KEYS": ",".join(f"{n}:{key} tcp://127.0.0.1:{port}" for n, (key, port) in
                                            self._keys.items())})
        member.wire = wire
        (data / "control").mkdir(parents=True, mode=0o700)
        if number == 0:
            self.cloud_id = subprocess.run(
                command("db prepare", data), check=True, capture_output=True, text=True,
                env=environment(NACRE_DATABASE_URL=self.database)).stdout.strip()
        else:  # its operator brings what opens the database's secrets
            for file in ("seal-key", "passwords.json", "first-rows"):
                shutil.copy(self.controls[0].data / "control" / file, data / "control" / file)
        self.controls.append(member)
        member.start()
        self.answers(number)

    def _add_node(self, number: int) -> None:
        name, first = f"node-{number}", self.controls[0]
        data, (_, port) = self.folder / name, self._keys[f"node-{number}"]
        self.nodes.append(Member(name, "node", data, {
            **self.environ, "NACRE_NODE_NAME": name, "NACRE_RPC_PORT": str(port), "NACRE_RPC_CLOUD": self.cloud_id,
            "NACRE_RPC_CONTROL": f"tcp://127.0.0.1:{first.rpc_port}", "NACRE_RPC_CONTROL_NAME": first.name,
            "NACRE_RPC_CONTROL_KEY": load_keys(first.data / "control" / "rpc-key.json").public}))
        self.nodes[-1].start()

    def answers(self, control: int, seconds: float = PATIENCE) -> None:
        """Wait until the control's APIs do."""
        end = time.monotonic() + seconds
        while True:
            with contextlib.suppress(*NO_ANSWER):
                if self.send(control, "GET", "/healthcheck", None, "", 2.0)[0] == 200:
                    return
            member = self.controls[control]
            assert time.monotonic() < end and member.alive, member.log.read_text()[-3000:]
            time.sleep(0.05)

    # --- its users ----------------------------------------------------------------------------------------------

    def _enter(self) -> None:
        """As the user demo, with an image, a network and a flavor; every host is up at every control."""
        auth = yaml.safe_load((self.controls[0].data / "clouds.yaml").read_text())["clouds"]
        self.admin, self.token = self._token(auth["nacre"]["auth"]), self._token(auth["demo"]["auth"])
        image = self.call("POST", "image", "/images", {
            "name": "little", "disk_format": "raw", "container_format": "bare"})["id"]
        self.call("PUT", "image", f"/images/{image}/file", {"not": "json to it"})
        net = self.call("POST", "network", "/networks", {"network": {"name": "fleet"}})["network"]["id"]
        self.call("POST", "network", "/subnets", {"subnet": {
            "network_id": net, "ip_version": 4, "cidr": "10.64.0.0/16"}})
        flavors = self.call("GET", "compute", "/flavors/detail")["flavors"]
        self.server = {"imageRef": image, "flavorRef": min(flavors, key=lambda f: f["ram"])["id"],
                       "networks": [{"uuid": net}]}
        end = time.monotonic() + PATIENCE
        for control in range(len(self.controls)):
            while {s["host"] for s in self._hosts(control) if s["state"] == "up"} < {m.name for m in self.nodes}:
                assert time.monotonic() < end, self._hosts(control)
                time.sleep(0.1)

    def _hosts(self, control: int) -> list[dict[str, Any]]:
        return self.call("GET", "compute", "/os-services?binary=nova-compute", control=control,
                         token=self.admin)["services"]  # type: ignore[no-any-return]

    def _token(self, auth: Mapping[str, str]) -> str:
        body = {"auth": {"identity": {"methods": ["password"], "password": {"user": {
            "name": auth["username"], "password": auth["password"], "domain": {"name": "Default"}}}},
            "scope": {"project": {"name": auth["project_name"], "domain": {"name": "Default"}}}}}
        _, headers, _ = self.send(0, "POST", ROOTS["identity"] + "/auth/tokens", body, "", PATIENCE)
        return headers["x-subject-token"]

    def ask(self, control: int, method: str, service: str, path: str, body: Any = None, *, timeout: float = 30.0,
            token: str | None = None) -> tuple[int, Any]:
        """Status and what the body says, by one control. Raises one of NO_ANSWER."""
        status, _, data = self.send(control, method, ROOTS[service] + path, body,
                                    self.token if token is None else token, timeout)
        try:
            return status, json.loads(data) if data else None
        except ValueError:
            return status, data

    def call(self, method: str, service: str, path: str, body: Any = None, *, control: int = 0,
             token: str | None = None) -> Any:
        """What a request is answered that must succeed."""
        status, answer = self.ask(control, method, service, path, body, token=token)
        assert status < 400, (method, service, path, status, answer)
        return answer

    def send(self, control: int, method: str, path: str, body: Any, token: str, timeout: float
             ) -> tuple[int, dict[str, str], bytes]:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.controls[control].port, timeout=timeout)
        headers = {"Content-Type": "application/octet-stream" if path.endswith("/file") else "application/json",
                   "OpenStack-API-Version": "compute 2.90", **({"X-Auth-Token": token} if token else {})}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    # --- what is there ------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def rows(self) -> Iterator[sa.Connection]:
        """The database, to look into."""
        engine = make_engine(self.database)
        try:
            with engine.connect() as connection:
                yield connection
        finally:
            engine.dispose()

    def owner(self, name: str) -> str:
        """The process id of a control."""
        return (self.folder / name / "control" / "process-id").read_text().strip()
