"""How images and errors look on the wire."""

import html
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from nacre.base import errors as e
from nacre.base.clock import iso
from nacre.base.web import Reply, Request
from nacre.image.data.uploads import TooManyUploads
from nacre.image.records import Image

_SHOWN = ("name", "disk_format", "container_format", "visibility", "size", "virtual_size", "status", "checksum",
          "protected", "min_ram", "min_disk", "owner", "os_hidden", "os_hash_algo", "os_hash_value", "id")

#: Seconds after which one of the project's uploads may have ended.
RETRY = "30"
#: What the person is told who sent no token, in place of our own words: clients compare it.
_UNAUTHENTICATED = (
    "This server could not verify that you are authorized to access the document you requested. Either you supplied "
    "the wrong credentials (e.g., bad password), or your browser does not understand how to supply the credentials "
    "required.")
_PAGE = ("<html>\n <head>\n  <title>{title}</title>\n </head>\n <body>\n  <h1>{title}</h1>\n"
         "  {text}<br /><br />\n\n\n\n </body>\n</html>")


def image(one: Image) -> dict[str, Any]:
    """An image's document; free properties stand beside the rest."""
    base = f"/v2/images/{one.id}"
    view: dict[str, Any] = {**one.properties, **{name: one.row[name] for name in _SHOWN}}
    view |= {"created_at": iso(one.row["created_at"]), "updated_at": iso(one.row["updated_at"]),
             "tags": one.tags, "self": base, "file": f"{base}/file", "schema": "/v2/schemas/image"}
    if one.status in ("active", "deactivated") and one.location is not None:
        view["stores"] = one.location.store
    return view


def member(row: Mapping[str, Any]) -> dict[str, Any]:
    """One membership's document."""
    return {"member_id": row["member_id"], "image_id": row["image_id"], "status": row["status"],
            "created_at": iso(row["created_at"]), "updated_at": iso(row["updated_at"]), "schema": "/v2/schemas/member"}


def task(row: Mapping[str, Any]) -> dict[str, Any]:
    """One task's document."""
    return {"id": row["id"], "type": row["type"], "status": row["status"], "owner": row["owner"],
            "user_id": row["user_id"], "request_id": row["request_id"], "image_id": row["image_id"],
            "input": row["input"], "message": row["message"],
            "result": {"image_id": row["image_id"]} if row["status"] == "success" else None,
            "expires_at": row["expires_at"] and iso(row["expires_at"]),
            "created_at": iso(row["created_at"]), "updated_at": iso(row["updated_at"]),
            "self": f"/v2/tasks/{row['id']}", "schema": "/v2/schemas/task"}


def fault(error: e.NacreError, status: int, request: Request) -> Reply:
    """An error as a small HTML page, which is what this API's clients parse."""
    phrase = "Multiple Choices" if status == 300 else HTTPStatus(status).phrase
    text = _UNAUTHENTICATED if isinstance(error, e.Unauthenticated) else error.message
    page = _PAGE.format(title=f"{status} {phrase}", text=html.escape(text, quote=False))
    headers: dict[str, str] = {}
    if isinstance(error, e.Unauthenticated):
        headers["WWW-Authenticate"] = f'Keystone uri="{request.base_url}/identity/v3"'
    if isinstance(error, TooManyUploads):
        headers["Retry-After"] = RETRY
    if isinstance(error, e.NotAllowed) and request.service is not None:
        inner = request.path[len(request.service.prefix):] or "/"
        headers["Allow"] = ", ".join(sorted({route.method for route, _ in request.service.find(inner)}))
    return Reply(page.encode(), status, headers, "text/html; charset=UTF-8")


def refused(rule: str) -> e.NacreError:
    """Glance's words."""
    return e.Forbidden(f"You are not authorized to complete {rule} action.")
