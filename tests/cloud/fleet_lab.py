"""Several controls and hosts of one cloud as real processes: PostgreSQL, ZeroMQ on the loopback, simulated guests."""

import contextlib
import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from bench.client import Cloud

from nacre.base.errors import NacreError
from nacre.cli.supervisor import free_port
from nacre.identity.keys.seal import write_new
from tests.cloud.process_lab import ROOT, nacre

SECONDS = 60.0


def until(what: Any, seconds: float = SECONDS, why: Any = "") -> Any:
    """What it gives, once that is true; it may fail until then."""
    end, error = time.monotonic() + seconds, None
    while time.monotonic() < end:
        try:
            if found := what():
                return found
        except (OSError, http.client.HTTPException, SystemExit, KeyError, ValueError, NacreError) as failed:
            error = failed
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s: {why() if callable(why) else why} {error or ''}")


class ControlProcess:
    """`nacre control` in the foreground, in a folder of its own."""

    def __init__(self, folder: Path, **environ: str):
        self.folder, self.environ, self.port = folder, environ, free_port()
        self.name = f"{folder.name}"
        self.trust: ssl.SSLContext | None = None
        folder.mkdir()

    def start(self) -> None:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("NACRE_")}
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "nacre.cli.main", "control", "--port", str(self.port), "--data",
                 str(self.folder)], stdout=log, stderr=log,
                env={**clean, "PYTHONPATH": str(ROOT / "src"), "NACRE_RPC_NAME": self.name, **self.environ})

    def end(self, how: int = signal.SIGTERM) -> None:
        self.process.send_signal(how)
        self.process.wait(30)

    def healthy(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5) if self.trust is None else (
            http.client.HTTPSConnection("127.0.0.1", self.port, timeout=5, context=self.trust))
        connection.request("GET", "/healthcheck")
        return connection.getresponse().status == 200

    def said(self) -> str:
        return (self.folder / "log").read_text()


class Fleet:
    """Controls by name. The seal key is what their operator carried to each."""

    def __init__(self, folder: Path, database: str, names: tuple[str, ...], **environ: str):
        self.folder, self.hosts = folder, dict[str, Path]()
        write_new(folder / "seal-key")
        self.environ = {"NACRE_DATABASE_URL": database, "NACRE_IDENTITY_SEAL_KEY": str(folder / "seal-key"),
                        "NACRE_HYPERVISOR": "fake", **environ}
        self.controls = {name: ControlProcess(folder / name, **self.environ) for name in names}

    def start(self) -> None:
        """All at once, and until all serve."""
        for control in self.controls.values():
            control.start()
        for control in self.controls.values():
            until(control.healthy, 60, control.said)

    def stop(self) -> None:
        for name in list(self.hosts):
            nacre(self.hosts[name], "down")
        for control in self.controls.values():
            if hasattr(control, "process"):
                control.process.kill()
                control.process.wait()

    def nacre(self, name: str, *args: str) -> str:
        """A command on a control's machine."""
        done = nacre(self.controls[name].folder, *args, **self.environ)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def join(self, control: str, name: str) -> Path:
        """A new host, by a token of that control; its data folder."""
        token = self.nacre(control, "token", "create").strip()
        folder = self.hosts[name] = self.folder / name
        done = nacre(folder, "join", token, "--name", name, "--hypervisor", "fake")
        assert done.returncode == 0, done.stdout + done.stderr
        return folder

    @property
    def first(self) -> ControlProcess:
        """The one that made the first users."""
        [found] = [c for c in self.controls.values() if (c.folder / "clouds.yaml").exists()]
        return found

    def client(self, name: str, user: str = "demo") -> Cloud:
        """One that speaks to that control only."""
        port, file = self.controls[name].port, self.folder / f"clouds-{name}.yaml"
        known = yaml.safe_load((self.first.folder / "clouds.yaml").read_text())
        for cloud in known["clouds"].values():
            cloud["auth"]["auth_url"] = f"http://127.0.0.1:{port}/identity/v3"
        file.write_text(yaml.safe_dump(known))
        made = Cloud(user, str(file))
        made.roots = {kind: f"http://127.0.0.1:{port}/" + root.split("/", 3)[3] for kind, root in made.roots.items()}
        return made

    def image(self) -> dict[str, Any]:
        """The body of a server that fits anywhere."""
        cloud = self.client(self.first.name)
        image = cloud.call("POST", "image", "/images", {
            "name": "little", "disk_format": "raw", "container_format": "bare"})["id"]
        status, _, answer = cloud.raw("PUT", f"{cloud.roots['image']}/images/{image}/file", {"not": "json to it"},
                                      {"Content-Type": "application/octet-stream"})
        assert status == 204, answer
        return {"server": {"name": "s", "imageRef": image, "flavorRef": "42", "networks": "none"}}


def servers(cloud: Cloud, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cloud.call("GET", "compute", f"/servers/detail?name=^{name}")["servers"]
    assert not [s for s in found if s["status"] == "ERROR"], json.dumps(found)[:2000]
    return found


def active(cloud: Cloud, name: str, count: int) -> list[dict[str, Any]]:
    """So many servers of the name, once all are ACTIVE."""
    def look() -> list[dict[str, Any]] | None:
        found = servers(cloud, name)
        return found if len(found) == count and all(s["status"] == "ACTIVE" for s in found) else None
    found: list[dict[str, Any]] = until(look, why=lambda: [s["status"] for s in servers(cloud, name)])
    return found


@contextlib.contextmanager
def fleet(folder: Path, database: str, *names: str, **environ: str) -> Iterator[Fleet]:
    made = Fleet(folder, database, names, **environ)
    try:
        yield made
    finally:
        made.stop()
