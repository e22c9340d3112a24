"""The network service behind its contract: each verb is one unit of work, then a word to the hosts it concerns."""

from collections.abc import Callable
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from nacre.base.clock import Clock
from nacre.base.context import Context, service_context
from nacre.base.db import Database, statements
from nacre.base.errors import BuildFailed, Conflict
from nacre.identity.contract import Policy
from nacre.network import tables as t
from nacre.network.contract import AgentReport, HostWiring, Plugged, PortFacts, PortsOrder
from nacre.network.hosts import agents, dhcp, heartbeats, notices, servers, wiring
from nacre.network.work import NetworkSettings, Work

T = TypeVar("T")


class NetworkManager:
    """Implements `contract.Network`. notify: tells a set of hosts that these ports' wiring changed."""

    def __init__(self, db: Database, policy: Policy, clock: Clock, settings: NetworkSettings | None = None,
                 notify: notices.Notify | None = None):
        self.db, self.policy, self.clock = db, policy, clock
        self.settings = settings or NetworkSettings()
        self._notices = notices.Notices(notify)
        self.heartbeats = heartbeats.Heartbeats(db, clock, self.settings.agent_down_after)

    def _work(self, conn: sa.Connection, context: Context) -> Work:
        return Work(conn, context, self.clock.now().replace(tzinfo=None), self.settings)

    async def read(self, context: Context, step: Callable[[Work], T]) -> T:
        """One consistent read."""
        return await self.db.read(lambda conn: step(self._work(conn, context)))

    async def write(self, context: Context, step: Callable[[Work], T]) -> T:
        """One transaction; after it, the hosts that are concerned are told."""
        def unit(conn: sa.Connection) -> tuple[T, notices.Affected]:
            work = self._work(conn, context)
            result = step(work)
            if not work.changes:
                return result, {}
            for network_id in work.changes.subnets:
                dhcp.sync(work, network_id)
            return result, notices.affected(work)

        try:
            result, hosts = await self.db.run(unit)
        except IntegrityError as error:
            raise Conflict("The request conflicts with one made at the same time, or with what refers to the resource. "
                           "Try again.", type="Conflict") from error
        self._notices.add(hosts)
        return result

    async def check(self, order: PortsOrder, count: int) -> None:
        await self.read(order.context, lambda work: servers.check(work, order, count))

    async def plug(self, order: PortsOrder, host: str) -> Plugged:
        plugged, failed = await self.write(order.context, lambda work: servers.plug(work, order, host))
        if failed:
            raise BuildFailed(f"Binding failed for port {', '.join(failed)} on host {host}: its network agent is not "
                              "alive, or does not reach the network.", type="PortBindingFailed")
        return plugged

    async def unbind(self, server_id: str, host: str) -> None:
        await self.write(service_context(), lambda work: servers.unbind(work, server_id, host))

    async def deallocate(self, server_id: str) -> None:
        await self.write(service_context(), lambda work: servers.deallocate(work, server_id))

    async def ports_of(self, server_ids: tuple[str, ...]) -> dict[str, tuple[PortFacts, ...]]:
        if not server_ids:
            return {}
        found = await self.read(service_context(), lambda work: servers.of_servers(work, server_ids))
        return {server_id: found.get(server_id, ()) for server_id in server_ids}

    async def group_names(self, group_ids: tuple[str, ...]) -> dict[str, str]:
        g = t.security_groups.c
        rows = await self.db.read(lambda c: c.execute(sa.select(g.id, g.name).where(g.id.in_(group_ids))).all())
        return {row.id: row.name for row in rows}

    async def wiring(self, host: str, port_ids: tuple[str, ...] = ()) -> HostWiring:
        return await self.read(service_context(), lambda work: wiring.read(work, host, port_ids))

    async def wired(self, host: str, port_ids: tuple[str, ...], up: bool) -> None:
        status = "ACTIVE" if up else "DOWN"

        def step(work: Work) -> None:
            # Only the host that the port is bound to may say so.
            statements.update(work.conn, t.ports, {"status": status, "updated_at": work.now}, id=port_ids, host=host,
                              status="DOWN" if up else "ACTIVE")

        await self.write(service_context(), step)

    async def agent_report(self, report: AgentReport) -> None:
        if self.heartbeats.repeated(report):
            return

        def step(work: Work) -> set[str]:
            return agents.with_tunnels(work, report.host) if agents.report(work, report) else set()

        others = await self.write(service_context(), step)
        self.heartbeats.written(report)
        # A new host or tunnel address: every other host with ports builds a tunnel to it; one without does with its
        # first port.
        self._notices.add({host: set[str]() for host in others})
