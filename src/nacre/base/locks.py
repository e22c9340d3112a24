"""Locks by name: inside one process (one builder per server), and among the processes of one machine."""

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from nacre.base.errors import Unavailable


class NamedLocks:
    """`async with locks("server-1"):` one holder per name; names nobody holds or waits for cost nothing."""

    def __init__(self) -> None:
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def __call__(self, name: str) -> AsyncIterator[None]:
        lock, users = self._locks.get(name, (asyncio.Lock(), 0))
        self._locks[name] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks[name]
            if users == 1:
                del self._locks[name]
            else:
                self._locks[name] = (lock, users - 1)


@asynccontextmanager
async def file_lock(file: Path, patience: float) -> AsyncIterator[None]:
    """Held by one process of this machine at a time; the kernel lets it go with the process. Raises Unavailable if
    another has it for longer than `patience` (seconds)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        end = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise Unavailable(f"Another process of this machine holds {file}.") from None
                await asyncio.sleep(0.05)
        try:
            yield
        finally:
            # Not by the close alone: a child that is forked and has not begun its program yet has the lock too.
            fcntl.flock(fd, fcntl.LOCK_UN)
    finally:
        os.close(fd)
