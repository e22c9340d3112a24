"""The APIs of old that only pass a request on to the image or the network service: gone from 2.36 on.

Images are shown; the rest is not built, and says so. Clients use those services themselves.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from nacre.base.errors import NotBuilt, NotFound
from nacre.base.web import Request, Route, Version
from nacre.compute.api.microversions import PROXIES_UNTIL
from nacre.compute.api.paging import bookmark, links
from nacre.compute.policies import rule
from nacre.image.contract import ImageFacts, Images

#: Images' metadata stayed until 2.38.
METADATA_UNTIL: Version = (2, 38)

#: (URL, policy) of what only passed on to the network service.
NETWORK: tuple[tuple[str, str], ...] = (
    ("os-networks", "os-networks:list"), ("os-tenant-networks", "os-tenant-networks:list"),
    ("os-security-groups", "os-security-groups:get"), ("os-security-group-rules", "os-security-groups:rule:create"),
    ("os-floating-ips", "os-floating-ips:list"), ("os-floating-ip-pools", "os-floating-ip-pools"))
_STATUS = {"active": ("ACTIVE", 100), "queued": ("SAVING", 0), "saving": ("SAVING", 50), "deleted": ("DELETED", 0),
           "importing": ("SAVING", 50), "uploading": ("SAVING", 50)}


class ProxyRoutes:
    """Images by the compute API, and what is not built."""

    def __init__(self, images: Images):
        self._images = images

    def routes(self) -> list[Route]:
        """Every URL of the proxies."""
        one, old = "/v2.1/images/{image_id}", PROXIES_UNTIL
        metadata, key, until = one + "/metadata", one + "/metadata/{key}", METADATA_UNTIL
        unbuilt = [Route(method, f"/v2.1/{path}{more}", self._not_built(path), rule(policy), until=old)
                   for path, policy in NETWORK
                   for method, more in (("GET", ""), ("POST", ""), ("GET", "/{id}"), ("DELETE", "/{id}"))]
        return [
            Route("GET", "/v2.1/images", self._not_built("images"), until=old),
            Route("GET", "/v2.1/images/detail", self._not_built("images"), until=old),
            Route("GET", one, self.show, until=old), Route("DELETE", one, self.change, until=old),
            Route("GET", metadata, self.metadata, until=until), Route("PUT", metadata, self.change, until=until),
            Route("POST", metadata, self.change, until=until), Route("GET", key, self.item, until=until),
            Route("PUT", key, self.change, until=until), Route("DELETE", key, self.change, until=until), *unbuilt]

    async def show(self, request: Request) -> Any:
        """GET /images/{id}."""
        image = await self._find(request)
        status, progress = _STATUS.get(image.status, ("UNKNOWN", 0))
        root = f"{request.base_url}/image"
        return {"image": {
            "id": image.id, "name": image.name, "minRam": image.min_ram, "minDisk": image.min_disk,
            "metadata": image.properties, "status": status, "progress": progress,
            "OS-EXT-IMG-SIZE:size": image.size, "links": [
                *links(request, "images", image.id),
                {"rel": "alternate", "type": "application/vnd.openstack.image",
                 "href": bookmark(request, "images", image.id)[0]["href"].replace(request.service_url, root)}]}}

    async def metadata(self, request: Request) -> Any:
        """GET /images/{id}/metadata."""
        return {"metadata": (await self._find(request)).properties}

    async def item(self, request: Request) -> Any:
        """GET /images/{id}/metadata/{key}."""
        image, key = await self._find(request), request.params["key"]
        if key not in image.properties:
            raise NotFound("Metadata item was not found")
        return {"meta": {key: image.properties[key]}}

    async def change(self, request: Request) -> Any:
        """Changing an image by way of compute."""
        await self._find(request)
        raise NotBuilt("Nacre changes images by the image service only.")

    async def _find(self, request: Request) -> ImageFacts:
        try:
            return await self._images.find(request.context, request.params["image_id"])
        except NotFound:
            raise NotFound("Image not found.") from None

    def _not_built(self, path: str) -> Callable[[Request], Awaitable[Any]]:
        async def handler(request: Request) -> Any:
            raise NotBuilt(f"Nacre does not pass {path} on to another service. Ask that service itself.")

        return handler
