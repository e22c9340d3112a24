"""The bindings of a server's port: Neutron's `binding-extended`, by which a port is prepared at another host."""

from nacre.base.errors import BadRequest, NacreError
from nacre.base.web import Reply, Request, Route
from nacre.network import tables as t
from nacre.network.api import listing as lists
from nacre.network.api.resource import any_body, bodies, fields_of
from nacre.network.hosts import bindings
from nacre.network.manager import NetworkManager
from nacre.network.nouns.definitions import BINDING
from nacre.network.work import Row, Work, conflict, missing


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

    async def index(self, request: Request) -> Row:
        listing = lists.parse(BINDING, request.query)
        rows = await self._manager.read(request.context, lambda work: _of(work, request.params["id"]))
        views = [row for row in map(_view, rows) if lists.matches(row, listing)]
        return {"bindings": fields_of(views, listing.fields)}

    async def show(self, request: Request) -> Row:
        fields = [v for k, v in request.query if k == "fields" and v]
        row = await self._manager.read(request.context, lambda work: _one(work, request))
        return {"binding": fields_of([_view(row)], fields)[0]}

    async def create(self, request: Request) -> Reply:
        """One more binding, inactive."""
        data = BINDING.parse_create(bodies(request.body, "binding", None)[0][0], request.context)
        port_id, host = request.params["id"], data["host"]

        def step(work: Work) -> Row:
            rows = _of(work, port_id)
            _refuse_second(rows, host)
            new = next(r for r in rows if r["active"]) | {
                "vnic_type": data["vnic_type"], "profile": data.get("profile") or {}}
            return _bound(new, host, bindings.prepare(work, [new], host))

        return Reply({"binding": await self._manager.write(request.context, step)}, 201)

    async def update(self, request: Request) -> Row:
        """Binds anew with another kind of interface, another profile, or at another host."""
        data = BINDING.parse_update(bodies(request.body, "binding", None)[0][0], request.context)

        def step(work: Work) -> Row:
            old = _one(work, request)
            new = old | {k: data[k] for k in ("vnic_type", "profile") if k in data}
            host = str(data.get("host", old["host"]))
            if host != old["host"]:
                _refuse_second(_of(work, old["id"]), host)
            if old["active"]:
                return _bound(new, host, bindings.bind(work, [new], host))
            if host != old["host"]:
                bindings.drop(work, [old])
            return _bound(new, host, bindings.prepare(work, [new], host))

        return {"binding": await self._manager.write(request.context, step)}

    async def delete(self, request: Request) -> Reply:
        """Without its active binding a port is on no host."""

        def step(work: Work) -> None:
            row = _one(work, request)
            bindings.clear(work, [row]) if row["active"] else bindings.drop(work, [row])

        await self._manager.write(request.context, step)
        return Reply(status=204)

    async def activate(self, request: Request) -> Row:
        """The port is at this host from now on. As in Neutron, the answer is the bare binding."""

        def step(work: Work) -> Row:
            row = _one(work, request)
            if row["active"]:
                raise conflict("PortBindingAlreadyActive", f"Binding for port {row['id']} on host {row['host']} is "
                               "already active.")
            bindings.activate(work, [row])
            return _view(row)

        return await self._manager.write(request.context, step)


def _of(work: Work, port_id: str) -> list[Row]:
    """A port with each of its bindings. Raises NotFound; BadRequest where the port is no server's."""
    rows = work.find(t.placed, ("host",), id=port_id)
    if not rows:
        raise missing("port", port_id)
    if not rows[0]["device_owner"].startswith("compute:"):
        raise BadRequest(f"Bad port request: Invalid port {port_id}. Operation only valid on compute ports.")
    return rows


def _one(work: Work, request: Request) -> Row:
    port_id, host = request.params["id"], request.params["host"]
    found = next((r for r in _of(work, port_id) if r["host"] == host), None)
    if found is None:
        raise bindings.missing(port_id, host)
    return found


def _refuse_second(rows: list[Row], host: str) -> None:
    if any(r["host"] == host for r in rows):
        raise conflict("PortBindingAlreadyExists", f"Binding for port {rows[0]['id']} on host {host} already exists.")


def _bound(row: Row, host: str, failed: list[str]) -> Row:
    """The binding's view. Raises where no driver binds: then nothing is changed."""
    if failed:
        raise NacreError(f"Binding for port {row['id']} on host {host} could not be created or updated.",
                         type="PortBindingError")
    return _view(row)


def _view(row: Row) -> Row:
    return {k: row[k] for k in ("host", "vif_type", "vif_details", "vnic_type", "profile")} | {
        "status": "ACTIVE" if row["active"] else "INACTIVE"}
