"""PATCH of an image, as pure functions: the wire's two JSON patch dialects to changes, and changes to a new image."""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from nacre.base import errors as e
from nacre.image.schemas import IMAGE, check_image

#: Content type -> dialect: v2.0 says {"replace": "/name", "value": ...}, v2.1 {"op": "replace", "path": "/name", ...}.
DIALECTS = {"application/openstack-images-v2.0-json-patch": 4, "application/openstack-images-v2.1-json-patch": 10}
OPERATIONS = ("add", "remove", "replace")

READ_ONLY = frozenset({"created_at", "updated_at", "status", "checksum", "size", "virtual_size", "direct_url", "self",
                       "file", "schema", "id", "os_hash_algo", "os_hash_value", "stores"})
RESERVED = frozenset({"location", "deleted", "deleted_at"})
RESERVED_PREFIX = "os_glance_"
#: Settable while there is no data: afterwards they say what the data is.
FORMATS = frozenset({"disk_format", "container_format"})


class Change(msgspec.Struct, frozen=True):
    """One step: what to do to which attribute. `strict` is the old dialect, where `add` may not overwrite."""

    op: str
    name: str
    value: Any = None
    strict: bool = False


def parse(body: Any, dialect: int) -> list[Change]:
    """The changes of a request. Raises BadRequest (malformed) or Forbidden (an attribute that is not the user's)."""
    if not isinstance(body, list):
        raise e.BadRequest("Request body must be a JSON array of operation objects.")
    return [_change(raw, dialect) for raw in body]


def _change(raw: Any, dialect: int) -> Change:
    if not isinstance(raw, dict):
        raise e.BadRequest("Operations must be JSON objects.")
    op, pointer = _modern(raw) if dialect == 10 else _old(raw)
    path = _decode(pointer)
    name = path[0]
    if name == "locations":
        raise e.Forbidden("Locations of image data are not shown or set at this site.", field=name)
    if len(path) != 1:
        raise e.BadRequest(f"Invalid JSON pointer for this resource: '/{'/'.join(path)}'")
    if op != "remove" and "value" not in raw:
        raise e.BadRequest(f'Operation "{op}" requires a member named "value".')
    check_name(name)
    if op == "remove":
        return Change(op, name)
    check_image({name: raw["value"]})
    return Change(op, name, raw["value"], strict=dialect == 4)


def check_name(name: str) -> None:
    """Raises Forbidden for attributes that only the service sets, BadRequest for names that cannot be."""
    if name in READ_ONLY:
        raise e.Forbidden(f"Attribute '{name}' is read-only.", field=name)
    if name in RESERVED or name.startswith(RESERVED_PREFIX):
        raise e.Forbidden(f"Attribute '{name}' is reserved.", field=name)
    if not name or len(name) > 255:
        raise e.BadRequest("Custom property should not be greater than 255 characters, nor empty.", field=name[:32])


def _modern(raw: dict[str, Any]) -> tuple[str, Any]:
    op = raw.get("op")
    if op not in OPERATIONS:
        raise e.BadRequest(f"Invalid operation: `{op}`. It must be one of the following: {', '.join(OPERATIONS)}.")
    if "path" not in raw:
        raise e.BadRequest("Unable to find 'path' in JSON Schema change")
    return op, raw["path"]


def _old(raw: dict[str, Any]) -> tuple[str, Any]:
    ops = [op for op in OPERATIONS if op in raw]
    if len(ops) != 1:
        raise e.BadRequest('Operation objects must contain exactly one member named "add", "remove", or "replace".')
    return ops[0], raw[ops[0]]


def _decode(pointer: Any) -> list[str]:
    """The segments of the limited JSON pointers that are taken here."""
    if not isinstance(pointer, str) or not pointer.startswith("/"):
        raise e.BadRequest(f'Pointer `{pointer}` does not start with "/".')
    if re.search(r"/\s*?/", pointer[1:]) or (len(pointer) > 1 and pointer.endswith("/")):
        raise e.BadRequest(f'Pointer `{pointer}` contains an empty segment.')
    if re.search("~[^01]", pointer) or pointer.endswith("~"):
        raise e.BadRequest(f'Pointer `{pointer}` contains "~" not part of a recognized escape sequence.')
    return [part.replace("~1", "/").replace("~0", "~").strip() for part in pointer.lstrip("/").split("/")]


class Draft:
    """An image's settable state while changes are applied. Nothing is stored here."""

    def __init__(self, attributes: dict[str, Any], properties: dict[str, str], tags: Sequence[str]):
        self.attributes, self.properties, self.tags = dict(attributes), dict(properties), list(tags)

    def apply(self, change: Change, *, admin: bool) -> None:
        """One change. Raises Conflict (absent or present), Forbidden (may not be set so)."""
        name, known = change.name, change.name in IMAGE
        if change.op == "remove":
            if known:
                raise e.Forbidden(f"Property {name} may not be removed.", field=name)
            if name not in self.properties:
                raise e.Conflict(f"Property {name} does not exist.", field=name)
            del self.properties[name]
        elif change.op == "replace" and not known and name not in self.properties:
            raise e.Conflict(f"Property {name} does not exist.", field=name)
        elif change.op == "add" and change.strict and (known or name in self.properties):
            raise e.Conflict(f"Property {name} already present.", field=name)
        else:
            self._set(name, change.value, admin)

    def _set(self, name: str, value: Any, admin: bool) -> None:
        if name == "owner" and not admin:
            raise e.Forbidden("Owner can't be updated by non admin.", field=name)
        if name in FORMATS and self.attributes["status"] != "queued" and value != self.attributes[name]:
            raise e.Forbidden(f"Attribute {name} can be only replaced for a queued image.", field=name)
        if name == "tags":
            self.tags = list(dict.fromkeys(value))
        elif name in IMAGE:
            self.attributes[name] = value
        else:
            self.properties[name] = value
