"""Filters: functions (request, host) -> None, or why not. A reason is a short phrase that counts well ("lack 512 MB of
memory"); amounts are the request's, so that hosts with the same problem share one phrase."""

from collections.abc import Callable

from nacre.scheduler.contract import PlacementRequest
from nacre.scheduler.hosts import Host

Filter = Callable[[PlacementRequest, Host], str | None]


def service(_: PlacementRequest, host: Host) -> str | None:
    if host.disabled:
        return "are disabled"
    return None if host.up else "are down"


def retry(request: PlacementRequest, host: Host) -> str | None:
    """FLOW A13: hosts that failed are not tried again."""
    return "were tried already" if host.name in request.ignore_hosts else None


def forced_host(request: PlacementRequest, host: Host) -> str | None:
    return "are not the host asked for" if request.host is not None and host.name != request.host else None


def zone(request: PlacementRequest, host: Host) -> str | None:
    wanted = request.availability_zone
    return f"are not in availability zone {wanted}" if wanted is not None and host.zone != wanted else None


def resources(request: PlacementRequest, host: Host) -> str | None:
    """FLOW A12: a request of zero memory or vcpus skips that check; disk is always checked."""
    if request.memory_mb and host.free_memory_mb < request.memory_mb:
        return f"lack {request.memory_mb} MB of memory"
    if request.vcpus and host.free_vcpus < request.vcpus:
        return f"lack {request.vcpus} vcpus"
    if host.free_disk_mb < request.disk_mb:
        return f"lack {request.disk_mb} MB of disk"
    return None


def different_host(request: PlacementRequest, host: Host) -> str | None:
    if request.try_different_host:
        return None
    return "run a server to stay away from" if host.servers.intersection(request.different_host) else None


def same_host(request: PlacementRequest, host: Host) -> str | None:
    if request.same_host and not host.servers.intersection(request.same_host):
        return "do not run the server to be with"
    return None


def architecture(request: PlacementRequest, host: Host) -> str | None:
    wanted = request.image_properties.get("hw_architecture") or request.image_properties.get("architecture")
    return f"are not {wanted}" if wanted and wanted != host.architecture else None


#: In the order they are asked: cheap and telling ones first.
FILTERS: dict[str, Filter] = {
    "service": service, "retry": retry, "forced_host": forced_host, "zone": zone, "resources": resources,
    "different_host": different_host, "same_host": same_host, "architecture": architecture,
}
