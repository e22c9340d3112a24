"""The verbs of a compute host (`contract.Node`): claim, prepare, spawn, and their opposites.

Per server one thing at a time, in the journal before it is done. A repeated call joins the one that runs or is
answered from what is there. What fails takes back all that its attempt had here, claim included.
"""

import structlog

from nacre.base.clock import Clock, RealClock
from nacre.base.errors import BadRequest, BuildFailed, NotFound
from nacre.node.contract import BuildOrder, Guest, SpawnOrder, Step
from nacre.node.hypervisor.driver import Hypervisor, PowerChanged
from nacre.node.journal import Entry
from nacre.node.ovs.contract import Wiring
from nacre.node.servers.builds import Builds
from nacre.node.servers.limits import rates
from nacre.node.servers.power import ACTIONS, Power
from nacre.node.servers.state import HostState, NodeSettings

log = structlog.get_logger()

__all__ = ["NodeManager", "NodeSettings"]


class NodeManager:
    """One compute host. `start` before anything else; `stop` leaves every guest and every claim as it is."""

    def __init__(self, settings: NodeSettings, hypervisor: Hypervisor, wiring: Wiring, clock: Clock | None = None):
        self.here = HostState(settings, hypervisor, wiring, clock or RealClock())
        self._builds, self._power = Builds(self.here), Power(self.here)
        self._once = self.here.calls.once
        self._on_power: PowerChanged | None = None

    async def start(self, on_power: PowerChanged | None = None) -> None:
        """Counts what the journal says was granted, and goes on with what was being taken back."""
        self._on_power = on_power
        for entry in self.here.journal.all():
            if entry.alive and entry.order is not None:
                self.here.tracker.restore(entry.order)
                await self._limit(entry)
        await self.here.hypervisor.start(self._noticed)
        await self.mend()

    async def stop(self) -> None:
        """Work that runs is dropped where it is: it is found in the journal by whoever comes next."""
        await self.here.calls.stop()
        await self.here.hypervisor.stop()
        await self.here.journal.close()

    async def mend(self) -> None:
        """Finishes what was being taken back and did not get through; forgets the secrets of builds that ended."""
        await self.here.journal.tidy()
        for entry in self.here.journal.all():
            if entry.stage == "closing" and not self.here.calls.busy(entry.server_id):
                try:
                    async with self.here.locks(entry.server_id):
                        await self.here.clear(entry.server_id)
                except Exception as error:
                    log.warning("cannot be taken back yet", server=entry.server_id, why=str(error))

    # --- a server's way in ------------------------------------------------------------------------------------

    async def claim(self, order: BuildOrder) -> None:
        """Takes cpu, memory and disk, on disk before it answers. Raises Refused."""
        await self._builds.claim(order)

    async def prepare(self, server_id: str, epoch: int) -> tuple[Step, ...]:
        """Image and disks. Raises Refused, BuildFailed."""
        return await self._once(("prepare", server_id, str(epoch)), lambda: self._builds.prepare(server_id, epoch))

    async def spawn(self, order: SpawnOrder) -> Guest:
        """Domain, interfaces, wiring, running. Raises Refused, BuildFailed."""
        return await self._once(("spawn", order.server_id, str(order.epoch)), lambda: self._builds.spawn(order))

    async def abort(self, server_id: str, epoch: int) -> None:
        """Takes back everything of attempt `epoch` or lower; later calls of it are refused. Raises Refused if a later
        attempt is here."""
        await self._once(("abort", server_id, str(epoch)), lambda: self._builds.close(server_id, epoch))

    async def destroy(self, server_id: str, epoch: int) -> None:
        """As `abort`."""
        await self.abort(server_id, epoch)

    async def power(self, server_id: str, epoch: int, action: str) -> Guest:
        """Brings the guest to the state the action wants. Raises NotFound, BadRequest, Refused, BuildFailed."""
        if action not in ACTIONS:
            raise BadRequest(f"action: one of {', '.join(ACTIONS)} is wanted, not {action[:40]}.", field="action")
        return await self._once((action, server_id, str(epoch)), lambda: self._power.switch(server_id, epoch, action))

    async def console(self, server_id: str, lines: int | None) -> str:
        """The end of the serial console's log. Raises NotFound."""
        entry = self.here.journal.get(server_id)
        if entry is None or not entry.alive:
            raise NotFound(f"Server {server_id} is not on this host.")
        return await self.here.hypervisor.console(server_id, lines)

    async def inventory(self) -> tuple[Guest, ...]:
        """Every server of the journal, and guests of ours that it does not know (epoch 0, not claimed)."""
        guests = await self.here.hypervisor.guests()
        known = [e for e in self.here.journal.all() if e.alive]
        strays = sorted(set(guests) - {e.server_id for e in known})
        return (*(self.here.guest(e, guests) for e in known),
                *(Guest(server_id=s, epoch=0, power=guests[s], claimed=False) for s in strays))

    async def rewire(self, port_ids: tuple[str, ...]) -> None:
        """The wiring fetches and applies soon."""
        await self.here.wiring.rewire(port_ids)

    async def observe(self) -> None:
        """Tells of guests that are not as they were last known to be (also those whose event was lost)."""
        busy = {e.server_id for e in self.here.journal.all() if self.here.calls.busy(e.server_id)}
        known = dict(self.here.told)
        guests = await self.here.hypervisor.guests()
        for entry in self.here.journal.all():
            server, now = entry.server_id, guests.get(entry.server_id, "missing")
            if entry.stage != "running" or server in busy or self.here.calls.busy(server):
                continue  # whoever is at it will say how it ended
            if now == known.get(server) or known.get(server) != self.here.told.get(server):
                continue
            self.here.told[server] = now
            self.here.changed.set()
            if self._on_power is not None:
                await self._on_power(server, now)

    async def _limit(self, entry: Entry) -> None:
        """The limits of a server's interfaces, as before the restart. One that has none that we know, because an
        older release took its order, keeps no host from starting."""
        if entry.order is not None and entry.spawn is not None:
            try:
                await self.here.wiring.limit(rates(entry.order, [port.id for port in entry.spawn.ports]))
            except BuildFailed as error:
                log.error("a server runs without limits", server=entry.server_id, why=error.message)

    async def _noticed(self, server_id: str, power: str) -> None:
        """An event of the hypervisor: only a reason to look."""
        await self.observe()

