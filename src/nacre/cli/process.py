"""The two processes that `nacre up` runs, as hidden commands."""

import asyncio
import gc
import os
import resource
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import click

from nacre.base import crash, log
from nacre.base.errors import NacreError
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
    from nacre.cloud.control import run_control

    settings = load(data)
    # A host's connection is a descriptor, and many systems start with 1,024.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, hard), hard))
    if settings.metrics.port:
        _serve_metrics(settings.metrics.port)
    _run(settings, run_control(settings))


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
    from nacre.cloud.node import run_node

    settings = load(data)
    _run(settings, run_node(settings))
