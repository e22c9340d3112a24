"""Group commit: one writer thread runs the units that wait as one transaction. Both engines write so.

Results leave the thread only after COMMIT. What one transaction means is the engine's own file's business.
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from nacre.base.db.engine import Unit

T = TypeVar("T")

#: How many waiting units are committed together at most.
GROUP = 128


class Job:
    """One unit, who waits for it, and what came of it."""

    __slots__ = ("error", "future", "loop", "result", "unit")

    def __init__(self, unit: Unit[Any], loop: asyncio.AbstractEventLoop):
        self.unit, self.loop = unit, loop
        self.future: asyncio.Future[Any] = loop.create_future()
        self.result: Any = None
        self.error: BaseException | None = None


class GroupWriter:
    """commit: runs jobs in one transaction and fills in what came of each. False: nothing happened, and each may be
    run again by itself, so that one bad unit harms nobody else."""

    def __init__(self, commit: Callable[[list[Job]], bool]):
        self._commit = commit
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def run(self, unit: Unit[T]) -> T:
        """What the unit returns, once it is committed."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._write, name="sql-write", daemon=True)
            self._thread.start()
        job = Job(unit, asyncio.get_running_loop())
        self._jobs.put(job)
        return await job.future  # type: ignore[no-any-return]

    async def close(self) -> None:
        """Finish what was accepted."""
        if self._thread is not None:
            self._jobs.put(None)
            await asyncio.to_thread(self._thread.join)
            self._thread = None

    def _write(self) -> None:
        """The writer thread."""
        last = False
        while not last:
            jobs: list[Job] = []
            job = self._jobs.get()
            while job is not None:
                jobs.append(job)
                if len(jobs) == GROUP:
                    break
                try:
                    job = self._jobs.get_nowait()
                except queue.Empty:
                    break
            last = job is None
            if jobs:
                if not self._commit(jobs):
                    for one in jobs:
                        self._commit([one])
                _release(jobs)


def _release(jobs: list[Job]) -> None:
    """Tell the waiters, with one wake-up for each loop."""
    loops: dict[asyncio.AbstractEventLoop, list[Job]] = {}
    for job in jobs:
        loops.setdefault(job.loop, []).append(job)
    for loop, theirs in loops.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_tell, theirs)


def _tell(jobs: list[Job]) -> None:
    for job in jobs:
        if job.future.done():
            continue
        if job.error is not None:
            job.future.set_exception(job.error)
        else:
            job.future.set_result(job.result)
