"""POST /servers/{id}/action: what may be done to a server."""

from collections.abc import Awaitable, Callable
from typing import Any

from nacre.base.errors import Conflict, NotBuilt, NotFound
from nacre.base.web import Reply, Request, Route, Version
from nacre.compute.api.microversions import known
from nacre.compute.api.servers import schemas
from nacre.compute.api.servers.finding import Finder, target
from nacre.compute.contract import Server
from nacre.compute.policies import rule
from nacre.compute.servers import Servers
from nacre.identity.contract import Policy
from nacre.node.contract import Node

_URL = "/v2.1/servers/{server_id}/action"

#: Actions of the API that are not built: name -> (policy, the last version that has it).
NOT_BUILT: dict[str, tuple[str, Version | None]] = {
    "changePassword": ("os-admin-password", None), "resize": ("servers:resize", None),
    "confirmResize": ("servers:confirm_resize", None), "revertResize": ("servers:revert_resize", None),
    "rebuild": ("servers:rebuild", None), "createImage": ("servers:create_image", None),
    "createBackup": ("os-create-backup", None), "pause": ("os-pause-server:pause", None),
    "unpause": ("os-pause-server:unpause", None), "suspend": ("os-suspend-server:suspend", None),
    "resume": ("os-suspend-server:resume", None), "rescue": ("os-rescue", None), "unrescue": ("os-unrescue", None),
    "shelve": ("os-shelve:shelve", None), "shelveOffload": ("os-shelve:shelve_offload", None),
    "unshelve": ("os-shelve:unshelve", None), "migrate": ("os-migrate-server:migrate", None),
    "os-migrateLive": ("os-migrate-server:migrate_live", None), "evacuate": ("os-evacuate", None),
    "restore": ("os-deferred-delete:restore", None),
    "os-resetState": ("os-admin-actions:reset_state", None), "trigger_crash_dump": ("servers:trigger_crash_dump", None),
    "os-getVNCConsole": ("os-remote-consoles", (2, 5)), "os-getSPICEConsole": ("os-remote-consoles", (2, 5)),
    "os-getRDPConsole": ("os-remote-consoles", (2, 5)), "os-getSerialConsole": ("os-remote-consoles", (2, 5)),
    "injectNetworkInfo": ("os-admin-actions:inject_network_info", None),
}


class ActionRoutes:
    """The actions."""

    def __init__(self, servers: Servers, node: Callable[[str], Node], policy: Policy):
        self._servers, self._node = servers, node
        self._policy, self._find = policy, Finder(servers, policy)

    def routes(self) -> list[Route]:
        """One route for each action."""
        def route(action: str, handler: Callable[[Request], Awaitable[Any]], body: Any = None,
                  until: Version | None = None) -> Route:
            return Route("POST", _URL, handler, body=body or schemas.action(action), action=action, until=until)

        return [
            route("os-start", self._power("os-start", "servers:start", "start")),
            route("os-stop", self._power("os-stop", "servers:stop", "stop")),
            route("reboot", self.reboot, schemas.REBOOT),
            route("os-getConsoleOutput", self.console, schemas.CONSOLE),
            route("lock", self.lock, schemas.LOCK),
            route("unlock", self.unlock),
            route("forceDelete", self.force_delete),
            *(route(name, self._not_built(name, verb), schemas.action(name, schemas.UNBUILT.get(name)), until)
              for name, (verb, until) in NOT_BUILT.items()),
        ]

    async def reboot(self, request: Request) -> Any:
        """Action reboot."""
        server = await self._find.unlocked(request, "servers:reboot")
        kind = request.body["reboot"]["type"].lower()
        await self._servers.power(request.context, server, f"reboot-{kind}")
        return Reply(status=202)

    async def console(self, request: Request) -> Any:
        """Action os-getConsoleOutput."""
        server = await self._find(request, "os-console-output")
        length = str(request.body["os-getConsoleOutput"].get("length") or "")
        lines = None if length in ("", "-1") else int(length)
        try:
            if server.host:
                return {"output": await self._node(server.host).console(server.id, lines)}
        except NotFound:
            pass
        raise Conflict(f"Instance {server.id} is not ready")

    async def lock(self, request: Request) -> Any:
        """Action lock: keeps all but administrators from changing the server."""
        server = await self._find(request, "os-lock-server:lock")
        reason = None
        if known("server.lock.locked_reason", request.version):
            reason = (request.body["lock"] or {}).get("locked_reason")
        by = "owner" if server.project_id == request.context.project_id else "admin"
        await self._servers.update(server.id, lambda now: {
            "locked": True, "locked_reason": reason, "locked_by": by})
        return Reply(status=202)

    async def unlock(self, request: Request) -> Any:
        """Action unlock. What the other side locked, the owner or somebody of another project, needs a rule more."""
        server, context = await self._find(request, "os-lock-server:unlock"), request.context
        mine = "owner" if server.project_id == context.project_id else "admin"

        def unlocked(now: Server) -> dict[str, Any]:
            if now.locked and now.locked_by not in (None, mine):
                self._policy.check(context, rule("os-lock-server:unlock:unlock_override"), target(now))
            return {"locked": False, "locked_reason": None, "locked_by": None}

        await self._servers.update(server.id, unlocked)
        return Reply(status=202)

    async def force_delete(self, request: Request) -> Any:
        """Action forceDelete: every delete is final here."""
        await self._servers.delete(request.context, await self._find.unlocked(request, "os-deferred-delete:force"))
        return Reply(status=202)

    def _power(self, name: str, verb: str, action: str) -> Callable[[Request], Awaitable[Any]]:
        async def handler(request: Request) -> Any:
            server = await self._find.unlocked(request, verb)
            await self._servers.power(request.context, server, action)
            return Reply(status=202)

        handler.__doc__ = f"Action {name}."
        return handler

    def _not_built(self, name: str, verb: str) -> Callable[[Request], Awaitable[Any]]:
        async def handler(request: Request) -> Any:
            await self._find(request, verb)
            raise NotBuilt(f"Nacre does not have the action {name} yet.")

        handler.__doc__ = f"Action {name}: not built."
        return handler
