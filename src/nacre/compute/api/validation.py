"""Checking what clients send: JSON schemas over all microversions, in Nova's wording.

A schema is written once. An object may name its `noun`; its fields that the microversion table does not know at a
version are dropped there, so that they are refused as unknown. `Since({1: a, 37: b})` is a part that changed.
"""

import base64
import ipaddress
import re
import unicodedata
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import re2
from oslo_utils.timeutils import normalize_time, parse_isotime
from oslo_utils.uuidutils import is_uuid_like

from nacre.base.errors import BadRequest
from nacre.base.log import MASK, SECRET_KEYS, mask
from nacre.base.serving.inputs import first_error, refuse_beyond, schema_validator
from nacre.base.web import Request, Version
from nacre.compute.api.microversions import known

JsonSchema = Any


class Since:
    """A part of a schema that changed: minor version -> the part from there on."""

    def __init__(self, parts: Mapping[int, Any]):
        self._parts = sorted(parts.items(), reverse=True)

    def at(self, version: Version) -> Any:
        return next(part for minor, part in self._parts if version[1] >= minor)


class Schema:
    """A `Check` of a body: returns it unchanged or raises BadRequest that names the field."""

    where = "field/attribute"

    def __init__(self, schema: JsonSchema):
        self._schema = schema
        self._validators: dict[Version, Any] = {}

    def __call__(self, request: Request, value: Any) -> Any:
        self.check(request.version, value)
        return value

    def check(self, version: Version, value: Any) -> None:
        """Raises BadRequest unless `value` fits at `version`."""
        validator = self._validators.get(version)
        if validator is None:
            validator = self._validators[version] = schema_validator(
                at(self._schema, version), formats=FORMATS, validate_formats=True)
        refuse_beyond(value)
        if (wrong := first_error(validator, value)) is not None:
            # What is said of a secret, or of what holds one, does not say it.
            part = MASK if any(str(p).lower() in SECRET_KEYS for p in wrong.path) else mask(wrong.part)
            raise BadRequest(self._message(wrong.error, part), field=".".join(str(p) for p in wrong.path) or None)

    def _message(self, error: Any, part: Any) -> str:
        kind = error.kind.as_dict()
        if error.kind.name == "format" and kind["format"] in NAME_RULES:
            return f"An invalid 'name' value was provided. The name must be: {NAME_RULES[kind['format']]}"
        reason = _reason(error, kind, part)
        if not error.instance_path:
            return reason
        return f"Invalid input for {self.where} {self._field(error)}. Value: {_short(part)}. {reason}"

    def _field(self, error: Any) -> Any:
        return error.instance_path[-1]


class Query(Schema):
    """A `Check` of a query string, given the schema of one value for each name. From 2.75 unknown names are refused."""

    where = "query parameters"

    def __init__(self, noun: str, names: Mapping[str, JsonSchema], *, strict_from: int = 75):
        fields = {name: {"type": "array", "items": schema} for name, schema in names.items()}
        loose = {"type": "object", "noun": noun, "properties": fields}
        strict = {**loose, "additionalProperties": False}
        super().__init__(Since({1: loose, strict_from: strict}))

    def __call__(self, request: Request, value: Any) -> Any:
        found: dict[str, list[str]] = {}
        for name, text in value:
            found.setdefault(name, []).append(text)
        self.check(request.version, found)
        return value

    def _field(self, error: Any) -> Any:
        return error.instance_path[0]


def at(schema: Any, version: Version) -> Any:
    """The plain JSON schema of `schema` at `version`."""
    if isinstance(schema, Since):
        return at(schema.at(version), version)
    if isinstance(schema, list):
        return [at(item, version) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    noun = schema.get("noun")
    plain = {key: at(part, version) for key, part in schema.items() if key not in ("noun", "properties")}
    if "properties" in schema:
        plain["properties"] = {name: at(part, version) for name, part in schema["properties"].items()
                               if noun is None or known(f"{noun}.{name}", version)}
    return plain


def _short(value: Any) -> str:
    said = value if isinstance(value, str) else repr(value)
    return said if len(said) <= 500 else said[:500] + "..."


def _reason(error: Any, kind: Mapping[str, Any], part: Any) -> str:
    """What is wrong, in the words clients of Nova know."""
    said = _short(repr(part))
    match error.kind.name:
        case "type":
            return f"{said} is not of type {', '.join(repr(t) for t in kind['types'])}"
        case "required":
            return f"{kind['property']!r} is a required property"
        case "enum":
            return f"{said} is not one of {kind['options']!r}"
        case "pattern":
            return f"{said} does not match {kind['pattern']!r}"
        case "format":
            return f"{said} is not a {kind['format']!r}"
        case "minLength" | "minItems":
            return f"{said} is too short"
        case "maxLength" | "maxItems":
            return f"{said} is too long"
        case "oneOfNotValid" | "anyOf" | "oneOf":
            return f"{said} is not valid under any of the given schemas"
        case _:
            return "It is not valid." if part == MASK else str(error.message)


def _printable(text: str) -> bool:
    return not any(unicodedata.category(c)[0] == "C" or unicodedata.category(c) in ("Zl", "Zp") for c in text)


def _is_name(text: str) -> bool:
    return _printable(text) and text == text.strip() and text[:1] != " "


def _spaced_name(text: str) -> bool:
    return _printable(text) and bool(text.strip())


def _tries(reader: Any, error: type[Exception] = ValueError) -> Any:
    def check(text: str) -> bool:
        try:
            reader(text)
        except error:
            return False
        return True
    return check


def parse_time(text: str) -> datetime:
    """An ISO 8601 time, as naive UTC. Raises ValueError."""
    spoiled = text.count(" ") == 1 and "T" in text  # a + that a URL did not quote
    try:
        moment: datetime = normalize_time(parse_isotime(text.strip().replace(" ", "+") if spoiled else text))
    except OverflowError as error:
        raise ValueError(str(error)) from None
    return moment


def _regex(text: str) -> bool:
    return bool(text) and _tries(re2.compile, re2.error)(text)


def _int32(text: str) -> bool:
    return not re.fullmatch(r"-?[0-9]+", text) or (len(text) < 12 and int(text) <= 0x7FFFFFFF)


NAME_RULES = {
    "name": "printable characters. Can not start or end with whitespace.",
    "spaced_name": "printable characters with at least one non space character",
    "az_name": "printable characters except :.Can not start or end with whitespace.",
}

FORMATS = {
    "name": _is_name,
    "spaced_name": _spaced_name,
    "az_name": lambda text: _is_name(text) and ":" not in text,
    "printable": _printable,
    "uuid": is_uuid_like,
    "ipv4": _tries(ipaddress.IPv4Address),
    "ipv6": _tries(ipaddress.IPv6Address),
    "cidr": lambda text: "/" in text and _tries(lambda t: ipaddress.ip_network(t, strict=False))(text),
    "base64": _tries(lambda text: base64.b64decode("".join(text.split()), validate=True)),
    "date-time": _tries(parse_time),
    "regex": _regex,
    "int32": _int32,
}
