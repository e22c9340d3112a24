"""The tags of every resource that has them."""

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from nacre.base.errors import BadRequest, NotFound
from nacre.base.serving.gate import Gate, asks
from nacre.base.web import Reply, Request, Route
from nacre.network import tables as t
from nacre.network.api.resource import Controller
from nacre.network.l2 import ranges
from nacre.network.manager import NetworkManager
from nacre.network.nouns import checks
from nacre.network.nouns.network import SegmentRange
from nacre.network.nouns.noun import View
from nacre.network.work import Work

TAGGED: dict[str, sa.Table] = {
    "networks": t.networks, "subnets": t.subnets, "ports": t.ports, "security_groups": t.security_groups,
    "routers": t.routers, "floatingips": t.floatingips, "subnetpools": t.subnetpools, "policies": t.qos_policies,
    "trunks": t.trunks, "network_segment_ranges": t.segment_ranges,
}
MAX_TAGS = 50


class Tags:
    """/v2.0/<resources>/<id>/tags[/<tag>] of one resource."""

    def __init__(self, manager: NetworkManager, controller: Controller, names: tuple[str, str, str]):
        self._manager, self._controller = manager, controller
        self._name, self._plural, self._path = names

    def routes(self) -> list[Route]:
        all_, one = f"/v2.0/{self._path}/{{id}}/tags", f"/v2.0/{self._path}/{{id}}/tags/{{tag}}"

        def write(verb: str) -> Gate:  # seeing a shared resource is not enough
            return asks(f"{verb}_{self._name}:tags", about=self._controller.about)

        see = asks(f"get_{self._name}:tags", about=self._controller.seen)
        return [Route("GET", all_, self.index, see), Route("GET", one, self.show, see),
                Route("PUT", all_, self.replace, write("update"), body=_tags_body),
                Route("PUT", one, self.add, write("update")),
                Route("POST", all_, self.extend, write("create"), body=_tags_body),
                Route("DELETE", all_, self.clear, write("delete")), Route("DELETE", one, self.remove, write("delete"))]

    async def index(self, request: Request) -> View:
        return {"tags": request.found["tags"]}

    async def show(self, request: Request) -> Reply:
        tags = (await self.index(request))["tags"]
        if request.params["tag"] not in tags:
            raise _no_tag(request.params["tag"])
        return Reply(status=204)

    async def add(self, request: Request) -> Reply:
        try:
            tag = checks.tag(request.params["tag"])
        except ValueError as error:
            raise BadRequest(f"Invalid input for tag. Reason: {error}.", field="tag") from None
        await self._write(request, lambda tags: [*tags, tag])
        return Reply(status=201)

    async def extend(self, request: Request) -> View:
        return {"tags": await self._write(request, lambda tags: [*tags, *request.body])}

    async def replace(self, request: Request) -> View:
        return {"tags": await self._write(request, lambda tags: request.body)}

    async def clear(self, request: Request) -> Reply:
        await self._write(request, lambda tags: [])
        return Reply(status=204)

    async def remove(self, request: Request) -> Reply:
        tag = request.params["tag"]

        def without(tags: list[str]) -> list[str]:
            if tag not in tags:
                raise _no_tag(tag)
            return [x for x in tags if x != tag]

        await self._write(request, without)
        return Reply(status=204)

    async def _write(self, request: Request, change: Callable[[list[str]], list[str]]) -> list[str]:
        def step(work: Work) -> list[str]:
            found = self._controller.one(work, request.params["id"])
            if isinstance(found, SegmentRange):
                ranges.refuse_configured(found)
            tags = sorted(set(change(found.tags)))
            if len(tags) > MAX_TAGS:
                raise BadRequest(f"A resource has at most {MAX_TAGS} tags.", field="tags")
            work.change(TAGGED[self._plural], request.params["id"], {"tags": tags})
            return tags

        return await self._manager.write(request.context, step)


def _no_tag(tag: str) -> NotFound:
    return NotFound(f"Tag {tag[:64]} could not be found.", type="TagNotFound")


def _tags_body(request: Request, body: Any) -> list[str]:
    if not isinstance(body, dict) or list(body) != ["tags"]:
        raise BadRequest("Invalid tags body", field="tags", type="HTTPBadRequest")
    try:
        found: list[str] = checks.tags(body["tags"])
    except ValueError as error:
        raise BadRequest(f"Invalid input for tags. Reason: {error}.", field="tags", type="HTTPBadRequest") from None
    return found
