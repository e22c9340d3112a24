"""What goes wrong, as the seed says: kills, freezes, cuts, outages, full disks, and orders of another cloud."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from nacre.base.errors import NacreError
from nacre.base.rpc.server import Peer
from nacre.base.rpc.stub import stub
from nacre.node.contract import TARGET, EndOrder, Node
from tests.simulation.hosts import ELSEWHERE, Host, seen_more
from tests.simulation.loop import Process
from tests.simulation.network import Wire

if TYPE_CHECKING:
    from tests.simulation.world import Controller, World


class Weather:
    """All that goes wrong in one run."""

    def __init__(self, world: "World", seconds: float):
        self.world, self._seconds, self._dice = world, seconds, world.dice("faults")
        self._busy: set[object] = set()
        self._impostor = Wire(world.network, Peer("impostor", "control"), Process(world.loop, "impostor"))

    async def run(self) -> None:
        """Until it clears up."""
        dice, network = self._dice, self.world.network
        network.drop, network.double = dice.choice((0.0, 0.005, 0.03)), dice.choice((0.0, 0.03))
        network.late = dice.choice((0.0, 0.01, 0.04))
        kinds: list[tuple[Callable[[random.Random], Coroutine[Any, Any, None]], int]] = [
            (self._kill_control, 3), (self._freeze_control, 5), (self._kill_host, 4), (self._freeze_host, 3),
            (self._cut, 4), (self._lone, 2), (self._outage, 2), (self._flaky, 2), (self._full, 2), (self._impose, 3),
            (self._restored, 1)]
        faults = []
        for what in dice.choices([k for k, _ in kinds], [share for _, share in kinds], k=dice.randint(8, 18)):
            faults.append(self._at(dice.uniform(1.0, self._seconds * 0.9), what, random.Random(dice.random())))
        await asyncio.gather(*faults, asyncio.sleep(self._seconds))
        network.drop = network.double = network.late = 0.0
        self.world.history.add("world", "clears up")

    async def _at(self, moment: float, what: Callable[[random.Random], Coroutine[Any, Any, None]],
                  dice: random.Random) -> None:
        await asyncio.sleep(moment)
        await what(dice)

    async def _with(self, victim: Any, what: str, seconds: float, begin: Callable[[], Any],
                    end: Callable[[], Any]) -> None:
        """One thing at a time befalls a victim."""
        if victim in self._busy:
            return
        self._busy.add(victim)
        self.world.history.add(victim if isinstance(victim, str) else victim.name, what, f"for {seconds:.1f} s")
        begin()
        await asyncio.sleep(seconds)
        end()
        self._busy.discard(victim)

    async def _kill_control(self, dice: random.Random) -> None:
        victim: Controller = dice.choice(self.world.controls)
        await self._with(victim, "down", dice.uniform(0.2, 9.0), victim.kill, victim.start)

    async def _freeze_control(self, dice: random.Random) -> None:
        victim: Controller = dice.choice(self.world.controls)
        if (process := victim.process) is not None:
            await self._with(victim, "frozen", dice.uniform(1.0, 16.0), process.freeze, process.thaw)

    async def _kill_host(self, dice: random.Random) -> None:
        victim: Host = dice.choice((*self._used(), *self.world.hosts))
        await self._with(victim, "down", dice.choice((dice.uniform(0.2, 3.0), dice.uniform(3.0, 30.0))), victim.kill,
                         victim.start)

    async def _freeze_host(self, dice: random.Random) -> None:
        victim: Host = dice.choice((*self._used(), *self.world.hosts))
        if (process := victim.process) is not None:
            await self._with(victim, "frozen", dice.uniform(1.0, 30.0), process.freeze, process.thaw)

    async def _cut(self, dice: random.Random) -> None:
        """A control process and a host do not reach each other, or a control process and half of the hosts."""
        control = dice.choice(self.world.controls)
        hosts = dice.sample(self.world.hosts, dice.choice((1, 5, 10)))
        await self._sever([frozenset((control.name, host.name)) for host in hosts], dice.uniform(2.0, 30.0))

    async def _lone(self, dice: random.Random) -> None:
        """A host that nobody reaches."""
        host = dice.choice((*self._used(), *self.world.hosts))
        await self._sever([frozenset((c.name, host.name)) for c in self.world.controls], dice.uniform(2.0, 40.0))

    async def _sever(self, pairs: list[frozenset[str]], seconds: float) -> None:
        cuts, fresh = self.world.network.cuts, [pair for pair in pairs if pair not in self.world.network.cuts]
        self.world.history.add("network", f"cut for {seconds:.1f} s:", *("-".join(sorted(pair)) for pair in fresh))
        cuts.update(fresh)
        await asyncio.sleep(seconds)
        cuts.difference_update(fresh)

    async def _outage(self, dice: random.Random) -> None:
        """The database is away, for one control process or for all."""
        victims = dice.choice(([dice.choice(self.world.controls)], self.world.controls))
        await self._unreliable(victims, 1.0, dice.uniform(0.5, 10.0))

    async def _flaky(self, dice: random.Random) -> None:
        """Connections to the database break now and then; or its disk is full, which is the same to us."""
        await self._unreliable(self.world.controls, 0.15, dice.uniform(2.0, 10.0))

    async def _unreliable(self, victims: "list[Controller]", share: float, seconds: float) -> None:
        def put(share: float) -> None:
            for victim in victims:
                victim.way.share = share

        await self._with("database", f"{share:.0%} away", seconds, lambda: put(share), lambda: put(0.0))

    async def _full(self, dice: random.Random) -> None:
        """A host's disk is full."""
        victim: Host = dice.choice((*self._used(), *self.world.hosts))

        def put(full: bool) -> None:
            victim.full = full
            victim.faults.fail = {"prepare": 1000} if full else {}

        await self._with(f"{victim.name}'s disk", "full", dice.uniform(1.0, 15.0), lambda: put(True),
                         lambda: put(False))

    async def _impose(self, dice: random.Random) -> None:
        """A control process of another cloud, or of another database, orders the end of what it believes to know."""
        held = [(host, entry) for host in self.world.hosts for entry in host.manager.here.journal.all()]
        if not held:
            return
        host, entry = dice.choice(held)
        self.world.history.add("impostor", "orders the end of", entry.server_id, "on", host.name)
        node = stub(Node, self._impostor.client(TARGET).prepare(server=host.name, timeout=5))
        order = EndOrder(cloud=ELSEWHERE, allocation=entry.allocation, server_id=entry.server_id, epoch=entry.epoch + 1)
        try:
            await self._impostor.process.begin(node.end(order))
        except NacreError as error:
            self.world.history.add("impostor", "is refused:", error.message)

    async def _restored(self, dice: random.Random) -> None:
        """A host comes back and has seen later epochs than the database has; an operator accepts the database."""
        victim: Host = dice.choice((*self._used(), *self.world.hosts))
        if victim in self._busy:
            return
        self._busy.add(victim)
        victim.kill()
        more = await seen_more(victim)
        victim.start()
        if more:
            self.world.history.add(victim.name, "has seen more than the database")
            await asyncio.sleep(dice.uniform(1.0, 10.0))
            await self._accept(dice, victim)
        self._busy.discard(victim)

    async def _accept(self, dice: random.Random, host: Host) -> None:
        """An operator says so until the host works for this database."""
        while not (here := host.manager.here).met or here.barred:
            control = dice.choice(self.world.controls)
            if control.process is not None and control.ready:
                work = await control.process.ask(control.control.registry.accept(host.name), 10)
                if work is not None and work.exception() is None:
                    self.world.history.add("operator", "accepts", host.name)
            await asyncio.sleep(2)

    def _used(self) -> list[Host]:
        """Hosts with something to lose."""
        return [host for host in self.world.hosts if host.manager.here.journal.all()] * 3
