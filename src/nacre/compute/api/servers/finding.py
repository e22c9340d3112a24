"""Finding the server a request is about: another project's is not there."""

from typing import Any

from nacre.base.errors import Conflict, NotFound
from nacre.base.serving.gate import Gate, Subject, asks
from nacre.base.web import Request
from nacre.compute.api.microversions import known
from nacre.compute.contract import Server
from nacre.compute.policies import rule
from nacre.compute.servers import Servers


class Finder:
    """Looks servers up for the gate of one request at a time."""

    def __init__(self, servers: Servers):
        self._servers = servers

    def may(self, verb: str, *, parts: tuple[str, ...] = (), deleted: str = "") -> Gate:
        """A gate: may the caller do `verb` (a policy's name) to the server of the URL? deleted: the feature with which
        deleted servers are found too."""
        async def about(request: Request) -> Subject:
            return await self.about(request, deleted=bool(deleted) and known(deleted, request.version))

        return asks(rule(verb), about=about, parts=tuple(map(rule, parts)))

    async def about(self, request: Request, *, deleted: bool = False) -> Subject:
        """The server of the URL. Raises NotFound for another project's, too."""
        ident = request.params["server_id"]
        missing = NotFound(f"Instance {ident} could not be found.")
        if len(ident) > 64:
            raise missing
        server = await self._servers.get(ident, deleted=deleted)
        if server.project_id != request.context.project_id and not request.context.is_admin:
            raise missing
        return Subject(target(server), server)


def unlocked(request: Request) -> Server:
    """The server that the gate found, for what a lock forbids to all but administrators. Raises Conflict."""
    server: Server = request.found
    if server.locked and not request.context.is_admin:
        raise Conflict(f"Instance {server.id} is locked")
    return server


def target(server: Server) -> dict[str, Any]:
    """What policies may ask about a server."""
    return {"project_id": server.project_id, "user_id": server.user_id}
