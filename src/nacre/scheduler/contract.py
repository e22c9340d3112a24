"""What others may ask of the scheduler."""

from datetime import datetime
from typing import Annotated, Protocol

import msgspec

from nacre.base import bounds
from nacre.base.bounds import Amount, Count, Ratio
from nacre.base.durable.processes import Guard
from nacre.base.errors import NoValidHost


class TooEarly(NoValidHost):
    """No host fits, but some had no chance yet to say that they live: worth another try soon."""


class DiskReport(msgspec.Struct, frozen=True, kw_only=True):
    """One of a host's several disk directories. MB. shares: into how many parts its I/O is divided (0: not)."""

    path: bounds.Name
    total_mb: Amount
    used_mb: Amount
    shares: Amount = 0
    shares_used: Amount = 0
    bandwidth: Amount = 0  # MB/s; its shares are parts of it


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """What a host has. since: the number of the host's first word, report or answer, that had it so (0: this one's)."""

    allocation: bounds.Id
    server_id: bounds.Id
    epoch: bounds.Epoch
    power: bounds.Word = "missing"  # its guest's: or running, paused, shutdown, crashed
    since: Count = 0


class HostReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a compute host says of itself: totals, what claims took, its own configuration (FLOW A6: extra_resources).
    Memory MB, disk GB, bandwidth: `BuildOrder`'s; 0: not counted. One of an older (incarnation, n) changes nothing."""

    host: bounds.Name
    incarnation: Count = 0  # counts the host's starts
    n: Count = 0
    hypervisor_type: bounds.Short
    hypervisor_version: Count
    vcpus: Amount
    memory_mb: Amount
    disk_gb: Amount
    vcpus_used: Amount
    memory_mb_used: Amount
    disk_gb_used: bounds.Size
    running: Amount = 0
    queue_name: bounds.Name = "kvm"
    cpu_ratio: Ratio = 1.0
    ram_ratio: Ratio = 1.0
    disk_ratio: Ratio = 1.0
    reserved_memory_mb: Amount = 0
    net_bandwidth: Amount = 0
    net_bandwidth_used: Amount = 0
    disk_bandwidth: Amount = 0
    disk_bandwidth_used: Amount = 0
    disks: Annotated[tuple[DiskReport, ...], msgspec.Meta(max_length=100)] = ()  # empty: one directory, of disk_gb
    host_ip: bounds.Short = "127.0.0.1"
    cpu_info: bounds.Facts = "{}"
    architecture: bounds.Short = "x86_64"
    held: Annotated[tuple[Held, ...], msgspec.Meta(max_length=10_000)] = ()

    def __post_init__(self) -> None:
        bounds.facts(self.cpu_info)

    @property
    def number(self) -> tuple[int, int]:
        return self.incarnation, self.n


class HostLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a host may hold in all: the claim there is held to it. disk_mb, disk_shares: of the server's directory."""

    vcpus: float
    memory_mb: float
    disk_mb: float
    net_bandwidth: float = float("inf")
    disk_bandwidth: float = float("inf")
    disk_shares: float = float("inf")
    directory_bandwidth: int = 0


class Amounts(msgspec.Struct, frozen=True, kw_only=True):
    """What one server takes of a host (FLOW A9). disk: the directory, of a host with several; in a wish empty: any."""

    memory_mb: int
    vcpus: int
    disk_mb: int
    net_bandwidth: int = 0
    disk_bandwidth: int = 0
    disk_shares: int = 0
    disk: str = ""


class GroupRule(msgspec.Struct, frozen=True, kw_only=True):
    """A server group's wish. policy: affinity, anti-affinity, soft-affinity, soft-anti-affinity. members: servers."""

    id: str
    policy: str
    members: tuple[str, ...] = ()
    max_per_host: int = 1


class PlacementRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A wish for one host for each of `server_ids`, who take the same amounts."""

    server_ids: tuple[str, ...]
    project_id: str
    amounts: Amounts
    min_count: int = 0  # so many must find a place, or none is taken; 0: all
    queue_name: str | None = None
    host: str | None = None  # `scheduler_host`, `zone:host`: only there
    host_match: str | None = None
    availability_zone: str | None = None
    different_host: tuple[str, ...] = ()  # servers to stay away from
    try_different_host: bool = False
    same_host: tuple[str, ...] = ()
    spread: bool = False  # the servers of this request on different hosts
    group: GroupRule | None = None
    query: str | None = None  # Nova's JSON filter
    ignore_hosts: tuple[str, ...] = ()  # retry: those that failed
    extra_specs: dict[str, str] = {}
    image_properties: dict[str, str] = {}


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """Where one server goes. allocation: its new id. host empty: nowhere, and why; details: for administrators."""

    server_id: str
    host: str
    allocation: str = ""
    limits: HostLimits | None = None
    selected_dir: str = ""
    why: str = ""
    details: str = ""


class Allocation(msgspec.Struct, frozen=True, kw_only=True):
    """Room of a host that a server has. purpose: build; state: wanted (the host may have it), held (the server lives
    there), ending (the host must give it up). position, era: of the database, when it was written."""

    id: str
    server_id: str
    host: str
    epoch: int
    purpose: str
    state: str
    amounts: Amounts
    position: int = 0
    era: str = ""


class HostState(msgspec.Struct, frozen=True, kw_only=True):
    """As operators see it. met: it said hello to this process, by that journal; barred: why no orders. Naive UTC."""

    id: int
    uuid: str
    report: HostReport
    up: bool
    disabled: bool = False
    disabled_reason: str | None = None
    forced_down: bool = False
    barred: str = ""
    met: bool = False
    journal: str = ""
    updated_at: datetime | None = None
    created_at: datetime | None = None


class Scheduler(Protocol):
    """Chooses hosts, optimistically: the claim at the host is final (`manager.py` describes each verb)."""

    async def select(self, request: PlacementRequest) -> tuple[Placement, ...]: ...
    async def plan(self, request: PlacementRequest) -> tuple[Placement, ...]: ...
    async def released(self, allocation: str) -> None: ...
    async def withdrawn(self, server_id: str) -> None: ...
    async def report(self, report: HostReport, *, anew: bool = False) -> bool: ...
    async def refresh(self) -> None: ...
    async def limits(self, host: str, directory: str) -> HostLimits | None: ...
    async def check(self, query: str) -> None: ...


class Hosts(Protocol):
    """What is known of hosts (`registry.py` describes each verb)."""

    async def all(self) -> tuple[HostState, ...]: ...
    async def get(self, host: str) -> HostState | None: ...
    async def set_service(self, host: str, *, disabled: bool | None = None, reason: str | None = None,
                          forced_down: bool | None = None) -> HostState: ...
    async def forget(self, host: str) -> None: ...
    async def bar(self, host: str, why: str, journal: str = "") -> None: ...
    async def accept(self, host: str) -> None: ...
    async def word(self, host: str) -> Guard | None: ...
