"""`nacre up` and `nacre down`: the whole cloud on this machine, started and stopped."""

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple

import click
import msgspec
import yaml

from nacre.base.durable.files import write_whole
from nacre.base.errors import NacreError
from nacre.cli import supervisor
from nacre.cli.client import ApiError, Client
from nacre.cli.database import DEMO, DEMO_CIDR
from nacre.cli.supervisor import ROLES
from nacre.config import KEPT_BEFORE, KEPT_FILE, External, Settings, kept, kept_external, load

#: How long the cloud may take to answer, in seconds.
PATIENCE = 60.0


class NotStarted(NacreError):
    """The cloud did not come up; the message says where to look."""


def supervisor_pid(data: Path) -> int | None:
    """The process that keeps this folder's cloud running; None if none does."""
    pid, _ = supervised(data)
    return pid


def supervised(data: Path) -> tuple[int | None, tuple[str, ...]]:
    """As `supervisor_pid`, and the roles of the processes that it keeps running."""
    import psutil

    from nacre.cli.processes import left as behind

    try:
        pid = int((data / "run" / "supervisor.pid").read_text())
        command = psutil.Process(pid).cmdline()
    except (OSError, ValueError, psutil.Error):
        return None, ()
    if "supervise" not in command or not behind.works_in(Path(f"/proc/{pid}"), [*map(os.fsencode, command)], data):
        return None, ()
    return pid, tuple(command[command.index("--roles") + 1].split(",")) if "--roles" in command else ROLES


def roles_of(data: Path) -> tuple[str, ...]:
    """What runs in a folder: a whole cloud, or only the host that it is the folder of."""
    from nacre.cli.processes.membership import membership

    return ROLES if membership(data) is None else ("node",)


class Given(NamedTuple):
    """What the command line says beside the settings. database: its URL; external: `nat`, `none` or an interface."""

    database: str | None = None
    external: str | None = None


def start(settings: Settings, roles: tuple[str, ...], given: Given = Given()) -> bool:
    """Start the supervisor, detached. False if it runs already.

    Raises NacreError with what to do."""
    from nacre.cli import database
    from nacre.cli.processes import accounts, external, folder, lock
    from nacre.cli.processes import left as behind

    left = behind.find(settings.data)  # first: what a supervisor started counts as its own only if it is seen next
    if supervisor_pid(settings.data) is not None:
        return False
    control = "control" in roles
    if control:
        lock.refuse_second(settings.data, lock.STARTS)
    left.pop(lock.who(settings.data, lock.STARTS) or 0, None)  # beside a host's folder, in the foreground
    behind.end(left)
    user = accounts.runs_as(settings.data) if control else None
    if control:
        _check_port(settings)
        with accounts.acting(user):
            database.check(settings)
    with folder.prepared(settings.data, user, control=control) as locks:
        if control:
            supervisor.prepare(settings, user)
            database.keep(settings, given.database, user)
        (settings.data / "run" / "node.ready").unlink(missing_ok=True)  # of a node that was killed with its supervisor
        _keep(settings, external.settle(settings, given.external) if "node" in roles else None)
        _supervise(settings, roles, locks)
    return True


def _supervise(settings: Settings, roles: tuple[str, ...], locks: Sequence[int]) -> None:
    environ = {**os.environ, "NACRE_PORT": str(settings.port), "NACRE_HYPERVISOR": settings.hypervisor}
    with (settings.data / "logs" / "supervisor.log").open("ab") as log:
        subprocess.Popen([sys.executable, "-m", "nacre.cli.main", "supervise", "--roles", ",".join(roles),
                          "--data", str(settings.data)],
                         stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=environ,
                         umask=0o077, pass_fds=locks)


def _check_port(settings: Settings) -> None:
    """Raises NotStarted if another program has the APIs' port."""
    with socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((settings.host, settings.port))
        except OSError as error:
            raise NotStarted(f"{settings.host}:{settings.port} cannot be listened on ({error.strerror}): "
                             "choose another port with --port.") from None


def _keep(settings: Settings, external: External | None = None) -> None:
    """What it is started with is what later starts take. external: another than before."""
    told = {"port": settings.port, "hypervisor": settings.hypervisor}
    out = kept_external(settings.data) if external is None else external
    said = json.dumps(told | ({} if out == External() else {"external": msgspec.to_builtins(out)})) + "\n"
    write_whole(settings.data / KEPT_FILE, said, 0o644)  # under sudo control reads it as the user
    (settings.data / KEPT_BEFORE).unlink(missing_ok=True)


def running_settings(data: Path | None, **given: Any) -> Settings:
    """The settings to use: those of the cloud that runs in the folder, else as given."""
    from nacre.cli.processes.membership import membership

    settings = load(data, **given)
    if (member := membership(settings.data)) is not None:
        return load(data, **given | {"hypervisor": member.hypervisor})
    if supervisor_pid(settings.data) is not None:
        return load(data, **kept(settings.data))
    return settings


def stop(data: Path, patience: float = 20.0) -> bool:
    """Stop the cloud's processes and wait for their end. False if none ran."""
    from nacre.cli.processes import left as behind

    left, pid = behind.find(data), supervisor_pid(data)
    if pid is None:
        return behind.end(left)
    try:
        os.kill(pid, signal.SIGTERM)
    except PermissionError:
        raise NotStarted("The cloud runs as another user: run this command with sudo.") from None
    end = time.monotonic() + patience
    while behind.runs(pid):  # its file is gone a little before it is
        if time.monotonic() > end:
            raise NotStarted(f"The cloud does not stop; see {data}/logs. Its supervisor is process {pid}.")
        time.sleep(0.05)
    return True


class Gone(NotStarted):
    """The supervisor ended while it was waited for."""


class Api:
    """Just enough of a client to see whether the cloud answers, without loading a library for it."""

    def __init__(self, settings: Settings):
        self._url, self._file, self._cacert = settings.url, settings.data / "clouds.yaml", settings.cacert
        self._name = settings.host_name
        self.host: dict[str, Any] | None = None
        self._token = ""
        self.refused = False  # it answers, but not to the password of clouds.yaml

    def token(self) -> bool:
        """Whether the administrator gets a token, or at least an answer."""
        try:
            auth = yaml.safe_load(self._file.read_text())["clouds"]["nacre"]["auth"]
        except (OSError, yaml.YAMLError, TypeError, KeyError):
            self.refused = self.healthy() and not self._file.exists()  # a further control: it knows no passwords
            return self.refused
        body = {"auth": {
            "identity": {"methods": ["password"], "password": {"user": {
                "name": auth["username"], "password": auth["password"], "domain": {"id": "default"}}}},
            "scope": {"project": {"name": auth["project_name"], "domain": {"id": "default"}}}}}
        answer = self._send("/identity/v3/auth/tokens", body)
        self._token = answer[1].get("x-subject-token", "") if answer else ""
        return bool(self._token) or self.refused

    def healthy(self) -> bool:
        """Whether the APIs are served: of several controls by this one."""
        return self._send("/healthcheck") is not None

    def host_up(self) -> bool:
        """Whether this machine's compute host has said hello, as far as we may ask; then `host` is what it is."""
        if self.refused:
            return True
        answer = self._send("/compute/v2.1/os-nacre-hosts")
        found = answer[0].get("hosts", ()) if answer else ()
        self.host = next((h for h in found if h["name"] == self._name and h["met"]), None)
        return self.host is not None

    def _send(self, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(self._url + path, json.dumps(body).encode() if body else None, {  # noqa: S310
            "content-type": "application/json", "x-auth-token": self._token})
        try:
            trust = ssl.create_default_context(cafile=self._cacert) if self._url.startswith("https:") else None
            with urllib.request.urlopen(request, timeout=5, context=trust) as answer:  # noqa: S310 - our own address
                text = answer.read()
                return json.loads(text) if text[:1] == b"{" else text, {k.lower(): v for k, v in answer.headers.items()}
        except urllib.error.HTTPError as error:
            self.refused = error.code == 401
            return None
        except (OSError, ValueError, HTTPException):
            return None


class HostBarred(NotStarted):
    """The cloud is up, and this machine's host takes no orders of it."""


def wait(settings: Settings, say: Any, roles: tuple[str, ...]) -> None:
    """Until a token is issued and this machine's host is up. say: hears each step. Raises NotStarted, HostBarred."""
    api = Api(settings)
    steps = [("the APIs answer", api.token, "control"), ("the compute host is up", api.host_up, "node")]
    if roles == ("control",):
        steps = [("the APIs answer", api.healthy, "control")]
    elif roles == ("node",):
        steps = [("the cloud greets this host", lambda: _greeted(settings.data), "node")]
    for text, ready, log in steps:
        begin = time.monotonic()
        while not ready():
            waited = time.monotonic() - begin
            gone = waited > 5 and supervisor_pid(settings.data) is None
            if waited > PATIENCE or gone:
                raise (Gone if gone else NotStarted)(
                    f"Waited {waited:.0f} s in vain until {text}.\n{_tail(settings.data / 'logs', log)}")
            time.sleep(0.03)
        say(text, time.monotonic() - begin)
    if api.refused:
        say(f"the administrator has another password than {settings.data}/clouds.yaml says: correct it there"
            if (settings.data / "clouds.yaml").exists() else
            f"another control has the first users' passwords: bring its clouds.yaml here, into {settings.control}", 0.0)
    if api.host and api.host["barred"]:
        from nacre.cli.hosts import barred

        raise HostBarred(f"The cloud answers at {settings.url}, but its host does not work for it.\n{barred(api.host)}")


def _greeted(data: Path) -> bool:
    """Whether the node that runs now was greeted by a control process."""
    try:
        return (data / "run" / "node.ready").read_text() == (data / "run" / "node.pid").read_text()
    except OSError:
        return False


def _tail(folder: Path, name: str) -> str:
    for log in (folder / f"{name}.log", folder / "supervisor.log"):
        if log.exists() and (lines := log.read_text(errors="replace").splitlines()[-15:]):
            return f"The end of {log}:\n  " + "\n  ".join(lines)
    return f"There is nothing in {folder}."


def bring_up(settings: Settings, say: Any, given: Given = Given(), roles: tuple[str, ...] = ()) -> bool:
    """Start the cloud and wait until it can be used. False if it ran already. roles: other than those of the folder.
    Raises NotStarted."""
    roles = roles or roles_of(settings.data)
    if "node" in roles and settings.hypervisor == "libvirt" and os.geteuid() != 0:
        raise NotStarted("Guests need root: use `sudo`, or `nacre up --hypervisor fake` for a cloud without guests.")
    started = start(settings, roles, given)
    try:
        wait(settings, say, roles)
    except Gone:
        if started:
            raise
        started = start(settings, roles, given)  # it was on its way down when we looked
        wait(settings, say, roles)
    return started


def ensure_up(data: Path, external: str | None = None) -> bool:
    """For commands that need a running cloud: `bring_up` with the folder's own settings. external: as of `up`."""
    return bring_up(running_settings(data), lambda text, seconds: None, Given(external=external))


@click.command()
@click.option("-d", "--detach", is_flag=True, help="return when the cloud is up, and leave it running")
@click.option("--data", type=click.Path(path_type=Path), default=None, help="the cloud's data folder [~/.nacre]")
@click.option("--port", type=click.IntRange(1, 65535), default=None, help="the APIs' port [8774]")
@click.option("--hypervisor", type=click.Choice(["libvirt", "fake"]), default=None,
              help="libvirt: real guests, needs root; fake: none, for trying the APIs")
@click.option("--database", default=None, metavar="URL", help="postgresql://USER@HOST/NAME; kept in the data folder "
              "for later starts [a SQLite file in the data folder]")
@click.option("--external", default=None, metavar="nat|none|INTERFACE", help="how the network `public` leaves this "
              "machine: behind its address, or by an interface of its own; kept for later starts [none]")
def up(detach: bool, data: Path | None, **given: Any) -> None:
    """Start the cloud on this machine, and say how to use it."""
    from rich.console import Console

    from nacre.cli.processes import external

    told = Given(given.pop("database"), given.pop("external"))
    settings = running_settings(data, **given, database_url=told.database)
    console = Console(stderr=True, highlight=False)

    def say(text: str, seconds: float) -> None:
        console.print(f"[green]✓[/] {text} [dim]{seconds:.1f} s[/]")

    with console.status("starting"):
        started = bring_up(settings, say, told)
    if roles_of(settings.data) == ("node",):
        console.print(f"This host {'is up' if started else 'was up already'}.")
    else:
        other = [f"--{name} {value}" for name, value in given.items() if value not in (None, getattr(settings, name))]
        if not started and external.wanted(settings, told.external) != kept_external(settings.data):
            other.append(f"--external {told.external}")
        if other:
            console.print(f"It runs on as it was started; for {' '.join(other)}: `nacre down` first.", soft_wrap=True)
        console.print(f"Nacre {'is up' if started else 'was up already'} at {settings.url}\n"
                      f"  export OS_CLIENT_CONFIG_FILE={settings.data}/clouds.yaml\n"
                      f"  openstack --os-cloud demo server list", soft_wrap=True)
        if started:
            with contextlib.suppress(ApiError, KeyError):  # another control made the first users, or they changed
                console.print(_first_steps(settings.data, settings.hypervisor), soft_wrap=True)
    if out := external.said(settings):
        console.print(out, soft_wrap=True, markup=False)
    if detach:
        return
    console.print("Ctrl-C stops it (`nacre up -d` leaves it running); servers keep running.")
    try:
        while supervisor_pid(settings.data) is not None:
            time.sleep(0.5)
    except KeyboardInterrupt:
        stop(settings.data)
        console.print("stopped")


def network(client: Client) -> str:
    """The demo network's id, with its one subnet."""
    nets = client.get("network", "/networks", params={"name": DEMO, "project_id": client.project_id})["networks"]
    net = nets[0] if nets else client.post("network", "/networks", {"network": {"name": DEMO}})["network"]
    if not net.get("subnets"):
        client.post("network", "/subnets", {"subnet": {
            "name": DEMO, "network_id": net["id"], "ip_version": 4, "cidr": DEMO_CIDR}})
    return str(net["id"])


def upload(client: Client, format: dict[str, Any], data: bytes | Iterator[bytes]) -> str:
    """The id of a new image `tiny`. format: its attributes besides."""
    made = client.post("image", "/images", {"name": "tiny", "container_format": "bare", **format})
    client.request("PUT", "image", f"/images/{made['id']}/file", content=data,
                   headers={"Content-Type": "application/octet-stream"})
    return str(made["id"])


def _first_steps(data: Path, hypervisor: str) -> str:
    """What to try in a cloud that just came up. A cloud whose demo project has no network and sees no image gets what
    costs nothing: the demo network, and for simulated guests an image. The rest it is told how to make."""
    client = Client(data, DEMO)
    images = client.get("image", "/images", params={"status": "active"})["images"]
    networks = client.get("network", "/networks", params={"project_id": client.project_id})["networks"]
    names = {str(i["name"]) for i in images}
    if not names and not networks:
        if hypervisor == "fake":
            upload(client, {"disk_format": "raw"}, bytes(1 << 20))
            names.add("tiny")
        network(client)
    command = "  openstack --os-cloud demo server create --image {} --flavor m1.nano --network demo --wait one"
    if names:
        return command.format("tiny" if "tiny" in names else sorted(names)[0])
    return ("  nacre demo     # there is no image yet: builds a small one, `tiny`, and boots it\n"
            + command.format("tiny"))


@click.command()
@click.option("--data", type=click.Path(path_type=Path), default=None, help="the cloud's data folder [~/.nacre]")
@click.option("--purge", is_flag=True, help="and take away what this machine's network has of the cloud: the public "
              "network's way out, and where no servers are left here also its bridges")
def down(data: Path | None, purge: bool) -> None:
    """Stop the cloud's processes; servers keep running, and are found again by the next `up`."""
    settings = running_settings(data)
    click.echo("stopped" if stop(settings.data) else "nothing was running")
    if purge and settings.hypervisor != "fake":
        from nacre.cli.processes import external

        for line in external.purge(settings):
            click.echo(f"gone: {line}")
        _keep(settings, external.wanted(settings, "none"))
