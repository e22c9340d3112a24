"""One service of the process asked by another, in the caller's name: as a request of the caller's own would be, with
its routes, policies, checks and refusals, but for the way over the network."""

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from nacre.base.context import Context
from nacre.base.errors import NoSuchRoute
from nacre.base.serving.gate import Allows
from nacre.base.web import Request, Service, answer


class Asked(Protocol):
    """A service's API, for another service."""

    async def ask(self, context: Context, line: str, body: Any = None, query: Sequence[tuple[str, str]] = ()) -> Any:
        """line: "GET /v2.0/ports". The answer's document. Raises what the service refuses with."""
        ...


class Inside:
    """Implements `Asked`."""

    def __init__(self, service: Service, allows: Allows):
        self._service, self._allows = service, allows

    async def ask(self, context: Context, line: str, body: Any = None, query: Sequence[tuple[str, str]] = ()) -> Any:
        method, _, path = line.partition(" ")
        raw = b"" if body is None else msgspec.json.encode(body)

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": raw, "more_body": False}

        request = Request(method, self._service.prefix + path, {"content-type": CONTENT_TYPES.get(method, JSON)},
                          list(query), "", receive, context.request_id, context=context, service=self._service)
        routes = [match for match in self._service.find(path) if match[0].method == method]
        if not routes:
            raise NoSuchRoute
        return (await answer(request, routes, self._allows)).body


JSON = "application/json"
#: The image service changes images by patches of a type of their own.
CONTENT_TYPES = {"PATCH": "application/openstack-images-v2.1-json-patch"}
