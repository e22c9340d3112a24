"""GET /allocation_candidates: the hosts that have room for what is asked, by the ledger from which the scheduler counts
too. A host is a tree of one provider, so that each candidate is one host, and every group of a request is met by it.
"""

import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import msgspec

from nacre.base.errors import BadRequest
from nacre.base.serving.inputs import whole_number
from nacre.base.web import Version
from nacre.compute.api.placement import queries
from nacre.compute.api.placement.providers import Provider, fits

#: Parameter -> the minor version that brought it. The first four may have a suffix.
_SINCE = {"resources": 10, "required": 17, "member_of": 21, "in_tree": 31, "limit": 16, "group_policy": 25,
          "root_required": 35, "same_subtree": 36}
#: Groups of one question.
MOST_GROUPS = 64
#: Different things that a host must be: each is looked for at every host. Placement has no such limit; nobody asks for
#: so many, as there are far fewer traits.
MOST_PARTS = 64
#: The suffixes that groups may have, from a version on.
_SUFFIXES = (((1, 33), r"[a-zA-Z0-9_-]{1,64}"), ((1, 25), r"[1-9][0-9]*"), ((1, 0), r"(?!)"))


class Wish(msgspec.Struct, frozen=True, dict=True):
    """What is asked. groups: by suffix, what `providers.fits` takes; root: of the host, likewise; isolate: groups with
    a suffix are met by one provider each."""

    groups: Mapping[str, dict[str, Any]]
    root: dict[str, Any] = {}
    limit: int | None = None
    isolate: bool = False

    @cached_property
    def amounts(self) -> dict[str, int]:
        """All groups' resources together."""
        found: dict[str, int] = {}
        for each in self.groups.values():
            for name, amount in each.get("resources", {}).items():
                found[name] = found.get(name, 0) + amount
        return found

    @cached_property
    def parts(self) -> list[dict[str, Any]]:
        """What a host must be, each different thing once: the sums of all groups first, as they cost least."""
        parts: dict[Any, dict[str, Any]] = {"resources": {"resources": self.amounts}}
        for each in (self.root, *self.groups.values()):
            parts |= {(name, frozenset(some)): {name: [some]} for name in ("required", "member_of")
                      for some in each.get(name, ())}
            parts |= {(name, frozenset(each[name])): {name: each[name]} for name in ("forbidden", "not_in")
                      if each.get(name)}
            parts |= {("in_tree", each["in_tree"]): {"in_tree": each["in_tree"]}} if "in_tree" in each else {}
        return list(parts.values())

    @property
    def traits(self) -> set[str]:
        """Every trait that is named."""
        asked = (*self.groups.values(), self.root)
        return {trait for each in asked for some in (*each.get("required", ()), each.get("forbidden", set()))
                for trait in some}


def wish(query: queries.Query, version: Version) -> Wish:
    """What a query asks. Raises BadRequest, in placement's words."""
    suffixes = _checked(query, version)
    root = _root([value for name, value in query if name == "root_required"], version)
    subtrees = [{part.strip() for part in value.split(",")} for name, value in query if name == "same_subtree"]
    if any("" in some for some in subtrees):
        raise BadRequest("Empty string (unsuffixed group) can not be specified in `same_subtree` ",
                         field="same_subtree")
    groups = {suffix: queries.group(query, version, suffix) for suffix in suffixes}
    if version >= (1, 36):
        _meet(groups, set().union(*subtrees))
    else:
        _have_resources(groups)
    _contradict_not(groups)
    policy = next((value for name, value in query if name == "group_policy"), None)
    if policy is None and len(groups.keys() - {""}) > 1:
        raise BadRequest('The "group_policy" parameter is required when specifying more than one "resources{N}" '
                         "parameter.", field="group_policy")
    limit = next((whole_number(value) for name, value in query if name == "limit"), None)
    found = Wish(groups, root, limit, policy == "isolate")
    if len(found.parts) > MOST_PARTS:
        raise BadRequest(f"Invalid query string parameters: {MOST_PARTS} different sets of traits and aggregates, and "
                         f"trees, are allowed in all groups, not {len(found.parts)}.", field="required")
    return found


def candidates(wanted: Wish, providers: Iterable[Provider], version: Version) -> dict[str, Any]:
    """The answer: requests for allocations, and of each host that is in one what it has."""
    alone = wanted.isolate and len(wanted.groups.keys() - {""}) > 1  # a tree of one provider has none for each
    found = [] if alone else [one for one in providers if all(fits(one, part) for part in wanted.parts)][:wanted.limit]
    requests = list[dict[str, Any]]()
    for one in found:
        taken: dict[str, Any] = {"resources": wanted.amounts}
        if version < (1, 12):
            requests.append({"allocations": [{"resource_provider": {"uuid": one.uuid}, **taken}]})
            continue
        requests.append({"allocations": {one.uuid: taken}})
        if version >= (1, 34):
            requests[-1]["mappings"] = {suffix: [one.uuid] for suffix in wanted.groups}
    return {"allocation_requests": requests,
            "provider_summaries": {one.uuid: _summary(one, wanted.amounts, version) for one in found}}


def _summary(one: Provider, asked: Mapping[str, int], version: Version) -> dict[str, Any]:
    used = one.usages
    found: dict[str, Any] = {"resources": {name: {"capacity": one.capacity(name), "used": used[name]}
                                           for name in one.inventories if version >= (1, 27) or name in asked}}
    if version >= (1, 17):
        found["traits"] = sorted(one.traits)
    if version >= (1, 29):
        found |= {"parent_provider_uuid": None, "root_provider_uuid": one.uuid}
    return found


def _checked(query: queries.Query, version: Version) -> list[str]:
    """The suffixes of the groups, in their order. Raises BadRequest."""
    pattern = next(form for since, form in _SUFFIXES if version >= since)
    found: dict[str, None] = {}
    for name, value in query:
        grouped = re.fullmatch(rf"(resources|required|member_of|in_tree)({pattern})?", name)
        if version < (1, _SINCE.get(grouped[1] if grouped else name, 99)):
            raise BadRequest(f"Invalid query string parameters: Additional properties are not allowed "
                             f"({name[:64]!r} was unexpected)", field=name[:64])
        if grouped:
            found[grouped[2] or ""] = None
        elif name == "limit" and not re.fullmatch("[1-9][0-9]{0,17}", value):
            raise BadRequest(f"Invalid query string parameters: {value[:64]!r} does not match '^[1-9][0-9]*$'",
                             field=name)
        elif name == "group_policy" and value not in ("none", "isolate"):
            raise BadRequest(f"Invalid query string parameters: {value[:64]!r} is not one of ['none', 'isolate']",
                             field=name)
    if len(found) > MOST_GROUPS:
        raise BadRequest(f"Invalid query string parameters: {MOST_GROUPS} groups are allowed, not {len(found)}.",
                         field="resources")
    if version < (1, 25) and "resources" not in dict(query):
        raise BadRequest("Invalid query string parameters: 'resources' is a required property", field="resources")
    return list(found)


def _root(values: list[str], version: Version) -> dict[str, Any]:
    if len(values) > 1:
        raise BadRequest("Query parameter 'root_required' may be specified only once.", field="root_required")
    if not values:
        return {}
    required, forbidden = queries.traits(values[0], min(version, (1, 38)))
    if both := set().union(*required) & forbidden:
        raise BadRequest(f"Conflicting required and forbidden traits found in root_required: {', '.join(sorted(both))}",
                         field="root_required")
    return {"required": required, "forbidden": forbidden}


def _meet(groups: Mapping[str, dict[str, Any]], subtrees: set[str]) -> None:
    """From 1.36 on a group may ask for no resources, if it says beside which it is to be. Raises BadRequest."""
    bare = [suffix for suffix, each in groups.items() if "resources" not in each]
    if len(bare) == len(groups):
        raise BadRequest("There must be at least one resources or resources[$S] parameter.", field="resources")
    if bad := [suffix for suffix in bare if suffix not in subtrees]:
        raise BadRequest("Resourceless suffixed group request should be specified in `same_subtree` query param: bad "
                         f"group(s) - {bad}.", field="same_subtree")
    if strange := sorted(subtrees - groups.keys()):
        raise BadRequest(f"Real suffixes should be specified in `same_subtree`: {strange} not found in {list(groups)}.",
                         field="same_subtree")


def _have_resources(groups: Mapping[str, dict[str, Any]]) -> None:
    """Raises BadRequest."""
    bare = {suffix: each for suffix, each in groups.items() if "resources" not in each}
    for what, names, asked in (("traits", "required", ("required",)), ("member_of", "member_of", ("member_of",
                                                                                                  "not_in"))):
        if orphans := [names + suffix for suffix, each in bare.items() if any(each[name] for name in asked)]:
            raise BadRequest(f"All {what} parameters must be associated with resources. Found the following orphaned "
                             f"{what} keys: {', '.join(orphans)}", field=orphans[0])
    if bare:
        raise BadRequest("All request groups must specify resources.", field="resources")
    if not groups:
        raise BadRequest("At least one request group (`resources` or `resources{$S}`) is required.", field="resources")


def _contradict_not(groups: Mapping[str, dict[str, Any]]) -> None:
    if bad := sorted(f"required{suffix}: ({', '.join(sorted(some))})" for suffix, each in groups.items()
                     for some in each["required"] if some <= each["forbidden"]):
        raise BadRequest("Conflicting required and forbidden traits found in the following traits keys: "
                         f"{', '.join(bad)}", field="required")
