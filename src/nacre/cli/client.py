"""A small OpenStack client: our own commands and benchmarks use the public API, as anyone would.

http.client with one kept-alive connection a thread, so that its own cost stays small: a client library's import alone
takes longer than most commands.
"""

import http.client
import json
import ssl
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode, urlsplit

import yaml

from nacre.base.errors import NacreError

if TYPE_CHECKING:  # it takes a while, and many commands show nothing
    from rich.console import Console

#: The newest compute microversion our commands speak.
COMPUTE_VERSION = "2.96"
#: A connection that nobody used for so long (seconds) may be closed by the server at any moment.
IDLE = 2.0
#: What the catalog's URLs lack.
VERSIONS = {"network": "/v2.0", "image": "/v2"}


def plain(said: Any, *, markup: bool = False) -> Any:
    """What tenants and hosts wrote, in a text or anything made of texts, for people's eyes: without the codes that a
    terminal obeys; markup: for a text where brackets mean something, which they do not there."""
    if isinstance(said, str):
        from rich.markup import escape

        said = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in said)
        return escape(said) if markup else said
    if isinstance(said, dict):
        return {plain(k): plain(v, markup=markup) for k, v in said.items()}
    return [plain(each, markup=markup) for each in said] if isinstance(said, list | tuple) else said


def screen(*, stderr: bool = False) -> "Console":
    """Where commands show things to people: the terminal breaks lines that are too long, not we, so that what is copied
    or searched is whole; a table that goes elsewhere is as wide as it needs."""
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False, soft_wrap=True)
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, soft_wrap=True, width=400)


def start_with(data: Path) -> str:
    """The command that starts the cloud of a data folder."""
    from nacre.config import data_folder

    return "nacre up -d" + ("" if data == data_folder(None) else f" --data {data}")


class ApiError(NacreError):
    """The cloud answered with an error, or not at all."""


class Missing(ApiError):
    """It answered that there is no such thing."""


class Answer(NamedTuple):
    """headers: by their names in lower case."""

    status: int
    headers: dict[str, str]
    content: bytes

    def json(self) -> Any:
        return json.loads(self.content)


def _message(answer: Answer) -> str:
    """What an error says, without the wrapping that each service has of its own."""
    try:
        found = answer.json()
        parts = [part for part in (found, *found.values()) if isinstance(part, dict)]
        said = next(part["message"] for part in parts if "message" in part)
    except (ValueError, AttributeError, StopIteration):
        said = answer.content.decode(errors="replace")
    return str(said)[:500]


class Session:
    """One cloud of a clouds.yaml: requests with a token, once `login` was called. roots: of services, by type."""

    def __init__(self, file: Path, cloud: str, microversion: str = COMPUTE_VERSION, timeout: float = 60.0):
        entry = yaml.safe_load(file.read_text())["clouds"][cloud]
        self.auth, self.microversion, self._timeout = entry["auth"], microversion, timeout
        self._trust: ssl.SSLContext | None = None  # until it is needed: the system's authorities take 20 ms to load
        try:
            if "cacert" in entry:
                self._trust = ssl.create_default_context(cafile=entry["cacert"])
        except OSError as error:
            raise ApiError(f"The authority that {file} names cannot be read: {entry['cacert']}: {error}.") from None
        self._local = threading.local()
        self.token, self.project_id, self.roots = "", "", dict[str, str]()

    def password_body(self) -> dict[str, Any]:
        """What asks for a token."""
        a = self.auth
        return {"auth": {"identity": {"methods": ["password"], "password": {"user": {
            "name": a["username"], "password": a["password"],
            "domain": {"name": a.get("user_domain_name", "Default")}}}},
            "scope": {"project": {"name": a["project_name"],
                                  "domain": {"name": a.get("project_domain_name", "Default")}}}}}

    def login(self) -> None:
        """Raises ApiError, and as `raw`."""
        url = self.auth["auth_url"].rstrip("/") + "/auth/tokens"
        answer = self.raw("POST", url, self.password_body())
        if answer.status != 201:
            raise ApiError(f"POST {url}: {answer.status} {answer.content[:500].decode(errors='replace')}")
        found = answer.json()["token"]
        self.token, self.project_id = answer.headers["x-subject-token"], found["project"]["id"]
        for service in found["catalog"]:
            root = next(e["url"] for e in service["endpoints"] if e["interface"] == "public").rstrip("/")
            version = VERSIONS.get(service["type"], "")
            self.roots[service["type"]] = root if root.endswith(version) else root + version

    def raw(self, method: str, url: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        """One request on this thread's connection. body: what becomes JSON, or bytes, or an iterator of them. Raises
        OSError, HTTPException."""
        parts = urlsplit(url)
        connection = self._connection(parts.scheme, parts.netloc)
        plain = isinstance(body, bytes) or (isinstance(body, Iterable) and not isinstance(body, dict | list | str))
        data = body if plain or body is None else json.dumps(body).encode()
        send = {"X-Auth-Token": self.token, "Content-Type": "application/json",
                "OpenStack-API-Version": f"compute {self.microversion}", **(headers or {})}
        target = parts.path + ("?" + parts.query if parts.query else "")
        for last in (False, True):
            try:
                connection.request(method, target, data, send)
                answer = connection.getresponse()
                self._local.used = time.monotonic()
                return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
            except (http.client.HTTPException, OSError):
                connection.close()
                if last or method != "GET":
                    raise
        raise AssertionError("not reached")

    def _connection(self, scheme: str, place: str) -> http.client.HTTPConnection:
        pool: dict[str, http.client.HTTPConnection] = self._local.__dict__.setdefault("pool", {})
        if place not in pool and scheme == "http":
            pool[place] = http.client.HTTPConnection(place, timeout=self._timeout)
        elif place not in pool:
            self._trust = self._trust or ssl.create_default_context()
            pool[place] = http.client.HTTPSConnection(place, timeout=self._timeout, context=self._trust)
        if time.monotonic() - self._local.__dict__.get("used", 0.0) > IDLE:
            pool[place].close()  # made anew by the request
        return pool[place]


class Client(Session):
    """One cloud of a data folder's clouds.yaml. Paths are given as ("compute", "/servers")."""

    def __init__(self, data: Path, cloud: str):
        file = data / "clouds.yaml"
        if not file.exists():
            raise ApiError(f"There is no {file}: start the cloud first with `{start_with(data)}`.")
        super().__init__(file, cloud)

    def request(self, method: str, service: str, path: str, **rest: Any) -> Answer:
        """One call. rest: json or content (the body), params, headers. Raises ApiError with the service's own words."""
        url = service
        try:
            if not self.token:
                self.login()
            url = self.roots[service] + path + ("?" + urlencode(rest["params"]) if rest.get("params") else "")
            answer = self.raw(method, url, rest.get("content", rest.get("json")), rest.get("headers"))
        except (OSError, http.client.HTTPException) as error:
            raise ApiError(f"{self.auth['auth_url']} does not answer ({error}). Is the cloud up? "
                           "See `nacre status`.") from None
        if answer.status >= 400:
            kind = Missing if answer.status == 404 else ApiError
            raise kind(f"{method} {url}: {answer.status} {_message(answer)}")
        return answer

    def get(self, service: str, path: str, **rest: Any) -> Any:
        """The JSON answer of a GET."""
        return self.request("GET", service, path, **rest).json()

    def post(self, service: str, path: str, body: Any, **rest: Any) -> Any:
        """The JSON answer of a POST; None where it has no body."""
        answer = self.request("POST", service, path, json=body, **rest)
        return answer.json() if answer.content else None
