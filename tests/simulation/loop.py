"""Processes inside one event loop, which can be killed and frozen as real ones are.

Every callback of the loop belongs to the process in whose context it was made. Those of a dead process are never called
again: no `finally`, no farewell, as after kill -9. Those of a frozen one wait until it goes on, as after SIGSTOP: its
timers are overdue then, and what it was about to do it does.
"""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any

from nacre.simulation.virtual_time import VirtualLoop

_OWNER: contextvars.ContextVar["Process | None"] = contextvars.ContextVar("simulated_process", default=None)

Call = tuple[contextvars.Context, Callable[..., Any], tuple[Any, ...]]


class Process:
    """Something that can be killed and frozen. Its tasks are kept: collecting them would run what a death does not."""

    def __init__(self, loop: "SimulatedLoop", name: str):
        self.loop, self.name, self.alive, self.frozen = loop, name, True, False
        self.tasks: list[asyncio.Task[Any]] = []
        self._parked: list[Call] = []
        self._context = contextvars.copy_context()
        self._context.run(_OWNER.set, self)

    def context(self) -> contextvars.Context:
        """For a callback of this process."""
        return self._context.copy()

    def begin(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """A task of this process."""
        return self.context().run(self.loop.create_task, work)

    async def ask(self, work: Coroutine[Any, Any, Any], seconds: float) -> "asyncio.Task[Any] | None":
        """The work once it is done; None: not in that time, as the process is dead, frozen or busy."""
        task = self.begin(work)
        done, _ = await asyncio.wait({task}, timeout=seconds)
        return task if done else None

    def kill(self) -> None:
        self.alive, self._parked = False, []

    def freeze(self) -> None:
        self.frozen = True

    def thaw(self) -> None:
        self.frozen, parked = False, self._parked
        self._parked = []
        for context, callback, args in parked:
            self.loop.call_soon(callback, *args, context=context)

    def step(self, context: contextvars.Context, callback: Callable[..., Any], args: tuple[Any, ...]) -> None:
        """One callback, if the process runs."""
        if not self.alive:
            return
        if self.frozen:
            self._parked.append((context, callback, args))
        else:
            callback(*args)


class SimulatedLoop(VirtualLoop):
    """A loop of several processes. over: nothing happens any more, whatever the collector stirs up."""

    def __init__(self) -> None:
        self.over = False
        super().__init__()
        self.set_exception_handler(lambda loop, context: None)

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None) -> Any:
        if self.over:
            return asyncio.Handle(callback, args, self)
        context = contextvars.copy_context() if context is None else context
        if (owner := context.get(_OWNER)) is None:
            return super().call_soon(callback, *args, context=context)
        return super().call_soon(owner.step, context, callback, args, context=context)

    def call_soon_threadsafe(self, callback: Callable[..., Any], *args: Any,
                             context: contextvars.Context | None = None) -> Any:
        return self.call_soon(callback, *args, context=context)

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any,
                context: contextvars.Context | None = None) -> Any:
        if self.over:
            return asyncio.Handle(callback, args, self)
        context = contextvars.copy_context() if context is None else context
        if (owner := context.get(_OWNER)) is None:
            return super().call_at(when, callback, *args, context=context)
        return super().call_at(when, owner.step, context, callback, args, context=context)

    def create_task(self, coro: Any, **named: Any) -> Any:
        task = super().create_task(coro, **named)
        if (owner := _OWNER.get()) is not None:
            owner.tasks.append(task)
        return task


def outside() -> contextvars.Context:
    """The context of what no process does: the network, the users, time."""
    context = contextvars.copy_context()
    context.run(_OWNER.set, None)
    return context
