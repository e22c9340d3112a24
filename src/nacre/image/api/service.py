"""The image API: every line of it, and the versions it speaks."""

from datetime import UTC
from typing import Any

from nacre.base import errors as e
from nacre.base.serving.gate import AUTHENTICATED, PUBLIC, asks
from nacre.base.web import Reply, Request, Route, Service
from nacre.image.api import views
from nacre.image.api.data import BadRange, DataApi
from nacre.image.api.images import IMPORT_METHODS, ImagesApi, any_body, changes_body, create_body
from nacre.image.api.metadefs import MetadefsApi
from nacre.image.api.metadefs import documents as metadef_documents
from nacre.image.cache import Cache
from nacre.image.data.uploads import Uploads
from nacre.image.members import Members
from nacre.image.metadefs.service import Metadefs
from nacre.image.records import Image
from nacre.image.schemas import DOCUMENTS
from nacre.image.service import VISIBILITY_RULES, ImageService

PREFIX = "/image"
#: The newest first.
VERSIONS = ("2.17", "2.16", "2.15", "2.14", "2.13", "2.12", "2.11", "2.10", "2.9", "2.8",
            "2.7", "2.6", "2.5", "2.4", "2.3", "2.2", "2.1", "2.0")
#: What is said of the stores.
DESCRIPTIONS = {"file": "The control processes' own folders", "shared": "A folder that all control processes share",
                "s3": "A bucket"}
#: Where this API's statuses differ from the common ones.
STATUSES: dict[type[e.NacreError], int] = {e.QuotaExceeded: 413, BadRange: 416}


def service(images: ImageService, uploads: Uploads, members: Members, metadefs: Metadefs) -> Service:
    """The Service to mount under /image."""
    info = InfoApi(images, Cache(images))
    routes = [*_image_routes(ImagesApi(images, uploads, members), DataApi(uploads)), *info.routes(
        ImagesApi(images, uploads, members)),
              *MetadefsApi(metadefs).routes()]
    return Service("image", PREFIX, routes, views.fault, statuses=STATUSES, strict_slash=True,
                   refusal=views.refused)


def _image_routes(api: ImagesApi, data: DataApi) -> list[Route]:
    one, may = "/v2/images/{image_id}", api.may
    return [
        Route("POST", "/v2/images", api.create, asks(
            "add_image", about=api.new, parts=tuple(VISIBILITY_RULES.values())), body=create_body),
        Route("GET", "/v2/images", api.list, "get_images"),
        Route("GET", one, api.show, may("get_image")),
        Route("PATCH", one, api.update, may("modify_image", parts=tuple(VISIBILITY_RULES.values())),
              body=changes_body),
        Route("DELETE", one, api.delete, may("delete_image")),
        Route("POST", one + "/actions/deactivate", api.deactivate, may("deactivate")),
        Route("POST", one + "/actions/reactivate", api.reactivate, may("reactivate")),
        Route("PUT", one + "/tags/{tag}", api.add_tag, may("modify_image")),
        Route("DELETE", one + "/tags/{tag}", api.drop_tag, may("modify_image")),
        Route("GET", one + "/members", api.list_members, may("get_members")),
        Route("POST", one + "/members", api.add_member, may("add_member"), body=any_body),
        Route("GET", one + "/members/{member_id}", api.show_member, may("get_member", seen="get_member")),
        Route("PUT", one + "/members/{member_id}", api.answer_member, may("modify_member"), body=any_body),
        Route("DELETE", one + "/members/{member_id}", api.remove_member, may("delete_member")),
        Route("POST", one + "/import", api.import_, may("modify_image"), body=any_body),
        Route("GET", one + "/tasks", api.list_tasks, may("get_image")),
        Route("GET", one + "/locations", _locations, may("fetch_image_location")),
        Route("POST", one + "/locations", _locations, may("add_image_location")),
        Route("GET", one + "/file", data.download, may("download_image")),
        Route("PUT", one + "/file", data.upload, may("upload_image"), raw=True),
        Route("PUT", one + "/stage", data.stage, may("modify_image"), raw=True),
    ]


async def _locations(_: Request) -> Reply:
    raise e.NotBuilt("Image data is kept in this cloud's own store; locations elsewhere are not offered.")


class InfoApi:
    """What the service says of itself: versions, schemas, import methods, stores, tasks."""

    def __init__(self, images: ImageService, cache: Cache):
        self._images, self._cache = images, cache

    def routes(self, api: ImagesApi) -> list[Route]:
        """Its lines of the API."""
        may = api.may
        documents = [Route("GET", f"/v2/schemas/{name}", _constant(body), AUTHENTICATED)
                     for name, body in (*DOCUMENTS.items(), *metadef_documents())]
        return [
            Route("GET", "/", self.choices, PUBLIC),
            Route("GET", "/versions", self.versions, PUBLIC),
            *documents,
            Route("GET", "/v2/info/import", self.import_methods, AUTHENTICATED),
            Route("GET", "/v2/info/stores", self.stores, AUTHENTICATED),
            Route("GET", "/v2/info/stores/detail", self.stores_detail, "stores_info_detail"),
            Route("GET", "/v2/info/usage", self.usage, AUTHENTICATED),
            Route("DELETE", "/v2/stores/{store}/{image_id}", self.delete_from_store, may("delete_image_location")),
            Route("GET", "/v2/cache", self.list_cache, "cache_list"),
            Route("DELETE", "/v2/cache", self.clear_cache, "cache_delete"),
            Route("PUT", "/v2/cache/{image_id}", self.queue_image, may("cache_image")),
            Route("DELETE", "/v2/cache/{image_id}", self.drop_cached, may("cache_delete")),
            Route("GET", "/v2/tasks", self.tasks, "tasks_api_access"),
            Route("GET", "/v2/tasks/{task_id}", self.task, "tasks_api_access"),
            Route("POST", "/v2/tasks", self.new_task, "tasks_api_access"),
        ]

    async def choices(self, request: Request) -> Reply:
        return Reply({"versions": _versions(request)}, 300)

    async def versions(self, request: Request) -> Reply:
        return Reply({"versions": _versions(request)})

    async def import_methods(self, _: Request) -> dict[str, Any]:
        return {"import-methods": {"description": "Import methods available.", "type": "array",
                                   "value": list(IMPORT_METHODS)}}

    async def stores(self, _: Request) -> dict[str, Any]:
        return {"stores": self._stores()}

    async def stores_detail(self, request: Request) -> dict[str, Any]:
        return {"stores": [{**store, "type": store["id"], "properties": {}} for store in self._stores()]}

    async def tasks(self, request: Request) -> dict[str, Any]:
        rows = await self._images.all_tasks()
        brief = [{k: v for k, v in views.task(row).items() if k not in ("input", "result", "message")} for row in rows]
        return {"tasks": brief, "first": "/v2/tasks", "schema": "/v2/schemas/tasks"}

    async def task(self, request: Request) -> dict[str, Any]:
        return views.task(await self._images.task(request.params["task_id"]))

    async def new_task(self, request: Request) -> Reply:
        raise e.BadRequest("Tasks cannot be created here. Upload the data, or stage it and ask for its import.")

    async def usage(self, request: Request) -> dict[str, Any]:
        used, own = await self._images.usage(request.context), self._images.settings
        limits = {"image_size_total": own.max_project_bytes, "image_count_total": own.max_project_images,
                  "image_count_uploading": own.max_project_uploads}
        return {"usage": {name: {"usage": value, "limit": limits.get(name) or -1} for name, value in used.items()}}

    async def delete_from_store(self, request: Request) -> Reply:
        image: Image = request.found
        if image.location is None or request.params["store"] != image.location.store:
            raise e.NotFound(f"The image is not in the store {request.params['store'][:64]}.")
        raise e.Forbidden("The image has its data in this store alone. Delete the image to delete the data.")

    async def list_cache(self, request: Request) -> dict[str, Any]:
        here, queued = await self._cache.list()
        cached = [{"image_id": row.id, "hits": 0, "last_accessed": row.queued_at.replace(tzinfo=UTC).timestamp(),
                   "last_modified": row.queued_at.replace(tzinfo=UTC).timestamp(), "size": row.size} for row in here]
        return {"cached_images": cached, "queued_images": queued}

    async def clear_cache(self, request: Request) -> Reply:
        await self._cache.clear(request.headers.get("x-image-cache-clear-target", "").lower())
        return Reply(status=204)

    async def queue_image(self, request: Request) -> Reply:
        await self._cache.queue(request.context, request.params["image_id"])
        return Reply(status=202)

    async def drop_cached(self, request: Request) -> Reply:
        await self._cache.drop(request.context, request.params["image_id"])
        return Reply(status=204)

    def _stores(self) -> list[dict[str, str]]:
        data = self._images.data
        return [{"id": name, "description": DESCRIPTIONS.get(name, "The images' data"),
                 **({"default": "true"} if name == data.default else {})} for name in data.stores]


def _versions(request: Request) -> list[dict[str, Any]]:
    links = [{"rel": "self", "href": f"{request.service_url}/v2/"}]
    return [{"id": f"v{v}", "status": "SUPPORTED" if i else "CURRENT", "links": links} for i, v in enumerate(VERSIONS)]


def _constant(body: Any) -> Any:
    async def answer(_: Request) -> Any:
        return body
    return answer
