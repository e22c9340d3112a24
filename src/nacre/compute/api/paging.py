"""Pages of a list, and the links in every answer."""

from typing import Any

from nacre.base.errors import BadRequest
from nacre.base.serving.inputs import whole_number
from nacre.base.serving.paths import link
from nacre.base.web import Request

#: The largest page, and the size of one nobody asked a size for.
MAX_LIMIT = 1000


def limit_and_marker(request: Request) -> tuple[int, str | None]:
    """How many items to give (1..MAX_LIMIT, or 0) and after which one. Raises BadRequest."""
    text = request.one("limit")
    if text is None or text == "":
        return MAX_LIMIT, request.one("marker")
    number = whole_number(text)
    if number is None:
        negative = text.startswith("-")
        raise BadRequest("limit param must be positive" if negative else "limit param must be an integer",
                         field="limit")
    return min(number, MAX_LIMIT), request.one("marker")


def next_link(request: Request, items: list[Any], last: str, limit: int) -> list[dict[str, str]]:
    """The link to the next page, given whenever this one is full (also where nothing follows)."""
    if not items or len(items) < limit:
        return []
    here = request.base_url + request.path
    return [{"rel": "next", "href": link(here, request.query, limit=request.one("limit") or None, marker=last)}]


def links(request: Request, collection: str, ident: str) -> list[dict[str, str]]:
    """The self and bookmark links of one thing."""
    root = request.service_url
    return [{"rel": "self", "href": f"{root}/v2.1/{collection}/{ident}"},
            {"rel": "bookmark", "href": f"{root}/{collection}/{ident}"}]


def bookmark(request: Request, collection: str, ident: str) -> list[dict[str, str]]:
    """The bookmark link alone, for things named inside others."""
    return [{"rel": "bookmark", "href": f"{request.service_url}/{collection}/{ident}"}]
