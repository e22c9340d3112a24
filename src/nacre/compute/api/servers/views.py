"""Servers as clients see them: pure functions from a server and its ports to JSON, by microversion.

`Lens` is what is the same for all servers of one answer: version, URLs, what the caller may see, host facts.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nacre.base.clock import iso
from nacre.base.web import Version
from nacre.compute.api.microversions import known
from nacre.compute.catalog.aggregates import DEFAULT_ZONE
from nacre.compute.contract import Server
from nacre.network.contract import PortFacts

#: (vm_state, task_state) -> status, where the task shows; else the state's own.
_TASKS: dict[str, dict[str, str]] = {
    "REBOOT": {"reboot_pending": "active", "reboot_started": "active", "rebooting": "active"},
    "HARD_REBOOT": {"reboot_pending_hard": "active", "reboot_started_hard": "active", "rebooting_hard": "active"},
    "PASSWORD": {"updating_password": "active"},
}
_STATES = {"active": "ACTIVE", "building": "BUILD", "stopped": "SHUTOFF", "resized": "VERIFY_RESIZE",
           "paused": "PAUSED", "suspended": "SUSPENDED", "rescued": "RESCUE", "error": "ERROR", "deleted": "DELETED",
           "soft-delete": "SOFT_DELETED", "shelved": "SHELVED", "shelved_offloaded": "SHELVED_OFFLOADED"}
_REBUILD = dict.fromkeys(("rebuilding", "rebuild_block_device_mapping", "rebuild_spawning"), "REBUILD")
_RESIZE = dict.fromkeys(("resize_prep", "resize_migrating", "resize_migrated", "resize_finish"), "RESIZE")
_BY_TASK: dict[str, dict[str, str]] = {
    "active": {**{task: status for status, tasks in _TASKS.items() for task in tasks}, **_REBUILD, **_RESIZE,
               "migrating": "MIGRATING"},
    "stopped": {**_REBUILD, **_RESIZE}, "error": _REBUILD, "paused": {"migrating": "MIGRATING"},
    "resized": {"resize_reverting": "REVERT_RESIZE"},
}
POWER = {"": 0, "pending": 0, "running": 1, "paused": 3, "shutdown": 4, "crashed": 6, "suspended": 7, "missing": 0}
_WITH_PROGRESS = {"ACTIVE", "BUILD", "REBUILD", "RESIZE", "VERIFY_RESIZE", "MIGRATING"}


def status_of(vm_state: str, task_state: str | None) -> str:
    """The status of these states."""
    return _BY_TASK.get(vm_state, {}).get(task_state or "") or _STATES.get(vm_state, "UNKNOWN")


def states_of(statuses: Sequence[str]) -> tuple[set[str], set[str]]:
    """The vm states and the task states ("default": any other) that show as one of these statuses."""
    wanted = {status.upper() for status in statuses}
    found = [(state, "default") for state, status in _STATES.items() if status in wanted]
    found += [(state, task) for state, tasks in _BY_TASK.items() for task, status in tasks.items() if status in wanted]
    return {state for state, _ in found}, {task for _, task in found}


@dataclass(frozen=True)
class Lens:
    """What holds for every server of one answer."""

    version: Version
    root: str  # the service's URL
    admin: bool = False  # may see extended attributes
    flavor_specs: bool = False
    host_status: bool = False
    faults: bool = False  # may see the details of a fault
    zones: Mapping[str, str] = field(default_factory=dict)  # host -> zone
    hosts: Mapping[str, str] = field(default_factory=dict)  # host -> UP, DOWN, UNKNOWN, MAINTENANCE
    group_names: Mapping[str, str] = field(default_factory=dict)  # security group id -> name


def server_links(root: str, server_id: str) -> list[dict[str, str]]:
    """The self and bookmark links of a server."""
    return [{"rel": "self", "href": f"{root}/v2.1/servers/{server_id}"},
            {"rel": "bookmark", "href": f"{root}/servers/{server_id}"}]


def brief(server: Server, lens: Lens) -> dict[str, Any]:
    """A server in GET /servers."""
    return {"id": server.id, "name": server.name, "links": server_links(lens.root, server.id)}


def host_id(host: str | None, project_id: str) -> str:
    """A name of the host that says nothing about it, other for each project."""
    return hashlib.sha224((project_id + host).encode()).hexdigest() if host else ""


def addresses(ports: Sequence[PortFacts]) -> dict[str, list[dict[str, Any]]]:
    """Addresses by the network's name, in the order of the interfaces."""
    found: dict[str, list[dict[str, Any]]] = {}
    for port in ports:
        for fixed in port.fixed_ips:
            found.setdefault(port.network_name, []).append({
                "version": 6 if ":" in fixed.ip_address else 4, "addr": fixed.ip_address,
                "OS-EXT-IPS:type": "fixed", "OS-EXT-IPS-MAC:mac_addr": port.mac_address})
    return found


def plain_addresses(ports: Sequence[PortFacts]) -> dict[str, list[dict[str, Any]]]:
    """The same, as GET .../ips gives it."""
    return {name: [{"version": a["version"], "addr": a["addr"]} for a in found]
            for name, found in addresses(ports).items()}


def detail(server: Server, ports: Sequence[PortFacts], lens: Lens) -> dict[str, Any]:
    """A server in GET /servers/detail."""
    version, root = lens.version, lens.root
    status = status_of(server.vm_state, server.task_state)
    found: dict[str, Any] = {
        "id": server.id, "name": server.name, "status": status, "tenant_id": server.project_id,
        "user_id": server.user_id, "metadata": server.metadata, "hostId": host_id(server.host, server.project_id),
        "image": _image(server, lens), "flavor": _flavor(server, lens),
        "created": iso(server.created_at), "updated": iso(server.updated_at or server.created_at),
        "addresses": {} if server.vm_state == "building" else addresses(ports),
        "accessIPv4": server.access_ip_v4 or "", "accessIPv6": server.access_ip_v6 or "",
        "links": server_links(root, server.id), "OS-DCF:diskConfig": server.disk_config}
    if status in _WITH_PROGRESS:
        found["progress"] = 100 if status == "ACTIVE" else 0
    if status in ("ERROR", "DELETED") and (fault := _fault(server, lens)):
        found["fault"] = fault
    found["OS-EXT-AZ:availability_zone"] = lens.zones.get(server.host, DEFAULT_ZONE) if server.host else (
        server.availability_zone or "")
    found["config_drive"] = "True" if server.config_drive else ""
    found["key_name"] = server.key_name
    for name, moment in (("launched_at", server.launched_at), ("terminated_at", server.terminated_at)):
        found[f"OS-SRV-USG:{name}"] = moment.strftime("%Y-%m-%dT%H:%M:%S.%f") if moment else None
    if groups := security_groups(ports, lens.group_names):
        found["security_groups"] = groups
    found |= {"OS-EXT-STS:task_state": server.task_state, "OS-EXT-STS:vm_state": server.vm_state,
              "OS-EXT-STS:power_state": POWER.get(server.power_state, 0),
              "os-extended-volumes:volumes_attached": []}
    if lens.admin:
        found |= _extended(server, version)
    return found | _newer(server, lens)


def security_groups(ports: Sequence[PortFacts], names: Mapping[str, str]) -> list[dict[str, str]]:
    """The names of the groups on these ports, each once."""
    ids = dict.fromkeys(group for port in ports for group in port.security_groups)
    return [{"name": name} for name in dict.fromkeys(names.get(group, group) for group in ids)]


def _image(server: Server, lens: Lens) -> Any:
    if not server.image_id:
        return ""
    found: dict[str, Any] = {"id": server.image_id, "links": [
        {"rel": "bookmark", "href": f"{lens.root}/images/{server.image_id}"}]}
    if known("server.image_properties", lens.version):
        found["properties"] = server.image_properties
    return found


def _flavor(server: Server, lens: Lens) -> dict[str, Any]:
    flavor = server.flavor
    if not known("server.embedded_flavor", lens.version):
        return {"id": flavor.id, "links": [{"rel": "bookmark", "href": f"{lens.root}/flavors/{flavor.id}"}]}
    found: dict[str, Any] = {
        "vcpus": flavor.vcpus, "ram": flavor.memory_mb, "disk": flavor.root_gb, "ephemeral": flavor.ephemeral_gb,
        "swap": flavor.swap_mb, "original_name": flavor.name}
    if lens.flavor_specs:
        found["extra_specs"] = flavor.extra_specs
    return found


def _fault(server: Server, lens: Lens) -> dict[str, Any] | None:
    fault = server.fault
    if fault is None:
        return None
    found: dict[str, Any] = {"code": fault.code, "created": iso(fault.created_at), "message": fault.message}
    if fault.details and (lens.faults or fault.code != 500):
        found["details"] = fault.details
    return found


def _extended(server: Server, version: Version) -> dict[str, Any]:
    """What administrators see besides."""
    prefix = "OS-EXT-SRV-ATTR:"
    found: dict[str, Any] = {prefix + "host": server.host, prefix + "hypervisor_hostname": server.host,
             prefix + "instance_name": server.domain_name}
    if known("server.extended", version):
        found |= {prefix + name: value for name, value in (
            ("reservation_id", server.reservation_id), ("launch_index", server.launch_index),
            ("hostname", server.hostname), ("kernel_id", server.kernel_id or ""),
            ("ramdisk_id", server.ramdisk_id or ""), ("root_device_name", server.root_device_name),
            ("user_data", server.user_data))}
    return found


def _newer(server: Server, lens: Lens) -> dict[str, Any]:
    """What later versions added."""
    version = lens.version
    fields = {
        "locked": server.locked, "locked_reason": server.locked_reason, "description": server.description,
        "tags": list(server.tags), "trusted_image_certificates": list(server.trusted_certs) or None,
        "pinned_availability_zone": server.pinned_zone, "scheduler_hints": server.hints,
        "server_groups": [server.group_id] if server.group_id else []}
    found = {name: value for name, value in fields.items() if known(f"server.{name}", version)}
    if lens.host_status and known("server.host_status", version):
        found["host_status"] = lens.hosts.get(server.host, "UNKNOWN") if server.host else ""
    if not lens.admin and known("server.hostname_for_all", version):
        found["OS-EXT-SRV-ATTR:hostname"] = server.hostname
    return found
