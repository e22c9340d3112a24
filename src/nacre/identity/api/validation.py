"""JSON schemas as checks of a body. A message names the field and the rule, and shows no secret."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jsonschema_rs
from oslo_utils.strutils import bool_from_string
from oslo_utils.timeutils import parse_isotime

from nacre.base.errors import BadRequest
from nacre.base.serving.inputs import first_error
from nacre.base.web import Check, Request

SECRETS = frozenset({"password", "original_password", "secret", "blob", "token"})
#: What holds of everything in a body that has no narrower limit: characters of a text and of a name, parts of a list or
#: an object, and how deep they may lie in each other.
MAX_TEXT, MAX_NAME, MAX_PARTS, MAX_NESTING = 65535, 255, 1000, 16

NAME = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"\S"}
SHORT_NAME = {**NAME, "maxLength": 64}
ID = {"type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[a-zA-Z0-9-]+$"}
ID_OR_NULL = {**ID, "type": ["string", "null"]}
ANY_ID = {"type": "string", "minLength": 1, "maxLength": 64}
TEXT = {"type": ["string", "null"], "maxLength": MAX_TEXT}
BOOLEAN = {"enum": [True, False, None, "True", "TRUE", "true", "False", "FALSE", "false", "", "1", "0", "y", "Y", "n",
                    "N", "on", "ON", "off", "OFF", "yes", "no"]}
IMMUTABLE = {"type": "object", "properties": {"immutable": {"type": ["boolean", "null"]}},
             "additionalProperties": False}
TAG = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[^,/]*$"}
TAGS = {"type": "array", "items": TAG, "maxItems": 80, "uniqueItems": True}


@dataclass(frozen=True)
class Body:
    """A check that knows its schema."""

    schema: Mapping[str, Any]
    run: Check

    def __call__(self, request: Request, body: Any) -> Any:
        return self.run(request, body)


def wrapped(key: str, properties: Mapping[str, Any], required: list[str] | None = None, **more: Any) -> Check:
    """A check of `{key: {...}}` that returns the inner object. Other attributes are taken, as Keystone does."""
    inner = {"type": "object", "properties": dict(properties), "required": required or [], **more}
    whole = schema({"type": "object", "properties": {key: inner}, "required": [key]})

    return Body(whole.schema, lambda request, body: whole(request, body)[key])


def bounded(check: Check) -> Body:
    """`check`, of a body that was found to be within the limits that hold of every one. Raises BadRequest."""
    def run(request: Request, body: Any) -> Any:
        _measure(body)
        return check(request, body)
    return Body(getattr(check, "schema", {}), run)


def _measure(body: Any) -> None:
    """Level by level, as a recursion would itself need a limit."""
    level: list[tuple[str, Any]] = [("body", body)]
    for _ in range(MAX_NESTING + 1):
        for field, value in level:
            size, limit = (len(value), MAX_PARTS) if isinstance(value, dict | list) else (0, 0)
            if isinstance(value, str):
                size, limit = len(value), MAX_TEXT
            if size > limit:
                what = "characters" if isinstance(value, str) else "parts"
                raise BadRequest(f"Invalid input for field {field}: it has {size} {what}, and {limit} are allowed.",
                                 field=field)
            for name in value if isinstance(value, dict) else ():
                if len(name) > MAX_NAME:
                    raise BadRequest(f"Names of attributes are at most {MAX_NAME} characters long: {name[:40]}...",
                                     field=name[:40])
        level = [(name, inner) for field, value in level if isinstance(value, dict | list)
                 for name, inner in (value.items() if isinstance(value, dict) else ((field, x) for x in value))]
        if not level:
            return
    raise BadRequest(f"Invalid input for field {level[0][0]}: it lies deeper in the body than {MAX_NESTING} levels.",
                     field=level[0][0])


def schema(rules: Mapping[str, Any]) -> Body:
    """A check of a whole body against a JSON schema. Raises BadRequest naming the field."""
    validator = jsonschema_rs.Draft202012Validator(dict(rules), mask="the value")

    def check(_: Request, body: Any) -> Any:
        if (error := first_error(validator, body)) is not None:
            raise _worded(error, body)
        return body
    return Body(rules, check)


def moment(text: str | None, field: str) -> float | None:
    """Seconds since the epoch of an ISO 8601 time, UTC where it names no zone. Raises BadRequest."""
    if text is None:
        return None
    try:
        return float(parse_isotime(text).timestamp())
    except (ValueError, OverflowError):
        raise BadRequest(f"Invalid input for field {field}: a time such as 2026-12-31T23:59:59Z.", field=field
                         ) from None


def _worded(error: Any, body: Any) -> BadRequest:
    path = [str(p) for p in error.instance_path]
    if not path:
        if not isinstance(body, dict):
            return BadRequest("The request body must be a JSON object.", field="body")
        return BadRequest(error.message, field="body")
    field = path[-1]
    value: Any = body
    for part in error.instance_path:
        value = value[part]
    shown = "" if SECRETS & set(path) or isinstance(value, dict | list) else f" Value: {str(value)[:80]}."
    return BadRequest(f"Invalid input for field/attribute {field}.{shown} {error.message}", field=field)


def boolean(value: Any) -> bool:
    """A boolean from what Keystone takes for one."""
    return bool(bool_from_string(value))
