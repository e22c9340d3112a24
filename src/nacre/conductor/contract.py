"""What others may ask of the conductor: hosts say what they have, and what is planned can be asked."""

from collections.abc import Sequence
from typing import Annotated, Protocol

import msgspec

from nacre.base import bounds
from nacre.base.context import Context
from nacre.base.rpc.codec import latest
from nacre.base.rpc.target import Target
from nacre.compute.contract import Server, StoryOrder
from nacre.network.contract import AgentReport, Named, Numbers, PortFacts
from nacre.node.contract import GuestFacts, Orphan
from nacre.scheduler.contract import Allocation, HostReport, Placement

TARGET = Target(topic="control", namespace="conductor", version="2.0")


class WorkState(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of work in a host's beat."""

    server_id: bounds.Id
    verb: bounds.Short
    step: bounds.Short
    moved: bounds.Count
    total: bounds.Count


class Beat(msgspec.Struct, frozen=True, kw_only=True):
    """A host's regular word to every control process: the truth about it, so that what was lost before is mended. It is
    numbered by its report. members, placed: up to which change it knows those of security groups, and the ports of
    networks, in turns where they are too many; routing: what it routes (None: it does not say). wrong: of what was left
    out where it was read, as it breaks this contract: by its place, why."""

    report: HostReport
    agent: AgentReport
    works: Annotated[tuple[WorkState, ...], msgspec.Meta(max_length=10_000)] = ()
    members: Numbers = {}
    placed: Numbers = {}
    routing: bounds.Count | None = None
    wrong: Annotated[dict[bounds.Name, bounds.Name], msgspec.Meta(max_length=100)] = {}

    @property
    def host(self) -> str:
        return self.report.host


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """again: say hello, as this process does not know the host. wiring: the number of the last change to its wiring;
    members, placed: of security groups, and of networks, that changed later than the host knows, the number of the last
    change; routing: that of the last change of what it routes, if it does not know it; position, era:
    how far the database is; refused: why the network agent's report does not count; wrong: as of the beat;
    period: regular beats shall be so many seconds apart, at least."""

    again: bool = False
    wiring: int = 0
    members: dict[str, int] = {}
    placed: dict[str, int] = {}
    routing: int = 0
    position: int = 0
    era: str = ""
    refused: str = ""
    wrong: dict[str, str] = {}
    period: float = 0.0


class NodeHello(msgspec.Struct, frozen=True, kw_only=True):
    """A host's first word to a control process. endpoint, public_key: where it listens. cloud: which it joined, "" for
    none yet; position, era: how far it has seen that cloud's database; journal: names its memory, another means it lost
    it. version: its release."""

    endpoint: bounds.Name
    public_key: bounds.Short
    journal: bounds.Short
    cloud: bounds.Short
    position: bounds.Count
    beat: Beat
    era: bounds.Short = ""
    version: bounds.Version = ""

    @property
    def host(self) -> str:
        return self.beat.host


class ControlAddress(msgspec.Struct, frozen=True):
    """A control process that hosts speak to."""

    id: str
    address: str
    public_key: str


class Welcome(msgspec.Struct, frozen=True, kw_only=True):
    """cloud, position, era: whose orders these are, and how far its database is. older: it lacks what the hello says
    that the host has seen, or an epoch of something that the host has: nothing is done until an operator says which
    database is right. accepted: this one is. orphans: what the host has and the database does not know. controls: all
    that there are to speak to. refused, wrong: as in `Heard`."""

    cloud: str
    position: int
    era: str = ""
    older: bool = False
    accepted: bool = False
    orphans: tuple[str, ...] = ()
    controls: tuple[ControlAddress, ...] = ()
    refused: str = ""
    wrong: dict[str, str] = {}


class OrphanAt(msgspec.Struct, frozen=True, kw_only=True):
    """A guest that a host has and the database does not know. why: it cannot be adopted ("": it can)."""

    host: str
    found: Orphan
    why: str


class AdoptWish(msgspec.Struct, frozen=True, kw_only=True):
    """What an adopted server shall be called, and whose it shall be; "": as it was. host: where its guest is ("": on
    the only one that has it). named: as the network's `adopt` takes it."""

    name: str = ""
    project_id: str = ""
    host: str = ""
    named: Named = Named()


class Adopted(msgspec.Struct, frozen=True, kw_only=True):
    """ports: those that it has. lost_groups: security groups that they were in, and that are not there any more."""

    server: Server
    host: str
    ports: tuple[PortFacts, ...] = ()
    lost_groups: tuple[str, ...] = ()


class Conductor(Protocol):
    """Stories across services, and the hosts that they are about."""

    @latest
    async def hello(self, hello: NodeHello) -> Welcome:
        """A host started, or meets this process for the first time."""
        ...

    @latest
    async def beat(self, beat: Beat) -> Heard:
        """A host's totals, usage, guests and works: also its heartbeat."""
        ...

    async def guest_facts(self, host: bounds.Name, server_id: bounds.Id) -> GuestFacts:
        """For the metadata service of the host the server is on. Raises NotFound for any other."""
        ...


class Planner(Protocol):
    """What compute asks in the same process."""

    async def plan(self, order: StoryOrder, servers: tuple[Server, ...]) -> tuple[Placement, ...]:
        """Where these servers, which need not exist, would be placed now. Changes nothing. Raises BadRequest."""
        ...


class Orphans(Protocol):
    """What operators do with guests that hosts have and the database does not know. A guest is named by its server's
    id, or its allocation's."""

    async def counts(self) -> dict[str, int]:
        """host -> how many it has, by its last report; hosts without are left out."""
        ...

    async def all(self, host: str | None = None) -> Sequence[OrphanAt]:
        """Those of the host, or of all, as their hosts describe them now. Raises NotFound."""
        ...

    async def adopt(self, context: Context, guest: str, wish: AdoptWish) -> Adopted:
        """The guest is a server again, as it runs. Raises NotFound, Conflict, BadRequest, Unavailable."""
        ...

    async def forget(self, guest: str, host: str = "") -> Allocation:
        """The guest may go: its host ends it, now or when it is back. host: whose it is; it must be named for a guest
        of a server that lives on another. Raises NotFound, Conflict, Unavailable."""
        ...


class Removal(Protocol):
    """The end of a host's membership."""

    async def remove(self, host: str, *, dead: bool = False) -> None:
        """Its key opens nothing any more, and it is not known. What runs there runs on. dead: the operator says that
        the machine is gone for good, so what was ending there has ended. Raises NotFound; Conflict: it has allocations,
        or is said to be dead and lives."""
        ...
