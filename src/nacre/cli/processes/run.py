"""The two processes that `nacre up` runs, one by one."""

import asyncio
import contextlib
import ctypes
import gc
import os
import resource
import signal
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import click

from nacre.base import crash, log
from nacre.base.errors import NacreError
from nacre.base.rpc import addresses
from nacre.base.rpc.keys import load_keys
from nacre.base.rpc.server import Peer
from nacre.base.serving.signals import on_stop_signal
from nacre.cli import supervisor
from nacre.cli.processes import accounts, folder, lock
from nacre.config import Settings, load

#: From malloc.h; and bytes, less than a connection's read may bring.
M_MMAP_THRESHOLD, BLOCK = -3, 64 << 10


def _run(settings: Settings, main: Coroutine[Any, Any, None]) -> None:
    import uvloop

    log.configure(settings.log_level, json=settings.log_json)
    crash.arm(os.environ.get("NACRE_FAKE_CRASH_FILE", ""))
    # What was imported stays: the collector need not look at it again and again.
    gc.freeze()
    gc.set_threshold(20_000, 50, 50)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


@click.command()
@click.option("-d", "--detach", is_flag=True, help="return when it answers, and leave it running; `nacre down` ends it")
@click.option("--port", type=click.IntRange(1, 65535), default=None, help="the APIs' port [8774]")
@click.option("--host", default=None, metavar="ADDRESS", help="where to serve; 0.0.0.0: everywhere [127.0.0.1]")
@click.option("--database", default=None, metavar="URL", help="the cloud's, postgresql://USER@HOST/NAME")
@click.option("--data", type=click.Path(path_type=Path), default=None, help="this control's data folder [~/.nacre]")
def control(detach: bool, port: int | None, host: str | None, database: str | None, data: Path | None) -> None:
    """Run a control process here: every one of a cloud serves every API. It needs the cloud's PostgreSQL and its seal
    key, in control/seal-key or NACRE_IDENTITY_SEAL_KEY."""
    settings = load(data, port=port, host=host, database_url=database)
    mine = (lock.WORKS,) if "NACRE_SUPERVISED" in os.environ else (lock.STARTS, lock.WORKS)
    if not detach:
        lock.refuse_second(settings.data, *mine)  # before anything changes there
    with _database_is_ours(settings, database) as user:
        if not detach:
            with lock.control_of(settings.data, user, *mine):
                return _in_foreground(settings, user)
    _detached(settings, database)


def _in_foreground(settings: Settings, user: accounts.Account | None) -> None:
    _give_memory_back()
    # A host's connection is a descriptor, and many systems start with 1,024.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, hard), hard))
    with contextlib.suppress(PermissionError):  # where it is the supervisor's to write
        (settings.data / "run" / "control.pid").write_text(str(os.getpid()))
    accounts.become(user)
    if settings.metrics.port:
        _serve_metrics(settings.metrics.port)
    _run(settings, _control(settings))


def _give_memory_back() -> None:
    """Blocks of BLOCK and more go back to the system when they are free. By itself glibc keeps such as were needed once
    (the bodies of a flood) for the next time."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, BLOCK)


@contextlib.contextmanager
def _database_is_ours(settings: Settings, given: str | None) -> Iterator[accounts.Account | None]:
    """As `up` sees to it: the folder's cloud, at this release's schema. Gives who control is to run as; in here nobody
    takes the folder. Raises NacreError."""
    from nacre.cli import database

    database.check(settings)
    user = accounts.runs_as(settings.data)
    with folder.prepared(settings.data, user):
        with accounts.acting(user):
            if database.reached(settings.database, database.revision) != supervisor.newest_revision():
                from nacre import migrations

                database.reached(settings.database, migrations.upgrade)
        database.keep(settings, given, user)
        yield user


def _detached(settings: Settings, database: str | None) -> None:
    from nacre.cli import up

    environ = {"NACRE_HOST": settings.host}
    os.environ.update(environ)  # for the supervisor and its child
    started = up.bring_up(settings, lambda what, took: click.echo(f"{what} ({took:.1f} s)", err=True),
                          up.Given(database), ("control",))
    click.echo(f"This control {'is up' if started else 'was up already'} at {settings.url}", err=True)


async def _control(settings: Settings) -> None:
    from nacre.base.db import Database
    from nacre.base.rpc.zmq import ZmqTransport
    from nacre.base.serving.server import serve
    from nacre.cli.bootstrap import first_rows, listening
    from nacre.cloud.control import build_control

    transport = ZmqTransport(Peer(settings.control_name, "control"),
                             load_keys(settings.control / "rpc-key.json"),
                             addresses.endpoint(settings.rpc_host, settings.rpc_port))
    db = Database(settings.database)
    control = build_control(settings, transport, db)
    control.base.processes.usurped = lambda: signal.raise_signal(signal.SIGTERM)
    # At once: no story of what is not so any more may go on. It is started anew, and hosts judge the database.
    control.base.changes.restored = lambda: os._exit(1)
    try:
        await control.keys.open()
        listen = await listening(control)
        await first_rows(control)
        await control.introductions.start()  # first: a host that knocks at a closed door is away for 15 s
        await transport.start()
        transport.address = addresses.reachable(transport.address, settings.rpc.address)
        async with control.running():
            await serve(control.app, listen, control.health)
    finally:
        await transport.close()
        await db.close()


def _serve_metrics(port: int) -> None:
    """In a thread of its own, for this machine only: figures tell of hosts, and Prometheus has no token."""
    from prometheus_client import start_http_server

    try:
        start_http_server(port, "127.0.0.1")
    except OSError as error:
        raise NacreError(f"metrics.port: port {port} cannot be used: {error.strerror}. Choose another, or 0.") from None


@click.command(hidden=True)
@click.option("--data", type=click.Path(path_type=Path), required=True)
def node(data: Path) -> None:
    """The compute host and its network agent."""
    settings = load(data)
    with lock.held(settings.data):
        _run(settings, _node(settings))


async def _node(settings: Settings) -> None:
    from nacre.base.rpc.zmq import ZmqTransport
    from nacre.cloud.node import build_node

    transport = ZmqTransport(Peer(settings.host_name, "node"), load_keys(settings.data / "node" / "rpc-key.json"),
                             addresses.endpoint(settings.rpc_host, settings.rpc.port))
    await transport.start()
    place = addresses.reachable(transport.address, settings.rpc.address)
    transport.address = addresses.endpoint(addresses.host_of(place), int(place.rpartition(":")[2]))
    ready = settings.data / "run" / "node.ready"
    ready.unlink(missing_ok=True)
    stopping = asyncio.Event()
    on_stop_signal(stopping.set)
    try:
        node = build_node(settings, transport)

        async def tell() -> None:
            await node.ready.wait()
            ready.write_text(str(os.getpid()))
            await asyncio.Event().wait()

        node.tasks.append(tell)
        async with node():
            await stopping.wait()
    finally:
        await transport.close()
