"""Lists: filters, fields, sorting and pages, over the attributes of a resource. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from nacre.base.errors import BadRequest, NotFound
from nacre.base.serving.inputs import whole_number
from nacre.base.serving.paths import after, link
from nacre.network.nouns.attributes import Attribute, Resource
from nacre.network.nouns.checks import shown
from nacre.network.nouns.noun import View

_CONTROL = ("fields", "limit", "marker", "page_reverse", "sort_key", "sort_dir")
_TAGS = ("tags", "tags-any", "not-tags", "not-tags-any")
#: A page is never larger than this, whatever was asked.
MAX_PAGE = 100_000


@dataclass
class Listing:
    """A list request, parsed."""

    filters: dict[str, list[Any]] = field(default_factory=dict)
    tags: dict[str, list[str]] = field(default_factory=dict)
    fields: list[str] = field(default_factory=list)
    sort: list[tuple[str, bool]] = field(default_factory=list)  # (attribute, descending)
    limit: int | None = None
    marker: str | None = None
    reverse: bool = False
    changed_since: str | None = None


def _bad(message: str, field_name: str) -> BadRequest:
    return BadRequest(message, field=field_name, type="HTTPBadRequest")


def parse(resource: Resource, query: Sequence[tuple[str, str]]) -> Listing:
    """What a list request asks for. Raises BadRequest naming the parameter."""
    found, unknown = Listing(), []
    directions, keys = [], []
    for key, value in query:
        if key == "sort_key":
            keys.append(value)
        elif key == "sort_dir":
            directions.append(value)
        elif key == "fields":
            found.fields += [value] if value else []
        elif key in _TAGS:
            found.tags.setdefault(key, []).extend(value.split(","))
        elif key == "changed_since" and _shown(resource, "updated_at"):
            found.changed_since = _moment(value)
        elif key not in _CONTROL:
            name = "project_id" if key == "tenant_id" else key
            attribute = resource.attributes.get(name)
            if attribute is None or not attribute.filter:
                unknown.append(key)
                continue
            found.filters.setdefault(name, []).append(_wanted(attribute, value))
    if unknown:
        raise _bad(f"{[shown(key) for key in unknown[:10]]} is invalid attribute for filtering", shown(unknown[0]))
    values = dict(query)
    found.limit, found.marker = _limit(values.get("limit")), values.get("marker") or None
    found.reverse = values.get("page_reverse", "").lower() in ("true", "1")
    found.sort = _sort(resource, keys, directions)
    return found


def _shown(resource: Resource, name: str) -> bool:
    return name in resource.attributes and resource.attributes[name].visible


def _wanted(attribute: Attribute, value: str) -> Any:
    """What a filter's text means: "4" is 4, "yes" is True, "ipv4" is "IPv4"."""
    try:
        return attribute.convert(value) if attribute.convert and value else value
    except ValueError as error:
        raise _bad(f"Invalid input for operation: {error}.", attribute.name) from None


def _moment(value: str) -> str:
    digits = value.rstrip("Z")[:19]
    if len(digits) != 19 or digits[4] != "-" or digits[10] != "T":
        raise _bad(f"Invalid input for changed_since. Reason: '{shown(value)}' is not a time like 2026-01-01T00:00:00.",
                   "changed_since")
    return digits + "Z"


def _limit(value: str | None) -> int | None:
    if not value or value == "infinite":
        return None
    number = whole_number(value)
    if number is None:
        raise _bad(f"Limit must be an integer 0 or greater and not '{shown(value)}'", "limit")
    return min(number, MAX_PAGE) or None


def _sort(resource: Resource, keys: list[str], directions: list[str]) -> list[tuple[str, bool]]:
    if directions and len(keys) != len(directions):
        raise _bad("The number of sort_keys and sort_dirs must be same", "sort_dir")
    for key in keys:
        attribute = resource.attributes.get(key)
        if attribute is None or not attribute.sorts:
            raise _bad(f"['{shown(key)}'] is invalid attribute for sort_keys", "sort_key")
    if wrong := [d for d in directions if d not in ("asc", "desc")]:
        raise _bad(f"sort_dir must be asc or desc, not '{shown(wrong[0])}'", "sort_dir")
    return list(zip(keys, [d == "desc" for d in directions] or [False] * len(keys), strict=True))


def _equal(value: Any, wanted: Any) -> bool:
    if not isinstance(wanted, str):
        return value == wanted if wanted is None or isinstance(wanted, bool) else str(value) == str(wanted)
    if isinstance(value, bool):
        return wanted.lower() in (("true", "1") if value else ("false", "0"))
    if value is None:
        return wanted in ("", "None", "null")
    if isinstance(value, list):
        return any(_equal_item(v, wanted) for v in value)
    return str(value) == wanted


def _equal_item(value: Any, wanted: str) -> bool:
    if not isinstance(value, dict):
        return str(value) == wanted
    # fixed_ips=ip_address=10.0.0.3, fixed_ips=subnet_id=...
    key, _, rest = wanted.partition("=")
    if key == "ip_address_substr":
        return rest in str(value.get("ip_address", ""))
    return key in value and str(value[key]) == rest


def matches(row: View, listing: Listing) -> bool:
    """Whether a row is wanted: each filter has one of its values (fixed_ips: all of them)."""
    for name, wanted in listing.filters.items():
        some = all if name == "fixed_ips" else any
        if not some(_equal(row.get(name), w) for w in wanted):
            return False
    if listing.changed_since and row["updated_at"] < listing.changed_since:
        return False
    have = set(row.get("tags") or ())
    return all({"tags": have >= set(given), "tags-any": bool(have & set(given)),
                "not-tags": not have >= set(given), "not-tags-any": not have & set(given)}[kind]
               for kind, given in listing.tags.items())


def _key(row: View, name: str) -> tuple[bool, Any]:
    value = row.get(name)
    return (value is not None, value if isinstance(value, int | str) else str(value))


def page(rows: list[View], listing: Listing) -> list[View]:
    """The rows of the page asked for, in order. Raises NotFound where the marker is not among them."""
    if listing.sort or listing.limit or listing.marker:
        rows = sorted(rows, key=lambda r: str(r["id"]))
        for name, descending in reversed(listing.sort):
            rows.sort(key=lambda r: _key(r, name), reverse=descending)
    if listing.reverse:  # backwards from the marker, and shown forwards
        rows = rows[::-1]
    if listing.marker:
        following = after(rows, listing.marker, lambda row: str(row["id"]))
        if following is None:
            raise NotFound(f"Marker {listing.marker[:64]} could not be found.", field="marker", type="MarkerNotFound")
        rows = list(following)
    rows = rows[:listing.limit]
    return rows[::-1] if listing.reverse else rows


def links(url: str, query: Sequence[tuple[str, str]], listing: Listing, rows: Sequence[View]) -> list[dict[str, str]]:
    """The next and previous links of a page."""
    if not listing.limit:
        return []
    full, found = len(rows) >= listing.limit, []
    first, last = (rows[0]["id"], rows[-1]["id"]) if rows else (None, None)
    if full or listing.reverse:
        found.append({"rel": "next", "href": link(url, query, page_reverse=None, marker=last)})
    if full or not listing.reverse:
        found.append({"rel": "previous", "href": link(url, query, marker=first, page_reverse="True")})
    return found
