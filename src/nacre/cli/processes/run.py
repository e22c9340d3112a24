"""The two processes that `nacre up` runs, as hidden commands."""

import asyncio
import gc
import os
import resource
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import click

from nacre.base import crash, log
from nacre.base.errors import NacreError
from nacre.base.rpc.keys import load_keys
from nacre.base.rpc.server import Peer
from nacre.base.serving.signals import on_stop_signal
from nacre.config import Settings, load


def _run(settings: Settings, main: Coroutine[Any, Any, None]) -> None:
    import uvloop

    log.configure(settings.log_level, json=settings.log_json)
    crash.arm(os.environ.get("NACRE_FAKE_CRASH_FILE", ""))
    # What was imported stays: the collector need not look at it again and again.
    gc.freeze()
    gc.set_threshold(20_000, 50, 50)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


@click.command(hidden=True)
@click.option("--data", type=click.Path(path_type=Path), required=True)
def control(data: Path) -> None:
    """The APIs and the services behind them."""
    settings = load(data)
    # A host's connection is a descriptor, and many systems start with 1,024.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, hard), hard))
    if settings.metrics.port:
        _serve_metrics(settings.metrics.port)
    _run(settings, _control(settings))


async def _control(settings: Settings) -> None:
    from nacre.base.db import Database
    from nacre.base.rpc.zmq import ZmqTransport
    from nacre.base.serving.server import serve
    from nacre.cli.bootstrap import first_rows, listening
    from nacre.cloud.control import build_control

    own = settings.rpc
    transport = ZmqTransport(Peer(settings.control_name, "control"),
                             load_keys(settings.data / "control" / "rpc-key.json"), f"tcp://{own.listen}:{own.port}")
    db = Database(settings.database)
    control = build_control(settings, transport, db)
    control.base.processes.usurped = lambda: signal.raise_signal(signal.SIGTERM)
    try:
        await control.keys.open()
        listen = await listening(control)
        await first_rows(control)
        await control.introductions.start()  # first: a host that knocks at a closed door is away for 15 s
        await transport.start()
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
    _run(settings, _node(settings))


async def _node(settings: Settings) -> None:
    from nacre.base.rpc.zmq import ZmqTransport
    from nacre.cloud.node import build_node

    own = settings.rpc
    transport = ZmqTransport(Peer(settings.host_name, "node"), load_keys(settings.data / "node" / "rpc-key.json"),
                             f"tcp://{own.listen}:{own.port}")
    await transport.start()
    stopping = asyncio.Event()
    on_stop_signal(stopping.set)
    try:
        async with build_node(settings, transport)():
            await stopping.wait()
    finally:
        await transport.close()
