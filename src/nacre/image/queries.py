"""GET /v2/images: a query string becomes a `Listing`, and a `Listing` one SELECT that shows what the caller may see."""

import csv
import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from oslo_utils.strutils import bool_from_string, is_valid_boolstr
from oslo_utils.timeutils import normalize_time, parse_isotime

from nacre.base import errors as e
from nacre.base.context import Context
from nacre.base.serving.inputs import whole_number
from nacre.image.tables import image_members, image_properties, image_tags, images

DEFAULT_LIMIT = 25
MAX_LIMIT = 1000
SORT_KEYS = ("name", "status", "container_format", "disk_format", "size", "id", "created_at", "updated_at",
             "visibility", "owner", "min_disk", "min_ram")
MEMBER_STATUSES = ("pending", "accepted", "rejected", "all")
LISTED_VISIBILITIES = ("community", "public", "private", "shared", "all")

_TEXTS = ("id", "name", "status", "container_format", "disk_format", "owner", "checksum", "os_hash_value",
          "os_hash_algo", "visibility")
_IN = frozenset({"id", "name", "status", "container_format", "disk_format"})
_NUMBERS = ("size", "virtual_size", "min_disk", "min_ram")
_FLAGS = ("protected", "os_hidden")
_TIMES = ("created_at", "updated_at")
_OPERATORS = ("gt", "gte", "lt", "lte", "eq", "neq")
_MAX_NUMBER = 2**63 - 1


class Listing(msgspec.Struct, kw_only=True):
    """What was asked for: conditions, order, place and size of the page."""

    filters: list[tuple[str, str]] = []
    tags: list[str] = []
    member_status: str = "accepted"
    visibility: str | None = None
    order: list[tuple[str, str]] = msgspec.field(default_factory=lambda: [("created_at", "desc")])
    marker: str | None = None
    limit: int = DEFAULT_LIMIT


def parse(query: Sequence[tuple[str, str]]) -> Listing:
    """The listing of a query string. Raises BadRequest."""
    listing, order, keys, dirs = Listing(), [], [], []
    for name, value in query:
        match name:
            case "limit":
                listing.limit = _limit(value)
            case "marker":
                listing.marker = value
            case "member_status":
                listing.member_status = one_of(value, MEMBER_STATUSES, "Invalid status")
            case "visibility":
                listing.visibility = one_of(value, LISTED_VISIBILITIES, "Invalid visibility value")
            case "tag":
                listing.tags.append(value.strip())
            case "sort":
                order += [_sort(part) for part in value.split(",")]
            case "sort_key":
                keys.append(one_of(value.strip(), SORT_KEYS, "Invalid sort key"))
            case "sort_dir":
                dirs.append(one_of(value.strip(), ("asc", "desc"), "Invalid sort direction"))
            case "changes-since":
                raise e.BadRequest('The "changes-since" filter is no longer available on v2.')
            case _:
                listing.filters.append((name, value))
    if order and (keys or dirs):
        raise e.BadRequest("Old and new sorting syntax cannot be combined")
    listing.order = order or _old_order(keys, dirs)
    return listing


def one_of(value: str, allowed: Sequence[str], complaint: str) -> str:
    """The value. Raises BadRequest unless it is one of the allowed."""
    if value not in allowed:
        raise e.BadRequest(f"{complaint}: {value}. It must be one of the following: {', '.join(allowed)}.")
    return value


def _limit(value: str) -> int:
    limit = whole_number(value.removeprefix("-"))
    if limit is None:
        raise e.BadRequest("limit param must be an integer", field="limit")
    if limit and value.startswith("-"):
        raise e.BadRequest("limit param must be positive", field="limit")
    return min(limit, MAX_LIMIT)


def _sort(part: str) -> tuple[str, str]:
    key, _, direction = part.partition(":")
    return (one_of(key.strip(), SORT_KEYS, "Invalid sort key"),
            one_of(direction.strip() or "desc", ("asc", "desc"), "Invalid sort direction"))


def _old_order(keys: list[str], dirs: list[str]) -> list[tuple[str, str]]:
    if len(dirs) > 1 and len(dirs) != len(keys):
        raise e.BadRequest("Number of sort dirs does not match the number of sort keys")
    keys = keys or ["created_at"]
    dirs = dirs if len(dirs) == len(keys) else (dirs or ["desc"]) * len(keys)
    return list(zip(keys, dirs, strict=True))


def visible(context: Context, member_status: str = "all") -> sa.ColumnElement[bool]:
    """Which images a caller may see at all; of those shared with it, the ones whose sharing has that status."""
    if context.is_admin:
        return sa.true()
    shared = [image_members.c.image_id == images.c.id, image_members.c.member_id == context.project_id]
    if member_status != "all":
        shared.append(image_members.c.status == member_status)
    return sa.or_(images.c.owner == context.project_id, images.c.visibility.in_(("public", "community")),
                  sa.and_(images.c.visibility == "shared", sa.exists().where(*shared)))


def sees(context: Context, row: Mapping[str, Any], *, member: bool) -> bool:
    """As `visible`, of one image at hand. member: whether it is shared with the caller's project."""
    return (context.is_admin or row["owner"] == context.project_id or row["visibility"] in ("public", "community")
            or (row["visibility"] == "shared" and member))


def select(listing: Listing, context: Context, marker: Any = None) -> sa.Select[Any]:
    """The SELECT of one page, with one row more than asked for. marker: the last row of the page before."""
    where = [visible(context, listing.member_status), *(_condition(n, v) for n, v in listing.filters)]
    if listing.visibility is None:
        where.append(sa.or_(images.c.visibility != "community", images.c.owner == context.project_id))
    elif listing.visibility != "all":
        where.append(images.c.visibility == listing.visibility)
    if all(name != "os_hidden" for name, _ in listing.filters):
        where.append(images.c.os_hidden == sa.false())
    for tag in dict.fromkeys(listing.tags):
        where.append(sa.exists().where(image_tags.c.image_id == images.c.id, image_tags.c.tag == tag))
    order = full_order(listing.order)
    if marker is not None:
        where.append(_after(order, marker))
    columns = [_sortable(key).asc() if way == "asc" else _sortable(key).desc() for key, way in order]
    return sa.select(images).where(*where).order_by(*columns).limit(listing.limit + 1)


def full_order(order: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The order asked for, made total, so that pages neither repeat nor lose a row."""
    keys = [key for key, _ in order]
    way = order[-1][1]
    return order + [(key, way) for key in ("created_at", "id") if key not in keys]


def _sortable(key: str) -> sa.ColumnElement[Any]:
    """A column without NULLs, which the databases sort differently."""
    column = images.c[key]
    if key in ("created_at", "updated_at", "id", "status", "visibility"):
        return column
    return sa.func.coalesce(column, 0 if key in ("size", "min_disk", "min_ram") else "")


def _after(order: list[tuple[str, str]], row: Any) -> sa.ColumnElement[bool]:
    clauses: list[sa.ColumnElement[bool]] = []
    equal: list[sa.ColumnElement[bool]] = []
    for key, way in order:
        column, value = _sortable(key), row._mapping[key]
        if value is None:
            value = 0 if key == "size" else ""
        clauses.append(sa.and_(*equal, column > value if way == "asc" else column < value))
        equal.append(column == value)
    return sa.or_(*clauses)


def _condition(name: str, value: str) -> sa.ColumnElement[bool]:
    if name in _TEXTS:
        if name in _IN and value.startswith("in:"):
            return images.c[name].in_(_values(value[3:]))
        return images.c[name] == (value if not value.startswith("eq:") else value[3:])
    if name in _NUMBERS:
        return images.c[name] == _number(name, value)
    if name in ("size_min", "size_max"):
        number = _number(name, value)
        return images.c.size >= number if name == "size_min" else images.c.size <= number
    if name in _FLAGS:
        return images.c[name] == flag(name, value)
    if name in _TIMES:
        return _time(name, value)
    return sa.exists().where(image_properties.c.image_id == images.c.id, image_properties.c.name == name,
                             image_properties.c.value == value)


def _values(text: str) -> list[str]:
    """The members of an `in:` list; a name with a comma stands in double quotes."""
    if text.count('"') % 2:
        raise e.BadRequest(f"Invalid filter value {text}. The quote is not closed.")
    try:
        return [value for row in csv.reader([text], skipinitialspace=True) for value in row]
    except csv.Error:
        raise e.BadRequest(f"Invalid filter value {text[:100]}.") from None


def _number(name: str, value: str) -> int:
    number = whole_number(value.removeprefix("-"))
    if number is None:
        raise e.BadRequest(f"Unable to filter on a range with a non-numeric value: {name}={value[:100]}", field=name)
    if number > _MAX_NUMBER:
        raise e.BadRequest(f"{name} must be between -{_MAX_NUMBER} and {_MAX_NUMBER}.", field=name)
    return -number if value.startswith("-") else number


def flag(name: str, value: str) -> bool:
    """A boolean filter. Raises BadRequest."""
    if not is_valid_boolstr(value):
        raise e.BadRequest(f"Invalid value '{value[:100]}' for '{name}' filter. It must be true or false.", field=name)
    return bool(bool_from_string(value))


def _time(name: str, value: str) -> sa.ColumnElement[bool]:
    """`created_at=gte:2026-01-31T00:00:00Z`; without an operator it means equal."""
    operator, _, rest = value.partition(":")
    if operator not in _OPERATORS:
        operator, rest = "eq", value
    try:
        moment: dt.datetime = normalize_time(parse_isotime(rest))
        second_later = moment + dt.timedelta(seconds=1)
    except (ValueError, OverflowError):
        raise e.BadRequest(f"Bad \"{name}\" query filter format. Use ISO 8601 DateTime notation.", field=name) from None
    column = images.c[name]
    if operator in ("eq", "neq"):  # what is shown has whole seconds
        inside = sa.and_(column >= moment, column < second_later)
        return inside if operator == "eq" else sa.not_(inside)
    found: sa.ColumnElement[bool] = {"lt": column < moment, "gte": column >= moment, "lte": column < second_later,
                                     "gt": column >= second_later}[operator]
    return found
