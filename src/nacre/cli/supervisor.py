"""The small process that keeps the others running: starts control and node, starts again what dies, stops both.

It holds the RPC keys' introduction: each process is told the other's public key when it starts, never through a file
that the other could write. A host that joined a cloud elsewhere has a node only, a further control is one without. Kept
free of big imports: it lives as long as the cloud.
"""

import contextlib
import fcntl
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path
from types import FrameType
from typing import IO

import click

from nacre.base.rpc import addresses
from nacre.base.rpc.keys import KeyPair, load_keys
from nacre.cli.processes.accounts import Account, acting, runs_as
from nacre.cli.processes.folder import NotPrepared
from nacre.cli.processes.lock import STARTS, control_of, held
from nacre.config import Settings, is_loopback, load

#: Seconds between two starts of a process that keeps dying: grows to the second.
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
#: What others may not do with a process's files. The node opens some to QEMU and dnsmasq, and says which.
UMASKS = {"control": 0o077, "node": 0o022}
#: What only control is told.
SECRETS = ("NACRE_DATABASE_URL", "NACRE_IDENTITY_ADMIN_PASSWORD", "NACRE_IDENTITY_DEMO_PASSWORD",
           "NACRE_IDENTITY_SEAL_KEY")
#: A password's hash takes 19 MiB, which go back to the system when it is done (cli/processes/run.py): in pages of 4 KiB
#: that costs half as much again as the hash. An operator's own word stands.
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
#: How long a process may take to stop before it is killed.
PATIENCE = 10.0
#: Ports that are looked through for a free one.
PORTS = 10_000
#: What `nacre up` runs.
ROLES = ("control", "node")


def free_port() -> int:
    """A port that nobody uses right now, below those that the system gives to outgoing connections: it is not one's
    when the process that listens there is started anew. Raises OSError."""
    given = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for port in (*random.sample(range(max(1024, given - PORTS), given), 100), 0):
        with socket.socket() as s, contextlib.suppress(OSError):
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind(("", port))
            return int(s.getsockname()[1])
    raise OSError("no port is free")


class Child:
    """One process that shall run."""

    def __init__(self, name: str, folder: Path, environ: dict[str, str], user: Account | None):
        self.name, self._folder, self._environ, self._user = name, folder, environ, user
        self._process: subprocess.Popen[bytes] | None = None
        self._pause, self._next, self._started = FIRST_PAUSE, 0.0, 0.0

    def tend(self, now: float) -> None:
        """Start it if it does not run and its pause is over."""
        if self._process is not None:
            code = self._process.poll()
            if code is None:
                return
            self._say(f"{self.name} ended with {code}; it is started again in {self._pause:.1f} s")
            self._process = None
            if now - self._started > LONGEST_PAUSE:
                self._pause = FIRST_PAUSE
            self._next = now + self._pause
            self._pause = min(self._pause * 2, LONGEST_PAUSE)
        if now >= self._next:
            self._started = now
            self._start()

    def _start(self) -> None:
        log = self._log()
        identity = {} if self._user is None else {
            "user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "nacre.cli.main", self.name, "--data", str(self._folder)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environ, umask=UMASKS[self.name],
            **identity)  # type: ignore[call-overload]
        log.close()
        (self._folder / "run" / f"{self.name}.pid").write_text(str(self._process.pid))

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def wait(self, until: float) -> None:
        """Wait for its end, and make an end of it at `until`."""
        if self._process is not None:
            try:
                self._process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        (self._folder / "run" / f"{self.name}.pid").unlink(missing_ok=True)

    def _log(self) -> IO[bytes]:
        return (self._folder / "logs" / f"{self.name}.log").open("ab", buffering=0)

    def _say(self, text: str) -> None:
        with self._log() as log:
            log.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} supervisor: {text}\n".encode())


def keys_for(folder: Path, role: str, user: Account | None) -> KeyPair:
    """A role's keys, readable by its process only."""
    with acting(user):
        return load_keys(folder / role / "rpc-key.json")


def cloud_id(folder: Path) -> str:
    """The id of the cloud that the folder's database holds, as it was when the cloud was started last."""
    return (folder / "run" / "cloud").read_text().strip()


def children(settings: Settings, roles: Collection[str] = ROLES) -> list[Child]:
    """Control, and the node of this machine, introduced to each other; or one of them."""
    folder, user = settings.data, runs_as(settings.data)
    common = {**os.environ, "NACRE_PORT": str(settings.port), "NACRE_HYPERVISOR": settings.hypervisor}
    node_only = {k: v for k, v in common.items() if k not in SECRETS}
    if roles == ("node",):
        return [Child("node", folder, node_only | _joined(settings), None)]
    keys = keys_for(folder, "control", user)
    control = HUGE_PAGES | common | {"NACRE_RPC_PORT": str(settings.rpc_port or free_port()),
                                     "NACRE_DRAIN": str(settings.drain or 0.0), "NACRE_SUPERVISED": "1"}
    if "node" not in roles:
        return [Child("control", folder, control, user)]
    node = keys_for(folder, "node", None)
    at = addresses.host_of(addresses.reachable(addresses.endpoint(settings.rpc_host, 0)))
    port = free_port() if is_loopback(at) else int(control["NACRE_RPC_PORT"]) + 1
    return [
        Child("control", folder, control | {
            "NACRE_RPC_NODE_KEYS": f"{settings.host_name}:{node.public} {addresses.endpoint(at, port)}"}, user),
        Child("node", folder, node_only | _place(settings, at, port) | {
            "NACRE_RPC_CLOUD": cloud_id(folder), "NACRE_RPC_CONTROL_KEY": keys.public,
            "NACRE_RPC_CONTROL": addresses.endpoint(at, int(control["NACRE_RPC_PORT"])),
            "NACRE_RPC_CONTROL_NAME": settings.control_name}, None),
    ]


def _place(settings: Settings, at: str, port: int) -> dict[str, str]:
    """Where a node answers, and where tunnels end: a loopback address of those is for a cloud of one host."""
    found = {"NACRE_RPC_LISTEN": at, "NACRE_RPC_PORT": str(port)}
    if not is_loopback(at) and ":" not in at and is_loopback(settings.node.tunnel_ip):
        found["NACRE_NODE_TUNNEL_IP"] = at
    return found


def _joined(settings: Settings) -> dict[str, str]:
    """What a node is told whose controls are elsewhere."""
    from nacre.cli.processes.membership import controls, membership

    member, known = membership(settings.data), controls(settings.data)
    if member is None or not known:
        raise NotPrepared(f"{settings.data} is not the folder of a host that joined a cloud: see `nacre join`.")
    at = member.address or settings.rpc.listen or addresses.outward(addresses.host_of(known[0][1]))
    port = settings.rpc.port or (free_port() if is_loopback(at) else settings.port + 2)
    return _place(settings, at, port) | {
        "NACRE_NODE_NAME": member.name, "NACRE_HYPERVISOR": member.hypervisor, "NACRE_RPC_CLOUD": member.cloud,
        "NACRE_NETWORK_VXLAN_PORT": str(member.vxlan_port)}


def prepare(settings: Settings, user: Account | None) -> None:
    """In a prepared data folder the database, at this release's schema. user: who control runs as. Raises
    NotPrepared."""
    folder = settings.data
    with acting(user):
        cloud = _ready(settings)
    if not cloud:
        identity = {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        done = subprocess.run([sys.executable, "-m", "nacre.cli.main", "db", "prepare", "--data", str(folder)],
                              check=False, capture_output=True, text=True, umask=UMASKS["control"],
                              env={**os.environ, "NACRE_DATABASE_URL": settings.database},
                              **identity)  # type: ignore[call-overload]
        if done.returncode:
            raise NotPrepared(done.stderr.strip().removeprefix("nacre: "))
        cloud = done.stdout.strip()
    (folder / "run" / "cloud").write_text(cloud)


def newest_revision() -> str:
    """The schema's that this release works with, asked without loading what migrates."""
    versions = Path(__file__).parents[1] / "migrations" / "versions"
    return max((p.stem.partition("_")[0] for p in versions.glob("[0-9]*.py")), default="")


def _ready(settings: Settings) -> str:
    """The id of the cloud in a SQLite database that is at the newest revision, asked without loading what migrates;
    "" if there is anything to do first."""
    import sqlite3

    if not settings.database.startswith("sqlite:///"):
        return ""
    try:
        with sqlite3.connect(f"file:{settings.database.removeprefix('sqlite:///')}?mode=ro", uri=True) as connection:
            if connection.execute("select version_num from alembic_version").fetchone() != (newest_revision(),):
                return ""
            return str((connection.execute("select id from cloud").fetchone() or ("",))[0])
    except sqlite3.Error:
        return ""


@click.command(hidden=True)
@click.option("--roles", default=",".join(ROLES))
@click.option("--data", type=click.Path(path_type=Path), required=True)
def supervise(roles: str, data: Path) -> None:
    """Keep control and node running, or one of them, until told to stop."""
    settings = load(data)
    stopping = False

    def stop(_: int, __: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    run = settings.data / "run"
    with held(settings.data), (run / "supervisor.pid").open("a+") as pid, contextlib.ExitStack() as control:
        try:
            fcntl.flock(pid, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise click.ClickException(f"Nacre runs already in {data}.") from None
        pid.truncate(0)
        pid.write(str(os.getpid()))
        pid.flush()
        if "control" in roles.split(","):
            control.enter_context(control_of(settings.data, runs_as(settings.data), STARTS))
        running = children(settings, tuple(roles.split(",")))
        while not stopping:
            for child in running:
                child.tend(time.monotonic())
            time.sleep(0.1)
        for child in reversed(running):
            child.stop()
        until = time.monotonic() + PATIENCE + (settings.drain or 0.0)
        for child in running:
            child.wait(until)
        (run / "supervisor.pid").unlink(missing_ok=True)
