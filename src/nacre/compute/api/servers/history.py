"""/servers/{id}/os-instance-actions: what was asked of a server, and what came of it."""

from datetime import datetime
from typing import Any

from nacre.base.errors import BadRequest, NotFound
from nacre.base.web import Request, Route
from nacre.compute.api import types as t
from nacre.compute.api.microversions import known
from nacre.compute.api.paging import limit_and_marker, next_link
from nacre.compute.api.servers.finding import Finder, target
from nacre.compute.api.servers.views import host_id
from nacre.compute.api.validation import Query, parse_time
from nacre.compute.contract import Action, Event, Server
from nacre.compute.history import History
from nacre.compute.policies import rule
from nacre.compute.servers import Servers

LIST = Query("action.query", {**t.PAGING, "changes-since": t.TIME, "changes-before": t.TIME}, strict_from=58)


class HistoryRoutes:
    """The actions of a server and their events."""

    def __init__(self, servers: Servers, history: History):
        self._history, self._find = history, Finder(servers)

    def routes(self) -> list[Route]:
        """Every URL of instance actions."""
        many = "/v2.1/servers/{server_id}/os-instance-actions"
        late, events = "action.deleted_servers", ("os-instance-actions:events", "os-instance-actions:events:details")
        return [
            Route("GET", many, self.index, self._find.may("os-instance-actions:list", deleted=late), query=LIST),
            Route("GET", many + "/{request_id}", self.show, self._find.may(
                "os-instance-actions:show", parts=events, deleted=late))]

    async def index(self, request: Request) -> Any:
        """GET .../os-instance-actions: the newest first."""
        server: Server = request.found
        found = list(await self._history.actions(server.id))
        if not known("action.query.limit", request.version):
            return {"instanceActions": [_action(request, server, action) for action in found]}
        since, before = _time(request, "changes-since"), _time(request, "changes-before")
        if since and before and before < since:
            raise BadRequest("The value of changes-since must be less than or equal to changes-before.",
                             field="changes-since")
        found = [action for action in found if _within(action, since, before)]
        limit, marker = limit_and_marker(request)
        if marker is not None:
            places = [i for i, action in enumerate(found) if action.request_id == marker]
            if not places:
                raise BadRequest(f"Marker {marker} could not be found.", field="marker")
            found = found[places[0] + 1:]
        found = found[:limit]
        answer: dict[str, Any] = {"instanceActions": [_action(request, server, action) for action in found]}
        if found and (more := next_link(request, found, found[-1].request_id, limit)):
            answer["links"] = more
        return answer

    async def show(self, request: Request) -> Any:
        """GET .../os-instance-actions/{request}: with its events, for those who may see them."""
        server: Server = request.found
        ident = request.params["request_id"]
        try:
            action, steps = await self._history.action(server.id, ident)
        except NotFound:
            raise NotFound(f"Action {ident} not found") from None
        found = _action(request, server, action)
        whole = request.allows(rule("os-instance-actions:events"), target(server))
        if whole or known("action.events_for_all", request.version):
            details = known("action.details", request.version) and request.allows(
                rule("os-instance-actions:events:details"), target(server))
            found["events"] = [_event(request, server, event, whole, details) for event in steps]
        return {"instanceAction": found}


def _time(request: Request, name: str) -> datetime | None:
    text = request.one(name) if known(f"action.query.{name}", request.version) else None
    return parse_time(text) if text is not None else None


def _within(action: Action, since: datetime | None, before: datetime | None) -> bool:
    moment = action.updated_at or action.started_at
    return (since is None or moment >= since) and (before is None or moment <= before)


def _stamp(moment: datetime | None) -> str | None:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f") if moment else None


def _action(request: Request, server: Server, action: Action) -> dict[str, Any]:
    found = {"action": action.action, "instance_uuid": server.id, "request_id": action.request_id,
             "user_id": action.user_id, "project_id": action.project_id, "start_time": _stamp(action.started_at),
             "message": action.message}
    if known("action.updated_at", request.version):
        found["updated_at"] = _stamp(action.updated_at or action.started_at)
    return found


def _event(request: Request, server: Server, event: Event, whole: bool, details: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"event": event.name, "start_time": _stamp(event.started_at),
                             "finish_time": _stamp(event.finished_at), "result": event.result}
    if whole:
        found["traceback"] = event.details if event.result == "Error" else None
    if known("action.host", request.version):
        found["hostId"] = host_id(event.host or server.host, server.project_id)
        if whole:
            found["host"] = event.host
    if details:
        found["details"] = event.details
    return found
