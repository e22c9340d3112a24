"""What an image may look like: the JSON schemas that check requests, and the documents under /v2/schemas."""

from collections.abc import Mapping
from typing import Any

from nacre.base import errors as e
from nacre.base.image_formats import DISK_FORMATS
from nacre.base.serving.inputs import first_error, refuse_beyond, schema_validator

CONTAINER_FORMATS = ("ami", "ari", "aki", "bare", "ovf", "ova", "docker", "compressed")
STATUSES = ("queued", "saving", "uploading", "importing", "active", "deactivated", "killed", "deleted",
            "pending_delete")
VISIBILITIES = ("community", "public", "private", "shared")
UUID = "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"
#: The largest min_disk and min_ram that the database can hold.
MAX_INTEGER = 2147483647

Schema = dict[str, Any]


def text(description: str, limit: int | None = None, **more: Any) -> Schema:
    """A string of at most `limit` characters."""
    return {"type": "string", "description": description, **({"maxLength": limit} if limit else {}), **more}


def maybe(schema: Schema) -> Schema:
    """The same, or null."""
    kinds = ["null", schema["type"]]
    return {**schema, "type": kinds, **({"enum": [None, *schema["enum"]]} if "enum" in schema else {})}


def fixed(schema: Schema) -> Schema:
    """The same, set by the service alone."""
    return {**schema, "readOnly": True}


def count(description: str) -> Schema:
    """A whole number, from 0 up."""
    return {"type": "integer", "description": description, "minimum": 0, "maximum": MAX_INTEGER}


IMAGE: dict[str, Schema] = {
    "id": text("The image's identifier", pattern=UUID),
    "name": maybe(text("A name for people", 255)),
    "status": fixed(text("Where the image is in its life", enum=list(STATUSES))),
    "visibility": text("Who may see the image", enum=list(VISIBILITIES)),
    "protected": {"type": "boolean", "description": "If true, the image cannot be deleted."},
    "os_hidden": {"type": "boolean", "description": "If true, the image is left out of lists that do not ask for it."},
    "checksum": fixed(maybe(text("MD5 of the data, in hexadecimal", 32))),
    "os_hash_algo": fixed(maybe(text("Algorithm of os_hash_value", 64))),
    "os_hash_value": fixed(maybe(text("Hash of the data, in hexadecimal", 128))),
    "owner": maybe(text("The project that owns the image", 255)),
    "size": fixed({"type": ["null", "integer"], "description": "Size of the data, in bytes"}),
    "virtual_size": fixed({"type": ["null", "integer"], "description": "Size of the disk a guest sees, in bytes"}),
    "container_format": maybe(text("What the disk is wrapped in", enum=list(CONTAINER_FORMATS))),
    "disk_format": maybe(text("Format of the disk", enum=list(DISK_FORMATS))),
    "created_at": fixed(text("When the image was registered")),
    "updated_at": fixed(text("When the image last changed")),
    "tags": {"type": "array", "description": "Words for finding the image",
             "items": {"type": "string", "maxLength": 255}},
    "direct_url": fixed(text("Where the data is stored")),
    "min_ram": count("Least memory of a server that boots it, in MB"),
    "min_disk": count("Least disk of a server that boots it, in GB"),
    "self": fixed(text("The image's own URL")),
    "file": fixed(text("URL of the data")),
    "stores": fixed(text("Stores that hold the data, by commas")),
    "schema": fixed(text("URL of this schema")),
    "locations": {
        "type": "array", "description": "Where the data is stored outside",
        "items": {"type": "object", "required": ["url", "metadata"],
                  "properties": {"url": {"type": "string", "maxLength": 255}, "metadata": {"type": "object"}}},
    },
}
#: A free property: a name that is none of the above, and a short string.
PROPERTY: Schema = {"type": "string", "maxLength": 65535}

MEMBER: dict[str, Schema] = {
    "created_at": text("When the image was shared"),
    "image_id": text("The image's identifier", pattern=UUID),
    "member_id": text("The project it is shared with"),
    "schema": fixed(text("URL of this schema")),
    "status": text("Whether the project took it", enum=["pending", "accepted", "rejected"]),
    "updated_at": text("When the sharing last changed"),
}

TASK: dict[str, Schema] = {
    "id": text("The task's identifier", pattern=UUID),
    "type": text("What it does", enum=["import", "api_image_import", "location_import"]),
    "status": text("How far it is", enum=["pending", "processing", "success", "failure"]),
    "input": {"type": ["null", "object"], "description": "What it was asked"},
    "result": {"type": ["null", "object"], "description": "What came of it"},
    "owner": text("The project it works for"),
    "message": text("Why it failed"),
    "expires_at": {"type": ["null", "string"], "description": "When it may be forgotten"},
    "created_at": text("When it was asked for"),
    "updated_at": text("When it last changed"),
    "self": fixed(text("The task's own URL")),
    "schema": fixed(text("URL of this schema")),
}

_LINKS = [{"rel": "self", "href": "{self}"}, {"rel": "enclosure", "href": "{file}"},
          {"rel": "describedby", "href": "{schema}"}]


def collection(name: str, item: Schema) -> Schema:
    """The document of a list of items."""
    links = [{"rel": "first", "href": "{first}"}, {"rel": "next", "href": "{next}"},
             {"rel": "describedby", "href": "{schema}"}]
    return {"name": name, "links": links, "properties": {
        name: {"type": "array", "items": item}, "first": {"type": "string"}, "next": {"type": "string"},
        "schema": {"type": "string"}}}


_IMAGE_DOCUMENT = {"name": "image", "properties": IMAGE, "additionalProperties": {"type": "string"}, "links": _LINKS}
_MEMBER_DOCUMENT = {"name": "member", "properties": MEMBER}
_TASK_DOCUMENT = {"name": "task", "properties": TASK}

#: What GET /v2/schemas/<name> answers.
DOCUMENTS: dict[str, Schema] = {
    "image": _IMAGE_DOCUMENT,
    "images": collection("images", _IMAGE_DOCUMENT),
    "member": _MEMBER_DOCUMENT,
    "members": {"name": "members", "properties": {
        "members": {"type": "array", "items": _MEMBER_DOCUMENT}, "schema": {"type": "string"}},
        "links": [{"rel": "describedby", "href": "{schema}"}]},
    "task": _TASK_DOCUMENT,
    "tasks": collection("tasks", _TASK_DOCUMENT),
}

_IMAGE_CHECK = schema_validator({
    "type": "object", "properties": IMAGE, "additionalProperties": PROPERTY, "maxProperties": 512})


def check_image(attributes: Any) -> None:
    """Raises BadRequest unless every attribute given is of its kind."""
    check(_IMAGE_CHECK, attributes)


def check(validator: Any, body: Any) -> None:
    """Raises BadRequest naming the first field that breaks the schema."""
    refuse_beyond(body)
    if (wrong := first_error(validator, body)) is not None:
        path = "/".join(str(part) for part in wrong.path)
        reason = str(wrong.error.message).replace("\x00", "")
        if len(reason) > 300:
            reason = reason[:150] + " ... " + reason[-150:]
        raise e.BadRequest(f"Provided object does not match schema: {path or 'body'}: {reason}", field=path or None)
    if has_nul(body):
        raise e.BadRequest("A string may not contain a NUL character.")


def has_nul(value: Any) -> bool:
    """Whether a NUL hides anywhere in a parsed body (PostgreSQL can store none)."""
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, Mapping):
        return any(has_nul(k) or has_nul(v) for k, v in value.items())
    return isinstance(value, list) and any(map(has_nul, value))
