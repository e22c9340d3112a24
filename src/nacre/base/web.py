"""The web edge: one ASGI app over a table of routes. Errors become HTTP here and nowhere else.

A service is a list of `Route`s under a prefix. A request goes: route -> token -> microversion -> gate -> body -> its
project's turn -> handler -> reply. Identity comes from the token alone; identity headers a client sends are never read.
"""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import parse_qsl

import msgspec
import structlog

from nacre.base import errors as e
from nacre.base.context import Context
from nacre.base.serving import gate
from nacre.base.serving.bodies import announced, nul_in, parse_json, read, refuse_nul
from nacre.base.serving.gate import PUBLIC, Allows, Facts, Gate
from nacre.base.serving.paths import Paths
from nacre.base.serving.sending import Full, Hold, Receive, Room, Send, endless, hold_of, send_stream, send_whole
from nacre.base.serving.slots import source
from nacre.base.serving.turns import Turns

log = structlog.get_logger()

#: The largest JSON body taken, in bytes, unless a service has another limit. Uploads stream and have their own.
MAX_BODY = 1 << 20
#: oslo.middleware's default, which Nova and Keystone have. Of somebody who is not known yet always: only connections
#: bound how many there are.
OSLO_BODY = 114_688
#: How many lists and objects of a body may lie in each other, unless an option says otherwise.
NESTING = 64
#: Bytes of an answer that is sent however little memory there is.
_SMALL = 4096

STATUS: dict[type[e.NacreError], int] = {
    e.BadRequest: 400, e.Unauthenticated: 401, e.Forbidden: 403, e.QuotaExceeded: 403, e.NotFound: 404,
    e.NoSuchRoute: 404, e.NotAllowed: 405, e.NotAcceptable: 406, e.Conflict: 409, e.Gone: 410,
    e.PreconditionFailed: 412, e.TooLarge: 413, e.UnsupportedMedia: 415, e.TooMany: 429, e.NotBuilt: 501,
    e.Unavailable: 503, e.Refused: 409, e.BuildFailed: 500, e.NoValidHost: 400,
}

Version = tuple[int, int]
Scope = Mapping[str, Any]


def status_of(error: e.NacreError) -> int:
    """The HTTP status of an error: its class's, or that of the nearest base that has one."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


@dataclass
class Reply:
    """What a handler answers. body: anything JSON can hold, bytes, an async iterator of bytes, or None."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json"


@dataclass
class Request:
    """One request, as a handler sees it."""

    method: str
    path: str
    headers: Mapping[str, str]  # names in lower case
    query: list[tuple[str, str]]
    base_url: str  # scheme://host[:port] as the client wrote it
    receive: Receive
    request_id: str
    context: Context = field(default_factory=lambda: Context(request_id="req-none"))
    params: dict[str, str] = field(default_factory=dict)
    version: Version = (0, 0)
    token: str | None = None
    body: Any = None  # the parsed JSON, where the route takes one
    nesting: int = NESTING  # how deep that may be
    slash: bool = False  # the URL ended in one, which `path` leaves out
    service: "Service | None" = None
    route: "Route | None" = None
    found: Any = None  # what the route's gate looked for
    policy: Allows | None = None
    hold: Hold = endless

    @property
    def room(self) -> Room:
        """What is read for the answer is held in it: a new one at each call. Nothing is told of what is deleted."""
        room = self.hold(self.context.project_id or self.context.user_id or source.get())
        return room.of(change=self.method not in ("GET", "HEAD", "DELETE"))

    def allows(self, rule: str, facts: Facts | None = None) -> bool:
        """Whether the caller may do a part of what the route does; `rule` is one that its gate names. facts: about
        what; None: the caller's own."""
        if self.route is None or self.policy is None or rule not in self.route.gate.names:
            raise LookupError(f"{rule} is not among the rules of {self.route and self.route.path}")
        return self.policy(self.context, rule, gate.own(self.context) if facts is None else facts)

    def require(self, rule: str, facts: Facts | None = None) -> None:
        """Raises the service's refusal unless `allows`."""
        if not self.allows(rule, facts) and self.service:
            raise self.service.refusal(rule)

    @property
    def service_url(self) -> str:
        """The service's public root, without a closing slash."""
        return self.base_url + (self.service.prefix if self.service else "")

    def one(self, name: str, default: str | None = None) -> str | None:
        """The last value of a query parameter."""
        return next((v for k, v in reversed(self.query) if k == name), default)

    async def stream(self) -> AsyncIterator[bytes]:
        """The raw body, chunk by chunk."""
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise e.BadRequest("The client went away in the middle of the body.")
            if chunk := message.get("body", b""):
                yield chunk
            if not message.get("more_body", False):
                return


Handler = Callable[[Request], Awaitable[Any]]
#: Checks a parsed body or query and returns it, perhaps converted; raises BadRequest naming the field.
Check = Callable[[Request, Any], Any]


@dataclass(frozen=True)
class Route:
    """One line of an API. The table drives dispatch, fuzzing and the documentation."""

    method: str
    path: str  # "/servers/{server_id}"
    handler: Handler
    policy: Gate | str | None = None  # a rule alone: about the caller's own project. Without it, no start
    body: Check | None = None  # given: the route takes a JSON body
    query: Check | None = None
    action: str | None = None  # POST .../action: the body's key that selects this route
    since: Version | None = None
    until: Version | None = None
    raw: bool = False  # the handler reads the body itself

    @property
    def gate(self) -> Gate:
        """What it asks."""
        return self.policy if isinstance(self.policy, Gate) else gate.asks(self.policy or "")

    @property
    def public(self) -> bool:
        """No token is needed."""
        return self.gate is PUBLIC


class FaultRenderer(Protocol):
    """How a service words an error."""

    def __call__(self, error: e.NacreError, status: int, request: Request) -> Reply: ...


class Negotiator(Protocol):
    """A service's microversions: the version a request asks for, and the headers that say so in the answer."""

    def pick(self, headers: Mapping[str, str]) -> Version: ...
    def headers(self, version: Version | None, asked: str | None) -> list[tuple[str, str]]: ...
    def asked(self, headers: Mapping[str, str]) -> str | None: ...


def refused(rule: str) -> e.NacreError:
    """How a refusal is worded where a service has no words of its own."""
    return e.Forbidden(f"Policy doesn't allow {rule} to be performed.")


@dataclass
class Service:
    """One API under one URL prefix. Raises ValueError for a route that does not say who may use it."""

    name: str
    prefix: str  # "/compute"
    routes: Sequence[Route]
    fault: FaultRenderer
    negotiator: Negotiator | None = None
    statuses: Mapping[type[e.NacreError], int] = field(default_factory=dict)  # where this API differs from STATUS
    request_id_headers: tuple[str, ...] = ("x-openstack-request-id",)
    max_body: int = MAX_BODY  # bytes of JSON
    strict_slash: bool = False  # a URL that ends in a slash is another one, and there is none
    refusal: gate.Refusal = refused

    def __post_init__(self) -> None:
        self._paths = Paths[Route]()
        if nameless := [f"{r.method} {r.path} {r.action or ''}".rstrip() for r in self.routes if r.policy is None]:
            raise ValueError(f"Routes of {self.name} that name no policy: {', '.join(nameless)}")
        for route in self.routes:
            self._paths.add(route.path, route)

    def find(self, path: str) -> list[tuple[Route, dict[str, str]]]:
        """Every route whose path matches, with the path's parameters; literal segments win over parameters."""
        return self._paths.find(path)


Authenticate = Callable[[str], Awaitable[Context]]


class App:
    """The ASGI application: services by prefix. `authenticate` raises Unauthenticated; `allows` is the policy."""

    def __init__(self, services: Iterable[Service], authenticate: Authenticate, allows: Allows, *,
                 nesting: int = NESTING, turns: Turns | None = None):
        self._services = {s.prefix: s for s in services}
        self._authenticate, self._allows, self._nesting = authenticate, allows, nesting
        self._turns = turns or Turns()
        self._bodies = Turns(self._turns.at_once, self._turns.waiting, "one user, with bodies,")
        self.services = list(self._services.values())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = _request(scope, receive)
        request.nesting, request.hold = self._nesting, hold_of(scope)
        source.set((scope.get("client") or ("",))[0])
        try:
            reply = await self._answer(request)
        except e.NacreError as error:
            reply = self._fault(request, error)
        except e.Interrupted as error:
            reply = self._fault(request, e.Unavailable(error.message, details=error.details))
        except Exception:
            log.exception("request failed", method=request.method, path=request.path, request_id=request.request_id)
            reply = self._fault(request, e.NacreError(
                f"Unexpected error. Give the operator this request id: {request.request_id}"))
        log.debug("request", method=request.method, path=request.path, status=reply.status,
                  request_id=request.request_id)
        try:
            await _send(request, reply, send)
        except Full as error:  # nothing is sent yet
            await _send(request, self._fault(request, error), send)

    async def _answer(self, request: Request) -> Reply:
        head, _, _ = request.path.lstrip("/").partition("/")
        service = self._services.get("/" + head) or self._services.get("")
        if service is None:
            raise e.NoSuchRoute
        request.service = service
        inner = request.path[len(service.prefix):] or "/"
        if service.negotiator:
            request.version = service.negotiator.pick(request.headers)
        matches = [] if service.strict_slash and request.slash and inner != "/" else service.find(inner)
        routes = [m for m in matches if m[0].method == request.method] or (
            [m for m in matches if m[0].method == "GET"] if request.method == "HEAD" else [])
        public = bool(routes) and routes[0][0].public
        request.token = request.headers.get("x-auth-token")
        if not public:
            if not request.token:
                raise e.Unauthenticated
            context = await self._authenticate(request.token)
            request.context = msgspec.structs.replace(context, request_id=request.request_id, admin=self._allows(
                context, gate.ADMIN, gate.own(context)))
        if not routes:
            raise e.NotAllowed if matches else e.NoSuchRoute
        if public or routes[0][0].raw:  # a body that is long on its way holds up nobody
            return await answer(request, routes, self._allows)
        user = request.context.user_id or ""
        project = request.context.project_id or user
        try:
            size = announced(request.headers, _most(request, routes))
        except e.TooLarge:
            await self._turns.pace(project)
            raise
        # So many bodies of one user are held, whether they come slowly or wait for the project's turn.
        async with self._bodies.turn(f"{project} {user}", size=size) if _with_body(routes) else nullcontext():
            raw = await admit(request, routes, self._allows)
            async with self._turns.turn(project, user):
                request.room.check_change()
                return await work(request, routes, raw)

    def _fault(self, request: Request, error: e.NacreError) -> Reply:
        if error.details:
            log.warning("request failed", why=str(error), request_id=request.request_id)
            if request.context.is_admin:
                error.message = str(error)
        service = request.service
        status = service.statuses.get(type(error), status_of(error)) if service else status_of(error)
        if service is None:
            return Reply({"error": {"code": status, "message": error.message}}, status)
        reply = service.fault(error, status, request)
        if status == 503 or isinstance(error, e.TooMany):  # whatever is away, it is looked for all the time
            reply.headers.setdefault("retry-after", "1")
        return reply


async def answer(request: Request, routes: list[tuple[Route, dict[str, str]]], allows: Allows) -> Reply:
    """What one of these routes answers to the request of a caller that is known."""
    return await work(request, routes, await admit(request, routes, allows))


async def admit(request: Request, routes: list[tuple[Route, dict[str, str]]], allows: Allows) -> bytes:
    """What is asked before anything is done: whether the caller may, where that needs neither an object nor the body.
    Then the body is read, which is what is returned."""
    request.policy = allows
    if not any(route.action for route, _ in routes):
        await _begin(request, routes)
    if not _with_body(routes):
        return b""
    return await read(request.headers, request.stream(), _most(request, routes))


async def work(request: Request, routes: list[tuple[Route, dict[str, str]]], raw: bytes) -> Reply:
    """The rest, of a request that was admitted."""
    request.body = parse_json(raw, request.nesting)
    route = request.route or await _begin(request, routes)
    if route.query:
        route.query(request, request.query)
    if route.body:
        request.body = route.body(request, request.body)
        if b"\\u0000" in raw and (where := nul_in(request.body)) is not None:
            raise e.BadRequest(f"{where or 'The body'} holds a NUL character, which no text may.", field=where)
    if route.gate.target:
        await _pass(request, route.gate)
    found = await route.handler(request)
    return found if isinstance(found, Reply) else Reply(found)


def _most(request: Request, routes: list[tuple[Route, dict[str, str]]]) -> int:
    """Bytes of the largest body."""
    most = request.service.max_body if request.service else MAX_BODY
    return min(most, OSLO_BODY) if routes[0][0].public else most


def _with_body(routes: list[tuple[Route, dict[str, str]]]) -> bool:
    return any(route.body or route.action for route, _ in routes)


async def _begin(request: Request, routes: list[tuple[Route, dict[str, str]]]) -> Route:
    """The route is chosen, and asks what it asks of no object."""
    request.route, request.params = _choose(request, routes)
    refuse_nul(request.params.values(), request.query)
    if not request.route.gate.open and not request.route.gate.target:
        await _pass(request, request.route.gate)
    return request.route


async def _pass(request: Request, asked: Gate) -> None:
    """The gate: the only place where a route's rules are asked. Raises what `gate.check` raises."""
    subject = await asked.target(request) if asked.target else gate.Subject(gate.own(request.context))
    refusal = request.service.refusal if request.service else refused
    request.found = gate.check(asked, subject, request.allows, refusal)


def _choose(request: Request, routes: list[tuple[Route, dict[str, str]]]) -> tuple[Route, dict[str, str]]:
    """The route for this version and, for actions, this body. Raises NoSuchRoute, BadRequest."""
    fitting = [(r, p) for r, p in routes
               if (r.since is None or request.version >= r.since) and (r.until is None or request.version <= r.until)]
    if fitting and fitting[0][0].action:
        if not isinstance(request.body, dict) or len(request.body) != 1:
            raise e.BadRequest("There must be exactly one action in the request body.", field="action")
        key = next(iter(request.body))
        fitting = [(r, p) for r, p in fitting if r.action == key]
        if not fitting:
            raise e.BadRequest(f"There is no such action: {key}", field="action")
    if not fitting:
        raise e.NoSuchRoute
    return fitting[0]


def _request(scope: Scope, receive: Receive) -> Request:
    headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
    host = headers.get("host") or "{}:{}".format(*scope.get("server", ("localhost", 80)))
    query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True, errors="replace")
    path = scope["path"]
    return Request(scope["method"], path if path == "/" else path.rstrip("/"), headers, query,
                   f"{scope.get('scheme', 'http')}://{host}", receive, f"req-{uuid.uuid4()}",
                   slash=path.endswith("/"))


async def _send(request: Request, reply: Reply, send: Send) -> None:
    service, body = request.service, reply.body
    headers = list(reply.headers.items())
    headers += [(h, request.request_id) for h in (service.request_id_headers if service else ())]
    if service and service.negotiator:
        headers += service.negotiator.headers(request.version, service.negotiator.asked(request.headers))
    stream = hasattr(body, "__aiter__")
    headers += [] if body is None else [("content-type", reply.content_type)]
    data = b"" if stream or body is None else body if isinstance(body, bytes) else msgspec.json.encode(body)
    bodiless = reply.status in (204, 304) or reply.status < 200
    if not stream and not bodiless and not any(k.lower() == "content-length" for k, _ in headers):
        headers.append(("content-length", str(len(data))))
    room = request.room
    if len(data) > _SMALL and request.method == "GET" and reply.status < 400:
        room.check(len(data))
    start = {"type": "http.response.start", "status": reply.status,
             "headers": [(k.lower().encode("latin-1"), v.encode("latin-1", "replace")) for k, v in headers]}
    if stream:
        return await send_stream(send, request.receive, start, body, head=request.method == "HEAD")
    await send(start)
    reply.body = body = request.body = request.found = None  # nothing but the bytes while a client takes its time
    await send_whole(send, b"" if request.method == "HEAD" or bodiless else data, room)
