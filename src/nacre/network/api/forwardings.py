"""Port forwardings of a floating IP, and the pools that floating IPs come from."""

import sqlalchemy as sa

from nacre.base.serving.gate import Gate, Subject, asks
from nacre.base.web import Reply, Request, Route
from nacre.network import tables as t
from nacre.network.api import listing as lists
from nacre.network.api.resource import any_body, bodies, fields_of
from nacre.network.l2.networks import visible
from nacre.network.l3 import forwardings
from nacre.network.l3.floatingips import FloatingIps
from nacre.network.manager import NetworkManager
from nacre.network.nouns.attributes import Attributes
from nacre.network.nouns.noun import View
from nacre.network.nouns.router import PORT_FORWARDING, FloatingIp, forwarding_view
from nacre.network.nouns.subnet import Subnet
from nacre.network.work import Work, missing

_NAME = PORT_FORWARDING.name


class Forwardings:
    """/v2.0/floatingips/<id>/port_forwardings[/<id>]."""

    def __init__(self, manager: NetworkManager):
        self._manager = manager

    def routes(self) -> list[Route]:
        every = "/v2.0/floatingips/{id}/port_forwardings"
        one = every + "/{forwarding}"

        def about(verb: str) -> Gate:
            return asks(f"{verb}_floatingip_port_forwarding", about=self._parent)

        return [Route("GET", every, self.index, about("get")),
                Route("POST", every, self.create, about("create"), body=any_body),
                Route("GET", one, self.show, about("get")),
                Route("PUT", one, self.update, about("update"), body=any_body),
                Route("DELETE", one, self.delete, about("delete")),
                Route("GET", "/v2.0/floatingip-pools", self.pools, "get_floatingip_pool")]

    async def _parent(self, request: Request) -> Subject:
        """The floating IP, if the caller may see it. Raises NotFound."""
        found = await self._manager.read(request.context, lambda work: _floating(work, request))
        return Subject({"project_id": found.project_id, "ext_parent:project_id": found.project_id})

    async def index(self, request: Request) -> View:
        listing = lists.parse(PORT_FORWARDING, request.query)
        found = await self._manager.read(request.context, lambda work: forwardings.of(work, request.params["id"]))
        rows = [row for row in map(forwarding_view, found) if lists.matches(row, listing)]
        rows = lists.page(rows, listing)
        links = lists.links(request.base_url + request.path, request.query, listing, rows)
        return {PORT_FORWARDING.plural: fields_of(rows, listing.fields)} | (
            {f"{PORT_FORWARDING.plural}_links": links} if links else {})

    async def show(self, request: Request) -> View:
        fields = [v for k, v in request.query if k == "fields" and v]
        found = await self._manager.read(request.context, lambda work: forwardings.one(
            work, request.params["id"], request.params["forwarding"]))
        return {_NAME: fields_of([forwarding_view(found)], fields)[0]}

    async def create(self, request: Request) -> Reply:
        raws, bulk = bodies(request.body, _NAME, PORT_FORWARDING.plural)
        parsed = [PORT_FORWARDING.parse_create(raw, request.context) for raw in raws]

        def step(work: Work) -> list[View]:
            return [forwarding_view(made) for made in forwardings.create_all(work, _floating(work, request), parsed)]

        made = await self._manager.write(request.context, step)
        return Reply({PORT_FORWARDING.plural: made} if bulk else {_NAME: made[0]}, 201)

    async def update(self, request: Request) -> View:
        data = PORT_FORWARDING.parse_update(bodies(request.body, _NAME, None)[0][0], request.context)

        def step(work: Work) -> View:
            current = forwardings.one(work, request.params["id"], request.params["forwarding"])
            return forwarding_view(forwardings.update(work, _floating(work, request), current, data))

        return {_NAME: await self._manager.write(request.context, step)}

    async def delete(self, request: Request) -> Reply:
        await self._manager.write(request.context, lambda work: forwardings.delete(work, forwardings.one(
            work, request.params["id"], request.params["forwarding"])))
        return Reply(status=204)

    async def pools(self, request: Request) -> View:
        """The IPv4 subnets of external networks that the caller may see."""
        fields = [v for k, v in request.query if k == "fields" and v]

        def step(work: Work) -> list[Attributes]:
            n, s = t.networks.c, t.subnets.c
            outside = sa.select(n.id).where(n.external, visible(work))
            return [{"subnet_id": subnet.id, "subnet_name": subnet.name, "network_id": subnet.network_id,
                     "cidr": subnet.cidr, "project_id": work.context.project_id,
                     "tenant_id": work.context.project_id}
                    for subnet in work.search(Subnet, s.network_id.in_(outside), s.ip_version == 4,
                                              order=("created_at", "id"))]

        return {"floatingip_pools": fields_of(await self._manager.read(request.context, step), fields)}


def _floating(work: Work, request: Request) -> FloatingIp:
    found = FloatingIps().list(work, {"id": [request.params["id"]]})
    if not found:
        raise missing("floatingip", request.params["id"])
    return found[0]
