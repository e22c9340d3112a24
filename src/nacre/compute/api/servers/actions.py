"""POST /servers/{id}/action: what may be done to a server."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from nacre.base.errors import Conflict, NotBuilt, NotFound
from nacre.base.serving.gate import Gate, Subject, asks
from nacre.base.web import Reply, Request, Route, Version
from nacre.compute.api.microversions import known
from nacre.compute.api.servers import schemas
from nacre.compute.api.servers.finding import Finder, unlocked
from nacre.compute.contract import Server
from nacre.compute.policies import rule
from nacre.compute.servers import Servers
from nacre.node.contract import CONSOLE, Node

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

    def __init__(self, servers: Servers, node: Callable[[str], Node]):
        self._servers, self._node, self._find = servers, node, Finder(servers)

    def routes(self) -> list[Route]:
        """One route for each action."""
        def route(action: str, verb: str | Gate, handler: Callable[[Request], Awaitable[Any]], body: Any = None,
                  until: Version | None = None) -> Route:
            return Route("POST", _URL, handler, self._find.may(verb) if isinstance(verb, str) else verb,
                         body=body or schemas.action(action), action=action, until=until)

        override = asks(rule("os-lock-server:unlock"), about=self._locked,
                        parts=(rule("os-lock-server:unlock:unlock_override"),))
        return [
            route("os-start", "servers:start", self._power("os-start", "start")),
            route("os-stop", "servers:stop", self._power("os-stop", "stop")),
            route("reboot", "servers:reboot", self.reboot, schemas.REBOOT),
            route("os-getConsoleOutput", "os-console-output", self.console, schemas.CONSOLE),
            route("lock", "os-lock-server:lock", self.lock, schemas.LOCK),
            route("unlock", override, self.unlock),
            route("forceDelete", "os-deferred-delete:force", self.force_delete),
            *(route(name, verb, _not_built(name), schemas.action(name, schemas.UNBUILT.get(name)), until)
              for name, (verb, until) in NOT_BUILT.items()),
        ]

    async def reboot(self, request: Request) -> Any:
        """Action reboot."""
        server = unlocked(request)
        kind = request.body["reboot"]["type"].lower()
        await self._servers.power(request.context, server, f"reboot-{kind}")
        return Reply(status=202)

    async def console(self, request: Request) -> Any:
        """Action os-getConsoleOutput."""
        server = request.found
        length = request.body["os-getConsoleOutput"].get("length")  # 5.0 is a whole number to JSON
        lines = None if not length or length in (-1, "-1") else int(length)
        try:
            if server.host:
                return {"output": (await self._node(server.host).console(server.id, lines))[-CONSOLE:]}
        except NotFound:
            pass
        raise Conflict(f"Instance {server.id} is not ready")

    async def lock(self, request: Request) -> Any:
        """Action lock: keeps all but administrators from changing the server. An owner's lock of what is locked already
        changes nothing, as in Nova: else it would take the place of an administrator's, and be undone."""
        server = request.found
        reason = None
        if known("server.lock.locked_reason", request.version):
            reason = (request.body["lock"] or {}).get("locked_reason")
        by = "owner" if server.project_id == request.context.project_id else "admin"
        await self._servers.update(server.id, lambda now: {} if now.locked and by == "owner" else {
            "locked": True, "locked_reason": reason, "locked_by": by})
        return Reply(status=202)

    async def unlock(self, request: Request) -> Any:
        """Action unlock."""
        server: Server = request.found

        def free(now: Server) -> dict[str, Any]:
            if now.locked and now.locked_by != server.locked_by:  # it is not the lock that the gate has seen
                raise Conflict(f"Instance {server.id} was locked again meanwhile")
            return {"locked": False, "locked_reason": None, "locked_by": None}

        await self._servers.update(server.id, free)
        return Reply(status=202)

    async def _locked(self, request: Request) -> Subject:
        """The server to unlock. What the other side locked, the owner or somebody of another project, needs a rule
        more."""
        subject = await self._find.about(request)
        server: Server = subject.found
        mine = "owner" if server.project_id == request.context.project_id else "admin"
        if not server.locked or server.locked_by in (None, mine):
            return subject
        return replace(subject, more=((rule("os-lock-server:unlock:unlock_override"), subject.facts),))

    async def force_delete(self, request: Request) -> Any:
        """Action forceDelete: every delete is final here."""
        await self._servers.delete(request.context, unlocked(request))
        return Reply(status=202)

    def _power(self, name: str, action: str) -> Callable[[Request], Awaitable[Any]]:
        async def handler(request: Request) -> Any:
            await self._servers.power(request.context, unlocked(request), action)
            return Reply(status=202)

        handler.__doc__ = f"Action {name}."
        return handler


def _not_built(name: str) -> Callable[[Request], Awaitable[Any]]:
    async def handler(request: Request) -> Any:
        raise NotBuilt(f"Nacre does not have the action {name} yet.")

    handler.__doc__ = f"Action {name}: not built."
    return handler
