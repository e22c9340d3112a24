"""/v2/images: one function for one line of the API, between the wire and the service."""

from collections.abc import Mapping
from typing import Any

from nacre.base import errors as e
from nacre.base.serving.gate import Gate, Subject, asks
from nacre.base.serving.paths import link
from nacre.base.web import Reply, Request
from nacre.image import patches, queries, records
from nacre.image.api import views
from nacre.image.data.uploads import Uploads
from nacre.image.members import Members
from nacre.image.schemas import check_image
from nacre.image.service import VISIBILITY_RULES, ImageService, draft_of

IMPORT_METHODS = ("glance-direct",)
#: Import methods that exist elsewhere: known names get a reason, not "unknown".
ELSEWHERE = frozenset({"web-download", "copy-image", "glance-download"})


def changes_body(request: Request, body: Any) -> Any:
    """A `Check` of a patch: the changes that it makes. Raises UnsupportedMedia, and what `patches.parse` raises."""
    kind = (request.headers.get("content-type") or "").partition(";")[0].strip().lower()
    if kind not in patches.DIALECTS:
        raise e.UnsupportedMedia(f"The content type must be one of {', '.join(sorted(patches.DIALECTS))}.",
                                 field="Content-Type")
    return patches.parse(body, patches.DIALECTS[kind])


class ImagesApi:
    """Handlers for images and their members."""

    def __init__(self, service: ImageService, uploads: Uploads, members: Members):
        self._service, self._uploads, self._members = service, uploads, members

    def may(self, rule: str, *, seen: str = "get_image", parts: tuple[str, ...] = ()) -> Gate:
        """A gate: may the caller do `rule` to the image of the URL? Who may not see it, by `seen`, is told that there
        is none."""
        async def about(request: Request) -> Subject:
            id = request.params["image_id"]
            image = await self._service.db.read(lambda conn: records.load(conn, request.context, id))
            return Subject(image.target, image, missing=records.missing(id), seen=seen)

        return asks(rule, about=about, parts=(*parts, seen))

    async def new(self, request: Request) -> Subject:
        """The image that a body describes; to show it to all needs a rule more."""
        image = draft_of(request.context, request.body, self._service.now())
        rule = VISIBILITY_RULES.get(image.row["visibility"])
        return Subject(image.target, image, more=((rule, image.target),) if rule else ())

    async def create(self, request: Request) -> Reply:
        image = await self._service.create(request.context, request.body)
        view = views.image(image)
        return Reply(view, 201, {"Location": f"{request.service_url}{view['self']}",
                                 "OpenStack-image-import-methods": ",".join(IMPORT_METHODS),
                                 "OpenStack-image-store-ids": ",".join(self._service.data.stores)})

    async def list(self, request: Request) -> dict[str, Any]:
        listing = queries.parse(request.query)
        images, more = await self._service.page(request.context, listing)
        answer = {"images": [views.image(i) for i in images], "schema": "/v2/schemas/images",
                  "first": link("/v2/images", request.query, marker=None)}
        if more and images:
            answer["next"] = link("/v2/images", request.query, marker=images[-1].id)
        return answer

    async def show(self, request: Request) -> dict[str, Any]:
        return views.image(request.found)

    async def update(self, request: Request) -> dict[str, Any]:
        image = await self._service.update(request.context, request.params["image_id"], request.body)
        return views.image(image)

    async def delete(self, request: Request) -> Reply:
        await self._service.delete(request.context, request.params["image_id"])
        return Reply(status=204)

    async def deactivate(self, request: Request) -> Reply:
        await self._service.set_active(request.context, request.params["image_id"], active=False)
        return Reply(status=204)

    async def reactivate(self, request: Request) -> Reply:
        await self._service.set_active(request.context, request.params["image_id"], active=True)
        return Reply(status=204)

    async def add_tag(self, request: Request) -> Reply:
        tag = request.params["tag"]
        check_image({"tags": [tag]})
        await self._service.tag(request.context, request.params["image_id"], tag, present=True)
        return Reply(status=204)

    async def drop_tag(self, request: Request) -> Reply:
        await self._service.tag(request.context, request.params["image_id"], request.params["tag"], present=False)
        return Reply(status=204)

    async def add_member(self, request: Request) -> dict[str, Any]:
        member = text_field(request.body, "member", 255)
        return views.member(await self._members.add(request.context, request.params["image_id"], member))

    async def list_members(self, request: Request) -> dict[str, Any]:
        rows = await self._members.list(request.context, request.params["image_id"])
        return {"members": [views.member(row) for row in rows], "schema": "/v2/schemas/members"}

    async def show_member(self, request: Request) -> dict[str, Any]:
        params = request.params
        return views.member(await self._members.show(request.context, params["image_id"], params["member_id"]))

    async def answer_member(self, request: Request) -> dict[str, Any]:
        status, params = text_field(request.body, "status", 20), request.params
        return views.member(await self._members.answer(
            request.context, params["image_id"], params["member_id"], status))

    async def remove_member(self, request: Request) -> Reply:
        params = request.params
        await self._members.remove(request.context, params["image_id"], params["member_id"])
        return Reply(status=204)

    async def import_(self, request: Request) -> Reply:
        order = import_order(request.body)
        await self._uploads.import_staged(request.context, request.params["image_id"], order)
        return Reply(status=202)

    async def list_tasks(self, request: Request) -> dict[str, Any]:
        rows = await self._service.tasks(request.params["image_id"])
        return {"tasks": [views.task(row) for row in rows]}


def create_body(_: Request, body: Any) -> Any:
    """Checks the body of POST /v2/images."""
    if not isinstance(body, Mapping):
        raise e.BadRequest("Body expected in request.")
    for name in ("direct_url", "self", "file", "schema", "stores"):
        if name in body:
            raise e.Forbidden(f"Attribute '{name}' is read-only.", field=name)
    check_image(body)
    return body


def any_body(_: Request, body: Any) -> Any:
    """Takes any JSON; the handler looks for what it needs."""
    return body


def text_field(body: Any, name: str, limit: int) -> str:
    """A required string of a body. Raises BadRequest."""
    value = body.get(name) if isinstance(body, Mapping) else None
    if not isinstance(value, str) or not value or len(value) > limit or "\x00" in value:
        raise e.BadRequest(f"Expected an object with a {name!r} of 1 to {limit} characters.", field=name)
    return value


def import_order(body: Any) -> Mapping[str, Any]:
    """What the body of POST .../import asks; a task keeps it. Raises BadRequest, or NotBuilt for a method that is not
    offered here."""
    method = body.get("method") if isinstance(body, Mapping) else None
    if not isinstance(method, Mapping):
        raise e.BadRequest("Import request requires a 'method' field.", field="method")
    name = method.get("name")
    if not isinstance(name, str):
        raise e.BadRequest("Import request requires a 'name' field.", field="method/name")
    if name in ELSEWHERE:
        raise e.NotBuilt(f"The import method {name!r} is not offered here. Upload the data, or use 'glance-direct'.")
    if name not in IMPORT_METHODS:
        raise e.BadRequest(f"Unknown import method name '{name[:64]}'.", field="method/name")
    flags = {flag: body[flag] for flag in ("all_stores", "all_stores_must_succeed") if flag in body}
    for flag, value in flags.items():
        if not isinstance(value, bool):
            raise e.BadRequest(f"'{flag}' must be boolean value only", field=flag)
    return {"method": {"name": name}, **flags}
