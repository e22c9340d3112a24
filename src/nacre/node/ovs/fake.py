"""A network side without a network: the same verbs, no root, faults as parameters."""

from collections.abc import Sequence

import msgspec

from nacre.base.clock import Clock, RealClock
from nacre.base.errors import BuildFailed
from nacre.network.contract import AgentReport, Network, NetworkFacts, PortFacts


class WiringFaults(msgspec.Struct, kw_only=True):
    """delay: seconds each `wire` takes; fail: how many of the next calls fail; refuse: ports that never work."""

    delay: float = 0.0
    fail: int = 0
    refuse: set[str] = set()


class FakeWiring:
    """Wires in memory: `up` is the set of ports that work."""

    def __init__(self, host: str, network: Network, *, faults: WiringFaults | None = None, clock: Clock | None = None,
                 report: AgentReport | None = None):
        self.host, self.network, self.faults = host, network, faults or WiringFaults()
        self.clock = clock or RealClock()
        self.up: set[str] = set()
        self.rewired: list[tuple[str, ...]] = []
        self._report = report or AgentReport(host=host, tunnel_ip="192.0.2.1", bridge_mappings={"public": "br-ex"},
                                             tunnel_types=("vxlan",))

    async def start(self) -> None:
        """Nothing to start."""

    async def stop(self) -> None:
        """Nothing to stop."""

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
        wiring = await self.network.wiring(self.host, ids)
        missing = (set(ids) - {port.id for port in wiring.ports}) | self.faults.refuse & set(ids)
        if missing:
            raise BuildFailed(f"port {min(missing)} is not for this host or has lost its interface")
        if fresh := tuple(port for port in ids if port not in self.up):
            self.up.update(fresh)
            await self.network.wired(self.host, fresh, True)

    async def unwire(self, port_ids: Sequence[str]) -> None:
        """The ports are gone."""
        self.up -= set(port_ids)

    async def rewire(self, port_ids: Sequence[str]) -> None:
        """Remembered in `rewired`."""
        self.rewired.append(tuple(port_ids))

    def report(self) -> AgentReport:
        """For binding."""
        return self._report
