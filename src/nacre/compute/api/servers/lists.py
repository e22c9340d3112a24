"""What a client may ask of a list of servers, turned into a `ServerQuery`."""

from collections.abc import Sequence
from datetime import datetime

from oslo_utils.strutils import bool_from_string, is_valid_boolstr

from nacre.base.errors import BadRequest, Forbidden
from nacre.base.web import Request
from nacre.compute.api.microversions import known
from nacre.compute.api.paging import limit_and_marker
from nacre.compute.api.servers.schemas import FORBIDDEN, PATTERNS, SORT_KEYS, WORDS
from nacre.compute.api.servers.views import POWER, states_of
from nacre.compute.api.validation import parse_time
from nacre.compute.contract import ServerQuery
from nacre.compute.policies import rule

_TAG_FILTERS = ("tags", "tags-any", "not-tags", "not-tags-any")
#: The filters anybody may use; the others are ignored for those who may not.
_FOR_ALL = ("reservation_id", "name", "status", "image", "flavor", "ip", "changes-since", "all_tenants")
_FOR_ALL_FROM_83 = ("availability_zone", "config_drive", "key_name", "created_at", "launched_at", "terminated_at",
                    "power_state", "task_state", "vm_state", "progress", "user_id")

#: Filters that mean a field of the server.
_FIELDS = {
    "user_id": "user_id", "project_id": "project_id", "tenant_id": "project_id", "launch_index": "launch_index",
    "image_ref": "image_id", "image": "image_id", "host": "host", "uuid": "id", "hostname": "hostname",
    "key_name": "key_name", "node": "host", "flavor": "flavor_id", "reservation_id": "reservation_id",
    "availability_zone": "availability_zone", "task_state": "task_state", "vm_state": "vm_state",
    "kernel_id": "kernel_id", "ramdisk_id": "ramdisk_id", "root_device_name": "root_device_name"}
_MATCHED = {"name": "name", "display_name": "name", "description": "description",
            "display_description": "description", "access_ip_v4": "access_ip_v4", "access_ip_v6": "access_ip_v6"}
_TIMES = ("created_at", "launched_at", "terminated_at")


def parse(request: Request, verb: str) -> ServerQuery | None:
    """The query; None where nothing can match. verb: index or detail. Raises BadRequest, Forbidden."""
    given = _allowed(request)
    for name in given:
        if name in FORBIDDEN or name.startswith("_"):
            raise BadRequest(f"Invalid filter field: {name}.", field=name)
    states = _states(request)
    if states is None:
        return None
    everyone = _everyone(request, given)
    if everyone:
        request.require(rule(f"servers:{verb}:get_all_tenants"))
    else:
        given.pop("tenant_id", None)
        given["project_id"] = request.context.project_id or ""
    vm_states, task_states = states
    since, before = _changes(given)
    limit, marker = limit_and_marker(request)
    return ServerQuery(
        fields=_fields(given), patterns=tuple((_MATCHED[n], v) for n, v in given.items() if n in _MATCHED),
        vm_states=tuple(sorted(vm_states)), task_states=tuple(sorted(task_states - {"default"}))
        if "default" not in task_states else (), changes_since=since, changes_before=before,
        deleted=_deleted(request, given, vm_states, bool(since or before)),
        tags=_tags(given, "tags"), tags_any=_tags(given, "tags-any"), not_tags=_tags(given, "not-tags"),
        not_tags_any=_tags(given, "not-tags-any"), locked=_locked(given), addresses=_addresses(request, given),
        config_drive=bool_from_string(given["config_drive"]) if given.get("config_drive") else None,
        times=tuple((n, _time(n, given[n])) for n in _TIMES if n in given), power_states=_power(given),
        sort=_sort(request), limit=limit, marker=marker)


def _allowed(request: Request) -> dict[str, str]:
    """The filters the caller may use, the last of each name; paging and sorting are no filters."""
    names = {*PATTERNS, *WORDS, *FORBIDDEN, "changes-since", "changes-before"}
    given = {k: v for k, v in request.query if (k in names or k.startswith("_"))
             and known(f"server.query.{k}", request.version) and k != "sort_dir"}
    if request.allows(rule("servers:allow_all_filters")):
        return given
    version = request.version
    mine = {*_FOR_ALL, *_TAG_FILTERS, "changes-before", "locked", *FORBIDDEN}
    mine |= {"ip6"} if known("server.query.ip6_for_all", version) else set()
    mine |= set(_FOR_ALL_FROM_83) if known("server.query.more_for_all", version) else set()
    mine |= {"hostname"} if known("server.hostname_for_all", version) else set()
    return {k: v for k, v in given.items() if k in mine}


def _states(request: Request) -> tuple[set[str], set[str]] | None:
    """What the status filter means; empty sets: anything; None: no server can have such a status."""
    statuses = [v for k, v in request.query if k == "status"]
    if not statuses:
        return set(), set()
    vm_states, task_states = states_of(statuses)
    if not vm_states:
        if known("server.query.bad_status_is_error", request.version):
            raise BadRequest("Invalid status value", field="status")
        return None
    if vm_states == {"deleted"} and not request.context.is_admin:
        raise Forbidden("Only administrators may list deleted instances")
    return vm_states, task_states


def _everyone(request: Request, given: dict[str, str]) -> bool:
    """Servers of all projects? The empty value means yes."""
    text = given.pop("all_tenants", None)
    if text is None:
        return False
    if text == "":
        return True
    if not is_valid_boolstr(text):
        raise BadRequest(f"Invalid value '{text}' for all_tenants: must be a boolean.", field="all_tenants")
    return bool(bool_from_string(text))


def _deleted(request: Request, given: dict[str, str], vm_states: set[str], changes: bool) -> bool | None:
    """None: deleted ones as well. A list of changes has them, else only administrators see them, on demand."""
    if vm_states == {"deleted"}:
        return True
    if "deleted" in given and request.context.is_admin:
        return bool(bool_from_string(given["deleted"]))
    return None if changes else False


def _changes(given: dict[str, str]) -> tuple[datetime | None, datetime | None]:
    since, before = (parse_time(given[n]) if n in given else None for n in ("changes-since", "changes-before"))
    if since and before and before < since:
        raise BadRequest("The value of changes-since must be less than or equal to changes-before.",
                         field="changes-since")
    return since, before


def _fields(given: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((_FIELDS[name], value) for name, value in given.items() if name in _FIELDS)


def _tags(given: dict[str, str], name: str) -> tuple[str, ...]:
    return tuple(tag for tag in given.get(name, "").split(",") if tag)


def _locked(given: dict[str, str]) -> bool | None:
    text = given.get("locked")
    if text is None:
        return None
    if not is_valid_boolstr(text):
        raise BadRequest(f"Invalid value '{text}' for locked: must be a boolean.", field="locked")
    return bool(bool_from_string(text))


def _addresses(request: Request, given: dict[str, str]) -> tuple[tuple[int, str], ...]:
    """(IP version, regular expression) pairs."""
    return tuple((number, given[name]) for name, number in (("ip", 4), ("ip6", 6)) if given.get(name))


def _time(name: str, text: str) -> datetime:
    try:
        return parse_time(text)
    except ValueError:
        raise BadRequest(f"Invalid filter field: {name}.", field=name) from None


def _power(given: dict[str, str]) -> tuple[str, ...]:
    """Clients give the number of a power state."""
    text = given.get("power_state")
    return () if text is None else tuple(name for name, number in POWER.items() if str(number) == text) or ("none",)


def _sort(request: Request) -> tuple[tuple[str, bool], ...]:
    """(field, descending) pairs; the newest first where nothing is asked for."""
    keys = [v for k, v in request.query if k == "sort_key"]
    ways: Sequence[str] = [v for k, v in request.query if k == "sort_dir"]
    if not {"asc", "desc"}.issuperset(ways):
        raise BadRequest("Unknown sort direction, must be one of: asc, desc", field="sort_dir")
    found: list[tuple[str, bool]] = []
    for place, key in enumerate(keys):
        if key in ("host", "node") and not request.context.is_admin:
            raise Forbidden(f"Only administrators can sort servers by {key}")
        way = ways[place] if place < len(ways) else ways[-1] if ways else "desc"
        name = "locked" if key == "locked" and request.version >= (2, 73) else SORT_KEYS.get(key)
        if name:
            found.append((name, way == "desc"))
    if not found:
        found = [("created_at", not ways or ways[0] != "asc")]
    return tuple(found)
