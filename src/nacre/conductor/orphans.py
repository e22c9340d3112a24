"""Guests that hosts have and the database does not know: it was restored, or is another one. They are kept until an
operator says what they are: a server (`adopt`), or nothing that anybody needs (`forget`)."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
import structlog
from msgspec import Meta

from nacre.base import bounds
from nacre.base.bounds import pieces
from nacre.base.context import Context
from nacre.base.errors import BadRequest, Conflict, NacreError, NotFound, Unavailable
from nacre.base.undo import Undo
from nacre.compute.contract import Adoption, LedgerAdmin
from nacre.conductor.contract import Adopted, AdoptWish, OrphanAt
from nacre.conductor.deps import StoryDeps
from nacre.conductor.endings import Endings
from nacre.network.contract import Plugged, PortsOrder
from nacre.node.contract import BuildOrder, Node, Orphan
from nacre.scheduler.contract import Allocation, Amounts, Held

log = structlog.get_logger()

#: Allocations of one look into the database.
AT_ONCE = 500
#: Bytes of one description.
MOST_BYTES = 1 << 20

_Least0 = Annotated[int, Meta(ge=0, le=1 << 30)]
_Least1 = Annotated[int, Meta(ge=1, le=1 << 30)]
_Texts = dict[bounds.Name, Annotated[str, Meta(max_length=65535)]]


@dataclass(frozen=True)
class OrphanDeps:
    """What more this needs than stories do. node: a client of a host; project_exists: whether the cloud has a project;
    meet: the host of that name is to say hello again."""

    admin: LedgerAdmin
    node: Callable[[str], Node]
    project_exists: Callable[[str], Awaitable[bool]]
    meet: Callable[[str], None]


class Orphans:
    """Implements `contract.Orphans`."""

    def __init__(self, deps: StoryDeps, endings: Endings, more: OrphanDeps):
        self._deps, self._endings, self._node, self._admin = deps, endings, more.node, more.admin
        self._project_exists, self._meet = more.project_exists, more.meet

    async def counts(self) -> dict[str, int]:
        return {host: len(held) for host, held in (await self._unknown(None)).items()}

    async def all(self, host: str | None = None) -> Sequence[OrphanAt]:
        if host is not None and await self._deps.registry.get(host) is None:
            raise NotFound(f"Compute host {host} could not be found.")
        found = []
        for name, held in sorted((await self._unknown(host)).items()):
            found += [OrphanAt(host=name, found=each, why=why) for each, why in await self._described(name, held)]
        return found

    async def adopt(self, context: Context, guest: str, wish: AdoptWish) -> Adopted:
        at = await self._find(guest, wish.host)
        if at.why:
            raise Conflict(f"Guest {guest} on {at.host} cannot be adopted: {at.why}.")
        found, order = at.found, at.found.order
        assert order is not None
        project = wish.project_id or order.guest.project_id
        if not await self._project_exists(project):
            raise BadRequest(f"There is no project {project}: name the one that the server shall belong to.",
                             field="project_id")
        adoption = Adoption(
            context=context, host=at.host, found=found, name=wish.name or order.guest.name, project_id=project,
            user_id=(order.guest.user_id if project == order.guest.project_id else context.user_id) or "",
            zone=(await self._deps.zones()).get(at.host, "nova"), amounts=amounts(order))
        async with Undo() as undo:
            # A guard: should another have adopted it at the same moment, its ports stay.
            undo.add(self._deps.network.deallocate, found.server_id, self._admin.unknown(found))
            plugged = await self._deps.network.adopt(
                PortsOrder(server_id=found.server_id, requests=(), hostname=order.guest.hostname,
                           context=msgspec.structs.replace(context, project_id=project),
                           availability_zone=adoption.zone, guard=self._admin.unknown(found)),
                await self._plugged(found, {order.guest.project_id, project}, project), at.host, wish.named)
            server = await self._admin.adopt(adoption)
        self._meet(at.host)
        log.warning("a guest was adopted", server=server.id, host=at.host, by=context.user_id)
        return Adopted(server=server, host=at.host, ports=plugged.ports, lost_groups=_lost(found, plugged))

    async def forget(self, guest: str, host: str = "") -> Allocation:
        at = await self._find(guest, host)
        state = await self._deps.registry.get(at.host)
        if state is not None and state.barred:
            raise Conflict(f"Host {at.host} takes no orders: {state.barred}.")
        order = at.found.order
        ending = await self._admin.forget(at.host, at.found, amounts(order) if order else Amounts(
            memory_mb=0, vcpus=0, disk_mb=0), sure=bool(host))
        log.warning("a guest is ended by an operator's word", server=at.found.server_id, host=at.host)
        self._endings.begin([ending])
        return ending

    async def _plugged(self, found: Orphan, own: Collection[str], project: str) -> Plugged:
        """What the host says of the guest's network; its own project's networks, and those of projects that are gone,
        become this one's."""
        networks = [msgspec.structs.replace(network, project_id=project) if network.project_id in own or not (
            await self._project_exists(network.project_id)) else network for network in found.networks]
        return Plugged(ports=found.ports, networks=tuple(networks))

    async def _find(self, guest: str, at: str) -> OrphanAt:
        """By its server's id, or its allocation's; at: of that host's, of which it must be one ("": of all). Raises
        NotFound, Conflict: there are several."""
        found = []
        for host, held in (await self._unknown(at or None)).items():
            if wanted := [each for each in held if guest in (each.server_id, each.allocation)]:
                found += [(host, each, why) for each, why in await self._described(host, wanted, asked=True)]
        if not found:
            raise NotFound(f"{f'Host {at} has no' if at else 'No host has a'} guest {guest} that is unknown here.")
        if len(found) > 1:
            raise Conflict(f"Several guests are {guest}: name one by its allocation, and its host, " + ", ".join(
                f"{each.allocation} on {host}" for host, each, _ in found) + ".")
        host, each, why = found[0]
        return OrphanAt(host=host, found=each, why=why)

    async def _unknown(self, host: str | None) -> dict[str, list[Held]]:
        """host -> what it said last that it has, and the database has no row of."""
        said = {state.report.host: state.report.held for state in await self._deps.registry.all()
                if state.report.held and host in (None, state.report.host)}
        ids = [each.allocation for held in said.values() for each in held]
        known = set[tuple[str, str]]()
        for some in pieces(ids, AT_ONCE):
            known |= {(a.id, a.host) for a in await self._deps.ledger.of(some)}
        unknown = {name: [each for each in held if (each.allocation, name) not in known] for name, held in said.items()}
        return {name: held for name, held in unknown.items() if held}

    async def _described(self, host: str, held: Collection[Held], *, asked: bool = False) -> list[tuple[Orphan, str]]:
        """What the host says of them now, and why they cannot be adopted ("": they can). What it does not have any more
        is left out; if it is silent its last word counts, unless it must be asked: raises Unavailable."""
        state = await self._deps.registry.get(host)
        try:
            found: Sequence[Orphan] = await self._node(host).describe(tuple(each.allocation for each in held))
        except NacreError as error:
            if asked:
                raise Unavailable(f"Host {host} does not answer.", details=str(error)) from None
            return [(Orphan(allocation=each.allocation, server_id=each.server_id, power=each.power, order=None,
                            epoch=each.epoch), "its host does not answer") for each in held]
        asked_for = {(each.allocation, each.server_id) for each in held}
        if strange := [each for each in found if (each.allocation, each.server_id) not in asked_for]:
            log.warning("a host describes what it was not asked for", host=host, server=strange[0].server_id[:64])
            found = [each for each in found if (each.allocation, each.server_id) in asked_for]
        barred = state.barred if state else ""
        return [(each, f"host {host} takes no orders: {barred}" if barred else wrong or why_not(each))
                for each, wrong in map(checked, found)]


def why_not(found: Orphan) -> str:
    """Why a guest cannot become a server; "": it can."""
    if found.order is None:
        return "its host's journal has lost it, so nobody knows its size and its ports"
    if found.stage != "running" or found.power == "missing":
        return f"it is no whole guest: its host has it as {found.stage}, {found.power}"
    return ""


def amounts(order: BuildOrder) -> Amounts:
    """What a server takes of its host, as the host was told."""
    return Amounts(memory_mb=order.memory_mb, vcpus=order.vcpus, disk_mb=order.disk_mb,
                   net_bandwidth=order.net_bandwidth, disk_bandwidth=order.disk_bandwidth,
                   disk_shares=order.disk_shares, disk=order.selected_dir)


def _lost(found: Orphan, plugged: Plugged) -> tuple[str, ...]:
    """The security groups that its ports had and have no more."""
    now = {group for port in plugged.ports for group in port.security_groups}
    return tuple(sorted({group for port in found.ports for group in port.security_groups} - now))


class _Guest(msgspec.Struct, frozen=True, kw_only=True):
    """What a host says of a guest, before anything is made of it: the sizes and texts that a server may have, which the
    database can hold."""

    name: Annotated[bounds.Name, Meta(min_length=1)]
    hostname: Annotated[str, Meta(max_length=255, pattern=r"^[a-zA-Z0-9._-]*\Z")]
    project_id: bounds.Short
    user_id: bounds.Short
    availability_zone: bounds.Name
    flavor_name: bounds.Name
    reservation_id: bounds.Version
    launch_index: _Least0
    keys: tuple[tuple[bounds.Name, bounds.Word, Annotated[str, Meta(max_length=65535)]], ...]
    security_groups: tuple[bounds.Name, ...]


class _Image(msgspec.Struct, frozen=True, kw_only=True):
    id: bounds.Id
    properties: _Texts


class _Order(msgspec.Struct, frozen=True, kw_only=True):
    """As in a `BuildOrder`: at least what a flavor has."""

    memory_mb: _Least1
    vcpus: _Least1
    root_gb: _Least0
    ephemeral_gb: _Least0
    swap_mb: _Least0
    disk_mb: _Least0
    net_bandwidth: _Least0
    disk_bandwidth: _Least0
    disk_shares: _Least0
    selected_dir: bounds.Name
    extra_specs: _Texts
    guest: _Guest
    image: _Image | None
    kernel: _Image | None
    ramdisk: _Image | None


class _Network(msgspec.Struct, frozen=True, kw_only=True):
    project_id: bounds.Short


def checked(found: Orphan) -> tuple[Orphan, str]:
    """The guest, and why what its host says of it counts for nothing ("": it counts): then only who it is stays."""
    try:
        _check(found)
    except ValueError as error:  # msgspec's, too
        return Orphan(allocation=found.allocation, server_id=found.server_id, power=found.power, order=None,
                      epoch=found.epoch, stage=found.stage), f"its host describes it wrongly: {str(error)[:300]}"
    return found, ""


def _check(found: Orphan) -> None:
    order = found.order
    if (size := len(msgspec.msgpack.encode(found))) > MOST_BYTES:
        raise ValueError(f"its description has {size} bytes, more than {MOST_BYTES}")
    _read(found.networks, tuple[_Network, ...])
    if order is None:
        return
    if (order.server_id, order.allocation, order.guest.id) != (found.server_id, found.allocation, found.server_id):
        raise ValueError("its order is that of another guest")
    for id in (found.server_id, found.allocation):
        if str(UUID(id)) != id:
            raise ValueError(f"{id!r} is not a UUID")
    _read(order, _Order)
    if order.guest.created_at:
        datetime.fromisoformat(order.guest.created_at)


def _read(said: Any, kind: Any) -> None:
    msgspec.convert(said, kind, from_attributes=True)
