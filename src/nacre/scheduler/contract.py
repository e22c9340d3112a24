"""What others may ask of the scheduler."""

from datetime import datetime
from typing import Protocol

import msgspec


class HostReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a compute host says of itself, at start, on change and periodically. Memory in MB, disk in GB."""

    host: str
    hypervisor_type: str
    hypervisor_version: int
    vcpus: int
    memory_mb: int
    disk_gb: int
    vcpus_used: int
    memory_mb_used: int
    disk_gb_used: float
    running: int = 0
    queue_name: str = "kvm"
    cpu_ratio: float = 1.0
    ram_ratio: float = 1.0
    disk_ratio: float = 1.0
    reserved_memory_mb: int = 0
    host_ip: str = "127.0.0.1"
    cpu_info: str = "{}"
    architecture: str = "x86_64"


class HostLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What the scheduler believes the host may hold in all; the claim at the host is held to it."""

    vcpus: float
    memory_mb: float
    disk_mb: float


class PlacementRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A wish for one host for each of `server_ids`. disk_mb = 1024 * (root + ephemeral) + swap (FLOW A9)."""

    server_ids: tuple[str, ...]
    project_id: str
    memory_mb: int
    vcpus: int
    disk_mb: int
    queue_name: str | None = None
    host: str | None = None  # `scheduler_host`, `zone:host`: only there
    host_match: str | None = None
    availability_zone: str | None = None
    different_host: tuple[str, ...] = ()  # servers to stay away from
    try_different_host: bool = False
    same_host: tuple[str, ...] = ()
    spread: bool = False  # the servers of this request on different hosts
    ignore_hosts: tuple[str, ...] = ()  # retry: those that failed
    alternates: int = 2
    extra_specs: dict[str, str] = {}
    image_properties: dict[str, str] = {}


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """Where one server goes, and where it may go instead if that host refuses."""

    server_id: str
    host: str
    limits: HostLimits
    alternates: tuple[str, ...] = ()
    why: str = ""


class HostState(msgspec.Struct, frozen=True, kw_only=True):
    """A compute host and its service, as operators see them. Times are naive UTC."""

    id: int
    uuid: str
    report: HostReport
    up: bool
    disabled: bool = False
    disabled_reason: str | None = None
    forced_down: bool = False
    updated_at: datetime | None = None
    created_at: datetime | None = None


class Scheduler(Protocol):
    """Chooses hosts, optimistically: the claim at the host is final."""

    async def select(self, request: PlacementRequest) -> tuple[Placement, ...]:
        """One placement a server, all or none. Raises NoValidHost with the counted reasons."""
        ...

    async def released(self, host: str, memory_mb: int, vcpus: int, disk_mb: int) -> None:
        """What a placement took is free again (refused, failed, deleted)."""
        ...

    async def report(self, report: HostReport) -> None:
        """A node's totals and usage: kept in memory, and a row written when it changes."""
        ...

    async def hosts(self) -> tuple[HostState, ...]:
        """Every host that ever reported, by name, as last heard."""
        ...

    async def set_service(self, host: str, *, disabled: bool | None = None, reason: str | None = None,
                          forced_down: bool | None = None) -> HostState:
        """Change what an operator may change of a host's service. Raises NotFound."""
        ...

    async def forget(self, host: str) -> None:
        """Remove a host's record (its service was deleted). Raises NotFound."""
        ...
