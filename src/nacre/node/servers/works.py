"""Work that takes long: begun once however often it is ordered, answered soon whether it is done or not, and seen to
move meanwhile. Who waits for it asks again; who gives up does not stop it."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable

import msgspec

from nacre.base.errors import NacreError, Refused
from nacre.conductor.contract import WorkState
from nacre.node.contract import WAITING, Guest, Work

#: Seconds until an order is answered though its work is not done: well below what a caller waits for an answer.
ANSWER = 5.0
#: How many failures are remembered for callers who were not there to hear of them.
REMEMBERED = 1000

Key = tuple[str, str, int]


class Doing(msgspec.Struct):
    """What a piece of work does now. moved, total: bytes, where it has any."""

    step: str = WAITING
    moved: int = 0
    total: int = 0

    def begin(self, step: str) -> None:
        self.step, self.moved, self.total = step, 0, 0

    def progress(self, moved: int, total: int) -> None:
        self.moved, self.total = moved, total


Run = tuple["asyncio.Task[Guest | None]", Doing]


class Works:
    """Work by (verb, server, epoch): each order has its epoch."""

    def __init__(self) -> None:
        self._running: dict[Key, Run] = {}
        self._failed: OrderedDict[Key, NacreError] = OrderedDict()
        self.stopping = False

    async def run(self, key: Key, work: Callable[[Doing], Awaitable[Guest | None]]) -> Work:
        """Begins `work`, or joins the run of the same key. Raises its error, also one that nobody waited for."""
        if (failed := self._failed.pop(_remembered(key), None)) is not None:
            raise failed
        task, doing = self.begin(key, work)
        await asyncio.wait({task}, timeout=ANSWER)
        if not task.done():
            return Work(done=False, step=doing.step, moved=doing.moved, total=doing.total)
        failed = self._failed.pop(_remembered(key), None)
        try:
            return Work(done=True, guest=task.result())
        except asyncio.CancelledError:
            if self.stopping:
                raise
            raise Refused(f"{key[0]} of server {key[1]} was taken back") from None
        except NacreError as error:
            raise failed or error from None  # why the attempt failed, not that it was over for this part of it

    def begin(self, key: Key, work: Callable[[Doing], Awaitable[Guest | None]]) -> Run:
        """As `run`, for whom no answer is wanted."""
        if key not in self._running:
            doing = Doing()
            task: asyncio.Task[Guest | None] = asyncio.ensure_future(work(doing))
            self._running[key] = task, doing
            task.add_done_callback(lambda done: self._ended(key, done))
        return self._running[key]

    def states(self) -> tuple[WorkState, ...]:
        """What goes on here."""
        return tuple(WorkState(server_id=server, verb=verb, step=doing.step, moved=doing.moved, total=doing.total)
                     for (verb, server, _), (_, doing) in self._running.items())

    def busy(self, server_id: str) -> bool:
        return any(key[1] == server_id for key in self._running)

    def cancel(self, server_id: str, epoch: int) -> None:
        """Ends what runs for this server by orders of this epoch and lower ones, but for its own end."""
        for (verb, server, of), (task, _) in list(self._running.items()):
            if server == server_id and of <= epoch and verb != "end":
                task.cancel()

    async def stop(self) -> None:
        """Drops everything where it is: nothing is taken back from here on."""
        self.stopping = True
        tasks = [task for task, _ in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, key: Key, task: "asyncio.Task[Guest | None]") -> None:
        self._running.pop(key, None)
        if not task.cancelled() and isinstance(error := task.exception(), NacreError):
            self._failed.setdefault(_remembered(key), error)
            if len(self._failed) > REMEMBERED:
                self._failed.popitem(last=False)


def _remembered(key: Key) -> Key:
    """Prepare and spawn are one attempt: who takes it up again asks for the first, and hears why the second failed."""
    verb, server, epoch = key
    return ("attempt" if verb in {"prepare", "spawn"} else verb), server, epoch
