"""Time as a dependency: the real one, and a virtual one for simulations and tests."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """What may be asked of time. Seconds are floats; wall time is aware UTC."""

    def now(self) -> datetime: ...
    def monotonic(self) -> float: ...
    async def sleep(self, seconds: float) -> None: ...


class RealClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class VirtualClock:
    """Time that moves only when told to: `advance` wakes sleepers in order of their time."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)):
        self._start, self._elapsed = start, 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._count += 1
        self._sleepers.append((self._elapsed + seconds, self._count, future))
        await future

    def jump(self, seconds: float) -> None:
        """Time passes while nobody runs, as for a process that was frozen."""
        self._elapsed += seconds

    async def advance(self, seconds: float) -> None:
        """Move time on, letting every sleeper that comes due run before the next one is woken."""
        end = self._elapsed + seconds
        while True:
            self._sleepers = sorted(s for s in self._sleepers if not s[2].done())
            if not self._sleepers or self._sleepers[0][0] > end:
                break
            due, _, future = self._sleepers.pop(0)
            self._elapsed = max(self._elapsed, due)
            future.set_result(None)
            await settle()
        self._elapsed = end
        await settle()


async def settle(rounds: int = 50) -> None:
    """Let everything that is ready run."""
    for _ in range(rounds):
        await asyncio.sleep(0)


def iso(moment: datetime, *, zulu: bool = True) -> str:
    """`2026-01-01T00:00:00Z`, the format of OpenStack's APIs. Naive values (from the database) are UTC."""
    text = moment.strftime("%Y-%m-%dT%H:%M:%S")
    return text + "Z" if zulu else text
