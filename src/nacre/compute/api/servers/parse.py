"""The body of a create, turned into `ServerSpec`s. Pure: what needs the database is checked by the service."""

import secrets
import string
from collections.abc import Mapping
from ipaddress import IPv6Address
from typing import Any

import msgspec
from oslo_utils.strutils import bool_from_string
from oslo_utils.uuidutils import is_uuid_like

from nacre.base.errors import BadRequest, NotBuilt
from nacre.base.web import Version
from nacre.compute.api.microversions import known
from nacre.compute.contract import ServerSpec
from nacre.network.contract import AUTO, NetworkRequest

HINT_NAMES = ("os:scheduler_hints", "OS-SCH-HNT:scheduler_hints")
#: Hints that only administrators may give, as they name hosts.
ADMIN_HINTS = ("scheduler_host", "selected_dir")
_PASSWORD = string.ascii_letters.translate(str.maketrans("", "", "lIoO")) + "23456789"


def new_password() -> str:
    """For a server whose creator gave none: 12 letters and digits that are not mistaken for each other."""
    return "".join(secrets.choice(_PASSWORD) for _ in range(12))


def ipv6(given: str | None) -> str | None:
    """An accessIPv6 in its one short form; None for none and for the empty text that clears it."""
    return str(IPv6Address(given)) if given else None


def hints_of(body: Mapping[str, Any]) -> Any:
    """The scheduler hints beside the server, under either of their names: an object where the schema has been asked."""
    return next((body[name] for name in HINT_NAMES if name in body), {})


def spec_of(given: Mapping[str, Any], hints: Mapping[str, Any], version: Version) -> ServerSpec:
    """One server of a create. Raises BadRequest; NotBuilt for disks that are volumes."""
    minimum = int(given.get("min_count", 1))
    maximum = int(given.get("max_count", minimum))
    if minimum > maximum:
        raise BadRequest("min_count must be <= max_count", field="min_count")
    name = given["name"].strip()
    image = _image(given)
    _no_volumes(given, image)
    zone, host = _zone(given)
    return ServerSpec(
        name=name, flavor_id=str(given["flavorRef"]), image_id=image, networks=_networks(given),
        min_count=minimum, max_count=maximum,
        description=given.get("description") if known("server.create.description", version) else name,
        hostname=given.get("hostname"), metadata=given.get("metadata", {}),
        tags=tuple(dict.fromkeys(given.get("tags", ()))), key_name=given.get("key_name"),
        security_groups=tuple(dict.fromkeys(g["name"] for g in given.get("security_groups", ()) if "name" in g)),
        availability_zone=zone, host=host or given.get("host") or given.get("hypervisor_hostname"),
        user_data=given.get("user_data"), files=_files(given),
        admin_password=given.get("adminPass") or new_password(), access_ip_v4=given.get("accessIPv4"),
        access_ip_v6=ipv6(given.get("accessIPv6")), config_drive=bool_from_string(given.get("config_drive", False)),
        disk_config=given.get("OS-DCF:diskConfig", "MANUAL"), kernel_id=given.get("kernel_id", ""),
        ramdisk_id=given.get("ramdisk_id", ""), trusted_certs=tuple(given.get("trusted_image_certificates") or ()),
        hints=_hints(hints))


def planned(given: Mapping[str, Any], hints: Mapping[str, Any]) -> ServerSpec:
    """Servers that are only to be placed, and only as a question: no networks, and as many as find room."""
    zone, host = _zone(given)
    return ServerSpec(name="plan", flavor_id=str(given["flavorRef"]), image_id=given["imageRef"], networks=(),
                      max_count=given.get("count", 1), availability_zone=zone, host=host, hints=_hints(hints))


def _zone(given: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """`zone`, `zone:host` or `zone:host:node`; the node is the host."""
    text = given.get("availability_zone")
    if text is None:
        return None, None
    zone, _, rest = text.partition(":")
    host, _, node = rest.partition(":")
    if ":" in node:
        raise BadRequest("Invalid input received: Unable to parse availability_zone", field="availability_zone")
    if (host or node) and (given.get("host") or given.get("hypervisor_hostname")):
        raise BadRequest("One mechanism with host and/or hypervisor_hostname and another mechanism with "
                         "zone:host:node are mutually exclusive.", field="host")
    return zone or None, host or node or None


def _image(given: Mapping[str, Any]) -> str:
    """The image to boot from: named itself, or by the disk that boots first."""
    image = given.get("imageRef") or ""
    for disk in given.get("block_device_mapping_v2", ()):
        first = str(disk.get("boot_index")) == "0"
        if first and disk.get("source_type") == "image" and disk.get("destination_type", "local") == "local":
            named = disk.get("uuid") or disk.get("image_id") or ""
            if image and named and named != image:
                raise BadRequest("Block Device Mapping is Invalid: Boot sequence for the instance and image/block "
                                 "device mapping combination is not valid.", field="block_device_mapping_v2")
            image = image or named
    if not image and not given.get("block_device_mapping") and not given.get("block_device_mapping_v2"):
        raise BadRequest("Invalid imageRef provided.", field="imageRef")
    return image


def _no_volumes(given: Mapping[str, Any], image: str) -> None:
    if given.get("block_device_mapping") and given.get("block_device_mapping_v2"):
        raise BadRequest("Block device mapping cannot have both block_device_mapping and block_device_mapping_v2.",
                         field="block_device_mapping")
    disks = [*given.get("block_device_mapping", ()), *given.get("block_device_mapping_v2", ())]
    for disk in disks:
        local = disk.get("source_type") == "image" and disk.get("destination_type", "local") == "local"
        if local and (disk.get("uuid") or disk.get("image_id")) == image:
            continue
        raise NotBuilt("Nacre has no volumes, and no disks besides those of image and flavor.",
                       field="block_device_mapping_v2")


def _networks(given: Mapping[str, Any]) -> tuple[NetworkRequest, ...] | None:
    """None: the client named none."""
    wanted = given.get("networks")
    if wanted is None:
        return None
    if wanted == "auto":
        return (AUTO,)
    if wanted == "none":
        return ()
    found = []
    for item in wanted:
        port, network = item.get("port"), item.get("uuid")
        if port is None and network is None:
            raise BadRequest("Bad network format: missing 'uuid'", field="networks")
        if port is None and not is_uuid_like(network):
            raise BadRequest(f"Bad networks format: network uuid is not in proper format ({network})",
                             field="networks")
        if port is not None and item.get("fixed_ip"):
            raise BadRequest(f"Specified Fixed IP '{item['fixed_ip']}' cannot be used with port '{port}': the two "
                             "cannot be specified together.", field="networks")
        found.append(NetworkRequest(network_id=None if port else network, port_id=port,
                                    fixed_ip=item.get("fixed_ip"), tag=item.get("tag")))
    ports = [item.port_id for item in found if item.port_id]
    if len(ports) != len(set(ports)):
        raise BadRequest("A port is named more than once.", field="networks")
    return tuple(found) or None


def _files(given: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    found = []
    for item in given.get("personality", ()):
        if not item.get("path") or "contents" not in item:
            raise BadRequest("Bad personality format: missing 'path' or 'contents'", field="personality")
        found.append((item["path"], item["contents"]))
    return tuple(found)


def _hints(given: Mapping[str, Any]) -> dict[str, Any]:
    """One server where a list may stand becomes a list; a query becomes text."""
    hints = dict(given)
    for name in ("different_host", "same_host", "try_different_host"):
        if isinstance(hints.get(name), str) and is_uuid_like(hints[name]):
            hints[name] = [hints[name]]
    if not isinstance(hints.get("query", ""), str):
        hints["query"] = msgspec.json.encode(hints["query"]).decode()
    return hints
