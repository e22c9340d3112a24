"""Virtual time: a loop that never waits, so that hours pass in seconds and one seed is one run.

When nothing is ready the loop's own time jumps to the next timer: it advances only when nothing is in flight. What
would run in a thread runs at once. Sleeps, timeouts and clocks of everything in the loop follow.
"""

import asyncio
import selectors
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

#: The day every simulation begins.
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
#: Real seconds that a loop with no timer and nothing ready waits for a descriptor, before it is called stuck.
STUCK = 10.0
#: Descriptors are looked at every so many turns: nothing comes by them but a wake-up after Ctrl-C.
RARELY = 256


class Stuck(RuntimeError):
    """Everything waits for something that will never come."""


class _Impatient(selectors.BaseSelector):
    """A selector that lets virtual time pass instead of waiting."""

    def __init__(self, advance: Callable[[float], None]):
        self._real, self._advance = selectors.DefaultSelector(), advance
        self._turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            if not (found := self._real.select(STUCK)):
                raise Stuck("nothing is ready and no timer is set")
            return found
        if timeout > 0:
            self._advance(timeout)
        self._turns += 1
        return [] if self._turns % RARELY else self._real.select(0)

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        found: Mapping[Any, selectors.SelectorKey] = self._real.get_map()
        return found

    def close(self) -> None:
        self._real.close()


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time starts at 0 and passes only by timers."""

    def __init__(self) -> None:
        self._elapsed = 0.0
        super().__init__(_Impatient(self._advance))

    def time(self) -> float:
        return self._elapsed

    def _advance(self, seconds: float) -> None:
        self._elapsed += seconds

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> "asyncio.Future[Any]":  # type: ignore[override]
        """At once, in the loop: a thread's end has no place in virtual time."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


class LoopClock:
    """The running loop's time as a clock."""

    def now(self) -> datetime:
        return BEGIN + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))
