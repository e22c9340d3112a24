"""What a node asks of its network side, real (`agent.OvsAgent`) or simulated (`fake.FakeWiring`)."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from nacre.network.contract import AgentReport, Differences, NetworkFacts, PortFacts
from nacre.node.servers.limits import Rate


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """trusted: this host's cloud and its database are of one mind; else nothing that is wired may change for their
    word. n: of the last change to this host's wiring: what is older here is fetched anew. era: of the database: where
    it is another than any before ("": not said), everything is fetched anew. members, placed: numbers of groups whose
    members changed, of networks whose ports did; routing: of the last change of what is routed here (0: none that was
    not heard of). ports, networks: of guests that the database does not know; they stay
    wired here, but no other host takes frames of them by a tunnel (docs/operations.md)."""

    trusted: bool
    n: int = 0
    era: str = ""
    members: dict[str, int] = {}
    placed: dict[str, int] = {}
    routing: int = 0
    ports: tuple[PortFacts, ...] = ()
    networks: tuple[NetworkFacts, ...] = ()


class Wiring(Protocol):
    """The network of one host's guests. Every verb may be repeated without harm."""

    async def start(self) -> None:
        """Bridges, services and what is wanted of this host already; then the loop that mends drift."""
        ...

    async def stop(self) -> None:
        """Ends the loop. Flows, namespaces and helpers stay: guests keep their network."""
        ...

    async def limit(self, rates: Mapping[str, Rate]) -> None:
        """How fast these ports may be, from their next wiring on and until they are unwired."""
        ...

    async def wire(self, ports: Sequence[PortFacts], networks: Sequence[NetworkFacts]) -> None:
        """Makes these ports work. Their interfaces exist on the integration bridge (external_ids iface-id = port id)
        and their guest does not run yet: when this returns every flow is in place. While no control process can be
        asked it waits; who ordered it decides for how long. Raises BuildFailed."""
        ...

    async def unwire(self, port_ids: Sequence[str]) -> None:
        """These ports are no longer here."""
        ...

    async def rewire(self, port_ids: Sequence[str], n: int = 0, before: int = 0) -> None:
        """Something about these ports (none named: anything) changed: fetched and applied soon; does not wait. n,
        before: as in `node.contract.Node.rewire`."""
        ...

    async def differ(self, news: Differences) -> None:
        """As `node.contract.Node.differ`. Applied soon; does not wait."""
        ...

    def versions(self) -> tuple[dict[str, int], dict[str, int], int]:
        """Up to which change the members of each security group are known here, the ports of each network, and what is
        routed."""
        ...

    async def follow(self, standing: Standing) -> None:
        """How far the network service is to be believed, from now on. Until the first time nothing is fetched, and what
        is wired stays as it is."""
        ...

    def report(self) -> AgentReport:
        """What the agent says of itself, for binding."""
        ...
