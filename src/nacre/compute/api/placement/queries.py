"""What a query asks of providers, read as placement reads it, by version."""

from collections.abc import Sequence
from typing import Any

from oslo_utils.uuidutils import is_uuid_like

from nacre.base.errors import BadRequest
from nacre.base.serving.inputs import whole_number
from nacre.base.web import Version
from nacre.compute.api.placement.providers import CLASSES

Query = Sequence[tuple[str, str]]


def group(query: Query, version: Version, suffix: str = "") -> dict[str, Any]:
    """What the parameters with this suffix ask, for `providers.fits`. Raises BadRequest."""
    def values(name: str) -> list[str]:
        return [value for key, value in query if key == name + suffix]

    found: dict[str, Any] = {"required": [], "forbidden": set(), "member_of": [], "not_in": set()}
    for value in values("resources")[-1:]:
        found["resources"] = _resources(value)
    for value in values("required")[0 if version >= (1, 39) else -1:]:
        required, forbidden = traits(value, version)
        found["required"] += required
        found["forbidden"] |= forbidden
    aggregates = values("member_of")
    if len(aggregates) > 1 and version < (1, 24):
        raise BadRequest(f"Multiple member_of{suffix} parameters are not supported", field="member_of" + suffix)
    for value in aggregates:
        some, against = _aggregates(value, "member_of" + suffix)
        if against and version < (1, 32):
            raise BadRequest(f"Forbidden member_of{suffix} parameters are not supported in the specified microversion",
                             field="member_of" + suffix)
        found["not_in"] |= some if against else set()
        found["member_of"] += [] if against else [some]
    for value in values("in_tree")[-1:]:
        if not is_uuid_like(value.strip()):
            raise BadRequest("Invalid query string parameters: Expected 'in_tree' parameter to be a format of uuid. "
                             f"Got: {value[:255]}", field="in_tree" + suffix)
        found["in_tree"] = value.strip()
    return found


def _resources(value: str) -> dict[str, int]:
    wanted = {}
    for part in value.split(","):
        kind, colon, text = part.partition(":")
        if not kind or not colon or ":" in text:
            raise BadRequest("Badly formed resources parameter. Expected resources query string parameter in form: "
                             f"?resources=VCPU:2,MEMORY_MB:1024. Got: {part[:255] or 'empty string'}.",
                             field="resources")
        amount = whole_number(text.strip())
        if amount is None or amount >= 1 << 31:
            raise BadRequest(f"Requested resource {kind[:64]} expected positive integer amount. Got: {text[:64]}.",
                             field="resources")
        if amount < 1:
            raise BadRequest(f"Requested resource {kind[:64]} requires amount >= 1. Got: {amount}.", field="resources")
        if kind not in CLASSES:
            raise BadRequest(f"Invalid resource class in resources parameter: No such resource class {kind[:64]}.",
                             field="resources")
        wanted[kind] = amount
    return wanted


def traits(value: str, version: Version) -> tuple[list[set[str]], set[str]]:
    """One of each set of the first, and none of the second. Raises BadRequest."""
    said = "Invalid query string parameters: Expected 'required' parameter value of the form: "
    if value.startswith("in:"):
        some = {part.strip() for part in value[3:].split(",")}
        if version < (1, 39):
            raise BadRequest("Invalid query string parameters: The format 'in:HW_CPU_X86_VMX,CUSTOM_MAGIC' only "
                             f"supported since microversion 1.39. Got: {value[:255]}", field="required")
        if not all(some):
            raise BadRequest(f"{said}in:HW_CPU_X86_VMX,CUSTOM_MAGIC. Got an empty trait in: {value[:255]}",
                             field="required")
        if any(each.startswith("!") for each in some):
            raise BadRequest("Invalid query string parameters: The format 'in:HW_CPU_X86_VMX,CUSTOM_MAGIC' does not "
                             f"support forbidden traits. Got: {value[:255]}", field="required")
        return [some], set()
    every = [part.strip() for part in value.split(",")]
    forbidden = {each.lstrip("!") for each in every if each.startswith("!")}
    form = "HW_CPU_X86_VMX,!CUSTOM_MAGIC" if version >= (1, 22) else "HW_CPU_X86_VMX,CUSTOM_MAGIC"
    if not all(every) or not all(forbidden):
        raise BadRequest(f"{said}{form}. Got an empty trait in: {value[:255]}", field="required")
    if forbidden and version < (1, 22):
        raise BadRequest(f"{said}{form}. Got: {value[:255]}", field="required")
    return [{each} for each in every if not each.startswith("!")], forbidden


def _aggregates(value: str, name: str) -> tuple[set[str], bool]:
    against, bare = value.startswith("!"), value.removeprefix("!")
    if "," in value and not bare.startswith("in:"):
        raise BadRequest("Multiple values for 'member_of' must be prefixed with the 'in:' or '!in:' keyword using the "
                         f"valid microversion. Got: {value[:255]}", field=name)
    some = set(bare.removeprefix("in:").split(","))
    if not all(is_uuid_like(each) for each in some):
        raise BadRequest("Invalid query string parameters: Expected 'member_of' parameter to contain valid UUID(s). "
                         f"Got: {value[:255]}", field=name)
    return some, against
