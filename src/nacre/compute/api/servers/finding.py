"""Finding the server a request is about: another project's is not there."""

from typing import Any

from nacre.base.errors import Conflict, NotFound
from nacre.base.web import Request
from nacre.compute.contract import Server
from nacre.compute.policies import rule
from nacre.compute.servers import Servers
from nacre.identity.contract import Policy


class Finder:
    """Looks servers up for one request at a time."""

    def __init__(self, servers: Servers, policy: Policy):
        self._servers, self._policy = servers, policy

    async def __call__(self, request: Request, verb: str, *, deleted: bool = False) -> Server:
        """The server of the URL, if the caller may do `verb` (a policy's name) to it.

        Raises NotFound for another project's server too; Forbidden for the caller's own.
        """
        ident = request.params["server_id"]
        missing = NotFound(f"Instance {ident} could not be found.")
        if len(ident) > 64:
            raise missing
        server = await self._servers.get(ident, deleted=deleted)
        context = request.context
        if server.project_id != context.project_id and not context.is_admin:
            raise missing
        self._policy.check(context, rule(verb), target(server))
        return server

    async def unlocked(self, request: Request, verb: str) -> Server:
        """As calling it, for what a lock forbids to all but administrators. Raises Conflict."""
        server = await self(request, verb)
        if server.locked and not request.context.is_admin:
            raise Conflict(f"Instance {server.id} is locked")
        return server


def target(server: Server) -> dict[str, Any]:
    """What policies may ask about a server."""
    return {"project_id": server.project_id, "user_id": server.user_id}
