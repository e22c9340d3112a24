"""A project's network that is made on demand."""

from nacre.base.errors import BadRequest
from nacre.base.serving.gate import asks, stated
from nacre.base.web import Reply, Request, Route
from nacre.network.l3 import topology
from nacre.network.manager import NetworkManager
from nacre.network.nouns import checks
from nacre.network.nouns.noun import View
from nacre.network.work import Work

#: What a client asks for that only wants to know whether it could be made.
DRY_RUN = "dry-run"


class Topologies:
    """/v2.0/auto-allocated-topology/<project>."""

    def __init__(self, manager: NetworkManager):
        self._manager = manager

    def routes(self) -> list[Route]:
        one, about = "/v2.0/auto-allocated-topology/{id}", stated(lambda request: {"project_id": _project(request)})
        return [Route("GET", one, self.show, asks("get_auto_allocated_topology", about=about)),
                Route("DELETE", one, self.delete, asks("delete_auto_allocated_topology", about=about))]

    async def show(self, request: Request) -> View:
        """It is made where it is not there yet, for the caller's own project or, by an administrator, another's."""
        project, fields = _project(request), [v for k, v in request.query if k == "fields" and v]
        if unknown := [field for field in fields if field != DRY_RUN]:
            raise BadRequest(f"Bad auto_allocate request: Unrecognized field {unknown[0][:64]}.", field="fields",
                             type="BadRequest")

        def look(work: Work) -> str | None:
            found = topology.of(work, project)
            if fields:
                topology.required(work)
            if found is None:
                _check(request, project)
            return f"{DRY_RUN}=pass" if fields else found

        found = await self._manager.read(request.context, look)
        if found is None:
            found = await self._manager.write(request.context, lambda work: topology.ensure(work, project))
        return {"auto_allocated_topology": {"id": found, "project_id": project, "tenant_id": project}}

    async def delete(self, request: Request) -> Reply:
        await self._manager.write(request.context, lambda work: topology.drop(work, _project(request)))
        return Reply(status=204)


def _project(request: Request) -> str:
    """The project that the URL names; as in Neutron's clients "None" is the caller's own."""
    named = request.params["id"]
    return (request.context.project_id or "") if named == "None" else named


def _check(request: Request, project: str) -> None:
    """Raises BadRequest: the caller is for none, or none can be called so."""
    if not project:
        raise _bad("the token is for no project, and none is named")
    if project != request.context.project_id:
        try:
            checks.uuid_(project)
        except ValueError as error:
            raise _bad(str(error)) from None


def _bad(reason: str) -> BadRequest:
    return BadRequest(f"Bad auto_allocate request: {reason}.", field="project_id", type="BadRequest")
