"""The network service behind its contract: each verb is one unit of work, then messages to the hosts it concerns."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from nacre.base.clock import Clock
from nacre.base.context import Context, service_context
from nacre.base.db import Database
from nacre.base.db.together import Together
from nacre.base.durable.processes import Guard
from nacre.base.errors import BadRequest, BuildFailed, Conflict
from nacre.identity.contract import Policy
from nacre.network import tables as t
from nacre.network.contract import (
    AgentReport,
    Differences,
    GroupMembers,
    Have,
    HostWiring,
    Named,
    Plugged,
    PortFacts,
    PortsOrder,
    Versions,
)
from nacre.network.hosts import adoption, agents, bindings, dhcp, notifications, placed, servers, wiring
from nacre.network.hosts.members import Page
from nacre.network.hosts.notifications import DifferenceNotifier, News, Notice, Notifier, Thing
from nacre.network.hosts.routing import RoutingVerbs
from nacre.network.hosts.wholes import FIRST, PAGE, InTurn, Shared
from nacre.network.l3 import gateway_hosts, statuses
from nacre.network.l3.gateway_hosts import Elections
from nacre.network.ml2 import manager as drivers
from nacre.network.ml2 import type_drivers
from nacre.network.nouns.agent import Agent
from nacre.network.nouns.port import Binding
from nacre.network.work import NetworkSettings, ProjectOf, Work

T = TypeVar("T")
Nodes = Callable[[sa.Connection, Collection[str]], Collection[str]]


@dataclass(frozen=True)
class NetworkParts:
    """What the service is given. notify, tell: messages to a host, of its ports and of what many hosts keep; only speed
    depends on them. record: as `notifications.record`. project_of: of a server. nodes: those of these names that
    are hosts of the cloud."""

    notify: Callable[[Notice], Awaitable[None]] | None = None
    tell: Callable[[News], Awaitable[None]] | None = None
    record: Callable[[Work, Collection[str]], tuple[int, Mapping[str, int]]] = notifications.record
    project_of: ProjectOf = lambda *_: None
    nodes: Nodes = lambda _, names: names


class NetworkManager(RoutingVerbs):
    """Implements `contract.Network`."""

    def __init__(self, db: Database, policy: Policy, clock: Clock, settings: NetworkSettings | None = None,
                 parts: NetworkParts | None = None):
        self.db, self.policy, self.clock = db, policy, clock
        self.settings, self._parts = settings or NetworkSettings(), parts or NetworkParts()
        type_drivers.require(self.settings.types.tenant_types)
        drivers.load(self.settings.drivers)  # whether there are such, before the first port asks
        self._notifier = Notifier[Notice](self._parts.notify)
        self.difference_notifier = DifferenceNotifier(db, clock, self._parts.tell)
        self.elections = Elections(self, clock, self.settings.agent_down_after)
        self.shared, self._large = Shared(clock), InTurn(clock)
        self.heartbeats = agents.Heartbeats(db, clock, self.settings.agent_down_after)
        self._reports = Together[agents.Report, BadRequest | None](partial(_hear, self, self._parts.nodes))

    def _work(self, conn: sa.Connection, context: Context) -> Work:
        return Work(conn, context, self.clock, self.settings, self.policy, self._parts.project_of,
                    heard=self.heartbeats.heard)

    async def read(self, context: Context, step: Callable[[Work], T]) -> T:
        """One consistent read."""
        return await self.db.read(lambda conn: step(self._work(conn, context)))

    async def write(self, context: Context, step: Callable[[Work], T], guard: Guard | None = None) -> T:
        """One transaction, in which the guard stands; after it, messages to the hosts that it concerns."""
        def unit(conn: sa.Connection) -> tuple[T, list[Notice], dict[Thing, int], set[str]]:
            if guard is not None:
                guard.check(conn)
            work = self._work(conn, context)
            result = step(work)
            for network_id in work.changes.subnets:
                dhcp.sync(work, network_id)
            work.count()
            hosts = notifications.affected(work) if work.changes else {}
            n, before = self._parts.record(work, hosts) if hosts else (0, {})
            return result, [Notice(host, frozenset(ports), n, before.get(host, 0))
                            for host, ports in hosts.items()], notifications.note(work), work.changes.routers

        try:
            result, told, differ, routers = await self.db.run(unit)
        except IntegrityError as error:
            raise Conflict("The request conflicts with one made at the same time, or with what refers to the resource. "
                           "Try again.", type="Conflict") from error
        self._notifier.add(told)
        self.difference_notifier.add(differ)
        self.elections.due |= routers
        return result

    async def check(self, order: PortsOrder, count: int, least: int = 0) -> int:
        return await self.read(order.context, lambda work: servers.check(work, order, count, least or count))

    async def plug(self, order: PortsOrder, host: str) -> Plugged:
        plugged, failed = await self.write(order.context, lambda work: servers.plug(work, order, host), order.guard)
        if failed:  # after the commit: that they failed is written down
            raise _unbindable(failed, host)
        return plugged

    async def adopt(self, order: PortsOrder, found: Plugged, host: str, named: Named = Named()) -> Plugged:
        def step(work: Work) -> Plugged:
            plugged, failed = adoption.adopt(work, order, found, host, named)
            if failed:
                raise _unbindable(failed, host)
            return plugged

        return await self.write(order.context, step, order.guard)

    async def bind(self, server_id: str, host: str, guard: Guard | None = None) -> Plugged:
        def step(work: Work) -> Plugged:
            plugged, failed = servers.bind(work, server_id, host)
            if failed:
                raise _unbindable(failed, host)
            return plugged

        return await self.write(service_context(), step, guard)

    async def activate(self, server_id: str, host: str, guard: Guard | None = None) -> None:
        await self.write(service_context(), lambda work: servers.activate(work, server_id, host), guard)

    async def unbind(self, server_id: str, host: str, guard: Guard | None = None) -> None:
        await self.write(service_context(), lambda work: servers.unbind(work, server_id, host), guard)

    async def deallocate(self, server_id: str, guard: Guard | None = None) -> None:
        await self.write(service_context(), lambda work: servers.deallocate(work, server_id), guard)

    async def ports_of(self, server_ids: tuple[str, ...]) -> dict[str, tuple[PortFacts, ...]]:
        if not server_ids:
            return {}
        found = await self.read(service_context(), lambda work: servers.of_servers(work, server_ids))
        return {server_id: found.get(server_id, ()) for server_id in server_ids}

    async def group_names(self, group_ids: tuple[str, ...]) -> dict[str, str]:
        g = t.security_groups.c
        rows = await self.db.read(lambda c: c.execute(sa.select(g.id, g.name).where(g.id.in_(group_ids))).all())
        return {row.id: row.name for row in rows}

    async def wiring(self, host: str, port_ids: tuple[str, ...] = (), have: Versions | None = None,
                     known: Have | None = None) -> HostWiring:
        some = port_ids and known is not None  # a build waits for them, and a page is all that they are answered with
        async with nullcontext() if some else self._large.turn(host):
            return await self.read(service_context(), lambda work: wiring.read(
                work, host, port_ids, known, Page(self.shared, FIRST, least=False))
                if known is not None else wiring.read_of_before(work, host, port_ids, have))

    async def differences(self, host: str, groups: tuple[str, ...], networks: tuple[str, ...],
                          known: Have) -> Differences:
        async with self._large.turn(host):
            return await self.db.read(lambda conn: wiring.differences(
                conn, host, (groups, networks), known, Page(self.shared, PAGE, least=True)))

    async def members(self, host: str, groups: tuple[str, ...], have: Versions) -> tuple[GroupMembers, ...]:
        async with self._large.turn(host):
            return await self.read(service_context(), lambda work: wiring.members_of_before(work, host, groups, have))

    async def wired(self, host: str, port_ids: tuple[str, ...], up: bool) -> None:
        await self.write(service_context(), lambda work: bindings.wired(work, host, port_ids, up))

    async def forget_host(self, host: str) -> None:
        """What the host's agents said of themselves is gone."""
        def step(work: Work) -> None:
            work.changes.hosts.update(placed.tunnels(work.conn, host))
            work.conn.execute(sa.delete(t.agents).where(t.agents.c.host == host))
            statuses.moved(work, [b.port_id for b in work.select(Binding, host=host, active=True)])
            gateway_hosts.forget(work, host)

        await self.write(service_context(), step)
        self.heartbeats.forget([host])

    async def heard_lately(self, host: str) -> bool:
        """Whether any control process heard one of the host's agents, within the time after which it is down."""
        return await self.read(service_context(), lambda work: any(
            agents.alive(work, agent) for agent in work.select(Agent, host=host)))

    async def agent_report(self, report: AgentReport) -> None:
        said = self.heartbeats.parsed(report)
        if not self.heartbeats.repeated(said) and (refusal := await self._reports(said)):
            raise refusal


async def _hear(manager: NetworkManager, nodes: Nodes, some: Sequence[agents.Report]) -> list[BadRequest | None]:
    """Reports that are news to this process. Of the same host the last counts. Why one is refused is for its host
    alone: the others' are written. Of a host that was removed meanwhile nothing is."""
    latest = {said.host: said for said in some}
    known = await manager.read(service_context(), lambda work: agents.fresh(
        work, latest.values(), manager.heartbeats.period))
    news = [said for host, said in latest.items() if host not in known]

    def step(work: Work) -> tuple[dict[str, BadRequest], set[str]]:
        here = set(nodes(work.conn, [said.host for said in news]))
        counts = [said for said in news if said.host in here]
        refused = agents.claimed(work, counts)
        for host in agents.report(work, [said for said in counts if said.host not in refused]):
            # Hosts that share networks with this one reach it by what it says now.
            work.changes.hosts.update(placed.tunnels(work.conn, host))
        return refused, {said.host for said in news} - here

    refused, gone = await manager.write(service_context(), step) if news else ({}, set())
    manager.heartbeats.forget(gone)
    for host, said in latest.items():
        if host not in refused and host not in gone:
            manager.heartbeats.written(said, known.get(host, 0.0))
    return [refused.get(said.host) for said in some]


def _unbindable(port_ids: list[str], host: str) -> BuildFailed:
    return BuildFailed(f"Binding failed for port {', '.join(port_ids)}.", type="PortBindingFailed", details=(
        f"The network agent of host {host} is not alive, or does not reach the network."))
