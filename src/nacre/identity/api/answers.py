"""The shapes of answers, and the pages that lists are asked for."""

from collections.abc import Mapping, Sequence
from typing import Any

from nacre.base.context import Context
from nacre.base.errors import BadRequest
from nacre.base.serving.inputs import whole_number
from nacre.base.serving.paths import link
from nacre.base.web import Request
from nacre.identity.records import MAX_PAGE, Kind, Page, document

Row = Mapping[str, Any]


def url(request: Request) -> str:
    """The v3 root as the client knows it."""
    return request.service_url + "/v3"


def one(request: Request, kind: Kind, row: Row) -> dict[str, Any]:
    """`{"user": {...}}`."""
    return {kind.name: document(kind, row, url(request))}


def many(request: Request, kind: Kind, rows: Sequence[Row], page: Page | None = None) -> dict[str, Any]:
    """`{"users": [...], "links": {...}}`, with a next link when the page is full."""
    return collection(request, kind.plural, [document(kind, r, url(request)) for r in rows], page)


def collection(request: Request, plural: str, items: list[Any], page: Page | None = None) -> dict[str, Any]:
    """A list's answer."""
    here = request.base_url + request.path
    full = page and page.limit and len(items) == page.limit
    following = link(here, request.query, marker=items[-1]["id"]) if full else None
    return {plural: items, "links": {"next": following, "self": link(here, request.query), "previous": None}}


#: What may follow a filter's name after two underscores; an i in front: without regard to the case of letters.
COMPARISONS = {"", *(i + c for c in ("equals", "contains", "startswith", "endswith") for i in ("", "i"))}


def page_of(request: Request, *names: str) -> Page:
    """The page that a query asks for; only `names` filter (`name`, `name__contains` ...), the rest is ignored."""
    filters = []
    for key, value in request.query:
        name, _, comparison = key.partition("__")
        if name in names and comparison in COMPARISONS:
            filters.append((name, comparison or "equals", value))
    direction = request.one("sort_dir", "asc")
    if direction not in ("asc", "desc"):
        raise BadRequest("Invalid input for query parameters sort_dir: asc or desc.", field="sort_dir")
    return Page(filters=filters, sort_key=request.one("sort_key") or "", descending=direction == "desc",
                limit=_limit(request), marker=request.one("marker"))


def _limit(request: Request) -> int | None:
    text = request.one("limit")
    if text is None:
        return None
    number = whole_number(text)
    if number is None:
        raise BadRequest("Invalid input for query parameters limit: a whole number of 0 or more.", field="limit")
    return min(number, MAX_PAGE) or None


def own_domain(context: Context) -> str | None:
    """The domain whose things alone a caller sees in lists: that of a domain token, also of its administrator's."""
    return context.domain_id


def domain_for_new(context: Context) -> str:
    """Where a thing goes when its maker does not say."""
    return context.domain_id or context.project_domain_id or "default"
