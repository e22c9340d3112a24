"""JSON schemas as checks of a body. A message names the field and the rule, and shows no secret."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from oslo_utils.strutils import bool_from_string
from oslo_utils.timeutils import parse_isotime

from nacre.base.errors import BadRequest
from nacre.base.serving.inputs import Bounds, Wrong, first_error, refuse_beyond, schema_validator
from nacre.base.web import Check, Request

SECRETS = frozenset({"password", "original_password", "secret", "blob", "token"})
#: What holds of everything in a body that has no narrower limit.
BOUNDS = Bounds(parts=1000, text=65535, name=255, nesting=16)

NAME = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"\S"}
SHORT_NAME = {**NAME, "maxLength": 64}
ID = {"type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[a-zA-Z0-9-]+$"}
ID_OR_NULL = {**ID, "type": ["string", "null"]}
ANY_ID = {"type": "string", "minLength": 1, "maxLength": 64}
TEXT = {"type": ["string", "null"], "maxLength": BOUNDS.text}
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
        refuse_beyond(body, BOUNDS)
        return check(request, body)
    return Body(getattr(check, "schema", {}), run)


def schema(rules: Mapping[str, Any]) -> Body:
    """A check of a whole body against a JSON schema. Raises BadRequest naming the field."""
    validator = schema_validator(rules, mask="the value")

    def check(_: Request, body: Any) -> Any:
        if (wrong := first_error(validator, body)) is not None:
            raise _worded(wrong, body)
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


def _worded(wrong: Wrong, body: Any) -> BadRequest:
    path, message = [str(p) for p in wrong.path], wrong.error.message
    if not path:
        if not isinstance(body, dict):
            return BadRequest("The request body must be a JSON object.", field="body")
        return BadRequest(message, field="body")
    shown = "" if SECRETS & set(path) or isinstance(wrong.part, dict | list) else f" Value: {str(wrong.part)[:80]}."
    return BadRequest(f"Invalid input for field/attribute {path[-1]}.{shown} {message}", field=path[-1])


def boolean(value: Any) -> bool:
    """A boolean from what Keystone takes for one."""
    return bool(bool_from_string(value))
