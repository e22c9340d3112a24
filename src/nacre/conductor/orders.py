"""Pure: from a server and what was asked for to the orders that the scheduler, the network and a host get."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import msgspec
from oslo_utils.strutils import bool_from_string

from nacre.base.durable.processes import Guard
from nacre.base.errors import BadRequest
from nacre.compute.contract import Group, Server, ServerSpec, StoryOrder
from nacre.image.contract import ImageFacts
from nacre.network.contract import Plugged, PortsOrder
from nacre.node.contract import BuildOrder, GuestFacts, SpawnOrder
from nacre.scheduler.contract import Allocation, Amounts, GroupRule, HostLimits, PlacementRequest

#: Limits of a host that says nothing: its own claim has the last word.
UNLIMITED = HostLimits(vcpus=float("inf"), memory_mb=float("inf"), disk_mb=float("inf"))

#: The id of no server: to be with it is what no host fulfils.
NOBODY = ""
#: Our own extra specs begin so; the rest of the name is the hint's.
SCOPE = "nacre:"
#: No amount is larger.
MOST = 10**7


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    return tuple(str(v) for v in value) if isinstance(value, list | tuple) else ()


def named(server: Server) -> tuple[str, ...]:
    """The ids of other servers that a server's hints name."""
    return (*_texts(server.hints.get("different_host")), *_texts(server.hints.get("same_host")))


def placement_request(servers: Sequence[Server], order: StoryOrder, group: Group | None = None,
                      ignore: Sequence[str] = (), known: Collection[str] = ()) -> PlacementRequest:
    """One host for each of these servers of one request, or for as many as it asked for at least (FLOW A7-A13). known:
    those of the `named` servers that its project may know of; another is on no host. Raises BadRequest: an amount is no
    number."""
    first, spec = servers[0], order.spec
    hints = first.hints
    zone, _, zone_host = ((spec.availability_zone if spec else None) or first.pinned_zone or "").partition(":")
    away = hints.get("different_host")
    apart = () if bool_from_string(away) else tuple(s for s in _texts(away) if s in known)
    together = tuple(s if s in known else NOBODY for s in _texts(hints.get("same_host")))
    least = (spec.min_count - spec.max_count if spec else 0) + len(servers)
    rule = None if group is None or first.group_id is None else GroupRule(
        id=first.group_id, policy=group.policy, members=group.members, max_per_host=group.max_per_host)
    return PlacementRequest(
        server_ids=tuple(s.id for s in servers), project_id=first.project_id, amounts=amounts(first),
        min_count=max(1, least), group=rule, query=_word(hints, "query"),
        queue_name=first.flavor.extra_specs.get(SCOPE + "queue_name") or _word(hints, "queue_name"),
        host=_word(hints, "scheduler_host") or (spec.host if spec else None) or zone_host or None,
        host_match=_word(hints, "scheduler_host_match"), availability_zone=zone or None,
        different_host=apart, spread=bool_from_string(away),
        try_different_host=bool_from_string(hints.get("try_different_host")), same_host=together,
        ignore_hosts=tuple(ignore), extra_specs=first.flavor.extra_specs, image_properties=first.image_properties)


def _word(hints: dict[str, object], name: str) -> str | None:
    found = _texts(hints.get(name))
    return found[0] if found else None


def ports_order(server: Server, order: StoryOrder, guard: Guard) -> PortsOrder:
    """The interfaces of one server, made while the guard stands."""
    spec = order.spec
    return PortsOrder(
        server_id=server.id, context=order.context, requests=spec.networks if spec else (),
        security_groups=spec.security_groups if spec else (), hostname=server.hostname,
        availability_zone=server.availability_zone or "nova", guard=guard)


@dataclass(frozen=True)
class Attempt:
    """One server for one host, with all that its orders are made of. guest: without what only the spec knows; images:
    disk, kernel, ramdisk."""

    cloud: str
    server: Server
    allocation: Allocation
    limits: HostLimits | None
    guest: GuestFacts
    images: tuple[ImageFacts | None, ImageFacts | None, ImageFacts | None]
    spec: ServerSpec | None


def build_order(attempt: Attempt) -> BuildOrder:
    """What a host needs to claim room for the server and make its disks: no secrets, as the host keeps it."""
    server, allocation, limits = attempt.server, attempt.allocation, attempt.limits or UNLIMITED
    f, wanted, images = server.flavor, allocation.amounts, attempt.images
    return BuildOrder(
        cloud=attempt.cloud, allocation=allocation.id, server_id=server.id, epoch=allocation.epoch,
        position=allocation.position, era=allocation.era,
        memory_mb=f.memory_mb, vcpus=f.vcpus, root_gb=f.root_gb, ephemeral_gb=f.ephemeral_gb, swap_mb=f.swap_mb,
        limit_vcpus=limits.vcpus, limit_memory_mb=limits.memory_mb, limit_disk_mb=limits.disk_mb,
        guest=msgspec.structs.replace(attempt.guest, user_data=None, metadata={}),
        image=images[0], kernel=images[1], ramdisk=images[2],
        config_drive=server.config_drive or bool(attempt.spec and attempt.spec.files), extra_specs=f.extra_specs,
        domain_name=server.domain_name, net_bandwidth=wanted.net_bandwidth, disk_bandwidth=wanted.disk_bandwidth,
        disk_shares=wanted.disk_shares, selected_dir=wanted.disk, limit_net_bandwidth=limits.net_bandwidth,
        limit_disk_bandwidth=limits.disk_bandwidth, limit_disk_shares=limits.disk_shares,
        directory_bandwidth=limits.directory_bandwidth)


def spawn_order(attempt: Attempt, plugged: Plugged) -> SpawnOrder:
    """What a host needs to start the guest, with what only the guest is to know."""
    guest, spec, allocation = attempt.guest, attempt.spec, attempt.allocation
    if spec is not None:
        guest = msgspec.structs.replace(guest, admin_password=spec.admin_password, files=spec.files)
    return SpawnOrder(cloud=attempt.cloud, allocation=allocation.id, server_id=allocation.server_id,
                      epoch=allocation.epoch, ports=plugged.ports, networks=plugged.networks, guest=guest)


def amounts(server: Server) -> Amounts:
    """What a server takes of its host (FLOW A9 and the extra resources), from its flavor, the flavor's extra specs and
    the user's hints. A flavor's word counts before a hint: whoever may choose a flavor cannot ask for more than it
    gives. Raises BadRequest: an extra spec or hint is no number."""
    f, specs, hints = server.flavor, server.flavor.extra_specs, server.hints
    network = _number(specs, SCOPE + "network_bandwidth") or _network(specs) or _number(hints, "network_bandwidth")
    disk = _number(specs, SCOPE + "disk_bandwidth") or _disk(specs) or _number(hints, "disk_bandwidth")
    return Amounts(
        memory_mb=f.memory_mb, vcpus=f.vcpus, disk_mb=1024 * (f.root_gb + f.ephemeral_gb) + f.swap_mb,
        net_bandwidth=network, disk_bandwidth=disk,
        disk_shares=_number(specs, SCOPE + "disk_shares") or _number(hints, "disk_shares"),
        disk=specs.get(SCOPE + "selected_dir") or str(hints.get("selected_dir") or ""))


def _network(specs: Mapping[str, str]) -> int:
    """Nova's `quota:vif_*_average` are kilobytes a second; the larger direction counts, in Mbit/s."""
    most = max(_number(specs, f"quota:vif_{way}_average", 1 << 40) for way in ("inbound", "outbound"))
    return math.ceil(most * 8 / 1000)


def _disk(specs: Mapping[str, str]) -> int:
    """Nova's `quota:disk_*_bytes_sec`, in MB/s; reading and writing together."""
    total = _number(specs, "quota:disk_total_bytes_sec", 1 << 50) or sum(
        _number(specs, f"quota:disk_{way}_bytes_sec", 1 << 50) for way in ("read", "write"))
    return math.ceil(total / 1e6)


def _number(given: Mapping[str, object], name: str, most: int = MOST) -> int:
    """A number of 0 to `most`; 0 if there is none."""
    value = given.get(name)
    if value is None or value == "":
        return 0
    text = str(value)
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= most):
        raise BadRequest(f"{name} must be a whole number of 0 to {most}.", field=name)
    return int(text)
