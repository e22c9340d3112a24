"""How a host leaves the cloud. An operator removes it: its key opens nothing any more, and what was written of it is
gone. What runs there runs on: nothing that a host has is ended by its removal. Of a machine that an operator says is
gone for good, and nobody else, what was ending has ended: its servers' addresses are free.

Every control process hears of it, and keeps nothing either, whatever was being written of the host meanwhile. Who only
moved, or has another release, has nothing to say that it did not say."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog

from nacre.base.durable.changes import Change, Changes
from nacre.base.durable.processes import Processes
from nacre.base.errors import Conflict, NotFound
from nacre.cloud.introductions import Introductions
from nacre.compute.contract import LedgerAdmin
from nacre.conductor.endings import Endings
from nacre.conductor.manager import ConductorManager
from nacre.scheduler.contract import Hosts
from nacre.scheduler.registry import HostRegistry

log = structlog.get_logger()


@dataclass(frozen=True)
class Removal:
    """Implements the conductor's `Removal`. heard: whether any control process heard a host lately; forget: told the
    host's name once its key is gone, one after the other: this process shuts it out (the others read of it within a
    second), and what was written of it goes."""

    processes: Processes
    ledger: LedgerAdmin
    registry: Hosts
    endings: Endings
    heard: Callable[[str], Awaitable[bool]]
    forget: tuple[Callable[[str], Awaitable[None]], ...]

    async def remove(self, host: str, *, dead: bool = False) -> None:
        state = await self.registry.get(host)
        known = any(p.role == "node" and p.name == host for p in await self.processes.all("node"))
        # What this process hears is not all: its own way to the host may be cut. Nor does an operator's `forced_down`
        # silence a host: others would get the addresses that its guests go on using.
        if dead and ((state is not None and state.up) or await self.heard(host)):
            raise Conflict(f"Host {host} counts as alive: a control process heard it lately, and it confirms by itself "
                           "what is ending there. If the machine is off, wait two minutes; else "
                           f"`nacre host remove {host}` without --dead.")
        if state is None and not known:
            if dead and await self.endings.ending(host):  # asked again, after the process died that was at it
                return await self._bury(host)
            raise NotFound(f"Compute host {host} could not be found.")
        await self.ledger.check(free := self.ledger.free_of(host, dead=dead))
        if state is not None and not state.disabled:  # so that nobody chooses it while it goes
            await self.registry.set_service(host, disabled=True, reason="is being removed")
        # The rest is repeated without harm by who asks again, should this process die in between.
        await self.processes.remove("node", host, free)
        for forget in self.forget:
            await forget(host)
        if state is not None:
            await self.registry.forget(host)
        log.warning("a host was removed", host=host, dead=dead)
        if dead:  # it cannot come back: what it has shall meet nobody who has its addresses
            await self._bury(host)

    async def _bury(self, host: str) -> None:
        if left := await self.endings.bury(host):
            raise Conflict(f"Host {host} is removed, and {len(left)} servers that it had are just being deleted: "
                           f"repeat `nacre host remove {host} --dead` in a minute, so that their addresses are freed.")


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
