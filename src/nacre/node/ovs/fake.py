"""A network side without a network: the same verbs, no root, faults as parameters."""

import asyncio
import ipaddress
import zlib
from collections.abc import Mapping, Sequence

import msgspec
import structlog

from nacre.base.clock import Clock, RealClock
from nacre.base.errors import BuildFailed
from nacre.network.contract import (
    DIFFERENCES,
    AgentReport,
    Differences,
    Network,
    NetworkFacts,
    PortFacts,
    Routing,
    Served,
)
from nacre.node.ovs.client import PATIENCE, ControlAway, Pauses, WiringClient, reached
from nacre.node.ovs.contract import Standing
from nacre.node.servers.limits import Rate

log = structlog.get_logger()


class WiringFaults(msgspec.Struct, kw_only=True):
    """delay: seconds each `wire` takes; fail: how many of the next calls fail; refuse: ports that never work."""

    delay: float = 0.0
    fail: int = 0
    refuse: set[str] = set()


def _address(host: str) -> str:
    """An address of the host's own: no two hosts may claim the same."""
    return str(ipaddress.ip_address("10.0.0.0") + zlib.crc32(host.encode()) % (1 << 24))


#: What a simulated host says that it has.
AGENTS = ("Open vSwitch agent", "DHCP agent", "Metadata agent", "L3 agent")


def served(routing: Routing, host: str) -> Served:
    """What a host serves that has all that it is told to route."""
    up = [router for router in routing.routers if router.up]
    mine = [router for router in up if router.gateway and router.gateway.host == host]
    return Served(
        routers=tuple(router.id for router in up),
        gateways={router.id: router.gateway.term for router in mine if router.gateway},
        floating=tuple(each.id for each in routing.floating if each.router_id in {router.id for router in up})
        + tuple({each.floating_id: None for router in mine for each in router.forwardings}))


class FakeWiring:
    """Wires in memory: `up` is the set of ports that work; `served` is what it said that it routes."""

    def __init__(self, host: str, network: Network, *, faults: WiringFaults | None = None, clock: Clock | None = None,
                 report: AgentReport | None = None):
        self.host, self.network, self.faults = host, network, faults or WiringFaults()
        self.clock = clock or RealClock()
        self.up: set[str] = set()
        self.rates: dict[str, Rate] = {}
        self.rewired: list[tuple[str, ...]] = []
        self.client = WiringClient(host, network, self.clock)
        self.served, self._said = Served(), self.client.routing
        self._waiting: list[tuple[frozenset[str], asyncio.Future[None]]] = []
        self._behind = False
        self._soon: asyncio.Task[None] | None = None
        self._round: asyncio.Task[None] | None = None
        self._report = report or AgentReport(host=host, tunnel_ip=_address(host), bridge_mappings={"public": "br-ex"},
                                             tunnel_types=("vxlan",), takes=(DIFFERENCES,),
                                             agents=AGENTS)

    async def start(self) -> None:
        """Nothing to start."""

    async def stop(self) -> None:
        """Nothing is asked any more."""
        if self._soon is not None:
            self._soon.cancel()

    async def limit(self, rates: Mapping[str, Rate]) -> None:
        """Kept, for whoever wants to see."""
        self.rates |= rates

    async def wire(self, ports: Sequence[PortFacts], networks: Sequence[NetworkFacts]) -> None:
        """The ports work, unless a fault says otherwise. Raises BuildFailed."""
        ids = tuple(sorted(port.id for port in ports))
        if not ids:
            return
        if self.faults.delay:
            await self.clock.sleep(self.faults.delay)
        if self.faults.fail > 0:
            self.faults.fail -= 1
            raise BuildFailed(f"wiring on {self.host} failed: a fault was asked for")
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((frozenset(ids), future))
        self._begin()
        await future

    def _begin(self) -> None:
        if self._round is None or self._round.done():
            self._round = asyncio.create_task(self._rounds())

    async def _rounds(self) -> None:
        """As the real agent's: who comes while one is under way is served together by the next."""
        pauses = Pauses(self.host)
        while self._waiting or self._behind:
            waiting, self._waiting, self._behind = self._waiting, [], False
            ids, fresh = frozenset[str]().union(*(ports for ports, _ in waiting)), tuple[str, ...]()
            try:
                self.client.asked |= ids
                await self.client.ask()
                if self._said is not self.client.routing:
                    await self._serve()
                there = self.client.desired.ports.keys() - self.faults.refuse
                if fresh := tuple(sorted((there & ids) - self.up)):
                    self.up.update(fresh)
                    await reached(self.network.wired(self.host, fresh, True))
            except ControlAway as error:  # as the real agent's: a build waits
                self.up -= set(fresh)
                log.warning("the network service cannot be asked", host=self.host, why=str(error))
                self._waiting = [(ports, future) for ports, future in waiting if not future.done()] + self._waiting
                await self.clock.sleep(pauses.after(error))
                continue
            except Exception as error:
                there = set()
                self.client.asked.clear()
                log.warning("wiring failed", host=self.host, why=repr(error))
            pauses.over()
            for ports, future in waiting:
                if future.done():
                    continue
                if missing := ports - there:
                    future.set_exception(BuildFailed(
                        f"port {min(missing)} is not for this host or has lost its interface"))
                else:
                    future.set_result(None)

    async def _serve(self) -> None:
        """All that is routed works, and what was is over. Said anew of each answer: what works as before may have been
        written down as over meanwhile. What cannot be said now is with the next."""
        known = self.client.routing
        before, self.served = self.served, served(known, self.host)
        lost = Served(gateways={router: term for router, term in before.gateways.items()
                                if self.served.gateways.get(router) != term},
                      floating=tuple(each for each in before.floating if each not in self.served.floating))
        try:
            for said, up in ((lost, False), (self.served, True)):
                if said != Served():
                    await self.network.routed(self.host, said, up)
            self._said = known
        except Exception as error:
            log.warning("what is routed cannot be told", host=self.host, why=repr(error))

    async def unwire(self, port_ids: Sequence[str]) -> None:
        """The ports are gone."""
        self.up -= set(port_ids)
        self.client.forget(port_ids)
        self.rates = {port: rate for port, rate in self.rates.items() if port not in set(port_ids)}

    async def rewire(self, port_ids: Sequence[str], n: int = 0, before: int = 0) -> None:
        """Remembered in `rewired`, and fetched with what is fetched next."""
        self.rewired.append(tuple(port_ids))
        self.client.changed(port_ids, n, before)

    async def differ(self, news: Differences) -> None:
        """As the real one: what does not join on is asked for."""
        self.client.differ(news)
        self._wait()

    def versions(self) -> tuple[dict[str, int], dict[str, int], int]:
        """For beats."""
        return self.client.versions()

    async def follow(self, standing: Standing) -> None:
        """What is lacking is fetched soon."""
        if self.client.follow(standing):
            self._catch_up()
        else:
            self._wait()

    @property
    def standing(self) -> Standing:
        """As last heard."""
        return self.client.standing

    def _wait(self) -> None:
        """What is lacking may be under way."""
        if self._soon is None or self._soon.done():
            self._soon = asyncio.create_task(self._later())

    async def _later(self) -> None:
        await self.clock.sleep(1.01 * PATIENCE)
        self._catch_up()

    def _catch_up(self) -> None:
        if self.standing.trusted and (self.client.overdue() or self.client.whole or any(self.client.outdated())
                                      or self.client.routing_outdated() or self._said is not self.client.routing):
            self._behind = True
            self._begin()

    def report(self) -> AgentReport:
        """For binding."""
        return self._report
