"""Which hosts belong to the cloud, as one control process acts on it: of who was removed nothing is kept, whatever was
being written of it meanwhile. Who only moved, or has another release, has nothing to say that it did not say."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from nacre.base.durable.changes import Change, Changes
from nacre.base.durable.processes import Processes
from nacre.cloud.introductions import Introductions
from nacre.compute.contract import LedgerAdmin
from nacre.conductor.endings import Endings
from nacre.conductor.manager import ConductorManager
from nacre.conductor.removal import Removal
from nacre.scheduler.registry import HostRegistry


@dataclass(frozen=True)
class Membership:
    """heard: whether any control process heard a host's network agent lately; forget: what else is written of a host,
    besides the scheduler's row."""

    processes: Processes
    registry: HostRegistry
    conductor: ConductorManager
    around: Introductions
    heard: Callable[[str], Awaitable[bool]]
    forget: tuple[Callable[[str], Awaitable[None]], ...]

    def watch(self, changes: Changes) -> None:
        """Before the changes are read for the first time."""
        changes.subscribe(("process",), self._changed, self._all)

    def removal(self, admin: LedgerAdmin, endings: Endings) -> Removal:
        """What an operator removes a host with."""
        return Removal(self.processes, admin, self.registry, endings, self._heard, (self._shut_out, *self.forget))

    async def _heard(self, host: str) -> bool:
        """The network refuses an agent's report for its own reasons: the host that made it lives all the same."""
        return await self.heard(host) or await self.registry.heard_lately(host)

    async def _shut_out(self, host: str) -> None:
        await self.around.reload()
        self.conductor.meet_again(host)

    async def _changed(self, changes: Sequence[Change]) -> None:
        if known := {change.id for change in changes} & {*self.registry.states, *self.conductor.sessions()}:
            for host in known - {p.name for p in await self.processes.named(known) if p.role == "node"}:
                self.conductor.meet_again(host)
                for forget in self.forget:
                    await forget(host)
                if host in self.registry.states:
                    await self.registry.forget(host)

    async def _all(self) -> None:
        self.conductor.meet_again()
