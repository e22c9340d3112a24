"""What a client may send about servers, at every microversion."""

from typing import Any

from nacre.compute.api import types as t
from nacre.compute.api.validation import Query, Schema, Since

_NETWORK = {"fixed_ip": t.ADDRESS, "port": {"type": ["string", "null"], "format": "uuid"}}
#: Up to 2.36 any word may name a network (and be refused later); the tag came in 2.32, was lost in 2.37, came back.
_NETWORKS: t.J = {"type": "array", "items": t.obj(
    {**_NETWORK, "uuid": t.STRING, "tag": t.TAG}, noun="server.network")}
_NETWORKS_37: t.J = {"oneOf": [
    {"type": "array", "items": t.obj({**_NETWORK, "uuid": t.UUID, "tag": t.TAG}, noun="server.network37")},
    {"type": "string", "enum": ["none", "auto"]}]}

_DISK_1: t.J = {
    "virtual_name": {"type": "string", "maxLength": 255}, "volume_id": t.UUID, "snapshot_id": t.UUID,
    "volume_size": t.POSITIVE, "delete_on_termination": t.BOOLEAN, "no_device": {},
    "device_name": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[a-zA-Z0-9._/-]*$"},
    "connection_info": t.STRING}
_SHORT: t.J = {"type": "string", "maxLength": 255}
_DISK_2: t.J = {
    **_DISK_1, "source_type": {"type": "string", "enum": ["volume", "image", "snapshot", "blank"]},
    "uuid": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[a-zA-Z0-9._-]*$"},
    "image_id": t.UUID, "destination_type": {"type": "string", "enum": ["local", "volume"]},
    "guest_format": _SHORT, "device_type": _SHORT, "disk_bus": _SHORT,
    "boot_index": {"type": ["integer", "string", "null"], "pattern": "^-?[0-9]{1,9}$",
                   "minimum": -999999999, "maximum": 999999999},
    "volume_type": {"type": ["string", "null"], "maxLength": 255}}
#: A disk's tag was taken in 2.32 only, and again from 2.42 on.
_DISKS_PLAIN: t.J = {"type": "array", "items": t.obj(_DISK_2, noun="server.disk")}
_DISKS_TAGGED: t.J = {"type": "array", "items": t.obj({**_DISK_2, "tag": t.TAG}, noun="server.disk")}

_SERVERS = {"type": ["string", "array"], "format": "uuid", "items": t.UUID}
_AMOUNT: t.J = {"type": "integer", "minimum": 0, "maximum": 10**7}
HINTS: t.J = {"type": "object", "additionalProperties": True, "properties": {
    "group": t.UUID,
    "different_host": {"anyOf": [_SERVERS, t.BOOLEAN]}, "try_different_host": {"anyOf": [_SERVERS, t.BOOLEAN]},
    "same_host": _SERVERS,
    "query": {"type": ["string", "object"]}, "target_cell": t.NAME,
    "different_cell": {"type": ["string", "array"], "items": t.STRING}, "build_near_host_ip": t.ADDRESS,
    "cidr": {"type": "string", "pattern": "^/[0-9a-f.:]+$"},
    "scheduler_host": t.FQDN, "scheduler_host_match": {**t.REGEX, "minLength": 1, "maxLength": 255},
    "queue_name": {**t.NAME, "pattern": "^[a-zA-Z0-9._-]+$"},
    "network_bandwidth": _AMOUNT, "disk_bandwidth": _AMOUNT, "disk_shares": _AMOUNT,
    "selected_dir": {"type": "string", "pattern": "^/", "maxLength": 255}}}

_CREATE: t.J = {
    "name": t.NAME, "imageRef": {"oneOf": [t.UUID, {"type": "string", "maxLength": 0}]},
    "flavorRef": {"type": ["string", "integer"], "minLength": 1, "maxLength": 255, "format": "printable"},
    "adminPass": {"type": "string", "maxLength": 1024},
    "metadata": t.METADATA, "networks": Since({1: _NETWORKS, 37: _NETWORKS_37}), "OS-DCF:diskConfig": t.DISK_CONFIG,
    "accessIPv4": t.IPV4, "accessIPv6": t.IPV6, "personality": t.PERSONALITY, "availability_zone": t.NAME,
    "block_device_mapping": {"type": "array", "items": t.obj(_DISK_1)},
    "block_device_mapping_v2": Since({1: _DISKS_PLAIN, 32: _DISKS_TAGGED, 33: _DISKS_PLAIN, 42: _DISKS_TAGGED}),
    "config_drive": t.BOOLEAN, "key_name": t.NAME, "min_count": t.POSITIVE, "max_count": t.POSITIVE,
    "return_reservation_id": t.BOOLEAN,
    "security_groups": {"type": "array", "items": t.obj({"name": t.NAME})},
    "user_data": t.USER_DATA, "description": t.DESCRIPTION,
    "tags": {"type": "array", "items": t.TAG, "maxItems": 50}, "trusted_image_certificates": t.CERTIFICATES,
    "host": t.FQDN, "hypervisor_hostname": t.FQDN, "hostname": Since({1: t.HOSTNAME, 94: t.FQDN}),
    "kernel_id": t.UUID, "ramdisk_id": t.UUID,
}
#: From 2.37 on a client says which networks it wants, be it "none" or "auto".
_WANTED = Since({1: ["name", "flavorRef"], 37: ["name", "flavorRef", "networks"]})
_ONE: t.J = {"type": "object", "properties": _CREATE, "required": _WANTED, "additionalProperties": False,
             "noun": "server.create"}
#: In a batch each server may carry its own hints.
_ONE_OF_MANY: t.J = {**_ONE, "properties": {**_CREATE, "os:scheduler_hints": HINTS}}

CREATE = Schema(t.obj({"server": _ONE, "os:scheduler_hints": HINTS, "OS-SCH-HNT:scheduler_hints": HINTS}, "server"))
CREATE_BATCH = Schema(t.obj({
    "servers": {"type": "array", "items": _ONE_OF_MANY, "minItems": 1, "maxItems": 1000},
    "os:scheduler_hints": HINTS, "OS-SCH-HNT:scheduler_hints": HINTS}, "servers"))

UPDATE = Schema(t.wrap("server", t.obj({
    "name": t.NAME, "OS-DCF:diskConfig": t.DISK_CONFIG, "accessIPv4": {"oneOf": [t.IPV4, {"const": ""}]},
    "accessIPv6": {"oneOf": [t.IPV6, {"const": ""}]}, "description": t.DESCRIPTION,
    "hostname": Since({1: t.HOSTNAME, 94: t.FQDN}),
    "pinned_availability_zone": {"oneOf": [t.NAME, {"type": "null"}]}}, noun="server.update")))

#: Clients' names of what a list may be sorted by -> the field it means. None: taken and ignored before 2.75.
SORT_KEYS: dict[str, str | None] = {
    **{name: name for name in (
        "access_ip_v4", "access_ip_v6", "availability_zone", "config_drive", "created_at", "host", "hostname",
        "key_name", "launch_index", "launched_at", "power_state", "project_id", "task_state", "terminated_at",
        "updated_at", "user_id", "vm_state")},
    "auto_disk_config": "disk_config", "display_description": "description", "display_name": "name",
    "image_ref": "image_id", "instance_type_id": "flavor_id", "uuid": "id", "node": "host",
    "kernel_id": "image_id", "ramdisk_id": "image_id", "locked_by": "locked", "progress": "id",
    "root_device_name": "id",
}
IGNORED_SORT_KEYS = (
    "architecture", "cell_name", "cleaned", "default_ephemeral_device", "default_swap_device", "deleted",
    "deleted_at", "disable_terminate", "ephemeral_gb", "ephemeral_key_uuid", "id", "key_data", "launched_on",
    "memory_mb", "os_type", "reservation_id", "root_gb", "shutdown_terminate", "user_data", "vcpus", "vm_mode")
_SORT = Since({
    1: {"type": "string", "enum": [*SORT_KEYS, *IGNORED_SORT_KEYS, "locked"]},
    75: {"type": "string", "enum": [*SORT_KEYS, "locked"]}})

#: Filters that are regular expressions to Nova.
PATTERNS = ("kernel_id", "ramdisk_id", "hostname", "key_name", "power_state", "node", "flavor", "reservation_id",
            "launched_at", "terminated_at", "availability_zone", "name", "display_name", "description",
            "display_description", "locked_by", "root_device_name", "config_drive", "access_ip_v4", "access_ip_v6",
            "auto_disk_config", "progress", "ip", "ip6", "created_at", "tags", "tags-any", "not-tags", "not-tags-any")
WORDS = ("user_id", "project_id", "tenant_id", "launch_index", "image_ref", "image", "vm_state", "task_state", "host",
         "uuid", "all_tenants", "soft_deleted", "deleted", "status", "locked", "sort_dir")
#: Names of Nova's joined tables: refused as filters.
FORBIDDEN = ("block_device_mapping", "services", "metadata", "system_metadata", "info_cache", "security_groups",
             "pci_devices")
LIST = Query("server.query", {
    **dict.fromkeys(PATTERNS, t.REGEX), **dict.fromkeys((*WORDS, *FORBIDDEN), t.STRING),
    "changes-since": t.TIME, "changes-before": t.TIME, "sort_key": _SORT, **t.PAGING})

METADATA = Schema(t.wrap("metadata", t.METADATA))
ONE_METADATA = Schema(t.wrap("meta", {**t.METADATA, "minProperties": 1, "maxProperties": 1}))
TAGS = Schema(t.wrap("tags", {"type": "array", "items": t.TAG, "maxItems": 50}))


def action(name: str, inner: Any = None) -> Schema:
    """The body of an action: `{name: inner}`; by default anything, which Nova takes for most of them."""
    return Schema(t.wrap(name, {} if inner is None else inner))


REBOOT = action("reboot", t.obj({"type": {"type": "string", "enum": ["HARD", "Hard", "hard", "SOFT", "Soft", "soft"]}},
                                "type"))
CONSOLE = action("os-getConsoleOutput", t.obj({"length": {
    "type": ["integer", "string", "null"], "pattern": "^(-1|[0-9]{1,9}|)$", "minimum": -1, "maximum": t.MAX_INT}}))
LOCK = action("lock", Since({1: {}, 73: {"type": ["object", "null"], "additionalProperties": False, "properties": {
    "locked_reason": {"type": "string", "minLength": 1, "maxLength": 255}}}}))

_HOST = {**t.FQDN, "type": ["string", "null"]}
_USER_DATA_OR_NULL = {"oneOf": [t.USER_DATA, {"type": "null"}]}
#: The bodies of the actions that are not built: a wrong one is refused before that is said.
UNBUILT: dict[str, Any] = {
    "changePassword": t.obj({"adminPass": t.STRING}, "adminPass"),
    "resize": t.obj({"flavorRef": _CREATE["flavorRef"], "OS-DCF:diskConfig": t.DISK_CONFIG}, "flavorRef"),
    "createImage": t.obj({"name": t.NAME, "metadata": t.METADATA}, "name"),
    "createBackup": t.obj({"name": t.NAME, "backup_type": t.STRING, "rotation": t.NOT_NEGATIVE, "metadata": t.METADATA},
                          "name", "backup_type", "rotation"),
    "rescue": {**t.obj({"adminPass": t.STRING, "rescue_image_ref": t.UUID}), "type": ["object", "null"]},
    "migrate": {**t.obj({"host": _HOST}), "type": ["object", "null"]},
    "os-resetState": t.obj({"state": {"type": "string", "enum": ["active", "error"]}}, "state"),
    "rebuild": t.obj({
        "name": t.NAME, "imageRef": t.UUID, "adminPass": t.STRING, "metadata": t.METADATA,
        "preserve_ephemeral": t.BOOLEAN, "OS-DCF:diskConfig": t.DISK_CONFIG, "accessIPv4": t.IPV4,
        "accessIPv6": t.IPV6, "personality": t.PERSONALITY, "description": t.DESCRIPTION,
        "key_name": {"oneOf": [t.NAME, {"type": "null"}]}, "user_data": _USER_DATA_OR_NULL,
        "trusted_image_certificates": t.CERTIFICATES, "hostname": Since({1: t.HOSTNAME, 94: t.FQDN}),
    }, "imageRef", noun="server.rebuild"),
}
