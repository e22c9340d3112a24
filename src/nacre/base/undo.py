"""Undo beside do: `async with Undo() as undo:` and `undo.add(step, ...)` on the line before the effect.

Before, because a cancelled or failed call may have had its effect. Steps are idempotent. They run in reverse order
when the block fails, shielded from cancellation, each quietly (a failing step is logged, the rest still run), and are
forgotten when the block succeeds. An `Interrupted` takes nothing back, neither as the block's failure nor as a step's:
whoever goes on with the work finds what was done.
"""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

import structlog

from nacre.base.errors import Interrupted

log = structlog.get_logger()

Step = Callable[..., Awaitable[Any]]


class Undo:
    """A stack of steps to take back when the block fails. but: further failures after which nothing is taken back."""

    def __init__(self, *, but: type[BaseException] | tuple[type[BaseException], ...] = ()) -> None:
        self._but: tuple[type[BaseException], ...] = (Interrupted, *(but if isinstance(but, tuple) else (but,)))
        self._steps: list[tuple[Step, tuple[Any, ...]]] = []

    def add(self, step: Step, *args: Any) -> None:
        """Remember `step(*args)`, to be awaited if the block fails."""
        self._steps.append((step, args))

    def forget(self) -> None:
        """Drop every step: someone else answers for them now."""
        self._steps.clear()

    async def run(self) -> None:
        """Run the steps now, last first, and forget them. Raises Interrupted, with the rest of them not run."""
        steps, self._steps = self._steps[::-1], []
        for step, args in steps:
            try:
                await step(*args)
            except Interrupted:
                raise
            except Exception:
                log.exception("undo step failed", step=getattr(step, "__qualname__", repr(step)))

    async def __aenter__(self) -> "Undo":
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:
        if error is None or isinstance(error, self._but):
            self.forget()
            return
        work, cancelled = asyncio.ensure_future(self.run()), False
        while not work.done():
            try:
                await asyncio.shield(work)
            except asyncio.CancelledError:
                cancelled = True
            except Interrupted:
                break
        if cancelled:  # it came while steps were taken back: it must not get lost behind the block's own error
            raise asyncio.CancelledError
        work.result()
