"""The verbs of a compute host (`contract.Node`): prepare, spawn, and their opposites.

Per server one thing at a time, in the journal before it is done. A repeated order joins the work that runs or is
answered from what is there. What fails takes back all that its attempt had here, claim included. What nobody ordered to
end is never ended: it is reported.
"""

from functools import partial

import structlog

from nacre.base.clock import Clock, RealClock
from nacre.base.errors import BadRequest, BuildFailed, NotFound
from nacre.network.contract import Differences, GroupMembers
from nacre.node.contract import BuildOrder, EndOrder, Orphan, PowerOrder, SpawnOrder, Work
from nacre.node.hypervisor.driver import Hypervisor
from nacre.node.journal import Entry, Journal
from nacre.node.ovs.contract import Wiring
from nacre.node.servers.builds import Builds
from nacre.node.servers.limits import rates
from nacre.node.servers.power import ACTIONS, Power
from nacre.node.servers.state import NodeSettings, NodeState
from nacre.node.servers.works import Doing
from nacre.scheduler.contract import Held

log = structlog.get_logger()

__all__ = ["NodeManager", "NodeSettings"]


class NodeManager:
    """One compute host. `start` before anything else; `stop` leaves every guest and every claim as it is."""

    def __init__(self, settings: NodeSettings, journal: Journal, hypervisor: Hypervisor, wiring: Wiring,
                 clock: Clock | None = None):
        self.here = NodeState(settings, journal, hypervisor, wiring, clock or RealClock())
        self._builds, self._power = Builds(self.here), Power(self.here)

    async def start(self) -> None:
        """Counts what the journal says was granted, and goes on with what was being taken back."""
        for entry in self.here.journal.all():
            if entry.order is not None:
                self.here.tracker.restore(entry.order)
                await self._limit(entry)
        await self.here.hypervisor.start(self._guest_changed)
        self.mend()

    async def stop(self) -> None:
        """Work that runs is dropped where it is: it is found in the journal by whoever comes next."""
        await self.here.works.stop()
        await self.here.hypervisor.stop()
        await self.here.journal.close()

    def mend(self) -> None:
        """Goes on with what did not get through and nobody is at, beside all else: what was being taken back, and, once
        it is known whose orders count here, guests that a restart left paused."""
        here = self.here
        for entry in here.journal.all():
            if not here.works.busy(entry.server_id) and (entry.stage == "ending" or (
                    here.met and not here.barred and self._power.is_interrupted(entry))):
                here.works.begin(("mend", entry.server_id, entry.epoch), partial(self._mend, entry.allocation))

    async def _mend(self, allocation: str, doing: Doing) -> None:
        entry = self.here.journal.get(allocation)
        if entry is None:
            return
        try:
            async with self.here.locks(entry.server_id):
                entry = self.here.journal.get(allocation)
                if entry is not None and entry.stage == "ending":
                    doing.begin("end")
                    await self.here.clear(entry)
                else:
                    await self._power.resume(allocation, doing)
        except Exception as error:
            log.warning("cannot be mended yet", server=entry.server_id if entry else "", why=str(error))

    async def held(self, n: int = 0) -> tuple[Held, ...]:
        """What has room or a guest here. A guest of ours that the journal does not know goes by its server's id. n: the
        number of the report that it is for."""
        guests, entries = await self.here.hypervisor.guests(), self.here.journal.all()
        strays = sorted(set(guests) - {entry.server_id for entry in entries})
        powers = [guests.get(entry.server_id, "missing") for entry in entries]
        return (*(Held(allocation=e.allocation, server_id=e.server_id, epoch=e.epoch, power=power,
                       since=self.here.since(e.allocation, power, n) if n else 0)
                  for e, power in zip(entries, powers, strict=True)),
                *(Held(allocation=s, server_id=s, epoch=0, power=guests[s]) for s in strays))

    # --- the contract -----------------------------------------------------------------------------------------

    async def prepare(self, order: BuildOrder) -> Work:
        self.here.admit(order.cloud)
        return await self.here.works.run(("prepare", order.server_id, order.epoch),
                                         lambda doing: self._builds.prepare(order, doing))

    async def spawn(self, order: SpawnOrder) -> Work:
        self.here.admit(order.cloud)
        return await self.here.works.run(("spawn", order.server_id, order.epoch),
                                         lambda doing: self._builds.spawn(order, doing))

    async def end(self, order: EndOrder) -> Work:
        self.here.admit(order.cloud)
        return await self.here.works.run(("end", order.server_id, order.epoch),
                                         lambda doing: self._builds.end(order, doing))

    async def power(self, order: PowerOrder) -> Work:
        self.here.admit(order.cloud)
        if order.action not in ACTIONS:
            raise BadRequest(f"action: one of {', '.join(ACTIONS)} is wanted, not {order.action[:40]}.", field="action")
        return await self.here.works.run((order.action, order.server_id, order.epoch),
                                         lambda doing: self._power.switch(order, doing))

    async def console(self, server_id: str, lines: int | None) -> str:
        if not self.here.journal.of_server(server_id):
            raise NotFound(f"Server {server_id} is not on this host.")
        return await self.here.hypervisor.console(server_id, lines)

    async def describe(self, allocations: tuple[str, ...]) -> tuple[Orphan, ...]:
        found = []
        for held in await self.held():
            if held.allocation in allocations:
                entry = self.here.journal.get(held.allocation)
                spawn = entry.spawn if entry else None
                found.append(Orphan(
                    allocation=held.allocation, server_id=held.server_id, power=held.power, epoch=held.epoch,
                    stage=entry.stage if entry else "", order=entry.order if entry else None,
                    ports=spawn.ports if spawn else (), networks=spawn.networks if spawn else ()))
        return tuple(found)

    async def rewire(self, port_ids: tuple[str, ...], n: int = 0, before: int = 0) -> None:
        await self.here.wiring.rewire(port_ids, n, before)

    async def differ(self, news: Differences) -> None:
        await self.here.wiring.differ(news)

    async def regroup(self, news: tuple[GroupMembers, ...]) -> None:
        await self.here.wiring.differ(Differences(members=news))

    async def _limit(self, entry: Entry) -> None:
        """The limits of a server's interfaces, as before the restart. One that has none that we know, because an
        older release took its order, keeps no host from starting."""
        if entry.order is not None and entry.spawn is not None:
            try:
                await self.here.wiring.limit(rates(entry.order, [port.id for port in entry.spawn.ports]))
            except BuildFailed as error:
                log.error("a server runs without limits", server=entry.server_id, why=str(error))

    async def _guest_changed(self, server_id: str, power: str) -> None:
        """An event of the hypervisor: only a reason to report."""
        self.here.changed.set()
