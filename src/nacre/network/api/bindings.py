"""The bindings of a server's port: Neutron's `binding-extended`, by which a port is prepared at another host."""

from msgspec.structs import replace

from nacre.base.errors import BadRequest, NacreError
from nacre.base.web import Reply, Request, Route
from nacre.network.api import listing as lists
from nacre.network.api.resource import any_body, bodies, fields_of
from nacre.network.hosts import bindings
from nacre.network.manager import NetworkManager
from nacre.network.nouns.noun import View
from nacre.network.nouns.port import BINDING, Placed, binding_view
from nacre.network.work import Work, conflict, missing


class Bindings:
    """/v2.0/ports/<id>/bindings[/<host>[/activate]]."""

    def __init__(self, manager: NetworkManager):
        self._manager = manager

    def routes(self) -> list[Route]:
        every = "/v2.0/ports/{id}/bindings"
        one = every + "/{host}"
        return [Route("GET", every, self.index, "get_port_binding"),
                Route("POST", every, self.create, "create_port_binding", body=any_body),
                Route("GET", one, self.show, "get_port_binding"),
                Route("PUT", one, self.update, "update_port_binding", body=any_body),
                Route("DELETE", one, self.delete, "delete_port_binding"),
                Route("PUT", one + "/activate", self.activate, "activate")]

    async def index(self, request: Request) -> View:
        listing = lists.parse(BINDING, request.query)
        found = await self._manager.read(request.context, lambda work: _of(work, request.params["id"]))
        views = [view for view in map(binding_view, found) if lists.matches(view, listing)]
        return {"bindings": fields_of(views, listing.fields)}

    async def show(self, request: Request) -> View:
        fields = [v for k, v in request.query if k == "fields" and v]
        found = await self._manager.read(request.context, lambda work: _one(work, request))
        return {"binding": fields_of([binding_view(found)], fields)[0]}

    async def create(self, request: Request) -> Reply:
        """One more binding, inactive."""
        data = BINDING.parse_create(bodies(request.body, "binding", None)[0][0], request.context)
        port_id, host = request.params["id"], data["host"]

        def step(work: Work) -> View:
            known = _of(work, port_id)
            _refuse_second(known, host)
            new = replace(next(port for port in known if port.active), vnic_type=data["vnic_type"],
                          profile=data.get("profile") or {})
            return _bound(bindings.prepare(work, [new], host))

        return Reply({"binding": await self._manager.write(request.context, step)}, 201)

    async def update(self, request: Request) -> View:
        """Binds anew with another kind of interface, another profile, or at another host."""
        data = BINDING.parse_update(bodies(request.body, "binding", None)[0][0], request.context)

        def step(work: Work) -> View:
            old = _one(work, request)
            new = replace(old, **{k: data[k] for k in ("vnic_type", "profile") if k in data})
            host = str(data.get("host", old.host))
            if host != old.host:
                _refuse_second(_of(work, old.id), host)
            if old.active:
                return _bound(bindings.bind(work, [new], host))
            if host != old.host:
                bindings.drop(work, [old])
            return _bound(bindings.prepare(work, [new], host))

        return {"binding": await self._manager.write(request.context, step)}

    async def delete(self, request: Request) -> Reply:
        """Without its active binding a port is on no host."""

        def step(work: Work) -> None:
            port = _one(work, request)
            bindings.clear(work, [port]) if port.active else bindings.drop(work, [port])

        await self._manager.write(request.context, step)
        return Reply(status=204)

    async def activate(self, request: Request) -> View:
        """The port is at this host from now on. As in Neutron, the answer is the bare binding."""

        def step(work: Work) -> View:
            port = _one(work, request)
            if port.active:
                raise conflict("PortBindingAlreadyActive", f"Binding for port {port.id} on host {port.host} is "
                               "already active.")
            bindings.activate(work, [port])
            return binding_view(replace(port, active=True))

        return await self._manager.write(request.context, step)


def _of(work: Work, port_id: str) -> list[Placed]:
    """A port with each of its bindings. Raises NotFound; BadRequest where the port is no server's."""
    found = work.select(Placed, order=("host",), id=port_id)
    if not found:
        raise missing("port", port_id)
    if not found[0].device_owner.startswith("compute:"):
        raise BadRequest(f"Bad port request: Invalid port {port_id}. Operation only valid on compute ports.")
    return found


def _one(work: Work, request: Request) -> Placed:
    port_id, host = request.params["id"], request.params["host"]
    found = next((port for port in _of(work, port_id) if port.host == host), None)
    if found is None:
        raise bindings.missing(port_id, host)
    return found


def _refuse_second(known: list[Placed], host: str) -> None:
    if any(port.host == host for port in known):
        raise conflict("PortBindingAlreadyExists", f"Binding for port {known[0].id} on host {host} already exists.")


def _bound(found: list[Placed]) -> View:
    """The binding's view. Raises where no driver binds: then nothing is changed."""
    port, = found
    if bindings.failed(found):
        raise NacreError(f"Binding for port {port.id} on host {port.host} could not be created or updated.",
                         type="PortBindingError")
    return binding_view(port)
