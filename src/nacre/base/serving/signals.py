"""Being told to end, by a signal."""

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Any


def on_stop_signal(stop: Callable[[], None]) -> None:
    """Call `stop` in the loop when this very process is told to end.

    Not the loop's own signal handlers: those hear through a pipe that forked children share, and pyroute2 forks
    children that it ends by SIGTERM.
    """
    loop, me = asyncio.get_running_loop(), os.getpid()

    def hear(_: int, __: Any) -> None:
        if os.getpid() != me:
            os._exit(0)
        loop.call_soon_threadsafe(stop)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, hear)
