"""/images (to 2.35) and /images/{id}/metadata (to 2.38), as the image service knows them."""

from collections.abc import Mapping
from typing import Any

from nacre.base.errors import BadRequest, Forbidden, NotFound
from nacre.base.serving.gate import AUTHENTICATED
from nacre.base.serving.inside import Asked
from nacre.base.web import Reply, Request, Route, Version
from nacre.compute.api import types as t
from nacre.compute.api.microversions import PROXIES_UNTIL
from nacre.compute.api.paging import limit_and_marker, links, next_link
from nacre.compute.api.validation import Schema

#: Images' metadata stayed until 2.38.
METADATA_UNTIL: Version = (2, 38)

_STATUS = {"active": "ACTIVE", "queued": "SAVING", "saving": "SAVING"}
_PROGRESS = {"queued": 25, "saving": 50, "active": 100}
#: What a list may be asked for: our name -> the image service's. The rest is `property-NAME`, and nothing else.
_FILTERS = {"name": "name", "minRam": "min_ram", "minDisk": "min_disk", "server": "instance_uuid",
            "type": "image_type", "status": "status", "changes-since": "updated_at"}
#: What of an image's document is no property of its own.
_PLAIN = frozenset({
    "id", "name", "disk_format", "container_format", "visibility", "size", "virtual_size", "status", "checksum",
    "protected", "min_ram", "min_disk", "owner", "os_hidden", "os_hash_algo", "os_hash_value", "created_at",
    "updated_at", "tags", "self", "file", "schema", "stores", "direct_url", "locations"})

_METADATA = Schema(t.wrap("metadata", t.METADATA))
_META = Schema(t.wrap("meta", {**t.METADATA, "minProperties": 1, "maxProperties": 1}))


class ImageRoutes:
    """Images by the compute API. images: the image service."""

    def __init__(self, images: Asked):
        self._images = images

    def routes(self) -> list[Route]:
        """Every URL."""
        many, one, old, until = "/v2.1/images", "/v2.1/images/{image_id}", PROXIES_UNTIL, METADATA_UNTIL
        metadata, key = one + "/metadata", one + "/metadata/{key}"
        lines = (("GET", many, self.index, None, old), ("GET", many + "/detail", self.detail, None, old),
                 ("GET", one, self.show, None, old), ("DELETE", one, self.delete, None, old),
                 ("GET", metadata, self.metadata, None, until), ("GET", key, self.item, None, until),
                 ("POST", metadata, self.merge, _METADATA, until), ("PUT", metadata, self.replace, _METADATA, until),
                 ("PUT", key, self.put, _META, until), ("DELETE", key, self.drop, None, until))
        # Nova asks nothing of its own: the image service decides.
        return [Route(method, path, handler, AUTHENTICATED, body=body, until=last)
                for method, path, handler, body, last in lines]

    async def index(self, request: Request) -> Any:
        """GET /images."""
        return await self._list(request, full=False)

    async def detail(self, request: Request) -> Any:
        """GET /images/detail."""
        return await self._list(request, full=True)

    async def show(self, request: Request) -> Any:
        """GET /images/{id}."""
        return {"image": _view(request, await self._find(request))}

    async def delete(self, request: Request) -> Any:
        """DELETE /images/{id}."""
        image = await self._find(request)
        try:
            await self._images.ask(request.context, f"DELETE /v2/images/{image['id']}")
        except Forbidden:
            raise Forbidden("You are not allowed to delete the image.") from None
        return Reply(status=204)

    async def metadata(self, request: Request) -> Any:
        """GET .../metadata."""
        return {"metadata": _properties(await self._find(request))}

    async def item(self, request: Request) -> Any:
        """GET .../metadata/{key}."""
        found, key = _properties(await self._find(request)), request.params["key"]
        if key not in found:
            raise NotFound
        return {"meta": {key: found[key]}}

    async def merge(self, request: Request) -> Any:
        """POST .../metadata."""
        image = await self._find(request)
        return {"metadata": await self._set(request, image, _properties(image) | request.body["metadata"])}

    async def replace(self, request: Request) -> Any:
        """PUT .../metadata."""
        return {"metadata": await self._set(request, await self._find(request), request.body["metadata"])}

    async def put(self, request: Request) -> Any:
        """PUT .../metadata/{key}."""
        meta, key = request.body["meta"], request.params["key"]
        if key not in meta:
            raise BadRequest("Request body and URI mismatch")
        image = await self._find(request)
        await self._set(request, image, _properties(image) | {key: meta[key]})
        return {"meta": meta}

    async def drop(self, request: Request) -> Any:
        """DELETE .../metadata/{key}."""
        image, key = await self._find(request), request.params["key"]
        left = _properties(image)
        if left.pop(key, None) is None:
            raise NotFound("Invalid metadata key")
        await self._set(request, image, left)
        return Reply(status=204)

    async def _set(self, request: Request, image: Mapping[str, Any], wanted: Mapping[str, str]) -> Mapping[str, str]:
        """The image has these properties and no others."""
        before = _properties(image)
        patch = [{"op": "remove", "path": _pointer(name)} for name in before if name not in wanted]
        patch += [{"op": "add", "path": _pointer(name), "value": value}
                  for name, value in wanted.items() if before.get(name) != value]
        if patch:
            await self._images.ask(request.context, f"PATCH /v2/images/{image['id']}", patch)
        return wanted

    async def _find(self, request: Request) -> dict[str, Any]:
        if "/" in (ident := request.params["image_id"]):
            raise NotFound("Image not found.")
        try:
            found: dict[str, Any] = await self._images.ask(request.context, f"GET /v2/images/{ident}")
        except NotFound:
            raise NotFound("Image not found.") from None
        return found

    async def _list(self, request: Request, full: bool) -> Any:
        limit, marker = limit_and_marker(request)
        query = [pair for name, value in request.query if (pair := _filter(name, value))]
        query += [("limit", str(limit))] + ([("marker", marker)] if marker else [])
        try:
            found = (await self._images.ask(request.context, "GET /v2/images", query=query))["images"]
        except NotFound as error:
            raise BadRequest(error.message, field="marker") from None
        shown = [_view(request, image) if full else _brief(request, image) for image in found]
        answer: dict[str, Any] = {"images": shown}
        if shown and (more := next_link(request, shown, shown[-1]["id"], limit)):
            answer["images_links"] = more
        return answer


def _filter(name: str, value: str) -> tuple[str, str] | None:
    """As the image service is asked; None: not at all."""
    if name.startswith("property-"):
        return (name.removeprefix("property-"), value) if name.removeprefix("property-") not in _PLAIN else None
    if name not in _FILTERS:
        return None
    if name == "server":
        value = value.rpartition("/")[2]
    if name == "status":
        value = value.lower()
    return _FILTERS[name], f"gte:{value}" if name == "changes-since" else value


def _pointer(name: str) -> str:
    return "/" + name.replace("~", "~0").replace("/", "~1")


def _properties(image: Mapping[str, Any]) -> dict[str, str]:
    return {name: value for name, value in image.items() if name not in _PLAIN}


def _links(request: Request, ident: str) -> list[dict[str, str]]:
    return [*links(request, "images", ident), {"rel": "alternate", "type": "application/vnd.openstack.image",
                                               "href": f"{request.base_url}/image/images/{ident}"}]


def _brief(request: Request, image: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": image["id"], "name": image["name"], "links": _links(request, image["id"])}


def _view(request: Request, image: Mapping[str, Any]) -> dict[str, Any]:
    properties, status = _properties(image), image["status"]
    found = _brief(request, image) | {
        "minRam": image["min_ram"] or 0, "minDisk": image["min_disk"] or 0, "metadata": properties,
        "created": image["created_at"], "updated": image["updated_at"], "status": _STATUS.get(status, "UNKNOWN"),
        "progress": _PROGRESS.get(status, 0), "OS-EXT-IMG-SIZE:size": image["size"]}
    if server := properties.get("instance_uuid"):
        found["server"] = {"id": server, "links": links(request, "servers", server)}
    if (config := properties.get("auto_disk_config")) is not None:
        found["OS-DCF:diskConfig"] = "AUTO" if config.lower() in ("true", "1", "on", "yes", "t", "y") else "MANUAL"
    return found
