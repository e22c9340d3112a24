"""What every part of the API works with: policy, the store, and the shapes of answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from nacre.base.context import Context
from nacre.base.errors import BadRequest
from nacre.base.web import Request
from nacre.identity.contract import Policy
from nacre.identity.keys.vault import Vault
from nacre.identity.records import MAX_PAGE, Kind, Page, document
from nacre.identity.service import IdentityService
from nacre.identity.store import Store

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Desk:
    """The objects that handlers share."""

    identity: IdentityService
    policy: Policy
    vault: Vault  # for secrets that must be read again: blobs of credentials

    @property
    def store(self) -> Store:
        return self.identity.store

    def check(self, request: Request, rule: str, target: Row | None = None) -> None:
        """Raises Forbidden unless the caller may do `identity:rule`. target: dotted names, without the absent ones."""
        known = {k: v for k, v in (target or {}).items() if v is not None or k == "target.role.domain_id"}
        self.policy.check(request.context, f"identity:{rule}", known)

    def see(self, request: Request, rule: str, kind: Kind, row: Row | None) -> None:
        """`check` with the row (None: it is not there, which only those may learn who may see any) as the target."""
        self.check(request, rule, about(kind, row))


def about(kind: Kind, row: Row | None) -> dict[str, Any]:
    """The policy target that a row is."""
    if row is None:
        return {}
    return {f"target.{kind.name}.{k}": row[k] or None for k in ("id", "domain_id", "name", "user_id") if k in row}


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
    query = urlencode(request.query)
    following = None
    if page and page.limit and len(items) == page.limit:
        rest = [(k, v) for k, v in request.query if k != "marker"]
        following = f"{here}?{urlencode([*rest, ('marker', items[-1]['id'])])}"
    return {plural: items, "links": {"next": following, "self": f"{here}?{query}" if query else here, "previous": None}}


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
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise BadRequest("Invalid input for query parameters limit: a whole number of 0 or more.", field="limit")
    return min(int(text), MAX_PAGE) or None


def own_domain(context: Context) -> str | None:
    """The domain whose things alone a caller sees in lists: that of a domain token without the admin role."""
    return context.domain_id if context.domain_id and not context.is_admin else None


def domain_for_new(context: Context) -> str:
    """Where a thing goes when its maker does not say."""
    return context.domain_id or context.project_domain_id or "default"
