"""Pieces that many schemas share: names, numbers, addresses, metadata."""

from typing import Any

J = dict[str, Any]
MAX_INT = 0x7FFFFFFF


def obj(properties: J, *required: str, noun: str | None = None) -> J:
    """An object that takes these fields and no others; `noun` ties them to the microversion table."""
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False,
            **({"noun": noun} if noun else {})}


def wrap(name: str, inner: Any) -> J:
    """`{name: inner}`, and nothing beside it."""
    return obj({name: inner}, name)


NAME: J = {"type": "string", "minLength": 1, "maxLength": 255, "format": "name"}
SPACED_NAME: J = {**NAME, "format": "spaced_name"}
AZ_NAME: J = {**NAME, "format": "az_name"}
DESCRIPTION: J = {"type": ["string", "null"], "maxLength": 255, "format": "printable"}
UUID: J = {"type": "string", "format": "uuid"}
STRING: J = {"type": "string"}
BOOLEAN: J = {"type": ["boolean", "string"], "enum": [
    True, "True", "TRUE", "true", "1", "ON", "On", "on", "YES", "Yes", "yes",
    False, "False", "FALSE", "false", "0", "OFF", "Off", "off", "NO", "No", "no"]}
POSITIVE: J = {"type": ["integer", "string"], "pattern": "^0*[1-9][0-9]*$", "minimum": 1, "maximum": MAX_INT,
               "format": "int32"}
NOT_NEGATIVE: J = {"type": ["integer", "string"], "pattern": "^[0-9]+$", "minimum": 0, "maximum": MAX_INT,
                   "format": "int32"}
LIMIT: J = {"type": ["integer", "string"], "pattern": "^(-1|[0-9]+)$", "minimum": -1, "maximum": MAX_INT,
            "format": "int32"}
COUNT: J = {"type": "string", "pattern": "^[0-9]+$", "format": "int32"}
IPV4: J = {"type": "string", "format": "ipv4"}
IPV6: J = {"type": "string", "format": "ipv6"}
ADDRESS: J = {"type": "string", "oneOf": [{"format": "ipv4"}, {"format": "ipv6"}]}
HOSTNAME: J = {"type": "string", "pattern": "^[a-zA-Z0-9]+[a-zA-Z0-9-]*[a-zA-Z0-9]+$", "minLength": 2, "maxLength": 63}
FQDN: J = {"type": "string", "pattern": "^[a-zA-Z0-9._-]*$", "minLength": 1, "maxLength": 255}
METADATA: J = {"type": "object", "additionalProperties": False, "patternProperties": {
    "^[a-zA-Z0-9_:. -]{1,255}$": {"type": "string", "maxLength": 255}}}
METADATA_OR_NULL: J = {**METADATA, "patternProperties": {
    "^[a-zA-Z0-9_:. -]{1,255}$": {"type": ["string", "null"], "maxLength": 255}}}
TAG: J = {"type": "string", "pattern": "^[^,/]*$", "minLength": 1, "maxLength": 60, "format": "printable"}
DISK_CONFIG: J = {"type": "string", "enum": ["AUTO", "MANUAL"]}
USER_DATA: J = {"type": "string", "maxLength": 65535, "format": "base64"}
PERSONALITY: J = {"type": "array", "items": obj({"path": STRING, "contents": {"type": "string", "format": "base64"}})}
CERTIFICATES: J = {"type": ["array", "null"], "minItems": 1, "maxItems": 50, "uniqueItems": True,
                   "items": {"type": "string", "minLength": 1}}
PAGING: J = {"limit": COUNT, "marker": STRING}
REGEX: J = {"type": "string", "format": "regex"}
TIME: J = {"type": "string", "format": "date-time"}
