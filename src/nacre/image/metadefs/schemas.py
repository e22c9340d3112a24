"""JSON schemas of metadata definitions: for checking requests, and for GET /v2/schemas/metadefs/<name>."""

from typing import Any

from nacre.base.serving.inputs import schema_validator
from nacre.image.schemas import Schema, collection, fixed, text

_TYPES = {"type": "string", "enum": ["array", "boolean", "integer", "number", "object", "string"]}
_COUNT = {"type": "integer", "minimum": 0}
_WORDS = {"type": "array", "items": {"type": "string"}, "uniqueItems": True}
_TIMES = {"created_at": fixed(text("When it was made", format="date-time")),
          "updated_at": fixed(text("When it last changed", format="date-time"))}
_URLS = {"self": fixed(text("Its own URL")), "schema": fixed(text("URL of this schema"))}

PROPERTY: dict[str, Schema] = {
    "name": {"type": "string", "maxLength": 80, "minLength": 1},
    "title": {"type": "string"}, "description": {"type": "string"}, "type": _TYPES,
    "operators": {"type": "array", "items": {"type": "string"}}, "required": _WORDS,
    "minimum": {"type": "number"}, "maximum": {"type": "number"}, "maxLength": _COUNT, "minLength": _COUNT,
    "pattern": {"type": "string"}, "enum": {"type": "array"}, "readonly": {"type": "boolean"}, "default": {},
    "items": {"type": "object", "properties": {"type": _TYPES, "enum": {"type": "array"}}},
    "maxItems": _COUNT, "minItems": _COUNT, "uniqueItems": {"type": "boolean"}, "additionalItems": {"type": "boolean"},
    "confidential": {"type": "boolean"},
}
_PROPERTIES = {"type": "object", "propertyNames": {"minLength": 1, "maxLength": 80},
               "additionalProperties": {"type": "object", "required": ["title", "type"], "properties": PROPERTY}}
_NAME = {"type": "string", "minLength": 1, "maxLength": 80}
_BARE_OBJECT: dict[str, Schema] = {"name": _NAME, "description": {"type": "string"}, "required": _WORDS,
                                   "properties": _PROPERTIES}
_BARE_ASSOCIATION: dict[str, Schema] = {
    "name": _NAME, "prefix": text("Put before the names of properties", 80),
    "properties_target": text("Which of several sets of metadata is meant", 80)}

OBJECT = {**_BARE_OBJECT, **_URLS, **_TIMES}
TAG = {"name": _NAME, **_TIMES}
ASSOCIATION = {**_BARE_ASSOCIATION, **_TIMES}
NAMESPACE: dict[str, Schema] = {
    "namespace": text("The unique name", 80, minLength=1),
    "display_name": text("A name for people", 80),
    "description": text("What the vocabulary is about", 500),
    "visibility": text("Who may see it", enum=["public", "private"]),
    "protected": {"type": "boolean", "description": "If true, it cannot be deleted."},
    "owner": text("The project that owns it", 255),
    **_TIMES, **_URLS,
    "resource_type_associations": {"type": "array", "items": {
        "type": "object", "required": ["name"], "properties": _BARE_ASSOCIATION}},
    "properties": _PROPERTIES,
    "objects": {"type": "array", "items": {"type": "object", "required": ["name"], "properties": _BARE_OBJECT}},
    "tags": {"type": "array", "items": {"type": "object", "required": ["name"], "properties": {"name": _NAME}}},
}

#: What the service sets: a request that does is refused.
READ_ONLY = ("self", "schema", "created_at", "updated_at")


def _document(name: str, properties: dict[str, Schema], *required: str) -> Schema:
    return {"name": name, "properties": properties, "required": list(required), "additionalProperties": False}


_NAMESPACE = _document("namespace", NAMESPACE, "namespace")
_OBJECT = _document("object", OBJECT, "name")
_PROPERTY = _document("property", PROPERTY, "name", "title", "type")
_TAG = _document("tag", TAG, "name")
_ASSOCIATION = _document("resource_type_association", ASSOCIATION, "name")

DOCUMENTS: dict[str, Schema] = {
    "namespace": _NAMESPACE, "namespaces": collection("namespaces", _NAMESPACE),
    "object": _OBJECT, "objects": collection("objects", _OBJECT),
    "property": _PROPERTY,
    "properties": {"name": "properties", "properties": {"properties": {
        "type": "object", "additionalProperties": {**_PROPERTY, "required": ["title", "type"]}}}},
    "tag": _TAG, "tags": collection("tags", _TAG),
    "resource_type": _ASSOCIATION,
    "resource_types": collection("resource_type_associations", _ASSOCIATION),
}


def _validator(document: Schema) -> Any:
    return schema_validator({"type": "object", **{k: v for k, v in document.items() if k != "name"}})


#: One validator for each kind of thing that a request may carry.
CHECKS: dict[str, Any] = {
    "namespace": _validator(_NAMESPACE), "objects": _validator(_OBJECT), "properties": _validator(_PROPERTY),
    "tags": _validator(_TAG), "resource_types": _validator(_ASSOCIATION),
    "tag_list": schema_validator({"type": "object", "required": ["tags"], "additionalProperties": False,
                                             "properties": {"tags": NAMESPACE["tags"]}}),
}
