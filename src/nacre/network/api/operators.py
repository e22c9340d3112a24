"""What operators look at: agents, availability zones, how full networks are."""


from collections import defaultdict
from collections.abc import Sequence

import sqlalchemy as sa

from nacre.base.errors import BadRequest, NotBuilt
from nacre.base.serving.gate import AUTHENTICATED, Gate
from nacre.base.web import Reply, Request, Route
from nacre.network import tables as t
from nacre.network.addresses import ipam
from nacre.network.api import listing as lists
from nacre.network.api.resource import any_body, bodies, fields_of
from nacre.network.hosts import agents, dhcp, placed
from nacre.network.l2.networks import Networks
from nacre.network.l3.routers import Routers
from nacre.network.manager import NetworkManager
from nacre.network.nouns.agent import AGENT, DHCP, L3, Agent
from nacre.network.nouns.attributes import Attribute, Resource
from nacre.network.nouns.noun import View
from nacre.network.nouns.subnet import Subnet
from nacre.network.work import Work, missing

#: What the other lists may be asked for by.
_PROVIDER = Resource("service_provider", "service_providers", {name: Attribute(name) for name in (
    "service_type", "name", "default")})
_AVAILABILITY = Resource("network_ip_availability", "network_ip_availabilities", {name: Attribute(name) for name in (
    "network_id", "network_name", "project_id", "ip_version")})


class Operators:
    """/v2.0/agents, /availability_zones, /network-ip-availabilities, /service-providers."""

    def __init__(self, manager: NetworkManager):
        self._manager = manager

    def routes(self) -> list[Route]:
        agent, full = "/v2.0/agents/{id}", "/v2.0/network-ip-availabilities"
        dhcp, l3 = f"{agent}/dhcp-networks", f"{agent}/l3-routers"
        return [Route("GET", "/v2.0/agents", self.agents, Gate(AUTHENTICATED.rules, parts=("get_agent",))),
                Route("POST", "/v2.0/agents", _reported, "create_agent"),
                Route("GET", agent, self.agent, "get_agent"),
                Route("PUT", agent, self.update_agent, "update_agent", body=any_body),
                Route("DELETE", agent, self.delete_agent, "delete_agent"),
                Route("GET", "/v2.0/networks/{id}/dhcp-agents", self.dhcp_agents, "get_dhcp-agents"),
                Route("GET", dhcp, self.dhcp_networks, "get_dhcp-networks"),
                Route("POST", dhcp, _distributed, "create_dhcp-network"),
                Route("DELETE", f"{dhcp}/{{network}}", _distributed, "delete_dhcp-network"),
                Route("GET", l3, self.l3_routers, "get_l3-routers"),
                Route("POST", l3, _unscheduled, "create_l3-router"),
                Route("DELETE", f"{l3}/{{router}}", _unscheduled, "delete_l3-router"),
                Route("GET", "/v2.0/service-providers", self.providers, "get_service_provider"),
                Route("GET", "/v2.0/availability_zones", self.zones, "get_availability_zone"),
                Route("GET", full, self.availabilities, "get_network_ip_availability"),
                Route("GET", f"{full}/{{id}}", self.availability, "get_network_ip_availability")]

    async def agents(self, request: Request) -> View:
        listing = lists.parse(AGENT, request.query)
        # As in Neutron: a list that one may not see is empty, a single agent is refused.
        if not request.allows("get_agent"):
            return {"agents": []}
        rows = await self._manager.read(request.context, lambda work: agents.views(work, work.select(Agent)))
        rows = lists.page([a for a in rows if lists.matches(a, listing)], listing)
        links = lists.links(request.base_url + request.path, request.query, listing, rows)
        return {"agents": fields_of(rows, listing.fields), **({"agents_links": links} if links else {})}

    async def agent(self, request: Request) -> View:
        return {"agent": await self._manager.read(request.context, lambda work: _agent(work, request))}

    async def update_agent(self, request: Request) -> View:
        values = AGENT.parse_update(bodies(request.body, "agent", None)[0][0], request.context)

        def step(work: Work) -> View:
            _agent(work, request)
            if values:
                work.conn.execute(sa.update(t.agents).where(t.agents.c.id == request.params["id"]).values(values))
            return _agent(work, request)

        return {"agent": await self._manager.write(request.context, step)}

    async def delete_agent(self, request: Request) -> Reply:

        def step(work: Work) -> str:
            host = agents.get(work, request.params["id"]).host
            work.conn.execute(sa.delete(t.agents).where(t.agents.c.id == request.params["id"]))
            return host

        self._manager.heartbeats.forget([await self._manager.write(request.context, step)])
        return Reply(status=204)

    async def dhcp_agents(self, request: Request) -> View:
        """The hosts that serve DHCP for a network: those that have ports of it."""

        def step(work: Work) -> list[View]:
            hosts = {host for _, host in placed.hosts_of_networks(work.conn, [request.params["id"]])}
            return agents.views(work, work.select(Agent, agent_type=DHCP, host=hosts))

        return {"agents": await self._manager.read(request.context, step)}

    async def dhcp_networks(self, request: Request) -> View:

        networks = Networks()

        def step(work: Work) -> list[View]:
            host = agents.get(work, request.params["id"]).host
            bound = set(work.conn.execute(sa.select(t.bindings.c.network_id).distinct().where(
                t.bindings.c.host == host)).scalars())
            served = sorted(n for n in bound if dhcp.port_of(work, n))
            return list(networks.views(work, networks.list(work, {"id": served}))) if served else []

        return {"networks": await self._manager.read(request.context, step)}

    async def l3_routers(self, request: Request) -> View:
        """What an L3 agent forwards for: every router."""
        routers = Routers()

        def step(work: Work) -> list[View]:
            l3 = agents.get(work, request.params["id"]).agent_type == L3
            return list(routers.views(work, routers.list(work, {}))) if l3 else []

        return {"routers": await self._manager.read(request.context, step)}

    async def providers(self, request: Request) -> View:
        """The drivers that an operator can choose among for a service: there is no choice."""
        lists.parse(_PROVIDER, request.query)
        return {"service_providers": []}

    async def zones(self, request: Request) -> View:
        routed = await self._manager.read(request.context, agents.routing)
        found = [{"name": "nova", "resource": "network", "state": "available"}]
        return {"availability_zones": found + (
            [{"name": "nova", "resource": "router", "state": "available"}] if routed else [])}

    async def availabilities(self, request: Request) -> View:
        listing = lists.parse(_AVAILABILITY, [(name, value) for name, value in request.query if value])
        versions = listing.filters.pop("ip_version", [])
        rows = await self._manager.read(request.context, lambda work: _availability(work, None, versions))
        rows = [row for row in rows if lists.matches(row, listing)]
        return {"network_ip_availabilities": fields_of(rows, listing.fields)}

    async def availability(self, request: Request) -> View:
        rows = await self._manager.read(request.context, lambda work: _availability(work, request.params["id"]))
        if not rows:
            raise missing("network", request.params["id"])
        return {"network_ip_availability": rows[0]}


def _availability(work: Work, network_id: str | None, versions: Sequence[str] = ()) -> list[View]:
    """versions: of which IP versions alone; none: of both."""
    a = t.addresses.c
    counts = {r[0]: r[1] for r in work.conn.execute(
        sa.select(a.subnet_id, sa.func.count()).group_by(a.subnet_id))}
    subnets = defaultdict[str, list[View]](list)
    for s in work.select(Subnet):
        if not versions or str(s.ip_version) in versions:
            subnets[s.network_id].append({
                "subnet_id": s.id, "subnet_name": s.name, "cidr": s.cidr, "ip_version": s.ip_version,
                "total_ips": ipam.size(s.allocation_pools), "used_ips": counts.get(s.id, 0)})
    filters = {"id": [network_id]} if network_id else {}
    return [{"network_id": n.id, "network_name": n.name, "project_id": n.project_id,
             "tenant_id": n.project_id, "subnet_ip_availability": (own := subnets[n.id]),
             "total_ips": sum(s["total_ips"] for s in own), "used_ips": sum(s["used_ips"] for s in own)}
            for n in Networks().list(work, filters)]


def _agent(work: Work, request: Request) -> View:
    return agents.views(work, [agents.get(work, request.params["id"])])[0]


async def _reported(request: Request) -> View:
    raise BadRequest("Bad agents request: Agent creation using API is not supported.", type="BadRequest")


async def _unscheduled(request: Request) -> View:
    raise NotBuilt("Routers are not scheduled to agents.")


async def _distributed(request: Request) -> View:
    raise NotBuilt("DHCP is served by every host for its own guests; networks are not scheduled to agents.")
